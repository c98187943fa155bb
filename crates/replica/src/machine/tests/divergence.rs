//! Logs that part, and what becomes of the records that only one of them has.

use super::cluster::{Cluster, is_written};
use crate::machine::{Body, Mode, NodeId, Order, Outcome, Policy};

/// Node 1 writes `tail` to its own disk alone, and is gone; node 2 is promoted and writes `after`.
fn diverged(tail: &[&str], after: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "both")));
    cluster.part(1, 2);
    cluster.part(1, 3);
    for text in tail {
        assert_eq!(cluster.write(1, text), None, "nobody else has {text}");
    }
    cluster.stop(1);
    assert_eq!(cluster.promote(2), Some(Outcome::Done));
    for text in after {
        assert!(is_written(cluster.write(2, text)));
    }
    cluster
}

/// An old primary returns with records of its own. By numbers alone the first of these would be in
/// sync, and the second would be caught up, each with a record that no other node has.
///
/// Proves: REP-5, AUT-10
#[test]
fn an_old_primary_that_returns_loses_its_tail_to_quarantine_and_is_fed_as_a_replica() {
    for (what, tail, after) in [
        ("equal", &["old 1"][..], &[][..]),
        ("behind", &["old 1"][..], &["new 1", "new 2"][..]),
        (
            "ahead",
            &["old 1", "old 2", "old 3", "old 4"][..],
            &["new 1"][..],
        ),
    ] {
        let mut cluster = diverged(tail, after);
        cluster.cut.clear();
        cluster.start(1);
        cluster.pass(2);
        let mut expected = vec!["both"];
        expected.extend(after);
        assert_eq!(cluster.texts(1), expected, "{what}");
        let disk = &cluster.disks[&1];
        let quarantined = disk
            .quarantine
            .iter()
            .filter(|entry| entry.kind == super::cluster::KIND);
        assert_eq!(quarantined.count(), tail.len(), "{what}");
        assert!(cluster.is_in_sync(2, 1), "{what}");
        assert!(cluster.names(2).contains(&"truncated"), "{what}");
        assert!(cluster.pins.is_empty(), "{what}");
        assert!(!is_written(cluster.write(1, "late")), "{what}");
    }
}

/// A replica that asks again for its cut, because the answer was lost, must not cut what it was sent
/// and acknowledged since.
#[test]
fn a_cut_that_is_asked_for_again_leaves_what_came_after_it() {
    let mut cluster = diverged(&["old 1", "old 2"], &["new 1"]);
    cluster.cut.clear();
    cluster.start(1);
    cluster.pass(1);
    let truncate = cluster.sent.iter().find(|(from, to, message)| {
        (*from, *to) == (2, 1) && matches!(message.body, Body::Truncate { .. })
    });
    let late = truncate.unwrap().2.clone();
    let before = cluster.texts(1);
    cluster.wire.push_back((2, 1, late));
    cluster.run();
    assert_eq!(cluster.texts(1), before);
    assert!(is_written(cluster.write(2, "after it")));
}

#[test]
fn a_cut_whose_answer_is_lost_is_asked_for_again() {
    let mut cluster = diverged(&["old 1", "old 2"], &["new 1"]);
    cluster.cut.clear();
    cluster.part(2, 1);
    cluster.start(1);
    cluster.cut.clear();
    cluster.connect(2, 1);
    let is_cut = |cluster: &Cluster| {
        let last = cluster.wire.back();
        last.is_some_and(|(.., message)| matches!(message.body, Body::Truncated { .. }))
    };
    while !is_cut(&cluster) {
        assert!(!cluster.wire.is_empty());
        cluster.deliver_one();
    }
    cluster.wire.pop_back();
    cluster.pass(2);
    assert_eq!(cluster.texts(1), ["both", "new 1"]);
    assert!(cluster.is_in_sync(2, 1));
    assert!(!cluster.names(2).contains(&"escalated"));
}

/// Both sides of a partition are promoted by force, with the same number; then they meet.
#[test]
fn a_number_that_was_minted_twice_is_two_epochs() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "both")));
    cluster.pass(1);
    cluster.part(1, 2);
    cluster.stop(1);
    cluster.force(2);
    assert!(is_written(cluster.write(2, "two")));
    cluster.stop(2);
    cluster.cut.clear();
    cluster.disks.get_mut(&1).unwrap().record.granted.2 = NodeId(9);
    cluster.start(1);
    cluster.force(1);
    assert!(is_written(cluster.write(1, "one")));
    let numbers = |cluster: &Cluster, id| cluster.disks[&id].end().epoch;
    assert_eq!(numbers(&cluster, 1), numbers(&cluster, 2));
    cluster.start(2);
    cluster.pass(5);
    // Node 2 started again, so its number is the higher one.
    assert_eq!(cluster.texts(1), ["both", "two"]);
    assert_eq!(cluster.texts(2), ["both", "two"]);
    let cut = cluster.disks[&1].quarantine.len();
    assert_eq!(cut, 2, "the announcement and the record");
}

