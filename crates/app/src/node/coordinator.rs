//! A coordinator: who may hold the authority is who has its lease, and whoever gets one that ended takes
//! over by itself.
//!
//! The rules of a promotion hold all the same, so nothing acknowledged rests on the coordinator alone: a
//! lease is one thing more that an acknowledgement needs ([`Group::leased`]), and the leave to ask for a
//! promotion without an operator. It is measured on this machine's monotonic clock from before the request
//! that it was granted by. That clock stands still while a machine sleeps: what was decided before is kept
//! from being acknowledged by the promises of the others, not by the lease.

mod address;
mod etcd;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use replica::{
    group::Group,
    machine::{NodeId, Order, Outcome, Role, Status, Time},
};
use wal::Epoch;
use world::{Clock, Random, RealClock, RealRandom};

use super::Settings;
use crate::{config::Config, exit::Refusal, screen::Screen};

pub(crate) use address::Address;
use etcd::Etcd;

/// Looks within the life of a lease: who waits for its end learns of it that soon after.
const LOOKS_A_LIFE: u32 = 20;
/// Renewals within the life of a lease. One that fails leaves time for two more before the margin.
const RENEWALS_A_LIFE: u32 = 4;
/// Who heard of a node that writes within this time leaves the lease to that one: some heartbeats.
const ALIVE: Duration = Duration::from_secs(1);
const REFUSED_NEXT: &str = ". See that the user in its address may read and write below its prefix, and that no other program uses those keys";
/// A coordinator may grant more than was asked for, up to so many times that.
const LIVES_MAX: u32 = 10;
/// How long a holder gets to stop writing before its lease is given up: a step of the machine.
const YIELD_MAX: Duration = Duration::from_secs(1);
/// A holder that goes on with a lease does within a write of its record; then it asks to be promoted.
const RESUME_MAX: Duration = Duration::from_secs(1);

/// What keeps a lease outside of the nodes, and what it must do. A call may take longer than [`Self::life`] where
/// much is silent: the machine ends a lease by itself.
pub(crate) trait Coordinator: Send {
    /// Of the leases that it grants.
    fn life(&self) -> Duration;
    fn look(&mut self) -> Result<Seen, Fault>;
    /// Makes this node the one that has the lease. `None`: another one has it.
    fn take(&mut self) -> Result<Option<Term>, Fault>;
    /// The life it has, counted from before this was asked. `None`: it has ended.
    fn renew(&mut self, term: &Term) -> Result<Option<Duration>, Fault>;
    /// Puts on record that `epoch` is this node's. False: a higher one is there, or the lease is gone.
    fn record(&mut self, term: &Term, epoch: Epoch) -> Result<bool, Fault>;
    fn release(&mut self, term: &Term) -> Result<(), Fault>;
}

/// A lease that this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    lease: u64,
    /// Rises from term to term, whoever has them.
    revision: u64,
    life: Duration,
}

/// Who has the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    node: NodeId,
    revision: u64,
}

/// The highest epoch that was held under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    epoch: Epoch,
    node: NodeId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    holder: Option<Held>,
    known: Option<Known>,
}

impl Seen {
    /// Whose the lease is now is whose `term` it is.
    fn is_held_under(&self, term: &Term) -> bool {
        let held = self.holder.as_ref();
        held.is_some_and(|held| held.revision == term.revision)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Unreachable(String),
    /// It answered, and will not do it for this node.
    Refused(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::Refused(why) => write!(f, "it refuses: {why}"),
        }
    }
}

/// The coordinator that is configured, asked once: what is wrong with it is told before anything begins.
pub(crate) fn open(
    address: Option<&Address>,
    config: &Config,
    settings: &Settings,
) -> Result<Option<Etcd>, Refusal> {
    let Some(address) = address.or(config.node.coordinator.value.as_ref()) else {
        return Ok(None);
    };
    let (password, ca) = (config.node.password()?, config.node.authority()?);
    let is_named = address.user.is_some();
    if is_named != password.is_some() {
        let (has, lacks) = match is_named {
            true => ("a user", "a password"),
            false => ("a password", "a user"),
        };
        return Err(
            Refusal::new(format!("the coordinator {address} has {has} and not {lacks}")).next(
                "name the user in the address, as ?user=NAME, and a file with the password in node.coordinator_password_file",
            ),
        );
    }
    let (cluster, me) = (settings.cluster, settings.node);
    let bytes = ca.as_deref();
    let mut etcd = Etcd::new(address.clone(), password, bytes, cluster, me)
        .map_err(|why| Refusal::new(why).next("name a PEM file in node.coordinator_ca_file"))?;
    match etcd.look() {
        Ok(_) => {
            etcd.hurry();
            Ok(Some(etcd))
        }
        Err(fault) => {
            let next = match &fault {
                Fault::Unreachable(_) => {
                    "see that it runs and that this machine reaches it, then start again; without --coordinator an operator promotes"
                }
                Fault::Refused(_) => {
                    "see that the user in the address may read and write below its prefix, and that node.coordinator_password_file has its password"
                }
            };
            Err(Refusal::new(format!("the coordinator {address}: {fault}")).next(next))
        }
    }
}

