//! Results that other tools found: XCCDF TestResults, alone, in their benchmark, or in an ARF report.
//!
//! Kept beside the ledger and never in it. The ledger is the record of what this program saw, moves
//! forward only, and carries the evidence of each verdict; a foreign result has the word of its tool
//! and comes with a time of the past. So each TestResult is a row of its own, under its host and its
//! own end, and is shown as imported. It changes no verdict, no score and no past answer of the ledger.
//! Named by the SHA-256 of what it says: the same result a second time changes nothing.

mod error;
mod reader;
mod result;
mod subject;

use std::{fmt, io::BufRead};

use serde_json::json;
use store::{History, Keys, Order, Store, Table, TableId};
use world::Timestamp;

pub use error::{Error, Kind};
pub use reader::{FileContent, read};
pub use result::{Counts, Header, RuleResult, TestResult, Word};
pub use subject::rules_for;

use crate::audit::{Audit, Record};

/// Imported results of one site; ten years of a daily scan of thirty hosts.
const RESULTS_MAX: usize = 100_000;
/// Rule results take about 150 bytes each and repeat themselves; higher levels gain little.
const COMPRESSION_LEVEL: i32 = 1;
/// Bytes of the rule results of one TestResult; bounds what is unpacked.
const RULES_BYTES_MAX: usize = 64 << 20;
const ATTEMPTS_MAX: u32 = 8;

const HEADERS: &str = "import.result";
const BY_HOST: &str = "import.host";
const RULES: &str = "import.rules";

/// Action of the audit record that an import makes.
pub const IMPORTED: &str = "import.results";

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub added: Vec<Header>,
    /// Results that were there already.
    pub known: usize,
}

/// The imported results, on a store that has [`Imports::tables`] and [`Audit::tables`].
#[derive(Clone)]
pub struct Imports {
    store: Store,
    headers: TableId,
    /// Host, end, id: no value. Lies in the order of time.
    by_host: TableId,
    rules: TableId,
    audit: Audit,
}

impl fmt::Debug for Imports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Imports")
    }
}

