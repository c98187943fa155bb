//! Which segments go, and when: by their owner's word, by their bytes, by their age.
//!
//! A segment goes whole, oldest first, and never while a pin holds it; the one appended to never
//! goes. What goes on reaching a ceiling is decided in `ceiling.rs`.

use std::{collections::BTreeMap, path::Path, sync::MutexGuard, time::Duration};

use world::{
    Disk, Timestamp,
    disk::{Entry, EntryKind},
};

use crate::{
    Error, Lsn,
    catalog::{Catalog, Segment},
    core::Core,
    counts::add,
    hold, quarantine,
    segment::base_of,
    slots::Slots,
    spare::{self, Spare},
};

/// Who decides that a segment goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Its owner: what was released goes at once, and nothing else ever.
    #[default]
    Owner,
    /// Its owner, and then the limits: what was released stays for whoever may want it until it is
    /// beyond them. What was not released stays whatever the limits say. What was released is not
    /// remembered over an open; the owner says it again.
    Released(Limits),
    /// The limits alone: for a log whose records are nobody's state. What its owner releases goes
    /// at once all the same.
    Policy(Limits),
}

impl Retention {
    pub(crate) fn limits(&self) -> Option<Limits> {
        match self {
            Self::Owner => None,
            Self::Released(limits) | Self::Policy(limits) => Some(*limits),
        }
    }
}

/// How much is kept. A segment goes when one of the limits says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all segment files together. Exceeded by less than a segment, since one goes whole
    /// and the one appended to stays.
    pub bytes_max: Option<u64>,
    /// Age of the newest record of a segment, as well as wall clocks tell: a segment that was
    /// begun while the clock was not set (before 2020) has no age of its own, and one that was begun
    /// before an earlier one is as old as that.
    pub age_max: Option<Duration>,
}

/// 2020-01-01T00:00:00Z. A clock that shows less was never set: boards without a battery start at
/// 1970 and learn the time later, and what they logged until then is not fifty years old.
const CLOCK_SET: Timestamp = Timestamp::from_nanos(1_577_836_800 * 1_000_000_000);

/// Lengths of the files of a journal's directory, quarantine included, as the directory says.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) total: u64,
    /// Of what is prepared ahead, which the next append may use or have removed.
    pub(crate) spares: u64,
    pub(crate) segments: BTreeMap<Lsn, u64>,
}

impl Usage {
    pub(crate) fn of(disk: &dyn Disk, dir: &Path) -> Result<Self, Error> {
        let list = |dir: &Path| {
            disk.list(dir)
                .map_err(|source| Error::io("list the journal", dir, source))
        };
        let mut usage = Self::default();
        for entry in list(dir)? {
            usage.total += entry.len;
            if let Some(base) = base_of(&entry.name) {
                usage.segments.insert(base, entry.len);
            } else if spare::is_name(&entry.name) {
                usage.spares += entry.len;
            } else if entry.kind == EntryKind::Dir && entry.name == quarantine::DIR {
                let kept = list(&dir.join(quarantine::DIR))?;
                usage.total += kept.iter().map(|entry| entry.len).sum::<u64>();
            }
        }
        Ok(usage)
    }

    pub(crate) fn retained(&self) -> u64 {
        self.segments.values().sum()
    }
}

/// The position from which on `limits` keep, given the segments in order, the active one last.
///
/// Only their own bytes count: the directory may hold files of segments that are on their way out,
/// released since it was listed or left by a removal that failed. A segment begun since counts at the
/// next look.
fn keep_from<'a>(
    limits: &Limits,
    now: Timestamp,
    usage: &Usage,
    segments: impl ExactSizeIterator<Item = &'a Segment>,
) -> Lsn {
    let segments: Vec<(Lsn, Timestamp)> = segments.map(|it| (it.base, it.created)).collect();
    let len = |base: &Lsn| usage.segments.get(base).copied().unwrap_or(0);
    let mut bytes: u64 = segments.iter().map(|(base, _)| len(base)).sum();
    let mut keep_from = Lsn::ZERO;
    let mut newest = Timestamp::default();
    for pair in segments.windows(2) {
        let ((base, begun), (next, sealed)) = (pair[0], pair[1]);
        newest = newest.max(begun).max(sealed);
        let too_many = limits.bytes_max.is_some_and(|most| bytes > most);
        let too_old = limits
            .age_max
            .is_some_and(|most| newest >= CLOCK_SET && newest.plus(most) < now);
        if !too_many && !too_old {
            break;
        }
        bytes -= len(&base);
        keep_from = next;
    }
    keep_from
}

