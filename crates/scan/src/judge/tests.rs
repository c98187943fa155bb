//! From rule text and facts to verdicts: the language, the reasons, the evidence, the limits.

mod hungry;
mod rebuilds;
mod unknown;

use serde_json::{Map, Value, json};

use super::*;
use crate::facts::Host;

pub(super) fn facts(collectors: Value) -> Facts {
    let Value::Object(mut facts) = collectors else {
        panic!("facts are a map")
    };
    facts
        .entry("os")
        .or_insert_with(|| json!({"id": "debian", "version_id": "12"}));
    Facts {
        host: Host {
            hostname: "press-3".into(),
            machine_id: None,
        },
        collected_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        collector: "test".into(),
        facts,
        timings_ms: std::collections::BTreeMap::new(),
    }
}

/// A rule whose `check` (and more, at the top level) is `body`, a YAML flow mapping.
pub(super) fn rule(body: &str) -> Rule {
    rule_with(&format!("check: {body}"))
}

fn rule_with(more: &str) -> Rule {
    let text = format!(
        "id: a-rule\ntitle: t\ndescription: d\nrationale: r\nseverity: high\nplatforms: [debian-12, rhel-9]\n\
         fix: {{summary: s}}\ntests: []\n{more}\n"
    );
    Rule::parse(&text, "a-rule.yaml").unwrap_or_else(|fault| panic!("{fault}"))
}

pub(super) fn verdict(rule: &Rule, facts: &Facts) -> Verdict {
    let verdict = judge([rule], facts).pop().unwrap();
    validate_evidence(verdict.evidence.bytes(), "a-rule").unwrap();
    verdict
}

fn sample() -> Facts {
    facts(json!({
        "c": {
            "text": "yes", "number": 5, "numeric": "14", "flag": true, "empty": "", "mode": "4755",
            "version": "1:2.3-4+deb12u1", "list": ["a", "b", "C"], "none": [], "map": {"x": 1, "y": 2},
            "day": 20_400, "seconds": 1_767_139_200, "time": "2025-12-02T00:00:00Z", "soon": "2026-01-20T00:00:00Z",
            "hidden": {"$unknown": {"reason": "privilege", "detail": "/etc/hidden"}},
            "holes": ["a", {"$unknown": {"reason": "truncated", "detail": "the rest"}}],
        },
        "files": {"/etc/a": {"exists": true, "mode": "0640"}},
    }))
}

fn check(cases: &[(&str, Outcome)]) {
    let facts = sample();
    for (body, wanted) in cases {
        let verdict = verdict(&rule(body), &facts);
        assert_eq!(verdict.verdict, *wanted, "{body}: {}", verdict.reason);
    }
}

const PASS: Outcome = Outcome::Pass;
const FAIL: Outcome = Outcome::Fail;
const UNKNOWN: Outcome = Outcome::NotAssessed;
const ERROR: Outcome = Outcome::Error;

