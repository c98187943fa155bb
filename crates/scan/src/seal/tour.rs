//! Everything that an export has, read from a store in the order in which it is written and verified.
//!
//! What is between two statements comes before the second of them, so that whoever verifies has to
//! remember no more than the head of each host. A row that is not there ends the tour: there is
//! nothing to put in its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use store::{Keys, Snapshot, Store};

use super::{Book, Error, HostHead, Kind, Line, Wrong, line::FORM};
use crate::{
    audit::{Audit, Filter, chain},
    judge,
    ledger::{
        self, Change, Host, ScanRow, State,
        chain::{Begin, LinkRow, LinkedChange, LinkedScan, LinkedVerdict},
        row,
    },
    utc::Utc,
};

/// Scans of a host that are read at once: most have no changes, and a first one some hundreds.
const SCANS_AT_ONCE: u64 = 100;
/// Evidence that is read at once, some kilobytes each.
const EVIDENCE_AT_ONCE: usize = 500;

/// What is to be seen.
#[derive(Clone, Debug)]
pub struct Asked {
    pub kind: Kind,
    /// Only these hosts.
    pub only: Option<BTreeSet<String>>,
    /// Only these records; of the others their digests.
    pub filter: Filter,
    /// Also the content of evidence, not only that it is there.
    pub with_evidence: bool,
}

/// Where the lines go. An error ends the tour.
pub(super) type Visit<'a> = dyn FnMut(Line) -> Result<(), Error> + 'a;

/// One look at a store, at one position.
#[derive(Debug)]
pub(super) struct Tour<'a> {
    asked: &'a Asked,
    book: Book,
    audit: Audit,
    tables: row::Tables,
    store: Store,
    snapshot: Snapshot,
    /// Scans of each host that were seen.
    seen: BTreeMap<String, u64>,
    evidence: BTreeSet<String>,
}

impl<'a> Tour<'a> {
    pub(super) fn new(store: &Store, asked: &'a Asked) -> Result<Self, Error> {
        Ok(Self {
            asked,
            book: Book::new(store.clone())?,
            audit: Audit::of(store)?,
            tables: row::Tables::of(store)?,
            snapshot: store.snapshot()?,
            store: store.clone(),
            seen: BTreeMap::new(),
            evidence: BTreeSet::new(),
        })
    }

    /// Visits every line but the last one, which only the writer of a file can make.
    pub(super) fn run(mut self, made: Utc, visit: &mut Visit<'_>) -> Result<Snapshot, Error> {
        visit(Line::Export {
            form: FORM.to_owned(),
            kind: self.asked.kind,
            made,
            only: self
                .asked
                .only
                .as_ref()
                .map(|only| only.iter().cloned().collect()),
            site: self.book.site(&self.snapshot)?,
        })?;
        match self.asked.kind {
            Kind::Ledger => self.ledger(visit)?,
            Kind::Audit => self.records(visit)?,
        }
        Ok(self.snapshot)
    }

    fn ledger(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        for sequence in 1..=self.book.count(&self.snapshot)? {
            let (signed, moved) = self.book.statement(&self.snapshot, sequence)?;
            let moved: Vec<HostHead> = moved.collect::<Result<_, _>>()?;
            for head in moved {
                self.host(head, visit)?;
            }
            visit(Line::Statement {
                row: signed.row,
                signatures: signed.signatures,
            })?;
        }
        let hosts = self.hosts()?;
        for host in &hosts {
            if let Some(chain) = &host.chain {
                let head = HostHead {
                    changes: chain.changes,
                    host: host.name.clone(),
                    scans: chain.scans,
                    sha256: chain.sha256.clone(),
                };
                self.host(head, visit)?;
            }
        }
        for host in &hosts {
            if host.chain.is_some() && self.is_asked(&host.name) {
                self.verdicts(&host.name, visit)?;
            }
        }
        if self.asked.with_evidence {
            for sha256 in std::mem::take(&mut self.evidence) {
                let text = self
                    .evidence_of(&sha256)
                    .map_err(|why| Error::from(Wrong::new(format!("evidence {sha256}"), why)))?;
                visit(Line::Evidence { sha256, text })?;
            }
        }
        Ok(())
    }

    fn is_asked(&self, host: &str) -> bool {
        self.asked
            .only
            .as_ref()
            .is_none_or(|only| only.contains(host))
    }

    fn hosts(&self) -> Result<Vec<Host>, Error> {
        self.snapshot
            .range(self.tables.hosts, &Keys::all())?
            .map(|item| {
                let (key, value) = item?;
                serde_json::from_slice(&value).map_err(|_| {
                    let name = String::from_utf8_lossy(&key);
                    wrong(&name, "its row is not readable")
                })
            })
            .collect()
    }

