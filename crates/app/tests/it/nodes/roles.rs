//! What a running `up` goes through without ending: copies that do not come, and other roles.

use rustix::process::Signal;
use world::{Clock, RealClock};

use super::{PATIENCE, add, cluster, hosts, in_sync, pair, status, wait_until};

/// A replica stops in mid-write: the write is answered "not known" after its ten seconds, and the store
/// takes nothing more until it is opened again. `up` ended with an error there, on a node that could
/// still write, and a start went on.
#[test]
fn a_write_whose_copies_do_not_come_does_not_end_the_node_that_writes() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, up_b] = pair(&nodes);
    assert!(add(a, "new-before"));

    up_b.signal(Signal::STOP);
    assert!(!add(a, "new-unknown"));
    up_a.says("the store is opened again");
    up_b.signal(Signal::CONT);
    up_a.says("this node writes");
    wait_until("a copy", a, |status| in_sync(status) == 1);
    let clock = RealClock::new();
    while !add(a, "new-after") {
        assert!(clock.monotonic() < PATIENCE, "{:#}", status(a));
    }
    let there = hosts(a);
    assert!(there.contains("new-before") && there.contains("new-after"));
    while hosts(b) != there {
        assert!(clock.monotonic() < PATIENCE);
    }
    assert_eq!(up_a.stop(), 0);
    assert_eq!(up_b.stop(), 0);
}
