//! What a replica needs, decided once from what the handshake said, with the numbers it rests on.

use std::fmt;

use wal::Lsn;

use super::{Attached, BaseFound, History, Position, STARTS};

/// The primary's side of a handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) history: &'a History,
    pub(super) end: Position,
    pub(super) first_retained: Lsn,
}

/// What is known about a replica beside what it says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes<'a> {
    /// Why a log alone will not do: a catch-up that was given up, positions that moved back.
    pub(super) rebuild: Option<&'a str>,
    /// A set of changes was tried and did not do.
    pub(super) is_full: bool,
    /// An operator said that what the replica has may go.
    pub(super) is_ordered: bool,
}

/// The outcome of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    ZeroGap {
        at: Position,
    },
    /// Everything after `from`, up to `target` and on.
    CatchUp {
        from: Position,
        target: Position,
        first_retained: Lsn,
    },
    /// Cut what the replica has after `keep`, then everything after that.
    Truncate {
        keep: Position,
        end: Position,
        target: Position,
        first_retained: Lsn,
    },
    /// A base, or what changed since `since`, and everything after that.
    Rebuild {
        since: Option<Lsn>,
        reason: String,
        target: Position,
    },
    /// An operator has to say that what the replica has may go.
    Ordered {
        end: Position,
    },
    /// The replica knows records as committed that were written by this primary, and are not here.
    OwnLoss {
        common: Position,
        committed: Lsn,
    },
}

/// What a rebuild starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Delta { since: Lsn, base: Position },
    SnapshotTail { base: Position, first_retained: Lsn },
    FullBase { base: Position, reason: String },
}

/// Bound when it is made; carrying it out decides nothing again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub way: Way,
    /// Of a rebuild, once the base is held.
    pub source: Option<Source>,
}

impl Source {
    /// The name of the line that tells of it.
    pub(super) fn line(&self) -> &'static str {
        match self {
            Self::Delta { .. } => "source_delta",
            Self::SnapshotTail { .. } => "source_snapshot_tail",
            Self::FullBase { .. } => "source_full_base",
        }
    }
}

impl Way {
    pub(super) fn decide(own: Facts<'_>, replica: &Attached, wishes: Wishes<'_>) -> Self {
        let end = replica.flushed;
        let target = own.end;
        let first_retained = own.first_retained;
        let common = own.history.common(target, &replica.history, end);
        let rebuild = |since: Option<Lsn>, reason: String| Self::Rebuild {
            since: since.filter(|since| !wishes.is_full && *since > Lsn::ZERO),
            reason,
            target,
        };
        let is_retained = common.lsn.next() >= first_retained;
        // What it derived is sound up to where the logs part, and no further than it goes.
        let since = Some(replica.derived.min(common.lsn));

        if is_own_loss(own, replica, common) && !wishes.is_ordered {
            let committed = replica.committed;
            return Self::OwnLoss { common, committed };
        }
        if common.lsn == Lsn::ZERO && replica.committed > Lsn::ZERO && !wishes.is_ordered {
            return Self::Ordered { end };
        }
        if replica.is_amnesiac && !(end.lsn == Lsn::ZERO && is_retained) {
            return rebuild(None, "its disk has less than it promised".to_owned());
        }
        if let Some(reason) = wishes.rebuild {
            return rebuild(since, reason.to_owned());
        }
        if replica.derived > common.lsn {
            let derived = replica.derived;
            return rebuild(
                since,
                format!("it derived up to {derived}, the logs part after {common}"),
            );
        }
        // A log that a base began is cut no further than that: what lies below is in the base, whatever the
        // replica knows yet of how far its own state reaches.
        if common.lsn < end.lsn && common.lsn.next() < replica.first_retained {
            let first = replica.first_retained;
            return rebuild(
                since,
                format!("its log begins with {first}, the logs part after {common}"),
            );
        }
        if common != target && !is_retained {
            let first = common.lsn.next();
            let reason =
                format!("it needs records from {first} on, {first_retained} is the first retained");
            return rebuild(since, reason);
        }
        if common.lsn < end.lsn {
            return Self::Truncate {
                keep: common,
                end,
                target,
                first_retained,
            };
        }
        if common == target {
            return Self::ZeroGap { at: common };
        }
        Self::CatchUp {
            from: end,
            target,
            first_retained,
        }
    }

