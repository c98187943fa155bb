//! `holdfast events dead-letter`: what receivers refused for good.

use std::path::Path;

use events::{
    drain::{DeadLetters, Entry, retry},
    lines::rfc3339,
};
use serde_json::{json, value::RawValue};
use world::{Disk, RealClock, RealDisk};

use super::drain::{line, opened};
use crate::{
    cli::{Output, drain::DeadLetterAction},
    config::Config,
    exit::{Exit, Refusal},
    named_file,
    present::{csv, table},
    receiver::{drain_refused, receivers},
    screen::Screen,
    site,
};

pub(crate) fn run(
    action: &DeadLetterAction,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let events = opened(config, screen)?;
    let letters = DeadLetters::new(events.dead_letter()?);
    let exit = match action {
        DeadLetterAction::List { all } => list(&letters, *all, config.output.value, screen),
        DeadLetterAction::Retry { to, header, name } => {
            send_again(&letters, to, header, name.as_deref(), screen)
        }
        DeadLetterAction::Export { file } => export(&letters, file, screen),
    };
    events.close(screen);
    exit
}

fn entries(letters: &DeadLetters) -> Result<impl Iterator<Item = Result<Entry, Refusal>>, Refusal> {
    let entries = letters.entries().map_err(|error| drain_refused(&error))?;
    Ok(entries.map(|entry| entry.map_err(|error| drain_refused(&error))))
}

/// Longest list that is printed: what a person looks through. A program takes `export`.
const LISTED_MAX: usize = 1000;

fn list(letters: &DeadLetters, all: bool, output: Output, screen: Screen) -> Result<Exit, Refusal> {
    let mut shown = Vec::new();
    let mut waiting = 0;
    for entry in entries(letters)? {
        let entry = entry?;
        waiting += usize::from(!entry.is_accepted());
        if (all || !entry.is_accepted()) && shown.len() < LISTED_MAX {
            shown.push(entry);
        }
    }
    let cells = shown.iter().map(|entry| {
        let letter = &entry.letter;
        [
            letter.event.id.to_string(),
            letter.event.event.class.to_string(),
            rfc3339(letter.when),
            letter.drain.clone(),
            state(entry),
            letter.why.clone(),
        ]
    });
    let text = match output {
        Output::Json => {
            let documents: Result<Vec<_>, Refusal> = shown.iter().map(document).collect();
            format!("[{}]", documents?.join(","))
        }
        Output::Csv => csv::lines(["event", "class", "when", "drain", "state", "why"], cells),
        Output::Table => table::rows(["EVENT", "CLASS", "WHEN", "DRAIN", "STATE", "WHY"], cells),
    };
    screen.result(&text)?;
    screen.remark(format_args!("{waiting} wait for a decision"));
    Ok(Exit::Clean)
}

fn state(entry: &Entry) -> String {
    match &entry.attempt {
        None => "waits".to_owned(),
        Some(attempt) => match &attempt.refused {
            None => format!("taken by {}", attempt.receiver),
            Some(why) => format!("refused again by {}: {why}", attempt.receiver),
        },
    }
}

fn send_again(
    letters: &DeadLetters,
    to: &str,
    header: &[String],
    name: Option<&str>,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let receivers = receivers(to, header)?;
    let stop = site::stop_flag()?;
    let is_meant = |entry: &Entry| name.is_none_or(|name| entry.letter.drain == name);
    let retried = retry(letters, &receivers, &RealClock::new(), &stop, is_meant)
        .map_err(|error| drain_refused(&error))?;
    screen.result(&format!(
        "{} taken, {} refused again",
        retried.accepted, retried.refused
    ))?;
    if let Some(why) = &retried.stopped {
        screen.remark(format_args!("the rest still waits: {why}"));
        return Ok(Exit::Incomplete);
    }
    Ok(if retried.refused > 0 {
        Exit::Findings
    } else {
        Exit::Clean
    })
}

/// Bytes of an export, which is made in memory. Arbitrary; some hundred thousand letters of a usual
/// size.
const EXPORT_LEN_MAX: usize = 256 << 20;

fn export(letters: &DeadLetters, file: &Path, screen: Screen) -> Result<Exit, Refusal> {
    let unwritable = |error: std::io::Error| {
        Refusal::new(format!("export to {}", file.display()))
            .source(error)
            .next("name a file in a directory with space, where you may write")
    };
    let path = named_file::replaceable(file).map_err(unwritable)?;
    let mut text = String::new();
    let mut count = 0_u64;
    for entry in entries(letters)? {
        text.push_str(&document(&entry?)?);
        text.push('\n');
        count += 1;
        if text.len() > EXPORT_LEN_MAX {
            return Err(
                Refusal::new(format!("more than {EXPORT_LEN_MAX} bytes of dead letters"))
                    .next("send some of them again with `holdfast events dead-letter retry` first"),
            );
        }
    }
    RealDisk
        .replace(&path, text.as_bytes())
        .map_err(unwritable)?;
    screen.remark(format_args!("{count} dead letters in {}", path.display()));
    Ok(Exit::Clean)
}

/// A letter on one line, its event as every other line of an event.
fn document(entry: &Entry) -> Result<String, Refusal> {
    let letter = &entry.letter;
    let unwritable = |error| Refusal::new("a dead letter cannot be written as JSON").source(error);
    let event = RawValue::from_string(line(&letter.event)).map_err(unwritable)?;
    let about = json!({
        "drain": letter.drain,
        "receiver": letter.receiver,
        "why": letter.why,
        "when": rfc3339(letter.when),
        "accepted_later": entry.is_accepted(),
    });
    // The event goes through as the text it is: no key of its body changes its place.
    let about = about.to_string();
    let open = about.strip_suffix('}').expect("an object ends so");
    Ok(format!("{open},\"event\":{}}}", event.get()))
}
