//! What is cut or replaced is kept first: the bytes in one file, a report in another.
//!
//! Names come from what was cut, so an open that a crash interrupted and repeats writes the same
//! files again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use world::{Disk, File, disk::Open};
use xxhash_rust::xxh3::Xxh3;

use super::{Error, Seq};

pub(crate) const DIR: &str = "quarantine";
/// Cuts kept, the lowest position first to go; as many as the journal keeps.
pub(crate) const CUTS_MAX: usize = 64;
const UNNAMED: &str = "unnamed";
const BYTES: &str = ".bytes";
const REPORT: &str = ".txt";
/// Bytes copied at once.
const CHUNK_LEN: usize = 256 << 10;

/// What opening cut off behind the safe sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where in `telemetry.wal`.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// The first sequence that is not there.
    pub first: Seq,
    /// Where the bytes were copied to.
    pub kept: PathBuf,
}

/// Copies everything from `offset` to `end` of the log aside, durably.
pub(crate) fn keep_tail(
    disk: &dyn Disk,
    dir: &Path,
    log: &dyn File,
    (offset, end): (u64, u64),
    first: Seq,
) -> Result<Cut, Error> {
    let dir = dir.join(DIR);
    let attempt = || {
        disk.create_dir_all_synced(&dir)?;
        let unnamed = dir.join(UNNAMED);
        let hash = copy(disk, log, (offset, end), &unnamed)?;
        let stem = format!("{:020}-{offset:020}-{hash:016x}", first.0);
        let report = format!(
            "offset {offset}\nlength {}\nfirst sequence not kept {first}\nwhy beyond the safe sequence\n",
            end - offset
        );
        disk.replace(&dir.join(format!("{stem}{REPORT}")), report.as_bytes())?;
        let kept = dir.join(format!("{stem}{BYTES}"));
        disk.rename(&unnamed, &kept)?;
        disk.sync_dir(&dir)?;
        forget_oldest(disk, &dir)?;
        Ok(kept)
    };
    let kept = attempt()
        .map_err(|source: io::Error| Error::io("keep what is cut in", dir.clone(), source))?;
    Ok(Cut {
        offset,
        len: end - offset,
        first,
        kept,
    })
}

/// Copies a staged safe sequence, the only evidence of how far a log was, before it is replaced. A
/// copy, because a rename between two directories can be lost in both.
pub(crate) fn keep_staged(disk: &dyn Disk, dir: &Path, staged: &Path) -> Result<(), Error> {
    let aside = dir.join(DIR);
    let attempt = || {
        disk.create_dir_all_synced(&aside)?;
        let bytes = disk.read(staged, STAGED_LEN_MAX)?;
        let name = format!("safe_seq.tmp-{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes));
        disk.replace(&aside.join(name), &bytes)
    };
    attempt().map_err(|source: io::Error| Error::io("keep", staged, source))
}

/// A staged safe sequence has 8 bytes; one with more than this was not written by any version.
const STAGED_LEN_MAX: u64 = 4096;

/// Copies a range to the new file `to`, synced; its name is not yet. Returns the hash of the bytes.
pub(crate) fn copy(
    disk: &dyn Disk,
    from: &dyn File,
    (start, end): (u64, u64),
    to: &Path,
) -> io::Result<u64> {
    let file = create_anew(disk, to)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; CHUNK_LEN];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at)
            .unwrap_or(CHUNK_LEN)
            .min(CHUNK_LEN);
        from.read_exact_at(&mut buffer[..len], at)?;
        file.write_all_at(&buffer[..len], at - start)?;
        hash.update(&buffer[..len]);
        at += len as u64;
    }
    file.sync_all()?;
    Ok(hash.digest())
}

/// An empty file where a crash may have left an unfinished one.
pub(crate) fn create_anew(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn File>> {
    if disk.stat(path)?.is_some() {
        disk.remove_file(path)?;
    }
    disk.open(path, Open::CreateNew)
}

fn forget_oldest(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let entries = disk.list(dir)?;
    let cuts: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry.name.strip_suffix(BYTES))
        .collect();
    for stem in cuts.iter().take(cuts.len().saturating_sub(CUTS_MAX)) {
        tracing::warn!(dir = %dir.display(), stem, "more cuts than are kept; the oldest goes");
        disk.remove_file(&dir.join(format!("{stem}{BYTES}")))?;
        let report = dir.join(format!("{stem}{REPORT}"));
        if disk.stat(&report)?.is_some() {
            disk.remove_file(&report)?;
        }
    }
    Ok(())
}
