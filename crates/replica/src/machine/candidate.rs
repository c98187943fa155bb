//! A node that was told to become primary: its side of a promotion.

use std::collections::BTreeSet;

use wal::Epoch;

use super::{
    Config, Effect, EpochId, EpochStart, Header, NodeId, Outcome, Record, Refusal, Sealed, Version,
    next_promotion,
    node::Node,
    position::EPOCH_MAX,
    primary::answer,
    promise::Then,
    promotion::{Candidacy, refuse},
    states::State,
    validation::{Denial, Judgement, Proof, Verdict},
};

impl Node {
    /// An operator's order, or what a primary that hands over says.
    pub(super) fn promote(
        &mut self,
        number: Option<u64>,
        node: NodeId,
        config: Option<Config>,
        force: Option<String>,
        id: EpochId,
    ) {
        let refusal = self.not_promotable().or_else(|| {
            let own = &self.record().config;
            refuse(self.me, node, config.as_ref(), force.as_deref(), own)
        });
        let mut candidacy = Candidacy::new(self.me, number, config, force, id, self.now);
        let end = self.log.flushed;
        let out = &mut self.out;
        let requested = candidacy.advance(State::Requested, end, "ordered", out);
        let refusal =
            refusal.or_else(|| requested.err().map(|_| Refusal::InvalidState("requested")));
        if let Some(refusal) = refusal {
            let cause = format!("{refusal:?}");
            if candidacy.advance(State::Steady, end, cause, out).is_ok()
                && let Some(number) = number
            {
                answer(number, Outcome::Refused(refusal), out);
            }
            return;
        }
        if candidacy
            .advance(State::Validating, end, "asking all members", out)
            .is_err()
        {
            return;
        }
        candidacy.ask(&self.keeper.record().config, self.now, out);
        self.candidacy = Some(candidacy);
    }

    /// A coordinator's lease was given to this node: a promotion by the rules of one that is not forced.
    pub(super) fn succeed(
        &mut self,
        number: u64,
        node: NodeId,
        above: Epoch,
        lease: String,
        id: EpochId,
    ) {
        if above >= EPOCH_MAX {
            let what = "the coordinator's epoch is above all that there are".to_owned();
            let outcome = Outcome::Refused(Refusal::InvalidRequest(what));
            return answer(number, outcome, &mut self.out);
        }
        let is_under_way = self.candidacy.is_some();
        self.promote(Some(number), node, None, None, id);
        if let Some(candidacy) = self.candidacy.as_mut().filter(|_| !is_under_way) {
            candidacy.heard = candidacy.heard.max(above);
            candidacy.lease = Some(lease);
        }
    }

    fn not_promotable(&self) -> Option<Refusal> {
        if self.primary.is_some() {
            return Some(Refusal::InvalidState("it is primary"));
        }
        if self.candidacy.is_some() {
            return Some(Refusal::InvalidState("a promotion of it is under way"));
        }
        if self.is_amnesiac() {
            return Some(Refusal::InvalidState("its disk has less than it promised"));
        }
        self.log.failed.as_ref().map(|_| Refusal::LogFailed)
    }

    /// What a node has, without a promise or with one.
    pub(super) fn candidacy_answered(&mut self, header: Header, answer: Sealed, is_promise: bool) {
        let Some(candidacy) = &mut self.candidacy else {
            return;
        };
        let is_wanted = match candidacy.epoch {
            None => !is_promise,
            Some(epoch) => {
                let promised = (header.epoch, header.epoch_id);
                is_promise && (promised == (epoch, candidacy.id) || answer.is_amnesiac)
            }
        };
        let is_sound = answer.holders.len() <= super::MEMBERS_MAX && answer.config.is_of_a_size();
        if candidacy.state() != State::Validating || !is_wanted || !is_sound {
            return;
        }
        if candidacy.epoch.is_none() {
            candidacy.heard = candidacy.heard.max(header.epoch);
        }
        let own = &self.keeper.record().config;
        candidacy.answered(header.from, answer, own, &mut self.out);
    }

