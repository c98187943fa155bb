//! What somebody should know of, until it is over.

use maud::{Markup, html};
use scan::{
    alert::{Severity, State},
    token::Role,
};

use crate::{
    console::{badge, frame, visit::Visit, when},
    view::{self, AlertRow},
};

const SHOWN: [(&str, &str); 4] = [
    ("", "Not over"),
    ("open", "Open"),
    ("resolved", "Resolved"),
    ("all", "All"),
];
/// Alerts of one page; a filter finds the others.
const ROWS_SHOWN: usize = 200;

pub(in crate::console) fn alerts(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let all = view::alerts(&visit.reader, visit.at)?;
    let choice = visit.asked("state").unwrap_or_default();
    let lets_through = |choice: &str, row: &AlertRow| match choice {
        "all" => true,
        "" => row.state != State::Resolved,
        name => row.state.name() == name,
    };
    let shown: Vec<&AlertRow> = all.iter().filter(|row| lets_through(choice, row)).collect();
    let may_change = visit.may_change(Role::Operator);
    let content = html! {
        div class="title" { h1 { "Alerts" } p class="soft" { "The same thing again counts up, and makes no second alert. What is over resolves itself." } }
        nav class="filter choices" aria-label="States" {
            @for (name, words) in SHOWN {
                @let count = all.iter().filter(|row| lets_through(name, row)).count();
                a href=(visit.link("/alerts").with_any("state", Some(name))) aria-current=[(name == choice).then_some("true")] { (words) " " span class="soft" { (count) } }
            }
        }
        section class="card" aria-label="Alerts, the newest first" {
            @if shown.is_empty() {
                p class="empty" {
                    @if choice.is_empty() { strong { "Nothing needs anybody." } " An alert appears here when a score falls, a critical rule fails, a host cannot be reached, and is sent to the receivers that are configured." }
                    @else { strong { "No alert is like that." } }
                }
            }
            ul class="list" { @for row in shown.iter().take(ROWS_SHOWN) { (item(visit, row, may_change)) } }
            @if shown.len() > ROWS_SHOWN { p class="pages" { (ROWS_SHOWN) " of " (shown.len()) " are shown" } }
        }
    };
    visit
        .page("Alerts")
        .keeping(&["state"])
        .spanning(visit.span()?)
        .show(&content)
}

fn severity(severity: Severity) -> Markup {
    match severity {
        Severity::Critical => badge::badge("dire", "4", "critical"),
        Severity::High => badge::badge("bad", "3", "high"),
        Severity::Medium => badge::badge("doubt", "2", "medium"),
        Severity::Info => badge::badge("idle", "1", "for information"),
    }
}

fn state(state: State) -> Markup {
    match state {
        State::Open => badge::badge("bad", "bang", "open"),
        State::Acknowledged => badge::badge("good", "tick", "acknowledged"),
        State::Silenced => badge::badge("idle", "dash", "silenced"),
        State::Resolved => badge::badge("idle", "tick", "resolved"),
    }
}

fn item(visit: &Visit<'_>, row: &AlertRow, may_change: bool) -> Markup {
    html! {
        li id=(format!("alert-{}", row.id)) {
            span class="first" {
                (severity(row.severity)) " "
                @if let Some(host) = &row.host { a href=(visit.host(host)) { (host) } " · " }
                (row.detail)
            }
            span class="soft small" { (when::age(row.last.0, visit.moment())) }
            span class="under small" {
                (state(row.state)) " · " (row.kind.name().replace('_', " ")) " · alert " (row.id)
                " · first " (when::short(row.first.0, visit.now))
                @if row.count > 1 { ", " (row.count) " times" }
                @if let Some(step) = &row.acknowledged { " · acknowledged by " (step.by) (why(&step.why)) }
                @if let Some(silence) = &row.silenced { " · silenced until " (when::short(silence.until.0, visit.now)) " by " (silence.by) }
                @if let Some(step) = &row.resolved { " · resolved by " (step.by) ", " (when::short(step.at.0, visit.now)) (why(&step.why)) }
            }
            @if may_change && row.state != State::Resolved { (steps(visit, row)) }
        }
    }
}

fn why(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

fn steps(visit: &Visit<'_>, row: &AlertRow) -> Markup {
    let to = |what: &str| format!("/alerts/{}/{what}", row.id);
    let length = format!("for-{}", row.id);
    html! {
        div class="under actions" {
            @if row.state != State::Acknowledged {
                form method="post" action=(to("acknowledge")) { (frame::form_field(&visit.viewer)) button { "Acknowledge" span class="unseen" { " alert " (row.id) } } }
            }
            form method="post" action=(to("silence")) {
                (frame::form_field(&visit.viewer))
                label class="unseen" for=(length) { "Silence alert " (row.id) " for" }
                select id=(length) name="for" { @for (span, words) in [("1h", "1 hour"), ("1d", "1 day"), ("7d", "7 days"), ("30d", "30 days")] { option value=(span) { (words) } } }
                button { "Silence" span class="unseen" { " alert " (row.id) } }
            }
            form method="post" action=(to("resolve")) { (frame::form_field(&visit.viewer)) button { "Resolve" span class="unseen" { " alert " (row.id) } } }
        }
    }
}
