//! Threads at once: nothing is lost, nothing is seen half.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use std::sync::{
    Barrier,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use site::{Running, Site};
use store::{Error, History, Keys, Kind, Order, Outcome, Transaction};
use world::{Random, sim};

const ACCOUNTS: u64 = 12;
const EACH: u64 = 100;
const THREADS: u64 = 6;
const TRANSFERS: u64 = 150;
const REQUESTS: u64 = 50;

/// Ends the threads that wait for it, also when an assertion ends the test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn account(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn balance(value: Option<store::Bytes>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()))
}

/// Runs `body` until it commits; returns how often it conflicted.
fn retried(running: &Running, mut body: impl FnMut(&mut Transaction) -> Result<(), Error>) -> u64 {
    let mut conflicts = 0;
    loop {
        let mut transaction = running.store.begin().unwrap();
        body(&mut transaction).unwrap();
        match transaction.commit() {
            Ok(_) => return conflicts,
            Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
        }
        conflicts += 1;
    }
}

fn total(running: &Running) -> u64 {
    let snapshot = running.store.snapshot().unwrap();
    let accounts = snapshot.range(running.t(), &Keys::all()).unwrap();
    accounts.map(|item| balance(Some(item.unwrap().1))).sum()
}

/// Proves: DOC-6, DOC-7
#[test]
fn money_moved_by_many_threads_neither_comes_nor_goes() {
    let mut site = Site::forever();
    site.syncs_for_real = true;
    site.change = |options| {
        options.memtable_bytes = 8 << 10;
        options.checkpoint_bytes = 64 << 10;
    };
    let running = site.open();
    let t = running.t();
    retried(&running, |transaction| {
        (0..ACCOUNTS).try_for_each(|n| transaction.put(t, &account(n), &account(EACH)))
    });
    let (is_over, conflicts) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|seed| {
                let (running, conflicts) = (&running, &conflicts);
                scope.spawn(move || {
                    let dice = sim::Random::new(seed);
                    for _ in 0..TRANSFERS {
                        let (from, to) = (
                            dice.number().unwrap() % ACCOUNTS,
                            dice.number().unwrap() % ACCOUNTS,
                        );
                        let more =
                            retried(running, |transaction| transfer(transaction, t, from, to));
                        conflicts.fetch_add(more, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                assert_eq!(total(&running), ACCOUNTS * EACH);
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                running.store.compact().unwrap();
            }
        });
        let _over = Over(&is_over);
        for worker in workers {
            worker.join().unwrap();
        }
    });
    assert_eq!(total(&running), ACCOUNTS * EACH);
    let stats = running.store.stats();
    assert_eq!(stats.commits, 1 + THREADS * TRANSFERS);
    assert!(stats.groups < stats.commits, "some commits shared a sync");
    assert_eq!(stats.conflicts, conflicts.load(Ordering::Relaxed));
    assert!(stats.held == 0, "{stats:?}");
    let died = site.process_death();
    assert_eq!(total(&died.open()), ACCOUNTS * EACH);
}

fn transfer(
    transaction: &mut Transaction,
    t: store::TableId,
    from: u64,
    to: u64,
) -> Result<(), Error> {
    let (from, to) = (account(from), account(to));
    let has = balance(transaction.get(t, &from)?);
    let moved = has.min(7);
    transaction.put(t, &from, &(has - moved).to_be_bytes())?;
    let has = balance(transaction.get(t, &to)?);
    transaction.put(t, &to, &(has + moved).to_be_bytes())
}

/// Each thread adds a key that is one above all it sees in the range. Serializable, that gives each
/// number once; with phantoms let through, two threads would add the same.
///
/// Proves: DOC-6
#[test]
fn numbers_drawn_from_a_range_by_many_threads_are_all_different() {
    let mut site = Site::forever();
    site.syncs_for_real = true;
    let running = site.open();
    let t = running.t();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..40 {
                    retried(&running, |transaction| {
                        let last = transaction.range(t, &Keys::all(), Order::Descending, 1)?;
                        let next = last.first().map_or(0, |(key, _)| {
                            u64::from_be_bytes((**key).try_into().unwrap()) + 1
                        });
                        transaction.put(t, &account(next), b"drawn")
                    });
                }
            });
        }
    });
    let snapshot = running.store.snapshot().unwrap();
    let drawn = snapshot.range(t, &Keys::all()).unwrap();
    let drawn: Vec<_> = drawn.map(|item| item.unwrap().0.to_vec()).collect();
    let expected: Vec<_> = (0..THREADS * 40).map(|n| account(n).to_vec()).collect();
    assert_eq!(drawn, expected);
    let stats = running.store.stats();
    assert!(stats.groups <= stats.commits);
}

