//! The policy: how often hosts are looked at and what a scan may cost, as a signed document.
//!
//! Owns the values in force with their defaults and bounds. What is schedule and executor takes a
//! [`Policy`] as a parameter and has no such number of its own. Nothing here reads a clock.

mod document;
mod envelope;
mod key;
mod reader;
mod refusal;
mod registry;
mod revocation;
mod span;
mod trust;
mod version;

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

pub use document::{Document, Metadata, render, sign, type_of};
pub use envelope::DOCUMENT_BYTES_MAX;
pub use key::{KEY_FILE_BYTES_MAX, KeyId, PrivateKey, PublicKey};
pub use refusal::{Reason, Refused};
pub use registry::{
    Active, KEY_FILE, Loaded, Offer, Registry, Reloaded, Start, Trusted, built_in_text, read_key,
};
pub use revocation::RevocationList;
pub use span::words as span_words;
pub use trust::Trust;
pub use version::Version;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Bounds of every interval of the ladder. Below five minutes a scan of a slow host would follow its
/// own tail; a host not looked at for two days is a host nobody watches.
pub const INTERVAL_MIN: Duration = Duration::from_secs(5 * MINUTE);
pub const INTERVAL_MAX: Duration = Duration::from_secs(48 * HOUR);

/// Time between two looks at what is due.
pub const TICK_DEFAULT: Duration = Duration::from_secs(60);
/// Hosts dispatched in one tick: a fleet that comes due all at once is spread over several.
pub const DISPATCH_MAX_DEFAULT: u32 = 100;

/// How a host stands, from its score and the presence of a critical finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComplianceState {
    /// Never scanned, or the scan assessed nothing.
    Unknown,
    Critical,
    NonCompliant,
    Partial,
    Compliant,
}

impl ComplianceState {
    pub const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Critical,
        Self::NonCompliant,
        Self::Partial,
        Self::Compliant,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Critical => "critical",
            Self::NonCompliant => "non_compliant",
            Self::Partial => "partial",
            Self::Compliant => "compliant",
        }
    }
}

impl fmt::Display for ComplianceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an unknown host key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKeyPolicy {
    /// The key must be known before the first connection.
    RequireKnown,
    /// The first key that a host shows is remembered. Whoever is between at that moment is trusted.
    Tofu,
}

impl HostKeyPolicy {
    pub const ALL: [Self; 2] = [Self::RequireKnown, Self::Tofu];

    pub const fn name(self) -> &'static str {
        match self {
            Self::RequireKnown => "require_known",
            Self::Tofu => "tofu",
        }
    }
}

/// Lowest score of each state, in percent. What is below all of them is critical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bands {
    pub compliant: u8,
    pub partial: u8,
    pub non_compliant: u8,
}

impl Default for Bands {
    fn default() -> Self {
        Self {
            compliant: 100,
            partial: 80,
            non_compliant: 50,
        }
    }
}

/// When a host that fails is left alone for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Failures in a row before the first one is put off.
    pub failures: u32,
    /// The longest that an attempt is put off.
    pub ceiling: Duration,
}

impl Default for Backoff {
    /// Three: one is a reboot, two an unlucky reboot. A day: a host that is back is seen on the next.
    fn default() -> Self {
        Self {
            failures: 3,
            ceiling: Duration::from_secs(24 * HOUR),
        }
    }
}

/// An interval of the ladder that the document put out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clamp {
    pub tier: ComplianceState,
    pub original: Duration,
    pub clamped: Duration,
    pub bound: Bound,
}

/// Which bound an interval met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    MinFloor,
    MaxCeiling,
}

/// Time between two scans of a host, by its state. Every interval is within
/// [`INTERVAL_MIN`]..=[`INTERVAL_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladder(BTreeMap<ComplianceState, Duration>);

