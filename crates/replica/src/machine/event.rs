//! What happens to a node.

use std::{collections::BTreeMap, sync::Arc};

use wal::{Epoch, Lsn, RecordKind};

use super::{
    Config, Entry, EpochId, History, Message, NodeId, Outcome, Position, Record, SessionId,
};

/// What a node finds on its disk when it starts.
#[derive(Clone, Debug)]
pub struct Durable {
    /// What was kept last. Of a node that has none yet: what `group` commands put there.
    pub record: Record,
    /// The log: its last position, its oldest record, its epochs.
    pub end: Position,
    pub first_retained: Lsn,
    pub history: History,
    /// Known to be committed; the truth may be higher.
    pub committed: Lsn,
    pub derived: Lsn,
    /// What lies there is known not to be all: a record did not fit, a part of it was lost.
    pub is_damaged: bool,
    /// A holder acknowledges only as long as a coordinator's lease lasts.
    pub is_leased: bool,
    /// A fresh random number, for the epoch under which a holder that starts again goes on, and the first of
    /// those that this life's attachments are named by.
    pub fresh: EpochId,
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
    /// As `Promote`, by the rules of one that is not forced, of a node that holds a coordinator's lease.
    Succeed {
        node: NodeId,
        /// The highest epoch that the coordinator knows of; the promotion asks for a higher one.
        above: Epoch,
        /// Which lease, and what it took the place of: goes on record.
        lease: String,
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
        records: Vec<(RecordKind, Arc<[u8]>)>,
        /// The epoch that whoever writes knows everything up to: under another one it is refused, also
        /// where this node holds that one too. `None`: it relies on nothing that was written before.
        under: Option<Epoch>,
    },
    /// A client's read that must see every write acknowledged before it began.
    Confirm {
        number: u64,
    },
    Received(Message),
    /// A peer can be reached, at an address of this version. `session` is a fresh random number, good
    /// for one session; the next one comes after [`super::Effect::Reconnect`].
    Connected {
        peer: NodeId,
        endpoint: u64,
        session: SessionId,
    },
    Disconnected {
        peer: NodeId,
    },
    /// A hold could not be taken, or was taken away.
    PinLost {
        session: SessionId,
        reason: String,
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
    /// Answer to `OpenBase`: a checkpoint of derived state, held until `CloseBase`. `None`: there is
    /// none and none can be made.
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
    /// The owner of derived state cannot take the base, or cannot go back to `since`.
    BaseFailed {
        session: SessionId,
        reason: String,
        /// It was refused before it was begun: log and derived state are as they were.
        is_untouched: bool,
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
        /// A fresh random number, for the epoch under which a holder whose lease had ended goes on.
        fresh: EpochId,
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
    /// Why it was made for this rebuild: there was no checkpoint, or none that is to be trusted, or its
    /// tail is not retained. `None`: it lay there.
    pub made: Option<String>,
}
