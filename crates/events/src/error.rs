//! What can go wrong with events, by what the caller can do about it.

use std::{error, fmt, path::PathBuf, sync::Arc, time::Duration};

/// What the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The event or request can never be taken as it is.
    Invalid,
    /// More is in flight than fits; the same request is welcome after [`Error::retry_after`].
    Overloaded,
    /// The disk or its ceiling is full. Nothing was kept; the same request works once there is space.
    Full,
    /// A write or sync failed: nothing more is taken until the journal is opened again.
    Poisoned,
    /// Another authority writes; this one must stop.
    Fenced,
    /// The log was closed.
    Closed,
    /// Another process has the journal open.
    Locked,
    /// Bytes are not what was written.
    Corrupt,
    /// The position is outside the retained range, or belongs to another generation.
    OutOfRange,
    /// The disk could not be read; nothing was changed.
    Io,
}

/// Clonable, so that all who wait for one piece of work can be told.
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    index: Option<usize>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            index: None,
            retry_after: None,
            source: None,
        }))
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Which event of a batch was refused, counted from 0.
    pub fn index(&self) -> Option<usize> {
        self.0.index
    }

    /// Set exactly when the kind is `Overloaded`.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub(crate) fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(Kind::Overloaded, message).change(|inner| inner.retry_after = Some(retry_after))
    }

    pub(crate) fn at_index(self, index: usize) -> Self {
        self.change(|inner| inner.index = Some(index))
    }

    pub(crate) fn with_source(
        self,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        self.change(|inner| inner.source = Some(source))
    }

    pub(crate) fn io(doing: &str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Full,
            _ => Kind::Io,
        };
        Self::new(kind, format!("{doing}, {}", path.into().display())).with_source(source)
    }

    /// An error of the journal, told as what was being done with it.
    pub(crate) fn journal(doing: &str, source: wal::Error) -> Self {
        let kind = match source.kind() {
            wal::Kind::Full => Kind::Full,
            wal::Kind::Poisoned => Kind::Poisoned,
            wal::Kind::Fenced => Kind::Fenced,
            wal::Kind::Corrupt => Kind::Corrupt,
            wal::Kind::Locked => Kind::Locked,
            wal::Kind::OutOfRange => Kind::OutOfRange,
            wal::Kind::Invalid => Kind::Invalid,
            wal::Kind::Closed => Kind::Closed,
            wal::Kind::Io => Kind::Io,
        };
        Self::new(kind, doing).with_source(source)
    }

    fn change(mut self, set: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            set(inner);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.0.index {
            write!(f, "event {index}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn error::Error + 'static))
    }
}
