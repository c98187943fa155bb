//! Cutting the tail of a log that parted, and the machine ending at every disk call of it.

use std::io::ErrorKind;

use world::{
    Disk as _,
    sim::{self, Call, Fault},
};

use super::{
    DIR, MODES, append, bodies, options, path,
    replicated::{body, durable, follow, open_replica},
    segment,
};
use crate::{
    Cause, CutRecords, Epoch, EpochStart, Error, Journal, Kind, Local, Lsn, Misplaced, Mode,
    Truncated, Truncation, cut_files, epochs, order, slots,
};

const REASON: &str = "the primary's log has epoch 4 from another position on";

/// Batches of several records, batches that fill a segment, a batch longer than a segment, and
/// recycled files, over epochs 1, 2 and 5. Everything is durable, and positions up to 4 were shown.
fn log(disk: &sim::Disk, mode: Mode) -> Local {
    let journal = open_replica(disk, mode).unwrap();
    // Its files are recycled by what follows.
    for _ in 0..6 {
        follow(&journal, 1, 2, 1700).unwrap();
    }
    journal.show(Lsn::new(12));
    journal.release_below(Lsn::new(12)).unwrap();
    for (epoch, count, len) in [
        (1, 3, 500),
        (2, 2, 1800),
        (2, 4, 900),
        (2, 1, 14_000),
        (5, 3, 1200),
        (5, 1, 3000),
        (5, 2, 40),
    ] {
        follow(&journal, epoch, count, len).unwrap();
    }
    journal
}

/// Position, epoch and bytes of a record.
type Held = (u64, u64, Vec<u8>);

const SHOWN: u64 = 12;
/// Of [`log`].
const END: u64 = 28;

fn cut(journal: &Local, keep: u64) -> Result<Truncated, Error> {
    journal.truncate_after(&Truncation {
        keep: Lsn::new(keep),
        reason: REASON,
        shown_too: false,
    })
}

fn records(disk: &sim::Disk, file: &std::path::Path) -> Vec<Held> {
    CutRecords::open(disk, file)
        .unwrap()
        .map(|record| record.unwrap())
        .map(|record| (record.lsn.get(), record.epoch.0, record.bytes))
        .collect()
}

/// What a log holds, with positions.
fn held(journal: &Local) -> Vec<Held> {
    let first = journal.first_retained().get();
    (first..)
        .zip(durable(journal))
        .map(|(lsn, (epoch, bytes))| (lsn, epoch, bytes))
        .collect()
}

/// Positions and epochs first: they are short to print.
fn same(found: &[Held], expected: &[Held], story: &str) {
    let names = |records: &[Held]| records.iter().map(|it| (it.0, it.1)).collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{story}");
    assert!(found == expected, "{story}: other bytes");
}

fn up_to(all: &[Held], keep: u64) -> Vec<Held> {
    all.iter().filter(|it| it.0 <= keep).cloned().collect()
}

/// At every position, in both modes: what is kept is what there was, what went is in the quarantine,
/// and what comes next is read back by the next program.
///
/// Proves: JRN-4, JRN-14
#[test]
fn a_cut_keeps_every_record_up_to_it_and_sets_the_others_aside() {
    for mode in MODES {
        for keep in SHOWN..END {
            let story = format!("{mode:?}, after {keep}");
            let disk = sim::Disk::new(1);
            let journal = log(&disk, mode);
            assert_eq!(journal.durable(), Lsn::new(END));
            assert!(journal.counts().recycled >= 2, "{:?}", journal.counts());
            let all = held(&journal);
            let done = cut(&journal, keep).unwrap();
            assert_eq!(done.end, Lsn::new(END), "{story}");
            assert_eq!(done.records, END - keep, "{story}");
            let kept = up_to(&all, keep);
            same(&held(&journal), &kept, &story);
            assert_eq!(journal.safe_point(), Lsn::new(SHOWN), "{story}");
            let file = done.quarantine.unwrap();
            assert_eq!(
                cut_files(&disk, DIR.as_ref()).unwrap(),
                std::slice::from_ref(&file)
            );
            same(&records(&disk, &file), &all[kept.len()..], &story);
            let report = disk.read(&file.with_extension("txt"), 1 << 10).unwrap();
            assert!(String::from_utf8(report).unwrap().contains(REASON));
            goes_on(&disk, journal, mode, kept, &story);
        }
    }
}