#[test]
fn three_promotions_in_a_row_keep_every_acknowledged_write() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    let mut expected = Vec::new();
    for round in 0..3 {
        for id in [1, 2, 3] {
            assert_eq!(cluster.promote(id), Some(Outcome::Done), "{id}");
            cluster.pass(4);
            let text = format!("{round} {id}");
            assert!(is_written(cluster.write(id, &text)));
            expected.push(text);
            cluster.stop(id);
            let next = id % 3 + 1;
            assert_eq!(
                cluster.promote(next),
                Some(Outcome::Done),
                "{next} after {id}"
            );
            cluster.start(id);
            cluster.pass(4);
            cluster.stop(next);
            cluster.start(next);
            cluster.pass(4);
            cluster.stop(next);
            cluster.start(next);
            cluster.pass(4);
            cluster.demote(next);
        }
    }
    for id in [1, 2, 3] {
        assert_eq!(cluster.texts(id), expected, "{id}");
    }
}

#[test]
fn writes_that_wait_when_a_higher_epoch_is_promised_are_answered_unknown_at_once() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.part(1, 2);
    cluster.part(1, 3);
    let number = cluster.write_later(1, "nobody has it");
    assert_eq!(cluster.answer(number), None);
    assert_eq!(cluster.promote(2), Some(Outcome::Done));
    assert_eq!(cluster.answer(number), None, "it cannot know");
    cluster.heal(1, 2);
    assert!(matches!(cluster.answer(number), Some(Outcome::Unknown(_))));
    assert!(!is_written(cluster.write(1, "late")));
}

#[test]
fn a_switchover_loses_nothing_and_tells_writers_where_to_go() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "before")));
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    cluster.disks.get_mut(&3).unwrap().is_slow = true;
    let waiting = cluster.write_later(1, "amid");
    let number = cluster.order(1, Order::Switchover { to: NodeId(2) });
    let refused = cluster.write(1, "too late");
    let holder = Some(NodeId(2));
    let refusal = crate::machine::Refusal::NotPrimary { holder };
    assert_eq!(refused, Some(Outcome::Refused(refusal)));
    assert_eq!(cluster.answer(number), None);
    cluster.flush(3);
    let is_told = cluster
        .sent
        .iter()
        .any(|(.., message)| matches!(message.body, Body::HandOver { .. }));
    assert!(!is_told, "node 3 has everything, and node 2 has not");
    cluster.flush(2);
    cluster.pass(1);
    assert!(is_written(cluster.answer(waiting).cloned()));
    assert_eq!(cluster.answer(number), Some(&Outcome::Done));
    assert!(is_written(cluster.write(2, "after")));
    cluster.pass(1);
    for id in [1, 2, 3] {
        assert_eq!(cluster.texts(id), ["before", "amid", "after"], "{id}");
    }
}

#[test]
fn a_primary_whose_switchover_comes_to_nothing_writes_on() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.part(1, 2);
    let number = cluster.order(1, Order::Switchover { to: NodeId(2) });
    cluster.pass(12);
    assert!(matches!(cluster.answer(number), Some(Outcome::Refused(_))));
    assert!(is_written(cluster.write(1, "on")));
}

#[test]
fn a_policy_to_wait_holds_a_write_until_a_replica_is_in_sync_or_the_time_is_over() {
    let mut config = super::cluster::config(1..=2, Mode::Sync(1));
    config.policy = Policy::Wait;
    let mut cluster = Cluster::with(super::cluster::limits(), config);
    cluster.promote(1);
    cluster.stop(2);
    let first = cluster.write_later(1, "waits in vain");
    cluster.pass(6);
    assert!(matches!(cluster.answer(first), Some(Outcome::Refused(_))));
    let second = cluster.write_later(1, "waits");
    assert_eq!(cluster.answer(second), None);
    cluster.start(2);
    cluster.pass(1);
    assert!(is_written(cluster.answer(second).cloned()));
    assert_eq!(cluster.texts(2), ["waits"]);
}
