//! What changed above a position, as one file of versions, and how a copy takes it in.
//!
//! Versions carry their positions, so what is to be sent is read from the table files that have any
//! above the position, the past among it. Only a deletion can be missing there: once it is at or below
//! a table's floor, compaction may drop it, and a copy that still has the value would keep it. A table
//! whose floor is above the position therefore goes whole, and the copy's own is thrown away.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use lsm_tree::Slice;
use wal::Lsn;
use world::disk::{File, Open};
use xxhash_rust::xxh3::Xxh3Default;

use crate::{
    Commit, Error, Kind, Retained,
    base::Held,
    cursor::Cursor,
    description::{BaseFile, FileName},
    local::{Inner, TableState},
    record::{KEY_LEN_MAX, VALUE_LEN_MAX, len_u16},
    tree::{self, HeldFiles, Tree, VERSION_LEN},
};

/// Number of the tree, and whether all of it is here.
pub(crate) const SECTION_LEN: usize = 5;

/// Ends the versions of a tree: no key is so short.
const END: u16 = 0;
/// Written and read at once. Arbitrary.
const BUFFER_BYTES: usize = 1 << 20;
/// Whole tables may be so much without further question.
const WHOLE_BYTES_SMALL: u64 = 16 << 20;

/// Table files that hold what changed, kept until this is dropped.
pub(crate) struct Found {
    since: Lsn,
    pub(crate) to: Commit,
    trees: Vec<FoundTree>,
}

struct FoundTree {
    number: u32,
    name: String,
    is_whole: bool,
    files: HeldFiles,
}

impl Inner {
    /// What changed above `since` up to `to`, a checkpoint of this moment: no floor rises before the
    /// next one.
    pub(crate) fn find_changes(&self, since: Lsn, to: Commit) -> Result<Found, Error> {
        if since > to.lsn {
            let what = format!("what changed above lsn {since}");
            return Err(Error::out_of_range(what, self.retained()));
        }
        self.check_worth(since, to)?;
        let floors: BTreeMap<u32, Lsn> = self
            .tables
            .iter()
            .map(|table| (table.id.0, table.floor().lsn))
            .collect();
        let found = |(number, tree): (u32, &Arc<Tree>)| FoundTree {
            number,
            name: tree.name().to_owned(),
            is_whole: floors.get(&number).is_some_and(|floor| *floor > since),
            files: tree.held_files(),
        };
        Ok(Found {
            since,
            to,
            trees: self.numbered().map(found).collect(),
        })
    }

    /// Refuses when most of the store would go whole.
    fn check_worth(&self, since: Lsn, to: Commit) -> Result<(), Error> {
        let is_whole = |table: &&TableState| table.floor().lsn > since;
        let bytes = |table: &TableState| table.tree.disk_bytes();
        let whole: Vec<_> = self.tables.iter().filter(is_whole).collect();
        let whole_bytes: u64 = whole.iter().map(|table| bytes(table)).sum();
        let all: u64 = self.trees().map(|tree| tree.disk_bytes()).sum();
        if whole_bytes <= WHOLE_BYTES_SMALL.max(all / 2) {
            return Ok(());
        }
        let from = whole.iter().map(|table| table.floor()).max();
        let name = whole.first().map_or("", |table| table.tree.name());
        let message = format!(
            "what changed above lsn {since} cannot be told of {} tables, {name:?} among them, which \
             are {whole_bytes} of {all} bytes: take a full base",
            whole.len()
        );
        let retained = Retained {
            from: from.unwrap_or(to),
            to,
        };
        Err(Error::told(Kind::OutOfRange, message, Some(retained)))
    }
}

impl Found {
    /// Ends early once the store is closed, whose lock it would hold otherwise for as long as it takes.
    pub(crate) fn write(&self, held: &Held) -> Result<BaseFile, Error> {
        let mut writer = Writer::new(held)?;
        for tree in &self.trees {
            let from = match tree.is_whole {
                true => Lsn::FIRST,
                false => self.since.next(),
            };
            writer.begin(tree.number, tree.is_whole)?;
            tree.files
                .versions(&tree.name, from..=self.to.lsn, |key, stored| {
                    held.inner.open()?;
                    writer.version(key, stored)
                })?;
            writer.end()?;
        }
        writer.finish()
    }
}

struct Writer {
    path: PathBuf,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    written: u64,
    hasher: Xxh3Default,
}

impl Writer {
    fn new(held: &Held) -> Result<Self, Error> {
        let path = held.path(FileName::Changes);
        let file = held
            .inner
            .disk
            .open(&path, Open::CreateNew)
            .map_err(|error| Error::io("creating", &path, error))?;
        Ok(Self {
            path,
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            hasher: Xxh3Default::new(),
        })
    }

    fn begin(&mut self, tree: u32, is_whole: bool) -> Result<(), Error> {
        self.put(&tree.to_le_bytes())?;
        self.put(&[u8::from(is_whole)])
    }

    fn version(&mut self, key: &[u8], stored: &[u8]) -> Result<(), Error> {
        let len = u32::try_from(stored.len()).expect("the length of values is bounded");
        self.put(&len_u16(key.len()).to_le_bytes())?;
        self.put(&len.to_le_bytes())?;
        self.put(key)?;
        self.put(stored)
    }

