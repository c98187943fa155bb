//! Opening a journal of 1 GiB, and a young one.

use std::{fs, os::unix::fs::FileExt, path::Path, time::Instant};

use benches::{interleave, make_cold, number, print_table, quantile, require};
use wal::{Journal, Local, Options, RecordKind};

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

pub fn recovery() -> bool {
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
pub fn start() {
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
