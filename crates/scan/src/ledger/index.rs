//! Rows that lead to others: hosts by name, changes of all hosts in order, scans of a host.
//!
//! All of it follows from the other tables. Each apply adds what it brings; what was recorded before
//! there was an index is added by [`complete`], in pages that survive an interruption. An apply that
//! overlaps with another takes its place in the order before it is known which of them is first, so
//! that two such may stand in either order. Of one host the order is that of recording.

pub(crate) mod fault;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use store::{Keys, Snapshot, Store, Transaction};
use uuid::Uuid;
use world::Timestamp;

use super::{
    Class, Error, apply, decode, encode,
    row::{Change, Host, ScanRow, Tables},
};

/// Rows that one transaction of [`complete`] looks at: a few hundred kilobytes to write. In tests so
/// few that changes of one scan lie on several pages.
const PAGE: usize = if cfg!(test) { 2 } else { 1000 };

/// How far the index is. No key of the other kinds begins with a zero byte.
const PROGRESS: &[u8] = &[0];
const NAME: &[u8] = b"n";
/// Changes of all hosts, by place.
const PLACE: &[u8] = b"p";
/// Changes of one host, by scan.
const HOST: &[u8] = b"h";
/// Scans that no chain numbers, by host and time.
const SCAN: &[u8] = b"s";

/// Rows of the tables that were looked at, up to a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// The last scan id.
    scans: Option<String>,
    /// The last key of a change, hexadecimal.
    changes: Option<Vec<u8>>,
    is_done: bool,
}

/// An apply that brought changes, in the order of all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Nanoseconds since the epoch: when it was recorded, but above the host's place before.
    pub(super) at: u64,
    pub(super) host: String,
    /// Which scan of its host.
    pub(super) scan: u64,
}

impl Place {
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = [PLACE, &self.at.to_be_bytes(), self.host.as_bytes(), &[0]].concat();
        key.extend_from_slice(&self.scan.to_be_bytes());
        key
    }

    pub(super) fn host_key(&self) -> Vec<u8> {
        Self::host_edge(&self.host, self.scan)
    }

    /// Where the changes of a host after its scan with this number begin.
    pub(super) fn host_edge(host: &str, scan: u64) -> Vec<u8> {
        [&host_prefix(host), &scan.to_be_bytes()[..]].concat()
    }

    pub(super) fn of_key(key: &[u8]) -> Option<Self> {
        let (at, rest) = key.strip_prefix(PLACE)?.split_first_chunk()?;
        let (host, scan) = rest.split_last_chunk()?;
        Some(Self {
            at: u64::from_be_bytes(*at),
            host: String::from_utf8(host.strip_suffix(&[0])?.to_vec()).ok()?,
            scan: u64::from_be_bytes(*scan),
        })
    }
}

/// Places from one moment to another, both included.
pub(super) fn place_keys(since: Option<Timestamp>, until: Option<Timestamp>) -> Keys {
    let since = since.map_or(0, Timestamp::nanos);
    let start = [PLACE, &since.to_be_bytes()].concat();
    match until.and_then(|until| until.nanos().checked_add(1)) {
        Some(end) => Keys::between(&start, &[PLACE, &end.to_be_bytes()].concat()),
        // No key of places is above.
        None => Keys::between(&start, &[PLACE[0] + 1]),
    }
}

pub(super) fn place_of(key: &[u8]) -> Result<Place, Error> {
    Place::of_key(key).ok_or_else(damaged)
}

/// Where the place of an apply is found, by a key that ends with the number of its scan.
pub(super) fn host_key(host: &str, numbered: &[u8]) -> Result<Vec<u8>, Error> {
    let scan = numbered.last_chunk().ok_or_else(damaged)?;
    Ok(Place::host_edge(host, u64::from_be_bytes(*scan)))
}

/// Of a row of the changes of one host.
pub(super) fn place_of_host(host: &str, key: &[u8], at: &[u8]) -> Result<Place, Error> {
    let scan = key.last_chunk().ok_or_else(damaged)?;
    Ok(Place {
        at: moment_of_host(at)?,
        host: host.to_owned(),
        scan: u64::from_be_bytes(*scan),
    })
}

