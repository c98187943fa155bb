//! The fleet at work: what is due is dispatched, scanned, judged and recorded, until it is stopped.
//!
//! One thread owns the order of things ([`Fleet::run`]): it ticks, claims as many jobs as there is
//! room for, renews the leases of what runs. Each job has a thread of its own, which scans and judges
//! outside of the store and then hands its result over. A thread that cannot hand over keeps its
//! result and its room, so that at most `policy.concurrency` results wait in memory; facts are gone
//! by then. Nothing here knows whether the store is open for long or for a moment: [`Access`] does.

mod agenda;
mod on_store;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use russh::keys::PublicKey;
use uuid::Uuid;
use world::Clock;

use agenda::Agenda;
pub use on_store::OnStore;

use crate::{
    backend::{Backend, Claimed, Dispatched, Error, Kind, Reaped},
    collect::{Collector, Needs, Progress},
    credential::Secret,
    executor::{self, Cancel, Executed, Executor, NoWay, Order, Way},
    failure::{Failure, Reason},
    inventory::Host,
    ledger::{self, Applied},
    policy::Policy,
    rule::Rule,
    waiver::Waiver,
};

/// How often the fleet looks whether it is to stop, whether something was changed, what is due.
const POLL: Duration = Duration::from_millis(100);

/// How often somebody's change is looked for.
const NUDGE: Duration = Duration::from_secs(1);

/// Wait after the store could not be had, before it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a result that cannot be recorded is kept after a stop was asked for. Its job is then given
/// to the next worker when the lease ends. Within the ten seconds that a stop may take.
const LAST_TRIES: Duration = Duration::from_secs(5);

/// Scans at once, whatever the policy says: each has two threads and some MiB of facts.
pub const CONCURRENCY_MAX: usize = 128;

/// What the store says of the fleet, for as long as it is open.
pub trait Opened {
    fn backend(&self) -> &dyn Backend;

    /// The policy in force.
    ///
    /// # Errors
    /// One line for people: there is none that may be used.
    fn policy(&self) -> Result<Arc<Policy>, String>;

    fn ledger(&self) -> &ledger::Ledger;

    /// A host of the inventory.
    ///
    /// # Errors
    /// The inventory has none that takes scans.
    fn host(&self, name: &str) -> Result<Host, Failure>;

    /// The way to a host; [`crate::executor::NoWay`] where there is none. `access` is how the way gets
    /// at the store later.
    fn way(&self, host: &Host, access: &Arc<dyn Access>) -> Arc<dyn Way>;

    /// `rules` with the values that the site gave their variables for this host (RUL-8).
    ///
    /// # Errors
    /// The values cannot be read: judging by others would read as a change of the host.
    fn rules(&self, rules: &Arc<[Rule]>, host: &Host) -> Result<Arc<[Rule]>, Failure>;

    /// What may be shown beside verdicts.
    ///
    /// # Errors
    /// One line for people.
    fn waivers(&self) -> Result<Vec<Waiver>, String>;

    /// What logs in to a host, decrypted: asked for after the host proved that it is the one.
    ///
    /// # Errors
    /// `credential_missing`, `credential_decryption_failed`.
    fn secret(&self, host: &Host) -> Result<Secret, Failure>;

    /// Records the first key that an address showed.
    ///
    /// # Errors
    /// It could not be recorded.
    fn trust(&self, address: &str, port: u16, key: &PublicKey) -> Result<(), Failure>;
}

/// What is done while the store is open; `Err` with one line for people where it cannot be opened.
pub type Work = Box<dyn FnOnce(Result<&dyn Opened, String>) + Send>;

/// Opens the store for work that waits, and closes it again.
pub trait Access: Send + Sync {
    /// Runs `work` once, on any thread, now or soon.
    fn submit(&self, work: Work);
}

/// Who looks on. Called from several threads.
pub trait Watcher: Send + Sync {
    fn ticked(&self, _dispatched: &Dispatched, _reaped: &Reaped) {}

    /// What shows the progress of one scan.
    fn progress(&self, _host: &str) -> Arc<dyn Progress> {
        Arc::new(())
    }

    /// A scan was recorded.
    fn recorded(&self, _executed: &Executed, _applied: &Applied) {}

    /// An attempt came to nothing, and this is recorded.
    fn failed(&self, _host: &str, _failure: &Failure) {}

    /// Something of ours did not work, and is tried again.
    fn trouble(&self, _text: &str) {}
}

