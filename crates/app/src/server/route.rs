//! From the table of operations to a router: who asks, whether they may, what they send, what comes of it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, RawPathParams, RawQuery, Request, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::Response,
    routing::{MethodFilter, get, on},
};
use hyper_util::service::TowerToHyperService;
use scan::answered::{self, Answers};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use utoipa::openapi::path::HttpMethod;
use wal::Lsn;
use zeroize::Zeroizing;

use super::{
    Principal, Shared, api,
    auth::{self, Denied},
    call::{Answer, Call, PACKING, Problem},
    carry, export, kept,
    operation::{BODY_LEN_MAX, Does, Operation, Reach},
    role, stream,
};
use crate::{
    http::{answer, origin},
    node::Role,
    site,
};

/// How long a body may take to come, and a place to be free. 1 MiB in this time is 50 KiB a second.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);
const PLACE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an operation may take. Its work is not cut off, and its place is taken until it ends.
const WORK_TIME_MAX: Duration = Duration::from_secs(30);
/// Attempts of a change that others come in between.
const ATTEMPTS_MAX: u32 = 8;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Everything that is served, without the console.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for operation in api::operations() {
        let filter = match operation.method {
            HttpMethod::Get => MethodFilter::GET,
            HttpMethod::Post => MethodFilter::POST,
            HttpMethod::Put => MethodFilter::PUT,
            _ => MethodFilter::DELETE,
        };
        let path = operation.path;
        let (operation, shared) = (Arc::new(operation), Arc::clone(shared));
        let handler = move |params: Result<RawPathParams, _>, request: Request| {
            serve(Arc::clone(&shared), Arc::clone(&operation), params, request)
        };
        router = router.route(path, on(filter, handler));
    }
    router
        .merge(signs_of_life(shared))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
}

fn signs_of_life(shared: &Arc<Shared>) -> Router {
    let (of_health, of_ready) = (Arc::clone(shared), Arc::clone(shared));
    let health = move || {
        let stand = of_health.stand();
        health(stand.map_or("alone", |stand| stand.role.name()))
    };
    let ready = move |query: RawQuery| ready(Arc::clone(&of_ready), query);
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
}

/// What is served where all places are taken: whether this lives, and to everything else that it is full.
pub(super) fn when_full(shared: &Arc<Shared>) -> Router {
    let full = || async { Problem::busy("all connections are taken; ask again in a moment") };
    let full = move || async move { full().await.into_response() };
    signs_of_life(shared).fallback(full)
}

/// What stands around every answer, the console's included.
pub(super) fn around(shared: &Arc<Shared>, router: Router) -> Router {
    let shared = Arc::clone(shared);
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let shared = Arc::clone(&shared);
        async move { watch(shared, request, next).await }
    }))
}

