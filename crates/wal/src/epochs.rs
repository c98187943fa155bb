//! The history of epochs: where each begins in this log.
//!
//! What the retained batches show is read off them. What lies below them is the owner's to say
//! ([`crate::Local::note_epochs`]) and is kept in the file `history`; so is the lowest epoch that own
//! appends may have after a cut. An ordinary journal has no such file.

use std::{collections::BTreeMap, path::Path};

use world::Disk;

use crate::{
    Cause, Epoch, Error, Identity, Kind, Lsn,
    block::{self, Fault, Field},
    identity,
};

pub(crate) const NAME: &str = "history";
pub(crate) const MAGIC: [u8; 8] = *b"HFEPOCH\0";
pub(crate) const HEADER_LEN: usize = 64;
pub(crate) const ENTRY_LEN: usize = 32;
/// Epochs remembered, the newest: 128 KiB. One begins with a promotion, so this is years of one a
/// day; a log that parted earlier than that is rebuilt, not compared.
pub const EPOCHS_MAX: usize = 4096;

pub(crate) const COUNT: Field = Field::new("count", 36, 4);
pub(crate) const OWN_FROM: Field = Field::new("own from", 40, 8);
pub(crate) const ENTRY_EPOCH: Field = Field::new("epoch", 0, 8);
pub(crate) const ENTRY_FIRST: Field = Field::new("first LSN", 8, 8);
pub(crate) const ENTRY_ID: Field = Field::new("id", 16, 16);

#[cfg(test)]
pub(crate) const MAP: [Field; 7] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
    COUNT,
    OWN_FROM,
];
#[cfg(test)]
pub(crate) const ENTRY_MAP: [Field; 3] = [ENTRY_EPOCH, ENTRY_FIRST, ENTRY_ID];

/// Where an epoch begins in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: Epoch,
    /// Its first record.
    pub first: Lsn,
    /// What tells it from another epoch of the same number, when the owner said so.
    pub id: Option<u128>,
    /// False: the epoch may begin below `first`, where nothing is retained.
    pub is_exact: bool,
}

/// What is kept in the file, or is going to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Epochs and positions rise.
    pub(crate) starts: Vec<EpochStart>,
    /// Lowest epoch of appends that are not told their own. Positions that a cut made free were used
    /// under lower ones, and no two records have the same position and epoch.
    pub(crate) own_from: Epoch,
}

/// The history of an open log.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    pub(crate) past: Past,
    /// As the retained batches show it.
    shown: Vec<EpochStart>,
}

impl Past {
    /// Starts as an owner gives them, the newest [`EPOCHS_MAX`], with nothing above `end`.
    pub(crate) fn new(starts: &[EpochStart], end: Lsn) -> Result<Self, Error> {
        let refuse = |message: String| Err(Error::new(Kind::Invalid, message));
        for pair in starts.windows(2) {
            if pair[0].epoch >= pair[1].epoch || pair[0].first >= pair[1].first {
                return refuse(format!(
                    "history of epochs: {} at {} is followed by {} at {}",
                    pair[0].epoch.0, pair[0].first, pair[1].epoch.0, pair[1].first
                ));
            }
        }
        if let Some(last) = starts.last().filter(|last| last.first > end) {
            return refuse(format!(
                "history of epochs: {} begins at {}, the log ends at {end}",
                last.epoch.0, last.first
            ));
        }
        let skip = starts.len().saturating_sub(EPOCHS_MAX);
        Ok(Self {
            starts: starts[skip..].to_vec(),
            own_from: Epoch(0),
        })
    }

    /// Without what lies above `keep`.
    pub(crate) fn cut(&mut self, keep: Lsn, own_from: Epoch) {
        self.starts.retain(|start| start.first <= keep);
        self.own_from = self.own_from.max(own_from);
    }

