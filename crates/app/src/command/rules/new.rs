//! `holdfast rules new`: the file a first rule begins with.

use std::{path::Path, sync::Arc};

use scan::{
    collect::{self, Needs},
    judge::known_platform,
    rule::{KNOWN_PLATFORMS, skeleton},
    target::LocalTarget,
};
use serde_json::json;
use world::{Disk, RealClock, RealDisk, disk::Open};

use crate::{
    cli::{Output, rules::New},
    config::Config,
    exit::{Exit, Refusal},
    ruleset::Ruleset,
    screen::Screen,
};

/// What a rule is begun for where this machine is no system that the pack knows.
const PLATFORM_ELSEWHERE: &str = "debian-12";

pub(super) fn run(asked: &New, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = asked
        .dir
        .as_deref()
        .or(config.scan_rules_dir.value.as_deref())
        .ok_or_else(|| {
            Refusal::new("no directory for the rule")
                .next("name one with --dir, or set scan.rules_dir in the configuration")
        })?;
    if let Some(taken) = Ruleset::known(config).get(&asked.id) {
        return Err(Refusal::new(format!(
            "the id `{}` is taken by a rule: {}",
            asked.id, taken.title
        ))
        .next(format!(
            "choose another; `holdfast rules show {}` prints that one",
            asked.id
        )));
    }
    let text = skeleton(&asked.id, platform(asked.platform.as_deref())?).map_err(|why| {
        Refusal::new(format!("`{}` cannot be a rule: {why}", asked.id))
            .next("for example `holdfast rules new motd-is-short`")
    })?;
    let dir = std::path::absolute(dir).map_err(|error| not_written(dir, error))?;
    let file = dir.join(format!("{}.yaml", asked.id));
    write_first(&file, text.as_bytes()).map_err(|error| not_written(&file, error))?;
    let result = match config.output.value {
        Output::Json => super::super::json(&json!({"rule": asked.id, "file": file}))?,
        Output::Csv | Output::Table => format!("{}\n", file.display()),
    };
    screen.result(&result)?;
    let dir = dir.display();
    screen.remark(format_args!(
        "It works as it stands. Change it, then:\n  holdfast rules lint {dir}\n  \
         holdfast rules test {dir}\n  holdfast scan --rules-dir {dir}"
    ));
    Ok(Exit::Clean)
}

/// What stands already is not replaced.
fn write_first(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = file.parent().unwrap_or_else(|| Path::new("/"));
    if RealDisk.stat(dir)?.is_none() {
        RealDisk.create_dir_all_synced(dir)?;
    }
    let handle = RealDisk.open(file, Open::CreateNew)?;
    handle.write_all_at(bytes, 0)?;
    handle.sync_all()?;
    RealDisk.sync_dir(dir)
}

fn not_written(file: &Path, error: std::io::Error) -> Refusal {
    let next = if error.kind() == std::io::ErrorKind::AlreadyExists {
        "choose another id, or remove the file first"
    } else {
        "name a directory that can be written with --dir"
    };
    Refusal::new(format!("rule {} cannot be written", file.display()))
        .source(error)
        .next(next)
}

fn platform(asked: Option<&str>) -> Result<&str, Refusal> {
    match asked {
        Some(name) if KNOWN_PLATFORMS.contains(&name) => Ok(name),
        Some(name) => Err(Refusal::new(format!("unknown platform `{name}`"))
            .next(format!("one of {}", KNOWN_PLATFORMS.join(", ")))),
        None => Ok(this_machine().unwrap_or(PLATFORM_ELSEWHERE)),
    }
}

fn this_machine() -> Option<&'static str> {
    let clock = Arc::new(RealClock::new());
    let target = LocalTarget::new("/", Arc::<RealClock>::clone(&clock)).ok()?;
    let os: Vec<_> = collect::list()
        .iter()
        .copied()
        .filter(|collector| collector.name == "os")
        .collect();
    let facts = collect::collect_only(
        &os,
        Arc::new(target),
        Arc::new(Needs::default()),
        Arc::new(()),
        clock,
    );
    known_platform(&facts)
}
