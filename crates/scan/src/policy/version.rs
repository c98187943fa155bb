//! The version of a policy: three numbers, as semantic versioning has them, without its suffixes.
//!
//! Pre-releases are refused: their order is a rule of its own, and a policy in force is never one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `MAJOR.MINOR.PATCH`, ordered by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// The next that a reload would take.
    pub fn next(self) -> Self {
        match self.patch.checked_add(1) {
            Some(patch) => Self { patch, ..self },
            None => Self::new(self.major, self.minor.saturating_add(1), 0),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}.{}", self.major, self.minor, self.patch))
    }
}

/// The text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVersion;

impl fmt::Display for NoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not three numbers joined by dots, such as 1.4.0")
    }
}

impl std::error::Error for NoVersion {}

impl FromStr for Version {
    type Err = NoVersion;

    /// One spelling for one version: no sign, no leading zero, no suffix.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let mut numbers = text.split('.').map(|part| {
            let plain = part.bytes().all(|byte| byte.is_ascii_digit())
                && (part == "0" || !part.starts_with('0'));
            plain
                .then(|| part.parse::<u32>().ok())
                .flatten()
                .ok_or(NoVersion)
        });
        let mut next = || numbers.next().unwrap_or(Err(NoVersion));
        let version = Self::new(next()?, next()?, next()?);
        match numbers.next() {
            None => Ok(version),
            Some(_) => Err(NoVersion),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        let parsed = |text: &str| text.parse::<Version>().expect(text);
        assert!(parsed("1.9.0") < parsed("1.10.0"));
        assert!(parsed("1.10.0") < parsed("2.0.0"));
        assert_eq!(parsed("1.2.3").next(), parsed("1.2.4"));
        assert_eq!(parsed("1.2.3").to_string(), "1.2.3");
    }

    #[test]
    fn what_is_not_three_plain_numbers_is_no_version() {
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "1.2.x",
            "01.2.3",
            "1.2.3-rc1",
            "+1.2.3",
            "1.2.4294967296",
            " 1.2.3",
            "1..3",
        ] {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text:?}");
        }
    }
}
