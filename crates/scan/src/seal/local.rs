//! The whole history of one store, and what only a store can show: rows that no chain knows, heads in
//! the rows of hosts, the present state against the last changes.

use std::{
    collections::BTreeMap,
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
        self.changes(&hosts)?;
        self.scans(&hosts)?;
        self.states(&hosts)?;
        self.boards(&hosts)?;
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
    fn changes(&mut self, hosts: &BTreeMap<String, Host>) -> Result<(), Error> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for item in self.rows(self.tables.changes)? {
            let (key, _) = item?;
            self.steps.one()?;
            *counts.entry(host_of(&key)).or_default() += 1;
        }
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
        for item in self.rows(self.tables.scans)? {
            let (key, value) = item?;
            self.steps.one()?;
            let what = || format!("scan {}", String::from_utf8_lossy(&key));
            let scan: ScanRow = read(&value, what)?;
            if scan.number == 0 {
                unnumbered += 1;
                continue;
            }
            let link = row::link_key(&scan.host, scan.number);
            let found = self.snapshot.get(self.tables.links, &link)?;
            let found = found.and_then(|value| serde_json::from_slice::<LinkRow>(&value).ok());
            if found.is_none_or(|found| found.scan_id.as_bytes() != &*key) {
                let why = format!("it is not in the chain of host `{}`", scan.host);
                return Err(Wrong::new(what(), why).into());
            }
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

    /// Since when a state is what it is: by the changes of its rule.
    fn states(&mut self, hosts: &BTreeMap<String, Host>) -> Result<(), Error> {
        for item in self.rows(self.tables.states)? {
            let (key, value) = item?;
            self.steps.one()?;
            let name = host_of(&key);
            let state: State = read(&value, || format!("host `{name}`, a verdict"))?;
            let what = || format!("host `{name}`, verdict of `{}`", state.rule);
            let Some(host) = hosts.get(&name) else {
                return Err(Wrong::new(what(), "there is no such host").into());
            };
            let keys = row::below(&[name.as_bytes(), state.rule.as_bytes()]);
            let mut changed = None;
            let mut first_seen = None;
            for item in self.snapshot.range(self.tables.changes, &keys)?.rev() {
                let change: Change = read(&item?.1, what)?;
                changed.get_or_insert(change.occurred);
                if change.kind == ChangeKind::FirstSeen {
                    first_seen = Some(change.occurred);
                    break;
                }
            }
            let is_it = changed == Some(state.changed) && first_seen == Some(state.first_seen);
            if host.chain.is_some() && !is_it {
                return Err(Wrong::new(what(), "its times are not those of its changes").into());
            }
        }
        Ok(())
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

fn host_of(key: &[u8]) -> String {
    let end = key.iter().position(|&byte| byte == 0).unwrap_or(key.len());
    String::from_utf8_lossy(&key[..end]).into_owned()
}

fn read<T: DeserializeOwned>(value: &[u8], what: impl Fn() -> String) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|_| Wrong::new(what(), "its row is not readable").into())
}
