//! Files that will be segments: zeros prepared ahead, and released segments whose bytes are stale.
//!
//! A spare has a name of its own until a roll gives it a place. Nothing vouches for a spare: opening
//! removes all there are. Stale bytes never verify in the new place, because the checksum of a batch
//! starts from the base LSN of its segment, and no two segments of a generation have the same.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use world::{Disk, File, disk::Open};

use crate::{
    Error, Lsn, batch,
    segment::{self, Header, NAME_DIGITS, Opened, zero_fill},
};

/// What a file is called that has no place in the journal: one prepared ahead, one a roll could not
/// wait for, or the digits of the released segment it was.
pub(crate) const EXTENSION: &str = ".spare";
const AHEAD: &str = "ahead";
const AT_ONCE: &str = "now";
/// Spares kept. One is taken by the next roll, the other one by the roll after it if nothing was
/// released or prepared in between; the space of more belongs to others.
pub(crate) const SPARES_MAX: usize = 2;

/// The spares of an open journal, the next one first.
#[derive(Debug, Default)]
pub(crate) struct Spares(VecDeque<Spare>);

impl Spares {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many more are kept.
    pub(crate) fn room(&self) -> usize {
        SPARES_MAX.saturating_sub(self.0.len())
    }

    /// Gives the spare back when there are enough.
    pub(crate) fn keep(&mut self, spare: Spare) -> Option<Spare> {
        if self.room() == 0 {
            return Some(spare);
        }
        self.0.push_back(spare);
        None
    }

    /// Removes all of them, and what an attempt left that failed half-way. The files of released
    /// segments that are on their way here stay.
    pub(crate) fn give_up(&mut self, disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
        let mut any = false;
        while let Some(spare) = self.0.pop_front() {
            disk.remove_file(&spare.path)?;
            any = true;
        }
        for stem in [AHEAD, AT_ONCE] {
            let path = dir.join(format!("{stem}{EXTENSION}"));
            if disk.stat(&path)?.is_some() {
                disk.remove_file(&path)?;
                any = true;
            }
        }
        if any {
            // Many file systems free the blocks only when the removal is durable.
            disk.sync_dir(dir)?;
        }
        Ok(())
    }

    /// The first one that has written space for `need` bytes.
    pub(crate) fn take(&mut self, need: u64) -> Option<Spare> {
        let fits = self.0.iter().position(|spare| spare.extent >= need)?;
        self.0.remove(fits)
    }
}

pub(crate) fn is_name(name: &str) -> bool {
    name.ends_with(EXTENSION)
}

/// A written file that has no place in the journal yet: zeros, or what a released segment held.
#[derive(Debug)]
pub(crate) struct Spare {
    path: PathBuf,
    file: Arc<dyn File>,
    extent: u64,
    stale: Lsn,
}

impl Spare {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file of zeros that was written and synced up to `extent` elsewhere.
    pub(crate) fn written(path: PathBuf, file: Arc<dyn File>, extent: u64) -> Self {
        Self {
            path,
            file,
            extent,
            stale: Lsn::ZERO,
        }
    }

    /// A file of `extent` zero bytes, all of them written and synced, for a later roll.
    pub(crate) fn ahead(disk: &dyn Disk, dir: &Path, extent: u64) -> Result<Self, Error> {
        Self::prepare(disk, dir, AHEAD, extent)
    }

    /// The same for a roll that finds nothing prepared.
    pub(crate) fn at_once(disk: &dyn Disk, dir: &Path, extent: u64) -> Result<Self, Error> {
        Self::prepare(disk, dir, AT_ONCE, extent)
    }

    fn prepare(disk: &dyn Disk, dir: &Path, stem: &str, extent: u64) -> Result<Self, Error> {
        let path = dir.join(format!("{stem}{EXTENSION}"));
        let attempt = || {
            if disk.stat(&path)?.is_some() {
                disk.remove_file(&path)?;
            }
            let file = disk.open(&path, Open::CreateNew)?;
            let mut filled = 0;
            while filled < extent {
                let next = extent.min(filled + SYNC_STRIDE);
                zero_fill(&*file, filled, next)?;
                file.sync_all()?;
                filled = next;
            }
            Ok(file)
        };
        match attempt() {
            Ok(file) => Ok(Self {
                path,
                file,
                extent,
                stale: Lsn::ZERO,
            }),
            Err(source) => {
                // Gives the space back. If this fails too, the next attempt or open removes it.
                drop(disk.remove_file(&path));
                Err(Error::io("prepare a segment", path, source))
            }
        }
    }

    /// What the file of the released segment `base` is called.
    pub(crate) fn path_of(dir: &Path, base: Lsn) -> PathBuf {
        dir.join(format!("{:0NAME_DIGITS$}{EXTENSION}", base.get()))
    }

    /// Takes the place of the released segment `base` away and keeps its file. The caller syncs the
    /// directory before the spare is used.
    pub(crate) fn recycle(
        disk: &dyn Disk,
        dir: &Path,
        base: Lsn,
        extent: u64,
    ) -> std::io::Result<Self> {
        let path = Self::path_of(dir, base);
        disk.rename(&segment::path(dir, base), &path)?;
        let file = disk.open(&path, Open::Write)?;
        Ok(Self {
            path,
            file,
            extent,
            stale: base,
        })
    }

    /// Gives the spare its place. Order: header, sync, name, directory sync. A crash before the
    /// last leaves a segment that was never appended to, or none. The error of a step from the
    /// name on is not of kind `Full`: the directory is then in doubt.
    ///
    /// Room for a batch header is zeroed behind the header, so that stale bytes do not look like a
    /// torn first batch. All of it was written before, so syncing the bytes is enough.
    pub(crate) fn place(
        self,
        disk: &dyn Disk,
        dir: &Path,
        header: &Header,
    ) -> Result<Opened, Error> {
        let header = Header {
            stale: self.stale,
            ..*header
        };
        let mut front = header.encode();
        front.resize(segment::HEADER_LEN + batch::HEADER_LEN, 0);
        let failed =
            |what: &str, source| Error::io(format!("{what} a segment"), &self.path, source);
        self.file
            .write_all_at(&front, 0)
            .map_err(|source| failed("write the header of", source))?;
        self.file
            .sync_data()
            .map_err(|source| failed("sync the header of", source))?;
        let path = segment::path(dir, header.base);
        let doubt = |what: &str, source| Error::doubt(format!("{what} a segment"), &path, source);
        disk.rename(&self.path, &path)
            .map_err(|source| doubt("name", source))?;
        disk.sync_dir(dir)
            .map_err(|source| doubt("sync the directory of", source))?;
        Ok(Opened {
            file: self.file,
            path,
            extent: self.extent,
            is_recycled: self.stale > Lsn::ZERO,
        })
    }
}

/// Zeros synced at once when a segment is prepared: a sync of an appender queues behind no more than
/// this at the device. Chosen by eye: a few milliseconds of a disk of this kind.
const SYNC_STRIDE: u64 = 4 << 20;
