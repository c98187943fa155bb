//! Files: looked at without following, replaced whole, access changed through a descriptor.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid, XattrFlags},
    io::Errno,
};

use super::{LocalHands, words};
use crate::fix::{Access, Fault, Object, State, engine::changed};

/// Content that is captured: drop-ins have a few lines.
const CONTENT_BYTES_MAX: usize = 256 << 10;
/// Names, and values, of extended attributes: the kernel's limit.
const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;

impl LocalHands {
    /// What a name stands for, itself and not what it may point to. `None` when there is nothing.
    fn open_itself(&self, path: &str) -> Result<Option<(OwnedFd, fs::Stat)>, Fault> {
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&dir, name, flags, Mode::empty()) {
            Ok(fd) => {
                let stat = fs::fstat(&fd).map_err(|errno| Fault::refused(path, words(errno)))?;
                Ok(Some((fd, stat)))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Fault::refused(path, words(errno))),
        }
    }

    pub(super) fn look_file(&self, path: &str) -> Result<State, Fault> {
        let Some((itself, stat)) = self.open_itself(path)? else {
            return Ok(State::Absent);
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Fault::not_safe(path, "is not a regular file"));
        }
        if stat.st_nlink > 1 {
            return Err(Fault::not_safe(path, "has another name (a hard link)"));
        }
        let refused = |errno| Fault::refused(path, words(errno));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = fs::open(through(itself.as_fd()), flags, Mode::empty()).map_err(refused)?;
        Ok(State::File {
            content: read_all(&fd, path)?,
            access: access(&stat),
            attributes: Some(attributes(fd.as_fd(), path)?),
        })
    }

    pub(super) fn look_access(&self, path: &str) -> Result<State, Fault> {
        match self.open_itself(path)? {
            None => Ok(State::Absent),
            Some((fd, stat)) => {
                plain(path, &stat)?;
                // Changing owner or mode would drop the one and change the meaning of the other.
                for name in attributes(reopened(&fd, path)?.as_fd(), path)?.keys() {
                    if name == "security.capability" || name.starts_with("system.posix_acl") {
                        return Err(Fault::not_safe(path, format!("has {name}")));
                    }
                }
                Ok(State::Access(access(&stat)))
            }
        }
    }

    /// First only what both allow, then the owner, then the rest: at no moment is the file open to
    /// somebody whom neither state lets in.
    pub(super) fn set_access(&mut self, path: &str, from: &State, to: Access) -> Result<(), Fault> {
        let refused = |errno| Fault::refused(path, words(errno));
        let (itself, stat) = self
            .open_itself(path)?
            .ok_or_else(|| refused(Errno::NOENT))?;
        plain(path, &stat)?;
        let now = access(&stat);
        if State::Access(now) != *from {
            return Err(changed(&Object::Access {
                path: path.to_owned(),
            }));
        }
        let link = through(itself.as_fd());
        let mode = |bits: u32| Mode::from_raw_mode(bits);
        if now.mode & to.mode != now.mode {
            self.before("chmod").map_err(refused)?;
            fs::chmod(&link, mode(now.mode & to.mode)).map_err(refused)?;
        }
        if (now.uid, now.gid) != (to.uid, to.gid) {
            self.before("chown").map_err(refused)?;
            let (owner, group) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
            fs::chown(&link, Some(owner), Some(group)).map_err(refused)?;
        }
        self.before("chmod").map_err(refused)?;
        fs::chmod(&link, mode(to.mode)).map_err(refused)?;
        self.before("sync").map_err(refused)?;
        fs::fsync(reopened(&itself, path)?).map_err(refused)
    }

    /// From any state of a file to any other. A crash leaves the one or the other, and at most the
    /// temporary file that [`LocalHands::sweep_file`] removes.
    pub(super) fn replace_file(
        &mut self,
        tag: &str,
        path: &str,
        from: &State,
        to: &State,
    ) -> Result<(), Fault> {
        let refused = |errno| Fault::refused(path, words(errno));
        let (dir, name) = self.parent(path)?;
        match to {
            State::Absent => {
                self.before("unlink").map_err(refused)?;
                fs::unlinkat(&dir, name, AtFlags::empty()).map_err(refused)?;
            }
            State::File {
                content,
                access,
                attributes,
            } => {
                let temporary = temporary(tag);
                let made =
                    self.write_temporary(&dir, &temporary, content, *access, attributes.as_ref());
                let moved = made.and_then(|()| {
                    self.before("rename")?;
                    let how = match from {
                        // Nobody's file is overwritten that was not there when it was captured.
                        State::Absent => RenameFlags::NOREPLACE,
                        _ => RenameFlags::empty(),
                    };
                    fs::renameat_with(&dir, temporary.as_str(), &dir, name, how)
                });
                if let Err(errno) = moved {
                    // Best effort: the next sweep finds it by its name.
                    fs::unlinkat(&dir, temporary.as_str(), AtFlags::empty()).ok();
                    return Err(refused(errno));
                }
            }
            _ => return Err(Fault::not_safe(path, "is to become something else")),
        }
        self.before("sync").map_err(refused)?;
        sync_dir(&dir).map_err(refused)
    }

    pub(super) fn write_temporary(
        &mut self,
        dir: &OwnedFd,
        name: &str,
        content: &[u8],
        access: Access,
        attributes: Option<&BTreeMap<String, String>>,
    ) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.before("create")?;
        let mode = Mode::from_raw_mode(0o600);
        let fd = fs::openat(dir, name, flags | OFlags::CLOEXEC, mode)?;
        self.before("write")?;
        let mut rest = content;
        while !rest.is_empty() {
            match rustix::io::write(&fd, rest) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.before("chown")?;
        let (owner, group) = (Uid::from_raw(access.uid), Gid::from_raw(access.gid));
        fs::fchown(&fd, Some(owner), Some(group))?;
        self.before("chmod")?;
        fs::fchmod(&fd, Mode::from_raw_mode(access.mode))?;
        for (name, value) in attributes.into_iter().flatten() {
            self.before("setxattr")?;
            let value = STANDARD.decode(value).map_err(|_| Errno::INVAL)?;
            fs::fsetxattr(&fd, name.as_str(), &value, XattrFlags::empty())?;
        }
        self.before("sync")?;
        fs::fsync(&fd)
    }

    pub(super) fn sweep_file(&mut self, tag: &str, path: &str) -> Result<(), Fault> {
        let (dir, _) = self.parent(path)?;
        match fs::unlinkat(&dir, temporary(tag).as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Fault::refused(path, words(errno))),
        }
    }
}

