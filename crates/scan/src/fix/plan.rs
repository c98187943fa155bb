//! From the steps of a rule and the facts of a host to the effects of one fix.
//!
//! Only what is not yet as it should be becomes an effect, and nothing that is stricter than asked
//! is loosened. Planning looks and changes nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Access, Account, Action, Effect, Fault, FaultKind, Hands, Object, State, engine::TIMER_SECONDS,
};
use crate::{
    collect::{self, Collector},
    facts::{Facts, Unknown},
    judge::{self, Outcome},
    rule::{
        BlockedModule, Boot, FileAccess, FilePlace, Rule, ServiceState, SshdSetting, Step, Sysctl,
        Wanted,
    },
};

/// Effects of one fix: a glob over a directory of units or keys matches a few hundred.
const EFFECTS_MAX: usize = 512;

/// Directories that the files of fixes lie in. The names sort so that sysctl and modprobe read them
/// last, where the last line wins, and sshd first, where the first line wins.
const SYSCTL_DIR: &str = "/etc/sysctl.d/zz-holdfast-";
const MODPROBE_DIR: &str = "/etc/modprobe.d/zz-holdfast-";
const SSHD_DIR: &str = "/etc/ssh/sshd_config.d/00-holdfast-";

/// What one fix would do on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub rule: String,
    pub effects: Vec<Effect>,
    /// Set where a mistake could cut the host off.
    pub timer_seconds: Option<u64>,
    /// What the rule says before.
    pub reason: String,
}

/// The collectors whose facts a fix of this rule needs.
pub fn collectors(rule: &Rule) -> Vec<&'static Collector> {
    let mut names = vec!["os"];
    for predicate in rule.predicates() {
        predicate.for_each_selector(&mut |selector| {
            names.extend(
                collect::list()
                    .iter()
                    .map(|collector| collector.name)
                    .filter(|name| selector.collector() == Some(name)),
            );
        });
    }
    for step in &rule.fix.apply {
        names.extend(match step {
            Step::Sysctl(_) => &["sysctl"][..],
            Step::File(_) => &["globs"],
            Step::Sshd(_) => &["sshd", "services"],
            Step::Service(_) => &["services"],
            Step::Module(_) => &["modules"],
        });
    }
    let all = collect::list().iter().copied();
    all.filter(|collector| names.contains(&collector.name))
        .collect()
}

/// Plans the fix of `rule` for the host that `facts` and `hands` are of.
///
/// # Errors
/// The rule does not fail there, has no `apply`, or something it touches cannot be captured.
pub fn plan(rule: &Rule, facts: &Facts, hands: &mut dyn Hands) -> Result<Plan, Fault> {
    if rule.fix.apply.is_empty() {
        let what = format!(
            "rule {} has no `fix.apply`: only a person can mend it",
            rule.id
        );
        return Err(Fault::new(FaultKind::NotFixable, what));
    }
    let verdict = judge::judge([rule], facts)
        .pop()
        .ok_or_else(|| Fault::new(FaultKind::NotFixable, "the rule was not judged"))?;
    if verdict.verdict != Outcome::Fail {
        let what = format!(
            "rule {} is {} here: {}",
            rule.id, verdict.verdict, verdict.reason
        );
        return Err(Fault::new(FaultKind::NotFixable, what));
    }
    let mut planner = Planner {
        rule,
        facts,
        hands,
        effects: Vec::new(),
        missing_units: Vec::new(),
        found_unit: false,
    };
    planner.all()?;
    let effects = planner.effects;
    if effects.is_empty() {
        let what = format!(
            "rule {} fails, and nothing that its fix touches is wrong",
            rule.id
        );
        return Err(Fault::new(FaultKind::NotFixable, what));
    }
    if effects.len() > EFFECTS_MAX {
        let what = format!("{} effects, more than {EFFECTS_MAX}", effects.len());
        return Err(Fault::new(FaultKind::Unsafe, what));
    }
    let cuts = effects.iter().any(could_cut_ssh);
    Ok(Plan {
        rule: rule.id.clone(),
        effects,
        timer_seconds: cuts.then_some(TIMER_SECONDS),
        reason: verdict.reason,
    })
}

