//! One table: an LSM tree in which the sequence number of a version is the position of its
//! commit in the journal.
//!
//! What always holds: the tree has every version of the retained history up to some position,
//! and nothing above the journal's safe point, because only acknowledged commits are applied.
//!
//! How the library is used, and why:
//! - A version's sequence number is `SEQNO_BASE` + LSN. The library numbers its own snapshots of
//!   the file set from a counter that starts at 0 with each open, and a read at a sequence number
//!   picks the newest file set below it. All our reads are above the base, so they all use the
//!   newest file set, and passing the base as the library's garbage threshold lets it drop old
//!   file sets while it keeps every version of every key.
//! - The library's own garbage collection is therefore never used. It drops a version as soon as
//!   it is older than the threshold and has a newer one, even if the newer one is above the
//!   threshold, which is right for file-set snapshots and wrong for time travel. [`Sweep`] does it.
//! - A compaction filter sees neither sequence numbers nor tombstones, so a stored value starts
//!   with eight bytes that hold its LSN and whether it is live, and a deletion is such a value.

use std::{
    io::Read,
    ops::RangeInclusive,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lsm_tree::{
    AbstractTree, AnyTree, Cache, CompressionType, Config, DescriptorTable, Guard, IterGuardImpl,
    Memtable, SequenceNumberCounter, Slice, ValueType,
    compaction::Leveled,
    config::{CompressionPolicy, HashRatioPolicy, PinningPolicy},
};
use wal::Lsn;

use crate::{
    Bytes, Error, Keys, Kind,
    sweep::{Rule, Sweep},
};

/// File sets that one process can number before they would meet versions; at one a millisecond,
/// seven weeks of nothing else. Small, because it is part of every stored version.
pub(crate) const SEQNO_BASE: u64 = 1 << 32;
/// LSN and the live bit, little-endian.
pub(crate) const VERSION_LEN: usize = 8;
/// Size at which a table file is closed. The library's default.
const TABLE_FILE_BYTES: u64 = 64 << 20;

/// Memory and files that all trees of a store share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) descriptors: Arc<DescriptorTable>,
    pub(crate) compress: bool,
    pub(crate) pin_indexes: bool,
}

pub(crate) struct Tree {
    name: String,
    tree: lsm_tree::Tree,
    /// What [`Sweep`] reads: raised only after the manifest that says so is durable.
    swept: Arc<AtomicU64>,
}

/// The version that a read found.
pub(crate) struct Found {
    pub(crate) lsn: Lsn,
    /// `None` when the key was deleted.
    pub(crate) value: Option<Bytes>,
}

