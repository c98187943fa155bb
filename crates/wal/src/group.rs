//! Group commit: threads hand in an item each, one of them does the work for all.
//!
//! There is no timer and no thread of its own. Whoever comes when nobody leads, leads at once, so
//! one caller alone is never delayed; whoever comes meanwhile joins the open round, and the round
//! is led when the running one is finished. A finished round wakes its own members and one member
//! of the next round, nobody else: with 64 callers the wake-ups, not the disk, are the limit.
//!
//! Rounds are led one after the other, in order, each over its items in the order of their coming.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex},
};

use world::invariant;

use crate::hold;

/// Most items in a round. Callers are threads, so this is far above what a machine runs; it is
/// here so that a caller with a thread per request meets a limit before memory does.
pub const ROUND_LEN_MAX: usize = 4096;

/// Threads that share the cost of one piece of work. `T` is what a member hands in, `R` what it
/// gets back.
pub struct Group<T, R> {
    state: Mutex<State<T, R>>,
    /// For those who found the open round full.
    room: Condvar,
    weight_max: usize,
}

struct State<T, R> {
    items: Vec<T>,
    weight: usize,
    /// Whose outcomes the items in `items` will have.
    open: Arc<Round<R>>,
    is_led: bool,
    waiting_for_room: usize,
    is_broken: bool,
}

/// A round's members wait on `done` under the lock of `Group::state`.
struct Round<R> {
    done: Condvar,
    outcomes: Mutex<Option<Vec<Option<R>>>>,
}

impl<R> Round<R> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            done: Condvar::new(),
            outcomes: Mutex::new(None),
        })
    }

    fn take(&self, member: usize) -> Option<R> {
        hold(&self.outcomes).as_mut()?.get_mut(member)?.take()
    }
}

impl<T, R> Group<T, R> {
    /// A round is closed before its items weigh more than `weight_max`, in whatever unit
    /// [`Group::join`] is told; a heavier item has a round of its own.
    pub fn new(weight_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: Vec::new(),
                weight: 0,
                open: Round::new(),
                is_led: false,
                waiting_for_room: 0,
                is_broken: false,
            }),
            room: Condvar::new(),
            weight_max,
        }
    }

    /// Whether a round is being led.
    #[cfg(test)]
    pub(crate) fn is_led(&self) -> bool {
        hold(&self.state).is_led
    }

    /// Whether a leader panicked.
    #[cfg(test)]
    pub(crate) fn is_broken(&self) -> bool {
        hold(&self.state).is_broken
    }

    /// Members of the round that is led next.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        hold(&self.state).items.len()
    }

    /// Callers that found the open round full.
    #[cfg(test)]
    pub(crate) fn waiting_for_room(&self) -> usize {
        hold(&self.state).waiting_for_room
    }

    /// Hands `item` in and returns what the leader of its round found for it. Blocks until then,
    /// and before that while the open round is full. The leader, this thread or another, calls its
    /// own `lead` with all items of the round; it must return one outcome per item, in order.
    pub fn join(&self, item: T, weight: usize, lead: impl FnOnce(Vec<T>) -> Vec<R>) -> R {
        let mut state = hold(&self.state);
        while !state.items.is_empty()
            && (state.weight.saturating_add(weight) > self.weight_max
                || state.items.len() >= ROUND_LEN_MAX)
        {
            state.waiting_for_room += 1;
            state = self.room.wait(state).expect(crate::LOCK_HELD);
            state.waiting_for_room -= 1;
        }
        let member = state.items.len();
        state.items.push(item);
        state.weight = state.weight.saturating_add(weight);
        let round = Arc::clone(&state.open);
        loop {
            invariant!(!state.is_broken, "the leader of a group panicked");
            if let Some(outcome) = round.take(member) {
                return outcome;
            }
            if !state.is_led {
                break;
            }
            state = round.done.wait(state).expect(crate::LOCK_HELD);
        }
        // Nobody leads and this round has no outcomes: it is the open one.
        invariant!(Arc::ptr_eq(&round, &state.open), "a round was skipped");
        state.is_led = true;
        state.weight = 0;
        state.open = Round::new();
        let items = std::mem::take(&mut state.items);
        if state.waiting_for_room > 0 {
            self.room.notify_all();
        }
        drop(state);

        let finish = Finish {
            group: self,
            round: &round,
        };
        let len = items.len();
        let outcomes = lead(items);
        invariant!(
            outcomes.len() == len,
            "{} outcomes for {len} items",
            outcomes.len()
        );
        *hold(&round.outcomes) = Some(outcomes.into_iter().map(Some).collect());
        drop(finish);
        round.take(member).expect("the leader has an outcome too")
    }
}

/// Ends a leader's turn, also when it panics: then the members must not wait for ever.
struct Finish<'a, T, R> {
    group: &'a Group<T, R>,
    round: &'a Round<R>,
}

impl<T, R> Drop for Finish<'_, T, R> {
    fn drop(&mut self) {
        let mut state = hold(&self.group.state);
        state.is_led = false;
        state.is_broken |= std::thread::panicking();
        let next = (!state.items.is_empty()).then(|| Arc::clone(&state.open));
        drop(state);
        // The next leader first: the disk is idle until it runs.
        if let Some(next) = next {
            next.done.notify_one();
        }
        self.round.done.notify_all();
    }
}

impl<T, R> fmt::Debug for Group<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}
