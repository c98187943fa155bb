//! Judges an export line by line, with no more in memory than where each chain stands.
//!
//! Knows nothing of stores and files: the same judge looks at a data directory through a
//! [`super::Tour`] and at a file on a machine that has only the public key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    HostHead, Kind, Line, NOTHING_BEFORE, Reason, Signature, Statement, Wrong, heads, line::FORM,
};
use crate::{
    audit::chain as audit,
    judge::{Outcome as Judged, digest},
    ledger::chain::{Begin, Earlier, Lines, LinkedChange, LinkedScan, LinkedVerdict, text},
    policy::PublicKey,
    rule::Severity,
    utc::Utc,
};

/// What was found to be sound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub hosts: u64,
    pub scans: u64,
    pub changes: u64,
    pub verdicts: u64,
    pub evidence: u64,
    pub records: u64,
    pub withheld: u64,
    pub statements: u64,
    /// The newest statement and its digest.
    pub newest: Option<(Statement, String)>,
    /// Scans and records behind the newest statement: chained, and signed by nobody yet.
    pub unsealed_scans: u64,
    pub unsealed_records: u64,
    /// Statements behind which nothing that was signed before vouches for the key.
    pub keys_lost: Vec<KeyLost>,
    /// Whether the file as a whole is signed by the key of the newest statement.
    pub file_is_signed: bool,
}

/// A statement by a new key, which says that the one before was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLost {
    pub sequence: u64,
    pub made: Utc,
    pub before: String,
    pub key: String,
}

/// Changes of a lost key that are told of; a site that loses more of them has another problem.
const KEYS_LOST_MAX: usize = 1_000;

#[derive(Debug)]
struct Chain {
    head: HostHead,
    /// Changes since the last scan, and the scan that they say they are of.
    open: u64,
    open_scan: Option<String>,
    earlier: Option<(Earlier, u64, Option<Lines>)>,
    /// What the last scan says of its verdicts; none for a host of which there are only heads.
    verdicts: Option<String>,
    /// What the last change of each rule came to, by the number that stands for the rule.
    last: BTreeMap<u32, (Judged, Severity)>,
}

/// Lines come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Nothing,
    Chains,
    Verdicts,
    Evidence,
}

/// The judge.
#[derive(Debug)]
pub struct Verifier {
    stage: Stage,
    kind: Option<Kind>,
    only: Option<BTreeSet<String>>,
    site: Option<String>,
    trusted: Option<PublicKey>,
    /// Digests of statements that must be among those that come, by their number.
    noted: BTreeMap<u64, String>,
    is_trusted: bool,
    is_file: bool,
    chains: BTreeMap<String, Chain>,
    rules: HashMap<String, u32>,
    evidence: BTreeSet<String>,
    last_evidence: String,
    /// The host whose verdicts come, and the last rule of them.
    verdicts: Option<(String, String, Lines)>,
    audit: audit::Head,
    sealed_records: u64,
    outcome: Outcome,
}

impl Verifier {
    /// `trusted` is the key that whoever verifies has from elsewhere; `is_file` says that the
    /// content of evidence comes too, and a last line that can be signed.
    pub fn new(trusted: Option<PublicKey>, noted: BTreeMap<u64, String>, is_file: bool) -> Self {
        Self {
            stage: Stage::Nothing,
            kind: None,
            only: None,
            site: None,
            trusted,
            noted,
            is_trusted: false,
            is_file,
            chains: BTreeMap::new(),
            rules: HashMap::new(),
            evidence: BTreeSet::new(),
            last_evidence: String::new(),
            verdicts: None,
            audit: audit::Head::default(),
            sealed_records: 0,
            outcome: Outcome::default(),
        }
    }

    /// Where the chain of a host stands, by all that came.
    pub fn head(&self, host: &str) -> Option<&HostHead> {
        self.chains.get(host).map(|chain| &chain.head)
    }

