//! What the collectors brought back from one host, and what they could not bring back.
//!
//! Owns the bundle (`holdfast.facts/1`), the marker `$unknown` and the closed list of its reasons.
//! A part of a fact that could not be looked at is the object
//! `{"$unknown": {"reason": "privilege", "detail": "/etc/shadow"}}`, never a gap: a gap means that
//! the collector looked everywhere and found nothing. Selecting in facts and judging them belongs
//! to the rules.

use std::{collections::BTreeMap, error, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The layout of the bundle. A reader refuses any other.
pub const SCHEMA: &str = "holdfast.facts/1";

/// The only key of the object that stands for a part nobody could look at.
pub const UNKNOWN_KEY: &str = "$unknown";

/// Why a part of the facts is unknown. Closed: rules, reports and exports count by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The collector did not run, or its fact is not in the bundle.
    Missing,
    /// The host refused it to this user.
    Privilege,
    /// The host answered with an error other than a refusal.
    Unreadable,
    /// There was more than the cap; what was left out is unknown.
    Truncated,
    /// The program that answers the question is not installed.
    ToolMissing,
    /// The answer did not come before the deadline.
    Timeout,
    /// Nobody asked for this path.
    NotCollected,
    /// The host has it in a form the collector does not know.
    Unsupported,
    /// The text does not have the form its manual page gives.
    Malformed,
}

impl Reason {
    pub const ALL: [Self; 9] = [
        Self::Missing,
        Self::Privilege,
        Self::Unreadable,
        Self::Truncated,
        Self::ToolMissing,
        Self::Timeout,
        Self::NotCollected,
        Self::Unsupported,
        Self::Malformed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Privilege => "privilege",
            Self::Unreadable => "unreadable",
            Self::Truncated => "truncated",
            Self::ToolMissing => "tool_missing",
            Self::Timeout => "timeout",
            Self::NotCollected => "not_collected",
            Self::Unsupported => "unsupported",
            Self::Malformed => "malformed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A part that could not be looked at: why, and which object it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    pub reason: Reason,
    /// Names the object: a path, a command, a key.
    pub detail: String,
}

impl Unknown {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    /// The marker as it stands in a bundle.
    pub fn to_value(&self) -> Value {
        let mut inner = Map::new();
        inner.insert("reason".into(), self.reason.as_str().into());
        inner.insert("detail".into(), self.detail.as_str().into());
        let mut outer = Map::new();
        outer.insert(UNKNOWN_KEY.into(), Value::Object(inner));
        Value::Object(outer)
    }

    /// Reads the marker. `None` when `value` is an ordinary fact.
    ///
    /// A marker with a reason this version does not know still is a marker (`unsupported`): a
    /// bundle from a later version must never turn an unknown into a fact.
    pub fn from_value(value: &Value) -> Option<Self> {
        let marker = value.as_object()?.get(UNKNOWN_KEY)?;
        let text = |key| marker.get(key).and_then(Value::as_str).unwrap_or("");
        let reason = Reason::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text("reason"))
            .unwrap_or(Reason::Unsupported);
        Some(Self::new(reason, text("detail")))
    }
}

impl From<Unknown> for Value {
    fn from(unknown: Unknown) -> Self {
        unknown.to_value()
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// Whose facts these are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub hostname: String,
    /// Absent on a host without `/etc/machine-id`, or where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
}

/// One host's facts at one moment. Immutable evidence: ages are counted from `collected_at`.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub host: Host,
    pub collected_at: jiff::Timestamp,
    /// Program and version that collected them.
    pub collector: String,
    /// One entry a collector: its fact, or the marker `$unknown`.
    pub facts: Map<String, Value>,
    /// How long each collector took, in milliseconds.
    pub timings_ms: BTreeMap<String, u64>,
}

/// The bundle as it lies in JSON.
#[derive(Serialize, Deserialize)]
#[serde(expecting = "a fact bundle")]
struct Wire<'a> {
    schema: std::borrow::Cow<'a, str>,
    host: Host,
    collected_at: String,
    collector: String,
    facts: Map<String, Value>,
    #[serde(default)]
    timings_ms: BTreeMap<String, u64>,
}

impl Facts {
    /// The bundle as JSON text, one line.
    pub fn to_json(&self) -> String {
        let wire = Wire {
            schema: SCHEMA.into(),
            host: self.host.clone(),
            collected_at: self.collected_at.to_string(),
            collector: self.collector.clone(),
            facts: self.facts.clone(),
            timings_ms: self.timings_ms.clone(),
        };
        serde_json::to_string(&wire).expect("strings, numbers and JSON values always serialize")
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// Not JSON, not a bundle, another schema, or a `collected_at` that is not RFC 3339.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BundleError> {
        let wire: Wire<'_> = serde_json::from_slice(bytes)
            .map_err(|error| BundleError(format!("read a fact bundle: {error}")))?;
        if wire.schema != SCHEMA {
            return Err(BundleError(format!(
                "read a fact bundle of schema `{}`: this version reads `{SCHEMA}`",
                wire.schema
            )));
        }
        let collected_at = wire.collected_at.parse().map_err(|error| {
            BundleError(format!(
                "read a fact bundle: collected_at `{}`: {error}",
                wire.collected_at
            ))
        })?;
        Ok(Self {
            host: wire.host,
            collected_at,
            collector: wire.collector,
            facts: wire.facts,
            timings_ms: wire.timings_ms,
        })
    }
}

/// A text that is no fact bundle this version can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleError(String);

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for BundleError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Facts {
        let mut facts = Map::new();
        facts.insert("os".into(), serde_json::json!({"id": "debian"}));
        facts.insert(
            "shadow".into(),
            Unknown::new(Reason::Privilege, "/etc/shadow").into(),
        );
        Facts {
            host: Host {
                hostname: "press-3".into(),
                machine_id: None,
            },
            collected_at: "2026-01-15T00:00:00Z".parse().unwrap(),
            collector: "holdfast 0.1.0".into(),
            facts,
            timings_ms: BTreeMap::from([("os".into(), 1)]),
        }
    }

    #[test]
    fn a_bundle_survives_its_own_json() {
        let facts = bundle();
        assert_eq!(Facts::from_json(facts.to_json().as_bytes()), Ok(facts));
    }

    #[test]
    fn a_bundle_of_another_schema_or_shape_is_refused_by_name() {
        let check = |text: &str, part: &str| {
            let error = Facts::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        let good = bundle().to_json();
        check(&good.replace("facts/1", "facts/9"), "holdfast.facts/9");
        check(&good.replace("2026-01-15T", "yesterday "), "yesterday");
        check("{}", "schema");
        check("\u{0}\u{1}", "expected value");
    }

    #[test]
    fn every_reason_is_read_back_and_a_strange_one_stays_unknown() {
        for reason in Reason::ALL {
            let unknown = Unknown::new(reason, "/etc/shadow");
            assert_eq!(Unknown::from_value(&unknown.to_value()), Some(unknown));
        }
        let strange = serde_json::json!({"$unknown": {"reason": "mood"}});
        assert_eq!(
            Unknown::from_value(&strange).unwrap().reason,
            Reason::Unsupported
        );
        assert_eq!(Unknown::from_value(&serde_json::json!({"a": 1})), None);
    }
}