    /// `None` when there is no file. Damage is the identity's: it says which life of a journal this is.
    pub(crate) fn read(
        disk: &dyn Disk,
        dir: &Path,
        expected: Identity,
    ) -> Result<Option<Self>, Error> {
        let path = dir.join(NAME);
        let stat = disk
            .stat(&path)
            .map_err(|source| Error::io("look for the history of epochs", &path, source))?;
        let Some(entry) = stat else { return Ok(None) };
        let damaged = || {
            let message = "the history of epochs does not verify";
            Error::recovery(Cause::IdentityMismatch, message).with_path(&path)
        };
        let len_max = (HEADER_LEN + EPOCHS_MAX * ENTRY_LEN) as u64;
        if entry.len < HEADER_LEN as u64 || entry.len > len_max {
            return Err(damaged());
        }
        let block = disk
            .read(&path, len_max)
            .map_err(|source| Error::io("read the history of epochs", &path, source))?;
        match block::verify(&block, MAGIC) {
            Ok(()) => {}
            Err(Fault::Damaged) => return Err(damaged()),
            Err(Fault::Version(version)) => return Err(Error::version(version).with_path(&path)),
        }
        identity::check(&block, expected, &path)?;
        let (header, entries) = block.split_at(HEADER_LEN);
        let count = usize::try_from(COUNT.u32(header)).unwrap_or(usize::MAX);
        if count.saturating_mul(ENTRY_LEN) != entries.len() {
            return Err(damaged());
        }
        Ok(Some(Self {
            starts: get_starts(entries),
            own_from: Epoch(OWN_FROM.u64(header)),
        }))
    }

    pub(crate) fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        identity: Identity,
    ) -> Result<(), Error> {
        let mut block = vec![0; HEADER_LEN];
        identity::put(&mut block, identity);
        let count = u32::try_from(self.starts.len()).expect("at most EPOCHS_MAX");
        COUNT.put_u32(&mut block, count);
        OWN_FROM.put_u64(&mut block, self.own_from.0);
        put_starts(&mut block, &self.starts);
        block::seal(&mut block, MAGIC);
        let path = dir.join(NAME);
        disk.replace(&path, &block)
            .map_err(|source| Error::io("write the history of epochs", path, source))
    }
}

/// Appends the entries to `block`.
pub(crate) fn put_starts(block: &mut Vec<u8>, starts: &[EpochStart]) {
    for start in starts {
        let at = block.len();
        block.resize(at + ENTRY_LEN, 0);
        let entry = &mut block[at..];
        ENTRY_EPOCH.put_u64(entry, start.epoch.0);
        ENTRY_FIRST.put_u64(entry, start.first.get());
        ENTRY_ID.put(entry, &start.id.unwrap_or(0).to_le_bytes());
    }
}

/// The entries that fill `bytes`.
pub(crate) fn get_starts(bytes: &[u8]) -> Vec<EpochStart> {
    let start = |entry: &[u8]| EpochStart {
        epoch: Epoch(ENTRY_EPOCH.u64(entry)),
        first: Lsn::new(ENTRY_FIRST.u64(entry)),
        id: Some(u128::from_le_bytes(ENTRY_ID.array(entry))).filter(|&id| id != 0),
        is_exact: true,
    };
    bytes.chunks_exact(ENTRY_LEN).map(start).collect()
}

impl Epochs {
    pub(crate) fn new(past: Past, shown: Vec<EpochStart>) -> Self {
        Self { past, shown }
    }

    /// The epoch that the last retained record was written under.
    pub(crate) fn last(&self) -> Option<Epoch> {
        self.shown.last().map(|start| start.epoch)
    }

    /// Told of the first batch, and of each that has another epoch than the one before it. `before`:
    /// what is known of the epoch of the record before it.
    pub(crate) fn begin(&mut self, epoch: Epoch, first: Lsn, before: Epoch) {
        begin(&mut self.shown, epoch, first, before);
    }

    pub(crate) fn cut(&mut self, keep: Lsn, own_from: Epoch) {
        self.past.cut(keep, own_from);
        self.shown.retain(|start| start.first <= keep);
    }

    /// All starts that are known, oldest first. What the batches show wins, but for an epoch that they
    /// show only the end of.
    pub(crate) fn merged(&self) -> Vec<EpochStart> {
        let end = self.shown.last().map(|start| start.epoch);
        let mut merged: BTreeMap<Epoch, EpochStart> = self
            .past
            .starts
            .iter()
            // Noted ahead of a record that a crash took.
            .filter(|start| end.is_none_or(|end| start.epoch <= end))
            .map(|start| (start.epoch, *start))
            .collect();
        for shown in &self.shown {
            merged
                .entry(shown.epoch)
                .and_modify(|noted| {
                    if shown.is_exact {
                        noted.first = shown.first;
                    }
                })
                .or_insert(*shown);
        }
        merged.into_values().collect()
    }
}

/// The rule of [`Epochs::begin`], for a list that is being made.
pub(crate) fn begin(shown: &mut Vec<EpochStart>, epoch: Epoch, first: Lsn, before: Epoch) {
    let is_exact = !shown.is_empty() || first == Lsn::FIRST || epoch > before;
    if shown.len() == EPOCHS_MAX {
        shown.remove(0);
    }
    shown.push(EpochStart {
        epoch,
        first,
        id: None,
        is_exact,
    });
}
