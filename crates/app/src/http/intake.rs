//! `POST /api/v1/events`: JSON lines, or JSON.
//!
//! All or nothing: a request with one bad event stores none, so that sending it again after mending
//! it stores each once.

use std::sync::Arc;

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use events::{Class, NewEvent, lines};
use serde_json::{json, value::RawValue};

use super::{
    answer::{Refusal, acknowledge, response},
    body::{self, Room},
    state::State,
};

/// Bad events named in an answer.
const BAD_TOLD_MAX: usize = 10;

const LINES: &str = "application/x-ndjson";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Lines,
    Document,
}

/// Takes events; answers with one line each when they are durable.
pub(super) async fn post(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let stored = async {
        let shape = shape(&parts.headers)?;
        let job = move |state: &State, bytes, room| store(state, shape, bytes, room);
        body::take(&state, &parts.headers, body, job).await
    };
    stored.await.unwrap_or_else(|refusal| refusal.as_problem())
}

fn shape(headers: &HeaderMap) -> Result<Shape, Refusal> {
    let essence = body::media_type(headers);
    match essence.to_ascii_lowercase().as_str() {
        LINES | "application/jsonl" => Ok(Shape::Lines),
        "application/json" => Ok(Shape::Document),
        _ => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED",
            format!("content type `{essence}`; send {LINES} or application/json"),
        )),
    }
}

fn store(state: &State, shape: Shape, bytes: Vec<u8>, mut room: Room) -> Result<Response, Refusal> {
    let (events, bad) = match shape {
        Shape::Lines => read_lines(state, &bytes, &mut room)?,
        Shape::Document => read_document(state, &bytes, &mut room)?,
    };
    drop(bytes);
    if !bad.is_empty() {
        state.refused(events.len() + bad.len());
        return Ok(refused(shape, &bad));
    }
    drop(room);
    let acks = state.append(events).map_err(|error| Refusal::of(&error))?;
    let mut text = String::new();
    for ack in &acks {
        lines::push_ack(&mut text, ack);
    }
    let mut answer = response(StatusCode::OK, LINES, text);
    acknowledge(&mut answer, &acks);
    Ok(answer)
}

/// A bad event: its number from 1, and what about it.
type Bad = (usize, String);
type Read = Result<(Vec<NewEvent>, Vec<Bad>), Refusal>;

fn read_lines(state: &State, bytes: &[u8], room: &mut Room) -> Read {
    let numbered = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let full = numbered.filter(|(_, line)| !line.trim_ascii().is_empty());
    read_each(state, full, room)
}

/// One event, or an array of them.
fn read_document(state: &State, bytes: &[u8], room: &mut Room) -> Read {
    let malformed = |error| Refusal::malformed(format!("the body is not JSON: {error}"));
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        return read_each(state, [(1, bytes)].into_iter(), room);
    }
    // Every element but the first has its own comma.
    let elements = bytes.iter().filter(|byte| **byte == b',').count() + 1;
    room.take_all(2 * elements * size_of::<&RawValue>())
        .map_err(|error| Refusal::of(&error))?;
    let values: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(malformed)?;
    let texts = values.iter().map(|value| value.get().as_bytes());
    read_each(state, (1..).zip(texts), room)
}

fn read_each<'a>(
    state: &State,
    texts: impl Iterator<Item = (usize, &'a [u8])>,
    room: &mut Room,
) -> Read {
    let defaults = lines::Defaults {
        source: None,
        class: Class::Other,
        now: state.now(),
        is_relay: false,
    };
    let mut events = Vec::new();
    let mut bad = Vec::new();
    for (number, text) in texts {
        room.take(2 * size_of::<NewEvent>() + text.len())
            .map_err(|error| Refusal::of(&error))?;
        match lines::parse(text, &defaults) {
            Ok(event) => events.push(event),
            Err(unfit) => bad.push((number, unfit.to_string())),
        }
        if bad.len() > BAD_TOLD_MAX {
            break;
        }
    }
    Ok((events, bad))
}

fn refused(shape: Shape, bad: &[Bad]) -> Response {
    let what = match shape {
        Shape::Lines => "line",
        Shape::Document => "event",
    };
    let told = bad.iter().take(BAD_TOLD_MAX);
    let errors: Vec<_> = told
        .map(|(number, why)| json!({what: number, "detail": why}))
        .collect();
    let (number, why) = &bad[0];
    let more = if bad.len() > BAD_TOLD_MAX {
        ", and more"
    } else {
        ""
    };
    let status = StatusCode::BAD_REQUEST;
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": "INVALID",
        "detail": format!("nothing was stored: {what} {number}: {why}{more}"),
        "errors": errors,
    });
    response(status, "application/problem+json", body.to_string())
}
