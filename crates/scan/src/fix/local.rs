//! Hands on this machine, or on a directory that stands for a host.
//!
//! A file is replaced whole: temporary file in the same directory with its final owner, mode and
//! extended attributes, sync, rename, sync of the directory. Access is changed through a descriptor
//! of the very file that was looked at. The last component of a path is never followed, and every
//! directory on the way must be closed to others: a name in a directory that somebody else may write
//! is theirs to swap.
//!
//! Extended attributes (SELinux context, ACL, capabilities) of a replaced file are carried over or
//! the replacement is refused; a file that is made gets what its directory gives. The times of files
//! are not put back.

mod file;
mod place;
mod timer;

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::{
    fs::{self, AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    Account, Action, Disarmed, Effect, Fault, FaultKind, Hands, Object, State, engine::changed,
};
use crate::{
    rule::{is_account, is_module, is_path, is_sysctl_key, is_unit},
    target::{Command, Found, Ran, Target},
};

/// A unit may take a minute and a half to stop before systemd kills it.
const SYSTEMCTL_DEADLINE: Duration = Duration::from_secs(120);
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Accounts of a host; larger directories are not in files.
const ACCOUNTS_BYTES_MAX: usize = 4 << 20;

const SYSTEMCTL: &[&str] = &["/usr/bin/systemctl", "/bin/systemctl"];
const SSHD: &[&str] = &["/usr/sbin/sshd"];
const MODPROBE: &[&str] = &["/usr/sbin/modprobe", "/sbin/modprobe"];

/// Where links make a unit start at boot.
pub(super) const UNIT_DIR: &str = "/etc/systemd/system";

/// Somebody new comes in: the caller knows how, and gives the connection's words on failure.
pub type Knock = Box<dyn FnMut() -> Result<(), String>>;

/// The write side of the file system that begins at a root.
pub struct LocalHands {
    root: OwnedFd,
    root_path: String,
    /// Where commands run: the machine itself, or what stands for it.
    target: Arc<dyn Target>,
    knock: Option<Knock>,
    #[cfg(test)]
    probe: Option<Probe>,
}

/// Called before every change in the file system, with its name.
#[cfg(test)]
pub(in crate::fix) type Probe = Box<dyn FnMut(&'static str) -> Result<(), Errno>>;

impl std::fmt::Debug for LocalHands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalHands({})", self.root_path)
    }
}

