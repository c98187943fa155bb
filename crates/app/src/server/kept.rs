//! Answers that were made a moment ago, for whoever asks the same.
//!
//! Each is of a position of the store, and is given only to requests that found the store there: no
//! answer is older than what anybody was acknowledged before asking. Time alone may change what is
//! told (a waiver ends): such an answer says when, and is given no more from then on. Answers that tell
//! the moment at which they were made are made anew after [`AGE_MAX`]. Whoever has one is
//! told that it still holds for as long as the state does. One that does not say how long it lasts is of
//! the moment at which it was asked for, and is not kept.
//! The key holds everything but the position that an answer may depend on: what is asked and how it is
//! sent, and the role and the scope of whoever asks. Refusals are not kept.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::Query,
    http::{HeaderValue, Uri, uri::PathAndQuery},
};
use scan::token::{Role, Scope};
use serde::Deserialize;
use tokio::time::timeout;
use wal::Lsn;
use world::Timestamp;

use super::{
    Principal,
    call::{Answer, Problem, tag_of},
};
use crate::view;

/// How long the bytes of an answer that tells its moment are given again while nothing is committed: that
/// is told to the second.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Bytes of all answers together: of some hundred hosts with a page of findings of each. Arbitrary.
const BYTES_MAX: usize = 8 << 20;
/// Answers at a time, for those that are small.
const ANSWERS_MAX: usize = 4_096;
/// Bytes of what is asked of which the answer is kept: paths and queries of pages of this interface are
/// below 200. With [`ANSWERS_MAX`] it bounds what keys take, some 4 MiB: a client may send 64 KiB, and
/// those of refused requests have a place too until room is made.
const ASKED_LEN_MAX: usize = 1 << 10;
/// How long another who makes the same answer is waited for, before it is made beside it.
const TURN_MAX: Duration = Duration::from_secs(10);

/// Everything that two requests must have in common to be answered alike.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    operation: &'static str,
    /// Path and query as they came.
    asked: String,
    is_packed: bool,
    role: Role,
    scope: Scope,
}

/// What operations whose answers are kept are asked for, as far as it says of which moment.
#[derive(Deserialize)]
struct Asked {
    at: Option<String>,
}

impl Key {
    /// None for what is asked in so many words that its answer is not kept, and for what is of the moment
    /// of asking: nobody waits for an answer that is given to no other.
    pub(super) fn new(
        operation: &'static str,
        asked: &Uri,
        is_packed: bool,
        principal: &Principal,
    ) -> Option<Self> {
        let stands = Query::<Asked>::try_from_uri(asked)
            .is_ok_and(|asked| asked.at.as_deref().is_none_or(view::stands));
        let asked = asked.path_and_query().map_or("", PathAndQuery::as_str);
        (stands && asked.len() <= ASKED_LEN_MAX).then(|| Self {
            operation,
            asked: asked.to_owned(),
            is_packed,
            role: principal.role,
            scope: principal.scope.clone(),
        })
    }
}

/// An answer, and of what it is one.
struct Made {
    /// The newest commit before it was made: it shows that one, and may show later ones.
    position: Lsn,
    at: Timestamp,
    answer: Answer,
}

#[derive(Default)]
struct Place {
    made: Option<Made>,
    /// Whoever makes the answer: the others wait, so that many who ask the same cost one answer.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Places {
    by_key: HashMap<Key, Place>,
    bytes: usize,
}

