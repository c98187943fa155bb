//! The journal against the machine's own limit and against raft-engine.
//!
//! `cargo run --release --bin journal -- [append|recovery|start] [--rounds N] [--millis N] [--dir DIR]`

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use benches::{Series, interleave, machine, make_cold, number, print_table, quantile, require};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use wal::{Journal, Local, Options, RecordKind};

const RECORD_LEN: usize = 256;

/// One appender's way to make one record durable.
type Append = Box<dyn FnMut(&[u8]) + Send>;

/// A log that hands out appenders.
trait Log {
    fn appender(&self, index: u64) -> Append;
    /// Said beside its figures.
    fn remark(&self) -> String {
        String::new()
    }
}

/// The limit: length, checksum and record written over space that was written before, one
/// `write` and one `fdatasync` each. For one appender only.
struct Raw(Arc<fs::File>, Arc<AtomicU64>);

const RAW_LEN: u64 = 64 << 20;

impl Raw {
    fn new(dir: &Path) -> Self {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.join("raw"))
            .expect("a new file");
        let zeros = vec![0; 1 << 20];
        for at in (0..RAW_LEN).step_by(1 << 20) {
            file.write_all_at(&zeros, at).expect("zeros");
        }
        file.sync_all().expect("synced zeros");
        Self(Arc::new(file), Arc::default())
    }
}

impl Log for Raw {
    fn appender(&self, _: u64) -> Append {
        let (file, next) = (Arc::clone(&self.0), Arc::clone(&self.1));
        let mut buffer = Vec::new();
        Box::new(move |record| {
            buffer.clear();
            buffer.extend_from_slice(&u32::try_from(record.len()).expect("small").to_le_bytes());
            buffer.extend_from_slice(&[0; 4]);
            buffer.extend_from_slice(record);
            // Goes on where the last turn ended, as a log does, and not over the same blocks.
            let mut at = next.load(Ordering::Relaxed);
            if at + buffer.len() as u64 > RAW_LEN {
                at = 0;
            }
            file.write_all_at(&buffer, at).expect("write");
            file.sync_data().expect("fdatasync");
            next.store(at + buffer.len() as u64, Ordering::Relaxed);
        })
    }
}

struct Ours(Arc<Local>);

impl Ours {
    fn new(dir: &Path) -> Self {
        let options = Options::on_this_machine(dir.join("journal"));
        Self(Arc::new(Local::open(options).expect("a new journal").0))
    }
}

impl Log for Ours {
    fn appender(&self, _: u64) -> Append {
        let journal = Arc::clone(&self.0);
        Box::new(move |record| {
            journal
                .append(&[(RecordKind(1), record)])
                .expect("a durable append");
        })
    }

    fn remark(&self) -> String {
        let counts = self.0.counts();
        format!(
            "{:.1} appends a sync, {} rolls, {} waits for space",
            counts.appends as f64 / counts.syncs.max(1) as f64,
            counts.rolls,
            counts.space_waits
        )
    }
}

struct Message;

impl MessageExt for Message {
    type Entry = BytesValue;
    fn index(entry: &BytesValue) -> u64 {
        u64::from_le_bytes(entry.value[..8].try_into().expect("records have 8 bytes"))
    }
}

/// With the next index of each appender, which goes on from turn to turn.
struct Raft(Arc<Engine>, Vec<Arc<AtomicU64>>);

const APPENDERS_MAX: usize = 64;

impl Raft {
    fn new(dir: &Path) -> Self {
        let config = Config {
            dir: dir.join("raft-engine").to_str().expect("UTF-8").into(),
            batch_compression_threshold: ReadableSize::kb(0),
            ..Default::default()
        };
        let next = (0..APPENDERS_MAX).map(|_| Arc::new(AtomicU64::new(1)));
        Self(
            Arc::new(Engine::open(config).expect("a new engine")),
            next.collect(),
        )
    }
}

impl Log for Raft {
    /// One region per appender, as its users have it; the index is the record's first 8 bytes.
    fn appender(&self, index: u64) -> Append {
        let engine = Arc::clone(&self.0);
        let next = Arc::clone(&self.1[usize::try_from(index).expect("few appenders")]);
        Box::new(move |record| {
            let mut entry = BytesValue::default();
            entry.value = record.to_vec();
            let at = next.fetch_add(1, Ordering::Relaxed);
            entry.value[..8].copy_from_slice(&at.to_le_bytes());
            let mut batch = LogBatch::with_capacity(1);
            batch
                .add_entries::<Message>(index + 1, &[entry])
                .expect("an entry");
            engine.write(&mut batch, true).expect("a durable write");
        })
    }
}

