//! One scan into the ledger, in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use store::{Bytes, Store, Transaction};
use uuid::Uuid;
use world::Timestamp;

use super::{
    Class, Error, ROWS_MAX,
    board::{self, Board},
    cause::{Cause, causes, facts_differ},
    chain, decode, encode, index, recent,
    row::{self, Change, ChangeKind, Checks, Host, ScanRow, State, Tables},
    rows_read,
};
use crate::{
    inventory,
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
    apply_with(store, tables, scan, |_, _| Ok(()))
}

pub(super) fn apply_with(
    store: &Store,
    tables: &Tables,
    scan: &Scan,
    mut also: impl FnMut(&mut Transaction, &Applied) -> Result<(), inventory::Error>,
) -> Result<Applied, Error> {
    check(scan)?;
    retried(|| {
        let mut transaction = store.begin()?;
        let applied = apply_in(store, &mut transaction, tables, scan)?;
        also(&mut transaction, &applied).map_err(|error| {
            let class = match error.kind() {
                inventory::Kind::Conflict => Class::Conflict,
                inventory::Kind::Storage => Class::Storage,
                _ => Class::Constraint,
            };
            Error::new(class, error.to_string()).with_source(error)
        })?;
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

/// Refuses the whole batch before anything is read, naming the rule (LED-4). What evidence says is
/// looked at by [`write_evidence`], before anything else is written, and only where it is not what
/// the host's state rests on already: that was looked at when it came.
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
        verdicts: String::new(),
        tells_after: None,
        indexed: 0,
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
    let known = Known::read(transaction, tables, scan, &scan_id)?;
    let previous = known.host.last_finished.map(Timestamp::from_nanos);
    if known.is_applied {
        return Ok(Applied {
            replayed: true,
            previous,
            changes: Vec::new(),
        });
    }
    if known.host.retired.is_some() {
        let message = format!("host `{}` is retired and takes no more scans", scan.host);
        return Err(Error::new(Class::Constraint, message));
    }
    if known.is_new {
        index::add_host(transaction, tables, &scan.host)?;
    }
    let verdicts = chain::verdicts(scan);
    let is_counted = known.board.as_ref().map(|board| &board.summary) == Some(&scan.summary);
    let moved = if known.host.verdicts == verdicts && is_counted {
        Moved::default()
    } else {
        write_states(store, transaction, tables, scan, &known)?
    };
    let mut changes = moved.changes;
    let mut host = known.host;
    host.tells_after.get_or_insert(host.scans);
    host.scans += 1;
    let mut scan_row = ScanRow {
        scan_id: scan_id.clone(),
        host: scan.host.clone(),
        started: scan.started.nanos(),
        finished: scan.finished.nanos(),
        summary: scan.summary.clone(),
        changes: changes.len() as u64,
        number: 0,
        verdicts: verdicts.clone(),
        chain: String::new(),
    };
    let rows = (&mut host, changes.as_mut_slice(), &mut scan_row);
    chain::extend(store, transaction, tables, rows)?;
    for change in &changes {
        let key = row::change_key(&scan.host, &change.rule, host.scans);
        transaction.put(tables.changes, &key, &encode(change))?;
    }
    let (number, gone) = (host.scans, moved.gone);
    recent::leave(transaction, tables, scan, number, &changes, gone)?;
    index::add_changes(transaction, tables, &mut host, scan.finished, &changes)?;
    host.verdicts = verdicts;
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

/// What one read tells about the host of a scan.
struct Known {
    host: Host,
    is_new: bool,
    is_applied: bool,
    checks: Option<Checks>,
    board: Option<Board>,
}

impl Known {
    fn read(
        transaction: &mut Transaction,
        tables: &Tables,
        scan: &Scan,
        scan_id: &str,
    ) -> Result<Self, Error> {
        let host = scan.host.as_bytes();
        let keys = [
            (tables.hosts, host),
            (tables.scans, scan_id.as_bytes()),
            (tables.checks, host),
            (tables.boards, host),
        ];
        let found = transaction.get_many(&keys)?;
        let [found_host, found_scan, checks, board] = &found[..] else {
            return Err(Error::new(Class::Unknown, "a read without all of its rows"));
        };
        let found_host: Option<Host> = found_host.as_ref().map(|row| decode(row)).transpose()?;
        Ok(Self {
            is_new: found_host.is_none(),
            host: found_host.unwrap_or_else(|| new_host(&scan.host, scan.started)),
            is_applied: found_scan.is_some(),
            checks: checks.as_ref().map(|row| decode(row)).transpose()?,
            board: board.as_ref().map(|row| decode(row)).transpose()?,
        })
    }
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

/// How the states of a host moved with a scan.
#[derive(Default)]
struct Moved {
    /// The change rows to be written.
    changes: Vec<Change>,
    /// Rules that have left the pack since.
    gone: Vec<String>,
}

/// Writes the state rows that differ and what follows from them, and removes those of rules that left
/// the pack.
fn write_states(
    store: &Store,
    transaction: &mut Transaction,
    tables: &Tables,
    scan: &Scan,
    known: &Known,
) -> Result<Moved, Error> {
    let prior = states(transaction, tables, &scan.host)?;
    let rows = scan.findings.iter().map(|finding| board::Row {
        rule: &finding.rule,
        verdict: finding.verdict,
        severity: finding.severity,
        reason: &finding.reason,
    });
    let (board, list) = Board::of(scan.summary.clone(), rows.collect());
    let stored = Stored::look_up(store, tables, scan, &prior, &list.digest)?;
    write_evidence(transaction, tables, scan, &prior, &stored)?;
    if known.board.as_ref() != Some(&board) {
        transaction.put(tables.boards, scan.host.as_bytes(), &encode(&board))?;
    }
    if !stored.is_listed {
        transaction.put(tables.rules, list.digest.as_bytes(), &list.bytes)?;
    }
    write_checks(transaction, tables, scan, known)?;
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
                Some(before) => causes(before, &state, || {
                    facts_differ(
                        stored.unpacked(&before.evidence).as_deref(),
                        Some(&finding.evidence),
                    )
                }),
            };
            changes.push(change(scan, finding, before, kind, because));
        }
        if before != Some(&state) {
            let key = row::key(&[scan.host.as_bytes(), finding.rule.as_bytes()]);
            transaction.put(tables.states, &key, &encode(&state))?;
        }
    }
    let gone = gone(scan, &prior);
    for rule in &gone {
        let key = row::key(&[scan.host.as_bytes(), rule.as_bytes()]);
        transaction.delete(tables.states, &key)?;
    }
    Ok(Moved { changes, gone })
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

/// What is stored under digests already. Looked up outside the transaction: what is named by its content
/// is never removed, so storing it twice is the same as once and no conflict can come of it.
struct Stored<'a> {
    /// Evidence that verdicts rest on, or rested on before; compressed.
    evidence: HashMap<&'a str, Option<Bytes>>,
    /// Whether the list of the scan's rules is there.
    is_listed: bool,
}

impl<'a> Stored<'a> {
    fn look_up(
        store: &Store,
        tables: &Tables,
        scan: &'a Scan,
        prior: &'a BTreeMap<String, State>,
        list: &str,
    ) -> Result<Self, Error> {
        let mut digests: Vec<&str> = Vec::new();
        for finding in &scan.findings {
            let before = prior.get(&finding.rule);
            if before.is_none_or(|before| before.evidence != finding.evidence_digest) {
                digests.push(&finding.evidence_digest);
            }
            // The cause of a change may lie in the facts of then.
            if let Some(before) = before
                && kind_of_change(finding, Some(before)).is_some()
            {
                digests.push(&before.evidence);
            }
        }
        digests.sort_unstable();
        digests.dedup();
        let mut keys = vec![(tables.rules, list.as_bytes())];
        keys.extend(
            digests
                .iter()
                .map(|digest| (tables.evidence, digest.as_bytes())),
        );
        let mut found = store.snapshot()?.get_many(&keys)?.into_iter();
        let is_listed = found.next().flatten().is_some();
        Ok(Self {
            evidence: digests.into_iter().zip(found).collect(),
            is_listed,
        })
    }

    fn has(&self, digest: &str) -> bool {
        self.evidence.get(digest).is_some_and(Option::is_some)
    }

    /// What cannot be unpacked is as good as not there: the apply does not hang on it.
    fn unpacked(&self, digest: &str) -> Option<Vec<u8>> {
        unpack_evidence(self.evidence.get(digest)?.as_ref()?).ok()
    }
}

fn kind_of_change(finding: &Finding, before: Option<&State>) -> Option<ChangeKind> {
    match before {
        None => Some(ChangeKind::FirstSeen),
        Some(before) if before.verdict != finding.verdict => Some(ChangeKind::StateChanged),
        Some(before) if before.severity != finding.severity => Some(ChangeKind::SeverityChanged),
        Some(_) => None,
    }
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

/// From which scan on the rules of this one are checked; those of rules that left the pack go.
fn write_checks(
    transaction: &mut Transaction,
    tables: &Tables,
    scan: &Scan,
    known: &Known,
) -> Result<(), Error> {
    let before = known.checks.clone().unwrap_or_default();
    let before = before.since(known.host.scans);
    let since = scan.findings.iter().map(|finding| {
        let since = before.get(&finding.rule).copied();
        (finding.rule.clone(), since.unwrap_or(known.host.scans + 1))
    });
    let checks = Checks::from(since.collect::<BTreeMap<_, _>>());
    if known.checks.as_ref() != Some(&checks) {
        transaction.put(tables.checks, scan.host.as_bytes(), &encode(&checks))?;
    }
    Ok(())
}

/// Stores what is not there yet, when it is evidence. What is stored was looked at when it came.
fn write_evidence(
    transaction: &mut Transaction,
    tables: &Tables,
    scan: &Scan,
    prior: &BTreeMap<String, State>,
    stored: &Stored<'_>,
) -> Result<(), Error> {
    let mut compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL)
        .map_err(|error| Error::new(Class::Unknown, "compression").with_source(error))?;
    for finding in &scan.findings {
        let before = prior.get(&finding.rule);
        if before.is_some_and(|before| before.evidence == finding.evidence_digest) {
            continue;
        }
        crate::judge::validate_evidence(&finding.evidence, &finding.rule).map_err(|error| {
            Error::new(Class::EvidenceInvalid, error.to_string()).with_rule(&finding.rule)
        })?;
        if !stored.has(&finding.evidence_digest) {
            let packed = compressor.compress(&finding.evidence).map_err(|error| {
                Error::new(Class::Unknown, "evidence does not compress")
                    .with_rule(&finding.rule)
                    .with_source(error)
            })?;
            transaction.put(tables.evidence, finding.evidence_digest.as_bytes(), &packed)?;
        }
    }
    Ok(())
}

pub(crate) fn unpack_evidence(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::decompress(packed, EVIDENCE_BYTES_MAX)
}
