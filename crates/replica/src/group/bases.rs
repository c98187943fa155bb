//! The seam to whoever keeps state derived from the journal: where a base comes from, and where it goes.
//!
//! A base is a first part that says what the others are, and the others, in order. What is in them the
//! group does not know. Everything here is called on one thread of the group, which may be kept waiting:
//! beside it the log goes on. An error is said to the other side, and shown there: it names what could
//! not be done.

use std::{fmt::Debug, sync::Arc};

use wal::Lsn;

/// State derived from the journal, as it is on this disk when a group is opened.
#[derive(Clone, Debug)]
pub struct Derived {
    /// Everything up to here is in it: what it lacks is in the log above. A log that does not reach down
    /// to it has lost a part of this node, and a base has to come.
    pub holds: Lsn,
    /// Nothing above here is in it. Only what is committed is ever derived.
    pub reaches: Lsn,
    /// The log that it is of was thrown away for a base that did not come whole: it is of no use, whatever
    /// its positions.
    pub is_superseded: bool,
    pub bases: Arc<dyn Bases>,
}

/// Whoever keeps that state.
pub trait Bases: Debug + Send + Sync {
    /// What a copy can be made of, held until it is dropped: what changed above `since` where that can be
    /// told, else all of it. It reaches no further than what the journal lets one read.
    fn open(&self, since: Option<Lsn>) -> Result<Box<dyn Base>, String>;

    /// A base of so many parts comes: closes the state, so that nobody reads from the log any more, and
    /// keeps it closed until what is returned is dropped. Refuses what there is no room for, before anything
    /// is changed. A failure leaves all as it was.
    fn receive(&self, parts: u32, since: Option<Lsn>) -> Result<Box<dyn Receiving>, String>;
}

/// A base that is held.
pub trait Base: Debug + Send {
    /// Everything up to here is in it; the journal goes on behind.
    fn lsn(&self) -> Lsn;
    /// Only what changed above here is in it.
    fn since(&self) -> Option<Lsn>;
    /// Why it is all of the state, where what changed was asked for.
    fn made(&self) -> Option<String>;
    fn parts(&self) -> u32;
    /// Of all parts, about.
    fn bytes(&self) -> u64;
    /// Asked again, it is the same.
    fn part(&self, index: u32) -> Result<Vec<u8>, String>;
}

/// A base on its way into the state. Dropped before it is finished, it leaves the state as it was, and
/// that is not to be used once it was superseded.
pub trait Receiving: Debug + Send {
    /// The log is about to be thrown away: durably, what the state holds is not to be used until a base was
    /// finished. Its positions do not say so: it may be of another history than the log that is begun. A
    /// failure leaves all as it was.
    fn supersede(&mut self) -> Result<(), String>;
    /// The next part, in order.
    fn store(&mut self, index: u32, part: &[u8]) -> Result<(), String>;
    /// All parts are there: makes them the state, durably, and tells where it ends: nothing above that is
    /// in it. It is not to be read before the journal lets one read up to there.
    fn finish(self: Box<Self>) -> Result<Lsn, String>;
}

/// A base on its way, from here or to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub is_incoming: bool,
    pub since: Option<Lsn>,
    pub parts: u32,
    /// Read here, or stored.
    pub parts_done: u32,
    pub bytes_done: u64,
    /// Known where it comes from.
    pub bytes: Option<u64>,
}

impl Transfer {
    pub fn is_whole(&self) -> bool {
        self.parts_done >= self.parts
    }
}
