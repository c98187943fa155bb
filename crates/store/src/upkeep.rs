//! Work behind the commits: flushing, compacting, checkpoints when they are due.
//!
//! Two threads, so that a long compaction does not hold up the flush that commits wait for. A
//! commit waits when a table has too much unflushed memory or too many unmerged files, so neither
//! grows without bound. A disk that is full stops flushing, then commits, and both go on once there
//! is room. Any other error ends committing for good: after a failed sync nobody knows what the
//! table files hold, and the journal has everything that was acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    Error, Kind, TableId,
    local::Inner,
    tree::{Memory, Tree},
};

/// Unflushed memories of one table before commits wait: one being flushed and one behind it.
const WAITING_FLUSHES_MAX: usize = 2;
/// Unmerged runs of one table before commits wait. A read looks into each.
const YOUNG_RUNS_MAX: usize = 16;
/// How long a commit waits for upkeep before it fails. A flush of a full memory takes well under a
/// second; a disk that needs longer than this is not one to wait for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long after finding the disk full it is looked at again. Arbitrary.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Left free on the disk beside what a flush needs, for the journal and the manifest.
const SPACE_RESERVE: u64 = 32 << 20;

pub(crate) struct Upkeep {
    state: Mutex<State>,
    /// For the two threads.
    work: Condvar,
    /// For commits that wait.
    room: Condvar,
    /// True while commits have to wait; read by each of them without the lock.
    behind: AtomicBool,
    memtable_bytes: u64,
    checkpoint_bytes: u64,
    /// Journal bytes since the last checkpoint.
    since_checkpoint: AtomicU64,
}

#[derive(Default)]
struct State {
    flush: bool,
    checkpoint: bool,
    compact: bool,
    is_stopping: bool,
    /// The disk had no room; cleared when a flush succeeds.
    full: Option<Error>,
    failed: Option<Error>,
}

enum Job {
    Flush,
    Checkpoint,
}

