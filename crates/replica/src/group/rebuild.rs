//! The thread that reads bases for others and takes in what comes.
//!
//! Order of effects when a base comes; the record says already that this disk is not sound:
//! 1. the state is closed, and there is room: until here a failure leaves all as it was;
//! 2. the state says of itself that it is superseded: a crash leaves it so, and a base has to come;
//! 3. what lies in the log behind what both logs have goes to quarantine;
//! 4. the log begins after the base, with the epochs up to there;
//! 5. the parts are gathered beside the state, and records go to the log meanwhile;
//! 6. with the last part the base is the state, and superseded no more.
//!
//! After a crash in between the state knows by itself, and the node by the record, that a base has to
//! come; positions would not tell: a state of another history may reach into the log that was begun.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, mpsc},
    time::Duration,
};

use wal::{Base as BelowLog, EpochStart, Journal as _, Local, Lsn, Old, Truncation};

use super::{
    Shared,
    bases::{Base, Bases, Receiving, Transfer},
};
use crate::machine::{BaseFound, Event, History, Position, SessionId};

/// Bytes of bases read in a second, so that a rebuild leaves room on disk and wire for writes: a gigabit
/// and more. Arbitrary.
const BYTES_PER_SECOND: u64 = 256 << 20;

pub(super) enum BaseWork {
    Open {
        session: SessionId,
        since: Option<Lsn>,
    },
    Read {
        session: SessionId,
        index: u32,
    },
    Close {
        session: SessionId,
    },
    Begin(Begin),
    Store {
        session: SessionId,
        index: u32,
        bytes: Vec<u8>,
    },
}

pub(super) struct Begin {
    pub(super) session: SessionId,
    pub(super) base: Position,
    pub(super) history: History,
    pub(super) since: Option<Lsn>,
    pub(super) parts: u32,
    /// The last position that this log and the primary's have in common.
    pub(super) common: Position,
}

/// How a log could not be begun.
enum Failed {
    AsItWas(String),
    Gone(String),
}

struct Incoming {
    session: SessionId,
    base: Lsn,
    parts: u32,
    into: Box<dyn Receiving>,
}

pub(super) struct Rebuilder {
    shared: Arc<Shared>,
    bases: Arc<dyn Bases>,
    journal: wal::Options,
    outgoing: BTreeMap<SessionId, Box<dyn Base>>,
    incoming: Option<Incoming>,
    /// When the next part may be read.
    next_read: Duration,
}

