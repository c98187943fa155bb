//! One host: its findings, its schedule, and the evidence behind them.

use std::collections::BTreeMap;

use scan::{
    inventory::{Host, Reach},
    judge::{self, Outcome},
    ledger::State,
    rule::Severity,
    schedule::{Probe, Row},
    waiver::{self, Waiver},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use world::Timestamp;

use super::{
    Error, HostRow, Kind, Moment, Reader,
    fleet::{Attempt, Known},
    page_len,
};

/// Findings of one page unless asked otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Why a verdict that fails is lived with, and until when.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Waived {
    pub(crate) id: u32,
    pub(crate) until: Moment,
    pub(crate) owner: String,
    pub(crate) approved_by: String,
    pub(crate) reason: String,
}

/// The verdict of one rule.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Finding {
    pub(crate) rule: String,
    pub(crate) title: String,
    #[schema(value_type = String, example = "high")]
    pub(crate) severity: Severity,
    #[schema(value_type = String, example = "fail")]
    pub(crate) verdict: Outcome,
    pub(crate) reason: String,
    /// SHA-256 of the evidence, hexadecimal: `/api/v1/evidence/{sha256}` has it.
    pub(crate) evidence: String,
    /// Values that the site gave to the rule's variables.
    #[schema(value_type = Object)]
    pub(crate) variables: BTreeMap<String, Value>,
    pub(crate) first_seen: Moment,
    pub(crate) changed: Moment,
    pub(crate) waiver: Option<Waived>,
}

/// The scan that the verdicts are from.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Scanned {
    pub(crate) scan: String,
    pub(crate) started: Moment,
    pub(crate) finished: Moment,
}

/// When it is scanned next, and what keeps it from that.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Planned {
    pub(crate) next: Moment,
    /// The job that is queued or running.
    pub(crate) job: Option<String>,
    pub(crate) policy_version: Option<String>,
    /// Not tried before this, after failures.
    pub(crate) put_off_until: Option<Moment>,
    pub(crate) last_attempt_failed: Option<Attempt>,
}

/// One host at a moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct HostView {
    /// The moment that was asked for.
    pub(crate) at: Moment,
    #[serde(flatten)]
    pub(crate) row: HostRow,
    /// Null where nothing was recorded by then.
    pub(crate) scan: Option<Scanned>,
    /// Seconds between the scan and the moment asked for.
    pub(crate) age_seconds: Option<u64>,
    /// By rule. An answer of the API tells them in [pages](FindingPage).
    #[serde(skip)]
    pub(crate) findings: Vec<Finding>,
    /// Failures that are waived.
    pub(crate) waived: u64,
    /// The score with those left out.
    pub(crate) score_with_waivers: Option<f64>,
    /// Null in a past moment, and out of the schedule.
    pub(crate) schedule: Option<Planned>,
    /// The first moment at which time alone makes it another, its age aside.
    #[serde(skip)]
    pub(crate) turns: Timestamp,
}

/// Which findings of a host.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FindingsAsked {
    /// As it was at this moment: RFC 3339, or a span back from now such as `2h`.
    pub(crate) at: Option<String>,
    /// With this verdict: `pass`, `fail`, `not_applicable`, `not_assessed` or `error`.
    #[param(value_type = Option<String>)]
    pub(crate) verdict: Option<Outcome>,
    /// Of rules of this severity: `critical`, `high`, `medium` or `low`.
    #[param(value_type = Option<String>)]
    pub(crate) severity: Option<Severity>,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// The `next` of the page before. Of a past moment with `at` as RFC 3339: a span back is of another
    /// moment with each page.
    pub(crate) cursor: Option<String>,
}

/// Some of a host's findings, by rule.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct FindingPage {
    pub(crate) host: String,
    pub(crate) findings: Vec<Finding>,
    /// Of all pages together.
    pub(crate) total: u64,
    /// The cursor of the next page; null: this was the last.
    pub(crate) next: Option<String>,
    /// The first moment at which time alone makes it another.
    #[serde(skip)]
    pub(crate) turns: Timestamp,
}

/// Evidence as it was hashed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Evidence {
    pub(crate) sha256: String,
    #[schema(value_type = Object)]
    pub(crate) document: Value,
}

/// Address, port and user of a host over SSH.
pub(super) fn way(host: &Host) -> (Option<String>, Option<u16>, Option<String>) {
    match &host.reach {
        Reach::Ssh {
            address,
            port,
            user,
        } => (Some(address.clone()), Some(*port), user.clone()),
        Reach::Local | Reach::Offline => (None, None, None),
    }
}

