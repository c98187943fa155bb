//! Evaluates a predicate and keeps how it came to its answer.
//!
//! Nothing is cut short at the top: every part of `all` and `any` is looked at, so that a verdict
//! names everything that is wrong and its evidence has the same facts after each scan. Facts are
//! borrowed, never copied. The number of steps is bounded.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{evidence::Shown, truth::Truth};
use crate::{
    facts::{Facts, Unknown},
    rule::{
        Answer, Context, Found, Leaf, Operator, Predicate, Quantified, Quantifier, Scope, test,
        unix_seconds,
    },
};

/// Steps of one rule: a predicate on an element, or an element compared with an operand. The most
/// hungry rule of our pack needs a few thousand; ten million take about a second.
pub(super) const STEPS_MAX: u64 = 10_000_000;

/// Bytes of text that count as one step for an operator that reads all of it.
const TEXT_BYTES_PER_STEP: usize = 256;

/// Elements whose own trace is kept, for the reason.
pub(super) const EXPLAINED_MAX: usize = 3;
/// Elements that are kept for the evidence.
pub(super) const ELEMENTS_MAX: usize = 100;
/// Elements kept of a collection in which none satisfied `some`.
const REJECTED_MAX: usize = 20;

/// The step budget is spent.
#[derive(Debug)]
pub(super) struct Exhausted;

pub(super) struct Trace<'a> {
    pub(super) truth: Truth,
    pub(super) detail: Detail<'a>,
}

pub(super) enum Detail<'a> {
    /// `found` is what the facts hold, before the default.
    Leaf {
        leaf: &'a Leaf,
        found: Found<'a>,
        answer: Answer,
    },
    All(Vec<Trace<'a>>),
    Any(Vec<Trace<'a>>),
    Not(Box<Trace<'a>>),
    Quantified(Box<Tally<'a>>),
}

/// How the elements of a collection fared.
pub(super) struct Tally<'a> {
    pub(super) quantified: &'a Quantified,
    /// The collection, when it is not there to be counted.
    pub(super) missing: Option<Found<'a>>,
    pub(super) total: usize,
    /// Elements that the condition did not rule out.
    pub(super) considered: usize,
    /// Against `every` and `none`, for `some`.
    pub(super) decisive: Elements<'a>,
    pub(super) undecided: Elements<'a>,
    /// What was there instead, when nothing satisfied `some`.
    pub(super) rejected: Elements<'a>,
}

/// The first of some elements, and how many there were.
#[derive(Default)]
pub(super) struct Elements<'a> {
    pub(super) count: usize,
    pub(super) first: Vec<Element<'a>>,
}

pub(super) struct Element<'a> {
    pub(super) key: Option<&'a str>,
    pub(super) item: &'a Value,
    pub(super) trace: Option<Trace<'a>>,
}

impl<'a> Elements<'a> {
    fn add(&mut self, key: Option<&'a str>, item: &'a Value, trace: Option<Trace<'a>>, max: usize) {
        self.count += 1;
        if self.first.len() < max {
            let trace = trace.filter(|_| self.first.len() < EXPLAINED_MAX);
            self.first.push(Element { key, item, trace });
        }
    }
}

