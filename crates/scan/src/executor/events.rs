//! What is told of a scan while it runs.

use uuid::Uuid;
use world::Timestamp;

use crate::{failure::Failure, judge::Summary};

/// The scan that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub scan: Uuid,
    pub host: String,
    pub policy_version: String,
    pub started: Timestamp,
}

/// Who listens. `started` comes at most once and first; then exactly one of the others. A scan that
/// never began (its host is busy, it has no credential) tells `failed` only.
pub trait Sink: Send + Sync {
    fn started(&self, _begun: &Begun) {}
    fn completed(&self, _begun: &Begun, _counts: &Summary) {}
    fn failed(&self, _begun: &Begun, _failure: &Failure) {}
}

/// Nobody listens.
impl Sink for () {}

/// Tells the log.
#[derive(Debug, Default)]
pub struct LogSink;

impl Sink for LogSink {
    fn started(&self, begun: &Begun) {
        tracing::info!(
            event = "scan.started",
            host = begun.host,
            scan_id = %begun.scan,
            policy_version = begun.policy_version,
        );
    }

    fn completed(&self, begun: &Begun, counts: &Summary) {
        tracing::info!(
            event = "scan.completed",
            host = begun.host,
            scan_id = %begun.scan,
            policy_version = begun.policy_version,
            pass = counts.pass,
            fail = counts.fail,
            not_applicable = counts.not_applicable,
            not_assessed = counts.not_assessed,
            error = counts.error,
        );
    }

    fn failed(&self, begun: &Begun, failure: &Failure) {
        tracing::warn!(
            event = "scan.failed",
            host = begun.host,
            scan_id = %begun.scan,
            policy_version = begun.policy_version,
            reason = failure.reason.as_str(),
            detail = failure.detail,
        );
    }
}
