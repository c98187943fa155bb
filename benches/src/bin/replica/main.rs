//! A store on one node beside the same store on two, and how fast a node catches up.
//!
//! `cargo run --release --bin replica -- [commit|catch-up] [--rounds N] [--writers N] [--each N] [--mib N]
//! [--dir DIR]`
//!
//! `commit`: durable single commits by 64 threads to a store over its own log, over a group under `async`,
//! and over one under `sync:1`; the second node follows with a store of its own, as it does in the product,
//! on the same disk and the same processors. `catch-up`: a node that was away takes what was written
//! meanwhile, beside a plain file that is written, synced and read.

mod catch_up;
mod pair;

use std::{path::Path, process::ExitCode, sync::Mutex, thread, time::Instant};

use benches::{interleave, machine, number, print_table, quantile, require, scratch};
use pair::Pair;
use replica::machine::Mode;
use store::Store;

fn main() -> ExitCode {
    println!("{}", machine());
    let wanted = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with("--"));
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let dir = scratch();
    let mut holds = true;
    if is_wanted("commit") {
        holds &= commit(&dir.path().join("commit"));
    }
    if is_wanted("catch-up") {
        holds &= catch_up::run(&dir.path().join("catch-up"));
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One that takes commits.
struct Contestant {
    store: Store,
    /// Kept while it does.
    _pair: Option<Pair>,
    /// Microseconds of each commit of all rounds.
    micros: Vec<f64>,
    /// Of the whole process, while these commits were made: that of both nodes.
    processor_seconds: f64,
    commits: u64,
    round: u64,
}

fn commit(dir: &Path) -> bool {
    let alone = Contestant::new(pair::alone(&dir.join("alone")), None);
    let [asynchronous, synchronous] = [Mode::Async, Mode::Sync(1)].map(|mode| {
        let pair = Pair::open(&dir.join(format!("{mode:?}")), mode);
        Contestant::new(pair.store.clone(), Some(pair))
    });
    let mut contestants = [
        ("async".to_owned(), asynchronous),
        ("sync:1".to_owned(), synchronous),
        ("one node".to_owned(), alone),
    ];
    let (writers, each) = (number("--writers", 64), number("--each", 200));
    let series = interleave(number("--rounds", 11), &mut contestants, |contestant| {
        contestant.commits(writers as u64, each as u64)
    });
    let title = format!("commits of 200 bytes, {writers} at once");
    print_table(&title, "a second", &series);
    println!();
    for (name, contestant) in &contestants {
        let [p50, p99] = [0.5, 0.99].map(|at| quantile(&contestant.micros, at) / 1000.0);
        let processor = contestant.processor_seconds * 1e6 / contestant.commits as f64;
        println!(
            "{name}: p50 {p50:.2} ms, p99 {p99:.2} ms, {processor:.1} us of processor time each"
        );
    }
    let mut holds = require("commits under async", &series[0], &series[2], 0.9);
    holds &= require("commits under sync:1", &series[1], &series[2], 0.45);
    holds
}

impl Contestant {
    fn new(store: Store, pair: Option<Pair>) -> Self {
        Self {
            store,
            _pair: pair,
            micros: Vec::new(),
            processor_seconds: 0.0,
            commits: 0,
            round: 0,
        }
    }

    fn commits(&mut self, writers: u64, each: u64) -> f64 {
        self.round += 1;
        let table = self.store.table(pair::TABLE).expect("it is declared");
        let micros = Mutex::new(Vec::new());
        let processor = processor_seconds();
        let start = Instant::now();
        thread::scope(|scope| {
            for writer in 0..writers {
                let (store, micros, round) = (&self.store, &micros, self.round);
                scope.spawn(move || {
                    let mut took = Vec::new();
                    for number in 0..each {
                        let key = [round, writer, number].map(u64::to_be_bytes).concat();
                        let begun = Instant::now();
                        let mut transaction = store.begin().expect("an open store");
                        transaction
                            .put(table, &key, &[7; 200])
                            .expect("a short value");
                        transaction.commit().expect("a sound disk");
                        took.push(begun.elapsed().as_secs_f64() * 1e6);
                    }
                    micros.lock().expect("nobody panics").extend(took);
                });
            }
        });
        let rate = (writers * each) as f64 / start.elapsed().as_secs_f64();
        self.processor_seconds += processor_seconds() - processor;
        self.commits += writers * each;
        self.micros
            .extend(micros.into_inner().expect("nobody panics"));
        rate
    }
}

/// Of this process so far, in hundredths: enough for seconds.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("a Linux");
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = rest.split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}
