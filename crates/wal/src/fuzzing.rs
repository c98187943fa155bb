//! Doors for `fuzz/`: bytes in, nothing out. What they find is a panic, a broken invariant, or a record
//! that nobody appended.
//!
//! Each runs on a simulated disk that begins with the same small journal, so an input is a story that
//! can be told again. Not part of the crate's interface.

use std::{path::Path, sync::Arc};

use world::{Disk, Timestamp, disk::Open, sim};

use crate::{
    Journal, Local, Lsn, Mode, Options, RecordKind, SEGMENT_BYTES_MIN, Upkeep,
    batch::{self, Closing, HEADER_LEN, Place},
    block, identity, segment, slots, survey,
};

const DIR: &str = "/journal";
/// Records of the small journal; enough for three segments.
const RECORDS: u64 = 12;
/// Longest input that is looked at: more only takes longer.
const INPUT_LEN_MAX: usize = 64 << 10;

fn options(disk: &sim::Disk, mode: Mode) -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES_MIN,
        upkeep: Upkeep::Caller,
        mode,
        holder: String::new(),
        ..Options::new(
            DIR,
            Arc::new(disk.clone()),
            Arc::new(sim::Clock::new(Timestamp::from_nanos(1))),
            Arc::new(sim::Random::new(1)),
        )
    }
}

fn body(lsn: u64) -> Vec<u8> {
    vec![u8::try_from(lsn).unwrap_or(0); 1000]
}

fn journal() -> sim::Disk {
    let disk = sim::Disk::new(1);
    let (journal, _) = Local::open(options(&disk, Mode::Ordinary)).expect("an empty disk");
    for lsn in 1..=RECORDS {
        let bytes = body(lsn);
        journal
            .append(&[(RecordKind(1), &bytes[..])])
            .expect("a disk without faults");
    }
    drop(journal);
    disk
}

fn overwrite(disk: &sim::Disk, path: &Path, offset: u64, bytes: &[u8]) {
    let file = disk.open(path, Open::CreateOrOpen).expect("a small disk");
    file.write_all_at(bytes, offset).expect("a small disk");
    file.sync_all().expect("a small disk");
}

/// Surveys, opens in both modes, reads all; an opening that repaired leaves nothing to repair.
/// `is_intact`: whatever is read was appended.
fn open(disk: &sim::Disk, is_intact: bool) {
    for mode in [Mode::Ordinary, Mode::Strict] {
        let disk = disk.fork();
        drop(survey(&options(&disk, mode), &mut |_| {
            std::ops::ControlFlow::Continue(())
        }));
        let Ok((journal, _)) = Local::open(options(&disk, mode)) else {
            continue;
        };
        if let Ok(records) = journal.read(journal.first_retained()) {
            for record in records.map_while(Result::ok) {
                assert!(
                    !is_intact || record.bytes == body(record.lsn.get()),
                    "record {} is not what was appended",
                    record.lsn
                );
            }
        }
        drop(journal);
        if let Ok((_, report)) = Local::open(options(&disk, mode)) {
            assert!(report.cut.is_none(), "the second open repairs: {report:?}");
        }
    }
}

/// One of the doors, chosen by the first byte.
pub fn any(input: &[u8]) {
    let Some((&door, input)) = input.split_first() else {
        return;
    };
    match door % 4 {
        0 => directory(input),
        1 => batches(input),
        2 => batch(input),
        _ => block(input),
    }
}

/// Edits of any file: `(file, offset high, offset low, value)` four bytes each.
pub fn directory(edits: &[u8]) {
    let disk = journal();
    let names = disk.list(DIR.as_ref()).expect("it was made");
    for edit in edits.chunks_exact(4).take(64) {
        let entry = &names[usize::from(edit[0]) % names.len()];
        let path = Path::new(DIR).join(&entry.name);
        let offset = u64::from(u16::from_be_bytes([edit[1], edit[2]]));
        if edit[0] & 0x80 == 0 {
            overwrite(&disk, &path, offset % entry.len.max(1), &[edit[3]]);
        } else if let Ok(file) = disk.open(&path, Open::Write) {
            drop(file.set_len(offset));
        }
    }
    open(&disk, true);
}

/// What follows the header of a first segment.
pub fn batches(bytes: &[u8]) {
    let disk = journal();
    let bytes = &bytes[..bytes.len().min(INPUT_LEN_MAX)];
    let path = segment::path(DIR.as_ref(), Lsn::FIRST);
    overwrite(&disk, &path, segment::HEADER_LEN as u64, bytes);
    open(&disk, true);
}

/// The records of a batch that verifies: counts, kinds and lengths are the input's.
pub fn batch(bytes: &[u8]) {
    let Some((&count, records)) = bytes.split_first() else {
        return;
    };
    let disk = journal();
    let Ok(Some(owner)) = identity::read(&disk, DIR.as_ref()) else {
        return;
    };
    let mut forged = vec![0; HEADER_LEN];
    forged.extend_from_slice(&records[..records.len().min(INPUT_LEN_MAX)]);
    let closing = Closing {
        count: u32::from(count),
        first: Lsn::FIRST,
        epoch: crate::Epoch(0),
        safe_point: Lsn::ZERO,
        settled: Lsn::ZERO,
        mode: Mode::Ordinary,
    };
    let place = Place::new(owner, Lsn::FIRST);
    let offset = segment::HEADER_LEN as u64;
    batch::close(&mut forged, &closing, place, offset);
    overwrite(
        &disk,
        &segment::path(DIR.as_ref(), Lsn::FIRST),
        offset,
        &forged,
    );
    open(&disk, false);
}

/// A block under the magic and checksum of its place: slots, identity or a segment's header.
pub fn block(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else {
        return;
    };
    let (path, offset, magic, len) = match which % 4 {
        0 => (
            Path::new(DIR).join(slots::NAME),
            0,
            slots::MAGIC,
            slots::SLOT_LEN,
        ),
        1 => (
            Path::new(DIR).join(slots::NAME),
            slots::SLOT_LEN as u64,
            slots::MAGIC,
            slots::SLOT_LEN,
        ),
        2 => (
            Path::new(DIR).join(identity::NAME),
            0,
            identity::MAGIC,
            identity::LEN,
        ),
        _ => (
            segment::path(DIR.as_ref(), Lsn::FIRST),
            0,
            segment::MAGIC,
            segment::HEADER_LEN,
        ),
    };
    let disk = journal();
    let mut file = disk.read(&path, u64::MAX).unwrap_or_default();
    let at = usize::try_from(offset).unwrap_or(0);
    let Some(place) = file.get_mut(at..at + len) else {
        return;
    };
    // Behind the prologue: fields that a checksum vouches for and that no writer would write.
    for edit in bytes.chunks_exact(2) {
        place[usize::from(edit[0]) % 96 % len] = edit[1];
    }
    if which & 0x80 == 0 {
        block::seal(place, magic);
    }
    let place = place.to_vec();
    overwrite(&disk, &path, offset, &place);
    open(&disk, false);
}
