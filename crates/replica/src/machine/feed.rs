//! What a sender sends: one feeder for live and old records alike, so that each goes out once and in
//! order; parts of a base beside it; heartbeats. Bounded by the replica's window.

use super::{
    Body, Effect, Entry, Phase,
    log::weight,
    sender::{Desk, Sender},
    session::Session,
};

impl Sender {
    /// Whatever can be sent after something changed, then the end of the recovery if this was it.
    pub(super) fn go_on(&mut self, desk: &mut Desk<'_>) {
        self.feed_base(desk);
        self.feed_log(desk);
        self.settle(desk);
    }

    fn feed_log(&mut self, desk: &mut Desk<'_>) {
        let replica = self.replica;
        let Some(session) = self.session.as_mut().filter(|session| session.is_alive()) else {
            return;
        };
        while session.log_lane.is_open && session.log_lane.sent.lsn < desk.log.received.lsn {
            let lane = &mut session.log_lane;
            let limits = desk.limits;
            let records = lane.sent.lsn.get() - lane.flushed.lsn.get();
            let bytes_left = limits.window_bytes.saturating_sub(lane.outstanding_bytes);
            let records_left = limits.window_records.saturating_sub(records);
            if bytes_left == 0 || records_left == 0 {
                return;
            }
            let from = lane.sent.lsn.next();
            let bytes = limits.entries_bytes.min(bytes_left);
            if desk.log.remembered().is_none_or(|first| first > from) {
                if !lane.is_reading && from <= desk.log.flushed.lsn {
                    lane.is_reading = true;
                    let last = from.get().saturating_add(records_left - 1);
                    let to = desk.log.flushed.lsn.min(wal::Lsn::new(last));
                    desk.out.push(Effect::Read {
                        session: session.id,
                        from,
                        to,
                        bytes,
                    });
                }
                return;
            }
            let entries = desk.log.recall(from, bytes, records_left);
            send_entries(replica, session, entries, desk);
        }
    }

    /// Entries out of the log, if the feeder still stands where it asked for them.
    pub(super) fn send_read(&mut self, entries: Vec<Entry>, desk: &mut Desk<'_>) {
        let replica = self.replica;
        let Some(session) = self.session.as_mut().filter(|session| session.is_alive()) else {
            return;
        };
        let mut last = session.log_lane.sent;
        let history = &desk.log.history;
        let is_fitting = entries.iter().all(|entry| {
            let fits = entry.position.lsn == last.lsn.next()
                && history.has(desk.log.received, entry.position);
            last = entry.position;
            fits
        });
        if is_fitting && session.log_lane.is_open {
            send_entries(replica, session, entries, desk);
        }
    }

    fn feed_base(&mut self, desk: &mut Desk<'_>) {
        let Some(session) = self.session.as_mut().filter(|session| session.is_alive()) else {
            return;
        };
        let id = session.id;
        let Some(lane) = session.base_lane.as_mut().filter(|lane| lane.has_begun) else {
            return;
        };
        if !lane.is_done() && !lane.is_reading {
            lane.is_reading = true;
            lane.asked = desk.now;
            desk.out.push(Effect::ReadBase {
                session: id,
                index: lane.stored,
            });
        }
    }

    /// Says that the primary is there, what it committed and what it sent.
    pub(super) fn beat(&mut self, desk: &mut Desk<'_>) {
        let Some(session) = self.session.as_mut().filter(|session| session.is_alive()) else {
            return;
        };
        desk.out.beats += 1;
        session.ordinal = desk.out.beats;
        let lane = &mut session.log_lane;
        // Before the logs agree nothing in the replica's is known to be committed.
        let committed = if lane.is_open {
            desk.log.committed
        } else {
            wal::Lsn::ZERO
        };
        lane.told = committed;
        let body = Body::Heartbeat {
            session: session.id,
            endpoint: session.endpoint,
            ordinal: session.ordinal,
            sent: lane.sent,
            committed,
        };
        desk.out.send(self.replica, body);
    }

    /// More may be committed than it was told. Whoever waits for nothing else hears it now, the others with what
    /// comes next, or when they have everything.
    pub(super) fn tell_committed(&mut self, desk: &mut Desk<'_>) {
        let committed = desk.log.committed;
        let is_due = self.session.as_ref().is_some_and(|session| {
            let lane = &session.log_lane;
            lane.is_open && lane.outstanding.is_empty() && lane.told < committed
        });
        if is_due {
            self.beat(desk);
        }
    }

