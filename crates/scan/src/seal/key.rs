//! The key that signs statements: a file of its own, made when the first statement is.
//!
//! A second key is never made by itself in place of one that is missing: statements that nobody can tell
//! from an attacker's would follow. Somebody has to ask for it, and the chain says so. A rotation writes the next key, has it signed for by the one before, and
//! then gives it the name; a process that dies in between leaves either key under its name, and the
//! next look puts that right by what the newest statement says.

use std::{io, path::Path};

use world::{Disk, Random};

use super::Error;
use crate::policy::{PrivateKey, read_key};

/// Name of the key below the keys of the data directory.
pub const KEY_FILE: &str = "ledger.key";
/// The key that a rotation goes to, until a statement names it.
pub const NEXT_FILE: &str = "ledger.key.next";

/// The key by which the newest statement was signed, `signed_by`; where there is none yet, the one in
/// the file, which is made when it is not there.
pub fn current(
    disk: &dyn Disk,
    keys_dir: &Path,
    random: &dyn Random,
    signed_by: Option<&str>,
) -> Result<PrivateKey, Error> {
    let path = keys_dir.join(KEY_FILE);
    let found = read(disk, &path)?;
    let Some(signed_by) = signed_by else {
        return found.map_or_else(|| make(disk, keys_dir, KEY_FILE, random), Ok);
    };
    let is_it = |key: &PrivateKey| key.public().base64() == signed_by;
    if let Some(key) = found.filter(|key| is_it(key)) {
        return Ok(key);
    }
    let next = keys_dir.join(NEXT_FILE);
    match read(disk, &next)?.filter(|key| is_it(key)) {
        Some(key) => {
            promote(disk, keys_dir)?;
            Ok(key)
        }
        None => Err(Error::Key(format!(
            "{} is not the key that signed the newest statement ({signed_by})",
            path.display()
        ))),
    }
}

/// Takes away a key by which nothing was signed.
pub fn remove(disk: &dyn Disk, keys_dir: &Path) -> Result<(), Error> {
    disk.remove_file(&keys_dir.join(KEY_FILE))?;
    disk.sync_dir(keys_dir)?;
    Ok(())
}

/// The next key of a rotation, on disk but not yet in force.
pub fn prepare(disk: &dyn Disk, keys_dir: &Path, random: &dyn Random) -> Result<PrivateKey, Error> {
    make(disk, keys_dir, NEXT_FILE, random)
}

/// Puts the next key in force. The one before is gone then.
pub fn promote(disk: &dyn Disk, keys_dir: &Path) -> Result<(), Error> {
    disk.rename(&keys_dir.join(NEXT_FILE), &keys_dir.join(KEY_FILE))?;
    disk.sync_dir(keys_dir)?;
    Ok(())
}

fn make(
    disk: &dyn Disk,
    keys_dir: &Path,
    name: &str,
    random: &dyn Random,
) -> Result<PrivateKey, Error> {
    disk.create_dir_all_synced(keys_dir)?;
    let key = PrivateKey::generate(random)?;
    disk.replace(&keys_dir.join(name), key.to_pem().as_bytes())?;
    Ok(key)
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<PrivateKey>, Error> {
    match read_key(disk, path) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Key(format!("{}: {error}", path.display()))),
    }
}
