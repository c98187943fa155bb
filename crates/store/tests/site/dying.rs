//! A real disk under a process that dies at one of its calls: from there on nothing is done.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use world::{
    Disk, RealDisk,
    disk::{Entry, File, Lock, Open, Space},
};

/// Counts the calls that change something.
#[derive(Debug, Default)]
struct Life {
    calls: AtomicU64,
    /// The call at which it ends, from 1 on.
    last: u64,
    /// What a call answers from then on.
    full: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct DyingDisk(Arc<Life>);

#[derive(Debug)]
struct DyingFile(Arc<dyn File>, Arc<Life>);

impl DyingDisk {
    pub(crate) fn at(last: u64) -> Self {
        Self(Arc::new(Life {
            last,
            ..Life::default()
        }))
    }

    /// Takes `last` calls and has no room for what comes then.
    pub(crate) fn full_at(last: u64) -> Self {
        Self(Arc::new(Life {
            last,
            full: true,
            ..Life::default()
        }))
    }

    pub(crate) fn has_died(&self) -> bool {
        self.0.calls.load(Ordering::SeqCst) >= self.0.last
    }
}

impl Life {
    /// An error once it has ended.
    fn step(&self) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst) + 1 < self.last {
            return Ok(());
        }
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Err(io::Error::other("the process died"))
    }

    /// Looking takes no room.
    fn look(&self) -> io::Result<()> {
        if self.full || self.calls.load(Ordering::SeqCst) < self.last {
            return Ok(());
        }
        Err(io::Error::other("the process died"))
    }
}

impl Disk for DyingDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        if how == Open::Read {
            self.0.look()?;
        } else {
            self.0.step()?;
        }
        Ok(Arc::new(DyingFile(
            RealDisk.open(path, how)?,
            Arc::clone(&self.0),
        )))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.0.look()?;
        RealDisk.list(dir)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.0.look()?;
        RealDisk.stat(path)
    }

    fn create_dir_all_synced(&self, dir: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.create_dir_all_synced(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.0.full {
            return RealDisk.remove_file(path);
        }
        self.0.step()?;
        RealDisk.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        if self.0.full {
            return RealDisk.remove_dir_all(dir);
        }
        self.0.step().or_else(|died| {
            // Half of it is gone.
            for entry in RealDisk.list(dir)?.iter().step_by(2) {
                let path = dir.join(&entry.name);
                match entry.kind {
                    world::disk::EntryKind::Dir => RealDisk.remove_dir_all(&path)?,
                    _ => RealDisk.remove_file(&path)?,
                }
            }
            Err(died)
        })?;
        RealDisk.remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.look()?;
        RealDisk.sync_dir(dir)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        RealDisk.lock(path, holder)
    }

    fn holder(&self, path: &Path) -> io::Result<Option<String>> {
        RealDisk.holder(path)
    }
}

impl File for DyingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.look()?;
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.1.step().or_else(|died| {
            // Torn.
            self.0.write_at(&bytes[..bytes.len() / 2], offset)?;
            Err(died)
        })?;
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.look()?;
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.1.look()?;
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn drop_cache(&self, from: u64, len: u64) -> io::Result<()> {
        self.0.drop_cache(from, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.step()?;
        self.0.set_len(len)
    }
}
