//! A disk that can only be looked at.
//!
//! The tools read journals that are in use, damaged or evidence. They run recovery's own survey on
//! this disk, so that nothing in it can change a byte, whatever it asks for: files open for reading,
//! and every call that would change a name is refused.

use std::{io, path::Path, sync::Arc};

use world::{
    Disk, File,
    disk::{Entry, Lock, Open, Space},
};

#[derive(Debug)]
pub(crate) struct Looking(Arc<dyn Disk>);

impl Looking {
    pub(crate) fn at(disk: &Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Self(Arc::clone(disk)))
    }
}

fn refuse<T>(what: &str, path: &Path) -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{what} {} while only looking", path.display()),
    ))
}

impl Disk for Looking {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        match how {
            Open::Read | Open::Write => self.0.open(path, Open::Read),
            Open::CreateNew | Open::CreateOrOpen => refuse("create", path),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.0.list(dir)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.0.stat(path)
    }

    fn create_dir_all_synced(&self, dir: &Path) -> io::Result<()> {
        refuse("create", dir)
    }

    fn rename(&self, from: &Path, _to: &Path) -> io::Result<()> {
        refuse("rename", from)
    }

    fn link(&self, from: &Path, _to: &Path) -> io::Result<()> {
        refuse("link", from)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        refuse("remove", path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        refuse("remove", dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        refuse("sync", dir)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }

    fn lock(&self, path: &Path, _holder: &str) -> io::Result<Box<dyn Lock>> {
        refuse("lock", path)
    }

    fn holder(&self, path: &Path) -> io::Result<Option<String>> {
        self.0.holder(path)
    }
}
