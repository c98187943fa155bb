//! The log of events: what is acknowledged is durable, what was acknowledged before is not kept twice.
//!
//! Order of an append: check all, take room, reserve the producers' ids, one journal append, make
//! the ids known, acknowledge. An error anywhere leaves nothing half done: the ids are unknown again and
//! no position was used.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use wal::{APPEND_LEN_MAX, Identity, Journal, Lsn};
use world::{Clock, Disk};

use crate::{
    Error, Kind,
    event::{EventId, NewEvent},
    ids::{Ids, Key},
    query::{Events, Filter},
    record::{self, View},
};

/// Bytes of events in flight unless told otherwise. A second of intake at 100,000 events of a usual
/// size, twice over; what waits longer than that is not helped by waiting more.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// What a producer is told to wait when too much is in flight. HTTP says it in whole seconds, and
/// one is many times what a group commit takes.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What [`Log::open`] needs.
#[derive(Clone)]
pub struct Options {
    /// Nobody else appends to it while the log is open.
    pub journal: Arc<dyn Journal>,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    /// Where the index of producers' ids is kept; made when it is missing, and safe to delete while
    /// the log is closed.
    pub ids_dir: PathBuf,
    /// Bytes of events that may be in flight; see [`Log::admit`].
    pub in_flight_bytes_max: usize,
}

impl Options {
    pub fn new(
        journal: Arc<dyn Journal>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        ids_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            journal,
            disk,
            clock,
            ids_dir: ids_dir.into(),
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("journal", &self.journal)
            .field("ids_dir", &self.ids_dir)
            .field("in_flight_bytes_max", &self.in_flight_bytes_max)
            .finish_non_exhaustive()
    }
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records that were read again to complete the index of ids.
    pub replayed: u64,
}

/// An event is durable under this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub id: EventId,
    /// The producer's id was known: this is the event that was kept then, or the one before it in the
    /// same batch.
    pub is_duplicate: bool,
}

/// Events over a journal. Shared between threads.
#[derive(Debug)]
pub struct Log {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    ids: Ids,
    room: Arc<Room>,
    is_closed: AtomicBool,
}

impl Log {
    pub fn open(options: Options) -> Result<(Self, Recovery), Error> {
        let ids = Ids::open(&*options.journal)?;
        let log = Self {
            journal: options.journal,
            clock: options.clock,
            ids,
            room: Arc::new(Room {
                taken: AtomicUsize::new(0),
                max: options.in_flight_bytes_max,
            }),
            is_closed: AtomicBool::new(false),
        };
        Ok((log, Recovery::default()))
    }

    /// Takes room for `bytes` that are about to be read from a producer, until the guard is dropped;
    /// `Overloaded` at once when there is none. An intake takes it before it reads a body, so that
    /// bodies count together with the events they become.
    pub fn admit(&self, bytes: usize) -> Result<Admission, Error> {
        Room::take(&self.room, bytes)
    }

