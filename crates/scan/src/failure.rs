//! Why a scan of a host came to nothing.
//!
//! The list is closed: the schedule, the audit log, reports and alerts count by it. What a single
//! collector could not look at is not here; that is [`crate::facts::Unknown`], and the scan goes on.

use std::{error, fmt};

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No connection: no route, refused, no SSH server behind the port.
    HostUnreachable,
    /// The host's key is not among the known ones.
    HostKeyUnknown,
    /// Another key is known for this host.
    HostKeyChanged,
    AuthFailed,
    /// No credential for this host.
    CredentialMissing,
    /// Wrong data key, or the sealed credential is damaged.
    CredentialDecryptionFailed,
    /// Another scan of this host is running.
    HostBusy,
    Timeout,
    /// The host sent more than a scan may bring back.
    EvidenceOversize,
    Cancelled,
    Internal,
}

impl Reason {
    pub const ALL: [Self; 11] = [
        Self::HostUnreachable,
        Self::HostKeyUnknown,
        Self::HostKeyChanged,
        Self::AuthFailed,
        Self::CredentialMissing,
        Self::CredentialDecryptionFailed,
        Self::HostBusy,
        Self::Timeout,
        Self::EvidenceOversize,
        Self::Cancelled,
        Self::Internal,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HostUnreachable => "host_unreachable",
            Self::HostKeyUnknown => "host_key_unknown",
            Self::HostKeyChanged => "host_key_changed",
            Self::AuthFailed => "auth_failed",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialDecryptionFailed => "credential_decryption_failed",
            Self::HostBusy => "host_busy",
            Self::Timeout => "timeout",
            Self::EvidenceOversize => "evidence_oversize",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A scan that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: Reason,
    /// One line for people: what was attempted on what. Never holds a secret; what the host said in
    /// it is escaped by whoever shows it.
    pub detail: String,
}

impl Failure {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl error::Error for Failure {}
