//! The other side of a [`crate::Base`]: a store is made anew from it, or brought up to it.
//!
//! Parts are taken in order and gathered beside the store that is there, which stays as it is until
//! everything has come, was compared with its checksums, and was opened once. How far the gathering
//! is durable is on the disk, so it goes on after a crash if the same base is still there, and begins
//! again if it is another one. The exchange itself is [`swap`]'s.
//!
//! The store is not open meanwhile: an install holds its lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use wal::{Identity as JournalIdentity, Lsn};
use world::disk::{File, Lock, Open};
use xxhash_rust::xxh3::Xxh3Default;

use crate::{
    Derived, Error, Kind, Options, Retained, apply,
    description::{BaseFile, CHECKSUM_LEN, Description, FileName, Piece},
    history::Commit,
    manifest::{Identity, Manifest},
    recovery, swap,
};

const DESCRIPTION_FILE: &str = "description";
const PROGRESS_FILE: &str = "progress";
pub(crate) const PROGRESS_MAGIC: [u8; 8] = *b"HDFSTPRG";
/// Parts between two syncs: what is lost of a transfer by a crash. Arbitrary.
const SYNC_PARTS: u32 = 16;
/// Left free beside what comes.
const SPACE_RESERVE: u64 = 32 << 20;
/// Read at once when files are compared. Arbitrary.
const COMPARE_BYTES: usize = 1 << 20;
/// A description is one part, and a progress is a number.
const SMALL_FILE_MAX: u64 = 32 << 20;

/// Takes the parts of a base. Dropped before [`Install::finish`], it leaves what it has for another
/// one of the same base; the store's next open throws it away.
pub struct Install {
    options: Options,
    description: Description,
    /// Parts written, and parts of which that is durable. The first one came with the beginning.
    taken: u32,
    durable: u32,
    /// Files written since the last sync.
    open: BTreeMap<usize, Arc<dyn File>>,
    _lock: Box<dyn Lock>,
}

/// What a store is after an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Everything up to here is in it; the journal must go on behind.
    pub commit: Commit,
    /// Nothing in it is above: it can be opened once its journal lets one read up to here.
    pub reaches: Lsn,
}

impl Install {
    /// Begins with the first part of a base, or goes on where an earlier install of the same base
    /// was. Of what changed since a position: `OutOfRange` when the store here does not hold
    /// everything up to there, or has dropped what was needed.
    ///
    /// `Invalid`: another journal's. `Full`: there is no room for it. `Locked`: the store is open.
    pub fn begin(options: Options, journal: JournalIdentity, first: &[u8]) -> Result<Self, Error> {
        options.check()?;
        let description = Description::decode(first, Path::new("the first part of a base"))?;
        let (disk, dir) = (Arc::clone(&options.disk), options.dir.clone());
        disk.create_dir_all_synced(&dir)
            .map_err(|error| Error::io("creating store directory", &dir, error))?;
        let lock = recovery::take_lock(&options)?;
        let mut install = Self {
            options,
            description,
            taken: 1,
            durable: 1,
            open: BTreeMap::new(),
            _lock: lock,
        };
        let at = install.at(DESCRIPTION_FILE);
        let before = crate::manifest::read(&*disk, &at, SMALL_FILE_MAX)?;
        if before.as_deref() == Some(first) && !swap::is_whole(&*disk, &dir)? {
            install.check(journal)?;
            install.resume()?;
            return Ok(install);
        }
        swap::settle(&*disk, &dir)?;
        install.check(journal)?;
        install.make_room()?;
        // Last: what is found with it was made for it.
        disk.replace(&at, first)
            .map_err(|error| Error::io("writing", &at, error))?;
        Ok(install)
    }

    /// The log under the store is about to be thrown away, for one that begins behind a base: what the store
    /// holds may be of another history than that log, so it is not opened until an install is finished.
    /// Durable when it returns; nothing is noted where there is nothing to hold back.
    ///
    /// `Locked`: the store is open.
    pub fn supersede(options: &Options) -> Result<(), Error> {
        options.check()?;
        let (disk, dir) = (&*options.disk, &*options.dir);
        if !swap::exists(disk, dir)? {
            return Ok(());
        }
        let _lock = recovery::take_lock(options)?;
        // The end of an exchange would take back what is noted here. What is not whole stays for the
        // same base.
        if swap::is_whole(disk, dir)? {
            swap::settle(disk, dir)?;
        }
        match Derived::of(options)? {
            Some(found) if found.reaches > Lsn::ZERO => swap::supersede(disk, dir),
            _ => Ok(()),
        }
    }

    /// Parts of the base.
    pub fn parts(&self) -> u32 {
        self.description.parts()
    }

    /// Parts that are here durably, from the first on without a hole. The next one to be given is
    /// this one after a crash.
    pub fn durable(&self) -> u32 {
        self.durable
    }

