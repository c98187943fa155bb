//! `holdfast up`: scan this machine, show it, and keep watching every host until stopped.

mod show;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use scan::{
    fleet::{Access, Fleet},
    inventory::{Host, Reach},
    policy::{Active, Start},
    seal::Reason,
};
use store::Store;
use world::{Clock, Disk, RealClock, RealDisk, RealRandom};

use super::events::serve::Intake;
use crate::{
    alerts,
    beside::Served,
    cli::Up,
    config::{Config, Origin},
    console,
    exit::{Exit, Refusal},
    fleet::{
        self,
        events::{Announcer, Told},
    },
    moment,
    node::{self, Duties, Settings, Standing},
    present::safe,
    remote::carry,
    ruleset::Ruleset,
    screen::Screen,
    sealing::{self, Health, Sealer},
    server::{self, Listening, STOP_TIME_MAX, Server, Shown},
    site::{self, Site, fleet_refused},
};
use show::{First, Show};

/// Makes a second `up` on one directory an error. Other commands work beside the first.
const UP_LOCK: &str = "up.lock";

/// Who the audit log names for what `up` does by itself.
const ACTOR: &str = "holdfast up";

pub(crate) fn run(up: &Up, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let stop = site::stop_flag()?;
    let dir = config.data_dir()?;
    site::make(dir)?;
    // Read here and not by the parser, which repeats what it refuses: that may be a password.
    let coordinator = up
        .coordinator
        .as_deref()
        .map(|text| crate::config::node::address(text, "--coordinator"));
    let coordinator = coordinator.transpose()?;
    // Before the directory is opened: a second one is refused at once, and not after a wait.
    let _running = hold(config)?;
    match Settings::load_listening(dir, up.node_listen)? {
        Some(settings) => of_several(up, &settings, config, coordinator.as_ref(), screen, &stop),
        None => {
            let site = Site::open_here(config, screen)?;
            attend(site, up, config, screen, &stop, None)
        }
    }
}

/// On a node: its port stays, whatever its role.
fn of_several(
    up: &Up,
    settings: &Settings,
    config: &Config,
    coordinator: Option<&node::Address>,
    screen: Screen,
    stop: &Arc<AtomicBool>,
) -> Result<Exit, Refusal> {
    let dir = config.data_dir()?;
    let server = listen(config, screen)?;
    let duties = Roles {
        up,
        config,
        screen,
        settings,
        server: server.as_ref(),
    };
    if config.events_enabled.value {
        screen.remark(EVENTS_ARE_HERE);
    }
    let kept = node::keep(dir, settings, config, coordinator, screen, stop, &duties);
    if let Some(server) = server {
        tell_cut_off(server.stop(None), screen);
    }
    kept
}

/// Said at each start of a node, because it is the one thing that does not go where the rest goes.
const EVENTS_ARE_HERE: &str = "events are kept on the node that takes them, and are not copied to the others; \
    while it stands by a node takes none";

/// What this command does in each role of a node.
struct Roles<'a> {
    up: &'a Up,
    config: &'a Config,
    screen: Screen,
    settings: &'a Settings,
    server: Option<&'a Server>,
}

impl Duties for Roles<'_> {
    fn url(&self) -> Option<String> {
        node::url(self.config, self.settings, self.server?.address())
    }

    fn write(
        &self,
        site: Site,
        standing: Arc<Standing>,
        ends: Arc<AtomicBool>,
    ) -> Result<Exit, Refusal> {
        let on = Some((self.server, standing));
        attend(site, self.up, self.config, self.screen, &ends, on)
    }

    fn stand_by(&self, store: &Store, standing: Arc<Standing>) -> Result<Option<Shown>, Refusal> {
        let Some(server) = self.server else {
            return Ok(None);
        };
        let asked = store.clone();
        let shown = server.show(Listening {
            store: store.clone(),
            rules: Ruleset::load(self.config, self.up.scope.rules_dir.as_deref())?,
            config: self.config,
            dir: self.config.data_dir()?,
            events: None,
            standing: Some(Arc::new(move || standing.of(&asked))),
            is_writer: false,
        })?;
        self.screen.remark(format_args!(
            "console and HTTP interface, for reading, at {}",
            server.url()
        ));
        Ok(Some(shown))
    }
}

