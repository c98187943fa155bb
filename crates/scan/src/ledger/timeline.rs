//! Changes and scans in order, a page at a time.
//!
//! A cursor is a place in the order and not a number of rows to leave out: what is recorded between
//! two pages neither repeats a row nor hides one. Each call does a bounded amount of work, so that a
//! page may be short, or empty, and still have a next one.

use std::{collections::BTreeSet, fmt, ops::Bound, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use store::{Bytes, Keys, Order, Snapshot, TableId};
use world::Timestamp;

use super::{
    Class, Error,
    chain::LinkRow,
    decode,
    heads::Since,
    index::{self, Place},
    row::{self, Change, ScanRow, Tables},
};

/// Most rows of one page.
pub const PAGE_MAX: usize = 1000;
/// Applies that one call looks at: a filter that lets nothing through ends a page nevertheless. In tests
/// so few that pages end so.
const LOOKED_AT_MAX: usize = if cfg!(test) { 20 } else { 20_000 };
/// Applies that are read at once, and at first: one may have some hundreds of changes, and most have one.
const READ_AT_ONCE: usize = 200;
const READ_FIRST: usize = 8;

/// Which changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub host: Option<String>,
    /// Of these hosts alone; `None`: of all. What is of others is stepped over by its place.
    pub hosts: Option<Arc<BTreeSet<String>>>,
    pub rule: Option<String>,
    /// Recorded at or after.
    pub since: Option<Timestamp>,
    /// Recorded at or before.
    pub until: Option<Timestamp>,
}

/// A place in an order of rows. Opaque: it is given back as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

/// A change and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub host: String,
    pub change: Change,
    /// The place of this change: after it comes the next one.
    pub cursor: Cursor,
}

/// A moment at which changes were recorded, from which on they are seen, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    pub at: Timestamp,
    pub changes: u64,
}

/// Some rows of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        URL_SAFE_NO_PAD
            .decode(text)
            .map(Self)
            .map_err(|_| no_cursor())
    }
}

fn no_cursor() -> Error {
    Error::new(
        Class::Constraint,
        "the cursor is not one that was given for this question",
    )
}

impl Cursor {
    /// After the rule with this number of the rules that changed at `place`.
    fn of_change(place: &Place, number: usize) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let key = place.key();
        Self([&number.to_be_bytes()[..], &key].concat())
    }

    fn change(&self) -> Result<(Place, usize), Error> {
        let (number, key) = self.0.split_first_chunk().ok_or_else(no_cursor)?;
        let number = usize::try_from(u32::from_be_bytes(*number)).map_err(|_| no_cursor())?;
        Ok((Place::of_key(key).ok_or_else(no_cursor)?, number))
    }
}

/// Which side of `edge` is left to be read.
fn resumed(keys: Keys, order: Order, edge: &[u8]) -> Keys {
    match order {
        Order::Ascending => keys.resumed_after(edge),
        Order::Descending => keys.resumed_before(edge),
    }
}

fn some(
    latest: &Snapshot,
    table: TableId,
    keys: &Keys,
    order: Order,
    count: usize,
) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let range = latest.range(table, keys)?;
    let rows: Result<Vec<_>, store::Error> = match order {
        Order::Ascending => range.take(count).collect(),
        Order::Descending => range.rev().take(count).collect(),
    };
    Ok(rows?)
}

/// Reading the order of changes from where a cursor left it.
struct Reading<'a> {
    tables: &'a Tables,
    latest: &'a Snapshot,
    filter: &'a Filter,
    order: Order,
    limit: usize,
    since: Option<Since<'a>>,
    found: Vec<Entry>,
}

/// One apply: its place, and the rules that changed, which are decoded by whoever needs one of them.
type Applied = (Place, Option<Bytes>);

