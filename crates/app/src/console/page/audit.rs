//! Who did what to what, the newest first.

use maud::{Markup, html};
use world::Timestamp;

use crate::{
    console::{link::Link, visit::Visit, when},
    moment,
    view::{self, AuditAsked, AuditRow},
};

const SHOWN: usize = 100;
const FIELDS: [(&str, &str, &str); 3] = [
    ("action", "Action", "host, policy.loaded"),
    ("actor", "Actor", "user anna"),
    ("object", "Object", "web-1"),
];

pub(in crate::console) fn audit(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let page = view::audit(
        &visit.reader,
        &AuditAsked {
            until: visit.until(),
            actor: visit.filled("actor"),
            action: visit.filled("action"),
            object: visit.filled("object"),
            limit: Some(SHOWN),
            cursor: visit.filled("after"),
            ..AuditAsked::default()
        },
    )?;
    let filtered = |link: Link| {
        FIELDS.iter().fold(link, |link, (name, ..)| {
            link.with_any(name, visit.asked(name))
        })
    };
    let content = html! {
        div class="title" {
            h1 { "Audit" }
            p class="soft" { "Who did what to what, and what was refused. Nothing in it is ever changed." }
            div class="aside" { a class="button" href="/downloads/audit" download { "Download, to verify offline" } }
        }
        form class="filter" method="get" action="/audit" role="search" aria-label="Records" {
            @if let Some(at) = visit.at { input type="hidden" name="at" value=(view::Moment(at)); }
            @for (name, label, example) in FIELDS {
                div class="field" { label for=(name) { (label) } input id=(name) name=(name) value=(visit.asked(name).unwrap_or_default()) placeholder=(example) autocomplete="off" data-search[name == "action"]; }
            }
            button { "Filter" }
            @if FIELDS.iter().any(|(name, ..)| visit.filled(name).is_some()) { a class="button" href=(visit.link("/audit")) { "Show all" } }
        }
        section class="card" aria-label="Records" {
            @if page.records.is_empty() { p class="empty" { strong { "No record is like that." } } }
            @for record in &page.records { (fold(record, visit.now)) }
            @if let Some(next) = &page.next { p class="pages" { a href=(filtered(visit.link("/audit")).with("after", next)) { "Older records" } } }
        }
    };
    visit
        .page("Audit")
        .keeping(&["action", "actor", "object"])
        .spanning(visit.span()?)
        .show(&content)
}

fn fold(record: &AuditRow, now: Timestamp) -> Markup {
    html! {
        details {
            summary class="record" {
                span class="soft nowrap" { (when::short(record.at.0, now)) }
                span class="what" { strong { (record.action) } " " (record.object) }
                span class="soft small" { (record.actor) }
            }
            div class="fold" { pre tabindex="0" { (serde_json::to_string_pretty(&moment::readable(&record.detail)).unwrap_or_default()) } }
        }
    }
}
