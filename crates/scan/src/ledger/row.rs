//! The rows of the ledger's tables and their keys.
//!
//! Rows are JSON: small, written a few hundred times a scan at most, and readable with nothing but
//! the store's own tools when an auditor asks what is really kept. Keys are the parts joined by a
//! zero byte, which no host name or rule id may contain, so that one host's rows are one range.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use store::{History, Keys, Store, Table, TableId};

use super::{cause::Cause, chain::Head};
use crate::{
    judge::{Outcome, Summary},
    rule::{Severity, Variables},
};

/// The ledger's tables in an open store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    /// Every host ever registered. Its history answers which scan was the latest at any moment.
    pub(crate) hosts: TableId,
    /// One row a scan, by scan id.
    pub(crate) scans: TableId,
    /// The verdict of each rule on each host, written only when something in it changed.
    pub(crate) states: TableId,
    /// Since which scan each rule of a host is checked; written when the set of rules changes.
    pub(crate) checks: TableId,
    /// The record of changes, append-only.
    pub(crate) changes: TableId,
    /// Evidence by SHA-256, compressed, append-only.
    pub(crate) evidence: TableId,
    /// The scans of a host by number, and the order of their changes; see [`super::chain`].
    pub(crate) links: TableId,
    /// Scans that were not looked at yet; see [`super::Recent`].
    pub(crate) recent: TableId,
    /// How every rule of a host stands, one small row a host, written when something in it changed.
    pub(crate) boards: TableId,
    /// Lists of rules by SHA-256, which boards of many hosts share; append-only.
    pub(crate) rules: TableId,
    /// Up to which scan of each host somebody was told, see [`super::announce`].
    pub(crate) told: TableId,
    /// Rows that lead to others, see [`super::index`]; all of it can be made from the other tables.
    pub(crate) index: TableId,
}

const HOSTS: &str = "ledger.host";
const SCANS: &str = "ledger.scan";
const STATES: &str = "ledger.state";
const CHECKS: &str = "ledger.check";
const CHANGES: &str = "ledger.change";
const EVIDENCE: &str = "ledger.evidence";
const LINKS: &str = "ledger.link";
const RECENT: &str = "ledger.recent";
const BOARDS: &str = "ledger.board";
const RULES: &str = "ledger.rules";
const TOLD: &str = "ledger.told";
const INDEX: &str = "ledger.index";

impl Tables {
    pub(crate) fn wanted() -> Vec<Table> {
        [
            (HOSTS, History::Forever),
            (SCANS, History::Latest),
            (STATES, History::Forever),
            (CHECKS, History::Latest),
            (CHANGES, History::Latest),
            (EVIDENCE, History::Latest),
            (LINKS, History::Latest),
            (RECENT, History::Latest),
            (BOARDS, History::Forever),
            (RULES, History::Latest),
            (TOLD, History::Latest),
            (INDEX, History::Latest),
        ]
        .into_iter()
        .map(|(name, history)| Table::new(name, history))
        .collect()
    }

    pub(crate) fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            hosts: store.table(HOSTS)?,
            scans: store.table(SCANS)?,
            states: store.table(STATES)?,
            checks: store.table(CHECKS)?,
            changes: store.table(CHANGES)?,
            evidence: store.table(EVIDENCE)?,
            links: store.table(LINKS)?,
            recent: store.table(RECENT)?,
            boards: store.table(BOARDS)?,
            rules: store.table(RULES)?,
            told: store.table(TOLD)?,
            index: store.table(INDEX)?,
        })
    }
}

/// A host and where its record stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    /// Nanoseconds since the epoch, as all times of the ledger.
    pub registered: u64,
    pub retired: Option<u64>,
    pub scans: u64,
    pub last_scan: Option<String>,
    pub last_finished: Option<u64>,
    /// Where its chain stands; none before its first scan, and in rows of the time before chains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Head>,
    /// SHA-256 over all that the last scan found: a scan that finds the same is known by it without
    /// [`ScanRow::verdicts`] of the last scan: a scan that found the same is known by it without the
    /// states being read. Empty in rows of the time before it was kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) verdicts: String,
    /// How many scans it had when changes began to be told from the record; none of those is told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tells_after: Option<u64>,
    /// Place of the newest row of this host in the order of changes, see [`super::index`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) indexed: u64,
}

