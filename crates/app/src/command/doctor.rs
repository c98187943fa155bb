//! `holdfast doctor`: can this machine keep what it is given?

use std::{os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use scan::collect;
use serde::Serialize;
use world::{Clock, Disk, RealClock, RealDisk, disk::Open};

use crate::{
    cli::Output,
    config::Config,
    exit::{Exit, Refusal},
    present::{Palette, csv, safe, wrapped},
    ruleset::Ruleset,
    screen::{self, Screen},
    site::Site,
};

/// Overwrites measured for the sync check: enough for a median, about 20 ms on a usual disk.
const SYNCS: usize = 64;

/// A sync faster than this does not reach any medium: an NVMe flush with power-loss protection takes
/// about 10 µs and more, a system call that does nothing about 1 µs.
const SYNC_SUSPICIOUS: Duration = Duration::from_micros(5);

/// Room asked for: a year of one host's history is far below it, a journal segment needs 64 MiB.
const SPACE_WANTED: u64 = 1 << 30;

/// File handles asked for: segments, table files and the walk together use a few hundred.
const FILES_WANTED: u64 = 1024;

/// 2025-01-01: before this program existed, so a clock that says so is wrong.
const CLOCK_EARLIEST_SECONDS: u64 = 1_735_689_600;

/// File systems that forget at power loss, or cannot be locked reliably, by their magic numbers
/// (statfs(2)).
const UNFIT: [(u64, &str, &str); 4] = [
    (
        0x0102_1994,
        "tmpfs",
        "it is memory and is gone at power loss",
    ),
    (
        0x8584_58f6,
        "ramfs",
        "it is memory and is gone at power loss",
    ),
    (
        0x6969,
        "nfs",
        "locks and syncs over the network are not what they say",
    ),
    (
        0xff53_4d42,
        "cifs",
        "locks and syncs over the network are not what they say",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    next: String,
}

impl Finding {
    fn new(check: &'static str, state: State, found: impl Into<String>) -> Self {
        Self {
            check,
            state,
            found: found.into(),
            next: String::new(),
        }
    }

    fn refused(check: &'static str, state: State, refusal: Refusal) -> Self {
        let (found, next) = refusal.into_parts();
        Self::new(check, state, found).next(next.unwrap_or_default())
    }

    fn next(mut self, step: impl Into<String>) -> Self {
        self.next = step.into();
        self
    }
}

pub(crate) fn run(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = config.data_dir()?;
    let mut findings = vec![data_directory(dir)];
    if findings[0].state != State::Fail {
        findings.extend([
            file_system(dir),
            space(dir),
            syncs(dir),
            record(config, screen),
        ]);
    }
    findings.extend([
        clock(),
        clock_synchronized(),
        privilege(),
        open_files(),
        rules(config),
    ]);
    let text = match config.output.value {
        Output::Json => super::json(&findings)?,
        Output::Csv => csv::lines(
            ["check", "state", "found", "next"],
            findings.iter().map(|finding| {
                let state = state_name(finding.state).to_owned();
                [
                    finding.check.to_owned(),
                    state,
                    finding.found.clone(),
                    finding.next.clone(),
                ]
            }),
        ),
        Output::Table => words(&findings),
    };
    screen.result(&text)?;
    let failed = findings.iter().any(|finding| finding.state == State::Fail);
    Ok(if failed { Exit::Findings } else { Exit::Clean })
}

const fn state_name(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "fail",
    }
}

/// Columns before what was found: two, the mark, the name of the check and what separates them.
const FOUND_COLUMN: usize = 21;

fn words(findings: &[Finding]) -> String {
    let width = screen::width().map(usize::from);
    findings
        .iter()
        .map(|finding| {
            let (style, mark) = match finding.state {
                State::Ok => (Palette::GOOD, "✓"),
                State::Warn => (Palette::DOUBT, "!"),
                State::Fail => (Palette::BAD, "✗"),
            };
            let next = if finding.next.is_empty() {
                String::new()
            } else {
                let next = wrapped(&safe(&finding.next), "      next: ".len(), width);
                format!("      next: {next}\n")
            };
            format!(
                "  {style}{mark}{style:#} {:<16} {}\n{next}",
                finding.check,
                wrapped(&safe(&finding.found), FOUND_COLUMN, width)
            )
        })
        .collect()
}

fn data_directory(dir: &Path) -> Finding {
    let check = "data directory";
    if let Err(error) = RealDisk.create_dir_all_synced(dir) {
        return Finding::new(check, State::Fail, format!("{}: {error}", dir.display()))
            .next("run as a user who may write there, or pass --data-dir DIR");
    }
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.uid() != rustix::process::geteuid().as_raw() => {
            let found = format!("{} belongs to uid {}", dir.display(), metadata.uid());
            Finding::new(check, State::Fail, found).next("run as that user, or pass --data-dir DIR")
        }
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            let found = format!(
                "{} has mode {:04o}",
                dir.display(),
                metadata.mode() & 0o7777
            );
            Finding::new(check, State::Warn, found).next(format!("chmod 0700 {}", dir.display()))
        }
        Ok(_) => Finding::new(check, State::Ok, dir.display().to_string()),
        Err(error) => Finding::new(check, State::Fail, format!("{}: {error}", dir.display())),
    }
}

fn file_system(dir: &Path) -> Finding {
    let check = "file system";
    match rustix::fs::statfs(dir) {
        Ok(stat) => {
            let magic = u64::try_from(stat.f_type).unwrap_or_default();
            match UNFIT.iter().find(|(unfit, ..)| *unfit == magic) {
                Some((_, name, why)) => Finding::new(check, State::Fail, format!("{name}: {why}"))
                    .next("put the data directory on a local disk with --data-dir DIR"),
                None => Finding::new(check, State::Ok, format!("local (type {magic:#x})")),
            }
        }
        Err(error) => Finding::new(check, State::Warn, error.to_string()),
    }
}

