//! The version 1 telemetry log: one file of JSON frames beside a file with the last durable sequence.
//!
//! Owns everything about that older format: reading, writing, recovery, upgrade, and turning its
//! frames into events. The bytes are in `docs/format/telemetry-v1.md`.
//!
//! Invariants
//! - What [`Log::append`] acknowledged is at or below the safe sequence, and the frames were synced
//!   before the safe sequence was written.
//! - No reader sees a frame beyond the safe sequence.
//! - Nothing is cut or replaced that was not copied aside, durably, before.
//!
//! Absent: checksums (the format has none), rotation (one file for ever), and the environment: the
//! two operator's variables arrive as [`Options`].

mod aside;
mod error;
mod frame;
mod import;
mod judge;
mod log;
mod once;
mod options;
mod safe;
mod survey;
#[cfg(test)]
mod tests;
mod upgrade;
mod walk;

pub use aside::Cut;
pub use error::{Cause, Error, Kind};
pub use frame::{Seq, SequenceName, sequence_of};
pub use import::{
    Events, Frame, Frames, Imported, REFUSED_LISTED_MAX, SOURCE, events, frames, import,
    import_with,
};
pub use log::{Committed, Log, Recovery};
pub use options::{FRAME_LEN_MAX, LEGACY_UPGRADE, OPERATOR_RESET, OTHER_STATE, Options};
pub use survey::{SafeSequence, Survey, is_here, survey};
pub use upgrade::{BREAKS_LISTED_MAX, Break, Upgrade, is_begun};

/// The log.
pub const WAL: &str = "telemetry.wal";
/// The last durable sequence.
pub const SAFE_SEQ: &str = "telemetry.safe_seq";
/// Where the next safe sequence is staged.
pub const SAFE_SEQ_TMP: &str = "telemetry.safe_seq.tmp";
/// The consumer's own. Never read, never written, no evidence of anything.
pub const POS: &str = "telemetry.pos";
/// Held by the one writer. Of Holdfast only: an older writer does not know it.
pub const LOCK: &str = "telemetry.lock";
