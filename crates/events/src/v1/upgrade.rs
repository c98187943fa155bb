//! No safe sequence: a first run, a refusal, or one of the operator's two ways out of it.
//!
//! Both ways end in writing the safe sequence, which is the one step that counts; everything before
//! it is found and repeated by an open that follows a crash.

use std::path::{Path, PathBuf};

use world::{Disk, disk::Open};

use super::{
    Cause, Error, LEGACY_UPGRADE, OPERATOR_RESET, Options, SAFE_SEQ, Seq, WAL, aside,
    frame::{put_payload, sequence_of, sequence_value},
    judge::invalid_json,
    once::{Once, State},
    safe,
    walk::{Step, Walk},
};

pub(crate) const UPGRADE_MARKER: &str = "telemetry.legacy_upgrade";
pub(crate) const RESET_MARKER: &str = "telemetry.operator_reset";
/// Where an upgrade keeps the old log; further ones append `-2`, `-3`.
pub(crate) const KEPT_DIR: &str = "telemetry.legacy";
/// Upgrades of one directory that find a name. Each needs an operator who removes the marker.
const KEPT_DIRS_MAX: usize = 1000;
const STAGED_WAL: &str = "telemetry.wal.upgrade";
const REPORT: &str = "report.txt";
/// The key under which a renumbered frame keeps the sequence it had.
pub(crate) const OLD_SEQUENCE: &str = "legacy_seq";
/// Breaks that a report lists; all are counted. A log that jumps more often is described by the count.
pub const BREAKS_LISTED_MAX: usize = 1000;
/// Bytes gathered before a write of the renumbered log.
const CHUNK_LEN: usize = 256 << 10;

/// Where the sequences of an old log do not go on by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// Which frame, from 1; after the upgrade, its sequence.
    pub position: Seq,
    /// Where in the old file.
    pub offset: u64,
    pub expected: Seq,
    pub found: Seq,
}

impl Break {
    /// Frames are missing. Otherwise the sequence is not above all before it: a duplicate.
    pub fn is_gap(&self) -> bool {
        self.found > self.expected
    }
}

/// What taking over an old log found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Frames taken over; none is left out.
    pub frames: u64,
    /// The first [`BREAKS_LISTED_MAX`] of them.
    pub breaks: Vec<Break>,
    pub gaps: u64,
    pub duplicates: u64,
    /// Bytes behind the last readable frame; they are in the kept file only.
    pub cut: u64,
    /// The old files and the report.
    pub kept: PathBuf,
}

/// How a directory without a safe sequence may begin.
#[derive(Debug)]
pub(crate) enum Start {
    FirstRun,
    Upgraded(Upgrade),
    Reset,
}

pub(crate) fn start(options: &Options, dir: &Path) -> Result<Start, Error> {
    let disk = &*options.disk;
    if evidence(disk, dir, &options.other_state)?.is_empty() {
        return Ok(Start::FirstRun);
    }
    let has_log = stat_len(disk, &dir.join(WAL))?.is_some();
    if options.legacy_upgrade && has_log {
        return upgrade(options, dir).map(Start::Upgraded);
    }
    if options.operator_reset {
        return reset(disk, dir, has_log).map(|()| Start::Reset);
    }
    Err(missing(dir, ""))
}

