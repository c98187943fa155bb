//! What somebody is told who follows all changes.

use super::*;

/// Rules of all changes between two positions, page by page, as `host rule`.
fn told(ledger: &Ledger, told: &Heads, to: &Heads, filter: &Filter, limit: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None::<Cursor>);
    loop {
        let page = ledger.recorded_since(told, to, filter, after.as_ref(), limit);
        let page = page.unwrap();
        assert!(page.rows.len() <= limit);
        let rows = page.rows.iter();
        found.extend(rows.map(|it| format!("{} {}", it.host, it.change.rule)));
        let Some(next) = page.next else { return found };
        after = Some(next);
    }
}

const PASS: [(&str, Outcome); 2] = [("a", Outcome::Pass), ("b", Outcome::Pass)];

/// The place of an apply is taken when it begins: one that was under way while another was recorded came
/// before it in the feed, and whoever had been told of the other was never told of this one.
///
/// Proves: LED-6
#[test]
fn an_apply_that_ends_after_one_which_stands_behind_it_is_told_all_the_same() {
    let place = Place::new();
    let (ledger, _store) = place.open();
    let early = place.scan("early", &PASS);
    let late = place.scan("late", &PASS);
    let nothing = Heads::nothing();
    let mut between = None;
    let under_way = |_: &mut Transaction, _: &Applied| {
        // A conflict does not come of it, so that this is called once.
        ledger.apply(&late, &Heard::default()).unwrap();
        between = Some(ledger.heads().unwrap());
        Ok(())
    };
    ledger
        .apply_with(&early, &Heard::default(), under_way)
        .unwrap();
    let (between, newest) = (between.unwrap(), ledger.heads().unwrap());
    let feed = ledger.changes(&Filter::default(), Order::Ascending, None, 10);
    let feed: Vec<String> = feed.unwrap().rows.into_iter().map(|it| it.host).collect();
    assert_eq!(
        feed,
        ["early", "early", "late", "late"],
        "not what is tested"
    );
    // What comes later is of a later question.
    let later = PASS.map(|(rule, _)| (rule, Outcome::Fail));
    let later = place.scan("late", &later);
    ledger.apply(&later, &Heard::default()).unwrap();
    let of = |host: Option<&str>, hosts: Option<&str>, rule: Option<&str>| Filter {
        host: host.map(str::to_owned),
        hosts: hosts.map(|host| Arc::new([host.to_owned()].into())),
        rule: rule.map(str::to_owned),
        ..Filter::default()
    };
    for limit in [1, 2, 3, 1000] {
        let check = |from, to, filter: Filter, wanted: &[&str]| {
            let found = told(&ledger, from, to, &filter, limit);
            assert_eq!(found, wanted, "by {limit}, {filter:?}");
        };
        let all = of(None, None, None);
        check(&nothing, &between, all.clone(), &["late a", "late b"]);
        check(&between, &newest, all.clone(), &["early a", "early b"]);
        check(&newest, &newest, all.clone(), &[]);
        check(&between, &newest, of(None, None, Some("b")), &["early b"]);
        check(
            &between,
            &newest,
            of(Some("early"), None, Some("a")),
            &["early a"],
        );
        check(&between, &newest, of(Some("late"), None, None), &[]);
        check(&between, &newest, of(None, Some("late"), None), &[]);
        check(
            &nothing,
            &newest,
            of(None, Some("late"), None),
            &["late a", "late b"],
        );
        let whole = ["early a", "early b", "late a", "late b"];
        check(&nothing, &newest, all, &whole);
    }
    assert_eq!(ledger.heads_at(between.position()).unwrap(), Some(between));
    assert_eq!(ledger.heads_at(Lsn::new(u64::MAX >> 1)).unwrap(), None);
}

/// Scans without a change between those with one, and more of them than are asked for one by one.
///
/// Proves: LED-6
#[test]
fn what_comes_after_many_scans_without_a_change_is_told_and_nothing_twice() {
    let place = Place::new();
    let (ledger, _store) = place.open();
    let record = |host: &str, verdict| {
        let scan = place.scan(host, &[("a", verdict)]);
        ledger.apply(&scan, &Heard::default()).unwrap();
    };
    let hosts = ["one", "two"];
    for host in hosts {
        record(host, Outcome::Pass);
    }
    let (begun, mut heads, mut heard) = (ledger.heads().unwrap(), ledger.heads().unwrap(), 0);
    for round in 1..30 {
        let verdict = match round % 13 {
            0 => Outcome::Fail,
            _ => Outcome::Pass,
        };
        hosts.iter().for_each(|host| record(host, verdict));
        let newest = ledger.heads().unwrap();
        heard += told(&ledger, &heads, &newest, &Filter::default(), 3).len();
        heads = newest;
    }
    // Two that fail and two that pass again, of each host.
    assert_eq!(heard, 8);
    let whole = told(&ledger, &begun, &heads, &Filter::default(), 3);
    assert_eq!(whole.len(), 8);
}