/// Proves: RUL-3
#[test]
fn every_operator_says_yes_and_no() {
    check(&[
        ("{fact: c.text, equals: yes}", PASS),
        ("{fact: c.text, equals: 'Yes'}", FAIL),
        ("{fact: c.text, equals: 'Yes', ignore_case: true}", PASS),
        ("{fact: c.numeric, equals: 14}", PASS),
        ("{fact: c.number, equals: '5'}", PASS),
        ("{fact: c.number, equals: '05'}", PASS),
        ("{fact: c.flag, equals: 'true'}", FAIL),
        ("{fact: c.text, not_equals: no}", PASS),
        ("{fact: c.text, one_of: [no, yes]}", PASS),
        ("{fact: c.text, not_one_of: [no, yes]}", FAIL),
        ("{fact: c.numeric, less_than: 14}", FAIL),
        ("{fact: c.numeric, at_most: 14}", PASS),
        ("{fact: c.numeric, at_least: 15}", FAIL),
        ("{fact: c.numeric, greater_than: 13.5}", PASS),
        ("{fact: c.mode, mode_at_most: '4755'}", PASS),
        ("{fact: c.mode, mode_at_most: '0755'}", FAIL),
        ("{fact: 'files[/etc/a].mode', mode_at_most: '0644'}", PASS),
        ("{fact: 'files[/etc/a].mode', mode_at_most: '0600'}", FAIL),
        ("{fact: c.version, version_at_least: '1:2.3-4'}", PASS),
        ("{fact: c.version, version_less_than: '1:2.3-4'}", FAIL),
        ("{fact: c.text, matches: '^y.s$'}", PASS),
        ("{fact: c.text, not_matches: 'e'}", FAIL),
        (
            "{fact: c.time, captures: {pattern: '^(?<year>\\d+)-(?<month>\\d+)', where: {year: {at_least: 2025}, month: {equals: 12}}}}",
            PASS,
        ),
        (
            "{fact: c.time, captures: {pattern: '^(?<year>\\d+)-', where: {year: {at_least: 2026}}}}",
            FAIL,
        ),
        (
            "{fact: c.text, captures: {pattern: '(?<year>\\d+)', where: {year: {at_least: 0}}}}",
            FAIL,
        ),
        ("{fact: c.list, contains: a}", PASS),
        ("{fact: c.list, contains: c, ignore_case: true}", PASS),
        ("{fact: c.text, contains: es}", PASS),
        ("{fact: c.list, contains_all: [a, d]}", FAIL),
        ("{fact: c.list, contains_none: [d, b]}", FAIL),
        ("{fact: c.list, subset_of: [a, b, C, d]}", PASS),
        ("{fact: c.none, subset_of: []}", PASS),
        ("{fact: c.text, exists: true}", PASS),
        ("{fact: c.gone, exists: false}", PASS),
        ("{fact: c.none, empty: true}", PASS),
        ("{fact: c.empty, empty: false}", FAIL),
        ("{fact: c.list, count: {at_least: 2, at_most: 3}}", PASS),
        ("{fact: c.map, count: {equals: 3}}", FAIL),
    ]);
}

/// Proves: RUL-3
#[test]
fn ages_are_counted_from_the_moment_of_the_facts() {
    check(&[
        // 2026-01-01 is the day 20,454.
        ("{fact: c.day, older_than_days: 53}", PASS),
        ("{fact: c.day, older_than_days: 54}", FAIL),
        ("{fact: c.day, newer_than_days: 55}", PASS),
        ("{fact: c.seconds, newer_than_days: 2}", PASS),
        ("{fact: c.time, older_than_days: 29}", PASS),
        ("{fact: c.soon, older_than_days: 0}", FAIL),
        // At least 30 days left, at least 10 days left.
        ("{fact: c.soon, newer_than_days: -30}", FAIL),
        ("{fact: c.soon, newer_than_days: -10}", PASS),
        ("{fact: c.text, older_than_days: 1}", ERROR),
    ]);
}

#[test]
fn an_absent_fact_fails_every_positive_question_and_satisfies_every_negative_one() {
    check(&[
        ("{fact: c.gone, equals: 1}", FAIL),
        ("{fact: c.gone, at_most: 1}", FAIL),
        ("{fact: c.gone, empty: true}", FAIL),
        ("{fact: c.gone, count: {at_most: 0}}", FAIL),
        ("{fact: c.gone, subset_of: [a]}", FAIL),
        ("{fact: c.gone, exists: true}", FAIL),
        ("{fact: c.gone, not_equals: 1}", PASS),
        ("{fact: c.gone, not_one_of: [1]}", PASS),
        ("{fact: c.gone, not_matches: a}", PASS),
        ("{fact: c.gone, contains_none: [a]}", PASS),
        ("{fact: c.gone, default: 1, equals: 1}", PASS),
        ("{fact: c.gone, default: 2, equals: 1}", FAIL),
        ("{fact: c.gone, default: [a], contains_none: [a]}", FAIL),
        (
            "{every: {in: c.gone, check: {fact: item, equals: 1}}}",
            FAIL,
        ),
        ("{some: {in: c.gone, check: {fact: item, equals: 1}}}", FAIL),
        ("{none: {in: c.gone, check: {fact: item, equals: 1}}}", PASS),
    ]);
}

