//! The facts a verdict stands on, as bytes that are the same for the same facts.
//!
//! Canonical JSON (sorted keys, no white space) of [`EVIDENCE_SCHEMA`]; docs/schema/evidence.json
//! describes it. No times, so that an unchanged host gives unchanged bytes. Bounded: of a long list
//! the first elements and the count are kept, never more than [`EVIDENCE_BYTES_MAX`] altogether.

use std::{borrow::Cow, error, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::trace::{ELEMENTS_MAX, Elements, Tally};
use crate::{
    facts::{Reason, Unknown},
    rule::{Found, Selector, canonical_json, scalar, wording, write_canonical},
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
            bytes.clear();
            render(rule, consulted, allowance, &mut bytes);
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
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text
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

    /// The entry of one fact. Keys in the order of the canonical form.
    fn render(&self, fact: &str, (elements_max, chars_max): (usize, usize), out: &mut Vec<u8>) {
        out.push(b'{');
        match self {
            Self::Absent => {
                out.extend_from_slice(b"\"absent\":true,");
                name(fact, out);
            }
            Self::Unknown(unknown) => {
                let detail = wording::bounded(&wording::escaped(&unknown.detail), DETAIL_CHARS_MAX);
                name(fact, out);
                out.extend_from_slice(b",\"unknown\":{\"detail\":");
                scalar(&detail, out);
                out.extend_from_slice(b",\"reason\":");
                scalar(unknown.reason.as_str(), out);
                out.push(b'}');
            }
            Self::Elements { count, elements } => {
                let kept = elements.iter().take(elements_max).copied().collect();
                part(fact, *count, kept, out);
            }
            Self::Value(value) => whole(fact, value, elements_max, chars_max, out),
        }
        out.push(b'}');
    }
}

/// The whole document.
fn render(
    rule: &str,
    consulted: &[(&str, Shown<'_>)],
    allowance: (usize, usize),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"facts\":[");
    for (index, (fact, shown)) in consulted.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        shown.render(fact, allowance, out);
    }
    out.extend_from_slice(b"],\"rule\":");
    scalar(rule, out);
    out.extend_from_slice(b",\"schema\":");
    scalar(EVIDENCE_SCHEMA, out);
    out.push(b'}');
}

fn name(fact: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"fact\":");
    scalar(fact, out);
}

fn counted(count: usize, cut: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"count\":");
    scalar(&count, out);
    out.push(b',');
    if cut > 0 {
        out.extend_from_slice(b"\"cut\":");
        scalar(&cut, out);
        out.push(b',');
    }
}

/// A value in full when it is within the allowance, else its first part.
fn whole(fact: &str, value: &Value, elements_max: usize, chars_max: usize, out: &mut Vec<u8>) {
    match value {
        Value::Array(list) if list.len() > elements_max => {
            let kept = list.iter().take(elements_max).map(|item| (None, item));
            part(fact, list.len(), kept.collect(), out);
        }
        Value::Object(map) if map.len() > elements_max => {
            let kept = map
                .iter()
                .take(elements_max)
                .map(|(key, item)| (Some(key.as_str()), item));
            part(fact, map.len(), kept.collect(), out);
        }
        Value::String(text) if text.len() > chars_max && text.chars().count() > chars_max => {
            let count = text.chars().count();
            counted(
                count,
                if chars_max > 0 { count - chars_max } else { 0 },
                out,
            );
            name(fact, out);
            if chars_max > 0 {
                let kept: String = text.chars().take(chars_max).collect();
                out.extend_from_slice(b",\"value\":");
                scalar(&kept, out);
            }
        }
        value => {
            name(fact, out);
            out.extend_from_slice(b",\"value\":");
            write_canonical(value, out);
        }
    }
}

/// Some of `count` elements. Without any, the count stands alone: somebody looked, nothing to show.
fn part(fact: &str, count: usize, mut kept: Vec<(Option<&str>, &Value)>, out: &mut Vec<u8>) {
    if kept.is_empty() {
        counted(count, 0, out);
        name(fact, out);
        return;
    }
    counted(count, count - kept.len(), out);
    name(fact, out);
    out.extend_from_slice(b",\"value\":");
    let keyed = kept.iter().all(|(key, _)| key.is_some());
    out.push(if keyed { b'{' } else { b'[' });
    if keyed {
        kept.sort_unstable_by_key(|(key, _)| *key);
    }
    for (index, (key, item)) in kept.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if let (true, Some(key)) = (keyed, key) {
            scalar(key, out);
            out.push(b':');
        }
        write_canonical(item, out);
    }
    out.push(if keyed { b'}' } else { b']' });
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
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return refuse(error.to_string()),
    };
    // A name that is there twice, too: only one of the two is in `value`.
    if canonical_json(&value) != bytes {
        return refuse("not in canonical form".to_owned());
    }
    let document = match EvidenceDocument::deserialize(value) {
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
    Ok(document)
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
