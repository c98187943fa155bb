//! One scan of one host: from the order to verdicts, or to a reason why there are none.
//!
//! Owns the order of things: first the guard, so that a busy host costs no connection; then whether
//! the way to it can be gone at all, so that a missing credential is told before anything began;
//! then `scan.started`; then the facts, bounded by a deadline and a cancel flag; then the verdicts.
//! After `scan.started` comes exactly one of `scan.completed` and `scan.failed`, whatever breaks.
//! Nothing is recorded here: what comes back is ready for the ledger, and the facts are dropped as
//! soon as they are judged, so that a finished scan waits with its findings only.

mod events;
mod guard;
mod leash;
#[cfg(test)]
mod tests;
mod way;

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use uuid::Uuid;
use world::{Clock, Timestamp};

pub use events::{Begun, LogSink, Sink};
pub use guard::{Guard, Held};
pub use leash::{Cancel, Leash};
pub use way::{Ask, Local, NoWay, Ssh, Way};

use crate::{
    collect::{Collector, Limits, Needs, Progress},
    facts::Facts,
    failure::{Failure, Reason},
    judge::{self, Verdict},
    ledger::{Finding, Scan},
    policy::Policy,
    rule::Rule,
};

/// What a way gets to notice that the scan is over, before it is left behind. It covers the grace that
/// a single collector gets, and leaves half of the ten seconds that a stop may take.
pub const GRACE: Duration = Duration::from_secs(5);

/// How often a scan that waits looks whether it is over.
const POLL: Duration = Duration::from_millis(100);

/// What to scan, and under what conditions.
#[derive(Clone)]
pub struct Order {
    /// Made here, never by the host; the ledger knows a repeated scan by it.
    pub scan: Uuid,
    pub host: String,
    pub way: Arc<dyn Way>,
    /// As it was when the job was made (SCH-13).
    pub policy_version: String,
    pub limits: Limits,
    pub rules: Arc<[Rule]>,
    pub collectors: Vec<&'static Collector>,
    pub needs: Arc<Needs>,
    pub progress: Arc<dyn Progress>,
    pub cancel: Cancel,
    /// Shown the facts before they are judged and dropped.
    pub on_facts: Option<OnFacts>,
}

/// What the policy allows a scan to take.
pub fn limits(policy: &Policy) -> Limits {
    Limits {
        deadline: policy.scan_deadline,
        collector_deadline: policy.collector_deadline,
        collector_bytes_max: usize::try_from(policy.collector_bytes_max).unwrap_or(usize::MAX),
    }
}

/// Who wants the facts themselves.
pub type OnFacts = Arc<dyn Fn(&Facts) + Send + Sync>;

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("scan", &self.scan)
            .field("host", &self.host)
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

/// A scan that was judged, ready for the ledger.
#[derive(Clone, Debug)]
pub struct Executed {
    pub scan: Scan,
    /// How the host calls itself: `Debian GNU/Linux 12 (bookworm)`.
    pub system: Option<String>,
}

