//! OCSF compliance findings (class 2003), one event on one line for each change.

use std::io::Write;

use serde_json::{Value, json};

use super::{
    Error, Written,
    changes::{self, Span},
    csv::plain,
    identity::uuid,
    json::line,
    source::{Source, references},
    text::millis,
};
use crate::{
    judge::Outcome,
    ledger::{Change, ChangeKind},
    rule::{Rule, Severity},
};

const VERSION: &str = "1.5.0";
const CLASS: u32 = 2003;

pub(super) fn write(
    source: &mut Source<'_>,
    span: Span,
    out: &mut dyn Write,
) -> Result<Written, Error> {
    let mut written = Written::default();
    source.each_name(|source, host| {
        written.hosts += 1;
        changes::each(source, host, span, |change| {
            written.rows += 1;
            Ok(line(out, &event(source, host, change))?)
        })
    })?;
    Ok(written)
}

fn event(source: &Source<'_>, host: &str, change: &Change) -> Value {
    let rule = source.rule(&change.rule);
    let (activity, activity_name) = activity(change);
    let (status, status_name) = status(change.to);
    let (severity, severity_name) = severity(change.severity);
    let time = millis(change.occurred);
    let title = source.title(&change.rule);
    let mut event = json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS,
        "class_name": "Compliance Finding",
        "type_uid": CLASS * 100 + activity,
        "type_name": format!("Compliance Finding: {activity_name}"),
        "time": time,
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "status_detail": change.reason,
        "message": format!("{title}: {} ({})", change.to, change.reason),
        "metadata": {
            "version": VERSION,
            "uid": uuid("change", &[host, &change.rule, &change.scan_id]),
            "correlation_uid": change.scan_id,
            "product": {
                "name": "Holdfast",
                "vendor_name": "Holdfast",
                "version": env!("CARGO_PKG_VERSION"),
            },
        },
        "finding_info": {
            "uid": uuid("finding", &[host, &change.rule]),
            "title": title,
            "desc": rule.map_or(title, |rule| &rule.description),
            "types": [change.rule],
            "modified_time": time,
            "data_sources": [format!("sha256:{}", change.evidence)],
        },
        "compliance": compliance(rule, title, change),
        "resources": [{
            "uid": uuid("host", &[host]),
            "name": host,
            "type": "host",
        }],
        "unmapped": {
            "verdict": change.to,
            "verdict_before": change.from,
            "severity_before": change.severity_before,
            "kind": change.kind,
            "because": change.because.iter().map(plain).collect::<Vec<_>>(),
            "rule_digest": change.rule_digest,
            "evidence_sha256": change.evidence,
        },
    });
    if let Some(fix) = rule
        .map(|rule| &rule.fix.summary)
        .filter(|fix| !fix.is_empty())
    {
        event["remediation"] = json!({"desc": fix});
    }
    event
}

fn compliance(rule: Option<&Rule>, title: &str, change: &Change) -> Value {
    let (status, status_name) = outcome(change.to);
    let frameworks = rule.map(|rule| rule.references.keys().collect::<Vec<_>>());
    let requirements: Vec<String> = references(rule)
        .map(|(framework, control)| format!("{framework} {control}"))
        .collect();
    json!({
        "control": change.rule,
        "desc": title,
        "standards": frameworks.unwrap_or_default(),
        "requirements": requirements,
        "status_id": status,
        "status": status_name,
        "status_detail": change.reason,
    })
}

/// A finding is created when a rule is first judged on a host, closed when it passes or ceases to
/// apply, and updated by anything else, which opens it again.
const fn activity(change: &Change) -> (u32, &'static str) {
    match (change.kind, change.to) {
        (ChangeKind::FirstSeen, _) => (1, "Create"),
        (ChangeKind::StateChanged, Outcome::Pass | Outcome::NotApplicable) => (3, "Close"),
        _ => (2, "Update"),
    }
}

/// Of the finding: what passes or does not apply asks nobody for anything.
const fn status(verdict: Outcome) -> (u32, &'static str) {
    match verdict {
        Outcome::Pass | Outcome::NotApplicable => (4, "Resolved"),
        Outcome::Fail | Outcome::NotAssessed | Outcome::Error => (1, "New"),
    }
}

/// `Warning` is defined as a check that gave no result for want of information.
const fn outcome(verdict: Outcome) -> (u32, &'static str) {
    match verdict {
        Outcome::Pass => (1, "Pass"),
        Outcome::NotAssessed => (2, "Warning"),
        Outcome::Fail => (3, "Fail"),
        Outcome::Error => (99, "error"),
        Outcome::NotApplicable => (99, "not_applicable"),
    }
}

const fn severity(severity: Severity) -> (u32, &'static str) {
    match severity {
        Severity::Critical => (5, "Critical"),
        Severity::High => (4, "High"),
        Severity::Medium => (3, "Medium"),
        Severity::Low => (2, "Low"),
    }
}
