//! What ends a run before its last kill.

use std::{fmt, io};

/// A promise that was not kept, with both sides of the comparison.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    promise: String,
    acknowledged: String,
    found: String,
}

#[derive(Debug)]
pub(crate) enum Fault {
    Breach(Breach),
    /// The machine did not let the run go on; says nothing of the product.
    World(io::Error),
    /// Whoever started the run ended it.
    Stopped,
}

impl Breach {
    /// What should hold, what was acknowledged or expected, what was found instead.
    pub(crate) fn new(
        promise: impl Into<String>,
        acknowledged: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            promise: promise.into(),
            acknowledged: acknowledged.into(),
            found: found.into(),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "broken: {}\n  acknowledged: {}\n  found: {}",
            self.promise, self.acknowledged, self.found
        )
    }
}

impl From<Breach> for Fault {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::World(error)
    }
}
