//! The whole fleet, and its hosts by how they stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use scan::{
    backend::{Backend, Embedded, Maintenance},
    failure::Reason,
    inventory::{Host, Reach},
    judge::{Outcome, Summary},
    ledger::{self, Status},
    policy::{Bands, ComplianceState, Registry},
    rule::Severity,
    schedule::{self, Probe, Row, state_of},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use world::Timestamp;

use super::{
    Error, Moment, Reader,
    overview::{overview, rank},
    page_len,
};

/// Hosts of one page unless asked otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;
/// How soon it is looked again whether there is a policy that holds, where there is none.
const POLICY_LOOKED_AT: Duration = Duration::from_secs(1);
/// Of what time does not change.
pub(super) const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);

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
    /// On how many of them for this reason, which is that of most.
    #[serde(skip)]
    pub(crate) alike: u64,
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
    /// The first moment at which time alone makes it another.
    #[serde(skip)]
    pub(crate) turns: Timestamp,
}

/// Which hosts.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HostsAsked {
    /// As it was at this moment: RFC 3339, or a span back from now such as `2h`.
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
    /// The first moment at which time alone makes it another.
    #[serde(skip)]
    pub(crate) turns: Timestamp,
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
    /// The first moment at which time alone makes any of it another.
    pub(super) turns: Timestamp,
}

