//! How a store is opened.

use std::{path::PathBuf, sync::Arc, time::Duration};

use world::{Clock, Disk, RealClock, RealDisk};

use crate::{Error, Kind};

const MIB: u64 = 1 << 20;

/// How much of a table's past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// Every version.
    Forever,
    /// Every version that was the newest at some moment of this long a past.
    For(Duration),
    /// The newest versions only. Open snapshots still hold what they see.
    Latest,
}

/// A keyed table, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub history: History,
}

impl Table {
    pub fn new(name: impl Into<String>, history: History) -> Self {
        Self {
            name: name.into(),
            history,
        }
    }
}

/// Handle of a table in an open store, from [`crate::Store::table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub(crate) u32);

/// For engines, which number their own tables.
impl From<u32> for TableId {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<TableId> for u32 {
    fn from(table: TableId) -> Self {
        table.0
    }
}

/// What a store is opened with. [`Options::new`] gives settings for a small site. Memory stays below
/// about `cache_bytes` + twice `checkpoint_bytes`, and the indexes if they are pinned.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute. Created when missing. Must be on the real file system that `disk` shows: table
    /// files are read and written by the table library itself.
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    /// Tables to have. Those of an existing store that are not named here stay as they are.
    pub tables: Vec<Table>,
    /// Blocks of table files kept in memory, over all tables.
    pub cache_bytes: u64,
    /// Size at which a table's writes in memory are written to a file.
    pub memtable_bytes: u64,
    /// Journal bytes after which a checkpoint is taken: bounds recovery and memory.
    pub checkpoint_bytes: u64,
    /// Journal bytes kept below the checkpoint for [`crate::Feed`]s that come back later.
    pub feed_bytes: u64,
    /// How long an idempotency key is remembered.
    pub idempotency: Duration,
    /// Compress blocks of table files (LZ4): less disk and page cache, slower first reads.
    pub compress: bool,
    /// Keep the indexes and filters of all table files in memory, beside the cache: about a
    /// hundredth of the data's size, and a fifth off the time of a random read. Otherwise they are
    /// read through the cache, and memory does not grow with the data.
    pub pin_indexes: bool,
}

impl Options {
    /// Table names are 1 to this many bytes.
    pub const TABLE_NAME_LEN_MAX: usize = 255;
    /// Tables of one store, the bound of a manifest's size. Arbitrary.
    pub const TABLES_MAX: usize = 1024;

    pub fn new(
        dir: impl Into<PathBuf>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        tables: Vec<Table>,
    ) -> Self {
        Self {
            dir: dir.into(),
            disk,
            clock,
            tables,
            cache_bytes: 16 * MIB,
            memtable_bytes: 16 * MIB,
            checkpoint_bytes: 64 * MIB,
            feed_bytes: 64 * MIB,
            idempotency: Duration::from_secs(24 * 60 * 60),
            compress: true,
            pin_indexes: true,
        }
    }

    /// On this machine's own disk and clock.
    pub fn on_this_machine(dir: impl Into<PathBuf>, tables: Vec<Table>) -> Self {
        let clock = Arc::new(RealClock::new());
        Self::new(dir, Arc::new(RealDisk), clock, tables)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.dir.is_absolute() {
            let message = format!("store directory {} is not absolute", self.dir.display());
            return Err(Error::new(Kind::Invalid, message));
        }
        if self.tables.len() > Self::TABLES_MAX {
            let message = format!("{} tables, at most {}", self.tables.len(), Self::TABLES_MAX);
            return Err(Error::new(Kind::Invalid, message));
        }
        for (index, table) in self.tables.iter().enumerate() {
            if table.name.is_empty() || table.name.len() > Self::TABLE_NAME_LEN_MAX {
                let message = format!(
                    "table name {:?} has {} bytes, 1 to {} are allowed",
                    table.name,
                    table.name.len(),
                    Self::TABLE_NAME_LEN_MAX
                );
                return Err(Error::new(Kind::Invalid, message));
            }
            if self.tables[..index].iter().any(|t| t.name == table.name) {
                let message = format!("table {:?} is named twice", table.name);
                return Err(Error::new(Kind::Invalid, message));
            }
        }
        Ok(())
    }
}
