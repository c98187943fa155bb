//! Changes as they come, as server-sent events.
//!
//! A follower is a place of a bounded number, woken by the store's position and not by each change: it
//! reads what is behind its own cursor, so that nothing is kept for it. One that takes nothing for the
//! time that [`crate::http`] gives a write is dropped, and goes on later from its `Last-Event-ID`.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, interval},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::{Place, Principal, Shared, auth, call::Problem, route::blocking};
use crate::{http::answer, view};

/// Followers at a time: each is a connection of the console, and asks the store for its position twice
/// a second.
pub(crate) const FOLLOWERS_MAX: usize = 64;
/// How soon a change is told.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a connection says nothing before it says that it lives. Proxies drop after 60 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often a follower's token is looked at again: one that was revoked follows no longer.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// How long a follower is served; it comes back from where it was.
const LIFE_MAX: Duration = Duration::from_secs(15 * 60);
/// Batches that wait for a slow reader; then nothing more is read for it.
const WAITING_MAX: usize = 4;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    host: Option<String>,
    rule: Option<String>,
    /// As `Last-Event-ID`.
    cursor: Option<String>,
}

/// Answers with changes after the cursor, or from here on.
pub(super) async fn follow(
    shared: Arc<Shared>,
    principal: Principal,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let uri = format!("/?{}", query.unwrap_or_default())
        .parse()
        .map_err(|_| Problem::malformed("the query is not one"))?;
    let asked = axum::extract::Query::<Asked>::try_from_uri(&uri)
        .map_err(|error| Problem::invalid(format!("query: {}", error.body_text())))?
        .0;
    let place = shared.followers.take(&principal.name);
    let place = place.ok_or_else(|| Problem::busy("too many follow changes at a time"))?;
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .map(ToOwned::to_owned);
    let after = last.or(asked.cursor).filter(|cursor| !cursor.is_empty());
    let mut follower = Follower {
        shared,
        principal,
        host: asked.host,
        rule: asked.rule,
        after,
        is_behind: false,
    };
    // Refused now rather than in a stream that has begun.
    let first = follower.first().await?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(follower.run(first, sender, place));
    let body = ReceiverStream::new(receiver).map(Ok::<Bytes, std::convert::Infallible>);
    let mut response =
        answer::response(StatusCode::OK, "text/event-stream", Body::from_stream(body));
    let no_buffering = HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert("x-accel-buffering", no_buffering);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

struct Follower {
    shared: Arc<Shared>,
    principal: Principal,
    host: Option<String>,
    rule: Option<String>,
    /// Everything up to here was told, or is of others. It may name a host that the token does not see, and
    /// is told to nobody.
    after: Option<String>,
    /// What there is was not looked at to its end.
    is_behind: bool,
}

impl Follower {
    /// What is behind the cursor; without one, nothing, and the cursor is set to the newest change.
    async fn first(&mut self) -> Result<Vec<view::Change>, Problem> {
        if self.after.is_some() {
            return self.read().await;
        }
        let (shared, principal) = (Arc::clone(&self.shared), self.principal.clone());
        let host = self.host.clone();
        let newest = blocking(&self.shared, move || {
            view::newest_change(&shared.reader(&principal), host.as_deref())
        });
        self.after = newest.await??;
        Ok(Vec::new())
    }

    async fn read(&mut self) -> Result<Vec<view::Change>, Problem> {
        let asked = view::ChangesAsked {
            host: self.host.clone(),
            rule: self.rule.clone(),
            order: Some("oldest".to_owned()),
            limit: Some(view::CHANGES_MAX),
            cursor: self.after.clone(),
            ..view::ChangesAsked::default()
        };
        let (shared, principal) = (Arc::clone(&self.shared), self.principal.clone());
        let page = blocking(&self.shared, move || {
            view::changes(&shared.reader(&principal), &asked)
        });
        let page = page.await??;
        self.is_behind = page.next.is_some();
        let last = page.changes.last().map(|change| change.cursor.clone());
        // A page without a change may have a next one, where others have many.
        self.after = page.next.or(last).or(self.after.take());
        Ok(page.changes)
    }

    async fn run(mut self, first: Vec<view::Change>, sender: mpsc::Sender<Bytes>, place: Place) {
        let mut stop = self.shared.stop.clone();
        let (begun, mut told, mut asked) = (Instant::now(), Instant::now(), Instant::now());
        let mut seen = None;
        let mut looks = interval(LOOK_EVERY);
        if sender.send(text(&first)).await.is_err() {
            return;
        }
        while begun.elapsed() < LIFE_MAX {
            tokio::select! {
                biased;
                () = crate::http::door::stopped(&mut stop) => break,
                () = sender.closed() => break,
                _ = looks.tick() => {}
            }
            let shared = Arc::clone(&self.shared);
            let (name, is_due) = (self.principal.name.clone(), asked.elapsed() >= ASKED_EVERY);
            let Ok(Ok((position, principal))) = blocking(&self.shared, move || {
                let position = shared.store.snapshot()?.lsn();
                let principal = is_due.then(|| auth::principal_of(&shared, &name));
                Ok::<_, store::Error>((position, principal))
            })
            .await
            else {
                break;
            };
            match principal {
                None => {}
                // Revoked or expired.
                Some(None) => break,
                Some(Some(principal)) => {
                    self.principal = principal;
                    asked = Instant::now();
                }
            }
            let mut bytes = Bytes::new();
            if seen != Some(position) {
                let Ok(changes) = self.read().await else {
                    break;
                };
                // Where there is more, the next look reads it.
                seen = (!self.is_behind).then_some(position);
                if !changes.is_empty() {
                    bytes = text(&changes);
                }
            }
            if bytes.is_empty() && told.elapsed() >= HEARTBEAT {
                bytes = Bytes::from_static(b": alive\n\n");
            }
            if !bytes.is_empty() {
                told = Instant::now();
                if sender.send(bytes).await.is_err() {
                    break;
                }
            }
        }
        drop(place);
    }
}

/// `id` is what the reader comes back with. The JSON has no line break.
fn text(changes: &[view::Change]) -> Bytes {
    let mut text = String::from(if changes.is_empty() {
        ": begun\n\n"
    } else {
        ""
    });
    for change in changes {
        let document = serde_json::to_string(change).expect("a plain struct with string keys");
        // Names of hosts hold no control character, so that an id is one line.
        text.push_str(&format!(
            "event: change\nid: {}\ndata: {document}\n\n",
            change.cursor
        ));
    }
    text.into()
}
