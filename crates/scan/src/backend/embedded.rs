//! The backend on this machine's own store.
//!
//! Whoever comes in between is seen by the store's validation at commit: the call then runs again, a
//! bounded number of times. Dispatchers and claimers of one process take turns, because they want the
//! same rows and would only make each other run again; those of other processes meet at the commit.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use store::{Store, Table, Transaction};
use uuid::Uuid;
use world::{Random, Timestamp};

use super::{
    Applied, Backend, Claimed, Counters, Dispatched, Error, JobView, Kind, Maintenance, Reaped,
    Scope, claim, counts::Counts, dispatch, finish, maintenance::Maintenances, queue::Queue, reap,
};
use crate::{
    audit::Audit,
    failure::Failure,
    ledger::{self, Ledger},
    policy::Policy,
    schedule::{Place, QueueKey, Row, Rows},
};

/// Attempts before a call is given back as a conflict. Others work on the same store: threads of this
/// process, commands beside `up`, machines that share a database. It takes dozens of them that all
/// want the same host to get here.
const ATTEMPTS_MAX: u32 = 64;

/// Schedule, queue and ledger on one store.
pub struct Embedded {
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    pub(super) rows: Rows,
    pub(super) queue: Queue,
    pub(super) counts: Counts,
    pub(super) maintenances: Maintenances,
    pub(super) audit: Audit,
    key: Option<QueueKey>,
    random: Arc<dyn Random>,
    turn: Mutex<()>,
}

impl Embedded {
    /// The tables that the store must have been opened with, beside those of ledger, schedule and
    /// audit.
    pub fn tables() -> Vec<Table> {
        [Queue::tables(), Counts::tables(), Maintenances::tables()].concat()
    }

    /// On a store that has all of [`crate::tables`]. `key` seals the jobs, `random` names them.
    pub fn new(store: Store, key: QueueKey, random: Arc<dyn Random>) -> Result<Self, Error> {
        Self::with(store, Some(key), random)
    }

    /// For whoever asks and sets, and does not enqueue: a tick or a claim that needs the key is
    /// `Invalid`.
    pub fn without_key(store: Store, random: Arc<dyn Random>) -> Result<Self, Error> {
        Self::with(store, None, random)
    }

    fn with(store: Store, key: Option<QueueKey>, random: Arc<dyn Random>) -> Result<Self, Error> {
        Ok(Self {
            ledger: Ledger::new(store.clone())?,
            rows: Rows::of(&store)?,
            queue: Queue::of(&store)?,
            counts: Counts::of(&store)?,
            maintenances: Maintenances::of(&store)?,
            audit: Audit::of(&store)?,
            store,
            key,
            random,
            turn: Mutex::new(()),
        })
    }

