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

/// A beginning of a session by the replica that it is with, unique for ever: counted from a random number
/// that is drawn in each life of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment(pub u128);

/// A session with a replica, unique for ever: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u128);

/// Monotonic time of one node, from an arbitrary start. Comparable on that node only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Duration);

impl Time {
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

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

/// No epoch gets here: a message that names a higher one is damaged, and a promise of it would leave no
/// number for a promotion. 2^62 by eye.
pub(super) const EPOCH_MAX: Epoch = Epoch(1 << 62);

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

/// What every log of one journal and generation begins with, announced or not.
const ORIGIN: EpochStart = EpochStart {
    epoch: Epoch(0),
    id: EpochId(0),
    first: Lsn::FIRST,
};

impl History {
    /// The epoch that the record at `lsn` was written under, if the log goes that far.
    pub fn at(&self, lsn: Lsn) -> EpochStart {
        let started = self.starts.iter().rev().find(|start| start.first <= lsn);
        started.copied().unwrap_or(ORIGIN)
    }

    /// Whether a log with this history and this end has `position`.
    pub fn has(&self, end: Position, position: Position) -> bool {
        position.lsn <= end.lsn
            && (position == Position::default()
                || (position.lsn > Lsn::ZERO && self.at(position.lsn).epoch == position.epoch))
    }

    /// Whether it can be the history of a log with this end. What comes from a peer is asked that first.
    pub fn is_sound(&self, end: Position) -> bool {
        let first = self.starts.first();
        let mut pairs = self.starts.iter().zip(self.starts.iter().skip(1));
        end.lsn < LSN_MAX
            && first.is_none_or(|start| start.epoch > ORIGIN.epoch && start.first >= Lsn::FIRST)
            && pairs.all(|(one, next)| one.epoch < next.epoch && one.first < next.first)
            && self
                .starts
                .last()
                .is_none_or(|start| start.first <= end.lsn)
            && self.has(end, end)
    }

    pub fn begin(&mut self, start: EpochStart) {
        self.starts.push(start);
    }

    /// Forgets what began behind `keep`.
    pub fn cut(&mut self, keep: Lsn) {
        self.starts.retain(|start| start.first <= keep);
    }

    /// The last position that two logs have in common: the highest epoch, by id, that both have, and in
    /// it the smaller of its two ends. Numbers alone agree on nothing.
    pub fn common(&self, end: Position, other: &Self, other_end: Position) -> Position {
        let shared = other
            .starts
            .iter()
            .rev()
            .find(|start| self.starts.contains(start));
        let start = shared.copied().unwrap_or(ORIGIN);
        let lsn = self.end_of(start, end).min(other.end_of(start, other_end));
        Position {
            epoch: if lsn == Lsn::ZERO {
                ORIGIN.epoch
            } else {
                start.epoch
            },
            lsn,
        }
    }

    /// The last record of an epoch in a log that ends at `end`.
    fn end_of(&self, start: EpochStart, end: Position) -> Lsn {
        let next = self.starts.iter().find(|next| next.epoch > start.epoch);
        next.map_or(end.lsn, |next| Lsn::new(next.first.get() - 1))
    }
}

/// No log gets here; positions of a peer beyond it are not computed with. 2^62 by eye.
pub(super) const LSN_MAX: Lsn = Lsn::new(1 << 62);
