//! What a group does, from end to end.

use super::cluster::{Cluster, is_written};
use crate::machine::{Mode, Outcome};

#[test]
fn a_promoted_node_feeds_two_empty_replicas_and_acknowledges_what_one_of_them_has() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    assert_eq!(cluster.promote(1), Some(Outcome::Done));
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(3);
    assert!(is_written(cluster.write(1, "b")));
    cluster.start(3);
    cluster.pass(2);
    for node in [1, 2, 3] {
        assert_eq!(cluster.texts(node), ["a", "b"]);
        assert_eq!(cluster.disks[&node].committed, cluster.disks[&1].end().lsn);
    }
    assert!(cluster.pins.is_empty());
}

#[test]
fn a_holder_that_starts_again_goes_on_and_so_does_a_node_that_is_promoted_after_it() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(1);
    cluster.start(1);
    cluster.pass(1);
    assert!(is_written(cluster.write(1, "b")));
    cluster.stop(1);
    assert_eq!(cluster.promote(2), Some(Outcome::Done));
    assert!(is_written(cluster.write(2, "c")));
    cluster.start(1);
    cluster.pass(2);
    assert!(!is_written(cluster.write(1, "d")));
    for node in [1, 2, 3] {
        assert_eq!(cluster.texts(node), ["a", "b", "c"], "{node}");
    }
}
