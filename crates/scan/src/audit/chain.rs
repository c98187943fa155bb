//! The hash chain of the audit log (SVC-4).
//!
//! Records are appended by whatever transaction makes the change they tell of, many at a time, and
//! linked afterwards by [`Audit::link`]: one transaction takes records that are marked as in no chain,
//! numbers and links them, and moves the head. Only those who link conflict with each other. Until
//! then, about a second, a record is not covered and can be removed without a trace.
//!
//! What is hashed is in docs/format/audit-chain.md. A link takes in the digest of its record and not
//! the record, so that an export can withhold records and still be verified.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use store::{Bytes, Keys, Kind, Snapshot, Store, Transaction};

use super::{Audit, Record};
use crate::{
    judge::{digest, hex},
    rule::canonical_json,
    utc::Utc,
};

/// First line of what is hashed for a link.
const RECORD: &str = "holdfast.audit.record/1";
/// First and only line of what is hashed for the link before the first.
const BEGIN: &str = "holdfast.audit.begin/1";

/// Records that one transaction links, and bytes of them: an eighth of what a transaction may have,
/// because a detail may be 64 KiB long.
const BATCH_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Attempts against others who link; each of them that goes through has done the work.
const ATTEMPTS_MAX: u32 = 8;

/// There is one row that says where the chain stands.
const ONE: &[u8] = b"head";

/// Where the chain stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last record in it; records are numbered from 1.
    pub records: u64,
    /// The last link, hexadecimal.
    pub sha256: String,
    /// Set while records from before the chain are being linked: the key of the last one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) adopting: Option<Vec<u8>>,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            records: 0,
            sha256: hex(&Sha256::digest(format!("{BEGIN}\n"))),
            adopting: None,
        }
    }
}

/// A record as it is hashed. Fields are in the order of the canonical form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkedRecord {
    pub action: String,
    pub actor: String,
    pub at: Utc,
    pub detail: Value,
    pub number: u64,
    pub object: String,
}

impl LinkedRecord {
    fn of(record: &Record, number: u64) -> Self {
        Self {
            action: record.action.clone(),
            actor: record.actor.clone(),
            at: Utc::from_nanos(record.at),
            detail: record.detail.clone(),
            number,
            object: record.object.clone(),
        }
    }

    /// SHA-256 over the row in its canonical form and a line feed.
    pub fn digest(&self) -> String {
        let value = serde_json::to_value(self).expect("a plain struct with string keys");
        let mut text = canonical_json(&value);
        text.push(b'\n');
        digest(&text)
    }
}

/// The link of a record with this digest after `previous`.
pub fn link(previous: &str, digest: &str) -> String {
    hex(&Sha256::digest(format!("{RECORD}\n{previous}\n{digest}\n")))
}

/// Why nothing could be linked.
#[derive(Debug)]
pub enum Error {
    Store(store::Error),
    /// The row of the head is not readable: linking on would hide what happened to it.
    Head,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Head => f.write_str("the head of the audit log's chain is not readable"),
        }
    }
}

impl std::error::Error for Error {}

/// A row of a record once it is linked; before, `number` is 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    record: Record,
    #[serde(default)]
    number: u64,
    #[serde(default)]
    chain: String,
}

/// A record in the chain, as it is kept.
#[derive(Clone, Debug)]
pub struct Linked {
    pub row: LinkedRecord,
    pub chain: String,
}

