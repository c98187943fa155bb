//! Disks that fill up, and space that is written before it is used.

use std::sync::Arc;

use world::{
    Disk, RealClock,
    disk::Open,
    sim::{self, Call, Fault},
};

use super::{
    MODES, SEGMENT_BYTES, append, bodies, fresh, fresh_in, open, open_in, options, segment,
};
use crate::{Journal, Kind, Local, Lsn, Mode, Options, Upkeep};

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

/// Segments of three batches each; the one that is appended to is the file of the first one.
fn recycled(mode: Mode) -> (sim::Disk, Local) {
    let (disk, journal) = fresh_in(mode);
    for number in 1..=6 {
        append(&journal, &[number; 2000]).unwrap();
    }
    journal.release_below(Lsn::new(5)).unwrap();
    append(&journal, &[7; 2000]).unwrap();
    assert_eq!(journal.counts().recycled, 1);
    (disk, journal)
}

/// Where the second batch of a segment begins.
const SECOND: u64 = 4096 + 2064;

/// A recycled file is full of batches that begin where the next ones will: none of them is a torn
/// batch, nor one that says what was durable.
///
/// Proves: JRN-3, JRN-13
#[test]
fn stale_batches_are_neither_read_nor_cut() {
    for mode in MODES {
        let (disk, journal) = recycled(mode);
        let stale = disk.read(&segment(7), u64::MAX).unwrap();
        let second = usize::try_from(SECOND).unwrap();
        assert!(stale[second..second + 56].iter().all(|&byte| byte == 0));
        assert!(
            stale[second + 61..second + 2000]
                .iter()
                .all(|&byte| byte == 2)
        );
        let found = disk.power_loss_total();
        drop(journal);
        let (journal, report) = open_in(&found, mode).unwrap();
        assert_eq!((report.cut, report.safe_point), (None, Lsn::new(7)));
        drop(journal);

        // The zeros that end the batches are torn away, and the whole stale batch shows.
        let file = found.open(&segment(7), Open::Write).unwrap();
        file.write_all_at(&stale_second_header(), SECOND).unwrap();
        file.sync_all().unwrap();
        let (journal, report) = open_in(&found, mode).unwrap();
        assert_eq!(report.cut.unwrap().offset, SECOND);
        assert_eq!(report.watermark, Lsn::new(7));
        assert_eq!(journal.safe_point(), Lsn::new(7));
        append(&journal, &[8; 2000]).unwrap();
        assert_eq!(bodies(&journal).len(), 5);
    }
}

/// The header of the batch that the recycled file had in second place.
fn stale_second_header() -> Vec<u8> {
    let (disk, journal) = fresh();
    append(&journal, &[1; 2000]).unwrap();
    append(&journal, &[2; 2000]).unwrap();
    let bytes = disk.read(&segment(1), u64::MAX).unwrap();
    let second = usize::try_from(SECOND).unwrap();
    bytes[second..second + crate::batch::HEADER_LEN].to_vec()
}

/// Power is lost between a roll and its first batch: what the file was before is no torn batch.
///
/// Proves: JRN-13, JRN-14
#[test]
fn a_recycled_segment_without_a_batch_has_nothing_to_cut() {
    for mode in MODES {
        let (disk, journal) = recycled(mode);
        for number in 8..=9 {
            append(&journal, &[number; 2000]).unwrap();
        }
        journal.release_below(Lsn::new(7)).unwrap();
        // The first write is that of the header; in ordinary mode a slot is next.
        let batch = if mode == Mode::Ordinary { 3 } else { 2 };
        disk.inject(Call::Write, batch, Fault::Fail(std::io::ErrorKind::Other));
        append(&journal, &[10; 2000]).unwrap_err();
        assert_eq!(journal.counts().recycled, 2);
        for found in [disk.process_death(), disk.power_loss_total()] {
            let (reopened, report) = open_in(&found, mode).unwrap();
            assert_eq!((report.cut, report.safe_point), (None, Lsn::new(9)));
            append(&reopened, &[10; 2000]).unwrap();
        }
        drop(journal);
    }
}

/// A batch that only the page cache has is written again by opening, the zeros behind it too: else a
/// power loss would show stale bytes where they were.
///
/// Proves: JRN-14
#[test]
fn the_zeros_behind_a_batch_are_written_again_with_it() {
    let (disk, journal) = recycled(Mode::Ordinary);
    disk.inject(Call::SyncData, 1, Fault::Fail(std::io::ErrorKind::Other));
    append(&journal, &[8; 500]).unwrap_err();
    drop(journal);
    let (journal, report) = open(&disk).unwrap();
    assert_eq!((report.cut, report.safe_point), (None, Lsn::new(8)));
    let found = disk.power_loss_total();
    drop(journal);
    let (_, report) = open(&found).unwrap();
    assert_eq!((report.cut, report.safe_point), (None, Lsn::new(8)));
}