/// How this node stands with its coordinator, for whoever asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leasing {
    pub(crate) holder: Option<NodeId>,
    pub(crate) is_own: bool,
    pub(crate) revision: Option<u64>,
    pub(crate) fault: Option<String>,
}

/// The thread that keeps the lease, or waits for it.
#[derive(Debug)]
pub(crate) struct Contender {
    stop: Arc<AtomicBool>,
    leasing: Arc<Mutex<Leasing>>,
    thread: Option<JoinHandle<()>>,
}

impl Contender {
    pub(crate) fn start(
        coordinator: impl Coordinator + 'static,
        group: &Arc<Group>,
        me: NodeId,
        screen: Screen,
    ) -> Result<Self, Refusal> {
        let (stop, leasing) = (Arc::<AtomicBool>::default(), Arc::default());
        let mut contest = Contest {
            quiet_until: None,
            coordinator,
            group: Arc::clone(group),
            me,
            screen,
            leasing: Arc::clone(&leasing),
            fault: None,
            holding: None,
        };
        let stopped = Arc::clone(&stop);
        // Without it nothing is acknowledged any more, and nobody would see why: its end ends the process.
        let thread = world::spawn_spine("node-lease", move || contest.run(&stopped))
            .map_err(|error| Refusal::new("the lease gets no thread").source(error))?;
        Ok(Self {
            stop,
            leasing,
            thread: Some(thread),
        })
    }

    pub(crate) fn leasing(&self) -> Arc<Mutex<Leasing>> {
        Arc::clone(&self.leasing)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the lease had panicked");
        }
    }
}

/// A term of this node, and what it is for.
struct Holding {
    term: Term,
    until: Duration,
    renew_at: Duration,
    /// Since when it is the holder on record and does not write.
    resuming: Option<Duration>,
    /// What the coordinator has on record of it.
    recorded: Option<Epoch>,
    /// This node has written under it.
    has_led: bool,
    promotion: Option<JoinHandle<Result<(), String>>>,
}

struct Contest<C> {
    coordinator: C,
    group: Arc<Group>,
    me: NodeId,
    screen: Screen,
    leasing: Arc<Mutex<Leasing>>,
    fault: Option<String>,
    holding: Option<Holding>,
    /// Until then this node does not ask for a lease, unless it writes already.
    quiet_until: Option<Duration>,
}

impl<C: Coordinator> Contest<C> {
    fn run(&mut self, stop: &AtomicBool) {
        let clock = RealClock::new();
        let poll = self.coordinator.life() / LOOKS_A_LIFE;
        while !stop.load(Ordering::Relaxed) {
            if let Some(status) = self.group.status() {
                let done = match self.holding.take() {
                    None => self.contend(&status),
                    Some(holding) => self.hold(holding, &status),
                };
                self.tell(done.err());
            }
            clock.sleep(poll);
        }
        if let Some(holding) = self.holding.take() {
            self.give_up(holding, Duration::ZERO);
        }
    }

    /// A fault that begins or ends is told once.
    fn tell(&mut self, fault: Option<Fault>) {
        let is_refused = matches!(fault, Some(Fault::Refused(_)));
        let fault = fault.map(|fault| fault.to_string());
        match (&self.fault, &fault) {
            (None, Some(fault)) => {
                tracing::warn!(%fault, "the coordinator");
                self.screen.remark(format_args!(
                    "the coordinator: {fault}; who writes goes on until its lease ends, and again when the coordinator is back{}",
                    if is_refused { REFUSED_NEXT } else { "" }
                ));
            }
            (Some(_), None) => self.screen.remark("the coordinator is back"),
            _ => {}
        }
        self.fault = fault;
        let holding = self.holding.as_ref();
        let mut leasing = self
            .leasing
            .lock()
            .expect("never poisoned: holds no code that panics");
        leasing.fault.clone_from(&self.fault);
        leasing.is_own = holding.is_some();
        if let Some(holding) = holding {
            leasing.holder = Some(self.me);
            leasing.revision = Some(holding.term.revision);
        }
    }

