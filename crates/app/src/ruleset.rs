//! The rules that a command works with: the built-in pack and the site's own.

use std::{collections::BTreeSet, path::Path};

use scan::{
    collect::Needs,
    rule::{Fault, Loaded, Pack, Rule, TestReport, lint, test_rules},
};
use world::RealDisk;

use crate::{config::Config, exit::Refusal};

/// Faults named in one error; the rest is counted.
const FAULTS_SHOWN: usize = 8;

pub(crate) struct Ruleset {
    pack: Pack,
    faults: Vec<Fault>,
}

impl Ruleset {
    /// Every rule, refused when one of them cannot be used: a rule that is silently left out is a
    /// check that silently does not happen.
    pub(crate) fn load(config: &Config, dir: Option<&Path>) -> Result<Self, Refusal> {
        Self::load_with_faults(config, dir)?.usable()
    }

    /// These rules, refused when one of them cannot be used.
    pub(crate) fn usable(self) -> Result<Self, Refusal> {
        if self.faults.is_empty() {
            return Ok(self);
        }
        let shown = self.faults.iter().take(FAULTS_SHOWN).map(Fault::to_string);
        let mut shown: Vec<String> = shown.collect();
        if self.faults.len() > FAULTS_SHOWN {
            shown.push(format!("and {} more", self.faults.len() - FAULTS_SHOWN));
        }
        Err(Refusal::new(format!(
            "rules that cannot be used:\n  {}",
            shown.join("\n  ")
        ))
        .next("mend them; `holdfast rules lint` lists every fault"))
    }

    /// The rules of one directory and nothing else, for whoever is writing them.
    pub(crate) fn only(dir: &Path) -> Result<Self, Refusal> {
        let Loaded { pack, faults } = load_dir(dir)?;
        Ok(Self { pack, faults })
    }

    /// The rules that can be used, and what is wrong with the others.
    pub(crate) fn load_with_faults(config: &Config, dir: Option<&Path>) -> Result<Self, Refusal> {
        let Loaded {
            mut pack,
            mut faults,
        } = Pack::embedded();
        let dir = dir.or(config.scan_rules_dir.value.as_deref());
        if let Some(dir) = dir {
            let own = load_dir(dir)?;
            faults.extend(own.faults);
            // The built-in pack is linted by the tests of this program; the site's rules are by this.
            faults.extend(lint(&own.pack.rules));
            let joined = pack.join(own.pack);
            faults.extend(joined.faults);
            pack = joined.pack;
        }
        Ok(Self { pack, faults })
    }

    /// Whatever can be read, to put titles beside what was recorded. Never to judge: a site's rules
    /// may be broken today, and the past is still to be told.
    pub(crate) fn known(config: &Config) -> Self {
        Self::load_with_faults(config, None).unwrap_or_else(|_| {
            let Loaded { pack, faults } = Pack::embedded();
            Self { pack, faults }
        })
    }

    pub(crate) fn all(&self) -> &[Rule] {
        &self.pack.rules
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Rule> {
        self.pack.find(id)
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs::of(self.all())
    }

    /// Everything wrong with the rules, by file.
    pub(crate) fn lint(&self) -> Vec<String> {
        let found = lint(self.all());
        let all: BTreeSet<String> = self
            .faults
            .iter()
            .chain(&found)
            .map(Fault::to_string)
            .collect();
        all.into_iter().collect()
    }

    pub(crate) fn test(&self) -> TestReport {
        test_rules(self.all())
    }
}

fn load_dir(dir: &Path) -> Result<Loaded, Refusal> {
    let refuse = |error| {
        Refusal::new(format!("rules directory {}", dir.display()))
            .source(error)
            .next("name a directory of rule files")
    };
    let path = std::path::absolute(dir).map_err(refuse)?;
    Pack::load(&RealDisk, &path).map_err(refuse)
}
