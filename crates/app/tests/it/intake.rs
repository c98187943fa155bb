//! Events taken by the shipped binary: acknowledged means kept, and what is refused says why.

use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message;
use serde_json::{Value, json};

use crate::{
    holdfast::Sandbox,
    serving::{PATIENCE, Reply, Serving, exchange, kept, reply, send_lines},
};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

fn record(text: impl Into<String>) -> LogRecord {
    LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000,
        severity_number: 9,
        body: Some(AnyValue {
            value: Some(Any::StringValue(text.into())),
        }),
        ..LogRecord::default()
    }
}

fn request(log_records: Vec<LogRecord>) -> Vec<u8> {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn said(events: &[Value]) -> Vec<String> {
    let said = events.iter().map(|event| event["body"]["body"].clone());
    said.map(|body| body.as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Proves: EVT-1, EVT-2
#[test]
fn every_way_in_keeps_what_it_acknowledges_and_says_where() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let two = request(vec![record("a"), record("b")]);
    let json =
        br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"e"}}]}]}]}"#;
    let line = r#"{"source":"press","class":"action","body":{"body":"f"}}"#;

    let first = serving.post("/v1/logs", PROTOBUF, &two);
    assert_eq!(
        (first.status, first.body.len()),
        (200, 0),
        "{}",
        first.text()
    );
    assert_eq!(first.header("content-type"), Some(PROTOBUF));
    assert_eq!(first.header("holdfast-lsn"), Some("1-2"));
    let journal = first.header("holdfast-journal").unwrap();
    let generation = first.header("holdfast-generation").unwrap();

    let folded = gzip(&request(vec![record("c"), record("d")]));
    let headers = [
        "Content-Type: application/x-protobuf",
        "Content-Encoding: gzip",
    ];
    let second = serving.send("POST", "/v1/logs", &headers, &folded);
    assert_eq!(
        second.header("holdfast-lsn"),
        Some("3-4"),
        "{}",
        second.text()
    );

    let third = serving.post("/v1/logs", JSON, json);
    assert_eq!((third.status, third.text()), (200, "{}".to_owned()));
    assert_eq!(third.header("content-type"), Some(JSON));
    assert_eq!(third.header("holdfast-lsn"), Some("5-5"));

    let fourth = serving.post(
        "/api/v1/events",
        LINES,
        format!("{line}\n\n{line}\n").as_bytes(),
    );
    assert_eq!(fourth.status, 200, "{}", fourth.text());
    let lsns: Vec<Value> = fourth
        .lines()
        .iter()
        .map(|ack| ack["lsn"].clone())
        .collect();
    assert_eq!(lsns, [json!(6), json!(7)]);

    let fifth = serving.post("/api/v1/events", JSON, format!("[{line}]").as_bytes());
    assert_eq!(fifth.lines()[0]["lsn"], 8);

    let acks = send_lines(&sandbox, &[line, "{}", line]);
    assert_eq!((&acks[0]["lsn"], &acks[2]["lsn"]), (&json!(9), &json!(10)));
    assert_eq!(acks[1]["error"]["code"], "INVALID");
    let run = sandbox.run(["events", "append", r#"{"body":"g"}"#, "--source", "press"]);
    assert_eq!(run.code, 0, "{}", run.stderr);

    let events = kept(&sandbox);
    let texts = said(&events);
    assert_eq!(
        texts,
        ["a", "b", "c", "d", "e", "f", "f", "f", "f", "f", "g"]
    );
    for (number, event) in (1..).zip(&events) {
        assert_eq!(event["id"], format!("{journal}:{generation}:{number}"));
    }
    let one = serving.get(&format!("/api/v1/events/{journal}:{generation}:6"));
    assert_eq!(one.json(), events[5]);
    assert_eq!(serving.stop(), 0);
    assert_eq!(kept(&sandbox), events, "the same without the server");
}

#[test]
fn a_question_is_answered_by_filter_and_by_position() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let lines: Vec<String> = (1..=9)
        .map(|number| {
            let class = ["error", "action", "other"][number % 3];
            format!(
                r#"{{"source":"s{}","class":"{class}","time":"2026-01-0{number}T00:00:00Z","body":{number}}}"#,
                number % 2
            )
        })
        .collect();
    serving.post("/api/v1/events", LINES, lines.join("\n").as_bytes());
    let check = |query: &str, expected: &[u64]| {
        let reply = serving.get(&format!("/api/v1/events?{query}"));
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        let found: Vec<u64> = reply
            .lines()
            .iter()
            .map(|it| it["body"].as_u64().unwrap())
            .collect();
        assert_eq!(found, expected, "{query}");
    };
    check("", &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    check("class=error", &[3, 6, 9]);
    check("class=error&class=action&source=s1", &[1, 3, 7, 9]);
    check(
        "since=2026-01-04T00:00:00Z&until=2026-01-06T00:00:00Z",
        &[4, 5],
    );
    check("from=7", &[7, 8, 9]);
    check("last=2", &[8, 9]);
    check("limit=2&from=3", &[3, 4]);
    check("from=10", &[]);
    for (target, status) in [
        ("/api/v1/events?class=nonsense", 400),
        ("/api/v1/events?colour=red", 400),
        ("/api/v1/events/1", 400),
        ("/api/v1/events/00000000000000000000000000000000:1:1", 404),
        ("/nothing", 404),
        ("/v1/logs", 405),
    ] {
        let reply = serving.get(target);
        assert_eq!(reply.status, status, "{target}: {}", reply.text());
        assert!(reply.json()["code"].is_string());
    }
}

#[test]
fn a_follower_sees_what_comes_and_ends_with_the_server() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let mut follower = serving.connect();
    follower
        .write_all(b"GET /api/v1/events?follow=1&limit=3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut endless = serving.connect();
    endless
        .write_all(b"GET /api/v1/events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    for text in ["a", "b", "c"] {
        serving.post("/v1/logs", PROTOBUF, &request(vec![record(text)]));
    }
    assert_eq!(said(&reply(&mut follower).lines()), ["a", "b", "c"]);
    let ending = thread::spawn(move || reply(&mut endless).lines().len());
    assert_eq!(serving.stop(), 0);
    assert_eq!(ending.join().unwrap(), 3, "its answer has an orderly end");
}

fn is_refused(reply: &Reply, status: u16, code: i64, says: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let (found, message) = if reply.header("content-type") == Some(JSON) {
        let status = reply.json();
        (
            status["code"].as_i64().unwrap(),
            status["message"].to_string(),
        )
    } else {
        let status = Status::decode(&reply.body[..]).unwrap();
        (i64::from(status.code), status.message)
    };
    assert_eq!(found, code, "{message}");
    assert!(message.contains(says), "{message}");
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// Proves: EVT-9
#[test]
fn what_is_no_request_is_refused_as_otlp_says_and_stores_nothing() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let good = request(vec![record("x")]);
    let folded = gzip(&good);
    let deep = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{}"#,
        r#"{"arrayValue":{"values":["#.repeat(1000)
    );
    let gz = "Content-Encoding: gzip";
    let check = |media_type: &str, header: &str, body: &[u8], status, code, says: &str| {
        let media_type = format!("Content-Type: {media_type}");
        let headers = [media_type.as_str(), header];
        let reply = serving.send("POST", "/v1/logs", &headers, body);
        is_refused(&reply, status, code, says);
    };
    let none = "X-None: 1";
    check(
        PROTOBUF,
        none,
        b"not protobuf at all",
        400,
        3,
        "ExportLogsServiceRequest",
    );
    check(
        PROTOBUF,
        none,
        &good[..good.len() - 1],
        400,
        3,
        "longer than",
    );
    check(JSON, none, b"{\"resourceLogs\":[", 400, 3, "EOF");
    check(
        JSON,
        none,
        deep.as_bytes(),
        400,
        3,
        "ExportLogsServiceRequest",
    );
    check(JSON, none, &good, 400, 3, "ExportLogsServiceRequest");
    check("text/plain", none, &good, 415, 3, "text/plain");
    check("", none, &good, 415, 3, "content type");
    check(PROTOBUF, "Content-Encoding: zstd", &good, 415, 3, "zstd");
    check(PROTOBUF, gz, &good, 400, 3, "gzip");
    check(PROTOBUF, gz, &folded[..folded.len() - 5], 400, 3, "gzip");
    check(
        PROTOBUF,
        gz,
        &gzip(&vec![0; 40 << 20]),
        413,
        8,
        "unfolds to more",
    );
    check(PROTOBUF, none, &vec![0; 17 << 20], 413, 8, "16777216");
    assert_eq!(kept(&sandbox), Vec::<Value>::new());
    let peak = serving.peak_mib();
    assert!(peak < 256, "{peak} MiB");
}

