//! Tokens: who may ask a site what, over the network.
//!
//! A token is 256 random bits that are shown once. The store keeps its SHA-256, which finds it again
//! and opens nothing: 256 bits cannot be guessed, so that no salt and no slow hash is needed. Rows are
//! never removed: the audit log names tokens, and a name is one token for ever.

use std::{collections::BTreeSet, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{History, Keys, Order, Store, Table, TableId, Transaction};
use subtle::ConstantTimeEq;
use world::{Random, Timestamp};
use zeroize::Zeroizing;

use crate::{
    audit::{Audit, Record},
    inventory::{Error, Host, Kind, field},
};

const TABLE: &str = "token.token";
const USED: &str = "token.used";

/// What every token begins with, so that people and scanners of secrets know one.
pub const PREFIX: &str = "hf_";
/// Characters of a token: the prefix and 32 bytes in base 64.
pub const LEN: usize = PREFIX.len() + 43;
/// Tokens of one site, revoked ones too: their names stay taken. All are read for a list.
pub const TOKENS_MAX: usize = 10_000;
/// Labels of one scope; more are better said by a group.
const SCOPE_LABELS_MAX: usize = 100;

/// What a token may do. Each may do everything that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads how hosts stand.
    Viewer,
    /// Reads also who did what, and takes away exports.
    Auditor,
    /// Changes hosts, waivers, variables and the schedule, and has hosts scanned.
    Operator,
    /// Changes also credentials, policies and tokens.
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Auditor, Self::Operator, Self::Admin];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// What it may do, in a sentence.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Viewer => "reads how hosts stand and stood",
            Self::Auditor => "reads also the audit log, and takes away exports and statements",
            Self::Operator => "changes also hosts, waivers, variables and the schedule, and scans",
            Self::Admin => "changes also credentials, policies and tokens",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| {
            let message = format!("role `{}` is not known", text.escape_debug());
            Error::new(Kind::Invalid, message)
        })
    }
}

/// Which hosts a token is for. Empty: all of them, and what is not about hosts too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub sites: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
}

impl Scope {
    pub fn is_everything(&self) -> bool {
        self.sites.is_empty() && self.groups.is_empty() && self.hosts.is_empty()
    }

    /// Whether the host is one of those that any part of the scope names.
    pub fn holds(&self, host: &Host) -> bool {
        self.is_everything()
            || self.hosts.contains(&host.name)
            || self.sites.contains(&host.site)
            || !self.groups.is_disjoint(&host.groups)
    }

    fn check(&self) -> Result<(), Error> {
        let labels = [("site", &self.sites), ("group", &self.groups)];
        for (what, set) in labels {
            set.iter().try_for_each(|label| field::label(what, label))?;
        }
        self.hosts
            .iter()
            .try_for_each(|name| field::name("host name", name))?;
        if self.sites.len() + self.groups.len() + self.hosts.len() > SCOPE_LABELS_MAX {
            let message = format!("a scope of more than {SCOPE_LABELS_MAX} names");
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(())
    }
}

/// A token as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub name: String,
    pub role: Role,
    #[serde(default)]
    pub scope: Scope,
    /// Nanoseconds since the epoch, as all times of rows.
    pub made: u64,
    pub made_by: String,
    #[serde(default)]
    pub expires: Option<u64>,
    #[serde(default)]
    pub revoked: Option<u64>,
}

impl Token {
    pub fn standing(&self, now: Timestamp) -> Standing {
        if self.revoked.is_some() {
            Standing::Revoked
        } else if self.expires.is_some_and(|end| end <= now.nanos()) {
            Standing::Expired
        } else {
            Standing::Valid
        }
    }
}

/// Whether a token may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Valid,
    Expired,
    Revoked,
}

impl Standing {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// What a token is found by: the SHA-256 of its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Print([u8; 32]);

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Print")
    }
}

