//! The hash chain of a host: each change and each scan names everything before it (LED-10).
//!
//! What is hashed, byte for byte, is written in docs/format/ledger-chain.md, so that an auditor makes
//! the same digests with `jq` and `sha256sum`. A link takes in the link before it, so that nothing can
//! be left out, put in, exchanged or edited below a head that is known from elsewhere, by a signature over
//! it for example. A scan without changes is a link too: that a host was looked at and
//! nothing had changed is a claim like any other. The chain alone stops nobody who rewrites all of it;
//! the signature does.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use store::{Keys, Snapshot, Store, Transaction};

use super::{
    Error, Finding, Scan,
    cause::Cause,
    decode, encode,
    row::{self, Change, ChangeKind, Host, ScanRow, Tables},
};
use crate::{
    judge::{Outcome, hex},
    rule::{Severity, Variables, canonical_json},
    utc::Utc,
};

/// First line of each hashed text: a digest made for one of these is good for no other.
const BEGIN: &str = "holdfast.ledger.begin/1";
const CHANGE: &str = "holdfast.ledger.change/1";
const EARLIER: &str = "holdfast.ledger.earlier/1";
const SCAN: &str = "holdfast.ledger.scan/1";
const VERDICTS: &str = "holdfast.ledger.verdicts/1";

/// Where the chain of a host stands, in the host's own row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last scan in it; scans of a host are numbered from 1.
    pub scans: u64,
    /// The last change in it; changes of a host are numbered from 1.
    pub changes: u64,
    /// The last link, hexadecimal.
    pub sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
}

/// What a host had on record before its chain began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    pub changes: u64,
    pub scans: u64,
    /// Over its change rows.
    pub sha256: String,
}

/// The beginning of a chain. Fields of all hashed rows are in the order of the canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    pub earlier: Option<Earlier>,
    pub host: String,
}

/// A change row as it is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkedChange {
    pub because: Vec<Cause>,
    pub evidence: String,
    pub from: Option<Outcome>,
    pub host: String,
    pub kind: ChangeKind,
    /// 0 in rows from before the chain.
    pub number: u64,
    pub occurred: Utc,
    pub reason: String,
    pub rule: String,
    pub rule_digest: String,
    pub scan_id: String,
    pub severity: Severity,
    pub severity_before: Option<Severity>,
    pub to: Outcome,
}

/// A scan row as it is hashed. The score is left out: it follows from the counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkedScan {
    /// Links of changes directly before this one.
    pub changes: u64,
    pub error: u64,
    pub fail: u64,
    pub finished: Utc,
    pub host: String,
    pub not_applicable: u64,
    pub not_assessed: u64,
    pub number: u64,
    pub pass: u64,
    pub scan_id: String,
    pub started: Utc,
    /// Over every verdict of the scan, changed or not.
    pub verdicts: String,
}

/// A verdict as it is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkedVerdict {
    pub evidence: String,
    pub reason: String,
    pub rule: String,
    pub rule_definition: String,
    pub rule_digest: String,
    pub severity: Severity,
    pub variables: Variables,
    pub verdict: Outcome,
}

/// The scan with this number of a host: which it was, and the rules of its changes in the order of
/// their links. Change rows lie by rule; this finds them by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkRow {
    pub(crate) scan_id: String,
    pub(crate) rules: Vec<String>,
}

impl Begin {
    /// The link before the first one.
    pub fn link(&self) -> String {
        digest_of([BEGIN, &text(self)])
    }
}

impl LinkedChange {
    pub(crate) fn of(host: &str, change: &Change) -> Self {
        Self {
            because: change.because.clone(),
            evidence: change.evidence.clone(),
            from: change.from,
            host: host.to_owned(),
            kind: change.kind,
            number: change.number,
            occurred: Utc::from_nanos(change.occurred),
            reason: change.reason.clone(),
            rule: change.rule.clone(),
            rule_digest: change.rule_digest.clone(),
            scan_id: change.scan_id.clone(),
            severity: change.severity,
            severity_before: change.severity_before,
            to: change.to,
        }
    }

    pub fn link(&self, previous: &str) -> String {
        digest_of([CHANGE, previous, &text(self)])
    }
}