async fn watch(shared: Arc<Shared>, request: Request, next: Next) -> Response {
    // Before the answer is made: it shows this much, and may show more.
    let mut stand = shared.stand();
    let wanted = role::wanted(request.headers()).ok().flatten();
    let begun = tokio::time::Instant::now();
    let is_loopback = shared.config.server.listen.value.ip().is_loopback();
    let refused = match is_loopback {
        // A page that rebinds its own name to this machine is told by the host that it asks for.
        true => origin::refusal(request.headers()),
        false => origin::other_site(request.headers()),
    };
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = match refused {
        Some(why) => answer::problem(StatusCode::FORBIDDEN, "CROSS_SITE", why),
        None => in_form(next.run(request).await),
    };
    let is_done = response.status().is_success();
    let headers = response.headers_mut();
    let mut put = |name: header::HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::X_FRAME_OPTIONS, "DENY");
    put(header::REFERRER_POLICY, "no-referrer");
    put(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    );
    if is_api {
        put(header::CACHE_CONTROL, "no-store");
    }
    if let Some(stand) = &mut stand {
        // What was waited for is there where that is answered as asked.
        if is_api && is_done {
            stand.applied = stand.applied.max(wanted.unwrap_or_default());
        }
        role::tell(headers, stand);
    }
    let mut put = |name: header::HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    if shared.config.server.is_encrypted() {
        put(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    shared.counts.answered(response.status(), begun.elapsed());
    response
}

/// What a library refuses in plain words, as every refusal is told.
fn in_form(response: Response) -> Response {
    let status = response.status();
    let told = response.headers().get(header::CONTENT_TYPE);
    let is_plain = told.is_some_and(|told| told.as_bytes().starts_with(b"text/plain"));
    if !is_plain || !status.is_client_error() {
        return response;
    }
    let (code, detail) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ("TOO_LARGE", "a body of more bytes than are taken here"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("UNSUPPORTED", "another media type is taken here"),
        _ => ("MALFORMED", "the request is not as it is taken here"),
    };
    answer::problem(status, code, detail)
}

/// The process answers; whether it can work is asked of /ready.
pub(super) async fn health(role: &'static str) -> Response {
    let body = json!({"status": "ok", "role": role}).to_string();
    answer::response(StatusCode::OK, "application/json", body)
}

/// Whether what this node serves in its role can be had; with `?role=`, whether that is its role besides.
async fn ready(shared: Arc<Shared>, RawQuery(query): RawQuery) -> Response {
    let role = shared.stand().map(|stand| stand.role);
    let wanted = query
        .as_deref()
        .and_then(|query| query.strip_prefix("role="));
    // A site of one machine has one that writes.
    let is_other = wanted.is_some_and(|wanted| wanted != role.unwrap_or(Role::Primary).name());
    // It has the authority and not enough copies yet, for as long as that takes.
    let begins = wanted.is_some() && role == Some(Role::Primary) && !shared.is_writer;
    let asked = Arc::clone(&shared);
    let store = tokio::task::spawn_blocking(move || asked.store.snapshot().map(drop));
    let store = timeout(PLACE_TIME_MAX, store).await;
    let events = shared
        .events
        .as_ref()
        .and_then(|events| (events.readiness)());
    let why = if *shared.stop.borrow() {
        Some("stopping")
    } else if is_other {
        Some("this node has another role")
    } else if begins {
        Some("this node does not write yet")
    } else if !matches!(store, Ok(Ok(Ok(())))) {
        Some("the store does not answer")
    } else {
        events
    };
    let (status, body) = match why {
        None => (
            StatusCode::OK,
            json!({"status": "ready", "role": role.map_or("alone", Role::name)}),
        ),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"status": "not ready", "role": role.map_or("alone", Role::name), "why": why}),
        ),
    };
    answer::response(status, "application/json", body.to_string())
}

pub(crate) async fn unknown() -> Response {
    let detail = "nothing is here; /api/v1/openapi.json tells what there is";
    answer::problem(StatusCode::NOT_FOUND, "UNKNOWN", detail)
}

async fn not_allowed() -> Response {
    let detail = "this address takes another method";
    answer::problem(StatusCode::METHOD_NOT_ALLOWED, "METHOD", detail)
}

