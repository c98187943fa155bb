//! From a request to a page or an action: who asks, for which moment, and whether that may be.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, Form, FromRequestParts, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{Html, IntoResponse, Redirect, Response},
};
use maud::Markup;
use scan::{inventory::field, seal::Kind, token::Role};
use world::{RealRandom, Timestamp};

use super::{
    action::{Act, After},
    download,
    frame::{Theme, Viewer},
    link::{self, Link},
    page,
    session::{self, Session},
    trend::{Scores, Spans},
    visit::Visit,
};
use crate::{
    server::{self, Places, Principal, Reach, Shared, auth},
    view,
};

/// A cookie of nothing but a name, readable by no script.
const THEME: &str = "holdfast_theme";
/// A year: who likes it dark likes it dark.
const THEME_SECONDS: u64 = 31_536_000;

/// What all pages share.
#[derive(Clone, Debug)]
pub(super) struct Console {
    shared: Arc<Shared>,
    scores: Arc<Scores>,
    spans: Arc<Spans>,
    downloads: Places,
}

impl Console {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            scores: Arc::default(),
            spans: Arc::default(),
            downloads: Places::new(download::DOWNLOADS_MAX),
        }
    }
}

/// A request before anybody knows who makes it.
#[derive(Debug)]
pub(super) struct Visitor {
    path: String,
    /// The last part of the path that varies, decoded.
    name: String,
    asked: BTreeMap<String, String>,
    cookies: String,
    is_same_site: bool,
    peer: Option<SocketAddr>,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let asked =
            axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let asked = asked.map_err(IntoResponse::into_response)?.0;
        let peer = ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await;
        Ok(Self {
            path: parts.uri.path().to_owned(),
            name: name.map(|Path(name)| name).unwrap_or_default(),
            asked: asked.into_iter().collect(),
            cookies: cookies(&parts.headers),
            is_same_site: is_same_site(&parts.headers),
            peer: peer.ok().map(|ConnectInfo(peer)| peer),
        })
    }
}

impl Visitor {
    fn ip(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip())
    }

    fn theme(&self) -> Theme {
        session::cookie(&self.cookies, THEME).map_or_else(Theme::default, Theme::named)
    }

    /// Where it is to go on after signing in.
    fn back(&self) -> String {
        let asked = self.asked.iter();
        let link = asked.fold(Link::to(&self.path), |link, (name, value)| {
            link.with(name, value)
        });
        link.into()
    }
}

fn cookies(headers: &HeaderMap) -> String {
    let values = headers.get_all(header::COOKIE).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    values.join("; ")
}

/// Threat: a page of another site posts a form. The cookie is not sent along then (SameSite), the form
/// lacks its token, and a browser says so in these headers: each alone would do.
fn is_same_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let by_fetch = text("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let by_origin = text("origin").is_none_or(|origin| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some() && host == text("host")
    });
    by_fetch && by_origin
}

/// Who signed in, as long as the token may be used.
async fn principal(console: &Console, session: &Session) -> Option<Principal> {
    let (shared, token) = (Arc::clone(&console.shared), session.token.clone());
    let found = tokio::task::spawn_blocking(move || auth::principal_of(&shared, &token)).await;
    found.ok().flatten()
}

enum Known {
    Yes(Session, Principal),
    /// Not signed in, or not any more.
    No {
        was: bool,
    },
}

async fn known(console: &Console, visitor: &Visitor) -> Known {
    let now = console.shared.now();
    let Some(session) = console.shared.sessions.find(&visitor.cookies, now) else {
        let was = session::cookie(&visitor.cookies, console.shared.sessions.cookie).is_some();
        return Known::No { was };
    };
    match principal(console, &session).await {
        Some(principal) => Known::Yes(session, principal),
        None => {
            console.shared.sessions.end(&visitor.cookies);
            Known::No { was: true }
        }
    }
}

fn to_the_door(visitor: &Visitor, was: bool) -> Response {
    let back = visitor.back();
    let link = Link::to("/sign-in")
        .with_any("back", (back != "/").then_some(back.as_str()))
        .with_any("ended", was.then_some("yes"));
    Redirect::to(&String::from(link)).into_response()
}

