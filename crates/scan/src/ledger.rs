//! The ledger: the write-on-change record of verdicts.
//!
//! Owns what a host's verdicts are, were, and when each changed. One [`Ledger::apply`] per scan and
//! one transaction per apply: state rows for what changed, a change row only when a rule is first
//! seen or its verdict or severity changed, evidence stored once by its SHA-256. What held at any
//! past moment is read from the store as it was then, so `status`, `diff` and `history` cannot
//! disagree with what was recorded. Nothing here reads a clock: times come with the scan.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use row::Tables;
use store::{Bytes, Keys, Order, Snapshot, Store, TableId, Transaction};
use wal::Lsn;
use world::Timestamp;

use crate::{inventory, judge::Summary};

mod announce;
mod apply;
pub(crate) mod board;
mod cause;
pub mod chain;
mod error;
mod fleet;
mod fleets;
mod heads;
mod history;
pub(crate) mod index;
mod recent;
pub(crate) mod row;
#[cfg(test)]
mod tests;
mod timeline;

pub use announce::{Announced, Untold};
pub(crate) use apply::unpack_evidence;
pub use apply::{Applied, Finding, Scan};
pub use cause::Cause;
pub use error::{Class, Error};
pub use fleet::{
    Assessed, Fleet, FleetWaived, HostStanding, RuleStanding, RuleVerdict, Unassessed,
    UnassessedRule,
};
pub use fleets::Fleets;
pub use heads::Heads;
pub use history::{Difference, Status};
pub(crate) use recent::RecentKey;
pub use recent::{RECENT_MAX, Recent, Turn};
pub use row::{Change, ChangeKind, Check, Host, ScanRow, State};
pub use timeline::{Cursor, Entry, Filter, PAGE_MAX, Page, Recording};

/// Most rows that one answer is made of, and most findings of one scan. The built-in pack has a few
/// hundred rules; a rule that flips with every scan, five minutes apart, gets here in a year.
const ROWS_MAX: usize = 100_000;

/// What is told of an apply that left nothing, once. What one did leave is told from the record, by
/// [`Ledger::announce`].
pub trait Sink {
    /// `apply.failed`.
    fn failed(&self, scan: &Scan, error: &Error);
}

/// Tells the log.
#[derive(Debug, Default)]
pub struct LogSink;

impl Sink for LogSink {
    fn failed(&self, scan: &Scan, error: &Error) {
        tracing::error!(
            event = "apply.failed",
            host = scan.host,
            scan_id = %scan.id,
            class = error.class().code(),
            rule_count_attempted = scan.findings.len(),
            offending_rule = error.rule(),
            error = %error,
        );
    }
}

/// Verdicts of every host over time, on a store.
#[derive(Clone)]
pub struct Ledger {
    store: Store,
    tables: Tables,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger")
    }
}

impl Ledger {
    /// The tables that the store must have been opened with.
    pub fn tables() -> Vec<store::Table> {
        Tables::wanted()
    }

    /// On a store that has [`Ledger::tables`].
    pub fn new(store: Store) -> Result<Self, Error> {
        let tables = Tables::of(&store)?;
        if let Err(error) = index::begin(&store, &tables) {
            // Everything is answered without it, more slowly; a full disk keeps nobody from reading.
            tracing::warn!(error = %error, "the index of the ledger was not begun");
        }
        Ok(Self { store, tables })
    }

    /// Applies one scan, all of it or nothing. A scan id that was applied before changes nothing.
    pub fn apply(&self, scan: &Scan, sink: &dyn Sink) -> Result<Applied, Error> {
        let outcome = apply::apply(&self.store, &self.tables, scan);
        if let Err(error) = &outcome {
            sink.failed(scan, error);
        }
        outcome
    }

    /// As [`Ledger::apply`], with what `also` does in the same transaction.
    pub(crate) fn apply_with(
        &self,
        scan: &Scan,
        sink: &dyn Sink,
        also: impl FnMut(&mut Transaction, &Applied) -> Result<(), inventory::Error>,
    ) -> Result<Applied, Error> {
        let outcome = apply::apply_with(&self.store, &self.tables, scan, also);
        if let Err(error) = &outcome {
            sink.failed(scan, error);
        }
        outcome
    }

    /// What an apply refuses before it writes anything. For [`Ledger::apply_in`], once a scan.
    pub(crate) fn check_scan(scan: &Scan) -> Result<(), Error> {
        apply::check(scan)
    }

    /// As [`Ledger::apply`], in somebody else's transaction, of a scan that passed
    /// [`Ledger::check_scan`]. Whoever commits it dates it by `scan.finished` and tells if it failed.
    pub(crate) fn apply_in(
        &self,
        transaction: &mut Transaction,
        scan: &Scan,
    ) -> Result<Applied, Error> {
        apply::apply_in(&self.store, transaction, &self.tables, scan)
    }

