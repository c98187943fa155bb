//! Damage made on purpose, and the one cause that opening names for it.

use std::path::Path;

use world::{Disk, Timestamp, disk::Open, sim};

use super::{DIR, KIND, SEGMENT_BYTES, append, bodies, fresh, open, path, segment};
use crate::{
    Cause, Epoch, Error, Generation, Identity, Journal, JournalId, Kind, Lsn, Mode,
    batch::{self, Closing, Place},
    block, identity,
    segment::Header,
    slots,
};

/// Three segments, the first two sealed, all settled; nothing is open any more.
fn three_segments() -> (sim::Disk, Vec<Vec<u8>>) {
    let (disk, journal) = fresh();
    let records: Vec<Vec<u8>> = (1..=8_u8).map(|number| vec![number; 2000]).collect();
    for record in &records {
        append(&journal, record).unwrap();
    }
    journal.close().unwrap();
    drop(journal);
    for base in [1, 4, 7] {
        assert!(disk.stat(&segment(base)).unwrap().is_some(), "{base}");
    }
    (disk, records)
}

/// One segment, `records` of 100 bytes. The slots hold only what `settled` says.
fn one_segment(records: u8, settled: u8) -> sim::Disk {
    let (disk, journal) = fresh();
    for number in 1..=records {
        append(&journal, &[number; 100]).unwrap();
        if number == settled {
            journal.settle().unwrap();
        }
    }
    let disk_after = disk.power_loss_total();
    drop(journal);
    disk_after
}

/// Where the batches of 100-byte records begin.
fn batch_at(index: u64) -> u64 {
    let len = batch::HEADER_LEN + batch::RECORD_HEADER_LEN + 100;
    crate::segment::HEADER_LEN as u64 + index * len.next_multiple_of(batch::ALIGNMENT) as u64
}

