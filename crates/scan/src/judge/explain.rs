//! Why a verdict is what it is, in one line for people.

use super::{
    trace::{Detail, EXPLAINED_MAX, Element, Elements, Tally, Trace},
    truth::Truth,
};
use crate::{
    facts::{Reason, Unknown},
    rule::{Answer, Found, Operator, Predicate, Quantifier, wanted, wording},
};

/// Characters of a reason: two lines of a wide terminal.
pub(super) const REASON_CHARS_MAX: usize = 400;
/// Bytes of one wish about the elements of a list.
const WISH_BYTES_MAX: usize = 50;
/// Parts of a conjunction that are told.
const PARTS_MAX: usize = 4;
/// Characters of an unknown's detail: a path and an error of the operating system.
const DETAIL_CHARS_MAX: usize = 200;

/// Facts that say whether a file is there end so in a subject.
const EXISTS: &str = " exists";

/// For a trace that is false: what was found and what was wanted.
pub(super) fn why_false(trace: &Trace<'_>) -> String {
    match &trace.detail {
        Detail::Leaf { leaf, found, .. } => {
            let mut words = fact_words(leaf_name(trace).as_deref(), found, &leaf.operator);
            let existence = matches!(leaf.operator, Operator::Exists(_))
                || leaf.fact.steps().last().is_some_and(|s| s == "exists");
            if !existence {
                words.push_str(&format!(", wanted {}", wanted(leaf)));
            }
            words
        }
        Detail::All(_) => joined(false_parts(trace).into_iter(), "; "),
        Detail::Any(parts) => joined(parts.iter().map(why_false), ", and "),
        Detail::Not(part) => format!("{} (must not be)", why_true(part)),
        Detail::Quantified(tally) => quantified_false(tally),
    }
}

/// What is false in a conjunction, those within it included: one list instead of lists of lists,
/// so that the same finding is told once however often a rule asks for it.
fn false_parts(trace: &Trace<'_>) -> Vec<String> {
    match &trace.detail {
        Detail::All(parts) => parts
            .iter()
            .filter(|part| part.truth == Truth::False)
            .flat_map(false_parts)
            .collect(),
        _ => vec![why_false(trace)],
    }
}

/// For a trace that is true: what was found.
pub(super) fn why_true(trace: &Trace<'_>) -> String {
    match &trace.detail {
        Detail::Leaf { leaf, found, .. } => {
            let mut words = fact_words(leaf_name(trace).as_deref(), found, &leaf.operator);
            if let (Found::Absent, Some(default)) = (found, &leaf.default) {
                words.push_str(&format!(", by default {}", wording::value(default)));
            }
            words
        }
        Detail::All(parts) => joined(parts.iter().map(why_true), "; "),
        Detail::Any(parts) => parts
            .iter()
            .find(|part| part.truth == Truth::True)
            .map(why_true)
            .unwrap_or_default(),
        Detail::Not(part) => found_words(part),
        Detail::Quantified(tally) => quantified_true(tally),
    }
}

/// The reasons that keep a trace from being decided, and the code of the first.
pub(super) fn why_unknown(trace: &Trace<'_>) -> (String, Reason) {
    let mut unknowns = Vec::new();
    collect_unknowns(trace, None, &mut unknowns);
    unknowns.dedup_by(|(a, _), (b, _)| a == b);
    let Some((words, code)) = unknowns.first().cloned() else {
        return (Reason::Missing.to_string(), Reason::Missing);
    };
    match unknowns.len() - 1 {
        0 => (words, code),
        more => (format!("{words} (and {more} more)"), code),
    }
}

/// What value has which wrong shape.
pub(super) fn why_error(trace: &Trace<'_>) -> String {
    match &trace.detail {
        Detail::Leaf {
            answer: Answer::Malformed(what),
            found,
            ..
        } => match (found, leaf_name(trace)) {
            (Found::Present(_), Some(name)) => format!("{name} {what}"),
            (Found::Present(_), None) => format!("it {what}"),
            _ => what.clone(),
        },
        Detail::Leaf { .. } => String::new(),
        Detail::All(parts) | Detail::Any(parts) => parts
            .iter()
            .find(|part| part.truth == Truth::Error)
            .map(why_error)
            .unwrap_or_default(),
        Detail::Not(part) => why_error(part),
        Detail::Quantified(tally) => quantified_error(tally),
    }
}

