//! The console before somebody whose token is for a few hosts.

use scan::seal::{Error, Kind};

use super::*;

/// Signs in with a token; what the browser would send from then on.
pub(super) fn signed_in(place: &Place, token: &str) -> String {
    let form = format!("token={token}");
    let sent =
        Sent::new("POST", "/sign-in").body("application/x-www-form-urlencoded", form.as_bytes());
    let heard = place.send(&sent).must_be(303);
    let cookie = heard.header("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

pub(super) fn look(place: &Place, cookie: &str, path: &str) -> Heard {
    place.send(&Sent::new("GET", path).header("Cookie", cookie))
}

/// Proves: SVC-3
#[test]
fn a_token_of_one_host_is_shown_nothing_of_the_others() {
    let place = Place::new();
    let month = Duration::from_secs(30 * 86_400);
    let expires = crate::moment::rfc3339(place.shown.shared().now().plus(month));
    for name in ["mine", "secret-host"] {
        let host = serde_json::json!({ "name": name, "address": "192.0.2.7", "site": name });
        let added = place.tell(Role::Operator, "POST", "/api/v1/hosts", &host);
        added.must_be(201);
        let set = serde_json::json!({ "scope": "host", "name": name, "reason": format!("belongs to {name}") });
        let set = place.tell(Role::Operator, "PUT", "/api/v1/maintenance", &set);
        set.must_be(200);
        let scan = serde_json::json!({ "host": name });
        place.tell(Role::Operator, "POST", "/api/v1/scans", &scan);
        let rule = place.shown.shared().rules.all()[0].id.clone();
        let waiver = serde_json::json!({
            "rule": rule, "target": "host", "name": name, "owner": "Carla", "reason": "it must be",
            "expires": expires,
        });
        let asked = place.tell(Role::Operator, "POST", "/api/v1/waivers", &waiver);
        asked.must_be(201);
    }
    let scope = Scope {
        hosts: ["mine".to_owned()].into(),
        ..Scope::default()
    };
    let token = place.token("of-one", Role::Admin, scope, None);
    let cookie = signed_in(&place, &token);
    let evidence = format!("/evidence/{}", "0".repeat(64));
    for path in [
        "/audit",
        "/policy",
        &evidence,
        "/downloads/ledger",
        "/downloads/audit",
    ] {
        let heard = look(&place, &cookie, path).must_be(403);
        assert!(heard.text().contains("for some hosts only"), "{path}");
        let audit = place.ask(Role::Auditor, "GET", "/api/v1/audit?action=auth.denied");
        assert!(audit.text().contains("of-one"), "{path} is on record");
    }
    for path in [
        "/",
        "/admin",
        "/schedule",
        "/waivers",
        "/alerts",
        "/changes",
        "/rules",
    ] {
        let text = look(&place, &cookie, path).must_be(200).text();
        assert!(!text.contains("secret-host"), "{path}: {text}");
        assert!(
            !text.contains("auditor"),
            "{path} names other tokens: {text}"
        );
        assert!(!text.contains("href=\"/audit"), "{path}: {text}");
    }
    assert!(
        look(&place, &cookie, "/schedule")
            .text()
            .contains("belongs to mine")
    );
    assert!(look(&place, &cookie, "/waivers").text().contains("mine"));
    look(&place, &cookie, "/hosts/secret-host").must_be(404);
    // What is kept from one token is shown to the other, and the log tells of it.
    let everything = signed_in(&place, place.of(Role::Admin));
    for path in ["/admin", "/schedule", "/waivers", "/audit"] {
        let text = look(&place, &everything, path).must_be(200).text();
        assert!(text.contains("secret-host"), "{path}: {text}");
    }
    let denied = look(&place, &everything, "/audit?action=auth").text();
    assert!(denied.contains("token of-one"), "{denied}");
}

#[test]
fn a_form_that_is_too_large_is_refused_and_one_in_pieces_is_read() {
    let place = Place::new();
    let sent = Sent::new("POST", "/sign-in")
        .body("application/x-www-form-urlencoded", &vec![b'a'; 70_000]);
    place.send(&sent).must_be(413);
    let mut stream = place.connect();
    let body = format!("token={}", place.of(Role::Viewer));
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (first, rest) = body.as_bytes().split_at(9);
    for piece in [head.as_bytes(), first, rest] {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
    }
    Heard::read(&mut stream).must_be(303);
}

/// A name from before names were held to what is seen turned around the line that it stood in.
#[test]
fn a_name_that_would_turn_a_page_around_is_shown_by_its_numbers() {
    let place = Place::with(|store| {
        let ledger = scan::ledger::Ledger::new(store.clone()).unwrap();
        ledger
            .register("a\u{202e}b", Timestamp::from_nanos(1))
            .unwrap();
        let hosts = inventory::Inventory::new(store.clone()).unwrap();
        let host =
            inventory::Host::new("plain", inventory::Reach::Offline, Timestamp::from_nanos(1));
        hosts.add(&host, "test").unwrap();
        let table = store.table("inventory.host").unwrap();
        let mut work = store.begin().unwrap();
        let row = work.get(table, b"plain").unwrap().unwrap();
        let row = String::from_utf8(row.to_vec()).unwrap();
        let row = row.replace("plain", "a\u{202e}b");
        work.put(table, "a\u{202e}b".as_bytes(), row.as_bytes())
            .unwrap();
        work.commit().unwrap();
    });
    let cookie = signed_in(&place, place.of(Role::Admin));
    for path in ["/admin", "/", "/hosts/a%E2%80%AEb"] {
        let page = look(&place, &cookie, path).must_be(200).text();
        assert!(!page.contains('\u{202e}'), "{path}");
        assert!(page.contains("a\\u{202e}b"), "{path}");
    }
}

/// A token for some hosts sees one that came by its facts alone when that is among them.
/// Proves: SVC-3
#[test]
fn a_token_of_a_host_that_came_by_its_facts_sees_it() {
    let place = Place::with(|store| {
        let hosts = inventory::Inventory::new(store.clone()).unwrap();
        let at = Timestamp::from_nanos(1_768_464_000_000_000_000);
        for host in ["brought", "other"] {
            let scan = scan::ledger::Scan {
                id: uuid::Uuid::new_v4(),
                host: host.to_owned(),
                started: at,
                finished: at,
                summary: scan::judge::Summary::default(),
                findings: Vec::new(),
            };
            let brought = hosts.replay(&scan, "digest", "test", &scan::ledger::LogSink);
            brought.unwrap();
        }
    });
    let scope = Scope {
        hosts: ["brought".to_owned()].into(),
        ..Scope::default()
    };
    let token = place.token("of-one", Role::Viewer, scope, None);
    let ask = |path: &str| place.send(&Sent::new("GET", path).token(&token));
    let host = ask("/api/v1/hosts/brought").must_be(200).json();
    assert_eq!(host["added"], "2026-01-15T08:00:00.000Z");
    ask("/api/v1/hosts/other").must_be(404);
    assert_eq!(ask("/api/v1/fleet").must_be(200).json()["hosts"], 1);
}

/// What is for ever is asked twice; the first button of the two sends nothing.
#[test]
fn retiring_and_revoking_are_asked_again_before_they_are_done() {
    let place = Place::new();
    let host = serde_json::json!({ "name": "web-1", "address": "192.0.2.7" });
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &host)
        .must_be(201);
    let cookie = signed_in(&place, place.of(Role::Admin));
    let page = look(&place, &cookie, "/admin").must_be(200).text();
    for path in ["/admin/hosts/web-1/retire", "/admin/tokens/viewer/revoke"] {
        let form = page.find(&format!("action=\"{path}\"")).unwrap();
        let around = page[..form].rfind("<details class=\"sure\">").unwrap();
        assert!(!page[around..form].contains("</details>"), "{path}");
    }
    assert!(page.contains("Times are in"), "the zone is in sight");
}

/// Proves: LED-11
#[test]
fn a_file_is_called_by_what_it_holds_and_the_moment_that_it_is_of() {
    let place = Place::new();
    let host = serde_json::json!({ "name": "web/1", "address": "192.0.2.7" });
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &host)
        .must_be(201);
    let year = crate::moment::rfc3339(place.shown.shared().now())[..4].to_owned();
    let check = |path: &str, expected: &str| {
        let heard = place.ask(Role::Auditor, "GET", path).must_be(200);
        let called = heard.header("content-disposition").unwrap().to_owned();
        assert!(called.contains(expected), "{path}: {called}");
    };
    check("/api/v1/exports/csv", &format!("\"holdfast-all-{year}-"));
    let one = format!("\"holdfast-web-1-{year}-");
    check("/api/v1/exports/csv?host=web%2F1", &one);
    let cookie = signed_in(&place, place.of(Role::Auditor));
    let ledger = look(&place, &cookie, "/downloads/ledger").must_be(200);
    let called = ledger.header("content-disposition").unwrap();
    assert!(
        called.contains(&format!("\"holdfast-ledger-{year}-")),
        "{called}"
    );
}

