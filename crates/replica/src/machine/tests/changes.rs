//! Members and mode, changed.

use std::collections::BTreeMap;

use super::cluster::{Cluster, config, is_written};
use crate::machine::{Body, Config, Mode, NodeId, Order, Outcome, Refusal};

fn configure(cluster: &mut Cluster, id: u128, config: Config, fenced: &[u128]) -> u64 {
    let words = |id: &u128| (NodeId(*id), "switched off".to_owned());
    let fenced: BTreeMap<NodeId, String> = fenced.iter().map(words).collect();
    cluster.order(id, Order::Configure { config, fenced })
}

#[test]
fn a_change_is_done_when_a_majority_of_both_has_it_and_what_was_there_is_committed_by_it() {
    let mut cluster = Cluster::new(3, Mode::Async);
    cluster.promote(1);
    cluster.stop(2);
    cluster.stop(3);
    assert!(is_written(cluster.write(1, "alone")));
    let number = configure(&mut cluster, 1, config(1..=3, Mode::Sync(1)), &[]);
    assert_eq!(cluster.answer(number), None);
    assert!(
        cluster.disks[&1].record.config.previous.is_some(),
        "it names what it replaces"
    );
    assert!(is_written(cluster.write(1, "by the old mode")));
    cluster.start(2);
    cluster.pass(2);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert_eq!(cluster.disks[&1].record.config.previous, None);
    cluster.stop(2);
    assert!(!is_written(cluster.write(1, "by the new mode")));
}

#[test]
fn a_member_is_added_caught_up_and_removed_again() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.add(3, config(1..=2, Mode::Sync(1)));
    let number = configure(&mut cluster, 1, config(1..=3, Mode::Sync(2)), &[]);
    cluster.pass(2);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(is_written(cluster.write(1, "b")));
    assert_eq!(cluster.texts(3), ["a", "b"]);
    let number = configure(&mut cluster, 1, config([1, 3], Mode::Sync(1)), &[]);
    cluster.pass(2);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(is_written(cluster.write(1, "c")));
    assert_eq!(cluster.texts(2), ["a", "b"], "no member");
    assert!(cluster.names(1).contains(&"sender_removed"));
}

#[test]
fn a_pair_goes_on_alone_only_with_a_statement_that_the_other_one_was_stopped() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    cluster.stop(2);
    let alone = config([1], Mode::Async);
    let number = configure(&mut cluster, 1, alone.clone(), &[]);
    cluster.pass(2);
    assert_eq!(
        cluster.answer(number),
        None,
        "node 2 could be promoted without it"
    );
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    cluster.stop(2);
    let number = configure(&mut cluster, 1, alone, &[2]);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(is_written(cluster.write(1, "alone")));
    assert!(cluster.disks[&1].record.config.members.len() == 1);
}

/// A statement took the place of an answer: with one of three stopped a change was in force though nobody but
/// the primary had it. The one that was stopped and the third made another primary by the mode before it, and
/// what the first had acknowledged alone was lost.
#[test]
fn a_statement_about_one_node_stands_in_for_no_other() {
    let second = |fenced: &[u128]| {
        let mut cluster = Cluster::new(3, Mode::Sync(1));
        cluster.promote(2);
        assert!(is_written(cluster.write(2, "a")));
        cluster.stop(1);
        cluster.part(2, 3);
        let number = configure(&mut cluster, 2, config(1..=3, Mode::Async), fenced);
        (cluster, number)
    };
    let (mut cluster, number) = second(&[1]);
    assert_eq!(cluster.answer(number), None);
    // Also when nothing is heard of the third any more.
    cluster.pass(5);
    assert_eq!(cluster.answer(number), None);
    cluster.heal(2, 3);
    cluster.pass(2);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));

    // One that is said to be stopped, and answers.
    let (mut cluster, number) = second(&[1, 3]);
    assert_eq!(cluster.answer(number), None);
    cluster.pass(5);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
}

/// What it forgot may be a promise to the node that is away, so the rebuilt one does not count: until the
/// operator says that the other is stopped.
#[test]
fn a_rebuilt_node_counts_once_the_one_that_is_away_is_no_member() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(1);
    cluster.stop(3);
    cluster.stop(2);
    let disk = cluster.disks.get_mut(&2).unwrap();
    disk.log.clear();
    disk.base_history.starts.clear();
    disk.committed = wal::Lsn::ZERO;
    disk.is_damaged = true;
    cluster.start(2);
    cluster.pass(3);
    assert!(!cluster.is_in_sync(1, 2));
    let number = configure(&mut cluster, 1, config(1..=2, Mode::Async), &[3]);
    cluster.pass(3);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(cluster.is_in_sync(1, 2));
    let number = configure(&mut cluster, 1, config(1..=2, Mode::Sync(1)), &[]);
    cluster.pass(3);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(is_written(cluster.write(1, "b")));
}

