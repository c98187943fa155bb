//! The engine on a real server.
//!
//! Without one on this machine its tests are reported as ignored; with HOLDFAST_PEERS=required they fail.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    dead_code,
    reason = "tests start programs and fail by panicking"
)]

#[path = "peer/kept.rs"]
mod kept;
#[path = "peer/locks.rs"]
mod locks;
#[path = "peer/losses.rs"]
mod losses;
#[path = "peer/relay.rs"]
mod relay;
#[path = "peer/schema.rs"]
mod schema;
#[path = "peer/server.rs"]
mod server;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use postgres::{Address, Engine, Options};
use server::Server;
use store::{Commit, History, Store, Table, conformance};
use world::{Clock, RealClock, Timestamp};

struct Place<'a> {
    server: &'a Server,
    database: String,
}

impl conformance::Subject for Place<'_> {
    fn open(&mut self) -> Store {
        open(self.server.address(&self.database)).0
    }

    fn now(&self) -> Timestamp {
        RealClock::new().now()
    }
}

const FOREVER: &str = "conformance.table";
const LATEST: &str = "test.latest";

fn tables() -> Vec<Table> {
    let mut tables = conformance::tables();
    tables.push(Table::new(LATEST, History::Latest));
    tables
}

fn open(address: Address) -> (Store, Arc<Engine>) {
    let engine = Arc::new(Engine::open(Options::new(address, tables())).unwrap());
    (Store::on(Arc::clone(&engine) as _), engine)
}

fn put(store: &Store, key: &[u8], value: &[u8]) -> Result<Commit, store::Error> {
    let table = store.table(FOREVER)?;
    let mut transaction = store.begin()?;
    transaction.put(table, key, value)?;
    transaction.commit()
}

fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    let table = store.table(FOREVER).unwrap();
    let found = store.snapshot().unwrap().get(table, key).unwrap();
    found.map(|value| value.to_vec())
}

fn conforms() {
    let server = Server::start();
    for case in conformance::CASES {
        (case.run)(&mut Place {
            server: &server,
            database: server.database(),
        });
    }
}

const TESTS: [(&str, fn()); 15] = [
    ("the engine conforms", conforms),
    (
        "tables of each earlier version are brought forward, those of a later one refused",
        schema::versions,
    ),
    (
        "a commit whose answer is lost stands and is acknowledged",
        losses::answer,
    ),
    (
        "a commit that was lost on its way leaves nothing and may be made again",
        losses::request,
    ),
    (
        "a commit that arrives after it was given up is refused",
        losses::late,
    ),
    (
        "a commit whose answer does not come stands and is acknowledged",
        losses::silence,
    ),
    (
        "a server stopped in mid-air leaves a commit in doubt, and holds nobody up for ever",
        losses::stopped,
    ),
    (
        "whoever stops does not wait for a server stopped in mid-air",
        losses::hurried,
    ),
    (
        "a server that restarts is met again, whatever was idle",
        losses::restart,
    ),
    (
        "a server that does not answer is named, and its password is not",
        losses::unreachable,
    ),
    (
        "a server without room or that takes no writes says so and nothing is written",
        losses::refusing,
    ),
    (
        "transactions that want the same rows in opposite orders never wait for each other",
        locks::crossing,
    ),
    (
        "what one has claimed another skips, and writing it is a conflict at once",
        locks::claims,
    ),
    (
        "what is not kept is dropped, and whoever reads below is told",
        kept::pruned,
    ),
    (
        "a thousand rows take a handful of round trips",
        kept::round_trips,
    ),
];

fn main() -> ExitCode {
    let is_missing = server::programs().is_none();
    let is_required = std::env::var("HOLDFAST_PEERS").is_ok_and(|peers| peers == "required");
    let trial = |(name, run): (&str, fn())| {
        let trial = Trial::test(name, move || {
            if is_missing {
                return Err(Failed::from(
                    "PostgreSQL is missing: no /usr/lib/postgresql/*/bin",
                ));
            }
            run();
            Ok(())
        });
        trial.with_ignored_flag(is_missing && !is_required)
    };
    libtest_mimic::run(&Arguments::from_args(), TESTS.map(trial).into()).exit_code()
}
