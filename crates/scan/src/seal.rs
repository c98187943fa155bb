//! Signed statements over the heads of all chains, and exports that verify elsewhere (LED-10, SVC-4).
//!
//! A chain shows that nothing in it was changed as long as its head is known. A [`Statement`] is what
//! makes heads known: one digest over the heads of all hosts, the head of the audit log, and the
//! statement before it, under an Ed25519 signature of the key `keys/ledger.key`. Whoever has the public
//! key, or only the digest of one statement on paper, can tell whether history from before it was
//! rewritten. Nothing here reads a clock; byte for byte it is in docs/format/ledger-seal.md.

use std::{error, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    judge::hex,
    policy::{PrivateKey, PublicKey},
    rule::canonical_json,
    utc::Utc,
};

mod book;
mod file;
pub mod key;
mod line;
mod local;
mod tour;
mod verifier;

#[cfg(test)]
mod tests;

pub use book::{Book, Sealed};
pub use file::{Export, verify_file};
pub use line::{Kind, LINE_BYTES_MAX, Line};
pub use local::verify_store;
pub use tour::Asked;
use tour::Tour;
pub use verifier::{KeyLost, Outcome, Verifier};

/// First line of what is signed: a signature for one of these is good for no other.
const STATEMENT: &str = "holdfast.ledger.statement/1";
const EXPORT: &str = "holdfast.export/1";
/// First line of what the heads of all hosts are hashed with.
const HEADS: &str = "holdfast.ledger.heads/1";

/// What a first statement has in place of the digest of the one before.
pub const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Where the chain of one host stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostHead {
    pub changes: u64,
    pub host: String,
    pub scans: u64,
    pub sha256: String,
}

/// Where the chains of all hosts stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    pub count: u64,
    pub sha256: String,
}

/// Where the chain of the audit log stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    pub records: u64,
    pub sha256: String,
}

/// Why a statement was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Asked,
    Export,
    Hourly,
    /// The key before is gone: nobody but the next one signs for it.
    KeyLost,
    Rotation,
    Stop,
}

/// What is signed. Fields are in the order of the canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    pub audit: AuditHead,
    pub hosts: Heads,
    /// The key that signs it, 32 bytes in base64.
    pub key: String,
    pub made: Utc,
    /// Position of the store that it tells of.
    pub position: u64,
    /// Digest of the statement before.
    pub previous: String,
    pub reason: Reason,
    /// From 1, without a gap.
    pub sequence: u64,
    /// Names the site whose statements these are; random.
    pub site: String,
}

/// A signature, and by which key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    pub key: String,
    pub value: String,
}

/// A statement with its signatures: by its key, and after a change of keys by the one before too, unless
/// that was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    pub row: Statement,
    pub signatures: Vec<Signature>,
}

impl Statement {
    /// The bytes that are signed.
    pub fn text(&self) -> String {
        let row = serde_json::to_string(self).expect("a plain struct with string keys");
        format!("{STATEMENT}\n{row}\n")
    }

    /// SHA-256 over what is signed: what the next statement, or a note on paper, calls it by.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.text()))
    }
}

impl Signature {
    fn of(key: &PrivateKey, text: &str) -> Self {
        Self {
            key: key.public().base64(),
            value: key.sign(text.as_bytes()),
        }
    }

    /// Whether its own key made it for `text`.
    fn is_for(&self, text: &str) -> bool {
        PublicKey::parse(&self.key).is_some_and(|key| key.verifies(text.as_bytes(), &self.value))
    }
}

/// What is signed at the end of an export, of all bytes before it.
fn export_text(sha256: &str) -> String {
    format!("{EXPORT}\n{sha256}\n")
}

/// The digest over all heads, in the order of the hosts' names.
fn heads<'a>(of: impl Iterator<Item = &'a HostHead>) -> Heads {
    let (mut digest, mut count) = (Sha256::new(), 0);
    digest.update(format!("{HEADS}\n"));
    for head in of {
        count += 1;
        digest.update(canonical(head));
        digest.update("\n");
    }
    Heads {
        count,
        sha256: hex(&digest.finalize()),
    }
}

fn canonical<T: Serialize>(row: &T) -> Vec<u8> {
    let value = serde_json::to_value(row).expect("rows are plain structs with string keys");
    canonical_json(&value)
}

/// The first thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// `host web-1, change 12`, `statement 3`, `line 77`.
    pub what: String,
    pub why: String,
}

impl Wrong {
    fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// Why something was not sealed, exported or verified to its end.
#[derive(Debug)]
pub enum Error {
    /// Tampered with, or damaged.
    Wrong(Wrong),
    /// The key is missing, another one or not readable.
    Key(String),
    /// The store could not be read or written.
    Store(store::Error),
    /// A file could not be read or written.
    Io(std::io::Error),
    /// A row is not readable, outside of what is chained.
    Row(String),
    /// Whoever asked for it asked to stop.
    Stopped,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(wrong) => wrong.fmt(f),
            Self::Key(text) | Self::Row(text) => f.write_str(text),
            Self::Store(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Stopped => f.write_str("stopped before its end"),
        }
    }
}

impl error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<crate::audit::chain::Error> for Error {
    fn from(error: crate::audit::chain::Error) -> Self {
        match error {
            crate::audit::chain::Error::Store(error) => Self::Store(error),
            crate::audit::chain::Error::Head => Wrong::new("audit log", error.to_string()).into(),
        }
    }
}

impl From<crate::ledger::Error> for Error {
    fn from(error: crate::ledger::Error) -> Self {
        Self::Row(error.to_string())
    }
}
