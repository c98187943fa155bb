//! Answers that are given again: never older than what was acknowledged, never another's.

use std::sync::atomic::{AtomicU64, Ordering};

use scan::judge::Outcome;
use serde_json::json;

use super::*;
use crate::beside::{self, Served};

/// What is kept, of the host `one` or of all hosts.
const KEPT: [&str; 3] = ["/api/v1/hosts/one", "/api/v1/hosts", "/api/v1/fleet"];

fn moved(place: &Place, site: &str) {
    let body = json!({ "address": "192.0.2.7", "site": site });
    let path = "/api/v1/hosts/one";
    place.tell(Role::Operator, "PUT", path, &body).must_be(200);
}

fn site_of_one(place: &Place) -> String {
    let shown = place.ask(Role::Viewer, "GET", KEPT[0]).must_be(200).json();
    shown["site"].as_str().unwrap().to_owned()
}

fn with_host(prepare: impl FnOnce(&Store) -> Store) -> Place {
    let place = Place::behind(prepare);
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"))
        .must_be(201);
    place
}

/// Proves: SVC-5
#[test]
fn what_was_changed_is_in_the_next_answer_however_often_it_was_asked_for_before() {
    let place = with_host(Store::clone);
    for number in 0..20 {
        let site = format!("site-{number}");
        moved(&place, &site);
        for _ in 0..3 {
            assert_eq!(site_of_one(&place), site);
            let all = place.ask(Role::Viewer, "GET", KEPT[1]).must_be(200).json();
            assert_eq!(all["hosts"][0]["site"], site);
        }
    }
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("two"))
        .must_be(201);
    let fleet = place.ask(Role::Viewer, "GET", KEPT[2]).must_be(200).json();
    assert_eq!(fleet["hosts"], 2);
}

/// While others write: nobody is shown less than what was acknowledged before they asked.
///
/// Proves: SVC-5
#[test]
fn no_answer_is_older_than_what_was_acknowledged_before_it_was_asked_for() {
    let place = with_host(Store::clone);
    moved(&place, "0");
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let before = acknowledged.load(Ordering::SeqCst);
                    let shown: u64 = site_of_one(&place).parse().unwrap();
                    assert!(shown >= before, "{shown} after {before}");
                    if before == 100 {
                        return;
                    }
                }
            });
        }
        for number in 1..=100 {
            moved(&place, &number.to_string());
            acknowledged.store(number, Ordering::SeqCst);
        }
    });
}

/// Of a store that others write to as well: another process on the same database.
///
/// Proves: SVC-5
#[test]
fn what_another_process_changed_is_in_the_next_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut theirs = None;
    let mut served = None;
    let place = with_host(|store| {
        theirs = Some(store.clone());
        served = Some(Served::start(dir.path(), store.clone()).unwrap());
        beside::reach(dir.path()).unwrap().unwrap()
    });
    let inventory = inventory::Inventory::new(theirs.unwrap()).unwrap();
    for number in 0..10 {
        assert_eq!(site_of_one(&place), site_of_one(&place));
        let mut host = inventory.get("one").unwrap().unwrap();
        host.site = format!("site-{number}");
        let mut transaction = inventory.store().begin().unwrap();
        let now = RealClock::new().now();
        inventory
            .update_in(&mut transaction, &host, now, "another")
            .unwrap();
        transaction.commit().unwrap();
        assert_eq!(site_of_one(&place), host.site);
    }
    drop(place);
    served.unwrap().stop();
}

/// Proves: SVC-3
#[test]
fn a_token_that_is_revoked_or_ends_gets_no_answer_that_is_there_already() {
    let place = with_host(Store::clone);
    let soon = RealClock::new().now().plus(Duration::from_millis(500));
    let ends = place.token("ends", Role::Admin, Scope::default(), Some(soon));
    let revoked = place.token("revoked", Role::Admin, Scope::default(), None);
    let ask = |token: &str| place.send(&Sent::new("GET", KEPT[0]).token(token));
    // Both are known, and nobody has to be looked up for what follows.
    for _ in 0..3 {
        ask(place.of(Role::Admin)).must_be(200);
        ask(&revoked).must_be(200);
    }
    place
        .ask(Role::Admin, "DELETE", "/api/v1/tokens/revoked")
        .must_be(200);
    // The very next: nobody else has made the server look before.
    ask(&revoked).must_be(401);
    ask(place.of(Role::Admin)).must_be(200);
    ask(&revoked).must_be(401);
    let clock = RealClock::new();
    while ask(&ends).status != 401 {
        assert!(clock.monotonic() < PATIENCE, "it is taken after its end");
    }
}