/// The moment of the place, of such a row.
pub(super) fn moment_of_host(at: &[u8]) -> Result<u64, Error> {
    let at = at.try_into().map_err(|_| damaged())?;
    Ok(u64::from_be_bytes(at))
}

fn damaged() -> Error {
    Error::new(
        Class::Storage,
        "a row of the ledger's index does not decode",
    )
}

pub(super) fn host_keys(host: &str) -> Keys {
    Keys::prefix(&host_prefix(host))
}

fn host_prefix(host: &str) -> Vec<u8> {
    [HOST, host.as_bytes(), &[0]].concat()
}

pub(super) fn scan_keys(host: &str) -> Keys {
    Keys::prefix(&scan_prefix(host))
}

fn scan_prefix(host: &str) -> Vec<u8> {
    [SCAN, host.as_bytes(), &[0]].concat()
}

fn name_key(host: &str) -> Vec<u8> {
    [NAME, host.as_bytes()].concat()
}

/// With the row of a host that has none yet.
pub(super) fn add_host(
    transaction: &mut Transaction,
    tables: &Tables,
    host: &str,
) -> Result<(), Error> {
    Ok(transaction.put(tables.index, &name_key(host), b"{}")?)
}

pub(super) fn remove_host(
    transaction: &mut Transaction,
    tables: &Tables,
    host: &str,
) -> Result<(), Error> {
    Ok(transaction.delete(tables.index, &name_key(host))?)
}

/// The changes of the scan that `host.scans` counts already, and moves the place of the host.
pub(super) fn add_changes(
    transaction: &mut Transaction,
    tables: &Tables,
    host: &mut Host,
    finished: Timestamp,
    changes: &[Change],
) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    // A clock that was set back moves no change in front of what was recorded before it.
    let seen = transaction.commit_seen().time.nanos();
    host.indexed = finished.nanos().max(seen + 1).max(host.indexed + 1);
    let place = Place {
        at: host.indexed,
        host: host.name.clone(),
        scan: host.scans,
    };
    let mut rules: Vec<&str> = changes.iter().map(|change| change.rule.as_str()).collect();
    rules.sort_unstable();
    put(transaction, tables, &place, &rules)
}

fn put(
    transaction: &mut Transaction,
    tables: &Tables,
    place: &Place,
    rules: &[&str],
) -> Result<(), Error> {
    transaction.put(tables.index, &place.host_key(), &place.at.to_be_bytes())?;
    transaction.put(tables.index, &place.key(), &encode(&rules))?;
    Ok(())
}

/// Every host there ever was, by name; `None` where that is not known yet.
pub(super) fn names(tables: &Tables, latest: &Snapshot) -> Result<Option<Vec<Vec<u8>>>, Error> {
    if latest.get(tables.index, PROGRESS)?.is_none() {
        return Ok(None);
    }
    let names = super::rows(latest, tables.index, &Keys::prefix(NAME))?;
    Ok(Some(
        names
            .into_iter()
            .map(|(key, _)| key[NAME.len()..].to_vec())
            .collect(),
    ))
}

/// Begins the index where there is none: the names of all hosts.
pub(super) fn begin(store: &Store, tables: &Tables) -> Result<(), Error> {
    if store.snapshot()?.get(tables.index, PROGRESS)?.is_some() {
        return Ok(());
    }
    apply::retried(|| {
        let mut transaction = store.begin()?;
        if transaction.get(tables.index, PROGRESS)?.is_some() {
            return Ok(());
        }
        let hosts = super::rows_read(&mut transaction, tables.hosts, &Keys::all())?;
        for (name, _) in &hosts {
            let key = [NAME, &name[..]].concat();
            transaction.put(tables.index, &key, b"{}")?;
        }
        let progress = Progress {
            is_done: hosts.is_empty(),
            ..Progress::default()
        };
        transaction.put(tables.index, PROGRESS, &encode(&progress))?;
        transaction.commit()?;
        Ok(())
    })
}

