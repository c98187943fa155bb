//! An etcd as Debian has it, as the coordinator of a site on three machines: who writes has its lease.

#[path = "etcd/clocks.rs"]
mod clocks;
#[path = "etcd/lost.rs"]
mod lost;
#[path = "etcd/site.rs"]
mod site;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    thread,
    time::Instant,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::{Peer, holdfast::Sandbox, serving::PATIENCE};
use site::{LIFE, Node, Site, Up, signal};

static ETCD: Peer = Peer::new("etcd", "HOLDFAST_PEER_ETCD", "/usr/bin/etcd");

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        ETCD.test(
            "the_node_that_writes_is_killed_and_another_one_goes_on_by_itself",
            killed,
        ),
        ETCD.test(
            "without_etcd_nothing_is_acknowledged_beyond_the_lease_and_with_it_again",
            interrupted,
        ),
        ETCD.test(
            "a_node_that_was_stopped_beyond_its_lease_acknowledges_nothing_and_follows",
            stopped,
        ),
        ETCD.test(
            "a_lease_whose_key_was_taken_away_is_not_held_on_to",
            taken_away,
        ),
        ETCD.test(
            "what_is_wrong_with_the_coordinator_is_told_before_anything_begins",
            refused,
        ),
        clocks::test(),
        lost::test(),
    ]
}

/// A server of its own, ended with the test. It comes back at the same address with what it kept.
pub(crate) struct Etcd {
    program: PathBuf,
    dir: TempDir,
    pub(crate) client: String,
    peer: String,
    child: Child,
}