    /// Every host with a record, retired ones included, by name.
    pub fn hosts(&self) -> Result<Vec<Host>, Error> {
        let latest = self.store.snapshot()?;
        fleet::hosts(&self.tables, &latest, &latest)
    }

    /// How all hosts stand at a moment, or now. No hosts before anything was recorded.
    pub fn fleet(&self, at: Option<Timestamp>) -> Result<Fleet, Error> {
        match self.snapshot(at)? {
            Some(then) => self.fleet_of(&then, &mut fleets::Rows::default()),
            None => Ok(Fleet::of_nothing(at)),
        }
    }

    /// As [`Ledger::fleet`], for whoever asks often: what `fleets` has is not read again.
    pub fn fleet_of_many(
        &self,
        at: Option<Timestamp>,
        fleets: &Fleets,
    ) -> Result<Arc<Fleet>, Error> {
        let Some(then) = self.snapshot(at)? else {
            return Ok(Arc::new(Fleet::of_nothing(at)));
        };
        match at {
            None => fleets.newest(then.lsn(), |rows| self.fleet_of(&then, rows)),
            Some(_) => fleets.past(then.lsn(), |rows| self.fleet_of(&then, rows)),
        }
    }

    fn fleet_of(&self, then: &Snapshot, rows: &mut fleets::Rows) -> Result<Fleet, Error> {
        fleet::fleet(&self.tables, then, &self.store.snapshot()?, rows)
    }

    /// All verdicts at a moment counted together, as [`Fleet::summary`] has it, for less.
    pub fn summary(&self, at: Timestamp) -> Result<Summary, Error> {
        match self.snapshot(Some(at))? {
            Some(then) => fleet::summary(&self.tables, &then, &self.store.snapshot()?),
            None => Ok(Summary::default()),
        }
    }

    /// What the last scan of a host by a moment counted; `None` before its first.
    pub fn summary_of(&self, host: &str, at: Timestamp) -> Result<Option<Summary>, Error> {
        match self.snapshot(Some(at))? {
            Some(then) => fleet::summary_of(&self.tables, &then, &self.store.snapshot()?, host),
            None => Ok(None),
        }
    }

