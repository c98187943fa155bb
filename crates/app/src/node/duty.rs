//! What `up` does on a node: watches while it writes, stands by while another one does.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use replica::{
    group::{Bound, Group},
    machine::{Config as Members, NodeId, Order, Outcome, Role},
};
use store::Store;
use wal::{Epoch, Journal as _};
use world::{Clock, RealClock};

use super::{
    Control, Settings, Standing, StoreBases,
    bases::Turn,
    clocks::Clocks,
    coordinator::{self, Contender},
    figures, force,
    keys::Keys,
    neighbours::{self, Neighbours},
    open_group,
};
use crate::{
    beside::Served,
    config::Config,
    exit::{Exit, Refusal},
    screen::Screen,
    server,
    site::{self, Site},
};

const LOOK_EVERY: Duration = Duration::from_millis(50);
const KEYS_EVERY: Duration = Duration::from_secs(1);
/// Handles of the store that requests under way still have keep its directory: they end within the ten
/// seconds that a stop may take.
const REOPEN_MAX: Duration = Duration::from_secs(20);
/// What was forced is on record with the first commit; where that failed it is tried again so often.
const CARRY_EVERY: Duration = Duration::from_secs(5);
/// How long a node that has just opened its store waits to be told that it writes, before it shows itself
/// as one that stands by.
const SETTLE: Duration = Duration::from_millis(500);
/// A store that could not write is opened again so much later: what it wants for comes from other machines.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// Why a node is not promoted as long as it could not write.
const NOT_OPEN: &str = "the store of this node is not open yet: try again once it stands by";

/// What `up` does in each of the two roles.
pub(crate) trait Duties: Sync {
    /// Where clients find what is served, for the other nodes to tell.
    fn url(&self) -> Option<String>;

    /// Does the work of `up` for as long as the node writes. `ends` is set when that, or the process, is
    /// to end.
    fn write(
        &self,
        site: Site,
        standing: Arc<Standing>,
        ends: Arc<AtomicBool>,
    ) -> Result<Exit, Refusal>;

    /// Serves what is applied, for reading, until the answer is ended.
    fn stand_by(
        &self,
        store: &Store,
        standing: Arc<Standing>,
    ) -> Result<Option<server::Shown>, Refusal>;
}

/// Keeps the node until it is stopped.
pub(crate) fn keep(
    data: &Path,
    settings: &Settings,
    config: &Config,
    coordinator: Option<&coordinator::Address>,
    screen: Screen,
    stop: &Arc<AtomicBool>,
    duties: &dyn Duties,
) -> Result<Exit, Refusal> {
    let coordinator = coordinator::open(coordinator, config, settings)?;
    let bases = StoreBases::new(data, settings.journal)?;
    let group = open_group(data, settings, config, &bases, coordinator.is_some())?;
    // Before the group goes: its thread for bases may wait for the store to be closed.
    let _bases = bases.ending();
    figures::show(&group, data);
    if settings.is_founder {
        begin_cluster(&group, settings)?;
    }
    // Before anybody can order a promotion: which keys are missing is known once the store is open.
    group.set_unfit(Some(NOT_OPEN.to_owned()));
    let keys = Arc::new(Keys::new(data));
    let clocks = Arc::new(Clocks::default());
    let _neighbours = Neighbours::start(data, &group, settings, &keys, &clocks)?;
    let contender = coordinator
        .map(|coordinator| Contender::start(coordinator, &group, settings.node, screen))
        .transpose()?;
    let leasing = contender.as_ref().map(Contender::leasing);
    let _control = Control::start(data, &group, &keys, &clocks, leasing)?;
    screen.remark(format_args!(
        "node `{}` of {}, for other nodes at {}",
        settings.own_name(),
        settings.members.len(),
        group.address()
    ));
    let clock = RealClock::new();
    let kept = Kept {
        data,
        settings,
        group: &group,
        screen,
        stop,
        duties,
        keys: &keys,
        bases: &bases,
        told: Mutex::default(),
    };
    let mut exit = Exit::Clean;
    while !stop.load(Ordering::Relaxed) {
        group.set_unfit(Some(NOT_OPEN.to_owned()));
        let Some(turn) = wait_for_store(&group, &bases, screen, stop)? else {
            break;
        };
        let journal = Arc::new(Bound::new(Arc::clone(&group)));
        let store = open_store(data, &journal, &clock)?;
        turn.opened(&store);
        let Some(epoch) = kept.stand_by(&store, &journal)? else {
            close(&store, screen);
            continue;
        };
        // Rows of what was forced come before anything that is written here.
        let site = Site::over(data, store)?;
        if let Err(refusal) = force::carry(data, settings, site.store()) {
            screen.remark(format_args!(
                "what was forced here is not in the audit log yet, and is tried again: {refusal}"
            ));
        }
        match kept.lead(site, epoch)? {
            Led::Ended(ended) => exit = ended,
            Led::Again(why) => {
                kept.tell(format!("the store is opened again: {why}"));
                clock.sleep(REOPEN_PAUSE);
            }
        }
    }
    Ok(exit)
}

