//! A site on several machines: three real `up`, each with its own directory, on loopback.

mod force;
mod joining;
mod rebuilds;
mod roles;
mod standby;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use world::{Clock, RealClock};

use crate::{
    holdfast::{Run, Sandbox},
    watching::Up,
};

/// Longer than anything here takes on a loaded machine: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// One that is free until a node listens there, and while it is off: each is a loopback address of its own, of
/// which nobody else is given a port meanwhile.
fn address() -> String {
    static MADE: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high, low, MADE.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((own, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Run {
    let run = sandbox.run(args);
    assert_eq!(run.code, 0, "{args:?}: {}{}", run.stdout, run.stderr);
    run
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The first site, founded where something is on record already, and nodes that it invited.
fn cluster(names: &[&str]) -> Vec<Sandbox> {
    let sandboxes: Vec<Sandbox> = names.iter().map(|_| Sandbox::new()).collect();
    let first = &sandboxes[0];
    let up = Up::start(first);
    up.says("Watching");
    assert_eq!(up.stop(), 0);
    run(first, &["node", "init", names[0], "--listen", &address()]);
    for (name, sandbox) in names.iter().zip(&sandboxes).skip(1) {
        join(first, sandbox, name);
    }
    sandboxes
}

/// Makes `sandbox` a node that `first` invites. The invitation is left in `first`, beside its code.
fn join(first: &Sandbox, sandbox: &Sandbox, name: &str) {
    let file = first.path(name);
    let code = run(
        first,
        &["node", "invite", name, &address(), "--to", path(&file)],
    );
    let code = first.file(&format!("{name}.code"), code.stdout);
    run(
        sandbox,
        &["node", "join", path(&file), "--code-file", path(&code)],
    );
}

fn status(sandbox: &Sandbox) -> Value {
    shown(sandbox, &["group", "status"])
}

fn wait_until(what: &str, sandbox: &Sandbox, is: impl Fn(&Value) -> bool) {
    let clock = RealClock::new();
    loop {
        let found = status(sandbox);
        if is(&found) {
            return;
        }
        assert!(clock.monotonic() < PATIENCE, "{what}: {found:#}");
        clock.sleep(Duration::from_millis(50));
    }
}

fn in_sync(status: &Value) -> usize {
    let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
    replicas.iter().filter(|it| it["in_sync"] == true).count()
}

/// Only the first of three knows both of the others, until it has told them.
fn wait_connected(nodes: &[&Sandbox]) {
    for node in nodes {
        wait_until("both others", node, |status| {
            let others = status["nodes"].as_array().cloned().unwrap_or_default();
            let connected = others.iter().filter(|it| it["is_connected"] == true);
            connected.count() == 2
        });
    }
}

/// Adds a host to the inventory, beside a running `up`. Whether it was acknowledged.
fn add(sandbox: &Sandbox, name: &str) -> bool {
    let file = sandbox.file(name, format!("name,address\n{name},192.0.2.1\n"));
    let args = ["host".as_ref(), "import".as_ref(), file.as_os_str()];
    sandbox.run(args).code == 0
}

/// What a command that only reads shows. In the moments of a change of roles there is nobody to answer it.
fn shown(sandbox: &Sandbox, args: &[&str]) -> Value {
    let clock = RealClock::new();
    loop {
        let run = sandbox.run([args, &["--output", "json"]].concat());
        match serde_json::from_str(&run.stdout) {
            Ok(shown) => return shown,
            Err(_) => assert!(clock.monotonic() < PATIENCE, "{args:?}: {}", run.stderr),
        }
    }
}

fn hosts(sandbox: &Sandbox) -> BTreeSet<String> {
    let listed = shown(sandbox, &["host", "list"]);
    let hosts = listed.as_array().or_else(|| listed["hosts"].as_array());
    let names = hosts
        .unwrap()
        .iter()
        .map(|host| host["name"].as_str().unwrap().to_owned());
    names.filter(|name| name.starts_with("new-")).collect()
}

/// Two nodes: the first writes, and an acknowledgement waits for the copy of the other one.
fn pair(nodes: &[Sandbox]) -> [Up; 2] {
    let [first, second] = nodes else {
        unreachable!("two names")
    };
    let ups = [Up::start(first), Up::start(second)];
    ups[0].says("this node writes");
    ups[1].says("standing by");
    run(first, &["group", "add", "b"]);
    wait_until("a copy", first, |status| in_sync(status) == 1);
    run(first, &["group", "mode", "sync:1"]);
    ups
}

/// The first of the nodes `a`, `b` and `c` writes, and each write has a copy on one of the others.
fn three(nodes: &[Sandbox]) -> [Up; 3] {
    let [a, b, c] = nodes else {
        unreachable!("three nodes")
    };
    let up_a = Up::start(a);
    up_a.says("this node writes");
    let (up_b, up_c) = (Up::start(b), Up::start(c));
    up_b.says("standing by");
    up_c.says("standing by");
    for name in ["b", "c"] {
        run(a, &["group", "add", name]);
    }
    wait_until("two copies", a, |status| in_sync(status) == 2);
    wait_connected(&[b, c]);
    run(a, &["group", "mode", "sync:1"]);
    [up_a, up_b, up_c]
}

/// Proves: AUT-10, REP-20
#[test]
fn a_site_goes_on_elsewhere_when_the_node_that_writes_is_killed() {
    let names = ["a", "b", "c"];
    let nodes = cluster(&names);
    let [a, b, c] = nodes.as_slice() else {
        unreachable!("three names")
    };
    let [up_a, up_b, up_c] = three(&nodes);

    // Writes go on until nobody takes them any more.
    let (is_killed, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged: BTreeSet<String> = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let numbered = (0..).map(|number| format!("new-{number:04}"));
            let mut done = BTreeSet::new();
            for name in numbered {
                if add(a, &name) {
                    done.insert(name);
                    written.fetch_add(1, Ordering::Relaxed);
                } else if is_killed.load(Ordering::Relaxed) {
                    return done;
                }
            }
            done
        });
        // Some writes are behind it, and one is under way.
        wait_until("writes", a, |_| written.load(Ordering::Relaxed) >= 3);
        up_a.kill();
        is_killed.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });

    // The other one is told that it has less, if it has.
    let promoted = [b, c]
        .into_iter()
        .find(|node| node.run(["promote"]).code == 0);
    let writes = promoted.unwrap();
    wait_until("a primary", writes, |status| status["role"] == "primary");
    let clock = RealClock::new();
    while !add(writes, "new-after") {
        assert!(clock.monotonic() < PATIENCE, "{:#}", status(writes));
    }
    let there = hosts(writes);
    let lost: Vec<&String> = acknowledged.difference(&there).collect();
    assert_eq!(lost, Vec::<&String>::new());

    // The one that was killed finds the higher epoch and follows.
    let up_a = Up::start(a);
    up_a.says("standing by");
    wait_until("all copies", writes, |status| in_sync(status) == 2);
    assert_eq!(status(a)["role"], "replica");
    let refused = a.run(["variable", "set", "shell-idle-timeout", "seconds", "600"]);
    refused.is_refused_naming("follows another one");
    refused.tells_next_step();
    let clock = RealClock::new();
    while hosts(a) != hosts(writes) {
        assert!(clock.monotonic() < PATIENCE);
    }

    // And back, with nothing lost.
    run(writes, &["switchover", "a"]);
    up_a.says("this node writes");
    let clock = RealClock::new();
    while !add(a, "new-again") {
        assert!(clock.monotonic() < PATIENCE, "{:#}", status(a));
    }
    assert!(hosts(a).contains("new-after"));
    assert_eq!(status(writes)["role"], "replica");
    for up in [up_a, up_b, up_c] {
        assert_eq!(up.stop(), 0);
    }
}

#[test]
fn what_a_node_is_not_for_is_refused_with_the_next_step() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let empty = Sandbox::new();
    let other = Sandbox::new();
    run(&other, &["node", "init", "x", "--listen", "127.0.0.1:1"]);
    let garbage = a.file("garbage", "{}");
    let cases: &[(&Sandbox, &[&str], &str)] = &[
        (
            a,
            &["node", "init", "z", "--listen", "127.0.0.1:1"],
            "node `a`",
        ),
        (a, &["host", "list"], "node `a`"),
        (a, &["group", "status"], "does not answer"),
        (a, &["promote"], "does not answer"),
        (
            a,
            &["node", "invite", "b", "127.0.0.1:1", "--to", "/tmp/x"],
            "`b`",
        ),
        (
            b,
            &["node", "invite", "d", "127.0.0.1:1", "--to", "/tmp/x"],
            "made the cluster",
        ),
        (&empty, &["group", "status"], "no node's"),
        (&empty, &["node", "list"], "no node's"),
        (
            &empty,
            &["node", "init", "two words", "--listen", "127.0.0.1:1"],
            "two words",
        ),
        (&empty, &["node", "join", path(&garbage)], "invitation"),
        (
            &empty,
            &["node", "init", "x", "--listen", "0.0.0.0:7400"],
            "no address at which",
        ),
        (
            &empty,
            &["node", "init", "x", "--listen", "127.0.0.1:0"],
            "no address at which",
        ),
        (
            a,
            &["node", "invite", "d", "[::]:7400", "--to", "/tmp/x"],
            "no address at which",
        ),
        (
            a,
            &["up", "--no-walk", "--node-listen", "0.0.0.0:7400"],
            "no address at which",
        ),
        (
            &other,
            &["node", "invite", "y", "127.0.0.1:1", "--to", "/tmp/x"],
            "no keys",
        ),
        (b, &["node", "join", path(&garbage)], "node `b`"),
    ];
    for (sandbox, args, named) in cases {
        let run = sandbox.run(*args);
        assert_eq!(run.code, 2, "{args:?}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(named), "{args:?}: {}", run.stderr);
        run.tells_next_step();
    }
    let forced = a.run(["promote", "--force"]);
    assert_eq!(forced.code, 2);
}
