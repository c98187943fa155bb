//! Why a policy, a revocation list or a key was not taken.

use std::{error, fmt};

use serde::{Deserialize, Serialize};

use crate::rule::Fault;

/// The closed list; what is audited and counted goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// None is in force.
    PolicyMissing,
    /// Not YAML, or not a policy: unknown type, key, value or spelling.
    ParseError,
    /// Unsigned, signed by a key that is not trusted, or changed after it was signed.
    SignatureInvalid,
    RevokedKey,
    NotYetEffective,
    Expired,
    /// A version at or below the one in force, with other content.
    VersionRegression,
    /// The revocation list in force is out of date: what it does not say may be known elsewhere.
    RevocationExpired,
    /// A serial at or below that of the list in force, or a key left out that was revoked.
    RevocationRegression,
    /// The request makes no sense here: an unknown key to revoke, one key too many.
    Invalid,
    /// The store could not read or write.
    Storage,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PolicyMissing => "policy_missing",
            Self::ParseError => "parse_error",
            Self::SignatureInvalid => "signature_invalid",
            Self::RevokedKey => "revoked_key",
            Self::NotYetEffective => "not_yet_effective",
            Self::Expired => "expired",
            Self::VersionRegression => "version_regression",
            Self::RevocationExpired => "revocation_expired",
            Self::RevocationRegression => "revocation_regression",
            Self::Invalid => "invalid",
            Self::Storage => "storage",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A document or key that was not taken. What was in force before is in force still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    /// What was looked at and what is wrong with it. Lower case, no full stop, never a secret.
    pub detail: String,
    /// The next step.
    pub next: String,
}

impl Refused {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            next: next.into(),
        }
    }

    pub(super) fn of_faults(what: &str, faults: &[Fault]) -> Self {
        let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
        let detail = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("{} faults:\n  {}", many.len(), many.join("\n  ")),
        };
        Self::new(
            Reason::ParseError,
            detail,
            format!(
                "mend the {what}; `holdfast policy verify FILE` tells everything wrong at once"
            ),
        )
    }
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        Self::new(
            Reason::Storage,
            format!("policies in the store: {error}"),
            match error.kind() {
                store::Kind::Full => "free space on the file system of the data directory",
                store::Kind::Conflict => "try again",
                _ => "run `holdfast doctor` to check disk and data directory",
            },
        )
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl error::Error for Refused {}
