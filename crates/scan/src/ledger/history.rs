//! What the ledger held at a moment, and how moments differ.

use std::collections::{BTreeMap, BTreeSet};

use store::Snapshot;
use world::Timestamp;

use super::{
    Error,
    cause::{Cause, causes, facts_differ},
    decode,
    row::{self, Change, Host, ScanRow, State, Tables},
    rows,
};
use crate::{judge::Outcome, rule::Severity};

/// Everything known of one host at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    pub host: Host,
    /// The latest scan that was applied by then.
    pub scan: ScanRow,
    /// By rule id.
    pub states: Vec<State>,
    /// Commit time of the snapshot that answered: at or before the moment asked for.
    pub as_of: Timestamp,
}

/// A rule that is not the same at two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub rule: String,
    /// `None`: the rule was not judged then.
    pub from: Option<(Outcome, Severity)>,
    pub to: Option<(Outcome, Severity)>,
    pub reason: String,
    /// What changed; nothing where the host was not known before.
    pub because: Vec<Cause>,
}

/// `at` is the moment asked for; `latest` holds the scan rows, which are never rewritten.
pub(super) fn status(
    tables: &Tables,
    at: &Snapshot,
    latest: &Snapshot,
    host: &str,
) -> Result<Option<Status>, Error> {
    let Some(value) = at.get(tables.hosts, host.as_bytes())? else {
        return Ok(None);
    };
    let found: Host = decode(&value)?;
    let Some(scan_id) = &found.last_scan else {
        return Ok(None);
    };
    let Some(scan) = latest.get(tables.scans, scan_id.as_bytes())? else {
        return Ok(None);
    };
    Ok(Some(Status {
        scan: decode(&scan)?,
        states: states(tables, at, host)?.into_values().collect(),
        host: found,
        as_of: at.time(),
    }))
}

pub(super) fn states(
    tables: &Tables,
    at: &Snapshot,
    host: &str,
) -> Result<BTreeMap<String, State>, Error> {
    rows(at, tables.states, &row::below(&[host.as_bytes()]))?
        .iter()
        .map(|(_, value)| decode::<State>(value).map(|state| (state.rule.clone(), state)))
        .collect()
}

pub(super) fn of_rule(
    tables: &Tables,
    at: &Snapshot,
    rule: &str,
    hosts: &[&str],
) -> Result<Vec<Option<State>>, Error> {
    let keys: Vec<Vec<u8>> = hosts
        .iter()
        .map(|host| row::key(&[host.as_bytes(), rule.as_bytes()]))
        .collect();
    let keys: Vec<_> = keys.iter().map(|key| (tables.states, &key[..])).collect();
    let found = at.get_many(&keys)?;
    found
        .into_iter()
        .map(|state| state.map(|state| decode(&state)).transpose())
        .collect()
}

pub(super) fn changes(
    tables: &Tables,
    latest: &Snapshot,
    host: &str,
    rule: &str,
) -> Result<Vec<Change>, Error> {
    let keys = row::below(&[host.as_bytes(), rule.as_bytes()]);
    rows(latest, tables.changes, &keys)?
        .iter()
        .map(|(_, value)| decode(value))
        .collect()
}

pub(super) fn diff(
    before: &BTreeMap<String, State>,
    after: &BTreeMap<String, State>,
    evidence: impl Fn(&str) -> Option<Vec<u8>>,
) -> Vec<Difference> {
    let rules: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let because = |old: Option<&State>, new: Option<&State>| match (old, new) {
        (Some(old), Some(new)) => causes(old, new, || {
            let (old, new) = (evidence(&old.evidence), evidence(&new.evidence));
            facts_differ(old.as_deref(), new.as_deref())
        }),
        _ if before.is_empty() || after.is_empty() => Vec::new(),
        _ => vec![Cause::Rule],
    };
    let seen = |state: Option<&State>| state.map(|state| (state.verdict, state.severity));
    rules
        .into_iter()
        .filter_map(|rule| {
            let (old, new) = (before.get(rule), after.get(rule));
            (seen(old) != seen(new)).then(|| Difference {
                rule: rule.clone(),
                from: seen(old),
                to: seen(new),
                reason: new
                    .or(old)
                    .map(|state| state.reason.clone())
                    .unwrap_or_default(),
                because: because(old, new),
            })
        })
        .collect()
}
