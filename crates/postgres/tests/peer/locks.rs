//! Who waits for whom: nobody, for as long as a commit of another lasts.

use std::thread;

use store::{Keys, Kind};

use crate::{FOREVER, get, open, put, server::Server};

/// Transactions at one time, each of a process of its own as far as the server can tell.
const AT_ONCE: u8 = 50;
const ROUNDS: u8 = 3;
const ROWS: u8 = 20;

pub(crate) fn crossing() {
    let server = Server::start();
    let database = server.database();
    let stores: Vec<_> = (0..4).map(|_| open(server.address(&database)).0).collect();
    let table = stores[0].table(FOREVER).unwrap();
    thread::scope(|scope| {
        for number in 0..AT_ONCE {
            let store = &stores[usize::from(number) % stores.len()];
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    loop {
                        let mut transaction = store.begin().unwrap();
                        let added = (|| {
                            for row in 0..ROWS {
                                // Half of them the other way round: with locks taken in the order of
                                // the writes these would wait for each other.
                                let row = if number % 2 == 0 { row } else { ROWS - 1 - row };
                                let own = [number, row];
                                transaction.put(table, &own, b"x")?;
                            }
                            let sum = transaction.get(table, b"sum")?;
                            let sum = sum.map_or(0, |sum| u16::from_be_bytes([sum[0], sum[1]]));
                            transaction.put(table, b"sum", &(sum + 1).to_be_bytes())?;
                            transaction.commit()
                        })();
                        match added {
                            Ok(_) => break,
                            Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
                        }
                    }
                }
            });
        }
    });
    let sum = get(&stores[0], b"sum").unwrap();
    let all = u16::from(AT_ONCE) * u16::from(ROUNDS);
    assert_eq!(u16::from_be_bytes([sum[0], sum[1]]), all);
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(server.sql(&database, deadlocks), "0");
}

pub(crate) fn claims() {
    let server = Server::start();
    let database = server.database();
    let (one, other) = (
        open(server.address(&database)).0,
        open(server.address(&database)).0,
    );
    let table = one.table(FOREVER).unwrap();
    for key in [b"a", b"b", b"c"] {
        put(&one, key, b"job").unwrap();
    }
    let mut first = one.begin().unwrap();
    let claimed = first.claim(table, &Keys::all(), 2).unwrap();
    assert_eq!(claimed.len(), 2);
    let mut second = other.begin().unwrap();
    let rest = second.claim(table, &Keys::all(), 2).unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].0, b"c");
    // It does not wait for the claim to end: this test would hang.
    assert_eq!(
        put(&other, b"a", b"taken").unwrap_err().kind(),
        Kind::Conflict
    );
    for (key, _) in &claimed {
        first.delete(table, key).unwrap();
    }
    first.commit().unwrap();
    drop(second);
    put(&other, b"a", b"free").unwrap();
    let mut last = one.begin().unwrap();
    let left = last.claim(table, &Keys::all(), 9).unwrap();
    let left: Vec<&[u8]> = left.iter().map(|(key, _)| &**key).collect();
    assert_eq!(left, [b"a", b"c"]);
}