impl LocalHands {
    /// `root` is `/` for this machine. `target` runs the commands; for a directory that stands for a
    /// host it must be one that runs none of this machine's.
    pub fn new(root: &str, target: Arc<dyn Target>) -> Result<Self, Fault> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(root, flags, Mode::empty())
            .map_err(|errno| Fault::refused(root, words(errno)))?;
        Ok(Self {
            root: fd,
            root_path: root.trim_end_matches('/').to_owned(),
            target,
            knock: None,
            #[cfg(test)]
            probe: None,
        })
    }

    /// How a new connection to this host is made, for fixes that could cut it off.
    #[must_use]
    pub fn with_knock(mut self, knock: Knock) -> Self {
        self.knock = Some(knock);
        self
    }

    #[cfg(test)]
    #[must_use]
    pub(in crate::fix) fn with_probe(mut self, probe: Probe) -> Self {
        self.probe = Some(probe);
        self
    }

    #[allow(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "tests make the file system refuse here"
    )]
    fn before(&mut self, _what: &'static str) -> Result<(), Errno> {
        #[cfg(test)]
        if let Some(probe) = &mut self.probe {
            return probe(_what);
        }
        Ok(())
    }

    fn command(&self, programs: &[&str], args: &[&str]) -> Result<Ran, Fault> {
        let command = Command {
            programs,
            args,
            deadline: SYSTEMCTL_DEADLINE,
            output_bytes_max: OUTPUT_BYTES_MAX,
        };
        let line = [&programs[..1], args].concat().join(" ");
        self.target.run(&command).map_err(|unknown| {
            Fault::refused(&line, format!("{}: {}", unknown.reason, unknown.detail))
        })
    }

    /// A command that has to succeed.
    fn must(&self, programs: &[&str], args: &[&str]) -> Result<Ran, Fault> {
        let ran = self.command(programs, args)?;
        if ran.status == Some(0) {
            return Ok(ran);
        }
        let said = String::from_utf8_lossy(&ran.stderr);
        let line = [&programs[..1], args].concat().join(" ");
        Err(Fault::refused(&line, said.trim()))
    }

    fn look_sysctl(&self, key: &str) -> Result<State, Fault> {
        let path = sysctl_path(key)?;
        match self.target_read(&path, OUTPUT_BYTES_MAX)? {
            None => Ok(State::Absent),
            Some(bytes) => match String::from_utf8(bytes) {
                Ok(value) => Ok(State::Sysctl { value }),
                Err(_) => Err(Fault::not_safe(&path, "is not text")),
            },
        }
    }

    /// One write: the kernel takes a parameter whole or not at all.
    fn set_sysctl(&mut self, key: &str, value: &str) -> Result<(), Fault> {
        let path = sysctl_path(key)?;
        let refused = |errno| Fault::refused(&path, words(errno));
        let (dir, name) = self.parent(&path)?;
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.before("open").map_err(refused)?;
        let fd = fs::openat(&dir, name, flags, Mode::empty()).map_err(refused)?;
        self.before("write").map_err(refused)?;
        let written = rustix::io::write(&fd, value.as_bytes()).map_err(refused)?;
        if written == value.len() {
            return Ok(());
        }
        Err(Fault::refused(&path, "took only a part of the value"))
    }

    fn look_unit(&self, name: &str) -> Result<State, Fault> {
        checked(is_unit(name), name, "is no unit")?;
        let properties = "--property=LoadState,UnitFileState,ActiveState";
        let ran = self.must(SYSTEMCTL, &["show", properties, "--", name])?;
        let text = String::from_utf8_lossy(&ran.stdout);
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim())
        };
        let (Some(load), Some(boot), Some(active)) = (
            value("LoadState"),
            value("UnitFileState"),
            value("ActiveState"),
        ) else {
            return Err(Fault::not_safe(name, "systemctl show told no state"));
        };
        let running = match active {
            "active" => true,
            "inactive" | "failed" => false,
            other => return Err(Fault::not_safe(name, format!("is {other}; try again"))),
        };
        if load == "not-found" {
            return Ok(State::Absent);
        }
        Ok(State::Unit {
            boot: boot.to_owned(),
            running,
            links: Some(self.links_of(name)?),
        })
    }

    /// Links that enable the unit, or give it another name.
    fn links_of(&self, unit: &str) -> Result<BTreeMap<String, String>, Fault> {
        let mut links = BTreeMap::new();
        let mut dirs = vec![UNIT_DIR.to_owned()];
        for entry in self.entries(UNIT_DIR)? {
            if [".wants", ".requires", ".upholds"]
                .iter()
                .any(|end| entry.ends_with(end))
            {
                dirs.push(format!("{UNIT_DIR}/{entry}"));
            }
        }
        for dir in dirs {
            for entry in self.entries(&dir)? {
                let path = format!("{dir}/{entry}");
                let Found::Present(to) = self.target.read_link(&path) else {
                    continue;
                };
                if entry == unit || to.rsplit('/').next() == Some(unit) {
                    links.insert(path, to);
                }
            }
        }
        Ok(links)
    }

    fn entries(&self, dir: &str) -> Result<Vec<String>, Fault> {
        match self.target.list(dir) {
            Found::Present(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Found::Absent => Ok(Vec::new()),
            Found::Unknown(unknown) => Err(Fault::refused(dir, unknown.detail)),
        }
    }

    fn set_unit(&mut self, tag: &str, name: &str, from: &State, to: &State) -> Result<(), Fault> {
        checked(is_unit(name), name, "is no unit")?;
        let (
            State::Unit {
                boot: was,
                running: ran,
                ..
            },
            State::Unit {
                boot,
                running,
                links,
            },
        ) = (from, to)
        else {
            return Err(Fault::not_safe(name, "cannot be made or removed"));
        };
        if was == "masked" && boot != "masked" {
            self.must(SYSTEMCTL, &["unmask", "--", name])?;
        }
        if ran != running && !running {
            self.must(SYSTEMCTL, &["stop", "--", name])?;
        }
        if was != boot {
            match boot.as_str() {
                "enabled" => self.must(SYSTEMCTL, &["enable", "--", name])?,
                "masked" => self.must(SYSTEMCTL, &["mask", "--", name])?,
                // What an unmasked static or indirect unit is by itself.
                "static" | "indirect" | "alias" => self.must(SYSTEMCTL, &["daemon-reload"])?,
                _ => self.must(SYSTEMCTL, &["disable", "--", name])?,
            };
        }
        if let Some(links) = links {
            self.restore_links(tag, name, links)?;
        }
        if ran != running && *running {
            self.must(SYSTEMCTL, &["start", "--", name])?;
        }
        Ok(())
    }

    /// `enable` makes the links that the unit file asks for; what was there may have been others.
    fn restore_links(
        &mut self,
        tag: &str,
        unit: &str,
        wanted: &BTreeMap<String, String>,
    ) -> Result<(), Fault> {
        let now = self.links_of(unit)?;
        if now == *wanted {
            return Ok(());
        }
        for path in now
            .keys()
            .filter(|path| wanted.get(*path) != now.get(*path))
        {
            let (dir, name) = self.parent(path)?;
            fs::unlinkat(&dir, name, AtFlags::empty())
                .map_err(|errno| Fault::refused(path, words(errno)))?;
        }
        for (path, to) in wanted
            .iter()
            .filter(|(path, to)| now.get(*path) != Some(to))
        {
            let (dir, name) = self.parent(path)?;
            fs::symlinkat(to.as_str(), &dir, name)
                .map_err(|errno| Fault::refused(path, format!("{} ({tag})", words(errno))))?;
        }
        self.must(SYSTEMCTL, &["daemon-reload"]).map(drop)
    }

    fn look_module(&self, name: &str) -> Result<State, Fault> {
        checked(is_module(name), name, "is no kernel module")?;
        let table = self.target_read("/proc/modules", ACCOUNTS_BYTES_MAX)?;
        let table = table.unwrap_or_default();
        let loaded = String::from_utf8_lossy(&table)
            .lines()
            .any(|line| line.split(' ').next() == Some(name));
        Ok(State::Module { loaded })
    }

    fn set_module(&self, name: &str, to: &State) -> Result<(), Fault> {
        checked(is_module(name), name, "is no kernel module")?;
        // Past a line of modprobe.d that blocks it, which may not be taken back yet.
        let args: &[&str] = match to {
            State::Module { loaded: true } => &["--ignore-install", "--", name],
            _ => &["-r", "--", name],
        };
        self.must(MODPROBE, args).map(drop)
    }

    /// `None` when there is no such file.
    fn target_read(&self, path: &str, cap: usize) -> Result<Option<Vec<u8>>, Fault> {
        match self.target.read(path, cap) {
            Found::Present(bytes) => Ok(Some(bytes)),
            Found::Absent => Ok(None),
            Found::Unknown(unknown) => Err(Fault::refused(
                path,
                format!("{}: {}", unknown.reason, unknown.detail),
            )),
        }
    }
}

