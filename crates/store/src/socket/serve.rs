//! The side that has the store open.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use world::Clock;

use super::{
    CONNECTIONS_MAX, GREETING_MAX, HELD_MAX, PAGE_BYTES, QUIET_MAX, ROWS_MAX, STOP_MAX, frame,
    wire::{self, Answer, Page, Request},
};
use crate::{Bytes, Error, Kind, Order, Outcome, Snapshot, Store, TableId, Transaction, Write};

/// Rows of a transaction's range that are read at a time, before their size is known.
const STEP_ROWS: usize = 256;

/// How long a failed accept (out of files, for example) is given to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a store on a socket until it is stopped or dropped.
pub struct Serving {
    shared: Arc<Shared>,
    listener: Arc<UnixListener>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    limits: Limits,
    stopping: AtomicBool,
    open: Mutex<Open>,
    /// Told of each connection that ends.
    ended: Condvar,
}

#[derive(Default)]
struct Open {
    next: u64,
    streams: BTreeMap<u64, Arc<UnixStream>>,
}

/// [`QUIET_MAX`], [`HELD_MAX`] and [`CONNECTIONS_MAX`], smaller in tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) quiet: Duration,
    pub(super) held: Duration,
    pub(super) connections: usize,
}

impl Serving {
    /// Serves `store` on `listener`, which the caller made for its own user alone, to processes of
    /// this user and of root.
    pub fn start(
        store: Store,
        listener: UnixListener,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let limits = Limits {
            quiet: QUIET_MAX,
            held: HELD_MAX,
            connections: CONNECTIONS_MAX,
        };
        Self::start_with(store, listener, clock, limits)
    }

    pub(super) fn start_with(
        store: Store,
        listener: UnixListener,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let cannot = |error| Error::caused(Kind::Io, "serve the store", error);
        listener.set_nonblocking(false).map_err(cannot)?;
        let shared = Arc::new(Shared {
            clock,
            limits,
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
            ended: Condvar::new(),
        });
        let listener = Arc::new(listener);
        let (accepting, serving) = (Arc::clone(&listener), Arc::clone(&shared));
        let acceptor = thread::Builder::new()
            .name("store socket".to_owned())
            .spawn(move || accept(&accepting, &serving, &store))
            .map_err(cannot)?;
        Ok(Self {
            shared,
            listener,
            acceptor: Some(acceptor),
        })
    }

    /// Snapshots and transactions of clients, and connections that hold none.
    pub fn connections(&self) -> usize {
        self.shared.open().streams.len()
    }

