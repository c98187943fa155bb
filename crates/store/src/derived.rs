//! Up to where the files of a store reach: what a node needs to know before it compares its journal
//! with another one's.
//!
//! Only what a journal lets one read is applied, and only what is applied is flushed. Over a journal
//! whose readers end at what is committed, no file therefore ever holds anything above that.

use wal::Lsn;

use crate::{
    Error, Options, Store, apply, base,
    manifest::{Identity, Manifest},
    recovery, swap,
};

/// What the table files of a store hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Everything up to here: what is missing in the files is asked for above it.
    pub checkpoint: Lsn,
    /// Nothing above here: a journal that parted from others at or above it can be cut there and the
    /// files stay as they are.
    pub reaches: Lsn,
    /// The log that it was derived from was thrown away, and the base that was to take its place is not
    /// whole: [`crate::Install::supersede`]. It is not to be opened.
    pub is_superseded: bool,
}

impl Derived {
    /// Of the store that `options` name, which is not open. `None` when there is none yet.
    pub fn on_disk(options: &Options) -> Result<Option<Self>, Error> {
        options.check()?;
        let (disk, dir) = (&*options.disk, &*options.dir);
        if !swap::exists(disk, dir)? {
            return Ok(None);
        }
        let _lock = recovery::take_lock(options)?;
        swap::settle(disk, dir)?;
        base::forget(disk, dir)?;
        Self::of(options)
    }

    /// Of a store whose lock the caller holds.
    pub(crate) fn of(options: &Options) -> Result<Option<Self>, Error> {
        let (disk, dir) = (&*options.disk, &*options.dir);
        let found = (Identity::load(disk, dir)?, Manifest::load(disk, dir)?);
        let (Some(_), Some(manifest)) = found else {
            return Ok(None);
        };
        let trees = dir.join(recovery::TABLES_DIR);
        Ok(Some(Self {
            checkpoint: manifest.checkpoint,
            reaches: apply::reaches(options, &trees, &manifest)?.max(manifest.checkpoint),
            is_superseded: swap::is_superseded(disk, dir)?,
        }))
    }
}

impl Store {
    /// What its table files hold: of a store of this machine only. What was committed since may not
    /// be in them yet.
    pub fn derived(&self) -> Result<Derived, Error> {
        let inner = self.here("looking at table files")?;
        let checkpoint = inner.checkpointer().checkpoint();
        let reaches = inner.trees().map(|tree| tree.persisted());
        Ok(Derived {
            checkpoint,
            reaches: reaches.fold(checkpoint, Lsn::max),
            is_superseded: false,
        })
    }
}
