//! The store that a test of this crate opens: on this disk, or, with HOLDFAST_TEST_POSTGRES set to the URL
//! of a cluster that is thrown away afterwards, in a database of its own there.
//!
//! A test that is about the disk of the store itself opens that store by its own name.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use store::{Options, Store};
use wal::Journal;
use world::{Disk, RealDisk};

/// Databases of this process, each of one directory of tables: a test that opens its directory again
/// finds its rows again.
static DATABASES: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

pub(crate) fn is_elsewhere() -> bool {
    cluster().is_some()
}

fn cluster() -> Option<String> {
    std::env::var("HOLDFAST_TEST_POSTGRES").ok()
}

/// As [`Store::open`], of whose options PostgreSQL needs the clock and the tables.
pub(crate) fn open(options: Options, journal: Arc<dyn Journal>) -> Result<Store, store::Error> {
    let Some(url) = cluster() else {
        return Store::open(options, journal).map(|(store, _)| store);
    };
    // So that it is known when the test is over: its directory is gone then.
    RealDisk
        .create_dir_all_synced(&options.dir)
        .expect("a directory of the test's own");
    let name = database(&url, &options.dir);
    let (front, query) = url.split_once('?').unwrap_or((&url, ""));
    let (server, _) = front.rsplit_once('/').expect("a URL with a database");
    let address = postgres::Address::parse(&format!("{server}/{name}?{query}"), None)?;
    let mut of_postgres = postgres::Options::new(address, options.tables);
    of_postgres.clock = Some(options.clock);
    let engine = postgres::Engine::open(of_postgres)?;
    Ok(Store::on(Arc::new(engine)))
}

fn database(url: &str, dir: &Path) -> String {
    let mut databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
    // Of tests that are over.
    databases.retain(|dir, name| {
        let is_there = dir.exists();
        if !is_there {
            run(url, &format!("drop database {name} with (force)"));
        }
        is_there
    });
    let next = format!("scan_{}_{}", std::process::id(), number());
    match databases.entry(dir.to_owned()) {
        Entry::Occupied(found) => found.get().clone(),
        Entry::Vacant(vacant) => {
            run(url, &format!("create database {next}"));
            vacant.insert(next).clone()
        }
    }
}

fn run(url: &str, statement: &str) {
    let address = postgres::Address::parse(url, None).expect("a URL of a cluster");
    postgres::administer(&address, statement).expect("a cluster that may be thrown away");
}

fn number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// On this disk, whatever is asked for.
pub(crate) fn open_here(
    options: Options,
    journal: Arc<dyn Journal>,
) -> Result<Store, store::Error> {
    Store::open(options, journal).map(|(store, _)| store)
}
