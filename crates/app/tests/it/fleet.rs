//! Hosts and credentials, as an operator adds and looks at them.

use std::{io::Write, process::Stdio};

use crate::holdfast::{Run, Sandbox};

const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

fn done(run: &Run) -> &str {
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
    &run.stdout
}

fn refused(run: &Run, object: &str) {
    run.is_refused_naming(object);
    run.tells_next_step();
}

fn with_stdin(sandbox: &Sandbox, args: &[&str], input: &str) -> Run {
    let mut command = sandbox.command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    Run::of(child.wait_with_output().unwrap())
}

/// Proves: EXE-2
#[test]
fn a_password_is_taken_from_a_file_or_standard_input_and_printed_nowhere() {
    const SECRET: &str = "s3cret-Pa55";
    let sandbox = Sandbox::new();
    let file = sandbox.file("word", format!("{SECRET}\nbelow it\n"));
    let file = file.to_str().unwrap();
    let by_file = [
        "credential",
        "add",
        "default",
        "--user",
        "admin",
        "--password-file",
        file,
    ];
    let mut said = vec![
        sandbox.run(by_file),
        with_stdin(
            &sandbox,
            &[
                "credential",
                "add",
                "other",
                "--user",
                "x",
                "--password-stdin",
                "--sudo",
                "password",
            ],
            &format!("{SECRET}\n"),
        ),
    ];
    for output in ["table", "json", "csv"] {
        said.push(sandbox.run(["credential", "list", "-o", output]));
    }
    said.push(sandbox.run(["-v", "credential", "rotate", "other", "--sudo", "never"]));
    said.push(sandbox.run(["-v", "credential", "rotate", "--data-key"]));
    for run in &said {
        done(run);
        assert!(!run.stdout.contains(SECRET) && !run.stderr.contains(SECRET));
    }
    let again = sandbox.run(by_file);
    refused(&again, "default");
    let (_, listed) = sandbox.json(["credential", "list"]);
    assert_eq!(listed["credentials"].as_array().unwrap().len(), 2);
    assert_eq!(listed["credentials"][0]["kinds"][0], "password");
    for file in ["keys/data.key", "changed"] {
        assert!(sandbox.data_dir().join(file).exists(), "{file}");
    }
}

#[test]
fn a_secret_is_no_argument_and_not_nothing() {
    let sandbox = Sandbox::new();
    let bad = sandbox.file("empty", "\nsecond");
    let bad = [
        "credential",
        "add",
        "x",
        "--user",
        "y",
        "--password-file",
        bad.to_str().unwrap(),
    ];
    refused(&sandbox.run(bad), "empty");
    refused(
        &sandbox.run(["credential", "add", "x", "--user", "y"]),
        "needs a key",
    );
    refused(
        &sandbox.run(["credential", "add", "x", "--user", "y", "--password"]),
        "terminal",
    );
    let argument = sandbox.run([
        "credential",
        "add",
        "x",
        "--user",
        "y",
        "--password",
        "s3cret",
    ]);
    assert_eq!(argument.code, 2);
}

#[test]
fn a_key_file_that_is_none_is_said_to_be_that() {
    let sandbox = Sandbox::new();
    for (content, says) in [
        (HOST_KEY, "public key"),
        ("PuTTY-User-Key-File-2: ssh-rsa", "PuTTY"),
        ("", "no private key"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
            "damaged",
        ),
    ] {
        let file = sandbox.file("id", content);
        let run = sandbox.run([
            "credential",
            "add",
            "x",
            "--user",
            "y",
            "--key",
            file.to_str().unwrap(),
        ]);
        refused(&run, says);
        refused(&run, "id");
    }
    let missing = sandbox.run([
        "credential",
        "add",
        "x",
        "--user",
        "y",
        "--key",
        "/nonexistent/id",
    ]);
    refused(&missing, "/nonexistent/id");
    let long = sandbox.file("long", vec![b'a'; 70_000]);
    let long = [
        "credential",
        "add",
        "x",
        "--user",
        "y",
        "--key",
        long.to_str().unwrap(),
    ];
    refused(&sandbox.run(long), "long");
}

