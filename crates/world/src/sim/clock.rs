//! Time that passes only when told.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::Timestamp;

/// A clock in the hands of a test. Clones are the same clock.
///
/// A sleep passes at once and advances the clock, so no test waits; a thread that only sleeps in a
/// loop spins and takes the clock far ahead.
#[derive(Clone)]
pub struct Clock(Arc<Shared>);

struct Shared {
    times: Mutex<Times>,
    /// Called after each change, without the lock held: who waits for a deadline looks again.
    watchers: Mutex<Vec<Watcher>>,
}

type Watcher = Box<dyn Fn() + Send + Sync>;

#[derive(Clone, Copy, Debug)]
struct Times {
    now: Timestamp,
    monotonic: Duration,
}

impl Clock {
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(Shared {
            times: Mutex::new(Times {
                now,
                monotonic: Duration::ZERO,
            }),
            watchers: Mutex::new(Vec::new()),
        }))
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut times = self.times();
        times.now = times.now.plus(by);
        times.monotonic = times.monotonic.saturating_add(by);
        drop(times);
        self.tell();
    }

    /// Steps the wall clock, also backwards, as an operator or a time server may. No time passes.
    pub fn set_now(&self, now: Timestamp) {
        self.times().now = now;
        self.tell();
    }

    pub(super) fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        let mut watchers = self
            .0
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        watchers.push(Box::new(watcher));
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let watchers = self
            .0
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for watcher in watchers.iter() {
            watcher();
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&*self.times()).finish()
    }
}

impl crate::Clock for Clock {
    fn now(&self) -> Timestamp {
        self.times().now
    }

    fn monotonic(&self) -> Duration {
        self.times().monotonic
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock as _;

    #[test]
    fn a_sleep_passes_at_once_on_both_clocks() {
        let clock = Clock::new(Timestamp::from_nanos(1_000));
        let same = clock.clone();
        clock.sleep(Duration::from_nanos(5));
        same.advance(Duration::from_nanos(2));
        assert_eq!(clock.now(), Timestamp::from_nanos(1_007));
        assert_eq!(clock.monotonic(), Duration::from_nanos(7));
    }

    #[test]
    fn the_wall_clock_can_be_stepped_back_and_the_monotonic_one_stays() {
        let clock = Clock::new(Timestamp::from_nanos(1_000));
        clock.advance(Duration::from_nanos(10));
        clock.set_now(Timestamp::from_nanos(3));
        assert_eq!(clock.now(), Timestamp::from_nanos(3));
        assert_eq!(clock.monotonic(), Duration::from_nanos(10));
    }
}
