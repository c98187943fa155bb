//! Appending what others wrote, showing less than is durable, and the history of epochs.

use std::time::Duration;

use world::sim;

use super::{KIND, MODES, append, bodies, open, options, segment};
use crate::{
    Epoch, EpochStart, Error, Journal, Kind, Local, Lsn, Misplaced, Mode, Options, RecordKind, Run,
};

/// `count` records of `len` bytes under `epoch`, at the next position.
pub(super) fn follow(journal: &Local, epoch: u64, count: usize, len: usize) -> Result<Lsn, Error> {
    let next = journal.durable().next();
    let bytes: Vec<Vec<u8>> = (0..count as u64)
        .map(|index| body(epoch, next.get() + index, len))
        .collect();
    let records: Vec<(RecordKind, &[u8])> = bytes.iter().map(|it| (KIND, &it[..])).collect();
    let run = Run {
        epoch: Epoch(epoch),
        records: &records,
    };
    journal
        .append_at(next, &[run])
        .map(|appended| appended.last)
}

/// What a record holds: nothing that another position or epoch has.
pub(super) fn body(epoch: u64, lsn: u64, len: usize) -> Vec<u8> {
    let mut bytes = format!("{lsn} under {epoch};").into_bytes();
    bytes.resize(len.max(bytes.len()), b'.');
    bytes
}

/// Each retained durable record, as epoch and bytes.
pub(super) fn durable(journal: &Local) -> Vec<(u64, Vec<u8>)> {
    journal
        .read_range(journal.first_retained(), Lsn::new(u64::MAX), usize::MAX)
        .unwrap()
        .into_iter()
        .map(|record| (record.epoch.0, record.bytes))
        .collect()
}

pub(super) fn open_replica(disk: &sim::Disk, mode: Mode) -> Result<Local, Error> {
    Local::open(Options {
        mode,
        shown: Some(Lsn::ZERO),
        ..options(disk)
    })
    .map(|(journal, _)| journal)
}

fn starts(journal: &Local) -> Vec<(u64, u64, bool)> {
    let told = journal.epochs();
    told.iter()
        .map(|start| (start.epoch.0, start.first.get(), start.is_exact))
        .collect()
}

/// Proves: JRN-4
#[test]
fn records_are_taken_at_the_next_position_only_and_under_no_lower_epoch() {
    for mode in MODES {
        let disk = sim::Disk::new(1);
        let journal = open_replica(&disk, mode).unwrap();
        follow(&journal, 3, 2, 10).unwrap();
        let before = durable(&journal);
        let one: &[(RecordKind, &[u8])] = &[(KIND, b"x")];
        let run = |epoch| Run {
            epoch: Epoch(epoch),
            records: one,
        };
        for at in [1, 2, 4, u64::MAX] {
            let error = journal.append_at(Lsn::new(at), &[run(3)]).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            let next = Lsn::new(3);
            assert_eq!(error.misplaced(), Some(Misplaced::NotNext { next }));
        }
        for runs in [&[run(2)][..], &[run(4), run(3)], &[run(3), run(2), run(3)]] {
            let error = journal.append_at(Lsn::new(3), runs).unwrap_err();
            assert_eq!(error.kind(), Kind::Fenced, "{error}");
        }
        for runs in [
            &[][..],
            &[
                run(3),
                Run {
                    records: &[],
                    ..run(3)
                },
            ],
        ] {
            let error = journal.append_at(Lsn::new(3), runs).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
        assert_eq!(durable(&journal), before);
        let appended = journal
            .append_at(Lsn::new(3), &[run(3), run(5), run(5), run(9)])
            .unwrap();
        assert_eq!((appended.first.get(), appended.last.get()), (3, 6));
        let again = disk.power_loss_total();
        let journal = open_replica(&again, mode).unwrap();
        let epochs: Vec<u64> = durable(&journal).iter().map(|it| it.0).collect();
        assert_eq!(epochs, [3, 3, 3, 5, 5, 9]);
        assert_eq!(journal.last_epoch(), Epoch(9));
    }
}

#[test]
fn own_appends_have_the_highest_epoch_that_was_taken_or_raised() {
    let disk = sim::Disk::new(1);
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    follow(&journal, 3, 1, 10).unwrap();
    append(&journal, b"under 3").unwrap();
    journal.raise_epoch(Epoch(7)).unwrap();
    for lower in [0, 3, 6] {
        let error = journal.raise_epoch(Epoch(lower)).unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced, "{error}");
    }
    journal.raise_epoch(Epoch(7)).unwrap();
    // What an earlier authority wrote may still come, until this one has written.
    follow(&journal, 4, 1, 10).unwrap();
    append(&journal, b"under 7").unwrap();
    assert_eq!(follow(&journal, 6, 1, 10).unwrap_err().kind(), Kind::Fenced);
    let epochs: Vec<u64> = durable(&journal).iter().map(|it| it.0).collect();
    assert_eq!(epochs, [3, 3, 4, 7]);
}

