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

fn finding(rule: &str, severity: Severity, verdict: Outcome) -> Finding {
    let evidence = evidence(rule);
    Finding {
        rule: rule.to_owned(),
        severity,
        verdict,
        reason: "as the test wants it".to_owned(),
        rule_digest: "0".repeat(64),
        rule_definition: "0".repeat(64),
        variables: Default::default(),
        evidence_digest: scan::judge::digest(&evidence),
        evidence,
    }
}

fn record_all(store: &Store, host: &str, findings: Vec<Finding>) {
    record_at(store, host, findings, RealClock::new().now());
}

fn record_at(store: &Store, host: &str, findings: Vec<Finding>, now: Timestamp) {
    let scan = Scan {
        id: uuid::Uuid::new_v4(),
        host: host.to_owned(),
        started: now,
        finished: now,
        summary: Summary::of(findings.iter().map(|finding| finding.verdict)),
        findings,
    };
    let ledger = Ledger::new(store.clone()).unwrap();
    ledger.apply(&scan, &LogSink).unwrap();
}

/// A scan of a host that finds `verdict` for one rule.
pub(super) fn record(store: &Store, host: &str, rule: &str, verdict: Outcome) {
    record_all(store, host, vec![finding(rule, Severity::High, verdict)]);
}

/// A server of a site of these hosts.
fn watching(hosts: &[&str]) -> Place {
    let place = Place::new();
    for host in hosts {
        place
            .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host(host))
            .must_be(201);
    }
    place
}

/// Reads events of a stream until `wanted` have come. Not for as long as it lives: it says that it does.
fn events(stream: &mut TcpStream, wanted: usize) -> Vec<Value> {
    events_with_ids(stream, wanted)
        .into_iter()
        .map(|(_, change)| change)
        .collect()
}

