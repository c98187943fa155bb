//! The index against the rows that it leads to, for verification.
//!
//! Hosts of a fleet, the feed of changes and what is made from either are found by the index alone, and no
//! chain covers it: a row that is gone from it hides what is on record. Not compared: the order of scans
//! from before there were chains, changes of that time while they are still being added, and how two hosts'
//! places stand to each other: each lies between what was made then and the last place of its own host.

use std::collections::BTreeMap;

use serde::Deserialize;
use store::{Bytes, Keys, Snapshot};

use super::{
    super::{
        Error, decode,
        row::{Host, Tables},
    },
    HOST, NAME, PLACE, PROGRESS, Place, Progress, place_of, place_of_host,
};

/// Changes that are looked up at once: in a database a page costs two round trips.
const PAGE: usize = if cfg!(test) { 2 } else { 500 };

/// What is wrong, and of what.
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) why: &'static str,
}

fn fault(what: String, why: &'static str) -> Option<Fault> {
    Some(Fault { what, why })
}

/// Called for each row; its error ends the comparison.
type Step<'a, E> = &'a mut dyn FnMut() -> Result<(), E>;

/// Of a row of changes, what its place in the index follows from.
#[derive(Deserialize)]
struct Made {
    occurred: u64,
    #[serde(default)]
    number: u64,
}

/// The first fault of the index; `hosts` are all of the ledger, by name.
pub(crate) fn find<E: From<store::Error> + From<Error>>(
    tables: &Tables,
    snapshot: &Snapshot,
    hosts: &BTreeMap<String, Host>,
    step: Step<'_, E>,
) -> Result<Option<Fault>, E> {
    let progress = snapshot.get(tables.index, PROGRESS)?;
    // Where it was not begun, hosts are found by their rows.
    if progress.is_some()
        && let Some(fault) = names(tables, snapshot, hosts.keys().map(String::as_str), step)?
    {
        return Ok(Some(fault));
    }
    let progress: Option<Progress> = progress.map(|row| decode(&row)).transpose()?;
    let is_done = progress.is_some_and(|progress| progress.is_done);
    let mut rows = snapshot.range(tables.changes, &Keys::all())?;
    let mut changes = 0;
    loop {
        let page = rows.by_ref().take(PAGE).collect::<Result<Vec<_>, _>>()?;
        if page.is_empty() {
            break;
        }
        for _ in &page {
            changes += 1;
            step()?;
        }
        if let Some(fault) = of_changes(tables, snapshot, &page, is_done)? {
            return Ok(Some(fault));
        }
    }
    let scans = match in_order(tables, snapshot, hosts, step)? {
        Ok(scans) => scans,
        Err(fault) => return Ok(Some(fault)),
    };
    match is_done {
        true => surplus(tables, snapshot, (changes, scans), step),
        false => Ok(None),
    }
}

fn names<'h, E: From<store::Error>>(
    tables: &Tables,
    snapshot: &Snapshot,
    mut hosts: impl Iterator<Item = &'h str>,
    step: Step<'_, E>,
) -> Result<Option<Fault>, E> {
    let lost = |host: &str| {
        let why = "it is not among the names by which hosts are found";
        fault(format!("host `{host}`"), why)
    };
    for item in snapshot.range(tables.index, &Keys::prefix(NAME))? {
        let (key, _) = item?;
        step()?;
        let name = &key[NAME.len()..];
        match hosts.next() {
            Some(host) if host.as_bytes() == name => {}
            Some(host) if host.as_bytes() < name => return Ok(lost(host)),
            _ => {
                let name = String::from_utf8_lossy(name);
                let why =
                    "it is among the names by which hosts are found, and there is no such host";
                return Ok(fault(format!("host `{name}`"), why));
            }
        }
    }
    Ok(hosts.next().and_then(lost))
}

