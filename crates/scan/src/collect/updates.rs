//! Packages with a newer version in apt's lists, and whether upgrades happen by themselves.
//!
//! Read straight from dpkg's status and apt's lists: no process, no lock, no cache written, and no
//! network, so the answer is as old as the lists (`lists_age_days`). Pinning is ignored, and so are
//! phased updates: what apt_preferences holds back is listed all the same.

mod apt_conf;
mod candidates;
mod lz4_frame;
mod release;
mod stanzas;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use self::{apt_conf::Settings, candidates::Candidates, release::Release, stanzas::Stanzas};
use super::{Collector, Context, FactPattern, Shape, part};
use crate::{
    facts::{Reason, Unknown},
    target::{Entry, Found, Kind, Links},
};

const STATUS: &str = "/var/lib/dpkg/status";
const LISTS: &str = "/var/lib/apt/lists";
const CONFIG: &str = "/etc/apt/apt.conf";
const CONFIG_DIR: &str = "/etc/apt/apt.conf.d";
const UNATTENDED: &str = "/usr/bin/unattended-upgrade";

/// Touched after a successful update: by apt's timer, and by Ubuntu's notifier.
const STAMPS: [&str; 2] = [
    "/var/lib/apt/periodic/update-stamp",
    "/var/lib/apt/periodic/update-success-stamp",
];

/// dpkg's database of a desktop with twenty thousand packages.
const STATUS_BYTES_MAX: usize = 64 << 20;

/// One list on the disk. The largest, Ubuntu's universe, has 80 MB.
const LIST_BYTES_MAX: usize = 512 << 20;

const DAY_SECONDS: i64 = 86_400;

