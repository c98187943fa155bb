//! Sizes other than the usual ones, for proofs that want a journal to roll and tables to be flushed,
//! merged and removed within a second.
//!
//! Not a setting: there is nothing for an operator to gain, so that neither `config show` nor a
//! document for operators names it. No size changes what is acknowledged when.

use crate::exit::Refusal;

/// `SEGMENT,MEMTABLE,CHECKPOINT,FEED`, each in bytes.
const VARIABLE: &str = "HOLDFAST_PROOF_SIZES";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) segment: u64,
    pub(crate) memtable: u64,
    pub(crate) checkpoint: u64,
    pub(crate) feed: u64,
}

impl Sizes {
    /// `None` when the usual ones hold.
    pub(crate) fn asked_for() -> Result<Option<Self>, Refusal> {
        let Some(text) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let sizes = text.to_str().and_then(Self::parse);
        sizes.map(Some).ok_or_else(|| {
            let text = text.display();
            Refusal::new(format!("{VARIABLE} is `{text}`, which are no four sizes"))
                .next("unset it; it is there for `cargo proof`")
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(',').map(|word| word.parse().ok());
        let sizes = Self {
            segment: words.next()??,
            memtable: words.next()??,
            checkpoint: words.next()??,
            feed: words.next()??,
        };
        words.next().is_none().then_some(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_four_numbers_or_refused() {
        let sizes = Sizes::parse("8192,4096,8000,1").unwrap();
        assert_eq!((sizes.segment, sizes.feed), (8192, 1));
        for text in ["", "1,2,3", "1,2,3,4,5", "1,2,3,-4", "1,2,3,x"] {
            assert_eq!(Sizes::parse(text), None, "{text}");
        }
    }
}
