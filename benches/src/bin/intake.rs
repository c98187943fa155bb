//! OTLP over HTTP into the shipped binary, every batch durable before it is answered.
//!
//! `cargo run --release --bin intake -- --binary PATH [--rounds N] [--millis N] [--connections N] [--dir DIR]`
//!
//! Batches are made once and sent over keep-alive connections, so that what is measured is the server;
//! the generator shares the machine with it. The limit beside it is the journal alone, in this
//! process: as many threads append batches of as many records of the length that the events have.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use benches::{Series, machine, micros, number, option, print_table, quantile, scratch};
use wal::{Journal, Local, Options, RecordKind};

const BATCH_LEN: usize = 100;
/// What intake must reach on two cores, in events a second.
const GOAL: f64 = 100_000.0;

/// The messages of OTLP, written by hand: a generator costs nothing but its bytes.
mod wire {
    fn varint(out: &mut Vec<u8>, mut value: usize) {
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    pub fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
        out.push(number << 3 | 2);
        varint(out, bytes.len());
        out.extend_from_slice(bytes);
    }

    fn any(text: &str) -> Vec<u8> {
        let mut value = Vec::new();
        field(&mut value, 1, text.as_bytes());
        value
    }

    pub fn pair(out: &mut Vec<u8>, number: u8, key: &str, text: &str) {
        let mut pair = Vec::new();
        field(&mut pair, 1, key.as_bytes());
        field(&mut pair, 2, &any(text));
        field(out, number, &pair);
    }

    /// A line as a web service logs it: severity, text, four attributes, trace and span.
    pub fn record(number: usize) -> Vec<u8> {
        let mut out = vec![1 << 3 | 1];
        out.extend_from_slice(&(1_700_000_000_000_000_000 + number as u64).to_le_bytes());
        out.extend_from_slice(&[2 << 3, 9]);
        field(&mut out, 3, b"INFO");
        field(
            &mut out,
            5,
            &any(&format!("GET /orders/{number} answered 200")),
        );
        pair(&mut out, 6, "http.request.method", "GET");
        pair(&mut out, 6, "url.path", &format!("/orders/{number}"));
        pair(&mut out, 6, "client.address", "192.0.2.17");
        pair(&mut out, 6, "thread.name", "worker-3");
        field(&mut out, 9, &[7; 16]);
        field(&mut out, 10, &[9; 8]);
        out
    }
}

/// One HTTP request with a batch.
fn request() -> Vec<u8> {
    let mut scope_logs = Vec::new();
    let mut scope = Vec::new();
    wire::field(&mut scope, 1, b"orders.web");
    wire::field(&mut scope_logs, 1, &scope);
    for number in 0..BATCH_LEN {
        wire::field(&mut scope_logs, 2, &wire::record(number));
    }
    let mut resource = Vec::new();
    wire::pair(&mut resource, 1, "service.name", "orders");
    wire::pair(&mut resource, 1, "service.version", "1.4.2");
    wire::pair(&mut resource, 1, "host.name", "press-3");
    let mut resource_logs = Vec::new();
    wire::field(&mut resource_logs, 1, &resource);
    wire::field(&mut resource_logs, 2, &scope_logs);
    let mut body = Vec::new();
    wire::field(&mut body, 1, &resource_logs);
    let mut bytes = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(binary: &str, dir: &Path) -> Self {
        let mut child = Command::new(binary)
            .args(["events", "serve", "--listen", "127.0.0.1:0"])
            .env("HOLDFAST_DATA_DIR", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {binary}: {error}"));
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(lines.read_line(&mut line).expect("text") > 0, "no server");
            if let Some((_, rest)) = line.split_once("http://") {
                let end = rest.find(' ').unwrap_or(rest.len());
                break rest[..end].parse().expect("an address");
            }
        };
        thread::spawn(move || lines.lines().map_while(Result::ok).for_each(drop));
        Self { child, address }
    }

    /// Position of the last durable event, as the server tells it.
    fn safe_point(&self) -> usize {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(ask).expect("a whole request");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("an answer");
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix("holdfast_events_safe_point "));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends batches until `end`; how long each took.
fn produce(address: SocketAddr, request: &[u8], end: Instant) -> Vec<f64> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("an option that exists");
    let mut took = Vec::new();
    let mut answer = [0; 4096];
    while Instant::now() < end {
        let begun = Instant::now();
        stream.write_all(request).expect("a whole request");
        let mut len = 0;
        // The answer has no body: its head is all of it.
        while !answer[..len].ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut answer[len..]).expect("an answer");
            assert!(read > 0, "the connection ended");
            len += read;
        }
        let head = String::from_utf8_lossy(&answer[..len]);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        took.push(micros(begun.elapsed()));
    }
    took
}

/// Appends batches to the journal alone.
fn append(journal: &Local, record: &[u8], end: Instant) -> usize {
    let batch = vec![(RecordKind(1), record); BATCH_LEN];
    let mut batches = 0;
    while Instant::now() < end {
        journal.append(&batch).expect("a durable append");
        batches += 1;
    }
    batches
}

fn main() -> ExitCode {
    let binary = option("--binary").unwrap_or_else(|| "../target/release/holdfast".to_owned());
    let rounds = number("--rounds", 5);
    let millis = number("--millis", 3000) as u64;
    let connections = number("--connections", 8);
    let dir = scratch();
    let server = Server::start(&binary, &dir.path().join("data"));
    let options = Options::on_this_machine(dir.path().join("journal"));
    let journal = Arc::new(Local::open(options).expect("a new journal").0);
    let request = request();
    println!("{}", machine());
    println!(
        "{connections} connections, batches of {BATCH_LEN} events, {} bytes of request each",
        request.len()
    );
    // The length that an event of this batch has as a record.
    let record = vec![b'x'; 560];

    let mut intake = Series::new("intake over HTTP");
    let mut raw = Series::new("the journal alone");
    let mut latencies = Vec::new();
    for _ in 0..rounds {
        let end = turn(millis);
        let took = on_threads(connections, || produce(server.address, &request, end));
        let took: Vec<f64> = took.into_iter().flatten().collect();
        intake
            .figures
            .push((took.len() * BATCH_LEN) as f64 / seconds(millis));
        latencies.extend(took);
        let end = turn(millis);
        let batches = on_threads(connections, || append(&journal, &record, end));
        let events = batches.into_iter().sum::<usize>() * BATCH_LEN;
        raw.figures.push(events as f64 / seconds(millis));
    }
    let median = intake.median();
    for (round, figure) in intake.figures.iter().enumerate() {
        println!(
            "round {round}: {figure:.0} and {:.0} events/s",
            raw.figures[round]
        );
    }
    print_table("Intake, durable", "events/s", &[intake, raw]);
    // What was acknowledged is what is there: nothing was measured that was not kept.
    assert_eq!(server.safe_point(), latencies.len() * BATCH_LEN);
    println!(
        "\nlatency of a batch: p50 {:.0} us, p99 {:.0} us, longest {:.0} us; server's peak memory {} MiB",
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
        quantile(&latencies, 1.0),
        server.status("VmHWM:") / 1024
    );
    let holds = median >= GOAL;
    println!(
        "{} {median:.0} events/s (bound {GOAL:.0})",
        if holds { "ok  " } else { "MISS" }
    );
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn on_threads<R: Send>(count: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        threads
            .into_iter()
            .map(|it| it.join().expect("no panic"))
            .collect()
    })
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

fn turn(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}
