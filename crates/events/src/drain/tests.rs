//! A drain and a receiver that fails, on a simulated disk: what is delivered, what is kept, what a
//! crash at any moment leaves.

mod crashes;
mod delivery;
mod peer;
mod waiting;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use wal::{Journal, Local, Lsn, Upkeep};
use world::{Clock as _, RealClock, Timestamp, sim};

use super::{
    engine::{Engine, Turn},
    *,
};
use crate::{Class, Cursors, Error, EventId, NewEvent, event};
use peer::{Answer, Peer, Request};

/// Small, so that a test rolls through several.
const SEGMENT_BYTES: u64 = 4 * 4096;

/// A data directory and the clock beside it.
struct Site {
    disk: sim::Disk,
    clock: sim::Clock,
    events: Arc<dyn Journal>,
    cursor_journal: Arc<dyn Journal>,
    cursors: Arc<Cursors>,
    letters: Arc<DeadLetters>,
}

impl Site {
    fn new() -> Self {
        Self::on(sim::Disk::new(1)).unwrap()
    }

    fn on(disk: sim::Disk) -> Result<Self, Error> {
        let clock = sim::Clock::new(Timestamp::from_nanos(1_000));
        let open = |dir, seed| journal(&disk, &clock, dir, seed);
        let events = open("/events/journal", 1)?;
        let cursor_journal = open("/events/cursors", 2)?;
        let cursors = Cursors::open(Arc::clone(&cursor_journal), Arc::clone(&events))?;
        Ok(Self {
            events,
            cursor_journal,
            cursors: Arc::new(cursors),
            letters: Arc::new(DeadLetters::new(open("/events/dead-letter", 3)?)),
            disk,
            clock,
        })
    }

    /// Appends an event of each class named.
    fn append(&self, classes: impl IntoIterator<Item = Class>) -> Vec<EventId> {
        let classes: Vec<Class> = classes.into_iter().collect();
        let mut ids = Vec::new();
        for classes in classes.chunks(100) {
            let encode =
                |class: &Class| event::encode(&new_event(*class), Timestamp::from_nanos(6));
            let bytes: Vec<Vec<u8>> = classes.iter().map(encode).collect();
            let records: Vec<_> = bytes
                .iter()
                .map(|bytes| (event::KIND, &bytes[..]))
                .collect();
            let mut lsn = self.events.append(&records).unwrap().first;
            for _ in classes {
                ids.push(EventId::new(self.events.identity(), lsn));
                lsn = lsn.next();
            }
        }
        ids
    }

    fn append_event(&self, event: &NewEvent) -> EventId {
        let record = event::encode(event, Timestamp::from_nanos(6));
        let appended = self.events.append(&[(event::KIND, &record)]).unwrap();
        EventId::new(self.events.identity(), appended.first)
    }

    fn options(&self, to: &str, mode: Mode) -> Options {
        let target = to.parse().unwrap();
        let disk = Arc::new(self.disk.clone());
        let clock: Arc<dyn world::Clock> = Arc::new(self.clock.clone());
        let mut receivers = Receivers::new(target, disk, Arc::clone(&clock));
        receivers.send_timeout = PATIENCE;
        Options {
            name: "drain".to_owned(),
            classes: Class::ALL.to_vec(),
            receivers,
            journal: Arc::clone(&self.events),
            cursors: Arc::clone(&self.cursors),
            dead_letters: Arc::clone(&self.letters),
            clock,
            random: Arc::new(sim::Random::new(7)),
            mode,
        }
    }

    /// Drains what is there. Backoff takes no time: the clock is a simulated one.
    fn drain_once(&self, to: &str) -> Result<Summary, Error> {
        ended(self.options(to, Mode::Once))
    }

    fn cursor(&self, class: Class) -> Lsn {
        let at = self.cursors.get("drain", class).unwrap();
        at.map_or(Lsn::ZERO, |at| at.lsn)
    }

    fn dead(&self) -> Vec<Entry> {
        self.letters
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    fn dead_names(&self) -> Vec<String> {
        let name = |entry: &Entry| entry.letter.event.id.to_string();
        self.dead().iter().map(name).collect()
    }
}

fn journal(
    disk: &sim::Disk,
    clock: &sim::Clock,
    dir: &str,
    seed: u64,
) -> Result<Arc<dyn Journal>, Error> {
    let options = wal::Options {
        segment_bytes: SEGMENT_BYTES,
        upkeep: Upkeep::Caller,
        holder: "the test".to_owned(),
        ..wal::Options::new(
            dir,
            Arc::new(disk.clone()),
            Arc::new(clock.clone()),
            Arc::new(sim::Random::new(seed)),
        )
    };
    match Local::open(options) {
        Ok((journal, _)) => Ok(Arc::new(journal)),
        Err(error) => Err(Error::journal("open a journal", error)),
    }
}

fn new_event(class: Class) -> NewEvent {
    NewEvent {
        producer_id: None,
        time: Timestamp::from_nanos(5),
        source: "test".to_owned(),
        class,
        trace: None,
        span: None,
        body: format!("{{\"class\":\"{class}\"}}"),
    }
}

fn otlp(peer: &Peer) -> String {
    format!("otlp={}", peer.url())
}

fn names(ids: &[EventId]) -> Vec<String> {
    ids.iter().map(EventId::to_string).collect()
}

/// Classes by the names of events.
type Known = HashMap<String, Class>;

fn known(ids: &[EventId], classes: &[Class]) -> Known {
    names(ids)
        .into_iter()
        .zip(classes.iter().copied())
        .collect()
}

/// The class of the events of a request, which are all of one.
fn class_of(request: &Request, known: &Known) -> Class {
    let classes: BTreeSet<Class> = request.events.iter().map(|name| known[name]).collect();
    assert_eq!(classes.len(), 1, "a batch has one class");
    *classes.first().unwrap()
}

/// How long a test waits for what must come. Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a drain ends that ends by itself.
fn ended(options: Options) -> Result<Summary, Error> {
    let handle = Handle::start(options)?;
    let clock = RealClock::new();
    while !handle.has_ended() {
        assert!(
            clock.monotonic() < PATIENCE,
            "never ended: {:?}",
            handle.status()
        );
        std::thread::yield_now();
    }
    Ok(handle.join())
}

/// Turns the engine until `is_so`, without letting its time pass.
fn turn_until(engine: &mut Engine, mut is_so: impl FnMut(&Engine) -> bool) {
    let clock = RealClock::new();
    while !is_so(engine) {
        assert!(clock.monotonic() < PATIENCE, "never came: {engine:?}");
        assert_ne!(engine.turn(), Turn::Ended);
        std::thread::yield_now();
    }
}
