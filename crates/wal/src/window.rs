//! A file seen through a buffer of fixed size.

use std::{io, sync::Arc};

use world::File;

use crate::progress::Meter;

/// Fits a core's second-level cache, so that the checksum reads what the kernel has just copied from
/// there and not from memory. Derived, not measured against other lengths.
pub(crate) const WINDOW_LEN: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Window {
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    /// Offset in the file of `buffer[0]`.
    start: u64,
    filled: usize,
    meter: Option<Meter>,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn File>) -> Self {
        Self {
            file,
            buffer: vec![0; WINDOW_LEN],
            start: 0,
            filled: 0,
            meter: None,
        }
    }

    /// Tells `meter` what is read from here on.
    pub(crate) fn metered(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    pub(crate) fn meter(&mut self) -> Option<&mut Meter> {
        self.meter.as_mut()
    }

    /// Another file in the same buffer.
    pub(crate) fn turn_to(&mut self, file: Arc<dyn File>) {
        self.file = file;
        self.filled = 0;
    }

    /// Forgets what was read, for when the file was written meanwhile.
    pub(crate) fn forget(&mut self) {
        self.filled = 0;
    }

    pub(crate) fn file(&self) -> &dyn File {
        &*self.file
    }

    /// `len` bytes at `offset`, fewer only where the file ends. `len` is at most [`WINDOW_LEN`].
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        self.view(offset, len, len)
    }

    /// At most `len` bytes at `offset`, what is at hand first; none only where the file ends. For
    /// going through more than a window without reading anything twice.
    pub(crate) fn some(&mut self, offset: u64, len: u64) -> io::Result<&[u8]> {
        let len = usize::try_from(len).unwrap_or(WINDOW_LEN).min(WINDOW_LEN);
        self.view(offset, len.min(1), len)
    }

    fn view(&mut self, offset: u64, least: usize, most: usize) -> io::Result<&[u8]> {
        let held = offset
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| skip + least <= self.filled);
        let skip = match held {
            Some(skip) => skip,
            None => {
                self.fill(offset)?;
                0
            }
        };
        Ok(&self.buffer[skip..self.filled.min(skip + most)])
    }

    fn fill(&mut self, offset: u64) -> io::Result<()> {
        self.start = offset;
        self.filled = 0;
        if let Some(meter) = &mut self.meter {
            meter.at(offset);
        }
        while self.filled < self.buffer.len() {
            let at = offset + self.filled as u64;
            match self.file.read_at(&mut self.buffer[self.filled..], at) {
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.filled = 0;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