/// Each change is found by its scan, under its rule, no earlier than it was made.
fn of_changes(
    tables: &Tables,
    snapshot: &Snapshot,
    page: &[(Bytes, Bytes)],
    is_done: bool,
) -> Result<Option<Fault>, Error> {
    let mut by_scan: BTreeMap<(String, u64), Vec<(String, u64)>> = BTreeMap::new();
    for (key, value) in page {
        let made: Made = decode(value)?;
        if let Some((host, rule, scan)) = parts(key).filter(|_| made.number > 0 || is_done) {
            let rules = by_scan.entry((host, scan)).or_default();
            rules.push((rule, made.occurred));
        }
    }
    let what = |host: &str, scan: u64| format!("host `{host}`, changes of scan {scan}");
    let keys: Vec<Vec<u8>> = by_scan
        .keys()
        .map(|(host, scan)| Place::host_edge(host, *scan))
        .collect();
    let wanted: Vec<_> = keys.iter().map(|key| (tables.index, &key[..])).collect();
    let mut places = Vec::with_capacity(keys.len());
    let found = snapshot.get_many(&wanted)?;
    for (((host, scan), key), at) in by_scan.keys().zip(&keys).zip(found) {
        let Some(at) = at else {
            let why = "the index of changes does not have them";
            return Ok(fault(what(host, *scan), why));
        };
        places.push(place_of_host(host, key, &at)?);
    }
    let keys: Vec<Vec<u8>> = places.iter().map(Place::key).collect();
    let wanted: Vec<_> = keys.iter().map(|key| (tables.index, &key[..])).collect();
    let found = snapshot.get_many(&wanted)?;
    for ((place, changes), rules) in places.iter().zip(by_scan.values()).zip(found) {
        let rules: Vec<String> = rules.map_or_else(|| Ok(Vec::new()), |rules| decode(&rules))?;
        let is_found = |(rule, occurred): &(String, u64)| {
            place.at >= *occurred && rules.binary_search(rule).is_ok()
        };
        if !changes.iter().all(is_found) {
            let why = "the feed of changes does not have them, or not where they belong";
            return Ok(fault(what(&place.host, place.scan), why));
        }
    }
    Ok(None)
}

/// Places of a host's chained scans rise with their numbers, up to the one in its own row. Gives how many
/// scans have one, chained or not.
fn in_order<E: From<store::Error> + From<Error>>(
    tables: &Tables,
    snapshot: &Snapshot,
    hosts: &BTreeMap<String, Host>,
    step: Step<'_, E>,
) -> Result<Result<usize, Fault>, E> {
    let (mut scans, mut before) = (0, None::<Place>);
    for item in snapshot.range(tables.index, &Keys::prefix(HOST))? {
        let (key, at) = item?;
        step()?;
        scans += 1;
        let name = key[HOST.len()..].split(|&byte| byte == 0).next();
        let name = String::from_utf8_lossy(name.unwrap_or_default());
        let Some(host) = hosts.get(&*name) else {
            // It leads to no change either.
            continue;
        };
        let place = place_of_host(&name, &key, &at)?;
        let chain = host.chain.as_ref();
        let earlier = chain.and_then(|chain| chain.earlier.as_ref());
        if chain.is_none() || place.scan <= earlier.map_or(0, |earlier| earlier.scans) {
            continue;
        }
        let same = before.filter(|before| before.host == place.host);
        if place.at > host.indexed || same.is_some_and(|before| before.at >= place.at) {
            return Ok(Err(Fault {
                what: format!("host `{name}`, changes of scan {}", place.scan),
                why: "their place in the feed is not between that of the scan before and the last",
            }));
        }
        before = Some(place);
    }
    Ok(Ok(scans))
}

/// Each change is there by now, so that what is counted beyond them leads to none. `scans` have a place.
fn surplus<E: From<store::Error> + From<Error>>(
    tables: &Tables,
    snapshot: &Snapshot,
    (changes, scans): (usize, usize),
    step: Step<'_, E>,
) -> Result<Option<Fault>, E> {
    let (mut listed, mut places) = (0, 0);
    for item in snapshot.range(tables.index, &Keys::prefix(PLACE))? {
        let (key, rules) = item?;
        step()?;
        place_of(&key)?;
        listed += decode::<Vec<String>>(&rules)?.len();
        places += 1;
    }
    let is_even = listed == changes && places == scans;
    let why = "it leads to changes that are not on record";
    Ok(match is_even {
        true => None,
        false => fault("index of changes".to_owned(), why),
    })
}

fn parts(key: &[u8]) -> Option<(String, String, u64)> {
    let (names, scan) = key.split_last_chunk()?;
    let mut names = names.split(|&byte| byte == 0);
    let mut name = || String::from_utf8(names.next()?.to_vec()).ok();
    Some((name()?, name()?, u64::from_be_bytes(*scan)))
}
