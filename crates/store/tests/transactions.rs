//! Transactions: what they see, when they conflict, what they leave.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use site::{Site, text};
use store::{Error, Keys, Kind, Order, Outcome, Transaction};

const ALL: usize = usize::MAX;

fn keys(found: &[(store::Bytes, store::Bytes)]) -> Vec<&[u8]> {
    found.iter().map(|(key, _)| &**key).collect()
}

#[test]
fn what_was_committed_is_read_by_whoever_comes_after() {
    let site = Site::forever();
    let running = site.open();
    assert_eq!(running.get("a"), None);
    running.put("a", "1");
    assert_eq!(running.get("a").as_deref(), Some("1"));
    running.put("a", "2");
    assert_eq!(running.get("a").as_deref(), Some("2"));
    running.delete("a");
    assert_eq!(running.get("a"), None);
}

/// Proves: DOC-6
#[test]
fn a_transaction_over_several_tables_is_seen_wholly_or_not_at_all() {
    let site = Site::new(&[
        ("a", store::History::Forever),
        ("b", store::History::Forever),
    ]);
    let running = site.open();
    let (a, b) = (
        running.store.table("a").unwrap(),
        running.store.table("b").unwrap(),
    );
    let before = running.store.snapshot().unwrap();
    let mut transaction = running.store.begin().unwrap();
    transaction.put(a, b"k", b"1").unwrap();
    transaction.put(b, b"k", b"2").unwrap();
    assert_eq!(
        running.store.snapshot().unwrap().get(a, b"k").unwrap(),
        None
    );
    let commit = transaction.commit().unwrap();
    let after = running.store.snapshot().unwrap();
    assert_eq!(after.lsn(), commit.lsn);
    assert_eq!(text(after.get(a, b"k").unwrap()).as_deref(), Some("1"));
    assert_eq!(text(after.get(b, b"k").unwrap()).as_deref(), Some("2"));
    assert_eq!(before.get(a, b"k").unwrap(), None);
    assert_eq!(before.get(b, b"k").unwrap(), None);
}

#[test]
fn a_transaction_reads_its_own_writes_in_order_with_what_is_stored() {
    let site = Site::forever();
    let running = site.open();
    for key in ["b", "d", "f"] {
        running.put(key, "stored");
    }
    let t = running.t();
    let mut transaction = running.store.begin().unwrap();
    transaction.put(t, b"c", b"written").unwrap();
    transaction.put(t, b"d", b"written").unwrap();
    transaction.delete(t, b"b").unwrap();
    assert_eq!(transaction.get(t, b"b").unwrap(), None);
    assert_eq!(transaction.get(t, b"d").unwrap().unwrap(), b"written");
    let mut check = |range: Keys, order, limit, expected: &[&[u8]]| {
        let found = transaction.range(t, &range, order, limit).unwrap();
        assert_eq!(keys(&found), expected, "{range:?} {order:?} {limit}");
    };
    use Order::{Ascending, Descending};
    check(Keys::all(), Ascending, ALL, &[b"c", b"d", b"f"]);
    check(Keys::all(), Descending, ALL, &[b"f", b"d", b"c"]);
    check(Keys::all(), Ascending, 2, &[b"c", b"d"]);
    check(Keys::all(), Descending, 2, &[b"f", b"d"]);
    check(Keys::after(b"c"), Ascending, ALL, &[b"d", b"f"]);
    check(Keys::between(b"b", b"d"), Ascending, ALL, &[b"c"]);
    check(Keys::prefix(b"e"), Ascending, ALL, &[]);
    check(Keys::all(), Ascending, 0, &[]);
}

/// Each pair of transactions begins at the same position; the first commits, then the second.
fn check_pair(
    story: &str,
    first: fn(&mut Transaction, store::TableId) -> Result<(), Error>,
    second: fn(&mut Transaction, store::TableId) -> Result<(), Error>,
    conflicts: bool,
) {
    let site = Site::forever();
    let running = site.open();
    for key in ["b", "d", "f", "h"] {
        running.put(key, "0");
    }
    let t = running.t();
    let mut one = running.store.begin().unwrap();
    let mut two = running.store.begin().unwrap();
    first(&mut one, t).unwrap();
    second(&mut two, t).unwrap();
    one.commit().unwrap();
    let before = running.safe_point();
    match two.commit() {
        Ok(_) => assert!(!conflicts, "{story}: expected a conflict"),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Conflict, "{story}: {error}");
            assert!(conflicts, "{story}: {error}");
            assert_eq!(running.safe_point(), before, "{story}: nothing was written");
            assert_ne!(running.get("z").as_deref(), Some("two"), "{story}");
        }
    }
}

