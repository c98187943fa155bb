//! Cutting the tail of a log that parted from the one that counts.
//!
//! Order of effects, each durable before the next: the records that go, with a report, in the
//! quarantine; a batch that loses its last records, as it will be, in `cut-kept`; the order; that batch
//! in its place and zeros behind it; the later segments gone; `history` without what was cut; both
//! slots moved back; the order gone. A crash before the order leaves the log as it was, and one after
//! it an order that the next open carries out to the same end, without a look at what it changes.
//!
//! The place behind the cut is zeroed and later segments are removed, not recycled: base LSNs come
//! again, and what was cut would verify there.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use world::{Disk, disk::Open};

use crate::{
    Epoch, Error, Identity, Kind, LOCK_HELD, Local, Lsn, Misplaced,
    batch::{self, Closing},
    core::{Active, Core},
    epochs::Past,
    hold,
    order::{CUT_NAME, CutOrder, REASON_LEN_MAX, ShortBatch},
    quarantine,
    reader::Cursor,
    recover, segment,
    slots::{self, Slots},
    writer::Writer,
};

/// The batch that a cut makes shorter, until it is in its place. Replaced atomically.
pub(crate) const KEPT_NAME: &str = "cut-kept";

/// What to cut.
#[derive(Clone, Copy, Debug)]
pub struct Truncation<'a> {
    /// The last position that stays; at least the one before the first retained.
    pub keep: Lsn,
    /// For the report beside the records: 1 to [`REASON_LEN_MAX`] bytes.
    pub reason: &'a str,
    /// Also what readers were shown. For a node that had the journal and showed what no other has:
    /// whoever read it must be told.
    pub shown_too: bool,
}

/// What a cut did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// The last position there was.
    pub end: Lsn,
    /// Records that went.
    pub records: u64,
    /// Where they are; `None` when there were none.
    pub quarantine: Option<PathBuf>,
}

impl Local {
    /// Cuts every record after `cut.keep`. The next position is the one behind it, and what comes
    /// there by [`Local::append_at`] may have any epoch from that of the last record kept on; appends
    /// that are not told their epoch are refused (`Fenced`) until [`Local::raise_epoch`] puts them above
    /// all that was cut, also after the journal was opened again.
    ///
    /// A reader or pin that stands on what was cut is told so ([`Error::misplaced`]).
    ///
    /// Errors that change nothing but the quarantine: `OutOfRange`, `keep` is below what is retained;
    /// `Invalid`, it is above what is durable, or below what was shown, or there is no reason;
    /// `Corrupt`, a record that stays or goes does not verify; `Full`. `Poisoned`: the cut has begun,
    /// and opening again ends it.
    pub fn truncate_after(&self, cut: &Truncation<'_>) -> Result<Truncated, Error> {
        let mut writer = hold(&self.writer);
        let core = &self.core;
        core.check_writable()?;
        let end = core.tail.safe_point();
        check(core, cut, end)?;
        if cut.keep == end {
            return Ok(Truncated {
                end,
                records: 0,
                quarantine: None,
            });
        }
        // Neither a release nor growth changes a segment meanwhile.
        let _releasing = hold(&core.releasing);
        let landing = Landing::find(core, &writer, cut.keep)?;
        let kept = keep_records(core, cut, end)?;
        let order = landing.order(core, cut.keep)?;
        let active = landing.active(core)?;
        landing.write_kept(core)?;
        begin(core, &order)?;
        let done = perform(core, &mut writer, &order, active);
        if let Err(error) = done {
            return Err(core.poison(&error));
        }
        let records = end.get() - cut.keep.get();
        tracing::warn!(
            dir = %core.dir.display(),
            keep = cut.keep.get(),
            records,
            quarantine = %kept.display(),
            reason = cut.reason,
            "cut the tail of a log that parted"
        );
        Ok(Truncated {
            end,
            records,
            quarantine: Some(kept),
        })
    }
}

