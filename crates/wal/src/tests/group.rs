//! Group commit by itself.

use std::{
    env,
    os::unix::process::ExitStatusExt,
    process::{self, Command},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
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

/// Set in the child process only; its value names who waits when the leader panics.
const DEATH: &str = "WAL_TEST_GROUP_DEATH";
const SIGABRT: i32 = 6;
/// What the child exits with when somebody waits for ever.
const HUNG: i32 = 3;

/// The leader panics while `case` says who waits for it.
fn die(case: &str) {
    let (ended, waits) = mpsc::channel::<()>();
    thread::spawn(move || {
        // Ends early only when the case went on, which is wrong too.
        let _ended = waits.recv_timeout(Duration::from_secs(60));
        process::exit(HUNG);
    });
    let group = Group::<usize, usize>::new(100);
    thread::scope(|scope| {
        scope.spawn(|| {
            group.join(0, 1, |_| {
                let (members, waiting) = match case {
                    "nobody" => (0, 0),
                    "members" => (3, 3),
                    // One fills the next round, the others wait for room in it.
                    "waiting for room" => (3, 1),
                    other => panic!("no case {other}"),
                };
                for member in 0..members {
                    let group = &group;
                    let weight = if case == "members" { 1 } else { 100 };
                    scope.spawn(move || group.join(member, weight, |items| items));
                }
                while group.waiting() != waiting
                    || group.waiting() + group.waiting_for_room() != members
                {
                    thread::yield_now();
                }
                panic!("planted panic");
            })
        });
        if case == "nobody" {
            while !group.is_broken() {
                thread::yield_now();
            }
            group.join(1, 1, |items| items);
        }
    });
    drop(ended);
}

/// The child's side of the test below; by itself it has nothing to do.
#[test]
fn died_as_told() {
    if let Ok(case) = env::var(DEATH) {
        die(&case);
    }
}

/// A half-made batch may lie behind a leader that panicked, so nobody goes on and nobody waits for
/// ever: the process ends, whoever waits, or with the next one who comes.
#[test]
fn a_leader_that_panics_takes_the_process_along_instead_of_leaving_members_waiting() {
    for case in ["nobody", "members", "waiting for room"] {
        #[allow(
            clippy::disallowed_methods,
            reason = "only another process can die of it"
        )]
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "tests::group::died_as_told", "--nocapture"])
            .env(DEATH, case)
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(SIGABRT), "{case}: {report}");
        assert!(
            report.contains("the leader of a group panicked"),
            "{report}"
        );
    }
}