impl Tree {
    /// Opens the tree in `dir`, making an empty one when there is none.
    pub(crate) fn open(
        name: &str,
        dir: &Path,
        shared: &Shared,
        rule: Rule,
        swept: u64,
    ) -> Result<Self, Error> {
        let swept = Arc::new(AtomicU64::new(swept));
        let opened = configured(dir, shared)
            .with_compaction_filter_factory(Some(Arc::new(Sweep::new(rule, Arc::clone(&swept)))))
            .open()
            .map_err(|error| Error::table(format!("opening table {name:?}"), error))?;
        let AnyTree::Standard(tree) = opened else {
            let message = format!("table {name:?} keeps its values elsewhere");
            return Err(Error::new(Kind::Corrupt, message));
        };
        Ok(Self {
            name: name.to_owned(),
            tree,
            swept,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The value of `key` at `at`.
    pub(crate) fn get(&self, key: &[u8], at: Lsn) -> Result<Option<Bytes>, Error> {
        Ok(self.find(key, at)?.and_then(|found| found.value))
    }

    /// The newest version of `key` at or below `at`, deletions included.
    pub(crate) fn find(&self, key: &[u8], at: Lsn) -> Result<Option<Found>, Error> {
        // The library asserts on an empty key; nothing can be stored under one.
        if key.is_empty() {
            return Ok(None);
        }
        match self.tree.get(key, read_seqno(at)) {
            Ok(Some(stored)) => self.found(stored).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(self.failed("reading", error)),
        }
    }

    /// Live keys and values in `keys` at `at`.
    pub(crate) fn range(self: &Arc<Self>, keys: &Keys, at: Lsn) -> TreeRange {
        let inner = if keys.is_empty() {
            None
        } else {
            Some(
                self.tree
                    .range::<&[u8], _>(keys.bounds(), read_seqno(at), None),
            )
        };
        TreeRange {
            tree: Arc::clone(self),
            inner,
        }
    }

    /// Where versions are written; valid until the next [`Tree::rotate`].
    pub(crate) fn memory(&self) -> Memory {
        Memory(self.tree.active_memtable())
    }

    /// Bytes written since the last rotation.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.tree.active_memtable().size()
    }

    /// Ends the present memory: it only waits to be flushed. Must not run while a commit is
    /// applied, so that what a flush makes durable is whole commits up to a position.
    pub(crate) fn rotate(&self) {
        self.tree.rotate_memtable();
    }

    /// Writes all ended memory to table files, durably.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let lock = self.tree.get_flush_lock();
        match self.tree.flush(&lock, SEQNO_BASE) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("flushing", error)),
        }
    }

    /// One step of compaction; false when there was nothing to do.
    pub(crate) fn compact_step(&self) -> Result<bool, Error> {
        let before = self.tree.current_version().id();
        let strategy = Arc::new(Leveled::default().with_table_target_size(TABLE_FILE_BYTES));
        self.tree
            .compact(strategy, SEQNO_BASE)
            .map_err(|error| self.failed("compacting", error))?;
        Ok(self.tree.current_version().id() != before)
    }

    /// Merges all table files into one sorted run.
    pub(crate) fn compact_all(&self) -> Result<(), Error> {
        self.tree
            .major_compact(TABLE_FILE_BYTES, SEQNO_BASE)
            .map_err(|error| self.failed("compacting", error))
    }

    /// The newest position in the table files; everything of this table at or below it is there.
    pub(crate) fn persisted(&self) -> Lsn {
        let seqno = self.tree.get_highest_persisted_seqno().unwrap_or(0);
        Lsn::new(seqno.saturating_sub(SEQNO_BASE))
    }

    /// Lets compaction drop what no read at or above `floor` can see. The caller has made the
    /// floor durable: after a crash nothing may read below it.
    pub(crate) fn sweep_below(&self, floor: u64) {
        self.swept.fetch_max(floor, Ordering::Release);
    }

    pub(crate) fn waiting_flushes(&self) -> usize {
        self.tree.sealed_memtable_count()
    }

    pub(crate) fn young_runs(&self) -> usize {
        self.tree.l0_run_count()
    }

    /// The files that hold the tree now. They stay, whatever compaction does, until it is dropped;
    /// their list may be replaced.
    pub(crate) fn held_files(&self) -> HeldFiles {
        let version = self.tree.current_version();
        HeldFiles {
            list: version.id(),
            tables: version.iter_tables().cloned().collect(),
        }
    }

    pub(crate) fn files(&self) -> usize {
        self.tree.table_count()
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.tree.disk_space()
    }

    /// Versions, deletions among them.
    pub(crate) fn versions(&self) -> usize {
        self.tree.approximate_len()
    }

    fn found(&self, stored: Slice) -> Result<Found, Error> {
        let Some((lsn, live)) = split(&stored) else {
            let message = format!(
                "table {:?} holds a value of {} bytes",
                self.name,
                stored.len()
            );
            return Err(Error::new(Kind::Corrupt, message));
        };
        let value = live.then(|| Bytes::after(stored, VERSION_LEN));
        Ok(Found { lsn, value })
    }

    fn failed(&self, attempted: &str, error: lsm_tree::Error) -> Error {
        Error::table(format!("{attempted} table {:?}", self.name), error)
    }
}

/// Table files of one moment.
pub(crate) struct HeldFiles {
    /// Number of their list.
    pub(crate) list: u64,
    /// As a read looks into them: of any key, newer versions before older ones.
    pub(crate) tables: Vec<lsm_tree::Table>,
}

impl HeldFiles {
    /// The newest position in them.
    pub(crate) fn reaches(&self) -> Lsn {
        let seqno = self.tables.iter().map(lsm_tree::Table::get_highest_seqno);
        Lsn::new(seqno.max().unwrap_or(0).saturating_sub(SEQNO_BASE))
    }

    /// Hands `take` every version in `versions`, key and stored value: of a key, the older files first,
    /// and in a file the newer versions first. Reads only files that have some, not through the cache.
    pub(crate) fn versions(
        &self,
        name: &str,
        versions: RangeInclusive<Lsn>,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let reading =
            |error| Error::table(format!("reading all versions of table {name:?}"), error);
        let (from, to) = (seqno(*versions.start()), seqno(*versions.end()));
        for table in self.tables.iter().rev() {
            if table.get_highest_seqno() < from {
                continue;
            }
            for item in table.scan().map_err(reading)? {
                let item = item.map_err(reading)?;
                if (from..=to).contains(&item.key.seqno) {
                    take(&item.key.user_key, &item.value)?;
                }
            }
        }
        Ok(())
    }
}

