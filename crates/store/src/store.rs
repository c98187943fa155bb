//! A store as everybody uses it: on this machine, or kept elsewhere by an engine.

use std::{fmt, sync::Arc, time::Duration};

use wal::{Journal, Lsn};
use world::Timestamp;

use crate::{
    Commit, Engine, Error, Feed, Kind, Options, RecoveryReport, Retained, Snapshot, Stats, TableId,
    Transaction,
    local::{Begins, Inner, Local},
};

/// Attempts of [`Store::transact`] before a conflict is given back. Of those that want the same one always
/// goes through, so that a few people's commands at once all do.
pub(crate) const TRANSACT_ATTEMPTS_MAX: u32 = 8;

/// An open store. Clones are handles of the same one.
#[derive(Clone)]
pub struct Store(Kept);

#[derive(Clone)]
enum Kept {
    Here(Local),
    Elsewhere(Arc<dyn Engine>),
}

impl Store {
    /// Opens the store in `options.dir`, which must belong to `journal` or be new, and brings it up
    /// to the journal's safe point.
    ///
    /// `Locked`: another process has it. `Version`: another format. `Invalid`: another journal, or
    /// options that cannot be. `Corrupt`: what was acknowledged cannot be rebuilt.
    pub fn open(
        options: Options,
        journal: Arc<dyn Journal>,
    ) -> Result<(Self, RecoveryReport), Error> {
        let (local, report) = Local::open(options, journal, Begins::Leading)?;
        Ok((Self(Kept::Here(local)), report))
    }

    /// Opens the store over a journal that somebody else writes: commits are applied as they become
    /// readable, and made here only after [`Store::lead`]; until then they are refused as `Fenced`.
    /// A moment that the writer has not passed yet, as far as is known here, is `OutOfRange`.
    pub fn open_following(
        options: Options,
        journal: Arc<dyn Journal>,
    ) -> Result<(Self, RecoveryReport), Error> {
        let (local, report) = Local::open(options, journal, Begins::Following)?;
        Ok((Self(Kept::Here(local)), report))
    }

    /// Ends following: applies everything that the journal has, and commits from then on. The
    /// journal must be this store's to write. An error leaves it following.
    pub fn lead(&self) -> Result<(), Error> {
        match &self.0 {
            Kept::Here(local) => local.lead(),
            Kept::Elsewhere(engine) => Err(only_here("leading", engine)),
        }
    }

    /// Waits until the commit at `lsn` can be read here, at most `timeout`; `OutOfRange` then. So that
    /// whoever was acknowledged a commit by one copy finds it in another.
    pub fn wait_for(&self, lsn: Lsn, timeout: Duration) -> Result<(), Error> {
        let Some(inner) = self.inner_here() else {
            return Ok(());
        };
        let seen = Lsn::new(lsn.get().saturating_sub(1));
        if inner.horizon.wait_above(seen, timeout) >= lsn {
            return Ok(());
        }
        let what = format!("after {timeout:?} of waiting, lsn {lsn}");
        Err(Error::out_of_range(what, inner.retained()))
    }

    /// How far a store that follows has come: every record up to here is applied.
    pub fn applied(&self) -> Option<Lsn> {
        let following = &self.inner_here()?.following;
        following.is_on().then(|| following.applied())
    }

    /// The store whose tables `engine` keeps.
    pub fn on(engine: Arc<dyn Engine>) -> Self {
        Self(Kept::Elsewhere(engine))
    }

    /// The handle of the table called `name`.
    pub fn table(&self, name: &str) -> Result<TableId, Error> {
        match &self.0 {
            Kept::Here(local) => local.table(name),
            Kept::Elsewhere(engine) => engine.table(name),
        }
    }

    /// The name behind a handle, as a feed gives them.
    pub fn table_name(&self, table: TableId) -> Result<String, Error> {
        match &self.0 {
            Kept::Here(local) => local.table_name(table).map(str::to_owned),
            Kept::Elsewhere(engine) => engine.table_name(table),
        }
    }

    pub fn begin(&self) -> Result<Transaction, Error> {
        match &self.0 {
            Kept::Here(local) => local.begin(),
            Kept::Elsewhere(engine) => engine.begin().map(Transaction::elsewhere),
        }
    }

    /// The newest commit that can be read. Two equal answers say that nothing was committed in between:
    /// what was read after the first still holds. Costs an engine one round trip.
    pub fn newest(&self) -> Result<Commit, Error> {
        match &self.0 {
            Kept::Here(local) => Ok(local.newest()),
            Kept::Elsewhere(engine) => engine.newest(),
        }
    }

    /// As [`Store::newest`], where it can be told without waiting: of a store on this machine.
    pub fn newest_here(&self) -> Option<Commit> {
        match &self.0 {
            Kept::Here(local) => Some(local.newest()),
            Kept::Elsewhere(_) => None,
        }
    }

