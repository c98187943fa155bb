//! Looking through segments, batch by batch, without changing anything.
//!
//! Memory is one window, whatever the length of a batch or of the journal.

use std::io;

use crate::{
    Cause, Epoch, Error, Identity, Lsn, Mode,
    batch::{self, Header, Place},
    catalog::Segment,
    epochs::{self, EpochStart},
    segment,
    window::{WINDOW_LEN, Window},
};

/// What the batches said, from the first segment on.
#[derive(Debug)]
pub(crate) struct Scan {
    identity: Identity,
    /// Position that the next batch must begin with.
    pub(crate) expected: Lsn,
    /// Highest epoch met.
    pub(crate) epoch: Epoch,
    /// Highest safe point that a header or a batch vouches for.
    pub(crate) proven: Lsn,
    /// Highest settled safe point that a header or a batch vouches for.
    pub(crate) settled: Lsn,
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
    /// Highest safe point that a batch of strict mode vouches for: a slot held it before.
    pub(crate) vouched: Lsn,
    /// Where epochs begin.
    pub(crate) starts: Vec<EpochStart>,
    /// The last batch, and what was known before it.
    last: Option<Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    header: Header,
    epoch_before: Epoch,
    batch_before: Option<u64>,
}

/// Where the batches of a segment end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) offset: u64,
    pub(crate) why: Why,
    /// Where the last batch of the segment begins, when it has one.
    pub(crate) last_batch: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The next segment begins here.
    Complete,
    /// No batch verifies here.
    NoBatch,
    /// A batch verifies and begins with another position.
    Gap(Lsn),
    /// A batch verifies, and no slot vouches for it as strict mode wants it.
    Unvouched,
}

/// What lies after the last batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rest {
    /// Where what this segment's own writer left ends; `None` when it left nothing there. Where zeros
    /// were before, that is the last byte that is not zero; stale bytes of a recycled file are no part
    /// of it.
    pub(crate) end: Option<u64>,
    /// Highest safe point that the header of a batch further on vouches for.
    pub(crate) proven: Lsn,
}

/// A segment as recovery found it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) segment: Segment,
    pub(crate) header: segment::Header,
    pub(crate) len: u64,
}

impl Scan {
    pub(crate) fn new(identity: Identity, first: Lsn) -> Self {
        Self {
            identity,
            expected: first,
            epoch: Epoch(0),
            proven: Lsn::ZERO,
            settled: Lsn::ZERO,
            batches: 0,
            bytes: 0,
            vouched: Lsn::ZERO,
            starts: Vec::new(),
            last: None,
        }
    }

    pub(crate) fn place(&self, found: &Found) -> Place {
        Place::new(self.identity, found.header.base)
    }

    /// Reads batches until one does not follow, or until `end`, where the next segment begins.
    pub(crate) fn segment(
        &mut self,
        window: &mut Window,
        found: &mut Found,
        end: Option<Lsn>,
    ) -> Result<Stop, Error> {
        self.epoch_not_below(found.header.epoch, found, 0)?;
        self.proven = self.proven.max(Lsn::new(found.header.base.get() - 1));
        self.settled = self.settled.max(found.header.settled);
        let place = self.place(found);
        let mut stop = Stop {
            offset: segment::HEADER_LEN as u64,
            why: Why::NoBatch,
            last_batch: None,
        };
        loop {
            if end.is_some_and(|end| self.expected >= end) {
                stop.why = Why::Complete;
                return Ok(stop);
            }
            let read = verified(window, place, stop.offset).map_err(|source| {
                Error::io("read a segment", &found.segment.path, source).with_offset(stop.offset)
            })?;
            let Some(header) = read else {
                return Ok(stop);
            };
            if header.first != self.expected {
                stop.why = Why::Gap(header.first);
                return Ok(stop);
            }
            let last = Last {
                header,
                epoch_before: self.epoch,
                batch_before: stop.last_batch,
            };
            self.epoch_not_below(header.epoch, found, stop.offset)?;
            if self.starts.last().map(|start| start.epoch) != Some(header.epoch) {
                let before = last.epoch_before;
                epochs::begin(&mut self.starts, header.epoch, header.first, before);
            }
            if header.mode == Mode::Strict {
                self.vouched = self.vouched.max(header.safe_point);
            }
            self.last = Some(last);
            self.proven = self.proven.max(header.safe_point);
            self.settled = self.settled.max(header.settled);
            self.batches += 1;
            self.bytes += header.batch_len();
            self.expected = header.last().next();
            found.segment.mark(header.first, stop.offset);
            stop.last_batch = Some(stop.offset);
            stop.offset += header.batch_len();
        }
    }

    /// The last batch, when it was written in strict mode and lies above `watermark`: no slot vouches
    /// for it, so it was never acknowledged.
    pub(crate) fn unvouched(&self, watermark: Lsn) -> Option<Lsn> {
        let header = self.last?.header;
        (header.mode == Mode::Strict && header.first > watermark).then_some(header.first)
    }