fn quantified_error(tally: &Tally<'_>) -> String {
    if let Some(Found::Malformed(what)) = &tally.missing {
        return what.clone();
    }
    let name = tally.quantified.collection.subject();
    let wrong = tally.undecided.first.iter().find_map(|element| {
        let trace = element
            .trace
            .as_ref()
            .filter(|trace| trace.truth == Truth::Error)?;
        Some(format!(
            "{} in {name}: {}",
            label(element),
            why_error(trace)
        ))
    });
    wrong.unwrap_or_else(|| format!("an element of {name} has a shape that the rule cannot read"))
}

pub(super) fn unknown_of(found: &Found<'_>) -> Option<Unknown> {
    match found {
        Found::Unknown(unknown) => Some(unknown.clone()),
        _ => None,
    }
}

/// `privilege: /etc/shadow`.
pub(super) fn unknown_words(unknown: &Unknown) -> String {
    let detail = wording::bounded(&wording::escaped(&unknown.detail), DETAIL_CHARS_MAX);
    if detail.is_empty() {
        unknown.reason.to_string()
    } else {
        format!("{}: {detail}", unknown.reason)
    }
}

fn collect_unknowns(trace: &Trace<'_>, element: Option<&str>, into: &mut Vec<(String, Reason)>) {
    let mut add = |unknown: &Unknown| {
        let words = unknown_words(unknown);
        let words = element.map_or_else(|| words.clone(), |element| format!("{words} ({element})"));
        if !into.iter().any(|(known, _)| *known == words) {
            into.push((words, unknown.reason));
        }
    };
    match &trace.detail {
        Detail::Leaf {
            answer: Answer::Unknown(unknown),
            ..
        } => add(unknown),
        Detail::Leaf { .. } => {}
        Detail::All(parts) | Detail::Any(parts) => {
            parts
                .iter()
                .filter(|part| !part.truth.is_decided())
                .for_each(|part| collect_unknowns(part, element, into));
        }
        Detail::Not(part) => collect_unknowns(part, element, into),
        Detail::Quantified(tally) => {
            if let Some(Found::Unknown(unknown)) = &tally.missing {
                add(unknown);
            }
            for element in &tally.undecided.first {
                match (Unknown::from_value(element.item), &element.trace) {
                    (Some(unknown), _) => {
                        let words = unknown_words(&unknown);
                        if !into.iter().any(|(known, _)| *known == words) {
                            into.push((words, unknown.reason));
                        }
                    }
                    (None, Some(trace)) => collect_unknowns(trace, Some(&label(element)), into),
                    (None, None) => {}
                }
            }
        }
    }
}

/// The fact's name, `None` for the element itself.
fn leaf_name(trace: &Trace<'_>) -> Option<String> {
    let Detail::Leaf { leaf, .. } = &trace.detail else {
        return None;
    };
    let name = wording::escaped(&leaf.fact.subject());
    (!name.is_empty()).then_some(name)
}

fn fact_words(name: Option<&str>, found: &Found<'_>, operator: &Operator) -> String {
    let name = name.unwrap_or("it");
    match (found, operator) {
        (Found::Present(_), Operator::Exists(_)) => format!("{name} is there"),
        (Found::Absent, Operator::Exists(_)) => format!("{name} is not there"),
        (Found::Present(value), Operator::Count(_)) => {
            match (value.as_array(), value.as_object()) {
                (Some(list), _) => format!(
                    "{name} has {}",
                    counted(list.len(), list.first().map(|item| (None, item)))
                ),
                (_, Some(map)) => {
                    format!(
                        "{name} has {}",
                        counted(
                            map.len(),
                            map.iter().next().map(|(k, v)| (Some(k.as_str()), v))
                        )
                    )
                }
                _ => format!("{name} is {}", wording::value(value)),
            }
        }
        (Found::Present(value), Operator::Equals(_)) if name.ends_with(EXISTS) => {
            let there = value.as_bool() == Some(true);
            format!(
                "{} {}",
                name.trim_end_matches(EXISTS),
                if there { "is there" } else { "is not there" }
            )
        }
        (Found::Present(value), _) => format!("{name} is {}", wording::value(value)),
        (Found::Absent, _) => format!("{name} is not set"),
        (Found::Unknown(unknown), _) => format!("{name} is not known ({})", unknown.reason),
        (Found::Malformed(what), _) => what.clone(),
    }
}

