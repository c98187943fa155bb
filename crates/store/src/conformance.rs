//! What every [`Store`] must do, whoever keeps its tables, as cases that a test runs against an
//! engine.
//!
//! A subject opens one store with the tables of [`tables`]: empty the first time, the same one again
//! after its last handle was dropped. What happens in a crash is not asked here. Nor is it asked
//! that transactions which could both have run do both commit: an engine may refuse more than it
//! has to, and whoever it refuses begins again.

mod conflicts;
mod history;
mod limits;
mod reads;
mod together;

use std::fmt;

use world::Timestamp;

use crate::{Bytes, Commit, History, Kind, Store, Table, TableId, Transaction};

/// Opens one store, again and again.
pub trait Subject {
    fn open(&mut self) -> Store;

    /// The clock that dates its commits.
    fn now(&self) -> Timestamp;
}

/// The tables that a subject's store has, all of whose history it keeps.
pub fn tables() -> Vec<Table> {
    [TABLE, OTHER]
        .map(|name| Table::new(name, History::Forever))
        .to_vec()
}

const TABLE: &str = "conformance.table";
const OTHER: &str = "conformance.other";

/// One thing that holds for every store.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub run: fn(&mut dyn Subject),
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

pub const CASES: &[Case] = &[
    case("what was committed is read, later too", reads::committed),
    case("a transaction reads its own writes", reads::own_writes),
    case("a transaction sees what it began with", reads::begun_with),
    case("keys are in the order of their bytes", reads::order),
    case("a range has every row, page by page", reads::long_ranges),
    case(
        "what is deleted is absent, and may come back",
        reads::deleted,
    ),
    case("a snapshot stays as it is", history::stable),
    case("a past position is read as it was", history::positions),
    case("a past time is read as it was", history::times),
    case("a time that was asked for has one answer", history::asked),
    case("a position still to come is refused", history::to_come),
    case("a commit has the date it asked for", history::dated),
    case("an odd date does not change the order", history::odd_dates),
    case(
        "a key that was read must not have changed",
        conflicts::points,
    ),
    case(
        "a range that was read must not have changed",
        conflicts::ranges,
    ),
    case("of a write skew one half is refused", conflicts::skew),
    case("whoever only reads never conflicts", conflicts::readers),
    case("of two that claimed one row one commits", conflicts::claims),
    case(
        "rows are claimed in order, with own writes",
        conflicts::claimed_order,
    ),
    case(
        "a transaction that is given up leaves nothing",
        conflicts::given_up,
    ),
    case("an idempotency key commits once", history::once),
    case("empty and longest keys and values", limits::lengths),
    case(
        "what is too long is refused and changes nothing",
        limits::refused,
    ),
    case("tables that are not there are refused", limits::tables),
    case(
        "concurrent increments are all counted",
        together::increments,
    ),
    case("sums hold in every snapshot", together::transfers),
    case("rows of a queue are taken once each", together::queue),
    case("one key at once from many commits once", together::same_key),
    case("a closed store refuses", limits::closed),
];

const fn case(name: &'static str, run: fn(&mut dyn Subject)) -> Case {
    Case { name, run }
}

/// Runs every case on a store of its own. Panics at the first that does not hold, in the line that
/// says what should have been.
pub fn check(make: &mut dyn FnMut() -> Box<dyn Subject>) {
    for case in CASES {
        (case.run)(make().as_mut());
    }
}

/// Attempts at a transaction that is alone, or against so few that it must get through.
const ATTEMPTS_MAX: usize = 1000;

fn table(store: &Store) -> TableId {
    store.table(TABLE).expect("a table of `tables`")
}

fn other(store: &Store) -> TableId {
    store.table(OTHER).expect("a table of `tables`")
}

fn begin(store: &Store) -> Transaction {
    store.begin().expect("a sound store")
}

/// Runs `work` in a transaction until it commits.
fn transact<T>(
    store: &Store,
    mut work: impl FnMut(&mut Transaction) -> Result<T, crate::Error>,
) -> (T, Commit) {
    for _ in 0..ATTEMPTS_MAX {
        let mut transaction = begin(store);
        let done = work(&mut transaction).and_then(|done| Ok((done, transaction.commit()?)));
        match done {
            Ok(done) => return done,
            Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
        }
    }
    panic!("{ATTEMPTS_MAX} attempts at one transaction conflicted");
}

fn put(store: &Store, key: &[u8], value: &[u8]) -> Commit {
    let table = table(store);
    transact(store, |transaction| transaction.put(table, key, value)).1
}

fn delete(store: &Store, key: &[u8]) -> Commit {
    let table = table(store);
    transact(store, |transaction| transaction.delete(table, key)).1
}

fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    let snapshot = store.snapshot().expect("a sound store");
    owned(snapshot.get(table(store), key).expect("a sound store"))
}

fn owned(value: Option<Bytes>) -> Option<Vec<u8>> {
    value.map(|value| value.to_vec())
}

fn keys_of(rows: &[(Bytes, Bytes)]) -> Vec<&[u8]> {
    rows.iter().map(|(key, _)| &**key).collect()
}

/// Whether `transaction` was refused because of what others did.
fn conflicts(transaction: Transaction) -> bool {
    match transaction.commit() {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Conflict, "{error}");
            true
        }
    }
}
