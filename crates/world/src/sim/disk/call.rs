//! The calls of a simulated disk: what can be counted, logged and made to fail.

use std::{
    error, fmt, io,
    path::{Path, PathBuf},
};

/// What is called on a disk. Faults are planned and calls are counted by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Opening a file that exists.
    Open,
    /// Opening a file that did not exist.
    Create,
    Read,
    Write,
    SetLen,
    SyncData,
    SyncAll,
    List,
    Stat,
    CreateDir,
    Rename,
    Link,
    RemoveFile,
    RemoveDirAll,
    SyncDir,
    Space,
    Lock,
}

impl Call {
    /// Whether it can change what the disk holds: only these are numbered for
    /// [`Disk::crash_at`] and only these, and [`Call::Open`], are logged.
    pub fn is_effect(self) -> bool {
        !matches!(
            self,
            Self::Open | Self::Read | Self::List | Self::Stat | Self::Space
        )
    }
}

/// One call, with the path it was made on: for a file the path it was opened by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub path: PathBuf,
    pub effect: Effect,
    /// False when it returned an error, injected or not.
    pub done: bool,
}

/// What an [`Op`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Open,
    Create,
    /// `len` is what was written, not what was asked for.
    Write {
        offset: u64,
        len: usize,
    },
    SetLen {
        len: u64,
    },
    SyncData,
    SyncAll,
    CreateDir,
    Rename {
        to: PathBuf,
    },
    Link {
        to: PathBuf,
    },
    RemoveFile,
    RemoveDirAll,
    SyncDir,
    Lock,
}

/// What happens to one planned call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and changes nothing. A file's sync that fails leaves its pages clean, as Linux
    /// does: readers go on seeing the bytes, no later sync writes them, a power loss forgets them.
    Fail(io::ErrorKind),
    /// A file's sync that fails after an arbitrary part of its bytes reached the disk. Any other call:
    /// like `Fail`.
    FailScattered(io::ErrorKind),
    /// A write that says it was done, and never reaches the disk: readers see it until they drop what
    /// is cached. Any other call goes through.
    Lost,
    /// A write that says it was done, and lands at this offset of the file, which is inside it. Any other
    /// call goes through.
    Misdirected(usize),
    /// A read or write stops after this many bytes and says so. Any other call goes through.
    Short(usize),
}

/// The error of every call on a disk whose machine has ended; see [`is_crash`].
#[derive(Debug)]
pub(super) struct Crashed;

impl fmt::Display for Crashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated machine has ended")
    }
}

impl error::Error for Crashed {}

/// Whether `error` says that the simulated machine has ended, rather than that a call failed.
pub fn is_crash(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Crashed>())
}

#[derive(Debug)]
pub(super) struct Planned {
    pub(super) call: Call,
    pub(super) path: Option<PathBuf>,
    /// Calls that still pass before this one; at 0 the next call is hit.
    pub(super) passes: u64,
    pub(super) fault: Fault,
}

pub(super) fn injected(kind: io::ErrorKind, call: Call, path: &Path) -> io::Error {
    io::Error::new(
        kind,
        format!("injected into {call:?} of {}: {kind}", path.display()),
    )
}