fn space(dir: &Path) -> Finding {
    let check = "disk space";
    match RealDisk.space(dir) {
        Ok(space) => {
            let mib = |bytes: u64| bytes >> 20;
            let found = format!(
                "{} MiB of {} MiB free",
                mib(space.available),
                mib(space.total)
            );
            if space.available < SPACE_WANTED {
                Finding::new(check, State::Warn, found).next("free at least 1 GiB")
            } else {
                Finding::new(check, State::Ok, found)
            }
        }
        Err(error) => Finding::new(check, State::Fail, error.to_string()),
    }
}

/// What one durable write costs here. A disk that answers too fast keeps its promise in a cache.
fn syncs(dir: &Path) -> Finding {
    let check = "disk sync";
    // A name of its own, since two doctors may look at once.
    let path = dir.join(format!("doctor-{}.tmp", std::process::id()));
    let measured = measure_syncs(&path);
    // Also after an error: what a full disk could not take is still in the way.
    drop(RealDisk.remove_file(&path));
    match measured {
        Ok(median) if median < SYNC_SUSPICIOUS => {
            let found = format!(
                "{} ns a sync: nothing that fast reaches a disk",
                median.as_nanos()
            );
            Finding::new(check, State::Warn, found).next(
                "check the write cache of disk and hypervisor; `holdfast load` is the plug test",
            )
        }
        Ok(median) => Finding::new(
            check,
            State::Ok,
            format!("{} µs a sync (median of {SYNCS})", median.as_micros()),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Finding::new(check, State::Fail, error.to_string()).next("free space on it")
        }
        Err(error) => Finding::new(check, State::Fail, error.to_string())
            .next("the disk does not take a write and a sync: look at the kernel log"),
    }
}

fn measure_syncs(path: &Path) -> std::io::Result<Duration> {
    let file = RealDisk.open(path, Open::CreateNew)?;
    let block = [0x5A; 4096];
    file.write_all_at(&block, 0)?;
    file.sync_all()?;
    let clock = RealClock::new();
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begin = clock.monotonic();
        file.write_all_at(&block, 0)?;
        file.sync_data()?;
        times.push(clock.monotonic().saturating_sub(begin));
    }
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

fn record(config: &Config, screen: Screen) -> Finding {
    let check = "record";
    let open = || -> Result<String, Refusal> {
        let site = Site::open(config, screen)?;
        let hosts = site.ledger().hosts().map_err(Site::refused)?;
        let scans: u64 = hosts.iter().map(|host| host.scans).sum();
        let found = format!("{} hosts, {scans} scans; {}", hosts.len(), site.recovery());
        site.close(screen);
        Ok(found)
    };
    match open() {
        Ok(found) => Finding::new(check, State::Ok, found),
        Err(refusal) => Finding::refused(check, State::Fail, refusal),
    }
}

fn clock() -> Finding {
    let seconds = RealClock::new().now().nanos() / 1_000_000_000;
    let found = crate::moment::rfc3339(RealClock::new().now());
    if seconds < CLOCK_EARLIEST_SECONDS {
        Finding::new("clock", State::Fail, found).next("set the clock: history is dated by it")
    } else {
        Finding::new("clock", State::Ok, found)
    }
}

fn clock_synchronized() -> Finding {
    let check = "time sync";
    let collectors: Vec<&'static collect::Collector> = collect::list()
        .iter()
        .copied()
        .filter(|collector| collector.name == "time_sync")
        .collect();
    let target = match super::this_machine() {
        Ok(target) => target,
        Err(refusal) => return Finding::refused(check, State::Warn, refusal),
    };
    let facts = collect::collect_only(
        &collectors,
        target,
        Arc::new(collect::Needs::default()),
        Arc::new(()),
        Arc::new(RealClock::new()),
    );
    let synchronized = facts
        .facts
        .get("time_sync")
        .and_then(|fact| fact.get("synchronized"));
    match synchronized.and_then(serde_json::Value::as_bool) {
        Some(true) => Finding::new(check, State::Ok, "the kernel clock is synchronized"),
        Some(false) => Finding::new(check, State::Warn, "the kernel clock is not synchronized")
            .next("run a time service such as chrony or systemd-timesyncd"),
        None => Finding::new(
            check,
            State::Warn,
            "whether the clock is synchronized cannot be told",
        ),
    }
}

fn privilege() -> Finding {
    let check = "privilege";
    if rustix::process::geteuid().is_root() {
        Finding::new(check, State::Ok, "root: everything can be looked at")
    } else {
        Finding::new(
            check,
            State::Warn,
            "not root: what only root may read will be `not assessed`",
        )
        .next("run as root for a complete scan")
    }
}

fn open_files() -> Finding {
    let check = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.current {
        Some(current) if current < FILES_WANTED => {
            Finding::new(check, State::Warn, format!("limit {current}"))
                .next(format!("ulimit -n {FILES_WANTED}"))
        }
        Some(current) => Finding::new(check, State::Ok, format!("limit {current}")),
        None => Finding::new(check, State::Ok, "no limit"),
    }
}

fn rules(config: &Config) -> Finding {
    let check = "rules";
    match Ruleset::load(config, None) {
        Ok(rules) => {
            let faults = rules.lint().len();
            let found = format!("{} rules", rules.all().len());
            if faults == 0 {
                Finding::new(check, State::Ok, found)
            } else {
                Finding::new(check, State::Fail, format!("{found}, {faults} faults"))
                    .next("`holdfast rules lint` names them")
            }
        }
        Err(refusal) => Finding::refused(check, State::Fail, refusal),
    }
}