/// Beginnings of paths that a login over the network depends on.
const LOGIN_PATHS: &[&str] = &[
    "/etc/ssh",
    "/etc/pam.d",
    "/etc/security",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/nsswitch.conf",
    "/etc/hosts.",
    "/etc/shells",
    "/etc/profile",
    "/etc/login.defs",
    "/etc/sudoers",
    "/etc/network",
    "/etc/netplan",
    "/etc/nftables",
    "/etc/firewalld",
    "/etc/ufw",
    "/etc/systemd",
    "/root",
    "/home",
    "/run/sshd",
];

/// Beginnings of names of units that it depends on.
const LOGIN_UNITS: &[&str] = &[
    "ssh",
    "network",
    "NetworkManager",
    "systemd-networkd",
    "systemd-resolved",
    "wpa_",
    "dhc",
    "nftables",
    "iptables",
    "ip6tables",
    "firewalld",
    "ufw",
    "netfilter",
    "fail2ban",
    "sssd",
    "nscd",
    "nslcd",
    "winbind",
    "dbus",
    "systemd-logind",
    "wg-",
    "openvpn",
    "strongswan",
    "ipsec",
    "tailscale",
    "dnsmasq",
    "unbound",
    "bind9",
    "named",
];

/// Too much here costs a connection more, too little a journey to the machine.
fn could_cut_ssh(effect: &Effect) -> bool {
    let begins = |text: &str, with: &[&str]| with.iter().any(|begin| text.starts_with(begin));
    match effect.object() {
        Some((Object::File { path } | Object::Access { path }, _)) => begins(path, LOGIN_PATHS),
        Some((Object::Sysctl { key }, _)) => key.starts_with("net."),
        Some((Object::Unit { name }, _)) => begins(name, LOGIN_UNITS),
        Some((Object::Module { .. }, _)) => false,
        None => true,
    }
}

/// Values that the kernel takes and never gives back, by its own documentation.
fn is_one_way(key: &str, value: &str) -> bool {
    [
        ("kernel.kexec_load_disabled", "1"),
        ("kernel.modules_disabled", "1"),
        ("kernel.unprivileged_bpf_disabled", "1"),
        ("kernel.yama.ptrace_scope", "3"),
    ]
    .contains(&(key, value))
}

struct Planner<'a> {
    rule: &'a Rule,
    facts: &'a Facts,
    hands: &'a mut dyn Hands,
    effects: Vec<Effect>,
    /// Units to be on that the host has not, and whether it has one of the others.
    missing_units: Vec<String>,
    found_unit: bool,
}