    /// Keeps what is new and acknowledges all, in order; returns when everything acknowledged is
    /// durable. All are taken or none.
    ///
    /// Errors: `Invalid` names the event and what about it; `Overloaded`, `Full` for now; `Poisoned`,
    /// `Fenced`, `Closed` until the log is opened again. After any other error than `Poisoned` the
    /// events are not in the log; after that one, whether they are is known when it is opened again.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "the events are the log's from here on"
    )]
    pub fn append(&self, events: Vec<NewEvent>) -> Result<Vec<Ack>, Error> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Closed, "the log of events is closed"));
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let weight = check(&events)?;
        let _admission = self.admit(weight)?;
        let keys: Vec<Option<Key>> = events.iter().map(|event| self.key(event)).collect();
        let reservation = self.ids.reserve(keys.iter().flatten().copied().collect());
        let plan = Plan::make(self, &events, &keys, &reservation.candidates()?)?;
        let fresh = plan.fresh(&events);
        if fresh.is_empty() {
            return Ok(plan.acknowledge(self.identity(), Lsn::ZERO));
        }
        let first = self.commit(&fresh)?;
        let acks = plan.acknowledge(self.identity(), first);
        // After the journal said durable and before anybody else may reserve the ids.
        reservation.keep(&plan.stored(&keys, first));
        Ok(acks)
    }

    /// One journal append of all events; the position of the first.
    fn commit(&self, fresh: &[&NewEvent]) -> Result<Lsn, Error> {
        let received = self.clock.now();
        let len = fresh.iter().map(|event| record::encoded_len(event)).sum();
        let mut bytes = Vec::with_capacity(len);
        let mut ends = Vec::with_capacity(fresh.len());
        for event in fresh {
            record::encode_into(&mut bytes, event, received);
            ends.push(bytes.len());
        }
        let mut start = 0;
        let records: Vec<_> = ends
            .into_iter()
            .map(|end| {
                (
                    record::KIND,
                    &bytes[std::mem::replace(&mut start, end)..end],
                )
            })
            .collect();
        let appended = self
            .journal
            .append(&records)
            .map_err(|error| Error::journal("append events", error))?;
        Ok(appended.first)
    }

    fn key(&self, event: &NewEvent) -> Option<Key> {
        let id = event.producer_id.as_deref()?;
        Some(self.ids.keys().key(&event.source, id))
    }

    /// Whether the record at `lsn` is the event that `event` repeats. A position that retention took
    /// meanwhile is none.
    fn is_same(&self, lsn: Lsn, event: &NewEvent) -> Result<bool, Error> {
        let reading = "read the event of a known id";
        let mut records = match self.journal.read(lsn) {
            Ok(records) => records,
            Err(error) if error.kind() == wal::Kind::OutOfRange => return Ok(false),
            Err(error) => return Err(Error::journal(reading, error)),
        };
        let Some(found) = records.next() else {
            return Ok(false);
        };
        let found = found.map_err(|error| Error::journal(reading, error))?;
        if found.kind != record::KIND {
            return Ok(false);
        }
        Ok(View::of(&found.bytes).is_ok_and(|view| {
            view.source == event.source && view.producer_id == event.producer_id.as_deref()
        }))
    }

    /// Events from `from` on that `filter` lets through, in order of their positions, up to the safe
    /// point as it is. `from` below the retained range is `OutOfRange`.
    pub fn read(&self, from: Lsn, filter: &Filter) -> Result<Events<'_>, Error> {
        let records = self
            .journal
            .read(from)
            .map_err(|error| Error::journal("read events", error))?;
        Ok(Events::new(self.identity(), records, filter.clone()))
    }

    /// The last event that readers see.
    pub fn safe_point(&self) -> Lsn {
        self.journal.safe_point()
    }

    pub fn first_retained(&self) -> Lsn {
        self.journal.first_retained()
    }

    /// Waits until there is something above `seen`, at most `timeout`; returns the safe point.
    pub fn wait_above(&self, seen: Lsn, timeout: Duration) -> Lsn {
        self.journal.wait_above(seen, timeout)
    }

    pub fn identity(&self) -> Identity {
        self.journal.identity()
    }

    /// To read, pin and release; appending goes through the log, or ids are missed.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// Bytes in flight.
    pub fn in_flight_bytes(&self) -> usize {
        self.room.taken.load(Ordering::Relaxed)
    }

    /// Appends are refused from here on; reads go on until the log is dropped.
    pub fn close(&self) -> Result<(), Error> {
        self.is_closed.store(true, Ordering::Release);
        Ok(())
    }
}

/// Checks each event; the bytes of all.
fn check(events: &[NewEvent]) -> Result<usize, Error> {
    let mut weight = 0_usize;
    let mut len = 0_usize;
    for (index, event) in events.iter().enumerate() {
        event
            .check()
            .map_err(|unfit| Error::new(Kind::Invalid, unfit.to_string()).at_index(index))?;
        let record_len = record::encoded_len(event) + RECORD_OVERHEAD;
        len = len.saturating_add(record_len);
        // The event itself and its record are in memory at the same time.
        weight = weight.saturating_add(event.weight() + record_len);
    }
    if len > APPEND_LEN_MAX {
        return Err(Error::new(
            Kind::Invalid,
            format!("batch of {len} bytes; at most {APPEND_LEN_MAX}: send it in parts"),
        ));
    }
    Ok(weight)
}