    /// Lets nobody in any more, finishes requests under way, and gives up what clients hold.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(acceptor) = self.acceptor.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::Release);
        // Wakes the accept.
        let woken = rustix::net::shutdown(self.listener.as_ref(), rustix::net::Shutdown::Both);
        if let Err(error) = woken {
            tracing::error!("the store's socket cannot be shut: {error}");
        }
        if acceptor.join().is_err() {
            tracing::error!("the thread that lets clients in had panicked");
        }
        // Whoever waits for a request reads the end; whoever answers one still may.
        self.shared.shut(Shutdown::Read);
        let mut open = self.shared.open();
        if !open.streams.is_empty() {
            open = self
                .shared
                .ended
                .wait_timeout_while(open, STOP_MAX, |open| !open.streams.is_empty())
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(open);
        // A client that does not take its answer.
        self.shared.shut(Shutdown::Both);
        let open = self.shared.open();
        drop(
            self.shared
                .ended
                .wait_timeout_while(open, STOP_MAX, |open| !open.streams.is_empty()),
        );
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut(&self, how: Shutdown) {
        for stream in self.open().streams.values() {
            // One that has ended by itself meanwhile.
            drop(stream.shutdown(how));
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>, store: &Store) {
    while !shared.stopping.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = admit(stream, shared, store) {
                    tracing::warn!("a client of the store was turned away: {error}");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if shared.stopping.load(Ordering::Acquire) => {}
            Err(error) => {
                tracing::warn!("accept a client of the store: {error}");
                shared.clock.sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Gives a client its thread. Dropped unanswered, it sees the end of the stream.
fn admit(stream: UnixStream, shared: &Arc<Shared>, store: &Store) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    let own = rustix::process::geteuid();
    if peer.uid != own && !peer.uid.is_root() {
        let message = format!("uid {} is not {}", peer.uid.as_raw(), own.as_raw());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let stream = Arc::new(stream);
    let id = {
        let mut open = shared.open();
        if open.streams.len() >= shared.limits.connections {
            drop(open);
            return frame::write(&stream, GREETING_MAX, &Answer::Busy.encode());
        }
        open.next += 1;
        let id = open.next;
        open.streams.insert(id, Arc::clone(&stream));
        id
    };
    let place = Place {
        shared: Arc::clone(shared),
        id,
    };
    let store = store.clone();
    thread::Builder::new()
        .name("store client".to_owned())
        .spawn(move || {
            if let Err(error) = serve(&stream, &place.shared, &store) {
                tracing::debug!("a client of the store ended: {error}");
            }
            // First the store: who waits for the places closes it then.
            drop(store);
            drop(place);
        })
        .map(drop)
}

/// A connection's place among those that are open, until this is dropped.
struct Place {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.open().streams.remove(&self.id);
        self.shared.ended.notify_all();
    }
}

/// What a connection holds.
enum Held {
    Nothing,
    Snapshot(Snapshot),
    Transaction(Transaction),
}

struct Session<'a> {
    store: &'a Store,
    held: Held,
}

fn serve(stream: &UnixStream, shared: &Shared, store: &Store) -> io::Result<()> {
    let clock = shared.clock.as_ref();
    let answer = |answer: &Answer| frame::write(stream, shared.limits.quiet, &answer.encode());
    let Some(greeting) = frame::read(stream, clock, GREETING_MAX, GREETING_MAX)? else {
        return Ok(());
    };
    match wire::greeted(&greeting) {
        Some(wire::VERSION) => answer(&Answer::Welcome)?,
        Some(other) => {
            let message = format!(
                "a client speaks version {other} of the store's protocol, this process speaks {}",
                wire::VERSION
            );
            return answer(&Answer::Refused(Error::new(Kind::Version, message)));
        }
        None => return Err(garbage("no greeting")),
    }
    let mut session = Session {
        store,
        held: Held::Nothing,
    };
    let mut since = clock.monotonic();
    loop {
        let left = match session.held {
            Held::Nothing => shared.limits.quiet,
            _ => (since + shared.limits.held).saturating_sub(clock.monotonic()),
        };
        let read = match left {
            left if left.is_zero() => Err(io::ErrorKind::TimedOut.into()),
            left => frame::read(
                stream,
                clock,
                left.min(shared.limits.quiet),
                shared.limits.quiet,
            ),
        };
        let request = match read {
            Ok(Some(request)) => Request::decode(&request).ok_or_else(|| garbage("a request"))?,
            Ok(None) if shared.stopping.load(Ordering::Acquire) => {
                drop(session);
                return answer(&Answer::GivenUp("the process ends".to_owned()));
            }
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                // Before it is told, so that nothing is held for a client that does not listen.
                drop(session);
                return answer(&Answer::GivenUp("it was held for too long".to_owned()));
            }
            Err(error) => return Err(error),
        };
        if matches!(request, Request::Read(_) | Request::Begin) {
            since = clock.monotonic();
        }
        if let Some(given) = session.take(request) {
            answer(&given.unwrap_or_else(Answer::Refused))?;
        }
    }
}

fn garbage(what: &str) -> io::Error {
    let message = format!("{what} that no client sends");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl Session<'_> {
    /// Does what is asked. `None` where nobody waits for an answer.
    fn take(&mut self, request: Request) -> Option<Result<Answer, Error>> {
        Some(match request {
            Request::End => {
                self.held = Held::Nothing;
                return None;
            }
            Request::Read(at) => self.read(at),
            Request::Begin => self.begin(),
            Request::Get(keys) => self.get(&keys).map(Answer::Values),
            Request::Page(page) => self.page(page),
            Request::Claim(page) => self.claim(page),
            Request::Finish { writes, date, once } => self
                .finish(writes, date, once.as_deref())
                .map(Answer::Outcome),
            question => self.answer(question),
        })
    }

    /// What is asked of the store itself.
    fn answer(&self, question: Request) -> Result<Answer, Error> {
        let store = self.store;
        match question {
            Request::Table(name) => store.table(&name).map(Answer::Table),
            Request::TableName(table) => store.table_name(table).map(Answer::Name),
            Request::Newest => Ok(Answer::Commit(store.snapshot()?.commit())),
            Request::At(lsn) => Ok(Answer::Commit(store.snapshot_at(lsn)?.commit())),
            Request::AtTime(time) => Ok(Answer::Commit(store.snapshot_at_time(time)?.commit())),
            Request::Retained => store.retained().map(Answer::Retained),
            _ => Err(out_of_order("a question")),
        }
    }

    fn read(&mut self, at: Option<wal::Lsn>) -> Result<Answer, Error> {
        // Dropped first: one connection holds one thing.
        self.held = Held::Nothing;
        let snapshot = match at {
            None => self.store.snapshot(),
            Some(lsn) => self.store.snapshot_at(lsn),
        }?;
        let commit = snapshot.commit();
        self.held = Held::Snapshot(snapshot);
        Ok(Answer::Commit(commit))
    }

    fn begin(&mut self) -> Result<Answer, Error> {
        self.held = Held::Nothing;
        let transaction = self.store.begin()?;
        let commit = transaction.commit_seen();
        self.held = Held::Transaction(transaction);
        Ok(Answer::Commit(commit))
    }

    fn get(&mut self, keys: &[(TableId, Vec<u8>)]) -> Result<Vec<Option<Bytes>>, Error> {
        let mut values = Vec::new();
        let mut bytes = 0;
        for (table, key) in keys {
            let value = match &mut self.held {
                Held::Nothing => return Err(out_of_order("a read")),
                Held::Snapshot(snapshot) => snapshot.get(*table, key)?,
                Held::Transaction(transaction) => transaction.get(*table, key)?,
            };
            bytes += 5 + value.as_ref().map_or(0, |value| value.len());
            values.push(value);
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(values)
    }

    fn page(&mut self, page: Page) -> Result<Answer, Error> {
        match &mut self.held {
            Held::Nothing => Err(out_of_order("a read")),
            Held::Snapshot(snapshot) => {
                let range = snapshot.range(page.table, &page.keys)?;
                match page.order {
                    Order::Ascending => bounded(range, limit(&page)),
                    Order::Descending => bounded(range.rev(), limit(&page)),
                }
            }
            Held::Transaction(transaction) => stepwise(page, |table, keys, order, limit| {
                transaction.range(table, keys, order, limit)
            }),
        }
    }

    fn claim(&mut self, page: Page) -> Result<Answer, Error> {
        match &mut self.held {
            Held::Transaction(transaction) => stepwise(page, |table, keys, _, limit| {
                transaction.claim(table, keys, limit)
            }),
            _ => Err(out_of_order("a claim")),
        }
    }

    fn finish(
        &mut self,
        writes: Vec<Write>,
        date: Option<world::Timestamp>,
        once: Option<&[u8]>,
    ) -> Result<Outcome, Error> {
        // Taken: whatever comes of it, it is over.
        let Held::Transaction(mut transaction) = std::mem::replace(&mut self.held, Held::Nothing)
        else {
            return Err(out_of_order("a commit"));
        };
        for Write { table, key, value } in writes {
            match value {
                Some(value) => transaction.put(table, &key, &value)?,
                None => transaction.delete(table, &key)?,
            }
        }
        match (once, date) {
            (Some(key), _) => transaction.commit_once(key),
            (None, Some(date)) => transaction.commit_dated(date).map(Outcome::Committed),
            (None, None) => transaction.commit().map(Outcome::Committed),
        }
    }
}

fn out_of_order(what: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!("{what} where nothing is open for it"),
    )
}

fn limit(page: &Page) -> usize {
    usize::try_from(page.limit)
        .unwrap_or(ROWS_MAX)
        .min(ROWS_MAX)
}

fn bounded(
    rows: impl Iterator<Item = Result<(Bytes, Bytes), Error>>,
    limit: usize,
) -> Result<Answer, Error> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for row in rows.take(limit) {
        let (key, value) = row?;
        bytes += 8 + key.len() + value.len();
        found.push((key, value));
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(Answer::Rows {
        more: found.len() < limit && bytes >= PAGE_BYTES,
        rows: found,
    })
}

/// A page in steps, so that what is large is seen to be before all of it was read.
fn stepwise(
    page: Page,
    mut read: impl FnMut(TableId, &crate::Keys, Order, usize) -> Result<Vec<(Bytes, Bytes)>, Error>,
) -> Result<Answer, Error> {
    let limit = limit(&page);
    let (mut found, mut bytes, mut rest) = (Vec::new(), 0, page.keys);
    while found.len() < limit && bytes < PAGE_BYTES {
        let step = STEP_ROWS.min(limit - found.len());
        let rows = read(page.table, &rest, page.order, step)?;
        let is_last = rows.len() < step;
        if let Some((last, _)) = rows.last() {
            rest = rest.resumed(last, page.order);
        }
        bytes += rows
            .iter()
            .map(|(key, value)| 8 + key.len() + value.len())
            .sum::<usize>();
        found.extend(rows);
        if is_last {
            return Ok(Answer::Rows {
                rows: found,
                more: false,
            });
        }
    }
    Ok(Answer::Rows {
        more: found.len() < limit,
        rows: found,
    })
}