    /// Runs `change` in a transaction and commits it; after a conflict again, on what is there then,
    /// [`TRANSACT_ATTEMPTS_MAX`] times in all. What `change` does beside reading and writing in the
    /// transaction is done as often.
    pub fn transact<T, E: From<Error>>(
        &self,
        mut change: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempts = 1;
        loop {
            let mut transaction = self.begin()?;
            let done = change(&mut transaction)?;
            match transaction.commit() {
                Ok(_) => return Ok(done),
                Err(error)
                    if error.kind() == Kind::Conflict && attempts < TRANSACT_ATTEMPTS_MAX =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Everything committed so far.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        match &self.0 {
            Kept::Here(local) => local.snapshot(),
            Kept::Elsewhere(engine) => engine.read_newest().map(Snapshot::elsewhere),
        }
    }

    /// The store as it was at `lsn`. `OutOfRange` when that is newer than what is visible, or older
    /// than what any table keeps; a table that keeps less says so when it is read.
    pub fn snapshot_at(&self, lsn: Lsn) -> Result<Snapshot, Error> {
        match &self.0 {
            Kept::Here(local) => local.snapshot_at(lsn),
            Kept::Elsewhere(engine) => engine.read(engine.at(lsn)?).map(Snapshot::elsewhere),
        }
    }

    /// The store as it was at `time`: with every commit dated at or before it. The same question
    /// has the same answer again, because later commits are dated later; only a clock that is stepped
    /// back while the store is closed can undo that, for times that no commit had reached.
    /// `OutOfRange` for a time that is still to come, or before what any table keeps.
    pub fn snapshot_at_time(&self, time: Timestamp) -> Result<Snapshot, Error> {
        match &self.0 {
            Kept::Here(local) => local.snapshot_at_time(time),
            Kept::Elsewhere(engine) => engine.read(engine.at_time(time)?).map(Snapshot::elsewhere),
        }
    }

    /// The oldest and newest position that a snapshot can have.
    pub fn retained(&self) -> Result<Retained, Error> {
        match &self.0 {
            Kept::Here(local) => Ok(local.retained()),
            Kept::Elsewhere(engine) => engine.retained(),
        }
    }

    /// The commit that first used the idempotency key `key`, if it is remembered.
    pub fn outcome_of(&self, key: &[u8]) -> Result<Option<Commit>, Error> {
        match &self.0 {
            Kept::Here(local) => local.outcome_of(key),
            Kept::Elsewhere(engine) => Err(only_here("looking up an idempotency key", engine)),
        }
    }

    /// Commits from position `from` on. `OutOfRange` when the journal no longer has it; `Invalid`
    /// for a store without a journal of its own.
    pub fn feed(&self, from: Lsn) -> Result<Feed, Error> {
        match &self.0 {
            Kept::Here(local) => local.feed(from),
            Kept::Elsewhere(engine) => Err(only_here("a feed of commits", engine)),
        }
    }

    /// Writes everything committed so far to table files and lets the journal go below: the next
    /// open replays only what comes later. Returns the commit up to which that holds. An engine sees
    /// to that by itself, and what is committed there needs no replay.
    pub fn checkpoint(&self) -> Result<Commit, Error> {
        match &self.0 {
            Kept::Here(local) => local.checkpoint(),
            Kept::Elsewhere(engine) => engine.newest(),
        }
    }

    /// Checkpoints, and merges each table into one sorted run, dropping what its history no longer
    /// keeps. Rewrites every table. An engine sees to that by itself.
    pub fn compact(&self) -> Result<(), Error> {
        match &self.0 {
            Kept::Here(local) => local.compact(),
            Kept::Elsewhere(_) => Ok(()),
        }
    }

    /// Ends committing, checkpoints, and ends the store's threads: the next open replays nothing.
    /// Snapshots and feeds that are still held go on, and keep the directory locked. On an engine
    /// it ends this handle only.
    pub fn close(&self) -> Result<(), Error> {
        match &self.0 {
            Kept::Here(local) => local.close(),
            Kept::Elsewhere(engine) => engine.close(),
        }
    }

    /// For a process that has to end soon: an engine that does not answer from here on is given up,
    /// and whatever waits for it is told so. One that answers is asked on.
    pub fn hurry(&self) {
        if let Kept::Elsewhere(engine) = &self.0 {
            engine.hurry();
        }
    }

    /// The error after which nothing is committed any more until the store is opened again, for a
    /// process that has it open for good. An engine is asked anew each time.
    pub fn failure(&self) -> Option<Error> {
        match &self.0 {
            Kept::Here(local) => local.failure(),
            Kept::Elsewhere(_) => None,
        }
    }

    /// What is shared by all handles, where the files are this store's own.
    pub(crate) fn inner_here(&self) -> Option<&Arc<Inner>> {
        match &self.0 {
            Kept::Here(local) => Some(local.inner()),
            Kept::Elsewhere(_) => None,
        }
    }

    pub fn stats(&self) -> Stats {
        match &self.0 {
            Kept::Here(local) => local.stats(),
            Kept::Elsewhere(_) => Stats::default(),
        }
    }
}

fn only_here(what: &str, engine: &Arc<dyn Engine>) -> Error {
    let message = format!("{what} needs the store's own journal, which {engine:?} does not have");
    Error::new(Kind::Invalid, message)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::Here(local) => f.debug_tuple("Store").field(local).finish(),
            Kept::Elsewhere(engine) => f.debug_tuple("Store").field(engine).finish(),
        }
    }
}