    fn end(&mut self) -> Result<(), Error> {
        self.put(&END.to_le_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.hasher.update(&self.buffer);
        self.file
            .write_all_at(&self.buffer, self.written)
            .map_err(|error| Error::io("writing", &self.path, error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<BaseFile, Error> {
        self.flush()?;
        Ok(BaseFile {
            name: FileName::Changes,
            len: self.written,
            checksum: self.hasher.digest128(),
        })
    }
}

/// What changed, as it is read back in order. The file has been compared with its checksum.
pub(crate) struct Changes<'a> {
    file: &'a dyn File,
    len: u64,
    /// Where the buffer begins in the file.
    read: u64,
    buffer: Vec<u8>,
    /// Where reading goes on in the buffer.
    at: usize,
}

/// Key and stored value.
type Version<'a> = (&'a [u8], &'a [u8]);

/// The versions of one tree follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) tree: u32,
    pub(crate) is_whole: bool,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(file: &'a dyn File, len: u64) -> Self {
        Self {
            file,
            len,
            read: 0,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// The next tree; `None` at the end.
    pub(crate) fn section(&mut self) -> Result<Option<Section>, Error> {
        if self.read + self.at as u64 == self.len {
            return Ok(None);
        }
        let mut cursor = Cursor::new(self.take(SECTION_LEN)?);
        let (tree, is_whole) = (cursor.u32(), cursor.u8());
        match (tree, is_whole) {
            (Some(tree), Some(is_whole @ (0 | 1))) => Ok(Some(Section {
                tree,
                is_whole: is_whole == 1,
            })),
            _ => Err(malformed()),
        }
    }

    /// Writes the versions of the section to `tree`; all are above `above`, and none above `to`.
    ///
    /// A read ends at the first file that has a version for it, the youngest file first, so no file
    /// may have an older version of a key than one before it. They come like that, except that those
    /// of one key that come together have the newest first: they go into one memory.
    pub(crate) fn apply(
        &mut self,
        tree: &Tree,
        memtable_bytes: u64,
        above: Lsn,
        to: Lsn,
    ) -> Result<(), Error> {
        let mut last = Slice::empty();
        while let Some((key, stored)) = self.version()? {
            let (lsn, is_live) = tree::split(stored).ok_or_else(malformed)?;
            if lsn <= above || lsn > to {
                return Err(malformed());
            }
            if *last != *key {
                if tree.memory_bytes() >= memtable_bytes {
                    tree.rotate();
                    tree.flush()?;
                }
                last = Slice::from(key);
            }
            let value = is_live.then_some(&stored[VERSION_LEN..]);
            tree.memory().set(&last, value, lsn);
        }
        tree.rotate();
        tree.flush()
    }

    /// The next version of the section, key and stored value; `None` at its end.
    fn version(&mut self) -> Result<Option<Version<'_>>, Error> {
        let mut cursor = Cursor::new(self.take(2)?);
        let key_len = cursor.u16().ok_or_else(malformed)?;
        if key_len == END {
            return Ok(None);
        }
        let mut cursor = Cursor::new(self.take(4)?);
        let len = cursor.u32().and_then(|len| usize::try_from(len).ok());
        let key_len = usize::from(key_len);
        let len = len.filter(|len| *len <= VALUE_LEN_MAX + VERSION_LEN && key_len <= KEY_LEN_MAX);
        let bytes = self.take(key_len + len.ok_or_else(malformed)?)?;
        Ok(Some(bytes.split_at(key_len)))
    }

    fn take(&mut self, len: usize) -> Result<&[u8], Error> {
        if self.buffer.len() - self.at < len {
            self.buffer.drain(..self.at);
            self.read += self.at as u64;
            self.at = 0;
            let have = self.buffer.len();
            let rest = self.len - self.read - have as u64;
            let wanted = (len - have).max(BUFFER_BYTES) as u64;
            let more = usize::try_from(wanted.min(rest)).expect("at most what was wanted");
            self.buffer.resize(have + more, 0);
            self.file
                .read_exact_at(&mut self.buffer[have..], self.read + have as u64)
                .map_err(|error| Error::caused(Kind::Io, "reading what changed", error))?;
        }
        let taken = self
            .buffer
            .get(self.at..self.at + len)
            .ok_or_else(malformed)?;
        self.at += len;
        Ok(taken)
    }
}

fn malformed() -> Error {
    let message = "the file of what changed does not decode, though its checksum holds";
    Error::new(Kind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use world::{RealClock, RealDisk};

    use super::*;
    use crate::{History, Options, Store, Table};

    /// Who opens the store next waits for its lock, which what is written here holds.
    #[test]
    fn what_changed_is_written_no_further_once_the_store_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let journal = wal::Options::on_this_machine(dir.path().join("journal"));
        let (journal, _) = wal::Local::open(journal).unwrap();
        let options = Options::new(
            dir.path().join("store"),
            Arc::new(RealDisk),
            Arc::new(RealClock::new()),
            vec![Table::new("t", History::Forever)],
        );
        let (store, _) = Store::open(options, Arc::new(journal)).unwrap();
        let table = store.table("t").unwrap();
        let mut transaction = store.begin().unwrap();
        transaction.put(table, b"key", b"value").unwrap();
        transaction.commit().unwrap();
        let inner = store.inner_here().unwrap();
        let (held, found) = {
            let mut checkpointer = inner.checkpointer();
            let commit = inner.checkpoint_in(&mut checkpointer).unwrap();
            let held = Held::new(inner, &mut checkpointer).unwrap();
            (held, inner.find_changes(Lsn::ZERO, commit).unwrap())
        };
        store.close().unwrap();
        assert_eq!(found.write(&held).unwrap_err().kind(), Kind::Closed);
    }
}
