//! Taking in a site that was kept elsewhere, its past included.
//!
//! Rows go in by batches, each one transaction that also notes how far its table is: killed at any point,
//! a move goes on there. Until [`Move::end`] the database refuses to be opened as a site.

use std::{fmt, sync::Arc};

use store::{Commit, Error, Kind, Lineage, Span, Table};
use tokio_postgres::{Client, Row};
use wal::Lsn;

use crate::{
    Address,
    bridge::Running,
    connection::Refused,
    engine::{self, Tables, commit, signed},
    fault::{self, Cause, Fault},
    pool::Pool,
    schema, tls,
};

/// What is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Identity of the journal that it comes from.
    pub id: String,
    pub newest: Commit,
    pub created: world::Timestamp,
}

/// How far a table, or the list of commits, is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The last key that is here; empty: none.
    pub last: Vec<u8>,
    pub is_done: bool,
}

/// A move under way. One process at a time: the other would wait for the lock on the head.
pub struct Move {
    running: Running,
    client: Arc<Client>,
    tables: Tables,
    site: Site,
    is_here: bool,
}

/// The list of commits, among the numbers of tables.
const COMMITS: i32 = 0;

/// Keys of one question while a move is verified: a host has a version for each of its scans.
const PAGE: i64 = 32;

/// Raised by the functions of the database.
const OTHER_SITE: &str = "HF001";

impl Move {
    /// Begins a move, or goes on with one. `Invalid` where the database holds another site.
    pub fn begin(address: Address, tables: Vec<Table>, site: Site) -> Result<Self, Error> {
        let tls = tls::connector(&address.trust)?;
        let shown = address.to_string();
        let running = Running::new(Pool::new(address, tls, engine::ANSWER_MAX))?;
        let pool = Arc::clone(&running.pool);
        let (asked, wanted) = (site.clone(), tables);
        let (client, tables, is_here) = running.block_few(async move {
            let mut client = pool.connect().await.map_err(Refused::error)?.client;
            schema::bring_to(&mut client, schema::NEWEST).await?;
            let failed = |error| fault::of("naming the tables of the database", &error);
            let tables = engine::register(&client, wanted, None)
                .await
                .map_err(failed)?;
            let (version, at) = numbers(asked.newest);
            let created = signed(asked.created.nanos());
            let begun = client
                .query_one(BEGIN, &[&asked.id, &version, &at, &created])
                .await
                .map_err(|error| refused(&shown, &error))?;
            let is_under_way: Option<bool> = begun.get(0);
            Ok((Arc::new(client), tables, is_under_way.is_none()))
        })?;
        Ok(Self {
            running,
            client,
            tables,
            site,
            is_here,
        })
    }

    /// Whether all of it was moved here before.
    pub fn is_here(&self) -> bool {
        self.is_here
    }

    pub fn reached(&self, table: &str) -> Result<Reached, Error> {
        self.reached_of(self.number(table)?)
    }

    pub fn commits_reached(&self) -> Result<Reached, Error> {
        self.reached_of(COMMITS)
    }

    fn reached_of(&self, tab: i32) -> Result<Reached, Error> {
        let client = Arc::clone(&self.client);
        self.running.block_few(async move {
            let row = client.query_opt(REACHED, &[&tab]).await;
            let row = row.map_err(|error| fault::of("asking how far the move is", &error))?;
            Ok(row.map_or_else(Reached::default, |row| Reached {
                last: row.get(0),
                is_done: row.get(1),
            }))
        })
    }

    /// Takes in a batch of `table`, in order of keys; `is_last`: there is nothing behind it.
    pub fn put(&self, table: &str, lineages: &[Lineage], is_last: bool) -> Result<(), Error> {
        let tab = self.number(table)?;
        let mut batch = Batch::default();
        for lineage in lineages {
            batch.add(lineage);
        }
        let last = lineages.last().map(|lineage| lineage.key.to_vec());
        let client = Arc::clone(&self.client);
        self.running.block_few(async move {
            batch
                .store(&client, tab, last, is_last)
                .await
                .map_err(|error| fault::of("moving rows to the database", &error))
        })
    }

    /// Takes in a batch of commits, in their order.
    pub fn put_commits(&self, commits: &[Commit], is_last: bool) -> Result<(), Error> {
        let (versions, times): (Vec<i64>, Vec<i64>) =
            commits.iter().map(|commit| numbers(*commit)).unzip();
        let last = commits
            .last()
            .map(|commit| commit.lsn.get().to_be_bytes().to_vec());
        let client = Arc::clone(&self.client);
        self.running.block_few(async move {
            store_commits(&client, versions, times, last, is_last)
                .await
                .map_err(|error| fault::of("moving commits to the database", &error))
        })
    }

    /// What is here of `table` behind the key `after`, at most a page: the last one is empty.
    pub fn page(&self, table: &str, after: &[u8]) -> Result<Vec<Lineage>, Error> {
        let (tab, after) = (self.number(table)?, after.to_vec());
        let client = Arc::clone(&self.client);
        self.running.block_few(async move {
            let rows = client.query(PAGE_OF, &[&tab, &after, &PAGE]).await;
            let rows = rows.map_err(|error| fault::of("reading what was moved", &error))?;
            Ok(lineages(&rows))
        })
    }

    /// Commits that are here above `after`, at most a page: the last one is empty.
    pub fn commits(&self, after: Lsn) -> Result<Vec<Commit>, Error> {
        let (after, client) = (signed(after.get()), Arc::clone(&self.client));
        self.running.block_few(async move {
            let rows = client.query(COMMITS_OF, &[&after, &PAGE]).await;
            let rows = rows.map_err(|error| fault::of("reading what was moved", &error))?;
            Ok(rows
                .iter()
                .map(|row| commit(row.get(0), row.get(1)))
                .collect())
        })
    }

