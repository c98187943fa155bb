//! Looking at a journal directory: in use, stopped or damaged, without a lock and without changing
//! anything.
//!
//! Two answers side by side. [`Survey::opening`] is what opening would say, from the code that opens.
//! The walk goes on where opening stops: each segment is read for itself, and behind a break the next
//! batch that verifies is searched for, so that all that can be told or rescued is seen. Records are
//! handed to the caller one by one; what is kept is bounded by the number of segments, not records.
//!
//! A journal in use changes while it is read. Damage stays where it is, so what a second look does
//! not find again was the writer at work.

use std::{ops::ControlFlow, path::PathBuf};

use world::{Disk, Timestamp, disk::Open};

use crate::{
    Cause, Epoch, Error, Identity, Kind, Lsn, Options, RecordKind,
    block::{self, Fault},
    identity,
    looking::Looking,
    order,
    recover::{self, Examined},
    segment,
    slots::{self, SLOT_LEN, SLOTS},
};

mod kept;
mod unread;
mod walk;

use unread::is_lost;

pub use kept::Quarantined;

/// Damages that a survey keeps; further ones are handed to the caller and counted. Enough for a
/// person, and little memory for a directory that is damaged in every block.
pub const DAMAGES_KEPT_MAX: usize = 256;

/// Looks at a journal in use this often for two that agree. A writer moves on between looks; more
/// than a few disagreements in a row mean that it is faster than the reader.
const LOOKS_MAX: usize = 16;

/// What a directory holds.
#[derive(Debug)]
pub struct Survey {
    pub dir: PathBuf,
    /// Who has the journal open; bytes above the safe point may then be in flight.
    pub holder: Option<String>,
    /// From the identity file, or the first other file that verifies.
    pub identity: Option<Identity>,
    /// Name of the file that `identity` is from.
    pub identity_from: Option<String>,
    /// Why the identity file is not where `identity` is from.
    pub identity_fault: Option<Error>,
    /// In the order of the file; empty when there is no file of the right length.
    pub slots: Vec<Slot>,
    pub segments: Vec<Segment>,
    pub quarantined: Vec<Quarantined>,
    /// Directories into which resets moved what was there.
    pub moved_aside: Vec<String>,
    /// Names that are no part of a journal.
    pub strangers: Vec<String>,
    /// What opening would do, or the error it would end in.
    pub opening: Result<Opening, Error>,
    /// The first [`DAMAGES_KEPT_MAX`].
    pub damages: Vec<Damage>,
    pub damage_count: u64,
    pub batches: u64,
    pub records: u64,
    /// Bytes of records, without what frames them.
    pub record_bytes: u64,
    /// Last record that opening would keep or, of a journal in use, that is known to be durable;
    /// all that verifies when opening would be refused.
    pub kept_to: Lsn,
    /// Bytes behind the last record kept: torn, or in flight.
    pub tail: Option<Damage>,
    /// The caller ended the walk early.
    pub is_cut_short: bool,
}

impl Survey {
    /// The one cause code of what is wrong, as opening would name it; without such, the first that
    /// the walk met.
    pub fn cause(&self) -> Option<Cause> {
        match &self.opening {
            Err(error) if error.cause().is_some() => error.cause(),
            _ => self.damages.first().map(|damage| damage.cause),
        }
    }
}

