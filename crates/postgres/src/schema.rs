//! The tables of the database, brought forward by numbered files under one lock.

use store::{Error, Kind};
use tokio_postgres::Client;

use crate::fault::{self, Cause, Fault};

/// In their order; the first makes version 1. A file that was released is never changed.
const MIGRATIONS: [&str; 3] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
];

/// The version that this program reads and writes.
pub(crate) const NEWEST: usize = MIGRATIONS.len();

/// Held while migrations are applied. Any number that nobody else uses; this one says "holdfast".
const LOCK: i64 = 0x686f_6c64_6661_7374;

const SETUP: &str = "
    create schema if not exists holdfast;
    create table if not exists holdfast.schema (
        version    int primary key,
        applied_at timestamptz not null default now()
    );";

/// Brings the database to `target`. `Version` when it is beyond [`NEWEST`].
pub(crate) async fn bring_to(client: &mut Client, target: usize) -> Result<(), Error> {
    let attempted = "preparing the tables of the database";
    let failed = |error| fault::of(attempted, &error);
    // Asked first: whoever opens a database that is ready needs no right to change its tables.
    match found(client).await.map_err(failed)? {
        Some(at) if at == target => return Ok(()),
        Some(at) if at > target => return Err(newer(at)),
        _ => {}
    }
    let transaction = client.transaction().await.map_err(failed)?;
    transaction
        .execute("select pg_advisory_xact_lock($1)", &[&LOCK])
        .await
        .map_err(failed)?;
    transaction.batch_execute(SETUP).await.map_err(failed)?;
    let at = version(&transaction).await.map_err(failed)?;
    if at > target {
        return Err(newer(at));
    }
    for (number, sql) in (1i32..).zip(MIGRATIONS).take(target).skip(at) {
        let attempted = format!("applying migration {number} to the database");
        let failed = |error| fault::of(&attempted, &error);
        transaction.batch_execute(sql).await.map_err(failed)?;
        transaction
            .execute(
                "insert into holdfast.schema (version) values ($1)",
                &[&number],
            )
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

async fn found(client: &Client) -> Result<Option<usize>, tokio_postgres::Error> {
    let known = "select to_regclass('holdfast.schema') is not null";
    match client.query_one(known, &[]).await?.get(0) {
        true => version(client).await.map(Some),
        false => Ok(None),
    }
}

async fn version(
    client: &impl tokio_postgres::GenericClient,
) -> Result<usize, tokio_postgres::Error> {
    let newest = "select coalesce(max(version), 0) from holdfast.schema";
    let version: i32 = client.query_one(newest, &[]).await?.get(0);
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

fn newer(at: usize) -> Error {
    let said = format!("its tables have version {at}, this program knows up to {NEWEST}");
    Error::caused(
        Kind::Version,
        "the database was prepared by a later version of Holdfast",
        Fault::new(Cause::Newer, said),
    )
}
