//! Looking at a version 1 directory without changing it, also beside its writer.

use std::path::{Path, PathBuf};

use world::disk::Open;

use super::{
    Cause, Error, Options, POS, SAFE_SEQ, SAFE_SEQ_TMP, Seq, WAL,
    frame::sequence_of,
    log, safe,
    upgrade::{evidence, missing},
    walk::{Step, Walk},
};

/// What `telemetry.safe_seq` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SafeSequence {
    /// Not the same as 0.
    Missing,
    /// It has another length than 8 bytes.
    Unreadable,
    Is(Seq),
}

/// A version 1 directory as it is.
#[derive(Clone, Debug)]
pub struct Survey {
    pub dir: PathBuf,
    pub safe_seq: SafeSequence,
    /// Length of `telemetry.wal` in bytes; `None` when it is missing.
    pub wal_len: Option<u64>,
    /// Bytes of committed frames; what is behind them the next open cuts. Without a verdict: 0.
    pub committed_len: u64,
    /// Whole frames with readable JSON, committed or not.
    pub frames: u64,
    /// Whole frames that are no JSON object with a sequence; zeros count as such.
    pub unreadable: u64,
    /// The highest sequence of a readable frame.
    pub highest: Seq,
    /// The file ends inside a frame.
    pub is_torn: bool,
    /// A staged safe sequence is there.
    pub is_staged: bool,
    /// A consumer's position is there.
    pub has_pos: bool,
    /// What shows that the node ran before, by name.
    pub evidence: Vec<String>,
    /// What opening says without any of the operator's variables; `None`: it opens.
    pub refusal: Option<Error>,
}

/// Whether `dir` holds a version 1 log, or what is left of one.
pub fn is_here(dir: &Path, options: &Options) -> Result<bool, Error> {
    for name in [WAL, SAFE_SEQ, SAFE_SEQ_TMP, POS] {
        if is_there(dir, options, name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads everything, judges it as opening would, takes no lock. Beside a writer that appends, frames
/// may be counted that came after the safe sequence was read.
///
/// An error is the disk's; a refusal is a finding.
pub fn survey(dir: &Path, options: &Options) -> Result<Survey, Error> {
    let disk = &*options.disk;
    let mut survey = Survey {
        dir: dir.to_owned(),
        safe_seq: SafeSequence::Missing,
        wal_len: None,
        committed_len: 0,
        frames: 0,
        unreadable: 0,
        highest: Seq(0),
        is_torn: false,
        is_staged: safe::is_staged(disk, dir)?,
        has_pos: is_there(dir, options, POS)?,
        evidence: evidence(disk, dir, &options.other_state)?,
        refusal: None,
    };
    // Before the frames: they are written first, so those of this safe sequence are there.
    match safe::read(disk, dir) {
        Ok(Some(seq)) => survey.safe_seq = SafeSequence::Is(seq),
        Ok(None) => {}
        Err(error) if error.cause() == Some(Cause::SafePointCorrupt) => {
            survey.safe_seq = SafeSequence::Unreadable;
            survey.refusal = Some(error);
        }
        Err(error) => return Err(error),
    }
    survey.count(options)?;
    match survey.safe_seq {
        SafeSequence::Unreadable => {}
        SafeSequence::Missing if survey.evidence.is_empty() => {}
        SafeSequence::Missing => survey.refusal = Some(missing(dir, "")),
        SafeSequence::Is(seq) => match log::check(dir, options, seq) {
            Ok(committed) => survey.committed_len = committed.end,
            Err(error) if error.cause().is_some() => survey.refusal = Some(error),
            Err(error) => return Err(error),
        },
    }
    Ok(survey)
}

impl Survey {
    fn count(&mut self, options: &Options) -> Result<(), Error> {
        let path = self.dir.join(WAL);
        let failed = |source| Error::io("read", &path, source);
        let Some(entry) = options.disk.stat(&path).map_err(failed)? else {
            return Ok(());
        };
        self.wal_len = Some(entry.len);
        let file = options.disk.open(&path, Open::Read).map_err(failed)?;
        let mut walk = Walk::new(file, options.frame_len_max).map_err(failed)?;
        self.wal_len = Some(walk.len());
        loop {
            match walk.step().map_err(failed)? {
                Step::End { .. } => return Ok(()),
                Step::Torn { .. } => {
                    self.is_torn = true;
                    return Ok(());
                }
                Step::TooLong { .. } => {
                    self.unreadable += 1;
                    return Ok(());
                }
                Step::Frame { payload, .. } => match sequence_of(payload) {
                    Ok(seq) => {
                        self.frames += 1;
                        self.highest = self.highest.max(seq);
                    }
                    Err(_) => self.unreadable += 1,
                },
            }
        }
    }
}

fn is_there(dir: &Path, options: &Options, name: &str) -> Result<bool, Error> {
    let path = dir.join(name);
    let found = options
        .disk
        .stat(&path)
        .map_err(|source| Error::io("look for", &path, source))?;
    Ok(found.is_some())
}