fn check(core: &Core, cut: &Truncation<'_>, end: Lsn) -> Result<(), Error> {
    let refuse = |kind, message: String| {
        Err(Error::new(kind, message)
            .with_path(&core.dir)
            .with_lsn(cut.keep))
    };
    let first = hold(&core.catalog).first_retained();
    if cut.keep.next() < first {
        let message = format!(
            "a cut after {} is below the retained range {first} to {end}",
            cut.keep
        );
        return refuse(Kind::OutOfRange, message);
    }
    if cut.keep > end {
        let message = format!("a cut after {}, and the log ends at {end}", cut.keep);
        return refuse(Kind::Invalid, message);
    }
    let shown = core.tail.visible();
    if cut.keep < shown && !cut.shown_too {
        let message = format!("a cut after {}, and readers were shown {shown}", cut.keep);
        return refuse(Kind::Invalid, message);
    }
    if cut.reason.trim().is_empty() || cut.reason.len() > REASON_LEN_MAX {
        let message = format!(
            "a cut with a reason of {} bytes; 1 to {REASON_LEN_MAX}",
            cut.reason.len()
        );
        return refuse(Kind::Invalid, message);
    }
    Ok(())
}

/// Copies what goes to the quarantine.
fn keep_records(core: &Core, cut: &Truncation<'_>, end: Lsn) -> Result<PathBuf, Error> {
    let first = cut.keep.next();
    let report = format!(
        "journal {}\ngeneration {}\nbirth {}\nkept up to {}\nfirst record cut {first}\nlast record cut \
         {end}\ncut at {}\nwhy {:?}\n",
        core.identity.journal,
        core.identity.generation.0,
        core.birth
            .map_or_else(|| "unknown".to_owned(), |birth| birth.to_string()),
        cut.keep,
        core.clock.now().nanos(),
        cut.reason
    );
    let tail = quarantine::records::Tail {
        identity: core.identity,
        first,
        last: end,
        report: &report,
    };
    tail.keep(&*core.disk, &core.dir, core.reader(first, end)?)
}

/// Where the log will end.
#[derive(Debug)]
struct Landing {
    base: Lsn,
    keep_epoch: Epoch,
    /// Where the kept bytes of the segment end, and what is used of it.
    from: u64,
    to: u64,
    /// The last batch, shortened, and where it goes.
    batch: Option<(u64, Vec<u8>)>,
}

impl Landing {
    fn find(core: &Core, writer: &Writer, keep: Lsn) -> Result<Self, Error> {
        let stretch = {
            let catalog = hold(&core.catalog);
            catalog.stretch(keep.max(catalog.first_retained()))
        };
        let Some(stretch) = stretch else {
            return Err(
                Error::new(Kind::OutOfRange, "no segment holds the position").with_lsn(keep),
            );
        };
        let (base, end) = (stretch.base, stretch.end);
        let mut cursor = Cursor::open(&*core.disk, core.identity, stretch, None)?;
        let mut landing = Self {
            base,
            keep_epoch: Epoch(0),
            from: segment::HEADER_LEN as u64,
            to: writer.position(),
            batch: None,
        };
        if keep < base {
            // Nothing is kept. What the header says was the epoch before its first record.
            let path = segment::path(&core.dir, base);
            let header = read_header(core, &path, base)?;
            landing.keep_epoch = header.epoch;
        }
        let last = match end {
            Some(end) => Lsn::new(end.get() - 1),
            None => core.tail.safe_point(),
        };
        let mut payload = Vec::new();
        loop {
            let read = cursor.load(&mut payload).map_err(|source| {
                Error::io("read a batch", &cursor.path, source).with_offset(cursor.offset)
            })?;
            let Some(header) = read else {
                return Err(Error::recovery(
                    crate::Cause::FrameCorrupt,
                    "a batch below the safe point does not verify",
                )
                .with_path(&cursor.path)
                .with_offset(cursor.offset));
            };
            if header.first <= keep {
                landing.keep_epoch = header.epoch;
                landing.from = cursor.offset + header.batch_len();
                if header.last() > keep {
                    let short = shorten(&payload, &header, keep, cursor.place, cursor.offset);
                    landing.from = cursor.offset + short.len() as u64;
                    landing.batch = Some((cursor.offset, short));
                }
            }
            cursor.offset += header.batch_len();
            if header.last() >= last {
                break;
            }
        }
        if end.is_some() {
            landing.to = cursor.offset;
        }
        Ok(landing)
    }

    fn order(&self, core: &Core, keep: Lsn) -> Result<CutOrder, Error> {
        let highest = core.tail.at().epoch;
        let own_from = highest
            .0
            .checked_add(1)
            .ok_or_else(|| Error::new(Kind::Invalid, "no epoch is left after the one to be cut"))?;
        Ok(CutOrder {
            identity: core.identity,
            keep,
            keep_epoch: self.keep_epoch,
            own_from: Epoch(own_from),
            base: self.base,
            from: self.from,
            to: self.to,
            batch: self.batch.as_ref().map(|(at, bytes)| ShortBatch {
                at: *at,
                len: u32::try_from(bytes.len()).expect("at most a batch"),
                checksum: crc32c::crc32c(bytes),
            }),
        })
    }

