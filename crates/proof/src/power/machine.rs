//! The disk beneath the processes of a run: what they did is done again on `world::sim::Disk`, and
//! what that disk holds after a loss of power is laid out as real files for the next process.
//!
//! One model of what a loss of power leaves, for this proof and for the simulations; it is told in
//! `world/src/sim/disk/image.rs`. What a process did is believed only if the calls that were seen
//! lead to exactly the files that are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use world::{
    Disk, File, RealDisk,
    disk::{EntryKind, Open},
    sim::{self, Call, Fault},
};

use super::{
    log::{Entry, Log, SyncNumber, What},
    place::{Place, Places},
};

/// Bytes of one file read back for comparison. Arbitrary, far above what a run writes.
const FILE_LEN_MAX: u64 = 1 << 30;

/// How a process ends, and perhaps the machine with it, when `cut` of its calls were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Power is lost; the seed says what stays of what was not synced.
    Power { cut: usize, seed: u64 },
    /// The process dies: what was not synced is there, and a later loss of power can take it.
    Death { cut: usize },
}

/// The disk between two processes.
#[derive(Debug)]
pub(super) struct Machine {
    disk: sim::Disk,
    root: PathBuf,
    /// What each real file is on the disk, by inode.
    laid_out: BTreeMap<u64, PathBuf>,
}

impl End {
    pub(super) const fn cut(self) -> usize {
        match self {
            Self::Power { cut, .. } | Self::Death { cut } => cut,
        }
    }
}

impl Machine {
    /// A machine with an empty disk, laid out in `root`.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        Self::of(sim::Disk::new(0), root)
    }

    /// Another machine with the same disk, laid out elsewhere.
    pub(super) fn fork(&self, root: &Path) -> io::Result<Self> {
        Self::of(self.disk.fork(), root)
    }

    fn of(disk: sim::Disk, root: &Path) -> io::Result<Self> {
        let mut machine = Self {
            disk,
            root: root.to_owned(),
            laid_out: BTreeMap::new(),
        };
        machine.lay_out()?;
        Ok(machine)
    }

    /// The machine after what a process did up to its end, laid out in `root` for the next one. Syncs
    /// at the `swallowed` places are taken for never made.
    pub(super) fn after(
        &self,
        root: &Path,
        log: &Log,
        end: End,
        swallowed: &BTreeSet<Place>,
    ) -> io::Result<Self> {
        let disk = self.disk.fork();
        self.replay(&disk, log, end.cut(), swallowed)?;
        let disk = match end {
            End::Power { seed, .. } => disk.power_loss(seed),
            End::Death { .. } => disk.process_death(),
        };
        Self::of(disk, root)
    }

    /// An error when the calls in the log do not lead to the files that are there: then something
    /// changed them that was not seen, and the run says nothing.
    pub(super) fn has_seen_all(&self, log: &Log) -> io::Result<()> {
        let disk = self.disk.fork();
        self.replay(&disk, log, log.entries.len(), &BTreeSet::new())?;
        let root = Path::new("/");
        let (seen, there) = (listing(&disk, root)?, listing(&RealDisk, &self.root)?);
        for path in seen.keys().chain(there.keys()) {
            let (seen, there) = (seen.get(path), there.get(path));
            if seen != there {
                let words = |found: Option<&Option<Vec<u8>>>| match found {
                    None => "absent".to_owned(),
                    Some(None) => "a directory".to_owned(),
                    Some(Some(bytes)) => format!("{} bytes", bytes.len()),
                };
                return Err(io::Error::other(format!(
                    "the library has not seen all: {} is {} by the calls, {} in truth",
                    path.display(),
                    words(seen),
                    words(there)
                )));
            }
        }
        Ok(())
    }

    fn replay(
        &self,
        disk: &sim::Disk,
        log: &Log,
        cut: usize,
        swallowed: &BTreeSet<Place>,
    ) -> io::Result<()> {
        let counting = syncs_that_count(&log.entries, cut, swallowed);
        let mut files: BTreeMap<u64, Arc<dyn File>> = BTreeMap::new();
        for (inode, path) in &self.laid_out {
            files.insert(*inode, disk.open(path, Open::Write)?);
        }
        for entry in &log.entries[..cut] {
            apply(disk, &mut files, log, entry, &counting).map_err(|error| {
                let words = format!("doing {:?} again: {error}", entry.what);
                io::Error::new(error.kind(), words)
            })?;
        }
        Ok(())
    }

    /// Makes the real directory what the disk holds.
    fn lay_out(&mut self) -> io::Result<()> {
        match RealDisk.remove_dir_all(&self.root) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(&self.root)?;
        self.laid_out.clear();
        for (path, bytes) in listing(&self.disk, Path::new("/"))? {
            let real = self.root.join(&path);
            let Some(bytes) = bytes else {
                fs::create_dir(&real)?;
                continue;
            };
            RealDisk
                .open(&real, Open::CreateNew)?
                .write_all_at(&bytes, 0)?;
            let inode = fs::symlink_metadata(&real)?.ino();
            self.laid_out.insert(inode, Path::new("/").join(path));
        }
        Ok(())
    }
}