/// Watches the site until `stop` is set. A node has its port already.
fn attend(
    site: Site,
    up: &Up,
    config: &Config,
    screen: Screen,
    stop: &Arc<AtomicBool>,
    node: Option<(Option<&Server>, Arc<Standing>)>,
) -> Result<Exit, Refusal> {
    let dir = config.data_dir()?;
    let rules = Ruleset::load(config, up.scope.rules_dir.as_deref())?;
    let _hurrying = Hurrying::start(site.store().clone(), Arc::clone(stop))?;
    super::fix::tell_unfinished_of(&site, screen)?;
    let sealing = Health::default();
    let first = begin(&site, config, &sealing, screen)?;
    // A receiver whose secret cannot be read is refused before anything is scanned.
    let alerts = alerts::start(
        site.store(),
        &config.alert_receivers,
        dir.to_owned(),
        sealing.clone(),
        Arc::clone(stop),
    )?;
    // From here on commands beside work on what is open here; a shared database they reach themselves.
    let served = match site::shared::is_used(config) {
        true => None,
        false => Some(Served::start(dir, site.store().clone())?),
    };
    let intake = Intake::beside(config, screen)?;
    let own = match node {
        None => listen(config, screen)?,
        Some(_) => None,
    };
    let (on, standing) = match &node {
        Some((server, standing)) => (*server, Some(standing)),
        None => (own.as_ref(), None),
    };
    let shown = on
        .map(|server| serve(server, &site, up, config, intake.as_ref(), standing, screen))
        .transpose()?;
    let running = Running {
        site: &site,
        config,
        screen,
        stop,
        intake: intake.as_ref(),
        sealing: &sealing,
    };
    let watched = watch(running, up, rules, first);
    // Also when watching failed: what is in flight is finished either way. All at once, because
    // each may take most of the ten seconds of a stop when its clients do not let go (SVC-10).
    let finished = thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(intake) = intake {
                intake.stop(screen);
            }
        });
        scope.spawn(|| {
            if let Some(served) = served {
                served.stop();
            }
        });
        scope.spawn(|| alerts.stop());
        match (own, shown) {
            (Some(server), shown) => server.stop(shown),
            // The port goes on, in the other role.
            (None, Some(shown)) => shown.end(STOP_TIME_MAX),
            (None, None) => true,
        }
    });
    tell_cut_off(finished, screen);
    let failure = site.store().failure();
    site.close(screen);
    match failure {
        Some(failure) => Err(stopped_by(&failure)),
        None => watched,
    }
}

/// How often it is looked whether `up` is to stop.
const STOP_POLL: Duration = Duration::from_millis(100);

/// Tells the store when `up` is to stop: a server that does not answer would hold it up. On a thread of its
/// own, because all others may wait for that server.
struct Hurrying {
    _ends: Sender<()>,
}

impl Hurrying {
    /// Until it is dropped.
    fn start(store: Store, stop: Arc<AtomicBool>) -> Result<Self, Refusal> {
        let (ends, ended) = mpsc::channel::<()>();
        let look = move || {
            while ended.recv_timeout(STOP_POLL) == Err(RecvTimeoutError::Timeout) {
                if stop.load(Ordering::Relaxed) {
                    return store.hurry();
                }
            }
        };
        thread::Builder::new()
            .name("hurry".to_owned())
            .spawn(look)
            .map_err(|error| Refusal::new("a thread cannot be started").source(error))?;
        Ok(Self { _ends: ends })
    }
}

fn tell_cut_off(finished: bool, screen: Screen) {
    if !finished {
        screen.remark(
            "requests that did not end in time were cut off; none of them was acknowledged",
        );
    }
}

