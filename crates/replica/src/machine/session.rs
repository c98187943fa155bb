//! One session with one replica, on the primary's side: the two lanes, and what is held for them.
//!
//! Holds are taken by the methods here and released by [`Session::release`], once: it takes the flags
//! that taking them set.

use std::{collections::VecDeque, time::Duration};

use wal::Lsn;

use super::{
    Attached, Attachment, BaseFound, Effect, IllegalMove, Kind, Limits, Phase, Plan, Position,
    SessionId, Time, Violation, budget::Budget, outbox::Outbox,
};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) endpoint: u64,
    pub(super) kind: Kind,
    pub(super) phase: Phase,
    pub(super) cause: Option<String>,
    /// What the replica said, until a plan is bound.
    pub(super) attached: Option<Attached>,
    /// Which of its beginnings of this session the plan is for.
    pub(super) attachment: Attachment,
    pub(super) plan: Option<Plan>,
    pub(super) log_lane: LogLane,
    pub(super) base_lane: Option<BaseLane>,
    /// The end of the primary's log when feeder and base were done: in sync once that is durable there.
    pub(super) met: Option<Lsn>,
    /// The replica has to have on disk that it is sound, before it counts.
    pub(super) is_unsound: bool,
    /// It may have promised what it does not know of.
    pub(super) has_forgotten: bool,
    pub(super) budget: Budget,
    /// Of the last heartbeat, and the highest that came back. They rise over all sessions of a primary.
    pub(super) ordinal: u64,
    pub(super) heard: u64,
    /// The last ordinal when the replica said what it has: answers to higher ones were given since.
    pub(super) attached_at: u64,
    is_pinned: bool,
    is_base_open: bool,
}

/// Log entries on their way, by one feeder.
#[derive(Debug, Default)]
pub(super) struct LogLane {
    /// Entries may go out: nothing is left to cut or to begin.
    pub(super) is_open: bool,
    /// Where the feeder stands: it goes back when something is missing there.
    pub(super) sent: Position,
    /// The highest that was ever sent in this session: nothing beyond it can be there.
    pub(super) reached: Position,
    /// Durable on the replica, without a hole.
    pub(super) flushed: Position,
    /// The replica was told that so much is committed, unless that was lost.
    pub(super) told: Lsn,
    pub(super) is_reading: bool,
    /// Sent and not durable: last position and weight of each message.
    pub(super) outstanding: VecDeque<(Lsn, u64)>,
    pub(super) outstanding_bytes: u64,
    pub(super) applied: Lsn,
}

/// A base on its way, part by part.
#[derive(Debug, Default)]
pub(super) struct BaseLane {
    pub(super) found: Option<BaseFound>,
    /// The replica's log begins after the base.
    pub(super) has_begun: bool,
    pub(super) stored: u32,
    pub(super) is_reading: bool,
    /// When the part that is on its way was asked for.
    pub(super) asked: Time,
    /// Since when it is at the end that it is at.
    end_since: Option<Time>,
}

impl BaseLane {
    /// What is waited for takes as long as there is of it: a base is made, the replica closes what it has
    /// and begins, or it makes the one that it has whole its own.
    fn is_at_an_end(&self) -> bool {
        let is_last = |found: &BaseFound| self.stored + 1 == found.parts;
        self.stored == 0 || self.found.as_ref().is_none_or(is_last)
    }

    /// The replica has so many parts; of what is waited for something came.
    pub(super) fn reached(&mut self, stored: u32) {
        self.stored = stored;
        self.end_since = None;
    }

    /// How long it has been at its end, if it is at one.
    fn at_an_end_for(&mut self, now: Time) -> Option<Duration> {
        self.is_at_an_end()
            .then(|| now.since(*self.end_since.get_or_insert(now)))
    }

    pub(super) fn is_done(&self) -> bool {
        self.has_begun
            && self
                .found
                .as_ref()
                .is_some_and(|found| self.stored >= found.parts)
    }
}

impl LogLane {
    /// The feeder goes on behind `position`.
    pub(super) fn start_at(&mut self, position: Position) {
        self.sent = position;
        self.reached = position;
        self.flushed = position;
        self.outstanding.clear();
        self.outstanding_bytes = 0;
        self.is_open = true;
    }

