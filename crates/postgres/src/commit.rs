//! The end of a transaction: one round trip, and what is done when its answer is lost.
//!
//! Order, and what a loss in between leaves:
//! 1. the commit is sent under a name that nobody else has: nothing, or all of it;
//! 2. no answer: another session asks for that name under the lock under which commits are made, so
//!    that one which is still under way is waited for;
//! 3. the name is there: the commit stands and is acknowledged. It is not: the name is barred in the same
//!    breath, so that the commit cannot come true later, and the caller may begin again;
//! 4. no session within [`RESOLVE_PAUSES_MS`], or no answer: the caller is told that it is in doubt.
//!
//! No answer in time is a lost one: a server that was stopped in mid-air may still do all of it later.

use std::{collections::HashSet, sync::Arc, time::Duration};

use store::{Commit, Error, Kind, Outcome, Write};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    bounds::Bounds,
    connection::Connection,
    engine, fault,
    pool::{Lease, Pool},
    reader::get,
    statement::Statement,
};

/// Pauses before another attempt to learn what became of a commit, in milliseconds: half a minute
/// beside what the pool itself waits, in which a server recovers from a crash.
const RESOLVE_PAUSES_MS: [u64; 4] = [100, 1_000, 5_000, 5_000];

/// Times an answer may take that all of it may take together. Arbitrary.
const RESOLVE_ANSWERS_MAX: u32 = 2;

/// What a transaction read, as the statement takes it.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    tabs: Vec<i32>,
    keys: Vec<Vec<u8>>,
    range_tabs: Vec<i32>,
    lows: Vec<Vec<u8>>,
    highs: Vec<Option<Vec<u8>>>,
}

impl Reads {
    pub(crate) fn of(points: HashSet<(i32, Vec<u8>)>, ranges: Vec<(i32, Bounds)>) -> Self {
        let mut reads = Self::default();
        for (tab, key) in points {
            reads.tabs.push(tab);
            reads.keys.push(key);
        }
        for (tab, bounds) in ranges {
            reads.range_tabs.push(tab);
            reads.lows.push(bounds.low);
            reads.highs.push(bounds.high);
        }
        reads
    }
}

/// A transaction that wants to commit.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) id: Uuid,
    pub(crate) seen: i64,
    pub(crate) now: Option<i64>,
    pub(crate) date: Option<i64>,
    pub(crate) once: Option<Vec<u8>>,
    pub(crate) reads: Reads,
    pub(crate) tabs: Vec<i32>,
    pub(crate) writes: Vec<Write>,
}

/// An answer, or none.
enum Sent {
    Answered(Result<Outcome, Error>),
    Lost,
}

impl Finish {
    pub(crate) async fn run(
        self,
        pool: Arc<Pool>,
        session: Option<Lease>,
    ) -> Result<Outcome, Error> {
        let claimed = session.is_some();
        let lease = match session {
            Some(lease) => lease,
            None => pool.lease(false).await?,
        };
        let sent = self.send(&lease.connection, claimed).await;
        match sent {
            Sent::Answered(answer) => {
                lease.give_back();
                answer
            }
            Sent::Lost => {
                drop(lease);
                tracing::warn!(event = "postgres.commit.unanswered", id = %self.id);
                self.resolve(&pool).await
            }
        }
    }

    /// With claims the transaction is open already; its end travels together with the statement.
    async fn send(&self, connection: &Connection, claimed: bool) -> Sent {
        let keys: Vec<&[u8]> = self
            .writes
            .iter()
            .map(|write| write.key.as_slice())
            .collect();
        let values: Vec<Option<&[u8]>> = self
            .writes
            .iter()
            .map(|write| write.value.as_deref())
            .collect();
        let Reads {
            tabs,
            keys: points,
            range_tabs,
            lows,
            highs,
        } = &self.reads;
        let parameters: [&(dyn ToSql + Sync); 13] = [
            &self.id, &self.seen, &self.now, &self.date, &self.once, tabs, points, range_tabs,
            lows, highs, &self.tabs, &keys, &values,
        ];
        let answer = match claimed {
            false => connection.query(Statement::Commit, &parameters).await,
            true => end_with(connection, &parameters).await,
        };
        match answer {
            Ok(rows) => Sent::Answered(outcome(&rows)),
            Err(error) if fault::is_lost(&error) => Sent::Lost,
            Err(error) => Sent::Answered(Err(fault::of("committing to PostgreSQL", &error))),
        }
    }

    async fn resolve(&self, pool: &Arc<Pool>) -> Result<Outcome, Error> {
        let mut last = pool.gone(Kind::Io);
        let time_max = pool.answer_max() * RESOLVE_ANSWERS_MAX;
        let resolved = timeout(time_max, self.resolved(pool, &mut last)).await;
        if let Ok(Some(outcome)) = resolved {
            return outcome;
        }
        let message = format!(
            "the connection to PostgreSQL was lost during commit {}, and what became of it could not \
             be asked",
            self.id
        );
        Err(Error::caused(Kind::InDoubt, message, last))
    }

    /// `None` and why, when it could not be learned.
    async fn resolved(&self, pool: &Arc<Pool>, last: &mut Error) -> Option<Result<Outcome, Error>> {
        let mut pauses = RESOLVE_PAUSES_MS.into_iter();
        loop {
            match self.ask_for_outcome(pool).await {
                Ok(outcome) => return Some(outcome),
                Err(error) => *last = error,
            }
            sleep(Duration::from_millis(pauses.next()?)).await;
        }
    }

    async fn ask_for_outcome(&self, pool: &Arc<Pool>) -> Result<Result<Outcome, Error>, Error> {
        let (id, now) = (self.id, self.now);
        let asked = pool.ask("asking what became of a commit", move |connection| {
            Box::pin(async move { connection.query(Statement::Resolve, &[&id, &now]).await })
        });
        let rows = asked.await?;
        let row = rows.first().ok_or_else(crate::reader::garbled)?;
        let version: Option<i64> = get(row, 0)?;
        let at: Option<i64> = get(row, 1)?;
        Ok(match (version, at) {
            (Some(version), Some(at)) => Ok(Outcome::Committed(engine::commit(version, at))),
            _ => {
                let message = "the connection to PostgreSQL was lost before the commit, nothing was \
                               written";
                Err(Error::new(Kind::Conflict, message))
            }
        })
    }
}

/// The statement and the end of the transaction that it is in, sent together: the lock on the head is
/// not held for a round trip more. After an error the end undoes.
async fn end_with(
    connection: &Connection,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    // Or else the end would be sent while the statement is still prepared.
    connection.prepare(Statement::Commit).await?;
    let (rows, ended) = tokio::join!(
        biased;
        connection.query(Statement::Commit, parameters),
        connection.batch("commit"),
    );
    match (rows, ended) {
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(rows), Ok(())) => Ok(rows),
    }
}

fn outcome(rows: &[Row]) -> Result<Outcome, Error> {
    let row = rows.first().ok_or_else(crate::reader::garbled)?;
    let commit: Commit = engine::commit(get(row, 0)?, get(row, 1)?);
    Ok(match get(row, 2)? {
        true => Outcome::Replayed(commit),
        false => Outcome::Committed(commit),
    })
}
