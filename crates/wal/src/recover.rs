//! Opening: what is repaired, and what stops the start.
//!
//! Two halves. The survey reads everything and changes nothing; it ends in an error with exactly
//! one cause, or in a plan. The mending carries the plan out; each of its steps may be the last one
//! before a crash, and the survey after it comes to the same records.
//!
//! The watermark is the highest position that something durable vouches for: the newest slot, the
//! safe point in a batch or in the header of a later batch, the header of a later segment. At or
//! below it every batch must verify. Above it lies at most the one batch in flight at a crash: kept
//! when it verifies, cut when it does not.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use world::{Disk, File, disk::Open};

use crate::{
    Birth, Cause, Epoch, Error, Evidence, Identity, Kind, Lsn, batch,
    catalog::{MARKS_MAX, Segment, marks_max_after},
    epochs::{Epochs, Past},
    identity,
    progress::Meter,
    quarantine, reserve,
    scan::{Found, Rest, Scan, Stop, Why},
    segment,
    slots::{self, Slots, Watermark},
    spare,
    window::{WINDOW_LEN, Window},
};

mod examine;

pub(crate) use examine::examine;
pub use examine::{Examined, TailFound};

/// What opening found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub identity: Identity,
    /// The journal was made by this open.
    pub is_new: bool,
    pub first_retained: Lsn,
    /// What was proven to have been acknowledged, before anything above it was judged.
    pub watermark: Lsn,
    /// Last record kept: the safe point from here on.
    pub safe_point: Lsn,
    pub segments: usize,
    pub batches: u64,
    /// Bytes of batches that were read and verified.
    pub bytes: u64,
    /// What was cut off behind the last record, if anything was there.
    pub cut: Option<Cut>,
    /// A slot of the safe-point file did not verify; the other one did, and both do again.
    pub slot_mended: bool,
    /// Segments whose removal a crash had interrupted.
    pub segments_removed: usize,
}

/// A torn tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub segment: PathBuf,
    pub offset: u64,
    pub len: u64,
    pub why: &'static str,
    /// Where the bytes are now.
    pub quarantine: PathBuf,
}

/// A journal that can be appended to.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) identity: Identity,
    pub(crate) birth: Option<Birth>,
    pub(crate) slots: Slots,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) active: segment::Opened,
    /// Offset in the active segment where the next batch goes.
    pub(crate) position: u64,
    pub(crate) epoch: Epoch,
    pub(crate) epochs: Epochs,
    pub(crate) report: Recovery,
}

/// What the survey decided.
#[derive(Debug)]
struct Plan {
    identity: Identity,
    slots: Slots,
    found: Vec<Found>,
    leftovers: Vec<PathBuf>,
    scan: Scan,
    stop: Stop,
    rest: Rest,
    watermark: Lsn,
}

/// Opens the existing journal in `dir`, whose lock is held.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    (identity, birth): (Identity, Option<Birth>),
    meter: Meter,
) -> Result<Recovered, Error> {
    let mut window = None;
    let past = Past::read(&**disk, dir, identity)?.unwrap_or_default();
    let plan = survey(disk, dir, identity, &mut window, meter)?;
    let window = window.expect("the survey reads at least one segment");
    let mut recovered = mend(disk, dir, plan, window)?;
    recovered.birth = birth;
    recovered.epochs.past = past;
    Ok(recovered)
}

