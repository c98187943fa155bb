//! The jobs in a store: one row each, and what finds them.
//!
//! ```text
//! queued ──claim──▶ running ──complete──▶ done
//!   ▲  │               │ └────fail──────▶ failed
//!   │  └─refused─▶ failed
//!   └──give back, lease ended
//! ```

use serde::{Deserialize, Serialize};
use store::{Bytes, History, Keys, Order, Snapshot, Store, Table, TableId, Transaction};
use uuid::Uuid;
use world::Timestamp;

use super::{Error, JobView, Kind};
use crate::schedule::Payload;

const JOBS: &str = "queue.job";
const WAITING: &str = "queue.waiting";
const LEASES: &str = "queue.lease";
const FINISHED: &str = "queue.finished";
const NONCES: &str = "queue.nonce";
const SITES: &str = "queue.site";
const TURN: &str = "queue.turn";

/// The only key of the table of whose turn it is.
const TURN_KEY: &[u8] = b"site";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) payload: Payload,
    pub(super) seal: String,
    pub(super) site: String,
    /// Its place among the jobs of its tick: those that were due longest are claimed first.
    pub(super) order: u64,
    /// How often it was claimed.
    pub(super) attempt: u32,
    pub(super) status: Status,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Queued,
    Running {
        worker: String,
        /// Made at the claim; whoever knows it has the lease.
        scan: String,
        until: u64,
    },
    Done {
        scan: String,
        at: u64,
    },
    Failed {
        /// None: it was refused and never ran.
        scan: Option<String>,
        reason: String,
        at: u64,
    },
}

impl Status {
    pub(super) fn is_finished(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }
}

/// The queue's tables in an open store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    jobs: TableId,
    /// Site, a zero byte, time of enqueue, place in the tick, job: to the host.
    waiting: TableId,
    /// End of the lease, job: no value.
    leases: TableId,
    /// End of the job, job: no value.
    finished: TableId,
    /// Nonces of finished jobs: no value.
    nonces: TableId,
    /// Sites with jobs that wait: to how many, and the first key that one of them may have.
    sites: TableId,
    turn: TableId,
}

/// Where a site's queue begins. Without it a claim would walk over what was claimed before: keys that
/// were deleted are passed one by one until the store has merged them away.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    waiting: u64,
    head: Vec<u8>,
}

impl Queue {
    pub(super) fn tables() -> Vec<Table> {
        [JOBS, WAITING, LEASES, FINISHED, NONCES, SITES, TURN]
            .map(|name| Table::new(name, History::Latest))
            .to_vec()
    }

