//! A batch: one commit group as it lies in a segment, a header and its records.
//!
//! A batch verifies only in its place. Its checksums start from a seed of journal, generation, base
//! LSN of the segment and offset in it, so bytes of a recycled segment, of another journal, or a
//! copy of a segment kept inside a record can never be taken for a batch here.

use crate::{Epoch, Identity, Lsn, Mode, RecordKind, block::Field};

/// Longest record in bytes. Beyond it a document belongs into chunks; 16 MiB is what peers allow.
pub const RECORD_LEN_MAX: usize = 16 << 20;
/// Most bytes that one append, and so one batch, holds: a largest record fits with room beside it.
/// It bounds the memory of the queue, of a batch being built and of a batch being read.
pub const APPEND_LEN_MAX: usize = 32 << 20;

pub(crate) const HEADER_LEN: usize = 56;
/// Length and kind before each record.
pub(crate) const RECORD_HEADER_LEN: usize = 5;
/// Batches start at multiples of this, so a search for a later batch looks at an eighth of the places.
pub(crate) const ALIGNMENT: usize = 8;

/// Not printable and not zero, so neither text nor a zeroed sector looks like a batch.
pub(crate) const MAGIC: u32 = u32::from_le_bytes([0xB7, 0x48, 0x46, 0x9E]);

pub(crate) const FIELD_MAGIC: Field = Field::new("magic", 0, 4);
pub(crate) const HEADER_CHECKSUM: Field = Field::new("header checksum", 4, 4);
pub(crate) const CHECKSUM: Field = Field::new("checksum", 8, 4);
pub(crate) const LENGTH: Field = Field::new("length", 12, 4);
pub(crate) const COUNT: Field = Field::new("count", 16, 4);
pub(crate) const FLAGS: Field = Field::new("flags", 20, 4);
pub(crate) const FIRST: Field = Field::new("first LSN", 24, 8);
pub(crate) const EPOCH: Field = Field::new("epoch", 32, 8);
pub(crate) const SAFE_POINT: Field = Field::new("safe point", 40, 8);
pub(crate) const SETTLED: Field = Field::new("settled", 48, 8);

/// Of `FLAGS`: acknowledged only after a slot of the safe-point file held the batch's last LSN.
pub(crate) const FLAG_STRICT: u32 = 1;

#[cfg(test)]
pub(crate) const MAP: [Field; 10] = [
    FIELD_MAGIC,
    HEADER_CHECKSUM,
    CHECKSUM,
    LENGTH,
    COUNT,
    FLAGS,
    FIRST,
    EPOCH,
    SAFE_POINT,
    SETTLED,
];

pub(crate) const RECORD_LENGTH: Field = Field::new("length", 0, 4);
pub(crate) const RECORD_KIND: Field = Field::new("kind", 4, 1);
#[cfg(test)]
pub(crate) const RECORD_MAP: [Field; 2] = [RECORD_LENGTH, RECORD_KIND];

/// What binds a batch to its segment. The offset is mixed in per batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(u32);

impl Place {
    pub(crate) fn new(identity: Identity, base: Lsn) -> Self {
        let seed = crc32c::crc32c(&identity.journal.0);
        let seed = crc32c::crc32c_append(seed, &identity.generation.0.to_le_bytes());
        Self(crc32c::crc32c_append(seed, &base.get().to_le_bytes()))
    }

    fn at(self, offset: u64) -> u32 {
        crc32c::crc32c_append(self.0, &offset.to_le_bytes())
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes after the header, padding included.
    pub(crate) length: u32,
    pub(crate) count: u32,
    pub(crate) first: Lsn,
    pub(crate) epoch: Epoch,
    /// Everything at or below it was durable before this batch was written.
    pub(crate) safe_point: Lsn,
    /// Both slots of the safe-point file held at least this before this batch was written.
    pub(crate) settled: Lsn,
    /// What had to be durable before this batch was acknowledged.
    pub(crate) mode: Mode,
    checksum: u32,
}

impl Header {
    pub(crate) fn last(&self) -> Lsn {
        Lsn::new(self.first.get() + u64::from(self.count) - 1)
    }

