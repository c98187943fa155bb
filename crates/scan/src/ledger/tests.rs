//! The ledger against its clauses, on a real store over a real journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::{prelude::*, test_runner::Config};
use store::{Options, Store};
use uuid::Uuid;
use world::{
    Clock, Disk, RealDisk, Timestamp,
    sim::{self, Call, Fault},
};

use super::*;
use crate::{
    judge::{Outcome, Summary, digest},
    rule::{Severity, Variables},
};

mod announced;
mod because;
mod chained;
mod followed;
mod places;
mod standing;

/// Time that moves by a millisecond at each look, so that every commit has a moment of its own.
#[derive(Debug, Default)]
struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(
            1_700_000_000_000_000_000 + self.0.fetch_add(1_000_000, Ordering::SeqCst),
        )
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: std::time::Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap();
        self.0.fetch_add(nanos, Ordering::SeqCst);
    }
}

/// Counts the failures that are told.
#[derive(Default)]
struct Heard {
    failed: Mutex<Vec<(Class, usize, Option<String>)>>,
}

impl Sink for Heard {
    fn failed(&self, scan: &Scan, error: &Error) {
        let rule = error.rule().map(str::to_owned);
        self.failed
            .lock()
            .unwrap()
            .push((error.class(), scan.findings.len(), rule));
    }
}

/// The rules of all changes that nobody was told of yet.
fn announced(ledger: &Ledger) -> Vec<String> {
    let mut rules = Vec::new();
    loop {
        let told = ledger.announce("t", Timestamp::default(), &mut |untold| {
            let changes = untold.iter().flat_map(|scan| &scan.changes);
            rules.extend(changes.map(|change| change.rule.clone()));
            Ok(())
        });
        if !told.unwrap().is_more {
            return rules;
        }
    }
}

struct Place {
    dir: tempfile::TempDir,
    clock: Arc<Steps>,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::default(),
        }
    }

    fn open(&self) -> (Ledger, Store) {
        let (options, journal) = self.parts(Arc::new(RealDisk));
        let store = crate::test_store::open(options, journal).unwrap();
        (Ledger::new(store.clone()).unwrap(), store)
    }

    /// The journal on a disk of its own; the tables are always on the real one.
    fn open_on(&self, disk: Arc<dyn Disk>) -> (Ledger, Store) {
        let (options, journal) = self.parts(disk);
        let (store, _) = Store::open(options, journal).unwrap();
        (Ledger::new(store.clone()).unwrap(), store)
    }

    fn parts(&self, disk: Arc<dyn Disk>) -> (Options, Arc<dyn wal::Journal>) {
        let mut journal = wal::Options::on_this_machine(self.dir.path().join("journal"));
        journal.disk = disk;
        let (journal, _) = wal::Local::open(journal).unwrap();
        let options = Options::new(
            self.dir.path().join("tables"),
            Arc::new(RealDisk),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Ledger::tables(),
        );
        (options, Arc::new(journal))
    }

    /// A moment after everything so far and before everything to come.
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn scan(&self, host: &str, verdicts: &[(&str, Outcome)]) -> Scan {
        let findings: Vec<Finding> = verdicts
            .iter()
            .map(|(rule, verdict)| finding(rule, *verdict, verdict.name()))
            .collect();
        Scan {
            id: Uuid::new_v4(),
            host: host.to_owned(),
            started: self.now(),
            finished: self.now(),
            summary: Summary::of(verdicts.iter().map(|(_, verdict)| *verdict)),
            findings,
        }
    }
}

fn finding(rule: &str, verdict: Outcome, fact: &str) -> Finding {
    let evidence = format!(
        r#"{{"facts":[{{"fact":"os.id","value":"{fact}"}}],"rule":"{rule}","schema":"holdfast.evidence/1"}}"#
    )
    .into_bytes();
    Finding {
        rule: rule.to_owned(),
        severity: Severity::Medium,
        verdict,
        reason: format!("os.id is {fact}"),
        rule_digest: "0".repeat(64),
        rule_definition: "0".repeat(64),
        variables: Variables::new(),
        evidence_digest: digest(&evidence),
        evidence,
    }
}

fn states(ledger: &Ledger, host: &str, at: Option<Timestamp>) -> Vec<State> {
    ledger
        .status(host, at)
        .unwrap()
        .map(|status| status.states)
        .unwrap_or_default()
}

