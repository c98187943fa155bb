//! `holdfast events import DIR`: a version 1 telemetry log into the log of events.
//!
//! The whole log is judged first; what is refused stores nothing. Each event carries an id made of all
//! frames up to it, which is kept once: an import that was interrupted, or is run again, stores only
//! what is missing. The version 1 files are read, never written, except by the operator's two
//! variables, of which this command is the only reader.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use events::{
    NewEvent,
    v1::{self, SafeSequence, Survey, Upgrade},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::append;
use crate::{
    cli::{Output, events::Import},
    command::{journal::page, json, now},
    config::Config,
    events::{Access, Events, refused},
    exit::{Exit, Refusal},
    present::{csv, safe},
    screen::Screen,
    site,
};

/// Writing to a string.
const WRITTEN: &str = "writing to a string cannot fail";
/// Gaps, duplicates and refused frames shown to a person; JSON and the report list more.
const SHOWN_MAX: usize = 20;

pub(crate) fn run(import: &Import, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = version_1(&import.dir)?;
    let mut options = v1::Options::on_this_machine();
    options.holder = site::holder();
    let mut done = Done {
        dir: dir.clone(),
        is_dry_run: import.dry_run,
        ..Done::default()
    };
    if !import.dry_run {
        take_over(&dir, &options, &mut done, screen)?;
    }
    let survey = v1::survey(&dir, &options)?;
    done.behind = behind(&survey);
    if let Some(refusal) = survey.refusal {
        return Err(refusal.into());
    }
    let bar = bar(&survey, screen);
    let result = if import.dry_run {
        v1::import_with(&dir, &options, now(), |batch| {
            bar.inc(batch.len() as u64);
            Ok::<_, Refusal>(vec![false; batch.len()])
        })
    } else {
        keep_all(&dir, &options, &bar, config, screen)
    };
    bar.finish_and_clear();
    done.imported = result?;
    screen.result(&match config.output.value {
        Output::Json => json(&done.document())?,
        Output::Csv => done.csv_lines(),
        Output::Table => done.words(),
    })?;
    Ok(match done.imported.refused {
        0 => Exit::Clean,
        _ => Exit::Incomplete,
    })
}

/// The directory, which must hold a version 1 log: one mistyped would be imported as an empty one.
fn version_1(dir: &Path) -> Result<PathBuf, Refusal> {
    let dir = std::path::absolute(dir).map_err(|error| {
        Refusal::new(format!("directory {}", dir.display()))
            .source(error)
            .next("name a directory")
    })?;
    let options = v1::Options::on_this_machine();
    // With nothing but evidence there is something to say, too: that the log is missing.
    let survey = v1::survey(&dir, &options)?;
    if v1::is_here(&dir, &options)? || !survey.evidence.is_empty() {
        return Ok(dir);
    }
    Err(
        Refusal::new(format!("no version 1 telemetry log in {}", dir.display()))
            .next("name the directory that holds telemetry.wal and telemetry.safe_seq"),
    )
}

/// What the operator's variables ask for, where there is no safe sequence yet. With one they have no
/// effect: opening would cut what lies behind it, and an import leaves the files as they are.
fn take_over(
    dir: &Path,
    options: &v1::Options,
    done: &mut Done,
    screen: Screen,
) -> Result<(), Refusal> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    let asked = v1::Options {
        legacy_upgrade: is_set(v1::LEGACY_UPGRADE),
        operator_reset: is_set(v1::OPERATOR_RESET),
        ..options.clone()
    };
    if !asked.legacy_upgrade && !asked.operator_reset {
        return Ok(());
    }
    let has_safe_seq = v1::survey(dir, options)?.safe_seq != SafeSequence::Missing;
    if has_safe_seq && !v1::is_begun(dir, options)? {
        for name in [v1::LEGACY_UPGRADE, v1::OPERATOR_RESET] {
            if is_set(name) {
                screen.remark(format_args!(
                    "{name} is set and has no effect: {} is there",
                    dir.join(v1::SAFE_SEQ).display()
                ));
            }
        }
        return Ok(());
    }
    let (_, recovery) = v1::Log::open(dir, &asked)?;
    if let Some(upgrade) = &recovery.upgrade {
        screen.remark(warning(upgrade));
    }
    done.upgrade = recovery.upgrade;
    done.was_reset = recovery.was_reset;
    Ok(())
}

