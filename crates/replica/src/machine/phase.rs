//! Phases of a session and states of a replica, as its primary sees it. What is not in the table is
//! refused and changes nothing.

use std::fmt;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first with this replica.
    Bootstrap,
    CatchUp,
    Rebuild,
    /// The replica has another address.
    Reassign,
}

/// How far a session is. `Completed` and `Invalidated` are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Init,
    Connecting,
    Handshake,
    CatchUp,
    /// A base is being sent, and the log behind it.
    Transfer,
    /// The base is stored, the log behind it not yet.
    Tail,
    Completed,
    Invalidated,
}

/// A move that the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalMove {
    pub from: Phase,
    pub to: Phase,
}

impl Phase {
    pub fn is_active(self) -> bool {
        !matches!(self, Self::Completed | Self::Invalidated)
    }

    /// The phase after a move, if there is such a move.
    pub fn moved(self, to: Self) -> Result<Self, IllegalMove> {
        let is_legal = match (self, to) {
            (Self::Init, Self::Connecting)
            | (Self::Connecting, Self::Handshake)
            | (Self::Handshake, Self::CatchUp | Self::Transfer | Self::Completed)
            | (Self::CatchUp | Self::Tail, Self::Completed)
            | (Self::Transfer, Self::Tail) => true,
            (from, Self::Invalidated) => from.is_active(),
            _ => false,
        };
        if is_legal {
            Ok(to)
        } else {
            Err(IllegalMove { from: self, to })
        }
    }
}

impl fmt::Display for IllegalMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a session does not go from {:?} to {:?}",
            self.from, self.to
        )
    }
}

impl std::error::Error for IllegalMove {}

/// A replica, as its primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Disconnected,
    Connecting,
    CatchingUp,
    InSync,
    /// It said that it cannot go on.
    Degraded,
    NeedsRebuild,
    Rebuilding,
}
