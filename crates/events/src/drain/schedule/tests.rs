//! The schedule against a model that only counts.

use proptest::prelude::*;

use super::*;

/// What the world does to a schedule.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Events of the class arrive.
    Arrive(usize),
    /// The send that began earliest ends.
    End(Ending),
    /// The send that began last ends first: an older one is slow.
    EndNewest(Ending),
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Settled(bool),
    Split,
    Passing(Option<u16>),
    Lasting,
}

impl Ending {
    fn outcome(self, sent: usize) -> Outcome {
        match self {
            Self::Settled(more) => Outcome::Settled { more },
            Self::Split => Outcome::Split { sent },
            Self::Passing(after) => Outcome::Failed(Fault::Passing {
                retry_after: after.map(|seconds| Duration::from_secs(u64::from(seconds))),
            }),
            Self::Lasting => Outcome::Failed(Fault::Lasting),
        }
    }
}

fn endings() -> impl Strategy<Value = Ending> {
    prop_oneof![
        6 => any::<bool>().prop_map(Ending::Settled),
        1 => Just(Ending::Split),
        2 => proptest::option::of(0..2000_u16).prop_map(Ending::Passing),
        1 => Just(Ending::Lasting),
    ]
}

fn turns() -> impl Strategy<Value = Vec<(Turn, u64)>> {
    let turn = prop_oneof![
        3 => (0..Class::ALL.len()).prop_map(Turn::Arrive),
        6 => endings().prop_map(Turn::End),
        2 => endings().prop_map(Turn::EndNewest),
        3 => (0..4_000_u64).prop_map(Turn::Pass),
    ];
    proptest::collection::vec((turn, any::<u64>()), 1..300)
}

/// A schedule, what is in flight, and how often each ready class was passed over.
#[derive(Debug)]
struct Driven {
    schedule: Schedule,
    now: Duration,
    in_flight: Vec<(Class, usize, Duration)>,
    waiting: Vec<Class>,
    not_before: Vec<(Class, Duration)>,
    passed_over: Vec<(Class, u32)>,
    sent: Vec<Class>,
}

impl Driven {
    fn new() -> Self {
        Self {
            schedule: Schedule::new(),
            now: Duration::ZERO,
            in_flight: Vec::new(),
            waiting: Vec::new(),
            not_before: Vec::new(),
            passed_over: Class::ALL.iter().map(|class| (*class, 0)).collect(),
            sent: Vec::new(),
        }
    }

    fn with_all_waiting() -> Self {
        let mut driven = Self::new();
        for class in Class::ALL {
            driven.arrive(class);
        }
        driven
    }

    fn arrive(&mut self, class: Class) {
        if !self.waiting.contains(&class) {
            self.waiting.push(class);
        }
        self.step(Event::Waiting(class), 0);
    }

    fn pass(&mut self, by: Duration) {
        self.now += by;
        self.step(Event::Tick, 0);
    }

    fn end(&mut self, at: usize, ending: Ending, dice: u64) {
        let (class, sent, _) = self.in_flight.remove(at);
        let outcome = ending.outcome(sent);
        match outcome {
            Outcome::Settled { more: false } => self.waiting.retain(|one| *one != class),
            Outcome::Failed(fault) => {
                let least = match fault {
                    Fault::Passing { retry_after } => {
                        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
                        asked.max(BACKOFF_MIN / 2)
                    }
                    Fault::Lasting => BACKOFF_MAX / 2,
                };
                self.not_before.retain(|(one, _)| *one != class);
                self.not_before.push((class, self.now + least));
            }
            _ => {}
        }
        self.step(Event::Ended(class, outcome), dice);
    }

    fn is_ready(&self, class: Class) -> bool {
        self.waiting.contains(&class)
            && self.in_flight.iter().all(|(one, _, _)| *one != class)
            && self.schedule.not_before(class) <= self.now
    }

    fn step(&mut self, event: Event, dice: u64) {
        let Some(Action::Send { class, events_max }) = self.schedule.step(event, self.now, dice)
        else {
            return;
        };
        assert!(self.is_ready(class), "{class:?} was sent and is not ready");
        for (held, until) in &self.not_before {
            assert!(
                *held != class || *until <= self.now,
                "{class:?} was sent before its wait was over"
            );
        }
        assert!((1..=BATCH_EVENTS_MAX).contains(&events_max));
        for at in 0..self.passed_over.len() {
            let other = self.passed_over[at].0;
            if other == class {
                self.passed_over[at].1 = 0;
            } else if self.is_ready(other) {
                self.passed_over[at].1 += 1;
                assert!(
                    self.passed_over[at].1 <= PASSED_OVER_BOUND,
                    "{other:?} starves behind {:?}",
                    self.sent
                );
            }
        }
        self.sent.push(class);
        self.in_flight.push((class, events_max, self.now));
    }

