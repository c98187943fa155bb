//! What a rule asks, as data: leaves with one operator, joined by `all`, `any`, `not` and three
//! quantifiers. Variables are already replaced and regular expressions compiled.

use regex::Regex;
use regex_syntax::hir::{Hir, HirKind, Look};
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
pub struct Pattern {
    regex: Regex,
    /// What every match of an anchored expression begins and ends with. Rules go over a thousand
    /// kernel parameters to find a dozen: comparing bytes first is ten times cheaper.
    prefix: Box<str>,
    suffix: Box<str>,
}

impl Pattern {
    /// `ignore_case` as the expression was compiled: its text alone does not tell.
    pub(crate) fn new(regex: Regex, ignore_case: bool) -> Self {
        let affixes = if ignore_case {
            None
        } else {
            affixes(regex.as_str())
        };
        let (prefix, suffix) = affixes.unwrap_or_default();
        Self {
            regex,
            prefix,
            suffix,
        }
    }

    pub(crate) const fn regex(&self) -> &Regex {
        &self.regex
    }

    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        text.starts_with(&*self.prefix)
            && text.ends_with(&*self.suffix)
            && self.regex.is_match(text)
    }

    pub(crate) fn captures<'t>(&self, text: &'t str) -> Option<regex::Captures<'t>> {
        self.regex.captures(text)
    }
}

/// The literal text after `^` and the one before `$`, as far as the syntax tree names them.
fn affixes(expression: &str) -> Option<(Box<str>, Box<str>)> {
    let tree = regex_syntax::parse(expression).ok()?;
    let HirKind::Concat(parts) = tree.kind() else {
        return None;
    };
    let literal = |part: Option<&Hir>| match part.map(Hir::kind) {
        Some(HirKind::Literal(literal)) => std::str::from_utf8(&literal.0).ok().map(Box::from),
        _ => None,
    };
    let begins = parts.first()?.kind() == &HirKind::Look(Look::Start);
    let ends = parts.last()?.kind() == &HirKind::Look(Look::End);
    let prefix = begins.then(|| literal(parts.get(1))).flatten();
    let suffix = ends.then(|| literal(parts.iter().rev().nth(1))).flatten();
    Some((prefix.unwrap_or_default(), suffix.unwrap_or_default()))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The affixes only ever say no where the expression says no.
    #[test]
    fn a_pattern_matches_what_its_expression_matches() {
        let texts = [
            "", "a", "ab", "ba", "aba", "a\nb", "A", "net.a.b", "xnet.a.b", "net.a.bx", "net.b",
            "net..b",
        ];
        for expression in [
            "a",
            "^a",
            "a$",
            "^a$",
            "^a.*b$",
            "^(a|b)",
            "(?i)^a",
            "(?m)^b$",
            "^a|b$",
            "^$",
            "^ab?",
            "a+b$",
            r"^net\..+\.b$",
            r"^net\.(a\.)?b$",
            r"\Aa",
            r"b\z",
            "^(ab)$",
            "^a{2}",
            "(?s)^a.b$",
        ] {
            for ignore_case in [false, true] {
                let regex = regex::RegexBuilder::new(expression)
                    .case_insensitive(ignore_case)
                    .build()
                    .unwrap();
                let pattern = Pattern::new(regex.clone(), ignore_case);
                for text in texts {
                    let wanted = regex.is_match(text);
                    assert_eq!(pattern.is_match(text), wanted, "/{expression}/ on {text:?}");
                }
            }
        }
        let pattern = Pattern::new(Regex::new(r"^net\..+\.b$").unwrap(), false);
        assert_eq!((&*pattern.prefix, &*pattern.suffix), ("net.", ".b"));
    }
}
