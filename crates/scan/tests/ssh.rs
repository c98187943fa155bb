//! Our SSH client against servers that mean no good, and what it says and logs about them.
//!
//! Every case ends within its limits, with a reason, and without the secret in any word or record.
//! The memory of this whole process, servers included, stays small whatever is sent.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

#[path = "ssh/server.rs"]
mod server;

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use scan::{
    capture::Exchange,
    collect::Progress,
    credential::{Secret, Sudo},
    failure::{Failure, Reason},
    known_hosts::Known,
    policy::HostKeyPolicy,
    ssh::{self, Endpoint, Limits, Patience, Privilege, Session, Trust},
};
use server::{Behaviour, Server};
use world::RealClock;
use zeroize::Zeroizing;

const PASSWORD: &str = "correct-horse-Recognisable";

/// For everything that a case may take; the tests assert reasons, not times.
const DEADLINE: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits {
    connect: Duration::from_millis(1500),
    authenticate: Duration::from_millis(1500),
    start: Duration::from_millis(1500),
    close: Duration::from_millis(100),
};

/// What the servers themselves, the runtime and the allocator need, with room; an endless sender would
/// pass it within a second.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

struct Quiet;

impl Progress for Quiet {}

/// Sees every record of every library at the finest level, keeps none.
struct Listener;

static HEARD_SECRET: AtomicBool = AtomicBool::new(false);
static RECORDS: AtomicU64 = AtomicU64::new(0);

impl Write for Listener {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        RECORDS.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(bytes);
        // Bytes are often shown as numbers.
        let numbers: Vec<String> = PASSWORD.bytes().map(|byte| byte.to_string()).collect();
        if text.contains(PASSWORD) || text.contains(&numbers.join(", ")) {
            HEARD_SECRET.store(true, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(|| Listener)
            .init();
    });
}

fn secret() -> Secret {
    let mut secret = Secret::of_user("someone", Sudo::Password);
    secret.password = Some(Zeroizing::new(PASSWORD.to_owned()));
    secret
}

fn start(port: u16, deadline: Duration) -> Result<(Session, Privilege), Failure> {
    listen();
    let endpoint = Endpoint {
        address: "127.0.0.1".to_owned(),
        port,
    };
    let trust = Trust {
        known: Known::in_file("", "127.0.0.1", port).unwrap(),
        policy: HostKeyPolicy::Tofu,
        first_sight: Arc::new(|_| Ok(())),
    };
    let patience = Patience::new(Arc::new(RealClock::new()), deadline, Arc::new(Quiet));
    let started = ssh::connect(&endpoint, &trust, || Ok(secret()), LIMITS, &patience)
        .and_then(|connection| connection.start("/bin/sh", 7));
    if let Err(failure) = &started {
        assert!(
            !format!("{failure} {failure:?}").contains(PASSWORD),
            "{failure}"
        );
    }
    assert!(
        !HEARD_SECRET.load(Ordering::Relaxed),
        "a log record holds the password"
    );
    started
}

fn kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A port behind which every connection gets this.
fn raw(act: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // The other side hangs up sooner or later; that is the end of it.
            act(stream.unwrap()).ok();
        }
    });
    port
}