impl LinkedScan {
    pub(crate) fn of(row: &ScanRow) -> Self {
        Self {
            changes: row.changes,
            error: row.summary.error,
            fail: row.summary.fail,
            finished: Utc::from_nanos(row.finished),
            host: row.host.clone(),
            not_applicable: row.summary.not_applicable,
            not_assessed: row.summary.not_assessed,
            number: row.number,
            pass: row.summary.pass,
            scan_id: row.scan_id.clone(),
            started: Utc::from_nanos(row.started),
            verdicts: row.verdicts.clone(),
        }
    }

    pub fn link(&self, previous: &str) -> String {
        digest_of([SCAN, previous, &text(self)])
    }
}

impl LinkedVerdict {
    fn of_finding(finding: &Finding) -> Self {
        Self {
            evidence: finding.evidence_digest.clone(),
            reason: finding.reason.clone(),
            rule: finding.rule.clone(),
            rule_definition: finding.rule_definition.clone(),
            rule_digest: finding.rule_digest.clone(),
            severity: finding.severity,
            variables: finding.variables.clone(),
            verdict: finding.verdict,
        }
    }

    pub(crate) fn of_state(state: &row::State) -> Self {
        Self {
            evidence: state.evidence.clone(),
            reason: state.reason.clone(),
            rule: state.rule.clone(),
            rule_definition: state.definition().to_owned(),
            rule_digest: state.rule_digest.clone(),
            severity: state.severity,
            variables: state.variables.clone(),
            verdict: state.verdict,
        }
    }

    /// Values of variables are the site's own JSON, in whatever order of keys it came.
    pub(crate) fn text(&self) -> String {
        if self.variables.is_empty() {
            return text(self);
        }
        let value = serde_json::to_value(self).expect("rows are plain structs with string keys");
        String::from_utf8(canonical_json(&value)).expect("JSON is UTF-8")
    }
}

/// A digest over lines that are given one after the other.
#[derive(Debug)]
pub(crate) struct Lines(Sha256);

impl Lines {
    fn begun(domain: &str) -> Self {
        let mut lines = Self(Sha256::new());
        lines.line(domain);
        lines
    }

    /// Over all verdicts of a scan, to be given in the order of their rules.
    pub(crate) fn verdicts() -> Self {
        Self::begun(VERDICTS)
    }

    /// Over the change rows from before a chain, to be given by rule and then by age.
    pub(crate) fn earlier() -> Self {
        Self::begun(EARLIER)
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.0.update(line);
        self.0.update("\n");
    }

    pub(crate) fn end(self) -> String {
        hex(&self.0.finalize())
    }
}

fn digest_of<const N: usize>(lines: [&str; N]) -> String {
    let mut digest = Lines(Sha256::new());
    for line in lines {
        digest.line(line);
    }
    digest.end()
}

/// A row in the canonical form: its fields are declared in the order of their names.
pub(crate) fn text<T: Serialize>(row: &T) -> String {
    serde_json::to_string(row).expect("rows are plain structs with string keys")
}

/// Puts one scan at the end of its host's chain: numbers and links its changes and the scan, and moves
/// the head. `host.scans` counts this scan already; everything else of the host is as it was before.
/// `row` has everything but its number and its link.
pub(super) fn extend(
    store: &Store,
    transaction: &mut Transaction,
    tables: &Tables,
    (host, changes, row): (&mut Host, &mut [Change], &mut ScanRow),
) -> Result<(), Error> {
    let mut head = match host.chain.take() {
        Some(head) => head,
        None => begin(store, tables, host)?,
    };
    for change in &mut *changes {
        head.changes += 1;
        change.number = head.changes;
        change.chain = LinkedChange::of(&host.name, change).link(&head.sha256);
        head.sha256.clone_from(&change.chain);
    }
    head.scans = host.scans;
    row.number = head.scans;
    row.chain = LinkedScan::of(row).link(&head.sha256);
    head.sha256.clone_from(&row.chain);
    let link = LinkRow {
        scan_id: row.scan_id.clone(),
        rules: changes.iter().map(|change| change.rule.clone()).collect(),
    };
    let key = row::link_key(&host.name, head.scans);
    transaction.put(tables.links, &key, &encode(&link))?;
    host.chain = Some(head);
    Ok(())
}

/// What [`ScanRow::verdicts`] is.
pub(super) fn verdicts(scan: &Scan) -> String {
    let mut findings: Vec<&Finding> = scan.findings.iter().collect();
    findings.sort_unstable_by_key(|finding| finding.rule.as_str());
    let mut lines = Lines::verdicts();
    for finding in findings {
        lines.line(&LinkedVerdict::of_finding(finding).text());
    }
    lines.end()
}

