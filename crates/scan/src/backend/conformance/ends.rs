//! How a job ends.

use super::{super::Kind, *};
use crate::{
    failure::{Failure, Reason},
    policy::ComplianceState,
    schedule::Probe,
};

pub(super) fn completed(subject: &dyn Subject) {
    let backend = subject.backend();
    let policy = Policy {
        jitter_percent: 0,
        ..Policy::default()
    };
    let cases = [
        ("compliant", 10, 0, ComplianceState::Compliant),
        ("partial", 9, 1, ComplianceState::Partial),
        ("non-compliant", 5, 5, ComplianceState::NonCompliant),
        ("critical", 1, 9, ComplianceState::Critical),
        ("one-critical", 99, 1, ComplianceState::Critical),
        ("unknown", 0, 0, ComplianceState::Unknown),
    ];
    for (host, ..) in cases {
        place(&*backend, host, "s", &[], START);
    }
    dispatch(&*backend, START);
    let finished = START.plus(MINUTE);
    for claimed in claim(&*backend, 10, START) {
        let (host, passed, failed, state) = *cases
            .iter()
            .find(|(host, ..)| *host == claimed.host)
            .expect("one of ours");
        let mut scan = scan_of(&claimed, passed, failed, finished);
        if host == "one-critical" {
            // By its score it would be compliant.
            let last = scan.findings.last_mut().expect("a hundred");
            assert_eq!(last.verdict, Outcome::Fail);
            last.severity = Severity::Critical;
        }
        if host == "compliant" {
            // One that passes is none.
            scan.findings[0].severity = Severity::Critical;
        }
        let now = finished.plus(MINUTE);
        let applied = backend.complete(&claimed, &scan, now, &policy, &LogSink);
        assert_eq!(applied.expect("it holds").changes.len(), passed + failed);
        let row = row(&*backend, &claimed.host);
        assert_eq!((row.state, row.score), (state, scan.summary.score));
        assert_eq!(
            row.next,
            finished.plus(policy.ladder.interval(state)).nanos()
        );
        assert_eq!(row.last_finished, Some(finished.nanos()));
        assert_eq!((row.last_scan, row.job), (Some(scan.id.to_string()), None));
    }
    assert_eq!(backend.jobs(10).expect("a look"), []);
}

pub(super) fn twice(subject: &dyn Subject) {
    let backend = subject.backend();
    let policy = Policy::default();
    place(&*backend, "h", "s", &[], START);
    dispatch(&*backend, START);
    let claimed = claim(&*backend, 1, START).remove(0);
    let scan = scan_of(&claimed, 3, 1, START.plus(MINUTE));
    complete(&*backend, &claimed, &scan);
    let (row_before, records) = (row(&*backend, "h"), subject.audit().len());
    // At once, and long after the lease would have ended.
    for now in [START.plus(MINUTE), START.plus(HOUR * 50)] {
        let again = backend.complete(&claimed, &scan, now, &policy, &LogSink);
        let again = again.expect("the same again is no error");
        assert!(again.replayed && again.changes.is_empty());
        assert_eq!(row(&*backend, "h"), row_before);
        assert_eq!(subject.audit().len(), records);
    }
    let failed = backend.fail(&claimed, &failure(), START.plus(MINUTE), &policy);
    assert_eq!(failed.map_err(|error| error.kind()), Err(Kind::LeaseLost));
    assert_eq!(row(&*backend, "h"), row_before);
}

pub(super) fn of_another_claim(subject: &dyn Subject) {
    let backend = subject.backend();
    let policy = Policy::default();
    place_many(&*backend, "h", 2, START);
    dispatch(&*backend, START);
    let claims = claim(&*backend, 2, START);
    let before = backend.schedule().expect("rows");
    let crossed = scan_of(&claims[0], 1, 0, START);
    let refused = backend.complete(&claims[1], &crossed, START, &policy, &LogSink);
    assert_eq!(refused.map_err(|error| error.kind()), Err(Kind::Invalid));
    let mut broken = scan_of(&claims[0], 2, 0, START);
    broken.findings[1].evidence.push(b' ');
    let refused = backend.complete(&claims[0], &broken, START, &policy, &LogSink);
    let refused = refused.expect_err("evidence under another digest");
    assert_eq!(refused.kind(), Kind::Refused);
    assert_eq!(refused.refusal().and_then(|it| it.rule()), Some("rule-001"));
    assert_eq!(backend.schedule().expect("rows"), before);
    complete(&*backend, &claims[0], &crossed);
}

fn failure() -> Failure {
    Failure::new(Reason::Timeout, "no answer")
}

pub(super) fn backoff(subject: &dyn Subject) {
    let backend = subject.backend();
    let policy = Policy {
        jitter_percent: 0,
        ..Policy::default()
    };
    let interval = policy.ladder.interval(ComplianceState::Unknown);
    place(&*backend, "h", "s", &[], START);
    let mut now = START;
    for intervals in [1, 1, 2, 4] {
        assert_eq!(dispatch(&*backend, now), ["h"]);
        let claimed = claim(&*backend, 1, now).remove(0);
        for _ in 0..2 {
            backend
                .fail(&claimed, &failure(), now, &policy)
                .expect("it holds");
        }
        let due = now.plus(interval * intervals);
        let early = due.minus(Duration::from_nanos(1));
        assert_eq!(dispatch(&*backend, early), [""; 0], "{intervals} intervals");
        let skipped = backend.counters().expect("counters").last.skipped_backoff;
        assert_eq!(skipped, u64::from(intervals > 1));
        now = due;
    }
    assert_eq!(row(&*backend, "h").backoff[&Probe::Scan].failures, 4);
    assert_eq!(dispatch(&*backend, now), ["h"]);
    let claimed = claim(&*backend, 1, now).remove(0);
    let scan = scan_of(&claimed, 1, 0, now);
    let done = backend.complete(&claimed, &scan, now, &policy, &LogSink);
    done.expect("it holds");
    assert!(row(&*backend, "h").backoff.is_empty());
    assert!(backend.hasten("h", now, USER).expect("in the schedule"));
    assert_eq!(dispatch(&*backend, now), ["h"]);
    // What says nothing of the host is not counted against it.
    let claimed = claim(&*backend, 1, now).remove(0);
    let busy = Failure::new(Reason::HostBusy, "another scan");
    backend
        .fail(&claimed, &busy, now, &policy)
        .expect("it holds");
    assert!(row(&*backend, "h").backoff.is_empty());
}
