//! Clients of a node that stands by: what they read there, and how they find the one that writes.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use world::{Clock, RealClock};

use super::{PATIENCE, cluster, pair, run, wait_until};
use crate::{
    holdfast::Sandbox,
    serving::{Reply, exchange},
    watching::Up,
};

/// Where the interface of a node is found; what it said of it last.
fn url(up: &Up) -> String {
    let line = up.says("HTTP interface");
    let at = line.split("http://").nth(1).unwrap();
    let end = at.find([';', ' ']).unwrap_or(at.len());
    format!("http://{}", &at[..end])
}

fn token(node: &Sandbox) -> String {
    let text = std::fs::read_to_string(node.data_dir().join("keys/admin.token")).unwrap();
    text.trim().to_owned()
}

struct Client {
    url: String,
    token: String,
}

impl Client {
    fn ask(&self, method: &str, path: &str, headers: &[&str], body: &Value) -> Reply {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let authorization = format!("Authorization: Bearer {}", self.token);
        let mut all = vec![authorization.as_str(), "Content-Type: application/json"];
        all.extend(headers);
        let body = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        exchange(&mut stream, method, path, &all, &body)
    }

    fn get(&self, path: &str, headers: &[&str]) -> Reply {
        self.ask("GET", path, headers, &Value::Null)
    }

    fn add(&self, name: &str) -> Reply {
        let host = json!({ "name": name, "address": "192.0.2.7" });
        let key = format!("Idempotency-Key: {name}");
        self.ask("POST", "/api/v1/hosts", &[&key], &host)
    }
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&reply.body)))
}

/// Proves: REP-17
#[test]
fn whoever_wrote_on_one_node_reads_it_on_the_other_and_is_told_where_to_write() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let (up_a, up_b) = (Up::start(a), Up::start(b));
    let token = {
        up_a.says("this node writes");
        token(a)
    };
    let (writes, reads) = (
        Client {
            url: url(&up_a),
            token: token.clone(),
        },
        Client {
            url: url(&up_b),
            token,
        },
    );
    run(a, &["group", "add", "b"]);
    wait_until("a copy", a, |status| super::in_sync(status) == 1);

    // Each is read at the other node as soon as it is acknowledged here.
    for number in 0..5 {
        let name = format!("new-{number}");
        let added = writes.add(&name);
        assert_eq!(added.status, 201);
        let lsn = added.header("holdfast-lsn").unwrap();
        let wait = format!("Holdfast-Wait-For: {lsn}");
        let read = reads.get(&format!("/api/v1/hosts/{name}/entry"), &[&wait]);
        assert_eq!(read.status, 200, "{:?}", json_of(&read));
        assert_eq!(read.header("holdfast-role"), Some("standby"));
        let applied: u64 = read.header("holdfast-applied").unwrap().parse().unwrap();
        assert!(applied >= lsn.parse().unwrap());
        let waited = b.run(["host", "list", "--wait-for", lsn]);
        assert!(waited.stdout.contains(&name), "{}", waited.stderr);
    }
    let refused = reads.add("new-there");
    assert_eq!(refused.status, 503);
    let problem = json_of(&refused);
    assert_eq!(problem["code"], "NOT_PRIMARY");
    assert_eq!(problem["primary"], writes.url.as_str());
    assert!(refused.header("retry-after").is_some());

    // The command line goes there by itself, and reads where it was sent.
    let elsewhere = Sandbox::new();
    let file = elsewhere.file("token", &reads.token);
    let far = ["--server", &reads.url, "--token-file", super::path(&file)];
    let set = [
        &far[..],
        &["variable", "set", "shell-idle-timeout", "seconds", "600"],
    ]
    .concat();
    let set = run(&elsewhere, &set);
    assert!(set.stderr.contains("stands by"), "{}", set.stderr);
    let listed = run(&elsewhere, &[&far[..], &["variable", "list"]].concat());
    assert!(!listed.stderr.contains("stands by"), "{}", listed.stderr);
    assert_eq!(up_a.stop(), 0);
    assert_eq!(up_b.stop(), 0);
}