    /// The links of a host up to `head`, behind those that were seen.
    fn host(&mut self, head: HostHead, visit: &mut Visit<'_>) -> Result<(), Error> {
        if !self.is_asked(&head.host) {
            return visit(Line::Head { row: head });
        }
        let from = match self.seen.get(&head.host) {
            Some(&scans) => scans,
            None => self.begin(&head.host, visit)?,
        };
        let mut next = from + 1;
        while next <= head.scans {
            let last = head.scans.min(next + (SCANS_AT_ONCE - 1));
            self.scans(&head.host, next..=last, visit)?;
            next = last + 1;
        }
        self.seen.insert(head.host, head.scans.max(from));
        Ok(())
    }

    /// Gives how many scans are before the first link.
    fn begin(&mut self, host: &str, visit: &mut Visit<'_>) -> Result<u64, Error> {
        let row: Option<Host> = self
            .snapshot
            .get(self.tables.hosts, host.as_bytes())?
            .and_then(|value| serde_json::from_slice(&value).ok());
        let chain = row
            .and_then(|row| row.chain)
            .ok_or_else(|| wrong(host, "it has no row with a head"))?;
        let scans = chain.earlier.as_ref().map_or(0, |earlier| earlier.scans);
        let is_first = chain.earlier.is_none();
        visit(Line::Host {
            row: Begin {
                earlier: chain.earlier,
                host: host.to_owned(),
            },
        })?;
        if !is_first {
            let rows = ledger::chain::earlier_changes(&self.snapshot, &self.tables, host)?;
            for change in rows.collect::<Result<Vec<Change>, _>>()? {
                let row = LinkedChange::of(host, &change);
                self.refer(&row.evidence, || {
                    format!("host `{host}`, a change from before its chain")
                })?;
                visit(Line::Earlier { row })?;
            }
        }
        Ok(scans)
    }

    /// Scans with their changes, in three questions: in a database each is a round trip.
    fn scans(
        &mut self,
        host: &str,
        numbers: RangeInclusive<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let keys = numbers.clone().map(|number| row::link_key(host, number));
        let links: Vec<Option<LinkRow>> =
            self.rows(self.tables.links, &keys.collect::<Vec<_>>())?;
        let (mut of_changes, mut of_scans) = (Vec::new(), Vec::new());
        for (number, link) in numbers.clone().zip(&links) {
            let Some(link) = link else { continue };
            of_scans.push(link.scan_id.as_bytes().to_vec());
            let rules = link.rules.iter();
            of_changes.extend(rules.map(|rule| row::change_key(host, rule, number)));
        }
        let changes: Vec<Option<Change>> = self.rows(self.tables.changes, &of_changes)?;
        let scans: Vec<Option<ScanRow>> = self.rows(self.tables.scans, &of_scans)?;
        self.foresee(changes.iter().flatten().map(|change| &change.evidence))?;
        let (mut changes, mut scans) = (changes.into_iter(), scans.into_iter());
        for (number, link) in numbers.zip(links) {
            let what = format!("host `{host}`, scan {number}");
            let lost = |why: &str| Error::from(Wrong::new(what.clone(), why));
            let link =
                link.ok_or_else(|| lost("the row that finds it is not there or not readable"))?;
            for rule in &link.rules {
                let change = changes.next().flatten().ok_or_else(|| {
                    let why = format!("its change of `{rule}` is not there or not readable");
                    lost(&why)
                })?;
                let row = LinkedChange::of(host, &change);
                self.refer(&row.evidence, || {
                    format!("host `{host}`, change {}", row.number)
                })?;
                visit(Line::Change {
                    chain: change.chain,
                    row,
                })?;
            }
            let scan = scans.next().flatten();
            let scan = scan.ok_or_else(|| lost("its row is not there or not readable"))?;
            visit(Line::Scan {
                row: LinkedScan::of(&scan),
                chain: scan.chain,
            })?;
        }
        Ok(())
    }

    fn verdicts(&mut self, host: &str, visit: &mut Visit<'_>) -> Result<(), Error> {
        let rows = self
            .snapshot
            .range(self.tables.states, &row::below(&[host.as_bytes()]))?;
        let mut states = Vec::new();
        for item in rows {
            let state: State = serde_json::from_slice(&item?.1)
                .map_err(|_| wrong(host, "the row of a verdict is not readable"))?;
            states.push(state);
        }
        self.foresee(states.iter().map(|state| &state.evidence))?;
        for state in states {
            self.refer(&state.evidence, || {
                format!("host `{host}`, verdict of `{}`", state.rule)
            })?;
            visit(Line::Verdict {
                host: host.to_owned(),
                row: LinkedVerdict::of_state(&state),
            })?;
        }
        Ok(())
    }

