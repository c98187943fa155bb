//! Every kind of bad input: an error that names the object and the next step, exit code 2, nothing
//! lost, no panic.

use std::{io::Read, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    facts::bundle,
    holdfast::{Run, Sandbox},
};

fn recorded() -> Sandbox {
    let sandbox = Sandbox::new();
    let file = sandbox.file("facts.json", bundle("press-3", "0").to_string());
    let run = sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    assert_ne!(run.code, 2, "{}", run.stderr);
    sandbox
}

fn check(run: &Run, object: &str) {
    run.is_refused_naming(object);
    run.tells_next_step();
}

#[test]
fn an_unknown_flag_or_command_is_named() {
    let sandbox = Sandbox::new();
    check(&sandbox.run(["scan", "--fast"]), "--fast");
    check(&sandbox.run(["scna"]), "scna");
    check(&sandbox.run(["status", "--output", "xml"]), "xml");
}

#[test]
fn a_moment_that_is_none_is_named() {
    let sandbox = recorded();
    check(
        &sandbox.run(["status", "--at", "yesterdayish"]),
        "yesterdayish",
    );
    check(
        &sandbox.run(["diff", "now", "2h", "--host", "press-3"]),
        "now",
    );
    let future = sandbox.run(["status", "--at", "2999-01-01T00:00:00Z"]);
    check(&future, "2999-01-01T00:00:00Z` is in the future");
    let hyphen = sandbox.run(["status", "--host", "press-3", "--at", "-5m"]);
    check(&hyphen, "press-3");
    let before = sandbox.run([
        "status",
        "--host",
        "press-3",
        "--at",
        "2001-01-01T00:00:00Z",
    ]);
    check(&before, "press-3");
}

/// Proves: SVC-12
#[test]
fn a_question_about_nothing_creates_nothing() {
    let sandbox = Sandbox::new();
    check(
        &sandbox.run(["status"]),
        &sandbox.data_dir().display().to_string(),
    );
    assert!(!sandbox.data_dir().exists());
}

#[test]
fn an_unknown_host_or_rule_is_named() {
    let sandbox = recorded();
    check(&sandbox.run(["status", "--host", "press-9"]), "press-9");
    // It said that nothing differs.
    check(
        &sandbox.run(["diff", "1h", "now", "--host", "press-9"]),
        "press-9",
    );
    let before = ["diff", "3h", "2h", "--host", "press-3"];
    check(&sandbox.run(before), "press-3");
    check(
        &sandbox.run(["history", "no-such-rule", "--host", "press-3"]),
        "no-such-rule",
    );
    check(
        &sandbox.run(["rules", "show", "no-such-rule"]),
        "no-such-rule",
    );
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("a-file", "");
    let inside = file.join("data");
    let run = sandbox.run(["--data-dir".as_ref(), inside.as_os_str(), "scan".as_ref()]);
    check(&run, &inside.display().to_string());
}

/// Proves: EXE-13
#[test]
fn facts_that_are_none_are_named() {
    let sandbox = Sandbox::new();
    let replay =
        |path: &Path| sandbox.run(["scan".as_ref(), "--replay".as_ref(), path.as_os_str()]);
    check(
        &replay(Path::new("/nonexistent/facts")),
        "/nonexistent/facts",
    );
    for content in ["", "not json", "{}", "{\"schema\":\"holdfast.facts/9\"}"] {
        let file = sandbox.file("facts.json", content);
        check(&replay(&file), "facts.json");
    }
}

#[test]
fn a_configuration_with_an_unknown_key_or_a_bad_value_is_refused() {
    let sandbox = Sandbox::new();
    for (content, object) in [
        ("data_dri = \"/x\"", "data_dri"),
        ("[scan]\ninterval = \"1h\"", "interval"),
        ("output = \"xml\"", "output"),
        ("= 3", "holdfast.toml"),
    ] {
        let file = sandbox.file("holdfast.toml", content);
        let run = sandbox.run(["--config".as_ref(), file.as_os_str(), "doctor".as_ref()]);
        check(&run, object);
    }
}

