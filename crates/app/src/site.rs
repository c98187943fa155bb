//! The data directory: journal, store and ledger together, and what to say when it cannot be opened.
//!
//! A running `up` has it open for good and serves it to the commands beside it, which work on it as if
//! they had opened it themselves ([`crate::beside`]). Every other command has it open only while it
//! reads or writes: whoever finds it in use then waits a little, gives up and names the holder.

pub(crate) mod shared;

use std::{
    convert::Infallible,
    error,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use scan::{
    audit::{self, Audit},
    credential::{self, Vault},
    inventory::{self, Inventory},
    known_hosts::KnownHosts,
    ledger::{self, Ledger},
    policy::{self, Registry},
    rule::Rule,
    schedule, variable,
};
use store::{Options, Store, Table};
use wal::Journal;
use world::{Clock, Disk, RealClock, RealDisk, RealRandom, Timestamp};

use crate::{
    beside, command::journal::after_damage, config::Config, exit::Refusal, node, present::safe,
    screen::Screen, sizes::Sizes,
};

/// How long to wait for a directory that another process has open. Applying a scan takes
/// milliseconds; whatever holds it longer than this is not about to let go.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// An opened data directory.
pub(crate) struct Site {
    dir: PathBuf,
    opened: Opened,
    ledger: Ledger,
}

pub(crate) struct Opened {
    pub(crate) store: Store,
    /// What recovery found, in words; worth telling only when it repaired something.
    pub(crate) recovery: String,
}

impl Site {
    /// Opens the directory, making it when it is not there; or the store of the `up` that has it open.
    pub(crate) fn open(config: &Config, screen: Screen) -> Result<Self, Refusal> {
        let dir = config.data_dir()?;
        let opened = match &config.store.postgres.value {
            Some(address) => shared::open(dir, address)?,
            None => {
                shared::refuse_moved(dir)?;
                reach_store(dir, config.mode(), screen)?
            }
        };
        if let Some(lsn) = config.wait_for {
            wait_for(&opened.store, lsn)?;
        }
        Self::of(dir, opened)
    }

    /// As [`Site::open`], for a process that has it open for good: never another one's.
    pub(crate) fn open_here(config: &Config, screen: Screen) -> Result<Self, Refusal> {
        if shared::is_used(config) {
            return Self::open(config, screen);
        }
        let dir = config.data_dir()?;
        shared::refuse_moved(dir)?;
        refuse_node(dir)?;
        Self::of(dir, open_store(dir, config.mode(), scan::tables(), screen)?)
    }

    /// Over a store that is open already.
    pub(crate) fn over(dir: &Path, store: Store) -> Result<Self, Refusal> {
        let recovery = "open as this node's copy".to_owned();
        Self::of(dir, Opened { store, recovery })
    }

    fn of(dir: &Path, opened: Opened) -> Result<Self, Refusal> {
        let ledger = Ledger::new(opened.store.clone()).map_err(Self::refused)?;
        Ok(Self {
            dir: dir.to_owned(),
            opened,
            ledger,
        })
    }

    /// Opens a directory that must hold a record already: a question never creates anything.
    pub(crate) fn open_existing(config: &Config, screen: Screen) -> Result<Self, Refusal> {
        if !shared::is_used(config) {
            must_exist(config.data_dir()?, "holdfast scan")?;
        }
        Self::open(config, screen)
    }

    /// As [`Site::open_existing`], for questions about hosts and credentials.
    pub(crate) fn open_fleet(config: &Config, screen: Screen) -> Result<Self, Refusal> {
        if !shared::is_used(config) {
            must_exist(config.data_dir()?, "holdfast host add NAME ADDRESS")?;
        }
        Self::open(config, screen)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// `rules` with the values that the site gave to their variables for `host`.
    pub(crate) fn tuned(
        &self,
        rules: &[Rule],
        host: &str,
        screen: Screen,
    ) -> Result<Vec<Rule>, Refusal> {
        let tuned = variable::rules_for(self.store(), rules, host)
            .map_err(|error| Refusal::new(error.detail).next(error.next))?;
        for setting in &tuned.stale {
            screen.remark(format_args!(
                "the default of `{}` is judged by: rule `{}` does not take {} any more",
                setting.variable, setting.rule, setting.value
            ));
        }
        Ok(tuned.rules)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.opened.store
    }

    pub(crate) fn inventory(&self) -> Result<Inventory, Refusal> {
        Inventory::new(self.opened.store.clone()).map_err(fleet_refused)
    }

    pub(crate) fn known_hosts(&self) -> Result<KnownHosts, Refusal> {
        KnownHosts::new(self.opened.store.clone()).map_err(fleet_refused)
    }

    pub(crate) fn policies(&self) -> Result<Registry, Refusal> {
        Registry::new(self.opened.store.clone()).map_err(policy_refused)
    }

    pub(crate) fn keys_dir(&self) -> PathBuf {
        self.dir.join(credential::KEYS_DIR)
    }

    /// The sealed credentials. What they open must not end in a core file.
    pub(crate) fn vault(&self) -> Result<Vault, Refusal> {
        no_core();
        Vault::new(
            self.opened.store.clone(),
            Arc::new(RealDisk),
            Arc::new(RealRandom),
            self.keys_dir(),
        )
        .map_err(fleet_refused)
    }

    /// Time of the newest record.
    pub(crate) fn newest(&self) -> Result<Timestamp, Refusal> {
        let retained = self.opened.store.retained();
        Ok(retained.map_err(Self::store_refused)?.to.time)
    }

    pub(crate) fn recovery(&self) -> &str {
        &self.opened.recovery
    }

    /// Closes in order, so that the next open has nothing to recover. What was committed is durable
    /// before this and stays so when it does not succeed, on a full disk for example: the next open
    /// then replays the journal.
    pub(crate) fn close(self, screen: Screen) {
        // What this process put on record is covered from its end on, and not from the next start.
        let linked = Audit::of(self.store())
            .map_err(audit::chain::Error::from)
            .and_then(|audit| audit.link(self.store()));
        if let Err(error) = linked {
            screen.remark(format_args!(
                "everything is recorded, but the newest audit records are not covered by their chain yet: {error}"
            ));
        }
        if let Err(error) = self.opened.store.close() {
            screen.remark(format_args!(
                "everything is recorded, but tidying up was put off: {error}"
            ));
        }
    }

    /// A ledger error as the user sees it.
    #[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
    pub(crate) fn refused(error: ledger::Error) -> Refusal {
        let of_store = error::Error::source(&error).and_then(|source| source.downcast_ref());
        if let (ledger::Class::Storage, Some(of_store)) = (error.class(), of_store) {
            return Refusal::new(error.to_string()).next(after_store_error(of_store));
        }
        let next = match error.class() {
            ledger::Class::Conflict => "try again",
            ledger::Class::Constraint => "nothing was recorded; use another name or data directory",
            ledger::Class::EvidenceOversize | ledger::Class::EvidenceInvalid => {
                "nothing was recorded; `holdfast rules lint` checks the rule"
            }
            ledger::Class::OutOfRange => "ask for a moment within the retained history",
            ledger::Class::Storage | ledger::Class::Unknown => {
                "run `holdfast doctor` to check disk and data directory"
            }
        };
        Refusal::new(error.to_string()).next(next)
    }

    /// A store error as the user sees it.
    #[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
    pub(crate) fn store_refused(error: store::Error) -> Refusal {
        Refusal::new(error.to_string()).next(after_store_error(&error))
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        Site::store_refused(error)
    }
}

fn after_store_error(error: &store::Error) -> &'static str {
    if error.kind() == store::Kind::Conflict {
        return "try again: somebody else changed the same meanwhile";
    }
    if let Some(fault) = postgres::Fault::behind(error) {
        return fault.next();
    }
    match error.kind() {
        store::Kind::Full => "free space on the file system of the data directory, then try again",
        store::Kind::Fenced => {
            "`holdfast group status` shows which node writes: run it there, or with --server URL"
        }
        store::Kind::InDoubt => "look whether it was recorded before you try again",
        store::Kind::Io if error.to_string().contains(beside::SERVER) => {
            "see whether `holdfast up` runs, and try again"
        }
        _ => "run `holdfast doctor` to check disk and data directory",
    }
}

/// A policy that is refused, as the user sees it.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn policy_refused(refused: policy::Refused) -> Refusal {
    Refusal::new(refused.to_string()).next(refused.next)
}