#[test]
fn records_too_large_are_named_and_the_others_are_kept() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let body = request(vec![record("a"), record("x".repeat(2 << 20)), record("b")]);
    let reply = serving.post("/v1/logs", PROTOBUF, &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = ExportLogsServiceResponse::decode(&reply.body[..]).unwrap();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1);
    assert!(
        partial.error_message.starts_with("record 1: "),
        "{partial:?}"
    );
    assert_eq!(said(&kept(&sandbox)), ["a", "b"]);
}

#[test]
fn one_bad_line_refuses_the_whole_request_and_is_named() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let good = r#"{"source":"s","body":1}"#;
    let body = format!("{good}\nnonsense\n{good}\n{{\"body\":1}}\n");
    let reply = serving.post("/api/v1/events", LINES, body.as_bytes());
    assert_eq!(reply.status, 400);
    let problem = reply.json();
    let numbers: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["line"])
        .collect();
    assert_eq!(numbers, [2, 4], "{problem}");
    let many = "nonsense\n".repeat(1000);
    let reply = serving.post("/api/v1/events", LINES, many.as_bytes());
    assert_eq!(reply.json()["errors"].as_array().unwrap().len(), 10);
    assert_eq!(kept(&sandbox), Vec::<Value>::new());
}

/// A few hundred bytes of request must not become hundreds of MiB: every record repeats its resource.
#[test]
fn a_small_request_that_grows_is_stopped_at_the_bound() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let mut decoded =
        ExportLogsServiceRequest::decode(&request(vec![LogRecord::default(); 50_000])[..]).unwrap();
    let attribute = opentelemetry_proto::tonic::common::v1::KeyValue {
        key: "k".repeat(500_000),
        ..Default::default()
    };
    decoded.resource_logs[0]
        .resource
        .get_or_insert_default()
        .attributes
        .push(attribute);
    let reply = serving.post("/v1/logs", PROTOBUF, &decoded.encode_to_vec());
    assert_eq!(reply.status, 413, "{}", reply.text());
    let empty = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}{{}}]}}]}}]}}"#,
        "{},".repeat(1 << 20)
    );
    let reply = serving.post("/v1/logs", JSON, empty.as_bytes());
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert_eq!(
        serving
            .post("/v1/logs", PROTOBUF, &request(vec![record("x")]))
            .status,
        200
    );
    let peak = serving.peak_mib();
    assert!(peak < 256, "{peak} MiB");
}

