//! Histories that are sound, and every way that was thought of to make one that is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
};

use serde_json::json;
use store::{Keys, Options, Store};
use uuid::Uuid;
use world::{Disk, RealClock, RealDisk, RealRandom, Timestamp, disk::Open};

use super::*;
use crate::{
    audit::{Audit, Filter, Record},
    judge::{Outcome as Judged, Summary, digest},
    ledger::{Finding, Ledger, LogSink, Scan, row},
    rule::{Severity, Variables},
};

mod files;
mod random;
mod rows;

/// A data directory with a store in it.
struct Place {
    dir: tempfile::TempDir,
    store: Store,
    time: std::cell::Cell<u64>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = wal::Options::on_this_machine(dir.path().join("journal"));
        let (journal, _) = wal::Local::open(journal).unwrap();
        let options = Options::new(
            dir.path().join("tables"),
            Arc::new(RealDisk),
            Arc::new(RealClock::new()),
            [Ledger::tables(), Audit::tables(), Book::tables()].concat(),
        );
        let (store, _) = Store::open(options, Arc::new(journal)).unwrap();
        Self {
            dir,
            store,
            time: 1_700_000_000_000_000_000.into(),
        }
    }

    /// Three statements over two hosts, with changes, scans without any, and what is not sealed yet.
    fn with_history() -> Self {
        use Judged::{Fail, Pass};
        let place = Self::new();
        place.scan("db", &[("a", Pass), ("b", Fail)]);
        place.scan("web", &[("a", Pass), ("b", Pass), ("c", Fail)]);
        place.record("first");
        place.seal(Reason::Asked);
        place.scan("web", &[("a", Pass), ("b", Pass), ("c", Fail)]);
        place.scan("web", &[("a", Fail), ("b", Pass)]);
        place.record("second");
        place.record("third");
        place.seal(Reason::Hourly);
        place.scan("db", &[("a", Pass), ("b", Pass)]);
        place.seal(Reason::Export);
        place
    }

    fn now(&self) -> Timestamp {
        self.time.set(self.time.get() + 1_000_000_000);
        Timestamp::from_nanos(self.time.get())
    }

    fn scan(&self, host: &str, verdicts: &[(&str, Judged)]) {
        let findings = verdicts
            .iter()
            .map(|(rule, verdict)| finding(rule, *verdict))
            .collect();
        let scan = Scan {
            id: Uuid::new_v4(),
            host: host.to_owned(),
            started: self.now(),
            finished: self.now(),
            summary: Summary::of(verdicts.iter().map(|(_, verdict)| *verdict)),
            findings,
        };
        let ledger = Ledger::new(self.store.clone()).unwrap();
        ledger.apply(&scan, &LogSink).unwrap();
    }

    fn record(&self, object: &str) {
        let record = Record::new(self.now(), "user x", "host.added", object, json!({"n": 1}));
        let mut transaction = self.store.begin().unwrap();
        let audit = Audit::of(&self.store).unwrap();
        audit.append(&mut transaction, &record).unwrap();
        transaction.commit().unwrap();
    }

    fn book(&self) -> Book {
        Book::new(self.store.clone()).unwrap()
    }

    fn keys(&self) -> std::path::PathBuf {
        self.dir.path().join("keys")
    }

    fn key(&self) -> PrivateKey {
        self.book()
            .key(&RealDisk, &self.keys(), &RealRandom)
            .unwrap()
    }

    fn seal(&self, reason: Reason) -> Option<Sealed> {
        let now = self.now();
        self.book()
            .seal(&self.key(), &RealRandom, reason, now)
            .unwrap()
    }

    fn verify(&self, kind: Kind) -> Result<Outcome, String> {
        let stop = AtomicBool::new(false);
        let verified = verify_store(&self.store, kind, None, BTreeMap::new(), &stop, &mut |_| {});
        verified.map_err(|error| error.to_string())
    }

    fn export(&self, asked: &Asked, compressed: bool) -> Result<Vec<u8>, Error> {
        let to = self.dir.path().join("export");
        let key = self.key();
        let export = Export {
            disk: &RealDisk,
            to: &to,
            compressed,
            key: Some(&key),
            made: self.now(),
            stop: &AtomicBool::new(false),
        };
        export.write(&self.store, asked, &mut |_| {})?;
        Ok(RealDisk.read(&to, 1 << 30).unwrap())
    }
}

fn asked(kind: Kind) -> Asked {
    Asked {
        kind,
        only: None,
        filter: Filter::default(),
        with_evidence: true,
    }
}

