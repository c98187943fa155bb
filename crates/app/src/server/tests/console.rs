//! The console before somebody whose token is for a few hosts.

use super::*;

/// Signs in with a token; what the browser would send from then on.
fn signed_in(place: &Place, token: &str) -> String {
    let form = format!("token={token}");
    let sent =
        Sent::new("POST", "/sign-in").body("application/x-www-form-urlencoded", form.as_bytes());
    let heard = place.send(&sent).must_be(303);
    let cookie = heard.header("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

fn look(place: &Place, cookie: &str, path: &str) -> Heard {
    place.send(&Sent::new("GET", path).header("Cookie", cookie))
}

/// Proves: SVC-3
#[test]
fn a_token_of_one_host_is_shown_nothing_of_the_others() {
    let place = Place::new();
    let month = Duration::from_secs(30 * 86_400);
    let expires = crate::moment::rfc3339(place.server.shared().now().plus(month));
    for name in ["mine", "secret-host"] {
        let host = serde_json::json!({ "name": name, "address": "192.0.2.7", "site": name });
        let added = place.tell(Role::Operator, "POST", "/api/v1/hosts", &host);
        added.must_be(201);
        let set = serde_json::json!({ "scope": "host", "name": name, "reason": format!("belongs to {name}") });
        let set = place.tell(Role::Operator, "PUT", "/api/v1/maintenance", &set);
        set.must_be(200);
        let scan = serde_json::json!({ "host": name });
        place.tell(Role::Operator, "POST", "/api/v1/scans", &scan);
        let rule = place.server.shared().rules.all()[0].id.clone();
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
    let sha256 = "0".repeat(64);
    let evidence = format!("/evidence/{sha256}");
    for path in [
        "/audit",
        "/policy",
        &evidence,
        "/downloads/ledger",
        "/downloads/audit",
    ] {
        let heard = look(&place, &cookie, path).must_be(403);
        assert!(heard.text().contains("for some hosts only"), "{path}");
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
