//! Frames: length, checksum, payload.
//!
//! | Offset | Length | Field |
//! |---:|---:|---|
//! | 0 | 4 | length of the payload, little-endian; 0 says only that the sender is there; bit 31: a note |
//! | 4 | 4 | CRC-32C of the four bytes before and the payload |
//! | 8 | | payload: a message as postcard writes it, or a note, which is its owner's to read |

use std::{
    fmt,
    io::{self, Read},
};

use zeroize::{Zeroize, Zeroizing};

use super::{FRAME_LEN_MAX, NOTE_LEN_MAX, Note};
use crate::machine::Message;

pub(super) const HEADER_LEN: usize = 8;
/// Read at once; a length is only believed as far as its bytes have come.
const READ_LEN: usize = 64 << 10;
/// In the length: what follows is a note. No message is so long.
const NOTE: u32 = 1 << 31;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Broken {
    Closed,
    Io(io::Error),
    TooLong(usize),
    Checksum,
    Undecodable(postcard::Error),
    /// A well-formed message of somebody else.
    Forged(&'static str),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "the other side closed the connection"),
            Self::Io(error) => write!(f, "{error}"),
            Self::TooLong(len) => write!(
                f,
                "a frame of {len} bytes was announced, at most {FRAME_LEN_MAX} are taken"
            ),
            Self::Checksum => write!(f, "a frame did not match its checksum"),
            Self::Undecodable(error) => write!(f, "a frame was not a message: {error}"),
            Self::Forged(what) => write!(f, "{what}"),
        }
    }
}

impl Broken {
    /// Whether the other side's certificate, or its TLS, was not taken.
    pub(super) fn is_refused_by_tls(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::InvalidData)
    }

    /// Whether it came by what was sent, not by how.
    pub(super) fn is_garbage(&self) -> bool {
        !matches!(self, Self::Closed | Self::Io(_))
    }
}

/// A frame around `payload`.
pub(super) fn wrap(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a frame is below 40 MiB");
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&checksum(&len.to_le_bytes(), payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A frame around a note. Wiped: notes may hold keys.
pub(super) fn wrap_note(note: &[u8]) -> Note {
    let len = u32::try_from(note.len()).expect("a note is below 256 KiB") | NOTE;
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_LEN + note.len()));
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&checksum(&len.to_le_bytes(), note).to_le_bytes());
    bytes.extend_from_slice(note);
    Note(bytes)
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let payload =
        postcard::to_stdvec(message).expect("a message has no part that cannot be written");
    wrap(&payload)
}

pub(super) fn decode(payload: &[u8]) -> Result<Message, Broken> {
    let (message, rest) = postcard::take_from_bytes(payload).map_err(Broken::Undecodable)?;
    match rest.is_empty() {
        true => Ok(message),
        false => Err(Broken::Forged("a frame held more than its message")),
    }
}

fn checksum(len: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(len), payload)
}

/// What a frame held.
pub(super) enum Taken {
    Message(Vec<u8>),
    Note(Note),
}

/// Takes frames from a stream whose reads may end early.
#[derive(Debug)]
pub(super) struct Frames {
    /// What was read and is no whole frame yet.
    buffer: Vec<u8>,
    read: Box<[u8]>,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            read: vec![0; READ_LEN].into(),
        }
    }
}

impl Frames {
    /// As [`Self::next_of_any`], where notes have no place.
    pub(super) fn next(
        &mut self,
        from: &mut dyn Read,
        len_max: usize,
        heard: &mut bool,
    ) -> Result<Option<Vec<u8>>, Broken> {
        match self.next_of_any(from, len_max, heard)? {
            Some(Taken::Message(payload)) => Ok(Some(payload)),
            Some(Taken::Note(_)) => Err(Broken::Forged("a note came where none is taken")),
            None => Ok(None),
        }
    }

    /// The next payload that is not empty; `None` when nothing came for as long as a read waits, or only
    /// a sign of life (`heard` is then set).
    pub(super) fn next_of_any(
        &mut self,
        from: &mut dyn Read,
        len_max: usize,
        heard: &mut bool,
    ) -> Result<Option<Taken>, Broken> {
        loop {
            if let Some(taken) = self.take(len_max)? {
                *heard = true;
                return Ok(match taken {
                    Taken::Message(payload) if payload.is_empty() => None,
                    taken => Some(taken),
                });
            }
            match from.read(&mut self.read) {
                Ok(0) => return Err(Broken::Closed),
                Ok(len) => {
                    self.buffer.extend_from_slice(&self.read[..len]);
                    *heard = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_pause(&error) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Broken::Closed);
                }
                Err(error) => return Err(Broken::Io(error)),
            }
        }
    }

    /// The first frame of what was read, if all of it is there.
    fn take(&mut self, len_max: usize) -> Result<Option<Taken>, Broken> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = *header;
        let word = u32::from_le_bytes([a, b, c, d]);
        let (is_note, len) = (word & NOTE != 0, (word & !NOTE) as usize);
        if len
            > if is_note {
                len_max.min(NOTE_LEN_MAX)
            } else {
                len_max
            }
        {
            return Err(Broken::TooLong(len));
        }
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        if checksum(&[a, b, c, d], payload) != u32::from_le_bytes([e, f, g, h]) {
            return Err(Broken::Checksum);
        }
        let payload = payload.to_vec();
        if is_note {
            self.buffer[..HEADER_LEN + len].zeroize();
            self.read.zeroize();
        }
        self.buffer.drain(..HEADER_LEN + len);
        Ok(Some(match is_note {
            true => Taken::Note(Note(Zeroizing::new(payload))),
            false => Taken::Message(payload),
        }))
    }
}

pub(super) fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}