impl Rebuilder {
    pub(super) fn new(
        shared: &Arc<Shared>,
        bases: &Arc<dyn Bases>,
        journal: &wal::Options,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            bases: Arc::clone(bases),
            journal: journal.clone(),
            outgoing: BTreeMap::new(),
            incoming: None,
            next_read: Duration::ZERO,
        }
    }

    pub(super) fn run(mut self, work: &mpsc::Receiver<BaseWork>) {
        let mut waiting = VecDeque::new();
        while let Some(next) = waiting.pop_front().or_else(|| work.recv().ok()) {
            waiting.extend(work.try_iter());
            match next {
                // Making it takes long, and whoever asked is gone: those behind it would wait for nothing.
                BaseWork::Open { session, .. } if is_closed(session, &waiting) => {}
                BaseWork::Open { session, since } => self.open(session, since),
                BaseWork::Read { session, index } => self.read(session, index),
                BaseWork::Close { session } => {
                    self.outgoing.remove(&session);
                    self.shared.end_transfer(session);
                }
                BaseWork::Begin(begin) => self.begin(&begin),
                BaseWork::Store {
                    session,
                    index,
                    bytes,
                } => self.store(session, index, &bytes),
            }
        }
    }

    fn open(&mut self, session: SessionId, since: Option<Lsn>) {
        let found = match self.bases.open(since) {
            Ok(base) => {
                let found = BaseFound {
                    base: position(&self.shared.local(), base.lsn()),
                    parts: base.parts(),
                    since: base.since(),
                    made: base.made(),
                };
                let transfer = Transfer {
                    is_incoming: false,
                    since: found.since,
                    parts: found.parts,
                    parts_done: 0,
                    bytes_done: 0,
                    bytes: Some(base.bytes()),
                };
                self.shared.begin_transfer(session, transfer);
                self.outgoing.insert(session, base);
                Some(found)
            }
            Err(error) => {
                tracing::warn!(error, "there is no base for a replica");
                None
            }
        };
        self.shared.inbox.push(Event::BaseOpened {
            session,
            base: found,
        });
    }

    fn read(&mut self, session: SessionId, index: u32) {
        let Some(base) = self.outgoing.get(&session) else {
            return;
        };
        let clock = &*self.shared.clock;
        let now = clock.monotonic();
        clock.sleep(self.next_read.saturating_sub(now));
        let bytes = base.part(index).inspect_err(|error| {
            tracing::error!(error, index, "a base does not read");
        });
        if let Ok(bytes) = &bytes {
            let len = bytes.len() as u64;
            let pause = Duration::from_nanos(len * 1_000_000_000 / BYTES_PER_SECOND);
            self.next_read = self.next_read.max(now) + pause;
            self.shared.transferred(session, index + 1, len);
        }
        self.shared.inbox.push(Event::BaseRead {
            session,
            index,
            bytes: bytes.ok(),
        });
    }

    fn begin(&mut self, begin: &Begin) {
        let session = begin.session;
        // One that was begun for a session that is over.
        if let Some(before) = self.incoming.take() {
            self.shared.end_transfer(before.session);
        }
        let refuse = |reason: String, is_untouched: bool| {
            tracing::warn!(reason, "a base is not taken");
            self.shared.inbox.push(Event::BaseFailed {
                session,
                reason,
                is_untouched,
            });
        };
        let mut into = match self.bases.receive(begin.parts, begin.since) {
            Ok(into) => into,
            Err(reason) => return refuse(reason, true),
        };
        if let Err(reason) = into.supersede() {
            return refuse(reason, true);
        }
        match self.begin_log(begin) {
            Ok(()) => {}
            // The state stays superseded: it may have been so before, by a base that broke off.
            Err(Failed::AsItWas(reason)) => return refuse(reason, false),
            Err(Failed::Gone(reason)) => {
                tracing::error!(reason, "the log takes nothing more");
                let failed = reason.clone();
                self.shared.inbox.push(Event::LogFailed { reason: failed });
                return refuse(reason, false);
            }
        }
        let transfer = Transfer {
            is_incoming: true,
            since: begin.since,
            parts: begin.parts,
            parts_done: 0,
            bytes_done: 0,
            bytes: None,
        };
        self.shared.begin_transfer(session, transfer);
        self.incoming = Some(Incoming {
            session,
            base: begin.base.lsn,
            parts: begin.parts,
            into,
        });
        let parts = 0;
        self.shared.inbox.push(Event::BaseStored { session, parts });
    }

    /// Nothing is on its way to the log: the machine saw to that.
    fn begin_log(&self, begin: &Begin) -> Result<(), Failed> {
        let before = self.shared.local();
        let mut old = Old::Discard;
        if before.durable() > begin.common.lsn {
            let reason = format!(
                "the log begins anew after a base; common up to {}",
                begin.common
            );
            let cut = Truncation {
                keep: begin.common.lsn,
                reason: &reason,
                shown_too: true,
            };
            if let Err(error) = before.truncate_after(&cut) {
                // It may be below what is retained, or not verify: all of it is kept then.
                tracing::warn!(%error, "a log that parted is moved aside as a whole");
                old = Old::MoveAside;
            }
        }
        let ended = (before.birth(), before.durable());
        if let Err(error) = before.close() {
            tracing::warn!(%error, "a log that is thrown away did not settle");
        }
        let mut options = self.journal.clone();
        options.shown = Some(begin.base.lsn);
        let history: Vec<EpochStart> = begin.history.starts.iter().map(start).collect();
        let base = BelowLog {
            identity: before.identity(),
            lsn: begin.base.lsn,
            epoch: begin.base.epoch,
            history: &history,
            old,
        };
        let begun = wal::begin_after(&options, &base);
        let (local, result) = match begun {
            Ok((local, _)) => (local, Ok(())),
            // It may have been begun all the same, or not been touched.
            Err(error) => match Local::open(options) {
                Ok((local, _)) if (local.birth(), local.durable()) == ended => {
                    (local, Err(Failed::AsItWas(error.to_string())))
                }
                Ok((local, _)) if local.durable() == begin.base.lsn => (local, Ok(())),
                _ => return Err(Failed::Gone(error.to_string())),
            },
        };
        self.shared.change_local(local);
        result
    }

    fn store(&mut self, session: SessionId, index: u32, bytes: &[u8]) {
        let Some(incoming) = self
            .incoming
            .as_mut()
            .filter(|incoming| incoming.session == session)
        else {
            return;
        };
        let stored = incoming.into.store(index, bytes);
        let parts = index + 1;
        let is_last = parts == incoming.parts;
        let stored = match (stored, is_last) {
            (Ok(()), true) => self.finish(),
            (stored, _) => stored,
        };
        match stored {
            Ok(()) => {
                self.shared.transferred(session, parts, bytes.len() as u64);
                self.shared.inbox.push(Event::BaseStored { session, parts });
            }
            Err(reason) => {
                tracing::warn!(reason, index, "a base is not taken to its end");
                self.incoming = None;
                self.shared.end_transfer(session);
                self.shared.inbox.push(Event::BaseFailed {
                    session,
                    reason,
                    is_untouched: false,
                });
            }
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        let incoming = self.incoming.take().ok_or("no base is on its way")?;
        let reaches = incoming.into.finish()?;
        // Before the machine hears that the base is there: a log must not be cut below what is in it.
        self.shared.inbox.push(Event::Applied {
            applied: incoming.base,
            derived: reaches,
        });
        Ok(())
    }
}

fn is_closed(asked: SessionId, waiting: &VecDeque<BaseWork>) -> bool {
    let mut waiting = waiting.iter();
    waiting.any(|work| matches!(work, BaseWork::Close { session } if *session == asked))
}

/// Where in the log's epochs a position lies.
fn position(local: &Local, lsn: Lsn) -> Position {
    let epochs = local.epochs();
    let started = epochs.iter().rev().find(|start| start.first <= lsn);
    Position {
        epoch: started.map_or(wal::Epoch(0), |start| start.epoch),
        lsn,
    }
}

pub(super) fn start(start: &crate::machine::EpochStart) -> EpochStart {
    EpochStart {
        epoch: start.epoch,
        first: start.first,
        id: Some(start.id.0),
        is_exact: true,
    }
}