/// Proves: SVC-10
#[test]
fn what_is_acknowledged_survives_a_kill() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let is_over = AtomicBool::new(false);
    let address = serving.address;
    let acknowledged: Vec<String> = thread::scope(|scope| {
        let producers: Vec<_> = (0..4)
            .map(|producer| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
                        return acknowledged;
                    };
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    for number in 0.. {
                        let text = format!("{producer}-{number}");
                        let body = request(vec![record(&text)]);
                        let head = format!(
                            "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {}\r\n\r\n",
                            body.len()
                        );
                        let mut answer = [0; 12];
                        let sent = stream.write_all(&[head.as_bytes(), &body].concat());
                        if sent.and_then(|()| stream.read_exact(&mut answer)).is_err() {
                            break;
                        }
                        assert_eq!(&answer[9..], b"200");
                        acknowledged.push(text);
                        skip_head(&mut stream);
                        if number == 50 {
                            is_over.store(true, Ordering::Relaxed);
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        while !is_over.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        serving.kill();
        producers
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    let kept = said(&kept(&sandbox));
    for text in &acknowledged {
        assert!(kept.contains(text), "{text} was acknowledged");
    }
    assert!(acknowledged.len() > 50);
}

/// Reads on to the end of an answer without a body.
fn skip_head(stream: &mut std::net::TcpStream) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        seen.push(byte[0]);
    }
}

/// Proves: EVT-9
#[test]
fn beyond_the_bound_producers_are_told_to_wait_and_nothing_acknowledged_is_lost() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    // Bodies that are begun and not ended hold the room that they said they need.
    let begun: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = serving.connect();
            let head = format!(
                "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {}\r\n\r\n",
                15 << 20
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&[0x7a]).unwrap();
            stream
        })
        .collect();
    let big = request((0..16).map(|_| record("y".repeat(500_000))).collect());
    let small = request(vec![record("z")]);
    let mut refused = 0;
    let mut stored = 0;
    for _ in 0..200 {
        let reply = serving.post("/v1/logs", PROTOBUF, &big);
        match reply.status {
            200 => stored += 16,
            429 => {
                assert_eq!(reply.header("retry-after"), Some("1"));
                is_refused(&reply, 429, 8, "in flight");
                refused += 1;
                break;
            }
            status => panic!("{status}: {}", reply.text()),
        }
    }
    assert_eq!(refused, 1, "{stored}");
    drop(begun);
    // Room is given back when the connections are gone, which the server notices by itself.
    let mut clock = std::iter::repeat_with(|| serving.post("/v1/logs", PROTOBUF, &small).status);
    assert!(clock.by_ref().take(10_000).any(|status| status == 200));
    assert_eq!(kept(&sandbox).len(), stored + 1);
    let peak = serving.peak_mib();
    assert!(peak < 300, "{peak} MiB");
}

