//! Which producers' ids are in the retained range, and who is about to add one.
//!
//! An id goes from *reserved* (an append is under way) to *known* (its event is durable), or back to
//! unknown when the append failed. Reservations are all or nothing, so no two appends wait for each
//! other. A key is a hash: whoever finds one reads the event before believing it, so a collision
//! costs a read and never an event.
//!
//! Recent ids are in a table in memory; a full one becomes a run, a sorted file; runs that follow each
//! other are merged as they become many, and go when retention takes their events. Everything here is
//! derived from the journal and no acknowledgement waits for it: what is missing or does not verify
//! is read again, and an open reads only what lies above the newest run.
//!
//! Locks: upkeep, then table. The table's is never held across a disk call.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use wal::{Identity, Journal, Lsn, Upkeep};
use world::Disk;
use xxhash_rust::xxh3;

use self::{
    build::Maker,
    run::{Run, Unusable},
    table::{Hashed, Seen, Table},
};
use crate::{
    Error, Kind,
    event::{PRODUCER_ID_LEN_MAX, SOURCE_LEN_MAX},
    log::RETRY_AFTER,
};

mod build;
mod filter;
pub(crate) mod run;
mod table;
#[cfg(test)]
mod tests;

/// Positions that one key may stand for. More than one means that hashes collide, and that is
/// either a fortune or an attack: beyond this, an event seen again may be kept again.
const CANDIDATES_MAX: usize = 8;
/// Ids of a table: what fills 2^18 places of a hash table to seven eighths, about 9 MB. There are at
/// most two, one of them on its way to the disk.
const TABLE_LEN_MAX: usize = (1 << 18) / 8 * 7;
/// Runs of one size that are merged into one. Fewer write more often, more are looked at for longer.
const MERGE_WIDTH: usize = 4;
/// Tables' worth of ids below which a run counts as small, and as of middle size; tables overshoot by a
/// batch. Larger runs are not merged: each id is written three times at most, and no run has more than
/// four of middle size, 180 MB.
const SMALL_TABLES: u64 = 2;
const MIDDLE_TABLES: u64 = 8;
/// Bytes of filters in memory, for some fifty million ids. Beyond it the oldest runs go without, and every
/// new id is looked up in them.
const FILTERS_BYTES_MAX: u64 = 64 << 20;
/// Records after which a table becomes a run, full or not: what an open reads again at most, about a
/// second's work.
const UNWRITTEN_MAX: u64 = 1 << 20;
/// Closing leaves fewer records than this to the next open: reading them costs less than a run.
const UNWRITTEN_AT_CLOSE_MAX: u64 = 4096;
/// How long a run that could not be written waits for the next attempt, unless an append comes first.
const RETRY: Duration = Duration::from_secs(1);
/// Runs that one lookup makes again when their bytes do not verify. More of them is a broken disk.
const MENDS_MAX: usize = 4;

/// Sizes, for tests to make small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) table_len_max: usize,
    pub(crate) unwritten_max: u64,
    pub(crate) unwritten_at_close_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            table_len_max: TABLE_LEN_MAX,
            unwritten_max: UNWRITTEN_MAX,
            unwritten_at_close_max: UNWRITTEN_AT_CLOSE_MAX,
        }
    }
}

/// Hash of source and producer's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) [u8; 16]);

impl Key {
    /// The first half as a number that is ordered as the keys are.
    fn head(self) -> u64 {
        let (head, _) = self.0.split_first_chunk::<8>().expect("a key has 16 bytes");
        u64::from_be_bytes(*head)
    }
}

/// Makes keys; the seed is the journal's, so that positions of one never meet keys of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    seed: u64,
}

impl Keys {
    pub(crate) fn new(identity: Identity) -> Self {
        let seed = xxh3::xxh3_64_with_seed(&identity.journal.0, u64::from(identity.generation.0));
        Self { seed }
    }

    /// Source and id as [`crate::NewEvent::check`] passed them.
    pub(crate) fn key(self, source: &str, producer_id: &str) -> Key {
        let mut text = [0; SOURCE_LEN_MAX + 1 + PRODUCER_ID_LEN_MAX];
        let len = source.len() + 1 + producer_id.len();
        text[..source.len()].copy_from_slice(source.as_bytes());
        text[source.len() + 1..len].copy_from_slice(producer_id.as_bytes());
        Key(xxh3::xxh3_128_with_seed(&text[..len], self.seed).to_be_bytes())
    }
}

