//! Policies as a site keeps them: keys, signatures, and what a bad document does.

use std::fs;

use crate::holdfast::Sandbox;

fn ok(sandbox: &Sandbox, args: &[&str]) -> String {
    let run = sandbox.run(args);
    assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
    run.stdout
}

/// Shows the policy, changes it, signs it again.
fn edited(sandbox: &Sandbox, name: &str, edits: &[(&str, &str)]) -> String {
    let mut text = ok(sandbox, &["policy", "show"]);
    for (from, to) in edits {
        assert!(text.contains(from), "{from} is not in\n{text}");
        text = text.replace(from, to);
    }
    let file = sandbox.file(name, text);
    ok(sandbox, &["policy", "sign", file.to_str().unwrap()]);
    file.to_str().unwrap().to_owned()
}

/// Proves: SCH-11
#[test]
fn a_policy_is_shown_edited_signed_and_reloaded_with_nothing_between() {
    let sandbox = Sandbox::new();
    let made = ok(&sandbox, &["policy", "keygen", "--trust"]);
    let private = fs::read_to_string(sandbox.data_dir().join("keys/policy.key")).unwrap();
    let secret = private.lines().nth(1).unwrap();
    assert!(!made.contains(secret));
    let again = sandbox.run(["policy", "keygen"]);
    again.is_refused_naming("policy.key");

    let first = edited(&sandbox, "p.yaml", &[("critical: 1h", "critical: 1m")]);
    let loaded = sandbox.run(["policy", "reload", &first]);
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
    assert!(
        loaded.stderr.contains("version 0.1.0 is in force"),
        "{}",
        loaded.stderr
    );
    assert!(
        loaded.stderr.contains("clamped: critical 1m becomes 5m"),
        "{}",
        loaded.stderr
    );
    let shown = sandbox.run(["policy", "show"]);
    assert!(shown.stdout.contains("critical: 1m") && !shown.stdout.contains("signature:"));
    assert!(
        shown.stderr.contains("raise `version` to 0.1.1 or higher"),
        "{}",
        shown.stderr
    );

    // The second round forgets the version, then does not.
    let same = edited(&sandbox, "p.yaml", &[("critical: 1m", "critical: 2h")]);
    let refused = sandbox.run(["policy", "reload", &same]);
    refused.is_refused_naming("version_regression");
    assert!(
        ok(&sandbox, &["policy", "show"]).contains("critical: 1m"),
        "the previous one stays"
    );
    let raised = edited(&sandbox, "p.yaml", &[("\"0.1.0\"", "\"0.2.0\"")]);
    ok(&sandbox, &["policy", "verify", &raised]);
    ok(&sandbox, &["policy", "reload", &raised]);
    let (_, history) = sandbox.json(["policy", "show", "--history"]);
    let versions: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["version"])
        .collect();
    assert_eq!(versions, ["0.2.0", "0.1.0"]);
    for file in [
        sandbox.data_dir().join("journal"),
        sandbox.data_dir().join("tables"),
    ] {
        assert!(
            !anywhere(&file, secret.as_bytes()),
            "the private key stays in its file"
        );
    }
}

fn anywhere(dir: &std::path::Path, wanted: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            anywhere(&path, wanted)
        } else {
            let bytes = fs::read(&path).unwrap();
            bytes.windows(wanted.len()).any(|window| window == wanted)
        }
    })
}

#[test]
fn verify_tells_everything_that_is_wrong_at_once() {
    let sandbox = Sandbox::new();
    let file = sandbox.file(
        "p.yaml",
        "type: schedule\nversion: 1.0\nmetadata: {description: x}\nrules: {tik: 60s, ladder: {critical: 5}}\n",
    );
    let run = sandbox.run(["policy", "verify", file.to_str().unwrap()]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    for wanted in [
        "3 faults",
        "p.yaml:2:",
        "did you mean `tick`?",
        "`critical` is no span of time",
        "signature_invalid: the document is not signed",
    ] {
        assert!(run.stdout.contains(wanted), "{wanted}: {}", run.stdout);
    }
    assert!(!sandbox.data_dir().exists(), "a question creates nothing");
}

/// Proves: SCH-12
#[test]
fn a_revoked_key_signs_nothing_any_more() {
    let sandbox = Sandbox::new();
    ok(&sandbox, &["policy", "keygen", "--trust"]);
    let first = edited(&sandbox, "p.yaml", &[]);
    ok(&sandbox, &["policy", "reload", &first]);
    let other = sandbox.path("other.key");
    let other = other.to_str().unwrap();
    let (_, made) = sandbox.json(["policy", "keygen", "--trust", "--out", other]);
    let (_, keys) = sandbox.json(["policy", "trust"]);
    let one = keys
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["key_id"].as_str().unwrap())
        .find(|id| *id != made["key_id"])
        .unwrap();
    let list = sandbox.path("list.yaml");
    let revoked = sandbox.run([
        "policy",
        "revoke",
        &one[..12],
        "--reason",
        "lost",
        "--key",
        other,
        "--out",
        list.to_str().unwrap(),
    ]);
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    assert!(
        revoked.stderr.contains("`up` dispatches nothing until"),
        "{}",
        revoked.stderr
    );
    let file = sandbox.file(
        "p.yaml",
        fs::read_to_string(&first)
            .unwrap()
            .replace("\"0.1.0\"", "\"0.2.0\""),
    );
    let file = file.to_str().unwrap();
    ok(&sandbox, &["policy", "sign", file]);
    sandbox
        .run(["policy", "reload", file])
        .is_refused_naming("revoked_key");
    ok(&sandbox, &["policy", "sign", file, "--key", other]);
    ok(
        &sandbox,
        &[
            "policy",
            "reload",
            file,
            "--revocations",
            list.to_str().unwrap(),
        ],
    );
    let key = sandbox.path("other.key.pub");
    ok(
        &sandbox,
        &["policy", "verify", file, "--key", key.to_str().unwrap()],
    );
}
