//! The authority record: what a node has promised, whom it knows as the holder, and by which
//! configuration. One file beside the log, made once, never deleted, overwritten in place.
//!
//! Invariants
//! - Four copies, each written and synced before the next one is touched. So a crash leaves at most
//!   one that does not verify, and of the others two agree: on the record before or on the one after.
//! - A record is in force when three copies were read back from the disk. Until then no caller is
//!   told that it is, and the record in memory is the one before.
//! - A write that failed leaves the handle dead: what is in force is what the file says when it is
//!   opened again, and opening leaves four copies of that.
//! - Promised and granted epochs only rise, and one number keeps its id.
//!
//! What is opened when copies differ, and the bytes: docs/format/authority.md.

mod copy;
mod field;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use wal::Identity;
use world::{Disk, File, Timestamp, disk::Open, invariant};

use crate::{
    Error,
    error::Kind,
    machine::{EpochStart, NodeId, Record},
};
use copy::{COPIES, COPY_LEN, FILE_LEN, Fault};

pub use copy::{HISTORY_MAX, HOLDERS_MAX, REASON_LEN_MAX};

/// Copies that opening wants to agree, and that no other record can have while one is in force.
const AGREE: usize = 2;
/// Copies read back before a record is in force: one may be on a bad place of the disk.
const VERIFIED: usize = 3;

/// Whose record it is, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster: u128,
    pub node: NodeId,
    pub journal: Identity,
}

/// SHA-256 of a record: the same for its four copies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The record that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 1, one more with each record.
    pub sequence: u64,
    pub record: Record,
    /// Epochs of the log and where they begin, the newest [`HISTORY_MAX`]. Those that were cut from
    /// the log are not among them. The log has all of them: this is for when it is lost.
    pub history: Vec<EpochStart>,
    /// Drawn when the log beside it was made. Beside another log the node is an amnesiac.
    pub birth: u128,
    pub written: Timestamp,
    /// Of the record before; zeros for the first.
    pub predecessor: Digest,
}

/// The open file.
#[derive(Debug)]
pub struct Authority {
    file: Arc<dyn File>,
    path: PathBuf,
    owner: Owner,
    entry: Entry,
    digest: Digest,
    /// By copy: whether it was read back as `entry`.
    sound: [bool; COPIES],
    is_dead: bool,
}

/// What opening found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Copies that had to be made again: torn by a crash, damaged, or of another record.
    pub mended: usize,
    /// One copy was of a later record, which was never in force.
    pub forgot_later: bool,
}