/// The index of ids.
pub(crate) struct Ids {
    core: Arc<Core>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

struct Core {
    maker: Maker,
    upkeep_by: Upkeep,
    table: Mutex<Table>,
    /// Told when reservations end.
    ended: Condvar,
    /// Told when there is work for upkeep.
    work: Condvar,
    /// Held while runs are written, merged, mended or removed.
    upkeep: Mutex<()>,
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").finish_non_exhaustive()
    }
}

/// What opening read again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opened {
    pub(crate) replayed: u64,
    pub(crate) discarded: u64,
}

impl Ids {
    pub(crate) fn open(
        journal: Arc<dyn Journal>,
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        limits: Limits,
        upkeep_by: Upkeep,
    ) -> Result<(Self, Opened), Error> {
        let keys = Keys::new(journal.identity());
        let covered = journal.safe_point();
        let maker = Maker {
            disk,
            journal,
            dir,
            keys,
            limits,
        };
        let found = maker.find()?;
        let mut opened = Opened {
            replayed: 0,
            discarded: found.discarded,
        };
        let mut runs = found.runs;
        let mut active = Seen::default();
        let gaps = found.gaps.len();
        for (index, (first, last)) in found.gaps.into_iter().enumerate() {
            if first > last {
                continue;
            }
            if index + 1 < gaps {
                opened.replayed += last.get() - first.get() + 1;
                runs.extend(maker.rebuild(first, last)?);
            } else {
                let replayed = maker.replay(first, last)?;
                opened.replayed += replayed.records;
                runs.extend(replayed.runs);
                active = replayed.rest;
            }
        }
        runs.sort_by_key(|run| run.span.first);
        maker.trim_filters(&mut runs)?;
        let core = Arc::new(Core {
            maker,
            upkeep_by,
            table: Mutex::new(Table::new(runs, active, covered)),
            ended: Condvar::new(),
            work: Condvar::new(),
            upkeep: Mutex::new(()),
        });
        let thread = match upkeep_by {
            Upkeep::Caller => None,
            Upkeep::Thread => Some(start(&core)?),
        };
        let ids = Self {
            core,
            thread: Mutex::new(thread),
        };
        Ok((ids, opened))
    }

    pub(crate) fn keys(&self) -> Keys {
        self.core.maker.keys
    }

    /// Waits until no other append holds any of `keys`, then holds them all. `Overloaded`, or what kept
    /// the last run from being written, while both tables are full.
    pub(crate) fn reserve(&self, keys: Vec<Key>) -> Result<Reservation<'_>, Error> {
        let mut table = self.core.table();
        while keys.iter().any(|key| table.reserved.contains(key)) {
            table.waiting += 1;
            table = self.core.ended.wait(table).expect(LOCK_HELD);
            table.waiting -= 1;
        }
        let is_full = table.active.len() >= self.core.maker.limits.table_len_max;
        if !keys.is_empty() && is_full && table.sealed.is_some() {
            self.core.work.notify_one();
            return Err(table.failed.clone().unwrap_or_else(|| {
                let message = "the index of producers' ids is being written";
                Error::overloaded(message, RETRY_AFTER)
            }));
        }
        let mut recent = HashMap::default();
        for &key in &keys {
            let mut lsns = Vec::new();
            let sealed = table.sealed.as_ref();
            let sealed = sealed.map_or(&[][..], |sealed| sealed.seen.of(key));
            lsns.extend(sealed.iter().chain(table.active.of(key)));
            if !lsns.is_empty() {
                recent.insert(key, lsns);
            }
        }
        let runs = Arc::clone(&table.runs);
        table.reserved.extend(&keys);
        drop(table);
        Ok(Reservation {
            core: &self.core,
            keys,
            recent,
            runs,
        })
    }

    /// Writes what the next open would have to read again, if it is much, and stops.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.stop();
        let core = &self.core;
        let held = core.upkeep();
        let limits = core.maker.limits;
        core.write_sealed()?;
        if core.table().unwritten() > limits.unwritten_at_close_max {
            core.table().seal();
            core.write_sealed()?;
        }
        core.remove_expired()?;
        drop(held);
        Ok(())
    }

    fn stop(&self) {
        self.core.table().is_stopping = true;
        self.core.work.notify_all();
        let thread = self.thread.lock().expect(LOCK_HELD).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("upkeep of the index of ids panicked");
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.core.table().waiting
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        self.stop();
    }
}