/// Everything that is visible, to show that a refused or repeated apply left nothing.
fn everything(ledger: &Ledger, host: &str) -> String {
    let snapshot = ledger.store.snapshot().unwrap();
    let tables = ledger.tables;
    let changes = rows(&snapshot, tables.changes, &Keys::all()).unwrap();
    let checks = rows(&snapshot, tables.checks, &Keys::all()).unwrap();
    let scans = rows(&snapshot, tables.scans, &Keys::all()).unwrap();
    let evidence = rows(&snapshot, tables.evidence, &Keys::all()).unwrap();
    let standing = [tables.boards, tables.rules, tables.index]
        .map(|table| rows(&snapshot, table, &Keys::all()).unwrap());
    format!(
        "{:?} {:?} {changes:?} {checks:?} {scans:?} {evidence:?} {standing:?}",
        ledger.hosts().unwrap(),
        states(ledger, host, None)
    )
}

/// Proves: LED-1, LED-2, LED-6
#[test]
fn an_identical_rescan_writes_no_change_and_one_flip_writes_exactly_one() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let heard = Heard::default();
    let all_pass = [
        ("a", Outcome::Pass),
        ("b", Outcome::Pass),
        ("c", Outcome::Fail),
    ];

    let first = ledger.apply(&place.scan("h", &all_pass), &heard).unwrap();
    assert!(
        first
            .changes
            .iter()
            .all(|change| change.kind == ChangeKind::FirstSeen)
    );
    assert_eq!(first.changes.len(), 3);

    let again = ledger.apply(&place.scan("h", &all_pass), &heard).unwrap();
    assert_eq!(again.changes, []);
    for rule in ["a", "b", "c"] {
        assert_eq!(ledger.check("h", rule).unwrap().unwrap().count, 2, "{rule}");
    }

    let flip = [
        ("a", Outcome::Pass),
        ("b", Outcome::Fail),
        ("c", Outcome::Fail),
    ];
    let flipped = ledger.apply(&place.scan("h", &flip), &heard).unwrap();
    assert_eq!(flipped.changes.len(), 1);
    assert_eq!(
        (flipped.changes[0].from, flipped.changes[0].to),
        (Some(Outcome::Pass), Outcome::Fail)
    );
    assert_eq!(
        announced(&ledger),
        ["a", "b", "c", "b"],
        "one event a change row"
    );
    assert!(heard.failed.lock().unwrap().is_empty());
}

/// Proves: LED-1
#[test]
fn a_changed_severity_is_a_change_of_its_own_kind() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let mut scan = place.scan("h", &[("a", Outcome::Fail)]);
    ledger.apply(&scan, &Heard::default()).unwrap();
    let before = place.now();
    scan.id = Uuid::new_v4();
    scan.finished = place.now();
    scan.findings[0].severity = Severity::Critical;
    let applied = ledger.apply(&scan, &Heard::default()).unwrap();
    assert_eq!(applied.changes[0].kind, ChangeKind::SeverityChanged);
    assert_eq!(applied.changes[0].severity_before, Some(Severity::Medium));
    let differences = ledger.diff("h", before, place.now()).unwrap();
    assert_eq!(
        (differences[0].from, differences[0].to),
        (
            Some((Outcome::Fail, Severity::Medium)),
            Some((Outcome::Fail, Severity::Critical))
        )
    );
}

/// Proves: LED-1, LED-7
#[test]
fn a_state_tells_since_when_it_is_and_what_it_rests_on_at_present() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let scan = |fact: &str, verdict| {
        let mut scan = place.scan("h", &[("a", verdict)]);
        scan.findings = vec![finding("a", verdict, fact)];
        ledger.apply(&scan, &Heard::default()).unwrap();
        scan
    };
    let first = scan("x", Outcome::Pass);
    let flip = scan("x", Outcome::Fail);
    let other_reason = scan("y", Outcome::Fail);
    let state = &states(&ledger, "h", None)[0];
    assert_eq!(state.first_seen, first.finished.nanos());
    assert_eq!(state.changed, flip.finished.nanos());
    assert_eq!(state.reason, "os.id is y");
    assert_eq!(state.evidence, other_reason.findings[0].evidence_digest);
    assert_eq!(ledger.history("h", "a").unwrap().len(), 2);
}

