//! OSCAL 1.1.3 assessment results, JSON: a result for each host, an observation for each verdict, a
//! finding for each control that rules name, evidence in the back matter.
//!
//! OSCAL knows two states of a finding. Only a control whose rules all pass, those that do not apply
//! left out, is `satisfied`; one of which anything fails or could not be assessed is `not-satisfied`,
//! with the reason `fail` or `other`. Benchmarks of one platform (the `cis_` references) are told in
//! observations and make no findings: the ledger does not know which of them is the host's.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Error, Written,
    identity::uuid,
    json::Members,
    source::{Finding, HostReport, Source, Survey},
    text::{moment, rfc3339, visible},
};
use crate::judge::Outcome;

const VERSION: &str = "1.1.3";
/// Names the properties that are ours. A URI that claims nobody's domain, with the slashes that some
/// readers of OSCAL take for a part of every URI.
const NAMESPACE: &str = "holdfast://oscal";
/// A finding for each control is about all of it, wherever the rules say so.
const ONE_PLATFORM: &str = "cis_";

pub(super) fn write(source: &mut Source<'_>, out: &mut dyn Write) -> Result<Written, Error> {
    let survey = source.survey()?;
    let plan = uuid("no assessment plan", &[&survey.digest]);
    let head = heading(&survey, &moment(source.at), &plan);
    write!(out, "{{\"assessment-results\":{head}")?;
    out.write_all(b",\"results\":[")?;
    let mut written = Written::default();
    let mut evidence = BTreeSet::new();
    let mut members = Members::of(out);
    source.each_host(|source, host| {
        let findings = source.findings(host);
        written.hosts += 1;
        written.rows += findings.len() as u64;
        evidence.extend(
            findings
                .iter()
                .map(|finding| finding.state.evidence.clone()),
        );
        members.push(&result(host, &findings, &moment(source.at)))?;
        Ok(())
    })?;
    if written.hosts == 0 {
        members.push(&nothing(&survey, &moment(source.at)))?;
    }
    out.write_all(b"],\"back-matter\":{\"resources\":[")?;
    let mut members = Members::of(out);
    members.push(&json!({
        "uuid": plan,
        "title": "No assessment plan",
        "description": "What is assessed are the rules that are installed and the hosts that are watched; \
                        no assessment plan is written down in OSCAL.",
    }))?;
    for digest in &evidence {
        members.push(&resource(digest, source.evidence(digest)?))?;
    }
    out.write_all(b"]}}}\n")?;
    Ok(written)
}

/// Without its last brace: the results follow.
fn heading(survey: &Survey, at: &str, plan: &str) -> String {
    let document = json!({
        "uuid": uuid("oscal", &[&survey.digest]),
        "metadata": {
            "title": format!("Holdfast: verdicts of {} hosts at {at}", survey.hosts.len()),
            "last-modified": at,
            "version": at,
            "oscal-version": VERSION,
            "props": [property("generator", concat!("holdfast ", env!("CARGO_PKG_VERSION")))],
        },
        "import-ap": {"href": format!("#{plan}")},
    });
    let mut text = document.to_string();
    text.pop();
    text
}

fn property(name: &str, value: &str) -> Value {
    json!({"name": name, "ns": NAMESPACE, "value": line(value)})
}

/// A value of a property is one line that neither begins nor ends with white space.
fn line(text: &str) -> String {
    let text = visible(text);
    match text.trim() {
        "" => "-".to_owned(),
        text => text.to_owned(),
    }
}

fn item(host: &str) -> String {
    uuid("host", &[host])
}

fn observed(host: &str, finding: &Finding<'_>) -> String {
    let state = finding.state;
    let parts = [host, &state.rule, &state.evidence, state.verdict.name()];
    uuid("observation", &parts)
}

fn risk(host: &str, rule: &str) -> String {
    uuid("risk", &[host, rule])
}