/// A schedule that could not be read or changed, as the user sees it.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn schedule_refused(error: schedule::Error) -> Refusal {
    let next = error.of_store().map_or("try again", after_store_error);
    Refusal::new(error.to_string()).next(next)
}

/// What a command about hosts or credentials was refused, as the user sees it.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn fleet_refused(error: inventory::Error) -> Refusal {
    use inventory::Kind;
    let of_store = error::Error::source(&error).and_then(|source| source.downcast_ref());
    let next = match (error.kind(), of_store) {
        (Kind::Storage, Some(of_store)) => after_store_error(of_store),
        (Kind::Invalid, _) => "mend it and try again; nothing was changed",
        (Kind::Missing, _) => "`holdfast host list` and `holdfast credential list` print the names",
        (Kind::Exists, _) => "choose another name",
        (Kind::Retired, _) => {
            "its history keeps its name; a machine in its place is added under another"
        }
        (Kind::InUse, _) => "give those hosts another first, or use --force",
        (Kind::Conflict, _) => "try again",
        (Kind::Sealed, _) => {
            "put back the data key that belongs to this directory, from its backup; or remove the \
             credential and add it again"
        }
        (Kind::Storage, None) => "run `holdfast doctor` to check disk and data directory",
    };
    Refusal::new(error.to_string()).next(next)
}

