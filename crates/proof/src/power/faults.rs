//! One call after the other is made to fail: a full disk, a broken one, half a write.
//!
//! The product may end with an error; what it had acknowledged must be there afterwards, whether
//! power is lost then or not, and it must open again once the disk is well.

use std::{
    io,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{
    bench::{self, Bench, Kit, Planned},
    history::{History, Subject},
    in_words, locked,
};
use crate::crash::{breach::Fault, dice::Dice};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What a call meets: its name, the error, and whether the disk stays full.
const KINDS: [(&str, i32, bool); 4] = [
    ("EIO", EIO, false),
    ("ENOSPC", ENOSPC, false),
    ("ENOSPC from then on", ENOSPC, true),
    ("half a write", 0, false),
];

/// Calls of one process that are tried at most. A subject makes some hundreds.
const CALLS_MAX: u64 = 5000;

/// What came of one subject and one kind of fault.
#[derive(Debug, Default)]
struct Outcome {
    hit: u64,
    refused: u64,
    found: Vec<String>,
}

/// Exit code 1 when a promise was not kept.
pub(super) fn run(kit: &Kit, seed: u64, jobs: usize) -> io::Result<ExitCode> {
    let mut found = 0;
    println!(
        "{:>6}  {:>8}  {:>6}  what failed",
        "calls", "refusals", "broken"
    );
    for subject in Subject::ALL {
        let mut dice = Dice::of_round(seed, 0);
        let mut bench = Bench::busy(kit, &mut dice)?;
        let mut history = History::new(&bench, &mut dice).map_err(in_words)?;
        history.prepare(&mut bench, subject).map_err(in_words)?;
        for kind in KINDS {
            let outcome = each_call(&bench, &history, subject, kind, seed, jobs)?;
            println!(
                "{:>6}  {:>8}  {:>6}  {} during {}",
                outcome.hit,
                outcome.refused,
                outcome.found.len(),
                kind.0,
                subject.words(),
            );
            for words in &outcome.found {
                println!("{words}");
            }
            found += outcome.found.len();
        }
    }
    Ok(ExitCode::from(u8::from(found > 0)))
}

/// Until a process ends before its call of that number.
fn each_call(
    bench: &Bench<'_>,
    history: &History,
    subject: Subject,
    (name, errno, sticky): (&str, i32, bool),
    seed: u64,
    jobs: usize,
) -> io::Result<Outcome> {
    let (next, done) = (AtomicU64::new(1), AtomicBool::new(false));
    let total = Mutex::new(Outcome::default());
    let failure = Mutex::new(None);
    let work = || {
        while !done.load(Ordering::Relaxed) {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let planned = Planned { nth, errno, sticky };
            match one_call(bench, history, subject, planned, seed) {
                Ok(Tried::NotReached) if nth <= CALLS_MAX => {
                    done.store(true, Ordering::Relaxed);
                }
                Ok(Tried::NotReached) => return,
                Ok(Tried::Kept { refused }) => {
                    let mut total = locked(&total);
                    total.hit += 1;
                    total.refused += u64::from(refused);
                }
                Ok(Tried::Broken(words)) => {
                    let mut total = locked(&total);
                    total.hit += 1;
                    total.found.push(format!("{words}\n  call {nth}, {name}"));
                }
                Err(error) => {
                    done.store(true, Ordering::Relaxed);
                    locked(&failure).get_or_insert(error);
                }
            }
            if nth >= CALLS_MAX {
                done.store(true, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    match locked(&failure).take() {
        Some(error) => Err(error),
        None => Ok(std::mem::take(&mut *locked(&total))),
    }
}

enum Tried {
    NotReached,
    Kept { refused: bool },
    Broken(String),
}

fn one_call(
    bench: &Bench<'_>,
    history: &History,
    subject: Subject,
    planned: Planned,
    seed: u64,
) -> io::Result<Tried> {
    let mut bench = bench.copy()?;
    let mut history = history.clone();
    let mut dice = Dice::of_round(seed, planned.nth);
    match history.suffer(&mut bench, subject, planned, &mut dice) {
        Ok(None) => Ok(Tried::NotReached),
        Ok(Some(refused)) => Ok(Tried::Kept { refused }),
        Err(Fault::Breach(breach)) => {
            let dir = bench.keep();
            Ok(Tried::Broken(format!("{breach}\n  {}", bench::kept(&dir))))
        }
        Err(fault) => Err(in_words(fault)),
    }
}