/// One that is free until somebody listens there, and while that is off: each is a loopback address of its own,
/// of which nobody else is given a port meanwhile.
pub(crate) fn address() -> String {
    static MADE: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high, low, MADE.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((own, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Etcd {
    fn start(peer: &Peer) -> Self {
        let program = peer.path();
        let dir = tempfile::tempdir().unwrap();
        let (client, at) = (address(), address());
        let child = run(&program, &dir, &client, &at);
        Self {
            program,
            dir,
            client,
            peer: at,
            child,
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn again(&mut self) {
        self.child = run(&self.program, &self.dir, &self.client, &self.peer);
    }

    /// From here on it takes `root` with sesame, and `crew` with open, who may do nothing.
    fn asks_who_it_is(&self) {
        self.post(
            "/v3/auth/user/add",
            &json!({ "name": "root", "password": "sesame" }),
        );
        self.post(
            "/v3/auth/user/grant",
            &json!({ "user": "root", "role": "root" }),
        );
        self.post(
            "/v3/auth/user/add",
            &json!({ "name": "crew", "password": "open" }),
        );
        self.post("/v3/auth/enable", &json!({}));
    }

    fn post(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let answer = ureq::post(format!("http://{}{path}", self.client)).send(body.to_string());
        let mut answer = answer.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// The key that says who has the lease, as somebody deletes it by hand.
    fn takes_away_the_holder(&self) {
        let all = json!({ "key": "AA==", "range_end": "AA==", "keys_only": true });
        let found = self.post("/v3/kv/range", &all);
        let keys = found["kvs"].as_array().unwrap();
        let is_holder = |key: &&serde_json::Value| {
            let text = BASE64_STANDARD
                .decode(key["key"].as_str().unwrap())
                .unwrap();
            text.ends_with(b"/holder")
        };
        let key = keys.iter().find(is_holder).unwrap()["key"].clone();
        self.post("/v3/kv/deleterange", &json!({ "key": key }));
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(program: &PathBuf, dir: &TempDir, client: &str, peer: &str) -> Child {
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    let mut child = Command::new(program)
        .arg("--data-dir")
        .arg(dir.path())
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut told = String::new();
    let is_ready = lines.by_ref().map_while(Result::ok).any(|line| {
        told.push_str(&line);
        told.push('\n');
        line.contains("serving insecure client requests")
    });
    assert!(is_ready, "no server: {told}");
    thread::spawn(move || lines.for_each(drop));
    child
}

/// Writes until nobody takes them any more. What was acknowledged is there afterwards, on a node that took
/// over without being told to.
///
/// Proves: AUT-12, AUT-8
fn killed(peer: &Peer) {
    let etcd = Etcd::start(peer);
    // Endpoints are tried in turn.
    let site = Site::of_three(&format!("{},{}", address(), etcd.client));
    let [a, b, c] = site.nodes();
    let (up_a, up_b, up_c) = site.up();
    let is_killed = AtomicBool::new(false);
    let acknowledged: BTreeSet<String> = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut done = BTreeSet::new();
            for name in (0..).map(|number| format!("new-{number:04}")) {
                if a.add(&name) {
                    done.insert(name);
                } else if is_killed.load(Ordering::Relaxed) {
                    return done;
                }
            }
            done
        });
        // Some writes are behind it, and one is under way.
        a.until("writes", |_| a.hosts().len() > 2);
        up_a.kill();
        is_killed.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let writes = site.writer(&[b, c]);
    let there = writes.hosts();
    let lost: Vec<&String> = acknowledged.difference(&there).collect();
    assert_eq!(lost, Vec::<&String>::new());
    let status = writes.status();
    assert_eq!(status["coordinator"]["is_own"], true, "{status:#}");
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("the coordinator's lease"), "{reason}");

    // It follows, and is handed the lease with the authority.
    let up_a = a.up();
    writes.until("all copies", |status| site::in_sync(status) == 2);
    writes.done(&["switchover", "a"]);
    a.adds("new-again");
    let status = a.status();
    assert_eq!(status["coordinator"]["is_own"], true, "{status:#}");
    assert!(acknowledged.is_subset(&a.hosts()));
    for up in [up_a, up_b, up_c] {
        up.ends_well();
    }
}

/// etcd gone, and etcd that answers nothing: the holder goes on until its lease ends and no longer.
///
/// Proves: AUT-12
fn interrupted(peer: &Peer) {
    let mut etcd = Etcd::start(peer);
    let site = Site::of_three(&etcd.client);
    let [a, ..] = site.nodes();
    let _ups = site.up();
    let mut acknowledged = BTreeSet::new();
    for (round, is_paused) in [false, true].into_iter().enumerate() {
        let before = Instant::now();
        match is_paused {
            true => signal(&etcd.child, Signal::STOP),
            false => etcd.kill(),
        }
        // The last renewal may have been asked for a moment before.
        let mut is_over = false;
        for number in 0.. {
            let (begun, name) = (before.elapsed(), format!("new-{round}-{number}"));
            let is_done = a.add(&name);
            assert!(!is_done || begun < LIFE, "acknowledged after {begun:?}");
            if is_done {
                acknowledged.insert(name);
            }
            if is_over && begun > LIFE {
                break;
            }
            is_over = a.status()["role"] == "replica";
            assert!(before.elapsed() < PATIENCE, "{:#}", a.status());
        }
        // Known by an answer that does not come, which may be later than the end of the lease.
        a.until("it says why", |status| {
            let fault = status["coordinator"]["fault"].as_str().unwrap_or_default();
            fault.contains("cannot be reached")
        });
        match is_paused {
            true => signal(&etcd.child, Signal::CONT),
            false => etcd.again(),
        }
        let writes = site.writer(&site.nodes());
        let there = writes.hosts();
        assert!(acknowledged.is_subset(&there), "{acknowledged:?} {there:?}");
        if writes.name != a.name {
            a.until("it follows", |status| status["fed_by"].is_string());
            writes.until("all copies", |status| site::in_sync(status) == 2);
            writes.done(&["switchover", "a"]);
            a.adds(&format!("new-back-{round}"));
        }
    }
}

/// Proves: AUT-12, AUT-10
fn stopped(peer: &Peer) {
    let etcd = Etcd::start(peer);
    let site = Site::of_three(&etcd.client);
    let [a, b, c] = site.nodes();
    let (up_a, _up_b, _up_c) = site.up();
    a.adds("new-before");
    up_a.signal(Signal::STOP);
    // Heard by a process that does not run, and answered when it does.
    let file = a.import("new-late");
    let late = a.start(&["host", "import", file.to_str().unwrap()]);
    let writes = site.writer(&[b, c]);
    writes.adds("new-after");
    up_a.signal(Signal::CONT);
    let late = late.wait_with_output().unwrap();
    assert!(!late.status.success(), "{late:?}");
    a.until("it follows", |status| {
        status["role"] == "replica" && status["fed_by"].is_string()
    });
    writes.until("all copies", |status| site::in_sync(status) == 2);
    let there = writes.hosts();
    assert!(there.contains("new-before") && there.contains("new-after"));
    assert!(!there.contains("new-late"), "refused, and yet there");
}

/// The node that wrote said for ever that it had the lease, of which the coordinator knew nothing.
fn taken_away(peer: &Peer) {
    let etcd = Etcd::start(peer);
    let site = Site::of_three(&etcd.client);
    let [a, ..] = site.nodes();
    let _ups = site.up();
    a.adds("new-before");
    let revision = |status: &serde_json::Value| status["coordinator"]["revision"].as_u64();
    let before = revision(&a.status());
    assert!(before.is_some());
    etcd.takes_away_the_holder();
    a.until("another lease", |status| revision(status) > before);
    let writes = site.writer(&site.nodes());
    writes.adds("new-after");
    assert!(writes.hosts().contains("new-before"));
}

/// A password is in no argument, and what a node says does not hold it.
fn refused(peer: &Peer) {
    let etcd = Etcd::start(peer);
    let node = Node::founder("a");
    let up = |address: &str, password: Option<&str>| {
        let file = password.map(|password| node.sandbox.file("password", password));
        let variable = "HOLDFAST_NODE_COORDINATOR_PASSWORD_FILE";
        let mut command = node
            .sandbox
            .command(["up", "--no-walk", "--coordinator", address]);
        command.envs(file.map(|file| (variable, file)));
        command
    };
    etcd.asks_who_it_is();
    let there = format!("etcd://{}?ttl=2s", etcd.client);
    let with = |user: &str| format!("{there}&user={user}");
    for (address, password, said, next) in [
        (
            format!("etcd://{}", address()),
            None,
            "cannot be reached",
            "runs",
        ),
        (there.clone(), None, "user name is empty", "read and write"),
        (
            with("root"),
            None,
            "a user and not a password",
            "password_file",
        ),
        (
            there.clone(),
            Some("sesame"),
            "a password and not a user",
            "?user=NAME",
        ),
        (
            with("root"),
            Some("sesam"),
            "invalid user ID or password",
            "password",
        ),
        (
            with("crew"),
            Some("open"),
            "permission denied",
            "below its prefix",
        ),
        (
            "etcd://a:sesame@b:1".to_owned(),
            None,
            "into a file",
            "etcd://",
        ),
    ] {
        let run = crate::holdfast::Run::of(up(&address, password).output().unwrap());
        assert_eq!(run.code, 2, "{address}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(said), "{address}: {}", run.stderr);
        assert!(run.stderr.contains(next), "{address}: {}", run.stderr);
        assert!(!run.stderr.contains("sesame"), "{}", run.stderr);
    }
    let up = Up::of(up(&with("root"), Some("sesame\n")));
    up.says("this node writes");
    assert!(!up.told().contains("sesame"));
    up.ends_well();
}

impl Node {
    fn founder(name: &'static str) -> Self {
        let node = Self {
            name,
            sandbox: Sandbox::new(),
            coordinator: String::new(),
        };
        node.founded();
        node.done(&["node", "init", name, "--listen", &address()]);
        node
    }
}
