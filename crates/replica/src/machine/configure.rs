//! A change of members or mode, on its way into force.
//!
//! Three records: the one before; one that names what it replaces, in force once a majority of both
//! has it, or all that no statement says to be stopped; and one without that, after all that the primary
//! had at that moment is committed by the mode of the second. Until it is in force an acknowledgement needs what the first asks for.
//!
//! One that waits, because nodes died meanwhile, is taken back by the order for what was before: the same two,
//! the other way round.

use std::collections::{BTreeMap, BTreeSet};

use wal::{Epoch, Lsn};

use super::{
    Body, Config, MEMBERS_MAX, NodeId, Outcome, Record, Refusal, Replaced, Version,
    node::Node,
    primary::{Office, Primary, answer},
    promise::Then,
    sender::Sender,
    session::Session,
};

#[derive(Debug)]
pub(super) struct Change {
    /// Of the order; a promotion goes on with a change that nobody waits for.
    pub(super) number: Option<u64>,
    /// Said to be stopped. One that answers is asked all the same.
    fenced: BTreeSet<NodeId>,
    /// The end of the primary's log when it came into force.
    in_force: Option<Lsn>,
    /// Whether what it replaces ever was in force is not known here: it takes that back, or another holder
    /// began it. Until this one is, an acknowledgement needs what both ask for.
    replaces_open: bool,
}

/// A change as it was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    version: Version,
    number: Option<u64>,
}

impl Change {
    pub(super) fn new(number: Option<u64>, fenced: BTreeSet<NodeId>) -> Self {
        Self {
            number,
            fenced,
            in_force: None,
            replaces_open: number.is_none(),
        }
    }

    pub(super) fn is_in_force(&self) -> bool {
        self.in_force.is_some()
    }

    pub(super) fn replaces_open(&self) -> bool {
        self.replaces_open
    }
}

/// The configuration that an order asks for, naming what it replaces. `Ok(None)`: it is as it is.
pub(super) fn replace(
    own: &Config,
    wanted: Config,
    me: NodeId,
    epoch: Epoch,
    fenced: &BTreeMap<NodeId, String>,
) -> Result<Option<Config>, Refusal> {
    let invalid = |what: &str| Err(Refusal::InvalidRequest(what.to_owned()));
    let takes_back =
        |before: &Replaced| before.members == wanted.members && before.mode == wanted.mode;
    if !own.previous.as_ref().is_none_or(takes_back) {
        return invalid(
            "a change of the configuration is not in force yet; the order for what was before takes it back",
        );
    }
    let size = wanted.members.len();
    if !wanted.members.contains(&me) {
        return invalid("the primary is a member; switch over first");
    }
    if size > MEMBERS_MAX {
        return invalid("so many members are not a group");
    }
    if wanted.mode.copies(size) >= size {
        return invalid("a mode cannot ask for more copies than there are members");
    }
    if own.members.symmetric_difference(&wanted.members).count() > 1 {
        return invalid("members come and go one at a time");
    }
    if fenced.values().any(|words| words.trim().is_empty()) {
        return invalid("a member that is fenced needs a statement how it was stopped");
    }
    let is_quorum_same = own.members == wanted.members && own.mode == wanted.mode;
    if is_quorum_same && own.policy == wanted.policy {
        return Ok(None);
    }
    let previous = (!is_quorum_same).then(|| Replaced {
        members: own.members.clone(),
        mode: own.mode,
    });
    let version = next(own.version, epoch);
    Ok(Some(Config {
        version,
        previous,
        ..wanted
    }))
}

/// The same, replacing nothing.
pub(super) fn settle(own: &Config, epoch: Epoch) -> Config {
    let version = next(own.version, epoch);
    Config {
        version,
        previous: None,
        ..own.clone()
    }
}

fn next(version: Version, epoch: Epoch) -> Version {
    let number = if version.epoch == epoch {
        version.number + 1
    } else {
        0
    };
    Version { epoch, number }
}

/// The reason that is put on record.
pub(super) fn reason(fenced: &BTreeMap<NodeId, String>) -> String {
    let said = fenced
        .iter()
        .map(|(node, words)| format!("{:032x}: {words}", node.0));
    let said = said.collect::<Vec<_>>().join("; ");
    format!("an operator's order {said}").trim_end().to_owned()
}

impl Node {
    /// Whether `wanted` is what is on its way into force, so that an order for it says only who was stopped.
    pub(super) fn is_under_way(&self, wanted: &Config) -> bool {
        let own = &self.record().config;
        let same = (own.mode, own.policy) == (wanted.mode, wanted.policy);
        own.previous.is_some() && same && own.members == wanted.members
    }

    /// Members that the change that is under way waits for were stopped. On record before it counts.
    pub(super) fn say_stopped(&mut self, number: u64, fenced: BTreeMap<NodeId, String>) {
        if fenced.values().any(|words| words.trim().is_empty()) {
            let what = "a member that is fenced needs a statement how it was stopped".to_owned();
            let outcome = Outcome::Refused(Refusal::InvalidRequest(what));
            return answer(number, outcome, &mut self.out);
        }
        let record = Record {
            reason: reason(&fenced),
            ..self.record().clone()
        };
        let fenced = fenced.into_keys().collect();
        self.keep(record, Then::Stopped { number, fenced });
    }