/// Whoever writes a download has the store open: a node that is to open it again waited for all of a
/// history of any length, and gave up.
#[test]
fn a_download_ends_with_what_is_served_and_leaves_nothing() {
    let place = Place::new();
    let shared = Arc::clone(place.shown.shared());
    let downloads = shared.dir.join("downloads");
    let left = || RealDisk.list(&downloads).unwrap().len();
    crate::console::written(&shared, Kind::Ledger).unwrap();
    assert_eq!(left(), 0);
    // This test has it too, and is not waited for.
    assert!(!place.shown.end(Duration::ZERO));
    for kind in [Kind::Ledger, Kind::Audit] {
        let ended = crate::console::written(&shared, kind).unwrap_err();
        assert!(matches!(ended, Error::Stopped), "{ended}");
        assert_eq!(left(), 0);
    }
}

/// The count beside "Alerts" was of today on the page of every past moment, and the page that it leads to had
/// other ones.
///
/// Proves: SVC-6
#[test]
fn the_page_of_a_past_moment_counts_the_alerts_of_that_moment() {
    use scan::alert::{Condition, Evaluator, Kind as Alert};
    let place = Place::new();
    let cookie = signed_in(&place, place.of(Role::Viewer));
    let before = changes::passed(&place);
    let evaluator = Evaluator::new(&place.store, Arc::new(RealRandom), Vec::new()).unwrap();
    let wrong = Condition {
        kind: Alert::SealFailing,
        subject: Some("a".to_owned()),
        detail: Some("it cannot sign".to_owned()),
    };
    let now = place.shown.shared().now();
    evaluator.look(now, &[wrong]).unwrap();
    let count = |query: &str| {
        let page = look(&place, &cookie, &format!("/{query}")).must_be(200);
        page.text()
            .matches("<span class=\"unseen\"> open</span>")
            .count()
    };
    assert_eq!((count(""), count(&format!("?at={before}"))), (1, 0));
}
