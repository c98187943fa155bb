//! How much disk a journal may take, and what happens when there is no more.
//!
//! What is used is asked of the directory each time space is about to be taken, which is rare (a
//! segment grows by doubling): an account kept beside the truth could differ from it. Every file
//! counts: spares, reserve, prepared space, quarantine. Two things may go above a ceiling by their
//! own bounds, because losing them is worse: what recovery puts into quarantine, and the two slots.
//!
//! A full disk is told once per transition and counted, like a ceiling; see `Core::refused`.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    Error, Kind, Lsn,
    catalog::Segment,
    core::Core,
    counts::add,
    hold,
    options::Options,
    reserve,
    retention::{Retention, Usage},
    slots,
};

/// Most bytes that the files of a journal's directory may have together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    pub bytes: u64,
    pub on_reaching: OnReaching,
}

/// What happens when a journal needs space beyond its ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReaching {
    /// The append that needs it fails with kind `Full`.
    Refuse,
    /// The oldest segments go until there is room, except that none goes which a pin holds; then
    /// the append fails as with `Refuse`. Loses records, and therefore only with
    /// [`Retention::Policy`].
    DropOldest,
}

/// Space as it was met last.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Set by the first refusal or drop for the ceiling, cleared when two segments fit
    /// below it.
    pub(crate) is_at_ceiling: AtomicBool,
    /// Set by the first append that the disk had no room for, cleared when it has room for all
    /// that is prepared ahead, or a released file is a segment again.
    pub(crate) is_disk_full: AtomicBool,
    pub(crate) has_reserve: AtomicBool,
    taking: Mutex<()>,
}

/// What may be done for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: it is a first attempt, or would only be convenient.
    Polite,
    /// An append is refused otherwise: oldest segments may go for it, and a refusal is told.
    Urgent,
}

/// Bytes that are wanted, and the fewest that will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// What the file has already.
    pub(crate) have: u64,
    pub(crate) wanted: u64,
    pub(crate) least: u64,
}

pub(crate) fn check(options: &Options) -> Result<(), Error> {
    let Some(ceiling) = options.ceiling else {
        return Ok(());
    };
    let refuse = |message: String| Err(Error::new(Kind::Invalid, message).with_path(&options.dir));
    let least = options
        .segment_bytes
        .saturating_mul(3)
        .saturating_add(reserve::len(options.reserve_bytes, options.segment_bytes))
        .saturating_add(2 * slots::FILE_LEN as u64);
    if ceiling.bytes < least {
        return refuse(format!(
            "a ceiling of {} bytes; three segments, the reserve and the safe point take {least}",
            ceiling.bytes
        ));
    }
    if ceiling.on_reaching == OnReaching::DropOldest
        && !matches!(options.retention, Retention::Policy(_))
    {
        return refuse(
            "dropping the oldest needs a retention by policy alone; an owner that releases for \
             itself would lose what it still needs"
                .to_owned(),
        );
    }
    Ok(())
}

impl Core {
    /// Says what is set, once, at open.
    pub(crate) fn announce_ceiling(&self) {
        if let Some(ceiling) = self.ceiling {
            tracing::warn!(
                dir = %self.dir.display(),
                bytes = ceiling.bytes,
                on_reaching = ?ceiling.on_reaching,
                "journal has a disk ceiling"
            );
        }
    }

    /// The length that a file may get: `wanted`, or `least` when the ceiling has no room for more.
    /// Drops the oldest segments for it if that was chosen and the need is one.
    pub(crate) fn admit(&self, ask: Ask, need: Need) -> Result<u64, Error> {
        let Some(ceiling) = self.ceiling else {
            return Ok(ask.wanted);
        };
        let mut usage = Usage::of(&*self.disk, &self.dir)?;
        if let Some(len) = fits(&usage, ceiling, ask) {
            self.leave_ceiling(&usage, ceiling);
            return Ok(len);
        }
        let may_drop = ceiling.on_reaching == OnReaching::DropOldest && need == Need::Urgent;
        // Nothing is lost for an append that is refused all the same.
        let drops = may_drop && self.fits_without_older(&usage, ceiling, ask);
        if drops {
            self.enter_ceiling(&usage, ceiling);
        }
        while drops && self.drop_oldest(&usage)? {
            usage = Usage::of(&*self.disk, &self.dir)?;
            if let Some(len) = fits(&usage, ceiling, ask) {
                return Ok(len);
            }
        }
        if need == Need::Urgent {
            self.enter_ceiling(&usage, ceiling);
        }
        Err(self.at_ceiling(&usage, ceiling, ask))
    }

