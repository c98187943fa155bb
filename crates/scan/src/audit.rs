//! The audit log: who did what to what, and when.
//!
//! A record is written in the transaction that makes the change it tells of: there is exactly one for
//! each change that was committed, and none for what was rolled back. Append-only: nothing here
//! changes what a record says or removes one. Records hold no secret, and nothing that a scanned host
//! said goes into them unless it was cut short before. Soon after their commit records are linked into
//! one [`chain`], so that who edits or removes one is found out.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{History, Keys, Store, Table, TableId, Transaction};
use world::Timestamp;

pub mod chain;
mod denial;
#[cfg(test)]
mod tests;

pub use denial::{Denial, Denials};

const TABLE: &str = "audit.record";
/// The keys of records that are in no chain yet.
const PENDING: &str = "audit.pending";
/// The key of each record in the chain, by its number.
const LINKS: &str = "audit.link";
/// One row: where the chain stands.
const HEAD: &str = "audit.head";

/// Longest detail: a schedule row before and after is below a kilobyte. Arbitrary, so that one record
/// cannot fill a transaction.
pub const DETAIL_BYTES_MAX: usize = 64 << 10;

/// Records of one answer; more are read in pages. Arbitrary.
pub const LIST_MAX: usize = 100_000;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Nanoseconds since the epoch.
    pub at: u64,
    /// `scheduler`, `worker NAME` or `user NAME`.
    pub actor: String,
    /// What was done, such as `schedule.updated`. Stable: people filter by it.
    pub action: String,
    /// What it was done to: a host, a job, a policy.
    pub object: String,
    pub detail: Value,
}

impl Record {
    pub fn new(at: Timestamp, actor: &str, action: &str, object: &str, detail: Value) -> Self {
        Self {
            at: at.nanos(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
            detail,
        }
    }

    /// Tells the log. For after the commit: what was rolled back is told to nobody.
    pub fn tell(&self) {
        tracing::info!(
            event = self.action,
            actor = self.actor,
            object = self.object,
            detail = %self.detail,
        );
    }
}

/// Which records are asked for. All that is `None` lets everything through.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    pub actor: Option<String>,
    /// This action, or all that begin with it and a dot: `schedule` finds `schedule.updated`.
    pub action: Option<String>,
    pub object: Option<String>,
}

impl Filter {
    pub(crate) fn takes(&self, row: &chain::LinkedRecord) -> bool {
        let at = row.at.0;
        let record = Record::new(at, &row.actor, &row.action, &row.object, Value::Null);
        let is_late = self.since.is_none_or(|since| at >= since);
        is_late && self.until.is_none_or(|until| at < until) && self.lets_through(&record)
    }

    fn lets_through(&self, record: &Record) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|it| it == is);
        let action = self.action.as_deref().is_none_or(|wanted| {
            record
                .action
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        action && same(&self.actor, &record.actor) && same(&self.object, &record.object)
    }
}

/// The log in an open store.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    table: TableId,
    pending: TableId,
    links: TableId,
    head: TableId,
}

impl Audit {
    pub fn tables() -> Vec<Table> {
        [TABLE, PENDING, LINKS, HEAD]
            .map(|name| Table::new(name, History::Latest))
            .to_vec()
    }

    /// In a store that has [`Audit::tables`].
    pub fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            table: store.table(TABLE)?,
            pending: store.table(PENDING)?,
            links: store.table(LINKS)?,
            head: store.table(HEAD)?,
        })
    }

    /// Adds a record to what `transaction` does. It is marked and not linked into the chain: that would
    /// have any two transactions with a record wait for each other.
    pub fn append(
        &self,
        transaction: &mut Transaction,
        record: &Record,
    ) -> Result<(), store::Error> {
        let mut record = record.clone();
        if record.detail.to_string().len() > DETAIL_BYTES_MAX {
            record.detail = serde_json::json!({ "left_out": "detail is too long" });
        }
        let value = serde_json::to_vec(&record).expect("a plain struct with string keys");
        let key = key(&record, transaction);
        transaction.put(self.pending, &key, b"")?;
        transaction.put(self.table, &key, &value)
    }

    /// The newest `limit` records that `filter` lets through, newest first.
    pub fn list(
        &self,
        store: &Store,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Record>, store::Error> {
        let from = filter.since.map_or(0, Timestamp::nanos).to_be_bytes();
        let keys = match filter.until {
            Some(until) => Keys::between(&from, &until.nanos().to_be_bytes()),
            None => Keys::from(&from),
        };
        let snapshot = store.snapshot()?;
        let mut found = Vec::new();
        for item in snapshot.range(self.table, &keys)?.rev() {
            let (_, value) = item?;
            // A record of a later version that this one cannot read is still shown, as text.
            let record = serde_json::from_slice(&value).unwrap_or_else(|_| unreadable(&value));
            if filter.lets_through(&record) {
                found.push(record);
            }
            if found.len() >= limit.min(LIST_MAX) {
                break;
            }
        }
        Ok(found)
    }
}

fn unreadable(value: &[u8]) -> Record {
    let text = String::from_utf8_lossy(value).into_owned();
    Record {
        at: 0,
        actor: String::new(),
        action: "unreadable".to_owned(),
        object: String::new(),
        detail: Value::String(text),
    }
}

/// Time, then the position that the transaction sees, then a count within the process: records of one
/// object lie in the order of their commits even at one time, because a later change of it has seen the
/// commit of the earlier one. No two have one key: after a restart positions are beyond every
/// committed one's.
fn key(record: &Record, transaction: &Transaction) -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut key = record.at.to_be_bytes().to_vec();
    key.extend_from_slice(&transaction.lsn().get().to_be_bytes());
    key.extend_from_slice(&count.to_be_bytes());
    key
}
