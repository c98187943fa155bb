//! Text that hosts and people chose, made safe to look at; and times.

use std::borrow::Cow;

use world::Timestamp;

/// Control characters, and characters that turn the direction of text or have no width, as escapes:
/// what is read by people must not move, hide or reverse what stands beside it. Characters that XML
/// cannot hold are among them.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// RFC 3339 in UTC with milliseconds.
pub(super) fn rfc3339(nanos: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos))
        .map_or_else(|_| format!("{nanos}ns"), |at| format!("{at:.3}"))
}

/// For people: UTC to the second.
pub(super) fn seconds(nanos: u64) -> String {
    let time = rfc3339(nanos);
    time.get(..19)
        .map_or(time.clone(), |time| time.replace('T', " "))
}

pub(super) fn moment(at: Timestamp) -> String {
    rfc3339(at.nanos())
}

/// Milliseconds since the epoch.
pub(super) const fn millis(nanos: u64) -> u64 {
    nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(visible("grün <b>"), "grün <b>");
        assert_eq!(visible("a\u{1b}[2J\u{202e}b\n"), "a\\u{1b}[2J\\u{202e}b\\n");
        assert_eq!(visible("\u{ffff}\0"), "\\u{ffff}\\u{0}");
    }
}
