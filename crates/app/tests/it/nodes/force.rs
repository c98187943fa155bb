//! Two nodes, and one of them is gone: what the other one may do, at whose word, and what of it is on record.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{add, cluster, hosts, in_sync, pair, run, shown, status, three, wait_until};
use crate::{
    holdfast::{BINARY, Run, Sandbox},
    watching::Up,
};

const FORCE: &[&str] = &[
    "promote",
    "--force",
    "--fenced-by",
    "'powered off, PDU 3'",
    "--accept-loss",
];

/// As somebody at a terminal who types `typed`.
fn at_terminal(sandbox: &Sandbox, args: &[&str], typed: &str) -> Run {
    let line = format!("{BINARY} {}", args.join(" "));
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOLDFAST_DATA_DIR", sandbox.data_dir())
        .env("HOME", sandbox.path(""))
        .env("USER", "mara")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("util-linux has it");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{typed}\n").as_bytes()).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    drop(stdin);
    run
}

fn forced(sandbox: &Sandbox) -> Vec<Value> {
    let found = shown(sandbox, &["audit", "--action", "authority.forced"]);
    found["records"].as_array().unwrap().clone()
}

fn writes(sandbox: &Sandbox, name: &str) {
    wait_until("it writes", sandbox, |status| {
        status["role"] == "primary" && add(sandbox, name)
    });
}

/// Two nodes of which the first acknowledges alone: nobody knows what, once it is dead.
fn pair_without_waiting(nodes: &[Sandbox]) -> [Up; 2] {
    let ups = pair(nodes);
    run(&nodes[0], &["group", "mode", "async"]);
    wait_until("it is in force", &nodes[1], |status| {
        status["mode"] == "async"
    });
    ups
}

/// The ancestor's audit of a forced promotion was thrown away with the command; ours could not be written
/// at all, because the tables cannot before the takeover.
///
/// Proves: AUT-9, AUT-14
#[test]
fn force_tells_what_may_be_lost_asks_at_a_terminal_and_is_on_record() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, up_b] = pair_without_waiting(&nodes);
    writes(a, "new-before");
    wait_until("a copy", a, |status| in_sync(status) == 1);
    up_a.kill();

    let refused = b.run(["promote"]);
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    let (_, explained) = b.json(["explain", "promotion"]);
    assert_eq!(explained["last"]["verdict"], "denied", "{explained:#}");
    let rules = explained["last"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 10, "{explained:#}");
    assert!(rules.iter().any(|rule| rule["gave"] == "fails"));

    let before = status(b)["epoch"].clone();
    let blind = b.run(FORCE.iter().map(|word| word.trim_matches('\'')));
    assert_eq!(blind.code, 2);
    assert!(blind.stderr.contains("at a terminal"), "{}", blind.stderr);
    let doubted = at_terminal(b, FORCE, "no");
    assert_eq!(doubted.code, 2, "{}", doubted.stdout);
    assert!(
        doubted.stdout.contains("nothing was changed"),
        "{}",
        doubted.stdout
    );
    assert_eq!(status(b)["epoch"], before);

    let done = at_terminal(b, FORCE, "b");
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    for said in [
        "acknowledged records: ",
        "`a` acknowledged since it was last heard of",
        "unknown",
    ] {
        assert!(done.stdout.contains(said), "{said}: {}", done.stdout);
    }
    writes(b, "new-after");
    let there = hosts(b);
    assert!(there.contains("new-before") && there.contains("new-after"));
    assert!(status(b)["epoch"].as_u64() > before.as_u64());

    // Once, also after another start, with what was said and accepted.
    assert_eq!(up_b.stop(), 0);
    let up_b = Up::start(b);
    up_b.says("this node writes");
    writes(b, "new-again");
    let records = forced(b);
    assert_eq!(records.len(), 1, "{records:#?}");
    let detail = &records[0]["detail"];
    assert_eq!(records[0]["actor"], "user mara");
    assert_eq!(detail["fenced_by"], "powered off, PDU 3");
    assert_eq!(detail["outcome"], "promoted");
    assert_eq!(detail["accepted"]["holder"], "a", "{detail:#}");
    assert_eq!(detail["found"]["own"], detail["accepted"]["own_end"]);

    // The one that was thought to be stopped follows, and has the record as well.
    let up_a = Up::start(a);
    up_a.says("standing by");
    wait_until("a copy", b, |status| in_sync(status) == 1);
    wait_until("it follows", a, |_| hosts(a).contains("new-again"));
    assert_eq!(forced(a).len(), 1);
    for up in [up_a, up_b] {
        assert_eq!(up.stop(), 0);
    }
}

