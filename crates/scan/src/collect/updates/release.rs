//! Release files of apt: whose list it is, and how long it must be.
//!
//! Signatures are not checked: apt did before it stored them, and what could replace the file could
//! replace anything. The length tells a list that was cut.

use std::collections::BTreeMap;

/// Priority that apt gives to the versions of a list, without pinning, as apt_preferences(5) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// `NotAutomatic`: 1, below what is installed.
    Never,
    /// `ButAutomaticUpgrades` as well: 100, as what is installed. Backports.
    Upgrades,
    /// 500.
    Normal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) security: bool,
    pub(super) priority: Priority,
    /// Bytes of the files it lists, without compression, by path with `_` for `/`: how apt names
    /// its lists.
    sizes: BTreeMap<String, u64>,
}

impl Release {
    /// Of a list that came without one.
    pub(super) fn absent() -> Self {
        Self {
            security: false,
            priority: Priority::Normal,
            sizes: BTreeMap::new(),
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut release = Self::absent();
        let (mut automatic, mut upgrades) = (true, false);
        let mut in_sums = false;
        for line in text.lines() {
            if let Some(entry) = line.strip_prefix(' ') {
                if in_sums {
                    release.sizes.extend(size_of(entry));
                }
                continue;
            }
            in_sums = line == "SHA256:" || line == "SHA512:";
            let Some((field, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim().to_ascii_lowercase();
            match field {
                "Label" | "Suite" | "Codename" => release.security |= is_security(&value),
                "NotAutomatic" => automatic = value != "yes",
                "ButAutomaticUpgrades" => upgrades = value == "yes",
                _ => {}
            }
        }
        release.priority = match (automatic, upgrades) {
            (true, _) => Priority::Normal,
            (false, true) => Priority::Upgrades,
            (false, false) => Priority::Never,
        };
        release
    }

    /// Bytes of the list whose name goes on with `rest` after the name of the release.
    pub(super) fn size(&self, rest: &str) -> Option<u64> {
        self.sizes.get(rest).copied()
    }
}

/// `Debian-Security`, `bookworm-security`, `jammy-security`, `jammy-apps-security`.
fn is_security(value: &str) -> bool {
    value.ends_with("-security")
}

fn size_of(entry: &str) -> Option<(String, u64)> {
    let mut words = entry.split_whitespace();
    let (_, size, path) = (words.next()?, words.next()?, words.next()?);
    path.ends_with("/Packages")
        .then(|| Some((path.replace('/', "_"), size.parse().ok()?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_and_backports_are_told_by_their_release() {
        for (text, security, priority) in [
            (
                "Label: Debian-Security\nSuite: oldstable-security\n",
                true,
                Priority::Normal,
            ),
            (
                "Label: Debian\nSuite: stable\nCodename: bookworm\n",
                false,
                Priority::Normal,
            ),
            (
                "Label: Ubuntu\nSuite: jammy-security\n",
                true,
                Priority::Normal,
            ),
            (
                "Suite: x-backports\nNotAutomatic: yes\nButAutomaticUpgrades: yes\n",
                false,
                Priority::Upgrades,
            ),
            (
                "Suite: experimental\nNotAutomatic: yes\n",
                false,
                Priority::Never,
            ),
            (
                "Description: not -security\n Label: x-security\n",
                false,
                Priority::Normal,
            ),
            ("", false, Priority::Normal),
            ("\0\u{1}: \u{fffd}\n :\n::", false, Priority::Normal),
        ] {
            let release = Release::parse(text);
            assert_eq!(
                (release.security, release.priority),
                (security, priority),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_are_those_of_the_plain_lists() {
        let text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nMD5Sum:\n a 1 main/binary-amd64/Packages\nSHA256:\n \
                    ab   2513441 main/binary-amd64/Packages\n cd 7 main/binary-amd64/Packages.xz\n x y main/binary-i386/Packages\n";
        let release = Release::parse(text);
        assert_eq!(release.size("main_binary-amd64_Packages"), Some(2_513_441));
        assert_eq!(release.size("main_binary-i386_Packages"), None);
        assert_eq!(release.sizes.len(), 1);
    }
}
