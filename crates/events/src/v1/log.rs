//! [`Log`]: a version 1 log that is written.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use world::{
    Disk, File,
    disk::{Lock, Open},
};

use super::{
    Cut, Error, Kind, LEGACY_UPGRADE, LOCK, OPERATOR_RESET, Options, Seq, SequenceName, Upgrade,
    WAL, aside,
    frame::{self, Refused, sequence_of},
    judge::{Committed as Judged, invalid_json, judge},
    once::Once,
    safe,
    upgrade::{self, RESET_MARKER, Start, UPGRADE_MARKER},
    walk::{Step, Walk},
};

/// Most bytes of one append, so that the memory of a batch is bounded; as the journal's.
const APPEND_LEN_MAX: usize = 32 << 20;

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Nothing showed that the node ran before.
    pub is_first_run: bool,
    /// The safe sequence, which is also how many frames there are.
    pub safe_seq: Seq,
    pub cut: Option<Cut>,
    /// A staged safe sequence beside the real one was removed.
    pub leftover_removed: bool,
    pub upgrade: Option<Upgrade>,
    pub was_reset: bool,
}

/// A version 1 log, open for its one writer.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Arc<dyn File>,
    committed: Judged,
    /// False on a first run that found a staged safe sequence without a real one: until the first
    /// append the evidence stays as it was found.
    has_safe_seq: bool,
    sequence_name: SequenceName,
    frame_len_max: u32,
    poison: Option<Error>,
    _lock: Box<dyn Lock>,
}

impl Log {
    /// Opens the log in `dir`, or makes one there.
    ///
    /// Errors: `Locked` names the holder. `Corrupt` has a cause, was logged, and changed nothing.
    /// `Full`, `Io`: the disk; opening may be tried again.
    pub fn open(dir: &Path, options: &Options) -> Result<(Self, Recovery), Error> {
        Self::open_unlogged(dir, options).inspect_err(|error| {
            if let Some(cause) = error.cause() {
                tracing::error!(
                    cause = cause.code(),
                    dir = %dir.display(),
                    %error,
                    "WAL_RECOVERY_FAIL_HARD"
                );
            }
        })
    }

    fn open_unlogged(dir: &Path, options: &Options) -> Result<(Self, Recovery), Error> {
        let disk = &*options.disk;
        disk.create_dir_all_synced(dir)
            .map_err(|source| Error::io("make the directory", dir, source))?;
        let lock = take_lock(dir, options)?;
        let mut recovery = Recovery::default();
        let mut safe_seq = safe::read(disk, dir)?;
        if safe_seq.is_some() {
            // An override that a crash kept from being marked as used.
            Once::new(disk, dir, UPGRADE_MARKER).finish_begun()?;
            Once::new(disk, dir, RESET_MARKER).finish_begun()?;
            warn_of_idle_variables(dir, options);
        } else {
            match upgrade::start(options, dir)? {
                Start::FirstRun => recovery.is_first_run = true,
                Start::Upgraded(report) => recovery.upgrade = Some(report),
                Start::Reset => recovery.was_reset = true,
            }
            safe_seq = safe::read(disk, dir)?;
        }
        let committed = check(dir, options, safe_seq.unwrap_or_default())?;
        if safe_seq.is_some() {
            recovery.leftover_removed = safe::remove_leftover(disk, dir)?;
        }
        let (file, cut) = settle(disk, dir, committed)?;
        if safe_seq.is_none() && !safe::is_staged(disk, dir)? {
            // Before the first frame: a log with bytes and no safe sequence is refused.
            safe::write(disk, dir, Seq(0))?;
            safe_seq = Some(Seq(0));
        }
        recovery.safe_seq = committed.last;
        recovery.cut = cut;
        let log = Self {
            disk: Arc::clone(&options.disk),
            dir: dir.to_owned(),
            file,
            committed,
            has_safe_seq: safe_seq.is_some(),
            sequence_name: options.sequence_name,
            frame_len_max: options.frame_len_max,
            poison: None,
            _lock: lock,
        };
        Ok((log, recovery))
    }

    /// Appends JSON objects without a sequence, in order, all or none, and returns the sequence of
    /// the last. Order: write, sync the log, stage the safe sequence, sync it, rename it, sync the
    /// directory. A crash before the rename leaves frames that were never acknowledged; the next open
    /// cuts them.
    ///
    /// Errors: `Invalid` names which body, and nothing was written. After any other one the log is
    /// poisoned until it is opened again.
    pub fn append(&mut self, bodies: &[&str]) -> Result<Seq, Error> {
        if let Some(first) = &self.poison {
            return Err(Error::poisoned(first));
        }
        let (bytes, last) = self.frames_of(bodies)?;
        if bytes.is_empty() {
            return Ok(self.committed.last);
        }
        match self.commit(&bytes, last) {
            Ok(()) => Ok(last),
            Err(error) => {
                // What lies behind the last frame is unknown, and so is the safe sequence.
                self.poison = Some(error.clone());
                Err(error)
            }
        }
    }

    fn frames_of(&self, bodies: &[&str]) -> Result<(Vec<u8>, Seq), Error> {
        let mut bytes = Vec::new();
        let mut last = self.committed.last;
        for (index, body) in bodies.iter().enumerate() {
            last = last.next();
            frame::put(
                &mut bytes,
                body,
                last,
                self.sequence_name,
                self.frame_len_max,
            )
            .map_err(|refused| {
                let why = match refused {
                    Refused::NotAnObject => "is no JSON object",
                    Refused::HasSequence => "has a sequence already",
                    Refused::TooLong => "is longer than a frame may be",
                };
                Error::new(Kind::Invalid, format!("body {index} {why}"))
            })?;
            if bytes.len() > APPEND_LEN_MAX {
                let message = format!("bodies of more than {APPEND_LEN_MAX} bytes in one append");
                return Err(Error::new(Kind::Invalid, message));
            }
        }
        Ok((bytes, last))
    }