/// One host with its findings, now or as it was. One that only the ledger knows, because facts of it
/// were replayed, is shown by what the ledger has.
pub(crate) fn host(
    reader: &Reader<'_>,
    name: &str,
    at: Option<Timestamp>,
) -> Result<HostView, Error> {
    let found = match at {
        None => reader.must_see(name)?,
        Some(at) => {
            reader.must_see(name)?;
            reader.inventory()?.get_at(name, at)?
        }
    };
    let is_known = found.is_some();
    let host = match found {
        Some(host) => host,
        None if name.is_empty() => return Err(Error::no_host(name)),
        None => {
            let status = reader.ledger()?.status(name, at)?;
            let host = status.map(|status| status.host);
            let host = host.ok_or_else(|| Error::no_host(name))?;
            let registered = Timestamp::from_nanos(host.registered);
            Host {
                retired: host.retired,
                ..Host::new(name, Reach::Offline, registered)
            }
        }
    };
    let known = Known::of_one(reader, name, at)?;
    let standing = known.standing(reader, &host, at)?;
    if !is_known && standing.status.is_none() {
        return Err(Error::no_host(name));
    }
    let moment = at.unwrap_or(reader.now);
    let waivers = reader.waivers()?.list()?;
    let states = standing
        .status
        .as_ref()
        .map(|status| status.states.as_slice());
    let findings: Vec<Finding> = states
        .unwrap_or_default()
        .iter()
        .map(|state| finding(reader, state, &host, &waivers, moment))
        .collect();
    let counted = findings.iter().filter(|finding| finding.waiver.is_none());
    let score = judge::Summary::of(counted.map(|finding| finding.verdict)).score;
    let finished = standing.status.as_ref().map(|status| status.scan.finished);
    // Of a past moment it is told what was then, and that stays.
    let waived = waivers.iter().filter(|_| at.is_none());
    let waived = waived.filter_map(|waiver| waiver.turns_after(moment)).min();
    Ok(HostView {
        turns: waived.map_or(known.turns, |turns| turns.min(known.turns)),
        at: Moment(moment),
        scan: standing.status.as_ref().map(|status| Scanned {
            scan: status.scan.scan_id.clone(),
            started: Moment::nanos(status.scan.started),
            finished: Moment::nanos(status.scan.finished),
        }),
        age_seconds: finished.map(|at| moment.nanos().saturating_sub(at) / 1_000_000_000),
        waived: findings
            .iter()
            .filter(|finding| finding.waiver.is_some())
            .count() as u64,
        score_with_waivers: score,
        findings,
        schedule: known.row(name).map(planned),
        row: standing.row,
    })
}

/// Findings of one host, page by page. A cursor is the rule that the page before ended with: one that is
/// judged no more since is no less a place to go on from.
pub(crate) fn findings(
    reader: &Reader<'_>,
    name: &str,
    asked: &FindingsAsked,
    at: Option<Timestamp>,
) -> Result<FindingPage, Error> {
    let limit = page_len(asked.limit, PAGE, PAGE_MAX)?;
    let HostView {
        row,
        mut findings,
        turns,
        ..
    } = host(reader, name, at)?;
    findings.retain(|finding| {
        asked.verdict.is_none_or(|it| it == finding.verdict)
            && asked.severity.is_none_or(|it| it == finding.severity)
    });
    let total = findings.len() as u64;
    if let Some(cursor) = &asked.cursor {
        findings.retain(|finding| finding.rule > *cursor);
    }
    let is_last = findings.len() <= limit;
    findings.truncate(limit);
    let last = findings.last().map(|finding| finding.rule.clone());
    Ok(FindingPage {
        host: row.host,
        findings,
        total,
        next: last.filter(|_| !is_last),
        turns,
    })
}

/// The score of one host at a past moment: what a chart is made of.
pub(crate) fn host_score_at(
    reader: &Reader<'_>,
    name: &str,
    at: Timestamp,
) -> Result<Option<f64>, Error> {
    reader.must_see(name)?;
    let summary = reader.ledger()?.summary_of(name, at)?;
    Ok(summary.and_then(|summary| summary.score))
}

fn finding(
    reader: &Reader<'_>,
    state: &State,
    host: &Host,
    waivers: &[Waiver],
    at: Timestamp,
) -> Finding {
    let waiver = match state.verdict {
        Outcome::Fail => waiver::beside(waivers, &state.rule, &host.name, Some(host), at),
        _ => None,
    };
    Finding {
        rule: state.rule.clone(),
        title: reader.title(&state.rule),
        severity: state.severity,
        verdict: state.verdict,
        reason: state.reason.clone(),
        evidence: state.evidence.clone(),
        variables: state.variables.clone(),
        first_seen: Moment::nanos(state.first_seen),
        changed: Moment::nanos(state.changed),
        waiver: waiver.map(|waiver| Waived {
            id: waiver.id,
            until: Moment::nanos(waiver.expires),
            owner: waiver.owner.clone(),
            approved_by: waiver
                .approved
                .as_ref()
                .map(|step| step.by.clone())
                .unwrap_or_default(),
            reason: waiver.reason.clone(),
        }),
    }
}

fn planned(row: &Row) -> Planned {
    let backoff = row.backoff.get(&Probe::Scan);
    Planned {
        next: Moment::nanos(row.next),
        job: row.job.clone(),
        policy_version: row.policy_version.clone(),
        put_off_until: backoff.and_then(|it| it.until).map(Moment::nanos),
        last_attempt_failed: super::fleet::attempt(row),
    }
}

/// The evidence with this SHA-256.
pub(crate) fn evidence(reader: &Reader<'_>, sha256: &str) -> Result<Evidence, Error> {
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    let found = match is_digest {
        true => reader.ledger()?.evidence(&sha256.to_ascii_lowercase())?,
        false => None,
    };
    let bytes = found.ok_or_else(|| Error::missing("evidence", sha256))?;
    let document = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(Kind::Storage, format!("evidence {sha256}: {error}")))?;
    Ok(Evidence {
        sha256: sha256.to_ascii_lowercase(),
        document,
    })
}
