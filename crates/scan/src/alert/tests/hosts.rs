//! Hosts that do not answer, and what is about the whole site.

use super::*;
use Outcome::Pass;

const FINE: &[(&str, Outcome)] = &[("p", Pass)];

/// Proves: LED-12
#[test]
fn a_host_is_unreachable_after_two_attempts_without_an_answer_and_reachable_after_one_scan() {
    let site = Site::new();
    site.add_host("a", &[]);
    site.attempt("a", Err(Reason::HostUnreachable));
    site.look();
    assert_eq!(site.lines(), [""; 0], "one is none");
    site.attempt("a", Err(Reason::Timeout));
    site.look();
    site.look();
    assert_eq!(site.lines(), ["host_unreachable - open 1"]);
    // Each further attempt is an occurrence, and nothing to be told.
    site.attempt("a", Err(Reason::HostUnreachable));
    site.look();
    assert_eq!(site.lines(), ["host_unreachable - open 2"]);
    // To ask for it at once forgets the failures, and mends nothing.
    site.backend().hasten("a", site.now(), "user test").unwrap();
    site.look();
    assert_eq!(site.lines(), ["host_unreachable - open 2"]);
    site.attempt("a", Ok(FINE));
    site.look();
    assert_eq!(site.lines(), ["host_unreachable - resolved 2"]);
    assert_eq!(
        site.told("r"),
        ["opened host_unreachable -", "resolved host_unreachable -"]
    );
}

/// Proves: LED-12
#[test]
fn a_host_that_comes_and_goes_is_told_of_less_and_less_and_never_forgotten() {
    let site = Site::new();
    site.add_host("a", &[]);
    let key = Key::of_host(Kind::HostUnreachable, "a");
    let rows = rows::Rows::of(&site.store).unwrap();
    // Down and up every ten minutes, for a day.
    let mut told = Vec::new();
    for round in 0..144_u64 {
        let mut transaction = site.store.begin().unwrap();
        let raise = rows::Raise::new(Severity::High, "no answer", site.now());
        let event = rows
            .raise_in(&mut transaction, &key, &raise, site.now())
            .unwrap();
        transaction.commit().unwrap();
        told.extend(event.map(|event| (round * 10, event.event)));
        site.wait(MINUTE * 5);
        let mut transaction = site.store.begin().unwrap();
        rows.end_in(&mut transaction, &key, "it was scanned", site.now())
            .unwrap();
        transaction.commit().unwrap();
        site.wait(MINUTE * 5);
    }
    let minutes: Vec<u64> = told.iter().map(|(minute, _)| *minute).collect();
    assert_eq!(minutes, [0, 60, 180, 420, 900], "of 144");
    assert_eq!(site.all().len(), 1);
    // Down for good: told of when the quiet is over.
    let mut transaction = site.store.begin().unwrap();
    let raise = rows::Raise::new(Severity::High, "no answer", site.now());
    rows.raise_in(&mut transaction, &key, &raise, site.now())
        .unwrap();
    transaction.commit().unwrap();
    for _ in 0..25 {
        site.wait(HOUR);
        site.look();
    }
    assert_eq!(site.told("r"), ["reopened host_unreachable -"]);
}

#[test]
fn a_host_that_answers_and_refuses_is_no_unreachable_one() {
    let site = Site::new();
    site.add_host("a", &[]);
    site.attempt("a", Err(Reason::HostUnreachable));
    site.attempt("a", Err(Reason::AuthFailed));
    site.attempt("a", Err(Reason::HostUnreachable));
    site.look();
    // Three failures in a row, and no two of them without an answer.
    assert_eq!(site.lines(), [""; 0]);
    site.attempt("a", Err(Reason::HostUnreachable));
    site.look();
    site.attempt("a", Err(Reason::AuthFailed));
    site.look();
    assert_eq!(
        site.lines(),
        ["host_unreachable - resolved 1", "scan_failing - open 1"]
    );
    site.attempt("a", Err(Reason::HostKeyChanged));
    site.look();
    assert_eq!(site.lines()[2], "host_key_changed - open 1");
    site.attempt("a", Ok(FINE));
    site.look();
    assert!(
        site.all()
            .iter()
            .all(|alert| alert.state == State::Resolved)
    );
}

#[test]
fn a_scan_past_the_schedule_proves_that_a_host_answers() {
    let site = Site::new();
    site.add_host("a", &[]);
    site.attempt("a", Err(Reason::HostUnreachable));
    site.attempt("a", Err(Reason::HostUnreachable));
    site.look();
    site.scan("a", FINE);
    site.look();
    site.look();
    assert_eq!(site.lines(), ["host_unreachable - resolved 1"]);
}

#[test]
fn a_retired_host_has_no_open_alerts() {
    let site = Site::new();
    site.add_host("a", &[]);
    site.scan("a", &[("critical-1", Outcome::Fail)]);
    site.attempt("a", Err(Reason::HostUnreachable));
    site.attempt("a", Err(Reason::HostUnreachable));
    site.look();
    assert_eq!(site.all().len(), 2);
    let inventory = Inventory::new(site.store.clone()).unwrap();
    inventory.retire("a", site.now(), "user test").unwrap();
    site.look();
    assert!(
        site.all()
            .iter()
            .all(|alert| alert.state == State::Resolved)
    );
    site.look();
    assert_eq!(site.all().len(), 2);
}

#[test]
fn a_condition_of_the_site_is_told_once_and_insists_where_it_is_resolved_by_hand() {
    let site = Site::new();
    let look = |is_low: bool| {
        let condition = Condition {
            kind: Kind::DiskLow,
            subject: None,
            detail: is_low.then(|| "12 MiB are free".to_owned()),
        };
        site.evaluator().look(site.now(), &[condition]).unwrap();
    };
    look(true);
    look(true);
    assert_eq!(site.lines(), ["disk_low - open 1"]);
    site.alerts()
        .resolve(1, "it is not true", site.now(), "user anna")
        .unwrap();
    look(true);
    assert_eq!(site.lines(), ["disk_low - resolved 1"]);
    site.wait(HOUR);
    look(true);
    assert_eq!(site.lines(), ["disk_low - open 2"]);
    look(false);
    assert_eq!(site.lines(), ["disk_low - resolved 2"]);
    assert_eq!(
        site.told("r"),
        [
            "opened disk_low -",
            "reopened disk_low -",
            "resolved disk_low -"
        ]
    );
}
