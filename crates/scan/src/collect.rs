//! Collecting facts: the registry of collectors and the run of all of them.
//!
//! A collector reads and runs a declared few things through a [`Context`], bounded in bytes and
//! time, and returns one JSON value. It changes nothing on the host. What it cannot look at becomes
//! `$unknown`; a collector that breaks, panics or does not come back costs its own fact only.

mod apparmor;
mod audit;
mod catalog;
mod certificates;
mod cmdline;
mod context;
mod coredump;
mod cron;
mod crypto_policy;
mod dnf;
mod drop_in;
mod environment;
mod files;
mod firewall;
#[cfg(test)]
pub(crate) mod fixture;
mod globs;
mod grub;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hosts;
mod journald;
mod login_defs;
mod logrotate;
mod modules;
mod mounts;
mod os;
mod packages;
mod pam;
mod refusal;
mod rows;
mod rsyslog;
mod security_conf;
mod selinux;
mod services;
mod shadow;
mod shell_settings;
mod sockets;
mod sshd;
mod sudoers;
mod sysctl;
mod systemd_conf;
#[cfg(test)]
mod tests;
mod time_sync;
mod ubuntu_pro;
mod updates;
mod users;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, panic,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use serde_json::{Map, Value};
use world::Clock;

pub use catalog::{FactPattern, Shape, catalog};
use context::Allowed;
pub use context::{Context, Names};

use crate::{
    facts::{Facts, Host, Reason, Unknown},
    target::{OUTPUT_BYTES_MAX, Target},
};

/// All collectors, in the order in which they run. The walk is last: everything else is known
/// while it takes its time.
const ALL: &[&Collector] = &[
    &os::COLLECTOR,
    &cmdline::COLLECTOR,
    &packages::COLLECTOR,
    &services::COLLECTOR,
    &sysctl::COLLECTOR,
    &modules::COLLECTOR,
    &mounts::COLLECTOR,
    &users::COLLECTOR,
    &shadow::COLLECTOR,
    &pam::COLLECTOR,
    &login_defs::COLLECTOR,
    &security_conf::COLLECTOR,
    &coredump::COLLECTOR,
    &environment::COLLECTOR,
    &sshd::COLLECTOR,
    &sudoers::COLLECTOR,
    &sockets::COLLECTOR,
    &time_sync::COLLECTOR,
    &updates::COLLECTOR,
    &dnf::COLLECTOR,
    &ubuntu_pro::COLLECTOR,
    &crypto_policy::COLLECTOR,
    &certificates::COLLECTOR,
    &firewall::COLLECTOR,
    &grub::COLLECTOR,
    &journald::COLLECTOR,
    &selinux::COLLECTOR,
    &cron::COLLECTOR,
    &audit::COLLECTOR,
    &logrotate::COLLECTOR,
    &rsyslog::COLLECTOR,
    &apparmor::COLLECTOR,
    &files::FILES,
    &globs::COLLECTOR,
    &files::TEXT,
    &files::HASHES,
    &walk::COLLECTOR,
];

/// Time for one collector. Generous: on a quiet machine all of them but the walk take under a
/// second.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Time for all collectors of a host. One that would begin later is unknown (`timeout`).
pub const SCAN_DEADLINE: Duration = Duration::from_secs(600);

/// How much all collectors of a host may take, and each of them at most: what a collector allows
/// itself is never raised by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For all of them together.
    pub deadline: Duration,
    pub collector_deadline: Duration,
    pub collector_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: SCAN_DEADLINE,
            collector_deadline: Duration::MAX,
            collector_bytes_max: usize::MAX,
        }
    }
}

/// What a collector gets beyond its deadline to notice that it is over, before it is abandoned.
const GRACE: Duration = Duration::from_secs(2);

/// What one collector needs of the user who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    None,
    /// Root for the named part; the rest is collected without.
    Partly(&'static str),
    Root,
}

/// One collector: what it is called, what it touches, and how it works.
pub struct Collector {
    /// First segment of every selector in its fact.
    pub name: &'static str,
    pub about: &'static str,
    /// Every path it reads, with `*` where it lists.
    pub reads: &'static [&'static str],
    /// Every command line it runs.
    pub runs: &'static [&'static str],
    pub privilege: Privilege,
    pub deadline: Duration,
    /// Bytes it may take from files and programs altogether.
    pub input_bytes_max: usize,
    /// Systems it can say something of, as rules name them in `platforms`; empty for all. On others
    /// its fact is unknown or about nothing, and lint refuses a rule that asks.
    pub families: &'static [&'static str],
    pub patterns: &'static [FactPattern],
    pub collect: fn(&Context<'_>) -> Result<Value, Unknown>,
}

impl Collector {
    /// What most collectors leave as it is.
    pub(crate) const DEFAULT: Self = Self {
        name: "",
        about: "",
        reads: &[],
        runs: &[],
        privilege: Privilege::None,
        deadline: DEADLINE,
        input_bytes_max: OUTPUT_BYTES_MAX,
        families: &[],
        patterns: &[],
        collect: |_| Err(Unknown::new(Reason::Unsupported, "collector")),
    };
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Every collector, for `scan --show-collectors` and for the tests of the contract.
pub fn list() -> &'static [&'static Collector] {
    ALL
}

/// The paths that somebody asks about: the open facts hold these and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub files: BTreeSet<String>,
    pub globs: BTreeSet<String>,
    pub text: BTreeSet<String>,
    pub hashes: BTreeSet<String>,
}