    /// Looks at evidence that will be referred to, some at a time. What is wrong with one is told where it is
    /// referred to.
    fn foresee<'s>(&mut self, wanted: impl Iterator<Item = &'s String>) -> Result<(), Error> {
        let wanted: BTreeSet<&String> = wanted
            .filter(|sha256| !self.evidence.contains(*sha256))
            .collect();
        let wanted: Vec<&String> = wanted.into_iter().collect();
        for some in wanted.chunks(EVIDENCE_AT_ONCE) {
            let keys: Vec<_> = some
                .iter()
                .map(|sha256| (self.tables.evidence, sha256.as_bytes()))
                .collect();
            for (sha256, packed) in some.iter().zip(self.snapshot.get_many(&keys)?) {
                if packed.is_some_and(|packed| unpacked(sha256, &packed).is_ok()) {
                    self.evidence.insert((*sha256).clone());
                }
            }
        }
        Ok(())
    }

    /// Sees, once for each, that evidence is there and is what it is filed under.
    fn refer(&mut self, sha256: &str, what: impl FnOnce() -> String) -> Result<(), Error> {
        if !self.evidence.contains(sha256) {
            if let Err(why) = self.evidence_of(sha256) {
                return Err(Wrong::new(what(), format!("its evidence {sha256}: {why}")).into());
            }
            self.evidence.insert(sha256.to_owned());
        }
        Ok(())
    }

    fn evidence_of(&self, sha256: &str) -> Result<String, String> {
        let packed = self
            .snapshot
            .get(self.tables.evidence, sha256.as_bytes())
            .map_err(|error| error.to_string())?
            .ok_or("it is not there")?;
        unpacked(sha256, &packed)
    }

    /// `None` also where one is not readable.
    fn rows<T: serde::de::DeserializeOwned>(
        &self,
        table: store::TableId,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<T>>, Error> {
        let keys: Vec<_> = keys.iter().map(|key| (table, &key[..])).collect();
        let found = self.snapshot.get_many(&keys)?.into_iter();
        let read = |value: store::Bytes| serde_json::from_slice(&value).ok();
        Ok(found.map(|value| value.and_then(read)).collect())
    }

    /// Where the chain of the audit log stood when the tour began: what it visits is up to there.
    pub(super) fn audit_head(&self) -> Result<chain::Head, Error> {
        Ok(self.audit.head(&self.snapshot)?)
    }

    /// By a snapshot for each page: none is kept for as long as a long log takes, and what is linked
    /// does not change any more.
    fn records(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut number = 0;
        let (head, statements) = (self.audit_head()?, self.book.count(&self.snapshot)?);
        for sequence in 1..=statements {
            let (signed, _) = self.book.statement(&self.snapshot, sequence)?;
            self.records_to(&mut number, signed.row.audit.records, visit)?;
            visit(Line::Statement {
                row: signed.row,
                signatures: signed.signatures,
            })?;
        }
        self.records_to(&mut number, head.records, visit)
    }

    fn records_to(
        &mut self,
        number: &mut u64,
        last: u64,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        while *number < last {
            let end = last.min(*number + chain::PAGE as u64);
            self.snapshot = self.store.snapshot()?;
            let places = self.audit.places(&self.snapshot, *number + 1..=end)?;
            for place in places {
                *number += 1;
                let found = match place {
                    chain::Place::Holds(found) => found,
                    chain::Place::Lost(why) => {
                        return Err(Wrong::new(format!("audit record {number}"), why).into());
                    }
                };
                visit(if self.asked.filter.takes(&found.row) {
                    Line::Record {
                        chain: found.chain,
                        row: found.row,
                    }
                } else {
                    Line::Withheld {
                        chain: found.chain,
                        number: *number,
                        sha256: found.row.digest(),
                    }
                })?;
            }
        }
        Ok(())
    }
}

fn unpacked(sha256: &str, packed: &[u8]) -> Result<String, String> {
    let content = ledger::unpack_evidence(packed)
        .map_err(|error| format!("it cannot be unpacked: {error}"))?;
    if judge::digest(&content) != sha256 {
        return Err("its content has another SHA-256".to_owned());
    }
    String::from_utf8(content).map_err(|_| "it is no text".to_owned())
}

fn wrong(host: &str, why: &str) -> Error {
    Wrong::new(format!("host `{host}`"), why).into()
}
