//! How far each drain is, per class: durable, and held against the log it belongs to.
//!
//! A journal of their own; every record holds all cursors, so only the last one counts. A cursor says
//! that everything of its class at or below its position was accepted. It belongs to one generation
//! of one journal: what another one calls position 7 is another event.
//!
//! The lowest cursor pins the events above it, so retention keeps what a drain still needs.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use wal::{Generation, Identity, Journal, JournalId, Lsn, Pin, RecordKind};

use crate::{
    Error, Kind,
    event::{Class, EventId},
    record::{class_number, class_of},
};

/// Kind of the records that hold cursors.
pub(crate) const KIND: RecordKind = RecordKind(1);
pub(crate) const VERSION: u8 = 1;
/// Longest name of a drain, in bytes. It is part of every record.
pub const DRAIN_LEN_MAX: usize = 64;
/// Drains of one log. Each costs a few hundred bytes of every record; nobody has this many receivers.
pub const DRAINS_MAX: usize = 64;

/// A move of one drain's cursor: everything of `class` at or below `to` was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move<'a> {
    pub drain: &'a str,
    pub class: Class,
    pub to: EventId,
}

type Positions = BTreeMap<(String, Class), EventId>;

/// The cursors of every drain of one log.
pub struct Cursors {
    journal: Arc<dyn Journal>,
    events: Arc<dyn Journal>,
    state: Mutex<State>,
}

struct State {
    positions: Positions,
    /// Holds what the lowest cursor still needs; none while there is no cursor.
    pin: Option<Pin>,
}

impl fmt::Debug for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursors").finish_non_exhaustive()
    }
}

impl Cursors {
    /// Reads the cursors that `journal` holds; they are of drains of `events`.
    pub fn open(journal: Arc<dyn Journal>, events: Arc<dyn Journal>) -> Result<Self, Error> {
        let positions = read_last(&*journal)?;
        let cursors = Self {
            journal,
            events,
            state: Mutex::new(State {
                positions,
                pin: None,
            }),
        };
        cursors.hold_events(&mut cursors.state());
        Ok(cursors)
    }

    /// Where a drain is with a class; `None` when it has not begun. An error of kind `OutOfRange` when the
    /// cursor belongs to another generation, or is beyond what the log holds: sending from there
    /// would pass over events.
    pub fn get(&self, drain: &str, class: Class) -> Result<Option<EventId>, Error> {
        let at = self
            .state()
            .positions
            .get(&(drain.to_owned(), class))
            .copied();
        if let Some(at) = at {
            self.check(drain, class, at)?;
        }
        Ok(at)
    }

    /// Names of the drains that have a cursor.
    pub fn drains(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .state()
            .positions
            .keys()
            .map(|(drain, _)| drain.clone())
            .collect();
        names.dedup();
        names
    }

    /// Gives a drain a cursor of every class it has none of, before the oldest event retained, so that
    /// nothing it has yet to send is removed. Durable when it returns.
    pub fn begin(&self, drain: &str) -> Result<(), Error> {
        check_name(drain)?;
        let mut state = self.state();
        let before = Lsn::new(self.events.first_retained().get() - 1);
        let start = EventId::new(self.events.identity(), before);
        let mut positions = state.positions.clone();
        for class in Class::ALL {
            positions.entry((drain.to_owned(), class)).or_insert(start);
        }
        self.write(&mut state, positions)
    }

