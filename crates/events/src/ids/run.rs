//! A run: the ids of a stretch of the journal, sorted, in a file that never changes.
//!
//! Byte map in `docs/format/events.md`. A run is derived from the journal: whatever does not verify is
//! thrown away and made again, so nothing here asks whether a fault was a crash or damage. Order of making
//! one: blocks, filter, header, sync, name, directory; a crash before the last leaves a file that
//! nobody takes for a run.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use wal::{Identity, Lsn};
use world::{Disk, File, disk::Open};

use super::{Key, filter::Filter};
use crate::{Error, record::Field};

pub(crate) const MAGIC: [u8; 8] = *b"HFIDRUN\0";
pub(crate) const VERSION: u32 = 1;
/// Header and blocks alike: what a disk writes at once, and a page of its cache.
pub(crate) const BLOCK_LEN: usize = 4096;
/// Key and position.
pub(crate) const ENTRY_LEN: usize = 24;
/// What fits before a block's checksum.
pub(crate) const BLOCK_ENTRIES: usize = 170;
pub(crate) const SUFFIX: &str = ".ids";
/// Bytes that a run being made writes between syncs, so that no sync has much to do at once.
const SYNC_BYTES: u64 = 8 << 20;
/// Places looked at by interpolation; keys are uniform, so it ends in two or three. Halving is the
/// bound for what somebody made on purpose.
const INTERPOLATIONS_MAX: usize = 6;

const fn field(name: &'static str, at: usize, len: usize) -> Field {
    Field { name, at, len }
}

pub(crate) const FIELD_MAGIC: Field = field("magic", 0, 8);
pub(crate) const FIELD_VERSION: Field = field("version", 8, 4);
pub(crate) const CHECKSUM: Field = field("checksum", 12, 4);
pub(crate) const JOURNAL: Field = field("journal", 16, 16);
pub(crate) const GENERATION: Field = field("generation", 32, 4);
pub(crate) const FILTER_CHECKSUM: Field = field("filter checksum", 36, 4);
pub(crate) const FIRST: Field = field("first LSN", 40, 8);
pub(crate) const LAST: Field = field("last LSN", 48, 8);
pub(crate) const ENTRIES: Field = field("entries", 56, 8);
pub(crate) const FILTER_LEN: Field = field("filter length", 64, 8);
#[cfg(test)]
pub(crate) const MAP: [Field; 10] = [
    FIELD_MAGIC,
    FIELD_VERSION,
    CHECKSUM,
    JOURNAL,
    GENERATION,
    FILTER_CHECKSUM,
    FIRST,
    LAST,
    ENTRIES,
    FILTER_LEN,
];
pub(crate) const BLOCK_CHECKSUM: Field = field("checksum", 4092, 4);

/// Where a producer's id was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) lsn: Lsn,
}

/// Why a file is not used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Its bytes are not what was written, or it belongs to another journal or generation.
    Unverified(String),
    Io(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unverified(why) => f.write_str(why),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) identity: Identity,
    /// The run holds every id of the events from `first` to `last`, and no other.
    pub(super) first: Lsn,
    pub(super) last: Lsn,
}

