//! `[[alerts.receiver]]` as people write it.

use super::*;

/// Tables, and what is said of each.
fn refused() -> Vec<(String, &'static str)> {
    let mail = "kind = \"email\"\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]";
    vec![
        ("kind = \"pigeon\"".to_owned(), "kind"),
        ("kind = \"webhook\"".to_owned(), "url is missing"),
        (
            "kind = \"webhook\"\nurl = \"http://example.org/\"".to_owned(),
            "http://",
        ),
        (
            "kind = \"webhook\"\nurl = \"https://u:p@example.org/\"".to_owned(),
            "holds a user",
        ),
        (
            "kind = \"webhook\"\nurl = \"ftp://example.org/\"".to_owned(),
            "neither https nor http",
        ),
        (
            "kind = \"webhook\"\nurl = \"https://example.org/\"\nsecret = \"hunter2\"".to_owned(),
            "secret",
        ),
        (
            "kind = \"webhook\"\nurl = \"https://example.org/\"\nserver = \"m:25\"".to_owned(),
            "no key of kind webhook",
        ),
        (
            "kind = \"webhook\"\nurl = \"https://example.org/\"\nkinds = [\"drift\"]".to_owned(),
            "no kind of alert",
        ),
        (
            "kind = \"webhook\"\nurl = \"https://example.org/\"\nsecrets = \"x\"".to_owned(),
            "unknown field",
        ),
        (
            "kind = \"webhook\"\nurl = \"https://example.org/\"\nminimum_severity = \"low\""
                .to_owned(),
            "minimum_severity",
        ),
        (
            format!("{mail}\nserver = \"mail.example.org:25\"\nsecurity = \"none\""),
            "in the clear",
        ),
        (
            format!("{mail}\nserver = \"mail.example.org\""),
            "no host and port",
        ),
        (
            format!("{mail}\nserver = \"m.example.org:25\"\nuser = \"u\""),
            "belong together",
        ),
        (
            mail.replace("b@example.org", "b@example.org\\r\\nBcc: c@example.org")
                + "\nserver = \"m:25\"",
            "no address",
        ),
        (
            "kind = \"syslog\"\naddress = \"h:514\"\ntransport = \"tls\"".to_owned(),
            "ca_file",
        ),
        (
            "kind = \"syslog\"\naddress = \"h:514\"\nfacility = 24".to_owned(),
            "facility",
        ),
        (
            "kind = \"syslog\"\naddress = \"h:0\"".to_owned(),
            "no host and port",
        ),
    ]
}

/// Proves: SVC-2
#[test]
fn what_makes_no_sense_of_a_receiver_is_refused_with_a_way_out() {
    for (table, expected) in refused() {
        let sandbox = with_receiver(&table);
        let run = test_of(&sandbox);
        assert_eq!(run.code, 2, "{table}");
        assert!(run.stderr.contains(expected), "{table}: {}", run.stderr);
        assert!(run.stderr.contains("next:"), "{table}: {}", run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{table}: {}", run.stderr);
    }
}

#[test]
fn a_second_receiver_of_a_name_and_an_unknown_one_are_refused() {
    let table = "kind = \"syslog\"\naddress = \"h:514\"\n[[alerts.receiver]]\nname = \"r\"\nkind = \"syslog\"\naddress = \"h:514\"";
    let run = test_of(&with_receiver(table));
    assert!(
        run.code == 2 && run.stderr.contains("another's"),
        "{}",
        run.stderr
    );
    let sandbox = Sandbox::new();
    let run = sandbox.run(["alert", "test", "nobody"]);
    assert!(
        run.code == 2 && run.stderr.contains("no alert receiver"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_secret_that_cannot_be_read_is_told_by_where_it_should_be() {
    let sandbox = with_receiver(
        "kind = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\nsecret = \"env:NO_SUCH_VARIABLE\"",
    );
    let run = test_of(&sandbox);
    assert!(
        run.code == 2 && run.stderr.contains("NO_SUCH_VARIABLE"),
        "{}",
        run.stderr
    );
    // Who sends nothing needs no secret.
    let config = sandbox.path("holdfast.toml");
    let args = ["config", "show", "--config"].map(std::ffi::OsString::from);
    let run = sandbox.run(args.into_iter().chain([config.into_os_string()]));
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// Proves: SVC-2
#[test]
fn the_examples_of_the_default_configuration_are_valid() {
    let sandbox = Sandbox::new();
    let printed = sandbox.run(["config", "show", "--default"]).stdout;
    let tables = printed.split_once("# [[alerts.receiver]]").unwrap().1;
    let text: String = format!("# [[alerts.receiver]]{tables}")
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line)))
        .collect();
    assert_eq!(text.matches("[[alerts.receiver]]").count(), 3);
    let config = sandbox.file("holdfast.toml", text);
    let args = ["config", "show", "--config"].map(std::ffi::OsString::from);
    let run = sandbox.run(args.into_iter().chain([config.into_os_string()]));
    assert_eq!(run.code, 0, "{}", run.stderr);
}