impl Print {
    /// `None` for what cannot be a token.
    pub fn of(text: &str) -> Option<Self> {
        let is_token = text.len() == LEN && text.is_ascii() && text.starts_with(PREFIX);
        is_token.then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub name: String,
    pub role: Role,
    pub scope: Scope,
    pub expires: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    /// Hexadecimal, and the key too: the row vouches for itself.
    sha256: String,
    #[serde(flatten)]
    token: Token,
}

/// The tokens, on a store that has [`Tokens::tables`] and [`Audit::tables`].
#[derive(Clone)]
pub struct Tokens {
    store: Store,
    table: TableId,
    used: TableId,
    audit: Audit,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    pub fn tables() -> Vec<Table> {
        vec![
            Table::new(TABLE, History::Latest),
            Table::new(USED, History::Latest),
        ]
    }

    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self {
            table: store.table(TABLE)?,
            used: store.table(USED)?,
            audit: Audit::of(&store)?,
            store,
        })
    }

    /// Makes a token and gives its text, which nothing can give again.
    pub fn add_in(
        &self,
        transaction: &mut Transaction,
        request: &Request,
        random: &dyn Random,
        at: Timestamp,
        actor: &str,
    ) -> Result<(Token, Zeroizing<String>), Error> {
        field::label("token", &request.name)?;
        request.scope.check()?;
        if request.expires.is_some_and(|end| end <= at) {
            return Err(Error::new(Kind::Invalid, "the token ends before it begins"));
        }
        let rows = self.rows_in(transaction)?;
        if rows.iter().any(|row| row.token.name == request.name) {
            let message = format!("token `{}` is there, or was", request.name.escape_debug());
            return Err(Error::new(Kind::Exists, message));
        }
        if rows.len() >= TOKENS_MAX {
            let message = format!("{TOKENS_MAX} tokens were made, and no more can be");
            return Err(Error::new(Kind::Invalid, message));
        }
        let text = text(random)?;
        let print = Print::of(&text).expect("made as a token is");
        let token = Token {
            name: request.name.clone(),
            role: request.role,
            scope: request.scope.clone(),
            made: at.nanos(),
            made_by: actor.to_owned(),
            expires: request.expires.map(Timestamp::nanos),
            revoked: None,
        };
        self.put_in(transaction, print, &token)?;
        self.record_in(transaction, "token.added", &token, at, actor)?;
        Ok((token, text))
    }

    /// It may not be used from here on. Told again for one that is revoked already: nothing is done.
    pub fn revoke_in(
        &self,
        transaction: &mut Transaction,
        name: &str,
        at: Timestamp,
        actor: &str,
    ) -> Result<Token, Error> {
        let rows = self.rows_in(transaction)?;
        let found = rows.into_iter().find(|row| row.token.name == name);
        let Some(Row { sha256, mut token }) = found else {
            let shown: String = name.escape_debug().take(field::NAME_LEN_MAX).collect();
            return Err(Error::new(Kind::Missing, format!("no token `{shown}`")));
        };
        if token.revoked.is_none() {
            token.revoked = Some(at.nanos());
            let print = print_of(&sha256)?;
            self.put_in(transaction, print, &token)?;
            self.record_in(transaction, "token.revoked", &token, at, actor)?;
        }
        Ok(token)
    }

    /// The token with this print, whatever its standing.
    pub fn find(&self, print: Print) -> Result<Option<Token>, Error> {
        let Some(value) = self.store.snapshot()?.get(self.table, &print.0)? else {
            return Ok(None);
        };
        let row = decode(&value)?;
        // The key found it; that the row is of this print is looked at without telling how much of
        // it is, by the time that takes.
        let is_same = bool::from(print_of(&row.sha256)?.0.ct_eq(&print.0));
        Ok(is_same.then_some(row.token))
    }

    /// Whether one was ever made.
    pub fn is_any_in(&self, transaction: &mut Transaction) -> Result<bool, Error> {
        Ok(!self.rows_in(transaction)?.is_empty())
    }

    /// By name, with when each was last used, to the hour.
    pub fn list(&self) -> Result<Vec<(Token, Option<u64>)>, Error> {
        let mut transaction = self.store.begin()?;
        let mut found = Vec::new();
        for row in self.rows_in(&mut transaction)? {
            let used = transaction.get(self.used, &print_of(&row.sha256)?.0)?;
            let used =
                used.and_then(|value| Some(u64::from_be_bytes(value.as_ref().try_into().ok()?)));
            found.push((row.token, used));
        }
        found.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Notes that a token is in use. For whoever does not do it for each request.
    pub fn used(&self, print: Print, at: Timestamp) -> Result<(), Error> {
        let mut transaction = self.store.begin()?;
        transaction.put(self.used, &print.0, &at.nanos().to_be_bytes())?;
        transaction.commit()?;
        Ok(())
    }

    fn rows_in(&self, transaction: &mut Transaction) -> Result<Vec<Row>, Error> {
        let limit = TOKENS_MAX + 1;
        transaction
            .range(self.table, &Keys::all(), Order::Ascending, limit)?
            .iter()
            .map(|(_, value)| decode(value))
            .collect()
    }

    fn put_in(
        &self,
        transaction: &mut Transaction,
        print: Print,
        token: &Token,
    ) -> Result<(), Error> {
        let row = Row {
            sha256: crate::judge::hex(&print.0),
            token: token.clone(),
        };
        let value = serde_json::to_vec(&row).expect("a plain struct with string keys");
        Ok(transaction.put(self.table, &print.0, &value)?)
    }

    fn record_in(
        &self,
        transaction: &mut Transaction,
        action: &str,
        token: &Token,
        at: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        let detail = json!({
            "role": token.role,
            "scope": token.scope,
            "expires": token.expires,
        });
        let record = Record::new(at, actor, action, &token.name, detail);
        Ok(self.audit.append(transaction, &record)?)
    }
}

fn text(random: &dyn Random) -> Result<Zeroizing<String>, Error> {
    let mut secret = Zeroizing::new([0; 32]);
    random.fill(secret.as_mut()).map_err(|error| {
        Error::new(Kind::Storage, "no randomness for a token").with_source(error)
    })?;
    let mut text = Zeroizing::new(String::with_capacity(LEN));
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(secret.as_ref(), &mut text);
    Ok(text)
}

fn print_of(hex: &str) -> Result<Print, Error> {
    let mut bytes = [0; 32];
    let is_whole = hex.len() == 64 && hex.is_ascii();
    let digits = (0..32).map(|at| hex.get(2 * at..2 * at + 2));
    for (byte, digits) in bytes.iter_mut().zip(digits) {
        let read = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        *byte = read
            .filter(|_| is_whole)
            .ok_or_else(|| Error::new(Kind::Storage, "a token in the store has no print"))?;
    }
    Ok(Print(bytes))
}

fn decode(value: &[u8]) -> Result<Row, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::new(Kind::Storage, "a token in the store does not decode").with_source(error)
    })
}

#[cfg(test)]
mod tests;