/// Written after a command changed the fleet: a running `up` looks at it and acts at once.
pub(crate) const CHANGED: &str = "changed";

/// Tells a running `up` that hosts, credentials or schedules changed. Only hastens what it would find
/// by itself with its next tick, so that a failure is worth a remark and no more.
pub(crate) fn changed(dir: &Path, screen: Screen) {
    let now = RealClock::new().now().nanos().to_string();
    if let Err(error) = RealDisk.replace(&dir.join(CHANGED), now.as_bytes()) {
        screen.remark(format_args!(
            "a running `holdfast up` takes notice with its next tick only: {error}"
        ));
    }
}

/// No core file of this process from here on. One byte and not none: a program that takes the cores of
/// a machine is not asked where the limit is one, and is where it is none (core(5)).
fn no_core() -> bool {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    // Whoever may not lower a limit has one that is lower.
    setrlimit(Resource::Core, limit).is_ok()
}

/// Refuses a directory without a record, and names the command that would make one.
pub(crate) fn must_exist(dir: &Path, made_by: &str) -> Result<(), Refusal> {
    match RealDisk.stat(&dir.join(JOURNAL_DIR)) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(
            Refusal::new(format!("nothing is recorded in {}", dir.display())).next(format!(
                "run `{made_by}`, or name another directory with --data-dir"
            )),
        ),
        Err(error) => Err(cannot_use(dir, &error)),
    }
}

pub(crate) const JOURNAL_DIR: &str = "journal";
pub(crate) const TABLES_DIR: &str = "tables";
/// The index of the ids of events, beside their journal; made after the journal was opened.
pub(crate) const IDS_DIR: &str = "ids";

/// As the HTTP interface waits.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Waits until what was acknowledged elsewhere can be read here.
fn wait_for(store: &Store, lsn: wal::Lsn) -> Result<(), Refusal> {
    let clock = RealClock::new();
    loop {
        let newest = store.newest().map_err(Site::store_refused)?.lsn;
        if newest >= lsn {
            return Ok(());
        }
        if clock.monotonic() >= WAIT_MAX {
            return Err(Refusal::new(format!(
                "after {} s the newest commit here is at lsn {newest}, and {lsn} was waited for",
                WAIT_MAX.as_secs()
            ))
            .next("try again; on a node `holdfast group status` shows how far it is"));
        }
        clock.sleep(LOCK_POLL);
    }
}

