//! Units of systemd: which there are, which start by themselves, which run.
//!
//! Whether a unit is enabled is read from the disk by the rules of systemctl(1) `is-enabled`, so it
//! is known on a host that systemd did not start and needs no bus. Services of System V style that
//! systemd wraps are enabled by their links in `/etc/rc?.d`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, systemd_conf};
use crate::{
    facts::{Reason, Unknown},
    target::{Kind, Links},
};

/// By rank, highest first, as systemd.unit(5) lists them.
const DIRS: [(&str, Origin); 14] = [
    ("/etc/systemd/system.control", Origin::Config),
    ("/run/systemd/system.control", Origin::Runtime),
    ("/run/systemd/transient", Origin::Transient),
    ("/run/systemd/generator.early", Origin::Generator),
    ("/etc/systemd/system", Origin::Config),
    ("/etc/systemd/system.attached", Origin::Config),
    ("/run/systemd/system", Origin::Runtime),
    ("/run/systemd/system.attached", Origin::Runtime),
    ("/run/systemd/generator", Origin::Generator),
    ("/usr/local/lib/systemd/system", Origin::Vendor),
    ("/usr/lib/systemd/system", Origin::Vendor),
    // The same directory on a merged /usr, another one before.
    ("/lib/systemd/system", Origin::Vendor),
    ("/run/systemd/generator.late", Origin::Generator),
    ("/etc/init.d", Origin::SystemV),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Config,
    Runtime,
    Transient,
    Generator,
    Vendor,
    SystemV,
}

const SUFFIXES: [&str; 9] = [
    ".automount",
    ".mount",
    ".path",
    ".service",
    ".slice",
    ".socket",
    ".swap",
    ".target",
    ".timer",
];