    /// Where the chain of the audit log stands, by all that came.
    pub fn audit_head(&self) -> &audit::Head {
        &self.audit
    }

    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Takes any line but the last one.
    pub fn step(&mut self, line: &Line) -> Result<(), Wrong> {
        let (stage, kind) = match line {
            Line::Export { .. } => (Stage::Nothing, None),
            Line::Host { .. }
            | Line::Earlier { .. }
            | Line::Change { .. }
            | Line::Scan { .. }
            | Line::Head { .. } => (Stage::Chains, Some(Kind::Ledger)),
            Line::Record { .. } | Line::Withheld { .. } => (Stage::Chains, Some(Kind::Audit)),
            Line::Statement { .. } => (Stage::Chains, self.kind),
            Line::Verdict { .. } => (Stage::Verdicts, Some(Kind::Ledger)),
            Line::Evidence { .. } => (Stage::Evidence, Some(Kind::Ledger)),
            Line::End { .. } => return Err(out_of_place("the end")),
        };
        if stage < self.stage || kind != self.kind {
            return Err(out_of_place("it"));
        }
        if stage > self.stage {
            self.end_stage(stage)?;
        }
        match line {
            Line::Export {
                form,
                kind,
                only,
                site,
                ..
            } => self.export(form, *kind, only.as_ref(), site.as_ref()),
            Line::Host { row } => self.host(row),
            Line::Earlier { row } => self.earlier(row),
            Line::Change { chain, row } => self.change(chain, row),
            Line::Scan { chain, row } => self.scan(chain, row),
            Line::Head { row } => self.elsewhere(row),
            Line::Statement { row, signatures } => self.statement(row, signatures),
            Line::Verdict { host, row } => self.verdict(host, row),
            Line::Evidence { sha256, text } => self.content(sha256, text),
            Line::Record { chain, row } => {
                self.outcome.records += 1;
                self.record(row.number, &row.digest(), chain)
            }
            Line::Withheld {
                chain,
                number,
                sha256,
            } => {
                self.outcome.withheld += 1;
                self.record(*number, sha256, chain)
            }
            Line::End { .. } => unreachable!("refused above"),
        }
    }

    fn end_stage(&mut self, next: Stage) -> Result<(), Wrong> {
        if self.stage == Stage::Nothing && self.kind.is_none() {
            return Err(out_of_place("it"));
        }
        if self.stage <= Stage::Chains && next > Stage::Chains {
            self.end_chains()?;
        }
        if self.stage <= Stage::Verdicts && next > Stage::Verdicts {
            self.end_verdicts()?;
        }
        self.stage = next;
        Ok(())
    }

    fn export(
        &mut self,
        form: &str,
        kind: Kind,
        only: Option<&Vec<String>>,
        site: Option<&String>,
    ) -> Result<(), Wrong> {
        if self.kind.is_some() {
            return Err(out_of_place("a second beginning"));
        }
        if form != FORM {
            return Err(Wrong::new(
                "its first line",
                format!("`{form}` is no form that this version reads"),
            ));
        }
        self.kind = Some(kind);
        self.only = only.map(|only| only.iter().cloned().collect());
        self.site = site.cloned();
        Ok(())
    }

    fn host(&mut self, row: &Begin) -> Result<(), Wrong> {
        let what = || format!("host `{}`", row.host);
        if self
            .only
            .as_ref()
            .is_some_and(|only| !only.contains(&row.host))
        {
            return Err(Wrong::new(
                what(),
                "it is not among the hosts that the first line names",
            ));
        }
        let (changes, scans) = row
            .earlier
            .as_ref()
            .map_or((0, 0), |earlier| (earlier.changes, earlier.scans));
        let chain = Chain {
            head: HostHead {
                changes,
                host: row.host.clone(),
                scans,
                sha256: row.link(),
            },
            open: 0,
            open_scan: None,
            earlier: row
                .earlier
                .clone()
                .map(|earlier| (earlier, 0, Some(Lines::earlier()))),
            verdicts: Some(String::new()),
            last: BTreeMap::new(),
        };
        if self.chains.insert(row.host.clone(), chain).is_some() {
            return Err(Wrong::new(what(), "its chain begins twice"));
        }
        self.outcome.hosts += 1;
        Ok(())
    }

    fn chain(&mut self, host: &str) -> Result<&mut Chain, Wrong> {
        let what = format!("host `{host}`");
        let found = self.chains.get_mut(host);
        found
            .filter(|chain| chain.verdicts.is_some())
            .ok_or_else(|| Wrong::new(what, "its chain has no beginning"))
    }

    fn earlier(&mut self, row: &LinkedChange) -> Result<(), Wrong> {
        let rule = self.rule(&row.rule);
        let chain = self.chain(&row.host)?;
        let Some((_, count, Some(lines))) = &mut chain.earlier else {
            return Err(Wrong::new(
                format!("host `{}`", row.host),
                "a change from before its chain comes after its beginning",
            ));
        };
        *count += 1;
        lines.line(&text(row));
        chain.last.insert(rule, (row.to, row.severity));
        if row.number != 0 {
            return Err(Wrong::new(
                format!("host `{}`", row.host),
                "a change from before its chain has a number",
            ));
        }
        self.evidence.insert(row.evidence.clone());
        Ok(())
    }

