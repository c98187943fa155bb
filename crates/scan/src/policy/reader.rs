//! Reads a document's fields and notes everything that is wrong, not only the first.

use std::{ops::RangeInclusive, time::Duration};

use world::Timestamp;

use super::span;
use crate::{
    inventory::field,
    rule::{
        Fault, Place,
        fault::suggestion,
        yaml::{Key, Node, Tree},
    },
};

/// Characters of a description or name: a few lines of a terminal.
const TEXT_CHARS_MAX: usize = 400;
/// Faults kept of one document; somebody who made more mends these first.
const FAULTS_MAX: usize = 50;

#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) faults: Vec<Fault>,
}

/// A mapping, or the absence of one: then every field is absent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'n> {
    what: &'static str,
    at: Place,
    map: &'n [(Key, Node)],
}

impl<'n> Section<'n> {
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.map
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node)
    }

    pub(super) fn entries(&self) -> &'n [(Key, Node)] {
        self.map
    }
}

impl Reader {
    pub(super) fn fault(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    /// A mapping that may hold `known` and nothing else.
    pub(super) fn section<'n>(
        &mut self,
        node: Option<&'n Node>,
        what: &'static str,
        known: &[&str],
    ) -> Section<'n> {
        let Some(node) = node else {
            return Section {
                what,
                at: Place::default(),
                map: &[],
            };
        };
        let map = match node.map(what) {
            Ok(map) => map,
            Err(fault) => {
                self.fault(fault);
                &[]
            }
        };
        for (key, _) in map {
            if !known.contains(&key.name.as_str()) {
                let what = format!("unknown field `{}` in {what}", key.name);
                self.fault(Fault::at(key.at, what).next(suggestion(&key.name, known)));
            }
        }
        Section {
            what,
            at: node.at,
            map,
        }
    }

    pub(super) fn need<'n>(&mut self, section: &Section<'n>, name: &str) -> Option<&'n Node> {
        let found = section.get(name);
        if found.is_none() {
            let what = format!("{} has no `{name}`", section.what);
            self.fault(Fault::at(section.at, what).next(format!("add `{name}:`")));
        }
        found
    }

    /// Text of people: not empty, not endless, one line, nothing that steers a terminal.
    pub(super) fn words(&mut self, node: Option<&Node>, name: &str) -> Option<String> {
        let node = node?;
        let text = match node.text(&format!("`{name}`")) {
            Ok(text) => text.trim(),
            Err(fault) => {
                self.fault(fault);
                return None;
            }
        };
        let fault = if text.is_empty() {
            format!("`{name}` is empty")
        } else if text.chars().count() > TEXT_CHARS_MAX {
            format!("`{name}` has more than {TEXT_CHARS_MAX} characters")
        } else if text.chars().any(char::is_control) {
            format!("`{name}` has control characters")
        } else if text.chars().any(field::is_invisible) {
            format!("`{name}` has characters that are not seen, or reorder what is")
        } else {
            return Some(text.to_owned());
        };
        self.fault(Fault::at(node.at, fault));
        None
    }

    pub(super) fn moment(&mut self, node: Option<&Node>, name: &str) -> Option<Timestamp> {
        let node = node?;
        let nanos = match &node.tree {
            Tree::Text(text) => text
                .parse::<jiff::Timestamp>()
                .ok()
                .and_then(|moment| u64::try_from(moment.as_nanosecond()).ok()),
            _ => None,
        };
        if nanos.is_none() {
            let fault = Fault::at(node.at, format!("`{name}` is no moment since 1970"));
            self.fault(fault.next("write it as 2026-01-15T08:00:00Z"));
        }
        nanos.map(Timestamp::from_nanos)
    }

    /// Any span at all; bounds are the caller's.
    pub(super) fn span(&mut self, node: &Node, name: &str) -> Option<Duration> {
        let span = match &node.tree {
            Tree::Text(text) => span::parse(text),
            _ => None,
        };
        if span.is_none() {
            self.fault(
                Fault::at(node.at, format!("`{name}` is no span of time"))
                    .next("write a whole number and a unit: 90s, 15m, 4h, 2d"),
            );
        }
        span
    }

    pub(super) fn span_in(
        &mut self,
        section: &Section<'_>,
        name: &str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(node) = section.get(name) else {
            return default;
        };
        let Some(span) = self.span(node, name) else {
            return default;
        };
        if !range.contains(&span) {
            let (min, max) = (span::words(*range.start()), span::words(*range.end()));
            let what = format!("`{name}` is {}, wanted {min} to {max}", span::words(span));
            self.fault(Fault::at(node.at, what));
        }
        span
    }

    pub(super) fn number_in<T>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        range: RangeInclusive<T>,
        default: T,
    ) -> T
    where
        T: Copy + PartialOrd + std::fmt::Display + TryFrom<i64>,
    {
        let Some(node) = section.get(name) else {
            return default;
        };
        let number = match node.tree {
            Tree::Integer(number) => T::try_from(number)
                .ok()
                .filter(|number| range.contains(number)),
            _ => None,
        };
        number.unwrap_or_else(|| {
            let (min, max) = (range.start(), range.end());
            let what = format!("`{name}` is no whole number from {min} to {max}");
            self.fault(Fault::at(node.at, what));
            default
        })
    }

    pub(super) fn one_of<T: Copy>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        known: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(node) = section.get(name) else {
            return default;
        };
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        match node.text(&format!("`{name}`")) {
            Err(fault) => self.fault(fault),
            Ok(text) => match known.iter().find(|(name, _)| *name == text) {
                Some((_, value)) => return *value,
                None => self.fault(
                    Fault::at(node.at, format!("`{name}` is `{text}`"))
                        .next(suggestion(text, &names)),
                ),
            },
        }
        default
    }
}