    fn see(&self, seen: &Seen) {
        let mut leasing = self
            .leasing
            .lock()
            .expect("never poisoned: holds no code that panics");
        leasing.holder = seen.holder.as_ref().map(|held| held.node);
        leasing.revision = seen.holder.as_ref().map(|held| held.revision);
    }

    /// Another one has the lease, or nobody.
    fn contend(&mut self, status: &Status) -> Result<(), Fault> {
        let seen = self.coordinator.look()?;
        self.see(&seen);
        let now = self.group.now().0;
        let is_primary = matches!(self.group.role(), Role::Primary { .. });
        let life = self.coordinator.life();
        // Who starts lets the one go first that wrote before.
        let begun = if self.is_holder(status) {
            now
        } else {
            now + life
        };
        let is_quiet = now < *self.quiet_until.get_or_insert(begun);
        let may = is_primary || (!is_quiet && self.is_able(status, &seen));
        if seen.holder.is_some() || !may {
            return Ok(());
        }
        let Some(term) = self.coordinator.take()? else {
            return Ok(());
        };
        tracing::info!(
            revision = term.revision,
            "a lease of the coordinator is this node's"
        );
        let life = term.life.min(life * LIVES_MAX);
        self.holding = Some(Holding {
            renew_at: now + life / RENEWALS_A_LIFE,
            term,
            until: now + life,
            resuming: None,
            recorded: None,
            has_led: is_primary,
            promotion: None,
        });
        Ok(())
    }

    /// On record, and with nothing promised to another one since.
    fn is_holder(&self, status: &Status) -> bool {
        let (granted, promised) = (status.record.granted, status.record.promised);
        granted.2 == self.me && granted == promised
    }

    /// With a lease it goes on under what it holds.
    fn may_resume(&self, status: &Status, seen: &Seen) -> bool {
        let granted = status.record.granted;
        let is_highest = |known: Known| known.node == self.me || known.epoch < granted.0;
        self.is_holder(status) && seen.known.is_none_or(is_highest)
    }

    /// Whether this node could go on or be promoted, and has reason to.
    fn is_able(&self, status: &Status, seen: &Seen) -> bool {
        let is_member = status.record.config.members.contains(&self.me);
        // One that was never told of an authority does not know who belongs to the group.
        let is_told = status.record.granted.0 > Epoch(0);
        let hears = status
            .fed_by
            .is_some_and(|(_, _, silent)| silent < ALIVE.min(self.coordinator.life() / 2));
        // Without the site's keys it would write what it cannot open, and without its store nothing: then it is
        // refused as one to be promoted.
        let is_fit = self.may_resume(status, seen) || self.group.is_fit();
        is_fit
            && is_member
            && is_told
            && !hears
            && !status.is_amnesiac
            && status.log_failed.is_none()
    }

    fn hold(&mut self, mut holding: Holding, status: &Status) -> Result<(), Fault> {
        let now = self.group.now().0;
        if now >= holding.renew_at {
            let renewed = self.coordinator.renew(&holding.term);
            // The lease lives on when its key was taken away: others see nobody then, and take it.
            let renewed = renewed.map(|life| {
                // What cannot be looked at is looked at with the next renewal.
                let Ok(seen) = self.coordinator.look() else {
                    return life;
                };
                self.see(&seen);
                life.filter(|_| seen.is_held_under(&holding.term))
            });
            match renewed {
                Ok(Some(life)) => {
                    // From before it was asked, whenever it was answered.
                    let life = life.min(self.coordinator.life() * LIVES_MAX);
                    holding.until = holding.until.max(now + life);
                    holding.renew_at = now + life / RENEWALS_A_LIFE;
                }
                Ok(None) => {
                    tracing::warn!("the coordinator's lease of this node has ended");
                    self.group.lease_lost();
                    return Ok(());
                }
                Err(fault) => {
                    // The machine ends by itself when the lease does; the key may outlive that.
                    self.holding = Some(holding);
                    return Err(fault);
                }
            }
        }
        let goes_on = match self.group.role() {
            Role::Primary { epoch } => {
                holding.has_led = true;
                holding.resuming = None;
                self.lead(&mut holding, epoch)
            }
            Role::Replica { .. } => self.seek(&mut holding, status),
        };
        match goes_on {
            Ok(None) => {
                self.holding = Some(holding);
                Ok(())
            }
            Ok(Some(quiet)) => {
                self.give_up(holding, quiet);
                Ok(())
            }
            Err(fault) => {
                self.holding = Some(holding);
                Err(fault)
            }
        }
    }

