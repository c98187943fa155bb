//! What a user does in the tour: scan, change, scan again, ask about the past.

use serde_json::Value;

use crate::{
    facts::{KPTR_RULE, bundle},
    holdfast::Sandbox,
};

/// Scans facts with the given kernel.kptr_restrict and gives the report.
fn scan(sandbox: &Sandbox, kptr: &str) -> Value {
    let file = sandbox.file("facts.json", bundle("press-3", kptr).to_string());
    let (_, report) = sandbox.json(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    report
}

fn verdict<'v>(report: &'v Value, rule: &str) -> &'v Value {
    report["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|verdict| verdict["rule"] == rule)
        .unwrap_or_else(|| panic!("no verdict of {rule}"))
}

fn finished(report: &Value) -> &str {
    report["finished"].as_str().unwrap()
}

/// Proves: LED-2, LED-7
#[test]
fn one_changed_setting_is_exactly_one_change_and_the_past_stays_what_it_was() {
    let sandbox = Sandbox::new();
    let first = scan(&sandbox, "2");
    assert_eq!(verdict(&first, KPTR_RULE)["verdict"], "pass");
    let rules = first["verdicts"].as_array().unwrap().len();
    assert_eq!(
        first["changes"].as_array().unwrap().len(),
        rules,
        "each is first seen"
    );

    let same = scan(&sandbox, "2");
    assert_eq!(same["changes"], serde_json::json!([]));
    let before = now();

    let second = scan(&sandbox, "0");
    assert_eq!(
        second["changes"],
        serde_json::json!([{"rule": KPTR_RULE, "from": "pass", "to": "fail"}])
    );

    let (_, then) = sandbox.json(["status", "--host", "press-3", "--at", &before]);
    assert_eq!(then["scan_id"], same["scan_id"]);
    assert_eq!(then["verdicts"], same["verdicts"], "evidence included");
    let (_, at_present) = sandbox.json(["status", "--host", "press-3"]);
    assert_eq!(at_present["verdicts"], second["verdicts"]);

    let (_, diff) = sandbox.json(["diff", "--host", "press-3", &before, "now"]);
    assert_eq!(diff["changes"], second["changes"]);

    let (_, history) = sandbox.json(["history", "--host", "press-3", KPTR_RULE]);
    let kinds: Vec<&str> = history["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["first_seen", "state_changed"]);
    assert_eq!(history["changes"][1]["time"], finished(&second));
}

/// The times that are printed were those before the commit, so asking for them gave the scan before.
/// Proves: LED-7
#[test]
fn the_printed_time_of_a_scan_asks_for_that_scan() {
    let sandbox = Sandbox::new();
    let reports: Vec<Value> = ["2", "0", "2"].map(|kptr| scan(&sandbox, kptr)).into();
    for report in &reports {
        let at = finished(report);
        let (_, then) = sandbox.json(["status", "--host", "press-3", "--at", at]);
        assert_eq!(then["scan_id"], report["scan_id"]);
        assert_eq!(then["verdicts"], report["verdicts"]);
    }
    let times = [finished(&reports[0]), finished(&reports[1])];
    let (_, diff) = sandbox.json(["diff", "--host", "press-3", times[0], times[1]]);
    assert_eq!(diff["changes"], reports[1]["changes"]);
}

/// Proves: LED-4
#[test]
fn the_evidence_of_a_past_verdict_is_the_fact_as_it_was() {
    let sandbox = Sandbox::new();
    scan(&sandbox, "2");
    let before = now();
    scan(&sandbox, "0");
    let shown = |at: &str| {
        let args = [
            "status", "--host", "press-3", "--rule", KPTR_RULE, "--at", at,
        ];
        sandbox.json(args).1
    };
    let value = |shown: &Value| {
        let facts = shown["evidence_document"]["facts"].as_array().unwrap();
        let running = "sysctl.running[kernel.kptr_restrict]";
        facts.iter().find(|fact| fact["fact"] == running).unwrap()["value"].clone()
    };
    assert_eq!(value(&shown(&before)), "2");
    assert_eq!(value(&shown("now")), "0");
}

/// Proves: RUL-5
#[test]
fn exit_codes_tell_findings_from_incomplete() {
    let sandbox = Sandbox::new();
    let code = |facts: Value| {
        let file = sandbox.file("facts.json", facts.to_string());
        sandbox
            .run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()])
            .code
    };
    assert_eq!(code(bundle("a", "0")), 1, "a failing rule");
    let mut incomplete = bundle("b", "2");
    incomplete["facts"]
        .as_object_mut()
        .unwrap()
        .remove("sysctl");
    incomplete["facts"]["sockets"] = serde_json::json!({"listening": []});
    assert_eq!(
        code(incomplete),
        3,
        "nothing fails, most could not be looked at"
    );
    let mut nothing = bundle("c", "2");
    nothing["facts"] = serde_json::json!({});
    assert_eq!(
        code(nothing),
        3,
        "a scan that assessed nothing is no success"
    );
    assert_eq!(sandbox.run(["status", "--host", "a"]).code, 1);
    assert_eq!(sandbox.run(["status", "--host", "c"]).code, 3);
}