impl Planner<'_> {
    /// A module is unloaded before it is blocked, so that undoing, in reverse, can load it; a running
    /// kernel parameter is set after its file, so that a crash between them ends at the next start
    /// as it was to be.
    fn all(&mut self) -> Result<(), Fault> {
        let (mut sysctl, mut modprobe, mut sshd) = (String::new(), String::new(), String::new());
        let mut running = BTreeMap::new();
        for step in &self.rule.fix.apply {
            match step {
                Step::Sysctl(step) => self.sysctl(step, &mut sysctl, &mut running)?,
                Step::File(step) => self.file(step)?,
                Step::Sshd(step) => sshd.push_str(&self.sshd(step)?),
                Step::Service(step) => self.service(step)?,
                Step::Module(step) => modprobe.push_str(&self.module(step)?),
            }
        }
        if let (false, Some(name)) = (self.found_unit, self.missing_units.first()) {
            let what = format!("unit {name}: not on this host; install its package first");
            return Err(Fault::new(FaultKind::NotFixable, what));
        }
        let id = &self.rule.id;
        if !sysctl.is_empty() {
            self.drop_in(&format!("{SYSCTL_DIR}{id}.conf"), &sysctl, 0o644)?;
        }
        self.set_running(running)?;
        if !modprobe.is_empty() {
            self.drop_in(&format!("{MODPROBE_DIR}{id}.conf"), &modprobe, 0o644)?;
        }
        if !sshd.is_empty() {
            self.drop_in(&format!("{SSHD_DIR}{id}.conf"), &sshd, 0o600)?;
            self.effects.push(Effect::Run(Action::CheckSshd));
            if let Some(unit) = self.sshd_unit()? {
                self.effects.push(Effect::Run(Action::Reload { unit }));
            }
        }
        Ok(())
    }

    fn sysctl(
        &mut self,
        step: &Sysctl,
        lines: &mut String,
        running: &mut BTreeMap<String, String>,
    ) -> Result<(), Fault> {
        let known = self.map("sysctl.running")?;
        if step.key.contains('*') {
            for (key, now) in known.iter().filter(|(key, _)| stands_for(&step.key, key)) {
                let value = choose(&step.value, [now.as_str()]);
                running.insert(key.clone(), value);
            }
            return Ok(());
        }
        let now = known.get(&step.key).and_then(Value::as_str);
        let Some(now) = now else {
            let what = format!("the kernel has no parameter {}", step.key);
            return Err(Fault::new(FaultKind::NotFixable, what));
        };
        let set = self.map("sysctl.persistent").ok();
        let set = set
            .and_then(|set| set.get(&step.key))
            .and_then(|line| line.get("value"))
            .and_then(Value::as_str);
        let value = choose(&step.value, [Some(now), set]);
        lines.push_str(&format!("{} = {value}\n", step.key));
        running.insert(step.key.clone(), value);
        Ok(())
    }

    fn set_running(&mut self, wanted: BTreeMap<String, String>) -> Result<(), Fault> {
        let mut sets = Vec::new();
        for (key, value) in &wanted {
            if is_one_way(key, value) {
                let what = format!("kernel parameter {key}");
                return Err(Fault::not_safe(
                    &what,
                    format!("cannot be set back from {value}"),
                ));
            }
            let object = Object::Sysctl { key: key.clone() };
            let before = self.hands.look(&object)?;
            let after = State::Sysctl {
                value: format!("{value}\n"),
            };
            if !before.same(&after) {
                sets.push(Effect::Set {
                    object,
                    before,
                    after,
                });
            }
        }
        // Captured before what moves them is set, and therefore put back after it. Whether redirects
        // are accepted is nothing that turning forwarding off may change for the worse.
        let mut held = Vec::new();
        for key in self.moved_along(&sets, &wanted)? {
            let hold = key.ends_with(".accept_redirects");
            let object = Object::Sysctl { key };
            let before = self.hands.look(&object)?;
            if hold {
                held.push(Effect::Hold {
                    object: object.clone(),
                    before: before.clone(),
                });
            }
            self.effects.push(Effect::Keep { object, before });
        }
        self.effects.extend(sets);
        self.effects.extend(held);
        Ok(())
    }

    /// Parameters that the kernel changes when another is set: forwarding sets that of every
    /// interface, and whether redirects are accepted (ip-sysctl of the kernel's documentation).
    fn moved_along(
        &self,
        sets: &[Effect],
        wanted: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, Fault> {
        let mut patterns = Vec::new();
        for effect in sets {
            let Some((Object::Sysctl { key }, _)) = effect.object() else {
                continue;
            };
            match key.as_str() {
                "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding" => patterns.extend([
                    "net.ipv4.ip_forward",
                    "net.ipv4.conf.*.forwarding",
                    "net.ipv4.conf.*.accept_redirects",
                ]),
                "net.ipv6.conf.all.forwarding" => patterns.push("net.ipv6.conf.*.forwarding"),
                "net.ipv6.conf.all.disable_ipv6" => patterns.push("net.ipv6.conf.*.disable_ipv6"),
                _ => {}
            }
        }
        if patterns.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.map("sysctl.running")?;
        let moved = known.keys().filter(|key| {
            !wanted.contains_key(*key)
                && patterns
                    .iter()
                    .any(|pattern| *pattern == key.as_str() || fits(pattern, key))
        });
        Ok(moved.cloned().collect())
    }

    fn file(&mut self, step: &FileAccess) -> Result<(), Fault> {
        let paths = match &step.place {
            FilePlace::Path(path) => vec![path.clone()],
            FilePlace::Glob(glob) => self.matches(glob)?,
        };
        for path in paths {
            let object = Object::Access { path };
            match self.hands.look(&object)? {
                // What is not there needs no other mode; whether it has to be there, the rule says.
                State::Absent => {}
                State::Access(before) => {
                    let after = self.access(step, before)?;
                    if after != before {
                        self.effects.push(Effect::Set {
                            object,
                            before: State::Access(before),
                            after: State::Access(after),
                        });
                    }
                }
                _ => unreachable!("access is asked for, and absent or access is the answer"),
            }
        }
        Ok(())
    }

    fn access(&mut self, step: &FileAccess, before: Access) -> Result<Access, Fault> {
        let mut mode = before.mode & step.mode_at_most.unwrap_or(0o7777);
        if step.sticky {
            mode |= 0o1000;
        }
        Ok(Access {
            mode,
            uid: self.one_of(Account::User, &step.owners, before.uid)?,
            gid: self.one_of(Account::Group, &step.groups, before.gid)?,
        })
    }

    fn one_of(&mut self, kind: Account, names: &[String], now: u32) -> Result<u32, Fault> {
        let mut first = None;
        for name in names {
            let id = self.hands.id_of(kind, name)?;
            if id == Some(now) {
                return Ok(now);
            }
            first = first.or(id);
        }
        if names.is_empty() {
            return Ok(now);
        }
        first.ok_or_else(|| {
            let what = format!("the host has none of {}", names.join(", "));
            Fault::new(FaultKind::NotFixable, what)
        })
    }

    /// Regular files only: a directory among them would lose the right to be entered.
    fn matches(&self, glob: &str) -> Result<Vec<String>, Fault> {
        let found = self
            .facts
            .facts
            .get("globs")
            .and_then(|globs| globs.get(glob));
        let found = found.ok_or_else(|| missing(glob))?;
        let list = match (Unknown::from_value(found), found.as_array()) {
            (None, Some(list)) => list,
            _ => return Err(missing(glob)),
        };
        let field = |item: &Value, name: &str| item.get(name)?.as_str().map(str::to_owned);
        let files = list
            .iter()
            .filter(|item| field(item, "kind").as_deref() == Some("file"));
        files
            .map(|item| field(item, "path").ok_or_else(|| missing(glob)))
            .collect()
    }

    fn sshd(&mut self, step: &SshdSetting) -> Result<String, Fault> {
        let effective = self.map("sshd.effective")?;
        let now = effective.get(&step.keyword.to_ascii_lowercase());
        let value = choose(&step.value, [now.and_then(Value::as_str)]);
        Ok(format!("{} {value}\n", step.keyword))
    }

    /// The unit that sshd runs as, when it runs.
    fn sshd_unit(&self) -> Result<Option<String>, Fault> {
        let units = self.map("services.units")?;
        let runs = |name: &&str| {
            let active = units.get(*name).and_then(|unit| unit.get("active"));
            active.and_then(Value::as_str) == Some("active")
        };
        let names = ["ssh.service", "sshd.service"].into_iter();
        Ok(names.filter(runs).map(str::to_owned).next())
    }

    fn service(&mut self, step: &ServiceState) -> Result<(), Fault> {
        let units = self.map("services.units")?;
        let name = &step.unit;
        let wants = step.boot == Some(Boot::Enabled) || step.running == Some(true);
        if !units.contains_key(name) {
            // Off as it is. To be on, one of the names that distributions give it has to be there.
            if wants {
                self.missing_units.push(name.clone());
            }
            return Ok(());
        }
        self.found_unit |= wants;
        let object = Object::Unit { name: name.clone() };
        let before = self.hands.look(&object)?;
        let State::Unit {
            boot: was, running, ..
        } = &before
        else {
            return Err(Fault::not_safe(
                &object.to_string(),
                "its state cannot be captured",
            ));
        };
        let cannot = |why: &str| Err(Fault::not_safe(&object.to_string(), why));
        let boot = match (step.boot, was.as_str()) {
            (None, _) => was.as_str(),
            (Some(Boot::Disabled), "enabled") => "disabled",
            (Some(Boot::Disabled), "disabled" | "masked" | "static" | "indirect" | "alias") => was,
            (Some(Boot::Enabled), "enabled" | "disabled") => "enabled",
            (Some(Boot::Enabled), "static" | "indirect" | "alias") => was,
            (Some(Boot::Enabled), "masked") => return cannot("is masked; unmask it first"),
            (Some(Boot::Masked), "enabled" | "disabled" | "static" | "indirect" | "masked") => {
                "masked"
            }
            (Some(_), other) => return cannot(&format!("is {other}, which cannot be put back")),
        };
        let after = State::Unit {
            boot: boot.to_owned(),
            running: step.running.unwrap_or(*running),
            links: None,
        };
        if !before.same(&after) {
            self.effects.push(Effect::Set {
                object,
                before,
                after,
            });
        }
        Ok(())
    }

    fn module(&mut self, step: &BlockedModule) -> Result<String, Fault> {
        let name = &step.name;
        if self.map("modules.builtin")?.contains_key(name) {
            let what = format!("kernel module {name} is built into the kernel");
            return Err(Fault::new(FaultKind::NotFixable, what));
        }
        if self.map("modules.loaded")?.contains_key(name) {
            self.effects.push(Effect::Set {
                object: Object::Module { name: name.clone() },
                before: State::Module { loaded: true },
                after: State::Module { loaded: false },
            });
        }
        Ok(format!("install {name} /bin/false\nblacklist {name}\n"))
    }

    fn drop_in(&mut self, path: &str, lines: &str, mode: u32) -> Result<(), Fault> {
        let object = Object::File {
            path: path.to_owned(),
        };
        let before = self.hands.look(&object)?;
        let content = format!(
            "# Written by `holdfast fix {}`; `holdfast fix rollback` takes it away.\n{lines}",
            self.rule.id
        );
        let after = State::File {
            content: content.into_bytes(),
            access: Access {
                mode,
                uid: self.hands.id_of(Account::User, "root")?.unwrap_or(0),
                gid: self.hands.id_of(Account::Group, "root")?.unwrap_or(0),
            },
            attributes: match &before {
                State::File { attributes, .. } => attributes.clone(),
                _ => None,
            },
        };
        if !before.same(&after) {
            self.effects.push(Effect::Set {
                object,
                before,
                after,
            });
        }
        Ok(())
    }

    /// A map of the facts, by two names joined with a dot.
    fn map(&self, name: &str) -> Result<&serde_json::Map<String, Value>, Fault> {
        let mut found = None;
        for part in name.split('.') {
            let inside = match found {
                None => self.facts.facts.get(part),
                Some(value) => Value::get(value, part),
            };
            found = Some(inside.ok_or_else(|| missing(name))?);
        }
        let value = found.ok_or_else(|| missing(name))?;
        match Unknown::from_value(value) {
            Some(unknown) => {
                let what = format!("{name} is unknown: {}: {}", unknown.reason, unknown.detail);
                Err(Fault::new(FaultKind::NotFixable, what))
            }
            None => value.as_object().ok_or_else(|| missing(name)),
        }
    }
}

