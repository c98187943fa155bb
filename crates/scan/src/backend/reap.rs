//! What dead workers left behind, and what is kept for too long.

use std::time::Duration;

use serde_json::json;
use world::Timestamp;

use super::{Error, Reaped, SCHEDULER, embedded::Embedded, finish, queue::Status};
use crate::{audit::Record, failure::Reason, policy::Policy};

/// Leases and finished jobs that one call looks at; the rest is for the next. Arbitrary, a transaction
/// of a few milliseconds.
const LOOK_MAX: usize = 1_000;

/// How long a finished job stays: for whoever looks why a host was scanned or not, and so that a copy
/// of it is known for what it is. Longer than a job may wait in the queue.
const FINISHED_KEPT: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Workers that may die with a job before it is given up: one may be unlucky, three were killed by it.
const ATTEMPTS_MAX: u32 = 3;

/// `dead`: a node none of whose workers lives; their leases end now.
pub(super) fn reap(
    backend: &Embedded,
    dead: Option<&str>,
    now: Timestamp,
    policy: &Policy,
) -> Result<Reaped, Error> {
    let until_max = dead.map_or(now, |_| Timestamp::from_nanos(u64::MAX));
    let _turn = backend.turn();
    let (reaped, records) = backend.transact(|transaction| {
        let mut reaped = Reaped::default();
        let mut records = Vec::new();
        let queue = backend.queue;
        for (key, id) in queue.ended_leases_in(transaction, until_max, LOOK_MAX)? {
            let found = match id.is_empty() {
                true => None,
                false => queue.get_in(transaction, &id)?,
            };
            let ended = found.and_then(|job| match job.status.clone() {
                Status::Running { worker, until, .. }
                    if until <= now.nanos() || dead.is_some_and(|node| is_of(&worker, node)) =>
                {
                    Some((job, worker, until))
                }
                _ => None,
            });
            let Some((mut job, worker, until)) = ended else {
                // Of leases that have not ended some are of workers that live.
                if dead.is_none() {
                    queue.forget_lease(transaction, &key)?;
                }
                continue;
            };
            let host = job.payload.host.clone();
            let is_given_up = job.attempt >= ATTEMPTS_MAX;
            let detail = json!({
                "job": id,
                "worker": worker,
                "lease_ended": until,
                "attempt": job.attempt,
                "given_up": is_given_up,
            });
            let record = Record::new(now, SCHEDULER, "job.lease_ended", &host, detail);
            backend.audit.append(transaction, &record)?;
            records.push(record);
            if is_given_up {
                let reason = Reason::Internal;
                finish::failed_in(
                    backend,
                    transaction,
                    &id,
                    job,
                    reason,
                    now,
                    policy,
                    SCHEDULER,
                )?;
                reaped.given_up.push(host);
            } else {
                let before = std::mem::replace(&mut job.status, Status::Queued);
                queue.put_in(transaction, &id, Some(&before), &job)?;
                reaped.requeued.push(host);
            }
        }
        if !records.is_empty() {
            backend
                .counts
                .reaped_in(transaction, records.len() as u64)?;
        }
        queue.sweep_in(transaction, now.minus(FINISHED_KEPT), LOOK_MAX)?;
        Ok((reaped, records))
    })?;
    for record in &records {
        record.tell();
    }
    Ok(reaped)
}

/// Workers are named `NODE/PROCESS`.
fn is_of(worker: &str, node: &str) -> bool {
    worker
        .strip_prefix(node)
        .is_some_and(|rest| rest.starts_with('/'))
}