/// Syncs that returned before the cut, other than the swallowed ones. One that was under way may
/// have done anything, and nobody was told: what it was for is as if it had not begun.
fn syncs_that_count(
    entries: &[Entry],
    cut: usize,
    swallowed: &BTreeSet<Place>,
) -> BTreeSet<SyncNumber> {
    let mut counting = BTreeSet::new();
    for entry in &entries[..cut] {
        if let What::Synced(number) = entry.what {
            counting.insert(number);
        }
    }
    if !swallowed.is_empty() {
        let mut places = Places::default();
        for entry in &entries[..cut] {
            if let Some((number, place)) = places.next(&entry.what)
                && swallowed.contains(&place)
            {
                counting.remove(&number);
            }
        }
    }
    counting
}

fn apply(
    disk: &sim::Disk,
    files: &mut BTreeMap<u64, Arc<dyn File>>,
    log: &Log,
    entry: &Entry,
    counting: &BTreeSet<SyncNumber>,
) -> io::Result<()> {
    if entry.failed {
        return apply_failed(disk, files, &entry.what);
    }
    match &entry.what {
        What::Create { path, inode } => {
            files.insert(*inode, disk.open(path, Open::CreateNew)?);
            Ok(())
        }
        What::Write {
            inode,
            offset,
            bytes,
            ..
        } => file(files, *inode)?.write_all_at(log.bytes(bytes), *offset),
        What::SetLen { inode, len, .. } => file(files, *inode)?.set_len(*len),
        What::Sync { inode, number, .. } if counting.contains(number) => {
            file(files, *inode)?.sync_all()
        }
        What::SyncDir { path, number } if counting.contains(number) => disk.sync_dir(path),
        What::Rename { from, to } => disk.rename(from, to),
        What::Unlink(path) => disk.remove_file(path),
        What::RemoveDir(path) => disk.remove_dir_all(path),
        What::MakeDir(path) => disk.create_dir(path),
        What::Open { .. }
        | What::Sync { .. }
        | What::SyncDir { .. }
        | What::Synced(_)
        | What::Told(_) => Ok(()),
    }
}

/// A failed call changed nothing, but for a sync of a file: it leaves the pages clean, so that no
/// later sync writes them.
fn apply_failed(
    disk: &sim::Disk,
    files: &BTreeMap<u64, Arc<dyn File>>,
    what: &What,
) -> io::Result<()> {
    let What::Sync { inode, .. } = what else {
        return Ok(());
    };
    disk.inject(Call::SyncAll, 1, Fault::FailScattered(ErrorKind::Other));
    match file(files, *inode)?.sync_all() {
        Err(_) => Ok(()),
        Ok(()) => Err(io::Error::other("a sync that was to fail did not")),
    }
}

fn file(files: &BTreeMap<u64, Arc<dyn File>>, inode: u64) -> io::Result<&dyn File> {
    let found = files.get(&inode).map(AsRef::as_ref);
    found.ok_or_else(|| io::Error::other(format!("nobody has made the file with inode {inode}")))
}

/// Everything below `root`, parents first: files with their bytes, directories with `None`. Sockets
/// and the like hold nothing that power could take.
fn listing(disk: &dyn Disk, root: &Path) -> io::Result<BTreeMap<PathBuf, Option<Vec<u8>>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in disk.list(&root.join(&dir))? {
            let path = dir.join(&entry.name);
            match entry.kind {
                EntryKind::Dir => {
                    open.push(path.clone());
                    found.insert(path, None);
                }
                EntryKind::File => {
                    let bytes = disk.read(&root.join(&path), FILE_LEN_MAX)?;
                    found.insert(path, Some(bytes));
                }
                EntryKind::Other => {}
            }
        }
    }
    Ok(found)
}
