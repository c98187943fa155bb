//! The data directory for many who work on it: whoever has work submits it, and threads that have the
//! directory do it. `up` has it open for good; other commands that scan open it in short slices, so that
//! commands beside them get in (SVC-12).

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use scan::fleet::{Access, CONCURRENCY_MAX, Opened, Work};
use world::{Clock, RealClock};

use crate::exit::Refusal;

/// Work that may wait: a result or a question of each scan, and the fleet's own. Whoever submits more
/// waits, with its result in its own hands.
const WAITING_MAX: usize = CONCURRENCY_MAX + 8;

/// How long the directory stays open for work that keeps coming. A command waits five seconds for it.
const SLICE_MAX: Duration = Duration::from_millis(800);

/// How long it stays open for more work: what one result brings about (the next claim) follows within
/// milliseconds, and opening costs a hundred of them.
const LINGER: Duration = Duration::from_millis(15);

/// How long it stays closed then. Commands look every 20 ms whether they get in.
const PAUSE: Duration = Duration::from_millis(70);

/// Threads that do work on a directory that is open for good. Each result waits for a sync of the
/// disk, and results that wait together share one; more than these would want the same rows.
pub(crate) const HELD_THREADS: usize = 4;

/// The threads that do what is submitted.
pub(crate) struct Gate {
    requests: Mutex<Option<SyncSender<Work>>>,
    owners: Mutex<Vec<JoinHandle<()>>>,
}

impl Gate {
    /// Opens the directory for each slice with `open`; it is closed by dropping what that gives.
    pub(crate) fn in_slices<S: AsRef<dyn Opened>>(
        open: impl Fn() -> Result<S, Refusal> + Send + 'static,
    ) -> Result<Self, Refusal> {
        let (requests, waiting) = mpsc::sync_channel(WAITING_MAX);
        let owner = start(move || serve_slices(&waiting, &open))?;
        Ok(Self::of(requests, vec![owner]))
    }

    /// Works on what is open for good, each thread by its own handle.
    pub(crate) fn held<S: Opened + Send + 'static>(handles: Vec<S>) -> Result<Self, Refusal> {
        let (requests, waiting) = mpsc::sync_channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let owners = handles.into_iter().map(|opened| {
            let waiting = Arc::clone(&waiting);
            start(move || serve_held(&waiting, &opened))
        });
        Ok(Self::of(requests, owners.collect::<Result<_, _>>()?))
    }

    fn of(requests: SyncSender<Work>, owners: Vec<JoinHandle<()>>) -> Self {
        Self {
            requests: Mutex::new(Some(requests)),
            owners: Mutex::new(owners),
        }
    }

    /// Does what waits, and ends. Work that is submitted later is refused.
    pub(crate) fn stop(&self) {
        drop(lock(&self.requests).take());
        for owner in lock(&self.owners).drain(..) {
            // It catches what work does; a panic of its own was told on standard error.
            drop(owner.join());
        }
    }
}

impl Access for Gate {
    fn submit(&self, work: Work) {
        let requests = lock(&self.requests).clone();
        let refused = match requests {
            Some(requests) => requests.send(work).map_err(|refused| refused.0),
            None => Err(work),
        };
        if let Err(work) = refused {
            work(Err("the data directory is closed for good".to_owned()));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(serve: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Refusal> {
    thread::Builder::new()
        .name("gate".to_owned())
        .spawn(serve)
        .map_err(|error| Refusal::new("a thread cannot be started").source(error))
}

fn serve_held(waiting: &Mutex<Receiver<Work>>, opened: &dyn Opened) {
    loop {
        // One waits for the next, the others for it to go to work.
        let next = lock(waiting).recv();
        let Ok(work) = next else {
            return;
        };
        do_work(work, Ok(opened));
    }
}

fn serve_slices<S: AsRef<dyn Opened>>(
    waiting: &Receiver<Work>,
    open: &impl Fn() -> Result<S, Refusal>,
) {
    let clock = RealClock::new();
    while let Ok(first) = waiting.recv() {
        match open() {
            Ok(opened) => serve_slice(&clock, waiting, first, opened.as_ref()),
            Err(refusal) => {
                let (what, next) = refusal.into_parts();
                let text = next.map_or(what.clone(), |next| format!("{what}\n  next: {next}"));
                do_work(first, Err(text.clone()));
                // Those that waited meanwhile waited for the same.
                while let Ok(work) = waiting.try_recv() {
                    do_work(work, Err(text.clone()));
                }
            }
        }
        clock.sleep(PAUSE);
    }
}

fn serve_slice(clock: &RealClock, waiting: &Receiver<Work>, first: Work, opened: &dyn Opened) {
    let end = clock.monotonic() + SLICE_MAX;
    do_work(first, Ok(opened));
    while clock.monotonic() < end {
        match waiting.recv_timeout(LINGER) {
            Ok(work) => do_work(work, Ok(opened)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Whoever submitted work that broke is told by the channel that breaks with it.
fn do_work(work: Work, opened: Result<&dyn Opened, String>) {
    drop(panic::catch_unwind(AssertUnwindSafe(|| work(opened))));
}