fn finding(rule: &str, verdict: Judged) -> Finding {
    let evidence = format!(
        r#"{{"facts":[{{"fact":"os.id","value":"{}\u0001\"é"}}],"rule":"{rule}","schema":"holdfast.evidence/1"}}"#,
        verdict.name()
    )
    .into_bytes();
    Finding {
        rule: rule.to_owned(),
        severity: Severity::Medium,
        verdict,
        reason: format!("os.id is {}", verdict.name()),
        rule_digest: "0".repeat(64),
        rule_definition: "1".repeat(64),
        variables: Variables::new(),
        evidence_digest: digest(&evidence),
        evidence,
    }
}

/// Verifies `bytes` as a file, on a machine that has nothing else but a key.
fn verify(bytes: &[u8], key: Option<&PublicKey>) -> Result<Outcome, String> {
    verify_noted(bytes, key, BTreeMap::new())
}

fn verify_noted(
    bytes: &[u8],
    key: Option<&PublicKey>,
    noted: BTreeMap<u64, String>,
) -> Result<Outcome, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let file = RealDisk.open(&path, Open::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let stop = AtomicBool::new(false);
    verify_file(&file, key.cloned(), noted, &stop, &mut |_| {}).map_err(|error| error.to_string())
}

/// Proves: LED-10
#[test]
fn a_whole_history_is_sound_here_and_as_a_file_elsewhere() {
    let place = Place::with_history();
    place.scan("web", &[("a", Judged::Fail), ("b", Judged::Pass)]);
    let here = place.verify(Kind::Ledger).unwrap();
    assert_eq!((here.hosts, here.scans, here.changes), (2, 6, 7));
    assert_eq!((here.statements, here.unsealed_scans), (3, 1));
    let key = place.key().public();
    for compressed in [false, true] {
        let bytes = place.export(&asked(Kind::Ledger), compressed).unwrap();
        let there = verify(&bytes, Some(&key)).unwrap();
        assert_eq!((there.scans, there.changes, there.verdicts), (6, 7, 4));
        assert!(there.file_is_signed && there.evidence > 0);
        assert_eq!(there.newest.unwrap().0.sequence, 3);
    }
}

/// Proves: SVC-4
#[test]
fn an_audit_log_is_sound_here_and_as_a_file_from_which_records_are_withheld() {
    let place = Place::with_history();
    place.record("not sealed");
    Audit::of(&place.store).unwrap().link(&place.store).unwrap();
    let here = place.verify(Kind::Audit).unwrap();
    assert_eq!((here.records, here.unsealed_records), (4, 1));
    let asked = Asked {
        filter: Filter {
            object: Some("third".to_owned()),
            ..Filter::default()
        },
        ..asked(Kind::Audit)
    };
    let bytes = place.export(&asked, false).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains("third") && !text.contains("second"));
    let there = verify(&bytes, Some(&place.key().public())).unwrap();
    assert_eq!((there.records, there.withheld), (1, 3));
}

/// Proves: LED-10
#[test]
fn an_export_of_one_host_verifies_and_tells_no_more_of_the_others_than_where_they_stand() {
    let place = Place::with_history();
    let asked = Asked {
        only: Some(BTreeSet::from(["db".to_owned()])),
        ..asked(Kind::Ledger)
    };
    let bytes = place.export(&asked, false).unwrap();
    let there = verify(&bytes, Some(&place.key().public())).unwrap();
    assert_eq!((there.hosts, there.scans, there.verdicts), (1, 2, 2));
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("os.id is fail\",\"rule\":\"c\""));
}

#[test]
fn nothing_is_stated_twice_unless_it_is_asked_for() {
    let place = Place::with_history();
    for (reason, says) in [
        (Reason::Stop, false),
        (Reason::Export, false),
        (Reason::Hourly, true),
        (Reason::Asked, true),
    ] {
        let sealed = place.seal(reason);
        assert_eq!(sealed.is_some(), says, "{reason:?}");
        assert!(sealed.is_none_or(|sealed| sealed.moved == 0));
    }
    place.record("one more");
    assert!(place.seal(Reason::Stop).is_some());
    place.verify(Kind::Ledger).unwrap();
    place.verify(Kind::Audit).unwrap();
}

