//! A file of JSON lines, durable before an event counts as taken.
//!
//! Always holds: what a reader sees ends in a whole line, or in the beginning of one that is being
//! written. The beginning that a crash leaves is cut off when the file is opened again; its event
//! was not taken and is sent again. A file that is full is put aside under the time of that moment,
//! and never removed: it is the reader's.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use world::{
    Clock, Disk, File,
    disk::{Lock, Open},
};

use super::{Accepted, SendError};
use crate::{Error, Event, Kind, lines};

/// Length beyond which a file is put aside. Arbitrary: what an editor still opens.
pub(super) const FILE_LEN_MAX: u64 = 256 << 20;

/// What a line of ours begins with. A tail that begins otherwise is not ours to cut.
const LINE_START: &[u8] = b"{\"id\":\"";

/// Bytes looked at a time while the end of the last whole line is searched backwards.
const BLOCK_LEN: u64 = 64 << 10;

/// The one end of a file, to which the classes append in turn.
#[derive(Debug)]
pub(super) struct Lines {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    len_max: u64,
    end: Mutex<End>,
    _lock: Box<dyn Lock>,
}

#[derive(Debug)]
enum End {
    At {
        file: Arc<dyn File>,
        len: u64,
    },
    /// Not open, and nothing of it in doubt.
    Closed,
    /// A sync failed: what of the file is on disk is not known, and no position of it is used again.
    Doubtful,
}

impl Lines {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        path: &Path,
        len_max: u64,
    ) -> Result<Self, Error> {
        let path = std::path::absolute(path)
            .map_err(|source| Error::io("find the file of a drain", path, source))?;
        let lock = lock(&*disk, &path)?;
        let opened = open_end(&*disk, &path)
            .map_err(|source| Error::io("open the file of a drain", &path, source))?;
        Ok(Self {
            disk,
            clock,
            path,
            len_max,
            end: Mutex::new(opened),
            _lock: lock,
        })
    }

    /// Appends whole lines, durably.
    fn append(&self, lines: &[u8]) -> io::Result<()> {
        let mut end = self.end();
        self.make_ready(&mut end, lines.len() as u64)?;
        let End::At { file, len } = &*end else {
            return Err(io::Error::other("file is not open"));
        };
        let (file, len) = (Arc::clone(file), *len);
        if let Err(error) = file.write_all_at(lines, len) {
            // What was written goes, so that a disk that stays full does not collect copies; if it
            // does not go, opening again cuts the half line.
            *end = End::Closed;
            file.set_len(len)?;
            return Err(error);
        }
        if let Err(error) = file.sync_data() {
            *end = End::Doubtful;
            return Err(error);
        }
        *end = End::At {
            file,
            len: len + lines.len() as u64,
        };
        Ok(())
    }

    /// Opens what is closed, and puts aside what is full or in doubt.
    fn make_ready(&self, end: &mut End, more: u64) -> io::Result<()> {
        let is_full = matches!(end, End::At { len, .. } if *len > 0 && len.saturating_add(more) > self.len_max);
        if is_full || matches!(end, End::Doubtful) {
            // Not `Closed` before it has its other name: a file in doubt must not be appended to.
            self.put_aside()?;
            *end = End::Closed;
        }
        if matches!(end, End::Closed) {
            *end = open_end(&*self.disk, &self.path)?;
        }
        Ok(())
    }

    fn put_aside(&self) -> io::Result<()> {
        if self.disk.stat(&self.path)?.is_none() {
            return Ok(());
        }
        let mut nanos = self.clock.now().nanos();
        let aside = loop {
            let aside = with_suffix(&self.path, &format!(".{nanos}"));
            if self.disk.stat(&aside)?.is_none() {
                break aside;
            }
            nanos += 1;
        };
        self.disk.rename(&self.path, &aside)?;
        self.disk.sync_dir(parent(&self.path))
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end
            .lock()
            .expect("no thread panics while it holds this lock")
    }
}

/// Two drains at one end would overwrite each other's lines.
fn lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn Lock>, Error> {
    let name = with_suffix(path, ".lock");
    let holder = format!("pid {}", std::process::id());
    disk.lock(&name, &holder).map_err(|source| {
        if source.kind() == io::ErrorKind::WouldBlock {
            let message = format!("{} is written by {source}", path.display());
            Error::new(Kind::Locked, message)
        } else {
            Error::io("lock the file of a drain", name, source)
        }
    })
}

/// Opens the file for appending and cuts the line that a crash tore.
fn open_end(disk: &dyn Disk, path: &Path) -> io::Result<End> {
    let is_new = disk.stat(path)?.is_none();
    let file = disk.open(path, Open::CreateOrOpen)?;
    if is_new {
        file.sync_all()?;
        disk.sync_dir(parent(path))?;
    }
    let len = file.len()?;
    let whole = end_of_last_line(&*file, len)?;
    if whole < len {
        check_is_ours(&*file, whole, len)?;
        file.set_len(whole)?;
        file.sync_all()?;
        tracing::warn!(
            file = %path.display(),
            bytes = len - whole,
            "cut a half line that was never acknowledged"
        );
    }
    Ok(End::At { file, len: whole })
}

/// Position behind the last line break before `len`; 0 when there is none.
fn end_of_last_line(file: &dyn File, len: u64) -> io::Result<u64> {
    let mut end = len;
    let mut block = vec![0; usize::try_from(BLOCK_LEN).expect("64 KiB")];
    while end > 0 {
        let start = end.saturating_sub(BLOCK_LEN);
        let looked_at = usize::try_from(end - start).expect("at most a block");
        file.read_exact_at(&mut block[..looked_at], start)?;
        if let Some(at) = block[..looked_at].iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn check_is_ours(file: &dyn File, from: u64, len: u64) -> io::Result<()> {
    let mut start = vec![
        0;
        LINE_START
            .len()
            .min(usize::try_from(len - from).unwrap_or(usize::MAX))
    ];
    file.read_exact_at(&mut start, from)?;
    // Zeros: a crash can keep the length of a write and lose its bytes.
    if LINE_START.starts_with(&start) || start.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "it ends in half a line that no drain wrote; name another file",
    ))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

/// One class at the end of the file.
#[derive(Debug)]
pub(super) struct Receiver {
    lines: Arc<Lines>,
}

impl Receiver {
    pub(super) fn new(lines: Arc<Lines>) -> Self {
        Self { lines }
    }
}

impl super::Receiver for Receiver {
    fn send(&mut self, batch: &[Event]) -> Result<Accepted, SendError> {
        let mut text = String::new();
        for event in batch {
            lines::push(&mut text, event);
        }
        match self.lines.append(text.as_bytes()) {
            Ok(()) => Ok(Accepted::default()),
            Err(error) => {
                let why = format!("append to {}: {error}", self.lines.path.display());
                Err(SendError::retry(why))
            }
        }
    }
}

#[cfg(test)]
mod tests;