/// Proves: DOC-6
#[test]
fn a_transaction_that_could_not_have_run_alone_conflicts() {
    check_pair(
        "lost update",
        |one, t| {
            one.get(t, b"b")?;
            one.put(t, b"b", b"one")
        },
        |two, t| {
            two.get(t, b"b")?;
            two.put(t, b"b", b"two")
        },
        true,
    );
    check_pair(
        "write skew",
        |one, t| {
            one.get(t, b"b")?;
            one.get(t, b"d")?;
            one.put(t, b"b", b"one")
        },
        |two, t| {
            two.get(t, b"b")?;
            two.get(t, b"d")?;
            two.put(t, b"d", b"two")
        },
        true,
    );
    check_pair(
        "what was not there has come",
        |one, t| one.put(t, b"z", b"one"),
        |two, t| {
            two.get(t, b"z")?;
            two.put(t, b"b", b"two")
        },
        true,
    );
    check_pair(
        "what was there has gone",
        |one, t| one.delete(t, b"b"),
        |two, t| {
            two.get(t, b"b")?;
            two.put(t, b"z", b"two")
        },
        true,
    );
}

/// Proves: DOC-6
#[test]
fn a_key_that_came_into_a_gap_that_was_read_conflicts() {
    check_pair(
        "a phantom in a range",
        |one, t| one.put(t, b"e", b"one"),
        |two, t| {
            two.range(t, &Keys::between(b"d", b"f"), Order::Ascending, ALL)?;
            two.put(t, b"z", b"two")
        },
        true,
    );
    check_pair(
        "a phantom in an empty range",
        |one, t| one.put(t, b"x", b"one"),
        |two, t| {
            two.range(t, &Keys::prefix(b"x"), Order::Ascending, ALL)?;
            two.put(t, b"z", b"two")
        },
        true,
    );
    check_pair(
        "a phantom before the limit, read from above",
        |one, t| one.put(t, b"e", b"one"),
        |two, t| {
            two.range(t, &Keys::between(b"a", b"g"), Order::Descending, 2)?;
            two.put(t, b"z", b"two")
        },
        true,
    );
    check_pair(
        "a phantom under a key that was deleted in the same transaction",
        |one, t| one.put(t, b"b", b"one"),
        |two, t| {
            two.delete(t, b"b")?;
            two.range(t, &Keys::prefix(b"b"), Order::Ascending, ALL)?;
            two.put(t, b"z", b"two")
        },
        true,
    );
}

#[test]
fn a_transaction_that_could_have_run_alone_commits() {
    check_pair(
        "blind writes of one key",
        |one, t| one.put(t, b"b", b"one"),
        |two, t| two.put(t, b"b", b"two"),
        false,
    );
    check_pair(
        "other keys",
        |one, t| {
            one.get(t, b"b")?;
            one.put(t, b"b", b"one")
        },
        |two, t| {
            two.get(t, b"d")?;
            two.put(t, b"d", b"two")
        },
        false,
    );
    check_pair(
        "beyond the limit of a range",
        |one, t| one.put(t, b"e", b"one"),
        |two, t| {
            two.range(t, &Keys::all(), Order::Ascending, 2)?;
            two.put(t, b"z", b"two")
        },
        false,
    );
    check_pair(
        "beyond the limit of a range, read from above",
        |one, t| one.put(t, b"c", b"one"),
        |two, t| {
            two.range(t, &Keys::all(), Order::Descending, 2)?;
            two.put(t, b"z", b"two")
        },
        false,
    );
    check_pair(
        "only its own write was read",
        |one, t| one.put(t, b"b", b"one"),
        |two, t| {
            two.put(t, b"b", b"two")?;
            two.get(t, b"b").map(drop)
        },
        false,
    );
    check_pair(
        "nothing is written",
        |one, t| one.put(t, b"b", b"one"),
        |two, t| two.get(t, b"b").map(drop),
        false,
    );
}

#[test]
fn a_transaction_that_only_reads_writes_nothing() {
    let site = Site::forever();
    let running = site.open();
    let put = running.put("a", "1");
    let mut transaction = running.store.begin().unwrap();
    transaction.get(running.t(), b"a").unwrap();
    assert_eq!(transaction.commit().unwrap(), put);
    assert_eq!(running.safe_point(), put.lsn);
}

#[test]
fn an_old_transaction_without_reads_still_commits_after_many_others() {
    let site = Site::forever();
    let running = site.open();
    let t = running.t();
    let mut old = running.store.begin().unwrap();
    let mut reader = running.store.begin().unwrap();
    reader.get(t, b"untouched").unwrap();
    for round in 0..100 {
        running.put("a", &round.to_string());
    }
    old.put(t, b"b", b"old").unwrap();
    old.commit().unwrap();
    reader.put(t, b"c", b"reader").unwrap();
    reader.commit().unwrap();
}

