//! What a catch-up or a rebuild may take before it is given up: in all, in records, without progress.

use std::fmt;

use wal::Lsn;

use super::{Limits, Time};

/// Progress is counted as distance from where the session began, never as calls.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    began: Time,
    progressed: Time,
    from: Lsn,
    reached: Lsn,
    parts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    Duration { seconds: u64 },
    Records { records: u64 },
    Stalled { at: Lsn },
}

impl Budget {
    pub(super) fn new(now: Time, from: Lsn) -> Self {
        Self {
            began: now,
            progressed: now,
            from,
            reached: from,
            parts: 0,
        }
    }

    /// The replica is this far. Less than before is no progress, and takes nothing back.
    pub(super) fn progress(&mut self, now: Time, reached: Lsn, parts: u32) {
        if reached > self.reached || parts > self.parts {
            self.reached = self.reached.max(reached);
            self.parts = self.parts.max(parts);
            self.progressed = now;
        }
    }

    /// There is something to wait for from now on.
    pub(super) fn wait(&mut self, now: Time) {
        self.progressed = self.progressed.max(now);
    }

    pub(super) fn records(&self) -> u64 {
        self.reached.get() - self.from.get()
    }

    /// What of a catch-up is exceeded at `now`; a bound is kept as long as it is not passed.
    pub(super) fn exceeded(&self, now: Time, limits: &Limits) -> Option<Violation> {
        let records = self.records();
        let is_too_many = records > limits.catch_up_records;
        self.overdue(now, limits)
            .or_else(|| is_too_many.then_some(Violation::Records { records }))
            .or_else(|| self.stalled(now, limits))
    }

    fn overdue(&self, now: Time, limits: &Limits) -> Option<Violation> {
        let took = now.since(self.began);
        let seconds = took.as_secs();
        (took > limits.catch_up_duration).then_some(Violation::Duration { seconds })
    }

    pub(super) fn stalled(&self, now: Time, limits: &Limits) -> Option<Violation> {
        (now.since(self.progressed) > limits.progress)
            .then_some(Violation::Stalled { at: self.reached })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration { seconds } => {
                write!(f, "it took {seconds} s, which is more than is allowed")
            }
            Self::Records { records } => write!(f, "{records} records are more than is allowed"),
            Self::Stalled { at } => write!(f, "no progress beyond {at}"),
        }
    }
}