/// Both are asked at a terminal, and both answer. The second order wrote its note over that of the first one,
/// or the first over the second: an epoch that nobody accounts for.
///
/// Proves: AUT-9
#[test]
fn each_forced_order_is_on_record_also_of_two_at_once() {
    let nodes = cluster(&["a", "b"]);
    let [_, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, up_b] = pair_without_waiting(&nodes);
    // It answers nothing, so each order asks it for as long as it may.
    up_a.signal(Signal::STOP);
    let codes = thread::scope(|scope| {
        let forces = [(); 2].map(|()| scope.spawn(|| at_terminal(b, FORCE, "b").code));
        forces.map(|it| it.join().unwrap())
    });
    assert_eq!(
        codes.iter().filter(|code| **code == 0).count(),
        1,
        "{codes:?}"
    );
    writes(b, "new-after");
    let records = forced(b);
    let outcomes = records
        .iter()
        .map(|it| it["detail"]["outcome"].as_str().unwrap());
    let mut outcomes: Vec<&str> = outcomes.collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes.len(), 2, "{records:#?}");
    assert!(outcomes.contains(&"promoted"), "{outcomes:?}");
    up_a.kill();
    assert_eq!(up_b.stop(), 0);
}

/// A change of the mode that came with the promotion alone was never in force, because the node that is
/// gone cannot agree: nothing was acknowledged, whatever the status said.
///
/// Proves: REP-15, REP-18, REP-20
#[test]
fn the_last_of_two_writes_alone_at_an_order_and_its_peer_is_removed_at_another() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, up_b] = pair(&nodes);
    writes(a, "new-before");
    let (_, explained) = a.json(["explain", "replication"]);
    let replica = &explained["replicas"][0];
    assert_eq!(replica["in_sync"], true, "{explained:#}");
    assert!(replica["session"]["proof"].is_string(), "{explained:#}");
    let text = run(a, &["explain", "replication"]).stdout;
    assert!(text.contains("b: in sync"), "{text}");
    up_a.kill();

    let unsaid = b.run(["promote", "--alone"]);
    assert_eq!(unsaid.code, 2, "{}", unsaid.stdout);
    run(b, &["promote", "--alone", "--fenced-by", "powered off"]);
    // Also where the first half of it was done before.
    run(b, &["promote", "--alone", "--fenced-by", "powered off"]);
    writes(b, "new-alone");
    assert_eq!(status(b)["mode"], "async");
    let (_, explained) = b.json(["explain", "replication"]);
    let why = explained["replicas"][0]["why_not"].as_str().unwrap();
    assert!(why.contains("not connected"), "{explained:#}");
    let removed = run(b, &["group", "remove", "a", "--fenced", "powered off"]);
    assert!(removed.stdout.contains("members b"), "{}", removed.stdout);
    writes(b, "new-single");
    assert!(hosts(b).contains("new-before"));
    assert_eq!(up_b.stop(), 0);
}

/// The statement that one node was stopped was put on record for all others, and took the place of their
/// answers: a change was in force though no node that ran had it.
#[test]
fn a_statement_is_about_nodes_that_are_silent_and_refused_where_none_is() {
    let nodes = cluster(&["a", "b", "c"]);
    let [a, b, c] = nodes.as_slice() else {
        unreachable!("three names")
    };
    let [up_a, up_b, up_c] = three(&nodes);
    wait_until("two copies", a, |status| in_sync(status) == 2);
    let (mode, remove) = (["group", "mode", "async"], ["group", "remove", "c"]);
    for (order, heard) in [(mode, "b, c can be heard"), (remove, "c can be heard")] {
        let refused = a.run([&order[..], &["--fenced", "powered off"]].concat());
        refused.is_refused_naming(heard);
        refused.tells_next_step();
    }
    let before = status(a);
    assert_eq!(before["mode"], "sync:1", "{before:#}");
    assert_eq!(before["members"].as_array().unwrap().len(), 3);

    up_a.kill();
    // The other one is told that it has less, if it has.
    let alone = ["promote", "--alone", "--fenced-by", "powered off"];
    let mut both = [(b, "c"), (c, "b")].into_iter();
    let (writes, other) = both.find(|(node, _)| node.run(alone).code == 0).unwrap();
    let after = status(writes);
    assert_eq!(after["mode"], "async", "{after:#}");
    let reason = after["reason"].as_str().unwrap();
    assert!(reason.contains("a: powered off"), "{reason}");
    assert!(!reason.contains(&format!("{other}: ")), "{reason}");
    for up in [up_b, up_c] {
        assert_eq!(up.stop(), 0);
    }
}

/// Proves: REP-15
#[test]
fn by_policy_a_write_without_copies_waits_or_is_refused_at_once() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, up_b] = pair(&nodes);
    writes(a, "new-before");
    run(a, &["group", "policy", "refuse"]);
    assert_eq!(status(a)["policy"], "refuse");
    assert_eq!(up_b.stop(), 0);
    wait_until("no copy", a, |status| in_sync(status) == 0);
    let file = a.file("refused", "name,address\nnew-refused,192.0.2.1\n");
    let refused = a.run(["host".as_ref(), "import".as_ref(), file.as_os_str()]);
    assert_ne!(refused.code, 0);
    let up_b = Up::start(b);
    wait_until("a copy", a, |status| in_sync(status) == 1);
    writes(a, "new-after");
    assert!(!hosts(a).contains("new-refused"));
    for up in [up_a, up_b] {
        assert_eq!(up.stop(), 0);
    }
}
