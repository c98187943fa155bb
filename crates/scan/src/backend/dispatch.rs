//! One tick.
//!
//! What is due is looked for in a snapshot, and what is taken is read again in the transaction: hosts
//! that are only passed over cannot make a tick collide with anything.

use store::{Snapshot, Transaction};
use world::Timestamp;

use super::{
    Dispatched, Error, SCHEDULER, Tick,
    embedded::Embedded,
    maintenance::Blocked,
    queue::{Job, Status},
};
use crate::{
    policy::Policy,
    schedule::{Act, Change, Payload, Probe, Row, next_after},
};

pub(super) fn dispatch(
    backend: &Embedded,
    now: Timestamp,
    policy: &Policy,
) -> Result<Dispatched, Error> {
    let _turn = backend.turn();
    let dispatched = backend.transact(|transaction| attempt(backend, transaction, now, policy))?;
    let Tick {
        due,
        dispatched: jobs,
        skipped_maintenance,
        skipped_backoff,
        skipped_unfinished,
        left,
    } = dispatched.counts;
    tracing::debug!(
        event = "schedule.tick",
        due,
        dispatched = jobs,
        skipped_maintenance,
        skipped_backoff,
        skipped_unfinished,
        left,
    );
    Ok(dispatched)
}

fn attempt(
    backend: &Embedded,
    transaction: &mut Transaction,
    now: Timestamp,
    policy: &Policy,
) -> Result<Dispatched, Error> {
    let snapshot = backend.store.snapshot()?;
    let blocked = backend.maintenances.in_force_in(transaction, now)?;
    let mut done = Dispatched::default();
    let counts = &mut done.counts;
    for host in backend.rows.due(&snapshot, now)? {
        let host = host?;
        if counts.dispatched >= u64::from(policy.dispatch_max) {
            counts.due += 1;
            counts.left += 1;
            continue;
        }
        let seen = match backend.rows.seen(&snapshot, &host)? {
            None => continue,
            Some(Ok(row)) => row,
            Some(Err(error)) => {
                tracing::error!(event = "schedule.row.damaged", host, %error);
                counts.due += 1;
                counts.left += 1;
                continue;
            }
        };
        counts.due += 1;
        match verdict(backend, &snapshot, &seen, &blocked, now, policy)? {
            Verdict::Maintenance => counts.skipped_maintenance += 1,
            Verdict::Backoff => counts.skipped_backoff += 1,
            Verdict::Unfinished => counts.skipped_unfinished += 1,
            Verdict::Go => match backend.rows.get_in(transaction, &host)? {
                Some(row) if row == seen => {
                    let id = enqueue(backend, transaction, row, counts.dispatched, now, policy)?;
                    done.jobs.push((host, id));
                    counts.dispatched += 1;
                }
                // Somebody was faster between the snapshot and the transaction; the next tick sees it.
                _ => counts.left += 1,
            },
        }
    }
    backend.counts.ticked_in(transaction, now, done.counts)?;
    Ok(done)
}

enum Verdict {
    Go,
    Maintenance,
    Backoff,
    Unfinished,
}

fn verdict(
    backend: &Embedded,
    snapshot: &Snapshot,
    row: &Row,
    blocked: &Blocked,
    now: Timestamp,
    policy: &Policy,
) -> Result<Verdict, Error> {
    if let Some(job) = &row.job {
        // A job that is gone, does not decode, is finished or of another host will never give its host back: damage, or
        // somebody's hand in the queue. The host is dispatched as if it had none.
        let job = backend.queue.get(snapshot, job)?;
        if job.is_some_and(|job| !job.status.is_finished() && job.payload.host == row.host) {
            return Ok(Verdict::Unfinished);
        }
    }
    if blocked.blocks(row) {
        return Ok(Verdict::Maintenance);
    }
    let until = row.backoff.get(&Probe::Scan).and_then(|it| it.until);
    // One that is further off than the longest was written while the clock was ahead.
    let longest = now.plus(policy.backoff.ceiling).nanos();
    if until.is_some_and(|until| now.nanos() < until && until <= longest) {
        return Ok(Verdict::Backoff);
    }
    Ok(Verdict::Go)
}

fn enqueue(
    backend: &Embedded,
    transaction: &mut Transaction,
    before: Row,
    order: u64,
    now: Timestamp,
    policy: &Policy,
) -> Result<uuid::Uuid, Error> {
    let id = backend.name()?;
    let version = policy.version.to_string();
    let expires = now.plus(policy.job_expiry);
    let payload = Payload::new(id, &before.host, &version, now, expires);
    let job = Job {
        seal: backend.key()?.seal(&payload),
        payload,
        site: before.site.clone(),
        order,
        attempt: 0,
        status: Status::Queued,
    };
    let name = id.to_string();
    backend.queue.put_in(transaction, &name, None, &job)?;
    let mut row = before.clone();
    row.next = next_after(now, row.state, policy, &row.host, &name).nanos();
    row.job = Some(name);
    let act = Act {
        at: now,
        actor: SCHEDULER,
        change: Change::NextAdvanced,
    };
    backend
        .rows
        .write(transaction, Some(&before), Some(&row), act)?;
    Ok(id)
}
