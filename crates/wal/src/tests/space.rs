//! Disks that fill up, and space that is written before it is used.

use std::sync::Arc;

use world::{Disk, RealClock, sim};

use super::{SEGMENT_BYTES, append, bodies, fresh, open, options, segment};
use crate::{Journal, Kind, Local, Options, Upkeep};

/// Proves: JRN-9
#[test]
fn a_full_disk_refuses_the_append_and_nothing_else() {
    let (disk, journal) = fresh();
    disk.set_available(2 * SEGMENT_BYTES);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let record = vec![u8::try_from(acknowledged.len()).unwrap(); 3000];
        match append(&journal, &record) {
            Ok(_) => acknowledged.push(record),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), Kind::Full, "{refused}");
    assert_eq!(append(&journal, &[1; 3000]).unwrap_err().kind(), Kind::Full);
    assert!(bodies(&journal) == acknowledged, "readable while full");
    journal.settle().unwrap();

    // A journal that is found full opens and reads, too.
    let after = disk.fork().power_loss_total();
    after.set_available(0);
    let (other, _) = open(&after).unwrap();
    assert!(bodies(&other) == acknowledged);
    assert_eq!(append(&other, &[1; 3000]).unwrap_err().kind(), Kind::Full);

    disk.set_available(10 * SEGMENT_BYTES);
    let lsn = append(&journal, b"room again").unwrap();
    assert_eq!(
        lsn.get(),
        acknowledged.len() as u64 + 1,
        "a failed append leaves no hole"
    );
    acknowledged.push(b"room again".to_vec());
    let (journal, _) = open(&disk.power_loss_total()).unwrap();
    assert!(bodies(&journal) == acknowledged);
}

/// What is left of the disk is used before an append is refused.
///
/// Proves: JRN-9
#[test]
fn the_last_free_bytes_are_used() {
    let disk = sim::Disk::new(1);
    let large = Options {
        segment_bytes: 64 << 20,
        ..options(&disk)
    };
    let (journal, _) = Local::open(large).unwrap();
    disk.set_available(100 << 10);
    let mut records = 0;
    while append(&journal, &[7; 10_000]).is_ok() {
        records += 1;
    }
    // A first extent of 1 MiB and nearly all of the 100 KiB.
    assert!(
        records * 10_000 > (1 << 20) + (70 << 10),
        "{records} records"
    );
}

/// Every batch is written into space that was written and synced before.
///
/// Proves: JRN-2
#[test]
fn batches_go_where_zeros_were_written_before() {
    let (disk, journal) = fresh();
    let len_of = |base| {
        let stat = disk.stat(&segment(base)).unwrap();
        stat.unwrap().len
    };
    assert_eq!(len_of(1), SEGMENT_BYTES);
    let mut lengths = vec![len_of(1)];
    for _ in 0..6 {
        append(&journal, &[1; 3000]).unwrap();
        lengths.push(len_of(1));
    }
    assert!(
        lengths.iter().all(|&len| len == SEGMENT_BYTES),
        "{lengths:?}"
    );
    let durable = disk.durable(&segment(5)).unwrap();
    assert_eq!(durable.len() as u64, SEGMENT_BYTES);
}

/// A first journal costs 1 MiB, not a segment.
#[test]
fn a_small_journal_is_small() {
    let disk = sim::Disk::new(1);
    let large = Options {
        segment_bytes: 64 << 20,
        ..options(&disk)
    };
    let (journal, _) = Local::open(large).unwrap();
    append(&journal, &[1; 1000]).unwrap();
    assert_eq!(disk.stat(&segment(1)).unwrap().unwrap().len, 1 << 20);
    append(&journal, &[1; 1 << 20]).unwrap();
    assert_eq!(disk.stat(&segment(1)).unwrap().unwrap().len, 2 << 20);
    journal.close().unwrap();
    assert_eq!(bodies(&journal_of(&disk)).len(), 2);
}

fn journal_of(disk: &sim::Disk) -> Local {
    open(disk).unwrap().0
}

/// The thread prepares the next segment while this one fills, and settles once appends pause; the
/// test waits for both by what they leave, not by time.
#[test]
fn upkeep_prepares_segments_and_settles_when_appends_pause() {
    let disk = sim::Disk::new(1);
    let (journal, _) = Local::open(Options {
        upkeep: Upkeep::Thread,
        clock: Arc::new(RealClock::new()),
        ..options(&disk)
    })
    .unwrap();
    let spare = super::path("ahead.spare");
    append(&journal, &[1; 6000]).unwrap();
    while disk.stat(&spare).unwrap().is_none() {
        std::thread::yield_now();
    }
    while journal.counts().settles == 0 {
        std::thread::yield_now();
    }
    append(&journal, &[2; 6000]).unwrap();
    assert_eq!(journal.counts().rolls, 1);
    journal.close().unwrap();
    drop(journal);
    let (journal, report) = open(&disk).unwrap();
    assert_eq!(report.watermark, journal.safe_point());
    assert_eq!(bodies(&journal).len(), 2);
    assert_eq!(
        disk.stat(&spare).unwrap(),
        None,
        "a spare is not kept over an open"
    );
}
