//! What a shell brings home is what a process on the host sees.

use std::sync::Arc;

use serde_json::Value;
use world::{Clock, RealClock, RealRandom};

use super::shell::Shell;
use crate::{
    capture::{Limits, Rounds, collect},
    collect::{
        self, Collector, Needs, Progress,
        fixture::{GREEDY, greedy},
    },
    facts::{Facts, Reason},
    target::LocalTarget,
};

fn collectors(walk: bool) -> Vec<&'static Collector> {
    let all = collect::list().iter().copied();
    all.filter(|collector| walk || collector.name != "walk")
        .collect()
}

pub(super) fn needs() -> Needs {
    let paths = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
    Needs {
        files: paths(&[
            "/etc/passwd",
            "/etc/shadow",
            "/etc/nowhere",
            "/etc/mtab",
            "/dev/null",
        ]),
        globs: paths(&["/etc/*.conf", "/var/log/**", "/etc/ssh/ssh_host_*_key"]),
        text: paths(&["/etc/issue", "/etc/nowhere", "/etc/host.conf"]),
        hashes: paths(&["/bin/ls", "/etc/nowhere", "/etc/shadow"]),
    }
}

/// Proves: EXE-6, EXE-7
#[test]
fn a_collector_gets_no_more_through_a_shell_than_it_is_allowed() {
    let check = |limits: &Limits| {
        let (clock, progress): (Arc<dyn Clock>, Arc<dyn Progress>) =
            (Arc::new(RealClock::new()), Arc::new(()));
        let mut shell = Shell::start(&["/bin/sh"]);
        let needs = Arc::default();
        let (facts, _) = collect(
            &mut shell,
            &[&GREEDY],
            &needs,
            &progress,
            &clock,
            &RealRandom,
            limits,
        )
        .unwrap();
        greedy(&facts)
    };
    let all = Limits::default();
    assert!(check(&all).unwrap() > 7);
    let short = Limits {
        collector_deadline: std::time::Duration::from_secs(7),
        ..all.clone()
    };
    assert!(check(&short).unwrap() <= 7);
    let small = Limits {
        collector_bytes_max: 8,
        ..all
    };
    assert_eq!(check(&small), Err(Reason::Truncated));
}

fn both(login: &[&str], collectors: &[&'static Collector]) -> (Facts, Facts, Rounds) {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let needs = Arc::new(needs());
    let progress: Arc<dyn Progress> = Arc::new(());
    let local = collect::collect_only(
        collectors,
        Arc::new(LocalTarget::new("/", Arc::clone(&clock)).unwrap()),
        Arc::clone(&needs),
        Arc::clone(&progress),
        Arc::clone(&clock),
    );
    let mut shell = Shell::start(login);
    let (captured, rounds) = collect(
        &mut shell,
        collectors,
        &needs,
        &progress,
        &clock,
        &RealRandom,
        &Limits::default(),
    )
    .unwrap();
    (local, captured, rounds)
}

/// What the kernel counts, and what is drawn anew each time it is read.
const VOLATILE: [&str; 9] = [
    "sysctl[running][fs.aio-nr]",
    "sysctl[running][fs.dentry-state]",
    "sysctl[running][fs.file-nr]",
    "sysctl[running][fs.inode-",
    "sysctl[running][fs.quota.",
    "sysctl[running][kernel.ns_last_pid]",
    "sysctl[running][kernel.random.",
    "sysctl[running][kernel.pty.nr]",
    "sockets[listening]",
];

/// Every place where two facts differ, but for the volatile ones.
pub(super) fn differences(path: &str, local: &Value, captured: &Value, found: &mut Vec<String>) {
    match (local, captured) {
        (Value::Object(a), Value::Object(b))
            if a.contains_key("$unknown") == b.contains_key("$unknown") =>
        {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let none = Value::Null;
                let (a, b) = (a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none));
                differences(&format!("{path}[{key}]"), a, b, found);
            }
        }
        (a, b) if a != b && !VOLATILE.iter().any(|place| path.starts_with(place)) => {
            found.push(format!("{path}: here {a} there {b}"))
        }
        _ => {}
    }
}

fn check(login: &[&str]) {
    let (local, captured, rounds) = both(login, &collectors(false));
    let mut found = Vec::new();
    for (name, fact) in &local.facts {
        differences(name, fact, &captured.facts[name], &mut found);
    }
    assert_eq!(local.host, captured.host);
    assert!(found.is_empty(), "{rounds:?}\n{found:#?}");
    assert!(rounds.round_trips <= 6, "{rounds:?}");
    assert!(rounds.bytes_received < 4 << 20, "{rounds:?}");
}

/// Proves: EXE-9, EXE-13
#[test]
fn facts_through_a_shell_are_the_facts_of_the_machine() {
    check(&["/bin/sh"]);
}

#[test]
fn any_login_shell_will_do() {
    check(&["/bin/bash"]);
}

/// Runs the test above again as somebody without privileges.
#[test]
#[allow(clippy::disallowed_methods, reason = "this test as another user")]
fn facts_through_a_shell_are_the_same_without_privileges() {
    let program = std::env::current_exe().unwrap();
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/usr/bin/setpriv").exists() {
        return;
    }
    let ran = std::process::Command::new("/usr/bin/setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args([
            "--exact",
            "capture::tests::faithful::facts_through_a_shell_are_the_facts_of_the_machine",
        ])
        .current_dir("/")
        .env("PATH", "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}