fn missing(name: &str) -> Fault {
    Fault::new(FaultKind::NotFixable, format!("{name} was not collected"))
}

/// Whether a running key is meant by a pattern with a `*`. The loopback's has no effect.
pub(super) fn stands_for(pattern: &str, key: &str) -> bool {
    fits(pattern, key) && !key.contains(".lo.")
}

/// One `*` for one part; parts have no dots, a `/` stands for one.
fn fits(pattern: &str, key: &str) -> bool {
    let (mut wanted, mut parts) = (pattern.split('.'), key.split('.'));
    loop {
        match (wanted.next(), parts.next()) {
            (None, None) => return true,
            (Some(wanted), Some(part)) if wanted == "*" || wanted == part => {}
            _ => return false,
        }
    }
}

/// The value to set. One of the values `now` in use that is within the bound stays; of several the
/// strictest.
pub(super) fn choose<'v>(
    wanted: &Wanted,
    now: impl IntoIterator<Item = Option<&'v str>>,
) -> String {
    let numbers: Vec<i64> = now
        .into_iter()
        .filter_map(|value| value?.trim().parse().ok())
        .collect();
    match wanted {
        Wanted::Exactly(text) => text.clone(),
        Wanted::AtLeast(least) => {
            let most = numbers.iter().fold(*least, |most, n| most.max(*n));
            most.to_string()
        }
        Wanted::AtMost(most) => {
            let within = numbers.iter().filter(|n| (1..=*most).contains(*n)).min();
            within.unwrap_or(most).to_string()
        }
    }
}
