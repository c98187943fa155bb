//! Variables against RUL-8: precedence, types, and what a change of one looks like.

use std::sync::Arc;

use store::{Options, Store};
use world::{RealDisk, sim};

use super::*;
use crate::{
    facts::Facts,
    judge::{Outcome, judge},
    ledger::{Cause, Finding, Ledger, LogSink, Scan},
    rule::Pack,
};

const NOW: Timestamp = Timestamp::from_nanos(1_767_225_600_000_000_000);
const RULE: &str = "ssh-max-auth-tries";

fn rules() -> Vec<Rule> {
    let all = Pack::embedded().pack.rules;
    all.into_iter().filter(|rule| rule.id == RULE).collect()
}

fn setting(scope: Scope, value: Value) -> Setting {
    Setting {
        rule: RULE.to_owned(),
        variable: "most".to_owned(),
        scope,
        value,
        set_at: NOW.nanos(),
        set_by: "user test".to_owned(),
    }
}

fn named(kind: fn(String) -> Scope, name: &str) -> Scope {
    kind(name.to_owned())
}

fn open(dir: &std::path::Path) -> Store {
    let journal = wal::Options::on_this_machine(dir.join("journal"));
    let (journal, _) = wal::Local::open(journal).unwrap();
    let options = Options::new(
        dir.join("tables"),
        Arc::new(RealDisk),
        Arc::new(sim::Clock::new(NOW)),
        crate::tables(),
    );
    crate::test_store::open(options, Arc::new(journal)).unwrap()
}

/// Proves: RUL-8
#[test]
fn the_nearest_value_to_the_host_is_judged_by() {
    let everywhere = setting(Scope::Everywhere, json!(6));
    let site = setting(named(Scope::Site, "rome"), json!(5));
    let (a, b) = (
        setting(named(Scope::Group, "a"), json!(3)),
        setting(named(Scope::Group, "b"), json!(2)),
    );
    let host = setting(named(Scope::Host, "web1"), json!(1));
    let (rome, groups) = (
        "rome".to_owned(),
        BTreeSet::from(["a".to_owned(), "b".to_owned()]),
    );
    let place = Place {
        host: "web1",
        site: Some(&rome),
        groups: Some(&groups),
    };
    let unknown = Place::of("web9", None);
    let all = [
        b.clone(),
        everywhere.clone(),
        host.clone(),
        a.clone(),
        site.clone(),
    ];
    for (story, settings, place, wanted) in [
        ("all of them", &all[..], &place, Some((1, 0))),
        (
            "two groups, the first by name",
            &[b.clone(), a.clone(), site.clone()],
            &place,
            Some((3, 1)),
        ),
        (
            "a site over everywhere",
            &[everywhere.clone(), site],
            &place,
            Some((5, 0)),
        ),
        ("not in the inventory", &all[..], &unknown, Some((6, 0))),
        ("nothing", &[], &place, None),
        ("of another host", &[host], &unknown, None),
    ] {
        let found = in_force(settings, place);
        let found = found.get(&(RULE, "most"));
        let found = found.map(|held| (held.setting.value.as_i64().unwrap(), held.overruled.len()));
        assert_eq!(found, wanted, "{story}");
    }
    let tuned = tune(&rules(), &all, &place);
    assert_eq!(
        tuned.rules[0].site_values,
        [("most".to_owned(), json!(1))].into()
    );
    assert_eq!(tuned.rules[0].definition, rules()[0].definition);
    assert_ne!(tuned.rules[0].digest, rules()[0].digest);
}

#[test]
fn a_value_is_held_to_what_the_rule_declares() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(open(dir.path())).unwrap();
    let rule = &rules()[0];
    let mut misspelt = setting(Scope::Everywhere, json!(3));
    misspelt.variable = "mos".to_owned();
    let error = settings.set(rule, &misspelt).unwrap_err();
    assert_eq!(error.next, "did you mean `most`?");
    for value in [json!("3"), json!(true), json!(3.5), json!([3]), json!(null)] {
        let error = settings.set(rule, &setting(Scope::Everywhere, value.clone()));
        assert!(
            error.unwrap_err().detail.contains("wanted a whole number"),
            "{value}"
        );
    }
    assert_eq!(settings.list().unwrap(), []);
    let good = setting(Scope::Everywhere, json!(3));
    settings.set(rule, &good).unwrap();
    assert_eq!(settings.list().unwrap(), std::slice::from_ref(&good));
    assert!(settings.unset(&good).unwrap());
    assert!(!settings.unset(&good).unwrap());
}

#[test]
fn a_value_that_the_rule_does_not_take_any_more_is_told_and_not_judged_by() {
    let old = setting(Scope::Everywhere, json!("four"));
    let tuned = tune(
        &rules(),
        std::slice::from_ref(&old),
        &Place::of("web1", None),
    );
    assert_eq!(tuned.stale, [old]);
    assert_eq!(tuned.rules[0].digest, rules()[0].digest);
}

/// Proves: RUL-7, RUL-8
#[test]
fn a_verdict_that_flips_with_a_variable_says_so_and_keeps_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (ledger, settings) = (
        Ledger::new(store.clone()).unwrap(),
        Settings::new(store).unwrap(),
    );
    let rules = rules();
    let test = rules[0]
        .tests()
        .iter()
        .find(|test| test.expect == Outcome::Pass)
        .unwrap();
    let facts: Facts = test.bundle();
    let scan = |at: u64| {
        let tuned = tune(&rules, &settings.list().unwrap(), &Place::of("web1", None));
        let verdicts = judge(&tuned.rules, &facts);
        let finished = Timestamp::from_nanos(NOW.nanos() + at);
        let scan = Scan {
            id: uuid::Uuid::new_v4(),
            host: "web1".to_owned(),
            started: finished,
            finished,
            summary: crate::judge::Summary::default(),
            findings: vec![Finding::of(&tuned.rules[0], &verdicts[0])],
        };
        ledger.apply(&scan, &LogSink).unwrap().changes
    };
    assert_eq!(scan(1)[0].to, Outcome::Pass);
    settings
        .set(&rules[0], &setting(named(Scope::Host, "web1"), json!(0)))
        .unwrap();
    let changed = scan(2);
    assert_eq!(
        (changed[0].to, changed[0].because.as_slice()),
        (Outcome::Fail, &[Cause::Variables][..])
    );
    let state = &ledger.status("web1", None).unwrap().unwrap().states[0];
    assert_eq!(state.variables, [("most".to_owned(), json!(0))].into());
}
