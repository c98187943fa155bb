//! Which class is sent next, and when: a state machine without I/O, clock, dice or lock.
//!
//! Classes go by priority: error, decision, action, lifecycle, other. Always holds: at most one send
//! of a class is in flight; a class that is ready to be sent is passed over a bounded number of times
//! ([`PASSED_OVER_MAX`]), so the lowest one moves too; a failure holds back its own class only, and a
//! send that takes long ([`SLOW_AFTER`]) gives its turn to the others.
//!
//! It does not know events, positions or receivers: what there is to send, it is told.

use std::time::Duration;

use crate::Class;

/// Sends of other classes after which a ready class goes first. Arbitrary: small enough that the
/// lowest class of a node that drowns in errors still moves each few batches. Must be at least the
/// number of classes: one that has just been sent cannot overtake one that waits for its turn.
pub(crate) const PASSED_OVER_MAX: u32 = 8;

/// Sends of others that can start while a class is ready: when its turn has come, each of the other
/// classes may have waited even longer.
#[cfg(test)]
const PASSED_OVER_BOUND: u32 = PASSED_OVER_MAX + 4;

/// How long a send in flight keeps all others waiting. Longer than a healthy receiver takes for a
/// batch, so that priority means something; short enough that a stalled class delays nobody much.
pub(crate) const SLOW_AFTER: Duration = Duration::from_secs(1);

/// First wait after a failure. A receiver that restarts is back within a few of these.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest wait after a failure that is expected to pass: how late a receiver that came back hears
/// of us.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Longest `Retry-After` honoured: what a confused receiver can make us wait.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Events of a batch. At a few hundred bytes each that is a body of some 100 KiB, the size at which
/// the cost of a request no longer shows; it is what a crash may send twice.
pub(crate) const BATCH_EVENTS_MAX: usize = 512;

/// What happened, as the owner saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// There are events of this class that were not delivered.
    Waiting(Class),
    /// The send of this class ended.
    Ended(Class, Outcome),
    /// Time passed.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Delivered or dead-lettered, and recorded as such; `more` when others of the class wait.
    Settled { more: bool },
    /// The receiver wants smaller batches than this many events.
    Split { sent: usize },
    /// Nothing was accepted.
    Failed(Fault),
    /// Nothing was accepted, and the class is not tried again until it is said to wait.
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Expected to pass; the receiver may have said when.
    Passing { retry_after: Option<Duration> },
    /// Someone must change something before it can succeed.
    Lasting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the next batch of this class, of at most this many events.
    Send { class: Class, events_max: usize },
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    is_waiting: bool,
    /// When the send in flight began.
    sending_since: Option<Duration>,
    /// Sends of others that began while this class was ready, since it was last sent.
    passed_over: u32,
    /// In a row.
    failures: u32,
    not_before: Duration,
    events_max: usize,
}

impl Lane {
    const NEW: Self = Self {
        is_waiting: false,
        sending_since: None,
        passed_over: 0,
        failures: 0,
        not_before: Duration::ZERO,
        events_max: BATCH_EVENTS_MAX,
    };

    fn is_ready(&self, now: Duration) -> bool {
        self.is_waiting && self.sending_since.is_none() && self.not_before <= now
    }
}

#[derive(Debug)]
pub(crate) struct Schedule {
    /// In the order of [`Class::ALL`], which is that of priority.
    lanes: [Lane; Class::ALL.len()],
}

impl Schedule {
    pub(crate) fn new() -> Self {
        Self {
            lanes: [Lane::NEW; Class::ALL.len()],
        }
    }

    /// Takes in what happened at `now` (monotonic); `dice` is any number, from which a wait gets its
    /// jitter. At most one send begins a step, because a send that just began holds the turn.
    pub(crate) fn step(&mut self, event: Event, now: Duration, dice: u64) -> Option<Action> {
        match event {
            Event::Waiting(class) => self.lane(class).is_waiting = true,
            Event::Ended(class, outcome) => self.lane(class).end(outcome, now, dice),
            Event::Tick => {}
        }
        if self.is_taken(now) {
            return None;
        }
        let next = self.next(now)?;
        Some(self.begin(next, now))
    }

