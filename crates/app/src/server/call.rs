//! One request as an operation sees it, and what it answers.

use std::{fmt, io::Write, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use flate2::{Compression, write::GzEncoder};
use scan::token::Scope;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::Store;
use wal::Lsn;
use world::Timestamp;
use zeroize::Zeroizing;

use super::{Principal, Shared, role};
use crate::{
    http::answer,
    view::{self, Reader},
};

/// How bodies are compressed for those who take it.
pub(super) const PACKING: &str = "gzip";
/// Bytes from which on that is worth it: below, an answer is one packet either way.
const PACKED_LEAST: usize = 1 << 10;

/// A request that was let in.
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) principal: Principal,
    pub(super) now: Timestamp,
    pub(super) params: Vec<(String, String)>,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    /// Wiped after use: it may hold secrets.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Of what was asked, mixed with the token: says nothing to whoever reads the store.
    pub(super) fingerprint: String,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// Stable: programs go by it.
    pub(super) code: &'static str,
    pub(super) detail: String,
    pub(super) retry_after: Option<u64>,
    /// Members of its own, for programs.
    pub(super) more: Vec<(&'static str, Value)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after: None,
            more: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.more.push((name, value.into()));
        self
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID", detail)
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED", detail)
    }

    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", detail)
        }
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = answer::problem_with(self.status, self.code, &self.detail, &self.more);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let value = HeaderValue::from_static("Bearer realm=\"holdfast\"");
            headers.insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.detail)
    }
}

impl From<view::Error> for Problem {
    fn from(error: view::Error) -> Self {
        use view::Kind;
        let (status, code) = match error.kind {
            Kind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "INVALID"),
            Kind::Missing => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Kind::Exists => (StatusCode::CONFLICT, "EXISTS"),
            Kind::Retired => (StatusCode::CONFLICT, "RETIRED"),
            Kind::InUse => (StatusCode::CONFLICT, "IN_USE"),
            Kind::Conflict => (StatusCode::CONFLICT, "CONFLICT"),
            Kind::OutOfRange => (StatusCode::GONE, "OUT_OF_RANGE"),
            Kind::Sealed => (StatusCode::CONFLICT, "SEALED"),
            Kind::Refused => (StatusCode::UNPROCESSABLE_ENTITY, "REFUSED"),
            Kind::Full => (StatusCode::SERVICE_UNAVAILABLE, "FULL"),
            Kind::Closed => (StatusCode::SERVICE_UNAVAILABLE, "STOPPING"),
            Kind::Fenced => return role::changing(&error.detail),
            Kind::Storage => {
                // The detail names files and rows of this machine: it is for its log, not for askers.
                tracing::error!(error = error.detail, "a request failed on the store");
                return Self {
                    retry_after: Some(30),
                    ..Self::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "STORAGE",
                        "the store could not be read or written; the log of the server tells more",
                    )
                };
            }
        };
        let retry_after = matches!(error.kind, Kind::Full | Kind::Closed).then_some(30);
        Self {
            retry_after,
            ..Self::new(status, code, error.detail)
        }
    }
}

macro_rules! through_view {
    ($($of:ty),*) => {$(
        impl From<$of> for Problem {
            fn from(error: $of) -> Self {
                view::Error::from(error).into()
            }
        }
    )*};
}
through_view!(
    store::Error,
    scan::inventory::Error,
    scan::ledger::Error,
    scan::schedule::Error,
    scan::waiver::Error,
    scan::variable::Error,
    scan::policy::Refused
);

impl Call {
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            now: self.now,
            ..self.shared.reader(&self.principal)
        }
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.principal.scope
    }

    pub(super) fn actor(&self) -> String {
        self.principal.actor()
    }

    /// A part of the path. Every name that an operation's path has is there.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value.as_str())
    }

    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let uri = format!("/?{}", self.query);
        let uri = uri
            .parse()
            .map_err(|_| Problem::malformed("the query is not one"))?;
        axum::extract::Query::try_from_uri(&uri)
            .map(|axum::extract::Query(asked)| asked)
            .map_err(|error| Problem::invalid(format!("query: {}", error.body_text())))
    }

    /// The body, in which every field must be known.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // A fault of what was meant names a field; it must not repeat what was sent, which may
            // be a secret.
            match error.classify() {
                serde_json::error::Category::Data => {
                    let text = error.to_string();
                    let names_a_field = ["unknown field", "missing field", "unknown variant"];
                    let what = match names_a_field.iter().any(|start| text.starts_with(start)) {
                        true => text,
                        false => format!(
                            "not what this operation takes, at line {} column {}",
                            error.line(),
                            error.column()
                        ),
                    };
                    Problem::invalid(format!("body: {what}"))
                }
                _ => Problem::malformed(format!(
                    "body: no JSON, at line {} column {}",
                    error.line(),
                    error.column()
                )),
            }
        })
    }

    /// The moment of `?at=`, which has been.
    pub(super) fn at(&self, text: Option<&String>) -> Result<Option<Timestamp>, Problem> {
        let read = text.map(|text| view::past(text, self.now)).transpose()?;
        Ok(read)
    }

    /// Refuses a change of what is not as the asker saw it.
    pub(super) fn must_match(&self, tag: &str) -> Result<(), Problem> {
        let Some(wanted) = self.headers.get(header::IF_MATCH) else {
            return Ok(());
        };
        let is_named = wanted.to_str().is_ok_and(|wanted| {
            let mut tags = wanted.split(',').map(str::trim);
            tags.any(|named| named == "*" || named == tag)
        });
        if is_named {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "CHANGED",
            "it is not as it was when it was read; read it again",
        ))
    }
}

