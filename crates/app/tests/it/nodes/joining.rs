//! Who is in a cluster: nodes that come later, move, and are removed, with real processes.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use serde_json::Value;
use world::{Clock, RealClock};

use super::{
    PATIENCE, add, address, cluster, hosts, in_sync, join, pair, path, run, status, wait_until,
};
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
    join(a, &c, "c");
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
    for (name, made_it) in [("a", true), ("b", false), ("c", false)] {
        assert_eq!(listed(&c, name).unwrap()["is_founder"], made_it, "{name}");
    }
    let shown = run(&c, &["node", "list"]).stdout;
    assert!(shown.contains("a (made the cluster)"), "{shown}");
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

    remove_for_ever(a, b, &c, up_c);
    // Its name is free, its id is not.
    let file = a.path("c again");
    run(a, &["node", "invite", "c", &address(), "--to", path(&file)]);
    assert_ne!(listed(a, "c").unwrap()["node"], before["node"]);
    for up in [up_a, up_b] {
        assert_eq!(up.stop(), 0);
    }
}

/// The one that invited is killed right after the third one became a member, and the second one has a book
/// that is older than that. It had the third one's id on record, and refused it all the same, because nobody had
/// said where it is; each waited for the other's call.
#[test]
fn members_that_outlive_the_one_that_knew_both_find_each_other_and_elect() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, up_b] = pair(&nodes);
    let book = b.data_dir().join("node/node.json");
    let before = std::fs::read(&book).unwrap();
    let c = Sandbox::new();
    join(a, &c, "c");
    let up_c = Up::start(&c);
    up_c.says("standing by");
    run(a, &["group", "add", "c"]);
    up_a.kill();

    // As if it had not heard of the book in time, which is a matter of moments.
    up_b.kill();
    std::fs::write(&book, before).unwrap();
    assert_eq!(listed(b, "c"), None);
    let up_b_again = Up::start(b);
    up_b_again.says("standing by");
    wait_until("one of them writes", b, |_| {
        [b, &c]
            .into_iter()
            .any(|node| node.run(["promote"]).code == 0)
    });
    wait_until("c is known", b, |status| {
        link(status, "c")["is_connected"] == true
    });
    for up in [up_b_again, up_c] {
        assert_eq!(up.stop(), 0);
    }
}

