//! Evidence that this node ran before: data that each plane registers, not a list kept here.

use std::{io, path::PathBuf};

use world::{Disk, disk::EntryKind};

/// A trace that only a node which ran before can have left. A journal whose safe-point file is
/// missing opens as a first run only when no evidence is found.
///
/// Register only what is made after the journal's first open returned; a consumer's cursor is no
/// evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What it is, for the error message.
    pub what: String,
    pub path: PathBuf,
    pub sign: Sign,
}

/// When a path counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Present,
    /// A file with bytes, or a directory with names.
    NotEmpty,
}

impl Evidence {
    pub fn new(what: impl Into<String>, path: impl Into<PathBuf>, sign: Sign) -> Self {
        Self {
            what: what.into(),
            path: path.into(),
            sign,
        }
    }

    pub(crate) fn is_found(&self, disk: &dyn Disk) -> io::Result<bool> {
        let Some(entry) = disk.stat(&self.path)? else {
            return Ok(false);
        };
        Ok(match (self.sign, entry.kind) {
            (Sign::NotEmpty, EntryKind::File) => entry.len > 0,
            (Sign::NotEmpty, EntryKind::Dir) => !disk.list(&self.path)?.is_empty(),
            (Sign::Present, _) | (Sign::NotEmpty, EntryKind::Other) => true,
        })
    }
}
