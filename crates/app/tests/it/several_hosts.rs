//! `history`, `diff` and `status` of several hosts at once.

use serde_json::{Value, json};

use crate::{
    facts::{self, KPTR_RULE},
    holdfast::Sandbox,
    schema,
};

fn scan(sandbox: &Sandbox, host: &str, kptr: &str) -> Value {
    let file = sandbox.file("facts.json", facts::bundle(host, kptr).to_string());
    let scan = ["scan".as_ref(), "--replay".as_ref(), file.as_os_str()];
    sandbox.json(scan).1
}

fn hosts(document: &Value) -> Vec<&str> {
    let hosts = document["hosts"].as_array().unwrap().iter();
    hosts.map(|host| host["host"].as_str().unwrap()).collect()
}

/// Proves: LED-7
#[test]
fn history_and_diff_of_several_hosts_are_those_of_each() {
    let sandbox = Sandbox::new();
    let firsts = ["press-1", "press-2", "press-3"].map(|host| scan(&sandbox, host, "2"));
    let before = firsts[2]["finished"].as_str().unwrap();
    scan(&sandbox, "press-2", "0");

    let (_, all) = sandbox.json(["history", "--all", KPTR_RULE]);
    schema::check("history-hosts", &all);
    assert_eq!(hosts(&all), ["press-1", "press-2", "press-3"]);
    for (host, found) in hosts(&all).iter().zip(all["hosts"].as_array().unwrap()) {
        let (_, one) = sandbox.json(["history", "--host", host, KPTR_RULE]);
        assert_eq!(*found, one);
    }
    let (_, diff) = sandbox.json(["diff", "--all", before, "now"]);
    schema::check("diff-hosts", &diff);
    let changes = |host: usize| diff["hosts"][host]["changes"].clone();
    let turned = json!([{"rule": KPTR_RULE, "from": "pass", "to": "fail"}]);
    assert_eq!(
        [changes(0), changes(1), changes(2)],
        [json!([]), turned, json!([])]
    );

    let two = ["--host", "press-3", "--host", "press-2"];
    let (_, named) = sandbox.json([&["history"], &two[..], &[KPTR_RULE]].concat());
    assert_eq!(hosts(&named), ["press-2", "press-3"]);

    let csv = sandbox.run(["history", "--all", KPTR_RULE, "-o", "csv"]);
    let lines: Vec<&str> = csv.stdout.lines().collect();
    assert!(lines[0].starts_with("host,time,from,to,"), "{lines:?}");
    assert_eq!(lines.len(), 5, "{lines:?}");
    let table = sandbox.run(["diff", "--all", before, "now"]).stdout;
    assert!(table.trim_start().starts_with("HOST "), "{table}");
    assert_eq!(table.trim().lines().count(), 2, "{table}");
    assert!(table.contains("press-2"), "{table}");
}

#[test]
fn a_host_or_group_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    scan(&sandbox, "press-1", "2");
    for (asked, named) in [
        (["--host", "press-1", "--host", "pres-2"], "pres-2"),
        (["--host", "press-1", "--group", "pres"], "pres"),
    ] {
        for question in [&["history", KPTR_RULE][..], &["diff", "1m", "now"]] {
            let ran = sandbox.run([question, &asked[..]].concat());
            assert_eq!(ran.code, 2, "{}", ran.stderr);
            assert!(ran.stderr.contains(named), "{}", ran.stderr);
        }
    }
}
