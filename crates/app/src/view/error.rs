//! Why a question was not answered, in words for whoever asked it.

use std::fmt;

use scan::{inventory, ledger, policy, schedule, variable, waiver};

/// What the asker can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What is asked cannot be.
    Invalid,
    /// Nothing of that name.
    Missing,
    Exists,
    Retired,
    InUse,
    /// Another change came in between; try again.
    Conflict,
    /// A moment outside of what is kept.
    OutOfRange,
    /// A credential that cannot be opened.
    Sealed,
    /// A policy that is not taken.
    Refused,
    Full,
    /// The store is closed: the process stops.
    Closed,
    /// Another node may record at present, or whether this one did is not known yet.
    Fenced,
    Storage,
}

/// A question without an answer. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub(crate) fn no_host(name: &str) -> Self {
        Self::missing("host", name)
    }

    /// `name` is what somebody sent, and is shown escaped and cut short.
    pub(crate) fn missing(what: &str, name: &str) -> Self {
        let shown: String = name.escape_debug().take(100).collect();
        Self::new(Kind::Missing, format!("no {what} `{shown}`"))
    }
}

impl From<scan::seal::Error> for Error {
    fn from(error: scan::seal::Error) -> Self {
        match error {
            scan::seal::Error::Store(error) => error.into(),
            other => Self::new(Kind::Storage, other.to_string()),
        }
    }
}

impl From<scan::export::Error> for Error {
    fn from(error: scan::export::Error) -> Self {
        use scan::export::Kind as Export;
        let kind = match error.kind() {
            Export::Missing => Kind::Missing,
            Export::Invalid => Kind::Invalid,
            Export::OutOfRange => Kind::OutOfRange,
            Export::Storage => Kind::Storage,
            Export::Write | Export::Stopped => Kind::Closed,
        };
        Self::new(kind, error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}

fn of_store(error: &store::Error) -> Kind {
    match error.kind() {
        store::Kind::Conflict => Kind::Conflict,
        store::Kind::OutOfRange => Kind::OutOfRange,
        store::Kind::Full => Kind::Full,
        store::Kind::Closed => Kind::Closed,
        store::Kind::Fenced => Kind::Fenced,
        _ => Kind::Storage,
    }
}

/// The store's own kind where a room above it says no more than that the store refused.
fn source_kind(error: &(dyn std::error::Error + 'static)) -> Option<Kind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<store::Error>() {
            return Some(of_store(found));
        }
        source = error.source();
    }
    None
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::new(of_store(&error), error.to_string())
    }
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        let kind = match error.class() {
            ledger::Class::Constraint => Kind::Invalid,
            ledger::Class::Conflict => Kind::Conflict,
            ledger::Class::OutOfRange => Kind::OutOfRange,
            ledger::Class::EvidenceOversize | ledger::Class::EvidenceInvalid => Kind::Invalid,
            ledger::Class::Storage | ledger::Class::Unknown => {
                source_kind(&error).unwrap_or(Kind::Storage)
            }
        };
        Self::new(kind, error.to_string())
    }
}

fn of_inventory(kind: inventory::Kind) -> Kind {
    match kind {
        inventory::Kind::Invalid => Kind::Invalid,
        inventory::Kind::Missing => Kind::Missing,
        inventory::Kind::Exists => Kind::Exists,
        inventory::Kind::Retired => Kind::Retired,
        inventory::Kind::InUse => Kind::InUse,
        inventory::Kind::Conflict => Kind::Conflict,
        inventory::Kind::Sealed => Kind::Sealed,
        inventory::Kind::Storage => Kind::Storage,
    }
}

impl From<inventory::Error> for Error {
    fn from(error: inventory::Error) -> Self {
        let kind = source_kind(&error).unwrap_or_else(|| of_inventory(error.kind()));
        Self::new(kind, error.to_string())
    }
}

impl From<schedule::Error> for Error {
    fn from(error: schedule::Error) -> Self {
        let kind = match error.kind() {
            schedule::Kind::Conflict | schedule::Kind::LeaseLost => Kind::Conflict,
            schedule::Kind::Invalid | schedule::Kind::Refused => Kind::Invalid,
            schedule::Kind::Storage => error.of_store().map_or(Kind::Storage, of_store),
        };
        Self::new(kind, error.to_string())
    }
}

impl From<waiver::Error> for Error {
    fn from(error: waiver::Error) -> Self {
        Self::new(of_inventory(error.kind), error.detail)
    }
}

impl From<variable::Error> for Error {
    fn from(error: variable::Error) -> Self {
        Self::new(of_inventory(error.kind), error.detail)
    }
}

impl From<policy::Refused> for Error {
    fn from(refused: policy::Refused) -> Self {
        let kind = match source_kind(&refused) {
            Some(kind) => kind,
            None if refused.reason == policy::Reason::Storage => Kind::Storage,
            None if refused.reason == policy::Reason::PolicyMissing => Kind::Missing,
            None => Kind::Refused,
        };
        Self::new(kind, refused.to_string())
    }
}
