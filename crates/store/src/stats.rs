//! What a store says of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use wal::Lsn;

use crate::{Commit, Retained};

/// A picture of a store; its numbers are read one after the other, not at one moment. Of an engine's
/// store nothing is known here: all of it is zero.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub visible: Commit,
    pub retained: Retained,
    pub checkpoint: Lsn,
    /// Journal bytes that the next open would replay.
    pub journal_bytes_since_checkpoint: u64,
    /// Since this open.
    pub commits: u64,
    pub groups: u64,
    pub conflicts: u64,
    /// Positions held by snapshots and transactions, and the oldest of them.
    pub held: usize,
    pub held_oldest: Option<Lsn>,
    pub cache_bytes: u64,
    pub tables: Vec<TableStats>,
}

#[derive(Clone, Debug)]
pub struct TableStats {
    pub name: String,
    pub floor: Commit,
    /// Approximate; deletions and past versions are among them.
    pub versions: usize,
    pub files: usize,
    pub disk_bytes: u64,
    pub memory_bytes: u64,
    /// Sorted runs not merged yet; each is one more place that a read looks into.
    pub young_runs: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    groups: AtomicU64,
    conflicts: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn committed(&self, commits: usize, bytes: u64) {
        self.commits.fetch_add(commits as u64, Ordering::Relaxed);
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(crate) fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    pub(crate) fn conflicts(&self) -> u64 {
        self.conflicts.load(Ordering::Relaxed)
    }

    /// Journal bytes written since this open.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
