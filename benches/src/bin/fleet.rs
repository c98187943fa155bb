//! A fleet of a thousand hosts through schedule, queue, rules and ledger on the embedded store, without a network.
//!
//! ```sh
//! cd benches && cargo run --release --bin fleet [FACTS]
//! ```
//!
//! Every host has the facts of this machine (or of FACTS, written by `holdfast scan --facts-out`) but its own name and
//! [`OWN_VALUES`] kernel parameters of its own, so that verdicts and evidence differ between hosts. Dispatched,
//! claimed, judged by the whole pack and recorded, one transaction a host, by [`WORKERS`] threads: once when every
//! verdict is first seen, once when nothing changed, and once when one verdict of each host flips.

use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use scan::{
    backend::{Backend, Embedded},
    collect, executor,
    facts::Facts,
    judge::{Summary, judge},
    ledger::{LogSink, Scan},
    policy::Policy,
    rule::{Pack, Rule},
    schedule::{Place, QueueKey},
    target::LocalTarget,
};
use serde_json::Value;
use world::{RealClock, RealDisk, RealRandom, Timestamp};

const HOSTS: usize = 1000;
const WORKERS: usize = 2;
const OWN_VALUES: usize = 30;
const START: u64 = 1_800_000_000_000_000_000;

fn main() {
    let pack = Pack::embedded().pack;
    let facts = match env::args().nth(1) {
        Some(file) => Facts::from_json(&fs::read(file).expect("the file can be read"))
            .expect("the file holds facts"),
        None => here(&pack.rules),
    };
    let dir = tempfile::tempdir_in(".").expect("a temporary directory can be made");
    let journal = wal::Options::on_this_machine(dir.path().join("journal"));
    let (journal, _) = wal::Local::open(journal).expect("a new journal opens");
    let options = store::Options::new(
        dir.path().join("tables"),
        Arc::new(RealDisk),
        Arc::new(RealClock::new()),
        scan::tables(),
    );
    let (store, _) = store::Store::open(options, Arc::new(journal)).expect("a new store opens");
    let key = QueueKey::from_bytes([7; 32]);
    let backend = Embedded::new(store, key, Arc::new(RealRandom)).expect("the tables are there");
    let start = Timestamp::from_nanos(START);
    for host in 0..HOSTS {
        let place = Place {
            host: format!("host-{host:04}"),
            site: format!("site-{}", host % 7),
            groups: ["all".to_owned()].into(),
        };
        backend
            .place(&place, start, "bench")
            .expect("the host is placed");
    }
    println!(
        "{HOSTS} hosts, {} rules, {WORKERS} workers\n",
        pack.rules.len()
    );
    println!("| round | hosts/s | verdicts/s | peak MB |");
    println!("|---|---:|---:|---:|");
    for (round, name) in ["first seen", "nothing changed", "one flip a host"]
        .iter()
        .enumerate()
    {
        // Two days on, every host is due whatever its state.
        let now = Timestamp::from_nanos(START + round as u64 * 2 * 86_400_000_000_000);
        let begin = Instant::now();
        let done = scan_all(&backend, &pack.rules, &facts, now, round == 2);
        let seconds = begin.elapsed().as_secs_f64();
        assert_eq!(done, HOSTS, "every host is scanned once in a round");
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} |",
            done as f64 / seconds,
            (done * pack.rules.len()) as f64 / seconds,
            peak_mb()
        );
    }
}

/// Ticks until nothing is due, and scans what they dispatch.
fn scan_all(
    backend: &Embedded,
    rules: &[Rule],
    facts: &Facts,
    now: Timestamp,
    flip: bool,
) -> usize {
    let policy = Policy::default();
    let done = AtomicUsize::new(0);
    let mut tick = 0;
    loop {
        let at = Timestamp::from_nanos(now.nanos() + 60_000_000_000 * tick);
        tick += 1;
        let dispatched = backend.dispatch(at, &policy).expect("a tick dispatches");
        if dispatched.jobs.is_empty() {
            return done.into_inner();
        }
        thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (policy, done) = (&policy, &done);
                scope.spawn(move || {
                    // Each worker's own: hosts differ in few values, and copying the rest for each
                    // would be most of what is measured.
                    let mut facts = facts.clone();
                    let worker = format!("worker-{worker}");
                    loop {
                        let claims = backend
                            .claim(&worker, 8, at, policy)
                            .expect("jobs are claimed");
                        if claims.is_empty() {
                            return;
                        }
                        for claimed in claims {
                            let scan =
                                judged(rules, &mut facts, &claimed.host, claimed.scan, at, flip);
                            backend
                                .complete(&claimed, &scan, at, policy, &LogSink)
                                .expect("the scan is recorded");
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
    }
}

fn judged(
    rules: &[Rule],
    facts: &mut Facts,
    host: &str,
    id: uuid::Uuid,
    at: Timestamp,
    flip: bool,
) -> Scan {
    become_host(facts, host, flip);
    let verdicts = judge(rules, facts);
    Scan {
        id,
        host: host.to_owned(),
        started: at,
        finished: at,
        summary: Summary::of(verdicts.iter().map(|verdict| verdict.verdict)),
        findings: executor::findings(rules, &verdicts),
    }
}

fn become_host(facts: &mut Facts, host: &str, flip: bool) {
    facts.host.hostname = host.to_owned();
    let running = facts
        .facts
        .get_mut("sysctl")
        .and_then(|sysctl| sysctl.get_mut("running"))
        .and_then(Value::as_object_mut)
        .expect("the facts have kernel parameters");
    let number: usize = host[5..].parse().expect("hosts are numbered");
    let len = running.len();
    for (index, value) in running.values_mut().enumerate() {
        if index % (len / OWN_VALUES) == 0 {
            *value = format!("{number}{index}").into();
        }
    }
    running.insert(
        "kernel.randomize_va_space".into(),
        if flip { "0" } else { "2" }.into(),
    );
}

fn peak_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.expect("the line has a number") * 1024.0 / 1e6
}

fn here(rules: &[Rule]) -> Facts {
    let clock = Arc::new(RealClock::new());
    let target = LocalTarget::new("/", clock.clone()).expect("this machine can be looked at");
    let collectors: Vec<_> = collect::list()
        .iter()
        .copied()
        .filter(|collector| collector.name != "walk")
        .collect();
    let needs = Arc::new(collect::Needs::of(rules));
    collect::collect_only(&collectors, Arc::new(target), needs, Arc::new(()), clock)
}
