//! Who asks: tokens, and what was denied to whom (SVC-3).

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use scan::audit::Denial;
use scan::token::{Print, Role, Scope, Standing, TOKENS_MAX, Token};
use wal::Lsn;
use world::Timestamp;

use super::Shared;

/// How often the use of a token is noted in the store: a list of tokens tells it to the hour.
const USED_STEP: Duration = Duration::from_secs(60 * 60);

/// Somebody who has shown a token that is valid.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// The token's name, which is one token for ever.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) scope: Scope,
    pub(crate) expires: Option<u64>,
}

impl Principal {
    /// Who the audit log names.
    pub(crate) fn actor(&self) -> String {
        format!("token {}", self.name)
    }
}

impl From<Token> for Principal {
    fn from(token: Token) -> Self {
        Self {
            name: token.name,
            role: token.role,
            scope: token.scope,
            expires: token.expires,
        }
    }
}

/// Why somebody is nobody here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No token was sent.
    Missing,
    /// What was sent is no token of this site.
    Unknown,
    Expired,
    Revoked,
    /// Too many failed attempts from one address; the next after this many seconds.
    TooMany {
        seconds: u64,
    },
    /// The store could not be asked.
    Broken,
}

impl Denied {
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Missing => "no token was sent; send it as `Authorization: Bearer hf_...`",
            Self::Unknown => "the token is not one of this site",
            Self::Expired => "the token has expired",
            Self::Revoked => "the token was revoked",
            Self::TooMany { .. } => "too many failed attempts from this address",
            Self::Broken => "tokens cannot be looked up",
        }
    }
}

/// The token of an `Authorization` header. One header, one token: of several the first must not be
/// the one that a proxy checked and the last the one that counts.
pub(super) fn token_of(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(Denied::Unknown);
    }
    let text = value.to_str().map_err(|_| Denied::Unknown)?;
    let (scheme, token) = text.split_once(' ').ok_or(Denied::Unknown)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denied::Unknown);
    }
    Ok(Some(token.trim()))
}

/// Tokens as they are at a position of the store: those that were looked up since its newest commit. So
/// one that is revoked is refused by the first request after that.
#[derive(Default)]
pub(super) struct Known(Mutex<Found>);

#[derive(Default)]
struct Found {
    position: Lsn,
    tokens: HashMap<Print, Token>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Found> {
        // Nothing is left half done by a panic: each change is one call of the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token as it was at `position` or later.
    fn find(&self, print: Print, position: Lsn) -> Option<Token> {
        let found = self.lock();
        let token = found.tokens.get(&print);
        token.filter(|_| found.position >= position).cloned()
    }

    /// A token as it was looked up when the store was at `position`.
    fn put(&self, print: Print, token: &Token, position: Lsn) {
        let mut found = self.lock();
        if found.position < position {
            found.tokens.clear();
            found.position = position;
        }
        if found.position == position && found.tokens.len() < TOKENS_MAX {
            found.tokens.insert(print, token.clone());
        }
    }
}

/// Who has this token, where that can be told at once: it was looked up since `position`, and its use
/// was noted.
pub(super) fn at_once(shared: &Shared, text: &str, position: Lsn) -> Option<Principal> {
    let (print, now) = (Print::of(text)?, shared.now());
    let token = shared.known.find(print, position)?;
    let is_noted = !shared.is_writer || is_noted(shared, print, now);
    let may_be_used = token.standing(now) == Standing::Valid && is_noted;
    may_be_used.then(|| token.into())
}

/// Who has this token, and the position of the store at which that is so. Failures are counted by address and audited; a valid token is taken whatever
/// its neighbours did, so that nobody can lock another out. Blocks.
pub(crate) fn authenticate(
    shared: &Shared,
    text: &str,
    peer: Option<IpAddr>,
    request: &str,
) -> Result<(Principal, Lsn), Denied> {
    look_up(shared, text, shared.now()).map_err(|denied| fail(shared, denied, peer, request))
}

/// Counts a failed attempt.
pub(super) fn fail(shared: &Shared, denied: Denied, peer: Option<IpAddr>, request: &str) -> Denied {
    if denied == Denied::Broken {
        return denied;
    }
    note(shared, None, peer, request, denied.why());
    match shared.attempts.failed(peer, shared.now()) {
        Some(seconds) => Denied::TooMany { seconds },
        None => denied,
    }
}

/// Best effort: what is refused stays refused when it cannot be recorded.
fn note(shared: &Shared, actor: Option<&str>, peer: Option<IpAddr>, request: &str, reason: &str) {
    let source = peer.map_or_else(|| "unknown address".to_owned(), |peer| peer.to_string());
    let denial = Denial {
        source: &source,
        actor,
        request,
        reason,
    };
    if let Err(error) = shared.denials.note(&shared.store, shared.now(), &denial) {
        tracing::error!(%error, "a denial was not recorded");
    }
}

fn look_up(shared: &Shared, text: &str, now: Timestamp) -> Result<(Principal, Lsn), Denied> {
    let print = Print::of(text).ok_or(Denied::Unknown)?;
    // Before the token: what is read later is of this position or of one after it.
    let position = shared.store.newest().map_err(|error| broken(&error))?.lsn;
    let token = match shared.known.find(print, position) {
        Some(token) => token,
        None => {
            let found = shared.tokens.find(print).map_err(|error| broken(&error))?;
            let token = found.ok_or(Denied::Unknown)?;
            shared.known.put(print, &token, position);
            token
        }
    };
    match token.standing(now) {
        Standing::Valid => {}
        Standing::Expired => return Err(Denied::Expired),
        Standing::Revoked => return Err(Denied::Revoked),
    }
    note_use(shared, print, now);
    Ok((token.into(), position))
}

fn broken(error: &dyn fmt::Display) -> Denied {
    tracing::error!(%error, "tokens cannot be looked up");
    Denied::Broken
}

fn is_noted(shared: &Shared, print: Print, now: Timestamp) -> bool {
    let used = shared.used.lock().unwrap_or_else(PoisonError::into_inner);
    used.get(&print).is_some_and(|at| now < at.plus(USED_STEP))
}

/// Best effort: what a list of tokens says of use is not worth refusing a request.
fn note_use(shared: &Shared, print: Print, now: Timestamp) {
    // Only the node that writes notes it.
    if is_noted(shared, print, now) || !shared.is_writer {
        return;
    }
    {
        let mut used = shared.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= TOKENS_MAX {
            used.clear();
        }
        used.insert(print, now);
    }
    if let Err(error) = shared.tokens.used(print, now) {
        tracing::debug!(%error, "the use of a token was not noted");
    }
}

/// The token of that name as it stands, for whoever signed in with it. Blocks.
pub(crate) fn principal_of(shared: &Shared, name: &str) -> Option<Principal> {
    let all = shared.tokens.list().ok()?;
    let (token, _) = all.into_iter().find(|(token, _)| token.name == name)?;
    let is_valid = token.standing(shared.now()) == Standing::Valid;
    is_valid.then(|| token.into())
}

/// Audits that somebody known was refused something. Blocks.
pub(crate) fn denied(shared: &Shared, principal: &Principal, peer: Option<IpAddr>, request: &str) {
    let why = "the role or the scope of the token is not enough";
    note(shared, Some(&principal.actor()), peer, request, why);
}