fn survey(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    identity: Identity,
    window: &mut Option<Window>,
    mut meter: Meter,
) -> Result<Plan, Error> {
    let slots = Slots::open(&**disk, dir.join(slots::NAME), identity)?;
    let slot = slots.watermark();
    let bases = bases(&**disk, dir)?;
    let (leftovers, bases): (Vec<Lsn>, Vec<Lsn>) =
        bases.iter().partition(|base| **base < slot.first_retained);
    let mut found = headers(&**disk, dir, &bases, identity)?;
    check_chain(dir, &slot, &found)?;

    let mut scan = Scan::new(identity, slot.first_retained);
    let last = found.len() - 1;
    meter.begin(found.iter().map(|found| found.len).sum());
    let mut meter = Some(meter);
    let mut marks = Marks::default();
    let mut outcome = None;
    for index in 0..found.len() {
        let end = found.get(index + 1).map(|next| next.header.base);
        let this = &mut found[index];
        let window = look_into(&**disk, &this.segment.path, window, &mut meter)?;
        let stop = scan.segment(window, this, end)?;
        let rest = match stop.why {
            Why::Complete => Rest::default(),
            Why::NoBatch | Why::Gap(_) | Why::Unvouched => scan.rest(window, this, stop.offset)?,
        };
        let watermark = match end {
            Some(end) => Lsn::new(end.get() - 1),
            None => slot.safe_point.max(scan.proven).max(rest.proven),
        };
        if end.is_some_and(|end| scan.expected > end) || scan.expected <= watermark {
            return Err(missing(&scan, this, stop, rest, watermark, index == last));
        }
        outcome = Some((stop, rest, watermark));
        if let Some(meter) = window.meter() {
            meter.segment_done(this.len);
        }
        marks.count(&mut found[..=index]);
    }
    if let Some(meter) = window.as_mut().and_then(Window::meter) {
        meter.end();
    }
    let (mut stop, mut rest, watermark) = outcome.expect("a chain has a segment");
    check_slot(&slots, &scan, dir)?;
    if let Some(first) = scan.unvouched(watermark) {
        check_unvouched(&slots, dir, first)?;
        let last = found.last_mut().expect("a chain has a segment");
        scan.retract(last, &mut stop, &mut rest);
    }
    Ok(Plan {
        identity,
        slots,
        leftovers: leftovers
            .iter()
            .map(|&base| segment::path(dir, base))
            .collect(),
        found,
        scan,
        stop,
        rest,
        watermark,
    })
}

/// The window on a segment. It is made for the first one, and from then on tells the meter.
fn look_into<'a>(
    disk: &dyn Disk,
    path: &Path,
    window: &'a mut Option<Window>,
    meter: &mut Option<Meter>,
) -> Result<&'a mut Window, Error> {
    let file = disk
        .open(path, Open::Read)
        .map_err(|source| Error::io("open a segment", path, source))?;
    if let Some(window) = window {
        window.turn_to(file);
    } else {
        let made = Window::new(file);
        *window = Some(match meter.take() {
            Some(meter) => made.metered(meter),
            None => made,
        });
    }
    Ok(window.as_mut().expect("made above"))
}

/// Keeps what a long journal leaves in memory within a bound while it is looked through.
#[derive(Default)]
struct Marks {
    count: usize,
    max: usize,
}

impl Marks {
    /// Told after each segment; `found` are those that were looked through.
    fn count(&mut self, found: &mut [Found]) {
        self.count += found.last().map_or(0, |last| last.segment.marks());
        if self.count > self.max.max(MARKS_MAX) {
            found.iter_mut().for_each(|found| found.segment.thin());
            self.count = found.iter().map(|found| found.segment.marks()).sum();
            self.max = marks_max_after(self.count);
        }
    }
}

/// Base LSNs of the segments in `dir`, ascending.
pub(crate) fn bases(disk: &dyn Disk, dir: &Path) -> Result<Vec<Lsn>, Error> {
    let entries = disk
        .list(dir)
        .map_err(|source| Error::io("list the journal", dir, source))?;
    // Names are sorted, and have as many digits each.
    Ok(entries
        .iter()
        .filter_map(|entry| segment::base_of(&entry.name))
        .collect())
}

fn headers(
    disk: &dyn Disk,
    dir: &Path,
    bases: &[Lsn],
    identity: Identity,
) -> Result<Vec<Found>, Error> {
    let mut found = Vec::with_capacity(bases.len());
    for &base in bases {
        let path = segment::path(dir, base);
        let file = disk
            .open(&path, Open::Read)
            .map_err(|source| Error::io("open a segment", &path, source))?;
        let header = segment::Header::read(&*file, &path, base, identity)?;
        let len = file
            .len()
            .map_err(|source| Error::io("measure a segment", &path, source))?;
        found.push(Found {
            segment: Segment::new(base, path, header.created),
            header,
            len,
        });
    }
    Ok(found)
}

