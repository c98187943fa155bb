//! Keys and values as they come out of a store.

use std::{borrow::Borrow, cmp::Ordering, fmt, ops::Deref};

use lsm_tree::Slice;

/// Immutable bytes; cloning copies nothing. May keep a whole block of a table file in memory for
/// as long as it lives, so copy out what is kept for long.
#[derive(Clone)]
pub struct Bytes {
    slice: Slice,
    start: usize,
}

impl Bytes {
    /// `slice` without its first `start` bytes, which it must have.
    pub(crate) fn after(slice: Slice, start: usize) -> Self {
        debug_assert!(start <= slice.len());
        Self { slice, start }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slice.get(self.start..).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl From<Slice> for Bytes {
    fn from(slice: Slice) -> Self {
        Self { slice, start: 0 }
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Slice::from(bytes).into()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Slice::from(bytes).into()
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Bytes {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}
