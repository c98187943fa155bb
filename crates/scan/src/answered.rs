//! Answers that were given, by the key under which they were asked for: whoever asks again, because
//! the first answer was lost on its way, is told the same and changes nothing (SVC-5).
//!
//! Written in the transaction that makes the change, so that there is no change without its answer.
//! Bounded twice: an answer is forgotten after a day, and the oldest of too many goes first.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use store::{History, Keys, Order, Store, Table, TableId, Transaction};
use world::Timestamp;

use crate::inventory::{Error, Kind};

const ANSWERS: &str = "answered.answer";
const ORDER: &str = "answered.order";

/// How long an answer is remembered: whoever tries again for longer than a day looks first.
pub const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Answers remembered: at 1 KiB each some 10 MiB.
pub const ANSWERS_MAX: u64 = 10_000;
/// Longest key in bytes; clients send UUIDs.
pub const KEY_LEN_MAX: usize = 200;
/// Bytes of an answer that are kept. Longer ones are kept as the bare fact that it was done.
const BODY_LEN_MAX: usize = 16 << 10;

/// What was answered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of what was asked: the same key for something else is a mistake of the asker.
    pub fingerprint: String,
    pub status: u16,
    /// `None`: it is too long, or may not be kept.
    pub body: Option<String>,
    /// Nanoseconds since the epoch.
    pub at: u64,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The answers, in a store that has [`Answers::tables`].
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    answers: TableId,
    /// Count, to the key of an answer: the order in which they were given.
    order: TableId,
}

impl Answers {
    pub fn tables() -> Vec<Table> {
        [ANSWERS, ORDER]
            .map(|name| Table::new(name, History::Latest))
            .to_vec()
    }

    pub fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            answers: store.table(ANSWERS)?,
            order: store.table(ORDER)?,
        })
    }

    /// What `who` was answered under `key`, if it is remembered.
    pub fn find_in(
        &self,
        transaction: &mut Transaction,
        who: &str,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<Answer>, Error> {
        let Some(value) = transaction.get(self.answers, &row_key(who, key)?)? else {
            return Ok(None);
        };
        let answer: Answer = serde_json::from_slice(&value).map_err(|error| {
            Error::new(Kind::Storage, "an answer in the store does not decode").with_source(error)
        })?;
        let is_old = Timestamp::from_nanos(answer.at).plus(LIFE) <= now;
        Ok((!is_old).then_some(answer))
    }

    /// Remembers an answer, with what it is about.
    pub fn put_in(
        &self,
        transaction: &mut Transaction,
        who: &str,
        key: &str,
        answer: &Answer,
    ) -> Result<(), Error> {
        let row_key = row_key(who, key)?;
        let mut answer = answer.clone();
        answer.body = answer.body.filter(|body| body.len() <= BODY_LEN_MAX);
        let value = serde_json::to_vec(&answer).expect("a plain struct with string keys");
        let last = transaction.range(self.order, &Keys::all(), Order::Descending, 1)?;
        let last = last.first().map_or(0, |(key, _)| count(key));
        if let Some(oldest) = (last + 1).checked_sub(ANSWERS_MAX) {
            let keys = Keys::between(&[], &(oldest + 1).to_be_bytes());
            let found = transaction.range(self.order, &keys, Order::Ascending, 2)?;
            for (order, old) in found {
                transaction.delete(self.order, &order)?;
                if *old != *row_key {
                    transaction.delete(self.answers, &old)?;
                }
            }
        }
        transaction.put(self.order, &(last + 1).to_be_bytes(), &row_key)?;
        Ok(transaction.put(self.answers, &row_key, &value)?)
    }
}

fn count(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

fn row_key(who: &str, key: &str) -> Result<Vec<u8>, Error> {
    let is_key = !key.is_empty()
        && key.len() <= KEY_LEN_MAX
        && key
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !is_key {
        let message = format!("an idempotency key is 1 to {KEY_LEN_MAX} characters of ASCII");
        return Err(Error::new(Kind::Invalid, message));
    }
    let mut row_key = who.as_bytes().to_vec();
    row_key.push(0);
    row_key.extend_from_slice(key.as_bytes());
    Ok(row_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::tests::Place;

    fn answer(at: u64) -> Answer {
        Answer {
            fingerprint: "f".to_owned(),
            status: 201,
            body: Some("{}".to_owned()),
            at,
        }
    }

    #[test]
    fn an_answer_is_told_again_for_a_day_and_only_to_whom_it_was_given() {
        let place = Place::new();
        let answers = Answers::of(&place.store).unwrap();
        let mut transaction = place.store.begin().unwrap();
        answers
            .put_in(&mut transaction, "a", "k", &answer(5))
            .unwrap();
        transaction.commit().unwrap();
        let check = |who: &str, key: &str, now: Timestamp, is_known: bool| {
            let mut transaction = place.store.begin().unwrap();
            let found = answers.find_in(&mut transaction, who, key, now).unwrap();
            assert_eq!(found.is_some(), is_known, "{who} {key} {now:?}");
        };
        let day = Timestamp::from_nanos(5).plus(LIFE);
        check("a", "k", Timestamp::from_nanos(6), true);
        check("a", "k", day.minus(Duration::from_nanos(1)), true);
        check("a", "k", day, false);
        check("b", "k", Timestamp::from_nanos(6), false);
        check("a", "other", Timestamp::from_nanos(6), false);
    }

    #[test]
    fn the_oldest_of_too_many_answers_is_forgotten() {
        let place = Place::new();
        let answers = Answers::of(&place.store).unwrap();
        let mut transaction = place.store.begin().unwrap();
        // As if all but one of those that may be remembered had been given before.
        answers
            .put_in(&mut transaction, "a", "first", &answer(1))
            .unwrap();
        let last = (ANSWERS_MAX - 1).to_be_bytes();
        transaction.put(answers.order, &last, b"a\0gone").unwrap();
        transaction.commit().unwrap();
        for key in ["one", "two", "three"] {
            let mut transaction = place.store.begin().unwrap();
            answers
                .put_in(&mut transaction, "a", key, &answer(1))
                .unwrap();
            transaction.commit().unwrap();
        }
        let mut transaction = place.store.begin().unwrap();
        let now = Timestamp::from_nanos(2);
        let mut is_known = |key| {
            let found = answers.find_in(&mut transaction, "a", key, now);
            found.unwrap().is_some()
        };
        assert!(!is_known("first"));
        assert!(is_known("one") && is_known("two") && is_known("three"));
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        for key in ["", "a\0b", "ä", &"k".repeat(KEY_LEN_MAX + 1)] {
            assert!(row_key("a", key).is_err(), "{key:?}");
        }
    }
}
