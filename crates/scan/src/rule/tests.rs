//! Rule files: what is refused where and with which words, and the pack that ships.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    collect::Needs,
    judge::{Outcome, Summary, judge},
};

const GOOD: &str = "\
id: a-rule
title: A statement
description: What is required.
rationale: Why it matters.
severity: high
platforms: [debian-12]
references: {nist_800_53: [AC-6, 'AC-6(10)'], anssi_bp28: [R12]}
variables:
  most: {type: int, default: 3}
check:
  all:
    - {fact: login_defs.settings.UMASK, at_most: {var: most}}
    - {fact: 'files[/etc/shadow].mode', mode_at_most: '0640'}
fix:
  summary: Do it.
tests:
  - name: right
    facts: &right {login_defs: {settings: {UMASK: '3'}}, files: {/etc/shadow: {exists: true, mode: '0640'}}}
    expect: pass
  - name: wrong
    facts: {login_defs: {settings: {UMASK: '4'}}, files: {/etc/shadow: {exists: true, mode: '0640'}}}
    expect: fail
  - {name: not collected, facts: {}, expect: not_assessed}
";

fn good() -> Rule {
    Rule::parse(GOOD, "a-rule.yaml").unwrap()
}

/// What to replace in the good rule, by what, where the fault is, and words in it.
const MALFORMED: &[(&str, &str, &str, &str)] = &[
    (
        "title:",
        "titel:",
        "2:1",
        "unknown field `titel` in the rule; did you mean `title`?",
    ),
    (
        "title: A statement\n",
        "",
        "1:1",
        "the rule has no `title`; add `title:`",
    ),
    ("id: a-rule", "id: A_rule", "1:5", "not lower case words"),
    (
        "severity: high",
        "severity: hgh",
        "5:11",
        "did you mean `high`?",
    ),
    ("platforms: [debian-12]", "platforms: []", "6:12", "empty"),
    (
        "platforms: [debian-12]",
        "platforms: [debian]",
        "6:12",
        "debian-12",
    ),
    (
        "at_most: {var: most}",
        "at_mst: {var: most}",
        "12:41",
        "did you mean `at_most`?",
    ),
    (
        "at_most: {var: most}",
        "at_most: {var: mst}",
        "12:50",
        "unknown variable `mst`; did you mean `most`?",
    ),
    (
        "at_most: {var: most}",
        "at_most: three",
        "12:50",
        "wanted a number",
    ),
    (
        "at_most: {var: most}",
        "matches: '('",
        "12:50",
        "no regular expression",
    ),
    (
        "at_most: {var: most}",
        "matches: '(\\w{900}){900}'",
        "12:50",
        "no regular expression",
    ),
    ("at_most: {var: most}", "one_of: []", "12:49", "0 values"),
    ("at_most: {var: most}", "equals: ", "12:47", "is empty"),
    (", at_most: {var: most}", "", "12:7", "no operator"),
    (
        "at_most: {var: most}",
        "at_most: 1, at_least: 0",
        "12:7",
        "more than one operator",
    ),
    (
        "at_most: {var: most}",
        "exists: true, default: 1",
        "12:7",
        "contradict",
    ),
    (
        "mode_at_most: '0640'",
        "mode_at_most: 0640",
        "13:55",
        "octal digits in quotes",
    ),
    (
        "login_defs.settings.UMASK",
        "'login_defs[UMASK'",
        "12:14",
        "without `]`",
    ),
    (
        "login_defs.settings.UMASK",
        "item.x",
        "12:14",
        "outside `every`, `some` and `none`",
    ),
    (
        "files[/etc/shadow].mode",
        "text[/etc/shadow].lines",
        "13:14",
        "its content is secret",
    ),
    (
        "files[/etc/shadow].mode",
        "files[/etc/../etc/shadow].mode",
        "13:14",
        "not a plain absolute path",
    ),
    ("  all:", "  al:", "11:3", "did you mean `all`?"),
    (
        "default: 3",
        "default: three",
        "9:30",
        "wanted a whole number",
    ),
    (
        "expect: fail",
        "expect: failed",
        "22:13",
        "did you mean `fail`?",
    ),
];

/// Replaces `from` in the good rule; the fault must begin with the place and hold the words.
fn refused(cases: &[(&str, &str, &str, &str)]) {
    for (from, to, place, words) in cases {
        assert!(GOOD.contains(from), "{from}");
        let fault = Rule::parse(&GOOD.replacen(from, to, 1), "a-rule.yaml")
            .unwrap_err()
            .to_string();
        assert!(
            fault.starts_with(&format!("a-rule.yaml:{place}: ")),
            "{to}: {fault}"
        );
        assert!(fault.contains(words), "{to}: {fault}");
    }
}

