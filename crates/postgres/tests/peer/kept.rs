//! What is kept, for how long, and what it costs to write.

use std::{sync::Arc, time::Duration};

use postgres::{Engine, Options};
use store::{Kind, Store};
use world::{Timestamp, sim};

use crate::{FOREVER, LATEST, open, server::Server, tables};

const START: Timestamp = Timestamp::from_nanos(1_767_225_600_000_000_000);

pub(crate) fn pruned() {
    let server = Server::start();
    let clock = sim::Clock::new(START);
    let mut options = Options::new(server.address(&server.database()), tables());
    options.clock = Some(Arc::new(clock.clone()));
    let engine = Arc::new(Engine::open(options).unwrap());
    let store = Store::on(Arc::clone(&engine) as _);
    let (forever, latest) = (store.table(FOREVER).unwrap(), store.table(LATEST).unwrap());
    let write = |value: Option<&[u8]>| {
        let mut transaction = store.begin().unwrap();
        for table in [forever, latest] {
            match value {
                Some(value) => transaction.put(table, b"k", value).unwrap(),
                None => transaction.delete(table, b"k").unwrap(),
            }
        }
        transaction.commit().unwrap()
    };
    let first = write(Some(b"1"));
    let old = store.snapshot().unwrap();
    let mut slow = store.begin().unwrap();
    slow.get(latest, b"k").unwrap();
    write(Some(b"2"));
    write(None);
    // Young enough: what is open goes on.
    engine.prune().unwrap();
    assert_eq!(old.get(latest, b"k").unwrap().unwrap(), b"1");
    clock.advance(Duration::from_secs(11 * 60));
    write(Some(b"3"));
    clock.advance(Duration::from_secs(11 * 60));
    while engine.prune().unwrap() > 0 {}
    assert_eq!(old.get(latest, b"k").unwrap_err().kind(), Kind::OutOfRange);
    assert_eq!(old.get(forever, b"k").unwrap().unwrap(), b"1");
    let then = store.snapshot_at(first.lsn).unwrap();
    assert_eq!(then.get(forever, b"k").unwrap().unwrap(), b"1");
    slow.put(latest, b"k", b"lost").unwrap();
    assert_eq!(slow.commit().unwrap_err().kind(), Kind::Conflict);
    let now = store.snapshot().unwrap();
    assert_eq!(now.get(latest, b"k").unwrap().unwrap(), b"3");
}

pub(crate) fn round_trips() {
    let server = Server::start();
    let (store, engine) = open(server.address(&server.database()));
    let table = store.table(FOREVER).unwrap();
    let keys: Vec<[u8; 2]> = (0..1000_u16).map(u16::to_be_bytes).collect();
    for _ in 0..2 {
        let before = engine.round_trips();
        let mut transaction = store.begin().unwrap();
        let asked: Vec<_> = keys.iter().map(|key| (table, key.as_slice())).collect();
        transaction.get_many(&asked).unwrap();
        for key in &keys {
            transaction.put(table, key, b"value").unwrap();
        }
        transaction.commit().unwrap();
        // Begin, read, commit.
        assert_eq!(engine.round_trips() - before, 3);
    }
}
