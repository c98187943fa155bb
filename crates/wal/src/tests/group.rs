//! Group commit by itself.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::group::Group;

/// Proves: JRN-7
#[test]
fn one_caller_alone_leads_its_own_round_at_once() {
    let group = Group::new(100);
    for number in 0..3 {
        let outcome = group.join(number, 1, |items| {
            assert_eq!(items, [number]);
            vec![number * 10]
        });
        assert_eq!(outcome, number * 10);
    }
}

/// Proves: JRN-7
#[test]
fn everyone_gets_the_outcome_of_its_own_item_and_no_two_rounds_overlap() {
    const CALLERS: usize = 16;
    const EACH: usize = 200;
    let group = Group::new(1 << 20);
    let inside = AtomicUsize::new(0);
    let rounds = AtomicUsize::new(0);
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (group, inside, rounds) = (&group, &inside, &rounds);
            scope.spawn(move || {
                for number in 0..EACH {
                    let item = caller * EACH + number;
                    let outcome = group.join(item, 1, |items| {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        rounds.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        items.into_iter().map(|item| item + 1).collect()
                    });
                    assert_eq!(outcome, item + 1);
                }
            });
        }
    });
    let rounds = rounds.into_inner();
    assert!(rounds <= CALLERS * EACH, "{rounds} rounds");
}

/// The first round is held until `late` callers came, so what the next rounds get is known.
fn rounds_of(weight_max: usize, weights: &[usize], waiting: usize) -> Vec<usize> {
    let group = Group::new(weight_max);
    let rounds = Mutex::new(Vec::new());
    let lead = |items: Vec<usize>| {
        rounds.lock().unwrap().push(items.len());
        items
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            group.join(0, 1, |items| {
                for &weight in weights {
                    let (group, lead) = (&group, &lead);
                    scope.spawn(move || group.join(weight, weight, lead));
                }
                while group.waiting() != waiting
                    || group.waiting() + group.waiting_for_room() != weights.len()
                {
                    thread::yield_now();
                }
                items
            });
        });
    });
    rounds.into_inner().unwrap()
}

#[test]
fn a_round_is_closed_before_it_is_too_heavy_and_the_rest_waits_for_room() {
    let rounds = rounds_of(10, &[3; 7], 3);
    assert_eq!(rounds.iter().sum::<usize>(), 7);
    assert!(rounds.iter().all(|&len| len <= 3), "{rounds:?}");
    assert_eq!(rounds_of(10, &[50], 1), [1], "too heavy for any round");
}

#[test]
fn callers_that_come_meanwhile_share_one_round() {
    assert_eq!(rounds_of(1 << 20, &[1; 12], 12), [12]);
}
