//! A month of schedule, random lives, and how fast it goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{prelude::*, test_runner::Config};
use world::Timestamp;

use super::*;
use crate::{
    backend::{Claimed, Dispatched, Maintenance, Scope, Tick},
    failure::{Failure, Reason},
    ledger::LogSink,
    policy::{ComplianceState, INTERVAL_MAX, INTERVAL_MIN, Ladder, Policy},
    schedule::Place as HostPlace,
};

const HOUR: Duration = Duration::from_secs(3600);
const HOUR_NANOS: u64 = 3_600_000_000_000;

fn host_place(host: &str, site: &str, groups: &[&str]) -> HostPlace {
    HostPlace {
        host: host.to_owned(),
        site: site.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

/// What is known of a fleet from outside, to hold against what the backend does.
#[derive(Default)]
struct Watched {
    /// When each host was scanned last, and the interval that it had then.
    scanned: BTreeMap<String, (Timestamp, Duration)>,
    scans: usize,
    total: Tick,
    running: Vec<Claimed>,
}

impl Watched {
    fn ticked(&mut self, now: Timestamp, done: &Dispatched, policy: &Policy) {
        let counts = done.counts;
        let sum = counts.dispatched
            + counts.skipped_maintenance
            + counts.skipped_backoff
            + counts.skipped_unfinished
            + counts.left;
        assert_eq!(counts.due, sum, "the counters add up");
        assert_eq!(counts.dispatched, done.jobs.len() as u64);
        self.total.due += counts.due;
        self.total.dispatched += counts.dispatched;
        self.total.skipped_maintenance += counts.skipped_maintenance;
        for (host, _) in &done.jobs {
            let busy = self.running.iter().any(|claim| claim.host == *host);
            assert!(!busy, "{host} has two jobs");
            if let Some((last, interval)) = self.scanned.get(host) {
                let waited = Duration::from_nanos(now.nanos() - last.nanos());
                let least = *interval * (100 - u32::from(policy.jitter_percent)) / 100;
                assert!(
                    waited >= least.max(INTERVAL_MIN),
                    "{host} too soon: {waited:?}"
                );
                let most = *interval * (100 + u32::from(policy.jitter_percent)) / 100;
                let most = most.min(INTERVAL_MAX) + policy.tick;
                let is_late = waited > most && !in_maintenance(now.minus(policy.tick));
                assert!(!is_late || maintained(host), "{host} too late: {waited:?}");
            }
        }
        if in_maintenance(now) {
            let touched = done.jobs.iter().find(|(host, _)| maintained(host));
            assert_eq!(touched, None, "in maintenance");
        }
    }
}

/// The second week, for one site of four.
fn in_maintenance(now: Timestamp) -> bool {
    let day = (now.nanos() - START.nanos()) / (24 * HOUR_NANOS);
    (7..14).contains(&day)
}

fn maintained(host: &str) -> bool {
    host.ends_with("site-0")
}

/// How a host of this number is on a day: most are compliant, some change from week to week.
fn verdicts(host: &str, now: Timestamp) -> (usize, usize) {
    let number: usize = host[5..8].parse().unwrap();
    let week = usize::try_from((now.nanos() - START.nanos()) / (168 * HOUR_NANOS));
    match number % 50 {
        0 => (5, 5),
        1 if week.unwrap().is_multiple_of(2) => (9, 1),
        _ => (2, 0),
    }
}

/// Two hundred hosts for thirty days. A worker takes what there is after each tick and is done before
/// the next one.
/// Proves: SCH-1, SCH-7, SCH-8, SCH-16
#[test]
fn a_month_of_two_hundred_hosts_keeps_the_pace_of_the_ladder() {
    let place = Place::new();
    let backend = &*place.backend;
    let policy = Policy {
        tick: Duration::from_secs(30 * 60),
        ..Policy::default()
    };
    for number in 0..200 {
        let site = format!("site-{}", number % 4);
        let host = host_place(&format!("host-{number:03}-{site}"), &site, &[]);
        backend.place(&host, START, "user test").unwrap();
    }
    let mut watched = Watched::default();
    let mut now = START;
    let end = START.plus(HOUR * 24 * 30);
    while now < end {
        set_or_clear(backend, now);
        let done = backend.dispatch(now, &policy).unwrap();
        watched.ticked(now, &done, &policy);
        watched.running = backend.claim("w", 100, now, &policy).unwrap();
        assert_eq!(watched.running.len(), done.jobs.len());
        for claimed in std::mem::take(&mut watched.running) {
            let (passed, failed) = verdicts(&claimed.host, now);
            let scan = conformance::scan_of(&claimed, passed, failed, now);
            backend
                .complete(&claimed, &scan, now, &policy, &LogSink)
                .unwrap();
            let state = backend.row(&claimed.host).unwrap().unwrap().state;
            let interval = policy.ladder.interval(state);
            watched.scanned.insert(claimed.host, (now, interval));
            watched.scans += 1;
        }
        backend.reap(now, &policy).unwrap();
        if done.counts.due > 0 && watched.scans.is_multiple_of(100) {
            // What a store does by itself as it grows; here a month is too small for that.
            backend.store.compact().unwrap();
        }
        now = now.plus(policy.tick);
    }
    let counters = backend.counters().unwrap();
    assert_eq!(counters.ticks, 30 * 48);
    assert_eq!(counters.total.due, watched.total.due);
    assert_eq!(counters.total.dispatched, watched.scans as u64);
    assert!(watched.total.skipped_maintenance > 0);
    let late: Vec<_> = backend
        .schedule()
        .unwrap()
        .into_iter()
        .filter(|row| row.next + 2 * HOUR_NANOS <= now.nanos())
        .collect();
    assert_eq!(late, [], "nobody was forgotten");
    conformance::check_audit(&place);
}

fn set_or_clear(backend: &Embedded, now: Timestamp) {
    let day = HOUR * 24;
    if now == START.plus(day * 7) {
        let maintenance = Maintenance {
            scope: Scope::Site("site-0".to_owned()),
            since: now.nanos(),
            until: Some(START.plus(day * 14).nanos()),
            by: "user test".to_owned(),
            reason: String::new(),
        };
        backend
            .set_maintenance(&maintenance, now, "user test")
            .unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Place(u8, u8),
    Retire(u8),
    Hasten(u8),
    Dispatch,
    Claim(usize),
    Complete(usize),
    Fail(usize),
    GiveBack(usize),
    Renew(usize),
    Reap,
    Wait(u64),
    Manual(u8),
    Maintain(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_u8, 0..3_u8).prop_map(|(host, site)| Step::Place(host, site)),
        (0..6_u8).prop_map(Step::Retire),
        (0..6_u8).prop_map(Step::Hasten),
        Just(Step::Dispatch),
        Just(Step::Dispatch),
        (1..4_usize).prop_map(Step::Claim),
        (1..4_usize).prop_map(Step::Claim),
        any::<usize>().prop_map(Step::Complete),
        any::<usize>().prop_map(Step::Complete),
        any::<usize>().prop_map(Step::Fail),
        any::<usize>().prop_map(Step::GiveBack),
        any::<usize>().prop_map(Step::Renew),
        Just(Step::Reap),
        (1..200_u64).prop_map(Step::Wait),
        (0..6_u8).prop_map(Step::Manual),
        (0..6_u8, any::<bool>()).prop_map(|(host, set)| Step::Maintain(host, set)),
    ]
}

/// A stale claim may be used again: it must come to nothing.
struct Life<'a> {
    backend: &'a Embedded,
    now: Timestamp,
    claims: Vec<Claimed>,
    policy: Policy,
}

impl Life<'_> {
    fn live(&mut self, step: &Step) {
        let (backend, now, policy) = (self.backend, self.now, self.policy.clone());
        let name = |host: &u8| format!("h{host}");
        let claimed = |index: &usize| {
            let len = self.claims.len();
            (len > 0).then(|| self.claims[index % len].clone())
        };
        match step {
            Step::Place(host, site) => {
                let place = host_place(&name(host), &format!("s{site}"), &[]);
                backend.place(&place, now, "user test").unwrap();
            }
            Step::Retire(host) => backend.retire(&name(host), now, "user test").unwrap(),
            Step::Hasten(host) => {
                backend.hasten(&name(host), now, "user test").unwrap();
            }
            Step::Dispatch => {
                backend.dispatch(now, &policy).unwrap();
            }
            Step::Claim(limit) => {
                let more = backend.claim("w", *limit, now, &policy).unwrap();
                self.claims.extend(more);
            }
            Step::Complete(index) => {
                if let Some(claimed) = claimed(index) {
                    let scan = conformance::scan_of(&claimed, index % 3, index % 2, now);
                    let done = backend.complete(&claimed, &scan, now, &policy, &LogSink);
                    drop(done);
                }
            }
            Step::Fail(index) => {
                if let Some(claimed) = claimed(index) {
                    let failure = Failure::new(Reason::ALL[index % 11], "as it happens");
                    drop(backend.fail(&claimed, &failure, now, &policy));
                }
            }
            Step::GiveBack(index) => {
                if let Some(claimed) = claimed(index) {
                    drop(backend.give_back(&claimed, now));
                }
            }
            Step::Renew(index) => {
                if let Some(claimed) = claimed(index) {
                    drop(backend.renew(&claimed, now, &policy));
                }
            }
            Step::Reap => {
                backend.reap(now, &policy).unwrap();
            }
            Step::Wait(minutes) => self.now = now.plus(Duration::from_secs(60 * minutes)),
            Step::Manual(host) => manual(backend, &name(host), now),
            Step::Maintain(host, set) => maintain(backend, &name(host), *set, now),
        }
    }
}