/// Own appends wait for a higher epoch; records of whoever has the journal do not, whatever they were
/// written under; all of it is there after a crash, and once more.
fn goes_on(disk: &sim::Disk, journal: Local, mode: Mode, mut kept: Vec<Held>, story: &str) {
    let last = kept.last().map_or(1, |it| it.1);
    assert_eq!(journal.last_epoch(), Epoch(last), "{story}");
    let error = append(&journal, b"own").unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "{story}: {error}");
    let reopened = disk.fork();
    drop(journal);
    let journal = open_replica(&reopened, mode).unwrap();
    same(&held(&journal), &kept, &format!("{story}, reopened"));
    let error = append(&journal, b"own").unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "{story}, reopened: {error}");
    // As long as what was cut, so that batches come to lie where others were.
    for (epoch, count, len) in [(last, 2, 1800), (6, 1, 3000), (6, 4, 1200), (6, 1, 9000)] {
        let first = journal.durable().next().get();
        follow(&journal, epoch, count, len).unwrap();
        kept.extend(
            (first..=journal.durable().get()).map(|lsn| (lsn, epoch, body(epoch, lsn, len))),
        );
    }
    journal.raise_epoch(Epoch(9)).unwrap();
    append(&journal, b"own").unwrap();
    kept.push((journal.durable().get(), 9, b"own".to_vec()));
    let next = reopened.power_loss_total();
    drop(journal);
    let journal = open_replica(&next, mode).unwrap_or_else(|error| panic!("{story}: {error}"));
    same(
        &held(&journal),
        &kept,
        &format!("{story}, after a power loss"),
    );
}

/// Proves: JRN-14
#[test]
fn a_cut_that_a_crash_interrupts_has_not_begun_or_is_ended() {
    for (mode, keeps) in [
        // In the middle of a batch, at its end, behind a batch that is a segment of its own.
        (Mode::Ordinary, [14, 21, 22]),
        (Mode::Strict, [15, 19, 27]),
    ] {
        for keep in keeps {
            let whole = sim::Disk::new(1);
            let journal = log(&whole, mode);
            let all = held(&journal);
            let before = whole.effects();
            cut(&journal, keep).unwrap();
            let effects = whole.effects() - before;
            let mut ends = [0, 0];
            for effect in 1..=effects {
                let disk = sim::Disk::new(1);
                let journal = log(&disk, mode);
                disk.crash_at(effect);
                assert!(cut(&journal, keep).is_err(), "effect {effect}");
                let mut found = vec![
                    (disk.process_death(), "process death".to_owned()),
                    (
                        disk.power_loss_total(),
                        "power loss, nothing kept".to_owned(),
                    ),
                ];
                for seed in 0..4 {
                    found.push((
                        disk.power_loss(effect * 4 + seed),
                        format!("power loss {seed}"),
                    ));
                }
                for (after, how) in found {
                    let story =
                        format!("{mode:?}, after {keep}, effect {effect} of {effects}, {how}");
                    ends[usize::from(ends_well(&after, mode, &all, keep, &story))] += 1;
                }
            }
            assert!(ends[0] > 0 && ends[1] > 0, "{mode:?}, {keep}: {ends:?}");
        }
    }
}

