//! Tests of the room as a whole, on a simulated disk.

mod cursors;
mod format;
mod ids;
mod lines;
mod log;
mod query;
mod record;

use std::sync::Arc;

use wal::{Journal, Local, Upkeep};
use world::{Timestamp, sim};

use crate::{Ack, Class, Error, Log, NewEvent, log::Options};

/// Small, so that a test rolls through several.
const SEGMENT_BYTES: u64 = 3 * 4096;

/// A log and what it stands on.
struct Bench {
    disk: sim::Disk,
    clock: sim::Clock,
    journal: Arc<dyn Journal>,
    log: Log,
}

fn journal_options(disk: &sim::Disk, dir: &str, clock: &sim::Clock) -> wal::Options {
    wal::Options {
        segment_bytes: SEGMENT_BYTES,
        upkeep: Upkeep::Caller,
        holder: "the test".to_owned(),
        ..wal::Options::new(
            dir,
            Arc::new(disk.clone()),
            Arc::new(clock.clone()),
            Arc::new(sim::Random::new(1)),
        )
    }
}

fn journal(disk: &sim::Disk, dir: &str, clock: &sim::Clock) -> Arc<dyn Journal> {
    Arc::new(Local::open(journal_options(disk, dir, clock)).unwrap().0)
}

impl Bench {
    fn new() -> Self {
        Self::on(sim::Disk::new(1))
    }

    fn on(disk: sim::Disk) -> Self {
        Self::with(disk, |_| {})
    }

    fn with(disk: sim::Disk, change: impl FnOnce(&mut Options)) -> Self {
        let clock = sim::Clock::new(Timestamp::from_nanos(1_000));
        let journal = journal(&disk, "/events/journal", &clock);
        let mut options = Options::new(
            Arc::clone(&journal),
            Arc::new(disk.clone()),
            Arc::new(clock.clone()),
            "/events/ids",
        );
        change(&mut options);
        let (log, _) = Log::open(options).unwrap();
        Self {
            disk,
            clock,
            journal,
            log,
        }
    }

    fn append(&self, event: NewEvent) -> Result<Ack, Error> {
        self.log.append(vec![event]).map(|acks| acks[0])
    }
}

fn event(body: &str) -> NewEvent {
    NewEvent {
        producer_id: None,
        time: Timestamp::from_nanos(5),
        source: "test".to_owned(),
        class: Class::Other,
        trace: None,
        span: None,
        body: body.to_owned(),
    }
}

fn named(id: &str) -> NewEvent {
    NewEvent {
        producer_id: Some(id.to_owned()),
        ..event("1")
    }
}