pub(super) const COLLECTOR: Collector = Collector {
    name: "services",
    about: "units of systemd: present, enabled, active",
    reads: &[
        "/etc/systemd/system/**",
        "/run/systemd/{system,transient,generator*}/**",
        "/usr/local/lib/systemd/system/**",
        "/usr/lib/systemd/system/**",
        "/etc/init.d/*",
        "/etc/rc[2345].d/*",
    ],
    runs: &["/usr/bin/systemctl list-units --all --full --plain --no-legend --no-pager"],
    patterns: &[
        FactPattern::closed("services", Shape::Map, "units"),
        FactPattern::closed("services.units", Shape::Map, "by full name: ssh.service"),
        FactPattern::closed("services.units[*]", Shape::Map, "one unit"),
        FactPattern::closed("services.units[*].present", Shape::Bool, "has a unit file"),
        FactPattern::closed(
            "services.units[*].enabled",
            Shape::Text,
            "enabled, disabled, masked, static, generated, alias, indirect, linked, transient, \
             enabled-runtime, masked-runtime",
        ),
        FactPattern::closed(
            "services.units[*].active",
            Shape::Text,
            "active, inactive, failed, activating, ...; unknown where systemd does not run",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

/// A unit file, the one that counts of its name.
struct Unit {
    path: String,
    origin: Origin,
    /// Where the file is a link: what it says.
    target: Option<String>,
}

/// What the directories hold.
#[derive(Default)]
struct Disk {
    units: BTreeMap<String, Unit>,
    /// Units some link of the configuration starts: by the link's name and by its target's.
    started: BTreeSet<String>,
    started_at_runtime: BTreeSet<String>,
}

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let disk = read_disk(context)?;
    let active = active(context);
    let mut units = Map::new();
    for (name, unit) in &disk.units {
        let enabled = match enabled(context, &disk, name, unit) {
            Ok(Some(state)) => state.into(),
            // A link to nothing.
            Ok(None) => continue,
            Err(unknown) => unknown.to_value(),
        };
        let runs_as = unit.target.as_deref().map_or(name.as_str(), base_name);
        let active = match &active {
            Ok(states) => states
                .get(runs_as)
                .map_or("inactive", String::as_str)
                .into(),
            Err(unknown) => unknown.to_value(),
        };
        let unit = json!({"present": true, "enabled": enabled, "active": active});
        units.insert(name.clone(), unit);
    }
    Ok(json!({ "units": units }))
}

/// Enabled state of those of the named units that are there, without asking systemd.
///
/// # Errors
/// A directory of units could not be read.
pub(super) fn enabled_states<'a>(
    context: &Context<'_>,
    names: &[&'a str],
) -> Result<BTreeMap<&'a str, &'static str>, Unknown> {
    let disk = read_disk(context)?;
    let mut states = BTreeMap::new();
    for &name in names {
        if let Some(unit) = disk.units.get(name)
            && let Some(state) = enabled(context, &disk, name, unit)?
        {
            states.insert(name, state);
        }
    }
    Ok(states)
}

fn read_disk(context: &Context<'_>) -> Result<Disk, Unknown> {
    let mut disk = Disk::default();
    for (dir, origin) in DIRS {
        for entry in context.list(dir).known()?.unwrap_or_default() {
            let path = format!("{dir}/{}", entry.name);
            match entry.kind {
                Kind::Dir => starters(context, &mut disk, &path, origin)?,
                Kind::File if origin == Origin::SystemV => {
                    // A script of this kind is a unit only where no unit file has the name.
                    // systemd-sysv-generator(8) leaves the suffix of shell scripts out.
                    let script = entry.name.trim_end_matches(".sh");
                    let name = format!("{script}.service");
                    let unit = || Unit {
                        path,
                        origin,
                        target: None,
                    };
                    disk.units.entry(name).or_insert_with(unit);
                }
                Kind::File | Kind::Link if is_unit(&entry.name) => {
                    let target = context.read_link(&path).known()?;
                    starts_by_alias(&mut disk, &entry.name, target.as_deref(), origin);
                    let unit = || Unit {
                        path,
                        origin,
                        target,
                    };
                    disk.units.entry(entry.name).or_insert_with(unit);
                }
                _ => {}
            }
        }
    }
    instances(&mut disk);
    Ok(disk)
}

fn is_unit(name: &str) -> bool {
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Links in `x.wants`, `x.requires` and `x.upholds` start what they name.
fn starters(
    context: &Context<'_>,
    disk: &mut Disk,
    dir: &str,
    origin: Origin,
) -> Result<(), Unknown> {
    let is_starter = [".wants", ".requires", ".upholds"]
        .iter()
        .any(|suffix| dir.ends_with(suffix));
    let started = match origin {
        Origin::Config => &mut disk.started,
        Origin::Runtime => &mut disk.started_at_runtime,
        // What the vendor links is part of the system: `static`, if nothing else.
        _ => return Ok(()),
    };
    if !is_starter {
        return Ok(());
    }
    for entry in context.list(dir).known()?.unwrap_or_default() {
        let target = context
            .read_link(&format!("{dir}/{}", entry.name))
            .known()?;
        if let Some(target) = target {
            started.insert(base_name(&target).to_owned());
            started.insert(entry.name);
        }
    }
    Ok(())
}

/// A second name in the configuration is an `Alias=` that was enabled.
fn starts_by_alias(disk: &mut Disk, name: &str, target: Option<&str>, origin: Origin) {
    let target = target.map_or("", base_name);
    if target.is_empty() || target == name || target == "null" {
        return;
    }
    match origin {
        Origin::Config => disk.started.insert(target.to_owned()),
        Origin::Runtime => disk.started_at_runtime.insert(target.to_owned()),
        _ => false,
    };
}

/// `getty@tty1.service` has no file of its own; a link starts it from `getty@.service`.
fn instances(disk: &mut Disk) {
    let started = disk.started.iter().chain(&disk.started_at_runtime);
    let mut found = Vec::new();
    for name in started {
        let template = name.split_once('@').and_then(|(stem, rest)| {
            let (instance, suffix) = rest.rsplit_once('.')?;
            (!instance.is_empty()).then(|| format!("{stem}@.{suffix}"))
        });
        if let Some(unit) = template.and_then(|template| disk.units.get(&template)) {
            let (path, origin) = (unit.path.clone(), unit.origin);
            found.push((
                name.clone(),
                Unit {
                    path,
                    origin,
                    target: None,
                },
            ));
        }
    }
    for (name, unit) in found {
        disk.units.entry(name).or_insert(unit);
    }
}

/// `None` for a link whose target is not there.
fn enabled(
    context: &Context<'_>,
    disk: &Disk,
    name: &str,
    unit: &Unit,
) -> Result<Option<&'static str>, Unknown> {
    let at_runtime = unit.origin == Origin::Runtime;
    let masked = if at_runtime {
        "masked-runtime"
    } else {
        "masked"
    };
    if let Some(target) = &unit.target {
        if target == "/dev/null" {
            return Ok(Some(masked));
        }
        if context.stat(&unit.path, Links::Follow).known()?.is_none() {
            return Ok(None);
        }
        if base_name(target) != name {
            return Ok(Some("alias"));
        }
    }
    match unit.origin {
        Origin::Generator if !is_wrapped(context, name)? => return Ok(Some("generated")),
        Origin::Generator | Origin::SystemV => return system_v(context, name).map(Some),
        Origin::Transient => return Ok(Some("transient")),
        _ => {}
    }
    let Some(text) = context.text(&unit.path).known()? else {
        return Ok(None);
    };
    if text.is_empty() {
        return Ok(Some(masked));
    }
    if disk.started.contains(name) {
        return Ok(Some("enabled"));
    }
    if disk.started_at_runtime.contains(name) {
        return Ok(Some("enabled-runtime"));
    }
    let in_config = matches!(unit.origin, Origin::Config | Origin::Runtime);
    if unit.target.is_some() && in_config {
        return Ok(Some("linked"));
    }
    Ok(Some(by_install_section(&text)))
}

fn by_install_section(text: &str) -> &'static str {
    let install = systemd_conf::assignments(text, "Install");
    let has = |keys: &[&str]| {
        install
            .iter()
            .any(|(key, value)| keys.contains(&key.as_str()) && !value.is_empty())
    };
    if has(&["WantedBy", "RequiredBy", "UpheldBy", "Alias"]) {
        "disabled"
    } else if has(&["Also", "DefaultInstance"]) {
        "indirect"
    } else {
        "static"
    }
}

/// Whether a generated unit stands for a script in `/etc/init.d`.
fn is_wrapped(context: &Context<'_>, name: &str) -> Result<bool, Unknown> {
    let Some(script) = name.strip_suffix(".service") else {
        return Ok(false);
    };
    let path = format!("/etc/init.d/{script}");
    Ok(context.stat(&path, Links::Follow).known()?.is_some())
}

/// By the start links of the levels with users.
fn system_v(context: &Context<'_>, name: &str) -> Result<&'static str, Unknown> {
    let script = name.strip_suffix(".service").unwrap_or(name);
    for level in 2..=5 {
        let dir = format!("/etc/rc{level}.d");
        for entry in context.list(&dir).known()?.unwrap_or_default() {
            let start = entry.name.strip_prefix('S').unwrap_or("");
            if start.trim_start_matches(|letter: char| letter.is_ascii_digit()) == script {
                return Ok("enabled");
            }
        }
    }
    Ok("disabled")
}

/// State by unit, of the units systemd has in memory.
fn active(context: &Context<'_>) -> Result<BTreeMap<String, String>, Unknown> {
    // As sd_booted(3) decides it.
    if context
        .stat("/run/systemd/system", Links::Keep)
        .known()?
        .is_none()
    {
        return Err(Unknown::new(
            Reason::Unsupported,
            "systemd does not run here",
        ));
    }
    let args = [
        "list-units",
        "--all",
        "--full",
        "--plain",
        "--no-legend",
        "--no-pager",
    ];
    let ran = context.run(&["/usr/bin/systemctl", "/bin/systemctl"], &args)?;
    if ran.status != Some(0) {
        let words = String::from_utf8_lossy(&ran.stderr);
        let detail = format!("systemctl list-units: {}", words.trim());
        return Err(Unknown::new(Reason::Unreadable, detail));
    }
    parse_active(&String::from_utf8_lossy(&ran.stdout))
}

/// `UNIT LOAD ACTIVE SUB DESCRIPTION`.
fn parse_active(text: &str) -> Result<BTreeMap<String, String>, Unknown> {
    let mut states = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_ascii_whitespace();
        let (Some(unit), Some(state)) = (words.next(), words.nth(1)) else {
            let detail = format!("systemctl list-units: line `{line}`");
            return Err(Unknown::new(Reason::Malformed, detail));
        };
        states.insert(unit.to_owned(), state.to_owned());
    }
    Ok(states)
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const SSH: &str =
        "[Unit]\nDescription=x\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n";

    fn host() -> Fixture {
        let lib = |name: &str| format!("/usr/lib/systemd/system/{name}");
        let host = Fixture::new(&[
            (&lib("ssh.service"), SSH),
            (&lib("off.service"), SSH),
            (&lib("plain.service"), "[Service]\nExecStart=/x\n"),
            (&lib("also.service"), "[Install]\nAlso=also.socket\n"),
            (&lib("getty@.service"), "[Install]\nWantedBy=getty.target\n"),
            (&lib("cups.service"), SSH),
            (&lib("wanted.service"), "[Service]\n"),
            (&lib("now.socket"), SSH),
            (&lib("readme.txt"), ""),
            ("/etc/systemd/system/empty.service", ""),
            ("/run/systemd/generator/srv.mount", "[Mount]\n"),
            ("/run/systemd/generator.late/exim.service", "[Unit]\n"),
            ("/etc/init.d/exim", "#!/bin/sh\n"),
            ("/etc/init.d/old", "#!/bin/sh\n"),
            ("/etc/init.d/ssh", "#!/bin/sh\n"),
        ]);
        let etc = "/etc/systemd/system";
        host.link(&format!("{etc}/sshd.service"), &lib("ssh.service"));
        host.link(
            &format!("{etc}/multi-user.target.wants/ssh.service"),
            &lib("ssh.service"),
        );
        host.link(
            &format!("{etc}/getty.target.wants/getty@tty1.service"),
            &lib("getty@.service"),
        );
        host.link(&format!("{etc}/cups.service"), "/dev/null");
        host.link(&format!("{etc}/gone.service"), &lib("gone-too.service"));
        host.link(
            "/run/systemd/system/sockets.target.wants/now.socket",
            &lib("now.socket"),
        );
        host.link(
            &lib("basic.target.wants/wanted.service"),
            "../wanted.service",
        );
        host.link("/etc/rc3.d/S01exim", "../init.d/exim");
        host
    }

    fn state(fact: &Value, unit: &str, key: &str) -> Option<String> {
        Some(fact["units"].get(unit)?[key].as_str()?.to_owned())
    }

    #[test]
    fn what_is_enabled_is_read_from_the_disk() {
        let fact = host().collect(&COLLECTOR);
        let check = |unit: &str, expected: Option<&str>| {
            assert_eq!(state(&fact, unit, "enabled").as_deref(), expected, "{unit}");
        };
        check("ssh.service", Some("enabled"));
        check("sshd.service", Some("alias"));
        check("off.service", Some("disabled"));
        check("plain.service", Some("static"));
        check("also.service", Some("indirect"));
        check("getty@.service", Some("enabled"));
        check("getty@tty1.service", Some("enabled"));
        check("cups.service", Some("masked"));
        check("empty.service", Some("masked"));
        check("wanted.service", Some("static"));
        check("now.socket", Some("enabled-runtime"));
        check("srv.mount", Some("generated"));
        check("exim.service", Some("enabled"));
        check("old.service", Some("disabled"));
        check("gone.service", None);
        check("readme.txt", None);
        check("telnet.socket", None);
    }

    const LIST: &str = "/usr/bin/systemctl list-units --all --full --plain --no-legend --no-pager";

    #[test]
    fn what_runs_is_told_by_systemctl_and_what_it_does_not_list_is_inactive() {
        let told = "ssh.service loaded active running OpenBSD Secure Shell server\n\
                    plain.service loaded failed failed x\nnone.service not-found inactive dead n\n";
        let host = host().prints(LIST, 0, told);
        host.dir("/run/systemd/system");
        let fact = host.collect(&COLLECTOR);
        let check = |unit: &str, expected: &str| {
            assert_eq!(state(&fact, unit, "active").unwrap(), expected, "{unit}");
        };
        check("ssh.service", "active");
        check("sshd.service", "active");
        check("plain.service", "failed");
        check("off.service", "inactive");
    }

    #[test]
    fn what_runs_is_unknown_without_systemd_without_systemctl_and_after_its_failure() {
        let check = |host: Fixture, reason: Reason| {
            let fact = host.collect(&COLLECTOR);
            let active = &fact["units"]["off.service"]["active"];
            assert_eq!(Unknown::from_value(active).unwrap().reason, reason);
            assert_eq!(state(&fact, "off.service", "enabled").unwrap(), "disabled");
        };
        let bare = Fixture::new(&[("/usr/lib/systemd/system/off.service", SSH)]);
        check(bare, Reason::Unsupported);
        let booted = || {
            let host = host();
            host.dir("/run/systemd/system");
            host
        };
        check(booted(), Reason::ToolMissing);
        check(booted().prints(LIST, 1, ""), Reason::Unreadable);
        check(booted().prints(LIST, 0, "garbage\n"), Reason::Malformed);
    }
}