/// Whether the cut was ended, and not without what it took. Opening is interrupted as well.
fn ends_well(after: &sim::Disk, mode: Mode, all: &[Held], keep: u64, story: &str) -> bool {
    let is_ordered = order::pending(after, DIR.as_ref()).unwrap().is_some();
    let whole = after.fork();
    let before = whole.effects();
    let journal = open_replica(&whole, mode).unwrap_or_else(|error| panic!("{story}: {error}"));
    let steps = whole.effects() - before;
    let found = held(&journal);
    let is_cut = found.len() < all.len();
    assert!(
        is_cut || !is_ordered,
        "{story}: the order was not carried out"
    );
    let expected = if is_cut { keep } else { END };
    same(&found, &up_to(all, expected), story);
    if is_cut {
        let files = cut_files(&whole, DIR.as_ref()).unwrap();
        same(&records(&whole, &files[0]), &all[found.len()..], story);
        goes_on(&whole, journal, mode, found.clone(), story);
    }
    if is_ordered {
        for step in 1..=steps {
            let interrupted = after.fork();
            interrupted.crash_at(step);
            assert!(
                open_replica(&interrupted, mode).is_err(),
                "{story}, step {step}"
            );
            for again in [interrupted.process_death(), interrupted.power_loss(step)] {
                let story = format!("{story}, opening step {step}");
                let was_ordered = order::pending(&again, DIR.as_ref()).unwrap().is_some();
                let journal =
                    open_replica(&again, mode).unwrap_or_else(|error| panic!("{story}: {error}"));
                // The crash before may have left the order's name in the page cache only.
                let is_lost = !was_ordered && journal.durable() == Lsn::new(END);
                let expected = if is_lost { all } else { &found };
                same(&held(&journal), expected, &story);
            }
        }
    }
    is_cut
}

/// Every call of a cut fails once: the log is whole and goes on, or it is poisoned and the next
/// opening ends the cut.
#[test]
fn a_cut_that_fails_leaves_the_log_whole_or_poisoned() {
    let calls = [
        Call::Write,
        Call::SyncData,
        Call::SyncAll,
        Call::SyncDir,
        Call::Rename,
        Call::RemoveFile,
        Call::Open,
        Call::List,
        Call::Read,
        Call::CreateDir,
    ];
    let mut ends = [0, 0];
    for (mode, keep) in [
        (Mode::Ordinary, 14),
        (Mode::Strict, 19),
        (Mode::Ordinary, 27),
    ] {
        for call in calls {
            for (nth, kind) in
                (1..).flat_map(|nth| [(nth, ErrorKind::Other), (nth, ErrorKind::StorageFull)])
            {
                let disk = sim::Disk::new(1);
                let journal = log(&disk, mode);
                let all = held(&journal);
                disk.inject(call, nth, Fault::Fail(kind));
                let done = cut(&journal, keep);
                if disk.unmet_faults() > 0 {
                    break;
                }
                let story = format!("{mode:?}, after {keep}, {call:?} {nth}, {kind}");
                let Err(error) = done else { continue };
                let is_poisoned = error.kind() == Kind::Poisoned;
                ends[usize::from(is_poisoned)] += 1;
                if is_poisoned {
                    assert!(journal.metrics().is_poisoned, "{story}");
                    assert_eq!(
                        follow(&journal, 5, 1, 10).unwrap_err().kind(),
                        Kind::Poisoned
                    );
                } else {
                    same(&held(&journal), &all, &format!("{story}: {error}"));
                    follow(&journal, 5, 1, 10).unwrap();
                }
                let expected = durable_after(&all, is_poisoned, keep);
                drop(journal);
                let journal =
                    open_replica(&disk, mode).unwrap_or_else(|error| panic!("{story}: {error}"));
                same(&held(&journal), &expected, &format!("{story}: {error}"));
            }
        }
    }
    assert!(ends[0] > 10 && ends[1] > 10, "{ends:?}");
}

fn durable_after(all: &[Held], is_poisoned: bool, keep: u64) -> Vec<Held> {
    if is_poisoned {
        return up_to(all, keep);
    }
    let mut expected = all.to_vec();
    expected.push((END + 1, 5, body(5, END + 1, 10)));
    expected
}