    /// What came of the changes from before the chains against what their hosts' beginnings say.
    fn end_earlier(&mut self) -> Result<(), Wrong> {
        for chain in self.chains.values_mut() {
            chain.end_earlier()?;
        }
        Ok(())
    }

    fn change(&mut self, link: &str, row: &LinkedChange) -> Result<(), Wrong> {
        let rule = self.rule(&row.rule);
        let what = format!("host `{}`, change {}", row.host, row.number);
        let chain = self.chain(&row.host)?;
        chain.end_earlier()?;
        if row.number != chain.head.changes + 1 {
            let why = format!("after change {} comes this one", chain.head.changes);
            return Err(Wrong::new(what, why));
        }
        if row.link(&chain.head.sha256) != link {
            return Err(Wrong::new(
                what,
                "its link is not that of its row after the link before",
            ));
        }
        if chain.open_scan.get_or_insert_with(|| row.scan_id.clone()) != &row.scan_id {
            return Err(Wrong::new(
                what,
                "it says that it is of another scan than those beside it",
            ));
        }
        chain.open += 1;
        chain.head.changes = row.number;
        link.clone_into(&mut chain.head.sha256);
        chain.last.insert(rule, (row.to, row.severity));
        self.evidence.insert(row.evidence.clone());
        self.outcome.changes += 1;
        Ok(())
    }

    fn scan(&mut self, link: &str, row: &LinkedScan) -> Result<(), Wrong> {
        let what = format!("host `{}`, scan {}", row.host, row.number);
        let chain = self.chain(&row.host)?;
        chain.end_earlier()?;
        if row.number != chain.head.scans + 1 {
            let why = format!("after scan {} comes this one", chain.head.scans);
            return Err(Wrong::new(what, why));
        }
        if row.link(&chain.head.sha256) != link {
            return Err(Wrong::new(
                what,
                "its link is not that of its row after the link before",
            ));
        }
        let is_of_it = chain
            .open_scan
            .take()
            .is_none_or(|scan| scan == row.scan_id);
        if !is_of_it || row.changes != chain.open {
            return Err(Wrong::new(
                what,
                "the changes before it are not those that it made",
            ));
        }
        chain.open = 0;
        chain.head.scans = row.number;
        link.clone_into(&mut chain.head.sha256);
        chain.verdicts = Some(row.verdicts.clone());
        self.outcome.scans += 1;
        self.outcome.unsealed_scans += 1;
        Ok(())
    }

    /// Where a host stands that was not asked for.
    fn elsewhere(&mut self, row: &HostHead) -> Result<(), Wrong> {
        let what = || format!("host `{}`", row.host);
        let is_asked = self
            .only
            .as_ref()
            .is_none_or(|only| only.contains(&row.host));
        if is_asked {
            return Err(Wrong::new(
                what(),
                "there is only its head, and not what was asked for",
            ));
        }
        let before = self.head(&row.host).map_or(0, |head| head.scans);
        if row.scans < before {
            return Err(Wrong::new(what(), "its chain got shorter"));
        }
        let chain = Chain {
            head: row.clone(),
            open: 0,
            open_scan: None,
            earlier: None,
            verdicts: None,
            last: BTreeMap::new(),
        };
        self.chains.insert(row.host.clone(), chain);
        Ok(())
    }

