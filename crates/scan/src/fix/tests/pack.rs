//! Every rule of the pack that has a fix, on a host that is wrong in just what it mends.

use super::*;
use crate::rule::{Boot, FilePlace, Pack, Step, Wanted};

/// Paths of the pack's steps that are directories.
const DIRS: [&str; 18] = [
    "/root",
    "/tmp",
    "/var/tmp",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/etc/cron.yearly",
    "/etc/ssl/private",
    "/var/log",
    "/var/log/audit",
    "/var/log/journal",
    "/etc/sudoers.d",
    "/boot",
    "/var/spool/cron/crontabs",
    "/etc/ssh/sshd_config.d",
    "/etc/polkit-1/rules.d",
];

fn worse(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Exactly(text) => match text.as_str() {
            "0" => "1",
            "1" | "2" => "0",
            "no" => "yes",
            "yes" => "no",
            "VERBOSE" => "QUIET",
            _ => "100:30:100",
        }
        .to_owned(),
        Wanted::AtLeast(least) => (least - 1).to_string(),
        Wanted::AtMost(most) => (most + 1).to_string(),
    }
}

fn spoil(host: &Host, step: &Step) {
    match step {
        Step::Sysctl(step) => {
            let path = format!(
                "/proc/sys/{}",
                step.key.replace('*', "eth0").replace('.', "/")
            );
            host.write(&path, &format!("{}\n", worse(&step.value)));
        }
        Step::File(step) => match &step.place {
            FilePlace::Path(path) if DIRS.contains(&path.as_str()) => {
                host.dir(path);
                // Not open to others: nothing below such a directory is ever touched.
                host.mode(path, if step.sticky { 0o777 } else { 0o775 });
            }
            FilePlace::Path(path) => spoiled(host, path),
            FilePlace::Glob(glob) => spoiled(host, &glob.replace('*', "x")),
        },
        Step::Sshd(step) => {
            host.write("/usr/sbin/sshd", "");
            let line = format!("{} {}\n", step.keyword, worse(&step.value));
            let config = host.read("/etc/ssh/sshd_config");
            host.write("/etc/ssh/sshd_config", &format!("{config}{line}"));
            unit(host, "ssh.service", true);
        }
        Step::Service(step) => {
            let bad = step.boot == Some(Boot::Disabled) || step.running == Some(false);
            unit(host, &step.unit, bad);
        }
        Step::Module(step) => {
            let name = &step.name;
            host.write(
                "/lib/modules/6.1.0/modules.dep",
                &format!("kernel/{name}.ko:\n"),
            );
            host.write("/proc/modules", &format!("{name} 16384 0 - Live 0x0\n"));
        }
    }
}

fn spoiled(host: &Host, path: &str) {
    if !host.at(path).exists() {
        host.write(path, "");
    }
    host.mode(path, 0o777);
}

fn unit(host: &Host, name: &str, on: bool) {
    host.write(
        &format!("/usr/lib/systemd/system/{name}"),
        "[Install]\nWantedBy=multi-user.target\n",
    );
    if on {
        let command = |verb: &str| {
            let args = [verb, "--", name];
            let command = crate::target::Command {
                programs: &["/usr/bin/systemctl"],
                args: &args,
                deadline: std::time::Duration::from_secs(1),
                output_bytes_max: 4096,
            };
            host.programs().run(&command).unwrap();
        };
        command("enable");
        command("start");
    }
}

/// What rules ask about before they apply at all.
fn surroundings(host: &Host) {
    let packages = ["auditd", "rsyslog", "cron", "openssh-server"];
    let status: String = packages
        .map(|name| {
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
            )
        })
        .concat();
    host.write("/var/lib/dpkg/status", &status);
    host.write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0\n");
}

/// Proves: RUL-9
#[test]
fn every_fix_of_the_pack_mends_its_rule_and_is_undone_byte_for_byte() {
    let pack = Pack::embedded().pack;
    let mut wrong = Vec::new();
    let mut count = 0;
    // One store for all: opening one takes longer than a fix.
    let recorder = Host::new();
    let mut journal = recorder.fixes();
    for rule in pack.rules.iter().filter(|rule| !rule.fix.apply.is_empty()) {
        count += 1;
        let host = Host::new();
        surroundings(&host);
        for step in &rule.fix.apply {
            spoil(&host, step);
        }
        let before = host.picture();
        if outcome(rule, &host) != Outcome::Fail {
            let verdict = crate::judge::judge([rule], &host.facts(rule))
                .pop()
                .unwrap();
            wrong.push(format!(
                "{}: {} before: {}",
                rule.id, verdict.verdict, verdict.reason
            ));
            continue;
        }
        let plan = match host.plan(rule) {
            Ok(plan) => plan,
            Err(fault) => {
                wrong.push(format!("{}: not planned: {fault}", rule.id));
                continue;
            }
        };
        let (mut fix, ended) = applied(&host, rule, &plan, &mut host.hands(), &mut journal);
        if ended.phase != Phase::Kept {
            wrong.push(format!("{}: {}: {}", rule.id, ended.phase, ended.note));
            continue;
        }
        let ended = undone(&host, &mut fix, &mut journal, false).unwrap();
        if ended.phase != Phase::RolledBack || host.picture() != before {
            wrong.push(format!("{}: undone: {}", rule.id, ended.note));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count >= 100, "{count} rules of the pack have a fix");
}
