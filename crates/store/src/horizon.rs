//! What can be seen, and by whom it is held.
//!
//! The visible position moves only forward, and only to a position at or below which every commit
//! is durable and applied. A held position stays readable: floors are raised under the same lock
//! under which positions are taken.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use wal::Lsn;
use world::Timestamp;

use crate::Commit;

#[derive(Debug, Default)]
pub(crate) struct Horizon {
    /// Position and time of the newest applied commit; the time is written first.
    time: AtomicU64,
    visible: AtomicU64,
    /// The latest time that a reader asked for: no later commit may be dated at or before it, or
    /// the same question would have two answers.
    asked: AtomicU64,
    held: Mutex<Held>,
    followers: Mutex<()>,
    moved: Condvar,
}

/// Positions in use, with the number of their users.
#[derive(Debug, Default)]
pub(crate) struct Held {
    snapshots: BTreeMap<Lsn, usize>,
    transactions: BTreeMap<Lsn, usize>,
}

/// Who holds a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Snapshot,
    Transaction,
}

/// A position that stays readable until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    horizon: Arc<Horizon>,
    lsn: Lsn,
    holder: Holder,
}

impl Horizon {
    pub(crate) fn visible(&self) -> Commit {
        let lsn = Lsn::new(self.visible.load(Ordering::Acquire));
        let time = Timestamp::from_nanos(self.time.load(Ordering::Acquire));
        // A publication between the two loads leaves a later time beside an older position: times
        // are then shown too late, never a commit too early.
        Commit { lsn, time }
    }

    pub(crate) fn publish(&self, commit: Commit) {
        self.time.store(commit.time.nanos(), Ordering::Release);
        self.visible.store(commit.lsn.get(), Ordering::Release);
        // Taken and dropped, so that a follower is either before its check or inside its wait.
        drop(
            self.followers
                .lock()
                .expect("never poisoned: holds no code"),
        );
        self.moved.notify_all();
    }

    /// Waits until something above `seen` is visible, at most `timeout`.
    pub(crate) fn wait_above(&self, seen: Lsn, timeout: Duration) -> Lsn {
        let guard = self
            .followers
            .lock()
            .expect("never poisoned: holds no code");
        let (guard, _) = self
            .moved
            .wait_timeout_while(guard, timeout, |()| self.visible().lsn <= seen)
            .expect("never poisoned: holds no code");
        drop(guard);
        self.visible().lsn
    }

    pub(crate) fn asked(&self) -> Timestamp {
        Timestamp::from_nanos(self.asked.load(Ordering::Acquire))
    }

    /// From here on no commit is dated at or before `time`.
    pub(crate) fn ask(&self, time: Timestamp) {
        self.asked.fetch_max(time.nanos(), Ordering::AcqRel);
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    /// Takes what is visible now.
    pub(crate) fn hold_visible(self: &Arc<Self>, holder: Holder) -> (Hold, Commit) {
        let mut held = self.held();
        let commit = self.visible();
        (self.hold(&mut held, commit.lsn, holder), commit)
    }

    /// Takes `lsn`; the caller has checked under the same lock that it is retained.
    pub(crate) fn hold(self: &Arc<Self>, held: &mut Held, lsn: Lsn, holder: Holder) -> Hold {
        *held.of(holder).entry(lsn).or_default() += 1;
        Hold {
            horizon: Arc::clone(self),
            lsn,
            holder,
        }
    }

    /// The oldest position on which a transaction in flight was begun.
    pub(crate) fn oldest_transaction(&self) -> Option<Lsn> {
        self.held().transactions.keys().next().copied()
    }
}

impl Held {
    /// The oldest position in use.
    pub(crate) fn oldest(&self) -> Option<Lsn> {
        let snapshot = self.snapshots.keys().next();
        let transaction = self.transactions.keys().next();
        snapshot.into_iter().chain(transaction).min().copied()
    }

    pub(crate) fn count(&self) -> usize {
        self.snapshots.values().sum::<usize>() + self.transactions.values().sum::<usize>()
    }

    fn of(&mut self, holder: Holder) -> &mut BTreeMap<Lsn, usize> {
        match holder {
            Holder::Snapshot => &mut self.snapshots,
            Holder::Transaction => &mut self.transactions,
        }
    }
}

impl Hold {
    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.horizon.held();
        let users = held.of(self.holder);
        if let Some(count) = users.get_mut(&self.lsn) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.lsn);
            }
        }
    }
}
