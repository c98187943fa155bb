//! `holdfast events import` on version 1 telemetry logs, and what the journal's commands say of them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    holdfast::{Run, Sandbox, repository},
    schema,
    serving::Serving,
};

const LEGACY_UPGRADE: &str = "AUTONOMYOPS_WAL_LEGACY_UPGRADE";
const OPERATOR_RESET: &str = "AUTONOMYOPS_WAL_OPERATOR_RESET";

/// A copy of a fixture, which commands may change.
fn fixture(sandbox: &Sandbox, name: &str) -> PathBuf {
    let to = sandbox.path(name);
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(repository("fixtures/telemetry-v1").join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn manifest() -> BTreeMap<String, Value> {
    let path = repository("fixtures/telemetry-v1/manifest.json");
    let manifest: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(manifest.len() >= 14, "{manifest:?}");
    manifest
}

/// Every file below a directory with its bytes, but for the lock, which names who had it last.
fn files(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("telemetry.lock") {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes.escape_ascii().to_string());
        }
    }
    found
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are text")
}

fn import_with(sandbox: &Sandbox, dir: &Path, variables: &[&str]) -> Run {
    let mut command = sandbox.command(["events", "import", text(dir), "-o", "json"]);
    command.envs(variables.iter().map(|name| (name, "1")));
    Run::of(command.output().unwrap())
}

fn import(sandbox: &Sandbox, dir: &Path) -> Run {
    import_with(sandbox, dir, &[])
}

/// The summary of an import that was carried out.
fn summary(run: &Run) -> Value {
    assert_eq!(run.code, 0, "{}", run.stderr);
    let summary = serde_json::from_str(&run.stdout).unwrap();
    schema::check("events-import", &summary);
    summary
}

/// `frames`, `stored` and `already_there`.
fn counts(run: &Run) -> [u64; 3] {
    let summary = summary(run);
    ["frames", "stored", "already_there"].map(|name| summary[name].as_u64().unwrap())
}

/// The sequences of all events that are kept, in order.
fn kept(sandbox: &Sandbox) -> Vec<u64> {
    let run = sandbox.run(["events", "query", "-o", "json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            let body = &event["body"];
            (body.get("seq").or(body.get("Seq")))
                .and_then(Value::as_u64)
                .unwrap_or_else(|| panic!("no sequence in {line}"))
        })
        .collect()
}

fn refused_with(run: &Run, code: &str) {
    run.is_refused_naming(code);
    for told in [
        format!("docs/errors/{code}.md"),
        format!("holdfast journal explain {code}"),
    ] {
        assert!(run.stderr.contains(&told), "{told}: {}", run.stderr);
    }
}

