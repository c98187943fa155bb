//! The events plane: telemetry in, none of it lost, handed on in order of priority.
//!
//! An event is acknowledged when its record is durable in a journal; what is read, queried and
//! drained is what that journal holds. This crate knows no HTTP routes, no SQL and no volumes: it
//! turns bodies into events and events into bodies, and `app` carries them.

pub mod cursors;
pub mod drain;
mod error;
pub mod event;
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod json;
pub mod lines;
pub mod log;
pub mod otlp;
pub mod query;
mod record;
#[cfg(test)]
mod tests;
pub mod v1;

pub use cursors::Cursors;
pub use error::{Error, Kind};
pub use event::{Class, Event, EventId, NewEvent, SpanId, TraceId};
pub use log::{Ack, Admission, Log, Options, Recovery};
pub use query::Filter;
