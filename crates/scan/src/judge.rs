//! Facts and rules in, verdicts out.
//!
//! Three answers, never two: what could not be looked at is unknown, and no unknown becomes a pass
//! unless a branch of `any` that was really seen is true. Pure: nothing here reads a clock, a file
//! or a host. Each verdict carries the facts it stands on, in one canonical form with its SHA-256.

mod evidence;
mod explain;
mod system;
mod trace;
mod truth;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use evidence::hex;
pub use evidence::{
    ConsultedFact, EVIDENCE_BYTES_MAX, EVIDENCE_SCHEMA, Evidence, EvidenceDocument, EvidenceError,
    digest, validate_evidence,
};

use crate::{
    facts::{Facts, Reason},
    rule::{Platform, Rule, Severity, wording},
};
pub use system::known_platform;
use system::{Membership, System};
use trace::{Evaluation, Exhausted, Trace};
use truth::Truth;

/// The five verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Pass,
    Fail,
    NotApplicable,
    NotAssessed,
    Error,
}

impl Outcome {
    pub const ALL: [Self; 5] = [
        Self::Pass,
        Self::Fail,
        Self::NotApplicable,
        Self::NotAssessed,
        Self::Error,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotApplicable => "not_applicable",
            Self::NotAssessed => "not_assessed",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What one rule says about one host's facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub rule: String,
    pub title: String,
    pub severity: Severity,
    pub verdict: Outcome,
    /// One line for people, at most 400 characters, without control characters.
    pub reason: String,
    /// The first reason why, for `not_assessed` only.
    pub unknown: Option<Reason>,
    pub evidence: Evidence,
}

/// How many of each verdict, and the score.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub pass: u64,
    pub fail: u64,
    pub not_applicable: u64,
    pub not_assessed: u64,
    pub error: u64,
    /// `pass / (pass + fail)` in percent, cut (not rounded) to one decimal, so that 100 means all of
    /// them. `None` when nothing passed or failed.
    pub score: Option<f64>,
}

impl Summary {
    pub fn of(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let mut summary = Self::default();
        for outcome in outcomes {
            *match outcome {
                Outcome::Pass => &mut summary.pass,
                Outcome::Fail => &mut summary.fail,
                Outcome::NotApplicable => &mut summary.not_applicable,
                Outcome::NotAssessed => &mut summary.not_assessed,
                Outcome::Error => &mut summary.error,
            } += 1;
        }
        summary.rescored()
    }

    /// With another's counts added.
    pub fn add(&mut self, other: &Self) {
        self.pass += other.pass;
        self.fail += other.fail;
        self.not_applicable += other.not_applicable;
        self.not_assessed += other.not_assessed;
        self.error += other.error;
        self.score = score(self.pass, self.fail);
    }

    /// With the score that follows from the counts.
    pub(crate) fn rescored(mut self) -> Self {
        self.score = score(self.pass, self.fail);
        self
    }
}

/// See [`Summary::score`].
pub(crate) fn score(pass: u64, fail: u64) -> Option<f64> {
    let permille = (pass * 1000).checked_div(pass + fail)?;
    let permille = u32::try_from(permille).expect("a part of 1000 is at most 1000");
    Some(f64::from(permille) / 10.0)
}

/// Judges `facts` by every rule, in the order of `rules`.
pub fn judge<'r>(rules: impl IntoIterator<Item = &'r Rule>, facts: &Facts) -> Vec<Verdict> {
    let bench = Bench::new(facts);
    rules
        .into_iter()
        .map(|rule| bench.rule_on(rule).into_verdict())
        .collect()
}

/// One host's facts, ready to be judged by any number of rules.
pub struct Bench<'f> {
    facts: &'f Facts,
    system: System<'f>,
}

impl fmt::Debug for Bench<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("host", &self.facts.host)
            .finish_non_exhaustive()
    }
}

impl<'f> Bench<'f> {
    pub fn new(facts: &'f Facts) -> Self {
        Self {
            facts,
            system: System::of(facts),
        }
    }

