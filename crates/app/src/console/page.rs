//! The pages: each asks views and renders what they answer. None reads a table or changes anything.

mod administration;
mod alerts;
mod audit;
mod changes;
mod fleet;
mod host;
mod policy;
mod refusal;
mod rule;
mod schedule;
mod sign_in;
mod waivers;
mod words;

use maud::{Markup, html};

pub(super) use administration::{administration, made};
pub(super) use alerts::alerts;
pub(super) use audit::audit;
pub(super) use changes::changes;
pub(super) use fleet::fleet;
pub(super) use host::{evidence, host};
pub(super) use policy::policy;
pub(super) use refusal::{forbidden, not_of_the_site, refusal, stale_form, stands_by};
pub(super) use rule::{rule, rules};
pub(super) use schedule::schedule;
pub(super) use sign_in::sign_in;
pub(super) use waivers::waivers;

use super::{link::Link, visit::Visit};
use crate::view;

/// Formats that a moment is taken away in, and what each is for.
const FORMATS: [(&str, &str); 8] = [
    ("html", "HTML report"),
    ("csv", "CSV table"),
    ("jsonl", "JSON Lines"),
    ("oscal", "OSCAL assessment results"),
    ("xccdf", "XCCDF results"),
    ("sarif", "SARIF"),
    ("junit", "JUnit"),
    ("ocsf", "OCSF findings"),
];

/// OCSF tells of changes, so that of a past moment it is every change by then.
fn taken_away(visit: &Visit<'_>, format: &str, host: Option<&str>) -> Link {
    let link = Link::to("/api/v1/exports")
        .segment(format)
        .with_any("host", host);
    match format {
        "ocsf" => link.with_any("until", visit.until().as_deref()),
        _ => link.at(visit.at),
    }
}

/// Where the moment of a page is taken away, of one host or of all.
fn downloads(visit: &Visit<'_>, host: Option<&str>) -> Markup {
    html! {
        details class="menu" {
            summary class="plain" { "Download" @if visit.at.is_some() { " as it was" } }
            ul class="list" {
                @for (format, name) in FORMATS {
                    @let link = taken_away(visit, format, host);
                    li { a class="first" href=(link) download { (name) } }
                }
                li {
                    a class="first" href="/downloads/ledger" download { "The ledger, to verify offline" }
                    span class="under" {
                        "then " code { "holdfast ledger verify --export FILE --key KEY" }
                        ", where KEY is what " code { "holdfast ledger key show" } " prints on the server"
                        @if let Some(key) = view::signing_key(&visit.reader) { ": " code { (key) } }
                    }
                }
            }
        }
    }
}

/// A rule by its title; one that is not among those in use by its id.
fn title<'a>(title: &'a str, id: &'a str) -> &'a str {
    if title.is_empty() { id } else { title }
}