    /// Looks at what is known; goes on if it is enough.
    pub(super) fn judge_candidacy(&mut self, is_over: bool) {
        let is_ready = self.log.is_settled() && !self.keeper.is_busy();
        let Some(candidacy) = self.candidacy.as_ref().filter(|_| is_ready) else {
            return;
        };
        if candidacy.state() != State::Validating {
            return;
        }
        let own = self.sealed();
        let heard = candidacy
            .heard
            .max(self.record().promised.0)
            .max(self.log.flushed.epoch);
        let Some(epoch) = candidacy.epoch.or_else(|| next_promotion(heard)) else {
            return self.deny(
                &Refusal::EpochStale { highest: heard },
                "numbers of epochs end there",
            );
        };
        if let Some(judgement) = candidacy.judge(own, epoch, is_over) {
            self.judged(judgement, epoch, is_over);
        }
    }

    fn judged(&mut self, judgement: Judgement, epoch: Epoch, is_over: bool) {
        let Some(candidacy) = &self.candidacy else {
            return;
        };
        let (is_forecast, id) = (candidacy.epoch.is_none(), candidacy.id);
        // A pair needs nobody else. Asking is worth a round all the same, so that no number is minted twice,
        // unless the other one is known to be gone.
        let members = self.record().config.members.iter();
        let mut others = members.filter(|node| **node != self.me);
        let is_alone = others.all(|node| self.gone.contains(node));
        let is_heard = is_alone || candidacy.has_majority(&self.record().config);
        if is_forecast && !is_over && !is_heard {
            return;
        }
        let verdict = judgement.verdict.clone();
        self.judgement = Some(judgement);
        match verdict {
            Verdict::Denied(denial) => self.denied(&denial),
            Verdict::Approved(_) if is_forecast => self.promise_itself(epoch, id),
            Verdict::Approved(proof) => self.approve(proof),
        }
    }

    fn promise_itself(&mut self, epoch: Epoch, id: EpochId) {
        match self.promise_to((epoch, id, self.me)) {
            Some(record) => {
                self.keep(record, Then::OwnPromise { epoch });
            }
            None => self.deny(
                &Refusal::ReplicationDisabled,
                "more nodes may be primary than are members",
            ),
        }
    }

    pub(super) fn promised_itself(&mut self, epoch: Epoch) {
        let Some(candidacy) = &mut self.candidacy else {
            return;
        };
        candidacy.promised(epoch);
        candidacy.since = self.now;
        candidacy.ask(&self.keeper.record().config, self.now, &mut self.out);
    }

    /// Nothing that another node does can take the evidence back: each promise is on a disk.
    fn approve(&mut self, proof: Proof) {
        let end = self.log.flushed;
        let me = self.me;
        let Some(candidacy) = &mut self.candidacy else {
            return;
        };
        let cause = format!("promised by {}", proof.promised.len());
        let moved = candidacy
            .advance(State::Approved, end, cause, &mut self.out)
            .and_then(|()| {
                let cause = "the record is being kept";
                candidacy.advance(State::Transitioning, end, cause, &mut self.out)
            });
        if moved.is_err() {
            return;
        }
        let authority = (proof.epoch, candidacy.id, me);
        let said = candidacy.force.as_ref().or(candidacy.lease.as_ref());
        let reason = said.cloned().unwrap_or_else(|| "promoted".to_owned());
        let record = Record {
            promised: authority,
            granted: authority,
            holders: BTreeSet::from([me]),
            start: Some(EpochStart {
                epoch: proof.epoch,
                id: candidacy.id,
                first: end.lsn.next(),
            }),
            previous_end: end,
            config: candidacy.config_after(proof.config, proof.epoch),
            is_amnesiac: false,
            reason,
        };
        self.keep(record, Then::Granted);
    }