/// Hidden, and of no suffix that a reader of drop-ins takes.
fn temporary(tag: &str) -> String {
    format!(".holdfast-{tag}.tmp")
}

/// The one file that a descriptor stands for, by a name that nobody can swap.
fn through(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn reopened(itself: &OwnedFd, path: &str) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    fs::open(through(itself.as_fd()), flags, Mode::empty())
        .map_err(|errno| Fault::refused(path, words(errno)))
}

fn plain(path: &str, stat: &fs::Stat) -> Result<(), Fault> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Directory => Ok(()),
        FileType::Symlink => Err(Fault::not_safe(path, "is a symbolic link")),
        _ => Err(Fault::not_safe(path, "is neither file nor directory")),
    }
}

fn access(stat: &fs::Stat) -> Access {
    Access {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    }
}

fn read_all(fd: &OwnedFd, path: &str) -> Result<Vec<u8>, Fault> {
    let mut content = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    loop {
        match rustix::io::read(fd, &mut chunk) {
            Ok(0) => return Ok(content),
            Ok(count) => content.extend_from_slice(&chunk[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Fault::refused(path, words(errno))),
        }
        if content.len() > CONTENT_BYTES_MAX {
            let why = format!("has more than {CONTENT_BYTES_MAX} bytes, which are not captured");
            return Err(Fault::not_safe(path, why));
        }
    }
}

fn attributes(fd: BorrowedFd<'_>, path: &str) -> Result<BTreeMap<String, String>, Fault> {
    let refused = |errno| Fault::refused(path, format!("extended attributes: {}", words(errno)));
    let mut names = vec![0; ATTRIBUTES_BYTES_MAX];
    let len = match fs::flistxattr(fd, &mut names[..]) {
        Ok(len) => len,
        // A file system without any.
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(refused(errno)),
    };
    let mut found = BTreeMap::new();
    for name in names[..len]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
    {
        let name = std::str::from_utf8(name)
            .map_err(|_| Fault::not_safe(path, "an extended attribute that is not text"))?;
        let mut value = vec![0; ATTRIBUTES_BYTES_MAX];
        let len = fs::fgetxattr(fd, name, &mut value[..]).map_err(refused)?;
        found.insert(name.to_owned(), STANDARD.encode(&value[..len]));
    }
    Ok(found)
}

fn sync_dir(dir: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::fsync(fs::openat(dir, ".", flags, Mode::empty())?)
}
