//! Orders: what an operator or an owner asked for and a crash may interrupt, written down before it
//! begins.
//!
//! An order lies beside the journal until it is carried out; opening carries on where it stopped, or
//! refuses. A file of one block, replaced atomically, so it is there whole or not at all.

use std::path::Path;

use world::Disk;

use crate::{
    Birth, Cause, Epoch, EpochStart, Error, Identity, Kind, Lsn,
    block::{self, Fault, Field},
    epochs::{self, EPOCHS_MAX},
    identity,
};

pub(crate) const LEN: usize = 4096;
pub(crate) const RESET_NAME: &str = "reset-order";
pub(crate) const IMPORT_NAME: &str = "import-order";
pub(crate) const CUT_NAME: &str = "cut-order";
pub(crate) const BASE_NAME: &str = "base-order";
/// One line for each reset, kept by all of them.
pub(crate) const AUDIT_NAME: &str = "audit";
const MOVED_PREFIX: &str = "reset-";
pub(crate) const RESET_MAGIC: [u8; 8] = *b"HFRESET\0";
pub(crate) const IMPORT_MAGIC: [u8; 8] = *b"HFIMPRT\0";
pub(crate) const CUT_MAGIC: [u8; 8] = *b"HFCUTOR\0";
pub(crate) const BASE_MAGIC: [u8; 8] = *b"HFBASEO\0";
/// Longest reason in bytes. A few sentences; the block has room for no more than 3 KiB.
pub const REASON_LEN_MAX: usize = 1024;

pub(crate) const PHASE: Field = Field::new("phase", 36, 4);
pub(crate) const TIME: Field = Field::new("time", 40, 8);
pub(crate) const RESET_EPOCH: Field = Field::new("epoch", 48, 8);
pub(crate) const ENDED: Field = Field::new("ended generation", 56, 4);
pub(crate) const REASON_LEN: Field = Field::new("reason length", 60, 4);
pub(crate) const REASON: Field = Field::new("reason", 64, REASON_LEN_MAX);

pub(crate) const START: Field = Field::new("start", 40, 8);
pub(crate) const RECORDS: Field = Field::new("records", 48, 8);
pub(crate) const SOURCE: Field = Field::new("source", 56, 32);

pub(crate) const KEEP: Field = Field::new("keep", 40, 8);
pub(crate) const KEEP_EPOCH: Field = Field::new("keep epoch", 48, 8);
pub(crate) const OWN_FROM: Field = Field::new("own from", 56, 8);
pub(crate) const CUT_BASE: Field = Field::new("base LSN", 64, 8);
pub(crate) const CUT_FROM: Field = Field::new("from", 72, 8);
pub(crate) const CUT_TO: Field = Field::new("to", 80, 8);
pub(crate) const BATCH_AT: Field = Field::new("batch offset", 88, 8);
pub(crate) const BATCH_LEN: Field = Field::new("batch length", 96, 4);
pub(crate) const BATCH_CHECKSUM: Field = Field::new("batch checksum", 100, 4);

pub(crate) const BASE_LSN: Field = Field::new("base", 48, 8);
pub(crate) const BASE_EPOCH: Field = Field::new("epoch", 56, 8);
pub(crate) const BASE_ENDED: Field = Field::new("ended generation", 64, 4);
pub(crate) const BASE_COUNT: Field = Field::new("count", 68, 4);
pub(crate) const BASE_BIRTH: Field = Field::new("birth", 72, 16);
pub(crate) const BASE_DISCARDS: Field = Field::new("discards", 88, 4);

#[cfg(test)]
pub(crate) const BASE_MAP: [Field; 13] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
    PHASE,
    TIME,
    BASE_LSN,
    BASE_EPOCH,
    BASE_ENDED,
    BASE_COUNT,
    BASE_BIRTH,
    BASE_DISCARDS,
];

#[cfg(test)]
pub(crate) const CUT_MAP: [Field; 14] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
    KEEP,
    KEEP_EPOCH,
    OWN_FROM,
    CUT_BASE,
    CUT_FROM,
    CUT_TO,
    BATCH_AT,
    BATCH_LEN,
    BATCH_CHECKSUM,
];

