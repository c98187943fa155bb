//! Time travel: what the past answers, and how far back it goes.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use std::time::Duration;

use site::{START, Site, text};
use store::{History, Keys, Kind};
use wal::{Journal, Lsn};
use world::Clock;

const MINUTE: Duration = Duration::from_secs(60);

/// Proves: DOC-7
#[test]
fn a_snapshot_sees_the_newest_version_at_or_below_its_position() {
    let site = Site::forever();
    let running = site.open();
    let one = running.put("a", "1").lsn;
    let other = running.put("b", "1").lsn;
    let two = running.put("a", "2").lsn;
    let gone = running.delete("a").lsn;
    let back = running.put("a", "3").lsn;
    let check = |when: &str| {
        let expected = [
            (Lsn::ZERO, None),
            (one, Some("1")),
            (other, Some("1")),
            (two, Some("2")),
            (gone, None),
            (back, Some("3")),
        ];
        for (lsn, value) in expected {
            assert_eq!(
                running.get_at("a", lsn).as_deref(),
                value,
                "{when}, lsn {lsn}"
            );
            let snapshot = running.store.snapshot_at(lsn).unwrap();
            let seen = snapshot.range(running.t(), &Keys::prefix(b"a")).unwrap();
            let seen: Vec<_> = seen.map(|item| item.unwrap().1.to_vec()).collect();
            let value: Vec<_> = value.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(seen, value, "{when}, range at lsn {lsn}");
        }
    };
    check("in memory");
    running.store.checkpoint().unwrap();
    check("in a file");
    running.store.compact().unwrap();
    check("compacted");
}

/// Proves: DOC-7
#[test]
fn a_held_snapshot_neither_moves_nor_stops_a_writer() {
    let mut site = Site::new(&[("t", History::Latest)]);
    site.change = |options| options.memtable_bytes = 4096;
    let running = site.open();
    for key in 0..100 {
        running.put(&format!("{key:03}"), "old");
    }
    let held = running.store.snapshot().unwrap();
    for key in 0..100 {
        running.put(&format!("{key:03}"), "new");
        if key % 2 == 0 {
            running.delete(&format!("{key:03}"));
        }
    }
    running.store.compact().unwrap();
    let seen: Vec<_> = held
        .range(running.t(), &Keys::all())
        .unwrap()
        .map(|item| item.unwrap())
        .collect();
    assert_eq!(seen.len(), 100);
    assert!(seen.iter().all(|(_, value)| value == b"old"));
    assert_eq!(running.get("000"), None);
    assert_eq!(running.get("001").as_deref(), Some("new"));
}

#[test]
fn a_range_is_read_from_either_end() {
    let site = Site::forever();
    let running = site.open();
    for key in ["a", "b", "c", "d", "e"] {
        running.put(key, key);
    }
    running.delete("c");
    let snapshot = running.store.snapshot().unwrap();
    let range = || {
        snapshot
            .range(running.t(), &Keys::between(b"b", b"e"))
            .unwrap()
    };
    let key = |item: Result<(store::Bytes, store::Bytes), store::Error>| item.unwrap().0.to_vec();
    assert_eq!(range().map(key).collect::<Vec<_>>(), [b"b", b"d"]);
    assert_eq!(range().rev().map(key).collect::<Vec<_>>(), [b"d", b"b"]);
    assert_eq!(range().rev().take(1).map(key).collect::<Vec<_>>(), [b"d"]);
    let mut both = range();
    assert_eq!(both.next().map(key).as_deref(), Some(b"b".as_slice()));
    assert_eq!(both.next_back().map(key).as_deref(), Some(b"d".as_slice()));
    assert!(both.next().is_none() && both.next_back().is_none());
    let none = snapshot
        .range(running.t(), &Keys::between(b"e", b"b"))
        .unwrap();
    assert_eq!(none.count(), 0);
}

