//! How much of the log of events is kept, and what happens when its disk is spent.

use std::{path::Path, time::Duration};

use super::{FileEvents, Origin, Setting, bad_value, variable};
use crate::{exit::Refusal, moment};

/// Bytes kept unless told otherwise: some twenty million events of a usual size, and a part of any
/// disk that a log is put on.
const RETAIN_BYTES_DEFAULT: u64 = 8 << 30;

/// The settings of retention, each with where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Retention {
    /// Bytes of the log beyond which the oldest events go that no drain needs.
    pub(crate) bytes: Setting<u64>,
    /// Age beyond which they go; none: whatever their age.
    pub(crate) age: Setting<Option<Duration>>,
    /// Most bytes of the log, whatever drains need; none: what the disk has.
    pub(crate) ceiling: Setting<Option<u64>>,
    pub(crate) on_full: Setting<OnFull>,
}

/// What happens when the ceiling is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFull {
    /// Producers are told to come back later.
    Refuse,
    /// The oldest events go that no drain needs.
    DropOldest,
}

impl OnFull {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::DropOldest => "drop-oldest",
        }
    }
}

pub(super) fn retention(values: &FileEvents, file: Option<&Path>) -> Result<Retention, Refusal> {
    let bytes = "bytes, as 500MiB or 8GiB";
    Ok(Retention {
        bytes: Key {
            name: "events.retain_bytes",
            environment: "HOLDFAST_EVENTS_RETAIN_BYTES",
            wanted: bytes,
            default: RETAIN_BYTES_DEFAULT,
        }
        .read(values.retain_bytes.as_deref(), file, size)?,
        age: Key {
            name: "events.retain_age",
            environment: "HOLDFAST_EVENTS_RETAIN_AGE",
            wanted: "a span, as 30d, or none",
            default: None,
        }
        .read(values.retain_age.as_deref(), file, |text| {
            or_none(text, moment::parse_span)
        })?,
        ceiling: Key {
            name: "events.ceiling_bytes",
            environment: "HOLDFAST_EVENTS_CEILING_BYTES",
            wanted: "bytes, as 16GiB, or none",
            default: None,
        }
        .read(values.ceiling_bytes.as_deref(), file, |text| {
            or_none(text, size)
        })?,
        on_full: Key {
            name: "events.on_full",
            environment: "HOLDFAST_EVENTS_ON_FULL",
            wanted: "refuse or drop-oldest",
            default: OnFull::Refuse,
        }
        .read(values.on_full.as_deref(), file, |text| {
            [OnFull::Refuse, OnFull::DropOldest]
                .into_iter()
                .find(|on_full| on_full.name() == text)
        })?,
    })
}

struct Key<T> {
    name: &'static str,
    environment: &'static str,
    wanted: &'static str,
    default: T,
}

impl<T> Key<T> {
    fn read(
        self,
        in_file: Option<&str>,
        file: Option<&Path>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Setting<T>, Refusal> {
        let (key, text, file, origin) = match (variable(self.environment), in_file) {
            (Some(text), _) => (self.environment, text, None, Origin::Environment),
            (None, Some(text)) => (self.name, text.to_owned(), file, Origin::File),
            (None, None) => {
                return Ok(Setting {
                    value: self.default,
                    origin: Origin::Default,
                });
            }
        };
        let value = parse(text.trim()).ok_or_else(|| bad_value(key, &text, file, self.wanted))?;
        Ok(Setting { value, origin })
    }
}

fn or_none<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        "none" => Some(None),
        text => parse(text).map(Some),
    }
}

const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

/// Bytes, or so many of a unit.
fn size(text: &str) -> Option<u64> {
    for (unit, shift) in UNITS {
        if let Some(count) = text.strip_suffix(unit) {
            return count.trim().parse::<u64>().ok()?.checked_mul(1 << shift);
        }
    }
    text.parse().ok()
}

/// Bytes in the largest unit that loses nothing.
pub(crate) fn size_text(bytes: u64) -> String {
    UNITS
        .into_iter()
        .rev()
        .find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(
            || bytes.to_string(),
            |(unit, shift)| format!("{}{unit}", bytes >> shift),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_it_is_written() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("4097", Some(4097)),
            ("1KiB", Some(1024)),
            ("500 MiB", Some(500 << 20)),
            ("8GiB", Some(8 << 30)),
            ("8GB", None),
            ("-1", None),
            ("GiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
        for bytes in [0, 1, 1000, 1024, 500 << 20, 8 << 30, 3 << 40] {
            assert_eq!(size(&size_text(bytes)), Some(bytes));
        }
        assert_eq!(size_text(RETAIN_BYTES_DEFAULT), "8GiB");
    }
}