/// Proves: RUL-4
#[test]
fn an_unknown_fact_is_never_judged() {
    check(&[
        ("{fact: c.hidden, exists: false}", UNKNOWN),
        ("{fact: c.hidden, exists: true}", UNKNOWN),
        ("{fact: c.hidden.inner, default: 1, equals: 1}", UNKNOWN),
        ("{fact: c.hidden, not_equals: 1}", UNKNOWN),
        ("{not: {fact: c.hidden, equals: 1}}", UNKNOWN),
        ("{fact: d.text, not_equals: 1}", UNKNOWN),
        ("{fact: 'files[/etc/b].exists', equals: false}", UNKNOWN),
        (
            "{none: {in: c.hidden, check: {fact: item, equals: 1}}}",
            UNKNOWN,
        ),
        ("{every: {in: d, check: {fact: item, equals: 1}}}", UNKNOWN),
        (
            "{all: [{fact: c.text, equals: yes}, {fact: c.hidden, equals: 1}]}",
            UNKNOWN,
        ),
        (
            "{any: [{fact: c.text, equals: no}, {fact: c.hidden, equals: 1}]}",
            UNKNOWN,
        ),
        (
            "{any: [{fact: c.text, equals: yes}, {fact: c.hidden, equals: 1}]}",
            PASS,
        ),
        (
            "{all: [{fact: c.text, equals: no}, {fact: c.hidden, equals: 1}]}",
            FAIL,
        ),
        ("{fact: c.holes, contains: a}", PASS),
        ("{fact: c.holes, contains: b}", UNKNOWN),
        ("{fact: c.holes, contains_none: [a]}", FAIL),
        ("{fact: c.holes, contains_none: [b]}", UNKNOWN),
        ("{fact: c.holes, subset_of: [a]}", UNKNOWN),
        ("{fact: c.holes, subset_of: [b]}", FAIL),
        ("{fact: c.holes, count: {at_least: 1}}", PASS),
        ("{fact: c.holes, count: {equals: 2}}", UNKNOWN),
        ("{fact: c.holes, count: {at_most: 0}}", FAIL),
        ("{fact: c.holes, empty: true}", FAIL),
        (
            "{every: {in: c.holes, check: {fact: item, equals: a}}}",
            UNKNOWN,
        ),
        (
            "{every: {in: c.holes, check: {fact: item, equals: b}}}",
            FAIL,
        ),
        (
            "{some: {in: c.holes, check: {fact: item, equals: a}}}",
            PASS,
        ),
        (
            "{some: {in: c.holes, check: {fact: c.text, equals: no}}}",
            FAIL,
        ),
        (
            "{none: {in: c.holes, check: {fact: item, equals: b}}}",
            UNKNOWN,
        ),
    ]);
}

#[test]
fn a_value_of_a_wrong_shape_is_an_error_and_decides_nothing() {
    check(&[
        ("{fact: c.text, at_least: 3}", ERROR),
        ("{fact: c.list, equals: a}", ERROR),
        ("{fact: c.text, mode_at_most: '0600'}", ERROR),
        ("{fact: c.map, contains: x}", ERROR),
        ("{fact: c.number, count: {equals: 1}}", ERROR),
        ("{fact: c.number.deeper, exists: true}", ERROR),
        (
            "{every: {in: c.text, check: {fact: item, equals: 1}}}",
            ERROR,
        ),
        (
            "{every: {in: c.list, check: {fact: key, equals: 1}}}",
            ERROR,
        ),
        (
            "{any: [{fact: c.text, equals: yes}, {fact: c.text, at_least: 3}]}",
            PASS,
        ),
        (
            "{all: [{fact: c.hidden, equals: 1}, {fact: c.text, at_least: 3}]}",
            ERROR,
        ),
    ]);
}

/// Proves: RUL-3
#[test]
fn quantifiers_go_over_lists_and_maps() {
    check(&[
        (
            "{every: {in: c.map, check: {fact: item, at_most: 2}}}",
            PASS,
        ),
        (
            "{every: {in: c.map, where: {fact: key, equals: x}, check: {fact: item, equals: 1}}}",
            PASS,
        ),
        (
            "{some: {in: c.map, where: {fact: key, equals: x}, check: {fact: item, equals: 2}}}",
            FAIL,
        ),
        (
            "{none: {in: c.list, check: {fact: item, matches: '^[A-Z]$'}}}",
            FAIL,
        ),
        (
            "{every: {in: c.none, check: {fact: item, equals: 1}}}",
            PASS,
        ),
        ("{some: {in: c.none, check: {fact: item, equals: 1}}}", FAIL),
        (
            "{some: {in: c, where: {fact: key, equals: list}, check: {some: {in: item, check: {fact: item, equals: b}}}}}",
            PASS,
        ),
    ]);
}