impl Authority {
    /// The first record. An error when there is a file: it is never replaced.
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        owner: Owner,
        birth: u128,
        record: &Record,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let there = disk
            .stat(path)
            .map_err(|source| Error::io("look for an authority record", path, source))?;
        if there.is_some() {
            let refusal = "an authority record is there already";
            return Err(Error::new(Kind::Invalid, refusal, path));
        }
        let entry = Entry {
            sequence: 1,
            record: record.clone(),
            history: record.start.into_iter().collect(),
            birth,
            written: now,
            predecessor: Digest([0; 32]),
        };
        let mut block = copy::encode(owner, &entry)
            .map_err(|refusal| Error::new(Kind::Invalid, refusal, path))?;
        let mut bytes = Vec::with_capacity(FILE_LEN);
        for index in 0..COPIES {
            copy::set_index(&mut block, index);
            bytes.extend_from_slice(&block);
        }
        disk.replace(path, &bytes)
            .map_err(|source| Error::io("make the authority record", path, source))?;
        Self::open(disk, path, owner).map(|(authority, _)| authority)
    }

    /// The record in force, and four copies of it on disk. Refuses where no two copies agree.
    pub fn open(disk: &dyn Disk, path: &Path, owner: Owner) -> Result<(Self, Opened), Error> {
        let attempt = || {
            // Whoever made it may have ended before its name was durable.
            disk.sync_dir(path.parent().unwrap_or(path))?;
            let file = disk.open(path, Open::Write)?;
            file.drop_cache(0, FILE_LEN as u64)?;
            Ok(file)
        };
        let file =
            attempt().map_err(|source| Error::io("open the authority record", path, source))?;
        let blocks = read_copies(&*file);
        let found = copy::choose(&blocks).map_err(|fault| refuse(fault, path))?;
        if found.owner != owner {
            let (theirs, ours) = (found.owner, owner);
            let refusal = format!("the authority record is of {theirs:?}, not of {ours:?}");
            return Err(Error::new(Kind::Invalid, refusal, path));
        }
        let opened = Opened {
            mended: found.agrees.iter().filter(|agrees| !**agrees).count(),
            forgot_later: found.saw_later,
        };
        let mut authority = Self {
            file,
            path: path.to_owned(),
            owner,
            digest: found.digest,
            entry: found.entry,
            sound: [false; COPIES],
            is_dead: true,
        };
        // All four, also those that agree: what is read may be what a failed sync kept from the disk.
        // Those first: over the same bytes a torn write changes nothing, and where one was only in
        // memory, the copies before it are still there.
        let agree = (0..COPIES).filter(|&index| found.agrees[index]);
        let differ = (0..COPIES).filter(|&index| !found.agrees[index]);
        let order: Vec<usize> = agree.chain(differ).collect();
        let block = found.block;
        authority.sound = authority.write_copies(block, &order)?;
        authority.is_dead = false;
        Ok((authority, opened))
    }

    /// The record in force.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Copies that were read back: fewer than four say that the disk has a bad place.
    pub fn sound_copies(&self) -> usize {
        self.sound.iter().filter(|sound| **sound).count()
    }

    /// Puts `record` in force. Only when it returns may anything rely on it. An error of kind
    /// `Invalid` changed nothing; after any other the handle is dead.
    pub fn keep(&mut self, record: &Record, birth: u128, now: Timestamp) -> Result<(), Error> {
        if self.is_dead {
            let refusal = "the authority record is in doubt until it is opened again";
            return Err(Error::new(Kind::Poisoned, refusal, &self.path));
        }
        self.check_rises(record);
        let entry = Entry {
            sequence: self.entry.sequence + 1,
            record: record.clone(),
            history: history_with(&self.entry.history, record.start),
            birth,
            written: now,
            predecessor: self.digest,
        };
        let block = copy::encode(self.owner, &entry)
            .map_err(|refusal| Error::new(Kind::Invalid, refusal, &self.path))?;
        // A copy that is not sound first: as long as it is written, three others agree.
        let mut order: Vec<usize> = (0..COPIES).collect();
        order.sort_by_key(|&index| self.sound[index]);
        let digest = copy::digest(&block);
        self.is_dead = true;
        self.sound = self.write_copies(block, &order)?;
        self.entry = entry;
        self.digest = digest;
        self.is_dead = false;
        Ok(())
    }

    fn check_rises(&self, record: &Record) {
        let before = &self.entry.record;
        for (what, (was, was_id, _), (is, is_id, _)) in [
            ("promised", before.promised, record.promised),
            ("granted", before.granted, record.granted),
        ] {
            invariant!(
                is > was || (is == was && is_id == was_id),
                "{what} epoch {} id {:032x} follows {} id {:032x}",
                is.0,
                is_id.0,
                was.0,
                was_id.0
            );
        }
    }

    /// One copy after the other, each synced before the next: a crash tears one of them. Then all are
    /// read back from the disk.
    fn write_copies(&self, mut block: Vec<u8>, order: &[usize]) -> Result<[bool; COPIES], Error> {
        let failed = |source| Error::io("write the authority record", &self.path, source);
        for &index in order {
            copy::set_index(&mut block, index);
            self.file
                .write_all_at(&block, copy::offset(index))
                .and_then(|()| self.file.sync_data())
                .map_err(failed)?;
        }
        self.file.drop_cache(0, FILE_LEN as u64).map_err(failed)?;
        let mut sound = [false; COPIES];
        for (index, read) in read_copies(&*self.file).iter().enumerate() {
            copy::set_index(&mut block, index);
            sound[index] = read.as_ref() == Some(&block);
        }
        let count = sound.iter().filter(|sound| **sound).count();
        if count < VERIFIED {
            let refusal = format!(
                "{count} of {COPIES} copies of the authority record were read back as they were \
                 written, {VERIFIED} are needed: replace the disk"
            );
            return Err(Error::new(Kind::Corrupt, refusal, &self.path));
        }
        Ok(sound)
    }
}

/// What a block that cannot be read, or is not there, is: nothing.
fn read_copies(file: &dyn File) -> Vec<Option<Vec<u8>>> {
    let read = |index| {
        let mut block = vec![0; COPY_LEN];
        let read = file.read_exact_at(&mut block, copy::offset(index));
        read.ok().map(|()| block)
    };
    (0..COPIES).map(read).collect()
}

fn refuse(fault: Fault, path: &Path) -> Error {
    match fault {
        Fault::Damaged(why) => {
            let next = "this node has to be rebuilt as another one";
            let refusal = format!("the authority record does not verify: {why}; {next}");
            Error::new(Kind::Corrupt, refusal, path)
        }
        Fault::Version(version) => {
            let refusal = format!(
                "the authority record has format version {version}, this program reads {}; use the \
                 program that wrote it",
                copy::FORMAT_VERSION
            );
            Error::new(Kind::Invalid, refusal, path)
        }
    }
}

/// An epoch that begins where others were takes their place: what they had was cut.
fn history_with(history: &[EpochStart], start: Option<EpochStart>) -> Vec<EpochStart> {
    let mut history = history.to_vec();
    if let Some(start) = start
        && history.last().is_none_or(|last| last.epoch < start.epoch)
    {
        history.retain(|earlier| earlier.first < start.first);
        history.push(start);
    }
    let surplus = history.len().saturating_sub(HISTORY_MAX);
    history.drain(..surplus);
    history
}
