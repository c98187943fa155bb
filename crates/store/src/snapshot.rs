//! Reading at one position.

use std::{fmt, sync::Arc};

use wal::Lsn;
use world::Timestamp;

use crate::{Bytes, Commit, Error, Keys, TableId, horizon::Hold, store::Inner, tree::TreeRange};

/// All tables as they were at one position. Blocks no writer, and is blocked by none; what it sees
/// is kept until it is dropped.
pub struct Snapshot {
    inner: Arc<Inner>,
    hold: Hold,
    time: Timestamp,
}

/// Keys and values in order of their keys, from either end. `take` limits it.
pub struct Range(TreeRange);

impl Snapshot {
    pub(crate) fn new(inner: Arc<Inner>, hold: Hold, time: Timestamp) -> Self {
        Self { inner, hold, time }
    }

    pub fn lsn(&self) -> Lsn {
        self.hold.lsn()
    }

    /// Time of the newest commit that is seen; of the store's creation when there is none.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    pub fn commit(&self) -> Commit {
        Commit {
            lsn: self.lsn(),
            time: self.time,
        }
    }

    /// `OutOfRange` when the table's history is shorter than back to this position.
    pub fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.inner.readable(table, self.lsn())?.get(key, self.lsn())
    }

    /// `OutOfRange` when the table's history is shorter than back to this position. A range that
    /// is not limited reads as much as there is.
    pub fn range(&self, table: TableId, keys: &Keys) -> Result<Range, Error> {
        let tree = self.inner.readable(table, self.lsn())?;
        Ok(Range(tree.range(keys, self.lsn())))
    }
}

impl Iterator for Range {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back()
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
