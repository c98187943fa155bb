//! Every byte of a small journal flipped and cut off, every sector zeroed, one at a time, in both modes,
//! with zeros and with stale bytes behind the batches, and compared with a model.
//!
//! The model knows the batches of the whole journal and which bytes were damaged. It shares the
//! numbers of the byte map with the code, nothing of recovery.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use world::{
    Disk as _,
    disk::Open,
    sim::{self, Call, Fault},
};

use super::{DIR, MODES, append, bodies, open, open_in, options, path, segment};
use crate::{
    Cause, Journal, Local, Lsn, Mode, Options,
    batch::{self, Header, Place},
    block, identity, segment as segments, slots,
};

/// A header and as much again: few bytes, several batches, every batch of the same length, so that
/// those of a recycled file begin exactly where stale ones did.
const SEGMENT_BYTES: u64 = 8192;
const RECORD_LEN: usize = 700;
/// One checksum covers all of a block that the format keeps zero behind its fields: one byte of so
/// many stands for the others.
const BLANK_STRIDE: usize = 64;
const FIELDS_LEN: usize = 96;
/// Subjects that share the bytes of a payload among them; there are twice as many.
const SUBJECT_STRIDE: usize = 5;
/// From here on a batch, and what lies behind the last one, has no more fields.
const PLAIN_FROM: usize = batch::HEADER_LEN + batch::RECORD_HEADER_LEN + 3;

/// How the journal was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Settled,
    PowerLoss,
    /// Strict mode: the last batch is whole and durable, and the slot that would vouch for it was
    /// never written.
    Unvouched,
}

#[derive(Clone, Debug)]
struct Batch {
    at: usize,
    header: Header,
}

impl Batch {
    fn end(&self) -> usize {
        self.at + usize::try_from(self.header.batch_len()).unwrap()
    }
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    is_recycled: bool,
    batches: Vec<Batch>,
}

#[derive(Debug)]
struct Subject {
    index: usize,
    name: String,
    disk: sim::Disk,
    /// By position, from 1.
    records: Vec<Vec<u8>>,
    segments: Vec<Segment>,
    slots: Vec<u8>,
}

fn record(number: usize) -> Vec<u8> {
    vec![u8::try_from(number).unwrap(); RECORD_LEN]
}

/// Two segments, the second one not full.
fn subject(mode: Mode, recycles: bool, end: End) -> Subject {
    let disk = sim::Disk::new(1);
    let (journal, _) = Local::open(Options {
        mode,
        segment_bytes: SEGMENT_BYTES,
        ..options(&disk)
    })
    .unwrap();
    let last = if recycles { 28 } else { 8 };
    for number in 1..=last {
        append(&journal, &record(number)).unwrap();
        if recycles && number == 20 {
            journal.release_below(Lsn::new(20)).unwrap();
        }
        if recycles && number == 26 {
            journal.release_below(Lsn::new(21)).unwrap();
        }
    }
    assert_eq!(journal.counts().recycled, if recycles { 2 } else { 0 });
    match end {
        End::Settled => journal.close().unwrap(),
        End::PowerLoss => {}
        End::Unvouched => {
            disk.inject(Call::Write, 2, Fault::Fail(std::io::ErrorKind::Other));
            append(&journal, &record(last + 1)).unwrap_err();
        }
    }
    let disk = disk.power_loss_total();
    drop(journal);
    let name = format!("{mode:?}, recycled {recycles}, {end:?}");
    look_at(name, disk, (1..=last + 1).map(record).collect())
}

fn look_at(name: String, disk: sim::Disk, records: Vec<Vec<u8>>) -> Subject {
    let read = |path: PathBuf| disk.read(&path, u64::MAX).unwrap();
    let identity = identity::read(&disk, DIR.as_ref()).unwrap().unwrap();
    let bases = crate::recover::bases(&disk, DIR.as_ref()).unwrap();
    let segments = bases.into_iter().map(|base| {
        let path = segment(base.get());
        let bytes = read(path.clone());
        let place = Place::new(identity, base);
        let mut batches = Vec::new();
        let mut at = segments::HEADER_LEN;
        while let Some(header) = Header::decode(&bytes[at..], place, at as u64) {
            batches.push(Batch { at, header });
            at += usize::try_from(header.batch_len()).unwrap();
        }
        Segment {
            path,
            is_recycled: segments::STALE.u64(&bytes) > 0,
            bytes,
            batches,
        }
    });
    let segments: Vec<Segment> = segments.collect();
    assert_eq!(segments.len(), 2, "{name}");
    Subject {
        index: 0,
        name,
        records,
        segments,
        slots: read(path(slots::NAME)),
        disk,
    }
}

fn subjects() -> Vec<Subject> {
    let mut found = Vec::new();
    for recycles in [false, true] {
        for mode in MODES {
            for end in [End::Settled, End::PowerLoss] {
                found.push(subject(mode, recycles, end));
            }
        }
        found.push(subject(Mode::Strict, recycles, End::Unvouched));
    }
    for (index, subject) in found.iter_mut().enumerate() {
        subject.index = index;
    }
    assert_eq!(found.len(), 2 * SUBJECT_STRIDE);
    found
}

