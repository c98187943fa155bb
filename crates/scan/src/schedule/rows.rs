//! The rows in a store, and the one way to write them.
//!
//! Beside each row lies one entry in an index ordered by due time, so that a tick reads what is due and
//! not what exists. Row, index entry and audit record are written by one function, in one transaction.

use std::time::Duration;

use serde_json::json;
use store::{Bytes, History, Keys, Snapshot, Store, Table, TableId, Transaction};
use world::Timestamp;

use super::{Change, Error, Kind, Place, Row};
use crate::{
    audit::{Audit, Record},
    policy::{ComplianceState, INTERVAL_MAX},
};

/// How far a clock may be set back without a host being looked at too early.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const HOSTS: &str = "schedule.host";
const DUE: &str = "schedule.due";

/// Action of the audit record that each change of a row makes.
pub const UPDATED: &str = "schedule.updated";

/// The schedule's rows in an open store.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    hosts: TableId,
    /// Due time, then host: no value.
    due: TableId,
    audit: Audit,
}

/// Who changes a row, when and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act<'a> {
    pub(crate) at: Timestamp,
    pub(crate) actor: &'a str,
    pub(crate) change: Change,
}

impl Rows {
    pub fn tables() -> Vec<Table> {
        [HOSTS, DUE]
            .map(|name| Table::new(name, History::Latest))
            .to_vec()
    }

    /// In a store that has [`Rows::tables`] and [`Audit::tables`].
    pub fn of(store: &Store) -> Result<Self, Error> {
        Ok(Self {
            hosts: store.table(HOSTS)?,
            due: store.table(DUE)?,
            audit: Audit::of(store)?,
        })
    }

    /// Gives a host its row, due at once; of one that has a row already, takes site and groups.
    /// For whoever adds or changes a host, in the same transaction.
    pub fn place_in(
        &self,
        transaction: &mut Transaction,
        place: &Place,
        at: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        check_name("host", &place.host)?;
        check_name("site", &place.site)?;
        for group in &place.groups {
            check_name("group", group)?;
        }
        let before = self.get_in(transaction, &place.host)?;
        let (row, change) = match &before {
            None => (first_row(place, at), Change::Created),
            Some(before) => {
                let mut row = before.clone();
                row.site.clone_from(&place.site);
                row.groups.clone_from(&place.groups);
                (row, Change::Placed)
            }
        };
        let act = Act { at, actor, change };
        self.write(transaction, before.as_ref(), Some(&row), act)
    }

    /// Takes the host out of the schedule. A job of it that is queued is refused when it is claimed.
    pub fn retire_in(
        &self,
        transaction: &mut Transaction,
        host: &str,
        at: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        let before = self.get_in(transaction, host)?;
        let change = Change::Retired;
        let act = Act { at, actor, change };
        self.write(transaction, before.as_ref(), None, act)
    }

    /// Makes the host due now and forgets its failures: what made it fail was mended. Nothing happens
    /// to a host that is not in the schedule.
    pub fn hasten_in(
        &self,
        transaction: &mut Transaction,
        host: &str,
        at: Timestamp,
        actor: &str,
    ) -> Result<bool, Error> {
        let Some(before) = self.get_in(transaction, host)? else {
            return Ok(false);
        };
        let mut row = before.clone();
        row.next = row.next.min(at.nanos());
        row.backoff.clear();
        let change = Change::ManualOverride;
        let act = Act { at, actor, change };
        self.write(transaction, Some(&before), Some(&row), act)?;
        Ok(true)
    }

    pub(crate) fn get_in(
        &self,
        transaction: &mut Transaction,
        host: &str,
    ) -> Result<Option<Row>, Error> {
        let found = transaction.get(self.hosts, host.as_bytes())?;
        found.map(|value| decode(&value)).transpose()
    }

    pub(crate) fn get(&self, snapshot: &Snapshot, host: &str) -> Result<Option<Row>, Error> {
        let found = snapshot.get(self.hosts, host.as_bytes())?;
        found.map(|value| decode(&value)).transpose()
    }

