//! What a fix refuses, and that it touches nothing when it does.

use std::os::unix::fs::symlink;

use super::*;

type Swap = (&'static str, fn(&Host));

fn shadow() -> (Host, Rule) {
    let host = Host::new();
    host.write("/etc/shadow", "root:*:\n");
    host.mode("/etc/shadow", 0o666);
    (host, rule("shadow-mode"))
}

#[test]
fn what_was_swapped_between_plan_and_apply_is_not_touched() {
    let swaps: [Swap; 5] = [
        ("a link", |host| {
            host.write("/etc/elsewhere", "precious\n");
            host.mode("/etc/elsewhere", 0o666);
            std::fs::remove_file(host.at("/etc/shadow")).unwrap();
            symlink("elsewhere", host.at("/etc/shadow")).unwrap();
        }),
        ("a pipe", |host| {
            std::fs::remove_file(host.at("/etc/shadow")).unwrap();
            let kind = rustix::fs::FileType::Fifo;
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(rustix::fs::CWD, host.at("/etc/shadow"), kind, mode, 0).unwrap();
        }),
        ("a directory", |host| {
            std::fs::remove_file(host.at("/etc/shadow")).unwrap();
            host.dir("/etc/shadow");
        }),
        ("another mode", |host| host.mode("/etc/shadow", 0o646)),
        ("nothing", |host| {
            std::fs::remove_file(host.at("/etc/shadow")).unwrap()
        }),
    ];
    for (what, swap) in swaps {
        let (host, rule) = shadow();
        let plan = host.plan(&rule).unwrap();
        swap(&host);
        let before = host.picture();
        let mut journal = host.fixes();
        let (_, ended) = applied(&host, &rule, &plan, &mut host.hands(), &mut journal);
        assert_eq!(ended.phase, Phase::RolledBack, "{what}: {}", ended.note);
        assert!(ended.note.contains("/etc/shadow"), "{what}: {}", ended.note);
        assert_eq!(host.picture(), before, "{what}");
    }
}

fn check(host: &Host, rule: &Rule, kind: FaultKind, part: &str) {
    let before = host.picture();
    let fault = host.plan(rule).expect_err(&rule.id);
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.what.contains(part), "{fault}");
    assert_eq!(host.picture(), before);
}

#[test]
fn a_place_that_others_could_swap_is_refused() {
    let (host, rule) = weak_kptr();
    host.mode("/etc/sysctl.d", 0o777);
    check(&host, &rule, FaultKind::Unsafe, "others may write");

    let (host, rule) = weak_kptr();
    host.write("/etc/elsewhere", "");
    let file = "/etc/sysctl.d/zz-holdfast-sysctl-kptr-restrict.conf";
    symlink("../elsewhere", host.at(file)).unwrap();
    check(&host, &rule, FaultKind::Unsafe, "not a regular file");

    let (host, rule) = weak_kptr();
    host.write("/etc/elsewhere", "");
    std::fs::hard_link(host.at("/etc/elsewhere"), host.at(file)).unwrap();
    check(&host, &rule, FaultKind::Unsafe, "hard link");

    // A link between closed directories is a way like any other, and stays inside the root.
    let (host, rule) = weak_kptr();
    std::fs::remove_dir(host.at("/etc/sysctl.d")).unwrap();
    host.dir("/usr/etc/sysctl.d");
    symlink("/usr/etc/sysctl.d", host.at("/etc/sysctl.d")).unwrap();
    assert!(host.plan(&rule).is_ok());
    symlink("/../../../../tmp", host.at("/etc/loop")).unwrap();
    let object = Object::File {
        path: "/etc/loop/x".to_owned(),
    };
    assert!(host.hands().look(&object).is_err(), "the host has no /tmp");
}

#[test]
fn what_only_a_person_can_mend_is_said_and_not_tried() {
    let host = Host::new();
    check(
        &host,
        &rule("ssh-access-list"),
        FaultKind::NotFixable,
        "no `fix.apply`",
    );
    let (host, rule) = weak_kptr();
    host.write("/proc/sys/kernel/kptr_restrict", "1\n");
    host.write("/etc/sysctl.d/10.conf", "kernel.kptr_restrict = 1\n");
    check(&host, &rule, FaultKind::NotFixable, "is pass here");

    let host = Host::new();
    host.write(
        "/var/lib/dpkg/status",
        "Package: auditd\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n",
    );
    check(
        &host,
        &self::rule("auditd-enabled"),
        FaultKind::NotFixable,
        "unit auditd.service: not on this host",
    );
}

#[test]
fn a_configuration_that_sshd_refuses_is_undone() {
    let host = Host::new();
    host.write("/usr/sbin/sshd", "");
    host.write("/etc/ssh/sshd_config", "MaxAuthTries 6\n");
    host.write("/etc/ssh/sshd_config.d/90.conf", "# refused-by-sshd\n");
    let before = host.picture();
    let rule = rule("ssh-max-auth-tries");
    let (_, ended) = fixed(&host, &rule, &mut host.hands(), &mut host.fixes());
    assert_eq!(ended.phase, Phase::RolledBack);
    assert!(ended.note.contains("sshd -t"), "{}", ended.note);
    assert_eq!(host.picture(), before);
}

/// Proves: RUL-9
#[test]
fn a_host_with_an_unfinished_fix_admits_no_second_one() {
    let (host, rule) = weak_kptr();
    let mut journal = host.fixes();
    let mut first = begun(&rule, 1);
    journal.begin(&first).unwrap();
    let second = begun(&rule, 2);
    let fault = journal.begin(&second).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Busy);
    assert!(fault.what.contains(first.id()), "{fault}");
    first.progress.phase = Phase::RolledBack;
    journal.record(&first).unwrap();
    journal.begin(&second).unwrap();
}

