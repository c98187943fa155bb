//! JSON Lines of our own, described by docs/schema/export.json: everything that the record holds, the
//! evidence included.

use std::{collections::BTreeSet, io::Write};

use serde_json::{Value, json, value::RawValue};

use super::{
    Error, Written,
    changes::{self, Span},
    json::line,
    source::{Finding, HostReport, Source},
    text::{moment, rfc3339},
};
use crate::ledger::Change;

/// Told in the first line; another one where a reader of this one would go wrong.
const FORMAT: &str = "holdfast.export/1";

pub(super) fn state(source: &mut Source<'_>, out: &mut dyn Write) -> Result<Written, Error> {
    let mut written = Written::default();
    let mut heading = heading("state");
    heading["at"] = moment(source.at).into();
    line(out, &heading)?;
    let mut told = Told::default();
    source.each_host(|source, host| {
        written.hosts += 1;
        line(out, &of_host(host))?;
        for finding in source.findings(host) {
            written.rows += 1;
            line(out, &of_finding(&host.name, &finding))?;
            told.evidence(source, &finding.state.evidence, out)?;
        }
        Ok(())
    })?;
    line(out, &ending(&written, &told))?;
    Ok(written)
}

pub(super) fn changes(
    source: &mut Source<'_>,
    span: Span,
    out: &mut dyn Write,
) -> Result<Written, Error> {
    let mut written = Written::default();
    let mut heading = heading("changes");
    heading["since"] = span.since.map(moment).into();
    heading["until"] = moment(source.at).into();
    line(out, &heading)?;
    let mut told = Told::default();
    source.each_name(|source, host| {
        written.hosts += 1;
        changes::each(source, host, span, |change| {
            written.rows += 1;
            line(out, &of_change(host, source.title(&change.rule), change))?;
            told.evidence(source, &change.evidence, out)
        })
    })?;
    line(out, &ending(&written, &told))?;
    Ok(written)
}

fn heading(holds: &str) -> Value {
    json!({
        "type": "export",
        "format": FORMAT,
        "holds": holds,
        "generator": {"name": "holdfast", "version": env!("CARGO_PKG_VERSION")},
    })
}

/// The last line: a file without it was cut off.
fn ending(written: &Written, told: &Told) -> Value {
    json!({
        "type": "end",
        "hosts": written.hosts,
        "rows": written.rows,
        "evidence": told.digests.len(),
    })
}

fn of_host(host: &HostReport) -> Value {
    let scan = host.status.as_ref().map(|status| &status.scan);
    let retired = host.status.as_ref().and_then(|status| status.host.retired);
    json!({
        "type": "host",
        "host": host.name,
        "site": host.site(),
        "groups": host.groups(),
        "retired": retired.map(rfc3339),
        "scan_id": scan.map(|scan| &scan.scan_id),
        "started": scan.map(|scan| rfc3339(scan.started)),
        "finished": scan.map(|scan| rfc3339(scan.finished)),
        "summary": scan.map(|_| host.summary()),
        "last_attempt_failed": host.failed.as_ref().map(|failed| json!({
            "time": rfc3339(failed.last_failed),
            "reason": failed.reason,
            "failures": failed.failures,
        })),
    })
}

fn of_finding(host: &str, finding: &Finding<'_>) -> Value {
    let state = finding.state;
    let mut verdict = json!({
        "type": "verdict",
        "host": host,
        "rule": state.rule,
        "title": finding.title(),
        "severity": state.severity,
        "verdict": state.verdict,
        "reason": state.reason,
        "evidence": state.evidence,
        "first_seen": rfc3339(state.first_seen),
        "changed": rfc3339(state.changed),
        "rule_digest": state.rule_digest,
        "rule_is_current": finding.rule_is_current(),
        "variables": state.variables,
        "references": finding.rule.map(|rule| &rule.references),
    });
    if let Some(waiver) = finding.waiver {
        verdict["waiver"] = json!({
            "id": waiver.id,
            "until": rfc3339(waiver.expires),
            "owner": waiver.owner,
            "approved_by": waiver.approved.as_ref().map_or("", |step| &step.by),
            "reason": waiver.reason,
        });
    }
    verdict
}

fn of_change(host: &str, title: &str, change: &Change) -> Value {
    json!({
        "type": "change",
        "host": host,
        "rule": change.rule,
        "title": title,
        "kind": change.kind,
        "from": change.from,
        "to": change.to,
        "severity": change.severity,
        "severity_before": change.severity_before,
        "reason": change.reason,
        "evidence": change.evidence,
        "because": change.because,
        "rule_digest": change.rule_digest,
        "scan_id": change.scan_id,
        "occurred": rfc3339(change.occurred),
    })
}

/// Evidence that was written, so that each is written once.
#[derive(Default)]
struct Told {
    digests: BTreeSet<String>,
}

impl Told {
    /// The document is written byte by byte as it is in the ledger: its SHA-256 is the one it has there.
    fn evidence(
        &mut self,
        source: &Source<'_>,
        digest: &str,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        if !self.digests.insert(digest.to_owned()) {
            return Ok(());
        }
        let bytes = source.evidence(digest)?.unwrap_or_else(|| b"null".to_vec());
        let text = String::from_utf8(bytes).map_err(Error::storage)?;
        let document = RawValue::from_string(text).map_err(Error::storage)?;
        #[derive(serde::Serialize)]
        struct Evidence<'e> {
            r#type: &'static str,
            sha256: &'e str,
            document: &'e RawValue,
        }
        let evidence = Evidence {
            r#type: "evidence",
            sha256: digest,
            document: &document,
        };
        Ok(line(out, &evidence)?)
    }
}
