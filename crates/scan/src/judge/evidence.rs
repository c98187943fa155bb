//! The facts a verdict stands on, as bytes that are the same for the same facts.
//!
//! Canonical JSON (sorted keys, no white space) of [`EVIDENCE_SCHEMA`]; docs/schema/evidence.json
//! describes it. No times, so that an unchanged host gives unchanged bytes. Bounded: of a long list
//! the first elements and the count are kept, never more than [`EVIDENCE_BYTES_MAX`] altogether.

use std::{borrow::Cow, error, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::trace::{ELEMENTS_MAX, Elements, Tally};
use crate::{
    facts::{Reason, Unknown},
    rule::{Found, Selector, canonical_json, wording},
};

pub const EVIDENCE_SCHEMA: &str = "holdfast.evidence/1";
/// The ledger's limit for one rule.
pub const EVIDENCE_BYTES_MAX: usize = 256 * 1024;

/// Characters of an unknown's detail that are kept.
const DETAIL_CHARS_MAX: usize = 300;

/// Elements of a list or map and characters of a text that are kept, tried in order until the whole
/// fits. The last keeps counts only: at most 512 facts of at most 512 bytes of selector would then
/// fill the limit, and a rule has far fewer.
const ALLOWANCES: [(usize, usize); 4] = [(ELEMENTS_MAX, 4096), (20, 1024), (5, 256), (0, 0)];

/// Canonical bytes and their SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    bytes: Vec<u8>,
    digest: String,
}

impl Evidence {
    pub(super) fn of(rule: &str, consulted: &[(&str, Shown<'_>)]) -> Self {
        let mut bytes = Vec::new();
        for allowance in ALLOWANCES {
            let facts = consulted
                .iter()
                .map(|(fact, shown)| shown.render(fact, allowance))
                .collect();
            let mut document = Map::new();
            document.insert("schema".to_owned(), EVIDENCE_SCHEMA.into());
            document.insert("rule".to_owned(), rule.into());
            document.insert("facts".to_owned(), Value::Array(facts));
            bytes = canonical_json(&Value::Object(document));
            if bytes.len() <= EVIDENCE_BYTES_MAX {
                break;
            }
        }
        let digest = digest(&bytes);
        Self { bytes, digest }
    }

    /// Canonical JSON.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of [`Self::bytes`], 64 lower case hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// SHA-256 in lower case hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16");
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// One consulted fact on its way into the evidence.
#[derive(Clone, Debug)]
pub(super) enum Shown<'a> {
    Value(Cow<'a, Value>),
    Absent,
    Unknown(Unknown),
    /// Some elements of a collection of `count`.
    Elements {
        count: usize,
        elements: Vec<(Option<&'a str>, &'a Value)>,
    },
}

impl<'a> Shown<'a> {
    pub(super) fn found(found: &Found<'a>) -> Self {
        match found {
            Found::Present(value) => Self::Value(value.clone()),
            Found::Absent => Self::Absent,
            Found::Unknown(unknown) => Self::Unknown(unknown.clone()),
            Found::Malformed(what) => Self::Unknown(Unknown::new(Reason::Malformed, what.as_str())),
        }
    }

    pub(super) fn counted(count: usize) -> Self {
        Self::Elements {
            count,
            elements: Vec::new(),
        }
    }

    pub(super) fn tally(tally: &Tally<'a>) -> Self {
        if let Some(missing) = &tally.missing {
            return Self::found(missing);
        }
        let all: [&Elements<'a>; 3] = [&tally.decisive, &tally.undecided, &tally.rejected];
        let elements = all.into_iter().flat_map(|elements| &elements.first);
        let elements = elements
            .map(|element| (element.key, element.item))
            .take(ELEMENTS_MAX)
            .collect();
        Self::Elements {
            count: tally.total,
            elements,
        }
    }

    /// The same fact was looked at again.
    pub(super) fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Elements { elements, .. }, Self::Elements { elements: more, .. }) => {
                for (key, item) in more {
                    let known = elements
                        .iter()
                        .any(|(k, i)| *k == key && std::ptr::eq(*i, item));
                    if !known && elements.len() < ELEMENTS_MAX {
                        elements.push((key, item));
                    }
                }
            }
            (Self::Elements { .. }, whole @ Self::Value(_)) => *self = whole,
            _ => {}
        }
    }

    fn render(&self, fact: &str, (elements_max, chars_max): (usize, usize)) -> Value {
        let mut entry = Map::new();
        entry.insert("fact".to_owned(), fact.into());
        match self {
            Self::Absent => {
                entry.insert("absent".to_owned(), true.into());
            }
            Self::Unknown(unknown) => {
                let detail = wording::bounded(&wording::escaped(&unknown.detail), DETAIL_CHARS_MAX);
                let mut inner = Map::new();
                inner.insert("reason".to_owned(), unknown.reason.as_str().into());
                inner.insert("detail".to_owned(), detail.into());
                entry.insert("unknown".to_owned(), Value::Object(inner));
            }
            Self::Elements { count, elements } => {
                let kept = elements.iter().take(elements_max).copied().collect();
                part(&mut entry, *count, kept);
            }
            Self::Value(value) => whole(&mut entry, value, elements_max, chars_max),
        }
        Value::Object(entry)
    }
}

/// A value in full when it is within the allowance, else its first part.
fn whole(entry: &mut Map<String, Value>, value: &Value, elements_max: usize, chars_max: usize) {
    match value {
        Value::Array(list) if list.len() > elements_max => {
            part(
                entry,
                list.len(),
                list.iter()
                    .take(elements_max)
                    .map(|item| (None, item))
                    .collect(),
            );
        }
        Value::Object(map) if map.len() > elements_max => {
            let kept = map
                .iter()
                .take(elements_max)
                .map(|(key, item)| (Some(key.as_str()), item));
            part(entry, map.len(), kept.collect());
        }
        Value::String(text) if text.chars().count() > chars_max => {
            let count = text.chars().count();
            entry.insert("count".to_owned(), count.into());
            if chars_max > 0 {
                entry.insert(
                    "value".to_owned(),
                    text.chars().take(chars_max).collect::<String>().into(),
                );
                entry.insert("cut".to_owned(), (count - chars_max).into());
            }
        }
        value => {
            entry.insert("value".to_owned(), value.clone());
        }
    }
}

/// Some of `count` elements. Without any, the count stands alone: somebody looked, nothing to show.
fn part(entry: &mut Map<String, Value>, count: usize, kept: Vec<(Option<&str>, &Value)>) {
    entry.insert("count".to_owned(), count.into());
    if kept.is_empty() {
        return;
    }
    if kept.len() < count {
        entry.insert("cut".to_owned(), (count - kept.len()).into());
    }
    let keyed = kept.iter().all(|(key, _)| key.is_some());
    let value = if keyed {
        let pairs = kept
            .into_iter()
            .map(|(key, item)| (key.unwrap_or_default().to_owned(), item.clone()));
        Value::Object(pairs.collect())
    } else {
        Value::Array(kept.into_iter().map(|(_, item)| item.clone()).collect())
    };
    entry.insert("value".to_owned(), value);
}

/// Evidence as it is read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceDocument {
    pub schema: String,
    pub rule: String,
    pub facts: Vec<ConsultedFact>,
}

