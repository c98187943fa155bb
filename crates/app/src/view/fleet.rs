//! The whole fleet, and its hosts by how they stand.

use std::{cmp::Reverse, collections::BTreeMap};

use scan::{
    backend::{Backend, Maintenance},
    failure::Reason,
    inventory::Host,
    judge::{Outcome, Summary},
    ledger::Status,
    policy::{Bands, ComplianceState, Registry},
    rule::Severity,
    schedule::{Probe, Row, state_of},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use world::Timestamp;

use super::{Error, Moment, Reader};

/// Hosts and rules of each list of the overview: what fits on a screen.
const WORST_SHOWN: usize = 10;
/// Hosts of one page unless asked otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// A failed last attempt: the verdicts that stand are older than they should be.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Attempt {
    pub(crate) time: Moment,
    #[schema(value_type = String, example = "host_unreachable")]
    pub(crate) reason: Reason,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// What somebody can do about it.
    pub(crate) next: String,
}

/// Verdicts by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Counts {
    pub(crate) pass: u64,
    pub(crate) fail: u64,
    pub(crate) not_applicable: u64,
    pub(crate) not_assessed: u64,
    pub(crate) error: u64,
    /// Passes of what passed or failed, in percent; null: nothing was assessed.
    pub(crate) score: Option<f64>,
}

impl From<&Summary> for Counts {
    fn from(summary: &Summary) -> Self {
        Self {
            pass: summary.pass,
            fail: summary.fail,
            not_applicable: summary.not_applicable,
            not_assessed: summary.not_assessed,
            error: summary.error,
            score: summary.score,
        }
    }
}

/// Failures by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct BySeverity {
    pub(crate) critical: u64,
    pub(crate) high: u64,
    pub(crate) medium: u64,
    pub(crate) low: u64,
}

impl BySeverity {
    pub(super) fn add(&mut self, severity: Severity, more: u64) {
        let count = match severity {
            Severity::Critical => &mut self.critical,
            Severity::High => &mut self.high,
            Severity::Medium => &mut self.medium,
            Severity::Low => &mut self.low,
        };
        *count += more;
    }
}

/// How one host stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct HostRow {
    pub(crate) host: String,
    pub(crate) site: String,
    pub(crate) groups: Vec<String>,
    pub(crate) tags: Vec<String>,
    /// `local`, `ssh` or `offline`.
    pub(crate) via: &'static str,
    pub(crate) address: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    /// The name of its own credential; null: the default one.
    pub(crate) credential: Option<String>,
    #[schema(value_type = String, example = "partial")]
    pub(crate) state: ComplianceState,
    /// Null where nothing was recorded.
    pub(crate) counts: Option<Counts>,
    /// Failures by severity.
    pub(crate) failing: BySeverity,
    /// When the verdicts were found that the state is from.
    pub(crate) assessed: Option<Moment>,
    /// Set when the last attempt since then came to nothing: what is shown is stale.
    pub(crate) last_attempt_failed: Option<Attempt>,
    /// When it is scanned next; null in a past moment and out of the schedule.
    pub(crate) next: Option<Moment>,
    pub(crate) maintenance: bool,
    pub(crate) added: Moment,
    pub(crate) retired: Option<Moment>,
}

/// A rule and on how many hosts it fails.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RuleCount {
    pub(crate) rule: String,
    pub(crate) title: String,
    #[schema(value_type = String, example = "high")]
    pub(crate) severity: Severity,
    pub(crate) failing: u64,
}

/// A rule that could not be assessed on some hosts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Unassessed {
    pub(crate) rule: String,
    pub(crate) title: String,
    pub(crate) hosts: u64,
    /// Why on one of them.
    pub(crate) reason: String,
}

/// The fleet at a moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Fleet {
    /// The moment that was asked for.
    pub(crate) at: Moment,
    /// Hosts that are watched.
    pub(crate) hosts: u64,
    /// Hosts by compliance state; every state is named.
    pub(crate) states: BTreeMap<&'static str, u64>,
    /// All verdicts together.
    pub(crate) counts: Counts,
    pub(crate) failing: BySeverity,
    pub(crate) worst_hosts: Vec<HostRow>,
    pub(crate) worst_rules: Vec<RuleCount>,
    /// Hosts whose verdicts are missing or stale.
    pub(crate) stale_hosts: Vec<HostRow>,
    pub(crate) unassessed: Vec<Unassessed>,
}

/// Which hosts.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HostsAsked {
    /// As it was at this moment: RFC 3339.
    pub(crate) at: Option<String>,
    /// Of this site.
    pub(crate) site: Option<String>,
    /// In this group.
    pub(crate) group: Option<String>,
    /// With this tag.
    pub(crate) tag: Option<String>,
    /// In this compliance state.
    pub(crate) state: Option<String>,
    /// Retired ones too.
    pub(crate) retired: Option<bool>,
    /// Worst first instead of by name.
    pub(crate) worst: Option<bool>,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// Some of the hosts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct HostPage {
    pub(crate) hosts: Vec<HostRow>,
    /// Of all pages together.
    pub(crate) total: u64,
    /// The cursor of the next page; null: this was the last.
    pub(crate) next: Option<String>,
}