/// Proves: RUL-3
#[test]
fn a_sysctl_has_to_hold_now_and_after_the_next_boot() {
    let rule = rule("{sysctl: {key: net.ipv4.ip_forward, equals: 0}}");
    for (running, persistent, wanted, reason) in [
        (
            json!("0"),
            json!({"value": "0"}),
            PASS,
            "net.ipv4.ip_forward is 0; net.ipv4.ip_forward (persistent) is 0",
        ),
        (
            json!("1"),
            json!({"value": "0"}),
            FAIL,
            "net.ipv4.ip_forward is 1, wanted 0",
        ),
        (
            json!("0"),
            json!(null),
            FAIL,
            "net.ipv4.ip_forward (persistent) is not set, wanted 0",
        ),
    ] {
        let key = "net.ipv4.ip_forward";
        let facts =
            facts(json!({"sysctl": {"running": {key: running}, "persistent": {key: persistent}}}));
        let verdict = verdict(&rule, &facts);
        assert_eq!((verdict.verdict, verdict.reason.as_str()), (wanted, reason));
    }
}

#[test]
fn a_rule_for_another_system_does_not_apply_and_an_unknown_system_is_not_assessed() {
    let rule = rule("{fact: c.x, exists: false}");
    for (os, wanted) in [
        (json!({"id": "debian", "version_id": "12"}), PASS),
        (json!({"id": "rhel", "version_id": "9.4"}), PASS),
        (
            json!({"id": "debian", "version_id": "13"}),
            Outcome::NotApplicable,
        ),
        (
            json!({"id": "ubuntu", "version_id": {"$unknown": {"reason": "malformed", "detail": "x"}}}),
            Outcome::NotApplicable,
        ),
        (json!({"id": "debian"}), Outcome::NotApplicable),
        (
            json!({"id": "debian", "version_id": {"$unknown": {"reason": "malformed", "detail": "x"}}}),
            UNKNOWN,
        ),
        (
            json!({"$unknown": {"reason": "unreadable", "detail": "/etc/os-release"}}),
            UNKNOWN,
        ),
        (json!({"id": "debian", "version_id": 12}), ERROR),
    ] {
        let verdict = verdict(&rule, &facts(json!({"os": os, "c": {}})));
        assert_eq!(verdict.verdict, wanted, "{os}: {}", verdict.reason);
    }
}

#[test]
fn what_does_not_apply_is_not_checked() {
    for (value, wanted) in [
        (json!({"installed": true, "v": 1}), PASS),
        (json!({"installed": false}), Outcome::NotApplicable),
        (
            json!({"installed": {"$unknown": {"reason": "timeout", "detail": "dpkg"}}, "v": 1}),
            UNKNOWN,
        ),
    ] {
        let rule =
            rule_with("applies: {fact: c.installed, equals: true}\ncheck: {fact: c.v, equals: 1}");
        let verdict = verdict(&rule, &facts(json!({"c": value})));
        assert_eq!(verdict.verdict, wanted, "{}", verdict.reason);
    }
}

#[test]
fn variables_stand_for_operands_and_may_be_set_from_outside() {
    let text = "variables: {most: {type: int, default: 5}, names: {type: list, default: [a, b, C]}}\n\
                check: {all: [{fact: c.number, at_most: {var: most}}, {fact: c.list, subset_of: {var: names}}]}";
    let rule = rule_with(text);
    assert_eq!(verdict(&rule, &sample()).verdict, PASS);
    let stricter = rule
        .with_variables(&[("most".to_owned(), json!(4))].into())
        .unwrap();
    assert_eq!(verdict(&stricter, &sample()).verdict, FAIL);
    assert_ne!(rule.digest, stricter.digest);
    for (name, value) in [("mst", json!(4)), ("most", json!("four"))] {
        let fault = rule
            .with_variables(&[(name.to_owned(), value)].into())
            .unwrap_err();
        assert!(fault.to_string().starts_with("a-rule.yaml:9:"), "{fault}");
    }
}

