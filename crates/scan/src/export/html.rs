//! One page that needs nothing else: opens from a disk, prints, and runs nothing.
//!
//! Everything is escaped by construction (maud), and a content security policy in the page forbids
//! whatever is not its one style sheet.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::{
    Error, Written,
    source::{Finding, HostLine, HostReport, Source, Survey, failure},
    text::{moment, rfc3339, seconds, visible},
};
use crate::judge::{Outcome, Summary};

const STYLE: &str = include_str!("html/style.css");

/// Characters of evidence that a page shows of one verdict; JSON Lines and OSCAL have all of it.
const EVIDENCE_CHARS_MAX: usize = 4000;

/// In which order verdicts are listed: what asks for something comes first.
const ORDER: [Outcome; 5] = [
    Outcome::Fail,
    Outcome::Error,
    Outcome::NotAssessed,
    Outcome::Pass,
    Outcome::NotApplicable,
];

pub(super) fn write(source: &mut Source<'_>, out: &mut dyn Write) -> Result<Written, Error> {
    let survey = source.survey()?;
    let at = moment(source.at);
    put(out, head(&survey, &at))?;
    put(out, fleet(&survey, &at))?;
    let mut written = Written::default();
    source.each_host(|source, host| {
        let findings = source.findings(host);
        put(out, section(source, host, &findings, written.hosts)?)?;
        written.hosts += 1;
        written.rows += findings.len() as u64;
        Ok(())
    })?;
    out.write_all(b"</main></body></html>\n")?;
    Ok(written)
}

#[allow(clippy::needless_pass_by_value, reason = "made to be written")]
fn put(out: &mut dyn Write, markup: Markup) -> Result<(), Error> {
    Ok(out.write_all(markup.into_string().as_bytes())?)
}

/// Up to the opening tag of `main`: what follows is written host by host.
fn head(survey: &Survey, at: &str) -> Markup {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'");
    let title = match survey.hosts.as_slice() {
        [only] => format!("{}: verdicts", visible(&only.name)),
        hosts => format!("Verdicts of {} hosts", hosts.len()),
    };
    html! {
        (DOCTYPE)
        (PreEscaped("<html lang=\"en\">"))
        head {
            meta charset="utf-8";
            meta http-equiv="Content-Security-Policy" content=(policy);
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="generator" content=(concat!("holdfast ", env!("CARGO_PKG_VERSION")));
            title { (title) ", " (at) }
            style { (PreEscaped(STYLE)) }
        }
        (PreEscaped("<body><main>"))
        header {
            h1 { (title) }
            p { "As recorded by " time datetime=(at) { (at) } ". Times are UTC. A waiver changes no verdict and no count." }
        }
    }
}

fn fleet(survey: &Survey, at: &str) -> Markup {
    html! {
        @if survey.hosts.is_empty() {
            p.nothing { "No host was watched at " (at) ". Nothing is known, which is not the same as nothing being wrong." }
        } @else if survey.hosts.len() > 1 {
            section.summary {
                h2 { "Summary" }
                (tally(&survey.total))
            }
        }
        @if survey.hosts.len() > 1 {
            section {
                h2 { "Hosts" }
                div.wide { table {
                    thead { tr {
                        th scope="col" { "Host" } th scope="col" { "Site" } th.n scope="col" { "Score" }
                        th.n scope="col" { "Fail" } th.n scope="col" { "Error" } th.n scope="col" { "Not assessed" }
                        th.n scope="col" { "Pass" } th scope="col" { "Scanned" }
                    } }
                    tbody {
                        @for (number, host) in survey.hosts.iter().enumerate() { (host_row(number, host)) }
                    }
                } }
            }
        }
    }
}

fn host_row(number: usize, host: &HostLine) -> Markup {
    let count = |of: fn(&Summary) -> u64| host.summary.as_ref().map(of);
    html! {
        tr {
            th scope="row" { a href={ "#h" (number) } { bdi { (visible(&host.name)) } } }
            td { (visible(&host.site)) }
            td.n { (score(host.summary.as_ref())) }
            @for value in [count(|it| it.fail), count(|it| it.error), count(|it| it.not_assessed), count(|it| it.pass)] {
                td.n { @if let Some(value) = value { (value) } @else { "–" } }
            }
            td {
                @match &host.scan {
                    Some((_, _, finished)) => (seconds(*finished)),
                    None => "never",
                }
                @if let Some(failed) = &host.failed { " " strong.stale { "stale: " (failure(failed)) } }
            }
        }
    }
}

