//! All hosts in one answer, against what each host says of itself.

use super::*;

/// One step of a random life of a fleet.
#[derive(Clone, Debug)]
enum Event {
    Scan {
        host: usize,
        fact: usize,
        verdicts: Vec<Option<(Outcome, Severity)>>,
        /// How far the clock of the scan is behind, in milliseconds.
        behind: u64,
    },
    Retire(usize),
    Register(usize),
    /// The clock of the store is set back, in milliseconds.
    ClockBack(u64),
}

const HOSTS: [&str; 4] = ["a", "a.b", "b", "b-never"];

fn event() -> impl Strategy<Value = Event> {
    let severity = prop::sample::select(Severity::ALL.to_vec());
    let verdicts = prop::collection::vec(prop::option::weighted(0.8, (outcome(), severity)), 4);
    prop_oneof![
        8 => (0..3_usize, 0..FACTS.len(), verdicts, prop_oneof![Just(0), 0..50_u64]).prop_map(
            |(host, fact, verdicts, behind)| Event::Scan { host, fact, verdicts, behind }
        ),
        1 => (0..3_usize).prop_map(Event::Retire),
        1 => (0..HOSTS.len()).prop_map(Event::Register),
        1 => (1..40_u64).prop_map(Event::ClockBack),
    ]
}

fn scan_of(place: &Place, host: &str, fact: &str, verdicts: &[(&str, Outcome, Severity)]) -> Scan {
    let mut scan = place.scan(host, &[]);
    scan.summary = Summary::of(verdicts.iter().map(|(_, verdict, _)| *verdict));
    scan.findings = verdicts
        .iter()
        .map(|&(rule, verdict, severity)| Finding {
            severity,
            ..finding(rule, verdict, fact)
        })
        .collect();
    scan
}

/// The moments after each event, and all changes that the applies gave back, in their order.
fn live(
    place: &Place,
    ledger: &Ledger,
    events: &[Event],
) -> (Vec<Timestamp>, Vec<(String, Change)>) {
    let (mut moments, mut changes) = (vec![place.now()], Vec::new());
    let fleets = Fleets::default();
    for event in events {
        match event {
            Event::Scan {
                host,
                fact,
                verdicts,
                behind,
            } => {
                let judged: Vec<_> = RULES
                    .into_iter()
                    .zip(verdicts)
                    .filter_map(|(rule, judged)| {
                        judged.map(|(verdict, severity)| (rule, verdict, severity))
                    })
                    .collect();
                let mut scan = scan_of(place, HOSTS[*host], FACTS[*fact], &judged);
                scan.finished = Timestamp::from_nanos(scan.finished.nanos() - behind * 1_000_000);
                // A retired host takes none.
                if let Ok(applied) = ledger.apply(&scan, &Heard::default()) {
                    let named = applied.changes.into_iter();
                    changes.extend(named.map(|change| (scan.host.clone(), change)));
                }
            }
            Event::Retire(host) => drop(ledger.retire(HOSTS[*host], place.now())),
            Event::Register(host) => ledger.register(HOSTS[*host], place.now()).unwrap(),
            Event::ClockBack(millis) => {
                let set = |now: u64| Some(now.saturating_sub(millis * 1_000_000));
                let clock = &place.clock.0;
                clock
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, set)
                    .unwrap();
            }
        }
        moments.push(place.now());
        // What was read before is no older than what was just recorded.
        let (again, read) = (ledger.fleet_of_many(None, &fleets), ledger.fleet(None));
        assert_eq!(of_fleet(&again.unwrap()), of_fleet(&read.unwrap()));
    }
    (moments, changes)
}

type Rows = BTreeMap<String, (Outcome, Severity)>;
type Answer = BTreeMap<
    String,
    (
        Option<u64>,
        String,
        u64,
        Summary,
        Rows,
        BTreeMap<String, String>,
    ),
>;

