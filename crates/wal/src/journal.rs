//! The trait [`Journal`] and its vocabulary.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Position of a record: from 1, contiguous, never reset and never reused within a generation.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first record: the safe point of an empty journal.
    pub const ZERO: Self = Self(0);
    pub const FIRST: Self = Self(1);

    pub const fn new(position: u64) -> Self {
        Self(position)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of the authority to write. Rises only by promotion.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

/// Which journal, for ever. Random, made when the directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JournalId(pub [u8; 16]);

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Rises at each operator reset, so that a position of an earlier life is never taken for one of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u32);

/// Which log of a journal: random, drawn whenever one is made, so that a log that was lost and made
/// again, under whatever identity, is told from the one that somebody relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Birth(pub u128);

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub journal: JournalId,
    pub generation: Generation,
}

/// What a record means to its reader; opaque here. 0 is never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKind(pub u8);

impl RecordKind {
    /// The journal's own, the first record of a generation that an operator's reset began: one line
    /// of text. Whoever reads a journal passes over it, as over any kind that is not its own.
    pub const RESET: Self = Self(255);
}

/// A record as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub lsn: Lsn,
    pub epoch: Epoch,
    pub kind: RecordKind,
    pub bytes: Vec<u8>,
}

/// The positions that an append was given, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub first: Lsn,
    pub last: Lsn,
}

/// Records in order of their positions. Ends at the safe point as it was when the read began.
pub type Records<'a> = Box<dyn Iterator<Item = Result<Record, Error>> + Send + 'a>;

/// An append-only log with a durable safe point: everything at or below it was acknowledged, or
/// may have been. The safe point never moves back, unless the owner of a replicated journal cuts what
/// it had shown ([`crate::Local::truncate_after`]).
///
/// Every implementation passes [`crate::conformance`].
pub trait Journal: Send + Sync + fmt::Debug {
    fn identity(&self) -> Identity;

    /// Appends all records, in order and at contiguous positions, or none. Returns once they are
    /// durable; concurrent callers share a sync. An error leaves no hole: unless it is of kind
    /// `Poisoned` or `Fenced`, the next append gets the positions this one would have had.
    fn append(&self, records: &[(RecordKind, &[u8])]) -> Result<Appended, Error>;

    /// The last position that readers see; `Lsn::ZERO` when empty.
    fn safe_point(&self) -> Lsn;

    /// The oldest position still readable. `safe_point().next()` when nothing is.
    fn first_retained(&self) -> Lsn;

    /// Records from `from` on, up to the safe point. Never blocks an append. `from` below the
    /// retained range is an error of kind `OutOfRange` that names the range.
    fn read(&self, from: Lsn) -> Result<Records<'_>, Error>;

    /// Waits until the safe point is above `seen`, at most `timeout`, and returns it. This is how a
    /// reader follows the tail.
    fn wait_above(&self, seen: Lsn, timeout: Duration) -> Lsn;

    /// Holds everything from `from` on against [`Journal::release_below`] until the pin is dropped.
    fn pin(&self, from: Lsn) -> Result<Pin, Error>;

    /// Says that the owner no longer needs what is below `keep_from`. Removes whole segments that no
    /// pin holds; keeps more than asked, never less.
    fn release_below(&self, keep_from: Lsn) -> Result<(), Error>;

    /// Places above `from` at which what lies below may go, the oldest first and the end last, and about
    /// how many bytes lie between `from` and each of them, never more. So whoever keeps some bytes of it
    /// for others need not have counted since the first of them. Empty where nobody knows.
    fn milestones(&self, from: Lsn) -> Vec<(Lsn, u64)> {
        let _ = from;
        Vec::new()
    }

    /// Makes the watermark of everything acknowledged so far durable beside the data, so that the
    /// next open can tell damage from a torn tail up to the last record.
    fn settle(&self) -> Result<(), Error>;
}

/// A retention hold. Dropping it releases.
pub struct Pin {
    from: Lsn,
    lost_after: Arc<OnceLock<Lsn>>,
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Pin {
    pub fn new(from: Lsn, release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self {
            from,
            lost_after: Arc::default(),
            release: Some(Box::new(release)),
        }
    }

    #[must_use]
    pub(crate) fn told_of_cuts(mut self, lost_after: Arc<OnceLock<Lsn>>) -> Self {
        self.lost_after = lost_after;
        self
    }

    /// Whether what is held is there. `OutOfRange`: it was cut, and other records come in its place.
    pub fn check(&self) -> Result<(), Error> {
        match self.lost_after.get() {
            Some(&keep) => Err(crate::cut::lost(self.from, keep)),
            None => Ok(()),
        }
    }

    pub fn from(&self) -> Lsn {
        self.from
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pin").field(&self.from).finish()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}
