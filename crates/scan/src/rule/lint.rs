//! What is wrong with rules that parse: facts that no collector brings, operators that can never
//! read their fact, tests that prove nothing.

mod apply;
mod facts;

use std::collections::BTreeSet;

use super::{
    document::Rule,
    fault::{Fault, Place, suggestion},
};
use crate::judge::Outcome;

/// Systems whose facts the collectors know.
pub const KNOWN_PLATFORMS: [&str; 7] = [
    "debian-12",
    "debian-13",
    "ubuntu-22.04",
    "ubuntu-24.04",
    "rhel-8",
    "rhel-9",
    "rhel-10",
];

/// Frameworks whose ids a rule may name, with what an id must look like.
pub const KNOWN_FRAMEWORKS: [&str; 12] = [
    "nist_800_53",
    "cis_debian_12",
    "cis_debian_13",
    "cis_ubuntu_22_04",
    "cis_ubuntu_24_04",
    "cis_rhel_8",
    "cis_rhel_9",
    "cis_rhel_10",
    "anssi_bp28",
    "stig",
    "pci_dss_4",
    "iso_27001_2022",
];

/// Everything wrong with `rules`, file by file.
pub fn lint<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Vec<Fault> {
    let catalog = facts::Catalog::new(crate::collect::catalog());
    let mut faults = Vec::new();
    for rule in rules {
        let mut found = Findings {
            rule,
            faults: Vec::new(),
        };
        found.platforms();
        found.families();
        found.references();
        found.variables();
        found.tests();
        for (what, next) in apply::faults(rule) {
            found.add(rule.place_of("fix"), what, next);
        }
        for predicate in rule.predicates() {
            catalog.check(predicate, &mut |line, what, next| {
                found.add(Place { line, column: 1 }, what, next);
            });
        }
        faults.extend(found.faults);
    }
    faults
}

struct Findings<'r> {
    rule: &'r Rule,
    faults: Vec<Fault>,
}

impl Findings<'_> {
    fn add(&mut self, place: Place, what: String, next: String) {
        self.faults
            .push(Fault::at(place, what).next(next).in_file(&self.rule.file));
    }

    fn platforms(&mut self) {
        for platform in &self.rule.platforms {
            let name = format!("{}-{}", platform.id, platform.version);
            if !KNOWN_PLATFORMS.contains(&name.as_str()) {
                let next = suggestion(&name, &KNOWN_PLATFORMS);
                self.add(
                    self.rule.place_of("platforms"),
                    format!("unknown platform `{name}`"),
                    next,
                );
            }
        }
    }

    /// A fact that is about nothing on one of the rule's systems.
    fn families(&mut self) {
        let named: Vec<String> = self.collectors().iter().map(ToString::to_string).collect();
        for collector in crate::collect::list() {
            if collector.families.is_empty() || !named.iter().any(|one| one == collector.name) {
                continue;
            }
            let outside = self
                .rule
                .platforms
                .iter()
                .filter(|platform| !collector.families.contains(&platform.id.as_str()));
            let outside: Vec<String> = outside.map(ToString::to_string).collect();
            for platform in outside {
                let what = format!("`{}` brings nothing on {platform}", collector.name);
                let next =
                    format!("take {platform} out of `platforms`; it needs a rule of its own");
                self.add(self.rule.place_of("platforms"), what, next);
            }
        }
    }

    fn references(&mut self) {
        let place = self.rule.place_of("references");
        for (framework, ids) in &self.rule.references {
            if !KNOWN_FRAMEWORKS.contains(&framework.as_str()) {
                let next = suggestion(framework, &KNOWN_FRAMEWORKS);
                self.add(
                    place,
                    format!("unknown reference framework `{framework}`"),
                    next,
                );
            }
            for id in ids.iter().filter(|id| !plausible(framework, id)) {
                let next = "give the id alone, for example SC-7 or R12".to_owned();
                self.add(place, format!("`{id}` is no id of {framework}"), next);
            }
        }
    }

    fn variables(&mut self) {
        for name in self.rule.unused_variables() {
            let next = "use it as {var: NAME} or remove it".to_owned();
            self.add(
                self.rule.place_of("variables"),
                format!("the variable `{name}` is not used"),
                next,
            );
        }
    }

    fn tests(&mut self) {
        let place = self.rule.place_of("tests");
        let mut names = BTreeSet::new();
        for test in self.rule.tests() {
            if !names.insert(test.name.as_str()) {
                let place = Place {
                    line: test.line,
                    column: 1,
                };
                self.add(
                    place,
                    format!("two tests are called `{}`", test.name),
                    "rename one".to_owned(),
                );
            }
        }
        for (expect, example) in [
            (Outcome::Pass, "facts as they should be"),
            (Outcome::Fail, "facts as they should not be"),
        ] {
            if !self.rule.tests().iter().any(|test| test.expect == expect) {
                self.add(
                    place,
                    format!("no test expects `{expect}`"),
                    format!("add one with {example}"),
                );
            }
        }
        let named: BTreeSet<&str> = self.collectors();
        let missing = self.rule.tests().iter().any(|test| {
            test.expect == Outcome::NotAssessed
                && named.iter().any(|name| !test.facts.contains_key(*name))
        });
        if !missing {
            let what = "no test expects `not_assessed` because a fact is missing".to_owned();
            self.add(
                place,
                what,
                "add {name: not collected, facts: {}, expect: not_assessed}".to_owned(),
            );
        }
    }

    fn collectors(&self) -> BTreeSet<&str> {
        let mut named = BTreeSet::new();
        for predicate in self.rule.predicates() {
            predicate.for_each_selector(&mut |selector| named.extend(selector.collector()));
        }
        named
    }
}

fn plausible(framework: &str, id: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match framework {
        // AC-6 or AC-6(10).
        "nist_800_53" => id.split_once('-').is_some_and(|(family, number)| {
            let (control, enhancement) =
                match number.strip_suffix(')').and_then(|n| n.split_once('(')) {
                    Some((control, enhancement)) => (control, Some(enhancement)),
                    None => (number, None),
                };
            family.len() == 2
                && family.bytes().all(|b| b.is_ascii_uppercase())
                && digits(control)
                && enhancement.is_none_or(digits)
        }),
        "anssi_bp28" => id.strip_prefix('R').is_some_and(|rest| {
            digits(rest)
                || ["+", "-"]
                    .iter()
                    .any(|mark| rest.strip_suffix(mark).is_some_and(digits))
        }),
        "pci_dss_4" => id.split('.').all(digits),
        cis if cis.starts_with("cis_") => id.split('.').all(digits),
        _ => !id.trim().is_empty(),
    }
}
