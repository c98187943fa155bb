//! A worker and its lease: taking a job, keeping it, giving it back.

use serde_json::json;
use store::Transaction;
use uuid::Uuid;
use world::Timestamp;

use super::{
    Claimed, Error, Kind, SCHEDULER,
    embedded::Embedded,
    queue::{Job, Status, Waiting},
};
use crate::{
    audit::Record,
    policy::Policy,
    schedule::{Act, Change, JobFault},
};

/// Entries that one call looks at beyond those it gives out: a queue full of forged jobs is worked off
/// in several calls, each of a bounded size.
const REFUSED_MAX: usize = 1_000;

/// Action of the audit record of a job that was not given out.
const REFUSED: &str = "job.refused";

pub(super) fn claim(
    backend: &Embedded,
    worker: &str,
    limit: usize,
    now: Timestamp,
    policy: &Policy,
) -> Result<Vec<Claimed>, Error> {
    let _turn = backend.turn();
    let claims = backend.transact(|transaction| {
        let mut claims = Claims {
            backend,
            transaction,
            now,
            given: Vec::new(),
            refused: Vec::new(),
        };
        claims.take(worker, limit, policy)?;
        Ok((claims.given, claims.refused))
    });
    let (given, refused) = claims?;
    for record in &refused {
        record.tell();
    }
    Ok(given)
}

struct Claims<'a> {
    backend: &'a Embedded,
    transaction: &'a mut Transaction,
    now: Timestamp,
    given: Vec<Claimed>,
    refused: Vec<Record>,
}

impl Claims<'_> {
    fn take(&mut self, worker: &str, limit: usize, policy: &Policy) -> Result<(), Error> {
        let queue = self.backend.queue;
        let before = queue.turn_in(self.transaction)?;
        let mut site = before.clone();
        let (mut looked, mut rejected) = (0, 0);
        while self.given.len() < limit && looked < limit.saturating_add(REFUSED_MAX) {
            looked += 1;
            let Some(waiting) = queue.next_waiting_in(self.transaction, &site)? else {
                break;
            };
            site.clone_from(&waiting.site);
            let found = match waiting.id.is_empty() {
                true => None,
                false => queue.get_in(self.transaction, &waiting.id)?,
            };
            let Some(job) = found.filter(|job| job.status == Status::Queued) else {
                if !waiting.id.is_empty() && queue.discard_in(self.transaction, &waiting.id)? {
                    rejected += 1;
                    let detail = json!({ "job": waiting.id, "failure": JobFault::Tampered.name() });
                    self.record_refusal(&waiting, detail)?;
                }
                queue.forget_waiting(self.transaction, &waiting)?;
                continue;
            };
            match self.fault(&waiting, &job)? {
                None => self.give(worker, &waiting, job, policy)?,
                Some(fault) => {
                    rejected += u64::from(fault == JobFault::Tampered);
                    self.refuse(&waiting, job, fault)?;
                }
            }
        }
        if site != before {
            queue.put_turn(self.transaction, &site)?;
        }
        if !self.refused.is_empty() {
            let refused = self.refused.len() as u64;
            let counts = self.backend.counts;
            counts.refused_in(self.transaction, refused, rejected)?;
        }
        Ok(())
    }

    /// The seal first: until it holds, nothing that the job says is worth a look.
    fn fault(&mut self, waiting: &Waiting, job: &Job) -> Result<Option<JobFault>, Error> {
        let payload = &job.payload;
        if !self.backend.key()?.verify(payload, &job.seal) {
            return Ok(Some(JobFault::Tampered));
        }
        let queue = self.backend.queue;
        if payload.nonce != waiting.id || queue.nonce_used_in(self.transaction, &payload.nonce)? {
            return Ok(Some(JobFault::Replayed));
        }
        if payload.expires <= self.now.nanos() {
            return Ok(Some(JobFault::Expired));
        }
        let row = self.backend.rows.get_in(self.transaction, &payload.host)?;
        let is_awaited = row.is_some_and(|row| row.job.as_ref() == Some(&waiting.id));
        Ok((!is_awaited).then_some(JobFault::Unscheduled))
    }

    fn give(
        &mut self,
        worker: &str,
        waiting: &Waiting,
        mut job: Job,
        policy: &Policy,
    ) -> Result<(), Error> {
        let scan = self.backend.name()?;
        let until = self.now.plus(policy.lease);
        job.attempt += 1;
        job.status = Status::Running {
            worker: worker.to_owned(),
            scan: scan.to_string(),
            until: until.nanos(),
        };
        let queue = self.backend.queue;
        queue.forget_waiting(self.transaction, waiting)?;
        queue.put_in(self.transaction, &waiting.id, None, &job)?;
        self.given.push(Claimed {
            job: super::queue::uuid(&waiting.id)?,
            host: job.payload.host,
            site: job.site,
            policy_version: job.payload.policy_version,
            scan,
            worker: worker.to_owned(),
            until,
            attempt: job.attempt,
        });
        Ok(())
    }

    /// Marks the job failed. The host that waits for it is due again at once: it has lost its turn to
    /// whatever happened to the queue, and not by anything of its own.
    fn refuse(&mut self, waiting: &Waiting, mut job: Job, fault: JobFault) -> Result<(), Error> {
        let at = self.now;
        let queue = self.backend.queue;
        let detail = json!({
            "job": waiting.id,
            "failure": fault.name(),
            "says_host": job.payload.host,
            "policy_version": job.payload.policy_version,
            "enqueued": job.payload.enqueued,
            "expires": job.payload.expires,
        });
        self.record_refusal(waiting, detail)?;
        job.status = Status::Failed {
            scan: None,
            reason: fault.name().to_owned(),
            at: at.nanos(),
        };
        queue.forget_waiting(self.transaction, waiting)?;
        queue.put_in(self.transaction, &waiting.id, None, &job)?;
        Ok(())
    }

    /// Audits the refusal, and has the host that waits for the job due again.
    fn record_refusal(
        &mut self,
        waiting: &Waiting,
        detail: serde_json::Value,
    ) -> Result<(), Error> {
        let at = self.now;
        let record = Record::new(at, SCHEDULER, REFUSED, &waiting.host, detail);
        self.backend.audit.append(self.transaction, &record)?;
        self.refused.push(record);

        let rows = self.backend.rows;
        let before = rows.get_in(self.transaction, &waiting.host)?;
        if let Some(before) = before.filter(|row| row.job.as_ref() == Some(&waiting.id)) {
            let mut row = before.clone();
            row.job = None;
            row.next = row.next.min(at.nanos());
            let change = Change::Requeued;
            let actor = SCHEDULER;
            let act = Act { at, actor, change };
            rows.write(self.transaction, Some(&before), Some(&row), act)?;
        }
        Ok(())
    }
}