fn keep_all(
    dir: &Path,
    options: &v1::Options,
    bar: &ProgressBar,
    config: &Config,
    screen: Screen,
) -> Result<v1::Imported, Refusal> {
    let stop = site::stop_flag()?;
    let access = Events::reach(config, screen)?;
    let mut kept = 0;
    let result = v1::import_with(dir, options, now(), |batch| {
        if stop.load(Ordering::Relaxed) {
            return Err(Refusal::new(format!("stopped after {kept} events"))
                .next("run it again: it goes on with what is missing"));
        }
        let count = batch.len() as u64;
        let known = keep(&access, batch, screen)?;
        kept += count;
        bar.inc(count);
        Ok(known)
    });
    if let Access::Open(events) = &access {
        events.close(screen);
    }
    result
}

/// Of each event, whether it was known.
fn keep(access: &Access, batch: Vec<NewEvent>, screen: Screen) -> Result<Vec<bool>, Refusal> {
    let socket = match access {
        Access::Open(events) => {
            let acks = events.log.append(batch).map_err(|error| refused(&error))?;
            return Ok(acks.iter().map(|ack| ack.is_duplicate).collect());
        }
        Access::Served(socket) => socket,
    };
    let answer = append::send(socket, &batch, screen)?;
    let known: Vec<bool> = answer
        .lines()
        .filter_map(|line| {
            let ack: Value = serde_json::from_str(line).ok()?;
            ack.get("duplicate")?.as_bool()
        })
        .collect();
    if known.len() == batch.len() {
        return Ok(known);
    }
    Err(Refusal::new(format!(
        "the server at {} acknowledged {} of {} events",
        socket.display(),
        known.len(),
        batch.len()
    ))
    .next("run it again: what is there already is not stored twice"))
}

fn bar(survey: &Survey, screen: Screen) -> ProgressBar {
    if !screen.shows_progress() {
        return ProgressBar::hidden();
    }
    let frames = match survey.safe_seq {
        SafeSequence::Is(seq) => seq.0,
        SafeSequence::Missing | SafeSequence::Unreadable => 0,
    };
    let style = ProgressStyle::with_template(
        "{spinner} importing  {wide_bar} {percent}% of {human_len}, {eta} left",
    )
    .expect("the template is valid")
    .progress_chars("█▉▊▋▌▍▎▏░");
    ProgressBar::new(frames).with_style(style)
}

/// Bytes behind the last committed frame: never acknowledged, not imported.
fn behind(survey: &Survey) -> u64 {
    let len = survey.wal_len.unwrap_or(0);
    len.saturating_sub(survey.committed_len)
}

fn warning(upgrade: &Upgrade) -> String {
    let mut text = format!(
        "WARN {} frames taken over from before safe sequences: {} gaps, {} duplicates, {} bytes \
         behind the last frame left out; the old files and report.txt are in {}",
        upgrade.frames,
        upgrade.gaps,
        upgrade.duplicates,
        upgrade.cut,
        upgrade.kept.display()
    );
    for at in upgrade.breaks.iter().take(SHOWN_MAX) {
        let what = if at.is_gap() { "gap" } else { "duplicate" };
        write!(
            text,
            "\n  {what} at frame {}: sequence {} instead of {}",
            at.position, at.found, at.expected
        )
        .expect(WRITTEN);
    }
    if upgrade.gaps + upgrade.duplicates > SHOWN_MAX as u64 {
        text.push_str("\n  and more, in report.txt");
    }
    text
}

/// What was done, for the summary.
#[derive(Default)]
struct Done {
    dir: PathBuf,
    is_dry_run: bool,
    imported: v1::Imported,
    behind: u64,
    upgrade: Option<Upgrade>,
    was_reset: bool,
}

