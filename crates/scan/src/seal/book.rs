//! The statements in the store.
//!
//! Heads are read from a snapshot and not in the transaction that adds the statement: with hosts that
//! are scanned all the time it would never commit. Only those who seal conflict, over the row of the
//! newest statement. Which heads moved since the statement before is written first, under a name that
//! only the statement gives: what a crash leaves of that is never looked at.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::{History, Keys, Kind, Snapshot, Store, Table, TableId};
use world::{Disk, Random, Timestamp};

use super::{
    AuditHead, Error, HostHead, NOTHING_BEFORE, Reason, Signature, Signed, Statement, Wrong, heads,
    key,
};
use crate::{
    audit::Audit,
    ledger::{Host, row},
    policy::PrivateKey,
    utc::Utc,
};

const STATEMENTS: &str = "seal.statement";
const MOVED: &str = "seal.moved";
const LATEST: &str = "seal.latest";
const NEWEST: &str = "seal.newest";
/// There is one row that says which statement is the newest.
const ONE: &[u8] = b"newest";

/// Heads that one transaction writes: 5,000 of at most 700 bytes are a fifth of what it may have.
const HEADS_BATCH: usize = 5_000;

/// Attempts against others who seal; whoever wins has said the same.
const ATTEMPTS_MAX: u32 = 8;

#[derive(Clone, Copy, Debug)]
struct Tables {
    statements: TableId,
    moved: TableId,
    latest: TableId,
    newest: TableId,
    hosts: TableId,
}

/// Which statement is the newest.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Newest {
    sequence: u64,
    digest: String,
    key: String,
    site: String,
    audit: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    signed: Signed,
    /// Under what its moved heads are filed.
    batch: String,
}

/// A statement that was made.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub signed: Signed,
    /// Hosts whose chain is longer than at the statement before.
    pub moved: usize,
}

/// Statements on a store that has [`Book::tables`] and those of ledger and audit log.
#[derive(Clone)]
pub struct Book {
    store: Store,
    tables: Tables,
    audit: Audit,
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Book")
    }
}

impl Book {
    pub fn tables() -> Vec<Table> {
        [STATEMENTS, MOVED, LATEST, NEWEST]
            .map(|name| Table::new(name, History::Latest))
            .to_vec()
    }

    pub fn new(store: Store) -> Result<Self, Error> {
        let tables = Tables {
            statements: store.table(STATEMENTS)?,
            moved: store.table(MOVED)?,
            latest: store.table(LATEST)?,
            newest: store.table(NEWEST)?,
            hosts: row::Tables::of(&store)?.hosts,
        };
        let audit = Audit::of(&store)?;
        Ok(Self {
            store,
            tables,
            audit,
        })
    }

    /// The key in force, by what the newest statement says; made where there is no statement.
    pub fn key(
        &self,
        disk: &dyn Disk,
        keys_dir: &Path,
        random: &dyn Random,
    ) -> Result<PrivateKey, Error> {
        let newest = self.newest(&self.store.snapshot()?)?;
        let signed_by = newest.as_ref().map(|newest| newest.key.as_str());
        key::current(disk, keys_dir, random, signed_by)
    }

    /// The public key that signed the newest statement.
    pub fn signed_by(&self) -> Result<Option<String>, Error> {
        let newest = self.newest(&self.store.snapshot()?)?;
        Ok(newest.map(|newest| newest.key))
    }

    /// Whether anything was stated yet: by then the key is known.
    pub fn is_begun(&self) -> Result<bool, Error> {
        Ok(self.newest(&self.store.snapshot()?)?.is_some())
    }

    /// Links what is new in the audit log and states where everything stands. `None`: nothing is new,
    /// and `reason` is none that says so each time.
    pub fn seal(
        &self,
        key: &PrivateKey,
        random: &dyn Random,
        reason: Reason,
        now: Timestamp,
    ) -> Result<Option<Sealed>, Error> {
        self.retried(|| self.seal_once(key, None, random, reason, now))
    }

