//! The record beside the log: what is on disk of it, and what is on its way there.
//!
//! One change at a time. What wants the next one waits, and is judged again by what is on disk then.
//! So whoever reads [`Keeper::record`] reads what a crash would leave.

use std::collections::VecDeque;

use super::{Effect, Event, Record, outbox::Outbox};

/// Events that wait for a record to be on disk. Those above it are not taken: peers ask again, and who gave
/// an order is told. By eye: a few for each member.
const DEFERRED_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Keeper<T> {
    record: Record,
    in_flight: Option<(u64, Record, T)>,
    deferred: VecDeque<Event>,
    last: u64,
}

impl<T> Keeper<T> {
    pub(super) fn new(record: Record) -> Self {
        Self {
            record,
            in_flight: None,
            deferred: VecDeque::new(),
            last: 0,
        }
    }

    /// What is on disk.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// `then` happens once `record` is on disk. Not to be called while busy.
    pub(super) fn keep(&mut self, record: Record, then: T, out: &mut Outbox) {
        world::invariant!(self.in_flight.is_none(), "two records are kept at once");
        self.last += 1;
        out.push(Effect::Keep {
            number: self.last,
            record: record.clone(),
        });
        self.in_flight = Some((self.last, record, then));
    }

    pub(super) fn has_room(&self) -> bool {
        self.deferred.len() < DEFERRED_MAX
    }

    pub(super) fn defer(&mut self, event: Event) {
        if self.has_room() {
            self.deferred.push_back(event);
        }
    }

    /// The next event that waited, if nothing is on its way to disk.
    pub(super) fn next_deferred(&mut self) -> Option<Event> {
        if self.is_busy() {
            return None;
        }
        self.deferred.pop_front()
    }

    /// Answer to `Keep`: what was to happen, and whether it may. `None`: it answers nothing asked here.
    pub(super) fn kept(&mut self, number: u64, is_durable: bool) -> Option<(T, bool)> {
        let (_, record, then) = self.in_flight.take_if(|(asked, ..)| *asked == number)?;
        if is_durable {
            self.record = record;
        }
        Some((then, is_durable))
    }
}
