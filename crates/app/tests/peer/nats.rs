//! A NATS server with JetStream, as Debian has it, as a receiver of a drain.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    Peer,
    holdfast::{Run, Sandbox},
    serving::{PATIENCE, kept},
};

static NATS: Peer = Peer::new("nats-server", "HOLDFAST_PEER_NATS", "/usr/sbin/nats-server");

const CLASSES: [&str; 5] = ["error", "decision", "action", "lifecycle", "other"];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        NATS.test("nats_keeps_each_event_once_however_often_it_is_sent", once),
        NATS.test(
            "nats_killed_while_it_takes_has_each_event_once_at_the_end",
            killed,
        ),
        NATS.test("what_no_stream_of_nats_takes_waits", waits),
        NATS.test("what_nats_only_hands_on_is_not_taken", handed_on),
        NATS.test("what_is_too_large_for_nats_is_a_dead_letter", too_large),
        NATS.test("nats_asks_who_it_is_and_is_told_from_a_file", credentials),
    ]
}

/// A server of its own, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(nats: &Peer, sandbox: &Sandbox, config: &str) -> Self {
        Self::start_at(nats, sandbox, config, "-1")
    }

    /// Port -1 is one that is free.
    fn start_at(nats: &Peer, sandbox: &Sandbox, config: &str, port: &str) -> Self {
        let mut child = Command::new(nats.path())
            .args(["-js", "-a", "127.0.0.1", "-p", port, "-sd"])
            .arg(sandbox.path("jetstream"))
            .arg("-c")
            .arg(sandbox.file("nats.conf", config))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = None;
        let mut told = String::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, at)) = line.split_once("client connections on ") {
                address = Some(at.parse().unwrap());
            }
            if line.contains("Server is ready") {
                break;
            }
            told.push_str(&line);
            told.push('\n');
        }
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            address: address.unwrap_or_else(|| panic!("no server: {told}")),
            child,
        }
    }

    fn to(&self) -> String {
        format!("nats=nats://{}", self.address)
    }

    fn client(&self) -> Client {
        self.client_as(&json!({}))
    }

    fn client_as(&self, credentials: &Value) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut hello = json!({"verbose": false});
        for (name, value) in credentials.as_object().unwrap() {
            hello[name] = value.clone();
        }
        write!(&stream, "CONNECT {hello}\r\nSUB answer 1\r\n").unwrap();
        Client(BufReader::new(stream))
    }

    /// kill -9 when it has been sent what it has not read: that is lost with it.
    fn kill_with_unread(mut self) {
        /// More than enough for a sender that sends at all.
        const LOOKS_MAX: usize = 5_000;
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
        let port = format!(":{:04X}", self.address.port());
        for _ in 0..LOOKS_MAX {
            let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let has_unread = sockets.lines().any(|line| {
                // Number, local address, remote address, state, queues of sent and of unread bytes.
                let words: Vec<&str> = line.split_whitespace().collect();
                let is_ours = words.len() > 4 && words[1].ends_with(&port) && words[3] == "01";
                is_ours && !words[4].ends_with(":00000000")
            });
            if has_unread {
                break;
            }
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already where the test killed it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Speaks the server's own protocol, with nothing of ours in it.
struct Client(BufReader<TcpStream>);

impl Client {
    fn ask(&mut self, subject: &str, body: &Value) -> Value {
        let body = body.to_string();
        let len = body.len();
        let request = format!("PUB {subject} answer {len}\r\n{body}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        self.next_message()
    }

    fn next_message(&mut self) -> Value {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.starts_with("MSG ") {
                let len: usize = line.split_whitespace().last().unwrap().parse().unwrap();
                let mut answer = vec![0; len + 2];
                self.0.read_exact(&mut answer).unwrap();
                return serde_json::from_slice(&answer).unwrap();
            }
            let is_chatter = ["INFO ", "PING", "PONG"]
                .iter()
                .any(|it| line.starts_with(it));
            assert!(is_chatter, "{line}");
        }
    }

    fn create_stream(&mut self, more: &Value) {
        let mut stream =
            json!({"name": "EVENTS", "subjects": ["holdfast.events.>"], "storage": "file"});
        for (name, value) in more.as_object().unwrap() {
            stream[name] = value.clone();
        }
        let answer = self.ask("$JS.API.STREAM.CREATE.EVENTS", &stream);
        assert_eq!(answer["error"], Value::Null, "{answer}");
    }

    fn count(&mut self) -> usize {
        let told = self.ask("$JS.API.STREAM.INFO.EVENTS", &json!({}));
        let count = told["state"]["messages"].as_u64();
        count
            .unwrap_or_else(|| panic!("{told}"))
            .try_into()
            .unwrap()
    }

    /// The events of the stream, each a message of its own under the subject of its class and its id.
    fn events(&mut self) -> Vec<Value> {
        let count = self.count();
        let mut events = Vec::with_capacity(count);
        for seq in 1..=count {
            let told = self.ask("$JS.API.STREAM.MSG.GET.EVENTS", &json!({"seq": seq}));
            let text = |name: &str| {
                let text = told["message"][name].as_str().unwrap();
                String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
            };
            let event: Value = serde_json::from_str(&text("data")).unwrap();
            let (class, id) = (event["class"].as_str(), event["id"].as_str());
            let subject = format!("holdfast.events.{}", class.unwrap());
            assert_eq!(told["message"]["subject"], subject);
            let head = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", id.unwrap());
            assert_eq!(text("hdrs"), head);
            events.push(event);
        }
        events
    }
}

fn append(sandbox: &Sandbox, bodies: &[Value]) {
    let lines: String = bodies
        .iter()
        .enumerate()
        .map(|(at, body)| {
            let class = CLASSES[at % CLASSES.len()];
            format!("{}\n", json!({"class": class, "body": body}))
        })
        .collect();
    let mut command = sandbox.command(["events", "append", "--source", "robot"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}

fn append_numbers(sandbox: &Sandbox, count: usize) {
    let bodies: Vec<Value> = (0..count).map(Value::from).collect();
    append(sandbox, &bodies);
}

fn drain(sandbox: &Sandbox, to: &str) -> Run {
    sandbox.run(["events", "drain", "--once", "--name", "nats", "--to", to])
}

fn drain_as(sandbox: &Sandbox, to: &str, headers: &[(&str, &Path)]) -> Run {
    let mut args: Vec<String> = ["events", "drain", "--once", "--name", "nats", "--to", to]
        .map(str::to_owned)
        .to_vec();
    for (name, file) in headers {
        args.push("--header".to_owned());
        args.push(format!("{name}=file:{}", file.display()));
    }
    sandbox.run(args)
}

/// What is in the stream is what was kept here, each event once and as it is.
fn is_all(sandbox: &Sandbox, client: &mut Client) {
    let text = |events: Vec<Value>| -> Vec<String> {
        let mut lines: Vec<String> = events.iter().map(Value::to_string).collect();
        lines.sort();
        lines
    };
    let (has, wanted) = (text(client.events()), text(kept(sandbox)));
    let seen: BTreeSet<&String> = has.iter().collect();
    let lost: Vec<&String> = wanted.iter().filter(|one| !seen.contains(one)).collect();
    assert_eq!(lost, Vec::<&String>::new(), "not in the stream");
    assert_eq!(has.len(), wanted.len(), "in the stream more than once");
}

/// Proves: EVT-4
fn once(nats: &Peer) {
    let sandbox = Sandbox::new();
    append_numbers(&sandbox, 700);
    let server = Server::start(nats, &sandbox, "");
    let mut client = server.client();
    client.create_stream(&json!({}));
    for _ in 0..2 {
        let run = drain(&sandbox, &server.to());
        assert_eq!(run.code, 0, "{}", run.stderr);
        is_all(&sandbox, &mut client);
        // As after a crash between the acceptance and the cursor, of everything.
        assert_eq!(sandbox.run(["events", "drain", "--forget", "nats"]).code, 0);
    }
}

/// The failure looked for: a cursor that moved over events that the killed server did not have.
/// Proves: EVT-4, EVT-5
fn killed(nats: &Peer) {
    const KILLS: usize = 3;
    let sandbox = Sandbox::new();
    let count = 10_000;
    append_numbers(&sandbox, count);
    let mut server = Server::start(nats, &sandbox, "");
    let port = server.address.port().to_string();
    server.client().create_stream(&json!({}));
    let to = server.to();
    let mut draining = sandbox.start(["events", "drain", "--name", "nats", "--to", &to]);
    let mut kills = 0;
    while kills < KILLS {
        let mut client = server.client();
        let before = client.count();
        let begun = Instant::now();
        let mut has = before;
        while has <= before && has < count {
            assert!(begun.elapsed() < PATIENCE, "{has} of {count}, and no more");
            assert!(draining.try_wait().unwrap().is_none(), "the drain ended");
            has = client.count();
        }
        if has >= count {
            break;
        }
        server.kill_with_unread();
        server = Server::start_at(nats, &sandbox, "", &port);
        kills += 1;
    }
    assert!(kills > 0, "it was never killed in the middle");
    kill_process(Pid::from_child(&draining), Signal::TERM).unwrap();
    draining.wait().unwrap();
    let run = drain(&sandbox, &to);
    assert_eq!(run.code, 0, "{}", run.stderr);
    is_all(&sandbox, &mut server.client());
}

/// Proves: EVT-5
fn waits(nats: &Peer) {
    let sandbox = Sandbox::new();
    append_numbers(&sandbox, 10);
    let server = Server::start(nats, &sandbox, "");
    let run = drain(&sandbox, &server.to());
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stdout.contains("no stream takes"), "{}", run.stdout);
    let mut client = server.client();
    client.create_stream(&json!({"max_msgs": 6, "discard": "new"}));
    let run = drain(&sandbox, &server.to());
    assert_eq!(run.code, 3, "a full stream takes no more: {}", run.stderr);
    assert!(run.stdout.contains("maximum messages"), "{}", run.stdout);
    let stream = json!({"name": "EVENTS", "subjects": ["holdfast.events.>"]});
    let answer = client.ask("$JS.API.STREAM.UPDATE.EVENTS", &stream);
    assert_eq!(answer["error"], Value::Null, "{answer}");
    let run = drain(&sandbox, &server.to());
    assert_eq!(run.code, 0, "{}", run.stderr);
    is_all(&sandbox, &mut client);
}

/// A subscriber that answers is no stream: nothing is kept, and no cursor moves.
/// Proves: EVT-5
fn handed_on(nats: &Peer) {
    let sandbox = Sandbox::new();
    append(&sandbox, &[json!(1)]);
    let server = Server::start(nats, &sandbox, "");
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        &stream,
        "CONNECT {{\"headers\":true}}\r\nSUB holdfast.events.> 1\r\nPING\r\n"
    )
    .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    let answering = std::thread::spawn(move || {
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if let Some(rest) = line.strip_prefix("HMSG ") {
                let reply = rest.split_whitespace().nth(2).unwrap();
                write!(&stream, "PUB {reply} 4\r\n+ACK\r\n").unwrap();
                return;
            }
        }
    });
    let run = drain(&sandbox, &server.to());
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stdout.contains("is no stream"), "{}", run.stdout);
    answering.join().unwrap();
    let mut client = server.client();
    client.create_stream(&json!({}));
    assert_eq!(drain(&sandbox, &server.to()).code, 0);
    is_all(&sandbox, &mut client);
}