/// Takes the port of console and HTTP interface. Goes on without it when another program has the one that
/// nobody asked for.
fn listen(config: &Config, screen: Screen) -> Result<Option<Server>, Refusal> {
    if !config.server.enabled.value {
        return Ok(None);
    }
    let dir = config.data_dir()?;
    if let Err(error) = carry::clear(dir).and_then(|()| console::clear_downloads(dir)) {
        screen.remark(format_args!(
            "files of commands or downloads from before are left in {}: {error}",
            dir.display()
        ));
    }
    let listen = &config.server.listen;
    match server::listen(listen.value)? {
        Some(tcp) => Server::start(config, dir, tcp).map(Some),
        None if listen.origin == Origin::Default => {
            screen.remark(format_args!(
                "there is no HTTP interface: another program listens on {}; server.listen names another port",
                listen.value
            ));
            Ok(None)
        }
        None => Err(
            Refusal::new(format!("another program listens on {}", listen.value))
                .next("stop it, or name another port with server.listen"),
        ),
    }
}

/// Puts the site on the stage, and says where it is.
fn serve(
    server: &Server,
    site: &Site,
    up: &Up,
    config: &Config,
    intake: Option<&Intake>,
    standing: Option<&Arc<Standing>>,
    screen: Screen,
) -> Result<Shown, Refusal> {
    let made = server::first_token(site.store(), &site.keys_dir())?;
    let asked = standing.map(|standing| {
        let (standing, store) = (Arc::clone(standing), site.store().clone());
        Arc::new(move || standing.of(&store)) as server::Asked
    });
    let shown = server.show(Listening {
        store: site.store().clone(),
        rules: Ruleset::load(config, up.scope.rules_dir.as_deref())?,
        config,
        dir: site.dir(),
        events: intake.map(Intake::beside_server),
        standing: asked,
        is_writer: true,
    })?;
    let token = match made {
        Some(path) => format!("its first token was made just now, in {}", path.display()),
        None => known_token(site),
    };
    screen.remark(format_args!(
        "HTTP interface and console at {}; {token}",
        server.url()
    ));
    Ok(shown)
}

/// Where a token is that opens it; whoever took the first one away knows what for.
fn known_token(site: &Site) -> String {
    let path = site.keys_dir().join(server::ADMIN_TOKEN);
    match RealDisk.stat(&path) {
        Ok(Some(_)) => format!("its first token is in {}", path.display()),
        _ => "`holdfast token add NAME --role ROLE` makes a token".to_owned(),
    }
}

/// Why it ended by itself: a store that cannot commit is of use to nobody, and a start recovers it.
fn stopped_by(failure: &store::Error) -> Refusal {
    Refusal::new(format!("nothing can be recorded any more: {failure}")).next(
        "everything acknowledged is safe; check the disk with `holdfast doctor`, then start `holdfast up` again",
    )
}

/// What must be there before anything is scanned: keys, a policy that may be used, this machine in the
/// inventory. All of it is told.
fn begin(site: &Site, config: &Config, sealing: &Health, screen: Screen) -> Result<First, Refusal> {
    let (now, this) = (RealClock::new().now(), super::this_host());
    let is_shared = site::shared::is_used(config);
    // Before anything is sealed or signed by a key that others do not have.
    if is_shared {
        site::shared::check_keys(site, &this)?;
    }
    let started = site
        .policies()?
        .start(&RealDisk, &site.keys_dir(), &RealRandom, now, ACTOR);
    let started = started.map_err(site::policy_refused)?;
    site.vault()?.data_key().map_err(fleet_refused)?;
    // Watching does not hang on it: what is recorded is chained all the same.
    let stated = sealing::state(site, Reason::Export);
    sealing.note(&stated);
    if let Err(error) = stated {
        screen.remark(super::ledger::refused(error));
    }
    if is_shared {
        site::shared::check_local(site, &this)?;
    } else {
        register(site, &this, ACTOR)?;
    }
    tell_policy(&started, screen);
    tell_fleet(site, &this, screen)?;
    let is_known = site
        .ledger()
        .status(&this, None)
        .map_err(Site::refused)?
        .is_some();
    // Another node of the site may be the one that is watched as the machine itself.
    let is_watched = site
        .inventory()?
        .get(&this)
        .map_err(fleet_refused)?
        .is_some();
    Ok(First {
        host: (is_watched && !is_known).then_some(this),
    })
}