/// Proves: DOC-22
#[test]
fn a_wished_date_is_taken_only_near_the_clock_and_within_the_order() {
    let site = Site::forever();
    let running = site.open();
    let half = Duration::from_micros(500);
    let dated = |date| {
        let mut transaction = running.store.begin().unwrap();
        transaction.put(running.t(), b"a", b"1").unwrap();
        transaction.commit_dated(date).unwrap().time
    };
    let now = || {
        site.advance(MINUTE);
        site.clock.now()
    };
    let ahead = now().plus(half);
    assert_eq!(dated(ahead), ahead, "rounding up to a millisecond");
    assert_eq!(
        dated(ahead),
        ahead.plus(Duration::from_nanos(1)),
        "never twice, never before"
    );
    let far = now();
    assert_eq!(
        dated(far.plus(MINUTE)),
        far.plus(2 * half),
        "not in the future"
    );
    let behind = now().minus(half);
    assert_eq!(
        dated(behind),
        behind,
        "the time of the work, not of its end"
    );
    let stale = now();
    assert_eq!(
        dated(stale.minus(MINUTE)),
        stale,
        "nothing is dated long before it was known"
    );
    let asked = now();
    drop(running.store.snapshot_at_time(asked).unwrap());
    assert!(
        dated(asked.minus(half)) > asked,
        "an answer that was given stays true"
    );
}

/// Proves: DOC-8, DOC-22
#[test]
fn the_past_is_found_by_time_and_the_same_time_always_answers_the_same() {
    let site = Site::forever();
    let running = site.open();
    site.advance(MINUTE);
    let first = running.put("a", "1");
    site.advance(MINUTE);
    let second = running.put("a", "2");
    let same_instant = running.put("a", "3");
    assert!(second.time < same_instant.time, "times rise strictly");
    let at = |time| {
        let snapshot = running.store.snapshot_at_time(time).unwrap();
        (
            snapshot.lsn(),
            text(snapshot.get(running.t(), b"a").unwrap()),
        )
    };
    let check = || {
        assert_eq!(at(START), (Lsn::ZERO, None));
        assert_eq!(at(first.time), (first.lsn, Some("1".to_owned())));
        assert_eq!(at(second.time.minus(Duration::from_nanos(1))).0, first.lsn);
        assert_eq!(at(second.time).0, second.lsn);
        assert_eq!(at(same_instant.time).0, same_instant.lsn);
    };
    check();
    running.store.compact().unwrap();
    check();

    site.advance(MINUTE);
    let now = site.clock.now();
    let answer = at(now);
    assert_eq!(answer.0, same_instant.lsn);
    let later = running.put("a", "4");
    assert!(
        later.time > now,
        "nothing is dated at a time already asked for"
    );
    assert_eq!(at(now), answer);
}

#[test]
fn a_clock_stepped_back_does_not_reorder_history() {
    let site = Site::forever();
    let running = site.open();
    site.advance(10 * MINUTE);
    let before = running.put("a", "1");
    site.clock.set_now(START);
    let after = running.put("a", "2");
    assert!(after.time > before.time);
    running.store.close().unwrap();
    drop(running);
    let running = site.open();
    let reopened = running.put("a", "3");
    assert!(reopened.time > after.time, "a restart does not forget it");
    let snapshot = running.store.snapshot_at_time(after.time).unwrap();
    assert_eq!(snapshot.lsn(), after.lsn);
    assert_eq!(snapshot.time(), after.time);
}

/// Proves: DOC-8
#[test]
fn outside_the_retained_history_the_error_names_what_is_retained() {
    let site = Site::new(&[
        ("t", History::For(10 * MINUTE)),
        ("forever", History::Forever),
    ]);
    let running = site.open();
    site.advance(MINUTE);
    let old = running.put("a", "old");
    site.advance(MINUTE);
    let kept = running.put("a", "kept");
    site.advance(10 * MINUTE);
    let new = running.put("a", "new");
    running.store.compact().unwrap();

    assert_eq!(running.get_at("a", new.lsn).as_deref(), Some("new"));
    assert_eq!(running.get_at("a", kept.lsn).as_deref(), Some("kept"));
    let snapshot = running.store.snapshot_at(old.lsn).unwrap();
    let error = snapshot.get(running.t(), b"a").unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfRange);
    let retained = error.retained().unwrap();
    assert_eq!((retained.from, retained.to), (kept, new));
    assert_eq!(
        error.to_string(),
        "lsn 1 of table \"t\" is outside the retained history, lsn 2 (2026-01-01T00:02:00Z) to \
         lsn 3 (2026-01-01T00:12:00Z)"
    );
    let error = snapshot.range(running.t(), &Keys::all()).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfRange);
    let forever = running.store.table("forever").unwrap();
    assert_eq!(snapshot.get(forever, b"a").unwrap(), None);

    let refused = |result: Result<store::Snapshot, store::Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::OutOfRange, "{error}");
        assert!(
            error.to_string().contains("2026-01-01T00:00:00Z"),
            "{error}"
        );
    };
    refused(running.store.snapshot_at(new.lsn.next()));
    refused(running.store.snapshot_at_time(START.minus(MINUTE)));
    refused(
        running
            .store
            .snapshot_at_time(site.clock.now().plus(MINUTE)),
    );
}

