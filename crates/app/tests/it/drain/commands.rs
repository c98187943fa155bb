//! What the commands say, and by which exit code.

use super::{
    peer::{Answer, Peer},
    *,
};
use crate::serving::Serving;

/// Proves: EVT-4, EVT-8
#[test]
fn a_file_gets_each_event_once_and_the_exit_code_says_so() {
    let sandbox = Sandbox::new();
    let ids = append(&sandbox, 1_000);
    let file = sandbox.path("out.jsonl");
    let to = format!("file={}", file.display());
    for _ in 0..2 {
        let run = drain(&sandbox, &to);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let text = std::fs::read_to_string(&file).unwrap();
        let mut found: Vec<String> = text
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["id"].as_str().unwrap().to_owned()
            })
            .collect();
        found.sort();
        let mut wanted = ids.clone();
        wanted.sort();
        assert_eq!(found, wanted);
    }
}

#[test]
fn a_receiver_that_is_not_there_leaves_the_rest_waiting() {
    let sandbox = Sandbox::new();
    append(&sandbox, 10);
    let peer = Peer::new(|_| Answer::Status(401, vec![]));
    let to = format!("otlp={}", peer.url());
    let (code, told) = sandbox.json(["events", "drain", "--once", "--to", &to]);
    assert_eq!(code, 3);
    assert_eq!(told["complete"], false);
    assert_eq!(told["classes"][0]["waiting"], 2);
    assert!(
        told["classes"][0]["last_error"]
            .as_str()
            .unwrap()
            .contains("401")
    );
}