/// Proves: EVT-5
fn too_large(nats: &Peer) {
    let check = |config: &str, stream: &Value, named: &str| {
        let sandbox = Sandbox::new();
        let long = "x".repeat(5_000);
        let bodies: Vec<Value> = (0..20)
            .map(|at| if at == 7 { json!(long) } else { json!(at) })
            .collect();
        append(&sandbox, &bodies);
        let server = Server::start(nats, &sandbox, config);
        let mut client = server.client();
        client.create_stream(stream);
        let run = drain(&sandbox, &server.to());
        assert_eq!(run.code, 1, "{} {}", run.stdout, run.stderr);
        let has = client.events();
        assert_eq!(has.len(), 19);
        assert!(has.iter().all(|event| event["body"].is_number()));
        let (_, letters) = sandbox.json(["events", "dead-letter", "list"]);
        assert_eq!(letters.as_array().unwrap().len(), 1);
        assert_eq!(letters[0]["event"]["body"], long);
        let why = letters[0]["why"].as_str().unwrap();
        assert!(why.contains(named), "{why}");
    };
    check("max_payload: 4096", &json!({}), "takes 4096");
    check("", &json!({"max_msg_size": 4096}), "10054");
}

fn credentials(nats: &Peer) {
    let check = |config: &str, names: &[&str], told: &str| {
        let sandbox = Sandbox::new();
        append_numbers(&sandbox, 10);
        let server = Server::start(nats, &sandbox, config);
        let run = drain(&sandbox, &server.to());
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(
            run.stdout.contains("refuses us: -ERR 'Authorization"),
            "{}",
            run.stdout
        );
        let file = sandbox.file("secret", "hunter2\n");
        let user = sandbox.file("user", "press\n");
        let files: Vec<(&str, &Path)> = names
            .iter()
            .map(|name| (*name, if *name == "user" { &*user } else { &*file }))
            .collect();
        let run = drain_as(&sandbox, &server.to(), &files);
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stdout.contains(told), "{}", run.stdout);
        assert!(!run.stdout.contains("hunter2") && !run.stderr.contains("hunter2"));
    };
    // Let in, and then there is no stream.
    check(
        "authorization { token: hunter2 }",
        &["token"],
        "no stream takes",
    );
    let user = "authorization { user: press, password: hunter2 }";
    check(user, &["user", "password"], "no stream takes");
    let may_not = "authorization { users: [ { user: press, password: hunter2, \
                   permissions: { publish: \"other\" } } ] }";
    check(
        may_not,
        &["user", "password"],
        "refuses us: -ERR 'Permissions Violation",
    );
}
