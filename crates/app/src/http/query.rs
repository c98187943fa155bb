//! `GET /api/v1/events` and one event by its id: JSON lines out, as they are read.
//!
//! A reader takes a thread and one event at a time; what waits for a slow client is bounded, and a
//! client that takes nothing for [`STALL_MAX`] is let go.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, RawQuery, State as Shared},
    http::StatusCode,
    response::Response,
};
use events::{Class, EventId, Filter, Kind, TraceId, lines};
use hyper::body::Frame;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
};
use wal::Lsn;

use super::{
    answer::{Refusal, response},
    state::{READERS_MAX, State},
    stream::WRITE_STALL_MAX,
};

/// Bytes gathered before they are sent on, when there are that many.
const CHUNK_LEN: usize = 64 << 10;
/// Chunks that wait for a client.
const CHUNKS_MAX: usize = 2;
/// How long a client may leave its chunks waiting.
const STALL_MAX: Duration = WRITE_STALL_MAX;
/// How often a follower looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(200);

const LINES: &str = "application/x-ndjson";

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Question {
    filter: Filter,
    from: Option<Lsn>,
    last: Option<u64>,
    limit: Option<u64>,
    is_following: bool,
}

impl Question {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut question = Self::default();
        for (name, value) in pairs(query)? {
            let bad = |wanted: &str| {
                Refusal::malformed(format!("`{value}` is no value for {name}; write {wanted}"))
            };
            let time = || lines::parse_time(&value).ok_or_else(|| bad("RFC 3339"));
            let number = || value.parse::<u64>().map_err(|_| bad("a number"));
            match name.as_str() {
                "class" => {
                    let class = Class::parse(&value);
                    let class =
                        class.ok_or_else(|| bad("error, decision, action, lifecycle or other"))?;
                    question.filter.classes.push(class);
                }
                "source" => question.filter.source = Some(value.clone()),
                "producer_id" => question.filter.producer_id = Some(value.clone()),
                "since" => question.filter.since = Some(time()?),
                "until" => question.filter.until = Some(time()?),
                "trace" => {
                    let trace = TraceId::parse(&value).ok_or_else(|| bad("32 hex digits"))?;
                    question.filter.trace = Some(trace);
                }
                "from" => question.from = Some(Lsn::new(number()?)),
                "last" => question.last = Some(number()?),
                "limit" => question.limit = Some(number()?),
                "follow" => {
                    question.is_following = match value.as_str() {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(bad("1 or 0")),
                    };
                }
                _ => return Err(Refusal::malformed(format!("unknown parameter `{name}`"))),
            }
        }
        Ok(question)
    }
}

