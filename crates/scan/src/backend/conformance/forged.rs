//! What was not enqueued by us.

use super::*;

/// One host of several has a job that somebody wrote into.
pub(super) fn forged(subject: &dyn Subject) {
    let backend = subject.backend();
    let forgeries = [
        Forgery::Host("other".to_owned()),
        Forgery::PolicyVersion("9.9.9".to_owned()),
        Forgery::Later,
        Forgery::Nonce(Uuid::from_u128(7)),
        Forgery::Seal(String::new()),
        Forgery::Seal("00".repeat(32)),
    ];
    place(&*backend, "h", "s", &[], START);
    place(&*backend, "other", "s", &[], START);
    let mut now = START;
    for (number, forgery) in (1..).zip(&forgeries) {
        now = now.plus(HOUR * 49);
        let jobs = backend
            .dispatch(now, &Policy::default())
            .expect("a tick")
            .jobs;
        let job = jobs
            .iter()
            .find(|(host, _)| host == "h")
            .expect("it is due")
            .1;
        subject.forge(job, forgery);
        let claims = claim(&*backend, 10, now);
        assert_eq!(hosts(&claims), ["other"], "{forgery:?}");
        let counters = backend.counters().expect("counters");
        assert_eq!((counters.refused, counters.hmac_rejected), (number, number));
        let record = subject
            .audit()
            .into_iter()
            .rfind(|it| it.action == "job.refused");
        let record = record.expect("a record of the refusal");
        assert_eq!(
            (record.object.as_str(), &record.detail["failure"]),
            ("h", &"tampered".into())
        );
        // The host lost nothing by it: the next tick enqueues a job of our own.
        assert_eq!(dispatch(&*backend, now), ["h"]);
        for claimed in claims.into_iter().chain(claim(&*backend, 10, now)) {
            complete(&*backend, &claimed, &scan_of(&claimed, 1, 0, now));
        }
    }
}

pub(super) fn replayed(subject: &dyn Subject) {
    let backend = subject.backend();
    place(&*backend, "h", "s", &[], START);
    let jobs = backend
        .dispatch(START, &Policy::default())
        .expect("a tick")
        .jobs;
    let copy = Forgery::CopyAs(Uuid::from_u128(9));
    let refused = |so_far: u64| {
        let counters = backend.counters().expect("counters");
        assert_eq!((counters.refused, counters.hmac_rejected), (so_far, 0));
        let record = subject
            .audit()
            .into_iter()
            .rfind(|it| it.action == "job.refused");
        let record = record.expect("a record of the refusal");
        assert_eq!(record.detail["failure"], "replayed");
    };
    // While the job waits, while it runs, and after it is done; then under its own name.
    subject.forge(jobs[0].1, &copy);
    let claims = claim(&*backend, 10, START);
    assert_eq!((hosts(&claims), claims[0].job), (vec!["h"], jobs[0].1));
    refused(1);
    subject.forge(jobs[0].1, &Forgery::CopyAs(Uuid::from_u128(10)));
    assert_eq!(hosts(&claim(&*backend, 10, START)), [""; 0]);
    refused(2);
    complete(&*backend, &claims[0], &scan_of(&claims[0], 1, 0, START));
    let row_before = row(&*backend, "h");
    for (so_far, forgery) in [
        (3, Forgery::CopyAs(Uuid::from_u128(11))),
        (4, Forgery::Again),
        (5, Forgery::Again),
    ] {
        subject.forge(jobs[0].1, &forgery);
        assert_eq!(hosts(&claim(&*backend, 10, START)), [""; 0], "{forgery:?}");
        refused(so_far);
    }
    assert_eq!(row(&*backend, "h"), row_before);
}

pub(super) fn expired(subject: &dyn Subject) {
    let backend = subject.backend();
    let policy = Policy::default();
    place_many(&*backend, "h", 2, START);
    dispatch(&*backend, START);
    let end = START.plus(policy.job_expiry);
    let last = claim(&*backend, 1, end.minus(Duration::from_nanos(1)));
    assert_eq!(hosts(&last), ["h-00"]);
    assert_eq!(hosts(&claim(&*backend, 1, end)), [""; 0]);
    let record = subject
        .audit()
        .into_iter()
        .rfind(|it| it.action == "job.refused");
    let record = record.expect("a record of the refusal");
    assert_eq!(
        (record.object.as_str(), &record.detail["failure"]),
        ("h-01", &"expired".into())
    );
    assert_eq!(dispatch(&*backend, end), ["h-01"], "due again at once");
    assert_eq!(hosts(&claim(&*backend, 1, end)), ["h-01"]);
}
