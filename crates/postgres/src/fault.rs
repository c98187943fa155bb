//! What PostgreSQL can refuse, by what somebody can do about it.

use std::{error, fmt, time::Duration};

use store::Kind;
use tokio_postgres::error::SqlState;

/// Why something was refused; the source of a [`store::Error`] of this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing answers, or it is just starting or stopping.
    Unreachable,
    /// Name, password or certificate are not accepted, on either side.
    Denied,
    /// As many connections as the server allows are open.
    Crowded,
    /// A standby, or a server set to refuse writes.
    ReadOnly,
    /// No room on the server's disk.
    Full,
    /// A lock or a statement took longer than it may.
    Slow,
    /// It takes connections and answers nothing: stopped in mid-air, or its disk hangs.
    Silent,
    /// The database was prepared by a later version of this program.
    Newer,
    /// The database holds something else.
    Foreign,
    /// A move of a site to it was begun and not ended.
    Moving,
    /// Whatever else the server says.
    Other,
}

/// What the server or the way to it said. Never holds a password: it is made of the server's words and
/// of names.
#[derive(Clone, Debug)]
pub struct Fault {
    pub cause: Cause,
    said: String,
}

impl Fault {
    pub(crate) fn new(cause: Cause, said: impl Into<String>) -> Self {
        Self {
            cause,
            said: said.into(),
        }
    }

    pub(crate) fn silent(time_max: Duration) -> Self {
        Self::new(
            Cause::Silent,
            format!("it does not answer for {time_max:?}"),
        )
    }

    pub(crate) fn of(error: &tokio_postgres::Error) -> Self {
        Self::new(classes(error).1, said(error))
    }

    /// The fault behind an error of a store, if it is one of PostgreSQL.
    pub fn behind(error: &store::Error) -> Option<&Self> {
        error::Error::source(error)?.downcast_ref()
    }

    pub fn next(&self) -> &'static str {
        match self.cause {
            Cause::Unreachable => {
                "start PostgreSQL or mend the way to it, then try again; nothing is harmed"
            }
            Cause::Denied => {
                "check user, password (PGPASSWORD or the password file), sslmode and pg_hba.conf"
            }
            Cause::Crowded => {
                "raise max_connections of the server, or stop what else uses it, then try again"
            }
            Cause::ReadOnly => "name the primary in store.postgres: this server takes no writes",
            Cause::Full => "free space on the disk of the PostgreSQL server, then try again",
            Cause::Slow => "look in pg_stat_activity for what holds the locks, then try again",
            Cause::Silent => {
                "see whether the PostgreSQL server and its disk are alive, then look whether it was \
                 recorded before you try again"
            }
            Cause::Newer => {
                "use the version of Holdfast that prepared the database, or a later one"
            }
            Cause::Foreign => "name another database, one that is empty",
            Cause::Moving => {
                "run `holdfast migrate` again where the site is: it goes on where it stopped"
            }
            Cause::Other => "the log of the PostgreSQL server tells more",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl error::Error for Fault {}

/// `attempted` could not be done because of `error`.
pub(crate) fn of(attempted: &str, error: &tokio_postgres::Error) -> store::Error {
    store::Error::caused(classes(error).0, attempted, Fault::of(error))
}

/// As [`of`], for a transaction with claims: it loses them with its session, and has to begin again.
pub(crate) fn of_claims(attempted: &str, error: &tokio_postgres::Error) -> store::Error {
    if is_lost(error) {
        let message = format!("{attempted}: the session was lost, and what was claimed with it");
        return store::Error::caused(Kind::Conflict, message, Fault::of(error));
    }
    of(attempted, error)
}

pub(crate) fn said(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("PostgreSQL says: {}", error.message());
    }
    // The outer text is the kind of failure, the inner one its reason.
    match error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What the caller of the store can do, and what whoever runs the server can do.
fn classes(error: &tokio_postgres::Error) -> (Kind, Cause) {
    let Some(state) = error.code() else {
        return (Kind::Io, Cause::Unreachable);
    };
    match state {
        &SqlState::T_R_SERIALIZATION_FAILURE
        | &SqlState::T_R_DEADLOCK_DETECTED
        | &SqlState::LOCK_NOT_AVAILABLE => (Kind::Conflict, Cause::Slow),
        &SqlState::DISK_FULL => (Kind::Full, Cause::Full),
        &SqlState::TOO_MANY_CONNECTIONS | &SqlState::OUT_OF_MEMORY => (Kind::Io, Cause::Crowded),
        &SqlState::READ_ONLY_SQL_TRANSACTION => (Kind::Io, Cause::ReadOnly),
        &SqlState::QUERY_CANCELED => (Kind::Io, Cause::Slow),
        &SqlState::INVALID_PASSWORD
        | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        | &SqlState::INVALID_CATALOG_NAME
        | &SqlState::INSUFFICIENT_PRIVILEGE => (Kind::Invalid, Cause::Denied),
        // A key that its index has no room for: a third of a page, compressed.
        &SqlState::PROGRAM_LIMIT_EXCEEDED => (Kind::Invalid, Cause::Other),
        state if is_ending(state) => (Kind::Io, Cause::Unreachable),
        _ => (Kind::Io, Cause::Other),
    }
}

/// The server is stopping, starting, or ended this connection.
fn is_ending(state: &SqlState) -> bool {
    [
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        &SqlState::CANNOT_CONNECT_NOW,
        &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ]
    .contains(&state)
}

/// The connection is of no more use, and what was asked last may or may not have been done.
pub(crate) fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        None => true,
        Some(state) => is_ending(state),
    }
}

/// Worth another attempt a moment later, on another connection.
pub(crate) fn is_passing(error: &tokio_postgres::Error) -> bool {
    is_lost(error) || error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
}