/// Names and values of a query, unescaped.
fn pairs(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            unescape(name).zip(unescape(value))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| Refusal::malformed("the query has an escape that is none, or is not UTF-8"))
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, others) = others.split_at_checked(2)?;
                let digits = str::from_utf8(digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = others;
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Events from the oldest on, or those asked for.
pub(super) async fn list(Shared(state): Shared<Arc<State>>, RawQuery(query): RawQuery) -> Response {
    let question = match Question::parse(query.as_deref().unwrap_or_default()) {
        Ok(question) => question,
        Err(refusal) => return refusal.as_problem(),
    };
    let Ok(place) = Arc::clone(&state.readers).try_acquire_owned() else {
        return too_many_readers().as_problem();
    };
    let from = start(&state, &question);
    if let Err(error) = state.log.read(from, &question.filter) {
        return Refusal::of(&error).as_problem();
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let reader = Reader {
        state,
        question,
        next: from,
        sender,
        handle: Handle::current(),
        _place: place,
    };
    tokio::task::spawn_blocking(move || reader.run());
    response(StatusCode::OK, LINES, Body::new(Chunks(receiver)))
}

fn too_many_readers() -> Refusal {
    let detail = format!("{READERS_MAX} clients are reading events already");
    let mut refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "OVERLOADED", detail);
    refusal.retry_after_secs = Some(1);
    refusal
}

/// `last` counts positions, so it finds its place only where all events are meant.
fn start(state: &State, question: &Question) -> Lsn {
    let from = question.from.unwrap_or(state.log.first_retained());
    match question.last {
        Some(last) if question.filter == Filter::default() => {
            let start = (state.log.safe_point().get() + 1).saturating_sub(last);
            from.max(Lsn::new(start))
        }
        _ => from,
    }
}

/// A client lost its answer in the middle.
#[derive(Debug)]
struct BrokenOff(String);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokenOff {}

type Chunk = Result<Bytes, BrokenOff>;

/// The body of an answer whose chunks come through a channel.
struct Chunks(mpsc::Receiver<Chunk>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let chunk = self.0.poll_recv(cx);
        chunk.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

/// Reads for one client, on a thread of its own.
struct Reader {
    state: Arc<State>,
    question: Question,
    next: Lsn,
    sender: mpsc::Sender<Chunk>,
    handle: Handle,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    fn run(mut self) {
        let mut left = self.question.limit.unwrap_or(u64::MAX);
        loop {
            match self.read_to_end(&mut left) {
                Ok(true) => {}
                // The client is gone, stalled, or has what it asked for.
                Ok(false) => return,
                // The head of the answer is sent: that it ends here must not look like its end.
                Err(error) => {
                    self.send(Err(BrokenOff(error.to_string())));
                    return;
                }
            }
            let seen = Lsn::new(self.next.get().saturating_sub(1));
            loop {
                let ends = !self.question.is_following || self.state.is_stopping();
                if ends || self.sender.is_closed() {
                    return;
                }
                if self.state.log.wait_above(seen, LOOK) > seen {
                    break;
                }
            }
        }
    }

    /// Sends what there is. False when nothing more is wanted.
    fn read_to_end(&mut self, left: &mut u64) -> Result<bool, events::Error> {
        let state = Arc::clone(&self.state);
        let mut found = state.log.read(self.next, &self.question.filter)?;
        let mut text = String::new();
        while *left > 0 {
            let Some(event) = found.next() else {
                break;
            };
            match event {
                Ok(event) => lines::push(&mut text, &event),
                // One record of another version does not hide those behind it.
                Err(error) if error.kind() == Kind::Corrupt && found.looked_at() >= self.next => {
                    tracing::warn!(%error, "an event is passed over");
                    self.next = found.looked_at().next();
                    continue;
                }
                Err(error) => return Err(error),
            }
            *left -= 1;
            self.next = found.looked_at().next();
            if text.len() >= CHUNK_LEN {
                let chunk = Bytes::from(std::mem::take(&mut text));
                if !self.send(Ok(chunk)) || state.is_stopping() {
                    return Ok(false);
                }
            }
        }
        self.next = self.next.max(found.looked_at().next());
        if !text.is_empty() && !self.send(Ok(Bytes::from(text))) {
            return Ok(false);
        }
        Ok(*left > 0)
    }

    fn send(&self, chunk: Chunk) -> bool {
        let sending = self.sender.send_timeout(chunk, STALL_MAX);
        self.handle.block_on(sending).is_ok()
    }
}

/// One event by its id.
pub(super) async fn one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>) -> Response {
    let id = match EventId::from_str(&id) {
        Ok(id) => id,
        Err(error) => return Refusal::malformed(error.to_string()).as_problem(),
    };
    let Ok(place) = Arc::clone(&state.readers).try_acquire_owned() else {
        return too_many_readers().as_problem();
    };
    let read = tokio::task::spawn_blocking(move || {
        let _place = place;
        find(&state, id)
    });
    let lost = |_| {
        Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "LOST",
            "the work was lost",
        ))
    };
    match read.await.unwrap_or_else(lost) {
        Ok(line) => response(StatusCode::OK, "application/json", line),
        Err(refusal) => refusal.as_problem(),
    }
}

fn find(state: &State, id: EventId) -> Result<String, Refusal> {
    let unknown = || {
        let detail = format!("no event {id} here");
        Refusal::new(StatusCode::NOT_FOUND, "UNKNOWN", detail)
    };
    let log = &state.log;
    if id.identity() != log.identity() || id.lsn > log.safe_point() || id.lsn == Lsn::ZERO {
        return Err(unknown());
    }
    let found = log.read(id.lsn, &Filter::default());
    let first = found.map_err(|error| Refusal::of(&error))?.next();
    match first {
        Some(Ok(event)) if event.id == id => {
            let mut line = String::new();
            lines::push(&mut line, &event);
            Ok(line)
        }
        Some(Err(error)) => Err(Refusal::of(&error)),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_whole_or_refused() {
        let question = Question::parse(
            "class=error&class=action&source=a%20b%2B&since=2026-01-01T00:00:00Z&from=7&limit=3&follow=1",
        )
        .unwrap();
        assert_eq!(question.filter.classes, [Class::Error, Class::Action]);
        assert_eq!(question.filter.source.as_deref(), Some("a b+"));
        assert_eq!(question.from, Some(Lsn::new(7)));
        assert_eq!(question.limit, Some(3));
        assert!(question.is_following);
        assert_eq!(Question::parse("").unwrap(), Question::default());
        for bad in [
            "class=errors",
            "since=yesterday",
            "trace=12",
            "from=-1",
            "limit=x",
            "follow=maybe",
            "colour=red",
            "source=%zz",
            "source=%ff",
            "source=%2",
        ] {
            assert!(Question::parse(bad).is_err(), "{bad}");
        }
    }
}
