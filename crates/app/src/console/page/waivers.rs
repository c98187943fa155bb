//! Failures that somebody answers for, until when; asked for by one person and approved by another.

use maud::{Markup, html};
use scan::token::Role;

use crate::{
    console::{badge, frame, visit::Visit, when},
    view::{self, WaiverRow},
};

pub(in crate::console) fn waivers(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let mut all = view::waivers(&visit.reader, visit.at)?;
    all.reverse();
    let may_change = visit.may_change(Role::Operator);
    let (open, over): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|row| matches!(row.standing, "requested" | "approved"));
    let content = html! {
        div class="title" { h1 { "Waivers" } p class="soft" { "A waived failure still fails. It stands beside the verdict who answers for it, and until when." } }
        section class="card" aria-labelledby="open" {
            h2 id="open" { "In force and asked for" }
            @if open.is_empty() { p class="empty" { strong { "Nothing is waived." } @if may_change { " Ask for one below; somebody else approves it." } } }
            ul class="list" { @for row in open { (item(visit, row, may_change)) } }
        }
        @if !over.is_empty() {
            section class="card" aria-labelledby="over" {
                h2 id="over" { "Over" }
                ul class="list" { @for row in over { (item(visit, row, false)) } }
            }
        }
        @if may_change { (request(visit)) }
    };
    visit.page("Waivers").spanning(visit.span()?).show(&content)
}

fn standing(word: &str) -> Markup {
    match word {
        "approved" => badge::badge("good", "tick", "approved"),
        "requested" => badge::badge("doubt", "ask", "waits for approval"),
        "revoked" => badge::badge("idle", "cross", "revoked"),
        _ => badge::badge("idle", "dash", "expired"),
    }
}

fn item(visit: &Visit<'_>, row: &WaiverRow, may_change: bool) -> Markup {
    let title = visit.reader.title(&row.rule);
    html! {
        li {
            span class="first" {
                (standing(row.standing)) " "
                a href=(visit.rule(&row.rule)) { (super::title(&title, &row.rule)) }
                " on " (row.target) " "
                @if row.target == "host" { a href=(visit.host(&row.name)) { (row.name) } } @else { strong { (row.name) } }
            }
            span class="soft small" { "until " (when::short(row.expires.0, visit.now)) }
            span class="under" { (row.reason) }
            span class="under small" {
                "Owner " (row.owner) " · asked for by " (row.requested.by) ", " (when::short(row.requested.at.0, visit.now))
                @if let Some(step) = &row.approved { " · approved by " (step.by) ", " (when::short(step.at.0, visit.now)) }
                @if let Some(step) = &row.revoked { " · revoked by " (step.by) ", " (when::short(step.at.0, visit.now)) ": " (step.reason) }
            }
            @if may_change { (steps(visit, row)) }
        }
    }
}

fn steps(visit: &Visit<'_>, row: &WaiverRow) -> Markup {
    let why = format!("why-{}", row.id);
    html! {
        div class="under actions" {
            @if row.standing == "requested" {
                form method="post" action=(format!("/waivers/{}/approve", row.id)) { (frame::form_field(&visit.viewer)) button { "Approve" span class="unseen" { " waiver " (row.id) } } }
            }
            form method="post" action=(format!("/waivers/{}/revoke", row.id)) {
                (frame::form_field(&visit.viewer))
                label class="unseen" for=(why) { "Why waiver " (row.id) " ends" }
                input id=(why) name="why" placeholder="why it ends" required;
                button class="dire" { "Revoke" span class="unseen" { " waiver " (row.id) } }
            }
        }
    }
}

fn request(visit: &Visit<'_>) -> Markup {
    let asked = |name| visit.asked(name).unwrap_or_default();
    html! {
        section class="card" aria-labelledby="ask" {
            h2 id="ask" { "Ask for a waiver" }
            form class="form" method="post" action="/waivers" {
                (frame::form_field(&visit.viewer))
                div class="field" { label for="rule" { "Rule" } input id="rule" name="rule" required value=(asked("rule")) autocomplete="off"; }
                div class="row" {
                    div class="field" { label for="target" { "For a" } select id="target" name="target" { @for target in ["host", "group", "site", "tag"] { option { (target) } } } }
                    div class="field" { label for="name" { "Named" } input id="name" name="name" required value=(asked("host")) autocomplete="off"; }
                    div class="field" { label for="until" { "Until the end of" } input id="until" name="until" type="date" required; }
                }
                div class="field" { label for="owner" { "Who answers for it" } input id="owner" name="owner" required autocomplete="off"; }
                div class="field" { label for="reason" { "Why that can be lived with" } textarea id="reason" name="reason" required {} }
                div { button class="first" { "Ask" } }
            }
        }
    }
}
