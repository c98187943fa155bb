//! Alerts: what somebody should know of, until it is over.
//!
//! One row for each thing that is wrong, named by its [`Key`]; the same thing again counts up, and does
//! not make another. Rows keep their history, so that what was open at a past moment can be asked. An
//! alert is raised and ended by [`Evaluator`] from what is recorded, in the transaction that takes the
//! record off its list and puts what is to be told into the [`Outbox`]: a process that dies anywhere
//! neither loses nor doubles one. People acknowledge, silence and resolve through [`Alerts`]. Each
//! change of state is audited. Nothing here reads a clock or sends anything.
//!
//! ```text
//!           ┌────────── acknowledge ─────────▶ acknowledged ─┐
//!   raise ▶ open ◀─ silence is over ─┐          │            ├─ is over, or by hand ─▶ resolved
//!           └────────── silence ─────┴▶ silenced ◀───────────┘                           │
//!           ▲                                                                            │
//!           └────────────── the same again within a day ─────────────────────────────────┘
//! ```

use std::{error, fmt};

use serde::{Deserialize, Serialize};
use store::Table;

mod evaluate;
mod host;
mod memory;
mod notice;
mod outbox;
mod people;
mod rows;
#[cfg(test)]
mod tests;

pub use evaluate::{Condition, EVERY, Evaluated, Evaluator};
pub use notice::{EVENTS_MAX, Event, HostLabels, LeftOut, Notice, Receiver, What};
pub use outbox::{
    ATTEMPTS_MAX, Claimed, Delivery, Ended, FINISHED_MAX, Outbox, QUEUE_MAX, RETRY_CEILING,
    RETRY_FIRST, ReceiverRow, Tried,
};
pub use people::{Alerts, LIST_MAX, SILENCE_MAX, Wanted};

/// Who the audit log names for what happens by itself.
pub const ACTOR: &str = "holdfast alerts";

/// Every table of this module.
pub fn tables() -> Vec<Table> {
    [
        rows::Rows::tables(),
        memory::Memories::tables(),
        Outbox::tables(),
    ]
    .concat()
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    DriftMajor,
    DriftMinor,
    /// An announcement: it is over when it is told.
    DriftImprovement,
    /// What a host's first scan found, all in one.
    FindingsBaseline,
    FindingCritical,
    FindingHigh,
    HostUnreachable,
    HostKeyChanged,
    /// It answers, and cannot be scanned.
    ScanFailing,
    /// No policy may be used: nothing is dispatched.
    PolicyRefused,
    PolicyExpiring,
    DiskLow,
    SealFailing,
    /// A receiver takes no alerts.
    ReceiverFailing,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::DriftMajor,
        Self::DriftMinor,
        Self::DriftImprovement,
        Self::FindingsBaseline,
        Self::FindingCritical,
        Self::FindingHigh,
        Self::HostUnreachable,
        Self::HostKeyChanged,
        Self::ScanFailing,
        Self::PolicyRefused,
        Self::PolicyExpiring,
        Self::DiskLow,
        Self::SealFailing,
        Self::ReceiverFailing,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::DriftMajor => "drift_major",
            Self::DriftMinor => "drift_minor",
            Self::DriftImprovement => "drift_improvement",
            Self::FindingsBaseline => "findings_baseline",
            Self::FindingCritical => "finding_critical",
            Self::FindingHigh => "finding_high",
            Self::HostUnreachable => "host_unreachable",
            Self::HostKeyChanged => "host_key_changed",
            Self::ScanFailing => "scan_failing",
            Self::PolicyRefused => "policy_refused",
            Self::PolicyExpiring => "policy_expiring",
            Self::DiskLow => "disk_low",
            Self::SealFailing => "seal_failing",
            Self::ReceiverFailing => "receiver_failing",
        }
    }

    pub const fn severity(self) -> Severity {
        match self {
            Self::FindingCritical | Self::HostKeyChanged | Self::PolicyRefused => {
                Severity::Critical
            }
            Self::DriftMajor
            | Self::FindingsBaseline
            | Self::FindingHigh
            | Self::HostUnreachable
            | Self::DiskLow
            | Self::SealFailing
            | Self::ReceiverFailing => Severity::High,
            Self::DriftMinor | Self::ScanFailing | Self::PolicyExpiring => Severity::Medium,
            Self::DriftImprovement => Severity::Info,
        }
    }

    /// Whether it has nothing that could end.
    const fn is_announcement(self) -> bool {
        matches!(self, Self::DriftImprovement)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How much it matters, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 4] = [Self::Info, Self::Medium, Self::High, Self::Critical];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Open,
    Acknowledged,
    Silenced,
    Resolved,
}

