//! One scan into the ledger, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use store::{Store, Transaction};
use uuid::Uuid;
use world::Timestamp;

use super::{
    Class, Error, ROWS_MAX,
    cause::{Cause, causes, facts_differ},
    chain, decode, encode, get_host, recent,
    row::{self, Change, ChangeKind, Checks, Host, ScanRow, State, Tables},
    rows_read,
};
use crate::{
    judge::{EVIDENCE_BYTES_MAX, Outcome, Summary, Verdict},
    rule::{Rule, Severity, Variables},
};

/// Attempts before a conflicting apply is given back to the caller. Two applies for one host are
/// serialized by the host row, so a second attempt nearly always goes through.
pub(super) const ATTEMPTS_MAX: u32 = 8;

/// Longest host name and rule id in bytes: DNS's limit, and far beyond any sensible id.
const NAME_LEN_MAX: usize = 255;

/// Evidence is small and repetitive; higher levels gain less than 3 % on it and cost five times more.
const COMPRESSION_LEVEL: i32 = 1;

/// The result of one scan of one host, ready to be recorded.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Made by this program, never by the scanned host; the key of idempotence.
    pub id: Uuid,
    pub host: String,
    pub started: Timestamp,
    pub finished: Timestamp,
    pub summary: Summary,
    pub findings: Vec<Finding>,
}

/// The verdict of one rule.
#[derive(Clone, Debug)]
pub struct Finding {
    pub rule: String,
    pub severity: Severity,
    pub verdict: Outcome,
    pub reason: String,
    /// SHA-256 of the rule as judged, hexadecimal.
    pub rule_digest: String,
    /// SHA-256 of the rule as written, hexadecimal; see [`State::rule_definition`].
    pub rule_definition: String,
    /// Values that the site gave to its variables.
    pub variables: Variables,
    /// Canonical JSON, valid against docs/schema/evidence.json.
    pub evidence: Vec<u8>,
    /// SHA-256 of `evidence`, hexadecimal.
    pub evidence_digest: String,
}

impl Finding {
    /// What `rule` said.
    pub fn of(rule: &Rule, verdict: &Verdict) -> Self {
        Self {
            rule: verdict.rule.clone(),
            severity: verdict.severity,
            verdict: verdict.verdict,
            reason: verdict.reason.clone(),
            rule_digest: rule.digest.clone(),
            rule_definition: rule.definition.clone(),
            variables: rule.site_values.clone(),
            evidence: verdict.evidence.bytes().to_vec(),
            evidence_digest: verdict.evidence.digest().to_owned(),
        }
    }
}

/// What an apply did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The scan id was there already; nothing was written now.
    pub replayed: bool,
    /// Time at which the previous scan of this host finished.
    pub previous: Option<Timestamp>,
    pub changes: Vec<Change>,
}

pub(super) fn apply(store: &Store, tables: &Tables, scan: &Scan) -> Result<Applied, Error> {
    check(scan)?;
    retried(|| {
        let mut transaction = store.begin()?;
        let applied = apply_in(store, &mut transaction, tables, scan)?;
        // Found by the time that is shown: `status --at` with this scan's own time is this scan.
        transaction.commit_dated(scan.finished)?;
        Ok(applied)
    })
}

/// Tries again after a conflict, [`ATTEMPTS_MAX`] times in all.
pub(super) fn retried<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut attempts = 1;
    loop {
        match attempt() {
            Err(error) if error.class() == Class::Conflict && attempts < ATTEMPTS_MAX => {
                attempts += 1;
            }
            settled => return settled,
        }
    }
}

/// Refuses the whole batch before anything is written, naming the rule (LED-4).
pub(super) fn check(scan: &Scan) -> Result<(), Error> {
    check_name(&scan.host)?;
    if scan.findings.len() > ROWS_MAX {
        let message = format!(
            "the scan has {} findings, more than {ROWS_MAX}",
            scan.findings.len()
        );
        return Err(Error::new(Class::Constraint, message));
    }
    let mut seen = BTreeSet::new();
    for finding in &scan.findings {
        let refuse = |class, message: String| Error::new(class, message).with_rule(&finding.rule);
        if check_name(&finding.rule).is_err() {
            return Err(refuse(Class::Constraint, "a rule id is not usable".into()));
        }
        if !seen.insert(finding.rule.as_str()) {
            return Err(refuse(
                Class::Constraint,
                "the scan has the rule twice".into(),
            ));
        }
        if finding.evidence.len() > EVIDENCE_BYTES_MAX {
            let message = format!(
                "evidence has {} bytes, more than {EVIDENCE_BYTES_MAX}",
                finding.evidence.len()
            );
            return Err(refuse(Class::EvidenceOversize, message));
        }
        crate::judge::validate_evidence(&finding.evidence, &finding.rule)
            .map_err(|error| refuse(Class::EvidenceInvalid, error.to_string()))?;
        if crate::judge::digest(&finding.evidence) != finding.evidence_digest {
            let message = "evidence does not have the SHA-256 that it is filed under".to_owned();
            return Err(refuse(Class::EvidenceInvalid, message));
        }
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
        let message = format!(
            "`{}` is no name: 1 to {NAME_LEN_MAX} bytes without control characters",
            name.escape_debug()
        );
        return Err(Error::new(Class::Constraint, message));
    }
    Ok(())
}