#[test]
fn reasons_say_what_was_found_and_what_was_wanted() {
    let facts = facts(json!({
        "sshd": {"effective": {"permitrootlogin": "yes"}},
        "files": {"/etc/shadow": {"mode": "0644"}},
        "walk": {"setuid": [
            {"path": "/tmp/a", "mode": "4777"}, {"path": "/tmp/b", "mode": "4775"}, {"path": "/ok", "mode": "4755"},
            {"path": "/tmp/c\u{1b}[0m", "mode": "4777"}, {"path": "/tmp/d", "mode": "4777"},
        ]},
        "users": {"users": {"root": {"uid": 0}, "toor": {"uid": 0}, "bin": {"uid": 2}}},
        "shadow": {"$unknown": {"reason": "privilege", "detail": "/etc/shadow: permission denied"}},
    }));
    for (body, wanted) in [
        (
            "{fact: sshd.effective.permitrootlogin, equals: no}",
            "sshd permitrootlogin is yes, wanted no",
        ),
        (
            "{fact: 'files[/etc/shadow].mode', mode_at_most: '0640'}",
            "/etc/shadow mode is 0644, wanted at most 0640",
        ),
        (
            "{fact: sshd.effective.banner, matches: /issue}",
            "sshd banner is not set, wanted a match of //issue/",
        ),
        (
            "{every: {in: walk.setuid, check: {fact: item.mode, mode_at_most: '4755'}}}",
            "4 of 5 in walk.setuid: /tmp/a (mode 4777), /tmp/b (mode 4775), /tmp/c\\u{1b}[0m (mode 4777), …; wanted mode at most 4755",
        ),
        (
            "{none: {in: users.users, where: {fact: key, not_equals: root}, check: {fact: item.uid, equals: 0}}}",
            "1 of 2 in users.users: toor (uid 0)",
        ),
        (
            "{some: {in: users.users, check: {fact: item.uid, equals: 9}}}",
            "none of 3 in users.users is as wanted: uid 9",
        ),
        (
            "{fact: shadow.users, exists: true}",
            "privilege: /etc/shadow: permission denied",
        ),
        (
            "{fact: pam.stacks, exists: true}",
            "missing: the collector pam is not in the facts",
        ),
        (
            "{fact: walk.setuid, count: {at_most: 0}}",
            "walk.setuid has 5 elements (/tmp/a, …), wanted at most 0 of them",
        ),
        (
            "{fact: sshd.effective.permitrootlogin, at_most: 3}",
            "sshd permitrootlogin is yes, which is not a number",
        ),
        (
            "{every: {in: walk.setuid, check: {fact: item.mode, matches: '^4'}}}",
            "all 5 in walk.setuid",
        ),
    ] {
        assert_eq!(verdict(&rule(body), &facts).reason, wanted, "{body}");
    }
}

#[test]
fn evidence_holds_the_consulted_facts_in_order_and_each_once() {
    let body = "{all: [{fact: c.text, equals: yes}, {fact: c.gone, exists: false}, {fact: c.text, not_equals: x}, \
                {fact: c.hidden.x, equals: 1}, {every: {in: c.list, check: {fact: item, matches: '^[a-z]$'}}}, \
                {every: {in: c.map, check: {fact: item, at_least: 1}}}]}";
    let verdict = verdict(&rule(body), &sample());
    let wanted = json!({"schema": "holdfast.evidence/1", "rule": "a-rule", "facts": [
        {"fact": "c.text", "value": "yes"},
        {"fact": "c.gone", "absent": true},
        {"fact": "c.hidden.x", "unknown": {"reason": "privilege", "detail": "/etc/hidden"}},
        {"fact": "c.list", "count": 3, "cut": 2, "value": ["C"]},
        {"fact": "c.map", "count": 2},
    ]});
    assert_eq!(
        serde_json::from_slice::<Value>(verdict.evidence.bytes()).unwrap(),
        wanted
    );
    assert_eq!(verdict.evidence.digest(), digest(verdict.evidence.bytes()));
}

#[test]
fn evidence_of_the_same_facts_is_the_same_at_another_time() {
    let rule = rule("{fact: c.time, older_than_days: 29}");
    let mut later = sample();
    later.collected_at = "2026-01-02T03:04:05Z".parse().unwrap();
    assert_eq!(
        verdict(&rule, &sample()).evidence,
        verdict(&rule, &later).evidence
    );
}

#[test]
fn evidence_never_exceeds_its_limit() {
    let long = "x".repeat(3_000);
    let list: Vec<Value> = (0..10_000)
        .map(|n| json!({"path": format!("/{n}/{long}"), "mode": "0777"}))
        .collect();
    let huge: Map<String, Value> = (0..5_000)
        .map(|n| (format!("{n}{long}"), json!({"a": long})))
        .collect();
    let facts = facts(
        json!({"c": {"list": list, "map": huge, "text": long.repeat(500), "one": {"inner": long.repeat(100)}}}),
    );
    for (body, wanted) in [
        (
            "{every: {in: c.list, check: {fact: item.mode, equals: '0644'}}}",
            FAIL,
        ),
        ("{fact: c.list, contains_none: [x]}", PASS),
        ("{fact: c.map, equals: x}", ERROR),
        ("{fact: c.one, equals: x}", ERROR),
        (
            "{all: [{fact: c.text, contains: y}, {every: {in: c.map, check: {fact: item.a, equals: z}}}]}",
            FAIL,
        ),
    ] {
        let verdict = verdict(&rule(body), &facts);
        assert_eq!(verdict.verdict, wanted, "{body}");
        assert!(verdict.evidence.bytes().len() <= EVIDENCE_BYTES_MAX);
        assert!(verdict.reason.chars().count() <= explain::REASON_CHARS_MAX);
    }
}

