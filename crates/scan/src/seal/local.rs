//! The whole history of one store, and what only a store can show: rows that no chain knows, heads in
//! the rows of hosts, the present state against the last changes.

use std::{
    cmp::Ordering::{Equal, Greater, Less},
    collections::BTreeMap,
    mem::size_of,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::de::DeserializeOwned;
use store::{Keys, Snapshot, Store, TableId};
use world::Timestamp;

use super::{Error, Kind, Outcome, Tour, Verifier, Wrong, tour::Asked};
use crate::{
    audit::{Audit, Filter, chain::Head},
    judge,
    ledger::{
        self, Change, ChangeKind, Host, ScanRow, State,
        chain::LinkRow,
        row::{self, Tables},
    },
    policy::PublicKey,
    utc::Utc,
};

/// Rows that are looked up at once: in a database a page costs a round trip.
const PAGE: usize = 500;

/// Judges what a store holds. `trusted` and `noted` as for a file; without them the statements vouch
/// for each other only.
pub fn verify_store(
    store: &Store,
    kind: Kind,
    trusted: Option<PublicKey>,
    noted: BTreeMap<u64, String>,
    stop: &AtomicBool,
    told: &mut dyn FnMut(u64),
) -> Result<Outcome, Error> {
    let asked = Asked {
        kind,
        only: None,
        filter: Filter::default(),
        with_evidence: false,
    };
    let mut verifier = Verifier::new(trusted, noted, false);
    let mut steps = Steps {
        seen: 0,
        stop,
        told,
    };
    let tour = Tour::new(store, &asked)?;
    let head = tour.audit_head()?;
    let snapshot = tour.run(Utc(Timestamp::default()), &mut |line| {
        steps.one()?;
        Ok(verifier.step(&line)?)
    })?;
    match kind {
        Kind::Audit => audit(store, &head, &verifier, &mut steps)?,
        Kind::Ledger => Rest {
            snapshot: &snapshot,
            tables: Tables::of(store)?,
            verifier: &verifier,
            steps: &mut steps,
        }
        .all()?,
    }
    Ok(verifier.finish(None)?)
}

struct Steps<'a> {
    seen: u64,
    stop: &'a AtomicBool,
    told: &'a mut dyn FnMut(u64),
}

impl Steps<'_> {
    fn one(&mut self) -> Result<(), Error> {
        self.seen += 1;
        (self.told)(self.seen);
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        Ok(())
    }
}

fn audit(
    store: &Store,
    head: &Head,
    verifier: &Verifier,
    steps: &mut Steps<'_>,
) -> Result<(), Error> {
    let audit = Audit::of(store)?;
    let found = verifier.audit_head();
    if (head.records, &head.sha256) != (found.records, &found.sha256) {
        let why = "its head is not the last link of its records";
        return Err(Wrong::new("audit log", why).into());
    }
    let before = steps.seen;
    let (_, stranger) = audit.strangers(store, |count| (steps.told)(before + count))?;
    stranger.map_or(Ok(()), |why| Err(Wrong::new("audit log", why).into()))
}

/// What the tour did not come by.
struct Rest<'a, 'b> {
    snapshot: &'a Snapshot,
    tables: Tables,
    verifier: &'a Verifier,
    steps: &'a mut Steps<'b>,
}

impl Rest<'_, '_> {
    fn all(&mut self) -> Result<(), Error> {
        let mut hosts = BTreeMap::new();
        for item in self.rows(self.tables.hosts)? {
            let (key, value) = item?;
            let host: Host = read(&value, || {
                format!("host `{}`", String::from_utf8_lossy(&key))
            })?;
            self.head(&host)?;
            hosts.insert(host.name.clone(), host);
        }
        self.verdicts(&hosts)?;
        self.scans(&hosts)?;
        self.boards(&hosts)?;
        self.index(&hosts)?;
        self.evidence()
    }

    fn rows(&self, table: TableId) -> Result<store::Range, Error> {
        Ok(self.snapshot.range(table, &Keys::all())?)
    }

    fn head(&self, host: &Host) -> Result<(), Error> {
        let Some(chain) = &host.chain else {
            return Ok(());
        };
        let found = self.verifier.head(&host.name);
        let is_it = found.is_some_and(|head| {
            (head.scans, head.changes, &head.sha256) == (chain.scans, chain.changes, &chain.sha256)
        });
        if !is_it || host.scans != chain.scans {
            let what = format!("host `{}`", host.name);
            return Err(Wrong::new(what, "its head is not the last link of its chain").into());
        }
        Ok(())
    }

