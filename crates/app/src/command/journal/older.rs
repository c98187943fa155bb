//! Version 1 telemetry logs, which are looked at and verified by their own rules.

use std::path::Path;

use events::v1::{self, SafeSequence};
use world::{Disk, RealDisk};

use super::{
    page, unreadable,
    verify::{Check, Report, Tail, print},
};
use crate::{
    config::Config,
    exit::{Exit, Refusal},
    screen::Screen,
};

pub(super) fn verify(dir: &Path, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let survey = v1::survey(dir, &v1::Options::on_this_machine()).map_err(|error| {
        Refusal::new(error.to_string()).next("check the disk and the permissions")
    })?;
    let cause = survey.refusal.as_ref().and_then(v1::Error::cause);
    if let (Some(refusal), None) = (&survey.refusal, cause) {
        return Err(Refusal::new(refusal.to_string()).next("check the disk and the permissions"));
    }
    let holds = survey.refusal.is_none();
    let safe = match survey.safe_seq {
        SafeSequence::Is(seq) => Some(seq.0),
        SafeSequence::Missing | SafeSequence::Unreadable => None,
    };
    let cut = survey
        .wal_len
        .unwrap_or(0)
        .saturating_sub(survey.committed_len);
    let detail = match &survey.refusal {
        Some(refusal) => refusal.to_string(),
        None => format!(
            "{} frames, safe sequence {}, highest {}; the next open cuts {cut} bytes",
            survey.frames,
            safe.map_or("missing".to_owned(), |safe| safe.to_string()),
            survey.highest.0
        ),
    };
    let first = first(dir, &v1::Options::on_this_machine())?;
    let (watermark, last) = match (holds, safe) {
        (true, safe) => (safe, safe.filter(|safe| *safe > 0)),
        // Of a refused log nothing tells where it should end.
        (false, _) => (None, first.map(|_| survey.highest.0)),
    };
    let wal = dir.join(v1::WAL).display().to_string();
    let report = Report {
        dir: dir.display().to_string(),
        format: "telemetry-v1",
        holds,
        cause: cause.map(v1::Cause::code),
        error: survey.refusal.as_ref().map(ToString::to_string),
        page: cause.map(|cause| page(cause.code())),
        live: None,
        journal: None,
        generation: None,
        watermark,
        first,
        last,
        segments: u64::from(survey.wal_len.is_some()),
        batches: survey.frames,
        records: survey.frames,
        record_bytes: survey.wal_len.unwrap_or(0),
        checks: vec![Check {
            clause: "JRN-31",
            check: "frames",
            holds,
            cause: cause.map(v1::Cause::code),
            file: Some(wal.clone()),
            offset: None,
            lsn: None,
            count: survey.frames,
            detail: Some(detail),
        }],
        damages: Vec::new(),
        damage_count: 0,
        tail: (holds && cut > 0).then_some(Tail {
            file: wal,
            offset: survey.committed_len,
            bytes: cut,
        }),
        quarantined: Vec::new(),
    };
    print(&report, config, screen)
}

/// The sequence that the first whole frame has, whatever the rules say of it.
fn first(dir: &Path, options: &v1::Options) -> Result<Option<u64>, Refusal> {
    if RealDisk
        .stat(&dir.join(v1::WAL))
        .map_err(|error| unreadable(dir, error))?
        .is_none()
    {
        return Ok(None);
    }
    match v1::frames(dir, options)?.next().transpose()? {
        Some(frame) => Ok(frame.seq.map(|seq| seq.0)),
        None => Ok(None),
    }
}
