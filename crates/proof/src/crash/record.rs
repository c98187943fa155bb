//! What a host's scans recorded, and what the answers about it must be.
//!
//! A scan is acknowledged when its whole JSON document was received. One that was killed before may
//! be there or not, wholly either way; which of the two the next answer tells, and every later
//! answer must agree. Nothing here starts a process.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::breach::Breach;

/// The document that `scan` and `status` print. `status` has no changes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Report {
    pub(crate) scan_id: String,
    pub(crate) host: String,
    pub(crate) started: String,
    pub(crate) finished: String,
    pub(crate) summary: Value,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) changes: Option<Vec<Change>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) rule: String,
    pub(crate) severity: String,
    pub(crate) verdict: String,
    pub(crate) reason: String,
    pub(crate) evidence: String,
}

/// A line of `changes`; severities do not change within a run of one binary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Change {
    pub(crate) rule: String,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
}

/// A line of `history`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Flip {
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) evidence: String,
    pub(crate) scan_id: String,
}

/// A scan whose record is known to be there.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Without changes.
    pub(crate) report: Arc<Report>,
    /// A moment at which it was the latest, as `status --at` reads it.
    pub(crate) at: String,
}

/// What a scan that was started would leave.
#[derive(Clone, Debug)]
pub(crate) enum Attempt {
    /// It told so itself.
    Acknowledged(Arc<Report>),
    /// It was killed before; facts and rules decide what it would have recorded.
    Untold(Arc<Report>),
    /// It was killed before, and looked at a machine that changes: what it saw is not known.
    Unseen,
}

/// Whether an attempt is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    Wholly,
    NotAtAll,
}

/// All known scans of one host, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    scans: Vec<Known>,
}

impl Report {
    /// The document in what a scan printed; `None` when it is not there as a whole.
    pub(crate) fn in_output(stdout: &[u8]) -> Option<Self> {
        // `up` goes on after its first document; a later one is not waited for.
        let mut documents = serde_json::Deserializer::from_slice(stdout).into_iter::<Self>();
        documents.next()?.ok()
    }

    fn without_changes(&self) -> Self {
        Self {
            changes: None,
            ..self.clone()
        }
    }

    fn verdict(&self, rule: &str) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.rule == rule)
    }

    /// Says which scan it is and how it judged, in few words.
    fn words(&self) -> String {
        let score = self.summary.get("score").map(Value::to_string);
        format!(
            "scan {} of {}, {} verdicts, score {}",
            self.scan_id,
            self.host,
            self.verdicts.len(),
            score.as_deref().unwrap_or("absent")
        )
    }

    /// The first difference from another report, in words; ids and times aside.
    fn differs_from(&self, other: &Self) -> Option<String> {
        for verdict in &self.verdicts {
            if other.verdict(&verdict.rule) != Some(verdict) {
                let there = other.verdict(&verdict.rule);
                return Some(format!("{verdict:?} against {there:?}"));
            }
        }
        if self.verdicts.len() != other.verdicts.len() {
            let (here, there) = (self.verdicts.len(), other.verdicts.len());
            return Some(format!("{here} verdicts against {there}"));
        }
        let same = (&self.host, &self.summary) == (&other.host, &other.summary);
        (!same).then(|| format!("{} against {}", self.summary, other.summary))
    }

    /// Counts of the summary are those of the verdicts: a report put together of two scans is seen
    /// where nothing else is known of either.
    fn is_of_one_piece(&self) -> bool {
        ["pass", "fail", "not_applicable", "not_assessed", "error"]
            .iter()
            .all(|kind| {
                let count = self
                    .verdicts
                    .iter()
                    .filter(|it| it.verdict == *kind)
                    .count();
                self.summary.get(kind).and_then(Value::as_u64) == Some(count as u64)
            })
    }
}

impl Record {
    pub(crate) fn scans(&self) -> &[Known] {
        &self.scans
    }

    pub(crate) fn latest(&self) -> Option<&Known> {
        self.scans.last()
    }

    /// Takes in an attempt after the first answer of `status` since it, `None` for a host without a
    /// record. `at` is a moment after that answer and before the next attempt.
    pub(crate) fn settle(
        &mut self,
        attempt: &Attempt,
        status: Option<Report>,
        at: String,
    ) -> Result<Landed, Breach> {
        let before = self.latest().map(|known| known.report.as_ref());
        let landed = landed(before, attempt, status.as_ref())?;
        if let (Landed::Wholly, Some(status)) = (landed, status) {
            if self
                .scans
                .iter()
                .any(|it| it.report.scan_id == status.scan_id)
            {
                let promise = "a scan that was superseded does not come back";
                return Err(Breach::new(promise, words(before), status.words()));
            }
            let report = Arc::new(status);
            self.scans.push(Known { report, at });
        }
        Ok(landed)
    }

