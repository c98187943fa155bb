//! A promise of the protocol that was not kept, by the name of the checker that saw it.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    pub(crate) checker: Checker,
    pub(crate) words: String,
}

/// Who looks. The list of planted bugs names them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Checker {
    /// Same epoch, id and LSN: same bytes on every node.
    SameBytes,
    /// What is appended, cut and read fits the log.
    Log,
    /// A position that a node reports is durable there, without a hole.
    Contiguous,
    /// What was acknowledged was durable on the primary and on k others that had promised nothing higher.
    Durable,
    /// No two nodes acknowledge under one epoch, and none after it promised a higher one.
    Acknowledger,
    /// Committed never moves back, and is one sequence for all nodes.
    Committed,
    /// Promised and granted epochs of a node only rise.
    Epochs,
    /// A promise is on disk before a message shows it.
    Promise,
    /// A node that has less than it reported says so, and neither promises nor counts.
    Amnesia,
    /// Holds are released once, and none is left.
    Pins,
    /// The recovery log explains every session.
    Lines,
    /// Acknowledged writes are there, once, whole and in order; refused ones are not.
    Writes,
    /// Confirmed reads see what was acknowledged before they were asked, and never an older state again.
    Reads,
    /// Every request is answered once.
    Answers,
    /// A holder without a lease acknowledges nothing.
    Lease,
    /// Derived state is what the log says.
    State,
    /// With the faults gone, every replica is in sync in bounded time.
    Liveness,
    /// The machine itself found that it is wrong.
    Panic,
}

impl Breach {
    pub(crate) fn new(checker: Checker, words: impl Into<String>) -> Self {
        Self {
            checker,
            words: words.into(),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.checker, self.words)
    }
}

/// What a checker says.
pub(crate) type Verdict = Result<(), Breach>;
