//! A coordinator's lease: until when this node may acknowledge. Measured on its own clock only.

use wal::Epoch;

use super::{Limits, STARTS, Time};

#[derive(Debug)]
pub(super) struct Lease {
    /// There is a coordinator: without a lease nothing is acknowledged.
    is_wanted: bool,
    held: Option<(Epoch, Time)>,
}

impl Lease {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            held: None,
        }
    }

    pub(super) fn grant(&mut self, epoch: Epoch, until: Time) {
        // An answer that comes late does not take back what a later one gave.
        self.held = match self.held {
            Some((held, end)) if held == epoch => Some((held, end.max(until))),
            Some((held, end)) if held > epoch => Some((held, end)),
            _ => Some((epoch, until)),
        };
    }

    pub(super) fn lose(&mut self) {
        self.held = None;
    }

    /// Whether what is done under `epoch` may be acknowledged at `now`. A lease is for the epoch of a
    /// promotion, and for the starts of its holder.
    pub(super) fn covers(&self, epoch: Epoch, now: Time, limits: &Limits) -> bool {
        !self.is_wanted
            || self.held.is_some_and(|(held, until)| {
                is_of_one(held, epoch)
                    && now
                        .0
                        .checked_add(limits.lease_margin)
                        .is_some_and(|soon| soon < until.0)
            })
    }

    /// Nothing may be acknowledged any more, whatever was decided when it was held: asked once more where
    /// an acknowledgement is handed to its owner, because a process may be stopped for long in between. What
    /// comes after that is a matter of milliseconds, and of the margin.
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.is_wanted && self.held.is_none_or(|(_, until)| until <= now)
    }

    /// It was held for this promotion and is at its end. One that was never held does not end: who was
    /// just promoted waits for its lease, whatever it held before.
    pub(super) fn has_ended(&self, epoch: Epoch, now: Time, limits: &Limits) -> bool {
        let was_held = self.held.is_some_and(|(held, _)| is_of_one(held, epoch));
        self.is_wanted && was_held && !self.covers(epoch, now, limits)
    }
}

/// Of one promotion.
fn is_of_one(one: Epoch, other: Epoch) -> bool {
    one.0 / STARTS == other.0 / STARTS
}
