//! The server of `holdfast up` with a thousand hosts: one host's status beside a bare axum, pages, memory.
//!
//! ```sh
//! cargo build --release && cd benches && cargo run --release --bin http [-- --binary PATH] [--rounds N] [--millis N]
//! ```
//!
//! Contestants take turns under the same generator ([`load`]) on the same two cores: `holdfast up` in a process of its
//! own, and an axum of two threads in another that answers `hello world`, or as many bytes as ours.

mod load;
mod site;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use benches::{Series, machine, number, option, print_table, quantile, require, scratch};
use site::{HOSTS, RULES, Up};

const CONNECTIONS: usize = 200;
/// What one host's status must reach of a bare axum.
const GOAL: f64 = 0.5;
/// Of a page of the fleet, in milliseconds; of memory, in MB.
const PAGE_MAX: f64 = 100.0;
const RESIDENT_MAX: f64 = 150.0;
const ASKED: usize = 30;
/// Left between two turns, for a server to close the connections of the one before. Arbitrary.
const BETWEEN_TURNS: Duration = Duration::from_millis(500);
/// The first page, as long as it is unless asked otherwise.
const FINDINGS: &str = "/api/v1/hosts/host-0500/findings";
/// Of the clock that Linux counts processor time in, for programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// Longer than an answer is given again.
const AGED: Duration = Duration::from_millis(1_100);

/// A contestant: who is asked what, and how that is answered.
struct Asked {
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    status: &'static str,
    took: Vec<f64>,
    answer_len: usize,
    /// Who answers, and the processor time that this took, in microseconds an answer.
    server: u32,
    cpu: Vec<f64>,
}

/// Processor time of a process, user and system, in microseconds.
fn cpu_micros(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // After the name in brackets, which may hold anything: state is the third field.
    let (_, rest) = stat.rsplit_once(')').expect("Linux has it");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("a number")).sum();
    ticks * 1e6 / TICKS_PER_SECOND
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n").into_bytes()
}

/// One request over a connection of its own: head and body.
fn ask(address: SocketAddr, request: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(request).expect("a whole request");
    let mut reader = BufReader::new(stream);
    let (mut head, mut len) = (String::new(), 0);
    loop {
        let begin = head.len();
        assert!(reader.read_line(&mut head).expect("text") > 0, "{head}");
        let line = head[begin..].trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(told) = line.strip_prefix("content-length: ") {
            len = told.parse().expect("a number");
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).expect("a whole body");
    (head, body)
}

/// The peer, in a process of its own: it prints where it is.
fn bare(len: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let bytes = axum::body::Bytes::from(vec![b'x'; len]);
        let as_many = move || async move { bytes };
        let routes = axum::Router::new()
            .route("/", axum::routing::get(|| async { "hello world" }))
            .route("/as-many", axum::routing::get(as_many));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("it is bound"));
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, routes).await.expect("it serves");
    });
}

struct Bare(Child, SocketAddr);

