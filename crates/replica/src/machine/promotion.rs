//! A promotion of this node: asks, promises to itself, has others promise, and is judged by what they
//! say. The rules are in `validation.rs`, the states in `states.rs`; this is the order of things.

use std::collections::{BTreeMap, BTreeSet};

use wal::Epoch;

use super::{
    Body, Config, EpochId, Line, NodeId, Position, Refusal, Sealed, Time,
    outbox::Outbox,
    states::{About, NoSuchMove, Promotion, State},
    validation::{Denial, Evidence, Judgement, Verdict, judge},
};

#[derive(Debug)]
pub(super) struct Candidacy {
    pub(super) me: NodeId,
    /// Of the order; a switchover has none here.
    pub(super) number: Option<u64>,
    pub(super) config: Option<Config>,
    pub(super) force: Option<String>,
    /// A coordinator's lease that it is ordered under.
    pub(super) lease: Option<String>,
    pub(super) id: EpochId,
    pub(super) since: Time,
    last_asked: Time,
    states: Promotion,
    /// The epoch that was asked for, once this node promised it to itself.
    pub(super) epoch: Option<Epoch>,
    /// What nodes said: to the inquiry, then with their promises.
    answers: BTreeMap<NodeId, Sealed>,
    /// The highest epoch that anybody named, other than the one that is asked for.
    pub(super) heard: Epoch,
}

impl Candidacy {
    pub(super) fn new(
        me: NodeId,
        number: Option<u64>,
        config: Option<Config>,
        force: Option<String>,
        id: EpochId,
        now: Time,
    ) -> Self {
        Self {
            me,
            number,
            config,
            force,
            lease: None,
            id,
            since: now,
            last_asked: now,
            states: Promotion::default(),
            epoch: None,
            answers: BTreeMap::new(),
            heard: Epoch::default(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.states.state()
    }

    /// Moves, and tells. A move that is not in the table is an error of this machine's own.
    pub(super) fn advance(
        &mut self,
        to: State,
        end: Position,
        cause: impl Into<String>,
        out: &mut Outbox,
    ) -> Result<(), NoSuchMove> {
        let about = About {
            candidate: self.me,
            epoch: self.epoch.unwrap_or_default(),
            id: self.id,
            end,
            cause: cause.into(),
        };
        let Line {
            replica,
            session,
            name,
            cause,
            ..
        } = self.states.advance(to, &about)?;
        out.log(replica, session, name, cause);
        Ok(())
    }

    /// Members of every configuration that was heard of, without this node.
    fn others(&self, own: &Config) -> BTreeSet<NodeId> {
        let heard = self.answers.values().map(|answer| &answer.config);
        let mut others = BTreeSet::new();
        for config in heard.chain([own]) {
            others.extend(&config.members);
            others.extend(
                config
                    .previous
                    .iter()
                    .flat_map(|previous| &previous.members),
            );
        }
        others.remove(&self.me);
        others
    }

    /// Asks those who did not answer yet.
    pub(super) fn ask(&mut self, own: &Config, now: Time, out: &mut Outbox) {
        self.last_asked = now;
        for node in self.others(own) {
            if !self.answers.contains_key(&node) {
                let candidate = self.me;
                let body = match self.epoch {
                    None => Body::Inquire { candidate },
                    Some(_) => Body::Seal { candidate },
                };
                out.send(node, body);
            }
        }
    }

    pub(super) fn ask_again(
        &mut self,
        own: &Config,
        now: Time,
        every: std::time::Duration,
        out: &mut Outbox,
    ) {
        if now.since(self.last_asked) >= every {
            self.ask(own, now, out);
        }
    }

    /// This node promised itself the epoch: answers to the inquiry are no promises.
    pub(super) fn promised(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
        self.answers.clear();
    }

    pub(super) fn answered(
        &mut self,
        node: NodeId,
        answer: Sealed,
        own: &Config,
        out: &mut Outbox,
    ) {
        let known = self.others(own);
        self.answers.insert(node, answer);
        // A configuration that this node did not know may name others.
        let candidate = self.me;
        for node in self.others(own).difference(&known) {
            let body = match self.epoch {
                None => Body::Inquire { candidate },
                Some(_) => Body::Seal { candidate },
            };
            out.send(*node, body);
        }
    }

    /// A majority of the members was heard, this node among them: enough to know what is going on.
    pub(super) fn has_majority(&self, own: &Config) -> bool {
        self.answers.len() + 1 > own.members.len() / 2
    }

    /// Whether what is known is enough; `None`: more is waited for. Not enough is an end only when nothing more is to come: every
    /// member answered, or the time is over, or what is missing cannot come. A forced promotion waits for all it can get.
    pub(super) fn judge(&self, own: Sealed, epoch: Epoch, is_over: bool) -> Option<Judgement> {
        let config = own.config.clone();
        let is_all = self
            .others(&config)
            .iter()
            .all(|node| self.answers.contains_key(node));
        if self.force.is_some() && !is_all && !is_over {
            return None;
        }
        let mut answers = self.answers.clone();
        answers.insert(self.me, own);
        let evidence = Evidence {
            candidate: self.me,
            epoch,
            answers,
            heard: self.heard,
            force: self.force.clone(),
        };
        let judgement = judge(&evidence);
        let is_final = match &judgement.verdict {
            Verdict::Approved(_) => true,
            Verdict::Denied(denial) => self.lacks_for_good(denial),
        };
        (is_final || is_all || is_over).then_some(judgement)
    }

    /// Nobody feeds a node that has the lease, so whatever more is answered, it never gets the records that
    /// somebody has beyond its own. Until it lets go of the lease, that one cannot have it. Without a lease
    /// whoever writes may still be feeding it.
    fn lacks_for_good(&self, denial: &Denial) -> bool {
        let is_behind = matches!(
            denial.refusal,
            Refusal::ReplicaBehind { .. } | Refusal::VisibilityViolation { .. }
        );
        self.lease.is_some() && is_behind
    }
}

/// Why an order to promote is not even looked into.
pub(super) fn refuse(
    me: NodeId,
    node: NodeId,
    config: Option<&Config>,
    force: Option<&str>,
    own: &Config,
) -> Option<Refusal> {
    let invalid = |what: &str| Some(Refusal::InvalidRequest(what.to_owned()));
    if node != me {
        return invalid("the order names another node");
    }
    if force.is_some_and(|words| words.trim().is_empty()) {
        return invalid("a forced promotion needs a statement how the primary was stopped");
    }
    if own.members.is_empty() {
        return Some(Refusal::ReplicationDisabled);
    }
    if !own.members.contains(&me) {
        return Some(Refusal::NotAReplica);
    }
    let config = config?;
    let size = config.members.len();
    if !config.members.contains(&me) || size > super::MEMBERS_MAX {
        return invalid(
            "a configuration after a promotion has this node among a handful of members",
        );
    }
    if config.mode.copies(size) >= size {
        return invalid("a mode cannot ask for more copies than there are members");
    }
    None
}
