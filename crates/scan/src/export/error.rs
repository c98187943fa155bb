//! Why nothing, or only a part that is worth nothing, was written.

use std::{error, fmt, io};

use super::{Format, Subject};

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No host, group or site of that name; the message names it.
    Missing,
    /// This format is about something else.
    Invalid,
    /// The moment asked for is outside the retained history.
    OutOfRange,
    /// The store could not read; the source says why.
    Storage,
    /// The writer takes no more; the source says why.
    Write,
    /// The caller said stop.
    Stopped,
}

#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(super) fn with_source(
        mut self,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(super) fn not_this_way(format: Format) -> Self {
        let holds = match format.subject() {
            Subject::Changes => "changes, not the state at a moment",
            Subject::State | Subject::Both => "the state at a moment, not changes",
        };
        Self::new(Kind::Invalid, format!("{format} holds {holds}"))
    }

    pub(super) fn storage(source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        Self::new(Kind::Storage, "the record does not read").with_source(source)
    }

    pub const fn kind(&self) -> Kind {
        self.kind
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::new(Kind::Write, "what is exported cannot be written").with_source(error)
    }
}

impl From<crate::ledger::Error> for Error {
    fn from(error: crate::ledger::Error) -> Self {
        let kind = match error.class() {
            crate::ledger::Class::OutOfRange => Kind::OutOfRange,
            _ => Kind::Storage,
        };
        Self::new(kind, "the ledger does not read").with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn error::Error + 'static))
    }
}
