//! Recorded verdicts as CSV lines and as lines of the summary.

use super::{Line, csv};
use crate::{document::VerdictRow, ruleset::Ruleset};

pub(crate) fn csv(verdicts: &[VerdictRow]) -> String {
    csv::lines(
        ["rule", "severity", "verdict", "reason", "evidence"],
        verdicts.iter().map(|row| {
            [
                row.rule.clone(),
                row.severity.name().to_owned(),
                row.verdict.name().to_owned(),
                row.reason.clone(),
                row.evidence.clone(),
            ]
        }),
    )
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
                fix: rule
                    .map(|rule| rule.fix.summary.clone())
                    .unwrap_or_default(),
            }
        })
        .collect()
}
