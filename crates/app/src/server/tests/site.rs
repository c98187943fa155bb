//! What the operations do, and how they are asked again.

use serde_json::json;

use super::*;
use crate::server::openapi;

#[test]
fn the_document_of_the_interface_is_the_one_that_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let kept = RealDisk.read(Path::new(path), 8 << 20).unwrap_or_default();
    let made = openapi::document();
    assert!(
        kept == made.as_bytes(),
        "docs/openapi.json is not what the code makes; `holdfast openapi > docs/openapi.json` makes it again"
    );
}

/// Proves: SVC-5
#[test]
fn a_host_is_added_changed_and_retired_and_the_log_names_the_token() {
    let place = Place::new();
    let added = place.tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("web 1"));
    assert_eq!(added.header("location"), Some("/api/v1/hosts/web%201"));
    added.must_be(201);
    let shown = place
        .ask(Role::Viewer, "GET", "/api/v1/hosts/web%201")
        .must_be(200)
        .json();
    assert_eq!(shown["site"], "berlin");
    assert_eq!(shown["state"], "unknown");
    assert_eq!(shown["scan"], Value::Null);
    let new = json!({ "address": "192.0.2.8", "site": "paris" });
    place
        .tell(Role::Operator, "PUT", "/api/v1/hosts/web%201", &new)
        .must_be(200);
    let asked = json!({ "host": "web 1" });
    let scan = place
        .tell(Role::Operator, "POST", "/api/v1/scans", &asked)
        .must_be(202);
    assert_eq!(scan.header("location"), Some("/api/v1/hosts/web%201"));
    place
        .ask(Role::Operator, "DELETE", "/api/v1/hosts/web%201")
        .must_be(200);
    let again = place.tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("web 1"));
    assert_eq!(again.must_be(409).code(), "RETIRED");
    let audit = place
        .ask(Role::Auditor, "GET", "/api/v1/audit?action=host")
        .must_be(200)
        .json();
    let told: Vec<_> = audit["records"].as_array().unwrap().iter().collect();
    let actions: Vec<_> = told
        .iter()
        .map(|record| record["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["host.retired", "host.updated", "host.added"]);
    assert!(
        told.iter()
            .all(|record| record["actor"] == "token operator"),
        "{audit}"
    );
}

/// Proves: SVC-5
#[test]
fn what_is_asked_again_with_its_key_is_answered_again_and_done_once() {
    let place = Place::new();
    let send = |key: &str, body: &Value, role: Role| {
        let sent = Sent::new("POST", "/api/v1/hosts").token(place.of(role));
        place.send(&sent.header("Idempotency-Key", key).json(body))
    };
    let first = send("k1", &ssh_host("one"), Role::Operator).must_be(201);
    let again = send("k1", &ssh_host("one"), Role::Operator).must_be(201);
    assert_eq!(first.json(), again.json());
    let reused = send("k1", &ssh_host("two"), Role::Operator);
    assert_eq!(reused.must_be(422).code(), "KEY_REUSED");
    // Another token's key is another key.
    let other = send("k1", &ssh_host("one"), Role::Admin);
    assert_eq!(other.must_be(409).code(), "EXISTS");
    // What was refused is not remembered: mended, it may be sent again.
    send("k2", &ssh_host(""), Role::Operator).must_be(422);
    send("k2", &ssh_host("two"), Role::Operator).must_be(201);
    let audit = place
        .ask(Role::Auditor, "GET", "/api/v1/audit?action=host.added")
        .json();
    assert_eq!(audit["records"].as_array().unwrap().len(), 2, "{audit}");
}

/// Proves: SVC-5
#[test]
fn a_change_of_what_somebody_else_changed_meanwhile_is_refused() {
    let place = Place::new();
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"))
        .must_be(201);
    let read = place
        .ask(Role::Viewer, "GET", "/api/v1/hosts/one/entry")
        .must_be(200);
    let tag = read.header("etag").unwrap().to_owned();
    let change = |tag: &str, site: &str| {
        let body = json!({ "address": "192.0.2.7", "site": site });
        let sent = Sent::new("PUT", "/api/v1/hosts/one").token(place.of(Role::Operator));
        place.send(&sent.header("If-Match", tag).json(&body))
    };
    let changed = change(&tag, "paris").must_be(200);
    assert_eq!(change(&tag, "rome").must_be(412).code(), "CHANGED");
    change(changed.header("etag").unwrap(), "rome").must_be(200);
    change("*", "oslo").must_be(200);
    let gone = Sent::new("DELETE", "/api/v1/hosts/one").token(place.of(Role::Operator));
    place.send(&gone.header("If-Match", &tag)).must_be(412);
}

/// Proves: SVC-5
#[test]
fn what_is_known_is_not_sent_again() {
    let place = Place::new();
    let read = place.ask(Role::Viewer, "GET", "/api/v1/rules").must_be(200);
    let tag = read.header("etag").unwrap().to_owned();
    let sent = Sent::new("GET", "/api/v1/rules").token(place.of(Role::Viewer));
    let again = place
        .send(&sent.clone().header("If-None-Match", &tag))
        .must_be(304);
    assert!(again.body.is_empty());
    place
        .send(&sent.header("If-None-Match", "\"other\""))
        .must_be(200);
}

/// Proves: SVC-5
#[test]
fn pages_follow_each_other_without_a_gap_or_a_double() {
    let place = Place::new();
    for name in ["a", "b", "c", "d", "e"] {
        place
            .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host(name))
            .must_be(201);
    }
    let collect = |first: &str, list: &str, of: &dyn Fn(&Value) -> String| {
        let (mut all, mut path) = (Vec::new(), first.to_owned());
        loop {
            let page = place.ask(Role::Auditor, "GET", &path).must_be(200).json();
            all.extend(page[list].as_array().unwrap().iter().map(of));
            let Some(next) = page["next"].as_str() else {
                return all;
            };
            path = format!("{first}&cursor={next}");
        }
    };
    let hosts = collect("/api/v1/hosts?limit=2", "hosts", &|row| {
        row["host"].to_string()
    });
    assert_eq!(hosts, ["\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"e\""]);
    let audit = collect("/api/v1/audit?limit=2&action=host", "records", &|row| {
        row["object"].to_string()
    });
    assert_eq!(audit, ["\"e\"", "\"d\"", "\"c\"", "\"b\"", "\"a\""]);
}

