//! Identities, positions and time of the machine.

use std::{fmt, time::Duration};

use wal::{Epoch, Lsn};

/// A node, for ever: random, made by `node init`. Never derived from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u128);

/// Tells two epochs apart that were minted with the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochId(pub u128);

/// A session with a replica, unique for ever: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

/// Monotonic time of one node, from an arbitrary start. Comparable on that node only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Duration);

/// A record and the authority it was written under. Two logs that have the same position, by
/// number and [`EpochId`], have the same records up to it.
///
/// Ordered by epoch first: of two logs the one whose last position is higher has every record that
/// was acknowledged to a client in the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub epoch: Epoch,
    pub lsn: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch.0, self.lsn)
    }
}

/// Where an epoch began in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: Epoch,
    pub id: EpochId,
    /// Its first record, the one that announces it.
    pub first: Lsn,
}

/// The epochs of a log, oldest first: numbers and first positions rise strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub starts: Vec<EpochStart>,
}