    pub(super) fn stopped(&mut self, number: u64, fenced: BTreeSet<NodeId>) {
        if let Some(change) = self.primary.as_mut().and_then(|it| it.change.as_mut()) {
            change.fenced.extend(fenced);
        }
        answer(number, Outcome::Done, &mut self.out);
    }
}

impl Primary {
    /// A sender for each member, also of those that are replaced, and for nobody else.
    pub(super) fn reconcile(&mut self, office: &mut Office<'_>) {
        let mut members = office.config.members.clone();
        if let Some(previous) = &office.config.previous {
            members.extend(&previous.members);
        }
        members.remove(&office.me);
        self.senders.retain(|node, sender| {
            let stays = members.contains(node);
            if !stays {
                let cause = "it is no member".to_owned();
                let state = super::State::Disconnected;
                sender.end("session_invalidated", cause.clone(), state, office.out);
                office.out.log(Some(*node), None, "sender_removed", cause);
            }
            stays
        });
        self.take_back(office);
        for member in members {
            let sender = self.senders.entry(member);
            sender.or_insert_with(|| Sender::new(member, office.now, office.out));
        }
    }

    /// A change in the place of one that is not done takes it back: whoever waits for that one waits for nothing.
    fn take_back(&mut self, office: &mut Office<'_>) {
        let version = office.config.version;
        let begun = self.change.as_ref().map(|change| Begun {
            version,
            number: change.number,
        });
        let before = std::mem::replace(&mut self.begun, begun);
        let before = before.filter(|before| before.version != version);
        if let (Some(change), Some(before)) = (&mut self.change, before) {
            change.replaces_open = true;
            if let Some(number) = before.number {
                let what = "another order took this change back".to_owned();
                let refusal = Refusal::InvalidRequest(what);
                answer(number, Outcome::Refused(refusal), office.out);
            }
        }
    }

    /// Whether the change is done: in force, and what was there then is committed by it.
    pub(super) fn has_settled(&mut self, office: &mut Office<'_>) -> bool {
        let Some(change) = &self.change else {
            return false;
        };
        if let Some(end) = change.in_force {
            // By the new mode: what is committed already may be so by the old one.
            return self.commit_point(office).is_some_and(|point| point >= end);
        }
        let (version, me) = (office.config.version, office.me);
        // Who was stopped does not have it and may come back. So it does not count as one that has: where
        // no majority has it, everybody does who was not stopped.
        let is_enough = |members: &BTreeSet<NodeId>| {
            let lacking = || {
                members
                    .iter()
                    .filter(|node| self.lacks_config(**node, version, me))
            };
            lacking().count() < members.len().div_ceil(2)
                || lacking().all(|node| self.is_stopped(*node))
        };
        let previous = office.config.previous.as_ref();
        let is_in_force = is_enough(&office.config.members)
            && previous.is_none_or(|previous| is_enough(&previous.members));
        if is_in_force && let Some(change) = &mut self.change {
            let end = office.log.received.lsn;
            change.in_force = Some(end);
            let cause = format!("version {}.{} at {end}", version.epoch.0, version.number);
            office.out.log(None, None, "configuration_in_force", cause);
        }
        let end = office.log.received.lsn;
        is_in_force && self.commit_point(office).is_some_and(|point| point >= end)
    }

    fn lacks_config(&self, node: NodeId, version: Version, me: NodeId) -> bool {
        let sender = self.senders.get(&node);
        let configured = sender.and_then(|sender| sender.configured);
        node != me && configured.is_none_or(|configured| configured < version)
    }

    /// The operator said so, and it does not answer.
    fn is_stopped(&self, node: NodeId) -> bool {
        let session = self.senders.get(&node).and_then(|it| it.session.as_ref());
        let change = self.change.as_ref();
        change.is_some_and(|change| change.fenced.contains(&node))
            && !session.is_some_and(Session::is_alive)
    }

    pub(super) fn stopped(&self) -> BTreeSet<NodeId> {
        let fenced = self.change.iter().flat_map(|change| &change.fenced);
        let stopped = fenced.filter(|node| self.is_stopped(**node));
        stopped.copied().collect()
    }

    /// Who does not have the change that is under way and was not said to be stopped.
    pub(super) fn awaits(&self, config: &Config, me: NodeId) -> BTreeSet<NodeId> {
        let is_open = self.change.as_ref().is_some_and(|it| !it.is_in_force());
        let replaced = config.previous.iter().flat_map(|it| &it.members);
        let members = config.members.iter().chain(replaced).copied();
        members
            .filter(|_| is_open)
            .filter(|node| self.lacks_config(*node, config.version, me) && !self.is_stopped(*node))
            .collect()
    }

    /// To everybody who has a session and an older one.
    pub(super) fn tell_config(&mut self, office: &mut Office<'_>) {
        self.each(office, |sender, desk| {
            let Some(session) = sender.session.as_ref().filter(|session| session.is_alive()) else {
                return;
            };
            if sender
                .configured
                .is_some_and(|configured| configured < desk.config.version)
            {
                let body = Body::Configure {
                    session: session.id,
                    endpoint: session.endpoint,
                    config: desk.config.clone(),
                };
                desk.out.send(sender.replica, body);
            }
        });
    }
}
