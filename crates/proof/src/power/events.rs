//! Events that were appended, and what must follow from their acknowledgements.
//!
//! Each carries a number as its producer's id. What was not acknowledged is sent again after a loss
//! of power, as a producer would, and must not be there twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::Deserialize;

use crate::crash::breach::Breach;

/// Who says so, in every event of a run.
const SOURCE: &str = "press";

/// What was sent and what was told of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    sent: u64,
    /// The id that each number was told to have.
    told: BTreeMap<u64, String>,
}

/// A line that `events append` prints.
#[derive(Deserialize)]
struct Ack {
    id: String,
}

/// A line that `events query` prints.
#[derive(Deserialize)]
struct Found {
    id: String,
    producer_id: String,
    body: Body,
}

#[derive(Deserialize)]
struct Body {
    number: u64,
    filling: String,
}

impl Events {
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Numbers to send next: those nobody was told of, some that were, and `more`.
    pub(super) fn next(&mut self, more: u64) -> Vec<u64> {
        let mut numbers: Vec<u64> = (1..=self.sent)
            .filter(|number| !self.told.contains_key(number) || number % 16 == 0)
            .collect();
        numbers.extend(self.sent + 1..=self.sent + more);
        self.sent += more;
        numbers
    }

    pub(super) fn lines(numbers: &[u64]) -> String {
        let mut lines = String::new();
        for number in numbers {
            let filling = filling(*number);
            writeln!(
                lines,
                r#"{{"body":{{"number":{number},"filling":"{filling}"}},"producer_id":"{number}","source":"{SOURCE}"}}"#
            )
            .expect("writing to a string cannot fail");
        }
        lines
    }

    /// Takes in what an append of `numbers` told; gives how many lines that were.
    pub(super) fn take_in(&mut self, numbers: &[u64], output: &[u8]) -> Result<u64, Breach> {
        let end = output.iter().rposition(|byte| *byte == b'\n');
        let whole = end.map_or(&[][..], |end| &output[..end]);
        let lines = whole
            .split(|byte| *byte == b'\n')
            .filter(|it| !it.is_empty());
        let mut count = 0;
        for (line, number) in lines.zip(numbers) {
            let ack: Ack = serde_json::from_slice(line).map_err(|error| {
                let promise = "`events append` prints acknowledgements only";
                Breach::new(promise, "a line with an id", error.to_string())
            })?;
            let before = self.told.insert(*number, ack.id.clone());
            if let Some(before) = before.filter(|before| *before != ack.id) {
                let promise = format!("event {number} is kept once, however often it is sent");
                return Err(Breach::new(promise, before, ack.id));
            }
            count += 1;
        }
        Ok(count)
    }

    /// Compares with what a query of everything printed.
    pub(super) fn compare(&self, output: &[u8]) -> Result<(), Breach> {
        let mut there = BTreeSet::new();
        let breach = |number: u64, promise: &str, found: String| {
            let told = self.told.get(&number).cloned().unwrap_or_default();
            Err(Breach::new(
                format!("event {number}: {promise}"),
                told,
                found,
            ))
        };
        for line in output
            .split(|byte| *byte == b'\n')
            .filter(|it| !it.is_empty())
        {
            let event: Found = serde_json::from_slice(line).map_err(|error| {
                let line = String::from_utf8_lossy(line);
                Breach::new(
                    "`events query` prints events",
                    "-",
                    format!("{error}: {line}"),
                )
            })?;
            let number = event.body.number;
            let sound = event.body.filling == filling(number)
                && event.producer_id == number.to_string()
                && (1..=self.sent).contains(&number);
            if !sound {
                return breach(number, "it is as it was sent", event.id);
            }
            if !there.insert(number) {
                return breach(number, "it is there once", event.id);
            }
            if self.told.get(&number).is_some_and(|told| *told != event.id) {
                return breach(number, "it has the id that was told", event.id);
            }
        }
        match self.told.keys().find(|number| !there.contains(number)) {
            Some(number) => breach(*number, "acknowledged, so it is there", "absent".to_owned()),
            None => Ok(()),
        }
    }
}

/// Up to two sectors, so that batches straddle them at every offset.
fn filling(number: u64) -> String {
    let len = usize::try_from(number.wrapping_mul(397) % 1024).expect("below 1024");
    "x".repeat(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(numbers: &[u64]) -> String {
        let lines = Events::lines(numbers);
        let with_id = |(line, number): (&str, &u64)| {
            format!(
                "{}\n",
                line.replacen('{', &format!(r#"{{"id":"j:1:{number}","#), 1)
            )
        };
        lines.lines().zip(numbers).map(with_id).collect()
    }

    #[test]
    fn an_event_that_is_absent_double_or_another_one_is_found() {
        let mut events = Events::default();
        assert_eq!(events.next(3), [1, 2, 3]);
        let told = b"{\"id\":\"j:1:1\"}\n{\"id\":\"j:1:2\"}\n{\"id\":\"j:1";
        assert_eq!(events.take_in(&[1, 2, 3], told), Ok(2));
        assert_eq!(events.next(1), [3, 4]);
        assert!(
            events
                .clone()
                .take_in(&[1], b"{\"id\":\"j:1:9\"}\n")
                .is_err()
        );

        let check = |text: &str, sound: bool| {
            assert_eq!(events.compare(text.as_bytes()).is_ok(), sound, "{text}");
        };
        check(&query(&[1, 2]), true);
        check(&query(&[1, 2, 4]), true);
        check(&query(&[2, 3]), false);
        check(&query(&[1, 2, 2]), false);
        check(&query(&[1, 2, 5]), false);
        check(&query(&[1, 2]).replace("j:1:2", "j:1:3"), false);
        check(&query(&[1, 2]).replacen("xx", "x", 1), false);
    }
}
