//! `POST /v1/logs`: OTLP over HTTP.

use std::{fmt::Write, sync::Arc};

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use events::otlp::{self, Decoded, Encoding};

use super::{
    answer::{Refusal, acknowledge, response},
    body::{self, Room},
    state::State,
};

/// Takes the records of a request; answers when they are durable.
pub(super) async fn logs(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let encoding = match encoding(&parts.headers) {
        Ok(encoding) => encoding,
        Err(refusal) => return refusal.as_status(Encoding::Json),
    };
    let job = move |state: &State, bytes, room| export(state, encoding, bytes, room);
    body::take(&state, &parts.headers, body, job)
        .await
        .unwrap_or_else(|refusal| refusal.as_status(encoding))
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let essence = body::media_type(headers);
    [Encoding::Protobuf, Encoding::Json]
        .into_iter()
        .find(|encoding| encoding.media_type().eq_ignore_ascii_case(essence))
        .ok_or_else(|| {
            Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED",
                format!(
                    "content type `{essence}`; send application/x-protobuf or application/json"
                ),
            )
        })
}

/// From bytes to an answer; blocks until the events are durable.
fn export(
    state: &State,
    encoding: Encoding,
    bytes: Vec<u8>,
    mut room: Room,
) -> Result<Response, Refusal> {
    let decoded = decode(state, encoding, &bytes, &mut room)?;
    drop(bytes);
    let why = why(&decoded);
    let refused_count = decoded.refused_count;
    state.refused(refused_count);
    // The log counts what it appends; what the decoding took would count twice.
    drop(room);
    let acks = state
        .append(decoded.events)
        .map_err(|error| Refusal::of(&error))?;
    let body = otlp::success(encoding, refused_count, &why);
    let mut answer = response(StatusCode::OK, encoding.media_type(), body);
    acknowledge(&mut answer, &acks);
    Ok(answer)
}

fn decode(
    state: &State,
    encoding: Encoding,
    bytes: &[u8],
    room: &mut Room,
) -> Result<Decoded, Refusal> {
    if encoding == Encoding::Json {
        let cost = otlp::json_cost(bytes);
        room.take_all(cost).map_err(|error| Refusal::of(&error))?;
    }
    let mut denied = None;
    let mut grant = |more| match room.take(more) {
        Ok(()) => true,
        Err(error) => {
            denied = Some(error);
            false
        }
    };
    let decoded = match encoding {
        Encoding::Protobuf => otlp::decode_protobuf(bytes, state.now(), &mut grant),
        Encoding::Json => otlp::decode_json(bytes, state.now(), &mut grant),
    };
    decoded.map_err(|error| match (error, denied) {
        (otlp::Error::NotGranted, Some(denied)) => Refusal::of(&denied),
        (error, _) => Refusal::malformed(format!("not an ExportLogsServiceRequest: {error}")),
    })
}

fn why(decoded: &Decoded) -> String {
    let mut why = String::new();
    for refused in &decoded.refused {
        let (index, reason) = (refused.index, &refused.reason);
        let comma = if why.is_empty() { "" } else { "; " };
        write!(why, "{comma}record {index}: {reason}").expect("writing to a string cannot fail");
    }
    let untold = decoded.refused_count - decoded.refused.len();
    if untold > 0 {
        write!(why, "; and {untold} more").expect("writing to a string cannot fail");
    }
    why
}
