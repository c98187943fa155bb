//! Changes as they come.

use scan::{
    judge::{Outcome, Summary},
    ledger::{Finding, Ledger, LogSink, Scan},
    rule::Severity,
};

use super::*;

fn evidence(rule: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"facts":[{{"fact":"os.id","value":"debian"}}],"rule":"{rule}","schema":"holdfast.evidence/1"}}"#
    );
    text.into_bytes()
}

/// A scan of a host that finds `verdict` for one rule.
pub(super) fn record(store: &Store, host: &str, rule: &str, verdict: Outcome) {
    let evidence = evidence(rule);
    let finding = Finding {
        rule: rule.to_owned(),
        severity: Severity::High,
        verdict,
        reason: "as the test wants it".to_owned(),
        rule_digest: "0".repeat(64),
        rule_definition: "0".repeat(64),
        variables: Default::default(),
        evidence_digest: scan::judge::digest(&evidence),
        evidence,
    };
    let now = RealClock::new().now();
    let scan = Scan {
        id: uuid::Uuid::new_v4(),
        host: host.to_owned(),
        started: now,
        finished: now,
        summary: Summary::of([verdict]),
        findings: vec![finding],
    };
    let ledger = Ledger::new(store.clone()).unwrap();
    ledger.apply(&scan, &LogSink).unwrap();
}

/// Reads events of a stream until `wanted` have come.
fn events(stream: &mut TcpStream, wanted: usize) -> Vec<Value> {
    let mut text = String::new();
    loop {
        let found: Vec<Value> = text
            .split("\n\n")
            .filter(|event| event.contains("event: change"))
            .filter_map(|event| event.split("data: ").nth(1))
            .filter_map(|json| serde_json::from_str(json.lines().next()?).ok())
            .collect();
        if found.len() >= wanted {
            return found;
        }
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
}

fn follow(place: &Place, token: &str, after: Option<&str>) -> TcpStream {
    let mut stream = place.connect();
    let mut sent = Sent::new("GET", "/api/v1/changes/stream").token(token);
    if let Some(after) = after {
        sent = sent.header("Last-Event-ID", after);
    }
    stream.write_all(&sent.bytes()).unwrap();
    let mut begun = String::new();
    while !begun.contains("\r\n\r\n") {
        let mut bytes = [0; 1];
        stream.read_exact(&mut bytes).unwrap();
        begun.push(char::from(bytes[0]));
    }
    assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
    stream
}

/// Proves: SVC-5
#[test]
fn changes_are_told_as_they_come_and_gone_on_with_after_a_break() {
    let place = Place::new();
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"))
        .must_be(201);
    record(&place.store, "one", "r", Outcome::Pass);
    let viewer = place.of(Role::Viewer).to_owned();
    let mut stream = follow(&place, &viewer, None);
    record(&place.store, "one", "r", Outcome::Fail);
    let told = events(&mut stream, 1);
    assert_eq!(
        told[0]["to"], "fail",
        "what was there before is not told: {told:?}"
    );
    drop(stream);
    record(&place.store, "one", "r", Outcome::Pass);
    record(&place.store, "one", "r", Outcome::Fail);
    let last = told[0]["cursor"].as_str().unwrap();
    let mut stream = follow(&place, &viewer, Some(last));
    let told = events(&mut stream, 2);
    let verdicts: Vec<_> = told
        .iter()
        .map(|change| change["to"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["pass", "fail"]);
    // A stop ends streams too.
    assert!(place.server.stop(Some(place.shown)));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
}

#[test]
fn the_feed_of_a_scoped_token_holds_its_hosts_alone() {
    let place = Place::new();
    for host in ["one", "other"] {
        place
            .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host(host))
            .must_be(201);
        record(&place.store, host, "r", Outcome::Fail);
    }
    let scope = Scope {
        hosts: ["one".to_owned()].into(),
        ..Scope::default()
    };
    let token = place.token("scoped", Role::Viewer, scope, None);
    let sent = Sent::new("GET", "/api/v1/changes").token(&token);
    let page = place.send(&sent).must_be(200).json();
    assert_eq!(page["changes"].as_array().unwrap().len(), 1, "{page}");
    assert_eq!(page["changes"][0]["host"], "one");
}

/// The state of a past day is what is answered for it, whatever came later.
#[test]
fn a_moment_is_answered_as_it_was() {
    let place = Place::new();
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"))
        .must_be(201);
    record(&place.store, "one", "r", Outcome::Pass);
    // Not the time of the scan: one that is recorded late counts from when it was recorded. The text is
    // of the millisecond, rounded: two later, the moment is over in any case.
    let moment = place.shown.shared().now();
    let at = crate::moment::rfc3339(moment).replace('Z', "999Z");
    let over = moment.plus(Duration::from_millis(3));
    std::iter::repeat_with(|| place.shown.shared().now())
        .find(|now| *now > over)
        .unwrap();
    record(&place.store, "one", "r", Outcome::Fail);
    let state = |path: &str| {
        let shown = place.ask(Role::Viewer, "GET", path).must_be(200).json();
        shown["findings"][0]["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&format!("/api/v1/hosts/one?at={at}")), "pass");
    assert_eq!(state("/api/v1/hosts/one"), "fail");
    let fleet = place
        .ask(Role::Viewer, "GET", &format!("/api/v1/fleet?at={at}"))
        .must_be(200)
        .json();
    assert_eq!(fleet["counts"]["pass"], 1, "{fleet}");
    let digest = scan::judge::digest(&evidence("r"));
    place
        .ask(Role::Viewer, "GET", &format!("/api/v1/evidence/{digest}"))
        .must_be(200);
}