    /// Takes a part: the next one, or one that is here already. Answers as [`Install::durable`]: more
    /// become durable every few parts, and all with the last. After an error it can be given again.
    pub fn store(&mut self, index: u32, part: &[u8]) -> Result<u32, Error> {
        if index < self.taken {
            return Ok(self.durable);
        }
        if index > self.taken || index >= self.parts() {
            let message = format!(
                "part {index} of a base, part {} of {} is next",
                self.taken,
                self.parts()
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let pieces = self.description.pieces(index);
        let mut rest = check_part(index, part, &pieces)?;
        for piece in pieces {
            let (bytes, after) = rest.split_at(piece.len);
            self.write(piece, bytes)?;
            rest = after;
        }
        self.taken += 1;
        if self.taken == self.parts() || self.taken - self.durable >= SYNC_PARTS {
            self.sync()?;
        }
        Ok(self.durable)
    }

    /// All parts are here: compares everything, and makes it the store. An error leaves the store
    /// as it was, and what came is thrown away, unless the exchange had begun: then the next open
    /// goes on with it.
    pub fn finish(self) -> Result<Installed, Error> {
        let (disk, dir) = (&*self.options.disk, &*self.options.dir);
        if self.durable < self.parts() {
            let message = format!("{} of {} parts of a base", self.durable, self.parts());
            return Err(Error::new(Kind::Invalid, message));
        }
        let prepared = self.prepare();
        let manifest = match prepared {
            Ok(manifest) => manifest,
            Err(error) => {
                // Nothing of it is trusted; a full disk has room again.
                swap::throw_away(disk, dir)?;
                return Err(error);
            }
        };
        swap::declare_whole(disk, dir)?;
        swap::settle(disk, dir)?;
        Ok(Installed {
            commit: Commit {
                lsn: manifest.checkpoint,
                time: manifest.checkpoint_time,
            },
            reaches: self.description.reaches,
        })
    }

    /// Throws away what came.
    pub fn abandon(self) -> Result<(), Error> {
        swap::throw_away(&*self.options.disk, &self.options.dir)
    }

    /// Compares everything, makes the trees, and leaves manifest and identity beside them.
    fn prepare(&self) -> Result<Manifest, Error> {
        let (disk, dir) = (&*self.options.disk, &*self.options.dir);
        for file in &self.description.files {
            self.compare(file)?;
        }
        let new = dir.join(swap::NEW_DIR);
        let manifest = match self.description.since {
            None => apply::open_all(&self.options, &new, &self.description)?,
            Some(since) => {
                let changes = self.path(FileName::Changes);
                apply::changes(&self.options, &new, &changes, since, &self.description)?
            }
        };
        let install = dir.join(swap::INSTALL_DIR);
        manifest.store(disk, &install)?;
        self.description.identity.store(disk, &install)?;
        Ok(manifest)
    }

    /// Whether this base is for this store.
    fn check(&self, journal: JournalIdentity) -> Result<(), Error> {
        let (disk, dir) = (&*self.options.disk, &*self.options.dir);
        let theirs = self.description.identity.journal;
        let here = Identity::load(disk, dir)?.map(|identity| identity.journal);
        let others = here.filter(|here| here.journal != journal.journal);
        if theirs != journal || others.is_some() {
            let message = format!(
                "a base of journal {} generation {} for the store {} of journal {} generation {}",
                theirs.journal,
                theirs.generation.0,
                dir.display(),
                others.unwrap_or(journal).journal,
                others.unwrap_or(journal).generation.0,
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        apply::check_files(&self.description)?;
        match self.description.since {
            None => Ok(()),
            Some(since) => self.check_stands(since, here == Some(journal)),
        }
    }

    /// Whether what changed since `since` makes this store whole.
    fn check_stands(&self, since: Lsn, is_ours: bool) -> Result<(), Error> {
        let manifest = Manifest::load(&*self.options.disk, &self.options.dir)?;
        let Some(manifest) = manifest.filter(|_| is_ours) else {
            let message = format!(
                "what changed above lsn {since} needs a store, and {} is none: take a full base",
                self.options.dir.display()
            );
            return Err(Error::new(Kind::Invalid, message));
        };
        // A table whose floor there is above comes whole, whatever is kept of it here.
        let theirs = self.description.manifest.tables.iter();
        let partly: BTreeSet<_> = theirs
            .filter(|table| table.floor <= since)
            .map(|table| table.id.0)
            .collect();
        let ours = manifest.tables.iter();
        let floor = ours
            .filter(|table| partly.contains(&table.id.0))
            .map(|table| table.floor)
            .max()
            .unwrap_or(Lsn::ZERO);
        if manifest.checkpoint >= since && floor <= since {
            return Ok(());
        }
        let at = |lsn| Commit {
            lsn,
            time: manifest.checkpoint_time,
        };
        let retained = Retained {
            from: at(floor),
            to: at(manifest.checkpoint),
        };
        let what = format!("lsn {since}, from which on changes came for a store,");
        Err(Error::out_of_range(what, retained))
    }

    fn make_room(&self) -> Result<(), Error> {
        let (disk, dir) = (&*self.options.disk, &*self.options.dir);
        let space = disk
            .space(dir)
            .map_err(|error| Error::io("looking at the space of", dir, error))?;
        // What changed is written twice: as it came, and to the trees.
        let copies = if self.description.since.is_some() {
            2
        } else {
            1
        };
        let bytes = self.description.bytes().saturating_mul(copies);
        let needed = bytes.saturating_add(SPACE_RESERVE);
        if space.available < needed {
            let message = format!(
                "a base for {} needs {needed} bytes, {} are free",
                dir.display(),
                space.available
            );
            return Err(Error::new(Kind::Full, message));
        }
        let make = |path: PathBuf| {
            disk.create_dir_all_synced(&path)
                .map_err(|error| Error::io("creating", &path, error))
        };
        make(dir.join(swap::INSTALL_DIR))?;
        make(dir.join(swap::NEW_DIR))?;
        for file in &self.description.files {
            // One for each tree, and in it the one for its table files.
            if let FileName::Current { tree } = file.name {
                make(dir.join(swap::NEW_DIR).join(format!("{tree}/tables")))?;
            }
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Error> {
        let path = self.at(PROGRESS_FILE);
        let Some(bytes) = crate::manifest::read(&*self.options.disk, &path, SMALL_FILE_MAX)? else {
            return Ok(());
        };
        let body = crate::manifest::unframe(&bytes, PROGRESS_MAGIC, &path)?;
        let parts = body.try_into().map(u32::from_le_bytes);
        match parts {
            Ok(parts) if (1..=self.parts()).contains(&parts) => {
                (self.taken, self.durable) = (parts, parts);
                Ok(())
            }
            _ => Err(crate::manifest::corrupt(&path, "does not decode")),
        }
    }

    fn write(&mut self, piece: Piece, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(self.description.files[piece.file].name);
        let writing = |error| Error::io("writing", &path, error);
        if !self.open.contains_key(&piece.file) {
            let file = self.options.disk.open(&path, Open::CreateOrOpen);
            self.open.insert(piece.file, file.map_err(writing)?);
        }
        let file = &self.open[&piece.file];
        file.write_all_at(bytes, piece.offset).map_err(writing)
    }

    /// Files, their names, and only then how many parts that is.
    fn sync(&mut self) -> Result<(), Error> {
        let disk = &*self.options.disk;
        let mut dirs = Vec::new();
        for (file, handle) in &self.open {
            let path = self.path(self.description.files[*file].name);
            handle
                .sync_all()
                .map_err(|error| Error::io("syncing", &path, error))?;
            let dir = path.parent().expect("a name below the store's directory");
            if dirs.last().is_none_or(|last| last != dir) {
                dirs.push(dir.to_owned());
            }
        }
        for dir in dirs {
            disk.sync_dir(&dir)
                .map_err(|error| Error::io("syncing", &dir, error))?;
        }
        let progress = self.taken.to_le_bytes();
        crate::manifest::store(disk, &self.at(PROGRESS_FILE), PROGRESS_MAGIC, &progress)?;
        self.open.clear();
        self.durable = self.taken;
        Ok(())
    }

    fn compare(&self, file: &BaseFile) -> Result<(), Error> {
        let path = self.path(file.name);
        let reading = |error| Error::io("reading", &path, error);
        let opened = self.options.disk.open(&path, Open::Read).map_err(reading)?;
        let mut hasher = Xxh3Default::new();
        let mut buffer = vec![0; COMPARE_BYTES];
        let mut at = 0;
        loop {
            let read = opened.read_at(&mut buffer, at).map_err(reading)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            at += read as u64;
        }
        if at == file.len && hasher.digest128() == file.checksum {
            return Ok(());
        }
        let message = format!(
            "file {} of a base, {at} bytes, does not match its checksum: it was damaged where it was \
             made, or here",
            file.path()
        );
        Err(Error::new(Kind::Corrupt, message))
    }

    fn at(&self, file: &str) -> PathBuf {
        self.options.dir.join(swap::INSTALL_DIR).join(file)
    }

    fn path(&self, name: FileName) -> PathBuf {
        let dir = match name {
            FileName::Changes => swap::INSTALL_DIR,
            _ => swap::NEW_DIR,
        };
        self.options.dir.join(dir).join(name.path())
    }
}

/// The bytes of a part, without its checksum.
fn check_part<'a>(index: u32, part: &'a [u8], pieces: &[Piece]) -> Result<&'a [u8], Error> {
    let len: usize = pieces.iter().map(|piece| piece.len).sum();
    let damaged = || {
        let message = format!(
            "part {index} of a base, {} bytes of {}, does not match its checksum",
            part.len(),
            len + CHECKSUM_LEN
        );
        Error::new(Kind::Corrupt, message)
    };
    let (bytes, checksum) = part
        .split_last_chunk::<CHECKSUM_LEN>()
        .ok_or_else(damaged)?;
    if bytes.len() != len || crc32c::crc32c(bytes) != u32::from_le_bytes(*checksum) {
        return Err(damaged());
    }
    Ok(bytes)
}

impl fmt::Debug for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Install")
            .field("dir", &self.options.dir)
            .field("since", &self.description.since)
            .field("durable", &self.durable)
            .field("parts", &self.parts())
            .finish_non_exhaustive()
    }
}
