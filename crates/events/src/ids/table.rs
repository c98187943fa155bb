//! Recent ids in memory, and how far the index reaches.
//!
//! Appends end out of order. `covered` is the position up to which every id is in the index; what
//! was kept above it waits in `ahead` until the gap closes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use wal::Lsn;

use super::{
    CANDIDATES_MAX, Key,
    run::{Entry, Run},
};
use crate::Error;

/// A key is a hash already.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut last = [0; 8];
        let len = bytes.len().min(8);
        last[..len].copy_from_slice(&bytes[bytes.len() - len..]);
        self.0 = u64::from_le_bytes(last);
    }

    /// The length of a key, which is the same for all.
    fn write_usize(&mut self, _: usize) {}
}

pub(crate) type Hashed = BuildHasherDefault<AsIs>;

/// The positions of one key, oldest first.
#[derive(Clone, Debug)]
enum Positions {
    One(Lsn),
    #[allow(
        clippy::box_collection,
        reason = "a vector would make the usual case twice as large"
    )]
    Several(Box<Vec<Lsn>>),
}

/// Ids and where they were seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    positions: HashMap<Key, Positions, Hashed>,
}

impl Seen {
    pub(super) fn add(&mut self, key: Key, lsn: Lsn) {
        self.positions
            .entry(key)
            .and_modify(|positions| match positions {
                Positions::One(first) => {
                    *positions = Positions::Several(Box::new(vec![*first, lsn]));
                }
                Positions::Several(all) if all.len() < CANDIDATES_MAX => all.push(lsn),
                Positions::Several(_) => {}
            })
            .or_insert(Positions::One(lsn));
    }

    pub(super) fn of(&self, key: Key) -> &[Lsn] {
        match self.positions.get(&key) {
            Some(Positions::One(lsn)) => std::slice::from_ref(lsn),
            Some(Positions::Several(all)) => all,
            None => &[],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    pub(super) fn sorted(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self
            .positions
            .keys()
            .flat_map(|&key| self.of(key).iter().map(move |&lsn| Entry { key, lsn }))
            .collect();
        entries.sort_unstable();
        entries
    }
}

/// A full table on its way into a run.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) seen: Seen,
    pub(super) first: Lsn,
    pub(super) last: Lsn,
}

/// Everything that is under the lock of the index.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) active: Seen,
    pub(super) sealed: Option<Arc<Sealed>>,
    pub(super) reserved: HashSet<Key, Hashed>,
    pub(super) covered: Lsn,
    ahead: BTreeMap<Lsn, Lsn>,
    /// Ids that were above `covered` when they came. As many as appends are in flight.
    early: Vec<Entry>,
    /// In order of their stretches, without gaps, up to the sealed or the active table.
    pub(super) runs: Arc<Vec<Arc<Run>>>,
    /// Why the sealed table could not be written, until it is.
    pub(super) failed: Option<Error>,
    pub(super) is_stopping: bool,
    /// Appends that wait for reservations of others.
    pub(super) waiting: usize,
}

impl Table {
    pub(super) fn new(runs: Vec<Arc<Run>>, active: Seen, covered: Lsn) -> Self {
        Self {
            active,
            sealed: None,
            reserved: HashSet::default(),
            covered,
            ahead: BTreeMap::new(),
            early: Vec::new(),
            runs: Arc::new(runs),
            failed: None,
            is_stopping: false,
            waiting: 0,
        }
    }

    /// The events from `first` to `last` are durable, and these are their ids.
    pub(super) fn keep(&mut self, ids: &[(Key, Lsn)], first: Lsn, last: Lsn) {
        for &(key, lsn) in ids {
            self.active.add(key, lsn);
        }
        self.ahead.insert(first, last);
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() <= self.covered.next()
        {
            self.covered = self.covered.max(entry.remove());
        }
        if self.ahead.is_empty() {
            self.early.clear();
        } else {
            let covered = self.covered;
            let ids = ids.iter().map(|&(key, lsn)| Entry { key, lsn });
            self.early.extend(ids);
            self.early.retain(|id| id.lsn > covered);
        }
    }

    /// Where the stretch of the active table begins.
    pub(super) fn active_first(&self) -> Lsn {
        let last = match (&self.sealed, self.runs.last()) {
            (Some(sealed), _) => sealed.last,
            (None, Some(run)) => run.span.last,
            (None, None) => Lsn::ZERO,
        };
        last.next()
    }

    /// Records that an open would read again if the process ended.
    pub(super) fn unwritten(&self) -> u64 {
        (self.covered.get() + 1).saturating_sub(self.active_first().get())
    }

    /// Moves the active table aside, and begins one with the ids above `covered`: the run will hold none
    /// of them.
    pub(super) fn seal(&mut self) {
        let first = self.active_first();
        let mut seen = Seen::default();
        for id in &self.early {
            seen.add(id.key, id.lsn);
        }
        self.sealed = Some(Arc::new(Sealed {
            first,
            last: self.covered,
            seen: std::mem::replace(&mut self.active, seen),
        }));
    }
}
