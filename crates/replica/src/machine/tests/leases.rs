//! A coordinator's lease: who acknowledges, until when, and who goes on.

use wal::Epoch;

use super::cluster::{Cluster, is_written};
use crate::machine::{Mode, NodeId, Order, Outcome, Refusal, Role};

/// A coordinator that was away for a while left the holder a replica for ever: it had used up the one
/// number that it was started with.
#[test]
fn a_holder_whose_lease_ended_goes_on_with_the_next_one_under_a_higher_epoch() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.is_leased = true;
    cluster.stop(1);
    cluster.start(1);
    cluster.promote(1);
    let mut epochs = vec![];
    for _ in 0..3 {
        cluster.lease(1, 10);
        cluster.run();
        assert!(is_written(cluster.write(1, "a")));
        epochs.push(cluster.disks[&1].record.granted.0);
        cluster.pass(12);
        assert!(!is_written(cluster.write(1, "b")));
    }
    assert!(epochs.is_sorted_by(|one, other| one < other), "{epochs:?}");
}

/// It goes on by itself only as long as it promised nobody else anything.
#[test]
fn a_holder_that_promised_another_one_does_not_go_on_by_its_lease() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.is_leased = true;
    cluster.stop(1);
    cluster.start(1);
    cluster.promote(1);
    cluster.lease(1, 10);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(12);
    assert_eq!(cluster.promote(2), Some(Outcome::Done));
    let granted = cluster.disks[&1].record.granted;
    assert_eq!(granted.2, NodeId(2));
    cluster.lease(1, 10);
    cluster.run();
    assert!(matches!(cluster.roles[&1], Role::Replica { .. }));
}

#[test]
fn a_promotion_under_a_lease_asks_for_more_than_the_coordinator_knows_of_and_says_why() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(1);
    for (above, is_done) in [(Epoch(1 << 40), true), (Epoch(1 << 62), false)] {
        let lease = "lease 7 of the coordinator".to_owned();
        let order = Order::Succeed {
            node: NodeId(2),
            above,
            lease: lease.clone(),
        };
        let number = cluster.order(2, order);
        cluster.pass(4);
        let done = cluster.answer(number) == Some(&Outcome::Done);
        assert_eq!(done, is_done, "{above:?}");
        let record = &cluster.disks[&2].record;
        assert!(record.granted.0 > Epoch(1 << 40));
        assert_eq!(record.reason, lease);
    }
}

/// It kept the lease for as long as an answer of the dead one was waited for: two seconds more in which
/// nobody wrote, of five.
#[test]
fn whoever_has_the_lease_and_less_than_another_one_is_denied_at_once() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.part(1, 3);
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(1);
    let order = Order::Succeed {
        node: NodeId(3),
        above: Epoch(0),
        lease: "lease 7 of the coordinator".to_owned(),
    };
    let number = cluster.order(3, order);
    let answer = cluster.answer(number);
    let is_behind = matches!(
        answer,
        Some(Outcome::Refused(Refusal::ReplicaBehind { .. }))
    );
    assert!(is_behind, "{answer:?}");
}
