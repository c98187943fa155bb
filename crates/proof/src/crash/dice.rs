//! The choices of a run, all from one seed.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014). Fit to choose moments, not to make keys.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The dice of one round: what an earlier round threw, which may hang on timing, does not reach
    /// them.
    pub(crate) fn of_round(seed: u64, round: u64) -> Self {
        let mut mixed = Self::new(round);
        Self::new(seed ^ mixed.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`, 0 for no bound at all.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A moment between two others, to the microsecond.
    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let micros = to.saturating_sub(from).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX).saturating_add(1);
        from + Duration::from_micros(self.below(micros))
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// A number in `from..=to`.
    pub(crate) fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from).saturating_add(1))
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.one_in(2)
    }

    /// An id: wide enough to be met once in a run, short enough to be read in a trace.
    pub(crate) fn id(&mut self) -> u128 {
        u128::from(self.next() >> 16)
    }

    /// `None` only of nothing.
    pub(crate) fn pick<'t, T>(&mut self, from: &'t [T]) -> Option<&'t T> {
        let index = self.below(from.len() as u64);
        from.get(usize::try_from(index).expect("less than a length"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_choices_again_and_rounds_differ() {
        let throws = |mut dice: Dice| [dice.next(), dice.below(1000), dice.next()];
        assert_eq!(throws(Dice::of_round(7, 3)), throws(Dice::of_round(7, 3)));
        assert_ne!(throws(Dice::of_round(7, 3)), throws(Dice::of_round(7, 4)));
        assert_ne!(throws(Dice::of_round(7, 3)), throws(Dice::of_round(8, 3)));
    }

    #[test]
    fn moments_stay_within_their_bounds() {
        let mut dice = Dice::new(1);
        let (from, to) = (Duration::from_millis(3), Duration::from_millis(5));
        for _ in 0..1000 {
            let moment = dice.between(from, to);
            assert!(from <= moment && moment <= to, "{moment:?}");
        }
        assert_eq!(dice.between(to, from), to);
        assert_eq!(dice.pick::<u8>(&[]), None);
    }
}
