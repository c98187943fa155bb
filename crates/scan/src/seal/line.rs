//! The lines of an export.
//!
//! One line is one JSON object in the canonical form; every other spelling of the same is refused, so
//! that no byte of an export can be changed without a word. The schema is docs/schema/ledger-export.json.

use serde::{Deserialize, Serialize};

use super::{HostHead, Signature, Statement, canonical};
use crate::{
    audit::chain::LinkedRecord,
    ledger::chain::{Begin, LinkedChange, LinkedScan, LinkedVerdict},
    utc::Utc,
};

/// What the first line says of the form of all others.
pub(super) const FORM: &str = super::EXPORT;

/// Longest line: evidence has 256 KiB at most, and a character of it at most two in a line of text.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What an export is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Audit,
    Ledger,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// The first one.
    Export {
        form: String,
        kind: Kind,
        made: Utc,
        /// Hosts that it was asked for; of the others it has heads only. `null`: all of them.
        only: Option<Vec<String>>,
        site: Option<String>,
    },
    /// The beginning of a host's chain.
    Host {
        row: Begin,
    },
    /// A change from before its host had a chain.
    Earlier {
        row: LinkedChange,
    },
    Change {
        chain: String,
        row: LinkedChange,
    },
    Scan {
        chain: String,
        row: LinkedScan,
    },
    /// Where the chain of a host stands that was not asked for.
    Head {
        row: HostHead,
    },
    Statement {
        row: Statement,
        signatures: Vec<Signature>,
    },
    /// What a host's last scan said of a rule.
    Verdict {
        host: String,
        row: LinkedVerdict,
    },
    Evidence {
        sha256: String,
        text: String,
    },
    Record {
        chain: String,
        row: LinkedRecord,
    },
    /// A record that was not asked for.
    Withheld {
        chain: String,
        number: u64,
        sha256: String,
    },
    /// The last one: how many lines are before it, their SHA-256, and a signature of that.
    End {
        lines: u64,
        sha256: String,
        signature: Option<Signature>,
    },
}

impl Line {
    /// With the line feed.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = canonical(self);
        bytes.push(b'\n');
        bytes
    }

    /// Of a line without its line feed; else what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let line: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is no such line: {error}"))?;
        if canonical(&line) != bytes {
            return Err("it is not spelled as an export spells it".to_owned());
        }
        Ok(line)
    }
}
