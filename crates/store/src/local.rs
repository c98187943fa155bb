//! The store of this machine: what its handles share, and what can be asked of it.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use lsm_tree::Cache;
use wal::{Journal, Lsn};
use world::{Clock, Disk, Timestamp, disk::Lock};

use crate::{
    Commit, Error, Feed, History, Kind, Options, RecoveryReport, Retained, Snapshot, Stats,
    TableId, TableStats, Transaction,
    checkpoint::Checkpointer,
    commit::CommitLine,
    follow::{self, Following},
    history::{CommitTimes, moment},
    horizon::{Holder, Horizon},
    once::OnceKeys,
    recent::KeyHasher,
    recovery,
    stats::Counters,
    tree::Tree,
    upkeep::Upkeep,
};

/// The id of the first table; lower ones are the store's own.
pub(crate) const FIRST_TABLE: u32 = 16;

/// Who commits when a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    Leading,
    Following,
}

/// Tables over a journal, in this process. Clones are handles of the same one; when the last is
/// dropped its threads end, without a checkpoint: what was committed is in the journal.
#[derive(Clone)]
pub(crate) struct Local(Arc<Running>);

struct Running {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What handles, transactions, snapshots and feeds share. The directory stays locked until the
/// last of them is gone.
pub(crate) struct Inner {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) created: Timestamp,
    /// In order of their ids, from [`FIRST_TABLE`] on without a gap.
    pub(crate) tables: Vec<TableState>,
    pub(crate) times: CommitTimes,
    pub(crate) once: OnceKeys,
    pub(crate) cache: Arc<Cache>,
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) hasher: KeyHasher,
    pub(crate) line: CommitLine,
    pub(crate) following: Following,
    pub(crate) counters: Counters,
    pub(crate) upkeep: Upkeep,
    pub(crate) checkpointer: Mutex<Checkpointer>,
    /// Held while commits are applied, so that what is published is what the memories hold.
    pub(crate) applying: Mutex<()>,
    pub(crate) is_closed: AtomicBool,
    /// Held for its drop.
    pub(crate) _lock: Box<dyn Lock>,
}

pub(crate) struct TableState {
    pub(crate) id: TableId,
    pub(crate) history: History,
    pub(crate) tree: Arc<Tree>,
    /// The oldest position that may be read, and its time. Raised under [`Horizon::held`].
    floor: AtomicU64,
    floor_time: AtomicU64,
}

impl Local {
    pub(crate) fn open(
        options: Options,
        journal: Arc<dyn Journal>,
        begins: Begins,
    ) -> Result<(Self, RecoveryReport), Error> {
        let (inner, report) = recovery::open(options, journal, begins)?;
        let inner = Arc::new(inner);
        let mut threads = Upkeep::start(&inner)?;
        if begins == Begins::Following {
            threads.push(follow::start(&inner).inspect_err(|_| inner.upkeep.stop())?);
        }
        tracing::info!(dir = %inner.dir.display(), "store {report}");
        let running = Running {
            inner,
            threads: Mutex::new(threads),
        };
        Ok((Self(Arc::new(running)), report))
    }

    pub(crate) fn table(&self, name: &str) -> Result<TableId, Error> {
        self.inner()
            .tables
            .iter()
            .find(|table| table.tree.name() == name)
            .map(|table| table.id)
            .ok_or_else(|| Error::new(Kind::Invalid, format!("no table {name:?} in this store")))
    }

    pub(crate) fn table_name(&self, table: TableId) -> Result<&str, Error> {
        Ok(self.inner().table(table)?.tree.name())
    }

    pub(crate) fn begin(&self) -> Result<Transaction, Error> {
        self.inner().open()?;
        let (hold, commit) = self.inner().horizon.hold_visible(Holder::Transaction);
        Ok(Transaction::here(Arc::clone(self.inner()), hold, commit))
    }

    pub(crate) fn newest(&self) -> Commit {
        self.inner().horizon.visible()
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.inner().open()?;
        let (hold, commit) = self.inner().horizon.hold_visible(Holder::Snapshot);
        Ok(Snapshot::here(Arc::clone(self.inner()), hold, commit.time))
    }

