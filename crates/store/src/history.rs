//! Commits by time, and the range of positions that can still be read.

use std::{fmt, sync::Arc};

use lsm_tree::Slice;
use wal::Lsn;
use world::Timestamp;

use crate::{
    Error, Keys, Kind,
    tree::{Memory, Tree},
};

/// Position and time of a commit. Times rise strictly with positions: a clock that was stepped
/// back does not take them along, they then advance by a nanosecond until it has caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit {
    pub lsn: Lsn,
    pub time: Timestamp,
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn {} ({})", self.lsn, moment(self.time))
    }
}

/// The oldest and the newest position that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    pub from: Commit,
    pub to: Commit,
}

impl fmt::Display for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// As RFC 3339 in UTC.
pub(crate) fn moment(time: Timestamp) -> impl fmt::Display {
    jiff::Timestamp::from_nanosecond(i128::from(time.nanos()))
        .expect("64 bits of nanoseconds end in the year 2554")
}

/// The time of each retained commit: a table of its own, from position to time.
pub(crate) struct CommitTimes(pub(crate) Arc<Tree>);

impl CommitTimes {
    pub(crate) fn record(memory: &Memory, commit: Commit) {
        let key = Slice::from(commit.lsn.get().to_be_bytes());
        let time = commit.time.nanos().to_le_bytes();
        memory.set(&key, Some(&time), commit.lsn);
    }

    /// The newest commit at or below `lsn`, of those visible at `at`.
    pub(crate) fn at_or_below(&self, lsn: Lsn, at: Lsn) -> Result<Option<Commit>, Error> {
        // One above, excluded, would overflow at the last position; there is none so high.
        let end = lsn.next().get().to_be_bytes();
        let keys = Keys::between(&0u64.to_be_bytes(), &end);
        let Some(item) = self.0.range(&keys, at).next_back() else {
            return Ok(None);
        };
        let (key, value) = item?;
        let (Ok(lsn), Ok(nanos)) = ((*key).try_into(), (*value).try_into()) else {
            let message = "the index of commit times holds an entry of the wrong length";
            return Err(Error::new(Kind::Corrupt, message));
        };
        Ok(Some(Commit {
            lsn: Lsn::new(u64::from_be_bytes(lsn)),
            time: Timestamp::from_nanos(u64::from_le_bytes(nanos)),
        }))
    }

    /// The newest commit not after `time`, of those visible at `at`. A binary search, because
    /// times rise with positions.
    pub(crate) fn not_after(&self, time: Timestamp, at: Lsn) -> Result<Option<Commit>, Error> {
        let mut best = None;
        let (mut low, mut high) = (1, at.get());
        while low <= high {
            let middle = low + (high - low) / 2;
            match self.at_or_below(Lsn::new(middle), at)? {
                Some(commit) if commit.time > time => high = commit.lsn.get() - 1,
                found => {
                    best = found.or(best);
                    low = middle + 1;
                }
            }
        }
        Ok(best)
    }
}
