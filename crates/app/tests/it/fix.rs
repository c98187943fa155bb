//! `holdfast fix` in directories that stand for hosts: planned, applied, killed, recovered.

use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::holdfast::{Run, Sandbox};

const RULE: &str = "ipv4-accept-redirects-off";

/// A host that accepts redirects everywhere.
struct Host(Sandbox);

impl Host {
    fn new() -> Self {
        let host = Self(Sandbox::new());
        let me = std::fs::metadata(host.0.path(".")).unwrap();
        let (uid, gid) = (me.uid(), me.gid());
        host.file("etc/passwd", &format!("root:x:{uid}:{gid}::/:/bin/sh\n"));
        host.file("etc/group", &format!("root:x:{gid}:\n"));
        host.file("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
        host.file("etc/sysctl.d/README", "\n");
        for interface in ["all", "default", "eth0", "lo"] {
            let key = format!("proc/sys/net/ipv4/conf/{interface}/accept_redirects");
            host.file(&key, "1\n");
        }
        host
    }

    fn root(&self) -> PathBuf {
        self.0.path("root")
    }

    fn file(&self, path: &str, content: &str) {
        self.0.file(&format!("root/{path}"), content);
        let mut way = self.root().join(path);
        std::fs::set_permissions(&way, PermissionsExt::from_mode(0o644)).unwrap();
        while way.pop() && way.starts_with(self.root()) {
            std::fs::set_permissions(&way, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    fn args<'a>(&self, args: &[&'a str]) -> Vec<String> {
        let mut all: Vec<String> = ["fix", RULE, "--root"].map(str::to_owned).to_vec();
        all.push(self.root().display().to_string());
        all.extend(args.iter().map(|arg: &&'a str| (*arg).to_owned()));
        all
    }

    fn fix(&self, args: &[&str]) -> Run {
        self.0.run(self.args(args))
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        read(&self.root(), &mut files);
        files.retain(|path, _| !path.starts_with(self.root().join("run")));
        files
    }

    fn states(&self) -> Vec<String> {
        let (_, fixes) = self.0.json(["fix", "list"]);
        let fixes = fixes.as_array().unwrap().iter();
        fixes
            .map(|fix| fix["state"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn read(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, into);
        } else {
            into.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn a_plan_changes_nothing_and_shows_each_file_and_each_value() {
    let host = Host::new();
    let before = host.files();
    let run = host.fix(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for line in [
        "/etc/sysctl.d/zz-holdfast-ipv4-accept-redirects-off.conf",
        "+ net.ipv4.conf.all.accept_redirects = 0",
        "- net.ipv4.conf.eth0.accept_redirects = 1",
        "+ net.ipv4.conf.eth0.accept_redirects = 0",
    ] {
        assert!(run.stdout.contains(line), "{line}\n{}", run.stdout);
    }
    assert!(!run.stdout.contains("conf.lo"), "{}", run.stdout);
    assert!(run.stderr.contains("--apply"), "{}", run.stderr);
    assert_eq!(host.files(), before);
}

/// Proves: RUL-9
#[test]
fn an_applied_fix_is_on_record_and_its_rollback_restores_every_file() {
    let host = Host::new();
    let before = host.files();
    let run = host.fix(&["--apply", "--yes"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("is kept"), "{}", run.stdout);
    assert_eq!(host.states(), ["kept"]);
    assert_ne!(host.files(), before);
    let run = host.fix(&[]);
    run.is_refused_naming("is pass here");

    let (_, fixes) = host.0.json(["fix", "list"]);
    let id = fixes[0]["id"].as_str().unwrap().to_owned();
    let show = host.0.run(["fix", "show", &id[..12]]);
    assert!(show.stdout.contains("state kept"), "{}", show.stdout);
    let run = host.0.run(["fix", "rollback", &id]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(host.files(), before);
    assert_eq!(host.states(), ["rolled_back"]);
}

/// Proves: RUL-8
#[test]
fn a_fix_sets_the_value_that_the_site_gave_and_not_the_default_of_the_rule() {
    let host = Host::new();
    host.file("etc/ssh/sshd_config", "");
    host.file("etc/ssh/sshd_config.d/README", "");
    let rule = "ssh-configuration-not-writable";
    let root = host.root().display().to_string();
    let plan = |name: &str| host.0.run(["fix", rule, "--root", &root, "--host", name]);
    plan("web1").is_refused_naming("is pass here");
    let set = ["variable", "set", rule, "mode", "0600", "--host", "web1"];
    let run = host.0.run(set);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = plan("web1");
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("0600"), "{}", run.stdout);
    plan("web2").is_refused_naming("is pass here");
}

/// Proves: RUL-9
#[test]
fn a_process_killed_while_it_fixes_leaves_a_host_that_recover_makes_whole() {
    let host = Host::new();
    let before = host.files();
    let mut interrupted = 0;
    for round in 0..30_u64 {
        let mut child = host.0.command(host.args(&["--apply", "--yes"]));
        let mut child = child
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // How far it is when the signal comes is the machine's choice: any moment will do.
        let deadline = Duration::from_millis(40 + 25 * round);
        wait(&mut child, deadline);
        child.kill().unwrap();
        child.wait().unwrap();
        if !host.0.data_dir().join("journal").exists() {
            continue;
        }
        let run = host.0.run(["fix", "recover"]);
        assert_eq!(run.code, 0, "round {round}: {}{}", run.stdout, run.stderr);
        interrupted += u64::from(run.stdout.contains("interrupted while"));
        let (_, fixes) = host.0.json(["fix", "list"]);
        for fix in fixes.as_array().unwrap() {
            if fix["state"] == "kept" {
                let run = host.0.run(["fix", "rollback", fix["id"].as_str().unwrap()]);
                assert_eq!(run.code, 0, "round {round}: {}{}", run.stdout, run.stderr);
            }
        }
        assert_eq!(host.files(), before, "round {round}");
        assert!(
            host.states()
                .iter()
                .all(|state| state == "recovered" || state == "rolled_back"),
            "round {round}: {:?}",
            host.states()
        );
    }
    eprintln!("{interrupted} of 30 kills hit a fix under way");
}

/// Until the child ends by itself, or the time is over; no clock of the test's own.
fn wait(child: &mut std::process::Child, patience: Duration) {
    let pid = rustix::process::Pid::from_child(child);
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let mut fds = [rustix::event::PollFd::new(
        &fd,
        rustix::event::PollFlags::IN,
    )];
    let timeout = rustix::event::Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap(),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
}

#[test]
fn what_cannot_be_fixed_is_refused_with_a_next_step() {
    let host = Host::new();
    let root = host.root().display().to_string();
    let check = |args: &[&str], object: &str| {
        let run = host.0.run(args);
        run.is_refused_naming(object);
        run.tells_next_step();
    };
    check(&["fix", "no-such-rule"], "no-such-rule");
    check(
        &["fix", "ssh-access-list", "--root", &root],
        "no `fix.apply`",
    );
    check(&["fix", RULE, "--root", "/"], "root /");
    check(&["fix", RULE, "--host", "elsewhere"], "elsewhere");
    check(&["fix", "recover"], "nothing is recorded");
    let run = host.fix(&["--apply"]);
    assert_eq!(run.code, 2, "nobody is there to be asked: {}", run.stderr);
    assert!(run.stderr.contains("--yes"), "{}", run.stderr);
}
