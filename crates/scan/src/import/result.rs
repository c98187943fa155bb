//! What a foreign result is.

use serde::{Deserialize, Serialize};

use crate::judge::Outcome;

/// What XCCDF lets a tool say of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    Pass,
    Fail,
    Error,
    Unknown,
    NotApplicable,
    NotChecked,
    NotSelected,
    Informational,
    Fixed,
}

impl Word {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "pass" => Self::Pass,
            "fail" => Self::Fail,
            "error" => Self::Error,
            "unknown" => Self::Unknown,
            "notapplicable" => Self::NotApplicable,
            "notchecked" => Self::NotChecked,
            "notselected" => Self::NotSelected,
            "informational" => Self::Informational,
            "fixed" => Self::Fixed,
            _ => return None,
        })
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Error => "error",
            Self::Unknown => "unknown",
            Self::NotApplicable => "notapplicable",
            Self::NotChecked => "notchecked",
            Self::NotSelected => "notselected",
            Self::Informational => "informational",
            Self::Fixed => "fixed",
        }
    }

    /// In our words. Only `pass` is a pass: `fixed` says that something was done about a failure and
    /// not that anybody looked afterwards, `informational` that nothing was wanted. `None`: the rule
    /// was not part of the scan.
    pub const fn verdict(self) -> Option<Outcome> {
        match self {
            Self::Pass => Some(Outcome::Pass),
            Self::Fail => Some(Outcome::Fail),
            Self::Error => Some(Outcome::Error),
            Self::NotApplicable => Some(Outcome::NotApplicable),
            Self::Unknown | Self::NotChecked | Self::Informational | Self::Fixed => {
                Some(Outcome::NotAssessed)
            }
            Self::NotSelected => None,
        }
    }
}

/// How many of each word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub pass: u64,
    pub fail: u64,
    pub error: u64,
    pub unknown: u64,
    pub notapplicable: u64,
    pub notchecked: u64,
    pub notselected: u64,
    pub informational: u64,
    pub fixed: u64,
}

impl Counts {
    pub(super) fn add(&mut self, word: Word) {
        *match word {
            Word::Pass => &mut self.pass,
            Word::Fail => &mut self.fail,
            Word::Error => &mut self.error,
            Word::Unknown => &mut self.unknown,
            Word::NotApplicable => &mut self.notapplicable,
            Word::NotChecked => &mut self.notchecked,
            Word::NotSelected => &mut self.notselected,
            Word::Informational => &mut self.informational,
            Word::Fixed => &mut self.fixed,
        } += 1;
    }

    /// Words that are neither a pass nor a failure of something that applies.
    pub const fn not_assessed(&self) -> u64 {
        self.unknown + self.notchecked + self.informational + self.fixed
    }
}

/// One TestResult without its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// SHA-256 of what the result says, hexadecimal.
    pub id: String,
    pub host: String,
    /// Its id in the file.
    pub test_id: String,
    pub benchmark: String,
    pub profile: String,
    /// The tool, as it names itself: a CPE name for most.
    pub tool: String,
    /// Nanoseconds since the epoch.
    pub started: Option<u64>,
    pub finished: u64,
    /// The file told no time zone; times are taken for UTC.
    #[serde(default)]
    pub is_zone_assumed: bool,
    pub counts: Counts,
    pub imported: u64,
    pub by: String,
    pub file: String,
}

/// What the tool said of one rule. Rules that were not selected are counted and not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleResult {
    pub rule: String,
    pub result: Word,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub severity: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    pub header: Header,
    pub rules: Vec<RuleResult>,
}
