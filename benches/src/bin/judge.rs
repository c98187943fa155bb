//! Judging alone: facts of this machine, collected once, by the whole pack, again and again on one core.
//!
//! ```sh
//! cd benches && cargo run --release --bin judge [FACTS]
//! ```
//!
//! FACTS is a file of `holdfast scan --facts-out`; without it this machine is looked at, without the walk.

use std::{env, fs, sync::Arc, time::Instant};

use scan::{
    collect,
    facts::Facts,
    judge,
    rule::{Pack, Rule},
    target::LocalTarget,
};
use world::RealClock;

const ROUNDS: u32 = 200;

fn main() {
    let pack = Pack::embedded().pack;
    let facts = match env::args().nth(1) {
        Some(file) => Facts::from_json(&fs::read(file).expect("the file can be read"))
            .expect("the file holds facts"),
        None => here(&pack.rules),
    };
    for _ in 0..ROUNDS / 10 {
        judge::judge(&pack.rules, &facts);
    }
    let begin = Instant::now();
    let mut verdicts = 0_usize;
    for _ in 0..ROUNDS {
        verdicts += judge::judge(&pack.rules, &facts).len();
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "with reason and evidence: {:.0} verdicts/s",
        verdicts as f64 / seconds
    );
    let begin = Instant::now();
    let mut passes = 0_usize;
    for _ in 0..ROUNDS {
        let bench = judge::Bench::new(&facts);
        passes += pack
            .rules
            .iter()
            .filter(|rule| bench.rule_on(rule).outcome() == judge::Outcome::Pass)
            .count();
    }
    let seconds = begin.elapsed().as_secs_f64();
    assert!(passes > 0, "a machine that passes nothing measures nothing");
    println!(
        "outcomes alone: {:.0} verdicts/s",
        verdicts as f64 / seconds
    );
    let mut slow: Vec<(f64, &str)> = pack
        .rules
        .iter()
        .map(|rule| {
            let begin = Instant::now();
            for _ in 0..ROUNDS {
                std::hint::black_box(judge::Bench::new(&facts).rule_on(rule).outcome());
            }
            (
                begin.elapsed().as_secs_f64() / f64::from(ROUNDS) * 1e6,
                rule.id.as_str(),
            )
        })
        .collect();
    slow.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (micros, rule) in slow.iter().take(25) {
        println!("{micros:9.1} us  {rule}");
    }
    println!("median {:.1} us", slow[slow.len() / 2].0);
}

fn here(rules: &[Rule]) -> Facts {
    let clock = Arc::new(RealClock::new());
    let target = LocalTarget::new("/", clock.clone()).expect("this machine can be looked at");
    let collectors: Vec<_> = collect::list()
        .iter()
        .copied()
        .filter(|collector| collector.name != "walk")
        .collect();
    collect::collect_only(
        &collectors,
        Arc::new(target),
        Arc::new(collect::Needs::of(rules)),
        Arc::new(()),
        clock,
    )
}