#[test]
fn bodies_and_queries_hold_what_is_known_and_nothing_else() {
    let place = Place::new();
    let check = |method: &str, path: &str, body: &str, status: u16| {
        let sent = Sent::new(method, path).token(place.of(Role::Admin));
        let sent = match body {
            "" => sent,
            body => sent.body("application/json", body.as_bytes()),
        };
        let heard = place.send(&sent);
        assert_eq!(
            heard.status,
            status,
            "{method} {path} {body}: {}",
            heard.text()
        );
    };
    check(
        "POST",
        "/api/v1/hosts",
        r#"{"name":"a","address":"192.0.2.1","colour":"red"}"#,
        422,
    );
    check("POST", "/api/v1/hosts", r#"{"address":"192.0.2.1"}"#, 422);
    check("POST", "/api/v1/hosts", r#"{"name":"a""#, 400);
    check("POST", "/api/v1/hosts", "", 415);
    check(
        "POST",
        "/api/v1/hosts",
        r#"{"name":"a","address":"192.0.2.1","port":0}"#,
        422,
    );
    check("GET", "/api/v1/hosts?colour=red", "", 422);
    check("GET", "/api/v1/hosts?at=soon", "", 422);
    check("GET", "/api/v1/hosts?at=2999-01-01T00:00:00Z", "", 422);
    check("GET", "/api/v1/hosts?limit=-1", "", 422);
    check("GET", "/api/v1/whoami?x=1", "", 422);
    check("GET", "/api/v1/whoami", "{}", 400);
    check("PATCH", "/api/v1/whoami", "", 405);
    check("GET", "/api/v1/nothing", "", 404);
    check("GET", "/api/v1/hosts?at=2020-01-01T00:00:00Z", "", 200);
}

/// A credential is sealed; neither an answer nor a refusal nor the record shows it.
#[test]
fn a_credential_is_written_and_never_read_back() {
    let place = Place::new();
    let body = json!({ "user": "scan", "password": "correct horse", "sudo": "password" });
    let mut heard = vec![
        place
            .tell(Role::Admin, "POST", "/api/v1/credentials/one", &body)
            .must_be(201),
        place
            .tell(Role::Admin, "POST", "/api/v1/credentials/one", &body)
            .must_be(409),
        place
            .tell(Role::Admin, "PUT", "/api/v1/credentials/one", &body)
            .must_be(200),
        place
            .tell(Role::Admin, "PUT", "/api/v1/credentials/two", &body)
            .must_be(404),
    ];
    let wrong = r#"{"user":"scan","password":["correct horse"]}"#;
    let sent = Sent::new("PUT", "/api/v1/credentials/one").token(place.of(Role::Admin));
    heard.push(
        place
            .send(&sent.body("application/json", wrong.as_bytes()))
            .must_be(422),
    );
    heard.push(
        place
            .ask(Role::Operator, "GET", "/api/v1/credentials")
            .must_be(200),
    );
    heard.push(
        place
            .ask(Role::Auditor, "GET", "/api/v1/audit")
            .must_be(200),
    );
    heard.push(
        place
            .ask(Role::Admin, "DELETE", "/api/v1/credentials/one")
            .must_be(200),
    );
    for heard in heard {
        assert!(!heard.text().contains("correct horse"), "{}", heard.text());
    }
}

#[test]
fn a_waiver_is_asked_for_by_one_token_and_approved_by_another() {
    let place = Place::new();
    let rules = place.ask(Role::Viewer, "GET", "/api/v1/rules").json();
    let rule = rules["rules"][0]["rule"].as_str().unwrap();
    let expires =
        crate::moment::rfc3339(place.shown.shared().now().plus(Duration::from_secs(9999)));
    let body = json!({
        "rule": rule, "target": "group", "name": "web", "owner": "anna",
        "reason": "replaced in March", "expires": expires,
    });
    let made = place
        .tell(Role::Operator, "POST", "/api/v1/waivers", &body)
        .must_be(201);
    assert_eq!(made.json()["standing"], "requested");
    let approve = "/api/v1/waivers/1/approve";
    place.ask(Role::Operator, "POST", approve).must_be(422);
    let approved = place.ask(Role::Admin, "POST", approve).must_be(200);
    assert_eq!(approved.json()["standing"], "approved");
    let stale = Sent::new("POST", "/api/v1/waivers/1/revoke")
        .token(place.of(Role::Admin))
        .header("If-Match", made.header("etag").unwrap())
        .json(&json!({ "reason": "mended" }));
    place.send(&stale).must_be(412);
    let why = json!({ "reason": "mended" });
    place
        .tell(Role::Admin, "POST", "/api/v1/waivers/1/revoke", &why)
        .must_be(200);
    place.ask(Role::Admin, "POST", approve).must_be(409);
}

#[test]
fn metrics_tell_of_the_fleet_and_of_requests() {
    let place = Place::new();
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"))
        .must_be(201);
    let text = place
        .ask(Role::Viewer, "GET", "/metrics")
        .must_be(200)
        .text();
    for line in [
        "holdfast_hosts{state=\"unknown\"} 1",
        "holdfast_findings{severity=\"critical\"} 0",
        "holdfast_jobs_waiting 0",
        "holdfast_http_requests_total{operation=\"addHost\",status=\"201\"} 1",
        "holdfast_http_request_seconds_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn the_first_token_is_made_once_and_readable_by_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let keys = dir.path().join("keys");
    let path = first_token(&store, &keys).unwrap().unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = String::from_utf8(RealDisk.read(&path, 100).unwrap()).unwrap();
    let print = Print::of(text.trim_end()).unwrap();
    let token = Tokens::new(store.clone())
        .unwrap()
        .find(print)
        .unwrap()
        .unwrap();
    assert_eq!((token.name.as_str(), token.role), ("admin", Role::Admin));
    assert_eq!(first_token(&store, &keys).unwrap(), None);
}

/// What the console's page and `holdfast alert` do, and no more than a token may see.
/// Proves: LED-12
#[test]
fn alerts_are_listed_shown_and_dealt_with_and_only_by_whoever_may() {
    use scan::alert::{Condition, Evaluator, Kind};
    let place = Place::new();
    let evaluator = Evaluator::new(&place.store, Arc::new(RealRandom), Vec::new()).unwrap();
    let wrong = |subject: &str| Condition {
        kind: Kind::SealFailing,
        subject: Some(subject.to_owned()),
        detail: Some("it cannot sign".to_owned()),
    };
    let now = place.shown.shared().now();
    evaluator.look(now, &[wrong("a"), wrong("b")]).unwrap();

    let first = place
        .ask(Role::Viewer, "GET", "/api/v1/alerts?limit=1")
        .must_be(200)
        .json();
    assert_eq!(first["alerts"][0]["subject"], "b");
    let next = first["next"].as_str().unwrap();
    let second = format!("/api/v1/alerts?limit=1&cursor={next}");
    let second = place.ask(Role::Viewer, "GET", &second).must_be(200).json();
    assert_eq!(second["alerts"][0]["subject"], "a");
    assert!(second["next"].is_null());
    for wrong in ["kind=x", "minimum=x", "cursor=x", "limit=0", "y=1"] {
        let path = format!("/api/v1/alerts?{wrong}");
        place.ask(Role::Viewer, "GET", &path).must_be(422);
    }

    let id = first["alerts"][0]["id"].to_string();
    let deal = |role, what: &str, body: Value| {
        let path = format!("/api/v1/alerts/{id}/{what}");
        place.tell(role, "POST", &path, &body)
    };
    let reason = serde_json::json!({ "reason": "on it" });
    deal(Role::Viewer, "acknowledge", reason.clone()).must_be(403);
    let seen = deal(Role::Operator, "acknowledge", reason.clone()).must_be(200);
    assert_eq!(seen.json()["state"], "acknowledged");
    assert_eq!(seen.json()["acknowledged"]["why"], "on it");
    let until = crate::moment::rfc3339(now.plus(Duration::from_secs(3600)));
    let quiet = serde_json::json!({ "until": until });
    let silent = deal(Role::Operator, "silence", quiet).must_be(200).json();
    assert_eq!(silent["state"], "silenced");
    let ended = serde_json::json!({ "until": "2001-01-01T00:00:00Z" });
    deal(Role::Operator, "silence", ended).must_be(422);
    let over = deal(Role::Operator, "resolve", reason.clone()).must_be(200);
    assert_eq!(over.json()["state"], "resolved");
    deal(Role::Operator, "resolve", reason).must_be(422);
    let open = place.ask(Role::Viewer, "GET", "/api/v1/alerts").json();
    assert_eq!(open["alerts"].as_array().unwrap().len(), 1);
    let all = place
        .ask(Role::Viewer, "GET", "/api/v1/alerts?all=true")
        .json();
    assert_eq!(all["alerts"].as_array().unwrap().len(), 2);
    place
        .ask(Role::Viewer, "GET", "/api/v1/alerts/99")
        .must_be(404);
    let scope = Scope {
        hosts: ["x".to_owned()].into(),
        ..Scope::default()
    };
    let token = place.token("of-one", Role::Admin, scope, None);
    let path = format!("/api/v1/alerts/{id}");
    place
        .send(&Sent::new("GET", &path).token(&token))
        .must_be(404);
    let audit = place.ask(Role::Auditor, "GET", "/api/v1/audit?action=alert");
    for action in ["alert.acknowledged", "alert.silenced", "alert.resolved"] {
        assert!(audit.text().contains(action), "{}", audit.text());
    }
}

/// An auditor with a token and no shell notes a statement, and has the key to verify a copy by.
/// Proves: LED-10
#[test]
fn statements_and_every_scan_of_a_host_are_read_page_by_page() {
    use scan::{
        inventory::Inventory,
        judge::Summary,
        ledger::{LogSink, Scan},
        seal::{Book, Reason},
    };
    let place = Place::new();
    let hosts = Inventory::new(place.store.clone()).unwrap();
    let book = Book::new(place.store.clone()).unwrap();
    let keys = tempfile::tempdir().unwrap();
    let key = book.key(&RealDisk, keys.path(), &RealRandom).unwrap();
    for _ in 0..3 {
        let at = place.shown.shared().now();
        let scan = Scan {
            id: uuid::Uuid::new_v4(),
            host: "h".to_owned(),
            started: at,
            finished: at,
            summary: Summary::default(),
            findings: Vec::new(),
        };
        hosts.replay(&scan, "digest", "test", &LogSink).unwrap();
        book.seal(&key, &RealRandom, Reason::Asked, at).unwrap();
    }
    let ask = |path: &str| place.ask(Role::Auditor, "GET", path);
    let pages = |path: &str, list: &str| {
        let mut seen = Vec::new();
        let mut next = format!("{path}?limit=2");
        loop {
            let page = ask(&next).must_be(200).json();
            seen.extend(page[list].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(cursor) => next = format!("{path}?limit=2&cursor={cursor}"),
                None => return seen,
            }
        }
    };
    let statements = pages("/api/v1/ledger/statements", "statements");
    let sequences: Vec<_> = statements.iter().map(|it| &it["row"]["sequence"]).collect();
    assert_eq!(sequences, [3, 2, 1]);
    assert_eq!(statements[0]["row"]["previous"], statements[1]["digest"]);
    assert!(
        statements[0]["pem"]
            .as_str()
            .unwrap()
            .contains("PUBLIC KEY")
    );
    let one = ask("/api/v1/ledger/statements/2").must_be(200).json();
    assert_eq!(one, statements[1]);
    for missing in ["0", "4", "x"] {
        ask(&format!("/api/v1/ledger/statements/{missing}")).must_be(404);
    }
    let scans = pages("/api/v1/hosts/h/scans", "scans");
    assert_eq!(scans.len(), 3);
    assert!(scans[0]["finished"].as_str() >= scans[2]["finished"].as_str());
    ask("/api/v1/hosts/nobody/scans").must_be(404);
    ask("/api/v1/hosts/h/scans?cursor=x").must_be(422);
}
