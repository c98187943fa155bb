//! Which producers' ids are in the retained range, and who is about to add one.
//!
//! An id goes from *reserved* (an append is under way) to *known* (its event is durable), or back to
//! unknown when the append failed. Reservations are all or nothing, so no two appends wait for each
//! other. A key is a hash: whoever finds one reads the event before believing it, so a collision
//! costs a read and never an event.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::{Condvar, Mutex, MutexGuard},
};

use wal::{Identity, Journal, Lsn};
use xxhash_rust::xxh3;

use crate::{
    Error,
    event::{PRODUCER_ID_LEN_MAX, SOURCE_LEN_MAX},
    record::{self, View},
};

/// Positions that one key may stand for. More than one means that hashes collide, and that is
/// either a fortune or an attack: beyond this, an event seen again may be kept again.
const CANDIDATES_MAX: usize = 8;

/// Hash of source and producer's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) [u8; 16]);

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

/// A key is a hash already.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // A key's length prefix and its bytes: the last eight decide.
        let mut last = [0; 8];
        let len = bytes.len().min(8);
        last[..len].copy_from_slice(&bytes[bytes.len() - len..]);
        self.0 = u64::from_le_bytes(last);
    }

    fn write_usize(&mut self, _: usize) {}
}

type Hashed = BuildHasherDefault<AsIs>;

/// The positions of one key, oldest first.
#[derive(Clone, Debug)]
enum Positions {
    One(Lsn),
    Several(Vec<Lsn>),
}

impl Positions {
    fn as_slice(&self) -> &[Lsn] {
        match self {
            Self::One(lsn) => std::slice::from_ref(lsn),
            Self::Several(lsns) => lsns,
        }
    }

    fn add(&mut self, lsn: Lsn) {
        match self {
            Self::One(first) => *self = Self::Several(vec![*first, lsn]),
            Self::Several(lsns) if lsns.len() < CANDIDATES_MAX => lsns.push(lsn),
            Self::Several(_) => {}
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Key, Positions, Hashed>,
    reserved: HashSet<Key, Hashed>,
}

/// The index of ids.
pub(crate) struct Ids {
    keys: Keys,
    table: Mutex<Table>,
    /// Told when reservations end.
    ended: Condvar,
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").finish_non_exhaustive()
    }
}

/// Keys that one append holds. Dropped without [`Reservation::keep`], they are unknown again.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    ids: &'a Ids,
    keys: Vec<Key>,
}

impl Ids {
    pub(crate) fn open(journal: &dyn Journal) -> Result<Self, Error> {
        let keys = Keys::new(journal.identity());
        let mut table = Table::default();
        let records = journal
            .read(journal.first_retained())
            .map_err(|error| Error::journal("index the producers' ids", error))?;
        for record in records {
            let record =
                record.map_err(|error| Error::journal("index the producers' ids", error))?;
            if record.kind != record::KIND {
                continue;
            }
            let Ok(view) = View::of(&record.bytes) else {
                continue;
            };
            if let Some(id) = view.producer_id {
                table.add(keys.key(view.source, id), record.lsn);
            }
        }
        Ok(Self {
            keys,
            table: Mutex::new(table),
            ended: Condvar::new(),
        })
    }

    pub(crate) fn keys(&self) -> Keys {
        self.keys
    }

    /// Waits until no other append holds any of `keys`, then holds them all.
    pub(crate) fn reserve(&self, keys: Vec<Key>) -> Reservation<'_> {
        let mut table = self.table();
        while keys.iter().any(|key| table.reserved.contains(key)) {
            table = self.ended.wait(table).expect(LOCK_HELD);
        }
        table.reserved.extend(&keys);
        drop(table);
        Reservation { ids: self, keys }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect(LOCK_HELD)
    }
}

const LOCK_HELD: &str = "no thread panics while it holds this lock";

impl Table {
    fn add(&mut self, key: Key, lsn: Lsn) {
        self.known
            .entry(key)
            .and_modify(|positions| positions.add(lsn))
            .or_insert(Positions::One(lsn));
    }
}

impl Reservation<'_> {
    /// Where events of these keys may be, per key.
    pub(crate) fn candidates(&self) -> Result<BTreeMap<Key, Vec<Lsn>>, Error> {
        let table = self.ids.table();
        Ok(self
            .keys
            .iter()
            .filter_map(|key| Some((*key, table.known.get(key)?.as_slice().to_vec())))
            .collect())
    }

    /// What was reserved and is durable now.
    pub(crate) fn keep(self, stored: &[(Key, Lsn)]) {
        let mut table = self.ids.table();
        for (key, lsn) in stored {
            table.add(*key, *lsn);
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut table = self.ids.table();
        for key in &self.keys {
            table.reserved.remove(key);
        }
        drop(table);
        self.ids.ended.notify_all();
    }
}