async fn serve(
    shared: Arc<Shared>,
    operation: Arc<Operation>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response {
    let counts = Arc::clone(&shared);
    let id = operation.id;
    let response = match params {
        Ok(params) => carry_out(shared, operation, params, request).await,
        Err(_) => Err(Problem::malformed("the path is not UTF-8")),
    };
    let response = response.unwrap_or_else(Problem::into_response);
    counts.counts.operated(id, response.status());
    response
}

async fn carry_out(
    shared: Arc<Shared>,
    operation: Arc<Operation>,
    params: RawPathParams,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>();
    let peer = peer.map(|peer| peer.0.ip());
    let salt = auth::token_of(&parts.headers)
        .ok()
        .flatten()
        .map(|token| Zeroizing::new(token.to_owned()));
    let (mut principal, position) = let_in(&shared, &operation, &parts, peer).await?;
    let admitted = role::admit(&shared, &operation, &parts.headers).await?;
    if admitted > position {
        // What was waited for may be that the token is revoked.
        (principal, _) = let_in(&shared, &operation, &parts, peer).await?;
    }
    let position = admitted.or(position).filter(|_| operation.is_kept);
    match operation.does {
        Does::Follow => {
            return stream::follow(shared, principal, parts.uri.query(), &parts.headers).await;
        }
        Does::Export => {
            let format = params.iter().next().map(|(_, format)| format.to_owned());
            let format = format.unwrap_or_default();
            return export::write(shared, &principal.name, &format, parts.uri.query()).await;
        }
        Does::Events => return Ok(pass_on(&shared, parts, body).await),
        Does::Carry => return carry::carry(shared, principal, peer, &parts.headers, body).await,
        Does::Read(_) | Does::Change(_) | Does::Act(_) => {}
    }
    let body = read_body(&operation, &parts.headers, body).await?;
    let fingerprint = match operation.does {
        Does::Change(_) => fingerprint(salt.as_deref(), &parts, &body),
        _ => String::new(),
    };
    let packs = operation.is_kept && takes_packed(&parts.headers);
    let key = position.and_then(|_| kept::Key::new(operation.id, &parts.uri, packs, &principal));
    let kept = key.zip(position);
    let (is_kept, changes) = (operation.is_kept, operation.changes_something());
    let wanted = parts.headers.get(header::IF_NONE_MATCH).cloned();
    let call = Call {
        now: shared.now(),
        params: owned(&params),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        principal,
        body,
        fingerprint,
        shared: Arc::clone(&shared),
    };
    let now = call.now;
    let make = || async {
        let work = move || match packs {
            true => run(&operation, &call).map(Answer::packed),
            false => run(&operation, &call),
        };
        blocking(&shared, work).await?
    };
    let answer = match kept {
        Some((key, position)) => match shared.kept.still(&key, position, now, wanted.as_ref()) {
            Some(known) => known,
            None => shared.kept.answer(key, position, now, make).await?,
        },
        None => make().await?,
    };
    let answer = answer.recorded(changes, &shared.store);
    let mut response = answer.into_response(wanted.as_ref());
    if is_kept {
        let by = HeaderValue::from_static("accept-encoding");
        response.headers_mut().insert(header::VARY, by);
    }
    Ok(response)
}

fn owned(params: &RawPathParams) -> Vec<(String, String)> {
    let params = params.iter();
    params
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Whether the asker says that it takes compressed bodies.
fn takes_packed(headers: &HeaderMap) -> bool {
    let named = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut named = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    named.any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
        name.trim().eq_ignore_ascii_case(PACKING) && weight.parse::<f32>().is_ok_and(|it| it > 0.0)
    })
}

/// Runs `work` on a thread that may wait, once there is a place for it.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let place = timeout(PLACE_TIME_MAX, Arc::clone(&shared.running).acquire_owned()).await;
    let Ok(Ok(place)) = place else {
        return Err(Problem::busy(
            "too much is asked at a time; ask again in a moment",
        ));
    };
    let work = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    match timeout(WORK_TIME_MAX, work).await {
        Ok(Ok(done)) => Ok(done),
        // A panic was told by the panic hook.
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "BROKEN",
            "the work was lost; the log of the server tells more",
        )),
        Err(_) => Err(Problem::busy("it takes too long; ask for less, or later")),
    }
}