/// What opening would do.
#[derive(Clone, Debug)]
pub enum Opening {
    /// Nothing is here: a journal would be made.
    MakesNew,
    /// Ends what a crash interrupted, then opens.
    Finishes(&'static str),
    Opens(Examined),
}

/// One slot of the safe-point file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What it vouches for, or why it does not verify.
    pub held: Result<SlotHeld, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotHeld {
    pub identity: Identity,
    pub sequence: u64,
    pub safe_point: Lsn,
    pub first_retained: Lsn,
    pub active: Lsn,
    pub epoch: Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Below the retained range: a removal that was interrupted.
    Leftover,
    Sealed,
    /// The last one.
    Active,
    /// Of another journal, generation or format: not read.
    Foreign,
    /// Removed by its journal while this was reading it.
    Released,
}

/// A segment file.
#[derive(Clone, Debug)]
pub struct Segment {
    pub path: PathBuf,
    /// As the name says.
    pub base: Lsn,
    pub file_bytes: u64,
    pub state: State,
    /// Nanoseconds since 1970 when the header verifies.
    pub created: Option<Timestamp>,
    /// The file was another segment before; its bytes lie behind the last batch and mean nothing.
    pub is_recycled: bool,
    /// Why the header does not verify.
    pub header_fault: Option<String>,
    pub epoch: Option<Epoch>,
    pub first: Option<Lsn>,
    pub last: Option<Lsn>,
    pub batches: u64,
    pub records: u64,
    /// Bytes of batches that verify, headers included.
    pub batch_bytes: u64,
    pub damages: u64,
}

/// A batch that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub base: Lsn,
    pub offset: u64,
    pub bytes: u64,
    pub first: Lsn,
    pub last: Lsn,
    pub epoch: Epoch,
    /// Durable when this batch was written.
    pub safe_point: Lsn,
    /// Above what opening keeps, or in flight.
    pub is_above: bool,
}

/// A record of a batch that verifies.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub lsn: Lsn,
    pub epoch: Epoch,
    pub kind: RecordKind,
    pub bytes: &'a [u8],
    pub is_above: bool,
}

/// A stretch of a file where what was durable does not verify, or is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub cause: Cause,
    pub path: PathBuf,
    /// First byte that does not verify, and the one where verified bytes begin again.
    pub from: u64,
    pub to: u64,
    /// First position that is not there.
    pub expected: Lsn,
    /// First position that is there again; `None`: nothing follows in this segment.
    pub resumes: Option<Lsn>,
    pub what: String,
}

