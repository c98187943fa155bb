//! What surrounds a command: environment, file descriptors, arguments that are not text, and the
//! characters that hosts and paths bring to the terminal.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::symlink},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    facts::{KPTR_RULE, bundle},
    holdfast::{Run, Sandbox},
};

/// A name from the hostile host: moves the cursor, then turns the direction of writing.
const HOSTILE: &str = "\u{1b}[2J\u{202e}x\n";

/// In the tables, in CSV and in errors. Colours are forced: without them the escapes of a pipe are
/// stripped on their way, and a terminal would not be what is tested.
#[test]
fn nothing_a_host_sends_reaches_the_terminal_as_a_command() {
    let sandbox = Sandbox::new();
    let mut facts = bundle("press-3", HOSTILE);
    facts["facts"]["os"]["pretty_name"] = HOSTILE.into();
    facts["facts"]["sshd"] = json!({"$unknown": {"reason": "privilege", "detail": HOSTILE}});
    let good = sandbox.file("facts.json", facts.to_string());
    facts["schema"] = HOSTILE.into();
    let wrong = sandbox.file("wrong.json", facts.to_string());
    for file in [&good, &wrong] {
        for format in ["table", "csv"] {
            let args = ["scan".as_ref(), "--replay".as_ref(), file.as_os_str()];
            let mut command = sandbox.command(args);
            let command = command
                .args(["--output", format])
                .env("CLICOLOR_FORCE", "1");
            let run = Run::of(command.output().unwrap());
            assert_eq!(run.code == 2, file == &wrong, "{}", run.stderr);
            for text in [&run.stdout, &run.stderr] {
                let hostile = text.contains("\u{1b}[2J") || text.contains('\u{202e}');
                assert!(!hostile, "{format}: {}", text.escape_debug());
            }
        }
    }
    let (_, report) = sandbox.json(["status", "--host", "press-3"]);
    let rules = report["verdicts"].as_array().unwrap().len();
    let csv = sandbox.run(["status", "--host", "press-3", "--output", "csv"]);
    assert_eq!(csv.stdout.lines().count(), rules + 1, "one line a row");
}

/// The lock file's line was made with `std::env::args`, which panics on such an argument.
#[test]
fn a_path_that_is_not_text_is_a_path() {
    let sandbox = Sandbox::new();
    let facts = sandbox.file("facts.json", bundle("press-3", "2").to_string());
    let dir = sandbox.path("d").join(OsStr::from_bytes(b"\xff"));
    let args = ["--data-dir".as_ref(), dir.as_os_str(), "scan".as_ref()];
    let run = sandbox.run(
        args.into_iter()
            .chain(["--replay".as_ref(), facts.as_os_str()]),
    );
    assert_ne!(run.code, 2, "{}", run.stderr);
    assert!(dir.join("journal").is_dir());
}

/// A logger that could not write told standard error so, could not write that either, and panicked.
#[test]
fn a_log_that_nobody_reads_does_not_end_the_command() {
    let sandbox = Sandbox::new();
    let mut run = sandbox
        .command(["rules", "list"])
        .env("HOLDFAST_LOG", "trace")
        .args(["--data-dir".as_ref(), sandbox.data_dir().as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(run.stderr.take());
    assert_eq!(run.wait().unwrap().code(), Some(0));
    let mut scan = sandbox
        .command(["scan", "--no-walk"])
        .env("HOLDFAST_LOG", "trace")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(scan.stderr.take());
    let code = scan.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 1 | 3)), "{code:?}");
}

#[test]
fn acknowledgements_that_could_not_be_written_are_an_error() {
    let sandbox = Sandbox::new();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = sandbox.command(["load", "run", "--commits", "3"]);
    let run = Run::of(
        command
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap(),
    );
    run.is_refused_naming("standard output");
}

/// Root always has a data directory, so root hands over to nobody.
#[test]
fn what_needs_no_data_directory_works_without_a_home() {
    let sandbox = Sandbox::new();
    let binary = sandbox.binary_for_all();
    let run = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        let command = command.arg(&binary).args(args).env_clear();
        Run::of(command.output().expect("setpriv is part of util-linux"))
    };
    for args in [&["rules", "list"][..], &["config", "show", "--default"]] {
        let run = run(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
    }
    let status = run(&["status"]);
    status.is_refused_naming("HOME");
    status.tells_next_step();
}

#[test]
fn a_variable_with_a_bad_value_is_named_and_not_ignored() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("holdfast.toml", "output = \"csv\"");
    for (name, value) in [
        ("HOLDFAST_SCAN_WALK", &b"maybe"[..]),
        ("HOLDFAST_SCAN_WALK", b"\xff"),
        ("HOLDFAST_JOURNAL_STRICT", b"perhaps"),
    ] {
        let args = ["--config".as_ref(), file.as_os_str()];
        let mut command =
            sandbox.command(args.into_iter().chain(["config".as_ref(), "show".as_ref()]));
        let run = Run::of(
            command
                .env(name, OsStr::from_bytes(value))
                .output()
                .unwrap(),
        );
        run.is_refused_naming(name);
        run.tells_next_step();
        assert!(!run.stderr.contains("holdfast.toml"), "{}", run.stderr);
    }
}