/// Longer than one page, while others go on recording: what is looked at ends where it ended when that
/// began. Read by one snapshot, a long log on PostgreSQL was out of range before its end.
/// Proves: SVC-4
#[test]
fn a_log_of_several_pages_is_sound_while_it_grows_and_a_fault_on_its_last_page_is_found() {
    let place = Place::new();
    let audit = Audit::of(&place.store).unwrap();
    let records = crate::audit::chain::PAGE as u64 * 2 + 7;
    for number in 0..records {
        place.record(&number.to_string());
    }
    place.seal(Reason::Asked);
    let stop = AtomicBool::new(false);
    let mut is_grown = false;
    let verified = verify_store(
        &place.store,
        Kind::Audit,
        None,
        BTreeMap::new(),
        &stop,
        &mut |_| {
            if !std::mem::replace(&mut is_grown, true) {
                place.record("meanwhile");
                audit.link(&place.store).unwrap();
            }
        },
    );
    assert_eq!(verified.unwrap().records, records);
    let bytes = place.export(&asked(Kind::Audit), true).unwrap();
    assert_eq!(verify(&bytes, None).unwrap().records, records + 1);

    let links = place.store.table("audit.link").unwrap();
    let mut work = place.store.begin().unwrap();
    work.delete(links, &records.to_be_bytes()).unwrap();
    work.commit().unwrap();
    let why = place.verify(Kind::Audit).unwrap_err();
    assert!(why.contains(&format!("audit record {records}")), "{why}");
}

/// Proves: LED-10
#[test]
fn a_key_is_rotated_with_the_word_of_the_one_before() {
    let place = Place::with_history();
    let before = place.key();
    let next = key::prepare(&RealDisk, &place.keys(), &RealRandom).unwrap();
    let sealed = place
        .book()
        .rotate(&before, &next, &RealRandom, place.now())
        .unwrap();
    assert_eq!(sealed.signed.signatures.len(), 2);
    // The process dies here: the next look finds the key that the newest statement names.
    assert_eq!(place.key().public(), next.public());
    let name = place.keys().join(key::KEY_FILE);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&name).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    place.scan("db", &[("a", Judged::Fail)]);
    place.seal(Reason::Asked);
    let bytes = place.export(&asked(Kind::Ledger), false).unwrap();
    for key in [before.public(), next.public()] {
        verify(&bytes, Some(&key)).unwrap();
    }
    let refused = place
        .book()
        .seal(&before, &RealRandom, Reason::Asked, place.now())
        .unwrap_err();
    assert!(matches!(refused, Error::Key(_)), "{refused}");
}

#[test]
fn a_key_that_is_gone_is_not_replaced_by_another() {
    let place = Place::with_history();
    RealDisk
        .remove_file(&place.keys().join(key::KEY_FILE))
        .unwrap();
    let refused = place
        .book()
        .key(&RealDisk, &place.keys(), &RealRandom)
        .unwrap_err();
    assert!(
        refused.to_string().contains("ledger.key is not the key"),
        "{refused}"
    );
    let empty = Place::new();
    assert_eq!(empty.key().public(), empty.key().public(), "made once");
}

#[test]
fn an_export_that_is_stopped_or_not_sound_leaves_nothing() {
    let place = Place::with_history();
    let to = place.dir.path().join("export");
    let export = |stop: bool| {
        let export = Export {
            disk: &RealDisk,
            to: &to,
            compressed: false,
            key: None,
            made: place.now(),
            stop: &AtomicBool::new(stop),
        };
        export.write(&place.store, &asked(Kind::Ledger), &mut |_| {})
    };
    assert!(matches!(export(true), Err(Error::Stopped)));
    let tables = row::Tables::of(&place.store).unwrap();
    let mut transaction = place.store.begin().unwrap();
    transaction
        .delete(tables.links, &row::link_key("db", 2))
        .unwrap();
    transaction.commit().unwrap();
    let error = export(false).unwrap_err().to_string();
    assert!(error.starts_with("host `db`, scan 2: "), "{error}");
    let left: Vec<String> = RealDisk
        .list(place.dir.path())
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| name.contains("export"))
        .collect();
    assert_eq!(left, [""; 0]);
}

/// Each line against the published schema, and a line with a field too many against it too.
#[test]
fn each_line_of_an_export_is_what_the_schema_says() {
    let schema = include_str!("../../../../docs/schema/ledger-export.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let place = Place::with_history();
    let of_one = Asked {
        only: Some(BTreeSet::from(["db".to_owned()])),
        ..asked(Kind::Ledger)
    };
    let some = Asked {
        filter: Filter {
            object: Some("third".to_owned()),
            ..Filter::default()
        },
        ..asked(Kind::Audit)
    };
    let mut types = BTreeSet::new();
    for asked in [asked(Kind::Ledger), of_one, some] {
        let bytes = place.export(&asked, false).unwrap();
        for line in str::from_utf8(&bytes).unwrap().lines() {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            let faults: Vec<String> = schema
                .iter_errors(&line)
                .map(|fault| fault.to_string())
                .collect();
            assert!(faults.is_empty(), "{line}: {faults:?}");
            types.insert(line["type"].as_str().unwrap().to_owned());
            line["more"] = json!(1);
            assert!(!schema.is_valid(&line), "{line}");
        }
    }
    assert_eq!(types.len(), 11, "all but `earlier`: {types:?}");
}