fn of_each(ledger: &Ledger, at: Option<Timestamp>) -> Answer {
    let statuses = HOSTS
        .iter()
        .filter_map(|host| ledger.status(host, at).unwrap());
    statuses
        .map(|status| {
            let unassessed = status
                .states
                .iter()
                .filter(|state| matches!(state.verdict, Outcome::NotAssessed | Outcome::Error));
            let unassessed = unassessed
                .map(|state| (state.rule.clone(), state.reason.clone()))
                .collect();
            let rows = status.states.iter();
            let rows = rows
                .map(|state| (state.rule.clone(), (state.verdict, state.severity)))
                .collect();
            let (host, scan) = (status.host, status.scan);
            let answer = (
                host.retired,
                scan.scan_id,
                scan.finished,
                scan.summary,
                rows,
                unassessed,
            );
            (host.name, answer)
        })
        .collect()
}

fn of_fleet(fleet: &Fleet) -> Answer {
    let scanned = fleet
        .hosts
        .iter()
        .filter_map(|standing| Some((&standing.host, standing.assessed.as_ref()?)));
    scanned
        .map(|(host, assessed)| {
            let rows = assessed.verdicts();
            let rows = rows
                .map(|found| (found.rule.to_owned(), (found.verdict, found.severity)))
                .collect();
            let unassessed = assessed.unassessed();
            let unassessed = unassessed
                .map(|(found, reason)| (found.rule.to_owned(), reason.to_owned()))
                .collect();
            let (scan, finished) = (assessed.scan_id.clone(), assessed.finished.nanos());
            let summary = assessed.summary.clone();
            (
                host.name.clone(),
                (host.retired, scan, finished, summary, rows, unassessed),
            )
        })
        .collect()
}

fn compare(ledger: &Ledger, moments: &[Timestamp]) {
    let fleets = Fleets::default();
    for at in moments.iter().copied().map(Some).chain([None]) {
        // After a clock was set back, a moment of before may be one that is yet to come.
        if let Err(refused) = ledger.status(HOSTS[0], at) {
            assert_eq!(refused.class(), Class::OutOfRange);
            // The clock goes on with each look: for the second question it may have been.
            if let Err(refused) = ledger.fleet(at) {
                assert_eq!(refused.class(), Class::OutOfRange);
            }
            continue;
        }
        let fleet = ledger.fleet(at).unwrap();
        let each = of_each(ledger, at);
        assert_eq!(of_fleet(&fleet), each, "at {at:?}");
        for _ in 0..2 {
            let again = ledger.fleet_of_many(at, &fleets).unwrap();
            assert_eq!(of_fleet(&again), each, "again at {at:?}");
        }
        if let Some(at) = at {
            assert_eq!(ledger.summary(at).unwrap(), fleet.summary(), "at {at:?}");
            for standing in &fleet.hosts {
                let counted = ledger.summary_of(&standing.host.name, at).unwrap();
                let assessed = standing.assessed.as_ref();
                assert_eq!(counted, assessed.map(|found| found.summary.clone()));
            }
        }
        let watched = each.values().filter(|answer| answer.0.is_none());
        let all = watched
            .clone()
            .flat_map(|answer| answer.4.values().map(|row| row.0));
        assert_eq!(fleet.summary(), Summary::of(all), "at {at:?}");
        for rule in fleet.rules() {
            let verdicts: Vec<Outcome> = watched
                .clone()
                .filter_map(|answer| Some(answer.4.get(&rule.rule)?.0))
                .collect();
            let sum = Summary::of(verdicts);
            assert_eq!(
                (rule.pass, rule.fail, rule.error),
                (sum.pass, sum.fail, sum.error)
            );
        }
    }
}