    /// When a `Tick` may do something that nothing else causes.
    pub(crate) fn wake_at(&self, now: Duration) -> Option<Duration> {
        let moments = self
            .lanes
            .iter()
            .filter_map(|lane| match lane.sending_since {
                Some(since) => Some(since + SLOW_AFTER),
                None => lane.is_waiting.then_some(lane.not_before),
            });
        moments.filter(|moment| *moment > now).min()
    }

    #[cfg(test)]
    pub(crate) fn failures(&self, class: Class) -> u32 {
        self.lanes[index(class)].failures
    }

    /// When a class that failed is tried again.
    #[cfg(test)]
    pub(crate) fn not_before(&self, class: Class) -> Duration {
        self.lanes[index(class)].not_before
    }

    fn lane(&mut self, class: Class) -> &mut Lane {
        &mut self.lanes[index(class)]
    }

    /// Whether a send is in flight that is not slow yet.
    fn is_taken(&self, now: Duration) -> bool {
        self.lanes
            .iter()
            .filter_map(|lane| lane.sending_since)
            .any(|since| now < since + SLOW_AFTER)
    }

    fn next(&self, now: Duration) -> Option<usize> {
        let ready = || (0..self.lanes.len()).filter(|&lane| self.lanes[lane].is_ready(now));
        // Who waited longest, not who ranks highest: else two starved classes of high rank could
        // take turns and leave a third behind.
        let starved = ready()
            .filter(|&lane| self.lanes[lane].passed_over >= PASSED_OVER_MAX)
            .max_by_key(|&lane| self.lanes[lane].passed_over);
        starved.or_else(|| ready().next())
    }

    fn begin(&mut self, next: usize, now: Duration) -> Action {
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if at != next && lane.is_ready(now) {
                lane.passed_over = lane.passed_over.saturating_add(1);
            }
        }
        let lane = &mut self.lanes[next];
        lane.passed_over = 0;
        lane.sending_since = Some(now);
        Action::Send {
            class: Class::ALL[next],
            events_max: lane.events_max,
        }
    }
}

impl Lane {
    fn end(&mut self, outcome: Outcome, now: Duration, dice: u64) {
        self.sending_since = None;
        match outcome {
            Outcome::Settled { more } => {
                self.is_waiting = more;
                self.failures = 0;
                self.not_before = now;
                // Grows back step by step: what made the receiver ask for less may be one event.
                self.events_max = (self.events_max * 2).min(BATCH_EVENTS_MAX);
            }
            Outcome::Split { sent } => {
                self.events_max = (sent / 2).max(1);
                self.not_before = now;
            }
            Outcome::Failed(fault) => {
                self.failures = self.failures.saturating_add(1);
                self.not_before = now + wait(fault, self.failures, dice);
            }
            Outcome::GivenUp => self.is_waiting = false,
        }
    }
}

/// Doubles with each failure in a row up to a bound, of which the upper half is drawn: nodes that
/// lost the same receiver at the same moment do not come back at the same moment.
fn wait(fault: Fault, failures: u32, dice: u64) -> Duration {
    let (whole, at_least) = match fault {
        Fault::Passing { retry_after } => {
            let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
            let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            (doubled.min(BACKOFF_MAX), asked)
        }
        Fault::Lasting => (BACKOFF_MAX, Duration::ZERO),
    };
    let half = whole / 2;
    let parts = u32::try_from(dice % (1 << 16)).expect("a remainder below 2^16");
    // The jitter comes on top of what the receiver asked for, never instead of a part of it.
    at_least.max(half) + half * parts / (1 << 16)
}

pub(super) fn index(class: Class) -> usize {
    Class::ALL
        .iter()
        .position(|one| *one == class)
        .expect("every class is in the list")
}

#[cfg(test)]
mod tests;
