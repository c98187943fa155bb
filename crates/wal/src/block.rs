//! Fields at fixed places in a block of bytes, and the prologue that identity, slots and segment
//! headers share: magic, format version, checksum.
//!
//! The prologue keeps its place in every format version, so that a file of another version is told
//! from a damaged one: the checksum is asked first, the version after it. The bytes are described
//! in `docs/format/journal.md`; `tests/format.rs` compares the two.

/// The version this program writes, and the only one it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// A little-endian number, or raw bytes, at a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) at: usize,
    pub(crate) len: usize,
}

impl Field {
    pub(crate) const fn new(name: &'static str, at: usize, len: usize) -> Self {
        Self { name, at, len }
    }

    pub(crate) fn bytes<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.at..self.at + self.len]
    }

    pub(crate) fn array<const N: usize>(&self, block: &[u8]) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(block));
        array
    }

    pub(crate) fn u32(&self, block: &[u8]) -> u32 {
        u32::from_le_bytes(self.array(block))
    }

    pub(crate) fn u64(&self, block: &[u8]) -> u64 {
        u64::from_le_bytes(self.array(block))
    }

    pub(crate) fn put(&self, block: &mut [u8], bytes: &[u8]) {
        block[self.at..self.at + self.len].copy_from_slice(bytes);
    }

    pub(crate) fn put_u32(&self, block: &mut [u8], number: u32) {
        self.put(block, &number.to_le_bytes());
    }

    pub(crate) fn put_u64(&self, block: &mut [u8], number: u64) {
        self.put(block, &number.to_le_bytes());
    }
}

pub(crate) const MAGIC: Field = Field::new("magic", 0, 8);
pub(crate) const VERSION: Field = Field::new("format version", 8, 4);
pub(crate) const CHECKSUM: Field = Field::new("checksum", 12, 4);
pub(crate) const JOURNAL: Field = Field::new("journal", 16, 16);
pub(crate) const GENERATION: Field = Field::new("generation", 32, 4);

/// Why a block is not what its place promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Damaged,
    Version(u32),
}

/// Writes the prologue. Last of all fields: the checksum covers the whole block.
pub(crate) fn seal(block: &mut [u8], magic: [u8; 8]) {
    MAGIC.put(block, &magic);
    VERSION.put_u32(block, FORMAT_VERSION);
    let checksum = checksum(block);
    CHECKSUM.put_u32(block, checksum);
}

pub(crate) fn verify(block: &[u8], magic: [u8; 8]) -> Result<(), Fault> {
    if MAGIC.bytes(block) != magic || CHECKSUM.u32(block) != checksum(block) {
        return Err(Fault::Damaged);
    }
    match VERSION.u32(block) {
        FORMAT_VERSION => Ok(()),
        version => Err(Fault::Version(version)),
    }
}

/// CRC-32C of the block with the checksum field left out.
fn checksum(block: &[u8]) -> u32 {
    let before = crc32c::crc32c(&block[..CHECKSUM.at]);
    crc32c::crc32c_append(before, &block[CHECKSUM.at + CHECKSUM.len..])
}
