//! Looking at directories without changing them: what opening says, and what lies beyond a break.

use std::ops::ControlFlow;

use world::{
    Disk,
    disk::Open,
    sim::{self, Call},
};

use super::{append, fresh, open, options, path, segment};
use crate::{
    Cause, Journal, Kind, Lsn,
    batch::{self, Place},
    identity, slots,
    survey::{Opening, Seen, State, Survey, survey},
};

/// Three segments of records 1 to 3, 4 to 6, and 7 to 8, all settled.
fn three_segments() -> sim::Disk {
    let (disk, journal) = fresh();
    for number in 1..=8_u8 {
        append(&journal, &[number; 2000]).unwrap();
    }
    journal.close().unwrap();
    drop(journal);
    disk
}

/// The survey and the positions of the records it handed out; it changed nothing.
fn look(disk: &sim::Disk) -> (Survey, Vec<u64>) {
    let effects = disk.effects();
    let mut records = Vec::new();
    let found = survey(&options(disk), &mut |seen| {
        if let Seen::Record(record) = seen
            && !record.is_above
        {
            records.push(record.lsn.get());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(disk.effects(), effects, "looking changed something");
    (found, records)
}

/// Proves: JRN-21
#[test]
fn a_whole_journal_is_told_segment_by_segment() {
    let disk = three_segments();
    let (found, records) = look(&disk);
    assert!(matches!(found.opening, Ok(Opening::Opens(_))), "{found:?}");
    assert_eq!(records, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(
        (found.batches, found.records, found.damage_count),
        (8, 8, 0)
    );
    let states: Vec<State> = found.segments.iter().map(|segment| segment.state).collect();
    assert_eq!(states, [State::Sealed, State::Sealed, State::Active]);
    assert_eq!(found.tail, None);
    assert_eq!(found.cause(), None);
}

/// Every record that verifies is found, behind the break too, wherever it is.
///
/// Proves: JRN-21
#[test]
fn records_on_both_sides_of_a_break_are_found() {
    type Case = (u64, usize, &'static [u64], u64, Option<u64>);
    // Offset in a segment, whose three batches have 2064 bytes each from 4096 on.
    let cases: [Case; 5] = [
        (1, 4100, &[2, 3, 4, 5, 6, 7, 8], 1, Some(2)),
        (4, 7000, &[1, 2, 3, 4, 6, 7, 8], 5, Some(6)),
        (4, 10_000, &[1, 2, 3, 4, 5, 7, 8], 6, None),
        (7, 4200, &[1, 2, 3, 4, 5, 6, 8], 7, Some(8)),
        (7, 7000, &[1, 2, 3, 4, 5, 6, 7], 8, None),
    ];
    for (base, offset, expected, lost, resumes) in cases {
        let disk = three_segments();
        disk.rot(&segment(base), offset, 1).unwrap();
        let (found, records) = look(&disk);
        assert_eq!(records, expected, "{base} at {offset}");
        assert_eq!(found.damage_count, 1, "{base} at {offset}: {found:?}");
        assert_eq!(found.damages[0].cause, Cause::FrameCorrupt);
        assert_eq!(found.damages[0].expected, Lsn::new(lost));
        assert_eq!(found.damages[0].resumes, resumes.map(Lsn::new));
        assert_eq!(found.cause(), open(&disk).unwrap_err().cause());
    }
}

#[test]
fn a_missing_segment_and_a_bad_header_cost_no_other_records() {
    let disk = three_segments();
    disk.remove_file(&segment(4)).unwrap();
    let (found, records) = look(&disk);
    assert_eq!(records, [1, 2, 3, 7, 8]);
    assert_eq!(found.cause(), Some(Cause::SegmentMissing));
    // Once: not as a gap behind the segment before it, too.
    assert_eq!(found.damage_count, 1, "{found:?}");
    assert_eq!(found.damages[0].cause, Cause::SegmentMissing);
    assert_eq!(found.damages[0].resumes, Some(Lsn::new(7)));

    let disk = three_segments();
    disk.remove_file(&segment(7)).unwrap();
    let (found, records) = look(&disk);
    assert_eq!(records, [1, 2, 3, 4, 5, 6]);
    assert_eq!(found.damage_count, 1, "{found:?}");
    assert_eq!(found.damages[0].cause, Cause::SegmentMissing);
    assert_eq!(found.damages[0].expected, Lsn::new(7));

    let disk = three_segments();
    disk.rot(&segment(4), 100, 1).unwrap();
    let (found, records) = look(&disk);
    assert_eq!(records, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(found.cause(), Some(Cause::SegmentHeaderCorrupt));
    assert_eq!(found.damage_count, 1);
}

/// A rescue from such a directory reported nothing missing, and nothing rescued.
#[test]
fn segments_of_which_nothing_tells_the_journal_are_damage() {
    let disk = three_segments();
    disk.rot(&path(identity::NAME), 20, 1).unwrap();
    disk.rot(&path(slots::NAME), 100, 1).unwrap();
    disk.rot(&path(slots::NAME), 4196, 1).unwrap();
    for base in [1, 4, 7] {
        disk.rot(&segment(base), 100, 1).unwrap();
    }
    let (found, records) = look(&disk);
    assert!(records.is_empty(), "{records:?}");
    assert_eq!(found.damage_count, 3, "{found:?}");
    assert_eq!(found.cause(), Some(Cause::IdentityMismatch));
}

#[test]
fn a_torn_tail_is_no_damage_and_its_bytes_are_told() {
    let (disk, journal) = fresh();
    append(&journal, &[1; 500]).unwrap();
    let disk_after = disk.power_loss_total();
    drop(journal);
    let file = disk_after.open(&segment(1), Open::Write).unwrap();
    file.write_all_at(b"half a batch", 5000).unwrap();
    let (found, records) = look(&disk_after);
    assert_eq!(records, [1]);
    assert_eq!(found.damage_count, 0, "{found:?}");
    assert_eq!(found.tail.unwrap().to, 5012);
}

/// Proves: JRN-21
#[test]
fn a_journal_in_use_is_looked_at_beside_its_owner() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    append(&journal, b"two").unwrap();
    let (found, records) = look(&disk);
    assert_eq!(found.holder.as_deref(), Some("the test"));
    // Nothing durable vouches for the last one yet: it could be in flight.
    assert_eq!(records, [1]);
    journal.settle().unwrap();
    assert_eq!(look(&disk).1, [1, 2]);
    append(&journal, b"three").unwrap();
    assert_eq!(journal.safe_point(), Lsn::new(3));
}

#[test]
fn one_slot_that_does_not_verify_is_told_and_is_no_damage() {
    let disk = three_segments();
    disk.rot(&path(slots::NAME), 50, 1).unwrap();
    let (found, records) = look(&disk);
    assert_eq!(records.len(), 8);
    assert!(found.slots[0].held.is_err());
    assert!(matches!(&found.opening, Ok(Opening::Opens(found)) if found.slot_torn));
}

#[test]
fn records_are_told_under_the_identity_of_whatever_file_still_has_it() {
    let disk = three_segments();
    disk.remove_file(&path(identity::NAME)).unwrap();
    let (found, records) = look(&disk);
    assert_eq!(found.identity_from.as_deref(), Some(slots::NAME));
    assert_eq!(records.len(), 8);
    disk.remove_file(&path(slots::NAME)).unwrap();
    let (found, records) = look(&disk);
    assert!(found.identity_from.unwrap().ends_with(".seg"));
    assert_eq!(records.len(), 8);
    assert_eq!(
        found.opening.unwrap_err().cause(),
        Some(Cause::SafePointMissing)
    );
}

/// Stale bytes behind the batches of a recycled file are no tail and no damage.
///
/// Proves: JRN-3, JRN-21
#[test]
fn a_recycled_segment_ends_where_its_batches_do() {
    let (disk, journal) = fresh();
    for number in 1..=6_u8 {
        append(&journal, &[number; 2000]).unwrap();
    }
    journal.release_below(Lsn::new(5)).unwrap();
    append(&journal, &[7; 2000]).unwrap();
    journal.close().unwrap();
    drop(journal);
    let (found, records) = look(&disk);
    assert!(found.segments.last().unwrap().is_recycled);
    assert_eq!(found.tail, None);
    assert_eq!(found.segments.iter().map(|it| it.damages).sum::<u64>(), 0);
    assert_eq!(records, [4, 5, 6, 7]);
    let end = crate::segment::HEADER_LEN as u64 + 2064;
    let file = disk.open(&segment(7), Open::Write).unwrap();
    file.write_all_at(b"torn", end).unwrap();
    file.sync_all().unwrap();
    let (found, records) = look(&disk);
    assert_eq!(found.tail.unwrap().from, end);
    assert_eq!(records, [4, 5, 6, 7]);
}

/// Somebody made a segment of small batches that verify, each followed by a header that claims all
/// that is left of the file. Reading each claim for itself would be the square of the file.
///
/// Proves: JRN-21
#[test]
fn headers_that_claim_the_same_bytes_are_read_once() {
    let disk = sim::Disk::new(1);
    let large = || crate::Options {
        segment_bytes: 2 << 20,
        ..options(&disk)
    };
    let (journal, _) = crate::Local::open(large()).unwrap();
    append(&journal, &[1; 1 << 20]).unwrap();
    journal.close().unwrap();
    let place = Place::new(journal.identity(), Lsn::FIRST);
    drop(journal);
    let file = disk.open(&segment(1), Open::Write).unwrap();
    let len = file.len().unwrap();
    let mut offset = 4096;
    for first in 2..200 {
        for payload in [8, len - offset - 200] {
            let mut bytes = vec![0; batch::HEADER_LEN + usize::try_from(payload).unwrap()];
            let closing = batch::Closing {
                count: 1,
                first: Lsn::new(first),
                epoch: crate::Epoch(0),
                safe_point: Lsn::new(first),
                settled: Lsn::ZERO,
                mode: crate::Mode::Ordinary,
            };
            // Of the long ones, the header alone is written.
            bytes[batch::HEADER_LEN] = u8::from(payload > 8);
            batch::close(&mut bytes, &closing, place, offset);
            bytes.truncate(batch::HEADER_LEN + 8);
            file.write_all_at(&bytes, offset).unwrap();
            offset += bytes.len() as u64;
        }
    }
    let before = disk.count(Call::Read);
    let found = survey(&large(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(found.cause(), Some(Cause::FirstSeqNotBase));
    let reads = disk.count(Call::Read) - before;
    assert!(reads < 100, "{reads} reads");
}

/// Proves: JRN-21
#[test]
fn a_block_that_cannot_be_read_costs_only_the_batches_in_it() {
    // Three batches of 2064 bytes in each segment, from 4096 on.
    type Case = (u64, u64, &'static [u64], Option<u64>);
    let cases: [Case; 9] = [
        (1, 0, &[], None),
        (1, 4096, &[1, 2], Some(1)),
        (1, 8192, &[2, 3], Some(2)),
        (4, 0, &[], None),
        (4, 4096, &[4, 5], Some(4)),
        (4, 8192, &[5, 6], Some(5)),
        (7, 0, &[], None),
        (7, 4096, &[7, 8], Some(7)),
        (7, 8192, &[8], Some(8)),
    ];
    for (base, offset, lost, expected) in cases {
        let story = format!("segment {base} at {offset}");
        let disk = three_segments();
        disk.make_unreadable(&segment(base), offset, 512).unwrap();
        let (found, records) = look(&disk);
        let rest: Vec<u64> = (1..=8).filter(|lsn| !lost.contains(lsn)).collect();
        assert_eq!(records, rest, "{story}");
        assert_eq!(found.damage_count, 1, "{story}: {found:?}");
        let damage = &found.damages[0];
        assert_eq!(damage.path, segment(base), "{story}");
        assert!(damage.what.contains("block lost"), "{story}: {damage:?}");
        match expected {
            None => assert_eq!(damage.cause, Cause::SegmentHeaderCorrupt, "{story}"),
            Some(expected) => {
                assert_eq!(damage.cause, Cause::FrameCorrupt, "{story}");
                assert_eq!(damage.expected, Lsn::new(expected), "{story}");
                let named = format!("byte {offset},");
                assert!(damage.what.contains(&named), "{story}: {damage:?}");
            }
        }
        assert_eq!(found.tail, None, "{story}");
        assert_eq!(open(&disk).unwrap_err().kind(), Kind::Io, "{story}");
    }
}

/// Proves: JRN-21
#[test]
fn an_unreadable_block_where_the_next_batch_would_be_is_no_quiet_end() {
    let (disk, journal) = fresh();
    append(&journal, &[1; 5000]).unwrap();
    let disk = disk.process_death();
    drop(journal);
    disk.make_unreadable(&segment(1), 8192, 512).unwrap();
    let (found, records) = look(&disk);
    assert_eq!(records, [] as [u64; 0]);
    assert_eq!(found.damage_count, 1, "{found:?}");
    assert_eq!(found.tail, None);
    assert!(found.damages[0].what.contains("block lost"), "{found:?}");
}

/// Proves: JRN-21
#[test]
fn a_segment_that_is_no_file_or_reads_nowhere_costs_only_itself() {
    for base in [1, 4, 7] {
        let rest: Vec<u64> = (1..=8)
            .filter(|lsn| !(base..base + 3).contains(lsn))
            .collect();
        for as_directory in [false, true] {
            let disk = three_segments();
            if as_directory {
                disk.remove_file(&segment(base)).unwrap();
                disk.create_dir(&segment(base)).unwrap();
            } else {
                disk.make_unreadable(&segment(base), 0, u64::MAX).unwrap();
            }
            let story = format!("segment {base}, a directory: {as_directory}");
            let (found, records) = look(&disk);
            assert_eq!(records, rest, "{story}");
            assert_eq!(found.damages[0].cause, Cause::SegmentHeaderCorrupt);
            assert_eq!(found.damages[0].path, segment(base), "{story}");
            assert_eq!(found.damages[0].expected, Lsn::new(base), "{story}");
            assert!(found.damages.iter().all(|it| it.path == segment(base)));
        }
    }
}

/// Proves: JRN-21
#[test]
fn blocks_that_cannot_be_read_in_the_small_files_end_no_rescue() {
    for (name, offset) in [(identity::NAME, 0), (slots::NAME, 0), (slots::NAME, 4096)] {
        let disk = three_segments();
        disk.make_unreadable(&path(name), offset, 512).unwrap();
        let (found, records) = look(&disk);
        assert_eq!(records, [1, 2, 3, 4, 5, 6, 7, 8], "{name} at {offset}");
        assert!(found.opening.is_err(), "{name} at {offset}");
    }
}

/// A disk that fails takes seconds for each block that it does not read.
///
/// Proves: JRN-21
#[test]
fn a_large_segment_that_reads_nowhere_is_given_up() {
    let disk = sim::Disk::new(1);
    let large = || crate::Options {
        segment_bytes: 8 << 20,
        ..options(&disk)
    };
    let (journal, _) = crate::Local::open(large()).unwrap();
    append(&journal, &[1; 7 << 20]).unwrap();
    append(&journal, &[2; 7 << 20]).unwrap();
    journal.close().unwrap();
    drop(journal);
    disk.make_unreadable(&segment(1), 4096, u64::MAX).unwrap();
    let before = disk.count(Call::Read);
    let mut records = Vec::new();
    let found = survey(&large(), &mut |seen| {
        if let Seen::Record(record) = seen {
            records.push(record.lsn.get());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let reads = disk.count(Call::Read) - before;
    assert!(reads < 1300, "{reads} reads");
    assert_eq!(records, [2]);
    assert!(found.damages[0].what.contains("1024 blocks"), "{found:?}");
}