/// A segment was begun for a record of a higher epoch, and the record was lost: what comes in its
/// place is from an authority that never knew of it, and may be older.
#[test]
fn a_segment_that_was_begun_for_a_lost_record_refuses_no_older_one() {
    let prepare = || {
        let disk = sim::Disk::new(1);
        let journal = open_replica(&disk, Mode::Ordinary).unwrap();
        follow(&journal, 3, 2, 3800).unwrap();
        (disk, journal)
    };
    let (disk, journal) = prepare();
    let before = disk.effects();
    follow(&journal, 9, 1, 3800).unwrap();
    let effects = disk.effects() - before;
    let mut begun = 0;
    for effect in 1..=effects {
        let (disk, journal) = prepare();
        disk.crash_at(effect);
        assert!(follow(&journal, 9, 1, 3800).is_err(), "effect {effect}");
        let after = disk.process_death();
        let journal = open_replica(&after, Mode::Ordinary).unwrap();
        if journal.durable() == Lsn::new(2) {
            begun += u64::from(journal.metrics().segments == 2);
            follow(&journal, 4, 1, 100).unwrap();
            let again = after.power_loss_total();
            drop(journal);
            open_replica(&again, Mode::Ordinary).unwrap();
        }
    }
    assert!(begun > 0, "no crash left a segment without a record");
}

/// Proves: JRN-18
#[test]
fn readers_see_what_was_shown_and_is_durable_and_nothing_else() {
    let disk = sim::Disk::new(1);
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    follow(&journal, 1, 5, 10).unwrap();
    let seen = |journal: &Local| (journal.safe_point().get(), bodies(journal).len());
    assert_eq!(seen(&journal), (0, 0));
    assert_eq!(durable(&journal).len(), 5);
    // In the middle of a batch, and not back.
    journal.show(Lsn::new(2));
    journal.show(Lsn::new(1));
    assert_eq!(seen(&journal), (2, 2));
    assert_eq!(journal.wait_above(Lsn::new(2), Duration::ZERO), Lsn::new(2));
    // What is committed elsewhere shows once it is here.
    journal.show(Lsn::new(7));
    assert_eq!(seen(&journal), (5, 5));
    follow(&journal, 1, 3, 10).unwrap();
    assert_eq!(seen(&journal), (7, 7));
    assert_eq!(journal.durable(), Lsn::new(8));
    // What was not shown is not released either.
    for _ in 0..4 {
        follow(&journal, 1, 1, 3000).unwrap();
    }
    journal.release_below(Lsn::new(u64::MAX)).unwrap();
    assert!(journal.first_retained() <= Lsn::new(8));
    drop(journal);
    let (ordinary, _) = open(&disk).unwrap();
    assert_eq!(ordinary.safe_point(), ordinary.durable());
}

#[test]
fn a_range_is_bounded_by_bytes_and_tells_gone_from_broken() {
    let disk = sim::Disk::new(1);
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    for _ in 0..9 {
        follow(&journal, 1, 1, 3000).unwrap();
    }
    let range = |journal: &Local, from, to, bytes| {
        journal
            .read_range(Lsn::new(from), Lsn::new(to), bytes)
            .map(|records| records.iter().map(|it| it.lsn.get()).collect::<Vec<_>>())
    };
    assert_eq!(range(&journal, 2, 5, usize::MAX).unwrap(), [2, 3, 4, 5]);
    assert_eq!(range(&journal, 2, 5, 6000).unwrap(), [2, 3]);
    assert_eq!(range(&journal, 2, 5, 5999).unwrap(), [2]);
    assert_eq!(range(&journal, 2, 5, 0).unwrap(), [2]);
    assert_eq!(range(&journal, 9, 99, usize::MAX).unwrap(), [9]);
    assert_eq!(range(&journal, 10, 99, usize::MAX).unwrap(), [0; 0]);
    journal.show(Lsn::new(9));
    journal.release_below(Lsn::new(4)).unwrap();
    let first = journal.first_retained().get();
    assert!(first > 1);
    let gone = range(&journal, first - 1, 9, usize::MAX).unwrap_err();
    assert_eq!((gone.kind(), gone.misplaced()), (Kind::OutOfRange, None));
    disk.rot(&segment(first), 5000, 1).unwrap();
    let broken = range(&journal, first, 9, usize::MAX).unwrap_err();
    assert_eq!(broken.kind(), Kind::Corrupt, "{broken}");
}

