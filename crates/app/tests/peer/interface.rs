//! The HTTP interface, asked by a fuzzer that reads its OpenAPI document: Schemathesis, from PyPI.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::{Peer, browser::site::Site, holdfast::Run};

static SCHEMATHESIS: Peer = Peer::new(
    "Schemathesis",
    "HOLDFAST_PEER_SCHEMATHESIS",
    "target/peers/schemathesis/bin/schemathesis",
);

/// What is asked of every answer: that it is no fault of ours, and that it is as the document says.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
/// Operations left out: a stream that does not end, and those that take the fuzzer's own leave away.
const LEFT_OUT: &str = "/stream$|/tokens";

pub(crate) fn tests() -> Vec<Trial> {
    vec![SCHEMATHESIS.test(
        "whatever_the_document_allows_or_not_is_answered_as_it_says",
        fuzzed,
    )]
}

/// Proves: SVC-2, SVC-5
fn fuzzed(schemathesis: &Peer) {
    let site = Site::with_history();
    let token = format!("Authorization: Bearer {}", site.admin_token());
    let run = Command::new(schemathesis.path())
        .current_dir(site.sandbox.path("."))
        .arg("run")
        .arg(format!("{}/api/v1/openapi.json", site.address))
        .args(["--header", &token])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "8", "--seed", "20260601"])
        .args(["--request-timeout", "30", "--checks", CHECKS])
        .args(["--exclude-path-regex", LEFT_OUT])
        .stdin(Stdio::null())
        .output()
        .map(Run::of)
        .expect("it is installed");
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
    // What it did was done to a site that still answers.
    let listed = site.sandbox.run(["host", "list"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
}