/// The job of a lease that still holds.
pub(super) fn held_in(
    backend: &Embedded,
    transaction: &mut Transaction,
    claimed: &Claimed,
    now: Timestamp,
) -> Result<Job, Error> {
    let found = backend
        .queue
        .get_in(transaction, &claimed.job.to_string())?;
    let holds = |job: &Job| match &job.status {
        Status::Running { scan, until, .. } => is(scan, claimed.scan) && now.nanos() < *until,
        _ => false,
    };
    found.filter(holds).ok_or_else(|| {
        let message = format!(
            "worker {} no longer has the job of host `{}`",
            claimed.worker, claimed.host
        );
        Error::new(Kind::LeaseLost, message)
    })
}

pub(super) fn is(text: &str, name: Uuid) -> bool {
    Uuid::try_parse(text) == Ok(name)
}

pub(super) fn renew(
    backend: &Embedded,
    claimed: &Claimed,
    now: Timestamp,
    policy: &Policy,
) -> Result<Timestamp, Error> {
    backend.transact(|transaction| {
        let mut job = held_in(backend, transaction, claimed, now)?;
        let before = job.status.clone();
        let renewed = now.plus(policy.lease);
        if let Status::Running { until, .. } = &mut job.status {
            // Never shortened: the clock may have been set back since the claim.
            *until = renewed.nanos().max(*until);
        }
        let id = claimed.job.to_string();
        backend
            .queue
            .put_in(transaction, &id, Some(&before), &job)?;
        Ok(renewed)
    })
}

pub(super) fn give_back(
    backend: &Embedded,
    claimed: &Claimed,
    now: Timestamp,
) -> Result<(), Error> {
    backend.transact(|transaction| {
        let mut job = held_in(backend, transaction, claimed, now)?;
        let before = std::mem::replace(&mut job.status, Status::Queued);
        // Nothing died with it: it does not count towards giving it up.
        job.attempt = job.attempt.saturating_sub(1);
        let id = claimed.job.to_string();
        backend.queue.put_in(transaction, &id, Some(&before), &job)
    })
}
