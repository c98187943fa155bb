//! The inventory: which hosts there are, and how each is reached.
//!
//! One row a host, by its name, which is its identity: the ledger, the schedule and the audit log
//! use it. Rows are never deleted, only retired (LED-5), and every version is kept, so that the
//! inventory can be asked as it was. Nothing here reads a clock or connects anywhere.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{History, Keys, Order, Store, Table, TableId, Transaction};
use world::Timestamp;

use crate::{
    audit::{Audit, Record},
    ledger::{self, Applied, Ledger, Scan},
    schedule::{self, Place},
};

mod error;
pub mod field;
pub mod import;
#[cfg(test)]
pub(crate) mod tests;

pub use error::{Error, Kind};

/// The port of SSH.
pub const PORT: u16 = 22;
/// Where a host is that nobody put anywhere.
pub const SITE: &str = "default";
/// Most hosts of one inventory. Derived from nothing but an order above the largest sites we heard
/// of; what lists them holds them in memory, about 1 KiB each.
pub const HOSTS_MAX: usize = 100_000;

/// Attempts before a conflict is given back. Commands are alone with the directory nearly always.
const ATTEMPTS_MAX: u32 = 8;

const HOSTS: &str = "inventory.host";

/// A host of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    pub reach: Reach,
    pub site: String,
    #[serde(default)]
    pub groups: BTreeSet<String>,
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// The name of its own credential; none: the default one.
    #[serde(default)]
    pub credential: Option<String>,
    /// Nanoseconds since the epoch, as all times of rows.
    pub added: u64,
    #[serde(default)]
    pub retired: Option<u64>,
}

/// How a host is reached (EXE-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "via", rename_all = "snake_case")]
pub enum Reach {
    /// The machine that this program runs on.
    Local,
    Ssh {
        /// As [`field::address`] gives it.
        address: String,
        port: u16,
        /// Who logs in; none: the user of the credential.
        #[serde(default)]
        user: Option<String>,
    },
    /// Not at all: facts are collected there by hand and judged here.
    Offline,
}

impl Host {
    pub fn new(name: impl Into<String>, reach: Reach, added: Timestamp) -> Self {
        Self {
            name: name.into(),
            reach,
            site: SITE.to_owned(),
            groups: BTreeSet::new(),
            tags: BTreeSet::new(),
            credential: None,
            added: added.nanos(),
            retired: None,
        }
    }

    /// Refuses a row that no operator could have meant; names the field. Gives the address its one
    /// form, so that equal hosts are equal rows.
    pub fn checked(mut self) -> Result<Self, Error> {
        field::name("host name", &self.name)?;
        field::label("site", &self.site)?;
        labels("group", &self.groups)?;
        labels("tag", &self.tags)?;
        if let Some(credential) = &self.credential {
            field::label("credential", credential)?;
        }
        if let Reach::Ssh {
            address,
            port,
            user,
        } = &mut self.reach
        {
            *address = field::address(address)?;
            if *port == 0 {
                return Err(Error::new(Kind::Invalid, "port 0: ports are 1 to 65535"));
            }
            if let Some(user) = user {
                field::name("user", user)?;
            }
        }
        Ok(self)
    }
}

fn labels(what: &str, labels: &BTreeSet<String>) -> Result<(), Error> {
    if labels.len() > field::LABELS_MAX {
        let message = format!("{} {what}s, more than {}", labels.len(), field::LABELS_MAX);
        return Err(Error::new(Kind::Invalid, message));
    }
    labels
        .iter()
        .try_for_each(|label| field::label(what, label))
}

impl Reach {
    /// How it is reached, in a word.
    pub const fn via(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh { .. } => "ssh",
            Self::Offline => "offline",
        }
    }
}

/// The hosts, on a store that has [`Inventory::tables`] and the ledger's.
#[derive(Clone)]
pub struct Inventory {
    store: Store,
    hosts: TableId,
    ledger: Ledger,
    schedule: schedule::Rows,
    audit: Audit,
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inventory")
    }
}

