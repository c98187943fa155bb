//! Checkpoints that come by themselves, and the journal that goes by them, over several lives.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use site::Site;
use wal::{Journal, Lsn};
use world::Clock;

/// Longer than anything here takes on a machine that runs at all.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// The bound was passed in the life before, while its checkpoint was taken or right before it ended: no
/// append of this life passed it again, so there was no checkpoint, and the journal grew without end.
#[test]
fn a_store_that_replayed_enough_for_a_checkpoint_takes_one_by_itself() {
    let site = Site::forever();
    let running = site.open();
    let value = "v".repeat(1000);
    for round in 0..200 {
        running.put(&format!("{round}"), &value);
    }
    let mut dead = site.process_death();
    dead.change = |options| options.checkpoint_bytes = 64 << 10;
    let running = dead.open();
    assert_eq!(running.report.commits, 200);
    let clock = world::RealClock::new();
    while running.store.stats().checkpoint < running.safe_point() {
        assert!(clock.monotonic() < PATIENCE, "{:?}", running.store.stats());
        std::thread::yield_now();
    }
}

/// What is kept for feeds was counted anew in each life: none of them wrote as much, and nothing went.
#[test]
fn many_short_lives_let_the_journal_go_as_one_long_one_does() {
    let mut site = Site::forever();
    site.change = |options| options.feed_bytes = 2 << 20;
    let value = "v".repeat(16 << 10);
    let mut lives = 0;
    for life in 0..40 {
        let running = site.open();
        for round in 0..20 {
            running.put(&format!("{}", round % 10), &value);
        }
        running.store.close().unwrap();
        lives = life + 1;
        if running.journal.first_retained() > Lsn::new(100) {
            break;
        }
    }
    // 20 records of 16 KiB in each: 2 MiB are seven lives, and segments of 1 MiB go whole.
    assert!((10..25).contains(&lives), "{lives} lives");
    let running = site.open();
    let first = running.journal.first_retained();
    let kept = (running.safe_point().get() - first.get()) * (16 << 10);
    assert!(kept >= 2 << 20, "{kept} bytes from lsn {first} on");
    drop(running.store.feed(first).unwrap());
}

/// The journal of a copy may begin above what its manifest keeps for feeds: after a rebuild that broke off,
/// where the copy had everything already. Its next checkpoint held what was gone, and ended the store.
#[test]
fn a_store_whose_journal_begins_above_what_it_keeps_for_feeds_goes_on() {
    let site = Site::forever();
    let running = site.open();
    let value = "v".repeat(64 << 10);
    for round in 0..64 {
        running.put(&format!("{round}"), &value);
    }
    running.store.close().unwrap();
    drop(running);
    let journal = site.journal().unwrap();
    journal.release_below(journal.safe_point().next()).unwrap();
    let first = journal.first_retained();
    assert!(first > Lsn::FIRST);
    drop(journal);
    let running = site.open();
    let last = running.put("a", "1");
    assert_eq!(running.store.checkpoint().unwrap(), last);
    assert!(running.store.failure().is_none());
    assert_eq!(running.journal.first_retained(), first);
}
