//! Writes and syncs that fail, one at a time, wherever the journal makes them.

use std::io::ErrorKind;

use world::sim::{self, Call, Fault};

use super::{MODES, append, bodies, fresh, open, open_in, path};
use crate::{Journal, Kind, Local, Lsn, Mode, slots};

const RECORDS: u8 = 36;
/// Nothing below it is needed once this many records are there: what follows rolls into the files of
/// released segments.
const RELEASE_AT: u8 = 26;

fn record(number: u8) -> Vec<u8> {
    vec![number; 1000 + usize::from(number) * 10]
}

/// Records that are acknowledged, and that may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    acknowledged: u8,
    attempted: u8,
}

/// Appends, settles and releases until something fails.
fn run(disk: &sim::Disk, mode: Mode) -> Option<Told> {
    let (journal, _) = open_in(disk, mode).ok()?;
    let mut acknowledged = 0;
    let told = |acknowledged, in_flight| {
        Some(Told {
            acknowledged,
            attempted: acknowledged + in_flight,
        })
    };
    for number in 1..=RECORDS {
        match append(&journal, &record(number)) {
            Ok(lsn) => {
                assert_eq!(lsn, Lsn::new(u64::from(number)));
                acknowledged = number;
            }
            Err(error) => {
                check_refusing(&journal, acknowledged, &error);
                if error.kind() != Kind::Poisoned {
                    assert_eq!(error.kind(), Kind::Full, "{error}");
                    return told(acknowledged, 0);
                }
                // In strict mode the batch counts only if a slot may vouch for it.
                let may_be_there = mode == Mode::Ordinary || slot_was_last(disk);
                return told(acknowledged, u8::from(may_be_there));
            }
        }
        if number == 6 && journal.settle().is_err() {
            return told(acknowledged, 0);
        }
        let below = Lsn::new(u64::from(RELEASE_AT) - 1);
        if number == RELEASE_AT && journal.release_below(below).is_err() {
            return told(acknowledged, 0);
        }
    }
    told(acknowledged, 0)
}

/// Whether a roll took the file of a released segment.
fn recycles(disk: &sim::Disk) -> bool {
    let released = crate::spare::Spare::path_of(super::DIR.as_ref(), Lsn::FIRST);
    let is_place = |op: &sim::Op| matches!(op.effect, sim::Effect::Rename { .. });
    disk.log()
        .iter()
        .any(|op| is_place(op) && op.path == released)
}

fn slot_was_last(disk: &sim::Disk) -> bool {
    let writes = |op: &sim::Op| matches!(op.effect, sim::Effect::Write { .. });
    let log = disk.log();
    let last = log.iter().rfind(|op| op.done && writes(op));
    last.is_some_and(|op| op.path == path(slots::NAME))
}

/// What is there from the first retained position on.
fn retained(journal: &Local, records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let first = usize::try_from(journal.first_retained().get()).unwrap();
    records[first - 1..].to_vec()
}

