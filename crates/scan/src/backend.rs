//! The seam behind which schedule, queue and ledger are kept: on this machine, or in a database that
//! several machines share.
//!
//! What must hold for each of them: a host has at most one job that is queued or running; claims are
//! exclusive; what belongs together is one transaction, its audit records included, so that a process
//! killed between any two calls leaves nothing half; no call waits for another worker. Time is always
//! a parameter.

mod claim;
pub mod conformance;
mod counts;
mod dispatch;
mod embedded;
mod finish;
mod maintenance;
mod queue;
mod reap;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use world::Timestamp;

use crate::{
    failure::Failure,
    ledger::{self, Applied},
    policy::Policy,
    schedule::{Place, Row},
};

pub use crate::schedule::{Error, Kind};
pub use counts::Counts;
pub use embedded::Embedded;

/// Who acts in audit records of the schedule itself.
pub const SCHEDULER: &str = "scheduler";

/// Where the fleet's work is kept.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Puts a host into the schedule, due at once; moves one that is there to this site and groups.
    fn place(&self, place: &Place, now: Timestamp, actor: &str) -> Result<(), Error>;

    /// Takes a host out of the schedule; a job of it that is queued is not run.
    fn retire(&self, host: &str, now: Timestamp, actor: &str) -> Result<(), Error>;

    /// Makes a host due and forgets its failures. `false` when it is not in the schedule.
    fn hasten(&self, host: &str, now: Timestamp, actor: &str) -> Result<bool, Error>;

    /// One tick: claims hosts that are due, oldest first, at most `policy.dispatch_max` of them,
    /// enqueues a job for each and moves its next time on, in one transaction.
    fn dispatch(&self, now: Timestamp, policy: &Policy) -> Result<Dispatched, Error>;

    /// Takes at most `limit` jobs for `policy.lease`, in turn from each site that has some waiting.
    /// Jobs that are forged, expired or replayed are marked failed and not given out.
    fn claim(
        &self,
        worker: &str,
        limit: usize,
        now: Timestamp,
        policy: &Policy,
    ) -> Result<Vec<Claimed>, Error>;

    /// Has the lease for `policy.lease` from `now`. `LeaseLost` when it had ended.
    fn renew(&self, claimed: &Claimed, now: Timestamp, policy: &Policy)
    -> Result<Timestamp, Error>;

    /// Records the scan and ends its job, in one transaction. The second time changes nothing.
    /// `scan.id` must be the claim's. `sink` is told when nothing was left; of a scan that came too late
    /// it is told nothing.
    fn complete(
        &self,
        claimed: &Claimed,
        scan: &ledger::Scan,
        now: Timestamp,
        policy: &Policy,
        sink: &dyn ledger::Sink,
    ) -> Result<Applied, Error>;

    /// Ends the job of a scan that came to nothing. The host is due again after its interval, or later
    /// when it has failed too often.
    fn fail(
        &self,
        claimed: &Claimed,
        failure: &Failure,
        now: Timestamp,
        policy: &Policy,
    ) -> Result<(), Error>;

    /// Gives the job back unfinished, for the next worker: this one stops.
    fn give_back(&self, claimed: &Claimed, now: Timestamp) -> Result<(), Error>;

    /// Brings jobs back whose lease has ended, and removes what is kept for too long.
    fn reap(&self, now: Timestamp, policy: &Policy) -> Result<Reaped, Error>;

    /// Brings back the jobs of every worker `NODE/…`, whose leases have not ended. The caller is the
    /// only worker of that node, and has claimed nothing yet: so whoever had them is dead.
    fn release(&self, node: &str, now: Timestamp, policy: &Policy) -> Result<Reaped, Error>;

    /// Blocks dispatch of hosts; replaces what was set for the same scope.
    fn set_maintenance(
        &self,
        maintenance: &Maintenance,
        now: Timestamp,
        actor: &str,
    ) -> Result<(), Error>;

    /// `false` when there was none.
    fn clear_maintenance(&self, scope: &Scope, now: Timestamp, actor: &str) -> Result<bool, Error>;

    /// Every one that is set, those that ended included until a tick removes them.
    fn maintenances(&self) -> Result<Vec<Maintenance>, Error>;

    /// Every row of the schedule, by host.
    fn schedule(&self) -> Result<Vec<Row>, Error>;

    fn row(&self, host: &str) -> Result<Option<Row>, Error>;

    /// Jobs that are queued or running, at most `limit` of them.
    fn jobs(&self, limit: usize) -> Result<Vec<JobView>, Error>;

    fn counters(&self) -> Result<Counters, Error>;
}

/// What one tick did. `due` is the sum of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dispatched {
    /// Host and job, in the order in which they were due.
    pub jobs: Vec<(String, Uuid)>,
    pub counts: Tick,
}

/// What a tick counted, or all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    pub due: u64,
    pub dispatched: u64,
    pub skipped_maintenance: u64,
    pub skipped_backoff: u64,
    /// Due although their last job is still queued or running.
    pub skipped_unfinished: u64,
    /// Left for the next tick, because this one had dispatched as many as it may.
    pub left: u64,
}

/// A job in the hands of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub job: Uuid,
    pub host: String,
    pub site: String,
    /// In force when the job was enqueued; what the scan reports.
    pub policy_version: String,
    /// Made at the claim: the id of the scan that this worker records, and what proves that the lease
    /// is its own.
    pub scan: Uuid,
    pub worker: String,
    /// End of the lease.
    pub until: Timestamp,
    /// 1 the first time that the job was claimed.
    pub attempt: u32,
}

/// What a look at leases found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Hosts whose job is queued again.
    pub requeued: Vec<String>,
    /// Hosts whose job was given up, because too many workers had died with it.
    pub given_up: Vec<String>,
}

/// What maintenance is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "scope", content = "name")]
pub enum Scope {
    Host(String),
    Group(String),
    Site(String),
}

impl Scope {
    /// Its kind and its name.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Host(name) => ("host", name),
            Self::Group(name) => ("group", name),
            Self::Site(name) => ("site", name),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.parts();
        write!(f, "{kind} {name}")
    }
}

/// Hosts that are left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    #[serde(flatten)]
    pub scope: Scope,
    pub since: u64,
    /// The first moment at which it no longer holds; `None`: until it is cleared.
    pub until: Option<u64>,
    pub by: String,
    pub reason: String,
}

impl Maintenance {
    /// Whether it keeps the host of this row from being dispatched.
    pub fn blocks(&self, row: &Row, now: Timestamp) -> bool {
        let is_meant = match &self.scope {
            Scope::Host(name) => *name == row.host,
            Scope::Group(name) => row.groups.contains(name),
            Scope::Site(name) => *name == row.site,
        };
        is_meant && !self.ended(now)
    }

    pub fn ended(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now.nanos())
    }
}

/// A job as it is shown. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    pub job: String,
    pub host: String,
    pub site: String,
    pub policy_version: String,
    pub enqueued: u64,
    /// Who has it, and until when; `None` while it waits.
    pub worker: Option<(String, u64)>,
    pub attempt: u32,
}

/// What the schedule counted since the data directory was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub ticks: u64,
    pub last_tick: Option<u64>,
    /// What the last tick counted.
    pub last: Tick,
    /// All ticks together.
    pub total: Tick,
    /// Jobs that were not given out: forged, expired, replayed, or of a host that is not scheduled.
    pub refused: u64,
    /// Those of the refused whose seal was wrong.
    pub hmac_rejected: u64,
    /// Intervals of policies that were out of bounds.
    pub clamped: u64,
    /// Leases that ended before their job did.
    pub reaped: u64,
}