/// The other one of a pair was dead when a third node was added. The change was to be committed by the copy of the
/// third one; that was invited, so it may have promised, and waited for the answer of the dead one: nothing that an
/// operator could say helped, and every other order was refused.
#[test]
fn an_invited_node_does_not_wait_for_one_that_is_said_to_be_stopped() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(2);
    cluster.add(3, config(1..=2, Mode::Sync(1)));
    invite(&mut cluster, 3);
    let three = config(1..=3, Mode::Sync(1));
    let number = configure(&mut cluster, 1, three.clone(), &[]);
    cluster.pass(5);
    assert_eq!(cluster.answer(number), None);
    assert!(!cluster.is_in_sync(1, 3));
    let said = configure(&mut cluster, 1, three, &[2]);
    cluster.pass(3);
    assert_eq!(cluster.answer(said), Some(&Outcome::Done));
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(cluster.is_in_sync(1, 3) && !cluster.disks[&3].record.is_amnesiac);
    assert!(is_written(cluster.write(1, "b")));

    // The primary died before the third one had its copy; the second one was forced, and the dead one removed.
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.stop(3);
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(1);
    invite(&mut cluster, 3);
    cluster.force(2);
    let number = configure(&mut cluster, 2, config(2..=3, Mode::Sync(1)), &[1]);
    cluster.pass(3);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(is_written(cluster.write(2, "b")));
}

/// It starts on an empty disk, with the record that joining makes.
fn invite(cluster: &mut Cluster, id: u128) {
    cluster.stop(id);
    let disk = cluster.disks.get_mut(&id).unwrap();
    disk.log.clear();
    disk.base_history.starts.clear();
    disk.committed = wal::Lsn::ZERO;
    disk.record.is_amnesiac = true;
    cluster.start(id);
}

/// The primary died before the third node was a member for certain. The second one was promoted, went on with
/// the change, which waited for the dead one, and took no other: nothing was acknowledged for ever.
#[test]
fn a_change_that_waits_for_a_node_goes_on_once_that_is_said_to_be_stopped() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.add(3, config(1..=2, Mode::Sync(1)));
    configure(&mut cluster, 1, config(1..=3, Mode::Sync(1)), &[]);
    // As the second one has it before it was settled.
    let pending = cluster
        .sent
        .iter()
        .find_map(|(_, to, message)| match &message.body {
            Body::Configure { config, .. } if *to == 2 && config.previous.is_some() => Some(config),
            _ => None,
        });
    let pending = pending.unwrap().clone();
    for id in 1..=3 {
        cluster.stop(id);
        cluster.disks.get_mut(&id).unwrap().record.config = pending.clone();
    }
    cluster.start(2);
    cluster.start(3);
    assert_eq!(cluster.promote(2), Some(Outcome::Done));
    cluster.pass(2);
    let status = cluster.nodes[&2].status();
    assert_eq!(status.awaits, [NodeId(1)].into());
    let other = config(1..=3, Mode::Async);
    let number = configure(&mut cluster, 2, other.clone(), &[1]);
    assert!(matches!(cluster.answer(number), Some(Outcome::Refused(_))));
    let number = configure(&mut cluster, 2, config(1..=3, Mode::Sync(1)), &[1]);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    cluster.pass(2);
    assert!(!cluster.nodes[&2].status().is_changing);
    assert!(cluster.disks[&2].record.reason.contains("switched off"));
    let number = configure(&mut cluster, 2, other, &[1]);
    cluster.pass(1);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(is_written(cluster.write(2, "b")));
}

/// The mode was to ask for a copy of everybody. It was in force when the third node died, so it waited for that copy,
/// no other order was taken, and nothing was acknowledged until the dead one came back.
#[test]
fn a_change_that_waits_for_a_dead_node_is_taken_back() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.disks.get_mut(&3).unwrap().is_slow = true;
    assert!(is_written(cluster.write(1, "b")));
    let all = configure(&mut cluster, 1, config(1..=3, Mode::All), &[]);
    cluster.stop(3);
    cluster.pass(5);
    assert_eq!(cluster.answer(all), None);
    assert!(!is_written(cluster.write(1, "by the mode of all")));
    let other = configure(&mut cluster, 1, config(1..=3, Mode::Async), &[]);
    assert!(matches!(cluster.answer(other), Some(Outcome::Refused(_))));

    let back = configure(&mut cluster, 1, config(1..=3, Mode::Sync(1)), &[]);
    cluster.pass(2);
    assert_eq!(cluster.answer(back), Some(&Outcome::Done));
    assert!(
        matches!(cluster.answer(all), Some(Outcome::Refused(_))),
        "who waits for what was taken back is told"
    );
    assert_eq!(cluster.disks[&1].record.config.previous, None);
    assert!(is_written(cluster.write(1, "c")));
}

