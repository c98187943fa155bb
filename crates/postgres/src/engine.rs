//! The engine: a database, its tables by name, and what is done beside reading and writing.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use store::{
    Commit, Error, History, Kind, Options as StoreOptions, Reader, Retained, Table, TableId, Work,
};
use tokio_postgres::{Client, Row};
use uuid::Uuid;
use wal::Lsn;
use world::{Clock, Random, RealRandom, Timestamp};

use crate::{
    address::Address,
    bridge::Running,
    connection::{Connection, Refused},
    fault::{self, Cause, Fault},
    pool::{Asked, Pool},
    reader::{At, garbled, get},
    schema,
    statement::Statement,
    tls,
    work::UnderWay,
};

/// The first number of a table, as in a store on this machine: lower ones are the store's own.
const FIRST_TABLE: i32 = 16;

/// How long a replaced version of a table without history stays readable, and a deletion is remembered:
/// a snapshot or a transaction that lasts longer is told so. Arbitrary, far above what a page, a report
/// or an apply takes.
const KEPT_LEAST: Duration = Duration::from_secs(10 * 60);
/// How long an idempotency key is remembered, as in a store on this machine.
const ONCE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often what is not kept is dropped, by whichever process comes first.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Rows of one round of it: the head is locked for some tens of milliseconds.
const PRUNE_ROWS: i32 = 5_000;
/// Rounds at one time, for as much as is written in a minute; the rest waits for the next.
const PRUNE_ROUNDS: usize = 20;

/// How long the server may take to answer before its session is given up: longer than it lets a statement
/// take.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(35);

/// What a database is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: Address,
    /// Tables to have. Others that the database has stay as they are.
    pub tables: Vec<Table>,
    /// Dates the commits instead of the server's clock. For tests: machines that share a database must
    /// share a clock.
    pub clock: Option<Arc<dyn Clock>>,
    /// Names the commits.
    pub random: Arc<dyn Random>,
    /// How long an answer is waited for. For tests of servers that do not give one.
    pub answer_max: Duration,
}

impl Options {
    pub fn new(address: Address, tables: Vec<Table>) -> Self {
        Self {
            address,
            tables,
            clock: None,
            random: Arc::new(RealRandom),
            answer_max: ANSWER_MAX,
        }
    }
}

/// The tables of a database, shared with whoever else has it open.
pub struct Engine(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) running: Arc<Running>,
    pub(crate) tables: Arc<Tables>,
    clock: Option<Arc<dyn Clock>>,
    random: Arc<dyn Random>,
}

