//! Spans of time as documents spell them: a whole number and one unit, `90s`, `15m`, `4h`, `2d`.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
/// Ten years; beyond it a span is a mistake, and sums of moments and spans cannot overflow.
const SECONDS_MAX: u64 = 10 * 366 * 86_400;

/// `None` for what is no span.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (name, seconds) = UNITS.iter().find(|(name, _)| text.ends_with(name))?;
    let number = text.strip_suffix(name)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let total = number.parse::<u64>().ok()?.checked_mul(*seconds)?;
    (total <= SECONDS_MAX).then(|| Duration::from_secs(total))
}

/// In the largest unit that holds it exactly.
pub fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    let (name, unit) = UNITS
        .iter()
        .find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit))
        .unwrap_or(&UNITS[3]);
    format!("{}{name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_it_is_written() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("15m", 900),
            ("4h", 14_400),
            ("2d", 172_800),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
        assert_eq!(words(Duration::from_secs(3600)), "1h");
    }

    #[test]
    fn what_has_no_unit_or_is_absurd_is_no_span() {
        for text in [
            "",
            "5",
            "m",
            "-5m",
            "1.5h",
            "5 m",
            "1h30m",
            "99999999999999999999d",
            "4000000000s",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