impl Inventory {
    pub fn tables() -> Vec<Table> {
        vec![Table::new(HOSTS, History::Forever)]
    }

    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self {
            hosts: store.table(HOSTS)?,
            ledger: Ledger::new(store.clone())?,
            schedule: schedule::Rows::of(&store)?,
            audit: Audit::of(&store)?,
            store,
        })
    }

    /// The store that the rows are in, for a transaction that other rows take part in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Runs `change` in a transaction of its own and commits it; after a conflict again, a few times.
    pub fn transact<T>(
        &self,
        mut change: impl FnMut(&mut Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut attempts = 1;
        loop {
            let done = self
                .store
                .begin()
                .map_err(Error::from)
                .and_then(|mut transaction| {
                    let outcome = change(&mut transaction)?;
                    transaction.commit()?;
                    Ok(outcome)
                });
            match done {
                Err(error) if error.kind() == Kind::Conflict && attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                }
                settled => return settled,
            }
        }
    }

    pub fn add(&self, host: &Host, actor: &str) -> Result<(), Error> {
        self.transact(|transaction| self.add_in(transaction, host, actor))
    }

    /// The host, and its place in the schedule, where it is due at once. A name that is there is
    /// refused, also when it is retired: its history is another machine's.
    pub fn add_in(
        &self,
        transaction: &mut Transaction,
        host: &Host,
        actor: &str,
    ) -> Result<(), Error> {
        let host = host.clone().checked()?;
        match self.get_in(transaction, &host.name)? {
            None => {
                let at = Timestamp::from_nanos(host.added);
                self.put_in(transaction, &host)?;
                self.place_in(transaction, &host, at, actor)?;
                self.record_in(transaction, "host.added", &host, at, actor)
            }
            Some(found) if found.retired.is_some() => Err(Error::new(
                Kind::Retired,
                format!("host `{}` was here and is retired", host.name),
            )),
            Some(_) => Err(Error::new(
                Kind::Exists,
                format!("host `{}` is in the inventory already", host.name),
            )),
        }
    }

    /// Replaces the row of a host that is there and not retired.
    pub fn update_in(
        &self,
        transaction: &mut Transaction,
        host: &Host,
        at: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        let mut host = host.clone().checked()?;
        let found = self.active_in(transaction, &host.name)?;
        host.added = found.added;
        host.retired = None;
        if host == found {
            return Ok(());
        }
        self.put_in(transaction, &host)?;
        self.place_in(transaction, &host, at, actor)?;
        self.record_in(transaction, "host.updated", &host, at, actor)
    }

    /// Takes no more scans and leaves the schedule; everything that is known of it stays. In the
    /// ledger too, where a host without a scan gets its row by this: one that is under way must not
    /// begin it.
    pub fn retire_in(
        &self,
        transaction: &mut Transaction,
        name: &str,
        at: Timestamp,
        actor: &str,
    ) -> Result<Host, Error> {
        let mut host = self.active_in(transaction, name)?;
        host.retired = Some(at.nanos());
        self.put_in(transaction, &host)?;
        self.ledger.retire_in(transaction, name, at)?;
        self.schedule.retire_in(transaction, name, at, actor)?;
        self.record_in(transaction, "host.retired", &host, at, actor)?;
        Ok(host)
    }

    pub fn retire(&self, name: &str, at: Timestamp, actor: &str) -> Result<Host, Error> {
        self.transact(|transaction| self.retire_in(transaction, name, at, actor))
    }

    /// One that nothing connects to has no place in the schedule.
    fn place_in(
        &self,
        transaction: &mut Transaction,
        host: &Host,
        at: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        if host.reach == Reach::Offline {
            self.schedule
                .retire_in(transaction, &host.name, at, actor)?;
            return Ok(());
        }
        let place = Place {
            host: host.name.clone(),
            site: host.site.clone(),
            groups: host.groups.clone(),
        };
        self.schedule.place_in(transaction, &place, at, actor)?;
        Ok(())
    }

    fn record_in(
        &self,
        transaction: &mut Transaction,
        action: &str,
        host: &Host,
        at: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        let row = serde_json::to_value(host).expect("rows are plain structs with string keys");
        let record = Record::new(at, actor, action, &host.name, row);
        Ok(self.audit.append(transaction, &record)?)
    }

    pub fn get(&self, name: &str) -> Result<Option<Host>, Error> {
        let found = self.store.snapshot()?.get(self.hosts, name.as_bytes())?;
        found.map(|row| decode(&row)).transpose()
    }

    pub fn get_in(&self, transaction: &mut Transaction, name: &str) -> Result<Option<Host>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = transaction.get(self.hosts, name.as_bytes())?;
        found.map(|row| decode(&row)).transpose()
    }

    /// Records a scan of facts that somebody brought, with what the audit log has of that, in one
    /// transaction. A host that is not here comes in, without a way to it. `digest` names the facts.
    pub fn replay(
        &self,
        scan: &Scan,
        digest: &str,
        actor: &str,
        sink: &dyn ledger::Sink,
    ) -> Result<Applied, ledger::Error> {
        self.ledger.apply_with(scan, sink, |transaction, applied| {
            if applied.replayed {
                return Ok(());
            }
            let at = scan.finished;
            if self.get_in(transaction, &scan.host)?.is_none() {
                let host = Host::new(&scan.host, Reach::Offline, at);
                self.add_in(transaction, &host, actor)?;
            }
            let row = json!({
                "scan": scan.id.to_string(),
                "facts": digest,
                "changes": applied.changes.len(),
            });
            let record = Record::new(at, actor, "scan.replayed", &scan.host, row);
            Ok(self.audit.append(transaction, &record)?)
        })
    }

    /// The host of that name that still takes scans.
    pub fn active_in(&self, transaction: &mut Transaction, name: &str) -> Result<Host, Error> {
        match self.get_in(transaction, name)? {
            None => Err(missing(name)),
            Some(host) if host.retired.is_some() => Err(Error::new(
                Kind::Retired,
                format!("host `{name}` is retired"),
            )),
            Some(host) => Ok(host),
        }
    }

    /// Every host by name, retired ones included; those of a past moment where one is given.
    pub fn list(&self, at: Option<Timestamp>) -> Result<Vec<Host>, Error> {
        let snapshot = match at {
            None => self.store.snapshot()?,
            Some(at) if self.is_before_everything(at)? => return Ok(Vec::new()),
            Some(at) => self.store.snapshot_at_time(at)?,
        };
        snapshot
            .range(self.hosts, &Keys::all())?
            .take(HOSTS_MAX)
            .map(|row| decode(&row?.1))
            .collect()
    }

    /// One host as it was at a moment.
    pub fn get_at(&self, name: &str, at: Timestamp) -> Result<Option<Host>, Error> {
        if name.is_empty() || self.is_before_everything(at)? {
            return Ok(None);
        }
        let snapshot = self.store.snapshot_at_time(at)?;
        let found = snapshot.get(self.hosts, name.as_bytes())?;
        found.map(|row| decode(&row)).transpose()
    }

    pub fn list_in(&self, transaction: &mut Transaction) -> Result<Vec<Host>, Error> {
        transaction
            .range(self.hosts, &Keys::all(), Order::Ascending, HOSTS_MAX)?
            .iter()
            .map(|(_, row)| decode(row))
            .collect()
    }

    /// A moment before anything was recorded: an answer and not an error.
    fn is_before_everything(&self, at: Timestamp) -> Result<bool, Error> {
        let from = self.store.retained()?.from;
        Ok(from.lsn == wal::Lsn::ZERO && at < from.time)
    }

    fn put_in(&self, transaction: &mut Transaction, host: &Host) -> Result<(), Error> {
        let row = serde_json::to_vec(host).expect("rows are plain structs with string keys");
        transaction.put(self.hosts, host.name.as_bytes(), &row)?;
        Ok(())
    }
}

pub(crate) fn missing(name: &str) -> Error {
    let shown: String = name.escape_debug().take(field::NAME_LEN_MAX).collect();
    Error::new(Kind::Missing, format!("no host `{shown}` in the inventory"))
}

fn decode(row: &[u8]) -> Result<Host, Error> {
    serde_json::from_slice(row).map_err(|error| {
        Error::new(Kind::Storage, "a row of the inventory does not decode").with_source(error)
    })
}
