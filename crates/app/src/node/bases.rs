//! The store of this node as what rebuilds are made of and go into, and who has its directory: the work
//! of `up`, a base that comes, or nobody.
//!
//! The store is closed while a base comes: [`Turn`] is what the work of `up` has the store under, and it
//! ends its turn when a base is waiting.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak},
    time::Duration,
};

use replica::group::{Base, Bases, Derived, Receiving};
use store::{Install, Options, Store};
use wal::{Identity, Lsn};
use world::{Clock, RealClock};

use crate::{exit::Refusal, site};

/// A stop of `up` takes no longer, and requests under way end within ten seconds.
const CLOSE_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Left free beside a base, as the store does it.
const SPACE_RESERVE: u64 = 32 << 20;

/// The store's directory and who has it.
pub(crate) struct StoreBases {
    options: Options,
    journal: Identity,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    has: Has,
    /// A base waits for the directory.
    is_wanted: bool,
    /// The node ends: no base comes any more.
    is_ended: bool,
    /// Bases that are held of the store. They keep it, and its journal, open.
    held: Vec<Weak<Held>>,
}

#[derive(Default)]
enum Has {
    #[default]
    Nobody,
    /// The work of `up`; with the store once it is open.
    Work(Option<Store>),
    Base,
}

/// What the group has of it.
#[derive(Debug)]
struct Shared(Arc<StoreBases>);

/// The work of `up` has the store's directory.
pub(super) struct Turn<'a>(&'a StoreBases);

/// The node ends with this.
pub(super) struct Ending(Arc<StoreBases>);

/// A base that is held, until somebody lets go of it or the store is closed.
struct Held(Mutex<Option<store::Base>>);

struct Outgoing {
    held: Arc<Held>,
    lsn: Lsn,
    since: Option<Lsn>,
    made: Option<String>,
    parts: u32,
    bytes: u64,
}

struct Incoming {
    bases: Arc<StoreBases>,
    install: Option<Install>,
}

