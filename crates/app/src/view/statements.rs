//! Signed statements over where all chains stand: what an auditor notes, and what vouches for a copy.

use scan::{
    policy::PublicKey,
    seal::{Book, Signature, Signed, Statement},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Error, Kind, Reader};

/// Statements of one page unless asked otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// Which statements.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatementsAsked {
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<u64>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// A statement as it is signed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StatementRow {
    /// SHA-256 over what is signed; `sequence:digest` is what `ledger verify --noted` takes.
    pub(crate) digest: String,
    /// docs/format/ledger-seal.md says what is in it.
    #[schema(value_type = Object)]
    pub(crate) row: Statement,
    #[schema(value_type = Vec<Object>)]
    pub(crate) signatures: Vec<Signature>,
    /// The key that signs it, as PEM.
    pub(crate) pem: Option<String>,
}

impl From<Signed> for StatementRow {
    fn from(signed: Signed) -> Self {
        Self {
            digest: signed.row.digest(),
            pem: PublicKey::parse(&signed.row.key).map(|key| key.to_pem()),
            row: signed.row,
            signatures: signed.signatures,
        }
    }
}

/// Some of the statements, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StatementPage {
    pub(crate) statements: Vec<StatementRow>,
    /// The cursor of the next page; null: this was the last.
    pub(crate) next: Option<String>,
}

pub(crate) fn statements(
    reader: &Reader<'_>,
    asked: &StatementsAsked,
) -> Result<StatementPage, Error> {
    let limit = asked.limit.unwrap_or(PAGE as u64);
    if !(1..=PAGE_MAX as u64).contains(&limit) {
        let detail = format!("limit is 1 to {PAGE_MAX}");
        return Err(Error::new(Kind::Invalid, detail));
    }
    let before: u64 = match &asked.cursor {
        Some(cursor) => cursor
            .parse()
            .map_err(|_| Error::new(Kind::Invalid, "that is no cursor of statements"))?,
        None => u64::MAX,
    };
    let book = Book::new(reader.store.clone())?;
    let snapshot = reader.store.snapshot()?;
    let newest = book.count(&snapshot)?.min(before.saturating_sub(1));
    let oldest = newest.saturating_sub(limit - 1).max(1);
    let mut statements = Vec::new();
    for sequence in (oldest..=newest).rev() {
        statements.push(book.statement(&snapshot, sequence)?.0.into());
    }
    let is_more = newest > 0 && oldest > 1;
    Ok(StatementPage {
        statements,
        next: is_more.then(|| oldest.to_string()),
    })
}

/// One statement by its number.
pub(crate) fn statement(reader: &Reader<'_>, sequence: &str) -> Result<StatementRow, Error> {
    let missing = || Error::missing("statement", sequence);
    let number: u64 = sequence.parse().map_err(|_| missing())?;
    let book = Book::new(reader.store.clone())?;
    let snapshot = reader.store.snapshot()?;
    if number == 0 || number > book.count(&snapshot)? {
        return Err(missing());
    }
    let (signed, _) = book.statement(&snapshot, number)?;
    Ok(signed.into())
}
