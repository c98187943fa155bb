//! What a site decides beside the rules: values of variables, and failures that are waived.

use serde_json::{Value, json};

use crate::{
    facts::{KPTR_RULE, bundle},
    holdfast::Sandbox,
    schema,
};

fn scan(sandbox: &Sandbox, facts: &Value) -> (i32, Value) {
    let file = sandbox.file("facts.json", facts.to_string());
    sandbox.json(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()])
}

fn ok(sandbox: &Sandbox, args: &[&str]) {
    let run = sandbox.run(args);
    assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
}

fn row<'r>(report: &'r Value, rule: &str) -> &'r Value {
    let rows = report["verdicts"].as_array().unwrap();
    rows.iter().find(|row| row["rule"] == rule).unwrap()
}

/// Proves: RUL-8
#[test]
fn a_waiver_stands_beside_the_verdict_and_changes_none_of_it() {
    let sandbox = Sandbox::new();
    let (code, before) = scan(&sandbox, &bundle("press-3", "0"));
    assert_eq!(row(&before, KPTR_RULE)["verdict"], "fail");
    ok(
        &sandbox,
        &[
            "waiver",
            "add",
            KPTR_RULE,
            "--host",
            "press-3",
            "--owner",
            "anna",
            "--reason",
            "replaced in March",
            "--until",
            "30d",
        ],
    );
    let (_, requested) = sandbox.json(["status", "--host", "press-3"]);
    assert_eq!(
        requested["with_waivers"],
        Value::Null,
        "a request waives nothing"
    );
    sandbox
        .run(["waiver", "approve", "1", "--by", "Anna"])
        .is_refused_naming("Anna");
    ok(&sandbox, &["waiver", "approve", "1", "--by", "bert"]);

    let (waived_code, status) = sandbox.json(["status", "--host", "press-3"]);
    schema::check("status", &status);
    assert_eq!(waived_code, code, "the exit code counts every failure");
    assert_eq!(
        status["summary"], before["summary"],
        "and so does the score"
    );
    let shown = row(&status, KPTR_RULE);
    assert_eq!(shown["verdict"], "fail");
    assert_eq!(shown["waiver"]["owner"], "anna");
    assert_eq!(shown["waiver"]["approved_by"], "bert");
    assert_eq!(status["with_waivers"]["waived"], 1);
    let (_, again) = scan(&sandbox, &bundle("press-3", "0"));
    assert_eq!(
        again["changes"],
        json!([]),
        "a waiver is no change of the host"
    );
    assert_eq!(row(&again, KPTR_RULE)["waiver"]["id"], 1);
    let table = sandbox.run(["status", "--host", "press-3"]).stdout;
    assert!(table.contains("by anna: replaced in March"), "{table}");
    assert!(table.contains("1 of the failures waived"), "{table}");
    let csv = sandbox
        .run(["status", "--host", "press-3", "--output", "csv"])
        .stdout;
    let line = csv
        .lines()
        .find(|line| line.starts_with(KPTR_RULE))
        .unwrap();
    assert!(line.ends_with(",anna"), "{line}");

    let held = again["finished"].as_str().unwrap();
    ok(&sandbox, &["waiver", "revoke", "1", "--reason", "mended"]);
    let (_, now) = sandbox.json(["status", "--host", "press-3"]);
    assert_eq!(row(&now, KPTR_RULE)["waiver"], Value::Null);
    let (_, then) = sandbox.json(["status", "--host", "press-3", "--at", held]);
    assert_eq!(
        row(&then, KPTR_RULE)["waiver"]["owner"],
        "anna",
        "as it was"
    );
}

/// Proves: RUL-7, RUL-8
#[test]
fn a_value_of_the_site_is_judged_by_and_its_change_is_no_change_of_the_host() {
    const RULE: &str = "ssh-max-auth-tries";
    let sandbox = Sandbox::new();
    let mut facts = bundle("press-3", "0");
    facts["facts"]["sshd"] = json!({"installed": true, "effective": {"maxauthtries": "4"}});
    let (_, first) = scan(&sandbox, &facts);
    assert_eq!(row(&first, RULE)["verdict"], "pass");
    sandbox
        .run(["variable", "set", RULE, "mos", "1"])
        .is_refused_naming("mos");
    ok(
        &sandbox,
        &["variable", "set", RULE, "most", "1", "--host", "press-3"],
    );
    let (_, second) = scan(&sandbox, &facts);
    assert_eq!(
        second["changes"],
        json!([{"rule": RULE, "from": "pass", "to": "fail", "because": ["variables"]}])
    );
    schema::check("scan", &second);
    let (_, history) = sandbox.json(["history", "--host", "press-3", RULE]);
    schema::check("history", &history);
    assert_eq!(history["changes"][1]["because"], json!(["variables"]));
    let (_, rule) = sandbox.json(["status", "--host", "press-3", "--rule", RULE]);
    assert_eq!(rule["variables"], json!({"most": 1}));
    ok(
        &sandbox,
        &["variable", "unset", RULE, "most", "--host", "press-3"],
    );
    let again = sandbox.run(["variable", "unset", RULE, "most", "--host", "press-3"]);
    again.is_refused_naming("most");
}
