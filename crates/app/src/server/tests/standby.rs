//! What a node serves that stands by.

use scan::{inventory::Inventory, token::Role};
use serde_json::json;
use wal::Lsn;

use super::{
    console::{look, signed_in},
    *,
};
use crate::node::{self, Behind, Primary, Stand};

const PRIMARY: &str = "https://first.example.org:8420";

/// A node that follows `first` and is two records behind.
fn standing() -> Place {
    standing_as(node::Role::Standby)
}

/// The same node by the role that it has; in none does its store commit.
fn standing_as(role: node::Role) -> Place {
    let stand = Stand {
        node: "second".to_owned(),
        role,
        epoch: 3,
        primary: Some(Primary {
            name: "first".to_owned(),
            url: Some(PRIMARY.to_owned()),
        }),
        applied: Lsn::new(41),
        behind: Behind {
            records: 2,
            bytes: 300,
            time: Duration::from_millis(1_500),
        },
        newest: Timestamp::from_nanos(1_768_464_000_000_000_000),
    };
    Place::standing(Store::clone, Some(Arc::new(move || stand.clone())))
}

/// Proves: REP-17
#[test]
fn every_answer_of_a_node_that_stands_by_says_so_and_how_far_it_is() {
    let place = standing();
    for path in ["/api/v1/hosts", "/health", "/ready", "/sign-in", "/nowhere"] {
        let heard = place.ask(Role::Viewer, "GET", path);
        for (name, value) in [
            ("holdfast-role", "standby"),
            ("holdfast-applied", "41"),
            ("holdfast-lag-records", "2"),
            ("holdfast-lag-bytes", "300"),
            ("holdfast-lag-seconds", "1.500"),
            ("holdfast-primary", PRIMARY),
        ] {
            assert_eq!(heard.header(name), Some(value), "{path} {name}");
        }
    }
    let ready = place.ask(Role::Viewer, "GET", "/ready").must_be(200);
    assert_eq!(ready.json()["role"], "standby");
    place
        .ask(Role::Viewer, "GET", "/ready?role=standby")
        .must_be(200);
    place
        .ask(Role::Viewer, "GET", "/ready?role=primary")
        .must_be(503);
}

/// The authority is here, and too few other nodes have what is recorded, for as long as that lasts: whoever
/// sends what changes something to the node that writes was led here, and refused.
/// Proves: SVC-3
#[test]
fn a_node_that_is_to_write_and_cannot_yet_is_not_ready_as_the_one_that_writes() {
    let place = standing_as(node::Role::Primary);
    let ready = |query: &str| place.ask(Role::Viewer, "GET", &format!("/ready{query}"));
    let told = ready("?role=primary").must_be(503).json();
    assert_eq!(told["why"], "this node does not write yet");
    ready("?role=standby").must_be(503);
    // What is recorded can be read.
    ready("").must_be(200);
    let heard = place.tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"));
    assert_eq!(heard.must_be(503).code(), "ROLE_CHANGING");
    let cookie = signed_in(&place, place.of(Role::Admin));
    let page = look(&place, &cookie, "/admin").must_be(200).text();
    assert!(page.contains("second does not write yet"), "{page}");
    assert!(!page.contains("action=\"/admin"), "{page}");
}

/// Every operation that changes something, by the table that the router is made of.
/// Proves: AUT-11
#[test]
fn what_would_change_something_is_refused_and_told_where_it_may_be_done() {
    let place = standing();
    for operation in api::operations() {
        if !operation.changes_something() || operation.id == "carryOut" {
            continue;
        }
        let path = operation.path.replace(['{', '}'], "");
        let method = openapi::method(&operation.method).to_ascii_uppercase();
        let heard = place.tell(Role::Admin, &method, &path, &json!({}));
        assert_eq!(heard.status, 503, "{} {}", operation.id, heard.text());
        assert_eq!(heard.code(), "NOT_PRIMARY", "{}", operation.id);
        assert_eq!(heard.json()["primary"], PRIMARY);
        assert!(heard.header("retry-after").is_some());
    }
    let carried = json!({ "words": ["variable", "set", "shell-idle-timeout", "seconds", "600"] });
    let heard = place
        .tell(Role::Admin, "POST", "/api/v1/commands", &carried)
        .must_be(503);
    assert_eq!(heard.code(), "NOT_PRIMARY");
    assert_eq!(heard.json()["primary"], PRIMARY);
    let events = place
        .ask(Role::Viewer, "GET", "/api/v1/events")
        .must_be(503);
    assert_eq!(events.code(), "NOT_PRIMARY");
}

/// A token that opens nothing here is refused before anything is said of roles, and leaves no record:
/// the store is another node's to write.
#[test]
fn a_denial_at_a_node_that_stands_by_is_told_to_its_log_alone() {
    let place = standing();
    let before = place.store.newest().unwrap().lsn;
    for _ in 0..3 {
        let sent = Sent::new("POST", "/api/v1/hosts").token("hf_wrong");
        place.send(&sent.json(&ssh_host("one"))).must_be(401);
        place
            .tell(Role::Viewer, "POST", "/api/v1/hosts", &ssh_host("one"))
            .must_be(403);
    }
    place
        .ask(Role::Auditor, "GET", "/api/v1/audit")
        .must_be(200);
    assert!(place.server.stop(Some(place.shown)));
    assert_eq!(place.store.newest().unwrap().lsn, before);
}