    pub(super) fn key(&self) -> Result<&QueueKey, Error> {
        self.key
            .as_ref()
            .ok_or_else(|| Error::new(Kind::Invalid, "the queue was opened without its key"))
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// As [`Backend::set_maintenance`], in somebody else's transaction.
    pub fn set_maintenance_in(
        &self,
        transaction: &mut Transaction,
        maintenance: &Maintenance,
        now: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        self.maintenances
            .set_in(transaction, maintenance, now, actor)
    }

    /// As [`Backend::clear_maintenance`], in somebody else's transaction.
    pub fn clear_maintenance_in(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
        now: Timestamp,
        actor: &str,
    ) -> Result<bool, Error> {
        self.maintenances.clear_in(transaction, scope, now, actor)
    }

    /// As [`Backend::hasten`], in somebody else's transaction.
    pub fn hasten_in(
        &self,
        transaction: &mut Transaction,
        host: &str,
        now: Timestamp,
        actor: &str,
    ) -> Result<bool, Error> {
        self.rows.hasten_in(transaction, host, now, actor)
    }

    /// Runs `change` in a transaction and commits it; again after a conflict.
    pub(super) fn transact<T>(
        &self,
        change: impl FnMut(&mut Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.transact_dated(None, change)
    }

    /// As [`Embedded::transact`], dated `date`.
    pub(super) fn transact_dated<T>(
        &self,
        date: Option<Timestamp>,
        mut change: impl FnMut(&mut Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut attempts = 1;
        loop {
            let mut transaction = self.store.begin()?;
            let settled = change(&mut transaction).and_then(|outcome| {
                match date {
                    Some(date) => transaction.commit_dated(date)?,
                    None => transaction.commit()?,
                };
                Ok(outcome)
            });
            match settled {
                Err(error) if error.kind() == Kind::Conflict && attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                }
                settled => return settled,
            }
        }
    }

    /// Held by whoever dispatches or claims.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name that nobody can guess and that was never given before.
    pub(super) fn name(&self) -> Result<Uuid, Error> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(|error| {
            Error::new(Kind::Storage, "no random bytes for a name").with_source(error)
        })?;
        Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

impl Backend for Embedded {
    fn place(&self, place: &Place, now: Timestamp, actor: &str) -> Result<(), Error> {
        self.transact(|transaction| self.rows.place_in(transaction, place, now, actor))
    }

    fn retire(&self, host: &str, now: Timestamp, actor: &str) -> Result<(), Error> {
        self.transact(|transaction| self.rows.retire_in(transaction, host, now, actor))
    }

    fn hasten(&self, host: &str, now: Timestamp, actor: &str) -> Result<bool, Error> {
        self.transact(|transaction| self.rows.hasten_in(transaction, host, now, actor))
    }

    fn dispatch(&self, now: Timestamp, policy: &Policy) -> Result<Dispatched, Error> {
        dispatch::dispatch(self, now, policy)
    }

    fn claim(
        &self,
        worker: &str,
        limit: usize,
        now: Timestamp,
        policy: &Policy,
    ) -> Result<Vec<Claimed>, Error> {
        claim::claim(self, worker, limit, now, policy)
    }

    fn renew(
        &self,
        claimed: &Claimed,
        now: Timestamp,
        policy: &Policy,
    ) -> Result<Timestamp, Error> {
        claim::renew(self, claimed, now, policy)
    }

    fn complete(
        &self,
        claimed: &Claimed,
        scan: &ledger::Scan,
        now: Timestamp,
        policy: &Policy,
        sink: &dyn ledger::Sink,
    ) -> Result<Applied, Error> {
        finish::complete(self, claimed, scan, now, policy, sink)
    }

    fn fail(
        &self,
        claimed: &Claimed,
        failure: &Failure,
        now: Timestamp,
        policy: &Policy,
    ) -> Result<(), Error> {
        finish::fail(self, claimed, failure, now, policy)
    }

    fn give_back(&self, claimed: &Claimed, now: Timestamp) -> Result<(), Error> {
        claim::give_back(self, claimed, now)
    }

    fn reap(&self, now: Timestamp, policy: &Policy) -> Result<Reaped, Error> {
        reap::reap(self, None, now, policy)
    }

    fn release(&self, node: &str, now: Timestamp, policy: &Policy) -> Result<Reaped, Error> {
        reap::reap(self, Some(node), now, policy)
    }

    fn set_maintenance(
        &self,
        maintenance: &Maintenance,
        now: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        self.transact(|transaction| {
            self.maintenances
                .set_in(transaction, maintenance, now, actor)
        })
    }

    fn clear_maintenance(&self, scope: &Scope, now: Timestamp, actor: &str) -> Result<bool, Error> {
        self.transact(|transaction| self.maintenances.clear_in(transaction, scope, now, actor))
    }

    fn maintenances(&self) -> Result<Vec<Maintenance>, Error> {
        self.maintenances.list(&self.store.snapshot()?)
    }

    fn schedule(&self) -> Result<Vec<Row>, Error> {
        self.rows.all(&self.store.snapshot()?)
    }

    fn row(&self, host: &str) -> Result<Option<Row>, Error> {
        self.rows.get(&self.store.snapshot()?, host)
    }

    fn jobs(&self, limit: usize) -> Result<Vec<JobView>, Error> {
        self.queue.unfinished(&self.store.snapshot()?, limit)
    }

    fn counters(&self) -> Result<Counters, Error> {
        self.counts.read(&self.store.snapshot()?)
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedded")
    }
}
