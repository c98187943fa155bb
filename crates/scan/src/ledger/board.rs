//! How every rule of one host stands, in one small row.
//!
//! The states of a host say why and since when and are a few hundred rows; whoever looks at a fleet
//! wants the verdict of each rule and no more. A board has a letter for each rule of a list that
//! hosts of one pack share. It is written with the states that it follows from, in one transaction, and
//! only when it differs. A host whose last scan was recorded before there were boards has none, and
//! its states are read instead.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Class, Error, row::State};
use crate::{
    judge::{Outcome, Summary, digest},
    rule::Severity,
};

/// The letter of the first verdict at the first severity; the others follow it.
const FIRST: u8 = b'A';

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Board {
    pub(super) summary: Summary,
    /// SHA-256 of the list of rules, hexadecimal.
    pub(super) rules: String,
    /// One letter for each rule of the list.
    verdicts: String,
    /// Why rules have neither passed nor failed nor been found not to apply: places in the list, by
    /// the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unassessed: BTreeMap<String, Vec<u32>>,
}

/// What a board says of one rule, and why it could not be assessed where it was not.
pub(super) struct Row<'a> {
    pub(super) rule: &'a str,
    pub(super) verdict: Outcome,
    pub(super) severity: Severity,
    pub(super) reason: &'a str,
}

impl<'a> Row<'a> {
    pub(super) fn of_state(state: &'a State) -> Self {
        Self {
            rule: &state.rule,
            verdict: state.verdict,
            severity: state.severity,
            reason: &state.reason,
        }
    }
}

/// The rules of a board, sorted, as they are stored.
pub(super) struct List {
    pub(super) digest: String,
    pub(super) bytes: Vec<u8>,
}

impl Board {
    pub(super) fn of(summary: Summary, mut rows: Vec<Row<'_>>) -> (Self, List) {
        rows.sort_unstable_by_key(|row| row.rule);
        let rules: Vec<&str> = rows.iter().map(|row| row.rule).collect();
        let bytes = super::encode(&rules);
        let list = List {
            digest: digest(&bytes),
            bytes,
        };
        let mut unassessed: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (place, row) in (0..).zip(&rows) {
            if is_unassessed(row.verdict) {
                unassessed
                    .entry(row.reason.to_owned())
                    .or_default()
                    .push(place);
            }
        }
        let letters = rows.iter().map(|row| char::from(letter(row)));
        let board = Self {
            summary,
            rules: list.digest.clone(),
            verdicts: letters.collect(),
            unassessed,
        };
        (board, list)
    }

    /// The verdicts in the order of the list of `rules` rules, and the reasons by place.
    pub(super) fn read(self, rules: usize) -> Result<Read, Error> {
        let damaged = || Error::new(Class::Storage, "a board of the ledger does not decode");
        let verdicts: Option<Vec<_>> = self.verdicts.bytes().map(of_letter).collect();
        let verdicts = verdicts.ok_or_else(damaged)?;
        let in_list = |place: &u32| usize::try_from(*place).is_ok_and(|place| place < rules);
        if verdicts.len() != rules || !self.unassessed.values().flatten().all(in_list) {
            return Err(damaged());
        }
        Ok(Read {
            summary: self.summary,
            verdicts,
            unassessed: self.unassessed,
        })
    }
}

/// What is wrong with a stored board, by the states of its host, what its last scan counted, and its
/// list of rules where that is there. For verification: those who read a fleet go by boards alone.
pub(crate) fn fault(
    stored: &[u8],
    states: &[State],
    summary: &Summary,
    list: impl FnOnce(&str) -> Result<Option<store::Bytes>, store::Error>,
) -> Result<Option<&'static str>, store::Error> {
    let Ok(stored) = serde_json::from_slice::<Board>(stored) else {
        return Ok(Some("it is not readable"));
    };
    let rows = states.iter().map(Row::of_state).collect();
    let (board, rules) = Board::of(summary.clone(), rows);
    if stored != board {
        return Ok(Some("it is not what the verdicts of its host come to"));
    }
    let is_listed = list(&rules.digest)?.is_some_and(|found| *found == rules.bytes[..]);
    Ok((!is_listed).then_some("the list of its rules is not there, or another"))
}

/// What the last scan of its host counted, and nothing else of a stored board.
pub(super) fn summary(stored: &[u8]) -> Result<Summary, Error> {
    #[derive(Deserialize)]
    struct Counted {
        summary: Summary,
    }
    super::decode::<Counted>(stored).map(|counted| counted.summary)
}

pub(super) struct Read {
    pub(super) summary: Summary,
    pub(super) verdicts: Vec<(Outcome, Severity)>,
    pub(super) unassessed: BTreeMap<String, Vec<u32>>,
}

pub(super) const fn is_unassessed(verdict: Outcome) -> bool {
    matches!(verdict, Outcome::NotAssessed | Outcome::Error)
}

/// By hand and not by the order of the variants: what is stored stays what it is when they move.
const fn letter(row: &Row<'_>) -> u8 {
    let verdict = match row.verdict {
        Outcome::Pass => 0,
        Outcome::Fail => 1,
        Outcome::NotApplicable => 2,
        Outcome::NotAssessed => 3,
        Outcome::Error => 4,
    };
    let severity = match row.severity {
        Severity::Critical => 0,
        Severity::High => 1,
        Severity::Medium => 2,
        Severity::Low => 3,
    };
    FIRST + verdict * 4 + severity
}

fn of_letter(letter: u8) -> Option<(Outcome, Severity)> {
    let number = letter.checked_sub(FIRST)?;
    let verdict = match number / 4 {
        0 => Outcome::Pass,
        1 => Outcome::Fail,
        2 => Outcome::NotApplicable,
        3 => Outcome::NotAssessed,
        4 => Outcome::Error,
        _ => return None,
    };
    let severity = match number % 4 {
        0 => Severity::Critical,
        1 => Severity::High,
        2 => Severity::Medium,
        _ => Severity::Low,
    };
    Some((verdict, severity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_stands_for_one_verdict_and_severity() {
        let mut letters = Vec::new();
        for verdict in Outcome::ALL {
            for severity in Severity::ALL {
                let row = Row {
                    rule: "a",
                    verdict,
                    severity,
                    reason: "",
                };
                letters.push(letter(&row));
                assert_eq!(of_letter(letter(&row)), Some((verdict, severity)));
            }
        }
        assert_eq!(letters, (b'A'..=b'T').collect::<Vec<u8>>());
        for other in [0, b'@', b'U', 255] {
            assert_eq!(of_letter(other), None);
        }
    }

    #[test]
    fn a_board_that_does_not_fit_its_list_is_refused() {
        let row = Row {
            rule: "a",
            verdict: Outcome::Error,
            severity: Severity::Low,
            reason: "why",
        };
        let (board, _) = Board::of(Summary::default(), vec![row]);
        assert!(board.clone().read(1).is_ok());
        assert!(board.clone().read(2).is_err());
        let mut damaged = board.clone();
        damaged.verdicts = "z".to_owned();
        assert!(damaged.read(1).is_err());
        let mut damaged = board;
        damaged.unassessed.insert("x".to_owned(), vec![1]);
        assert!(damaged.read(1).is_err());
    }
}
