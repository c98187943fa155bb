//! Where rules come from: the pack in the program, and a directory of a user's own.

use std::{borrow::Cow, collections::BTreeSet, io, path::Path};

use include_dir::{Dir, include_dir};
use world::{Disk, disk::EntryKind};

use super::{
    decode::Patterns,
    document::Rule,
    fault::{Fault, Place},
    yaml::FILE_BYTES_MAX,
};

static EMBEDDED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/rules");

/// Rules of one pack; ten times what anybody's benchmark has.
const RULES_MAX: usize = 10_000;
/// Directories below a pack: category and one more.
const LEVELS_MAX: u32 = 3;

/// Rules with unique ids, ordered by id.
#[derive(Clone, Debug, Default)]
pub struct Pack {
    pub rules: Vec<Rule>,
}

/// What a directory gave: the rules that are good, and what is wrong with the others.
#[derive(Debug, Default)]
pub struct Loaded {
    pub pack: Pack,
    pub faults: Vec<Fault>,
}

impl Pack {
    /// The pack that ships with the program.
    pub fn embedded() -> Loaded {
        let mut files = Vec::new();
        embedded_files(&EMBEDDED, &mut files);
        Self::of(files)
    }

    /// Every `.yaml` file below `dir`. Links are not followed: a rule that is one is a fault.
    ///
    /// # Errors
    /// `dir` cannot be listed. A file that cannot be read is a fault, not an error.
    pub fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Loaded> {
        let mut found = Found {
            files: Vec::new(),
            faults: Vec::new(),
        };
        found.directory(disk, dir, "", 0)?;
        let mut loaded = Self::of(found.files);
        loaded.faults.extend(found.faults);
        Ok(loaded)
    }

    /// This pack with the rules of another. An id that is in both is a fault: a rule never silently
    /// takes the place of another.
    pub fn join(mut self, other: Self) -> Loaded {
        self.rules.extend(other.rules);
        unique(self.rules, Vec::new())
    }

    pub fn find(&self, id: &str) -> Option<&Rule> {
        self.rules
            .binary_search_by(|rule| rule.id.as_str().cmp(id))
            .ok()
            .map(|at| &self.rules[at])
    }

    fn of(files: Vec<SourceFile>) -> Loaded {
        let (mut rules, mut faults) = (Vec::new(), Vec::new());
        let mut patterns = Patterns::default();
        for file in files {
            let parsed = match file.text {
                Cow::Borrowed(text) => Rule::parse_embedded(text, &file.name, &mut patterns),
                Cow::Owned(ref text) => Rule::parse_with(text, &file.name, &mut patterns),
            };
            match parsed {
                Ok(rule) if file.stem() != rule.id => {
                    let what = format!("the file is not named after its rule `{}`", rule.id);
                    let place = Place { line: 1, column: 1 };
                    faults.push(
                        Fault::at(place, what)
                            .next(format!("rename it to {}.yaml", rule.id))
                            .in_file(&file.name),
                    );
                }
                Ok(mut rule) => {
                    rule.category = file.category;
                    rules.push(rule);
                }
                Err(fault) => faults.push(fault),
            }
        }
        unique(rules, faults)
    }
}

fn unique(mut rules: Vec<Rule>, mut faults: Vec<Fault>) -> Loaded {
    // Stable, so of two rules with one id the first given stays.
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    let mut seen = BTreeSet::new();
    rules.retain(|rule| {
        let first = seen.insert(rule.id.clone());
        if !first {
            let what = format!("the id `{}` is taken by another rule", rule.id);
            faults.push(
                Fault::at(Place { line: 1, column: 1 }, what)
                    .next("choose another id")
                    .in_file(&rule.file),
            );
        }
        first
    });
    if rules.len() > RULES_MAX {
        let what = format!("the pack has {} rules, more than {RULES_MAX}", rules.len());
        faults.push(Fault::at(Place::default(), what));
        rules.truncate(RULES_MAX);
    }
    Loaded {
        pack: Pack { rules },
        faults,
    }
}

struct SourceFile {
    name: String,
    category: String,
    /// Borrowed from the program, or read from a disk.
    text: Cow<'static, str>,
}

impl SourceFile {
    fn stem(&self) -> &str {
        let name = self.name.rsplit('/').next().unwrap_or(&self.name);
        name.strip_suffix(".yaml").unwrap_or(name)
    }
}

fn embedded_files(dir: &'static Dir<'static>, into: &mut Vec<SourceFile>) {
    for file in dir.files() {
        let (Some(name), Some(text)) = (file.path().to_str(), file.contents_utf8()) else {
            continue;
        };
        if name.ends_with(".yaml") {
            let category = name
                .split_once('/')
                .map_or("", |(category, _)| category)
                .to_owned();
            into.push(SourceFile {
                name: name.to_owned(),
                category,
                text: Cow::Borrowed(text),
            });
        }
    }
    dir.dirs().for_each(|dir| embedded_files(dir, into));
}

struct Found {
    files: Vec<SourceFile>,
    faults: Vec<Fault>,
}

impl Found {
    fn directory(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        category: &str,
        level: u32,
    ) -> io::Result<()> {
        for entry in disk.list(dir)? {
            let path = dir.join(&entry.name);
            match entry.kind {
                EntryKind::Dir if level < LEVELS_MAX => {
                    let category = if level == 0 {
                        entry.name.as_str()
                    } else {
                        category
                    };
                    self.directory(disk, &path, category, level + 1)?;
                }
                EntryKind::File
                    if entry.name.ends_with(".yaml") && self.files.len() <= RULES_MAX =>
                {
                    let name = path.display().to_string();
                    match read(disk, &path) {
                        Ok(text) => self.files.push(SourceFile {
                            name,
                            category: category.to_owned(),
                            text: Cow::Owned(text),
                        }),
                        Err(error) => {
                            let what = format!("the rule file cannot be read: {error}");
                            self.faults
                                .push(Fault::at(Place::default(), what).in_file(&name));
                        }
                    }
                }
                EntryKind::File if !entry.name.ends_with(".yaml") => {}
                EntryKind::Other if !entry.name.ends_with(".yaml") => {}
                // A rule that is silently left out is a check that silently does not happen.
                kind => {
                    let what = match kind {
                        EntryKind::Dir => format!("a directory deeper than {LEVELS_MAX} levels"),
                        EntryKind::File => format!("a pack has at most {RULES_MAX} rules"),
                        EntryKind::Other => "a rule file is a link or no regular file".to_owned(),
                    };
                    let name = path.display().to_string();
                    self.faults
                        .push(Fault::at(Place::default(), what).in_file(&name));
                }
            }
        }
        Ok(())
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<String> {
    let len_max = u64::try_from(FILE_BYTES_MAX).expect("a constant below 2^64");
    let bytes = disk.read(path, len_max)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}
