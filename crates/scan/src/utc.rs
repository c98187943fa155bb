//! A moment as signed documents write it: RFC 3339 in UTC, always nine digits of a second.
//!
//! Text and not nanoseconds: programs that read JSON numbers as floating point, `jq` 1.6 among them,
//! would change the last digits of what they are to hash. One moment has one spelling.

use std::fmt;

use jiff::{Timestamp as Moment, fmt::temporal::DateTimePrinter};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use world::Timestamp;

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(9));

/// A moment that is written in one way only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc(pub Timestamp);

impl Utc {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(Timestamp::from_nanos(nanos))
    }

    pub const fn nanos(self) -> u64 {
        self.0.nanos()
    }

    /// `None` for every other spelling too.
    pub fn parse(text: &str) -> Option<Self> {
        let moment: Moment = text.parse().ok()?;
        let nanos = u64::try_from(moment.as_nanosecond()).ok()?;
        let found = Self::from_nanos(nanos);
        (found.to_string() == text).then_some(found)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = Moment::from_nanosecond(i128::from(self.nanos()))
            .expect("64 bits of nanoseconds end in the year 2554");
        f.write_str(&PRINTER.timestamp_to_string(&moment))
    }
}

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Utc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format_args!(
                "`{}` is no time in UTC with nine digits of a second",
                text.escape_debug()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_one_spelling() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(Utc::from_nanos(nanos).to_string(), text);
            assert_eq!(Utc::parse(text), Some(Utc::from_nanos(nanos)));
        }
        for text in [
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.00000000Z",
            "2023-11-14t22:13:20.000000001Z",
            "2023-11-14T22:13:20.000000001+00:00",
            "1960-01-01T00:00:00.000000000Z",
            "",
        ] {
            assert_eq!(Utc::parse(text), None, "{text}");
        }
    }
}