    /// Moves cursors, all or none; durable when it returns. A cursor moves forward only: a lower
    /// position leaves it where it is. Refused with `OutOfRange` when a position is of another
    /// generation or beyond the safe point.
    pub fn advance(&self, moves: &[Move<'_>]) -> Result<(), Error> {
        let mut state = self.state();
        let mut positions = state.positions.clone();
        for Move { drain, class, to } in moves {
            check_name(drain)?;
            self.check(drain, *class, *to)?;
            let at = positions
                .entry(((*drain).to_owned(), *class))
                .or_insert(*to);
            if at.identity() != to.identity() {
                return Err(self.foreign(drain, *class, *at));
            }
            *at = (*at).max(*to);
        }
        self.write(&mut state, positions)
    }

    /// Takes a drain's cursors away, durably: it begins anew, and events it was sent may be sent again.
    pub fn forget(&self, drain: &str) -> Result<(), Error> {
        let mut state = self.state();
        let mut positions = state.positions.clone();
        positions.retain(|(name, _), _| name != drain);
        self.write(&mut state, positions)
    }

    /// Order: the record, durable; the pin of the new lowest cursor; what lies below may then go.
    fn write(&self, state: &mut State, positions: Positions) -> Result<(), Error> {
        if positions == state.positions {
            return Ok(());
        }
        let names = positions.keys().map(|(name, _)| name);
        let drains = names.collect::<std::collections::BTreeSet<_>>().len();
        if drains > DRAINS_MAX {
            let message = format!("{drains} drains; at most {DRAINS_MAX}");
            return Err(Error::new(Kind::Invalid, message));
        }
        let doing = "keep the drains' cursors";
        let appended = self
            .journal
            .append(&[(KIND, &encode(&positions))])
            .map_err(|error| Error::journal(doing, error))?;
        state.positions = positions;
        self.hold_events(state);
        self.journal
            .release_below(appended.last)
            .map_err(|error| Error::journal(doing, error))
    }

    /// Pins what the lowest cursor needs. Cursors of another generation hold nothing: their events
    /// are gone.
    fn hold_events(&self, state: &mut State) {
        let identity = self.events.identity();
        let lowest = state
            .positions
            .values()
            .filter(|at| at.identity() == identity)
            .map(|at| at.lsn.next())
            .min();
        // The new pin before the old one goes: in between, nothing is without one.
        state.pin = lowest.and_then(|from| {
            let from = from.max(self.events.first_retained());
            self.events
                .pin(from)
                .inspect_err(
                    |error| tracing::warn!(%error, "events that a drain needs are not held"),
                )
                .ok()
        });
    }

    fn check(&self, drain: &str, class: Class, at: EventId) -> Result<(), Error> {
        if at.identity() != self.events.identity() {
            return Err(self.foreign(drain, class, at));
        }
        let safe_point = self.events.safe_point();
        if at.lsn > safe_point {
            return Err(Error::new(
                Kind::OutOfRange,
                format!(
                    "cursor {} of drain {drain}, class {class}, is beyond the safe point {safe_point}",
                    at.lsn
                ),
            ));
        }
        Ok(())
    }

    fn foreign(&self, drain: &str, class: Class, at: EventId) -> Error {
        let Identity {
            journal,
            generation,
        } = self.events.identity();
        Error::new(
            Kind::OutOfRange,
            format!(
                "cursor {} of drain {drain}, class {class}, is of generation {} of journal {}; the log is \
                 generation {} of journal {journal}",
                at.lsn, at.generation.0, at.journal, generation.0
            ),
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics while it holds this lock")
    }
}

/// The last record of cursors. It is the journal's last, except where the journal was reset: then
/// others may lie behind it, or nothing but others.
fn read_last(journal: &dyn Journal) -> Result<Positions, Error> {
    let reading = |error| Error::journal("read the drains' cursors", error);
    let last = journal.safe_point();
    for from in [last, journal.first_retained()] {
        if from < journal.first_retained() || last == Lsn::ZERO {
            continue;
        }
        let mut found = None;
        for record in journal.read(from).map_err(reading)? {
            let record = record.map_err(reading)?;
            if record.kind == KIND {
                found = Some(record.bytes);
            }
        }
        if let Some(bytes) = found {
            return decode(&bytes);
        }
    }
    Ok(Positions::new())
}

fn check_name(drain: &str) -> Result<(), Error> {
    let fits = !drain.is_empty()
        && drain.len() <= DRAIN_LEN_MAX
        && drain
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        format!(
            "drain `{}`: a name has 1 to {DRAIN_LEN_MAX} letters, digits, `-`, `_` or `.`",
            drain.escape_debug()
        ),
    ))
}

/// Bytes of a cursor behind the name of its drain: class, journal, generation, position.
pub(crate) const CURSOR_LEN: usize = 1 + 16 + 4 + 8;

fn encode(positions: &Positions) -> Vec<u8> {
    let mut out = vec![VERSION];
    for ((drain, class), at) in positions {
        out.push(u8::try_from(drain.len()).expect("checked against DRAIN_LEN_MAX"));
        out.extend_from_slice(drain.as_bytes());
        out.push(class_number(*class));
        out.extend_from_slice(&at.journal.0);
        out.extend_from_slice(&at.generation.0.to_le_bytes());
        out.extend_from_slice(&at.lsn.get().to_le_bytes());
    }
    out
}

fn decode(record: &[u8]) -> Result<Positions, Error> {
    let refuse = |why: &str| Error::new(Kind::Corrupt, format!("record of cursors {why}"));
    let (version, mut rest) = record.split_first().ok_or_else(|| refuse("has no bytes"))?;
    if *version != VERSION {
        return Err(refuse(&format!(
            "of version {version}, this program reads {VERSION}; use the program that wrote it"
        )));
    }
    let mut positions = Positions::new();
    while let Some((len, after)) = rest.split_first() {
        let (drain, after) = after
            .split_at_checked(usize::from(*len))
            .ok_or_else(|| refuse("ends early"))?;
        let (cursor, after) = after
            .split_first_chunk::<CURSOR_LEN>()
            .ok_or_else(|| refuse("ends early"))?;
        rest = after;
        let drain = str::from_utf8(drain).map_err(|_| refuse("names a drain that is no text"))?;
        check_name(drain)?;
        let class = class_of(cursor[0]).ok_or_else(|| refuse("has a class there is not"))?;
        let at = EventId {
            journal: JournalId(array(&cursor[1..17])),
            generation: Generation(u32::from_le_bytes(array(&cursor[17..21]))),
            lsn: Lsn::new(u64::from_le_bytes(array(&cursor[21..]))),
        };
        positions.insert((drain.to_owned(), class), at);
    }
    Ok(positions)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes
        .try_into()
        .expect("the places of a cursor add up to its length")
}