/// The node that made the cluster writes, until another one was made primary: there is nobody else that
/// could have been.
fn begin_cluster(group: &Group, settings: &Settings) -> Result<(), Refusal> {
    let clock = RealClock::new();
    let status = loop {
        match group.status() {
            Some(status) => break status,
            None => clock.sleep(LOOK_EVERY),
        }
    };
    let is_new = status.record.granted.0.0 == 0 && status.record.config.members.len() == 1;
    if !is_new {
        return Ok(());
    }
    let order = Order::Promote {
        node: settings.node,
        config: None::<Members>,
        force: None,
    };
    match group.order(order) {
        Ok(Outcome::Done) => Ok(()),
        Ok(outcome) => Err(
            Refusal::new(format!("the cluster did not begin: {outcome:?}"))
                .next("try again; `holdfast group status` shows how it stands"),
        ),
        Err(error) => Err(Site::store_refused(store::Error::new(
            store::Kind::Io,
            error.to_string(),
        ))),
    }
}

/// The store's directory, once the store can be opened: not while a base comes, nor while one has to.
/// `None` when the node is to stop first.
fn wait_for_store<'a>(
    group: &Group,
    bases: &'a StoreBases,
    screen: Screen,
    stop: &AtomicBool,
) -> Result<Option<Turn<'a>>, Refusal> {
    let clock = RealClock::new();
    let begun = clock.monotonic();
    let mut told = None;
    while !stop.load(Ordering::Relaxed) {
        if let Some(turn) = bases.turn() {
            match bases.does_meet(group.first_retained(), group.safe_point())? {
                Some(true) => return Ok(Some(turn)),
                // Whoever has it is named when it is opened.
                None if clock.monotonic() - begun > REOPEN_MAX => return Ok(Some(turn)),
                None => {}
                Some(false) => tell(&mut told, screen, made_anew(group).to_owned()),
            }
        }
        clock.sleep(LOOK_EVERY * 4);
    }
    Ok(None)
}

/// What a copy waits for that has to be made anew.
fn made_anew(group: &Group) -> &'static str {
    let status = group.status();
    let is_holder = status.is_some_and(|status| status.record.granted.2 == status.me);
    match is_holder {
        true => {
            "this node's tables do not fit its log, and it is the one that writes on record: nobody can give it a copy. \
             Run `holdfast promote` on another member; this one is then made anew from that"
        }
        false => {
            "this node's copy has to be made anew from the node that writes; it does so by itself as soon as one does, \
             and `holdfast group status` shows how far it is"
        }
    }
}

fn open_store(data: &Path, journal: &Arc<Bound>, clock: &RealClock) -> Result<Store, Refusal> {
    let begun = clock.monotonic();
    loop {
        let journal = Arc::clone(journal) as Arc<dyn wal::Journal>;
        match Store::open_following(site::store_options(data)?, journal) {
            Ok((store, _)) => return Ok(store),
            Err(error)
                if error.kind() == store::Kind::Locked
                    && clock.monotonic() - begun < REOPEN_MAX =>
            {
                clock.sleep(LOOK_EVERY);
            }
            Err(error) => return Err(site::cannot_open_store(data, &error)),
        }
    }
}

/// Says `text`, unless that was what was said last.
fn tell(told: &mut Option<String>, screen: Screen, text: String) {
    if told.as_ref() != Some(&text) {
        screen.remark(&text);
        *told = Some(text);
    }
}

/// A node that is kept, and what that takes.
struct Kept<'a> {
    data: &'a Path,
    settings: &'a Settings,
    group: &'a Arc<Group>,
    screen: Screen,
    stop: &'a Arc<AtomicBool>,
    duties: &'a dyn Duties,
    keys: &'a Keys,
    bases: &'a StoreBases,
    /// What was said last of why it does not write.
    told: Mutex<Option<String>>,
}