/// Proves: LED-7
#[test]
fn a_past_moment_is_answered_by_the_scan_of_then() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let first = place.scan("h", &[("a", Outcome::Pass), ("b", Outcome::Pass)]);
    let applied = ledger.apply(&first, &Heard::default()).unwrap();
    assert_eq!(applied.previous, None);
    let then = place.now();
    let second = place.scan("h", &[("a", Outcome::Fail), ("b", Outcome::Pass)]);
    let applied = ledger.apply(&second, &Heard::default()).unwrap();
    assert_eq!(applied.previous, Some(first.finished));
    for (at, scan, changes) in [(Some(then), &first, 2), (None, &second, 1)] {
        let status = ledger.status("h", at).unwrap().unwrap();
        assert_eq!(status.scan.scan_id, scan.id.to_string());
        assert_eq!(status.scan.changes, changes);
        assert_eq!(status.scan.summary, scan.summary);
    }
    // Before this store was made.
    let long_ago = Timestamp::from_nanos(1);
    assert!(ledger.status("h", Some(long_ago)).unwrap().is_none());
    let since_ever = ledger.diff("h", long_ago, then).unwrap();
    let rules: Vec<&str> = since_ever.iter().map(|found| found.rule.as_str()).collect();
    assert_eq!(rules, ["a", "b"]);
    assert!(since_ever.iter().all(|found| found.from.is_none()));
}

/// The key of a change row was its time: after a clock was set back, the later change came first.
/// Proves: LED-7
#[test]
fn history_is_in_the_order_of_recording_although_the_clock_was_set_back() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let verdicts = [Outcome::Pass, Outcome::Fail, Outcome::Error, Outcome::Pass];
    for (verdict, finished) in verdicts.into_iter().zip([4, 3, 3, 1]) {
        let mut scan = place.scan("h", &[("a", verdict)]);
        scan.finished = Timestamp::from_nanos(finished);
        ledger.apply(&scan, &Heard::default()).unwrap();
    }
    let history = ledger.history("h", "a").unwrap();
    let found: Vec<Outcome> = history.iter().map(|change| change.to).collect();
    assert_eq!(found, verdicts);
}

#[test]
fn a_conflict_is_tried_again_a_bounded_number_of_times() {
    let conflict = || Error::new(Class::Conflict, "another was first");
    let mut attempts = 0;
    let lost: Result<(), Error> = apply::retried(|| {
        attempts += 1;
        Err(conflict())
    });
    assert_eq!(lost.unwrap_err().class(), Class::Conflict);
    assert_eq!(attempts, apply::ATTEMPTS_MAX);
    let mut left = 3;
    let won = apply::retried(|| {
        left -= 1;
        if left > 0 { Err(conflict()) } else { Ok(left) }
    });
    assert_eq!(won.unwrap(), 0);
}

/// Proves: LED-3
#[test]
fn a_scan_that_arrives_many_times_at_once_is_applied_once() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let heard = Heard::default();
    let scan = place.scan("h", &[("a", Outcome::Pass), ("b", Outcome::Fail)]);
    let replayed: Vec<bool> = std::thread::scope(|scope| {
        let (ledger, scan, heard) = (&ledger, &scan, &heard);
        let running: Vec<_> = (0..6)
            .map(|_| scope.spawn(move || ledger.apply(scan, heard).unwrap().replayed))
            .collect();
        running
            .into_iter()
            .map(|apply| apply.join().unwrap())
            .collect()
    });
    assert_eq!(replayed.iter().filter(|replayed| !**replayed).count(), 1);
    assert_eq!(announced(&ledger).len(), 2);
    assert_eq!(ledger.hosts().unwrap()[0].scans, 1);
    assert_eq!(ledger.check("h", "a").unwrap().unwrap().count, 1);
}

#[test]
fn fifty_hosts_at_once_all_get_their_scans_in() {
    let place = Place::new();
    let (ledger, _) = place.open();
    std::thread::scope(|scope| {
        for number in 0..50 {
            let (ledger, place) = (&ledger, &place);
            scope.spawn(move || {
                let scan = place.scan(&format!("h{number}"), &[("a", Outcome::Pass)]);
                ledger.apply(&scan, &Heard::default()).unwrap();
            });
        }
    });
    assert_eq!(ledger.hosts().unwrap().len(), 50);
}

#[test]
fn names_that_would_break_out_of_their_rows_are_refused() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let long = "x".repeat(256);
    for name in ["", "h\0a", "h\n", "\u{1b}[2J", long.as_str()] {
        let of_host = place.scan(name, &[("a", Outcome::Pass)]);
        let mut of_rule = place.scan("h", &[("a", Outcome::Pass)]);
        of_rule.findings = vec![finding(name, Outcome::Pass, "x")];
        for scan in [of_host, of_rule] {
            let refused = ledger.apply(&scan, &Heard::default()).unwrap_err();
            assert_eq!(refused.class(), Class::Constraint, "{name:?}");
        }
        ledger.register(name, place.now()).unwrap_err();
    }
    assert!(ledger.hosts().unwrap().is_empty());
}