impl Known {
    /// Of every host.
    pub(super) fn of(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<Self, Error> {
        Self::with(reader, at, |backend| backend.schedule())
    }

    /// Of one host alone.
    pub(super) fn of_one(
        reader: &Reader<'_>,
        host: &str,
        at: Option<Timestamp>,
    ) -> Result<Self, Error> {
        Self::with(reader, at, |backend| {
            Ok(backend.row(host)?.into_iter().collect())
        })
    }

    fn with(
        reader: &Reader<'_>,
        at: Option<Timestamp>,
        rows: impl FnOnce(&Embedded) -> Result<Vec<Row>, schedule::Error>,
    ) -> Result<Self, Error> {
        // The bands are those of today at any moment, as `holdfast status --at` has it.
        let active =
            Registry::new(reader.store.clone()).and_then(|policies| policies.in_force(reader.now));
        let (bands, policy_turns) = match active {
            Ok(active) => (active.policy().bands, active.document.metadata.expires),
            // It may be one that holds in a moment.
            Err(_) => (Bands::default(), Some(reader.now.plus(POLICY_LOOKED_AT))),
        };
        let policy_turns = policy_turns.unwrap_or(NEVER);
        if at.is_some() {
            return Ok(Self {
                rows: BTreeMap::new(),
                maintenances: Vec::new(),
                bands,
                turns: policy_turns,
            });
        }
        let backend = reader.backend()?;
        let rows = rows(&backend)?;
        let maintenances = backend.maintenances()?;
        let ends = maintenances.iter().filter_map(|it| it.until);
        let ends = ends
            .map(Timestamp::from_nanos)
            .filter(|end| *end > reader.now);
        Ok(Self {
            rows: rows
                .into_iter()
                .map(|row| (row.host.clone(), row))
                .collect(),
            turns: ends.min().unwrap_or(NEVER).min(policy_turns),
            maintenances,
            bands,
        })
    }

    pub(super) fn row(&self, host: &str) -> Option<&Row> {
        self.rows.get(host)
    }

    /// One host from what the ledger has of it: when it was assessed, its counts, what fails.
    pub(super) fn row_of(
        &self,
        reader: &Reader<'_>,
        host: &Host,
        found: Option<Assessed>,
    ) -> HostRow {
        let row = self.row(&host.name);
        let (address, port, user) = super::host::way(host);
        let failing = found
            .as_ref()
            .map(|found| found.failing)
            .unwrap_or_default();
        let score = found.as_ref().map(|found| found.counts.score);
        HostRow {
            host: host.name.clone(),
            site: host.site.clone(),
            groups: host.groups.iter().cloned().collect(),
            tags: host.tags.iter().cloned().collect(),
            via: host.reach.via(),
            address,
            port,
            user,
            credential: host.credential.clone(),
            state: score.map_or(ComplianceState::Unknown, |score| {
                state_of(score, failing.critical > 0, &self.bands)
            }),
            assessed: found.as_ref().map(|found| Moment(found.finished)),
            counts: found.map(|found| found.counts),
            failing,
            last_attempt_failed: row.and_then(attempt),
            next: row.map(|row| Moment::nanos(row.next)),
            maintenance: row.is_some_and(|row| {
                let mut all = self.maintenances.iter();
                all.any(|maintenance| maintenance.blocks(row, reader.now))
            }),
            added: Moment::nanos(host.added),
            retired: host.retired.map(Moment::nanos),
        }
    }

    pub(super) fn standing(
        &self,
        reader: &Reader<'_>,
        host: &Host,
        at: Option<Timestamp>,
    ) -> Result<Standing, Error> {
        let status = reader.ledger()?.status(&host.name, at)?;
        let found = status.as_ref().map(|status| Assessed {
            finished: Timestamp::from_nanos(status.scan.finished),
            counts: (&status.scan.summary).into(),
            failing: failing(status),
        });
        let row = self.row_of(reader, host, found);
        Ok(Standing { row, status })
    }
}

/// What the latest scan of a host found, counted.
pub(super) struct Assessed {
    finished: Timestamp,
    counts: Counts,
    failing: BySeverity,
}

impl Assessed {
    pub(super) fn of(assessed: &ledger::Assessed) -> Self {
        let mut failing = BySeverity::default();
        for judged in assessed.verdicts() {
            if judged.verdict == Outcome::Fail {
                failing.add(judged.severity, 1);
            }
        }
        Self {
            finished: assessed.finished,
            counts: (&assessed.summary).into(),
            failing,
        }
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

/// The hosts that may be seen and what the ledger has of them, those too that it alone knows because
/// facts of them were replayed: they are for whoever sees everything.
pub(super) fn seen(
    reader: &Reader<'_>,
    at: Option<Timestamp>,
) -> Result<(Vec<Host>, Arc<ledger::Fleet>), Error> {
    let mut hosts = reader.visible(at)?;
    let fleet = reader
        .ledger()?
        .fleet_of_many(at, &reader.overviews.fleets)?;
    let known: BTreeSet<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    if !reader.scope.is_everything() {
        let mut fleet = ledger::Fleet::clone(&fleet);
        fleet.retain(|standing| known.contains(standing.host.name.as_str()));
        return Ok((hosts, Arc::new(fleet)));
    }
    let others = fleet
        .hosts
        .iter()
        .filter(|standing| !known.contains(standing.host.name.as_str()))
        .filter(|standing| standing.assessed.is_some());
    let others: Vec<Host> = others
        .map(|standing| {
            let registered = Timestamp::from_nanos(standing.host.registered);
            Host {
                retired: standing.host.retired,
                ..Host::new(&standing.host.name, Reach::Offline, registered)
            }
        })
        .collect();
    hosts.extend(others);
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((hosts, fleet))
}

/// The score of everything that may be seen, at a past moment: what a chart is made of.
pub(crate) fn score_at(reader: &Reader<'_>, at: Timestamp) -> Result<Option<f64>, Error> {
    if reader.scope.is_everything() {
        return Ok(reader.ledger()?.summary(at)?.score);
    }
    let (_, fleet) = seen(reader, Some(at))?;
    Ok(fleet.summary().score)
}

/// Everything of the fleet on one page.
pub(crate) fn fleet(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<Fleet, Error> {
    Ok(overview(reader, at)?.fleet(at.unwrap_or(reader.now)))
}

/// Every rule that fails somewhere, the worst first.
pub(crate) fn failing_rules(
    reader: &Reader<'_>,
    at: Option<Timestamp>,
) -> Result<Vec<RuleCount>, Error> {
    Ok(overview(reader, at)?.rules.clone())
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
    let overview = overview(reader, at)?;
    let mut rows: Vec<&HostRow> = overview.rows.iter().collect();
    rows.retain(|row| {
        (row.retired.is_none() || asked.retired == Some(true))
            && is(&asked.site, &|site| *site == row.site)
            && is(&asked.group, &|group| row.groups.contains(group))
            && is(&asked.tag, &|tag| row.tags.contains(tag))
            && is(&asked.state, &|state| *state == row.state.name())
    });
    if asked.worst == Some(true) {
        rows.sort_by_key(|row| rank(row));
    }
    let total = rows.len() as u64;
    let limit = page_len(asked.limit, PAGE, PAGE_MAX)?;
    let after = match &asked.cursor {
        None => 0,
        // The host that the page before ended with; one that is gone since begins at the front.
        Some(cursor) => rows
            .iter()
            .position(|row| row.host == *cursor)
            .map_or(0, |found| found + 1),
    };
    let page = rows.into_iter().skip(after).take(limit);
    let page: Vec<HostRow> = page.cloned().collect();
    let is_last = after + page.len() >= usize::try_from(total).unwrap_or(usize::MAX);
    let last = page.last().map(|row| row.host.clone());
    Ok(HostPage {
        next: last.filter(|_| !is_last),
        hosts: page,
        total,
        turns: overview.turns,
    })
}