/// Until the other side hangs up.
fn wait(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

fn endless(mut stream: TcpStream, chunk: &[u8]) -> io::Result<()> {
    loop {
        stream.write_all(chunk)?;
    }
}

/// A packet before encryption.
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 + (8 - (payload.len() + 5) % 8) % 8;
    let length = u32::try_from(payload.len() + padding + 1).unwrap();
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// What servers do before there is a key, and what that may end with.
fn beginnings() -> Vec<(&'static str, u16, Vec<Reason>)> {
    const HELLO: &[u8] = b"SSH-2.0-hostile\r\n";
    let noise: Vec<u8> = (0_u32..65_536)
        .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let after_hello = |chunk: Vec<u8>| {
        raw(move |mut stream| {
            stream.write_all(HELLO)?;
            endless(stream, &chunk)
        })
    };
    let (unreachable, timeout) = (Reason::HostUnreachable, Reason::Timeout);
    vec![
        ("silence", raw(wait), vec![timeout]),
        ("hangs up", raw(|_| Ok(())), vec![unreachable]),
        (
            "silence after its version",
            raw(|mut stream| {
                stream.write_all(HELLO)?;
                wait(stream)
            }),
            vec![timeout],
        ),
        (
            "a line without end",
            raw(|stream| endless(stream, &[b'A'; 65_536])),
            vec![unreachable],
        ),
        (
            "lines without end",
            raw(|stream| endless(stream, b"welcome\r\n".repeat(1000).as_slice())),
            vec![unreachable],
        ),
        (
            "noise",
            raw(move |stream| endless(stream, &noise)),
            vec![unreachable],
        ),
        (
            "a packet of 4 GiB",
            after_hello(vec![0xff; 65_536]),
            vec![unreachable],
        ),
        (
            "an empty packet",
            after_hello(vec![0; 65_536]),
            vec![unreachable],
        ),
        // IGNORE, DEBUG and a KEXINIT that is cut short.
        (
            "ignore without end",
            after_hello(packet(&[2, 0, 0, 0, 0]).repeat(1000)),
            vec![unreachable, timeout],
        ),
        (
            "debug without end",
            after_hello(packet(&[4, 0, 0, 0, 0, 0]).repeat(1000)),
            vec![unreachable, timeout],
        ),
        (
            "half a beginning",
            after_hello(packet(&[20; 40])),
            vec![unreachable, timeout],
        ),
        (
            "another protocol",
            raw(|mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
            vec![unreachable],
        ),
    ]
}

/// Proves: EXE-7
#[test]
fn servers_that_never_get_to_a_key_end_with_a_reason_and_little_memory() {
    let before = kib("VmRSS");
    for (name, port, expected) in beginnings() {
        let failure = start(port, DEADLINE).expect_err(name);
        assert!(expected.contains(&failure.reason), "{name}: {failure}");
    }
    let grown = kib("VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
}

/// Proves: EXE-6, EXE-7
#[test]
fn servers_that_let_us_in_and_misbehave_end_with_a_reason_and_little_memory() {
    let (auth, oversize) = (Reason::AuthFailed, Reason::EvidenceOversize);
    let (unreachable, timeout) = (Reason::HostUnreachable, Reason::Timeout);
    let before = kib("VmRSS");
    for (behaviour, expected) in [
        (Behaviour::RefusesAll, auth),
        (Behaviour::AsksWithoutEnd, auth),
        (Behaviour::AsksForTwoSecrets, auth),
        (Behaviour::NeverAnswers, timeout),
        (Behaviour::NoSession, auth),
        (Behaviour::NoExec, auth),
        (Behaviour::SilentAfterExec, timeout),
        (Behaviour::EndsAtOnce, auth),
        (Behaviour::PrintsWithoutEnd, oversize),
        (Behaviour::ComplainsWithoutEnd, oversize),
        (Behaviour::OpensChannels, unreachable),
        (Behaviour::HangsUp, unreachable),
        (Behaviour::WrongFirstLine, auth),
    ] {
        let server = Server::start(behaviour);
        let failure = start(server.port, DEADLINE).expect_err(&format!("{behaviour:?}"));
        assert_eq!(failure.reason, expected, "{behaviour:?}: {failure}");
    }
    let grown = kib("VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    assert!(
        RECORDS.load(Ordering::Relaxed) > 100,
        "the library's records were heard"
    );
}

/// A fast sender waits for a slow reader, and a reader that has enough is not held up by the rest.
///
/// Proves: EXE-7
#[test]
fn output_without_end_is_read_at_our_pace_and_left_when_we_have_enough() {
    let server = Server::start(Behaviour::StartsThenPrintsWithoutEnd);
    let before = kib("VmRSS");
    let (mut session, _) = start(server.port, DEADLINE).unwrap();
    let mut read = 0;
    while read < 8 << 20 {
        read += session.receive().unwrap().unwrap().len();
    }
    session.close();
    let grown = kib("VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
}

/// Proves: EXE-6
#[test]
fn a_host_that_stops_in_the_middle_is_a_timeout() {
    let short = Duration::from_secs(2);
    let server = Server::start(Behaviour::StartsThenSilent);
    let (mut session, _) = start(server.port, short).unwrap();
    session.send(b"question\n").unwrap();
    assert_eq!(session.receive().unwrap_err().reason, Reason::Timeout);

    // It takes nothing in: its window is full and stays so.
    let server = Server::start(Behaviour::NeverListens);
    let (mut session, _) = start(server.port, short).unwrap();
    let failure = session.send(&vec![b'x'; 1 << 20]).unwrap_err();
    assert_eq!(failure.reason, Reason::Timeout);
}

/// The server plays a sudo that asks, and notes what it is told.
///
/// Proves: EXE-8
#[test]
fn the_password_of_sudo_goes_to_our_own_prompt_and_goes_once() {
    let check = |behaviour, told: usize| {
        let server = Server::start(behaviour);
        let (_, privilege) = start(server.port, DEADLINE).unwrap();
        assert!(
            matches!(privilege, Privilege::None { .. }),
            "{behaviour:?}: {privilege:?}"
        );
        let heard = server.heard();
        assert_eq!(
            heard.matches(PASSWORD).count(),
            told,
            "{behaviour:?}: {heard:?}"
        );
    };
    check(Behaviour::PromptsOfItsOwn, 0);
    check(Behaviour::PromptsTwice, 1);
    check(Behaviour::PromptsWithoutEnd, 1);
}

#[test]
fn nothing_shows_a_secret() {
    assert!(!format!("{:?}", secret()).contains(PASSWORD));
    let server = Server::start(Behaviour::StartsThenSilent);
    let started = start(server.port, DEADLINE).unwrap();
    assert!(!format!("{started:?}").contains(PASSWORD));
}
