//! What is to be asked in one round, and how it is put into few processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use super::shell::{paths, quote};

/// Paths of one batch. A batch that is cut by the cap of its section is asked again from there, so
/// this bounds what is asked twice.
const BATCH_MAX: usize = 2_000;

/// Files above this come alone, so that one of them does not push the others out of a batch.
pub(super) const BATCHED_BYTES_MAX: usize = 1 << 20;

/// Levels below a tree. Configuration has six, `/proc/sys` eight.
const TREE_DEPTH_MAX: usize = 16;

/// A program as a collector asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Program {
    pub(super) programs: Vec<String>,
    pub(super) args: Vec<String>,
}

/// Ids that have a name, and how long the walk may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WalkAsked {
    pub(super) known_uids: Vec<u32>,
    pub(super) known_gids: Vec<u32>,
    pub(super) list_max: usize,
    pub(super) deadline: Duration,
}

/// Questions, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stats_keep: BTreeSet<String>,
    pub(super) stats_follow: BTreeSet<String>,
    pub(super) lists: BTreeSet<String>,
    pub(super) trees: BTreeSet<String>,
    pub(super) links: BTreeSet<String>,
    /// With the most that is wanted of each.
    pub(super) contents: BTreeMap<String, usize>,
    pub(super) hashes: BTreeMap<String, usize>,
    /// Lists of apt.
    pub(super) package_lists: BTreeSet<String>,
    pub(super) programs: BTreeMap<Program, (Duration, usize)>,
    pub(super) walk: Option<WalkAsked>,
}

impl Wanted {
    pub(super) fn len(&self) -> usize {
        self.stats_keep.len()
            + self.stats_follow.len()
            + self.lists.len()
            + self.trees.len()
            + self.links.len()
            + self.contents.len()
            + self.hashes.len()
            + self.package_lists.len()
            + self.programs.len()
    }

    /// All of it in few processes. `alone` holds the files that a batch did not bring.
    pub(super) fn batches(&self, alone: &BTreeSet<String>) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut many = |asked: &mut dyn Iterator<Item = &String>,
                        batch: fn(Vec<String>) -> Batch| {
            let all: Vec<String> = asked.cloned().collect();
            batches.extend(all.chunks(BATCH_MAX).map(|part| batch(part.to_vec())));
        };
        many(&mut self.stats_keep.iter(), Batch::StatKeep);
        many(&mut self.stats_follow.iter(), Batch::StatFollow);
        many(&mut self.links.iter(), Batch::Links);
        many(&mut self.lists.iter(), Batch::Lists);
        many(&mut self.trees.iter(), Batch::Trees);
        let is_single = |path: &&String| !is_plain(path) || alone.contains(*path);
        many(
            &mut self.contents.keys().filter(|path| !is_single(path)),
            Batch::Contents,
        );
        let files = self.contents.iter().filter(|(path, _)| is_single(path));
        batches.extend(files.map(|(path, cap)| Batch::Content(path.clone(), *cap)));
        let mut by_cap: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (path, cap) in self.hashes.iter().filter(|(path, _)| is_plain(path)) {
            by_cap.entry(*cap).or_default().push(path.clone());
        }
        batches.extend(
            by_cap
                .into_iter()
                .map(|(cap, paths)| Batch::Hashes(paths, cap)),
        );
        batches.extend(self.package_lists.iter().cloned().map(Batch::PackageList));
        let programs = self.programs.iter();
        batches
            .extend(programs.map(|(program, (deadline, cap))| {
                Batch::Program(program.clone(), *deadline, *cap)
            }));
        batches
    }
}

/// What one section, or a few, answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    StatKeep(Vec<String>),
    StatFollow(Vec<String>),
    Links(Vec<String>),
    Lists(Vec<String>),
    Trees(Vec<String>),
    Contents(Vec<String>),
    Content(String, usize),
    Hashes(Vec<String>, usize),
    PackageList(String),
    Program(Program, Duration, usize),
}

/// The questions of a script, numbered from 1.
pub(super) fn questions(batches: &[Batch]) -> String {
    let mut script = String::new();
    for (index, batch) in batches.iter().enumerate() {
        let text = question(batch);
        // Writing to a string cannot fail.
        write!(script, "i={};{text}", index + 1).ok();
    }
    script
}

fn question(batch: &Batch) -> String {
    match batch {
        Batch::StatKeep(asked) => format!("E o s ''{};", paths(asked)),
        Batch::StatFollow(asked) => format!("E o s -L{};", paths(asked)),
        Batch::Links(asked) => format!("E o f -P 0{};", paths(asked)),
        Batch::Lists(asked) => format!("E o f -H 1{};", paths(asked)),
        Batch::Trees(asked) => format!("E o f -H {TREE_DEPTH_MAX}{};", paths(asked)),
        Batch::Contents(asked) => format!("K={BATCHED_BYTES_MAX};R{};", paths(asked)),
        Batch::Content(path, cap) => {
            format!("m=$M;M={};X {};M=$m;", cap.saturating_add(1), quote(path))
        }
        Batch::Hashes(asked, cap) => format!("K={cap};H{};", paths(asked)),
        Batch::PackageList(path) => format!("G {};", quote(path)),
        Batch::Program(program, deadline, cap) => {
            let words = program.programs.iter().chain(&program.args);
            let words: Vec<String> = words.map(|word| quote(word)).collect();
            format!(
                "m=$M;M={};C {} {} {};M=$m;",
                cap.saturating_add(1),
                deadline.as_secs().max(1),
                program.programs.len(),
                words.join(" ")
            )
        }
    }
}

/// Whether programs name the path in their complaints as it is, without quoting.
pub(super) fn is_plain(path: &str) -> bool {
    path.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._@:+,%-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_a_kind_are_one_batch_and_odd_names_come_alone() {
        let wanted = Wanted {
            stats_keep: ["/a", "/b"].map(str::to_owned).into(),
            contents: [("/c", 5), ("/d e", 6), ("/f", 7)]
                .map(|(path, cap)| (path.to_owned(), cap))
                .into(),
            ..Wanted::default()
        };
        let alone = BTreeSet::from(["/f".to_owned()]);
        assert_eq!(
            wanted.batches(&alone),
            [
                Batch::StatKeep(vec!["/a".into(), "/b".into()]),
                Batch::Contents(vec!["/c".into()]),
                Batch::Content("/d e".into(), 6),
                Batch::Content("/f".into(), 7),
            ]
        );
    }
}
