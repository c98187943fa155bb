//! One operator on one value that is there: true, false, unknown in part, or of a wrong shape.

use std::{borrow::Cow, cmp::Ordering};

use serde_json::Value;

use super::predicate::{Comparison, Leaf, Operator, Pattern};
use crate::{
    facts::{Reason, Unknown},
    version,
};

/// Seconds of a day; leap seconds do not exist in Unix time.
const DAY_SECONDS: f64 = 86_400.0;
/// A time below this is a count of days, at or above it a count of seconds: as days it would be the
/// year 4707, as seconds the 12th of January 1970.
const DAYS_MAX: f64 = 1_000_000.0;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Yes,
    No,
    Unknown(Unknown),
    /// What was wrong with the value.
    Malformed(String),
}

impl From<bool> for Answer {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// What an operator may look at besides the value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// Unix seconds of the facts; ages are counted from here, never from a clock.
    pub(crate) collected_at: f64,
    pub(crate) ignore_case: bool,
}

/// `value` is neither null nor unknown; its elements may be.
pub(crate) fn test(operator: &Operator, value: &Value, context: Context) -> Answer {
    let same = |wanted: &Value, found: &Value| same(wanted, found, context.ignore_case);
    match operator {
        Operator::Equals(wanted) => scalar(value, |found| same(wanted, found)),
        Operator::NotEquals(wanted) => scalar(value, |found| !same(wanted, found)),
        Operator::OneOf(list) => {
            scalar(value, |found| list.iter().any(|wanted| same(wanted, found)))
        }
        Operator::NotOneOf(list) => scalar(value, |found| {
            !list.iter().any(|wanted| same(wanted, found))
        }),
        Operator::Compare(comparison, wanted) => match number(value) {
            Some(found) => comparison.holds(found, *wanted).into(),
            None => malformed(value, "a number"),
        },
        Operator::ModeAtMost(most) => match mode(value) {
            Some(found) => (found & !most == 0).into(),
            None => malformed(value, "a mode such as 0644"),
        },
        Operator::VersionAtLeast(wanted) => version_test(value, wanted, Ordering::is_ge),
        Operator::VersionLessThan(wanted) => version_test(value, wanted, Ordering::is_lt),
        Operator::Matches(pattern) => with_text(value, |text| pattern.is_match(text).into()),
        Operator::NotMatches(pattern) => with_text(value, |text| (!pattern.is_match(text)).into()),
        Operator::Captures(pattern, groups) => {
            with_text(value, |text| captures(pattern, groups, text, context))
        }
        Operator::Contains(wanted) => match value {
            Value::String(text) => contains_text(text, wanted, context.ignore_case),
            _ => with_list(value, |list| {
                has_all(list, std::slice::from_ref(wanted), same)
            }),
        },
        Operator::ContainsAll(wanted) => with_list(value, |list| has_all(list, wanted, same)),
        Operator::ContainsNone(banned) => with_list(value, |list| has_none(list, banned, same)),
        Operator::SubsetOf(allowed) => with_list(value, |list| is_subset(list, allowed, same)),
        Operator::Exists(wanted) => (*wanted).into(),
        Operator::Empty(wanted) => is_empty(value, *wanted),
        Operator::Count(conditions) => count(value, conditions),
        Operator::OlderThanDays(days) => age(value, context, |age| age > *days),
        Operator::NewerThanDays(days) => age(value, context, |age| age < *days),
    }
}

fn malformed(value: &Value, wanted: &str) -> Answer {
    Answer::Malformed(format!(
        "is {}, which is not {wanted}",
        super::wording::value(value)
    ))
}

fn scalar(value: &Value, holds: impl FnOnce(&Value) -> bool) -> Answer {
    match value {
        Value::Array(_) | Value::Object(_) => malformed(value, "a single value"),
        found => holds(found).into(),
    }
}

/// Numbers and decimal texts compare as numbers, other texts as texts, booleans only with booleans.
pub(crate) fn same(wanted: &Value, found: &Value, ignore_case: bool) -> bool {
    match (wanted, found) {
        (Value::String(a), Value::String(b)) => {
            a == b
                || (ignore_case && a.to_lowercase() == b.to_lowercase())
                || matches!((integer(a), integer(b)), (Some(a), Some(b)) if a == b)
        }
        (Value::Number(_), Value::Number(_) | Value::String(_))
        | (Value::String(_), Value::Number(_)) => {
            matches!((number(wanted), number(found)), (Some(a), Some(b)) if a == b)
        }
        _ => wanted == found,
    }
}

fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let decimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if decimal { text.parse().ok() } else { None }
}

/// A JSON number, or a decimal text: digits with an optional sign and fraction. No exponents, no
/// `inf`: a configuration file that says so means something else.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let text = text.trim();
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
            let decimal = [whole, fraction]
                .iter()
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
            if decimal { text.parse().ok() } else { None }
        }
        _ => None,
    }
}

