//! `holdfast journal inspect`: a journal as a person wants to see it.

use std::{fmt::Write as _, ops::ControlFlow, path::Path};

use serde_json::{Value, json};
use wal::{
    Cause,
    survey::{Batch, Damage, Opening, Record, Seen, Segment, State, Survey},
};

use super::{Found, after_damage, find, older, options, refused};
use crate::{
    cli::{Output, journal::Inspect},
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{counted, csv, safe, table},
    screen::Screen,
};

/// Bytes of a record that are shown: a line on most terminals.
const PREVIEW_LEN: usize = 48;
/// Writing to a string.
const WRITTEN: &str = "writing to a string cannot fail";

/// Rows that were asked for, with what was met between them.
struct Listing<'a> {
    inspect: &'a Inspect,
    batches: Vec<[String; 8]>,
    records: Vec<[String; 5]>,
    /// There are more than were listed.
    is_cut: bool,
}

pub(super) fn run(inspect: &Inspect, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = match find(&inspect.place, config, screen)? {
        Found::Older(dir) => return older::verify(&dir, config, screen),
        Found::Journal(dir) => dir,
    };
    let mut listing = Listing {
        inspect,
        batches: Vec::new(),
        records: Vec::new(),
        is_cut: false,
    };
    let survey = wal::survey(&options(&dir)?, &mut |seen| {
        listing.take(seen);
        // To the end also when enough is listed: the counts and the damage are of the whole.
        ControlFlow::Continue(())
    })
    .map_err(|error| refused(&dir, &error))?;
    let text = match config.output.value {
        Output::Json => crate::command::json(&document(&survey, &listing))?,
        Output::Csv => csv::lines(SEGMENT_HEADER, survey.segments.iter().map(segment_row)),
        Output::Table => words(&dir, &survey, &listing),
    };
    screen.result(&text)?;
    let is_whole = survey.opening.is_ok() && survey.damage_count == 0;
    Ok(if is_whole {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

impl Listing<'_> {
    fn take(&mut self, seen: Seen<'_>) {
        let limit = usize::try_from(self.inspect.limit).unwrap_or(usize::MAX);
        match seen {
            Seen::Batch(batch) if self.inspect.batches => {
                if batch.last.get() < self.inspect.from {
                } else if self.batches.len() < limit {
                    self.batches.push(batch_row(batch));
                } else {
                    self.is_cut = true;
                }
            }
            Seen::Record(record) if self.inspect.records => {
                if record.lsn.get() < self.inspect.from {
                } else if self.records.len() < limit {
                    self.records.push(record_row(record));
                } else {
                    self.is_cut = true;
                }
            }
            _ => {}
        }
    }
}

const SEGMENT_HEADER: [&str; 10] = [
    "SEGMENT", "LAST", "BATCHES", "RECORDS", "BYTES", "FILE", "EPOCH", "CREATED", "STATE",
    "DAMAGES",
];
const BATCH_HEADER: [&str; 8] = [
    "FIRST", "LAST", "SEGMENT", "OFFSET", "BYTES", "EPOCH", "DURABLE", "NOTE",
];
const RECORD_HEADER: [&str; 5] = ["LSN", "KIND", "BYTES", "EPOCH", "PREVIEW"];

fn segment_row(segment: &Segment) -> [String; 10] {
    let lsn = |lsn: Option<wal::Lsn>| lsn.map_or("-".to_owned(), |lsn| lsn.to_string());
    let state = match segment.state {
        State::Leftover => "leftover of a removal",
        State::Sealed => "sealed",
        State::Active => "active",
        State::Foreign => "not of this journal",
        State::Released => "released meanwhile",
    };
    [
        segment.base.to_string(),
        lsn(segment.last),
        segment.batches.to_string(),
        segment.records.to_string(),
        segment.batch_bytes.to_string(),
        segment.file_bytes.to_string(),
        segment
            .epoch
            .map_or("-".to_owned(), |epoch| epoch.0.to_string()),
        segment.created.map_or("-".to_owned(), moment::local),
        state.to_owned(),
        segment.damages.to_string(),
    ]
}

fn batch_row(batch: &Batch) -> [String; 8] {
    [
        batch.first.to_string(),
        batch.last.to_string(),
        batch.base.to_string(),
        batch.offset.to_string(),
        batch.bytes.to_string(),
        batch.epoch.0.to_string(),
        batch.safe_point.to_string(),
        above(batch.is_above).to_owned(),
    ]
}

fn record_row(record: &Record<'_>) -> [String; 5] {
    [
        record.lsn.to_string(),
        record.kind.0.to_string(),
        record.bytes.len().to_string(),
        record.epoch.0.to_string(),
        preview(record.bytes),
    ]
}

const fn above(is_above: bool) -> &'static str {
    if is_above {
        "not kept, or in flight"
    } else {
        ""
    }
}

/// The beginning of a record: as text when it is some, else in hexadecimal.
fn preview(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(PREVIEW_LEN)];
    let more = if head.len() < bytes.len() { "…" } else { "" };
    let text = match str::from_utf8(head) {
        Ok(text) => Some(text),
        // Cut inside a character.
        Err(error) if error.error_len().is_none() && !more.is_empty() => {
            str::from_utf8(&head[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text.filter(|text| text.chars().filter(|c| c.is_control()).count() * 8 <= text.len()) {
        Some(text) => format!("{}{more}", safe(text)),
        None => {
            let hex: String = head.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").expect(WRITTEN);
                hex
            });
            format!("x{hex}{more}")
        }
    }
}

fn words(dir: &Path, survey: &Survey, listing: &Listing<'_>) -> String {
    let mut text = format!("{}\n", safe(&dir.display().to_string()));
    identity_words(&mut text, survey);
    slot_words(&mut text, survey);
    text.push('\n');
    text.push_str(&table::rows(
        SEGMENT_HEADER,
        survey.segments.iter().map(segment_row),
    ));
    if listing.inspect.batches {
        text.push('\n');
        text.push_str(&table::rows(BATCH_HEADER, listing.batches.iter().cloned()));
    }
    if listing.inspect.records {
        text.push('\n');
        text.push_str(&table::rows(RECORD_HEADER, listing.records.iter().cloned()));
    }
    if listing.is_cut {
        text.push_str("there are more: --limit and --from choose which are listed\n");
    }
    beside_words(&mut text, survey);
    text.push('\n');
    damage_words(&mut text, dir, survey);
    text
}

fn identity_words(text: &mut String, survey: &Survey) {
    match (&survey.identity, &survey.identity_from) {
        (Some(identity), Some(from)) => writeln!(
            text,
            "journal {}, generation {} (from {from})",
            identity.journal, identity.generation.0
        ),
        _ => writeln!(text, "no file tells which journal this is"),
    }
    .expect(WRITTEN);
    if let Some(fault) = &survey.identity_fault {
        writeln!(text, "identity: {}", safe(&fault.to_string())).expect(WRITTEN);
    }
    match &survey.holder {
        Some(holder) => writeln!(
            text,
            "in use by {}: bytes above the safe point may be in flight, which is no damage",
            safe(holder)
        ),
        None => writeln!(text, "not in use"),
    }
    .expect(WRITTEN);
}

fn slot_words(text: &mut String, survey: &Survey) {
    if survey.slots.is_empty() {
        text.push_str("safe-point: missing, or of another length than two slots\n");
    }
    for (index, slot) in survey.slots.iter().enumerate() {
        match &slot.held {
            Ok(held) => writeln!(
                text,
                "slot {index}: safe point {}, first retained {}, active {}, epoch {}, sequence {}",
                held.safe_point, held.first_retained, held.active, held.epoch.0, held.sequence
            ),
            Err(why) => writeln!(text, "slot {index}: {why}"),
        }
        .expect(WRITTEN);
    }
}

fn beside_words(text: &mut String, survey: &Survey) {
    for cut in &survey.quarantined {
        let note = match (&cut.report, cut.verifies) {
            (_, false) => "other bytes than were cut",
            (None, _) => "no report",
            (Some(_), true) => "never acknowledged",
        };
        writeln!(
            text,
            "quarantine/{}: {} bytes, {note}",
            safe(&cut.stem),
            cut.bytes
        )
        .expect(WRITTEN);
    }
    for name in &survey.moved_aside {
        writeln!(text, "{}/: what an earlier reset moved aside", safe(name)).expect(WRITTEN);
    }
    for name in &survey.strangers {
        writeln!(text, "{}: no part of a journal", safe(name)).expect(WRITTEN);
    }
}

/// Where the first damage lies, and what is recoverable before and after it.
fn damage_words(text: &mut String, dir: &Path, survey: &Survey) {
    match &survey.opening {
        Ok(Opening::MakesNew) => text.push_str("nothing was ever kept here\n"),
        Ok(Opening::Finishes(what)) => {
            writeln!(text, "{what} was interrupted; opening carries it on").expect(WRITTEN);
        }
        Ok(Opening::Opens(found)) => writeln!(
            text,
            "it opens, with records up to {}",
            survey.kept_to.min(found.safe_point)
        )
        .expect(WRITTEN),
        Err(error) => {
            writeln!(text, "it does not open: {}", safe(&error.to_string())).expect(WRITTEN);
        }
    }
    if let Some(tail) = &survey.tail {
        writeln!(
            text,
            "behind the last record, from byte {} of {}, lie {} bytes that nothing durable vouches \
             for: torn by a crash, or in flight",
            tail.from,
            name(tail),
            tail.to - tail.from
        )
        .expect(WRITTEN);
    }
    if let Some(first) = survey.damages.first() {
        writeln!(
            text,
            "first damage: {} at byte {} of {}: {}\n  before it, records up to {} verify\n  after it, {}",
            first.cause.code(),
            first.from,
            name(first),
            safe(&first.what),
            first.expected.get().saturating_sub(1),
            behind(survey, first)
        )
        .expect(WRITTEN);
        writeln!(
            text,
            "{} in all; {} can be rescued",
            counted(survey.damage_count, "damage"),
            counted(survey.records, "record")
        )
        .expect(WRITTEN);
    }
    if survey.opening.is_err() || survey.damage_count > 0 {
        let next = after_damage(survey.cause(), dir);
        writeln!(text, "next: {}", safe(&next)).expect(WRITTEN);
    }
}

/// What of the records behind a damage verifies.
fn behind(survey: &Survey, damage: &Damage) -> String {
    let here = survey.segments.iter().find(|it| it.path == damage.path);
    let first = here.and_then(|segment| segment.first);
    match (damage.resumes, here, first) {
        (Some(resumes), Some(_), _) if resumes > damage.expected => {
            format!("records go on with {resumes} at byte {}", damage.to)
        }
        (Some(resumes), ..) => format!("records go on with {resumes}"),
        // The damage is the header's, and batches verify without it.
        (None, Some(_), Some(first)) if first >= damage.expected => {
            format!("records go on with {first}")
        }
        (None, Some(_), _) => "nothing verifies in this segment".to_owned(),
        (None, None, _) => "no segment is there".to_owned(),
    }
}

fn name(damage: &Damage) -> String {
    let name = damage.path.file_name().unwrap_or_default();
    safe(&name.to_string_lossy())
}

fn document(survey: &Survey, listing: &Listing<'_>) -> Value {
    let rows = |header: &[&str], rows: &[&[String]]| -> Vec<Value> {
        rows.iter()
            .map(|row| {
                header
                    .iter()
                    .zip(row.iter())
                    .map(|(name, cell)| (name.to_lowercase(), Value::from(cell.as_str())))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })
            .collect()
    };
    let segments: Vec<_> = survey.segments.iter().map(segment_row).collect();
    let segments: Vec<&[String]> = segments.iter().map(|row| &row[..]).collect();
    let batches: Vec<&[String]> = listing.batches.iter().map(|row| &row[..]).collect();
    let records: Vec<&[String]> = listing.records.iter().map(|row| &row[..]).collect();
    json!({
        "dir": survey.dir.display().to_string(),
        "journal": survey.identity.map(|identity| identity.journal.to_string()),
        "generation": survey.identity.map(|identity| identity.generation.0),
        "live": survey.holder,
        "cause": survey.cause().map(Cause::code),
        "segments": rows(&SEGMENT_HEADER, &segments),
        "batches": rows(&BATCH_HEADER, &batches),
        "records": rows(&RECORD_HEADER, &records),
    })
}
