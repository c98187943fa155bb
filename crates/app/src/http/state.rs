//! What the handlers share, and what is counted.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use events::{Ack, Class, Cursors, Kind, Log};
use tokio::sync::{Semaphore, watch};
use wal::Local;
use world::{Clock, RealClock};

use super::door::Connections;
use crate::drains::Drains;

/// Clients that may read events at a time, followers included. Each takes a thread while it reads.
pub(crate) const READERS_MAX: usize = 32;

/// How long a refusal for want of space stands in /ready. Whoever sends nothing to a server that is not
/// ready would otherwise never find out that it is: the next append looks again.
const FULL_TOLD_MS: u64 = 30_000;

/// What is served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) log: Arc<Log>,
    /// What `log` is over.
    pub(crate) journal: Arc<Local>,
    /// Of the drains of `log`.
    pub(crate) cursors: Arc<Cursors>,
    pub(crate) drains: Arc<Drains>,
}

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) log: Arc<Log>,
    pub(crate) journal: Arc<Local>,
    pub(crate) cursors: Arc<Cursors>,
    pub(crate) drains: Arc<Drains>,
    pub(crate) clock: RealClock,
    pub(crate) readers: Arc<Semaphore>,
    /// True once the server stops.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) counts: Counts,
    /// Until when the disk counts as full, in milliseconds of `clock`; 0: it does not.
    full_until: AtomicU64,
    is_poisoned: AtomicBool,
    is_closed: AtomicBool,
}

/// Since the server was started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) stored: [AtomicU64; Class::ALL.len()],
    pub(crate) duplicates: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) overloads: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) connections: Arc<Connections>,
}

fn add(counter: &AtomicU64, more: usize) {
    // Relaxed: counters are told, not reasoned with.
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl State {
    pub(crate) fn new(served: &Served, stop: watch::Receiver<bool>) -> Self {
        Self {
            log: Arc::clone(&served.log),
            journal: Arc::clone(&served.journal),
            cursors: Arc::clone(&served.cursors),
            drains: Arc::clone(&served.drains),
            clock: RealClock::new(),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            stop,
            counts: Counts::default(),
            full_until: AtomicU64::new(0),
            is_poisoned: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn now(&self) -> world::Timestamp {
        self.clock.now()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Appends, and remembers how it went. Blocks: not for the threads that serve connections.
    pub(crate) fn append(&self, events: Vec<events::NewEvent>) -> Result<Vec<Ack>, events::Error> {
        let classes: Vec<Class> = events.iter().map(|event| event.class).collect();
        let appended = self.log.append(events);
        match &appended {
            Ok(acks) => {
                self.full_until.store(0, Ordering::Relaxed);
                for (ack, class) in acks.iter().zip(classes) {
                    let place = Class::ALL.iter().position(|other| *other == class);
                    match place {
                        Some(place) if !ack.is_duplicate => add(&self.counts.stored[place], 1),
                        _ => add(&self.counts.duplicates, 1),
                    }
                }
            }
            Err(error) => self.failed(error, classes.len()),
        }
        appended
    }

    fn failed(&self, error: &events::Error, events: usize) {
        let counter = match error.kind() {
            Kind::Overloaded => &self.counts.overloads,
            Kind::Invalid => &self.counts.refused,
            _ => &self.counts.failures,
        };
        add(counter, events);
        match error.kind() {
            Kind::Full => {
                let until = self.monotonic_ms().saturating_add(FULL_TOLD_MS);
                self.full_until.store(until, Ordering::Relaxed);
            }
            Kind::Closed => self.is_closed.store(true, Ordering::Relaxed),
            Kind::Poisoned | Kind::Fenced if !self.is_poisoned.swap(true, Ordering::Relaxed) => {
                tracing::error!(%error, "no event is taken until Holdfast is started again");
            }
            _ => {}
        }
    }

    pub(crate) fn refused(&self, events: usize) {
        add(&self.counts.refused, events);
    }

    pub(crate) fn overloaded(&self) {
        add(&self.counts.overloads, 1);
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// Why no event would be taken now.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        if self.is_poisoned.load(Ordering::Relaxed) || self.journal.counts().poisonings > 0 {
            Some("poisoned")
        } else if self.full_until.load(Ordering::Relaxed) > self.monotonic_ms() {
            Some("full")
        } else if self.is_stopping() || self.is_closed.load(Ordering::Relaxed) {
            Some("stopping")
        } else {
            None
        }
    }
}