/// Proves: REP-17
#[test]
fn a_read_waits_for_the_record_that_it_is_to_show() {
    let place = Place::new();
    let added = place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"))
        .must_be(201);
    let lsn: u64 = added.header("holdfast-lsn").unwrap().parse().unwrap();
    assert_eq!(lsn, place.store.newest().unwrap().lsn.get());
    let ask = |wanted: &str| {
        let sent = Sent::new("GET", "/api/v1/hosts").token(place.of(Role::Viewer));
        place.send(&sent.header("Holdfast-Wait-For", wanted))
    };
    ask(&lsn.to_string()).must_be(200);
    for wrong in ["soon", "-1", "1e3", "99999999999"] {
        assert_eq!(ask(wrong).must_be(422).code(), "INVALID", "{wrong}");
    }
    // That the token was used is on record by now.
    let newest = place.store.newest().unwrap().lsn;
    // The next commit comes while it waits.
    std::thread::scope(|scope| {
        let next = newest.next().to_string();
        let waiting = scope.spawn(|| ask(&{ next }).must_be(200));
        place
            .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("two"))
            .must_be(201);
        let text = waiting.join().unwrap().text();
        assert!(text.contains("two"), "{text}");
    });
    let late = ask("999999").must_be(504);
    assert_eq!(late.code(), "NOT_APPLIED");
    assert!(late.json()["applied"].as_u64().unwrap() > lsn);
}

/// Who asks is looked up when the request comes, and what it waits for may be that this is nobody any more.
/// Proves: SVC-3
#[test]
fn a_read_that_waited_for_the_end_of_its_own_token_shows_nothing() {
    let place = Place::new();
    let token = place.token("ends", Role::Viewer, Scope::default(), None);
    let ask = |wanted: u64| {
        let sent = Sent::new("GET", "/api/v1/hosts").token(&token);
        place.send(&sent.header("Holdfast-Wait-For", &wanted.to_string()))
    };
    // That all three tokens were used is on record by then.
    ask(0).must_be(200);
    place.ask(Role::Admin, "GET", "/api/v1/tokens").must_be(200);
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"))
        .must_be(201);
    // The token is known as it was before this.
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("two"))
        .must_be(201);
    let newest = place.store.newest().unwrap().lsn;
    let shared = place.shown.shared();
    let is_let_in = || auth::at_once(shared, &token, newest).is_some();
    assert!(!is_let_in());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(newest.next().get()).must_be(401));
        // It was looked up as one that is valid; only then does it end.
        let late = shared.now().plus(PATIENCE);
        while !is_let_in() {
            assert!(shared.now() < late, "the request does not come");
            std::thread::yield_now();
        }
        place
            .ask(Role::Admin, "DELETE", "/api/v1/tokens/ends")
            .must_be(200);
        waiting.join().unwrap();
    });
}

/// Whoever is connected stays so, and is told to ask again.
/// Proves: AUT-11
#[test]
fn between_two_roles_everybody_is_told_to_come_again() {
    let place = Place::new();
    let Place { server, shown, .. } = place;
    let address = place.address;
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&Sent::new("GET", path).bytes()).unwrap();
        Heard::read(&mut stream)
    };
    assert_eq!(ask("/ready").must_be(200).json()["role"], "alone");
    assert!(shown.end(PATIENCE));
    for path in ["/ready", "/", "/api/v1/hosts"] {
        let heard = ask(path).must_be(503);
        assert_eq!(heard.header("retry-after"), Some("1"), "{path}");
    }
    assert_eq!(ask("/api/v1/hosts").code(), "ROLE_CHANGING");
    ask("/health").must_be(200);
    // Nothing in there has the store any more: it can be opened again.
    let inventory = Inventory::new(place.store.clone()).unwrap();
    assert!(inventory.list(None).unwrap().is_empty());
    assert!(server.stop(None));
}

/// An auditor signs in and reads; what would change something is not offered, and refused with the way to
/// the node that writes.
/// Proves: REP-17
#[test]
fn an_auditor_reads_at_a_node_that_stands_by_and_every_page_says_what_it_is() {
    let place = standing();
    let sign_in = place.send(&Sent::new("GET", "/sign-in")).must_be(200);
    assert!(sign_in.text().contains("stands by"), "{}", sign_in.text());
    let cookie = signed_in(&place, place.of(Role::Auditor));
    for path in ["/", "/rules", "/audit", "/waivers", "/nowhere"] {
        let text = look(&place, &cookie, path).text();
        for said in [
            "second stands by",
            "first is the node that writes",
            &format!("href=\"{PRIMARY}{path}\""),
            "2 records, 300 bytes",
            "1.5 s before",
        ] {
            assert!(text.contains(said), "{path}: {said} in {text}");
        }
    }
    let admin = signed_in(&place, place.of(Role::Admin));
    let page = look(&place, &admin, "/admin").must_be(200).text();
    assert!(!page.contains("action=\"/admin"), "{page}");
    let form = page.split("name=\"form\" value=\"").nth(1).unwrap();
    let form = form.split('"').next().unwrap();
    let sent = Sent::new("POST", "/admin/hosts").header("Cookie", &admin);
    let sent = sent.body(
        "application/x-www-form-urlencoded",
        format!("form={form}&name=one").as_bytes(),
    );
    let refused = place.send(&sent).must_be(503).text();
    assert!(refused.contains("Nothing was done"), "{refused}");
    assert!(refused.contains(PRIMARY), "{refused}");
}
