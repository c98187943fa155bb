//! Directories of a run: where they are counted and removed.

use std::{io, path::Path};

use world::{Disk, RealDisk, disk::EntryKind};

use super::{breach::Fault, tally::Tally};

/// Counts what is in a data directory and removes it. One that was never made counts as empty.
pub(super) fn give_up(dir: &Path, tally: &mut Tally) -> Result<(), Fault> {
    if RealDisk.stat(dir)?.is_none() {
        return Ok(());
    }
    tally.directories += 1;
    tally.bytes += len_of(dir)?;
    Ok(RealDisk.remove_dir_all(dir)?)
}

fn len_of(dir: &Path) -> io::Result<u64> {
    let mut len = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in RealDisk.list(&dir)? {
            len += entry.len;
            if entry.kind == EntryKind::Dir {
                open.push(dir.join(entry.name));
            }
        }
    }
    Ok(len)
}
