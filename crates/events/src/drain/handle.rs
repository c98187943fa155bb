//! A drain as its owner sees it: what it needs, how it stands, how it ends.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use wal::Journal;
use world::{Clock, Random};

use super::{dead_letter::DeadLetters, engine::Engine, receiver::Receivers, status::Status};
use crate::{Class, Cursors, Error, Kind};

/// When a drain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When it is stopped.
    Follow,
    /// When what was there at its start is delivered, or cannot be.
    Once,
}

/// What a drain works with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names its cursors; see [`Cursors`] for what a name may be.
    pub name: String,
    /// Which classes are sent; the events of others are passed over.
    pub classes: Vec<Class>,
    pub receivers: Receivers,
    /// The journal of the events.
    pub journal: Arc<dyn Journal>,
    pub cursors: Arc<Cursors>,
    pub dead_letters: Arc<DeadLetters>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub mode: Mode,
}

/// How a drain ended.
#[derive(Clone, Debug)]
pub struct Summary {
    pub status: Status,
    /// Everything that was there was taken by the receiver or dead-lettered.
    pub is_complete: bool,
}

/// A running drain. Dropping it stops the drain and waits for its end, a second or so.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Summary>>,
}

/// What a drain's thread and its owner both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) status: Mutex<Status>,
}

impl Shared {
    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.status
            .lock()
            .expect("no thread panics while it holds this lock")
    }
}

impl Handle {
    /// Starts a drain.
    ///
    /// Errors: `OutOfRange`, a cursor of another generation or beyond the safe point; `Invalid`, the
    /// name or a header; `Full`, `Io` and the like: the disk.
    pub fn start(options: Options) -> Result<Self, Error> {
        let name = format!("drain {}", options.name);
        let mut engine = Engine::new(options)?;
        let shared = engine.shared();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || engine.run())
            .map_err(thread_refused)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub fn status(&self) -> Status {
        self.shared.status().clone()
    }

    /// Asks it to end; see [`Handle::join`].
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end and says how it went.
    pub fn join(mut self) -> Summary {
        let joined = self.thread.take().map(JoinHandle::join);
        match joined {
            Some(Ok(summary)) => summary,
            _ => {
                let mut status = self.status();
                status.has_ended = true;
                status.error = Some("the drain's thread panicked".to_owned());
                Summary {
                    status,
                    is_complete: false,
                }
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // Its panic was told where it happened.
            drop(thread.join());
        }
    }
}

pub(super) fn thread_refused(source: std::io::Error) -> Error {
    Error::new(Kind::Io, "start a thread of a drain").with_source(source)
}
