//! What every [`Backend`] must do, as cases that a test runs against an implementation.
//!
//! A subject is one backend, empty at first, of which any number of handles can be had. What happens in
//! a crash is not asked here; that needs the implementation's own disk.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use uuid::Uuid;
use world::Timestamp;

use super::{Backend, Claimed, Maintenance, Scope};
use crate::{
    audit::Record,
    judge::{Outcome, Summary, digest},
    ledger::{Finding, LogSink, Scan},
    policy::Policy,
    rule::{Severity, Variables},
    schedule::{Place, Row},
};

mod claims;
mod ends;
mod forged;
mod ticks;

/// One backend with what a test must be able to do to it from outside.
pub trait Subject {
    /// One more handle of the same backend.
    fn backend(&self) -> Arc<dyn Backend>;
    /// Every audit record, oldest first.
    fn audit(&self) -> Vec<Record>;
    /// Writes into the queue as somebody with access to the storage, but without the key, could.
    fn forge(&self, job: Uuid, forgery: &Forgery);
}

/// What is done to a job that is stored.
#[derive(Clone, Debug)]
pub enum Forgery {
    Host(String),
    PolicyVersion(String),
    /// Queued an hour later, and good for an hour longer.
    Later,
    Nonce(Uuid),
    Seal(String),
    /// The job as it was enqueued, back in the queue under this name too.
    CopyAs(Uuid),
    /// The job as it was enqueued, back in the queue under its own name.
    Again,
}

/// Makes a subject of its own for each case.
pub type Make<'a> = &'a mut dyn FnMut() -> Box<dyn Subject>;

/// One thing that holds for every backend.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub run: fn(&dyn Subject),
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

pub const CASES: &[Case] = &[
    case(
        "a tick takes the oldest, and no more than it may",
        ticks::oldest_first,
    ),
    case("a missed tick dispatches nothing twice", ticks::missed),
    case(
        "concurrent dispatchers take disjoint hosts",
        ticks::concurrent,
    ),
    case(
        "maintenance blocks dispatch and changes nothing else",
        ticks::maintenance,
    ),
    case(
        "a job has the policy version of its enqueue",
        ticks::policy_version,
    ),
    case("a host that is retired is not scanned", ticks::retired),
    case("claims are disjoint", claims::concurrent),
    case("sites take turns", claims::fair),
    case("a lease that ended gives the job back once", claims::lease),
    case("a job that kills its workers is given up", claims::given_up),
    case("a job given back is the next worker's", claims::given_back),
    case(
        "a scan sets state and next time with its results",
        ends::completed,
    ),
    case("a scan completed twice counts once", ends::twice),
    case("a scan of another claim is refused", ends::of_another_claim),
    case(
        "three failures put a host off, a success clears them",
        ends::backoff,
    ),
    case(
        "a forged job is refused and its host is due again",
        forged::forged,
    ),
    case(
        "a job is not run twice, whatever name it has",
        forged::replayed,
    ),
    case("a job that waited too long is refused", forged::expired),
];

const fn case(name: &'static str, run: fn(&dyn Subject)) -> Case {
    Case { name, run }
}

/// Runs every case on a subject of its own. Panics at the first that does not hold, in the line that
/// says what should have been; and where records and changes of rows differ.
pub fn check(make: Make<'_>) {
    for case in CASES {
        let subject = make();
        (case.run)(&*subject);
        check_audit(&*subject);
    }
}

