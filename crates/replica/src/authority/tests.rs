//! The record on a simulated disk that crashes, tears, rots and lies, and on a real one under kills.

mod crash;
mod damage;
mod faults;
mod format;
mod kills;

use std::path::{Path, PathBuf};

use wal::{Epoch, Generation, Identity, JournalId, Lsn};
use world::{Disk as _, Timestamp, disk::Open, sim};

use super::{copy::COPY_LEN, *};
use crate::machine::{EpochId, testing};

const BIRTH: u128 = 0xB1;

fn path() -> &'static Path {
    Path::new("/node/authority")
}

fn owner() -> Owner {
    Owner {
        cluster: 0xC1,
        node: NodeId(1),
        journal: Identity {
            journal: JournalId([7; 16]),
            generation: Generation(1),
        },
    }
}

fn time(number: u64) -> Timestamp {
    Timestamp::from_nanos(number)
}

/// Record `number` of a node's life: odd ones promise an epoch, even ones grant it.
fn record(number: u64) -> Record {
    let authority = |epoch: u64| (Epoch(epoch), EpochId(u128::from(epoch) << 64), NodeId(1));
    let granted = number / 2;
    Record {
        promised: authority(number.div_ceil(2)),
        granted: authority(granted),
        start: (granted > 0).then(|| EpochStart {
            epoch: Epoch(granted),
            id: EpochId(u128::from(granted) << 64),
            first: Lsn::new(granted * 10),
        }),
        reason: format!("record {number}"),
        ..testing::record()
    }
}

/// A disk with the directory, and no record.
fn prepared(seed: u64) -> sim::Disk {
    let disk = sim::Disk::new(seed);
    disk.create_dir_all_synced(path().parent().unwrap())
        .unwrap();
    disk
}

/// The first record is number 1.
fn create(disk: &sim::Disk) -> Result<Authority, Error> {
    Authority::create(disk, path(), owner(), BIRTH, &record(1), time(1))
}

fn keep(authority: &mut Authority, number: u64) -> Result<(), Error> {
    authority.keep(&record(number), BIRTH, time(number))
}

fn open(disk: &sim::Disk) -> Result<(Authority, Opened), Error> {
    Authority::open(disk, path(), owner())
}

/// Records 1 to `last`, all in force one after the other.
fn kept(last: u64) -> sim::Disk {
    let disk = prepared(1);
    let mut authority = create(&disk).unwrap();
    for number in 2..=last {
        keep(&mut authority, number).unwrap();
    }
    disk
}

/// The number of the record in force, which is whole.
fn number(authority: &Authority) -> u64 {
    let entry = authority.entry();
    assert_eq!(entry.record, record(entry.sequence), "a mixture");
    assert_eq!((entry.birth, entry.written), (BIRTH, time(entry.sequence)));
    entry.sequence
}

fn bytes(disk: &sim::Disk) -> Vec<u8> {
    disk.read(path(), u64::MAX).unwrap()
}

fn copies(disk: &sim::Disk) -> Vec<Vec<u8>> {
    bytes(disk).chunks(COPY_LEN).map(<[u8]>::to_vec).collect()
}

/// Puts these copies in place, synced.
fn put(disk: &sim::Disk, copies: &[Vec<u8>]) {
    let file = disk.open(path(), Open::Write).unwrap();
    file.write_all_at(&copies.concat(), 0).unwrap();
    file.sync_all().unwrap();
}

fn temporary() -> PathBuf {
    path().with_extension("tmp")
}