/// Every change once, in the order in which it was recorded, from both ends and in pages of any length.
fn compare_changes(ledger: &Ledger, wanted: &[(String, Change)]) {
    let read = |filter: &Filter, order, limit| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = ledger
                .changes(filter, order, after.as_ref(), limit)
                .unwrap();
            assert!(page.rows.len() <= limit);
            found.extend(
                page.rows
                    .into_iter()
                    .map(|entry| (entry.host, entry.change)),
            );
            match page.next {
                None => return found,
                Some(next) => after = Some(next.to_string().parse().unwrap()),
            }
        }
    };
    // Of one scan they are in the order of their rules.
    let mut wanted = wanted.to_vec();
    wanted.dedup();
    for limit in [1, 3, 1000] {
        let mut found = read(&Filter::default(), Order::Ascending, limit);
        assert_eq!(found, wanted);
        found = read(&Filter::default(), Order::Descending, limit);
        found.reverse();
        assert_eq!(found, wanted);
        for host in HOSTS {
            let filter = Filter {
                host: Some(host.to_owned()),
                rule: Some("a-b".to_owned()),
                ..Filter::default()
            };
            let found = read(&filter, Order::Ascending, limit);
            let mut of_host = wanted.clone();
            of_host.retain(|(of, change)| of == host && change.rule == "a-b");
            assert_eq!(found, of_host);
            compare_history(ledger, host, "a-b", limit, &of_host);
            let mut seen = Vec::new();
            let mut scan = 0;
            loop {
                let more = ledger.changes_since(host, scan, limit).unwrap();
                let Some((last, _)) = more.last() else { break };
                scan = *last;
                seen.extend(more.into_iter().flat_map(|(_, changes)| changes));
            }
            let of_host = wanted.iter().filter(|(of, _)| of == host);
            let of_host: Vec<Change> = of_host.map(|(_, change)| change.clone()).collect();
            assert_eq!(seen, of_host);
        }
    }
}

/// The history of a rule, page by page, is what it is at once, each change with the cursor of the feed.
fn compare_history(
    ledger: &Ledger,
    host: &str,
    rule: &str,
    limit: usize,
    wanted: &[(String, Change)],
) {
    let filter = Filter {
        host: Some(host.to_owned()),
        rule: Some(rule.to_owned()),
        ..Filter::default()
    };
    let feed = ledger.changes(&filter, Order::Ascending, None, PAGE_MAX);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = ledger.history_page(host, rule, after.as_ref(), limit);
        let page = page.unwrap();
        assert!(page.rows.len() <= limit);
        found.extend(page.rows);
        match page.next {
            None => break,
            next => after = next,
        }
    }
    assert_eq!(found, feed.unwrap().rows);
    let changes: Vec<Change> = found.into_iter().map(|entry| entry.change).collect();
    assert_eq!(changes, ledger.history(host, rule).unwrap());
    assert!(changes.iter().eq(wanted.iter().map(|(_, change)| change)));
}

/// Of some hosts nothing of others, and when it was without reading any of it.
fn compare_recordings(ledger: &Ledger, wanted: &[(String, Change)]) {
    for names in [None, Some(vec![]), Some(vec!["a"]), Some(vec!["a.b", "b"])] {
        let hosts = names.map(|names| names.into_iter().map(str::to_owned));
        let hosts: Option<BTreeSet<String>> = hosts.map(Iterator::collect);
        let is_seen = |host: &String| hosts.as_ref().is_none_or(|hosts| hosts.contains(host));
        let mut seen = wanted.to_vec();
        seen.dedup();
        seen.retain(|(host, _)| is_seen(host));
        let filter = Filter {
            hosts: hosts.clone().map(Arc::new),
            ..Filter::default()
        };
        let page = ledger.changes(&filter, Order::Ascending, None, PAGE_MAX);
        let found = page.unwrap().rows.into_iter();
        let found: Vec<_> = found.map(|entry| (entry.host, entry.change)).collect();
        assert_eq!(found, seen, "of {hosts:?}");
        let newest_first = ledger.recordings(hosts.as_ref(), PAGE_MAX).unwrap();
        assert!(newest_first.is_sorted_by_key(|it| std::cmp::Reverse(it.at)));
        let sum: u64 = newest_first.iter().map(|it| it.changes).sum();
        assert_eq!(sum, seen.len() as u64, "of {hosts:?}");
        for limit in [1, 2, 3] {
            let some = ledger.recordings(hosts.as_ref(), limit).unwrap();
            assert_eq!(some, newest_first[..newest_first.len().min(limit)]);
        }
        let from = ledger.beginning(hosts.as_ref()).unwrap();
        let first = newest_first.last().map(|it| it.at);
        match hosts {
            None => assert_eq!(from, first),
            Some(_) => assert!(from.is_some() || first.is_none()),
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 10, failure_persistence: None, ..Config::default() })]

    /// Also of hosts that were retired, rules that left, severities that changed and clocks that were
    /// set back; before and after a checkpoint, and after the store was opened again.
    /// Proves: LED-7
    #[test]
    fn the_fleet_at_any_moment_is_what_each_host_says_of_itself(
        events in prop::collection::vec(event(), 1..14)
    ) {
        let place = Place::new();
        let (moments, changes) = {
            let (ledger, store) = place.open();
            let (moments, changes) = live(&place, &ledger, &events);
            compare(&ledger, &moments);
            compare_changes(&ledger, &changes);
            compare_recordings(&ledger, &changes);
            store.compact().unwrap();
            compare(&ledger, &moments);
            store.close().unwrap();
            (moments, changes)
        };
        let (ledger, _) = place.open();
        compare(&ledger, &moments);
        compare_changes(&ledger, &changes);
    }
}

