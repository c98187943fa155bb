//! Random bytes from a seed.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use super::dice::Dice;

/// The same seed gives the same bytes. Calls of several threads share one sequence, so only their
/// order decides who gets what.
#[derive(Debug)]
pub struct Random(Mutex<Dice>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Dice::new(seed)))
    }
}

impl crate::Random for Random {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut dice = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random as _;

    #[test]
    fn a_seed_replays_its_bytes_and_another_seed_does_not() {
        let bytes = |seed| {
            let random = Random::new(seed);
            let mut bytes = [0; 37];
            random.fill(&mut bytes[..5]).unwrap();
            random.fill(&mut bytes[5..]).unwrap();
            bytes
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        assert!(
            bytes(0)[29..].iter().any(|byte| *byte != 0),
            "filled to the end"
        );
    }

    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        // First output for seed 0 of the authors' reference program.
        assert_eq!(Random::new(0).number().unwrap(), 0xe220_a839_7b1d_cdaf);
    }
}
