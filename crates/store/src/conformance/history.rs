//! Positions, times, and what is done once.

use std::time::Duration;

use super::{Subject, begin, delete, get, other, owned, put, table, transact};
use crate::{Commit, Kind, Outcome, Snapshot, Store};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn value_of(snapshot: &Snapshot, store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    owned(snapshot.get(table(store), key).expect("a sound store"))
}

pub(super) fn stable(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    put(&store, b"a", b"1");
    let commit = put(&store, b"b", b"1");
    let snapshot = store.snapshot().expect("a sound store");
    assert_eq!(snapshot.commit(), commit);
    for round in 0..20_u8 {
        put(&store, b"a", &[round]);
        put(&store, &[b'c', round], b"later");
        delete(&store, b"b");
        let rows = snapshot
            .range(t, &crate::Keys::all())
            .expect("a sound store");
        let rows: Vec<_> = rows
            .map(|row| row.expect("a sound store"))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        let expected = [
            (b"a".to_vec(), b"1".to_vec()),
            (b"b".to_vec(), b"1".to_vec()),
        ];
        assert_eq!(rows, expected);
        assert_eq!(value_of(&snapshot, &store, b"a"), Some(b"1".to_vec()));
        put(&store, b"b", &[round]);
    }
    // Longer than the handle that it came from.
    drop(store);
    assert_eq!(snapshot.commit(), commit);
    let found = snapshot.get(t, b"b").expect("a sound store");
    assert_eq!(found.as_deref(), Some(&b"1"[..]));
}

/// Values `0..20` of one key, a deletion at every fifth, each with its commit.
fn past(store: &Store) -> Vec<(Option<Vec<u8>>, Commit)> {
    (0..20_u8)
        .map(|round| match round % 5 {
            4 => (None, delete(store, b"a")),
            _ => (Some(vec![round]), put(store, b"a", &[round])),
        })
        .collect()
}

pub(super) fn positions(subject: &mut dyn Subject) {
    let store = subject.open();
    let past = past(&store);
    for (value, commit) in &past {
        let snapshot = store.snapshot_at(commit.lsn).expect("a retained position");
        assert_eq!(snapshot.commit(), *commit);
        assert_eq!(value_of(&snapshot, &store, b"a"), *value, "{commit}");
    }
    let retained = store.retained().expect("a sound store");
    let last = past.last().expect("twenty").1;
    assert_eq!(retained.to, last);
    let snapshot = store
        .snapshot_at(retained.from.lsn)
        .expect("what is retained");
    assert_eq!(value_of(&snapshot, &store, b"a"), None);
    drop((snapshot, store));
    let store = subject.open();
    assert_eq!(store.retained().expect("a sound store").to, last);
    for (value, commit) in past {
        let snapshot = store.snapshot_at(commit.lsn).expect("a retained position");
        assert_eq!(value_of(&snapshot, &store, b"a"), value, "{commit}");
    }
}

pub(super) fn times(subject: &mut dyn Subject) {
    let store = subject.open();
    let past = past(&store);
    let mut before = None;
    for (value, commit) in past {
        let snapshot = store.snapshot_at_time(commit.time).expect("a past time");
        assert_eq!(value_of(&snapshot, &store, b"a"), value, "{commit}");
        assert_eq!(snapshot.commit(), commit);
        if let Some(before) = before {
            // The last moment before it shows the one before.
            let moment = commit.time.minus(Duration::from_nanos(1));
            let snapshot = store.snapshot_at_time(moment).expect("a past time");
            assert_eq!(snapshot.commit(), before, "just before {commit}");
        }
        before = Some(commit);
    }
}

pub(super) fn asked(subject: &mut dyn Subject) {
    let store = subject.open();
    put(&store, b"a", b"1");
    for round in 0..20_u8 {
        let moment = subject.now();
        let then = store.snapshot_at_time(moment).expect("the present");
        let seen = value_of(&then, &store, b"a");
        let commit = put(&store, b"a", &[round]);
        assert!(commit.time > moment, "{commit} is not after what was asked");
        let again = store.snapshot_at_time(moment).expect("a past time");
        assert_eq!(again.commit(), then.commit());
        assert_eq!(value_of(&again, &store, b"a"), seen);
    }
}

