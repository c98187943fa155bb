//! Small evidence for tests.

use std::collections::BTreeSet;

use wal::{Epoch, Lsn};

use super::{Config, EpochId, Mode, NodeId, Policy, Position, Record, Sealed, Version};

pub(crate) fn nodes(ids: impl IntoIterator<Item = u128>) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

pub(crate) fn position(epoch: u64, lsn: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        lsn: Lsn::new(lsn),
    }
}

pub(crate) fn config(members: u128, mode: Mode) -> Config {
    Config {
        version: Version::default(),
        members: nodes(1..=members),
        mode,
        policy: Policy::Refuse,
        previous: None,
    }
}

/// What a sound node of a group of `members` answers, that knows node 1 as the holder of epoch 1.
pub(crate) fn sealed(members: u128, mode: Mode, end: Position) -> Sealed {
    Sealed {
        flushed: end,
        flushed_id: EpochId(end.epoch.0.into()),
        committed: Lsn::ZERO,
        config: config(members, mode),
        holders: nodes([1]),
        is_amnesiac: false,
    }
}

pub(crate) fn record() -> Record {
    let origin = (Epoch(1), EpochId(1), NodeId(1));
    Record {
        promised: origin,
        granted: origin,
        holders: nodes([1]),
        start: None,
        previous_end: Position::default(),
        config: config(3, Mode::Sync(1)),
        is_amnesiac: false,
        reason: "for a test".to_owned(),
    }
}
