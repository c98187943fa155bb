//! One session with the server, and the statements prepared in it.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use store::{Error, Kind};
use tokio::{sync::OnceCell, task::AbortHandle, time::timeout};
use tokio_postgres::{Client, NoTls, Row, Statement as Prepared, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    address::Address,
    fault::{self, Cause, Fault},
    statement::{Statement, TEXTS},
};

/// A server that is set to lose what it acknowledged does not lose ours.
const DURABLE: &str = "select set_config('synchronous_commit', 'on', false)
    where current_setting('synchronous_commit') = 'off'";

/// How long a new session may take to be of use, beside what the way to the server takes: what is
/// stopped in mid-air accepts connections all the same.
const START_MAX: Duration = Duration::from_secs(10);

/// A session without statements: the tables may not be there yet.
pub(crate) struct Opened {
    pub(crate) client: Client,
    driver: AbortHandle,
}

pub(crate) struct Connection {
    client: Client,
    driver: AbortHandle,
    /// How long an answer is waited for.
    answer_max: Duration,
    /// It was waited for that long, and the session ended for it.
    is_silent: AtomicBool,
    /// Each when it is first asked: most processes ask few.
    prepared: [OnceCell<Prepared>; TEXTS.len()],
    round_trips: Arc<AtomicU64>,
}

/// Why a session could not be had.
pub(crate) enum Refused {
    /// May be otherwise a moment later.
    Passing(Error),
    Final(Error),
}

impl Refused {
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Passing(error) | Self::Final(error) => error,
        }
    }
}

pub(crate) async fn connect(
    address: &Address,
    tls: Option<&MakeRustlsConnect>,
    answer_max: Duration,
) -> Result<Opened, Refused> {
    let silent = |time_max: Duration| {
        let attempted = format!("connecting to {address}");
        let fault = Fault::silent(time_max);
        Refused::Passing(Error::caused(Kind::Io, attempted, fault))
    };
    let start_max = START_MAX.min(answer_max);
    let Ok(opened) = timeout(start_max, open(address, tls)).await else {
        return Err(silent(start_max));
    };
    let opened = opened.map_err(|error| refused(address, &error))?;
    match timeout(start_max, opened.client.batch_execute(DURABLE)).await {
        Ok(Ok(())) => Ok(opened),
        Ok(Err(error)) => Err(refused(address, &error)),
        Err(_) => {
            opened.driver.abort();
            Err(silent(start_max))
        }
    }
}

async fn open(
    address: &Address,
    tls: Option<&MakeRustlsConnect>,
) -> Result<Opened, tokio_postgres::Error> {
    let (client, task) = match tls {
        None => {
            let (client, driver) = address.config.connect(NoTls).await?;
            (client, tokio::spawn(drive(driver)))
        }
        Some(tls) => {
            let (client, driver) = address.config.connect(tls.clone()).await?;
            (client, tokio::spawn(drive(driver)))
        }
    };
    let driver = task.abort_handle();
    Ok(Opened { client, driver })
}

/// Ends with the client, or with an error that whoever waits for an answer is told too.
async fn drive(driver: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = driver.await {
        tracing::debug!(event = "postgres.connection.ended", %error);
    }
}

fn refused(address: &Address, error: &tokio_postgres::Error) -> Refused {
    let attempted = format!("connecting to {address}");
    let source = std::error::Error::source(error);
    let of_way = source.and_then(|source| source.downcast_ref::<io::Error>());
    let is_of_way = of_way.is_some_and(|error| {
        !matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
    });
    let is_timeout = error.code().is_none() && source.is_none();
    if is_of_way || is_timeout {
        let said = source.map_or_else(|| error.to_string(), ToString::to_string);
        let fault = Fault::new(Cause::Unreachable, said);
        return Refused::Passing(Error::caused(Kind::Io, attempted, fault));
    }
    if error.code().is_some() {
        let refused = fault::of(&attempted, error);
        return match fault::is_passing(error) {
            true => Refused::Passing(refused),
            false => Refused::Final(refused),
        };
    }
    let said = fault::said(error);
    let fault = Fault::new(Cause::Denied, said);
    Refused::Final(Error::caused(Kind::Invalid, attempted, fault))
}

impl Connection {
    /// On a database whose tables are there.
    pub(crate) fn new(opened: Opened, answer_max: Duration, round_trips: Arc<AtomicU64>) -> Self {
        Self {
            client: opened.client,
            driver: opened.driver,
            answer_max,
            is_silent: AtomicBool::new(false),
            prepared: Default::default(),
            round_trips,
        }
    }

    pub(crate) async fn prepare(
        &self,
        statement: Statement,
    ) -> Result<&Prepared, tokio_postgres::Error> {
        let index = statement.index();
        self.prepared[index]
            .get_or_try_init(|| self.bounded(self.client.prepare(TEXTS[index])))
            .await
    }

    /// The server ends what takes long; one that was stopped in mid-air, or whose disk hangs, ends
    /// nothing and is not met by keepalives. Without its driver a session is lost, and what it was asked
    /// last ends like with any other loss.
    async fn bounded<T>(
        &self,
        exchange: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        let mut exchange = std::pin::pin!(exchange);
        if let Ok(answer) = timeout(self.answer_max, &mut exchange).await {
            return answer;
        }
        self.is_silent.store(true, Ordering::Relaxed);
        self.driver.abort();
        exchange.await
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    pub(crate) async fn query(
        &self,
        statement: Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let prepared = self.prepare(statement).await?;
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.bounded(self.client.query(prepared, parameters)).await
    }

    /// `begin`, `commit` or `rollback`, sent together with another statement or with nothing to wait
    /// for: not counted as a round trip of its own.
    pub(crate) async fn batch(&self, text: &'static str) -> Result<(), tokio_postgres::Error> {
        self.bounded(self.client.batch_execute(text)).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