    pub(crate) fn snapshot_at(&self, lsn: Lsn) -> Result<Snapshot, Error> {
        let inner = self.inner();
        inner.open()?;
        let mut held = inner.horizon.held();
        let retained = inner.retained();
        if lsn < retained.from.lsn || lsn > retained.to.lsn {
            return Err(Error::out_of_range(format!("lsn {lsn}"), retained));
        }
        let hold = inner.horizon.hold(&mut held, lsn, Holder::Snapshot);
        drop(held);
        let commit = inner.times.at_or_below(lsn, retained.to.lsn)?;
        let time = commit.map_or(retained.from.time, |commit| commit.time);
        Ok(Snapshot::here(Arc::clone(inner), hold, time))
    }

    pub(crate) fn snapshot_at_time(&self, time: Timestamp) -> Result<Snapshot, Error> {
        let inner = self.inner();
        inner.open()?;
        let now = inner.clock.now();
        if time >= inner.horizon.visible().time && time <= now {
            inner.horizon.ask(time);
            // A group that was dated before we asked may still be on its way; wait for it.
            drop(inner.line.writer());
        }
        // Taken first: who leads in between has dates above what was visible.
        let follows = inner.following.is_on();
        let retained = inner.retained();
        let newest = match follows {
            true => retained.to.time,
            false => now.max(retained.to.time),
        };
        if time < retained.from.time || time > newest {
            return Err(Error::out_of_range(moment(time), retained));
        }
        let commit = inner.times.not_after(time, retained.to.lsn)?;
        let lsn = commit.map_or(Lsn::ZERO, |commit| commit.lsn);
        self.snapshot_at(lsn.max(retained.from.lsn))
    }

    pub(crate) fn retained(&self) -> Retained {
        self.inner().retained()
    }

    pub(crate) fn outcome_of(&self, key: &[u8]) -> Result<Option<Commit>, Error> {
        let inner = self.inner();
        inner.open()?;
        inner.once.outcome(key, inner.horizon.visible())
    }

    pub(crate) fn feed(&self, from: Lsn) -> Result<Feed, Error> {
        self.inner().open()?;
        Feed::new(Arc::clone(self.inner()), from)
    }

    pub(crate) fn checkpoint(&self) -> Result<Commit, Error> {
        self.inner().open()?;
        self.inner().checkpoint()
    }

    pub(crate) fn compact(&self) -> Result<(), Error> {
        let inner = self.inner();
        inner.open()?;
        inner.checkpoint()?;
        for tree in inner.trees() {
            inner.upkeep.check_space(inner)?;
            tree.compact_all()?;
        }
        Ok(())
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        let inner = self.inner();
        if inner.is_closed.swap(true, Ordering::AcqRel) {
            return Err(Error::closed());
        }
        // After the group that is under way.
        inner.line.writer().fail(&Error::closed());
        let checkpointed = inner.checkpoint();
        self.0.stop();
        checkpointed.map(drop)
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        let inner = self.inner();
        let failed = inner.line.writer().failed().cloned();
        failed
            .or_else(|| inner.upkeep.failed())
            .or_else(|| inner.following.failed())
    }

    pub(crate) fn lead(&self) -> Result<(), Error> {
        self.inner().open()?;
        self.inner().take_over()
    }

    pub(crate) fn stats(&self) -> Stats {
        let inner = self.inner();
        // Let go before the checkpointer is asked for: a checkpoint takes them the other way round.
        let (held, held_oldest) = {
            let held = inner.horizon.held();
            (held.count(), held.oldest())
        };
        Stats {
            visible: inner.horizon.visible(),
            retained: inner.retained(),
            checkpoint: inner.checkpointer().checkpoint(),
            journal_bytes_since_checkpoint: inner.upkeep.since_checkpoint(),
            commits: inner.counters.commits(),
            groups: inner.counters.groups(),
            conflicts: inner.counters.conflicts(),
            held,
            held_oldest,
            cache_bytes: inner.cache.size(),
            tables: inner.tables.iter().map(TableState::stats).collect(),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0.inner
    }
}

impl Running {
    fn stop(&self) {
        self.inner.upkeep.stop();
        let threads = std::mem::take(
            &mut *self
                .threads
                .lock()
                .expect("never poisoned: holds no code that panics"),
        );
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    pub(crate) fn open(&self) -> Result<(), Error> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        Ok(())
    }

