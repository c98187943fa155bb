//! Links that are slow, and links that break; many hosts at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use scan::{
    capture,
    collect::{Collector, Needs, Progress},
    credential::Sudo,
    failure::Reason,
    rule::Pack,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    runtime::Runtime,
    sync::mpsc,
};
use world::{Clock, RealClock, RealRandom};

use crate::Peer;

use libtest_mimic::Trial;

use super::server::{Login, SERVER, Server, ask, endpoint};

pub(super) fn tests() -> Vec<Trial> {
    vec![
        SERVER.test("ssh_a_slow_link_costs_a_few_round_trips", slow),
        SERVER.test(
            "ssh_a_link_that_breaks_anywhere_is_a_failure_with_a_reason",
            cut,
        ),
        SERVER.test("ssh_a_hundred_hosts_at_once", hundred),
    ]
}

struct Quiet;

impl Progress for Quiet {}

/// Without the walk over all files: it runs beside the questions and asks none.
fn asked() -> Vec<&'static Collector> {
    let collectors = scan::collect::list().iter().copied();
    collectors
        .filter(|collector| collector.name != "walk")
        .collect()
}

/// Between client and server: every byte arrives late, and after so many bytes none does.
struct Proxy {
    port: u16,
    sent: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Proxy {
    fn start(to: u16, delay: Duration, cut_after: u64) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                // Both ways share one count.
                let both = (Arc::clone(&counter), cut_after);
                tokio::spawn(pump(near_read, far_write, delay, both.clone()));
                tokio::spawn(pump(far_read, near_write, delay, both));
            }
        });
        Self {
            port,
            sent,
            _runtime: runtime,
        }
    }
}

/// Reading goes on while what was read waits: a delay, not a bottleneck.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    (counter, cut_after): (Arc<AtomicU64>, u64),
) {
    let (sender, mut receiver) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = tokio::time::Instant::now() + delay;
            if sender.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    });
    while let Some((due, mut bytes)) = receiver.recv().await {
        tokio::time::sleep_until(due).await;
        let length = u64::try_from(bytes.len()).unwrap();
        let before = counter.fetch_add(length, Ordering::Relaxed);
        let room = cut_after.saturating_sub(before);
        bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if to.write_all(&bytes).await.is_err() || room < length {
            return;
        }
    }
}

fn through(proxy: &Proxy, login: Login) -> Login {
    login.with(|login| login.endpoint = endpoint(proxy.port))
}

/// A whole collection, with the rules' questions and everything else that is always asked.
///
/// Proves: EXE-9
fn slow(_: &Peer) {
    let server = Server::start();
    // The delay of one way; what a collection took, connection and all, and its round trips.
    let collect = |milliseconds, rules: &[scan::rule::Rule]| {
        let proxy = Proxy::start(server.port, Duration::from_millis(milliseconds), u64::MAX);
        let login = through(&proxy, server.login("alice"))
            .with(|login| login.secret.sudo = Sudo::NoPassword);
        let begun = Instant::now();
        let (mut session, _) = login
            .connect()
            .unwrap()
            .start(&capture::command(), 3)
            .unwrap();
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let progress: Arc<dyn Progress> = Arc::new(Quiet);
        let (facts, rounds) = capture::collect(
            &mut session,
            &asked(),
            &Arc::new(Needs::of(rules)),
            &progress,
            &clock,
            &RealRandom,
            &capture::Limits::default(),
        )
        .unwrap();
        assert!(facts.facts.contains_key("os"));
        assert_eq!(session.round_trips(), rounds.round_trips);
        session.close();
        (begun.elapsed(), rounds.round_trips)
    };
    let rules = Pack::embedded().pack.rules;
    let few = collect(0, &rules[..10]);
    let all = collect(0, &rules);
    eprintln!(
        "round trips of {} rules: {}, of 10: {}",
        rules.len(),
        all.1,
        few.1
    );
    assert!(all.1 <= few.1 + 2, "{few:?} {all:?}");
    // Ten times the delay that is promised for, so that the noise of a loaded machine is small beside it.
    let near = all.0.min(collect(0, &rules).0);
    let far = collect(250, &rules);
    let added = far.0.saturating_sub(near) / 10;
    eprintln!(
        "collection: {near:?} near, {:?} at +500 ms: +50 ms add {added:?}",
        far.0
    );
    assert!(added < Duration::from_secs(1), "{near:?} near, {far:?} far");
}

/// Proves: EXE-6
fn cut(_: &Peer) {
    let server = Server::start();
    let whole = Proxy::start(server.port, Duration::ZERO, u64::MAX);
    let talk = |login: &Login| -> Result<String, scan::failure::Failure> {
        let (mut session, _) = login.start()?;
        ask(&mut session, "id -un")
    };
    assert_eq!(
        talk(&through(&whole, server.login("carol"))).unwrap(),
        "carol"
    );
    let total = whole.sent.load(Ordering::Relaxed);
    let mut broken = 0;
    // A step that hits every kind of byte: lengths, payloads, padding, tags.
    for at in (0..total).step_by(97) {
        let proxy = Proxy::start(server.port, Duration::ZERO, at);
        let login = through(&proxy, server.login("carol")).with(|login| {
            login.limits.connect = Duration::from_secs(5);
            login.deadline = Duration::from_secs(5);
            login.limits.close = Duration::from_millis(20);
        });
        if let Err(failure) = talk(&login) {
            broken += 1;
            let is_told = [Reason::HostUnreachable, Reason::Timeout, Reason::AuthFailed];
            assert!(
                is_told.contains(&failure.reason),
                "after {at} bytes: {failure}"
            );
        }
    }
    assert!(broken > 10, "{broken} of {total} bytes");
}

/// Proves: EXE-11
fn hundred(_: &Peer) {
    let server = Server::start();
    let login = Arc::new(server.login("carol"));
    let threads: Vec<_> = (0..100)
        .map(|number| {
            let login = Arc::clone(&login);
            thread::spawn(move || {
                let (mut session, _) = login.start()?;
                ask(&mut session, &format!("echo {number}"))
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let answer = thread
            .join()
            .unwrap()
            .unwrap_or_else(|failure| panic!("{number}: {failure}"));
        assert_eq!(answer, number.to_string());
    }
}