    pub(super) fn granted(&mut self) {
        let end = self.log.flushed;
        if let Some(mut candidacy) = self.candidacy.take() {
            let out = &mut self.out;
            let moved = candidacy
                .advance(State::Succeeded, end, "the record is on disk", out)
                .and_then(|()| candidacy.advance(State::Steady, end, "it writes", out));
            if moved.is_ok()
                && let Some(number) = candidacy.number
            {
                answer(number, Outcome::Done, out);
            }
        }
        self.become_primary();
    }

    fn denied(&mut self, denial: &Denial) {
        let cause = format!("{:?}: {}", denial.rule, denial.evidence);
        self.deny(&denial.refusal, &cause);
    }

    /// Ends a promotion that is under way. The promise stays: the next one asks for a higher number.
    pub(super) fn deny(&mut self, refusal: &Refusal, cause: &str) {
        let end = self.log.flushed;
        let Some(mut candidacy) = self.candidacy.take() else {
            return;
        };
        let out = &mut self.out;
        let moved = candidacy
            .advance(State::Denied, end, cause, out)
            .and_then(|()| candidacy.advance(State::Steady, end, cause, out));
        if moved.is_ok()
            && let Some(number) = candidacy.number
        {
            out.push(Effect::Answer {
                number,
                outcome: Outcome::Refused(refusal.clone()),
            });
        }
    }

    /// This node promised another one more than it asks for, or another one is primary.
    pub(super) fn overtaken(&mut self, epoch: Epoch, is_granted: bool) {
        let is_over = self.candidacy.as_ref().is_some_and(|candidacy| {
            is_granted || candidacy.epoch.is_some_and(|asked| asked < epoch)
        });
        if is_over {
            let refusal = Refusal::EpochStale { highest: epoch };
            self.deny(&refusal, "another node asked for a higher epoch");
        } else if let Some(candidacy) = &mut self.candidacy {
            candidacy.heard = candidacy.heard.max(epoch);
        }
    }

    pub(super) fn candidacy_refused(&mut self, highest: Epoch, id: EpochId) {
        let Some(candidacy) = &mut self.candidacy else {
            return;
        };
        match candidacy.epoch {
            Some(asked) if highest > asked || (highest == asked && id != candidacy.id) => {
                let refusal = Refusal::EpochStale { highest };
                self.deny(&refusal, "a member promised another node as much");
            }
            Some(_) => {}
            None => candidacy.heard = candidacy.heard.max(highest),
        }
    }

    pub(super) fn tick_candidacy(&mut self) {
        let limits = self.limits;
        let Some(candidacy) = &mut self.candidacy else {
            return;
        };
        if candidacy.state() != State::Validating {
            return;
        }
        let own = &self.keeper.record().config;
        candidacy.ask_again(own, self.now, limits.heartbeat, &mut self.out);
        if self.now.since(candidacy.since) <= limits.validation {
            return;
        }
        if self.log.is_settled() {
            self.judge_candidacy(true);
        } else {
            let refusal = Refusal::EvidenceMissing("its own end is not on disk".to_owned());
            self.deny(&refusal, "its disk did not write in time");
        }
    }
}

impl Candidacy {
    /// The configuration to begin with. What it was before counts until the change is in force, unless
    /// the operator took that upon them by force.
    fn config_after(&self, heard: Config, epoch: Epoch) -> Config {
        let version = Version { epoch, number: 0 };
        let Some(wanted) = &self.config else {
            return Config { version, ..heard };
        };
        let is_same = heard.members == wanted.members && heard.mode == wanted.mode;
        let previous = (self.force.is_none() && !is_same).then(|| {
            heard.previous.unwrap_or(super::Replaced {
                members: heard.members,
                mode: heard.mode,
            })
        });
        Config {
            version,
            previous,
            ..wanted.clone()
        }
    }
}