    fn take(&mut self, turn: Turn, dice: u64) {
        match turn {
            Turn::Arrive(class) => self.arrive(Class::ALL[class]),
            Turn::End(_) | Turn::EndNewest(_) if self.in_flight.is_empty() => {}
            Turn::End(ending) => self.end(0, ending, dice),
            Turn::EndNewest(ending) => self.end(self.in_flight.len() - 1, ending, dice),
            Turn::Pass(millis) => self.pass(Duration::from_millis(millis)),
        }
    }
}

proptest! {
    /// Proves: EVT-4
    #[test]
    fn no_class_starves_or_is_sent_twice_at_once_whatever_receivers_do(turns in turns()) {
        let mut driven = Driven::new();
        for (turn, dice) in turns {
            driven.take(turn, dice);
        }
    }

    #[test]
    fn no_class_is_lost_once_receivers_accept_again(turns in turns()) {
        let mut driven = Driven::new();
        for (turn, dice) in turns {
            driven.take(turn, dice);
        }
        // Each class settles once it is sent; between sends, time goes to where the schedule asks.
        for _ in 0..100 {
            if driven.waiting.is_empty() {
                break;
            }
            if driven.in_flight.is_empty() {
                let wake = driven.schedule.wake_at(driven.now);
                let wake = wake.expect("a class waits and nobody is in flight");
                driven.pass(wake - driven.now);
            } else {
                driven.end(0, Ending::Settled(false), 0);
            }
        }
        prop_assert!(driven.waiting.is_empty(), "never sent: {:?}", driven.waiting);
    }

    #[test]
    fn a_wait_is_bounded_and_never_shorter_than_asked(
        failures in 1..u32::MAX,
        asked in proptest::option::of(0..100_000_u64),
        dice: u64,
    ) {
        let asked = asked.map(Duration::from_secs);
        let took = wait(Fault::Passing { retry_after: asked }, failures, dice);
        prop_assert!(took >= BACKOFF_MIN / 2);
        prop_assert!(took >= asked.unwrap_or_default().min(RETRY_AFTER_MAX));
        prop_assert!(took <= RETRY_AFTER_MAX + BACKOFF_MAX);
    }
}

#[test]
fn classes_go_by_priority() {
    let mut driven = Driven::new();
    // A class that came first holds the turn; the rest line up behind it.
    driven.arrive(Class::Other);
    for class in Class::ALL.into_iter().rev() {
        driven.arrive(class);
    }
    for _ in 0..4 {
        driven.end(0, Ending::Settled(false), 0);
    }
    assert_eq!(
        driven.sent,
        [
            Class::Other,
            Class::Error,
            Class::Decision,
            Class::Action,
            Class::Lifecycle
        ]
    );
}

/// Proves: EVT-4
#[test]
fn the_lowest_class_moves_while_all_others_never_run_out() {
    let mut driven = Driven::with_all_waiting();
    for _ in 0..200 {
        driven.end(0, Ending::Settled(true), 0);
    }
    for class in Class::ALL {
        let sent = driven.sent.iter().filter(|one| **one == class).count();
        assert!(sent >= 200 / 13, "{class:?} was sent {sent} times");
    }
    let errors = driven.sent.iter().filter(|one| **one == Class::Error);
    assert!(errors.count() > 200 / 2, "priority means something");
}

#[test]
fn a_class_that_fails_for_ever_holds_back_no_other() {
    let mut driven = Driven::with_all_waiting();
    for _ in 0..100 {
        let ending = match driven.in_flight[0].0 {
            Class::Error => Ending::Passing(None),
            _ => Ending::Settled(true),
        };
        driven.end(0, ending, 0);
    }
    let errors = driven.sent.iter().filter(|one| **one == Class::Error);
    assert_eq!(
        errors.count(),
        1,
        "no time passed, so it was not tried again"
    );
    assert_eq!(driven.schedule.failures(Class::Error), 1);
}

#[test]
fn a_send_that_stalls_gives_its_turn_to_the_others() {
    let mut driven = Driven::with_all_waiting();
    assert_eq!(driven.sent, [Class::Error]);
    driven.pass(SLOW_AFTER / 2);
    assert_eq!(driven.sent, [Class::Error], "not slow yet");
    driven.pass(SLOW_AFTER);
    assert_eq!(driven.sent, [Class::Error, Class::Decision]);
    for _ in 0..20 {
        driven.end(1, Ending::Settled(true), 0);
    }
    assert_eq!(driven.sent.len(), 22);
    let errors = driven.sent.iter().filter(|one| **one == Class::Error);
    assert_eq!(errors.count(), 1, "one send of a class at a time");
}

#[test]
fn a_batch_is_halved_until_it_fits_and_grows_back() {
    let mut driven = Driven::new();
    driven.arrive(Class::Error);
    let mut sizes = Vec::new();
    for _ in 0..12 {
        sizes.push(driven.in_flight[0].1);
        driven.end(0, Ending::Split, 0);
    }
    assert_eq!(sizes[..4], [512, 256, 128, 64]);
    assert_eq!(sizes[11], 1);
    for _ in 0..12 {
        driven.end(0, Ending::Settled(true), 0);
    }
    assert_eq!(driven.in_flight[0].1, BATCH_EVENTS_MAX);
}