/// Octal text of at most four significant digits, with or without leading zeros.
pub(crate) fn parse_mode(text: &str) -> Option<u32> {
    let octal = (1..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    if !octal {
        return None;
    }
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|bits| *bits <= 0o7777)
}

fn mode(value: &Value) -> Option<u32> {
    value.as_str().and_then(parse_mode)
}

fn version_test(value: &Value, wanted: &str, holds: fn(Ordering) -> bool) -> Answer {
    match value {
        Value::String(found) if !found.trim().is_empty() => {
            holds(version::compare(found, wanted)).into()
        }
        _ => malformed(value, "a version"),
    }
}

fn with_text(value: &Value, then: impl FnOnce(&str) -> Answer) -> Answer {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Number(number) => Cow::Owned(number.to_string()),
        _ => return malformed(value, "text"),
    };
    then(&text)
}

fn with_list(value: &Value, then: impl FnOnce(&[Value]) -> Answer) -> Answer {
    match value {
        Value::Array(list) => then(list),
        _ => malformed(value, "a list"),
    }
}

fn contains_text(text: &str, wanted: &Value, ignore_case: bool) -> Answer {
    let Value::String(part) = wanted else {
        return text.contains(&wanted.to_string()).into();
    };
    if ignore_case {
        return text.to_lowercase().contains(&part.to_lowercase()).into();
    }
    text.contains(part.as_str()).into()
}

/// An unknown element may stand for anything, for nothing, or for many: it settles nothing.
fn unknown_in(list: &[Value]) -> Option<Unknown> {
    list.iter().find_map(Unknown::from_value)
}

fn has_all(list: &[Value], wanted: &[Value], same: impl Fn(&Value, &Value) -> bool) -> Answer {
    if wanted
        .iter()
        .all(|wanted| list.iter().any(|found| same(wanted, found)))
    {
        return Answer::Yes;
    }
    unknown_in(list).map_or(Answer::No, Answer::Unknown)
}

fn has_none(list: &[Value], banned: &[Value], same: impl Fn(&Value, &Value) -> bool) -> Answer {
    if banned
        .iter()
        .any(|banned| list.iter().any(|found| same(banned, found)))
    {
        return Answer::No;
    }
    unknown_in(list).map_or(Answer::Yes, Answer::Unknown)
}

fn is_subset(list: &[Value], allowed: &[Value], same: impl Fn(&Value, &Value) -> bool) -> Answer {
    let stranger = |found: &&Value| {
        Unknown::from_value(found).is_none() && !allowed.iter().any(|allowed| same(allowed, found))
    };
    if list.iter().any(|found| stranger(&found)) {
        return Answer::No;
    }
    unknown_in(list).map_or(Answer::Yes, Answer::Unknown)
}

fn is_empty(value: &Value, wanted: bool) -> Answer {
    match value {
        Value::String(text) => (text.is_empty() == wanted).into(),
        Value::Array(_) | Value::Object(_) => count(
            value,
            &[if wanted {
                (Comparison::Equal, 0.0)
            } else {
                (Comparison::GreaterThan, 0.0)
            }],
        ),
        _ => malformed(value, "a list, a map or text"),
    }
}

/// The number of elements lies between what is surely there and what may be there. A condition
/// holds when it holds for every number in between.
fn count(value: &Value, conditions: &[(Comparison, f64)]) -> Answer {
    let (sure, most, unknown) = match value {
        Value::Array(list) => {
            let unknown = list
                .iter()
                .filter(|item| Unknown::from_value(item).is_some())
                .count();
            let sure = size(list.len() - unknown);
            (
                sure,
                if unknown == 0 { sure } else { f64::INFINITY },
                unknown_in(list),
            )
        }
        Value::Object(map) => {
            let unknown = map
                .values()
                .filter(|item| Unknown::from_value(item).is_some())
                .count();
            (
                size(map.len() - unknown),
                size(map.len()),
                map.values().find_map(Unknown::from_value),
            )
        }
        _ => return malformed(value, "a list or a map"),
    };
    let answers = conditions
        .iter()
        .map(|(comparison, wanted)| within(*comparison, sure, most, *wanted));
    let undecided = || {
        unknown
            .clone()
            .unwrap_or_else(|| Unknown::new(Reason::Truncated, "an unknown number of elements"))
    };
    conjunction(
        answers.map(|answer| answer.map_or_else(|| Answer::Unknown(undecided()), Answer::from)),
    )
}

