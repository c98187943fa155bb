//! Why a part of a fix was not done.

use std::{error, fmt};

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// There is nothing to fix, or nothing that a program can do.
    NotFixable,
    /// The object is not as it was captured: somebody else changed it.
    Changed,
    /// The object is of a kind, or in a place, that cannot be changed safely or put back exactly.
    Unsafe,
    /// The host refused it.
    Refused,
    /// The rule does not pass after the fix, or sshd refuses its configuration.
    Check,
    /// Another fix on this host is under way or was interrupted.
    Busy,
    /// The record could not be written or read.
    Record,
}

/// What was attempted on what, and why it did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub what: String,
}

impl Fault {
    pub fn new(kind: FaultKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }

    pub(crate) fn refused(object: &str, why: impl fmt::Display) -> Self {
        Self::new(FaultKind::Refused, format!("{object}: {why}"))
    }

    pub(crate) fn not_safe(object: &str, why: impl fmt::Display) -> Self {
        Self::new(FaultKind::Unsafe, format!("{object}: {why}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl error::Error for Fault {}
