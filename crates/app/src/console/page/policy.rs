//! The policy in force, and every one before it.

use maud::{Markup, html};

use crate::{
    console::{visit::Visit, when},
    view::{self, PolicyRow},
};

pub(in crate::console) fn policy(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let mut history = view::policies(&visit.reader)?;
    history.retain(|row| row.loaded_at.0 <= visit.moment());
    let in_force = match visit.at {
        None => Some(view::policy(&visit.reader)),
        Some(_) => None,
    };
    let content = html! {
        div class="title" { h1 { "Policy" } p class="soft" { "How often hosts are scanned, and what a score means: a document that somebody signed." } }
        @match &in_force {
            Some(Ok(policy)) => {
                section class="card" aria-labelledby="force" {
                    h2 id="force" { "In force: " (policy.row.version) }
                    p { (policy.description) }
                    dl class="facts group" {
                        dt { "Signed by" } dd { (policy.signed_by.as_deref().unwrap_or("nobody named")) @if let Some(at) = policy.signed_at { ", " (when::full(at.0)) } }
                        dt { "Key" } dd { code { (policy.row.key) } }
                        dt { "Loaded" } dd { (when::full(policy.row.loaded_at.0)) " by " (policy.row.loaded_by) }
                        @if let Some(until) = policy.expires { dt { "Holds until" } dd { (when::full(until.0)) } }
                        dt { "SHA-256" } dd { code { (policy.row.sha256) } }
                    }
                    details { summary class="plain" { span { "The document as it was signed" } } pre tabindex="0" { (policy.text) } }
                }
            },
            Some(Err(error)) => div class="note bad" role="note" {
                p { strong { "No policy may be used, so nothing is scanned: " } (error.detail) }
                p class="soft" { "Next: sign one and load it with " code { "holdfast policy reload FILE" } "." }
            },
            None => {},
        }
        (loaded(&history, visit.at.is_some()))
    };
    visit.page("Policy").spanning(visit.span()?).show(&content)
}

fn loaded(history: &[PolicyRow], is_past: bool) -> Markup {
    html! {
        section class="card" aria-labelledby="history" {
            h2 id="history" { "Came into force" }
            @if history.is_empty() { p class="empty" { strong { "None yet." } } }
            @else { div class="scroll" { table class="stacked" {
                caption { "The newest first" @if is_past { "; the first was in force then" } }
                thead { tr { th scope="col" { "Version" } th scope="col" { "Loaded" } th scope="col" { "By" } th scope="col" { "Key" } th scope="col" { "SHA-256" } } }
                tbody {
                    @for row in history {
                        tr {
                            td class="name" { (row.version) }
                            td class="nowrap" data-label="Loaded" { (when::full(row.loaded_at.0)) }
                            td data-label="By" { (row.loaded_by) }
                            td data-label="Key" { code { (row.key) } }
                            td data-label="SHA-256" { code { (row.sha256.chars().take(16).collect::<String>()) "…" } }
                        }
                    }
                }
            } } }
        }
    }
}
