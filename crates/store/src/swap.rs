//! One set of trees for another, so that a crash leaves the one or the other.
//!
//! What comes is gathered in `install/` and `tables.new/`, beside the trees that are in use. Once it
//! is all there and compared, `install/whole` says so, and from then on every opener goes on with
//! what follows, from what lies there; before, every opener throws it away:
//! 1. `tables` becomes `tables.old`: nothing is lost, `tables.new` is whole;
//! 2. `tables.new` becomes `tables`: with the old manifest still, which nobody reads before
//! 3. manifest and identity are replaced by those in `install/`;
//! 4. `superseded` goes: what it was said of is not there any more;
//! 5. `install/whole` goes: the store is the new one;
//! 6. `tables.old` and `install` go.
//!
//! `superseded` is there from before the log under the store is thrown away until the store is the one
//! that belongs to the log that was begun: positions alone do not tell a store from one of another history.
//!
//! All renames are within the store's directory, and each is durable before the next step.

use std::{io, path::Path};

use world::Disk;

use crate::{
    Error, Kind,
    manifest::{Identity, Manifest},
    recovery::TABLES_DIR,
};

pub(crate) const INSTALL_DIR: &str = "install";
pub(crate) const NEW_DIR: &str = "tables.new";
const OLD_DIR: &str = "tables.old";
const WHOLE_FILE: &str = "whole";
pub(crate) const SUPERSEDED_FILE: &str = "superseded";

/// What stands in `install/`, manifest and identity of the new trees among it, is all there and
/// durable, and what `tables.new/` holds too: it is the store from here on.
pub(crate) fn declare_whole(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    remove(disk, &dir.join(OLD_DIR))?;
    let path = dir.join(INSTALL_DIR).join(WHOLE_FILE);
    disk.replace(&path, &[])
        .map_err(|error| Error::io("writing", &path, error))
}

/// Whether an exchange was begun and is to be gone on with.
pub(crate) fn is_whole(disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
    exists(disk, &dir.join(INSTALL_DIR).join(WHOLE_FILE))
}

/// What lies here is not to be used before another store is in its place. Durable when it returns.
pub(crate) fn supersede(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let path = dir.join(SUPERSEDED_FILE);
    disk.replace(&path, &[])
        .map_err(|error| Error::io("writing", &path, error))
}

pub(crate) fn is_superseded(disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
    exists(disk, &dir.join(SUPERSEDED_FILE))
}

/// What lies here is the store.
fn reinstate(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    if !is_superseded(disk, dir)? {
        return Ok(());
    }
    let path = dir.join(SUPERSEDED_FILE);
    disk.remove_file(&path)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|error| Error::io("removing", &path, error))
}

/// Goes on with an exchange that was begun, and throws away what is not whole. Whoever calls it
/// holds the store's lock.
pub(crate) fn settle(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let install = dir.join(INSTALL_DIR);
    let whole = install.join(WHOLE_FILE);
    if is_whole(disk, dir)? {
        exchange_trees(disk, dir)?;
        let (Some(manifest), Some(identity)) = (
            Manifest::load(disk, &install)?,
            Identity::load(disk, &install)?,
        ) else {
            let message = format!("{} has lost a file", install.display());
            return Err(Error::new(Kind::Corrupt, message));
        };
        // The identity last: where it is, the rest is.
        manifest.store(disk, dir)?;
        identity.store(disk, dir)?;
        // Before the last step, which is not gone on with.
        reinstate(disk, dir)?;
        disk.remove_file(&whole)
            .and_then(|()| disk.sync_dir(&install))
            .map_err(|error| Error::io("removing", &whole, error))?;
        tracing::info!(dir = %dir.display(), "store was replaced by what was installed");
    }
    throw_away(disk, dir)?;
    remove(disk, &dir.join(OLD_DIR))
}

/// Throws away what is not whole.
pub(crate) fn throw_away(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    // First what says how far the rest has come.
    remove(disk, &dir.join(INSTALL_DIR))?;
    remove(disk, &dir.join(NEW_DIR))
}

fn exchange_trees(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let (tables, new) = (dir.join(TABLES_DIR), dir.join(NEW_DIR));
    if !exists(disk, &new)? {
        return Ok(());
    }
    if exists(disk, &tables)? {
        rename(disk, &tables, &dir.join(OLD_DIR))?;
    }
    rename(disk, &new, &tables)
}

/// Durable when it returns. Both are in the same directory.
fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    let dir = from.parent().expect("a name in the store's directory");
    disk.rename(from, to)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|error| Error::io("renaming", from, error))
}

pub(crate) fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    disk.stat(path)
        .map(|found| found.is_some())
        .map_err(|error| Error::io("looking for", path, error))
}

pub(crate) fn remove(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    match disk.remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("removing", dir, error))
        }
        _ => Ok(()),
    }
}
