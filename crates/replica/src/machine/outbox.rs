//! What a step wants done, collected in order, with the header that every message carries and the
//! recovery log that every decision writes to.

use std::collections::VecDeque;

use super::{Body, Effect, Header, Line, Message, NodeId, SessionId, Time};

#[derive(Debug)]
pub(super) struct Outbox {
    /// Its epoch is on disk, always: messages rely on it.
    pub(super) header: Header,
    effects: Vec<Effect>,
    lines: VecDeque<(Time, Line)>,
    lines_max: usize,
    now: Time,
    /// The ordinal of the last heartbeat that any session sent.
    pub(super) beats: u64,
}

impl Outbox {
    pub(super) fn new(header: Header, lines_max: usize, now: Time) -> Self {
        Self {
            header,
            effects: Vec::new(),
            lines: VecDeque::new(),
            lines_max,
            now,
            beats: 0,
        }
    }

    pub(super) fn begin(&mut self, now: Time) {
        self.now = now;
    }

    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        let header = self.header;
        self.push(Effect::Send {
            to,
            message: Message { header, body },
        });
    }

    pub(super) fn log(
        &mut self,
        replica: Option<NodeId>,
        session: Option<SessionId>,
        name: &'static str,
        cause: String,
    ) {
        let line = Line {
            replica,
            session,
            epoch: self.header.epoch,
            name,
            cause,
        };
        if self.lines.len() >= self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back((self.now, line.clone()));
        self.push(Effect::Log(line));
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &(Time, Line)> {
        self.lines.iter()
    }
}
