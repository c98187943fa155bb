//! `holdfast journal`: looking at, rescuing and measuring journals, without a server.

mod bench;
mod explain;
mod export;
mod import;
mod inspect;
mod older;
mod repair;
mod verify;

use std::path::{Path, PathBuf};

use world::{Disk, RealDisk};

use crate::{
    cli::journal::{Action, Place},
    config::Config,
    exit::{Exit, Refusal},
    screen::Screen,
    site,
    sizes::Sizes,
};

pub(crate) use explain::page;

/// Where a journal lies in a data directory.
const IN_DATA_DIR: [&str; 2] = ["journal", "events/journal"];

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        Action::Inspect(inspect) => inspect::run(inspect, config, screen),
        Action::Verify(place) => verify::run(place, config, screen),
        Action::Repair(repair) => repair::repair(repair, config, screen),
        Action::Reset(reset) => repair::reset(reset, config, screen),
        Action::Export(export) => export::run(export, config, screen),
        Action::Import(import) => import::run(import, config, screen),
        Action::Bench(bench) => bench::run(bench, config, screen),
        Action::Explain { code } => explain::run(code.as_deref(), screen),
    }
}

/// What a directory turned out to be.
enum Found {
    Journal(PathBuf),
    /// A telemetry log of version 1.
    Older(PathBuf),
}

/// The journal that is meant. A data directory is looked through; where it holds two, the choice is
/// the operator's.
fn find(place: &Place, config: &Config, screen: Screen) -> Result<Found, Refusal> {
    let dir = absolute(place, config)?;
    if is_older(&dir)? {
        return Ok(Found::Older(dir));
    }
    if looks_like_a_journal(&dir)? {
        return Ok(Found::Journal(dir));
    }
    let mut inside = Vec::new();
    for name in IN_DATA_DIR {
        let candidate = dir.join(name);
        if looks_like_a_journal(&candidate)? {
            inside.push(candidate);
        }
    }
    match <[PathBuf; 1]>::try_from(inside) {
        Ok([journal]) => {
            screen.remark(format_args!("the journal {}", journal.display()));
            Ok(Found::Journal(journal))
        }
        Err(none) if none.is_empty() => {
            Err(Refusal::new(format!("no journal in {}", dir.display()))
                .next("name a directory that holds `identity`, `safe-point` and `.seg` files"))
        }
        Err(several) => {
            let names: Vec<String> = several
                .iter()
                .map(|dir| dir.display().to_string())
                .collect();
            Err(
                Refusal::new(format!("{} holds more than one journal", dir.display()))
                    .next(format!("name one: {}", names.join(" or "))),
            )
        }
    }
}

/// The same, where version 1 is not enough.
fn find_journal(place: &Place, config: &Config, screen: Screen) -> Result<PathBuf, Refusal> {
    match find(place, config, screen)? {
        Found::Journal(dir) => Ok(dir),
        Found::Older(dir) => Err(older_log(&dir)),
    }
}

/// What only journals can have done to them was asked of a version 1 log.
fn older_log(dir: &Path) -> Refusal {
    let dir = dir.display();
    Refusal::new(format!("{dir} holds a version 1 telemetry log, no journal")).next(format!(
        "`holdfast events import {dir}` takes it in; `journal inspect` and `journal verify` read it"
    ))
}

fn absolute(place: &Place, config: &Config) -> Result<PathBuf, Refusal> {
    let dir = match place.dir() {
        Some(dir) => dir,
        None => config.data_dir()?,
    };
    std::path::absolute(dir).map_err(|error| {
        Refusal::new(format!("directory {}", dir.display()))
            .source(error)
            .next("name a directory")
    })
}

fn is_older(dir: &Path) -> Result<bool, Refusal> {
    let options = events::v1::Options::on_this_machine();
    match RealDisk.stat(dir) {
        Ok(None) => Ok(false),
        Ok(Some(_)) => events::v1::is_here(dir, &options).map_err(|error| {
            Refusal::new(error.to_string()).next("check the path and the permissions")
        }),
        Err(error) => Err(unreadable(dir, error)),
    }
}

/// One file that only journals have is enough: what is damaged may have lost the others.
fn looks_like_a_journal(dir: &Path) -> Result<bool, Refusal> {
    match std::fs::metadata(dir) {
        Err(error) if is_absent(&error) => return Ok(false),
        Err(error) => return Err(unreadable(dir, error)),
        Ok(metadata) if !metadata.is_dir() => return Ok(false),
        Ok(_) => {}
    }
    let entries = RealDisk.list(dir).map_err(|error| unreadable(dir, error))?;
    Ok(entries.iter().any(|entry| {
        ["identity", "safe-point", "reset-order", "import-order"].contains(&&*entry.name)
            || entry.name.ends_with(".seg")
    }))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

fn unreadable(dir: &Path, error: std::io::Error) -> Refusal {
    Refusal::new(format!("directory {}", dir.display()))
        .source(error)
        .next("check the path, and run as a user who may read there")
}

/// How the journal in `dir` is opened or looked at.
fn options(dir: &Path) -> Result<wal::Options, Refusal> {
    let mut options = wal::Options::on_this_machine(dir);
    options.holder = site::holder();
    if let Some(sizes) = Sizes::asked_for()? {
        options.segment_bytes = sizes.segment;
    }
    options.evidence = site::evidence_beside(dir);
    Ok(options)
}

/// An error of a journal as the user of these commands sees it.
fn refused(dir: &Path, error: &wal::Error) -> Refusal {
    let next = match error.kind() {
        wal::Kind::Locked => {
            "stop that process; inspect, verify and export work beside it".to_owned()
        }
        wal::Kind::Full => "free space on its file system, then try again".to_owned(),
        wal::Kind::Corrupt => after_damage(error.cause(), dir),
        wal::Kind::Invalid => "see `holdfast journal --help`".to_owned(),
        _ => "see what the kernel's log says of the disk, and check the permissions; on read errors, \
              rescue with `journal export --salvage`, or work on a copy made with ddrescue"
            .to_owned(),
    };
    Refusal::new(format!("journal {}: {error}", dir.display())).next(next)
}

/// Where a cause code is explained, and the ways out.
pub(crate) fn after_damage(cause: Option<wal::Cause>, dir: &Path) -> String {
    let dir = dir.display();
    if cause == Some(wal::Cause::VersionUnknown) {
        return format!(
            "nothing is damaged and nothing was changed; start the Holdfast that wrote {dir}, or a \
             later one; {} says more (`holdfast journal explain VERSION_UNKNOWN`)",
            page("VERSION_UNKNOWN")
        );
    }
    let explained = match cause {
        Some(cause) => format!(
            "{} says what happened and what to do (`holdfast journal explain {}`); ",
            page(cause.code()),
            cause.code()
        ),
        None => String::new(),
    };
    format!(
        "nothing was changed; {explained}copy {dir} away first, then put back a copy of the whole \
         directory, or rescue with `holdfast journal export {dir} --salvage` and begin anew with \
         `holdfast journal reset {dir} --reason TEXT`"
    )
}
