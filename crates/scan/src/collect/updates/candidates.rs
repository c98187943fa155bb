//! Installed packages, and the versions that apt would put in their place.
//!
//! Without pinning, apt takes the newest version of the highest priority that is not a step back.
//! So: a newer version of an ordinary list; or one of a list like backports, where the installed
//! version came from no ordinary list itself.

use std::{cmp::Ordering, collections::BTreeMap};

use serde_json::{Value, json};

use super::{
    release::{Priority, Release},
    stanzas::Stanza,
};
use crate::version;

#[derive(Debug, Default)]
pub(super) struct Candidates {
    by_name: BTreeMap<String, Vec<Package>>,
    native: String,
}

#[derive(Debug)]
struct Package {
    arch: String,
    installed: String,
    held: bool,
    /// Some ordinary list has the installed version.
    is_ordinary: bool,
    /// The newest version above the installed one, by where it is offered.
    ordinary: Option<String>,
    upgrade: Option<String>,
    security: bool,
}

impl Candidates {
    /// Takes a stanza of dpkg's status. A package whose files are on the disk counts, configured or
    /// not. False when the stanza has no status of three words.
    pub(super) fn install(&mut self, stanza: &Stanza) -> bool {
        let words: Vec<&str> = stanza.status.split(' ').collect();
        let [wanted, _, state] = words[..] else {
            return false;
        };
        if stanza.package == "dpkg" {
            self.native.clone_from(&stanza.arch);
        }
        if !matches!(state, "not-installed" | "config-files" | "half-installed") {
            let packages = self.by_name.entry(stanza.package.clone()).or_default();
            packages.push(Package {
                arch: stanza.arch.clone(),
                installed: stanza.version.clone(),
                held: wanted == "hold",
                is_ordinary: false,
                ordinary: None,
                upgrade: None,
                security: false,
            });
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Takes a stanza of a list.
    pub(super) fn offer(&mut self, stanza: &Stanza, release: &Release) {
        if release.priority == Priority::Never {
            return;
        }
        let Some(packages) = self.by_name.get_mut(&stanza.package) else {
            return;
        };
        for package in packages {
            let replaces = package.arch == stanza.arch
                || stanza.arch == "all"
                || (package.arch == "all" && stanza.arch == self.native);
            if replaces {
                package.offer(&stanza.version, release);
            }
        }
    }

    /// What apt would upgrade, by name.
    pub(super) fn pending(&self) -> Value {
        let mut pending = Vec::new();
        for (name, packages) in &self.by_name {
            for package in packages {
                let Some(candidate) = package.candidate() else {
                    continue;
                };
                let name = if package.arch == self.native || package.arch == "all" {
                    name.clone()
                } else {
                    format!("{name}:{}", package.arch)
                };
                pending.push(json!({
                    "name": name, "installed": package.installed, "candidate": candidate,
                    "security": package.security, "held": package.held,
                }));
            }
        }
        pending.into()
    }
}

impl Package {
    fn offer(&mut self, offered: &str, release: &Release) {
        let is_ordinary = release.priority == Priority::Normal;
        match version::compare(offered, &self.installed) {
            Ordering::Less => {}
            Ordering::Equal => self.is_ordinary |= is_ordinary,
            Ordering::Greater => {
                self.security |= is_ordinary && release.security;
                let best = if is_ordinary {
                    &mut self.ordinary
                } else {
                    &mut self.upgrade
                };
                if best
                    .as_ref()
                    .is_none_or(|best| version::compare(offered, best).is_gt())
                {
                    *best = Some(offered.to_owned());
                }
            }
        }
    }

    fn candidate(&self) -> Option<&String> {
        match &self.ordinary {
            Some(ordinary) => Some(ordinary),
            None if self.is_ordinary => None,
            None => self.upgrade.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECURITY: &str = "Label: Debian-Security\n";
    const BACKPORTS: &str = "NotAutomatic: yes\nButAutomaticUpgrades: yes\n";
    const EXPERIMENTAL: &str = "NotAutomatic: yes\n";

    fn stanza(package: &str, arch: &str, version: &str, status: &str) -> Stanza {
        Stanza {
            package: package.to_owned(),
            version: version.to_owned(),
            arch: arch.to_owned(),
            status: status.to_owned(),
        }
    }

    /// Installed and offered as `name arch version`; offers with their Release file.
    fn check(
        installed: &[(&str, &str, &str)],
        offers: &[(&str, &str, &str, &str)],
        expected: &Value,
    ) {
        let mut candidates = Candidates::default();
        assert!(candidates.install(&stanza("dpkg", "amd64", "1", "install ok installed")));
        for (name, arch, version) in installed {
            assert!(candidates.install(&stanza(name, arch, version, "install ok installed")));
        }
        for (name, arch, version, release) in offers {
            candidates.offer(&stanza(name, arch, version, ""), &Release::parse(release));
        }
        let short: Vec<Value> = candidates
            .pending()
            .as_array()
            .unwrap()
            .iter()
            .map(|one| json!([one["name"], one["candidate"], one["security"]]))
            .collect();
        assert_eq!(Value::from(short), *expected, "{offers:?}");
    }

    #[test]
    fn the_newest_ordinary_version_is_the_candidate() {
        let curl = &[("curl", "amd64", "7.88.1-10+deb12u9")][..];
        check(curl, &[], &json!([]));
        check(
            curl,
            &[("curl", "amd64", "7.88.1-10+deb12u9", "")],
            &json!([]),
        );
        check(curl, &[("curl", "amd64", "7.88.1-10", "")], &json!([]));
        check(
            curl,
            &[
                ("curl", "amd64", "7.88.1-10+deb12u10", SECURITY),
                ("curl", "amd64", "7.88.1-10+deb12u12", ""),
                ("curl", "amd64", "7.88.1-10+deb12u11", ""),
                ("wget", "amd64", "9", SECURITY),
            ],
            &json!([["curl", "7.88.1-10+deb12u12", true]]),
        );
        check(
            curl,
            &[
                ("curl", "amd64", "7.88.1-10+deb12u8", SECURITY),
                ("curl", "amd64", "8", ""),
            ],
            &json!([["curl", "8", false]]),
        );
    }

    #[test]
    fn backports_upgrade_only_what_came_from_them() {
        let offers = &[
            ("a", "amd64", "2~bpo2", BACKPORTS),
            ("a", "amd64", "3", EXPERIMENTAL),
        ];
        check(
            &[("a", "amd64", "2~bpo1")],
            offers,
            &json!([["a", "2~bpo2", false]]),
        );
        let with_stable = [&[("a", "amd64", "1", "")][..], offers].concat();
        check(&[("a", "amd64", "1")], &with_stable, &json!([]));
        check(
            &[("a", "amd64", "2~bpo1")],
            &with_stable,
            &json!([["a", "2~bpo2", false]]),
        );
    }

    #[test]
    fn architectures_are_not_mixed_up() {
        let installed = &[("l", "amd64", "1"), ("l", "i386", "1"), ("d", "all", "1")];
        check(
            installed,
            &[("l", "i386", "2", ""), ("d", "i386", "2", "")],
            &json!([["l:i386", "2", false]]),
        );
        check(
            installed,
            &[("d", "amd64", "2", "")],
            &json!([["d", "2", false]]),
        );
        check(
            &[("l", "amd64", "1")],
            &[("l", "all", "2", "")],
            &json!([["l", "2", false]]),
        );
    }

    #[test]
    fn held_packages_are_marked_and_removed_ones_do_not_count() {
        let mut candidates = Candidates::default();
        for (name, status) in [
            ("held", "hold ok installed"),
            ("gone", "deinstall ok config-files"),
            ("open", "install ok half-configured"),
        ] {
            assert!(candidates.install(&stanza(name, "amd64", "1", status)));
            candidates.offer(&stanza(name, "amd64", "2", ""), &Release::absent());
        }
        let pending = candidates.pending();
        let held: Vec<_> = pending
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (&one["name"], &one["held"]))
            .collect();
        // Without dpkg itself no architecture is native.
        assert_eq!(
            held,
            [
                (&json!("held:amd64"), &json!(true)),
                (&json!("open:amd64"), &json!(false))
            ]
        );
        assert!(!candidates.install(&stanza("x", "amd64", "1", "installed")));
    }
}