fn write(disk: &sim::Disk, path: &Path, offset: u64, bytes: &[u8]) {
    let file = disk.open(path, Open::Write).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

fn zero(disk: &sim::Disk, path: &Path, from: u64, to: u64) {
    write(
        disk,
        path,
        from,
        &vec![0; usize::try_from(to - from).unwrap()],
    );
}

fn truncate(disk: &sim::Disk, path: &Path, len: u64) {
    let file = disk.open(path, Open::Write).unwrap();
    file.set_len(len).unwrap();
    file.sync_all().unwrap();
}

fn read(disk: &sim::Disk, path: &Path) -> Vec<u8> {
    disk.read(path, u64::MAX).unwrap()
}

fn identity_of(disk: &sim::Disk) -> Identity {
    identity::read(disk, Path::new(DIR)).unwrap().unwrap()
}

/// A batch as only a writer with other ideas would put it there.
fn forged(disk: &sim::Disk, base: u64, offset: u64, first: u64, epoch: u64) -> Vec<u8> {
    forged_after(disk, base, offset, (first - 1, first), epoch)
}

/// The same, with what it claims to know as durable.
fn forged_after(
    disk: &sim::Disk,
    base: u64,
    offset: u64,
    (safe_point, first): (u64, u64),
    epoch: u64,
) -> Vec<u8> {
    let mut bytes = vec![0; batch::HEADER_LEN];
    batch::put_record(&mut bytes, KIND, &[0xEE; 100]);
    let closing = Closing {
        count: 1,
        first: Lsn::new(first),
        epoch: Epoch(epoch),
        safe_point: Lsn::new(safe_point),
        settled: Lsn::ZERO,
        mode: Mode::Ordinary,
    };
    let place = Place::new(identity_of(disk), Lsn::new(base));
    batch::close(&mut bytes, &closing, place, offset);
    bytes
}

/// The refusal changes nothing: it is the same again.
fn refused(disk: &sim::Disk, cause: Cause) -> Error {
    let before = disk.effects();
    let error = open(disk).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert_eq!(error.cause(), Some(cause), "{error}");
    let again = open(disk).unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    // Two locks taken and two syncs that the directory's name is durable, nothing else.
    assert_eq!(disk.effects() - before, 4, "a refusal wrote something");
    error
}

/// Proves: JRN-11
#[test]
fn a_first_batch_that_does_not_begin_with_its_segment_is_first_seq_not_base() {
    let disk = one_segment(3, 3);
    let bytes = forged(&disk, 1, batch_at(0), 2, 0);
    write(&disk, &segment(1), batch_at(0), &bytes);
    let error = refused(&disk, Cause::FirstSeqNotBase);
    assert_eq!(error.offset(), Some(batch_at(0)));
}

/// Proves: JRN-11
#[test]
fn a_batch_that_skips_a_position_is_seq_gap() {
    let disk = one_segment(4, 4);
    let bytes = forged(&disk, 1, batch_at(1), 3, 0);
    write(&disk, &segment(1), batch_at(1), &bytes);
    let error = refused(&disk, Cause::SeqGap);
    assert_eq!(
        (error.lsn(), error.offset()),
        (Some(Lsn::new(2)), Some(batch_at(1)))
    );
}

/// Proves: JRN-11
#[test]
fn a_sealed_segment_that_ends_early_is_seq_gap() {
    let (disk, _) = three_segments();
    let end = crate::segment::HEADER_LEN as u64 + 2 * 2064;
    zero(&disk, &segment(4), end, SEGMENT_BYTES);
    let error = refused(&disk, Cause::SeqGap);
    assert_eq!(
        (error.lsn(), error.offset()),
        (Some(Lsn::new(6)), Some(end))
    );
}

/// Proves: JRN-10, JRN-11
#[test]
fn a_last_segment_that_ends_before_the_safe_point_is_safeseq_gt_maxseq() {
    for truncated in [false, true] {
        let disk = one_segment(5, 5);
        if truncated {
            truncate(&disk, &segment(1), batch_at(3));
        } else {
            zero(&disk, &segment(1), batch_at(3), SEGMENT_BYTES);
        }
        let error = refused(&disk, Cause::SafeseqGtMaxseq);
        assert_eq!(
            (error.lsn(), error.offset()),
            (Some(Lsn::new(4)), Some(batch_at(3)))
        );
    }
}

/// Proves: JRN-11, JRN-12
#[test]
fn an_empty_journal_with_a_safe_point_is_safeseq_not_found() {
    let disk = one_segment(3, 3);
    zero(&disk, &segment(1), batch_at(0), SEGMENT_BYTES);
    refused(&disk, Cause::SafeseqNotFound);

    let disk = one_segment(3, 3);
    disk.remove_file(&segment(1)).unwrap();
    refused(&disk, Cause::SafeseqNotFound);
}

/// Proves: JRN-12
#[test]
fn a_safe_point_of_zero_is_valid_and_not_a_missing_one() {
    let (disk, journal) = fresh();
    drop(journal);
    let (journal, report) = open(&disk).unwrap();
    assert!(!report.is_new);
    assert_eq!(report.safe_point, Lsn::ZERO);
    drop(journal);
    disk.remove_file(&path(slots::NAME)).unwrap();
    refused(&disk, Cause::SafePointMissing);
}

/// Proves: JRN-10, JRN-11
#[test]
fn a_bad_batch_below_the_safe_point_is_frame_corrupt_wherever_the_flip_is() {
    for at in [0, 4, 8, 12, 16, 24, 30, 40, 50, 56, 61, 100, 160] {
        for index in 0..4 {
            let disk = one_segment(5, 4);
            let offset = usize::try_from(batch_at(index)).unwrap() + at;
            disk.rot(&segment(1), offset, 0x10).unwrap();
            let error = refused(&disk, Cause::FrameCorrupt);
            assert_eq!(error.offset(), Some(batch_at(index)));
            assert_eq!(error.lsn(), Some(Lsn::new(index + 1)));
        }
    }
}

/// The slots hold nothing: what condemns the bad batch is the header of the one after it, even when
/// that one is torn itself.
///
/// Proves: JRN-10
#[test]
fn a_later_header_proves_that_an_earlier_batch_was_durable() {
    let disk = one_segment(5, 0);
    disk.rot(&segment(1), usize::try_from(batch_at(3)).unwrap() + 70, 1)
        .unwrap();
    let error = refused(&disk, Cause::FrameCorrupt);
    assert_eq!(error.lsn(), Some(Lsn::new(4)));
    disk.rot(&segment(1), usize::try_from(batch_at(4)).unwrap() + 70, 1)
        .unwrap();
    refused(&disk, Cause::FrameCorrupt);
}

/// Proves: JRN-10
#[test]
fn the_watermark_is_the_highest_that_slots_or_batches_vouch_for() {
    for (settled, watermark) in [(0, 4), (3, 4), (5, 5)] {
        let (_, report) = open(&one_segment(5, settled)).unwrap();
        assert_eq!(
            report.watermark,
            Lsn::new(watermark),
            "settled at {settled}"
        );
        assert_eq!(report.safe_point, Lsn::new(5));
    }
}

/// Proves: JRN-10
#[test]
fn a_zeroed_sector_below_the_watermark_is_frame_corrupt() {
    let disk = one_segment(20, 0);
    let from = crate::segment::HEADER_LEN as u64 + 512;
    zero(&disk, &segment(1), from, from + 512);
    refused(&disk, Cause::FrameCorrupt);
}

/// Proves: JRN-10, JRN-11
#[test]
fn a_segment_that_is_gone_is_segment_missing_first_middle_and_last() {
    for base in [1, 4, 7] {
        let (disk, _) = three_segments();
        disk.remove_file(&segment(base)).unwrap();
        let error = refused(&disk, Cause::SegmentMissing);
        assert_eq!(error.lsn(), Some(Lsn::new(base)));
    }
}

/// Proves: JRN-11
#[test]
fn a_header_that_does_not_verify_or_has_another_name_is_segment_header_corrupt() {
    for (base, offset) in [
        (1, 0),
        (1, 8),
        (1, 12),
        (4, 16),
        (4, 40),
        (7, 48),
        (7, 4095),
    ] {
        let (disk, _) = three_segments();
        disk.rot(&segment(base), offset, 1).unwrap();
        let error = refused(&disk, Cause::SegmentHeaderCorrupt);
        assert_eq!(error.lsn(), Some(Lsn::new(base)));
    }
    let (disk, _) = three_segments();
    truncate(&disk, &segment(7), 100);
    refused(&disk, Cause::SegmentHeaderCorrupt);
    let (disk, _) = three_segments();
    disk.rename(&segment(4), &segment(5)).unwrap();
    refused(&disk, Cause::SegmentHeaderCorrupt);
}

/// Proves: JRN-11
#[test]
fn two_bad_slots_or_a_wrong_length_are_safe_point_corrupt() {
    let disk = one_segment(3, 3);
    disk.rot(&path(slots::NAME), 100, 1).unwrap();
    disk.rot(&path(slots::NAME), slots::SLOT_LEN, 1).unwrap();
    refused(&disk, Cause::SafePointCorrupt);
    for len in [0, 8, slots::SLOT_LEN, slots::FILE_LEN + 1] {
        let disk = one_segment(3, 3);
        truncate(&disk, &path(slots::NAME), len as u64);
        refused(&disk, Cause::SafePointCorrupt);
    }
}

/// One slot is what a torn write of it leaves; both are written again.
#[test]
fn one_bad_slot_is_mended_and_nothing_is_lost() {
    for slot in 0..slots::SLOTS {
        let disk = one_segment(3, 3);
        disk.rot(&path(slots::NAME), slot * slots::SLOT_LEN + 50, 1)
            .unwrap();
        let (journal, report) = open(&disk).unwrap();
        assert!(report.slot_mended);
        assert_eq!(report.watermark, Lsn::new(3));
        assert_eq!(journal.safe_point(), Lsn::new(3));
        drop(journal);
        assert!(!open(&disk).unwrap().1.slot_mended);
    }
}

/// A safe-point file from an old copy of the directory, put beside newer segments.
///
/// Proves: JRN-11
#[test]
fn an_older_safe_point_file_is_safe_point_regressed() {
    let (disk, journal) = fresh();
    append(&journal, b"one").unwrap();
    let old = read(&disk, &path(slots::NAME));
    journal.settle().unwrap();
    append(&journal, b"two").unwrap();
    journal.close().unwrap();
    write(&disk, &path(slots::NAME), 0, &old);
    let error = refused(&disk, Cause::SafePointRegressed);
    assert_eq!(error.lsn(), Some(Lsn::new(1)));
}

/// Proves: JRN-11, JRN-15
#[test]
fn a_safe_point_file_that_is_gone_is_safe_point_missing() {
    let disk = one_segment(3, 3);
    disk.remove_file(&path(slots::NAME)).unwrap();
    let error = refused(&disk, Cause::SafePointMissing).to_string();
    for way_out in [
        "journal export --salvage --dir /journal",
        "journal reset --dir /journal",
    ] {
        assert!(error.contains(way_out), "{error}");
    }
    // The journal's own bytes are evidence without its identity file, too.
    disk.remove_file(&path(identity::NAME)).unwrap();
    refused(&disk, Cause::SafePointMissing);
}

/// Proves: JRN-11
#[test]
fn a_lower_epoch_behind_a_higher_one_is_epoch_regressed() {
    let disk = sim::Disk::new(1);
    let options = crate::Options {
        epoch: Some(Epoch(5)),
        ..super::options(&disk)
    };
    let (journal, _) = crate::Local::open(options).unwrap();
    append(&journal, &[1; 100]).unwrap();
    append(&journal, &[2; 100]).unwrap();
    journal.close().unwrap();
    drop(journal);
    let bytes = forged(&disk, 1, batch_at(2), 3, 4);
    write(&disk, &segment(1), batch_at(2), &bytes);
    let error = refused(&disk, Cause::EpochRegressed);
    assert_eq!(error.offset(), Some(batch_at(2)));
}

/// Proves: JRN-11
#[test]
fn a_file_of_another_journal_is_identity_mismatch() {
    let (disk, _) = three_segments();
    let mine = identity_of(&disk);
    let other = Identity {
        journal: JournalId([9; 16]),
        ..mine
    };
    let later = Identity {
        generation: Generation(mine.generation.0 + 1),
        ..mine
    };
    for foreign in [other, later] {
        let header = Header {
            identity: foreign,
            base: Lsn::new(4),
            previous: Lsn::FIRST,
            epoch: Epoch(0),
            settled: Lsn::ZERO,
            created: Timestamp::from_nanos(0),
            stale: Lsn::ZERO,
        };
        let (disk, _) = three_segments();
        write(&disk, &segment(4), 0, &header.encode());
        refused(&disk, Cause::IdentityMismatch);

        let (disk, _) = three_segments();
        write(
            &disk,
            &path(slots::NAME),
            0,
            &slots::Slots::initial(foreign),
        );
        refused(&disk, Cause::IdentityMismatch);

        let (disk, _) = three_segments();
        write(
            &disk,
            &path(identity::NAME),
            0,
            &identity::encode(foreign, None),
        );
        refused(&disk, Cause::IdentityMismatch);
    }
    let (disk, _) = three_segments();
    disk.rot(&path(identity::NAME), 20, 1).unwrap();
    refused(&disk, Cause::IdentityMismatch);
    let (disk, _) = three_segments();
    disk.remove_file(&path(identity::NAME)).unwrap();
    refused(&disk, Cause::IdentityMismatch);
}

/// The block as a program with the next format would have written it.
pub(super) fn of_version_2(disk: &sim::Disk, path: &Path, offset: usize, len: usize) {
    let mut block = read(disk, path)[offset..offset + len].to_vec();
    block::VERSION.put_u32(&mut block, 2);
    let checksum = crc32c::crc32c(&block[..block::CHECKSUM.at]);
    let rest = &block[block::CHECKSUM.at + block::CHECKSUM.len..];
    let checksum = crc32c::crc32c_append(checksum, rest);
    block::CHECKSUM.put_u32(&mut block, checksum);
    write(disk, path, offset as u64, &block);
}

/// Proves: JRN-11
#[test]
fn another_format_version_that_verifies_is_version_unknown() {
    let blocks = [
        (path(identity::NAME), 0, identity::LEN),
        (path(slots::NAME), 0, slots::SLOT_LEN),
        (path(slots::NAME), slots::SLOT_LEN, slots::SLOT_LEN),
        (segment(1), 0, crate::segment::HEADER_LEN),
        (segment(7), 0, crate::segment::HEADER_LEN),
    ];
    for (path, offset, len) in blocks {
        let (disk, _) = three_segments();
        of_version_2(&disk, &path, offset, len);
        let error = refused(&disk, Cause::VersionUnknown).to_string();
        assert!(error.contains("format version 2"), "{error}");
    }
}

/// Proves: JRN-13, JRN-14
#[test]
fn a_torn_tail_is_kept_aside_reported_and_cut_once() {
    let story = |damage: &dyn Fn(&sim::Disk), why: &str| {
        let disk = one_segment(5, 0);
        damage(&disk);
        let before = read(&disk, &segment(1));
        let (journal, report) = open(&disk).unwrap_or_else(|error| panic!("{why}: {error}"));
        assert_eq!(bodies(&journal).len(), 4, "{why}");
        assert_eq!(journal.counts().repairs, 1);
        let cut = report.cut.unwrap();
        assert_eq!(
            (cut.offset, &cut.segment),
            (batch_at(4), &segment(1)),
            "{why}"
        );
        let from = usize::try_from(cut.offset).unwrap();
        let len = usize::try_from(cut.len).unwrap();
        assert_eq!(
            read(&disk, &cut.quarantine),
            before[from..from + len],
            "{why}"
        );
        assert!(before[from + len..].iter().all(|&byte| byte == 0), "{why}");
        let told = read(&disk, &cut.quarantine.with_extension("txt"));
        let told = String::from_utf8(told).unwrap();
        for line in [
            format!("offset {}\n", cut.offset),
            format!("length {}\n", cut.len),
            format!("why {}\n", cut.why),
        ] {
            assert!(told.contains(&line), "{why}: {told}");
        }
        assert_eq!(append(&journal, b"next").unwrap(), Lsn::new(5));
        drop(journal);
        assert_eq!(open(&disk).unwrap().1.cut, None, "{why}");
    };
    let last = usize::try_from(batch_at(4)).unwrap();
    story(&|disk| disk.rot(&segment(1), last + 3, 1).unwrap(), "magic");
    story(
        &|disk| disk.rot(&segment(1), last + 5, 1).unwrap(),
        "header",
    );
    story(
        &|disk| disk.rot(&segment(1), last + 160, 1).unwrap(),
        "payload",
    );
    story(
        &|disk| truncate(disk, &segment(1), batch_at(4) + 99),
        "truncated",
    );
    story(
        &|disk| {
            let bytes = forged_after(disk, 1, batch_at(4), (4, 9), 0);
            write(disk, &segment(1), batch_at(4), &bytes);
        },
        "gapped",
    );
}

/// Proves: JRN-13
#[test]
fn a_zeroed_tail_above_the_watermark_is_not_even_a_repair() {
    let disk = one_segment(5, 0);
    zero(&disk, &segment(1), batch_at(4), SEGMENT_BYTES);
    let (journal, report) = open(&disk).unwrap();
    assert_eq!((report.cut, bodies(&journal).len()), (None, 4));
}

/// What cuts have in common is bounded.
#[test]
fn the_oldest_cuts_go_when_there_are_too_many() {
    let disk = one_segment(1, 1);
    for round in 0..4 * crate::quarantine::CUTS_MAX as u64 {
        write(&disk, &segment(1), batch_at(1) + round * 8, &[1, 2, 3]);
        let cut = open(&disk).unwrap().1.cut.unwrap();
        // Whatever its name sorts before: it is the copy of what was cut a moment ago.
        assert!(disk.stat(&cut.quarantine).unwrap().is_some(), "{round}");
    }
    let names = disk.list(&path(crate::quarantine::DIR)).unwrap();
    assert_eq!(names.len(), 2 * crate::quarantine::CUTS_MAX);
}

/// A batch of a recycled segment, of another place, or inside a record, is never one of ours.
///
/// Proves: JRN-3
#[test]
fn a_batch_verifies_in_its_own_place_only() {
    let disk = one_segment(2, 2);
    let mine = identity_of(&disk);
    let offset = batch_at(0);
    let bytes = forged(&disk, 1, offset, 1, 0);
    let decode = |identity: Identity, base: u64, offset: u64| {
        batch::Header::decode(&bytes, Place::new(identity, Lsn::new(base)), offset)
    };
    assert!(decode(mine, 1, offset).is_some());
    let other = Identity {
        journal: JournalId([1; 16]),
        ..mine
    };
    let later = Identity {
        generation: Generation(2),
        ..mine
    };
    assert_eq!(decode(mine, 2, offset), None, "another segment");
    assert_eq!(decode(mine, 1, offset + 8), None, "another offset");
    assert_eq!(decode(other, 1, offset), None, "another journal");
    assert_eq!(decode(later, 1, offset), None, "another generation");
    // Stale bytes behind the tail are cut, not read, even where they would be next in line.
    write(
        &disk,
        &segment(1),
        batch_at(2),
        &forged(&disk, 7, batch_at(2), 3, 0),
    );
    let (journal, report) = open(&disk).unwrap();
    assert_eq!(journal.safe_point(), Lsn::new(2));
    assert!(report.cut.is_some());
}
