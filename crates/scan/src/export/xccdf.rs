//! XCCDF 1.2: a benchmark of the rules that were judged, with a TestResult for each host that was
//! scanned. The benchmark is there so that the results have something to refer to; its rules carry no
//! check that another program could run.

use std::io::Write;

use super::{
    Error, Written,
    identity::uuid,
    source::{Finding, HostReport, Source, Survey, references},
    text::{moment, rfc3339},
    xml::Xml,
};
use crate::{
    judge::Outcome,
    ledger::Status,
    rule::{Rule, Severity},
};

const NAMESPACE: &str = "http://checklists.nist.gov/xccdf/1.2";
const BENCHMARK: &str = "xccdf_holdfast_benchmark_rules";
/// Evidence under a digest, where the check of a rule is told.
const EVIDENCE: &str = "urn:holdfast:evidence:sha-256";
/// Defined by XCCDF: passes counted against all that applies, what could not be assessed included.
const SCORING: &str = "urn:xccdf:scoring:flat-unweighted";

pub(super) fn write(source: &mut Source<'_>, out: &mut dyn Write) -> Result<Written, Error> {
    let survey = source.survey()?;
    let at = moment(source.at);
    let mut xml = Xml::new(out)?;
    xml.open(
        "Benchmark",
        &[
            ("xmlns", NAMESPACE),
            ("id", BENCHMARK),
            ("resolved", "true"),
            ("xml:lang", "en"),
        ],
    )?;
    xml.text("status", &[("date", &at[..10])], "accepted")?;
    xml.text("title", &[], "Holdfast")?;
    xml.text("description", &[], &described(&survey, &at))?;
    xml.text("version", &[("time", &at)], env!("CARGO_PKG_VERSION"))?;
    for (id, severity) in &survey.rules {
        rule(&mut xml, id, *severity, source.rule(id))?;
    }
    let mut written = Written::default();
    source.each_host(|source, host| {
        written.hosts += 1;
        let findings = source.findings(host);
        written.rows += findings.len() as u64;
        match &host.status {
            // A TestResult has at least one result.
            Some(status) if !findings.is_empty() => {
                test_result(&mut xml, host, status, &findings, &at)
            }
            _ => Ok(()),
        }
    })?;
    xml.close()?;
    Ok(written)
}

fn described(survey: &Survey, at: &str) -> String {
    let lacking: Vec<&str> = survey
        .hosts
        .iter()
        .filter(|host| host.scan.is_none())
        .map(|host| host.name.as_str())
        .collect();
    let scanned = survey.hosts.len() - lacking.len();
    let mut text = format!("Verdicts of {scanned} hosts as they were at {at}.");
    if !lacking.is_empty() {
        text.push_str(&format!(" Never scanned: {}.", lacking.join(", ")));
    }
    text
}

fn rule_id(id: &str) -> String {
    format!("xccdf_holdfast_rule_{}", name(id))
}

/// What may stand in an id; anything else as its code point, `_` included, so that no two are one.
fn name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '-' || c == '.' {
            name.push(c);
        } else {
            name.push_str(&format!("_{:X}_", u32::from(c)));
        }
    }
    name
}

const fn severity_name(severity: Severity) -> &'static str {
    match severity {
        // XCCDF ends at `high`.
        Severity::Critical | Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
    }
}

fn rule(xml: &mut Xml<'_>, id: &str, severity: Severity, rule: Option<&Rule>) -> Result<(), Error> {
    let xccdf_id = rule_id(id);
    xml.open(
        "Rule",
        &[
            ("id", &xccdf_id),
            ("selected", "true"),
            ("severity", severity_name(severity)),
        ],
    )?;
    xml.text("title", &[], rule.map_or(id, |rule| &rule.title))?;
    if let Some(rule) = rule {
        xml.text("description", &[], &rule.description)?;
        for (framework, control) in references(Some(rule)) {
            let href = format!("urn:holdfast:framework:{framework}");
            xml.text("reference", &[("href", &href)], control)?;
        }
        if !rule.rationale.is_empty() {
            xml.text("rationale", &[], &rule.rationale)?;
        }
    }
    xml.text("ident", &[("system", "urn:holdfast:rule")], id)?;
    if let Some(rule) = rule.filter(|rule| !rule.fix.summary.is_empty()) {
        xml.text("fixtext", &[], &rule.fix.summary)?;
    }
    Ok(xml.close()?)
}

fn test_result(
    xml: &mut Xml<'_>,
    host: &HostReport,
    status: &Status,
    findings: &[Finding<'_>],
    at: &str,
) -> Result<(), Error> {
    let unique = uuid("result", &[&host.name, &status.scan.scan_id, at]);
    let id = format!("xccdf_holdfast_testresult_{unique}");
    xml.open(
        "TestResult",
        &[
            ("id", &id),
            ("start-time", &rfc3339(status.scan.started)),
            ("end-time", &rfc3339(status.scan.finished)),
            (
                "test-system",
                concat!("cpe:/a:holdfast:holdfast:", env!("CARGO_PKG_VERSION")),
            ),
            ("version", env!("CARGO_PKG_VERSION")),
        ],
    )?;
    xml.text("title", &[], &format!("Verdicts of {}", host.name))?;
    if let Some(failure) = host.failure() {
        xml.text(
            "remark",
            &[],
            &format!("Older than they should be: {failure}"),
        )?;
    }
    xml.name("target", &host.name)?;
    xml.open("target-facts", &[])?;
    let fact = |xml: &mut Xml<'_>, name: &str, value: &str| {
        let name = format!("urn:holdfast:fact:{name}");
        xml.text("fact", &[("name", &name), ("type", "string")], value)
    };
    fact(xml, "scan-id", &status.scan.scan_id)?;
    if !host.site().is_empty() {
        fact(xml, "site", host.site())?;
    }
    xml.close()?;
    for finding in findings {
        rule_result(xml, finding, status.scan.finished)?;
    }
    let summary = host.summary();
    let judged = summary.pass + summary.fail + summary.not_assessed + summary.error;
    xml.text(
        "score",
        &[("system", SCORING), ("maximum", &judged.to_string())],
        &summary.pass.to_string(),
    )?;
    Ok(xml.close()?)
}

fn rule_result(xml: &mut Xml<'_>, finding: &Finding<'_>, finished: u64) -> Result<(), Error> {
    let state = finding.state;
    xml.open(
        "rule-result",
        &[
            ("idref", &rule_id(&state.rule)),
            ("time", &rfc3339(finished)),
            ("severity", severity_name(state.severity)),
        ],
    )?;
    xml.text("result", &[], result(state.verdict))?;
    xml.text("ident", &[("system", "urn:holdfast:rule")], &state.rule)?;
    let kind = match state.verdict {
        Outcome::Error => "error",
        Outcome::NotAssessed => "warning",
        _ => "info",
    };
    xml.text("message", &[("severity", kind)], &state.reason)?;
    if let Some(waived) = finding.waived() {
        xml.text("message", &[("severity", "info")], &waived)?;
    }
    xml.open("check", &[("system", EVIDENCE)])?;
    let href = format!("evidence/{}.json", state.evidence);
    xml.empty(
        "check-content-ref",
        &[("href", &href), ("name", &state.evidence)],
    )?;
    xml.close()?;
    Ok(xml.close()?)
}

/// `unknown` and not `notchecked`: the rule was tried, and it counts against the score.
const fn result(verdict: Outcome) -> &'static str {
    match verdict {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::NotApplicable => "notapplicable",
        Outcome::NotAssessed => "unknown",
        Outcome::Error => "error",
    }
}