    /// Takes the last batch, of the segment that `stop` is in, for never written. What it vouched
    /// for stands: that was durable before it.
    pub(crate) fn retract(&mut self, found: &mut Found, stop: &mut Stop, rest: &mut Rest) {
        let Some(last) = self.last.take() else { return };
        let end = stop.offset;
        stop.offset -= last.header.batch_len();
        stop.why = Why::Unvouched;
        stop.last_batch = last.batch_before;
        rest.end = rest.end.max(Some(end));
        self.expected = last.header.first;
        self.epoch = last.epoch_before;
        self.starts.retain(|start| start.first < last.header.first);
        self.batches -= 1;
        self.bytes -= last.header.batch_len();
        found.segment.unmark(stop.offset);
    }

    /// An authority never writes below its own epoch, so no crash brings this about, wherever in
    /// the journal it is.
    fn epoch_not_below(&mut self, epoch: Epoch, found: &Found, offset: u64) -> Result<(), Error> {
        if epoch < self.epoch {
            let message = format!("epoch {} follows epoch {}", epoch.0, self.epoch.0);
            return Err(Error::recovery(Cause::EpochRegressed, message)
                .with_path(&found.segment.path)
                .with_offset(offset)
                .with_lsn(self.expected));
        }
        self.epoch = epoch;
        Ok(())
    }

    /// Looks at everything behind the last batch of the last segment. The header of a later batch
    /// was written only after all that its safe point covers was durable: one such header proves
    /// that a missing batch was damaged, not torn.
    pub(crate) fn rest(
        &self,
        window: &mut Window,
        found: &Found,
        from: u64,
    ) -> Result<Rest, Error> {
        let place = self.place(found);
        let failed = |at: u64| {
            move |source| Error::io("read a segment", &found.segment.path, source).with_offset(at)
        };
        let mut rest = Rest::default();
        let is_recycled = found.header.is_recycled();
        if is_recycled {
            let head = window
                .bytes(from, batch::HEADER_LEN)
                .map_err(failed(from))?;
            rest.end = torn_end(head, place, from).map(|end| end.min(found.len));
        }
        let mut at = from;
        while at < found.len {
            let chunk = window.bytes(at, WINDOW_LEN).map_err(failed(at))?;
            if chunk.is_empty() {
                break;
            }
            if let Some(last) = last_used(chunk) {
                if !is_recycled {
                    rest.end = Some(at + last as u64 + 1);
                }
                let end = (last + 1).min(CHUNK_STEP);
                for start in (0..end).step_by(batch::ALIGNMENT) {
                    let offset = at + start as u64;
                    if let Some(header) = Header::decode(&chunk[start..], place, offset) {
                        rest.proven = rest.proven.max(header.safe_point);
                        if is_recycled {
                            let end = (offset + header.batch_len()).min(found.len);
                            rest.end = rest.end.max(Some(end));
                        }
                    }
                }
            }
            at += CHUNK_STEP as u64;
        }
        Ok(rest)
    }
}

/// Bytes of a recycled segment that are taken for a torn batch when its header is torn too: nothing
/// says how long it was, and what it wrote beyond is as stale as the rest. A window, so that keeping
/// it aside costs one read.
const TORN_LEN: u64 = WINDOW_LEN as u64;

/// Where the batch ends that something was written of at `offset` of a recycled segment; `None` when
/// the zeros that end the batches there are whole.
pub(crate) fn torn_end(head: &[u8], place: Place, offset: u64) -> Option<u64> {
    if head.iter().all(|&byte| byte == 0) {
        return None;
    }
    let len = Header::decode(head, place, offset).map_or(TORN_LEN, |header| header.batch_len());
    Some(offset + len)
}

/// The last byte that is not zero. Whole blocks first: folding them is as fast as memory, and most
/// of what is looked at here is the zeros of a segment that is not full yet.
pub(crate) fn last_used(bytes: &[u8]) -> Option<usize> {
    const BLOCK_LEN: usize = 4096;
    let is_used = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) != 0;
    let block = bytes.chunks(BLOCK_LEN).rposition(is_used)?;
    let start = block * BLOCK_LEN;
    let end = bytes.len().min(start + BLOCK_LEN);
    let within = bytes[start..end].iter().rposition(|&byte| byte != 0)?;
    Some(start + within)
}

/// Chunks of a search overlap by a header, so that none is missed between two.
const CHUNK_STEP: usize = WINDOW_LEN - batch::HEADER_LEN.next_multiple_of(batch::ALIGNMENT);

/// The header of the batch at `offset`, when all of the batch verifies.
fn verified(window: &mut Window, place: Place, offset: u64) -> io::Result<Option<Header>> {
    let head = window.bytes(offset, batch::HEADER_LEN)?;
    let Some(header) = Header::decode(head, place, offset) else {
        return Ok(None);
    };
    let mut checksum = Header::start(head, place, offset);
    let mut at = offset + batch::HEADER_LEN as u64;
    let end = offset + header.batch_len();
    while at < end {
        let bytes = window.some(at, end - at)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        checksum = crc32c::crc32c_append(checksum, bytes);
        at += bytes.len() as u64;
    }
    Ok(header.verifies(checksum).then_some(header))
}