    /// Every row, by host.
    pub(crate) fn all(&self, snapshot: &Snapshot) -> Result<Vec<Row>, Error> {
        snapshot
            .range(self.hosts, &Keys::all())?
            .map(|item| {
                item.map_err(Error::from)
                    .and_then(|(_, value)| decode(&value))
            })
            .collect()
    }

    /// One row, or why it does not decode: one that is damaged is no reason to stop for the others.
    pub(crate) fn seen(
        &self,
        snapshot: &Snapshot,
        host: &str,
    ) -> Result<Option<Result<Row, Error>>, Error> {
        let found = snapshot.get(self.hosts, host.as_bytes())?;
        Ok(found.map(|value| decode(&value)))
    }

    /// Hosts that are due at `now`, the longest due first; behind them those whose time is further
    /// off than any interval: it was written while the clock was ahead, and would keep them waiting
    /// until the clock is there again.
    pub(crate) fn due(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<impl Iterator<Item = Result<String, Error>>, Error> {
        let past = now.nanos().saturating_add(1).to_be_bytes();
        let range = snapshot.range(self.due, &Keys::between(&[], &past))?;
        let far = now.plus(INTERVAL_MAX).plus(AHEAD_MAX).nanos().to_be_bytes();
        let ahead = snapshot.range(self.due, &Keys::between(&far, &[u8::MAX; 9]))?;
        Ok(range.chain(ahead).map(|item| Ok(due_host(&item?.0))))
    }

    /// Writes what changed between `before`, as it was read in this transaction, and `after`, with
    /// exactly one audit record; nothing at all when nothing changed.
    pub(crate) fn write(
        &self,
        transaction: &mut Transaction,
        before: Option<&Row>,
        after: Option<&Row>,
        act: Act<'_>,
    ) -> Result<(), Error> {
        if before == after {
            return Ok(());
        }
        let due = |row: &Row| due_key(row.next, &row.host);
        if let Some(before) = before
            && after.map(due) != Some(due(before))
        {
            transaction.delete(self.due, &due(before))?;
        }
        match (before, after) {
            (_, Some(after)) => {
                transaction.put(self.due, &due(after), &[])?;
                transaction.put(self.hosts, after.host.as_bytes(), &encode(after))?;
            }
            (Some(before), None) => transaction.delete(self.hosts, before.host.as_bytes())?,
            (None, None) => {}
        }
        let host = before.or(after).map_or("", |row| row.host.as_str());
        let detail = json!({ "kind": act.change.name(), "before": before, "after": after });
        let record = Record::new(act.at, act.actor, UPDATED, host, detail);
        Ok(self.audit.append(transaction, &record)?)
    }
}

fn first_row(place: &Place, at: Timestamp) -> Row {
    Row {
        host: place.host.clone(),
        site: place.site.clone(),
        groups: place.groups.clone(),
        state: ComplianceState::Unknown,
        score: None,
        next: at.nanos(),
        last_finished: None,
        last_scan: None,
        policy_version: None,
        job: None,
        backoff: std::collections::BTreeMap::new(),
    }
}

/// Big-endian, so that the order of keys is the order of time.
fn due_key(next: u64, host: &str) -> Vec<u8> {
    let mut key = next.to_be_bytes().to_vec();
    key.extend_from_slice(host.as_bytes());
    key
}

fn due_host(key: &Bytes) -> String {
    String::from_utf8_lossy(key.get(8..).unwrap_or_default()).into_owned()
}

fn encode(row: &Row) -> Vec<u8> {
    serde_json::to_vec(row).expect("a plain struct with string keys")
}

fn decode(value: &[u8]) -> Result<Row, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::new(Kind::Storage, "a row of the schedule does not decode").with_source(error)
    })
}

/// Longest name in bytes, that of DNS.
const NAME_LEN_MAX: usize = 255;

/// Names are parts of keys, so none holds a zero byte; and of log lines, so none holds what moves a
/// terminal's cursor.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
        let message = format!(
            "`{}` is no name of a {what}: 1 to {NAME_LEN_MAX} bytes without control characters",
            name.escape_debug()
        );
        return Err(Error::new(Kind::Invalid, message));
    }
    Ok(())
}
