//! The two small files of a store directory: `identity`, written once, and `manifest`, replaced
//! at each checkpoint. The byte maps are in docs/format/store.md.
//!
//! The manifest is the truth about which tables exist, from where the journal is replayed, and
//! from where on each table's history is whole. It is replaced atomically, so a crash leaves the
//! previous checkpoint or the next one.

use std::{path::Path, time::Duration};

use wal::{Generation, Identity as JournalIdentity, JournalId, Lsn};
use world::{Disk, Timestamp};

use crate::{Error, History, Kind, Options, TableId, cursor::Cursor};

pub(crate) const IDENTITY_FILE: &str = "identity";
pub(crate) const MANIFEST_FILE: &str = "manifest";
pub(crate) const IDENTITY_MAGIC: [u8; 8] = *b"HDFSTORE";
pub(crate) const MANIFEST_MAGIC: [u8; 8] = *b"HDFSTMAN";
/// Version of the directory as a whole: tables, manifest and identity.
pub(crate) const FORMAT_VERSION: u32 = 1;
pub(crate) const FRAME_LEN: usize = 20;
pub(crate) const IDENTITY_BODY_LEN: usize = 28;
pub(crate) const MANIFEST_BODY_LEN: usize = 32;
pub(crate) const TABLE_ENTRY_LEN: usize = 31;
/// A manifest of as many tables with as long names as there may be.
const FILE_LEN_MAX: u64 = (FRAME_LEN
    + MANIFEST_BODY_LEN
    + Options::TABLES_MAX * 2 * (TABLE_ENTRY_LEN + Options::TABLE_NAME_LEN_MAX))
    as u64;

const HISTORY_FOREVER: u8 = 0;
const HISTORY_FOR: u8 = 1;
const HISTORY_LATEST: u8 = 2;

/// Which journal the directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) journal: JournalIdentity,
    pub(crate) created: Timestamp,
}

/// A table as the last checkpoint knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableEntry {
    pub(crate) id: TableId,
    pub(crate) name: String,
    pub(crate) history: History,
    /// The oldest position at which the table can still be read, and its time.
    pub(crate) floor: Lsn,
    pub(crate) floor_time: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Everything up to here is in table files.
    pub(crate) checkpoint: Lsn,
    /// Of the newest commit at or below `checkpoint`.
    pub(crate) checkpoint_time: Timestamp,
    /// The journal is kept from here on for feeds.
    pub(crate) feed_from: Lsn,
    pub(crate) next_table: u32,
    pub(crate) tables: Vec<TableEntry>,
}

impl Identity {
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(IDENTITY_FILE);
        let Some(body) = load(disk, &path, IDENTITY_MAGIC)? else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(&body);
        match Self::decode(&mut cursor) {
            Some(identity) if cursor.is_empty() => Ok(Some(identity)),
            _ => Err(corrupt(&path, "has the wrong length")),
        }
    }

    pub(crate) fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        store(
            disk,
            &dir.join(IDENTITY_FILE),
            IDENTITY_MAGIC,
            &self.encode(),
        )
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(IDENTITY_BODY_LEN);
        body.extend_from_slice(&self.journal.journal.0);
        body.extend_from_slice(&self.journal.generation.0.to_le_bytes());
        body.extend_from_slice(&self.created.nanos().to_le_bytes());
        body
    }

    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            journal: JournalIdentity {
                journal: JournalId(cursor.array()?),
                generation: Generation(cursor.u32()?),
            },
            created: Timestamp::from_nanos(cursor.u64()?),
        })
    }
}

