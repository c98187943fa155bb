//! The primary's side of one replica: one for each, over all its sessions.
//!
//! Everything a replica says in a session is taken only while that session is alive and the phase
//! is one in which it is asked for; [`Sender::heard`] is the one place where that is looked at.
//! What goes out is in `feed.rs`, how a base
//! gets there in `rebuild.rs`.

use std::collections::{BTreeMap, BTreeSet};

use wal::Lsn;

use super::{
    Attach, Attached, Body, Config, Effect, Kind, Limits, NodeId, Outcome, Phase, Plan, Position,
    SessionId, State, Time, Way,
    log::Log,
    outbox::Outbox,
    plan::{Facts, Wishes},
    session::Session,
};

/// What a sender works with and does not own.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) now: Time,
    pub(super) log: &'a Log,
    pub(super) limits: &'a Limits,
    pub(super) config: &'a Config,
    /// Rebuilds that are going on.
    pub(super) rebuilds: usize,
    /// For each member the highest heartbeat that it answered, in a session that is alive; this node's
    /// own is the highest of all.
    pub(super) heard: &'a BTreeMap<NodeId, u64>,
    /// Said to be stopped with the change that is under way, and silent.
    pub(super) stopped: &'a BTreeSet<NodeId>,
    pub(super) out: &'a mut Outbox,
}

impl<'a> Desk<'a> {
    pub(super) fn facts(&self) -> Facts<'a> {
        Facts {
            history: &self.log.history,
            end: self.log.received,
            first_retained: self.log.first_retained,
        }
    }
}

#[derive(Debug)]
pub(super) struct Sender {
    pub(super) replica: NodeId,
    pub(super) state: State,
    pub(super) session: Option<Session>,
    endpoint: Option<u64>,
    /// The highest position that it said is durable, since this node is primary: never less after that.
    pub(super) acknowledged: Position,
    pub(super) rebuild: Option<String>,
    is_full: bool,
    is_ordered: bool,
    is_paused: bool,
    /// A record of this primary's own log that does not verify: what lies from there on cannot be sent.
    pub(super) unreadable: Option<Lsn>,
    /// What it said shows that this primary lost a part of its disk.
    pub(super) has_found_loss: bool,
    pub(super) last_heard: Time,
    /// When what it owes an answer to was last asked; a heartbeat alone is no question.
    pub(super) last_asked: Time,
    /// It has this configuration on disk.
    pub(super) configured: Option<super::Version>,
}

impl Sender {
    pub(super) fn new(replica: NodeId, now: Time, out: &mut Outbox) -> Self {
        out.log(
            Some(replica),
            None,
            "sender_added",
            "it is a member".to_owned(),
        );
        Self {
            replica,
            state: State::Disconnected,
            session: None,
            endpoint: None,
            acknowledged: Position::default(),
            rebuild: None,
            is_full: false,
            is_ordered: false,
            is_paused: false,
            unreadable: None,
            has_found_loss: false,
            last_heard: now,
            last_asked: now,
            configured: None,
        }
    }

