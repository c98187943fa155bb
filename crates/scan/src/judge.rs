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
    rule::{Rule, Severity, wording},
};
pub use system::known_platform;
use system::{Membership, System};
use trace::{Evaluation, Exhausted};
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
        summary.score = score(summary.pass, summary.fail);
        summary
    }
}

fn score(pass: u64, fail: u64) -> Option<f64> {
    let permille = (pass * 1000).checked_div(pass + fail)?;
    let permille = u32::try_from(permille).expect("a part of 1000 is at most 1000");
    Some(f64::from(permille) / 10.0)
}

/// Judges `facts` by every rule, in the order of `rules`.
pub fn judge<'r>(rules: impl IntoIterator<Item = &'r Rule>, facts: &Facts) -> Vec<Verdict> {
    let system = System::of(facts);
    rules
        .into_iter()
        .map(|rule| judge_rule(rule, facts, &system))
        .collect()
}

/// The outcome, why, and for `not_assessed` the code.
type Decision = (Outcome, String, Option<Reason>);

fn judge_rule(rule: &Rule, facts: &Facts, system: &System<'_>) -> Verdict {
    let mut evaluation = Evaluation::new(facts);
    let (verdict, reason, unknown) = match system.membership(rule, &mut evaluation) {
        Membership::Outside(decision) => decision,
        Membership::Named => assess(rule, &mut evaluation),
        Membership::Counted(said) => {
            let (verdict, reason, unknown) = assess(rule, &mut evaluation);
            (verdict, format!("{reason} ({said})"), unknown)
        }
    };
    Verdict {
        rule: rule.id.clone(),
        title: rule.title.clone(),
        severity: rule.severity,
        verdict,
        reason: wording::bounded(&reason, explain::REASON_CHARS_MAX),
        unknown,
        evidence: Evidence::of(&rule.id, &evaluation.consulted),
    }
}

fn assess<'a>(rule: &'a Rule, evaluation: &mut Evaluation<'a>) -> Decision {
    decide(rule, evaluation).unwrap_or_else(|Exhausted| {
        let reason = format!("gave up after {} steps on these facts", trace::STEPS_MAX);
        (Outcome::Error, reason, None)
    })
}

fn decide<'a>(rule: &'a Rule, evaluation: &mut Evaluation<'a>) -> Result<Decision, Exhausted> {
    if let Some(applies) = &rule.applies {
        let trace = evaluation.trace(applies, None)?;
        match trace.truth {
            Truth::True => {}
            Truth::False => {
                let reason = format!("does not apply: {}", explain::why_false(&trace));
                return Ok((Outcome::NotApplicable, reason, None));
            }
            Truth::Unknown | Truth::Error => return Ok(undecided(&trace)),
        }
    }
    let trace = evaluation.trace(&rule.check, None)?;
    Ok(match trace.truth {
        Truth::True => (Outcome::Pass, explain::why_true(&trace), None),
        Truth::False => (Outcome::Fail, explain::why_false(&trace), None),
        Truth::Unknown | Truth::Error => undecided(&trace),
    })
}

fn undecided(trace: &trace::Trace<'_>) -> Decision {
    if trace.truth == Truth::Error {
        return (Outcome::Error, explain::why_error(trace), None);
    }
    let (reason, code) = explain::why_unknown(trace);
    (Outcome::NotAssessed, reason, Some(code))
}

#[cfg(test)]
mod tests;