/// Two rules trade their verdicts and trade them back: the counts are the same each time, and what the
/// third scan found is what the first one had found.
/// Proves: LED-2, LED-7
#[test]
fn verdicts_that_trade_places_are_changes_although_their_counts_stay() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let mut moments = vec![place.now()];
    let of = |verdicts: [Outcome; 2]| [("a", verdicts[0]), ("b", verdicts[1])];
    let one = of([Outcome::Pass, Outcome::Fail]);
    let other = of([Outcome::Fail, Outcome::Pass]);
    for (verdicts, changed) in [(one, 2), (other, 2), (one, 2), (one, 0), (other, 2)] {
        let scan = place.scan("a", &verdicts);
        let applied = ledger.apply(&scan, &Heard::default()).unwrap();
        assert_eq!(applied.changes.len(), changed, "{verdicts:?}");
        let found: Vec<Outcome> = states(&ledger, "a", None)
            .iter()
            .map(|state| state.verdict)
            .collect();
        assert_eq!(found, verdicts.map(|(_, verdict)| verdict));
        moments.push(place.now());
        compare(&ledger, &moments);
    }
    assert_eq!(ledger.history("a", "a").unwrap().len(), 4);
}

/// A data directory as it was written before there were boards and an index.
fn of_before() -> Place {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), &to).unwrap();
            }
        }
    }
    let place = Place::new();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/ledger-1");
    copy(fixture.as_ref(), place.dir.path());
    place.clock.0.store(1_000_000_000, Ordering::SeqCst);
    place
}

/// What the program of then said of each moment.
fn moments() -> Vec<(Timestamp, Vec<serde_json::Value>)> {
    let text = include_str!("../../../../../fixtures/ledger-1/moments.json");
    let moments: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
    moments
        .into_iter()
        .map(|moment| {
            let at = Timestamp::from_nanos(moment["at"].as_u64().unwrap());
            (at, moment["hosts"].as_array().unwrap().clone())
        })
        .collect()
}

fn as_then(fleet: &Fleet) -> Vec<serde_json::Value> {
    let mut scanned: Vec<_> = fleet
        .hosts
        .iter()
        .filter_map(|standing| Some((&standing.host, standing.assessed.as_ref()?)))
        .collect();
    // The order of then.
    scanned.sort_by_key(|(host, _)| std::cmp::Reverse(host.name.starts_with("web")));
    scanned
        .into_iter()
        .map(|(host, assessed)| {
            let rules: Vec<_> = assessed
                .verdicts()
                .map(|found| serde_json::json!([found.rule, found.verdict, found.severity]))
                .collect();
            serde_json::json!({
                "host": host.name, "retired": host.retired, "scan": assessed.scan_id,
                "summary": assessed.summary, "rules": rules,
            })
        })
        .collect()
}

