//! This machine, or a directory that stands for one.
//!
//! Every path is resolved inside the root, links included: with the root `/` that holds by itself,
//! below any other directory the kernel enforces it (`openat2`, `RESOLVE_IN_ROOT`). Files are
//! opened without blocking and without touching their access time where the kernel allows it.

mod process;
#[cfg(test)]
mod tests;
mod walk;

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc};

use rustix::{
    fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use world::Clock;

use super::{Command, ENTRIES_MAX, Entry, Found, Kind, Links, Ran, Stat, Target, Walk, Walked};
use crate::{
    collect::Progress,
    facts::{Reason, Unknown},
    target::unknown,
};

/// One `read`: large enough that a configuration file takes two, the second to see its end.
const READ_BYTES: usize = 64 << 10;

/// `/dev/null`, to which administrators link a configuration file to mask it.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// The machine this process runs on.
#[derive(Debug)]
pub struct LocalTarget {
    root: OwnedFd,
    /// The real root, where programs may run.
    is_machine: bool,
    commands: BTreeMap<String, Ran>,
    clock: Arc<dyn Clock>,
}

impl LocalTarget {
    /// The host whose filesystem begins at `root`: `/` for this machine. Below any other directory
    /// no program runs, since it would look at this machine instead.
    ///
    /// # Errors
    /// `root` is no directory this user may open.
    pub fn new(root: &str, clock: Arc<dyn Clock>) -> Result<Self, Unknown> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(root, flags, Mode::empty()).map_err(|errno| refusal(root, errno))?;
        Ok(Self {
            root: fd,
            is_machine: root == "/",
            commands: BTreeMap::new(),
            clock,
        })
    }

    /// Gives a directory that stands for a host the output of its programs, by command line: the
    /// program's first path and its arguments, joined with spaces.
    #[must_use]
    pub fn with_commands(mut self, commands: BTreeMap<String, Ran>) -> Self {
        self.commands = commands;
        self
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        if self.is_machine {
            return fs::open(path, flags, Mode::empty());
        }
        fs::openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// For reading, first without a trace in the access time: only the owner and root may.
    fn open_to_read(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.open(path, flags | OFlags::NOATIME) {
            Err(Errno::PERM) => self.open(path, flags),
            other => other,
        }
    }

    fn raw_stat(&self, path: &str, links: Links) -> Result<fs::Stat, Errno> {
        if self.is_machine {
            return match links {
                Links::Keep => fs::lstat(path),
                Links::Follow => fs::stat(path),
            };
        }
        let keep = match links {
            Links::Keep => OFlags::NOFOLLOW,
            Links::Follow => OFlags::empty(),
        };
        fs::fstat(self.open(path, OFlags::PATH | keep)?)
    }
}

impl Target for LocalTarget {
    fn stream(&self, path: &str, cap: usize, sink: &mut dyn FnMut(&[u8])) -> Found<()> {
        // Looked at before it is opened: opening alone can start a tape or arm a watchdog.
        let stat = match self.raw_stat(path, Links::Follow) {
            Ok(stat) => stat,
            Err(errno) => return not_found(path, errno),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::CharacterDevice if device(&stat) == NULL_DEVICE => {
                return Found::Present(());
            }
            _ => return unknown(Reason::Unreadable, path, "not a regular file").into(),
        }
        let fd = match self.open_to_read(path, OFlags::empty()) {
            Ok(fd) => fd,
            Err(errno) => return not_found(path, errno),
        };
        match read_all(&fd, cap, sink) {
            Ok(true) => Found::Present(()),
            Ok(false) => {
                unknown(Reason::Truncated, path, format!("longer than {cap} bytes")).into()
            }
            Err(errno) => refusal(path, errno).into(),
        }
    }

    fn list(&self, dir: &str) -> Found<Vec<Entry>> {
        let listing = self.open_to_read(dir, OFlags::DIRECTORY).and_then(Dir::new);
        let listing = match listing {
            Ok(listing) => listing,
            Err(errno) => return not_found(dir, errno),
        };
        let mut entries = Vec::new();
        for entry in listing {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return refusal(dir, errno).into(),
            };
            let Ok(name) = entry.file_name().to_str() else {
                // A name we cannot write down cannot be asked for later: better no listing than
                // one with a hole.
                return unknown(Reason::Unsupported, dir, "holds a name that is not UTF-8").into();
            };
            if name == "." || name == ".." {
                continue;
            }
            if entries.len() == ENTRIES_MAX {
                return unknown(
                    Reason::Truncated,
                    dir,
                    format!("over {ENTRIES_MAX} entries"),
                )
                .into();
            }
            let mut file_type = entry.file_type();
            if file_type == FileType::Unknown {
                let path = format!("{}/{name}", dir.trim_end_matches('/'));
                match self.raw_stat(&path, Links::Keep) {
                    Ok(stat) => file_type = FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return refusal(&path, errno).into(),
                }
            }
            entries.push(Entry {
                name: name.to_owned(),
                kind: kind(file_type),
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Found::Present(entries)
    }

    fn stat(&self, path: &str, links: Links) -> Found<Stat> {
        match self.raw_stat(path, links) {
            Ok(stat) => Found::Present(Stat {
                kind: kind(FileType::from_raw_mode(stat.st_mode)),
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                size: u64::try_from(stat.st_size).unwrap_or(0),
                mtime_seconds: stat.st_mtime,
            }),
            Err(errno) => not_found(path, errno),
        }
    }

    fn read_link(&self, path: &str) -> Found<String> {
        let link = self
            .open(path, OFlags::PATH | OFlags::NOFOLLOW)
            .and_then(|fd| fs::readlinkat(fd, "", Vec::new()));
        match link {
            Ok(target) => match target.into_string() {
                Ok(target) => Found::Present(target),
                Err(_) => unknown(Reason::Unsupported, path, "its target is not UTF-8").into(),
            },
            // What readlink answers, by its manual page, for a file that is no link.
            Err(Errno::INVAL | Errno::NOENT) => Found::Absent,
            Err(errno) => not_found(path, errno),
        }
    }

    fn run(&self, command: &Command<'_>) -> Result<Ran, Unknown> {
        if self.is_machine {
            return process::run(command, self.clock.as_ref());
        }
        let program = command.programs.first().copied().unwrap_or_default();
        let line = [&[program], command.args].concat().join(" ");
        self.commands
            .get(&line)
            .cloned()
            .ok_or_else(|| unknown(Reason::ToolMissing, program, "not on this host"))
    }

    fn walk(&self, walk: &Walk<'_>, progress: &dyn Progress) -> Result<Walked, Unknown> {
        let mounts = if self.is_machine {
            let table = self.read("/proc/self/mountinfo", super::OUTPUT_BYTES_MAX);
            match table {
                Found::Present(table) => Some(table),
                Found::Absent => {
                    return Err(Unknown::new(Reason::Unreadable, "/proc/self/mountinfo"));
                }
                Found::Unknown(unknown) => return Err(unknown),
            }
        } else {
            None
        };
        walk::walk(&self.root, mounts, walk, progress, self.clock.as_ref())
    }
}

/// False when there is more than `cap`.
fn read_all(fd: &OwnedFd, cap: usize, sink: &mut dyn FnMut(&[u8])) -> Result<bool, Errno> {
    let mut chunk = vec![0; READ_BYTES.min(cap.saturating_add(1))];
    let mut left = cap;
    loop {
        match rustix::io::read(fd, &mut chunk) {
            Ok(0) => return Ok(true),
            Ok(count) if count > left => return Ok(false),
            Ok(count) => {
                left -= count;
                sink(&chunk[..count]);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn device(stat: &fs::Stat) -> (u32, u32) {
    (fs::major(stat.st_rdev), fs::minor(stat.st_rdev))
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Link,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        _ => Kind::Other,
    }
}

fn not_found<T>(object: &str, errno: Errno) -> Found<T> {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Found::Absent,
        other => refusal(object, other).into(),
    }
}

fn refusal(object: &str, errno: Errno) -> Unknown {
    let reason = match errno {
        Errno::ACCESS | Errno::PERM => Reason::Privilege,
        _ => Reason::Unreadable,
    };
    unknown(reason, object, words(errno))
}

/// The system's words without the number that Rust adds.
fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
