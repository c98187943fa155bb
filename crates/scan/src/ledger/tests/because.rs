//! What a change says of its cause (RUL-7).

use super::*;

/// One verdict, what the rule was, and the facts it rests on.
fn judged(
    verdict: Outcome,
    definition: &str,
    variables: serde_json::Value,
    facts: &[(&str, &str)],
) -> Finding {
    let facts: Vec<_> = facts
        .iter()
        .map(|(fact, value)| serde_json::json!({"fact": fact, "value": value}))
        .collect();
    let document =
        serde_json::json!({"facts": facts, "rule": "a", "schema": "holdfast.evidence/1"});
    let evidence = crate::rule::canonical_json(&document);
    Finding {
        rule_digest: digest(format!("{definition}{variables}").as_bytes()),
        rule_definition: digest(definition.as_bytes()),
        variables: serde_json::from_value(variables).unwrap(),
        evidence_digest: digest(&evidence),
        evidence,
        ..finding("a", verdict, "x")
    }
}

/// Proves: RUL-7
#[test]
fn a_change_says_whether_the_host_the_rule_or_its_variables_changed() {
    use serde_json::json;
    let (pass, fail) = (Outcome::Pass, Outcome::Fail);
    let first = judged(pass, "one", json!({}), &[("f", "1"), ("g", "1")]);
    for (story, second, wanted) in [
        (
            "another fact",
            judged(fail, "one", json!({}), &[("f", "2"), ("g", "1")]),
            vec![Cause::Host],
        ),
        (
            "time, which is no fact",
            judged(fail, "one", json!({}), &[("f", "1"), ("g", "1")]),
            vec![Cause::Host],
        ),
        (
            "the same facts under another rule",
            judged(fail, "two", json!({}), &[("f", "1"), ("g", "1")]),
            vec![Cause::Rule],
        ),
        (
            "another rule that looks at other facts",
            judged(fail, "two", json!({}), &[("g", "1"), ("h", "5")]),
            vec![Cause::Rule],
        ),
        (
            "another rule and another fact",
            judged(fail, "two", json!({}), &[("f", "2"), ("h", "5")]),
            vec![Cause::Host, Cause::Rule],
        ),
        (
            "another value of a variable",
            judged(fail, "one", json!({"most": 4}), &[("f", "1"), ("g", "1")]),
            vec![Cause::Variables],
        ),
        (
            "everything",
            judged(fail, "two", json!({"most": 4}), &[("f", "2")]),
            vec![Cause::Host, Cause::Rule, Cause::Variables],
        ),
    ] {
        let place = Place::new();
        let (ledger, _store) = place.open();
        let mut scan = place.scan("host", &[]);
        scan.findings = vec![first.clone()];
        let applied = ledger.apply(&scan, &LogSink).unwrap();
        assert_eq!(applied.changes[0].because, [], "{story}: the first scan");
        let before = place.now();
        let mut scan = place.scan("host", &[]);
        scan.findings = vec![second];
        let applied = ledger.apply(&scan, &LogSink).unwrap();
        assert_eq!(applied.changes[0].because, wanted, "{story}");
        assert_eq!(
            ledger.history("host", "a").unwrap()[1].because,
            wanted,
            "{story}"
        );
        let diff = ledger.diff("host", before, place.now()).unwrap();
        assert_eq!(diff[0].because, wanted, "{story}");
    }
}

/// Proves: RUL-7
#[test]
fn a_rule_that_comes_or_goes_is_no_change_of_the_host() {
    let place = Place::new();
    let (ledger, _store) = place.open();
    ledger
        .apply(&place.scan("host", &[("a", Outcome::Pass)]), &LogSink)
        .unwrap();
    let before = place.now();
    let applied = ledger
        .apply(&place.scan("host", &[("b", Outcome::Fail)]), &LogSink)
        .unwrap();
    assert_eq!(applied.changes[0].because, [Cause::Rule]);
    let diff = ledger.diff("host", before, place.now()).unwrap();
    assert!(
        diff.iter().all(|one| one.because == [Cause::Rule]),
        "{diff:?}"
    );
    let states = states(&ledger, "host", None);
    assert_eq!(states.len(), 1, "a rule that left the pack stops counting");
}
