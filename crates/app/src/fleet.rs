//! What the commands that scan hosts share: who may scan at a time, what is asked, what to do next.

use std::{path::Path, sync::Arc};

use scan::{
    backend::Maintenance,
    collect::{self, Collector},
    executor::{self, Cancel, Executor, Guard, Order, Sink, Way},
    failure::Reason,
    fleet::{OnStore, Opened},
    policy::Policy,
    schedule::Row,
};
use uuid::Uuid;
use world::{Disk, RealClock, RealDisk};

use crate::{
    cli::Scope,
    config::Config,
    exit::Refusal,
    gate::{Gate, HELD_THREADS},
    node::Settings,
    ruleset::Ruleset,
    screen::Screen,
    site::{self, Site},
};

pub(crate) mod events;

/// Lock files of the hosts that are being scanned.
const SCANNING_DIR: &str = "scanning";

/// The directory, opened for a slice, with everything of the fleet.
pub(crate) struct Open {
    on_store: OnStore,
    /// Closed in order when the slice ends.
    site: Option<Site>,
}

impl Open {
    pub(crate) fn new(config: &Config) -> Result<Self, Refusal> {
        let site = Site::open(config, Screen::silent())?;
        Ok(Self {
            on_store: on_store(&site)?,
            site: Some(site),
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(site) = self.site.take() {
            site.close(Screen::silent());
        }
    }
}

impl AsRef<dyn Opened> for Open {
    fn as_ref(&self) -> &(dyn Opened + 'static) {
        &self.on_store
    }
}

fn on_store(site: &Site) -> Result<OnStore, Refusal> {
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(RealClock::new()));
    let open = OnStore::new(site.store(), site.dir(), disk, clock).map_err(unusable)?;
    match Settings::load(site.dir())? {
        Some(_) => Ok(open.on_machine(crate::command::this_host())),
        None => Ok(open),
    }
}

/// For questions: nothing is made.
fn asking(site: &Site) -> Result<OnStore, Refusal> {
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(RealClock::new()));
    OnStore::without_queue(site.store(), site.dir(), disk, clock).map_err(unusable)
}

fn unusable(text: String) -> Refusal {
    Refusal::new(text).next("run `holdfast doctor` to check disk and data directory")
}

/// The directory in short slices, for as long as the gate is there.
pub(crate) fn gate(config: &Config) -> Result<Arc<Gate>, Refusal> {
    let config = config.clone();
    Gate::in_slices(move || Open::new(&config)).map(Arc::new)
}

/// The directory that this process has open for good.
pub(crate) fn held(site: &Site) -> Result<Arc<Gate>, Refusal> {
    let handles = (0..HELD_THREADS).map(|_| on_store(site));
    Gate::held(handles.collect::<Result<_, _>>()?).map(Arc::new)
}

pub(crate) fn schedule(site: &Site) -> Result<Vec<Row>, Refusal> {
    let rows = asking(site)?.backend().schedule();
    rows.map_err(site::schedule_refused)
}

pub(crate) fn maintenances(site: &Site) -> Result<Vec<Maintenance>, Refusal> {
    let set = asking(site)?.backend().maintenances();
    set.map_err(site::schedule_refused)
}

/// Scans one host at a time, those of other processes on the directory included.
pub(crate) fn executor(dir: &Path, sink: Arc<dyn Sink>) -> Result<Executor, Refusal> {
    let dir = dir.join(SCANNING_DIR);
    RealDisk
        .create_dir_all_synced(&dir)
        .map_err(|error| site::cannot_use(&dir, &error))?;
    let guard = Guard::across_processes(Arc::new(RealDisk), dir, site::holder());
    Ok(Executor::new(guard, sink, Arc::new(RealClock::new())))
}

/// The policy that a scan past the schedule goes by. Without one, or with one that may not be used, a
/// person may still look at a host: only the schedule is refused (SCH-11).
pub(crate) fn policy_of_manual_scan(site: &Site) -> Arc<Policy> {
    asking(site)
        .ok()
        .and_then(|open| open.policy().ok())
        .unwrap_or_default()
}

pub(crate) fn collectors(scope: &Scope, config: &Config) -> Vec<&'static Collector> {
    let walk = config.scan_walk.value && !scope.no_walk;
    collect::list()
        .iter()
        .copied()
        .filter(|collector| walk || collector.name != "walk")
        .collect()
}

/// A manual scan of a host.
pub(crate) fn order(
    host: String,
    way: Arc<dyn Way>,
    policy: &Policy,
    rules: &Ruleset,
    collectors: Vec<&'static Collector>,
    cancel: Cancel,
) -> Order {
    Order {
        scan: Uuid::new_v4(),
        host,
        way,
        policy_version: policy.version.to_string(),
        limits: executor::limits(policy),
        rules: rules.all().into(),
        collectors,
        needs: Arc::new(rules.needs()),
        progress: Arc::new(()),
        cancel,
        on_facts: None,
    }
}

/// What somebody can do about a host that was not scanned.
pub(crate) fn next_step(reason: Reason, host: &str) -> String {
    match reason {
        Reason::HostUnreachable => {
            format!("see that it is up and answers; `holdfast host check {host}` tries at once")
        }
        Reason::HostKeyUnknown => format!(
            "compare its fingerprint with the machine's own, then `holdfast host trust {host}`"
        ),
        Reason::HostKeyChanged => format!(
            "find out why before anything else; if it was installed anew, `holdfast host trust {host} --replace`"
        ),
        Reason::AuthFailed => {
            "see that its user and key are right: `holdfast credential list`".to_owned()
        }
        Reason::CredentialMissing => {
            "add one: `holdfast credential add default --user NAME --key FILE`".to_owned()
        }
        Reason::CredentialDecryptionFailed => {
            "put back keys/data.key of this data directory; or remove the credential and add it again"
                .to_owned()
        }
        Reason::HostBusy => "wait for that scan".to_owned(),
        Reason::Timeout => {
            format!("see that sshd answers there: `holdfast host check {host}`; a slow scan gets longer by the policy's scan_deadline")
        }
        Reason::EvidenceOversize => format!("find out what on {host} has grown so large"),
        Reason::Cancelled => "scan again; what was recorded before is as it was".to_owned(),
        Reason::Internal => "run `holdfast doctor`; HOLDFAST_LOG=debug tells more".to_owned(),
    }
}
