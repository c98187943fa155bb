//! Who has which job.

use super::{super::Kind, *};

pub(super) fn concurrent(subject: &dyn Subject) {
    let backend = subject.backend();
    place_many(&*backend, "h", 24, START);
    dispatch(&*backend, START);
    let handles: Vec<_> = (0..4).map(|_| subject.backend()).collect();
    let claims: Vec<Claimed> = std::thread::scope(|scope| {
        let threads: Vec<_> = handles
            .iter()
            .map(|handle| {
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    loop {
                        let more = claim(&**handle, 2, START);
                        if more.is_empty() {
                            return mine;
                        }
                        mine.extend(more);
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert_eq!((claims.len(), unique(&claims).len()), (24, 24));
    let scans: BTreeSet<Uuid> = claims.iter().map(|claim| claim.scan).collect();
    assert_eq!(scans.len(), 24, "each claim has a scan id of its own");
}

/// A site with many jobs, and two with a few that came later.
pub(super) fn fair(subject: &dyn Subject) {
    let backend = subject.backend();
    place_many(&*backend, "big", 60, START);
    dispatch(&*backend, START);
    place_many(&*backend, "mid", 2, START);
    place_many(&*backend, "zoo", 2, START);
    dispatch(&*backend, START.plus(MINUTE));
    let mut claims = Vec::new();
    for _ in 0..4 {
        // Another handle each time: whose turn it is does not hang on one of them.
        claims.extend(claim(&*subject.backend(), 2, START.plus(MINUTE)));
    }
    let of = |site: &str| claims.iter().filter(|claim| claim.site == site).count();
    assert_eq!(
        (of("big"), of("mid"), of("zoo")),
        (4, 2, 2),
        "{:?}",
        hosts(&claims)
    );
    assert_eq!(claim(&*backend, 100, START.plus(MINUTE)).len(), 56);
}

pub(super) fn lease(subject: &dyn Subject) {
    let backend = subject.backend();
    let policy = Policy::default();
    place(&*backend, "h", "s", &[], START);
    dispatch(&*backend, START);
    let first = claim(&*backend, 1, START).remove(0);
    assert_eq!((first.attempt, first.until), (1, START.plus(policy.lease)));
    let half = START.plus(policy.lease / 2);
    let until = backend.renew(&first, half, &policy).expect("it holds");
    assert_eq!(until, half.plus(policy.lease));
    assert_eq!(
        backend.reap(first.until, &policy).expect("a look").requeued,
        [""; 0]
    );

    // At its end it is over, reaped or not.
    let scan = scan_of(&first, 1, 0, until);
    let late = |scan: &Scan| {
        backend
            .complete(&first, scan, until, &policy, &LogSink)
            .map_err(|error| error.kind())
    };
    assert_eq!(late(&scan), Err(Kind::LeaseLost));
    for requeued in [vec!["h"], vec![]] {
        assert_eq!(
            backend.reap(until, &policy).expect("a look").requeued,
            requeued
        );
    }
    let second = claim(&*backend, 10, until);
    assert_eq!(hosts(&second), ["h"], "once");
    assert_ne!(second[0].scan, first.scan);
    assert_eq!(second[0].attempt, 2);
    assert_eq!(late(&scan), Err(Kind::LeaseLost), "another has the job");
    let lost = backend
        .renew(&first, until, &policy)
        .map_err(|error| error.kind());
    assert_eq!(lost, Err(Kind::LeaseLost));
    complete(&*backend, &second[0], &scan_of(&second[0], 1, 0, until));
    assert_eq!(
        late(&scan),
        Err(Kind::LeaseLost),
        "another has done the job"
    );
    assert_eq!(
        row(&*backend, "h").last_scan,
        Some(second[0].scan.to_string())
    );
    assert_eq!(backend.counters().expect("counters").reaped, 1);
}

pub(super) fn given_up(subject: &dyn Subject) {
    let backend = subject.backend();
    // A job outlives its leases here; that it expires is another case.
    let policy = Policy {
        job_expiry: HOUR * 24,
        ..Policy::default()
    };
    place(&*backend, "h", "s", &[], START);
    backend.dispatch(START, &policy).expect("a tick");
    let mut now = START;
    for attempt in 1..=3 {
        let claims = claim(&*backend, 1, now);
        assert_eq!(claims.first().map(|claim| claim.attempt), Some(attempt));
        now = now.plus(policy.lease);
        let reaped = backend.reap(now, &policy).expect("a look");
        let (requeued, given_up) = (reaped.requeued.len(), reaped.given_up.len());
        let expected = if attempt < 3 { (1, 0) } else { (0, 1) };
        assert_eq!((requeued, given_up), expected, "attempt {attempt}");
    }
    assert_eq!(hosts(&claim(&*backend, 1, now)), [""; 0]);
    let row = row(&*backend, "h");
    assert_eq!(
        (row.job, row.backoff.len()),
        (None, 1),
        "it counts as a failure"
    );
    assert!(row.next > now.nanos());
}

pub(super) fn given_back(subject: &dyn Subject) {
    let backend = subject.backend();
    place(&*backend, "h", "s", &[], START);
    dispatch(&*backend, START);
    for _ in 0..5 {
        let claims = claim(&*backend, 1, START);
        assert_eq!(claims.first().map(|claim| claim.attempt), Some(1));
        backend.give_back(&claims[0], START).expect("it holds");
        let again = backend.give_back(&claims[0], START);
        assert_eq!(again.map_err(|error| error.kind()), Err(Kind::LeaseLost));
    }
    assert_eq!(hosts(&claim(&*backend, 10, START)), ["h"]);
}
