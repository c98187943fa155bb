//! A coordinator's lease: who acknowledges, until when, and who goes on.

use wal::Epoch;

use super::cluster::{Cluster, is_written};
use crate::machine::{Mode, NodeId, Order, Outcome, Refusal, Role};

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