fn remove_for_ever(a: &Sandbox, b: &Sandbox, c: &Sandbox, up_c: Up) {
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
    wait_until("c is told", c, |status| {
        is_told(status, "a") && is_told(status, "b")
    });
    let shown = run(c, &["group", "status"]).stdout;
    assert!(shown.contains(says), "{shown}");
    assert_eq!(up_c.stop(), 0);

    // Nor does it come back by a start, and the others say who tries.
    let up_c = Up::start(c);
    up_c.says("standing by");
    wait_until("c is told again", c, |status| {
        is_told(status, "a") && is_told(status, "b")
    });
    for node in [a, b] {
        assert_eq!(link(&status(node), "c"), &Value::Null);
        assert_eq!(listed(node, "c").unwrap()["is_removed"], true);
        let shown = run(node, &["group", "status"]).stdout;
        assert!(shown.contains("refused c (removed)"), "{shown}");
    }
    assert_eq!(up_c.stop(), 0);
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

/// Whoever has file and code joins with them a second time, on an empty disk, as the very node that had
/// acknowledged: its promise made the majority for a candidate that had less.
///
/// Proves: REP-4, AUT-8
#[test]
fn an_invitation_that_is_used_again_makes_no_node_that_counts_as_the_first_one() {
    let nodes = cluster(&["a", "b", "c"]);
    let [a, b, c] = nodes.as_slice() else {
        unreachable!("three names")
    };
    let (up_a, up_b, up_c) = (Up::start(a), Up::start(b), Up::start(c));
    up_a.says("this node writes");
    for up in [&up_b, &up_c] {
        up.says("standing by");
    }
    for name in ["b", "c"] {
        run(a, &["group", "add", name]);
    }
    wait_until("two copies", a, |status| in_sync(status) == 2);
    run(a, &["group", "mode", "sync:1"]);
    wait_until("c at b", b, |status| {
        link(status, "c")["is_connected"] == true
    });
    // On a and c alone.
    up_b.kill();
    assert!(add(a, "new-acknowledged"));
    up_c.kill();
    up_a.kill();
    let up_b = Up::start(b);
    up_b.says("standing by");

    let again = Sandbox::new();
    let (file, code) = (a.path("c"), a.path("c.code"));
    run(
        &again,
        &["node", "join", path(&file), "--code-file", path(&code)],
    );
    let up_again = Up::start(&again);
    up_again.says("standing by");
    wait_until("c at b", b, |status| {
        link(status, "c")["is_connected"] == true
    });
    let refused = b.run(["promote"]);
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    assert_eq!(status(&again)["is_amnesiac"], true);

    // It gets its copy from the one that has everything, and counts then.
    let up_a = Up::start(a);
    up_a.says("this node writes");
    wait_until("two copies", a, |status| in_sync(status) == 2);
    assert_eq!(status(&again)["is_amnesiac"], false);
    for node in [a, b, &again] {
        wait_until("it is there", node, |_| {
            hosts(node).contains("new-acknowledged")
        });
    }
    for up in [up_a, up_b, up_again] {
        assert_eq!(up.stop(), 0);
    }
}

/// Whoever gave the order was told after two minutes that the node was off, which ran and had made the change. Until
/// it comes the order can be taken back, as it says.
#[test]
fn an_order_that_waits_for_a_node_says_so_is_taken_back_or_done_when_that_comes() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let up_a = Up::start(a);
    up_a.says("this node writes");
    let waits = a.run(["group", "add", "b"]);
    waits.is_refused_naming("waits for b");
    waits.tells_next_step();
    let shown = run(a, &["group", "status"]).stdout;
    assert!(shown.contains("it waits for b"), "{shown}");
    assert_eq!(status(a)["changing"]["awaits"][0], "b");
    let again = a.run(["group", "mode", "sync:1"]);
    again.is_refused_naming("not in force yet");

    waits.is_refused_naming("`holdfast group remove b --fenced STATEMENT` takes it back");
    run(
        a,
        &["group", "remove", "b", "--fenced", "it was never started"],
    );
    let alone = status(a);
    assert!(alone["changing"].is_null(), "{alone:#}");
    assert_eq!(alone["replicas"].as_array().map(Vec::len), Some(0));
    assert!(add(a, "new-without-it"));
    a.run(["group", "add", "b"])
        .is_refused_naming("waits for b");

    let up_b = Up::start(b);
    wait_until("it is done", a, |status| {
        status["changing"].is_null() && in_sync(status) == 1
    });
    wait_until("it is there", b, |_| hosts(b).contains("new-without-it"));
    for up in [up_a, up_b] {
        assert_eq!(up.stop(), 0);
    }
}

/// The order of docs/OPERATING: the dead one first, or the new one waits for its answer.
#[test]
fn a_dead_one_of_two_is_replaced() {
    let nodes = cluster(&["a", "b"]);
    let [a, _] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, up_b] = pair(&nodes);
    up_b.kill();
    run(a, &["group", "mode", "async", "--fenced", "its disk died"]);
    run(a, &["group", "remove", "b", "--fenced", "its disk died"]);
    run(a, &["node", "remove", "b"]);
    let c = Sandbox::new();
    join(a, &c, "c");
    let up_c = Up::start(&c);
    up_c.says("standing by");
    let added = run(a, &["group", "add", "c"]).stdout;
    assert!(added.contains("c: insync, in sync"), "{added}");
    run(a, &["group", "mode", "sync:1"]);
    assert!(add(a, "new-on-two"));
    wait_until("it is there", &c, |_| hosts(&c).contains("new-on-two"));
    for up in [up_a, up_c] {
        assert_eq!(up.stop(), 0);
    }
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