#[test]
fn a_cut_below_what_is_retained_or_was_shown_is_refused() {
    let disk = sim::Disk::new(1);
    let journal = log(&disk, Mode::Ordinary);
    let all = held(&journal);
    let first = journal.first_retained().get();
    assert!(first > 1 && first < SHOWN);
    let refused = |keep: u64, reason: &str, shown_too: bool| {
        let truncation = Truncation {
            keep: Lsn::new(keep),
            reason,
            shown_too,
        };
        let error = journal.truncate_after(&truncation).unwrap_err();
        same(&held(&journal), &all, &error.to_string());
        error.kind()
    };
    assert_eq!(refused(SHOWN - 1, REASON, false), Kind::Invalid);
    assert_eq!(refused(END + 1, REASON, false), Kind::Invalid);
    assert_eq!(refused(first - 2, REASON, true), Kind::OutOfRange);
    assert_eq!(refused(SHOWN, " ", false), Kind::Invalid);
    let long = "x".repeat(order::REASON_LEN_MAX + 1);
    assert_eq!(refused(SHOWN, &long, false), Kind::Invalid);
    // Nothing to do is no error, and leaves nothing.
    assert_eq!(cut(&journal, END).unwrap().records, 0);
    assert_eq!(cut_files(&disk, DIR.as_ref()).unwrap().len(), 0);
    // Told to, it takes what was shown, too, down to an empty log.
    let done = journal.truncate_after(&Truncation {
        keep: Lsn::new(first - 1),
        reason: REASON,
        shown_too: true,
    });
    assert_eq!(done.unwrap().records, END + 1 - first);
    assert_eq!((held(&journal), bodies(&journal).len()), (Vec::new(), 0));
    assert_eq!(journal.safe_point(), Lsn::new(first - 1));
    assert_eq!(journal.last_epoch(), Epoch(1));
    goes_on(&disk, journal, Mode::Ordinary, Vec::new(), "an empty log");
}

/// Readers that were under way end where the cut is, with an error that says so, and read on below it
/// although the batch there was written again. Pins above it tell.
#[test]
fn whoever_stands_on_what_was_cut_is_told() {
    let disk = sim::Disk::new(1);
    let journal = log(&disk, Mode::Ordinary);
    journal.show(Lsn::new(END));
    let keep = 19;
    let pins: Vec<_> = [keep, keep + 1, keep + 2, END]
        .map(|from| journal.pin(Lsn::new(from)).unwrap())
        .into();
    let mut readers: Vec<_> = [15, 18, keep + 1, keep + 2, END]
        .map(|from| (from, journal.read(Lsn::new(from)).unwrap()))
        .into();
    // One that has not begun, one in the middle of a batch, one in the middle of what goes.
    readers[1].1.next().unwrap().unwrap();
    readers[3].1.next().unwrap().unwrap();
    journal
        .truncate_after(&Truncation {
            keep: Lsn::new(keep),
            reason: REASON,
            shown_too: true,
        })
        .unwrap();
    follow(&journal, 7, 9, 900).unwrap();
    for (from, reader) in readers {
        let read: Vec<_> = reader.collect();
        let (lost, found) = read.split_last().unwrap();
        let error = lost.as_ref().unwrap_err();
        assert_eq!(error.kind(), Kind::OutOfRange, "{from}: {error}");
        let told = Misplaced::Cut {
            keep: Lsn::new(keep),
        };
        assert_eq!(error.misplaced(), Some(told), "{from}");
        let found: Vec<_> = found
            .iter()
            .map(|it| it.as_ref().unwrap().lsn.get())
            .collect();
        let next = if from == 18 { 19 } else { from };
        assert_eq!(found, (next..=keep).collect::<Vec<_>>(), "{from}");
    }
    let told: Vec<bool> = pins.iter().map(|pin| pin.check().is_err()).collect();
    assert_eq!(told, [false, false, true, true]);
    let fresh = journal.pin(Lsn::new(END)).unwrap();
    fresh.check().unwrap();
    // What was shown before is not shown again by itself.
    assert_eq!(journal.safe_point(), Lsn::new(keep));
}

