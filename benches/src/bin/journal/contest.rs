//! Appenders against each other: throughput, latency, and what a roll costs.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use benches::{Series, interleave, number, print_table, quantile, require};

use super::logs::{Append, FJALL, Log, Make, OKAY, OURS, RAFT, RAW, REDB, SQLITE, STRICT};

const LENGTHS: [usize; 2] = [256, 4096];

/// Longer than the journal waits before it settles: what it does when idle is not done in the
/// turn of another.
const REST: Duration = Duration::from_millis(150);

/// In microseconds.
#[derive(Default)]
struct Latencies {
    all: Vec<f64>,
    /// Of appends during which a segment was begun.
    rolling: Vec<f64>,
}

/// Fills `record` with numbers that look random and repeat.
fn scramble(record: &mut [u8], state: &mut u64) {
    for chunk in record.chunks_mut(8) {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// Appends per second of `appenders` threads over `time`.
fn run(
    log: &dyn Log,
    appenders: u64,
    len: usize,
    time: Duration,
    latencies: &Mutex<Latencies>,
) -> f64 {
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        for index in 0..appenders {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || {
                let mut append = log.appender(index);
                let mut record = vec![0_u8; len];
                let mut state = index.wrapping_add(7);
                let mut mine = Latencies::default();
                let mut rolls = log.rolls();
                while !stop.load(Ordering::Relaxed) {
                    scramble(&mut record, &mut state);
                    let start = Instant::now();
                    append(&record);
                    let spent = benches::micros(start.elapsed());
                    mine.all.push(spent);
                    let now = log.rolls();
                    if now != rolls {
                        mine.rolling.push(spent);
                        rolls = now;
                    }
                }
                done.fetch_add(mine.all.len() as u64, Ordering::Relaxed);
                let mut latencies = latencies.lock().expect("no panics");
                latencies.all.extend(mine.all);
                latencies.rolling.extend(mine.rolling);
            });
        }
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

fn contest(appenders: u64, len: usize, contestants: &[(&str, Make)]) -> Vec<Series> {
    let time = Duration::from_millis(number("--millis", 300) as u64);
    let latencies: Vec<Mutex<Latencies>> = contestants.iter().map(|_| Mutex::default()).collect();
    let dirs: Vec<_> = contestants.iter().map(|_| benches::scratch()).collect();
    let logs: Vec<_> = contestants
        .iter()
        .zip(&dirs)
        .map(|((_, make), dir)| make(dir.path()))
        .collect();
    for log in &logs {
        // Warm up: threads, page cache, first extents.
        run(&**log, appenders, len, time, &Mutex::default());
    }
    let mut turns: Vec<(String, usize)> = contestants
        .iter()
        .enumerate()
        .map(|(index, (name, _))| ((*name).to_owned(), index))
        .collect();
    let series = interleave(number("--rounds", 11), &mut turns, |&mut index| {
        let figure = run(&*logs[index], appenders, len, time, &latencies[index]);
        thread::sleep(REST);
        figure
    });
    let title = format!("Durable appends of {len} B, {appenders} appenders");
    print_table(&title, "appends/s", &series);
    println!();
    for (index, (name, _)) in contestants.iter().enumerate() {
        let taken = latencies[index].lock().expect("no panics");
        println!(
            "{name}: p50 {:.0} us, p99 {:.0} us, max {:.0} us {}",
            quantile(&taken.all, 0.5),
            quantile(&taken.all, 0.99),
            quantile(&taken.all, 1.0),
            logs[index].remark()
        );
    }
    series
}

/// Appends of one turn when one appender's time is compared: short against the drift of a disk.
const SOLO_TURN: usize = 8;

/// One appender, one thread, turns of a few appends each: what the disk does to one contestant it
/// does to the next as well.
fn solo(len: usize, contestants: &[(&str, Make)]) -> Vec<Series> {
    let dirs: Vec<_> = contestants.iter().map(|_| benches::scratch()).collect();
    let logs: Vec<_> = contestants
        .iter()
        .zip(&dirs)
        .map(|((_, make), dir)| make(dir.path()))
        .collect();
    let mut turns: Vec<(String, Append)> = contestants
        .iter()
        .zip(&logs)
        .map(|((name, _), log)| ((*name).to_owned(), log.appender(0)))
        .collect();
    let mut record = vec![0; len];
    let mut state = 7;
    let rounds = number("--solo", 1000);
    let series = interleave(rounds, &mut turns, |append| {
        let mut spent = Vec::with_capacity(SOLO_TURN);
        for _ in 0..SOLO_TURN {
            scramble(&mut record, &mut state);
            let start = Instant::now();
            append(&record);
            spent.push(benches::micros(start.elapsed()));
        }
        // The median of the turn: one preemption must not decide it.
        1e6 / quantile(&spent, 0.5)
    });
    print_table(
        &format!("Durable appends of {len} B, 1 appender, by its median"),
        "appends/s",
        &series,
    );
    println!();
    for one in &series {
        let spent = |at: f64| 1e6 / quantile(&one.figures, 1.0 - at);
        println!(
            "{}: p50 {:.0} us, p05 {:.0} us, p95 {:.0} us",
            one.name,
            spent(0.5),
            spent(0.05),
            spent(0.95)
        );
    }
    series
}

fn first_of(what: &str, series: &[Series]) -> bool {
    let ours = &series[0];
    series[1..].iter().fold(true, |holds, theirs| {
        let bound = if theirs.name == RAFT.0 && what.starts_with("64") {
            1.3
        } else {
            1.0
        };
        require(what, ours, theirs, bound) && holds
    })
}

pub fn append() -> bool {
    let mut holds = true;
    for len in LENGTHS {
        let one = solo(len, &[OURS, STRICT, OKAY, SQLITE, REDB, FJALL, RAFT, RAW]);
        let raw = one.last().expect("it is the reference");
        let peers = [OURS, OKAY, SQLITE, REDB, FJALL, RAFT];
        let eight = contest(8, len, &peers);
        let many = contest(64, len, &peers);
        println!();
        holds &= require(&format!("1 appender, {len} B"), &one[0], raw, 0.95);
        holds &= require(&format!("1 appender, {len} B"), &one[1], &one[0], 0.45);
        holds &= first_of(&format!("8 appenders, {len} B"), &eight);
        holds &= first_of(&format!("64 appenders, {len} B"), &many);
    }
    holds
}

/// A pause at a roll may be this many times the 99th percentile.
const PAUSE_MAX: f64 = 5.0;

/// Long enough for several segments of 64 MiB at any number of appenders.
pub fn rolls() -> bool {
    let time = Duration::from_secs(number("--seconds", 10) as u64);
    let mut holds = true;
    println!(
        "\nPauses at rolls, records of 4096 B, {} s each\n",
        time.as_secs()
    );
    println!(
        "| Appenders | rolls | p50 us | p99 us | longest us | longest at a roll us | of p99 |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for appenders in [1, 8, 64] {
        let dir = benches::scratch();
        let log = OURS.1(dir.path());
        let latencies = Mutex::default();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // A consumer that keeps up: without one no segment is used again.
                while !done.load(Ordering::Relaxed) {
                    log.release();
                    thread::sleep(REST);
                }
            });
            run(&*log, appenders, 4096, time, &latencies);
            done.store(true, Ordering::Relaxed);
        });
        let taken = latencies.into_inner().expect("no panics");
        let p99 = quantile(&taken.all, 0.99);
        let pause = quantile(&taken.rolling, 1.0);
        println!(
            "| {appenders} | {} | {:.0} | {p99:.0} | {:.0} | {pause:.0} | {:.1} |",
            log.rolls(),
            quantile(&taken.all, 0.5),
            quantile(&taken.all, 1.0),
            pause / p99
        );
        println!("<!-- {} -->", log.remark());
        holds &= pause <= PAUSE_MAX * p99 && log.rolls() > 0;
    }
    println!(
        "{} no pause at a roll above {PAUSE_MAX} times p99",
        if holds { "ok  " } else { "MISS" }
    );
    holds
}