    /// Whether there would be room with nothing left but the segment that is appended to.
    fn fits_without_older(&self, usage: &Usage, ceiling: Ceiling, ask: Ask) -> bool {
        let active = hold(&self.active).base;
        let older: u64 = usage.segments.range(..active).map(|(_, len)| len).sum();
        let least = Usage {
            total: usage.total - older,
            ..Usage::default()
        };
        fits(&least, ceiling, ask).is_some()
    }

    /// Removes the oldest segment, unless it is held or the one appended to; then false.
    fn drop_oldest(&self, usage: &Usage) -> Result<bool, Error> {
        let slots = hold(&self.slots);
        let (released, first) = {
            let mut catalog = hold(&self.catalog);
            (
                catalog.release_oldest(self.tail.visible()),
                catalog.first_retained(),
            )
        };
        // None is recycled: its space is wanted elsewhere.
        drop(self.remove_released(slots, &released, 0)?);
        Ok(self.count_dropped(usage, &released, first))
    }

    /// When the next segment will need the oldest to go: drops it ahead, so that its file is the next
    /// segment. Nothing happens when there is room, or a spare, or a pin.
    pub(crate) fn drop_ahead(&self) -> Result<(), Error> {
        let Some(ceiling) = self
            .ceiling
            .filter(|ceiling| ceiling.on_reaching == OnReaching::DropOldest)
        else {
            return Ok(());
        };
        let oldest = hold(&self.catalog).first_retained();
        let usage = Usage::of(&*self.disk, &self.dir)?;
        let fits = usage.total.saturating_add(self.segment_bytes) <= ceiling.bytes;
        if fits || !hold(&self.spares).is_empty() {
            return Ok(());
        }
        self.enter_ceiling(&usage, ceiling);
        let mut first = Lsn::ZERO;
        let released = self.release(|catalog| {
            if catalog.first_retained() != oldest {
                // Another release made room after the directory was listed.
                return Vec::new();
            }
            let released = catalog.release_oldest(self.tail.visible());
            first = catalog.first_retained();
            released
        })?;
        self.count_dropped(&usage, &released, first);
        Ok(())
    }

    fn count_dropped(&self, usage: &Usage, released: &[Segment], first: Lsn) -> bool {
        let Some(oldest) = released.first() else {
            return false;
        };
        let bytes = usage.segments.get(&oldest.base).copied().unwrap_or(0);
        add(&self.counters.dropped_segments, 1);
        add(&self.counters.dropped_bytes, bytes);
        add(
            &self.counters.dropped_records,
            first.get() - oldest.base.get(),
        );
        tracing::info!(
            dir = %self.dir.display(),
            from = oldest.base.get(),
            to = first.get() - 1,
            bytes,
            "dropped the oldest segment for the disk ceiling"
        );
        true
    }

    /// Gives back what is prepared ahead, for an append that needs the space now.
    pub(crate) fn give_up_spares(&self) -> Result<(), Error> {
        // First what is being prepared: its file must not go while it is written.
        let _preparing = hold(&self.preparing);
        // And what is being released: its space is about to come back.
        let _releasing = hold(&self.releasing);
        let mut spares = hold(&self.spares);
        spares
            .give_up(&*self.disk, &self.dir)
            .map_err(|source| Error::doubt("give up spare segments", &self.dir, source))
    }

