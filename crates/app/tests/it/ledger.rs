//! Tamper evidence, as an auditor sees it.

use crate::{facts, holdfast::Sandbox};

/// Proves: LED-10, SVC-4
#[test]
fn an_auditor_verifies_an_export_with_nothing_but_the_binary_and_the_public_key() {
    let sandbox = Sandbox::new();
    for kptr in ["2", "0"] {
        let file = sandbox.file("facts.json", facts::bundle("press-3", kptr).to_string());
        sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    }
    sandbox.run(["host", "add", "db-1", "192.0.2.1"]);
    let (_, sealed) = sandbox.json(["ledger", "seal"]);
    let (_, key) = sandbox.json(["ledger", "key", "show"]);
    let key = key["key"].as_str().unwrap();
    assert_eq!(sealed["key"], key);
    let note = format!("1:{}", sealed["sha256"].as_str().unwrap());
    for (kind, name) in [
        ("ledger", "l.jsonl"),
        ("ledger", "l.zst"),
        ("audit", "a.jsonl"),
    ] {
        let to = sandbox.path(name);
        let to = to.to_str().unwrap();
        let run = sandbox.run([kind, "export", "--to", to]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        sandbox
            .run([kind, "export", "--to", to])
            .is_refused_naming(name);
        let here = sandbox.run([kind, "verify", "--noted", &note]);
        assert_eq!(here.code, 0, "{}", here.stdout);
        let elsewhere = Sandbox::new();
        let asked = [
            kind, "verify", "--export", to, "--key", key, "--noted", &note,
        ];
        let run = elsewhere.run(asked);
        assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
        assert!(run.stdout.starts_with("sound: "), "{}", run.stdout);
        assert!(!elsewhere.data_dir().exists(), "nothing is created");
    }
    let text = std::fs::read_to_string(sandbox.path("l.jsonl")).unwrap();
    let forged = sandbox.file(
        "forged",
        text.replacen("\"to\":\"fail\"", "\"to\":\"pass\"", 1),
    );
    let forged = forged.to_str().unwrap();
    let run = Sandbox::new().run(["ledger", "verify", "--export", forged, "--key", key]);
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout.contains("host `press-3`, change "),
        "{}",
        run.stdout
    );
}

/// Proves: LED-10
#[test]
fn a_lost_key_is_told_of_and_replaced_only_when_somebody_says_that_it_is_lost() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("facts.json", facts::bundle("press-3", "2").to_string());
    sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    let replace = ["ledger", "key", "replace", "--lost"];
    sandbox.run(replace).is_refused_naming("nothing was signed");
    sandbox.run(["ledger", "seal"]);
    sandbox.run(replace).is_refused_naming("keys/ledger.key");
    let (_, old) = sandbox.json(["ledger", "key", "show"]);
    let key = sandbox.data_dir().join("keys/ledger.key");
    std::fs::remove_file(&key).unwrap();
    let sealed = sandbox.run(["ledger", "seal"]);
    sealed.is_refused_naming("ledger.key");
    assert!(
        sealed.stderr.contains("replace --lost"),
        "{}",
        sealed.stderr
    );
    assert_eq!(sandbox.run(["ledger", "key", "replace"]).code, 2);

    let (code, replaced) = sandbox.json(replace);
    assert_eq!(code, 0, "{replaced}");
    let run = sandbox.run(["ledger", "verify"]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.stdout.contains("was lost"), "{}", run.stdout);
    let (_, verified) = sandbox.json(["ledger", "verify"]);
    assert_eq!(verified["keys_lost"][0]["before"], old["key"]);
    assert_eq!(verified["keys_lost"][0]["key"], replaced["key"]);
    let by = |key: &serde_json::Value| {
        let key = key.as_str().unwrap();
        sandbox.run(["ledger", "verify", "--key", key]).code
    };
    assert_eq!((by(&old["key"]), by(&replaced["key"])), (1, 0));
    let audit = sandbox.run(["audit", "--action", "ledger.key_replaced"]);
    assert!(
        audit.stdout.contains("ledger.key_replaced"),
        "{}",
        audit.stdout
    );
    assert_eq!(sandbox.run(["audit", "verify"]).code, 0);
}

#[test]
fn a_rotated_key_goes_on_and_a_wrong_one_is_told() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("facts.json", facts::bundle("press-3", "2").to_string());
    sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    let (_, before) = sandbox.json(["ledger", "key", "show"]);
    sandbox.run(["ledger", "seal"]);
    let (code, rotated) = sandbox.json(["ledger", "key", "rotate"]);
    assert_eq!(code, 0);
    assert_ne!(rotated["key"], before["key"]);
    for key in [&rotated["key"], &before["key"]] {
        let run = sandbox.run(["ledger", "verify", "--key", key.as_str().unwrap()]);
        assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    }
    let other = "A5IEn10MaOemSd+uCEJgjG3pFc4hxK+IChhRLDcRQFg=";
    let run = sandbox.run(["ledger", "verify", "--key", other]);
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.contains("no statement is signed by the key"),
        "{}",
        run.stdout
    );
    sandbox
        .run(["ledger", "verify", "--key", "none"])
        .is_refused_naming("--key");
    sandbox
        .run(["ledger", "verify", "--export", "f"])
        .is_refused_naming("--key");
    sandbox
        .run(["ledger", "verify", "--noted", "x"])
        .is_refused_naming("`x`");
}