    /// The epoch is on record before anything is acknowledged under it. `Some`: to be given up, and for how
    /// long.
    fn lead(&mut self, holding: &mut Holding, epoch: Epoch) -> Result<Option<Duration>, Fault> {
        if holding.recorded != Some(epoch) {
            if !self.coordinator.record(&holding.term, epoch)? {
                let life = self.coordinator.life();
                tracing::warn!(epoch = epoch.0, "the coordinator knows of a higher epoch");
                return Ok(Some(life));
            }
            holding.recorded = Some(epoch);
        }
        self.lease(epoch, holding.until);
        Ok(None)
    }

    /// Has the lease, and does not write: goes on as the holder that it is, or is promoted.
    fn seek(&mut self, holding: &mut Holding, status: &Status) -> Result<Option<Duration>, Fault> {
        let life = self.coordinator.life();
        if let Some(promotion) = holding.promotion.take_if(|thread| thread.is_finished()) {
            let ended = promotion
                .join()
                .unwrap_or_else(|_| Err("it panicked".to_owned()));
            if let Err(why) = ended {
                self.screen
                    .remark(format_args!("this node was not promoted: {why}"));
                return Ok(Some(life + self.jitter(life)));
            }
            return Ok(None);
        }
        if holding.promotion.is_some() {
            return Ok(None);
        }
        let granted = status.record.granted;
        let seen = self.coordinator.look()?;
        let known = seen.known.map_or(Epoch(0), |known| known.epoch);
        let now = self.group.now().0;
        if self.may_resume(status, &seen) {
            let since = *holding.resuming.get_or_insert(now);
            if now.saturating_sub(since) < RESUME_MAX {
                // The machine goes on under the next number: the lease is for all starts of one promotion.
                self.lease(granted.0, holding.until);
                return Ok(None);
            }
        } else if holding.has_led {
            // Another one was promoted: handed over to, or by an operator. Also when that was not on record
            // yet a moment ago, so this term is for no promotion any more.
            return Ok(Some(ALIVE));
        }
        let lease = format!(
            "it has the coordinator's lease of revision {}; the one before has ended, of {}",
            holding.term.revision,
            seen.known.map_or_else(
                || "nobody".to_owned(),
                |known| format!("node {:032x} in epoch {}", known.node.0, known.epoch.0)
            ),
        );
        holding.promotion = self.promote(known, lease);
        Ok(None)
    }

    fn promote(&self, above: Epoch, lease: String) -> Option<JoinHandle<Result<(), String>>> {
        let (group, node) = (Arc::clone(&self.group), self.me);
        let order = Order::Succeed { node, above, lease };
        let ask = move || match group.order(order) {
            Ok(Outcome::Done) => Ok(()),
            Ok(Outcome::Refused(refusal) | Outcome::Unknown(refusal)) => Err(refusal.to_string()),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        };
        // Beside this thread, which renews the lease meanwhile. Without a thread it is tried again.
        thread::Builder::new()
            .name("node-promotion".to_owned())
            .spawn(ask)
            .ok()
    }

    fn lease(&self, epoch: Epoch, until: Duration) {
        if let Err(error) = self.group.leased(epoch, Time(until)) {
            tracing::error!(%error, "a lease is of no use");
        }
    }

    /// Stops writing first, and lets others have it then.
    fn give_up(&mut self, holding: Holding, quiet: Duration) {
        self.group.lease_lost();
        let clock = RealClock::new();
        while matches!(self.group.role(), Role::Primary { .. }) && clock.monotonic() < YIELD_MAX {
            clock.sleep(Duration::from_millis(5));
        }
        if let Err(fault) = self.coordinator.release(&holding.term) {
            tracing::info!(%fault, "the lease is not given up; it ends by itself");
        }
        self.quiet_until = Some(self.group.now().0 + quiet);
    }

    /// So that two that were refused at once do not ask at once again.
    fn jitter(&self, most: Duration) -> Duration {
        let mut bytes = [0; 2];
        match RealRandom.fill(&mut bytes) {
            Ok(()) => most * u32::from(u16::from_le_bytes(bytes)) / u32::from(u16::MAX),
            Err(_) => Duration::ZERO,
        }
    }
}