/// Appends per second of `appenders` threads over `time`, and latencies in microseconds.
fn run(log: &dyn Log, appenders: u64, time: Duration, latencies: &Mutex<Vec<f64>>) -> f64 {
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        for index in 0..appenders {
            let mut append = log.appender(index);
            let (stop, done) = (&stop, &done);
            scope.spawn(move || {
                let mut record = [0_u8; RECORD_LEN];
                let mut state = index.wrapping_add(7);
                let mut mine = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    for chunk in record.chunks_mut(8) {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        chunk.copy_from_slice(&state.to_le_bytes());
                    }
                    let start = Instant::now();
                    append(&record);
                    mine.push(benches::micros(start.elapsed()));
                }
                done.fetch_add(mine.len() as u64, Ordering::Relaxed);
                latencies.lock().expect("no panics").extend(mine);
            });
        }
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

/// Contestants by name, the reference last.
type Make = fn(&Path) -> Box<dyn Log>;

/// Longer than the journal waits before it settles: what it does when idle is not done in the
/// turn of another.
const REST: Duration = Duration::from_millis(150);

fn contest(appenders: u64, contestants: &[(&str, Make)]) -> Vec<Series> {
    let time = Duration::from_millis(number("--millis", 300) as u64);
    let latencies: Vec<Mutex<Vec<f64>>> = contestants.iter().map(|_| Mutex::default()).collect();
    let dirs: Vec<_> = contestants.iter().map(|_| benches::scratch()).collect();
    let logs: Vec<_> = contestants
        .iter()
        .zip(&dirs)
        .map(|((_, make), dir)| make(dir.path()))
        .collect();
    for log in &logs {
        // Warm up: threads, page cache, first extents.
        run(&**log, appenders, time, &Mutex::default());
    }
    let mut turns: Vec<(String, usize)> = contestants
        .iter()
        .enumerate()
        .map(|(index, (name, _))| ((*name).to_owned(), index))
        .collect();
    let series = interleave(number("--rounds", 21), &mut turns, |&mut index| {
        let figure = run(&*logs[index], appenders, time, &latencies[index]);
        thread::sleep(REST);
        figure
    });
    let title = format!("Durable appends of {RECORD_LEN} B, {appenders} appenders");
    print_table(&title, "appends/s", &series);
    println!();
    for (index, (name, _)) in contestants.iter().enumerate() {
        let taken = latencies[index].lock().expect("no panics");
        println!(
            "{name}: p50 {:.0} us, p99 {:.0} us, max {:.0} us {}",
            quantile(&taken, 0.5),
            quantile(&taken, 0.99),
            quantile(&taken, 1.0),
            logs[index].remark()
        );
    }
    series
}

/// Appends of one turn when one appender's time is compared: short against the drift of a disk.
const SOLO_TURN: usize = 8;

