//! How a version 1 log is opened.

use std::sync::Arc;

use world::{Disk, RealDisk};

use super::SequenceName;

/// Longest payload of a frame in bytes. The format allows 4 GiB; this is what one record of a
/// journal holds, so whatever is accepted here can also be imported.
pub const FRAME_LEN_MAX: u32 = 16 << 20;

/// Names in the directory that show that the node ran before, besides a `telemetry.wal` with bytes. A
/// site whose other components keep more there (`active-lock.json` is one) adds their names.
pub const OTHER_STATE: [&str; 3] = ["lock.fingerprint", "activation", "runtime.db"];

/// The variable behind [`Options::legacy_upgrade`].
pub const LEGACY_UPGRADE: &str = "AUTONOMYOPS_WAL_LEGACY_UPGRADE";
/// The variable behind [`Options::operator_reset`].
pub const OPERATOR_RESET: &str = "AUTONOMYOPS_WAL_OPERATOR_RESET";

/// What [`super::Log::open`] and [`super::survey`] need besides the directory.
#[derive(Clone, Debug)]
pub struct Options {
    pub disk: Arc<dyn Disk>,
    /// Take over a log from before safe sequences. Works once; see [`super::Upgrade`].
    pub legacy_upgrade: bool,
    /// Begin anew after the operator removed the log. Works once.
    pub operator_reset: bool,
    /// Names whose presence in the directory makes it steady state.
    pub other_state: Vec<String>,
    /// Under which key sequences are written.
    pub sequence_name: SequenceName,
    /// Frames longer than this are refused before memory is taken for them.
    pub frame_len_max: u32,
    /// Told to whoever finds the log locked.
    pub holder: String,
}

impl Options {
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            legacy_upgrade: false,
            operator_reset: false,
            other_state: OTHER_STATE.map(str::to_owned).to_vec(),
            sequence_name: SequenceName::default(),
            frame_len_max: FRAME_LEN_MAX,
            holder: format!("pid {}", std::process::id()),
        }
    }

    /// On this machine's own disk.
    pub fn on_this_machine() -> Self {
        Self::new(Arc::new(RealDisk))
    }
}