/// Proves: SVC-3
#[test]
fn a_token_of_some_hosts_gets_no_answer_that_was_made_for_another() {
    let place = with_host(Store::clone);
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("other"))
        .must_be(201);
    let token = |name: &str, host: &str| {
        let scope = Scope {
            hosts: [host.to_owned()].into(),
            ..Scope::default()
        };
        place.token(name, Role::Viewer, scope, None)
    };
    let (one, other) = (token("of-one", "one"), token("of-other", "other"));
    let ask = |token: &str, path: &str| place.send(&Sent::new("GET", path).token(token));
    let everything = place.of(Role::Viewer);
    for _ in 0..3 {
        for (token, hosts, status) in [(everything, 2, 200), (&one, 1, 200), (&other, 1, 404)] {
            ask(token, KEPT[0]).must_be(status);
            assert_eq!(ask(token, KEPT[1]).must_be(200).json()["total"], hosts);
            assert_eq!(ask(token, KEPT[2]).must_be(200).json()["hosts"], hosts);
        }
        assert_eq!(ask(&one, KEPT[1]).json()["hosts"][0]["host"], "one");
        assert_eq!(ask(&other, KEPT[1]).json()["hosts"][0]["host"], "other");
    }
}

/// Proves: SVC-5
#[test]
fn a_tag_lasts_as_long_as_the_state_while_the_moment_that_is_told_moves_on() {
    let place = with_host(Store::clone);
    let knowing = |path: &str, tag: &str| {
        let sent = Sent::new("GET", path).token(place.of(Role::Viewer));
        place.send(&sent.header("If-None-Match", tag))
    };
    let mut tags = Vec::new();
    for path in KEPT {
        let ask = || place.ask(Role::Viewer, "GET", path).must_be(200);
        let first = ask();
        let tag = first.header("etag").unwrap().to_owned();
        let clock = RealClock::new();
        // A page of hosts tells no moment.
        let tells_a_moment = path != KEPT[1];
        loop {
            let again = ask();
            assert_eq!(again.header("etag"), Some(&*tag), "{path}");
            if !tells_a_moment || first.json()["at"] != again.json()["at"] {
                break;
            }
            assert!(clock.monotonic() < PATIENCE, "{path} stands still");
        }
        assert!(knowing(path, &tag).must_be(304).body.is_empty());
        tags.push((path, tag));
    }
    moved(&place, "elsewhere");
    for (path, tag) in &tags {
        let changed = knowing(path, tag).must_be(200);
        assert_ne!(changed.header("etag"), Some(&**tag), "{path}");
    }
}

/// A moment ago is another one a moment later, though nothing was recorded in between: whoever knew the state
/// before a change was told for as long as nothing was committed that it still held. Where there is no
/// policy an answer holds for a second: the span is shorter.
///
/// Proves: SVC-5
#[test]
fn a_moment_counted_back_from_now_is_another_with_each_request() {
    let place = with_host(Store::clone);
    let clock = RealClock::new();
    let ask = |path: &str, known: &str| {
        let sent = Sent::new("GET", &format!("{path}?at=300ms")).token(place.of(Role::Viewer));
        place.send(&sent.header("If-None-Match", known))
    };
    let known = [KEPT[0], KEPT[1]].map(|path| {
        loop {
            let heard = ask(path, "");
            if heard.text().contains("berlin") {
                break (path, heard.header("etag").unwrap().to_owned());
            }
            assert!(clock.monotonic() < PATIENCE, "{path}: {}", heard.text());
        }
    });
    moved(&place, "elsewhere");
    let over = clock.now().plus(Duration::from_millis(301));
    for (path, _) in &known {
        ask(path, "").must_be(200);
    }
    while clock.now() < over {
        std::hint::spin_loop();
    }
    for (path, tag) in &known {
        let text = ask(path, tag).must_be(200).text();
        assert!(text.contains("elsewhere"), "{path}: {text}");
    }
}

/// What time alone changes: asked without a pause, no answer tells it of a moment at which it was over,
/// or over before it was, and whoever knows an answer from before is not told that it still holds.
fn ends_in_the_very_next_answer(place: &Place, ends: Timestamp, is_set: impl Fn(&Value) -> bool) {
    let clock = RealClock::new();
    let mut known = String::new();
    loop {
        let before = clock.now();
        let sent = Sent::new("GET", KEPT[0]).token(place.of(Role::Viewer));
        let heard = place.send(&sent.header("If-None-Match", &known));
        let after = clock.now();
        if heard.status == 304 {
            assert!(before < ends, "an answer from before is said to hold");
            continue;
        }
        let heard = heard.must_be(200);
        if !is_set(&heard.json()) {
            assert!(after >= ends, "ended before its time");
            return;
        }
        assert!(before < ends, "told after its end");
        heard.header("etag").unwrap().clone_into(&mut known);
        assert!(clock.monotonic() < PATIENCE, "it never ends");
    }
}

