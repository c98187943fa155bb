//! Frames on a stream: a length of four bytes, little-endian, then as many bytes.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use world::Clock;

use crate::record::RECORD_LEN_MAX;

/// The longest is a transaction's writes, which fit into a record of the journal. A page is shorter:
/// [`super::PAGE_BYTES`] and one more row.
pub(super) const FRAME_LEN_MAX: usize = RECORD_LEN_MAX + (64 << 10);

/// What a stream is read by at a time: nothing is allocated for bytes that were only announced.
const CHUNK_LEN: usize = 64 << 10;

/// The next frame; `None` at the end of the stream. `first` is how long its first byte may take, and
/// `rest` how long the others. `TimedOut`, `InvalidData` and whatever the stream says.
pub(super) fn read(
    stream: &UnixStream,
    clock: &dyn Clock,
    first: Duration,
    rest: Duration,
) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 4];
    let (head, tail) = header.split_at_mut(1);
    stream.set_read_timeout(Some(first.max(TICK)))?;
    if !begins(stream, head)? {
        return Ok(None);
    }
    let end = clock.monotonic() + rest;
    fill(stream, clock, end, tail)?;
    let len = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
    if len == 0 || len > FRAME_LEN_MAX {
        let message = format!("a frame of {len} bytes, 1 to {FRAME_LEN_MAX} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut bytes = Vec::with_capacity(len.min(CHUNK_LEN));
    while bytes.len() < len {
        let have = bytes.len();
        bytes.resize(len.min(have + CHUNK_LEN), 0);
        fill(stream, clock, end, &mut bytes[have..])?;
    }
    Ok(Some(bytes))
}

/// The shortest wait that a socket can be told: none at all would mean for ever.
const TICK: Duration = Duration::from_millis(1);

fn begins(mut stream: &UnixStream, first: &mut [u8]) -> io::Result<bool> {
    loop {
        match stream.read(first) {
            Ok(count) => return Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(timed_out(error)),
        }
    }
}

fn fill(
    mut stream: &UnixStream,
    clock: &dyn Clock,
    end: Duration,
    mut into: &mut [u8],
) -> io::Result<()> {
    while !into.is_empty() {
        let left = end.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left.max(TICK)))?;
        match stream.read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => into = &mut into[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(timed_out(error)),
        }
    }
    Ok(())
}

/// Linux says `WouldBlock` when a timeout of a socket has passed.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// Writes `payload`, which the caller keeps below the limit, as one frame. `timeout` is for each
/// part that the other side takes.
pub(super) fn write(mut stream: &UnixStream, timeout: Duration, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= FRAME_LEN_MAX)
        .ok_or_else(|| {
            let message = format!("a frame of {} bytes", payload.len());
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
    stream.set_write_timeout(Some(timeout))?;
    // One write, so that a short request is one wakeup.
    if payload.len() <= CHUNK_LEN {
        let mut whole = Vec::with_capacity(4 + payload.len());
        whole.extend_from_slice(&len.to_le_bytes());
        whole.extend_from_slice(payload);
        return stream.write_all(&whole).map_err(timed_out);
    }
    stream.write_all(&len.to_le_bytes()).map_err(timed_out)?;
    stream.write_all(payload).map_err(timed_out)
}