impl State {
    pub const ALL: [Self; 4] = [
        Self::Open,
        Self::Acknowledged,
        Self::Silenced,
        Self::Resolved,
    ];

    /// Every legal move.
    pub const MOVES: [(Self, Self); 11] = [
        (Self::Open, Self::Acknowledged),
        (Self::Open, Self::Silenced),
        (Self::Open, Self::Resolved),
        (Self::Acknowledged, Self::Silenced),
        (Self::Acknowledged, Self::Resolved),
        (Self::Silenced, Self::Open),
        (Self::Silenced, Self::Acknowledged),
        // Until another moment.
        (Self::Silenced, Self::Silenced),
        (Self::Silenced, Self::Resolved),
        // The same again: silenced still, where the silence outlasts it.
        (Self::Resolved, Self::Open),
        (Self::Resolved, Self::Silenced),
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Silenced => "silenced",
            Self::Resolved => "resolved",
        }
    }

    pub fn may_become(self, next: Self) -> bool {
        Self::MOVES.contains(&(self, next))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What makes two alerts the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub kind: Kind,
    /// None: of the whole site.
    pub host: Option<String>,
    /// The rule, or the receiver that fails.
    pub subject: Option<String>,
}

impl Key {
    pub fn of_site(kind: Kind) -> Self {
        Self {
            kind,
            host: None,
            subject: None,
        }
    }

    pub fn of_host(kind: Kind, host: &str) -> Self {
        Self {
            kind,
            host: Some(host.to_owned()),
            subject: None,
        }
    }

    pub fn of_rule(kind: Kind, host: &str, rule: &str) -> Self {
        Self {
            kind,
            host: Some(host.to_owned()),
            subject: Some(rule.to_owned()),
        }
    }

    /// No name holds a zero byte.
    fn bytes(&self) -> Vec<u8> {
        let part = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
        let parts = [
            part(&self.host),
            self.kind.name().to_owned(),
            part(&self.subject),
        ];
        parts.join("\0").into_bytes()
    }
}

/// Who did something, and when. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub at: u64,
    pub by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Nobody is told of it until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub until: u64,
    #[serde(flatten)]
    pub step: Step,
    /// It holds because this waiver does, and ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiver: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// From 1, in the order in which they were raised.
    pub id: u64,
    #[serde(flatten)]
    pub key: Key,
    pub severity: Severity,
    pub state: State,
    /// One line for people. May hold what a host said, cut and without control characters.
    pub detail: String,
    /// First and last time that it was so, and how often.
    pub first: u64,
    pub last: u64,
    pub count: u64,
    /// How often it came back after it was over.
    pub reopened: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced: Option<Silence>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Step>,
    /// When receivers were last told that it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<u64>,
    /// How often they were.
    #[serde(default)]
    pub tellings: u32,
    /// When they are to be told that it came back, should it be open then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tell_at: Option<u64>,
}

/// What the caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Somebody else was faster: nothing was changed, try again.
    Conflict,
    /// No such alert.
    Missing,
    /// It is in a state from which this cannot be done, or what was asked makes no sense.
    Refused,
    Storage,
}

/// Something that was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorKind,
    pub detail: String,
    pub next: String,
}

impl Error {
    fn new(kind: ErrorKind, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            next: next.into(),
        }
    }

    fn storage(detail: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::Storage,
            format!("alerts in the store: {detail}"),
            "run `holdfast doctor` to check disk and data directory",
        )
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        if error.kind() == store::Kind::Conflict {
            return Self::new(
                ErrorKind::Conflict,
                "another process changed the same alerts",
                "try again",
            );
        }
        Self::storage(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl error::Error for Error {}
