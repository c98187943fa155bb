//! Known hosts: which key a host showed when somebody vouched for it (EXE-4).
//!
//! Rows in the store, every version kept; OpenSSH's `known_hosts` is read and written. A host with a
//! key on record is known by its keys on record only: a key of another type is a change, and no
//! policy takes a change, because whoever sits in between chooses what type is offered.

use std::fmt;

use russh::keys::{Algorithm, HashAlg};
use serde::{Deserialize, Serialize};
use store::{History, Keys, Order, Store, Table, TableId, Transaction};
use world::Timestamp;

use crate::{
    failure::{Failure, Reason},
    inventory::{Error, Kind, PORT, field},
    policy::HostKeyPolicy,
};

mod line;
#[cfg(test)]
mod tests;

pub use line::globbed;
use line::{Line, Names};

pub use line::Fault;
pub use russh::keys::PublicKey;

/// Keys of one address. A host has one of each type; more come with changes of key.
const KEYS_MAX: usize = 64;
/// Lines with patterns, hashed names or revocations: each is looked at for every host, about a
/// microsecond each.
pub const PATTERNS_MAX: usize = 10_000;
/// Rows in all.
pub const ROWS_MAX: usize = 200_000;
/// Bytes of a file of known hosts: a hundred thousand lines.
pub const FILE_LEN_MAX: u64 = 16 << 20;

const KNOWN: &str = "known_hosts.key";
/// Keys of rows: `e` endpoint fingerprint, or `p` digest of the line; joined by zero bytes, which
/// neither holds.
const EXACT: &[u8] = b"e\0";
const PATTERN: &[u8] = b"p\0";

/// What the record says of the key that a host offers. Fingerprints are as `ssh-keygen -l` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    Known,
    /// No key is on record for this address.
    Unknown {
        offered: String,
    },
    /// Keys are on record, and this is none of them.
    Changed {
        offered: String,
        known: Vec<String>,
    },
    /// Marked as stolen or withdrawn.
    Revoked {
        offered: String,
    },
}

/// A key that may be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    Known,
    /// To be recorded with [`KnownHosts::trust_in`].
    FirstSight,
}

impl Check {
    /// Whether to go on to authentication at `endpoint`.
    pub fn judge(&self, policy: HostKeyPolicy, endpoint: &str) -> Result<Accepted, Failure> {
        let (reason, detail) = match (self, policy) {
            (Self::Known, _) => return Ok(Accepted::Known),
            (Self::Unknown { .. }, HostKeyPolicy::Tofu) => return Ok(Accepted::FirstSight),
            (Self::Unknown { offered }, HostKeyPolicy::RequireKnown) => (
                Reason::HostKeyUnknown,
                format!("{endpoint} offers {offered}, and no key is on record for it"),
            ),
            (Self::Changed { offered, known }, _) => (
                Reason::HostKeyChanged,
                format!(
                    "{endpoint} offers {offered}; on record is {}",
                    known.join(", ")
                ),
            ),
            (Self::Revoked { offered }, _) => (
                Reason::HostKeyChanged,
                format!("{endpoint} offers {offered}, which is revoked"),
            ),
        };
        Err(Failure::new(reason, detail))
    }
}

/// What is on record for one address: enough to check a key without the store.
#[derive(Clone, Debug)]
pub struct Known {
    endpoint: String,
    keys: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

impl Known {
    /// What a file of known hosts says of an address. Lines that cannot be read say nothing.
    pub fn in_file(text: &str, address: &str, port: u16) -> Result<Self, Error> {
        let mut known = Self {
            endpoint: endpoint(address, port)?,
            keys: Vec::new(),
            revoked: Vec::new(),
        };
        let lines = text
            .lines()
            .filter_map(|text| line::parse(text).ok().flatten());
        for line in lines.flatten() {
            if line::matches(line.names.as_str(), &known.endpoint) {
                if line.revoked {
                    known.revoked.push(line.key);
                } else {
                    known.keys.push(line.key);
                }
            }
        }
        Ok(known)
    }

    /// The keys that vouch for the host: on record, and not revoked.
    pub fn vouched(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys
            .iter()
            .filter(|key| matches!(self.check(key), Check::Known))
    }

    pub fn check(&self, offered: &PublicKey) -> Check {
        let is_offered = |key: &PublicKey| key.key_data() == offered.key_data();
        if self.revoked.iter().any(is_offered) {
            return Check::Revoked {
                offered: fingerprint(offered),
            };
        }
        // A key on record that was revoked since vouches for nothing, and still says that this
        // host was known: another key is a change.
        if self.keys.iter().any(is_offered) {
            Check::Known
        } else if self.keys.is_empty() {
            Check::Unknown {
                offered: fingerprint(offered),
            }
        } else {
            Check::Changed {
                offered: fingerprint(offered),
                known: self.keys.iter().map(fingerprint).collect(),
            }
        }
    }