impl StoreBases {
    pub(super) fn new(data: &Path, journal: Identity) -> Result<Arc<Self>, Refusal> {
        Ok(Arc::new(Self {
            options: site::store_options(data)?,
            journal,
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// The directory for the work of `up`; `None` while a base has it or waits for it.
    pub(super) fn turn(&self) -> Option<Turn<'_>> {
        let mut state = self.state();
        if state.is_wanted || !matches!(state.has, Has::Nobody) {
            return None;
        }
        state.has = Has::Work(None);
        Some(Turn(self))
    }

    /// A base waits: the store is to be closed, and the turn to end.
    pub(super) fn is_wanted(&self) -> bool {
        self.state().is_wanted
    }

    /// Ends with what is returned: no base comes any more, and none that waits does.
    pub(super) fn ending(self: &Arc<Self>) -> Ending {
        Ending(Arc::clone(self))
    }

    /// Whether what the store has and what the log has meet: else a base is to come. `None`: somebody
    /// still has the store's directory.
    pub(super) fn does_meet(
        &self,
        first_retained: Lsn,
        readable: Lsn,
    ) -> Result<Option<bool>, Refusal> {
        let found = match store::Derived::on_disk(&self.options) {
            Ok(found) => found,
            Err(error) if error.kind() == store::Kind::Locked => return Ok(None),
            Err(error) => return Err(site::Site::store_refused(error)),
        };
        let (holds, reaches) = found.map_or((Lsn::ZERO, Lsn::ZERO), |found| {
            (found.checkpoint, found.reaches)
        });
        // Its positions may fit a log that it is not of.
        let is_superseded = found.is_some_and(|found| found.is_superseded);
        let does_reach = holds.next() >= first_retained && reaches <= readable;
        Ok(Some(does_reach && !is_superseded))
    }

    /// As the group is to know it when it is opened.
    pub(super) fn derived(self: &Arc<Self>) -> Result<Derived, Refusal> {
        let found = store::Derived::on_disk(&self.options).map_err(site::Site::store_refused)?;
        Ok(Derived {
            holds: found.map_or(Lsn::ZERO, |found| found.checkpoint),
            reaches: found.map_or(Lsn::ZERO, |found| found.reaches),
            is_superseded: found.is_some_and(|found| found.is_superseded),
            bases: Arc::new(Shared(Arc::clone(self))),
        })
    }

    fn open_store(&self) -> Result<Store, String> {
        match &self.state().has {
            Has::Work(Some(store)) => Ok(store.clone()),
            _ => Err("the store of this node is not open".to_owned()),
        }
    }

    /// Waits until the work of `up` has closed the store.
    fn take(&self) -> Result<(), String> {
        let clock = RealClock::new();
        let begun = clock.monotonic();
        let mut state = self.state();
        state.is_wanted = true;
        while !matches!(state.has, Has::Nobody) {
            if state.is_ended || clock.monotonic() - begun > CLOSE_MAX {
                state.is_wanted = false;
                return Err("the store of this node was not closed in time".to_owned());
            }
            let waited = self.changed.wait_timeout(state, LOOK_EVERY);
            (state, _) = waited.expect("never poisoned: holds no code that panics");
        }
        state.is_wanted = false;
        state.has = Has::Base;
        Ok(())
    }

    fn check_room(&self, parts: u32, since: Option<Lsn>) -> Result<(), String> {
        let dir = &self.options.dir;
        let space = self.options.disk.space(dir.parent().unwrap_or(dir));
        let space = space.map_err(|error| format!("the space of {}: {error}", dir.display()))?;
        // What changed is written twice: as it came, and to the tables.
        let copies = if since.is_some() { 2 } else { 1 };
        let needed = u64::from(parts) * store::Base::PART_LEN_MAX * copies + SPACE_RESERVE;
        if space.available >= needed {
            return Ok(());
        }
        Err(format!(
            "a base for {} needs up to {needed} bytes, {} are free: make room",
            dir.display(),
            space.available
        ))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

impl Turn<'_> {
    /// The store is open: what others are rebuilt from.
    pub(super) fn opened(&self, store: &Store) {
        self.0.state().has = Has::Work(Some(store.clone()));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.state().is_ended = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let (store, held) = {
            let mut state = self.0.state();
            let store = std::mem::take(&mut state.has);
            (store, std::mem::take(&mut state.held))
        };
        for held in held.iter().filter_map(Weak::upgrade) {
            drop(held.take());
        }
        drop(store);
        self.0.changed.notify_all();
    }
}

impl Held {
    fn take(&self) -> Option<store::Base> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<store::Base>> {
        self.0
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

impl Bases for Shared {
    fn open(&self, since: Option<Lsn>) -> Result<Box<dyn Base>, String> {
        let store = self.0.open_store()?;
        let mut made = None;
        let changes = since.map(|since| store.open_changes(since));
        let base = match changes {
            Some(Ok(changes)) => changes,
            // What changed cannot be told: said in the log, and all of it goes.
            Some(Err(error)) if error.kind() == store::Kind::OutOfRange => {
                made = Some(error.to_string());
                store.open_base().map_err(|error| error.to_string())?
            }
            Some(Err(error)) => return Err(error.to_string()),
            None => store.open_base().map_err(|error| error.to_string())?,
        };
        let (lsn, since) = (base.commit().lsn, base.since());
        let (parts, bytes) = (base.parts(), base.bytes());
        let held = Arc::new(Held(Mutex::new(Some(base))));
        let mut state = self.0.state();
        // It was closed meanwhile, or is about to be.
        if !matches!(state.has, Has::Work(Some(_))) {
            return Err("the store of this node is not open".to_owned());
        }
        state.held.retain(|held| held.strong_count() > 0);
        state.held.push(Arc::downgrade(&held));
        Ok(Box::new(Outgoing {
            held,
            lsn,
            since,
            made,
            parts,
            bytes,
        }))
    }

    fn receive(&self, parts: u32, since: Option<Lsn>) -> Result<Box<dyn Receiving>, String> {
        self.0.check_room(parts, since)?;
        self.0.take()?;
        Ok(Box::new(Incoming {
            bases: Arc::clone(&self.0),
            install: None,
        }))
    }
}

impl Base for Outgoing {
    fn lsn(&self) -> Lsn {
        self.lsn
    }

    fn since(&self) -> Option<Lsn> {
        self.since
    }

    fn made(&self) -> Option<String> {
        self.made.clone()
    }

    fn parts(&self) -> u32 {
        self.parts
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn part(&self, index: u32) -> Result<Vec<u8>, String> {
        let held = self.held.lock();
        let base = held.as_ref().ok_or("the store of this node was closed")?;
        base.part(index).map_err(|error| error.to_string())
    }
}

impl Incoming {
    /// Handles of the store that requests under way still have keep its directory for a while.
    fn once_unlocked<T>(&self, act: impl Fn() -> Result<T, store::Error>) -> Result<T, String> {
        let clock = RealClock::new();
        let begun = clock.monotonic();
        loop {
            match act() {
                Ok(done) => return Ok(done),
                Err(error)
                    if error.kind() == store::Kind::Locked
                        && clock.monotonic() - begun < CLOSE_MAX
                        && !self.bases.state().is_ended =>
                {
                    clock.sleep(LOOK_EVERY);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Receiving for Incoming {
    fn supersede(&mut self) -> Result<(), String> {
        self.once_unlocked(|| Install::supersede(&self.bases.options))
    }

    fn store(&mut self, index: u32, part: &[u8]) -> Result<(), String> {
        if index == 0 {
            let (options, journal) = (&self.bases.options, self.bases.journal);
            let begin = || Install::begin(options.clone(), journal, part);
            self.install = Some(self.once_unlocked(begin)?);
            return Ok(());
        }
        let install = self.install.as_mut().ok_or("the base was not begun")?;
        install
            .store(index, part)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    fn finish(mut self: Box<Self>) -> Result<Lsn, String> {
        let install = self.install.take().ok_or("the base was not begun")?;
        let installed = install.finish().map_err(|error| error.to_string())?;
        Ok(installed.reaches)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Its lock goes before others may come.
        drop(self.install.take());
        self.bases.state().has = Has::Nobody;
        self.bases.changed.notify_all();
    }
}

impl fmt::Debug for StoreBases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBases")
            .field("dir", &self.options.dir)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("lsn", &self.lsn)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("install", &self.install)
            .finish_non_exhaustive()
    }
}
