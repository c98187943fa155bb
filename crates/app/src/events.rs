//! The events of a data directory: opened by whoever serves, drains or asks; or, when another
//! process has them open, reached through the socket that it serves.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use events::{Cursors, Log, log};
use wal::Journal;
use world::{Clock, Disk, RealClock, RealDisk};

use crate::{
    config::{
        Config,
        events::{OnFull, Retention},
    },
    exit::Refusal,
    screen::Screen,
    site,
    sizes::Sizes,
};

pub(crate) mod client;

/// Below the data directory.
pub(crate) const DIR: &str = "events";
/// Unix socket of the HTTP interface, below [`DIR`].
pub(crate) const API_SOCKET: &str = "api";
/// Unix socket of JSON lines, below [`DIR`].
pub(crate) const LINES_SOCKET: &str = "socket";
const JOURNAL_DIR: &str = "journal";
const CURSORS_DIR: &str = "cursors";
const DEAD_LETTER_DIR: &str = "dead-letter";

/// How long to wait for a log that another process has open without serving it: `append` and `query`
/// are done in a moment.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Segments of journals that hold little: cursors and what receivers refused.
const SMALL_SEGMENT_BYTES: u64 = 4 << 20;

/// The opened log with the cursors of its drains. While it is open, nobody else has it.
pub(crate) struct Events {
    pub(crate) log: Arc<Log>,
    /// What `log` is over; to ask for its counts and to close it.
    pub(crate) journal: Arc<wal::Local>,
    pub(crate) cursors: Arc<Cursors>,
    dir: PathBuf,
    mode: wal::Mode,
}

/// How the events can be reached.
pub(crate) enum Access {
    Open(Box<Events>),
    /// Another process serves them on this socket.
    Served(PathBuf),
}

impl Events {
    /// Opens the log, making it when it is not there; waits a little for whoever has it.
    pub(crate) fn open(config: &Config, screen: Screen) -> Result<Self, Refusal> {
        let dir = config.data_dir()?.join(DIR);
        let clock = RealClock::new();
        let mut told = false;
        loop {
            match Self::try_open(&dir, config)? {
                Ok(events) => return Ok(events),
                Err(error) if clock.monotonic() < LOCK_WAIT => {
                    if !told {
                        screen.remark(format_args!("waiting: {error}"));
                        told = true;
                    }
                    clock.sleep(LOCK_POLL);
                }
                Err(error) => return Err(refused(&error)),
            }
        }
    }

    /// Opens the log, or finds the socket of the process that serves it.
    pub(crate) fn reach(config: &Config, screen: Screen) -> Result<Access, Refusal> {
        let dir = config.data_dir()?.join(DIR);
        match Self::try_open(&dir, config)? {
            Ok(events) => Ok(Access::Open(Box::new(events))),
            Err(_) if is_served(&dir)? => Ok(Access::Served(dir.join(API_SOCKET))),
            Err(_) => Self::open(config, screen).map(|events| Access::Open(Box::new(events))),
        }
    }

    /// Like [`Events::reach`], of events that are there: a question never creates anything.
    pub(crate) fn reach_existing(config: &Config, screen: Screen) -> Result<Access, Refusal> {
        site::must_exist(&config.data_dir()?.join(DIR), "holdfast events append")?;
        Self::reach(config, screen)
    }

    /// The inner error: another process has it.
    fn try_open(dir: &Path, config: &Config) -> Result<Result<Self, wal::Error>, Refusal> {
        RealDisk
            .create_dir_all_synced(dir)
            .map_err(|error| site::cannot_use(dir, &error))?;
        // The cursors first: they must hold what drains need before retention looks at the events.
        let cursors_dir = dir.join(CURSORS_DIR);
        let mode = config.mode();
        let sizes = Sizes::asked_for()?;
        let cursors = match open_journal(&cursors_dir, mode, sizes) {
            Ok(cursors) => cursors,
            Err(error) if error.kind() == wal::Kind::Locked => return Ok(Err(error)),
            Err(error) => return Err(site::cannot_open_journal(&cursors_dir, &error)),
        };
        let journal = match open_events(
            &dir.join(JOURNAL_DIR),
            mode,
            sizes,
            &config.events_retention,
        ) {
            Ok(journal) => journal,
            Err(error) if error.kind() == wal::Kind::Locked => return Ok(Err(error)),
            Err(error) if error.kind() == wal::Kind::Invalid => {
                return Err(Refusal::new(error.to_string())
                    .next("correct events.ceiling_bytes or events.on_full"));
            }
            Err(error) => return Err(site::cannot_open_journal(dir, &error)),
        };
        let cursors = Cursors::open(cursors, over(&journal)).map_err(|error| refused(&error))?;
        let options = log::Options::new(
            over(&journal),
            Arc::new(RealDisk),
            Arc::new(RealClock::new()),
            dir.join(site::IDS_DIR),
        );
        let (log, _) = Log::open(options).map_err(|error| refused(&error))?;
        Ok(Ok(Self {
            log: Arc::new(log),
            journal,
            cursors: Arc::new(cursors),
            dir: dir.to_owned(),
            mode,
        }))
    }