/// Strong: of the very bytes.
pub(super) fn tag_of(bytes: &[u8]) -> String {
    use fmt::Write;
    let digest = Sha256::digest(bytes);
    let mut tag = String::from("\"");
    for byte in &digest[..12] {
        write!(tag, "{byte:02x}").expect("writing to a string cannot fail");
    }
    tag.push('"');
    tag
}

/// Weak: of what is told, in whatever bytes. `told` leaves out what the moment of asking alone decides,
/// so that a tag lasts as long as the state does.
pub(super) fn tag_of_state<T: Serialize>(told: &T) -> String {
    format!("W/{}", tag_of_row(told))
}

/// The version of a row.
pub(super) fn tag_of_row<T: Serialize>(row: &T) -> String {
    tag_of(&serde_json::to_vec(row).expect("rows are plain structs with string keys"))
}

/// What an operation answers.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) media_type: &'static str,
    /// Of the row that it shows; none: of the bytes.
    pub(super) tag: Option<String>,
    /// Where to look for what comes of it.
    pub(super) location: Option<String>,
    /// Of a change: where it is recorded.
    pub(super) lsn: Option<Lsn>,
    /// It holds a secret: it is remembered and cached nowhere.
    pub(super) is_secret: bool,
    /// The body is compressed.
    pub(super) is_packed: bool,
    /// The first moment at which what `tag` is of is another, though nothing is committed.
    pub(super) turns: Option<Timestamp>,
    /// Its bytes say at which moment it was made, or how old something was then.
    pub(super) tells_moment: bool,
}

impl Answer {
    pub(super) fn json<T: Serialize>(value: &T) -> Result<Self, Problem> {
        Self::with(StatusCode::OK, value)
    }

    pub(super) fn with<T: Serialize>(status: StatusCode, value: &T) -> Result<Self, Problem> {
        let body = serde_json::to_vec(value).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "BROKEN",
                "the answer cannot be written",
            )
        })?;
        Ok(Self {
            status,
            body: body.into(),
            media_type: "application/json",
            tag: None,
            location: None,
            lsn: None,
            is_secret: false,
            is_packed: false,
            turns: None,
            tells_moment: true,
        })
    }

    pub(super) fn nothing() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: Bytes::new(),
            media_type: "application/json",
            tag: None,
            location: None,
            lsn: None,
            is_secret: false,
            is_packed: false,
            turns: None,
            tells_moment: true,
        }
    }

    /// With its body compressed, where that is worth it. Of answers that repeat nothing of what was sent
    /// with a request: from the length of others, whoever chooses a part of them could guess the rest.
    pub(super) fn packed(mut self) -> Self {
        if self.body.len() < PACKED_LEAST || self.is_packed {
            return self;
        }
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        // Memory takes every write.
        if packer.write_all(&self.body).is_ok()
            && let Ok(packed) = packer.finish()
        {
            self.body = packed.into();
            self.is_packed = true;
            // Other bytes of the same: known only to whoever has them in this form.
            self.tag = self.tag.map(|tag| match tag.strip_suffix('"') {
                Some(tag) => format!("{tag}-{PACKING}\""),
                None => tag,
            });
        }
        self
    }

    /// Says of a change where it is recorded. What was done in transactions of its own, or before, is by now.
    pub(super) fn recorded(mut self, is_change: bool, store: &Store) -> Self {
        let newest = || store.newest_here().map(|commit| commit.lsn);
        if is_change {
            self.lsn = self.lsn.or_else(newest);
        }
        self
    }

    pub(super) fn tagged(mut self, tag: String) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Of a state that lasts until `turns` unless something is committed.
    pub(super) fn lasting(mut self, tag: String, turns: Timestamp) -> Self {
        self.tag = Some(tag);
        self.turns = Some(turns);
        self
    }

    /// Whenever it is made, its bytes are those of its state.
    pub(super) fn timeless(mut self) -> Self {
        self.tells_moment = false;
        self
    }

    /// Whether this is what `wanted`, an `If-None-Match`, names.
    pub(super) fn is_known(&self, wanted: &HeaderValue) -> bool {
        let is_read = self.status == StatusCode::OK && !self.is_secret;
        is_read && self.tag.as_ref().is_some_and(|tag| names(wanted, tag))
    }

    pub(super) fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    /// `wanted` is the request's `If-None-Match`.
    pub(super) fn into_response(self, wanted: Option<&HeaderValue>) -> Response {
        let is_read = self.status == StatusCode::OK && !self.is_secret;
        let tag = self.tag.or_else(|| is_read.then(|| tag_of(&self.body)));
        let is_known = is_read
            && tag
                .as_ref()
                .zip(wanted)
                .is_some_and(|(tag, wanted)| names(wanted, tag));
        let mut response = match is_known {
            true => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            false => answer::response(self.status, self.media_type, self.body),
        };
        let headers = response.headers_mut();
        if self.is_packed && !is_known {
            let encoding = HeaderValue::from_static(PACKING);
            headers.insert(header::CONTENT_ENCODING, encoding);
        }
        if let Some(tag) = tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
            headers.insert(header::ETAG, tag);
        }
        if let Some(lsn) = self.lsn {
            headers.insert(role::LSN, HeaderValue::from(lsn.get()));
        }
        if let Some(place) = self
            .location
            .and_then(|place| HeaderValue::try_from(place).ok())
        {
            headers.insert(header::LOCATION, place);
        }
        response
    }
}

/// Whether an `If-None-Match` names `tag`: compared weakly, as RFC 9110 has it.
fn names(wanted: &HeaderValue, tag: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let wanted = wanted.to_str().unwrap_or_default();
    wanted.split(',').any(|named| {
        let named = named.trim();
        named == "*" || opaque(named) == opaque(tag)
    })
}
