//! From a finished scan to the next one.

use std::time::Duration;

use sha2::{Digest, Sha256};
use world::Timestamp;

use crate::{
    judge::{Outcome, Summary},
    ledger::Finding,
    policy::{Bands, ComplianceState, INTERVAL_MAX, INTERVAL_MIN, Policy},
    rule::Severity,
};

/// The state that a scan leaves its host in.
pub fn state_after(summary: &Summary, findings: &[Finding], bands: &Bands) -> ComplianceState {
    let critical = findings
        .iter()
        .any(|finding| finding.verdict == Outcome::Fail && finding.severity == Severity::Critical);
    state_of(summary.score, critical, bands)
}

/// The score is [`Summary::score`], which has the one denominator: what passed or failed. It is cut and
/// not rounded, so that no score reaches a band that the host does not.
pub fn state_of(score: Option<f64>, critical: bool, bands: &Bands) -> ComplianceState {
    let Some(score) = score else {
        return ComplianceState::Unknown;
    };
    let reaches = |band: u8| score >= f64::from(band);
    if critical {
        ComplianceState::Critical
    } else if reaches(bands.compliant) {
        ComplianceState::Compliant
    } else if reaches(bands.partial) {
        ComplianceState::Partial
    } else if reaches(bands.non_compliant) {
        ComplianceState::NonCompliant
    } else {
        ComplianceState::Critical
    }
}

/// When a host is due again that was last looked at, or tried, at `finished`. `seed` is what differs
/// from scan to scan: hosts added together drift apart.
pub fn next_after(
    finished: Timestamp,
    state: ComplianceState,
    policy: &Policy,
    host: &str,
    seed: &str,
) -> Timestamp {
    let interval = policy.ladder.interval(state);
    finished.plus(jittered(interval, policy.jitter_percent, host, seed))
}

/// Moves `interval` by at most `percent` of itself, earlier or later. The bounds hold for what comes
/// out: the longest interval is only ever made shorter, the shortest only longer.
fn jittered(interval: Duration, percent: u8, host: &str, seed: &str) -> Duration {
    let seconds = interval.as_secs();
    let most = seconds * u64::from(percent.min(PERCENT_MAX)) / 100;
    let moved = seconds - most + dice(host, seed) % (2 * most + 1);
    Duration::from_secs(moved).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// Beyond this an interval would say little about when a host is looked at.
const PERCENT_MAX: u8 = 50;

/// The same for one host and seed on every machine and in every version: a replay of a scan computes
/// the same time again.
fn dice(host: &str, seed: &str) -> u64 {
    let digest = Sha256::new()
        .chain_update(host.as_bytes())
        .chain_update([0])
        .chain_update(seed.as_bytes())
        .finalize();
    let (first, _) = digest
        .split_first_chunk()
        .expect("32 bytes are more than 8");
    u64::from_be_bytes(*first)
}
