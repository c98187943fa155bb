//! What `up` does on a node: watches while it writes, stands by while another one does.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use replica::{
    group::Group,
    machine::{Config as Members, NodeId, Order, Outcome, Role},
};
use store::Store;
use wal::Journal as _;
use world::{Clock, RealClock};

use super::{
    Control, Settings, StoreBases,
    bases::Turn,
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
    site::{self, Site},
};

const LOOK_EVERY: Duration = Duration::from_millis(50);
const KEYS_EVERY: Duration = Duration::from_secs(1);
/// Handles of the store that requests under way still have keep its directory: they end within the ten
/// seconds that a stop may take.
const REOPEN_MAX: Duration = Duration::from_secs(20);
/// A store that could not write is opened again so much later: what it wants for comes from other machines.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// Does the work of `up` for as long as the node writes, given its site and a flag that is set when
/// that, or the process, is to end.
pub(crate) type Watch<'a> = &'a dyn Fn(Site, Arc<AtomicBool>) -> Result<Exit, Refusal>;

/// Keeps the node until it is stopped.
pub(crate) fn keep(
    data: &Path,
    settings: &Settings,
    config: &Config,
    coordinator: Option<&coordinator::Address>,
    screen: Screen,
    stop: &Arc<AtomicBool>,
    watch: Watch<'_>,
) -> Result<Exit, Refusal> {
    let coordinator = coordinator::open(coordinator, config, settings)?;
    let bases = StoreBases::new(data, settings.journal)?;
    let group = open_group(data, settings, config, &bases, coordinator.is_some())?;
    // Before the group goes: its thread for bases may wait for the store to be closed.
    let _bases = bases.ending();
    figures::show(&group, data);
    let keys = Arc::new(Keys::new(data));
    let _neighbours = Neighbours::start(data, &group, settings, &keys)?;
    let contender = coordinator
        .map(|coordinator| Contender::start(coordinator, &group, &keys, settings.node, screen))
        .transpose()?;
    let leasing = contender.as_ref().map(Contender::leasing);
    let _control = Control::start(data, &group, &keys, leasing)?;
    screen.remark(format_args!(
        "node `{}` of {}, for other nodes at {}",
        settings.own_name(),
        settings.members.len(),
        group.address()
    ));
    if settings.is_founder {
        begin_cluster(&group, settings)?;
    }
    let clock = RealClock::new();
    let (mut exit, mut told) = (Exit::Clean, None);
    while !stop.load(Ordering::Relaxed) {
        let Some(turn) = wait_for_store(&group, &bases, screen, stop)? else {
            break;
        };
        let store = open_store(data, &group, &clock)?;
        turn.opened(&store);
        stand_by(data, &group, &store, &keys, settings, &bases, screen, stop)?;
        if stop.load(Ordering::Relaxed) || bases.is_wanted() {
            close(&store, screen);
            continue;
        }
        if let Err(error) = store.lead() {
            // The authority went again before it was used, or too few have copies.
            tell(
                &mut told,
                screen,
                format!("this node does not write yet: {error}"),
            );
            drop(store);
            clock.sleep(LOOK_EVERY);
            continue;
        }
        told = None;
        // What was applied last may be sealed under a key that came just before.
        settle_keys(&group, &keys, &store, settings, None);
        let site = Site::over(data, store)?;
        if let Err(refusal) = force::carry(data, settings, &site) {
            screen.remark(format_args!(
                "what was forced here is not in the audit log yet: {refusal}"
            ));
        }
        match lead(&group, site, stop, screen, watch)? {
            Led::Ended(ended) => exit = ended,
            Led::Again(why) => {
                tell(
                    &mut told,
                    screen,
                    format!("the store is opened again: {why}"),
                );
                clock.sleep(REOPEN_PAUSE);
            }
        }
    }
    Ok(exit)
}

/// Says `text`, unless that was what was said last.
fn tell(told: &mut Option<String>, screen: Screen, text: String) {
    if told.as_ref() != Some(&text) {
        screen.remark(&text);
        *told = Some(text);
    }
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
                Some(false) => tell(
                    &mut told,
                    screen,
                    "this node's copy has to be made anew from the node that writes; it does so by itself, \
                     and `holdfast group status` shows how far it is"
                        .to_owned(),
                ),
            }
        }
        clock.sleep(LOOK_EVERY * 4);
    }
    Ok(None)
}

