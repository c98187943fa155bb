//! What the schedule knows of one host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{failure::Reason, policy::ComplianceState};

/// Where a host stands in the site: what maintenance and fairness go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub host: String,
    pub site: String,
    pub groups: BTreeSet<String>,
}

/// One host's row. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub host: String,
    pub site: String,
    pub groups: BTreeSet<String>,
    pub state: ComplianceState,
    /// [`crate::judge::Summary::score`] of the last scan.
    pub score: Option<f64>,
    /// When the host is to be dispatched. While a job is queued or running: when the one after it
    /// would be, should that job vanish.
    pub next: u64,
    /// End of the last scan that was completed by the schedule.
    pub last_finished: Option<u64>,
    pub last_scan: Option<String>,
    /// Version of the policy that the last scan was enqueued under.
    pub policy_version: Option<String>,
    /// The job that is queued or running. A host with one is not dispatched.
    pub job: Option<String>,
    pub backoff: BTreeMap<Probe, Backoff>,
}

/// What is tried on a host. Failures of one say nothing of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    Scan,
    /// Whether the host answers at all.
    Reach,
}

/// Failures in a row of one probe of one host. A success removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    pub failures: u32,
    pub last_failed: u64,
    pub reason: Reason,
    /// Not tried before this; `None` while there are too few failures to put anything off.
    pub until: Option<u64>,
    /// How many of the last failures in a row never got an answer; see [`crate::drift::is_silence`].
    #[serde(default)]
    pub silent: u32,
}

/// Why a row changed: the closed list that audit records name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The host was added.
    Created,
    /// Its site or groups changed.
    Placed,
    /// A job was enqueued, and the next time moved on.
    NextAdvanced,
    PostScanUpdate,
    /// A scan came to nothing.
    Failed,
    /// Its job was given back or refused, and the host is due again.
    Requeued,
    /// Somebody asked for it to be due, back-off or not.
    ManualOverride,
    Retired,
}

impl Change {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Placed => "placed",
            Self::NextAdvanced => "next_advanced",
            Self::PostScanUpdate => "post_scan_update",
            Self::Failed => "failed",
            Self::Requeued => "requeued",
            Self::ManualOverride => "manual_override",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
