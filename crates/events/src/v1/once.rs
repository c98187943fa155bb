//! An operator's variable that works once: a marker file says that it was used.
//!
//! Begun before the effect and done after it, so a crash between them leaves the variable usable
//! for finishing what it began, and nothing else.

use std::path::{Path, PathBuf};

use world::Disk;

use super::Error;

/// Longest marker that is read: one word and a file name.
const LEN_MAX: u64 = 4096;
const BEGUN: &str = "begun ";
const DONE: &str = "done ";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unused,
    /// With what the one who began noted.
    Begun(String),
    Done,
}

/// The marker of one variable.
#[derive(Debug)]
pub(crate) struct Once<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
}

impl<'a> Once<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, dir: &Path, name: &str) -> Self {
        Self {
            disk,
            path: dir.join(name),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn state(&self) -> Result<State, Error> {
        let failed = |source| Error::io("read the marker", &self.path, source);
        if self.disk.stat(&self.path).map_err(failed)?.is_none() {
            return Ok(State::Unused);
        }
        let bytes = self.disk.read(&self.path, LEN_MAX).map_err(failed)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(match text.trim_end().strip_prefix(BEGUN) {
            Some(note) => State::Begun(note.to_owned()),
            // Whatever else it says, somebody used it.
            None => State::Done,
        })
    }

    pub(crate) fn begin(&self, note: &str) -> Result<(), Error> {
        self.write(BEGUN, note)
    }

    pub(crate) fn finish(&self, note: &str) -> Result<(), Error> {
        self.write(DONE, note)
    }

    /// Finishes what a crash interrupted after its effect.
    pub(crate) fn finish_begun(&self) -> Result<(), Error> {
        match self.state()? {
            State::Begun(note) => self.finish(&note),
            State::Unused | State::Done => Ok(()),
        }
    }

    fn write(&self, word: &str, note: &str) -> Result<(), Error> {
        self.disk
            .replace(&self.path, format!("{word}{note}\n").as_bytes())
            .map_err(|source| Error::io("write the marker", &self.path, source))
    }
}
