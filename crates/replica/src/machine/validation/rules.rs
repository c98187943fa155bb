//! The rules, one by one. Each says what it looked at, and the refusal when it does not hold.

use std::collections::{BTreeMap, BTreeSet};

use wal::Epoch;

use super::{Evidence, Loss, Proof, Rule, show};
use crate::machine::{Config, Mode, NodeId, Refusal, Sealed};

type Asked = (Option<Refusal>, String);

/// Members, and the copies besides the primary's that an acknowledgement of theirs needs.
pub(super) struct Quorum<'a> {
    members: &'a BTreeSet<NodeId>,
    copies: usize,
}

/// The evidence, sorted.
pub(super) struct Seen<'a> {
    own: &'a Sealed,
    config: &'a Config,
    /// Promises that count: an amnesiac's is none.
    promised: BTreeMap<NodeId, &'a Sealed>,
    /// Of the configuration, and of what it replaces: each has to be satisfied.
    quorums: Vec<Quorum<'a>>,
}

impl<'a> Quorum<'a> {
    fn of(members: &'a BTreeSet<NodeId>, mode: Mode) -> Self {
        let copies = mode.copies(members.len());
        Self { members, copies }
    }

    /// The other one must acknowledge, so a promise to itself fences it.
    fn is_pair(&self) -> bool {
        self.members.len() == 2 && self.copies == 1
    }

    fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// So many promises meet every set of replicas that is enough for an acknowledgement.
    fn fence(&self) -> usize {
        self.members.len().saturating_sub(self.copies).max(1)
    }
}

impl<'a> Seen<'a> {
    /// `None` without an answer of the candidate.
    pub(super) fn of(evidence: &'a Evidence) -> Option<Self> {
        let own = evidence.answers.get(&evidence.candidate)?;
        let configs = evidence.answers.values().map(|answer| &answer.config);
        let config = configs.max_by_key(|config| config.version)?;
        let mut quorums = vec![Quorum::of(&config.members, config.mode)];
        if let Some(previous) = &config.previous {
            quorums.push(Quorum::of(&previous.members, previous.mode));
        }
        let promised = evidence
            .answers
            .iter()
            .filter(|(_, answer)| !answer.is_amnesiac)
            .map(|(node, answer)| (*node, answer))
            .collect();
        Some(Self {
            own,
            config,
            promised,
            quorums,
        })
    }

    pub(super) fn proof(&self, evidence: &Evidence) -> Proof {
        let answers = evidence.answers.values();
        let committed = answers.clone().map(|answer| answer.committed).max();
        let highest = answers.map(|answer| answer.flushed).max();
        Proof {
            epoch: evidence.epoch,
            previous_end: self.own.flushed,
            promised: self.promised.keys().copied().collect(),
            config: self.config.clone(),
            loss: evidence.force.as_ref().map(|_| Loss {
                own: self.own.flushed,
                committed: committed.unwrap_or(self.own.committed),
                highest: highest.unwrap_or(self.own.flushed),
            }),
        }
    }

    fn promised_in(&self, quorum: &Quorum<'_>) -> usize {
        let members = quorum.members.iter();
        members
            .filter(|member| self.promised.contains_key(member))
            .count()
    }
}

pub(super) fn ask(rule: Rule, evidence: &Evidence, seen: Option<&Seen<'_>>) -> Asked {
    if rule == Rule::Request {
        return request(evidence);
    }
    let Some(seen) = seen else {
        let missing = format!("no answer of {} itself", show::node(evidence.candidate));
        return (Some(Refusal::EvidenceMissing(missing.clone())), missing);
    };
    match rule {
        Rule::Request | Rule::Answer => {
            (None, format!("own end {}", show::answer(&seen.own.flushed)))
        }
        Rule::Sound => sound(seen),
        Rule::Enabled => enabled(evidence, seen),
        Rule::Member => member(evidence, seen),
        Rule::Number => number(evidence, seen),
        Rule::OneAtATime => one_at_a_time(seen),
        Rule::Fence => fence(evidence, seen),
        Rule::NothingLost => nothing_lost(seen),
        Rule::NothingUnseen => nothing_unseen(seen),
    }
}

fn request(evidence: &Evidence) -> Asked {
    match &evidence.force {
        None => (None, "not forced".to_owned()),
        Some(words) if words.trim().is_empty() => {
            let missing = "a forced promotion needs a statement how the primary was stopped";
            let refusal = Refusal::InvalidRequest(missing.to_owned());
            (Some(refusal), "forced, without a statement".to_owned())
        }
        Some(words) => (None, format!("forced: {words}")),
    }
}

/// Not even by force: what it has is not known to be a prefix of anything.
fn sound(seen: &Seen<'_>) -> Asked {
    let what = "its disk has less than it promised, or a rebuild was not finished";
    if seen.own.is_amnesiac {
        return (Some(Refusal::InvalidState(what)), what.to_owned());
    }
    (None, "its disk has what it promised".to_owned())
}

