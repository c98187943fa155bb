//! Rules and facts made to take for ever: each ends in an error of its own, and the others go on.

use serde_json::{Value, json};

use super::{ERROR, Outcome, PASS, facts, rule};
use crate::judge::{EVIDENCE_BYTES_MAX, judge};

/// A hundred thousand elements, and one text of a megabyte.
fn heavy() -> Value {
    let list: Vec<String> = (0..100_000)
        .map(|number| format!("item {number}"))
        .collect();
    json!({"list": list, "text": "a".repeat(1 << 20), "small": ["x"]})
}

/// The verdict of a hungry rule, and that of a plain one judged after it.
fn check(body: &str, wanted: Option<Outcome>) {
    let facts = facts(json!({"c": heavy()}));
    let (hungry, plain) = (rule(body), rule("{fact: c.small, contains: x}"));
    let verdicts = judge([&hungry, &plain], &facts);
    if let Some(wanted) = wanted {
        assert_eq!(
            verdicts[0].verdict, wanted,
            "{body}: {}",
            verdicts[0].reason
        );
    }
    assert_eq!(verdicts[1].verdict, PASS, "the next rule after {body}");
    for verdict in &verdicts {
        assert!(
            verdict.evidence.bytes().len() <= EVIDENCE_BYTES_MAX,
            "{body}"
        );
    }
}

/// Ten thousand million pairs.
///
/// Proves: RUL-4
#[test]
fn quantifiers_inside_quantifiers_over_long_lists_give_up_and_the_others_go_on() {
    check(
        "{every: {in: c.list, check: {some: {in: c.list, check: {fact: item, equals: none}}}}}",
        Some(ERROR),
    );
    check(
        "{none: {in: c.list, check: {every: {in: c.list, check: {some: {in: c.list, check: {fact: item, equals: none}}}}}}}",
        Some(ERROR),
    );
}

/// The engine is linear in text, so what would be exponential elsewhere is decided; the length of
/// what is read is charged, element by element.
#[test]
fn patterns_that_explode_elsewhere_are_linear_and_are_charged() {
    for pattern in ["^(a+)+$", "^(a|aa)+$", "(a*)*b", "^(.*a){12}b$"] {
        check(&format!("{{fact: c.text, matches: '{pattern}'}}"), None);
    }
    check(
        "{every: {in: c.list, check: {fact: c.text, matches: '(a*)*b'}}}",
        Some(ERROR),
    );
}

/// A repetition that would compile to gigabytes is refused when the rule is read.
#[test]
fn a_pattern_too_large_to_compile_is_refused_with_its_place() {
    let text = "id: a\ntitle: t\ndescription: d\nrationale: r\nseverity: low\nplatforms: [debian-12]\n\
                fix: {summary: s}\ntests: []\ncheck: {fact: c.text, matches: '((a{1000}){1000}){1000}'}\n";
    let fault = crate::rule::Rule::parse(text, "a.yaml")
        .unwrap_err()
        .to_string();
    assert!(fault.starts_with("a.yaml:9:"), "{fault}");
}