/// One rule on one host's facts.
pub(super) struct Evaluation<'a> {
    facts: &'a Map<String, Value>,
    collected_at: f64,
    steps_left: u64,
    /// The facts looked at, in order, each once.
    pub(super) consulted: Vec<(&'a str, Shown<'a>)>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        Self {
            facts: &facts.facts,
            collected_at: unix_seconds(facts.collected_at),
            steps_left: STEPS_MAX,
            consulted: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_steps(facts: &'a Facts, steps: u64) -> Self {
        Self {
            steps_left: steps,
            ..Self::new(facts)
        }
    }

    pub(super) fn record(&mut self, fact: &'a str, shown: Shown<'a>) {
        match self.consulted.iter_mut().find(|(known, _)| *known == fact) {
            Some((_, known)) => known.merge(shown),
            None => self.consulted.push((fact, shown)),
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Exhausted> {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        self.steps_left = self.steps_left.checked_sub(steps).ok_or(Exhausted)?;
        Ok(())
    }

    pub(super) fn trace(
        &mut self,
        predicate: &'a Predicate,
        scope: Option<&Scope<'a>>,
    ) -> Result<Trace<'a>, Exhausted> {
        self.spend(1)?;
        match predicate {
            Predicate::Leaf(leaf) => self.leaf(leaf, scope),
            Predicate::All(parts) => {
                let parts = self.parts(parts, scope)?;
                let truth = parts
                    .iter()
                    .fold(Truth::True, |truth, part| truth.and(part.truth));
                Ok(Trace {
                    truth,
                    detail: Detail::All(parts),
                })
            }
            Predicate::Any(parts) => {
                let parts = self.parts(parts, scope)?;
                let truth = parts
                    .iter()
                    .fold(Truth::False, |truth, part| truth.or(part.truth));
                Ok(Trace {
                    truth,
                    detail: Detail::Any(parts),
                })
            }
            Predicate::Not(part) => {
                let part = self.trace(part, scope)?;
                Ok(Trace {
                    truth: part.truth.negated(),
                    detail: Detail::Not(Box::new(part)),
                })
            }
            Predicate::Quantified(quantified) => self.quantified(quantified, scope),
        }
    }

    fn parts(
        &mut self,
        parts: &'a [Predicate],
        scope: Option<&Scope<'a>>,
    ) -> Result<Vec<Trace<'a>>, Exhausted> {
        parts.iter().map(|part| self.trace(part, scope)).collect()
    }

    fn leaf(&mut self, leaf: &'a Leaf, scope: Option<&Scope<'a>>) -> Result<Trace<'a>, Exhausted> {
        let found = leaf.fact.find(self.facts, scope);
        let context = Context {
            collected_at: self.collected_at,
            ignore_case: leaf.ignore_case,
        };
        let answer = match (&found, &leaf.default) {
            (Found::Present(value), _) => {
                self.spend(cost(&leaf.operator, value))?;
                test(&leaf.operator, value, context)
            }
            // A default says what absence means, so that `exists` still sees the absence.
            (Found::Absent, Some(default)) if !matches!(leaf.operator, Operator::Exists(_)) => {
                test(&leaf.operator, default, context)
            }
            (Found::Absent, _) => leaf.operator.holds_for_absent().into(),
            (Found::Unknown(unknown), _) => Answer::Unknown(unknown.clone()),
            (Found::Malformed(what), _) => Answer::Malformed(what.clone()),
        };
        if leaf.fact.collector().is_some() {
            self.record(leaf.fact.text(), shown(&leaf.operator, &found, &answer));
        }
        let truth = match &answer {
            Answer::Yes => Truth::True,
            Answer::No => Truth::False,
            Answer::Unknown(_) => Truth::Unknown,
            Answer::Malformed(_) => Truth::Error,
        };
        Ok(Trace {
            truth,
            detail: Detail::Leaf {
                leaf,
                found,
                answer,
            },
        })
    }

    fn quantified(
        &mut self,
        quantified: &'a Quantified,
        scope: Option<&Scope<'a>>,
    ) -> Result<Trace<'a>, Exhausted> {
        let mut tally = Tally {
            quantified,
            missing: None,
            total: 0,
            considered: 0,
            decisive: Elements::default(),
            undecided: Elements::default(),
            rejected: Elements::default(),
        };
        let truth = match quantified.collection.find(self.facts, scope) {
            Found::Present(Cow::Borrowed(Value::Array(list))) => {
                self.elements(&mut tally, list.iter().map(|item| (None, item)))?
            }
            Found::Present(Cow::Borrowed(Value::Object(map))) => self.elements(
                &mut tally,
                map.iter().map(|(key, item)| (Some(key.as_str()), item)),
            )?,
            Found::Present(_) => {
                let what = format!("{} is neither a list nor a map", quantified.collection);
                tally.missing = Some(Found::Malformed(what));
                Truth::Error
            }
            missing => {
                let truth = match &missing {
                    Found::Absent => (quantified.quantifier == Quantifier::None).into(),
                    Found::Malformed(_) => Truth::Error,
                    _ => Truth::Unknown,
                };
                tally.missing = Some(missing);
                truth
            }
        };
        if quantified.collection.collector().is_some() {
            self.record(quantified.collection.text(), Shown::tally(&tally));
        }
        Ok(Trace {
            truth,
            detail: Detail::Quantified(Box::new(tally)),
        })
    }

    fn elements(
        &mut self,
        tally: &mut Tally<'a>,
        elements: impl Iterator<Item = (Option<&'a str>, &'a Value)>,
    ) -> Result<Truth, Exhausted> {
        let quantified = tally.quantified;
        let every = quantified.quantifier == Quantifier::Every;
        let mut truth = Truth::from(every);
        for (key, item) in elements {
            self.spend(1)?;
            tally.total += 1;
            if let (Some(condition), Some(key)) = (&quantified.condition, key)
                && is_ruled_out(condition, key)
            {
                continue;
            }
            // An unknown element may stand for something, for nothing, or for many.
            let (item_in_scope, mut counts) = match Unknown::from_value(item) {
                Some(unknown) => (Err(unknown), Truth::Unknown),
                None => (Ok(item), Truth::True),
            };
            let scope = Scope {
                item: item_in_scope,
                key,
            };
            let condition = match &quantified.condition {
                Some(condition) => Some(self.trace(condition, Some(&scope))?),
                None => None,
            };
            if let Some(condition) = &condition {
                counts = counts.and(condition.truth);
            }
            if counts == Truth::False {
                continue;
            }
            tally.considered += 1;
            let check = self.trace(&quantified.check, Some(&scope))?;
            let held = if every {
                counts.negated().or(check.truth)
            } else {
                counts.and(check.truth)
            };
            truth = if every {
                truth.and(held)
            } else {
                truth.or(held)
            };
            let decides = if every { Truth::False } else { Truth::True };
            if held == decides {
                tally.decisive.add(key, item, Some(check), ELEMENTS_MAX);
            } else if !held.is_decided() {
                // When the check is decided, it is the condition that is not.
                let why = if check.truth.is_decided() {
                    condition
                } else {
                    Some(check)
                };
                tally.undecided.add(key, item, why, ELEMENTS_MAX);
            } else if quantified.quantifier == Quantifier::Some {
                tally.rejected.add(key, item, None, REJECTED_MAX);
            }
        }
        Ok(if quantified.quantifier == Quantifier::None {
            truth.negated()
        } else {
            truth
        })
    }
}

