//! The safe point as readers see it, and the waiting for it to move.

use std::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use world::Clock;

use crate::{Epoch, LOCK_HELD, Lsn, hold};

#[derive(Debug)]
pub(crate) struct Tail {
    /// Copy of `at.safe_point` for those who only look.
    seen: AtomicU64,
    at: Mutex<At>,
    moved: Condvar,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) safe_point: Lsn,
    /// Highest epoch at or below it.
    pub(crate) epoch: Epoch,
    waiting: usize,
}

impl Tail {
    pub(crate) fn new(safe_point: Lsn, epoch: Epoch) -> Self {
        Self {
            seen: AtomicU64::new(safe_point.get()),
            at: Mutex::new(At {
                safe_point,
                epoch,
                waiting: 0,
            }),
            moved: Condvar::new(),
        }
    }

    pub(crate) fn safe_point(&self) -> Lsn {
        Lsn::new(self.seen.load(Ordering::Acquire))
    }

    pub(crate) fn at(&self) -> At {
        *hold(&self.at)
    }

    /// Makes everything up to `safe_point` visible. Only after it is durable.
    pub(crate) fn publish(&self, safe_point: Lsn, epoch: Epoch) {
        let mut at = hold(&self.at);
        at.safe_point = safe_point;
        at.epoch = epoch;
        self.seen.store(safe_point.get(), Ordering::Release);
        if at.waiting > 0 {
            self.moved.notify_all();
        }
    }

    /// Wakes those who wait although nothing moved: the journal was closed.
    pub(crate) fn wake(&self) {
        drop(hold(&self.at));
        self.moved.notify_all();
    }

    /// Waits until the safe point is above `seen`, `give_up` says so, or the time is over.
    pub(crate) fn wait_above(
        &self,
        seen: Lsn,
        timeout: Duration,
        clock: &dyn Clock,
        give_up: impl Fn() -> bool,
    ) -> Lsn {
        let until = clock.monotonic().saturating_add(timeout);
        let mut at = hold(&self.at);
        at.waiting += 1;
        while at.safe_point <= seen && !give_up() {
            let left = until.saturating_sub(clock.monotonic());
            if left.is_zero() {
                break;
            }
            let (held, waited) = self.moved.wait_timeout(at, left).expect(LOCK_HELD);
            at = held;
            if waited.timed_out() {
                // Also when the clock is a simulated one that nobody moves.
                break;
            }
        }
        at.waiting -= 1;
        at.safe_point
    }
}