    /// Types of the keys on record: to be asked for first, so that a host with several keys shows one
    /// that is known.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        self.keys.iter().map(PublicKey::algorithm).collect()
    }

    /// As it stands in a file of known hosts.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

/// As `ssh-keygen -l` prints it: `SHA256:` and base64.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// An address as it stands in a file of known hosts.
pub fn endpoint(address: &str, port: u16) -> Result<String, Error> {
    let address = field::address(address)?;
    Ok(if port == PORT {
        address
    } else {
        format!("[{address}]:{port}")
    })
}

/// A key on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// As in a file: one name, or patterns, or one that is hashed.
    pub names: String,
    #[serde(default)]
    pub revoked: bool,
    /// As in a file: type and base64.
    pub key: String,
    pub fingerprint: String,
    /// Nanoseconds since the epoch.
    pub added: u64,
}

/// What became of a file of known hosts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: usize,
    /// On record already.
    pub present: usize,
    /// Line numbers, from 1, and why they were left out.
    pub refused: Vec<(usize, Fault)>,
}

/// The record, on a store that has [`KnownHosts::tables`].
#[derive(Clone)]
pub struct KnownHosts {
    store: Store,
    known: TableId,
}

impl fmt::Debug for KnownHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownHosts")
    }
}

impl KnownHosts {
    pub fn tables() -> Vec<Table> {
        vec![Table::new(KNOWN, History::Forever)]
    }

    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self {
            known: store.table(KNOWN)?,
            store,
        })
    }

    pub fn check(&self, address: &str, port: u16, offered: &PublicKey) -> Result<Check, Error> {
        Ok(self.of(address, port)?.check(offered))
    }

    /// What is on record for an address.
    pub fn of(&self, address: &str, port: u16) -> Result<Known, Error> {
        let mut transaction = self.store.begin()?;
        self.of_in(&mut transaction, address, port)
    }

    fn of_in(
        &self,
        transaction: &mut Transaction,
        address: &str,
        port: u16,
    ) -> Result<Known, Error> {
        let endpoint = endpoint(address, port)?;
        let mut known = Known {
            keys: Vec::new(),
            revoked: Vec::new(),
            endpoint,
        };
        let exact = Keys::prefix(&exact_prefix(&known.endpoint));
        let exact = transaction.range(self.known, &exact, Order::Ascending, KEYS_MAX)?;
        let patterns = Keys::prefix(PATTERN);
        let most = PATTERNS_MAX + 1;
        let patterns = transaction.range(self.known, &patterns, Order::Ascending, most)?;
        if patterns.len() > PATTERNS_MAX {
            // One that is not looked at may be the one that revokes.
            return Err(too_many(
                PATTERNS_MAX,
                "patterns, hashed names and revocations",
            ));
        }
        for (_, row) in exact.iter().chain(&patterns) {
            let entry = decode(row)?;
            if !line::matches(&entry.names, &known.endpoint) {
                continue;
            }
            let key = parse_key(&entry.key)?;
            if entry.revoked {
                known.revoked.push(key);
            } else {
                known.keys.push(key);
            }
        }
        Ok(known)
    }

    /// Records that somebody vouched for `key`, beside what is on record already.
    pub fn trust_in(
        &self,
        transaction: &mut Transaction,
        address: &str,
        port: u16,
        key: &PublicKey,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let endpoint = endpoint(address, port)?;
        self.put_in(
            transaction,
            &Line::exact(endpoint, key),
            &mut Room::default(),
            at,
        )
    }

    pub fn trust(
        &self,
        address: &str,
        port: u16,
        key: &PublicKey,
        at: Timestamp,
    ) -> Result<bool, Error> {
        self.store
            .transact(|transaction| self.trust_in(transaction, address, port, key, at))
    }

    /// Takes back what was vouched for under exactly this address; lines with patterns stay.
    pub fn forget_in(
        &self,
        transaction: &mut Transaction,
        address: &str,
        port: u16,
    ) -> Result<usize, Error> {
        let keys = Keys::prefix(&exact_prefix(&endpoint(address, port)?));
        let found = transaction.range(self.known, &keys, Order::Ascending, KEYS_MAX)?;
        for (key, _) in &found {
            transaction.delete(self.known, key)?;
        }
        Ok(found.len())
    }

    /// Everything on record: those with a name of their own first, by name.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        self.store
            .snapshot()?
            .range(self.known, &Keys::all())?
            .take(ROWS_MAX)
            .map(|row| decode(&row?.1))
            .collect()
    }

    /// Takes in the lines of a file of known hosts; those that cannot be taken are named.
    pub fn import_in(
        &self,
        transaction: &mut Transaction,
        text: &str,
        at: Timestamp,
    ) -> Result<Imported, Error> {
        let mut imported = Imported::default();
        let mut room = Room::default();
        for (index, text) in text.lines().enumerate() {
            match line::parse(text) {
                Ok(None) => {}
                Ok(Some(lines)) => {
                    for line in lines {
                        if self.put_in(transaction, &line, &mut room, at)? {
                            imported.added += 1;
                        } else {
                            imported.present += 1;
                        }
                    }
                }
                Err(fault) => imported.refused.push((index + 1, fault)),
            }
        }
        Ok(imported)
    }

    pub fn import(&self, text: &str, at: Timestamp) -> Result<Imported, Error> {
        self.store
            .transact(|transaction| self.import_in(transaction, text, at))
    }

    /// Everything on record as a file of known hosts.
    pub fn export(&self) -> Result<String, Error> {
        Ok(self.list()?.iter().map(line::written).collect())
    }

    /// Whether the row was not there yet.
    fn put_in(
        &self,
        transaction: &mut Transaction,
        line: &Line,
        room: &mut Room,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let key = row_key(line);
        if transaction.get(self.known, &key)?.is_some() {
            return Ok(false);
        }
        room.take(self, transaction, line)?;
        let row = serde_json::to_vec(&line.entry(at)).expect("rows are plain structs");
        transaction.put(self.known, &key, &row)?;
        Ok(true)
    }
}