impl Core {
    /// Removes what the limits of the retention say. Returns how many segments went.
    pub(crate) fn apply_retention(&self) -> Result<u64, Error> {
        self.check_writable()?;
        let Some(limits) = self.retention.limits() else {
            return Ok(0);
        };
        let usage = Usage::of(&*self.disk, &self.dir)?;
        let released = self.release(|catalog| {
            let mut keep = keep_from(&limits, self.clock.now(), &usage, catalog.segments());
            // What was not shown yet is not old, whatever its bytes and age.
            keep = keep.min(self.tail.visible().next());
            if let Retention::Released(_) = self.retention {
                keep = keep.min(catalog.released());
            }
            catalog.release(keep)
        })?;
        let bytes: u64 = released
            .iter()
            .filter_map(|segment| usage.segments.get(&segment.base))
            .sum();
        self.look_at_ceiling();
        add(&self.counters.retention_segments, released.len() as u64);
        add(&self.counters.retention_bytes, bytes);
        Ok(released.len() as u64)
    }

    /// Says that the owner no longer needs what is below `keep_from`.
    pub(crate) fn release_below(&self, keep_from: Lsn) -> Result<(), Error> {
        self.check_writable()?;
        let keep_from = keep_from.min(self.tail.visible().next());
        if let Retention::Released(_) = self.retention {
            hold(&self.catalog).note_released(keep_from);
            return self.apply_retention().map(|_| ());
        }
        self.release(|catalog| catalog.release(keep_from))?;
        self.look_at_ceiling();
        Ok(())
    }

    /// Takes away the segments that the catalog lets go, and returns them. Order: the slots stop
    /// vouching for them, then they go, oldest first, then the directory is synced, then their files
    /// may be used again. A crash in between leaves leftovers that the next open removes.
    pub(crate) fn release(
        &self,
        let_go: impl FnOnce(&mut Catalog) -> Vec<Segment>,
    ) -> Result<Vec<Segment>, Error> {
        let _releasing = hold(&self.releasing);
        // Again: the journal may have been closed while another release went on.
        self.check_writable()?;
        let room = hold(&self.spares).room();
        let slots = hold(&self.slots);
        let released = let_go(&mut hold(&self.catalog));
        let recycled = self.remove_released(slots, &released, room)?;
        for spare in recycled {
            if let Some(excess) = hold(&self.spares).keep(spare) {
                self.disk.remove_file(excess.path()).map_err(|source| {
                    Error::doubt("remove a spare segment", excess.path(), source)
                })?;
            }
        }
        Ok(released)
    }

    /// At most `room` of them become spares; the others are gone when this returns.
    ///
    /// The slots are let go before the files are: in strict mode every append waits for them. And
    /// before the spares are locked: a roll holds those while it takes the slots.
    pub(crate) fn remove_released(
        &self,
        mut slots: MutexGuard<'_, Slots>,
        released: &[Segment],
        mut room: usize,
    ) -> Result<Vec<Spare>, Error> {
        let mut recycled = Vec::new();
        if released.is_empty() {
            return Ok(recycled);
        }
        self.settle_held(&mut slots)?;
        drop(slots);
        for segment in released {
            let spare = self
                .remove(segment, room > 0)
                .map_err(|source| Error::doubt("release a segment", &segment.path, source))?;
            room -= usize::from(spare.is_some());
            recycled.extend(spare);
        }
        self.disk
            .sync_dir(&self.dir)
            .map_err(|source| Error::doubt("sync the journal's directory", &self.dir, source))?;
        Ok(recycled)
    }

    /// A segment of the usual length becomes a spare when one is wanted.
    fn remove(&self, segment: &Segment, is_wanted: bool) -> std::io::Result<Option<Spare>> {
        let is_usual = |entry: Entry| entry.len == self.segment_bytes;
        if is_wanted && self.disk.stat(&segment.path)?.is_some_and(is_usual) {
            return Spare::recycle(&*self.disk, &self.dir, segment.base, self.segment_bytes)
                .map(Some);
        }
        self.disk.remove_file(&segment.path).map(|()| None)
    }
}