#[test]
fn connections_in_thousands_and_slow_ones_do_not_keep_an_honest_producer_out_for_long() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let turned_away = AtomicU64::new(0);
    let all_open = Barrier::new(5);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut held: Vec<_> = (0..300)
                    .filter_map(|_| std::net::TcpStream::connect(serving.address).ok())
                    .collect();
                for stream in &mut held {
                    // A head that never ends.
                    drop(stream.write_all(b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nX: "));
                }
                all_open.wait();
                for stream in &mut held {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut answer = Vec::new();
                    // A connection that is cut while it sends is reset; one that is kept has no end.
                    if let Err(error) = stream.read_to_end(&mut answer) {
                        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                    }
                    if answer.starts_with(b"HTTP/1.1 503") {
                        turned_away.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        all_open.wait();
    });
    // The slow ones were let go, each within the time that a head may take.
    let reply = serving.post("/v1/logs", PROTOBUF, &request(vec![record("x")]));
    assert_eq!(reply.status, 200);
    let metrics = serving.get("/metrics").text();
    let turned = metrics
        .lines()
        .find(|line| line.starts_with("holdfast_http_connections_turned_away_total "));
    assert_ne!(
        turned,
        Some("holdfast_http_connections_turned_away_total 0"),
        "{metrics}"
    );
    let peak = serving.peak_mib();
    assert!(peak < 256, "{peak} MiB");
}

#[test]
fn a_page_of_another_site_cannot_post() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let body = request(vec![record("x")]);
    let check = |header: &str, status| {
        let headers = ["Content-Type: application/x-protobuf", header];
        let reply = serving.send("POST", "/v1/logs", &headers, &body);
        assert_eq!(reply.status, status, "{header}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    };
    check("Origin: https://evil.example", 403);
    check("Origin: null", 403);
    check("Host: evil.example", 403);
    check("Origin: http://localhost:3000", 200);
    assert_eq!(
        serving
            .send(
                "OPTIONS",
                "/v1/logs",
                &["Origin: https://evil.example"],
                b""
            )
            .status,
        403
    );
    assert_eq!(kept(&sandbox).len(), 1);
}

#[test]
fn the_server_tells_how_it_is() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    serving.post("/v1/logs", PROTOBUF, &request(vec![record("x")]));
    assert_eq!(serving.get("/health").json(), json!({"status": "ok"}));
    assert_eq!(serving.get("/ready").json(), json!({"status": "ready"}));
    let metrics = serving.get("/metrics").text();
    for line in [
        "holdfast_events_total{class=\"other\",outcome=\"stored\"} 1",
        "holdfast_events_safe_point 1",
        "holdfast_events_ready 1",
        "holdfast_events_in_flight_bytes 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} in {metrics}"
        );
    }
}

