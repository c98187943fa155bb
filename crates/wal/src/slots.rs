//! The safe-point file: two checksummed slots, overwritten in place, one after the other.
//!
//! Invariants
//! - A slot is overwritten only while the other one verifies, so a torn write leaves one that does.
//! - The newest slot that verifies wins; its sequence never falls, its safe point only by a cut.
//! - [`Slots::settled`] is what *both* slots hold. Batches carry it, and recovery refuses a file
//!   below what a batch carries; losing one slot can therefore never look like a regression.

use std::{path::PathBuf, sync::Arc};

use world::{Disk, File, disk::Open, invariant};

use crate::{
    Cause, Epoch, Error, Identity, Lsn,
    block::{self, Fault, Field},
    identity,
};

pub(crate) const NAME: &str = "safe-point";
/// One page each: a torn write of one slot cannot reach the other.
pub(crate) const SLOT_LEN: usize = 4096;
pub(crate) const SLOTS: usize = 2;
pub(crate) const FILE_LEN: usize = SLOT_LEN * SLOTS;
pub(crate) const MAGIC: [u8; 8] = *b"HFSAFEP\0";

pub(crate) const SEQUENCE: Field = Field::new("sequence", 40, 8);
pub(crate) const SAFE_POINT: Field = Field::new("safe point", 48, 8);
pub(crate) const FIRST_RETAINED: Field = Field::new("first retained LSN", 56, 8);
pub(crate) const ACTIVE: Field = Field::new("active base LSN", 64, 8);
pub(crate) const EPOCH: Field = Field::new("epoch", 72, 8);

#[cfg(test)]
pub(crate) const MAP: [Field; 10] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
    SEQUENCE,
    SAFE_POINT,
    FIRST_RETAINED,
    ACTIVE,
    EPOCH,
];

/// What a slot vouches for. Every number only rises, except by a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) safe_point: Lsn,
    /// Base of the oldest segment that must be there; older ones are leftovers of a removal.
    pub(crate) first_retained: Lsn,
    /// Base of a segment that must be there: the one appended to when this was written.
    pub(crate) active: Lsn,
    /// Highest epoch of a record at or below the safe point.
    pub(crate) epoch: Epoch,
}

impl Watermark {
    pub(crate) const EMPTY: Self = Self {
        safe_point: Lsn::ZERO,
        first_retained: Lsn::FIRST,
        active: Lsn::FIRST,
        epoch: Epoch(0),
    };
}

/// The open safe-point file.
#[derive(Debug)]
pub(crate) struct Slots {
    file: Arc<dyn File>,
    path: PathBuf,
    identity: Identity,
    held: [Option<Held>; SLOTS],
    /// False after opening: the page cache may show what a failed or missing sync kept from the disk.
    is_newest_durable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    sequence: u64,
    watermark: Watermark,
}

impl Slots {
    /// Both slots at the start of a generation, as bytes for a file that is made atomically.
    pub(crate) fn initial(identity: Identity) -> Vec<u8> {
        Self::beginning(identity, &Watermark::EMPTY)
    }

    /// Both slots of a log that begins at `watermark`.
    pub(crate) fn beginning(identity: Identity, watermark: &Watermark) -> Vec<u8> {
        let mut file = encode(identity, 1, watermark);
        file.extend(encode(identity, 2, watermark));
        file
    }

    /// The slots of an existing file. One slot that does not verify is a torn write; two are
    /// `SAFE_POINT_CORRUPT`.
    pub(crate) fn open(disk: &dyn Disk, path: PathBuf, identity: Identity) -> Result<Self, Error> {
        let attempt = || {
            let file = disk.open(&path, Open::Write)?;
            let len = file.len()?;
            let mut bytes = vec![0; FILE_LEN];
            if len == FILE_LEN as u64 {
                file.read_exact_at(&mut bytes, 0)?;
            }
            Ok((file, len, bytes))
        };
        let (file, len, bytes) =
            attempt().map_err(|source| Error::io("read the safe-point file", &path, source))?;
        let corrupt = |why: String| {
            Error::recovery(Cause::SafePointCorrupt, format!("safe-point file: {why}"))
                .with_path(&path)
        };
        if len != FILE_LEN as u64 {
            return Err(corrupt(format!("{len} bytes instead of {FILE_LEN}")));
        }
        let mut held = [None; SLOTS];
        for (slot, held) in held.iter_mut().enumerate() {
            let block = &bytes[slot * SLOT_LEN..][..SLOT_LEN];
            match block::verify(block, MAGIC) {
                Ok(()) => {
                    identity::check(block, identity, &path)?;
                    *held = Some(decode(block));
                }
                Err(Fault::Damaged) => {}
                Err(Fault::Version(version)) => {
                    return Err(Error::version(version).with_path(&path));
                }
            }
        }
        if held.iter().all(Option::is_none) {
            return Err(corrupt("neither slot verifies".to_owned()));
        }
        Ok(Self {
            file,
            path,
            identity,
            held,
            is_newest_durable: false,
        })
    }

    /// Says that the file was made and synced a moment ago.
    #[must_use]
    pub(crate) fn known_durable(mut self) -> Self {
        self.is_newest_durable = true;
        self
    }