    /// What is appended to afterwards, opened while failing is free.
    fn active(&self, core: &Core) -> Result<Arc<Active>, Error> {
        let active = Arc::clone(&hold(&core.active));
        if active.base == self.base {
            return Ok(active);
        }
        let path = segment::path(&core.dir, self.base);
        let header = read_header(core, &path, self.base)?;
        let open = || {
            let file = core.disk.open(&path, Open::Write)?;
            let extent = file.len()?;
            Ok((file, extent))
        };
        let (file, extent) = open().map_err(|source| Error::io("open a segment", &path, source))?;
        let opened = segment::Opened {
            file,
            path,
            extent,
            is_recycled: header.is_recycled(),
        };
        Ok(Arc::new(Active::new(self.base, opened)))
    }

    fn write_kept(&self, core: &Core) -> Result<(), Error> {
        let Some((_, bytes)) = &self.batch else {
            return Ok(());
        };
        let path = core.dir.join(KEPT_NAME);
        core.disk
            .replace(&path, bytes)
            .map_err(|source| Error::io("write what a cut keeps of a batch", path, source))
    }
}

fn read_header(core: &Core, path: &Path, base: Lsn) -> Result<segment::Header, Error> {
    let file = core
        .disk
        .open(path, Open::Read)
        .map_err(|source| Error::io("open a segment", path, source))?;
    segment::Header::read(&*file, path, base, core.identity)
}

/// The batch with the records up to `keep`. It vouches for no more than it did: what its header says was
/// durable lies before its first record.
fn shorten(
    payload: &[u8],
    header: &batch::Header,
    keep: Lsn,
    place: batch::Place,
    offset: u64,
) -> Vec<u8> {
    let count = u32::try_from(keep.get() + 1 - header.first.get()).expect("fewer than there were");
    let mut len = 0;
    for _ in 0..count {
        let (_, _, after) = batch::record(payload, len).expect("the batch was read before");
        len = after;
    }
    let mut short = vec![0; batch::HEADER_LEN];
    short.extend_from_slice(&payload[..len]);
    let closing = Closing {
        count,
        first: header.first,
        epoch: header.epoch,
        safe_point: header.safe_point,
        settled: header.settled,
        mode: header.mode,
    };
    batch::close(&mut short, &closing, place, offset);
    short
}

/// Writes the order down. An error that leaves it there, or may, poisons: it will be carried out.
fn begin(core: &Core, order: &CutOrder) -> Result<(), Error> {
    let Err(error) = order.write(&*core.disk, &core.dir) else {
        return Ok(());
    };
    match core.disk.stat(&core.dir.join(CUT_NAME)) {
        Ok(None) => Err(error),
        _ => Err(core.poison(&error)),
    }
}

/// Carries the order out, and brings what is in memory after it. From the first byte on, readers know.
fn perform(
    core: &Core,
    writer: &mut Writer,
    order: &CutOrder,
    active: Arc<Active>,
) -> Result<(), Error> {
    let _changing = core.cuts.changing(order.keep);
    // Held until what slots are made of is as the slots are: upkeep settles from it.
    let mut slots = hold(&core.slots);
    core.tail.move_back(order.keep, order.keep_epoch);
    let mut past = hold(&core.epochs).past.clone();
    past.cut(order.keep, order.own_from);
    carry_out(&*core.disk, &core.dir, order, &past, &mut slots)?;
    core.settled.store(slots.settled().get(), Ordering::Release);
    hold(&core.epochs).cut(order.keep, order.own_from);
    *hold(&core.active) = Arc::clone(&active);
    hold(&core.catalog).cut(order.keep, order.base, order.from);
    writer.move_back(core, order, active);
    Ok(())
}

