//! Telling of change rows, each once, from the record (LED-6).
//!
//! A cursor of each host says up to which of its scans somebody was told; what is behind it is read
//! from the rows and told, and only then does the cursor move. So nothing that was committed goes
//! untold, whether the process died after the commit, or never learned that it had committed. What dies
//! between telling and the cursor tells the same again under the same names. On a store that several
//! machines share one of them tells at a time: a row names it until its time is over.
//!
//! Scans from before there were cursors are not told of; see [`Host::tells_after`].

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use store::{Keys, Snapshot, Store};
use world::Timestamp;

use super::{
    Class, Error,
    chain::LinkRow,
    decode, encode,
    row::{self, Change, Host, Tables},
};

/// Changes of one call: eight first scans of a large pack, some megabytes in memory.
const CHANGES_MAX: usize = 4_096;

/// For how long one machine is the one that tells: many times what a call takes on a slow disk, and
/// short beside what a reader of events waits when a machine dies for good.
const TURN: Duration = Duration::from_secs(60);

/// Key of the row that says whose turn it is. No host's name holds a zero byte.
const TURN_KEY: &[u8] = b"\0turn";

/// The changes of one scan, in the order of their chain. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    pub host: String,
    pub changes: Vec<Change>,
}

/// What one call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    pub changes: u64,
    /// There is more to tell.
    pub is_more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Turn {
    teller: String,
    until: u64,
}

pub(super) fn announce(
    store: &Store,
    tables: &Tables,
    teller: &str,
    now: Timestamp,
    tell: &mut dyn FnMut(&[Untold]) -> Result<(), String>,
) -> Result<Announced, Error> {
    let snapshot = store.snapshot()?;
    let behind = behind(&snapshot, tables)?;
    if behind.is_empty() || !take_turn(store, tables, teller, now)? {
        return Ok(Announced::default());
    }
    let mut untold = Vec::new();
    let mut cursors = BTreeMap::new();
    let mut done = Announced::default();
    'hosts: for (host, scans) in &behind {
        for number in scans.clone() {
            if done.changes >= CHANGES_MAX as u64 {
                done.is_more = true;
                break 'hosts;
            }
            let changes = changes(&snapshot, tables, host, number)?;
            done.changes += changes.len() as u64;
            cursors.insert(host, number);
            if !changes.is_empty() {
                untold.push(Untold {
                    host: host.clone(),
                    changes,
                });
            }
        }
    }
    if !untold.is_empty() {
        tell(&untold).map_err(|why| Error::new(Class::Storage, why))?;
    }
    let mut transaction = store.begin()?;
    let turn = transaction.get(tables.told, TURN_KEY)?;
    let turn: Option<Turn> = turn.map(|turn| decode(&turn)).transpose()?;
    if turn.is_none_or(|turn| turn.teller != teller) {
        // It took longer than a turn: the cursors are another's, who tells the same again.
        return Ok(Announced::default());
    }
    for (host, number) in cursors {
        transaction.put(tables.told, host.as_bytes(), &encode(&number))?;
    }
    transaction.commit()?;
    Ok(done)
}

/// Hosts with scans behind their cursors, and which scans these are.
fn behind(
    snapshot: &Snapshot,
    tables: &Tables,
) -> Result<Vec<(String, std::ops::RangeInclusive<u64>)>, Error> {
    let mut told: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for item in snapshot.range(tables.told, &Keys::all())? {
        let (key, value) = item?;
        if *key != *TURN_KEY {
            told.insert(key.to_vec(), decode(&value)?);
        }
    }
    let mut found = Vec::new();
    for item in snapshot.range(tables.hosts, &Keys::all())? {
        let host: Host = decode(&item?.1)?;
        let Some(from) = host.tells_after else {
            continue;
        };
        let from = told.get(host.name.as_bytes()).copied().unwrap_or(from);
        if from < host.scans {
            found.push((host.name, from + 1..=host.scans));
        }
    }
    Ok(found)
}

fn changes(
    snapshot: &Snapshot,
    tables: &Tables,
    host: &str,
    number: u64,
) -> Result<Vec<Change>, Error> {
    let Some(link) = snapshot.get(tables.links, &row::link_key(host, number))? else {
        // Verification tells of a chain without one of its links.
        return Ok(Vec::new());
    };
    let link: LinkRow = decode(&link)?;
    let keys: Vec<Vec<u8>> = link
        .rules
        .iter()
        .map(|rule| row::change_key(host, rule, number))
        .collect();
    let keys: Vec<_> = keys.iter().map(|key| (tables.changes, &key[..])).collect();
    let found = snapshot.get_many(&keys)?.into_iter().flatten();
    found.map(|change| decode(&change)).collect()
}

/// Whether `teller` is the one that tells. Its own turn is made longer before it ends.
fn take_turn(store: &Store, tables: &Tables, teller: &str, now: Timestamp) -> Result<bool, Error> {
    let mut transaction = store.begin()?;
    let found = transaction.get(tables.told, TURN_KEY)?;
    let found: Option<Turn> = found.map(|turn| decode(&turn)).transpose()?;
    let half = now.plus(TURN / 2).nanos();
    match found {
        Some(turn) if turn.teller == teller && turn.until > half => return Ok(true),
        Some(turn) if turn.teller != teller && turn.until > now.nanos() => return Ok(false),
        _ => {}
    }
    let turn = Turn {
        teller: teller.to_owned(),
        until: now.plus(TURN).nanos(),
    };
    transaction.put(tables.told, TURN_KEY, &encode(&turn))?;
    transaction.commit()?;
    Ok(true)
}
