//! `holdfast journal verify`: every check, for a machine.

use std::{fmt::Write as _, ops::ControlFlow, path::Path};

use serde::Serialize;
use wal::{
    Cause,
    survey::{Damage, Opening, Seen, Survey},
};

use super::{Found, find, older, options, page, refused};
use crate::{
    cli::{Output, journal::Place},
    config::Config,
    exit::{Exit, Refusal},
    present::{csv, safe},
    screen::Screen,
};

/// The report of a journal.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) dir: String,
    pub(super) format: &'static str,
    /// Every check holds.
    pub(super) holds: bool,
    pub(super) cause: Option<&'static str>,
    pub(super) error: Option<String>,
    pub(super) page: Option<String>,
    /// Who has it open; then bytes above the safe point may be in flight.
    pub(super) live: Option<String>,
    pub(super) journal: Option<String>,
    pub(super) generation: Option<u32>,
    /// What something durable vouches for, when the journal would open.
    pub(super) watermark: Option<u64>,
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    pub(super) segments: u64,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) record_bytes: u64,
    pub(super) checks: Vec<Check>,
    /// The first 256; `damage_count` counts all.
    pub(super) damages: Vec<DamageRow>,
    pub(super) damage_count: u64,
    pub(super) tail: Option<Tail>,
    pub(super) quarantined: Vec<Quarantined>,
}

#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) clause: &'static str,
    pub(super) check: &'static str,
    pub(super) holds: bool,
    pub(super) cause: Option<&'static str>,
    pub(super) file: Option<String>,
    pub(super) offset: Option<u64>,
    pub(super) lsn: Option<u64>,
    pub(super) count: u64,
    pub(super) detail: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct DamageRow {
    cause: &'static str,
    file: String,
    from: u64,
    to: u64,
    /// First position that is not there, and the one where records go on.
    expected: u64,
    resumes: Option<u64>,
    what: String,
}

/// Bytes behind the last record: torn, or in flight. No damage.
#[derive(Debug, Serialize)]
pub(super) struct Tail {
    pub(super) file: String,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Quarantined {
    name: String,
    bytes: u64,
    verifies: bool,
    has_report: bool,
}

const CHECKS: [(&str, &str); 8] = [
    ("JRN-1", "identity"),
    ("JRN-2", "segments"),
    ("JRN-3", "batches"),
    ("JRN-4", "positions"),
    ("JRN-10", "watermark"),
    ("JRN-12", "safe-point"),
    ("JRN-14", "quarantine"),
    ("JRN-16", "orders"),
];

/// The clause that damage of a cause breaks.
const fn clause(cause: Cause) -> &'static str {
    match cause {
        Cause::IdentityMismatch | Cause::VersionUnknown => "JRN-1",
        Cause::SegmentHeaderCorrupt | Cause::SegmentMissing => "JRN-2",
        Cause::FrameCorrupt => "JRN-3",
        Cause::SeqGap | Cause::FirstSeqNotBase | Cause::EpochRegressed => "JRN-4",
        Cause::SafeseqGtMaxseq | Cause::SafePointRegressed | Cause::SafePointCorrupt => "JRN-10",
        Cause::SafeseqNotFound | Cause::SafePointMissing => "JRN-12",
    }
}

pub(super) fn run(place: &Place, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = match find(place, config, screen)? {
        Found::Older(dir) => return older::verify(&dir, config, screen),
        Found::Journal(dir) => dir,
    };
    let survey = wal::survey(
        &options(&dir)?,
        &mut |_: Seen<'_>| ControlFlow::Continue(()),
    )
    .map_err(|error| refused(&dir, &error))?;
    let report = report(&dir, &survey)?;
    print(&report, config, screen)
}

