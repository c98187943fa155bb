//! Who gets in, who does not, and what is said about it.

use std::{process::Command, time::Instant};

use scan::{
    failure::Reason,
    policy::HostKeyPolicy,
    ssh::{self, Limits, Patience, Privilege, Trust},
};
use zeroize::Zeroizing;

use crate::Peer;

use libtest_mimic::Trial;

use super::server::{
    HOST_KEY_TYPES, Login, PASSWORD, SERVER, Server, ask, generate, known, public_key,
};

pub(super) fn tests() -> Vec<Trial> {
    vec![
        SERVER.test("ssh_keys_of_every_usual_kind_log_in", keys),
        SERVER.test("ssh_passwords_log_in_by_either_method", passwords),
        SERVER.test("ssh_refusals_have_their_reasons", refusals),
        SERVER.test("ssh_hosts_that_are_of_no_use_say_why", no_use),
        SERVER.test(
            "ssh_a_server_with_several_keys_shows_the_known_one",
            host_keys,
        ),
        SERVER.test(
            "ssh_the_first_key_is_taken_only_where_that_is_the_policy",
            first_sight,
        ),
        SERVER.test("ssh_a_noisy_login_shell_does_not_matter", noisy),
        SERVER.test("ssh_a_login_writes_no_file", traced),
    ]
}

fn check_in(name: &str, login: &Login) {
    let (mut session, _) = login
        .start()
        .unwrap_or_else(|failure| panic!("{name}: {failure}"));
    let user = ask(&mut session, "id -un").unwrap();
    assert_eq!(user, login.secret.user, "{name}");
}