pub(super) fn changes(
    tables: &Tables,
    latest: &Snapshot,
    filter: &Filter,
    order: Order,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Page<Entry>, Error> {
    let mut reading = Reading {
        tables,
        latest,
        filter,
        order,
        limit: limit.clamp(1, PAGE_MAX),
        since: None,
        found: Vec::new(),
    };
    reading.page(after)
}

/// Changes that were recorded after one position and up to another, by their places.
pub(super) fn recorded_since(
    tables: &Tables,
    latest: &Snapshot,
    since: Since<'_>,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Page<Entry>, Error> {
    let mut filter = filter.clone();
    // Of one host the scans are in order; of all it is not known where the first of these stands.
    if after.is_none() && filter.host.is_none() {
        let begins = since.begins(tables, latest, filter.hosts.as_deref())?;
        let Some(begins) = begins.map(Timestamp::from_nanos) else {
            return Ok(Page {
                rows: Vec::new(),
                next: None,
            });
        };
        filter.since = filter.since.max(Some(begins));
    }
    let mut reading = Reading {
        tables,
        latest,
        filter: &filter,
        order: Order::Ascending,
        limit: limit.clamp(1, PAGE_MAX),
        since: Some(since),
        found: Vec::new(),
    };
    reading.page(after)
}

impl Reading<'_> {
    fn page(&mut self, after: Option<&Cursor>) -> Result<Page<Entry>, Error> {
        let mut keys = self.keys();
        let mut last = None;
        if let Some(cursor) = after {
            let (place, number) = cursor.change()?;
            if let Some(applied) = self.applied_at(&place)?
                && let Some(next) = self.take(&[applied], Some(number))?
            {
                return Ok(self.ended(Some(next)));
            }
            keys = resumed(keys, self.order, &self.key(&place));
            last = Some(place);
        }
        let (mut looked_at, mut count) = (0, READ_FIRST.min(self.limit));
        while looked_at < LOOKED_AT_MAX {
            let applies = self.read(&keys, count)?;
            if let Some(next) = self.take(&applies, None)? {
                return Ok(self.ended(Some(next)));
            }
            if applies.len() < count {
                return Ok(self.ended(None));
            }
            looked_at += count;
            count = (2 * count).min(READ_AT_ONCE);
            if let Some((place, _)) = applies.last() {
                keys = resumed(keys, self.order, &self.key(place));
                last = Some(place.clone());
            }
        }
        let next = last.and_then(|last| self.stopped_at(&last));
        Ok(self.ended(next))
    }

    /// Where to go on once everything up to `last` was looked at. Whoever is given a cursor can read it: one
    /// for some hosts names none but these, as the next that may have something at that moment. Scans are
    /// numbered from 1.
    fn stopped_at(&self, last: &Place) -> Option<Cursor> {
        let number = self.end_of_apply();
        let hosts = self.filter.hosts.as_ref();
        let Some(hosts) = hosts.filter(|hosts| !hosts.contains(&last.host)) else {
            return Some(Cursor::of_change(last, number));
        };
        let edge = Bound::Excluded(last.host.as_str());
        let (at, host, scan) = match self.order {
            Order::Ascending => match hosts.range::<str, _>((edge, Bound::Unbounded)).next() {
                Some(host) => (last.at, host.clone(), 0),
                None => (last.at.checked_add(1)?, String::new(), 0),
            },
            Order::Descending => {
                match hosts.range::<str, _>((Bound::Unbounded, edge)).next_back() {
                    Some(host) => (last.at, host.clone(), u64::MAX),
                    None => (last.at, String::new(), 0),
                }
            }
        };
        Some(Cursor::of_change(&Place { at, host, scan }, number))
    }

    fn ended(&mut self, next: Option<Cursor>) -> Page<Entry> {
        Page {
            rows: std::mem::take(&mut self.found),
            next,
        }
    }

    /// The number after which an apply has no more.
    const fn end_of_apply(&self) -> usize {
        match self.order {
            Order::Ascending => usize::MAX,
            Order::Descending => 0,
        }
    }

    fn keys(&self) -> Keys {
        match (&self.filter.host, &self.since) {
            (Some(host), Some(since)) => {
                let told = Place::host_edge(host, since.told_of(host));
                index::host_keys(host).resumed_after(&told)
            }
            (Some(host), None) => index::host_keys(host),
            (None, _) => index::place_keys(self.filter.since, self.filter.until),
        }
    }

    fn key(&self, place: &Place) -> Vec<u8> {
        if self.filter.host.is_some() {
            place.host_key()
        } else {
            place.key()
        }
    }

    fn applied_at(&self, place: &Place) -> Result<Option<Applied>, Error> {
        if self
            .filter
            .host
            .as_ref()
            .is_some_and(|host| *host != place.host)
        {
            return Err(no_cursor());
        }
        let found = self.latest.get(self.tables.index, &place.key())?;
        Ok(found.map(|rules| (place.clone(), Some(rules))))
    }

    fn read(&self, keys: &Keys, count: usize) -> Result<Vec<Applied>, Error> {
        let rows = some(self.latest, self.tables.index, keys, self.order, count)?;
        let Some(host) = &self.filter.host else {
            return rows
                .into_iter()
                .map(|(key, rules)| Ok((index::place_of(&key)?, Some(rules))))
                .collect();
        };
        let places: Vec<Place> = rows
            .iter()
            .map(|(key, at)| index::place_of_host(host, key, at))
            .collect::<Result<_, _>>()?;
        let wanted: Vec<Vec<u8>> = places.iter().map(Place::key).collect();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|key| (self.tables.index, &key[..]))
            .collect();
        let rules = self.latest.get_many(&wanted)?;
        Ok(places.into_iter().zip(rules).collect())
    }

    /// Adds what the filter lets through; the cursor of the last one when the page is full.
    fn take(&mut self, applies: &[Applied], after: Option<usize>) -> Result<Option<Cursor>, Error> {
        let mut wanted: Vec<(&Place, usize, String)> = Vec::new();
        let room = self.limit - self.found.len();
        'applies: for (place, rules) in applies {
            let Some(rules) = rules.as_ref().filter(|_| self.is_within(place)) else {
                continue;
            };
            if wanted.len() == room {
                break;
            }
            let numbered = decode::<Vec<String>>(rules)?.into_iter().enumerate();
            let in_order: Box<dyn Iterator<Item = (usize, String)>> = match self.order {
                Order::Ascending => Box::new(numbered),
                Order::Descending => Box::new(numbered.rev()),
            };
            for (number, rule) in in_order {
                let is_left = after.is_none_or(|after| match self.order {
                    Order::Ascending => number > after,
                    Order::Descending => number < after,
                });
                if is_left && self.filter.rule.as_ref().is_none_or(|only| *only == rule) {
                    if wanted.len() == room {
                        break 'applies;
                    }
                    wanted.push((place, number, rule));
                }
            }
        }
        let keys: Vec<Vec<u8>> = wanted
            .iter()
            .map(|(place, _, rule)| row::change_key(&place.host, rule, place.scan))
            .collect();
        let keys: Vec<_> = keys
            .iter()
            .map(|key| (self.tables.changes, &key[..]))
            .collect();
        for ((place, number, _), change) in wanted.iter().zip(self.latest.get_many(&keys)?) {
            let Some(change) = change else { continue };
            self.found.push(Entry {
                host: place.host.clone(),
                change: decode(&change)?,
                cursor: Cursor::of_change(place, *number),
            });
        }
        let is_full = wanted.len() == room;
        Ok(wanted
            .last()
            .filter(|_| is_full)
            .map(|(place, number, _)| Cursor::of_change(place, *number)))
    }

    fn is_within(&self, place: &Place) -> bool {
        let at = Timestamp::from_nanos(place.at);
        let of = self.filter.hosts.as_ref();
        of.is_none_or(|hosts| hosts.contains(&place.host))
            && self.since.is_none_or(|since| since.holds(place))
            && self.filter.since.is_none_or(|since| since <= at)
            && self.filter.until.is_none_or(|until| at <= until)
    }
}

