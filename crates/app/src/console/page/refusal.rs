//! A page that is not there, not allowed or could not be made: what happened and what to do.

use axum::http::StatusCode;
use maud::{Markup, html};
use scan::token::Role;

use crate::{
    console::{
        frame::{self, Theme},
        link::Link,
        visit::Visit,
    },
    node::{self, Stand},
    view::{self, Kind},
};

/// The status, a title and what to do.
fn told(error: &view::Error) -> (StatusCode, &'static str, &'static str) {
    match error.kind {
        Kind::Missing => (
            StatusCode::NOT_FOUND,
            "It is not there",
            "Look for it in the fleet or among the rules; names are case-sensitive. In a past moment it may not have been there yet.",
        ),
        Kind::OutOfRange => (
            StatusCode::NOT_FOUND,
            "Nothing is kept of that moment",
            "Choose a later one with the slider or the date.",
        ),
        Kind::Invalid | Kind::Exists | Kind::Retired | Kind::InUse | Kind::Refused => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "That cannot be done",
            "Go back, mend what is named above, and try again. Nothing was changed.",
        ),
        Kind::Conflict => (
            StatusCode::CONFLICT,
            "Somebody else was faster",
            "Another change came in between. Go back, look at it, and try again.",
        ),
        Kind::Fenced => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The nodes change their roles",
            "Go back and try again in a moment. If it says that something is not known, look whether it was done.",
        ),
        Kind::Sealed | Kind::Full | Kind::Closed | Kind::Storage => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The answer could not be read",
            "Try again in a moment; if it stays, run `holdfast doctor` on the server.",
        ),
    }
}

/// A page or a form for a higher role.
pub(in crate::console) fn forbidden(visit: &Visit<'_>, role: Role) -> (StatusCode, Markup) {
    let detail = format!(
        "This is for the role {}, and your token `{}` has the role {}.",
        role.name(),
        visit.viewer.name,
        visit.viewer.role.name()
    );
    let next = "Ask an administrator for another token. The attempt is in the audit log.";
    whole(
        visit,
        StatusCode::FORBIDDEN,
        "Your token may not do that",
        &detail,
        next,
    )
}

/// A page or a download about the whole site, for a token of some hosts.
pub(in crate::console) fn not_of_the_site(visit: &Visit<'_>) -> (StatusCode, Markup) {
    let detail = format!(
        "This is about the whole site, and your token `{}` is for some hosts only.",
        visit.viewer.name
    );
    let next = "Ask an administrator for a token without limits to its hosts. The attempt is in the audit log.";
    whole(
        visit,
        StatusCode::FORBIDDEN,
        "Your token may not do that",
        &detail,
        next,
    )
}

/// A form on a node that records nothing.
pub(in crate::console) fn stands_by(visit: &Visit<'_>, stand: &Stand) -> (StatusCode, Markup) {
    let begins = stand.role == node::Role::Primary;
    let detail = match &stand.primary {
        _ if begins => format!("Nothing was done: `{}` does not write yet.", stand.node),
        Some(primary) => format!(
            "Nothing was done: `{}` stands by, and `{}` is the node that writes.",
            stand.node, primary.name
        ),
        None => format!(
            "Nothing was done: `{}` stands by, and knows no node that writes.",
            stand.node
        ),
    };
    let next = match begins {
        true => "Try again in a moment; the note at the top says what is waited for.",
        false => "Do it on the node that writes; the note at the top leads there.",
    };
    whole(
        visit,
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is for reading",
        &detail,
        next,
    )
}

/// A form that no page of this session made.
pub(in crate::console) fn stale_form(visit: &Visit<'_>) -> (StatusCode, Markup) {
    let detail = "The form was not made by a page of this session, so nothing was done.";
    let next = "Go to the page again and send the form from there.";
    whole(
        visit,
        StatusCode::FORBIDDEN,
        "That form is not from here",
        detail,
        next,
    )
}

pub(in crate::console) fn refusal(visit: &Visit<'_>, error: &view::Error) -> (StatusCode, Markup) {
    let (status, title, next) = told(error);
    whole(visit, status, title, &error.detail, next)
}

fn whole(
    visit: &Visit<'_>,
    status: StatusCode,
    title: &str,
    detail: &str,
    next: &str,
) -> (StatusCode, Markup) {
    let content = html! {
        div class="title" { h1 { (title) } }
        div class="card" {
            p { (detail) }
            p class="soft" { (next) }
            p class="group" { a class="button first" href=(visit.link("/")) { "To the fleet" } }
        }
    };
    let page = match (visit.at, visit.span()) {
        (Some(_), Ok(span)) => visit.page(title).spanning(span),
        _ => visit.page(title),
    };
    let page = page.show(&content);
    (
        status,
        page.unwrap_or_else(|_| at_the_door(visit.viewer.theme, title, detail)),
    )
}

/// The same for somebody who is not signed in, or where even the frame could not be made.
pub(in crate::console) fn at_the_door(theme: Theme, title: &str, detail: &str) -> Markup {
    let content = html! {
        div class="card" {
            (frame::brand(Link::to("/")))
            h1 { (title) }
            p { (detail) }
            p class="group" { a class="button" href="/sign-in" { "To the sign-in" } }
        }
    };
    frame::door(title, theme, &content)
}
