//! What a running journal tells about itself: plain numbers, for whoever prints them.
//!
//! An append pays for two readings of the clock and a handful of relaxed additions once per commit
//! group. Nothing here takes a lock that an append waits for longer than a look at the catalog.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{Ceiling, Counts, Lsn, core::Core, counts::add, hold, retention::Usage};

/// Upper bounds of the buckets of a sync's duration, in microseconds: doubling from what a disk with
/// a protected cache takes to what a failing one does. What takes longer is in the last bucket.
pub const SYNC_MICROS: &[u64] = &[
    32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144,
    524_288, 1_048_576, 4_194_304, 16_777_216,
];
/// Upper bounds of the buckets of records in a batch.
pub const BATCH_RECORDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];
/// Upper bounds of the buckets of bytes of a batch, header and padding included.
pub const BATCH_BYTES: &[u64] = &[
    128, 256, 512, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
];

/// How often something had which size, since the journal was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Inclusive upper bounds, ascending.
    pub bounds: &'static [u64],
    /// One per bound, not cumulative, and one more for what is above all of them.
    pub counts: Vec<u64>,
    /// Of everything observed, in the unit of the bounds.
    pub sum: u64,
}

/// A named pin: how far its holder is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub name: String,
    /// Where the pin of this name that holds most begins.
    pub from: Lsn,
    /// Records from there up to the safe point.
    pub records: u64,
}

/// One look at an open journal. Each number is true of a moment, all of them not of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    pub counts: Counts,
    /// Microseconds a commit group waited for the disk: its data sync.
    pub sync_micros: Histogram,
    pub batch_records: Histogram,
    pub batch_bytes: Histogram,
    /// The retained range, both inclusive; empty when `first_retained` is above `safe_point`.
    pub first_retained: Lsn,
    pub safe_point: Lsn,
    pub segments: usize,
    /// Bytes of all segment files, prepared space included; `None` when the directory could not be
    /// listed.
    pub retained_bytes: Option<u64>,
    /// Bytes of all files of the directory.
    pub used_bytes: Option<u64>,
    pub ceiling: Option<Ceiling>,
    /// By name.
    pub readers: Vec<Backlog>,
    /// Pins without a name: reads under way, and holders that did not give one.
    pub pins_unnamed: usize,
    /// The last append that needed space was refused for want of it on the disk.
    pub is_disk_full: bool,
    /// Appends are refused, or the oldest records dropped, for the ceiling.
    pub is_at_ceiling: bool,
    /// There is space for a closing record on a full disk.
    pub has_reserve: bool,
    pub is_poisoned: bool,
}

#[derive(Debug)]
pub(crate) struct Buckets {
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub(crate) fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        add(&self.counts[bucket], 1);
        add(&self.sum, value);
    }

    fn read(&self) -> Histogram {
        Histogram {
            bounds: self.bounds,
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Gauges {
    sync_micros: Buckets,
    batch_records: Buckets,
    batch_bytes: Buckets,
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            sync_micros: Buckets::new(SYNC_MICROS),
            batch_records: Buckets::new(BATCH_RECORDS),
            batch_bytes: Buckets::new(BATCH_BYTES),
        }
    }
}

impl Gauges {
    /// A commit group became durable; `took` is what it waited for the disk.
    pub(crate) fn batch(&self, records: u64, bytes: u64, took: Duration) {
        self.sync_micros
            .observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.batch_records.observe(records);
        self.batch_bytes.observe(bytes);
    }
}

impl Core {
    pub(crate) fn metrics(&self) -> Metrics {
        let usage = Usage::of(&*self.disk, &self.dir).ok();
        let safe_point = self.tail.visible();
        let mut lowest: BTreeMap<Arc<str>, Lsn> = BTreeMap::new();
        let mut pins_unnamed = 0;
        let (first_retained, segments) = {
            let catalog = hold(&self.catalog);
            for held in catalog.held() {
                match held.name {
                    // Ascending: the first of a name holds most.
                    Some(name) => {
                        lowest.entry(name).or_insert(held.from);
                    }
                    None => pins_unnamed += 1,
                }
            }
            (catalog.first_retained(), catalog.segments().len())
        };
        let readers = lowest
            .into_iter()
            .map(|(name, from)| Backlog {
                name: name.as_ref().to_owned(),
                from,
                records: safe_point.next().get().saturating_sub(from.get()),
            })
            .collect();
        let is = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
        Metrics {
            counts: self.counters.read(),
            sync_micros: self.gauges.sync_micros.read(),
            batch_records: self.gauges.batch_records.read(),
            batch_bytes: self.gauges.batch_bytes.read(),
            first_retained,
            safe_point,
            segments,
            retained_bytes: usage.as_ref().map(Usage::retained),
            used_bytes: usage.as_ref().map(|usage| usage.total),
            ceiling: self.ceiling,
            readers,
            pins_unnamed,
            is_disk_full: is(&self.space.is_disk_full),
            is_at_ceiling: is(&self.space.is_at_ceiling),
            has_reserve: is(&self.space.has_reserve),
            is_poisoned: self.is_poisoned(),
        }
    }
}