/// When changes were recorded, newest first, `limit` times at most. No change is read, and of hosts that are
/// not asked for not even how many there are.
pub(super) fn recordings(
    tables: &Tables,
    latest: &Snapshot,
    hosts: Option<&BTreeSet<String>>,
    limit: usize,
) -> Result<Vec<Recording>, Error> {
    let mut keys = index::place_keys(None, None);
    let (mut found, mut looked_at) = (Vec::new(), 0);
    while found.len() < limit && looked_at < LOOKED_AT_MAX {
        let count = READ_AT_ONCE.min(limit);
        let rows = some(latest, tables.index, &keys, Order::Descending, count)?;
        for (key, rules) in &rows {
            let place = index::place_of(key)?;
            if hosts.is_none_or(|hosts| hosts.contains(&place.host)) && found.len() < limit {
                let rules: Vec<serde::de::IgnoredAny> = decode(rules)?;
                found.push(Recording {
                    at: Timestamp::from_nanos(place.at),
                    changes: rules.len() as u64,
                });
            }
        }
        looked_at += count;
        match rows.last() {
            Some((key, _)) if rows.len() == count => keys = keys.resumed_before(key),
            _ => break,
        }
    }
    Ok(found)
}

/// When the first change of all was recorded.
pub(super) fn first(tables: &Tables, latest: &Snapshot) -> Result<Option<Timestamp>, Error> {
    let keys = index::place_keys(None, None);
    let first = some(latest, tables.index, &keys, Order::Ascending, 1)?;
    let first = first.first().map(|(key, _)| index::place_of(key));
    Ok(first
        .transpose()?
        .map(|place| Timestamp::from_nanos(place.at)))
}

