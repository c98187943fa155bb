//! One position of the database.

use std::{collections::HashMap, fmt, sync::Arc};

use store::{Bytes, Commit, Error, Keys, Kind, Order, Reader, Rows, TableId};
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql},
};

use crate::{
    bounds::Bounds,
    bridge::Running,
    connection::Connection,
    engine::{self, Tables},
    fault,
    pool::Asked,
    statement::Statement,
};

pub(crate) struct At {
    running: Arc<Running>,
    tables: Arc<Tables>,
    commit: Commit,
    /// Of a transaction with claims, which reads here and nowhere else: it must not wait for a second
    /// session while it keeps one.
    pub(crate) session: Option<Arc<Connection>>,
}

impl At {
    pub(crate) fn new(running: Arc<Running>, tables: Arc<Tables>, commit: Commit) -> Self {
        Self {
            running,
            tables,
            commit,
            session: None,
        }
    }

    fn ask(
        &self,
        ask: impl Fn(Arc<Connection>) -> Asked<Vec<Row>> + Send + Sync + 'static,
    ) -> Result<Vec<Row>, Error> {
        self.running.pool.open()?;
        let attempted = "reading from PostgreSQL";
        if let Some(session) = self.session.clone() {
            return self.running.block(async move {
                let answer = ask(session).await;
                answer.map_err(|error| fault::of_claims(attempted, &error))
            });
        }
        let pool = Arc::clone(&self.running.pool);
        self.running
            .block(async move { pool.ask(attempted, ask).await })
    }

    /// The history of `table` must go back to here.
    fn check_floor(&self, table: TableId, floor: Option<i64>) -> Result<(), Error> {
        let Some(floor) = floor else {
            return Err(self.tables.not_here(table));
        };
        if engine::signed(self.commit.lsn.get()) >= floor {
            return Ok(());
        }
        let retained = engine::retained(&self.running)?;
        let name = self.tables.name(table)?;
        let message = format!("lsn {} of table {name:?}", self.commit.lsn);
        Err(Error::out_of_range(message, retained))
    }
}

impl Reader for At {
    fn commit(&self) -> Commit {
        self.commit
    }

    fn get_many(&self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let names = Named::of(keys, &self.tables)?;
        let at = engine::signed(self.commit.lsn.get());
        let rows = self.ask(move |connection| {
            let names = names.clone();
            Box::pin(async move {
                let parameters: [&(dyn ToSql + Sync); 3] = [&*names.tabs, &*names.keys, &at];
                connection.query(Statement::GetAt, &parameters).await
            })
        })?;
        if rows.len() != keys.len() {
            return Err(garbled());
        }
        let mut floors = HashMap::new();
        let mut found = Vec::with_capacity(rows.len());
        for (row, (table, _)) in rows.iter().zip(keys) {
            floors.insert(*table, get::<Option<i64>>(row, 0)?);
            found.push(get::<Option<&[u8]>>(row, 1)?.map(Bytes::from));
        }
        for (table, floor) in floors {
            self.check_floor(table, floor)?;
        }
        Ok(found)
    }

    fn page(&self, table: TableId, keys: &Keys, order: Order, limit: usize) -> Result<Rows, Error> {
        let tab = self.tables.check(table)?;
        if keys.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let Bounds { low, high } = Bounds::of(keys);
        let at = engine::signed(self.commit.lsn.get());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let statement = match (high.is_some(), order) {
            (true, Order::Ascending) => Statement::PageAt,
            (true, Order::Descending) => Statement::PageAtReverse,
            (false, Order::Ascending) => Statement::PageAtEndless,
            (false, Order::Descending) => Statement::PageAtEndlessReverse,
        };
        let rows = self.ask(move |connection| {
            let (low, high) = (low.clone(), high.clone());
            Box::pin(async move {
                page(
                    &connection,
                    statement,
                    tab,
                    &low,
                    at,
                    limit,
                    high.as_deref(),
                )
                .await
            })
        })?;
        let floor = rows.first().map(|row| get(row, 0)).transpose()?;
        self.check_floor(table, floor)?;
        // A page without rows is one row that has no key.
        let is_row = |row: &&Row| !matches!(row.try_get::<_, Option<&[u8]>>(1), Ok(None));
        rows.iter()
            .filter(is_row)
            .map(|row| pair(row, 1, 2))
            .collect()
    }
}

/// Asks for a page, by either kind of statement.
pub(crate) async fn page(
    connection: &Connection,
    statement: Statement,
    tab: i32,
    low: &[u8],
    at: i64,
    limit: i64,
    high: Option<&[u8]>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    match high {
        Some(high) => {
            let parameters: [&(dyn ToSql + Sync); 5] = [&tab, &low, &at, &limit, &high];
            connection.query(statement, &parameters).await
        }
        None => {
            let parameters: [&(dyn ToSql + Sync); 4] = [&tab, &low, &at, &limit];
            connection.query(statement, &parameters).await
        }
    }
}

/// Keys as the statements take them.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) tabs: Arc<Vec<i32>>,
    pub(crate) keys: Arc<Vec<Vec<u8>>>,
}

impl Named {
    pub(crate) fn of(keys: &[(TableId, &[u8])], tables: &Tables) -> Result<Self, Error> {
        let tabs = keys.iter().map(|(table, _)| tables.check(*table));
        let keys = keys.iter().map(|(_, key)| key.to_vec());
        Ok(Self {
            tabs: Arc::new(tabs.collect::<Result<_, _>>()?),
            keys: Arc::new(keys.collect()),
        })
    }
}

pub(crate) fn pair(row: &Row, key: usize, value: usize) -> Result<(Bytes, Bytes), Error> {
    Ok((
        Bytes::from(get::<&[u8]>(row, key)?),
        Bytes::from(get::<&[u8]>(row, value)?),
    ))
}

pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Error> {
    row.try_get(column).map_err(|_| garbled())
}

/// The tables of the database are not those that were made.
pub(crate) fn garbled() -> Error {
    let message = "PostgreSQL answers in another form than was asked for, somebody changed the tables \
                   of schema holdfast";
    Error::new(Kind::Corrupt, message)
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("At").field(&self.commit.lsn).finish()
    }
}
