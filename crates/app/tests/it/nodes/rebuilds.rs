//! Nodes whose disk was lost, or that were away for longer than the log goes back.

use std::fmt::Write as _;

use serde_json::Value;
use world::{Clock, RealClock};

use super::{PATIENCE, add, cluster, in_sync, path, run, shown, status, wait_until};
use crate::{holdfast::Sandbox, watching::Up};

/// A log of a few MiB reaches back a few MiB.
const SIZES: &[(&str, &str)] = &[("HOLDFAST_PROOF_SIZES", "1048576,262144,262144,1")];
const HOSTS: usize = 500;
/// So that a thousand hosts are a megabyte and more.
const TAGS: u64 = 20;

/// Two nodes; acknowledgements wait for nobody, so that the first one writes on whatever becomes of the
/// second.
fn pair(nodes: &[Sandbox]) -> [Up; 2] {
    let [a, b] = nodes else {
        unreachable!("two names")
    };
    let ups = [Up::start_in(a, &[], SIZES), Up::start_in(b, &[], SIZES)];
    ups[0].says("this node writes");
    ups[1].says("standing by");
    run(a, &["group", "add", "b"]);
    wait_until("a copy", a, |status| in_sync(status) == 1);
    ups
}

/// Hosts that do not compress, in one import.
fn fill(sandbox: &Sandbox, round: usize) {
    let mut csv = String::from("name,address,tags\n");
    let mut seed = 0x9E37_79B9_7F4A_7C15 ^ u64::try_from(round).unwrap();
    for host in 0..HOSTS {
        let tags = (0..TAGS).map(|_| {
            // xorshift64
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            format!("t{seed:016x}{:016x}{:016x}", seed.rotate_left(21), !seed)
        });
        let tags = tags.collect::<Vec<_>>().join(";");
        writeln!(csv, "fill-{round}-{host},192.0.2.1,{tags}").unwrap();
    }
    let file = sandbox.file("fill.csv", csv);
    let clock = RealClock::new();
    // In the moments of a change of roles there is nobody to take it.
    while sandbox.run(["host", "import", path(&file)]).code != 0 {
        assert!(clock.monotonic() < PATIENCE, "{:#}", status(sandbox));
    }
}

/// Writes until the log of the first node begins above `lsn`.
fn fill_beyond(sandbox: &Sandbox, lsn: u64) {
    let clock = RealClock::new();
    for round in 0.. {
        if status(sandbox)["first_retained"].as_u64() > Some(lsn) {
            return;
        }
        assert!(clock.monotonic() < PATIENCE, "{:#}", status(sandbox));
        fill(sandbox, round);
    }
}

fn wipe(sandbox: &Sandbox) {
    for dir in ["journal", "tables"] {
        std::fs::remove_dir_all(sandbox.data_dir().join(dir)).unwrap();
    }
}

fn agree(a: &Sandbox, b: &Sandbox) {
    let clock = RealClock::new();
    let hosts = |sandbox: &Sandbox| shown(sandbox, &["host", "list"]);
    loop {
        let (here, there) = (hosts(a), hosts(b));
        if here == there {
            return;
        }
        assert!(clock.monotonic() < PATIENCE, "{:#}", status(a));
    }
}

fn replica(status: &Value) -> &Value {
    &status["replicas"][0]
}

/// The base is under way, or was there before it could be looked at.
fn wait_for_base(a: &Sandbox) {
    wait_until("a base", a, |status| {
        in_sync(status) == 1 || replica(status)["base"]["parts_done"].as_u64() > Some(0)
    });
}

/// Proves: REP-4, REP-9
#[test]
fn a_node_whose_disk_was_lost_comes_back_by_itself_whoever_is_killed_meanwhile() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [mut up_a, mut up_b] = pair(&nodes);
    fill_beyond(a, 1);

    up_b.kill();
    wipe(b);
    up_b = Up::start_in(b, &[], SIZES);
    wait_for_base(a);
    // The receiver, then the sender.
    up_b.kill();
    assert!(add(a, "new-while-away"));
    up_b = Up::start_in(b, &[], SIZES);
    wait_for_base(a);
    up_a.kill();
    up_a = Up::start_in(a, &[], SIZES);
    up_a.says("this node writes");
    let clock = RealClock::new();
    while !add(a, "new-meanwhile") {
        assert!(clock.monotonic() < PATIENCE, "{:#}", status(a));
    }
    wait_until("a copy", a, |status| in_sync(status) == 1);
    let shown = status(a);
    let source = replica(&shown)["source"].as_str().unwrap_or_default();
    assert!(source.starts_with("the checkpoint at"), "{shown:#}");
    up_b.says("standing by");
    agree(a, b);
    assert_eq!(status(b)["is_amnesiac"], false);
    assert_eq!(up_b.stop(), 0);
    assert_eq!(up_a.stop(), 0);
}

/// The log of the node that writes goes while nobody starts anything: a checkpoint comes of what was written
/// during the one before.
///
/// Proves: REP-6, REP-12
#[test]
fn a_node_that_was_away_for_longer_than_the_log_goes_back_gets_what_changed() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, mut up_b] = pair(&nodes);
    fill(a, 0);
    wait_until("a copy", a, |status| in_sync(status) == 1);
    agree(a, b);
    assert_eq!(up_b.stop(), 0);
    let since = status(a)["committed"].as_u64().unwrap();
    fill_beyond(a, since + 1);
    up_b = Up::start_in(b, &[], SIZES);
    wait_until("a copy", a, |status| in_sync(status) == 1);
    let shown = status(a);
    let source = replica(&shown)["source"].as_str().unwrap_or_default();
    assert!(source.starts_with("what changed after"), "{shown:#}");
    up_b.says("standing by");
    agree(a, b);
    assert_eq!(status(b)["is_amnesiac"], false);
    assert_eq!(up_b.stop(), 0);
    assert_eq!(up_a.stop(), 0);
}
