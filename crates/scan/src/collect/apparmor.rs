//! AppArmor: whether the kernel has it, its profiles, and programs that run beside theirs.
//!
//! Only profiles named after the path they are for are compared with running programs, as
//! aa-status does; a profile with a free name and an attachment is not.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape, part};
use crate::{
    facts::{Reason, Unknown},
    target::{Found, Kind, Links},
};

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

pub(super) const COLLECTOR: Collector = Collector {
    name: "apparmor",
    about: "AppArmor: profiles with their modes, programs outside of theirs",
    reads: &[
        "/sys/module",
        ENABLED,
        PROFILES,
        "/proc/*/exe",
        "/proc/*/attr/current",
    ],
    privilege: Privilege::Partly("apparmor.profiles, apparmor.unconfined_with_profile"),
    patterns: &[
        FactPattern::closed("apparmor", Shape::Map, "AppArmor"),
        FactPattern::closed(
            "apparmor.enabled",
            Shape::Bool,
            "the running kernel enforces it",
        ),
        FactPattern::closed("apparmor.profiles", Shape::Map, "loaded profiles by name"),
        FactPattern::closed(
            "apparmor.profiles[*]",
            Shape::Text,
            "enforce, complain, kill or unconfined",
        ),
        FactPattern::closed(
            "apparmor.unconfined_with_profile",
            Shape::List,
            "programs that run unconfined although a profile has their path",
        ),
        FactPattern::closed(
            "apparmor.unconfined_with_profile[]",
            Shape::Text,
            "path of the program",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let enabled = enabled(context)?;
    if !enabled {
        return Ok(json!({"enabled": false, "profiles": {}, "unconfined_with_profile": []}));
    }
    let profiles = profiles(context);
    let unconfined = profiles
        .as_ref()
        .map_err(Unknown::clone)
        .and_then(|profiles| unconfined(context, profiles));
    Ok(json!({
        "enabled": true,
        "profiles": part(profiles.map(Value::Object)),
        "unconfined_with_profile": part(unconfined),
    }))
}

/// A kernel without AppArmor has no such parameter; where `/sys` is not mounted nobody can tell.
fn enabled(context: &Context<'_>) -> Result<bool, Unknown> {
    match context.text(ENABLED).known()? {
        Some(text) => Ok(text.trim() == "Y"),
        None if context
            .stat("/sys/module", Links::Follow)
            .known()?
            .is_some() =>
        {
            Ok(false)
        }
        None => Err(Unknown::new(Reason::Unreadable, "/sys/module: not there")),
    }
}

/// `name (mode)` a line. Names may hold blanks and parentheses.
fn profiles(context: &Context<'_>) -> Result<Map<String, Value>, Unknown> {
    let text = context.text(PROFILES).known()?.ok_or_else(|| {
        let detail = format!("{PROFILES}: not there: securityfs is not mounted");
        Unknown::new(Reason::Unreadable, detail)
    })?;
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let parts = line
                .strip_suffix(')')
                .and_then(|line| line.rsplit_once(" ("));
            let (name, mode) = parts.ok_or_else(|| {
                let shown: String = line.chars().take(80).collect();
                Unknown::new(
                    Reason::Malformed,
                    format!("{PROFILES}: no profile: {shown}"),
                )
            })?;
            Ok((name.to_owned(), mode.into()))
        })
        .collect()
}

fn unconfined(context: &Context<'_>, profiles: &Map<String, Value>) -> Result<Value, Unknown> {
    let by_path = |name: &str| name.starts_with('/') && profiles.contains_key(name);
    let mut programs = BTreeSet::new();
    for process in context.list("/proc").known()?.unwrap_or_default() {
        if process.kind != Kind::Dir || !process.name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // Absent: a thread of the kernel, or a process that has ended since.
        let exe = context
            .target
            .read_link(&format!("/proc/{}/exe", process.name));
        let Some(exe) = exe.known()?.filter(|exe| by_path(exe)) else {
            continue;
        };
        match context.text(&format!("/proc/{}/attr/current", process.name)) {
            Found::Present(label) if label.trim_end_matches(['\0', '\n']) == "unconfined" => {
                programs.insert(exe);
            }
            Found::Present(_) | Found::Absent => {}
            Found::Unknown(unknown) => return Err(unknown),
        }
    }
    Ok(programs.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    fn host(profiles: &str) -> Fixture {
        Fixture::new(&[(ENABLED, "Y\n"), (PROFILES, profiles)])
    }

    #[test]
    fn profiles_have_modes_and_a_program_beside_its_profile_is_named() {
        let host = host(
            "/usr/sbin/cupsd (enforce)\nman (groff) x (complain)\n/usr/bin/man (unconfined)\n",
        );
        for (pid, exe, label) in [
            ("1", "/usr/lib/systemd/systemd", "unconfined\n"),
            ("20", "/usr/sbin/cupsd", "unconfined\n"),
            ("21", "/usr/sbin/cupsd", "unconfined\n"),
            ("22", "/usr/bin/man", "/usr/bin/man (unconfined)\n"),
        ] {
            host.link(&format!("/proc/{pid}/exe"), exe);
            host.write(&format!("/proc/{pid}/attr/current"), label.as_bytes());
        }
        host.dir("/proc/2");
        let fact = host.collect(&COLLECTOR);
        assert_eq!(
            fact["profiles"],
            json!({"/usr/sbin/cupsd": "enforce", "man (groff) x": "complain", "/usr/bin/man": "unconfined"})
        );
        assert_eq!(fact["unconfined_with_profile"], json!(["/usr/sbin/cupsd"]));
    }

    #[test]
    fn a_kernel_without_it_is_known_and_a_host_without_sys_is_not() {
        let host = Fixture::new(&[]);
        let unknown = Unknown::from_value(&host.collect(&COLLECTOR)).unwrap();
        assert_eq!(unknown.reason, Reason::Unreadable);
        host.dir("/sys/module");
        assert_eq!(host.collect(&COLLECTOR)["enabled"], false);
        host.write(ENABLED, b"N\n");
        assert_eq!(host.collect(&COLLECTOR)["enabled"], false);
    }

    /// Proves: RUL-4
    #[test]
    fn profiles_that_cannot_be_read_are_unknown_not_none() {
        let unmounted = Fixture::new(&[(ENABLED, "Y\n")]).collect(&COLLECTOR);
        let noise = host("\0\u{1}").collect(&COLLECTOR);
        for (fact, reason) in [(unmounted, Reason::Unreadable), (noise, Reason::Malformed)] {
            for part in ["profiles", "unconfined_with_profile"] {
                assert_eq!(Unknown::from_value(&fact[part]).unwrap().reason, reason);
            }
        }
    }
}
