//! Records that the owner of a replicated journal had cut, in a file that can be read without the
//! journal: each with its position, its epoch and a checksum of its own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use world::{Disk, File, disk::Open};

use super::{DIR, REPORT, forget_oldest};
use crate::{
    Cause, Epoch, Error, Identity, Lsn, RECORD_LEN_MAX, Record, RecordKind,
    block::{self, Fault, Field},
    identity,
};

pub(crate) const RECORDS: &str = ".records";
pub(crate) const MAGIC: [u8; 8] = *b"HFCUTRC\0";
pub(crate) const HEADER_LEN: usize = 64;
pub(crate) const RECORD_HEADER_LEN: usize = 25;
/// What a file is called until its checksum, and so its name, is known.
const UNNAMED: &str = "unnamed-records";
/// Bytes per write. Arbitrary: large enough to stream.
const CHUNK: usize = 1 << 20;

pub(crate) const COUNT: Field = Field::new("count", 40, 8);
pub(crate) const FIRST: Field = Field::new("first LSN", 48, 8);

pub(crate) const RECORD_CHECKSUM: Field = Field::new("checksum", 0, 4);
pub(crate) const RECORD_LENGTH: Field = Field::new("length", 4, 4);
pub(crate) const RECORD_LSN: Field = Field::new("LSN", 8, 8);
pub(crate) const RECORD_EPOCH: Field = Field::new("epoch", 16, 8);
pub(crate) const RECORD_KIND: Field = Field::new("kind", 24, 1);

#[cfg(test)]
pub(crate) const MAP: [Field; 7] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
    COUNT,
    FIRST,
];
#[cfg(test)]
pub(crate) const RECORD_MAP: [Field; 5] = [
    RECORD_CHECKSUM,
    RECORD_LENGTH,
    RECORD_LSN,
    RECORD_EPOCH,
    RECORD_KIND,
];

/// What is about to be cut.
#[derive(Debug)]
pub(crate) struct Tail<'a> {
    pub(crate) identity: Identity,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// For the report: what, why, when.
    pub(crate) report: &'a str,
}

/// Bytes on their way to a file.
struct Out {
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    written: u64,
    checksum: u32,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.written)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Tail<'_> {
    /// Copies `records`, durably, and returns where to. Named by what is in it, so an attempt that a
    /// crash interrupted and that is made again leaves one file.
    pub(crate) fn keep(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        records: impl Iterator<Item = Result<Record, Error>>,
    ) -> Result<PathBuf, Error> {
        let dir = dir.join(DIR);
        let failed = |source| Error::io("quarantine records", &dir, source);
        let unnamed = dir.join(UNNAMED);
        let begin = || {
            disk.create_dir_all_synced(&dir)?;
            if disk.stat(&unnamed)?.is_some() {
                disk.remove_file(&unnamed)?;
            }
            let mut out = Out {
                file: disk.open(&unnamed, Open::CreateNew)?,
                buffer: Vec::with_capacity(CHUNK),
                written: 0,
                checksum: 0,
            };
            out.put(&self.header())?;
            Ok(out)
        };
        let mut out = begin().map_err(failed)?;
        for record in records {
            let record = record?;
            let mut head = [0; RECORD_HEADER_LEN];
            let len = u32::try_from(record.bytes.len()).expect("at most RECORD_LEN_MAX");
            RECORD_LENGTH.put_u32(&mut head, len);
            RECORD_LSN.put_u64(&mut head, record.lsn.get());
            RECORD_EPOCH.put_u64(&mut head, record.epoch.0);
            RECORD_KIND.put(&mut head, &[record.kind.0]);
            let checksum = record_checksum(&head, &record.bytes);
            RECORD_CHECKSUM.put_u32(&mut head, checksum);
            out.put(&head)
                .and_then(|()| out.put(&record.bytes))
                .map_err(failed)?;
        }
        self.name(disk, &dir, &unnamed, out).map_err(failed)
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let mut block = [0; HEADER_LEN];
        identity::put(&mut block, self.identity);
        COUNT.put_u64(&mut block, self.last.get() + 1 - self.first.get());
        FIRST.put_u64(&mut block, self.first.get());
        block::seal(&mut block, MAGIC);
        block
    }

    fn name(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        unnamed: &Path,
        mut out: Out,
    ) -> io::Result<PathBuf> {
        out.flush()?;
        out.file.sync_all()?;
        let stem = format!(
            "{:020}-{:020}-{:08x}",
            self.first.get(),
            self.last.get(),
            out.checksum
        );
        let report = dir.join(format!("{stem}{REPORT}"));
        disk.replace(&report, self.report.as_bytes())?;
        let kept = dir.join(format!("{stem}{RECORDS}"));
        disk.rename(unnamed, &kept)?;
        disk.sync_dir(dir)?;
        forget_oldest(disk, dir, &stem, RECORDS)?;
        Ok(kept)
    }
}