pub(super) fn new_host(name: &str, at: Timestamp) -> Host {
    Host {
        name: name.to_owned(),
        registered: at.nanos(),
        retired: None,
        scans: 0,
        last_scan: None,
        last_finished: None,
        chain: None,
    }
}

/// Of a scan that passed [`check`]. Writes nothing when its id was applied before.
pub(super) fn apply_in(
    store: &Store,
    transaction: &mut Transaction,
    tables: &Tables,
    scan: &Scan,
) -> Result<Applied, Error> {
    let scan_id = scan.id.to_string();
    let mut host = get_host(transaction, tables, &scan.host)?
        .unwrap_or_else(|| new_host(&scan.host, scan.started));
    let previous = host.last_finished.map(Timestamp::from_nanos);
    if transaction.get(tables.scans, scan_id.as_bytes())?.is_some() {
        return Ok(Applied {
            replayed: true,
            previous,
            changes: Vec::new(),
        });
    }
    if host.retired.is_some() {
        let message = format!("host `{}` is retired and takes no more scans", scan.host);
        return Err(Error::new(Class::Constraint, message));
    }

    let prior = states(transaction, tables, &scan.host)?;
    let mut changes = write_states(transaction, tables, scan, &prior)?;
    write_checks(transaction, tables, scan)?;
    write_evidence(store, transaction, tables, scan, &prior)?;
    host.scans += 1;
    let mut scan_row = ScanRow {
        scan_id: scan_id.clone(),
        host: scan.host.clone(),
        started: scan.started.nanos(),
        finished: scan.finished.nanos(),
        summary: scan.summary.clone(),
        changes: changes.len() as u64,
        number: 0,
        verdicts: String::new(),
        chain: String::new(),
    };
    let rows = (&mut host, changes.as_mut_slice(), &mut scan_row);
    chain::extend(store, transaction, tables, scan, rows)?;
    for change in &changes {
        let key = row::change_key(&scan.host, &change.rule, host.scans);
        transaction.put(tables.changes, &key, &encode(change))?;
    }
    recent::leave(
        transaction,
        tables,
        scan,
        host.scans,
        &changes,
        gone(scan, &prior),
    )?;
    host.last_scan = Some(scan_id.clone());
    host.last_finished = Some(scan.finished.nanos());
    transaction.put(tables.hosts, scan.host.as_bytes(), &encode(&host))?;
    transaction.put(tables.scans, scan_id.as_bytes(), &encode(&scan_row))?;
    Ok(Applied {
        replayed: false,
        previous,
        changes,
    })
}

fn states(
    transaction: &mut Transaction,
    tables: &Tables,
    host: &str,
) -> Result<BTreeMap<String, State>, Error> {
    rows_read(transaction, tables.states, &row::below(&[host.as_bytes()]))?
        .iter()
        .map(|(_, value)| decode::<State>(value).map(|state| (state.rule.clone(), state)))
        .collect()
}

/// Writes the state rows that differ and removes those of rules that left the pack; gives the
/// change rows to be written.
fn write_states(
    transaction: &mut Transaction,
    tables: &Tables,
    scan: &Scan,
    prior: &BTreeMap<String, State>,
) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for finding in &scan.findings {
        let before = prior.get(&finding.rule);
        let kind = kind_of_change(finding, before);
        let state = State {
            rule: finding.rule.clone(),
            severity: finding.severity,
            verdict: finding.verdict,
            reason: finding.reason.clone(),
            evidence: finding.evidence_digest.clone(),
            rule_digest: finding.rule_digest.clone(),
            rule_definition: finding.rule_definition.clone(),
            variables: finding.variables.clone(),
            first_seen: before.map_or(scan.finished.nanos(), |before| before.first_seen),
            changed: match before {
                Some(before) if kind.is_none() => before.changed,
                _ => scan.finished.nanos(),
            },
        };
        if let Some(kind) = kind {
            let because = match before {
                None if prior.is_empty() => Vec::new(),
                None => vec![Cause::Rule],
                Some(before) => {
                    let evidence = evidence_before(transaction, tables, before)?;
                    causes(before, &state, || {
                        facts_differ(evidence.as_deref(), Some(&finding.evidence))
                    })
                }
            };
            changes.push(change(scan, finding, before, kind, because));
        }
        if before != Some(&state) {
            let key = row::key(&[scan.host.as_bytes(), finding.rule.as_bytes()]);
            transaction.put(tables.states, &key, &encode(&state))?;
        }
    }
    for rule in gone(scan, prior) {
        let key = row::key(&[scan.host.as_bytes(), rule.as_bytes()]);
        transaction.delete(tables.states, &key)?;
    }
    Ok(changes)
}

