//! Which controls of a framework the rules name, and which rules name none.
//!
//! Counts what rules say of themselves. The frameworks' own lists of controls are not held here, so
//! nothing tells what part of a framework is covered.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    document::{Platform, Rule},
    lint::KNOWN_PLATFORMS,
};

/// A family of reference keys, as people call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Framework {
    Cis,
    Stig,
    Nist,
    Pci,
    Anssi,
}

impl Framework {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cis => "cis",
            Self::Stig => "stig",
            Self::Nist => "nist",
            Self::Pci => "pci",
            Self::Anssi => "anssi",
        }
    }

    /// Whether ids under `key` are controls of this framework for `platform`: a CIS benchmark is
    /// of one platform, the others are of all.
    fn speaks(self, key: &str, platform: &str) -> bool {
        match self {
            Self::Cis => key == cis_key(platform),
            Self::Stig => key == "stig",
            Self::Nist => key == "nist_800_53",
            Self::Pci => key == "pci_dss_4",
            Self::Anssi => key == "anssi_bp28",
        }
    }
}

/// `cis_ubuntu_22_04` for `ubuntu-22.04`.
fn cis_key(platform: &str) -> String {
    format!("cis_{}", platform.replace(['-', '.'], "_"))
}

/// What rules name of one framework.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    pub framework: Framework,
    pub platforms: Vec<PlatformCoverage>,
    pub controls: Vec<Control>,
    /// Ids of rules for one of the platforms that name no control for it.
    pub without: Vec<WithoutReference>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlatformCoverage {
    pub platform: String,
    pub rules: usize,
    pub rules_with_reference: usize,
    pub controls: usize,
}

/// One id and the rules that name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Reference key of the rules, e.g. `cis_debian_12`.
    pub reference: String,
    pub control: String,
    pub rules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WithoutReference {
    pub rule: String,
    pub platforms: Vec<String>,
}

/// Over every known platform and every further one of the rules, or over the one that is given.
pub fn coverage(rules: &[Rule], framework: Framework, platform: Option<&str>) -> Coverage {
    let mut controls: BTreeMap<(String, Natural), BTreeSet<String>> = BTreeMap::new();
    let mut without: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut platforms = Vec::new();
    for platform in chosen(rules, platform) {
        let mut named = BTreeSet::new();
        let (mut of_platform, mut with_reference) = (0, 0);
        for rule in rules.iter().filter(|rule| is_for(rule, &platform)) {
            of_platform += 1;
            let ids: Vec<(&str, &str)> = ids(rule, framework, &platform).collect();
            if ids.is_empty() {
                let list = without.entry(rule.id.clone()).or_default();
                list.push(platform.clone());
                continue;
            }
            with_reference += 1;
            for (key, id) in ids {
                named.insert((key.to_owned(), id.to_owned()));
                let control = (key.to_owned(), Natural(id.to_owned()));
                controls.entry(control).or_default().insert(rule.id.clone());
            }
        }
        platforms.push(PlatformCoverage {
            platform,
            rules: of_platform,
            rules_with_reference: with_reference,
            controls: named.len(),
        });
    }
    Coverage {
        framework,
        platforms,
        controls: controls
            .into_iter()
            .map(|((reference, control), rules)| Control {
                reference,
                control: control.0,
                rules: rules.into_iter().collect(),
            })
            .collect(),
        without: without
            .into_iter()
            .map(|(rule, platforms)| WithoutReference { rule, platforms })
            .collect(),
    }
}

fn chosen(rules: &[Rule], platform: Option<&str>) -> Vec<String> {
    if let Some(platform) = platform {
        return vec![platform.to_owned()];
    }
    let mut all: Vec<String> = KNOWN_PLATFORMS.map(str::to_owned).into();
    let own: BTreeSet<String> = rules
        .iter()
        .flat_map(|rule| &rule.platforms)
        .map(Platform::to_string)
        .filter(|name| !KNOWN_PLATFORMS.contains(&name.as_str()))
        .collect();
    all.extend(own);
    all
}

fn is_for(rule: &Rule, platform: &str) -> bool {
    rule.platforms
        .iter()
        .any(|named| named.to_string() == platform)
}

