//! The console: pages for people, made on the server from the views of a site.
//!
//! Nothing here reads a table; a page is what a view answers, for the eyes of the token that somebody
//! signed in with. HTML is escaped by construction. Style, script and icon are in the binary, nothing
//! comes from elsewhere, and the Content-Security-Policy says so. Every page works without the script.
//!
//! ```text
//! GET  ─ session ─▶ token ─▶ Visit (moment, query, role) ─▶ page ─▶ frame
//! POST ─ same site ─ session ─ token of the form ─ role ─▶ action ─▶ 303 to the page
//! ```

mod action;
mod assets;
mod badge;
mod body;
mod chart;
mod download;
mod frame;
mod headers;
mod link;
mod page;
mod request;
mod session;
mod slider;
mod trend;
mod visit;
mod when;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodRouter, any, get, post},
};
use scan::{seal::Kind, token::Role};

pub(crate) use download::clear as clear_downloads;
#[cfg(test)]
pub(crate) use download::written;
pub(crate) use session::Sessions;
pub(crate) use when::file_part;

use crate::server::{Reach, Shared};
use request::{
    Action, Console, Render, act, show, sign_in, sign_in_page, sign_out, take_away, theme,
};

/// Bytes of a form: a paragraph for a reason, and names.
const FORM_LEN_MAX: usize = 64 << 10;

/// Everything that a browser asks for, beside `/api/v1`.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let take = |kind| get(move |console, visitor| take_away(console, visitor, kind));
    forms(pages(Router::new()))
        .route("/downloads/ledger", take(Kind::Ledger))
        .route("/downloads/audit", take(Kind::Audit))
        .route("/sign-in", get(sign_in_page).post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/theme", post(theme))
        .route("/assets/{name}", get(assets::serve))
        .route("/{*rest}", any(request::missing))
        .layer(DefaultBodyLimit::max(FORM_LEN_MAX))
        .layer(middleware::from_fn(body::in_time))
        .layer(middleware::from_fn(headers::add))
        .with_state(Console::new(shared))
}

/// A page for whoever has at least `role`.
fn page(role: Role, render: Render) -> MethodRouter<Console> {
    get(move |console, visitor| show(console, visitor, role, Reach::Hosts, render))
}

/// A page about the whole site: a token of a few hosts is refused, as the HTTP interface does.
fn page_of_site(role: Role, render: Render) -> MethodRouter<Console> {
    get(move |console, visitor| show(console, visitor, role, Reach::Site, render))
}

/// What a form does, for whoever has at least `role`.
fn form(role: Role, action: Action) -> MethodRouter<Console> {
    post(move |console, visitor, form| act(console, visitor, form, role, action))
}

fn pages(router: Router<Console>) -> Router<Console> {
    use Role::{Auditor, Operator, Viewer};
    router
        .route("/", page(Viewer, |visit, _| page::fleet(visit)))
        .route("/hosts/{name}", page(Viewer, page::host))
        .route("/evidence/{sha256}", page_of_site(Viewer, page::evidence))
        .route("/rules", page(Viewer, |visit, _| page::rules(visit)))
        .route("/rules/{id}", page(Viewer, page::rule))
        .route("/changes", page(Viewer, |visit, _| page::changes(visit)))
        .route("/alerts", page(Viewer, |visit, _| page::alerts(visit)))
        .route("/schedule", page(Viewer, |visit, _| page::schedule(visit)))
        .route(
            "/policy",
            page_of_site(Viewer, |visit, _| page::policy(visit)),
        )
        .route("/waivers", page(Viewer, |visit, _| page::waivers(visit)))
        .route(
            "/audit",
            page_of_site(Auditor, |visit, _| page::audit(visit)),
        )
        .route(
            "/admin",
            page(Operator, |visit, _| page::administration(visit)),
        )
}

fn forms(router: Router<Console>) -> Router<Console> {
    use Role::{Admin, Operator};
    router
        .route(
            "/alerts/{id}/acknowledge",
            form(Operator, action::acknowledge),
        )
        .route("/alerts/{id}/silence", form(Operator, action::silence))
        .route("/alerts/{id}/resolve", form(Operator, action::resolve))
        .route("/waivers", form(Operator, action::request_waiver))
        .route(
            "/waivers/{id}/approve",
            form(Operator, action::approve_waiver),
        )
        .route(
            "/waivers/{id}/revoke",
            form(Operator, action::revoke_waiver),
        )
        .route("/admin/hosts", form(Operator, action::add_host))
        .route(
            "/admin/hosts/{name}/retire",
            form(Operator, action::retire_host),
        )
        .route("/admin/tokens", form(Admin, action::make_token))
        .route(
            "/admin/tokens/{name}/revoke",
            form(Admin, action::revoke_token),
        )
}