    /// As many rows as the chains have: all that the chains have are there, so that one more is none
    /// of theirs.
    fn counted(hosts: &BTreeMap<String, Host>, counts: BTreeMap<String, u64>) -> Result<(), Error> {
        for (name, rows) in counts {
            let chain = hosts.get(&name).and_then(|host| host.chain.as_ref());
            let has_none_yet = hosts.get(&name).is_some_and(|host| host.chain.is_none());
            if !has_none_yet && chain.is_none_or(|chain| chain.changes != rows) {
                let known = chain.map_or(0, |chain| chain.changes);
                let why = format!("it has {rows} rows of changes, and its chain {known}");
                return Err(Wrong::new(format!("host `{name}`"), why).into());
            }
        }
        Ok(())
    }

    fn scans(&mut self, hosts: &BTreeMap<String, Host>) -> Result<(), Error> {
        let mut unnumbered = 0;
        let mut rows = self.rows(self.tables.scans)?;
        loop {
            let page = rows.by_ref().take(PAGE);
            let page: Vec<_> = page.collect::<Result<_, _>>()?;
            if page.is_empty() {
                break;
            }
            unnumbered += self.scans_of(&page)?;
        }
        let known: u64 = hosts
            .values()
            .map(|host| match &host.chain {
                Some(chain) => chain.earlier.as_ref().map_or(0, |earlier| earlier.scans),
                None => host.scans,
            })
            .sum();
        if unnumbered != known {
            let why =
                format!("{unnumbered} are from before the chains, and the hosts know of {known}");
            return Err(Wrong::new("rows of scans", why).into());
        }
        Ok(())
    }

    /// Verdicts beside the changes of their rules, in one pass over both tables: they lie in one order.
    fn verdicts(&mut self, hosts: &BTreeMap<String, Host>) -> Result<(), Error> {
        let mut changes = Changes {
            rows: self.rows(self.tables.changes)?,
            next: None,
            counts: BTreeMap::new(),
        };
        // What is wrong with a chain tells more than what follows from it.
        let mut wrong = None;
        for item in self.rows(self.tables.states)? {
            let (key, value) = item?;
            self.steps.one()?;
            let times = changes.of(&key, self.steps)?;
            wrong = wrong.or(state_fault(&key, &value, hosts, times));
        }
        changes.rest(self.steps)?;
        Self::counted(hosts, changes.counts)?;
        wrong.map_or(Ok(()), |wrong| Err(wrong.into()))
    }

    /// Gives how many of them are from before the chains.
    fn scans_of(&mut self, page: &[(store::Bytes, store::Bytes)]) -> Result<u64, Error> {
        let what = |key: &[u8]| format!("scan {}", String::from_utf8_lossy(key));
        let (mut unnumbered, mut links) = (0, Vec::new());
        for (key, value) in page {
            self.steps.one()?;
            let scan: ScanRow = read(value, || what(key))?;
            match scan.number {
                0 => unnumbered += 1,
                number => links.push((row::link_key(&scan.host, number), &key[..], scan.host)),
            }
        }
        let wanted: Vec<_> = links
            .iter()
            .map(|(link, ..)| (self.tables.links, &link[..]))
            .collect();
        for ((_, key, host), found) in links.iter().zip(self.snapshot.get_many(&wanted)?) {
            let found = found.and_then(|value| serde_json::from_slice::<LinkRow>(&value).ok());
            if found.is_none_or(|found| found.scan_id.as_bytes() != *key) {
                let why = format!("it is not in the chain of host `{host}`");
                return Err(Wrong::new(what(key), why).into());
            }
        }
        Ok(unnumbered)
    }

    /// What pages of the fleet are made from, against the verdicts that it is to say again. A host from
    /// before there were boards has none, and is read by its states.
    fn boards(&mut self, hosts: &BTreeMap<String, Host>) -> Result<(), Error> {
        for item in self.rows(self.tables.boards)? {
            let (key, stored) = item?;
            self.steps.one()?;
            let name = String::from_utf8_lossy(&key).into_owned();
            let what = || format!("host `{name}`, its row of a fleet");
            let wrong = |why: &str| Error::from(Wrong::new(what(), why));
            let last = hosts.get(&name).and_then(|host| host.last_scan.as_ref());
            let last = last.ok_or_else(|| wrong("no scan of its host is known"))?;
            let scan = self.snapshot.get(self.tables.scans, last.as_bytes())?;
            let scan = scan.ok_or_else(|| wrong("the last scan of its host is not there"))?;
            let scan: ScanRow = read(&scan, what)?;
            let rows = self
                .snapshot
                .range(self.tables.states, &row::below(&[&key]))?;
            let states = rows.map(|item| read::<State>(&item?.1, what));
            let states = states.collect::<Result<Vec<_>, _>>()?;
            let fault = ledger::board::fault(&stored, &states, &scan.summary, |digest| {
                self.snapshot.get(self.tables.rules, digest.as_bytes())
            })?;
            if let Some(why) = fault {
                return Err(wrong(why));
            }
        }
        Ok(())
    }