fn record_checksum(head: &[u8; RECORD_HEADER_LEN], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[RECORD_LENGTH.at..]), bytes)
}

/// The files in the quarantine of the journal in `dir` that hold records which were cut, in the order
/// of their first positions.
pub fn cut_files(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = dir.join(DIR);
    let list = || {
        if disk.stat(&dir)?.is_none() {
            return Ok(Vec::new());
        }
        let mut found = disk.list(&dir)?;
        found.retain(|entry| entry.name.ends_with(RECORDS));
        Ok(found.iter().map(|entry| dir.join(&entry.name)).collect())
    };
    list().map_err(|source| Error::io("read the quarantine", &dir, source))
}

/// Records that were cut, from a file of [`cut_files`]. Ends after an error.
#[derive(Debug)]
pub struct CutRecords {
    file: Arc<dyn File>,
    path: PathBuf,
    identity: Identity,
    offset: u64,
    next: Lsn,
    left: u64,
}

impl CutRecords {
    /// Opens `path`. `Corrupt`: its header does not verify.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::io("read records that were cut", path, source);
        let file = disk.open(path, Open::Read).map_err(failed)?;
        let mut block = [0; HEADER_LEN];
        file.read_exact_at(&mut block, 0).map_err(failed)?;
        match block::verify(&block, MAGIC) {
            Ok(()) => {}
            Err(Fault::Damaged) => {
                let message = "a file of records that were cut does not verify";
                return Err(Error::recovery(Cause::FrameCorrupt, message).with_path(path));
            }
            Err(Fault::Version(version)) => return Err(Error::version(version).with_path(path)),
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            identity: identity::get(&block),
            offset: HEADER_LEN as u64,
            next: Lsn::new(FIRST.u64(&block)),
            left: COUNT.u64(&block),
        })
    }

    /// The journal they were cut from.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Records that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn step(&mut self) -> Result<Record, Error> {
        let corrupt = || {
            Error::recovery(Cause::FrameCorrupt, "a record that was cut does not verify")
                .with_path(&self.path)
                .with_offset(self.offset)
                .with_lsn(self.next)
        };
        let read = |bytes: &mut [u8], at: u64| {
            self.file
                .read_exact_at(bytes, at)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::UnexpectedEof => corrupt(),
                    _ => Error::io("read records that were cut", &self.path, source),
                })
        };
        let mut head = [0; RECORD_HEADER_LEN];
        read(&mut head, self.offset)?;
        let len = usize::try_from(RECORD_LENGTH.u32(&head)).unwrap_or(usize::MAX);
        if len > RECORD_LEN_MAX || RECORD_LSN.u64(&head) != self.next.get() {
            return Err(corrupt());
        }
        let mut bytes = vec![0; len];
        read(&mut bytes, self.offset + RECORD_HEADER_LEN as u64)?;
        if RECORD_CHECKSUM.u32(&head) != record_checksum(&head, &bytes) {
            return Err(corrupt());
        }
        let record = Record {
            lsn: self.next,
            epoch: Epoch(RECORD_EPOCH.u64(&head)),
            kind: RecordKind(RECORD_KIND.bytes(&head)[0]),
            bytes,
        };
        self.offset += (RECORD_HEADER_LEN + len) as u64;
        self.next = self.next.next();
        self.left -= 1;
        Ok(record)
    }
}

impl Iterator for CutRecords {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}