    /// Changes of all hosts that the filter lets through, in the order in which they were recorded.
    /// At most [`PAGE_MAX`] a page.
    pub fn changes(
        &self,
        filter: &Filter,
        order: Order,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>, Error> {
        let latest = self.indexed()?;
        timeline::changes(&self.tables, &latest, filter, order, after, limit)
    }

    /// How far the record of each host is.
    pub fn heads(&self) -> Result<Heads, Error> {
        Heads::of(&self.tables, &self.store.snapshot()?)
    }

    /// How far it was at a position. `None` where that is not one of this store, or is not kept any more.
    pub fn heads_at(&self, position: Lsn) -> Result<Option<Heads>, Error> {
        Heads::at(&self.store, &self.tables, position)
    }

    /// Changes that were committed after `told` and up to `to`, each of them once, wherever they stand in the
    /// order of [`Ledger::changes`]. For whoever follows all changes and must miss none.
    pub fn recorded_since(
        &self,
        told: &Heads,
        to: &Heads,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>, Error> {
        let (latest, since) = (self.indexed()?, heads::Since { told, to });
        timeline::recorded_since(&self.tables, &latest, since, filter, after, limit)
    }

    /// When changes were recorded, newest first, `limit` times at most: of these hosts, or of all. A bounded
    /// number of others is stepped over.
    pub fn recordings(
        &self,
        hosts: Option<&BTreeSet<String>>,
        limit: usize,
    ) -> Result<Vec<Recording>, Error> {
        timeline::recordings(&self.tables, &self.indexed()?, hosts, limit)
    }

    /// When the first change of all was recorded, or of some hosts, when the first of them became known;
    /// `None` before there is any.
    pub fn beginning(&self, hosts: Option<&BTreeSet<String>>) -> Result<Option<Timestamp>, Error> {
        let Some(hosts) = hosts else {
            return timeline::first(&self.tables, &self.indexed()?);
        };
        let latest = self.store.snapshot()?;
        let keys: Vec<_> = hosts
            .iter()
            .map(|host| (self.tables.hosts, host.as_bytes()))
            .collect();
        let rows = latest.get_many(&keys)?.into_iter().flatten();
        let registered = rows.map(|row| Ok(decode::<Host>(&row)?.registered));
        let registered = registered.collect::<Result<Vec<u64>, Error>>()?;
        Ok(registered.into_iter().min().map(Timestamp::from_nanos))
    }

    /// Changes of one host by the scans after its scan with this number, in the order in which they
    /// were recorded, each scan whole. For whoever must miss none: no scan of a host overlaps with
    /// another of it, so that what comes after this number is all that is to come.
    pub fn changes_since(
        &self,
        host: &str,
        scan: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<Change>)>, Error> {
        timeline::changes_since(&self.tables, &self.indexed()?, host, scan, limit)
    }

    /// Scans of a host, newest first.
    pub fn scans(
        &self,
        host: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<ScanRow>, Error> {
        timeline::scans(&self.tables, &self.indexed()?, host, after, limit)
    }

    /// The latest snapshot, with everything in the index.
    fn indexed(&self) -> Result<Snapshot, Error> {
        index::complete(&self.store, &self.tables)?;
        Ok(self.store.snapshot()?)
    }

    /// Ends a host's record: it takes no more scans, and all of its history stays. One that is
    /// retired already keeps the moment at which it was.
    pub fn retire(&self, host: &str, at: Timestamp) -> Result<(), Error> {
        self.store.transact(|transaction| {
            let mut found = get_host(transaction, &self.tables, host)?
                .ok_or_else(|| Error::new(Class::Constraint, format!("no host `{host}`")))?;
            if found.retired.is_none() {
                found.retired = Some(at.nanos());
                transaction.put(self.tables.hosts, host.as_bytes(), &encode(&found))?;
            }
            Ok(())
        })
    }

    /// As [`Ledger::retire`], in somebody else's transaction. A host without a record gets one, so
    /// that a scan that is under way cannot begin it.
    pub(crate) fn retire_in(
        &self,
        transaction: &mut Transaction,
        host: &str,
        at: Timestamp,
    ) -> Result<(), Error> {
        apply::check_name(host)?;
        let mut found = match get_host(transaction, &self.tables, host)? {
            Some(found) => found,
            None => {
                index::add_host(transaction, &self.tables, host)?;
                apply::new_host(host, at)
            }
        };
        if found.retired.is_none() {
            found.retired = Some(at.nanos());
            transaction.put(self.tables.hosts, host.as_bytes(), &encode(&found))?;
        }
        Ok(())
    }

    /// Removes a host that never had a scan. One with history can only be retired.
    pub fn delete(&self, host: &str) -> Result<(), Error> {
        self.store.transact(|transaction| {
            let found = get_host(transaction, &self.tables, host)?
                .ok_or_else(|| Error::new(Class::Constraint, format!("no host `{host}`")))?;
            if found.scans > 0 {
                return Err(Error::new(
                    Class::Constraint,
                    format!(
                        "host `{host}` has {} scans of history and can only be retired",
                        found.scans
                    ),
                ));
            }
            transaction.delete(self.tables.hosts, host.as_bytes())?;
            index::remove_host(transaction, &self.tables, host)
        })
    }

    /// Registers a host before its first scan. One that is there already is left as it is.
    pub fn register(&self, host: &str, at: Timestamp) -> Result<(), Error> {
        apply::check_name(host)?;
        self.store.transact(|transaction| {
            if get_host(transaction, &self.tables, host)?.is_some() {
                return Ok(());
            }
            let host_row = apply::new_host(host, at);
            transaction.put(self.tables.hosts, host.as_bytes(), &encode(&host_row))?;
            index::add_host(transaction, &self.tables, host)
        })
    }

    /// At most `limit` scans that nobody drew conclusions from yet.
    pub(crate) fn waiting(&self, limit: usize) -> Result<Vec<RecentKey>, Error> {
        recent::waiting(&self.store.snapshot()?, &self.tables, limit)
    }

    /// One of [`Ledger::waiting`], for the transaction that draws the conclusions.
    pub(crate) fn take_in(
        &self,
        transaction: &mut Transaction,
        key: &RecentKey,
    ) -> Result<Option<Recent>, Error> {
        recent::take_in(transaction, &self.tables, key)
    }

    /// Tells `tell` of change rows that nobody was told of, in the name of `teller`, and remembers it
    /// when that has gone well. What dies in between is told again, and `tell` drops it by scan and rule.
    pub fn announce(
        &self,
        teller: &str,
        now: Timestamp,
        tell: &mut dyn FnMut(&[Untold]) -> Result<(), String>,
    ) -> Result<Announced, Error> {
        announce::announce(&self.store, &self.tables, teller, now, tell)
    }

    /// The evidence with this SHA-256, as the canonical JSON that was hashed.
    pub fn evidence(&self, digest: &str) -> Result<Option<Vec<u8>>, Error> {
        let snapshot = self.store.snapshot()?;
        let Some(packed) = snapshot.get(self.tables.evidence, digest.as_bytes())? else {
            return Ok(None);
        };
        unpack_evidence(&packed).map(Some).map_err(|error| {
            Error::new(Class::Storage, format!("evidence {digest}")).with_source(error)
        })
    }

    /// One scan as it was applied.
    pub fn scan(&self, id: &str) -> Result<Option<ScanRow>, Error> {
        let found = self
            .store
            .snapshot()?
            .get(self.tables.scans, id.as_bytes())?;
        found.map(|row| decode(&row)).transpose()
    }

    /// How often and when a rule was last checked on a host. Current only: it has no history.
    pub fn check(&self, host: &str, rule: &str) -> Result<Option<Check>, Error> {
        let snapshot = self.store.snapshot()?;
        let key = host.as_bytes();
        let keys = [(self.tables.hosts, key), (self.tables.checks, key)];
        let found = snapshot.get_many(&keys)?;
        let [Some(host), Some(checks)] = &found[..] else {
            return Ok(None);
        };
        let (host, checks): (Host, row::Checks) = (decode(host)?, decode(checks)?);
        let since = checks.since(host.scans).get(rule).copied();
        Ok(since.map(|since| Check {
            count: (host.scans + 1).saturating_sub(since),
            last_checked: host.last_finished.unwrap_or_default(),
            last_scan: host.last_scan.unwrap_or_default(),
        }))
    }

    /// The state at a moment, or now. `None` when the host had no scan by then.
    pub fn status(&self, host: &str, at: Option<Timestamp>) -> Result<Option<Status>, Error> {
        match self.snapshot(at)? {
            Some(then) => history::status(&self.tables, &then, &self.store.snapshot()?, host),
            None => Ok(None),
        }
    }

    /// How one rule stands on each of `hosts` at a moment, or now; `None` where it was not judged.
    pub fn states_of_rule(
        &self,
        rule: &str,
        hosts: &[&str],
        at: Option<Timestamp>,
    ) -> Result<Vec<Option<State>>, Error> {
        match self.snapshot(at)? {
            Some(then) => history::of_rule(&self.tables, &then, rule, hosts),
            None => Ok(vec![None; hosts.len()]),
        }
    }

    /// Every change of one rule on one host, oldest first.
    pub fn history(&self, host: &str, rule: &str) -> Result<Vec<Change>, Error> {
        history::changes(&self.tables, &self.store.snapshot()?, host, rule)
    }

    /// As [`Ledger::history`], at most [`PAGE_MAX`] a page, each change with its place among those of all
    /// rules and hosts.
    pub fn history_page(
        &self,
        host: &str,
        rule: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>, Error> {
        let latest = self.indexed()?;
        timeline::history(&self.tables, &latest, host, rule, after, limit)
    }

    /// Rules whose verdict or severity differs between two moments.
    pub fn diff(
        &self,
        host: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Difference>, Error> {
        let (before, after) = (self.states(host, from)?, self.states(host, to)?);
        let evidence = |digest: &str| self.evidence(digest).ok().flatten();
        Ok(history::diff(&before, &after, evidence))
    }

    fn states(&self, host: &str, at: Timestamp) -> Result<BTreeMap<String, State>, Error> {
        self.snapshot(Some(at))?.map_or_else(
            || Ok(BTreeMap::new()),
            |then| history::states(&self.tables, &then, host),
        )
    }

    /// `None` for a moment before anything was recorded, which is an answer and not an error.
    fn snapshot(&self, at: Option<Timestamp>) -> Result<Option<Snapshot>, Error> {
        let Some(at) = at else {
            return Ok(Some(self.store.snapshot()?));
        };
        let from = self.store.retained()?.from;
        if from.lsn == Lsn::ZERO && at < from.time {
            return Ok(None);
        }
        Ok(Some(self.store.snapshot_at_time(at)?))
    }
}

fn get_host(
    transaction: &mut Transaction,
    tables: &Tables,
    host: &str,
) -> Result<Option<Host>, Error> {
    transaction
        .get(tables.hosts, host.as_bytes())?
        .map(|value| decode(&value))
        .transpose()
}

/// At most [`ROWS_MAX`] rows: an answer that leaves some out would be a wrong one.
fn rows(snapshot: &Snapshot, table: TableId, keys: &Keys) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let rows: Vec<_> = snapshot
        .range(table, keys)?
        .take(ROWS_MAX + 1)
        .collect::<Result<_, _>>()?;
    if rows.len() > ROWS_MAX {
        return Err(Error::new(
            Class::Storage,
            format!("an answer of more than {ROWS_MAX} rows"),
        ));
    }
    Ok(rows)
}

fn rows_read(
    transaction: &mut Transaction,
    table: TableId,
    keys: &Keys,
) -> Result<Vec<(Bytes, Bytes)>, Error> {
    Ok(transaction.range(table, keys, Order::Ascending, ROWS_MAX)?)
}

fn encode<T: serde::Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain structs with string keys")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(Class::Storage, "a row of the ledger does not decode").with_source(error)
    })
}
