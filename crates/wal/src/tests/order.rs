//! The order of effects, read off the disk's own log.

use std::sync::Mutex;

use world::{
    Disk as _,
    sim::{self, Call, Effect},
};

use super::{KIND, MODES, append, fresh, fresh_in, open, open_in, options, path, segment};
use crate::{
    Journal, Local, Lsn, Mode, Options,
    batch::{Header, Place},
    slots,
};

/// Each effect since the log was cleared, in one word, files by what they are for.
fn told(disk: &sim::Disk) -> Vec<String> {
    disk.log()
        .iter()
        .filter(|op| op.effect != Effect::Open)
        .map(|op| {
            assert!(op.done);
            let file = if op.path == path(slots::NAME) {
                "slot"
            } else if op.path.ends_with("journal") {
                "dir"
            } else {
                "segment"
            };
            let what = match &op.effect {
                Effect::Write { .. } => "write",
                Effect::SyncData | Effect::SyncAll | Effect::SyncDir => "sync",
                Effect::Rename { .. } => "name",
                Effect::RemoveFile => "remove",
                Effect::Create => "create",
                other => panic!("{other:?} in the middle of appending"),
            };
            format!("{what} {file}")
        })
        .collect()
}

/// What an append does, and nothing else, before it returns.
fn effects_of_append(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Ordinary => &["write segment", "sync segment"],
        Mode::Strict => &["write segment", "sync segment", "write slot", "sync slot"],
    }
}

/// Proves: JRN-5, JRN-6
#[test]
fn an_append_writes_then_syncs_and_only_then_is_acknowledged() {
    for mode in MODES {
        let (disk, journal) = fresh_in(mode);
        let expected = effects_of_append(mode);
        for round in 1..=3 {
            disk.clear_log();
            append(&journal, b"record").unwrap();
            // The log as it was when `append` returned: nothing is left to be done after it.
            assert_eq!(told(&disk), expected);
            assert_eq!(journal.counts().syncs, round * expected.len() as u64 / 2);
        }
        disk.clear_log();
        journal.append(&[(KIND, b"a"), (KIND, b"b")]).unwrap();
        assert_eq!(told(&disk), expected);
        let killed = disk.fork().process_death();
        journal.close().unwrap();
        drop(journal);
        // Also the first group after opening again, when the slots were only read so far.
        for disk in [killed, disk] {
            let (journal, _) = open_in(&disk, mode).unwrap();
            disk.clear_log();
            append(&journal, b"again").unwrap();
            assert_eq!(told(&disk), expected);
        }
    }
}

/// A call that fails is one the append waited for: the safe point stays, nobody is told `Ok`, neither
/// the one who leads nor those of the group it leads.
///
/// Proves: JRN-5
#[test]
fn what_is_not_durable_is_neither_acknowledged_nor_seen() {
    const LATE: usize = 5;
    for mode in MODES {
        let steps = effects_of_append(mode);
        for step in 0..steps.len() {
            let call = [Call::Write, Call::SyncData][step % 2];
            let (disk, journal) = fresh_in(mode);
            append(&journal, b"one").unwrap();
            let fault = sim::Fault::Fail(std::io::ErrorKind::Other);
            // In the group behind the one that is led first.
            disk.inject(call, (steps.len() / 2 + 1 + step / 2) as u64, fault);
            let writer = journal.hold_writer();
            std::thread::scope(|scope| {
                let leader = scope.spawn(|| append(&journal, b"leader"));
                journal.wait_until(|led, _| led);
                let members: Vec<_> = (0..LATE)
                    .map(|_| scope.spawn(|| append(&journal, b"member")))
                    .collect();
                journal.wait_until(|_, waiting| waiting == LATE);
                drop(writer);
                assert_eq!(leader.join().unwrap().unwrap().get(), 2);
                for member in members {
                    member.join().unwrap().unwrap_err();
                }
            });
            assert_eq!(disk.unmet_faults(), 0);
            assert_eq!(journal.safe_point().get(), 2, "{mode:?}: {}", steps[step]);
            assert_eq!(super::bodies(&journal), [&b"one"[..], b"leader"]);
        }
    }
}