/// Proves: LED-3
#[test]
fn a_replayed_scan_changes_nothing_at_all_even_when_it_changed_nothing_the_first_time() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let heard = Heard::default();
    let first = place.scan("h", &[("a", Outcome::Pass)]);
    let unchanged = place.scan("h", &[("a", Outcome::Pass)]);
    ledger.apply(&first, &heard).unwrap();
    ledger.apply(&unchanged, &heard).unwrap();
    let before = everything(&ledger, "h");
    for replay in [&unchanged, &first] {
        assert!(ledger.apply(replay, &heard).unwrap().replayed);
        assert_eq!(everything(&ledger, "h"), before);
    }
    assert_eq!(announced(&ledger).len(), 1);
}

/// Proves: LED-4, LED-6
#[test]
fn bad_evidence_refuses_the_whole_batch_and_names_the_rule() {
    let place = Place::new();
    let (ledger, _) = place.open();
    ledger
        .apply(&place.scan("h", &[("a", Outcome::Pass)]), &Heard::default())
        .unwrap();
    // Evidence that is there already, of another rule.
    ledger
        .apply(&place.scan("i", &[("b", Outcome::Fail)]), &Heard::default())
        .unwrap();
    let before = everything(&ledger, "h");
    let long = vec![b'x'; crate::judge::EVIDENCE_BYTES_MAX + 1];
    let of_another_rule = finding("b", Outcome::Pass, "x").evidence;
    let stored_for_another = finding("b", Outcome::Fail, "fail").evidence;
    let wrong: [(Vec<u8>, Option<String>, Class); 5] = [
        (long, None, Class::EvidenceOversize),
        (b"{}".to_vec(), None, Class::EvidenceInvalid),
        (of_another_rule, None, Class::EvidenceInvalid),
        (stored_for_another, None, Class::EvidenceInvalid),
        (
            finding("a", Outcome::Pass, "y").evidence,
            Some("0".repeat(64)),
            Class::EvidenceInvalid,
        ),
    ];
    assert_eq!(announced(&ledger).len(), 2);
    for (evidence, filed_under, class) in wrong {
        let heard = Heard::default();
        let mut scan = place.scan("h", &[("z", Outcome::Pass), ("a", Outcome::Fail)]);
        scan.findings[1].evidence_digest = filed_under.unwrap_or_else(|| digest(&evidence));
        scan.findings[1].evidence = evidence;
        ledger.apply(&scan, &heard).unwrap_err();
        let told = heard.failed.lock().unwrap().clone();
        assert_eq!(
            told,
            [(class, 2, Some("a".to_owned()))],
            "exactly one apply.failed"
        );
        assert!(announced(&ledger).is_empty());
        assert_eq!(everything(&ledger, "h"), before);
    }
}

/// Proves: LED-4
#[test]
fn equal_evidence_is_stored_once_and_comes_back_as_it_was() {
    let place = Place::new();
    let (ledger, store) = place.open();
    for _ in 0..3 {
        ledger
            .apply(&place.scan("h", &[("a", Outcome::Pass)]), &Heard::default())
            .unwrap();
        ledger
            .apply(&place.scan("i", &[("a", Outcome::Pass)]), &Heard::default())
            .unwrap();
    }
    let evidence = finding("a", Outcome::Pass, "pass");
    let found = ledger.evidence(&evidence.evidence_digest).unwrap();
    assert_eq!(found, Some(evidence.evidence));
    let kept = |store: &Store| {
        let table = store.table("ledger.evidence").unwrap();
        rows(&store.snapshot().unwrap(), table, &Keys::all()).unwrap()
    };
    assert_eq!(kept(&store).len(), 1);

    let mut scan = place.scan("h", &[("a", Outcome::Pass)]);
    scan.findings = vec![finding("a", Outcome::Pass, &"much the same ".repeat(1000))];
    ledger.apply(&scan, &Heard::default()).unwrap();
    let lengths: Vec<usize> = kept(&store)
        .iter()
        .map(|(_, packed)| packed.len())
        .collect();
    let (given, longest) = (scan.findings[0].evidence.len(), lengths.iter().max());
    assert!(*longest.unwrap() < given / 10, "{given}: {lengths:?}");
}

