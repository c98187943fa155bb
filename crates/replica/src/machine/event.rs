//! What happens to a node.

use std::collections::BTreeMap;

use wal::{Epoch, Lsn, RecordKind};

use super::{Config, Entry, EpochId, History, Message, NodeId, Outcome, Position, SessionId};

/// What a node finds on its disk when it starts.
#[derive(Clone, Debug)]
pub struct Durable {
    /// Highest epoch promised or held, its id, and who asked for it.
    pub promised: (Epoch, EpochId, NodeId),
    /// The authority that was granted last, as far as this node knows.
    pub granted: (Epoch, EpochId, NodeId),
    pub config: Config,
    /// The log: its last position, its oldest record, its epochs.
    pub end: Position,
    pub first_retained: Lsn,
    pub history: History,
    /// Known to be committed; the truth may be higher.
    pub committed: Lsn,
    pub derived: Lsn,
    /// The disk has less than this node had promised, or a rebuild was not finished.
    pub is_amnesiac: bool,
}

/// An operator's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Promote {
        /// The node that was told, which must be this one.
        node: NodeId,
        /// The mode after it; `None` keeps it.
        config: Option<Config>,
        /// A fencing statement, in the operator's words: what may be lost is accepted.
        force: Option<String>,
    },
    Switchover {
        to: NodeId,
    },
    /// Members or mode; `fenced` names members that will not be promoted without force (they were
    /// stopped), for a change that they cannot be told of.
    Configure {
        config: Config,
        fenced: BTreeMap<NodeId, String>,
    },
    /// End the session and begin another, to be chosen afresh.
    Reattach {
        replica: NodeId,
    },
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A client's write, all or nothing. Answered by [`super::Effect::Answer`] with the same number.
    Write {
        number: u64,
        records: Vec<(RecordKind, Vec<u8>)>,
    },
    /// A client's read that must see every write acknowledged before it began.
    Confirm {
        number: u64,
    },
    Received(Message),
    /// A peer can be reached, at an address of this version; ids are fresh random numbers.
    Connected {
        peer: NodeId,
        endpoint: u64,
        session: SessionId,
    },
    Disconnected {
        peer: NodeId,
    },
    /// The log is durable up to here: an answer to `Append`, in order.
    Flushed(Position),
    /// An append or a cut failed: the log takes nothing more until the node starts again.
    LogFailed {
        reason: String,
    },
    /// Answer to `Keep`: the record with this number is on disk, or is not.
    Kept {
        number: u64,
        is_durable: bool,
    },
    /// Answer to `Truncate`.
    Truncated {
        end: Position,
    },
    /// Answer to `Read`. Short when the limit of bytes is reached; an error when a record is gone or
    /// does not verify.
    ReadBack {
        session: SessionId,
        entries: Result<Vec<Entry>, Outcome>,
    },
    /// Answer to `OpenBase`: a checkpoint of derived state at `base`, held until `Release`.
    BaseOpened {
        session: SessionId,
        base: Option<BaseFound>,
    },
    BaseRead {
        session: SessionId,
        index: u32,
        bytes: Option<Vec<u8>>,
    },
    /// Answer to `StoreBase` and `BeginBase`.
    BaseStored {
        session: SessionId,
        parts: u32,
    },
    /// Derived state of this node's owner reached here.
    Applied {
        applied: Lsn,
        derived: Lsn,
    },
    /// Retention removed what lies below; or would, were it not for holds.
    Retained {
        first: Lsn,
        wants: Lsn,
    },
    /// A coordinator granted the right to hold an epoch until this time of this node's clock.
    Leased {
        epoch: Epoch,
        until: super::Time,
    },
    /// The lease is gone for good.
    LeaseLost,
    /// An operator or a coordinator; `epoch_id` is a fresh random number for an epoch to be minted.
    Ordered {
        number: u64,
        order: Order,
        epoch_id: EpochId,
    },
    /// Time passed. Nothing happens by time alone but giving up.
    Tick,
}

/// A checkpoint that a rebuild may start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseFound {
    pub base: Position,
    pub parts: u32,
    /// The parts hold only what changed since then.
    pub since: Option<Lsn>,
}
