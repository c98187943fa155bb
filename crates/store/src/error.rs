//! What can go wrong with a store, by what the caller can do about it.

use std::{error, fmt, io, path::Path, sync::Arc};

use crate::Retained;

/// What the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Another transaction wrote what this one had read. Nothing of it was kept; run it again.
    Conflict,
    /// A write or sync failed. Nothing more can be committed until the store is opened again;
    /// snapshots go on reading.
    Poisoned,
    /// Another authority writes the journal; this one must stop.
    Fenced,
    /// The bytes on disk are not what was acknowledged.
    Corrupt,
    /// Free space; nothing acknowledged is harmed and commits go on once there is room.
    Full,
    /// The request can never succeed as it is.
    Invalid,
    /// The position or time is outside the retained history; see [`Error::retained`].
    OutOfRange,
    /// The store was closed.
    Closed,
    /// Another process or handle has the store open.
    Locked,
    /// The directory was written in a format that this program does not read.
    Version,
    /// The disk, or the engine behind the store, could not be read or written; nothing was
    /// acknowledged, and nothing written.
    Io,
    /// The engine behind the store was lost while it committed. Whether it did can only be seen by
    /// reading what was to be written, or by committing again with the same idempotency key.
    InDoubt,
}

/// Clonable, because all members of a failed commit group report the same cause.
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    retained: Option<Retained>,
    source: Option<Source>,
}

#[derive(Debug)]
enum Source {
    Journal(wal::Error),
    Table(lsm_tree::Error),
    Io(io::Error),
    Engine(Box<dyn error::Error + Send + Sync>),
    /// An earlier error of this store that made the present request fail.
    Earlier(Error),
}

impl Error {
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Set exactly when the kind is `OutOfRange`.
    pub fn retained(&self) -> Option<Retained> {
        self.0.retained
    }

    /// Of an engine as of the store itself: what was attempted on what, lower case.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::with(kind, message, None, None)
    }

    /// As [`Error::new`], with what brought it about; its text follows the message.
    pub fn caused(
        kind: Kind,
        message: impl Into<String>,
        source: impl error::Error + Send + Sync + 'static,
    ) -> Self {
        let source = Source::Engine(Box::new(source));
        Self::with(kind, message, None, Some(source))
    }

    /// `message` names the position or time that was asked for; the range is added to it.
    pub fn out_of_range(message: impl fmt::Display, retained: Retained) -> Self {
        let message = format!("{message} is outside the retained history, {retained}");
        Self::with(Kind::OutOfRange, message, Some(retained), None)
    }

    /// As another process told it.
    pub(crate) fn told(kind: Kind, message: String, retained: Option<Retained>) -> Self {
        Self::with(kind, message, retained, None)
    }

    pub(crate) fn closed() -> Self {
        Self::new(Kind::Closed, "store is closed")
    }

    pub(crate) fn journal(attempted: impl Into<String>, source: wal::Error) -> Self {
        let kind = match (source.kind(), source.cause()) {
            (_, Some(wal::Cause::VersionUnknown)) => Kind::Version,
            (wal::Kind::Full, _) => Kind::Full,
            (wal::Kind::Poisoned, _) => Kind::Poisoned,
            (wal::Kind::Fenced, _) => Kind::Fenced,
            (wal::Kind::Corrupt, _) => Kind::Corrupt,
            (wal::Kind::Locked, _) => Kind::Locked,
            (wal::Kind::Invalid, _) => Kind::Invalid,
            (wal::Kind::Closed, _) => Kind::Closed,
            // A position that the journal no longer has, without the store's own range to name.
            (wal::Kind::OutOfRange | wal::Kind::Io, _) => Kind::Io,
        };
        Self::with(kind, attempted, None, Some(Source::Journal(source)))
    }

    pub(crate) fn table(attempted: impl Into<String>, source: lsm_tree::Error) -> Self {
        let kind = match &source {
            // A disk that fills up half-way through a table file or its index leaves the same doubt
            // as a failed sync, so it is not `Full`: room is looked for before a flush begins.
            lsm_tree::Error::Io(error) => match io_kind(error) {
                Kind::Full => Kind::Io,
                _ if error.kind() == io::ErrorKind::NotFound => Kind::Corrupt,
                kind => kind,
            },
            lsm_tree::Error::InvalidVersion(_) => Kind::Version,
            _ => Kind::Corrupt,
        };
        Self::with(kind, attempted, None, Some(Source::Table(source)))
    }

    pub(crate) fn io(attempted: &str, path: &Path, source: io::Error) -> Self {
        let kind = io_kind(&source);
        let message = format!("{attempted} {}", path.display());
        Self::with(kind, message, None, Some(Source::Io(source)))
    }

    /// The same cause, seen by a request that came after it.
    pub(crate) fn poisoned_by(earlier: &Self) -> Self {
        let message = "store stopped committing after an earlier error, open it again";
        Self::with(
            Kind::Poisoned,
            message,
            None,
            Some(Source::Earlier(earlier.clone())),
        )
    }

    fn with(
        kind: Kind,
        message: impl Into<String>,
        retained: Option<Retained>,
        source: Option<Source>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            retained,
            source,
        }))
    }
}

fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
        // A file shorter than its own index says: damage, not a failing disk.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Kind::Corrupt,
        _ => Kind::Io,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.source {
            None => Ok(()),
            Some(Source::Journal(source)) => write!(f, ": {source}"),
            Some(Source::Table(source)) => write!(f, ": {source}"),
            Some(Source::Io(source)) => write!(f, ": {source}"),
            Some(Source::Engine(source)) => write!(f, ": {source}"),
            Some(Source::Earlier(source)) => write!(f, ": {source}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self.0.source.as_ref()? {
            Source::Journal(source) => Some(source),
            Source::Table(source) => Some(source),
            Source::Io(source) => Some(source),
            Source::Engine(source) => Some(source.as_ref()),
            Source::Earlier(source) => Some(source),
        }
    }
}
