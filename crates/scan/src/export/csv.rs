//! Comma-separated values as of RFC 4180 with LF line ends, one line a verdict or change.

use std::io::{self, Write};

use super::{
    Error, Written,
    changes::{self, Span},
    source::{Finding, HostReport, Source},
    text::{rfc3339, visible},
};
use crate::{judge::Outcome, ledger::Change, rule::Severity};

const VERDICT: [&str; 18] = [
    "host",
    "site",
    "groups",
    "scan_id",
    "scanned",
    "stale",
    "rule",
    "title",
    "severity",
    "verdict",
    "reason",
    "evidence",
    "first_seen",
    "changed",
    "references",
    "waived_until",
    "waived_by",
    "waived_because",
];

const CHANGE: [&str; 12] = [
    "time", "host", "rule", "title", "kind", "from", "to", "severity", "reason", "evidence",
    "because", "scan_id",
];

pub(super) fn state(source: &mut Source<'_>, out: &mut dyn Write) -> Result<Written, Error> {
    let mut written = Written::default();
    line(out, VERDICT.map(str::to_owned))?;
    source.each_host(|source, host| {
        written.hosts += 1;
        let findings = source.findings(host);
        if findings.is_empty() {
            line(out, of_host_alone(host))?;
        }
        for finding in findings {
            written.rows += 1;
            line(out, of_finding(host, &finding))?;
        }
        Ok(())
    })?;
    Ok(written)
}

/// A host without a verdict has a line too: what is not in a list is not missed.
fn of_host_alone(host: &HostReport) -> [String; 18] {
    let mut cells = VERDICT.map(|_| String::new());
    fill_host(&mut cells, host);
    cells[10] = match &host.status {
        Some(_) => "no rule was judged".to_owned(),
        None => "never scanned".to_owned(),
    };
    cells
}

fn fill_host(cells: &mut [String; 18], host: &HostReport) {
    cells[0].clone_from(&host.name);
    host.site().clone_into(&mut cells[1]);
    cells[2] = host.groups().join(" ");
    if let Some(status) = &host.status {
        cells[3].clone_from(&status.scan.scan_id);
        cells[4] = rfc3339(status.scan.finished);
    }
    cells[5] = host.failure().unwrap_or_default();
}

fn of_finding(host: &HostReport, finding: &Finding<'_>) -> [String; 18] {
    let mut cells = VERDICT.map(|_| String::new());
    fill_host(&mut cells, host);
    let state = finding.state;
    let references: Vec<String> = finding
        .references()
        .map(|(framework, control)| format!("{framework}:{control}"))
        .collect();
    let of_verdict = [
        state.rule.clone(),
        finding.title().to_owned(),
        state.severity.name().to_owned(),
        state.verdict.name().to_owned(),
        state.reason.clone(),
        state.evidence.clone(),
        rfc3339(state.first_seen),
        rfc3339(state.changed),
        references.join(" "),
    ];
    for (cell, value) in cells[6..].iter_mut().zip(of_verdict) {
        *cell = value;
    }
    if let Some(waiver) = finding.waiver {
        cells[15] = rfc3339(waiver.expires);
        cells[16].clone_from(&waiver.owner);
        cells[17].clone_from(&waiver.reason);
    }
    cells
}

pub(super) fn changes(
    source: &mut Source<'_>,
    span: Span,
    out: &mut dyn Write,
) -> Result<Written, Error> {
    let mut written = Written::default();
    line(out, CHANGE.map(str::to_owned))?;
    source.each_name(|source, host| {
        written.hosts += 1;
        changes::each(source, host, span, |change| {
            written.rows += 1;
            Ok(line(out, of_change(source, host, change))?)
        })
    })?;
    Ok(written)
}

fn of_change(source: &Source<'_>, host: &str, change: &Change) -> [String; 12] {
    let severity = match change.severity_before {
        Some(before) if before != change.severity => {
            format!("{} > {}", before.name(), change.severity.name())
        }
        _ => Severity::name(change.severity).to_owned(),
    };
    let because: Vec<String> = change.because.iter().map(plain).collect();
    [
        rfc3339(change.occurred),
        host.to_owned(),
        change.rule.clone(),
        source.title(&change.rule).to_owned(),
        plain(&change.kind),
        change.from.map_or("", Outcome::name).to_owned(),
        change.to.name().to_owned(),
        severity,
        change.reason.clone(),
        change.evidence.clone(),
        because.join(" "),
        change.scan_id.clone(),
    ]
}

/// A name as its JSON has it.
pub(super) fn plain(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

fn line<const N: usize>(out: &mut dyn Write, cells: [String; N]) -> io::Result<()> {
    let cells = cells.map(|cell| quoted(&cell));
    writeln!(out, "{}", cells.join(","))
}

/// Quoted where RFC 4180 asks for it. What a spreadsheet would run as a formula gets a leading
/// apostrophe: the first character decides, and the fields hold text that a scanned host chose.
fn quoted(cell: &str) -> String {
    let mut cell = visible(cell).into_owned();
    if cell.trim_start().starts_with(['=', '+', '-', '@']) {
        cell.insert(0, '\'');
    }
    if cell.contains([',', '"', ';']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_cell_is_text_for_whatever_opens_it() {
        assert_eq!(quoted("=1+1"), "'=1+1");
        assert_eq!(quoted(" @SUM(A1)"), "' @SUM(A1)");
        assert_eq!(quoted("\t=1"), "\\t=1");
        assert_eq!(quoted("a \"b\", c"), "\"a \"\"b\"\", c\"");
        assert_eq!(quoted("a\r\nb"), "a\\r\\nb");
    }
}
