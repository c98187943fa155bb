//! `holdfast events append|tail|query|export`, without a server and beside one.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::{
    holdfast::{Run, Sandbox},
    serving::Serving,
};

/// Lines in, acknowledgements out.
fn append(sandbox: &Sandbox, lines: &str) -> Run {
    let mut child = sandbox
        .command(["events", "append", "--source", "test"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    Run::of(child.wait_with_output().unwrap())
}

fn json_lines(run: &Run) -> Vec<Value> {
    run.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn query(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let mut all = vec!["events", "query", "-o", "json"];
    all.extend(args);
    let run = sandbox.run(all);
    assert_eq!(run.code, 0, "{}", run.stderr);
    json_lines(&run)
}

fn bodies(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let found = query(sandbox, args);
    found.iter().map(|event| event["body"].clone()).collect()
}

/// The same, whoever has the log open.
fn check_everything(sandbox: &Sandbox) {
    let run = append(
        sandbox,
        "{\"body\":{\"b\":1.50,\"a\":null},\"class\":\"error\",\"time\":\"2026-01-01T00:00:00.000000001Z\"}\n\
         {\"body\":nonsense}\n\
         \n\
         {\"body\":2,\"producer_id\":\"p\"}\n\
         {\"body\":3,\"producer_id\":\"p\"}",
    );
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("line 2: line "), "{}", run.stderr);
    assert!(
        run.stderr.contains("1 of 5 lines were refused"),
        "{}",
        run.stderr
    );
    run.tells_next_step();
    let acks = json_lines(&run);
    let told: Vec<_> = acks
        .iter()
        .map(|ack| (&ack["lsn"], &ack["duplicate"]))
        .collect();
    let (no, yes) = (json!(false), json!(true));
    assert_eq!(
        told,
        [(&json!(1), &no), (&json!(2), &no), (&json!(2), &yes)]
    );

    let run = sandbox.run([
        "events",
        "append",
        "{\"disk\":\"sdb\"}",
        "--class",
        "action",
        "--id",
        "x",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(json_lines(&run)[0]["lsn"], 3);

    check_questions(sandbox, &acks[0]);
    check_export(sandbox);
}

fn check_questions(sandbox: &Sandbox, first_ack: &Value) {
    assert_eq!(bodies(sandbox, &[]).len(), 3);
    assert_eq!(
        bodies(sandbox, &["--class", "error"]),
        [json!({"b": 1.5, "a": null})]
    );
    assert_eq!(
        bodies(sandbox, &["--class", "error", "--class", "action"]).len(),
        2
    );
    assert_eq!(bodies(sandbox, &["--source", "test"]).len(), 2);
    assert_eq!(
        bodies(sandbox, &["--until", "2026-01-01T00:00:00.000000002Z"]).len(),
        1
    );
    assert_eq!(
        bodies(sandbox, &["--since", "2026-01-01T00:00:00.000000002Z"]).len(),
        2
    );
    assert_eq!(bodies(sandbox, &["--from", "3"]), [json!({"disk": "sdb"})]);
    assert_eq!(bodies(sandbox, &["--limit", "1"]).len(), 1);
    let first = &query(sandbox, &["--limit", "1"])[0];
    assert_eq!(first["id"], first_ack["id"]);
    assert_eq!(first["time"], "2026-01-01T00:00:00.000000001Z");

    let run = sandbox.run(["events", "tail", "-n", "2", "-o", "json"]);
    let newest: Vec<_> = json_lines(&run)
        .iter()
        .map(|event| event["body"].clone())
        .collect();
    assert_eq!(newest, [json!(2), json!({"disk": "sdb"})]);
    let run = sandbox.run(["events", "tail", "-n", "1"]);
    assert!(run.stdout.contains("action"), "{}", run.stdout);
    assert!(
        !run.stdout.contains('\u{1b}'),
        "colour belongs to terminals"
    );
}

fn check_export(sandbox: &Sandbox) {
    let file = sandbox.path("export.jsonl");
    let path = file.to_str().unwrap();
    let run = sandbox.run(["events", "export", path]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let exported = std::fs::read_to_string(&file).unwrap();
    assert_eq!(exported.lines().count(), 3);
    assert!(
        exported.contains(r#""body":{"b":1.50,"a":null}"#),
        "{exported}"
    );
    sandbox
        .run(["events", "export", path])
        .is_refused_naming("export.jsonl");
    let run = sandbox.run(["events", "export", path, "--force", "--class", "other"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
    let left: Vec<_> = std::fs::read_dir(file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Proves: EVT-8
#[test]
fn events_go_in_and_come_out_without_a_server() {
    check_everything(&Sandbox::new());
}

/// Proves: EVT-8
#[test]
fn events_go_in_and_come_out_beside_a_server() {
    let sandbox = Sandbox::new();
    let _server = Serving::start(&sandbox);
    check_everything(&sandbox);
}

/// Follows until `count` events have come, then is interrupted.
fn follow(sandbox: &Sandbox) {
    sandbox.run(["events", "append", "0"]);
    let mut child = sandbox
        .command(["events", "tail", "-f", "-n", "1", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    for number in 0..3 {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["body"], number);
        let run = sandbox.run(["events", "append", &(number + 1).to_string()]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn tail_follows_without_a_server_and_leaves_the_log_free_for_others() {
    follow(&Sandbox::new());
}

#[test]
fn tail_follows_beside_a_server() {
    let sandbox = Sandbox::new();
    let _server = Serving::start(&sandbox);
    follow(&sandbox);
}

/// The directory was deleted, or its disk was not mounted: a start made an empty journal in its place
/// and said nothing.
///
/// Proves: JRN-15
#[test]
fn events_that_are_gone_refuse_the_start_while_their_ids_are_there() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(["events", "append", "1"]).code, 0);
    let events = sandbox.data_dir().join("events");
    std::fs::rename(events.join("journal"), sandbox.path("aside")).unwrap();
    for args in [
        &["events", "append", "2"][..],
        &["events", "tail"],
        &["events", "serve", "--listen", "127.0.0.1:0"],
    ] {
        let run = sandbox.run(args);
        run.is_refused_naming("SAFE_POINT_MISSING");
        run.is_refused_naming("ids of events");
    }
    // The page's way out when the loss is accepted.
    std::fs::rename(events.join("ids"), sandbox.path("ids")).unwrap();
    assert_eq!(sandbox.run(["events", "append", "2"]).code, 0);
}

/// The JSON of the answer was shown as it came.
#[test]
fn a_refusal_of_the_server_is_told_in_words() {
    let sandbox = Sandbox::new();
    let _server = Serving::start(&sandbox);
    let run = sandbox.run(["events", "query", "--from", "0"]);
    run.is_refused_naming("410: ");
    assert!(!run.stderr.contains('{'), "{}", run.stderr);
}

#[test]
fn a_question_about_events_makes_nothing() {
    let sandbox = Sandbox::new();
    for args in [
        &["events", "tail"][..],
        &["events", "query"],
        &["events", "export", "/nowhere/at/all"],
    ] {
        let run = sandbox.run(args);
        run.is_refused_naming("data");
        run.tells_next_step();
    }
    assert!(!sandbox.data_dir().join("events").exists());
}

#[test]
fn what_cannot_be_an_event_is_refused_with_a_next_step() {
    let sandbox = Sandbox::new();
    for (args, named) in [
        (&["events", "append", "plain text"][..], "body"),
        (&["events", "append", "1", "--class", "fatal"], "class"),
        (
            &["events", "append", "1", "--time", "yesterday-ish"],
            "yesterday-ish",
        ),
        (&["events", "append", "1", "--source", ""], "source"),
        (&["events", "query", "--trace", "12"], "trace"),
    ] {
        let run = sandbox.run(args);
        run.is_refused_naming(named);
        run.tells_next_step();
    }
}

#[test]
fn what_a_producer_wrote_cannot_move_the_cursor_of_whoever_reads_it() {
    let sandbox = Sandbox::new();
    let source = "evil\u{1b}[2J";
    let run = sandbox.run(["events", "append", "\"\u{202e}x\"", "--source", source]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = sandbox.run(["events", "tail"]);
    assert!(
        !run.stdout.contains(['\u{1b}', '\u{202e}']),
        "{:?}",
        run.stdout
    );
    assert!(run.stdout.contains("evil\\u{1b}[2J"), "{:?}", run.stdout);
}