impl Shared {
    /// `None`: the server's time.
    pub(crate) fn now(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| signed(clock.now().nanos()))
    }

    /// Of a commit; nobody else has it.
    pub(crate) fn name(&self) -> Result<Uuid, Error> {
        let mut bytes = [0; 16];
        self.random
            .fill(&mut bytes)
            .map_err(|error| Error::caused(Kind::Io, "no random bytes for a commit", error))?;
        Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

impl Engine {
    /// Opens the database, which must be empty or hold a site, and makes the tables that are missing.
    ///
    /// `Version`: a later program prepared it. `Invalid`: it cannot be opened in this way. `Io`: it does
    /// not answer. The error's source is a [`crate::Fault`].
    pub fn open(options: Options) -> Result<Self, Error> {
        let Options {
            address,
            tables,
            clock,
            random,
            answer_max,
        } = options;
        check(&tables)?;
        let tls = tls::connector(&address.trust)?;
        let running = Running::new(Pool::new(address, tls, answer_max))?;
        let pool = Arc::clone(&running.pool);
        let now = clock.as_ref().map(|clock| signed(clock.now().nanos()));
        let known =
            running.block_few(async move { prepare(&pool, tables, now, schema::NEWEST).await })?;
        let running = Arc::new(running);
        running.spawn(prune_for_ever(Arc::downgrade(&running.pool)));
        Ok(Self(Arc::new(Shared {
            running,
            tables: Arc::new(known),
            clock,
            random,
        })))
    }

    /// Answers of the server that were waited for, since this engine was opened.
    pub fn round_trips(&self) -> u64 {
        self.0.running.pool.round_trips()
    }

    pub fn address(&self) -> &Address {
        self.0.running.pool.address()
    }

    /// Drops what the tables do not keep, as happens by itself every minute. Tells how many rows.
    pub fn prune(&self) -> Result<u64, Error> {
        let (pool, now) = (Arc::clone(&self.0.running.pool), self.0.now());
        self.0.running.block(async move { prune(&pool, now).await })
    }

    fn ask_head(&self) -> Result<Commit, Error> {
        self.0.running.pool.open()?;
        let pool = Arc::clone(&self.0.running.pool);
        self.0.running.block(async move {
            let head = move |connection: Arc<Connection>| -> Asked<Vec<Row>> {
                Box::pin(async move { connection.query(Statement::Head, &[]).await })
            };
            let rows = pool
                .ask("asking PostgreSQL for the newest commit", head)
                .await?;
            let row = rows.first().ok_or_else(garbled)?;
            Ok(commit(get(row, 0)?, get(row, 1)?))
        })
    }
}

impl store::Engine for Engine {
    fn table(&self, name: &str) -> Result<TableId, Error> {
        let found = self.0.tables.ids.get(name);
        found
            .copied()
            .ok_or_else(|| Error::new(Kind::Invalid, format!("no table {name:?} in this store")))
    }

    fn table_name(&self, table: TableId) -> Result<String, Error> {
        self.0.tables.name(table).map(str::to_owned)
    }

    fn newest(&self) -> Result<Commit, Error> {
        self.ask_head()
    }

    fn at(&self, lsn: Lsn) -> Result<Commit, Error> {
        let retained = self.retained()?;
        if lsn < retained.from.lsn || lsn > retained.to.lsn {
            return Err(Error::out_of_range(format!("lsn {lsn}"), retained));
        }
        let (pool, version) = (Arc::clone(&self.0.running.pool), signed(lsn.get()));
        let time = self.0.running.block(async move {
            let ask = move |connection: Arc<Connection>| -> Asked<Vec<Row>> {
                Box::pin(async move { connection.query(Statement::AtOrBelow, &[&version]).await })
            };
            let rows = pool.ask("asking PostgreSQL for a commit", ask).await?;
            rows.first().map(|row| get::<i64>(row, 0)).transpose()
        })?;
        Ok(Commit {
            lsn,
            time: time.map_or(retained.from.time, |at| Timestamp::from_nanos(unsigned(at))),
        })
    }

    fn at_time(&self, time: Timestamp) -> Result<Commit, Error> {
        self.0.running.pool.open()?;
        let (pool, now) = (Arc::clone(&self.0.running.pool), self.0.now());
        let asked = signed(time.nanos());
        let row = self.0.running.block(async move {
            let ask = move |connection: Arc<Connection>| -> Asked<Vec<Row>> {
                Box::pin(async move { connection.query(Statement::Before, &[&asked, &now]).await })
            };
            let rows = pool
                .ask("asking PostgreSQL for the commits before a time", ask)
                .await?;
            rows.into_iter().next().ok_or_else(garbled)
        })?;
        let head = commit(get(&row, 4)?, get(&row, 5)?);
        let now = unsigned(get(&row, 2)?);
        let retained = self.retained()?;
        if time < retained.from.time || time > Timestamp::from_nanos(now).max(head.time) {
            let moment = format!("time {} ns", time.nanos());
            return Err(Error::out_of_range(moment, retained));
        }
        let version: Option<i64> = get(&row, 0)?;
        let at: Option<i64> = get(&row, 1)?;
        match (version, at) {
            (Some(version), Some(at)) => Ok(commit(version, at).max(retained.from)),
            _ => Ok(retained.from),
        }
    }

    fn retained(&self) -> Result<Retained, Error> {
        retained(&self.0.running)
    }

    fn read(&self, at: Commit) -> Result<Box<dyn Reader>, Error> {
        self.0.running.pool.open()?;
        let (running, tables) = (Arc::clone(&self.0.running), Arc::clone(&self.0.tables));
        Ok(Box::new(At::new(running, tables, at)))
    }

    fn begin(&self) -> Result<Box<dyn Work>, Error> {
        let seen = self.ask_head()?;
        Ok(Box::new(UnderWay::new(Arc::clone(&self.0), seen)))
    }

    fn hurry(&self) {
        self.0
            .running
            .spawn(Arc::clone(&self.0.running.pool).hurry());
    }

    fn close(&self) -> Result<(), Error> {
        self.0.running.pool.close()
    }
}

/// Makes or brings the tables of a database only as far as an earlier program did: for tests of what a
/// later one does with them.
pub fn prepare_as(options: Options, version: usize) -> Result<(), Error> {
    let tls = tls::connector(&options.address.trust)?;
    let running = Running::new(Pool::new(options.address, tls, ANSWER_MAX))?;
    let (pool, tables) = (Arc::clone(&running.pool), options.tables);
    let made = running.block_few(async move { prepare(&pool, tables, None, version).await });
    made.map(drop)
}

/// One statement outside of any transaction and of any table of ours, such as `create database`: for tests
/// and tools that make a place for an engine. It has no parameters, so nothing of a user's may be in it.
pub fn administer(address: &Address, statement: &str) -> Result<(), Error> {
    let tls = tls::connector(&address.trust)?;
    let running = Running::new(Pool::new(address.clone(), tls, ANSWER_MAX))?;
    let (pool, statement) = (Arc::clone(&running.pool), statement.to_owned());
    running.block_few(async move {
        let client = pool.connect().await.map_err(Refused::error)?.client;
        let done = client.batch_execute(&statement).await;
        done.map_err(|error| fault::of("administering PostgreSQL", &error))
    })
}

pub(crate) fn retained(running: &Running) -> Result<Retained, Error> {
    running.pool.open()?;
    let pool = Arc::clone(&running.pool);
    running.block(async move {
        let ask = move |connection: Arc<Connection>| -> Asked<Vec<Row>> {
            Box::pin(async move { connection.query(Statement::Retained, &[]).await })
        };
        let rows = pool
            .ask("asking PostgreSQL for what is retained", ask)
            .await?;
        let row = rows.first().ok_or_else(garbled)?;
        let created: i64 = get(row, 2)?;
        let time: Option<i64> = get(row, 4)?;
        Ok(Retained {
            from: commit(get(row, 3)?, time.unwrap_or(created)),
            to: commit(get(row, 0)?, get(row, 1)?),
        })
    })
}

/// The tables by name and number, as they were when the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    ids: HashMap<String, TableId>,
    names: BTreeMap<i32, String>,
}

