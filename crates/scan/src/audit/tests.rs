//! The audit log's chain and its denials, on a real store.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use store::{Keys, Options, Snapshot, Store};
use world::{Disk, RealClock, RealDisk, Timestamp};

use super::{
    chain::{Head, Place, link},
    denial::{PERIOD, SOURCES_MAX},
    *,
};

fn open(dir: &tempfile::TempDir) -> (Store, Audit) {
    let journal = wal::Options::on_this_machine(dir.path().join("journal"));
    let (journal, _) = wal::Local::open(journal).unwrap();
    let options = Options::new(
        dir.path().join("tables"),
        Arc::new(RealDisk) as Arc<dyn Disk>,
        Arc::new(RealClock::new()),
        Audit::tables(),
    );
    let store = crate::test_store::open(options, Arc::new(journal)).unwrap();
    let audit = Audit::of(&store).unwrap();
    (store, audit)
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn of(work: impl FnOnce()) -> String {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber.finish(), work);
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
}

fn append(store: &Store, audit: &Audit, at: u64, object: &str) {
    let detail = json!({ "after": { "next": 1_700_000_000_123_456_789_u64, "ratio": 0.1 } });
    let record = Record::new(Timestamp::from_nanos(at), "user x", "a.b", object, detail);
    let mut transaction = store.begin().unwrap();
    audit.append(&mut transaction, &record).unwrap();
    transaction.commit().unwrap();
}

/// The head, if the whole chain is as it must be; else what is wrong.
fn sound(audit: &Audit, store: &Store, snapshot: &Snapshot) -> Result<Head, String> {
    let head = audit.head(snapshot).unwrap();
    let mut at = Head::default().sha256;
    for number in 1..=head.records {
        match audit.places(snapshot, number..=number).unwrap().remove(0) {
            Place::Holds(found) => {
                at = link(&at, &found.row.digest());
                if found.chain != at {
                    return Err(format!("{number}: the link"));
                }
            }
            Place::Lost(why) => return Err(format!("{number}: {why}")),
        }
    }
    match audit.strangers(store, |_| {}).unwrap() {
        _ if at != head.sha256 => Err("the head".to_owned()),
        (_, Some(why)) => Err(why),
        (_, None) => Ok(head),
    }
}

#[test]
fn records_are_linked_once_each_and_the_newest_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, audit) = open(&dir);
    assert_eq!(audit.link(&store).unwrap(), 0);
    let nothing = store.snapshot().unwrap();
    assert_eq!(sound(&audit, &store, &nothing).unwrap().records, 0);
    for (at, linked) in [(50, 1), (40, 2), (60, 3)] {
        append(&store, &audit, at, "h");
        let before = store.snapshot().unwrap();
        assert_eq!(sound(&audit, &store, &before).unwrap().records, linked - 1);
        assert_eq!(audit.strangers(&store, |_| {}).unwrap(), (1, None));
        assert_eq!(audit.link(&store).unwrap(), 1);
        let after = store.snapshot().unwrap();
        assert_eq!(sound(&audit, &store, &after).unwrap().records, linked);
        assert_eq!(audit.link(&store).unwrap(), 0);
    }
    let told = audit.list(&store, &Filter::default(), 10).unwrap();
    let times: Vec<u64> = told.iter().map(|record| record.at).collect();
    assert_eq!(times, [60, 50, 40]);
}

#[test]
fn records_from_before_the_chain_are_linked_first_and_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (store, audit) = open(&dir);
    // More than one transaction of them.
    for at in 0..1005_u64 {
        append(&store, &audit, 1000 + at, "old");
    }
    let snapshot = store.snapshot().unwrap();
    let mut transaction = store.begin().unwrap();
    for item in snapshot.range(audit.pending, &Keys::all()).unwrap() {
        transaction.delete(audit.pending, &item.unwrap().0).unwrap();
    }
    transaction.commit().unwrap();
    append(&store, &audit, 1001, "marked, and amid the old ones");
    assert_eq!(audit.link(&store).unwrap(), 1006);
    let snapshot = store.snapshot().unwrap();
    assert_eq!(sound(&audit, &store, &snapshot).unwrap().records, 1006);
}