fn ids<'r>(
    rule: &'r Rule,
    framework: Framework,
    platform: &str,
) -> impl Iterator<Item = (&'r str, &'r str)> {
    rule.references
        .iter()
        .filter(move |(key, _)| framework.speaks(key, platform))
        .flat_map(|(key, ids)| ids.iter().map(move |id| (key.as_str(), id.as_str())))
}

/// Ids in the order people expect: 5.4.2 before 5.4.10, AC-3 before AC-17.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Natural(String);

impl Natural {
    fn parts(&self) -> Vec<(u64, &str)> {
        let is_digit = |letter: char| letter.is_ascii_digit();
        self.0
            .split(['.', '-', '(', ')'])
            .map(|part| {
                let digits = part.trim_start_matches(|letter| !is_digit(letter));
                let end = digits.find(|letter| !is_digit(letter));
                let number = digits[..end.unwrap_or(digits.len())].parse();
                (number.unwrap_or(0), part.trim_end_matches(is_digit))
            })
            .collect()
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |of: &Self| -> Vec<(String, u64)> {
            let parts = of.parts().into_iter();
            parts.map(|(n, text)| (text.to_owned(), n)).collect()
        };
        key(self).cmp(&key(other)).then(self.0.cmp(&other.0))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::KNOWN_FRAMEWORKS;

    fn rule(id: &str, platforms: &str, references: &str) -> Rule {
        let text = format!(
            "id: {id}\ntitle: t\ndescription: d\nrationale: r\nseverity: low\nplatforms: [{platforms}]\n\
             references: {{{references}}}\ncheck: {{fact: os.id, exists: true}}\nfix: {{summary: s}}\ntests: []\n"
        );
        Rule::parse(&text, id).unwrap()
    }

    fn rules() -> Vec<Rule> {
        vec![
            rule(
                "a",
                "debian-12, rhel-9",
                "cis_debian_12: ['5.10', '5.2'], nist_800_53: [AC-17, AC-3]",
            ),
            rule("b", "debian-12", "cis_debian_12: ['5.2']"),
            rule("c", "rhel-9, own-1", "cis_debian_12: ['9.9']"),
        ]
    }

    #[test]
    fn a_benchmark_is_of_its_own_platform_and_ids_are_in_natural_order() {
        let of = coverage(&rules(), Framework::Cis, Some("debian-12"));
        let controls: Vec<_> = of
            .controls
            .iter()
            .map(|one| (one.control.as_str(), one.rules.join(" ")))
            .collect();
        assert_eq!(controls, [("5.2", "a b".into()), ("5.10", "a".into())]);
        assert_eq!(of.without, []);
        assert_eq!(
            (
                of.platforms[0].rules,
                of.platforms[0].rules_with_reference,
                of.platforms[0].controls
            ),
            (2, 2, 2)
        );
        let of = coverage(&rules(), Framework::Cis, Some("rhel-9"));
        assert_eq!(of.controls, [], "an id of another platform's benchmark");
        let ids: Vec<_> = of.without.iter().map(|one| one.rule.as_str()).collect();
        assert_eq!(ids, ["a", "c"]);
    }

    #[test]
    fn without_a_platform_every_platform_counts_for_itself() {
        let of = coverage(&rules(), Framework::Nist, None);
        let names: Vec<_> = of.controls.iter().map(|one| one.control.as_str()).collect();
        assert_eq!(names, ["AC-3", "AC-17"]);
        let last = of.platforms.last().unwrap();
        assert_eq!((last.platform.as_str(), last.rules), ("own-1", 1));
        let c = of.without.iter().find(|one| one.rule == "c").unwrap();
        assert_eq!(c.platforms, ["rhel-9", "own-1"]);
    }

    #[test]
    fn every_known_framework_key_but_iso_belongs_to_one_framework() {
        use Framework::{Anssi, Cis, Nist, Pci, Stig};
        for key in KNOWN_FRAMEWORKS {
            let owners = [Cis, Stig, Nist, Pci, Anssi]
                .into_iter()
                .filter(|one| KNOWN_PLATFORMS.iter().any(|name| one.speaks(key, name)))
                .count();
            assert_eq!(owners, usize::from(key != "iso_27001_2022"), "{key}");
        }
    }
}