/// An opened run.
pub(super) struct Run {
    pub(super) span: Span,
    pub(super) entries: u64,
    pub(super) path: PathBuf,
    file: Arc<dyn File>,
    seed: u32,
    /// None where the memory for filters is spent: then every key is looked up.
    pub(super) filter: Option<Filter>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("span", &self.span)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

pub(super) fn file_name(first: Lsn, last: Lsn) -> String {
    format!("{:020}-{:020}{SUFFIX}", first.get(), last.get())
}

/// Binds a block to its run and its place.
fn seed(span: Span) -> u32 {
    let seed = crc32c::crc32c(&span.identity.journal.0);
    let seed = crc32c::crc32c_append(seed, &span.identity.generation.0.to_le_bytes());
    let seed = crc32c::crc32c_append(seed, &span.first.get().to_le_bytes());
    crc32c::crc32c_append(seed, &span.last.get().to_le_bytes())
}

fn block_checksum(seed: u32, index: u64, block: &[u8; BLOCK_LEN]) -> u32 {
    let seed = crc32c::crc32c_append(seed, &index.to_le_bytes());
    crc32c::crc32c_append(seed, &block[..BLOCK_CHECKSUM.at])
}

fn header_checksum(header: &[u8; BLOCK_LEN]) -> u32 {
    let before = crc32c::crc32c(&header[..CHECKSUM.at]);
    crc32c::crc32c_append(before, &header[CHECKSUM.at + CHECKSUM.len..])
}

/// A verified block.
struct Block {
    bytes: [u8; BLOCK_LEN],
    entries: usize,
}

impl Block {
    fn entry(&self, index: usize) -> Entry {
        let bytes = &self.bytes[index * ENTRY_LEN..][..ENTRY_LEN];
        let (key, lsn) = bytes
            .split_first_chunk::<16>()
            .expect("an entry is longer than a key");
        let lsn: [u8; 8] = lsn.try_into().expect("an entry is a key and a position");
        Entry {
            key: Key(*key),
            lsn: Lsn::new(u64::from_le_bytes(lsn)),
        }
    }

