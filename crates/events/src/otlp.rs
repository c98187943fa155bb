//! OTLP logs as events, and events as OTLP logs.
//!
//! What a producer sent is kept whole: the body of an event holds everything the log record, its
//! scope and its resource carried, so that [`encode`] gives back what [`decode_protobuf`] read. The
//! columns of an event (time, source, class, trace, span, producer's id) are read from it, never
//! instead of it.
//!
//! There is one way in: JSON is read into messages, written as protobuf, and decoded as such.
//! Memory is bounded by what the caller grants while decoding: a record repeats its resource, so a
//! small request may make large events.

mod answer;
mod decode;
mod encode;
mod json;
#[cfg(test)]
mod tests;
mod value;
mod wire;

use std::{error, fmt};

pub use answer::{Code, Encoding, failure, success};
pub use decode::{Decoded, Grant, REFUSALS_TOLD_MAX, Refused, decode_protobuf};
pub use encode::{Identity, encode};
pub use json::{decode_json, json_cost};

/// First key of the body of an event that came as OTLP, and its value: the shape of the rest.
pub const MARK: &str = "otlp";
pub const SHAPE: u64 = 1;

/// The bytes are no request. The sender must not send them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl Malformed {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Malformed {}

/// Why a request was not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    Malformed(Malformed),
    /// The caller granted no more memory; see [`Grant`].
    NotGranted,
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::NotGranted => f.write_str("the events take more memory than was granted"),
        }
    }
}

impl error::Error for Error {}

/// What stops the decoding of a record: the whole request, or this record alone.
#[derive(Clone, Debug)]
enum Fault {
    Malformed(Malformed),
    Refused(String),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}
