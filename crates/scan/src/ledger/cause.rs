//! Why a verdict is another one: the host changed, or what it is judged by did (RUL-7).
//!
//! Decided from what both scans recorded, since facts are not kept: the rule as it is written, the
//! values that the site gave its variables, and the facts that the two verdicts rest on. Where a
//! changed rule looks at other facts than before, only those that both looked at are compared: what
//! nobody looked at before cannot be shown to have changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::row::State;
use crate::judge::{ConsultedFact, EvidenceDocument};

/// What changed between two verdicts of one rule on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Host,
    /// The rule, or whether it is in the pack.
    Rule,
    /// Values of its variables.
    Variables,
}

/// `host_changed` is asked only where something else changed too: otherwise it must have been the
/// host, or the time that its facts are measured against.
pub(super) fn causes(
    before: &State,
    after: &State,
    host_changed: impl FnOnce() -> bool,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    if before.definition() != after.definition() {
        causes.push(Cause::Rule);
    }
    if before.variables != after.variables {
        causes.push(Cause::Variables);
    }
    if causes.is_empty() || host_changed() {
        causes.insert(0, Cause::Host);
    }
    causes
}

/// Whether two evidences of one rule disagree on a fact. What cannot be read may have changed.
pub(super) fn facts_differ(before: Option<&[u8]>, after: Option<&[u8]>) -> bool {
    let (Some(before), Some(after)) = (before.and_then(facts), after.and_then(facts)) else {
        return true;
    };
    before
        .iter()
        .any(|(name, fact)| after.get(name).is_some_and(|other| other != fact))
}

fn facts(evidence: &[u8]) -> Option<BTreeMap<String, ConsultedFact>> {
    let document: EvidenceDocument = serde_json::from_slice(evidence).ok()?;
    let named = |fact: ConsultedFact| (fact.fact.clone(), fact);
    Some(document.facts.into_iter().map(named).collect())
}