    /// Compares the answer of `status`, at the moment of a known scan or for the latest one now.
    pub(crate) fn compare(known: Option<&Known>, status: Option<&Report>) -> Result<(), Breach> {
        let expected = known.map(|known| known.report.as_ref());
        if status == expected {
            return Ok(());
        }
        let at = known.map_or("before the first scan", |known| &known.at);
        let difference = match (expected, status) {
            (Some(expected), Some(status)) => expected.differs_from(status),
            _ => None,
        };
        Err(Breach::new(
            format!("`status` for the moment {at} gives what was there then"),
            words(expected),
            format!("{} {}", words(status), difference.unwrap_or_default()),
        ))
    }

    /// One row for the first verdict of a rule and one for each flip.
    pub(crate) fn flips(&self, rule: &str) -> Vec<Flip> {
        let mut flips: Vec<Flip> = Vec::new();
        for known in &self.scans {
            let Some(verdict) = known.report.verdict(rule) else {
                continue;
            };
            let from = flips.last().map(|flip| flip.to.clone());
            if from.as_ref() != Some(&verdict.verdict) {
                flips.push(Flip {
                    from,
                    to: verdict.verdict.clone(),
                    evidence: verdict.evidence.clone(),
                    scan_id: known.report.scan_id.clone(),
                });
            }
        }
        flips
    }

    pub(crate) fn compare_history(&self, rule: &str, rows: &[Flip]) -> Result<(), Breach> {
        let expected = self.flips(rule);
        if rows == expected {
            return Ok(());
        }
        let promise = format!("`history {rule}` has one row for each flip");
        let text = |rows: &[Flip]| format!("{} rows: {rows:?}", rows.len());
        Err(Breach::new(promise, text(&expected), text(rows)))
    }

    /// Compares what an acknowledged scan says has changed with what was there before it.
    pub(crate) fn compare_changes(&self, told: &Report) -> Result<(), Breach> {
        let before = self.latest().map(|known| known.report.as_ref());
        let was = |rule: &str| Some(before?.verdict(rule)?.verdict.clone());
        let mut expected: Vec<Change> = told
            .verdicts
            .iter()
            .map(|now| Change {
                rule: now.rule.clone(),
                from: was(&now.rule),
                to: Some(now.verdict.clone()),
            })
            .filter(|change| change.from != change.to)
            .collect();
        let mut found = told.changes.clone().unwrap_or_default();
        expected.sort();
        found.sort();
        if found == expected {
            return Ok(());
        }
        let promise = format!("scan {} tells what changed since the last", told.scan_id);
        let text = |changes: &[Change]| format!("{} changes: {changes:?}", changes.len());
        Err(Breach::new(promise, text(&expected), text(&found)))
    }
}

/// All or nothing, and all if it was acknowledged.
fn landed(
    before: Option<&Report>,
    attempt: &Attempt,
    status: Option<&Report>,
) -> Result<Landed, Breach> {
    if let Attempt::Acknowledged(told) = attempt {
        let told = told.without_changes();
        if status == Some(&told) {
            return Ok(Landed::Wholly);
        }
        let difference = status.and_then(|status| told.differs_from(status));
        return Err(Breach::new(
            "an acknowledged scan is there",
            told.words(),
            format!("{} {}", words(status), difference.unwrap_or_default()),
        ));
    }
    if status == before {
        return Ok(Landed::NotAtAll);
    }
    let promise = "a scan that was not acknowledged is there wholly or not at all";
    let Some(status) = status else {
        return Err(Breach::new(promise, words(before), words(None)));
    };
    let torn = match attempt {
        Attempt::Untold(expected) => expected.differs_from(status),
        _ if status.is_of_one_piece() => None,
        _ => Some("counts that are not those of its verdicts".to_owned()),
    };
    // With the id of the scan before, it is that one with other verdicts.
    let same_scan = before.is_some_and(|before| before.scan_id == status.scan_id);
    if torn.is_none() && !same_scan {
        return Ok(Landed::Wholly);
    }
    let difference = torn.unwrap_or_else(|| "under the id of the scan before".to_owned());
    Err(Breach::new(
        promise,
        words(before),
        format!("{}: {difference}", status.words()),
    ))
}

fn words(report: Option<&Report>) -> String {
    report.map_or_else(|| "no scan".to_owned(), Report::words)
}

#[cfg(test)]
mod tests;
