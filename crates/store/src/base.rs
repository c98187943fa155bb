//! A base: what a copy of this store is rebuilt from while this one goes on.
//!
//! A full base is the files of a checkpoint, held by second names in a directory of their own, so
//! that no compaction takes them away. It is made under the checkpointer's lock: the manifest says
//! what the files hold at least. Each tree is whole up to some position of its own at or above the
//! checkpoint, and whoever replays the journal above the checkpoint skips what a tree already has.
//!
//! What changed since a position is one file of versions, written beside the held ones.
//!
//! The directory of a base goes with the base; what a process left by dying goes with the next open.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use wal::{Lsn, Pin};
use world::Disk;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    Commit, Error, Kind, Store,
    checkpoint::Checkpointer,
    description::{BaseFile, Description, FileName, PART_BYTES},
    index,
    local::{Inner, TableState},
    manifest::{Identity, Manifest},
    recovery::{ONCE, TIMES},
    tree::Tree,
};

/// Below the store's directory.
const BASES_DIR: &str = "bases";
/// Bases at once: each may keep files on the disk that compaction has replaced. Arbitrary.
const BASES_MAX: usize = 8;
/// How often a tree is looked at until nothing replaced its list meanwhile. Each time takes less
/// than replacing one does, which syncs.
const LOOKS_MAX: usize = 100;

/// Files of a store that are held for a copy elsewhere, in parts. Dropped, it lets them go, and the
/// journal above its position with them.
pub struct Base {
    held: Held,
    commit: Commit,
    description: Description,
    encoded: Vec<u8>,
    /// The journal goes on behind it.
    _pin: Pin,
}

/// A directory that goes with this.
pub(crate) struct Held {
    pub(crate) inner: Arc<Inner>,
    pub(crate) dir: PathBuf,
}

impl Store {
    /// Takes a checkpoint and holds its files: of a store of this machine only. Commits, flushes and
    /// compactions go on.
    pub fn open_base(&self) -> Result<Base, Error> {
        let inner = self.here("a base")?;
        inner.open()?;
        let mut checkpointer = inner.checkpointer();
        let commit = inner.checkpoint_in(&mut checkpointer)?;
        let held = Held::new(inner, &mut checkpointer)?;
        let mut files = Vec::new();
        let mut reaches = commit.lsn;
        for (tree, kept) in inner.numbered() {
            reaches = reaches.max(held.link_tree(tree, kept, &mut files)?);
        }
        let manifest = checkpointer.manifest().clone();
        Base::new(held, manifest, commit, None, reaches, files)
    }

    /// Takes a checkpoint, and holds what changed above `since`: of a store of this machine only. A
    /// table of which deletions above `since` may have been dropped already is in it whole.
    /// `OutOfRange` when `since` is still to come, or when so much is in it whole that a full base
    /// costs no more.
    pub fn open_changes(&self, since: Lsn) -> Result<Base, Error> {
        let inner = self.here("what changed")?;
        inner.open()?;
        let (held, manifest, found) = {
            let mut checkpointer = inner.checkpointer();
            let commit = inner.checkpoint_in(&mut checkpointer)?;
            let held = Held::new(inner, &mut checkpointer)?;
            let found = inner.find_changes(since, commit)?;
            (held, checkpointer.manifest().clone(), found)
        };
        // What is read does not change any more, and the next checkpoint need not wait for it.
        let file = found.write(&held)?;
        let (since, commit) = (Some(since), found.to);
        Base::new(held, manifest, commit, since, commit.lsn, vec![file])
    }
}

impl Base {
    fn new(
        held: Held,
        manifest: Manifest,
        commit: Commit,
        since: Option<Lsn>,
        reaches: Lsn,
        files: Vec<BaseFile>,
    ) -> Result<Self, Error> {
        let inner = &held.inner;
        let pin = inner.journal.pin(commit.lsn.next());
        let pin =
            pin.map_err(|error| Error::journal("keeping the journal behind a base", error))?;
        let description = Description {
            since,
            reaches,
            identity: Identity {
                journal: inner.journal.identity(),
                created: inner.created,
            },
            manifest,
            files,
        };
        Ok(Self {
            encoded: description.encode()?,
            commit,
            description,
            held,
            _pin: pin,
        })
    }

    /// Everything up to here is in it. The journal goes on behind.
    pub fn commit(&self) -> Commit {
        self.commit
    }

    /// Nothing in it is above: a store that is made of it can be opened once its journal lets one
    /// read up to here.
    pub fn reaches(&self) -> Lsn {
        self.description.reaches
    }

    /// It holds only what changed above here.
    pub fn since(&self) -> Option<Lsn> {
        self.description.since
    }

    pub fn files(&self) -> &[BaseFile] {
        &self.description.files
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.description.bytes()
    }

    pub fn parts(&self) -> u32 {
        self.description.parts()
    }

