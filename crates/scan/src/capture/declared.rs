//! What collectors declare to read, as questions for the first round.
//!
//! Directories and trees only: a declared pattern says where a collector looks, and which files it
//! then reads it decides itself. So nothing is brought home that no collector would read.

use super::question::Wanted;

/// Alternatives of one declaration: `/{etc,run,usr/lib}/x`.
const ALTERNATIVES_MAX: usize = 64;

pub(super) fn ask<'a>(reads: impl IntoIterator<Item = &'a str>, wanted: &mut Wanted) {
    for declared in reads {
        if !declared.starts_with('/') {
            continue;
        }
        for pattern in alternatives(declared) {
            let Some(wild) = pattern.find(['*', '?', '[']) else {
                continue;
            };
            let Some(slash) = pattern[..wild].rfind('/') else {
                continue;
            };
            let dir = pattern[..slash.max(1)].to_owned();
            if pattern[wild..].starts_with("**") && dir.len() > 1 {
                wanted.trees.insert(dir);
            } else {
                wanted.lists.insert(dir);
            }
        }
    }
}

/// `/{a,b}/c` is `/a/c` and `/b/c`.
pub(super) fn alternatives(declared: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut open = vec![declared.to_owned()];
    while let Some(text) = open.pop() {
        let braces = text
            .find('{')
            .and_then(|begin| Some((begin, begin + text[begin..].find('}')?)));
        match braces {
            Some((begin, end)) if open.len() + done.len() < ALTERNATIVES_MAX => {
                let parts = text[begin + 1..end].split(',');
                open.extend(
                    parts.map(|part| format!("{}{part}{}", &text[..begin], &text[end + 1..])),
                );
            }
            _ => done.push(text),
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_asks_for_its_directory_or_its_tree() {
        let mut found = alternatives("/{etc,run}/x/{a,b}.conf");
        found.sort();
        assert_eq!(
            found,
            [
                "/etc/x/a.conf",
                "/etc/x/b.conf",
                "/run/x/a.conf",
                "/run/x/b.conf"
            ]
        );
        let mut wanted = Wanted::default();
        ask(
            crate::collect::list()
                .iter()
                .flat_map(|one| one.reads.iter().copied()),
            &mut wanted,
        );
        assert!(wanted.trees.contains("/proc/sys"), "{:?}", wanted.trees);
        assert!(wanted.trees.contains("/etc/systemd/system"));
        assert!(wanted.lists.contains("/etc/pam.d"), "{:?}", wanted.lists);
        assert!(wanted.lists.contains("/run/systemd"), "{:?}", wanted.lists);
        assert!(!wanted.lists.contains("/etc/passwd"));
    }
}