/// The store of the `up` that has `dir` open, or the one in `dir`, made where it is missing.
fn reach_store(dir: &Path, mode: wal::Mode, screen: Screen) -> Result<Opened, Refusal> {
    let served = |store| Opened {
        store,
        recovery: "open in the running `holdfast up`".to_owned(),
    };
    // Asked first: whoever serves it has it locked for as long as it runs.
    if let Some(store) = beside::reach(dir)? {
        return Ok(served(store));
    }
    refuse_node(dir)?;
    make(dir)?;
    match lock_journal(dir, mode, screen, || beside::reach(dir))? {
        Got::Journal(journal, recovery) => {
            open_tables(dir, journal, &recovery, scan::tables(), screen)
        }
        Got::Served(store) => Ok(served(store)),
    }
}

/// Opens journal and store in `dir`, making what is missing.
pub(crate) fn open_store(
    dir: &Path,
    mode: wal::Mode,
    tables: Vec<Table>,
    screen: Screen,
) -> Result<Opened, Refusal> {
    make(dir)?;
    match lock_journal(dir, mode, screen, || Ok(None::<Infallible>))? {
        Got::Journal(journal, recovery) => open_tables(dir, journal, &recovery, tables, screen),
        Got::Served(none) => match none {},
    }
}

/// Makes the data directory.
pub(crate) fn make(dir: &Path) -> Result<(), Refusal> {
    RealDisk
        .create_dir_all_synced(dir)
        .map_err(|error| cannot_use(dir, &error))
}

/// How the tables of a site are opened.
pub(crate) fn store_options(dir: &Path) -> Result<Options, Refusal> {
    tables_options(dir, scan::tables())
}

fn tables_options(dir: &Path, tables: Vec<Table>) -> Result<Options, Refusal> {
    let mut options = Options::new(
        dir.join(TABLES_DIR),
        Arc::new(RealDisk),
        Arc::new(RealClock::new()),
        tables,
    );
    if let Some(sizes) = Sizes::asked_for()? {
        options.memtable_bytes = sizes.memtable;
        options.checkpoint_bytes = sizes.checkpoint;
        options.feed_bytes = sizes.feed;
    }
    Ok(options)
}

/// A log that others copy is written by the running node alone: whoever else appended to it would make
/// it another one than theirs.
fn refuse_node(dir: &Path) -> Result<(), Refusal> {
    match node::Settings::load(dir)? {
        None => Ok(()),
        Some(settings) => Err(Refusal::new(format!(
            "{} is the directory of node `{}`, which does not run",
            dir.display(),
            settings.own_name()
        ))
        .next("start it with `holdfast up`; commands work beside it")),
    }
}

fn open_tables(
    dir: &Path,
    journal: Arc<dyn Journal>,
    recovery: &wal::Recovery,
    tables: Vec<Table>,
    screen: Screen,
) -> Result<Opened, Refusal> {
    let (store, report) = Store::open(tables_options(dir, tables)?, journal)
        .map_err(|error| cannot_open_store(dir, &error))?;
    if let Some(cut) = &recovery.cut {
        screen.remark(format_args!(
            "recovered from an interrupted write: {} bytes that were never acknowledged are kept in {}",
            cut.len,
            cut.quarantine.display()
        ));
    }
    Ok(Opened {
        store,
        recovery: report.to_string(),
    })
}

/// What shows beside a journal that the node ran before.
pub(crate) fn evidence_beside(journal: &Path) -> Vec<wal::Evidence> {
    match journal.parent() {
        Some(dir) if journal.ends_with(JOURNAL_DIR) => [
            ("the store's tables", TABLES_DIR),
            ("the ids of events", IDS_DIR),
        ]
        .map(|(what, name)| wal::Evidence::new(what, dir.join(name), wal::Sign::Present))
        .to_vec(),
        _ => Vec::new(),
    }
}

