//! Events on their way to the machine, from all threads; and notes on their way to the group's owner.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    machine::{Event, NodeId},
    transport::Note,
};

/// Events from clients and other nodes that wait; then these wait. Answers of our own threads always
/// find room: there are no more of them than effects that were asked for.
const OUTSIDE_MAX: usize = 8192;
/// Events handled together: their effects share appends.
const TOGETHER_MAX: usize = 1024;
/// Notes that nobody took yet; then the oldest is dropped. Whoever has something to say repeats it.
const NOTES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    came: Condvar,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    is_closed: bool,
}

impl Inbox {
    pub(super) fn push(&self, event: Event) {
        let mut state = self.state();
        if !state.is_closed {
            state.events.push_back(event);
            self.came.notify_one();
        }
    }

    /// Waits for room. False when nobody takes it any more.
    pub(super) fn push_from_outside(&self, event: Event) -> bool {
        let mut state = self
            .left
            .wait_while(self.state(), |state| {
                state.events.len() >= OUTSIDE_MAX && !state.is_closed
            })
            .expect("never poisoned: holds no code that panics");
        if state.is_closed {
            return false;
        }
        state.events.push_back(event);
        self.came.notify_one();
        true
    }

    /// What is there, after at most `wait`; `None` when the inbox was closed.
    pub(super) fn take(&self, wait: Duration) -> Option<Vec<Event>> {
        let (mut state, _) = self
            .came
            .wait_timeout_while(self.state(), wait, |state| {
                state.events.is_empty() && !state.is_closed
            })
            .expect("never poisoned: holds no code that panics");
        if state.is_closed {
            return None;
        }
        let count = state.events.len().min(TOGETHER_MAX);
        let taken = state.events.drain(..count).collect();
        self.left.notify_all();
        Some(taken)
    }

    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.events.clear();
        self.came.notify_all();
        self.left.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

/// What the owners of other nodes said, until the group's owner takes it.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<VecDeque<(NodeId, Note)>>);

impl Notes {
    pub(super) fn push(&self, peer: NodeId, note: Note) {
        let mut notes = self.notes();
        if notes.len() >= NOTES_MAX {
            notes.pop_front();
        }
        notes.push_back((peer, note));
    }

    pub(super) fn take(&self) -> VecDeque<(NodeId, Note)> {
        std::mem::take(&mut *self.notes())
    }

    fn notes(&self) -> MutexGuard<'_, VecDeque<(NodeId, Note)>> {
        self.0
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}
