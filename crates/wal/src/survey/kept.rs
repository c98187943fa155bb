//! What lies beside the segments: quarantined tails, directories of earlier resets, strangers.

use std::path::Path;

use world::{
    Disk,
    disk::{EntryKind, Open},
};

use super::{Survey, unread::is_lost};
use crate::{
    Error, cut, epochs, identity, local, order, quarantine, reserve, segment, slots, spare,
    window::{WINDOW_LEN, Window},
};

/// A tail that recovery cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Name without ending.
    pub stem: String,
    pub bytes: u64,
    /// The report of the cut, when there is one.
    pub report: Option<String>,
    /// The bytes have the checksum of the name.
    pub verifies: bool,
}

/// Longest report shown. One is six short lines and a path.
const REPORT_LEN_MAX: u64 = 16 << 10;

pub(super) fn names(disk: &dyn Disk, survey: &mut Survey) -> Result<(), Error> {
    let entries = disk
        .list(&survey.dir)
        .map_err(|source| Error::io("list the journal", &survey.dir, source))?;
    for entry in entries {
        let name = entry.name;
        let is_known = [
            identity::NAME,
            slots::NAME,
            local::LOCK_NAME,
            quarantine::DIR,
            reserve::NAME,
            epochs::NAME,
            cut::KEPT_NAME,
        ]
        .contains(&&*name)
            || order::is_ours(&name)
            || segment::base_of(&name).is_some()
            || name.ends_with(spare::EXTENSION)
            || name.ends_with(".tmp");
        if entry.kind == EntryKind::Dir && order::is_moved_aside(&name) {
            survey.moved_aside.push(name);
        } else if !is_known {
            survey.strangers.push(name);
        }
    }
    let dir = survey.dir.join(quarantine::DIR);
    quarantined(disk, &dir, survey).map_err(|source| Error::io("read the quarantine", &dir, source))
}

fn quarantined(disk: &dyn Disk, dir: &Path, survey: &mut Survey) -> std::io::Result<()> {
    if disk.stat(dir)?.is_none() {
        return Ok(());
    }
    for entry in disk.list(dir)? {
        let Some(stem) = entry.name.strip_suffix(quarantine::BYTES) else {
            continue;
        };
        let report = dir.join(format!("{stem}{}", quarantine::REPORT));
        let report = match disk.stat(&report)? {
            Some(_) => disk.read(&report, REPORT_LEN_MAX).ok(),
            None => None,
        };
        let checksum = match checksum(disk, &dir.join(&entry.name)) {
            Err(error) if is_lost(&error) => None,
            checksum => Some(checksum?),
        };
        survey.quarantined.push(Quarantined {
            stem: stem.to_owned(),
            bytes: entry.len,
            report: report.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            verifies: checksum.is_some_and(|sum| stem.ends_with(&format!("-{sum:08x}"))),
        });
    }
    Ok(())
}

fn checksum(disk: &dyn Disk, path: &Path) -> std::io::Result<u32> {
    let mut window = Window::new(disk.open(path, Open::Read)?);
    let mut checksum = 0;
    let mut at = 0;
    loop {
        let bytes = window.some(at, WINDOW_LEN as u64)?;
        if bytes.is_empty() {
            return Ok(checksum);
        }
        checksum = crc32c::crc32c_append(checksum, bytes);
        at += bytes.len() as u64;
    }
}
