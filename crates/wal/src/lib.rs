//! The journal: an append-only log with a durable safe point.
//!
//! Everything durable in Holdfast is state derived from a [`Journal`]. This crate owns the trait,
//! its conformance suite, and [`Local`], the implementation on one disk: frames, segments, group
//! commit, recovery, retention. It knows nothing of documents, blocks or peers: a record is opaque
//! bytes with a kind.

mod base;
mod batch;
mod block;
mod catalog;
mod ceiling;
pub mod conformance;
mod core;
mod counts;
mod create;
mod cut;
mod epochs;
mod error;
mod evidence;
#[doc(hidden)]
pub mod fuzzing;
pub mod group;
mod identity;
mod import;
mod journal;
mod local;
mod looking;
mod metrics;
mod options;
mod order;
mod pipeline;
mod progress;
mod quarantine;
mod reader;
mod recover;
mod replicated;
mod reserve;
mod reset;
mod retention;
mod scan;
mod segment;
mod slots;
mod spare;
pub mod survey;
mod tail;
#[cfg(test)]
mod tests;
mod upkeep;
mod window;
mod writer;

pub use base::{Base, Old, begin_after};
pub use batch::{APPEND_LEN_MAX, RECORD_LEN_MAX};
pub use catalog::PIN_NAME_LEN_MAX;
pub use ceiling::{Ceiling, OnReaching};
pub use counts::Counts;
pub use cut::{Truncated, Truncation};
pub use epochs::{EPOCHS_MAX, EpochStart};
pub use error::{Cause, Error, Kind, Misplaced};
pub use evidence::{Evidence, Sign};
pub use import::{Import, Importing, import};
pub use journal::{
    Appended, Birth, Epoch, Generation, Identity, Journal, JournalId, Lsn, Pin, Record, RecordKind,
    Records,
};
pub use local::Local;
pub use metrics::{BATCH_BYTES, BATCH_RECORDS, Backlog, Histogram, Metrics, SYNC_MICROS};
pub use options::{Mode, Options, SEGMENT_BYTES, SEGMENT_BYTES_MIN, Upkeep};
pub use order::REASON_LEN_MAX;
pub use pipeline::{OnDurable, PIPELINE_BYTES_MAX, Pipeline};
pub use progress::{OnProgress, PROGRESS_PAUSE, Progress};
pub use quarantine::records::{CutRecords, cut_files};
pub use recover::{Cut, Examined, Recovery, TailFound};
pub use replicated::Run;
pub use reserve::RESERVE_BYTES;
pub use reset::{Reset, reset};
pub use retention::{Limits, Retention};
pub use survey::survey;

use std::sync::{Mutex, MutexGuard};

pub(crate) const LOCK_HELD: &str = "no thread panics while it holds this lock";

pub(crate) fn hold<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect(LOCK_HELD)
}