/// What the fleet is made of.
#[derive(Clone)]
pub struct Fleet {
    pub access: Arc<dyn Access>,
    pub executor: Executor,
    pub watcher: Arc<dyn Watcher>,
    /// Told of change rows and of applies that failed (LED-6).
    pub ledger_sink: Arc<dyn ledger::Sink + Send + Sync>,
    pub clock: Arc<dyn Clock>,
    /// The node that this is the only worker of, as it stands in leases.
    pub node: String,
    /// Name of this worker on the node.
    pub worker: String,
    pub rules: Arc<[Rule]>,
    pub collectors: Vec<&'static Collector>,
    pub needs: Arc<Needs>,
    /// True once for each change that somebody made to the fleet beside us.
    pub nudged: Arc<dyn Fn() -> bool + Send + Sync>,
    pub stop: Arc<AtomicBool>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("node", &self.node)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// A job at work.
#[derive(Debug)]
struct Running {
    claimed: Claimed,
    cancel: Cancel,
}

/// A claim with what its scan needs.
struct Job {
    claimed: Claimed,
    way: Arc<dyn Way>,
    rules: Arc<[Rule]>,
}

impl Job {
    fn new(
        claimed: Claimed,
        opened: &dyn Opened,
        rules: &Arc<[Rule]>,
        access: &Arc<dyn Access>,
    ) -> Self {
        let found = opened.host(&claimed.host).and_then(|host| {
            let tuned = opened.rules(rules, &host)?;
            Ok((opened.way(&host, access), tuned))
        });
        let (way, rules) = found.unwrap_or_else(|failure| {
            let way: Arc<dyn Way> = Arc::new(NoWay(failure));
            (way, Arc::clone(rules))
        });
        Self {
            claimed,
            way,
            rules,
        }
    }
}

/// What a tick brought.
struct Ticked {
    policy: Arc<Policy>,
    dispatched: Dispatched,
    reaped: Reaped,
}

/// What the threads of jobs say to the one that owns them.
type Ended = Uuid;

impl Fleet {
    /// Runs until it is stopped. What runs then is cancelled and its job given back.
    pub fn run(&self) {
        let (ended, has_ended) = mpsc::channel::<Ended>();
        let mut running: BTreeMap<Uuid, Running> = BTreeMap::new();
        let mut agenda = Agenda::new(self.clock.monotonic());
        let mut held: Option<Arc<Policy>> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let now = self.clock.monotonic();
            if agenda.looks(now, NUDGE) && (self.nudged)() {
                agenda.tick_now();
            }
            if agenda.ticks(now)
                && let Some(in_force) = self.tick(&mut agenda, held.is_none())
            {
                held = Some(in_force);
            }
            // Not before the first tick went well: until then no policy is in force, and the jobs of a
            // dead worker are brought back, which ours must not be among.
            if let Some(policy) = &held {
                self.renew(&mut agenda, &running, policy);
                let room = room(policy, running.len());
                if room > 0 && agenda.claims(now) {
                    self.start(&mut agenda, &mut running, policy, room, &ended);
                }
            }
            // Woken by the end of a job too: there may be another one for its place.
            if let Ok(job) = has_ended.recv_timeout(POLL) {
                running.remove(&job);
                while let Ok(job) = has_ended.try_recv() {
                    running.remove(&job);
                }
            }
        }
        // Their scans see the stop flag by themselves.
        drop(ended);
        while !running.is_empty() {
            match has_ended.recv() {
                Ok(job) => drop(running.remove(&job)),
                Err(_) => break,
            }
        }
    }

    /// Reaps and dispatches. Gives the policy in force; `None` when nothing could be done. The first
    /// tick takes back what an earlier worker of this node was killed with.
    fn tick(&self, agenda: &mut Agenda, is_first: bool) -> Option<Arc<Policy>> {
        let (now, node) = (self.clock.now(), self.node.clone());
        let ticked = self.ask(move |opened| {
            let policy = opened.policy()?;
            let mut reaped = Reaped::default();
            if is_first {
                reaped = opened
                    .backend()
                    .release(&node, now, &policy)
                    .map_err(words)?;
            }
            let ended = opened.backend().reap(now, &policy).map_err(words)?;
            reaped.requeued.extend(ended.requeued);
            reaped.given_up.extend(ended.given_up);
            let dispatched = opened.backend().dispatch(now, &policy).map_err(words)?;
            Ok(Ticked {
                policy,
                dispatched,
                reaped,
            })
        });
        match ticked {
            Ok(ticked) => {
                agenda.ticked(self.clock.monotonic(), ticked.policy.tick);
                self.watcher.ticked(&ticked.dispatched, &ticked.reaped);
                Some(ticked.policy)
            }
            Err(text) => {
                agenda.retry_tick(self.clock.monotonic(), AGAIN);
                self.watcher.trouble(&text);
                None
            }
        }
    }