    pub(crate) fn table(&self, table: TableId) -> Result<&TableState, Error> {
        let index = table.0.checked_sub(FIRST_TABLE).map(usize::try_from);
        match index {
            Some(Ok(index)) => self.tables.get(index),
            _ => None,
        }
        .ok_or_else(|| {
            let message = format!("table handle {} is not of this store", table.0);
            Error::new(Kind::Invalid, message)
        })
    }

    pub(crate) fn tree(&self, table: TableId) -> Result<&Arc<Tree>, Error> {
        self.table(table).map(|table| &table.tree)
    }

    /// The table, if its history goes back to `at`.
    pub(crate) fn readable(&self, table: TableId, at: Lsn) -> Result<&Arc<Tree>, Error> {
        let table = self.table(table)?;
        let from = table.floor();
        if at < from.lsn {
            let retained = Retained {
                from,
                to: self.horizon.visible(),
            };
            let message = format!("lsn {at} of table {:?}", table.tree.name());
            return Err(Error::out_of_range(message, retained));
        }
        Ok(&table.tree)
    }

    /// All trees, the store's own among them.
    pub(crate) fn trees(&self) -> impl Iterator<Item = &Arc<Tree>> {
        let own = [&self.times.0, self.once.tree()];
        self.tables.iter().map(|table| &table.tree).chain(own)
    }

    pub(crate) fn retained(&self) -> Retained {
        let to = self.horizon.visible();
        let from = self
            .tables
            .iter()
            .map(TableState::floor)
            .min()
            .unwrap_or(to);
        Retained { from, to }
    }

    /// The error of a feed that cannot start at `from`.
    pub(crate) fn outside_feed(&self, from: Lsn, first: Lsn) -> Result<Error, Error> {
        let to = self.horizon.visible();
        let time = self
            .times
            .at_or_below(first, to.lsn)?
            .map_or(self.created, |commit| commit.time);
        let retained = Retained {
            from: Commit { lsn: first, time },
            to,
        };
        Ok(Error::out_of_range(
            format!("feed from lsn {from}"),
            retained,
        ))
    }

    pub(crate) fn applying(&self) -> MutexGuard<'_, ()> {
        self.applying
            .lock()
            .expect("a leader that panicked ended the process")
    }

    pub(crate) fn checkpointer(&self) -> MutexGuard<'_, Checkpointer> {
        self.checkpointer
            .lock()
            .expect("a checkpoint that panicked ended the process")
    }
}

impl TableState {
    pub(crate) fn new(id: TableId, history: History, tree: Tree, floor: Commit) -> Self {
        Self {
            id,
            history,
            tree: Arc::new(tree),
            floor: AtomicU64::new(floor.lsn.get()),
            floor_time: AtomicU64::new(floor.time.nanos()),
        }
    }

    pub(crate) fn floor(&self) -> Commit {
        Commit {
            lsn: Lsn::new(self.floor.load(Ordering::Acquire)),
            time: Timestamp::from_nanos(self.floor_time.load(Ordering::Acquire)),
        }
    }

    /// Nothing below `floor` may be read any more. Only under [`Horizon::held`].
    pub(crate) fn raise_floor(&self, floor: Commit) {
        self.floor_time
            .fetch_max(floor.time.nanos(), Ordering::AcqRel);
        self.floor.fetch_max(floor.lsn.get(), Ordering::AcqRel);
    }

    fn stats(&self) -> TableStats {
        TableStats {
            name: self.tree.name().to_owned(),
            floor: self.floor(),
            versions: self.tree.versions(),
            files: self.tree.files(),
            disk_bytes: self.tree.disk_bytes(),
            memory_bytes: self.tree.memory_bytes(),
            young_runs: self.tree.young_runs(),
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("dir", &self.inner().dir)
            .field("visible", &self.inner().horizon.visible())
            .finish_non_exhaustive()
    }
}
