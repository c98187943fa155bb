//! Who is in a cluster: nodes that come later, move, and are removed, with real processes.

use serde_json::Value;

use super::{address, cluster, path, run, status, wait_until};
use crate::{holdfast::Sandbox, watching::Up};

fn listed(sandbox: &Sandbox, name: &str) -> Option<Value> {
    let (_, nodes) = sandbox.json(["node", "list"]);
    let nodes = nodes.as_array().cloned().unwrap();
    nodes.into_iter().find(|node| node["name"] == name)
}

/// How `status` says that its node and `name` stand.
fn link<'a>(status: &'a Value, name: &str) -> &'a Value {
    let nodes = status["nodes"].as_array();
    let found = nodes.and_then(|nodes| nodes.iter().find(|node| node["node"] == name));
    found.unwrap_or(&Value::Null)
}

/// Nobody tells the others by hand: the book of the one that invited goes round.
///
/// Proves: REP-1
#[test]
fn nodes_that_come_later_move_or_are_removed_are_known_to_all() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let (up_a, up_b) = (Up::start(a), Up::start(b));
    up_a.says("this node writes");
    up_b.says("standing by");

    let c = Sandbox::new();
    let file = a.path("c");
    run(a, &["node", "invite", "c", &address(), "--to", path(&file)]);
    run(&c, &["node", "join", path(&file)]);
    let up_c = Up::start(&c);
    up_c.says("standing by");
    wait_until("c at b", b, |status| {
        link(status, "c")["is_connected"] == true
    });
    wait_until("b at c", &c, |status| {
        link(status, "b")["is_connected"] == true
    });

    // It keeps its replica, in another session, wherever it is.
    run(a, &["group", "add", "c"]);
    wait_until("c in sync", a, |status| {
        status["replicas"][0]["in_sync"] == true
    });
    let before = listed(b, "c").unwrap();
    assert_eq!(up_c.stop(), 0);
    let elsewhere = address();
    let up_c = Up::start_with(&c, &["--node-listen", &elsewhere]);
    up_c.says("standing by");
    for (name, node) in [("a", a), ("b", b)] {
        wait_until("c elsewhere", node, |status| {
            let link = link(status, "c");
            link["address"] == elsewhere.as_str() && link["is_connected"] == true
        });
        let after = listed(node, "c").unwrap();
        assert_eq!(after["node"], before["node"], "{name}");
        assert!(
            after["number"].as_u64() > before["number"].as_u64(),
            "{name}"
        );
    }
    wait_until("c in sync", a, |status| {
        status["replicas"][0]["in_sync"] == true
    });

    // A member is not removed, nor anybody by a node that follows.
    for (node, why) in [
        (a, "holdfast group remove c"),
        (b, "where the site is written"),
    ] {
        let refused = node.run(["node", "remove", "c"]);
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        refused.tells_next_step();
    }
    run(a, &["group", "remove", "c"]);
    run(a, &["node", "remove", "c"]);
    let says = "removed from the cluster";
    let is_told = |status: &Value, name: &str| {
        let cause = link(status, name)["cause"].as_str().unwrap_or_default();
        cause.contains(says)
    };
    wait_until("c is told", &c, |status| {
        is_told(status, "a") && is_told(status, "b")
    });
    let shown = run(&c, &["group", "status"]).stdout;
    assert!(shown.contains(says), "{shown}");
    assert_eq!(up_c.stop(), 0);

    // Nor does it come back by a start, and the others say who tries.
    let up_c = Up::start(&c);
    up_c.says("standing by");
    wait_until("c is told again", &c, |status| {
        is_told(status, "a") && is_told(status, "b")
    });
    for node in [a, b] {
        assert_eq!(link(&status(node), "c"), &Value::Null);
        assert_eq!(listed(node, "c").unwrap()["is_removed"], true);
        let shown = run(node, &["group", "status"]).stdout;
        assert!(shown.contains("refused c (removed)"), "{shown}");
    }
    // Its name is free, its id is not.
    let file = a.path("c again");
    run(a, &["node", "invite", "c", &address(), "--to", path(&file)]);
    assert_ne!(listed(a, "c").unwrap()["node"], before["node"]);
    for up in [up_a, up_b, up_c] {
        assert_eq!(up.stop(), 0);
    }
}

#[test]
fn lists_are_taken_over_by_hand_where_nodes_cannot_reach_each_other() {
    let nodes = cluster(&["a", "b", "c"]);
    let [a, b, _] = nodes.as_slice() else {
        unreachable!("three names")
    };
    assert_eq!(listed(b, "c"), None);
    let list = run(a, &["node", "list", "--output", "json"]).stdout;
    let list = a.file("nodes.json", list);
    run(b, &["node", "meet", path(&list)]);
    assert_eq!(listed(b, "c"), listed(a, "c"));
    let garbage = a.file("garbage", "[{}]");
    let refused = b.run(["node", "meet", path(&garbage)]);
    assert_eq!(refused.code, 2);
    refused.tells_next_step();
}

/// A node that was never written to may have promised: without its record it must not vote again.
///
/// Proves: AUT-2
#[test]
fn a_node_whose_record_is_lost_before_it_ever_ran_does_not_start() {
    let nodes = cluster(&["a", "b"]);
    for (node, name) in nodes.iter().zip(["a", "b"]) {
        let record = node.data_dir().join("node/authority");
        assert_eq!(
            std::fs::metadata(&record).unwrap().len(),
            4 * 4096,
            "{name}"
        );
        std::fs::remove_file(&record).unwrap();
        let refused = node.run(["up", "--no-walk"]);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("is lost"), "{}", refused.stderr);
        refused.tells_next_step();
        assert!(!record.exists());
    }
}