/// Adds what was recorded before there was an index. Reads every scan and change once, the first time.
pub(super) fn complete(store: &Store, tables: &Tables) -> Result<(), Error> {
    loop {
        let found = store.snapshot()?.get(tables.index, PROGRESS)?;
        let progress: Progress = match found {
            Some(row) => decode(&row)?,
            None => Progress::default(),
        };
        if progress.is_done {
            return Ok(());
        }
        apply::retried(|| step(store, tables, &progress))?;
    }
}

/// One page. Where another process was first, its progress stands.
fn step(store: &Store, tables: &Tables, seen: &Progress) -> Result<(), Error> {
    let mut transaction = store.begin()?;
    let found = transaction.get(tables.index, PROGRESS)?;
    if found.is_some_and(|row| decode::<Progress>(&row).ok().as_ref() != Some(seen)) {
        return Ok(());
    }
    let latest = store.snapshot()?;
    let mut next = seen.clone();
    if let Some(last) = add_scans(&mut transaction, tables, &latest, seen.scans.as_deref())? {
        next.scans = Some(last);
    } else if let Some(last) = add_earlier_changes(&mut transaction, tables, &latest, seen)? {
        next.changes = Some(last);
    } else {
        next.is_done = true;
    }
    transaction.put(tables.index, PROGRESS, &encode(&next))?;
    transaction.commit()?;
    Ok(())
}

/// The last scan id of the page; `None` where none was left. Scan rows are never rewritten, so that
/// they are read outside the transaction and none that is added meanwhile conflicts.
fn add_scans(
    transaction: &mut Transaction,
    tables: &Tables,
    latest: &Snapshot,
    after: Option<&str>,
) -> Result<Option<String>, Error> {
    let keys = after.map_or_else(Keys::all, |last| Keys::after(last.as_bytes()));
    let mut last = None;
    for item in latest.range(tables.scans, &keys)?.take(PAGE) {
        let scan: ScanRow = decode(&item?.1)?;
        if scan.number == 0 {
            let id = Uuid::parse_str(&scan.scan_id).unwrap_or_default();
            let mut key = scan_prefix(&scan.host);
            key.extend_from_slice(&scan.finished.to_be_bytes());
            key.extend_from_slice(id.as_bytes());
            transaction.put(tables.index, &key, scan.scan_id.as_bytes())?;
        }
        last = Some(scan.scan_id);
    }
    Ok(last)
}

/// Changes that have a number are left out: whatever gives one adds it to the index besides. What was
/// written between the two, by a build before the index, is of no release, and is not taken care of: verification
/// names its changes as ones that the index does not have.
fn add_earlier_changes(
    transaction: &mut Transaction,
    tables: &Tables,
    latest: &Snapshot,
    seen: &Progress,
) -> Result<Option<Vec<u8>>, Error> {
    let keys = seen.changes.as_deref().map_or_else(Keys::all, Keys::after);
    let (mut last, mut found) = (None, BTreeMap::<Place, Vec<String>>::new());
    for item in latest.range(tables.changes, &keys)?.take(PAGE) {
        let (key, change) = item?;
        let change: Change = decode(&change)?;
        if let (0, Some((host, scan))) = (change.number, of_change_key(&key)) {
            let place = Place {
                at: change.occurred,
                host,
                scan,
            };
            found.entry(place).or_default().push(change.rule);
        }
        last = Some(key.to_vec());
    }
    for (place, mut rules) in found {
        // Changes of one scan lie by their rules, so that one page may have only some of them.
        if let Some(known) = transaction.get(tables.index, &place.key())? {
            rules.extend(decode::<Vec<String>>(&known)?);
        }
        rules.sort_unstable();
        rules.dedup();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        put(transaction, tables, &place, &rules)?;
    }
    Ok(last)
}

fn of_change_key(key: &[u8]) -> Option<(String, u64)> {
    let (names, scan) = key.split_last_chunk()?;
    let host = names.split(|&byte| byte == 0).next()?;
    let host = String::from_utf8(host.to_vec()).ok()?;
    Some((host, u64::from_be_bytes(*scan)))
}