fn compare_with_then(ledger: &Ledger) {
    for (at, mut wanted) in moments() {
        for host in &mut wanted {
            for rule in host["rules"].as_array_mut().unwrap() {
                rule.as_array_mut().unwrap().truncate(3);
            }
        }
        assert_eq!(as_then(&ledger.fleet(Some(at)).unwrap()), wanted, "{at:?}");
    }
}

/// Hosts that were judged by the same rules have one list of them between them, at each moment.
fn share_lists(ledger: &Ledger) {
    for (at, _) in moments() {
        let fleet = ledger.fleet(Some(at)).unwrap();
        let assessed = fleet.hosts.iter().filter_map(|it| it.assessed.as_ref());
        let of = |it: &Assessed| it.verdicts().map(|it| it.rule.to_owned()).collect();
        let lists: BTreeMap<Vec<String>, _> =
            assessed.clone().map(|it| (of(it), it.list())).collect();
        for assessed in assessed {
            assert_eq!(
                lists[&of(assessed)],
                assessed.list(),
                "hosts share their list"
            );
        }
    }
}

/// A directory from before there were boards: moments of then and of now, and one that is neither,
/// where some hosts have been scanned again and others not.
/// Proves: LED-7
#[test]
fn a_fleet_recorded_before_there_were_boards_is_answered_for_every_moment() {
    // A directory of this machine's, which no database has.
    if crate::test_store::is_elsewhere() {
        return;
    }
    let place = of_before();
    let (ledger, store) = place.open();
    compare_with_then(&ledger);
    share_lists(&ledger);
    let (_, last) = moments().pop().unwrap();
    let reasons = ledger.fleet(None).unwrap().unassessed();
    let reasons: Vec<_> = reasons
        .iter()
        .map(|found| {
            (
                found.rule.as_str(),
                found.reason.as_str(),
                found.hosts.clone(),
            )
        })
        .collect();
    assert_eq!(reasons, [("c", "os.id is z", vec!["db-1".to_owned()])]);

    let checked = ledger.check("web-1", "a").unwrap().unwrap();
    assert_eq!(checked.count, 3);
    let judged = [
        ("a", Outcome::Fail, Severity::Medium),
        ("e", Outcome::Pass, Severity::Low),
    ];
    ledger
        .apply(&scan_of(&place, "web-1", "x", &judged), &Heard::default())
        .unwrap();
    let checked = |rule| {
        ledger
            .check("web-1", rule)
            .unwrap()
            .map(|check| check.count)
    };
    assert_eq!(
        [checked("a"), checked("b"), checked("e")],
        [Some(4), None, Some(1)]
    );
    compare_with_then(&ledger);
    let fleet = ledger.fleet(None).unwrap();
    let standing = |name: &str| {
        let found = fleet
            .hosts
            .iter()
            .find(|standing| standing.host.name == name)
            .unwrap();
        found.assessed.clone().unwrap()
    };
    let rules: Vec<String> = standing("web-1")
        .verdicts()
        .map(|found| found.rule.to_owned())
        .collect();
    assert_eq!(rules, ["a", "e"]);
    let others = as_then(&fleet)
        .into_iter()
        .filter(|host| host["host"] != "web-1");
    let mut wanted = last;
    wanted.retain(|host| host["host"] != "web-1");
    assert_eq!(others.count(), wanted.len());

    store.close().unwrap();
    drop((ledger, store));
    let (ledger, _) = place.open();
    compare_with_then(&ledger);
}

