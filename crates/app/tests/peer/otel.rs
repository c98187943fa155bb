//! The OpenTelemetry SDK for Python, from PyPI, as a producer.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    Peer,
    holdfast::{Run, Sandbox, repository},
    serving::{Serving, kept},
};

static SDK: Peer = Peer::new(
    "the OpenTelemetry SDK for Python",
    "HOLDFAST_PEER_OTEL",
    "target/peers/otel/bin/python",
);

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        SDK.test("the_sdk_sends_and_every_record_is_kept_as_it_was", plain),
        SDK.test(
            "the_sdk_sends_gzip_and_every_record_is_kept_as_it_was",
            gzip,
        ),
        SDK.test("the_sdk_sends_to_up_as_to_serve", to_up),
    ]
}

/// Proves: EVT-11
fn plain(sdk: &Peer) {
    let serve = ["events", "serve", "--listen", "127.0.0.1:0"];
    check(sdk, &serve, "none", 1000);
}

/// Proves: EVT-11
fn gzip(sdk: &Peer) {
    let serve = ["events", "serve", "--listen", "127.0.0.1:0"];
    check(sdk, &serve, "gzip", 1000);
}

fn to_up(sdk: &Peer) {
    check(sdk, &["up", "--no-walk"], "none", 10);
}

fn check(sdk: &Peer, server: &[&str], compression: &str, count: usize) {
    let sandbox = Sandbox::new();
    let listen = [("HOLDFAST_EVENTS_LISTEN", "127.0.0.1:0")];
    let serving = Serving::start_with(&sandbox, server, &listen);
    let sent = send(sdk, &serving, compression, count);
    assert_eq!(sent.len(), count);
    let found: Vec<Value> = kept(&sandbox)
        .into_iter()
        // `up` tells of its scans in the same log.
        .filter(|event| event["source"] != "holdfast")
        .collect();
    let as_sent: Vec<Value> = found.iter().map(as_sent).collect();
    assert_eq!(as_sent, sent);
    for event in &found {
        let body = &event["body"];
        assert_eq!(event["source"], "press-3");
        assert_eq!(body["resource"]["telemetry.sdk.language"], "python");
        assert_eq!(body["scope"]["name"], "press");
        let number = body["attributes"]["number"].as_u64().unwrap();
        let ratio = &body["attributes"]["ratio"];
        assert!(ratio.is_f64(), "a double stays one: {ratio}");
        assert_eq!(ratio.as_f64(), Some(number as f64 / 4.0));
        assert_eq!(body["attributes"]["ok"], true);
        assert_eq!(body["attributes"]["raw"], json!({"$bytes": "AP8="}));
        let is_error = body["severity_number"].as_u64().unwrap() >= 17;
        assert_eq!(event["class"], if is_error { "error" } else { "other" });
    }
    assert_eq!(serving.stop(), 0);
}

fn send(sdk: &Peer, serving: &Serving, compression: &str, count: usize) -> Vec<Value> {
    let output = Command::new(sdk.path())
        .arg(repository("crates/app/tests/peer/otel_sdk.py"))
        .arg(count.to_string())
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", serving.address),
        )
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        .env("OTEL_SERVICE_NAME", "press-3")
        .stdin(Stdio::null())
        .output()
        .expect("it is installed");
    let run = Run::of(output);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (0, ""),
        "the SDK complains"
    );
    let lines = run.stdout.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// What is kept, in the words of the script that sent it.
fn as_sent(event: &Value) -> Value {
    let body = &event["body"];
    json!({
        "number": body["attributes"]["number"],
        "severity": body["severity_number"],
        "body": body["body"],
        "trace": event["trace"],
        "span": event["span"],
    })
}
