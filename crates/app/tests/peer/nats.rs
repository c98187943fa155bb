//! A NATS server with JetStream, as Debian has it, as a receiver of a drain.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    Peer,
    holdfast::{Run, Sandbox},
    serving::PATIENCE,
};

static NATS: Peer = Peer::new("nats-server", "HOLDFAST_PEER_NATS", "/usr/sbin/nats-server");

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        NATS.test("nats_keeps_each_event_once_however_often_it_is_sent", once),
        NATS.test("what_no_stream_of_nats_takes_waits", waits),
        NATS.test("nats_asks_for_a_token_and_gets_it_from_a_file", token),
    ]
}

/// A server of its own, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(nats: &Peer, sandbox: &Sandbox, more: &[&str]) -> Self {
        let mut child = Command::new(nats.path())
            .args(["-js", "-a", "127.0.0.1", "-p", "-1", "-sd"])
            .arg(sandbox.path("jetstream"))
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, at)) = line.split_once("client connections on ") {
                address = Some(at.parse().unwrap());
            }
            if line.contains("Server is ready") {
                break;
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            address: address.expect("it tells where it listens"),
            child,
        }
    }

    fn to(&self) -> String {
        format!("nats=nats://{}/events.all", self.address)
    }

    /// Asks the server's own interface, by its own protocol.
    fn ask(&self, subject: &str, body: &Value) -> Value {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.to_string();
        write!(
            &stream,
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{body}\r\n",
            body.len()
        )
        .unwrap();
        let mut reader = BufReader::new(&stream);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.starts_with("MSG ") {
                let len: usize = line.split_whitespace().last().unwrap().parse().unwrap();
                let mut answer = vec![0; len];
                reader.read_exact(&mut answer).unwrap();
                return serde_json::from_slice(&answer).unwrap();
            }
            assert!(
                line.starts_with("INFO ") || line.starts_with("PING"),
                "{line}"
            );
        }
    }

    fn create_stream(&self) {
        let stream = json!({"name": "EVENTS", "subjects": ["events.>"], "storage": "file"});
        let answer = self.ask("$JS.API.STREAM.CREATE.EVENTS", &stream);
        assert_eq!(answer["error"], Value::Null, "{answer}");
    }

    fn messages(&self) -> Value {
        self.ask("$JS.API.STREAM.INFO.EVENTS", &json!({}))["state"]["messages"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn append(sandbox: &Sandbox, count: usize) {
    let lines: String = (0..count)
        .map(|number| format!("{{\"class\":\"error\",\"body\":{number}}}\n"))
        .collect();
    let file = sandbox.file("events.jsonl", lines);
    let input = std::fs::File::open(file).unwrap();
    let mut command = sandbox.command(["events", "append", "--source", "robot"]);
    let run = Run::of(command.stdin(input).output().unwrap());
    assert_eq!(run.code, 0, "{}", run.stderr);
}

fn drain(sandbox: &Sandbox, to: &str) -> Run {
    sandbox.run(["events", "drain", "--once", "--name", "nats", "--to", to])
}

/// Proves: EVT-4
fn once(nats: &Peer) {
    let sandbox = Sandbox::new();
    append(&sandbox, 700);
    let server = Server::start(nats, &sandbox, &[]);
    server.create_stream();
    for _ in 0..2 {
        let run = drain(&sandbox, &server.to());
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(server.messages(), 700);
        // As after a crash between the acceptance and the cursor, of everything.
        assert_eq!(sandbox.run(["events", "drain", "--forget", "nats"]).code, 0);
    }
    let last = server.ask("$JS.API.STREAM.MSG.GET.EVENTS", &json!({"seq": 700}));
    assert_eq!(last["message"]["subject"], "events.all");
}

fn waits(nats: &Peer) {
    let sandbox = Sandbox::new();
    append(&sandbox, 10);
    let server = Server::start(nats, &sandbox, &[]);
    let run = drain(&sandbox, &server.to());
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stdout.contains("no stream"), "{}", run.stdout);
    server.create_stream();
    let run = drain(&sandbox, &server.to());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(server.messages(), 10);
}

fn token(nats: &Peer) {
    let sandbox = Sandbox::new();
    append(&sandbox, 10);
    let server = Server::start(nats, &sandbox, &["--auth", "hunter2"]);
    let run = drain(&sandbox, &server.to());
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stdout.contains("Authorization"), "{}", run.stdout);
    let file = sandbox.file("token", "hunter2\n");
    let header = format!("token=file:{}", file.display());
    let to = server.to();
    let args = [
        "events", "drain", "--once", "--to", &to, "--header", &header,
    ];
    let run = sandbox.run(args);
    // Let in, and then there is no stream.
    assert!(run.stdout.contains("no stream"), "{}", run.stdout);
    assert!(!run.stdout.contains("hunter2") && !run.stderr.contains("hunter2"));
}