/// Proves: RUL-1
#[test]
fn a_malformed_rule_is_refused_with_its_place_and_the_next_step() {
    refused(MALFORMED);
    let nothing = "check:\n  all: []\n";
    let text = GOOD.split("check:").next().unwrap().to_owned()
        + nothing
        + "fix: {summary: s}\ntests: []\n";
    let fault = Rule::parse(&text, "a.yaml").unwrap_err();
    assert!(fault.what.contains("would look at nothing"), "{fault}");
}

/// Proves: RUL-1
#[test]
fn predicates_are_bounded_in_depth_and_number() {
    let with = |check: &str| {
        let head = GOOD.split("check:").next().unwrap();
        Rule::parse(
            &format!("{head}check: {check}\nfix: {{summary: s}}\ntests: []\n"),
            "a.yaml",
        )
    };
    let deep = |levels: usize| {
        format!(
            "{}{{fact: c.x, exists: true}}{}",
            "{not: ".repeat(levels),
            "}".repeat(levels)
        )
    };
    assert!(with(&deep(12)).is_ok());
    assert!(with(&deep(13)).unwrap_err().what.contains("nested deeper"));
    assert!(with(&deep(5_000)).is_err());
    let wide = |count: usize| format!("{{all: [{}]}}", "{fact: c.x, exists: true},".repeat(count));
    assert!(with(&wide(511)).is_ok());
    assert!(with(&wide(512)).unwrap_err().what.contains("more than 512"));
    let long = format!("# {}\n{GOOD}", "x".repeat(256 * 1024));
    assert!(
        Rule::parse(&long, "a.yaml")
            .unwrap_err()
            .what
            .contains("bytes")
    );
}

#[test]
fn the_digest_is_of_the_rule_and_not_of_its_tests() {
    let digest = |text: &str| Rule::parse(text, "x.yaml").unwrap().digest;
    let same = digest(GOOD);
    assert_eq!(same.len(), 64);
    assert_eq!(digest(&GOOD.replace("name: wrong", "name: bad")), same);
    assert_eq!(digest(&format!("# a comment\n{GOOD}")), same);
    assert_ne!(digest(&GOOD.replace("default: 3", "default: 4")), same);
    assert_ne!(
        digest(&GOOD.replace("severity: high", "severity: low")),
        same
    );
}

#[test]
fn lint_names_a_fact_that_a_platform_of_the_rule_does_not_have() {
    let text = GOOD.replace("[debian-12]", "[debian-12, rhel-9]").replace(
        "login_defs.settings.UMASK, at_most",
        "updates.lists_age_days, at_most",
    );
    let rule = Rule::parse(&text, "a-rule.yaml").unwrap();
    let faults: Vec<String> = lint([&rule]).iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].contains("`updates` brings nothing on rhel-9; take rhel-9 out"),
        "{faults:?}"
    );
}

#[test]
fn lint_names_what_is_wrong_and_what_to_do() {
    assert_eq!(lint([&good()]), [], "the good rule");
    for (from, to, words) in [
        (
            "[debian-12]",
            "[debian-21]",
            "unknown platform `debian-21`; did you mean `debian-12`?",
        ),
        ("nist_800_53:", "nist_800:", "did you mean `nist_800_53`?"),
        ("AC-6,", "'AC 6',", "no id of nist_800_53"),
        (
            "login_defs.settings",
            "login_def.settings",
            "unknown collector `login_def`; did you mean `login_defs`?",
        ),
        ("shadow].mode'", "shadow].mod'", "did you mean `mode`?"),
        (
            "at_most: {var: most}",
            "contains_all: [x]",
            "cannot read `login_defs.settings.UMASK`",
        ),
        (
            "at_most: {var: most}",
            "equals: 1",
            "the variable `most` is not used",
        ),
        ("expect: fail", "expect: pass", "no test expects `fail`"),
        ("name: wrong", "name: right", "two tests are called `right`"),
        (
            "expect: not_assessed",
            "expect: fail",
            "because a fact is missing",
        ),
    ] {
        let text = GOOD.replacen(from, to, 1);
        let rule = Rule::parse(&text, "a-rule.yaml").unwrap();
        let faults: Vec<String> = lint([&rule]).iter().map(ToString::to_string).collect();
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains(words) && fault.starts_with("a-rule.yaml:")),
            "{to}: {faults:?}"
        );
    }
}