/// What the walk hands out, in the order of the files.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// First of all: what opening says, and nothing of the segments yet.
    Begins(&'a Survey),
    /// Before its batches: the counts are still zero.
    Segment(&'a Segment),
    Batch(&'a Batch),
    Record(&'a Record<'a>),
    Damage(&'a Damage),
}

/// Looks at `options.dir`. Only `dir`, `disk` and `evidence` of the options matter.
///
/// Errors: `Io`, the directory could not be read; `Invalid`, there is no such directory. Whatever is
/// wrong with the journal is not an error here but in the survey.
pub fn survey(
    options: &Options,
    seen: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<Survey, Error> {
    let options = &Options {
        disk: Looking::at(&options.disk),
        ..options.clone()
    };
    let (disk, dir) = (&*options.disk, &*options.dir);
    let exists = disk
        .stat(dir)
        .map_err(|source| Error::io("look for the journal", dir, source))?
        .is_some();
    if !exists {
        return Err(Error::new(Kind::Invalid, "there is no such directory").with_path(dir));
    }
    let holder = holder(options)?;
    let opening = opening(options, holder.is_some());
    let mut survey = Survey {
        dir: dir.to_owned(),
        holder,
        identity: None,
        identity_from: None,
        identity_fault: None,
        slots: slots(disk, dir)?,
        segments: Vec::new(),
        quarantined: Vec::new(),
        moved_aside: Vec::new(),
        strangers: Vec::new(),
        opening,
        damages: Vec::new(),
        damage_count: 0,
        batches: 0,
        records: 0,
        record_bytes: 0,
        kept_to: Lsn::ZERO,
        tail: None,
        is_cut_short: false,
    };
    survey.kept_to = match (&survey.opening, &survey.holder) {
        (Ok(Opening::Opens(found)), Some(_)) => found.watermark,
        (Ok(Opening::Opens(found)), None) => found.safe_point,
        _ => Lsn::new(u64::MAX),
    };
    find_identity(disk, &mut survey)?;
    kept::names(disk, &mut survey)?;
    if seen(Seen::Begins(&survey)).is_break() {
        survey.is_cut_short = true;
        return Ok(survey);
    }
    walk::Walk::new(disk, &mut survey, seen).run()?;
    Ok(survey)
}

/// Who has the journal open.
fn holder(options: &Options) -> Result<Option<String>, Error> {
    let path = options.dir.join(crate::local::LOCK_NAME);
    options
        .disk
        .holder(&path)
        .map_err(|source| Error::io("ask for the holder of the journal", path, source))
}

/// What opening would say. Of a journal in use, a refusal counts when two looks in a row agree on
/// it: a slot half written, a segment removed after the slots were read, or a batch that became
/// durable after it was passed over looks like damage once.
fn opening(options: &Options, is_live: bool) -> Result<Opening, Error> {
    let mut before: Option<String> = None;
    for _ in 0..LOOKS_MAX {
        let error = match open_here(options) {
            Ok(opening) => return Ok(opening),
            Err(error) => error,
        };
        let told = error.to_string();
        if !is_live || before.as_ref() == Some(&told) {
            return Err(error);
        }
        before = Some(told);
    }
    Err(Error::new(
        Kind::Io,
        "the journal changed faster than it could be read; try again",
    )
    .with_path(&options.dir))
}

fn open_here(options: &Options) -> Result<Opening, Error> {
    if let Some(what) = order::pending(&*options.disk, &options.dir)? {
        return Ok(Opening::Finishes(what));
    }
    Ok(match recover::examine(options)? {
        Some(found) => Opening::Opens(found),
        None => Opening::MakesNew,
    })
}

fn slots(disk: &dyn Disk, dir: &std::path::Path) -> Result<Vec<Slot>, Error> {
    let path = dir.join(slots::NAME);
    let stat = disk
        .stat(&path)
        .map_err(|source| Error::io("look for the safe-point file", &path, source))?;
    if stat.is_none_or(|entry| entry.len != slots::FILE_LEN as u64) {
        return Ok(Vec::new());
    }
    let failed = |source| Error::io("read the safe-point file", &path, source);
    let file = match disk.open(&path, Open::Read) {
        Err(error) if is_lost(&error) => return Ok(Vec::new()),
        opened => opened.map_err(failed)?,
    };
    let slot = |index: usize| {
        let block = &mut [0; SLOT_LEN];
        if let Err(error) = file.read_exact_at(block, (index * SLOT_LEN) as u64) {
            let held = Err(format!("cannot be read: {error}"));
            return Slot { held };
        }
        let held = match block::verify(block, slots::MAGIC) {
            Ok(()) => Ok(SlotHeld {
                identity: identity::get(block),
                sequence: slots::SEQUENCE.u64(block),
                safe_point: Lsn::new(slots::SAFE_POINT.u64(block)),
                first_retained: Lsn::new(slots::FIRST_RETAINED.u64(block)),
                active: Lsn::new(slots::ACTIVE.u64(block)),
                epoch: Epoch(slots::EPOCH.u64(block)),
            }),
            Err(Fault::Damaged) => Err("does not verify".to_owned()),
            Err(Fault::Version(version)) => Err(format!("format version {version}")),
        };
        Slot { held }
    };
    Ok((0..SLOTS).map(slot).collect())
}

/// The identity that records are read under: without it no batch can be checked.
fn find_identity(disk: &dyn Disk, survey: &mut Survey) -> Result<(), Error> {
    match identity::read(disk, &survey.dir) {
        Ok(Some(found)) => {
            survey.identity = Some(found);
            survey.identity_from = Some(identity::NAME.to_owned());
            return Ok(());
        }
        Ok(None) => {}
        Err(error) if error.cause().is_some() || error.source_io().is_some_and(is_lost) => {
            survey.identity_fault = Some(error);
        }
        Err(error) => return Err(error),
    }
    let held = survey.slots.iter().find_map(|slot| slot.held.as_ref().ok());
    if let Some(held) = held {
        survey.identity = Some(held.identity);
        survey.identity_from = Some(slots::NAME.to_owned());
        return Ok(());
    }
    for base in recover::bases(disk, &survey.dir)? {
        let path = segment::path(&survey.dir, base);
        let block = disk.open(&path, Open::Read).and_then(|file| {
            let mut block = vec![0; segment::HEADER_LEN];
            file.read_exact_at(&mut block, 0)?;
            Ok(block)
        });
        if let Ok(block) = block
            && block::verify(&block, segment::MAGIC).is_ok()
        {
            survey.identity = Some(identity::get(&block));
            survey.identity_from = path.file_name().map(|name| name.to_string_lossy().into());
            return Ok(());
        }
    }
    Ok(())
}