impl Manifest {
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(MANIFEST_FILE);
        let Some(body) = load(disk, &path, MANIFEST_MAGIC)? else {
            return Ok(None);
        };
        Self::decode(&body)
            .map(Some)
            .ok_or_else(|| corrupt(&path, "does not decode"))
    }

    pub(crate) fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        store(
            disk,
            &dir.join(MANIFEST_FILE),
            MANIFEST_MAGIC,
            &self.encode(),
        )
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.checkpoint.get().to_le_bytes());
        body.extend_from_slice(&self.checkpoint_time.nanos().to_le_bytes());
        body.extend_from_slice(&self.feed_from.get().to_le_bytes());
        body.extend_from_slice(&self.next_table.to_le_bytes());
        let count = u32::try_from(self.tables.len()).expect("the number of tables is bounded");
        body.extend_from_slice(&count.to_le_bytes());
        for table in &self.tables {
            let (tag, nanos) = match table.history {
                History::Forever => (HISTORY_FOREVER, 0),
                History::For(duration) => (
                    HISTORY_FOR,
                    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
                ),
                History::Latest => (HISTORY_LATEST, 0),
            };
            body.extend_from_slice(&table.id.0.to_le_bytes());
            body.push(tag);
            body.extend_from_slice(&nanos.to_le_bytes());
            body.extend_from_slice(&table.floor.get().to_le_bytes());
            body.extend_from_slice(&table.floor_time.nanos().to_le_bytes());
            let len = u16::try_from(table.name.len()).expect("the length of names is bounded");
            body.extend_from_slice(&len.to_le_bytes());
            body.extend_from_slice(table.name.as_bytes());
        }
        body
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        let checkpoint = Lsn::new(cursor.u64()?);
        let checkpoint_time = Timestamp::from_nanos(cursor.u64()?);
        let feed_from = Lsn::new(cursor.u64()?);
        let next_table = cursor.u32()?;
        let count = cursor.u32()?;
        let mut tables = Vec::new();
        for _ in 0..count {
            tables.push(decode_table(&mut cursor)?);
        }
        cursor.is_empty().then_some(Self {
            checkpoint,
            checkpoint_time,
            feed_from,
            next_table,
            tables,
        })
    }
}

fn decode_table(cursor: &mut Cursor<'_>) -> Option<TableEntry> {
    let id = TableId(cursor.u32()?);
    let tag = cursor.u8()?;
    let nanos = cursor.u64()?;
    let history = match tag {
        HISTORY_FOREVER => History::Forever,
        HISTORY_FOR => History::For(Duration::from_nanos(nanos)),
        HISTORY_LATEST => History::Latest,
        _ => return None,
    };
    let floor = Lsn::new(cursor.u64()?);
    let floor_time = Timestamp::from_nanos(cursor.u64()?);
    let len = usize::from(cursor.u16()?);
    let name = String::from_utf8(cursor.take(len)?.to_vec()).ok()?;
    Some(TableEntry {
        id,
        name,
        history,
        floor,
        floor_time,
    })
}

pub(crate) fn store(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 8],
    body: &[u8],
) -> Result<(), Error> {
    disk.replace(path, &frame(magic, body))
        .map_err(|error| Error::io("writing", path, error))
}

