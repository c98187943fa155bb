//! Checks the list of table files before the table library reads it.
//!
//! The library writes a checksum of its file list beside the list's number and does not look at it
//! again: a damaged list can make it end the process, and a lost one makes it start an empty table.
//! The table files themselves carry checksums that it does check, block by block, as it reads.

use std::path::Path;

use world::Disk;
use xxhash_rust::xxh3::xxh3_128;

use crate::{Error, Kind, cursor::Cursor};

/// Number of the newest list, its XXH3-128, and how that was made (0).
pub(crate) const CURRENT_FILE: &str = "current";
/// A list takes some 40 bytes a file, so this is a million files of 64 MiB.
const LIST_LEN_MAX: u64 = 64 << 20;

/// Refuses a tree of which the list of files is lost or damaged.
pub(crate) fn check(disk: &dyn Disk, name: &str, dir: &Path) -> Result<(), Error> {
    let path = dir.join(CURRENT_FILE);
    let current = read(disk, name, &path)?;
    let (number, checksum) = newest_list(&current).ok_or_else(|| damaged(name, &path))?;
    let path = dir.join(format!("v{number}"));
    if xxh3_128(&read(disk, name, &path)?) != checksum {
        return Err(damaged(name, &path));
    }
    Ok(())
}

/// What the file `current` says: the number of the newest list, and its checksum.
pub(crate) fn newest_list(current: &[u8]) -> Option<(u64, u128)> {
    let mut cursor = Cursor::new(current);
    let (number, checksum) = (cursor.u64()?, cursor.array().map(u128::from_le_bytes)?);
    (cursor.u8() == Some(0) && cursor.is_empty()).then_some((number, checksum))
}

pub(crate) fn read(disk: &dyn Disk, name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    disk.read(path, LIST_LEN_MAX).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let message = format!("table {name:?} has lost its file {}", path.display());
            Error::new(Kind::Corrupt, message)
        } else {
            Error::io("reading", path, error)
        }
    })
}

pub(crate) fn damaged(name: &str, path: &Path) -> Error {
    let message = format!(
        "table {name:?}: {} does not match its checksum",
        path.display()
    );
    Error::new(Kind::Corrupt, message)
}
