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
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    address::Address,
    connection::{self, Connection, Opened, Refused},
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

/// How long all attempts may take together, the last begun before it: connecting takes long where nothing
/// answers.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// How long a server may say nothing to a process that is stopping. A stop may take ten seconds, and
/// clients that do not let go take seven of them beside this.
const HURRY_MAX: Duration = Duration::from_secs(3);
const HURRY_STEP: Duration = Duration::from_millis(500);

pub(crate) struct Pool {
    address: Address,
    tls: Option<MakeRustlsConnect>,
    idle: Mutex<Vec<Arc<Connection>>>,
    turns: Arc<Semaphore>,
    claims: Arc<Semaphore>,
    round_trips: Arc<AtomicU64>,
    is_closed: AtomicBool,
    /// How long an answer is waited for.
    answer_max: Duration,
    /// Nothing is waited for any more.
    given_up: watch::Sender<bool>,
}

/// What a session is asked.
pub(crate) type Asked<T> =
    Pin<Box<dyn Future<Output = Result<T, tokio_postgres::Error>> + Send + 'static>>;

/// How much longer something is tried.
#[derive(Debug)]
pub(crate) struct Patience {
    tried: usize,
    since: Instant,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tried: 0,
            since: Instant::now(),
        }
    }
}

impl Patience {
    /// Waits a little, or gives up.
    pub(crate) async fn after(&mut self, refused: Refused) -> Result<(), Error> {
        let pause = PAUSES_MS.get(self.tried);
        match (
            refused,
            pause.filter(|_| self.since.elapsed() < PATIENCE_MAX),
        ) {
            (Refused::Passing(error), Some(pause)) => {
                tracing::debug!(event = "postgres.waiting", %error, pause_ms = pause);
                self.tried += 1;
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
    pub(crate) fn new(
        address: Address,
        tls: Option<MakeRustlsConnect>,
        answer_max: Duration,
    ) -> Self {
        Self {
            answer_max,
            given_up: watch::Sender::new(false),
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

    pub(crate) async fn connect(&self) -> Result<Opened, Refused> {
        connection::connect(&self.address, self.tls.as_ref(), self.answer_max).await
    }

    pub(crate) fn answer_max(&self) -> Duration {
        self.answer_max
    }

    /// Ends with `true` once nothing is to be waited for any more.
    pub(crate) fn given_up(&self) -> watch::Receiver<bool> {
        self.given_up.subscribe()
    }

    /// Why nothing is waited for any more.
    pub(crate) fn gone(&self, kind: Kind) -> Error {
        let fault = Fault::silent(HURRY_MAX);
        Error::caused(kind, format!("stopping without {}", self.address), fault)
    }

    /// Looks whether the server lives until the engine is closed, and gives up once it does not.
    pub(crate) async fn hurry(self: Arc<Self>) {
        while self.open().is_ok() && timeout(HURRY_MAX, self.answers()).await.is_ok() {
            sleep(HURRY_STEP).await;
        }
        self.given_up.send_replace(true);
    }

    /// Ends once a session could be had, or was refused by a server that will go on refusing it.
    async fn answers(&self) {
        while let Err(Refused::Passing(error)) = self.connect().await {
            let is_crowded = |fault: &Fault| fault.cause == Cause::Crowded;
            if Fault::behind(&error).is_some_and(is_crowded) {
                return;
            }
            sleep(HURRY_STEP).await;
        }
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
                let opened = self.connect().await?;
                let round_trips = Arc::clone(&self.round_trips);
                Arc::new(Connection::new(opened, self.answer_max, round_trips))
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
            let answer = ask(Arc::clone(&lease.connection)).await;
            if lease.connection.is_silent() {
                let attempted = format!("{attempted} {}", self.address);
                let fault = Fault::silent(self.answer_max);
                return Err(Error::caused(Kind::Io, attempted, fault));
            }
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