    /// It answered, in this session, a heartbeat that was sent after that one.
    pub(super) fn heard_after(&self, ordinal: u64) -> bool {
        let session = self.session.as_ref().filter(|session| session.is_alive());
        session.is_some_and(|session| session.heard > ordinal)
    }

    /// Time passed: asks again what had no answer, gives up what had its time.
    pub(super) fn tick(&mut self, desk: &mut Desk<'_>) {
        self.retry(desk);
        let Some(session) = self.session.as_mut().filter(|session| session.is_alive()) else {
            return;
        };
        if desk.now.since(self.last_heard) > desk.limits.silence {
            let cause = "nothing was heard of it".to_owned();
            return self.renew(cause, super::State::Disconnected, desk.out);
        }
        let exceeded = session.exceeded(desk.now, desk.limits);
        let is_over = session.phase == Phase::Completed;
        match exceeded {
            Some(violation) if is_over => {
                return self.renew(violation.to_string(), super::State::Disconnected, desk.out);
            }
            Some(violation) => return self.escalate(violation.to_string(), desk.out),
            None => {}
        }
        self.plan(desk);
        if desk.now.since(self.last_asked) >= desk.limits.heartbeat {
            self.ask_again(desk);
        }
    }

    /// Retention would remove what is held for this replica, and there is more of that than may be: what
    /// changed since its position is asked for instead.
    pub(super) fn retained(&mut self, wants: wal::Lsn, desk: &mut Desk<'_>) {
        let Some(session) = self.session.as_ref().filter(|session| session.is_pinned()) else {
            return;
        };
        let needs = session.log_lane.flushed.lsn;
        let held = desk.log.received.lsn.get() - needs.get().min(desk.log.received.lsn.get());
        if !session.is_rebuild() && needs.next() < wants && held > desk.limits.retained_records {
            let cause = format!("{held} records are held for it, from {} on", needs.next());
            self.escalate(cause, desk.out);
        }
    }

    fn ask_again(&mut self, desk: &mut Desk<'_>) {
        self.last_asked = desk.now;
        let Some(session) = self.session.as_mut().filter(|session| session.is_alive()) else {
            return;
        };
        if session.phase == Phase::Connecting {
            return self.attach(desk);
        }
        // Messages get lost: whatever the replica owes an answer to is said again. A part is large, and
        // storing it takes longer than a beat of the heart.
        if let Some(lane) = &mut session.base_lane
            && desk.now.since(lane.asked) >= desk.limits.silence
        {
            lane.is_reading = false;
        }
        let is_unsound = session.phase.is_active() && session.is_met();
        self.cut_again(desk);
        self.begin_base(desk);
        self.feed_base(desk);
        if is_unsound {
            self.ask_sound(desk);
        }
        self.beat(desk);
    }

    fn cut_again(&mut self, desk: &mut Desk<'_>) {
        let Some(session) = &self.session else { return };
        if session.log_lane.is_open {
            return;
        }
        if let Some(super::Plan {
            way: super::Way::Truncate { keep, .. },
            ..
        }) = session.plan
        {
            let body = Body::Truncate {
                session: session.id,
                endpoint: session.endpoint,
                attachment: session.attachment,
                keep,
            };
            desk.out.send(self.replica, body);
        }
    }
}

fn send_entries(
    replica: super::NodeId,
    session: &mut Session,
    entries: Vec<Entry>,
    desk: &mut Desk<'_>,
) {
    let Some(last) = entries.last().map(|entry| entry.position) else {
        return;
    };
    let lane = &mut session.log_lane;
    let bytes = entries.iter().map(weight).sum::<u64>();
    if lane.outstanding.is_empty() {
        // The time without progress begins with something to wait for.
        session.budget.wait(desk.now);
    }
    lane.outstanding.push_back((last.lsn, bytes));
    lane.outstanding_bytes += bytes;
    let previous = std::mem::replace(&mut lane.sent, last);
    lane.reached = lane.reached.max(last);
    lane.told = desk.log.committed;
    let body = Body::Entries {
        session: session.id,
        endpoint: session.endpoint,
        previous,
        entries,
        committed: desk.log.committed,
    };
    desk.out.send(replica, body);
}