impl Hands for LocalHands {
    fn look(&mut self, object: &Object) -> Result<State, Fault> {
        match object {
            Object::File { path } => self.look_file(path),
            Object::Access { path } => self.look_access(path),
            Object::Sysctl { key } => self.look_sysctl(key),
            Object::Unit { name } => self.look_unit(name),
            Object::Module { name } => self.look_module(name),
        }
    }

    fn set(&mut self, tag: &str, object: &Object, from: &State, to: &State) -> Result<(), Fault> {
        if !self.look(object)?.same(from) {
            return Err(changed(object));
        }
        match (object, to) {
            (Object::File { path }, _) => self.replace_file(tag, path, from, to)?,
            (Object::Access { path }, State::Access(access)) => {
                self.set_access(path, from, *access)?;
            }
            (Object::Sysctl { key }, State::Sysctl { value }) => self.set_sysctl(key, value)?,
            (Object::Unit { name }, _) => self.set_unit(tag, name, from, to)?,
            (Object::Module { name }, _) => self.set_module(name, to)?,
            _ => {
                return Err(Fault::not_safe(
                    &object.to_string(),
                    "cannot be made or removed",
                ));
            }
        }
        if self.look(object)?.same(to) {
            return Ok(());
        }
        Err(Fault::refused(
            &object.to_string(),
            "did not take the value",
        ))
    }

    fn run(&mut self, action: &Action) -> Result<(), Fault> {
        match action {
            Action::CheckSshd => self.must(SSHD, &["-t"]).map(drop),
            Action::Reload { unit } => {
                checked(is_unit(unit), unit, "is no unit")?;
                self.must(SYSTEMCTL, &["reload", "--", unit]).map(drop)
            }
        }
    }

    fn id_of(&mut self, account: Account, name: &str) -> Result<Option<u32>, Fault> {
        checked(is_account(name), name, "is no name of an account")?;
        let path = match account {
            Account::User => "/etc/passwd",
            Account::Group => "/etc/group",
        };
        let table = self
            .target_read(path, ACCOUNTS_BYTES_MAX)?
            .unwrap_or_default();
        Ok(id_in(&String::from_utf8_lossy(&table), name))
    }

    fn sweep(&mut self, tag: &str, object: &Object) -> Result<(), Fault> {
        match object {
            Object::File { path } => self.sweep_file(tag, path),
            _ => Ok(()),
        }
    }

    fn arm(&mut self, id: &str, effects: &[Effect], seconds: u64) -> Result<(), Fault> {
        self.arm_timer(id, effects, seconds)
    }

    fn disarm(&mut self, id: &str) -> Result<Disarmed, Fault> {
        self.disarm_timer(id)
    }

    fn knock(&mut self) -> Result<(), Fault> {
        match &mut self.knock {
            None => Ok(()),
            Some(knock) => knock().map_err(|why| {
                Fault::new(
                    FaultKind::Check,
                    format!("a new connection was not made: {why}"),
                )
            }),
        }
    }
}

/// The number of a name in passwd(5) or group(5).
pub(super) fn id_in(table: &str, name: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// In a dotted key a `/` stands for a dot of the name, as in sysctl(8).
pub(super) fn sysctl_path(key: &str) -> Result<String, Fault> {
    let swapped: String = key
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let path = format!("/proc/sys/{swapped}");
    checked(
        is_sysctl_key(key) && is_path(&path),
        key,
        "is no kernel parameter",
    )?;
    Ok(path)
}

pub(super) fn checked(holds: bool, object: &str, why: &str) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::not_safe(&object.escape_debug().to_string(), why))
    }
}

fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