impl Tables {
    /// The number of a table of this store.
    pub(crate) fn check(&self, table: TableId) -> Result<i32, Error> {
        i32::try_from(u32::from(table))
            .ok()
            .filter(|tab| self.names.contains_key(tab))
            .ok_or_else(|| self.not_here(table))
    }

    /// The number behind a name.
    pub(crate) fn number(&self, name: &str) -> Result<i32, Error> {
        let table = self.ids.get(name).copied();
        let missing = || Error::new(Kind::Invalid, format!("no table {name:?} in this database"));
        self.check(table.ok_or_else(missing)?)
    }

    pub(crate) fn name(&self, table: TableId) -> Result<&str, Error> {
        let tab = self.check(table)?;
        Ok(&self.names[&tab])
    }

    pub(crate) fn not_here(&self, table: TableId) -> Error {
        let message = format!("table handle {} is not of this store", u32::from(table));
        Error::new(Kind::Invalid, message)
    }
}

fn check(tables: &[Table]) -> Result<(), Error> {
    let is_named =
        |table: &Table| (1..=StoreOptions::TABLE_NAME_LEN_MAX).contains(&table.name.len());
    if tables.len() > StoreOptions::TABLES_MAX || !tables.iter().all(is_named) {
        let message = format!(
            "{} tables with names of 1 to {} bytes, at most {}",
            tables.len(),
            StoreOptions::TABLE_NAME_LEN_MAX,
            StoreOptions::TABLES_MAX
        );
        return Err(Error::new(Kind::Invalid, message));
    }
    Ok(())
}