#[test]
fn a_failing_test_is_reported_with_what_came_instead() {
    let rule = Rule::parse(&GOOD.replace("UMASK: '4'", "UMASK: '1'"), "a-rule.yaml").unwrap();
    let report = test_rules([&rule]);
    assert_eq!(
        (report.rules, report.tests, report.failures.len()),
        (1, 3, 1)
    );
    let failure = &report.failures[0];
    assert_eq!((failure.test.as_str(), failure.line), ("wrong", 20));
    assert_eq!(
        (failure.expected, failure.actual),
        (Outcome::Fail, Some(Outcome::Pass))
    );
    assert!(failure.reason.contains("UMASK is 1"), "{}", failure.reason);
}

#[test]
fn needs_are_the_paths_that_rules_name() {
    let needs = Needs::of([&good()]);
    assert_eq!(needs.files.iter().collect::<Vec<_>>(), ["/etc/shadow"]);
    assert!(needs.text.is_empty() && needs.globs.is_empty() && needs.hashes.is_empty());
}

/// Were a collector open and the language thought it closed, a path that nobody asked for would
/// count as absent.
#[test]
fn the_language_and_the_catalog_agree_on_what_is_collected_only_when_asked() {
    let open: std::collections::BTreeSet<&str> = crate::collect::catalog()
        .filter(|pattern| pattern.open)
        .map(|pattern| pattern.path)
        .collect();
    assert_eq!(open.into_iter().collect::<Vec<_>>(), OPEN_COLLECTORS);
}

#[test]
fn a_directory_gives_its_good_rules_and_names_the_bad_ones() {
    let dir = tempfile::tempdir().unwrap();
    let disk = world::RealDisk;
    let put = |name: &str, text: &str| {
        use world::Disk;
        let path = dir.path().join(name);
        disk.create_dir_all_synced(path.parent().unwrap()).unwrap();
        disk.replace(&path, text.as_bytes()).unwrap();
    };
    put("kernel/a-rule.yaml", GOOD);
    put("kernel/other.yaml", GOOD);
    put("zebra/a-rule.yaml", GOOD);
    put("broken.yaml", "id: [");
    put("notes.txt", "not a rule");
    let loaded = Pack::load(&disk, dir.path()).unwrap();
    assert_eq!(loaded.pack.rules.len(), 1);
    assert_eq!(loaded.pack.find("a-rule").unwrap().category, "kernel");
    let mut faults: Vec<&str> = loaded
        .faults
        .iter()
        .map(|fault| fault.what.as_str())
        .collect();
    faults.sort_unstable();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[0].contains("not valid YAML"), "{faults:?}");
    assert!(faults[1].contains("not named after its rule"), "{faults:?}");
    assert!(faults[2].contains("taken by another rule"), "{faults:?}");
    let twice = loaded.pack.clone().join(loaded.pack);
    assert_eq!((twice.pack.rules.len(), twice.faults.len()), (1, 1));
}