/// Whether an element is no concern of the quantifier by its key alone. Says what the trace of
/// `condition` would say, without making one.
fn is_ruled_out(condition: &Predicate, key: &str) -> bool {
    match condition {
        Predicate::Leaf(leaf) if leaf.fact.is_key() => match &leaf.operator {
            Operator::Matches(pattern) => !pattern.is_match(key),
            Operator::NotMatches(pattern) => pattern.is_match(key),
            _ => false,
        },
        Predicate::All(parts) => parts.iter().any(|part| is_ruled_out(part, key)),
        _ => false,
    }
}

/// What of the fact belongs into the evidence.
fn shown<'a>(operator: &Operator, found: &Found<'a>, answer: &Answer) -> Shown<'a> {
    let counted = matches!(
        operator,
        Operator::Exists(_) | Operator::Empty(_) | Operator::Count(_)
    );
    match found {
        Found::Present(Cow::Borrowed(Value::Array(list))) if counted && *answer == Answer::Yes => {
            Shown::counted(list.len())
        }
        Found::Present(Cow::Borrowed(Value::Object(map))) if counted && *answer == Answer::Yes => {
            Shown::counted(map.len())
        }
        found => Shown::found(found),
    }
}

/// Steps beyond the first: what the operator has to read.
fn cost(operator: &Operator, value: &Value) -> usize {
    let operands = match operator {
        Operator::ContainsAll(list) | Operator::ContainsNone(list) | Operator::SubsetOf(list) => {
            list.len()
        }
        Operator::Contains(_) | Operator::Count(_) | Operator::Empty(_) => 1,
        _ => 0,
    };
    match value {
        Value::Array(list) => list.len() * operands,
        Value::Object(map) => map.len() * operands,
        Value::String(text) => text.len() / TEXT_BYTES_PER_STEP,
        _ => 0,
    }
}