const LOCK_HELD: &str = "no thread panics while it holds this lock";

fn start(core: &Arc<Core>) -> Result<thread::JoinHandle<()>, Error> {
    let core = Arc::clone(core);
    thread::Builder::new()
        .name("events-ids".to_owned())
        .spawn(move || core.keep_up())
        .map_err(|error| Error::new(Kind::Io, "start the upkeep of ids").with_source(error))
}

impl Core {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect(LOCK_HELD)
    }

    fn upkeep(&self) -> MutexGuard<'_, ()> {
        self.upkeep.lock().expect(LOCK_HELD)
    }

    fn is_due(&self, table: &Table) -> bool {
        let limits = self.maker.limits;
        table.active_first() <= table.covered
            && (table.active.len() >= limits.table_len_max
                || table.unwritten() >= limits.unwritten_max)
    }

    /// The upkeep thread.
    fn keep_up(&self) {
        loop {
            let mut table = self.table();
            while !table.is_stopping && table.sealed.is_none() && !self.is_due(&table) {
                table = self.work.wait(table).expect(LOCK_HELD);
            }
            if table.failed.is_some() && !table.is_stopping {
                table = self.work.wait_timeout(table, RETRY).expect(LOCK_HELD).0;
            }
            if table.is_stopping {
                return;
            }
            drop(table);
            self.work_once();
        }
    }

    /// Everything that is due. What fails is told once, kept for those whom it concerns, and tried again.
    fn work_once(&self) {
        let _held = self.upkeep();
        let done = self
            .write_sealed()
            .and_then(|()| self.seal_if_due())
            .and_then(|()| self.remove_expired())
            .and_then(|()| self.merge());
        if let Err(error) = done {
            let mut table = self.table();
            if table.failed.is_none() {
                tracing::warn!(%error, "the index of producers' ids could not be written; trying again");
            }
            table.failed = Some(error);
        }
    }

    fn seal_if_due(&self) -> Result<(), Error> {
        let mut table = self.table();
        if table.sealed.is_none() && self.is_due(&table) {
            table.seal();
            drop(table);
            self.write_sealed()?;
        }
        Ok(())
    }

    fn write_sealed(&self) -> Result<(), Error> {
        let Some(sealed) = self.table().sealed.clone() else {
            return Ok(());
        };
        let run = self.maker.write(&sealed.seen, sealed.first, sealed.last)?;
        let mut runs = self.table().runs.to_vec();
        runs.push(run);
        self.maker.trim_filters(&mut runs)?;
        // In one step: an id is in the sealed table or in its run, and never in neither.
        let mut table = self.table();
        table.runs = Arc::new(runs);
        table.sealed = None;
        table.failed = None;
        Ok(())
    }

    /// Takes runs out, for others or for none, and their files away.
    fn replace(&self, old: &[Arc<Run>], new: Vec<Arc<Run>>) -> Result<(), Error> {
        let is_old = |run: &Arc<Run>| old.iter().any(|old| Arc::ptr_eq(old, run));
        let is_kept = |run: &Run| new.iter().any(|kept| kept.path == run.path);
        let gone: Vec<Arc<Run>> = old.iter().filter(|run| !is_kept(run)).cloned().collect();
        let mut table = self.table();
        let mut runs: Vec<Arc<Run>> = table
            .runs
            .iter()
            .filter(|run| !is_old(run))
            .cloned()
            .chain(new)
            .collect();
        runs.sort_by_key(|run| run.span.first);
        table.runs = Arc::new(runs);
        drop(table);
        // After nobody looks for them: a reservation that began before holds them open.
        gone.iter().try_for_each(|run| self.maker.remove(run))
    }

    fn remove_expired(&self) -> Result<(), Error> {
        let retained = self.maker.journal.first_retained();
        let runs = Arc::clone(&self.table().runs);
        let expired: Vec<_> = runs
            .iter()
            // The newest tells where the active table begins.
            .take(runs.len().saturating_sub(1))
            .filter(|run| run.span.last < retained)
            .cloned()
            .collect();
        if expired.is_empty() {
            return Ok(());
        }
        self.replace(&expired, Vec::new())
    }

    /// Merges runs until no [`MERGE_WIDTH`] neighbours are of one size.
    fn merge(&self) -> Result<(), Error> {
        while let Some(old) = self.mergeable() {
            // Tables go on filling meanwhile.
            match self.maker.merge(&old, || self.seal_if_due())? {
                Ok(merged) => {
                    self.replace(&old, vec![merged])?;
                }
                Err(damaged) => self.mend(&damaged)?,
            }
            if self.table().is_stopping {
                break;
            }
        }
        Ok(())
    }

    fn mergeable(&self) -> Option<Vec<Arc<Run>>> {
        let table_len = self.maker.limits.table_len_max as u64;
        let size = |run: &Arc<Run>| match run.entries / table_len {
            0..SMALL_TABLES => 0,
            SMALL_TABLES..MIDDLE_TABLES => 1,
            _ => 2,
        };
        let runs = Arc::clone(&self.table().runs);
        runs.windows(MERGE_WIDTH)
            .find(|window| {
                let first = size(&window[0]);
                first < 2 && window.iter().all(|run| size(run) == first)
            })
            .map(<[_]>::to_vec)
    }

    /// Makes a run again whose bytes do not verify. Under the lock of upkeep.
    fn mend(&self, damaged: &Arc<Run>) -> Result<(), Error> {
        let is_there = |run: &Arc<Run>| Arc::ptr_eq(run, damaged);
        if !self.table().runs.iter().any(is_there) {
            return Ok(());
        }
        tracing::warn!(path = %damaged.path.display(), "a run of ids does not verify and is made again");
        let runs = self.maker.rebuild(damaged.span.first, damaged.span.last)?;
        self.replace(std::slice::from_ref(damaged), runs)
    }
}