/// Whether an upgrade or a reset was interrupted: opening the log carries it on, or notes that it is done.
pub fn is_begun(dir: &Path, options: &Options) -> Result<bool, Error> {
    for name in [UPGRADE_MARKER, RESET_MARKER] {
        if let State::Begun(_) = Once::new(&*options.disk, dir, name).state()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What shows that the node ran before.
pub(crate) fn evidence(
    disk: &dyn Disk,
    dir: &Path,
    other_state: &[String],
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for name in other_state {
        if stat_len(disk, &dir.join(name))?.is_some() {
            found.push(name.clone());
        }
    }
    if stat_len(disk, &dir.join(WAL))?.is_some_and(|len| len > 0) {
        found.push(WAL.to_owned());
    }
    Ok(found)
}

fn stat_len(disk: &dyn Disk, path: &Path) -> Result<Option<u64>, Error> {
    let entry = disk
        .stat(path)
        .map_err(|source| Error::io("look for", path, source))?;
    Ok(entry.map(|entry| entry.len))
}

/// The refusal in the original's words, then what else there is to say.
pub(crate) fn missing(dir: &Path, more: &str) -> Error {
    Error::refusal_as(
        Cause::SafePointMissing,
        format!(
            "telemetry/wal: safe_seq missing in steady-state at \"{}\"; to upgrade from a pre-Phase-1 \
             WAL set {LEGACY_UPGRADE}=1; to accept telemetry loss after deleting telemetry.wal set \
             {OPERATOR_RESET}=1{more}",
            dir.join(SAFE_SEQ).display()
        ),
    )
}

fn used_up(dir: &Path, variable: &str, once: &Once<'_>) -> Error {
    missing(
        dir,
        &format!(
            "; {variable} was used once and has no second effect, remove \"{}\" to allow it again",
            once.path().display()
        ),
    )
}

fn reset(disk: &dyn Disk, dir: &Path, has_log: bool) -> Result<(), Error> {
    let once = Once::new(disk, dir, RESET_MARKER);
    if once.state()? == State::Done {
        return Err(used_up(dir, OPERATOR_RESET, &once));
    }
    if has_log {
        let more = format!(
            "; {OPERATOR_RESET} is refused while \"{}\" is present",
            dir.join(WAL).display()
        );
        return Err(missing(dir, &more));
    }
    tracing::warn!(
        dir = %dir.display(),
        "operator reset: telemetry is lost and sequences begin at 1 again; {OPERATOR_RESET} is used up"
    );
    once.begin("reset")?;
    safe::establish(disk, dir)?;
    once.finish("reset")
}

fn upgrade(options: &Options, dir: &Path) -> Result<Upgrade, Error> {
    let disk = &*options.disk;
    let once = Once::new(disk, dir, UPGRADE_MARKER);
    let (name, found) = match once.state()? {
        State::Done => return Err(used_up(dir, LEGACY_UPGRADE, &once)),
        State::Begun(name) => (name, None),
        State::Unused => {
            // Before anything is changed: what is refused here is refused as it is.
            let found = scan(options, &dir.join(WAL))?;
            let name = free_name(disk, dir)?;
            once.begin(&name)?;
            (name, Some(found))
        }
    };
    let kept = dir.join(&name);
    keep(disk, dir, &kept)?;
    // From the kept log: the one in its place may be the new one already.
    let found = match found {
        Some(found) => found,
        None => scan(options, &kept.join(WAL))?,
    };
    let report = Upgrade {
        frames: found.frames.0,
        breaks: found.breaks,
        gaps: found.gaps,
        duplicates: found.duplicates,
        cut: found.len - found.end,
        kept: kept.clone(),
    };
    if report.gaps + report.duplicates > 0 {
        renumber(options, dir, &kept, found.end)?;
    }
    tell(disk, dir, &report)?;
    safe::establish_at(disk, dir, found.frames)?;
    once.finish(&name)?;
    Ok(report)
}

fn free_name(disk: &dyn Disk, dir: &Path) -> Result<String, Error> {
    for number in 1..=KEPT_DIRS_MAX {
        let name = match number {
            1 => KEPT_DIR.to_owned(),
            _ => format!("{KEPT_DIR}-{number}"),
        };
        if stat_len(disk, &dir.join(&name))?.is_none() {
            return Ok(name);
        }
    }
    Err(Error::new(
        super::Kind::Invalid,
        format!(
            "{KEPT_DIRS_MAX} old logs are kept in {}; move some away",
            dir.display()
        ),
    ))
}

/// Copies the old log aside, durably and under its name only when whole.
fn keep(disk: &dyn Disk, dir: &Path, kept: &Path) -> Result<(), Error> {
    let copy = kept.join(WAL);
    let attempt = || {
        disk.create_dir_all_synced(kept)?;
        if disk.stat(&copy)?.is_some() {
            return disk.sync_dir(kept);
        }
        let log = disk.open(&dir.join(WAL), Open::Read)?;
        let unfinished = kept.join("unfinished");
        aside::copy(disk, &*log, (0, log.len()?), &unfinished)?;
        disk.rename(&unfinished, &copy)?;
        disk.sync_dir(kept)
    };
    attempt().map_err(|source| Error::io("keep the old log in", kept, source))
}

/// What an old log holds.
#[derive(Debug)]
struct Found {
    frames: Seq,
    breaks: Vec<Break>,
    gaps: u64,
    duplicates: u64,
    /// Where the last readable frame ends.
    end: u64,
    len: u64,
}

/// Reads all frames. An unreadable end is a crash's; unreadable frames before readable ones refuse.
fn scan(options: &Options, path: &Path) -> Result<Found, Error> {
    let failed = |source| Error::io("read", path, source);
    let mut walk = open_walk(options, path)?;
    let mut found = Found {
        frames: Seq(0),
        breaks: Vec::new(),
        gaps: 0,
        duplicates: 0,
        end: 0,
        len: walk.len(),
    };
    let mut highest = Seq(0);
    let mut is_broken = false;
    loop {
        let (offset, seq) = match walk.step().map_err(failed)? {
            Step::End { .. } | Step::Torn { .. } => return Ok(found),
            Step::TooLong { .. } => return Err(invalid_json(found.frames.next())),
            Step::Frame { offset, payload } => (offset, sequence_of(payload)),
        };
        let Ok(seq) = seq else {
            is_broken = true;
            continue;
        };
        if is_broken {
            return Err(invalid_json(found.frames.next()));
        }
        let expected = highest.next();
        found.frames = found.frames.next();
        found.end = walk.at();
        highest = highest.max(seq);
        if seq == expected {
            continue;
        }
        let at = Break {
            position: found.frames,
            offset,
            expected,
            found: seq,
        };
        found.gaps += u64::from(at.is_gap());
        found.duplicates += u64::from(!at.is_gap());
        if found.breaks.len() < BREAKS_LISTED_MAX {
            found.breaks.push(at);
        }
    }
}

fn open_walk(options: &Options, path: &Path) -> Result<Walk, Error> {
    let attempt = || {
        let file = options.disk.open(path, Open::Read)?;
        Walk::new(file, options.frame_len_max)
    };
    attempt().map_err(|source| Error::io("read", path, source))
}

/// Puts a log in place whose sequences are 1, 2, 3: staged, synced, renamed, directory synced.
fn renumber(options: &Options, dir: &Path, kept: &Path, end: u64) -> Result<(), Error> {
    let staged = dir.join(STAGED_WAL);
    let mut walk = open_walk(options, &kept.join(WAL))?;
    let disk = &*options.disk;
    let failed = |source| Error::io("write the renumbered log", &staged, source);
    let file = aside::create_anew(disk, &staged).map_err(failed)?;
    let mut chunk = Vec::new();
    let mut written = 0;
    let mut seq = Seq(0);
    while walk.at() < end {
        let Step::Frame { payload, .. } = walk.step().map_err(failed)? else {
            break;
        };
        seq = seq.next();
        put_renumbered(&mut chunk, payload, seq);
        if chunk.len() >= CHUNK_LEN {
            file.write_all_at(&chunk, written).map_err(failed)?;
            written += chunk.len() as u64;
            chunk.clear();
        }
    }
    file.write_all_at(&chunk, written).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    drop(file);
    disk.rename(&staged, &dir.join(WAL)).map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)
}

/// The payload with another sequence; the one it had goes before everything else.
fn put_renumbered(out: &mut Vec<u8>, payload: &[u8], seq: Seq) {
    let old = sequence_of(payload).unwrap_or_default();
    let head = format!("{{\"{OLD_SEQUENCE}\":{old},");
    let number = seq.to_string();
    // Longer than the limit by these few bytes at most, which the length of a frame can hold.
    let len_max = u32::MAX;
    let brace = payload.iter().position(|byte| *byte == b'{').unwrap_or(0);
    let written = match sequence_value(payload) {
        Some(value) => put_payload(
            out,
            &[
                head.as_bytes(),
                &payload[brace + 1..value.start],
                number.as_bytes(),
                &payload[value.end..],
            ],
            len_max,
        ),
        None => {
            let members = payload[brace + 1..].trim_ascii_start();
            let comma = if members.starts_with(b"}") { "" } else { "," };
            let head = format!("{head}\"seq\":{number}{comma}");
            put_payload(out, &[head.as_bytes(), members], len_max)
        }
    };
    written.expect("a frame that was read is far below 4 GiB");
}

/// One WARN record and the list in a file beside the old log.
fn tell(disk: &dyn Disk, dir: &Path, report: &Upgrade) -> Result<(), Error> {
    let path = report.kept.join(REPORT);
    let mut text = format!(
        "frames {}\ngaps {}\nduplicates {}\nbytes behind the last frame {}\n",
        report.frames, report.gaps, report.duplicates, report.cut
    );
    for at in &report.breaks {
        text += &format!(
            "{} at frame {}, byte {}: sequence {} instead of {}\n",
            if at.is_gap() { "gap" } else { "duplicate" },
            at.position,
            at.offset,
            at.found,
            at.expected
        );
    }
    disk.replace(&path, text.as_bytes())
        .map_err(|source| Error::io("write the report", &path, source))?;
    tracing::warn!(
        dir = %dir.display(),
        frames = report.frames,
        gaps = report.gaps,
        duplicates = report.duplicates,
        cut = report.cut,
        report = %path.display(),
        "a log from before safe sequences was taken over; {LEGACY_UPGRADE} is used up"
    );
    Ok(())
}