/// What became of waiting for a directory.
enum Got<T> {
    Journal(Arc<dyn Journal>, wal::Recovery),
    /// Whoever has it serves it.
    Served(T),
}

/// Waits for whoever has the directory, for [`LOCK_WAIT`] at most, and asks `served` meanwhile: it may
/// be an `up` that has just been started.
fn lock_journal<T>(
    dir: &Path,
    mode: wal::Mode,
    screen: Screen,
    served: impl Fn() -> Result<Option<T>, Refusal>,
) -> Result<Got<T>, Refusal> {
    let clock = RealClock::new();
    let mut told = false;
    loop {
        let mut options = wal::Options::on_this_machine(dir.join(JOURNAL_DIR));
        options.holder = holder();
        options.mode = mode;
        if let Some(sizes) = Sizes::asked_for()? {
            options.segment_bytes = sizes.segment;
        }
        options.evidence = evidence_beside(&options.dir);
        match wal::Local::open(options) {
            Ok((journal, recovery)) => return Ok(Got::Journal(Arc::new(journal), recovery)),
            Err(error) if error.kind() == wal::Kind::Locked && clock.monotonic() < LOCK_WAIT => {
                if let Some(served) = served()? {
                    return Ok(Got::Served(served));
                }
                if !told {
                    screen.remark(format_args!("waiting: {error}"));
                    told = true;
                }
                clock.sleep(LOCK_POLL);
            }
            Err(error) => return Err(cannot_open_journal(dir, &error)),
        }
    }
}

pub(crate) fn cannot_use(dir: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(format!("data directory {}: {error}", dir.display()))
        .next("run as a user who may write there, or name another with --data-dir DIR")
}

pub(crate) fn cannot_open_journal(dir: &Path, error: &wal::Error) -> Refusal {
    let refusal = Refusal::new(format!("data directory {}: {error}", dir.display()));
    refusal.next(match error.kind() {
        wal::Kind::Locked => {
            "wait for that process or stop it; beside a running `holdfast up` most commands work"
                .to_owned()
        }
        wal::Kind::Full => {
            "free space on its file system, then try again; nothing is harmed".to_owned()
        }
        wal::Kind::Corrupt => after_damage(error.cause(), damaged(dir, error)),
        _ => "check the disk and the permissions with `holdfast doctor`".to_owned(),
    })
}

/// The journal in `dir`, or `dir` itself, that an error is about: the error names it or a file in it.
fn damaged<'a>(dir: &'a Path, error: &'a wal::Error) -> &'a Path {
    match error.path() {
        Some(path) if path.is_dir() => path,
        Some(path) => path.parent().unwrap_or(dir),
        None => dir,
    }
}

pub(crate) fn cannot_open_store(dir: &Path, error: &store::Error) -> Refusal {
    let refusal = Refusal::new(format!("data directory {}: {error}", dir.display()));
    refusal.next(match error.kind() {
        store::Kind::Version => "use the version of Holdfast that wrote it, or a later one",
        store::Kind::Full => "free space on its file system, then try again; nothing is harmed",
        store::Kind::Corrupt => "nothing was changed; copy it away first, then check the disk",
        _ => "check the disk and the permissions with `holdfast doctor`",
    })
}

/// Characters of the command line in a lock file: a line on most terminals.
const HOLDER_COMMAND_MAX: usize = 120;

/// What a lock file says of its holder.
pub(crate) fn holder() -> String {
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let command: String = safe(&words.join(" "))
        .chars()
        .take(HOLDER_COMMAND_MAX)
        .collect();
    format!("pid {} (holdfast {command})", std::process::id())
}

/// Set by SIGINT and SIGTERM. A second signal ends the process at once, which loses nothing either.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>, Refusal> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Refusal::new("signals cannot be handled").source(error))?;
    }
    Ok(stop)
}
