//! How a scan that runs is told that it is over: by its deadline, or because somebody stopped it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use world::Clock;

use crate::{collect::Progress, facts::Unknown};

/// A request to stop, shared by whoever may make it. Never taken back.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    /// The process's own flag, for a stop of everything.
    all: Option<Arc<AtomicBool>>,
}

impl Cancel {
    /// One that `all` sets too.
    pub fn with(all: Arc<AtomicBool>) -> Self {
        Self {
            own: Arc::default(),
            all: Some(all),
        }
    }

    pub fn set(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.own.load(Ordering::Relaxed)
            || self
                .all
                .as_ref()
                .is_some_and(|all| all.load(Ordering::Relaxed))
    }
}

/// The progress of one scan, with its end: says `cancelled` past the deadline too.
pub struct Leash {
    cancel: Cancel,
    clock: Arc<dyn Clock>,
    /// On the monotonic clock.
    end: Duration,
    progress: Arc<dyn Progress>,
}

impl Leash {
    pub(super) fn new(
        cancel: Cancel,
        clock: Arc<dyn Clock>,
        end: Duration,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            cancel,
            clock,
            end,
            progress,
        }
    }

    /// The deadline has passed.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Time until the deadline.
    pub fn left(&self) -> Duration {
        self.end.saturating_sub(self.clock.monotonic())
    }
}

impl Progress for Leash {
    fn started(&self, collector: &'static str) {
        self.progress.started(collector);
    }

    fn finished(&self, collector: &'static str, took: Duration, unknown: Option<&Unknown>) {
        self.progress.finished(collector, took, unknown);
    }

    fn walked(&self, seen: u64, expected: Option<u64>) {
        self.progress.walked(seen, expected);
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_set() || self.is_over() || self.progress.cancelled()
    }
}

impl fmt::Debug for Leash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leash")
            .field("cancel", &self.cancel)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