fn manual(backend: &Embedded, host: &str, now: Timestamp) {
    let claimed = Claimed {
        job: Uuid::nil(),
        host: host.to_owned(),
        site: String::new(),
        policy_version: String::new(),
        scan: backend.name().unwrap(),
        worker: String::new(),
        until: now,
        attempt: 0,
    };
    let scan = conformance::scan_of(&claimed, 1, 1, now);
    backend.ledger().apply(&scan, &LogSink).unwrap();
}

fn maintain(backend: &Embedded, host: &str, set: bool, now: Timestamp) {
    let scope = Scope::Host(host.to_owned());
    if !set {
        backend.clear_maintenance(&scope, now, "user test").unwrap();
        return;
    }
    let maintenance = Maintenance {
        scope,
        since: now.nanos(),
        until: Some(now.plus(HOUR).nanos()),
        by: "user test".to_owned(),
        reason: String::new(),
    };
    backend
        .set_maintenance(&maintenance, now, "user test")
        .unwrap();
}

/// Whatever was done: a host has at most one job, and the one that its row names; and who waits for a
/// job is waited for by it.
fn check(backend: &Embedded) {
    let jobs = backend.jobs(1000).unwrap();
    let rows = backend.schedule().unwrap();
    let mut seen = BTreeSet::new();
    for job in &jobs {
        let row = rows.iter().find(|row| row.host == job.host);
        let is_awaited = row.is_some_and(|row| row.job.as_ref() == Some(&job.job));
        // What a retired host left in the queue is refused when it is claimed.
        if is_awaited {
            assert!(seen.insert(&job.host), "two jobs: {job:?}");
        }
    }
    for row in &rows {
        assert_eq!(row.job.is_some(), seen.contains(&row.host), "{row:?}");
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    /// Proves: SCH-15
    #[test]
    fn every_change_of_a_row_has_exactly_one_record_whatever_is_done(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let place = Place::new();
        let mut life = Life {
            backend: &place.backend,
            now: START,
            claims: Vec::new(),
            policy: Policy::default(),
        };
        for step in &steps {
            let before = rows(&place);
            let records = updates(&place);
            life.live(step);
            let after = rows(&place);
            let changed = before.iter().filter(|(host, row)| after.get(*host) != Some(row)).count()
                + after.keys().filter(|host| !before.contains_key(*host)).count();
            prop_assert_eq!(updates(&place) - records, changed, "{:?}", step);
            check(&place.backend);
        }
        conformance::check_audit(&place);
    }
}

fn rows(place: &Place) -> BTreeMap<String, crate::schedule::Row> {
    let rows = place.backend.schedule().unwrap();
    rows.into_iter()
        .map(|row| (row.host.clone(), row))
        .collect()
}

fn updates(place: &Place) -> usize {
    let is_update = |record: &&Record| record.action == crate::schedule::UPDATED;
    audit(&place.backend).iter().filter(is_update).count()
}

/// A tick that has read the row of a host is not disturbed by a manual scan of it, and the other way
/// round: what a manual scan writes are rows of the ledger.
/// Proves: SCH-9
#[test]
fn a_manual_scan_takes_and_writes_no_row_of_the_schedule() {
    // What is written is seen in the feed of the journal, which is this machine's alone.
    if crate::test_store::is_elsewhere() {
        return;
    }
    let place = Place::new();
    let backend = &*place.backend;
    let host = host_place("h", "s", &[]);
    backend.place(&host, START, "user test").unwrap();
    let before = backend.row("h").unwrap();

    let store = &backend.store;
    let mut tick = store.begin().unwrap();
    let row = backend.rows.get_in(&mut tick, "h").unwrap();
    let from = store.retained().unwrap().to.lsn.next();
    manual(backend, "h", START);
    let mut moved = row.clone().unwrap();
    moved.next += 1;
    let act = crate::schedule::Act {
        at: START,
        actor: "test",
        change: crate::schedule::Change::NextAdvanced,
    };
    backend
        .rows
        .write(&mut tick, row.as_ref(), Some(&moved), act)
        .unwrap();
    let written: Vec<String> = store
        .feed(from)
        .unwrap()
        .flat_map(|committed| committed.unwrap().changes)
        .map(|change| store.table_name(change.table).unwrap())
        .collect();
    assert!(written.len() > 4, "{written:?}");
    assert!(
        written.iter().all(|table| table.starts_with("ledger.")),
        "{written:?}"
    );
    assert_eq!(backend.row("h").unwrap(), before);
    tick.commit().expect("no collision");
    assert_eq!(store.stats().conflicts, 0);
}

/// An interval that the ladder lacks is the longest; whatever the ladder and the jitter, the next time
/// is within the bounds.
/// Proves: SCH-7
#[test]
fn the_next_time_is_within_the_bounds_and_differs_from_host_to_host() {
    for percent in [0, 1, 10, 50, 200] {
        for seconds in [1, 299, 300, 301, 86_400, 172_799, 172_800, 10_000_000] {
            let tiers = [(ComplianceState::Partial, Duration::from_secs(seconds))];
            let policy = Policy {
                ladder: Ladder::clamped(tiers).0,
                jitter_percent: percent,
                ..Policy::default()
            };
            let mut seen = BTreeSet::new();
            for number in 0..100 {
                for state in [ComplianceState::Partial, ComplianceState::Critical] {
                    let host = format!("h{number}");
                    let next = crate::schedule::next_after(START, state, &policy, &host, "x");
                    let waits = Duration::from_nanos(next.nanos() - START.nanos());
                    assert!((INTERVAL_MIN..=INTERVAL_MAX).contains(&waits), "{waits:?}");
                    let again = crate::schedule::next_after(START, state, &policy, &host, "x");
                    assert_eq!(next, again);
                    let interval = policy.ladder.interval(state);
                    let most = interval * u32::from(percent.min(50)) / 100;
                    assert!(interval.abs_diff(waits) <= most, "{interval:?} {waits:?}");
                    seen.insert(waits);
                }
            }
            assert_eq!(
                seen.len() > 20,
                percent > 0,
                "{percent} % of {seconds} s: {}",
                seen.len()
            );
        }
    }
}
