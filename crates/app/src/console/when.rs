//! Moments and lengths of time on a page: UTC from the server, the viewer's own by the script.

use jiff::{Timestamp as Civil, tz::TimeZone};
use maud::{Markup, html};
use world::Timestamp;

use crate::moment;

const NANOS: u64 = 1_000_000_000;
/// Nanoseconds of the smallest step that an address tells.
pub(super) const MILLI: u64 = 1_000_000;

/// Day, month, year, hour and minute.
pub(super) fn full(at: Timestamp) -> Markup {
    element(at, "full", &words(at))
}

/// Where many follow each other: without the year where it is that of `now`.
pub(super) fn short(at: Timestamp, now: Timestamp) -> Markup {
    let is_of_this_year = format(at, "%Y") == format(now, "%Y");
    let form = match is_of_this_year {
        true => "%-d %b, %H:%M",
        false => "%-d %b %Y, %H:%M",
    };
    element(at, "short", &format(at, form))
}

/// How long before `now`: `3 h ago`.
pub(super) fn age(at: Timestamp, now: Timestamp) -> Markup {
    let text = if at > now {
        format!("in {}", span(at.nanos() - now.nanos()))
    } else {
        format!("{} ago", span(now.nanos() - at.nanos()))
    };
    element(at, "age", &text)
}

pub(super) fn words(at: Timestamp) -> String {
    format(at, "%-d %b %Y, %H:%M UTC")
}

/// The value of a field of date and time, which has no zone: UTC, as its label says.
pub(super) fn field(at: Timestamp) -> String {
    format(at, "%Y-%m-%dT%H:%M")
}

pub(super) fn millis(at: Timestamp) -> u64 {
    at.nanos() / MILLI
}

/// The two largest units of a length of time, for people.
pub(super) fn span(nanos: u64) -> String {
    let seconds = nanos / NANOS;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => "less than a minute".to_owned(),
        60..7200 => format!("{minutes} min"),
        7200..172_800 => format!("{hours} h"),
        _ => format!("{days} days"),
    }
}

fn element(at: Timestamp, form: &str, text: &str) -> Markup {
    let utc = words(at);
    html! { time datetime=(moment::rfc3339(at)) data-form=(form) data-utc=(utc) title=(utc) { (text) } }
}

fn format(at: Timestamp, form: &str) -> String {
    Civil::from_nanosecond(i128::from(at.nanos())).map_or_else(
        |_| moment::rfc3339(at),
        |at| at.to_zoned(TimeZone::UTC).strftime(form).to_string(),
    )
}

/// A moment as a part of a file's name.
pub(crate) fn file_part(at: Timestamp) -> String {
    format(at, "%Y-%m-%dT%H%M%SZ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A waiver until January of the next year read as if it had ended.
    #[test]
    fn a_moment_of_another_year_is_told_with_its_year() {
        let at = |seconds: u64| Timestamp::from_nanos(seconds * NANOS);
        let (now, later) = (at(1_795_276_800), at(1_798_848_000));
        let shown = |moment| short(moment, now).into_string();
        assert!(shown(now).contains(">21 Nov, 16:00<"), "{}", shown(now));
        assert!(
            shown(later).contains(">2 Jan 2027, 00:00<"),
            "{}",
            shown(later)
        );
        assert_eq!(file_part(now), "2026-11-21T160000Z");
    }

    #[test]
    fn lengths_of_time_are_told_as_people_do() {
        for (seconds, expected) in [
            (0, "less than a minute"),
            (59, "less than a minute"),
            (60, "1 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 days"),
        ] {
            assert_eq!(span(seconds * NANOS), expected);
        }
    }
}
