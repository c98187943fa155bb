//! What the handlers share, and what is counted.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use events::{Ack, Class, Kind, Log};
use tokio::sync::{Semaphore, watch};
use wal::Local;
use world::{Clock, RealClock};

/// Clients that may read events at a time, followers included. Each takes a thread while it reads.
pub(crate) const READERS_MAX: usize = 32;

/// How long a refusal for want of space stands in /ready. Whoever sends nothing to a server that is not
/// ready would otherwise never find out that it is: the next append looks again.
const FULL_TOLD_MS: u64 = 30_000;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) log: Arc<Log>,
    pub(crate) journal: Arc<Local>,
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
    stored: [AtomicU64; Class::ALL.len()],
    duplicates: AtomicU64,
    refused: AtomicU64,
    overloads: AtomicU64,
    failures: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_turned_away: AtomicU64,
}

fn add(counter: &AtomicU64, more: usize) {
    // Relaxed: counters are told, not reasoned with.
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl State {
    pub(crate) fn new(log: Arc<Log>, journal: Arc<Local>, stop: watch::Receiver<bool>) -> Self {
        Self {
            log,
            journal,
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
            Kind::Poisoned | Kind::Fenced => {
                if !self.is_poisoned.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "no event is taken until Holdfast is started again");
                }
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

    /// Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        let counts = &self.counts;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        head(
            &mut text,
            "holdfast_events_total",
            "counter",
            "events by what became of them",
        );
        for (class, stored) in Class::ALL.iter().zip(&counts.stored) {
            line(
                &mut text,
                "holdfast_events_total",
                &format!("class=\"{class}\",outcome=\"stored\""),
                of(stored),
            );
        }
        for (outcome, counter) in [
            ("duplicate", &counts.duplicates),
            ("refused", &counts.refused),
            ("failed", &counts.failures),
        ] {
            line(
                &mut text,
                "holdfast_events_total",
                &format!("outcome=\"{outcome}\""),
                of(counter),
            );
        }
        let journal = self.journal.counts();
        for (name, kind, help, value) in [
            (
                "holdfast_events_overloads_total",
                "counter",
                "refusals because too much was in flight",
                of(&counts.overloads),
            ),
            (
                "holdfast_events_in_flight_bytes",
                "gauge",
                "bytes of events in flight",
                self.log.in_flight_bytes() as u64,
            ),
            (
                "holdfast_events_ready",
                "gauge",
                "1 while events are taken",
                u64::from(self.unready().is_none()),
            ),
            (
                "holdfast_http_connections",
                "gauge",
                "open connections",
                of(&counts.connections),
            ),
            (
                "holdfast_http_connections_turned_away_total",
                "counter",
                "connections beyond the limit",
                of(&counts.connections_turned_away),
            ),
            (
                "holdfast_events_safe_point",
                "gauge",
                "position of the last durable event",
                self.log.safe_point().get(),
            ),
            (
                "holdfast_events_first_retained",
                "gauge",
                "position of the oldest event kept",
                self.log.first_retained().get(),
            ),
            (
                "holdfast_journal_appends_total",
                "counter",
                "appends to the journal of events",
                journal.appends,
            ),
            (
                "holdfast_journal_records_total",
                "counter",
                "records appended",
                journal.records,
            ),
            (
                "holdfast_journal_groups_total",
                "counter",
                "commit groups written",
                journal.groups,
            ),
            (
                "holdfast_journal_syncs_total",
                "counter",
                "data syncs that appends waited for",
                journal.syncs,
            ),
            (
                "holdfast_journal_bytes_total",
                "counter",
                "bytes of batches written",
                journal.bytes,
            ),
            (
                "holdfast_journal_rolls_total",
                "counter",
                "segments begun",
                journal.rolls,
            ),
            (
                "holdfast_journal_space_waits_total",
                "counter",
                "waits for space that was not prepared",
                journal.space_waits,
            ),
            (
                "holdfast_journal_poisonings_total",
                "counter",
                "failed writes or syncs",
                journal.poisonings,
            ),
        ] {
            head(&mut text, name, kind, help);
            line(&mut text, name, "", value);
        }
        text
    }
}

const WRITES: &str = "writing to a string cannot fail";

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect(WRITES);
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    match labels {
        "" => writeln!(text, "{name} {value}").expect(WRITES),
        labels => writeln!(text, "{name}{{{labels}}} {value}").expect(WRITES),
    }
}