#[cfg(test)]
pub(crate) const RESET_MAP: [Field; 11] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
    PHASE,
    TIME,
    RESET_EPOCH,
    ENDED,
    REASON_LEN,
    REASON,
];
#[cfg(test)]
pub(crate) const IMPORT_MAP: [Field; 9] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
    PHASE,
    START,
    RECORDS,
    SOURCE,
];

/// To end a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResetOrder {
    pub(crate) phase: ResetPhase,
    /// What the journal is afterwards.
    pub(crate) identity: Identity,
    /// Generation that ends, 0 when nothing tells; part of the name of the directory with its bytes.
    pub(crate) ended: u32,
    /// Nanoseconds since 1970, the other part of that name.
    pub(crate) time: u64,
    /// The highest known: no later epoch may be below it.
    pub(crate) epoch: Epoch,
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetPhase {
    /// Everything in the directory is of the generation that ends.
    Moving,
    /// Nothing in the directory is.
    Making,
}

/// To fill an empty journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImportOrder {
    pub(crate) is_done: bool,
    pub(crate) identity: Identity,
    /// Safe point before the first record.
    pub(crate) start: u64,
    pub(crate) records: u64,
    /// What the records are from, as the importer tells sources apart.
    pub(crate) source: [u8; 32],
}

/// To cut the tail of a log. Everything that carrying it out needs, so that it can be done again
/// without a look at the bytes that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutOrder {
    pub(crate) identity: Identity,
    /// Last position kept, and the epoch of its record.
    pub(crate) keep: Lsn,
    pub(crate) keep_epoch: Epoch,
    /// Above the epoch of every record that goes.
    pub(crate) own_from: Epoch,
    /// Segment that `keep` lies in; later ones go.
    pub(crate) base: Lsn,
    /// Bytes of that segment that become zeros.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) batch: Option<ShortBatch>,
}

/// A batch that loses its last records: what is written in its place, from a file beside the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortBatch {
    pub(crate) at: u64,
    pub(crate) len: u32,
    pub(crate) checksum: u32,
}

/// To throw a log away and begin one after a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseOrder {
    /// As of a reset.
    pub(crate) phase: ResetPhase,
    /// Of the log to come.
    pub(crate) identity: Identity,
    pub(crate) birth: Birth,
    pub(crate) base: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) starts: Vec<EpochStart>,
    /// Generation of the log that ends, 0 when nothing tells, and nanoseconds since 1970: the name of
    /// the directory with its bytes.
    pub(crate) ended: u32,
    pub(crate) time: u64,
    /// Its bytes are not kept.
    pub(crate) discards: bool,
}

/// What opening would have to carry out or refuse first.
pub(crate) fn pending(disk: &dyn Disk, dir: &Path) -> Result<Option<&'static str>, Error> {
    if ResetOrder::read(disk, dir)?.is_some() {
        return Ok(Some("a reset"));
    }
    if BaseOrder::read(disk, dir)?.is_some() {
        return Ok(Some("a beginning after a base"));
    }
    if CutOrder::read(disk, dir)?.is_some() {
        return Ok(Some("a cut"));
    }
    let import = ImportOrder::read(disk, dir)?;
    Ok(import
        .is_some_and(|import| !import.is_done)
        .then_some("an import"))
}

/// A name in a journal's directory that belongs to orders.
pub(crate) fn is_ours(name: &str) -> bool {
    [RESET_NAME, IMPORT_NAME, CUT_NAME, BASE_NAME, AUDIT_NAME].contains(&name)
}

/// The name of a directory that a reset moved a generation into.
pub(crate) fn is_moved_aside(name: &str) -> bool {
    generation_moved_aside(name).is_some()
}

pub(crate) fn generation_moved_aside(name: &str) -> Option<u32> {
    let (generation, time) = name.strip_prefix(MOVED_PREFIX)?.split_once('-')?;
    time.parse::<u64>().ok()?;
    generation.parse().ok()
}

