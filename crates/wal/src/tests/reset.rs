//! The operator's reset, and the machine ending at every disk call of it.

use std::{collections::BTreeMap, path::Path};

use world::{Disk, disk::EntryKind, sim};

use super::{
    DIR, SEGMENT_BYTES, append, bodies, damage::of_version_2, fresh, open, options, path, segment,
};
use crate::{
    Cause, Generation, Identity, Journal, Kind, Local, Lsn, RecordKind, Reset, identity, order,
    reset, slots,
};

const REASON: &str = "the disk lost a block";

/// Three segments, the middle one with a damaged batch, and a quarantined tail.
fn damaged() -> sim::Disk {
    let (disk, journal) = fresh();
    for number in 1..=8_u8 {
        append(&journal, &[number; 2000]).unwrap();
    }
    journal.close().unwrap();
    drop(journal);
    disk.create_dir_all_synced(&path("quarantine")).unwrap();
    disk.replace(&path("quarantine/a.bytes"), b"cut before")
        .unwrap();
    disk.rot(&segment(4), 5000, 1).unwrap();
    assert_eq!(open(&disk).unwrap_err().cause(), Some(Cause::FrameCorrupt));
    disk
}

/// Every file below `dir` but locks, by its name from `dir` on.
fn files(disk: &sim::Disk, dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in disk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        match entry.kind {
            EntryKind::Dir => found.extend(
                files(disk, &path)
                    .into_iter()
                    .map(|(name, bytes)| (format!("{}/{name}", entry.name), bytes)),
            ),
            _ if entry.name == "lock" => {}
            _ => {
                found.insert(entry.name, disk.read(&path, u64::MAX).unwrap());
            }
        }
    }
    found
}

fn old_bytes(disk: &sim::Disk) -> BTreeMap<String, Vec<u8>> {
    files(disk, Path::new(DIR))
}