/// A host and what is recorded of it.
pub(super) struct Standing {
    pub(super) row: HostRow,
    pub(super) status: Option<Status>,
}

/// What the schedule knows beside the ledger.
pub(super) struct Known {
    rows: BTreeMap<String, Row>,
    maintenances: Vec<Maintenance>,
    bands: Bands,
}

impl Known {
    pub(super) fn of(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<Self, Error> {
        // The bands are those of today at any moment, as `holdfast status --at` has it.
        let bands = Registry::new(reader.store.clone())
            .and_then(|policies| policies.in_force(reader.now))
            .map(|active| active.policy().bands)
            .unwrap_or_default();
        if at.is_some() {
            return Ok(Self {
                rows: BTreeMap::new(),
                maintenances: Vec::new(),
                bands,
            });
        }
        let backend = reader.backend()?;
        let rows = backend.schedule()?;
        Ok(Self {
            rows: rows
                .into_iter()
                .map(|row| (row.host.clone(), row))
                .collect(),
            maintenances: backend.maintenances()?,
            bands,
        })
    }

    pub(super) fn row(&self, host: &str) -> Option<&Row> {
        self.rows.get(host)
    }

    pub(super) fn standing(
        &self,
        reader: &Reader<'_>,
        host: &Host,
        at: Option<Timestamp>,
    ) -> Result<Standing, Error> {
        let status = reader.ledger()?.status(&host.name, at)?;
        let failing = status.as_ref().map(failing).unwrap_or_default();
        let row = self.row(&host.name);
        let (address, port, user) = super::host::way(host);
        let row = HostRow {
            host: host.name.clone(),
            site: host.site.clone(),
            groups: host.groups.iter().cloned().collect(),
            tags: host.tags.iter().cloned().collect(),
            via: host.reach.via(),
            address,
            port,
            user,
            credential: host.credential.clone(),
            state: status.as_ref().map_or(ComplianceState::Unknown, |status| {
                state_of(status.scan.summary.score, failing.critical > 0, &self.bands)
            }),
            counts: status.as_ref().map(|status| (&status.scan.summary).into()),
            failing,
            assessed: status
                .as_ref()
                .map(|status| Moment::nanos(status.scan.finished)),
            last_attempt_failed: row.and_then(attempt),
            next: row.map(|row| Moment::nanos(row.next)),
            maintenance: row.is_some_and(|row| {
                let mut all = self.maintenances.iter();
                all.any(|maintenance| maintenance.blocks(row, reader.now))
            }),
            added: Moment::nanos(host.added),
            retired: host.retired.map(Moment::nanos),
        };
        Ok(Standing { row, status })
    }
}

pub(super) fn attempt(row: &Row) -> Option<Attempt> {
    row.backoff.get(&Probe::Scan).map(|backoff| Attempt {
        time: Moment::nanos(backoff.last_failed),
        reason: backoff.reason,
        failures: backoff.failures,
        next: crate::fleet::next_step(backoff.reason, &row.host),
    })
}

fn failing(status: &Status) -> BySeverity {
    let mut counted = BySeverity::default();
    for state in &status.states {
        if state.verdict == Outcome::Fail {
            counted.add(state.severity, 1);
        }
    }
    counted
}

/// Worst first: what fails most, then what nobody knows.
fn rank(row: &HostRow) -> (u8, Reverse<(u64, u64)>) {
    let rank = match row.state {
        ComplianceState::Critical => 0,
        ComplianceState::NonCompliant => 1,
        ComplianceState::Unknown => 2,
        ComplianceState::Partial => 3,
        ComplianceState::Compliant if row.last_attempt_failed.is_some() => 4,
        ComplianceState::Compliant => 5,
    };
    let fail = row.counts.as_ref().map_or(0, |counts| counts.fail);
    (rank, Reverse((row.failing.critical, fail)))
}

fn standings(
    reader: &Reader<'_>,
    hosts: &[Host],
    at: Option<Timestamp>,
) -> Result<Vec<Standing>, Error> {
    let known = Known::of(reader, at)?;
    hosts
        .iter()
        .map(|host| known.standing(reader, host, at))
        .collect()
}

/// Everything of the fleet on one page.
pub(crate) fn fleet(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<Fleet, Error> {
    let mut hosts = reader.visible(at)?;
    hosts.retain(|host| host.retired.is_none());
    let mut all = standings(reader, &hosts, at)?;
    let mut states: BTreeMap<&'static str, u64> = ComplianceState::ALL
        .into_iter()
        .map(|state| (state.name(), 0))
        .collect();
    let (mut counts, mut failing) = (Counts::default(), BySeverity::default());
    for standing in &all {
        *states.entry(standing.row.state.name()).or_default() += 1;
        if let Some(of_host) = &standing.row.counts {
            counts.pass += of_host.pass;
            counts.fail += of_host.fail;
            counts.not_applicable += of_host.not_applicable;
            counts.not_assessed += of_host.not_assessed;
            counts.error += of_host.error;
        }
        let of_host = &standing.row.failing;
        failing.critical += of_host.critical;
        failing.high += of_host.high;
        failing.medium += of_host.medium;
        failing.low += of_host.low;
    }
    counts.score = score(&counts);
    let (worst_rules, unassessed) = by_rule(reader, &all);
    all.sort_by_key(|standing| rank(&standing.row));
    let pick = |wanted: fn(&HostRow) -> bool| {
        let rows = all.iter().map(|standing| &standing.row);
        rows.filter(|row| wanted(row))
            .take(WORST_SHOWN)
            .cloned()
            .collect()
    };
    Ok(Fleet {
        at: Moment(at.unwrap_or(reader.now)),
        hosts: all.len() as u64,
        states,
        counts,
        failing,
        worst_hosts: pick(|row| row.counts.as_ref().is_some_and(|counts| counts.fail > 0)),
        stale_hosts: pick(|row| row.counts.is_none() || row.last_attempt_failed.is_some()),
        worst_rules,
        unassessed,
    })
}

#[allow(clippy::cast_precision_loss, reason = "verdicts are far below 2^52")]
fn score(counts: &Counts) -> Option<f64> {
    let assessed = counts.pass + counts.fail;
    (assessed > 0).then(|| 100.0 * counts.pass as f64 / assessed as f64)
}

fn by_rule(reader: &Reader<'_>, all: &[Standing]) -> (Vec<RuleCount>, Vec<Unassessed>) {
    let mut fails: BTreeMap<&str, (Severity, u64)> = BTreeMap::new();
    let mut unknown: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    let statuses = all.iter().filter_map(|standing| standing.status.as_ref());
    for state in statuses.flat_map(|status| &status.states) {
        match state.verdict {
            Outcome::Fail => {
                let found = fails.entry(&state.rule).or_insert((state.severity, 0));
                found.0 = found.0.min(state.severity);
                found.1 += 1;
            }
            Outcome::NotAssessed | Outcome::Error => {
                unknown.entry(&state.rule).or_insert((0, &state.reason)).0 += 1;
            }
            Outcome::Pass | Outcome::NotApplicable => {}
        }
    }
    let mut worst: Vec<_> = fails
        .into_iter()
        .map(|(rule, (severity, failing))| RuleCount {
            rule: rule.to_owned(),
            title: reader.title(rule),
            severity,
            failing,
        })
        .collect();
    worst.sort_by_key(|count| (count.severity, Reverse(count.failing)));
    worst.truncate(WORST_SHOWN);
    let mut unassessed: Vec<_> = unknown
        .into_iter()
        .map(|(rule, (hosts, reason))| Unassessed {
            rule: rule.to_owned(),
            title: reader.title(rule),
            hosts,
            reason: reason.to_owned(),
        })
        .collect();
    unassessed.sort_by_key(|count| Reverse(count.hosts));
    unassessed.truncate(WORST_SHOWN);
    (worst, unassessed)
}

/// The hosts that are asked for, by name or worst first.
pub(crate) fn hosts(
    reader: &Reader<'_>,
    asked: &HostsAsked,
    at: Option<Timestamp>,
) -> Result<HostPage, Error> {
    let is = |wanted: &Option<String>, found: &dyn Fn(&String) -> bool| {
        wanted.as_ref().is_none_or(found)
    };
    let mut hosts = reader.visible(at)?;
    hosts.retain(|host| {
        (host.retired.is_none() || asked.retired == Some(true))
            && is(&asked.site, &|site| *site == host.site)
            && is(&asked.group, &|group| host.groups.contains(group))
            && is(&asked.tag, &|tag| host.tags.contains(tag))
    });
    let mut rows: Vec<HostRow> = standings(reader, &hosts, at)?
        .into_iter()
        .map(|standing| standing.row)
        .filter(|row| is(&asked.state, &|state| *state == row.state.name()))
        .collect();
    if asked.worst == Some(true) {
        rows.sort_by_key(rank);
    }
    let total = rows.len() as u64;
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let after = match &asked.cursor {
        None => 0,
        // The host that the page before ended with; one that is gone since begins at the front.
        Some(cursor) => rows
            .iter()
            .position(|row| row.host == *cursor)
            .map_or(0, |found| found + 1),
    };
    let page: Vec<HostRow> = rows.into_iter().skip(after).take(limit).collect();
    let is_last = after + page.len() >= usize::try_from(total).unwrap_or(usize::MAX);
    let last = page.last().map(|row| row.host.clone());
    Ok(HostPage {
        next: last.filter(|_| !is_last),
        hosts: page,
        total,
    })
}
