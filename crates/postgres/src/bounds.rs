//! Ranges of keys as the statements take them: from a lowest key on, to below another.

use std::ops::Bound;

use store::Keys;

/// `high` is not included; without one the range has no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) low: Vec<u8>,
    pub(crate) high: Option<Vec<u8>>,
}

impl Bounds {
    pub(crate) fn of(keys: &Keys) -> Self {
        Self {
            low: match keys.start() {
                Bound::Included(key) => key.to_vec(),
                Bound::Excluded(key) => next(key),
                Bound::Unbounded => Vec::new(),
            },
            high: match keys.end() {
                Bound::Included(key) => Some(next(key)),
                Bound::Excluded(key) => Some(key.to_vec()),
                Bound::Unbounded => None,
            },
        }
    }
}

/// The first key after `key`.
fn next(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_exactly_the_keys_of_the_range() {
        let samples: [&[u8]; 6] = [b"\0", b"a", b"a\0", b"a\0\0", b"b", b"\xff\xff"];
        let mut ranges = vec![Keys::all(), Keys::prefix(b"a"), Keys::prefix(b"\xff")];
        for start in samples {
            for end in samples {
                for from in [Bound::Included(start), Bound::Excluded(start)] {
                    ranges.push(Keys::new(from, Bound::Included(end)));
                    ranges.push(Keys::new(from, Bound::Excluded(end)));
                }
            }
            ranges.push(Keys::after(start));
        }
        for keys in ranges {
            let bounds = Bounds::of(&keys);
            for key in samples {
                let below = bounds.high.as_deref().is_none_or(|high| key < high);
                let inside = bounds.low.as_slice() <= key && below;
                assert_eq!(inside, keys.contains(key), "{keys:?} {key:?}");
            }
        }
    }
}
