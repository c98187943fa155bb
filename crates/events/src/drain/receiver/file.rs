//! A file of JSON lines, durable before an event counts as taken.
//!
//! Always holds: what a reader sees ends in a whole line, or in the beginning of one that is being
//! written. What a crash leaves of an append is cut off when the file is opened again; its events
//! were not taken and are sent again. A file that is full is put aside under the time of that moment,
//! and never removed: it is the reader's.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use serde::de::IgnoredAny;
use world::{
    Clock, Disk, File,
    disk::{Lock, Open},
};

use super::{Accepted, SendError};
use crate::{
    Error, Event, Kind,
    drain::{batch::BATCH_BYTES_MAX, schedule::BATCH_EVENTS_MAX},
    event::BODY_LEN_MAX,
    lines::{self, LINE_LEN_MAX},
};

/// Length beyond which a file is put aside. Arbitrary: what an editor still opens.
pub(super) const FILE_LEN_MAX: u64 = 256 << 20;

/// What a line of ours begins with. A tail that begins otherwise is not ours to cut.
const LINE_START: &[u8] = b"{\"id\":\"";

/// Longest append, in bytes, as lines: the largest batch, and for each of its events what a line
/// has beside the body, escaped.
const IN_DOUBT_LEN_MAX: u64 = 8 << 20;
const _: () = assert!(
    BATCH_BYTES_MAX + BATCH_EVENTS_MAX * (LINE_LEN_MAX - BODY_LEN_MAX) <= 8 << 20
        && LINE_LEN_MAX <= 8 << 20
);

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
    let whole = end_of_whole_lines(&*file, len)?;
    if whole < len {
        file.set_len(whole)?;
        file.sync_all()?;
        tracing::warn!(
            file = %path.display(),
            bytes = len - whole,
            "cut lines that a crash tore; none of them was acknowledged"
        );
    }
    Ok(End::At { file, len: whole })
}

/// Where the last whole line ends before anything that a crash tore. All but the last append was
/// synced before the next began, so only that one is in doubt: of it any sector may be missing, also
/// from the middle, and then reads as zeros.
fn end_of_whole_lines(file: &dyn File, len: u64) -> io::Result<u64> {
    let start = len.saturating_sub(IN_DOUBT_LEN_MAX);
    let mut tail = vec![0; usize::try_from(len - start).expect("a few MiB")];
    file.read_exact_at(&mut tail, start)?;
    let mut at = 0;
    if start > 0 {
        // The first line has begun before what was read; it is older than the last append.
        at = match tail.iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None => return Err(not_ours()),
        };
    }
    while at < tail.len() {
        let rest = &tail[at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            break;
        };
        if !is_whole(&rest[..end]) {
            break;
        }
        at += end + 1;
    }
    if at < tail.len() && !is_torn(&tail[at..]) {
        return Err(not_ours());
    }
    Ok(start + at as u64)
}

fn is_whole(line: &[u8]) -> bool {
    line.starts_with(LINE_START) && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// Whether it can be the beginning of a line of ours, of which the end or a part is missing.
fn is_torn(rest: &[u8]) -> bool {
    let same = rest.iter().zip(LINE_START).take_while(|(a, b)| a == b);
    let same = same.count();
    same == LINE_START.len() || same == rest.len() || rest[same] == 0
}

fn not_ours() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it holds lines that no drain wrote; name another file",
    )
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