/// A reader that missed a cut does not know whether the last one was the lowest.
#[test]
fn a_reader_that_slept_through_two_cuts_is_told_whatever_it_read() {
    let disk = sim::Disk::new(1);
    let journal = log(&disk, Mode::Ordinary);
    let mut reader = journal.read(Lsn::new(11)).unwrap();
    reader.next().unwrap().unwrap();
    cut(&journal, 20).unwrap();
    follow(&journal, 6, 3, 10).unwrap();
    cut(&journal, 22).unwrap();
    let error = reader.next().unwrap().unwrap_err();
    assert!(matches!(error.misplaced(), Some(Misplaced::Cut { .. })));
    assert!(reader.next().is_none());
    assert_eq!(cut_files(&disk, DIR.as_ref()).unwrap().len(), 2);
}

/// Where to begin reading is remembered for every quarter of a megabyte; what is remembered of what
/// was cut would lead into the middle of other batches.
#[test]
fn reading_begins_at_batches_that_came_after_the_cut() {
    let disk = sim::Disk::new(1);
    let (journal, _) = Local::open(crate::Options {
        segment_bytes: 8 << 20,
        shown: Some(Lsn::ZERO),
        ..options(&disk)
    })
    .unwrap();
    for _ in 0..20 {
        follow(&journal, 1, 1, 100_000).unwrap();
    }
    cut(&journal, 3).unwrap();
    for _ in 0..30 {
        follow(&journal, 2, 1, 70_001).unwrap();
    }
    for lsn in 1..=33 {
        let found = journal.read_range(Lsn::new(lsn), Lsn::new(lsn), 1).unwrap();
        assert_eq!(found[0].lsn, Lsn::new(lsn));
    }
}

/// The tool that looks at a directory finds nothing wrong with a log that was cut, and knows a cut that
/// is not ended.
#[test]
fn a_look_at_a_log_that_was_cut_finds_it_whole() {
    let look = |disk: &sim::Disk| {
        crate::survey(&options(disk), &mut |_| std::ops::ControlFlow::Continue(())).unwrap()
    };
    let disk = sim::Disk::new(1);
    let journal = log(&disk, Mode::Ordinary);
    cut(&journal, 14).unwrap();
    follow(&journal, 6, 3, 100).unwrap();
    drop(journal);
    let found = look(&disk);
    assert_eq!(found.cause(), None);
    assert_eq!(found.strangers, [""; 0]);
    assert_eq!(found.kept_to, Lsn::new(17));
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    disk.inject_on(
        &path(slots::NAME),
        Call::Write,
        1,
        Fault::Fail(ErrorKind::Other),
    );
    let forced = Truncation {
        keep: Lsn::new(16),
        reason: REASON,
        shown_too: false,
    };
    assert_eq!(
        journal.truncate_after(&forced).unwrap_err().kind(),
        Kind::Poisoned
    );
    drop(journal);
    let found = look(&disk);
    assert!(matches!(
        found.opening,
        Ok(crate::survey::Opening::Finishes("a cut"))
    ));
    assert_eq!(found.strangers, [""; 0]);
}

#[test]
fn the_history_of_epochs_is_cut_with_the_log() {
    let disk = sim::Disk::new(1);
    let journal = log(&disk, Mode::Ordinary);
    let starts = |journal: &Local| -> Vec<(u64, u64)> {
        let told = journal.epochs();
        told.iter()
            .map(|start| (start.epoch.0, start.first.get()))
            .collect()
    };
    let noted: Vec<_> = [(1, 1), (2, 16), (5, 23)]
        .map(|(epoch, first)| EpochStart {
            epoch: Epoch(epoch),
            first: Lsn::new(first),
            id: Some(7),
            is_exact: true,
        })
        .into();
    journal.note_epochs(&noted).unwrap();
    assert_eq!(starts(&journal), [(1, 1), (2, 16), (5, 23)]);
    cut(&journal, 24).unwrap();
    assert_eq!(starts(&journal), [(1, 1), (2, 16), (5, 23)]);
    cut(&journal, 22).unwrap();
    assert_eq!(starts(&journal), [(1, 1), (2, 16)]);
    drop(journal);
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    assert_eq!(starts(&journal), [(1, 1), (2, 16)]);
    follow(&journal, 4, 1, 10).unwrap();
    assert_eq!(starts(&journal), [(1, 1), (2, 16), (4, 23)]);
}

