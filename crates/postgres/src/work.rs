//! A transaction under way.
//!
//! It reads like a snapshot, at the position at which it began, and remembers what; whether that still
//! holds is asked once, when it commits. It could be told as soon as it meets a newer row, but then it
//! would not see one state of the database, which even a transaction that only reads is promised.
//!
//! It has no session of its own until its first claim: then it takes one and keeps it to its end, with
//! the locks on the rows that it claimed.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use store::{Bytes, Commit, Error, Keys, Kind, Order, Outcome, Reader, Rows, TableId, Work, Write};
use world::Timestamp;

use crate::{
    bounds::Bounds,
    bridge::Running,
    commit::{Finish, Reads},
    connection::{Connection, Refused},
    engine::{self, Shared},
    fault,
    pool::{Lease, Patience, Pool},
    reader::{self, At},
    statement::Statement,
};

/// Keys and ranges that one transaction may read: they are sent once more when it commits. Arbitrary.
const POINTS_MAX: usize = 1 << 17;
const RANGES_MAX: usize = 1 << 12;

/// How long giving up a transaction with claims may take. Where it takes longer the session is closed.
const ROLLBACK_MAX: Duration = Duration::from_secs(2);

pub(crate) struct UnderWay {
    shared: Arc<Shared>,
    at: At,
    points: HashSet<(i32, Vec<u8>)>,
    ranges: Vec<(i32, Bounds)>,
    /// Since the first claim.
    session: Option<Lease>,
}

impl UnderWay {
    pub(crate) fn new(shared: Arc<Shared>, seen: Commit) -> Self {
        let at = At::new(
            Arc::clone(&shared.running),
            Arc::clone(&shared.tables),
            seen,
        );
        Self {
            shared,
            at,
            points: HashSet::new(),
            ranges: Vec::new(),
            session: None,
        }
    }

    fn running(&self) -> &Arc<Running> {
        &self.shared.running
    }

    fn seen(&self) -> i64 {
        engine::signed(self.at.commit().lsn.get())
    }

    fn read_point(&mut self, tab: i32, key: &[u8]) -> Result<(), Error> {
        if self.points.len() >= POINTS_MAX {
            let message = format!("transaction reads more than {POINTS_MAX} keys");
            return Err(Error::new(Kind::Invalid, message));
        }
        self.points.insert((tab, key.to_vec()));
        Ok(())
    }

    fn read_range(&mut self, tab: i32, keys: &Keys) -> Result<(), Error> {
        if self.ranges.len() >= RANGES_MAX {
            let message = format!("transaction reads more than {RANGES_MAX} ranges");
            return Err(Error::new(Kind::Invalid, message));
        }
        self.ranges.push((tab, Bounds::of(keys)));
        Ok(())
    }

    /// The session of the claims, begun when there was none.
    fn session(&mut self) -> Result<Arc<Connection>, Error> {
        if self.session.is_none() {
            let pool = Arc::clone(&self.running().pool);
            let session = self.running().block(begun(pool))?;
            self.at.session = Some(Arc::clone(&session.connection));
            self.session = Some(session);
        }
        let session = self.session.as_ref().expect("just taken");
        Ok(Arc::clone(&session.connection))
    }
}

async fn begun(pool: Arc<Pool>) -> Result<Lease, Error> {
    // An idle session may turn out to be lost only here; the next attempt opens another.
    let mut patience = Patience::default();
    loop {
        let lease = pool.lease(true).await?;
        let Err(error) = lease.connection.batch("begin").await else {
            return Ok(lease);
        };
        let refused = fault::of("beginning a transaction in PostgreSQL", &error);
        let refused = match fault::is_passing(&error) {
            true => Refused::Passing(refused),
            false => Refused::Final(refused),
        };
        patience.after(refused).await?;
    }
}

impl Work for UnderWay {
    fn commit_seen(&self) -> Commit {
        self.at.commit()
    }

    fn get_many(&mut self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // Recorded first: the answer is only worth something if the commit vouches for it.
        for (table, key) in keys {
            let tab = self.shared.tables.check(*table)?;
            self.read_point(tab, key)?;
        }
        self.at.get_many(keys)
    }

    fn page(
        &mut self,
        table: TableId,
        keys: &Keys,
        order: Order,
        limit: usize,
    ) -> Result<Rows, Error> {
        let tab = self.shared.tables.check(table)?;
        let found = self.at.page(table, keys, order, limit)?;
        let read = match found.last() {
            Some((last, _)) if found.len() == limit => keys.clone().read_up_to(last, order),
            _ => keys.clone(),
        };
        if limit > 0 && !read.is_empty() {
            self.read_range(tab, &read)?;
        }
        Ok(found)
    }

    fn claim(&mut self, table: TableId, keys: &Keys, limit: usize) -> Result<Rows, Error> {
        let tab = self.shared.tables.check(table)?;
        if keys.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        self.running().pool.open()?;
        let connection = self.session()?;
        let Bounds { low, high } = Bounds::of(keys);
        let statement = match high.is_some() {
            true => Statement::Claim,
            false => Statement::ClaimEndless,
        };
        let (at, limit) = (self.seen(), i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = self.running().block(async move {
            reader::page(
                &connection,
                statement,
                tab,
                &low,
                at,
                limit,
                high.as_deref(),
            )
            .await
            .map_err(|error| fault::of_claims("claiming rows in PostgreSQL", &error))
        })?;
        let found: Rows = rows
            .iter()
            .map(|row| reader::pair(row, 0, 1))
            .collect::<Result<_, _>>()?;
        // Locked, nobody else can change them; read, they are checked once more all the same.
        for (key, _) in &found {
            self.read_point(tab, key)?;
        }
        Ok(found)
    }

    fn finish(
        mut self: Box<Self>,
        writes: Vec<Write>,
        date: Option<Timestamp>,
        once: Option<&[u8]>,
    ) -> Result<Outcome, Error> {
        self.running().pool.open()?;
        let tabs = writes
            .iter()
            .map(|write| self.shared.tables.check(write.table));
        let finish = Finish {
            id: self.shared.name()?,
            seen: self.seen(),
            now: self.shared.now(),
            date: date.map(|date| engine::signed(date.nanos())),
            once: once.map(<[u8]>::to_vec),
            reads: Reads::of(
                std::mem::take(&mut self.points),
                std::mem::take(&mut self.ranges),
            ),
            tabs: tabs.collect::<Result<_, _>>()?,
            writes,
        };
        let pool = Arc::clone(&self.running().pool);
        let session = self.session.take();
        self.running()
            .block_or(Kind::InDoubt, finish.run(pool, session))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        // Waited for: whoever claims next finds the rows free.
        let ended = self.running().block(async move {
            let rollback = session.connection.batch("rollback");
            if let Ok(Ok(())) = tokio::time::timeout(ROLLBACK_MAX, rollback).await {
                session.give_back();
            }
            Ok(())
        });
        if let Err(error) = ended {
            tracing::debug!(event = "postgres.rollback.failed", %error);
        }
    }
}

impl fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnderWay")
            .field("seen", &self.seen())
            .field("claims", &self.session.is_some())
            .finish_non_exhaustive()
    }
}
