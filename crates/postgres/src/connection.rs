//! One session with the server, and the statements prepared in it.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use store::{Error, Kind};
use tokio::sync::OnceCell;
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

pub(crate) struct Connection {
    client: Client,
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

/// A session without statements: the tables may not be there yet.
pub(crate) async fn connect(
    address: &Address,
    tls: Option<&MakeRustlsConnect>,
) -> Result<Client, Refused> {
    let refused = |error| refused(address, &error);
    let client = match tls {
        None => {
            let (client, driver) = address.config.connect(NoTls).await.map_err(refused)?;
            tokio::spawn(drive(driver));
            client
        }
        Some(tls) => {
            let connected = address.config.connect(tls.clone()).await;
            let (client, driver) = connected.map_err(refused)?;
            tokio::spawn(drive(driver));
            client
        }
    };
    client.batch_execute(DURABLE).await.map_err(refused)?;
    Ok(client)
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
    pub(crate) fn new(client: Client, round_trips: Arc<AtomicU64>) -> Self {
        Self {
            client,
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
            .get_or_try_init(|| self.client.prepare(TEXTS[index]))
            .await
    }

    pub(crate) async fn query(
        &self,
        statement: Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let prepared = self.prepare(statement).await?;
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.client.query(prepared, parameters).await
    }

    /// `begin`, `commit` or `rollback`, sent together with another statement or with nothing to wait
    /// for: not counted as a round trip of its own.
    pub(crate) async fn batch(&self, text: &'static str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(text).await
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
