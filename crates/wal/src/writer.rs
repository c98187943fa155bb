//! The writer: turns a commit group into one batch, one write and one data sync.

use std::sync::{Arc, atomic::Ordering};

use world::invariant;

use crate::{
    Appended, Epoch, Error, Kind, Lsn, Mode,
    batch::{self, Closing, Place},
    ceiling::Need,
    core::{Active, Core},
    counts::add,
    hold,
    order::CutOrder,
    segment,
};

/// What one append hands to its group: room for a batch header, then its records.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) batch: Vec<u8>,
    pub(crate) count: u32,
}

/// What an append may do for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Ordinary,
    /// It may use the reserve.
    Closing,
}

/// Owned by whoever leads a group.
#[derive(Debug)]
pub(crate) struct Writer {
    active: Arc<Active>,
    place: Place,
    /// Offset of the next batch.
    position: u64,
    next: Lsn,
    /// Of own appends: never below that of a record, and never falls.
    own: Epoch,
    /// Lowest that own appends may have.
    own_from: Epoch,
    /// Of the last retained record.
    last: Option<Epoch>,
}

impl Writer {
    pub(crate) fn new(core: &Core, position: u64, next: Lsn, own: Epoch) -> Self {
        let active = Arc::clone(&hold(&core.active));
        let epochs = hold(&core.epochs);
        Self {
            place: Place::new(core.identity, active.base),
            active,
            position,
            next,
            own,
            own_from: epochs.past.own_from,
            last: epochs.last(),
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn next(&self) -> Lsn {
        self.next
    }

    /// To where the log ends after a cut. Own appends keep their epoch, or a higher one.
    pub(crate) fn move_back(&mut self, core: &Core, order: &CutOrder, active: Arc<Active>) {
        self.turn_to(core, active);
        self.position = order.from;
        self.next = order.keep.next();
        self.own_from = self.own_from.max(order.own_from);
        self.last = hold(&core.epochs).last();
    }

    pub(crate) fn raise(&mut self, core: &Core, epoch: Epoch) -> Result<(), Error> {
        let least = self.own.max(self.own_from);
        if epoch < least {
            let message = format!("epoch {} may not write after epoch {}", epoch.0, least.0);
            return Err(Error::new(Kind::Fenced, message).with_path(&core.dir));
        }
        self.own = epoch;
        Ok(())
    }

    pub(crate) fn extent(&self) -> u64 {
        self.active.extent()
    }

    /// Writes the group as one batch. Order: write, sync, in strict mode a slot and its sync, publish;
    /// who handed in a member is told after that. Positions are assigned here, and an error assigns
    /// none.
    pub(crate) fn commit(
        &mut self,
        core: &Core,
        group: Vec<Pending>,
        room: Room,
    ) -> Vec<Result<Appended, Error>> {
        if self.own < self.own_from {
            let message = format!(
                "records after {} were cut, and were written under up to epoch {}: an epoch of {} or \
                 more must be taken first",
                core.tail.safe_point(),
                self.own_from.0 - 1,
                self.own_from.0
            );
            let error = Error::new(Kind::Fenced, message).with_path(&core.dir);
            return group.iter().map(|_| Err(error.clone())).collect();
        }
        self.commit_under(core, self.own, group, room)
    }

    /// The same under an epoch that is not below the last record's.
    pub(crate) fn commit_under(
        &mut self,
        core: &Core,
        epoch: Epoch,
        group: Vec<Pending>,
        room: Room,
    ) -> Vec<Result<Appended, Error>> {
        let counts: Vec<u32> = group.iter().map(|pending| pending.count).collect();
        let total = counts.iter().map(|&count| u64::from(count)).sum();
        if let Err(error) = self.write(core, epoch, join(group), total, room) {
            core.refused(&error, counts.len() as u64);
            return counts.iter().map(|_| Err(error.clone())).collect();
        }
        let mut first = self.next;
        let outcomes = counts
            .iter()
            .map(|&count| {
                let next = Lsn::new(first.get() + u64::from(count));
                let appended = Appended {
                    first,
                    last: Lsn::new(next.get() - 1),
                };
                first = next;
                Ok(appended)
            })
            .collect();
        if self.last != Some(epoch) {
            let before = core.tail.at().epoch;
            hold(&core.epochs).begin(epoch, self.next, before);
            self.last = Some(epoch);
        }
        self.own = self.own.max(epoch);
        self.next = first;
        add(&core.counters.appends, counts.len() as u64);
        add(&core.counters.records, total);
        core.tail.publish(Lsn::new(self.next.get() - 1), epoch);
        outcomes
    }

    fn write(
        &mut self,
        core: &Core,
        epoch: Epoch,
        mut bytes: Vec<u8>,
        total: u64,
        room: Room,
    ) -> Result<(), Error> {
        core.check_writable()?;
        let safe_point = core.tail.safe_point();
        invariant!(
            safe_point.next() == self.next,
            "next position {} above safe point {safe_point}",
            self.next
        );
        let len = bytes.len().next_multiple_of(batch::ALIGNMENT) as u64;
        match self.make_room(core, len) {
            Err(error) if error.kind() == Kind::Full && room == Room::Closing => {
                self.move_to_reserve(core, len, error)?;
            }
            made => made?,
        }
        let offset = self.position;
        let closing = Closing {
            count: u32::try_from(total).expect("records of at most APPEND_LEN_MAX bytes"),
            first: self.next,
            epoch,
            safe_point,
            settled: Lsn::new(core.settled.load(Ordering::Acquire)),
            mode: core.mode,
        };
        batch::close(&mut bytes, &closing, self.place, offset);
        if self.active.is_recycled {
            // Stale bytes must not follow directly: they would look like a torn batch.
            let room = self.active.extent() - offset - len;
            let zeros = usize::try_from(room)
                .unwrap_or(usize::MAX)
                .min(batch::HEADER_LEN);
            bytes.resize(bytes.len() + zeros, 0);
        }
        let file = &self.active.file;
        file.write_all_at(&bytes, offset)
            .map_err(|source| self.poison(core, "write a batch", source))?;
        let from = core.clock.monotonic();
        file.sync_data()
            .map_err(|source| self.poison(core, "sync a batch", source))?;
        let took = core.clock.monotonic().saturating_sub(from);
        core.gauges.batch(total, len, took);
        add(&core.counters.syncs, 1);
        if core.mode == Mode::Strict {
            let last = Lsn::new(self.next.get() + total - 1);
            core.vouch(last, epoch)?;
            add(&core.counters.syncs, 1);
        }
        add(&core.counters.groups, 1);
        add(&core.counters.bytes, len);
        hold(&core.catalog).mark_active(self.next, offset);
        self.position += len;
        Ok(())
    }

    fn poison(&self, core: &Core, what: &str, source: std::io::Error) -> Error {
        let first = Error::doubt(what, &self.active.path, source)
            .with_offset(self.position)
            .with_lsn(self.next);
        core.poison(&first)
    }

    /// Space for `len` bytes that was written before, here or in the next segment. What was prepared
    /// ahead goes before a record does, and before an append is refused.
    fn make_room(&mut self, core: &Core, len: u64) -> Result<(), Error> {
        match self.find_room(core, len, Need::Polite) {
            Err(error) if error.kind() == Kind::Full => {
                core.give_up_spares()?;
                self.find_room(core, len, Need::Urgent)
            }
            found => found,
        }
    }

    fn find_room(&mut self, core: &Core, len: u64, need: Need) -> Result<(), Error> {
        let is_fresh = self.position == segment::HEADER_LEN as u64;
        if self.position + len > core.segment_bytes && !is_fresh {
            let active = core.roll(self.next, len, need)?;
            self.turn_to(core, active);
        }
        let end = self.position + len;
        if end > self.active.extent() {
            add(&core.counters.space_waits, 1);
            core.grow(&self.active, end, need)?;
        }
        Ok(())
    }

    fn turn_to(&mut self, core: &Core, active: Arc<Active>) {
        self.place = Place::new(core.identity, active.base);
        self.position = segment::HEADER_LEN as u64;
        self.active = active;
    }

    /// Space for `len` bytes in the reserve, or the error that there was without it. A segment
    /// without a batch stays: two cannot have one name.
    fn move_to_reserve(&mut self, core: &Core, len: u64, full: Error) -> Result<(), Error> {
        if self.position == segment::HEADER_LEN as u64 {
            return Err(full);
        }
        match core.roll_into_reserve(self.next, len)? {
            Some(active) => {
                self.turn_to(core, active);
                Ok(())
            }
            None => Err(full),
        }
    }
}

/// One batch of all members, header still empty. The first member's buffer is the batch's, so that
/// an appender alone copies its records once.
fn join(group: Vec<Pending>) -> Vec<u8> {
    let total: usize = group.iter().map(|pending| pending.batch.len()).sum();
    let mut members = group.into_iter();
    let mut batch = members.next().map(|first| first.batch).unwrap_or_default();
    batch.reserve(total.saturating_sub(batch.len()));
    for member in members {
        batch.extend_from_slice(&member.batch[batch::HEADER_LEN..]);
    }
    batch
}
