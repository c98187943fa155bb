//! A whole scan of this machine by the shipped binary, and the ledger alone.
//!
//! ```sh
//! cargo build --release && cd benches && cargo run --release --bin scan -- ../target/release/holdfast
//! ```
//!
//! Prints medians of [`RUNS`] runs: wall and processor seconds and the largest resident set of the
//! whole process, with and without the walk, each with a fresh data directory; then `lynis` once
//! beside it when it is installed. The ledger: one apply of 1,000 rules on a store on this disk, first
//! seen, unchanged, and with one flip.

use std::{
    env, mem,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use scan::{
    judge::{Outcome, Summary, digest},
    ledger::{Finding, Ledger, LogSink, Scan},
    rule::{Severity, Variables},
};
use world::{Clock, RealClock, RealDisk};

const RUNS: usize = 5;
const RULES: usize = 1000;
const APPLIES: usize = 51;

fn main() {
    let binary = env::args()
        .nth(1)
        .unwrap_or_else(|| "../target/release/holdfast".to_owned());
    println!("| command | wall s | cpu s | peak MB |");
    println!("|---|---:|---:|---:|");
    for args in [&["scan"][..], &["scan", "--no-walk"]] {
        whole_process(&binary, args, RUNS);
    }
    if Path::new("/usr/sbin/lynis").exists() {
        whole_process(
            "/usr/sbin/lynis",
            &["audit", "system", "--quick", "--quiet"],
            1,
        );
    } else {
        println!("| lynis | not installed | | |");
    }
    println!();
    ledger();
}

struct Cost {
    wall: f64,
    cpu: f64,
    peak_mb: f64,
}

fn whole_process(program: &str, args: &[&str], runs: usize) {
    let mut costs: Vec<Cost> = (0..runs).map(|_| run(program, args)).collect();
    let mut median = |by: fn(&Cost) -> f64| {
        costs.sort_by(|a, b| by(a).total_cmp(&by(b)));
        by(&costs[runs / 2])
    };
    println!(
        "| {} {} | {:.2} | {:.2} | {:.1} |",
        Path::new(program)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy(),
        args.join(" "),
        median(|cost| cost.wall),
        median(|cost| cost.cpu),
        median(|cost| cost.peak_mb),
    );
}

fn run(program: &str, args: &[&str]) -> Cost {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let begin = Instant::now();
    let child = Command::new(program)
        .args(args)
        .env("HOLDFAST_DATA_DIR", dir.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let pid = libc::pid_t::try_from(child.id()).expect("a pid fits");
    let mut status = 0;
    // SAFETY: both pointers are to live local variables of the types that wait4(2) writes, and zero
    // is a valid rusage. Nobody else waits for this child.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut usage), pid);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Cost {
        wall: begin.elapsed().as_secs_f64(),
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_mb: usage.ru_maxrss as f64 * 1024.0 / 1e6,
    }
}

fn ledger() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let journal = wal::Options::on_this_machine(dir.path().join("journal"));
    let (journal, _) = wal::Local::open(journal).expect("a new journal opens");
    let options = store::Options::new(
        dir.path().join("tables"),
        Arc::new(RealDisk),
        Arc::new(RealClock::new()),
        Ledger::tables(),
    );
    let (store, _) = store::Store::open(options, Arc::new(journal)).expect("a new store opens");
    let ledger = Ledger::new(store).expect("the tables are there");

    println!("| {RULES} rules applied | median ms | worst ms |");
    println!("|---|---:|---:|");
    let first: Vec<f64> = (0..APPLIES)
        .map(|number| apply(&ledger, &format!("host-{number}"), usize::MAX))
        .collect();
    print_row("first seen, evidence new on the first host", first);
    let same: Vec<f64> = (0..APPLIES)
        .map(|_| apply(&ledger, "host-0", usize::MAX))
        .collect();
    print_row("unchanged", same);
    let flips: Vec<f64> = (0..APPLIES)
        .map(|number| apply(&ledger, "host-0", number))
        .collect();
    print_row("one flip", flips);
}

fn print_row(name: &str, mut millis: Vec<f64>) {
    millis.sort_by(f64::total_cmp);
    println!(
        "| {name} | {:.2} | {:.2} |",
        millis[millis.len() / 2],
        millis[millis.len() - 1]
    );
}

/// Milliseconds of one apply, the commit included.
fn apply(ledger: &Ledger, host: &str, failing: usize) -> f64 {
    let clock = RealClock::new();
    let findings: Vec<Finding> = (0..RULES)
        .map(|number| finding(number, number == failing))
        .collect();
    let scan = Scan {
        id: uuid::Uuid::new_v4(),
        host: host.to_owned(),
        started: clock.now(),
        finished: clock.now(),
        summary: Summary::of(findings.iter().map(|finding| finding.verdict)),
        findings,
    };
    let begin = Instant::now();
    ledger.apply(&scan, &LogSink).expect("the apply succeeds");
    begin.elapsed().as_secs_f64() * 1e3
}

fn finding(number: usize, fails: bool) -> Finding {
    let rule = format!("rule-{number:04}");
    let value = if fails { "1" } else { "0" };
    let evidence = format!(
        "{{\"facts\":[{{\"fact\":\"sysctl.running[net.ipv4.key_{number}]\",\"value\":\"{value}\"}}],\
         \"rule\":\"{rule}\",\"schema\":\"holdfast.evidence/1\"}}"
    )
    .into_bytes();
    Finding {
        rule,
        severity: Severity::Medium,
        verdict: if fails { Outcome::Fail } else { Outcome::Pass },
        reason: format!("net.ipv4.key_{number} is {value}, wanted 0"),
        rule_digest: "0".repeat(64),
        rule_definition: "0".repeat(64),
        variables: Variables::default(),
        evidence_digest: digest(&evidence),
        evidence,
    }
}