/// At least what the journal puts beside a record.
const RECORD_OVERHEAD: usize = 8;

/// What becomes of each event of a batch.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The event at this place among the new ones.
    Fresh(u64),
    /// In the log under this position.
    Known(Lsn),
    /// Repeats the new event at this place.
    Repeats(u64),
}

#[derive(Debug)]
struct Plan(Vec<Fate>);

impl Plan {
    fn make(
        log: &Log,
        events: &[NewEvent],
        keys: &[Option<Key>],
        candidates: &std::collections::BTreeMap<Key, Vec<Lsn>>,
    ) -> Result<Self, Error> {
        let mut fates = Vec::with_capacity(events.len());
        let mut fresh = 0;
        // Places of the new events of this batch by key; a collision keeps the later one.
        let mut seen = std::collections::HashMap::new();
        for (index, event) in events.iter().enumerate() {
            let Some(key) = keys[index] else {
                fates.push(Fate::Fresh(fresh));
                fresh += 1;
                continue;
            };
            if let Some(&(earlier, place)) = seen.get(&key) {
                let earlier: &NewEvent = &events[earlier];
                if earlier.source == event.source && earlier.producer_id == event.producer_id {
                    fates.push(Fate::Repeats(place));
                    continue;
                }
            }
            let mut known = None;
            for &lsn in candidates.get(&key).into_iter().flatten() {
                if log.is_same(lsn, event)? {
                    known = Some(lsn);
                    break;
                }
            }
            if let Some(lsn) = known {
                fates.push(Fate::Known(lsn));
            } else {
                seen.insert(key, (index, fresh));
                fates.push(Fate::Fresh(fresh));
                fresh += 1;
            }
        }
        Ok(Self(fates))
    }

    fn fresh<'a>(&self, events: &'a [NewEvent]) -> Vec<&'a NewEvent> {
        let fates = self.0.iter().zip(events);
        fates
            .filter(|(fate, _)| matches!(fate, Fate::Fresh(_)))
            .map(|(_, event)| event)
            .collect()
    }

    /// Keys that are known once the first new event is durable at `first`.
    fn stored(&self, keys: &[Option<Key>], first: Lsn) -> Vec<(Key, Lsn)> {
        let fates = self.0.iter().zip(keys);
        fates
            .filter_map(|(fate, key)| match fate {
                Fate::Fresh(place) => Some(((*key)?, Lsn::new(first.get() + place))),
                Fate::Known(_) | Fate::Repeats(_) => None,
            })
            .collect()
    }

    fn acknowledge(&self, identity: Identity, first: Lsn) -> Vec<Ack> {
        self.0
            .iter()
            .map(|fate| {
                let (lsn, is_duplicate) = match *fate {
                    Fate::Fresh(place) => (Lsn::new(first.get() + place), false),
                    Fate::Repeats(place) => (Lsn::new(first.get() + place), true),
                    Fate::Known(lsn) => (lsn, true),
                };
                Ack {
                    id: EventId::new(identity, lsn),
                    is_duplicate,
                }
            })
            .collect()
    }
}

/// Counts bytes in flight.
#[derive(Debug)]
struct Room {
    taken: AtomicUsize,
    max: usize,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub struct Admission {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    fn take(room: &Arc<Self>, bytes: usize) -> Result<Admission, Error> {
        if bytes > room.max {
            return Err(Error::new(
                Kind::Invalid,
                format!(
                    "{bytes} bytes at once; at most {}: send them in parts",
                    room.max
                ),
            ));
        }
        let taken = room
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(bytes).filter(|sum| *sum <= room.max)
            });
        match taken {
            Ok(_) => Ok(Admission {
                room: Arc::clone(room),
                bytes,
            }),
            Err(taken) => Err(Error::overloaded(
                format!(
                    "{taken} bytes of events are in flight; at most {}",
                    room.max
                ),
                RETRY_AFTER,
            )),
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