/// After a failure: reads go on, appends and settling repeat the first cause.
fn check_refusing(journal: &Local, acknowledged: u8, first: &crate::Error) {
    let expected: Vec<_> = (1..=acknowledged).map(record).collect();
    assert!(bodies(journal) == retained(journal, &expected));
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
fn check_heals(disk: &sim::Disk, mode: Mode, told: Told, story: &str) {
    let (journal, _) = open_in(disk, mode).unwrap_or_else(|error| panic!("{story}: {error}"));
    let end = journal.safe_point().get();
    assert!(
        end == u64::from(told.acknowledged) || end == u64::from(told.attempted),
        "{story}: {told:?}, {end} found"
    );
    let mut expected: Vec<_> = (1..=u8::try_from(end).unwrap()).map(record).collect();
    let found = bodies(&journal);
    assert!(
        found == retained(&journal, &expected),
        "{story}: other records"
    );
    append(&journal, b"healed").unwrap();
    journal.settle().unwrap();
    append(&journal, b"and on").unwrap();
    expected.extend([b"healed".to_vec(), b"and on".to_vec()]);
    let mut afters: Vec<_> = (0..6).map(|seed| disk.power_loss(seed)).collect();
    afters.push(disk.power_loss_total());
    for (seed, after) in afters.iter().enumerate() {
        let (journal, _) =
            open(after).unwrap_or_else(|error| panic!("{story}, seed {seed}: {error}"));
        let found = bodies(&journal);
        assert!(
            found == retained(&journal, &expected),
            "{story}, seed {seed}: lost"
        );
    }
}

fn check(call: Call, fault: Fault) {
    for mode in MODES {
        let whole = sim::Disk::new(1);
        let told = run(&whole, mode).unwrap();
        assert_eq!(told.acknowledged, RECORDS);
        assert!(recycles(&whole));
        let calls = whole.count(call);
        assert!(calls > 0, "{call:?} is never made");
        for nth in 1..=calls {
            let disk = sim::Disk::new(1);
            disk.inject(call, nth, fault);
            let story = format!("{mode:?}, {call:?} number {nth} of {calls}, {fault:?}");
            // An open that failed left a directory that opens.
            let told = run(&disk, mode).unwrap_or(Told {
                acknowledged: 0,
                attempted: 0,
            });
            check_heals(&disk, mode, told, &story);
        }
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

/// Where space is asked for: the disk has none, or says so late, when it writes back.
///
/// Proves: JRN-9
#[test]
fn a_disk_that_is_full_at_any_call_harms_nothing_acknowledged() {
    for call in [Call::Create, Call::Write, Call::Rename, Call::SyncAll] {
        check(call, Fault::Fail(ErrorKind::StorageFull));
    }
}

/// Proves: JRN-8
#[test]
fn a_failed_write_poisons_and_opening_again_heals() {
    check(Call::Write, Fault::Fail(ErrorKind::Other));
    check(Call::Rename, Fault::Fail(ErrorKind::Other));
    check(Call::Create, Fault::Fail(ErrorKind::Other));
    check(Call::RemoveFile, Fault::Fail(ErrorKind::Other));
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

/// The same story in strict mode: nobody was told of the batch, and nobody reads it.
///
/// Proves: JRN-13
#[test]
fn a_batch_of_strict_mode_that_no_slot_vouches_for_is_never_read() {
    for (nth, found) in [(1, 1), (2, 2)] {
        let (disk, journal) = super::fresh_in(Mode::Strict);
        append(&journal, b"one").unwrap();
        // The sync of the batch, then the one of the slot that was written for it.
        disk.inject(Call::SyncData, nth, Fault::Fail(ErrorKind::Other));
        append(&journal, b"two").unwrap_err();
        drop(journal);
        let lost = disk.fork().power_loss_total();
        for mode in MODES {
            let (journal, report) = open_in(&disk.fork(), mode).unwrap();
            assert_eq!(report.safe_point, Lsn::new(found), "{mode:?}");
            assert_eq!(report.cut.is_some(), found == 1, "{mode:?}");
            append(&journal, b"two again").unwrap();
            // Without a slot the batch never was, whatever the disk has of it.
            let (journal, report) = open_in(&lost.fork(), mode).unwrap();
            assert_eq!(report.safe_point, Lsn::new(1), "{mode:?}");
            assert_eq!(bodies(&journal), [b"one"]);
        }
    }
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

/// Upkeep waited for the slots while a slot write of an append failed. What it finds is a journal that
/// is poisoned: it writes no slot, in the place of the one that is in doubt least of all. The same for
/// an append that waited for upkeep.
///
/// Proves: JRN-8
#[test]
fn whoever_waited_for_a_slot_write_that_failed_writes_none() {
    let (disk, journal) = super::fresh_in(Mode::Strict);
    append(&journal, b"one").unwrap();
    disk.inject_on(
        &path(slots::NAME),
        Call::SyncData,
        1,
        Fault::Fail(ErrorKind::Other),
    );
    append(&journal, b"two").unwrap_err();
    disk.clear_log();
    let core = journal.core();
    // As if both had asked whether the journal is writable before the failure.
    let settled = core.settle_held(&mut crate::hold(&core.slots));
    assert_eq!(settled.unwrap_err().kind(), Kind::Poisoned);
    let vouched = core.vouch(Lsn::new(2), crate::Epoch(0));
    assert_eq!(vouched.unwrap_err().kind(), Kind::Poisoned);
    assert_eq!(disk.log(), []);
}

/// Upkeep meant to grow a segment that was sealed and released meanwhile. That is no failed write:
/// nobody appends there.
#[test]
fn a_segment_that_is_gone_before_upkeep_grows_it_poisons_nothing() {
    let disk = sim::Disk::new(1);
    let (journal, _) = Local::open(crate::Options {
        segment_bytes: 4 << 20,
        ..super::options(&disk)
    })
    .unwrap();
    append(&journal, &vec![1; 900 << 10]).unwrap();
    let core = journal.core();
    let before = std::sync::Arc::clone(&crate::hold(&core.active));
    append(&journal, &vec![2; 3500 << 10]).unwrap();
    journal.release_below(Lsn::new(2)).unwrap();
    assert_eq!(journal.first_retained(), Lsn::new(2));
    disk.clear_log();
    let grown = core.grow(&before, before.extent() + 1, crate::ceiling::Need::Polite);
    assert!(grown.is_err());
    core.grow_ahead(&before);
    assert_eq!(disk.log().iter().filter(|op| op.done).count(), 0);
    append(&journal, b"three").unwrap();
    assert_eq!(journal.counts().poisonings, 0);
}
