//! Hosts that lie, stop, or do not stop.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use world::{Clock, Random, RealClock};

use super::shell::Shell;
use crate::{
    capture::{Exchange, Limits, Rounds, collect},
    collect::{self, Collector, Needs, Progress},
    facts::{Facts, Unknown},
    failure::{Failure, Reason},
};

/// Every draw is the same, so that a test knows the mark.
#[derive(Debug)]
struct Fixed;

impl Random for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        bytes.fill(0xa5);
        Ok(())
    }
}

const MARK: &str = "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5";

/// Says what it was given, in pieces, whatever it is asked; then repeats `forever`, or closes.
struct Host {
    pieces: Vec<Vec<u8>>,
    forever: Option<Vec<u8>>,
}

impl Exchange for Host {
    fn send(&mut self, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.pieces.is_empty() {
            return Ok(self.forever.clone());
        }
        Ok(Some(self.pieces.remove(0)))
    }
}

fn few() -> Vec<&'static Collector> {
    let all = collect::list().iter().copied();
    all.filter(|collector| matches!(collector.name, "cmdline" | "login_defs"))
        .collect()
}

fn small() -> Limits {
    Limits {
        session_bytes_max: 1 << 20,
        ..Limits::default()
    }
}

fn run(exchange: &mut dyn Exchange, limits: &Limits) -> Result<(Facts, Rounds), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let progress: Arc<dyn Progress> = Arc::new(());
    let needs = Arc::new(Needs::default());
    collect(exchange, &few(), &needs, &progress, &clock, &Fixed, limits)
}

fn says(bytes: &[u8]) -> Host {
    Host {
        pieces: vec![bytes.to_vec()],
        forever: None,
    }
}

/// All that a good host said in a session.
fn recorded() -> Vec<u8> {
    struct Recorder(Shell, Arc<Mutex<Vec<u8>>>);
    impl Exchange for Recorder {
        fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
            // Without compression more changed bytes mean something.
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.0.send(
                text.replace("gzip -1", "cat")
                    .replace("' z=z", "' z=p")
                    .as_bytes(),
            )
        }

        fn receive(&mut self) -> Result<Option<Vec<u8>>, Failure> {
            let bytes = self.0.receive()?;
            self.1.lock().unwrap().extend(bytes.iter().flatten());
            Ok(bytes)
        }
    }
    let said = Arc::new(Mutex::new(Vec::new()));
    let mut recorder = Recorder(Shell::start(&["/bin/sh"]), Arc::clone(&said));
    run(&mut recorder, &Limits::default()).unwrap();
    let said = said.lock().unwrap().clone();
    assert_eq!(run(&mut says(&said), &small()).unwrap().0.facts.len(), 2);
    said
}

/// Proves: EXE-7
#[test]
fn a_host_that_does_not_stop_is_left() {
    let check = |begin: &str, forever: &[u8]| {
        let mut host = Host {
            pieces: vec![begin.as_bytes().to_vec()],
            forever: Some(forever.to_vec()),
        };
        let failure = run(&mut host, &small()).unwrap_err();
        assert_eq!(
            failure.reason,
            Reason::EvidenceOversize,
            "{begin:?} {failure}"
        );
    };
    let line = vec![b'x'; 64 << 10];
    check("x", &line);
    check("x", b"\n");
    check(&format!("\n{MARK} B 1 p\n"), &line);
    check(&format!("\n{MARK} B 1 z\n"), &line);
    check(&format!("\n{MARK} B 1 p\n\n{MARK} o 1\n"), b"\0\xff\n");
    // The right frame never comes.
    check("x", format!("\n{MARK} B 2 p\n\n{MARK} E 2\n").as_bytes());
    check("x", format!("\n{MARK} E 1\n").as_bytes());
}

/// Proves: EXE-7
#[test]
fn an_answer_that_inflates_beyond_the_bound_is_left() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 200 << 10);
    let mut said = format!("\n{MARK} B 1 z\n").into_bytes();
    said.extend_from_slice(&bomb);
    said.extend_from_slice(format!("\n{MARK} E 1\n").as_bytes());
    let failure = run(&mut says(&said), &small()).unwrap_err();
    assert_eq!(failure.reason, Reason::EvidenceOversize, "{failure}");
}

#[test]
fn a_host_that_closes_is_reported_with_its_last_words() {
    let failure = run(&mut says(b"This account is not available.\n"), &small()).unwrap_err();
    assert_eq!(failure.reason, Reason::HostUnreachable);
    assert!(failure.detail.contains("not available"), "{failure}");
}

#[test]
fn an_answer_cut_at_any_byte_ends_the_collection() {
    let said = recorded();
    for cut in 0..said.len() {
        let failure = run(&mut says(&said[..cut]), &small()).unwrap_err();
        assert_eq!(failure.reason, Reason::HostUnreachable, "cut at {cut}");
    }
}

#[test]
fn an_answer_may_come_byte_by_byte_behind_words_of_a_login_script() {
    let mut said = b"Welcome!\r\nLast login: never\n".to_vec();
    said.extend(recorded());
    let mut host = Host {
        pieces: said.iter().map(|&byte| vec![byte]).collect(),
        forever: None,
    };
    assert!(run(&mut host, &small()).is_ok());
}

/// A frame without the expected sections: nothing in it says that something is absent.
///
/// Proves: EXE-13
#[test]
fn what_is_not_answered_is_unknown_and_never_absent() {
    let mut said = Vec::new();
    for number in 1..10 {
        said.extend(format!("\n{MARK} B {number} p\n\n{MARK} o 1\n\n{MARK} E {number}\n").bytes());
    }
    let (facts, rounds) = run(&mut says(&said), &small()).unwrap();
    assert!(rounds.round_trips <= 4, "{rounds:?}");
    for (name, fact) in &facts.facts {
        let unknown = Unknown::from_value(fact);
        assert!(unknown.is_some(), "{name}: {fact}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_answers_neither_panic_nor_hang(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
        piece in 1..5_000_usize,
    ) {
        static SAID: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut said = SAID.get_or_init(recorded).clone();
        for (at, byte) in changes {
            let at = at.index(said.len());
            said[at] = byte;
        }
        let mut lines: Vec<Vec<u8>> = said.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        let said = lines.concat();
        let mut host = Host {
            pieces: said.chunks(piece).map(<[u8]>::to_vec).collect(),
            forever: None,
        };
        if let Ok((facts, _)) = run(&mut host, &small()) {
            prop_assert_eq!(facts.facts.len(), 2);
        }
    }
}
