//! What a rule asks, as data: leaves with one operator, joined by `all`, `any`, `not` and three
//! quantifiers. Variables are already replaced and regular expressions compiled.

use regex::Regex;
use serde_json::Value;

use super::selector::Selector;

#[derive(Clone, Debug)]
pub enum Predicate {
    Leaf(Leaf),
    All(Vec<Predicate>),
    Any(Vec<Predicate>),
    Not(Box<Predicate>),
    Quantified(Quantified),
}

/// One operator on one fact.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub fact: Selector,
    /// Taken when the fact is absent; never when it is unknown.
    pub default: Option<Value>,
    pub operator: Operator,
    pub ignore_case: bool,
    /// Line in the rule file, for lint.
    pub line: u32,
}

#[derive(Clone, Debug)]
pub struct Quantified {
    pub quantifier: Quantifier,
    /// A list or a map.
    pub collection: Selector,
    /// Elements for which this is false do not count.
    pub condition: Option<Box<Predicate>>,
    pub check: Box<Predicate>,
    pub line: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    Every,
    Some,
    None,
}

#[derive(Clone, Debug)]
pub enum Operator {
    Equals(Value),
    NotEquals(Value),
    OneOf(Vec<Value>),
    NotOneOf(Vec<Value>),
    Compare(Comparison, f64),
    /// No permission bit beyond these.
    ModeAtMost(u32),
    VersionAtLeast(String),
    VersionLessThan(String),
    Matches(Pattern),
    NotMatches(Pattern),
    /// Each named group satisfies all of its operators.
    Captures(Pattern, Vec<(String, Vec<Operator>)>),
    Contains(Value),
    ContainsAll(Vec<Value>),
    ContainsNone(Vec<Value>),
    SubsetOf(Vec<Value>),
    Exists(bool),
    Empty(bool),
    /// All of them hold for the number of elements.
    Count(Vec<(Comparison, f64)>),
    OlderThanDays(f64),
    NewerThanDays(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    LessThan,
    AtMost,
    AtLeast,
    GreaterThan,
}

/// A compiled regular expression. Linear in its input, and its program is bounded.
#[derive(Clone, Debug)]
pub struct Pattern(pub Regex);

impl Comparison {
    pub(crate) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::LessThan => left < right,
            Self::AtMost => left <= right,
            Self::AtLeast => left >= right,
            Self::GreaterThan => left > right,
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Equal => "",
            Self::NotEqual => "other than ",
            Self::LessThan => "less than ",
            Self::AtMost => "at most ",
            Self::AtLeast => "at least ",
            Self::GreaterThan => "more than ",
        }
    }
}

impl Operator {
    /// The answer for an absent fact without default. The negative operators hold: what is not
    /// there is not equal to anything.
    pub(crate) const fn holds_for_absent(&self) -> bool {
        match self {
            Self::NotEquals(_)
            | Self::NotMatches(_)
            | Self::NotOneOf(_)
            | Self::ContainsNone(_) => true,
            Self::Exists(wanted) => !*wanted,
            _ => false,
        }
    }
}

impl Predicate {
    /// Calls `visit` with every leaf, quantifiers' conditions and checks included.
    pub fn for_each_leaf<'p>(&'p self, visit: &mut dyn FnMut(&'p Leaf)) {
        match self {
            Self::Leaf(leaf) => visit(leaf),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.for_each_leaf(visit))
            }
            Self::Not(part) => part.for_each_leaf(visit),
            Self::Quantified(quantified) => {
                if let Some(condition) = &quantified.condition {
                    condition.for_each_leaf(visit);
                }
                quantified.check.for_each_leaf(visit);
            }
        }
    }

    /// Calls `visit` with every selector, those of quantifiers included.
    pub fn for_each_selector<'p>(&'p self, visit: &mut dyn FnMut(&'p Selector)) {
        match self {
            Self::Leaf(leaf) => visit(&leaf.fact),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.for_each_selector(visit))
            }
            Self::Not(part) => part.for_each_selector(visit),
            Self::Quantified(quantified) => {
                visit(&quantified.collection);
                if let Some(condition) = &quantified.condition {
                    condition.for_each_selector(visit);
                }
                quantified.check.for_each_selector(visit);
            }
        }
    }
}
