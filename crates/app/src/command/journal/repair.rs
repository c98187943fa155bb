//! `holdfast journal repair` and `reset`: the two that change a journal.

use std::{ops::ControlFlow, path::Path};

use serde_json::json;
use wal::survey::Opening;

use super::{find_journal, options, refused};
use crate::{
    cli::{
        Output,
        journal::{Repair, Reset},
    },
    config::Config,
    exit::{Exit, Refusal},
    screen::Screen,
};

pub(super) fn repair(repair: &Repair, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = find_journal(&repair.place, config, screen)?;
    if repair.dry_run {
        return foretell(&dir, config, screen);
    }
    let (journal, report) =
        wal::Local::open(options(&dir)?).map_err(|error| refused(&dir, &error))?;
    journal.close().map_err(|error| refused(&dir, &error))?;
    let done = match &report.cut {
        Some(cut) => format!(
            "cut {} bytes at byte {} of {} that were never acknowledged; they are kept in {}",
            cut.len,
            cut.offset,
            cut.segment.display(),
            cut.quarantine.display()
        ),
        None if report.slot_mended => {
            "a slot of the safe-point file did not verify; both do again".to_owned()
        }
        None => "there was nothing to repair".to_owned(),
    };
    let text = match config.output.value {
        Output::Json => crate::command::json(&json!({
            "dir": dir.display().to_string(),
            "cut_bytes": report.cut.as_ref().map_or(0, |cut| cut.len),
            "quarantine": report.cut.as_ref().map(|cut| cut.quarantine.display().to_string()),
            "slot_mended": report.slot_mended,
            "first": report.first_retained.get(),
            "last": report.safe_point.get(),
        }))?,
        _ => format!("{done}\nrecords up to {} are there\n", report.safe_point),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn foretell(dir: &Path, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let survey = wal::survey(&options(dir)?, &mut |_| ControlFlow::Break(()))
        .map_err(|error| refused(dir, &error))?;
    let (exit, cut, slot, words) = match &survey.opening {
        Err(error) if error.cause().is_some() => {
            screen.remark(refused(dir, error));
            let words = "nothing would be done: this is damage, and repairing it would lose what was \
                         acknowledged";
            (Exit::Findings, 0, false, words.to_owned())
        }
        Err(error) => return Err(refused(dir, error)),
        Ok(Opening::MakesNew) => (Exit::Clean, 0, false, "a journal would be made".to_owned()),
        Ok(Opening::Finishes(what)) => (
            Exit::Clean,
            0,
            false,
            format!("{what} that was interrupted would be carried on"),
        ),
        Ok(Opening::Opens(found)) => {
            let cut = found.tail.as_ref().map_or(0, |tail| tail.len);
            let words = match &found.tail {
                Some(tail) => format!(
                    "{} bytes at byte {} of {} would be cut and kept in quarantine/",
                    tail.len,
                    tail.offset,
                    tail.segment.display()
                ),
                None if found.slot_torn => {
                    "the slot of the safe-point file that does not verify would be written again"
                        .to_owned()
                }
                None => "there is nothing to repair".to_owned(),
            };
            (Exit::Clean, cut, found.slot_torn, words)
        }
    };
    if let Some(holder) = &survey.holder {
        screen.remark(format_args!(
            "in use by {holder}: what looks torn may be in flight"
        ));
    }
    let text = match config.output.value {
        Output::Json => crate::command::json(&json!({
            "dir": dir.display().to_string(),
            "dry_run": true,
            "cause": survey.cause().map(wal::Cause::code),
            "cut_bytes": cut,
            "slot_torn": slot,
            "what": words,
        }))?,
        _ => format!("{words}\n"),
    };
    screen.result(&text)?;
    Ok(exit)
}

pub(super) fn reset(reset: &Reset, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = find_journal(&reset.place, config, screen)?;
    let done = wal::reset(&options(&dir)?, &signed(&reset.reason))
        .map_err(|error| refused(&dir, &error))?;
    if dir
        .parent()
        .is_some_and(|parent| dir.ends_with("journal") && parent.join("tables").is_dir())
    {
        screen.remark(
            "the tables beside this journal belong to the generation that ended: move tables/ aside too",
        );
    }
    let text = match config.output.value {
        Output::Json => crate::command::json(&json!({
            "dir": dir.display().to_string(),
            "journal": done.identity.journal.to_string(),
            "generation": done.identity.generation.0,
            "ended_generation": done.ended.map(|ended| ended.generation.0),
            "moved_to": done.moved_to.display().to_string(),
        }))?,
        _ => format!(
            "generation {} of journal {} begins; everything that was there is in {}\n",
            done.identity.generation.0,
            done.identity.journal,
            done.moved_to.display()
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

/// The reason with who gave it: an audit line without a name tells half.
pub(crate) fn signed(reason: &str) -> String {
    if reason.trim().is_empty() {
        return String::new();
    }
    format!("{reason} (uid {})", rustix::process::getuid().as_raw())
}
