//! Promises, and what must not happen before they are on disk.

use wal::{Epoch, Lsn};

use super::cluster::{Cluster, is_written};
use crate::machine::{
    Body, Event, Message, Mode, NodeId, Order, Outcome, Refusal, Role, STARTS, states,
};

fn is_refused(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Refused(_)))
}

/// Proves: AUT-3
#[test]
fn a_promise_that_is_not_on_disk_is_told_to_nobody() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.stop(1);
    cluster.disks.get_mut(&3).unwrap().is_stuck = true;
    cluster.sent.clear();
    let answer = cluster.promote(2);
    assert!(is_refused(answer), "two of three are needed");
    let said = cluster
        .sent
        .iter()
        .any(|(from, _, message)| *from == 3 && matches!(message.body, Body::Sealed(_)));
    assert!(!said);
    cluster.disks.get_mut(&3).unwrap().is_stuck = false;
    assert_eq!(cluster.promote(2), Some(Outcome::Done));
}

#[test]
fn an_authority_that_is_not_on_disk_is_none() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.disks.get_mut(&1).unwrap().is_stuck = true;
    assert!(is_refused(cluster.promote(1)));
    assert!(matches!(cluster.roles[&1], Role::Replica { .. }));
    assert!(!is_written(cluster.write(1, "a")));
    assert_eq!(cluster.nodes[&1].status().promotion, states::State::Steady);
}

/// A primary promises: whoever waits is told, at once, and nothing is acknowledged any more.
#[test]
fn a_promise_ends_a_primary_and_a_session_in_the_step_that_makes_it() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    for id in [2, 3] {
        cluster.disks.get_mut(&id).unwrap().is_slow = true;
    }
    let number = cluster.write_later(1, "a");
    cluster.seal(3, 1, 2 * STARTS, 5);
    let highest = Epoch(2 * STARTS);
    let unknown = Outcome::Unknown(Refusal::Fenced { highest });
    assert_eq!(cluster.answer(number), Some(&unknown));
    assert!(!is_written(cluster.write(1, "b")));
    assert!(cluster.pins.is_empty());
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.stop(3);
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    let number = cluster.write_later(1, "a");
    cluster.seal(3, 2, 2 * STARTS, 5);
    cluster.flush(2);
    assert!(
        !is_written(cluster.answer(number).cloned()),
        "a promise ends the session"
    );
}

/// A number is promised once; whoever asked first may ask again.
#[test]
fn one_number_is_promised_to_one_node() {
    for (what, from, epoch, id, expected) in [
        ("again", 3, 2 * STARTS, 5, true),
        ("another id", 3, 2 * STARTS, 6, false),
        ("another node", 1, 2 * STARTS, 5, false),
        ("lower", 1, 2 * STARTS - 1, 7, false),
        ("higher", 1, 2 * STARTS + 1, 7, true),
    ] {
        let mut cluster = Cluster::new(3, Mode::Sync(1));
        cluster.seal(3, 2, 2 * STARTS, 5);
        cluster.sent.clear();
        cluster.seal(from, 2, epoch, id);
        let is_promised = cluster
            .sent
            .iter()
            .any(|(_, to, message)| *to == from && matches!(message.body, Body::Sealed(_)));
        assert_eq!(is_promised, expected, "{what}");
    }
}

/// Cut off at each message of a promotion in turn, and started again: the old authority or the new one.
///
/// Proves: AUT-5
#[test]
fn a_crash_at_any_message_of_a_promotion_leaves_a_group_that_can_be_promoted() {
    for step in 0..12 {
        let mut cluster = Cluster::new(3, Mode::Sync(1));
        cluster.promote(1);
        assert!(is_written(cluster.write(1, "a")));
        cluster.stop(1);
        let order = Order::Promote {
            node: NodeId(2),
            config: None,
            force: None,
        };
        cluster.order_without_network(2, order);
        for _ in 0..step {
            cluster.deliver_one();
        }
        cluster.stop(2);
        cluster.start(2);
        cluster.start(1);
        cluster.pass(4);
        let is_primary = |id: u128| matches!(cluster.roles[&id], Role::Primary { .. });
        let primaries: Vec<u128> = (1..=3).filter(|id| is_primary(*id)).collect();
        assert!(primaries.len() <= 1, "after {step} messages: {primaries:?}");
        if primaries.is_empty() {
            // The one that has everything: the old holder may have begun a start of its own.
            let promoted = [2, 1]
                .into_iter()
                .any(|id| cluster.promote(id) == Some(Outcome::Done));
            assert!(promoted, "after {step} messages");
        }
        cluster.pass(4);
        let primary = (1..=3)
            .find(|id| matches!(cluster.roles[id], Role::Primary { .. }))
            .unwrap();
        assert!(
            is_written(cluster.write(primary, "b")),
            "after {step} messages"
        );
        for id in 1..=3 {
            cluster.pass(1);
            assert_eq!(
                cluster.texts(id),
                ["a", "b"],
                "node {id} after {step} messages"
            );
        }
    }
}

