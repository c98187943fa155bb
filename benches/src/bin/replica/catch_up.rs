//! A node that was away takes what was written meanwhile, beside a plain file on the same disk.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    time::Instant,
};

use benches::{Series, make_cold, number, print_table, require};
use replica::machine::Mode;
use wal::{Journal, RecordKind};

use super::pair::{Site, introduce, promote, wait_until};

const RECORD_LEN: usize = 16 << 10;
const TOGETHER: usize = 64;
const FILE_CHUNK: usize = 1 << 20;

/// Wanted, or half of what the disk gives in this run.
const WANTED: f64 = 200.0;

pub fn run(dir: &Path) -> bool {
    let mib = number("--mib", 512);
    let mut caught_up = Series::new("catch-up");
    let mut disk = Series::new("half of a plain file, written, synced and read");
    for round in 0..number("--rounds", 5) {
        disk.figures.push(plain(dir, mib) / 2.0);
        caught_up
            .figures
            .push(catch_up(&dir.join(round.to_string()), mib));
    }
    print_table(
        "catching up after an outage",
        "MiB/s",
        &[caught_up.clone(), disk.clone()],
    );
    println!("wanted: {WANTED} MiB/s, or half of the disk's");
    caught_up.median() >= WANTED || require("catch-up", &caught_up, &disk, 1.0)
}

/// Of a file as long as the log: the time of both, one after the other.
fn plain(dir: &Path, mib: usize) -> f64 {
    fs::create_dir_all(dir).expect("a scratch directory");
    let path = dir.join("plain");
    let chunk = vec![7; FILE_CHUNK];
    let start = Instant::now();
    let mut file = fs::File::create(&path).expect("a scratch file");
    for _ in 0..mib {
        file.write_all(&chunk).expect("room");
    }
    file.sync_all().expect("a sound disk");
    let wrote = start.elapsed();
    make_cold(&path);
    let mut chunk = vec![0; FILE_CHUNK];
    let start = Instant::now();
    let mut file = fs::File::open(&path).expect("it was just written");
    while file.read(&mut chunk).expect("a sound disk") > 0 {}
    let took = wrote + start.elapsed();
    fs::remove_file(&path).expect("it is there");
    mib as f64 / took.as_secs_f64()
}

fn catch_up(dir: &Path, mib: usize) -> f64 {
    let site = Site::new(dir, Mode::Async);
    let writes = site.open(dir, 1);
    let away = site.open(dir, 2);
    introduce(&writes, &away, 1);
    promote(&writes);
    wait_until("it has the first record", || {
        away.safe_point() >= writes.safe_point()
    });
    drop(away);
    let record = vec![7; RECORD_LEN];
    let records: Vec<_> = (0..TOGETHER)
        .map(|_| (RecordKind(99), record.as_slice()))
        .collect();
    for _ in 0..mib * FILE_CHUNK / (RECORD_LEN * TOGETHER) {
        writes.append(&records).expect("a sound disk");
    }
    let end = writes.safe_point();
    let away = site.open(dir, 2);
    let start = Instant::now();
    introduce(&writes, &away, 2);
    wait_until("it has everything", || away.safe_point() >= end);
    let rate = mib as f64 / start.elapsed().as_secs_f64();
    drop((writes, away));
    fs::remove_dir_all(dir).expect("it is there");
    rate
}
