//! The sessions of this process: few, taken in turn, and opened again when they are lost.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use store::{Error, Kind};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    address::Address,
    connection::{self, Connection, Refused},
    fault::{self, Cause, Fault},
};

/// Sessions that one process has at most. A server has a hundred by default, and a session is busy for
/// milliseconds. Arbitrary.
const SESSIONS_MAX: usize = 8;
/// Sessions that may be kept by transactions with claims: the others read meanwhile, those same
/// transactions among them.
const CLAIMS_MAX: usize = SESSIONS_MAX / 2;
/// How long a session is waited for. Longer than a statement may take.
const TURN_MAX: Duration = Duration::from_secs(35);

/// Pauses before another attempt, in milliseconds: about ten seconds together, in which a server
/// restarts.
const PAUSES_MS: [u64; 13] = [
    20, 50, 100, 200, 400, 800, 1_000, 1_000, 1_000, 1_500, 1_500, 1_500, 1_500,
];

pub(crate) struct Pool {
    address: Address,
    tls: Option<MakeRustlsConnect>,
    idle: Mutex<Vec<Arc<Connection>>>,
    turns: Arc<Semaphore>,
    claims: Arc<Semaphore>,
    round_trips: Arc<AtomicU64>,
    is_closed: AtomicBool,
}

/// What a session is asked.
pub(crate) type Asked<T> =
    Pin<Box<dyn Future<Output = Result<T, tokio_postgres::Error>> + Send + 'static>>;

/// How much longer something is tried.
#[derive(Debug, Default)]
pub(crate) struct Patience(usize);

impl Patience {
    /// Waits a little, or gives up.
    pub(crate) async fn after(&mut self, refused: Refused) -> Result<(), Error> {
        match (refused, PAUSES_MS.get(self.0)) {
            (Refused::Passing(error), Some(pause)) => {
                tracing::debug!(event = "postgres.waiting", %error, pause_ms = pause);
                self.0 += 1;
                sleep(Duration::from_millis(*pause)).await;
                Ok(())
            }
            (refused, _) => Err(refused.error()),
        }
    }
}

/// A session that nobody else has until it is given back. One that is dropped instead is closed, and
/// the server ends what it had begun.
pub(crate) struct Lease {
    pub(crate) connection: Arc<Connection>,
    pool: Arc<Pool>,
    _turn: OwnedSemaphorePermit,
    _claim: Option<OwnedSemaphorePermit>,
}

impl Lease {
    pub(crate) fn give_back(self) {
        if !self.connection.is_closed() {
            self.pool.idle().push(Arc::clone(&self.connection));
        }
    }
}

impl Pool {
    pub(crate) fn new(address: Address, tls: Option<MakeRustlsConnect>) -> Self {
        Self {
            address,
            tls,
            idle: Mutex::default(),
            turns: Arc::new(Semaphore::new(SESSIONS_MAX)),
            claims: Arc::new(Semaphore::new(CLAIMS_MAX)),
            round_trips: Arc::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }

    pub(crate) fn open(&self) -> Result<(), Error> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(Error::new(Kind::Closed, "store is closed")),
            false => Ok(()),
        }
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Err(Error::new(Kind::Closed, "store is closed"));
        }
        self.idle().clear();
        Ok(())
    }

    pub(crate) async fn connect(&self) -> Result<tokio_postgres::Client, Refused> {
        connection::connect(&self.address, self.tls.as_ref()).await
    }

    /// One attempt.
    async fn take(self: &Arc<Self>, claims: bool) -> Result<Lease, Refused> {
        let claim = match claims {
            true => Some(turn(&self.claims).await?),
            false => None,
        };
        let turn = turn(&self.turns).await?;
        let idle = loop {
            match self.idle().pop() {
                Some(connection) if connection.is_closed() => {}
                found => break found,
            }
        };
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let client = self.connect().await?;
                Arc::new(Connection::new(client, Arc::clone(&self.round_trips)))
            }
        };
        Ok(Lease {
            connection,
            pool: Arc::clone(self),
            _turn: turn,
            _claim: claim,
        })
    }

    fn failed(&self, attempted: &str, error: &tokio_postgres::Error) -> Refused {
        let is_passing = fault::is_passing(error);
        let error = fault::of(&format!("{attempted} {}", self.address), error);
        match is_passing {
            true => Refused::Passing(error),
            false => Refused::Final(error),
        }
    }

    /// A session, as soon as one can be had.
    pub(crate) async fn lease(self: &Arc<Self>, claims: bool) -> Result<Lease, Error> {
        let mut patience = Patience::default();
        loop {
            match self.take(claims).await {
                Ok(lease) => return Ok(lease),
                Err(refused) => patience.after(refused).await?,
            }
        }
    }

    /// Asks for something that may be asked twice, on any session.
    pub(crate) async fn ask<T>(
        self: &Arc<Self>,
        attempted: &str,
        ask: impl Fn(Arc<Connection>) -> Asked<T> + Send,
    ) -> Result<T, Error> {
        let mut patience = Patience::default();
        loop {
            let lease = self.lease(false).await?;
            // The server ends what takes long; one that was stopped in mid-air ends nothing.
            let Ok(answer) = timeout(TURN_MAX, ask(Arc::clone(&lease.connection))).await else {
                let said = format!("it does not answer for {} s", TURN_MAX.as_secs());
                let attempted = format!("{attempted} {}", self.address);
                return Err(Error::caused(
                    Kind::Io,
                    attempted,
                    Fault::new(Cause::Slow, said),
                ));
            };
            match &answer {
                Err(error) if fault::is_lost(error) => {}
                _ => lease.give_back(),
            }
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => patience.after(self.failed(attempted, &error)).await?,
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refused> {
    match timeout(TURN_MAX, Arc::clone(turns).acquire_owned()).await {
        Ok(turn) => Ok(turn.expect("never closed")),
        Err(_) => {
            let said = format!("all {SESSIONS_MAX} are busy for {} s", TURN_MAX.as_secs());
            let attempted = "waiting for a session with PostgreSQL";
            let fault = Fault::new(Cause::Slow, said);
            Err(Refused::Final(Error::caused(Kind::Io, attempted, fault)))
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
