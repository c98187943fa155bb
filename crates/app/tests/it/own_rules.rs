//! A first rule of one's own, from `rules new` to a verdict, and what rules say they serve.

use crate::{facts::bundle, holdfast::Sandbox};

/// Proves: RUL-6
#[test]
fn a_rule_begun_with_rules_new_is_clean_tested_and_judged_without_a_change() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("site-rules");
    let dir = dir.to_str().unwrap();
    let begin = [
        "rules",
        "new",
        "motd-is-short",
        "--dir",
        dir,
        "--platform",
        "debian-12",
    ];
    let begun = sandbox.run(begin);
    assert_eq!(begun.code, 0, "{}", begun.stderr);
    assert!(
        begun.stderr.contains("holdfast rules test"),
        "{}",
        begun.stderr
    );
    for check in ["lint", "test"] {
        let run = sandbox.run(["rules", check, dir]);
        assert_eq!(run.code, 0, "{check}: {}{}", run.stdout, run.stderr);
    }
    let mut facts = bundle("press-3", "2");
    facts["facts"]["text"] =
        serde_json::json!({"/etc/motd": {"exists": true, "lines": vec!["x"; 25]}});
    let file = sandbox.file("facts.json", facts.to_string());
    let (_, report) = sandbox.json([
        "scan",
        "--replay",
        file.to_str().unwrap(),
        "--rules-dir",
        dir,
    ]);
    let verdicts = report["verdicts"].as_array().unwrap();
    let own = verdicts
        .iter()
        .find(|verdict| verdict["rule"] == "motd-is-short");
    assert_eq!(own.unwrap()["verdict"], "fail");

    // What stands is the user's, and an id of the pack is taken.
    sandbox.run(begin).is_refused_naming("motd-is-short.yaml");
    let taken = sandbox.run(["rules", "new", "shadow-mode", "--dir", dir]);
    taken.is_refused_naming("shadow-mode");
    for id in ["../up", "Upper", "a.yaml"] {
        let refused = sandbox.run(["rules", "new", id, "--dir", dir]);
        refused.is_refused_naming(id);
        refused.tells_next_step();
    }
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

/// Proves: RUL-6
#[test]
fn coverage_tells_controls_and_rules_without_one_in_every_form() {
    let sandbox = Sandbox::new();
    let ask = [
        "rules",
        "coverage",
        "--framework",
        "cis",
        "--platform",
        "debian-12",
    ];
    let (code, found) = sandbox.json(ask);
    assert_eq!((code, &found["framework"]), (0, &"cis".into()));
    let (rules, with) = (
        found["platforms"][0]["rules"].as_u64().unwrap(),
        found["platforms"][0]["rules_with_reference"]
            .as_u64()
            .unwrap(),
    );
    let without = found["without"].as_array().unwrap().len();
    assert!(with > 100, "{with}");
    assert_eq!(usize::try_from(rules - with).unwrap(), without);
    let lines = sandbox
        .run(ask.into_iter().chain(["--output", "csv"]))
        .stdout;
    assert!(
        lines.starts_with("reference,control,rule,platforms\n"),
        "{lines:.200}"
    );
    assert!(lines.contains("cis_debian_12,"), "{lines:.200}");
    let table = sandbox.run(ask).stdout;
    assert!(table.contains("WITH A CONTROL") && table.contains("RULE WITHOUT A CONTROL"));
    let other = [
        "rules",
        "coverage",
        "--framework",
        "nist",
        "--platform",
        "beos-5",
    ];
    sandbox.run(other).is_refused_naming("beos-5");
}
