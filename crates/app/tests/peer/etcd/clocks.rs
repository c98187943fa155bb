//! Nodes whose clocks are an hour off: libfaketime moves the clock of dates under the shipped binary, and leaves the
//! monotonic one.

use libtest_mimic::Trial;

use super::{ETCD, Etcd, site, site::Site};
use crate::Peer;

static FAKETIME: Peer = Peer::new(
    "libfaketime",
    "HOLDFAST_PEER_FAKETIME",
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
);

pub(super) fn test() -> Trial {
    // Both are needed; the one that is missing is named.
    let needed = match ETCD.path().exists() {
        true => &FAKETIME,
        false => &ETCD,
    };
    needed.test(
        "clocks_an_hour_off_are_told_and_cost_no_write_and_no_failover",
        off_by_an_hour,
    )
}

fn off_by_an_hour(_: &Peer) {
    let library = FAKETIME.path();
    let by = |offset: &'static str| {
        [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME", offset),
        ]
    };
    let (behind, ahead) = (by("-1h"), by("+1h"));
    let etcd = Etcd::start(&ETCD);
    let site = Site::of_three(&etcd.client);
    let [a, b, c] = site.nodes();
    let (up_a, up_b, up_c) = site.up_with([&[], &behind, &ahead]);
    a.until("both clocks are told", |status| {
        let seconds = |name| {
            let nodes = status["nodes"].as_array().unwrap();
            let node = nodes.iter().find(|node| node["node"] == name).unwrap();
            node["clock_ahead_seconds"].as_i64()
        };
        let is_an_hour = |ahead: Option<i64>| ahead.is_some_and(|it| (3590..=3610).contains(&it));
        is_an_hour(seconds("c")) && is_an_hour(seconds("b").map(|it| -it))
    });
    let shown = a.done(&["group", "status"]);
    assert!(shown.contains(" s ahead of this node's"), "{shown}");
    assert!(shown.contains(" s behind this node's"), "{shown}");

    // What is dated by one clock is followed by what is dated by one that is an hour or two behind it.
    for (node, name) in [(c, "new-ahead"), (b, "new-behind"), (a, "new-right")] {
        let writes = site.writer(&[a, b, c]);
        if writes.name != node.name {
            writes.done(&["switchover", node.name]);
        }
        node.adds(name);
        let status = node.status();
        assert_eq!(status["coordinator"]["is_own"], true, "{status:#}");
    }
    let expected = ["new-ahead", "new-behind", "new-right"].map(str::to_owned);
    up_a.kill();
    let writes = site.writer(&[b, c]);
    for node in [b, c] {
        node.until("everything", |_| {
            expected.iter().all(|name| node.hosts().contains(name))
        });
    }
    writes.done(&["audit", "verify"]);
    writes.done(&["ledger", "verify"]);

    let up_a = a.up();
    writes.until("all copies", |status| site::in_sync(status) == 2);
    for up in [up_a, up_b, up_c] {
        up.ends_well();
    }
}
