//! A directory that stands for a host, with a systemd, an sshd and a modprobe that live in its files.
//!
//! These are peers, not code of ours: their answers follow systemctl(1), sshd(8) and modprobe(8) as
//! far as fixes and collectors ask them.
#![allow(
    clippy::disallowed_methods,
    reason = "tests lay out a host's files and stand in for its programs"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use store::{Options, Store};
use world::{RealClock, RealDisk};

use crate::{
    collect::{Needs, Progress, collect_only},
    facts::{Facts, Unknown},
    fix::{self, Fault, Fix, Fixes, LocalHands, Plan},
    rule::{Pack, Rule},
    target::{Command, Entry, Found, Links, LocalTarget, Ran, Stat, Target, Walk, Walked},
};

pub(super) struct Host {
    _dir: tempfile::TempDir,
    pub(super) root: PathBuf,
    data: PathBuf,
    journal: world::sim::Disk,
}

/// What the file system below the root holds: kind, mode, owner, content.
pub(super) type Picture = BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)>;

impl Host {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let me = fs::metadata(dir.path()).unwrap();
        fs::create_dir(&root).unwrap();
        let host = Self {
            data: dir.path().join("data"),
            journal: world::sim::Disk::new(9),
            root,
            _dir: dir,
        };
        // Whoever runs the tests is root of this host.
        let (uid, gid) = (me.uid(), me.gid());
        host.write(
            "/etc/passwd",
            &format!("root:x:{uid}:{gid}::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n"),
        );
        host.write("/etc/group", &format!("root:x:{gid}:\nusers:x:100:\n"));
        host.write("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
        host.write("/proc/sys/kernel/osrelease", "6.1.0\n");
        host.write("/proc/modules", "");
        host.write("/lib/modules/6.1.0/modules.builtin", "");
        host.write("/lib/modules/6.1.0/modules.dep", "");
        for dir in [
            "/etc/sysctl.d",
            "/etc/modprobe.d",
            "/etc/ssh/sshd_config.d",
            "/run",
            "/etc/systemd/system",
            "/run/systemd/system",
            "/run/units",
        ] {
            host.dir(dir);
        }
        host
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn dir(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
        self.chmod_way(path);
    }

    /// The directories are closed to others whatever the umask is.
    fn chmod_way(&self, path: &str) {
        let mut way = self.at(path);
        while way.starts_with(&self.root) {
            if way.is_dir() {
                fs::set_permissions(&way, PermissionsExt::from_mode(0o755)).unwrap();
            }
            if !way.pop() {
                break;
            }
        }
    }

    pub(super) fn write(&self, path: &str, content: &str) {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        self.chmod_way(path);
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    pub(super) fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    pub(super) fn programs(&self) -> Arc<dyn Target> {
        Arc::new(Programs {
            root: self.root.clone(),
            files: LocalTarget::new(self.root.to_str().unwrap(), Arc::new(RealClock::new()))
                .unwrap(),
        })
    }

    pub(super) fn hands(&self) -> LocalHands {
        LocalHands::new(self.root.to_str().unwrap(), self.programs()).unwrap()
    }

    pub(super) fn facts(&self, rule: &Rule) -> Facts {
        collect_only(
            &fix::collectors(rule),
            self.programs(),
            Arc::new(Needs::of([rule])),
            Arc::new(()),
            Arc::new(RealClock::new()),
        )
    }

    pub(super) fn store(&self) -> Store {
        let mut options = wal::Options::on_this_machine(self.data.join("journal"));
        // Its syncs cost nothing; what is under test are the host's files.
        options.disk = Arc::new(self.journal.clone());
        let (journal, _) = wal::Local::open(options).unwrap();
        let options = Options::new(
            self.data.join("tables"),
            Arc::new(RealDisk),
            Arc::new(RealClock::new()),
            crate::tables(),
        );
        crate::test_store::open(options, Arc::new(journal)).unwrap()
    }

    pub(super) fn fixes(&self) -> Fixes {
        Fixes::new(self.store()).unwrap()
    }

    pub(super) fn plan(&self, rule: &Rule) -> Result<Plan, Fault> {
        fix::plan(rule, &self.facts(rule), &mut self.hands())
    }

    pub(super) fn picture(&self) -> Picture {
        let mut picture = Picture::new();
        look(&self.root, &mut picture);
        picture
    }
}

fn look(dir: &Path, into: &mut Picture) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        // What the timed rollback lives in is not the host's.
        if path.ends_with("run/holdfast") {
            continue;
        }
        let content = if meta.is_file() {
            fs::read(&path).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().to_str().unwrap().into()
        } else {
            Vec::new()
        };
        into.insert(path.clone(), (meta.mode(), meta.uid(), meta.gid(), content));
        if meta.is_dir() {
            look(&path, into);
        }
    }
}

pub(super) fn rule(id: &str) -> Rule {
    Pack::embedded().pack.find(id).unwrap().clone()
}

pub(super) fn begun(rule: &Rule, tail: u32) -> Fix {
    let now = world::Timestamp::from_nanos(1_700_000_000_000_000_000);
    Fix::begin(rule, "press-3", "/", "tester", now, tail)
}

#[derive(Debug)]
struct Programs {
    root: PathBuf,
    files: LocalTarget,
}