fn events_with_ids(stream: &mut TcpStream, wanted: usize) -> Vec<(String, Value)> {
    let (clock, mut text) = (RealClock::new(), String::new());
    loop {
        assert!(
            clock.monotonic() < PATIENCE,
            "{wanted} did not come: {text}"
        );
        let found: Vec<(String, Value)> = text
            .split("\n\n")
            .filter(|event| event.contains("event: change"))
            .filter_map(|event| {
                let id = event.split("id: ").nth(1)?.lines().next()?;
                let json = event.split("data: ").nth(1)?.lines().next()?;
                Some((id.to_owned(), serde_json::from_str(json).ok()?))
            })
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
    follow_some(place, token, "", after)
}

fn follow_some(place: &Place, token: &str, query: &str, after: Option<&str>) -> TcpStream {
    let mut stream = place.connect();
    let path = format!("/api/v1/changes/stream{query}");
    let mut sent = Sent::new("GET", &path).token(token);
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
    let place = watching(&["one"]);
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

/// The clock of one machine of several that share a store is ahead, or an apply is under way while another is
/// recorded: a change stands before one that was told already. Whoever followed never heard of it, neither
/// at once nor after coming back.
///
/// Proves: LED-6
#[test]
fn a_change_that_stands_before_what_was_told_is_told_all_the_same() {
    let place = watching(&["ahead", "behind"]);
    let viewer = place.of(Role::Viewer).to_owned();
    let mut stream = follow(&place, &viewer, None);
    let later = RealClock::new().now().plus(Duration::from_secs(600));
    let found = ["p", "q"].map(|rule| finding(rule, Severity::High, Outcome::Fail));
    record_at(&place.store, "ahead", found.into(), later);
    let first = events_with_ids(&mut stream, 2);
    let hosts = |told: &[(String, Value)]| -> Vec<String> {
        let of = |(_, change): &(String, Value)| {
            format!("{} {}", change["host"], change["rule"]).replace('"', "")
        };
        told.iter().map(of).collect()
    };
    assert_eq!(hosts(&first), ["ahead p", "ahead q"]);
    record(&place.store, "behind", "r", Outcome::Fail);
    let second = events_with_ids(&mut stream, 1);
    assert_eq!(hosts(&second), ["behind r"]);
    drop(stream);
    record(&place.store, "behind", "r", Outcome::Pass);
    // From amid what was told together, and from its end: what is left, once, and what came since.
    let mut since = Vec::new();
    for (last, wanted) in [
        (&first[0], &["ahead q", "behind r", "behind r"][..]),
        (&first[1], &["behind r", "behind r"]),
        (&second[0], &["behind r"]),
    ] {
        let mut stream = follow(&place, &viewer, Some(&last.0));
        let rule = format!("z{}", since.len());
        record(&place.store, "ahead", &rule, Outcome::Pass);
        since.push(format!("ahead {rule}"));
        let told = events_with_ids(&mut stream, wanted.len() + since.len());
        let wanted = wanted
            .iter()
            .map(|it| (*it).to_owned())
            .chain(since.clone());
        assert_eq!(hosts(&told), wanted.collect::<Vec<_>>(), "after {}", last.0);
    }
}

/// Positions of another store, or what is none, are no reason to tell nothing or everything.
#[test]
fn an_id_with_positions_that_are_not_of_this_store_counts_as_its_place() {
    let place = watching(&["one"]);
    record(&place.store, "one", "r", Outcome::Pass);
    let viewer = place.of(Role::Viewer).to_owned();
    let page = place.ask(Role::Viewer, "GET", "/api/v1/changes").json();
    let cursor = page["changes"][0]["cursor"].as_str().unwrap().to_owned();
    record(&place.store, "one", "r", Outcome::Fail);
    for positions in ["99999998.99999999", "7.3", "x.y", "1"] {
        let id = format!("{positions}.{cursor}");
        let mut stream = follow(&place, &viewer, Some(&id));
        assert_eq!(events(&mut stream, 1)[0]["to"], "fail", "{id}");
    }
    for wrong in ["1.2.", "1.2.x", "..", "none"] {
        let sent = Sent::new("GET", "/api/v1/changes/stream").token(&viewer);
        let refused = place.send(&sent.header("Last-Event-ID", wrong));
        refused.must_be(422);
    }
}

/// Places of scans of a host, each with a change of `r` that nobody is shown: more than one look reads.
fn place_many(store: &Store, host: &str) {
    let index = store.table("ledger.index").unwrap();
    let begun = RealClock::new().now().nanos();
    for page in 0..5 {
        let mut transaction = store.begin().unwrap();
        for number in page * 5_000..(page + 1) * 5_000_u64 {
            let at = (begun + number).to_be_bytes();
            let scan = (1_000_000 + number).to_be_bytes();
            let key = [b"p", &at[..], host.as_bytes(), &[0], &scan].concat();
            transaction.put(index, &key, br#"["r"]"#).unwrap();
        }
        transaction.commit().unwrap();
    }
}

/// Whoever follows some hosts, or one rule, was told nothing more once others had brought 20,000 scans with
/// changes since, not even after coming back; and whoever began then was told the oldest change as news.
///
/// Proves: SVC-5
#[test]
fn whoever_follows_a_few_changes_among_many_is_told_each_and_no_old_one() {
    let place = watching(&["one", "other"]);
    record(&place.store, "one", "q", Outcome::Pass);
    let scope = Scope {
        hosts: ["one".to_owned()].into(),
        ..Scope::default()
    };
    let of_one = place.token("of-one", Role::Viewer, scope, None);
    let of_all = place.of(Role::Viewer).to_owned();
    let newest = Sent::new("GET", "/api/v1/changes").token(&of_one);
    let newest = place.send(&newest).must_be(200).json();
    let after = newest["changes"][0]["cursor"].as_str().unwrap();
    place_many(&place.store, "other");
    let mut streams: Vec<TcpStream> = Vec::new();
    for (token, query) in [(&of_one, ""), (&of_all, "?rule=q"), (&of_one, "?host=one")] {
        for after in [None, Some(after)] {
            streams.push(follow_some(&place, token, query, after));
        }
    }
    record(&place.store, "one", "q", Outcome::Fail);
    for (number, stream) in streams.iter_mut().enumerate() {
        let told = events(stream, 1);
        assert_eq!(told[0]["to"], "fail", "stream {number}: {told:?}");
        assert_eq!(told.len(), 1, "stream {number}: {told:?}");
    }
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

/// A moment that is over, later than whatever was recorded before: the text is of the millisecond, rounded.
/// What is recorded late counts from when it was recorded, not from the time of its scan.
pub(super) fn passed(place: &Place) -> String {
    let moment = place.shown.shared().now();
    let over = moment.plus(Duration::from_millis(3));
    std::iter::repeat_with(|| place.shown.shared().now())
        .find(|now| *now > over)
        .unwrap();
    crate::moment::rfc3339(moment).replace('Z', "999Z")
}

/// The state of a past day is what is answered for it, whatever came later.
#[test]
fn a_moment_is_answered_as_it_was() {
    let place = watching(&["one"]);
    record(&place.store, "one", "r", Outcome::Pass);
    let at = passed(&place);
    record(&place.store, "one", "r", Outcome::Fail);
    let state = |path: &str| {
        let shown = place.ask(Role::Viewer, "GET", path).must_be(200).json();
        shown["findings"][0]["verdict"].as_str().unwrap().to_owned()
    };
    let findings = "/api/v1/hosts/one/findings";
    assert_eq!(state(&format!("{findings}?at={at}")), "pass");
    assert_eq!(state(findings), "fail");
    let passing = |path: &str| {
        let shown = place.ask(Role::Viewer, "GET", path).must_be(200).json();
        shown["counts"]["pass"].as_u64().unwrap()
    };
    assert_eq!(passing(&format!("/api/v1/hosts/one?at={at}")), 1);
    assert_eq!(passing("/api/v1/hosts/one"), 0);
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

/// Each finding is on one page, by rule, now and at a moment; filters leave out what they say.
///
/// Proves: SVC-5
#[test]
fn findings_of_a_host_are_told_page_by_page() {
    let place = watching(&["one"]);
    let all = [
        ("e", Severity::Low, Outcome::Fail),
        ("b", Severity::High, Outcome::Pass),
        ("d", Severity::High, Outcome::Fail),
        ("a", Severity::Critical, Outcome::Error),
        ("c", Severity::Low, Outcome::NotAssessed),
    ];
    let all = all.map(|(rule, severity, verdict)| finding(rule, severity, verdict));
    record_all(&place.store, "one", all.into());
    let ask = |query: &str| {
        let path = format!("/api/v1/hosts/one/findings?{query}");
        place.ask(Role::Viewer, "GET", &path)
    };
    let rules = |query: &str| {
        let (mut seen, mut pages, mut cursor) = (String::new(), 0, String::new());
        loop {
            let page = ask(&format!("{query}&limit=2{cursor}")).must_be(200).json();
            for finding in page["findings"].as_array().unwrap() {
                seen.push_str(finding["rule"].as_str().unwrap());
            }
            pages += 1;
            let Some(next) = page["next"].as_str() else {
                return (seen, page["total"].as_u64().unwrap(), pages);
            };
            cursor = format!("&cursor={next}");
        }
    };
    let at = passed(&place);
    let check = |query: &str, wanted: &str, pages: u32| {
        let told = (wanted.to_owned(), wanted.len() as u64, pages);
        assert_eq!(rules(query), told, "{query}");
        assert_eq!(rules(&format!("{query}&at={at}")), told, "{query} at {at}");
    };
    check("severity=high&verdict=pass", "b", 1);
    check("verdict=fail", "de", 1);
    check("severity=low", "ce", 1);
    check("verdict=not_applicable", "", 1);
    let whole = rules("");
    assert_eq!(whole, ("abcde".to_owned(), 5, 3));
    // A rule that is not judged any more is no less a place to go on from.
    let after = ask("cursor=bb").must_be(200).json();
    assert_eq!(after["findings"][0]["rule"], "c");
    for wrong in [
        "verdict=good",
        "severity=none",
        "limit=0",
        "limit=1001",
        "limit=x",
        "color=red",
    ] {
        ask(wrong).must_be(422);
    }
    let one = place
        .ask(Role::Viewer, "GET", "/api/v1/hosts/one")
        .must_be(200)
        .json();
    assert!(
        one.get("findings").is_none() && one["counts"]["fail"] == 2,
        "{one}"
    );
}

/// A rule that flips with each scan has a thousand changes within days: of those beyond, the newest, nobody
/// who asked over HTTP was told anything, not even that there are more.
///
/// Proves: LED-7, SVC-5
#[test]
fn the_history_of_a_rule_is_told_to_its_end_page_by_page() {
    let place = watching(&["one"]);
    for flip in 0..7 {
        let [verdict, other] = match flip % 2 {
            0 => [Outcome::Pass, Outcome::Fail],
            _ => [Outcome::Fail, Outcome::Pass],
        };
        let findings = [("r", verdict), ("other", other)];
        let findings = findings.map(|(rule, it)| finding(rule, Severity::High, it));
        record_all(&place.store, "one", findings.into());
    }
    let path = "/api/v1/hosts/one/history/r";
    let ask = |query: &str| {
        let heard = place.ask(Role::Viewer, "GET", &format!("{path}{query}"));
        heard.must_be(200).json()
    };
    let feed = "/api/v1/changes?host=one&rule=r&order=oldest";
    let feed = place.ask(Role::Viewer, "GET", feed).must_be(200).json();
    let whole = ask("");
    assert_eq!(whole["changes"].as_array().unwrap().len(), 7);
    // Told as the feed does, with the places that it goes on from.
    assert_eq!(whole["changes"], feed["changes"]);
    assert!(whole["next"].is_null());
    for limit in [1, 2, 6, 7, 1000] {
        let (mut told, mut query) = (Vec::new(), format!("?limit={limit}"));
        loop {
            let page = ask(&query);
            let rows = page["changes"].as_array().unwrap();
            assert!((1..=limit).contains(&rows.len()), "{page}");
            told.extend_from_slice(rows);
            let Some(next) = page["next"].as_str() else {
                break;
            };
            query = format!("?limit={limit}&cursor={next}");
        }
        assert_eq!(Value::from(told), whole["changes"], "by {limit}");
    }
    let other = "/api/v1/hosts/one/history/other?cursor=x";
    place.ask(Role::Viewer, "GET", other).must_be(422);
    for path in [path, "/api/v1/changes", "/api/v1/hosts"] {
        for wrong in ["limit=0", "limit=1001", "limit=x"] {
            let path = format!("{path}?{wrong}");
            place.ask(Role::Viewer, "GET", &path).must_be(422);
        }
    }
}

/// Whoever may see some hosts was shown no change, no mark on the slider and an hour of history once others
/// had made the newest and the oldest 20,000 changes.
///
/// Proves: SVC-6
#[test]
fn changes_of_others_hide_none_from_a_token_of_some_hosts() {
    let place = watching(&["one", "other", "last"]);
    // What one scan can bring is bounded by a transaction.
    let many = |host: &str| {
        for verdict in [Outcome::Pass, Outcome::Fail, Outcome::Pass] {
            let rules = 0..7_000;
            let found = rules.map(|number| finding(&format!("r-{number}"), Severity::Low, verdict));
            record_all(&place.store, host, found.collect());
        }
    };
    let days_ago = RealClock::new().now().nanos() - 2 * 86_400 * 1_000_000_000;
    many("other");
    let found = vec![finding("r", Severity::High, Outcome::Pass)];
    record_at(&place.store, "one", found, Timestamp::from_nanos(days_ago));
    many("last");
    let scope = Scope {
        hosts: ["one".to_owned()].into(),
        ..Scope::default()
    };
    let token = place.token("of-one", Role::Viewer, scope, None);
    for order in ["newest", "oldest"] {
        let path = format!("/api/v1/changes?order={order}&limit=10");
        let heard = place.send(&Sent::new("GET", &path).token(&token));
        let page = heard.must_be(200).json();
        assert_eq!(page["changes"][0]["host"], "one", "{order} first");
        assert_eq!(page["changes"].as_array().unwrap().len(), 1);
        assert!(page["next"].is_null());
    }
    // Whoever sees everything looked just before.
    let of_all = console::signed_in(&place, place.of(Role::Viewer));
    console::look(&place, &of_all, "/").must_be(200);
    let cookie = console::signed_in(&place, &token);
    let text = console::look(&place, &cookie, "/").must_be(200).text();
    let slider = text.split("id=\"slider\"").nth(1).unwrap();
    let told = |name: &str| {
        let after = slider.split(&format!("{name}=\"")).nth(1).unwrap();
        after.split('"').next().unwrap().to_owned()
    };
    assert_eq!(told("data-marks").split(' ').count(), 1);
    let from: u64 = told("min").parse().unwrap();
    assert_eq!(from, days_ago / 1_000_000);
    assert!(text.contains("/hosts/one") && !text.contains("/hosts/other"));
}