impl Upkeep {
    pub(crate) fn new(memtable_bytes: u64, checkpoint_bytes: u64, replayed_bytes: u64) -> Self {
        Self {
            state: Mutex::new(State {
                // What is replayed is due at once, and the next open would replay it again.
                checkpoint: replayed_bytes >= checkpoint_bytes,
                ..State::default()
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            behind: AtomicBool::new(false),
            memtable_bytes,
            checkpoint_bytes,
            since_checkpoint: AtomicU64::new(replayed_bytes),
        }
    }

    pub(crate) fn start(inner: &Arc<Inner>) -> Result<Vec<JoinHandle<()>>, Error> {
        let spawn = |name: &str, body: fn(&Inner)| {
            let held = Arc::clone(inner);
            world::spawn_spine(name, move || body(&held))
                .map_err(|error| Error::io("starting the upkeep of", &inner.dir, error))
        };
        let flush = spawn("store-flush", flush_loop)?;
        // One thread alone would keep the store locked for ever.
        let compact = spawn("store-compact", compact_loop).inspect_err(|_| inner.upkeep.stop())?;
        Ok(vec![flush, compact])
    }

    pub(crate) fn stop(&self) {
        self.state().is_stopping = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Journal bytes that the next open would replay.
    pub(crate) fn since_checkpoint(&self) -> u64 {
        self.since_checkpoint.load(Ordering::Relaxed)
    }

    /// `bytes` are in a checkpoint. What came while it was taken may be enough for the next one: then
    /// nothing that is appended later passes the bound.
    pub(crate) fn checkpointed(&self, bytes: u64) {
        let left = self.since_checkpoint.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if left >= self.checkpoint_bytes {
            self.state().checkpoint = true;
            self.work.notify_all();
        }
    }

    /// Counts a commit group's bytes; asks for a checkpoint when it is due.
    pub(crate) fn appended(&self, bytes: u64) {
        let before = self.since_checkpoint.fetch_add(bytes, Ordering::Relaxed);
        if before < self.checkpoint_bytes && before + bytes >= self.checkpoint_bytes {
            self.state().checkpoint = true;
            self.work.notify_all();
        }
    }

    /// Ends those of the memories just written that are full. Runs where commits are applied.
    pub(crate) fn rotate_full(&self, inner: &Inner, written: &BTreeMap<TableId, Memory>) {
        let mut rotated = false;
        for (table, memory) in written {
            if memory.bytes() >= self.memtable_bytes {
                let table = inner.table(*table).expect("checked when it was written");
                table.tree.rotate();
                rotated = true;
            }
        }
        if rotated {
            self.look(inner);
            self.state().flush = true;
            self.work.notify_all();
        }
    }

    /// Waits until commits may go on.
    pub(crate) fn wait_for_room(&self) -> Result<(), Error> {
        if !self.behind.load(Ordering::Acquire) {
            return Ok(());
        }
        let (state, timeout) = self
            .room
            .wait_timeout_while(self.state(), WAIT_MAX, |state| {
                let stuck = state.failed.is_some() || state.full.is_some() || state.is_stopping;
                !stuck && self.behind.load(Ordering::Acquire)
            })
            .expect("never poisoned: holds no code that panics");
        if let Some(failed) = &state.failed {
            return Err(Error::poisoned_by(failed));
        }
        if let Some(full) = &state.full {
            return Err(full.clone());
        }
        if state.is_stopping {
            return Err(Error::closed());
        }
        if timeout.timed_out() {
            let message = format!("flushing was behind for {} seconds", WAIT_MAX.as_secs());
            return Err(Error::new(Kind::Io, message));
        }
        Ok(())
    }

    /// The error that ended committing, if one did.
    pub(crate) fn failed(&self) -> Option<Error> {
        self.state().failed.clone()
    }

    /// Refuses to begin a flush that the disk has no room for: one that runs into the end of the
    /// disk half-way cannot be told from one whose sync failed.
    pub(crate) fn check_space(&self, inner: &Inner) -> Result<(), Error> {
        let space = inner
            .disk
            .space(&inner.dir)
            .map_err(|error| Error::io("looking at the space of", &inner.dir, error))?;
        // All unflushed memory, and as much again for the merge that may follow.
        let needed = 2 * self.checkpoint_bytes.min(self.since_checkpoint()) + SPACE_RESERVE;
        if space.available >= needed {
            return Ok(());
        }
        let message = format!(
            "writing table files below {} needs {needed} bytes, {} are free",
            inner.dir.display(),
            space.available
        );
        Err(Error::new(Kind::Full, message))
    }

    /// Sets whether commits have to wait.
    fn look(&self, inner: &Inner) {
        let is_behind = |tree: &Tree| {
            tree.waiting_flushes() > WAITING_FLUSHES_MAX || tree.young_runs() > YOUNG_RUNS_MAX
        };
        let behind = inner.trees().any(|tree| is_behind(tree));
        self.behind.store(behind, Ordering::Release);
        if !behind {
            // Taken and dropped, so that a waiting commit is before its check or inside its wait.
            drop(self.state());
            self.room.notify_all();
        }
    }

    fn done(&self, inner: &Inner, result: Result<(), Error>) {
        let mut state = self.state();
        match result {
            Ok(()) => state.full = None,
            Err(error) if error.kind() == Kind::Full => {
                if state.full.is_none() {
                    tracing::error!(%error, "table files cannot be written, commits will stop");
                }
                state.full = Some(error);
                self.room.notify_all();
            }
            Err(error) => {
                if state.failed.is_none() {
                    tracing::error!(%error, "table files cannot be written, commits end");
                }
                state.failed = Some(error);
                // So that the next commit looks.
                self.behind.store(true, Ordering::Release);
                self.room.notify_all();
                return;
            }
        }
        drop(state);
        self.look(inner);
    }

    fn next_flush(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.is_stopping || state.failed.is_some() {
                return None;
            }
            if state.checkpoint {
                (state.checkpoint, state.flush) = (false, false);
                return Some(Job::Checkpoint);
            }
            if state.flush {
                state.flush = false;
                return Some(Job::Flush);
            }
            let (woken, timeout) = self
                .work
                .wait_timeout(state, RETRY_AFTER)
                .expect("never poisoned: holds no code that panics");
            state = woken;
            if timeout.timed_out() && state.full.is_some() {
                state.checkpoint = true;
            }
        }
    }

    /// False when the thread is to end.
    fn next_compaction(&self) -> bool {
        let mut state = self
            .work
            .wait_while(self.state(), |state| {
                !state.compact && !state.is_stopping && state.failed.is_none()
            })
            .expect("never poisoned: holds no code that panics");
        state.compact = false;
        !state.is_stopping && state.failed.is_none()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state().is_stopping
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

fn flush_loop(inner: &Inner) {
    while let Some(job) = inner.upkeep.next_flush() {
        let result = match job {
            Job::Flush => inner.flush(),
            Job::Checkpoint => inner.checkpoint().map(drop),
        };
        inner.upkeep.done(inner, result);
        inner.upkeep.state().compact = true;
        inner.upkeep.work.notify_all();
    }
}

fn compact_loop(inner: &Inner) {
    while inner.upkeep.next_compaction() {
        for tree in inner.trees() {
            // Ends: each step leaves less to do, and steps find nothing once levels are in shape.
            loop {
                if inner.upkeep.is_stopping() {
                    return;
                }
                if inner.upkeep.check_space(inner).is_err() {
                    // Merging can wait; the flushes that cannot will say so.
                    break;
                }
                match tree.compact_step() {
                    Ok(true) => inner.upkeep.look(inner),
                    Ok(false) => break,
                    Err(error) => {
                        inner.upkeep.done(inner, Err(error));
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than a checkpoint's worth came while one was taken: nothing that came later passed the bound,
    /// so it was the last one, and the journal grew for ever.
    #[test]
    fn what_comes_while_a_checkpoint_is_taken_is_enough_for_the_next_one() {
        for (meanwhile, is_due) in [(99, false), (100, true), (250, true)] {
            let upkeep = Upkeep::new(1 << 20, 100, 0);
            upkeep.appended(100);
            assert!(std::mem::take(&mut upkeep.state().checkpoint));
            let taken = upkeep.since_checkpoint();
            upkeep.appended(meanwhile);
            upkeep.checkpointed(taken);
            assert_eq!(upkeep.state().checkpoint, is_due, "{meanwhile}");
        }
    }
}