impl Bare {
    fn start(len: usize) -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut command = Command::new(own);
        command.args(["--bare", &len.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("text");
        Self(child, line.trim().parse().expect("an address"))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn main() -> ExitCode {
    if let Some(len) = option("--bare") {
        bare(len.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let binary = option("--binary").unwrap_or_else(|| "../target/release/holdfast".to_owned());
    let dir = scratch();
    let begin = Instant::now();
    site::fill(dir.path());
    println!("{}", machine());
    println!("{HOSTS} hosts and {RULES} rules recorded in {:.0} s", begin.elapsed().as_secs_f64());
    let up = Up::start(&binary, dir.path());
    println!("resident before anything is asked: {:.0} MB", up.resident_mb());
    let mut holds = pages(&up);
    holds &= throughput(&up);
    let resident = up.resident_mb();
    println!("resident after all of it: {resident:.0} MB, at most {:.0} MB", up.peak_mb());
    holds &= told("memory of `up`", resident, RESIDENT_MAX, "MB");
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn told(what: &str, figure: f64, bound: f64, unit: &str) -> bool {
    let holds = figure <= bound;
    println!("{} {what}: {figure:.1} {unit} (bound {bound:.0})", if holds { "ok  " } else { "MISS" });
    holds
}

/// Each page one after the other, made anew each time.
fn pages(up: &Up) -> bool {
    let token = format!("Authorization: Bearer {}\r\nConnection: close\r\n", up.token);
    let cookie = format!("Cookie: {}\r\nConnection: close\r\n", up.sign_in());
    println!("\n| one at a time | first, ms | median, ms | slowest of {ASKED}, ms | processor, ms each | bytes | resident then, MB |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let mut holds = true;
    let mut row = |name: &str, path: &str, headers: &str, before: Before, bound: Option<f64>| {
        let (mut len, mut cpu) = (0, 0.0);
        let times: Vec<f64> = (0..=ASKED)
            .map(|number| {
                match before {
                    Before::Nothing => {}
                    Before::AMoment => thread::sleep(AGED),
                    Before::ACommit => up.commit(number),
                }
                let (begin, used) = (Instant::now(), cpu_micros(up.id()));
                let (head, body) = ask(up.address, &get(path, headers));
                let took = begin.elapsed().as_secs_f64() * 1000.0;
                if number > 0 {
                    cpu += (cpu_micros(up.id()) - used) / 1000.0;
                }
                assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
                len = body.len();
                took
            })
            .collect();
        let (first, later) = times.split_first().expect("it was asked");
        let (median, slowest) = (quantile(later, 0.5), quantile(later, 1.0));
        let cpu = cpu / ASKED as f64;
        let resident = up.resident_mb();
        println!("| {name} | {first:.1} | {median:.1} | {slowest:.1} | {cpu:.1} | {len} | {resident:.0} |");
        holds &= bound.is_none_or(|bound| median <= bound);
    };
    use Before::{ACommit, AMoment, Nothing};
    row("API, fleet", "/api/v1/fleet", &token, AMoment, Some(PAGE_MAX));
    row("API, fleet, after a commit", "/api/v1/fleet", &token, ACommit, Some(PAGE_MAX));
    row("API, 1,000 hosts, after a commit", "/api/v1/hosts?limit=1000", &token, ACommit, Some(PAGE_MAX));
    row("API, one host, after a commit", "/api/v1/hosts/host-0500", &token, ACommit, None);
    row("API, 100 findings, after a commit", FINDINGS, &token, ACommit, None);
    row("console, fleet", "/", &cookie, Nothing, Some(PAGE_MAX));
    row("console, fleet, after a commit", "/", &cookie, ACommit, Some(PAGE_MAX));
    row("console, one host, after a commit", "/hosts/host-0500", &cookie, ACommit, None);
    holds
}

/// What happens between two requests.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    /// The answer before is too old to be given again.
    AMoment,
    /// Nothing that was made before holds.
    ACommit,
}

fn throughput(up: &Up) -> bool {
    let (rounds, millis) = (number("--rounds", 5), number("--millis", 2000) as u64);
    let token = format!("Authorization: Bearer {}\r\n", up.token);
    let one = get("/api/v1/hosts/host-0500", &token);
    let (head, body) = ask(up.address, &one);
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("it has a tag").to_owned();
    let known = get("/api/v1/hosts/host-0500", &format!("{token}If-None-Match: {tag}\r\n"));
    let every = (0..HOSTS).map(|host| get(&format!("/api/v1/hosts/host-{host:04}"), &token)).collect();
    let page = get(FINDINGS, &token);
    let packed = get(FINDINGS, &format!("{token}Accept-Encoding: gzip\r\n"));
    let (_, page_body) = ask(up.address, &page);
    let (packed_head, packed_body) = ask(up.address, &packed);
    assert!(packed_head.to_ascii_lowercase().contains("content-encoding: gzip"), "{packed_head}");
    println!(
        "\none host: {} bytes, tag {tag}; a page of its findings: {} bytes, {} packed",
        body.len(),
        page_body.len(),
        packed_body.len()
    );
    let peers = [body.len(), page_body.len(), packed_body.len()].map(Bare::start);
    let [peer, page_peer, packed_peer] = &peers;
    let by = |server, address, requests, status| Asked {
        address,
        requests,
        status,
        took: Vec::new(),
        answer_len: 0,
        server,
        cpu: Vec::new(),
    };
    let ours = |requests, status| by(up.id(), up.address, requests, status);
    let bare = |peer: &Bare, path| by(peer.0.id(), peer.1, vec![get(path, "")], "200");
    let mut contestants = vec![
        ("one host".to_owned(), ours(vec![one], "200")),
        ("one host, known to whoever asks".to_owned(), ours(vec![known], "304")),
        ("1,000 hosts in turn".to_owned(), ours(every, "200")),
        ("100 findings".to_owned(), ours(vec![page], "200")),
        ("100 findings, packed".to_owned(), ours(vec![packed], "200")),
        ("bare axum, as many bytes".to_owned(), bare(peer, "/as-many")),
        ("bare axum, as many as 100 findings".to_owned(), bare(page_peer, "/as-many")),
        ("bare axum, as many as these packed".to_owned(), bare(packed_peer, "/as-many")),
        ("bare axum, hello world".to_owned(), bare(peer, "/")),
    ];
    let mut resident = vec![up.resident_mb()];
    let series = benches::interleave(rounds, &mut contestants, |asked| {
        thread::sleep(BETWEEN_TURNS);
        let used = cpu_micros(asked.server);
        let turn = load::run(asked.address, &asked.requests, CONNECTIONS, millis, asked.status);
        // What is made before anything counts is told with it.
        asked.cpu.push((cpu_micros(asked.server) - used) / turn.all as f64);
        asked.took.extend(turn.took);
        asked.answer_len = turn.answer_len;
        resident.push(up.resident_mb());
        turn.per_second
    });
    let resident: Vec<String> = resident.iter().map(|mb| format!("{mb:.0}")).collect();
    println!("\nresident MB before the first turn, and after each: {}", resident.join(" "));
    print_table(&format!("{CONNECTIONS} connections, {rounds} rounds"), "requests/s", &series);
    println!("\n| | p50 ms | p99 ms | longest ms | processor, us an answer | bytes of an answer |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, asked) in &contestants {
        let at = |place| quantile(&asked.took, place) / 1000.0;
        let cpu = quantile(&asked.cpu, 0.5);
        println!("| {name} | {:.2} | {:.2} | {:.1} | {cpu:.1} | {} |", at(0.5), at(0.99), at(1.0), asked.answer_len);
    }
    println!();
    let of = |name: &str| -> &Series { series.iter().find(|one| one.name == name).expect("it took part") };
    let hello = of("bare axum, hello world");
    require("one host", of("one host"), hello, GOAL)
}
