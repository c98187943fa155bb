//! Files and directories as a parameter.
//!
//! Positioned reads and writes only, and every sync is a call of its own: what is durable can be
//! read off the calls. After a crash, bytes not covered by a file's sync and names not covered by
//! their directory's sync may be there, gone, torn or reordered; [`crate::sim::Disk`] does exactly
//! that. Paths are absolute. No file is opened through a symbolic link in its last component;
//! directories may be links, so that an operator can move one to another disk.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

mod real;

pub use real::RealDisk;

/// How [`Disk::open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet. Its name is durable only after [`Disk::sync_dir`].
    CreateNew,
    /// For reading and writing, created when missing, kept when present.
    CreateOrOpen,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Dir,
    /// Symbolic links, devices, sockets.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
    /// Length in bytes of a file, 0 for anything else.
    pub len: u64,
}

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// Available to this process, the reserve of the superuser left out.
    pub available: u64,
}

/// A file system.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Only regular files open.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Entries of `dir`, sorted by name. Names that are not UTF-8 are an error of kind `InvalidData`.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// What `path` is; `None` when there is nothing.
    fn stat(&self, path: &Path) -> io::Result<Option<Entry>>;
    /// Creates `dir` and its parents with mode 0700; when it returns, the name of `dir` and of
    /// each parent it created is durable, also after an earlier attempt was killed half-way.
    fn create_dir_all_synced(&self, dir: &Path) -> io::Result<()>;
    /// Atomic, replaces `to`. Durable only after `sync_dir` of the parents.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file `from` a second name, which must not exist. Durable only after `sync_dir` of
    /// the directory of `to`. A file is moved to another directory safely by linking, syncing that
    /// directory, and only then removing the first name: a power loss amid a rename between two
    /// directories may leave neither name. An error where the file system has no links.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes an exclusive lock on the file `path`, creating it, and writes `holder` into it. When
    /// another process (or handle) has it: an error of kind `WouldBlock` whose text is what that
    /// holder wrote. Released when the guard is dropped or the process ends.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>>;
    /// What the holder of the lock `path` wrote into it; `None` when nobody holds it. Asks only:
    /// nothing is created, and nothing is held when it returns.
    fn holder(&self, path: &Path) -> io::Result<Option<String>>;

    /// Replaces the file `path` by `bytes`, durably and atomically: after a crash it holds the
    /// old bytes or the new ones. New file, write, sync, rename, directory sync, in that order.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = temporary_name(path)?;
        if self.stat(&temporary)?.is_some() {
            // Left by a crash between creation and rename; never the only copy of anything.
            self.remove_file(&temporary)?;
        }
        let file = self.open(&temporary, Open::CreateNew)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        drop(file);
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or_else(|| Path::new("/")))
    }

    /// The whole file, refused with `InvalidData` when longer than `len_max`.
    fn read(&self, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let len = file.len()?;
        if len > len_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} has {len} bytes, more than {len_max}", path.display()),
            ));
        }
        let len = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "file beyond memory"))?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path without a file name"))?;
    let mut temporary = name.to_os_string();
    temporary.push(".tmp");
    Ok(path.with_file_name(temporary))
}

/// An open file. Positioned access only, so handles can be shared between threads.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads at most `buffer.len()` bytes; 0 at and beyond the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at most `bytes.len()` bytes, extending the file as needed. May write fewer.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes the bytes and the length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes bytes and all metadata durable (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
    /// Asks that the next read of these bytes, which were synced, comes from the disk and not from
    /// memory: to see what a disk kept that lost a write or put it elsewhere.
    fn drop_cache(&self, offset: u64, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, len: u64) -> io::Result<()>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A held lock; dropping it releases.
pub trait Lock: Send + Sync + fmt::Debug {}