pub(super) fn to_come(subject: &mut dyn Subject) {
    let store = subject.open();
    let last = put(&store, b"a", b"1");
    let retained = store.retained().expect("a sound store");
    let refusals = [
        store.snapshot_at(last.lsn.next()).err(),
        store.snapshot_at_time(subject.now().plus(DAY)).err(),
    ];
    for refused in refusals {
        let refused = refused.expect("nothing is known of it");
        assert_eq!(refused.kind(), Kind::OutOfRange, "{refused}");
        assert_eq!(refused.retained(), Some(retained), "{refused}");
    }
}

pub(super) fn dated(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    put(&store, b"a", b"1");
    for round in 0..10_u8 {
        let mut transaction = begin(&store);
        transaction.put(t, b"a", &[round]).expect("a valid write");
        let before = store.retained().expect("a sound store").to;
        // Where the clock has not moved, the next moment is the date.
        let date = subject
            .now()
            .max(before.time.plus(Duration::from_nanos(1000)));
        let commit = transaction
            .commit_dated(date)
            .expect("nobody else is there");
        // A machine that stands still for a second has made the date an old one.
        let is_old = subject.now() >= date.plus(Duration::from_secs(1));
        assert!(
            commit.time == date || is_old,
            "{commit}, asked {}",
            date.nanos()
        );
        let then = store.snapshot_at_time(commit.time).expect("a past time");
        assert_eq!(value_of(&then, &store, b"a"), Some(vec![round]));
    }
}

pub(super) fn odd_dates(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let mut before = put(&store, b"a", b"1");
    let dates = [
        before.time,
        before.time.minus(DAY),
        world::Timestamp::from_nanos(0),
        subject.now().plus(DAY),
        world::Timestamp::from_nanos(u64::MAX),
    ];
    for date in dates {
        let mut transaction = begin(&store);
        transaction.put(t, b"a", b"2").expect("a valid write");
        let commit = transaction
            .commit_dated(date)
            .expect("nobody else is there");
        assert!(commit.time > before.time && commit.lsn > before.lsn);
        // No further ahead than rounding takes, or the order of commits.
        let latest = subject.now().plus(Duration::from_millis(2));
        assert!(
            commit.time <= latest.max(before.time.plus(Duration::from_millis(2))),
            "{commit}"
        );
        before = commit;
    }
}

pub(super) fn once(subject: &mut dyn Subject) {
    let store = subject.open();
    let (t, o) = (table(&store), other(&store));
    let attempt = |store: &Store, key: &[u8], value: &[u8]| {
        let mut transaction = begin(store);
        transaction.put(t, b"a", value).expect("a valid write");
        transaction.commit_once(key).expect("a valid key")
    };
    let first = attempt(&store, b"request", b"1");
    assert!(matches!(first, Outcome::Committed(_)));
    assert_eq!(
        attempt(&store, b"request", b"2"),
        Outcome::Replayed(first.commit())
    );
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    // The first outcome stands whatever was read this time.
    let mut transaction = begin(&store);
    transaction.get(o, b"read").expect("a sound store");
    transact(&store, |writer| writer.put(o, b"read", b"changed"));
    transaction.put(t, b"a", b"3").expect("a valid write");
    let replayed = transaction.commit_once(b"request").expect("a used key");
    assert_eq!(replayed, Outcome::Replayed(first.commit()));
    // One that was refused has not used its key.
    let mut transaction = begin(&store);
    transaction.get(o, b"read").expect("a sound store");
    transact(&store, |writer| writer.put(o, b"read", b"again"));
    transaction.put(t, b"a", b"4").expect("a valid write");
    let refused = transaction.commit_once(b"other").expect_err("a change");
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    assert!(matches!(
        attempt(&store, b"other", b"5"),
        Outcome::Committed(_)
    ));
    // A key may be any bytes, up to the limit.
    let long = [0xff; crate::ONCE_LEN_MAX];
    for key in [&b"\0"[..], b"\xff", b"Request", &long] {
        assert!(
            matches!(attempt(&store, key, b"6"), Outcome::Committed(_)),
            "{key:?}"
        );
    }
    drop(store);
    let store = subject.open();
    let replayed = attempt(&store, b"request", b"7");
    assert_eq!(replayed, Outcome::Replayed(first.commit()));
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"6"[..]));
    for wrong in [&b""[..], &[1; crate::ONCE_LEN_MAX + 1]] {
        let refused = begin(&store).commit_once(wrong).expect_err("a wrong key");
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
}