/// The answers of this process.
#[derive(Default)]
pub(super) struct Kept(Mutex<Places>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

impl Made {
    /// Whether its bytes may be given: for as long as they hold, and where they tell a moment until that is
    /// another. Of whoever came just before it was made the time is a little behind.
    fn is_fresh(&self, position: Lsn, now: Timestamp) -> bool {
        let apart = Duration::from_nanos(self.at.nanos().abs_diff(now.nanos()));
        let is_near = apart < AGE_MAX || (!self.answer.tells_moment && self.at <= now);
        self.position >= position && is_near && self.answer.turns.is_some_and(|turns| now < turns)
    }

    /// Whether what its tag is of still holds: with a clock that goes back nothing is known.
    fn holds(&self, position: Lsn, now: Timestamp) -> bool {
        let turns = self.answer.turns.is_some_and(|turns| now < turns);
        self.position >= position && self.at <= now && turns
    }
}

impl Kept {
    /// The answer that `make` makes, or one that it would have made. `position` is that of the store
    /// at some moment since the request came.
    pub(super) async fn answer<F: Future<Output = Result<Answer, Problem>>>(
        &self,
        key: Key,
        position: Lsn,
        now: Timestamp,
        make: impl FnOnce() -> F,
    ) -> Result<Answer, Problem> {
        let turn = match self.find(&key, position, now) {
            Ok(answer) => return Ok(answer),
            Err(turn) => turn,
        };
        let turn = timeout(TURN_MAX, turn.lock_owned()).await;
        if let Ok(answer) = self.find(&key, position, now) {
            return Ok(answer);
        }
        let mut answer = make().await?;
        if answer.is_secret || answer.turns.is_none() {
            return Ok(answer);
        }
        if answer.tag.is_none() {
            answer.tag = Some(tag_of(&answer.body));
        }
        let made = Made {
            position,
            at: now,
            answer: answer.clone(),
        };
        self.lock().put(key, made, now);
        // Whoever waited finds it.
        drop(turn);
        Ok(answer)
    }

    /// The answer with this tag, without a body, where that is what would be made.
    pub(super) fn still(
        &self,
        key: &Key,
        position: Lsn,
        now: Timestamp,
        wanted: Option<&HeaderValue>,
    ) -> Option<Answer> {
        let wanted = wanted?;
        let places = self.lock();
        let made = places.by_key.get(key)?.made.as_ref();
        let made = made.filter(|made| made.holds(position, now))?;
        made.answer.is_known(wanted).then(|| made.answer.clone())
    }

    fn find(
        &self,
        key: &Key,
        position: Lsn,
        now: Timestamp,
    ) -> Result<Answer, Arc<tokio::sync::Mutex<()>>> {
        let mut places = self.lock();
        if let Some(place) = places.by_key.get(key) {
            let made = place.made.as_ref();
            return match made.filter(|made| made.is_fresh(position, now)) {
                Some(made) => Ok(made.answer.clone()),
                None => Err(Arc::clone(&place.turn)),
            };
        }
        places.make_room(0, now);
        let place = places.by_key.entry(key.clone()).or_default();
        Err(Arc::clone(&place.turn))
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing is left half done by a panic that a later request could not do with: at worst the
        // bytes are counted too high, and room is made earlier.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn put(&mut self, key: Key, made: Made, now: Timestamp) {
        let len = made.answer.body.len();
        if len > BYTES_MAX / 4 {
            return;
        }
        self.make_room(len, now);
        let place = self.by_key.entry(key).or_default();
        // Another may have made a later one meanwhile, beside this one.
        let is_older = |kept: &Made| kept.position <= made.position;
        if place.made.as_ref().is_none_or(is_older) {
            let before = place.made.replace(made);
            let freed = before.map_or(0, |before| before.answer.body.len());
            self.bytes = self.bytes + len - freed;
        }
    }

    /// What is too old makes room; where that is not enough, everything does.
    fn make_room(&mut self, len: usize, now: Timestamp) {
        let is_full =
            |places: &Self| places.bytes + len > BYTES_MAX || places.by_key.len() >= ANSWERS_MAX;
        if !is_full(self) {
            return;
        }
        self.by_key.retain(|_, place| {
            let made = place.made.as_ref();
            made.is_some_and(|made| made.is_fresh(made.position, now))
        });
        let lens = self.by_key.values().filter_map(|place| place.made.as_ref());
        self.bytes = lens.map(|made| made.answer.body.len()).sum();
        if is_full(self) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::StatusCode;

    use super::*;

    fn key(asked: &str) -> Key {
        Key {
            operation: "getHost",
            asked: asked.to_owned(),
            is_packed: false,
            role: Role::Viewer,
            scope: Scope::default(),
        }
    }

    fn answer(len: usize) -> Answer {
        let answer = Answer::json(&"x".repeat(len)).unwrap();
        answer.lasting("\"x\"".to_owned(), Timestamp::from_nanos(u64::MAX))
    }

    async fn asked(kept: &Kept, key: &str, position: u64, at: Duration, len: usize) -> bool {
        let is_made = AtomicUsize::new(0);
        let now = Timestamp::from_nanos(1 << 60).plus(at);
        let position = Lsn::new(position);
        let make = || async {
            is_made.fetch_add(1, Ordering::Relaxed);
            Ok(answer(len))
        };
        let given = kept.answer(self::key(key), position, now, make).await;
        assert!(given.unwrap().body.len() > len);
        is_made.into_inner() == 1
    }

    #[tokio::test]
    async fn an_answer_is_given_again_at_its_position_and_its_moment_and_no_other() {
        let kept = Kept::default();
        let ms = Duration::from_millis;
        let check = async |key: &str, position, at, is_made| {
            let told = format!("{key} at {position}, {at:?}");
            assert_eq!(asked(&kept, key, position, at, 10).await, is_made, "{told}");
        };
        check("a", 5, ms(0), true).await;
        check("a", 5, ms(999), false).await;
        check("b", 5, ms(0), true).await;
        // Whoever found the store at an earlier position may be shown more.
        check("a", 4, ms(0), false).await;
        check("a", 6, ms(0), true).await;
        check("a", 6, ms(1_000), true).await;
        // A clock that goes back does not make an answer last.
        check("a", 6, ms(0), true).await;
    }

    #[tokio::test]
    async fn an_answer_ends_when_time_makes_it_another_and_is_known_until_then() {
        let kept = Kept::default();
        let start = Timestamp::from_nanos(1 << 60);
        let at = |ms| start.plus(Duration::from_millis(ms));
        let tag = async |position, ms, made: &str| {
            let made = answer(1).lasting(made.to_owned(), at(5_000));
            let make = || async { Ok(made) };
            let given = kept.answer(key("a"), Lsn::new(position), at(ms), make);
            given.await.unwrap().tag
        };
        assert_eq!(tag(5, 4_900, "\"1\"").await.as_deref(), Some("\"1\""));
        let wanted = HeaderValue::from_static("W/\"1\"");
        let still = |position, ms| {
            let position = Lsn::new(position);
            kept.still(&key("a"), position, at(ms), Some(&wanted))
                .is_some()
        };
        assert!(still(5, 4_900) && still(4, 4_999));
        assert!(!still(6, 4_900) && !still(5, 5_000) && !still(5, 4_899));
        assert_eq!(tag(5, 4_999, "\"2\"").await.as_deref(), Some("\"1\""));
        assert_eq!(tag(5, 5_000, "\"2\"").await.as_deref(), Some("\"2\""));
    }

    #[tokio::test]
    async fn an_answer_that_tells_no_moment_is_given_until_its_state_is_another() {
        let kept = Kept::default();
        let at = |seconds| Timestamp::from_nanos(1 << 60).plus(Duration::from_secs(seconds));
        let made = async |position, seconds| {
            let is_made = AtomicUsize::new(0);
            let make = || async {
                is_made.fetch_add(1, Ordering::Relaxed);
                Ok(answer(1).lasting("\"1\"".to_owned(), at(3_600)).timeless())
            };
            let given = kept.answer(key("a"), Lsn::new(position), at(seconds), make);
            given.await.unwrap();
            is_made.into_inner() == 1
        };
        assert!(made(5, 10).await);
        assert!(!made(5, 3_599).await && !made(4, 11).await);
        // Something is committed, the clock goes back, and time alone makes it another.
        assert!(made(6, 20).await && !made(6, 3_599).await);
        assert!(made(6, 18).await && !made(6, 19).await);
        assert!(made(6, 3_600).await);
    }

    #[tokio::test]
    async fn many_who_ask_the_same_cost_one_answer_and_refusals_are_not_kept() {
        let (kept, made) = (Arc::new(Kept::default()), Arc::new(AtomicUsize::new(0)));
        let now = Timestamp::from_nanos(1 << 60);
        let refused = Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "no");
        let told = refused.clone();
        let first = kept.answer(key("a"), Lsn::FIRST, now, || async { Err(told) });
        assert_eq!(first.await.unwrap_err(), refused);
        let all: Vec<_> = (0..50)
            .map(|_| {
                let (kept, made) = (Arc::clone(&kept), Arc::clone(&made));
                tokio::spawn(async move {
                    let make = || async {
                        made.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        Ok(answer(1))
                    };
                    kept.answer(key("a"), Lsn::FIRST, now, make).await.unwrap();
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    /// Everybody who asked how it was two hours ago waited for all the others who did, and none of them was
    /// given what the others had been answered: it is of another moment each time.
    #[test]
    fn what_is_of_the_moment_of_asking_has_no_place_and_no_turn() {
        let principal = Principal {
            name: "a".to_owned(),
            role: Role::Viewer,
            scope: Scope::default(),
            expires: None,
        };
        for (query, is_kept) in [
            ("", true),
            ("?site=2h", true),
            ("?at=2026-01-15T08:00:00Z", true),
            ("?site=x&at=2026-01-15T08%3A00%3A00%2B01:00", true),
            ("?at=2h", false),
            ("?site=x&at=2h", false),
            ("?at=now", false),
            ("?a%74=2h", false),
            ("?at=", false),
        ] {
            let asked = format!("/api/v1/hosts{query}").parse().unwrap();
            let key = Key::new("listHosts", &asked, false, &principal);
            assert_eq!(key.is_some(), is_kept, "{query}");
        }
    }

    /// Thousands of requests of 60 KiB each, refused or not, took hundreds of megabytes until room was made.
    #[test]
    fn what_is_asked_in_many_words_has_no_place() {
        let principal = Principal {
            name: "a".to_owned(),
            role: Role::Viewer,
            scope: Scope::default(),
            expires: None,
        };
        let is_kept = |len: usize| {
            let path = "/api/v1/hosts?site=";
            let asked = format!("{path}{}", "x".repeat(len - path.len()));
            let asked = asked.parse().unwrap();
            Key::new("listHosts", &asked, false, &principal).is_some()
        };
        assert!(is_kept(30) && is_kept(ASKED_LEN_MAX));
        assert!(!is_kept(ASKED_LEN_MAX + 1) && !is_kept(60 << 10));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_in_bytes_and_in_number() {
        let kept = Kept::default();
        let bytes = |kept: &Kept| {
            let places = kept.lock();
            let made = places
                .by_key
                .values()
                .filter_map(|place| place.made.as_ref());
            let sum: usize = made.map(|made| made.answer.body.len()).sum();
            assert_eq!(sum, places.bytes);
            (sum, places.by_key.len())
        };
        for number in 0..40 {
            asked(&kept, &number.to_string(), 1, Duration::ZERO, 1 << 20).await;
            assert!(bytes(&kept).0 <= BYTES_MAX);
        }
        assert!(bytes(&kept).0 > BYTES_MAX / 4);
        asked(&kept, "large", 1, Duration::ZERO, BYTES_MAX / 4).await;
        assert!(asked(&kept, "large", 1, Duration::ZERO, BYTES_MAX / 4).await);
        for position in 1..5 {
            asked(&kept, "again", position, Duration::ZERO, 1 << 10).await;
            bytes(&kept);
        }
        let refused = || async { Err(Problem::malformed("no")) };
        for number in 0..2 * ANSWERS_MAX {
            let key = key(&format!("refused {number}"));
            let now = Timestamp::from_nanos(1 << 60);
            drop(kept.answer(key, Lsn::FIRST, now, refused).await);
            assert!(bytes(&kept).1 <= ANSWERS_MAX);
        }
        for number in 0..2 * ANSWERS_MAX {
            asked(&kept, &number.to_string(), 1, Duration::ZERO, 1).await;
            assert!(bytes(&kept).1 <= ANSWERS_MAX);
        }
    }
}
