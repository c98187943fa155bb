//! Fields at fixed places of a block, little-endian.

/// A number, or raw bytes, at a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Field {
    pub(super) const fn new(name: &'static str, at: usize, len: usize) -> Self {
        Self { name, at, len }
    }

    pub(super) fn bytes<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.at..self.at + self.len]
    }

    pub(super) fn array<const N: usize>(&self, block: &[u8]) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(block));
        array
    }

    pub(super) fn u32(&self, block: &[u8]) -> u32 {
        u32::from_le_bytes(self.array(block))
    }

    pub(super) fn u64(&self, block: &[u8]) -> u64 {
        u64::from_le_bytes(self.array(block))
    }

    pub(super) fn u128(&self, block: &[u8]) -> u128 {
        u128::from_le_bytes(self.array(block))
    }

    pub(super) fn put(&self, block: &mut [u8], bytes: &[u8]) {
        block[self.at..self.at + self.len].copy_from_slice(bytes);
    }

    /// From the start of the field; the rest stays.
    pub(super) fn put_first(&self, block: &mut [u8], bytes: &[u8]) {
        block[self.at..self.at + self.len][..bytes.len()].copy_from_slice(bytes);
    }
}
