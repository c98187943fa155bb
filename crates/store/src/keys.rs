//! Ranges of keys.

use std::ops::Bound;

/// Which keys a range read looks at, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

impl Keys {
    pub fn all() -> Self {
        Self::new(Bound::Unbounded, Bound::Unbounded)
    }

    pub fn new(start: Bound<&[u8]>, end: Bound<&[u8]>) -> Self {
        Self {
            start: start.map(<[u8]>::to_vec),
            end: end.map(<[u8]>::to_vec),
        }
    }

    /// From `start`, which is included, to `end`, which is not.
    pub fn between(start: &[u8], end: &[u8]) -> Self {
        Self::new(Bound::Included(start), Bound::Excluded(end))
    }

    pub fn from(start: &[u8]) -> Self {
        Self::new(Bound::Included(start), Bound::Unbounded)
    }

    /// Everything above `last`: how the page after `last` is asked for.
    pub fn after(last: &[u8]) -> Self {
        Self::new(Bound::Excluded(last), Bound::Unbounded)
    }

    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self::between(prefix, &end);
            }
        }
        Self::from(prefix)
    }

    /// The same keys, without those up to and including `last`.
    #[must_use]
    pub fn resumed_after(mut self, last: &[u8]) -> Self {
        self.start = Bound::Excluded(last.to_vec());
        self
    }

    /// The same keys, without those from `first` on.
    #[must_use]
    pub fn resumed_before(mut self, first: &[u8]) -> Self {
        self.end = Bound::Excluded(first.to_vec());
        self
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        let above = match &self.start {
            Bound::Included(start) => start.as_slice() <= key,
            Bound::Excluded(start) => start.as_slice() < key,
            Bound::Unbounded => true,
        };
        let below = match &self.end {
            Bound::Included(end) => key <= end.as_slice(),
            Bound::Excluded(end) => key < end.as_slice(),
            Bound::Unbounded => true,
        };
        above && below
    }

    pub fn start(&self) -> Bound<&[u8]> {
        self.start.as_ref().map(Vec::as_slice)
    }

    pub fn end(&self) -> Bound<&[u8]> {
        self.end.as_ref().map(Vec::as_slice)
    }

    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.start(), self.end())
    }

    /// True when no key can be inside. Ordered maps panic on such bounds, so it is asked first.
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
            _ => false,
        }
    }

    /// What is left of these keys for the next page in `order`, after one that ended with `last`.
    pub(crate) fn resumed(self, last: &[u8], order: Order) -> Self {
        match order {
            Order::Ascending => self.resumed_after(last),
            Order::Descending => self.resumed_before(last),
        }
    }

    /// What was looked at when a read in `order` ended at `last` because of its limit.
    #[must_use]
    pub fn read_up_to(mut self, last: &[u8], order: Order) -> Self {
        match order {
            Order::Ascending => self.end = Bound::Included(last.to_vec()),
            Order::Descending => self.start = Bound::Included(last.to_vec()),
        }
        self
    }
}

/// In which direction a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_exactly_the_keys_that_start_with_it() {
        fn check(prefix: &[u8], inside: &[&[u8]], outside: &[&[u8]]) {
            let keys = Keys::prefix(prefix);
            for key in inside {
                assert!(keys.contains(key), "{prefix:?} holds {key:?}");
            }
            for key in outside {
                assert!(!keys.contains(key), "{prefix:?} does not hold {key:?}");
            }
        }
        check(b"a", &[b"a", b"a\0", b"a\xff\xff"], &[b"b", b"`", b""]);
        check(b"a\xff", &[b"a\xff", b"a\xff\xff"], &[b"a\xfe", b"b"]);
        check(b"\xff\xff", &[b"\xff\xff", b"\xff\xff\0"], &[b"\xff\xfe"]);
        check(b"", &[b"", b"\xff"], &[]);
    }

    #[test]
    fn bounds_without_room_between_them_are_empty() {
        let (a, b) = (b"a".as_slice(), b"b".as_slice());
        assert!(Keys::between(b, a).is_empty());
        assert!(Keys::between(a, a).is_empty());
        assert!(!Keys::between(a, b).is_empty());
        assert!(!Keys::new(Bound::Included(a), Bound::Included(a)).is_empty());
        assert!(Keys::new(Bound::Excluded(a), Bound::Included(a)).is_empty());
        assert!(!Keys::all().is_empty());
    }
}
