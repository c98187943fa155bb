//! What a drain shows of itself.

use wal::Lsn;
use world::Timestamp;

use crate::Class;

/// A drain as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub name: String,
    /// As written in configuration; holds no credentials.
    pub to: String,
    /// The drained classes, in order of priority.
    pub classes: Vec<ClassStatus>,
    /// Why the drain as a whole stands still or has ended, if it does.
    pub error: Option<String>,
    /// Its thread is gone.
    pub has_ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassStatus {
    pub class: Class,
    /// Everything of the class up to here was delivered or dead-lettered, durably so.
    pub cursor: Lsn,
    /// Events found so far that were not delivered.
    pub waiting: u64,
    /// Events that the receiver took, and those it refused for good, since the drain was started.
    pub accepted: u64,
    pub refused: u64,
    /// A batch is being sent.
    pub is_sending: bool,
    /// Failed attempts in a row; 0 when all is well.
    pub failures: u32,
    /// When the first of them was.
    pub failing_since: Option<Timestamp>,
    /// What the last attempt that failed met; kept when a later one succeeds.
    pub last_error: Option<String>,
    /// Events that retention took before they were delivered.
    pub lost: u64,
}

impl Status {
    /// Events that were found and not delivered.
    pub fn waiting(&self) -> u64 {
        self.classes.iter().map(|class| class.waiting).sum()
    }

    pub fn accepted(&self) -> u64 {
        self.classes.iter().map(|class| class.accepted).sum()
    }

    pub fn refused(&self) -> u64 {
        self.classes.iter().map(|class| class.refused).sum()
    }

    /// Whether the receiver takes what it is sent.
    pub fn is_well(&self) -> bool {
        self.error.is_none() && self.classes.iter().all(|class| class.failures == 0)
    }
}

impl ClassStatus {
    pub(super) fn new(class: Class, cursor: Lsn) -> Self {
        Self {
            class,
            cursor,
            waiting: 0,
            accepted: 0,
            refused: 0,
            is_sending: false,
            failures: 0,
            failing_since: None,
            last_error: None,
            lost: 0,
        }
    }
}