/// Clients of both nodes go on asking while the nodes change their roles, there and back. Nobody's
/// connection is refused, and what is not done is told in a way that a client may send it again; what was
/// acknowledged is there.
/// Proves: AUT-11
#[test]
fn clients_see_a_switchover_as_errors_that_may_be_tried_again() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else {
        unreachable!("two names")
    };
    let [up_a, up_b] = pair(&nodes);
    let (url_a, url_b) = (url(&up_a), url(&up_b));
    let token = token(a);
    let clients = [url_a, url_b].map(|url| Client {
        url,
        token: token.clone(),
    });
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = thread::scope(|scope| {
        let writers = clients.iter().enumerate().map(|(index, client)| {
            let (done, count) = (&done, &count);
            scope.spawn(move || write_until(client, index, done, count))
        });
        let writers: Vec<_> = writers.collect();
        let clock = RealClock::new();
        let goes_on = || {
            let before = count.load(Ordering::Relaxed);
            while count.load(Ordering::Relaxed) == before {
                assert!(clock.monotonic() < PATIENCE, "nothing is acknowledged");
                clock.sleep(Duration::from_millis(5));
            }
        };
        goes_on();
        for (from, to, name) in [(a, b, "b"), (b, a, "a")] {
            run(from, &["switchover", name]);
            wait_until("the other role", to, |status| status["role"] == "primary");
            let set = ["variable", "set", "shell-idle-timeout", "seconds", "600"];
            // Commands wait for the moment of the change to pass.
            while to.run(set).code != 0 {
                assert!(clock.monotonic() < PATIENCE);
            }
            goes_on();
        }
        done.store(true, Ordering::Relaxed);
        let names = writers.into_iter().flat_map(|it| it.join().unwrap());
        names.collect::<Vec<String>>()
    });
    assert!(acknowledged.len() >= 3);
    let read = hosts(&clients[0]);
    for name in &acknowledged {
        assert!(read.contains(name), "{name} in {read:?}");
    }
    assert_eq!(up_a.stop(), 0);
    assert_eq!(up_b.stop(), 0);
}

/// The names of all hosts, page by page. Of a node that changes its role it is asked again.
fn hosts(client: &Client) -> BTreeSet<String> {
    let (clock, mut names, mut cursor) = (RealClock::new(), BTreeSet::new(), String::new());
    loop {
        let read = client.get(&format!("/api/v1/hosts?limit=1000{cursor}"), &[]);
        let page = json_of(&read);
        if read.status != 200 {
            assert!(clock.monotonic() < PATIENCE, "{page}");
            clock.sleep(Duration::from_millis(50));
            continue;
        }
        let rows = page["hosts"].as_array().unwrap();
        names.extend(
            rows.iter()
                .map(|row| row["host"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return names,
        }
    }
}

/// The names that were acknowledged. Every other answer says that it may be tried again, and is.
fn write_until(
    client: &Client,
    index: usize,
    done: &AtomicBool,
    count: &AtomicUsize,
) -> Vec<String> {
    let (clock, mut names) = (RealClock::new(), Vec::new());
    while !done.load(Ordering::Relaxed) {
        let name = format!("new-{index}-{}", names.len());
        let told = client.add(&name);
        if told.status == 201 {
            names.push(name);
            count.fetch_add(1, Ordering::Relaxed);
        } else {
            let problem = json_of(&told);
            assert_eq!(told.status, 503, "{problem}");
            assert!(told.header("retry-after").is_some(), "{problem}");
            let code = problem["code"].as_str().unwrap();
            assert!(
                ["NOT_PRIMARY", "ROLE_CHANGING"].contains(&code),
                "{problem}"
            );
            clock.sleep(Duration::from_millis(20));
        }
        assert!(clock.monotonic() < PATIENCE);
    }
    names
}
