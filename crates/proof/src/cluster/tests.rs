//! The comparison: a few kills of the built binary pass it, and each history that cannot be fails it.

use std::{collections::BTreeMap, time::Duration};

use super::{
    history::{Action, Operation, Told, Transfer, What},
    judge::{Bar, Barred, Copy, judge, nobody_barred_acknowledged},
    rows::{ACCOUNTS, Account, Held, OPENING_BALANCE},
    *,
};
use crate::crash::tests::binary;

/// Kills of a test run: with the other faults less than a minute.
const KILLS: u32 = 3;
const SEED: u64 = 1;

/// Proves: AUT-8, AUT-10, REP-15
#[test]
fn what_several_nodes_acknowledged_survives_kills_pauses_and_switchovers() {
    let sandbox = tempfile::Builder::new()
        .prefix("holdfast-cluster-")
        .tempdir()
        .unwrap();
    let product = crash::install(&binary(), sandbox.path()).unwrap();
    let mut campaign = Campaign {
        product: &product,
        seed: SEED,
        kills: KILLS,
        nodes: 3,
        faults: vec![Nemesis::Kill, Nemesis::Pause, Nemesis::Switchover],
        coordinator: None,
        keeps: false,
        shows_progress: false,
        tally: Tally::default(),
    };
    match campaign.run() {
        Ok(()) => {}
        Err(Fault::Breach(breach)) => {
            let kept = sandbox.keep();
            panic!("{breach}\n  seed {SEED}, kept: {}", kept.display());
        }
        Err(fault) => panic!("{fault:?}"),
    }
    let tally = &campaign.tally;
    assert!(tally.kills >= KILLS && tally.promotions > 0, "{tally}");
    assert!(tally.pauses > 0 && tally.switchovers > 0, "{tally}");
    assert!(tally.judged.acknowledged > 0, "{tally}");
    assert!(tally.records_compared > 0, "{tally}");
}

const fn operation(number: u32, node: usize, what: What, told: Told) -> Operation {
    Operation {
        client: 0,
        node,
        begun: Duration::from_millis(number as u64 * 10),
        ended: Duration::from_millis(number as u64 * 10 + 5),
        what,
        told,
    }
}

fn transfer(tag: u64, found: [u64; 2]) -> What {
    What::Transfer(Transfer {
        tag,
        accounts: [0, 1],
        found,
    })
}

fn register(action: Action) -> What {
    What::Register {
        register: 0,
        action,
    }
}

/// Three of each kind, acknowledged one after the other, and what two nodes have of it.
fn sound() -> (Vec<Operation>, Vec<Copy>) {
    let whats = [
        What::Insert { number: 1 },
        register(Action::Write { value: 1 }),
        transfer(1, [0, 0]),
        What::Insert { number: 2 },
        register(Action::Read { found: 1 }),
        transfer(2, [1, 1]),
        What::Insert { number: 3 },
        register(Action::Swap { found: 1, value: 2 }),
        transfer(3, [2, 2]),
    ];
    let operations = (1..)
        .zip(whats)
        .map(|(number, what)| {
            operation(number, 0, what, Told::Acknowledged(100 + u64::from(number)))
        })
        .collect();
    let copies = (0..2)
        .map(|node| Copy {
            node,
            asked: Duration::from_secs(10),
            answered: Duration::from_secs(11),
            rows: rows_of_sound(),
        })
        .collect();
    (operations, copies)
}

fn rows_of_sound() -> Held {
    let account = |balance| Account { balance, tag: 3 };
    let balances = [OPENING_BALANCE - 3, OPENING_BALANCE + 3].map(account);
    Held {
        inserts: [1, 2, 3].map(|number| ((0, number), true)).into(),
        registers: BTreeMap::from([(0, 2)]),
        accounts: (0..ACCOUNTS).zip(balances).collect(),
    }
}

type Harm = fn(&mut Vec<Operation>, &mut Vec<Copy>);

