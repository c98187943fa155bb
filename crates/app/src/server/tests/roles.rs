//! Every role against every route, from the one table that the router checks by (SVC-3).

use serde_json::json;

use super::*;
use crate::server::{api, openapi, operation::Reach};

/// A path with something in each of its places.
fn path(template: &str) -> String {
    template
        .split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// Proves: SVC-3
#[test]
fn each_role_may_do_what_the_table_says_and_nothing_else() {
    let place = Place::new();
    let everything: Value = serde_json::from_str(&openapi::document()).unwrap();
    let mut checked = 0;
    for (template, item) in everything["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            if id == "followChanges" {
                // Its answer has no end; who may follow is checked where it is followed.
                continue;
            }
            let least: Role = operation["x-role"].as_str().unwrap().parse().unwrap();
            let (method, path) = (method.to_uppercase(), path(template));
            for role in Role::ALL {
                let heard = place.ask(role, &method, &path);
                let is_refused = heard.status == 403;
                assert_eq!(is_refused, role < least, "{role} {id}: {}", heard.text());
                assert_ne!(heard.status, 401, "{role} {id}");
                if is_refused {
                    assert_eq!(heard.code(), "ROLE", "{role} {id}");
                }
                checked += 1;
            }
            let heard = place.send(&Sent::new(&method, &path));
            assert!(
                heard.status == 401 || heard.status == 429,
                "{id}: {}",
                heard.text()
            );
        }
    }
    // One more is followed.
    assert_eq!(checked, (api::operations().len() - 1) * Role::ALL.len());
}

/// A token of a few hosts gets at nothing that is about the site, and sees its hosts alone.
///
/// Proves: SVC-3
#[test]
fn a_scoped_token_sees_its_hosts_and_nothing_of_the_others() {
    let place = Place::new();
    for name in ["one", "other"] {
        place
            .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host(name))
            .must_be(201);
    }
    let scope = Scope {
        hosts: ["one".to_owned()].into(),
        ..Scope::default()
    };
    let token = place.token("scoped", Role::Admin, scope, None);
    let ask = |method: &str, path: &str| place.send(&Sent::new(method, path).token(&token));
    let hosts = ask("GET", "/api/v1/hosts").must_be(200).json();
    assert_eq!(hosts["total"], 1);
    assert_eq!(hosts["hosts"][0]["host"], "one");
    assert_eq!(ask("GET", "/api/v1/fleet").must_be(200).json()["hosts"], 1);
    for path in [
        "/api/v1/hosts/other",
        "/api/v1/hosts/other/findings",
        "/api/v1/hosts/other/entry",
        "/api/v1/hosts/other/history/x",
        "/api/v1/diff?host=other&from=2026-01-01T00:00:00Z",
        "/api/v1/changes?host=other",
        "/api/v1/changes/stream?host=other",
    ] {
        let hidden = ask("GET", path);
        assert_eq!(hidden.status, 404, "{path}: {}", hidden.text());
    }
    // Whether it exists is not told either.
    let hidden = ask("GET", "/api/v1/hosts/other").json();
    let absent = ask("GET", "/api/v1/hosts/nobody").json();
    assert_eq!(
        hidden["detail"]
            .as_str()
            .unwrap()
            .replace("other", "nobody"),
        absent["detail"].as_str().unwrap()
    );
    assert_eq!(ask("DELETE", "/api/v1/hosts/other").status, 404);
    let schedule = ask("GET", "/api/v1/schedule").must_be(200).json();
    assert_eq!(schedule["hosts"].as_array().unwrap().len(), 1);
    let new = place.send(
        &Sent::new("POST", "/api/v1/hosts")
            .token(&token)
            .json(&ssh_host("third")),
    );
    assert_eq!(new.must_be(403).code(), "SCOPE");
    for operation in api::operations() {
        if operation.reach == Reach::Site {
            let method = openapi::method(&operation.method).to_uppercase();
            let heard = ask(&method, &path(operation.path));
            assert_eq!(heard.must_be(403).code(), "SCOPE", "{}", operation.id);
        }
    }
}