#[test]
fn socket_files_are_the_users_alone_and_those_of_a_dead_server_are_replaced() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    let socket = sandbox.data_dir().join("events/socket");
    for name in ["socket", "api"] {
        let path = sandbox.data_dir().join("events").join(name);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    serving.kill();
    assert!(socket.exists(), "a killed server leaves it");
    let serving = Serving::start(&sandbox);
    let line = r#"{"source":"s","body":1}"#;
    assert_eq!(send_lines(&sandbox, &[line])[0]["lsn"], 1);
    let second = sandbox.run(["events", "serve", "--listen", "127.0.0.1:0"]);
    second.is_refused_naming("in use");
    assert_eq!(
        send_lines(&sandbox, &[line])[0]["lsn"],
        2,
        "the first goes on"
    );
    assert_eq!(serving.stop(), 0);
    assert!(!socket.exists());
    std::fs::write(&socket, "precious").unwrap();
    let third = sandbox.run(["events", "serve", "--listen", "127.0.0.1:0"]);
    third.is_refused_naming("no socket");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn listening_for_other_machines_and_on_a_taken_port_is_refused() {
    let sandbox = Sandbox::new();
    for address in ["0.0.0.0:0", "192.0.2.1:4318", "[::]:0"] {
        let run = sandbox.run(["events", "serve", "--listen", address]);
        run.is_refused_naming("TLS");
        run.tells_next_step();
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = sandbox.run(["events", "serve", "--listen", &address]);
    run.is_refused_naming(&address);
    run.tells_next_step();
}

/// Proves: SVC-10
#[test]
fn a_stop_finishes_what_is_in_flight_and_ends_in_time() {
    let sandbox = Sandbox::new();
    let serving = Serving::start(&sandbox);
    // Idle, and in the middle of a head: neither holds the end up.
    let _idle = serving.connect();
    let mut keeping = serving.connect();
    let body = request(vec![record("x")]);
    let headers = ["Content-Type: application/x-protobuf"];
    assert_eq!(
        exchange(&mut keeping, "POST", "/v1/logs", &headers, &body).status,
        200
    );
    let mut begun = serving.connect();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).unwrap();
    // It is in flight once the server wants to read it.
    let mut goes_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    begun.read_exact(&mut goes_on).unwrap();
    assert!(goes_on.starts_with(b"HTTP/1.1 100"));
    begun.write_all(&body[..body.len() - 1]).unwrap();
    serving.signal(rustix::process::Signal::TERM);
    begun.write_all(&body[body.len() - 1..]).unwrap();
    assert_eq!(reply(&mut begun).status, 200);
    assert_eq!(serving.wait(), 0);
    assert_eq!(said(&kept(&sandbox)), ["x", "x"]);
}

/// Proves: EVT-9
#[test]
fn a_full_disk_is_told_as_such_loses_nothing_and_heals_by_itself() {
    let sandbox = Sandbox::new();
    let serving = Serving::start_on_small_disk(&sandbox, 48, 24);
    let batch = request(vec![record("y".repeat(400_000))]);
    let mut stored = 0;
    let refused = loop {
        let reply = serving.post("/v1/logs", PROTOBUF, &batch);
        if reply.status != 200 {
            break reply;
        }
        stored += 1;
        assert!(stored < 1000, "48 MiB hold no 400 MB");
    };
    is_refused(&refused, 503, 14, "append events");
    assert_eq!(refused.header("retry-after"), Some("30"));
    let ready = serving.get("/ready");
    assert_eq!((ready.status, &ready.json()["why"]), (503, &json!("full")));
    assert_eq!(serving.get("/health").status, 200);
    let count = || serving.get("/api/v1/events").lines().len();
    assert_eq!(count(), stored);
    std::fs::remove_file(serving.file(&sandbox.data_dir().join("ballast"))).unwrap();
    assert_eq!(serving.post("/v1/logs", PROTOBUF, &batch).status, 200);
    assert_eq!(serving.get("/ready").status, 200);
    assert_eq!(count(), stored + 1);
    assert_eq!(serving.stop(), 0);
}
