//! Moments as people write them, and as they are printed.

use jiff::{
    SignedDuration, Span, Timestamp, Zoned,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde_json::Value;
use world::Timestamp as Instant;

use crate::exit::Refusal;

/// Reads a moment relative to `now`, local times in the zone of `now`.
pub(crate) fn parse(text: &str, now: &Zoned) -> Result<Instant, Refusal> {
    let text = text.trim();
    let zoned = |local: DateTime| local.to_zoned(now.time_zone().clone()).ok();
    let found = if text == "now" {
        Some(now.timestamp())
    } else if let Ok(timestamp) = text.parse::<Timestamp>() {
        Some(timestamp)
    } else if let (Ok(date), false) = (text.parse::<Date>(), text.contains(':')) {
        zoned(date.at(0, 0, 0, 0)).map(|at| at.timestamp())
    } else if let Ok(local) = text.parse::<DateTime>() {
        zoned(local).map(|at| at.timestamp())
    } else {
        ago(text, now)
    };
    found
        // The year 2999 is no less a moment for being beyond what nanoseconds count: it is to come.
        .and_then(|at| u64::try_from(at.as_nanosecond().min(i128::from(u64::MAX))).ok())
        .map(Instant::from_nanos)
        .ok_or_else(|| {
            Refusal::new(format!("`{text}` is not a moment")).next(
                "write 2026-01-15T08:00:00Z, '2026-01-15 08:00', 2026-01-15, now, or a span ago such as 2h",
            )
        })
}

fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span: Span = text.trim_start_matches('-').parse().ok()?;
    now.checked_sub(span.abs()).ok().map(|at| at.timestamp())
}

/// Reads a length of time such as `15m` or `1h 30m`.
pub(crate) fn parse_span(text: &str) -> Option<std::time::Duration> {
    let span: Span = text.trim().parse().ok()?;
    let duration: SignedDuration = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .ok()?;
    std::time::Duration::try_from(duration).ok()
}

/// RFC 3339 in UTC with milliseconds, the form of every JSON document and CSV line.
pub(crate) fn rfc3339(at: Instant) -> String {
    timestamp(at).map_or_else(|| format!("{}ns", at.nanos()), |at| format!("{:.3}", at))
}

/// A row with its moments as RFC 3339: they are kept as nanoseconds, which nobody reads. No count and no
/// size of ours is as large as the nanoseconds of 2001.
pub(crate) fn readable(row: &Value) -> Value {
    match row {
        Value::Number(number) => match number.as_u64() {
            Some(nanos) if nanos >= NANOS_OF_2001 => rfc3339(Instant::from_nanos(nanos)).into(),
            _ => row.clone(),
        },
        Value::Array(rows) => rows.iter().map(readable).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            let read = fields.map(|(name, value)| (name.clone(), readable(value)));
            Value::Object(read.collect())
        }
        other => other.clone(),
    }
}

const NANOS_OF_2001: u64 = 978_307_200_000_000_000;

/// For people: local time to the second with its zone.
pub(crate) fn local(at: Instant) -> String {
    timestamp(at).map_or_else(
        || rfc3339(at),
        |at| {
            at.to_zoned(TimeZone::system())
                .strftime("%Y-%m-%d %H:%M:%S %Z")
                .to_string()
        },
    )
}

/// For people, where many follow each other: local time to the millisecond.
pub(crate) fn local_millis(at: Instant) -> String {
    timestamp(at).map_or_else(
        || rfc3339(at),
        |at| {
            at.to_zoned(TimeZone::system())
                .strftime("%Y-%m-%d %H:%M:%S%.3f")
                .to_string()
        },
    )
}

fn timestamp(at: Instant) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(at.nanos())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let now: Zoned = "2026-03-10T12:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let found = parse(text, &now).ok().map(rfc3339);
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        check("2026-01-15T08:00:00Z", Some("2026-01-15T08:00:00.000Z"));
        check(
            "2026-01-15T08:00:00.25+02:00",
            Some("2026-01-15T06:00:00.250Z"),
        );
        check("2026-01-15 08:00", Some("2026-01-15T07:00:00.000Z"));
        check("2026-01-15", Some("2026-01-14T23:00:00.000Z"));
        check("now", Some("2026-03-10T11:00:00.000Z"));
        check("2h", Some("2026-03-10T09:00:00.000Z"));
        check("-90m", Some("2026-03-10T09:30:00.000Z"));
        check("1d", Some("2026-03-09T11:00:00.000Z"));
        check("2 hours ago", Some("2026-03-10T09:00:00.000Z"));
    }

    #[test]
    fn what_is_no_moment_is_refused_with_a_way_out() {
        for text in [
            "",
            "soon",
            "2026-13-01",
            "25:00",
            "1969-01-01",
            "2026-02-30",
        ] {
            check(text, None);
        }
        let now: Zoned = "2026-03-10T12:00:00Z[UTC]".parse().unwrap();
        let refusal = parse("soon", &now).unwrap_err().to_string();
        assert!(
            refusal.contains("`soon`") && refusal.contains("next:"),
            "{refusal}"
        );
    }

    #[test]
    fn spans_are_read() {
        assert_eq!(parse_span("15m"), Some(std::time::Duration::from_secs(900)));
        assert_eq!(
            parse_span("1d"),
            Some(std::time::Duration::from_secs(86_400))
        );
        assert_eq!(parse_span("-1h"), None);
        assert_eq!(parse_span("often"), None);
    }
}