/// Sets something that ends soon: by `set`, which says whether it was taken before it was over. On a machine
/// that is so slow, later the next time.
fn ending_soon(mut set: impl FnMut(String) -> bool) -> Timestamp {
    let clock = RealClock::new();
    for millis in [700, 3_000, 10_000, 30_000] {
        let soon = clock.now().plus(Duration::from_millis(millis));
        let text = crate::moment::rfc3339(soon);
        // As it is written: to the millisecond.
        let soon = view::parse(&text, soon).unwrap();
        if set(text) {
            return soon;
        }
        assert!(clock.now() >= soon, "refused before it was over");
    }
    panic!("nothing is taken within half a minute");
}

/// Proves: SVC-5
#[test]
fn a_maintenance_that_ends_by_itself_ends_in_the_very_next_answer() {
    let place = with_host(Store::clone);
    let ends = ending_soon(|until| {
        let set = json!({ "scope": "host", "name": "one", "reason": "moving", "until": until });
        let told = place.tell(Role::Operator, "PUT", "/api/v1/maintenance", &set);
        told.status == 200
    });
    ends_in_the_very_next_answer(&place, ends, |host| host["maintenance"] == true);
    let all = place.ask(Role::Viewer, "GET", KEPT[1]).must_be(200).json();
    assert_eq!(all["hosts"][0]["maintenance"], false);
}

/// Proves: SVC-5
#[test]
fn a_waiver_that_ends_by_itself_ends_in_the_very_next_answer() {
    let place = with_host(Store::clone);
    let shared = place.shown.shared();
    let rule = shared.rules.all()[0].id.clone();
    changes::record(&shared.store, "one", &rule, Outcome::Fail);
    let ends = ending_soon(|expires| {
        let waiver = json!({
            "rule": rule, "target": "host", "name": "one", "owner": "Carla", "reason": "it must be",
            "expires": expires,
        });
        let added = place.tell(Role::Operator, "POST", "/api/v1/waivers", &waiver);
        let number = || added.json()["id"].as_u64().unwrap();
        added.status == 201 && {
            let path = format!("/api/v1/waivers/{}/approve", number());
            place.ask(Role::Admin, "POST", &path).status == 200
        }
    });
    ends_in_the_very_next_answer(&place, ends, |host| host["waived"] == 1);
}

/// Proves: SVC-5
#[test]
fn an_answer_is_packed_for_those_who_take_it_and_says_the_same() {
    let place = with_host(Store::clone);
    for name in ["two", "three", "four"] {
        place
            .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host(name))
            .must_be(201);
    }
    let ask = |encoding: &str, known: &str| {
        let sent = Sent::new("GET", KEPT[1]).token(place.of(Role::Viewer));
        let sent = sent.header("Accept-Encoding", encoding);
        place.send(&sent.header("If-None-Match", known))
    };
    let plain = ask("identity", "").must_be(200);
    for (encoding, is_packed) in [
        ("gzip", true),
        ("GZIP;q=0.5, br", true),
        ("br, gzip", true),
        ("gzip;q=0", false),
        ("br", false),
        ("", false),
        ("x-gzip-not", false),
    ] {
        for _ in 0..2 {
            let heard = ask(encoding, "").must_be(200);
            assert_eq!(heard.header("vary"), Some("accept-encoding"));
            let told = heard.header("content-encoding");
            assert_eq!(told == Some("gzip"), is_packed, "{encoding}");
            let mut body = Vec::new();
            match is_packed {
                true => {
                    let mut unpacked = flate2::read::GzDecoder::new(heard.body.as_slice());
                    unpacked.read_to_end(&mut body).unwrap();
                }
                false => body.clone_from(&heard.body),
            }
            assert_eq!(body, plain.body, "{encoding}");
        }
    }
    // What is known is known in the form in which it was sent.
    let packed = ask("gzip", "");
    let (of_packed, of_plain) = (packed.header("etag"), plain.header("etag"));
    assert_ne!(of_packed, of_plain);
    let known = ask("gzip", of_packed.unwrap()).must_be(304);
    assert!(known.body.is_empty() && known.header("content-encoding").is_none());
}