/// Keys that one append holds. Dropped without [`Reservation::keep`], they are unknown again.
pub(crate) struct Reservation<'a> {
    core: &'a Core,
    keys: Vec<Key>,
    recent: HashMap<Key, Vec<Lsn>, Hashed>,
    runs: Arc<Vec<Arc<Run>>>,
}

impl Reservation<'_> {
    /// Where events of the keys may be, oldest first. The keys are held, so nobody adds one meanwhile.
    pub(crate) fn candidates(&mut self) -> Result<HashMap<Key, Vec<Lsn>, Hashed>, Error> {
        let mut all = std::mem::take(&mut self.recent);
        for index in 0..self.keys.len() {
            let key = self.keys[index];
            let found = self.look_up(key)?;
            if !found.is_empty() {
                let lsns: &mut Vec<Lsn> = all.entry(key).or_default();
                lsns.splice(0..0, found);
                lsns.sort_unstable();
                lsns.dedup();
            }
        }
        Ok(all)
    }

    fn look_up(&mut self, key: Key) -> Result<Vec<Lsn>, Error> {
        for _ in 0..=MENDS_MAX {
            match find(&self.runs, key) {
                Ok(found) => return Ok(found),
                Err((run, Unusable::Io(error))) => {
                    return Err(Error::io("look for a producer's id", &run.path, error));
                }
                Err((run, Unusable::Unverified(_))) => {
                    let held = self.core.upkeep();
                    self.core.mend(&run)?;
                    drop(held);
                    self.runs = Arc::clone(&self.core.table().runs);
                }
            }
        }
        Err(Error::new(
            Kind::Corrupt,
            "the index of producers' ids does not verify as often as it is made again",
        ))
    }

    /// The events from `first` to `last` are durable; these are the ids among them.
    pub(crate) fn keep(self, stored: &[(Key, Lsn)], first: Lsn, last: Lsn) {
        let core = self.core;
        let mut table = core.table();
        table.keep(stored, first, last);
        let is_due = core.is_due(&table);
        drop(table);
        drop(self);
        match (is_due, core.upkeep_by) {
            (true, Upkeep::Thread) => core.work.notify_one(),
            (true, Upkeep::Caller) => core.work_once(),
            (false, _) => {}
        }
    }
}

/// Newest runs first: what is sent again was sent a moment ago.
fn find(runs: &[Arc<Run>], key: Key) -> Result<Vec<Lsn>, (Arc<Run>, Unusable)> {
    let mut found = Vec::new();
    for run in runs.iter().rev() {
        run.find(key, CANDIDATES_MAX, &mut found)
            .map_err(|unusable| (Arc::clone(run), unusable))?;
    }
    Ok(found)
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut table = self.core.table();
        for key in &self.keys {
            table.reserved.remove(key);
        }
        drop(table);
        self.core.ended.notify_all();
    }
}
