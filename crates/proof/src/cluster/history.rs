//! What the clients of a round asked for, when, and what they were told.

use std::time::Duration;

/// One transaction of one client.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) client: u16,
    /// The node that was asked: its place among the nodes.
    pub(super) node: usize,
    pub(super) begun: Duration,
    pub(super) ended: Duration,
    pub(super) what: What,
    pub(super) told: Told,
}

/// What it read and wrote. Every value that is written is written once in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A row of its own.
    Insert {
        number: u32,
    },
    Register {
        register: u8,
        action: Action,
    },
    Transfer(Transfer),
}

/// Of one register. A transaction that only reads it writes a row of its own, so that what it saw is
/// held against what others commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read {
        found: u64,
    },
    Write {
        value: u64,
    },
    /// From what it found there.
    Swap {
        found: u64,
        value: u64,
    },
}

/// An amount from one account to another, both read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    /// Names this transfer in the accounts that it wrote.
    pub(super) tag: u64,
    pub(super) accounts: [u8; 2],
    /// The tags that it found there; 0 of an account that nobody wrote before.
    pub(super) found: [u64; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Committed, at this position.
    Acknowledged(u64),
    /// By the kind of the error nothing was written.
    NotDone,
    /// It may be there or not.
    Unknown,
}

impl Operation {
    pub(super) fn lsn(&self) -> Option<u64> {
        match self.told {
            Told::Acknowledged(lsn) => Some(lsn),
            Told::NotDone | Told::Unknown => None,
        }
    }

    pub(super) fn words(&self) -> String {
        let at = |time: Duration| format!("{:.3}", time.as_secs_f64());
        format!(
            "client {} at node {}, {} to {} s: {:?}, {:?}",
            self.client,
            self.node,
            at(self.begun),
            at(self.ended),
            self.what,
            self.told
        )
    }
}
