//! `holdfast status` of several hosts: how each stands, worst first.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use scan::{
    backend::{Maintenance, Scope},
    inventory::{Host, Reach},
    judge::Summary,
    ledger::HostStanding,
    policy::{Bands, ComplianceState},
    schedule::{Probe, Row},
};
use serde::Serialize;
use world::{Clock, RealClock, Timestamp};

use crate::{
    cli::Output,
    config::Config,
    exit::{Exit, Refusal},
    fleet,
    moment::{local, rfc3339},
    present::{csv, table},
    screen::Screen,
    site::{Site, fleet_refused},
};

/// A failed last attempt: the verdicts that stand are older than they should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailedAttempt {
    pub(crate) time: String,
    pub(crate) reason: scan::failure::Reason,
    /// Failures in a row.
    pub(crate) failures: u32,
}

/// How one host stands.
#[derive(Debug, Serialize)]
struct Standing {
    host: String,
    site: String,
    groups: Vec<String>,
    via: &'static str,
    state: ComplianceState,
    summary: Option<Summary>,
    /// When the verdicts were found that the state is from.
    assessed: Option<String>,
    /// Set when the last attempt since then came to nothing: what is shown is stale.
    last_attempt_failed: Option<FailedAttempt>,
    next: Option<String>,
    maintenance: bool,
    #[serde(skip)]
    assessed_at: Option<Timestamp>,
    #[serde(skip)]
    next_at: Option<Timestamp>,
    #[serde(skip)]
    failed_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Fleet {
    hosts: Vec<Standing>,
}

/// What the schedule knows beside the ledger.
struct Known {
    rows: BTreeMap<String, Row>,
    maintenances: Vec<Maintenance>,
    bands: Bands,
}

/// The hosts that are watched, or were at a moment; all of them, by name.
pub(in crate::command) fn watched(
    site: &Site,
    at: Option<Timestamp>,
) -> Result<Vec<Host>, Refusal> {
    let inventory = site.inventory()?;
    let hosts = match at {
        Some(at) => inventory
            .list(Some(at))
            // What was recorded before there was an inventory is of hosts that came into it later.
            .or_else(|_| inventory.list(None)),
        None => inventory.list(None),
    };
    let mut hosts = hosts.map_err(fleet_refused)?;
    let unlisted = unlisted(site, &hosts, at)?;
    hosts.extend(unlisted);
    hosts.retain(|host| host.retired.is_none());
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(hosts)
}

/// Those that the ledger alone knows: of this machine where no `up` ran, and of hosts whose facts were
/// replayed before that put them into the inventory. The console shows them too.
fn unlisted(site: &Site, listed: &[Host], at: Option<Timestamp>) -> Result<Vec<Host>, Refusal> {
    let ledger = site.ledger();
    let known: Vec<scan::ledger::Host> = match at {
        None => ledger.hosts(),
        Some(_) => ledger
            .fleet(at)
            .map(|fleet| fleet.hosts.iter().map(|it| it.host.clone()).collect()),
    }
    .map_err(Site::refused)?;
    let names: BTreeSet<&str> = listed.iter().map(|host| host.name.as_str()).collect();
    let others = known
        .into_iter()
        .filter(|host| host.last_scan.is_some() && !names.contains(host.name.as_str()));
    let others = others.map(|host| Host {
        retired: host.retired,
        ..Host::new(
            &host.name,
            Reach::Offline,
            Timestamp::from_nanos(host.registered),
        )
    });
    Ok(others.collect())
}

/// Why the last attempt at a host came to nothing, if it did.
pub(super) fn failed_attempt(site: &Site, host: &str) -> Result<Option<FailedAttempt>, Refusal> {
    let rows = fleet::schedule(site)?;
    let row = rows.into_iter().find(|row| row.host == host);
    Ok(row.and_then(|row| failed(&row)))
}

/// Says of a host that is watched, and of which nothing is recorded, why that is.
pub(super) fn never_scanned(site: &Site, host: &str) -> Result<Option<Refusal>, Refusal> {
    let Some(found) = watched(site, None)?
        .into_iter()
        .find(|found| found.name == host)
    else {
        return Ok(None);
    };
    let never = format!("host `{host}` was not scanned yet");
    if matches!(found.reach, Reach::Offline) {
        return Ok(Some(Refusal::new(never).next(
            "collect its facts there (`holdfast collect --help`), then `holdfast scan --replay FILE`",
        )));
    }
    Ok(Some(match failed_attempt(site, host)? {
        Some(failed) => {
            let why = format!("{never}: {} at {}", failed.reason, failed.time);
            Refusal::new(why).next(fleet::next_step(failed.reason, host))
        }
        None => Refusal::new(never).next(format!(
            "`holdfast up` scans it when it is due, `holdfast scan --host {host}` at once"
        )),
    }))
}

fn failed(row: &Row) -> Option<FailedAttempt> {
    row.backoff.get(&Probe::Scan).map(|backoff| FailedAttempt {
        time: rfc3339(Timestamp::from_nanos(backoff.last_failed)),
        reason: backoff.reason,
        failures: backoff.failures,
    })
}

pub(super) fn run(
    site: &Site,
    hosts: &[Host],
    at: Option<Timestamp>,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let known = Known {
        rows: fleet::schedule(site)?
            .into_iter()
            .map(|row| (row.host.clone(), row))
            .collect(),
        maintenances: fleet::maintenances(site)?,
        bands: fleet::policy_of_manual_scan(site).bands,
    };
    let recorded = site.ledger().fleet(at).map_err(Site::refused)?;
    let recorded: BTreeMap<&str, &HostStanding> = recorded
        .hosts
        .iter()
        .map(|standing| (standing.host.name.as_str(), &**standing))
        .collect();
    let mut standings: Vec<Standing> = hosts
        .iter()
        .map(|host| standing(host, recorded.get(host.name.as_str()).copied(), at, &known))
        .collect();
    standings.sort_by_key(|standing| (rank(standing), Reverse(failing(standing))));
    let exit = standings
        .iter()
        .fold(Exit::Clean, |exit, standing| exit.worse(exit_of(standing)));
    let text = match config.output.value {
        Output::Json => super::super::json(&Fleet { hosts: standings })?,
        Output::Csv => csv::lines(
            [
                "host",
                "state",
                "score",
                "pass",
                "fail",
                "not_assessed",
                "assessed",
                "last_attempt_failed",
                "next",
                "maintenance",
            ],
            standings.iter().map(|standing| cells(standing, rfc3339)),
        ),
        Output::Table => rows(&standings, RealClock::new().now()),
    };
    screen.result(&text)?;
    Ok(exit)
}

fn standing(
    host: &Host,
    recorded: Option<&HostStanding>,
    at: Option<Timestamp>,
    known: &Known,
) -> Standing {
    let now = RealClock::new().now();
    // Of a past moment only the verdicts are kept.
    let row = known.rows.get(&host.name).filter(|_| at.is_none());
    let failed_attempt = row.and_then(failed);
    let assessed = recorded.and_then(|recorded| recorded.assessed.as_ref());
    let assessed_at = assessed.map(|assessed| assessed.finished);
    let next_at = row.map(|row| Timestamp::from_nanos(row.next));
    Standing {
        host: host.name.clone(),
        site: host.site.clone(),
        groups: host.groups.iter().cloned().collect(),
        via: host.reach.via(),
        state: recorded.map_or(ComplianceState::Unknown, |recorded| {
            recorded.state(&known.bands)
        }),
        assessed: assessed_at.map(rfc3339),
        summary: assessed.map(|assessed| assessed.summary.clone()),
        failed_at: row.and_then(|row| {
            let backoff = row.backoff.get(&Probe::Scan)?;
            Some(Timestamp::from_nanos(backoff.last_failed))
        }),
        last_attempt_failed: failed_attempt,
        next: next_at.map(rfc3339),
        maintenance: at.is_none()
            && known
                .maintenances
                .iter()
                .any(|set| !set.ended(now) && is_meant(&set.scope, host)),
        assessed_at,
        next_at,
    }
}

fn is_meant(scope: &Scope, host: &Host) -> bool {
    match scope {
        Scope::Host(name) => *name == host.name,
        Scope::Group(name) => host.groups.contains(name),
        Scope::Site(name) => *name == host.site,
    }
}

/// Worst first: what fails most, then what nobody knows.
fn rank(standing: &Standing) -> u8 {
    match standing.state {
        ComplianceState::Critical => 0,
        ComplianceState::NonCompliant => 1,
        ComplianceState::Unknown => 2,
        ComplianceState::Partial => 3,
        ComplianceState::Compliant if standing.last_attempt_failed.is_some() => 4,
        ComplianceState::Compliant => 5,
    }
}

fn failing(standing: &Standing) -> u64 {
    standing.summary.as_ref().map_or(0, |counts| counts.fail)
}

/// Verdicts that are stale say nothing of the host as it is: not clean.
fn exit_of(standing: &Standing) -> Exit {
    let Some(counts) = &standing.summary else {
        return Exit::Incomplete;
    };
    let exit = Exit::of_verdicts(counts);
    if standing.last_attempt_failed.is_some() {
        exit.worse(Exit::Incomplete)
    } else {
        exit
    }
}

fn cells(standing: &Standing, time: impl Fn(Timestamp) -> String) -> [String; 10] {
    let counts = standing.summary.clone().unwrap_or_default();
    let shown = |count: u64| {
        let is_known = standing.summary.is_some();
        if is_known {
            count.to_string()
        } else {
            String::new()
        }
    };
    [
        standing.host.clone(),
        standing.state.name().to_owned(),
        counts
            .score
            .map_or_else(String::new, |score| format!("{score:.1}")),
        shown(counts.pass),
        shown(counts.fail),
        shown(counts.not_assessed),
        standing.assessed_at.map_or_else(String::new, &time),
        standing
            .last_attempt_failed
            .as_ref()
            .map_or_else(String::new, |failed| {
                let at = standing.failed_at.map_or_else(String::new, &time);
                match failed.failures {
                    1 => format!("{at} {}", failed.reason),
                    times => format!("{at} {}, {times} times", failed.reason),
                }
            }),
        standing.next_at.map_or_else(String::new, &time),
        if standing.maintenance { "yes" } else { "" }.to_owned(),
    ]
}

fn rows(standings: &[Standing], now: Timestamp) -> String {
    let has_failed = standings
        .iter()
        .any(|standing| standing.last_attempt_failed.is_some());
    let is_maintained = standings.iter().any(|standing| standing.maintenance);
    let mut text = table::rows(
        [
            "HOST",
            "STATE",
            "SCORE",
            "PASS",
            "FAIL",
            "NOT ASSESSED",
            "ASSESSED",
            "NEXT",
        ],
        standings.iter().map(|standing| {
            let [
                host,
                state,
                score,
                pass,
                fail,
                not_assessed,
                assessed,
                _,
                next,
                _,
            ] = cells(standing, local);
            let assessed = match (assessed.is_empty(), &standing.last_attempt_failed) {
                (true, _) => "never".to_owned(),
                (false, None) => assessed,
                (false, Some(_)) => format!("{assessed} (stale)"),
            };
            let next = match standing.next_at {
                _ if standing.maintenance => "maintenance".to_owned(),
                Some(at) if at <= now => "due".to_owned(),
                _ => next,
            };
            let state = state.replace('_', "-");
            [host, state, score, pass, fail, not_assessed, assessed, next]
        }),
    );
    if has_failed {
        text.push_str("\nLAST ATTEMPT FAILED\n");
        let failed = standings.iter().filter_map(|standing| {
            let [host, .., why, _, _] = cells(standing, local);
            let failed = standing.last_attempt_failed.as_ref()?;
            Some([host, why, fleet::next_step(failed.reason, &standing.host)])
        });
        text.push_str(&table::rows(["HOST", "WHEN AND WHY", "NEXT"], failed));
    }
    if is_maintained {
        text.push_str("\nHosts in maintenance are not scanned: `holdfast maintenance list`\n");
    }
    text
}
