//! The logs that are compared, each set to make a record durable before it says so.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use okaywal::{LogVoid, WriteAheadLog};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use wal::{Journal, Local, Mode, Options, RecordKind};

/// One appender's way to make one record durable.
pub type Append = Box<dyn FnMut(&[u8]) + Send>;

/// A log that hands out appenders.
pub trait Log: Sync {
    fn appender(&self, index: u64) -> Append;
    /// Segments begun so far, where the log tells.
    fn rolls(&self) -> u64 {
        0
    }
    /// Lets go of everything so far, as a consumer that keeps up does.
    fn release(&self) {}
    /// Said beside its figures.
    fn remark(&self) -> String {
        String::new()
    }
}

pub type Make = fn(&Path) -> Box<dyn Log>;

pub const OURS: (&str, Make) = ("wal::Local", |dir| Box::new(Ours::new(dir, Mode::Ordinary)));
pub const STRICT: (&str, Make) = ("wal::Local, strict", |dir| {
    Box::new(Ours::new(dir, Mode::Strict))
});
pub const RAW: (&str, Make) = ("write + fdatasync", |dir| Box::new(Raw::new(dir)));
pub const RAFT: (&str, Make) = ("raft-engine", |dir| Box::new(Raft::new(dir)));
pub const OKAY: (&str, Make) = ("okaywal", |dir| Box::new(Okay::new(dir)));
pub const SQLITE: (&str, Make) = ("SQLite, WAL, FULL", |dir| Box::new(Sqlite::new(dir)));
pub const REDB: (&str, Make) = ("redb", |dir| Box::new(Redb::new(dir)));
pub const FJALL: (&str, Make) = ("fjall", |dir| Box::new(Fjall::new(dir)));

/// The limit: length, checksum and record written over space that was written before, one
/// `write` and one `fdatasync` each. For one appender only.
struct Raw(Arc<fs::File>, Arc<AtomicU64>);

const RAW_LEN: u64 = 64 << 20;

impl Raw {
    fn new(dir: &Path) -> Self {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.join("raw"))
            .expect("a new file");
        let zeros = vec![0; 1 << 20];
        for at in (0..RAW_LEN).step_by(1 << 20) {
            file.write_all_at(&zeros, at).expect("zeros");
        }
        file.sync_all().expect("synced zeros");
        Self(Arc::new(file), Arc::default())
    }
}

impl Log for Raw {
    fn appender(&self, _: u64) -> Append {
        let (file, next) = (Arc::clone(&self.0), Arc::clone(&self.1));
        let mut buffer = Vec::new();
        Box::new(move |record| {
            buffer.clear();
            buffer.extend_from_slice(&u32::try_from(record.len()).expect("small").to_le_bytes());
            buffer.extend_from_slice(&[0; 4]);
            buffer.extend_from_slice(record);
            // Goes on where the last turn ended, as a log does, and not over the same blocks.
            let mut at = next.load(Ordering::Relaxed);
            if at + buffer.len() as u64 > RAW_LEN {
                at = 0;
            }
            file.write_all_at(&buffer, at).expect("write");
            file.sync_data().expect("fdatasync");
            next.store(at + buffer.len() as u64, Ordering::Relaxed);
        })
    }
}

pub struct Ours(Arc<Local>);

impl Ours {
    fn new(dir: &Path, mode: Mode) -> Self {
        let mut options = Options::on_this_machine(dir.join("journal"));
        options.mode = mode;
        Self(Arc::new(Local::open(options).expect("a new journal").0))
    }
}

impl Log for Ours {
    fn appender(&self, _: u64) -> Append {
        let journal = Arc::clone(&self.0);
        Box::new(move |record| {
            journal
                .append(&[(RecordKind(1), record)])
                .expect("a durable append");
        })
    }

    fn rolls(&self) -> u64 {
        self.0.counts().rolls
    }

    fn release(&self) {
        let keep_from = self.0.safe_point().next();
        self.0.release_below(keep_from).expect("a sound disk");
    }

    fn remark(&self) -> String {
        let counts = self.0.counts();
        format!(
            "{:.1} appends a sync, {} rolls, {} of them into used files, {} waits for space",
            counts.appends as f64 / counts.syncs.max(1) as f64,
            counts.rolls,
            counts.recycled,
            counts.space_waits
        )
    }
}

struct Message;

impl MessageExt for Message {
    type Entry = BytesValue;
    fn index(entry: &BytesValue) -> u64 {
        u64::from_le_bytes(entry.value[..8].try_into().expect("records have 8 bytes"))
    }
}

/// With the next index of each appender, which goes on from turn to turn.
struct Raft(Arc<Engine>, Vec<Arc<AtomicU64>>);