fn open_store(data: &Path, group: &Arc<Group>, clock: &RealClock) -> Result<Store, Refusal> {
    let begun = clock.monotonic();
    loop {
        let journal = Arc::clone(group) as Arc<dyn wal::Journal>;
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

/// Shows what is applied to the commands beside, until this node is to write or to stop, or its store is to
/// be replaced.
#[allow(clippy::too_many_arguments, reason = "what `up` has in hand")]
fn stand_by(
    data: &Path,
    group: &Group,
    store: &Store,
    keys: &Keys,
    settings: &Settings,
    bases: &StoreBases,
    screen: Screen,
    stop: &AtomicBool,
) -> Result<(), Refusal> {
    let clock = RealClock::new();
    let is_primary = || matches!(group.role(), Role::Primary { .. });
    // Whoever wrote before goes on with that within moments.
    let begun = clock.monotonic();
    while clock.monotonic() - begun < LOOK_EVERY * 10 {
        if is_primary() || bases.is_wanted() {
            return Ok(());
        }
        clock.sleep(LOOK_EVERY);
    }
    let served = Served::start(data, store.clone())?;
    screen.remark(format_args!(
        "standing by: `{}` follows what others write and can be asked; `holdfast promote` makes it the one that writes",
        settings.own_name()
    ));
    let mut looked = None;
    while !is_primary() && !bases.is_wanted() && !stop.load(Ordering::Relaxed) {
        if let Some(failure) = store.failure() {
            served.stop();
            return Err(Refusal::new(format!("this copy cannot follow any more: {failure}"))
                .next("start it again; where that does not help it must be made anew: `holdfast node invite`"));
        }
        tell_applied(group, store);
        let now = clock.monotonic();
        if looked.is_none_or(|looked| now - looked >= KEYS_EVERY) {
            looked = Some(now);
            settle_keys(group, keys, store, settings, neighbours::holder(group));
        }
        clock.sleep(LOOK_EVERY);
    }
    served.stop();
    if bases.is_wanted() {
        screen.remark("the copy here is closed, because it is made anew from the node that writes");
    }
    Ok(())
}

/// Rows and key files change together.
fn settle_keys(
    group: &Group,
    keys: &Keys,
    store: &Store,
    settings: &Settings,
    holder: Option<NodeId>,
) {
    keys.need(store);
    if let Err(error) = keys.settle(holder) {
        tracing::warn!(%error, "a key of the site was not put in force");
    }
    let missing = keys.missing(|node| settings.name_of(node));
    group.set_unfit((!missing.is_empty()).then(|| {
        format!(
            "this node cannot open what the site has sealed: {}. Start such a node, or put the file back from a backup; `--force` takes over without it",
            missing.join("; ")
        )
    }));
}

fn tell_applied(group: &Group, store: &Store) {
    if let (Some(applied), Ok(derived)) = (store.applied(), store.derived()) {
        group.applied(applied, derived.reaches);
    }
}

/// How a time of writing ended.
enum Led {
    Ended(Exit),
    /// This node may still write, and the store does not, for want of copies.
    Again(String),
}

/// Watches; ends when the node has to stop writing as well.
fn lead(
    group: &Arc<Group>,
    site: Site,
    stop: &Arc<AtomicBool>,
    screen: Screen,
    watch: Watch<'_>,
) -> Result<Led, Refusal> {
    let Role::Primary { epoch } = group.role() else {
        return Ok(Led::Ended(Exit::Clean));
    };
    screen.remark(format_args!("this node writes, in epoch {}", epoch.0));
    let ends = Arc::new(AtomicBool::new(false));
    let done = AtomicBool::new(false);
    let store = site.store().clone();
    let watched = thread::scope(|scope| {
        scope.spawn(|| {
            let clock = RealClock::new();
            while !done.load(Ordering::Relaxed) {
                // Also when it writes again, under another epoch: the store is opened anew for that.
                let is_over = group.role() != (Role::Primary { epoch });
                if stop.load(Ordering::Relaxed) || is_over {
                    ends.store(true, Ordering::Relaxed);
                }
                if let Ok(derived) = store.derived() {
                    let visible = store.stats().visible.lsn;
                    group.applied(visible, derived.reaches);
                }
                clock.sleep(LOOK_EVERY);
            }
        });
        let watched = watch(site, Arc::clone(&ends));
        done.store(true, Ordering::Relaxed);
        watched
    });
    match watched {
        // What ended it is that this authority is over: not a failure of this node.
        Err(refusal) if group.role() != (Role::Primary { epoch }) => {
            screen.remark(format_args!("this node writes no more: {refusal}"));
            Ok(Led::Ended(Exit::Clean))
        }
        // Whether the last write stands was not known when it was answered: it is read from the journal.
        Err(refusal) if is_fenced(&store) || lacks_copies(group) => {
            Ok(Led::Again(refusal.to_string()))
        }
        watched => watched.map(Led::Ended),
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