    pub(super) fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            jobs: store.table(JOBS)?,
            waiting: store.table(WAITING)?,
            leases: store.table(LEASES)?,
            finished: store.table(FINISHED)?,
            nonces: store.table(NONCES)?,
            sites: store.table(SITES)?,
            turn: store.table(TURN)?,
        })
    }

    /// A row that is no job is none: nobody can run it, and the others must not wait for it.
    pub(super) fn get_in(
        &self,
        transaction: &mut Transaction,
        id: &str,
    ) -> Result<Option<Job>, Error> {
        let found = transaction.get(self.jobs, id.as_bytes())?;
        Ok(found.and_then(|value| decode(&value)))
    }

    /// As [`Queue::get_in`].
    pub(super) fn get(&self, snapshot: &Snapshot, id: &str) -> Result<Option<Job>, Error> {
        let found = snapshot.get(self.jobs, id.as_bytes())?;
        Ok(found.and_then(|value| decode(&value)))
    }

    /// Takes away a row that is no job. `false` when there is no such row.
    pub(super) fn discard_in(
        &self,
        transaction: &mut Transaction,
        id: &str,
    ) -> Result<bool, Error> {
        let found = transaction.get(self.jobs, id.as_bytes())?;
        let is_damaged = found.is_some_and(|value| decode(&value).is_none());
        if is_damaged {
            transaction.delete(self.jobs, id.as_bytes())?;
        }
        Ok(is_damaged)
    }

    /// Writes a job that moves from `before` to what it is, and what finds it in either state. One that
    /// waits leaves the queue by [`Queue::forget_waiting`] alone.
    pub(super) fn put_in(
        &self,
        transaction: &mut Transaction,
        id: &str,
        before: Option<&Status>,
        job: &Job,
    ) -> Result<(), Error> {
        if let Some(Status::Running { until, .. }) = before {
            transaction.delete(self.leases, &timed_key(*until, id))?;
        }
        match &job.status {
            Status::Queued => {
                let host = job.payload.host.as_bytes();
                self.join_in(transaction, &waiting_key(id, job), host)?;
            }
            Status::Running { until, .. } => {
                transaction.put(self.leases, &timed_key(*until, id), &[])?;
            }
            Status::Done { at, .. } | Status::Failed { at, .. } => {
                transaction.put(self.finished, &timed_key(*at, id), &[])?;
                // By the job's own name and not by what it says: what it says may be forged.
                transaction.put(self.nonces, id.as_bytes(), &[])?;
            }
        }
        let value = serde_json::to_vec(job).expect("a plain struct with string keys");
        Ok(transaction.put(self.jobs, id.as_bytes(), &value)?)
    }

    pub(super) fn nonce_used_in(
        &self,
        transaction: &mut Transaction,
        nonce: &str,
    ) -> Result<bool, Error> {
        if nonce.is_empty() {
            return Ok(true);
        }
        Ok(transaction.get(self.nonces, nonce.as_bytes())?.is_some())
    }

    pub(super) fn turn_in(&self, transaction: &mut Transaction) -> Result<Vec<u8>, Error> {
        let found = transaction.get(self.turn, TURN_KEY)?;
        Ok(found.map_or_else(Vec::new, |site| site.to_vec()))
    }

    pub(super) fn put_turn(&self, transaction: &mut Transaction, site: &[u8]) -> Result<(), Error> {
        Ok(transaction.put(self.turn, TURN_KEY, site)?)
    }

    fn join_in(&self, transaction: &mut Transaction, key: &[u8], host: &[u8]) -> Result<(), Error> {
        if transaction.get(self.waiting, key)?.is_some() {
            return Ok(());
        }
        transaction.put(self.waiting, key, host)?;
        let site = site_of(key);
        let line = match self.line_in(transaction, site)? {
            Some(line) => Line {
                waiting: line.waiting + 1,
                head: line.head.min(key.to_vec()),
            },
            None => Line {
                waiting: 1,
                head: key.to_vec(),
            },
        };
        self.put_line(transaction, site, &line)
    }

    /// `key` is the first of its site that no other worker holds: nobody is served before those who have
    /// waited longer.
    fn leave_in(&self, transaction: &mut Transaction, key: &[u8]) -> Result<(), Error> {
        if transaction.get(self.waiting, key)?.is_none() {
            return Ok(());
        }
        transaction.delete(self.waiting, key)?;
        let site = site_of(key);
        let Some(mut line) = self.line_in(transaction, site)? else {
            return Ok(());
        };
        line.waiting = line.waiting.saturating_sub(1);
        if line.waiting == 0 {
            return Ok(transaction.delete(self.sites, site)?);
        }
        // Not past one that another worker holds: it may give it up.
        let before = Keys::between(&line.head, key);
        let earlier = transaction.range(self.waiting, &before, Order::Ascending, 1)?;
        if earlier.is_empty() && line.head.as_slice() <= key {
            // The first key that can follow.
            line.head = [key, &[0]].concat();
        }
        self.put_line(transaction, site, &line)
    }

    fn line_in(&self, transaction: &mut Transaction, site: &[u8]) -> Result<Option<Line>, Error> {
        let found = transaction.get(self.sites, site)?;
        found.map(|value| decode_line(&value)).transpose()
    }

    fn put_line(
        &self,
        transaction: &mut Transaction,
        site: &[u8],
        line: &Line,
    ) -> Result<(), Error> {
        let value = serde_json::to_vec(line).expect("a number and bytes");
        Ok(transaction.put(self.sites, site, &value)?)
    }

    /// The job that has waited longest in the site whose turn comes after that of `site`.
    pub(super) fn next_waiting_in(
        &self,
        transaction: &mut Transaction,
        site: &[u8],
    ) -> Result<Option<Waiting>, Error> {
        let order = Order::Ascending;
        let mut after = transaction.range(self.sites, &Keys::after(site), order, 1)?;
        if after.is_empty() {
            after = transaction.range(self.sites, &Keys::all(), order, 1)?;
        }
        let Some((site, line)) = after.first() else {
            return Ok(None);
        };
        let head = decode_line(line)?.head;
        let keys = Keys::between(&head, &[site, &[1][..]].concat());
        let found = transaction.claim(self.waiting, &keys, 1)?;
        if found.is_empty() && !transaction.range(self.waiting, &keys, order, 1)?.is_empty() {
            // Others hold all that waits, for as long as a commit takes.
            return Ok(None);
        }
        Ok(Some(match found.first() {
            Some((key, host)) => {
                Waiting::read(key, host).unwrap_or_else(|| Waiting::nowhere(key, site))
            }
            None => {
                transaction.delete(self.sites, site)?;
                Waiting::nowhere(&head, site)
            }
        }))
    }

    /// Takes an entry away that leads to no job that waits.
    pub(super) fn forget_waiting(
        &self,
        transaction: &mut Transaction,
        waiting: &Waiting,
    ) -> Result<(), Error> {
        self.leave_in(transaction, &waiting.key)
    }

    /// Jobs whose lease ended by `now`, at most `limit`, the longest ended first.
    pub(super) fn ended_leases_in(
        &self,
        transaction: &mut Transaction,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Bytes, String)>, Error> {
        let keys = Keys::between(&[], &past(now));
        let found = transaction.range(self.leases, &keys, Order::Ascending, limit)?;
        Ok(found
            .into_iter()
            .map(|(key, _)| {
                let id = timed_id(&key);
                (key, id)
            })
            .collect())
    }

    /// Takes an entry away that leads to no job with this lease.
    pub(super) fn forget_lease(
        &self,
        transaction: &mut Transaction,
        key: &Bytes,
    ) -> Result<(), Error> {
        Ok(transaction.delete(self.leases, key)?)
    }

    /// Removes at most `limit` jobs that finished before `before`, and their nonces with them: a job
    /// expires sooner than that, so a copy of one is still refused. Tells how many.
    pub(super) fn sweep_in(
        &self,
        transaction: &mut Transaction,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, Error> {
        let keys = Keys::between(&[], &before.nanos().to_be_bytes());
        let found = transaction.range(self.finished, &keys, Order::Ascending, limit)?;
        for (key, _) in &found {
            let id = timed_id(key);
            transaction.delete(self.finished, key)?;
            transaction.delete(self.jobs, id.as_bytes())?;
            transaction.delete(self.nonces, id.as_bytes())?;
        }
        Ok(found.len())
    }

    pub(super) fn unfinished(
        &self,
        snapshot: &Snapshot,
        limit: usize,
    ) -> Result<Vec<JobView>, Error> {
        let mut views = Vec::new();
        let leases = snapshot.range(self.leases, &Keys::all())?;
        let waiting = snapshot.range(self.waiting, &Keys::all())?;
        let running = leases.map(|item| Ok(timed_id(&item?.0)));
        let queued = waiting.map(|item| Ok(waiting_id(&item?.0)));
        for id in running.chain(queued).take(limit) {
            let id: String = id.map_err(|error: store::Error| Error::from(error))?;
            if let Some(job) = self.get(snapshot, &id)? {
                views.push(view(id, job));
            }
        }
        Ok(views)
    }
}