/// Every segment from the first retained one on is there. A segment names the one before it, and
/// the slots name the one appended to, so a hole is seen wherever it is.
fn check_chain(dir: &Path, slot: &Watermark, found: &[Found]) -> Result<(), Error> {
    let missing = |base: Lsn| {
        Err(
            Error::recovery(Cause::SegmentMissing, "a segment is missing")
                .with_path(segment::path(dir, base))
                .with_lsn(base),
        )
    };
    let Some(first) = found.first() else {
        if slot.safe_point >= slot.first_retained {
            return Err(Error::recovery(
                Cause::SafeseqNotFound,
                format!("no segment, and the safe point is {}", slot.safe_point),
            )
            .with_path(dir)
            .with_lsn(slot.safe_point));
        }
        return missing(slot.first_retained);
    };
    if first.header.base != slot.first_retained {
        return missing(slot.first_retained);
    }
    for pair in found.windows(2) {
        let (before, after) = (&pair[0].header, &pair[1].header);
        if after.previous > before.base {
            return missing(after.previous);
        }
        if after.previous < before.base {
            let message = format!(
                "it follows the segment of {}, which {} follows already",
                after.previous, before.base
            );
            return Err(Error::recovery(Cause::SegmentHeaderCorrupt, message)
                .with_path(&pair[1].segment.path)
                .with_lsn(after.base));
        }
    }
    if found.iter().all(|found| found.header.base != slot.active) {
        return missing(slot.active);
    }
    Ok(())
}

/// The cause when a batch at or below the watermark is not there.
fn missing(
    scan: &Scan,
    found: &Found,
    stop: Stop,
    rest: Rest,
    watermark: Lsn,
    is_last: bool,
) -> Error {
    let expected = scan.expected;
    let (cause, message) = match stop.why {
        Why::Gap(first) if stop.last_batch.is_none() => (
            Cause::FirstSeqNotBase,
            format!("the first batch begins with {first}, its segment with {expected}"),
        ),
        Why::Gap(first) => (
            Cause::SeqGap,
            format!("a batch begins with {first}, expected {expected}"),
        ),
        Why::Complete | Why::Unvouched => (
            Cause::SeqGap,
            format!("batches reach beyond {watermark}, where the next segment begins"),
        ),
        Why::NoBatch if rest.end.is_some() => (
            Cause::FrameCorrupt,
            format!("a batch does not verify; records up to {watermark} were durable"),
        ),
        Why::NoBatch if !is_last => (
            Cause::SeqGap,
            format!("batches end before {expected}, the next segment begins after {watermark}"),
        ),
        Why::NoBatch if scan.batches == 0 => (
            Cause::SafeseqNotFound,
            format!("no batch, and the safe point is {watermark}"),
        ),
        Why::NoBatch => (
            Cause::SafeseqGtMaxseq,
            format!("batches end before {expected}, the safe point is {watermark}"),
        ),
    };
    Error::recovery(cause, message)
        .with_path(&found.segment.path)
        .with_offset(stop.offset)
        .with_lsn(expected)
}

/// The safe-point file is not older than what the batches saw in it.
fn check_slot(slots: &Slots, scan: &Scan, dir: &Path) -> Result<(), Error> {
    let slot = slots.watermark();
    if slot.safe_point < scan.settled {
        let message = format!(
            "the safe-point file holds {}, it held {} before",
            slot.safe_point, scan.settled
        );
        return Err(Error::recovery(Cause::SafePointRegressed, message)
            .with_path(dir.join(slots::NAME))
            .with_lsn(scan.settled));
    }
    // A batch of strict mode is written after a slot vouched for all before it; the other slot is at
    // most one group behind.
    if slot.safe_point < scan.vouched && !slots.is_torn() {
        let message = format!(
            "the safe-point file holds {}, it held {} before",
            slot.safe_point, scan.vouched
        );
        return Err(Error::recovery(Cause::SafePointRegressed, message)
            .with_path(dir.join(slots::NAME))
            .with_lsn(scan.vouched));
    }
    if slot.epoch > scan.epoch {
        let message = format!(
            "the safe-point file knows epoch {}, the batches end with {}",
            slot.epoch.0, scan.epoch.0
        );
        return Err(Error::recovery(Cause::EpochRegressed, message)
            .with_path(dir.join(slots::NAME))
            .with_lsn(slot.safe_point));
    }
    Ok(())
}

/// The newest slot would be the one that vouches for the last batch or does not. When a slot does
/// not verify, it may have been that one: cutting could lose what was acknowledged, keeping could
/// show what never was.
fn check_unvouched(slots: &Slots, dir: &Path, first: Lsn) -> Result<(), Error> {
    if !slots.is_torn() {
        return Ok(());
    }
    let message = format!(
        "safe-point file: a slot does not verify, and only it could tell whether the last batch, \
         from {first}, was acknowledged"
    );
    Err(Error::recovery(Cause::SafePointCorrupt, message)
        .with_path(dir.join(slots::NAME))
        .with_lsn(first))
}

