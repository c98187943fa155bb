//! Answers: problems with a stable code, acknowledgements in headers, and which status an error has.

use std::fmt::Write;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use events::{Ack, Kind, otlp};
use serde_json::{Value, json};

/// Seconds that a producer is told to wait when the disk is full or the journal is dead: somebody
/// must do something first.
const RETRY_AFTER_FAULT_SECS: u64 = 30;

/// Ranges of positions named in one header. New events of a request are one range; each event that
/// was known before may be one of its own.
const RANGES_TOLD_MAX: usize = 64;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: String,
    pub(super) retry_after_secs: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after_secs: None,
        }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED", detail)
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", detail)
    }

    /// As the error's kind has it: what a producer may send again, it is told when.
    pub(super) fn of(error: &events::Error) -> Self {
        let detail = error.to_string();
        let wait = error.retry_after().map(|wait| wait.as_secs().max(1));
        let (status, code, retry_after_secs) = match error.kind() {
            Kind::Overloaded => (
                StatusCode::TOO_MANY_REQUESTS,
                "OVERLOADED",
                wait.or(Some(1)),
            ),
            Kind::Invalid if error.index().is_some() => (StatusCode::BAD_REQUEST, "INVALID", None),
            Kind::Invalid => (StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", None),
            Kind::OutOfRange => (StatusCode::GONE, "OUT_OF_RANGE", None),
            Kind::Full => unavailable("FULL"),
            Kind::Poisoned => unavailable("POISONED"),
            Kind::Fenced => unavailable("FENCED"),
            Kind::Closed => (StatusCode::SERVICE_UNAVAILABLE, "STOPPING", Some(1)),
            Kind::Locked | Kind::Io => unavailable("IO"),
            Kind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "CORRUPT", None),
        };
        Self {
            status,
            code,
            detail,
            retry_after_secs,
        }
    }

    /// For clients of the API.
    pub(super) fn as_problem(&self) -> Response {
        self.finish(problem(self.status, self.code, &self.detail))
    }

    /// For senders of OTLP.
    pub(super) fn as_status(&self, encoding: otlp::Encoding) -> Response {
        let code = match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => {
                otlp::Code::ResourceExhausted
            }
            status if status.is_client_error() => otlp::Code::InvalidArgument,
            _ => otlp::Code::Unavailable,
        };
        let body = otlp::failure(encoding, code, &self.detail);
        self.finish(response(self.status, encoding.media_type(), body))
    }

    fn finish(&self, mut response: Response) -> Response {
        if let Some(seconds) = self.retry_after_secs {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn unavailable(code: &'static str) -> (StatusCode, &'static str, Option<u64>) {
    let wait = Some(RETRY_AFTER_FAULT_SECS);
    (StatusCode::SERVICE_UNAVAILABLE, code, wait)
}

pub(crate) fn response(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let value = HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// RFC 9457, with the stable code.
pub(crate) fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    problem_with(status, code, detail, &[])
}

/// The same with members of its own, for programs.
pub(crate) fn problem_with(
    status: StatusCode,
    code: &str,
    detail: &str,
    more: &[(&str, Value)],
) -> Response {
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    for (name, value) in more {
        body[*name] = value.clone();
    }
    response(status, "application/problem+json", body.to_string())
}

/// Says under which ids the events of a request are durable, in their order:
/// `Holdfast-Lsn: 101-200`, or `7-7, 101-199` where one was known before.
pub(super) fn acknowledge(response: &mut Response, acks: &[Ack]) {
    let Some(first) = acks.first() else {
        return;
    };
    let headers = response.headers_mut();
    let mut put = |name: &'static str, value: String| {
        let value = HeaderValue::try_from(value).expect("digits and punctuation");
        headers.insert(name, value);
    };
    put("holdfast-journal", first.id.journal.to_string());
    put("holdfast-generation", first.id.generation.0.to_string());
    put("holdfast-lsn", ranges(acks));
    let duplicates = acks.iter().filter(|ack| ack.is_duplicate).count();
    if duplicates > 0 {
        put("holdfast-duplicates", duplicates.to_string());
    }
}

/// Beyond [`RANGES_TOLD_MAX`] the rest is left out, and `...` says so.
fn ranges(acks: &[Ack]) -> String {
    let mut text = String::new();
    let runs = acks.chunk_by(|one, other| one.id.lsn.next() == other.id.lsn);
    for (told, run) in runs.enumerate() {
        if told > 0 {
            text.push_str(", ");
        }
        if told == RANGES_TOLD_MAX {
            text.push_str("...");
            break;
        }
        let (first, last) = (run[0].id.lsn, run[run.len() - 1].id.lsn);
        write!(text, "{first}-{last}").expect("writing to a string cannot fail");
    }
    text
}
