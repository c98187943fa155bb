//! The log of events: what is acknowledged is durable, what was acknowledged before is not kept twice.
//!
//! Order of an append: check all, take room, reserve the producers' ids, one journal append, make
//! the ids known, acknowledge. An error anywhere leaves nothing half done: the ids are unknown again and
//! no position was used.

use std::{
    collections::HashMap,
    fmt,
    hash::BuildHasher,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use wal::{APPEND_LEN_MAX, Appended, Identity, Journal, Lsn, Records, Upkeep};
use world::{Clock, Disk};

use crate::{
    Error, Kind,
    event::{EventId, NewEvent},
    ids::{self, Ids, Key},
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
    /// Who writes the index: a thread of its own, or appends when it is due.
    pub upkeep: Upkeep,
    pub(crate) ids_limits: ids::Limits,
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
            upkeep: Upkeep::Thread,
            ids_limits: ids::Limits::default(),
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
    /// Files of the index that were of no use and are made again.
    pub discarded: u64,
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
        let (ids, opened) = Ids::open(
            Arc::clone(&options.journal),
            options.disk,
            options.ids_dir,
            options.ids_limits,
            options.upkeep,
        )?;
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
        let recovery = Recovery {
            replayed: opened.replayed,
            discarded: opened.discarded,
        };
        Ok((log, recovery))
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
        let mut reservation = self.ids.reserve(held(&keys))?;
        let plan = Plan::make(self, &events, &keys, &reservation.candidates()?)?;
        let fresh = plan.fresh(&events);
        if fresh.is_empty() {
            return Ok(plan.acknowledge(self.identity(), Lsn::ZERO));
        }
        let Appended { first, last } = self.commit(&fresh)?;
        // After the journal said durable and before anybody else may reserve the ids.
        reservation.keep(&plan.stored(&keys, first), first, last);
        Ok(plan.acknowledge(self.identity(), first))
    }

    /// One journal append of all events.
    fn commit(&self, fresh: &[&NewEvent]) -> Result<Appended, Error> {
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
        self.journal
            .append(&records)
            .map_err(|error| Error::journal("append events", error))
    }

    fn key(&self, event: &NewEvent) -> Option<Key> {
        let id = event.producer_id.as_deref()?;
        Some(self.ids.keys().key(&event.source, id))
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

    /// Appends that wait for another one which holds an id of theirs.
    #[cfg(test)]
    pub(crate) fn waiting_for_ids(&self) -> usize {
        self.ids.waiting()
    }

    /// Appends are refused from here on; reads go on until the log is dropped.
    pub fn close(&self) -> Result<(), Error> {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.ids.close()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the next open reads the producers' ids again");
        }
    }
}

/// Each key once.
fn held(keys: &[Option<Key>]) -> Vec<Key> {
    let mut held: Vec<Key> = keys.iter().flatten().copied().collect();
    held.sort_unstable();
    held.dedup();
    held
}

/// Reads the events that known ids point to. A batch that is sent again points to neighbours, so one
/// read of the journal serves many.
struct Verifier<'a> {
    journal: &'a dyn Journal,
    records: Option<(Records<'a>, Lsn)>,
}

/// Records passed over rather than begun anew: what a read costs to begin.
const PASS_OVER_MAX: u64 = 256;

impl<'a> Verifier<'a> {
    fn new(journal: &'a dyn Journal) -> Self {
        Self {
            journal,
            records: None,
        }
    }

    /// Whether the record at `lsn` is the event that `event` repeats. A position that retention took
    /// meanwhile is none.
    fn is_same(&mut self, lsn: Lsn, event: &NewEvent) -> Result<bool, Error> {
        let reading = |error| Error::journal("read the event of a known id", error);
        let mut records = match self.records.take() {
            Some((records, next))
                if (next..=Lsn::new(next.get() + PASS_OVER_MAX)).contains(&lsn) =>
            {
                records
            }
            _ => match self.journal.read(lsn) {
                Ok(records) => records,
                Err(error) if error.kind() == wal::Kind::OutOfRange => return Ok(false),
                Err(error) => return Err(reading(error)),
            },
        };
        while let Some(record) = records.next() {
            let record = record.map_err(reading)?;
            if record.lsn < lsn {
                continue;
            }
            self.records = Some((records, lsn.next()));
            return Ok(record.kind == record::KIND
                && View::of(&record.bytes).is_ok_and(|view| {
                    view.source == event.source && view.producer_id == event.producer_id.as_deref()
                }));
        }
        Ok(false)
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
        candidates: &HashMap<Key, Vec<Lsn>, impl BuildHasher>,
    ) -> Result<Self, Error> {
        let mut fates = Vec::with_capacity(events.len());
        let mut fresh = 0;
        // Places of the new events of this batch, by what their keys are made of.
        let mut seen: HashMap<(&str, &str), u64> = HashMap::new();
        let mut verifier = Verifier::new(&*log.journal);
        for (event, key) in events.iter().zip(keys) {
            let (Some(key), Some(id)) = (key, event.producer_id.as_deref()) else {
                fates.push(Fate::Fresh(fresh));
                fresh += 1;
                continue;
            };
            if let Some(&place) = seen.get(&(event.source.as_str(), id)) {
                fates.push(Fate::Repeats(place));
                continue;
            }
            let mut known = None;
            for &lsn in candidates.get(key).into_iter().flatten() {
                if verifier.is_same(lsn, event)? {
                    known = Some(lsn);
                    break;
                }
            }
            if let Some(lsn) = known {
                fates.push(Fate::Known(lsn));
            } else {
                seen.insert((&event.source, id), fresh);
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