fn mend(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    plan: Plan,
    mut window: Window,
) -> Result<Recovered, Error> {
    let segments_removed = plan.leftovers.len();
    settle_names(&**disk, dir, &plan.leftovers)?;
    let last = plan.found.last().expect("a chain has a segment");
    let path = &last.segment.path;
    let file = disk
        .open(path, Open::Write)
        .map_err(|source| Error::io("open a segment", path, source))?;
    window.turn_to(Arc::clone(&file));

    let safe_point = Lsn::new(plan.scan.expected.get() - 1);
    let cut = quarantine_tail(disk, dir, &plan, &mut window)?;
    settle_tail(&*file, &plan, safe_point, &mut window)
        .map_err(|source| Error::io("mend the tail of a segment", path, source))?;

    let mut slots = plan.slots;
    let slot_mended = slots.is_torn();
    let mut watermark = slots.watermark();
    watermark.safe_point = safe_point;
    watermark.active = last.header.base;
    watermark.epoch = plan.scan.epoch;
    slots.settle(&watermark)?;
    if slot_mended {
        tracing::warn!(dir = %dir.display(), "a slot of the safe-point file did not verify; written again");
    }

    let report = Recovery {
        identity: plan.identity,
        is_new: false,
        first_retained: watermark.first_retained,
        watermark: plan.watermark,
        safe_point,
        segments: plan.found.len(),
        batches: plan.scan.batches,
        bytes: plan.scan.bytes,
        cut,
        slot_mended,
        segments_removed,
    };
    Ok(Recovered {
        identity: plan.identity,
        birth: None,
        slots,
        active: segment::Opened {
            file,
            path: path.clone(),
            extent: last.len,
            is_recycled: last.header.is_recycled(),
        },
        position: plan.stop.offset,
        epoch: plan.scan.epoch,
        epochs: Epochs::new(Past::default(), plan.scan.starts),
        segments: plan.found.into_iter().map(|found| found.segment).collect(),
        report,
    })
}

/// Finishes a removal (the slots no longer vouch for these segments) and makes every name durable.
fn settle_names(disk: &dyn Disk, dir: &Path, leftovers: &[PathBuf]) -> Result<(), Error> {
    for path in leftovers {
        disk.remove_file(path)
            .map_err(|source| Error::io("remove a released segment", path, source))?;
    }
    let entries = disk
        .list(dir)
        .map_err(|source| Error::io("list the journal", dir, source))?;
    for entry in entries.iter().filter(|entry| spare::is_name(&entry.name)) {
        // Nothing vouches for its contents or its length.
        let path = dir.join(&entry.name);
        disk.remove_file(&path)
            .map_err(|source| Error::io("remove a spare segment", &path, source))?;
    }
    // Always: the process that named the last segment may have died before it synced the name, and
    // the next record acknowledged in there must not go with it.
    disk.sync_dir(dir)
        .map_err(|source| Error::io("sync the journal's directory", dir, source))
}

fn quarantine_tail(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    plan: &Plan,
    window: &mut Window,
) -> Result<Option<Cut>, Error> {
    let last = plan.found.last().expect("a chain has a segment");
    let Some(end) = plan.rest.end else {
        return Ok(None);
    };
    let why = match plan.stop.why {
        Why::Gap(_) => "a batch above the watermark does not follow the one before it",
        Why::Unvouched => "a batch of strict mode was not acknowledged: no slot vouches for it",
        Why::NoBatch | Why::Complete => "a batch above the watermark does not verify",
    };
    let cut = quarantine::Tail {
        segment: &last.segment.path,
        base: last.header.base,
        offset: plan.stop.offset,
        end,
        expected: plan.scan.expected,
        why,
    };
    let kept = match cut.keep(&**disk, dir, window) {
        // What the reserve is for. Nothing was cut yet, so all of it can be done again.
        Err(error) if error.kind() == Kind::Full => {
            let tried = reserve::give_up(&**disk, dir)?.then(|| cut.keep(&**disk, dir, window));
            tried
                .unwrap_or(Err(error))
                .map_err(|error| reserve::no_room_to_open(dir, end - plan.stop.offset, error))?
        }
        kept => kept?,
    };
    let cut = Cut {
        segment: last.segment.path.clone(),
        offset: plan.stop.offset,
        len: end - plan.stop.offset,
        why,
        quarantine: kept,
    };
    tracing::warn!(
        segment = %cut.segment.display(),
        offset = cut.offset,
        len = cut.len,
        quarantine = %cut.quarantine.display(),
        why,
        "cut what a crash left behind the last record"
    );
    Ok(Some(cut))
}

