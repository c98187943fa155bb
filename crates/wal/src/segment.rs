//! A segment file: its name and its header.
//!
//! A segment gets its name only when its header and first extent are durable, so a file with a
//! segment's name and a header that does not verify is damage, never a crash.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use world::{File, Timestamp};

use crate::{
    Cause, Epoch, Error, Identity, Lsn,
    block::{self, Fault, Field},
    identity,
};

/// One page: appends never write into the sector that holds the header.
pub(crate) const HEADER_LEN: usize = 4096;
pub(crate) const MAGIC: [u8; 8] = *b"HFSEGMT\0";
const EXTENSION: &str = ".seg";
pub(crate) const NAME_DIGITS: usize = 20;

pub(crate) const BASE: Field = Field::new("base LSN", 40, 8);
pub(crate) const PREVIOUS: Field = Field::new("previous base LSN", 48, 8);
pub(crate) const EPOCH: Field = Field::new("epoch", 56, 8);
pub(crate) const SETTLED: Field = Field::new("settled", 64, 8);
pub(crate) const CREATED: Field = Field::new("created", 72, 8);
pub(crate) const STALE: Field = Field::new("stale base LSN", 80, 8);

#[cfg(test)]
pub(crate) const MAP: [Field; 11] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
    BASE,
    PREVIOUS,
    EPOCH,
    SETTLED,
    CREATED,
    STALE,
];

/// What a segment header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    /// First LSN that lies here. Everything below it was durable before this header was written.
    pub(crate) base: Lsn,
    /// Base of the segment before; `Lsn::ZERO` for the first of a generation.
    pub(crate) previous: Lsn,
    /// Highest epoch when the segment began.
    pub(crate) epoch: Epoch,
    /// Both slots of the safe-point file held at least this.
    pub(crate) settled: Lsn,
    /// For retention by age.
    pub(crate) created: Timestamp,
    /// Base of the segment that this file was before; `Lsn::ZERO` when it was zeros. Its bytes lie
    /// behind the last batch, after room for one batch header of zeros.
    pub(crate) stale: Lsn,
}

impl Header {
    /// Stale bytes lie behind the last batch, not zeros.
    pub(crate) fn is_recycled(&self) -> bool {
        self.stale > Lsn::ZERO
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; HEADER_LEN];
        identity::put(&mut block, self.identity);
        BASE.put_u64(&mut block, self.base.get());
        PREVIOUS.put_u64(&mut block, self.previous.get());
        EPOCH.put_u64(&mut block, self.epoch.0);
        SETTLED.put_u64(&mut block, self.settled.get());
        CREATED.put_u64(&mut block, self.created.nanos());
        STALE.put_u64(&mut block, self.stale.get());
        block::seal(&mut block, MAGIC);
        block
    }

    /// The header of the segment `path`, whose name says `base`.
    pub(crate) fn read(
        file: &dyn File,
        path: &Path,
        base: Lsn,
        identity: Identity,
    ) -> Result<Self, Error> {
        let corrupt = |why: String| {
            Error::recovery(
                Cause::SegmentHeaderCorrupt,
                format!("segment header does not verify: {why}"),
            )
            .with_path(path)
            .with_lsn(base)
            .with_offset(0)
        };
        let len = file
            .len()
            .map_err(|source| Error::io("measure a segment", path, source))?;
        if len < HEADER_LEN as u64 {
            return Err(corrupt(format!("the file has {len} bytes")));
        }
        let mut block = vec![0; HEADER_LEN];
        file.read_exact_at(&mut block, 0)
            .map_err(|source| Error::io("read a segment header", path, source))?;
        match block::verify(&block, MAGIC) {
            Ok(()) => {}
            Err(Fault::Damaged) => return Err(corrupt("checksum".to_owned())),
            Err(Fault::Version(version)) => return Err(Error::version(version).with_path(path)),
        }
        identity::check(&block, identity, path)?;
        let header = Self {
            identity,
            base: Lsn::new(BASE.u64(&block)),
            previous: Lsn::new(PREVIOUS.u64(&block)),
            epoch: Epoch(EPOCH.u64(&block)),
            settled: Lsn::new(SETTLED.u64(&block)),
            created: Timestamp::from_nanos(CREATED.u64(&block)),
            stale: Lsn::new(STALE.u64(&block)),
        };
        if header.base != base {
            return Err(corrupt(format!(
                "it says base {}, the name says {base}",
                header.base
            )));
        }
        Ok(header)
    }
}

pub(crate) fn path(dir: &Path, base: Lsn) -> PathBuf {
    dir.join(format!("{:0NAME_DIGITS$}{EXTENSION}", base.get()))
}

/// The base LSN that a file name says; `None` when it is not the name of a segment.
pub(crate) fn base_of(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(EXTENSION)?;
    if digits.len() != NAME_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.parse() {
        Ok(0) | Err(_) => None,
        Ok(base) => Some(Lsn::new(base)),
    }
}

/// A segment that can be appended to.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: PathBuf,
    /// Bytes that were written and synced, so that writing them again moves no metadata.
    pub(crate) extent: u64,
    /// What follows the last batch is bytes of an earlier segment, not zeros.
    pub(crate) is_recycled: bool,
}

/// Bytes per zeroing write: large enough to stream, small enough to keep.
const ZERO_CHUNK: usize = 1 << 20;
static ZEROS: [u8; ZERO_CHUNK] = [0; ZERO_CHUNK];

/// Writes zeros from `from` to `to`. Does not sync.
pub(crate) fn zero_fill(file: &dyn File, from: u64, to: u64) -> std::io::Result<()> {
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at)
            .unwrap_or(ZERO_CHUNK)
            .min(ZERO_CHUNK);
        file.write_all_at(&ZEROS[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