fn enabled(evidence: &Evidence, seen: &Seen<'_>) -> Asked {
    let what = show::config(seen.config);
    if seen.config.members.is_empty() {
        return (Some(Refusal::ReplicationDisabled), what);
    }
    let mut others = evidence.answers.values().map(|answer| &answer.config);
    let twin = others
        .any(|config| config.version == seen.config.version && config != seen.config)
        .then(|| Refusal::AuthorityAmbiguous(format!("two configurations are {what}")));
    (twin, what)
}

/// Of what is replaced, too: its acknowledgements are counted among its own members, the primary one
/// of them. Not by force: with that it ends, and its members may all be lost.
fn member(evidence: &Evidence, seen: &Seen<'_>) -> Asked {
    let is_member = |quorum: &Quorum<'_>| quorum.members.contains(&evidence.candidate);
    let is_one = match evidence.force {
        Some(_) => seen.config.members.contains(&evidence.candidate),
        None => seen.quorums.iter().all(is_member),
    };
    let refusal = (!is_one).then_some(Refusal::NotAReplica);
    (refusal, show::members(seen.config))
}

fn number(evidence: &Evidence, seen: &Seen<'_>) -> Asked {
    let ends = seen.promised.values().map(|answer| answer.flushed.epoch);
    let highest = ends.fold(evidence.heard, Epoch::max);
    let what = format!("asks for {}, {} was heard of", evidence.epoch.0, highest.0);
    let refusal = (evidence.epoch <= highest).then_some(Refusal::EpochStale { highest });
    (refusal, what)
}

/// Two majorities have a node in common, and it promises one number once.
fn one_at_a_time(seen: &Seen<'_>) -> Asked {
    let mut refusal = None;
    let mut shown = Vec::new();
    for quorum in &seen.quorums {
        let promised = seen.promised_in(quorum);
        let wanted = if quorum.is_pair() {
            1
        } else {
            quorum.majority()
        };
        let what = format!(
            "promised by {promised} of {}, {wanted} needed",
            quorum.members.len()
        );
        if promised < wanted {
            let silent = quorum
                .members
                .iter()
                .filter(|node| !seen.promised.contains_key(node));
            let missing = format!("{what}; no promise of {}", show::nodes(silent));
            refusal.get_or_insert(Refusal::EvidenceMissing(missing));
        }
        shown.push(what);
    }
    (refusal, shown.join("; replaced: "))
}

fn fence(evidence: &Evidence, seen: &Seen<'_>) -> Asked {
    // Each holder since the authority that a node knows of, not the last one only: the last may never
    // have been approved, and then the one before it writes on. Also those that an amnesiac remembers.
    let holders: BTreeSet<NodeId> = evidence
        .answers
        .values()
        .flat_map(|answer| answer.holders.iter().copied())
        .collect();
    let open: Vec<&NodeId> = holders
        .iter()
        .filter(|holder| !seen.promised.contains_key(holder))
        .collect();
    let mut shown = vec![format!("may hold an epoch: {}", show::nodes(&holders))];
    let mut refusal = None;
    for quorum in &seen.quorums {
        let promised = seen.promised_in(quorum);
        shown.push(format!(
            "promised by {promised} of {}, {} leave too few to acknowledge",
            quorum.members.len(),
            quorum.fence()
        ));
        if promised < quorum.fence() && (holders.is_empty() || !open.is_empty()) {
            refusal = Some(Refusal::PrimaryStillActive);
        }
    }
    if !open.is_empty() {
        let open = show::nodes(open.iter().copied());
        shown.push(format!("did not promise: {open}"));
    }
    (refusal, shown.join("; "))
}

fn nothing_lost(seen: &Seen<'_>) -> Asked {
    let own = seen.own;
    let ends = seen.promised.iter();
    let shown = ends.map(|(node, answer)| {
        let end = show::answer(&answer.flushed);
        format!("{} ends at {end}", show::node(*node))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let mut refusal = None;
    for (node, answer) in &seen.promised {
        let is_twin =
            answer.flushed.epoch == own.flushed.epoch && answer.flushed_id != own.flushed_id;
        if is_twin {
            // Of a pair: an acknowledgement under either would have been the other's promise.
            if !seen.quorums.iter().all(Quorum::is_pair) {
                let node = show::node(*node);
                let what = format!("{node} ends in another epoch {}", own.flushed.epoch.0);
                refusal = Some(Refusal::AuthorityAmbiguous(what));
            }
        } else if answer.flushed > own.flushed && refusal.is_none() {
            refusal = Some(Refusal::ReplicaBehind {
                own: own.flushed,
                highest: answer.flushed,
            });
        }
    }
    (refusal, shown)
}

fn nothing_unseen(seen: &Seen<'_>) -> Asked {
    let told = seen.promised.values().map(|answer| answer.committed);
    let committed = told.max().unwrap_or(seen.own.committed);
    let own = seen.own.flushed.lsn;
    let refusal = (committed > own).then_some(Refusal::VisibilityViolation { committed, own });
    (refusal, format!("committed up to {committed}, has {own}"))
}