fn counted(count: usize, first: Option<(Option<&str>, &serde_json::Value)>) -> String {
    match first {
        Some((key, item)) if count == 1 => format!("1 element ({})", wording::label(key, item)),
        Some((key, item)) => format!("{count} elements ({}, …)", wording::label(key, item)),
        None => "no elements".to_owned(),
    }
}

/// What was found, without what was wanted: for a negation, which is explained the other way round.
fn found_words(trace: &Trace<'_>) -> String {
    match &trace.detail {
        Detail::Leaf { leaf, found, .. } => {
            fact_words(leaf_name(trace).as_deref(), found, &leaf.operator)
        }
        Detail::All(parts) | Detail::Any(parts) => joined(parts.iter().map(found_words), "; "),
        Detail::Not(part) => found_words(part),
        Detail::Quantified(tally) => match (&tally.missing, tally.quantified.quantifier) {
            (None, Quantifier::Some) => quantified_none(tally),
            _ => quantified_false(tally),
        },
    }
}

fn quantified_true(tally: &Tally<'_>) -> String {
    let name = wording::escaped(&tally.quantified.collection.subject());
    let name = if name.is_empty() {
        "them".to_owned()
    } else {
        name
    };
    if tally.missing.is_some() {
        return format!("{name} is not there");
    }
    match tally.quantified.quantifier {
        Quantifier::Some => listed(&tally.decisive, tally.considered, &name),
        Quantifier::Every | Quantifier::None if tally.considered == 0 && tally.total == 0 => {
            format!("{name} is empty")
        }
        Quantifier::Every | Quantifier::None if tally.considered == 0 => {
            format!("none of the {} in {name} is concerned", tally.total)
        }
        Quantifier::Every => format!("all {} in {name}", tally.considered),
        Quantifier::None => quantified_none(tally),
    }
}

fn quantified_none(tally: &Tally<'_>) -> String {
    let name = wording::escaped(&tally.quantified.collection.subject());
    format!("none of {} in {name}", tally.considered)
}

fn quantified_false(tally: &Tally<'_>) -> String {
    let name = wording::escaped(&tally.quantified.collection.subject());
    let name = if name.is_empty() {
        "them".to_owned()
    } else {
        name
    };
    if tally.missing.is_some() {
        return format!("{name} is not there");
    }
    match tally.quantified.quantifier {
        Quantifier::Some if tally.total == 0 => format!("{name} is empty"),
        Quantifier::Some => {
            let mut words = format!("none of {} in {name} is as wanted", tally.total);
            if let Some(wish) = wish(&tally.quantified.check) {
                words.push_str(&format!(": {wish}"));
            }
            words
        }
        Quantifier::None => listed(&tally.decisive, tally.considered, &name),
        Quantifier::Every => {
            let mut words = listed(&tally.decisive, tally.considered, &name);
            let first = tally
                .decisive
                .first
                .first()
                .and_then(|element| element.trace.as_ref());
            if let Some(wish) = first.and_then(first_wish) {
                words.push_str(&format!("; wanted {wish}"));
            }
            words
        }
    }
}

