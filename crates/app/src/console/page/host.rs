//! One host: what it fails and on what evidence, how old that is, what was tried, how it went over time.

use std::cmp::Reverse;

use maud::{Markup, html};
use scan::{judge::Outcome, rule::Severity, token::Role};
use serde_json::Value;

use crate::{
    console::{badge, chart, trend, visit::Visit, when},
    present::counted,
    view::{self, Attempt, ChangesAsked, Finding, HostView},
};

use super::words;

/// Changes below the findings; the page of changes has them all.
const CHANGES_SHOWN: usize = 20;
/// Findings that are shown with their facts; each is a read of some kilobytes.
const INLINE_MAX: usize = 60;

pub(in crate::console) fn host(visit: &Visit<'_>, name: &str) -> Result<Markup, view::Error> {
    let host = view::host(&visit.reader, name, visit.at)?;
    let changes = view::changes(
        &visit.reader,
        &ChangesAsked {
            host: Some(name.to_owned()),
            until: visit.until(),
            limit: Some(CHANGES_SHOWN),
            ..ChangesAsked::default()
        },
    )?;
    let counted = host.row.counts.as_ref().and_then(|counts| counts.score);
    let trend = trend::of_host(visit, name, counted)?;
    let content = html! {
        p class="crumb" { a href=(visit.link("/")) { "Fleet" } " / " (host.row.site) }
        div class="title" {
            h1 { (name) }
            (badge::state(host.row.state))
            @if host.row.maintenance { span class="tag" { "maintenance" } }
            @if host.row.retired.is_some() { span class="tag" { "retired" } }
            @if visit.at_least(Role::Auditor) && visit.sees_everything() { div class="aside" { (super::downloads(visit, Some(name))) } }
        }
        @if let Some(attempt) = &host.row.last_attempt_failed { (failed(visit, &host, attempt)) }
        @if host.scan.is_none() { (never(visit, &host)) }
        div class="grid" {
            (score(visit, &host, &trend))
            (about(visit, &host))
        }
        @if host.scan.is_some() { (findings(visit, &host)) }
        section class="card" aria-labelledby="timeline" {
            div class="card-head" {
                h2 id="timeline" { "What changed" }
                a class="aside" href=(visit.link("/changes").with("host", name)) { "All changes of this host" }
            }
            @if changes.changes.is_empty() { p class="empty" { "Nothing yet." } }
            ul class="list" { @for change in &changes.changes { (super::changes::item(visit, change, false)) } }
        }
    };
    visit
        .page(name)
        .keeping(&["verdict", "severity", "q"])
        .spanning(visit.span()?)
        .show(&content)
}

fn failed(visit: &Visit<'_>, host: &HostView, attempt: &Attempt) -> Markup {
    html! {
        div class="note doubt" role="note" {
            p {
                strong { "The last attempt came to nothing" } " " (when::age(attempt.time.0, visit.moment())) ": "
                (words::failure(attempt.reason))
                @if attempt.failures > 1 { ", " (attempt.failures) " times in a row" }
                "."
                @if host.scan.is_some() { " What is shown is what was found before." }
            }
            p class="soft" { "Next: " (attempt.next) }
        }
    }
}

fn never(visit: &Visit<'_>, host: &HostView) -> Markup {
    html! {
        div class="note" {
            @match visit.at {
                Some(at) => p { "Nothing was recorded of this host by " (when::full(at)) ". Move the slider to the right." },
                None if host.row.via == "offline" => p { "Nothing is recorded of this host yet. It has no address, so it is never scanned: bring its facts with " code { "holdfast scan --replay FILE" } "." },
                None => p { "This host was not scanned yet. It is, within a minute of `holdfast up`; what keeps it from that stands here." },
            }
        }
    }
}

fn score(visit: &Visit<'_>, host: &HostView, trend: &trend::Trend) -> Markup {
    let counts = host.row.counts.clone().unwrap_or_default();
    html! {
        section class="card w7" aria-labelledby="score" {
            h2 id="score" { "Score" }
            @match counts.score {
                None => p class="empty" { strong { "No score." } " Nothing passed or failed." },
                Some(score) => {
                    p class="figure" {
                        span class="value" { (words::score(score)) } " " span class="unit" { "%" }
                        @if let Some(told) = trend.movement(score) { span class="soft" { (told) } }
                        @if let (true, Some(waived)) = (host.waived > 0, host.score_with_waivers) {
                            span class="soft" { (words::score(waived)) " % without the " (counted(host.waived, "waived failure")) }
                        }
                    }
                    (chart::gauge(score))
                }
            }
            dl class="figures" {
                @for (name, count) in [("pass", counts.pass), ("fail", counts.fail), ("not assessed", counts.not_assessed), ("rule errors", counts.error), ("do not apply", counts.not_applicable)] {
                    div { dt { (name) } dd { (count) } }
                }
            }
            @if visit.at.is_none() || !trend.is_empty() { div class="group" { (trend.chart("Score of this host")) } }
        }
    }
}

