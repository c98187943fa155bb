//! Reading at one position.

use std::{fmt, sync::Arc};

use wal::Lsn;
use world::Timestamp;

use crate::{
    Bytes, Commit, Error, Keys, Order, TableId, engine::Reader, horizon::Hold, local::Inner,
    paged::Paged, tree::TreeRange,
};

/// All tables as they were at one position. Blocks no writer, and is blocked by none; what it sees
/// is kept until it is dropped.
pub struct Snapshot {
    kept: Kept,
    commit: Commit,
}

enum Kept {
    Here { inner: Arc<Inner>, hold: Hold },
    Elsewhere(Arc<dyn Reader>),
}

/// Keys and values in order of their keys, from either end. `take` limits it.
pub struct Range(Rows);

enum Rows {
    Here(TreeRange),
    Elsewhere(Box<Paged>),
}

impl Snapshot {
    pub(crate) fn here(inner: Arc<Inner>, hold: Hold, time: Timestamp) -> Self {
        let lsn = hold.lsn();
        Self {
            kept: Kept::Here { inner, hold },
            commit: Commit { lsn, time },
        }
    }

    pub(crate) fn elsewhere(reader: Box<dyn Reader>) -> Self {
        Self {
            commit: reader.commit(),
            kept: Kept::Elsewhere(reader.into()),
        }
    }

    pub fn lsn(&self) -> Lsn {
        self.commit.lsn
    }

    /// Time of the newest commit that is seen; of the store's creation when there is none.
    pub fn time(&self) -> Timestamp {
        self.commit.time
    }

    pub fn commit(&self) -> Commit {
        self.commit
    }

    /// `OutOfRange` when the table's history is shorter than back to this position.
    pub fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match &self.kept {
            Kept::Here { inner, hold } => inner.readable(table, hold.lsn())?.get(key, hold.lsn()),
            Kept::Elsewhere(reader) => Ok(reader.get_many(&[(table, key)])?.pop().flatten()),
        }
    }

    /// As [`Snapshot::get`] for each of `keys`, in their order. Elsewhere it is one round trip.
    pub fn get_many(&self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error> {
        match &self.kept {
            Kept::Here { .. } => keys
                .iter()
                .map(|(table, key)| self.get(*table, key))
                .collect(),
            Kept::Elsewhere(reader) => reader.get_many(keys),
        }
    }

    /// `OutOfRange` when the table's history is shorter than back to this position. A range that
    /// is not limited reads as much as there is.
    pub fn range(&self, table: TableId, keys: &Keys) -> Result<Range, Error> {
        Ok(Range(match &self.kept {
            Kept::Here { inner, hold } => {
                Rows::Here(inner.readable(table, hold.lsn())?.range(keys, hold.lsn()))
            }
            Kept::Elsewhere(reader) => {
                Rows::Elsewhere(Box::new(Paged::new(Arc::clone(reader), table, keys)))
            }
        }))
    }
}

impl Iterator for Range {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Rows::Here(range) => range.next(),
            Rows::Elsewhere(paged) => paged.next(Order::Ascending),
        }
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Rows::Here(range) => range.next_back(),
            Rows::Elsewhere(paged) => paged.next(Order::Descending),
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.lsn()).finish()
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range").finish_non_exhaustive()
    }
}
