//! The machine's own file system.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::{FlockOperation, OFlags};

use super::{Disk, Entry, EntryKind, File, Lock, Open, Space};

#[cfg(test)]
mod tests;

/// Bytes of a lock file that are shown as its holder. A holder line is a pid and a command name.
const HOLDER_LEN_MAX: usize = 512;

#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(fs::File);

#[derive(Debug)]
struct RealLock(fs::File);

impl Lock for RealLock {}

impl Drop for RealLock {
    /// In so many words, not by closing the file: a child that another thread starts has a copy of every open
    /// file until its program runs, and would hold the lock for as long.
    fn drop(&mut self) {
        // Refused for a closed file only, and this one is open.
        rustix::fs::flock(&self.0, FlockOperation::Unlock).ok();
    }
}

fn open_file(path: &Path, how: Open) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).mode(0o600);
    // O_NOFOLLOW: a link planted where a file should be is an error, not a way out of the directory.
    // O_NONBLOCK: opening a pipe planted there returns, and is refused below, instead of waiting
    // for whoever holds its other end. It means nothing to a regular file.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed());
    match how {
        Open::Read => {}
        Open::Write => {
            options.write(true);
        }
        Open::CreateNew => {
            options.write(true).create_new(true);
        }
        Open::CreateOrOpen => {
            options.write(true).create(true).truncate(false);
        }
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let refusal = format!("{} is not a regular file", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, refusal))
}

fn entry(name: String, metadata: &fs::Metadata) -> Entry {
    let kind = if metadata.is_file() {
        EntryKind::File
    } else if metadata.is_dir() {
        EntryKind::Dir
    } else {
        EntryKind::Other
    };
    let len = if kind == EntryKind::File {
        metadata.len()
    } else {
        0
    };
    Entry { name, kind, len }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(open_file(path, how)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::read_dir(dir)? {
            let found = found?;
            let name = found.file_name().into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("name {name:?} in {} is not UTF-8", dir.display()),
                )
            })?;
            // `DirEntry::metadata` does not follow links.
            match found.metadata() {
                Ok(metadata) => entries.push(entry(name, &metadata)),
                // Removed since it was read from the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => {
                let name = path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                Ok(Some(entry(name, &metadata)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_dir_all_synced(&self, dir: &Path) -> io::Result<()> {
        let Some(parent) = dir.parent() else {
            return Ok(());
        };
        if fs::metadata(dir).is_ok_and(|metadata| metadata.is_dir()) {
            // A process killed between creation and sync left a name that is not durable yet. It
            // can only be this one: deeper ones are created after the sync.
            return match self.sync_dir(parent) {
                // Whoever may not read the parent cannot have created anything in it through here.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            };
        }
        self.create_dir_all_synced(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            // Lost a race: the winner may not have synced yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            created => created?,
        }
        self.sync_dir(parent)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        let file = open_file(path, Open::CreateOrOpen)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    read_holder(&file)?,
                ));
            }
            Err(error) => return Err(error.into()),
        }
        // Only told to whoever comes second; the lock itself is the kernel's, so no sync.
        // Over the old text first: that asks a full disk for nothing. Where it has no room for the text,
        // the lock holds all the same.
        let told = file
            .write_all_at(holder.as_bytes(), 0)
            .and_then(|()| file.set_len(holder.len() as u64));
        match told {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            told => told?,
        }
        Ok(Box::new(RealLock(file)))
    }

    fn holder(&self, path: &Path) -> io::Result<Option<String>> {
        let file = match open_file(path, Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        // The kernel tells only whoever asks for the lock. Shared, so that two who ask do not see
        // each other, and given back at once; an opener that comes in between is refused and may
        // try again.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                drop(RealLock(file));
                Ok(None)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => read_holder(&file).map(Some),
            Err(error) => Err(error.into()),
        }
    }
}

fn read_holder(file: &fs::File) -> io::Result<String> {
    let mut bytes = [0; HOLDER_LEN_MAX];
    let len = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..len]).trim().to_owned())
}

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn drop_cache(&self, offset: u64, len: u64) -> io::Result<()> {
        // The kernel keeps pages that are dirty or in use; these were synced by us.
        let len = std::num::NonZeroU64::new(len);
        Ok(rustix::fs::fadvise(
            &self.0,
            offset,
            len,
            rustix::fs::Advice::DontNeed,
        )?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
