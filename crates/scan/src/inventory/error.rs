//! Why something asked of the inventory, of credentials or of known hosts did not happen.

use std::{error, fmt};

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A field that cannot be; the message names it.
    Invalid,
    /// Nothing of that name.
    Missing,
    /// That name is taken.
    Exists,
    /// The host is retired.
    Retired,
    /// Others still refer to it.
    InUse,
    /// Another process won every attempt; try again.
    Conflict,
    /// Wrong data key, or what was sealed is damaged.
    Sealed,
    /// The store or the disk could not read or write; the source says why.
    Storage,
}

/// A request that left nothing behind. Never holds a secret.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let kind = match error.kind() {
            store::Kind::Conflict => Kind::Conflict,
            store::Kind::OutOfRange => Kind::Invalid,
            _ => Kind::Storage,
        };
        Self::new(kind, "the store refused").with_source(error)
    }
}

impl From<crate::ledger::Error> for Error {
    fn from(error: crate::ledger::Error) -> Self {
        let kind = match error.class() {
            crate::ledger::Class::Conflict => Kind::Conflict,
            _ => Kind::Storage,
        };
        Self::new(kind, "the ledger refused").with_source(error)
    }
}

impl From<crate::schedule::Error> for Error {
    fn from(error: crate::schedule::Error) -> Self {
        let kind = match error.kind() {
            crate::schedule::Kind::Conflict => Kind::Conflict,
            _ => Kind::Storage,
        };
        Self::new(kind, "the schedule refused").with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn error::Error + 'static))
    }
}
