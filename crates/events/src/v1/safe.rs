//! The safe sequence: 8 bytes, little-endian, replaced and never overwritten.

use std::{io, path::Path};

use world::Disk;

use super::{Cause, Error, SAFE_SEQ, SAFE_SEQ_TMP, Seq, aside};

/// Bytes of the file.
pub(crate) const LEN: usize = 8;

/// `None` when there is no file, which is not the same as a safe sequence of 0.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Seq>, Error> {
    let path = dir.join(SAFE_SEQ);
    let failed = |source: io::Error| Error::io("read the safe sequence", &path, source);
    let Some(entry) = disk.stat(&path).map_err(failed)? else {
        return Ok(None);
    };
    if entry.len != LEN as u64 {
        return Err(Error::refusal(
            Cause::SafePointCorrupt,
            &format!(
                "safe_seq at \"{}\" has {} bytes (expected {LEN})",
                path.display(),
                entry.len
            ),
        ));
    }
    let bytes = disk.read(&path, LEN as u64).map_err(failed)?;
    let bytes = <[u8; LEN]>::try_from(&bytes[..])
        .map_err(|_| failed(io::ErrorKind::UnexpectedEof.into()))?;
    Ok(Some(Seq(u64::from_le_bytes(bytes))))
}

/// Staged, synced, renamed, directory synced. The frames must be durable before.
pub(crate) fn write(disk: &dyn Disk, dir: &Path, seq: Seq) -> Result<(), Error> {
    let path = dir.join(SAFE_SEQ);
    disk.replace(&path, &seq.0.to_le_bytes())
        .map_err(|source| Error::io("write the safe sequence", &path, source))
}

/// The first safe sequence of a log: none. See [`establish_at`].
pub(crate) fn establish(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    establish_at(disk, dir, Seq(0))
}

/// Writes a safe sequence where there is none, which would replace a staged one: that is copied
/// aside first.
pub(crate) fn establish_at(disk: &dyn Disk, dir: &Path, seq: Seq) -> Result<(), Error> {
    if is_staged(disk, dir)? {
        aside::keep_staged(disk, dir, &dir.join(SAFE_SEQ_TMP))?;
    }
    write(disk, dir, seq)
}

pub(crate) fn is_staged(disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
    let path = dir.join(SAFE_SEQ_TMP);
    let staged = disk
        .stat(&path)
        .map_err(|source| Error::io("look for", &path, source))?;
    Ok(staged.is_some())
}

/// Removes a staged safe sequence that a crash left behind. Only when the real one is there: without
/// it, the staged one is all that tells how far the log was.
pub(crate) fn remove_leftover(disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
    if !is_staged(disk, dir)? {
        return Ok(false);
    }
    // Best effort, and not synced: the next append replaces it, the next open removes it again.
    match disk.remove_file(&dir.join(SAFE_SEQ_TMP)) {
        Ok(()) => Ok(true),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "removing a leftover {SAFE_SEQ_TMP}");
            Ok(false)
        }
    }
}