/// Proves: LED-5
#[test]
fn a_host_with_history_is_retired_and_never_deleted() {
    let place = Place::new();
    let (ledger, _) = place.open();
    ledger.register("unused", place.now()).unwrap();
    ledger.delete("unused").unwrap();
    ledger
        .apply(&place.scan("h", &[("a", Outcome::Pass)]), &Heard::default())
        .unwrap();
    let refused = ledger.delete("h").unwrap_err();
    assert_eq!(refused.class(), Class::Constraint);
    let retired = place.now();
    ledger.retire("h", retired).unwrap();
    ledger.retire("h", place.now()).unwrap();
    let host = &ledger.hosts().unwrap()[0];
    assert_eq!(host.retired, Some(retired.nanos()), "the first time stands");
    assert_eq!(ledger.history("h", "a").unwrap().len(), 1);
    let heard = Heard::default();
    let scan = place.scan("h", &[("a", Outcome::Fail)]);
    assert_eq!(
        ledger.apply(&scan, &heard).unwrap_err().class(),
        Class::Constraint
    );
    assert_eq!(states(&ledger, "h", None)[0].verdict, Outcome::Pass);
}

/// The disk refuses in the middle of an apply of many rules: by a failed write or a failed sync.
/// Proves: LED-1, LED-6
#[test]
fn an_apply_that_fails_in_the_middle_is_never_there_in_part_and_is_told_once() {
    for call in [Call::Write, Call::SyncData] {
        let place = Place::new();
        let disk = sim::Disk::new(7);
        let (ledger, store) = place.open_on(Arc::new(disk.clone()));
        ledger
            .apply(&place.scan("h", &[("a", Outcome::Pass)]), &Heard::default())
            .unwrap();
        let before = everything(&ledger, "h");

        let many: Vec<String> = (0..100).map(|number| format!("rule-{number:03}")).collect();
        let verdicts: Vec<(&str, Outcome)> = many
            .iter()
            .map(|rule| (rule.as_str(), Outcome::Fail))
            .collect();
        disk.inject(call, 1, Fault::Fail(std::io::ErrorKind::Other));
        let heard = Heard::default();
        ledger
            .apply(&place.scan("h", &verdicts), &heard)
            .unwrap_err();
        assert_eq!(disk.unmet_faults(), 0, "the fault was met");
        assert_eq!(*heard.failed.lock().unwrap(), [(Class::Storage, 100, None)]);

        drop((ledger, store));
        let (ledger, _) = place.open_on(Arc::new(disk.process_death()));
        let after = everything(&ledger, "h");
        // A failed sync leaves the outcome open: the batch may have reached the disk, and then it is
        // there as a whole. A replay of the scan id settles it either way.
        // The scan judges 100 rules and not the first one.
        let whole = states(&ledger, "h", None).len() == 100;
        assert!(
            after == before || (call == Call::SyncData && whole),
            "{call:?}: neither nor"
        );
        let hosts = ledger.hosts().unwrap();
        assert_eq!(hosts[0].scans, if whole { 2 } else { 1 }, "{call:?}");
    }
}

/// Proves: LED-1
#[test]
fn a_rule_named_twice_leaves_nothing() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let heard = Heard::default();
    let scan = place.scan(
        "h",
        &[
            ("a", Outcome::Pass),
            ("b", Outcome::Pass),
            ("a", Outcome::Fail),
        ],
    );
    assert_eq!(
        ledger.apply(&scan, &heard).unwrap_err().class(),
        Class::Constraint
    );
    assert!(ledger.hosts().unwrap().is_empty());
}

#[test]
fn a_rule_that_left_the_pack_stops_counting_and_its_past_stays() {
    let place = Place::new();
    let (ledger, _) = place.open();
    ledger
        .apply(
            &place.scan("h", &[("a", Outcome::Pass), ("b", Outcome::Fail)]),
            &Heard::default(),
        )
        .unwrap();
    let before = place.now();
    ledger
        .apply(&place.scan("h", &[("a", Outcome::Pass)]), &Heard::default())
        .unwrap();
    assert_eq!(states(&ledger, "h", None).len(), 1);
    assert_eq!(ledger.check("h", "b").unwrap(), None);
    assert_eq!(states(&ledger, "h", Some(before)).len(), 2);
    let diff = ledger.diff("h", before, place.now()).unwrap();
    assert_eq!((diff[0].rule.as_str(), diff[0].to), ("b", None));
}

