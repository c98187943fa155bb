//! Reading events: a filter, and following the tail.
//!
//! One record is in memory at a time, whatever the log holds. The order is that of the positions;
//! times of events are their producers' and come in any order.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use wal::{Identity, Lsn, Records};
use world::Timestamp;

use crate::{
    Error, Kind, Log,
    event::{Class, Event, EventId, TraceId},
    record::{self, View},
};

/// How often a follower looks at its stop flag while nothing comes.
const STOP_POLL: Duration = Duration::from_millis(200);

/// Which events are meant. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these; empty: all.
    pub classes: Vec<Class>,
    pub source: Option<String>,
    /// Events that happened at this time or later, by their producers' clocks.
    pub since: Option<Timestamp>,
    /// Events that happened before this time.
    pub until: Option<Timestamp>,
    pub trace: Option<TraceId>,
    pub producer_id: Option<String>,
}

impl Filter {
    fn lets_through(&self, view: &View<'_>) -> bool {
        let is_wanted = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        (self.classes.is_empty() || self.classes.contains(&view.class))
            && is_wanted(&self.source, Some(view.source))
            && is_wanted(&self.producer_id, view.producer_id)
            && self.since.is_none_or(|since| view.time >= since)
            && self.until.is_none_or(|until| view.time < until)
            && self.trace.is_none_or(|trace| view.trace == Some(trace))
    }
}

/// Events in order of their positions; see [`Log::read`]. A record that is no event of this version is
/// an error in its place, and reading goes on behind it; any other error is the last item.
pub struct Events<'a> {
    identity: Identity,
    records: Records<'a>,
    filter: Filter,
    /// The last position looked at, whether or not it was let through.
    looked_at: Lsn,
}

impl<'a> Events<'a> {
    pub(crate) fn new(identity: Identity, records: Records<'a>, filter: Filter) -> Self {
        Self {
            identity,
            records,
            filter,
            looked_at: Lsn::ZERO,
        }
    }

    /// The last position looked at, whether or not the filter let it through; `Lsn::ZERO` before the
    /// first. A drain moves the cursor of a class over positions that hold none of it.
    pub fn looked_at(&self) -> Lsn {
        self.looked_at
    }
}

impl fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("filter", &self.filter)
            .field("looked_at", &self.looked_at)
            .finish_non_exhaustive()
    }
}

impl Iterator for Events<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(Error::journal("read events", error))),
            };
            self.looked_at = record.lsn;
            if record.kind != record::KIND {
                continue;
            }
            let id = EventId::new(self.identity, record.lsn);
            match View::of(&record.bytes) {
                Ok(view) if self.filter.lets_through(&view) => {
                    return Some(Ok(Event {
                        id,
                        received: view.received,
                        event: view.to_event(),
                    }));
                }
                Ok(_) => {}
                Err(undecodable) => {
                    let error = Error::new(Kind::Corrupt, format!("event {id}"));
                    return Some(Err(error.with_source(undecodable)));
                }
            }
        }
    }
}

/// Calls `each` for every event from `from` on, those to come included, until `stop` is set or `each`
/// returns false. While it waits it holds nothing; a follower that retention overtook gets
/// `OutOfRange` with the range.
pub fn follow(
    log: &Log,
    from: Lsn,
    filter: &Filter,
    stop: &AtomicBool,
    mut each: impl FnMut(Event) -> bool,
) -> Result<(), Error> {
    let mut next = from;
    while !stop.load(Ordering::Relaxed) {
        let mut events = log.read(next, filter)?;
        while let Some(event) = events.next() {
            next = events.looked_at().next();
            if !each(event?) || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        next = next.max(events.looked_at().next());
        drop(events);
        let seen = Lsn::new(next.get() - 1);
        log.wait_above(seen, STOP_POLL);
    }
    Ok(())
}
