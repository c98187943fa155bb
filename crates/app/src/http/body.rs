//! Reading a request's body within bounds of bytes, memory and time.
//!
//! Room is taken before bytes are read, all of it when the length is told, else step by step. What
//! gzip unfolds is taken step by step too: a bomb ends at the bound, having held no more than one.

use std::{future::poll_fn, io::Read, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use events::{
    Kind, Log,
    log::{Admission, IN_FLIGHT_BYTES_MAX},
};
use flate2::read::MultiGzDecoder;
use hyper::body::Body as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::{answer::Refusal, state::State};

/// Bytes of a body as sent. The Collector's exporters send up to a few MiB; its receivers take 20.
pub(super) const BODY_LEN_MAX: usize = 16 << 20;
/// Bytes of a body once unfolded. Less than half of the room for events in flight, so that the body and
/// the events it becomes fit into it together.
pub(super) const UNFOLDED_LEN_MAX: usize = 24 << 20;
/// How much room is taken at a time where the whole is not known.
const STEP: usize = 64 << 10;
/// How long a client may send no byte of a body.
pub(crate) const READ_STALL_MAX: Duration = Duration::from_secs(10);
/// How long a body may take. 16 MiB in this time is 280 KiB a second.
pub(crate) const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// What the body is, without parameters; empty when the request does not say.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let told = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    told.split(';').next().unwrap_or_default().trim()
}

/// Reads a body and hands its bytes, unfolded, with the room they hold to `job`, on a thread that may
/// wait for the disk.
pub(super) async fn take(
    state: &Arc<State>,
    headers: &HeaderMap,
    body: Body,
    job: impl FnOnce(&State, Vec<u8>, Room) -> Result<Response, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let taken = async {
        let folding = Folding::of(headers)?;
        let mut room = Room::new(&state.log);
        let sent = read(headers, body, &mut room).await?;
        let state = Arc::clone(state);
        let work = move || {
            let bytes = match folding {
                Folding::None => sent,
                Folding::Gzip => unfold(&sent, &mut room)?,
            };
            job(&state, bytes, room)
        };
        // A job that panicked is our fault, and the events may not be kept: the sender may try again.
        let lost = |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "LOST", "the work was lost");
        tokio::task::spawn_blocking(work).await.map_err(lost)?
    };
    taken.await.inspect_err(|refusal| {
        if refusal.status == StatusCode::TOO_MANY_REQUESTS {
            state.overloaded();
        }
    })
}

/// Room that a request holds in the log's count of bytes in flight, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    log: Arc<Log>,
    taken: Vec<Admission>,
    total: usize,
    unused: usize,
}

impl Room {
    pub(super) fn new(log: &Arc<Log>) -> Self {
        Self {
            log: Arc::clone(log),
            taken: Vec::new(),
            total: 0,
            unused: 0,
        }
    }

    /// Exactly `bytes` more, at once. `Invalid`, and not `Overloaded`, where this request would not fit
    /// even alone: sending it again would be refused for ever.
    pub(super) fn take_all(&mut self, bytes: usize) -> Result<(), events::Error> {
        let total = self.total.saturating_add(bytes);
        if total > IN_FLIGHT_BYTES_MAX {
            let why = format!(
                "a request that takes {total} bytes of memory; at most {IN_FLIGHT_BYTES_MAX}: send it in parts"
            );
            return Err(events::Error::new(Kind::Invalid, why));
        }
        self.taken.push(self.log.admit(bytes)?);
        self.total = total;
        Ok(())
    }

    /// `bytes` more, from what was taken ahead.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), events::Error> {
        if self.unused < bytes {
            let more = (bytes - self.unused).max(STEP);
            self.take_all(more)?;
            self.unused += more;
        }
        self.unused -= bytes;
        Ok(())
    }
}

/// How a body is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folding {
    None,
    Gzip,
}

impl Folding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(Self::None);
        };
        match value.as_bytes() {
            b"gzip" => Ok(Self::Gzip),
            b"identity" => Ok(Self::None),
            other => Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED",
                format!(
                    "content encoding `{}`; send gzip, or none",
                    other.escape_ascii()
                ),
            )),
        }
    }
}

/// Reads a whole body as it was sent. What is refused is read to its end all the same, up to the
/// bounds: a client that is still sending would see its connection reset, and not the answer.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    room: &mut Room,
) -> Result<Vec<u8>, Refusal> {
    let ends = Instant::now() + BODY_TIME_MAX;
    let read = timeout_at(ends, read_within(headers, &mut body, room)).await;
    let read = read.unwrap_or_else(|_| Err(too_slow()));
    if read.is_err() && !headers.contains_key(header::EXPECT) {
        drop(timeout_at(ends, pass_over(&mut body)).await);
    }
    read
}

async fn read_within(
    headers: &HeaderMap,
    body: &mut Body,
    room: &mut Room,
) -> Result<Vec<u8>, Refusal> {
    let told = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut bytes = Vec::new();
    if let Some(len) = told {
        if len > BODY_LEN_MAX {
            return Err(too_long());
        }
        room.take_all(len).map_err(|error| Refusal::of(&error))?;
        bytes.reserve_exact(len);
    }
    while let Some(chunk) = next(body).await? {
        if bytes.len() + chunk.len() > BODY_LEN_MAX {
            return Err(too_long());
        }
        if told.is_none() {
            // Twice: the list doubles where it grows.
            let room = room.take(2 * chunk.len());
            room.map_err(|error| Refusal::of(&error))?;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn too_long() -> Refusal {
    Refusal::too_large(format!("a body of more than {BODY_LEN_MAX} bytes"))
}

fn too_slow() -> Refusal {
    let detail = "the body did not come in time";
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "TOO_SLOW", detail)
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        match timeout(READ_STALL_MAX, frame).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(Refusal::malformed(format!("the body broke off: {error}")));
            }
            // Trailers say nothing here.
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

async fn pass_over(body: &mut Body) {
    let mut passed = 0;
    while let Ok(Some(chunk)) = next(body).await {
        passed += chunk.len();
        if passed > BODY_LEN_MAX {
            return;
        }
    }
}

/// Unfolds a body. Blocks: not for the threads that serve connections.
pub(super) fn unfold(folded: &[u8], room: &mut Room) -> Result<Vec<u8>, Refusal> {
    let mut decoder = MultiGzDecoder::new(folded);
    let mut unfolded = Vec::new();
    loop {
        let len = unfolded.len();
        if len == unfolded.capacity() {
            let more = len.max(STEP).min(UNFOLDED_LEN_MAX + 1 - len);
            room.take(more).map_err(|error| Refusal::of(&error))?;
            unfolded.reserve_exact(more);
        }
        let space = unfolded.capacity() - len;
        unfolded.resize(len + space.min(STEP), 0);
        let read = decoder
            .read(&mut unfolded[len..])
            .map_err(|error| Refusal::malformed(format!("the body is not gzip: {error}")))?;
        unfolded.truncate(len + read);
        if unfolded.len() > UNFOLDED_LEN_MAX {
            return Err(Refusal::too_large(format!(
                "a body that unfolds to more than {UNFOLDED_LEN_MAX} bytes"
            )));
        }
        if read == 0 {
            return Ok(unfolded);
        }
    }
}
