//! The safe point, how much of it readers see, and the waiting for that to move.

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
    /// Copies of `at.safe_point` and of [`At::visible`] for those who only look.
    durable: AtomicU64,
    seen: AtomicU64,
    at: Mutex<At>,
    moved: Condvar,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) safe_point: Lsn,
    /// Highest epoch at or below it.
    pub(crate) epoch: Epoch,
    /// Readers see no further, whatever is durable. Rises, except by a cut.
    limit: Lsn,
    waiting: usize,
}

impl At {
    fn visible(&self) -> Lsn {
        self.safe_point.min(self.limit)
    }
}

/// The limit of a journal whose readers see all that is durable.
const UNLIMITED: Lsn = Lsn::new(u64::MAX);

impl Tail {
    /// `limit`: how far readers see at first; `None`: always all.
    pub(crate) fn new(safe_point: Lsn, epoch: Epoch, limit: Option<Lsn>) -> Self {
        let at = At {
            safe_point,
            epoch,
            limit: limit.unwrap_or(UNLIMITED),
            waiting: 0,
        };
        Self {
            durable: AtomicU64::new(safe_point.get()),
            seen: AtomicU64::new(at.visible().get()),
            at: Mutex::new(at),
            moved: Condvar::new(),
        }
    }

    /// The last durable position.
    pub(crate) fn safe_point(&self) -> Lsn {
        Lsn::new(self.durable.load(Ordering::Acquire))
    }

    /// The last position that readers see: durable, and within the owner's limit.
    pub(crate) fn visible(&self) -> Lsn {
        Lsn::new(self.seen.load(Ordering::Acquire))
    }

    pub(crate) fn at(&self) -> At {
        *hold(&self.at)
    }

    /// Makes everything up to `safe_point` visible, as far as the limit goes. Only after it is
    /// durable.
    pub(crate) fn publish(&self, safe_point: Lsn, epoch: Epoch) {
        let mut at = hold(&self.at);
        at.safe_point = safe_point;
        at.epoch = epoch;
        self.tell(&at);
    }

    /// Raises the limit; a lower one changes nothing.
    pub(crate) fn show(&self, limit: Lsn) {
        let mut at = hold(&self.at);
        at.limit = at.limit.max(limit);
        self.tell(&at);
    }

    /// After a cut: the log ends at `keep`, and so does what readers see.
    pub(crate) fn move_back(&self, keep: Lsn, epoch: Epoch) {
        let mut at = hold(&self.at);
        at.safe_point = keep;
        at.epoch = epoch;
        if at.limit != UNLIMITED {
            at.limit = at.limit.min(keep);
        }
        self.tell(&at);
    }

    fn tell(&self, at: &At) {
        // What readers see is never above what is durable, whichever they look at first.
        self.durable.store(at.safe_point.get(), Ordering::Release);
        self.seen.store(at.visible().get(), Ordering::Release);
        if at.waiting > 0 {
            self.moved.notify_all();
        }
    }

    /// Wakes those who wait although nothing moved: the journal was closed.
    pub(crate) fn wake(&self) {
        drop(hold(&self.at));
        self.moved.notify_all();
    }

    /// Waits until readers see beyond `seen`, `give_up` says so, or the time is over.
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
        while at.visible() <= seen && !give_up() {
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
        at.visible()
    }
}