/// Who asks, once it is sure that they may, and where the store was then: that is told where it costs
/// nothing.
async fn let_in(
    shared: &Arc<Shared>,
    operation: &Arc<Operation>,
    parts: &Parts,
    peer: Option<IpAddr>,
) -> Result<(Principal, Option<Lsn>), Problem> {
    let token = match auth::token_of(&parts.headers) {
        Ok(token) => token.map(|token| Zeroizing::new(token.to_owned())),
        Err(_) => Some(Zeroizing::new(String::new())),
    };
    let position = shared.store.newest_here().map(|commit| commit.lsn);
    let known = token.as_ref().zip(position);
    let known = known.and_then(|(token, position)| auth::at_once(shared, token, position));
    // What is refused is audited, on a thread that may wait.
    if let Some(principal) = known.filter(|known| refusal(known, operation).is_none()) {
        return Ok((principal, position));
    }
    // Questions only: a page of another site can make a browser send the cookie, but no header.
    let session = match token.is_none() && parts.method.is_safe() {
        true => session(shared, &parts.headers),
        false => None,
    };
    let (asked, wanted) = (Arc::clone(shared), Arc::clone(operation));
    blocking(shared, move || {
        let of_session = session.and_then(|token| auth::principal_of(&asked, &token));
        let principal = match token {
            None if of_session.is_some() => of_session
                .map(|principal| (principal, position))
                .ok_or(Denied::Missing),
            Some(token) => auth::authenticate(&asked, &token, peer, wanted.id)
                .map(|(principal, position)| (principal, Some(position))),
            None => Err(auth::fail(&asked, Denied::Missing, peer, wanted.id)),
        };
        let (principal, position) = principal.map_err(no_token)?;
        if let Some(refused) = refusal(&principal, &wanted) {
            auth::denied(&asked, &principal, peer, wanted.id);
            return Err(refused);
        }
        Ok((principal, position))
    })
    .await?
}

/// The name of the token that the console was signed in to with.
fn session(shared: &Shared, headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut cookies = cookies.filter_map(|value| value.to_str().ok());
    cookies.find_map(|cookies| shared.sessions.token_of(cookies, shared.now()))
}

fn no_token(denied: Denied) -> Problem {
    match denied {
        Denied::TooMany { seconds } => Problem {
            retry_after: Some(seconds),
            ..Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOO_MANY_ATTEMPTS",
                denied.why(),
            )
        },
        Denied::Broken => Problem::busy(denied.why()),
        _ => Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", denied.why()),
    }
}

/// The one check of roles and scopes.
fn refusal(principal: &Principal, operation: &Operation) -> Option<Problem> {
    if principal.role < operation.role {
        let detail = format!(
            "{} may be done by {} or above; this token is {}",
            operation.id, operation.role, principal.role
        );
        Some(Problem::new(StatusCode::FORBIDDEN, "ROLE", detail))
    } else if operation.reach == Reach::Site && !principal.scope.is_everything() {
        let detail = format!(
            "{} is about the whole site; this token is for some hosts",
            operation.id
        );
        Some(Problem::new(StatusCode::FORBIDDEN, "SCOPE", detail))
    } else {
        None
    }
}

async fn read_body(
    operation: &Operation,
    headers: &HeaderMap,
    body: Body,
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let told = headers.get(header::CONTENT_LENGTH);
    let told = told.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    // Before a byte of it is read: the connection is closed with the answer.
    if told.is_some_and(|len| len > BODY_LEN_MAX) {
        return Err(too_large());
    }
    let bytes = timeout(BODY_TIME_MAX, take(body)).await;
    let bytes = bytes.unwrap_or_else(|_| {
        let detail = "the body did not come in time";
        Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "TOO_SLOW",
            detail,
        ))
    })?;
    if operation.takes.is_some() {
        if !is_json(headers) {
            return Err(not_json());
        }
    } else if !bytes.is_empty() {
        return Err(Problem::malformed("this operation takes no body"));
    }
    Ok(bytes)
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let told = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = told.unwrap_or_default().split(';').next();
    essence
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
}

pub(super) fn not_json() -> Problem {
    let detail = "send application/json";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED", detail)
}

async fn take(body: Body) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::malformed("the body broke off"))?;
        if bytes.len() + chunk.len() > BODY_LEN_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn too_large() -> Problem {
    let detail = format!("a body of more than {BODY_LEN_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", detail)
}

