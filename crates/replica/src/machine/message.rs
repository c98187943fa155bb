//! What nodes say to each other.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use wal::{Epoch, Identity, Lsn, RecordKind};

use super::{
    Attachment, Config, EpochId, EpochStart, History, NodeId, Position, SessionId, Version,
};

/// In every message. A receiver takes nothing from another cluster or journal, and refuses a lower
/// epoch with the highest it has on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub cluster: u128,
    pub journal: Identity,
    pub from: NodeId,
    /// The sender's: that it holds, or that it has promised to.
    pub epoch: Epoch,
    pub epoch_id: EpochId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub header: Header,
    pub body: Body,
}

/// A record on its way, with the epoch it was written under: not the sender's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub position: Position,
    pub kind: RecordKind,
    /// Shared: the log, the memory of the primary and messages to each replica have the same ones.
    #[serde(with = "shared_bytes")]
    pub bytes: Arc<[u8]>,
}

/// The primary begins a session; whatever session was there ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    pub session: SessionId,
    /// Version of the address the primary reached the replica at; in all that follows of it.
    pub endpoint: u64,
    pub config: Config,
}

/// What a replica has, in answer to [`Attach`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub session: SessionId,
    pub endpoint: u64,
    /// What cuts this log, replaces it or declares it sound has to name it: such a message may come late,
    /// to a replica that began the session again, or lost its disk since.
    pub attachment: Attachment,
    /// Everything up to it is durable, without a hole.
    pub flushed: Position,
    pub first_retained: Lsn,
    pub history: History,
    /// What it knows to be committed; the truth may be higher.
    pub committed: Lsn,
    /// Derived state holds everything up to here: at most what was committed, unless it was primary.
    pub derived: Lsn,
    /// The configuration that it has on disk.
    pub configured: Version,
    /// Its disk has less than it promised, or is being rebuilt.
    pub is_amnesiac: bool,
}

/// A promise to take nothing below an epoch, and what the promising node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub flushed: Position,
    /// Of the epoch of its last record: the number may have been minted twice.
    pub flushed_id: EpochId,
    /// May be beyond `flushed`: it was told.
    pub committed: Lsn,
    pub config: Config,
    /// Nodes that may hold an epoch below this one: [`super::Record::holders`].
    pub holders: BTreeSet<NodeId>,
    pub is_amnesiac: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    // From the primary to a replica, each with session and endpoint version.
    Attach(Attach),
    /// Cut everything after `keep`.
    Truncate {
        session: SessionId,
        endpoint: u64,
        attachment: Attachment,
        keep: Position,
    },
    /// Contiguous, following `previous`.
    Entries {
        session: SessionId,
        endpoint: u64,
        previous: Position,
        entries: Vec<Entry>,
        committed: Lsn,
    },
    /// What lies at or below `base` comes as parts of derived state, the log begins after it.
    /// `since`: the replica's own state up to there is kept, the parts are what changed.
    BaseBegin {
        session: SessionId,
        endpoint: u64,
        attachment: Attachment,
        base: Position,
        history: History,
        since: Option<Lsn>,
        parts: u32,
    },
    BasePart {
        session: SessionId,
        endpoint: u64,
        index: u32,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Also says how far derived state may be flushed, and the last entry that was sent: a replica that
    /// has less says `Missing`.
    Heartbeat {
        session: SessionId,
        endpoint: u64,
        /// Rises in a session; comes back in `Flushed`.
        ordinal: u64,
        sent: Position,
        committed: Lsn,
    },
    /// All that was planned for a replica without a sound disk is done: it may count again once it
    /// has that on disk.
    Rebuilt {
        session: SessionId,
        endpoint: u64,
        attachment: Attachment,
    },
    /// The configuration as it is to be; answered by `Configured` once it is on disk.
    Configure {
        session: SessionId,
        endpoint: u64,
        config: Config,
    },
    /// The journal is drained and all of it is yours: ask to be promoted. The primary that says so takes
    /// no writes until it has an answer or gives up waiting.
    HandOver {
        session: SessionId,
        endpoint: u64,
        end: Position,
        /// Fresh, for the epoch to be minted.
        epoch_id: EpochId,
    },

    // From a replica to the primary.
    Attached(Attached),
    Truncated {
        session: SessionId,
        endpoint: u64,
        end: Position,
    },
    /// Contiguous and durable up to here. Also answers a heartbeat.
    Flushed {
        session: SessionId,
        endpoint: u64,
        position: Position,
        applied: Lsn,
        /// The highest ordinal of a heartbeat that this session heard.
        heartbeat: u64,
    },
    /// Where in the stream the replica is, when entries did not fit: sends again from after it.
    Missing {
        session: SessionId,
        endpoint: u64,
        position: Position,
    },
    BaseStored {
        session: SessionId,
        endpoint: u64,
        /// Parts stored so far, in order; all of them: derived state is sound up to the base.
        parts: u32,
    },
    /// Answer to `Rebuilt`.
    Sound {
        session: SessionId,
        endpoint: u64,
    },
    Configured {
        session: SessionId,
        endpoint: u64,
        version: Version,
    },
    /// The replica cannot go on with this session (full disk, failed sync, corrupt record).
    Failed {
        session: SessionId,
        endpoint: u64,
        reason: String,
    },

    // Between a candidate and everybody, under the epoch it wants; no session.
    /// Says what it has, promises nothing.
    Inquire {
        candidate: NodeId,
    },
    Inquired(Sealed),
    /// Promise, on disk, to take nothing below the header's epoch, nor that number of another id.
    Seal {
        candidate: NodeId,
    },
    Sealed(Sealed),

    /// A message came under an epoch that is too low; `highest` is on the sender's disk.
    Refused {
        highest: Epoch,
        id: EpochId,
        asker: NodeId,
    },
    /// The promoted node's start, for nodes that it has no session with yet.
    Promoted {
        start: EpochStart,
        holder: NodeId,
    },
}

