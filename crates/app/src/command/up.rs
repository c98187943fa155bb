//! `holdfast up`: scan this machine, show it, and keep watching every host until stopped.

mod show;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use scan::{
    fleet::{Access, Fleet},
    inventory::{Host, Reach},
    policy::{Active, Start},
};
use world::{Clock, Disk, RealClock, RealDisk, RealRandom};

use super::events::serve::Intake;
use crate::{
    cli::Up,
    config::Config,
    exit::{Exit, Refusal},
    fleet::{self, events::Told},
    moment,
    present::safe,
    ruleset::Ruleset,
    screen::Screen,
    site::{self, Site, fleet_refused},
};
use show::{First, Show};

/// Makes a second `up` on one directory an error. `scan` and `status` may run beside the first.
const UP_LOCK: &str = "up.lock";

/// Who the audit log names for what `up` does by itself.
const ACTOR: &str = "holdfast up";

pub(crate) fn run(up: &Up, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let stop = site::stop_flag()?;
    let rules = Ruleset::load(config, up.scope.rules_dir.as_deref())?;
    Site::open(config, screen)?.close(screen);
    let _running = hold(config)?;
    super::fix::tell_unfinished(config, screen)?;
    let first = begin(config, screen)?;
    let intake = Intake::beside(config, screen)?;
    let watched = watch(up, rules, first, config, screen, &stop, intake.as_ref());
    // Also when watching failed: what is in flight is finished either way.
    if let Some(intake) = intake {
        intake.stop(screen);
    }
    watched
}

/// What must be there before anything is scanned: keys, a policy that may be used, this machine in the
/// inventory. All of it is told.
fn begin(config: &Config, screen: Screen) -> Result<First, Refusal> {
    let site = Site::open(config, screen)?;
    let now = RealClock::new().now();
    let started = site
        .policies()?
        .start(&RealDisk, &site.keys_dir(), &RealRandom, now, ACTOR);
    let started = started.map_err(site::policy_refused)?;
    site.vault()?.data_key().map_err(fleet_refused)?;
    let this = super::this_host();
    if site::shared::is_used(config) {
        site::shared::check_local(&site, &this)?;
    } else {
        register(&site, &this)?;
    }
    tell_policy(&started, screen);
    tell_fleet(&site, &this, screen)?;
    let is_known = site
        .ledger()
        .status(&this, None)
        .map_err(Site::refused)?
        .is_some();
    site.close(screen);
    Ok(First {
        host: (!is_known).then_some(this),
    })
}

/// Puts this machine into the inventory and the schedule, unless it is there, or was and is retired.
fn register(site: &Site, this: &str) -> Result<(), Refusal> {
    let inventory = site.inventory()?;
    let all = inventory.list(None).map_err(fleet_refused)?;
    let is_there = |host: &Host| host.name == this || host.reach == Reach::Local;
    if all.iter().any(is_there) {
        return Ok(());
    }
    let now = RealClock::new().now();
    let host = Host::new(this, Reach::Local, now);
    inventory
        .transact(|transaction| inventory.add_in(transaction, &host, ACTOR))
        .map_err(fleet_refused)
}

fn tell_policy(started: &Start, screen: Screen) {
    let tell = |active: &Active, made: &str| {
        screen.remark(format_args!(
            "policy {}, signed by {} ({}){made}",
            active.loaded.version,
            safe(
                active
                    .document
                    .metadata
                    .signed_by
                    .as_deref()
                    .unwrap_or("nobody")
            ),
            active.loaded.key_id,
        ));
    };
    match started {
        Start::InForce(active) => tell(active, ""),
        Start::FirstStart(active) => tell(
            active,
            ": the built-in one, signed by a key made just now; `holdfast policy show` prints it",
        ),
    }
}

/// How many hosts there are, and which is looked at next.
fn tell_fleet(site: &Site, this: &str, screen: Screen) -> Result<(), Refusal> {
    let hosts = site.inventory()?.list(None).map_err(fleet_refused)?;
    let active = hosts.iter().filter(|host| host.retired.is_none()).count();
    let now = RealClock::new().now().nanos();
    let rows = fleet::schedule(site)?;
    let due = rows.iter().filter(|row| row.next <= now).count();
    let next = rows
        .iter()
        .filter(|row| row.next > now)
        .min_by_key(|row| row.next)
        .map(|row| {
            let at = moment::local(world::Timestamp::from_nanos(row.next));
            format!("; after that {} at {at}", safe(&row.host))
        })
        .unwrap_or_default();
    match active {
        1 => screen.remark(format_args!(
            "1 host, this machine (`{}`), {due} due now{next}; `holdfast host add NAME ADDRESS` adds another",
            safe(this)
        )),
        hosts => screen.remark(format_args!("{hosts} hosts, {due} due now{next}")),
    }
    Ok(())
}

/// Watches until stopped.
fn watch(
    up: &Up,
    rules: Ruleset,
    first: First,
    config: &Config,
    screen: Screen,
    stop: &Arc<AtomicBool>,
    intake: Option<&Intake>,
) -> Result<Exit, Refusal> {
    let dir = config.data_dir()?;
    let gate = fleet::gate(config)?;
    let told = Arc::new(Told::start(intake.map(Intake::log))?);
    let (needs, all) = (Arc::new(rules.needs()), rules.all().into());
    let watching = format!(
        "Watching; recorded in {}. Ctrl-C stops, the next start goes on from here.",
        dir.display()
    );
    let show = Show::new(
        first,
        watching,
        Arc::clone(&gate) as Arc<dyn Access>,
        rules,
        config.output.value,
        screen,
        Arc::clone(stop),
    );
    let fleet = Fleet {
        access: Arc::clone(&gate) as Arc<dyn Access>,
        executor: fleet::executor(dir, Arc::clone(&told) as _)?,
        watcher: Arc::new(show),
        ledger_sink: Arc::clone(&told) as _,
        clock: Arc::new(RealClock::new()),
        // Its jobs are taken back at the start: `up.lock` says that no other worker of it lives.
        node: site::shared::node(config, super::this_host())?,
        worker: std::process::id().to_string(),
        rules: all,
        collectors: fleet::collectors(&up.scope, config),
        needs,
        nudged: nudged(dir.join(site::CHANGED)),
        stop: Arc::clone(stop),
    };
    fleet.run();
    gate.stop();
    told.stop();
    // Being stopped is how this command ends well, whatever the machines look like.
    screen.remark("stopped; everything recorded is safe");
    Ok(Exit::Clean)
}

/// Tells once of each time that a command wrote the file.
fn nudged(file: PathBuf) -> Arc<dyn Fn() -> bool + Send + Sync> {
    let content = move || RealDisk.read(&file, CHANGED_LEN_MAX).ok();
    let seen = std::sync::Mutex::new(content());
    Arc::new(move || {
        let found = content();
        let mut seen = seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_other = *seen != found;
        *seen = found;
        is_other
    })
}

/// The file holds a time in nanoseconds.
const CHANGED_LEN_MAX: u64 = 64;

fn hold(config: &Config) -> Result<Box<dyn world::disk::Lock>, Refusal> {
    let dir = config.data_dir()?;
    let path = dir.join(UP_LOCK);
    RealDisk.lock(&path, &site::holder()).map_err(|error| {
        if error.kind() == std::io::ErrorKind::WouldBlock {
            Refusal::new(format!("{} is already watched by {error}", dir.display()))
                .next("look with `holdfast status`, or stop the other one first")
        } else {
            Refusal::new(format!("lock {}", path.display()))
                .source(error)
                .next("run `holdfast doctor` to check disk and permissions")
        }
    })
}