fn about(visit: &Visit<'_>, host: &HostView) -> Markup {
    let row = &host.row;
    html! {
        section class="card w5" aria-labelledby="about" {
            h2 id="about" { "Host" }
            dl class="facts" {
                dt { "Scanned" }
                dd {
                    @match &host.scan {
                        Some(scan) => { (when::full(scan.finished.0)) ", " (when::age(scan.finished.0, visit.moment())) },
                        None => "never",
                    }
                }
                @if let Some(planned) = &host.schedule {
                    dt { "Next scan" }
                    dd {
                        @if planned.job.is_some() { "running or queued" }
                        @else if planned.next.0 <= visit.now { "due now" }
                        @else { (when::full(planned.next.0)) }
                    }
                    @if let Some(until) = planned.put_off_until { dt { "Put off until" } dd { (when::full(until.0)) } }
                    @if let Some(version) = &planned.policy_version { dt { "Policy" } dd { @if visit.sees_everything() { a href=(visit.link("/policy")) { (version) } } @else { (version) } } }
                }
                dt { "Reached" }
                dd {
                    @match &row.address {
                        Some(address) => { "over SSH, " code { (address) @if let Some(port) = row.port { ":" (port) } } },
                        None => (if row.via == "local" { "this machine" } else { "not at all: facts are brought by hand" }),
                    }
                }
                dt { "Site" } dd { (row.site) }
                @if !row.groups.is_empty() { dt { "Groups" } dd { @for group in &row.groups { span class="tag" { (group) } " " } } }
                @if !row.tags.is_empty() { dt { "Tags" } dd { @for tag in &row.tags { span class="tag" { (tag) } " " } } }
                @if row.added.0.nanos() > 0 { dt { "Watched since" } dd { (when::full(row.added.0)) } }
                @if let Some(retired) = row.retired { dt { "Retired" } dd { (when::full(retired.0)) } }
            }
        }
    }
}

const SHOWN: [(&str, &str); 5] = [
    ("", "Needs attention"),
    ("fail", "Fails"),
    ("not_assessed", "Not assessed"),
    ("pass", "Passes"),
    ("all", "All"),
];

/// What a choice of the list above lets through.
fn lets_through(choice: &str, finding: &Finding) -> bool {
    match choice {
        "all" => true,
        "" => matches!(
            finding.verdict,
            Outcome::Fail | Outcome::NotAssessed | Outcome::Error
        ),
        "not_assessed" => matches!(finding.verdict, Outcome::NotAssessed | Outcome::Error),
        name => finding.verdict.name() == name,
    }
}

fn findings(visit: &Visit<'_>, host: &HostView) -> Markup {
    let choice = visit.asked("verdict").unwrap_or_default();
    let text = visit.asked("q").unwrap_or_default().to_lowercase();
    let has_text = |finding: &Finding| {
        let mut parts = [&finding.rule, &finding.title, &finding.reason].into_iter();
        text.is_empty() || parts.any(|part| part.to_lowercase().contains(&text))
    };
    let mut shown: Vec<&Finding> = host
        .findings
        .iter()
        .filter(|finding| lets_through(choice, finding) && has_text(finding))
        .collect();
    shown.sort_by_key(|finding| {
        let is_waived = finding.waiver.is_some();
        (
            finding.verdict != Outcome::Fail,
            is_waived,
            Reverse(finding.changed),
        )
    });
    let is_few = shown.len() <= INLINE_MAX;
    let link = |choice: &str| {
        visit
            .host(&host.row.host)
            .with_any("verdict", Some(choice))
            .with_any("q", visit.asked("q"))
    };
    html! {
        section class="card" aria-labelledby="findings" {
            div class="card-head" { h2 id="findings" { "Findings" } span class="soft small" { span id="findings-told" role="status" {} } }
            form class="filter" method="get" role="search" aria-label="Findings" {
                @if let Some(at) = visit.at { input type="hidden" name="at" value=(view::Moment(at)); }
                @if !choice.is_empty() { input type="hidden" name="verdict" value=(choice); }
                nav class="choices" aria-label="Verdicts" {
                    @for (name, words) in SHOWN {
                        @let count = host.findings.iter().filter(|finding| lets_through(name, finding)).count();
                        a href=(link(name)) aria-current=[(name == choice).then_some("true")] { (words) " " span class="soft" { (count) } }
                    }
                }
                div class="field" {
                    label for="q" { "Rule, title or reason" }
                    input id="q" name="q" type="search" value=(visit.asked("q").unwrap_or_default()) data-search
                        data-filters="#finding-list details" data-told="findings-told" autocomplete="off";
                }
                button { "Filter" }
            }
            @if shown.is_empty() { (none(choice)) }
            div id="finding-list" {
                @for severity in Severity::ALL {
                    @let group: Vec<&Finding> = shown.iter().copied().filter(|finding| finding.severity == severity).collect();
                    @if !group.is_empty() {
                        div class="group" {
                            h3 { (badge::severity(severity)) span class="soft small" { (counted(group.len() as u64, "rule")) } }
                            @for finding in group { (fold(visit, finding, is_few)) }
                        }
                    }
                }
            }
        }
    }
}