/// Proves: DOC-8
#[test]
fn what_history_no_longer_keeps_is_reclaimed_and_stays_out_of_range_after_a_restart() {
    let site = Site::new(&[("t", History::Latest)]);
    let running = site.open();
    let first = running.put("a", "first");
    for round in 0..1000 {
        running.put("a", &format!("{round}"));
        running.put("b", "b");
    }
    running.delete("b");
    running.store.compact().unwrap();
    let stats = running.store.stats();
    assert_eq!(stats.tables[0].versions, 1, "one key, and no deletion");
    assert_eq!(running.get("a").as_deref(), Some("999"));
    assert_eq!(running.get("b"), None);
    running.store.close().unwrap();
    drop(running);
    let running = site.open();
    assert_eq!(running.get("a").as_deref(), Some("999"));
    let error = running.store.snapshot_at(first.lsn).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfRange);
}

/// Proves: DOC-8
#[test]
fn a_version_that_was_the_newest_at_the_floor_is_kept_however_old_it_is() {
    // A version is needed as long as no newer one is at or below the floor; its own age does not
    // matter. A threshold on the age of versions alone would lose `a` here.
    let site = Site::new(&[("t", History::For(10 * MINUTE))]);
    let running = site.open();
    running.put("a", "ancient");
    running.put("gone", "ancient");
    site.advance(60 * MINUTE);
    let deleted = running.delete("gone");
    site.advance(60 * MINUTE);
    let floor = running.put("b", "floor");
    site.advance(5 * MINUTE);
    running.put("a", "new");
    running.put("gone", "again");
    site.advance(5 * MINUTE);
    running.store.compact().unwrap();
    running.store.compact().unwrap();
    assert_eq!(running.get_at("a", floor.lsn).as_deref(), Some("ancient"));
    assert_eq!(running.get_at("gone", floor.lsn), None);
    let snapshot = running.store.snapshot_at_time(floor.time).unwrap();
    assert_eq!(snapshot.commit(), floor);
    assert_eq!(running.store.retained().unwrap().from, floor);
    assert!(running.store.snapshot_at(deleted.lsn).is_err());
    assert_eq!(running.get("a").as_deref(), Some("new"));
    assert_eq!(running.get("gone").as_deref(), Some("again"));
}

#[test]
fn history_of_ten_thousand_versions_of_one_key_is_read_at_each_of_them() {
    let mut site = Site::forever();
    site.change = |options| options.memtable_bytes = 64 << 10;
    let running = site.open();
    let t = running.t();
    let lsns: Vec<_> = (0..10_000)
        .map(|round| running.put("a", &format!("{round}")).lsn)
        .collect();
    for pass in ["spread", "compacted"] {
        for (round, lsn) in lsns.iter().enumerate().step_by(37) {
            let seen = running.get_at("a", *lsn);
            assert_eq!(seen.as_deref(), Some(format!("{round}").as_str()), "{pass}");
            let snapshot = running.store.snapshot_at(*lsn).unwrap();
            assert_eq!(snapshot.range(t, &Keys::all()).unwrap().count(), 1);
        }
        running.store.compact().unwrap();
    }
}

#[test]
fn a_position_between_commits_of_others_reads_as_the_commit_before_it() {
    let site = Site::forever();
    let running = site.open();
    running.put("a", "1");
    let other = wal::RecordKind(99);
    running.journal.append(&[(other, b"not ours")]).unwrap();
    let commit = running.put("a", "2");
    assert_eq!(commit.lsn, Lsn::new(3));
    assert_eq!(running.get_at("a", Lsn::new(2)).as_deref(), Some("1"));
    assert_eq!(running.get_at("a", Lsn::new(3)).as_deref(), Some("2"));
}
