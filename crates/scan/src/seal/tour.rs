//! Everything that an export has, read from a store in the order in which it is written and verified.
//!
//! What is between two statements comes before the second of them, so that whoever verifies has to
//! remember no more than the head of each host. A row that is not there ends the tour: there is
//! nothing to put in its place.

use std::collections::{BTreeMap, BTreeSet};

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
        for number in from + 1..=head.scans {
            self.scan(&head.host, number, visit)?;
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

    fn scan(&mut self, host: &str, number: u64, visit: &mut Visit<'_>) -> Result<(), Error> {
        let what = format!("host `{host}`, scan {number}");
        let lost = |why: &str| Error::from(Wrong::new(what.clone(), why));
        let link: LinkRow = self
            .row(self.tables.links, &row::link_key(host, number))?
            .ok_or_else(|| lost("the row that finds it is not there or not readable"))?;
        for rule in &link.rules {
            let key = row::change_key(host, rule, number);
            let change: Change = self.row(self.tables.changes, &key)?.ok_or_else(|| {
                lost(&format!(
                    "its change of `{rule}` is not there or not readable"
                ))
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
        let scan: ScanRow = self
            .row(self.tables.scans, link.scan_id.as_bytes())?
            .ok_or_else(|| lost("its row is not there or not readable"))?;
        visit(Line::Scan {
            row: LinkedScan::of(&scan),
            chain: scan.chain,
        })
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
        let content = ledger::unpack_evidence(&packed)
            .map_err(|error| format!("it cannot be unpacked: {error}"))?;
        if judge::digest(&content) != sha256 {
            return Err("its content has another SHA-256".to_owned());
        }
        String::from_utf8(content).map_err(|_| "it is no text".to_owned())
    }

    fn row<T: serde::de::DeserializeOwned>(
        &self,
        table: store::TableId,
        key: &[u8],
    ) -> Result<Option<T>, Error> {
        let found = self.snapshot.get(table, key)?;
        Ok(found.and_then(|value| serde_json::from_slice(&value).ok()))
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

fn wrong(host: &str, why: &str) -> Error {
    Wrong::new(format!("host `{host}`"), why).into()
}