/// Proves: LED-7
#[test]
fn changes_and_scans_recorded_before_there_was_an_index_are_listed_with_the_later_ones() {
    // A directory of this machine's, which no database has.
    if crate::test_store::is_elsewhere() {
        return;
    }
    let place = of_before();
    let (ledger, store) = place.open();
    let judged = [
        ("a", Outcome::Pass, Severity::Medium),
        ("b", Outcome::Pass, Severity::High),
    ];
    let later = scan_of(&place, "web-1", "x", &judged);
    // The index is whole whether it is asked for before or after a scan was added.
    ledger.apply(&later, &Heard::default()).unwrap();
    let page = ledger
        .changes(&Filter::default(), Order::Ascending, None, 1000)
        .unwrap();
    assert_eq!(page.next, None);
    let found: Vec<(String, String, u64)> = page
        .rows
        .iter()
        .map(|entry| {
            (
                entry.host.clone(),
                entry.change.rule.clone(),
                entry.change.occurred,
            )
        })
        .collect();
    let mut wanted = Vec::new();
    for host in ["db-1", "web-1", "web-2"] {
        for rule in ["a", "b", "c", "d"] {
            for change in ledger.history(host, rule).unwrap() {
                wanted.push((host.to_owned(), change.rule, change.occurred));
            }
        }
    }
    wanted.sort_by_key(|(host, rule, occurred)| (*occurred, host.clone(), rule.clone()));
    assert_eq!(found, wanted);
    assert_eq!(found.len(), 12);

    let page = ledger.scans("web-1", None, 3).unwrap();
    let rest = ledger.scans("web-1", page.next.as_ref(), 3).unwrap();
    let scans: Vec<ScanRow> = page.rows.into_iter().chain(rest.rows).collect();
    assert_eq!(scans.len(), 4);
    assert_eq!(scans[0].scan_id, later.id.to_string());
    assert!(scans.is_sorted_by_key(|scan| std::cmp::Reverse(scan.finished)));

    // Nothing is added twice.
    let before = everything(&ledger, "web-1");
    drop((ledger, store));
    let (ledger, _) = place.open();
    index::complete(&ledger.store, &ledger.tables).unwrap();
    assert_eq!(everything(&ledger, "web-1"), before);
}

#[test]
fn a_cursor_of_another_question_is_refused() {
    let place = Place::new();
    let (ledger, _) = place.open();
    for host in ["a", "b"] {
        ledger
            .apply(
                &place.scan(host, &[("a", Outcome::Pass)]),
                &Heard::default(),
            )
            .unwrap();
    }
    let page = ledger
        .changes(&Filter::default(), Order::Ascending, None, 1)
        .unwrap();
    let cursor = page.next.unwrap();
    let filter = Filter {
        host: Some("b".to_owned()),
        ..Filter::default()
    };
    let refused = ledger
        .changes(&filter, Order::Ascending, Some(&cursor), 1)
        .unwrap_err();
    assert_eq!(refused.class(), Class::Constraint);
    assert!(ledger.scans("a", Some(&cursor), 1).unwrap_err().class() == Class::Constraint);
    for text in ["", "x", "AAAA", "é", "AAAAAHA"] {
        let cursor = text.parse::<Cursor>();
        let refused =
            cursor.and_then(|cursor| ledger.changes(&filter, Order::Ascending, Some(&cursor), 1));
        assert_eq!(refused.unwrap_err().class(), Class::Constraint, "{text}");
    }
}

#[test]
fn moments_bound_the_changes_that_are_listed() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let mut scans = Vec::new();
    for verdict in [Outcome::Pass, Outcome::Fail, Outcome::Pass] {
        let scan = place.scan("h", &[("a", verdict)]);
        ledger.apply(&scan, &Heard::default()).unwrap();
        scans.push(scan.finished);
    }
    for (host, since, until, count) in [
        (None, None, None, 3),
        (None, Some(1), None, 2),
        (None, None, Some(1), 2),
        (None, Some(1), Some(1), 1),
        (Some("h"), Some(1), None, 2),
        (Some("h"), None, Some(0), 1),
        (Some("i"), None, None, 0),
    ] {
        let filter = Filter {
            host: host.map(str::to_owned),
            since: since.map(|index: usize| scans[index]),
            until: until.map(|index: usize| scans[index]),
            ..Filter::default()
        };
        for order in [Order::Ascending, Order::Descending] {
            let page = ledger.changes(&filter, order, None, 10).unwrap();
            assert_eq!(page.rows.len(), count, "{filter:?}");
        }
    }
}