/// Proves: JRN-31
#[test]
fn every_fixture_is_verified_and_imported_or_refused_by_the_same_code() {
    for (name, expected) in manifest() {
        let sandbox = Sandbox::new();
        let dir = fixture(&sandbox, &name);
        let before = files(&dir);
        let (code, report) = sandbox.json(["journal", "verify", text(&dir)]);
        schema::check("journal-verify", &report);
        assert_eq!(report["format"], "telemetry-v1", "{name}");
        let inspected = sandbox.run(["journal", "inspect", text(&dir)]);
        let dry = sandbox.run(["events", "import", text(&dir), "--dry-run", "-o", "json"]);
        assert!(
            !sandbox.data_dir().exists(),
            "{name}: looking made something"
        );
        if let Some(cause) = expected["refused"].as_str() {
            assert_eq!((code, inspected.code), (1, 1), "{name}");
            assert_eq!(report["cause"], cause, "{name}");
            assert_eq!(report["holds"], false, "{name}");
            assert_eq!(report["watermark"], Value::Null, "{name}");
            let first = match name.as_str() {
                "first-not-one" => Some(2),
                "safe-not-found" => None,
                _ => Some(1),
            };
            assert_eq!(report["first"], json!(first), "{name}");
            assert!(inspected.stdout.contains(cause), "{}", inspected.stdout);
            refused_with(&dry, cause);
            refused_with(&import(&sandbox, &dir), cause);
            assert!(!sandbox.data_dir().exists(), "{name}: a refusal stored");
            let page = sandbox.run(["journal", "explain", cause]);
            assert!(page.stdout.starts_with(&format!("# {cause}\n")));
        } else {
            let frames = expected["frames"].as_u64().unwrap();
            let cut = expected["cut"].as_u64().unwrap();
            assert_eq!((code, inspected.code), (0, 0), "{name}");
            assert_eq!(report["cause"], Value::Null, "{name}");
            assert_eq!(report["watermark"], frames, "{name}");
            let last = (frames > 0).then_some(frames);
            assert_eq!(report["last"], json!(last), "{name}");
            let tail = report["tail"]["bytes"].as_u64().unwrap_or(0);
            assert_eq!(tail, cut, "{name}");
            assert_eq!(summary(&dry)["frames"], frames, "{name}");
            let done = import(&sandbox, &dir);
            assert_eq!(counts(&done), [frames, frames, 0], "{name}");
            assert_eq!(summary(&done)["uncommitted_bytes"], cut, "{name}");
            let all: Vec<u64> = (1..=frames).collect();
            assert_eq!(kept(&sandbox), all, "{name}");
        }
        assert_eq!(files(&dir), before, "{name} was changed");
    }
}

fn twice(sandbox: &Sandbox) {
    let dir = fixture(sandbox, "known-good");
    assert_eq!(counts(&import(sandbox, &dir)), [5, 5, 0]);
    assert_eq!(counts(&import(sandbox, &dir)), [5, 0, 5]);
    let run = sandbox.run(["events", "import", text(&dir)]);
    assert!(
        run.stdout
            .contains("nothing stored, all 5 events were there"),
        "{}",
        run.stdout
    );
    assert_eq!(kept(sandbox), [1, 2, 3, 4, 5]);
}

#[test]
fn an_import_run_again_stores_nothing_twice_and_says_so() {
    twice(&Sandbox::new());
}

#[test]
fn a_running_server_takes_the_events_of_an_import_once() {
    let sandbox = Sandbox::new();
    let server = Serving::start(&sandbox);
    twice(&sandbox);
    assert_eq!(server.stop(), 0);
    let dir = sandbox.path("known-good");
    assert_eq!(counts(&import(&sandbox, &dir)), [5, 0, 5]);
}

fn frame(payload: &str) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&len.to_be_bytes(), payload.as_bytes()].concat()
}

fn big_frame(seq: u64) -> Vec<u8> {
    let text = "x".repeat(100);
    frame(&format!(
        "{{\"seq\":{seq},\"kind\":\"decision\",\"text\":\"{text}\"}}"
    ))
}

/// A log of `count` frames, all committed.
fn big(sandbox: &Sandbox, count: u64) -> PathBuf {
    let wal: Vec<u8> = (1..=count).flat_map(big_frame).collect();
    sandbox.file("big/telemetry.wal", wal);
    let safe_seq = sandbox.file("big/telemetry.safe_seq", count.to_le_bytes());
    safe_seq.parent().unwrap().to_owned()
}

