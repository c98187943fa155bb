//! Numbers in sentences.

/// `1 gap`, `2 gaps`; the plural of a word that takes `es` is written with it: `batch(es)`.
pub(crate) fn counted(number: u64, word: &str) -> String {
    let (one, ending) = match word.strip_suffix("(es)") {
        Some(one) => (one, "es"),
        None => (word, "s"),
    };
    let ending = if number == 1 { "" } else { ending };
    format!("{number} {one}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        for (number, word, expected) in [
            (0, "gap", "0 gaps"),
            (1, "gap", "1 gap"),
            (2, "gap", "2 gaps"),
            (1, "batch(es)", "1 batch"),
            (7, "batch(es)", "7 batches"),
        ] {
            assert_eq!(counted(number, word), expected);
        }
    }
}