#[test]
fn a_sound_history_is_let_through_with_ends_that_nobody_knows() {
    let (mut operations, copies) = sound();
    let judged = judge(&operations, &copies).unwrap();
    assert_eq!((judged.acknowledged, judged.transfers), (9, 3));
    // Whoever was not told may have been heard all the same, or not.
    for place in [6, 7, 8] {
        operations[place].told = Told::Unknown;
    }
    operations.push(operation(10, 1, What::Insert { number: 9 }, Told::Unknown));
    operations.push(operation(11, 1, transfer(9, [1, 1]), Told::Unknown));
    judge(&operations, &copies).unwrap();
}

#[test]
fn each_history_that_cannot_be_is_found() {
    let harms: &[(&str, Harm)] = &[
        ("one position", |operations, _| {
            operations[3].told = Told::Acknowledged(101);
            operations[3].node = 1;
        }),
        // The old primary goes on beside the one that was promoted.
        ("lower position", |operations, _| {
            operations[8].told = Told::Acknowledged(50);
            operations[8].node = 1;
        }),
        ("same rows", |_, copies| {
            copies[1].rows.inserts.remove(&(0, 2));
        }),
        ("on every node", |_, copies| {
            for copy in copies {
                copy.rows.inserts.remove(&(0, 3));
            }
        }),
        ("on every node", |operations, _| {
            operations[6].told = Told::NotDone;
        }),
        ("rows are those", |_, copies| {
            for copy in copies {
                copy.rows.inserts.insert((0, 3), false);
            }
        }),
        ("rows are those", |_, copies| {
            for copy in copies {
                copy.rows.inserts.insert((7, 7), true);
            }
        }),
        ("register 0", |_, copies| {
            for copy in copies {
                copy.rows.registers.insert(0, 1);
            }
        }),
        ("register 0", |operations, _| {
            operations[4].what = register(Action::Read { found: 0 });
        }),
        ("the sum", |_, copies| {
            for copy in copies {
                copy.rows.accounts.insert(5, Account { balance: 1, tag: 3 });
            }
        }),
        // The second one is lost: the third was built on the first.
        ("no acknowledged transfer", |operations, _| {
            operations[8].what = transfer(3, [1, 1]);
        }),
        ("written by those", |operations, _| {
            operations[5].told = Told::NotDone;
        }),
        // Each before the other.
        ("one order", |operations, _| {
            operations[2].what = transfer(1, [0, 2]);
            operations[5].what = transfer(2, [1, 0]);
            operations[8].what = transfer(3, [2, 1]);
        }),
    ];
    for (promise, harm) in harms {
        let (mut operations, mut copies) = sound();
        harm(&mut operations, &mut copies);
        let breach = judge(&operations, &copies).expect_err(promise).to_string();
        assert!(breach.contains(promise), "{promise}: {breach}");
    }
}

#[test]
fn what_is_acknowledged_without_lease_or_copies_is_found_wherever_that_cannot_have_been() {
    // Client 0 wrote at node 0: from 10 to 15 ms, from 20 to 25 ms and so on, the last one from 90 to 95 ms.
    let (operations, _) = sound();
    for (node, from, until, is_found) in [
        (None, 95, 200, false),
        // It may have been decided before.
        (None, 90, 200, false),
        // It may have been decided when the coordinator was back.
        (None, 89, 95, false),
        (None, 89, 96, true),
        (Some(0), 0, 200, true),
        (Some(1), 0, 200, false),
    ] {
        let span = Barred {
            node,
            from: Duration::from_millis(from),
            until: Duration::from_millis(until),
            why: Bar::Copies,
        };
        let judged = nobody_barred_acknowledged(&operations, &[span]);
        assert_eq!(judged.is_err(), is_found, "{span:?}: {judged:?}");
    }
    let mut refused = operations;
    refused.iter_mut().for_each(|it| it.told = Told::Unknown);
    let always = Barred {
        node: None,
        from: Duration::ZERO,
        until: Duration::MAX,
        why: Bar::Lease,
    };
    nobody_barred_acknowledged(&refused, &[always]).unwrap();
}