    fn commit(&mut self, bytes: &[u8], last: Seq) -> Result<(), Error> {
        if !self.has_safe_seq {
            safe::establish(&*self.disk, &self.dir)?;
            self.has_safe_seq = true;
        }
        let failed = |what: &str, source| Error::io(what, self.dir.join(WAL), source);
        self.file
            .write_all_at(bytes, self.committed.end)
            .map_err(|source| failed("append to", source))?;
        self.file
            .sync_all()
            .map_err(|source| failed("sync", source))?;
        safe::write(&*self.disk, &self.dir, last)?;
        self.committed = Judged {
            last,
            end: self.committed.end + bytes.len() as u64,
        };
        Ok(())
    }

    /// The last acknowledged sequence; 0 when there is none.
    pub fn safe_seq(&self) -> Seq {
        self.committed.last
    }

    /// Frames from `from` on, up to the safe sequence; 0 and 1 are the beginning. Reads the log from
    /// its beginning, because the format has no index.
    pub fn read_from(&self, from: Seq) -> Committed {
        Committed::new(
            Walk::within(
                Arc::clone(&self.file),
                self.committed.end,
                self.frame_len_max,
            ),
            from,
            self.dir.join(WAL),
        )
    }
}

/// Committed frames in order: sequence and payload.
pub struct Committed {
    walk: Walk,
    from: Seq,
    last: Seq,
    path: PathBuf,
    is_over: bool,
}

impl Committed {
    pub(crate) fn new(walk: Walk, from: Seq, path: PathBuf) -> Self {
        Self {
            walk,
            from,
            last: Seq(0),
            path,
            is_over: false,
        }
    }

    fn read(&mut self) -> Result<Option<(Seq, Vec<u8>)>, Error> {
        loop {
            let expected = self.last.next();
            let step = self
                .walk
                .step()
                .map_err(|source| Error::io("read", &self.path, source))?;
            let payload = match step {
                Step::End { .. } => return Ok(None),
                Step::Frame { payload, .. } => payload,
                Step::TooLong { .. } | Step::Torn { .. } => return Err(invalid_json(expected)),
            };
            // Asked again: rot since the log was opened must not pass for an event.
            if sequence_of(payload) != Ok(expected) {
                return Err(invalid_json(expected));
            }
            self.last = expected;
            if expected >= self.from {
                return Ok(Some((expected, payload.to_vec())));
            }
        }
    }
}

impl Iterator for Committed {
    type Item = Result<(Seq, Vec<u8>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let read = self.read();
        self.is_over = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed")
            .field("path", &self.path)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

fn take_lock(dir: &Path, options: &Options) -> Result<Box<dyn Lock>, Error> {
    let path = dir.join(LOCK);
    options
        .disk
        .lock(&path, &options.holder)
        .map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Error::new(
                Kind::Locked,
                format!("telemetry log {} is open, held by {source}", dir.display()),
            ),
            _ => Error::io("lock", path, source),
        })
}

/// A variable that is set for good would take effect on the day the safe sequence is lost.
fn warn_of_idle_variables(dir: &Path, options: &Options) {
    for (is_set, variable) in [
        (options.legacy_upgrade, LEGACY_UPGRADE),
        (options.operator_reset, OPERATOR_RESET),
    ] {
        if is_set {
            tracing::warn!(dir = %dir.display(), "{variable} is set and not needed; unset it");
        }
    }
}

/// The committed frames, or the refusal. Changes nothing.
pub(crate) fn check(dir: &Path, options: &Options, safe_seq: Seq) -> Result<Judged, Error> {
    let path = dir.join(WAL);
    let failed = |source| Error::io("read", &path, source);
    let stat = options.disk.stat(&path).map_err(failed)?;
    if stat.is_none() {
        // As an empty one: with a safe sequence, R4.
        return match super::judge::after(safe_seq, Seq(0), safe_seq == Seq(0)) {
            Some(error) => Err(error),
            None => Ok(Judged::default()),
        };
    }
    let file = options.disk.open(&path, Open::Read).map_err(failed)?;
    let mut walk = Walk::new(file, options.frame_len_max).map_err(failed)?;
    judge(&mut walk, safe_seq).map_err(failed)?
}

/// Cuts what is not committed, after it was copied aside, and leaves the log ready to append to. The
/// name and the length are durable when this returns.
fn settle(
    disk: &dyn Disk,
    dir: &Path,
    committed: Judged,
) -> Result<(Arc<dyn File>, Option<Cut>), Error> {
    let path = dir.join(WAL);
    let failed = |source| Error::io("open", &path, source);
    let file = disk.open(&path, Open::CreateOrOpen).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    let mut cut = None;
    if len > committed.end {
        let range = (committed.end, len);
        let kept = aside::keep_tail(disk, dir, &*file, range, committed.last.next())?;
        file.set_len(committed.end).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        tracing::warn!(
            dir = %dir.display(),
            offset = kept.offset,
            len = kept.len,
            first = kept.first.0,
            kept = %kept.kept.display(),
            "cut what was never acknowledged"
        );
        cut = Some(kept);
    }
    // Of the log when it was made here, and of the safe sequence: its rename may be in the cache only,
    // when the sync that followed it failed.
    disk.sync_dir(dir).map_err(failed)?;
    Ok((file, cut))
}
