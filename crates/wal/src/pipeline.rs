//! Appends that do not wait: handed in at their positions, told of in order once they are durable.
//!
//! What is handed in while a sync runs goes into the next batch, so a pipeline shares syncs as
//! concurrent appenders do, and copies can be on their way to others at the same time. One owner knows
//! the positions, so it is not for concurrent appenders: those have [`crate::Journal::append`], whose
//! path this leaves as it is.
//!
//! The first failure ends a pipeline. Everything behind it was meant for positions that are not
//! there.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
};

use world::invariant;

use crate::{
    APPEND_LEN_MAX, Appended, Epoch, Error, Kind, LOCK_HELD, Local, Lsn, Misplaced, Run, Upkeep,
    batch, hold, local::encode, writer::Pending,
};

/// Bytes handed in and not yet written; beyond it [`Pipeline::submit`] waits. Derived: a longest batch
/// that is being written, and one that is being handed in meanwhile.
pub const PIPELINE_BYTES_MAX: usize = 2 * APPEND_LEN_MAX;

/// Told of each batch that became durable, by its last position, in order; or, once and last, why
/// there are no more.
pub type OnDurable = Box<dyn Fn(Result<Lsn, Error>) + Send + Sync>;

/// See the module. Dropping one with a thread writes what was handed in.
pub struct Pipeline {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    journal: Arc<Local>,
    on_durable: OnDurable,
    state: Mutex<State>,
    /// There is something to write, or to stop for.
    work: Condvar,
    /// Something was written, or failed.
    room: Condvar,
}

struct State {
    queue: VecDeque<Queued>,
    /// In `queue`, and in the batch that is being written.
    bytes: usize,
    /// Position of what is handed in next.
    next: Lsn,
    epoch: Epoch,
    failed: Option<Error>,
    stop: bool,
}

struct Queued {
    first: Lsn,
    epoch: Epoch,
    pending: Pending,
}

impl Queued {
    fn bytes(&self) -> usize {
        self.pending.batch.len() - batch::HEADER_LEN
    }
}

impl Pipeline {
    /// Behind what is durable in `journal`. With [`Upkeep::Thread`] a thread writes, and calls
    /// `on_durable`; with [`Upkeep::Caller`] whoever calls [`Pipeline::drive`] does.
    ///
    /// `on_durable` must not block for long: nothing is written meanwhile.
    pub fn new(journal: Arc<Local>, upkeep: Upkeep, on_durable: OnDurable) -> Result<Self, Error> {
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            next: journal.durable().next(),
            epoch: journal.last_epoch(),
            failed: None,
            stop: false,
        };
        let dir = journal.core.dir.clone();
        let shared = Arc::new(Shared {
            journal,
            on_durable,
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
        });
        let thread = match upkeep {
            Upkeep::Caller => None,
            Upkeep::Thread => {
                let theirs = Arc::clone(&shared);
                let started = world::spawn_spine("wal-pipeline", move || theirs.run())
                    .map_err(|source| Error::io("start the pipeline thread", dir, source))?;
                Some(started)
            }
        };
        Ok(Self { shared, thread })
    }

    /// Hands records in for the positions from `first` on, and returns what they get. Waits only while
    /// [`PIPELINE_BYTES_MAX`] are on their way, which without a thread nobody ends: then it is an error.
    ///
    /// Errors that take nothing: `Invalid`, `first` is not behind what was handed in last
    /// ([`Error::misplaced`]), or the records are none or too many; `Fenced`, the epoch is lower than
    /// the one before; `Full`, without a thread, [`Pipeline::drive`] first. And the one that ended the
    /// pipeline.
    pub fn submit(&self, first: Lsn, run: &Run<'_>) -> Result<Appended, Error> {
        let pending = encode(run.records)?;
        let queued = Queued {
            first,
            epoch: run.epoch,
            pending,
        };
        let mut state = self.room_for(queued.bytes())?;
        if first != state.next {
            let next = state.next;
            let message = format!("records from {first} on do not follow, {next} is next");
            return Err(Error::new(Kind::Invalid, message)
                .with_lsn(first)
                .with_misplaced(Misplaced::NotNext { next }));
        }
        if run.epoch < state.epoch {
            let message = format!(
                "epoch {} may not write after epoch {}",
                run.epoch.0, state.epoch.0
            );
            return Err(Error::new(Kind::Fenced, message).with_lsn(first));
        }
        let next = Lsn::new(first.get() + u64::from(queued.pending.count));
        state.next = next;
        state.epoch = run.epoch;
        state.bytes += queued.bytes();
        state.queue.push_back(queued);
        drop(state);
        self.shared.work.notify_one();
        Ok(Appended {
            first,
            last: Lsn::new(next.get() - 1),
        })
    }

    fn room_for(&self, bytes: usize) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = hold(&self.shared.state);
        loop {
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            // One that is longer than all of it goes alone.
            if state.bytes == 0 || state.bytes + bytes <= PIPELINE_BYTES_MAX {
                return Ok(state);
            }
            if self.thread.is_none() {
                let message = format!("{} bytes are waiting to be written", state.bytes);
                return Err(Error::new(Kind::Full, message));
            }
            state = self.shared.room.wait(state).expect(LOCK_HELD);
        }
    }

    /// Position of what is handed in next.
    pub fn next(&self) -> Lsn {
        hold(&self.shared.state).next
    }

    /// Bytes handed in and not yet durable.
    pub fn waiting_bytes(&self) -> usize {
        hold(&self.shared.state).bytes
    }

    /// Writes one batch of what was handed in, for a pipeline without a thread; false when there was
    /// nothing.
    pub fn drive(&self) -> bool {
        invariant!(self.thread.is_none(), "a thread drives this pipeline");
        let round = hold(&self.shared.state).take_round();
        let is_there = !round.is_empty();
        if is_there {
            self.shared.write(round);
        }
        is_there
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        hold(&self.shared.state).stop = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the process already, or, without the hook, been reported.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

impl State {
    /// What goes into the next batch: neighbours of one epoch, as many as a batch holds.
    fn take_round(&mut self) -> Vec<Queued> {
        let mut round: Vec<Queued> = Vec::new();
        let mut bytes = 0;
        while let Some(queued) = self.queue.pop_front_if(|queued| {
            round.first().is_none_or(|first| {
                queued.epoch == first.epoch && bytes + queued.bytes() <= APPEND_LEN_MAX
            })
        }) {
            bytes += queued.bytes();
            round.push(queued);
        }
        round
    }
}

impl Shared {
    fn run(&self) {
        let mut state = hold(&self.state);
        loop {
            let round = state.take_round();
            if !round.is_empty() {
                drop(state);
                self.write(round);
                state = hold(&self.state);
            } else if state.stop {
                return;
            } else {
                state = self.work.wait(state).expect(LOCK_HELD);
            }
        }
    }

    fn write(&self, round: Vec<Queued>) {
        let bytes: usize = round.iter().map(Queued::bytes).sum();
        let done = self.commit(round);
        let mut state = hold(&self.state);
        state.bytes -= bytes;
        if let Err(error) = &done {
            state.failed = Some(error.clone());
            state.queue.clear();
            state.bytes = 0;
        }
        drop(state);
        self.room.notify_all();
        (self.on_durable)(done);
    }

    fn commit(&self, round: Vec<Queued>) -> Result<Lsn, Error> {
        let (first, epoch) = round
            .first()
            .map(|queued| (queued.first, queued.epoch))
            .expect("a round has a member");
        let members = round.into_iter().map(|queued| queued.pending).collect();
        self.journal.append_group_at(first, epoch, members)
    }
}