fn none(choice: &str) -> Markup {
    html! {
        p class="empty" {
            @if choice.is_empty() { strong { "Nothing needs attention." } " Every rule that applies passes." }
            @else { strong { "No finding is like that." } }
        }
    }
}

fn fold(visit: &Visit<'_>, finding: &Finding, with_facts: bool) -> Markup {
    html! {
        details id=(format!("rule-{}", finding.rule)) {
            summary {
                (badge::verdict(finding.verdict))
                span class="what" { (super::title(&finding.title, &finding.rule)) }
                span class="soft small" {
                    @if finding.waiver.is_some() { span class="tag waived" { "waived" } " " }
                    "since " (when::short(finding.changed.0, visit.now))
                }
                span class="say" { (finding.reason) }
            }
            div class="fold" {
                @if let Some(waived) = &finding.waiver {
                    p { "Waived until " (when::full(waived.until.0)) " on behalf of " (waived.owner) ", approved by " (waived.approved_by) ": " (waived.reason) }
                }
                (proof(visit, finding, with_facts))
                p class="small" {
                    a href=(visit.rule(&finding.rule)) { "What the rule asks, why, and how to fix it" }
                    " · " span class="mono soft" { (finding.rule) }
                    " · first seen " (when::full(finding.first_seen.0))
                }
            }
        }
    }
}

/// The facts that a verdict stands on; of many findings, where they are.
fn proof(visit: &Visit<'_>, finding: &Finding, with_facts: bool) -> Markup {
    let found = match with_facts {
        true => view::evidence(&visit.reader, &finding.evidence).ok(),
        false => None,
    };
    html! {
        @if let Some(found) = found { (facts(&found.document)) }
        p class="small" {
            @if visit.sees_everything() { a href=(visit.link("/evidence").segment(&finding.evidence)) { "Evidence" } } @else { "Evidence" } " "
            code class="soft" { (finding.evidence.chars().take(16).collect::<String>()) "…" }
        }
    }
}

fn facts(document: &Value) -> Markup {
    let all = document.get("facts").and_then(Value::as_array);
    let all: Vec<&Value> = all.into_iter().flatten().collect();
    html! {
        @if all.is_empty() { p class="soft" { "It rests on no fact: the rule does not apply here." } }
        dl class="facts" {
            @for fact in all {
                dt class="mono" { (text(fact.get("fact"))) }
                dd {
                    @if let Some(value) = fact.get("value") {
                        @if value.is_array() || value.is_object() { pre tabindex="0" { (serde_json::to_string_pretty(value).unwrap_or_default()) } }
                        @else { code { (text(Some(value))) } }
                    }
                    @if fact.get("absent").is_some() { "is not there" }
                    @if let Some(unknown) = fact.get("unknown") {
                        (badge::badge("doubt", "ask", &text(unknown.get("reason")))) " " (text(unknown.get("detail")))
                    }
                    @if let Some(count) = fact.get("count").and_then(Value::as_u64) {
                        span class="soft small" { " " (counted(count, "element")) @if let Some(cut) = fact.get("cut") { ", " (cut.to_string()) " of them not kept" } }
                    }
                }
            }
        }
    }
}

/// A text as it is, anything else as JSON.
fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

/// One piece of evidence on a page of its own.
pub(in crate::console) fn evidence(visit: &Visit<'_>, sha256: &str) -> Result<Markup, view::Error> {
    let found = view::evidence(&visit.reader, sha256)?;
    let content = html! {
        div class="title" { h1 { "Evidence" } }
        section class="card" aria-label="Facts" {
            p class="lead" { "The facts that a verdict stands on, as they were read from the host. They are filed under the SHA-256 of their bytes:" }
            p { code { (found.sha256) } }
            @if let Some(rule) = found.document.get("rule").and_then(Value::as_str) {
                p { "Rule " a href=(visit.rule(rule)) { (rule) } }
            }
            (facts(&found.document))
        }
    };
    visit.page("Evidence").show(&content)
}
