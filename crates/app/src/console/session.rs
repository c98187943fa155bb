//! Who is signed in to the console.
//!
//! Kept in memory: a restart signs everybody out. A session holds the name of a token and never its
//! text, and is itself found by the SHA-256 of what is in the cookie: neither a look into the memory
//! nor a log can be signed in with. The token is looked up anew with each request, by whoever asks, so
//! that a revoked one ends its sessions at once. Time is a parameter.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use world::{Random, Timestamp};

/// The cookie's name.
const COOKIE: &str = "holdfast_session";
/// Its name where the connection is encrypted: browsers take one of this name from this very host alone,
/// for all of it, and over TLS alone, so that nobody can plant one from beside.
const HOST_COOKIE: &str = "__Host-holdfast_session";

/// Ends a session that nobody uses: a working day, so that a lunch break signs nobody out.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(8 * 60 * 60);
/// Ends every session: a screen on a wall is signed in to once a month.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// Sessions at a time, some 200 bytes each. The one unused for longest makes room.
pub(super) const SESSIONS_MAX: usize = 10_000;
/// Those of one token: screens of a shift that shares one, and some.
pub(super) const TOKEN_SESSIONS_MAX: usize = 100;
const SECRET_BYTES: usize = 32;

type Key = [u8; 32];

struct Entry {
    token: String,
    form: String,
    begun: Timestamp,
    seen: Timestamp,
}

impl Entry {
    fn is_over(&self, now: Timestamp) -> bool {
        let since =
            |from: Timestamp| Duration::from_nanos(now.nanos().saturating_sub(from.nanos()));
        since(self.seen) >= IDLE_MAX || since(self.begun) >= LIFE_MAX
    }
}

/// A session as a request finds it.
#[derive(Clone)]
pub(super) struct Session {
    /// The name of the token that it was begun with.
    pub(super) token: String,
    /// What each form must bring along.
    pub(super) form: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// Whether a form was made for this session.
    pub(super) fn made(&self, form: &str) -> bool {
        self.form.as_bytes().ct_eq(form.as_bytes()).into()
    }
}

