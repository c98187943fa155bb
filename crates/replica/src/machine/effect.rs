//! What a step wants done. Effects are carried out in order; answers come back as events.

use std::{collections::BTreeSet, fmt};

use wal::{Epoch, Lsn};

use super::{Config, Entry, EpochId, EpochStart, History, Message, NodeId, Position, SessionId};

/// What a node keeps beside its log, replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub promised: (Epoch, EpochId, NodeId),
    pub granted: (Epoch, EpochId, NodeId),
    /// Whoever was promised an epoch since the one that was granted, and that one's holder: any of them
    /// may hold an epoch, whatever was promised to others after it. At most the members.
    pub holders: BTreeSet<NodeId>,
    /// First record of the granted epoch, and the last of the one before.
    pub start: Option<EpochStart>,
    pub previous_end: Position,
    pub config: Config,
    pub is_amnesiac: bool,
    pub reason: String,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Durable as the mode wants it.
    Written {
        first: Lsn,
        last: Lsn,
    },
    /// A read may be answered from anything applied up to here.
    Confirmed {
        applied: Lsn,
    },
    /// Nothing was written.
    Refused(Refusal),
    /// May or may not have been written: this node lost its authority before it knew.
    Unknown(Refusal),
    /// Retained no more, or does not verify: not the same thing.
    Recycled {
        first: Lsn,
    },
    Corrupt {
        lsn: Lsn,
    },
}

/// Why something was refused. Displayed, it says what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotPrimary {
        holder: Option<NodeId>,
    },
    Fenced {
        highest: Epoch,
    },
    TooFewReplicas {
        in_sync: u32,
        wanted: u32,
    },
    TooManyWaiting,
    /// Enough replicas are in sync, and yet it was not durable in time.
    TookTooLong,
    LogFailed,
    LeaseEnded,
    ReplicaBehind {
        own: Position,
        highest: Position,
    },
    InvalidState(&'static str),
    PrimaryStillActive,
    AuthorityAmbiguous(String),
    VisibilityViolation {
        committed: Lsn,
        own: Lsn,
    },
    NotAReplica,
    ReplicationDisabled,
    InvalidRequest(String),
    EvidenceMissing(String),
    EpochStale {
        highest: Epoch,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Send {
        to: NodeId,
        message: Message,
    },
    /// Append these, which follow the end of the log; then `Flushed`.
    Append(Vec<Entry>),
    /// Cut the log after `keep`; what is cut goes to quarantine; then `Truncated`.
    Truncate {
        keep: Position,
    },
    /// Replace the record beside the log, durably, then `Kept`. Messages that rely on it follow that.
    Keep {
        number: u64,
        record: Record,
    },
    /// End what connection there is and make another, at whatever address is known for the peer; then
    /// `Connected`, as soon as it can be reached.
    Reconnect {
        peer: NodeId,
    },
    /// Read for a session from the log, both inclusive; then `ReadBack`.
    Read {
        session: SessionId,
        from: Lsn,
        to: Lsn,
        bytes: u64,
    },
    /// Hold everything from `from` on in the log for this session, or move the hold.
    Pin {
        session: SessionId,
        from: Lsn,
    },
    Unpin {
        session: SessionId,
    },
    /// Look for a checkpoint of derived state, and hold it; what changed since, if that can be told; or
    /// make a base. None that is beyond `committed`.
    OpenBase {
        session: SessionId,
        since: Option<Lsn>,
    },
    ReadBase {
        session: SessionId,
        index: u32,
    },
    /// Let go of a base, also of one that is still being looked for.
    CloseBase {
        session: SessionId,
    },
    /// Throw away derived state (or keep it up to `since`) and the log; the log begins after `base`. Then
    /// `BaseStored` with no parts.
    BeginBase {
        session: SessionId,
        base: Position,
        history: History,
        since: Option<Lsn>,
        parts: u32,
    },
    StoreBase {
        session: SessionId,
        index: u32,
        bytes: Vec<u8>,
    },
    /// Readers and derived state may go up to here.
    Commit(Lsn),
    Answer {
        number: u64,
        outcome: Outcome,
    },
    /// The node may write under this epoch, or may no more.
    Role(Role),
    /// A line of the recovery log.
    Log(Line),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary { epoch: Epoch },
    Replica { holder: Option<NodeId> },
}

/// A step of a recovery or a promotion, with its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub replica: Option<NodeId>,
    pub session: Option<SessionId>,
    pub epoch: Epoch,
    pub name: &'static str,
    pub cause: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.cause)
    }
}