    /// What the newest slot vouches for.
    pub(crate) fn watermark(&self) -> Watermark {
        self.newest().1.watermark
    }

    /// A slot does not verify: torn by a crash, or damaged.
    pub(crate) fn is_torn(&self) -> bool {
        self.held.iter().any(Option::is_none)
    }

    /// The safe point that both slots hold.
    pub(crate) fn settled(&self) -> Lsn {
        self.held
            .iter()
            .map(|held| held.map_or(Lsn::ZERO, |held| held.watermark.safe_point))
            .min()
            .unwrap_or(Lsn::ZERO)
    }

    /// Brings both slots to `watermark`; nothing is written when they hold it. An error leaves the
    /// file in doubt, and whoever sees it must poison the journal.
    pub(crate) fn settle(&mut self, watermark: &Watermark) -> Result<(), Error> {
        for _ in 0..SLOTS {
            if self
                .held
                .iter()
                .all(|held| held.is_some_and(|held| held.watermark == *watermark))
            {
                break;
            }
            self.advance(watermark)?;
        }
        Ok(())
    }

    /// Overwrites the older slot, or the one that does not verify, and syncs.
    /// An error leaves the file in doubt, as it does for [`Slots::settle`].
    pub(crate) fn advance(&mut self, watermark: &Watermark) -> Result<(), Error> {
        let (_, newest) = self.newest();
        invariant!(
            watermark.safe_point >= newest.watermark.safe_point
                && watermark.first_retained >= newest.watermark.first_retained,
            "safe point falls from {:?} to {watermark:?}",
            newest.watermark
        );
        self.put(watermark)
    }

    /// Moves both slots back to `keep`. Only under the order of a cut, which opening carries out before
    /// it asks the slots: amid this they differ, and may be below or above what the batches say.
    pub(crate) fn move_back(&mut self, keep: Lsn, epoch: Epoch, active: Lsn) -> Result<(), Error> {
        let watermark = Watermark {
            safe_point: keep,
            first_retained: self.watermark().first_retained,
            active,
            epoch,
        };
        let is_there = |held: &Option<Held>| held.is_some_and(|it| it.watermark == watermark);
        while !self.held.iter().all(is_there) {
            self.put(&watermark)?;
        }
        Ok(())
    }

    fn put(&mut self, watermark: &Watermark) -> Result<(), Error> {
        self.make_newest_durable()?;
        let (_, newest) = self.newest();
        let held = Held {
            sequence: newest.sequence + 1,
            watermark: *watermark,
        };
        let oldest = self.oldest();
        // Until the sync returns, what the slot holds is unknown.
        self.held[oldest] = None;
        self.write(oldest, &held)?;
        self.held[oldest] = Some(held);
        Ok(())
    }

    /// Writes the newest slot again as it is, if it was only read so far. Before the other one is
    /// touched, or a power loss could find both half written: this one by whoever wrote it last, the
    /// other one by us.
    pub(crate) fn make_newest_durable(&mut self) -> Result<(), Error> {
        if self.is_newest_durable {
            return Ok(());
        }
        let (slot, newest) = self.newest();
        self.write(slot, &newest)
    }

    fn write(&mut self, slot: usize, held: &Held) -> Result<(), Error> {
        let bytes = encode(self.identity, held.sequence, &held.watermark);
        let offset = (slot * SLOT_LEN) as u64;
        self.file
            .write_all_at(&bytes, offset)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| {
                Error::doubt("write a safe-point slot", &self.path, source).with_offset(offset)
            })?;
        self.is_newest_durable = true;
        Ok(())
    }

    fn newest(&self) -> (usize, Held) {
        let held = |slot: usize| self.held[slot].map(|held| (slot, held));
        (0..SLOTS)
            .filter_map(held)
            .max_by_key(|(_, held)| held.sequence)
            .expect("a slot is overwritten only while the other verifies")
    }

    fn oldest(&self) -> usize {
        let sequence = |slot: &usize| self.held[*slot].map_or(0, |held| held.sequence);
        (0..SLOTS).min_by_key(sequence).unwrap_or(0)
    }
}

fn encode(identity: Identity, sequence: u64, watermark: &Watermark) -> Vec<u8> {
    let mut block = vec![0; SLOT_LEN];
    identity::put(&mut block, identity);
    SEQUENCE.put_u64(&mut block, sequence);
    SAFE_POINT.put_u64(&mut block, watermark.safe_point.get());
    FIRST_RETAINED.put_u64(&mut block, watermark.first_retained.get());
    ACTIVE.put_u64(&mut block, watermark.active.get());
    EPOCH.put_u64(&mut block, watermark.epoch.0);
    block::seal(&mut block, MAGIC);
    block
}

fn decode(block: &[u8]) -> Held {
    Held {
        sequence: SEQUENCE.u64(block),
        watermark: Watermark {
            safe_point: Lsn::new(SAFE_POINT.u64(block)),
            first_retained: Lsn::new(FIRST_RETAINED.u64(block)),
            active: Lsn::new(ACTIVE.u64(block)),
            epoch: Epoch(EPOCH.u64(block)),
        },
    }
}
