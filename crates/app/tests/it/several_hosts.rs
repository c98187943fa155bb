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

/// A host that comes by its facts alone was on record, and in no list that a command prints: `status`
/// left it out and went by this machine, and nobody could tell who had brought it.
/// Proves: SVC-4
#[test]
fn a_host_that_comes_by_its_facts_is_listed_and_audited_as_others_are() {
    let sandbox = Sandbox::new();
    scan(&sandbox, "press-1", "2");
    scan(&sandbox, "press-2", "0");
    scan(&sandbox, "press-2", "0");

    let (_, listed) = sandbox.json(["host", "list"]);
    let listed = listed.as_array().or(listed["hosts"].as_array()).unwrap();
    let names: Vec<&str> = listed.iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["press-1", "press-2"], "{listed:?}");
    for host in listed {
        assert_eq!(host["reach"]["via"], "offline", "{host}");
        let added = host["added"].as_str().unwrap();
        assert!(!added.starts_with("1970") && added.len() > 10, "{host}");
    }
    let (code, fleet) = sandbox.json(["status"]);
    let mut of_fleet = hosts(&fleet);
    of_fleet.sort_unstable();
    assert_eq!(of_fleet, ["press-1", "press-2"]);
    assert_eq!(code, 1, "a rule fails on press-2");
    let records = |action: &str| {
        let (_, found) = sandbox.json(["audit", "--action", action]);
        let found = found.as_array().or(found["records"].as_array()).unwrap();
        let of = |record: &Value| record["object"].as_str().unwrap().to_owned();
        let mut objects: Vec<String> = found.iter().map(of).collect();
        objects.sort_unstable();
        objects
    };
    assert_eq!(records("host.added"), ["press-1", "press-2"]);
    let table = sandbox.run(["audit", "--action", "host.added"]).stdout;
    assert!(
        table.contains("added=20") && table.contains("Z\n"),
        "{table}"
    );
    assert_eq!(records("scan.replayed"), ["press-1", "press-2", "press-2"]);
}

/// A name that passes for another one, or turns around what stands beside it, is refused wherever it
/// comes in, and leaves nothing.
#[test]
fn a_name_with_characters_that_are_not_seen_is_refused_at_every_door() {
    let sandbox = Sandbox::new();
    scan(&sandbox, "press-1", "2");
    for c in ['\u{202e}', '\u{200b}', '\u{2028}', '\u{feff}', '\u{2066}'] {
        let name = format!("press{c}1");
        let facts = sandbox.file("facts.json", facts::bundle(&name, "2").to_string());
        let facts = facts.to_str().unwrap();
        let csv = sandbox.file("hosts.csv", format!("name,address\n{name},192.0.2.1\n"));
        let csv = csv.to_str().unwrap();
        let asked: [&[&str]; 6] = [
            &["scan", "--replay", facts],
            &["host", "add", &name, "192.0.2.1"],
            &["host", "add", "press-2", "192.0.2.1", "--group", &name],
            &["host", "import", csv],
            &["token", "add", &name],
            &["credential", "add", &name, "--user", "u", "--generate"],
        ];
        for words in asked {
            let run = sandbox.run(words);
            assert_eq!(run.code, 2, "{words:?}: {}{}", run.stdout, run.stderr);
            assert!(!run.stderr.contains(c), "{words:?}: {}", run.stderr);
        }
        let run = sandbox.run(["token", "add", &name]);
        let code = format!("U+{:04X}", u32::from(c));
        assert!(run.stderr.contains(&code), "{}", run.stderr);
    }
    let (_, listed) = sandbox.json(["host", "list"]);
    assert!(!listed.to_string().contains("press-2"), "{listed}");
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
