//! The chain of a host, as the ledger writes it.

use super::*;
use crate::ledger::chain::{Begin, Lines, LinkedChange, LinkedScan, LinkedVerdict};

/// All links of a host, recomputed from its rows; gives the head.
fn head(ledger: &Ledger, host: &str) -> String {
    let snapshot = ledger.store.snapshot().unwrap();
    let found = ledger
        .hosts()
        .unwrap()
        .into_iter()
        .find(|found| found.name == host)
        .unwrap();
    let chain = found.chain.unwrap();
    let begin = Begin {
        earlier: chain.earlier.clone(),
        host: host.to_owned(),
    };
    let (first, mut changes) = chain
        .earlier
        .map_or((1, 0), |earlier| (earlier.scans + 1, earlier.changes));
    let mut link = begin.link();
    for number in first..=chain.scans {
        let value = snapshot
            .get(ledger.tables.links, &row::link_key(host, number))
            .unwrap()
            .unwrap();
        let index: chain::LinkRow = decode(&value).unwrap();
        for rule in &index.rules {
            let key = row::change_key(host, rule, number);
            let value = snapshot.get(ledger.tables.changes, &key).unwrap().unwrap();
            let change: Change = decode(&value).unwrap();
            changes += 1;
            assert_eq!(change.number, changes);
            link = LinkedChange::of(host, &change).link(&link);
            assert_eq!(change.chain, link);
        }
        let value = snapshot
            .get(ledger.tables.scans, index.scan_id.as_bytes())
            .unwrap()
            .unwrap();
        let scan: ScanRow = decode(&value).unwrap();
        assert_eq!(
            (scan.number, scan.changes),
            (number, index.rules.len() as u64)
        );
        link = LinkedScan::of(&scan).link(&link);
        assert_eq!(scan.chain, link);
    }
    assert_eq!((chain.changes, chain.sha256), (changes, link.clone()));
    link
}

#[test]
fn every_change_and_every_scan_is_a_link_numbered_without_a_gap() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let mut heads = BTreeSet::new();
    for verdicts in [
        &[("a", Outcome::Pass), ("b", Outcome::Fail)][..],
        &[("b", Outcome::Fail), ("a", Outcome::Pass)],
        &[
            ("a", Outcome::Fail),
            ("b", Outcome::Pass),
            ("c", Outcome::Error),
        ],
        &[("a", Outcome::Fail)],
        &[],
    ] {
        let scan = place.scan("h", verdicts);
        ledger.apply(&scan, &Heard::default()).unwrap();
        assert!(heads.insert(head(&ledger, "h")), "a scan moves the head");
        assert!(ledger.apply(&scan, &Heard::default()).unwrap().replayed);
        assert!(!heads.insert(head(&ledger, "h")), "a replay does not");
    }
    ledger
        .apply(
            &place.scan("h2", &[("a", Outcome::Pass)]),
            &Heard::default(),
        )
        .unwrap();
    assert!(heads.insert(head(&ledger, "h2")));
    assert!(!heads.insert(head(&ledger, "h")), "no host moves another's");
}

#[test]
fn a_scan_answers_for_each_verdict_in_it_whatever_their_order() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let scan = place.scan("h", &[("b", Outcome::Pass), ("a", Outcome::Fail)]);
    ledger.apply(&scan, &Heard::default()).unwrap();
    let row = ledger.status("h", None).unwrap().unwrap();
    let mut lines = Lines::verdicts();
    for state in &row.states {
        lines.line(&LinkedVerdict::of_state(state).text());
    }
    assert_eq!(row.scan.verdicts, lines.end());
}

/// A data directory of a version without chains: rows without numbers, a host without a head.
#[test]
fn what_a_host_has_from_before_its_chain_is_in_the_first_link() {
    let place = Place::new();
    let (ledger, store) = place.open();
    for verdict in [Outcome::Pass, Outcome::Fail] {
        let scan = place.scan("h", &[("a", verdict), ("b", Outcome::Pass)]);
        ledger.apply(&scan, &Heard::default()).unwrap();
    }
    unchain(&ledger, &store);
    let scan = place.scan("h", &[("a", Outcome::Pass), ("b", Outcome::Pass)]);
    let applied = ledger.apply(&scan, &Heard::default()).unwrap();
    assert_eq!(applied.changes[0].number, 4, "three rows are from before");
    head(&ledger, "h");
    let earlier = ledger.hosts().unwrap()[0]
        .chain
        .clone()
        .unwrap()
        .earlier
        .unwrap();
    assert_eq!((earlier.changes, earlier.scans), (3, 2));
    let snapshot = store.snapshot().unwrap();
    let rows = chain::earlier_changes(&snapshot, &ledger.tables, "h").unwrap();
    let mut lines = Lines::earlier();
    for change in rows {
        lines.line(&chain::text(&LinkedChange::of("h", &change.unwrap())));
    }
    assert_eq!(lines.end(), earlier.sha256);
}

/// Takes everything of the chain out of the rows, as if a version without it had written them.
fn unchain(ledger: &Ledger, store: &Store) {
    let tables = ledger.tables;
    let snapshot = store.snapshot().unwrap();
    let mut transaction = store.begin().unwrap();
    for table in [tables.hosts, tables.changes, tables.scans] {
        for (key, value) in rows(&snapshot, table, &Keys::all()).unwrap() {
            let mut value: serde_json::Map<String, serde_json::Value> = decode(&value).unwrap();
            for field in ["chain", "number", "verdicts"] {
                value.shift_remove(field);
            }
            transaction.put(table, &key, &encode(&value)).unwrap();
        }
    }
    for (key, _) in rows(&snapshot, tables.links, &Keys::all()).unwrap() {
        transaction.delete(tables.links, &key).unwrap();
    }
    transaction.commit().unwrap();
}
