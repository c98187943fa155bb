//! Going through the frames of a file, one after the other, in bounded memory.

use std::{io, sync::Arc};

use world::File;

use super::frame::HEADER_LEN;

/// Bytes read at once. Frames are small, so this is many of them; as the journal's window.
const CHUNK_LEN: usize = 256 << 10;

/// What lies at a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A whole frame.
    Frame {
        offset: u64,
        payload: &'a [u8],
    },
    /// All its bytes are there, and they are more than are taken into memory.
    TooLong {
        offset: u64,
        len: u32,
    },
    /// The file ends inside its header or payload.
    Torn {
        offset: u64,
    },
    End {
        offset: u64,
    },
}

/// A walk over the bytes that the file had when it began.
#[derive(Debug)]
pub(crate) struct Walk {
    file: Arc<dyn File>,
    len: u64,
    /// Offset of the next frame.
    at: u64,
    frame_len_max: u32,
    buffer: Vec<u8>,
    /// Offset in the file of `buffer[0]`.
    start: u64,
}

impl Walk {
    pub(crate) fn new(file: Arc<dyn File>, frame_len_max: u32) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self::within(file, len, frame_len_max))
    }

    /// Over the first `len` bytes only.
    pub(crate) fn within(file: Arc<dyn File>, len: u64, frame_len_max: u32) -> Self {
        Self {
            file,
            len,
            at: 0,
            frame_len_max,
            buffer: Vec::new(),
            start: 0,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where the next step begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Frames are stepped over; anything else is found again by the next call.
    pub(crate) fn step(&mut self) -> io::Result<Step<'_>> {
        let offset = self.at;
        let rest = self.len - offset;
        if rest == 0 {
            return Ok(Step::End { offset });
        }
        if rest < HEADER_LEN as u64 {
            return Ok(Step::Torn { offset });
        }
        let header = self.bytes(offset, HEADER_LEN)?;
        let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        if rest - (HEADER_LEN as u64) < u64::from(len) {
            return Ok(Step::Torn { offset });
        }
        if len > self.frame_len_max {
            return Ok(Step::TooLong { offset, len });
        }
        self.at = offset + HEADER_LEN as u64 + u64::from(len);
        let payload = self.bytes(offset + HEADER_LEN as u64, len as usize)?;
        Ok(Step::Frame { offset, payload })
    }

    /// Exactly `len` bytes, which are below [`Walk::len`].
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let skip = offset
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| skip + len <= self.buffer.len());
        let skip = match skip {
            Some(skip) => skip,
            None => {
                self.fill(offset, len)?;
                0
            }
        };
        Ok(&self.buffer[skip..skip + len])
    }

    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let rest = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
        // Emptied first: an error must leave no bytes under the wrong offset.
        self.buffer.clear();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(len.max(CHUNK_LEN).min(rest), 0);
        self.file.read_exact_at(&mut buffer, offset)?;
        self.buffer = buffer;
        self.start = offset;
        Ok(())
    }
}