    /// As [`Book::seal`], by the next key, for which the one before signs too.
    pub fn rotate(
        &self,
        before: &PrivateKey,
        next: &PrivateKey,
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<Sealed, Error> {
        let sealed =
            self.retried(|| self.seal_once(next, Some(before), random, Reason::Rotation, now))?;
        sealed.ok_or_else(|| Error::Row("a rotation is always stated".to_owned()))
    }

    /// As [`Book::seal`], by a key in place of one that is lost; the statement says so, and nobody else
    /// signs it.
    pub fn replace_lost(
        &self,
        next: &PrivateKey,
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<Sealed, Error> {
        let sealed = self.retried(|| self.seal_once(next, None, random, Reason::KeyLost, now))?;
        sealed.ok_or_else(|| Error::Row("a lost key is always stated".to_owned()))
    }

    fn retried<T>(&self, attempt: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        self.audit.link(&self.store)?;
        let mut attempts = 1;
        loop {
            match attempt() {
                Err(Error::Store(error))
                    if error.kind() == Kind::Conflict && attempts < ATTEMPTS_MAX =>
                {
                    attempts += 1;
                }
                settled => return settled,
            }
        }
    }

    fn seal_once(
        &self,
        key: &PrivateKey,
        before: Option<&PrivateKey>,
        random: &dyn Random,
        reason: Reason,
        now: Timestamp,
    ) -> Result<Option<Sealed>, Error> {
        let mut transaction = self.store.begin()?;
        let newest: Option<Newest> = transaction
            .get(self.tables.newest, ONE)?
            .map(|value| decode(&value))
            .transpose()?;
        let signer = before.unwrap_or(key).public().base64();
        let is_other = |newest: &&Newest| newest.key != signer && reason != Reason::KeyLost;
        if let Some(newest) = newest.as_ref().filter(is_other) {
            return Err(Error::Key(format!(
                "the newest statement was signed by the key {}, and not by {signer}",
                newest.key
            )));
        }
        let snapshot = self.store.snapshot()?;
        let all = self.heads(&snapshot)?;
        let moved = self.moved_heads(&snapshot, &all)?;
        let audit = self.audit.head(&snapshot)?;
        let says_always = matches!(
            reason,
            Reason::Asked | Reason::Hourly | Reason::Rotation | Reason::KeyLost
        );
        let is_new = newest
            .as_ref()
            .is_none_or(|newest| !moved.is_empty() || newest.audit != audit.records);
        if !is_new && !says_always {
            return Ok(None);
        }
        let row = Statement {
            audit: AuditHead {
                records: audit.records,
                sha256: audit.sha256,
            },
            hosts: heads(all.iter()),
            key: key.public().base64(),
            made: Utc(now),
            position: snapshot.lsn().get(),
            previous: newest
                .as_ref()
                .map_or_else(|| NOTHING_BEFORE.to_owned(), |newest| newest.digest.clone()),
            reason,
            sequence: newest.as_ref().map_or(1, |newest| newest.sequence + 1),
            site: match newest {
                Some(newest) => newest.site,
                None => name(random)?,
            },
        };
        let signatures = std::iter::once(key)
            .chain(before)
            .map(|key| Signature::of(key, &row.text()))
            .collect();
        let signed = Signed { row, signatures };
        self.add(transaction, &signed, &moved, &name(random)?)?;
        Ok(Some(Sealed {
            signed,
            moved: moved.len(),
        }))
    }

    /// The moved heads, then the statement that names them, then by what the next one tells what moved:
    /// a crash before the last lets the next statement name heads again, which says nothing else.
    fn add(
        &self,
        mut transaction: store::Transaction,
        signed: &Signed,
        moved: &[&HostHead],
        batch: &str,
    ) -> Result<(), Error> {
        self.write_heads(moved, |head| {
            let key = [batch.as_bytes(), head.host.as_bytes()].concat();
            (self.tables.moved, key)
        })?;
        let row = Row {
            signed: signed.clone(),
            batch: batch.to_owned(),
        };
        let newest = Newest {
            sequence: signed.row.sequence,
            digest: signed.row.digest(),
            key: signed.row.key.clone(),
            site: signed.row.site.clone(),
            audit: signed.row.audit.records,
        };
        let key = signed.row.sequence.to_be_bytes();
        transaction.put(self.tables.statements, &key, &encode(&row))?;
        transaction.put(self.tables.newest, ONE, &encode(&newest))?;
        transaction.commit()?;
        self.write_heads(moved, |head| {
            (self.tables.latest, head.host.as_bytes().to_vec())
        })
    }

    fn write_heads(
        &self,
        of: &[&HostHead],
        place: impl Fn(&HostHead) -> (TableId, Vec<u8>),
    ) -> Result<(), Error> {
        for batch in of.chunks(HEADS_BATCH) {
            let mut transaction = self.store.begin()?;
            for &head in batch {
                let (table, key) = place(head);
                transaction.put(table, &key, &encode(head))?;
            }
            transaction.commit()?;
        }
        Ok(())
    }

    /// By name of the host, those that have a chain.
    fn heads(&self, snapshot: &Snapshot) -> Result<Vec<HostHead>, Error> {
        let mut found = Vec::new();
        for item in snapshot.range(self.tables.hosts, &Keys::all())? {
            let host: Host = decode(&item?.1)?;
            if let Some(chain) = host.chain {
                found.push(HostHead {
                    changes: chain.changes,
                    host: host.name,
                    scans: chain.scans,
                    sha256: chain.sha256,
                });
            }
        }
        Ok(found)
    }

    fn moved_heads<'a>(
        &self,
        snapshot: &Snapshot,
        all: &'a [HostHead],
    ) -> Result<Vec<&'a HostHead>, Error> {
        let latest: BTreeMap<String, HostHead> = snapshot
            .range(self.tables.latest, &Keys::all())?
            .map(|item| {
                let head: HostHead = decode(&item?.1)?;
                Ok((head.host.clone(), head))
            })
            .collect::<Result<_, Error>>()?;
        let is_moved = |head: &&HostHead| latest.get(&head.host) != Some(head);
        Ok(all.iter().filter(is_moved).collect())
    }

