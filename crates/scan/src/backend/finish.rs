//! The end of a job: results, or the reason why there are none.

use std::collections::btree_map::Entry;

use store::Transaction;
use world::Timestamp;

use super::{
    Applied, Claimed, Error, Kind, claim,
    embedded::Embedded,
    queue::{Job, Status},
};
use crate::{
    failure::{Failure, Reason},
    ledger::{self, Ledger, Scan, Sink},
    policy::Policy,
    schedule::{Act, Change, Probe, backoff, next_after, state_after},
};

pub(super) fn complete(
    backend: &Embedded,
    claimed: &Claimed,
    scan: &Scan,
    now: Timestamp,
    policy: &Policy,
    sink: &dyn Sink,
) -> Result<Applied, Error> {
    if scan.id != claimed.scan || scan.host != claimed.host {
        let message = format!(
            "the scan is not the one that host `{}` was claimed for",
            claimed.host
        );
        return Err(Error::new(Kind::Invalid, message));
    }
    let outcome = Ledger::check_scan(scan)
        .map_err(Error::from)
        .and_then(|()| {
            backend.transact_dated(Some(scan.finished), |transaction| {
                attempt(backend, transaction, claimed, scan, now, policy)
            })
        });
    if let Err(error) = &outcome {
        // A scan that came too late was not tried, and is told nothing.
        if let Some(error) = error.of_ledger() {
            sink.failed(scan, error);
        } else if error.kind() != Kind::LeaseLost {
            let told = ledger::Error::new(class(error.kind()), error.to_string());
            sink.failed(scan, &told);
        }
    }
    outcome
}

fn class(kind: Kind) -> ledger::Class {
    match kind {
        Kind::Conflict => ledger::Class::Conflict,
        Kind::Storage => ledger::Class::Storage,
        Kind::LeaseLost | Kind::Refused | Kind::Invalid => ledger::Class::Unknown,
    }
}

fn attempt(
    backend: &Embedded,
    transaction: &mut Transaction,
    claimed: &Claimed,
    scan: &Scan,
    now: Timestamp,
    policy: &Policy,
) -> Result<Applied, Error> {
    let id = claimed.job.to_string();
    let found = backend.queue.get_in(transaction, &id)?;
    let is_done = found.is_some_and(|job| match &job.status {
        Status::Done { scan, .. } => claim::is(scan, claimed.scan),
        _ => false,
    });
    if is_done {
        // The ledger has the scan and says so; it writes nothing.
        return Ok(backend.ledger.apply_in(transaction, scan)?);
    }
    let mut job = claim::held_in(backend, transaction, claimed, now)?;
    let applied = backend.ledger.apply_in(transaction, scan)?;
    let done = Status::Done {
        scan: scan.id.to_string(),
        at: now.nanos(),
    };
    let before = std::mem::replace(&mut job.status, done);
    backend
        .queue
        .put_in(transaction, &id, Some(&before), &job)?;

    let before = backend.rows.get_in(transaction, &claimed.host)?;
    if let Some(before) = before.filter(|row| row.job.as_ref() == Some(&id)) {
        let mut row = before.clone();
        row.state = state_after(&scan.summary, &scan.findings, &policy.bands);
        row.score = scan.summary.score;
        row.last_finished = Some(scan.finished.nanos());
        row.last_scan = Some(scan.id.to_string());
        row.policy_version = Some(job.payload.policy_version);
        row.job = None;
        row.backoff.remove(&Probe::Scan);
        let seed = scan.id.to_string();
        row.next = next_after(scan.finished, row.state, policy, &row.host, &seed).nanos();
        let actor = format!("worker {}", claimed.worker);
        let act = Act {
            at: now,
            actor: &actor,
            change: Change::PostScanUpdate,
        };
        backend
            .rows
            .write(transaction, Some(&before), Some(&row), act)?;
    }
    Ok(applied)
}

pub(super) fn fail(
    backend: &Embedded,
    claimed: &Claimed,
    failure: &Failure,
    now: Timestamp,
    policy: &Policy,
) -> Result<(), Error> {
    let id = claimed.job.to_string();
    backend.transact(|transaction| {
        let found = backend.queue.get_in(transaction, &id)?;
        let is_failed = found.is_some_and(|job| match &job.status {
            Status::Failed { scan, .. } => scan
                .as_deref()
                .is_some_and(|scan| claim::is(scan, claimed.scan)),
            _ => false,
        });
        if is_failed {
            return Ok(());
        }
        let job = claim::held_in(backend, transaction, claimed, now)?;
        let actor = format!("worker {}", claimed.worker);
        failed_in(
            backend,
            transaction,
            &id,
            job,
            failure.reason,
            now,
            policy,
            &actor,
        )
    })
}

/// Ends a running job without results. The host is due after its interval, or after its back-off.
#[allow(
    clippy::too_many_arguments,
    reason = "what the caller has read and decided"
)]
pub(super) fn failed_in(
    backend: &Embedded,
    transaction: &mut Transaction,
    id: &str,
    mut job: Job,
    reason: Reason,
    now: Timestamp,
    policy: &Policy,
    actor: &str,
) -> Result<(), Error> {
    let scan = match &job.status {
        Status::Running { scan, .. } => Some(scan.clone()),
        _ => None,
    };
    let seed = scan.clone().unwrap_or_default();
    let failed = Status::Failed {
        scan,
        reason: reason.as_str().to_owned(),
        at: now.nanos(),
    };
    let before = std::mem::replace(&mut job.status, failed);
    backend.queue.put_in(transaction, id, Some(&before), &job)?;

    let before = backend.rows.get_in(transaction, &job.payload.host)?;
    let Some(before) = before.filter(|row| row.job.as_deref() == Some(id)) else {
        return Ok(());
    };
    let mut row = before.clone();
    row.job = None;
    row.next = next_after(now, row.state, policy, &row.host, &seed).nanos();
    if backoff::counts(reason) {
        let interval = policy.ladder.interval(row.state);
        let entry = row.backoff.entry(Probe::Scan);
        let prior = match &entry {
            Entry::Occupied(prior) => Some(*prior.get()),
            Entry::Vacant(_) => None,
        };
        let put_off = backoff::after_failure(prior.as_ref(), reason, now, interval, policy.backoff);
        entry.insert_entry(put_off);
    }
    let act = Act {
        at: now,
        actor,
        change: Change::Failed,
    };
    backend
        .rows
        .write(transaction, Some(&before), Some(&row), act)
}