    /// One of the parts, at most [`Base::PART_LEN_MAX`] bytes of files; the first one says what the
    /// others are. Asked again, it is the same.
    pub fn part(&self, index: u32) -> Result<Vec<u8>, Error> {
        if index == 0 {
            return Ok(self.encoded.clone());
        }
        if index >= self.parts() {
            let message = format!("part {index} of a base that has {}", self.parts());
            return Err(Error::new(Kind::Invalid, message));
        }
        let mut bytes = Vec::new();
        for piece in self.description.pieces(index) {
            let file = self.description.files[piece.file];
            let path = self.held.path(file.name);
            let start = bytes.len();
            bytes.resize(start + piece.len, 0);
            let opened = self.held.inner.disk.open(&path, world::disk::Open::Read);
            opened
                .and_then(|file| file.read_exact_at(&mut bytes[start..], piece.offset))
                .map_err(|error| Error::io("reading of a base", &path, error))?;
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// Bytes of files in one part.
    pub const PART_LEN_MAX: u64 = PART_BYTES;
}

impl Held {
    pub(crate) fn new(inner: &Arc<Inner>, checkpointer: &mut Checkpointer) -> Result<Self, Error> {
        let bases = inner.dir.join(BASES_DIR);
        let disk = &*inner.disk;
        let making = |error| Error::io("making room for a base in", &bases, error);
        disk.create_dir_all_synced(&bases).map_err(making)?;
        if disk.list(&bases).map_err(making)?.len() >= BASES_MAX {
            let message = format!("{BASES_MAX} bases are held already, let go of one first");
            return Err(Error::new(Kind::Invalid, message));
        }
        let dir = bases.join(checkpointer.number_base().to_string());
        disk.create_dir_all_synced(&dir).map_err(making)?;
        Ok(Self {
            inner: Arc::clone(inner),
            dir,
        })
    }

    /// One directory for all: making one takes a sync.
    pub(crate) fn path(&self, name: FileName) -> PathBuf {
        self.dir.join(name.path().replace('/', "."))
    }

    /// Holds a tree; tells up to where it reaches.
    fn link_tree(&self, tree: u32, kept: &Tree, files: &mut Vec<BaseFile>) -> Result<Lsn, Error> {
        for _ in 0..LOOKS_MAX {
            let first = files.len();
            if let Some(reaches) = self.link_newest(tree, kept, files)? {
                return Ok(reaches);
            }
            files.truncate(first);
        }
        let message = format!(
            "the files of table {:?} were replaced {LOOKS_MAX} times while they were to be held",
            kept.name()
        );
        Err(Error::new(Kind::Io, message))
    }

    /// `None` when the list of files was replaced meanwhile.
    fn link_newest(
        &self,
        tree: u32,
        kept: &Tree,
        files: &mut Vec<BaseFile>,
    ) -> Result<Option<Lsn>, Error> {
        let disk = &*self.inner.disk;
        // Before the list: its table files then stay until they are held here too.
        let newest = kept.held_files();
        let current = FileName::Current { tree };
        if !self.link(current)? {
            return Ok(None);
        }
        let path = self.path(current);
        let bytes = index::read(disk, kept.name(), &path)?;
        let damaged = || index::damaged(kept.name(), &path);
        let (number, checksum) = index::newest_list(&bytes).ok_or_else(damaged)?;
        let list = FileName::List { tree, number };
        if number != newest.list || !self.link(list)? {
            return Ok(None);
        }
        let path = self.path(list);
        let listed = index::read(disk, kept.name(), &path)?;
        if xxh3_128(&listed) != checksum {
            return Err(index::damaged(kept.name(), &path));
        }
        let mut push = |name, len, checksum| {
            files.push(BaseFile {
                name,
                len,
                checksum,
            })
        };
        push(current, bytes.len() as u64, xxh3_128(&bytes));
        push(list, listed.len() as u64, checksum);
        for table in &newest.tables {
            let name = FileName::Table {
                tree,
                number: table.id(),
            };
            let path = self.path(name);
            let looking = |error| Error::io("looking at", &path, error);
            let found = match self.link(name)? {
                true => disk.stat(&path).map_err(looking)?,
                false => None,
            };
            let Some(found) = found else {
                let message = format!("table {:?} has lost its file {}", kept.name(), table.id());
                return Err(Error::new(Kind::Corrupt, message));
            };
            push(name, found.len, table.checksum().into_u128());
        }
        Ok(Some(newest.reaches()))
    }

    /// False when the file is gone.
    fn link(&self, name: FileName) -> Result<bool, Error> {
        let disk = &*self.inner.disk;
        let (from, to) = (self.inner.tree_path(name), self.path(name));
        match disk.remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("removing", &to, error));
            }
            _ => {}
        }
        match disk.link(&from, &to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("holding", &from, error)),
        }
    }
}

impl Inner {
    /// All trees with the numbers of their directories.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u32, &Arc<Tree>)> {
        let table = |table: &'_ TableState| table.id.0;
        let numbers = self.tables.iter().map(table).chain([TIMES.0, ONCE.0]);
        numbers.zip(self.trees())
    }

    fn tree_path(&self, name: FileName) -> PathBuf {
        self.dir.join(crate::recovery::TABLES_DIR).join(name.path())
    }
}

/// Removes what bases of a process that died left.
pub(crate) fn forget(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let bases = dir.join(BASES_DIR);
    let found = disk
        .stat(&bases)
        .map_err(|error| Error::io("looking for", &bases, error))?;
    if found.is_some() {
        disk.remove_dir_all(&bases)
            .map_err(|error| Error::io("removing", &bases, error))?;
    }
    Ok(())
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.inner.disk.remove_dir_all(&self.dir) {
            let dir = self.dir.display();
            tracing::warn!(%error, %dir, "files of a base stay until the store is opened again");
        }
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base")
            .field("commit", &self.commit)
            .field("since", &self.since())
            .field("files", &self.files().len())
            .finish_non_exhaustive()
    }
}