#[test]
fn a_replayed_scan_of_another_host_leaves_the_first_alone() {
    let sandbox = Sandbox::new();
    scan(&sandbox, "2");
    let file = sandbox.file("other.json", bundle("press-4", "0").to_string());
    sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    let (_, first) = sandbox.json(["status", "--host", "press-3"]);
    assert_eq!(verdict(&first, KPTR_RULE)["verdict"], "pass");
}

#[test]
fn every_rule_of_the_pack_is_listed_and_passes_its_own_tests() {
    let sandbox = Sandbox::new();
    let (code, rules) = sandbox.json(["rules", "list"]);
    assert_eq!(code, 0);
    assert!(rules.as_array().unwrap().len() >= 120);
    let (code, tests) = sandbox.json(["rules", "test"]);
    assert_eq!((code, &tests["failures"]), (0, &serde_json::json!([])));
    assert!(tests["tests"].as_u64().unwrap() >= 360);
    assert_eq!(sandbox.json(["rules", "lint"]), (0, serde_json::json!([])));
}

#[test]
fn csv_has_a_header_and_one_line_a_rule() {
    let sandbox = Sandbox::new();
    let report = scan(&sandbox, "2");
    let run = sandbox.run(["status", "--host", "press-3", "--output", "csv"]);
    let mut lines = run.stdout.lines();
    assert_eq!(
        lines.next(),
        Some("rule,severity,verdict,reason,evidence,waived_until,waived_by")
    );
    assert_eq!(lines.count(), report["verdicts"].as_array().unwrap().len());
}

#[test]
fn a_pipe_gets_no_colour_and_no_progress() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("facts.json", bundle("press-3", "0").to_string());
    let run = sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'));
    assert!(
        run.stdout.contains("CRITICAL") || run.stdout.contains("MEDIUM"),
        "{}",
        run.stdout
    );
}

/// Proves: SVC-2
#[test]
fn the_default_configuration_is_itself_a_valid_one() {
    let sandbox = Sandbox::new();
    let printed = sandbox.run(["config", "show", "--default"]).stdout;
    let uncommented: String = printed
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // A database is asked for its password at once, by a file that is not here.
            Some(setting) if setting.starts_with("postgres") => format!("{line}\n"),
            Some(setting) if setting.contains(" = ") || setting.starts_with("[[") => {
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let file = sandbox.file("holdfast.toml", uncommented);
    let run = sandbox.run([
        "--config".as_ref(),
        file.as_os_str(),
        "config".as_ref(),
        "show".as_ref(),
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("scan.walk"), "{}", run.stdout);
}

/// Proves: SVC-11
#[test]
fn the_plug_test_finds_what_is_missing() {
    let sandbox = Sandbox::new();
    let written = sandbox.run([
        "load",
        "run",
        "--writers",
        "2",
        "--commits",
        "20",
        "--quiet",
    ]);
    assert_eq!(written.code, 0, "{}", written.stderr);
    assert_eq!(written.stdout.lines().count(), 40);
    let acks = sandbox.file("acks", &written.stdout);
    let check = |acks: &std::path::Path| {
        sandbox.json(["load".as_ref(), "check".as_ref(), acks.as_os_str()])
    };
    let (code, found) = check(&acks);
    assert_eq!((code, &found["missing"]), (0, &Value::from(0)));
    let invented = sandbox.file("invented", format!("{}ack 1 21 99\n", written.stdout));
    let (code, found) = check(&invented);
    assert_eq!((code, &found["missing"]), (1, &Value::from(1)));
}

fn now() -> String {
    // The moment after the last run and before the next: both write commit times of this clock.
    jiff::Timestamp::now().to_string()
}

/// The walk-through of docs/RULES.md: its first rule, linted and tested in a directory of its own.
#[test]
fn the_first_rule_of_the_guide_lints_and_passes_its_tests() {
    let guide = std::fs::read_to_string(crate::holdfast::repository("docs/RULES.md")).unwrap();
    let rule = guide
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let sandbox = Sandbox::new();
    let id = rule.lines().next().unwrap().strip_prefix("id: ").unwrap();
    let file = sandbox.file(&format!("rules/site/{id}.yaml"), rule);
    let dir = file.parent().unwrap().parent().unwrap();
    for action in ["lint", "test"] {
        let run = sandbox.run(["rules".as_ref(), action.as_ref(), dir.as_os_str()]);
        assert_eq!(run.code, 0, "{action}: {}{}", run.stdout, run.stderr);
        assert!(
            run.stdout.contains("1 rules") || run.stdout.contains("of 1 rules"),
            "{}",
            run.stdout
        );
    }
    std::fs::write(&file, rule.replace("matches:", "matchs:")).unwrap();
    let wrong = sandbox.run(["rules".as_ref(), "lint".as_ref(), dir.as_os_str()]);
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.stdout.contains("did you mean `matches`"),
        "{}",
        wrong.stdout
    );
}