    fn statement(&mut self, row: &Statement, signatures: &[Signature]) -> Result<(), Wrong> {
        let what = format!("statement {}", row.sequence);
        let wrong = |why: &str| Err(Wrong::new(what.clone(), why));
        let (sequence, previous, before) = match &self.outcome.newest {
            Some((before, digest)) => (before.sequence + 1, digest.as_str(), &before.key),
            None => (1, NOTHING_BEFORE, &row.key),
        };
        if row.sequence != sequence {
            return wrong(&format!("number {sequence} should come here"));
        }
        if row.previous != previous {
            return wrong("it names another statement before it than the one that is there");
        }
        if Some(&row.site) != self.site.as_ref() {
            return wrong("it is of another site");
        }
        let before = before.clone();
        let is_lost = row.reason == Reason::KeyLost && row.key != before;
        let expected = if is_lost { &row.key } else { &before };
        if !are_by(signatures, row, expected) {
            return wrong(
                "it is not signed as it must be: the signature is not that of its key, or the key before did not sign for a new one",
            );
        }
        match self.kind {
            Some(Kind::Audit) => {
                if row.audit.records != self.audit.records || row.audit.sha256 != self.audit.sha256
                {
                    return wrong("the audit log up to here is not the one that it tells of");
                }
            }
            _ => {
                self.end_earlier()?;
                if self.chains.values().any(|chain| chain.open > 0) {
                    return wrong("it comes amid the changes of a scan");
                }
                if heads(self.chains.values().map(|chain| &chain.head)) != row.hosts {
                    return wrong(
                        "the chains of the hosts up to here are not those that it tells of",
                    );
                }
            }
        }
        let digest = row.digest();
        if self
            .noted
            .remove(&row.sequence)
            .is_some_and(|noted| noted != digest)
        {
            return wrong("its digest is not the one that was noted");
        }
        if is_lost {
            if self.outcome.keys_lost.len() >= KEYS_LOST_MAX {
                return wrong("too many keys were lost before it");
            }
            // Whoever could write here could say so: what comes behind is for another key to vouch for.
            self.is_trusted = false;
            self.outcome.keys_lost.push(KeyLost {
                sequence: row.sequence,
                made: row.made,
                before,
                key: row.key.clone(),
            });
        }
        let by = |key: &PublicKey| signatures.iter().any(|by| by.key == key.base64());
        self.is_trusted |= self.trusted.as_ref().is_some_and(by);
        self.sealed_records = self.audit.records;
        self.outcome.unsealed_scans = 0;
        self.outcome.statements += 1;
        self.outcome.newest = Some((row.clone(), digest));
        Ok(())
    }

    fn end_chains(&mut self) -> Result<(), Wrong> {
        self.end_earlier()?;
        for chain in self.chains.values() {
            if chain.open > 0 {
                let what = format!("host `{}`, change {}", chain.head.host, chain.head.changes);
                return Err(Wrong::new(what, "there is no scan that it is of"));
            }
        }
        Ok(())
    }

    fn verdict(&mut self, host: &str, row: &LinkedVerdict) -> Result<(), Wrong> {
        let what = format!("host `{host}`, verdict of `{}`", row.rule);
        let (current, last, lines) = match self.verdicts.take() {
            Some((current, last, lines)) if current == host => (current, last, lines),
            before => {
                let before = self.end_host(before)?;
                if before.as_deref() >= Some(host) {
                    return Err(Wrong::new(what, "it is not in its place"));
                }
                (host.to_owned(), String::new(), Lines::verdicts())
            }
        };
        let mut lines = lines;
        if last >= row.rule {
            return Err(Wrong::new(what, "it is not in its place"));
        }
        lines.line(&row.text());
        let rule = self.rule(&row.rule);
        if self.chain(host)?.last.get(&rule) != Some(&(row.verdict, row.severity)) {
            return Err(Wrong::new(
                what,
                "it is not what the last change of the rule came to",
            ));
        }
        self.evidence.insert(row.evidence.clone());
        self.outcome.verdicts += 1;
        self.verdicts = Some((current, row.rule.clone(), lines));
        Ok(())
    }

    /// Ends the verdicts of one host; gives its name.
    fn end_host(&mut self, of: Option<(String, String, Lines)>) -> Result<Option<String>, Wrong> {
        let Some((host, _, lines)) = of else {
            return Ok(None);
        };
        let chain = self.chain(&host)?;
        if chain.verdicts.as_ref() != Some(&lines.end()) {
            return Err(Wrong::new(
                format!("host `{host}`"),
                "its verdicts are not those of its last scan",
            ));
        }
        // What is left to say of a host without a verdict.
        chain.verdicts = Some(String::new());
        Ok(Some(host))
    }

    fn end_verdicts(&mut self) -> Result<(), Wrong> {
        let last = self.verdicts.take();
        self.end_host(last)?;
        let none = Lines::verdicts().end();
        for chain in self.chains.values() {
            if let Some(left) = chain.verdicts.as_ref().filter(|left| !left.is_empty())
                && *left != none
            {
                return Err(Wrong::new(
                    format!("host `{}`", chain.head.host),
                    "the verdicts of its last scan are not there",
                ));
            }
        }
        Ok(())
    }