/// The positions that are read after opening, or why it is refused.
type Outcome = Result<(u64, u64), Cause>;

impl Subject {
    /// What opening comes to when `path` holds `bytes` instead of its own.
    fn expected(&self, path: &PathBuf, bytes: &[u8]) -> Outcome {
        if *path == super::path(identity::NAME) {
            return Err(Cause::IdentityMismatch);
        }
        if *path == super::path(slots::NAME) {
            return self.with_slots(bytes);
        }
        let index = self
            .segments
            .iter()
            .position(|it| it.path == *path)
            .unwrap();
        self.with_segment(index, bytes)
    }

    fn with_slots(&self, bytes: &[u8]) -> Outcome {
        let points = safe_points(bytes);
        match points[..] {
            [] => Err(Cause::SafePointCorrupt),
            [one] => self.judge(one, true, usize::MAX, Lsn::ZERO),
            _ => self.judge(
                points.into_iter().max().unwrap(),
                false,
                usize::MAX,
                Lsn::ZERO,
            ),
        }
    }

    fn with_segment(&self, index: usize, bytes: &[u8]) -> Outcome {
        let whole = &self.segments[index];
        let same = |from: usize, len: usize| {
            bytes.get(from..from + len) == Some(&whole.bytes[from..from + len])
        };
        if !same(0, segments::HEADER_LEN) {
            return Err(Cause::SegmentHeaderCorrupt);
        }
        let is_whole =
            |batch: &Batch| same(batch.at, usize::try_from(batch.header.batch_len()).unwrap());
        let has_header = |batch: &Batch| same(batch.at, batch::HEADER_LEN);
        let slot = safe_points(&self.slots).into_iter().max().unwrap();
        let Some(broken) = whole.batches.iter().position(|batch| !is_whole(batch)) else {
            return self.judge(slot, false, usize::MAX, Lsn::ZERO);
        };
        let later = &whole.batches[broken + 1..];
        let is_last = index + 1 == self.segments.len();
        let mut watermark = slot;
        for batch in later.iter().filter(|batch| has_header(batch)) {
            watermark = watermark.max(batch.header.safe_point);
        }
        let before = self.segments[..index]
            .iter()
            .map(|it| it.batches.len())
            .sum::<usize>()
            + broken;
        let batch = &whole.batches[broken];
        let proven = self
            .all()
            .take(before)
            .map(|batch| batch.header.safe_point)
            .max();
        watermark = watermark.max(proven.unwrap_or_default());
        if is_last && batch.header.first > watermark {
            return self.judge(slot, false, before, watermark);
        }
        let is_used = |bytes: &[u8]| bytes.iter().any(|&byte| byte != 0);
        let behind = bytes.get(batch.at..).unwrap_or_default();
        let has_bytes = if whole.is_recycled {
            is_used(&behind[..behind.len().min(batch::HEADER_LEN)]) || later.iter().any(has_header)
        } else {
            is_used(behind)
        };
        Err(match () {
            () if has_bytes => Cause::FrameCorrupt,
            () if !is_last => Cause::SeqGap,
            () if before == 0 => Cause::SafeseqNotFound,
            () => Cause::SafeseqGtMaxseq,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Batch> {
        self.segments.iter().flat_map(|it| &it.batches)
    }

    /// What is read of the first `batches`, which are whole.
    fn judge(&self, slot: Lsn, is_torn: bool, batches: usize, proven: Lsn) -> Outcome {
        let kept: Vec<&Batch> = self.all().take(batches).collect();
        let watermark = kept
            .iter()
            .map(|batch| batch.header.safe_point)
            .fold(slot.max(proven), Lsn::max);
        let first = kept[0].header.first.get();
        let last = kept.last().unwrap().header;
        if last.first <= watermark || last.mode == Mode::Ordinary {
            return Ok((first, last.last().get()));
        }
        if is_torn {
            return Err(Cause::SafePointCorrupt);
        }
        Ok((first, last.first.get() - 1))
    }

    /// Opens with `bytes` in place of those of `path`, in the other mode too.
    fn check(&self, path: &PathBuf, bytes: &[u8], story: &str, tally: &mut Tally) {
        let expected = self.expected(path, bytes);
        let disk = self.disk.fork();
        let file = disk.open(path, Open::Write).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let story = format!("{}: {story}", self.name);
        let found = match open(&disk) {
            Ok((journal, _)) => {
                let range = (journal.first_retained().get(), journal.safe_point().get());
                let (first, last) = range;
                let records = usize::try_from(first).unwrap() - 1..usize::try_from(last).unwrap();
                assert!(
                    bodies(&journal) == self.records[records],
                    "{story}: other records"
                );
                drop(journal);
                let (journal, report) = open_in(&disk, Mode::Strict).unwrap();
                assert_eq!(report.cut, None, "{story}, again");
                assert_eq!(journal.safe_point().get(), last, "{story}, again");
                Ok(range)
            }
            Err(error) => Err(error.cause().unwrap_or_else(|| panic!("{story}: {error}"))),
        };
        assert_eq!(found, expected, "{story}");
        *tally.entry(found.err().map(Cause::code)).or_default() += 1;
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = self
            .segments
            .iter()
            .map(|segment| (segment.path.clone(), segment.bytes.clone()))
            .collect();
        files.push((path(slots::NAME), self.slots.clone()));
        let identity = path(identity::NAME);
        let bytes = self.disk.read(&identity, u64::MAX).unwrap();
        files.push((identity, bytes));
        files
    }
}

/// How often which outcome came.
type Tally = BTreeMap<Option<&'static str>, u64>;

/// The safe points of the slots that verify.
fn safe_points(bytes: &[u8]) -> Vec<Lsn> {
    if bytes.len() != slots::FILE_LEN {
        return Vec::new();
    }
    bytes
        .chunks(slots::SLOT_LEN)
        .filter(|slot| block::verify(slot, slots::MAGIC).is_ok())
        .map(|slot| Lsn::new(slots::SAFE_POINT.u64(slot)))
        .collect()
}

impl Subject {
    /// The offsets of the file at which it is damaged: every one of fields and of what surrounds
    /// them, and of a payload or of what lies behind the batches one in [`SUBJECT_STRIDE`], another one
    /// in the next subject, so that all subjects together leave none out.
    fn offsets(&self, path: &Path, len: usize) -> Vec<usize> {
        let segment = self.segments.iter().find(|it| it.path == *path);
        let is_slots = path.ends_with(slots::NAME);
        let is_plain = |offset: usize| {
            let batches = segment.iter().flat_map(|it| &it.batches);
            batches
                .map(|batch| (batch.at, usize::try_from(batch.header.batch_len()).unwrap()))
                .chain(segment.map(|it| {
                    (
                        it.batches.last().unwrap().end(),
                        usize::try_from(SEGMENT_BYTES).unwrap(),
                    )
                }))
                .any(|(at, len)| (at + PLAIN_FROM..at + len).contains(&offset))
        };
        let is_chosen = |&offset: &usize| {
            let within = offset % slots::SLOT_LEN;
            if is_slots || offset < segments::HEADER_LEN {
                within < FIELDS_LEN || within.is_multiple_of(BLANK_STRIDE)
            } else {
                !is_plain(offset) || offset % SUBJECT_STRIDE == self.index % SUBJECT_STRIDE
            }
        };
        (0..len).filter(is_chosen).collect()
    }
}

fn sweep(damage: impl Fn(&Subject, &PathBuf, &[u8], &mut Tally)) -> Tally {
    let mut tally = Tally::new();
    for subject in subjects() {
        for (path, bytes) in subject.files() {
            damage(&subject, &path, &bytes, &mut tally);
        }
    }
    tally
}

/// Proves: JRN-3, JRN-10, JRN-11, JRN-13
#[test]
fn every_flipped_byte_is_refused_for_what_it_is_or_was_never_read() {
    let tally = sweep(|subject, path, bytes, tally| {
        for offset in subject.offsets(path, bytes.len()) {
            let mut damaged = bytes.to_vec();
            damaged[offset] ^= 0x20;
            let story = format!("byte {offset} of {} flipped", path.display());
            subject.check(path, &damaged, &story, tally);
        }
    });
    let codes: Vec<_> = tally.keys().flatten().copied().collect();
    assert_eq!(
        codes,
        [
            "FRAME_CORRUPT",
            "IDENTITY_MISMATCH",
            "SAFE_POINT_CORRUPT",
            "SEGMENT_HEADER_CORRUPT"
        ]
    );
}

/// Proves: JRN-3, JRN-10, JRN-11, JRN-13
#[test]
fn every_truncation_is_refused_for_what_it_is() {
    let tally = sweep(|subject, path, bytes, tally| {
        for len in subject.offsets(path, bytes.len()) {
            let story = format!("{} cut to {len} bytes", path.display());
            subject.check(path, &bytes[..len], &story, tally);
        }
    });
    assert!(
        tally[&None] > 0 && tally[&Some("SAFESEQ_GT_MAXSEQ")] > 0,
        "{tally:?}"
    );
    assert!(tally[&Some("SEQ_GAP")] > 0, "{tally:?}");
}

/// Proves: JRN-3, JRN-10, JRN-11, JRN-13
#[test]
fn every_zeroed_sector_is_refused_for_what_it_is() {
    const SECTOR_LEN: usize = 512;
    let tally = sweep(|subject, path, bytes, tally| {
        for from in (0..bytes.len()).step_by(SECTOR_LEN) {
            let mut damaged = bytes.to_vec();
            let to = bytes.len().min(from + SECTOR_LEN);
            damaged[from..to].fill(0);
            if damaged != bytes {
                let story = format!("{} zeroed from {from} to {to}", path.display());
                subject.check(path, &damaged, &story, tally);
            }
        }
    });
    assert!(tally[&Some("FRAME_CORRUPT")] > 0, "{tally:?}");
}
