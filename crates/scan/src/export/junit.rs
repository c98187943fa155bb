//! JUnit XML for whatever gates a pipeline: a suite for each host, a case for each rule.
//!
//! What was not assessed is an error and not skipped: a pipeline takes skipped cases for green.

use std::io::Write;

use super::{
    Error, Written,
    source::{Finding, HostReport, Source},
    text::rfc3339,
    xml::Xml,
};
use crate::judge::Outcome;

/// A case of its own in each suite: whether what the suite says is what the host is.
const SCAN: &str = "holdfast scan";

pub(super) fn write(source: &mut Source<'_>, out: &mut dyn Write) -> Result<Written, Error> {
    let mut written = Written::default();
    let mut xml = Xml::new(out)?;
    xml.open("testsuites", &[("name", "holdfast")])?;
    source.each_host(|source, host| {
        let findings = source.findings(host);
        written.hosts += 1;
        written.rows += findings.len() as u64;
        suite(&mut xml, host, &findings)
    })?;
    xml.close()?;
    Ok(written)
}

fn suite(xml: &mut Xml<'_>, host: &HostReport, findings: &[Finding<'_>]) -> Result<(), Error> {
    let summary = host.summary();
    let stale = unscanned(host);
    let errors = summary.error + summary.not_assessed + u64::from(stale.is_some());
    let tests = (findings.len() as u64 + 1).to_string();
    let (failures, errors) = (summary.fail.to_string(), errors.to_string());
    let skipped = summary.not_applicable.to_string();
    let finished = host.status.as_ref().map(|status| {
        let time = rfc3339(status.scan.finished);
        // The schemas of JUnit know no zone; everything here is UTC.
        time.trim_end_matches('Z').to_owned()
    });
    let mut attributes = vec![
        ("name", host.name.as_str()),
        ("tests", &tests),
        ("failures", &failures),
        ("errors", &errors),
        ("skipped", &skipped),
        ("hostname", &host.name),
    ];
    if let Some(finished) = &finished {
        attributes.push(("timestamp", finished));
    }
    xml.open("testsuite", &attributes)?;
    let class = host.name.as_str();
    match &stale {
        None => xml.empty("testcase", &[("classname", class), ("name", SCAN)])?,
        Some(why) => {
            xml.open("testcase", &[("classname", class), ("name", SCAN)])?;
            xml.empty("error", &[("type", "stale"), ("message", why)])?;
            xml.close()?;
        }
    }
    for finding in findings {
        case(xml, class, finding)?;
    }
    Ok(xml.close()?)
}

fn unscanned(host: &HostReport) -> Option<String> {
    match (&host.status, host.failure()) {
        (_, Some(failure)) => Some(failure),
        (None, None) => Some("never scanned".to_owned()),
        (Some(_), None) => None,
    }
}

fn case(xml: &mut Xml<'_>, class: &str, finding: &Finding<'_>) -> Result<(), Error> {
    let state = finding.state;
    let attributes = [("classname", class), ("name", state.rule.as_str())];
    let element = match state.verdict {
        Outcome::Pass => return Ok(xml.empty("testcase", &attributes)?),
        Outcome::Fail => "failure",
        Outcome::NotApplicable => "skipped",
        Outcome::NotAssessed | Outcome::Error => "error",
    };
    xml.open("testcase", &attributes)?;
    let kind = match state.verdict {
        Outcome::Fail => state.severity.name(),
        other => other.name(),
    };
    let mut body = vec![finding.title().to_owned()];
    body.extend(finding.waived());
    body.push(format!("evidence sha-256 {}", state.evidence));
    xml.text(
        element,
        &[("type", kind), ("message", &state.reason)],
        &body.join("; "),
    )?;
    Ok(xml.close()?)
}
