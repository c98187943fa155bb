//! The JSON documents that commands print, described by docs/schema/.

use scan::{
    judge::{Outcome, Summary},
    ledger::{Cause, Change, Difference, State, Status},
    rule::Severity,
};
use serde::Serialize;
use world::Timestamp;

use crate::{command::FailedAttempt, moment::rfc3339};

/// `scan` and, without `changes`, `status`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scan_id: String,
    pub(crate) host: String,
    pub(crate) started: String,
    pub(crate) finished: String,
    /// What the verdicts are, waived or not; the exit code goes by it.
    pub(crate) summary: Summary,
    /// The same with the failures left out that are waived; absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) with_waivers: Option<WithWaivers>,
    pub(crate) verdicts: Vec<VerdictRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) changes: Option<Vec<ChangeRow>>,
    /// Of `status`: the verdicts are older than they should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_attempt_failed: Option<FailedAttempt>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VerdictRow {
    pub(crate) rule: String,
    pub(crate) severity: Severity,
    pub(crate) verdict: Outcome,
    pub(crate) reason: String,
    /// SHA-256 of the evidence, hexadecimal.
    pub(crate) evidence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiver: Option<WaiverRow>,
}

/// Who answers for a failure, and until when.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WaiverRow {
    pub(crate) id: u32,
    pub(crate) until: String,
    pub(crate) owner: String,
    pub(crate) approved_by: String,
    pub(crate) reason: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct WithWaivers {
    pub(crate) waived: u64,
    pub(crate) score: Option<f64>,
}

/// `from` is null when the rule was not judged before, `to` when it is no longer judged.
#[derive(Debug, Serialize)]
pub(crate) struct ChangeRow {
    pub(crate) rule: String,
    pub(crate) from: Option<Outcome>,
    pub(crate) to: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) severity_from: Option<Severity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) severity_to: Option<Severity>,
    /// What changed, when it was not the host alone: `host`, `rule`, `variables`.
    #[serde(skip_serializing_if = "is_host_alone")]
    pub(crate) because: Vec<Cause>,
}

/// Most changes are the host's; saying so of each would hide the others.
#[allow(clippy::ptr_arg, reason = "serde gives a reference to the field")]
fn is_host_alone(because: &Vec<Cause>) -> bool {
    matches!(because.as_slice(), [] | [Cause::Host])
}

/// `diff`.
#[derive(Debug, Serialize)]
pub(crate) struct Differences {
    pub(crate) changes: Vec<ChangeRow>,
}

/// `diff` of several hosts: of each that is asked for, also where nothing differs.
#[derive(Debug, Serialize)]
pub(crate) struct DifferencesOfHosts {
    pub(crate) hosts: Vec<HostDifferences>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HostDifferences {
    pub(crate) host: String,
    pub(crate) changes: Vec<ChangeRow>,
}

/// `history`.
#[derive(Debug, Serialize)]
pub(crate) struct History {
    pub(crate) host: String,
    pub(crate) rule: String,
    pub(crate) changes: Vec<HistoryRow>,
    /// What other tools said of the same subject; absent where nothing is imported.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) imported: Vec<ImportedRow>,
}

/// The word of another tool on a rule of its own, which looks at what ours looks at.
#[derive(Debug, Serialize)]
pub(crate) struct ImportedRow {
    pub(crate) time: String,
    /// Id of the tool's rule.
    pub(crate) rule: String,
    pub(crate) result: scan::import::Word,
    pub(crate) verdict: Option<Outcome>,
    pub(crate) tool: String,
    /// Id of the imported result.
    pub(crate) import: String,
}

/// `history` of several hosts: of each that has one.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryOfHosts {
    pub(crate) hosts: Vec<History>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HistoryRow {
    pub(crate) time: String,
    pub(crate) kind: scan::ledger::ChangeKind,
    pub(crate) from: Option<Outcome>,
    pub(crate) to: Outcome,
    pub(crate) severity: Severity,
    pub(crate) reason: String,
    pub(crate) evidence: String,
    /// What changed: `host`, `rule`, `variables`; nothing for the first scan of the host.
    pub(crate) because: Vec<Cause>,
    pub(crate) scan_id: String,
}

impl Report {
    pub(crate) fn of_status(status: &Status) -> Self {
        Self {
            scan_id: status.scan.scan_id.clone(),
            host: status.host.name.clone(),
            started: rfc3339(Timestamp::from_nanos(status.scan.started)),
            finished: rfc3339(Timestamp::from_nanos(status.scan.finished)),
            summary: status.scan.summary.clone(),
            with_waivers: None,
            verdicts: status.states.iter().map(VerdictRow::of_state).collect(),
            changes: None,
            last_attempt_failed: None,
        }
    }
}

impl VerdictRow {
    pub(crate) fn of_state(state: &State) -> Self {
        Self {
            rule: state.rule.clone(),
            severity: state.severity,
            verdict: state.verdict,
            reason: state.reason.clone(),
            evidence: state.evidence.clone(),
            waiver: None,
        }
    }
}

impl ChangeRow {
    pub(crate) fn of_change(change: &Change) -> Self {
        let severity_changed = change
            .severity_before
            .is_some_and(|before| before != change.severity);
        Self {
            rule: change.rule.clone(),
            from: change.from,
            to: Some(change.to),
            severity_from: change.severity_before.filter(|_| severity_changed),
            severity_to: severity_changed.then_some(change.severity),
            because: change.because.clone(),
        }
    }

    pub(crate) fn of_difference(difference: &Difference) -> Self {
        let severity = |side: Option<(Outcome, Severity)>| side.map(|(_, severity)| severity);
        let outcome = |side: Option<(Outcome, Severity)>| side.map(|(outcome, _)| outcome);
        let (from, to) = (severity(difference.from), severity(difference.to));
        let severity_changed = from.is_some() && to.is_some() && from != to;
        Self {
            rule: difference.rule.clone(),
            from: outcome(difference.from),
            to: outcome(difference.to),
            severity_from: from.filter(|_| severity_changed),
            severity_to: to.filter(|_| severity_changed),
            because: difference.because.clone(),
        }
    }
}

impl HistoryRow {
    pub(crate) fn of_change(change: &Change) -> Self {
        Self {
            time: rfc3339(Timestamp::from_nanos(change.occurred)),
            kind: change.kind,
            from: change.from,
            to: change.to,
            severity: change.severity,
            reason: change.reason.clone(),
            evidence: change.evidence.clone(),
            because: change.because.clone(),
            scan_id: change.scan_id.clone(),
        }
    }
}