/// What a place of the chain holds.
#[derive(Clone, Debug)]
pub enum Place {
    Holds(Linked),
    /// The record that was linked here, or the row that finds it, is not there or not readable.
    Lost(&'static str),
}

/// Records that are read at a time when all of them are: some hundred kilobytes, and a thousand times
/// fewer questions to a database than one by one.
pub const PAGE: usize = 500;

impl Audit {
    /// Links what is in no chain yet; gives how many records that were.
    pub fn link(&self, store: &Store) -> Result<u64, Error> {
        let mut linked = 0;
        let mut attempts = 0;
        loop {
            match self.link_batch(store) {
                Ok((0, true)) => return Ok(linked),
                Ok((records, _)) => {
                    linked += records;
                    attempts = 0;
                }
                Err(Error::Store(error))
                    if error.kind() == Kind::Conflict && attempts < ATTEMPTS_MAX =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins before the snapshot is taken: what somebody else linked in between is either not marked
    /// in the snapshot or a conflict of the head. Tells whether nothing is left.
    fn link_batch(&self, store: &Store) -> Result<(u64, bool), Error> {
        let mut transaction = store.begin()?;
        let snapshot = store.snapshot()?;
        let mut head = match transaction.get(self.head, ONE)? {
            Some(value) => decode(&value)?,
            None => Head {
                adopting: Some(Vec::new()),
                ..Head::default()
            },
        };
        let (records, is_end) = match head.adopting.take() {
            Some(after) => self.adopt(&snapshot, &mut transaction, &mut head, &after)?,
            None => self.link_pending(&snapshot, &mut transaction, &mut head)?,
        };
        if records > 0 || !is_end {
            transaction.put(self.head, ONE, &encode(&head))?;
            transaction.commit()?;
        }
        Ok((records, is_end))
    }

    /// Records of a version without a chain, in the order in which they lie.
    fn adopt(
        &self,
        snapshot: &Snapshot,
        transaction: &mut Transaction,
        head: &mut Head,
        after: &[u8],
    ) -> Result<(u64, bool), Error> {
        let (mut records, mut looked, mut bytes) = (0, 0, 0);
        for item in snapshot.range(self.table, &Keys::after(after))? {
            let (key, value) = item?;
            looked += 1;
            bytes += value.len();
            if snapshot.get(self.pending, &key)?.is_none() {
                records += self.put_linked(transaction, head, &key, &value)?;
            }
            if looked >= BATCH_MAX || bytes >= BATCH_BYTES_MAX {
                head.adopting = Some(key.to_vec());
                return Ok((records, false));
            }
        }
        // What is marked comes after it. A log without a record gets no head either.
        Ok((records, looked == 0))
    }

    fn link_pending(
        &self,
        snapshot: &Snapshot,
        transaction: &mut Transaction,
        head: &mut Head,
    ) -> Result<(u64, bool), Error> {
        let (mut records, mut bytes) = (0, 0);
        for item in snapshot.range(self.pending, &Keys::all())? {
            let (key, _) = item?;
            let Some(value) = snapshot.get(self.table, &key)? else {
                continue;
            };
            bytes += value.len();
            let put = self.put_linked(transaction, head, &key, &value)?;
            if put > 0 {
                transaction.delete(self.pending, &key)?;
            }
            records += put;
            if records >= BATCH_MAX as u64 || bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        Ok((records, records == 0))
    }

    /// What does not decode stays out of the chain, and whoever verifies it is told.
    fn put_linked(
        &self,
        transaction: &mut Transaction,
        head: &mut Head,
        key: &[u8],
        value: &[u8],
    ) -> Result<u64, Error> {
        let Ok(mut row) = serde_json::from_slice::<Row>(value) else {
            return Ok(0);
        };
        head.records += 1;
        row.number = head.records;
        row.chain = link(
            &head.sha256,
            &LinkedRecord::of(&row.record, row.number).digest(),
        );
        head.sha256.clone_from(&row.chain);
        transaction.put(self.table, key, &encode(&row))?;
        transaction.put(self.links, &row.number.to_be_bytes(), key)?;
        Ok(1)
    }

    /// Where the chain stood at `snapshot`.
    pub fn head(&self, snapshot: &Snapshot) -> Result<Head, Error> {
        let found = snapshot.get(self.head, ONE)?;
        found.map_or_else(|| Ok(Head::default()), |value| decode(&value))
    }

    /// What the chain has at each of these numbers, in two reads of the store.
    pub fn places(
        &self,
        snapshot: &Snapshot,
        numbers: std::ops::RangeInclusive<u64>,
    ) -> Result<Vec<Place>, store::Error> {
        let numbers: Vec<u64> = numbers.collect();
        let keys: Vec<[u8; 8]> = numbers.iter().map(|number| number.to_be_bytes()).collect();
        let wanted: Vec<_> = keys.iter().map(|key| (self.links, &key[..])).collect();
        let keys = snapshot.get_many(&wanted)?;
        let wanted: Vec<_> = keys
            .iter()
            .flatten()
            .map(|key| (self.table, &key[..]))
            .collect();
        let mut values = snapshot.get_many(&wanted)?.into_iter();
        let place = |(number, key): (u64, &Option<Bytes>)| match key {
            None => Place::Lost("the row that finds the record is not there"),
            Some(key) => place(number, key, values.next().flatten()),
        };
        Ok(numbers.into_iter().zip(&keys).map(place).collect())
    }

    /// Looks through all records for one that the chain does not know: neither linked where it says
    /// nor marked to be. Gives how many are marked, and why the first one is wrong. Each page is looked
    /// at as it is then, since no snapshot is kept for as long as a long log takes.
    pub fn strangers(
        &self,
        store: &Store,
        mut looked: impl FnMut(u64),
    ) -> Result<(u64, Option<String>), store::Error> {
        let (mut marked, mut count) = (0, 0);
        let mut keys = Keys::all();
        loop {
            let snapshot = store.snapshot()?;
            let page = snapshot.range(self.table, &keys)?.take(PAGE);
            let page: Vec<(Bytes, Bytes)> = page.collect::<Result<_, _>>()?;
            let Some((last, _)) = page.last() else {
                return Ok((marked, None));
            };
            keys = Keys::after(last);
            let found = self.strangers_of(&snapshot, &page, &mut marked)?;
            count += page.len() as u64;
            looked(count);
            if found.is_some() {
                return Ok((marked, found));
            }
        }
    }

    fn strangers_of(
        &self,
        snapshot: &Snapshot,
        page: &[(Bytes, Bytes)],
        marked: &mut u64,
    ) -> Result<Option<String>, store::Error> {
        let rows: Vec<Option<Row>> = page
            .iter()
            .map(|(_, value)| serde_json::from_slice(value).ok())
            .collect();
        let number = |row: &Option<Row>| row.as_ref().map_or(0, |row| row.number);
        let links: Vec<[u8; 8]> = rows.iter().map(|row| number(row).to_be_bytes()).collect();
        let pending = page.iter().map(|(key, _)| (self.pending, &key[..]));
        let filed = links.iter().map(|key| (self.links, &key[..]));
        let wanted: Vec<_> = pending.chain(filed).collect();
        let found = snapshot.get_many(&wanted)?;
        let (pending, filed) = found.split_at(page.len());
        for (place, row) in rows.iter().enumerate() {
            let number = number(row);
            if number == 0 && pending[place].is_some() && row.is_some() {
                *marked += 1;
                continue;
            }
            let (key, filed) = (&page[place].0, &filed[place]);
            let is_filed = number > 0 && filed.as_ref().is_some_and(|filed| *filed == *key);
            if !is_filed {
                let what = row.as_ref().map_or_else(
                    || "a record that is not readable".to_owned(),
                    |row| {
                        let at = Utc::from_nanos(row.record.at);
                        format!("the record `{}` of {at}", row.record.action)
                    },
                );
                return Ok(Some(format!("{what} is in no chain")));
            }
        }
        Ok(None)
    }
}

/// What `value`, which the row for `number` finds under `key`, says of itself.
fn place(number: u64, key: &[u8], value: Option<Bytes>) -> Place {
    let Some(value) = value else {
        return Place::Lost("the record is not there");
    };
    let Ok(row) = serde_json::from_slice::<Row>(&value) else {
        return Place::Lost("the record is not readable");
    };
    if row.number != number || key.get(..8) != Some(&row.record.at.to_be_bytes()) {
        return Place::Lost("another record is filed there");
    }
    Place::Holds(Linked {
        row: LinkedRecord::of(&row.record, number),
        chain: row.chain,
    })
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain structs with string keys")
}

fn decode(bytes: &[u8]) -> Result<Head, Error> {
    serde_json::from_slice(bytes).map_err(|_| Error::Head)
}
