//! When the fleet does what: pure, by the monotonic clock, so that a clock that is set back or
//! forward neither stops the ticks nor brings them all at once.

use std::time::Duration;

/// What is to be done next.
#[derive(Clone, Debug)]
pub(super) struct Agenda {
    tick: Duration,
    look: Duration,
    renew: Option<Duration>,
    claim: Claim,
}

/// Whether there may be a job to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// The queue was empty; only a tick can change that.
    Drained,
    /// There may be more, or it was not looked at yet.
    Wanted { from: Duration },
}

impl Agenda {
    /// The first tick is due at once.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            tick: now,
            look: now,
            renew: None,
            claim: Claim::Drained,
        }
    }

    pub(super) fn ticks(&self, now: Duration) -> bool {
        now >= self.tick
    }

    pub(super) fn tick_now(&mut self) {
        self.tick = Duration::ZERO;
    }

    /// A tick was made; missed ones are not made up for: what is due is found by the next.
    pub(super) fn ticked(&mut self, now: Duration, every: Duration) {
        self.tick = now + every;
        self.claim = Claim::Wanted { from: now };
    }

    pub(super) fn retry_tick(&mut self, now: Duration, wait: Duration) {
        self.tick = now + wait;
    }

    /// Whether it is time to look for changes of others.
    pub(super) fn looks(&mut self, now: Duration, every: Duration) -> bool {
        let is_time = now >= self.look;
        if is_time {
            self.look = now + every;
        }
        is_time
    }

    pub(super) fn claims(&self, now: Duration) -> bool {
        matches!(self.claim, Claim::Wanted { from } if now >= from)
    }

    /// Fewer than asked for: the queue is empty.
    pub(super) fn claimed(&mut self, got: usize, asked: usize) {
        self.claim = if got < asked {
            Claim::Drained
        } else {
            Claim::Wanted {
                from: Duration::ZERO,
            }
        };
    }

    pub(super) fn retry_claim(&mut self, now: Duration, wait: Duration) {
        self.claim = Claim::Wanted { from: now + wait };
    }

    /// Whether leases are to be renewed, counted from the first time that there were any.
    pub(super) fn renews(&mut self, now: Duration, every: Duration) -> bool {
        let due = *self.renew.get_or_insert(now + every);
        let is_time = now >= due;
        if is_time {
            self.renew = Some(now + every);
        }
        is_time
    }

    pub(super) fn retry_renewal(&mut self, now: Duration, wait: Duration) {
        self.renew = Some(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ticks_come_at_once_then_after_each_interval_and_missed_ones_are_one() {
        let mut agenda = Agenda::new(s(100));
        assert!(agenda.ticks(s(100)));
        agenda.ticked(s(101), s(60));
        assert!(!agenda.ticks(s(160)));
        assert!(agenda.ticks(s(161)));
        assert!(agenda.ticks(s(9000)));
        agenda.ticked(s(9000), s(60));
        assert!(!agenda.ticks(s(9059)));
        agenda.tick_now();
        assert!(agenda.ticks(s(9001)));
    }

    #[test]
    fn a_drained_queue_is_not_asked_again_before_a_tick() {
        let mut agenda = Agenda::new(s(0));
        assert!(!agenda.claims(s(0)));
        agenda.ticked(s(0), s(60));
        assert!(agenda.claims(s(0)));
        agenda.claimed(5, 5);
        assert!(agenda.claims(s(0)));
        agenda.claimed(4, 5);
        assert!(!agenda.claims(s(59)));
        agenda.retry_claim(s(59), s(1));
        assert!(!agenda.claims(s(59)) && agenda.claims(s(60)));
    }

    #[test]
    fn leases_are_renewed_a_third_of_their_time_after_there_are_any() {
        let mut agenda = Agenda::new(s(0));
        assert!(!agenda.renews(s(1000), s(300)));
        assert!(!agenda.renews(s(1299), s(300)));
        assert!(agenda.renews(s(1300), s(300)));
        assert!(!agenda.renews(s(1301), s(300)));
        agenda.retry_renewal(s(1301), s(1));
        assert!(agenda.renews(s(1302), s(300)));
    }
}
