//! Changes as they come, as server-sent events.
//!
//! What is told is what was committed since the follower was told last, wherever it stands in the order of all
//! changes: an apply that overlaps with another may be committed later and stand before it. So an event's id
//! is two positions of the store, up to which everything was told and is being told, and a place between.
//!
//! A follower is a place of a bounded number, woken by the store's position and not by each change: it
//! reads what is behind its own cursor, so that nothing is kept for it. One that takes nothing for the
//! time that [`crate::http`] gives a write is dropped, and goes on later from its `Last-Event-ID`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use scan::ledger::{Heads, Ledger};
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, interval},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use wal::Lsn;

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
        told: Arc::new(Heads::nothing()),
        to: None,
        after: None,
    };
    // Refused now rather than in a stream that has begun.
    let first = follower.begin(after).await?;
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

/// How far the records of all hosts are, for all followers: read once for each position.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<Option<Arc<Heads>>>);

impl Newest {
    /// At the newest position or later. Blocks.
    fn of(&self, shared: &Shared) -> Result<Arc<Heads>, view::Error> {
        let position = shared.store.newest()?.lsn;
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().as_ref().filter(|it| it.position() >= position) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(Ledger::new(shared.store.clone())?.heads()?);
        *lock() = Some(Arc::clone(&found));
        Ok(found)
    }
}

struct Follower {
    shared: Arc<Shared>,
    principal: Principal,
    host: Option<String>,
    rule: Option<String>,
    /// Everything up to here was told, or is of others.
    told: Arc<Heads>,
    /// Up to here it is told, where that was not finished with one page.
    to: Option<Arc<Heads>>,
    /// How far that is. It may be given to nobody: what is told has ids of its own.
    after: Option<String>,
}

/// A change, and what its reader comes back with.
struct Event {
    id: String,
    change: view::Change,
}

/// The id of an event: what was told before, up to where, and the place of the change between them.
fn id(told: Lsn, to: Lsn, cursor: &str) -> String {
    // Of whoever came with a place alone, what was told before is not known.
    match told {
        Lsn::ZERO => cursor.to_owned(),
        told => format!("{told}.{to}.{cursor}"),
    }
}

/// The positions of an id, and its place. A place alone has none: it is what a page of changes gives.
fn of_id(id: &str) -> (Option<(Lsn, Lsn)>, &str) {
    let Some((positions, cursor)) = id.rsplit_once('.') else {
        return (None, id);
    };
    let read = |text: &str| text.parse().ok().map(Lsn::new);
    let read = positions
        .split_once('.')
        .and_then(|(told, to)| Some((read(told)?, read(to)?)));
    (read.filter(|(told, to)| told <= to), cursor)
}

impl Follower {
    /// What is behind the id that it came with; without one, nothing, and it is told what comes from here on.
    async fn begin(&mut self, after: Option<String>) -> Result<Vec<Event>, Problem> {
        let shared = Arc::clone(&self.shared);
        let Some(after) = after else {
            let newest = blocking(&self.shared, move || shared.newest.of(&shared));
            self.told = newest.await??;
            // The question itself may be one that is refused.
            self.to = Some(Arc::clone(&self.told));
            return self.read().await;
        };
        let (positions, cursor) = of_id(&after);
        self.after = Some(cursor.to_owned());
        if let Some((told, to)) = positions {
            let found = blocking(&self.shared, move || {
                let ledger = Ledger::new(shared.store.clone())?;
                let heads = (ledger.heads_at(told)?, ledger.heads_at(to)?);
                Ok::<_, view::Error>(heads)
            });
            // Positions of another store, or longer ago than it remembers: then the place counts alone.
            if let (Some(told), Some(to)) = found.await?? {
                (self.told, self.to) = (Arc::new(told), Some(Arc::new(to)));
            }
        }
        self.read().await
    }

    /// Whether there is more than was told, at this position.
    fn is_behind(&self, position: Lsn) -> bool {
        self.to.is_some() || self.told.position() < position
    }

    async fn read(&mut self) -> Result<Vec<Event>, Problem> {
        let (shared, principal) = (Arc::clone(&self.shared), self.principal.clone());
        let (host, rule) = (self.host.clone(), self.rule.clone());
        let (told, to, after) = (Arc::clone(&self.told), self.to.clone(), self.after.clone());
        let page = blocking(&self.shared, move || {
            let to = to.map_or_else(|| shared.newest.of(&shared), Ok)?;
            let asked = view::Followed {
                host,
                rule,
                told,
                to,
                after,
            };
            let page = view::followed(&shared.reader(&principal), &asked)?;
            Ok::<_, view::Error>((page, asked.to))
        });
        let (page, to) = page.await??;
        let (from, up_to) = (self.told.position(), to.position());
        // A page without a change may have a next one, where others have many.
        self.after = page.next;
        if self.after.is_some() {
            self.to = Some(to);
        } else {
            (self.told, self.to) = (to, None);
        }
        let changes = page.changes.into_iter();
        let events = changes.map(|change| Event {
            id: id(from, up_to, &change.cursor),
            change,
        });
        Ok(events.collect())
    }

    async fn run(mut self, first: Vec<Event>, sender: mpsc::Sender<Bytes>, place: Place) {
        let mut stop = self.shared.stop.clone();
        let (begun, mut told, mut asked) = (Instant::now(), Instant::now(), Instant::now());
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
            // Where there is more than a page, the next look reads it.
            if self.is_behind(position) {
                let Ok(events) = self.read().await else {
                    break;
                };
                if !events.is_empty() {
                    bytes = text(&events);
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

/// The JSON has no line break.
fn text(events: &[Event]) -> Bytes {
    let mut text = String::from(if events.is_empty() { ": begun\n\n" } else { "" });
    for Event { id, change } in events {
        let document = serde_json::to_string(change).expect("a plain struct with string keys");
        text.push_str(&format!("event: change\nid: {id}\ndata: {document}\n\n"));
    }
    text.into()
}