#[test]
fn many_who_append_and_many_who_link_are_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let (store, audit) = open(&dir);
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let (store, audit) = (store.clone(), audit);
            scope.spawn(move || {
                for at in 0..50 {
                    // Appending never conflicts: `append` would panic.
                    append(&store, &audit, writer * 1000 + at, "h");
                    drop(audit.link(&store));
                }
            });
        }
    });
    audit.link(&store).unwrap();
    let snapshot = store.snapshot().unwrap();
    assert_eq!(sound(&audit, &store, &snapshot).unwrap().records, 200);
}

fn check(what: &str, found: &str, change: impl Fn(&Audit, &mut Transaction, &[Vec<u8>])) {
    let dir = tempfile::tempdir().unwrap();
    let (store, audit) = open(&dir);
    for at in 1..=4 {
        append(&store, &audit, at, &format!("h{at}"));
    }
    audit.link(&store).unwrap();
    let snapshot = store.snapshot().unwrap();
    let keys: Vec<Vec<u8>> = snapshot
        .range(audit.table, &Keys::all())
        .unwrap()
        .map(|item| item.unwrap().0.to_vec())
        .collect();
    let mut transaction = store.begin().unwrap();
    change(&audit, &mut transaction, &keys);
    transaction.commit().unwrap();
    let why = sound(&audit, &store, &store.snapshot().unwrap()).expect_err(what);
    assert!(why.contains(found), "{what}: {why}");
}
fn edited(audit: &Audit, transaction: &mut Transaction, key: &[u8], from: &str, to: &str) {
    let value = transaction.get(audit.table, key).unwrap().unwrap();
    let text = str::from_utf8(&value).unwrap();
    assert!(text.contains(from), "{text}");
    let text = text.replace(from, to);
    transaction.put(audit.table, key, text.as_bytes()).unwrap();
}

/// Proves: SVC-4
#[test]
fn a_record_that_is_removed_edited_or_moved_is_found() {
    check(
        "removed",
        "2: the record is not there",
        |audit, work, keys| {
            work.delete(audit.table, &keys[1]).unwrap();
        },
    );
    check(
        "removed with its row",
        "2: the row that finds",
        |audit, work, keys| {
            work.delete(audit.table, &keys[1]).unwrap();
            work.delete(audit.links, &2_u64.to_be_bytes()).unwrap();
        },
    );
    for (from, to) in [
        ("user x", "user y"),
        ("a.b", "a.c"),
        ("h3", "h8"),
        ("123456789", "123456788"),
        ("\"ratio\":0.1", "\"ratio\":0.2"),
    ] {
        check(from, "3: the link", |audit, work, keys| {
            edited(audit, work, &keys[2], from, to);
        });
    }
    check("its time", "3: another record", |audit, work, keys| {
        edited(audit, work, &keys[2], "\"at\":3", "\"at\":2");
    });
    check("its number", "4: another record", |audit, work, keys| {
        edited(audit, work, &keys[3], "\"number\":4", "\"number\":5");
    });
}

/// Proves: SVC-4
#[test]
fn a_record_that_is_added_and_a_chain_that_is_cut_off_are_found() {
    check("added", "in no chain", |audit, work, keys| {
        let value = work.get(audit.table, &keys[0]).unwrap().unwrap();
        work.put(audit.table, &[&keys[0][..], b"x"].concat(), &value)
            .unwrap();
    });
    check(
        "added without a number",
        "in no chain",
        |audit, work, keys| {
            let record = Record::new(Timestamp::from_nanos(1), "user x", "a.b", "h", json!({}));
            let value = serde_json::to_vec(&record).unwrap();
            work.put(audit.table, &[&keys[0][..], b"x"].concat(), &value)
                .unwrap();
        },
    );
    check("cut off", "in no chain", |audit, work, _| {
        let head = Head {
            records: 0,
            ..Head::default()
        };
        work.put(audit.head, b"head", &serde_json::to_vec(&head).unwrap())
            .unwrap();
        for number in 1..=4_u64 {
            work.delete(audit.links, &number.to_be_bytes()).unwrap();
        }
    });
    check("another head", "the head", |audit, work, _| {
        let head = Head {
            records: 4,
            ..Head::default()
        };
        work.put(audit.head, b"head", &serde_json::to_vec(&head).unwrap())
            .unwrap();
    });
}

