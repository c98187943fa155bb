//! Recorded verdicts as CSV lines and as lines of the summary.

use super::{Line, csv};
use crate::{
    document::{VerdictRow, WaiverRow},
    ruleset::Ruleset,
    waived,
};

pub(crate) fn csv(verdicts: &[VerdictRow]) -> String {
    csv::lines(
        [
            "rule",
            "severity",
            "verdict",
            "reason",
            "evidence",
            "waived_until",
            "waived_by",
        ],
        verdicts.iter().map(|row| {
            let waiver = row.waiver.as_ref();
            let of_waiver = |part: fn(&WaiverRow) -> &String| {
                waiver
                    .map(|waiver| part(waiver).clone())
                    .unwrap_or_default()
            };
            [
                row.rule.clone(),
                row.severity.name().to_owned(),
                row.verdict.name().to_owned(),
                row.reason.clone(),
                row.evidence.clone(),
                of_waiver(|waiver| &waiver.until),
                of_waiver(|waiver| &waiver.owner),
            ]
        }),
    )
}

/// The same with the host first, for results of several hosts under one header.
pub(crate) fn csv_of_host(host: &str, verdicts: &[VerdictRow], with_header: bool) -> String {
    let text = csv::lines(
        ["host", "rule", "severity", "verdict", "reason", "evidence"],
        verdicts.iter().map(|row| {
            [
                host.to_owned(),
                row.rule.clone(),
                row.severity.name().to_owned(),
                row.verdict.name().to_owned(),
                row.reason.clone(),
                row.evidence.clone(),
            ]
        }),
    );
    match text.split_once('\n') {
        Some((_, rows)) if !with_header => rows.to_owned(),
        _ => text,
    }
}

/// With title and fix of each rule; one that is not among `rules` stands under its id.
pub(crate) fn lines(verdicts: &[VerdictRow], rules: &Ruleset) -> Vec<Line> {
    verdicts
        .iter()
        .map(|row| {
            let rule = rules.get(&row.rule);
            Line {
                rule: row.rule.clone(),
                title: rule.map_or_else(|| row.rule.clone(), |rule| rule.title.clone()),
                severity: row.severity,
                verdict: row.verdict,
                reason: row.reason.clone(),
                waived: row.waiver.as_ref().map(waived::words),
                fix: rule
                    .map(|rule| rule.fix.summary.clone())
                    .unwrap_or_default(),
            }
        })
        .collect()
}