/// Proves: SVC-3
#[test]
fn tokens_that_are_none_any_more_or_never_were_are_refused_and_slowed_down() {
    let place = Place::new();
    let expired = place.token(
        "expired",
        Role::Admin,
        Scope::default(),
        Some(Timestamp::from_nanos(2)),
    );
    let revoked = place.token("revoked", Role::Admin, Scope::default(), None);
    let with = |value: &str| {
        place.send(&Sent::new("GET", "/api/v1/whoami").header("Authorization", value))
    };
    with(&format!("Bearer {revoked}")).must_be(200);
    place
        .ask(Role::Admin, "DELETE", "/api/v1/tokens/revoked")
        .must_be(200);
    let good = place.of(Role::Viewer).to_owned();
    let cut = &good[..good.len() - 1];
    for value in [
        format!("Bearer {expired}"),
        format!("Bearer {revoked}"),
        format!("Bearer {cut}"),
        format!("Bearer {good}A"),
        format!("Basic {good}"),
        good.clone(),
        "Bearer".to_owned(),
        "Bearer hf_".to_owned(),
        "Bearer hf_' OR '1'='1".to_owned(),
        format!("Bearer {}", good.to_uppercase()),
    ] {
        let heard = with(&value);
        assert_eq!(heard.status, 401, "{value}: {}", heard.text());
        assert!(heard.header("www-authenticate").is_some());
        assert!(!heard.text().contains(&good[3..]), "{}", heard.text());
    }
    let twice = place.send(
        &Sent::new("GET", "/api/v1/whoami")
            .token(&good)
            .token(place.of(Role::Admin)),
    );
    twice.must_be(401);
    // A flood is slowed down, and whoever has a valid token on the same address is not.
    let mut last = with("Bearer hf_x");
    for _ in 0..30 {
        last = with("Bearer hf_x");
    }
    assert_eq!(last.status, 429, "{}", last.text());
    assert!(last.header("retry-after").is_some());
    with(&format!("Bearer {good}")).must_be(200);
}

/// Proves: SVC-3, SVC-4
#[test]
fn denials_are_on_record_without_what_was_tried() {
    let place = Place::new();
    place.send(&Sent::new("GET", "/api/v1/hosts").token("hf_secretguess"));
    place.ask(Role::Viewer, "GET", "/api/v1/audit").must_be(403);
    let audit = place
        .ask(Role::Auditor, "GET", "/api/v1/audit?action=auth")
        .must_be(200);
    let records = audit.json()["records"].clone();
    assert_eq!(records[0]["action"], "auth.denied", "{records}");
    assert_eq!(records[0]["object"], "127.0.0.1");
    assert!(!audit.text().contains("secretguess"));
}

#[test]
fn health_and_readiness_need_no_token_and_say_how_it_is() {
    let place = Place::new();
    place.send(&Sent::new("GET", "/health")).must_be(200);
    place.send(&Sent::new("GET", "/ready")).must_be(200);
    place.store.close().unwrap();
    place.send(&Sent::new("GET", "/health")).must_be(200);
    let heard = place.send(&Sent::new("GET", "/ready")).must_be(503);
    assert_eq!(heard.json()["status"], "not ready");
    let heard = place.ask(Role::Viewer, "GET", "/api/v1/fleet");
    assert_eq!(heard.status, 503, "{}", heard.text());
}

#[test]
fn a_token_is_made_shown_once_and_used_until_it_is_revoked() {
    let place = Place::new();
    let asked = json!({ "name": "ci", "role": "viewer", "scope": { "groups": ["web"] } });
    let sent = Sent::new("POST", "/api/v1/tokens")
        .token(place.of(Role::Admin))
        .header("Idempotency-Key", "k")
        .json(&asked);
    let made = place.send(&sent).must_be(201).json();
    let text = made["token"].as_str().unwrap().to_owned();
    // The same request again tells that it was done, and not the token.
    let again = place.send(&sent).must_be(409);
    assert_eq!(again.code(), "DONE_BEFORE");
    assert!(!again.text().contains(&text));
    let who = place
        .send(&Sent::new("GET", "/api/v1/whoami").token(&text))
        .must_be(200);
    assert_eq!(who.json()["name"], "ci");
    let list = place.ask(Role::Admin, "GET", "/api/v1/tokens").must_be(200);
    assert!(list.text().contains("\"ci\"") && !list.text().contains(&text));
    place
        .ask(Role::Admin, "DELETE", "/api/v1/tokens/ci")
        .must_be(200);
    place
        .send(&Sent::new("GET", "/api/v1/whoami").token(&text))
        .must_be(401);
}
