//! What a rule asks, why, where it fails and how to mend it; and the list of all rules.

use std::collections::BTreeMap;

use maud::{Markup, html};
use scan::{judge::Outcome, rule::Severity, token::Role};

use crate::{
    console::{badge, visit::Visit, when},
    present::counted,
    view::{self, RuleRow, RuleView},
};

use super::words;

/// Hosts of one page of a rule.
const HOSTS_SHOWN: usize = 200;

pub(in crate::console) fn rules(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let all = view::rules(&visit.reader);
    let failing = view::failing_rules(&visit.reader, visit.at)?;
    let failing: BTreeMap<&str, u64> = failing
        .iter()
        .map(|count| (count.rule.as_str(), count.failing))
        .collect();
    let text = visit.asked("q").unwrap_or_default().to_lowercase();
    let severity = visit.asked("severity").unwrap_or_default();
    let mut shown: Vec<&RuleRow> = all
        .iter()
        .filter(|rule| severity.is_empty() || rule.severity.name() == severity)
        .filter(|rule| text.is_empty() || has(rule, &text))
        .collect();
    shown.sort_by_key(|rule| {
        let count = failing.get(rule.rule.as_str()).copied();
        (
            count.is_none(),
            rule.severity,
            std::cmp::Reverse(count),
            rule.rule.clone(),
        )
    });
    let content = html! {
        div class="title" { h1 { "Rules" } p class="soft" { (counted(all.len() as u64, "rule")) " that hosts are judged by; the worst first" } }
        form class="filter" method="get" action="/rules" role="search" aria-label="Rules" {
            @if let Some(at) = visit.at { input type="hidden" name="at" value=(view::Moment(at)); }
            div class="field" {
                label for="q" { "Title, id, reference or platform" }
                input id="q" name="q" type="search" value=(visit.asked("q").unwrap_or_default()) data-search data-filters="#rules tbody tr" data-told="rules-told" autocomplete="off";
            }
            div class="field" {
                label for="severity" { "Severity" }
                select id="severity" name="severity" data-submits {
                    option value="" { "all" }
                    @for one in Severity::ALL { option selected[one.name() == severity] { (one.name()) } }
                }
            }
            button { "Filter" }
        }
        section class="card" aria-label="Rules" {
            @if shown.is_empty() { p class="empty" { strong { "No rule is like that." } " " a href=(visit.link("/rules")) { "Show all" } } }
            @else {
                div class="scroll" { table id="rules" class="stacked" {
                    caption { (words::shown(shown.len(), all.len(), "rule")) " " span id="rules-told" role="status" {} }
                    thead { tr { th scope="col" { "Rule" } th scope="col" { "Severity" } th scope="col" class="number" { "Fails on" } th scope="col" { "About" } th scope="col" { "References" } } }
                    tbody { @for rule in shown { (row(visit, rule, failing.get(rule.rule.as_str()).copied())) } }
                } }
            }
        }
    };
    visit
        .page("Rules")
        .keeping(&["q", "severity"])
        .spanning(visit.span()?)
        .show(&content)
}

fn has(rule: &RuleRow, text: &str) -> bool {
    let references = rule.references.values().flatten();
    let mut parts =
        references
            .chain(&rule.platforms)
            .chain([&rule.rule, &rule.title, &rule.category]);
    parts.any(|part| part.to_lowercase().contains(text))
}

fn row(visit: &Visit<'_>, rule: &RuleRow, failing: Option<u64>) -> Markup {
    html! {
        tr {
            td class="name" { a href=(visit.rule(&rule.rule)) { (rule.title) } br; span class="mono soft small" { (rule.rule) } }
            td { (badge::severity(rule.severity)) }
            td class="number" data-label="Fails on" { @if let Some(count) = failing { (counted(count, "host")) } }
            td data-label="About" { (rule.category) }
            td class="words small soft" data-label="References" { (references(&rule.references)) }
        }
    }
}

fn references(all: &BTreeMap<String, Vec<String>>) -> String {
    let told = all
        .iter()
        .map(|(framework, ids)| format!("{} {}", framework_name(framework), ids.join(", ")));
    told.collect::<Vec<_>>().join("; ")
}

