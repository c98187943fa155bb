//! The thread that keeps ahead of the appenders and settles behind them.
//!
//! It prepares written space before it is needed, and brings the safe-point file up to date once
//! appends pause. Nothing that was acknowledged depends on it: without it appenders prepare their
//! own space, and the safe point is in the batches.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    LOCK_HELD,
    ceiling::Need,
    core::{Active, Core},
    hold,
};

/// Without an append for this long, the journal is idle and is settled. Long against a sync, so
/// that it happens between bursts, not inside them; short against a person.
const IDLE: Duration = Duration::from_millis(100);

/// Between two looks at an idle journal that has something due by time: the age of its segments, or
/// the reserve that a full disk took. Arbitrary: fine against any age that is kept for, rare against
/// the cost of listing a directory.
const TEND_PAUSE: Duration = Duration::from_secs(10);

/// Between two attempts to get space ahead of need. Arbitrary: rare against a write of a segment,
/// soon against a person who frees space.
const SPACE_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Thread {
    signal: Arc<Signal>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Signal {
    wants: Mutex<Wants>,
    changed: Condvar,
    /// Something was appended since the last settling.
    is_dirty: AtomicBool,
}

#[derive(Debug, Default)]
struct Wants {
    stop: bool,
    space: bool,
}

impl Thread {
    pub(crate) fn start(core: Arc<Core>) -> io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let theirs = Arc::clone(&signal);
        let handle = world::spawn_spine("wal-upkeep", move || theirs.run(&core))?;
        Ok(Self {
            signal,
            handle: Mutex::new(Some(handle)),
        })
    }

    /// Told after each group. Cheap: it wakes the thread once per burst, and once per half segment.
    pub(crate) fn appended(&self, core: &Core, position: u64, extent: u64) {
        let is_first = !self.signal.is_dirty.swap(true, Ordering::AcqRel);
        let is_short = position > extent / 2
            && (extent < core.segment_bytes
                || core.spares.try_lock().is_ok_and(|it| it.is_empty()));
        if is_first || is_short {
            let mut wants = hold(&self.signal.wants);
            let is_news = is_first || (is_short && !wants.space);
            wants.space |= is_short;
            drop(wants);
            if is_news {
                self.signal.changed.notify_one();
            }
        }
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&self) {
        hold(&self.signal.wants).stop = true;
        self.signal.changed.notify_one();
        if let Some(handle) = hold(&self.handle).take() {
            // A panic there has ended the process already, or, without the hook, been reported.
            drop(handle.join());
        }
    }
}

impl Signal {
    fn run(&self, core: &Core) {
        let mut space_from = Duration::ZERO;
        let mut wants = hold(&self.wants);
        loop {
            if wants.stop {
                return;
            }
            if std::mem::take(&mut wants.space) && core.clock.monotonic() >= space_from {
                drop(wants);
                if !prepare(core) {
                    // A full disk stays full for a while; appenders fend for themselves.
                    space_from = core.clock.monotonic().saturating_add(SPACE_PAUSE);
                }
                wants = hold(&self.wants);
                continue;
            }
            if !self.is_dirty.load(Ordering::Acquire) {
                wants = match core.tend_pause() {
                    None => self.changed.wait(wants).expect(LOCK_HELD),
                    Some(pause) => {
                        let (held, waited) =
                            self.changed.wait_timeout(wants, pause).expect(LOCK_HELD);
                        if waited.timed_out() {
                            drop(held);
                            core.tend();
                            hold(&self.wants)
                        } else {
                            held
                        }
                    }
                };
                continue;
            }
            let seen = core.tail.safe_point();
            let waited = self.changed.wait_timeout(wants, IDLE).expect(LOCK_HELD);
            wants = waited.0;
            if waited.1.timed_out() && core.tail.safe_point() == seen {
                // Before settling: an append from here on makes it dirty again.
                self.is_dirty.store(false, Ordering::Release);
                drop(wants);
                // A failure has poisoned the journal; appenders are told.
                drop(core.settle());
                core.tend();
                wants = hold(&self.wants);
            }
        }
    }
}

/// Prepares what is needed next; false when that failed.
fn prepare(core: &Core) -> bool {
    let active = Arc::clone(&hold(&core.active));
    if core.check_writable().is_err() {
        return false;
    }
    if active.extent() < core.segment_bytes {
        core.grow_ahead(&active)
    } else {
        core.apply_retention_logged();
        core.prepare_ahead()
    }
}

impl Core {
    /// Prepares more space in the segment that is appended to; false when that failed.
    pub(crate) fn grow_ahead(&self, active: &Active) -> bool {
        // A segment that is sealed meanwhile keeps its file until this is done: in a recycled one
        // the zeros would go over batches.
        let _releasing = hold(&self.releasing);
        if hold(&self.active).base != active.base {
            return true;
        }
        // Without room nothing is lost yet: the append that needs the space is told.
        self.grow(active, active.extent() + 1, Need::Polite).is_ok()
    }

    /// What is due from time to time, whether there are appends or not.
    pub(crate) fn tend(&self) {
        if self.check_writable().is_ok() {
            self.keep_reserve();
            self.apply_retention_logged();
        }
    }

    /// How long an idle journal may be left alone; `None`: until the next append.
    fn tend_pause(&self) -> Option<Duration> {
        let ages = self
            .retention
            .limits()
            .is_some_and(|limits| limits.age_max.is_some());
        let lacks_reserve =
            self.reserve_len() > 0 && !self.space.has_reserve.load(Ordering::Relaxed);
        (ages || lacks_reserve).then_some(TEND_PAUSE)
    }

    fn apply_retention_logged(&self) {
        if let Err(error) = self.apply_retention() {
            // Tried again; a journal that is poisoned or closed has said so already.
            tracing::warn!(dir = %self.dir.display(), %error, "retention was not applied");
        }
    }
}
