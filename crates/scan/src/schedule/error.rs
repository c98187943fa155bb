//! Why the schedule could not do what it was asked.

use std::{error, fmt};

use crate::ledger;

/// What the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Others won every attempt; nothing was changed, try again.
    Conflict,
    /// The worker's lease ended, or its job was finished by another: what it found does not count.
    LeaseLost,
    /// The ledger refuses the scan: [`Error::refusal`] says why. The job still runs; fail it.
    Refused,
    /// The request can never succeed as it is.
    Invalid,
    /// The store could not read or write; the source says why.
    Storage,
}

/// A request that changed nothing.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Source>,
}

#[derive(Debug)]
enum Source {
    Ledger(ledger::Error),
    Store(store::Error),
    Other(Box<dyn error::Error + Send + Sync>),
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.source = Some(Source::Other(source.into()));
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Set exactly when the kind is `Refused`.
    pub fn refusal(&self) -> Option<&ledger::Error> {
        match &self.source {
            Some(Source::Ledger(error)) if self.kind == Kind::Refused => Some(error),
            _ => None,
        }
    }

    /// What the ledger said, if it was the ledger that failed.
    pub(crate) fn of_ledger(&self) -> Option<&ledger::Error> {
        match &self.source {
            Some(Source::Ledger(error)) => Some(error),
            _ => None,
        }
    }

    /// What the store said, if it was the store that refused.
    pub fn of_store(&self) -> Option<&store::Error> {
        match &self.source {
            Some(Source::Store(error)) => Some(error),
            Some(Source::Ledger(error)) => error::Error::source(error)?.downcast_ref(),
            _ => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let kind = match error.kind() {
            store::Kind::Conflict => Kind::Conflict,
            store::Kind::Invalid => Kind::Invalid,
            _ => Kind::Storage,
        };
        Self {
            kind,
            message: "the schedule".to_owned(),
            source: Some(Source::Store(error)),
        }
    }
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        let kind = match error.class() {
            ledger::Class::Conflict => Kind::Conflict,
            ledger::Class::Storage | ledger::Class::Unknown => Kind::Storage,
            _ => Kind::Refused,
        };
        Self {
            kind,
            message: "recording the scan".to_owned(),
            source: Some(Source::Ledger(error)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            None => Ok(()),
            Some(Source::Ledger(source)) => write!(f, ": {source}"),
            Some(Source::Store(source)) => write!(f, ": {source}"),
            Some(Source::Other(source)) => write!(f, ": {source}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self.source.as_ref()? {
            Source::Ledger(source) => Some(source),
            Source::Store(source) => Some(source),
            Source::Other(source) => Some(source.as_ref()),
        }
    }
}