impl Ladder {
    /// The ladder with every interval brought within the bounds, and what that changed.
    pub fn clamped(
        tiers: impl IntoIterator<Item = (ComplianceState, Duration)>,
    ) -> (Self, Vec<Clamp>) {
        let mut clamps = Vec::new();
        let tiers = tiers.into_iter().map(|(tier, original)| {
            let clamped = original.clamp(INTERVAL_MIN, INTERVAL_MAX);
            if clamped != original {
                clamps.push(Clamp {
                    tier,
                    original,
                    clamped,
                    bound: if original < clamped {
                        Bound::MinFloor
                    } else {
                        Bound::MaxCeiling
                    },
                });
            }
            (tier, clamped)
        });
        (Self(tiers.collect()), clamps)
    }

    /// A tier that the document leaves out has the longest interval.
    pub fn interval(&self, state: ComplianceState) -> Duration {
        self.0.get(&state).copied().unwrap_or(INTERVAL_MAX)
    }

    pub fn tiers(&self) -> impl Iterator<Item = (ComplianceState, Duration)> + '_ {
        self.0.iter().map(|(tier, interval)| (*tier, *interval))
    }
}

impl Default for Ladder {
    /// Sooner the more there is to wait for:
    ///
    /// - unknown, 1 h: nothing was assessed, most often for want of a credential that is about to come;
    /// - critical, 1 h: somebody is mending it and wants to see it mended;
    /// - non-compliant, 4 h: twice within a working day;
    /// - partial, 8 h: once within a working day;
    /// - compliant, 24 h: drift is known the day it happens.
    fn default() -> Self {
        let (ladder, _) = Self::clamped([
            (ComplianceState::Unknown, Duration::from_secs(HOUR)),
            (ComplianceState::Critical, Duration::from_secs(HOUR)),
            (ComplianceState::NonCompliant, Duration::from_secs(4 * HOUR)),
            (ComplianceState::Partial, Duration::from_secs(8 * HOUR)),
            (ComplianceState::Compliant, Duration::from_secs(24 * HOUR)),
        ]);
        ladder
    }
}

/// Everything that schedule and executor take from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Goes into every job at enqueue: a reload does not touch what runs.
    pub version: Version,
    pub ladder: Ladder,
    /// What the bounds changed in the ladder of the document.
    pub clamps: Vec<Clamp>,
    pub bands: Bands,
    /// How far the next scan is moved at random, in percent of the interval, so that hosts added
    /// together do not stay together.
    pub jitter_percent: u8,
    pub tick: Duration,
    pub dispatch_max: u32,
    pub backoff: Backoff,
    /// How long a worker has a job before another may take it. Longer than `scan_deadline`.
    pub lease: Duration,
    /// How long a job in the queue may wait for a worker.
    pub job_expiry: Duration,
    pub scan_deadline: Duration,
    /// At most `scan_deadline`.
    pub collector_deadline: Duration,
    /// Bytes that one collector may bring back; what is beyond is cut and marked.
    pub collector_bytes_max: u64,
    /// Scans at once on one node.
    pub concurrency: u32,
    pub host_key_policy: HostKeyPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: Version::new(0, 0, 0),
            ladder: Ladder::default(),
            clamps: Vec::new(),
            bands: Bands::default(),
            // A tenth: a day spreads over almost five hours, and no interval feels like another.
            jitter_percent: 10,
            tick: TICK_DEFAULT,
            dispatch_max: DISPATCH_MAX_DEFAULT,
            backoff: Backoff::default(),
            // The deadline of a scan and half as much to record it and for clocks that disagree.
            lease: Duration::from_secs(15 * MINUTE),
            // A full queue of a thousand hosts drains in less; what is older was forgotten.
            job_expiry: Duration::from_secs(HOUR),
            scan_deadline: Duration::from_secs(600),
            // The walk over a file system of some million files, on a slow disk.
            collector_deadline: Duration::from_secs(240),
            collector_bytes_max: 10 * 1024 * 1024,
            // A scan waits for its host most of the time and holds a few MiB.
            concurrency: 100,
            host_key_policy: HostKeyPolicy::RequireKnown,
        }
    }
}

#[cfg(test)]
mod tests;
