//! Whether a host got better or worse from one scan to the next, and whether it answers.
//!
//! The score is `pass / (pass + fail)`, as everywhere. It is compared over what is the same in both
//! scans: a rule that came, left, or was changed, and one that the site gave other values, is on
//! neither side, since what it says is not the host's doing ([`Cause`]). A rule that could not be
//! assessed is on neither side either; what was last seen of it is kept in [`Unseen`], so that a host
//! that was out of sight for a while is compared with what it was before. Pure: nothing here reads a
//! clock or a row.

use std::collections::BTreeMap;

use crate::{
    failure::Reason,
    judge::{Outcome, Summary, score},
    ledger::{Cause, ChangeKind, Turn},
};

/// From this many percentage points down on, both included, a host got much worse (LED-12).
pub const MAJOR_POINTS: u64 = 10;
/// From this many on it got worse.
pub const MINOR_POINTS: u64 = 5;
/// From this many up on it got better.
pub const IMPROVEMENT_POINTS: u64 = 5;

/// Attempts in a row without an answer before a host counts as unreachable: one is a restart of its
/// SSH server or a lost packet. Two is what scanners of this kind use; each is minutes to hours after
/// the one before, so that a third would say tomorrow what is known today. Reachable again it is after
/// one scan: that is more than a port that answers. That a host which comes and goes does not tell each
/// time is the matter of alerts, where a repeated one is quiet for longer and longer.
pub const UNREACHABLE_AFTER: u32 = 2;
/// What was last seen of rules that could not be assessed since, by rule.
pub type Unseen = BTreeMap<String, Outcome>;

/// How many rules pass and fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub pass: u64,
    pub fail: u64,
}

impl Counts {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Pass => self.pass += 1,
            Outcome::Fail => self.fail += 1,
            Outcome::NotApplicable | Outcome::NotAssessed | Outcome::Error => {}
        }
    }

    fn judged(self) -> u64 {
        self.pass + self.fail
    }
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    Major,
    Minor,
    Stable,
    Improvement,
}

/// One scan beside the one before, over what is the same in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    pub before: Counts,
    pub after: Counts,
    /// Rules that fail since this scan, by the host's own doing.
    pub failing: Vec<String>,
    /// Rules whose verdict changed for another reason.
    pub not_the_host: u64,
    /// Rules that could be assessed before and cannot be in this scan.
    pub out_of_sight: u64,
}

impl Drift {
    /// Exact: whole numbers on both sides, nothing is rounded before it is compared.
    pub fn grade(&self) -> Grade {
        let (before, after) = (self.before, self.after);
        if before.judged() == 0 || after.judged() == 0 {
            return Grade::Stable;
        }
        let wide = u128::from;
        let was = wide(before.pass) * wide(after.judged());
        let is = wide(after.pass) * wide(before.judged());
        let whole = wide(before.judged()) * wide(after.judged());
        let at_least = |points: u64, more: u128, less: u128| {
            more > less && (more - less) * 100 >= wide(points) * whole
        };
        if at_least(MAJOR_POINTS, was, is) {
            Grade::Major
        } else if at_least(MINOR_POINTS, was, is) {
            Grade::Minor
        } else if at_least(IMPROVEMENT_POINTS, is, was) {
            Grade::Improvement
        } else {
            Grade::Stable
        }
    }

    /// Percent before and after, cut to one decimal as every score.
    pub fn scores(&self) -> (Option<f64>, Option<f64>) {
        let of = |counts: Counts| score(counts.pass, counts.fail);
        (of(self.before), of(self.after))
    }
}

/// Compares a scan that is not the host's first with the one before. `turns` are all of its turns,
/// `summary` counts all of its verdicts; `unseen` is brought up to this scan.
pub fn measure(summary: &Summary, turns: &[Turn], gone: &[String], unseen: &mut Unseen) -> Drift {
    let mut drift = Drift::default();
    // What did not turn counts on both sides. The summary has it together with what did.
    let mut same = Counts {
        pass: summary.pass,
        fail: summary.fail,
    };
    for rule in gone {
        unseen.remove(rule);
    }
    for turn in turns
        .iter()
        .filter(|turn| turn.kind != ChangeKind::SeverityChanged)
    {
        match turn.to {
            Outcome::Pass => same.pass = same.pass.saturating_sub(1),
            Outcome::Fail => same.fail = same.fail.saturating_sub(1),
            _ => {}
        }
        let remembered = unseen.remove(&turn.rule);
        if !is_hosts(turn) {
            drift.not_the_host += 1;
            continue;
        }
        let from = remembered.or(turn.from);
        let Some(from) = from.filter(|from| is_seen(*from)) else {
            continue;
        };
        if !is_seen(turn.to) {
            drift.out_of_sight += u64::from(remembered.is_none());
            unseen.insert(turn.rule.clone(), from);
            continue;
        }
        drift.before.count(from);
        drift.after.count(turn.to);
        if turn.to == Outcome::Fail && from != Outcome::Fail {
            drift.failing.push(turn.rule.clone());
        }
    }
    for side in [&mut drift.before, &mut drift.after] {
        side.pass += same.pass;
        side.fail += same.fail;
    }
    drift
}

/// Rows of the time before causes were told have none; only the host was taken to change then.
fn is_hosts(turn: &Turn) -> bool {
    turn.kind == ChangeKind::StateChanged && matches!(turn.because[..], [] | [Cause::Host])
}

fn is_seen(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Pass | Outcome::Fail | Outcome::NotApplicable
    )
}

/// Whether an attempt that ended so got no answer. One whose key, credentials or facts are refused
/// answered.
pub fn is_silence(reason: Reason) -> bool {
    matches!(reason, Reason::HostUnreachable | Reason::Timeout)
}

#[cfg(test)]
mod tests;
