//! The conformance suite on the store of this machine, and on an engine that hands on to it, which
//! shows what `Store`, `Snapshot` and `Transaction` do with any engine.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;

use store::{
    Bytes, Commit, Engine, Error, Keys, Options, Order, Outcome, Reader, Retained, Rows, Snapshot,
    Store, TableId, Transaction, Work, Write, conformance,
};
use wal::{Local, Lsn};
use world::{Clock, RealClock, Timestamp};

struct Place {
    dir: tempfile::TempDir,
    clock: RealClock,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: RealClock::new(),
        }
    }
}

impl conformance::Subject for Place {
    fn open(&mut self) -> Store {
        let journal = wal::Options::on_this_machine(self.dir.path().join("journal"));
        let (journal, _) = Local::open(journal).unwrap();
        let options =
            Options::on_this_machine(self.dir.path().join("store"), conformance::tables());
        Store::open(options, Arc::new(journal)).unwrap().0
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

#[test]
fn the_store_of_this_machine_conforms() {
    conformance::check(&mut || Box::new(Place::new()));
}

#[derive(Debug)]
struct Relay(Store);

impl Engine for Relay {
    fn table(&self, name: &str) -> Result<TableId, Error> {
        self.0.table(name)
    }

    fn table_name(&self, table: TableId) -> Result<String, Error> {
        self.0.table_name(table)
    }

    fn newest(&self) -> Result<Commit, Error> {
        self.0.snapshot().map(|snapshot| snapshot.commit())
    }

    fn at(&self, lsn: Lsn) -> Result<Commit, Error> {
        self.0.snapshot_at(lsn).map(|snapshot| snapshot.commit())
    }

    fn at_time(&self, time: Timestamp) -> Result<Commit, Error> {
        let snapshot = self.0.snapshot_at_time(time)?;
        Ok(snapshot.commit())
    }

    fn retained(&self) -> Result<Retained, Error> {
        self.0.retained()
    }

    fn read(&self, at: Commit) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(Reading(self.0.snapshot_at(at.lsn)?)))
    }

    fn begin(&self) -> Result<Box<dyn Work>, Error> {
        let seen = self.newest()?;
        Ok(Box::new(Working(self.0.begin()?, seen)))
    }

    fn close(&self) -> Result<(), Error> {
        self.0.close()
    }
}

#[derive(Debug)]
struct Reading(Snapshot);

impl Reader for Reading {
    fn commit(&self) -> Commit {
        self.0.commit()
    }

    fn get_many(&self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error> {
        self.0.get_many(keys)
    }

    fn page(&self, table: TableId, keys: &Keys, order: Order, limit: usize) -> Result<Rows, Error> {
        let rows = self.0.range(table, keys)?;
        match order {
            Order::Ascending => rows.take(limit).collect(),
            Order::Descending => rows.rev().take(limit).collect(),
        }
    }
}

#[derive(Debug)]
struct Working(Transaction, Commit);

impl Work for Working {
    fn commit_seen(&self) -> Commit {
        self.1
    }

    fn get_many(&mut self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error> {
        self.0.get_many(keys)
    }

    fn page(
        &mut self,
        table: TableId,
        keys: &Keys,
        order: Order,
        limit: usize,
    ) -> Result<Rows, Error> {
        self.0.range(table, keys, order, limit)
    }

    fn claim(&mut self, table: TableId, keys: &Keys, limit: usize) -> Result<Rows, Error> {
        self.0.claim(table, keys, limit)
    }

    fn finish(
        mut self: Box<Self>,
        writes: Vec<Write>,
        date: Option<Timestamp>,
        once: Option<&[u8]>,
    ) -> Result<Outcome, Error> {
        for Write { table, key, value } in writes {
            match value {
                Some(value) => self.0.put(table, &key, &value)?,
                None => self.0.delete(table, &key)?,
            }
        }
        match (once, date) {
            (Some(key), _) => self.0.commit_once(key),
            (None, Some(date)) => self.0.commit_dated(date).map(Outcome::Committed),
            (None, None) => self.0.commit().map(Outcome::Committed),
        }
    }
}

struct Relayed(Place);

impl conformance::Subject for Relayed {
    fn open(&mut self) -> Store {
        Store::on(Arc::new(Relay(self.0.open())))
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

#[test]
fn a_store_on_an_engine_conforms() {
    conformance::check(&mut || Box::new(Relayed(Place::new())));
}