    /// The journal of events that a receiver refused; opened by the drain alone.
    pub(crate) fn dead_letter(&self) -> Result<Arc<dyn Journal>, Refusal> {
        let dir = self.dir.join(DEAD_LETTER_DIR);
        open_journal(&dir, self.mode, Sizes::asked_for()?)
            .map(|journal| over(&journal))
            .map_err(|error| site::cannot_open_journal(&dir, &error))
    }

    /// Closes in order, so that the next open has nothing to recover. What was acknowledged is durable
    /// before this and stays so when it does not succeed.
    pub(crate) fn close(&self, screen: Screen) {
        let closed = self.log.close().map_err(|error| error.to_string());
        let settled = self.journal.close().map_err(|error| error.to_string());
        if let Err(error) = closed.and(settled) {
            screen.remark(format_args!(
                "every event acknowledged is safe, but tidying up was put off: {error}"
            ));
        }
    }

    /// Where the sockets are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn over(journal: &Arc<wal::Local>) -> Arc<dyn Journal> {
    Arc::<wal::Local>::clone(journal)
}

/// A journal that holds little.
fn open_journal(
    dir: &Path,
    mode: wal::Mode,
    sizes: Option<Sizes>,
) -> Result<Arc<wal::Local>, wal::Error> {
    let mut options = wal::Options::on_this_machine(dir);
    options.mode = mode;
    options.segment_bytes = sizes.map_or(SMALL_SEGMENT_BYTES, |sizes| sizes.segment);
    options.holder = site::holder();
    let (journal, _) = wal::Local::open(options)?;
    Ok(Arc::new(journal))
}

/// The journal of the events, kept as long as the configuration says.
fn open_events(
    dir: &Path,
    mode: wal::Mode,
    sizes: Option<Sizes>,
    retention: &Retention,
) -> Result<Arc<wal::Local>, wal::Error> {
    let mut options = wal::Options::on_this_machine(dir);
    options.mode = mode;
    if let Some(sizes) = sizes {
        options.segment_bytes = sizes.segment;
    }
    options.holder = site::holder();
    options.evidence = site::evidence_beside(dir);
    options.retention = wal::Retention::Policy(wal::Limits {
        bytes_max: Some(retention.bytes.value),
        age_max: retention.age.value,
    });
    options.ceiling = retention.ceiling.value.map(|bytes| wal::Ceiling {
        bytes,
        on_reaching: match retention.on_full.value {
            OnFull::Refuse => wal::OnReaching::Refuse,
            OnFull::DropOldest => wal::OnReaching::DropOldest,
        },
    });
    let (journal, _) = wal::Local::open(options)?;
    Ok(Arc::new(journal))
}

fn is_served(dir: &Path) -> Result<bool, Refusal> {
    RealDisk
        .stat(&dir.join(API_SOCKET))
        .map(|found| found.is_some())
        .map_err(|error| site::cannot_use(dir, &error))
}

/// An error of the events as the user sees it.
pub(crate) fn refused(error: &(dyn std::error::Error + 'static)) -> Refusal {
    let kind = match (
        error.downcast_ref::<events::Error>(),
        error.downcast_ref::<wal::Error>(),
    ) {
        (Some(error), _) => error.kind(),
        (_, Some(error)) if error.kind() == wal::Kind::Locked => events::Kind::Locked,
        _ => events::Kind::Io,
    };
    Refusal::new(error.to_string()).next(match kind {
        events::Kind::Invalid => "correct the event and send it again",
        events::Kind::Overloaded => "try again in a moment",
        events::Kind::Full => {
            "free space on the file system of the data directory, then try again; nothing is harmed"
        }
        events::Kind::Poisoned | events::Kind::Closed => {
            "check the disk with `holdfast doctor`, then start again; what was acknowledged is kept"
        }
        events::Kind::Fenced => "another site writes now; send events there",
        events::Kind::Locked => "wait for that process or stop it",
        events::Kind::Corrupt => {
            "nothing was changed; copy the directory away first, then check the disk"
        }
        events::Kind::OutOfRange => "ask for a position within the retained range",
        events::Kind::Io => "check the disk and the permissions with `holdfast doctor`",
    })
}