#[test]
fn files_of_a_cut_that_do_not_verify_stop_the_start() {
    let refused = |damage: &dyn Fn(&sim::Disk)| {
        let disk = sim::Disk::new(1);
        let journal = log(&disk, Mode::Ordinary);
        cut(&journal, 24).unwrap();
        drop(journal);
        damage(&disk);
        open_replica(&disk, Mode::Ordinary).unwrap_err().cause()
    };
    let mismatch = Some(Cause::IdentityMismatch);
    let history = path(epochs::NAME);
    assert_eq!(
        refused(&|disk| disk.rot(&history, 50, 1).unwrap()),
        mismatch
    );
    assert_eq!(
        refused(&|disk| disk.replace(&history, b"short").unwrap()),
        mismatch
    );
    let ordered = || {
        let disk = sim::Disk::new(1);
        let journal = log(&disk, Mode::Ordinary);
        disk.inject_on(
            &path(slots::NAME),
            Call::Write,
            1,
            Fault::Fail(ErrorKind::Other),
        );
        assert_eq!(cut(&journal, 24).unwrap_err().kind(), Kind::Poisoned);
        drop(journal);
        disk
    };
    let disk = ordered();
    disk.rot(&path(order::CUT_NAME), 45, 1).unwrap();
    assert_eq!(
        open_replica(&disk, Mode::Ordinary).unwrap_err().cause(),
        mismatch
    );
    let disk = ordered();
    disk.rot(&path(crate::cut::KEPT_NAME), 60, 1).unwrap();
    let error = open_replica(&disk, Mode::Ordinary).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::FrameCorrupt), "{error}");
    // Nothing was changed: with the file as it was, the cut is ended.
    disk.rot(&path(crate::cut::KEPT_NAME), 60, 1).unwrap();
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    assert_eq!(journal.durable(), Lsn::new(24));
}

/// Where the bytes of the record at `lsn` lie.
fn place_of(disk: &sim::Disk, epoch: u64, lsn: u64) -> (std::path::PathBuf, usize) {
    let needle = body(epoch, lsn, 0);
    let bases = crate::recover::bases(disk, DIR.as_ref()).unwrap();
    bases
        .into_iter()
        .find_map(|base| {
            let path = segment(base.get());
            let bytes = disk.read(&path, u64::MAX).unwrap();
            let at = bytes.windows(needle.len()).position(|it| it == needle)?;
            Some((path, at))
        })
        .unwrap()
}

/// A record that goes, or the batch around the cut, does not verify: nothing is cut, and the damage is
/// told as what it is.
#[test]
fn damage_in_what_is_cut_refuses_the_cut() {
    for (keep, epoch, lsn) in [(14, 1, 13), (14, 1, 15), (14, 5, 28), (20, 2, 22)] {
        let disk = sim::Disk::new(1);
        let journal = log(&disk, Mode::Ordinary);
        let (path, at) = place_of(&disk, epoch, lsn);
        disk.rot(&path, at, 1).unwrap();
        let error = cut(&journal, keep).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert_eq!(journal.durable(), Lsn::new(END));
        assert!(!journal.metrics().is_poisoned);
    }
}

/// An operator's reset takes a half-done cut with everything else.
#[test]
fn a_reset_ends_a_cut_that_was_interrupted() {
    let disk = sim::Disk::new(1);
    let journal = log(&disk, Mode::Ordinary);
    disk.inject_on(
        &path(slots::NAME),
        Call::Write,
        1,
        Fault::Fail(ErrorKind::Other),
    );
    assert_eq!(cut(&journal, 24).unwrap_err().kind(), Kind::Poisoned);
    drop(journal);
    crate::reset(&options(&disk), "begin anew").unwrap();
    let journal = open_replica(&disk, Mode::Ordinary).unwrap();
    assert_eq!(journal.durable(), Lsn::FIRST);
    append(&journal, b"goes on").unwrap();
}
