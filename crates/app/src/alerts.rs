//! Alerts at work: looked for, and sent to whom the configuration names.
//!
//! One thread looks at what was recorded; each receiver has a thread of its own, so that one that does
//! not answer holds up nobody. All of them share nothing but the store, and whatever dies is gone on
//! with by the next process.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use scan::alert::{self, Claimed, Condition, Evaluator, Kind, Notice, Outbox, Tried};
use store::Store;
use world::{Clock, Disk, RealClock, RealDisk, RealRandom};

use crate::{exit::Refusal, present::safe, sealing::Health, site};

pub(crate) mod document;
mod mail;
pub(crate) mod setting;
mod syslog;
mod webhook;
mod words;

pub(crate) use webhook::explained;

pub(crate) use setting::Configured;

/// How often a queue is looked at, and whether to stop.
const POLL: Duration = Duration::from_millis(500);
/// How long a stop waits for a receiver that is in the middle of an answer. What was not finished is
/// sent again by the next start. Within the ten seconds that a stop may take.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// Free space of the data directory below which it is told of: a day of a busy fleet, and what
/// `holdfast doctor` asks for; of a small disk a twentieth.
const DISK_LOW: u64 = 1 << 30;
const DISK_LOW_PART: u64 = 20;

/// Sends a notice, and tells what became of it. Bounded in time by the receiver's timeout.
pub(crate) trait Transport: Send {
    fn send(&self, notice: &Notice) -> Tried;
}

/// The name of this machine.
fn node() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// Everything that runs for alerts.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Begins to look and to send, until `stop` is set or [`Running::stop`] is called. Receivers whose
/// secrets cannot be read are refused here, before anything runs.
pub(crate) fn start(
    store: &Store,
    receivers: &[Configured],
    data_dir: PathBuf,
    sealing: Health,
    stop: Arc<AtomicBool>,
) -> Result<Running, Refusal> {
    let outbox = Outbox::new(store.clone(), Arc::new(RealRandom)).map_err(refused)?;
    let filters = receivers.iter().map(|it| it.filter.clone()).collect();
    let evaluator = Evaluator::new(store, Arc::new(RealRandom), filters).map_err(refused)?;
    let mut running = Running {
        stop,
        threads: Vec::new(),
    };
    for receiver in receivers {
        let sender = Sender {
            name: receiver.filter.name.clone(),
            transport: receiver.transport()?,
            lease: receiver.timeout * 2 + Duration::from_secs(30),
            outbox: outbox.clone(),
            worker: format!("{} {}", node(), site::holder()),
        };
        running.spawn("alert-send", move |stop| sender.run(stop))?;
    }
    running.spawn("alerts", move |stop| {
        look(&evaluator, &data_dir, &sealing, stop)
    })?;
    Ok(running)
}

impl Running {
    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> Result<(), Refusal> {
        let stop = Arc::clone(&self.stop);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&stop))
            .map_err(|error| Refusal::new("a thread cannot be started").source(error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for what is under way, but not for a receiver that does not answer.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let clock = RealClock::new();
        let end = clock.monotonic() + STOP_WAIT;
        for thread in self.threads {
            while !thread.is_finished() && clock.monotonic() < end {
                clock.sleep(Duration::from_millis(20));
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("a thread of the alerts had panicked");
            }
        }
    }
}

fn look(evaluator: &Evaluator, data_dir: &std::path::Path, sealing: &Health, stop: &AtomicBool) {
    let clock = RealClock::new();
    let mut next = clock.monotonic();
    while !stop.load(Ordering::Relaxed) {
        if clock.monotonic() < next {
            clock.sleep(POLL.min(next.saturating_sub(clock.monotonic())));
            continue;
        }
        next = clock.monotonic() + alert::EVERY;
        let site: Vec<Condition> = disk(data_dir).into_iter().chain([seal(sealing)]).collect();
        match evaluator.look(clock.now(), &site) {
            Ok(done) if done.is_more => next = clock.monotonic(),
            Ok(_) => {}
            Err(error) => tracing::error!(event = "alert.look.failed", %error),
        }
    }
}

/// `None` where it cannot be told.
fn disk(data_dir: &std::path::Path) -> Option<Condition> {
    let space = RealDisk.space(data_dir).ok()?;
    let wanted = DISK_LOW.min(space.total / DISK_LOW_PART);
    let detail = format!(
        "{} MiB of {} MiB are free on the disk of the data directory",
        space.available >> 20,
        space.total >> 20
    );
    Some(Condition {
        kind: Kind::DiskLow,
        subject: None,
        detail: (space.available < wanted).then_some(detail),
    })
}

/// Of this machine: where several share a store, another may well have the key.
fn seal(sealing: &Health) -> Condition {
    let why = sealing.failing();
    Condition {
        kind: Kind::SealFailing,
        subject: Some(node()),
        detail: why.map(|why| format!("where everything stands was not signed: {}", safe(&why))),
    }
}

/// What sends the notices of one receiver.
struct Sender {
    name: String,
    transport: Box<dyn Transport>,
    lease: Duration,
    outbox: Outbox,
    worker: String,
}

impl Sender {
    fn run(&self, stop: &AtomicBool) {
        let clock = RealClock::new();
        while !stop.load(Ordering::Relaxed) {
            let claimed = self
                .outbox
                .claim(&self.name, &self.worker, clock.now(), self.lease);
            match claimed {
                Ok(Some(claimed)) => self.send(&claimed, &clock),
                Ok(None) => clock.sleep(POLL),
                Err(error) => {
                    if error.kind != alert::ErrorKind::Conflict {
                        tracing::error!(event = "alert.queue.failed", receiver = self.name, %error);
                    }
                    clock.sleep(POLL);
                }
            }
        }
    }

    fn send(&self, claimed: &Claimed, clock: &RealClock) {
        let notice = &claimed.delivery.notice;
        let tried = self.transport.send(notice);
        let reason = match &tried {
            Tried::Taken => None,
            Tried::Again { reason, .. } | Tried::Refused { reason } => Some(safe(reason)),
        };
        tracing::info!(
            event = "alert.sent",
            receiver = self.name,
            notice = notice.id,
            is_taken = reason.is_none(),
            reason,
        );
        // Until it is on record it is sent again: the receiver drops it by its id. One who looks at
        // alerts meanwhile may have changed the same row.
        for _ in 0..FINISH_ATTEMPTS_MAX {
            match self.outbox.finish(claimed, &tried, clock.now()) {
                Err(error) if error.kind == alert::ErrorKind::Conflict => {}
                Err(error) => {
                    tracing::error!(event = "alert.queue.failed", receiver = self.name, %error);
                    return;
                }
                Ok(_) => return,
            }
        }
    }
}

/// Attempts to record one outcome before its lease is left to end.
const FINISH_ATTEMPTS_MAX: u32 = 16;

/// An alert that was not found or changed, as the user sees it.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn refused(error: alert::Error) -> Refusal {
    Refusal::new(error.detail).next(error.next)
}
