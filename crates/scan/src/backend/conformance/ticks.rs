//! What a tick takes.

use super::*;

pub(super) fn oldest_first(subject: &dyn Subject) {
    let backend = subject.backend();
    let policy = Policy {
        dispatch_max: 3,
        ..Policy::default()
    };
    for (host, minutes) in [("c", 1), ("a", 3), ("e", 2), ("b", 5), ("d", 4)] {
        place(&*backend, host, "s", &[], START.plus(MINUTE * minutes));
    }
    let early = backend.dispatch(START, &policy).expect("a tick");
    assert_eq!(
        early.counts,
        super::super::Tick::default(),
        "nothing is due yet"
    );
    let now = START.plus(HOUR);
    let mut taken = Vec::new();
    for expected in [(5, 3, 2), (2, 2, 0), (0, 0, 0)] {
        let tick = backend.dispatch(now, &policy).expect("a tick");
        let counts = tick.counts;
        assert_eq!((counts.due, counts.dispatched, counts.left), expected);
        taken.extend(tick.jobs.into_iter().map(|(host, _)| host));
    }
    assert_eq!(taken, ["c", "e", "a", "d", "b"], "the longest due first");
    let counters = backend.counters().expect("counters");
    assert_eq!((counters.ticks, counters.last_tick), (4, Some(now.nanos())));
    assert_eq!((counters.total.due, counters.total.dispatched), (7, 5));
}

pub(super) fn missed(subject: &dyn Subject) {
    let backend = subject.backend();
    place_many(&*backend, "h", 3, START);
    assert_eq!(dispatch(&*backend, START).len(), 3);
    // Late by days: every host is due again by its row, and its job is still there.
    for now in [START, START.plus(MINUTE), START.plus(HOUR * 100)] {
        assert_eq!(dispatch(&*backend, now), [""; 0]);
    }
    assert_eq!(
        backend
            .counters()
            .expect("counters")
            .last
            .skipped_unfinished,
        3
    );
    let claims = claim(&*backend, 10, START.plus(MINUTE));
    assert_eq!(unique(&claims).len(), 3);
    assert_eq!(
        dispatch(&*backend, START.plus(HOUR * 100)),
        [""; 0],
        "running is not over"
    );
}

pub(super) fn concurrent(subject: &dyn Subject) {
    let backend = subject.backend();
    place_many(&*backend, "h", 12, START);
    let handles = [subject.backend(), subject.backend()];
    let policy = Policy {
        dispatch_max: 7,
        ..Policy::default()
    };
    let taken: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = handles
            .iter()
            .map(|handle| {
                let policy = &policy;
                scope.spawn(move || {
                    let tick = handle.dispatch(START, policy).expect("a tick");
                    tick.jobs.into_iter().map(|(host, _)| host).collect()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let all: BTreeSet<&String> = taken.iter().flatten().collect();
    assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 12, "{taken:?}");
    assert_eq!(all.len(), 12, "disjoint: {taken:?}");
    assert_eq!(claim(&*backend, 100, START).len(), 12);
}

pub(super) fn maintenance(subject: &dyn Subject) {
    let backend = subject.backend();
    place(&*backend, "by-host", "s", &[], START);
    place(&*backend, "by-group", "s", &["db", "x"], START);
    place(&*backend, "by-site", "t", &["x"], START);
    place(&*backend, "free", "u", &["x"], START);
    let end = START.plus(HOUR);
    for (scope, until) in [
        (Scope::Host("by-host".into()), Some(end)),
        (Scope::Group("db".into()), Some(end)),
        (Scope::Site("t".into()), None),
        (Scope::Host("nobody".into()), None),
    ] {
        let maintenance = super::maintenance(scope, until);
        backend
            .set_maintenance(&maintenance, START, USER)
            .expect("maintenance that holds");
    }
    let before = backend.schedule().expect("rows");
    assert_eq!(dispatch(&*backend, START), ["free"]);
    let counters = backend.counters().expect("counters");
    assert_eq!(counters.last.skipped_maintenance, 3);
    let unchanged = |row: &&Row| row.host != "free";
    let after = backend.schedule().expect("rows");
    assert!(
        before
            .iter()
            .filter(unchanged)
            .eq(after.iter().filter(unchanged))
    );

    assert_eq!(
        dispatch(&*backend, end),
        ["by-group", "by-host"],
        "it ends at its end"
    );
    assert_eq!(
        backend.maintenances().expect("a list").len(),
        2,
        "what ended is gone"
    );
    let site = Scope::Site("t".into());
    assert!(backend.clear_maintenance(&site, end, USER).expect("clears"));
    assert!(
        !backend
            .clear_maintenance(&site, end, USER)
            .expect("is clear")
    );
    assert_eq!(dispatch(&*backend, end), ["by-site"]);
    let told = |action: &str| {
        let records = subject.audit();
        records
            .iter()
            .filter(|record| record.action == action)
            .count()
    };
    assert_eq!(
        (told("maintenance.set"), told("maintenance.cleared")),
        (4, 3)
    );
    let ended = super::maintenance(Scope::Site("t".into()), Some(START));
    backend
        .set_maintenance(&ended, START, USER)
        .expect_err("it would hold at no time");
}

pub(super) fn policy_version(subject: &dyn Subject) {
    let backend = subject.backend();
    place(&*backend, "h", "s", &[], START);
    let policy = Policy::default();
    let reloaded = Policy {
        version: policy.version.next(),
        ..policy.clone()
    };
    backend.dispatch(START, &policy).expect("a tick");
    let claimed = backend
        .claim("w", 1, START, &reloaded)
        .expect("a claim")
        .remove(0);
    assert_eq!(claimed.policy_version, policy.version.to_string());
    let scan = scan_of(&claimed, 1, 0, START.plus(MINUTE));
    backend
        .complete(&claimed, &scan, scan.finished, &reloaded, &LogSink)
        .expect("a lease that holds");
    assert_eq!(
        row(&*backend, "h").policy_version,
        Some(policy.version.to_string())
    );
}

pub(super) fn retired(subject: &dyn Subject) {
    let backend = subject.backend();
    place_many(&*backend, "h", 2, START);
    assert_eq!(dispatch(&*backend, START).len(), 2);
    backend.retire("h-00", START, USER).expect("retires");
    assert_eq!(hosts(&claim(&*backend, 10, START)), ["h-01"]);
    assert_eq!(backend.counters().expect("counters").refused, 1);
    assert_eq!(backend.row("h-00").expect("a look"), None);
    assert_eq!(dispatch(&*backend, START.plus(HOUR * 100)), [""; 0]);
    place(&*backend, "h-00", "s", &[], START.plus(HOUR));
    assert_eq!(
        dispatch(&*backend, START.plus(HOUR)),
        ["h-00"],
        "it may come back"
    );
}
