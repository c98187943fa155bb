//! What a journal counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub appends: u64,
    pub records: u64,
    /// Commit groups: batches written.
    pub groups: u64,
    /// Data syncs of commit groups, the ones that an append waits for: one per group, two in strict
    /// mode.
    pub syncs: u64,
    /// Bytes of batches written.
    pub bytes: u64,
    /// Times the safe-point file was brought up to date.
    pub settles: u64,
    /// Segments begun.
    pub rolls: u64,
    /// Of these, those in the file of a released segment.
    pub recycled: u64,
    /// Times an appender had to wait for space that was not prepared.
    pub space_waits: u64,
    /// Torn tails cut by opening.
    pub repairs: u64,
    pub poisonings: u64,
    /// Appends refused for want of space, on the disk or below the ceiling.
    pub refused: u64,
    /// Those of them that were refused for the ceiling.
    pub refused_for_ceiling: u64,
    /// Segments, their records and the bytes of their files that were dropped for the ceiling.
    pub dropped_segments: u64,
    pub dropped_records: u64,
    pub dropped_bytes: u64,
    /// Segments and the bytes of their files that went by the limits of the retention.
    pub retention_segments: u64,
    pub retention_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appends: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) settles: AtomicU64,
    pub(crate) rolls: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) space_waits: AtomicU64,
    pub(crate) repairs: AtomicU64,
    pub(crate) poisonings: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) refused_for_ceiling: AtomicU64,
    pub(crate) dropped_segments: AtomicU64,
    pub(crate) dropped_records: AtomicU64,
    pub(crate) dropped_bytes: AtomicU64,
    pub(crate) retention_segments: AtomicU64,
    pub(crate) retention_bytes: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, more: u64) {
    // Relaxed: counters are told, not reasoned with.
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            appends: get(&self.appends),
            records: get(&self.records),
            groups: get(&self.groups),
            syncs: get(&self.syncs),
            bytes: get(&self.bytes),
            settles: get(&self.settles),
            rolls: get(&self.rolls),
            recycled: get(&self.recycled),
            space_waits: get(&self.space_waits),
            repairs: get(&self.repairs),
            poisonings: get(&self.poisonings),
            refused: get(&self.refused),
            refused_for_ceiling: get(&self.refused_for_ceiling),
            dropped_segments: get(&self.dropped_segments),
            dropped_records: get(&self.dropped_records),
            dropped_bytes: get(&self.dropped_bytes),
            retention_segments: get(&self.retention_segments),
            retention_bytes: get(&self.retention_bytes),
        }
    }
}