/// The head before the first link. What a host has from before there was a chain goes into it, so that
/// it cannot be changed from here on. Read outside the transaction: whoever adds to it writes the
/// host's row, which the transaction has read.
fn begin(store: &Store, tables: &Tables, host: &Host) -> Result<Head, Error> {
    let scans = host.scans.saturating_sub(1);
    let earlier = if scans == 0 {
        None
    } else {
        Some(earlier(&store.snapshot()?, tables, &host.name, scans)?)
    };
    let begin = Begin {
        earlier,
        host: host.name.clone(),
    };
    Ok(Head {
        scans,
        changes: begin.earlier.as_ref().map_or(0, |earlier| earlier.changes),
        sha256: begin.link(),
        earlier: begin.earlier,
    })
}

fn earlier(snapshot: &Snapshot, tables: &Tables, host: &str, scans: u64) -> Result<Earlier, Error> {
    let (mut lines, mut changes) = (Lines::earlier(), 0);
    for change in earlier_changes(snapshot, tables, host)? {
        lines.line(&text(&LinkedChange::of(host, &change?)));
        changes += 1;
    }
    Ok(Earlier {
        changes,
        scans,
        sha256: lines.end(),
    })
}

/// Change rows of a host that no chain numbers, by rule and then by age.
pub(crate) fn earlier_changes(
    snapshot: &Snapshot,
    tables: &Tables,
    host: &str,
) -> Result<impl Iterator<Item = Result<Change, Error>>, Error> {
    let keys: Keys = row::below(&[host.as_bytes()]);
    let rows = snapshot.range(tables.changes, &keys)?;
    Ok(rows
        .map(|item| decode::<Change>(&item?.1))
        .filter(|change| change.as_ref().map_or(true, |change| change.number == 0)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Whoever recomputes a link has the canonical form of a row and not its declaration.
    #[test]
    fn rows_are_hashed_in_the_canonical_form() {
        fn check<T: Serialize>(row: &T) {
            let value = serde_json::to_value(row).unwrap();
            assert_eq!(text(row).as_bytes(), canonical_json(&value));
        }
        let earlier = Earlier {
            changes: 2,
            scans: 3,
            sha256: "0".repeat(64),
        };
        check(&Begin {
            earlier: Some(earlier),
            host: "hé\"\u{1}".to_owned(),
        });
        check(&LinkedChange {
            because: vec![Cause::Host, Cause::Rule],
            evidence: String::new(),
            from: None,
            host: "h".to_owned(),
            kind: ChangeKind::FirstSeen,
            number: 1,
            occurred: Utc::from_nanos(1),
            reason: "line\nbreak".to_owned(),
            rule: "r".to_owned(),
            rule_digest: String::new(),
            scan_id: String::new(),
            severity: Severity::High,
            severity_before: Some(Severity::Low),
            to: Outcome::Fail,
        });
        check(&LinkedScan {
            changes: 1,
            error: 0,
            fail: 0,
            finished: Utc::default(),
            host: "h".to_owned(),
            not_applicable: 0,
            not_assessed: 0,
            number: 1,
            pass: 0,
            scan_id: String::new(),
            started: Utc::default(),
            verdicts: String::new(),
        });
        check(&LinkedVerdict {
            evidence: String::new(),
            reason: String::new(),
            rule: "r".to_owned(),
            rule_definition: String::new(),
            rule_digest: String::new(),
            severity: Severity::Critical,
            variables: Variables::new(),
            verdict: Outcome::Error,
        });
    }

    /// What the links of a small history are, as docs/format/ledger-chain.md has them.
    #[test]
    fn the_example_of_the_document_is_what_is_computed() {
        let document = include_str!("../../../../docs/format/ledger-chain.md");
        let begin = Begin {
            earlier: None,
            host: "web-1".to_owned(),
        };
        assert!(document.contains(&begin.link()), "{}", begin.link());
        let names: BTreeSet<&str> = [BEGIN, CHANGE, EARLIER, SCAN, VERDICTS].into();
        assert_eq!(names.len(), 5);
        for name in names {
            assert!(document.contains(name), "{name}");
        }
    }
}