    pub(super) fn rewind(&mut self, position: Position) {
        self.sent = position;
        while let Some((last, weight)) = self.outstanding.back().copied()
            && last > position.lsn
        {
            self.outstanding.pop_back();
            self.outstanding_bytes -= weight;
        }
    }

    pub(super) fn acknowledge(&mut self, position: Position) {
        self.flushed = position;
        // What came late is not sent again.
        self.sent = self.sent.max(position);
        while let Some((last, weight)) = self.outstanding.front().copied()
            && last <= position.lsn
        {
            self.outstanding.pop_front();
            self.outstanding_bytes -= weight;
        }
    }
}

impl Session {
    pub(super) fn new(id: SessionId, endpoint: u64, kind: Kind, now: Time) -> Self {
        Self {
            id,
            endpoint,
            kind,
            phase: Phase::Init,
            cause: None,
            attached: None,
            attachment: Attachment(0),
            plan: None,
            log_lane: LogLane::default(),
            base_lane: None,
            met: None,
            is_unsound: false,
            has_forgotten: false,
            budget: Budget::new(now, Lsn::ZERO),
            ordinal: 0,
            heard: 0,
            attached_at: 0,
            is_pinned: false,
            is_base_open: false,
        }
    }

    pub(super) fn advance(&mut self, to: Phase) -> Result<(), IllegalMove> {
        self.phase = self.phase.moved(to)?;
        Ok(())
    }

    /// It can send and be answered: it was not ended.
    pub(super) fn is_alive(&self) -> bool {
        self.phase != Phase::Invalidated && self.cause.is_none()
    }

    pub(super) fn is_in_sync(&self) -> bool {
        self.phase == Phase::Completed && self.cause.is_none()
    }

    pub(super) fn is_rebuild(&self) -> bool {
        self.base_lane.is_some()
    }

    /// Everything that it was to be sent is durable there.
    pub(super) fn is_met(&self) -> bool {
        self.met.is_some_and(|met| self.log_lane.flushed.lsn >= met)
    }

    pub(super) fn is_base_done(&self) -> bool {
        self.base_lane.as_ref().is_none_or(BaseLane::is_done)
    }

    /// What takes longer than it may. A rebuild has nothing to escalate to: it goes on for as long as it
    /// gets on, and one that only waits for what others have to say takes nothing.
    pub(super) fn exceeded(&mut self, now: Time, limits: &Limits) -> Option<Violation> {
        let lane = &self.log_lane;
        let is_active = matches!(self.phase, Phase::CatchUp | Phase::Transfer | Phase::Tail);
        let is_behind = lane.flushed.lsn < lane.sent.lsn;
        let is_met = self.is_met();
        let base_lane = self.base_lane.as_mut();
        let at_an_end = base_lane.and_then(|lane| lane.at_an_end_for(now));
        match at_an_end {
            _ if !is_behind && (is_met || !is_active) => None,
            _ if self.phase == Phase::Completed => self.budget.stalled(now, limits),
            _ if !is_active => None,
            _ if self.base_lane.is_none() => self.budget.exceeded(now, limits),
            None => self.budget.stalled(now, limits),
            // Only the whole of it is bounded; a replica that is silent is found by that.
            Some(took) => {
                self.budget.wait(now);
                let seconds = took.as_secs();
                (took > limits.catch_up_duration).then_some(Violation::Duration { seconds })
            }
        }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// Before anything is read.
    pub(super) fn pin(&mut self, from: Lsn, out: &mut Outbox) {
        self.is_pinned = true;
        out.push(Effect::Pin {
            session: self.id,
            from,
        });
    }

    pub(super) fn open_base(&mut self, since: Option<Lsn>, out: &mut Outbox) {
        self.is_base_open = true;
        self.base_lane = Some(BaseLane::default());
        out.push(Effect::OpenBase {
            session: self.id,
            since,
        });
    }

    /// However it ended. What was released says so in the log.
    pub(super) fn release(&mut self, out: &mut Outbox) -> bool {
        let session = self.id;
        let is_pinned = std::mem::take(&mut self.is_pinned);
        let is_base_open = std::mem::take(&mut self.is_base_open);
        if is_base_open {
            out.push(Effect::CloseBase { session });
        }
        if is_pinned {
            out.push(Effect::Unpin { session });
        }
        is_pinned || is_base_open
    }
}