    /// What hosts and changes are found by.
    fn index(&mut self, hosts: &BTreeMap<String, Host>) -> Result<(), Error> {
        let (tables, snapshot) = (&self.tables, self.snapshot);
        let steps = &mut *self.steps;
        let fault = ledger::index::fault::find(tables, snapshot, hosts, &mut || steps.one())?;
        fault.map_or(Ok(()), |it| Err(Wrong::new(it.what, it.why).into()))
    }

    fn evidence(&mut self) -> Result<(), Error> {
        for item in self.rows(self.tables.evidence)? {
            let (key, packed) = item?;
            self.steps.one()?;
            let content = ledger::unpack_evidence(&packed).map(|content| judge::digest(&content));
            if content.is_ok_and(|digest| digest.as_bytes() != &*key) {
                let what = format!("evidence {}", String::from_utf8_lossy(&key));
                return Err(Wrong::new(what, "its content has another SHA-256").into());
            }
        }
        Ok(())
    }
}

/// When a rule's verdict changed last and when it was first seen, as its changes have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    changed: Option<u64>,
    first_seen: Option<u64>,
}

/// The record of changes in order, each read once.
struct Changes {
    rows: store::Range,
    /// Read, and of what comes next.
    next: Option<(store::Bytes, store::Bytes)>,
    /// Rows by host.
    counts: BTreeMap<String, u64>,
}

impl Changes {
    fn next(
        &mut self,
        steps: &mut Steps<'_>,
    ) -> Result<Option<(store::Bytes, store::Bytes)>, Error> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        let Some(item) = self.rows.next() else {
            return Ok(None);
        };
        let (key, value) = item?;
        steps.one()?;
        *self.counts.entry(host_of(&key)).or_default() += 1;
        Ok(Some((key, value)))
    }

    /// Of the verdict with this key. Those before it are of rules that are judged no more.
    fn of(&mut self, state: &[u8], steps: &mut Steps<'_>) -> Result<Times, Error> {
        let mut times = Times::default();
        while let Some((key, value)) = self.next(steps)? {
            match rule_key(&key).cmp(state) {
                Less => {}
                Equal => {
                    let change: Change = read(&value, || what_of(state))?;
                    times.changed = Some(change.occurred);
                    if change.kind == ChangeKind::FirstSeen {
                        times.first_seen = Some(change.occurred);
                    }
                }
                Greater => {
                    self.next = Some((key, value));
                    break;
                }
            }
        }
        Ok(times)
    }

    fn rest(&mut self, steps: &mut Steps<'_>) -> Result<(), Error> {
        while self.next(steps)?.is_some() {}
        Ok(())
    }
}

/// Since when a state is what it is: by the changes of its rule.
fn state_fault(
    key: &[u8],
    value: &[u8],
    hosts: &BTreeMap<String, Host>,
    times: Times,
) -> Option<Wrong> {
    let wrong = |why: &str| Some(Wrong::new(what_of(key), why));
    let Ok(state) = serde_json::from_slice::<State>(value) else {
        return wrong("its row is not readable");
    };
    let Some(host) = hosts.get(&host_of(key)) else {
        return wrong("there is no such host");
    };
    let told = Times {
        changed: Some(state.changed),
        first_seen: Some(state.first_seen),
    };
    if host.chain.is_some() && told != times {
        return wrong("its times are not those of its changes");
    }
    None
}

/// Of the key of a change the part that is the key of its rule's verdict.
fn rule_key(change: &[u8]) -> &[u8] {
    let end = change.len().saturating_sub(1 + size_of::<u64>());
    &change[..end]
}

fn what_of(state: &[u8]) -> String {
    let rule = state.splitn(2, |&byte| byte == 0).nth(1);
    let rule = String::from_utf8_lossy(rule.unwrap_or_default());
    format!("host `{}`, verdict of `{rule}`", host_of(state))
}

fn host_of(key: &[u8]) -> String {
    let end = key.iter().position(|&byte| byte == 0).unwrap_or(key.len());
    String::from_utf8_lossy(&key[..end]).into_owned()
}

fn read<T: DeserializeOwned>(value: &[u8], what: impl Fn() -> String) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|_| Wrong::new(what(), "its row is not readable").into())
}