impl Imports {
    pub fn tables() -> Vec<Table> {
        [HEADERS, BY_HOST, RULES]
            .map(|name| Table::new(name, History::Latest))
            .to_vec()
    }

    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self {
            headers: store.table(HEADERS)?,
            by_host: store.table(BY_HOST)?,
            rules: store.table(RULES)?,
            audit: Audit::of(&store)?,
            store,
        })
    }

    /// Reads a whole file and then records all of it, or nothing.
    pub fn import(
        &self,
        input: impl BufRead,
        host: Option<&str>,
        file: &str,
        now: Timestamp,
        actor: &str,
    ) -> Result<Outcome, Error> {
        let content = read(input, host, now)?;
        self.add(&content, file, now, actor)
    }

    /// Records what a file held, in one transaction with its audit record.
    pub fn add(
        &self,
        content: &FileContent,
        file: &str,
        now: Timestamp,
        actor: &str,
    ) -> Result<Outcome, Error> {
        let mut attempts = 1;
        loop {
            match self.attempt(content, file, now, actor) {
                Err(error) if error.kind() == Kind::Conflict && attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                }
                settled => return settled,
            }
        }
    }

    fn attempt(
        &self,
        content: &FileContent,
        file: &str,
        now: Timestamp,
        actor: &str,
    ) -> Result<Outcome, Error> {
        let mut transaction = self.store.begin()?;
        let mut outcome = Outcome::default();
        for result in &content.results {
            let header = Header {
                imported: now.nanos(),
                by: actor.to_owned(),
                file: file.to_owned(),
                ..result.header.clone()
            };
            let id = header.id.as_bytes();
            let is_known = outcome.added.iter().any(|added| added.id == header.id)
                || transaction.get(self.headers, id)?.is_some();
            if is_known {
                outcome.known += 1;
                continue;
            }
            transaction.put(self.headers, id, &encode(&header))?;
            transaction.put(self.by_host, &host_key(&header), b"")?;
            let rules = zstd::bulk::compress(&encode(&result.rules), COMPRESSION_LEVEL)
                .map_err(|error| Error::new(Kind::Storage, "results").with_source(error))?;
            transaction.put(self.rules, id, &rules)?;
            outcome.added.push(header);
        }
        if outcome.added.is_empty() {
            return Ok(outcome);
        }
        let detail = json!({
            "sha256": content.sha256,
            "added": outcome.added.len(),
            "known": outcome.known,
            "hosts": hosts(&outcome.added),
        });
        let record = Record::new(now, actor, IMPORTED, file, detail);
        self.audit.append(&mut transaction, &record)?;
        transaction.commit()?;
        record.tell();
        Ok(outcome)
    }

    /// Imported results by host and then by time; of one host where it is named.
    pub fn list(&self, host: Option<&str>) -> Result<Vec<Header>, Error> {
        let keys = host.map_or_else(Keys::all, |host| {
            Keys::prefix(&[host.as_bytes(), &[0]].concat())
        });
        let snapshot = self.store.snapshot()?;
        let mut found = Vec::new();
        for row in snapshot.range(self.by_host, &keys)?.take(RESULTS_MAX) {
            let (key, _) = row?;
            let id = key.rsplit(|&byte| byte == 0).next().unwrap_or_default();
            if let Some(header) = snapshot.get(self.headers, id)? {
                found.push(decode(&header)?);
            }
        }
        Ok(found)
    }

    /// The result whose id begins with `id`; refused when several do.
    pub fn find(&self, id: &str) -> Result<Option<TestResult>, Error> {
        let mut transaction = self.store.begin()?;
        let keys = Keys::prefix(id.as_bytes());
        let rows = transaction.range(self.headers, &keys, Order::Ascending, 2)?;
        match rows.as_slice() {
            [] => Ok(None),
            [(_, row)] => Ok(Some(self.with_rules(decode(row)?)?)),
            _ => Err(Error::new(
                Kind::Invalid,
                format!("several imported results begin with `{id}`"),
            )),
        }
    }

    fn with_rules(&self, header: Header) -> Result<TestResult, Error> {
        let packed = self
            .store
            .snapshot()?
            .get(self.rules, header.id.as_bytes())?;
        let rules = packed
            .map(|packed| zstd::bulk::decompress(&packed, RULES_BYTES_MAX))
            .transpose()
            .map_err(|error| Error::new(Kind::Storage, "results do not unpack").with_source(error))?
            .map(|rules| decode(&rules))
            .transpose()?
            .unwrap_or_default();
        Ok(TestResult { header, rules })
    }

    /// What other tools said of the subject of one of our rules on a host, oldest first.
    pub fn of_rule(&self, host: &str, rule: &str) -> Result<Vec<(Header, RuleResult)>, Error> {
        let mut found = Vec::new();
        for header in self.list(Some(host))? {
            let result = self.with_rules(header)?;
            for said in result.rules {
                if rules_for(&said.rule).any(|ours| ours == rule) {
                    found.push((result.header.clone(), said));
                }
            }
        }
        Ok(found)
    }
}

fn hosts(headers: &[Header]) -> Vec<&str> {
    let names: std::collections::BTreeSet<&str> =
        headers.iter().map(|header| header.host.as_str()).collect();
    names.into_iter().collect()
}

fn host_key(header: &Header) -> Vec<u8> {
    let mut key = header.host.as_bytes().to_vec();
    key.push(0);
    // As text: a key part must not hold a zero byte, and times of 20 digits sort as they are.
    key.extend_from_slice(format!("{:020}", header.finished).as_bytes());
    key.push(0);
    key.extend_from_slice(header.id.as_bytes());
    key
}

fn encode<T: serde::Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain structs with string keys")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(Kind::Storage, "an imported result does not decode").with_source(error)
    })
}