/// Many threads append; each looks at the disk's log the moment it is told. All that its group had to
/// do stands there, in order, and between two groups nothing else.
///
/// Proves: JRN-5, JRN-6
#[test]
fn every_member_of_every_group_is_told_after_the_last_sync_of_its_group() {
    const APPENDERS: u64 = 12;
    const EACH: u64 = 25;
    for mode in MODES {
        let disk = sim::Disk::new(1);
        let (journal, _) = Local::open(Options {
            mode,
            segment_bytes: 1 << 20,
            ..options(&disk)
        })
        .unwrap();
        disk.clear_log();
        let syncs = disk.count(Call::SyncData);
        let told_at = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..APPENDERS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let lsn = append(&journal, b"record").unwrap();
                        let effects = disk.log().len();
                        told_at.lock().unwrap().push((lsn, effects));
                    }
                });
            }
        });
        let pattern = effects_of_append(mode);
        let groups = usize::try_from(journal.counts().groups).unwrap();
        let expected: Vec<&str> = std::iter::repeat_n(pattern, groups)
            .flatten()
            .copied()
            .collect();
        assert_eq!(told(&disk), expected);
        assert_eq!(journal.counts().syncs, disk.count(Call::SyncData) - syncs);
        let lasts = last_of_each_batch(&disk);
        assert_eq!(lasts.len(), groups);
        for (lsn, effects) in told_at.into_inner().unwrap() {
            let done = effects / pattern.len();
            assert!(
                done > 0 && lsn <= lasts[done - 1],
                "{mode:?}: {lsn} after {effects}"
            );
        }
    }
}

/// The last position of each batch of the first segment.
fn last_of_each_batch(disk: &sim::Disk) -> Vec<Lsn> {
    let bytes = disk.read(&segment(1), u64::MAX).unwrap();
    let identity = crate::identity::read(disk, super::DIR.as_ref()).unwrap();
    let place = Place::new(identity.unwrap(), Lsn::FIRST);
    let mut lasts = Vec::new();
    let mut at = crate::segment::HEADER_LEN;
    while let Some(header) = Header::decode(&bytes[at..], place, at as u64) {
        lasts.push(header.last());
        at += usize::try_from(header.batch_len()).unwrap();
    }
    lasts
}

/// Power is lost the moment an append returns, with nothing kept but what was synced.
///
/// Proves: JRN-5
#[test]
fn the_acknowledged_record_is_durable_when_the_append_returns() {
    for mode in MODES {
        let (disk, journal) = fresh_in(mode);
        for number in 1..=12_u8 {
            append(&journal, &[number; 1500]).unwrap();
            let found = disk.fork().power_loss_total();
            let (reopened, report) = open(&found).unwrap();
            assert_eq!(reopened.safe_point().get(), u64::from(number));
            if mode == Mode::Strict {
                assert_eq!(
                    report.watermark,
                    reopened.safe_point(),
                    "known, not inferred"
                );
            }
            drop(reopened);
            let found = disk.fork().power_loss(u64::from(number));
            let (reopened, _) = open(&found).unwrap();
            assert_eq!(reopened.safe_point().get(), u64::from(number));
        }
    }
}

/// Proves: JRN-2, JRN-6
#[test]
fn a_roll_has_a_durable_name_and_a_slot_that_knows_it_before_the_first_acknowledgement() {
    let prepared = [
        "create segment",
        "write segment",
        "sync segment",
        "write segment",
        "sync segment",
        "name segment",
        "sync dir",
    ];
    for mode in MODES {
        let (disk, journal) = fresh_in(mode);
        append(&journal, &[1; 4000]).unwrap();
        append(&journal, &[2; 4000]).unwrap();
        disk.clear_log();
        append(&journal, &[3; 4000]).unwrap();
        let mut expected = prepared.to_vec();
        if mode == Mode::Ordinary {
            expected.extend(["write slot", "sync slot"]);
        }
        expected.extend(effects_of_append(mode));
        assert_eq!(told(&disk), expected);
        assert_eq!(journal.counts().rolls, 1);
    }
}

/// The released segments become spares, as many as are kept; a roll then creates nothing and writes
/// no zeros but those behind the header.
///
/// Proves: JRN-2
#[test]
fn a_release_takes_back_the_vouching_before_the_segment_and_a_roll_takes_its_file() {
    let (disk, journal) = fresh();
    for number in 0..8 {
        append(&journal, &[number; 4000]).unwrap();
    }
    disk.clear_log();
    journal.release_below(journal.safe_point()).unwrap();
    assert_eq!(
        told(&disk),
        [
            "write slot",
            "sync slot",
            "write slot",
            "sync slot",
            "name segment",
            "name segment",
            "remove segment",
            "sync dir",
        ]
    );
    disk.clear_log();
    journal.release_below(journal.safe_point()).unwrap();
    assert_eq!(told(&disk), [""; 0]);
    append(&journal, &[9; 4000]).unwrap();
    assert_eq!(
        told(&disk),
        [
            "write segment",
            "sync segment",
            "name segment",
            "sync dir",
            "write slot",
            "sync slot",
            "write segment",
            "sync segment",
        ]
    );
}

