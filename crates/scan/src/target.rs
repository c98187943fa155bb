//! A host that facts are collected from.
//!
//! Every answer has three forms: present, absent (the host was asked and it is not there), and
//! unknown with the reason. Nothing here writes to the host, waits without a deadline, or reads
//! more than its cap. Parsing what comes back belongs to the collectors.

mod local;
pub(crate) mod mount_table;

use std::{fmt, time::Duration};

pub use local::LocalTarget;
use sha2::{Digest, Sha256};

use crate::{
    collect::Progress,
    facts::{Reason, Unknown},
};

/// What one collector may bring back altogether, and so the cap of any single file or output.
pub const OUTPUT_BYTES_MAX: usize = 10 << 20;

/// Entries of one directory. Configuration directories hold hundreds; beyond this the listing is
/// `truncated`.
pub const ENTRIES_MAX: usize = 100_000;

/// The answer to a question about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    Present(T),
    /// The host was asked, and there is no such object.
    Absent,
    Unknown(Unknown),
}

impl<T> Found<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Present(value) => Found::Present(change(value)),
            Self::Absent => Found::Absent,
            Self::Unknown(unknown) => Found::Unknown(unknown),
        }
    }

    /// `Ok(None)` when absent, so that `?` carries the unknown out of a collector.
    ///
    /// # Errors
    /// The object could not be looked at.
    pub fn known(self) -> Result<Option<T>, Unknown> {
        match self {
            Self::Present(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Unknown(unknown) => Err(unknown),
        }
    }
}

impl<T> From<Unknown> for Found<T> {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown)
    }
}

/// Kind of a file. Sockets, pipes and devices are `Other` in facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Dir,
    Link,
    CharDevice,
    BlockDevice,
    Other,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Link => "link",
            Self::CharDevice | Self::BlockDevice | Self::Other => "other",
        }
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
}

/// Whether a question about a symbolic link is about the link or about what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    Keep,
    Follow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// Permission bits with set-id and sticky: `mode & 0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds since 1970, negative before.
    pub mtime_seconds: i64,
}

/// A program to run on the host. It inherits nothing: no environment but `LC_ALL=C`, no input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// Absolute paths, the first that exists is run. `PATH` is never asked: it belongs to whoever
    /// started us.
    pub programs: &'a [&'a str],
    pub args: &'a [&'a str],
    pub deadline: Duration,
    pub output_bytes_max: usize,
}

/// How a program ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// `None` when a signal ended it.
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    /// Its beginning only: enough to name the fault.
    pub stderr: Vec<u8>,
}

/// A mount that the walk did not enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedMount {
    pub path: String,
    pub fstype: String,
}

/// A file the walk reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkedFile {
    pub path: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What the walk is to look for.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    /// Sorted ids that have a name on the host.
    pub known_uids: &'a [u32],
    pub known_gids: &'a [u32],
    /// Entries kept of each list; one more and the list is over its cap.
    pub list_max: usize,
    pub deadline: Duration,
}

/// What one pass over the local filesystems saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    pub world_writable_files: Vec<WalkedFile>,
    pub world_writable_dirs_no_sticky: Vec<WalkedFile>,
    pub unowned: Vec<WalkedFile>,
    pub ungrouped: Vec<WalkedFile>,
    pub setuid: Vec<WalkedFile>,
    pub setgid: Vec<WalkedFile>,
    pub device_files_outside_dev: Vec<WalkedFile>,
    pub files: u64,
    pub dirs: u64,
    pub skipped_mounts: Vec<SkippedMount>,
    /// The first place, by name, that could not be looked into. With it set, no list is complete.
    pub unseen: Option<Unknown>,
}

/// What one list of apt says of packages that dpkg knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageList {
    /// Their stanzas, reduced to `Package`, `Version` and `Architecture`.
    pub stanzas: Vec<u8>,
    /// Length of the whole list, without compression.
    pub whole_bytes: u64,
}

/// A host, as the collectors see it.
pub trait Target: Send + Sync + fmt::Debug {
    /// Hands the content of a regular file, links followed, to `sink` piece by piece. A file
    /// longer than `cap` is `truncated`; whatever `sink` took before an unknown must be dropped,
    /// since a beginning would pass for the whole. Pipes, sockets and devices are never opened.
    fn stream(&self, path: &str, cap: usize, sink: &mut dyn FnMut(&[u8])) -> Found<()>;

    /// The whole content of a regular file of at most `cap` bytes.
    fn read(&self, path: &str, cap: usize) -> Found<Vec<u8>> {
        let mut content = Vec::new();
        self.stream(path, cap, &mut |piece| content.extend_from_slice(piece))
            .map(|()| content)
    }

    /// SHA-256 of a regular file of at most `cap` bytes, in lower case hexadecimal.
    fn hash(&self, path: &str, cap: usize) -> Found<String> {
        let mut digest = Sha256::new();
        self.stream(path, cap, &mut |piece| digest.update(piece))
            .map(|()| hex(&digest.finalize()))
    }

    /// A list of apt as far as it is about packages of this host. `None` where the whole list is as
    /// near: it has tens of MiB, and should not travel.
    fn package_list(&self, _path: &str) -> Option<Found<PackageList>> {
        None
    }

    /// Names in a directory, sorted, without `.` and `..`.
    fn list(&self, dir: &str) -> Found<Vec<Entry>>;

    fn stat(&self, path: &str, links: Links) -> Found<Stat>;

    /// Where a symbolic link points, as written in it. Anything but a link is absent.
    fn read_link(&self, path: &str) -> Found<String>;

    /// Runs a program to its end. Any exit status is an answer.
    ///
    /// # Errors
    /// No such program (`tool_missing`), not ours to run (`privilege`), still running at the
    /// deadline (`timeout`; its process group is killed), more output than the cap (`truncated`).
    fn run(&self, command: &Command<'_>) -> Result<Ran, Unknown>;

    /// One pass over every local filesystem: no link followed, no remote or virtual mount entered.
    ///
    /// # Errors
    /// The pass could not begin, or was cut by its deadline or by `progress`.
    fn walk(&self, walk: &Walk<'_>, progress: &dyn Progress) -> Result<Walked, Unknown>;
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Names what could not be done, the object, and the host's own words.
pub(crate) fn unknown(reason: Reason, object: &str, why: impl fmt::Display) -> Unknown {
    Unknown::new(reason, format!("{object}: {why}"))
}