/// Runs scans, one at a time for each host.
#[derive(Clone)]
pub struct Executor {
    guard: Guard,
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Executor {
    pub fn new(guard: Guard, sink: Arc<dyn Sink>, clock: Arc<dyn Clock>) -> Self {
        Self { guard, sink, clock }
    }

    /// Runs one scan to its end.
    ///
    /// # Errors
    /// Nothing was found out about the host, and why. Told to the sink before it is returned.
    pub fn run(&self, order: &Order) -> Result<Executed, Failure> {
        let begun = Begun {
            scan: order.scan,
            host: order.host.clone(),
            policy_version: order.policy_version.clone(),
            started: self.clock.now(),
        };
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.attempt(order, &begun)))
            .unwrap_or_else(|_| Err(broke()));
        match &outcome {
            Ok(executed) => self.sink.completed(&begun, &executed.scan.summary),
            Err(failure) => self.sink.failed(&begun, failure),
        }
        outcome
    }

    fn attempt(&self, order: &Order, begun: &Begun) -> Result<Executed, Failure> {
        let held = self.guard.take(&order.host)?;
        if order.cancel.is_set() {
            return Err(cancelled());
        }
        order.way.ready()?;
        self.sink.started(begun);
        let facts = self.facts(order, held)?;
        if let Some(on_facts) = &order.on_facts {
            on_facts(&facts);
        }
        let verdicts = judge::judge(order.rules.iter(), &facts);
        let system = system(&facts);
        drop(facts);
        let finished = up_to_millisecond(self.clock.now());
        Ok(Executed {
            scan: to_record(order, begun.started, finished, &verdicts),
            system,
        })
    }

    /// On a thread of its own, which keeps the guard: a way that does not come back is left behind,
    /// and its host stays busy until it does, because something may still be running there.
    fn facts(&self, order: &Order, held: Held) -> Result<Facts, Failure> {
        let end = self.clock.monotonic().saturating_add(order.limits.deadline);
        let leash = Arc::new(Leash::new(
            order.cancel.clone(),
            Arc::clone(&self.clock),
            end,
            Arc::clone(&order.progress),
        ));
        let ask = Ask {
            collectors: order.collectors.clone(),
            needs: Arc::clone(&order.needs),
            limits: order.limits,
            leash: Arc::clone(&leash),
            clock: Arc::clone(&self.clock),
        };
        let way = Arc::clone(&order.way);
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("scan".to_owned())
            .spawn(move || {
                let came = panic::catch_unwind(AssertUnwindSafe(|| way.collect(&ask)));
                // Before the answer: whoever gets it may scan the host again at once.
                drop((ask, way, held));
                // Nobody listens where this took too long.
                sender.send(came.unwrap_or_else(|_| Err(broke()))).ok();
            })
            .map_err(|error| {
                Failure::new(Reason::Internal, format!("start a thread to scan: {error}"))
            })?;
        let came = wait(&receiver, &leash).unwrap_or_else(|| Err(late(order.limits.deadline)));
        // Facts that were cut short would be judged as unknown and read as a change of the host.
        if order.cancel.is_set() {
            return Err(cancelled());
        }
        if leash.is_over() {
            return Err(late(order.limits.deadline));
        }
        came
    }
}

/// What came, or `None` when nothing did although the scan had been over for [`GRACE`].
fn wait<T>(receiver: &mpsc::Receiver<T>, leash: &Leash) -> Option<T> {
    let mut grace = GRACE;
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(came) => return Some(came),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) if leash.cancelled() => {
                grace = grace.saturating_sub(POLL);
                if grace.is_zero() {
                    return None;
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

fn broke() -> Failure {
    Failure::new(
        Reason::Internal,
        "a part of this program broke during the scan; its message is on standard error",
    )
}

fn cancelled() -> Failure {
    Failure::new(
        Reason::Cancelled,
        "the scan was stopped before it was complete",
    )
}

fn late(deadline: Duration) -> Failure {
    let text = format!("the scan was not complete after {} s", deadline.as_secs());
    Failure::new(Reason::Timeout, text)
}

/// Rounded up to what is printed, so that the printed time is the recorded one and asks for this
/// scan and not for the one before it.
pub fn up_to_millisecond(at: Timestamp) -> Timestamp {
    const MILLISECOND: u64 = 1_000_000;
    Timestamp::from_nanos(at.nanos().next_multiple_of(MILLISECOND))
}

fn to_record(order: &Order, started: Timestamp, finished: Timestamp, verdicts: &[Verdict]) -> Scan {
    Scan {
        id: order.scan,
        host: order.host.clone(),
        started,
        finished,
        summary: judge::Summary::of(verdicts.iter().map(|verdict| verdict.verdict)),
        findings: findings(&order.rules, verdicts),
    }
}

/// How a host calls itself.
pub fn system(facts: &Facts) -> Option<String> {
    let name = facts.facts.get("os")?.get("pretty_name")?.as_str()?;
    Some(name.to_owned())
}

/// Verdicts as the ledger records them, each with the rule that gave it.
pub fn findings(rules: &[Rule], verdicts: &[Verdict]) -> Vec<Finding> {
    let by_id: std::collections::BTreeMap<&str, &Rule> =
        rules.iter().map(|rule| (rule.id.as_str(), rule)).collect();
    verdicts
        .iter()
        .filter_map(|verdict| Some(Finding::of(by_id.get(verdict.rule.as_str())?, verdict)))
        .collect()
}