    /// Claims what there is room for, and gives each job a thread.
    fn start(
        &self,
        agenda: &mut Agenda,
        running: &mut BTreeMap<Uuid, Running>,
        policy: &Arc<Policy>,
        room: usize,
        ended: &mpsc::Sender<Ended>,
    ) {
        let (now, worker) = (self.clock.now(), format!("{}/{}", self.node, self.worker));
        let (in_force, access) = (Arc::clone(policy), Arc::clone(&self.access));
        let rules = Arc::clone(&self.rules);
        let jobs = self.ask(move |opened| {
            let claimed = opened
                .backend()
                .claim(&worker, room, now, &in_force)
                .map_err(words)?;
            let jobs = claimed
                .into_iter()
                .map(|claimed| Job::new(claimed, opened, &rules, &access));
            Ok(jobs.collect::<Vec<_>>())
        });
        let jobs = match jobs {
            Ok(jobs) => jobs,
            Err(text) => {
                agenda.retry_claim(self.clock.monotonic(), AGAIN);
                self.watcher.trouble(&text);
                return;
            }
        };
        agenda.claimed(jobs.len(), room);
        for job in jobs {
            let id = job.claimed.job;
            let cancel = Cancel::with(Arc::clone(&self.stop));
            let entry = Running {
                claimed: job.claimed.clone(),
                cancel: cancel.clone(),
            };
            let (fleet, policy, ended) = (self.clone(), Arc::clone(policy), ended.clone());
            let begun = thread::Builder::new()
                .name("job".to_owned())
                .spawn(move || {
                    fleet.work(&job, &policy, cancel);
                    // The owner is gone only after every job has ended.
                    ended.send(id).ok();
                });
            match begun {
                Ok(_) => drop(running.insert(id, entry)),
                // The lease ends by itself, and the job is another attempt's.
                Err(error) => self
                    .watcher
                    .trouble(&format!("start a thread for a scan: {error}")),
            }
        }
    }

    /// One job: scanned, judged, recorded.
    fn work(&self, job: &Job, policy: &Arc<Policy>, cancel: Cancel) {
        let outcome = self.executor.run(&Order {
            scan: job.claimed.scan,
            host: job.claimed.host.clone(),
            way: Arc::clone(&job.way),
            policy_version: job.claimed.policy_version.clone(),
            limits: executor::limits(policy),
            rules: Arc::clone(&job.rules),
            collectors: self.collectors.clone(),
            needs: Arc::clone(&self.needs),
            progress: self.watcher.progress(&job.claimed.host),
            cancel,
            on_facts: None,
        });
        match outcome {
            Ok(executed) => self.record(&job.claimed, policy, &Arc::new(executed)),
            Err(failure) if failure.reason == Reason::Cancelled => self.give_back(&job.claimed),
            Err(failure) => self.fail(&job.claimed, policy, &failure),
        }
    }

    fn record(&self, claimed: &Claimed, policy: &Arc<Policy>, executed: &Arc<Executed>) {
        let once = Arc::new(Once {
            sink: Arc::clone(&self.ledger_sink),
            is_told: AtomicBool::new(false),
        });
        let recorded = self.insist(|| {
            let (claimed, executed) = (claimed.clone(), Arc::clone(executed));
            let (policy, sink) = (Arc::clone(policy), Arc::clone(&once));
            let now = self.clock.now();
            Box::new(move |backend| {
                backend.complete(&claimed, &executed.scan, now, &policy, sink.as_ref())
            })
        });
        match recorded {
            Some(Ok(applied)) => self.watcher.recorded(executed, &applied),
            Some(Err(error)) if error.kind() == Kind::LeaseLost => {}
            Some(Err(error)) => {
                let text = format!("the scan cannot be recorded: {error}");
                self.fail(claimed, policy, &Failure::new(Reason::Internal, text));
            }
            None => {}
        }
    }

