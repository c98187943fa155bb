//! Tests that need to see the bytes: crashes, faults and damage on a simulated disk.

mod base;
mod ceiling;
mod conforms;
mod crash;
mod cut;
mod damage;
mod evidence;
mod faults;
mod format;
mod fuzzing;
mod group;
mod import;
mod metrics;
mod order;
mod pipeline;
mod released;
mod replicated;
mod reserve;
mod reset;
mod retention;
mod space;
mod start;
mod survey;
mod sweep;
mod together;

use std::{path::PathBuf, sync::Arc};

use world::{Timestamp, sim};

use crate::{Error, Journal, Local, Lsn, Mode, Options, RecordKind, Recovery, Upkeep};

const DIR: &str = "/journal";
/// Two pages of batches behind the header page: rolls are frequent and bytes are few.
const SEGMENT_BYTES: u64 = 3 * 4096;
const KIND: RecordKind = RecordKind(1);

fn options(disk: &sim::Disk) -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        upkeep: Upkeep::Caller,
        // What it does to the disk is the subject of tests of its own.
        reserve_bytes: 0,
        holder: "the test".to_owned(),
        ..Options::new(
            DIR,
            Arc::new(disk.clone()),
            Arc::new(sim::Clock::new(Timestamp::from_nanos(1))),
            Arc::new(sim::Random::new(1)),
        )
    }
}

fn open(disk: &sim::Disk) -> Result<(Local, Recovery), Error> {
    Local::open(options(disk))
}

const MODES: [Mode; 2] = [Mode::Ordinary, Mode::Strict];

fn open_in(disk: &sim::Disk, mode: Mode) -> Result<(Local, Recovery), Error> {
    Local::open(Options {
        mode,
        ..options(disk)
    })
}

/// A new journal on a disk of its own.
fn fresh() -> (sim::Disk, Local) {
    fresh_in(Mode::Ordinary)
}

fn fresh_in(mode: Mode) -> (sim::Disk, Local) {
    let disk = sim::Disk::new(1);
    let (journal, report) = open_in(&disk, mode).unwrap();
    assert!(report.is_new);
    (disk, journal)
}

fn append(journal: &Local, bytes: &[u8]) -> Result<Lsn, Error> {
    journal
        .append(&[(KIND, bytes)])
        .map(|appended| appended.first)
}

fn bodies(journal: &Local) -> Vec<Vec<u8>> {
    journal
        .read(journal.first_retained())
        .unwrap()
        .map(|record| record.unwrap().bytes)
        .collect()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(DIR).join(name)
}

fn segment(base: u64) -> PathBuf {
    crate::segment::path(DIR.as_ref(), Lsn::new(base))
}
