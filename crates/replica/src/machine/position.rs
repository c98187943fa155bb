//! Identities, positions and time of the machine.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use wal::{Epoch, Lsn};

/// A node, for ever: random, made by `node init`. Never derived from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u128);

/// Tells two epochs apart that were minted with the same number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct EpochId(pub u128);

/// A session with a replica, unique for ever: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u128);

/// Monotonic time of one node, from an arbitrary start. Comparable on that node only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Duration);

/// A record and the authority it was written under. Two logs that have the same position, by
/// number and [`EpochId`], have the same records up to it.
///
/// Ordered by epoch first: of two logs the one whose last position is higher has every record that
/// was acknowledged to a client in the other.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    pub epoch: Epoch,
    pub lsn: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch.0, self.lsn)
    }
}

/// How many epochs one promotion reserves: a holder that starts again goes on under the next number,
/// with nobody's leave, as long as that is below the next multiple. A promotion takes a multiple above
/// everything it heard of, so it is always above all starts of a holder that it did not reach.
/// A holder that used up its starts (a power of two, by eye) is promoted anew.
pub const STARTS: u64 = 1 << 16;

/// The epoch of a promotion that heard of no higher one. `None` where numbers end.
pub fn next_promotion(highest: Epoch) -> Option<Epoch> {
    (highest.0 / STARTS + 1).checked_mul(STARTS).map(Epoch)
}

/// The epoch under which the holder of this one goes on when it starts again.
pub fn next_start(epoch: Epoch) -> Option<Epoch> {
    let next = epoch.0.checked_add(1)?;
    (next % STARTS != 0).then_some(Epoch(next))
}

/// Where an epoch began in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    pub epoch: Epoch,
    pub id: EpochId,
    /// Its first record, the one that announces it.
    pub first: Lsn,
}

/// The epochs of a log, oldest first: numbers and first positions rise strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    pub starts: Vec<EpochStart>,
}
