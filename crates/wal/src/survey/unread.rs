//! A segment of which the disk no longer reads some blocks.
//!
//! They read as zeros here, as a copy by a rescue program would have them, and are told apart by
//! [`Patched::unread`]: no batch verifies over them, and the walk goes on behind. Each is tried once,
//! for a failing disk takes seconds for each.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use world::File;

/// The unit of what is given up: a page, and a sector of the disks of today.
const BLOCK: u64 = 4096;

/// Blocks that are given up in one segment. Behind the last of them nothing of that segment is read:
/// at some seconds each it is an hour, and a program made for it does better.
const BLOCKS_MAX: usize = 1024;

/// Whether the file itself cannot be read, rather than this process not being allowed or able to.
pub(super) fn is_lost(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    !matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory
    ) && !matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

#[derive(Debug)]
pub(super) struct Patched {
    /// Or why it cannot be opened. It has no bytes then.
    file: Result<Arc<dyn File>, String>,
    len: u64,
    lost: Mutex<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    /// Offsets of blocks.
    blocks: BTreeSet<u64>,
    first_error: String,
    /// Nothing is read from here on.
    given_up: Option<u64>,
}

/// What could not be read of a stretch.
#[derive(Debug)]
pub(super) struct Unread {
    first: u64,
    /// Behind the last byte.
    pub(super) to: u64,
    blocks: usize,
    given_up: Option<u64>,
    error: String,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.blocks == 1 { "" } else { "s" };
        write!(
            f,
            "{} block{s} of {BLOCK} bytes, the first at byte {}, cannot be read: {}",
            self.blocks, self.first, self.error
        )?;
        match self.given_up {
            Some(from) => write!(f, "; nothing was read from byte {from} on"),
            None => Ok(()),
        }
    }
}

impl Patched {
    pub(super) fn new(file: Arc<dyn File>) -> io::Result<Self> {
        Ok(Self {
            len: file.len()?,
            file: Ok(file),
            lost: Mutex::default(),
        })
    }

    pub(super) fn closed(error: &io::Error) -> Self {
        Self {
            file: Err(error.to_string()),
            len: 0,
            lost: Mutex::default(),
        }
    }

    pub(super) fn why_closed(&self) -> Option<&str> {
        self.file.as_ref().err().map(String::as_str)
    }

    pub(super) fn held(&self) -> u64 {
        self.len
    }

    /// What could not be read between two offsets, of what was tried.
    pub(super) fn unread(&self, from: u64, to: u64) -> Option<Unread> {
        let lost = self.lost();
        let mut blocks = lost.blocks.range(from - from % BLOCK..to.max(from));
        let first = *blocks.next()?;
        let count = 1 + blocks.clone().count();
        let last = blocks.next_back().copied().unwrap_or(first);
        Some(Unread {
            first,
            to: lost
                .given_up
                .map_or(last + BLOCK, |_| self.len)
                .min(self.len),
            blocks: count,
            given_up: lost.given_up,
            error: lost.first_error.clone(),
        })
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lost {
    /// Reads block by block from `offset` on.
    fn patch(&mut self, file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let block = at - at % BLOCK;
            let left = usize::try_from(block + BLOCK - at).unwrap_or(usize::MAX);
            let part = left.min(buffer.len() - done);
            let part = &mut buffer[done..][..part];
            if !self.blocks.contains(&block) {
                match file.read_exact_at(part, at) {
                    Ok(()) => {
                        done += part.len();
                        continue;
                    }
                    Err(error) if !is_lost(&error) => return Err(error),
                    Err(error) => {
                        if self.blocks.is_empty() {
                            self.first_error = error.to_string();
                        }
                        self.blocks.insert(block);
                    }
                }
                if self.blocks.len() >= BLOCKS_MAX {
                    self.given_up = Some(block + BLOCK);
                }
            }
            part.fill(0);
            done += part.len();
            if self.given_up.is_some_and(|end| at >= end - BLOCK) {
                break;
            }
        }
        Ok(done)
    }
}

impl File for Patched {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut lost = self.lost();
        let end = lost.given_up.unwrap_or(self.len).min(self.len);
        let Some(file) = self.file.as_ref().ok().filter(|_| offset < end) else {
            return Ok(0);
        };
        let most = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let wanted = most.min(buffer.len());
        let buffer = &mut buffer[..wanted];
        // Up to the next block that is known not to be read.
        let known = lost.blocks.range(offset - offset % BLOCK..).next();
        let clear = known.map_or(buffer.len(), |&block| {
            usize::try_from(block.saturating_sub(offset))
                .unwrap_or(usize::MAX)
                .min(buffer.len())
        });
        if clear > 0 {
            match file.read_at(&mut buffer[..clear], offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) if is_lost(&error) => {}
                read => return read,
            }
        }
        lost.patch(&**file, buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn drop_cache(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_all(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}