fn is_reset(disk: &sim::Disk, done: &Reset, old: &BTreeMap<String, Vec<u8>>, story: &str) {
    let (journal, report) = open(disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    assert_eq!(report.identity, done.identity, "{story}");
    assert_eq!(journal.safe_point(), Lsn::FIRST, "{story}");
    let records: Vec<_> = journal
        .read(Lsn::FIRST)
        .unwrap()
        .map(|record| record.unwrap())
        .collect();
    assert_eq!(records.len(), 1, "{story}");
    assert_eq!(records[0].kind, RecordKind::RESET, "{story}");
    let told = String::from_utf8(records[0].bytes.clone()).unwrap();
    assert!(told.contains(REASON), "{story}: {told}");
    let audit = disk.read(&path(order::AUDIT_NAME), 1 << 20).unwrap();
    assert_eq!(audit, format!("{told}\n").as_bytes(), "{story}");
    assert_eq!(files(disk, &done.moved_to), *old, "{story}: moved bytes");
    assert!(disk.stat(&path(order::RESET_NAME)).unwrap().is_none());
}

/// Proves: JRN-16
#[test]
fn a_reset_moves_everything_aside_and_begins_the_next_generation() {
    let disk = damaged();
    let old = old_bytes(&disk);
    let before = identity::read(&disk, DIR.as_ref()).unwrap().unwrap();
    let done = reset(&options(&disk), REASON).unwrap();
    assert_eq!(done.ended, Some(before));
    let next = Identity {
        generation: Generation(before.generation.0 + 1),
        ..before
    };
    assert_eq!(done.identity, next);
    is_reset(&disk, &done, &old, "once");
    // Done: opening again is opening, and a second reset is another one.
    let (journal, _) = open(&disk).unwrap();
    append(&journal, b"after").unwrap();
    assert_eq!(bodies(&journal).len(), 2);
    drop(journal);
    let again = reset(&options(&disk), "another").unwrap();
    assert_eq!(
        again.identity.generation,
        Generation(before.generation.0 + 2)
    );
    assert_ne!(again.moved_to, done.moved_to);
    let audit = disk.read(&path(order::AUDIT_NAME), 1 << 20).unwrap();
    assert_eq!(String::from_utf8(audit).unwrap().lines().count(), 2);
    assert_eq!(files(&disk, &done.moved_to), old);
}

/// What a damaged directory needs most: whatever is missing or unreadable.
///
/// Proves: JRN-16
#[test]
fn a_reset_works_whatever_is_damaged() {
    type Damage = fn(&sim::Disk);
    let cases: [(&str, Damage); 5] = [
        ("no identity", |disk| {
            disk.remove_file(&path(identity::NAME)).unwrap();
        }),
        ("identity damaged", |disk| {
            disk.rot(&path(identity::NAME), 20, 1).unwrap();
        }),
        ("no slots", |disk| {
            disk.remove_file(&path(slots::NAME)).unwrap();
        }),
        ("no identity that verifies anywhere", |disk| {
            disk.remove_file(&path(identity::NAME)).unwrap();
            disk.remove_file(&path(slots::NAME)).unwrap();
            for base in [1, 4, 7] {
                disk.rot(&segment(base), 20, 1).unwrap();
            }
        }),
        ("no segment", |disk| {
            for base in [1, 4, 7] {
                disk.remove_file(&segment(base)).unwrap();
            }
        }),
    ];
    for (name, damage) in cases {
        let disk = damaged();
        damage(&disk);
        let old = old_bytes(&disk);
        let done = reset(&options(&disk), REASON).unwrap();
        is_reset(&disk, &done, &old, name);
    }
}

#[test]
fn a_reset_needs_a_reason_a_journal_and_the_lock() {
    let disk = damaged();
    for reason in ["", "  ", &"x".repeat(order::REASON_LEN_MAX + 1)] {
        let error = reset(&options(&disk), reason).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    let empty = sim::Disk::new(1);
    let error = reset(&options(&empty), REASON).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    empty.create_dir_all_synced(DIR.as_ref()).unwrap();
    let error = reset(&options(&empty), REASON).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    let (disk, _open) = fresh();
    let error = reset(&options(&disk), REASON).unwrap_err();
    assert_eq!(error.kind(), Kind::Locked, "{error}");
}

/// The machine ends in place of each effect of a reset. Before the order is there, the journal is
/// the old one to the byte; from then on, opening ends in the new generation with the old bytes
/// moved, and so does resetting again.
///
/// Proves: JRN-16
#[test]
fn a_reset_that_a_crash_interrupts_ends_as_if_it_had_not_been() {
    let whole = damaged();
    let old = old_bytes(&whole);
    let before = whole.effects();
    let done = reset(&options(&whole), REASON).unwrap();
    let effects = whole.effects() - before;
    assert!(effects > 20, "{effects} effects");
    let mut untouched = 0;
    for effect in 1..=effects {
        let disk = damaged();
        disk.crash_at(effect);
        assert!(reset(&options(&disk), REASON).is_err(), "effect {effect}");
        let mut found = vec![
            (disk.process_death(), "process death".to_owned()),
            (
                disk.power_loss_total(),
                "power loss, nothing kept".to_owned(),
            ),
        ];
        for seed in 0..24 {
            found.push((disk.power_loss(seed), format!("power loss, seed {seed}")));
        }
        for (after, how) in found {
            let story = format!("effect {effect} of {effects}, {how}");
            untouched += u64::from(ends_well(&after, &done, &old, &story));
        }
    }
    assert!(untouched > 0, "no crash came before the order");
}

/// True when the journal was untouched.
fn ends_well(
    after: &sim::Disk,
    done: &Reset,
    old: &BTreeMap<String, Vec<u8>>,
    story: &str,
) -> bool {
    let is_ordered = order::pending(after, DIR.as_ref()).unwrap().is_some();
    let by_reset = after.fork();
    let again = reset(&options(&by_reset), REASON)
        .unwrap_or_else(|error| panic!("{story}, again: {error}"));
    if is_ordered {
        let by_open = after.fork();
        is_reset(&by_open, done, old, &format!("{story}, by opening"));
        assert_eq!(again.identity, done.identity, "{story}");
        is_reset(&by_reset, done, old, &format!("{story}, by resetting"));
        return false;
    }
    match open(after).map(|(_, report)| report) {
        Err(error) => {
            assert_eq!(error.cause(), Some(Cause::FrameCorrupt), "{story}");
            let mut now = old_bytes(after);
            now.retain(|name, _| !name.ends_with(".tmp"));
            assert_eq!(now, *old, "{story}");
            true
        }
        Ok(report) => {
            assert_eq!(report.identity, done.identity, "{story}");
            is_reset(after, done, old, story);
            false
        }
    }
}

/// The process dies before the order's name is durable, the next one finds the order in the page cache
/// and carries it out, and then the power goes: the journal is the old one or the new one. Without the
/// order being made durable first, it was half moved and nothing said so.
///
/// Proves: JRN-16
#[test]
fn an_order_that_only_the_page_cache_had_is_made_durable_before_it_is_carried_out() {
    let healthy = || {
        let (disk, journal) = fresh();
        for number in 1..=8_u8 {
            append(&journal, &[number; 2000]).unwrap();
        }
        journal.close().unwrap();
        disk
    };
    let whole = healthy();
    let before = whole.effects();
    reset(&options(&whole), REASON).unwrap();
    let mut ends = [0, 0];
    // The order comes first.
    for effect in 1..=(whole.effects() - before).min(8) {
        let disk = healthy();
        disk.crash_at(effect);
        assert!(reset(&options(&disk), REASON).is_err());
        let died = disk.process_death();
        for step in 1..40 {
            let interrupted = died.fork();
            interrupted.crash_at(step);
            drop(open(&interrupted));
            for seed in 0..6 {
                let after = interrupted.power_loss(seed);
                let story = format!("effect {effect}, opening step {step}, seed {seed}");
                let (journal, report) =
                    open(&after).unwrap_or_else(|error| panic!("{story}: {error}"));
                let is_new = report.identity.generation == Generation(2);
                let expected = if is_new { 1 } else { 8 };
                assert_eq!(journal.safe_point(), Lsn::new(expected), "{story}");
                ends[usize::from(is_new)] += 1;
            }
        }
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
}

#[test]
fn a_healthy_journal_is_reset_with_its_epoch_kept() {
    let disk = sim::Disk::new(1);
    let with = |epoch| crate::Options {
        epoch,
        segment_bytes: SEGMENT_BYTES,
        ..options(&disk)
    };
    let (journal, _) = Local::open(with(Some(crate::Epoch(7)))).unwrap();
    append(&journal, b"one").unwrap();
    journal.close().unwrap();
    drop(journal);
    reset(&options(&disk), REASON).unwrap();
    let error = Local::open(with(Some(crate::Epoch(6)))).unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "{error}");
    Local::open(with(Some(crate::Epoch(7)))).unwrap();
}

/// The epoch that an interrupted reset carries over fences whoever happens to open next, too: a node
/// that lost its authority must not begin the next generation under its old epoch.
///
/// Proves: JRN-16
#[test]
fn an_interrupted_reset_is_not_ended_under_a_lower_epoch() {
    let with = |disk: &sim::Disk, epoch| crate::Options {
        epoch: Some(crate::Epoch(epoch)),
        ..options(disk)
    };
    let healthy = || {
        let disk = sim::Disk::new(1);
        let (journal, _) = Local::open(with(&disk, 7)).unwrap();
        append(&journal, b"one").unwrap();
        journal.close().unwrap();
        disk
    };
    let whole = healthy();
    let before = whole.effects();
    reset(&options(&whole), REASON).unwrap();
    for effect in 1..=whole.effects() - before {
        let disk = healthy();
        disk.crash_at(effect);
        assert!(reset(&options(&disk), REASON).is_err(), "effect {effect}");
        for after in [disk.process_death(), disk.power_loss_total()] {
            for _ in 0..2 {
                let error = Local::open(with(&after, 6)).unwrap_err();
                assert_eq!(error.kind(), Kind::Fenced, "effect {effect}: {error}");
            }
            let (journal, _) = Local::open(with(&after, 7)).unwrap();
            let record = journal.read(Lsn::FIRST).unwrap().next().unwrap().unwrap();
            assert_eq!(record.epoch, crate::Epoch(7), "effect {effect}");
        }
    }
}

/// Nothing is wrong with such a journal, and the program that wrote it reads it.
///
/// Proves: JRN-16
#[test]
fn a_journal_of_another_format_is_not_reset() {
    let cases = [
        (path(identity::NAME), 0, identity::LEN),
        (path(slots::NAME), slots::SLOT_LEN, slots::SLOT_LEN),
        (segment(7), 0, crate::segment::HEADER_LEN),
    ];
    for (file, offset, len) in cases {
        let (disk, journal) = fresh();
        for number in 1..=8_u8 {
            append(&journal, &[number; 2000]).unwrap();
        }
        journal.close().unwrap();
        drop(journal);
        of_version_2(&disk, &file, offset, len);
        let before = old_bytes(&disk);
        let error = reset(&options(&disk), REASON).unwrap_err();
        assert_eq!(error.cause(), Some(Cause::VersionUnknown), "{error}");
        assert!(error.to_string().contains("use the program that wrote it"));
        assert_eq!(old_bytes(&disk), before, "{}", file.display());
    }
}