/// A framework as its people write it.
fn framework_name(key: &str) -> String {
    let (body, rest) = key.split_once('_').unwrap_or((key, ""));
    let name = match body {
        "nist" => return key.replacen("nist_", "NIST ", 1).replace('_', "-"),
        "anssi" => "ANSSI",
        "cis" => "CIS",
        "pci" => "PCI",
        "stig" => "STIG",
        other => other,
    };
    let words = rest.split('_').map(|word| match word {
        "bp28" => "BP-028".to_owned(),
        "dss" => "DSS".to_owned(),
        "debian" => "Debian".to_owned(),
        "rhel" => "RHEL".to_owned(),
        "ubuntu" => "Ubuntu".to_owned(),
        other => other.to_owned(),
    });
    [name.to_owned()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
        .trim_end()
        .to_owned()
}

pub(in crate::console) fn rule(visit: &Visit<'_>, id: &str) -> Result<Markup, view::Error> {
    let rule = view::rule(&visit.reader, id, visit.at)?;
    let content = html! {
        p class="crumb" { a href=(visit.link("/rules")) { "Rules" } " / " (rule.row.category) }
        div class="title" { h1 { (rule.row.title) } (badge::severity(rule.row.severity)) span class="mono soft" { (id) } }
        div class="grid" {
            section class="card w7" aria-labelledby="asks" {
                h2 id="asks" { "What it asks" }
                p { (rule.description) }
                h2 class="group" { "Why" }
                p { (rule.rationale) }
                (values(&rule))
            }
            section class="card w5" aria-labelledby="mend" {
                h2 id="mend" { "How to fix it" }
                p { (rule.fix) }
                @if !rule.commands.is_empty() { pre class="group" tabindex="0" { (rule.commands.join("\n")) } }
                p class="small soft group" { "Holdfast shows what it would do with " code { "holdfast fix " (id) } " and does it with " code { "--apply" } "." }
                h2 class="group" { "References" }
                dl class="facts" {
                    @for (framework, ids) in &rule.row.references { dt { (framework_name(framework)) } dd { (ids.join(", ")) } }
                    dt { "Platforms" } dd { (rule.row.platforms.join(", ")) }
                    dt { "Definition" } dd { code class="small" { (rule.digest.chars().take(16).collect::<String>()) "…" } }
                }
            }
        }
        (places(visit, &rule))
        @if visit.may_change(Role::Operator) {
            p class="small" { a href=(visit.link("/waivers").with("rule", id)) { "Ask for a waiver of this rule" } }
        }
    };
    visit
        .page(&rule.row.title)
        .keeping(&["verdict"])
        .spanning(visit.span()?)
        .show(&content)
}

/// By the first digits of its digest; a token of some hosts is told no more than that.
fn evidence(visit: &Visit<'_>, sha256: &str) -> Markup {
    let shown: String = sha256.chars().take(10).collect();
    html! {
        @if visit.sees_everything() { a class="mono" href=(visit.link("/evidence").segment(sha256)) { (shown) } }
        @else { span class="mono" { (shown) } }
    }
}

fn values(rule: &RuleView) -> Markup {
    html! {
        @if !rule.variables.is_empty() {
            h2 class="group" { "What a site may set" }
            dl class="facts" {
                @for variable in &rule.variables {
                    dt class="mono" { (variable.variable) }
                    dd { (variable.description) " " span class="soft" { "(" (variable.kind) ", unless set: " code { (variable.default) } ")" } }
                }
            }
        }
    }
}

fn places(visit: &Visit<'_>, rule: &RuleView) -> Markup {
    let choice = visit.asked("verdict").unwrap_or_default();
    let shown: Vec<_> = rule
        .hosts
        .iter()
        .filter(|host| choice.is_empty() || host.verdict.name() == choice)
        .collect();
    let link = |name: &str| visit.rule(&rule.row.rule).with_any("verdict", Some(name));
    html! {
        section class="card" aria-labelledby="where" {
            h2 id="where" { "Where" }
            nav class="filter choices" aria-label="Verdicts" {
                a href=(link("")) aria-current=[choice.is_empty().then_some("true")] { "All " span class="soft" { (rule.hosts.len()) } }
                @for verdict in Outcome::ALL {
                    @let count = rule.verdicts.get(verdict.name()).copied().unwrap_or(0);
                    @if count > 0 {
                        a href=(link(verdict.name())) aria-current=[(choice == verdict.name()).then_some("true")] { (badge::verdict(verdict)) " " span class="soft" { (count) } }
                    }
                }
            }
            @if rule.hosts.is_empty() { p class="empty" { strong { "No host was judged by this rule." } " It is, with the next scan of each host." } }
            @else if shown.is_empty() { p class="empty" { strong { "No host is like that." } } }
            @else {
                div class="scroll" { table class="stacked" {
                    caption { (words::shown(shown.len().min(HOSTS_SHOWN), shown.len(), "host")) }
                    thead { tr { th scope="col" { "Host" } th scope="col" { "Verdict" } th scope="col" { "Reason" } th scope="col" { "Since" } th scope="col" { "Evidence" } } }
                    tbody {
                        @for host in shown.iter().take(HOSTS_SHOWN) {
                            tr {
                                td class="name" { a href=(visit.host(&host.host)) { (host.host) } }
                                td { (badge::verdict(host.verdict)) }
                                td class="words" { (host.reason) }
                                td class="nowrap" data-label="Since" { (when::short(host.changed.0, visit.now)) }
                                td data-label="Evidence" { (evidence(visit, &host.evidence)) }
                            }
                        }
                    }
                } }
            }
        }
    }
}