    /// Held from asking for space until a file has it, so that no two take the same. Without a ceiling
    /// there is nothing to divide. Taken after growth or spares, before slots.
    pub(crate) fn taking(&self) -> Option<MutexGuard<'_, ()>> {
        self.ceiling.map(|_| hold(&self.space.taking))
    }

    fn enter_ceiling(&self, usage: &Usage, ceiling: Ceiling) {
        if !self.space.is_at_ceiling.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                dir = %self.dir.display(),
                ceiling = ceiling.bytes,
                used = usage.total,
                on_reaching = ?ceiling.on_reaching,
                "journal reached its disk ceiling"
            );
        }
    }

    /// After something was removed: whether the journal is below its ceiling again.
    pub(crate) fn look_at_ceiling(&self) {
        if let Some(ceiling) = self.ceiling
            && self.space.is_at_ceiling.load(Ordering::Relaxed)
            && let Ok(usage) = Usage::of(&*self.disk, &self.dir)
        {
            self.leave_ceiling(&usage, ceiling);
        }
    }

    /// At a distance of two segments, or each one that begins at the ceiling would be a transition.
    fn leave_ceiling(&self, usage: &Usage, ceiling: Ceiling) {
        let used = usage.total - usage.spares;
        if used.saturating_add(2 * self.segment_bytes) <= ceiling.bytes
            && self.space.is_at_ceiling.swap(false, Ordering::AcqRel)
        {
            tracing::warn!(
                dir = %self.dir.display(),
                ceiling = ceiling.bytes,
                used = usage.total,
                "journal is below its disk ceiling again"
            );
        }
    }

    fn at_ceiling(&self, usage: &Usage, ceiling: Ceiling, ask: Ask) -> Error {
        let more = ask.least.saturating_sub(ask.have);
        let held = hold(&self.catalog).lowest_pin();
        let why = match (ceiling.on_reaching, held) {
            (OnReaching::DropOldest, Some(held))
                if self.fits_without_older(usage, ceiling, ask) =>
            {
                format!(
                    "nothing may be dropped, {} holds {} to {}; move that reader on, or raise the ceiling",
                    held.name.map_or_else(
                        || "a pin without a name".to_owned(),
                        |name| format!("pin {name:?}")
                    ),
                    held.from,
                    self.tail.safe_point()
                )
            }
            (OnReaching::DropOldest, _) => {
                "dropping all that is older would not be enough; raise the ceiling".to_owned()
            }
            (OnReaching::Refuse, _) => {
                "raise the ceiling, or let what is oldest be released".to_owned()
            }
        };
        Error::new(
            Kind::Full,
            format!(
                "the journal's disk ceiling of {} bytes is reached: {} are used, {more} more are \
                 needed; {why}",
                ceiling.bytes, usage.total
            ),
        )
        .with_path(&self.dir)
        .for_ceiling()
    }

    /// Counts appends that were refused for want of space, and tells of the first.
    pub(crate) fn refused(&self, error: &Error, appends: u64) {
        if error.kind() != Kind::Full {
            return;
        }
        add(&self.counters.refused, appends);
        if error.is_for_ceiling() {
            add(&self.counters.refused_for_ceiling, appends);
        } else if !self.space.is_disk_full.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                dir = %self.dir.display(),
                %error,
                "the disk is full: appends are refused until there is room"
            );
        }
    }

    /// Told when the disk had room for all that was wanted.
    pub(crate) fn had_room(&self) {
        if self.space.is_disk_full.load(Ordering::Relaxed)
            && self.space.is_disk_full.swap(false, Ordering::AcqRel)
        {
            tracing::warn!(dir = %self.dir.display(), "the disk has room again: appends go on");
        }
    }
}

fn fits(usage: &Usage, ceiling: Ceiling, ask: Ask) -> Option<u64> {
    [ask.wanted, ask.least].into_iter().find(|&len| {
        let more = len.saturating_sub(ask.have);
        usage.total.saturating_add(more) <= ceiling.bytes
    })
}
