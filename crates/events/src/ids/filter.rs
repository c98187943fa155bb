//! A Bloom filter over the keys of a run: "not here" is certain, "here" is to be looked up.
//!
//! Keys are hashes, so their two halves are the two hash functions from which the others are made.

use super::Key;

/// About one lookup in a hundred is for nothing at ten bits a key.
const BITS_PER_KEY: u64 = 10;
/// Bits that each key sets: ln 2 times the bits per key.
const HASHES: u64 = 7;

#[derive(Clone, Debug)]
pub(super) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// Empty, with room for `keys`.
    pub(super) fn new(keys: u64) -> Self {
        let words = (keys.max(1) * BITS_PER_KEY).div_ceil(64);
        let words = usize::try_from(words).expect("a run's length is bounded");
        Self {
            words: vec![0; words],
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        Self {
            words: words.iter().map(|word| u64::from_le_bytes(*word)).collect(),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    pub(super) fn add(&mut self, key: Key) {
        for (word, bit) in places(key, self.words.len()) {
            self.words[word] |= bit;
        }
    }

    pub(super) fn may_hold(&self, key: Key) -> bool {
        !self.words.is_empty()
            && places(key, self.words.len()).all(|(word, bit)| self.words[word] & bit != 0)
    }
}

fn places(key: Key, words: usize) -> impl Iterator<Item = (usize, u64)> {
    let (halves, _) = key.0.as_chunks::<8>();
    let first = u64::from_le_bytes(halves[0]);
    let step = u64::from_le_bytes(halves[1]) | 1;
    let bits = words as u128 * 64;
    (0..HASHES).map(move |index| {
        let hash = first.wrapping_add(step.wrapping_mul(index));
        // The high half of the product is the hash scaled to 0..bits.
        let bit = u64::try_from((u128::from(hash) * bits) >> 64).expect("below the number of bits");
        let word = usize::try_from(bit / 64).expect("below the number of words");
        (word, 1 << (bit % 64))
    })
}
