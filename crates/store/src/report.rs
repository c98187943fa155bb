//! What an open tells of itself.

use std::fmt;

use wal::Lsn;

use crate::Commit;

/// What an open found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The directory was made.
    pub created: bool,
    /// Everything up to here was in table files.
    pub checkpoint: Lsn,
    /// First and last position that was read from the journal; `None` when nothing was.
    pub replayed: Option<(Lsn, Lsn)>,
    /// Records read, and those of them that are commits of this store.
    pub records: u64,
    pub commits: u64,
    /// Changes that were not in table files yet.
    pub changes: u64,
    pub bytes: u64,
    /// What is visible.
    pub visible: Commit,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.created {
            write!(f, "created, ")?;
        }
        write!(f, "opened at checkpoint lsn {}", self.checkpoint)?;
        match self.replayed {
            None => write!(f, ", nothing to replay"),
            Some((first, last)) => write!(
                f,
                ", replayed lsn {first} to {last}: {} commits in {} bytes, {} changes were not in \
                 table files yet",
                self.commits, self.bytes, self.changes
            ),
        }
    }
}
