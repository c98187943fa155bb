//! What can go wrong with a version 1 log, by what the caller can do about it.

use std::{error, fmt, io, path::PathBuf, sync::Arc};

/// What the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Free space, then open again.
    Full,
    /// A write or sync failed. Nothing more can be appended until the log is opened again.
    Poisoned,
    /// The bytes on disk are not what was acknowledged; see [`Error::cause`].
    Corrupt,
    /// Another process or handle has the log open.
    Locked,
    /// The request can never succeed as it is.
    Invalid,
    /// The disk could not be read or written.
    Io,
}

/// Why recovery refused. The first five codes are those of the original; the last two name refusals
/// for which it had a text and no code, by the journal's names for the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    FirstSeqNotOne,
    SeqGap,
    SafeseqGtMaxseq,
    SafeseqNotFound,
    WalCorruptInvalidJson,
    /// `telemetry.safe_seq` does not have 8 bytes.
    SafePointCorrupt,
    /// `telemetry.safe_seq` is not there, and the node ran before.
    SafePointMissing,
}

impl Cause {
    pub const ALL: [Self; 7] = [
        Self::FirstSeqNotOne,
        Self::SeqGap,
        Self::SafeseqGtMaxseq,
        Self::SafeseqNotFound,
        Self::WalCorruptInvalidJson,
        Self::SafePointCorrupt,
        Self::SafePointMissing,
    ];

    pub const fn code(self) -> &'static str {
        match self {
            Self::FirstSeqNotOne => "FIRST_SEQ_NOT_ONE",
            Self::SeqGap => "SEQ_GAP",
            Self::SafeseqGtMaxseq => "SAFESEQ_GT_MAXSEQ",
            Self::SafeseqNotFound => "SAFESEQ_NOT_FOUND",
            Self::WalCorruptInvalidJson => "WAL_CORRUPT_INVALID_JSON",
            Self::SafePointCorrupt => "SAFE_POINT_CORRUPT",
            Self::SafePointMissing => "SAFE_POINT_MISSING",
        }
    }
}

/// Clonable, because every append after a poisoning reports the first cause.
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    cause: Option<Cause>,
    message: String,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            cause: None,
            message: message.into(),
            source: None,
        }))
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Set exactly when recovery refused.
    pub fn cause(&self) -> Option<Cause> {
        self.0.cause
    }

    /// A refusal in the words of the original: its log searches go on finding them.
    pub(crate) fn refusal(cause: Cause, detail: &str) -> Self {
        Self::refusal_as(cause, format!("telemetry/wal: {} — {detail}", cause.code()))
    }

    /// A refusal whose whole text the original fixes.
    pub(crate) fn refusal_as(cause: Cause, message: String) -> Self {
        Self(Arc::new(Inner {
            kind: Kind::Corrupt,
            cause: Some(cause),
            message,
            source: None,
        }))
    }

    pub(crate) fn io(what: &str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
            io::ErrorKind::WouldBlock => Kind::Locked,
            _ => Kind::Io,
        };
        Self(Arc::new(Inner {
            kind,
            cause: None,
            message: format!("{what} {}", path.into().display()),
            source: Some(source),
        }))
    }

    pub(crate) fn with_source(mut self, source: io::Error) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.source = Some(source);
        }
        self
    }

    /// The same fault as seen by every append after it.
    pub(crate) fn poisoned(first: &Self) -> Self {
        Self(Arc::new(Inner {
            kind: Kind::Poisoned,
            cause: None,
            message: "telemetry log is poisoned until it is opened again".to_owned(),
            source: Some(io::Error::other(first.clone())),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let source = self.0.source.as_ref()?;
        Some(source)
    }
}
