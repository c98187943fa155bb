//! What changed, the newest first; the page of now takes in what is recorded while it is open.

use maud::{Markup, html};
use scan::ledger::{Cause, ChangeKind};

use crate::{
    console::{badge, visit::Visit, when},
    view::{self, Change, ChangesAsked},
};

const SHOWN: usize = 100;

/// Where changes are announced as they are recorded.
const STREAM: &str = "/api/v1/changes/stream";

pub(in crate::console) fn changes(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let page = view::changes(
        &visit.reader,
        &ChangesAsked {
            host: visit.filled("host"),
            rule: visit.filled("rule"),
            until: visit.until(),
            cursor: visit.filled("after"),
            limit: Some(SHOWN),
            ..ChangesAsked::default()
        },
    )?;
    let is_live = visit.at.is_none() && visit.asked("after").is_none();
    let content = html! {
        div class="title" {
            h1 { "Changes" }
            p class="soft" { "Each time a verdict or a severity became another, and why." }
            @if is_live {
                p class="aside small" { span id="live" class="live" role="status" data-with-script hidden { "Connecting" } " " span id="live-said" class="soft" role="status" {} }
            }
        }
        (filter(visit))
        section class="card" aria-label="Changes, the newest first" {
            @if page.changes.is_empty() {
                p id="no-changes" class="empty" { strong { "Nothing changed." } " Every scan that finds a difference records it here." }
            }
            ul class="list" data-live=[is_live.then_some(STREAM)] data-events="change" {
                @for change in &page.changes { (item(visit, change, false)) }
            }
            @if let Some(next) = &page.next {
                p class="pages" {
                    a href=(visit.link("/changes").with_any("host", visit.asked("host")).with_any("rule", visit.asked("rule")).with("after", next)) { "Older changes" }
                }
            }
        }
    };
    visit
        .page("Changes")
        .keeping(&["host", "rule"])
        .spanning(visit.span()?)
        .show(&content)
}

fn filter(visit: &Visit<'_>) -> Markup {
    html! {
        form class="filter" method="get" action="/changes" role="search" aria-label="Changes" {
            @if let Some(at) = visit.at { input type="hidden" name="at" value=(view::Moment(at)); }
            div class="field" { label for="host" { "Host" } input id="host" name="host" value=(visit.asked("host").unwrap_or_default()) data-search autocomplete="off"; }
            div class="field" { label for="rule" { "Rule" } input id="rule" name="rule" value=(visit.asked("rule").unwrap_or_default()) autocomplete="off"; }
            button { "Filter" }
            @if visit.asked("host").is_some() || visit.asked("rule").is_some() { a class="button" href=(visit.link("/changes")) { "Show all" } }
        }
    }
}

/// One change of a list; a brief one for the overview.
pub(super) fn item(visit: &Visit<'_>, change: &Change, is_brief: bool) -> Markup {
    html! {
        li data-key=(change.cursor) {
            span class="first" {
                a href=(visit.host(&change.host)) { (change.host) }
                " · "
                a href=(visit.rule(&change.rule)) { (super::title(&change.title, &change.rule)) }
            }
            span class="soft small" {
                @if is_brief { (when::age(change.occurred.0, visit.moment())) } @else { (when::short(change.occurred.0, visit.now)) }
            }
            span class="under" {
                (movement(change))
                @if !is_brief { span { " · " (change.reason) } }
                @if let Some(why) = because(&change.because) { span { " · " (why) } }
            }
        }
    }
}

/// From what to what.
pub(super) fn movement(change: &Change) -> Markup {
    html! {
        @match (change.kind, change.from, change.severity_before) {
            (ChangeKind::SeverityChanged, _, Some(before)) => {
                (badge::verdict(change.to)) ", severity from " (before.name()) " to " (badge::severity(change.severity))
            },
            (_, Some(from), _) => { span class="soft" { (badge::verdict_word(from)) } " → " (badge::verdict(change.to)) " " span class="tag" { (change.severity.name()) } },
            (_, None, _) => { span class="soft" { "first seen: " } (badge::verdict(change.to)) " " span class="tag" { (change.severity.name()) } },
        }
    }
}

fn because(causes: &[Cause]) -> Option<String> {
    let words: Vec<&str> = causes
        .iter()
        .map(|cause| match cause {
            Cause::Host => "the host changed",
            Cause::Rule => "the rule changed",
            Cause::Variables => "values of the site changed",
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}