impl Body {
    /// Of what cannot be undone.
    pub fn attachment(&self) -> Option<Attachment> {
        match self {
            Self::Attached(Attached { attachment, .. })
            | Self::Truncate { attachment, .. }
            | Self::BaseBegin { attachment, .. }
            | Self::Rebuilt { attachment, .. } => Some(*attachment),
            _ => None,
        }
    }

    /// Session and version of the address, of what belongs to a session.
    pub fn session(&self) -> Option<(SessionId, u64)> {
        match self {
            Self::Attach(Attach {
                session, endpoint, ..
            })
            | Self::Attached(Attached {
                session, endpoint, ..
            })
            | Self::Truncate {
                session, endpoint, ..
            }
            | Self::Entries {
                session, endpoint, ..
            }
            | Self::BaseBegin {
                session, endpoint, ..
            }
            | Self::BasePart {
                session, endpoint, ..
            }
            | Self::Heartbeat {
                session, endpoint, ..
            }
            | Self::Rebuilt {
                session, endpoint, ..
            }
            | Self::Configure {
                session, endpoint, ..
            }
            | Self::HandOver {
                session, endpoint, ..
            }
            | Self::Truncated {
                session, endpoint, ..
            }
            | Self::Flushed {
                session, endpoint, ..
            }
            | Self::Missing {
                session, endpoint, ..
            }
            | Self::BaseStored {
                session, endpoint, ..
            }
            | Self::Sound { session, endpoint }
            | Self::Configured {
                session, endpoint, ..
            }
            | Self::Failed {
                session, endpoint, ..
            } => Some((*session, *endpoint)),
            Self::Inquire { .. }
            | Self::Inquired(_)
            | Self::Seal { .. }
            | Self::Sealed(_)
            | Self::Refused { .. }
            | Self::Promoted { .. } => None,
        }
    }
}

/// Bytes that several own, on the wire as bytes.
mod shared_bytes {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Arc<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    /// Borrowed from what was received, so that they are copied once.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u8]>, D::Error> {
        <&[u8]>::deserialize(from).map(Arc::from)
    }
}
