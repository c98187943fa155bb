//! The side that uses a store which another process has open.

use std::{
    fmt, io, mem,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use wal::Lsn;
use world::{Clock, Timestamp};

use super::{
    ANSWER_MAX, GREETING_MAX, KEYS_BYTES_MAX, KEYS_MAX, QUIET_MAX, ROWS_MAX, frame,
    wire::{self, Answer, Page, Request},
};
use crate::{
    Bytes, Commit, Engine, Error, Keys, Kind, Order, Outcome, Reader, Retained, Rows, TableId,
    Work, Write,
};

/// Connections kept for the next snapshot or transaction. A command uses one or two.
const IDLE_MAX: usize = 4;

/// How long a client waits while the other side has as many connections as it takes.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Connects to the process that serves the store.
pub type Dial = Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// A store that another process has open, over its socket.
pub struct Remote(Arc<Shared>);

struct Shared {
    /// Who serves, in words.
    server: String,
    dial: Dial,
    clock: Arc<dyn Clock>,
    idle: Mutex<Vec<Connection>>,
    is_closed: AtomicBool,
}

/// One connection, between two requests.
#[derive(Debug)]
struct Connection(UnixStream);

/// How asking ended without an answer.
enum Broken {
    /// The other side cannot have had the whole request.
    Unasked(io::Error),
    /// It may have done what was asked.
    Unanswered(io::Error),
    /// It ended the connection, and what it held for it, without having done what was asked.
    GivenUp(String),
}

impl Remote {
    /// Connects, and says hello. `server` names the process that serves, in messages. `Io` where
    /// nobody answers, `Version` where somebody does who speaks otherwise.
    pub fn open(
        server: impl Into<String>,
        dial: Dial,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let shared = Shared {
            server: server.into(),
            dial,
            clock,
            idle: Mutex::default(),
            is_closed: AtomicBool::new(false),
        };
        let connection = shared.connect()?;
        shared.idle().push(connection);
        Ok(Self(Arc::new(shared)))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store of {}", self.0.server)
    }
}

impl Engine for Remote {
    fn table(&self, name: &str) -> Result<TableId, Error> {
        match self.0.question(&Request::Table(name.to_owned()))? {
            Answer::Table(table) => Ok(table),
            other => Err(self.0.unexpected(&other)),
        }
    }

    fn table_name(&self, table: TableId) -> Result<String, Error> {
        match self.0.question(&Request::TableName(table))? {
            Answer::Name(name) => Ok(name),
            other => Err(self.0.unexpected(&other)),
        }
    }

    fn newest(&self) -> Result<Commit, Error> {
        self.0.commit(&Request::Newest)
    }

    fn at(&self, lsn: Lsn) -> Result<Commit, Error> {
        self.0.commit(&Request::At(lsn))
    }

    fn at_time(&self, time: Timestamp) -> Result<Commit, Error> {
        self.0.commit(&Request::AtTime(time))
    }

    fn retained(&self) -> Result<Retained, Error> {
        match self.0.question(&Request::Retained)? {
            Answer::Retained(retained) => Ok(retained),
            other => Err(self.0.unexpected(&other)),
        }
    }

    fn read(&self, at: Commit) -> Result<Box<dyn Reader>, Error> {
        self.0.reading(Some(at.lsn))
    }

    fn read_newest(&self) -> Result<Box<dyn Reader>, Error> {
        self.0.reading(None)
    }

    fn begin(&self) -> Result<Box<dyn Work>, Error> {
        let (connection, answer) = self.0.first(&Request::Begin)?;
        let Answer::Commit(seen) = answer else {
            return Err(self.0.unexpected(&answer));
        };
        Ok(Box::new(Working {
            shared: Arc::clone(&self.0),
            connection: Some(connection),
            seen,
        }))
    }

    fn close(&self) -> Result<(), Error> {
        if self.0.is_closed.swap(true, Ordering::AcqRel) {
            return Err(Error::closed());
        }
        self.0.idle().clear();
        Ok(())
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<(), Error> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        Ok(())
    }

    fn connect(&self) -> Result<Connection, Error> {
        let end = self.clock.monotonic() + BUSY_WAIT;
        loop {
            let stream = (self.dial)().map_err(|error| self.lost(error))?;
            let connection = Connection(stream);
            match connection.greet(self.clock.as_ref()) {
                Ok(Answer::Welcome) => return Ok(connection),
                Ok(Answer::Busy) if self.clock.monotonic() < end => self.clock.sleep(BUSY_PAUSE),
                Ok(Answer::Busy) => {
                    let message = format!("{} has as many clients as it takes", self.server);
                    return Err(Error::new(Kind::Io, message));
                }
                Ok(Answer::Refused(error)) => return Err(error),
                Ok(Answer::GivenUp(why)) => {
                    return Err(self.lost(io::Error::new(io::ErrorKind::ConnectionReset, why)));
                }
                Ok(other) => return Err(self.unexpected(&other)),
                Err(error) => return Err(self.lost(error)),
            }
        }
    }

    /// Asks what needs nothing to be open, on a connection that was idle or on another one: it does
    /// no harm to ask twice.
    fn first(&self, request: &Request) -> Result<(Connection, Answer), Error> {
        self.open()?;
        let idle = self.idle().pop();
        if let Some(connection) = idle {
            match connection.ask(self.clock.as_ref(), &request.encode()) {
                Ok(answer) => return self.answered(connection, answer),
                // It was idle for too long, and so were the others; or the process was started anew.
                Err(_) => self.idle().clear(),
            }
        }
        let connection = self.connect()?;
        match connection.ask(self.clock.as_ref(), &request.encode()) {
            Ok(answer) => self.answered(connection, answer),
            Err(Broken::Unasked(error) | Broken::Unanswered(error)) => Err(self.lost(error)),
            Err(Broken::GivenUp(why)) => {
                Err(self.lost(io::Error::new(io::ErrorKind::ConnectionReset, why)))
            }
        }
    }

    fn answered(
        &self,
        connection: Connection,
        answer: Answer,
    ) -> Result<(Connection, Answer), Error> {
        match answer {
            Answer::Refused(error) => {
                self.put_back(connection);
                Err(error)
            }
            answer => Ok((connection, answer)),
        }
    }

    fn question(&self, request: &Request) -> Result<Answer, Error> {
        let (connection, answer) = self.first(request)?;
        self.put_back(connection);
        Ok(answer)
    }

    fn commit(&self, request: &Request) -> Result<Commit, Error> {
        match self.question(request)? {
            Answer::Commit(commit) => Ok(commit),
            other => Err(self.unexpected(&other)),
        }
    }

    fn reading(self: &Arc<Self>, at: Option<Lsn>) -> Result<Box<dyn Reader>, Error> {
        let (connection, answer) = self.first(&Request::Read(at))?;
        let Answer::Commit(commit) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(Box::new(Reading {
            shared: Arc::clone(self),
            connection: Mutex::new(Some(connection)),
            commit,
        }))
    }

    /// Nothing is open on it.
    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX && !self.is_closed.load(Ordering::Acquire) {
            idle.push(connection);
        }
    }

    /// Ends what is open on it first.
    fn give_back(&self, connection: Connection) {
        if connection.tell(&Request::End.encode()).is_ok() {
            self.put_back(connection);
        }
    }

    fn lost(&self, error: io::Error) -> Error {
        Error::caused(Kind::Io, format!("ask {}", self.server), error)
    }

    fn unexpected(&self, answer: &Answer) -> Error {
        let message = format!("{} gave an answer to another question", self.server);
        tracing::debug!(?answer, "unexpected answer");
        Error::new(Kind::Version, message)
    }
}

