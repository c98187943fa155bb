//! How a journal is opened.

use std::{fmt, path::PathBuf, sync::Arc};

use world::{Clock, Disk, Random, RealClock, RealDisk, RealRandom};

use crate::{
    Ceiling, Epoch, Error, Evidence, Kind, Lsn, OnProgress, RESERVE_BYTES, Retention, ceiling,
    segment,
};

/// Bytes of a segment unless told otherwise. Large enough that a roll is rare, small enough that
/// retention by whole segments wastes little.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// A header and as much again.
pub const SEGMENT_BYTES_MIN: u64 = 2 * segment::HEADER_LEN as u64;

/// What must be durable before an append is acknowledged. Each batch says under which mode it was
/// written, so the mode may be another one at each open, and recovery judges by what was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The batch: one data sync per group. After a crash a whole batch that was not yet
    /// acknowledged may be kept.
    #[default]
    Ordinary,
    /// The batch, then its position in the safe-point file: two data syncs per group. What was
    /// never acknowledged is never read.
    Strict,
}

/// Who prepares space and settles the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// A spine thread of the journal's own, ahead of the appenders and when they are idle.
    Thread,
    /// Appenders prepare space when they run out of it, and the caller settles. Every disk call is
    /// then made by the caller's own calls, in an order that repeats.
    Caller,
}

/// What [`crate::Local::open`] needs.
#[derive(Clone)]
pub struct Options {
    /// The journal's own directory; made when it is missing.
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// Length of a segment file. A longer batch makes a longer segment.
    pub segment_bytes: u64,
    /// Stamped into what is appended; `None`: the highest epoch found. Below that, opening fails
    /// with kind `Fenced`.
    pub epoch: Option<Epoch>,
    pub mode: Mode,
    /// How far readers see at first, at most; [`crate::Local::show`] says when they see more. `None`:
    /// all that is durable, always. For an owner to whom a record counts only once others have it.
    pub shown: Option<Lsn>,
    pub upkeep: Upkeep,
    /// Who decides that a segment goes.
    pub retention: Retention,
    /// Most bytes the directory may take; `None`: what the disk has.
    pub ceiling: Option<Ceiling>,
    /// Bytes kept for closing records and for keeping a torn tail aside when the disk is full, at
    /// most a segment; 0: none.
    pub reserve_bytes: u64,
    /// Told how far opening is.
    pub progress: Option<OnProgress>,
    /// What shows that this node ran before, besides the journal's own bytes.
    pub evidence: Vec<Evidence>,
    /// Told to whoever finds the journal locked.
    pub holder: String,
}

impl Options {
    pub fn new(
        dir: impl Into<PathBuf>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let command: Vec<String> = std::env::args_os()
            .take(HOLDER_WORDS)
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        Self {
            dir: dir.into(),
            disk,
            clock,
            random,
            segment_bytes: SEGMENT_BYTES,
            epoch: None,
            mode: Mode::Ordinary,
            shown: None,
            upkeep: Upkeep::Thread,
            retention: Retention::Owner,
            ceiling: None,
            reserve_bytes: RESERVE_BYTES,
            progress: None,
            evidence: Vec::new(),
            holder: format!("pid {} ({})", std::process::id(), command.join(" ")),
        }
    }

    /// On this machine's own disk, clock and randomness.
    pub fn on_this_machine(dir: impl Into<PathBuf>) -> Self {
        Self::new(
            dir,
            Arc::new(RealDisk),
            Arc::new(RealClock::new()),
            Arc::new(RealRandom),
        )
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.segment_bytes < SEGMENT_BYTES_MIN {
            return Err(Error::new(
                Kind::Invalid,
                format!(
                    "segments of {} bytes; at least {SEGMENT_BYTES_MIN}",
                    self.segment_bytes
                ),
            ));
        }
        ceiling::check(self)
    }
}

/// Words of the command line that a holder line shows: program, command, what it acts on.
const HOLDER_WORDS: usize = 3;

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("segment_bytes", &self.segment_bytes)
            .field("epoch", &self.epoch)
            .field("mode", &self.mode)
            .field("shown", &self.shown)
            .field("upkeep", &self.upkeep)
            .field("retention", &self.retention)
            .field("ceiling", &self.ceiling)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("evidence", &self.evidence)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}
