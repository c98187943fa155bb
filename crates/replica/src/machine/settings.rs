//! What an operator set, and the bounds of the machine.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use wal::Epoch;

use super::NodeId;

/// Members of a group; a handful is what it is for. The record on disk has room for so many.
pub const MEMBERS_MAX: usize = 16;

/// How many durable copies an acknowledgement needs besides the primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    Async,
    /// At least one; `Sync(members - 1)` is `All` as long as nobody joins.
    Sync(u32),
    All,
}

impl Mode {
    /// Copies besides the primary's, for so many members.
    pub fn copies(self, members: usize) -> usize {
        match self {
            Self::Async => 0,
            Self::Sync(copies) => usize::try_from(copies).unwrap_or(usize::MAX),
            Self::All => members.saturating_sub(1),
        }
    }
}

/// What happens to a write when too few replicas are in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    Refuse,
    /// Waits, up to [`Limits::write_wait`].
    Wait,
}

/// The epoch under which a configuration was made, or taken over by a promotion, and its number there.
/// Without the epoch two primaries could give one number to two configurations.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version {
    pub epoch: Epoch,
    pub number: u64,
}

/// Members and mode. Changed only by the primary at an operator's order, one member at a time; in
/// force once a majority of the old and of the new members has it on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Of two configurations of a cluster the higher one counts.
    pub version: Version,
    /// The primary among them.
    pub members: BTreeSet<NodeId>,
    pub mode: Mode,
    pub policy: Policy,
    /// What it takes the place of, as long as an acknowledged record may lie on no more copies than
    /// that one asked for: a promotion must satisfy both. The next version is without it.
    pub previous: Option<Replaced>,
}

impl Config {
    /// No more members than a record on disk has room for. What a peer sends is asked that.
    pub fn is_of_a_size(&self) -> bool {
        let previous = self.previous.iter();
        let mut all = previous
            .map(|previous| &previous.members)
            .chain([&self.members]);
        all.all(|members| members.len() <= MEMBERS_MAX)
    }
}

/// What a configuration takes the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    pub members: BTreeSet<NodeId>,
    pub mode: Mode,
}

/// Bounds. A simulation draws its own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A peer that was not heard of for this long is disconnected.
    pub silence: Duration,
    pub heartbeat: Duration,
    /// Bytes and records sent to a replica and not yet acknowledged as durable.
    pub window_bytes: u64,
    pub window_records: u64,
    /// One message of entries.
    pub entries_bytes: u64,
    /// A catch-up, or the making of a base: how long in all. A catch-up: how many records. Either, and the
    /// sending of a base: how long without progress.
    pub catch_up_duration: Duration,
    pub catch_up_records: u64,
    pub progress: Duration,
    /// Writes that wait for copies; above it they are refused.
    pub waiting_writes: usize,
    pub write_wait: Duration,
    /// Rebuilds at once.
    pub rebuilds: usize,
    /// Answers of a promotion are waited for this long; then it is denied by what is known.
    pub validation: Duration,
    /// Records held back from removal for one replica; beyond it the hold becomes a set of changes.
    pub retained_records: u64,
    /// A lease ends this long before the coordinator says so.
    pub lease_margin: Duration,
    /// Lines of the recovery log kept in memory.
    pub log_lines: usize,
}