/// Whether `comparison` holds for all numbers of `low..=high` (true), for none (false), or for some.
fn within(comparison: Comparison, low: f64, high: f64, wanted: f64) -> Option<bool> {
    let inside = low <= wanted && wanted <= high;
    match comparison {
        Comparison::Equal if low == high => Some(low == wanted),
        Comparison::NotEqual if low == high => Some(low != wanted),
        Comparison::Equal => {
            if inside {
                None
            } else {
                Some(false)
            }
        }
        Comparison::NotEqual => {
            if inside {
                None
            } else {
                Some(true)
            }
        }
        _ => {
            let (at_low, at_high) = (
                comparison.holds(low, wanted),
                comparison.holds(high, wanted),
            );
            if at_low == at_high {
                Some(at_low)
            } else {
                None
            }
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a list of 2^52 elements does not fit in memory"
)]
fn size(len: usize) -> f64 {
    len as f64
}

/// False if one is, else wrong shape, else unknown, else true.
fn conjunction(answers: impl Iterator<Item = Answer>) -> Answer {
    let rank = |answer: &Answer| match answer {
        Answer::No => 0,
        Answer::Malformed(_) => 1,
        Answer::Unknown(_) => 2,
        Answer::Yes => 3,
    };
    answers.min_by_key(rank).unwrap_or(Answer::Yes)
}

fn captures(
    pattern: &Pattern,
    groups: &[(String, Vec<Operator>)],
    text: &str,
    context: Context,
) -> Answer {
    let Some(found) = pattern.captures(text) else {
        return Answer::No;
    };
    let answers = groups.iter().flat_map(|(name, operators)| {
        let group = found
            .name(name)
            .map(|group| Value::String(group.as_str().to_owned()));
        operators.iter().map(move |operator| match &group {
            Some(value) => test(operator, value, context),
            // A group that took no part in the match is absent.
            None => operator.holds_for_absent().into(),
        })
    });
    conjunction(answers)
}

fn age(value: &Value, context: Context, holds: impl FnOnce(f64) -> bool) -> Answer {
    let seconds = match (number(value), value) {
        (Some(days), _) if days.abs() < DAYS_MAX => {
            // A day number has no hour: whole days are compared with whole days.
            return holds((context.collected_at / DAY_SECONDS).floor() - days).into();
        }
        (Some(seconds), _) => Some(seconds),
        (None, Value::String(text)) => text.parse::<jiff::Timestamp>().ok().map(unix_seconds),
        (None, _) => None,
    };
    match seconds {
        Some(seconds) => holds((context.collected_at - seconds) / DAY_SECONDS).into(),
        None => malformed(value, "a time"),
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a timestamp's seconds are below 2^38"
)]
pub(crate) fn unix_seconds(time: jiff::Timestamp) -> f64 {
    time.as_second() as f64
}

/// What the operator wants, to follow the word "wanted".
pub(crate) fn wanted(leaf: &Leaf) -> String {
    operator_words(&leaf.operator)
}

fn operator_words(operator: &Operator) -> String {
    use super::wording::{choices, value};
    match operator {
        Operator::Equals(wanted) => value(wanted),
        Operator::NotEquals(banned) => format!("anything but {}", value(banned)),
        Operator::OneOf(list) => format!("one of {}", choices(list)),
        Operator::NotOneOf(list) => format!("none of {}", choices(list)),
        Operator::Compare(comparison, wanted) => format!("{}{wanted}", comparison.words()),
        Operator::ModeAtMost(most) => format!("at most {most:04o}"),
        Operator::VersionAtLeast(wanted) => format!("version {wanted} or later"),
        Operator::VersionLessThan(wanted) => format!("a version before {wanted}"),
        Operator::Matches(pattern) => format!("a match of /{}/", short(pattern)),
        Operator::NotMatches(pattern) => format!("no match of /{}/", short(pattern)),
        Operator::Captures(pattern, groups) => {
            let parts: Vec<String> = groups
                .iter()
                .map(|(name, all)| {
                    let words: Vec<String> = all.iter().map(operator_words).collect();
                    format!("{name} {}", words.join(" and "))
                })
                .collect();
            format!("a match of /{}/ with {}", short(pattern), parts.join(", "))
        }
        Operator::Contains(wanted) => format!("{} in it", value(wanted)),
        Operator::ContainsAll(wanted) => format!("all of {} in it", choices(wanted)),
        Operator::ContainsNone(banned) => format!("none of {} in it", choices(banned)),
        Operator::SubsetOf(allowed) => format!("nothing but {}", choices(allowed)),
        Operator::Exists(true) => "it to be there".to_owned(),
        Operator::Exists(false) => "it not to be there".to_owned(),
        Operator::Empty(true) => "it empty".to_owned(),
        Operator::Empty(false) => "it not empty".to_owned(),
        Operator::Count(conditions) => {
            let words: Vec<String> = conditions
                .iter()
                .map(|(comparison, n)| format!("{}{n}", comparison.words()))
                .collect();
            format!("{} of them", words.join(" and "))
        }
        Operator::OlderThanDays(days) => format!("older than {days} days"),
        Operator::NewerThanDays(days) => format!("newer than {days} days"),
    }
}

fn short(pattern: &Pattern) -> String {
    super::wording::bounded(pattern.as_str(), 60)
}