/// What a form does.
pub(super) type Action = fn(&Act<'_>) -> Result<After, view::Error>;
/// What a page shows.
pub(super) type Render = fn(&Visit<'_>, &str) -> Result<Markup, view::Error>;

/// A page for whoever has at least this role, and sees everything where it is about the site.
pub(super) async fn show(
    State(console): State<Console>,
    visitor: Visitor,
    role: Role,
    reach: Reach,
    render: Render,
) -> Response {
    let (session, principal) = match known(&console, &visitor).await {
        Known::Yes(session, principal) => (session, principal),
        Known::No { was } => return to_the_door(&visitor, was),
    };
    blocking(move || {
        let mut visit = visit(&console, &visitor, &session, &principal);
        let at = match moment_asked(&visit) {
            Ok(at) => at,
            Err(error) => return told(page::refusal(&visit, &error)),
        };
        if at.is_some() {
            visit.alerts = view::open_alerts(&visit.reader, at).unwrap_or_default();
        }
        visit.at = at;
        if principal.role < role {
            auth::denied(&console.shared, &principal, visitor.ip(), &visitor.path);
            return told(page::forbidden(&visit, role));
        }
        if reach == Reach::Site && !visit.sees_everything() {
            auth::denied(&console.shared, &principal, visitor.ip(), &visitor.path);
            return told(page::not_of_the_site(&visit));
        }
        match render(&visit, &visitor.name) {
            Ok(page) => told((StatusCode::OK, page)),
            Err(error) => told(page::refusal(&visit, &error)),
        }
    })
    .await
}

fn told((status, page): (StatusCode, Markup)) -> Response {
    (status, Html(shown(page.into_string()))).into_response()
}

/// A page in which nothing reorders or hides what stands beside it: what was given a name before names
/// were held to that is shown by its numbers.
fn shown(page: String) -> String {
    if !page
        .chars()
        .any(|c| !c.is_ascii() && field::is_invisible(c))
    {
        return page;
    }
    let mut shown = String::with_capacity(page.len());
    for c in page.chars() {
        match field::is_invisible(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

async fn blocking(make: impl FnOnce() -> Response + Send + 'static) -> Response {
    let made = tokio::task::spawn_blocking(make).await;
    made.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn visit<'a>(
    console: &'a Console,
    visitor: &Visitor,
    session: &Session,
    principal: &'a Principal,
) -> Visit<'a> {
    let reader = console.shared.reader(principal);
    Visit {
        now: reader.now,
        alerts: view::open_alerts(&reader, None).unwrap_or_default(),
        reader,
        viewer: Viewer {
            name: principal.name.clone(),
            role: principal.role,
            form: session.form.clone(),
            theme: visitor.theme(),
            sees_everything: principal.scope.is_everything(),
        },
        scores: &console.scores,
        spans: &console.spans,
        path: visitor.path.clone(),
        at: None,
        is_wall: visitor.asked.contains_key("wall"),
        asked: visitor.asked.clone(),
        stand: console.shared.standing_by(),
        span: OnceCell::new(),
    }
}

/// A moment to come is now: a field of date and time is easily filled in so.
fn moment_asked(visit: &Visit<'_>) -> Result<Option<Timestamp>, view::Error> {
    match visit.filled("at") {
        None => Ok(None),
        Some(text) => Ok(Some(view::parse(&text, visit.now)?).filter(|at| *at < visit.readable())),
    }
}

/// A whole history to take away, for auditors of everything.
pub(super) async fn take_away(
    State(console): State<Console>,
    visitor: Visitor,
    kind: Kind,
) -> Response {
    let (session, principal) = match known(&console, &visitor).await {
        Known::Yes(session, principal) => (session, principal),
        Known::No { was } => return to_the_door(&visitor, was),
    };
    let refused = if principal.role < Role::Auditor || !principal.scope.is_everything() {
        None
    } else {
        match console.downloads.take(&principal.name) {
            None => Some("others are being made; try again in a moment".to_owned()),
            Some(place) => {
                let shared = Arc::clone(&console.shared);
                match download::answer(shared, place, kind).await {
                    Ok(response) => return response,
                    Err(why) => Some(why),
                }
            }
        }
    };
    blocking(move || {
        let visit = visit(&console, &visitor, &session, &principal);
        match refused {
            None => {
                auth::denied(&console.shared, &principal, visitor.ip(), &visitor.path);
                told(match principal.role < Role::Auditor {
                    true => page::forbidden(&visit, Role::Auditor),
                    false => page::not_of_the_site(&visit),
                })
            }
            Some(why) => {
                let error = view::Error::new(view::Kind::Storage, why);
                told(page::refusal(&visit, &error))
            }
        }
    })
    .await
}

/// What a form does, for whoever has at least this role.
pub(super) async fn act(
    State(console): State<Console>,
    visitor: Visitor,
    Form(form): Form<BTreeMap<String, String>>,
    role: Role,
    action: Action,
) -> Response {
    let (session, principal) = match known(&console, &visitor).await {
        Known::Yes(session, principal) => (session, principal),
        Known::No { was } => return to_the_door(&visitor, was),
    };
    blocking(move || {
        let visit = visit(&console, &visitor, &session, &principal);
        let is_ours = visitor.is_same_site
            && form
                .get("form")
                .is_some_and(|brought| session.made(brought));
        if !is_ours {
            return told(page::stale_form(&visit));
        }
        if principal.role < role {
            auth::denied(&console.shared, &principal, visitor.ip(), &visitor.path);
            return told(page::forbidden(&visit, role));
        }
        if let Some(stand) = &visit.stand {
            return told(page::stands_by(&visit, stand));
        }
        let act = Act {
            shared: &console.shared,
            principal: &principal,
            visit: &visit,
            name: &visitor.name,
            form: &form,
        };
        match action(&act) {
            Ok(After::Go(link)) => Redirect::to(&String::from(link)).into_response(),
            Ok(After::Show(page)) => told((StatusCode::OK, page)),
            Err(error) => told(page::refusal(&visit, &error)),
        }
    })
    .await
}

pub(super) async fn sign_in_page(State(console): State<Console>, visitor: Visitor) -> Response {
    let back = visitor.asked.get("back").map_or("/", String::as_str);
    let ended = visitor.asked.contains_key("ended");
    let why = "Your session has ended: it was not used for long, or the token may not be used any more. Sign in again.";
    let stand = console.shared.standing_by();
    let page = page::sign_in(visitor.theme(), back, ended.then_some(why), stand.as_ref());
    told((StatusCode::OK, page))
}

pub(super) async fn sign_in(
    State(console): State<Console>,
    visitor: Visitor,
    Form(form): Form<BTreeMap<String, String>>,
) -> Response {
    let (theme, stand) = (visitor.theme(), console.shared.standing_by());
    let back = form
        .get("back")
        .and_then(|back| link::own(back))
        .unwrap_or("/")
        .to_owned();
    if !visitor.is_same_site {
        let why = "That form came from another site. Sign in here.";
        return told((
            StatusCode::FORBIDDEN,
            page::sign_in(theme, "/", Some(why), stand.as_ref()),
        ));
    }
    let shared = Arc::clone(&console.shared);
    let token =
        zeroize::Zeroizing::new(form.get("token").map_or("", |text| text.trim()).to_owned());
    let asked = tokio::task::spawn_blocking(move || {
        auth::authenticate(&shared, &token, visitor.ip(), "console.sign_in")
            .map(|(principal, _)| principal)
    });
    let denied = match asked.await {
        Ok(Ok(principal)) => {
            let now = console.shared.now();
            match console
                .shared
                .sessions
                .begin(&principal.name, &RealRandom, now)
            {
                Ok(secret) => return signed_in(&console, &secret, &back),
                Err(_) => "no randomness for a session; try again".to_owned(),
            }
        }
        Ok(Err(denied)) => denied.why().to_owned(),
        Err(_) => "the token could not be looked up; try again".to_owned(),
    };
    let why = format!("Not signed in: {denied}");
    told((
        StatusCode::UNAUTHORIZED,
        page::sign_in(theme, &back, Some(&why), stand.as_ref()),
    ))
}

fn signed_in(console: &Console, secret: &str, back: &str) -> Response {
    let secure = secure(console);
    let cookie = format!(
        "{}={secret}; Path=/; HttpOnly; SameSite=Strict{secure}",
        console.shared.sessions.cookie
    );
    with_cookie(Redirect::to(back), &cookie)
}

fn secure(console: &Console) -> &'static str {
    match console.shared.config.server.is_encrypted() {
        true => "; Secure",
        false => "",
    }
}

fn with_cookie(answer: impl IntoResponse, cookie: &str) -> Response {
    let mut response = answer.into_response();
    let value = HeaderValue::from_str(cookie).expect("made of letters and digits");
    response.headers_mut().append(header::SET_COOKIE, value);
    response
}

/// Ends the session whatever comes along: being signed out by somebody else's page is no harm that the
/// cookie's SameSite would let happen.
pub(super) async fn sign_out(State(console): State<Console>, visitor: Visitor) -> Response {
    if visitor.is_same_site {
        console.shared.sessions.end(&visitor.cookies);
    }
    let cookie = format!(
        "{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{}",
        console.shared.sessions.cookie,
        secure(&console)
    );
    with_cookie(Redirect::to("/sign-in"), &cookie)
}

pub(super) async fn theme(Form(form): Form<BTreeMap<String, String>>) -> Response {
    let theme = Theme::named(form.get("theme").map_or("", String::as_str));
    let back = form
        .get("back")
        .and_then(|back| link::own(back))
        .unwrap_or("/");
    let cookie = format!(
        "{THEME}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={THEME_SECONDS}",
        theme.name()
    );
    with_cookie(Redirect::to(back), &cookie)
}

/// No page has this address.
pub(super) async fn missing(console: State<Console>, visitor: Visitor) -> Response {
    if visitor.path.starts_with("/api/") {
        return server::unknown().await;
    }
    show(console, visitor, Role::Viewer, Reach::Hosts, |visit, _| {
        Err(view::Error::missing("page", &visit.path))
    })
    .await
}
