//! Tests of the version 1 log: on a simulated disk, against a second reader made from the document.

mod crash;
mod damage;
mod faults;
mod golden;
mod import;

mod order;
mod reader;
mod rules;
mod start;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use world::{Disk, disk::Open, sim};

use super::{Error, Log, Options, Recovery, SAFE_SEQ, Seq, WAL};

const DIR: &str = "/telemetry";

fn options(disk: &sim::Disk) -> Options {
    Options {
        holder: "the test".to_owned(),
        ..Options::new(Arc::new(disk.clone()))
    }
}

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn path(name: &str) -> PathBuf {
    dir().join(name)
}

fn open(disk: &sim::Disk) -> Result<(Log, Recovery), Error> {
    Log::open(dir(), &options(disk))
}

fn frames(log: &Log) -> Vec<(u64, Vec<u8>)> {
    log.read_from(Seq(0))
        .map(|read| read.map(|(seq, payload)| (seq.0, payload)).unwrap())
        .collect()
}

/// A frame as the document tells it.
fn frame(payload: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(payload.as_bytes());
    bytes
}

/// Frames that carry these sequences.
fn log_of(sequences: &[u64]) -> Vec<u8> {
    sequences
        .iter()
        .flat_map(|seq| frame(&payload(*seq)))
        .collect()
}

fn payload(seq: u64) -> String {
    format!(r#"{{"seq":{seq},"kind":"decision","allow":true}}"#)
}

/// A file that has been there for long.
fn put(disk: &sim::Disk, name: &str, bytes: &[u8]) {
    disk.create_dir_all_synced(dir()).unwrap();
    let file = disk.open(&path(name), Open::CreateOrOpen).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(dir()).unwrap();
}

fn get(disk: &sim::Disk, name: &str) -> Option<Vec<u8>> {
    disk.stat(&path(name)).unwrap()?;
    Some(disk.read(&path(name), u64::MAX).unwrap())
}

/// A directory with this log and this safe sequence.
fn with(log: &[u8], safe_seq: Option<u64>) -> sim::Disk {
    let disk = sim::Disk::new(1);
    put(&disk, WAL, log);
    if let Some(seq) = safe_seq {
        put(&disk, SAFE_SEQ, &seq.to_le_bytes());
    }
    disk
}

/// Every file by name, directories one deep.
fn contents(disk: &sim::Disk) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in disk.list(dir()).unwrap() {
        match entry.kind {
            world::disk::EntryKind::Dir => {
                for inner in disk.list(&path(&entry.name)).unwrap() {
                    let name = format!("{}/{}", entry.name, inner.name);
                    let bytes = get(disk, &name).unwrap();
                    found.push((name, bytes));
                }
            }
            _ => {
                let bytes = get(disk, &entry.name).unwrap();
                found.push((entry.name, bytes));
            }
        }
    }
    // Held for as long as a log is open; its text is not state.
    found.retain(|(name, _)| name != super::LOCK);
    found
}

/// Keeps what is logged on this thread, one line each: level, message, fields.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<(Level, String)>>>);

impl Logged {
    fn of(body: impl FnOnce()) -> Vec<(Level, String)> {
        let log = Self::default();
        tracing::subscriber::with_default(log.clone(), body);
        let lines = log.0.lock().unwrap();
        lines.clone()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl Subscriber for Logged {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0
            .lock()
            .unwrap()
            .push((*event.metadata().level(), line.0));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
