//! The process dies at every effect that it has on the disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use world::sim;

use super::*;
use crate::{
    backend::{Claimed, Error},
    failure::{Failure, Reason},
    ledger::LogSink,
    policy::Policy,
    schedule::Place as HostPlace,
};

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];

/// What the process had acknowledged when it died.
#[derive(Default)]
struct Acknowledged {
    dispatched: Vec<(String, Uuid)>,
    claims: Vec<Claimed>,
    completed: Vec<String>,
    failed: Vec<String>,
}

fn policy() -> Policy {
    Policy {
        jitter_percent: 0,
        ..Policy::default()
    }
}

/// A day's work in small: everything that is written, once.
fn work(backend: &Embedded, told: &mut Acknowledged) -> Result<(), Error> {
    let policy = policy();
    for host in HOSTS {
        let place = HostPlace {
            host: host.to_owned(),
            site: "s".to_owned(),
            groups: Default::default(),
        };
        backend.place(&place, START, "user test")?;
    }
    told.dispatched = backend.dispatch(START, &policy)?.jobs;
    told.claims = backend.claim("w", 3, START, &policy)?;
    for (number, claimed) in told.claims.iter().enumerate() {
        if number == 0 {
            let failure = Failure::new(Reason::Timeout, "no answer");
            backend.fail(claimed, &failure, START, &policy)?;
            told.failed.push(claimed.host.clone());
        } else {
            let scan = conformance::scan_of(claimed, 2, 1, START);
            backend.complete(claimed, &scan, START, &policy, &LogSink)?;
            told.completed.push(claimed.host.clone());
        }
    }
    backend.reap(START.plus(policy.lease), &policy)?;
    Ok(())
}

/// Everything that was acknowledged is there, nothing is half, and every host comes to be scanned.
fn check(backend: &Embedded, told: &Acknowledged, crash: &str) {
    conformance::check_audit(&Place {
        dir: scratch(),
        backend: Arc::new(embedded(backend.store.clone(), 90).unwrap()),
        handles: std::sync::Mutex::new(100),
    });
    let rows = backend.schedule().unwrap();
    let dispatches = |host: &str| {
        let of_host =
            |record: &&Record| record.object == host && record.detail["kind"] == "next_advanced";
        audit(backend).iter().filter(of_host).count()
    };
    for (host, _) in &told.dispatched {
        assert_eq!(dispatches(host), 1, "{crash}: {host} was dispatched");
    }
    let jobs = backend.jobs(100).unwrap();
    let mut of_host: BTreeMap<&str, usize> = BTreeMap::new();
    for job in &jobs {
        *of_host.entry(&job.host).or_default() += 1;
    }
    for row in &rows {
        let jobs = of_host.get(row.host.as_str()).copied().unwrap_or(0);
        assert_eq!(usize::from(row.job.is_some()), jobs, "{crash}: {row:?}");
        let status = backend.ledger().status(&row.host, None).unwrap();
        assert_eq!(
            row.last_scan.is_some(),
            status.is_some(),
            "{crash}: results and row are one"
        );
    }
    for host in &told.completed {
        let row = backend.row(host).unwrap().unwrap();
        assert!(
            row.last_scan.is_some() && row.job.is_none(),
            "{crash}: {host}"
        );
    }
    for host in &told.failed {
        assert_eq!(
            backend.row(host).unwrap().unwrap().backoff.len(),
            1,
            "{crash}: {host}"
        );
    }
    for claimed in &told.claims {
        let is_running = jobs.iter().any(|job| job.job == claimed.job.to_string());
        let is_over = told.completed.contains(&claimed.host) || told.failed.contains(&claimed.host);
        assert!(is_running || is_over || rows.iter().any(|row| row.host == claimed.host));
    }
    scanned_in_the_end(backend, crash);
}

/// Days on, everybody who was in the schedule was scanned, and nobody has a job left.
fn scanned_in_the_end(backend: &Embedded, crash: &str) {
    let policy = policy();
    let mut now = START.plus(policy.lease);
    for _ in 0..3 {
        now = now.plus(Duration::from_secs(24 * 3600));
        backend.reap(now, &policy).unwrap();
        // What waited a day has expired; the tick after that enqueues it again.
        backend
            .claim("x", 100, now, &policy)
            .unwrap()
            .iter()
            .for_each(|claimed| {
                backend.give_back(claimed, now).unwrap();
            });
        backend.dispatch(now, &policy).unwrap();
        for claimed in backend.claim("x", 100, now, &policy).unwrap() {
            let scan = conformance::scan_of(&claimed, 1, 0, now);
            backend
                .complete(&claimed, &scan, now, &policy, &LogSink)
                .unwrap();
        }
        assert_eq!(backend.jobs(10).unwrap(), [], "{crash}");
    }
    for row in backend.schedule().unwrap() {
        assert_eq!(row.last_finished, Some(now.nanos()), "{crash}: {row:?}");
    }
}

/// A kill between any two steps leaves a state that the next process goes on from.
/// Proves: SCH-3, SCH-4, SCH-10
#[test]
fn a_process_that_dies_at_any_effect_leaves_no_job_lost_doubled_or_half() {
    let whole = sim::Disk::new(3);
    {
        let dir = scratch();
        let backend = open(
            dir.path(),
            Arc::new(whole.clone()),
            wal::SEGMENT_BYTES_MIN,
            1,
        )
        .unwrap();
        let mut told = Acknowledged::default();
        work(&backend, &mut told).unwrap();
        assert_eq!((told.completed.len(), told.failed.len()), (2, 1));
        check(&backend, &told, "no crash");
    }
    let mut crashes = 0;
    for effect in 1..=whole.effects() {
        for is_killed in [true, false] {
            let dir = scratch();
            let disk = sim::Disk::new(3);
            disk.crash_at(effect);
            let mut told = Acknowledged::default();
            let ended = open(
                dir.path(),
                Arc::new(disk.clone()),
                wal::SEGMENT_BYTES_MIN,
                1,
            )
            .and_then(|backend| work(&backend, &mut told).map_err(|error| error.to_string()));
            if ended.is_ok() {
                continue;
            }
            crashes += 1;
            let (how, after) = if is_killed {
                ("killed", disk.process_death())
            } else {
                ("power lost", disk.power_loss_total())
            };
            let crash = format!("{how} at effect {effect}");
            let backend = open(dir.path(), Arc::new(after), wal::SEGMENT_BYTES_MIN, 2);
            check(&backend.expect(&crash), &told, &crash);
        }
    }
    assert!(crashes > 20, "{crashes} crashes");
}