    pub fn rule_on<'a>(&'a self, rule: &'a Rule) -> Ruling<'a> {
        let mut evaluation = Evaluation::new(self.facts);
        let membership = self.system.membership(rule, &mut evaluation);
        let (outcome, basis) = match membership {
            Membership::Outside(outcome) => (outcome, Basis::System),
            Membership::Named | Membership::Counted(_) => decide(rule, &mut evaluation)
                .unwrap_or_else(|Exhausted| (Outcome::Error, Basis::Exhausted)),
        };
        Ruling {
            rule,
            outcome,
            basis,
            counted: match membership {
                Membership::Counted(platform) => Some(platform),
                Membership::Named | Membership::Outside(_) => None,
            },
            evaluation,
            system: &self.system,
        }
    }
}

/// What one rule says, before anybody asks why: reason and evidence are made when they are asked for,
/// which costs several times the judging.
pub struct Ruling<'a> {
    rule: &'a Rule,
    outcome: Outcome,
    basis: Basis<'a>,
    /// The platform of the rule that the host is a rebuild of.
    counted: Option<&'a Platform>,
    evaluation: Evaluation<'a>,
    system: &'a System<'a>,
}

/// What an outcome rests on.
enum Basis<'a> {
    /// Which system this is.
    System,
    Applies(Trace<'a>),
    Check(Trace<'a>),
    Exhausted,
}

impl fmt::Debug for Ruling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ruling")
            .field("rule", &self.rule.id)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

impl Ruling<'_> {
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub fn into_verdict(self) -> Verdict {
        let (mut reason, unknown) = match &self.basis {
            Basis::System => self.system.outside_words(self.rule, self.outcome),
            Basis::Exhausted => {
                let reason = format!("gave up after {} steps on these facts", trace::STEPS_MAX);
                (reason, None)
            }
            Basis::Applies(trace) | Basis::Check(trace) => match self.outcome {
                Outcome::Pass => (explain::why_true(trace), None),
                Outcome::Fail => (explain::why_false(trace), None),
                Outcome::NotApplicable => (
                    format!("does not apply: {}", explain::why_false(trace)),
                    None,
                ),
                Outcome::NotAssessed => {
                    let (reason, code) = explain::why_unknown(trace);
                    (reason, Some(code))
                }
                Outcome::Error => (explain::why_error(trace), None),
            },
        };
        if let Some(platform) = self.counted {
            let said = self.system.counted_words(platform);
            reason = format!("{reason} ({said})");
        }
        Verdict {
            rule: self.rule.id.clone(),
            title: self.rule.title.clone(),
            severity: self.rule.severity,
            verdict: self.outcome,
            reason: wording::bounded(&reason, explain::REASON_CHARS_MAX),
            unknown,
            evidence: Evidence::of(&self.rule.id, &self.evaluation.consulted),
        }
    }
}

fn decide<'a>(
    rule: &'a Rule,
    evaluation: &mut Evaluation<'a>,
) -> Result<(Outcome, Basis<'a>), Exhausted> {
    if let Some(applies) = &rule.applies {
        let trace = evaluation.trace(applies, None)?;
        let outcome = match trace.truth {
            Truth::True => None,
            Truth::False => Some(Outcome::NotApplicable),
            Truth::Unknown => Some(Outcome::NotAssessed),
            Truth::Error => Some(Outcome::Error),
        };
        if let Some(outcome) = outcome {
            return Ok((outcome, Basis::Applies(trace)));
        }
    }
    let trace = evaluation.trace(&rule.check, None)?;
    let outcome = match trace.truth {
        Truth::True => Outcome::Pass,
        Truth::False => Outcome::Fail,
        Truth::Unknown => Outcome::NotAssessed,
        Truth::Error => Outcome::Error,
    };
    Ok((outcome, Basis::Check(trace)))
}

#[cfg(test)]
mod tests;