#[test]
fn hosts_are_added_listed_as_they_were_and_retired() {
    let sandbox = Sandbox::new();
    let key = sandbox.file("host.pub", format!("{HOST_KEY} root@web1\n"));
    let key = key.to_str().unwrap();
    refused(&sandbox.run(["host", "list"]), "data");
    done(&sandbox.run([
        "host",
        "add",
        "web1",
        "10.0.0.1",
        "--port",
        "2222",
        "--user",
        "ops",
        "--key-file",
        key,
        "--group",
        "web,prod",
        "--tag",
        "a",
        "--site",
        "berlin",
    ]));
    done(&sandbox.run(["host", "add", "here", "--local"]));
    done(&sandbox.run(["host", "add", "air", "--offline"]));
    let odd = "web$(reboot)<b>";
    done(&sandbox.run(["host", "add", odd, "10.0.0.2", "--no-key"]));
    refused(
        &sandbox.run(["host", "add", "web1", "10.0.0.9", "--no-key"]),
        "web1",
    );
    refused(&sandbox.run(["host", "add", "a b"]), "a b");
    refused(
        &sandbox.run(["host", "add", "x\u{1b}[2J", "10.0.0.1"]),
        "control",
    );
    refused(&sandbox.run(["host", "add", "x", "$(reboot)"]), "$(reboot)");
    assert_eq!(
        sandbox.run(["host", "add", "x", "a", "--port", "0"]).code,
        2
    );
    assert_eq!(sandbox.run(["host", "add", "x", "a", "--local"]).code, 2);

    let (_, listed) = sandbox.json(["host", "list", "--group", "web"]);
    assert_eq!(listed["hosts"].as_array().unwrap().len(), 1);
    assert_eq!(listed["hosts"][0]["reach"]["port"], 2222);
    let (_, shown) = sandbox.json(["host", "show", "web1"]);
    assert!(
        shown["known_keys"][0]
            .as_str()
            .unwrap()
            .starts_with("ssh-ed25519 SHA256:")
    );
    for name in ["web1", "here", "air"] {
        assert!(done(&sandbox.run(["host", "show", name])).contains(name));
    }
    done(&sandbox.run(["host", "retire", "web1"]));
    refused(&sandbox.run(["host", "retire", "web1"]), "retired");
    refused(&sandbox.run(["host", "retire", "web9"]), "web9");
    refused(
        &sandbox.run(["host", "add", "web1", "10.0.0.1", "--no-key"]),
        "retired",
    );
    refused(&sandbox.run(["host", "check", "web1"]), "retired");
    assert!(!done(&sandbox.run(["host", "list"])).contains("web1"));
    assert!(done(&sandbox.run(["host", "list", "--retired"])).contains("web1"));
}