    fn newest(&self, snapshot: &Snapshot) -> Result<Option<Newest>, Error> {
        let found = snapshot.get(self.tables.newest, ONE)?;
        found.map(|value| decode(&value)).transpose()
    }

    /// How many statements there are.
    pub fn count(&self, snapshot: &Snapshot) -> Result<u64, Error> {
        Ok(self.newest(snapshot)?.map_or(0, |newest| newest.sequence))
    }

    /// The name of the site, once there is a statement.
    pub fn site(&self, snapshot: &Snapshot) -> Result<Option<String>, Error> {
        Ok(self.newest(snapshot)?.map(|newest| newest.site))
    }

    /// The statement with this number, and the heads that moved before it, by name of the host.
    pub fn statement(
        &self,
        snapshot: &Snapshot,
        sequence: u64,
    ) -> Result<(Signed, impl Iterator<Item = Result<HostHead, Error>>), Error> {
        let lost = || Wrong::new(format!("statement {sequence}"), "it is not there");
        let value = snapshot
            .get(self.tables.statements, &sequence.to_be_bytes())?
            .ok_or_else(lost)?;
        let row: Row = serde_json::from_slice(&value)
            .map_err(|_| Wrong::new(format!("statement {sequence}"), "its row is not readable"))?;
        let moved = snapshot
            .range(self.tables.moved, &Keys::prefix(row.batch.as_bytes()))?
            .map(|item| decode(&item?.1));
        Ok((row.signed, moved))
    }
}

fn name(random: &dyn Random) -> Result<String, Error> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string())
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain structs with string keys")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::Row(format!(
            "a row of the hosts or statements is not readable: {error}"
        ))
    })
}
