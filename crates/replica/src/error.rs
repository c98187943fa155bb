//! What can go wrong outside the machine, by what the caller can do about it.

use std::{
    error, fmt, io,
    path::{Path, PathBuf},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The disk could not be read or written.
    Io,
    /// A write went wrong before: nothing more until it is opened again, and what is there then counts.
    Poisoned,
    /// The bytes on disk are not what was written.
    Corrupt,
    /// The request can never succeed as it is; nothing was changed.
    Invalid,
}

#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    path: PathBuf,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>, path: &Path) -> Self {
        Self {
            kind,
            message: message.into(),
            path: path.to_owned(),
            source: None,
        }
    }

    pub(crate) fn io(attempted: &str, path: &Path, source: io::Error) -> Self {
        Self {
            source: Some(source),
            ..Self::new(Kind::Io, attempted, path)
        }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.message, self.path.display())?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn error::Error + 'static))
    }
}