/// One fact: its value, or that it is absent or unknown, or only how many elements it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsultedFact {
    pub fact: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<ConsultedUnknown>,
    /// Elements of a list or map, or characters of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// How many of `count` are not in `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsultedUnknown {
    pub reason: Reason,
    pub detail: String,
}

/// Why bytes are no evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceError(String);

impl fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for EvidenceError {}

/// Reads evidence of `rule` strictly: size, schema, the rule's id, the shape of every fact, and the
/// canonical form, so that one set of facts has one digest.
pub fn validate_evidence(bytes: &[u8], rule: &str) -> Result<EvidenceDocument, EvidenceError> {
    let refuse = |what: String| Err(EvidenceError(format!("evidence of {rule}: {what}")));
    if bytes.len() > EVIDENCE_BYTES_MAX {
        return refuse(format!(
            "{} bytes, more than {EVIDENCE_BYTES_MAX}",
            bytes.len()
        ));
    }
    let document: EvidenceDocument = match serde_json::from_slice(bytes) {
        Ok(document) => document,
        Err(error) => return refuse(error.to_string()),
    };
    if document.schema != EVIDENCE_SCHEMA {
        return refuse(format!(
            "schema `{}`, wanted `{EVIDENCE_SCHEMA}`",
            document.schema
        ));
    }
    if document.rule != rule {
        return refuse(format!("it is of the rule `{}`", document.rule));
    }
    for fact in &document.facts {
        if let Err(what) = fact.check() {
            return refuse(format!("the fact `{}` {what}", fact.fact));
        }
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) if canonical_json(&value) == bytes => Ok(document),
        _ => refuse("not in canonical form".to_owned()),
    }
}

impl ConsultedFact {
    fn check(&self) -> Result<(), String> {
        if Selector::parse(&self.fact).map_or(true, |selector| selector.collector().is_none()) {
            return Err("is not named by a selector".to_owned());
        }
        let counted = self.count.is_some() || self.cut.is_some();
        match (&self.value, self.absent, &self.unknown) {
            (None, Some(true), None) | (None, None, Some(_)) if !counted => Ok(()),
            (None, None, None) if self.count.is_some() && self.cut.is_none() => Ok(()),
            (Some(value), None, None) => self.check_count(value),
            _ => Err("is not exactly one of value, absent, unknown and count".to_owned()),
        }
    }

    fn check_count(&self, value: &Value) -> Result<(), String> {
        let held = match value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.chars().count(),
            _ => 0,
        };
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        match (self.count, self.cut) {
            (None, None) => Ok(()),
            (Some(count), None) if count == held => Ok(()),
            (Some(count), Some(cut)) if cut > 0 && held.checked_add(cut) == Some(count) => Ok(()),
            _ => Err("has a count that does not fit".to_owned()),
        }
    }
}