    /// Header and payload.
    pub(crate) fn batch_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.length)
    }

    /// The header at `offset` of the segment, when its own checksum and its numbers hold. The
    /// payload is not looked at.
    pub(crate) fn decode(bytes: &[u8], place: Place, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..HEADER_LEN)?;
        if FIELD_MAGIC.u32(bytes) != MAGIC
            || HEADER_CHECKSUM.u32(bytes) != header_checksum(bytes, place, offset)
        {
            return None;
        }
        let header = Self {
            length: LENGTH.u32(bytes),
            count: COUNT.u32(bytes),
            first: Lsn::new(FIRST.u64(bytes)),
            epoch: Epoch(EPOCH.u64(bytes)),
            safe_point: Lsn::new(SAFE_POINT.u64(bytes)),
            settled: Lsn::new(SETTLED.u64(bytes)),
            mode: match FLAGS.u32(bytes) {
                0 => Mode::Ordinary,
                FLAG_STRICT => Mode::Strict,
                _ => return None,
            },
            checksum: CHECKSUM.u32(bytes),
        };
        let sane = header.count > 0
            && header.first > Lsn::ZERO
            && u64::MAX - header.first.get() > u64::from(header.count)
            && header.length as usize <= payload_len_max()
            && (header.length as usize).is_multiple_of(ALIGNMENT);
        sane.then_some(header)
    }

    /// Starts the checksum of a batch; feed the payload to it, then ask [`Header::verifies`].
    pub(crate) fn start(bytes: &[u8], place: Place, offset: u64) -> u32 {
        crc32c::crc32c_append(place.at(offset), &bytes[LENGTH.at..HEADER_LEN])
    }

    pub(crate) fn verifies(&self, checksum: u32) -> bool {
        self.checksum == checksum
    }
}

/// Longest payload: records of an append, rounded up.
pub(crate) const fn payload_len_max() -> usize {
    APPEND_LEN_MAX.next_multiple_of(ALIGNMENT)
}

fn header_checksum(header: &[u8], place: Place, offset: u64) -> u32 {
    crc32c::crc32c_append(place.at(offset), &header[CHECKSUM.at..HEADER_LEN])
}

/// Bytes that a record takes in a batch.
pub(crate) const fn record_len(bytes: &[u8]) -> usize {
    RECORD_HEADER_LEN + bytes.len()
}

pub(crate) fn put_record(out: &mut Vec<u8>, kind: RecordKind, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("checked against RECORD_LEN_MAX");
    out.extend_from_slice(&len.to_le_bytes());
    out.push(kind.0);
    out.extend_from_slice(bytes);
}

/// What the writer knows when it closes a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) count: u32,
    pub(crate) first: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) safe_point: Lsn,
    pub(crate) settled: Lsn,
    pub(crate) mode: Mode,
}

/// Turns `batch` (room for a header, then records) into what is written at `offset`.
pub(crate) fn close(batch: &mut Vec<u8>, closing: &Closing, place: Place, offset: u64) {
    batch.resize(batch.len().next_multiple_of(ALIGNMENT), 0);
    let length = u32::try_from(batch.len() - HEADER_LEN).expect("at most APPEND_LEN_MAX");
    let (header, payload) = batch.split_at_mut(HEADER_LEN);
    FIELD_MAGIC.put_u32(header, MAGIC);
    LENGTH.put_u32(header, length);
    COUNT.put_u32(header, closing.count);
    let flags = match closing.mode {
        Mode::Ordinary => 0,
        Mode::Strict => FLAG_STRICT,
    };
    FLAGS.put_u32(header, flags);
    FIRST.put_u64(header, closing.first.get());
    EPOCH.put_u64(header, closing.epoch.0);
    SAFE_POINT.put_u64(header, closing.safe_point.get());
    SETTLED.put_u64(header, closing.settled.get());
    let checksum = crc32c::crc32c_append(Header::start(header, place, offset), payload);
    CHECKSUM.put_u32(header, checksum);
    // Last: it covers the payload's checksum too, and so the whole header.
    let checksum = header_checksum(header, place, offset);
    HEADER_CHECKSUM.put_u32(header, checksum);
}

/// The record at `at` of a verified payload and where the next one starts; `None` when the payload
/// is not made of records, which only a bug of a writer can bring about.
pub(crate) fn record(payload: &[u8], at: usize) -> Option<(RecordKind, &[u8], usize)> {
    let header = payload.get(at..at + RECORD_HEADER_LEN)?;
    let len = usize::try_from(RECORD_LENGTH.u32(header)).ok()?;
    let start = at + RECORD_HEADER_LEN;
    let bytes = payload.get(start..start.checked_add(len)?)?;
    Some((RecordKind(RECORD_KIND.bytes(header)[0]), bytes, start + len))
}