/// The steps behind the order. Each can be done again.
fn carry_out(
    disk: &dyn Disk,
    dir: &Path,
    order: &CutOrder,
    past: &Past,
    slots: &mut Slots,
) -> Result<(), Error> {
    let path = segment::path(dir, order.base);
    let batch = match &order.batch {
        Some(short) => Some((short.at, read_kept(disk, dir, short)?)),
        None => None,
    };
    let change = || {
        let file = disk.open(&path, Open::Write)?;
        // Nothing is made longer: such an order is not of this log.
        if order.from > order.to || order.to > file.len()? {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        if let Some((at, bytes)) = &batch {
            file.write_all_at(bytes, *at)?;
        }
        segment::zero_fill(&*file, order.from, order.to)?;
        file.sync_all()
    };
    change().map_err(|source| Error::doubt("cut a segment", &path, source))?;
    for base in recover::bases(disk, dir)? {
        if base > order.base {
            let path = segment::path(dir, base);
            disk.remove_file(&path)
                .map_err(|source| Error::doubt("remove a segment that was cut", &path, source))?;
        }
    }
    disk.sync_dir(dir)
        .map_err(|source| Error::doubt("sync the journal's directory", dir, source))?;
    past.write(disk, dir, order.identity)?;
    slots.move_back(order.keep, order.keep_epoch, order.base)?;
    let path = dir.join(CUT_NAME);
    disk.remove_file(&path)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|source| Error::doubt("end the order of a cut", &path, source))?;
    remove_kept(disk, dir)
}

fn read_kept(disk: &dyn Disk, dir: &Path, short: &ShortBatch) -> Result<Vec<u8>, Error> {
    let path = dir.join(KEPT_NAME);
    let bytes = disk
        .read(&path, u64::from(short.len))
        .map_err(|source| Error::io("read what a cut keeps of a batch", &path, source))?;
    if crc32c::crc32c(&bytes) != short.checksum {
        let message = "what a cut keeps of a batch does not verify";
        return Err(Error::recovery(crate::Cause::FrameCorrupt, message).with_path(path));
    }
    Ok(bytes)
}

/// Without an order nobody asks for it. A crash may bring it back.
fn remove_kept(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let path = dir.join(KEPT_NAME);
    let remove = || match disk.stat(&path)? {
        Some(_) => disk.remove_file(&path),
        None => Ok(()),
    };
    remove().map_err(|source| Error::io("remove what a cut kept", &path, source))
}

/// Ends a cut that a crash or a failure interrupted, before the log is looked at.
pub(crate) fn resume(disk: &dyn Disk, dir: &Path, identity: Identity) -> Result<(), Error> {
    let Some(order) = CutOrder::read(disk, dir)? else {
        return remove_kept(disk, dir);
    };
    let path = dir.join(CUT_NAME);
    crate::identity::check_same(order.identity, identity, &path)?;
    // Its name may be in the page cache only, and what follows must not outlive it.
    disk.sync_dir(dir)
        .map_err(|source| Error::io("make the order of a cut durable", &path, source))?;
    let mut past = Past::read(disk, dir, identity)?.unwrap_or_default();
    past.cut(order.keep, order.own_from);
    let mut slots = Slots::open(disk, dir.join(slots::NAME), identity)?;
    carry_out(disk, dir, &order, &past, &mut slots)?;
    tracing::warn!(
        dir = %dir.display(),
        keep = order.keep.get(),
        "ended a cut that was interrupted"
    );
    Ok(())
}

/// The cuts of an open journal, for readers that were there before.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    number: AtomicU64,
    /// Number and position of the last one. Held for writing while bytes change.
    last: RwLock<(u64, Lsn)>,
}

impl Cuts {
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    pub(crate) fn last(&self) -> (u64, Lsn) {
        *self.reading()
    }

    /// Tells readers of a cut after `keep`, once those that are reading a batch have it, and keeps them
    /// from reading until what is returned is dropped.
    fn changing(&self, keep: Lsn) -> RwLockWriteGuard<'_, (u64, Lsn)> {
        let mut last = self.last.write().expect(LOCK_HELD);
        last.0 += 1;
        last.1 = keep;
        self.number.store(last.0, Ordering::Release);
        last
    }

    /// No cut changes bytes while this is held.
    pub(crate) fn reading(&self) -> RwLockReadGuard<'_, (u64, Lsn)> {
        self.last.read().expect(LOCK_HELD)
    }
}

/// The error of whoever stands on what was cut.
pub(crate) fn lost(at: Lsn, keep: Lsn) -> Error {
    let message =
        format!("what lay after {keep} was cut: another log has the journal from there on");
    Error::new(Kind::OutOfRange, message)
        .with_lsn(at)
        .with_misplaced(Misplaced::Cut { keep })
}