#[test]
fn what_a_listing_prints_is_taken_back_elsewhere() {
    let sandbox = Sandbox::new();
    for name in ["web1", "a <b>", "=1+1"] {
        done(&sandbox.run([
            "host", "add", name, "10.0.0.1", "--no-key", "--group", "x,y",
        ]));
    }
    done(&sandbox.run(["host", "add", "here", "--local"]));
    done(&sandbox.run(["host", "retire", "web1"]));
    let listing = done(&sandbox.run(["host", "list", "-o", "csv"])).to_owned();
    let elsewhere = Sandbox::new();
    let file = elsewhere.file("hosts.csv", listing);
    done(&elsewhere.run(["host", "import", file.to_str().unwrap()]));
    let before = sandbox.json(["host", "list"]).1["hosts"]
        .as_array()
        .unwrap()
        .len();
    let after = elsewhere.json(["host", "list"]).1["hosts"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!((before, after), (3, 3));
}

/// Proves: EXE-4
#[test]
fn a_host_key_comes_from_ones_own_known_hosts_and_a_changed_one_is_not_taken() {
    let sandbox = Sandbox::new();
    sandbox.file(".ssh/known_hosts", format!("10.0.0.1,web {HOST_KEY}\n"));
    let added = sandbox.run(["host", "add", "web1", "10.0.0.1"]);
    done(&added);
    assert!(
        added.stderr.contains("known_hosts: ssh-ed25519 SHA256:"),
        "{}",
        added.stderr
    );
    let other = sandbox.file("other.pub", OTHER_KEY);
    let other = other.to_str().unwrap();
    refused(
        &sandbox.run(["host", "trust", "web1", "--key-file", other]),
        "on record",
    );
    done(&sandbox.run(["host", "trust", "web1", "--key-file", other, "--replace"]));
    let exported = sandbox.run(["host", "trust", "--export"]);
    assert_eq!(done(&exported), format!("10.0.0.1 {OTHER_KEY}\n"));
    // Also when it is added again under another name.
    refused(
        &sandbox.run(["host", "add", "web2", "10.0.0.1", "--key-file", "/dev/null"]),
        "/dev/null",
    );
    let own = sandbox.path(".ssh/known_hosts");
    let taken = sandbox.run(["host", "trust", "--known-hosts", own.to_str().unwrap()]);
    assert!(done(&taken).starts_with("2 keys taken"), "{}", taken.stdout);
    let garbage = with_stdin(
        &sandbox,
        &["host", "trust", "--known-hosts", "-"],
        "@cert-authority * x y\n",
    );
    assert_eq!(garbage.code, 2);
    assert!(
        garbage.stderr.contains("-:1: @cert-authority"),
        "{}",
        garbage.stderr
    );
    // Nobody is there to be asked, and nobody listens.
    refused(
        &sandbox.run(["host", "add", "web3", "127.0.0.1", "--port", "1"]),
        "host_unreachable",
    );
}

#[test]
fn an_import_is_all_or_nothing_unless_told_otherwise_and_can_be_tried_first() {
    let sandbox = Sandbox::new();
    let file = sandbox.file(
        "hosts",
        "[web]\ngood ansible_host=10.0.0.1\nbad ansible_host=-x\n",
    );
    let file = file.to_str().unwrap();
    let all = sandbox.run(["host", "import", file]);
    assert_eq!(all.code, 2);
    assert!(
        all.stderr.contains("hosts:3: address `-x`"),
        "{}",
        all.stderr
    );
    assert!(all.stderr.contains("next: "), "{}", all.stderr);
    assert!(done(&sandbox.run(["host", "list"])).is_empty());
    let tried = sandbox.run(["host", "import", file, "--skip-bad", "--dry-run"]);
    assert!(
        done(&tried).contains("nothing was written: 1 added"),
        "{}",
        tried.stdout
    );
    assert!(done(&sandbox.run(["host", "list"])).is_empty());
    let (code, taken) = sandbox.json(["host", "import", file, "--skip-bad", "--tag", "new"]);
    assert_eq!(
        (code, &taken["added"][0], &taken["refused"][0]["line"]),
        (0, &"good".into(), &3.into())
    );
    let (_, shown) = sandbox.json(["host", "show", "good"]);
    assert_eq!(
        (&shown["groups"][0], &shown["tags"][0]),
        (&"web".into(), &"new".into())
    );
    let again = sandbox.run(["host", "import", file, "--skip-bad", "--tag", "new"]);
    assert!(
        done(&again).contains("0 added, 0 changed, 1 left alone, 1 refused"),
        "{}",
        again.stdout
    );
    refused(
        &sandbox.run(["host", "import", "/nonexistent"]),
        "/nonexistent",
    );
    let empty = sandbox.file("empty", "# nothing\n");
    refused(
        &sandbox.run(["host", "import", empty.to_str().unwrap()]),
        "empty",
    );

    sandbox.file("ssh/config.d/more", "Host web2\n  HostName 10.0.0.2\n");
    let config = sandbox.file(
        "ssh/config",
        "Include config.d/*\nHost web1\n  HostName 10.0.0.1\nHost *\n  User ops\n",
    );
    let run = sandbox.run(["host", "import", config.to_str().unwrap()]);
    assert!(
        done(&run).contains("+ web2  ops@10.0.0.2\n+ web1  ops@10.0.0.1\n"),
        "{}",
        run.stdout
    );
}