fn denied(denials: &Denials, store: &Store, seconds: u64, source: &str) {
    let denial = Denial {
        source,
        actor: None,
        request: "GET /api/v1/hosts",
        reason: "token_unknown",
    };
    let now = Timestamp::from_nanos(seconds * 1_000_000_000);
    denials.note(store, now, &denial).unwrap();
}

fn recorded(store: &Store, audit: &Audit) -> Vec<Record> {
    let mut found = audit.list(store, &Filter::default(), LIST_MAX).unwrap();
    found.reverse();
    found
}

#[test]
fn the_first_denial_of_a_source_is_on_record_at_once_and_more_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, audit) = open(&dir);
    let denials = Denials::new(audit);
    denied(&denials, &store, 1, "10.0.0.1");
    assert_eq!(recorded(&store, &audit).len(), 1);
    for second in 2..30 {
        denied(&denials, &store, second, "10.0.0.1");
    }
    denied(&denials, &store, 30, "10.0.0.2");
    assert_eq!(recorded(&store, &audit).len(), 2);
    let later = Timestamp::from_nanos(29_000_000_000).plus(PERIOD);
    denials.flush(&store, later, false).unwrap();
    let found = recorded(&store, &audit);
    assert_eq!(found.len(), 3, "nothing more of the second source");
    let counted = found
        .iter()
        .find(|record| record.detail["more"] == 28)
        .unwrap();
    assert_eq!(counted.object, "10.0.0.1");
    assert_eq!(counted.detail["reasons"]["token_unknown"], 28);
    denied(&denials, &store, 120, "10.0.0.1");
    denied(&denials, &store, 121, "10.0.0.1");
    denials
        .flush(&store, Timestamp::from_nanos(122_000_000_000), true)
        .unwrap();
    assert_eq!(
        recorded(&store, &audit).len(),
        5,
        "what is counted is told at the end"
    );
}

/// Proves: SVC-4
#[test]
fn a_flood_of_denials_from_everywhere_writes_a_bounded_number_of_records() {
    let dir = tempfile::tempdir().unwrap();
    let (store, audit) = open(&dir);
    let denials = Denials::new(audit);
    for source in 0..5_000_u64 {
        denied(
            &denials,
            &store,
            1 + source / 200,
            &format!("{source}\u{1b}[2J"),
        );
    }
    denials
        .flush(&store, Timestamp::from_nanos(3_600_000_000_000), true)
        .unwrap();
    let found = recorded(&store, &audit);
    assert!(found.len() <= 2 * (SOURCES_MAX + 1), "{}", found.len());
    let others = found
        .iter()
        .find(|record| record.detail["more"].is_u64())
        .unwrap();
    assert_eq!(others.object, "other sources");
    assert_eq!(others.detail["more"], 5_000 - SOURCES_MAX as u64 - 1);
    let is_plain = |record: &Record| !record.object.contains('\u{1b}');
    assert!(
        found.iter().all(is_plain),
        "what a client sends is one line"
    );
    let day = Duration::from_secs(86_400);
    let records = 2 * (SOURCES_MAX as u64 + 1) * (day.as_secs() / PERIOD.as_secs());
    assert!(records < 200_000, "{records} a day");
}

/// While a disk is full, or a node that wrote is not told yet that another one does: who was denied was
/// neither in the store nor in the log, and what was counted of it went with the next flush.
///
/// Proves: SVC-4
#[test]
fn a_denial_that_cannot_be_recorded_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (store, audit) = open(&dir);
    let denials = Denials::new(audit);
    let note = |source: &str| {
        let denial = Denial {
            source,
            actor: None,
            request: "GET /",
            reason: "unknown token",
        };
        let now = Timestamp::from_nanos(1_000);
        denials.note(&store, now, &denial)
    };
    note("192.0.2.1").unwrap();
    store.close().unwrap();
    let log = Log::of(|| {
        note("192.0.2.2").unwrap_err();
        // Of the one on record: counted.
        note("192.0.2.1").unwrap();
        let later = Timestamp::from_nanos(1_000).plus(PERIOD);
        denials.flush(&store, later, true).unwrap_err();
    });
    let told = |source: &str| log.lines().filter(|line| line.contains(source)).count();
    assert_eq!((told("192.0.2.2"), told("192.0.2.1")), (1, 1), "{log}");
    assert!(
        log.contains("unknown token") && log.contains("\"more\":1"),
        "{log}"
    );
}