fn view(id: String, job: Job) -> JobView {
    JobView {
        job: id,
        host: job.payload.host,
        site: job.site,
        policy_version: job.payload.policy_version,
        enqueued: job.payload.enqueued,
        worker: match job.status {
            Status::Running { worker, until, .. } => Some((worker, until)),
            _ => None,
        },
        attempt: job.attempt,
    }
}

/// An entry of the index of what waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    key: Vec<u8>,
    pub(super) site: Vec<u8>,
    pub(super) id: String,
    pub(super) host: String,
}

impl Waiting {
    fn read(key: &[u8], host: &[u8]) -> Option<Self> {
        let site_len = key.iter().position(|byte| *byte == 0)?;
        Some(Self {
            key: key.to_vec(),
            site: key[..site_len].to_vec(),
            id: String::from_utf8(key.get(site_len + 17..)?.to_vec()).ok()?,
            host: String::from_utf8(host.to_vec()).ok()?,
        })
    }

    /// One that nobody here wrote; it leads to no job.
    fn nowhere(key: &[u8], site: &[u8]) -> Self {
        Self {
            key: key.to_vec(),
            site: site.to_vec(),
            id: String::new(),
            host: String::new(),
        }
    }
}

fn site_of(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decode_line(value: &[u8]) -> Result<Line, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::new(Kind::Storage, "a line of the queue does not decode").with_source(error)
    })
}

fn waiting_key(id: &str, job: &Job) -> Vec<u8> {
    // A site that no host can have was written by somebody else; its job still has to be found.
    let is_site = !job.site.is_empty() && !job.site.contains('\0');
    let site = if is_site { job.site.as_str() } else { "?" };
    let mut key = site.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&job.payload.enqueued.to_be_bytes());
    key.extend_from_slice(&job.order.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

fn waiting_id(key: &Bytes) -> String {
    Waiting::read(key, b"").map_or_else(String::new, |waiting| waiting.id)
}

fn timed_key(at: u64, id: &str) -> Vec<u8> {
    let mut key = at.to_be_bytes().to_vec();
    key.extend_from_slice(id.as_bytes());
    key
}

fn timed_id(key: &Bytes) -> String {
    String::from_utf8_lossy(key.get(8..).unwrap_or_default()).into_owned()
}

/// The first key of what is later than `now`.
fn past(now: Timestamp) -> [u8; 8] {
    now.nanos().saturating_add(1).to_be_bytes()
}

fn decode(value: &[u8]) -> Option<Job> {
    serde_json::from_slice(value).ok()
}

/// A name of a scan or a job as it was given out.
pub(super) fn uuid(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|error| {
        Error::new(Kind::Storage, "a name in the queue is none").with_source(error)
    })
}
