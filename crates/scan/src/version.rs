//! Debian package versions: `[epoch:]upstream[-revision]`, ordered as dpkg orders them.
//!
//! The order is total over any text, so a malformed version in a fact file gives some answer and never a panic. It
//! agrees with `dpkg --compare-versions` on every version dpkg accepts; what dpkg refuses (letters in an epoch,
//! spaces) is ordered here by the same character rules. Numbers are compared as digit strings, because build dates
//! and hashes in versions exceed every integer type.

use std::cmp::Ordering;

/// Orders two versions. Surrounding white space is ignored, as dpkg does.
#[must_use]
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (Parts::of(left), Parts::of(right));
    compare_digits(left.epoch.as_bytes(), right.epoch.as_bytes())
        .then_with(|| compare_part(left.upstream, right.upstream))
        .then_with(|| compare_part(left.revision, right.revision))
}

struct Parts<'a> {
    epoch: &'a str,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Parts<'a> {
    /// An absent epoch is the same as 0, an absent revision the same as an empty one (and as "0").
    fn of(text: &'a str) -> Parts<'a> {
        let text = text.trim();
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => (epoch, rest),
            _ => ("", text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Parts {
            epoch,
            upstream,
            revision,
        }
    }
}

/// Alternating runs: the longest prefix without digits by character weight, then the longest digit run by value.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = split_run(left, |byte| !byte.is_ascii_digit());
        let (right_text, right_rest) = split_run(right, |byte| !byte.is_ascii_digit());
        let (left_digits, left_rest) = split_run(left_rest, |byte| byte.is_ascii_digit());
        let (right_digits, right_rest) = split_run(right_rest, |byte| byte.is_ascii_digit());
        let order = compare_text(left_text, right_text)
            .then_with(|| compare_digits(left_digits, right_digits));
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn split_run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes
        .iter()
        .position(|&byte| !belongs(byte))
        .unwrap_or(bytes.len());
    bytes.split_at(end)
}

fn compare_text(left: &[u8], right: &[u8]) -> Ordering {
    for index in 0..left.len().max(right.len()) {
        let order = weight(left.get(index)).cmp(&weight(right.get(index)));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// A tilde sorts before the end of the part, the end before letters, letters before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(&letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(&other) => i32::from(other) + 256,
    }
}

fn compare_digits(left: &[u8], right: &[u8]) -> Ordering {
    let (_, left) = split_run(left, |byte| byte == b'0');
    let (_, right) = split_run(right, |byte| byte == b'0');
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::compare;
    use std::cmp::Ordering::{self, Equal, Greater, Less};

    fn check(cases: &[(&str, Ordering, &str)]) {
        for &(left, expected, right) in cases {
            assert_eq!(compare(left, right), expected, "{left:?} against {right:?}");
            assert_eq!(
                compare(right, left),
                expected.reverse(),
                "{right:?} against {left:?}"
            );
        }
    }

    /// Every line was confirmed with `dpkg --compare-versions`.
    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        check(&[
            ("1.0", Equal, "1.0"),
            ("1.0", Less, "1.1"),
            ("1.9", Less, "1.10"),
            ("1.01", Equal, "1.1"),
            ("1.0", Less, "1.0.1"),
            ("1.2.3", Less, "1.2.3a"),
            ("1.0a", Less, "1.0b"),
            ("1.0a", Less, "1.0+"),
            ("1.0Z", Less, "1.0a"),
            ("2.36-9+deb12u10", Greater, "2.36-9+deb12u9"),
            ("2.36-9+deb12u9", Greater, "2.36-9"),
            ("1.2.3-1", Less, "1.2.3-1.1"),
            ("1.2.3-1", Less, "1.2.3-1+b1"),
            ("20230311", Less, "20230311+deb12u1"),
            ("5.15.0-1ubuntu2", Less, "5.15.0-1ubuntu10"),
            ("1.3.1+dfsg1-1~deb12u1", Less, "1.3.1+dfsg1-1"),
        ]);
    }

    #[test]
    fn an_epoch_outranks_everything_and_its_absence_is_zero() {
        check(&[
            ("1:1.0", Greater, "2.0"),
            ("0:1.0", Equal, "1.0"),
            ("2:9.0.1378-2", Less, "3:0.1"),
            ("10:1", Greater, "9:2"),
            ("1:2:3", Greater, "1:2"),
        ]);
    }

    #[test]
    fn a_tilde_sorts_before_the_end() {
        check(&[
            ("1.0~rc1", Less, "1.0"),
            ("1.0~rc1-1", Less, "1.0-1"),
            ("1.0~~", Less, "1.0~~a"),
            ("1.0~~a", Less, "1.0~"),
            ("1.0~", Less, "1.0"),
            ("1.0~bpo12+1", Less, "1.0"),
            ("1.0-1~deb12u1", Less, "1.0-1"),
        ]);
    }

    #[test]
    fn the_revision_begins_at_the_last_hyphen_and_its_absence_is_zero() {
        check(&[
            ("1.0-0", Equal, "1.0"),
            ("1.0-1", Greater, "1.0"),
            ("1.0-2-1", Greater, "1.0-1-9"),
            ("1.0-", Equal, "1.0"),
            ("1.0-0~1", Less, "1.0"),
        ]);
    }

    #[test]
    fn numbers_longer_than_any_integer_are_compared_by_value() {
        check(&[
            (
                "1.20250101000000000000000000000000000000000001",
                Less,
                "1.20250101000000000000000000000000000000000002",
            ),
            (
                "1.099999999999999999999999999999999999999",
                Less,
                "1.100000000000000000000000000000000000000",
            ),
            ("000000000000000000000000000000000000000000001", Equal, "1"),
        ]);
    }

    #[test]
    fn malformed_versions_have_some_order_and_no_panic() {
        check(&[
            ("", Equal, ""),
            ("", Less, "1"),
            ("", Equal, "0"),
            ("  1.0\n", Equal, "1.0"),
            ("abc:1", Greater, "1"),
            (":1", Equal, "1"),
            ("\u{0}\u{7f}é", Greater, "z"),
            ("-", Equal, ""),
        ]);
    }

    proptest::proptest! {
        /// Kills an order that depends on the direction of the question or is not transitive, over text that looks
        /// like versions (the alphabet is small, so that equal prefixes are common).
        #[test]
        fn the_order_is_total(
            a in "([0-2]:)?[0-9a~+.-]{0,6}", b in "([0-2]:)?[0-9a~+.-]{0,6}", c in "([0-2]:)?[0-9a~+.-]{0,6}",
        ) {
            let mut versions = [a, b, c];
            versions.sort_by(|x, y| compare(x, y));
            let [a, b, c] = &versions;
            proptest::prop_assert!(compare(a, b).is_le() && compare(b, c).is_le() && compare(a, c).is_le());
            proptest::prop_assert_eq!(compare(a, c).reverse(), compare(c, a));
        }
    }
}