/// Records in the journal of events, also while another process writes it.
fn records(sandbox: &Sandbox) -> u64 {
    let journal = sandbox.data_dir().join("events/journal");
    let run = sandbox.run(["journal", "verify", text(&journal), "-o", "json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_default();
    report["records"].as_u64().unwrap_or(0)
}

/// Lets the import go on in short steps until it is there, and kills it.
fn kill_when(sandbox: &Sandbox, mut child: Child, is_there: impl Fn() -> bool) {
    let pid = Pid::from_child(&child);
    for _ in 0..10_000 {
        kill_process(pid, Signal::STOP).unwrap();
        if is_there() {
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended before");
            return;
        }
        kill_process(pid, Signal::CONT).unwrap();
        // As long as it takes to start a process.
        sandbox.run(["--version"]);
    }
    panic!("the import does not get there");
}

const FRAMES: u64 = 20_000;

/// Kills an import when it has stored something, and another one when it has stored more; then lets
/// one end.
fn kill_twice(sandbox: &Sandbox, dir: &Path, variables: &[&str]) {
    let start = || {
        let mut command = sandbox.command(["events", "import", text(dir)]);
        command.envs(variables.iter().map(|name| (name, "1")));
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    if !variables.is_empty() {
        let marker = dir.join("telemetry.legacy_upgrade");
        kill_when(sandbox, start(), || marker.exists());
    }
    kill_when(sandbox, start(), || records(sandbox) > 0);
    let first = records(sandbox);
    kill_when(sandbox, start(), || records(sandbox) > first);
    let second = records(sandbox);
    assert!(first < second && second < FRAMES, "{first} {second}");
    let [frames, stored, known] = counts(&import_with(sandbox, dir, variables));
    assert_eq!((frames, stored + known), (FRAMES, FRAMES));
    // What lay behind the last acknowledgement may have been cut when the journal was opened.
    assert!(known >= first && stored > 0, "{stored} {known} {first}");
    let all: Vec<u64> = (1..=FRAMES).collect();
    assert_eq!(kept(sandbox), all);
    assert_eq!(
        counts(&import_with(sandbox, dir, variables)),
        [FRAMES, 0, FRAMES]
    );
}

#[test]
fn an_import_killed_twice_in_the_middle_ends_with_every_frame_once() {
    let sandbox = Sandbox::new();
    let dir = big(&sandbox, FRAMES);
    let before = files(&dir);
    kill_twice(&sandbox, &dir, &[]);
    assert_eq!(files(&dir), before);
}

/// Proves: JRN-34
#[test]
fn a_log_from_before_safe_points_is_taken_over_whole_however_often_it_is_killed() {
    let sandbox = Sandbox::new();
    let dir = big(&sandbox, FRAMES);
    fs::remove_file(dir.join("telemetry.safe_seq")).unwrap();
    // The first frame is there twice, so that all others get other sequences.
    let old: Vec<u8> = [1]
        .into_iter()
        .chain(1..FRAMES)
        .flat_map(big_frame)
        .collect();
    fs::write(dir.join("telemetry.wal"), &old).unwrap();
    kill_twice(&sandbox, &dir, &[LEGACY_UPGRADE]);
    let kept = dir.join("telemetry.legacy");
    assert!(fs::read(kept.join("telemetry.wal")).unwrap() == old);
    let report = fs::read_to_string(kept.join("report.txt")).unwrap();
    assert!(
        report.contains("frames 20000\ngaps 0\nduplicates 1\n"),
        "{report}"
    );
    assert!(!dir.join("telemetry.legacy-2").exists());
}

/// Proves: JRN-33, JRN-34
#[test]
fn a_log_from_before_safe_points_is_taken_over_once_with_the_variable_left_set() {
    let sandbox = Sandbox::new();
    let dir = fixture(&sandbox, "no-safe-seq");
    let before = files(&dir);
    let old = fs::read(dir.join("telemetry.wal")).unwrap();
    let set = [LEGACY_UPGRADE];

    // Only 1 is yes, and only the import asks.
    let mut command = sandbox.command(["events", "import", text(&dir)]);
    let run = Run::of(command.env(LEGACY_UPGRADE, "true").output().unwrap());
    refused_with(&run, "SAFE_POINT_MISSING");
    for args in [
        ["journal", "verify", text(&dir)],
        ["journal", "inspect", text(&dir)],
    ] {
        let mut command = sandbox.command(args);
        let run = Run::of(command.env(LEGACY_UPGRADE, "1").output().unwrap());
        assert_eq!(run.code, 1, "{}", run.stderr);
    }
    let mut dry = sandbox.command(["events", "import", "--dry-run", text(&dir)]);
    let run = Run::of(dry.env(LEGACY_UPGRADE, "1").output().unwrap());
    refused_with(&run, "SAFE_POINT_MISSING");
    assert_eq!(files(&dir), before);

    let run = import_with(&sandbox, &dir, &set);
    assert!(run.stderr.contains("WARN"), "{}", run.stderr);
    let upgrade = &summary(&run)["upgrade"];
    assert_eq!([&upgrade["gaps"], &upgrade["duplicates"]], [1, 1]);
    let kinds: Vec<_> = upgrade["breaks"].as_array().unwrap().iter().collect();
    assert_eq!(
        [&kinds[0]["kind"], &kinds[1]["kind"]],
        ["duplicate", "gap"],
        "{kinds:?}"
    );
    assert_eq!(
        fs::read(dir.join("telemetry.legacy/telemetry.wal")).unwrap(),
        old
    );
    let report = fs::read_to_string(dir.join("telemetry.legacy/report.txt")).unwrap();
    assert!(report.contains("gaps 1\nduplicates 1\n"), "{report}");
    assert_eq!(kept(&sandbox), [1, 2, 3, 4]);

    let after = files(&dir);
    let run = import_with(&sandbox, &dir, &set);
    assert_eq!(counts(&run), [4, 0, 4]);
    assert_eq!(summary(&run)["upgrade"], Value::Null);
    assert!(run.stderr.contains("has no effect"), "{}", run.stderr);
    assert_eq!(files(&dir), after);

    // A crash between the effect and its mark: nothing but the mark is missing.
    let marker = dir.join("telemetry.legacy_upgrade");
    fs::write(&marker, "begun telemetry.legacy\n").unwrap();
    assert_eq!(counts(&import_with(&sandbox, &dir, &set)), [4, 0, 4]);
    assert_eq!(files(&dir), after);

    fs::remove_file(dir.join("telemetry.safe_seq")).unwrap();
    let without = files(&dir);
    let run = import_with(&sandbox, &dir, &set);
    refused_with(&run, "SAFE_POINT_MISSING");
    assert!(run.stderr.contains("was used once"), "{}", run.stderr);
    assert_eq!(files(&dir), without);
    assert_eq!(kept(&sandbox), [1, 2, 3, 4]);
}

/// Proves: JRN-33
#[test]
fn an_operators_reset_has_its_effect_once_with_the_variable_left_set() {
    let sandbox = Sandbox::new();
    let dir = fixture(&sandbox, "no-safe-seq");
    let set = [OPERATOR_RESET];
    // While the log is there it is refused.
    let before = files(&dir);
    let run = import_with(&sandbox, &dir, &set);
    refused_with(&run, "SAFE_POINT_MISSING");
    assert_eq!(files(&dir), before);

    fs::remove_file(dir.join("telemetry.wal")).unwrap();
    refused_with(&import(&sandbox, &dir), "SAFE_POINT_MISSING");
    let run = import_with(&sandbox, &dir, &set);
    assert_eq!(summary(&run)["was_reset"], true);
    assert!(run.stderr.contains("WARN"), "{}", run.stderr);
    assert_eq!(fs::read(dir.join("telemetry.safe_seq")).unwrap(), [0; 8]);

    let after = files(&dir);
    let run = import_with(&sandbox, &dir, &set);
    assert_eq!(summary(&run)["was_reset"], false);
    assert_eq!(files(&dir), after);

    fs::remove_file(dir.join("telemetry.wal")).unwrap();
    fs::remove_file(dir.join("telemetry.safe_seq")).unwrap();
    let run = import_with(&sandbox, &dir, &set);
    refused_with(&run, "SAFE_POINT_MISSING");
    assert!(run.stderr.contains("was used once"), "{}", run.stderr);
    assert!(!dir.join("telemetry.safe_seq").exists());
}

/// Proves: JRN-33
#[test]
fn variables_left_set_change_nothing_beside_a_safe_sequence() {
    for name in ["known-good", "phantoms", "zero-tail", "staged-leftover"] {
        let sandbox = Sandbox::new();
        let dir = fixture(&sandbox, name);
        let before = files(&dir);
        let run = import_with(&sandbox, &dir, &[LEGACY_UPGRADE, OPERATOR_RESET]);
        let summary = summary(&run);
        assert_eq!(
            (&summary["upgrade"], &summary["was_reset"]),
            (&Value::Null, &json!(false))
        );
        for variable in [LEGACY_UPGRADE, OPERATOR_RESET] {
            let told = format!("{variable} is set and has no effect");
            assert!(run.stderr.contains(&told), "{}", run.stderr);
        }
        assert_eq!(files(&dir), before, "{name} was changed");
    }
}

/// The ways out that docs/errors gives, on a copy.
#[test]
fn the_pages_ways_out_of_a_refusal_take_in_what_is_readable() {
    for (name, frames) in [
        ("gap", 3),
        ("first-not-one", 2),
        ("safe-above", 5),
        ("short-safe-seq", 2),
    ] {
        let sandbox = Sandbox::new();
        let dir = fixture(&sandbox, name);
        fs::remove_file(dir.join("telemetry.safe_seq")).unwrap();
        let run = import_with(&sandbox, &dir, &[LEGACY_UPGRADE]);
        let [found, stored, _] = counts(&run);
        assert_eq!((found, stored), (frames, frames), "{name}");
    }
    // An unreadable frame in the middle refuses the upgrade; a safe sequence before it does not.
    let sandbox = Sandbox::new();
    let dir = fixture(&sandbox, "invalid-json");
    fs::write(dir.join("telemetry.safe_seq"), b"\x03\0\0\0\0\0\0\0").unwrap();
    assert_eq!(counts(&import(&sandbox, &dir)), [3, 3, 0]);
}

#[test]
fn commands_for_journals_point_from_a_version_1_log_to_its_import() {
    let sandbox = Sandbox::new();
    let dir = fixture(&sandbox, "known-good");
    let before = files(&dir);
    let export = sandbox.file("some.jsonl", "{}\n");
    for args in [
        &["journal", "import", text(&dir)][..],
        &["journal", "import", text(&dir), "--dir", "new"],
        &["journal", "import", text(&export), "--dir", text(&dir)],
        &["journal", "export", text(&dir)],
        &["journal", "export", text(&dir), "--salvage"],
        &["journal", "repair", text(&dir)],
        &["journal", "reset", text(&dir), "--reason", "none"],
    ] {
        let run = sandbox.run(args);
        run.is_refused_naming("version 1");
        let told = format!("holdfast events import {}", dir.display());
        assert!(run.stderr.contains(&told), "{args:?}: {}", run.stderr);
    }
    assert_eq!(files(&dir), before);
    let none = sandbox.run(["events", "import", text(&sandbox.path("none"))]);
    none.is_refused_naming("none");
    none.tells_next_step();
}

#[test]
fn a_frame_that_no_event_can_hold_is_named_and_the_others_are_stored() {
    let sandbox = Sandbox::new();
    let long = format!("{{\"seq\":2,\"text\":\"{}\"}}", "x".repeat(1 << 20));
    let wal = ["{\"seq\":1}", &long, "{\"seq\":3}"].map(frame).concat();
    sandbox.file("long/telemetry.wal", wal);
    sandbox.file("long/telemetry.safe_seq", 3_u64.to_le_bytes());
    let run = import(&sandbox, &sandbox.path("long"));
    assert_eq!(run.code, 3, "{}", run.stderr);
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    schema::check("events-import", &summary);
    assert_eq!(summary["refused"], 1);
    assert_eq!(summary["refusals"][0]["seq"], 2);
    assert_eq!(kept(&sandbox), [1, 3]);
}
