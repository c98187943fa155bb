//! How far the record of each host is at a position of the store: what somebody who follows was told.
//!
//! Scans of a host are numbered in the order in which they are recorded, and no two of it overlap. So what was
//! committed after a position is what has a higher number than its host had there, wherever it stands in the
//! order of all changes: an apply that overlaps with another, or whose machine's clock is behind, may be
//! committed later and stand before it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use store::{Keys, Snapshot, Store};
use wal::Lsn;

use super::{
    Error, decode,
    index::{self, Place},
    row::Tables,
};

/// Scans of one host of which it is asked for each whether it brought changes. Beyond them the next that did is
/// looked for: that is a question for each host.
const SCANS_ASKED_MAX: u64 = 8;
/// Rows that are asked for at once.
const ASKED_AT_ONCE: usize = 1_000;

/// The number of scans of each host at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    position: Lsn,
    scans: BTreeMap<String, u64>,
}

/// Of the row of a host.
#[derive(Deserialize)]
struct Scans {
    scans: u64,
}

impl Heads {
    /// Before anything was recorded.
    pub fn nothing() -> Self {
        Self {
            position: Lsn::ZERO,
            scans: BTreeMap::new(),
        }
    }

    pub(super) fn of(tables: &Tables, then: &Snapshot) -> Result<Self, Error> {
        let mut scans = BTreeMap::new();
        for item in then.range(tables.hosts, &Keys::all())? {
            let (host, row) = item?;
            let Scans { scans: count } = decode(&row)?;
            if count > 0 {
                scans.insert(String::from_utf8_lossy(&host).into_owned(), count);
            }
        }
        Ok(Self {
            position: then.lsn(),
            scans,
        })
    }

    /// `None` where that position is not one of this store, or is not kept any more.
    pub(super) fn at(store: &Store, tables: &Tables, position: Lsn) -> Result<Option<Self>, Error> {
        let found = store
            .snapshot_at(position)
            .map_err(Error::from)
            .and_then(|then| Self::of(tables, &then));
        match found {
            Err(error) if error.class() == super::Class::OutOfRange => Ok(None),
            found => found.map(Some),
        }
    }

    pub fn position(&self) -> Lsn {
        self.position
    }

    fn scans_of(&self, host: &str) -> u64 {
        self.scans.get(host).copied().unwrap_or(0)
    }
}

/// What was recorded after one position, up to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since<'a> {
    pub(super) told: &'a Heads,
    pub(super) to: &'a Heads,
}

impl Since<'_> {
    pub(super) fn holds(&self, place: &Place) -> bool {
        (self.told.scans_of(&place.host) + 1..=self.to.scans_of(&place.host)).contains(&place.scan)
    }

    /// The number of the last scan of a host that is of before.
    pub(super) fn told_of(&self, host: &str) -> u64 {
        self.told.scans_of(host)
    }

    /// The first moment in the order of all changes at which there is one of these. `None`: there are none.
    pub(super) fn begins(
        &self,
        tables: &Tables,
        latest: &Snapshot,
        hosts: Option<&BTreeSet<String>>,
    ) -> Result<Option<u64>, Error> {
        let (mut found, mut keys) = (Vec::new(), Vec::new());
        for (host, &to) in &self.to.scans {
            let told = self.told.scans_of(host);
            if told >= to || hosts.is_some_and(|hosts| !hosts.contains(host)) {
                continue;
            }
            if to - told <= SCANS_ASKED_MAX {
                keys.extend((told + 1..=to).map(|scan| Place::host_edge(host, scan)));
                continue;
            }
            let later = index::host_keys(host).resumed_after(&Place::host_edge(host, told));
            if let Some(item) = latest.range(tables.index, &later)?.next() {
                found.push(index::moment_of_host(&item?.1)?);
            }
        }
        for keys in keys.chunks(ASKED_AT_ONCE) {
            let wanted: Vec<_> = keys.iter().map(|key| (tables.index, &key[..])).collect();
            for at in latest.get_many(&wanted)?.into_iter().flatten() {
                found.push(index::moment_of_host(&at)?);
            }
        }
        Ok(found.into_iter().min())
    }
}