    fn fail(&self, claimed: &Claimed, policy: &Arc<Policy>, failure: &Failure) {
        let recorded = self.insist(|| {
            let (claimed, failure) = (claimed.clone(), failure.clone());
            let (policy, now) = (Arc::clone(policy), self.clock.now());
            Box::new(move |backend| backend.fail(&claimed, &failure, now, &policy))
        });
        match recorded {
            Some(Ok(())) => self.watcher.failed(&claimed.host, failure),
            Some(Err(error)) if error.kind() != Kind::LeaseLost => self
                .watcher
                .trouble(&format!("{}: record a failure: {error}", claimed.host)),
            _ => {}
        }
    }

    fn give_back(&self, claimed: &Claimed) {
        self.insist(|| {
            let (claimed, now) = (claimed.clone(), self.clock.now());
            Box::new(move |backend| backend.give_back(&claimed, now))
        });
    }

    /// Does `change` as soon as the store can be had and takes it. `None` when that was not before the
    /// end of a stop: the lease ends, and another worker scans anew.
    fn insist<T: Send + 'static>(
        &self,
        change: impl Fn() -> Change<T>,
    ) -> Option<Result<T, Error>> {
        let mut stopping = None;
        loop {
            let change = change();
            let text = match self.ask(move |opened| Ok(change(opened.backend()))) {
                Ok(Err(error)) if matches!(error.kind(), Kind::Storage | Kind::Conflict) => {
                    error.to_string()
                }
                Ok(settled) => return Some(settled),
                Err(text) => text,
            };
            let now = self.clock.monotonic();
            if self.stop.load(Ordering::Relaxed) && now >= *stopping.get_or_insert(now) + LAST_TRIES
            {
                return None;
            }
            self.watcher.trouble(&text);
            self.clock.sleep(AGAIN);
        }
    }

    /// Renews the leases whose end is near; a job whose lease is lost is cancelled.
    fn renew(&self, agenda: &mut Agenda, running: &BTreeMap<Uuid, Running>, policy: &Arc<Policy>) {
        let now = self.clock.monotonic();
        if running.is_empty() || !agenda.renews(now, policy.lease / 3) {
            return;
        }
        let claims: Vec<Claimed> = running
            .values()
            .map(|running| running.claimed.clone())
            .collect();
        let (wall, policy) = (self.clock.now(), Arc::clone(policy));
        let lost = self.ask(move |opened| {
            let lost = claims.into_iter().filter(|claimed| {
                let renewed = opened.backend().renew(claimed, wall, &policy);
                renewed.is_err_and(|error| error.kind() == Kind::LeaseLost)
            });
            Ok(lost.map(|claimed| claimed.job).collect::<Vec<_>>())
        });
        match lost {
            Ok(lost) => lost
                .iter()
                .filter_map(|job| running.get(job))
                .for_each(|running| running.cancel.set()),
            Err(text) => {
                agenda.retry_renewal(now, AGAIN);
                self.watcher.trouble(&text);
            }
        }
    }

    /// Waits for `work` to be done with the store open.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Opened) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        ask(self.access.as_ref(), work)
    }
}

/// A change that the backend is asked for, made anew for each attempt.
type Change<T> = Box<dyn FnOnce(&dyn Backend) -> Result<T, Error> + Send>;

/// Waits for `work` to be done with the store open.
///
/// # Errors
/// It could not be opened, or `work` says so.
pub fn ask<T: Send + 'static>(
    access: &dyn Access,
    work: impl FnOnce(&dyn Opened) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    access.submit(Box::new(move |opened| {
        // Whoever asked waits below.
        sender.send(opened.and_then(work)).ok();
    }));
    receiver
        .recv()
        .unwrap_or_else(|_| Err("the data directory is not served any more".to_owned()))
}

fn words(error: Error) -> String {
    error.to_string()
}

fn room(policy: &Policy, running: usize) -> usize {
    usize::try_from(policy.concurrency)
        .unwrap_or(usize::MAX)
        .min(CONCURRENCY_MAX)
        .saturating_sub(running)
}

/// Tells of the first failure of an apply that is tried until it goes through (LED-6).
struct Once {
    sink: Arc<dyn ledger::Sink + Send + Sync>,
    is_told: AtomicBool,
}

impl ledger::Sink for Once {
    fn failed(&self, scan: &ledger::Scan, error: &ledger::Error) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            self.sink.failed(scan, error);
        }
    }
}