/// One scan as it was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanRow {
    pub scan_id: String,
    pub host: String,
    pub started: u64,
    pub finished: u64,
    pub summary: Summary,
    pub changes: u64,
    /// Which scan of its host it is, from 1; 0 in rows of the time before chains, as the two below
    /// are empty in them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u64,
    /// SHA-256 over all of its verdicts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verdicts: String,
    /// Its link in the chain of its host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The verdict of one rule on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub rule: String,
    pub severity: Severity,
    pub verdict: Outcome,
    pub reason: String,
    /// SHA-256 of the evidence, hexadecimal.
    pub evidence: String,
    /// SHA-256 of the rule as it was judged, hexadecimal: tells a changed rule from a changed host.
    pub rule_digest: String,
    /// SHA-256 of the rule as it is written, without the values of the site; empty in rows of the
    /// time before sites had any, where it is `rule_digest`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule_definition: String,
    /// Values that the site gave to variables of the rule; the others have their defaults.
    #[serde(default, skip_serializing_if = "Variables::is_empty")]
    pub variables: Variables,
    pub first_seen: u64,
    pub changed: u64,
}

impl State {
    pub(super) fn definition(&self) -> &str {
        if self.rule_definition.is_empty() {
            &self.rule_digest
        } else {
            &self.rule_definition
        }
    }
}

/// Since which scan of its host, counted from 1, each rule is checked: every scan checks every rule of
/// the pack, so that all counts follow from the host's own and nothing is written where no rule came
/// or went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checks {
    #[serde(default)]
    pub(crate) since: BTreeMap<String, u64>,
    /// Only in rows of the time when each scan wrote its counts; they are of the host's last scan.
    #[serde(default, skip_serializing)]
    counts: BTreeMap<String, u64>,
}

impl From<BTreeMap<String, u64>> for Checks {
    fn from(since: BTreeMap<String, u64>) -> Self {
        let counts = BTreeMap::new();
        Self { since, counts }
    }
}

impl Checks {
    /// `scans` is how many scans the host had when the row was written last or is read.
    pub(crate) fn since(mut self, scans: u64) -> BTreeMap<String, u64> {
        for (rule, count) in self.counts {
            self.since.insert(rule, (scans + 1).saturating_sub(count));
        }
        self.since
    }
}

/// How often and when one rule was last checked on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub count: u64,
    pub last_checked: u64,
    pub last_scan: String,
}

/// Why a change row was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    FirstSeen,
    StateChanged,
    SeverityChanged,
}

/// One change of one rule's verdict or severity on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub rule: String,
    pub kind: ChangeKind,
    pub from: Option<Outcome>,
    pub to: Outcome,
    pub severity: Severity,
    pub severity_before: Option<Severity>,
    pub reason: String,
    pub evidence: String,
    pub rule_digest: String,
    /// What changed; nothing for the first scan of a host, and in rows of the time before it was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Cause>,
    pub scan_id: String,
    pub occurred: u64,
    /// Which change of its host it is, from 1; 0 in rows of the time before chains.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u64,
    /// Its link in the chain of its host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain: String,
}

/// Joins key parts; see the header for why a zero byte separates them.
pub(crate) fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&0)
}

/// All keys that begin with `parts` and have more after them.
pub(crate) fn below(parts: &[&[u8]]) -> Keys {
    Keys::prefix(&prefix(parts))
}

fn prefix(parts: &[&[u8]]) -> Vec<u8> {
    let mut prefix = key(parts);
    prefix.push(0);
    prefix
}

/// `scan` counts the scans of the host: changes lie in the order in which they were recorded, also
/// where the clock was set back between two scans.
pub(crate) fn change_key(host: &str, rule: &str, scan: u64) -> Vec<u8> {
    let mut key = prefix(&[host.as_bytes(), rule.as_bytes()]);
    key.extend_from_slice(&scan.to_be_bytes());
    key
}

/// Scans of a host lie in the order of their numbers.
pub(crate) fn link_key(host: &str, scan: u64) -> Vec<u8> {
    let mut key = prefix(&[host.as_bytes()]);
    key.extend_from_slice(&scan.to_be_bytes());
    key
}
