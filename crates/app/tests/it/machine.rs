//! Scans of the machine that the tests run on: only what holds on any machine is asserted.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::holdfast::{Run, Sandbox};

fn rules_with(report: &Value, verdict: &str) -> BTreeSet<String> {
    report["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["verdict"] == verdict)
        .map(|row| row["rule"].as_str().unwrap().to_owned())
        .collect()
}

/// Proves: RUL-4
#[test]
fn without_privileges_and_with_an_empty_path_nothing_passes_that_root_does_not_see_pass() {
    // Without root both scans are unprivileged, and what is compared is the empty PATH alone.
    let is_root = rustix::process::geteuid().is_root();
    let sandbox = Sandbox::new();
    let (_, root) = sandbox.json(["scan", "--no-walk"]);

    let data = sandbox.path("data-of-nobody");
    std::fs::create_dir(&data).unwrap();
    if is_root {
        let nobody = "65534:65534".as_ref();
        let owned = Command::new("chown")
            .args([nobody, data.as_os_str()])
            .status();
        assert!(owned.unwrap().success());
    }
    let run = sandbox
        .unprivileged(&[])
        .args(["scan", "--no-walk", "--output", "json", "--data-dir"])
        .arg(&data)
        .output()
        .expect("setpriv is part of util-linux");
    let run = Run::of(run);
    let nobody: Value = serde_json::from_str(&run.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", run.stdout, run.stderr));

    let beyond: Vec<String> = rules_with(&nobody, "pass")
        .difference(&rules_with(&root, "pass"))
        .cloned()
        .collect();
    assert!(
        beyond.is_empty(),
        "pass without privileges, not with: {beyond:?}"
    );
    let unassessed = |report| rules_with(report, "not_assessed").len();
    assert!(!is_root || unassessed(&nobody) > unassessed(&root));
}

/// Proves: LED-2
#[test]
fn scanning_an_unchanged_machine_twice_changes_nothing() {
    let sandbox = Sandbox::new();
    let (_, first) = sandbox.json(["scan", "--no-walk"]);
    assert!(!rules_with(&first, "pass").is_empty(), "{first}");
    let (_, second) = sandbox.json(["scan", "--no-walk"]);
    assert_eq!(second["changes"], serde_json::json!([]));
}

/// Proves: EXE-13
#[test]
fn facts_written_and_replayed_are_judged_as_the_scan_was() {
    let sandbox = Sandbox::new();
    let facts = sandbox.path("facts.json");
    let (_, scan) = sandbox.json([
        "scan".as_ref(),
        "--no-walk".as_ref(),
        "--facts-out".as_ref(),
        facts.as_os_str(),
    ]);
    let (_, replayed) = sandbox.json(["scan".as_ref(), "--replay".as_ref(), facts.as_os_str()]);
    assert_eq!(replayed["verdicts"], scan["verdicts"]);
    assert_eq!(replayed["changes"], serde_json::json!([]));
}

/// Proves: SVC-1, SVC-12
#[test]
fn up_scans_watches_and_stops_cleanly_when_asked() {
    let sandbox = Sandbox::new();
    let mut up = sandbox
        .command(["up", "--no-walk"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(up.stderr.take().unwrap()).lines();
    let watching = told.by_ref().any(|line| line.unwrap().contains("Watching"));
    assert!(watching, "it ended before it watched");

    let second = sandbox.run(["up", "--no-walk"]);
    second.is_refused_naming(&format!("pid {}", up.id()));
    assert_ne!(sandbox.run(["status"]).code, 2, "status works beside it");

    let pid = rustix::process::Pid::from_child(&up);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0));
    assert!(told.any(|line| line.unwrap().contains("stopped")));
}

/// Proves: SVC-9
#[test]
fn the_doctor_looks_at_this_machine() {
    let sandbox = Sandbox::new();
    let (_, findings) = sandbox.json(["doctor"]);
    let checks: BTreeSet<&str> = findings
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["check"].as_str().unwrap())
        .collect();
    for check in ["data directory", "disk sync", "record", "clock", "rules"] {
        assert!(checks.contains(check), "{check} is not among {checks:?}");
    }
}
