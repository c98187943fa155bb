//! Change rows are told of once each, whatever dies in between.

use super::*;

const NOW: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

/// What one call told, as host and rules of each scan.
fn told(ledger: &Ledger, teller: &str, now: Timestamp) -> Vec<(String, Vec<String>)> {
    let mut told = Vec::new();
    let announced = ledger.announce(teller, now, &mut |untold| {
        told.extend(untold.iter().map(|scan| {
            let rules = scan.changes.iter().map(|change| change.rule.clone());
            (scan.host.clone(), rules.collect::<Vec<_>>())
        }));
        Ok(())
    });
    announced.unwrap();
    told
}

/// The process died, or never learned that it had committed: the apply of the same scan says that it
/// was there already, and tells no changes. Telling from memory told such a scan never.
/// Proves: LED-6
#[test]
fn what_was_committed_and_not_told_is_told_by_the_next_process_once() {
    let place = Place::new();
    let (ledger, store) = place.open();
    let scan = place.scan("h", &[("a", Outcome::Pass), ("b", Outcome::Fail)]);
    ledger.apply(&scan, &Heard::default()).unwrap();
    drop((ledger, store));

    let (ledger, store) = place.open();
    assert!(ledger.apply(&scan, &Heard::default()).unwrap().replayed);
    let both = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(told(&ledger, "t", NOW), [("h".to_owned(), both)]);
    assert!(told(&ledger, "t", NOW).is_empty());
    drop((ledger, store));

    let (ledger, _) = place.open();
    assert!(told(&ledger, "t", NOW).is_empty());
    let unchanged = place.scan("h", &[("a", Outcome::Pass), ("b", Outcome::Fail)]);
    ledger.apply(&unchanged, &Heard::default()).unwrap();
    assert!(told(&ledger, "t", NOW).is_empty());
    let flipped = place.scan("h", &[("a", Outcome::Pass), ("b", Outcome::Pass)]);
    ledger.apply(&flipped, &Heard::default()).unwrap();
    assert_eq!(
        told(&ledger, "t", NOW),
        [("h".to_owned(), vec!["b".to_owned()])]
    );
}

/// Proves: LED-6
#[test]
fn what_could_not_be_told_is_told_again() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let scan = place.scan("h", &[("a", Outcome::Pass)]);
    ledger.apply(&scan, &Heard::default()).unwrap();
    let full = ledger.announce("t", NOW, &mut |_| Err("the disk is full".to_owned()));
    assert_eq!(full.unwrap_err().class(), Class::Storage);
    assert_eq!(told(&ledger, "t", NOW).len(), 1);
}

/// Two machines on one store, each with receivers of its own.
/// Proves: LED-6
#[test]
fn one_machine_tells_until_its_turn_is_over() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let apply = |verdict| {
        let scan = place.scan("h", &[("a", verdict)]);
        ledger.apply(&scan, &Heard::default()).unwrap();
    };
    apply(Outcome::Pass);
    assert_eq!(told(&ledger, "one", NOW).len(), 1);
    apply(Outcome::Fail);
    assert!(told(&ledger, "two", NOW).is_empty(), "it is not its turn");
    assert_eq!(told(&ledger, "one", NOW).len(), 1);
    apply(Outcome::Pass);
    let later = NOW.plus(std::time::Duration::from_secs(61));
    assert_eq!(told(&ledger, "two", later).len(), 1);
    assert!(told(&ledger, "one", later).is_empty());
}

/// What was recorded before there were cursors was told of then.
#[test]
fn history_from_before_is_not_told_again() {
    let place = Place::new();
    let (ledger, store) = place.open();
    let scan = place.scan("h", &[("a", Outcome::Pass)]);
    ledger.apply(&scan, &Heard::default()).unwrap();
    let hosts = Tables::of(&store).unwrap().hosts;
    let mut work = store.begin().unwrap();
    let found = work.get(hosts, b"h").unwrap().unwrap();
    let mut found: serde_json::Value = serde_json::from_slice(&found).unwrap();
    found
        .as_object_mut()
        .unwrap()
        .remove("tells_after")
        .unwrap();
    work.put(hosts, b"h", found.to_string().as_bytes()).unwrap();
    work.commit().unwrap();
    assert!(told(&ledger, "t", NOW).is_empty());

    let flipped = place.scan("h", &[("a", Outcome::Fail)]);
    ledger.apply(&flipped, &Heard::default()).unwrap();
    let only = vec!["a".to_owned()];
    assert_eq!(told(&ledger, "t", NOW), [("h".to_owned(), only)]);
}
