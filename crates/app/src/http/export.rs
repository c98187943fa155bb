//! `POST /v1/logs`: OTLP over HTTP.

use std::{fmt::Write, sync::Arc};

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use events::otlp::{self, Decoded, Encoding};

use super::{
    answer::{Refusal, acknowledge, response},
    body::{self, Folding, Room},
    state::State,
};

/// Takes the records of a request; answers when they are durable.
pub(super) async fn logs(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let encoding = match encoding(&parts.headers) {
        Ok(encoding) => encoding,
        Err(refusal) => return refusal.as_status(Encoding::Json),
    };
    let exported = async {
        let folding = Folding::of(&parts.headers)?;
        let mut room = Room::new(&state.log);
        let bytes = body::read(&parts.headers, body, &mut room).await?;
        let state = Arc::clone(&state);
        let job = move || export(&state, encoding, folding, bytes, room);
        // A job that panicked is our fault, and the records may not be kept: the sender may try again.
        let lost = |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "LOST", "the work was lost");
        tokio::task::spawn_blocking(job).await.map_err(lost)?
    };
    exported.await.unwrap_or_else(|refusal| {
        if refusal.status == StatusCode::TOO_MANY_REQUESTS {
            state.overloaded();
        }
        refusal.as_status(encoding)
    })
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
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
    folding: Folding,
    bytes: Vec<u8>,
    mut room: Room,
) -> Result<Response, Refusal> {
    let bytes = match folding {
        Folding::None => bytes,
        Folding::Gzip => body::unfold(&bytes, &mut room)?,
    };
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
