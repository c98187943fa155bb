//! Space kept for the moment when there is none.
//!
//! The file `reserve` is a file of written zeros that nobody reads. On a full disk it becomes the
//! next segment, by a new name and without asking for a byte, so that an owner's closing record
//! fits whatever others do with the disk meanwhile; or it is removed, so that opening can keep a
//! torn tail aside. It is made again when there is room.

use std::{path::Path, sync::atomic::Ordering};

use world::{Disk, disk::Open};

use crate::{
    Error,
    ceiling::{Ask, Need},
    core::Core,
    hold,
    segment::zero_fill,
    spare::Spare,
};

pub(crate) const NAME: &str = "reserve";
const UNFINISHED: &str = "reserve.tmp";
/// Bytes reserved unless told otherwise. A closing record is a few kilobytes and a torn tail is one
/// batch, with 64 appenders of 4 KiB a quarter of this; small beside a segment, and what a segment
/// begins with when it is not prepared ahead.
pub const RESERVE_BYTES: u64 = 1 << 20;

/// Length of the file: never more than a segment, so that it can become one.
pub(crate) fn len(reserve_bytes: u64, segment_bytes: u64) -> u64 {
    reserve_bytes.min(segment_bytes)
}

/// Whether there is a reserve of `len` bytes or more.
pub(crate) fn is_there(disk: &dyn Disk, dir: &Path, len: u64) -> Result<bool, Error> {
    let path = dir.join(NAME);
    let stat = disk
        .stat(&path)
        .map_err(|source| Error::io("look for the reserve", path, source))?;
    Ok(stat.is_some_and(|entry| entry.len >= len))
}

/// Makes the reserve. Order: zeros, sync, name, directory sync; so what has the name has the space.
pub(crate) fn make(disk: &dyn Disk, dir: &Path, len: u64) -> Result<(), Error> {
    let unfinished = dir.join(UNFINISHED);
    let attempt = || {
        if disk.stat(&unfinished)?.is_some() {
            disk.remove_file(&unfinished)?;
        }
        let file = disk.open(&unfinished, Open::CreateNew)?;
        zero_fill(&*file, 0, len)?;
        file.sync_all()?;
        disk.rename(&unfinished, &dir.join(NAME))?;
        disk.sync_dir(dir)
    };
    attempt().map_err(|source| {
        // Gives the space back. If this fails too, the next attempt removes it.
        drop(disk.remove_file(&unfinished));
        Error::io("make the reserve", dir.join(NAME), source)
    })
}

/// Gives the space of the reserve back to the disk; false when there was none.
pub(crate) fn give_up(disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
    let path = dir.join(NAME);
    let attempt = || {
        if disk.stat(&path)?.is_none() {
            return Ok(false);
        }
        disk.remove_file(&path)?;
        // Many file systems free the blocks only when the removal is durable.
        disk.sync_dir(dir)?;
        Ok(true)
    };
    attempt().map_err(|source| Error::io("give up the reserve", &path, source))
}

/// The reserve as a file that can be given a segment's place; `None` when it has less than `need`.
pub(crate) fn adopt(disk: &dyn Disk, dir: &Path, need: u64) -> Result<Option<Spare>, Error> {
    if !is_there(disk, dir, need)? {
        return Ok(None);
    }
    let path = dir.join(NAME);
    let attempt = || {
        let file = disk.open(&path, Open::Write)?;
        let extent = file.len()?;
        Ok((file, extent))
    };
    let (file, extent) =
        attempt().map_err(|source| Error::io("open the reserve", &path, source))?;
    Ok(Some(Spare::written(path, file, extent)))
}

impl Core {
    pub(crate) fn reserve_len(&self) -> u64 {
        len(self.reserve_bytes, self.segment_bytes)
    }

    /// Makes the reserve if it is missing and there is room for it. Without it nothing is lost yet,
    /// so a failure is told by [`crate::Metrics`] and tried again.
    pub(crate) fn keep_reserve(&self) {
        let len = self.reserve_len();
        if len == 0 || self.space.has_reserve.load(Ordering::Acquire) {
            return;
        }
        // A roll may give the reserve a segment's name at the same time.
        let _held = hold(&self.spares);
        let _taking = self.taking();
        let attempt = || {
            if !is_there(&*self.disk, &self.dir, len)? {
                let ask = Ask {
                    have: 0,
                    wanted: len,
                    least: len,
                };
                self.admit(ask, Need::Polite)?;
                make(&*self.disk, &self.dir, len)?;
            }
            Ok::<_, Error>(())
        };
        match attempt() {
            Ok(()) => {
                self.space.has_reserve.store(true, Ordering::Release);
                self.had_room();
            }
            Err(error) => tracing::debug!(%error, "no space reserved"),
        }
    }
}

/// A torn tail could not be kept aside for want of space, with the reserve given up if there was
/// one: what the operator can do.
pub(crate) fn no_room_to_open(dir: &Path, tail_len: u64, error: Error) -> Error {
    if error.kind() != crate::Kind::Full {
        return error;
    }
    Error::new(
        crate::Kind::Full,
        format!(
            "the disk is full, and opening must keep {tail_len} bytes of a torn tail aside before \
             it cuts them; free {} bytes on the file system of the journal and open again: {error}",
            tail_len.saturating_add(METADATA_LEN)
        ),
    )
    .with_path(dir)
}

/// A directory, a report and their blocks beside a quarantined tail. Derived: three blocks of 4 KiB,
/// rounded up.
const METADATA_LEN: u64 = 16 << 10;