/// Rows that are there, counted when the first one is added: what is read back is bounded, so what is
/// written has to be, or a line would be on record and say nothing.
#[derive(Debug, Default)]
struct Room {
    patterns: Option<usize>,
    rows: Option<usize>,
}

impl Room {
    fn take(
        &mut self,
        of: &KnownHosts,
        transaction: &mut Transaction,
        line: &Line,
    ) -> Result<(), Error> {
        let mut count = |keys: &Keys, most: usize| {
            let found = transaction.range(of.known, keys, Order::Ascending, most)?;
            Ok::<usize, Error>(found.len())
        };
        let key = row_key(line);
        if key.starts_with(PATTERN) {
            let patterns = match self.patterns {
                Some(patterns) => patterns,
                None => count(&Keys::prefix(PATTERN), PATTERNS_MAX)?,
            };
            if patterns >= PATTERNS_MAX {
                return Err(too_many(
                    PATTERNS_MAX,
                    "patterns, hashed names and revocations",
                ));
            }
            self.patterns = Some(patterns + 1);
        } else {
            let keys = Keys::prefix(&exact_prefix(line.names.as_str()));
            if count(&keys, KEYS_MAX)? >= KEYS_MAX {
                let what = format!("keys of `{}`", line.names.as_str().escape_debug());
                return Err(too_many(KEYS_MAX, &what));
            }
        }
        let rows = match self.rows {
            Some(rows) => rows,
            None => count(&Keys::all(), ROWS_MAX)?,
        };
        if rows >= ROWS_MAX {
            return Err(too_many(ROWS_MAX, "known hosts"));
        }
        self.rows = Some(rows + 1);
        Ok(())
    }
}

fn too_many(most: usize, what: &str) -> Error {
    let message =
        format!("{what}: at most {most} can be on record, and they are; forget some first");
    Error::new(Kind::Invalid, message)
}

fn row_key(line: &Line) -> Vec<u8> {
    match &line.names {
        Names::Exact(name) if !line.revoked => {
            let mut key = exact_prefix(name);
            key.extend_from_slice(fingerprint(&line.key).as_bytes());
            key
        }
        names => {
            use sha2::Digest;
            let mut digest = sha2::Sha256::new();
            digest.update([u8::from(line.revoked)]);
            digest.update(names.as_str());
            digest.update([0]);
            digest.update(fingerprint(&line.key));
            [PATTERN, digest.finalize().as_slice()].concat()
        }
    }
}

fn exact_prefix(endpoint: &str) -> Vec<u8> {
    [EXACT, endpoint.as_bytes(), b"\0"].concat()
}

fn parse_key(text: &str) -> Result<PublicKey, Error> {
    PublicKey::from_openssh(text)
        .map_err(|error| Error::new(Kind::Storage, "a key on record").with_source(error))
}

fn decode(row: &[u8]) -> Result<Entry, Error> {
    serde_json::from_slice(row).map_err(|error| {
        Error::new(Kind::Storage, "a row of known hosts does not decode").with_source(error)
    })
}
