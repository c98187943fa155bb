//! Handing a drained journal over to a replica that is in sync.
//!
//! Nothing is given up by it: the replica asks to be promoted as any other, and its promise is what
//! ends this primary. If it does not within its time, writes are taken again.

use super::{
    Body, EpochId, NodeId, Outcome, Refusal, Time,
    primary::{Office, Primary, answer},
};

#[derive(Debug)]
pub(super) struct Drain {
    pub(super) to: NodeId,
    pub(super) number: u64,
    epoch_id: EpochId,
    since: Time,
    is_told: bool,
}

impl Primary {
    pub(super) fn switch_over(
        &mut self,
        number: u64,
        to: NodeId,
        epoch_id: EpochId,
        office: &mut Office<'_>,
    ) {
        let refusal = if self.drain.is_some() {
            Some(Refusal::InvalidState("a switchover is under way"))
        } else if self
            .senders
            .get(&to)
            .is_none_or(|sender| !sender.is_in_sync())
        {
            Some(Refusal::NotAReplica)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return answer(number, Outcome::Refused(refusal), office.out);
        }
        office.out.log(
            Some(to),
            None,
            "drain_started",
            "an operator's order".to_owned(),
        );
        let since = office.now;
        self.drain = Some(Drain {
            to,
            number,
            epoch_id,
            since,
            is_told: false,
        });
        self.hand_over(office);
    }

    /// Once everything is committed and there: says so.
    pub(super) fn hand_over(&mut self, office: &mut Office<'_>) {
        let is_drained = self.is_drained(office.log);
        let end = office.log.received;
        let Some(drain) = self
            .drain
            .as_mut()
            .filter(|drain| is_drained && !drain.is_told)
        else {
            return;
        };
        let Some(sender) = self.senders.get(&drain.to) else {
            return;
        };
        let Some(session) = sender
            .session
            .as_ref()
            .filter(|session| session.is_in_sync())
        else {
            return;
        };
        if session.log_lane.flushed != end {
            return;
        }
        drain.is_told = true;
        let body = Body::HandOver {
            session: session.id,
            endpoint: session.endpoint,
            end,
            epoch_id: drain.epoch_id,
        };
        office.out.send(drain.to, body);
    }

    /// The replica was not promoted in time: this node goes on.
    pub(super) fn expire_drain(&mut self, office: &mut Office<'_>) {
        let limits = office.limits;
        // Draining takes what waits for a write; then two rounds of a promotion.
        let wait = limits.write_wait + 2 * limits.validation;
        let Some(drain) = self
            .drain
            .take_if(|drain| office.now.since(drain.since) > wait)
        else {
            // Messages get lost.
            if let Some(drain) = &mut self.drain {
                drain.is_told = false;
            }
            return self.hand_over(office);
        };
        let cause = "the replica was not promoted in time".to_owned();
        office
            .out
            .log(Some(drain.to), None, "drain_ended", cause.clone());
        answer(
            drain.number,
            Outcome::Refused(Refusal::EvidenceMissing(cause)),
            office.out,
        );
    }
}