/// Exactly one record for each change of a row: those of a host follow from each other, and from the
/// last follows the row that there is.
pub fn check_audit(subject: &dyn Subject) {
    let mut rows = std::collections::BTreeMap::new();
    for record in subject.audit() {
        if record.action != crate::schedule::UPDATED {
            continue;
        }
        let row = |name: &str| -> Option<Row> {
            serde_json::from_value(record.detail[name].clone()).expect("a row or null")
        };
        let (before, after) = (row("before"), row("after"));
        assert_ne!(before, after, "a record of a change: {record:?}");
        assert_eq!(
            rows.remove(&record.object),
            before,
            "follows the record before: {record:?}"
        );
        rows.extend(after.map(|row| (record.object, row)));
    }
    let found = subject.backend().schedule().expect("a sound backend");
    let told: Vec<Row> = rows.into_values().collect();
    assert_eq!(told, found, "the last records tell the rows that there are");
}

/// A time to begin at, with room below.
const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const USER: &str = "user test";

fn place(backend: &dyn Backend, host: &str, site: &str, groups: &[&str], at: Timestamp) {
    let place = Place {
        host: host.to_owned(),
        site: site.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    backend.place(&place, at, USER).expect("a usable place");
}

/// Hosts `NAME-00` and on, of one site, due at once.
fn place_many(backend: &dyn Backend, name: &str, count: usize, at: Timestamp) {
    for number in 0..count {
        place(backend, &format!("{name}-{number:02}"), name, &[], at);
    }
}

fn row(backend: &dyn Backend, host: &str) -> Row {
    let found = backend.row(host).expect("a sound backend");
    found.expect("the host has a row")
}

fn hosts(claims: &[Claimed]) -> Vec<&str> {
    claims.iter().map(|claim| claim.host.as_str()).collect()
}

fn unique(claims: &[Claimed]) -> BTreeSet<&str> {
    claims.iter().map(|claim| claim.host.as_str()).collect()
}

fn claim(backend: &dyn Backend, limit: usize, now: Timestamp) -> Vec<Claimed> {
    backend
        .claim("w", limit, now, &Policy::default())
        .expect("a sound backend")
}

fn dispatch(backend: &dyn Backend, now: Timestamp) -> Vec<String> {
    let dispatched = backend.dispatch(now, &Policy::default());
    let jobs = dispatched.expect("a sound backend").jobs;
    jobs.into_iter().map(|(host, _)| host).collect()
}

fn complete(backend: &dyn Backend, claimed: &Claimed, scan: &Scan) {
    let policy = Policy::default();
    backend
        .complete(claimed, scan, scan.finished, &policy, &LogSink)
        .expect("a lease that holds and a sound scan");
}

/// The scan of a claim: so many rules passed, so many failed.
pub fn scan_of(claimed: &Claimed, passed: usize, failed: usize, finished: Timestamp) -> Scan {
    let verdicts = [Outcome::Pass]
        .repeat(passed)
        .into_iter()
        .chain([Outcome::Fail].repeat(failed));
    let findings: Vec<Finding> = verdicts
        .enumerate()
        .map(|(number, verdict)| finding(number, verdict))
        .collect();
    Scan {
        id: claimed.scan,
        host: claimed.host.clone(),
        started: finished,
        finished,
        summary: Summary::of(findings.iter().map(|finding| finding.verdict)),
        findings,
    }
}

fn finding(number: usize, verdict: Outcome) -> Finding {
    let rule = format!("rule-{number:03}");
    let evidence = format!(
        r#"{{"facts":[{{"fact":"os.id","value":"{verdict}"}}],"rule":"{rule}","schema":"holdfast.evidence/1"}}"#,
        verdict = verdict.name(),
    )
    .into_bytes();
    Finding {
        severity: Severity::Medium,
        verdict,
        reason: format!("os.id is {}", verdict.name()),
        rule_digest: "0".repeat(64),
        rule_definition: "0".repeat(64),
        variables: Variables::new(),
        evidence_digest: digest(&evidence),
        evidence,
        rule,
    }
}

fn maintenance(scope: Scope, until: Option<Timestamp>) -> Maintenance {
    Maintenance {
        scope,
        since: START.nanos(),
        until: until.map(Timestamp::nanos),
        by: USER.to_owned(),
        reason: "new disks".to_owned(),
    }
}
