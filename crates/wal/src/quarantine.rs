//! What is cut is kept first: what recovery cuts as bytes, what a replicated journal's owner cuts as
//! records, each with a report.
//!
//! Names come from what was cut, so an open that a crash interrupted and repeats writes the same
//! files again, and another tear at the same place gets files of its own.

use std::path::{Path, PathBuf};

use world::{Disk, disk::Open};

pub(crate) mod records;

use crate::{Error, Lsn, window::Window};

pub(crate) const DIR: &str = "quarantine";
/// Cuts kept of either kind, oldest position first to go. A tail is at most one batch, and a log that
/// parts is one failover; a site with this many has other troubles, and its disk must not fill with
/// them.
pub(crate) const CUTS_MAX: usize = 64;
/// What a cut is called until its checksum, and so its name, is known.
const UNNAMED: &str = "unnamed";
pub(crate) const BYTES: &str = ".bytes";
pub(crate) const REPORT: &str = ".txt";

/// Bytes of a segment that are about to be zeroed.
#[derive(Debug)]
pub(crate) struct Tail<'a> {
    pub(crate) segment: &'a Path,
    pub(crate) base: Lsn,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    /// Position of the first record that is not there.
    pub(crate) expected: Lsn,
    pub(crate) why: &'static str,
}

impl Tail<'_> {
    /// Copies the tail out, durably, and returns where to. The window is on the segment.
    pub(crate) fn keep(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        window: &mut Window,
    ) -> Result<PathBuf, Error> {
        let dir = dir.join(DIR);
        self.copy(disk, &dir, window)
            .map_err(|source| Error::io("quarantine the tail of a segment", &dir, source))
    }

    /// Through one window, whatever the length of the tail.
    fn copy(&self, disk: &dyn Disk, dir: &Path, window: &mut Window) -> std::io::Result<PathBuf> {
        disk.create_dir_all_synced(dir)?;
        let unnamed = dir.join(UNNAMED);
        if disk.stat(&unnamed)?.is_some() {
            disk.remove_file(&unnamed)?;
        }
        let file = disk.open(&unnamed, Open::CreateNew)?;
        let mut checksum = 0;
        let mut at = self.offset;
        while at < self.end {
            let bytes = window.some(at, self.end - at)?;
            if bytes.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all_at(bytes, at - self.offset)?;
            checksum = crc32c::crc32c_append(checksum, bytes);
            at += bytes.len() as u64;
        }
        file.sync_all()?;
        let stem = format!(
            "{:020}-{:020}-{checksum:08x}",
            self.expected.get(),
            self.offset
        );
        disk.replace(
            &dir.join(format!("{stem}{REPORT}")),
            self.report().as_bytes(),
        )?;
        let kept = dir.join(format!("{stem}{BYTES}"));
        disk.rename(&unnamed, &kept)?;
        disk.sync_dir(dir)?;
        forget_oldest(disk, dir, &stem, BYTES)?;
        Ok(kept)
    }

    fn report(&self) -> String {
        format!(
            "segment {}\nbase {}\noffset {}\nlength {}\nfirst position not kept {}\nwhy {}\n",
            self.segment.display(),
            self.base,
            self.offset,
            self.end - self.offset,
            self.expected,
            self.why
        )
    }
}

/// Not the newest, though: where one position is torn again and again, names do not tell which came
/// first.
fn forget_oldest(disk: &dyn Disk, dir: &Path, newest: &str, ending: &str) -> std::io::Result<()> {
    let names: Vec<String> = disk
        .list(dir)?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    let newest = format!("{newest}{ending}");
    let cuts = names.iter().filter(|name| name.ends_with(ending));
    let excess = cuts.clone().count().saturating_sub(CUTS_MAX);
    for name in cuts.filter(|&name| *name != newest).take(excess) {
        tracing::warn!(dir = %dir.display(), name, "more cuts than are kept; the oldest goes");
        disk.remove_file(&dir.join(name))?;
        let report = format!("{}{REPORT}", name.trim_end_matches(ending));
        if names.contains(&report) {
            disk.remove_file(&dir.join(report))?;
        }
    }
    Ok(())
}
