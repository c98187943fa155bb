//! `holdfast schedule`, `maintenance` and `audit` on a data directory with hosts.

use crate::holdfast::{Run, Sandbox};

fn with_hosts(hosts: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for host in hosts {
        let added = sandbox.run(["host", "add", host, "--local"]);
        assert_eq!(added.code, 0, "{}", added.stderr);
    }
    sandbox
}

fn check(run: &Run, code: i32, says: &[&str]) {
    assert_eq!(run.code, code, "{}{}", run.stdout, run.stderr);
    let all = format!("{}{}", run.stdout, run.stderr);
    for words in says {
        assert!(all.contains(words), "`{words}` is not in:\n{all}");
    }
}

#[test]
fn an_added_host_is_due_and_maintenance_is_told_set_and_cleared() {
    let sandbox = with_hosts(&["web1"]);
    let due = sandbox.run(["schedule"]);
    check(&due, 0, &["web1", "unknown", "never", "due"]);
    let set = ["maintenance", "set", "--host", "web1", "--for", "2h"];
    let set = sandbox.run([&set[..], &["--reason", "new disks"]].concat());
    check(&set, 0, &["web1", "new disks"]);
    check(
        &sandbox.run(["schedule", "web1"]),
        0,
        &["after maintenance"],
    );
    check(
        &sandbox.run(["maintenance", "list"]),
        0,
        &["host", "web1", "new disks"],
    );
    check(
        &sandbox.run(["maintenance", "clear", "--host", "web1"]),
        0,
        &[],
    );
    let again = sandbox.run(["maintenance", "clear", "--host", "web1"]);
    check(&again, 2, &["no maintenance is set for host web1", "next:"]);
    check(
        &sandbox.run(["maintenance", "list"]),
        0,
        &["no host is in maintenance"],
    );
    let (_, document) = sandbox.json(["audit", "--action", "maintenance"]);
    let actions: Vec<_> = document["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        ["maintenance.set", "maintenance.cleared"],
        "oldest first"
    );
    let created = sandbox.run(["audit", "--object", "web1", "--action", "schedule"]);
    check(&created, 0, &["schedule.updated", "created"]);
}

/// It once said to name another host, one of those that were scanned.
#[test]
fn a_host_that_was_never_scanned_is_told_from_one_that_is_not_there() {
    let sandbox = with_hosts(&["web1"]);
    let never = sandbox.run(["status", "--host", "web1"]);
    check(
        &never,
        2,
        &["`web1` was not scanned yet", "holdfast scan --host web1"],
    );
    let fleet = sandbox.run(["status", "--all"]);
    check(&fleet, 3, &["never", "due"]);
    let none = sandbox.run(["status", "--host", "web2"]);
    check(&none, 2, &["no scan of host `web2` is recorded"]);
}

/// Proves: SCH-16
#[test]
fn another_process_shows_what_the_schedule_counted() {
    let sandbox = with_hosts(&["web1"]);
    check(
        &sandbox.run(["schedule", "--counters"]),
        0,
        &["due", "hmac_rejected", "never"],
    );
    let (_, counters) = sandbox.json(["schedule", "--counters"]);
    for name in ["refused", "hmac_rejected", "clamped", "ticks"] {
        assert!(counters[name].is_u64(), "{name}: {counters}");
    }
    for name in [
        "due",
        "dispatched",
        "skipped_maintenance",
        "skipped_backoff",
    ] {
        assert!(counters["total"][name].is_u64(), "{name}: {counters}");
    }
    assert!(counters["last_tick"].is_null(), "{counters}");
}

#[test]
fn what_makes_no_sense_is_refused_with_a_way_out() {
    let sandbox = with_hosts(&["web1"]);
    let cases: [(&[&str], &str); 6] = [
        (&["schedule", "web9"], "host `web9` is not in the schedule"),
        (
            &["schedule", "web9", "--now"],
            "host `web9` is not in the schedule",
        ),
        (&["maintenance", "set"], "--host"),
        (
            &["maintenance", "set", "--site", "a", "--for", "soon"],
            "`soon`",
        ),
        (
            &["maintenance", "set", "--site", "a", "--until", "2h"],
            "`2h` is over",
        ),
        (
            &["maintenance", "set", "--host", "a\u{1b}[2J"],
            "is no name of a host",
        ),
    ];
    for (args, says) in cases {
        let run = sandbox.run(args);
        check(&run, 2, &[says]);
        assert!(!run.stderr.contains('\u{1b}'), "{args:?}");
    }
    let nothing = Sandbox::new();
    for command in [&["schedule"][..], &["audit"], &["maintenance", "list"]] {
        check(&nothing.run(command), 2, &["nothing is recorded", "next:"]);
        assert!(!nothing.data_dir().exists(), "a question makes nothing");
    }
}