impl Programs {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    fn units(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.at("/usr/lib/systemd/system"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn wants(&self, unit: &str) -> PathBuf {
        self.at(&format!(
            "/etc/systemd/system/multi-user.target.wants/{unit}"
        ))
    }

    fn show(&self, unit: &str, there: bool, running: bool) -> String {
        let load = if there { "loaded" } else { "not-found" };
        let boot = if fs::read_link(self.at(&format!("/etc/systemd/system/{unit}"))).is_ok() {
            "masked"
        } else if fs::symlink_metadata(self.wants(unit)).is_ok() {
            "enabled"
        } else if self
            .file(&format!("/usr/lib/systemd/system/{unit}"))
            .contains("[Install]")
        {
            "disabled"
        } else {
            "static"
        };
        let active = if running { "active" } else { "inactive" };
        format!("LoadState={load}\nUnitFileState={boot}\nActiveState={active}\n")
    }

    fn systemctl(&self, args: &[&str]) -> (i32, String) {
        let unit = args.last().copied().unwrap_or_default();
        let running = self.at(&format!("/run/units/{unit}"));
        let mask = self.at(&format!("/etc/systemd/system/{unit}"));
        let there = self.units().iter().any(|name| name == unit);
        match args.first().copied().unwrap_or_default() {
            "list-units" => {
                let line = |unit: &String| {
                    let active = self.at(&format!("/run/units/{unit}")).exists();
                    let active = if active {
                        "active running"
                    } else {
                        "inactive dead"
                    };
                    format!("{unit} loaded {active} A unit\n")
                };
                (0, self.units().iter().map(line).collect())
            }
            "show" => (0, self.show(unit, there, running.exists())),
            "daemon-reload" | "reload" => (0, String::new()),
            _ if !there => (5, String::new()),
            "start" => {
                fs::create_dir_all(running.parent().unwrap()).unwrap();
                fs::write(running, "").unwrap();
                (0, String::new())
            }
            "stop" => {
                fs::remove_file(running).ok();
                (0, String::new())
            }
            "enable" => {
                let link = self.wants(unit);
                fs::create_dir_all(link.parent().unwrap()).unwrap();
                fs::remove_file(&link).ok();
                let to = format!("/usr/lib/systemd/system/{unit}");
                std::os::unix::fs::symlink(to, link).unwrap();
                (0, String::new())
            }
            "disable" => {
                let link = self.wants(unit);
                fs::remove_file(&link).ok();
                // As systemctl does with a directory that is empty then.
                fs::remove_dir(link.parent().unwrap()).ok();
                (0, String::new())
            }
            "mask" => {
                std::os::unix::fs::symlink("/dev/null", mask).unwrap();
                (0, String::new())
            }
            "unmask" => {
                fs::remove_file(mask).ok();
                (0, String::new())
            }
            other => panic!("systemctl {other}"),
        }
    }

    /// Defaults below the drop-ins, the first line of a keyword wins.
    fn sshd(&self, option: &str) -> (i32, String) {
        let mut names: Vec<PathBuf> = fs::read_dir(self.at("/etc/ssh/sshd_config.d"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "conf"))
            .collect();
        names.sort();
        let mut text: String = names
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        if option == "-t" && text.contains("refused-by-sshd") {
            return (255, String::new());
        }
        text.push_str(&self.file("/etc/ssh/sshd_config"));
        let mut settings = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((key, value)) = line.split_once(' ') {
                settings
                    .entry(key.to_lowercase())
                    .or_insert(value.to_owned());
            }
        }
        settings
            .entry("permitrootlogin".to_owned())
            .or_insert("yes".to_owned());
        (
            0,
            settings
                .iter()
                .map(|(key, value)| format!("{key} {value}\n"))
                .collect(),
        )
    }
}

impl Target for Programs {
    fn stream(&self, path: &str, cap: usize, sink: &mut dyn FnMut(&[u8])) -> Found<()> {
        self.files.stream(path, cap, sink)
    }

    fn list(&self, dir: &str) -> Found<Vec<Entry>> {
        self.files.list(dir)
    }

    fn stat(&self, path: &str, links: Links) -> Found<Stat> {
        self.files.stat(path, links)
    }

    fn read_link(&self, path: &str) -> Found<String> {
        self.files.read_link(path)
    }

    fn run(&self, command: &Command<'_>) -> Result<Ran, Unknown> {
        let program = command.programs[0].rsplit('/').next().unwrap();
        let (status, stdout) = match program {
            "systemctl" => self.systemctl(command.args),
            "sshd" => self.sshd(command.args[0]),
            "modprobe" => {
                let name = command.args.last().unwrap();
                let table = self.file("/proc/modules");
                let mut lines: Vec<&str> = table.lines().collect();
                let line = format!("{name} 16384 0 - Live 0x0");
                if command.args[0] == "-r" {
                    lines.retain(|line| !line.starts_with(&format!("{name} ")));
                } else {
                    lines.push(&line);
                }
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                fs::write(self.at("/proc/modules"), text).unwrap();
                (0, String::new())
            }
            _ => return self.files.run(command),
        };
        Ok(Ran {
            status: Some(status),
            stdout: stdout.into_bytes(),
            stderr: if status == 0 {
                Vec::new()
            } else {
                b"refused".to_vec()
            },
        })
    }

    fn walk(&self, walk: &Walk<'_>, progress: &dyn Progress) -> Result<Walked, Unknown> {
        self.files.walk(walk, progress)
    }
}
