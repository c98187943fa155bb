//! Who waits for an answer of the machine.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use crate::machine::Outcome;

#[derive(Debug, Default)]
pub(super) struct Requests {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    slots: BTreeMap<u64, Arc<Slot>>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Slot {
    outcome: Mutex<Answer>,
    answered: Condvar,
}

#[derive(Debug, Default)]
enum Answer {
    #[default]
    Waiting,
    Is(Outcome),
    Never,
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Request {
    number: u64,
    slot: Arc<Slot>,
}

impl Requests {
    pub(super) fn begin(&self, number: u64) -> Request {
        let slot = Arc::new(Slot::default());
        let mut open = self.open();
        match open.is_closed {
            true => slot.set(Answer::Never),
            false => drop(open.slots.insert(number, Arc::clone(&slot))),
        }
        Request { number, slot }
    }

    /// The answer to `request`, for at most `patience`. `None`: there is none yet, and nobody waits for it any more.
    pub(super) fn wait_within(
        &self,
        request: Request,
        patience: Duration,
    ) -> Option<Option<Outcome>> {
        let Request { number, slot } = request;
        let is_waiting = |answer: &mut Answer| matches!(answer, Answer::Waiting);
        let (mut answer, _) = slot
            .answered
            .wait_timeout_while(slot.lock(), patience, is_waiting)
            .expect("never poisoned: holds no code that panics");
        match std::mem::take(&mut *answer) {
            Answer::Is(outcome) => Some(Some(outcome)),
            Answer::Never => Some(None),
            Answer::Waiting => {
                drop(answer);
                self.open().slots.remove(&number);
                None
            }
        }
    }

    pub(super) fn answer(&self, number: u64, outcome: Outcome) {
        let slot = self.open().slots.remove(&number);
        if let Some(slot) = slot {
            slot.set(Answer::Is(outcome));
        }
    }

    /// Nobody will be answered any more.
    pub(super) fn close(&self) {
        let mut open = self.open();
        open.is_closed = true;
        for slot in std::mem::take(&mut open.slots).into_values() {
            slot.set(Answer::Never);
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

impl Slot {
    fn set(&self, answer: Answer) {
        *self.lock() = answer;
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.outcome
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

impl Request {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(*self.slot.lock(), Answer::Waiting)
    }

    /// `None`: the group was closed first.
    pub(super) fn wait(self) -> Option<Outcome> {
        let mut answer = self
            .slot
            .answered
            .wait_while(self.slot.lock(), |answer| matches!(answer, Answer::Waiting))
            .expect("never poisoned: holds no code that panics");
        match std::mem::take(&mut *answer) {
            Answer::Is(outcome) => Some(outcome),
            Answer::Never | Answer::Waiting => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_does_not_wait_any_longer_leaves_nothing() {
        let requests = Requests::default();
        let request = requests.begin(1);
        assert_eq!(requests.wait_within(request, Duration::ZERO), None);
        assert!(requests.open().slots.is_empty());
        // Nobody is there to be told.
        requests.answer(1, Outcome::Done);

        let request = requests.begin(2);
        requests.answer(2, Outcome::Done);
        let answered = requests.wait_within(request, Duration::ZERO);
        assert_eq!(answered, Some(Some(Outcome::Done)));
    }
}