/// Magic, version, length of the body, the body, CRC-32C of all before.
pub(crate) fn frame(magic: [u8; 8], body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("bodies are bounded by their tables");
    let mut bytes = Vec::with_capacity(FRAME_LEN + body.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(body);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The body; `None` when there is no file.
fn load(disk: &dyn Disk, path: &Path, magic: [u8; 8]) -> Result<Option<Vec<u8>>, Error> {
    let bytes = read(disk, path, FILE_LEN_MAX)?;
    bytes
        .map(|bytes| unframe(&bytes, magic, path).map(<[u8]>::to_vec))
        .transpose()
}

/// The whole file; `None` when there is none.
pub(crate) fn read(disk: &dyn Disk, path: &Path, len_max: u64) -> Result<Option<Vec<u8>>, Error> {
    let found = disk
        .stat(path)
        .map_err(|error| Error::io("looking for", path, error))?;
    if found.is_none() {
        return Ok(None);
    }
    let bytes = disk.read(path, len_max);
    bytes
        .map(Some)
        .map_err(|error| Error::io("reading", path, error))
}

/// The body of a frame that lies, or came, as `path`.
pub(crate) fn unframe<'a>(bytes: &'a [u8], magic: [u8; 8], path: &Path) -> Result<&'a [u8], Error> {
    let mut cursor = Cursor::new(bytes);
    if cursor.array() != Some(magic) {
        return Err(corrupt(path, "does not start as such a file does"));
    }
    // Before the checksum: a later version may keep it elsewhere.
    let version = cursor.u32();
    if let Some(version) = version
        && version != FORMAT_VERSION
    {
        let message = format!(
            "{} has format version {version}, this program reads version {FORMAT_VERSION}: {}",
            path.display(),
            if version > FORMAT_VERSION {
                "use the program that wrote it, or a newer one"
            } else {
                "no release wrote such a version"
            }
        );
        return Err(Error::new(Kind::Version, message));
    }
    let len = cursor.u32().and_then(|len| usize::try_from(len).ok());
    let body = len.and_then(|len| cursor.take(len));
    let (Some(body), Some(checksum), true) = (body, cursor.u32(), cursor.is_empty()) else {
        return Err(corrupt(path, "has the wrong length"));
    };
    if checksum != crc32c::crc32c(&bytes[..bytes.len() - 4]) {
        return Err(corrupt(path, "does not match its checksum"));
    }
    Ok(body)
}

pub(crate) fn corrupt(path: &Path, what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("{} {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use world::RealDisk;

    use super::*;

    fn sample() -> Manifest {
        Manifest {
            checkpoint: Lsn::new(9),
            checkpoint_time: Timestamp::from_nanos(90),
            feed_from: Lsn::new(3),
            next_table: 18,
            tables: vec![
                TableEntry {
                    id: TableId(16),
                    name: "facts".to_owned(),
                    history: History::For(Duration::from_secs(60)),
                    floor: Lsn::new(4),
                    floor_time: Timestamp::from_nanos(40),
                },
                TableEntry {
                    id: TableId(17),
                    name: "verdicts".to_owned(),
                    history: History::Forever,
                    floor: Lsn::ZERO,
                    floor_time: Timestamp::default(),
                },
            ],
        }
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(&RealDisk, dir.path()).unwrap(), None);
        sample().store(&RealDisk, dir.path()).unwrap();
        let read = Manifest::load(&RealDisk, dir.path()).unwrap();
        assert_eq!(read, Some(sample()));
    }

    #[test]
    fn bodies_have_the_lengths_of_the_byte_map() {
        let table = TABLE_ENTRY_LEN + "facts".len() + TABLE_ENTRY_LEN + "verdicts".len();
        assert_eq!(sample().encode().len(), MANIFEST_BODY_LEN + table);
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity {
            journal: JournalIdentity {
                journal: JournalId([7; 16]),
                generation: Generation(1),
            },
            created: Timestamp::from_nanos(5),
        };
        identity.store(&RealDisk, dir.path()).unwrap();
        let read = Identity::load(&RealDisk, dir.path()).unwrap();
        assert_eq!(read, Some(identity));
        let bytes = RealDisk.read(&dir.path().join(IDENTITY_FILE), FILE_LEN_MAX);
        assert_eq!(bytes.unwrap().len(), FRAME_LEN + IDENTITY_BODY_LEN);
    }

    #[test]
    fn no_flipped_bit_of_a_manifest_goes_unseen() {
        let dir = tempfile::tempdir().unwrap();
        sample().store(&RealDisk, dir.path()).unwrap();
        let path = dir.path().join(MANIFEST_FILE);
        let bytes = RealDisk.read(&path, FILE_LEN_MAX).unwrap();
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1;
            RealDisk.replace(&path, &damaged).unwrap();
            let error = Manifest::load(&RealDisk, dir.path()).unwrap_err();
            let version = (8..12).contains(&index);
            let expected = if version {
                Kind::Version
            } else {
                Kind::Corrupt
            };
            assert_eq!(error.kind(), expected, "byte {index}: {error}");
        }
    }
}