/// Proves: EXE-4
fn keys(_: &Peer) {
    let server = Server::start();
    for (name, how) in [
        ("ed25519", &["-t", "ed25519"][..]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
        ("ecdsa256", &["-t", "ecdsa", "-b", "256"]),
        ("ecdsa384", &["-t", "ecdsa", "-b", "384"]),
        ("ecdsa521", &["-t", "ecdsa", "-b", "521"]),
        ("pem", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
        ("pkcs8", &["-t", "ecdsa", "-m", "PKCS8"]),
    ] {
        let key = server.key_of("carol", name, how);
        let login = server
            .login("carol")
            .with(|login| login.secret.private_key = Some(key));
        check_in(name, &login);
    }
    for (name, how) in [
        ("sealed", &["-t", "ed25519", "-N", "the passphrase"][..]),
        (
            "sealed_rsa",
            &["-t", "rsa", "-b", "2048", "-N", "the passphrase"],
        ),
        (
            "sealed_pkcs8",
            &[
                "-t",
                "rsa",
                "-b",
                "2048",
                "-m",
                "PKCS8",
                "-N",
                "the passphrase",
            ],
        ),
    ] {
        let key = server.key_of("carol", name, how);
        let login = server.login("carol").with(|login| {
            login.secret.private_key = Some(key);
            login.secret.passphrase = Some(Zeroizing::new("the passphrase".to_owned()));
        });
        check_in(name, &login);
    }
}

fn passwords(_: &Peer) {
    for (name, more) in [
        ("password", ""),
        (
            "keyboard-interactive",
            "UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication yes",
        ),
        ("both", "AuthenticationMethods publickey,password"),
        ("banner", "Banner /etc/passwd"),
    ] {
        let server = Server::start_with(more);
        let login = server.login("carol").with(|login| {
            if name != "both" {
                login.secret.private_key = None;
            }
            login.secret.password = Some(Zeroizing::new(PASSWORD.to_owned()));
        });
        check_in(name, &login);
    }
}

fn check_out(name: &str, login: &Login, reason: Reason, words: &str) {
    let failure = login.start().expect_err(name);
    assert_eq!(failure.reason, reason, "{name}: {failure}");
    assert!(failure.detail.contains(words), "{name}: {failure}");
    assert!(!failure.detail.contains(PASSWORD), "{name}: {failure}");
}

fn refusals(_: &Peer) {
    let server = Server::start();
    let stranger = generate(&server.path(""), "stranger", &["-t", "ed25519"]);
    let weak = server.key_of("carol", "weak", &["-t", "rsa", "-b", "1024"]);
    let sealed = server.key_of("carol", "sealed", &["-t", "ed25519", "-N", "right"]);
    let carol = || server.login("carol");
    check_out(
        "unknown key",
        &carol().with(|login| login.secret.private_key = Some(stranger.clone())),
        Reason::AuthFailed,
        "refused publickey",
    );
    check_out(
        "wrong password",
        &carol().with(|login| {
            login.secret.private_key = None;
            login.secret.password = Some(Zeroizing::new(format!("{PASSWORD}x")));
        }),
        Reason::AuthFailed,
        "refused password",
    );
    check_out(
        "short key",
        &carol().with(|login| login.secret.private_key = Some(weak.clone())),
        Reason::AuthFailed,
        "1024 bits",
    );
    check_out(
        "wrong passphrase",
        &carol().with(|login| {
            login.secret.private_key = Some(sealed.clone());
            login.secret.passphrase = Some(Zeroizing::new("wrong".to_owned()));
        }),
        Reason::CredentialDecryptionFailed,
        "passphrase",
    );
    check_out(
        "no such user",
        &carol().with(|login| "nobody-here".clone_into(&mut login.secret.user)),
        Reason::AuthFailed,
        "nobody-here",
    );
}

/// Let in, and of no use; or not even asked.
fn no_use(_: &Peer) {
    let server = Server::start();
    let carol = || server.login("carol");
    let forced = server.login("alice");
    server.authorize(
        "bob",
        &format!(
            "command=\"/bin/echo only this\" {}",
            public_line(&server, "alice")
        ),
    );
    check_out(
        "no shell",
        &server.login("dave"),
        Reason::AuthFailed,
        "not available",
    );
    check_out(
        "forced command",
        &forced.with(|login| "bob".clone_into(&mut login.secret.user)),
        Reason::AuthFailed,
        "only this",
    );
    check_out(
        "endless shell",
        &server.login("endless"),
        Reason::EvidenceOversize,
        "before the collector started",
    );
    let other = generate(&server.path(""), "other", &["-t", "ed25519"]);
    drop(other);
    check_out(
        "changed key",
        &carol().with(|login| login.known = vec![public_key(&server.path("other.pub"))]),
        Reason::HostKeyChanged,
        "on record",
    );
    check_out(
        "unknown host",
        &carol().with(|login| login.known.clear()),
        Reason::HostKeyUnknown,
        "no key is on record",
    );
    // Nobody listens on the port of a server that is gone.
    let gone = carol();
    drop(server);
    check_out("closed port", &gone, Reason::HostUnreachable, "refused");
}

fn public_line(server: &Server, user: &str) -> String {
    std::fs::read_to_string(server.path(&format!("login_{user}.pub"))).unwrap()
}

/// Proves: EXE-4
fn host_keys(_: &Peer) {
    let server = Server::start();
    for kind in HOST_KEY_TYPES {
        let known = vec![server.host_key(kind)];
        check_in(
            kind,
            &server.login("carol").with(|login| login.known = known),
        );
    }
    // What is fetched for people to compare is the server's own.
    let patience = patience();
    let key = ssh::fetch_host_key(&server.endpoint(), Limits::default(), &patience).unwrap();
    assert_eq!(key.key_data(), server.host_key("ed25519").key_data());
}

fn patience() -> Patience {
    struct Quiet;
    impl scan::collect::Progress for Quiet {}
    let clock = std::sync::Arc::new(world::RealClock::new());
    let limit = std::time::Duration::from_secs(60);
    Patience::new(clock, limit, std::sync::Arc::new(Quiet))
}

/// Proves: EXE-4
fn first_sight(_: &Peer) {
    let server = Server::start();
    let login = server.login("carol");
    let connect = |policy, keys: Vec<_>| {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = std::sync::Arc::clone(&seen);
        let trust = Trust {
            known: known(&login.endpoint, &keys),
            policy,
            first_sight: std::sync::Arc::new(move |key| {
                sink.lock().unwrap().push(key.clone());
                Ok(())
            }),
        };
        let mut is_resolved = false;
        let result = ssh::connect(
            &login.endpoint,
            &trust,
            || {
                is_resolved = true;
                Ok(login.secret.clone())
            },
            Limits::default(),
            &patience(),
        );
        let seen = seen.lock().unwrap().len();
        (
            result.map(drop).map_err(|failure| failure.reason),
            is_resolved,
            seen,
        )
    };
    let other = vec![public_key(&{
        generate(&server.path(""), "other", &["-t", "rsa", "-b", "2048"]);
        server.path("other.pub")
    })];
    let (tofu, strict) = (HostKeyPolicy::Tofu, HostKeyPolicy::RequireKnown);
    assert_eq!(connect(tofu, vec![]), (Ok(()), true, 1));
    let unknown = Err(Reason::HostKeyUnknown);
    assert_eq!(connect(strict, vec![]), (unknown, false, 0));
    let changed = Err(Reason::HostKeyChanged);
    assert_eq!(connect(tofu, other.clone()), (changed, false, 0));
    assert_eq!(connect(strict, other), (changed, false, 0));
    // The server never heard a name.
    let names = server.log().matches("carol").count();
    assert!(names > 0, "{}", server.log());
    assert_eq!(
        server.log().matches("Accepted publickey for carol").count(),
        1,
        "{}",
        server.log()
    );
}

fn noisy(_: &Peer) {
    let server = Server::start();
    let (mut session, privilege) = server
        .login("noisy")
        .with(|login| login.secret.sudo = scan::credential::Sudo::NoPassword)
        .start()
        .unwrap();
    assert_eq!(privilege, Privilege::SudoNoPassword);
    assert_eq!(ask(&mut session, "id -u").unwrap(), "0");
}

/// What [`traced`] runs under a tracer, in a process of its own: a login with a key and a password, and
/// one that is refused.
pub(crate) fn login_for_a_trace(place: &str) {
    let (port, directory) = place.split_once(' ').expect("a port and a directory");
    let path = std::path::Path::new(directory);
    let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
    let mut secret = scan::credential::Secret::of_user("carol", scan::credential::Sudo::Password);
    secret.private_key = Some(Zeroizing::new(read("login_carol")));
    secret.password = Some(Zeroizing::new(PASSWORD.to_owned()));
    let login = Login {
        endpoint: super::server::endpoint(port.parse().unwrap()),
        known: vec![public_key(&path.join("host_ed25519.pub"))],
        secret,
        limits: Limits::default(),
        deadline: std::time::Duration::from_secs(60),
    };
    let begun = Instant::now();
    check_in("traced", &login);
    let refused = login.with(|login| "dave".clone_into(&mut login.secret.user));
    assert!(refused.start().is_err());
    assert!(begun.elapsed() < refused.deadline);
}

/// A tracer sees every file that is opened and every program that is started between the secret and
/// the end of the scan: none is opened for writing, and nothing is started.
///
/// Proves: EXE-2
fn traced(_: &Peer) {
    let server = Server::start();
    drop(server.login("carol"));
    let trace = server.path("trace");
    let output = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-s",
            "100000",
            "-e",
            "trace=%file,execve,write,writev",
            "-o",
        ])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .env(
            "HOLDFAST_PEER_LOGIN",
            format!("{} {}", server.port, server.path("").display()),
        )
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let trace = std::fs::read_to_string(trace).unwrap();
    let pem = std::fs::read_to_string(server.path("login_carol")).unwrap();
    let key_line = pem.lines().nth(2).unwrap();
    let mut writes = 0;
    for line in trace.lines() {
        let is_opened_to_write = line.contains("open")
            && ["O_WRONLY", "O_RDWR", "O_CREAT"]
                .iter()
                .any(|how| line.contains(how));
        assert!(!is_opened_to_write, "{line}");
        assert!(
            !line.contains("unlink") && !line.contains("rename"),
            "{line}"
        );
        if line.contains(" write(") || line.contains(" writev(") {
            writes += 1;
            assert!(
                !line.contains(PASSWORD) && !line.contains(key_line),
                "{line}"
            );
        }
    }
    assert!(
        trace.contains("login_carol"),
        "the tracer saw the key file being read"
    );
    assert!(writes > 0);
    assert_eq!(trace.matches("execve(").count(), 1, "only the test itself");
}