impl ResetOrder {
    pub(crate) fn moved_to(&self) -> String {
        moved_to(self.ended, self.time)
    }

    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Error> {
        let Some(block) = read(disk, dir, RESET_NAME, RESET_MAGIC)? else {
            return Ok(None);
        };
        let len = usize::try_from(REASON_LEN.u32(&block)).unwrap_or(REASON_LEN_MAX);
        let reason = &REASON.bytes(&block)[..len.min(REASON_LEN_MAX)];
        Ok(Some(Self {
            phase: match PHASE.u32(&block) {
                1 => ResetPhase::Moving,
                _ => ResetPhase::Making,
            },
            identity: identity::get(&block),
            ended: ENDED.u32(&block),
            time: TIME.u64(&block),
            epoch: Epoch(RESET_EPOCH.u64(&block)),
            reason: String::from_utf8_lossy(reason).into_owned(),
        }))
    }

    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let mut block = vec![0; LEN];
        identity::put(&mut block, self.identity);
        let phase = match self.phase {
            ResetPhase::Moving => 1,
            ResetPhase::Making => 2,
        };
        PHASE.put_u32(&mut block, phase);
        ENDED.put_u32(&mut block, self.ended);
        TIME.put_u64(&mut block, self.time);
        RESET_EPOCH.put_u64(&mut block, self.epoch.0);
        let reason = self.reason.as_bytes();
        let len = u32::try_from(reason.len()).expect("checked against REASON_LEN_MAX");
        REASON_LEN.put_u32(&mut block, len);
        block[REASON.at..REASON.at + reason.len()].copy_from_slice(reason);
        write(disk, dir, RESET_NAME, block, RESET_MAGIC)
    }
}

impl BaseOrder {
    pub(crate) fn moved_to(&self) -> String {
        moved_to(self.ended, self.time)
    }

    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Error> {
        let len_max = LEN + EPOCHS_MAX * epochs::ENTRY_LEN;
        let Some(block) = read_sized(disk, dir, BASE_NAME, BASE_MAGIC, len_max)? else {
            return Ok(None);
        };
        let (head, entries) = block.split_at(LEN);
        let count = usize::try_from(BASE_COUNT.u32(head)).unwrap_or(usize::MAX);
        if count.saturating_mul(epochs::ENTRY_LEN) != entries.len() {
            return Err(damaged(&dir.join(BASE_NAME)));
        }
        Ok(Some(Self {
            phase: match PHASE.u32(head) {
                1 => ResetPhase::Moving,
                _ => ResetPhase::Making,
            },
            identity: identity::get(head),
            birth: Birth(u128::from_le_bytes(BASE_BIRTH.array(head))),
            base: Lsn::new(BASE_LSN.u64(head)),
            epoch: Epoch(BASE_EPOCH.u64(head)),
            starts: epochs::get_starts(entries),
            ended: BASE_ENDED.u32(head),
            time: TIME.u64(head),
            discards: BASE_DISCARDS.u32(head) == 1,
        }))
    }

    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let mut block = vec![0; LEN];
        identity::put(&mut block, self.identity);
        let phase = match self.phase {
            ResetPhase::Moving => 1,
            ResetPhase::Making => 2,
        };
        PHASE.put_u32(&mut block, phase);
        TIME.put_u64(&mut block, self.time);
        BASE_LSN.put_u64(&mut block, self.base.get());
        BASE_EPOCH.put_u64(&mut block, self.epoch.0);
        BASE_ENDED.put_u32(&mut block, self.ended);
        let count = u32::try_from(self.starts.len()).expect("at most EPOCHS_MAX");
        BASE_COUNT.put_u32(&mut block, count);
        BASE_BIRTH.put(&mut block, &self.birth.0.to_le_bytes());
        BASE_DISCARDS.put_u32(&mut block, u32::from(self.discards));
        epochs::put_starts(&mut block, &self.starts);
        write(disk, dir, BASE_NAME, block, BASE_MAGIC)
    }
}

fn moved_to(ended: u32, time: u64) -> String {
    format!("{MOVED_PREFIX}{ended}-{time}")
}