/// Two scans of one host at once are one after the other; of different hosts, neither waits for ever.
#[test]
fn concurrent_applies_are_each_whole() {
    let place = Place::new();
    let (ledger, _) = place.open();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (ledger, place) = (&ledger, &place);
            scope.spawn(move || {
                let host = format!("h{}", number % 2);
                let scan = place.scan(&host, &[("a", Outcome::Pass), ("b", Outcome::Fail)]);
                ledger.apply(&scan, &Heard::default()).unwrap();
            });
        }
    });
    for host in ledger.hosts().unwrap() {
        assert_eq!(host.scans, 4);
        assert_eq!(ledger.check(&host.name, "a").unwrap().unwrap().count, 4);
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(Outcome::ALL.to_vec())
}

/// One step of a random life: which host, the fact that verdicts rest on, and each rule's verdict (`None`: not in the pack then).
type Step = (usize, usize, Vec<Option<Outcome>>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..HOSTS.len(),
        0..FACTS.len(),
        prop::collection::vec(prop::option::weighted(0.9, outcome()), 4),
    );
    prop::collection::vec(step, 1..12)
}

const HOSTS: [&str; 2] = ["h", "h.example"];
const FACTS: [&str; 2] = ["x", "y"];
const RULES: [&str; 4] = ["a", "a-b", "b", "c"];

type Snapshots = Vec<(Timestamp, BTreeMap<(usize, String), (Outcome, String)>)>;

fn live(place: &Place, ledger: &Ledger, steps: &[Step]) -> Snapshots {
    let mut model = BTreeMap::new();
    let mut taken = vec![(place.now(), model.clone())];
    for (host, fact, verdicts) in steps {
        let judged: Vec<(&str, Outcome)> = RULES
            .into_iter()
            .zip(verdicts)
            .filter_map(|(rule, verdict)| verdict.map(|verdict| (rule, verdict)))
            .collect();
        let mut scan = place.scan(HOSTS[*host], &judged);
        scan.findings = judged
            .iter()
            .map(|(rule, verdict)| finding(rule, *verdict, FACTS[*fact]))
            .collect();
        ledger.apply(&scan, &Heard::default()).unwrap();
        model.retain(|(of, _), _| of != host);
        for finding in &scan.findings {
            let row = (finding.verdict, finding.evidence_digest.clone());
            model.insert((*host, finding.rule.clone()), row);
        }
        taken.push((place.now(), model.clone()));
    }
    taken
}

fn compare(ledger: &Ledger, taken: &Snapshots) {
    for (at, model) in taken {
        for (index, host) in HOSTS.iter().enumerate() {
            let found: BTreeMap<String, (Outcome, String)> = states(ledger, host, Some(*at))
                .into_iter()
                .map(|state| (state.rule, (state.verdict, state.evidence)))
                .collect();
            let wanted: BTreeMap<String, (Outcome, String)> = model
                .iter()
                .filter(|((of, _), _)| of == &index)
                .map(|((_, rule), row)| (rule.clone(), row.clone()))
                .collect();
            assert_eq!(found, wanted, "{host} at {at:?}");
            for (_, evidence) in found.values() {
                assert!(ledger.evidence(evidence).unwrap().is_some());
            }
        }
    }
    for pair in taken.windows(2) {
        for (index, host) in HOSTS.iter().enumerate() {
            let side = |model: &BTreeMap<(usize, String), (Outcome, String)>, rule: &str| {
                model
                    .get(&(index, rule.to_owned()))
                    .map(|(verdict, _)| *verdict)
            };
            let wanted: Vec<&str> = RULES
                .into_iter()
                .filter(|rule| side(&pair[0].1, rule) != side(&pair[1].1, rule))
                .collect();
            let found = ledger.diff(host, pair[0].0, pair[1].0).unwrap();
            let found: Vec<&str> = found
                .iter()
                .map(|difference| difference.rule.as_str())
                .collect();
            assert_eq!(found, wanted, "{host}");
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 10, failure_persistence: None, ..Config::default() })]

    /// Full snapshots kept beside the ledger, compared with what it answers for each of their
    /// moments: before and after a checkpoint, and after the store was opened again.
    /// Proves: LED-7
    #[test]
    fn any_past_moment_is_exact_for_every_host_and_rule(steps in steps()) {
        let place = Place::new();
        let taken = {
            let (ledger, store) = place.open();
            let taken = live(&place, &ledger, &steps);
            compare(&ledger, &taken);
            store.compact().unwrap();
            compare(&ledger, &taken);
            store.close().unwrap();
            taken
        };
        let (ledger, _) = place.open();
        compare(&ledger, &taken);
    }
}