/// One appender, one thread, turns of a few appends each: what the disk does to one contestant it
/// does to the next as well.
fn solo(contestants: &[(&str, Make)]) -> Vec<Series> {
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
    let record = [0xA5; RECORD_LEN];
    let rounds = number("--solo", 1500);
    let series = interleave(rounds, &mut turns, |append| {
        let mut spent = Vec::with_capacity(SOLO_TURN);
        for _ in 0..SOLO_TURN {
            let start = Instant::now();
            append(&record);
            spent.push(benches::micros(start.elapsed()));
        }
        // The median of the turn: one preemption must not decide it.
        1e6 / quantile(&spent, 0.5)
    });
    print_table(
        &format!("Durable appends of {RECORD_LEN} B, 1 appender, by its median"),
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

fn append() -> bool {
    let ours: (&str, Make) = ("wal::Local", |dir| Box::new(Ours::new(dir)));
    let raw: (&str, Make) = ("write + fdatasync", |dir| Box::new(Raw::new(dir)));
    let raft: (&str, Make) = ("raft-engine", |dir| Box::new(Raft::new(dir)));
    let one = solo(&[ours, raft, raw]);
    let eight = contest(8, &[ours, raft]);
    let many = contest(64, &[ours, raft]);
    println!();
    let checks = [
        require("1 appender", &one[0], &one[2], 0.95),
        require("8 appenders", &eight[0], &eight[1], 1.3),
        require("64 appenders", &many[0], &many[1], 1.3),
    ];
    // Only the first and the last are promised; 8 appenders are shown.
    checks[0] && checks[2]
}

const FILL_BYTES: usize = 1 << 30;
const FILL_RECORD: usize = 4096;
const FILL_BATCH: usize = 1 << 20;

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .expect("the journal's directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .collect();
    found.sort();
    found
}

/// MiB/s of reading every segment file from end to end.
fn read_through(dir: &Path) -> f64 {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    let begin = Instant::now();
    for path in segments(dir) {
        let file = fs::File::open(path).expect("a segment");
        let mut at = 0;
        loop {
            let read = file.read_at(&mut buffer, at).expect("a read");
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        total += at;
    }
    total as f64 / f64::from(1 << 20) / begin.elapsed().as_secs_f64()
}

fn open_journal(dir: &Path) -> Local {
    let options = Options::on_this_machine(dir);
    Local::open(options).expect("a sound journal").0
}

/// MiB/s of opening the journal.
fn recover(dir: &Path) -> f64 {
    let total: u64 = segments(dir)
        .iter()
        .map(|path| fs::metadata(path).expect("a segment").len())
        .sum();
    let begin = Instant::now();
    let journal = open_journal(dir);
    let took = begin.elapsed().as_secs_f64();
    drop(journal);
    total as f64 / f64::from(1 << 20) / took
}

/// MiB/s of records handed out, after opening.
fn replay(dir: &Path) -> f64 {
    let journal = open_journal(dir);
    let begin = Instant::now();
    let mut total = 0;
    for record in journal.read(journal.first_retained()).expect("all of it") {
        total += record.expect("a record").bytes.len();
    }
    let took = begin.elapsed().as_secs_f64();
    assert_eq!(total, FILL_BYTES);
    total as f64 / f64::from(1 << 20) / took
}

fn recovery() -> bool {
    let scratch = benches::scratch();
    let dir = scratch.path().join("journal");
    fill(&dir);
    let before = benches::resident_mib();
    let turns: [(String, fn(&Path) -> f64); 3] = [
        ("open".to_owned(), recover),
        ("read all records, once open".to_owned(), replay),
        ("read the files".to_owned(), read_through),
    ];
    let mut holds = true;
    for cold in [false, true] {
        let series = interleave(number("--rounds", 7), &mut turns.clone(), |turn| {
            if cold {
                segments(&dir).iter().for_each(|path| make_cold(path));
            }
            turn(&dir)
        });
        let heat = if cold { "cold" } else { "warm" };
        print_table(
            &format!("Journal of 1 GiB in records of {FILL_RECORD} B, {heat}"),
            "MiB/s",
            &series,
        );
        println!();
        holds &= require(&format!("recovery, {heat}"), &series[0], &series[2], 0.5);
    }
    println!(
        "resident before {before} MiB, peak {} MiB",
        benches::peak_mib()
    );
    holds
}

fn fill(dir: &Path) {
    let journal = open_journal(dir);
    let mut state = 1_u64;
    let mut body = vec![0; FILL_BATCH];
    for _ in 0..FILL_BYTES / FILL_BATCH {
        for chunk in body.chunks_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        let records: Vec<_> = body
            .chunks(FILL_RECORD)
            .map(|bytes| (RecordKind(1), bytes))
            .collect();
        journal.append(&records).expect("a durable append");
    }
}

/// Milliseconds of the first open of a journal, with one record, and of opening it again.
fn start() {
    let mut turns: Vec<f64> = Vec::new();
    let mut again: Vec<f64> = Vec::new();
    for _ in 0..number("--rounds", 21) {
        let scratch = benches::scratch();
        let dir = scratch.path().join("journal");
        let begin = Instant::now();
        let journal = open_journal(&dir);
        journal
            .append(&[(RecordKind(1), b"first")])
            .expect("a durable append");
        turns.push(begin.elapsed().as_secs_f64() * 1e3);
        drop(journal);
        let begin = Instant::now();
        let journal = open_journal(&dir);
        again.push(begin.elapsed().as_secs_f64() * 1e3);
        drop(journal);
    }
    println!(
        "\nA new journal with its first record: {:.1} ms; opened again: {:.1} ms (medians)",
        quantile(&turns, 0.5),
        quantile(&again, 0.5)
    );
}

fn main() -> ExitCode {
    println!("{}", machine());
    let part = std::env::args().nth(1).unwrap_or_default();
    let mut holds = true;
    let all = part.is_empty() || part.starts_with("--");
    if all || part == "append" {
        holds &= append();
    }
    if all || part == "recovery" {
        holds &= recovery();
    }
    if all || part == "start" {
        start();
    }
    println!("\n{}", machine());
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