const APPENDERS_MAX: usize = 64;

impl Raft {
    fn new(dir: &Path) -> Self {
        let config = Config {
            dir: dir.join("raft-engine").to_str().expect("UTF-8").into(),
            batch_compression_threshold: ReadableSize::kb(0),
            ..Default::default()
        };
        let next = (0..APPENDERS_MAX).map(|_| Arc::new(AtomicU64::new(1)));
        Self(
            Arc::new(Engine::open(config).expect("a new engine")),
            next.collect(),
        )
    }
}

impl Log for Raft {
    /// One region per appender, as its users have it; the index is the record's first 8 bytes.
    fn appender(&self, index: u64) -> Append {
        let engine = Arc::clone(&self.0);
        let next = Arc::clone(&self.1[usize::try_from(index).expect("few appenders")]);
        Box::new(move |record| {
            let mut entry = BytesValue::default();
            entry.value = record.to_vec();
            let at = next.fetch_add(1, Ordering::Relaxed);
            entry.value[..8].copy_from_slice(&at.to_le_bytes());
            let mut batch = LogBatch::with_capacity(1);
            batch
                .add_entries::<Message>(index + 1, &[entry])
                .expect("an entry");
            engine.write(&mut batch, true).expect("a durable write");
        })
    }
}

/// Its checkpoints throw the entries away, so what is measured is the log.
struct Okay(WriteAheadLog);

impl Okay {
    fn new(dir: &Path) -> Self {
        Self(WriteAheadLog::recover(dir.join("okaywal"), LogVoid).expect("a new log"))
    }
}

impl Log for Okay {
    fn appender(&self, _: u64) -> Append {
        let log = self.0.clone();
        Box::new(move |record| {
            let mut entry = log.begin_entry().expect("an entry");
            entry.write_chunk(record).expect("a chunk");
            entry.commit().expect("a durable entry");
        })
    }
}

/// A connection and a transaction of one row each, as a queue in SQLite is written.
struct Sqlite(PathBuf);

/// Above any turn: who waits for the write lock must not give up.
const SQLITE_PATIENCE: Duration = Duration::from_secs(60);

impl Sqlite {
    fn new(dir: &Path) -> Self {
        let path = dir.join("log.sqlite");
        let connection = Self::connect(&path);
        connection
            .execute_batch("CREATE TABLE log (lsn INTEGER PRIMARY KEY, body BLOB)")
            .expect("a table");
        Self(path)
    }

    fn connect(path: &Path) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(path).expect("a database");
        connection.busy_timeout(SQLITE_PATIENCE).expect("a timeout");
        connection
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            .expect("its durable settings");
        connection
    }
}

impl Log for Sqlite {
    fn appender(&self, _: u64) -> Append {
        let connection = Self::connect(&self.0);
        Box::new(move |record| {
            let mut insert = connection
                .prepare_cached("INSERT INTO log (body) VALUES (?1)")
                .expect("a statement");
            insert.execute([record]).expect("a durable row");
        })
    }
}

const REDB_LOG: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("log");

struct Redb(Arc<redb::Database>, Arc<AtomicU64>);

impl Redb {
    fn new(dir: &Path) -> Self {
        let database = redb::Database::create(dir.join("log.redb")).expect("a new database");
        Self(Arc::new(database), Arc::default())
    }
}

impl Log for Redb {
    fn appender(&self, _: u64) -> Append {
        let (database, next) = (Arc::clone(&self.0), Arc::clone(&self.1));
        Box::new(move |record| {
            let write = database.begin_write().expect("an open database");
            let lsn = next.fetch_add(1, Ordering::Relaxed);
            write
                .open_table(REDB_LOG)
                .expect("a table")
                .insert(lsn, record)
                .expect("a row");
            write.commit().expect("a durable commit");
        })
    }
}

struct Fjall(fjall::Database, fjall::Keyspace, Arc<AtomicU64>);

impl Fjall {
    fn new(dir: &Path) -> Self {
        let builder = fjall::Database::builder(dir.join("fjall"));
        let database = builder.open().expect("a new database");
        let options = fjall::KeyspaceCreateOptions::default;
        let keyspace = database.keyspace("log", options).expect("a new keyspace");
        Self(database, keyspace, Arc::default())
    }
}

impl Log for Fjall {
    fn appender(&self, _: u64) -> Append {
        let (database, keyspace) = (self.0.clone(), self.1.clone());
        let next = Arc::clone(&self.2);
        Box::new(move |record| {
            let lsn = next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let mut batch = database
                .batch()
                .durability(Some(fjall::PersistMode::SyncData));
            batch.insert(&keyspace, &lsn[..], record);
            batch.commit().expect("a durable batch");
        })
    }
}
