//! The thread that sends the batches of one class.
//!
//! It owns the receiver, reads a batch, sends it and tells what became of it. It moves no cursor and
//! decides nothing, so it can be abandoned in the middle of a send when the drain has to end.

use std::{
    io,
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{Sender, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use wal::{Journal, Lsn};

use super::{
    batch::{self, Batch},
    receiver::{Receiver, Refused, SendError},
};
use crate::{Class, Error, Event};

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) after: Lsn,
    pub(super) until: Lsn,
    pub(super) events_max: usize,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) class: Class,
    pub(super) outcome: Result<Delivered, Failure>,
}

/// The receiver has answered for `count` events of the class, which are all up to `upto`.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) count: usize,
    pub(super) upto: Lsn,
    /// Those that it refused, and why.
    pub(super) refused: Vec<(Event, String)>,
}

#[derive(Debug)]
pub(super) enum Failure {
    /// The batch of this many events was not sent, or not taken.
    Send { count: usize, error: SendError },
    /// There was no batch: our own disk.
    Read(Error),
}

#[derive(Debug)]
pub(super) struct Worker {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl Worker {
    pub(super) fn start(
        class: Class,
        mut receiver: Box<dyn Receiver>,
        journal: Arc<dyn Journal>,
        stop: Arc<AtomicBool>,
        done: Sender<Done>,
    ) -> io::Result<Self> {
        // One job at a time, by the schedule; the slot lets the drain hand it over without waiting.
        let (jobs, handed) = sync_channel::<Job>(1);
        let thread = thread::Builder::new()
            .name(format!("drain-{class}"))
            .spawn(move || {
                for job in handed {
                    let outcome = run(class, &mut *receiver, &*journal, job, &stop);
                    if done.send(Done { class, outcome }).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { jobs, thread })
    }

    /// False when the thread is gone, which only a panic does.
    pub(super) fn hand(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.thread.is_finished()
    }
}

fn run(
    class: Class,
    receiver: &mut dyn Receiver,
    journal: &dyn Journal,
    job: Job,
    stop: &AtomicBool,
) -> Result<Delivered, Failure> {
    let Batch { events, upto } =
        batch::read(journal, class, (job.after, job.until), job.events_max, stop)
            .map_err(Failure::Read)?;
    let count = events.len();
    if count == 0 {
        return Ok(Delivered {
            count,
            upto,
            refused: Vec::new(),
        });
    }
    let refused = match receiver.send(&events) {
        Ok(accepted) => accepted.refused,
        // Alone it is the one that was meant. Among others it takes them along, so it is looked for:
        // nothing of the batch was taken, and halves of it may be.
        Err(SendError::Refused { why } | SendError::Split { why }) if count == 1 => {
            vec![Refused { index: 0, why }]
        }
        Err(error) => return Err(Failure::Send { count, error }),
    };
    let mut whys: Vec<Option<String>> = vec![None; count];
    for Refused { index, why } in refused {
        if let Some(place) = whys.get_mut(index) {
            *place = Some(why);
        }
    }
    let refused = events
        .into_iter()
        .zip(whys)
        .filter_map(|(event, why)| why.map(|why| (event, why)));
    Ok(Delivered {
        count,
        upto,
        refused: refused.collect(),
    })
}