/// The first effect is a file that somebody changed after the fix wrote it; the fix died before its end.
#[test]
fn a_recovery_overwrites_a_file_of_somebody_else_only_when_told_to() {
    let (host, rule) = weak_kptr();
    let before = host.picture();
    let file = "/etc/sysctl.d/zz-holdfast-sysctl-kptr-restrict.conf";
    let mut journal = host.fixes();
    let (mut fix, _) = fixed(&host, &rule, &mut host.hands(), &mut journal);
    for phase in [Phase::Applying(1), Phase::Applying(0)] {
        fix.progress.phase = phase;
        fix.progress.left = Vec::new();
        journal.begin(&fix).unwrap();
        host.write(file, "# mine\n");
        let ended = recovered(&host, &mut fix, &mut journal);
        assert_eq!(ended.phase, Phase::RollbackFailed, "{}", ended.note);
        assert_eq!(host.read(file), "# mine\n");
    }
    let mut facts = || unreachable!("undoing judges nothing");
    let site = &mut Site {
        hands: &mut host.hands(),
        journal: &mut journal,
        facts: &mut facts,
        clock: &RealClock::new(),
    };
    let ended = recover(&mut fix, site, true);
    assert_eq!(ended.phase, Phase::Recovered, "{}", ended.note);
    assert_eq!(host.picture(), before);
}

#[test]
fn a_later_rollback_does_not_overwrite_what_somebody_else_did_unless_told_to() {
    let (host, rule) = weak_kptr();
    let before = host.picture();
    let mut journal = host.fixes();
    let (mut fix, _) = fixed(&host, &rule, &mut host.hands(), &mut journal);
    host.write("/proc/sys/kernel/kptr_restrict", "2\n");
    let fault = undone(&host, &mut fix, &mut journal, false).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Changed);
    assert!(fault.what.contains("kernel.kptr_restrict"), "{fault}");
    assert_eq!(host.read("/proc/sys/kernel/kptr_restrict"), "2\n");
    let ended = undone(&host, &mut fix, &mut journal, true).unwrap();
    assert_eq!(ended.phase, Phase::RolledBack, "{}", ended.note);
    assert_eq!(host.picture(), before);
    assert!(
        undone(&host, &mut fix, &mut journal, true).is_err(),
        "only once"
    );
}

/// A rule of a site with this step in its fix.
fn with_step(step: &str) -> Result<Rule, crate::rule::Fault> {
    let text = format!(
        "id: own\ntitle: t\ndescription: d\nrationale: r\nseverity: low\nplatforms: [debian-12]\n\
         check: {{sysctl: {{key: kernel.core_pattern, equals: '|/x;$(reboot)'}}}}\n\
         fix:\n  summary: s\n  apply:\n    - {step}\ntests: []\n"
    );
    Rule::parse(&text, "own.yaml")
}

#[test]
fn names_and_values_that_are_more_than_one_word_of_data_are_refused() {
    for step in [
        "sysctl: {key: 'kernel/../../etc/x', value: 1}",
        "sysctl: {key: 'a.//.b', value: 1}",
        "sysctl: {key: 'net.ipv4.conf.*.*.x', value: 1}",
        "sysctl: {key: kernel.x, value: \"1\\nkernel.y = 2\"}",
        "sysctl: {key: kernel.x, value: 1, at_least: 1}",
        "file: {path: /etc/../root, owner: root}",
        "file: {path: etc/x, owner: root}",
        "file: {path: /etc/x}",
        "file: {path: /etc/x, owner: 'root;id'}",
        "file: {path: /etc/x, mode_at_most: 640}",
        "sshd: {keyword: Match, value: all}",
        "sshd: {keyword: 'Port 22', value: 1}",
        "service: {unit: '--now', boot: disabled}",
        "service: {unit: '-x.service', boot: disabled}",
        "service: {unit: 'a b.service', boot: disabled}",
        "service: {unit: cups.service}",
        "service: {unit: cups.service, boot: masked, running: true}",
        "module: {blocked: 'x y'}",
        "shell: {command: reboot}",
    ] {
        let fault = with_step(step).expect_err(step);
        assert!(fault.place.line > 0, "{step}: {fault}");
    }
}

#[test]
fn a_value_full_of_shell_is_data_wherever_it_is_written() {
    let rule = with_step("sysctl: {key: kernel.core_pattern, value: '|/x;$(reboot)'}").unwrap();
    let host = Host::new();
    host.write("/proc/sys/kernel/core_pattern", "core\n");
    let (fix, ended) = fixed(&host, &rule, &mut host.hands(), &mut host.fixes());
    assert_eq!(ended.phase, Phase::Kept, "{}", ended.note);
    assert_eq!(
        host.read("/proc/sys/kernel/core_pattern"),
        "|/x;$(reboot)\n"
    );
    // The one place where values meet a shell: as octal escapes in single quotes.
    let effect = Effect::Keep {
        object: Object::File {
            path: "/etc/it's $(reboot)".to_owned(),
        },
        before: State::File {
            content: b"';reboot\n%s\\".to_vec(),
            access: Access {
                mode: 0o644,
                uid: 0,
                gid: 0,
            },
            attributes: None,
        },
    };
    let script = timer::script(fix.id(), &[effect], "");
    assert!(!script.contains("';reboot"), "{script}");
    assert!(script.contains(r"'/etc/it'\''s $(reboot)'"), "{script}");
}