#[test]
fn the_history_of_epochs_is_read_off_the_log_and_kept_up() {
    for mode in MODES {
        let disk = sim::Disk::new(1);
        let journal = open_replica(&disk, mode).unwrap();
        assert_eq!(starts(&journal), []);
        for epoch in [1, 1, 4, 4, 4, 6] {
            follow(&journal, epoch, 2, 2000).unwrap();
        }
        let all = [(1, 1, true), (4, 5, true), (6, 11, true)];
        assert_eq!(starts(&journal), all);
        let journal = open_replica(&disk.power_loss_total(), mode).unwrap();
        assert_eq!(starts(&journal), all);
        follow(&journal, 8, 1, 10).unwrap();
        assert_eq!(starts(&journal).last(), Some(&(8, 13, true)));
    }
}

/// In strict mode the last batch counts only if a slot vouches for it, and so does the epoch that it
/// begins.
#[test]
fn an_epoch_whose_only_batch_was_not_acknowledged_is_not_in_the_history() {
    let mut cut = 0;
    for effect in 1.. {
        let disk = sim::Disk::new(1);
        let journal = open_replica(&disk, Mode::Strict).unwrap();
        follow(&journal, 3, 2, 100).unwrap();
        disk.crash_at(effect);
        if follow(&journal, 9, 1, 100).is_ok() {
            break;
        }
        let again = open_replica(&disk.process_death(), Mode::Strict).unwrap();
        if again.durable() == Lsn::new(2) {
            assert_eq!(starts(&again), [(3, 1, true)], "effect {effect}");
            cut += 1;
        }
    }
    assert!(cut > 1, "no batch was written and not vouched for");
}

/// Limits of bytes are for what readers are done with, not for what they were not shown yet.
#[test]
fn limits_release_nothing_that_was_not_shown() {
    let disk = sim::Disk::new(1);
    let limits = crate::Limits {
        bytes_max: Some(super::SEGMENT_BYTES),
        age_max: None,
    };
    let (journal, _) = Local::open(Options {
        shown: Some(Lsn::ZERO),
        retention: crate::Retention::Policy(limits),
        ..options(&disk)
    })
    .unwrap();
    for _ in 0..12 {
        follow(&journal, 1, 1, 3000).unwrap();
    }
    assert_eq!(journal.apply_retention().unwrap(), 0);
    journal.show(Lsn::new(5));
    assert!(journal.apply_retention().unwrap() > 0);
    assert!(journal.first_retained() <= Lsn::new(6));
}

/// What was released is known as long as the journal is open, and from what the owner noted; of the
/// rest only the number is left, from the first record that is retained.
#[test]
fn epochs_below_the_retained_range_are_known_as_far_as_they_were_noted() {
    let noted = |epoch: u64, first: u64| EpochStart {
        epoch: Epoch(epoch),
        first: Lsn::new(first),
        id: Some(u128::from(epoch) << 100),
        is_exact: true,
    };
    for is_noted in [false, true] {
        let disk = sim::Disk::new(1);
        let journal = open_replica(&disk, Mode::Ordinary).unwrap();
        for epoch in [1, 1, 4, 4, 4, 6] {
            follow(&journal, epoch, 2, 2000).unwrap();
        }
        if is_noted {
            journal.note_epochs(&[noted(1, 1), noted(4, 5)]).unwrap();
        }
        journal.show(Lsn::new(12));
        journal.release_below(Lsn::new(9)).unwrap();
        let first = journal.first_retained().get();
        assert!(first > 5, "{first}");
        let all = [(1, 1, true), (4, 5, true), (6, 11, true)];
        assert_eq!(starts(&journal), all);
        let journal = open_replica(&disk.power_loss_total(), Mode::Ordinary).unwrap();
        if is_noted {
            assert_eq!(starts(&journal), all);
            let ids: Vec<_> = journal.epochs().iter().map(|start| start.id).collect();
            assert_eq!(ids, [noted(1, 1).id, noted(4, 5).id, None]);
        } else {
            assert_eq!(starts(&journal), [(4, first, false), (6, 11, true)]);
        }
        for wrong in [
            &[noted(4, 1), noted(4, 5)][..],
            &[noted(1, 5), noted(4, 5)],
            &[noted(1, 13)],
        ] {
            let error = journal.note_epochs(wrong).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
    }
}

#[test]
fn a_log_that_was_made_again_has_another_birth() {
    let disk = sim::Disk::new(1);
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    let birth = journal.birth().unwrap();
    drop(journal);
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    assert_eq!(journal.birth(), Some(birth));
    drop(journal);
    let other_dice = Options {
        random: std::sync::Arc::new(sim::Random::new(2)),
        ..options(&disk)
    };
    crate::reset(&other_dice, "another life").unwrap();
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    assert_ne!(journal.birth(), Some(birth));
}