    fn last_key(&self) -> Key {
        self.entry(self.entries - 1).key
    }
}

impl Run {
    /// Opens and verifies all but the blocks, which are verified as they are read.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        identity: Identity,
        filter_bytes_max: u64,
    ) -> Result<Self, Unusable> {
        let unverified = |why: &str| Err(Unusable::Unverified(why.to_owned()));
        let file = disk.open(path, Open::Read)?;
        let file_len = file.len()?;
        let mut header = [0; BLOCK_LEN];
        if file_len < BLOCK_LEN as u64 {
            return unverified("shorter than its header");
        }
        file.read_exact_at(&mut header, 0)?;
        if FIELD_MAGIC.array(&header) != MAGIC
            || u32::from_le_bytes(CHECKSUM.array(&header)) != header_checksum(&header)
        {
            return unverified("header does not verify");
        }
        if u32::from_le_bytes(FIELD_VERSION.array(&header)) != VERSION {
            return unverified("another format version");
        }
        let number = |field: Field| u64::from_le_bytes(field.array(&header));
        let span = Span {
            identity: Identity {
                journal: wal::JournalId(JOURNAL.array(&header)),
                generation: wal::Generation(u32::from_le_bytes(GENERATION.array(&header))),
            },
            first: Lsn::new(number(FIRST)),
            last: Lsn::new(number(LAST)),
        };
        if span.identity != identity {
            return unverified("of another journal or generation");
        }
        if path.file_name().and_then(|name| name.to_str())
            != Some(&file_name(span.first, span.last))
        {
            return unverified("its name is not its own");
        }
        let (entries, filter_len) = (number(ENTRIES), number(FILTER_LEN));
        let blocks = entries.div_ceil(BLOCK_ENTRIES as u64);
        let expected_len = blocks
            .checked_add(1)
            .and_then(|blocks| blocks.checked_mul(BLOCK_LEN as u64))
            .and_then(|len| len.checked_add(filter_len));
        if expected_len != Some(file_len) || !filter_len.is_multiple_of(8) {
            return unverified("another length than its header says");
        }
        let filter = if filter_len <= filter_bytes_max {
            let len = usize::try_from(filter_len)
                .map_err(|_| io::ErrorKind::OutOfMemory)
                .map_err(io::Error::from)?;
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, file_len - filter_len)?;
            if crc32c::crc32c(&bytes) != u32::from_le_bytes(FILTER_CHECKSUM.array(&header)) {
                return unverified("filter does not verify");
            }
            Some(Filter::from_bytes(&bytes))
        } else {
            None
        };
        Ok(Self {
            span,
            entries,
            path: path.to_owned(),
            file,
            seed: seed(span),
            filter,
        })
    }

    fn blocks(&self) -> u64 {
        self.entries.div_ceil(BLOCK_ENTRIES as u64)
    }

    fn block(&self, index: u64) -> Result<Block, Unusable> {
        let mut bytes = [0; BLOCK_LEN];
        self.file
            .read_exact_at(&mut bytes, (index + 1) * BLOCK_LEN as u64)?;
        if u32::from_le_bytes(BLOCK_CHECKSUM.array(&bytes))
            != block_checksum(self.seed, index, &bytes)
        {
            return Err(Unusable::Unverified(format!(
                "block {index} does not verify"
            )));
        }
        let before = index * BLOCK_ENTRIES as u64;
        let entries = usize::try_from(self.entries - before)
            .unwrap_or(usize::MAX)
            .min(BLOCK_ENTRIES);
        Ok(Block { bytes, entries })
    }

    /// Adds to `found` the positions of `key`, at most `max` of them.
    pub(super) fn find(&self, key: Key, max: usize, found: &mut Vec<Lsn>) -> Result<(), Unusable> {
        if self.entries == 0
            || self
                .filter
                .as_ref()
                .is_some_and(|filter| !filter.may_hold(key))
        {
            return Ok(());
        }
        let Some((mut index, mut block)) = self.first_block_up_to(key)? else {
            return Ok(());
        };
        loop {
            for entry in (0..block.entries).map(|at| block.entry(at)) {
                if entry.key > key || found.len() >= max {
                    return Ok(());
                }
                if entry.key == key && !found.contains(&entry.lsn) {
                    found.push(entry.lsn);
                }
            }
            index += 1;
            if index == self.blocks() {
                return Ok(());
            }
            block = self.block(index)?;
        }
    }

    /// The first block that ends at `key` or above.
    fn first_block_up_to(&self, key: Key) -> Result<Option<(u64, Block)>, Unusable> {
        let (mut low, mut high) = (0, self.blocks());
        // Keys of the blocks around, by their first half: it decides where to look, never what is found.
        let (mut low_key, mut high_key) = (0, u64::MAX);
        let wanted = key.head();
        let mut found = None;
        for round in 0.. {
            if low >= high {
                break;
            }
            let middle = if round < INTERPOLATIONS_MAX && low_key < high_key {
                let ahead = u128::from(wanted.clamp(low_key, high_key) - low_key);
                let width = u128::from(high_key - low_key);
                let step = u128::from(high - low - 1) * ahead / width;
                low + u64::try_from(step).expect("below high - low")
            } else {
                low + (high - low) / 2
            };
            let block = self.block(middle)?;
            let last = block.last_key();
            if last >= key {
                high = middle;
                high_key = block.entry(0).key.head().max(low_key);
                found = Some((middle, block));
            } else {
                low = middle + 1;
                low_key = last.head();
            }
        }
        Ok(found)
    }

    /// Every entry, in order.
    pub(super) fn iter(&self) -> Entries<'_> {
        Entries {
            run: self,
            index: 0,
            at: 0,
            block: None,
        }
    }
}

/// The entries of a run; one block in memory. After an error there are no more.
pub(super) struct Entries<'a> {
    run: &'a Run,
    index: u64,
    at: usize,
    block: Option<Block>,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Unusable>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(block) = &self.block
                && self.at < block.entries
            {
                self.at += 1;
                return Some(Ok(block.entry(self.at - 1)));
            }
            if self.index >= self.run.blocks() {
                return None;
            }
            match self.run.block(self.index) {
                Ok(block) => self.block = Some(block),
                Err(unusable) => {
                    self.index = u64::MAX;
                    self.block = None;
                    return Some(Err(unusable));
                }
            }
            self.index += 1;
            self.at = 0;
        }
    }
}

/// Makes a run out of entries that come in order.
pub(super) struct Writer<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    temporary: PathBuf,
    file: Arc<dyn File>,
    span: Span,
    seed: u32,
    filter: Filter,
    entries: u64,
    block: [u8; BLOCK_LEN],
    in_block: usize,
    unsynced: u64,
}

