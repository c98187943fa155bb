//! How far a long recovery is.

use std::{fmt, sync::Arc, time::Duration};

use world::Clock;

use crate::Options;

/// Bytes of segments looked at by opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    /// Bytes of all retained segments, prepared space included.
    pub total: u64,
}

/// Told of the progress of an open: at its beginning, at its end, and at most once in
/// [`PROGRESS_PAUSE`] between. Called by the thread that opens, which waits for it.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Between two tellings: often enough for a person to see movement, rare against the work.
pub const PROGRESS_PAUSE: Duration = Duration::from_millis(200);

/// Bytes between two looks at the clock: a fraction of a millisecond of scanning.
const STRIDE: u64 = 1 << 20;

/// Counts bytes and tells.
pub(crate) struct Meter {
    clock: Arc<dyn Clock>,
    on_progress: Option<OnProgress>,
    total: u64,
    /// Bytes of the segments before the one that is read.
    before: u64,
    look_at: u64,
    tell_from: Duration,
}

impl Meter {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            clock: Arc::clone(&options.clock),
            on_progress: options.progress.clone(),
            total: 0,
            before: 0,
            look_at: STRIDE,
            tell_from: Duration::ZERO,
        }
    }

    pub(crate) fn begin(&mut self, total: u64) {
        self.total = total;
        self.tell(0);
    }

    /// So many bytes of the segment that is read are behind.
    pub(crate) fn at(&mut self, offset: u64) {
        let done = self.before + offset;
        if done >= self.look_at {
            self.look_at = done + STRIDE;
            if self.on_progress.is_some() && self.clock.monotonic() >= self.tell_from {
                self.tell(done);
            }
        }
    }

    /// The segment that was read is done.
    pub(crate) fn segment_done(&mut self, len: u64) {
        self.before += len;
        self.at(0);
    }

    pub(crate) fn end(&mut self) {
        self.tell(self.total);
    }

    fn tell(&mut self, done: u64) {
        if let Some(on_progress) = &self.on_progress {
            on_progress(Progress {
                done: done.min(self.total),
                total: self.total,
            });
            self.tell_from = self.clock.monotonic().saturating_add(PROGRESS_PAUSE);
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("total", &self.total)
            .field("before", &self.before)
            .finish_non_exhaustive()
    }
}