/// The part of a tree that is still in memory.
pub(crate) struct Memory(Arc<Memtable>);

impl Memory {
    pub(crate) fn set(&self, key: &Slice, value: Option<&[u8]>, lsn: Lsn) {
        let header = version(lsn, value.is_some()).to_le_bytes();
        let value = value.unwrap_or_default();
        let stored = Slice::from_reader(&mut header.chain(value), VERSION_LEN + value.len())
            .expect("reading from memory does not fail");
        self.0.insert(lsm_tree::InternalValue::from_components(
            key.clone(),
            stored,
            seqno(lsn),
            ValueType::Value,
        ));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.size()
    }
}

/// Holds the file set that it reads, so nothing it needs is removed beneath it.
pub(crate) struct TreeRange {
    tree: Arc<Tree>,
    inner: Option<Box<dyn DoubleEndedIterator<Item = IterGuardImpl> + Send>>,
}

impl TreeRange {
    /// The next key and its newest version, deleted ones too.
    pub(crate) fn next_found(&mut self) -> Option<Result<(Bytes, Found), Error>> {
        let found = self
            .inner
            .as_mut()?
            .next()?
            .into_inner()
            .map_err(|error| self.tree.failed("reading", error))
            .and_then(|(key, stored)| Ok((key.into(), self.tree.found(stored)?)));
        Some(found)
    }

    fn live(&self, guard: IterGuardImpl) -> Option<Result<(Bytes, Bytes), Error>> {
        let found = guard
            .into_inner()
            .map_err(|error| self.tree.failed("reading", error))
            .and_then(|(key, stored)| Ok((key, self.tree.found(stored)?)));
        match found {
            Ok((key, found)) => found.value.map(|value| Ok((key.into(), value))),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Iterator for TreeRange {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let guard = self.inner.as_mut()?.next()?;
            if let Some(item) = self.live(guard) {
                return Some(item);
            }
        }
    }
}

impl DoubleEndedIterator for TreeRange {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let guard = self.inner.as_mut()?.next_back()?;
            if let Some(item) = self.live(guard) {
                return Some(item);
            }
        }
    }
}

fn configured(dir: &Path, shared: &Shared) -> Config {
    let compression = if shared.compress {
        // Young files are soon rewritten, so compressing them is work done twice.
        CompressionPolicy::new([CompressionType::None, CompressionType::Lz4])
    } else {
        CompressionPolicy::all(CompressionType::None)
    };
    // The upper levels are small. The last ones hold nearly everything: either all of their indexes
    // and filters are in memory, or they are cut into blocks that go through the cache.
    let (pinned, in_pieces) = if shared.pin_indexes {
        (PinningPolicy::all(true), PinningPolicy::all(false))
    } else {
        (
            PinningPolicy::new([true, true, false]),
            PinningPolicy::new([false, false, true]),
        )
    };
    Config::new(
        dir,
        SequenceNumberCounter::default(),
        SequenceNumberCounter::default(),
    )
    .use_cache(Arc::clone(&shared.cache))
    .use_descriptor_table(Some(Arc::clone(&shared.descriptors)))
    .data_block_compression_policy(compression)
    // One bucket per entry: a seventh off a random read for half a per cent of space, measured.
    .data_block_hash_ratio_policy(HashRatioPolicy::all(1.0))
    .index_block_pinning_policy(pinned.clone())
    .filter_block_pinning_policy(pinned)
    .index_block_partitioning_policy(in_pieces.clone())
    .filter_block_partitioning_policy(in_pieces)
}

fn seqno(lsn: Lsn) -> u64 {
    SEQNO_BASE + lsn.get()
}

/// The library sees versions below the number that it is given.
fn read_seqno(at: Lsn) -> u64 {
    seqno(at) + 1
}

fn version(lsn: Lsn, live: bool) -> u64 {
    lsn.get() << 1 | u64::from(live)
}

/// LSN and live bit of a stored value.
pub(crate) fn split(stored: &[u8]) -> Option<(Lsn, bool)> {
    let version = u64::from_le_bytes(*stored.first_chunk::<VERSION_LEN>()?);
    Some((Lsn::new(version >> 1), version & 1 == 1))
}