/// Proves: SVC-2
#[test]
fn flags_override_the_environment_and_that_overrides_the_file() {
    let sandbox = Sandbox::new();
    let file = sandbox.file(
        "holdfast.toml",
        "output = \"csv\"\ndata_dir = \"/file\"\n[scan]\nwalk = false",
    );
    let check = |set: &[(&str, &str)], flags: &[&str], wanted: &[(&str, &str, &str)]| {
        let mut command = sandbox.command(["config", "show", "--config"]);
        command
            .arg(&file)
            .args(flags)
            .env_remove("HOLDFAST_DATA_DIR");
        let run = Run::of(command.envs(set.iter().copied()).output().unwrap());
        for (key, value, origin) in wanted {
            let found = run.stdout.lines().any(|line| {
                let words: Vec<&str> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
                words == [*key, *value, *origin]
            });
            assert!(found, "{key} {value} {origin} is not in {}", run.stdout);
        }
    };
    check(
        &[],
        &[],
        &[
            ("output", "csv", "file"),
            ("data_dir", "/file", "file"),
            ("scan.walk", "false", "file"),
            ("journal.strict", "false", "default"),
        ],
    );
    let set = [
        ("HOLDFAST_OUTPUT", "table"),
        ("HOLDFAST_DATA_DIR", "/environment"),
        ("HOLDFAST_SCAN_WALK", "true"),
        ("HOLDFAST_JOURNAL_STRICT", "true"),
    ];
    check(
        &set,
        &[],
        &[
            ("output", "table", "environment"),
            ("data_dir", "/environment", "environment"),
            ("scan.walk", "true", "environment"),
            ("journal.strict", "true", "environment"),
        ],
    );
    check(
        &set,
        &["--output", "csv", "--data-dir", "/flag"],
        &[("output", "csv", "flag"), ("data_dir", "/flag", "flag")],
    );
}

/// One rule is asked for, so the exit code is that rule's, in each format.
/// Proves: RUL-5
#[test]
fn the_status_of_one_rule_ends_in_the_exit_code_of_that_rule() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("facts.json", bundle("press-3", "2").to_string());
    sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    for format in ["table", "json", "csv"] {
        let args = [
            "status", "--host", "press-3", "--rule", KPTR_RULE, "-o", format,
        ];
        let run = sandbox.run(args);
        assert_eq!(run.code, 0, "{format}: {}", run.stdout);
    }
}

/// The past is told although the rules of today cannot be read.
#[test]
fn broken_rules_do_not_hide_what_was_recorded() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("facts.json", bundle("press-3", "0").to_string());
    sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    for rules_dir in ["missing", "broken"] {
        sandbox.file("broken/a.yaml", "id: [");
        let mut command = sandbox.command(["status", "--host", "press-3"]);
        let run = Run::of(
            command
                .env("HOLDFAST_SCAN_RULES_DIR", sandbox.path(rules_dir))
                .output()
                .unwrap(),
        );
        assert_eq!(run.code, 1, "{}", run.stderr);
    }
}

#[test]
fn two_doctors_at_once_do_not_disturb_each_other_and_leave_nothing() {
    let sandbox = Sandbox::new();
    let doctors: Vec<_> = (0..4)
        .map(|_| sandbox.start(["doctor", "--output", "json"]))
        .collect();
    for doctor in doctors {
        let run = Run::of(doctor.wait_with_output().unwrap());
        let findings: Value = serde_json::from_str(&run.stdout).unwrap();
        let found = findings.as_array().unwrap().iter();
        let sync = found.clone().find(|row| row["check"] == "disk sync");
        assert_ne!(sync.unwrap()["state"], "fail", "{}", run.stdout);
    }
    let left = std::fs::read_dir(sandbox.data_dir()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().ends_with(".tmp")),
        "{left:?}"
    );
}

/// Proves: SVC-2
#[test]
fn a_configuration_that_may_not_be_read_is_not_taken_for_none() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("conf/holdfast");
    std::fs::create_dir_all(&dir).unwrap();
    // A link to itself is what nobody can read.
    symlink("holdfast.toml", dir.join("holdfast.toml")).unwrap();
    let mut command = sandbox.unprivileged(&[("XDG_CONFIG_HOME", &sandbox.path("conf"))]);
    let run = Run::of(command.args(["config", "show"]).output().unwrap());
    run.is_refused_naming("holdfast.toml");
}