impl Connection {
    fn greet(&self, clock: &dyn Clock) -> io::Result<Answer> {
        // A server that is full has answered already, and may have hung up.
        let sent = frame::write(&self.0, GREETING_MAX, &wire::greeting());
        match (
            frame::read(&self.0, clock, GREETING_MAX, GREETING_MAX),
            sent,
        ) {
            (Ok(Some(answer)), _) => decoded(&answer),
            (Ok(None), _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    fn tell(&self, request: &[u8]) -> io::Result<()> {
        frame::write(&self.0, QUIET_MAX, request)
    }

    fn ask(&self, clock: &dyn Clock, request: &[u8]) -> Result<Answer, Broken> {
        if let Err(error) = self.tell(request) {
            // It may have said why before it hung up.
            return match frame::read(&self.0, clock, GREETING_MAX, GREETING_MAX)
                .map(|farewell| farewell.and_then(|farewell| Answer::decode(&farewell)))
            {
                Ok(Some(Answer::GivenUp(why))) => Err(Broken::GivenUp(why)),
                _ => Err(Broken::Unasked(error)),
            };
        }
        let answer = frame::read(&self.0, clock, ANSWER_MAX, ANSWER_MAX)
            .and_then(|answer| answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
            .and_then(|answer| decoded(&answer))
            .map_err(Broken::Unanswered)?;
        match answer {
            Answer::GivenUp(why) => Err(Broken::GivenUp(why)),
            answer => Ok(answer),
        }
    }
}

fn decoded(answer: &[u8]) -> io::Result<Answer> {
    Answer::decode(answer).ok_or_else(|| {
        let message = "an answer of another version of this program";
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// A snapshot. Its position is what matters: where the other side gave it up meanwhile, it is taken
/// again.
struct Reading {
    shared: Arc<Shared>,
    connection: Mutex<Option<Connection>>,
    commit: Commit,
}

impl Reading {
    fn ask(&self, request: &[u8]) -> Result<Answer, Error> {
        let mut place = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = place.take()
            && let Ok(answer) = connection.ask(self.shared.clock.as_ref(), request)
        {
            return self.given(&mut place, connection, answer);
        }
        let (connection, answer) = self.shared.first(&Request::Read(Some(self.commit.lsn)))?;
        match answer {
            Answer::Commit(commit) if commit == self.commit => {}
            Answer::Commit(commit) => {
                let message = format!("a snapshot at {} became one at {commit}", self.commit);
                return Err(Error::new(Kind::Io, message));
            }
            other => return Err(self.shared.unexpected(&other)),
        }
        match connection.ask(self.shared.clock.as_ref(), request) {
            Ok(answer) => self.given(&mut place, connection, answer),
            Err(Broken::Unasked(error) | Broken::Unanswered(error)) => Err(self.shared.lost(error)),
            Err(Broken::GivenUp(why)) => {
                let error = io::Error::new(io::ErrorKind::ConnectionReset, why);
                Err(self.shared.lost(error))
            }
        }
    }

    fn given(
        &self,
        place: &mut Option<Connection>,
        connection: Connection,
        answer: Answer,
    ) -> Result<Answer, Error> {
        *place = Some(connection);
        match answer {
            Answer::Refused(error) => Err(error),
            answer => Ok(answer),
        }
    }
}

impl Reader for Reading {
    fn commit(&self) -> Commit {
        self.commit
    }

    fn get_many(&self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error> {
        values(&self.shared, keys, |request| self.ask(request))
    }

    fn page(&self, table: TableId, keys: &Keys, order: Order, limit: usize) -> Result<Rows, Error> {
        rows(
            &self.shared,
            Request::Page,
            (table, keys, order, limit),
            |request| self.ask(request),
        )
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let place = self
            .connection
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = place.take() {
            self.shared.give_back(connection);
        }
    }
}

/// A transaction. What it read is remembered on the other side.
struct Working {
    shared: Arc<Shared>,
    /// `None` after it broke: then it is over.
    connection: Option<Connection>,
    seen: Commit,
}

impl Working {
    fn ask(&mut self, request: &[u8]) -> Result<Answer, Error> {
        let given_up = |why: &str| {
            let message = format!(
                "transaction given up by {}: {why}, run it again",
                self.shared.server
            );
            Error::new(Kind::Conflict, message)
        };
        let Some(connection) = self.connection.take() else {
            return Err(given_up("it broke before"));
        };
        match connection.ask(self.shared.clock.as_ref(), request) {
            Ok(Answer::Refused(error)) => {
                self.connection = Some(connection);
                Err(error)
            }
            Ok(answer) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Err(Broken::GivenUp(why)) => Err(given_up(&why)),
            Err(Broken::Unasked(error) | Broken::Unanswered(error)) => Err(self.shared.lost(error)),
        }
    }
}

impl Work for Working {
    fn commit_seen(&self) -> Commit {
        self.seen
    }

    fn get_many(&mut self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error> {
        let shared = Arc::clone(&self.shared);
        values(&shared, keys, |request| self.ask(request))
    }

    fn page(
        &mut self,
        table: TableId,
        keys: &Keys,
        order: Order,
        limit: usize,
    ) -> Result<Rows, Error> {
        let shared = Arc::clone(&self.shared);
        rows(
            &shared,
            Request::Page,
            (table, keys, order, limit),
            |request| self.ask(request),
        )
    }

    fn claim(&mut self, table: TableId, keys: &Keys, limit: usize) -> Result<Rows, Error> {
        let shared = Arc::clone(&self.shared);
        let asked = (table, keys, Order::Ascending, limit);
        rows(&shared, Request::Claim, asked, |request| self.ask(request))
    }

    fn finish(
        mut self: Box<Self>,
        writes: Vec<Write>,
        date: Option<Timestamp>,
        once: Option<&[u8]>,
    ) -> Result<Outcome, Error> {
        self.shared.open()?;
        let request = wire::encode_finish(&writes, date, once);
        let Some(connection) = self.connection.take() else {
            let message = "a transaction that broke cannot commit, run it again";
            return Err(Error::new(Kind::Conflict, message));
        };
        let answer = connection.ask(self.shared.clock.as_ref(), &request);
        match answer {
            Ok(Answer::Outcome(outcome)) => {
                self.shared.put_back(connection);
                Ok(outcome)
            }
            Ok(Answer::Refused(error)) => {
                self.shared.put_back(connection);
                Err(error)
            }
            Ok(other) => Err(in_doubt(&self.shared, self.shared.unexpected(&other))),
            Err(Broken::GivenUp(why)) => {
                let message = format!(
                    "transaction given up by {}: {why}, run it again",
                    self.shared.server
                );
                Err(Error::new(Kind::Conflict, message))
            }
            Err(Broken::Unasked(error)) => Err(self.shared.lost(error)),
            Err(Broken::Unanswered(error)) => Err(in_doubt(&self.shared, error)),
        }
    }
}

fn in_doubt(shared: &Shared, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!(
        "{} did not say whether it committed: look before it is tried again",
        shared.server
    );
    Error::caused(Kind::InDoubt, message, error)
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.give_back(connection);
        }
    }
}

/// One answer a key, in as many requests as they and their answers need.
fn values(
    shared: &Shared,
    mut keys: &[(TableId, &[u8])],
    mut ask: impl FnMut(&[u8]) -> Result<Answer, Error>,
) -> Result<Vec<Option<Bytes>>, Error> {
    let mut found = Vec::with_capacity(keys.len());
    while !keys.is_empty() {
        let (mut count, mut bytes) = (0, 0);
        while count < keys.len() && count < KEYS_MAX && (count == 0 || bytes < KEYS_BYTES_MAX) {
            bytes += keys[count].1.len();
            count += 1;
        }
        let request = wire::encode_get(&keys[..count]);
        if request.len() > frame::FRAME_LEN_MAX {
            return Err(too_long("a key"));
        }
        match ask(&request)? {
            Answer::Values(values) if !values.is_empty() && values.len() <= count => {
                keys = &keys[values.len()..];
                found.extend(values);
            }
            other => return Err(shared.unexpected(&other)),
        }
    }
    Ok(found)
}

/// All rows up to the limit, in as many pages as they need.
fn rows(
    shared: &Shared,
    request: fn(Page) -> Request,
    (table, keys, order, limit): (TableId, &Keys, Order, usize),
    mut ask: impl FnMut(&[u8]) -> Result<Answer, Error>,
) -> Result<Rows, Error> {
    let mut found: Rows = Vec::new();
    let mut rest = keys.clone();
    while found.len() < limit {
        let wanted = (limit - found.len()).min(ROWS_MAX);
        let page = Page {
            table,
            keys: mem::replace(&mut rest, Keys::all()),
            order,
            limit: u32::try_from(wanted).expect("a page has at most a thousand rows"),
        };
        let keys = page.keys.clone();
        let encoded = request(page).encode();
        if encoded.len() > frame::FRAME_LEN_MAX {
            return Err(too_long("a range"));
        }
        let (rows, more) = match ask(&encoded)? {
            Answer::Rows { rows, more } if rows.len() <= wanted => (rows, more),
            other => return Err(shared.unexpected(&other)),
        };
        let is_full = rows.len() == wanted;
        match rows.last() {
            Some((last, _)) if is_full || more => rest = keys.resumed(last, order),
            _ => {
                found.extend(rows);
                break;
            }
        }
        found.extend(rows);
    }
    Ok(found)
}

fn too_long(what: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!("{what} is longer than anything that is stored"),
    )
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reading").field(&self.commit).finish()
    }
}

impl fmt::Debug for Working {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Working").field(&self.seen).finish()
    }
}