/// `3 of 12 in walk.setuid: /tmp/a (mode 4777), /tmp/b (mode 4755), /tmp/c (mode 4711)`.
fn listed(elements: &Elements<'_>, considered: usize, name: &str) -> String {
    let mut shown: Vec<String> = elements
        .first
        .iter()
        .take(EXPLAINED_MAX)
        .map(described)
        .collect();
    if elements.count > shown.len() {
        shown.push("…".to_owned());
    }
    format!(
        "{} of {considered} in {name}: {}",
        elements.count,
        shown.join(", ")
    )
}

fn described(element: &Element<'_>) -> String {
    let label = label(element);
    let mut facts = Vec::new();
    if let Some(trace) = &element.trace {
        item_facts(trace, &label, &mut facts);
    }
    if facts.is_empty() {
        label
    } else {
        format!("{label} ({})", facts.join(", "))
    }
}

fn label(element: &Element<'_>) -> String {
    wording::label(element.key, element.item)
}

/// What the decided parts of an element's check saw: `mode 0777`.
fn item_facts(trace: &Trace<'_>, label: &str, into: &mut Vec<String>) {
    match &trace.detail {
        Detail::Leaf { leaf, found, .. } => {
            let name = leaf.fact.subject();
            let words = match found {
                Found::Present(value) => wording::value(value),
                Found::Absent => "not set".to_owned(),
                Found::Unknown(_) | Found::Malformed(_) => return,
            };
            // The label names the element: its path, or its module and file.
            let told = leaf.fact.text() == "key" || label.split(" (").any(|part| part == words);
            let words = if name.is_empty() {
                words
            } else {
                format!("{} {words}", wording::escaped(&name))
            };
            if !told && into.len() < PARTS_MAX && !into.contains(&words) {
                into.push(words);
            }
        }
        Detail::All(parts) | Detail::Any(parts) => parts
            .iter()
            .filter(|part| part.truth == trace.truth)
            .for_each(|part| item_facts(part, label, into)),
        Detail::Not(part) => item_facts(part, label, into),
        Detail::Quantified(tally) => {
            if into.len() < PARTS_MAX {
                let name = wording::escaped(&tally.quantified.collection.subject());
                into.extend(tally.decisive.first.iter().take(1).map(
                    |element| match name.as_str() {
                        "" => described(element),
                        name => format!("{name}: {}", described(element)),
                    },
                ));
            }
        }
    }
}

/// What the first failing leaf wants, when one wish says it all.
fn first_wish(trace: &Trace<'_>) -> Option<String> {
    match &trace.detail {
        Detail::Leaf { leaf, .. } => Some(match leaf_name(trace) {
            Some(name) if leaf.fact.text() != "key" => format!("{name} {}", wanted(leaf)),
            _ => wanted(leaf),
        }),
        Detail::All(parts) => parts
            .iter()
            .find(|part| part.truth == Truth::False)
            .and_then(first_wish),
        _ => None,
    }
}

/// What an element has to be, when a few words say it: a long pattern tells a reader nothing.
fn wish(predicate: &Predicate) -> Option<String> {
    match predicate {
        Predicate::Leaf(leaf) if wanted(leaf).len() > WISH_BYTES_MAX => None,
        Predicate::Leaf(leaf) => {
            let name = leaf.fact.subject();
            Some(if name.is_empty() || leaf.fact.text() == "key" {
                wanted(leaf)
            } else {
                format!("{name} {}", wanted(leaf))
            })
        }
        Predicate::All(parts) => {
            let parts: Option<Vec<String>> = parts.iter().map(wish).collect();
            parts.map(|parts| joined(parts.into_iter(), ", "))
        }
        Predicate::Any(_) | Predicate::Not(_) | Predicate::Quantified(_) => None,
    }
}

fn joined(parts: impl Iterator<Item = String>, separator: &str) -> String {
    let mut told = std::collections::BTreeSet::new();
    let mut parts: Vec<String> = parts.filter(|part| told.insert(part.clone())).collect();
    if parts.len() > PARTS_MAX {
        let more = parts.len() - PARTS_MAX;
        parts.truncate(PARTS_MAX);
        let and = if separator.contains("and") {
            ""
        } else {
            "and "
        };
        parts.push(format!("{and}{more} more"));
    }
    parts.join(separator)
}