/// Proves: EVT-5
#[test]
fn what_is_refused_is_listed_exported_and_sent_again() {
    let sandbox = Sandbox::new();
    let ids = append(&sandbox, 5);
    let unfit = ids[0].clone();
    let is_unfit = unfit.clone();
    let peer = Peer::new(move |request| {
        if request.events.contains(&is_unfit) {
            return Answer::Status(400, vec![]);
        }
        Answer::Accept
    });
    let to = format!("otlp={}", peer.url());
    let run = drain(&sandbox, &to);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("dead-letter list"), "{}", run.stderr);
    let (_, listed) = sandbox.json(["events", "dead-letter", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["event"]["id"], unfit.as_str());
    assert_eq!(listed[0]["event"]["body"], 0);
    assert!(listed[0]["why"].as_str().unwrap().contains("400"));
    let file = sandbox.path("letters.jsonl");
    let run = sandbox.run([
        "events".as_ref(),
        "dead-letter".as_ref(),
        "export".as_ref(),
        file.as_os_str(),
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let exported: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(exported, listed[0]);
    let again = ["events", "dead-letter", "retry", "--to", &to];
    assert_eq!(sandbox.run(again).code, 1, "refused again");
    peer.answers(|_| Answer::Accept);
    assert_eq!(sandbox.run(again).code, 0);
    let (_, listed) = sandbox.json(["events", "dead-letter", "list"]);
    assert_eq!(listed, serde_json::json!([]));
    assert!(peer.taken().contains(&unfit));
}

#[test]
fn beside_a_server_a_drain_is_refused_with_the_way_out() {
    let sandbox = Sandbox::new();
    let server = Serving::start(&sandbox);
    let run = drain(&sandbox, "file=/dev/null");
    run.is_refused_naming("[[events.drain]]");
    assert_eq!(server.stop(), 0);
}

#[test]
fn receivers_and_headers_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    append(&sandbox, 1);
    let check = |args: &[&str], named: &str| {
        let run = sandbox.run([&["events", "drain", "--once"], args].concat());
        run.is_refused_naming(named);
        run.tells_next_step();
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    };
    check(&["--to", "kafka=there"], "kafka=there");
    check(&["--to", "otlp=ftp://there"], "ftp://there");
    check(&["--to", "file="], "no receiver");
    check(
        &[
            "--to",
            "otlp=http://localhost",
            "--header",
            "authorization=hunter2",
        ],
        "authorization",
    );
    check(
        &[
            "--to",
            "otlp=http://localhost",
            "--header",
            "authorization=env:NOT_SET",
        ],
        "NOT_SET",
    );
    check(
        &["--to", "file=x", "--name", "no good/name"],
        "no good/name",
    );
    let run = sandbox.run(["events", "drain", "--forget", "nobody"]);
    run.is_refused_naming("nobody");
    run.tells_next_step();
}

#[test]
fn a_header_from_a_file_is_sent_and_never_shown() {
    let sandbox = Sandbox::new();
    append(&sandbox, 1);
    let token = sandbox.file("token", "Bearer hunter2\n");
    let peer = Peer::new(|_| Answer::Status(403, vec![]));
    let header = format!("authorization=file:{}", token.display());
    let to = format!("otlp={}", peer.url());
    let run = sandbox.run([
        "events",
        "drain",
        "--once",
        "--verbose",
        "--to",
        &to,
        "--header",
        &header,
    ]);
    assert_eq!(run.code, 3);
    assert_eq!(
        peer.requests()[0].header("authorization"),
        Some("Bearer hunter2")
    );
    assert!(!run.stderr.contains("hunter2") && !run.stdout.contains("hunter2"));
}

#[test]
fn a_drain_that_is_forgotten_begins_anew() {
    let sandbox = Sandbox::new();
    append(&sandbox, 3);
    let peer = Peer::new(|_| Answer::Accept);
    let to = format!("otlp={}", peer.url());
    let once = ["events", "drain", "--once", "--name", "mine", "--to", &to];
    assert_eq!(sandbox.run(once).code, 0);
    assert_eq!(sandbox.run(["events", "drain", "--forget", "mine"]).code, 0);
    assert_eq!(sandbox.run(once).code, 0);
    assert_eq!(peer.taken().len(), 6);
}

fn config(sandbox: &Sandbox, text: &str) -> String {
    let file = sandbox.file("holdfast.toml", text);
    file.display().to_string()
}

/// Proves: EVT-4
#[test]
fn a_configured_drain_runs_in_the_server_and_shows_itself() {
    let sandbox = Sandbox::new();
    append(&sandbox, 50);
    let peer = Peer::new(|_| Answer::Accept);
    let file = config(
        &sandbox,
        &format!(
            "[[events.drain]]\nname = \"up\"\nto = \"otlp={}\"\nclasses = [\"error\"]\n\
             headers = {{ authorization = \"env:TOKEN\" }}\n",
            peer.url()
        ),
    );
    let server = Serving::start_with(
        &sandbox,
        &[
            "--config",
            &file,
            "events",
            "serve",
            "--listen",
            "127.0.0.1:0",
        ],
        &[("TOKEN", "Bearer hunter2")],
    );
    peer.wait_for_requests(1);
    assert_eq!(peer.taken().len(), 10);
    assert_eq!(
        peer.requests()[0].header("authorization"),
        Some("Bearer hunter2")
    );
    // Events that come later are drained, too.
    let line = b"{\"class\":\"error\",\"source\":\"robot\",\"body\":1}\n";
    assert_eq!(
        server
            .post("/api/v1/events", "application/x-ndjson", line)
            .status,
        200
    );
    peer.wait_for_requests(2);
    // Its own books follow the receiver's by a moment.
    let drained = (0..100_000).find_map(|_| {
        let reply = server.get("/api/v1/drains");
        let told: Value = serde_json::from_slice(&reply.body).unwrap();
        let is_done = told["drains"][0]["classes"][0]["accepted"] == 11;
        is_done.then(|| String::from_utf8(reply.body).unwrap())
    });
    let drained = drained.expect("the books follow");
    assert!(!drained.contains("hunter2"));
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    let line = "holdfast_drain_events_total{drain=\"up\",class=\"error\",outcome=\"accepted\"} 11";
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_drain_that_is_configured_wrongly_is_refused_before_anything_is_taken() {
    let check = |text: &str, named: &str| {
        let sandbox = Sandbox::new();
        let file = config(&sandbox, text);
        let run = sandbox.run([
            "--config",
            &file,
            "events",
            "serve",
            "--listen",
            "127.0.0.1:0",
        ]);
        run.is_refused_naming(named);
        run.tells_next_step();
    };
    check("[[events.drain]]\nto = \"kafka=there\"\n", "kafka=there");
    check(
        "[[events.drain]]\nto = \"file=a\"\nclasses = [\"fatal\"]\n",
        "fatal",
    );
    check(
        "[[events.drain]]\nto = \"file=a\"\nname = \"no good\"\n",
        "no good",
    );
    let twice = "[[events.drain]]\nname = \"one\"\nto = \"file=a\"\n";
    check(&[twice, twice].concat(), "one");
    check("[[events.drain]]\nto = \"file=a\"\nurl = \"b\"\n", "url");
}