pub(super) fn print(report: &Report, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let text = match config.output.value {
        Output::Json => crate::command::json(report)?,
        Output::Csv => csv_lines(report),
        Output::Table => words(report),
    };
    screen.result(&text)?;
    Ok(if report.holds {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

/// The clause about the file that opening could not read. `None`: it is not one file's fault.
fn clause_unread(error: &wal::Error, dir: &Path) -> Option<&'static str> {
    let path = error.path().filter(|path| *path != dir)?;
    match path.file_name()?.to_str()? {
        _ if error.kind() != wal::Kind::Io => None,
        "identity" => Some("JRN-1"),
        "safe-point" => Some("JRN-12"),
        name if name.ends_with(".seg") => Some("JRN-3"),
        _ => Some("JRN-16"),
    }
}

/// A directory that cannot be read gives no report; files in it that cannot are failed checks.
fn report(dir: &Path, survey: &Survey) -> Result<Report, Refusal> {
    if let Err(error) = &survey.opening
        && error.cause().is_none()
        && clause_unread(error, dir).is_none()
    {
        return Err(refused(dir, error));
    }
    let checks = checks(survey);
    let cause = survey.cause().map(Cause::code);
    let error = match &survey.opening {
        Err(error) => Some(error.to_string()),
        Ok(_) => survey.damages.first().map(|damage| damage.what.clone()),
    };
    let last = survey
        .segments
        .iter()
        .rev()
        .find_map(|segment| segment.last);
    Ok(Report {
        dir: dir.display().to_string(),
        format: "journal",
        holds: checks.iter().all(|check| check.holds),
        cause,
        error,
        page: cause.map(page),
        live: survey.holder.clone(),
        journal: survey.identity.map(|identity| identity.journal.to_string()),
        generation: survey.identity.map(|identity| identity.generation.0),
        watermark: match &survey.opening {
            Ok(Opening::Opens(found)) => Some(found.watermark.get()),
            _ => None,
        },
        first: survey
            .segments
            .iter()
            .find_map(|segment| segment.first)
            .map(wal::Lsn::get),
        last: last.map(|last| last.min(survey.kept_to).get()),
        segments: survey.segments.len() as u64,
        batches: survey.batches,
        records: survey.records,
        record_bytes: survey.record_bytes,
        checks,
        damages: survey.damages.iter().map(row).collect(),
        damage_count: survey.damage_count,
        tail: survey.tail.as_ref().map(|tail| Tail {
            file: tail.path.display().to_string(),
            offset: tail.from,
            bytes: tail.to - tail.from,
        }),
        quarantined: survey
            .quarantined
            .iter()
            .map(|cut| Quarantined {
                name: cut.stem.clone(),
                bytes: cut.bytes,
                verifies: cut.verifies,
                has_report: cut.report.is_some(),
            })
            .collect(),
    })
}

fn row(damage: &Damage) -> DamageRow {
    DamageRow {
        cause: damage.cause.code(),
        file: damage.path.display().to_string(),
        from: damage.from,
        to: damage.to,
        expected: damage.expected.get(),
        resumes: damage.resumes.map(wal::Lsn::get),
        what: damage.what.clone(),
    }
}

fn checks(survey: &Survey) -> Vec<Check> {
    CHECKS
        .into_iter()
        .map(|(clause, name)| {
            let mut check = of_bytes(survey, clause, name);
            match clause {
                "JRN-10" => of_opening(survey, &mut check),
                "JRN-14" => of_quarantine(survey, &mut check),
                "JRN-16" => of_orders(survey, &mut check),
                _ => {}
            }
            check
        })
        .collect()
}

/// What opening refuses comes first: its place is the one that its message names.
fn of_bytes(survey: &Survey, wanted: &'static str, check: &'static str) -> Check {
    let refusal = survey.opening.as_ref().err().filter(|error| {
        let broken = match error.cause() {
            Some(cause) => Some(clause(cause)),
            None => clause_unread(error, &survey.dir),
        };
        broken == Some(wanted)
    });
    let mut damages = survey
        .damages
        .iter()
        .filter(|damage| clause(damage.cause) == wanted)
        .peekable();
    let first = damages.peek().copied();
    let count = damages.count() as u64;
    let mut found = Check {
        clause: wanted,
        check,
        holds: refusal.is_none() && first.is_none(),
        cause: first.map(|damage| damage.cause.code()),
        file: first.map(|damage| damage.path.display().to_string()),
        offset: first.map(|damage| damage.from),
        lsn: first.map(|damage| damage.expected.get()),
        count,
        detail: first.map(|damage| damage.what.clone()),
    };
    if let Some(error) = refusal {
        found.cause = error.cause().map(Cause::code).or(found.cause);
        found.offset = error.offset().or(found.offset);
        found.lsn = error.lsn().map(wal::Lsn::get).or(found.lsn);
        found.file = error
            .path()
            .map(|path| path.display().to_string())
            .or(found.file);
        found.detail = Some(error.to_string());
        found.count = count.max(1);
    }
    found
}

/// Whatever keeps the journal from opening leaves something at or below the watermark unproved,
/// whichever clause about bytes it breaks besides.
fn of_opening(survey: &Survey, check: &mut Check) {
    if let Err(error) = &survey.opening
        && check.holds
    {
        check.holds = false;
        check.cause = error.cause().map(Cause::code);
        check.count = 1;
        check.detail =
            Some("the start is refused: not all that was acknowledged verifies".to_owned());
    }
}

fn of_quarantine(survey: &Survey, check: &mut Check) {
    let bad = survey
        .quarantined
        .iter()
        .find(|cut| !cut.verifies || cut.report.is_none());
    check.count = survey.quarantined.len() as u64;
    if let Some(cut) = bad {
        check.holds = false;
        check.file = Some(cut.stem.clone());
        check.detail =
            Some("a quarantined tail has no report, or other bytes than were cut".into());
    }
}

fn of_orders(survey: &Survey, check: &mut Check) {
    if let Ok(Opening::Finishes(what)) = &survey.opening {
        check.holds = false;
        check.count = 1;
        check.detail = Some(format!("{what} was interrupted and is not finished"));
    }
}

fn csv_lines(report: &Report) -> String {
    let shown = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let rows = report.checks.iter().map(|check| {
        [
            check.clause.to_owned(),
            check.check.to_owned(),
            check.holds.to_string(),
            check.cause.unwrap_or_default().to_owned(),
            check.file.clone().unwrap_or_default(),
            shown(check.offset),
            shown(check.lsn),
            check.detail.clone().unwrap_or_default(),
        ]
    });
    csv::lines(
        [
            "clause", "check", "holds", "cause", "file", "offset", "lsn", "detail",
        ],
        rows,
    )
}

fn words(report: &Report) -> String {
    const WRITTEN: &str = "writing to a string cannot fail";
    let mut text = format!("{}\n", safe(&report.dir));
    if let (Some(journal), Some(generation)) = (&report.journal, report.generation) {
        writeln!(text, "journal {journal}, generation {generation}").expect(WRITTEN);
    }
    if let Some(holder) = &report.live {
        let holder = safe(holder);
        writeln!(
            text,
            "in use by {holder}: bytes above the safe point may be in flight, which is no damage"
        )
        .expect(WRITTEN);
    }
    writeln!(
        text,
        "{}, {}, {}, {}",
        crate::present::counted(report.segments, "segment"),
        crate::present::counted(report.batches, "batch(es)"),
        crate::present::counted(report.records, "record"),
        crate::present::counted(report.record_bytes, "byte")
    )
    .expect(WRITTEN);
    for check in &report.checks {
        let mark = if check.holds { "ok  " } else { "FAIL" };
        write!(text, "{mark}  {:<6}  {}", check.clause, check.check).expect(WRITTEN);
        if let (false, Some(detail)) = (check.holds, &check.detail) {
            write!(text, ": {}", safe(detail)).expect(WRITTEN);
        }
        text.push('\n');
    }
    if let Some(tail) = &report.tail {
        writeln!(
            text,
            "{} bytes behind the last record, from byte {} of {}: never acknowledged, or in flight; \
             the next open keeps them in quarantine/",
            tail.bytes,
            tail.offset,
            safe(&tail.file)
        )
        .expect(WRITTEN);
    }
    match (&report.cause, &report.page) {
        (Some(cause), Some(page)) => writeln!(
            text,
            "damaged: {cause}; see {page}, or `holdfast journal explain {cause}`"
        ),
        _ if report.holds => writeln!(text, "every check holds"),
        _ => writeln!(text, "not every check holds"),
    }
    .expect(WRITTEN);
    text
}