/// Nobody but the primary had the change to `async`, and the order that took it back. By what that one replaced, the
/// primary acknowledged alone, and so it did when it had started again; the others made another one without it.
#[test]
fn what_was_never_in_force_acknowledges_nothing_when_it_is_taken_back() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.part(1, 2);
    cluster.part(1, 3);
    configure(&mut cluster, 1, config(1..=3, Mode::Async), &[]);
    let back = configure(&mut cluster, 1, config(1..=3, Mode::Sync(1)), &[]);
    assert!(!is_written(cluster.write(1, "alone")));
    cluster.stop(1);
    cluster.start(1);
    cluster.pass(1);
    assert!(!is_written(cluster.write(1, "alone, started again")));
    cluster.heal(1, 2);
    cluster.heal(1, 3);
    cluster.pass(3);
    assert_eq!(cluster.answer(back), None, "it was of the life before");
    assert!(!cluster.nodes[&1].status().is_changing);
    assert!(is_written(cluster.write(1, "b")));
}

/// A third node was being taken in when both others were lost. It had everything, and no force was enough: it was no
/// member of what the change replaced.
#[test]
fn the_only_copy_is_promoted_by_force_though_it_was_only_being_taken_in() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.add(3, config(1..=2, Mode::Sync(1)));
    cluster.stop(2);
    configure(&mut cluster, 1, config(1..=3, Mode::Sync(1)), &[]);
    cluster.pass(3);
    assert_eq!(cluster.texts(3), ["a"]);
    assert!(cluster.disks[&3].record.config.previous.is_some());
    cluster.stop(1);
    assert!(matches!(cluster.promote(3), Some(Outcome::Refused(_))));
    cluster.force(3);
    assert_eq!(cluster.texts(3), ["a"]);
}

#[test]
fn a_change_that_cannot_be_is_refused() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    for (what, config) in [
        ("without the primary", config([2, 3], Mode::Sync(1))),
        ("two at a time", config([1, 2, 4, 5], Mode::Sync(1))),
        ("more copies than members", config(1..=3, Mode::Sync(3))),
        ("nobody", config([], Mode::Async)),
    ] {
        let number = configure(&mut cluster, 1, config, &[]);
        let answer = cluster.answer(number);
        assert!(
            matches!(answer, Some(Outcome::Refused(Refusal::InvalidRequest(_)))),
            "{what}"
        );
    }
    let number = configure(&mut cluster, 2, config(1..=3, Mode::All), &[]);
    assert!(matches!(
        cluster.answer(number),
        Some(Outcome::Refused(Refusal::NotPrimary { .. }))
    ));
    let number = configure(&mut cluster, 1, config(1..=3, Mode::Sync(1)), &[]);
    assert_eq!(cluster.answer(number), Some(&Outcome::Done), "as it is");
}

/// The mode was `async` when the record was acknowledged: a promotion under `sync(1)` alone would not
/// ask the holder.
#[test]
fn a_promotion_amid_a_change_satisfies_both_modes() {
    let mut cluster = Cluster::new(3, Mode::Async);
    cluster.promote(1);
    cluster.stop(2);
    cluster.disks.get_mut(&3).unwrap().is_slow = true;
    assert!(is_written(cluster.write(1, "by the old mode, alone")));
    configure(&mut cluster, 1, config(1..=3, Mode::Sync(1)), &[]);
    cluster.pass(1);
    let change = &cluster.disks[&3].record.config;
    assert!(change.mode == Mode::Sync(1) && change.previous.is_some());
    cluster.stop(1);
    cluster.stop(3);
    cluster.disks.get_mut(&3).unwrap().is_slow = false;
    cluster.start(3);
    cluster.start(2);
    assert!(matches!(cluster.promote(3), Some(Outcome::Refused(_))));
    cluster.start(1);
    cluster.pass(2);
    assert_eq!(cluster.texts(3), ["by the old mode, alone"]);
}