    /// From here on the database is a site. Only after everything was verified.
    pub fn end(&self) -> Result<(), Error> {
        let (client, site) = (Arc::clone(&self.client), self.site.id.clone());
        self.running.block_few(async move {
            let ended = client.execute(END, &[&site]).await;
            ended
                .map(drop)
                .map_err(|error| fault::of("ending the move", &error))
        })
    }

    fn number(&self, table: &str) -> Result<i32, Error> {
        self.tables.number(table)
    }
}

/// A row for each span that ended, and one for each key.
#[derive(Default)]
struct Batch {
    keys: Vec<Vec<u8>>,
    versions: Vec<i64>,
    values: Vec<Option<Vec<u8>>>,
    past_keys: Vec<Vec<u8>>,
    past_from: Vec<i64>,
    past_until: Vec<i64>,
    past_values: Vec<Vec<u8>>,
}

impl Batch {
    fn add(&mut self, lineage: &Lineage) {
        for span in &lineage.spans {
            let from = signed(span.from.get());
            match span.until {
                None => self.holds(lineage, from, Some(span.value.to_vec())),
                Some(until) => {
                    self.past_keys.push(lineage.key.to_vec());
                    self.past_from.push(from);
                    self.past_until.push(signed(until.get()));
                    self.past_values.push(span.value.to_vec());
                }
            }
        }
        // A key that was deleted stays, and meets whoever reads its past.
        let deleted = lineage.spans.last().and_then(|span| span.until);
        if let Some(until) = deleted {
            self.holds(lineage, signed(until.get()), None);
        }
    }

    fn holds(&mut self, lineage: &Lineage, version: i64, value: Option<Vec<u8>>) {
        self.keys.push(lineage.key.to_vec());
        self.versions.push(version);
        self.values.push(value);
    }

    async fn store(
        self,
        client: &Client,
        tab: i32,
        last: Option<Vec<u8>>,
        is_last: bool,
    ) -> Result<(), tokio_postgres::Error> {
        client.batch_execute("begin").await?;
        client
            .execute(ENTRIES, &[&tab, &self.keys, &self.versions, &self.values])
            .await?;
        client
            .execute(
                PAST,
                &[
                    &tab,
                    &self.past_keys,
                    &self.past_from,
                    &self.past_until,
                    &self.past_values,
                ],
            )
            .await?;
        client.execute(NOTE, &[&tab, &last, &is_last]).await?;
        client.batch_execute("commit").await
    }
}

async fn store_commits(
    client: &Client,
    versions: Vec<i64>,
    times: Vec<i64>,
    last: Option<Vec<u8>>,
    is_last: bool,
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("begin").await?;
    client.execute(PUT_COMMITS, &[&versions, &times]).await?;
    client.execute(NOTE, &[&COMMITS, &last, &is_last]).await?;
    client.batch_execute("commit").await
}

const BEGIN: &str = "select holdfast.move_begin($1, $2, $3, $4)";
const END: &str = "select holdfast.move_end($1)";
const REACHED: &str = "select last, is_done from holdfast.moved where tab = $1";
const ENTRIES: &str = "insert into holdfast.entry (tab, key, version, value)
    select $1, e.* from unnest($2::bytea[], $3::bigint[], $4::bytea[]) e";
const PAST: &str = "insert into holdfast.past (tab, key, version, until, brief, value)
    select $1, p.key, p.version, p.until, false, p.value
    from unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[]) p(key, version, until, value)";
const NOTE: &str = "insert into holdfast.moved (tab, last, is_done)
    values ($1, coalesce($2, ''::bytea), $3)
    on conflict (tab) do update set last = coalesce($2, holdfast.moved.last), is_done = $3";
const PUT_COMMITS: &str = "insert into holdfast.commit (version, at)
    select c.* from unnest($1::bigint[], $2::bigint[]) c";
/// The past of each key and what it holds, oldest first.
const PAGE_OF: &str = "with page as (
        select e.key, e.version, e.value from holdfast.entry e
        where e.tab = $1 and e.key > $2 order by e.key limit $3
    )
    select p.key, p.version, p.until, p.value from holdfast.past p
        join page on page.key = p.key where p.tab = $1
    union all
    select page.key, page.version, null, page.value from page where page.value is not null
    order by 1, 2";
const COMMITS_OF: &str = "select c.version, c.at from holdfast.commit c where c.version > $1 order by c.version limit $2";

fn lineages(rows: &[Row]) -> Vec<Lineage> {
    let mut found: Vec<Lineage> = Vec::new();
    for row in rows {
        let key: &[u8] = row.get(0);
        let span = Span {
            from: position(row.get(1)),
            until: row.get::<_, Option<i64>>(2).map(position),
            value: row.get::<_, &[u8]>(3).into(),
        };
        match found.last_mut().filter(|lineage| *lineage.key == *key) {
            Some(lineage) => lineage.spans.push(span),
            None => found.push(Lineage {
                key: key.into(),
                spans: vec![span],
            }),
        }
    }
    found
}

fn position(version: i64) -> Lsn {
    commit(version, 0).lsn
}

fn numbers(commit: Commit) -> (i64, i64) {
    (signed(commit.lsn.get()), signed(commit.time.nanos()))
}

fn refused(address: &str, error: &tokio_postgres::Error) -> Error {
    if error.code().is_some_and(|code| code.code() == OTHER_SITE) {
        let attempted = format!("moving a site to {address}");
        let fault = Fault::new(Cause::Foreign, "the database holds another site");
        return Error::caused(Kind::Invalid, attempted, fault);
    }
    fault::of(&format!("moving a site to {address}"), error)
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Move")
            .field("site", &self.site)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}