impl CutOrder {
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Error> {
        let Some(block) = read(disk, dir, CUT_NAME, CUT_MAGIC)? else {
            return Ok(None);
        };
        let batch = ShortBatch {
            at: BATCH_AT.u64(&block),
            len: BATCH_LEN.u32(&block),
            checksum: BATCH_CHECKSUM.u32(&block),
        };
        Ok(Some(Self {
            identity: identity::get(&block),
            keep: Lsn::new(KEEP.u64(&block)),
            keep_epoch: Epoch(KEEP_EPOCH.u64(&block)),
            own_from: Epoch(OWN_FROM.u64(&block)),
            base: Lsn::new(CUT_BASE.u64(&block)),
            from: CUT_FROM.u64(&block),
            to: CUT_TO.u64(&block),
            batch: (batch.len > 0).then_some(batch),
        }))
    }

    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let mut block = vec![0; LEN];
        identity::put(&mut block, self.identity);
        KEEP.put_u64(&mut block, self.keep.get());
        KEEP_EPOCH.put_u64(&mut block, self.keep_epoch.0);
        OWN_FROM.put_u64(&mut block, self.own_from.0);
        CUT_BASE.put_u64(&mut block, self.base.get());
        CUT_FROM.put_u64(&mut block, self.from);
        CUT_TO.put_u64(&mut block, self.to);
        if let Some(batch) = &self.batch {
            BATCH_AT.put_u64(&mut block, batch.at);
            BATCH_LEN.put_u32(&mut block, batch.len);
            BATCH_CHECKSUM.put_u32(&mut block, batch.checksum);
        }
        write(disk, dir, CUT_NAME, block, CUT_MAGIC)
    }
}

impl ImportOrder {
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Error> {
        let Some(block) = read(disk, dir, IMPORT_NAME, IMPORT_MAGIC)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            is_done: PHASE.u32(&block) == 2,
            identity: identity::get(&block),
            start: START.u64(&block),
            records: RECORDS.u64(&block),
            source: SOURCE.array(&block),
        }))
    }

    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let mut block = vec![0; LEN];
        identity::put(&mut block, self.identity);
        PHASE.put_u32(&mut block, if self.is_done { 2 } else { 1 });
        START.put_u64(&mut block, self.start);
        RECORDS.put_u64(&mut block, self.records);
        SOURCE.put(&mut block, &self.source);
        write(disk, dir, IMPORT_NAME, block, IMPORT_MAGIC)
    }

    /// The refusal to open what is half imported, to whoever does not import it.
    pub(crate) fn refuse_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        match Self::read(disk, dir)? {
            Some(order) if !order.is_done => Err(Error::new(
                Kind::Invalid,
                "an import into this journal was interrupted; import the same file again, or reset \
                 the journal",
            )
            .with_path(dir)),
            _ => Ok(()),
        }
    }
}

fn read(disk: &dyn Disk, dir: &Path, name: &str, magic: [u8; 8]) -> Result<Option<Vec<u8>>, Error> {
    read_sized(disk, dir, name, magic, LEN)
}

/// It says which journal this is to be, so it is damaged as the identity is.
fn damaged(path: &Path) -> Error {
    Error::recovery(Cause::IdentityMismatch, "an order does not verify").with_path(path)
}

/// An order of [`LEN`] to `len_max` bytes.
fn read_sized(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    magic: [u8; 8],
    len_max: usize,
) -> Result<Option<Vec<u8>>, Error> {
    let path = dir.join(name);
    let stat = disk
        .stat(&path)
        .map_err(|source| Error::io("look for an order", &path, source))?;
    let Some(entry) = stat else { return Ok(None) };
    if entry.len < LEN as u64 || entry.len > len_max as u64 {
        return Err(damaged(&path));
    }
    let block = disk
        .read(&path, len_max as u64)
        .map_err(|source| Error::io("read an order", &path, source))?;
    match block::verify(&block, magic) {
        Ok(()) => Ok(Some(block)),
        Err(Fault::Damaged) => Err(damaged(&path)),
        Err(Fault::Version(version)) => Err(Error::version(version).with_path(path)),
    }
}

fn write(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    mut block: Vec<u8>,
    magic: [u8; 8],
) -> Result<(), Error> {
    block::seal(&mut block, magic);
    let path = dir.join(name);
    disk.replace(&path, &block)
        .map_err(|source| Error::io("write an order", path, source))
}