/// Proves: JRN-6
#[test]
fn an_open_with_nothing_to_repair_writes_nothing() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    journal.close().unwrap();
    drop(journal);
    let before = (disk.count(Call::Write), disk.count(Call::SyncData));
    drop(open(&disk).unwrap());
    assert_eq!(
        (disk.count(Call::Write), disk.count(Call::SyncData)),
        before
    );
}

/// While a group is being synced, many more come: they share the next sync, all of them.
///
/// Proves: JRN-6, JRN-7
#[test]
fn those_who_come_during_a_sync_share_the_next_one() {
    const LATE: u64 = 7;
    let (disk, journal) = fresh();
    let syncs = disk.count(Call::SyncData);
    // The writer's lock is held as a slow sync would hold it.
    let writer = journal.hold_writer();
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| append(&journal, b"leader").unwrap());
        journal.wait_until(|led, _| led);
        for number in 0..LATE {
            let journal = &journal;
            scope.spawn(move || append(journal, &number.to_le_bytes()).unwrap());
        }
        journal.wait_until(|_, waiting| waiting == usize::try_from(LATE).unwrap());
        drop(writer);
        leader.join().unwrap();
    });
    assert_eq!(journal.counts().groups, 2);
    assert_eq!(disk.count(Call::SyncData) - syncs, 2);
    assert_eq!(journal.safe_point().get(), LATE + 1);
}

/// Proves: JRN-18
#[test]
fn readers_neither_wait_for_the_writer_nor_hold_it_up() {
    let (_, journal) = fresh();
    for number in 0..6_u8 {
        append(&journal, &[number; 1000]).unwrap();
    }
    let writer = journal.hold_writer();
    assert_eq!(
        super::bodies(&journal).len(),
        6,
        "read while a group is written"
    );
    drop(writer);
    let mut begun = journal.read(Lsn::new(2)).unwrap();
    begun.next().unwrap().unwrap();
    for number in 6..12_u8 {
        append(&journal, &[number; 1000]).unwrap();
    }
    journal.settle().unwrap();
    journal.release_below(Lsn::new(12)).unwrap();
    assert_eq!(
        begun.count(),
        4,
        "what a reader has yet to read is held for it"
    );
}

/// Proves: JRN-18
#[test]
fn nobody_reads_what_is_being_written() {
    let (_, journal) = fresh();
    append(&journal, b"one").unwrap();
    let writer = journal.hold_writer();
    std::thread::scope(|scope| {
        let appender = scope.spawn(|| append(&journal, b"two").unwrap());
        journal.wait_until(|led, _| led);
        assert_eq!(journal.safe_point().get(), 1);
        assert_eq!(super::bodies(&journal), [b"one"]);
        drop(writer);
        appender.join().unwrap();
    });
    assert_eq!(super::bodies(&journal), [b"one", b"two"]);
}

/// The newest slot may have been read from the page cache only. If the other one were overwritten
/// first, a power loss could find one that never was on the disk and one that is half written.
#[test]
fn after_opening_the_newest_slot_is_written_again_before_the_other_is_touched() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    journal.settle().unwrap();
    journal.close().unwrap();
    drop(journal);
    let slot_writes = || -> Vec<u64> {
        disk.log()
            .iter()
            .filter(|op| op.path == path(slots::NAME))
            .filter_map(|op| match op.effect {
                Effect::Write { offset, .. } => Some(offset),
                _ => None,
            })
            .collect()
    };
    let newest = *slot_writes().last().unwrap();
    let other = slots::SLOT_LEN as u64 - newest;
    let (journal, _) = open(&disk).unwrap();
    append(&journal, b"two").unwrap();
    disk.clear_log();
    journal.settle().unwrap();
    assert_eq!(slot_writes(), [newest, other, newest]);
    append(&journal, b"three").unwrap();
    disk.clear_log();
    journal.settle().unwrap();
    assert_eq!(slot_writes(), [other, newest]);
}