/// All sessions of this process.
pub(crate) struct Sessions {
    all: Mutex<HashMap<Key, Entry>>,
    /// The cookie's name.
    pub(super) cookie: &'static str,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    pub(crate) fn new(is_encrypted: bool) -> Self {
        Self {
            all: Mutex::default(),
            cookie: match is_encrypted {
                true => HOST_COOKIE,
                false => COOKIE,
            },
        }
    }

    /// Begins a session and gives what the cookie is to hold.
    pub(super) fn begin(
        &self,
        token: &str,
        random: &dyn Random,
        now: Timestamp,
    ) -> io::Result<String> {
        let (secret, form) = (secret(random)?, secret(random)?);
        let entry = Entry {
            token: token.to_owned(),
            form,
            begun: now,
            seen: now,
        };
        let mut all = self.lock();
        all.retain(|_, entry| !entry.is_over(now));
        let own = all.values().filter(|entry| entry.token == token).count();
        let is_full = all.len() >= SESSIONS_MAX;
        if is_full || own >= TOKEN_SESSIONS_MAX {
            // Its own where it has many: nobody signs others out by signing in again and again.
            let oldest = all
                .iter()
                .filter(|(_, entry)| own < TOKEN_SESSIONS_MAX || entry.token == token)
                .min_by_key(|(_, entry)| entry.seen);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                all.remove(&key);
            }
        }
        all.insert(key(&secret), entry);
        Ok(secret)
    }

    /// The name of the token with which the session of a `Cookie` header was begun, if it is not over.
    pub(crate) fn token_of(&self, cookies: &str, now: Timestamp) -> Option<String> {
        self.find(cookies, now).map(|session| session.token)
    }

    /// The session that a `Cookie` header names, if it is not over.
    pub(super) fn find(&self, cookies: &str, now: Timestamp) -> Option<Session> {
        let key = key(cookie(cookies, self.cookie)?);
        let mut all = self.lock();
        let entry = all.get_mut(&key)?;
        if entry.is_over(now) {
            all.remove(&key);
            return None;
        }
        entry.seen = entry.seen.max(now);
        Some(Session {
            token: entry.token.clone(),
            form: entry.form.clone(),
        })
    }

    pub(super) fn end(&self, cookies: &str) {
        if let Some(secret) = cookie(cookies, self.cookie) {
            self.lock().remove(&key(secret));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        // Nothing is left half done by a panic: each change is one call of the map.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(secret: &str) -> Key {
    Sha256::digest(secret.as_bytes()).into()
}

fn secret(random: &dyn Random) -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    random.fill(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// A value of a `Cookie` header.
pub(super) fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    cookies.split(';').find_map(|pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use world::RealRandom;

    fn at(after: Duration) -> Timestamp {
        let nanos = u64::try_from(after.as_nanos()).unwrap();
        Timestamp::from_nanos(1_768_464_000_000_000_000 + nanos)
    }

    fn header(secret: &str) -> String {
        format!("theme=dark; {COOKIE}={secret}; x")
    }

    #[test]
    fn a_session_ends_when_nobody_uses_it_and_in_any_case_after_a_month() {
        let sessions = Sessions::new(false);
        let hour = Duration::from_secs(3600);
        let begin = |from| sessions.begin("a", &RealRandom, at(from)).unwrap();

        let idle = header(&begin(Duration::ZERO));
        assert!(sessions.find(&idle, at(7 * hour)).is_some());
        assert!(sessions.find(&idle, at(14 * hour)).is_some());
        assert!(sessions.find(&idle, at(22 * hour)).is_none());
        // Over is over, also for a clock that goes back.
        assert!(sessions.find(&idle, at(14 * hour)).is_none());

        let used = header(&begin(Duration::ZERO));
        let hours = (0..24 * 31).step_by(7);
        assert!(
            hours
                .into_iter()
                .all(|n| sessions.find(&used, at(n * hour)).is_some())
        );
        assert!(sessions.find(&used, at(24 * 31 * hour)).is_none());
    }

    #[test]
    fn only_what_is_in_the_cookie_opens_a_session_and_signing_out_ends_it() {
        let sessions = Sessions::new(false);
        let now = at(Duration::ZERO);
        let mine = sessions.begin("a", &RealRandom, now).unwrap();
        let other = sessions.begin("b", &RealRandom, now).unwrap();
        for wrong in [
            "",
            "x",
            &format!("{COOKIE}="),
            &mine,
            &header("x"),
            &format!("x{COOKIE}={mine}"),
        ] {
            assert!(sessions.find(wrong, now).is_none(), "{wrong}");
        }
        let (my_session, others) = (
            sessions.find(&header(&mine), now).unwrap(),
            sessions.find(&header(&other), now).unwrap(),
        );
        assert!(my_session.token == "a" && my_session.made(&my_session.form));
        assert!(!my_session.made(&others.form) && !my_session.made(""));
        sessions.end(&header(&mine));
        assert!(sessions.find(&header(&mine), now).is_none());
        assert!(sessions.find(&header(&other), now).is_some());
    }

    #[test]
    fn there_is_room_for_so_many_sessions_and_the_unused_goes_first() {
        let sessions = Sessions::new(false);
        let begun: Vec<String> = (0..SESSIONS_MAX as u64)
            .map(|second| {
                let token = format!("t{}", second / 10);
                sessions.begin(&token, &RealRandom, at(Duration::from_secs(second)))
            })
            .collect::<Result<_, _>>()
            .unwrap();
        let now = at(Duration::from_secs(20_000));
        assert!(sessions.find(&header(&begun[0]), now).is_some());
        sessions.begin("b", &RealRandom, now).unwrap();
        assert!(sessions.find(&header(&begun[0]), now).is_some());
        assert!(sessions.find(&header(&begun[1]), now).is_none());
        assert_eq!(sessions.lock().len(), SESSIONS_MAX);
    }

    #[test]
    fn one_token_that_signs_in_again_and_again_ends_its_own_sessions_and_nobody_elses() {
        let sessions = Sessions::new(false);
        let begin = |token, second| {
            let begun = sessions.begin(token, &RealRandom, at(Duration::from_secs(second)));
            header(&begun.unwrap())
        };
        let other = begin("b", 0);
        let mine: Vec<String> = (1..=TOKEN_SESSIONS_MAX as u64 + 1)
            .map(|second| begin("a", second))
            .collect();
        let now = at(Duration::from_secs(1_000));
        assert!(sessions.find(&other, now).is_some());
        assert!(sessions.find(&mine[0], now).is_none());
        assert!(mine[1..].iter().all(|it| sessions.find(it, now).is_some()));
    }

    /// A cookie of the other name, which a page beside this host could plant, opens nothing.
    #[test]
    fn an_encrypted_console_takes_its_session_from_a_cookie_of_this_host_alone() {
        let sessions = Sessions::new(true);
        let now = at(Duration::ZERO);
        let secret = sessions.begin("a", &RealRandom, now).unwrap();
        assert!(sessions.find(&header(&secret), now).is_none());
        let bound = format!("__Host-{COOKIE}={secret}");
        assert!(sessions.find(&bound, now).is_some());
        sessions.end(&bound);
        assert!(sessions.find(&bound, now).is_none());
    }

    #[test]
    fn no_secret_is_shown() {
        let sessions = Sessions::new(false);
        let secret = sessions
            .begin("a", &RealRandom, at(Duration::ZERO))
            .unwrap();
        let session = sessions.find(&header(&secret), at(Duration::ZERO)).unwrap();
        let shown = format!("{sessions:?} {session:?}");
        assert!(
            !shown.contains(&secret) && !shown.contains(&session.form),
            "{shown}"
        );
    }
}