pub(super) const COLLECTOR: Collector = Collector {
    name: "updates",
    about: "pending updates by apt's lists, automatic upgrades, apt's settings",
    reads: &[
        STATUS,
        "/var/lib/apt/lists/*_{InRelease,Release,Packages,Packages.lz4}",
        "/var/lib/apt/periodic/update-stamp",
        "/var/lib/apt/periodic/update-success-stamp",
        CONFIG,
        "/etc/apt/apt.conf.d/*",
        UNATTENDED,
    ],
    families: &["debian", "ubuntu"],
    patterns: &[
        FactPattern::closed("updates", Shape::Map, "updates"),
        FactPattern::closed(
            "updates.pending",
            Shape::List,
            "packages with a newer version, by name",
        ),
        FactPattern::closed(
            "updates.pending[].name",
            Shape::Text,
            "package; name:arch for a foreign one",
        ),
        FactPattern::closed(
            "updates.pending[].installed",
            Shape::Text,
            "installed version",
        ),
        FactPattern::closed(
            "updates.pending[].candidate",
            Shape::Text,
            "version apt would install",
        ),
        FactPattern::closed(
            "updates.pending[].security",
            Shape::Bool,
            "a newer one is a security update",
        ),
        FactPattern::closed(
            "updates.pending[].held",
            Shape::Bool,
            "held back by apt-mark hold",
        ),
        FactPattern::closed(
            "updates.lists_present",
            Shape::Bool,
            "apt has package lists",
        ),
        FactPattern::closed(
            "updates.lists_age_days",
            Shape::Int,
            "whole days since apt last brought in anything new, or finished an update by timer",
        ),
        FactPattern::closed("updates.unattended", Shape::Map, "automatic upgrades"),
        FactPattern::closed(
            "updates.unattended.installed",
            Shape::Bool,
            "unattended-upgrade exists",
        ),
        FactPattern::closed(
            "updates.unattended.enabled",
            Shape::Bool,
            "APT::Periodic::Unattended-Upgrade is set and not 0, and APT::Periodic::Enable is not 0",
        ),
        FactPattern::closed("updates.apt_settings", Shape::Map, "apt.conf, by full name"),
        FactPattern::closed("updates.apt_settings[*]", Shape::Text, "value"),
        FactPattern::closed(
            "updates.apt_lists",
            Shape::Map,
            "lists of apt.conf, by full name",
        ),
        FactPattern::closed("updates.apt_lists[*]", Shape::List, "elements"),
        FactPattern::closed("updates.apt_lists[*][]", Shape::Text, "one element"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let entries = context.list(LISTS).known();
    let lists = entries.as_ref().map_err(Unknown::clone);
    let lists = lists.map(|entries| lists_of(entries.as_deref().unwrap_or_default()));
    let present = lists.as_ref().map(|lists| json!(!lists.is_empty()));
    let pending = lists.clone().and_then(|lists| pending(context, &lists));
    let settings = apt_settings(context);
    let setting =
        |of: fn(&Settings) -> Value| part(settings.as_ref().map(of).map_err(Unknown::clone));
    let installed = context.stat(UNATTENDED, Links::Follow).known();
    Ok(json!({
        "pending": part(pending),
        "lists_present": part(present.map_err(Unknown::clone)),
        "lists_age_days": part(lists.and_then(|lists| age_days(context, &lists))),
        "unattended": {
            "installed": part(installed.map(|stat| stat.is_some().into())),
            "enabled": setting(|settings| is_unattended(settings).into()),
        },
        "apt_settings": setting(|settings| settings.values.clone().into()),
        "apt_lists": setting(|settings| settings.lists.clone().into()),
    }))
}

/// A list of packages on the disk, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    name: String,
    /// Name of its Release file, when there is one.
    release: Option<String>,
    /// What follows the name of the release, without compression: `main_binary-amd64_Packages`.
    rest: String,
}

fn lists_of(entries: &[Entry]) -> Vec<List> {
    let files = || {
        entries
            .iter()
            .filter(|entry| entry.kind == Kind::File)
            .map(|entry| &entry.name)
    };
    // The signed form last, so that it counts where both are.
    let mut releases = BTreeMap::new();
    for end in ["_Release", "_InRelease"] {
        releases.extend(files().filter_map(|name| Some((name.strip_suffix(end)?, name))));
    }
    files()
        .filter_map(|name| {
            let end = name.rfind("_Packages")?;
            let tail = &name[end + "_Packages".len()..];
            if !tail.is_empty() && !tail.starts_with('.') {
                return None;
            }
            let plain = &name[..name.len() - tail.len()];
            let owner = releases
                .iter()
                .filter_map(|(prefix, file)| {
                    Some((plain.strip_prefix(prefix)?.strip_prefix('_')?, file))
                })
                .min_by_key(|(rest, _)| rest.len());
            Some(List {
                name: name.clone(),
                release: owner.map(|(_, file)| (*file).clone()),
                rest: owner.map_or(plain, |(rest, _)| rest).to_owned(),
            })
        })
        .collect()
}

fn pending(context: &Context<'_>, lists: &[List]) -> Result<Value, Unknown> {
    if lists.is_empty() {
        let detail = format!("{LISTS}: holds no list of packages");
        return Err(Unknown::new(Reason::Missing, detail));
    }
    let mut candidates = installed(context)?;
    let mut releases: BTreeMap<&str, Release> = BTreeMap::new();
    for list in lists {
        let absent = Release::absent();
        let release = match list.release.as_deref() {
            None => &absent,
            Some(name) => {
                if !releases.contains_key(name) {
                    let text = context.text(&format!("{LISTS}/{name}")).known()?;
                    releases.insert(name, Release::parse(&text.unwrap_or_default()));
                }
                &releases[name]
            }
        };
        read_list(context, list, release, &mut candidates)?;
    }
    Ok(candidates.pending())
}

fn installed(context: &Context<'_>) -> Result<Candidates, Unknown> {
    let mut candidates = Candidates::default();
    let mut malformed = None;
    let mut stanzas = Stanzas::new(|stanza| {
        if !candidates.install(stanza) {
            malformed.get_or_insert_with(|| stanza.package.clone());
        }
    });
    let read = context.stream(STATUS, STATUS_BYTES_MAX, &mut |piece| stanzas.take(piece));
    stanzas.finish();
    if read.known()?.is_none() {
        let detail = format!("{STATUS}: not there, and no other package database is known");
        return Err(Unknown::new(Reason::Unsupported, detail));
    }
    if let Some(package) = malformed {
        let detail = format!("{STATUS}: package `{package}` has no status");
        return Err(Unknown::new(Reason::Malformed, detail));
    }
    if candidates.is_empty() {
        let detail = format!("{STATUS}: names no installed package");
        return Err(Unknown::new(Reason::Malformed, detail));
    }
    Ok(candidates)
}

fn read_list(
    context: &Context<'_>,
    list: &List,
    release: &Release,
    candidates: &mut Candidates,
) -> Result<(), Unknown> {
    let path = format!("{LISTS}/{}", list.name);
    let malformed = |why: &str| Unknown::new(Reason::Malformed, format!("{path}: {why}"));
    let mut stanzas = Stanzas::new(|stanza| candidates.offer(stanza, release));
    let mut whole_bytes = None;
    let read = if let Some(reduced) = context.package_list(&path) {
        reduced.map(|reduced| {
            stanzas.take(&reduced.stanzas);
            whole_bytes = Some(reduced.whole_bytes);
        })
    } else if list.name.ends_with("_Packages") {
        context.stream(&path, LIST_BYTES_MAX, &mut |piece| stanzas.take(piece))
    } else if list.name.ends_with(".lz4") {
        let mut decoder = lz4_frame::Decoder::new();
        let mut decoded = Ok(());
        let read = context.stream(&path, LIST_BYTES_MAX, &mut |piece| {
            if decoded.is_ok() {
                decoded = decoder.take(piece, &mut |text| stanzas.take(text));
            }
        });
        if matches!(read, Found::Present(())) {
            decoded.and_then(|()| decoder.finish()).map_err(malformed)?;
        }
        read
    } else {
        return Err(Unknown::new(
            Reason::Unsupported,
            format!("{path}: lists are read plain or as .lz4"),
        ));
    };
    let read_bytes = stanzas.finish();
    let bytes = whole_bytes.unwrap_or(read_bytes);
    if read.known()?.is_none() {
        return Err(Unknown::new(
            Reason::Unreadable,
            format!("{path}: went away"),
        ));
    }
    match release.size(&list.rest) {
        Some(size) if size != bytes => Err(malformed(&format!(
            "holds {bytes} bytes, its Release file says {size}"
        ))),
        _ => Ok(()),
    }
}

/// By the newest of: the directory of the lists, which changes when a list is replaced; the Release
/// files, whose times are the server's; the stamps. An update by hand that finds nothing new leaves
/// none of these, so the lists may be fresher than they look, never staler.
fn age_days(context: &Context<'_>, lists: &[List]) -> Result<Value, Unknown> {
    if lists.is_empty() {
        let detail = format!("{LISTS}: holds no list of packages");
        return Err(Unknown::new(Reason::Missing, detail));
    }
    let releases = lists.iter().filter_map(|list| list.release.as_ref());
    let mut paths: Vec<String> = releases.map(|name| format!("{LISTS}/{name}")).collect();
    paths.push(LISTS.to_owned());
    paths.extend(STAMPS.map(str::to_owned));
    let mut newest = i64::MIN;
    for path in paths {
        if let Some(stat) = context.stat(&path, Links::Follow).known()? {
            newest = newest.max(stat.mtime_seconds);
        }
    }
    let now = i64::try_from(context.now_seconds()).unwrap_or(i64::MAX);
    let age = now.saturating_sub(newest).div_euclid(DAY_SECONDS);
    // A host whose clock went back has lists from the future: fresh, as far as it can tell.
    Ok(age.max(0).into())
}

fn apt_settings(context: &Context<'_>) -> Result<Settings, Unknown> {
    let mut settings = Settings::default();
    for entry in context.list(CONFIG_DIR).known()?.unwrap_or_default() {
        if is_config(&entry.name) && matches!(entry.kind, Kind::File | Kind::Link) {
            let path = format!("{CONFIG_DIR}/{}", entry.name);
            let text = context.text(&path).known()?;
            settings.apply(&path, &text.unwrap_or_default())?;
        }
    }
    let text = context.text(CONFIG).known()?;
    settings.apply(CONFIG, &text.unwrap_or_default())?;
    Ok(settings)
}

/// Names that apt takes: letters, digits, `_`, `-` and dots; no extension, or `.conf`.
fn is_config(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    name.chars()
        .all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter))
        && extension.is_none_or(|extension| extension == "conf")
}