fn score(summary: Option<&Summary>) -> String {
    summary
        .and_then(|summary| summary.score)
        .map_or_else(|| "–".to_owned(), |score| format!("{score:.1} %"))
}

fn tally(summary: &Summary) -> Markup {
    let counts = [
        (Outcome::Fail, summary.fail),
        (Outcome::Error, summary.error),
        (Outcome::NotAssessed, summary.not_assessed),
        (Outcome::Pass, summary.pass),
        (Outcome::NotApplicable, summary.not_applicable),
    ];
    html! {
        dl.tally {
            div { dt { "score" } dd { (score(Some(summary))) } }
            @for (outcome, count) in counts {
                div class=(outcome.name()) { dt { (words(outcome)) } dd { (count) } }
            }
        }
    }
}

const fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::NotApplicable => "not applicable",
        Outcome::NotAssessed => "not assessed",
        Outcome::Error => "error",
    }
}

fn section(
    source: &Source<'_>,
    host: &HostReport,
    findings: &[Finding<'_>],
    number: u64,
) -> Result<Markup, Error> {
    let mut groups = Vec::new();
    for wanted in ORDER {
        let mut of_kind: Vec<&Finding<'_>> = findings
            .iter()
            .filter(|finding| finding.state.verdict == wanted)
            .collect();
        of_kind.sort_by_key(|finding| (finding.state.severity, &finding.state.rule));
        let mut rows = Vec::with_capacity(of_kind.len());
        for finding in of_kind {
            rows.push(row(source, finding)?);
        }
        if !rows.is_empty() {
            groups.push((wanted, rows));
        }
    }
    Ok(html! {
        section.host id={ "h" (number) } {
            h2 { bdi { (visible(&host.name)) } }
            @match &host.status {
                Some(status) => p {
                    "Scanned " time datetime=(rfc3339(status.scan.finished)) { (seconds(status.scan.finished)) }
                    @if !host.site().is_empty() { ", site " (visible(host.site())) }
                    @if let Some(retired) = status.host.retired { ", retired " (seconds(retired)) }
                    ", scan " code { (status.scan.scan_id) }
                },
                None => p.nothing { "Never scanned: nothing is known of this host." },
            }
            @if let Some(failure) = host.failure() { p.stale { strong { "Stale: " } (failure) "." } }
            @if host.status.is_some() { (tally(&host.summary())) }
            @for (outcome, rows) in &groups {
                h3 class=(outcome.name()) { (words(*outcome)) " (" (rows.len()) ")" }
                div.wide { table.findings {
                    thead { tr {
                        th scope="col" { "Severity" } th scope="col" { "Rule" } th scope="col" { "Found" }
                        th scope="col" { "Since" }
                    } }
                    tbody { @for row in rows { (row) } }
                } }
            }
        }
    })
}

fn row(source: &Source<'_>, finding: &Finding<'_>) -> Result<Markup, Error> {
    let state = finding.state;
    let is_open = matches!(
        state.verdict,
        Outcome::Fail | Outcome::NotAssessed | Outcome::Error
    );
    let evidence = if is_open {
        source.evidence(&state.evidence)?
    } else {
        None
    };
    let references: Vec<String> = finding
        .references()
        .map(|(framework, control)| format!("{framework} {control}"))
        .collect();
    let fix = finding
        .rule
        .map(|rule| rule.fix.summary.as_str())
        .filter(|fix| is_open && !fix.is_empty());
    Ok(html! {
        tr {
            td class={ "severity " (state.severity.name()) } { (state.severity.name()) }
            td { span.title { (visible(finding.title())) } br; code { (visible(&state.rule)) } }
            td {
                (visible(&state.reason))
                @if let Some(waived) = finding.waived() { p.waived { strong { "Waived, still a failure: " } (visible(&waived)) } }
                @if let Some(fix) = fix { p.fix { "To mend it: " (visible(fix)) } }
                @if let Some(evidence) = &evidence { (shown(evidence, &state.evidence)) }
                @if is_open && !references.is_empty() { p.references { (references.join(", ")) } }
            }
            td { time datetime=(rfc3339(state.changed)) { (&rfc3339(state.changed)[..10]) } }
        }
    })
}

fn shown(evidence: &[u8], digest: &str) -> Markup {
    let text = String::from_utf8_lossy(evidence);
    let cut: String = text.chars().take(EVIDENCE_CHARS_MAX).collect();
    let is_cut = cut.len() < text.len();
    html! {
        details {
            summary { "Evidence" }
            p { "SHA-256 " code { (digest) } @if is_cut { ", cut here: the record has " (evidence.len()) " bytes" } }
            pre { (visible(&cut)) }
        }
    }
}