/// What is served while a node stands by, in the order in which it ends.
struct Shown {
    pages: Option<server::Shown>,
    commands: Served,
}

impl Shown {
    /// Requests in flight are waited for as long as this.
    fn end(self, wait: Duration) {
        if let Some(pages) = self.pages {
            pages.end(wait);
        }
        self.commands.stop();
    }
}

impl Kept<'_> {
    /// Says `text`, unless that was what was said last.
    fn tell(&self, text: String) {
        // Nothing is left half done by a panic: each change is one assignment.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&mut told, self.screen, text);
    }

    /// Shows what is applied, until the store commits here, and under which epoch; `None` where the process
    /// is to stop or the store to be replaced.
    fn stand_by(&self, store: &Store, journal: &Bound) -> Result<Option<Epoch>, Refusal> {
        let clock = RealClock::new();
        let begun = clock.monotonic();
        let standing = self.standing()?;
        let (mut shown, mut looked) = (None, None);
        let leads = loop {
            if self.stop.load(Ordering::Relaxed) || self.bases.is_wanted() {
                break Ok(None);
            }
            if let Some(failure) = store.failure() {
                break Err(Refusal::new(format!("this copy cannot follow any more: {failure}"))
                    .next("start it again; where that does not help: `holdfast group remove` and `holdfast node remove` it where the site is written, and invite it under another name, with an empty data directory"));
            }
            let mut waits = false;
            if let Role::Primary { epoch } = self.group.role() {
                // Whatever this node holds by the time it commits: what others wrote since is not applied.
                journal.bind(epoch);
                match store.lead() {
                    Ok(()) => {
                        // What was applied last may be sealed under a key that came just before.
                        self.settle_keys(store, None);
                        break Ok(Some(epoch));
                    }
                    // The authority went again before it was used, or too few have copies.
                    Err(error) => self.tell(format!("this node does not write yet: {error}")),
                }
                waits = true;
            }
            standing.look(store);
            // Whoever wrote before goes on with that within moments.
            if shown.is_none() && (waits || clock.monotonic() - begun > SETTLE) {
                shown = Some(self.show(store, &standing)?);
            }
            tell_applied(self.group, store);
            let now = clock.monotonic();
            if !waits && looked.is_none_or(|looked| now - looked >= KEYS_EVERY) {
                looked = Some(now);
                self.settle_keys(store, neighbours::holder(self.group));
            }
            clock.sleep(LOOK_EVERY);
        };
        let is_wanted = self.bases.is_wanted();
        if is_wanted {
            self.screen.remark(
                "the copy here is closed, because it is made anew from the node that writes",
            );
        }
        if let Some(shown) = shown {
            // Only where the store is to be replaced does anybody have to be waited for.
            shown.end(match is_wanted {
                true => server::STOP_TIME_MAX,
                false => Duration::ZERO,
            });
        }
        leads
    }

    /// Rows and key files change together.
    fn settle_keys(&self, store: &Store, holder: Option<NodeId>) {
        self.keys.need(store);
        if let Err(error) = self.keys.settle(holder) {
            tracing::warn!(%error, "a key of the site was not put in force");
        }
        // Nodes that were invited since the start have names too.
        let settings = Settings::load(self.data).ok().flatten();
        let settings = settings.as_ref().unwrap_or(self.settings);
        let missing = self.keys.missing(|node| settings.name_of(node));
        self.group.set_unfit((!missing.is_empty()).then(|| {
            format!(
                "this node cannot open what the site has sealed: {}. Start such a node, or put the file back from a backup; `--force` takes over without it",
                missing.join("; ")
            )
        }));
    }

    fn standing(&self) -> Result<Arc<Standing>, Refusal> {
        let found = Settings::load(self.data)?;
        let settings = found.as_ref().unwrap_or(self.settings);
        Ok(Arc::new(Standing::new(self.group, settings)))
    }

    fn show(&self, store: &Store, standing: &Arc<Standing>) -> Result<Shown, Refusal> {
        let commands = Served::start(self.data, store.clone())?;
        self.screen.remark(format_args!(
            "standing by: `{}` follows what others write and can be asked; `holdfast promote` makes it the one that writes",
            self.settings.own_name()
        ));
        let pages = self.duties.stand_by(store, Arc::clone(standing))?;
        Ok(Shown { pages, commands })
    }

    /// Watches; ends when the node has to stop writing as well.
    fn lead(&self, site: Site, epoch: Epoch) -> Result<Led, Refusal> {
        if self.group.role() != (Role::Primary { epoch }) {
            return Ok(Led::Ended(Exit::Clean));
        }
        self.tell(format!("this node writes, in epoch {}", epoch.0));
        let standing = self.standing()?;
        let ends = Arc::new(AtomicBool::new(false));
        let done = AtomicBool::new(false);
        let store = site.store().clone();
        let watched = thread::scope(|scope| {
            scope.spawn(|| self.attend(epoch, &store, &standing, &ends, &done));
            let _done = Done(&done);
            standing
                .announce(&store, self.duties.url().as_deref())
                .and_then(|()| {
                    let standing = Arc::clone(&standing);
                    self.duties.write(site, standing, Arc::clone(&ends))
                })
        });
        match watched {
            // What ended it is that this authority is over: not a failure of this node.
            Err(refusal) if self.group.role() != (Role::Primary { epoch }) => {
                tracing::info!(%refusal, "what was being recorded is refused here");
                self.tell(
                    "this node writes no more: another one has the authority, or asks for it"
                        .to_owned(),
                );
                Ok(Led::Ended(Exit::Clean))
            }
            // Whether the last write stands was not known when it was answered: it is read from the journal.
            Err(refusal) if is_fenced(&store) || lacks_copies(self.group) => {
                Ok(Led::Again(refusal.to_string()))
            }
            watched => watched.map(Led::Ended),
        }
    }

    /// Beside whoever writes: says what is applied, and when it is to end.
    fn attend(
        &self,
        epoch: Epoch,
        store: &Store,
        standing: &Standing,
        ends: &AtomicBool,
        done: &AtomicBool,
    ) {
        let clock = RealClock::new();
        let (mut carried, mut pruned) = (clock.monotonic(), clock.monotonic());
        while !done.load(Ordering::Relaxed) {
            // Also when it writes again, under another epoch: the store is opened anew for that.
            let is_over = self.group.role() != (Role::Primary { epoch });
            if self.stop.load(Ordering::Relaxed) || is_over {
                ends.store(true, Ordering::Relaxed);
            }
            if let Ok(derived) = store.derived() {
                let visible = store.stats().visible.lsn;
                self.group.applied(visible, derived.reaches);
            }
            standing.look(store);
            if clock.monotonic() - pruned >= KEYS_EVERY {
                pruned = clock.monotonic();
                self.keys.need(store);
                if let Err(error) = self.keys.prune() {
                    tracing::warn!(%error, "a key that nothing needs was not thrown away");
                }
            }
            if clock.monotonic() - carried >= CARRY_EVERY {
                carried = clock.monotonic();
                if let Err(refusal) = force::carry(self.data, self.settings, store) {
                    tracing::warn!(%refusal, "what was forced here is not in the audit log yet");
                }
            }
            clock.sleep(LOOK_EVERY);
        }
    }
}

/// Says so when it goes, also by a panic: whoever attends would be waited for without an end, by a node that
/// renews its lease.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How a time of writing ended.
enum Led {
    Ended(Exit),
    /// This node may still write, and the store does not, for want of copies.
    Again(String),
}

fn tell_applied(group: &Group, store: &Store) {
    if let (Some(applied), Ok(derived)) = (store.applied(), store.derived()) {
        group.applied(applied, derived.reaches);
    }
}

fn is_fenced(store: &Store) -> bool {
    store
        .failure()
        .is_some_and(|failure| failure.kind() == store::Kind::Fenced)
}

/// Fewer replicas are in sync than an acknowledgement waits for.
fn lacks_copies(group: &Group) -> bool {
    let Some(status) = group.status() else {
        return false;
    };
    let config = &status.record.config;
    let wanted = config.mode.copies(config.members.len());
    let replicas = status.replicas.iter();
    let in_sync = replicas.filter(|it| it.is_in_sync && config.members.contains(&it.replica));
    in_sync.count() < wanted
}

fn close(store: &Store, screen: Screen) {
    if let Err(error) = store.close() {
        screen.remark(format_args!(
            "everything is recorded, but tidying up was put off: {error}"
        ));
    }
}