/// Changes of one rule on one host, oldest first, each with its place among all changes.
pub(super) fn history(
    tables: &Tables,
    latest: &Snapshot,
    host: &str,
    rule: &str,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Page<Entry>, Error> {
    let limit = limit.clamp(1, PAGE_MAX);
    let mut keys = row::below(&[host.as_bytes(), rule.as_bytes()]);
    if let Some(cursor) = after {
        let (place, _) = cursor.change()?;
        if place.host != host {
            return Err(no_cursor());
        }
        keys = keys.resumed_after(&row::change_key(host, rule, place.scan));
    }
    let mut found = some(latest, tables.changes, &keys, Order::Ascending, limit + 1)?;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let places = places_of(tables, latest, host, found.iter().map(|(key, _)| &key[..]))?;
    let wanted: Vec<Vec<u8>> = places.iter().map(Place::key).collect();
    let wanted: Vec<_> = wanted.iter().map(|key| (tables.index, &key[..])).collect();
    let mut rows = Vec::with_capacity(found.len());
    for (((_, change), place), rules) in found.iter().zip(&places).zip(latest.get_many(&wanted)?) {
        let rules: Vec<String> = decode(&rules.ok_or_else(|| not_indexed(host))?)?;
        let number = rules.iter().position(|known| known == rule);
        let number = number.ok_or_else(|| not_indexed(host))?;
        rows.push(Entry {
            host: host.to_owned(),
            change: decode(change)?,
            cursor: Cursor::of_change(place, number),
        });
    }
    let last = rows.last().map(|entry| entry.cursor.clone());
    Ok(Page {
        rows,
        next: last.filter(|_| !is_last),
    })
}

/// The places of applies of one host, by keys that end with the numbers of its scans.
fn places_of<'a>(
    tables: &Tables,
    latest: &Snapshot,
    host: &str,
    numbered: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Place>, Error> {
    let numbered: Vec<&[u8]> = numbered.collect();
    let keys: Vec<Vec<u8>> = numbered
        .iter()
        .map(|key| index::host_key(host, key))
        .collect::<Result<_, _>>()?;
    let keys: Vec<_> = keys.iter().map(|key| (tables.index, &key[..])).collect();
    let found = latest.get_many(&keys)?;
    numbered
        .iter()
        .zip(found)
        .map(|(key, at)| index::place_of_host(host, key, &at.ok_or_else(|| not_indexed(host))?))
        .collect()
}

fn not_indexed(host: &str) -> Error {
    let why = format!("a change of host `{host}` is not in the ledger's index");
    Error::new(Class::Storage, why)
}

/// Changes of one host that its scans after number `scan` brought, in the order of recording, of
/// whole scans: of as many as make at least `limit` changes.
pub(super) fn changes_since(
    tables: &Tables,
    latest: &Snapshot,
    host: &str,
    scan: u64,
    limit: usize,
) -> Result<Vec<(u64, Vec<Change>)>, Error> {
    let keys = index::host_keys(host).resumed_after(&Place::host_edge(host, scan));
    let mut found = Vec::new();
    let mut count = 0;
    let rows = some(latest, tables.index, &keys, Order::Ascending, READ_AT_ONCE)?;
    for (key, at) in rows {
        if count >= limit {
            break;
        }
        let place = index::place_of_host(host, &key, &at)?;
        let Some(rules) = latest.get(tables.index, &place.key())? else {
            continue;
        };
        let rules: Vec<String> = decode(&rules)?;
        let keys: Vec<Vec<u8>> = rules
            .iter()
            .map(|rule| row::change_key(host, rule, place.scan))
            .collect();
        let keys: Vec<_> = keys.iter().map(|key| (tables.changes, &key[..])).collect();
        let changes: Vec<Change> = latest
            .get_many(&keys)?
            .into_iter()
            .flatten()
            .map(|change| decode(&change))
            .collect::<Result<_, _>>()?;
        count += changes.len();
        found.push((place.scan, changes));
    }
    Ok(found)
}

/// First byte of a cursor of scans: which of the two orders the key after it is of.
const LINK: u8 = b'l';
const EARLIER: u8 = b'e';

/// Scans of a host, newest first: by their numbers, then those from before there were numbers, by time.
pub(super) fn scans(
    tables: &Tables,
    latest: &Snapshot,
    host: &str,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Page<ScanRow>, Error> {
    let limit = limit.clamp(1, PAGE_MAX);
    let (links, earlier) = (row::below(&[host.as_bytes()]), index::scan_keys(host));
    let (links, earlier) = match after.map(|cursor| cursor.0.split_first()) {
        None => (Some(links), earlier),
        Some(Some((&LINK, key))) if links.contains(key) => {
            (Some(links.resumed_before(key)), earlier)
        }
        Some(Some((&EARLIER, key))) if earlier.contains(key) => (None, earlier.resumed_before(key)),
        Some(_) => return Err(no_cursor()),
    };
    let mut ids: Vec<(Vec<u8>, String)> = Vec::new();
    if let Some(links) = links {
        for (key, link) in some(latest, tables.links, &links, Order::Descending, limit)? {
            ids.push((
                [&[LINK], &key[..]].concat(),
                decode::<LinkRow>(&link)?.scan_id,
            ));
        }
    }
    let room = limit - ids.len();
    for (key, id) in some(latest, tables.index, &earlier, Order::Descending, room)? {
        let id = String::from_utf8_lossy(&id).into_owned();
        ids.push(([&[EARLIER], &key[..]].concat(), id));
    }
    let keys: Vec<_> = ids
        .iter()
        .map(|(_, id)| (tables.scans, id.as_bytes()))
        .collect();
    let rows = latest
        .get_many(&keys)?
        .into_iter()
        .flatten()
        .map(|scan| decode(&scan))
        .collect::<Result<_, _>>()?;
    let is_full = ids.len() == limit;
    let next = ids.pop().filter(|_| is_full).map(|(key, _)| Cursor(key));
    Ok(Page { rows, next })
}