#[test]
fn the_whole_pack_parses_and_is_without_findings() {
    let loaded = Pack::embedded();
    let mut found: Vec<String> = loaded.faults.iter().map(ToString::to_string).collect();
    found.extend(lint(&loaded.pack.rules).iter().map(ToString::to_string));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Proves: RUL-6
#[test]
fn every_platform_has_at_least_250_rules() {
    let rules = Pack::embedded().pack.rules;
    for known in KNOWN_PLATFORMS {
        let is_for = |rule: &&Rule| rule.platforms.iter().any(|one| one.to_string() == known);
        let count = rules.iter().filter(is_for).count();
        assert!(count >= 250, "{known}: {count} rules");
    }
}

#[test]
fn the_pack_in_the_program_is_the_pack_on_disk_and_keeps_its_tests() {
    let on_disk = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/rules"));
    let disk = Pack::load(&world::RealDisk, on_disk).unwrap();
    let embedded = Pack::embedded();
    assert_eq!((disk.faults.len(), embedded.faults.len()), (0, 0));
    let rules = |pack: &Pack| -> Vec<(String, String, String, usize)> {
        let of = |rule: &Rule| {
            let (id, digest) = (rule.id.clone(), rule.digest.clone());
            (id, digest, rule.category.clone(), rule.tests().len())
        };
        pack.rules.iter().map(of).collect()
    };
    assert_eq!(rules(&disk.pack), rules(&embedded.pack));
    assert!(rules(&disk.pack).iter().all(|(_, _, _, tests)| *tests >= 3));
}

#[test]
fn every_rule_of_the_pack_passes_its_tests() {
    let report = test_rules(&Pack::embedded().pack.rules);
    let failed: Vec<String> = report
        .failures
        .iter()
        .map(|f| {
            format!(
                "{}: {}: expected {}, got {:?}: {}",
                f.rule, f.test, f.expected, f.actual, f.reason
            )
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn os_only() -> Map<String, Value> {
    let Value::Object(facts) = json!({"os": {"id": "debian", "version_id": "12"}}) else {
        unreachable!()
    };
    facts
}

/// Proves: RUL-4
#[test]
fn the_whole_pack_neither_passes_nor_fails_where_nothing_was_collected() {
    let pack = Pack::embedded().pack;
    let mut bundle = good().tests()[0].bundle();
    bundle.facts = os_only();
    let verdicts = judge(&pack.rules, &bundle);
    let summary = Summary::of(verdicts.iter().map(|verdict| verdict.verdict));
    assert_eq!(
        (summary.pass, summary.fail, summary.error, summary.score),
        (0, 0, 0, None),
        "{summary:?}"
    );
    assert!(summary.not_assessed > 0);
}

/// Each rule's own passing facts, with everything but the system's name unknown.
///
/// Proves: RUL-4
#[test]
fn no_rule_passes_when_all_it_looks_at_is_refused() {
    for rule in &Pack::embedded().pack.rules {
        for test in rule
            .tests()
            .iter()
            .filter(|test| matches!(test.expect, Outcome::Pass | Outcome::Fail))
        {
            let mut bundle = test.bundle();
            for (name, fact) in &mut bundle.facts {
                if name != "os" {
                    *fact = json!({"$unknown": {"reason": "privilege", "detail": name}});
                }
            }
            let verdict = judge([rule], &bundle).remove(0);
            assert!(
                matches!(
                    verdict.verdict,
                    Outcome::NotAssessed | Outcome::NotApplicable
                ),
                "{}: {}: {}",
                rule.id,
                test.name,
                verdict.reason
            );
        }
    }
}

#[test]
fn the_published_schema_of_a_rule_accepts_the_pack_and_refuses_what_does_not_parse() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../../docs/schema/rule.json")).unwrap();
    let published = jsonschema::validator_for(&schema).unwrap();
    let on_disk = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/rules"));
    let loaded = Pack::load(&world::RealDisk, on_disk).unwrap();
    for rule in &loaded.pack.rules {
        let errors: Vec<String> = published
            .iter_errors(&rule.to_json())
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{}: {}", rule.id, errors.join("; "));
    }
    assert!(published.is_valid(&good().to_json()));
    for (field, value) in [
        ("titel", json!("x")),
        ("severity", json!("hgh")),
        ("check", json!({"fact": "a.b"})),
        ("check", json!({"all": []})),
        ("check", json!({"fact": "a.b", "equals": 1, "matches": "x"})),
        ("check", json!({"fact": "a.b", "equal": 1})),
        ("check", json!({"every": {"in": "a.b"}})),
        (
            "tests",
            json!([{"name": "x", "facts": {}, "expect": "passed"}]),
        ),
    ] {
        let mut wrong = good().to_json();
        wrong[field] = value;
        assert!(!published.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn the_rule_in_the_documentation_is_clean_and_passes_its_tests() {
    let page = include_str!("../../../../docs/RULES.md");
    let text = page
        .split("```yaml\n")
        .find(|block| block.starts_with("id:"))
        .and_then(|block| block.split("```").next())
        .expect("the page has a first rule");
    let rule = Rule::parse(text, "motd-without-version.yaml").unwrap();
    assert_eq!(lint([&rule]), []);
    assert_eq!(test_rules([&rule]).failures, []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_rule_file_is_refused_or_judged_but_never_a_panic(
        cuts in prop::collection::vec((0..GOOD.len(), 0..12_usize, "[\\PC\\n\\t]{0,6}"), 1..4),
    ) {
        let mut text = GOOD.to_owned();
        for (at, len, with) in cuts {
            let (from, to) = (at.min(text.len()), (at + len).min(text.len()));
            if text.is_char_boundary(from) && text.is_char_boundary(to) {
                text.replace_range(from..to, &with);
            }
        }
        match Rule::parse(&text, "a.yaml") {
            Ok(rule) => {
                lint([&rule]);
                test_rules([&rule]);
            }
            Err(fault) => prop_assert!(!fault.what.is_empty()),
        }
    }
}
