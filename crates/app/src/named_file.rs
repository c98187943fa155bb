//! Files that the user names: what is read may be reached through links, what is written replaces
//! regular files only.
//!
//! The seam `world::Disk` follows no link, because inside the data directory a link is a trap. A
//! path on the command line is the user's own word: `/etc/holdfast/holdfast.toml` is often a link. Files of
//! a command that was asked for elsewhere came along with it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use world::{Disk, File, RealDisk, disk::Open};

use crate::remote::carried;

/// The whole file, refused with `InvalidData` when longer than `len_max`.
pub(crate) fn read(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    if let Some(content) = carried::file(path) {
        let is_within = u64::try_from(content.len()).is_ok_and(|len| len <= len_max);
        let too_long = || io::Error::new(io::ErrorKind::InvalidData, "the file is too long");
        return is_within.then(|| content.to_vec()).ok_or_else(too_long);
    }
    RealDisk.read(&regular(path)?, len_max)
}

/// The file, for reading.
pub(crate) fn open(path: &Path) -> io::Result<Arc<dyn File>> {
    if let Some(spilled) = carried::spilled(path) {
        return RealDisk.open(&spilled?, Open::Read);
    }
    RealDisk.open(&regular(path)?, Open::Read)
}

/// Where `path` would be written. Replacing a file renames another over it, which would turn a
/// device such as `/dev/null` into that file for every program on the machine.
pub(crate) fn replaceable(path: &Path) -> io::Result<PathBuf> {
    if let Some(written) = carried::written(path) {
        return Ok(written);
    }
    match regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path),
        found => found,
    }
}

/// The regular file behind `path` and its links.
pub(crate) fn regular(path: &Path) -> io::Result<PathBuf> {
    carried::may_touch(path)?;
    if std::fs::metadata(path)?.is_file() {
        std::fs::canonicalize(path)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}
