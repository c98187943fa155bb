//! The change feed.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use std::time::Duration;

use site::{Running, Site};
use store::{Committed, Feed, History, Kind};
use wal::{Journal, Lsn};

fn numbers(feed: &mut Feed) -> Vec<(u64, String)> {
    feed.map(|committed| committed.unwrap())
        .map(|committed: Committed| {
            let changes: Vec<_> = committed
                .changes
                .iter()
                .map(|change| {
                    let value = change.value.as_deref().unwrap_or(b"-");
                    format!(
                        "{}={}",
                        String::from_utf8_lossy(&change.key),
                        String::from_utf8_lossy(value)
                    )
                })
                .collect();
            (committed.commit.lsn.get(), changes.join(" "))
        })
        .collect()
}

fn fill(running: &Running) {
    running.put("a", "1");
    running
        .journal
        .append(&[(wal::RecordKind(99), b"not ours")])
        .unwrap();
    running.delete("a");
    let mut transaction = running.store.begin().unwrap();
    transaction.put(running.t(), b"b", b"2").unwrap();
    transaction.put(running.t(), b"c", b"3").unwrap();
    transaction.commit().unwrap();
}

/// Proves: DOC-10
#[test]
fn every_commit_is_fed_in_order_and_a_feed_resumes_where_it_ended() {
    let site = Site::forever();
    let running = site.open();
    fill(&running);
    let all = [
        (1, "a=1".to_owned()),
        (3, "a=-".to_owned()),
        (4, "b=2 c=3".to_owned()),
    ];
    let mut feed = running.store.feed(Lsn::ZERO).unwrap();
    assert_eq!(numbers(&mut feed), all);
    assert_eq!(feed.position(), Lsn::new(5));
    running.put("d", "4");
    assert_eq!(numbers(&mut feed), [(5, "d=4".to_owned())]);
    assert_eq!(numbers(&mut feed), []);
    for from in 1..=5 {
        let mut feed = running.store.feed(Lsn::new(from)).unwrap();
        let expected: Vec<_> = all
            .iter()
            .filter(|(lsn, _)| *lsn >= from)
            .cloned()
            .collect();
        let found = numbers(&mut feed);
        assert_eq!(found[..found.len() - 1], expected, "from {from}");
    }
    let error = running.store.feed(Lsn::new(7)).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfRange);

    drop(feed);
    let died = site.process_death();
    let running = died.open();
    let mut feed = running.store.feed(Lsn::new(2)).unwrap();
    assert_eq!(numbers(&mut feed).len(), 3);
}

/// Proves: DOC-10
#[test]
fn a_follower_wakes_for_the_next_commit() {
    let site = Site::forever();
    let running = site.open();
    let mut feed = running.store.feed(Lsn::FIRST).unwrap();
    assert!(feed.next_timeout(Duration::ZERO).unwrap().is_none());
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut seen = Vec::new();
            while seen.len() < 500 {
                if let Some(committed) = feed.next_timeout(Duration::from_secs(20)).unwrap() {
                    seen.push(committed.commit.lsn.get());
                }
            }
            seen
        });
        for round in 0..500 {
            running.put("a", &round.to_string());
        }
        let seen = follower.join().unwrap();
        assert_eq!(seen, (1..=500).collect::<Vec<_>>());
    });
}

/// Proves: DOC-10
#[test]
fn a_feed_that_lags_keeps_the_journal_until_it_is_dropped() {
    let mut site = Site::new(&[("t", History::Latest)]);
    site.change = |options| options.feed_bytes = 0;
    let running = site.open();
    running.put("a", "first");
    let value = "v".repeat(64 << 10);
    let write = || {
        for _ in 0..32 {
            running.put("a", &value);
        }
    };
    let churn = || {
        write();
        write();
        running.store.checkpoint().unwrap();
    };
    write();
    let mut feed = running.store.feed(Lsn::FIRST).unwrap();
    write();
    running.store.checkpoint().unwrap();
    assert_eq!(running.journal.first_retained(), Lsn::FIRST);
    let first = feed.next().unwrap().unwrap();
    assert_eq!(first.changes[0].value.as_ref().unwrap(), b"first");
    assert_eq!(feed.by_ref().count(), 64);
    churn();
    assert!(running.journal.first_retained() > Lsn::FIRST);
    assert_eq!(feed.by_ref().count(), 64, "all of it, after the release");
}
