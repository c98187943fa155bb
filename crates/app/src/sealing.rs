//! Statements over where all chains stand: who makes them, and when without being asked.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use scan::{
    audit::Audit,
    seal::{Book, Error, Reason, Sealed},
};
use store::Store;
use world::{Clock, RealClock, RealDisk, RealRandom};

use crate::{exit::Refusal, site::Site};

/// How often `up` states where everything stands. What was recorded since can be rewritten by somebody
/// who has the machine; an hour of it is little beside the shortest interval at which auditors look,
/// and 8,760 statements a year are a few megabytes. No policy of a site can make it rarer.
const EVERY: Duration = Duration::from_secs(3600);

/// How soon it is tried again after it did not work: whoever has put the key back need not wait an hour
/// to be told that all is well.
const AGAIN: Duration = Duration::from_secs(10);

/// How often `up` links audit records: until then they are not covered.
const LINK_EVERY: Duration = Duration::from_secs(1);

/// How the last statement went, for whoever raises alerts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Mutex<Option<String>>>);

impl Health {
    pub(crate) fn note(&self, stated: &Result<Option<Sealed>, Error>) {
        *self.lock() = stated.as_ref().err().map(ToString::to_string);
    }

    /// Why the last one was not made.
    pub(crate) fn failing(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// States where everything stands, by the key of the directory, which is made when there is none yet.
pub(crate) fn state(site: &Site, reason: Reason) -> Result<Option<Sealed>, Error> {
    state_in(site.store(), &site.keys_dir(), reason)
}

fn state_in(store: &Store, keys_dir: &Path, reason: Reason) -> Result<Option<Sealed>, Error> {
    let book = Book::new(store.clone())?;
    let key = book.key(&RealDisk, keys_dir, &RealRandom)?;
    book.seal(&key, &RealRandom, reason, RealClock::new().now())
}

/// A thread that links audit records each second and states each hour, and at its end, where everything
/// stands.
pub(crate) struct Sealer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// On a site that stays open for as long as it runs.
    pub(crate) fn start(site: &Site, health: &Health) -> Result<Self, Refusal> {
        let (store, keys_dir) = (site.store().clone(), site.keys_dir());
        let health = health.clone();
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("sealer".to_owned())
            .spawn(move || seal_until(&stopped, &store, &keys_dir, &health))
            .map_err(|error| Refusal::new("a thread cannot be started").source(error))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn seal_until(stopped: &Receiver<()>, store: &Store, keys_dir: &Path, health: &Health) {
    let clock = RealClock::new();
    let state = |reason| {
        let stated = state_in(store, keys_dir, reason);
        health.note(&stated);
        if let Err(error) = stated {
            tracing::error!(event = "ledger.seal.failed", %error);
        }
    };
    let wait = || match health.failing() {
        Some(_) => AGAIN,
        None => EVERY,
    };
    let mut next = clock.monotonic() + wait();
    while stopped.recv_timeout(LINK_EVERY) == Err(RecvTimeoutError::Timeout) {
        // What cannot be linked waits for the next second, and verification counts it.
        if let Ok(audit) = Audit::of(store)
            && let Err(error) = audit.link(store)
        {
            tracing::debug!(event = "audit.link.failed", %error);
        }
        if clock.monotonic() >= next {
            state(Reason::Hourly);
            next = clock.monotonic() + wait();
        }
    }
    state(Reason::Stop);
}

/// States it once more, and ends.
impl Drop for Sealer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of its own was told on standard error.
            drop(thread.join());
        }
    }
}
