//! With what privilege a command runs, and what it costs the user who has none.

use std::time::{Duration, Instant};

use scan::{capture::Exchange, credential::Sudo, ssh::Privilege};
use zeroize::Zeroizing;

use crate::Peer;

use libtest_mimic::Trial;

use super::server::{Login, PASSWORD, SERVER, Server, ask};

pub(super) fn tests() -> Vec<Trial> {
    vec![
        SERVER.test("ssh_privilege_is_what_host_and_credential_give", privileges),
        SERVER.test("ssh_a_wrong_password_of_sudo_is_tried_once", once),
        SERVER.test("ssh_one_session_at_a_time_is_enough", one_session),
        SERVER.test("ssh_a_scan_that_ends_leaves_nothing_running", nothing_left),
    ]
}

fn login(server: &Server, user: &str, sudo: Sudo, password: Option<&str>) -> Login {
    server.login(user).with(|login| {
        login.secret.sudo = sudo;
        login.secret.sudo_password = password.map(|word| Zeroizing::new(word.to_owned()));
    })
}

fn check(server: &Server, (user, sudo, password): (&str, Sudo, Option<&str>), expected: &Expected) {
    let name = format!("{user} {sudo:?} {password:?}");
    let (mut session, privilege) = login(server, user, sudo, password)
        .start()
        .unwrap_or_else(|failure| panic!("{name}: {failure}"));
    let id = ask(&mut session, "id -un").unwrap();
    match (expected, privilege) {
        (Expected::As(expected), privilege) => {
            assert_eq!(privilege, *expected, "{name}");
            assert_eq!(id, "root", "{name}");
        }
        (Expected::Without(words), Privilege::None { why }) => {
            assert!(why.contains(words), "{name}: {why:?}");
            assert_eq!(id, user, "{name}");
        }
        (Expected::Without(words), privilege) => panic!("{name}: {privilege:?}, not {words}"),
    }
}

enum Expected {
    As(Privilege),
    Without(&'static str),
}

/// Proves: EXE-8
fn privileges(_: &Peer) {
    let server = Server::start();
    let with = |privilege| Expected::As(privilege);
    let wrong = Some("wrong-Recognisable");
    for (case, expected) in [
        (("root", Sudo::Never, None), with(Privilege::Root)),
        (
            ("alice", Sudo::NoPassword, None),
            with(Privilege::SudoNoPassword),
        ),
        (
            ("alice", Sudo::Password, Some(PASSWORD)),
            with(Privilege::SudoNoPassword),
        ),
        (
            ("alice", Sudo::Never, None),
            Expected::Without("does not allow sudo"),
        ),
        (
            ("bob", Sudo::Password, Some(PASSWORD)),
            with(Privilege::SudoPassword),
        ),
        (
            ("bob", Sudo::Password, wrong),
            Expected::Without("refused the password"),
        ),
        (
            ("bob", Sudo::Password, None),
            Expected::Without("a password is required"),
        ),
        (
            ("bob", Sudo::NoPassword, Some(PASSWORD)),
            Expected::Without("a password is required"),
        ),
        (
            ("carol", Sudo::NoPassword, None),
            Expected::Without("a password is required"),
        ),
        (
            ("carol", Sudo::Password, Some(PASSWORD)),
            Expected::Without("not in the sudoers file"),
        ),
    ] {
        check(&server, case, &expected);
    }
}

/// Modules that lock accounts count failures; the record of the user's own host says how many there were.
///
/// Proves: EXE-8
fn once(_: &Peer) {
    let server = Server::start();
    let rules = std::fs::read_to_string(server.path("sudoers")).unwrap();
    let record = server.path("sudo.record");
    let rules = format!("Defaults logfile={}\n{rules}", record.display());
    std::fs::write(server.path("sudoers"), rules).unwrap();
    let wrong = Some("wrong-Recognisable");
    check(
        &server,
        ("bob", Sudo::Password, wrong),
        &Expected::Without("refused the password"),
    );
    let record = std::fs::read_to_string(record).unwrap();
    assert_eq!(
        record.matches("1 incorrect password attempt").count(),
        1,
        "{record}"
    );
    assert!(!record.contains("Recognisable"), "{record}");
}

fn one_session(_: &Peer) {
    let server = Server::start_with("MaxSessions 1");
    let wrong = Some("wrong-Recognisable");
    check(
        &server,
        ("bob", Sudo::Password, wrong),
        &Expected::Without("refused the password"),
    );
}

/// Proves: EXE-6
fn nothing_left(_: &Peer) {
    let server = Server::start();
    for (user, sudo) in [("carol", Sudo::Never), ("alice", Sudo::NoPassword)] {
        let (mut session, _) = login(&server, user, sudo, None)
            .connect()
            .unwrap()
            .start(&scan::capture::command(), 2)
            .unwrap();
        // A number that nothing else on this machine sleeps for.
        let seconds = format!("{}{}", 7_000_000, server.port);
        session
            .send(format!("/bin/sleep {seconds}\n").as_bytes())
            .unwrap();
        await_process(&seconds, true);
        session.close();
        await_process(&seconds, false);
    }
}

/// Until a `sleep` for so many seconds runs, or does not.
fn await_process(seconds: &str, is_wanted: bool) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let runs = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line == format!("/bin/sleep\0{seconds}\0").as_bytes()
        });
        if runs == is_wanted {
            return;
        }
        assert!(Instant::now() < end, "sleep {seconds}: wanted {is_wanted}");
        std::thread::yield_now();
    }
}