#[test]
fn an_invitation_is_opened_by_its_code_and_by_nothing_else() {
    let nodes = cluster(&["a", "b"]);
    let (a, other) = (&nodes[0], Sandbox::new());
    let (file, code) = (a.path("b"), a.path("b.code"));
    let invitation = std::fs::read_to_string(&file).unwrap();
    let code_text = std::fs::read_to_string(&code).unwrap();
    let key = std::fs::read_to_string(a.data_dir().join("keys/policy.key")).unwrap();
    let body = key.lines().nth(1).unwrap();
    assert!(!invitation.contains(body) && !invitation.contains("PRIVATE KEY"));
    assert!(!invitation.contains(code_text.trim()));

    // The code of another invitation, one that is mistyped, none, and no file of ours.
    let to = a.path("c");
    let shown = run(a, &["node", "invite", "c", &address(), "--to", path(&to)]).stdout;
    let wrong = a.file("wrong", &shown);
    let mistyped = a.file("mistyped", code_text.replacen('-', "", 1).get(1..).unwrap());
    let garbage = a.file("garbage", "{}");
    let cases: [(&[&str], &str); 4] = [
        (
            &["node", "join", path(&file), "--code-file", path(&wrong)],
            "does not open",
        ),
        (
            &["node", "join", path(&file), "--code-file", path(&mistyped)],
            "mistyped",
        ),
        (
            &["node", "join", path(&file), "--code-file", "/nowhere"],
            "/nowhere",
        ),
        (
            &["node", "join", path(&garbage), "--code-file", path(&code)],
            "invitation",
        ),
    ];
    for (args, says) in cases {
        let refused = other.run(args);
        assert_eq!(refused.code, 2, "{}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
        refused.tells_next_step();
        let told = format!("{}{}", refused.stdout, refused.stderr);
        assert!(
            !told.contains(shown.trim()) && !told.contains(code_text.trim()),
            "{told}"
        );
        assert!(!other.data_dir().join("node").exists(), "nothing was begun");
    }
    for span in ["0s", "31d", "soon"] {
        let args = [
            "node",
            "invite",
            "d",
            "127.0.0.1:1",
            "--to",
            "/tmp/x",
            "--valid",
            span,
        ];
        assert_eq!(a.run(args).code, 2, "{span}");
    }
    // What another site sealed is not made unreadable by it.
    let lies = other.file("data/keys/data.key", "another site's key");
    let join = ["node", "join", path(&to), "--code-file", path(&wrong)];
    let refused = other.run(join);
    refused.is_refused_naming("data/keys/data.key");
    refused.tells_next_step();
    assert_eq!(std::fs::read(&lies).unwrap(), b"another site's key");
    std::fs::remove_file(lies).unwrap();
    run(&other, &join);
}

fn key(node: &Sandbox, file: &str) -> std::io::Result<Vec<u8>> {
    std::fs::read(node.data_dir().join("keys").join(file))
}

/// A node that takes over opens what was sealed before, and goes on with the same signatures, whatever was
/// rotated since it joined.
#[test]
fn keys_that_are_rotated_are_on_every_member_before_they_are_used() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let up_a = Up::start(a);
    up_a.says("this node writes");
    let up_b = Up::start(b);
    up_b.says("standing by");
    run(a, &["group", "add", "b"]);
    wait_until("b in sync", a, |status| {
        status["replicas"][0]["in_sync"] == true
    });
    let password = a.file("password", "one password\n");
    let add = [
        "credential",
        "add",
        "default",
        "--user",
        "root",
        "--password-file",
        path(&password),
    ];
    run(a, &add);
    run(a, &["ledger", "seal"]);
    for (file, args) in [
        (
            "data.key",
            ["credential", "rotate", "--data-key"].as_slice(),
        ),
        ("ledger.key", &["ledger", "key", "rotate"]),
    ] {
        let before = key(a, file).unwrap();
        run(a, args);
        assert_ne!(key(a, file).unwrap(), before, "{file}");
        let both = || key(a, file).unwrap() == key(b, file).unwrap();
        wait_until(file, b, |_| both());
    }

    let up_b = rotate_without(a, b, up_b);

    // The new one opens, seals, and its statements follow on those of the old one.
    let handed = || b.run(["group", "status"]).code == 0 && a.run(["switchover", "b"]).code == 0;
    wait_until("b has the keys", a, |_| handed());
    up_b.says("this node writes");
    let rotate = [
        "credential",
        "rotate",
        "default",
        "--password-file",
        path(&password),
    ];
    wait_until("b writes", b, |_| b.run(rotate).code == 0);
    run(b, &["ledger", "seal"]);
    run(b, &["ledger", "verify"]);
    // The old ones are nowhere: each took them from the one that wrote before it.
    for node in [a, b] {
        wait_until("old keys are gone", node, |_| old_keys(node).is_empty());
    }
    wait_until("a copy", b, |status| in_sync(status) == 1);
    run(b, &["group", "mode", "sync:1"]);

    for up in [up_a, up_b] {
        assert_eq!(up.stop(), 0);
    }
    lose_a_key(a, b);
}