/// Of what is asked. Mixed with the token, which no store has: a body may be a password, and what is
/// remembered of it must be no way to try passwords out.
fn fingerprint(salt: Option<&String>, parts: &Parts, body: &[u8]) -> String {
    use std::fmt::Write;
    let mut digest = Sha256::new();
    let uri = parts.uri.to_string();
    let salt = salt.map(String::as_bytes).unwrap_or_default();
    for part in [salt, parts.method.as_str().as_bytes(), uri.as_bytes(), body] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest
        .finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}

async fn pass_on(shared: &Shared, mut parts: Parts, body: Body) -> Response {
    let Some(events) = &shared.events else {
        let detail = "events are not taken here; events.enabled says whether";
        return answer::problem(StatusCode::NOT_FOUND, "UNKNOWN", detail);
    };
    let routes = TowerToHyperService::new(events.routes.clone());
    // What this router found in the path would be found once more by that one.
    let peer = parts
        .extensions
        .remove::<ConnectInfo<std::net::SocketAddr>>();
    parts.extensions.clear();
    if let Some(peer) = peer {
        parts.extensions.insert(peer);
    }
    let request = Request::from_parts(parts, body);
    match hyper::service::Service::call(&routes, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn run(operation: &Operation, call: &Call) -> Result<Answer, Problem> {
    let answer = match operation.does {
        Does::Read(does) => return does(call),
        Does::Act(does) => does(call)?,
        Does::Change(does) => change(does, call)?,
        Does::Follow | Does::Export | Does::Events | Does::Carry => {
            unreachable!("served before a call is made")
        }
    };
    site::changed(&call.shared.dir, crate::screen::Screen::silent());
    Ok(answer)
}

/// One transaction: the change, its audit record, and the answer under its idempotency key.
fn change(
    does: fn(&Call, &mut store::Transaction) -> Result<Answer, Problem>,
    call: &Call,
) -> Result<Answer, Problem> {
    let key = call.headers.get(IDEMPOTENCY_KEY).map(|value| {
        let text = value
            .to_str()
            .map_err(|_| Problem::malformed("the idempotency key is not ASCII"))?;
        Ok::<_, Problem>(text.to_owned())
    });
    let key = key.transpose()?;
    let answers = Answers::of(&call.shared.store)?;
    let mut attempts = 1;
    loop {
        let done = attempt(does, call, answers, key.as_deref());
        match done {
            Err(problem) if problem.code == "CONFLICT" && attempts < ATTEMPTS_MAX => attempts += 1,
            settled => return settled,
        }
    }
}

fn attempt(
    does: fn(&Call, &mut store::Transaction) -> Result<Answer, Problem>,
    call: &Call,
    answers: Answers,
    key: Option<&str>,
) -> Result<Answer, Problem> {
    let mut transaction = call.shared.store.begin()?;
    let who = &call.principal.name;
    if let Some(key) = key
        && let Some(found) = answers.find_in(&mut transaction, who, key, call.now)?
    {
        return again(call, found);
    }
    let mut answer = does(call, &mut transaction)?;
    if let Some(key) = key {
        let body = String::from_utf8(answer.body.to_vec()).ok();
        let remembered = answered::Answer {
            fingerprint: call.fingerprint.clone(),
            status: answer.status.as_u16(),
            body: body.filter(|_| !answer.is_secret),
            at: call.now.nanos(),
        };
        answers.put_in(&mut transaction, who, key, &remembered)?;
    }
    answer.lsn = Some(transaction.commit()?.lsn);
    Ok(answer)
}

/// What was answered before, or why it is not told again.
fn again(call: &Call, found: answered::Answer) -> Result<Answer, Problem> {
    if found.fingerprint != call.fingerprint {
        let detail = "the idempotency key was used for something else";
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "KEY_REUSED",
            detail,
        ));
    }
    let Some(body) = found.body else {
        let detail = "it was done before, and its answer is not kept; look at what it made";
        return Err(Problem::new(StatusCode::CONFLICT, "DONE_BEFORE", detail));
    };
    let mut answer = Answer::nothing();
    answer.status = StatusCode::from_u16(found.status).unwrap_or(StatusCode::OK);
    answer.body = body.into();
    Ok(answer)
}
