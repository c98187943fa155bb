//! How a fleet stands, now and a month ago, on a history of ten million verdicts.
//!
//! ```sh
//! cd benches && cargo run --release --bin standing
//! ```
//!
//! [`HOSTS`] hosts are scanned [`ROUNDS`] times by [`RULES`] rules, a month long by the store's own clock: so many
//! verdicts are applied, one transaction a scan, and of each scan [`FLIPS`] are other than before. Then the ledger is
//! opened again and asked. Nothing here is judged: findings are made up, their evidence small and valid.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use scan::{
    judge::{Outcome, Summary, digest},
    ledger::{Filter, Finding, Ledger, LogSink, Scan},
    policy::Bands,
    rule::{Severity, Variables},
};
use store::{Order, Store};
use world::{Clock, RealDisk, Timestamp};

const HOSTS: u64 = 1000;
const RULES: u64 = 250;
const ROUNDS: u64 = 40;
/// Verdicts of one scan that are not those of the scan before.
const FLIPS: u64 = 2;
const THREADS: u64 = 2;
const START: u64 = 1_800_000_000_000_000_000;
/// Forty rounds are thirty days.
const ROUND_NANOS: u64 = 18 * 3600 * 1_000_000_000;
const ASKED: usize = 50;

/// Time of the history; a microsecond goes by with each look.
#[derive(Debug)]
struct Told(AtomicU64);

impl Clock for Told {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.fetch_add(1000, Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

fn main() {
    let dir = tempfile::tempdir_in(".").expect("a temporary directory can be made");
    let clock = Arc::new(Told(AtomicU64::new(START)));
    let first_round = {
        let (ledger, store) = open(dir.path(), &clock);
        let begin = Instant::now();
        let (first_round, changes) = live(&ledger, &clock);
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "{} verdicts of {HOSTS} hosts and {RULES} rules applied in {seconds:.0} s, {:.0} scans/s, {changes} change rows",
            HOSTS * RULES * ROUNDS,
            (HOSTS * ROUNDS) as f64 / seconds,
        );
        store.close().expect("the store closes");
        first_round
    };
    let (ledger, _store) = open(dir.path(), &clock);
    println!("load {}\n", load());
    println!("| asked | first, ms | median, ms | slowest of {ASKED}, ms |");
    println!("|---|---:|---:|---:|");
    let bands = Bands::default();
    let standing = |at| {
        let fleet = ledger.fleet(at).expect("the fleet is answered");
        assert_eq!(fleet.hosts.len() as u64, HOSTS);
        assert_eq!(fleet.worst_rules(10).len(), 10);
        assert!(fleet.summary().score.is_some());
        fleet.states(&bands);
        fleet.unassessed().len() + fleet.worst_hosts(10).len()
    };
    row("status of all hosts", || standing(None));
    row("status of all hosts, a month back", || standing(Some(first_round)));
    row("status of one host", || states(&ledger, None));
    row("status of one host, a month back", || states(&ledger, Some(first_round)));
    row("history of one host and rule", || {
        let history = ledger.history("host-0500", "rule-000").expect("it is answered");
        assert!(!history.is_empty());
        history.len()
    });
    row("newest 100 changes of the fleet", || {
        let page = ledger.changes(&Filter::default(), Order::Descending, None, 100);
        page.expect("it is answered").rows.len()
    });
    row("newest 40 scans of one host", || {
        let page = ledger.scans("host-0500", None, 40);
        page.expect("it is answered").rows.len()
    });
}

fn states(ledger: &Ledger, at: Option<Timestamp>) -> usize {
    let status = ledger.status("host-0500", at).expect("it is answered");
    status.expect("the host has scans").states.len()
}

fn row(asked: &str, mut answer: impl FnMut() -> usize) {
    let mut once = || {
        let begin = Instant::now();
        std::hint::black_box(answer());
        begin.elapsed().as_secs_f64() * 1000.0
    };
    let first = once();
    let mut times: Vec<f64> = (0..ASKED).map(|_| once()).collect();
    times.sort_by(f64::total_cmp);
    let (median, slowest) = (times[ASKED / 2], times[ASKED - 1]);
    println!("| {asked} | {first:.1} | {median:.1} | {slowest:.1} |");
}

fn open(dir: &std::path::Path, clock: &Arc<Told>) -> (Ledger, Store) {
    let journal = wal::Options::on_this_machine(dir.join("journal"));
    let (journal, _) = wal::Local::open(journal).expect("the journal opens");
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let options = store::Options::new(dir.join("tables"), Arc::new(RealDisk), clock, Ledger::tables());
    let (store, _) = Store::open(options, Arc::new(journal)).expect("the store opens");
    (Ledger::new(store.clone()).expect("the tables are there"), store)
}

/// A moment after the first round, and how many changes there were altogether.
fn live(ledger: &Ledger, clock: &Told) -> (Timestamp, u64) {
    let changes = AtomicU64::new(0);
    let mut after_first = Timestamp::default();
    for round in 0..ROUNDS {
        clock.0.fetch_max(START + round * ROUND_NANOS, Ordering::SeqCst);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let changes = &changes;
                scope.spawn(move || {
                    for host in (thread..HOSTS).step_by(THREADS as usize) {
                        let scan = made_up(host, round, clock);
                        let applied = ledger.apply(&scan, &LogSink);
                        let applied = applied.expect("the scan is applied");
                        changes.fetch_add(applied.changes.len() as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        if round == 0 {
            after_first = clock.now();
        }
    }
    (after_first, changes.into_inner())
}

fn made_up(host: u64, round: u64, clock: &Told) -> Scan {
    let findings: Vec<Finding> = (0..RULES).map(|rule| finding(host, rule, round)).collect();
    let started = clock.now();
    Scan {
        id: uuid::Uuid::new_v4(),
        host: format!("host-{host:04}"),
        started,
        finished: clock.now(),
        summary: Summary::of(findings.iter().map(|finding| finding.verdict)),
        findings,
    }
}

/// Rules take turns to flip, each host at its own place; every tenth rule has a value of the host's own, every
/// twentieth cannot be assessed.
fn finding(host: u64, rule: u64, round: u64) -> Finding {
    let turns = (1..=round)
        .flat_map(|round| (0..FLIPS).map(move |flip| (round * FLIPS + flip + host) % RULES))
        .filter(|turned| *turned == rule)
        .count() as u64;
    let verdict = match (rule % 20, (rule + host / 10 + turns) % 3 + turns % 2) {
        (19, _) => Outcome::NotAssessed,
        (_, 0 | 2) => Outcome::Pass,
        _ => Outcome::Fail,
    };
    let own = if rule % 10 == 0 { host } else { 0 };
    let name = format!("rule-{rule:03}");
    let evidence = format!(
        r#"{{"facts":[{{"fact":"os.id","value":"{own} {turns}"}}],"rule":"{name}","schema":"holdfast.evidence/1"}}"#
    )
    .into_bytes();
    Finding {
        rule: name,
        severity: Severity::ALL[(rule % 4) as usize],
        verdict,
        reason: format!("os.id is {own} {turns}"),
        rule_digest: "0".repeat(64),
        rule_definition: "0".repeat(64),
        variables: Variables::new(),
        evidence_digest: digest(&evidence),
        evidence,
    }
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").expect("Linux has it");
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