pub(crate) async fn prepare(
    pool: &Arc<Pool>,
    tables: Vec<Table>,
    now: Option<i64>,
    version: usize,
) -> Result<Tables, Error> {
    // Once: whoever starts a program wants to be told at once.
    let mut client = pool.connect().await.map_err(Refused::error)?.client;
    schema::bring_to(&mut client, version).await?;
    let known = register(&client, tables, now)
        .await
        .map_err(|error| fault::of("naming the tables of the database", &error))?;
    let moving = client
        .query_one("select moving is not null from holdfast.head", &[])
        .await
        .map_err(|error| fault::of("asking whether the database is a whole site", &error))?;
    if moving.get(0) {
        let said = "a site is being moved to it, and is not all there".to_owned();
        return Err(Error::caused(
            Kind::Invalid,
            format!("opening {}", pool.address()),
            Fault::new(Cause::Moving, said),
        ));
    }
    Ok(known)
}

/// Makes the head of an empty database, names the tables that have no number yet, and tells all numbers.
pub(crate) async fn register(
    client: &Client,
    tables: Vec<Table>,
    now: Option<i64>,
) -> Result<Tables, tokio_postgres::Error> {
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    let kept: Vec<Option<i64>> = tables.iter().map(|table| kept(table.history)).collect();
    let statement = "select n.name, n.id, n.kept from holdfast.name n";
    let mut rows = client.query(statement, &[]).await?;
    let is_known = |(name, kept): (&String, &Option<i64>)| {
        let same =
            |row: &Row| row.get::<_, &str>(0) == name && row.get::<_, Option<i64>>(2) == *kept;
        rows.iter().any(same)
    };
    if rows.is_empty() || !names.iter().zip(&kept).all(is_known) {
        client
            .query(REGISTER, &[&names, &kept, &now, &FIRST_TABLE])
            .await?;
        rows = client.query(statement, &[]).await?;
    }
    let mut known = Tables::default();
    for row in rows {
        let (name, id): (String, i32) = (row.get(0), row.get(1));
        let table = TableId::from(u32::try_from(id).unwrap_or_default());
        known.names.insert(id, name.clone());
        known.ids.insert(name, table);
    }
    Ok(known)
}

const REGISTER: &str = "select holdfast.register($1::text[], $2::bigint[], $3, $4)";

/// How long a replaced version is kept, in nanoseconds.
fn kept(history: History) -> Option<i64> {
    match history {
        History::Forever => None,
        History::For(duration) => Some(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)),
        History::Latest => Some(0),
    }
}

/// Ends with the engine.
async fn prune_for_ever(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        let Some(pool) = pool.upgrade().filter(|pool| pool.open().is_ok()) else {
            return;
        };
        for _ in 0..PRUNE_ROUNDS {
            match prune(&pool, None).await {
                Ok(rows) if rows >= u64::from(PRUNE_ROWS.unsigned_abs()) => {}
                Ok(_) => break,
                // Another process, or the next minute, does it.
                Err(error) => {
                    tracing::debug!(event = "postgres.prune.failed", %error);
                    break;
                }
            }
        }
    }
}

async fn prune(pool: &Arc<Pool>, now: Option<i64>) -> Result<u64, Error> {
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let (least, once) = (nanos(KEPT_LEAST), nanos(ONCE_KEPT));
    let ask = move |connection: Arc<Connection>| -> Asked<Vec<Row>> {
        Box::pin(async move {
            connection
                .query(Statement::Prune, &[&now, &least, &once, &PRUNE_ROWS])
                .await
        })
    };
    let rows = pool
        .ask("dropping what is not kept in PostgreSQL", ask)
        .await?;
    Ok(unsigned(get(rows.first().ok_or_else(garbled)?, 0)?))
}

/// Positions and times are below 2^63: nanoseconds get there in the year 2262.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

pub(crate) fn commit(version: i64, at: i64) -> Commit {
    Commit {
        lsn: Lsn::new(unsigned(version)),
        time: Timestamp::from_nanos(unsigned(at)),
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Engine").field(self.address()).finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}