#[test]
fn a_lower_epoch_is_answered_with_the_highest_that_is_on_disk() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.part(1, 2);
    cluster.part(1, 3);
    cluster.promote(2);
    let promised = cluster.disks[&3].record.promised;
    let old: Vec<Message> = cluster
        .sent
        .iter()
        .filter(|(from, to, message)| {
            (*from, *to) == (1, 3)
                && message.header.epoch < promised.0
                && message.body.session().is_some()
        })
        .map(|(_, _, message)| message.clone())
        .collect();
    assert!(old.len() > 2);
    let before = cluster.nodes[&3].status();
    for message in old {
        let now = cluster.now;
        let node = cluster.nodes.get_mut(&3).unwrap();
        let effects = node.step(now, Event::Received(message));
        let (highest, id, asker) = promised;
        let refused = Body::Refused { highest, id, asker };
        assert!(
            matches!(&effects[..], [crate::machine::Effect::Send { message, .. }] if message.body == refused)
        );
    }
    assert_eq!(cluster.nodes[&3].status(), before);
}

#[test]
fn a_promotion_without_force_is_denied_while_too_few_answer_and_disturbs_nobody() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.part(2, 1);
    cluster.part(2, 3);
    let before = cluster.disks[&2].record.promised;
    let answer = cluster.promote(2);
    assert!(matches!(
        answer,
        Some(Outcome::Refused(Refusal::EvidenceMissing(_)))
    ));
    assert_eq!(cluster.disks[&2].record.promised, before);
    assert!(is_written(cluster.write(1, "a")));
}

#[test]
fn an_order_for_another_node_or_without_words_is_refused() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    for (what, node, force) in [("another", 1, None), ("no words", 2, Some(" "))] {
        let force = force.map(str::to_owned);
        let order = Order::Promote {
            node: NodeId(node),
            config: None,
            force,
        };
        let number = cluster.order(2, order);
        let answer = cluster.answer(number);
        assert!(
            matches!(answer, Some(Outcome::Refused(Refusal::InvalidRequest(_)))),
            "{what}"
        );
        assert_eq!(
            cluster.names(2),
            ["promotion.requested", "promotion.refused"],
            "{what}"
        );
        cluster.lines.clear();
    }
}

/// Node 4 is promised an epoch by two that never heard of it before; the holder they do not know of
/// writes on with the fifth.
#[test]
fn a_denied_candidate_does_not_hide_the_holder_before_it() {
    let mut cluster = Cluster::new(5, Mode::Sync(1));
    cluster.promote(1);
    cluster.pass(1);
    for id in [1, 5] {
        for other in [2, 3, 4] {
            cluster.part(id, other);
        }
    }
    assert!(is_written(cluster.write(1, "with 5")));
    for id in [4, 2, 3] {
        assert!(is_refused(cluster.promote(id)), "{id}");
    }
    assert!(is_written(cluster.write(1, "still")));
}

/// A pair whose other node is gone has nobody to wait for; one that was not seen yet may be there.
#[test]
fn a_pair_waits_for_an_answer_only_of_a_node_that_may_be_there() {
    for (is_seen, expected) in [(true, Some(Outcome::Done)), (false, None)] {
        let mut cluster = Cluster::new(2, Mode::Sync(1));
        cluster.promote(1);
        cluster.stop(1);
        if !is_seen {
            cluster.stop(2);
            cluster.start(2);
        }
        let order = Order::Promote {
            node: NodeId(2),
            config: None,
            force: None,
        };
        let number = cluster.order(2, order);
        assert_eq!(cluster.answer(number), expected.as_ref(), "{is_seen}");
        cluster.pass(3);
        assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    }
}