/// Proves: LED-4
#[test]
fn evidence_that_is_not_of_the_schema_is_refused() {
    let schema = include_str!("../../../../docs/schema/evidence.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let published = jsonschema::validator_for(&schema).unwrap();
    let of = |facts: &str| {
        format!("{{\"facts\":{facts},\"rule\":\"a-rule\",\"schema\":\"holdfast.evidence/1\"}}")
    };
    for (facts, valid) in [
        ("[]", true),
        (r#"[{"fact":"a.b","value":false}]"#, true),
        (r#"[{"count":3,"cut":2,"fact":"a.b","value":["x"]}]"#, true),
        (r#"[{"count":3,"fact":"a.b"}]"#, true),
        (r#"[{"absent":true,"fact":"a.b"}]"#, true),
        (
            r#"[{"fact":"a.b","unknown":{"detail":"d","reason":"privilege"}}]"#,
            true,
        ),
        (r#"[{"absent":false,"fact":"a.b"}]"#, false),
        (r#"[{"fact":"a.b"}]"#, false),
        (r#"[{"fact":"a.b","value":null}]"#, false),
        (r#"[{"absent":true,"fact":"a.b","value":1}]"#, false),
        (r#"[{"fact":"a.b","when":"today","value":1}]"#, false),
        (
            r#"[{"fact":"a.b","unknown":{"detail":"d","reason":"mood"}}]"#,
            false,
        ),
        (r#"[{"cut":2,"fact":"a.b","value":["x"]}]"#, false),
        (r#"[{"count":3,"cut":0,"fact":"a.b","value":["x"]}]"#, false),
        (r#"[{"fact":"A B","value":1}]"#, false),
        (r#"{}"#, false),
    ] {
        let text = of(facts);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            validate_evidence(text.as_bytes(), "a-rule").is_ok(),
            valid,
            "{text}"
        );
        assert_eq!(
            published.is_valid(&value),
            valid,
            "the published schema and {text}"
        );
    }
    for text in [
        of("[]").replace("a-rule", "b-rule"),
        of("[]").replace("evidence/1", "evidence/2"),
        of("[]").replace(":[]", ": []"),
        of(r#"[{"count":4,"cut":2,"fact":"a.b","value":["x"]}]"#),
        format!("{}{}", of("[]"), " ".repeat(EVIDENCE_BYTES_MAX)),
        "\u{0}".to_owned(),
    ] {
        assert!(
            validate_evidence(text.as_bytes(), "a-rule").is_err(),
            "{text:.80}"
        );
    }
}

#[test]
fn a_rule_that_needs_too_many_steps_is_an_error() {
    let facts = facts(json!({"c": {"list": [1, 2, 3, 4, 5]}}));
    let rule = rule("{every: {in: c.list, check: {fact: item, at_most: 9}}}");
    assert!(
        Evaluation::with_steps(&facts, 11)
            .trace(&rule.check, None)
            .is_ok()
    );
    assert!(
        Evaluation::with_steps(&facts, 10)
            .trace(&rule.check, None)
            .is_err()
    );
}

#[test]
fn the_score_has_one_denominator_and_100_means_all() {
    let outcomes = |pass: usize, fail: usize| {
        let other = [Outcome::NotApplicable, Outcome::NotAssessed, Outcome::Error];
        std::iter::repeat_n(PASS, pass)
            .chain(std::iter::repeat_n(FAIL, fail))
            .chain(other)
    };
    for (pass, fail, score) in [
        (0, 0, None),
        (3, 0, Some(100.0)),
        (2, 1, Some(66.6)),
        (9_999, 1, Some(99.9)),
        (0, 7, Some(0.0)),
    ] {
        let summary = Summary::of(outcomes(pass, fail));
        assert_eq!(
            (summary.score, summary.not_assessed),
            (score, 1),
            "{pass} {fail}"
        );
    }
}
