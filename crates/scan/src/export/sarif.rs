//! SARIF 2.1.0: one run, an invocation for each host, a result for each verdict.
//!
//! One run and not one for each host, because each run repeats every rule. Hosts are told apart by the
//! invocation, the logical location and a location `hosts/NAME`, which viewers of code want.

use std::{collections::BTreeMap, io::Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Error, Written,
    identity::uuid,
    json::Members,
    source::{Finding, HostReport, Source, Survey, failure, references},
    text::{rfc3339, visible},
};
use crate::{
    judge::{Outcome, hex},
    rule::{Rule, Severity},
};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

pub(super) fn write(source: &mut Source<'_>, out: &mut dyn Write) -> Result<Written, Error> {
    let survey = source.survey()?;
    let index: BTreeMap<&str, usize> = survey.rules.keys().map(String::as_str).zip(0..).collect();
    let mut written = Written::default();
    write!(
        out,
        "{{\"$schema\":\"{SCHEMA}\",\"version\":\"2.1.0\",\"runs\":[{{\"tool\":{{\"driver\":{{\
         \"name\":\"Holdfast\",\"version\":\"{version}\",\"semanticVersion\":\"{version}\",\"rules\":[",
        version = env!("CARGO_PKG_VERSION")
    )?;
    let mut members = Members::of(out);
    for (id, severity) in &survey.rules {
        members.push(&descriptor(id, *severity, source.rule(id)))?;
    }
    let guid = uuid("sarif", &[&survey.digest]);
    write!(
        out,
        "]}}}},\"automationDetails\":{{\"id\":\"holdfast/\",\"guid\":\"{guid}\"}},\
         \"columnKind\":\"unicodeCodePoints\",\"invocations\":["
    )?;
    invocations(&survey, out)?;
    out.write_all(b"],\"results\":[")?;
    let mut members = Members::of(out);
    source.each_host(|source, host| {
        let place = usize::try_from(written.hosts).unwrap_or(usize::MAX);
        written.hosts += 1;
        for finding in source.findings(host) {
            written.rows += 1;
            let rule = index.get(finding.state.rule.as_str()).copied();
            members.push(&result(host, &finding, rule, place))?;
        }
        Ok(())
    })?;
    out.write_all(b"]}]}\n")?;
    Ok(written)
}

fn descriptor(id: &str, severity: Severity, rule: Option<&Rule>) -> Value {
    let mut descriptor = json!({
        "id": id,
        "defaultConfiguration": {"level": level(severity)},
        "properties": {"severity": severity, "security-severity": number(severity)},
    });
    if let Some(rule) = rule {
        let tags: Vec<String> = references(Some(rule))
            .map(|(framework, control)| format!("{framework}/{control}"))
            .collect();
        descriptor["shortDescription"] = message(&rule.title);
        descriptor["fullDescription"] = message(&rule.description);
        descriptor["help"] = message(&format!("{}\n\n{}", rule.rationale, rule.fix.summary));
        descriptor["properties"]["tags"] = tags.into();
    }
    descriptor
}

fn invocations(survey: &Survey, out: &mut dyn Write) -> Result<(), Error> {
    let mut members = Members::of(out);
    for host in &survey.hosts {
        let mut notes = Vec::new();
        if host.scan.is_none() {
            notes.push(notification("never scanned"));
        }
        if let Some(failed) = &host.failed {
            notes.push(notification(&failure(failed)));
        }
        let mut invocation = json!({
            "machine": host.name,
            "executionSuccessful": notes.is_empty(),
        });
        if let Some((scan, started, finished)) = &host.scan {
            invocation["startTimeUtc"] = rfc3339(*started).into();
            invocation["endTimeUtc"] = rfc3339(*finished).into();
            invocation["properties"] = json!({"scan_id": scan, "summary": host.summary});
        }
        if !notes.is_empty() {
            invocation["toolExecutionNotifications"] = notes.into();
        }
        members.push(&invocation)?;
    }
    Ok(())
}

fn notification(text: &str) -> Value {
    json!({"level": "error", "message": message(text)})
}

fn result(
    host: &HostReport,
    finding: &Finding<'_>,
    rule: Option<usize>,
    invocation: usize,
) -> Value {
    let state = finding.state;
    let level = match state.verdict {
        Outcome::Fail => level(state.severity),
        _ => "none",
    };
    let mut result = json!({
        "ruleId": state.rule,
        "ruleIndex": rule,
        "kind": kind(state.verdict),
        "level": level,
        "message": message(&said(finding)),
        "guid": uuid("verdict", &[&host.name, &state.rule, &state.evidence, state.verdict.name()]),
        "correlationGuid": uuid("finding", &[&host.name, &state.rule]),
        "locations": [{
            "physicalLocation": {"artifactLocation": {"uri": format!("hosts/{}", encoded(&host.name))}},
            "logicalLocations": [{"name": host.name, "kind": "host"}],
        }],
        "partialFingerprints": {"hostAndRule/v1": fingerprint(&host.name, &state.rule)},
        "provenance": {
            "firstDetectionTimeUtc": rfc3339(state.first_seen),
            "invocationIndex": invocation,
        },
        "properties": {
            "verdict": state.verdict,
            "severity": state.severity,
            "evidence": {"sha256": state.evidence},
            "changed": rfc3339(state.changed),
        },
    });
    if let Some(waiver) = finding.waiver {
        result["suppressions"] = json!([{
            "kind": "external",
            "status": "accepted",
            "guid": uuid("waiver", &[&waiver.id.to_string()]),
            "justification": finding.waived(),
        }]);
    }
    result
}

fn said(finding: &Finding<'_>) -> String {
    let verdict = match finding.state.verdict {
        Outcome::Pass | Outcome::Fail => "",
        Outcome::NotApplicable => "not applicable: ",
        Outcome::NotAssessed => "not assessed: ",
        Outcome::Error => "the rule could not be judged: ",
    };
    format!("{} ({verdict}{})", finding.title(), finding.state.reason)
}

/// `open` is what SARIF calls a rule that could not be decided for want of information.
const fn kind(verdict: Outcome) -> &'static str {
    match verdict {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::NotApplicable => "notApplicable",
        Outcome::NotAssessed | Outcome::Error => "open",
    }
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    }
}

/// What GitHub sorts by: the middle of the range of each of its four words.
const fn number(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Medium => "5.5",
        Severity::Low => "2.0",
    }
}

fn message(text: &str) -> Value {
    let lines: Vec<_> = text.split('\n').map(visible).collect();
    let text = lines.join("\n");
    json!({"text": if text.trim().is_empty() { "-" } else { text.as_str() }})
}

fn fingerprint(host: &str, rule: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(host.as_bytes());
    hash.update([0]);
    hash.update(rule.as_bytes());
    hex(&hash.finalize())
}

/// A segment of a URI: all that is not unreserved, percent-encoded.
pub(super) fn encoded(segment: &str) -> String {
    let mut uri = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}
