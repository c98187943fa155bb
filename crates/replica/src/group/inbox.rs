//! Events on their way to the machine, from all threads; and notes on their way to the group's owner.
//!
//! Whoever brings an event has the machine handle it, and what lies before it, unless another one is at
//! that, who then looks again. A thread that did nothing else would have to be woken for every event:
//! a write that waits for a copy would wait for four such awakenings more.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use super::{core::Core, log::Log};
use crate::{
    machine::{Event, NodeId},
    transport::Note,
};

/// Events from clients and other nodes that wait; then these wait. Answers of our own threads always
/// find room: there are no more of them than effects that were asked for.
const OUTSIDE_MAX: usize = 8192;
/// Events handled together: their effects share appends.
const TOGETHER_MAX: usize = 1024;
/// How often somebody who brought an event has the machine handle what came meanwhile; then the thread that is there
/// for it goes on. Arbitrary.
const TURNS_MAX: usize = 8;
/// Notes that nobody took yet; then the oldest is dropped. Whoever has something to say repeats it.
const NOTES_MAX: usize = 64;

pub(super) struct Inbox {
    state: Mutex<State>,
    /// Something is left for the machine's own thread.
    is_left: Condvar,
    has_room: Condvar,
    /// Locked before `state`, and while events are handled. Nobody is there before the start and after the end.
    core: Mutex<Option<Core>>,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    is_closed: bool,
}

impl Inbox {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self {
            state: Mutex::default(),
            is_left: Condvar::new(),
            has_room: Condvar::new(),
            core: Mutex::default(),
            log,
        }
    }

    pub(super) fn push(&self, event: Event) {
        self.put(event);
        self.advance();
    }

    /// For the machine's own thread: whoever brings it has other things to do.
    pub(super) fn leave(&self, event: Event) {
        self.put(event);
        self.is_left.notify_one();
    }

    /// It is handled with whatever comes next, or by [`Self::advance`].
    pub(super) fn put(&self, event: Event) {
        let mut state = self.state();
        if !state.is_closed {
            state.events.push_back(event);
        }
    }

    /// Waits for room. False when nobody takes it any more.
    pub(super) fn push_from_outside(&self, event: Event) -> bool {
        let is_taken = self.push_helping(event);
        self.log.kick();
        is_taken
    }

    /// The same, by somebody who then helps with the log.
    pub(super) fn push_helping(&self, event: Event) -> bool {
        let mut state = self
            .has_room
            .wait_while(self.state(), |state| {
                state.events.len() >= OUTSIDE_MAX && !state.is_closed
            })
            .expect("never poisoned: holds no code that panics");
        if state.is_closed {
            return false;
        }
        state.events.push_back(event);
        drop(state);
        self.take_turns();
        true
    }

    /// The machine is there.
    pub(super) fn seat(&self, core: Core) {
        *self.core() = Some(core);
    }

    pub(super) fn unseat(&self) {
        *self.core() = None;
    }

    /// Until something is left, for at most `wait`. False when the inbox was closed.
    pub(super) fn wait(&self, wait: Duration) -> bool {
        let (state, _) = self
            .is_left
            .wait_timeout_while(self.state(), wait, |state| {
                state.events.is_empty() && !state.is_closed
            })
            .expect("never poisoned: holds no code that panics");
        !state.is_closed
    }

    /// Has the machine handle what is there, or only the time that passed.
    pub(super) fn turn(&self) {
        self.turn_of(&mut self.core());
        self.log.kick();
    }

    fn turn_of(&self, core: &mut Option<Core>) {
        let Some(core) = core else { return };
        if let Some(events) = self.take() {
            // On whatever thread: half a step must not be gone on from.
            world::as_spine(|| core.handle(events));
        }
    }

    /// As [`Self::turn`], unless somebody is at that: who then looks again.
    pub(super) fn advance(&self) {
        self.take_turns();
        self.log.kick();
    }

    fn take_turns(&self) {
        for _ in 0..TURNS_MAX {
            let Ok(mut core) = self.core.try_lock() else {
                return;
            };
            self.turn_of(&mut core);
            drop(core);
            // Not before: who brings something now and finds the lock taken relies on this look.
            if self.state().events.is_empty() {
                return;
            }
        }
        self.is_left.notify_one();
    }

    /// `None` when the inbox was closed.
    fn take(&self) -> Option<Vec<Event>> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        let count = state.events.len().min(TOGETHER_MAX);
        let was_full = state.events.len() >= OUTSIDE_MAX;
        let taken = state.events.drain(..count).collect();
        if was_full {
            self.has_room.notify_all();
        }
        Some(taken)
    }

    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.events.clear();
        self.is_left.notify_all();
        self.has_room.notify_all();
    }

    fn core(&self) -> MutexGuard<'_, Option<Core>> {
        self.core.lock().expect("a panic as spine ends the process")
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