impl Done {
    /// Events not there before; of a dry run nobody asked.
    fn stored(&self) -> Option<u64> {
        (!self.is_dry_run).then_some(self.imported.appended)
    }

    fn known(&self) -> Option<u64> {
        (!self.is_dry_run).then_some(self.imported.duplicates)
    }

    fn document(&self) -> Value {
        let refusals: Vec<Value> = (self.imported.refusals.iter())
            .map(|(seq, why)| json!({ "seq": seq.0, "why": why }))
            .collect();
        let upgrade = self.upgrade.as_ref().map(|upgrade| {
            let breaks: Vec<Value> = (upgrade.breaks.iter())
                .map(|at| {
                    json!({
                        "kind": if at.is_gap() { "gap" } else { "duplicate" },
                        "frame": at.position.0,
                        "offset": at.offset,
                        "expected": at.expected.0,
                        "found": at.found.0,
                    })
                })
                .collect();
            json!({
                "frames": upgrade.frames,
                "gaps": upgrade.gaps,
                "duplicates": upgrade.duplicates,
                "left_out_bytes": upgrade.cut,
                "kept": upgrade.kept.display().to_string(),
                "breaks": breaks,
            })
        });
        json!({
            "dir": self.dir.display().to_string(),
            "dry_run": self.is_dry_run,
            "frames": self.imported.frames,
            "stored": self.stored(),
            "already_there": self.known(),
            "refused": self.imported.refused,
            "refusals": refusals,
            "uncommitted_bytes": self.behind,
            "upgrade": upgrade,
            "was_reset": self.was_reset,
        })
    }

    fn csv_lines(&self) -> String {
        let shown = |count: Option<u64>| count.map(|it| it.to_string()).unwrap_or_default();
        let row = [
            self.dir.display().to_string(),
            self.is_dry_run.to_string(),
            self.imported.frames.to_string(),
            shown(self.stored()),
            shown(self.known()),
            self.imported.refused.to_string(),
            self.behind.to_string(),
        ];
        let header = [
            "dir",
            "dry_run",
            "frames",
            "stored",
            "already_there",
            "refused",
            "uncommitted_bytes",
        ];
        csv::lines(header, [row])
    }

    fn words(&self) -> String {
        let dir = safe(&self.dir.display().to_string());
        let frames = self.imported.frames;
        let mut text = match (self.stored(), self.known()) {
            (Some(0), Some(known)) if known > 0 => format!(
                "{dir}: {frames} frames; nothing stored, all {known} events were there already\n"
            ),
            (Some(stored), Some(known)) => {
                format!("{dir}: {frames} frames; {stored} events stored, {known} already there\n")
            }
            _ => format!("{dir}: {frames} frames verify; nothing was stored (--dry-run)\n"),
        };
        if self.was_reset {
            text.push_str("the log began anew, as the operator asked\n");
        }
        if self.behind > 0 {
            writeln!(
                text,
                "{} bytes behind the safe sequence were never acknowledged and are not imported",
                self.behind
            )
            .expect(WRITTEN);
        }
        for (seq, why) in self.imported.refusals.iter().take(SHOWN_MAX) {
            writeln!(text, "left out: sequence {seq}: {}", safe(why)).expect(WRITTEN);
        }
        if self.imported.refused > 0 {
            writeln!(
                text,
                "{} frames fit no event and are in the version 1 log only",
                self.imported.refused
            )
            .expect(WRITTEN);
        }
        text
    }
}

impl From<v1::Error> for Refusal {
    fn from(error: v1::Error) -> Self {
        let next = match (error.kind(), error.cause()) {
            (_, Some(cause)) => format!(
                "nothing was stored; {} says what happened and what to do (`holdfast journal explain {}`)",
                page(cause.code()),
                cause.code()
            ),
            (v1::Kind::Locked, None) => "stop the process that writes this log".to_owned(),
            (v1::Kind::Full, None) => "free space on its file system, then run it again".to_owned(),
            _ => "check the path, the disk and the permissions, then run it again".to_owned(),
        };
        Self::new(error.to_string()).next(next)
    }
}