/// Proves: RUL-10
#[test]
fn a_rule_that_cannot_be_used_stops_the_scan() {
    let sandbox = Sandbox::new();
    let facts = sandbox.file("facts.json", bundle("press-3", "0").to_string());
    let rule = |id: &str, check: &str| {
        format!(
            "id: {id}\ntitle: T\ndescription: D\nrationale: R\nseverity: low\n\
             platforms: [debian-12]\nreferences: {{}}\ncheck: {check}\n\
             fix: {{summary: F}}\ntests: []\n"
        )
    };
    for (name, content, object) in [
        ("broken", "id: [".to_owned(), "broken.yaml"),
        (
            "unknown",
            rule("unknown", "{fact: no.such.fact, equals: 1}"),
            "no.such.fact",
        ),
        (
            "odd",
            rule("odd", "{fact: os.id, resembles: x}"),
            "resembles",
        ),
    ] {
        let dir = sandbox.path(name);
        sandbox.file(&format!("{name}/{name}.yaml"), content);
        let run = sandbox.run([
            "scan".as_ref(),
            "--replay".as_ref(),
            facts.as_os_str(),
            "--rules-dir".as_ref(),
            dir.as_os_str(),
        ]);
        check(&run, object);
    }
    assert!(
        !sandbox.data_dir().join("journal").exists(),
        "refused before anything was made"
    );
}

/// Proves: DOC-5
#[test]
fn a_directory_of_a_later_format_is_refused_and_left_as_it_is() {
    let sandbox = recorded();
    let identity = identity_file(&sandbox.data_dir().join("tables"));
    let mut bytes = std::fs::read(&identity).unwrap();
    bytes[VERSION_OFFSET] += 1;
    std::fs::write(&identity, &bytes).unwrap();
    let run = sandbox.run(["status", "--host", "press-3"]);
    check(&run, &sandbox.data_dir().display().to_string());
    assert_eq!(std::fs::read(&identity).unwrap(), bytes);
}

/// Offset of the format version in the store's identity (docs/format/store.md).
const VERSION_OFFSET: usize = 8;

fn identity_file(tables: &Path) -> std::path::PathBuf {
    tables.join("identity")
}

/// Proves: JRN-10
#[test]
fn a_damaged_journal_is_refused_with_its_cause_and_nothing_is_changed() {
    let sandbox = recorded();
    let journal = sandbox.data_dir().join("journal");
    let segment = std::fs::read_dir(&journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "seg"))
        .expect("there is a segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written / 2] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let run = sandbox.run(["status", "--host", "press-3"]);
    check(&run, "FRAME_CORRUPT");
    assert!(
        run.stderr.contains("WAL_RECOVERY_FAIL_HARD"),
        "{}",
        run.stderr
    );
    assert_eq!(std::fs::read(&segment).unwrap(), bytes);
}

/// Proves: JRN-1, SVC-12
#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    let sandbox = Sandbox::new();
    let mut load = sandbox.start(["load", "run", "--writers", "1"]);
    let mut first = [0; 4];
    load.stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    let holder = load.id();
    let second = sandbox.run(["load", "run"]);
    load.kill().unwrap();
    load.wait().unwrap();
    check(&second, &format!("pid {holder}"));
}

#[test]
fn a_directory_without_permission_is_named() {
    let sandbox = recorded();
    let dir = sandbox.data_dir();
    // Root's own directory refuses nobody; a directory of no mode refuses its owner.
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = sandbox.unprivileged(&[]);
    command
        .args(["status", "--host", "press-3", "--data-dir"])
        .arg(&dir);
    let run = Run::of(command.output().expect("setpriv is part of util-linux"));
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    check(&run, &dir.display().to_string());
}