/// Puts this machine into the inventory and the schedule, unless it is there, or was and is retired.
pub(super) fn register(site: &Site, this: &str, actor: &str) -> Result<(), Refusal> {
    let inventory = site.inventory()?;
    let all = inventory.list(None).map_err(fleet_refused)?;
    let is_there = |host: &Host| host.name == this || host.reach == Reach::Local;
    if all.iter().any(is_there) {
        return Ok(());
    }
    let now = RealClock::new().now();
    let host = Host::new(this, Reach::Local, now);
    inventory
        .transact(|transaction| inventory.add_in(transaction, &host, actor))
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
    let active: Vec<&Host> = hosts.iter().filter(|host| host.retired.is_none()).collect();
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
    let s = if active.len() == 1 { "" } else { "s" };
    match active.as_slice() {
        [host] if host.name == this && host.reach == Reach::Local => screen.remark(format_args!(
            "1 host, this machine (`{}`), {due} due now{next}; `holdfast host add NAME ADDRESS` adds another",
            safe(this)
        )),
        hosts => screen.remark(format_args!("{} host{s}, {due} due now{next}", hosts.len())),
    }
    Ok(())
}

/// What is open while `up` runs: whatever serves beside the schedule gets its parts from here.
#[derive(Clone, Copy)]
struct Running<'a> {
    site: &'a Site,
    config: &'a Config,
    screen: Screen,
    /// Set by a signal, and when nothing can be recorded any more.
    stop: &'a Arc<AtomicBool>,
    intake: Option<&'a Intake>,
    sealing: &'a Health,
}

/// Watches until stopped.
fn watch(running: Running<'_>, up: &Up, rules: Ruleset, first: First) -> Result<Exit, Refusal> {
    let Running {
        site,
        config,
        screen,
        stop,
        intake,
        sealing,
    } = running;
    let dir = config.data_dir()?;
    let gate = fleet::held(site)?;
    let sealer = Sealer::start(site, sealing)?;
    let told = Arc::new(Told::start(intake.map(Intake::log))?);
    let node = site::shared::node(config, super::this_host())?;
    let announcer = Announcer::start(site.ledger().clone(), intake.map(Intake::log), node.clone())?;
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
        node,
        worker: std::process::id().to_string(),
        rules: all,
        collectors: fleet::collectors(&up.scope, config),
        needs,
        nudged: nudged(
            dir.join(site::CHANGED),
            site.store().clone(),
            Arc::clone(stop),
        ),
        stop: Arc::clone(stop),
    };
    fleet.run();
    gate.stop();
    // After the last result is in.
    drop(sealer);
    drop(announcer);
    told.stop();
    // Being stopped is how this command ends well, whatever the machines look like.
    screen.remark("stopped; everything recorded is safe");
    Ok(Exit::Clean)
}

/// Tells once of each time that a command wrote the file. Asked every second, it also sees that nothing
/// can be recorded any more, and stops.
fn nudged(
    file: PathBuf,
    store: Store,
    stop: Arc<AtomicBool>,
) -> Arc<dyn Fn() -> bool + Send + Sync> {
    let content = move || RealDisk.read(&file, CHANGED_LEN_MAX).ok();
    let seen = std::sync::Mutex::new(content());
    Arc::new(move || {
        if store.failure().is_some() {
            stop.store(true, Ordering::Relaxed);
        }
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