    pub(super) fn is_in_sync(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_in_sync)
    }

    /// Where it is durably, if it counts.
    pub(super) fn counted(&self) -> Option<Lsn> {
        let session = self
            .session
            .as_ref()
            .filter(|session| session.is_in_sync())?;
        Some(session.log_lane.flushed.lsn)
    }

    pub(super) fn is_rebuilding(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.phase.is_active() && session.is_rebuild())
    }

    /// The peer can be reached; what there was ends, and a session begins.
    pub(super) fn connect(&mut self, endpoint: u64, id: SessionId, desk: &mut Desk<'_>) {
        let is_elsewhere = self.endpoint.is_some_and(|known| known != endpoint);
        if is_elsewhere {
            let cause = format!("its address is version {endpoint}");
            desk.out
                .log(Some(self.replica), None, "endpoint_changed", cause);
        }
        let was_alive = self.session.as_ref().is_some_and(Session::is_alive);
        if was_alive {
            let cause = if is_elsewhere {
                "endpoint_changed"
            } else {
                "connected again"
            };
            self.end(
                "session_superseded",
                cause.to_owned(),
                State::Disconnected,
                desk.out,
            );
        }
        let kind = match self.endpoint {
            None => Kind::Bootstrap,
            Some(_) if self.rebuild.is_some() => Kind::Rebuild,
            Some(_) if is_elsewhere => Kind::Reassign,
            Some(_) => Kind::CatchUp,
        };
        self.endpoint = Some(endpoint);
        self.begin(Session::new(id, endpoint, kind, desk.now), desk);
    }

    fn begin(&mut self, mut session: Session, desk: &mut Desk<'_>) {
        let (id, kind) = (session.id, session.kind);
        desk.out.log(
            Some(self.replica),
            Some(id),
            "session_created",
            format!("{kind:?}"),
        );
        if let Err(refused) = session.advance(Phase::Connecting) {
            desk.out.log(
                Some(self.replica),
                Some(id),
                "session_failed",
                refused.to_string(),
            );
            return;
        }
        self.session = Some(session);
        self.is_paused = false;
        self.state = State::Connecting;
        self.last_heard = desk.now;
        self.attach(desk);
    }

    /// Asks what the replica has; the same question again when there is no answer.
    pub(super) fn attach(&mut self, desk: &mut Desk<'_>) {
        let Some(session) = &self.session else { return };
        self.last_asked = desk.now;
        let body = Body::Attach(Attach {
            session: session.id,
            endpoint: session.endpoint,
            config: desk.config.clone(),
        });
        desk.out.send(self.replica, body);
    }

    /// Ends the session, if one is alive, and releases what it held.
    pub(super) fn end(
        &mut self,
        name: &'static str,
        cause: String,
        state: State,
        out: &mut Outbox,
    ) {
        self.state = state;
        let Some(session) = self.session.as_mut().filter(|session| session.is_alive()) else {
            return;
        };
        // A completed session stays completed: the recovery is over, what ends is its lane.
        if session.phase.is_active() {
            session.phase = Phase::Invalidated;
        }
        session.cause = Some(cause.clone());
        let id = Some(session.id);
        out.log(Some(self.replica), id, name, cause.clone());
        if session.release(out) {
            out.log(Some(self.replica), id, "resources_released", cause);
        }
    }

    /// As [`Self::end`], and a new session as soon as the replica can be reached again: at once if it was
    /// lost, after a pause if one of the two said that it cannot go on, and would say so again.
    pub(super) fn renew(&mut self, cause: String, state: State, out: &mut Outbox) {
        if self.session.as_ref().is_some_and(Session::is_alive) {
            self.end("session_invalidated", cause, state, out);
            match state {
                State::Degraded => self.is_paused = true,
                _ => out.push(Effect::Reconnect { peer: self.replica }),
            }
        }
    }

    /// The pause is over.
    pub(super) fn retry(&mut self, desk: &mut Desk<'_>) {
        let pause = desk.limits.silence;
        if self.is_paused && desk.now.since(self.last_heard) > pause {
            self.is_paused = false;
            desk.out.push(Effect::Reconnect { peer: self.replica });
        }
    }

    /// Gives up on the log: the next session is a rebuild.
    pub(super) fn escalate(&mut self, cause: String, out: &mut Outbox) {
        let id = self.session.as_ref().map(|session| session.id);
        out.log(Some(self.replica), id, "escalated", cause.clone());
        self.rebuild = Some(cause.clone());
        self.renew(cause, State::NeedsRebuild, out);
    }

    /// An operator wants a session to be chosen afresh, whatever the replica has.
    pub(super) fn reattach(&mut self, out: &mut Outbox) {
        self.is_ordered = true;
        if self.session.as_ref().is_some_and(Session::is_alive) {
            self.renew("an operator's order".to_owned(), State::Disconnected, out);
        } else {
            out.push(Effect::Reconnect { peer: self.replica });
        }
    }

    /// What the replica says, in the session and at the address it names. Anything else is of a session
    /// that is gone, and changes nothing.
    pub(super) fn heard(&mut self, body: Body, desk: &mut Desk<'_>) {
        let replica = self.replica;
        let is_current = self.session.as_ref().is_some_and(|session| {
            session.is_alive() && body.session() == Some((session.id, session.endpoint))
        });
        if !is_current {
            return;
        }
        self.last_heard = desk.now;
        match body {
            Body::Attached(attached) => self.attached(attached, desk),
            Body::Truncated { end, .. } => self.truncated(end, desk),
            Body::Flushed {
                position,
                applied,
                heartbeat,
                ..
            } => {
                self.flushed(position, applied, heartbeat, desk);
            }
            Body::Missing { position, .. } => self.missing(position, desk),
            Body::BaseStored { parts, .. } => self.base_stored(parts, desk),
            Body::Sound { .. } => self.sound(desk),
            Body::Configured { version, .. } => self.configured = Some(version),
            Body::Failed { reason, .. } => {
                if self.is_rebuilding() {
                    self.is_full = true;
                }
                desk.out
                    .log(Some(replica), None, "replica_failed", reason.clone());
                self.renew(reason, State::Degraded, desk.out);
            }
            _ => {}
        }
    }

    fn attached(&mut self, mut attached: Attached, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.phase != Phase::Connecting {
            return;
        }
        if !attached.history.is_sound(attached.flushed) {
            let cause = "its history does not fit its end".to_owned();
            self.renew(cause, State::Degraded, desk.out);
            return;
        }
        let (id, end) = (session.id, attached.flushed);
        if session.advance(Phase::Handshake).is_err() {
            return;
        }
        desk.out.log(
            Some(self.replica),
            Some(id),
            "connected",
            format!("it ends at {end}"),
        );
        self.configured = Some(attached.configured);
        if end.lsn < self.acknowledged.lsn {
            let acknowledged = self.acknowledged;
            let cause = format!("its positions moved back from {acknowledged} to {end}");
            desk.out.log(Some(self.replica), Some(id), "amnesia", cause);
            attached.is_amnesiac = true;
        }
        session.log_lane.flushed = end;
        session.attachment = attached.attachment;
        // What it forgot, it forgot before it said this: the session may be older.
        session.attached_at = desk.out.beats;
        session.attached = Some(attached);
        self.plan(desk);
    }

    /// Decides what the replica needs and begins it; or waits for a place among the rebuilds.
    pub(super) fn plan(&mut self, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let Some(attached) = session
            .attached
            .as_ref()
            .filter(|_| session.phase == Phase::Handshake)
        else {
            return;
        };
        let wishes = Wishes {
            rebuild: self.rebuild.as_deref(),
            is_full: self.is_full,
            is_ordered: self.is_ordered,
        };
        let way = Way::decide(desk.facts(), attached, wishes);
        if matches!(way, Way::Rebuild { .. }) && desk.rebuilds >= desk.limits.rebuilds {
            return;
        }
        // A rebuild throws the log away first, so until it is done the replica's disk is not sound.
        session.is_unsound = attached.is_amnesiac || matches!(way, Way::Rebuild { .. });
        session.has_forgotten = attached.is_amnesiac;
        self.acknowledged = match way {
            Way::Truncate { keep, .. } => keep,
            Way::Rebuild { .. } => Position::default(),
            _ => attached.flushed,
        };
        session.attached = None;
        let id = Some(session.id);
        desk.out
            .log(Some(self.replica), id, way.name(), way.to_string());
        session.plan = Some(Plan {
            way: way.clone(),
            source: None,
        });
        self.carry_out(way, desk);
    }

    fn carry_out(&mut self, way: Way, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let to = match way {
            Way::Rebuild { .. } => Phase::Transfer,
            _ => Phase::CatchUp,
        };
        match way {
            Way::OwnLoss { .. } => {
                self.has_found_loss = true;
                let cause = "this primary's disk has less than it had".to_owned();
                return self.end("session_invalidated", cause, State::Degraded, desk.out);
            }
            Way::Ordered { .. } => {
                let cause = "what it has is kept until an operator reattaches it".to_owned();
                return self.end("session_invalidated", cause, State::Degraded, desk.out);
            }
            Way::ZeroGap { at } => {
                session.log_lane.start_at(at);
                self.state = State::CatchingUp;
                return self.go_on(desk);
            }
            Way::CatchUp { from, .. } => {
                session.pin(from.lsn.next(), desk.out);
                session.budget = super::budget::Budget::new(desk.now, from.lsn);
                session.log_lane.start_at(from);
                self.state = State::CatchingUp;
            }
            Way::Truncate { keep, .. } => {
                session.pin(keep.lsn.next(), desk.out);
                session.budget = super::budget::Budget::new(desk.now, keep.lsn);
                let body = Body::Truncate {
                    session: session.id,
                    endpoint: session.endpoint,
                    attachment: session.attachment,
                    keep,
                };
                desk.out.send(self.replica, body);
                self.state = State::CatchingUp;
            }
            Way::Rebuild { since, .. } => {
                // Everything that is there, until it is known where the base lies.
                session.pin(desk.log.first_retained, desk.out);
                session.budget = super::budget::Budget::new(desk.now, Lsn::ZERO);
                session.open_base(since, desk.out);
                self.state = State::Rebuilding;
            }
        }
        let id = Some(session.id);
        if let Err(refused) = session.advance(to) {
            return self.renew(refused.to_string(), State::Degraded, desk.out);
        }
        desk.out
            .log(Some(self.replica), id, "started", format!("{to:?}"));
        self.go_on(desk);
    }

    fn truncated(&mut self, end: Position, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let Some(Plan {
            way: Way::Truncate { keep, .. },
            ..
        }) = session.plan
        else {
            return;
        };
        if session.log_lane.is_open {
            return;
        }
        if end != keep {
            let cause = format!("it cut to {end} and not to {keep}");
            return self.renew(cause, State::Degraded, desk.out);
        }
        desk.out.log(
            Some(self.replica),
            Some(session.id),
            "truncated",
            format!("to {keep}"),
        );
        session.log_lane.start_at(keep);
        self.acknowledged = keep;
        self.go_on(desk);
    }

    fn flushed(&mut self, position: Position, applied: Lsn, heartbeat: u64, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.heard = session.heard.max(heartbeat.min(session.ordinal));
        let lane = &mut session.log_lane;
        if !lane.is_open || position.lsn < lane.flushed.lsn {
            return;
        }
        if position.lsn > lane.reached.lsn || !desk.log.history.has(desk.log.received, position) {
            let cause = format!("it has {position}, {} was sent", lane.reached);
            return self.renew(cause, State::Degraded, desk.out);
        }
        lane.applied = applied.min(position.lsn);
        lane.acknowledge(position);
        if session.is_base_done() {
            session.budget.progress(desk.now, position.lsn, 0);
        }
        self.acknowledged = self.acknowledged.max(position);
        self.go_on(desk);
        self.tell_committed(desk);
    }

    fn missing(&mut self, position: Position, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let lane = &mut session.log_lane;
        let is_behind = lane.is_open && position.lsn < lane.sent.lsn;
        if !is_behind || !desk.log.history.has(desk.log.received, position) {
            return;
        }
        // A late one may name less than is durable by now.
        let position = position.max(lane.flushed);
        lane.rewind(position);
        self.go_on(desk);
    }

    /// Records were read from the log, or could not be.
    pub(super) fn read_back(
        &mut self,
        entries: Result<Vec<super::Entry>, Outcome>,
        desk: &mut Desk<'_>,
    ) {
        let Some(session) = &mut self.session else {
            return;
        };
        if !std::mem::take(&mut session.log_lane.is_reading) {
            return;
        }
        match entries {
            Ok(entries) => {
                self.send_read(entries, desk);
                self.go_on(desk);
            }
            Err(Outcome::Corrupt { lsn }) => {
                // Not absent: the record is there and does not verify, and no other copy stands in for it.
                self.unreadable = Some(lsn);
                let cause = format!("record {lsn} of the primary does not verify");
                self.escalate(cause, desk.out);
            }
            Err(outcome) => {
                let cause = format!("its records could not be read: {outcome:?}");
                self.renew(cause, State::Disconnected, desk.out);
            }
        }
    }

    /// The last step: nothing is owed on either lane, and the replica has what there was when they met.
    pub(super) fn settle(&mut self, desk: &mut Desk<'_>) {
        let replica = self.replica;
        let Some(session) = &mut self.session else {
            return;
        };
        if !session.phase.is_active() {
            return;
        }
        if session.phase == Phase::Transfer
            && session
                .base_lane
                .as_ref()
                .is_some_and(super::session::BaseLane::is_done)
            && session.advance(Phase::Tail).is_ok()
        {
            desk.out.log(
                Some(replica),
                Some(session.id),
                "progress",
                "the base is stored".into(),
            );
        }
        let is_base_done = session.is_base_done();
        let lane = &session.log_lane;
        if session.met.is_none() && lane.is_open && is_base_done && lane.sent == desk.log.received {
            session.met = Some(lane.sent.lsn);
        }
        let Some(met) = session.met.filter(|_| session.is_met()) else {
            return;
        };
        if session.is_unsound {
            return self.ask_sound(desk);
        }
        if session.advance(Phase::Completed).is_err() {
            return;
        }
        let id = Some(session.id);
        desk.out.log(
            Some(replica),
            id,
            "completed",
            format!("in sync from {met} on"),
        );
        if session.release(desk.out) {
            desk.out
                .log(Some(replica), id, "resources_released", "completed".into());
        }
        self.state = State::InSync;
        self.rebuild = None;
        self.is_full = false;
        self.is_ordered = false;
    }
}
