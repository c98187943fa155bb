//! Writes and syncs that fail, one at a time, wherever the journal makes them.

use std::io::ErrorKind;

use world::sim::{self, Call, Fault};

use super::{append, bodies, fresh, open};
use crate::{Journal, Kind, Lsn};

const RECORDS: u8 = 14;

fn record(number: u8) -> Vec<u8> {
    vec![number; 1000 + usize::from(number) * 10]
}

/// Appends, settles and releases until something fails; returns how many were acknowledged and
/// how many may be there.
fn run(disk: &sim::Disk) -> Option<(u8, u8)> {
    let (journal, _) = open(disk).ok()?;
    let mut acknowledged = 0;
    for number in 1..=RECORDS {
        match append(&journal, &record(number)) {
            Ok(lsn) => {
                assert_eq!(lsn, Lsn::new(u64::from(number)));
                acknowledged = number;
            }
            Err(error) => {
                let in_flight = match error.kind() {
                    Kind::Poisoned => 1,
                    kind => {
                        assert_eq!(kind, Kind::Full, "{error}");
                        0
                    }
                };
                check_refusing(&journal, acknowledged, &error);
                return Some((acknowledged, acknowledged + in_flight));
            }
        }
        if number == 6 && journal.settle().is_err() {
            return Some((acknowledged, acknowledged));
        }
    }
    Some((acknowledged, acknowledged))
}

/// After a failure: reads go on, appends and settling repeat the first cause.
fn check_refusing(journal: &crate::Local, acknowledged: u8, first: &crate::Error) {
    let expected: Vec<_> = (1..=acknowledged).map(record).collect();
    assert!(bodies(journal) == expected);
    if first.kind() == Kind::Poisoned {
        for _ in 0..2 {
            let again = append(journal, b"again").unwrap_err();
            assert_eq!(again.kind(), Kind::Poisoned);
            assert_eq!(again.to_string(), first.to_string());
        }
        assert_eq!(journal.settle().unwrap_err().kind(), Kind::Poisoned);
        assert_eq!(journal.counts().poisonings, 1);
    }
    assert_eq!(journal.safe_point(), Lsn::new(u64::from(acknowledged)));
}

/// Opens without a restart of the machine, where the page cache may say what the disk does not
/// have, appends, loses power, and compares.
fn check_heals(disk: &sim::Disk, acknowledged: u8, attempted: u8, story: &str) {
    let (journal, _) = open(disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    let end = journal.safe_point().get();
    assert!(
        end == u64::from(acknowledged) || end == u64::from(attempted),
        "{story}: {acknowledged} acknowledged, {attempted} attempted, {end} found"
    );
    let mut expected: Vec<_> = (1..=u8::try_from(end).unwrap()).map(record).collect();
    assert!(bodies(&journal) == expected, "{story}: other records");
    append(&journal, b"healed").unwrap();
    journal.settle().unwrap();
    append(&journal, b"and on").unwrap();
    expected.extend([b"healed".to_vec(), b"and on".to_vec()]);
    for seed in 0..6 {
        let after = disk.power_loss(seed);
        let (journal, _) =
            open(&after).unwrap_or_else(|error| panic!("{story}, seed {seed}: {error}"));
        assert!(bodies(&journal) == expected, "{story}, seed {seed}: lost");
    }
    assert!(bodies(&open(&disk.power_loss_total()).unwrap().0) == expected);
}

fn check(call: Call, fault: Fault) {
    let whole = sim::Disk::new(1);
    assert_eq!(run(&whole), Some((RECORDS, RECORDS)));
    let calls = whole.count(call);
    assert!(calls > 0, "{call:?} is never made");
    for nth in 1..=calls {
        let disk = sim::Disk::new(1);
        disk.inject(call, nth, fault);
        let story = format!("{call:?} number {nth} of {calls}, {fault:?}");
        // An open that failed left a directory that opens.
        let (acknowledged, attempted) = run(&disk).unwrap_or((0, 0));
        check_heals(&disk, acknowledged, attempted, &story);
    }
}

/// Proves: JRN-8
#[test]
fn a_failed_sync_poisons_and_opening_again_heals() {
    for fault in [
        Fault::Fail(ErrorKind::Other),
        Fault::FailScattered(ErrorKind::Other),
    ] {
        check(Call::SyncData, fault);
        check(Call::SyncAll, fault);
    }
    check(Call::SyncDir, Fault::Fail(ErrorKind::Other));
}

/// Proves: JRN-8
#[test]
fn a_failed_write_poisons_and_opening_again_heals() {
    check(Call::Write, Fault::Fail(ErrorKind::Other));
    check(Call::Write, Fault::Fail(ErrorKind::StorageFull));
    check(Call::Rename, Fault::Fail(ErrorKind::Other));
    check(Call::Create, Fault::Fail(ErrorKind::Other));
}

#[test]
fn a_short_write_is_completed() {
    for len in [1, 511] {
        check(Call::Write, Fault::Short(len));
    }
}

/// The story of `fsyncgate`: a sync fails, the kernel calls the pages clean, the batch reads well
/// from the page cache, the program opens again and goes on. Without writing the batch again, it
/// and what was acknowledged behind it would be gone with the next power loss.
///
/// Proves: JRN-8
#[test]
fn a_batch_that_only_the_page_cache_has_is_written_again_before_anything_follows_it() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    disk.inject(Call::SyncData, 1, Fault::Fail(ErrorKind::Other));
    append(&journal, b"two").unwrap_err();
    drop(journal);
    let (journal, report) = open(&disk).unwrap();
    assert_eq!(report.safe_point, Lsn::new(2));
    append(&journal, b"three").unwrap();
    let (journal, _) = open(&disk.power_loss_total()).unwrap();
    assert_eq!(bodies(&journal), [&b"one"[..], b"two", b"three"]);
}

/// What could not be read is not reported as damage.
#[test]
fn a_failed_read_is_no_cause_to_refuse_for_ever() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    journal.close().unwrap();
    drop(journal);
    let before = disk.count(Call::Read);
    drop(open(&disk).unwrap());
    let reads = disk.count(Call::Read) - before;
    for nth in 1..=reads {
        disk.inject(Call::Read, nth, Fault::Fail(ErrorKind::Other));
        let error = open(&disk).unwrap_err();
        assert_eq!((error.kind(), error.cause()), (Kind::Io, None), "{error}");
    }
    assert_eq!(bodies(&open(&disk).unwrap().0), [b"one"]);
}