/// Proves: DOC-9
#[test]
fn the_same_request_sent_by_many_threads_at_once_is_done_once() {
    let mut site = Site::forever();
    site.syncs_for_real = true;
    let running = site.open();
    // Someone else leads meanwhile, so that the senders meet in one group.
    let is_over = AtomicBool::new(false);
    let others = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut commits = 0;
            while !is_over.load(Ordering::Acquire) {
                running.put("other", "x");
                commits += 1;
            }
            commits
        });
        let over = Over(&is_over);
        (0..REQUESTS).for_each(|request| send_at_once(&running, request));
        drop(over);
        other.join().unwrap()
    });
    assert_eq!(running.store.stats().commits, REQUESTS + others);
}

fn send_at_once(running: &Running, request: u64) {
    let t = running.t();
    let all_begun = Barrier::new(usize::try_from(THREADS).unwrap());
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let send = |sender: u64| {
            let all_begun = &all_begun;
            scope.spawn(move || {
                let mut transaction = running.store.begin().unwrap();
                transaction
                    .put(t, &account(request), &account(sender))
                    .unwrap();
                all_begun.wait();
                transaction.commit_once(&account(request)).unwrap()
            })
        };
        let senders: Vec<_> = (0..THREADS).map(send).collect();
        let ends = senders.into_iter().map(|sender| sender.join().unwrap());
        ends.collect()
    });
    let committed = |outcome: &&Outcome| matches!(outcome, Outcome::Committed(_));
    assert_eq!(outcomes.iter().filter(committed).count(), 1);
    let first = outcomes[0].commit();
    assert!(outcomes.iter().all(|outcome| outcome.commit() == first));
}

/// A checkpoint ends the tables' memories while a large commit is applied. Ended half-way, half of
/// the commit would be in a file that names its position, and recovery would skip the other half.
///
/// Proves: DOC-1, DOC-3
#[test]
fn a_checkpoint_in_the_middle_of_a_commit_does_not_split_it() {
    const KEYS: u64 = 2000;
    for round in 0..10 {
        let site = Site::forever();
        let running = site.open();
        let t = running.t();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _over = Over(&is_over);
                for turn in 0..3 {
                    let mut transaction = running.store.begin().unwrap();
                    for key in 0..KEYS {
                        transaction.put(t, &account(key), &account(turn)).unwrap();
                    }
                    transaction.commit().unwrap();
                }
            });
            while !is_over.load(Ordering::Acquire) {
                running.store.checkpoint().unwrap();
            }
        });
        let died = site.process_death();
        let snapshot = died.open().store.snapshot().unwrap();
        let found = snapshot.range(t, &Keys::all()).unwrap();
        let values: Vec<_> = found.map(|item| balance(Some(item.unwrap().1))).collect();
        assert_eq!(
            values,
            vec![2; usize::try_from(KEYS).unwrap()],
            "round {round}"
        );
    }
}

/// Asking for figures took the held positions first and the checkpointer second, a checkpoint the
/// other way round: a process whose figures were asked for at the wrong moment stood still for ever.
#[test]
fn figures_are_told_while_checkpoints_are_taken() {
    let site = Site::new(&[("t", History::Latest)]);
    let running = site.open();
    running.put("a", "1");
    std::thread::scope(|scope| {
        // With nothing to write, so that the moment that matters comes often.
        let checkpoints = scope.spawn(|| {
            for _ in 0..2_000 {
                running.store.checkpoint().unwrap();
            }
        });
        while !checkpoints.is_finished() {
            assert_eq!(running.store.stats().held, 0);
        }
        checkpoints.join().unwrap();
    });
}