/// Proves: AUT-12
#[test]
fn a_holder_acknowledges_only_as_long_as_its_lease_lasts_less_a_margin() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.is_leased = true;
    cluster.stop(1);
    cluster.start(1);
    cluster.promote(1);
    let refusal = Refusal::LeaseEnded;
    assert_eq!(
        cluster.write(1, "a"),
        Some(Outcome::Refused(refusal)),
        "none was granted"
    );
    cluster.lease(1, 10);
    assert!(is_written(cluster.write(1, "b")));
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    cluster.pass(8);
    let number = cluster.write_later(1, "c");
    cluster.pass(1);
    let unknown = Outcome::Unknown(Refusal::LeaseEnded);
    assert_eq!(
        cluster.answer(number),
        Some(&unknown),
        "one second before the end"
    );
    cluster.flush(2);
    assert!(!is_written(cluster.write(1, "d")));
}

/// The lease of the promotion before was at its end, and so the node stepped down in the moment in
/// which it was promoted again, each time.
#[test]
fn a_lease_of_an_earlier_promotion_does_not_end_the_next_one() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.is_leased = true;
    cluster.stop(1);
    cluster.start(1);
    cluster.promote(1);
    cluster.lease(1, 10);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(12);
    assert!(!is_written(cluster.write(1, "b")));
    assert_eq!(cluster.promote(1), Some(Outcome::Done));
    cluster.pass(1);
    assert!(
        matches!(cluster.roles[&1], Role::Primary { .. }),
        "it waits for its lease"
    );
    cluster.lease(1, 10);
    assert!(is_written(cluster.write(1, "c")));
}

/// The lease ended and came again while records of before were on their way to a slow disk: the holder
/// began amid them, and its process ended itself.
#[test]
fn a_holder_whose_lease_comes_again_waits_for_its_own_disk() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.is_leased = true;
    cluster.stop(1);
    cluster.start(1);
    cluster.promote(1);
    cluster.lease(1, 10);
    assert!(is_written(cluster.write(1, "a")));
    cluster.disks.get_mut(&1).unwrap().is_slow = true;
    cluster.write_later(1, "b");
    cluster.pass(12);
    cluster.lease(1, 10);
    assert!(!matches!(cluster.roles[&1], Role::Primary { .. }));
    cluster.flush(1);
    cluster.lease(1, 10);
    assert!(is_written(cluster.write(1, "c")));
    assert_eq!(cluster.texts(1), ["a", "b", "c"]);
}

/// What an earlier primary had said to be committed stood beside what is there for ever: a copy was behind by records
/// that are nowhere, and a forced promotion told of them as lost.
#[test]
fn what_a_primary_said_counts_no_more_once_another_one_is() {
    let mut cluster = Cluster::new(3, Mode::Async);
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(2);
    let beats = cluster.sent.iter().rev();
    let mut beats = beats
        .filter(|(from, to, _)| (*from, *to) == (1, 3))
        .cloned();
    let beat = beats.find(|(.., said)| matches!(said.body, Body::Heartbeat { .. }));
    let (from, to, mut said) = beat.unwrap();
    let far = Lsn::new(99);
    if let Body::Heartbeat { committed, .. } = &mut said.body {
        *committed = far;
    }
    cluster.wire.push_back((from, to, said));
    cluster.run();
    assert_eq!(cluster.nodes[&3].status().announced, far);
    // The same one that starts again acknowledged that all the same.
    cluster.stop(1);
    cluster.start(1);
    cluster.pass(1);
    let status = cluster.nodes[&3].status();
    assert!(status.record.granted.0 > Epoch(STARTS), "{status:?}");
    assert_eq!(status.announced, far);
    cluster.stop(1);
    cluster.force(2);
    cluster.pass(2);
    let status = cluster.nodes[&3].status();
    assert!(status.announced < far && status.is_informed, "{status:?}");
}

#[test]
fn a_holder_that_starts_again_waits_for_its_lease() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.is_leased = true;
    cluster.stop(1);
    cluster.start(1);
    cluster.promote(1);
    cluster.lease(1, 100);
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(1);
    cluster.start(1);
    assert!(!is_written(cluster.write(1, "b")));
    cluster.lease(1, 100);
    cluster.run();
    cluster.pass(1);
    assert!(is_written(cluster.write(1, "c")));
}