    /// For the recovery log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ZeroGap { .. } => "plan_zero_gap",
            Self::CatchUp { .. } => "plan_catch_up",
            Self::Truncate { .. } => "plan_truncate",
            Self::Rebuild { .. } => "plan_rebuild",
            Self::Ordered { .. } | Self::OwnLoss { .. } => "plan_refused",
        }
    }
}

/// A holder that lost a part of its disk and does not know it would cut what others have of it. Records
/// under its own promotion, or a start of it, that are committed, were on its disk. By its id: a number
/// may be minted twice.
fn is_own_loss(own: Facts<'_>, replica: &Attached, common: Position) -> bool {
    let next = replica.history.at(common.lsn.next()).epoch;
    let promotion = |history: &History| {
        let starts = history.starts.iter();
        let mut own = starts.filter(|start| start.epoch.0 / STARTS == next.0 / STARTS);
        own.find(|start| start.epoch.0 % STARTS == 0).copied()
    };
    let own_promotion = promotion(own.history);
    let is_own = next.0 / STARTS == own.end.epoch.0 / STARTS
        && (own_promotion.is_none() || own_promotion == promotion(&replica.history));
    replica.committed.min(replica.flushed.lsn) > common.lsn && is_own
}

impl Source {
    /// What a base that was found is to this plan. An error is a base that does not fit it.
    pub(super) fn of(
        found: &BaseFound,
        since: Option<Lsn>,
        own: Facts<'_>,
        committed: Lsn,
    ) -> Result<Self, String> {
        let base = found.base;
        let first_retained = own.first_retained;
        if base.lsn > committed || !own.history.has(own.end, base) {
            return Err(format!(
                "base {base} is beyond what is committed, {committed}"
            ));
        }
        if base.lsn.next() < first_retained {
            return Err(format!(
                "base {base} has no tail: {first_retained} is the first retained"
            ));
        }
        match (found.since, &found.made) {
            (Some(found), _) if since.is_some_and(|since| found <= since) => {
                Ok(Self::Delta { since: found, base })
            }
            (Some(found), _) => Err(format!("changes since {found} are not what is asked for")),
            (None, Some(reason)) => Ok(Self::FullBase {
                base,
                reason: reason.clone(),
            }),
            (None, None) => Ok(Self::SnapshotTail {
                base,
                first_retained,
            }),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroGap { at } => write!(f, "both end at {at}"),
            Self::CatchUp {
                from,
                target,
                first_retained,
            } => write!(
                f,
                "from {from} to {target}, {first_retained} is the first retained"
            ),
            Self::Truncate {
                keep,
                end,
                target,
                first_retained,
            } => write!(
                f,
                "ends at {end}, in common up to {keep}; then to {target}, {first_retained} is the first retained"
            ),
            Self::Rebuild {
                since: Some(since),
                reason,
                target,
            } => {
                write!(f, "{reason}; what changed since {since}, then to {target}")
            }
            Self::Rebuild {
                since: None,
                reason,
                target,
            } => {
                write!(f, "{reason}; a base, then to {target}")
            }
            Self::OwnLoss { common, committed } => write!(
                f,
                "it knows of {committed} as committed under this primary, which has {common} of it"
            ),
            Self::Ordered { end } => write!(
                f,
                "it ends at {end} and knows of committed records, and nothing is in common"
            ),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delta { since, base } => write!(f, "what changed after {since} up to {base}"),
            Self::SnapshotTail {
                base,
                first_retained,
            } => write!(
                f,
                "the checkpoint at {base}, {first_retained} is the first retained"
            ),
            Self::FullBase { base, reason } => write!(f, "a base made at {base}: {reason}"),
        }
    }
}
