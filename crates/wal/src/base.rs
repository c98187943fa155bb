//! Beginning a log after a base: what lies below it came as derived state, not as records.
//!
//! Order of effects, each durable before the next: the order; the old log moved to
//! `reset-{generation}-{time}/`, as a reset does it, or removed; the order's second phase; the new log,
//! its identity last; the order gone. A crash anywhere leaves the old log untouched (no order yet), or
//! an order that the next open carries out to the same end.

use std::path::Path;

use world::{Disk, disk::EntryKind};

use crate::{
    Cause, Epoch, EpochStart, Error, Identity, Kind, Local, Lsn, Options, Recovery,
    create::Beginning,
    cut,
    epochs::{self, Past},
    identity, local,
    order::{self, BASE_NAME, BaseOrder, ResetOrder, ResetPhase},
    reserve, reset, segment, slots, spare,
};

/// What a log begins after.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// Of the journal whose log this is to be.
    pub identity: Identity,
    /// The last position that the base holds; [`Lsn::ZERO`]: nothing, the log is to have all records.
    pub lsn: Lsn,
    /// Of the record there. Own appends need a higher one.
    pub epoch: Epoch,
    /// Where the epochs up to there begin, oldest first.
    pub history: &'a [EpochStart],
    pub old: Old,
}

/// What becomes of the log that was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Into a directory beside the new one, for whoever may want a record of it. Nobody removes it but
    /// an operator.
    MoveAside,
    /// Removed. For what is left of a base that was not finished, which may come again and again;
    /// the quarantine stays.
    Discard,
}

/// Throws the log in `options.dir` away, whatever damage it has, and begins one after `base`, with a
/// birth of its own; makes the directory when there is none. Returns the log, opened.
///
/// Errors: `Locked` names the holder; `Invalid`, the history does not rise or lies above the base, or a
/// reset was interrupted here and must be ended first; `Corrupt` with `VERSION_UNKNOWN`, another
/// format, with which nothing is wrong; `Full`, `Io`: the disk; begin again, or open and see.
pub fn begin_after(options: &Options, base: &Base<'_>) -> Result<(Local, Recovery), Error> {
    options.check()?;
    let past = Past::new(base.history, base.lsn)?;
    if past
        .starts
        .last()
        .is_some_and(|last| last.epoch > base.epoch)
    {
        let message = format!("history of epochs: it goes beyond epoch {}", base.epoch.0);
        return Err(Error::new(Kind::Invalid, message));
    }
    if base.epoch.0 == u64::MAX || base.lsn.get() == u64::MAX {
        return Err(Error::new(Kind::Invalid, "nothing can follow this base"));
    }
    let (disk, dir) = (&*options.disk, &*options.dir);
    disk.create_dir_all_synced(dir)
        .map_err(|source| Error::io("make the journal's directory", dir, source))?;
    let lock = local::take_lock(options)?;
    if ResetOrder::read(disk, dir)?.is_some() {
        let message = "a reset was interrupted here; open the journal, which ends it, first";
        return Err(Error::new(Kind::Invalid, message).with_path(dir));
    }
    // One that is there was interrupted, or does not verify: what it moved stays where it is.
    new_order(options, base, past.starts)?.write(disk, dir)?;
    Local::open_locked(options, lock, local::Purpose::Use)
}

fn new_order(
    options: &Options,
    base: &Base<'_>,
    starts: Vec<EpochStart>,
) -> Result<BaseOrder, Error> {
    let (disk, dir) = (&*options.disk, &*options.dir);
    let ended = match identity::read(disk, dir) {
        Ok(found) => found.map_or(0, |identity| identity.generation.0),
        Err(error) if error.cause() == Some(Cause::VersionUnknown) => return Err(error),
        Err(_) => 0,
    };
    let entries = disk
        .list(dir)
        .map_err(|source| Error::io("list the journal", dir, source))?;
    let is_empty = entries
        .iter()
        .all(|entry| reset::stays(&entry.name, entry.kind, BASE_NAME));
    let mut order = BaseOrder {
        phase: if is_empty {
            ResetPhase::Making
        } else {
            ResetPhase::Moving
        },
        identity: base.identity,
        birth: identity::born(&*options.random)?,
        base: base.lsn,
        epoch: base.epoch,
        starts,
        ended,
        time: options.clock.now().nanos(),
        discards: base.old == Old::Discard,
    };
    // A directory of its own, also when the clock stands still or was set back.
    while entries.iter().any(|entry| entry.name == order.moved_to()) {
        order.time += 1;
    }
    Ok(order)
}

/// Carries out what an order asks for before the log can be opened. Returns the order, which
/// [`conclude`] ends.
pub(crate) fn resume(options: &Options) -> Result<Option<BaseOrder>, Error> {
    let (disk, dir) = (&*options.disk, &*options.dir);
    let Some(mut order) = BaseOrder::read(disk, dir)? else {
        return Ok(None);
    };
    // Its name may be in the page cache only, and what follows must not outlive it.
    disk.sync_dir(dir)
        .map_err(|source| Error::io("make the order of a base durable", dir, source))?;
    if order.phase == ResetPhase::Moving {
        if order.discards {
            discard_all(disk, dir)
                .map_err(|source| Error::io("remove a log that is begun anew", dir, source))?;
        } else {
            let target = dir.join(order.moved_to());
            reset::move_all(disk, dir, &target, BASE_NAME)
                .map_err(|source| Error::io("move a log aside", &target, source))?;
        }
        order.phase = ResetPhase::Making;
        order.write(disk, dir)?;
    }
    Ok(Some(order))
}

/// Removes what a log consists of, and nothing else.
fn discard_all(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    for entry in disk.list(dir)? {
        let name = &*entry.name;
        let is_of_log = [
            identity::NAME,
            slots::NAME,
            epochs::NAME,
            cut::KEPT_NAME,
            reserve::NAME,
            order::CUT_NAME,
            order::IMPORT_NAME,
        ]
        .contains(&name)
            || segment::base_of(name).is_some()
            || spare::is_name(name)
            || name.ends_with(".tmp");
        if entry.kind == EntryKind::File && is_of_log {
            disk.remove_file(&dir.join(name))?;
        }
    }
    disk.sync_dir(dir)
}

impl BaseOrder {
    /// The log that it asks for.
    pub(crate) fn beginning(&self) -> Beginning {
        Beginning {
            identity: self.identity,
            birth: self.birth,
            base: self.base,
            epoch: self.epoch,
            past: Some(Past {
                starts: self.starts.clone(),
                own_from: Epoch(self.epoch.0.saturating_add(1)),
            }),
        }
    }
}

/// Ends the order: the log is there.
pub(crate) fn conclude(options: &Options, order: &BaseOrder) -> Result<(), Error> {
    let (disk, dir) = (&*options.disk, &*options.dir);
    let path = dir.join(BASE_NAME);
    disk.remove_file(&path)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|source| Error::io("end the order of a base", &path, source))?;
    tracing::warn!(
        dir = %dir.display(),
        base = order.base.get(),
        epoch = order.epoch.0,
        discarded = order.discards,
        moved_to = order.moved_to(),
        "the log begins after a base"
    );
    Ok(())
}
