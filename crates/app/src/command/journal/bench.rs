//! `holdfast journal bench`: appends on this disk, beside plain write and sync of the same sizes.

use std::{
    fmt::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use wal::{Journal, Mode, RecordKind};
use world::{Clock, Disk, RealClock, RealDisk, disk::Open};

use super::{options, refused, unreadable};
use crate::{
    cli::{Output, journal::Bench},
    config::Config,
    exit::{Exit, Refusal},
    present::{csv, safe, table},
    screen::Screen,
    site,
};

/// The file of plain writes is written through once, so that later writes move no metadata, as in a
/// journal; then it is written over from its beginning.
const RAW_LEN: u64 = 64 << 20;
const RAW_NAME: &str = "raw";
const MODES: [(&str, Mode); 2] = [("ordinary", Mode::Ordinary), ("strict", Mode::Strict)];
const KIND: RecordKind = RecordKind(1);

/// What one measurement gave.
#[derive(Debug, Serialize)]
struct Measured {
    what: &'static str,
    appenders: u16,
    size: u32,
    appends: u64,
    per_second: f64,
    mib_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// Of plain write and sync by one writer, in this run.
    ratio_to_raw: f64,
}

pub(super) fn run(bench: &Bench, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = bench
        .dir
        .as_ref()
        .or(bench.named.as_ref())
        .ok_or_else(|| Refusal::new("no directory").next("name one"))?;
    let dir = std::path::absolute(dir).map_err(|error| unreadable(dir, error))?;
    let was_there = must_be_empty(&dir)?;
    // Otherwise what was made would stay, and the next run would refuse the directory.
    let stop = site::stop_flag()?;
    RealDisk
        .create_dir_all_synced(&dir)
        .map_err(|error| unreadable(&dir, error))?;
    let measured = measure(bench, &dir, &stop, screen);
    if !bench.keep {
        clean(&dir, was_there)?;
    }
    let rows = measured?;
    let text = match config.output.value {
        Output::Json => crate::command::json(&rows)?,
        Output::Csv => csv::lines(HEADER, rows.iter().map(row)),
        Output::Table => words(&dir, &rows),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn must_be_empty(dir: &Path) -> Result<bool, Refusal> {
    let there = RealDisk
        .stat(dir)
        .map_err(|error| unreadable(dir, error))?
        .is_some();
    if there
        && !RealDisk
            .list(dir)
            .map_err(|error| unreadable(dir, error))?
            .is_empty()
    {
        return Err(Refusal::new(format!("{} is not empty", dir.display()))
            .next("name a directory that is empty or does not exist"));
    }
    Ok(there)
}

/// Removes what was made, by its names, and the directory when it was made too.
fn clean(dir: &Path, was_there: bool) -> Result<(), Refusal> {
    let raw = dir.join(RAW_NAME);
    let attempt = || {
        if RealDisk.stat(&raw)?.is_some() {
            RealDisk.remove_file(&raw)?;
        }
        for (name, _) in MODES {
            let journal = dir.join(name);
            if RealDisk.stat(&journal)?.is_some() {
                RealDisk.remove_dir_all(&journal)?;
            }
        }
        if !was_there {
            RealDisk.remove_dir_all(dir)?;
        }
        Ok(())
    };
    attempt().map_err(|error| unreadable(dir, error))
}

fn measure(
    bench: &Bench,
    dir: &Path,
    stop: &AtomicBool,
    screen: Screen,
) -> Result<Vec<Measured>, Refusal> {
    let limit = Limit {
        stop,
        time: Duration::from_secs(bench.seconds),
        count: bench.count.unwrap_or(u64::MAX),
    };
    screen.step("plain write and sync");
    let raw = raw(bench, dir, limit)?;
    limit.check()?;
    let base = raw.per_second();
    let mut rows = vec![raw.row("write+fdatasync", 1, bench.size, base)];
    for (name, mode) in MODES {
        screen.step(name);
        let times = journal(bench, &dir.join(name), mode, limit)?;
        limit.check()?;
        rows.push(times.row(name, bench.appenders, bench.size, base));
    }
    Ok(rows)
}

#[derive(Clone, Copy)]
struct Limit<'a> {
    time: Duration,
    count: u64,
    stop: &'a AtomicBool,
}

impl Limit<'_> {
    fn is_reached(&self, time: Duration) -> bool {
        time >= self.time || self.stop.load(Ordering::Relaxed)
    }

    /// A measurement that was cut short is none.
    fn check(&self) -> Result<(), Refusal> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Refusal::new("the measurement was stopped by a signal")
                .next("run it again, with --seconds for a shorter one"));
        }
        Ok(())
    }
}

fn raw(bench: &Bench, dir: &Path, limit: Limit<'_>) -> Result<Times, Refusal> {
    let path = dir.join(RAW_NAME);
    let bytes = vec![0x5A; usize::try_from(bench.size).unwrap_or(usize::MAX)];
    let len = RAW_LEN.max(u64::from(bench.size));
    let clock = RealClock::new();
    let attempt = || {
        let file = RealDisk.open(&path, Open::CreateNew)?;
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < len && !limit.is_reached(Duration::ZERO) {
            file.write_all_at(&zeros, at)?;
            at += zeros.len() as u64;
        }
        file.sync_all()?;
        RealDisk.sync_dir(dir)?;
        let mut times = Times::new();
        let started = clock.monotonic();
        let mut at = 0;
        let mut before = started;
        while !limit.is_reached(before - started) && times.count < limit.count {
            if at + u64::from(bench.size) > len {
                at = 0;
            }
            file.write_all_at(&bytes, at)?;
            file.sync_data()?;
            at += u64::from(bench.size);
            let after = clock.monotonic();
            times.add(after - before);
            before = after;
        }
        times.took = clock.monotonic() - started;
        Ok(times)
    };
    attempt().map_err(|error| unreadable(&path, error))
}

