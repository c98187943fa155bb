//! What can go wrong with a journal, by what the caller can do about it.

use std::{error, fmt, io, path::PathBuf, sync::Arc};

use crate::Lsn;

/// What the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Free space; the journal is unharmed and goes on once there is room.
    Full,
    /// A write or sync failed. Nothing more can be appended until the journal is opened again.
    Poisoned,
    /// Another authority writes; this one must stop.
    Fenced,
    /// The bytes on disk are not what was acknowledged; see [`Error::cause`].
    Corrupt,
    /// Another process or handle has the journal open.
    Locked,
    /// The position is outside the retained range.
    OutOfRange,
    /// The request can never succeed as it is.
    Invalid,
    /// The journal was closed.
    Closed,
    /// The disk could not be read; nothing was changed.
    Io,
}

/// Why recovery refused to open a journal. Codes are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    FirstSeqNotBase,
    SeqGap,
    SafeseqGtMaxseq,
    SafeseqNotFound,
    FrameCorrupt,
    SegmentMissing,
    SegmentHeaderCorrupt,
    SafePointCorrupt,
    SafePointRegressed,
    SafePointMissing,
    EpochRegressed,
    IdentityMismatch,
    VersionUnknown,
}

impl Cause {
    pub const ALL: [Self; 13] = [
        Self::FirstSeqNotBase,
        Self::SeqGap,
        Self::SafeseqGtMaxseq,
        Self::SafeseqNotFound,
        Self::FrameCorrupt,
        Self::SegmentMissing,
        Self::SegmentHeaderCorrupt,
        Self::SafePointCorrupt,
        Self::SafePointRegressed,
        Self::SafePointMissing,
        Self::EpochRegressed,
        Self::IdentityMismatch,
        Self::VersionUnknown,
    ];

    pub const fn code(self) -> &'static str {
        match self {
            Self::FirstSeqNotBase => "FIRST_SEQ_NOT_BASE",
            Self::SeqGap => "SEQ_GAP",
            Self::SafeseqGtMaxseq => "SAFESEQ_GT_MAXSEQ",
            Self::SafeseqNotFound => "SAFESEQ_NOT_FOUND",
            Self::FrameCorrupt => "FRAME_CORRUPT",
            Self::SegmentMissing => "SEGMENT_MISSING",
            Self::SegmentHeaderCorrupt => "SEGMENT_HEADER_CORRUPT",
            Self::SafePointCorrupt => "SAFE_POINT_CORRUPT",
            Self::SafePointRegressed => "SAFE_POINT_REGRESSED",
            Self::SafePointMissing => "SAFE_POINT_MISSING",
            Self::EpochRegressed => "EPOCH_REGRESSED",
            Self::IdentityMismatch => "IDENTITY_MISMATCH",
            Self::VersionUnknown => "VERSION_UNKNOWN",
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
    path: Option<PathBuf>,
    lsn: Option<Lsn>,
    offset: Option<u64>,
    source: Option<io::Error>,
    /// Of kind `Full` for the journal's own ceiling, not for the disk.
    for_ceiling: bool,
    misplaced: Option<Misplaced>,
}

/// How a position does not fit the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// An append was for another position than the next one.
    NotNext { next: Lsn },
    /// What lay above `keep` was cut after the position was taken.
    Cut { keep: Lsn },
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            cause: None,
            message: message.into(),
            path: None,
            lsn: None,
            offset: None,
            source: None,
            for_ceiling: false,
            misplaced: None,
        }))
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Set exactly when recovery refused, or a record below the safe point does not verify.
    pub fn cause(&self) -> Option<Cause> {
        self.0.cause
    }

    pub fn lsn(&self) -> Option<Lsn> {
        self.0.lsn
    }

    /// Set when a position is what is wrong: with kind `Invalid` of an append, with kind `OutOfRange` of
    /// a reader or pin.
    pub fn misplaced(&self) -> Option<Misplaced> {
        self.0.misplaced
    }

    /// The message without cause, path and position.
    pub(crate) fn what(&self) -> &str {
        &self.0.message
    }

    /// The file or directory that the message names.
    pub fn path(&self) -> Option<&std::path::Path> {
        self.0.path.as_deref()
    }

    /// Byte offset in the file that the message names.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    pub(crate) fn source_io(&self) -> Option<&io::Error> {
        self.0.source.as_ref()
    }

    pub(crate) fn io(
        message: impl Into<String>,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
            _ => Kind::Io,
        };
        Self::new(kind, message).with_path(path).with_source(source)
    }

    /// An error after which the state of the directory is not known; never of kind `Full`.
    pub(crate) fn doubt(
        message: impl Into<String>,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> Self {
        Self::new(Kind::Io, message)
            .with_path(path)
            .with_source(source)
    }

    pub(crate) fn version(found: u32) -> Self {
        let message = format!(
            "format version {found}, this program reads {}; use the program that wrote it",
            crate::block::FORMAT_VERSION
        );
        Self::recovery(Cause::VersionUnknown, message)
    }

    /// The same fault as seen by every append after it.
    pub(crate) fn poisoned(first: &Self) -> Self {
        Self(Arc::new(Inner {
            kind: Kind::Poisoned,
            cause: None,
            message: "journal is poisoned until it is opened again".to_owned(),
            path: None,
            lsn: None,
            offset: None,
            source: Some(io::Error::other(first.clone())),
            for_ceiling: false,
            misplaced: None,
        }))
    }

    pub(crate) fn recovery(cause: Cause, message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message).change(|inner| inner.cause = Some(cause))
    }

    pub(crate) fn for_ceiling(self) -> Self {
        self.change(|inner| inner.for_ceiling = true)
    }

    pub(crate) fn is_for_ceiling(&self) -> bool {
        self.0.for_ceiling
    }

    pub(crate) fn with_misplaced(self, misplaced: Misplaced) -> Self {
        self.change(|inner| inner.misplaced = Some(misplaced))
    }

    pub(crate) fn with_path(self, path: impl Into<PathBuf>) -> Self {
        self.change(|inner| inner.path = Some(path.into()))
    }

    pub(crate) fn with_lsn(self, lsn: Lsn) -> Self {
        self.change(|inner| inner.lsn = Some(lsn))
    }

    pub(crate) fn with_offset(self, offset: u64) -> Self {
        self.change(|inner| inner.offset = Some(offset))
    }

    pub(crate) fn with_source(self, source: io::Error) -> Self {
        self.change(|inner| inner.source = Some(source))
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
        let inner = &*self.0;
        if let Some(cause) = inner.cause {
            write!(f, "{}: ", cause.code())?;
        }
        f.write_str(&inner.message)?;
        if let Some(path) = &inner.path {
            write!(f, ", {}", path.display())?;
        }
        if let Some(offset) = inner.offset {
            write!(f, " at byte {offset}")?;
        }
        if let Some(lsn) = inner.lsn {
            write!(f, ", lsn {lsn}")?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| source as &(dyn error::Error + 'static))
    }
}
