//! The journal: an append-only log with a durable safe point.
//!
//! Everything durable in Holdfast is state derived from a [`Journal`]. This crate owns the trait,
//! its conformance suite, and [`Local`], the implementation on one disk: frames, segments, group
//! commit, recovery, retention. It knows nothing of documents, blocks or peers: a record is opaque
//! bytes with a kind.

mod error;
mod journal;

pub use error::{Cause, Error, Kind};
pub use journal::{
    Appended, Epoch, Generation, Identity, Journal, JournalId, Lsn, Pin, Record, RecordKind,
    Records,
};