    fn content(&mut self, sha256: &str, text: &str) -> Result<(), Wrong> {
        let what = || format!("evidence {sha256}");
        if self.last_evidence.as_str() >= sha256 {
            return Err(Wrong::new(what(), "it is not in its place"));
        }
        if digest(text.as_bytes()) != sha256 {
            return Err(Wrong::new(what(), "its content has another SHA-256"));
        }
        if !self.evidence.remove(sha256) {
            return Err(Wrong::new(what(), "nothing rests on it"));
        }
        sha256.clone_into(&mut self.last_evidence);
        self.outcome.evidence += 1;
        Ok(())
    }

    fn record(&mut self, number: u64, sha256: &str, chain: &str) -> Result<(), Wrong> {
        let what = format!("audit record {number}");
        if number != self.audit.records + 1 {
            let why = format!("after record {} comes this one", self.audit.records);
            return Err(Wrong::new(what, why));
        }
        if audit::link(&self.audit.sha256, sha256) != chain {
            return Err(Wrong::new(
                what,
                "its link is not that of its row after the link before",
            ));
        }
        self.audit.records = number;
        chain.clone_into(&mut self.audit.sha256);
        Ok(())
    }

    /// After the last line; `end` is the signature of the file, if it has one, and what it signs.
    pub fn finish(mut self, end: Option<(&Signature, &str)>) -> Result<Outcome, Wrong> {
        let whole = || "the whole".to_owned();
        self.end_stage(Stage::Evidence)?;
        if self.is_file
            && let Some(missing) = self.evidence.first()
        {
            return Err(Wrong::new(format!("evidence {missing}"), "it is not there"));
        }
        if let Some((signature, text)) = end {
            let newest = self.outcome.newest.as_ref().map(|(newest, _)| &newest.key);
            if Some(&signature.key) != newest || !signature.is_for(text) {
                return Err(Wrong::new(
                    "its last line",
                    "the signature is not that of the key of the newest statement over this file",
                ));
            }
            self.outcome.file_is_signed = true;
        }
        if let Some(trusted) = self.trusted.as_ref().filter(|_| !self.is_trusted) {
            let lost = self.outcome.keys_lost.last();
            let why = match &self.outcome.newest {
                Some(_) if let Some(lost) = lost => format!(
                    "statement {} says that the key before it was lost, and nothing from there on is signed by the key that was given ({}); the key is {} since: ask whoever runs the site whether that is theirs",
                    lost.sequence,
                    trusted.base64(),
                    lost.key
                ),
                Some((newest, _)) => format!(
                    "no statement is signed by the key that was given ({}); the newest is signed by {}",
                    trusted.base64(),
                    newest.key
                ),
                None => "there is no signed statement in it".to_owned(),
            };
            return Err(Wrong::new(whole(), why));
        }
        if self.trusted.is_some() && self.is_file && !self.outcome.file_is_signed {
            let why = "the file is not signed as a whole: what is in it beside signed statements may be anybody's";
            return Err(Wrong::new("its last line", why));
        }
        if let Some((sequence, _)) = self.noted.first_key_value() {
            let why = format!(
                "statement {sequence}, which was noted, is not in it: it is older than the note, or another site's"
            );
            return Err(Wrong::new(whole(), why));
        }
        self.outcome.unsealed_records = self.audit.records - self.sealed_records;
        Ok(self.outcome)
    }

    /// A number for the name of a rule: every host has a few hundred of the same ones.
    fn rule(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.rules.get(name) {
            return number;
        }
        let number = u32::try_from(self.rules.len()).expect("memory ends before 4 billion rules");
        self.rules.insert(name.to_owned(), number);
        number
    }
}

impl Chain {
    fn end_earlier(&mut self) -> Result<(), Wrong> {
        let Some((earlier, count, lines)) = &mut self.earlier else {
            return Ok(());
        };
        let Some(lines) = lines.take() else {
            return Ok(());
        };
        if *count != earlier.changes || lines.end() != earlier.sha256 {
            return Err(Wrong::new(
                format!("host `{}`", self.head.host),
                "its changes from before its chain are not those that the chain begins with",
            ));
        }
        Ok(())
    }
}

fn out_of_place(what: &str) -> Wrong {
    Wrong::new(
        what,
        "it does not belong here: lines are missing, or in another order",
    )
}

/// Signed by its own key, and where that is another one than `before`, by that too; by nobody else.
fn are_by(signatures: &[Signature], row: &Statement, before: &str) -> bool {
    let text = row.text();
    let is_by = |key: &str, signature: &Signature| signature.key == key && signature.is_for(&text);
    match signatures {
        [one] => row.key == before && is_by(&row.key, one),
        [one, other] => row.key != before && is_by(&row.key, one) && is_by(before, other),
        _ => false,
    }
}