impl<'a> Writer<'a> {
    /// `entries_max`: at most so many will come.
    pub(super) fn create(
        disk: &'a dyn Disk,
        dir: &Path,
        span: Span,
        entries_max: u64,
    ) -> Result<Self, Error> {
        let path = dir.join(file_name(span.first, span.last));
        let temporary = path.with_extension("ids.tmp");
        let create = || {
            if disk.stat(&temporary)?.is_some() {
                disk.remove_file(&temporary)?;
            }
            disk.open(&temporary, Open::CreateNew)
        };
        let file = create().map_err(|error| Error::io("make a run of ids", &temporary, error))?;
        Ok(Self {
            disk,
            path,
            temporary,
            file,
            span,
            seed: seed(span),
            filter: Filter::new(entries_max),
            entries: 0,
            block: [0; BLOCK_LEN],
            in_block: 0,
            unsynced: 0,
        })
    }

    pub(super) fn push(&mut self, entry: Entry) -> Result<(), Error> {
        let at = self.in_block * ENTRY_LEN;
        self.block[at..at + 16].copy_from_slice(&entry.key.0);
        self.block[at + 16..at + ENTRY_LEN].copy_from_slice(&entry.lsn.get().to_le_bytes());
        self.filter.add(entry.key);
        self.entries += 1;
        self.in_block += 1;
        if self.in_block == BLOCK_ENTRIES {
            self.write_block()?;
        }
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), Error> {
        let index = (self.entries - 1) / BLOCK_ENTRIES as u64;
        let checksum = block_checksum(self.seed, index, &self.block);
        BLOCK_CHECKSUM.put(&mut self.block, &checksum.to_le_bytes());
        let written = self
            .file
            .write_all_at(&self.block, (index + 1) * BLOCK_LEN as u64);
        self.check(written)?;
        self.block = [0; BLOCK_LEN];
        self.in_block = 0;
        self.unsynced += BLOCK_LEN as u64;
        if self.unsynced >= SYNC_BYTES {
            let synced = self.file.sync_data();
            self.check(synced)?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn check(&self, done: io::Result<()>) -> Result<(), Error> {
        done.map_err(|error| Error::io("write a run of ids", &self.temporary, error))
    }

    pub(super) fn finish(mut self) -> Result<Run, Error> {
        if self.in_block > 0 {
            self.write_block()?;
        }
        let filter = self.filter.to_bytes();
        let blocks = self.entries.div_ceil(BLOCK_ENTRIES as u64);
        let written = self
            .file
            .write_all_at(&filter, (blocks + 1) * BLOCK_LEN as u64);
        self.check(written)?;
        let mut header = [0; BLOCK_LEN];
        FIELD_MAGIC.put(&mut header, &MAGIC);
        FIELD_VERSION.put(&mut header, &VERSION.to_le_bytes());
        JOURNAL.put(&mut header, &self.span.identity.journal.0);
        GENERATION.put(&mut header, &self.span.identity.generation.0.to_le_bytes());
        FILTER_CHECKSUM.put(&mut header, &crc32c::crc32c(&filter).to_le_bytes());
        FIRST.put(&mut header, &self.span.first.get().to_le_bytes());
        LAST.put(&mut header, &self.span.last.get().to_le_bytes());
        ENTRIES.put(&mut header, &self.entries.to_le_bytes());
        FILTER_LEN.put(&mut header, &self.filter.len_bytes().to_le_bytes());
        let checksum = header_checksum(&header);
        CHECKSUM.put(&mut header, &checksum.to_le_bytes());
        let place = || {
            self.file.write_all_at(&header, 0)?;
            self.file.sync_all()?;
            self.disk.rename(&self.temporary, &self.path)?;
            self.disk
                .sync_dir(self.path.parent().unwrap_or_else(|| Path::new("/")))
        };
        self.check(place())?;
        Ok(Run {
            span: self.span,
            entries: self.entries,
            path: self.path,
            file: self.file,
            seed: self.seed,
            filter: Some(self.filter),
        })
    }
}
