//! A base on its way to a replica, part by part, while the log behind it flows; and what is asked of the
//! replica before it counts again.

use wal::Lsn;

use super::{
    BaseFound, Body, Source, State, Way,
    sender::{Desk, Sender},
};

impl Sender {
    pub(super) fn base_opened(&mut self, found: Option<BaseFound>, desk: &mut Desk<'_>) {
        let replica = self.replica;
        let Some(session) = &mut self.session else {
            return;
        };
        let id = session.id;
        let Some(lane) = session
            .base_lane
            .as_mut()
            .filter(|lane| lane.found.is_none())
        else {
            return;
        };
        let Some(plan) = &mut session.plan else {
            return;
        };
        let Way::Rebuild { since, .. } = plan.way else {
            return;
        };
        let Some(found) = found else {
            let cause = "there is no base, and none could be made".to_owned();
            return self.renew(cause, State::Degraded, desk.out);
        };
        let facts = desk.facts();
        // The replica's disk is sound until a rebuild begins, which this one could not end.
        if let Some(lsn) = self.unreadable.filter(|lsn| found.base.lsn < *lsn) {
            let cause = format!(
                "the base ends at {}, and record {lsn} behind it does not verify",
                found.base
            );
            return self.renew(cause, State::Degraded, desk.out);
        }
        let source = match Source::of(&found, since, facts, desk.log.committed) {
            Ok(source) => source,
            Err(cause) => return self.renew(cause, State::Degraded, desk.out),
        };
        desk.out
            .log(Some(replica), Some(id), source.line(), source.to_string());
        plan.source = Some(source);
        lane.found = Some(found.clone());
        lane.reached(0);
        session.pin(found.base.lsn.next(), desk.out);
        self.begin_base(desk);
    }

    pub(super) fn begin_base(&mut self, desk: &mut Desk<'_>) {
        let Some(session) = &self.session else { return };
        let Some(lane) = session.base_lane.as_ref().filter(|lane| !lane.has_begun) else {
            return;
        };
        let Some(found) = &lane.found else { return };
        let mut history = desk.log.history.clone();
        history.cut(found.base.lsn);
        let body = Body::BaseBegin {
            session: session.id,
            endpoint: session.endpoint,
            attachment: session.attachment,
            base: found.base,
            history,
            since: found.since,
            parts: found.parts,
        };
        desk.out.send(self.replica, body);
    }

    /// Part `index` was read, or could not be.
    pub(super) fn base_read(&mut self, index: u32, bytes: Option<Vec<u8>>, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let Some(lane) = &session.base_lane else {
            return;
        };
        if !lane.is_reading || index != lane.stored {
            return;
        }
        let Some(bytes) = bytes else {
            let cause = format!("part {index} of the base does not read");
            return self.renew(cause, State::Degraded, desk.out);
        };
        let body = Body::BasePart {
            session: session.id,
            endpoint: session.endpoint,
            index,
            bytes,
        };
        desk.out.send(self.replica, body);
    }

    pub(super) fn base_stored(&mut self, parts: u32, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let Some(lane) = &mut session.base_lane else {
            return;
        };
        let Some(found) = lane.found.as_ref().filter(|found| parts <= found.parts) else {
            return;
        };
        if !lane.has_begun {
            session.log_lane.start_at(found.base);
            self.acknowledged = found.base;
            lane.has_begun = true;
            lane.reached(0);
        }
        if parts > lane.stored {
            lane.reached(parts);
            lane.is_reading = false;
        }
        // The log flows beside it, and is no progress of a base that stands still.
        session.budget.progress(desk.now, Lsn::ZERO, parts);
        self.go_on(desk);
    }

    pub(super) fn sound(&mut self, desk: &mut Desk<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.phase.is_active() && session.is_met() && session.is_unsound {
            session.is_unsound = false;
            self.go_on(desk);
        }
    }

    /// A node that lost a part of its disk forgot whom it promised what, and this primary may be overtaken
    /// by just that, as soon as the candidate has a majority, the forgotten promise among it. A candidate
    /// promises to itself before it asks others: so when all others answered under this epoch since the
    /// node said that it lost something, there is none. A rebuild that began on a sound disk forgets the log only.
    /// For one that was stopped the operator's statement stands in, as it does for its removal: the change that it
    /// was given with may need this very replica, and would wait for itself.
    pub(super) fn ask_sound(&mut self, desk: &mut Desk<'_>) {
        let Some(session) = &self.session else { return };
        let replaced = desk.config.previous.iter();
        let replaced = replaced.flat_map(|previous| &previous.members);
        let members = desk.config.members.iter().chain(replaced);
        let mut others = members.filter(|member| **member != self.replica);
        let have_all_answered = others.all(|member| {
            let heard = desk.heard.get(member);
            heard.is_some_and(|heard| *heard > session.attached_at) || desk.stopped.contains(member)
        });
        if session.has_forgotten && !have_all_answered {
            return;
        }
        let body = Body::Rebuilt {
            session: session.id,
            endpoint: session.endpoint,
            attachment: session.attachment,
        };
        desk.out.send(self.replica, body);
    }
}