/// Rules that have left the pack since.
fn gone(scan: &Scan, prior: &BTreeMap<String, State>) -> Vec<String> {
    let judged: BTreeSet<&str> = scan
        .findings
        .iter()
        .map(|finding| finding.rule.as_str())
        .collect();
    let is_gone = |rule: &&String| !judged.contains(rule.as_str());
    prior.keys().filter(is_gone).cloned().collect()
}

fn kind_of_change(finding: &Finding, before: Option<&State>) -> Option<ChangeKind> {
    match before {
        None => Some(ChangeKind::FirstSeen),
        Some(before) if before.verdict != finding.verdict => Some(ChangeKind::StateChanged),
        Some(before) if before.severity != finding.severity => Some(ChangeKind::SeverityChanged),
        Some(_) => None,
    }
}

/// What cannot be unpacked is as good as not there: the apply does not hang on it.
fn evidence_before(
    transaction: &mut Transaction,
    tables: &Tables,
    before: &State,
) -> Result<Option<Vec<u8>>, Error> {
    let packed = transaction.get(tables.evidence, before.evidence.as_bytes())?;
    Ok(packed.and_then(|packed| unpack_evidence(&packed).ok()))
}

fn change(
    scan: &Scan,
    finding: &Finding,
    before: Option<&State>,
    kind: ChangeKind,
    because: Vec<Cause>,
) -> Change {
    Change {
        rule: finding.rule.clone(),
        kind,
        from: before.map(|before| before.verdict),
        to: finding.verdict,
        severity: finding.severity,
        severity_before: before.map(|before| before.severity),
        reason: finding.reason.clone(),
        evidence: finding.evidence_digest.clone(),
        rule_digest: finding.rule_digest.clone(),
        because,
        scan_id: scan.id.to_string(),
        occurred: scan.finished.nanos(),
        number: 0,
        chain: String::new(),
    }
}

/// Counts of the rules of this scan; those of rules that left the pack go with them.
fn write_checks(transaction: &mut Transaction, tables: &Tables, scan: &Scan) -> Result<(), Error> {
    let key = scan.host.as_bytes();
    let prior = transaction
        .get(tables.checks, key)?
        .map(|value| decode::<Checks>(&value))
        .transpose()?
        .unwrap_or_default();
    let counts = scan
        .findings
        .iter()
        .map(|finding| {
            let before = prior.counts.get(&finding.rule).copied().unwrap_or(0);
            (finding.rule.clone(), before + 1)
        })
        .collect();
    let checks = Checks {
        last_checked: scan.finished.nanos(),
        last_scan: scan.id.to_string(),
        counts,
    };
    transaction.put(tables.checks, key, &encode(&checks))?;
    Ok(())
}

/// Stores what is not there yet. Looked up outside the transaction: evidence is named by its
/// content and never removed, so storing it twice is the same as once and no conflict can come of it.
fn write_evidence(
    store: &Store,
    transaction: &mut Transaction,
    tables: &Tables,
    scan: &Scan,
    prior: &BTreeMap<String, State>,
) -> Result<(), Error> {
    let snapshot = store.snapshot()?;
    let mut compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL)
        .map_err(|error| Error::new(Class::Unknown, "compression").with_source(error))?;
    for finding in &scan.findings {
        let before = prior.get(&finding.rule);
        if before.is_some_and(|before| before.evidence == finding.evidence_digest) {
            continue;
        }
        let key = finding.evidence_digest.as_bytes();
        if snapshot.get(tables.evidence, key)?.is_none() {
            let packed = compressor.compress(&finding.evidence).map_err(|error| {
                Error::new(Class::Unknown, "evidence does not compress")
                    .with_rule(&finding.rule)
                    .with_source(error)
            })?;
            transaction.put(tables.evidence, key, &packed)?;
        }
    }
    Ok(())
}

pub(super) fn unpack_evidence(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::decompress(packed, EVIDENCE_BYTES_MAX)
}