fn result(host: &HostReport, findings: &[Finding<'_>], at: &str) -> Value {
    let scan = host.status.as_ref().map(|status| &status.scan);
    let started = scan.map_or_else(|| at.to_owned(), |scan| rfc3339(scan.started));
    let counts = host.summary();
    let mut properties = vec![
        property("pass", &counts.pass.to_string()),
        property("fail", &counts.fail.to_string()),
        property("not_applicable", &counts.not_applicable.to_string()),
        property("not_assessed", &counts.not_assessed.to_string()),
        property("error", &counts.error.to_string()),
    ];
    properties.extend(
        counts
            .score
            .map(|score| property("score", &format!("{score:.1}"))),
    );
    properties.extend(scan.map(|scan| property("scan_id", &scan.scan_id)));
    properties.extend(host.failure().map(|failure| property("stale", &failure)));
    let description = match (scan, host.failure()) {
        (None, _) => "The host was never scanned: nothing about it is known.".to_owned(),
        (Some(_), Some(failure)) => format!("Verdicts are older than they should be: {failure}."),
        (Some(scan), None) => format!("Verdicts of the scan {}.", scan.scan_id),
    };
    let mut result = json!({
        "uuid": uuid("result", &[&host.name, scan.map_or("", |scan| &scan.scan_id), at]),
        "title": line(&host.name),
        "description": description,
        "start": started,
        "props": properties,
        "local-definitions": {"inventory-items": [inventory_item(host)]},
        "reviewed-controls": {"control-selections": [{"include-all": {}}]},
    });
    if let Some(scan) = scan {
        result["end"] = rfc3339(scan.finished).into();
    }
    let observations: Vec<Value> = findings
        .iter()
        .map(|finding| observation(host, finding))
        .collect();
    let risks: Vec<Value> = findings
        .iter()
        .filter_map(|finding| deviation(&host.name, finding))
        .collect();
    // Arrays of OSCAL have at least one member.
    for (name, members) in [
        ("observations", observations),
        ("risks", risks),
        ("findings", of_controls(&host.name, findings)),
    ] {
        if !members.is_empty() {
            result[name] = members.into();
        }
    }
    result
}

fn inventory_item(host: &HostReport) -> Value {
    let mut properties = vec![property("host", &host.name)];
    if !host.site().is_empty() {
        properties.push(property("site", host.site()));
    }
    properties.extend(host.groups().iter().map(|group| property("group", group)));
    json!({
        "uuid": item(&host.name),
        "description": line(&host.name),
        "props": properties,
    })
}

/// The one result of an export without a host: OSCAL asks for one.
fn nothing(survey: &Survey, at: &str) -> Value {
    json!({
        "uuid": uuid("no host", &[&survey.digest]),
        "title": "No host",
        "description": "No host is watched: nothing was assessed.",
        "start": at,
        "reviewed-controls": {"control-selections": [{"include-all": {}}]},
    })
}

fn observation(host: &HostReport, finding: &Finding<'_>) -> Value {
    let state = finding.state;
    let collected = host
        .status
        .as_ref()
        .map_or(0, |status| status.scan.finished);
    let mut properties = vec![
        property("rule", &state.rule),
        property("verdict", state.verdict.name()),
        property("severity", state.severity.name()),
        property("changed", &rfc3339(state.changed)),
        property("first_seen", &rfc3339(state.first_seen)),
        property("rule_digest", &state.rule_digest),
    ];
    properties.extend(
        finding
            .references()
            .map(|(framework, control)| property("reference", &format!("{framework}:{control}"))),
    );
    json!({
        "uuid": observed(&host.name, finding),
        "title": line(finding.title()),
        "description": format!("{}: {}", state.verdict, line(&state.reason)),
        "props": properties,
        "methods": ["TEST"],
        "subjects": [{
            "subject-uuid": item(&host.name),
            "type": "inventory-item",
            "title": line(&host.name),
        }],
        "relevant-evidence": [{
            "href": format!("#{}", uuid("evidence", &[&state.evidence])),
            "description": "The facts that the verdict rests on.",
        }],
        "collected": rfc3339(collected),
    })
}

/// A waived failure: the verdict stays, the deviation is told.
fn deviation(host: &str, finding: &Finding<'_>) -> Option<Value> {
    let waiver = finding.waiver?;
    let rule = &finding.state.rule;
    let approved = waiver.approved.as_ref().map_or("", |step| &step.by);
    Some(json!({
        "uuid": risk(host, rule),
        "title": line(&format!("{rule} is waived")),
        "description": line(finding.title()),
        "statement": line(&waiver.reason),
        "props": [
            property("waiver", &waiver.id.to_string()),
            property("owner", &waiver.owner),
            property("approved_by", approved),
        ],
        "status": "deviation-approved",
        "deadline": rfc3339(waiver.expires),
        "related-observations": [{"observation-uuid": observed(host, finding)}],
    }))
}

/// A finding for each control; one for each rule that names none.
fn of_controls(host: &str, findings: &[Finding<'_>]) -> Vec<Value> {
    let mut targets: BTreeMap<(String, String), Vec<&Finding<'_>>> = BTreeMap::new();
    for finding in findings {
        let named: Vec<(String, String)> = finding
            .references()
            .filter(|(framework, _)| !framework.starts_with(ONE_PLATFORM))
            .map(|(framework, control)| {
                (target(framework, control), format!("{framework} {control}"))
            })
            .collect();
        if named.is_empty() {
            let rule = &finding.state.rule;
            let by_rule = (token("rule", rule), format!("rule {rule}"));
            targets.entry(by_rule).or_default().push(finding);
        }
        for control in named {
            targets.entry(control).or_default().push(finding);
        }
    }
    targets
        .iter()
        .filter_map(|((id, title), rules)| of_control(host, id, title, rules))
        .collect()
}

/// Ids of NIST's own catalogue are written as it has them: `ac-6.9` for AC-6(9).
fn target(framework: &str, control: &str) -> String {
    if framework == "nist_800_53" {
        let id = control.to_ascii_lowercase().replace('(', ".");
        token_of(&id.replace([')', ' '], ""))
    } else {
        token(framework, control)
    }
}

fn token(kind: &str, name: &str) -> String {
    token_of(&format!("{kind}_{name}"))
}

fn token_of(text: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    text.chars()
        .map(|c| if legal(c) { c } else { '_' })
        .collect()
}

/// `None` where nothing applies: that says neither yes nor no.
fn of_control(host: &str, id: &str, title: &str, rules: &[&Finding<'_>]) -> Option<Value> {
    let count = |wanted: Outcome| {
        let found = rules.iter().filter(|rule| rule.state.verdict == wanted);
        found.count()
    };
    let [pass, fail, skipped, unassessed, error] = Outcome::ALL.map(count);
    let (state, reason) = match (pass, fail, unassessed + error) {
        (0, 0, 0) => return None,
        (_, 0, 0) => ("satisfied", "pass"),
        (_, 0, _) => ("not-satisfied", "other"),
        _ => ("not-satisfied", "fail"),
    };
    let mut remarks = format!(
        "Of the rules that name it {pass} pass, {fail} fail, {unassessed} could not be assessed, {error} \
         could not be judged, {skipped} do not apply. They look at settings of one host; a control asks \
         for more than that."
    );
    if reason == "other" {
        remarks.push_str(" Nothing is known to fail, and not everything could be looked at.");
    }
    let related: Vec<Value> = rules
        .iter()
        .map(|rule| json!({"observation-uuid": observed(host, rule)}))
        .collect();
    let mut finding = json!({
        "uuid": uuid("finding", &[host, id, title]),
        "title": line(title),
        "description": remarks,
        "target": {
            "type": "objective-id",
            "target-id": id,
            "status": {"state": state, "reason": reason},
        },
        "related-observations": related,
    });
    let risks: Vec<Value> = rules
        .iter()
        .filter(|rule| rule.waiver.is_some())
        .map(|rule| json!({"risk-uuid": risk(host, &rule.state.rule)}))
        .collect();
    if !risks.is_empty() {
        finding["related-risks"] = risks.into();
    }
    Some(finding)
}

/// Evidence under the digest that the ledger has it by; what is embedded has that digest.
fn resource(digest: &str, content: Option<Vec<u8>>) -> Value {
    // A file name is a token of OSCAL, which begins with a letter.
    let name = format!("evidence-{digest}.json");
    let mut resource = json!({
        "uuid": uuid("evidence", &[digest]),
        "title": format!("Evidence {digest}"),
        "props": [property("sha256", digest)],
        "rlinks": [{
            "href": name,
            "media-type": "application/json",
            "hashes": [{"algorithm": "SHA-256", "value": digest}],
        }],
    });
    match content {
        Some(content) => {
            resource["base64"] = json!({
                "filename": name,
                "media-type": "application/json",
                "value": STANDARD.encode(content),
            });
        }
        None => resource["remarks"] = "The record does not hold it any more.".into(),
    }
    resource
}