/// With a member that is off nothing is rotated, and everything opens as before.
fn rotate_without(a: &Sandbox, b: &Sandbox, up_b: Up) -> Up {
    assert_eq!(up_b.stop(), 0);
    let before = key(a, "data.key").unwrap();
    let refused = a.run(["credential", "rotate", "--data-key"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("b has not told"),
        "{}",
        refused.stderr
    );
    assert_eq!(key(a, "data.key").unwrap(), before);
    let up_b = Up::start(b);
    up_b.says("standing by");
    wait_until("b in sync", a, |status| {
        status["replicas"][0]["in_sync"] == true
    });
    up_b
}

/// What lies in the ring and is not in force.
fn old_keys(node: &Sandbox) -> Vec<std::ffi::OsString> {
    let current = ["data.key", "ledger.key", "policy.key"].map(|file| key(node, file).unwrap());
    let ring = std::fs::read_dir(node.data_dir().join("node/keys"));
    let entries = ring.into_iter().flatten().map(|entry| entry.unwrap());
    let old = entries.filter(|entry| {
        let bytes = std::fs::read(entry.path());
        bytes.is_ok_and(|bytes| !current.contains(&bytes))
    });
    old.map(|entry| entry.file_name()).collect()
}

/// An order over the socket, the moment that it is there.
fn promote_at_once(node: &Sandbox) -> Value {
    let socket = node.data_dir().join("node/socket");
    let clock = RealClock::new();
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(clock.monotonic() < PATIENCE, "{error}"),
        }
    };
    stream
        .write_all(b"{\"order\":\"promote\",\"alone\":null}\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// One that has lost its key says so, and is not promoted without force: also not in the moments of its
/// start in which it does not know yet, when it was.
fn lose_a_key(a: &Sandbox, b: &Sandbox) {
    std::fs::remove_file(a.data_dir().join("keys/data.key")).unwrap();
    let up_a = Up::start(a);
    let answer = promote_at_once(a);
    let why = answer["refused"].as_str().unwrap_or_default();
    let says = ["is not open yet", "cannot open what the site has sealed"];
    assert!(says.iter().any(|it| why.contains(it)), "{answer:#}");
    up_a.says("standing by");
    let says_so = |status: &Value| {
        let missing = status["keys_missing"][0].as_str().unwrap_or_default();
        missing.contains("keys/data.key")
    };
    wait_until("it says so", a, says_so);
    let refused = a.run(["promote", "--alone", "--fenced-by", "powered off"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("keys/data.key"),
        "{}",
        refused.stderr
    );
    refused.tells_next_step();
    // It comes back with whoever has it.
    let up_b = Up::start(b);
    wait_until("it came back", a, |status| {
        let is_there = key(a, "data.key").ok() == key(b, "data.key").ok();
        is_there && status["keys_missing"] == serde_json::json!([])
    });
    for up in [up_a, up_b] {
        assert_eq!(up.stop(), 0);
    }
}