/// Leaves the tail durable and followed by zeros. The last batch may be in the page cache only:
/// its writer died before the sync, or the sync failed and the kernel called the pages clean. So it
/// is written again, not just synced. Same bytes in the same place: tearing this write changes
/// nothing.
fn settle_tail(
    file: &dyn File,
    plan: &Plan,
    safe_point: Lsn,
    window: &mut Window,
) -> std::io::Result<()> {
    let unproven = (plan.slots.watermark().safe_point < safe_point)
        .then_some(plan.stop.last_batch)
        .flatten();
    if let Some(mut at) = unproven {
        while at < plan.stop.offset {
            let bytes = window.some(at, plan.stop.offset - at)?;
            file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
        }
    }
    let last = plan.found.last().expect("a chain has a segment");
    let end = match plan.rest.end {
        // The zeros behind the last batch were written with it.
        None if unproven.is_some() && last.header.is_recycled() => {
            let end = plan.stop.offset + batch::HEADER_LEN as u64;
            Some(end.min(last.len))
        }
        end => end,
    };
    if let Some(end) = end {
        segment::zero_fill(file, plan.stop.offset, end)?;
        window.forget();
    }
    if unproven.is_some() || end.is_some() {
        file.sync_data()?;
    }
    Ok(())
}

/// Whether a node that has no identity file ran before: an error that names both ways out.
pub(crate) fn refuse_steady_state(
    disk: &dyn Disk,
    dir: &Path,
    evidence: &[Evidence],
) -> Result<(), Error> {
    for evidence in evidence {
        let found = evidence
            .is_found(disk)
            .map_err(|source| Error::io("look for evidence", &evidence.path, source))?;
        if found {
            let what = format!("{} {}", evidence.what, evidence.path.display());
            return Err(safe_point_missing(dir, &what));
        }
    }
    Ok(())
}

/// The refusal to start without a safe point where one must have been.
pub(crate) fn safe_point_missing(dir: &Path, evidence: &str) -> Error {
    let message = format!(
        "the safe-point file is missing, and this node ran before ({evidence}); to keep the \
         records, put a copy of the whole directory in its place, or rescue what verifies with \
         `holdfast journal export --salvage --dir {dir}`; to start empty, \
         `holdfast journal reset --dir {dir} --reason TEXT`",
        dir = dir.display()
    );
    Error::recovery(Cause::SafePointMissing, message).with_path(dir.join(slots::NAME))
}

/// What a directory holds that has no identity file.
pub(crate) fn check_unfinished(
    disk: &dyn Disk,
    dir: &Path,
    evidence: &[Evidence],
) -> Result<(), Error> {
    let path = dir.join(slots::NAME);
    let has_slots = disk
        .stat(&path)
        .map_err(|source| Error::io("look for the safe-point file", &path, source))?
        .is_some();
    let holds_records = holds_records(disk, dir)?;
    if !has_slots {
        refuse_steady_state(disk, dir, evidence)?;
        if let Some(segment) = holds_records {
            return Err(safe_point_missing(dir, &segment.display().to_string()));
        }
        return Ok(());
    }
    let safe_point = disk
        .read(&path, slots::FILE_LEN as u64)
        .map_err(|source| Error::io("read the safe-point file", &path, source))?;
    let initial = safe_point.len() == slots::FILE_LEN
        && safe_point == Slots::initial(identity::get(&safe_point));
    if initial && holds_records.is_none() {
        return Ok(());
    }
    Err(Error::recovery(
        Cause::IdentityMismatch,
        "the identity file is missing, and the journal was used",
    )
    .with_path(dir.join(identity::NAME)))
}

/// A segment with bytes behind its header, if there is one.
fn holds_records(disk: &dyn Disk, dir: &Path) -> Result<Option<PathBuf>, Error> {
    for base in bases(disk, dir)? {
        let path = segment::path(dir, base);
        let attempt = || -> std::io::Result<bool> {
            let mut window = Window::new(disk.open(&path, Open::Read)?);
            let len = window.file().len()?;
            let mut at = segment::HEADER_LEN as u64;
            while at < len {
                let bytes = window.bytes(at, WINDOW_LEN)?;
                if bytes.is_empty() || bytes.iter().any(|&byte| byte != 0) {
                    return Ok(true);
                }
                at += bytes.len() as u64;
            }
            Ok(false)
        };
        let used = attempt().map_err(|source| Error::io("read a segment", &path, source))?;
        if used || base != Lsn::FIRST {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