fn is_unattended(settings: &Settings) -> bool {
    let is_on = |name| {
        settings
            .get(name)
            .map(|value| !matches!(value.trim(), "" | "0"))
    };
    is_on("APT::Periodic::Unattended-Upgrade").unwrap_or(false)
        && is_on("APT::Periodic::Enable").unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const PLAIN: &str = "deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages";
    const SECURITY: &str =
        "deb.debian.org_debian-security_dists_bookworm-security_main_binary-amd64_Packages";
    const INSTALLED: &str = "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 7.88.1-10+deb12u1\n\n\
        Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21\n";
    const OFFERED: &str = "Package: curl\nArchitecture: amd64\nVersion: 7.88.1-10+deb12u5\n";

    fn host(files: &[(&str, &str)]) -> Fixture {
        let host = Fixture::new(&[(STATUS, INSTALLED)]);
        for (name, text) in files {
            host.write(&format!("{LISTS}/{name}"), text.as_bytes());
        }
        host
    }

    fn reason(fact: &Value) -> Option<Reason> {
        Unknown::from_value(fact).map(|unknown| unknown.reason)
    }

    #[test]
    fn a_newer_version_in_the_security_list_is_a_pending_security_update() {
        let release = format!(
            "Label: Debian-Security\nSHA256:\n x {} main/binary-amd64/Packages\n",
            OFFERED.len()
        );
        let host = host(&[
            (
                PLAIN,
                "Package: curl\nArchitecture: amd64\nVersion: 7.88.1-10+deb12u1\n",
            ),
            (
                "deb.debian.org_debian_dists_bookworm_InRelease",
                "Label: Debian\n",
            ),
            (SECURITY, OFFERED),
            (
                "deb.debian.org_debian-security_dists_bookworm-security_InRelease",
                &release,
            ),
            (
                "deb.debian.org_debian_dists_bookworm_main_source_Sources",
                "Package: curl\nVersion: 99\n",
            ),
        ]);
        let fact = host.collect(&COLLECTOR);
        assert_eq!(
            fact["pending"],
            json!([{"name": "curl", "installed": "7.88.1-10+deb12u1", "candidate": "7.88.1-10+deb12u5",
                    "security": true, "held": false}])
        );
        assert_eq!(
            (&fact["lists_present"], &fact["lists_age_days"]),
            (&json!(true), &json!(0))
        );
    }

    /// Proves: RUL-4
    #[test]
    fn lists_that_are_missing_cut_or_in_another_form_are_never_no_updates() {
        let cut = "SHA256:\n x 99999 main/binary-amd64/Packages\n";
        for (files, expected) in [
            (vec![], Reason::Missing),
            (vec![("lock", ""), ("x_Packages_y", "")], Reason::Missing),
            (
                vec![
                    (PLAIN, OFFERED),
                    ("deb.debian.org_debian_dists_bookworm_InRelease", cut),
                ],
                Reason::Malformed,
            ),
            (vec![("a_Packages.gz", "\u{1f}")], Reason::Unsupported),
            (vec![("a_Packages.lz4", OFFERED)], Reason::Malformed),
            (vec![("a_Packages.lz4", "")], Reason::Malformed),
        ] {
            let fact = host(&files).collect(&COLLECTOR);
            assert_eq!(reason(&fact["pending"]), Some(expected), "{files:?}");
        }
        let bare = Fixture::new(&[("/var/lib/apt/lists/a_Packages", OFFERED)]);
        assert_eq!(
            reason(&bare.collect(&COLLECTOR)["pending"]),
            Some(Reason::Unsupported)
        );
        bare.write(STATUS, b"Package: curl\nVersion: 1\n");
        assert_eq!(
            reason(&bare.collect(&COLLECTOR)["pending"]),
            Some(Reason::Malformed)
        );
        bare.write(STATUS, b"\0\xff");
        assert_eq!(
            reason(&bare.collect(&COLLECTOR)["pending"]),
            Some(Reason::Malformed)
        );
    }

    #[test]
    fn a_list_belongs_to_the_release_with_the_longest_name() {
        let entry = |name: &str| Entry {
            name: name.to_owned(),
            kind: Kind::File,
        };
        let names = [
            "h_dists_a_InRelease",
            "h_dists_a_b_Release",
            "h_dists_a_b_main_binary-x_Packages.lz4",
            "flat_Packages",
            "h_dists_ab_Packages",
        ];
        let lists = lists_of(&names.map(entry));
        let found: Vec<_> = lists
            .iter()
            .map(|list| (list.release.as_deref(), list.rest.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (Some("h_dists_a_b_Release"), "main_binary-x_Packages"),
                (None, "flat_Packages"),
                (None, "h_dists_ab_Packages"),
            ]
        );
    }

    #[test]
    fn automatic_upgrades_are_on_only_when_apt_would_run_them() {
        let name = "/etc/apt/apt.conf.d/20auto-upgrades";
        let on = "APT::Periodic::Unattended-Upgrade \"1\";\n";
        for (files, expected) in [
            (vec![], false),
            (vec![(name, on)], true),
            (
                vec![(name, "APT::Periodic::Unattended-Upgrade \"0\";")],
                false,
            ),
            (
                vec![(name, on), (CONFIG, "APT::Periodic::Enable \"0\";")],
                false,
            ),
            (vec![("/etc/apt/apt.conf.d/20auto.dpkg-old", on)], false),
        ] {
            let fact = Fixture::new(&files).collect(&COLLECTOR);
            assert_eq!(
                fact["unattended"],
                json!({"installed": false, "enabled": expected}),
                "{files:?}"
            );
        }
    }
}
