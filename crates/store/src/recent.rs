//! Optimistic validation: did anyone write what a transaction has read?
//!
//! A transaction that was begun at S may commit when no commit above S wrote a key that it read,
//! whether it found something there or not, or any key inside a range that it read. With that,
//! the order of the journal is a serial order: each transaction could have run alone at its place.
//!
//! Only commits that a transaction in flight may still collide with are kept. When they are too
//! many, the oldest are forgotten and transactions begun before them conflict: late, never wrong.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use wal::Lsn;

use crate::{Error, Keys, Kind, TableId, writes::Writes};

/// Commits kept for validation. A transaction that lasts longer than so many others is a batch
/// job, and better run as a snapshot read and a small write. Arbitrary.
const COMMITS_MAX: usize = 1 << 16;
/// Bytes of keys and values kept for validation; a small part of a site's memory. Arbitrary.
const BYTES_MAX: usize = 16 << 20;
/// Keys and ranges that one transaction may read: 8 MiB of hashes. Arbitrary.
pub(crate) const POINTS_MAX: usize = 1 << 20;
pub(crate) const RANGES_MAX: usize = 1 << 14;

/// Names a key by 64 bits. Two keys with one name make a needless conflict, never a missed one.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyHasher(RandomState);

impl KeyHasher {
    pub(crate) fn name(&self, table: TableId, key: &[u8]) -> u64 {
        self.0.hash_one((table, key))
    }
}

/// What a transaction has read.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    points: HashSet<u64>,
    ranges: Vec<(TableId, Keys)>,
}

impl Reads {
    pub(crate) fn point(&mut self, name: u64) -> Result<(), Error> {
        if self.points.len() >= POINTS_MAX {
            let message = format!("transaction reads more than {POINTS_MAX} keys");
            return Err(Error::new(Kind::Invalid, message));
        }
        self.points.insert(name);
        Ok(())
    }

    pub(crate) fn range(&mut self, table: TableId, keys: Keys) -> Result<(), Error> {
        if self.ranges.len() >= RANGES_MAX {
            let message = format!("transaction reads more than {RANGES_MAX} ranges");
            return Err(Error::new(Kind::Invalid, message));
        }
        self.ranges.push((table, keys));
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty()
    }
}

/// The commits above the oldest transaction in flight, oldest first.
#[derive(Debug)]
pub(crate) struct Recent {
    hasher: KeyHasher,
    commits: VecDeque<(Lsn, Arc<Writes>)>,
    bytes: usize,
    /// The last writer of each key in the first `indexed` commits. Made when it is first needed:
    /// a load without reads never pays for it.
    writers: HashMap<u64, Lsn>,
    indexed: usize,
    /// Every commit above this position is among `commits`.
    complete_above: Lsn,
}

impl Recent {
    pub(crate) fn new(hasher: KeyHasher, visible: Lsn) -> Self {
        Self {
            hasher,
            commits: VecDeque::new(),
            bytes: 0,
            writers: HashMap::new(),
            indexed: 0,
            complete_above: visible,
        }
    }

    /// Refuses a transaction begun at `begun` when a commit above it wrote what it read.
    pub(crate) fn validate(&mut self, begun: Lsn, reads: &Reads) -> Result<(), Error> {
        if reads.is_empty() {
            return Ok(());
        }
        if begun < self.complete_above {
            let message = format!(
                "transaction begun at lsn {begun} is too old to validate, commits are kept above \
                 lsn {}",
                self.complete_above
            );
            return Err(Error::new(Kind::Conflict, message));
        }
        if self.commits.back().is_none_or(|(last, _)| *last <= begun) {
            return Ok(());
        }
        if !reads.points.is_empty() {
            self.index();
        }
        let writer = reads
            .points
            .iter()
            .filter_map(|name| self.writers.get(name))
            .find(|writer| **writer > begun);
        if let Some(writer) = writer {
            return Err(conflict(begun, *writer, "a key"));
        }
        let first = self.commits.partition_point(|(lsn, _)| *lsn <= begun);
        for (lsn, writes) in self.commits.range(first..) {
            for (table, keys) in &reads.ranges {
                if writes.range(*table, keys).next().is_some() {
                    return Err(conflict(begun, *lsn, "inside a range"));
                }
            }
        }
        Ok(())
    }

    /// Nothing is known of the commits up to `visible`: others made them.
    pub(crate) fn restart(&mut self, visible: Lsn) {
        *self = Self::new(self.hasher.clone(), visible);
    }

    /// Adds a commit above all others.
    pub(crate) fn push(&mut self, lsn: Lsn, writes: Arc<Writes>) {
        self.bytes += writes.bytes();
        self.commits.push_back((lsn, writes));
        while self.commits.len() > COMMITS_MAX || self.bytes > BYTES_MAX {
            self.pop_front();
        }
    }

    /// Takes back the commits from `first` on: their append failed, so they never were.
    pub(crate) fn take_back(&mut self, first: Lsn) {
        while self.commits.back().is_some_and(|(lsn, _)| *lsn >= first) {
            let (_, writes) = self.commits.pop_back().expect("just seen");
            self.bytes -= writes.bytes();
        }
        // Earlier writers of the same keys were overwritten in the index.
        self.writers.clear();
        self.indexed = 0;
    }

    /// Forgets what no transaction can collide with: all are begun at `oldest` or above.
    pub(crate) fn prune(&mut self, oldest: Lsn) {
        while self.commits.front().is_some_and(|(lsn, _)| *lsn <= oldest) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        let Some((lsn, writes)) = self.commits.pop_front() else {
            return;
        };
        self.bytes -= writes.bytes();
        self.complete_above = lsn;
        if self.indexed == 0 {
            return;
        }
        self.indexed -= 1;
        if self.indexed == 0 {
            self.writers.clear();
            return;
        }
        for (table, keys) in writes.tables() {
            for key in keys.keys() {
                let name = self.hasher.name(table, key);
                if self.writers.get(&name) == Some(&lsn) {
                    self.writers.remove(&name);
                }
            }
        }
    }

    fn index(&mut self) {
        for (lsn, writes) in self.commits.range(self.indexed..) {
            for (table, keys) in writes.tables() {
                for key in keys.keys() {
                    self.writers.insert(self.hasher.name(table, key), *lsn);
                }
            }
        }
        self.indexed = self.commits.len();
    }
}

fn conflict(begun: Lsn, writer: Lsn, what: &str) -> Error {
    let message = format!(
        "transaction begun at lsn {begun} read {what} that lsn {writer} wrote, run it again"
    );
    Error::new(Kind::Conflict, message)
}
