//! A directory that stands for a host, in tests.
#![allow(
    clippy::disallowed_methods,
    reason = "tests lay out a host's files; no seam of ours is under test here"
)]

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use serde_json::Value;
use world::RealClock;

use super::{Collector, Needs, collect_only};
use crate::target::{LocalTarget, Ran};

pub(crate) struct Fixture {
    root: tempfile::TempDir,
    commands: BTreeMap<String, Ran>,
    pub(crate) needs: Needs,
}

impl Fixture {
    /// A host with these files, by absolute path.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self {
            root: tempfile::tempdir().unwrap(),
            commands: BTreeMap::new(),
            needs: Needs::default(),
        };
        for (path, text) in files {
            fixture.write(path, text.as_bytes());
        }
        fixture
    }

    /// Where a path of the host lies on this machine.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn dir(&self, path: &str) {
        std::fs::create_dir_all(self.at(path)).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.at(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What the program prints; `line` is its first path and its arguments.
    pub(crate) fn prints(mut self, line: &str, status: i32, stdout: &str) -> Self {
        let ran = Ran {
            status: Some(status),
            stdout: stdout.into(),
            stderr: Vec::new(),
        };
        self.commands.insert(line.to_owned(), ran);
        self
    }

    pub(crate) fn target(&self) -> LocalTarget {
        let root = self.root.path().to_str().unwrap();
        LocalTarget::new(root, Arc::new(RealClock::new()))
            .unwrap()
            .with_commands(self.commands.clone())
    }

    /// The fact, or the marker `$unknown`, exactly as it would stand in a bundle.
    pub(crate) fn collect(&self, collector: &'static Collector) -> Value {
        let facts = collect_only(
            &[collector],
            Arc::new(self.target()),
            Arc::new(self.needs.clone()),
            Arc::new(()),
            Arc::new(RealClock::new()),
        );
        facts.facts[collector.name].clone()
    }
}

/// Takes all of a file of the host, and tells how long it may take for that.
pub(crate) static GREEDY: Collector = Collector {
    name: "greedy",
    reads: &["/etc/passwd"],
    collect: |context| {
        let seconds = context.time_left()?.as_secs();
        let text = context.text("/etc/passwd").known()?;
        Ok(serde_json::json!({"seconds": seconds, "text": text}))
    },
    ..Collector::DEFAULT
};

/// What [`GREEDY`] brought: the reason why nothing, or the seconds that it had.
pub(crate) fn greedy(facts: &crate::facts::Facts) -> Result<u64, crate::facts::Reason> {
    let fact = &facts.facts[GREEDY.name];
    match crate::facts::Unknown::from_value(fact) {
        Some(unknown) => Err(unknown.reason),
        None => Ok(fact["seconds"].as_u64().unwrap()),
    }
}
