//! Reading what a drain sends: the events of one class from a position on.

use std::sync::atomic::{AtomicBool, Ordering};

use wal::{Journal, Lsn};

use crate::{
    Class, Error, Event, EventId, Kind,
    record::{self, View},
};

/// Bytes of the events of a batch, beyond which no event is added. Receivers commonly take 4 MiB or
/// more before decompression; one event alone may be larger than this.
pub(super) const BATCH_BYTES_MAX: usize = 2 << 20;

/// Events of one class, and the position up to which they are all there is of it.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    pub(super) upto: Lsn,
}

/// Events of `class` above `after`, up to `until`, at most `events_max`. Ends early when told to stop.
pub(super) fn read(
    journal: &dyn Journal,
    class: Class,
    (after, until): (Lsn, Lsn),
    events_max: usize,
    stop: &AtomicBool,
) -> Result<Batch, Error> {
    let identity = journal.identity();
    let mut batch = Batch {
        events: Vec::new(),
        upto: after,
    };
    let mut bytes = 0;
    for record in journal.read(after.next()).map_err(unreadable)? {
        let record = record.map_err(unreadable)?;
        if record.lsn > until || stop.load(Ordering::Relaxed) {
            return Ok(batch);
        }
        if record.kind == record::KIND {
            let view = View::of(&record.bytes).map_err(|why| corrupt(record.lsn, why))?;
            if view.class == class {
                let is_full = batch.events.len() >= events_max
                    || bytes + record.bytes.len() > BATCH_BYTES_MAX;
                if is_full && !batch.events.is_empty() {
                    return Ok(batch);
                }
                bytes += record.bytes.len();
                batch.events.push(Event {
                    id: EventId::new(identity, record.lsn),
                    received: view.received,
                    event: view.to_event(),
                });
            }
        }
        batch.upto = record.lsn;
    }
    Ok(batch)
}

/// Counts events by class as they come, a bounded number of records at a time.
#[derive(Debug)]
pub(super) struct Survey {
    /// Everything up to here was counted.
    pub(super) upto: Lsn,
}

/// Records of one look. A look takes milliseconds, so results of sends are not kept waiting.
const RECORDS_A_LOOK: usize = 4096;

impl Survey {
    pub(super) fn look(
        &mut self,
        journal: &dyn Journal,
        until: Lsn,
        mut found: impl FnMut(Class, Lsn),
    ) -> Result<(), Error> {
        if self.upto >= until {
            return Ok(());
        }
        let records = journal.read(self.upto.next()).map_err(unreadable)?;
        for record in records.take(RECORDS_A_LOOK) {
            let record = record.map_err(unreadable)?;
            if record.lsn > until {
                break;
            }
            if record.kind == record::KIND {
                let view = View::of(&record.bytes).map_err(|why| corrupt(record.lsn, why))?;
                found(view.class, record.lsn);
            }
            self.upto = record.lsn;
        }
        Ok(())
    }
}

fn unreadable(source: wal::Error) -> Error {
    Error::journal("read events to drain", source)
}

fn corrupt(lsn: Lsn, why: record::Undecodable) -> Error {
    Error::new(Kind::Corrupt, format!("read event {lsn} to drain")).with_source(why)
}
