//! Answers about a site: one function each, from a store to a value that is shown. The HTTP interface
//! gives them as JSON, the console renders the same values. Nothing here changes anything.
//!
//! Each is asked through a [`Reader`], which says whose eyes it is for: a token of a few hosts sees
//! those and nothing of the others, whichever way it asks.

mod alerts;
mod changes;
mod error;
mod fleet;
mod host;
mod moment;
mod operations;
mod overview;
mod records;
mod rule;
mod statements;

pub(crate) use alerts::{
    AlertPage, AlertRow, AlertSilence, AlertStep, AlertsAsked, alert, alert_page, alerts,
    open_alerts,
};
pub(crate) use changes::{
    Change, ChangePage, ChangesAsked, DiffAsked, Difference, Followed, HistoryAsked, Recorded,
    changes, diff, followed, history, recorded,
};
pub(crate) use error::{Error, Kind};
pub(crate) use fleet::{
    Attempt, BySeverity, Counts, Fleet, HostPage, HostRow, HostsAsked, RuleCount, Unassessed,
    failing_rules, fleet, hosts, score_at,
};
pub(crate) use host::{
    Evidence, Finding, FindingPage, FindingsAsked, HostView, evidence, findings, host,
    host_score_at,
};
pub(crate) use moment::{Moment, parse, past, stands};
pub(crate) use operations::{
    CountersView, CredentialRow, JobRow, MaintenanceRow, PolicyRow, PolicyView, ScheduleRow,
    ScopeView, TokenRow, counters, credentials, jobs, maintenances, policies, policy, schedule,
    signing_key, tokens,
};
pub(crate) use overview::{Overview, Overviews, overview};
pub(crate) use records::{
    AuditAsked, AuditPage, AuditRow, HostScanPage, HostScansAsked, ScanPage, ScanView, SettingRow,
    WaiverRow, audit, host_scans, scan, scans, settings, waiver, waivers,
};
pub(crate) use rule::{RuleRow, RuleView, rule, rules};
pub(crate) use statements::{StatementPage, StatementRow, StatementsAsked, statement, statements};

use std::path::Path;

use scan::{
    backend::Embedded,
    inventory::{Host, Inventory},
    ledger::Ledger,
    token::Scope,
    waiver::Waivers,
};
use store::Store;
use world::{RealRandom, Timestamp};

use crate::ruleset::Ruleset;

/// What a view reads, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) store: &'a Store,
    pub(crate) rules: &'a Ruleset,
    /// The data directory.
    pub(crate) dir: &'a Path,
    pub(crate) now: Timestamp,
    /// The hosts that may be seen.
    pub(crate) scope: &'a Scope,
    /// What was made for others.
    pub(crate) overviews: &'a Overviews,
}

/// Rows of a page: as many as are asked for, which is refused where it is not what the interface says.
fn page_len(asked: Option<usize>, otherwise: usize, max: usize) -> Result<usize, Error> {
    let limit = asked.unwrap_or(otherwise);
    match (1..=max).contains(&limit) {
        true => Ok(limit),
        false => Err(Error::new(Kind::Invalid, format!("limit is 1 to {max}"))),
    }
}

impl Reader<'_> {
    pub(crate) fn ledger(&self) -> Result<Ledger, Error> {
        Ok(Ledger::new(self.store.clone())?)
    }

    pub(crate) fn inventory(&self) -> Result<Inventory, Error> {
        Ok(Inventory::new(self.store.clone())?)
    }

    /// For questions: it enqueues nothing.
    pub(crate) fn backend(&self) -> Result<Embedded, Error> {
        let random = std::sync::Arc::new(RealRandom);
        Ok(Embedded::without_key(self.store.clone(), random)?)
    }

    pub(crate) fn waivers(&self) -> Result<Waivers, Error> {
        Ok(Waivers::new(self.store.clone())?)
    }

    /// The hosts of the inventory that may be seen, retired ones included.
    pub(crate) fn visible(&self, at: Option<Timestamp>) -> Result<Vec<Host>, Error> {
        let mut hosts = self.inventory()?.list(at)?;
        hosts.retain(|host| self.scope.holds(host));
        Ok(hosts)
    }

    /// Refuses a host that may not be seen in the words for one that is not there: whether it exists
    /// is not for these eyes. Hosts that only the ledger knows are for whoever sees everything.
    pub(crate) fn must_see(&self, name: &str) -> Result<Option<Host>, Error> {
        let found = match name.is_empty() {
            true => None,
            false => self.inventory()?.get(name)?,
        };
        match found {
            Some(host) if self.scope.holds(&host) => Ok(Some(host)),
            None if self.scope.is_everything() => Ok(None),
            _ => Err(Error::no_host(name)),
        }
    }

    pub(crate) fn title(&self, rule: &str) -> String {
        self.rules
            .get(rule)
            .map_or_else(String::new, |rule| rule.title.clone())
    }
}