/// Proves: DOC-9
#[test]
fn an_idempotency_key_gives_the_first_outcome_also_after_a_crash() {
    let site = Site::forever();
    let running = site.open();
    let t = running.t();
    let send = |running: &site::Running, value: &[u8]| {
        let mut transaction = running.store.begin().unwrap();
        transaction.put(t, b"a", value).unwrap();
        transaction.commit_once(b"request 1").unwrap()
    };
    let first = send(&running, b"1");
    assert!(matches!(first, Outcome::Committed(_)));
    assert_eq!(send(&running, b"2"), Outcome::Replayed(first.commit()));
    assert_eq!(running.get("a").as_deref(), Some("1"));

    let died = site.process_death();
    let running = died.open();
    assert_eq!(send(&running, b"3"), Outcome::Replayed(first.commit()));
    assert_eq!(running.get("a").as_deref(), Some("1"));
    let known = running.store.outcome_of(b"request 1").unwrap();
    assert_eq!(known, Some(first.commit()));
    assert_eq!(running.store.outcome_of(b"request 2").unwrap(), None);
    running.store.close().unwrap();
    drop(running);

    let running = died.open();
    assert_eq!(send(&running, b"4"), Outcome::Replayed(first.commit()));
}

/// Proves: DOC-9
#[test]
fn an_idempotency_key_is_forgotten_after_its_time_and_then_first_again() {
    let mut site = Site::forever();
    site.change = |options| options.idempotency = std::time::Duration::from_secs(60);
    let running = site.open();
    let send = || {
        let mut transaction = running.store.begin().unwrap();
        transaction.put(running.t(), b"a", b"1").unwrap();
        transaction.commit_once(b"request").unwrap()
    };
    let first = send();
    site.advance(std::time::Duration::from_secs(50));
    running.put("b", "1");
    assert_eq!(send(), Outcome::Replayed(first.commit()));
    site.advance(std::time::Duration::from_secs(20));
    running.put("b", "2");
    let again = send();
    assert!(matches!(again, Outcome::Committed(_)));
    assert_eq!(send(), Outcome::Replayed(again.commit()));
    running.store.compact().unwrap();
    assert_eq!(send(), Outcome::Replayed(again.commit()));
    site.advance(std::time::Duration::from_secs(70));
    running.put("b", "3");
    running.store.compact().unwrap();
    assert!(matches!(send(), Outcome::Committed(_)));
}

#[test]
fn what_can_never_be_stored_is_refused_when_it_is_written() {
    let site = Site::forever();
    let running = site.open();
    let t = running.t();
    let mut transaction = running.store.begin().unwrap();
    let check = |result: Result<(), Error>, what: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{what}");
        assert!(error.to_string().contains(what), "{error}");
    };
    check(transaction.put(t, b"", b"v"), "key of 0 bytes");
    check(
        transaction.put(t, &vec![0; 8193], b"v"),
        "key of 8193 bytes",
    );
    let large = vec![0; (8 << 20) + 1];
    check(transaction.put(t, b"k", &large), "value of 8388609 bytes");
    let half = &large[..8 << 20];
    transaction.put(t, b"1", half).unwrap();
    check(transaction.put(t, b"2", half), "transaction of more than");
    let other = Site::new(&[("x", store::History::Latest), ("y", store::History::Latest)]);
    let foreign = other.open().store.table("y").unwrap();
    check(transaction.put(foreign, b"k", b"v"), "not of this store");
    check(
        transaction.get(foreign, b"k").map(drop),
        "not of this store",
    );
    check(running.store.table("none").map(drop), "no table \"none\"");
    transaction.commit().unwrap();
    assert_eq!(running.get("1").map(|value| value.len()), Some(8 << 20));
}

#[test]
fn a_closed_store_refuses_everything_but_what_is_already_held() {
    let site = Site::forever();
    let running = site.open();
    running.put("a", "1");
    let snapshot = running.store.snapshot().unwrap();
    let mut transaction = running.store.begin().unwrap();
    transaction.put(running.t(), b"a", b"2").unwrap();
    running.store.close().unwrap();
    let closed = |error: Error| assert_eq!(error.kind(), Kind::Closed, "{error}");
    closed(transaction.commit().unwrap_err());
    closed(running.store.begin().unwrap_err());
    closed(running.store.snapshot().unwrap_err());
    closed(running.store.checkpoint().unwrap_err());
    closed(running.store.close().unwrap_err());
    assert_eq!(snapshot.get(running.t(), b"a").unwrap().unwrap(), b"1");
}