fn journal(bench: &Bench, dir: &Path, mode: Mode, limit: Limit<'_>) -> Result<Times, Refusal> {
    let mut options = options(dir)?;
    options.mode = mode;
    let (journal, _) = wal::Local::open(options).map_err(|error| refused(dir, &error))?;
    let journal: Arc<dyn Journal> = Arc::new(journal);
    let bytes = vec![0x5A; usize::try_from(bench.size).unwrap_or(usize::MAX)];
    let clock = RealClock::new();
    let left = AtomicU64::new(limit.count);
    let all = Mutex::new((Times::new(), None));
    let started = clock.monotonic();
    thread::scope(|scope| {
        for _ in 0..bench.appenders {
            scope.spawn(|| {
                let mut times = Times::new();
                let mut failed = None;
                let mut before = clock.monotonic();
                while !limit.is_reached(before - started) && take_one(&left) {
                    if let Err(error) = journal.append(&[(KIND, &bytes)]) {
                        failed = Some(error);
                        break;
                    }
                    let after = clock.monotonic();
                    times.add(after - before);
                    before = after;
                }
                let mut all = all
                    .lock()
                    .expect("no appender panics while it adds its times");
                all.0.merge(&times);
                all.1 = all.1.take().or(failed);
            });
        }
    });
    let took = clock.monotonic() - started;
    let (mut times, failed) = all
        .into_inner()
        .expect("no appender panics while it adds its times");
    times.took = took;
    match failed {
        Some(error) => Err(refused(dir, &error)),
        None => Ok(times),
    }
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

/// Buckets below each doubling: a time is told within 1/16 of itself, in memory that does not grow.
const BUCKETS: usize = 16;
const DOUBLINGS: usize = 60;

struct Times {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
    took: Duration,
}

impl Times {
    fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS * DOUBLINGS],
            count: 0,
            max: Duration::ZERO,
            took: Duration::ZERO,
        }
    }

    fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let index = bucket(nanos).min(self.buckets.len() - 1);
        self.buckets[index] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Microseconds below which this many of a thousand are.
    fn quantile(&self, thousandth: u64) -> f64 {
        let wanted = (self.count * thousandth).div_ceil(1000);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(index).min(self.max.as_secs_f64() * 1e9) / 1e3;
            }
        }
        0.0
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64().max(1e-9)
    }

    fn row(&self, what: &'static str, appenders: u16, size: u32, base: f64) -> Measured {
        let per_second = self.per_second();
        Measured {
            what,
            appenders,
            size,
            appends: self.count,
            per_second,
            mib_per_second: per_second * f64::from(size) / f64::from(1 << 20),
            p50_us: self.quantile(500),
            p99_us: self.quantile(990),
            max_us: self.max.as_secs_f64() * 1e6,
            ratio_to_raw: per_second / base.max(1e-9),
        }
    }
}

fn bucket(nanos: u64) -> usize {
    let doubling = nanos.max(16).ilog2();
    let within = (nanos.max(16) >> (doubling - 4)) & 15;
    let index = u64::from(doubling - 4) * BUCKETS as u64 + within;
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// Nanoseconds where a bucket ends.
#[allow(clippy::cast_precision_loss, reason = "a time for people")]
fn upper(index: usize) -> f64 {
    let (doubling, within) = (index / BUCKETS, index % BUCKETS);
    ((BUCKETS + within + 1) as f64) * 2_f64.powi(i32::try_from(doubling).unwrap_or(0))
}

const HEADER: [&str; 10] = [
    "WHAT",
    "WRITERS",
    "BYTES",
    "APPENDS",
    "PER SECOND",
    "MIB/S",
    "P50 US",
    "P99 US",
    "MAX US",
    "TO RAW",
];

fn row(measured: &Measured) -> [String; 10] {
    [
        measured.what.to_owned(),
        measured.appenders.to_string(),
        measured.size.to_string(),
        measured.appends.to_string(),
        format!("{:.0}", measured.per_second),
        format!("{:.1}", measured.mib_per_second),
        format!("{:.0}", measured.p50_us),
        format!("{:.0}", measured.p99_us),
        format!("{:.0}", measured.max_us),
        format!("{:.2}", measured.ratio_to_raw),
    ]
}

fn words(dir: &Path, rows: &[Measured]) -> String {
    let mut text = format!("{}\n", safe(&dir.display().to_string()));
    text.push_str(&table::rows(HEADER, rows.iter().map(row)));
    writeln!(
        text,
        "every append was durable when it was counted; the first line is this disk with one writer"
    )
    .expect("writing to a string cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Times;

    #[test]
    fn quantiles_are_within_a_sixteenth() {
        let mut times = Times::new();
        for micros in 1..=1000 {
            times.add(Duration::from_micros(micros));
        }
        for (thousandth, wanted) in [(500, 500.0), (990, 990.0), (1000, 1000.0)] {
            let found = times.quantile(thousandth);
            assert!(
                (found - wanted).abs() <= wanted / 15.0,
                "{found} for {wanted}"
            );
        }
    }
}
