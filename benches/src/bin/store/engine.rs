//! The stores that are compared, behind one trait. Each has 512 MiB of cache.

use std::{fs, hint::black_box, path::Path, sync::Arc};

use store::{History, Keys, Options, Snapshot, Store, Table, TableId};
use wal::Local;

const CACHE_BYTES: u64 = 512 << 20;

pub type Item = ([u8; 16], [u8; 150]);

/// Numbers that look random and repeat.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// 16 random bytes of key and 150 of value, which begins with its number.
pub fn item(number: u64) -> Item {
    let mut dice = Dice(number.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x5EED);
    let (mut key, mut value) = ([0; 16], [0; 150]);
    dice.fill(&mut key);
    dice.fill(&mut value);
    value[..8].copy_from_slice(&number.to_le_bytes());
    (key, value)
}

fn number(value: &[u8]) -> u64 {
    assert_eq!(value.len(), 150);
    u64::from_le_bytes(value[..8].try_into().expect("8 bytes"))
}

/// Reads at one moment.
pub trait Reader {
    fn get(&self, key: &[u8]) -> Option<u64>;
    fn range(&self, from: &[u8], limit: usize) -> usize;
}

pub trait Engine: Sync {
    /// One durable transaction.
    fn write(&self, items: &[Item]);
    fn reader(&self) -> Box<dyn Reader + '_>;
    fn compact(&mut self);
}

pub fn open(name: &str, dir: &Path) -> Box<dyn Engine> {
    fs::create_dir_all(dir).expect("a directory for an engine");
    match name {
        "holdfast" => Box::new(Holdfast::open(dir)),
        "fjall" => Box::new(Fjall::open(dir)),
        "redb" => Box::new(Redb::open(dir)),
        _ => panic!("no engine {name}"),
    }
}

pub struct Holdfast {
    store: Store,
    table: TableId,
}

impl Holdfast {
    fn open(dir: &Path) -> Self {
        let options = wal::Options::on_this_machine(dir.join("journal"));
        let (journal, _) = Local::open(options).expect("a new journal");
        let table = Table::new("kv", History::Latest);
        let mut options = Options::on_this_machine(dir.join("store"), vec![table]);
        options.cache_bytes = CACHE_BYTES;
        let (store, _) = Store::open(options, Arc::new(journal)).expect("a new store");
        let table = store.table("kv").expect("it was just made");
        Self { store, table }
    }
}

impl Engine for Holdfast {
    fn write(&self, items: &[Item]) {
        let mut transaction = self.store.begin().expect("an open store");
        for (key, value) in items {
            transaction.put(self.table, key, value).expect("small");
        }
        transaction.commit().expect("no reads, no conflict");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        let snapshot = self.store.snapshot().expect("an open store");
        Box::new(HoldfastReader(snapshot, self.table))
    }

    fn compact(&mut self) {
        self.store.compact().expect("a sound disk");
    }
}

struct HoldfastReader(Snapshot, TableId);

impl Reader for HoldfastReader {
    fn get(&self, key: &[u8]) -> Option<u64> {
        let value = self.0.get(self.1, key).expect("a sound disk");
        value.map(|value| number(&value))
    }

    fn range(&self, from: &[u8], limit: usize) -> usize {
        let range = self.0.range(self.1, &Keys::from(from)).expect("retained");
        let read = range.take(limit).map(|item| item.expect("a sound disk"));
        read.map(|(_, value)| black_box(number(&value))).count()
    }
}

struct Fjall(fjall::Database, fjall::Keyspace);

impl Fjall {
    fn open(dir: &Path) -> Self {
        let builder = fjall::Database::builder(dir).cache_size(CACHE_BYTES);
        let database = builder.open().expect("a new database");
        let options = fjall::KeyspaceCreateOptions::default;
        let keyspace = database.keyspace("kv", options).expect("a new keyspace");
        Self(database, keyspace)
    }
}

impl Engine for Fjall {
    fn write(&self, items: &[Item]) {
        let mut batch = self.0.batch().durability(Some(fjall::PersistMode::SyncAll));
        for (key, value) in items {
            batch.insert(&self.1, &key[..], &value[..]);
        }
        batch.commit().expect("a sound disk");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(FjallReader(&self.1))
    }

    fn compact(&mut self) {
        self.1.rotate_memtable_and_wait().expect("a sound disk");
        self.1.major_compact().expect("a sound disk");
    }
}

struct FjallReader<'a>(&'a fjall::Keyspace);

impl Reader for FjallReader<'_> {
    fn get(&self, key: &[u8]) -> Option<u64> {
        let value = self.0.get(key).expect("a sound disk");
        value.map(|value| number(&value))
    }

    fn range(&self, from: &[u8], limit: usize) -> usize {
        let read = self.0.range(from..).take(limit);
        let read = read.map(|guard| guard.into_inner().expect("a sound disk"));
        read.map(|(_, value)| black_box(number(&value))).count()
    }
}

const REDB: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("kv");

struct Redb(redb::Database);

impl Redb {
    fn open(dir: &Path) -> Self {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(CACHE_BYTES as usize);
        Self(builder.create(dir.join("kv.redb")).expect("a new database"))
    }
}

impl Engine for Redb {
    fn write(&self, items: &[Item]) {
        let write = self.0.begin_write().expect("an open database");
        {
            let mut table = write.open_table(REDB).expect("a table");
            for (key, value) in items {
                table.insert(&key[..], &value[..]).expect("a sound disk");
            }
        }
        write.commit().expect("a sound disk");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        use redb::ReadableDatabase;
        let read = self.0.begin_read().expect("an open database");
        Box::new(RedbReader(read.open_table(REDB).expect("a table")))
    }

    fn compact(&mut self) {
        while self.0.compact().expect("a sound disk") {}
    }
}

struct RedbReader(redb::ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Reader for RedbReader {
    fn get(&self, key: &[u8]) -> Option<u64> {
        let value = self.0.get(key).expect("a sound disk");
        value.map(|value| number(value.value()))
    }

    fn range(&self, from: &[u8], limit: usize) -> usize {
        let range = self.0.range(from..).expect("a sound disk");
        let read = range.take(limit).map(|item| item.expect("a sound disk"));
        read.map(|item| black_box(number(item.1.value()))).count()
    }
}
