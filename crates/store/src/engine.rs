//! What a [`crate::Store`] needs of something that keeps tables elsewhere: in another process, in a
//! database server.
//!
//! An engine keeps rows, positions and times, and decides which transactions could have run alone.
//! It does not know a transaction's writes before the end: [`crate::Transaction`] keeps them, lays
//! them over what is read, and checks their lengths, for every engine the same way. Every engine
//! passes [`crate::conformance`].

use std::fmt;

use wal::Lsn;
use world::Timestamp;

use crate::{Bytes, Commit, Error, Keys, Order, Outcome, Retained, TableId};

/// Keys and values in the order in which they were asked for.
pub type Rows = Vec<(Bytes, Bytes)>;

/// Tables that are kept elsewhere. All calls block.
pub trait Engine: Send + Sync + fmt::Debug {
    /// `Invalid` when there is no such table.
    fn table(&self, name: &str) -> Result<TableId, Error>;

    fn table_name(&self, table: TableId) -> Result<String, Error>;

    /// Position and time of the newest commit; those of the beginning when there is none.
    fn newest(&self) -> Result<Commit, Error>;

    /// The newest commit at or below `lsn`, as position `lsn`. `OutOfRange` outside of what is
    /// retained.
    fn at(&self, lsn: Lsn) -> Result<Commit, Error>;

    /// The newest commit dated at or before `time`. Later commits are dated after `time`, so that
    /// the same question has the same answer again. `OutOfRange` for a time that is still to come,
    /// or before what is retained.
    fn at_time(&self, time: Timestamp) -> Result<Commit, Error>;

    fn retained(&self) -> Result<Retained, Error>;

    /// All tables as they were at `at`, which this engine gave.
    fn read(&self, at: Commit) -> Result<Box<dyn Reader>, Error>;

    /// Everything committed so far. For engines that need fewer round trips for it.
    fn read_newest(&self) -> Result<Box<dyn Reader>, Error> {
        self.read(self.newest()?)
    }

    /// A transaction that sees everything committed so far.
    fn begin(&self) -> Result<Box<dyn Work>, Error>;

    /// As [`crate::Store::hurry`].
    fn hurry(&self) {}

    /// Ends this handle. What is read and written through it later is refused as `Closed`.
    fn close(&self) -> Result<(), Error>;
}

/// One position. Asked again, it answers the same. Dropped, it holds nothing.
pub trait Reader: Send + Sync + fmt::Debug {
    fn commit(&self) -> Commit;

    /// One answer for each key, in the order of `keys`. `OutOfRange` when a table's history is
    /// shorter than back to this position.
    fn get_many(&self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error>;

    /// At most `limit` rows, from the end of `keys` that `order` begins at. Fewer only when there
    /// are no more.
    fn page(&self, table: TableId, keys: &Keys, order: Order, limit: usize) -> Result<Rows, Error>;
}

/// A transaction under way: it sees the position at which it began, none of its own writes, and the
/// engine remembers what it read. Dropped, it is given up.
pub trait Work: Send + fmt::Debug {
    /// The commit at which it began.
    fn commit_seen(&self) -> Commit;

    /// As [`Reader::get_many`]; absence is read too.
    fn get_many(&mut self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error>;

    /// As [`Reader::page`]. What was looked at, gaps included, is read: all of `keys`, or up to the
    /// last row of a page that is full.
    fn page(
        &mut self,
        table: TableId,
        keys: &Keys,
        order: Order,
        limit: usize,
    ) -> Result<Rows, Error>;

    /// At most `limit` rows in ascending order, this transaction's until it ends. An engine whose
    /// transactions wait for each other leaves out what another one has claimed and has not ended;
    /// one whose transactions conflict may give it, and lets only one of them commit.
    fn claim(&mut self, table: TableId, keys: &Keys, limit: usize) -> Result<Rows, Error>;

    /// Writes all of `writes`, which are in order of tables and keys and name none twice, or nothing.
    /// `Conflict`: what was read is not what is there any more, nothing was written. `InDoubt`: it
    /// cannot be told. `date` and `once` are as in [`crate::Transaction::commit_dated`] and
    /// [`crate::Transaction::commit_once`].
    fn finish(
        self: Box<Self>,
        writes: Vec<Write>,
        date: Option<Timestamp>,
        once: Option<&[u8]>,
    ) -> Result<Outcome, Error>;
}

/// One write; without a value it deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub table: TableId,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}
