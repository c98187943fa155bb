//! Commands against a server: `holdfast --server URL`.

use std::path::{Path, PathBuf};

use crate::{
    facts,
    holdfast::{Run, Sandbox},
    watching::Up,
};

/// A running server, and somebody elsewhere: with a token and without a data directory.
struct Far {
    up: Up,
    server: Sandbox,
    here: Sandbox,
    url: String,
}

impl Far {
    fn start() -> Self {
        let server = Sandbox::new();
        for host in ["press-3", "press-4"] {
            let file = server.file("facts.json", facts::bundle(host, "0").to_string());
            server.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
        }
        let up = Up::start(&server);
        let line = up.says("HTTP interface and console at ");
        let url = line
            .split_whitespace()
            .find(|word| word.starts_with("http"))
            .unwrap_or_default()
            .trim_end_matches(';')
            .to_owned();
        Self {
            up,
            server,
            here: Sandbox::new(),
            url,
        }
    }

    fn token(&self, role: &str) -> PathBuf {
        let run = self.run_as(
            &self.admin(),
            &["token", "add", role, "--role", role, "-o", "json"],
        );
        assert_eq!(run.code, 0, "{}", run.stderr);
        let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        self.here.file(role, told["token"].as_str().unwrap())
    }

    fn admin(&self) -> PathBuf {
        self.server.data_dir().join("keys/admin.token")
    }

    fn run_as(&self, token: &Path, words: &[&str]) -> Run {
        let mut all = vec![
            "--server",
            &self.url,
            "--token-file",
            token.to_str().unwrap(),
        ];
        all.extend(words);
        self.here.run(all)
    }

    fn run(&self, words: &[&str]) -> Run {
        self.run_as(&self.admin(), words)
    }
}

/// Proves: SVC-8
#[test]
fn a_command_against_a_server_answers_as_one_typed_on_it() {
    let far = Far::start();
    for words in [
        &["status", "--host", "press-3"][..],
        &[
            "status",
            "--host",
            "press-3",
            "--rule",
            facts::KPTR_RULE,
            "-o",
            "json",
        ],
        &[
            "history",
            facts::KPTR_RULE,
            "--host",
            "press-3",
            "-o",
            "csv",
        ],
        &["rules", "show", facts::KPTR_RULE],
        &["status", "--host", "no-such-host"],
        &["status", "--no-such-flag"],
    ] {
        let (there, on_it) = (far.run(words), far.server.run(words));
        assert_eq!(there.code, on_it.code, "{words:?}: {}", there.stderr);
        assert_eq!(there.stdout, on_it.stdout, "{words:?}");
        assert_eq!(there.stderr, on_it.stderr, "{words:?}");
    }
    assert!(!far.here.data_dir().exists(), "nothing is made here");
    assert_eq!(far.up.stop(), 0);
}

#[test]
fn files_go_along_and_come_back_and_are_named_as_they_are_here() {
    let far = Far::start();
    let hosts = far
        .here
        .file("site/hosts.csv", "name,address\nweb1,127.0.0.9\n");
    let import = far.run(&["host", "import", hosts.to_str().unwrap(), "--format", "csv"]);
    assert_eq!(import.code, 0, "{}{}", import.stdout, import.stderr);
    let list = far.run(&["host", "list", "-o", "csv"]);
    assert!(list.stdout.contains("web1"), "{}", list.stdout);
    let audit = far.run(&["audit", "-o", "csv"]);
    assert!(audit.stdout.contains("token admin"), "{}", audit.stdout);

    let to = far.here.path("out.json");
    let words = ["export", "--format", "sarif", "--host", "press-3", "--to"];
    let export = far.run(&[&words[..], &[to.to_str().unwrap()]].concat());
    assert_eq!(export.code, 0, "{}", export.stderr);
    let written = std::fs::read_to_string(&to).unwrap();
    assert!(written.contains("2.1.0"), "{written}");
    assert!(!export.stderr.contains('@'), "{}", export.stderr);

    let missing = far.run(&["host", "import", "/no/such/file"]);
    assert_eq!(missing.code, 2);
    assert!(
        missing.stderr.contains("/no/such/file"),
        "{}",
        missing.stderr
    );
}

/// Proves: SVC-3
#[test]
#[allow(clippy::too_many_lines, reason = "a list of what must be refused")]
fn a_role_reaches_as_far_as_it_says_and_a_word_names_no_file_of_the_server() {
    let far = Far::start();
    let viewer = far.token("viewer");
    assert_eq!(
        far.run_as(&viewer, &["status", "--host", "press-3"]).code,
        1
    );
    for words in [
        &["host", "add", "web9", "127.0.0.9"][..],
        &["audit"],
        &["token", "list"],
        &["scan", "--all"],
    ] {
        let run = far.run_as(&viewer, words);
        assert_eq!(run.code, 2, "{words:?}");
        assert!(run.stderr.contains("role"), "{words:?}: {}", run.stderr);
    }
    assert!(
        !far.run(&["host", "list", "-o", "csv"])
            .stdout
            .contains("web9")
    );

    let nobody = far.here.file("nobody", "hf_nothing");
    let run = far.run_as(&nobody, &["status"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("--token-file"), "{}", run.stderr);

    for words in [
        &["up"][..],
        &["journal", "verify"],
        &["migrate", "--to", "postgres://h/d"],
    ] {
        let run = far.run(words);
        assert_eq!(run.code, 2, "{words:?}");
        assert!(
            run.stderr.contains("where it is typed"),
            "{words:?}: {}",
            run.stderr
        );
    }

    let secret = far.server.file("secret", "of the server\n");
    let include = format!("Include {}\n", secret.display());
    let include = far.here.file("include", include);
    let words = [
        "host",
        "import",
        "--dry-run",
        "--format",
        "openssh",
        "--skip-bad",
    ];
    let run = far.run(&[&words[..], &[include.to_str().unwrap()]].concat());
    let told = run.stdout + &run.stderr;
    assert!(
        !told.contains("of the server\n") && told.contains("did not come along"),
        "{told}"
    );

    let token = std::fs::read_to_string(far.admin()).unwrap();
    for words in [
        serde_json::json!(["host", "import", secret]),
        serde_json::json!(["host", "import", "@3"]),
        serde_json::json!(["--data-dir", "/", "status"]),
        serde_json::json!(["rules", "list", "--rules-dir", "/etc"]),
        serde_json::json!(["export", "--format", "csv", "--to", "/tmp/x"]),
    ] {
        let mut answer = ureq::Agent::from(
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .build(),
        )
        .post(format!("{}/api/v1/commands", far.url))
        .header("Authorization", format!("Bearer {}", token.trim()))
        .content_type("application/json")
        .send(serde_json::json!({ "words": words }).to_string())
        .unwrap();
        assert_eq!(answer.status(), 422, "{words}");
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(!text.contains("of the server\""), "{text}");
    }
}
