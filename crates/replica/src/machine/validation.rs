//! Whether a node may be made primary: a pure function of what nodes answered.
//!
//! What is not known denies. Every rule is looked at, also behind one that failed, so that the same
//! findings decide and explain. Why the rules are enough is in docs/protocol/promotion.md; that
//! they are, for small groups, is searched exhaustively in the tests beside this file.

mod rules;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use wal::{Epoch, Lsn};

use super::{Config, NodeId, Position, Refusal, Sealed};

/// What a decision rests on; nothing else is looked at.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub candidate: NodeId,
    /// The epoch that it asks for.
    pub epoch: Epoch,
    /// Who promised it, and what each has; the candidate is one of them. Ahead of that, for a forecast:
    /// who answered an inquiry.
    pub answers: BTreeMap<NodeId, Sealed>,
    /// The highest epoch that anybody said to have promised to others.
    pub heard: Epoch,
    /// A fencing statement in the operator's words: what may be lost is accepted.
    pub force: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The order can be carried out as it is.
    Request,
    /// The candidate's own answer is among the evidence.
    Answer,
    /// The candidate's disk has what it promised.
    Sound,
    /// The journal is replicated, by one configuration.
    Enabled,
    /// The candidate is a member.
    Member,
    /// Nobody was heard to have promised as high an epoch.
    Number,
    /// No other node can be made primary under this number.
    OneAtATime,
    /// No holder of a lower epoch has a write acknowledged any more.
    Fence,
    /// The candidate has every record that was acknowledged.
    NothingLost,
    /// The candidate has every record that was told to be committed.
    NothingUnseen,
}

impl Rule {
    /// In the order in which they are asked: the first that fails is the reason.
    pub const ALL: [Self; 10] = [
        Self::Request,
        Self::Answer,
        Self::Sound,
        Self::Enabled,
        Self::Member,
        Self::Number,
        Self::OneAtATime,
        Self::Fence,
        Self::NothingLost,
        Self::NothingUnseen,
    ];

    /// Whether a fencing statement stands in for it.
    pub fn is_waived_by_force(self) -> bool {
        self >= Self::OneAtATime
    }
}

/// What a rule gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gave {
    Holds,
    Fails(Refusal),
    /// It failed, and the operator accepted that.
    Waived(Refusal),
}

/// A rule, the evidence that it used, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    pub gave: Gave,
    pub evidence: String,
}

/// What an approval rests on, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pub epoch: Epoch,
    /// The candidate's end, behind which the epoch begins.
    pub previous_end: Position,
    /// Who promised, amnesiacs left out.
    pub promised: BTreeSet<NodeId>,
    /// The highest configuration among the answers.
    pub config: Config,
    /// What a forced promotion may lose; `None` for one that is not forced.
    pub loss: Option<Loss>,
}

/// The bound of what a forced promotion may lose, as far as anybody knows: what was told to be
/// committed, or is there, and the candidate does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub own: Position,
    pub committed: Lsn,
    pub highest: Position,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub refusal: Refusal,
    pub rule: Rule,
    /// Of the contract.
    pub clause: &'static str,
    pub evidence: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Approved(Proof),
    Denied(Denial),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// One for each of [`Rule::ALL`], in that order.
    pub findings: Vec<Finding>,
    pub verdict: Verdict,
}

/// The clause of the contract that a refusal of a promotion goes back to.
pub fn clause(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::ReplicaBehind { .. } | Refusal::VisibilityViolation { .. } => "AUT-8",
        Refusal::PrimaryStillActive | Refusal::AuthorityAmbiguous(_) => "AUT-1",
        Refusal::EpochStale { .. } => "AUT-3",
        Refusal::InvalidRequest(_) => "AUT-9",
        _ => "AUT-6",
    }
}

/// Judges by the evidence alone: the same evidence gives the same judgement.
pub fn judge(evidence: &Evidence) -> Judgement {
    let is_forced = evidence.force.is_some();
    let seen = rules::Seen::of(evidence);
    let findings: Vec<Finding> = Rule::ALL
        .into_iter()
        .map(|rule| {
            let (refusal, evidence) = rules::ask(rule, evidence, seen.as_ref());
            let gave = match refusal {
                None => Gave::Holds,
                Some(refusal) if is_forced && rule.is_waived_by_force() => Gave::Waived(refusal),
                Some(refusal) => Gave::Fails(refusal),
            };
            Finding {
                rule,
                gave,
                evidence,
            }
        })
        .collect();
    let denial = findings.iter().find_map(|finding| match &finding.gave {
        Gave::Fails(refusal) => Some(Denial {
            refusal: refusal.clone(),
            rule: finding.rule,
            clause: clause(refusal),
            evidence: finding.evidence.clone(),
        }),
        Gave::Holds | Gave::Waived(_) => None,
    });
    let verdict = match (denial, seen) {
        (None, Some(seen)) => Verdict::Approved(seen.proof(evidence)),
        (Some(denial), _) => Verdict::Denied(denial),
        (None, None) => world::broken(
            format_args!("a promotion without an answer of the candidate broke no rule"),
            file!(),
            line!(),
        ),
    };
    Judgement { findings, verdict }
}