/// Who watches a collection. All of it is optional.
pub trait Progress: Send + Sync {
    fn started(&self, _collector: &'static str) {}

    /// `unknown` when the whole fact is.
    fn finished(&self, _collector: &'static str, _took: Duration, _unknown: Option<&Unknown>) {}

    /// Files seen by the walk so far, and how many the filesystems say there are. Called a few
    /// times a second, from the walk's own threads.
    fn walked(&self, _seen: u64, _expected: Option<u64>) {}

    /// True when the rest is not wanted any more. What is left becomes unknown (`timeout`).
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
impl Progress for () {}

/// What all collectors of one run share. Counted, because a collector that does not come back is
/// left behind with it.
struct Run {
    target: Arc<dyn Target>,
    needs: Arc<Needs>,
    progress: Arc<dyn Progress>,
    clock: Arc<dyn Clock>,
    names: context::LazyNames,
}

/// Runs every collector against `target`, one after the other.
pub fn collect(
    target: Arc<dyn Target>,
    needs: Arc<Needs>,
    progress: Arc<dyn Progress>,
    clock: Arc<dyn Clock>,
) -> Facts {
    collect_only(ALL, target, needs, progress, clock)
}

/// Runs the given collectors. The others are missing from the bundle, which judges as unknown.
pub fn collect_only(
    collectors: &[&'static Collector],
    target: Arc<dyn Target>,
    needs: Arc<Needs>,
    progress: Arc<dyn Progress>,
    clock: Arc<dyn Clock>,
) -> Facts {
    let limits = &Limits::default();
    collect_within(collectors, target, needs, progress, clock, limits)
}

/// As [`collect_only`], within limits of the caller's.
pub fn collect_within(
    collectors: &[&'static Collector],
    target: Arc<dyn Target>,
    needs: Arc<Needs>,
    progress: Arc<dyn Progress>,
    clock: Arc<dyn Clock>,
    limits: &Limits,
) -> Facts {
    let collected_at = now(clock.as_ref());
    let run = Arc::new(Run {
        target,
        needs,
        progress,
        clock,
        names: context::LazyNames::default(),
    });
    let end = run.clock.monotonic().saturating_add(limits.deadline);
    let mut facts = Map::new();
    let mut timings_ms = BTreeMap::new();
    for collector in collectors {
        run.progress.started(collector.name);
        let begin = run.clock.monotonic();
        let left = end.saturating_sub(begin);
        let allowed = Allowed {
            time: collector.deadline.min(limits.collector_deadline).min(left),
            bytes: collector.input_bytes_max.min(limits.collector_bytes_max),
        };
        let fact = run_one(&run, collector, allowed);
        let took = run.clock.monotonic().saturating_sub(begin);
        run.progress
            .finished(collector.name, took, fact.as_ref().err());
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        timings_ms.insert(collector.name.to_owned(), millis);
        facts.insert(
            collector.name.to_owned(),
            fact.unwrap_or_else(|unknown| unknown.to_value()),
        );
    }
    Facts {
        host: host(run.target.as_ref()),
        collected_at,
        collector: concat!("holdfast ", env!("CARGO_PKG_VERSION")).to_owned(),
        facts,
        timings_ms,
    }
}

/// On a thread of its own: a read from a dead network filesystem can be neither interrupted nor
/// waited for.
fn run_one(
    run: &Arc<Run>,
    collector: &'static Collector,
    allowed: Allowed,
) -> Result<Value, Unknown> {
    let late = |why| {
        Err(Unknown::new(
            Reason::Timeout,
            format!("{}: {why}", collector.name),
        ))
    };
    if allowed.time.is_zero() {
        return late("the scan's deadline had passed");
    }
    if run.progress.cancelled() {
        return late("the scan was cancelled");
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let shared = Arc::clone(run);
    let begun = thread::Builder::new()
        .name(format!("collect-{}", collector.name))
        .spawn(move || {
            let fact = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                let context = Context::new(
                    shared.target.as_ref(),
                    &shared.needs,
                    shared.progress.as_ref(),
                    shared.clock.as_ref(),
                    &shared.names,
                    collector,
                    allowed,
                );
                (collector.collect)(&context)
            }));
            // Nobody listens any more when this took too long.
            sender.send(fact).ok();
        });
    if let Err(error) = begun {
        let detail = format!("{}: start a thread: {error}", collector.name);
        return Err(Unknown::new(Reason::Unreadable, detail));
    }
    match receiver.recv_timeout(allowed.time + GRACE) {
        Ok(Ok(fact)) => fact,
        Ok(Err(panic)) => {
            let detail = format!("{}: broke: {}", collector.name, panic_text(&*panic));
            Err(Unknown::new(Reason::Unsupported, detail))
        }
        Err(_) => late("did not come back before its deadline"),
    }
}

/// A part of a fact as it stands in the bundle.
pub(crate) fn part(part: Result<Value, Unknown>) -> Value {
    part.unwrap_or_else(|unknown| unknown.to_value())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn now(clock: &dyn Clock) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(clock.now().nanos()))
        .expect("nanoseconds in 64 bits end in the year 2554, the calendar in 9999")
}

fn host(target: &dyn Target) -> Host {
    let line = |path| {
        let content = target.read(path, HOST_BYTES_MAX).known().ok().flatten()?;
        let text = String::from_utf8_lossy(&content).trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    Host {
        hostname: line("/proc/sys/kernel/hostname")
            .or_else(|| line("/etc/hostname"))
            .unwrap_or_default(),
        machine_id: line("/etc/machine-id"),
    }
}

/// A host name has at most 64 bytes on Linux, a machine id 32.
const HOST_BYTES_MAX: usize = 4 << 10;
