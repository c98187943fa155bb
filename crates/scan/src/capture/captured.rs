//! A host as far as it was asked.
//!
//! Answers the collectors from what was brought home. A question that was not asked is noted and
//! answered `not_collected`; while guessing, with absent instead, so that a collector that stops at
//! the first unknown shows what it would ask behind it. What a guess led to is dropped, all but the
//! questions.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::question::{Program, WalkAsked, Wanted};
use crate::{
    collect::Progress,
    facts::{Reason, Unknown},
    target::{
        Command, Entry, Found, Links, OUTPUT_BYTES_MAX, PackageList, Ran, Stat, Target, Walk,
        Walked, unknown,
    },
};

/// Questions noted in one round. `/proc/sys` has some three thousand, a large `/etc` as many.
const WANTED_MAX: usize = 100_000;

/// Longer ones the system itself refuses.
const PATH_BYTES_MAX: usize = 4_095;

/// A file, or its beginning: when longer than `cut_at` bytes, there may be more.
#[derive(Clone, Debug)]
struct Content {
    found: Found<Vec<u8>>,
    cut_at: usize,
}

/// Everything the host has told.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) stats_keep: HashMap<String, Found<Stat>>,
    pub(super) stats_follow: HashMap<String, Found<Stat>>,
    pub(super) lists: HashMap<String, Found<Vec<Entry>>>,
    pub(super) links: HashMap<String, Found<String>>,
    contents: HashMap<String, Content>,
    pub(super) hashes: HashMap<String, Found<String>>,
    pub(super) package_lists: HashMap<String, Found<PackageList>>,
    pub(super) programs: HashMap<Program, Result<Ran, Unknown>>,
    pub(super) walk: Option<Result<Walked, Unknown>>,
}

impl Known {
    /// A content, or what came of a file of which at most `cut_at` bytes were asked for.
    pub(super) fn put(&mut self, path: &str, found: Found<Vec<u8>>, cut_at: usize) {
        self.contents
            .insert(path.to_owned(), Content { found, cut_at });
    }

    /// What came of a program. A capture names the one that it ran, which is one of several that do.
    fn ran(&self, program: &Program) -> Option<Result<Ran, Unknown>> {
        let is_it = |known: &Program| {
            known.args == program.args
                && known
                    .programs
                    .iter()
                    .all(|path| program.programs.contains(path))
        };
        if let Some(known) = self.programs.get(program) {
            return Some(known.clone());
        }
        let mut known = self.programs.iter().filter(|(known, _)| is_it(known));
        known.next().map(|(_, ran)| match ran {
            // The script looked for each of them, and names the first.
            Err(why) if why.reason == Reason::ToolMissing => {
                let names = program.programs.join(", ");
                Err(unknown(Reason::ToolMissing, &names, "not installed"))
            }
            ran => ran.clone(),
        })
    }

    pub(super) fn has_content(&self, path: &str) -> bool {
        self.contents.contains_key(path)
    }

    pub(super) fn content(&self, path: &str) -> Option<&Found<Vec<u8>>> {
        self.contents.get(path).map(|content| &content.found)
    }
}

#[derive(Debug, Default)]
pub(super) struct Captured {
    known: RwLock<Known>,
    wanted: Mutex<Wanted>,
    guessing: AtomicBool,
    /// Something was asked that is not known.
    missed: AtomicBool,
}

impl Captured {
    pub(super) fn known(&self) -> RwLockReadGuard<'_, Known> {
        // What a panic of a reader left behind is as good as before.
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn guess(&self, guessing: bool) {
        self.guessing.store(guessing, Ordering::Relaxed);
    }

    /// Whether something was missing since the last call.
    pub(super) fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    fn miss<T>(&self, object: &str, note: impl FnOnce(&mut Wanted)) -> Found<T> {
        self.missed.store(true, Ordering::Relaxed);
        let mut wanted = self.wanted();
        if wanted.len() < WANTED_MAX {
            note(&mut wanted);
        }
        if self.guessing.load(Ordering::Relaxed) {
            return Found::Absent;
        }
        not_collected(object).into()
    }

    fn answer<T: Clone>(
        &self,
        path: &str,
        from: fn(&Known) -> &HashMap<String, Found<T>>,
        note: fn(&mut Wanted) -> &mut BTreeSet<String>,
    ) -> Found<T> {
        if let Err(unknown) = askable(path) {
            return unknown.into();
        }
        if let Some(known) = from(&self.known()).get(path) {
            return known.clone();
        }
        self.miss(path, |wanted| {
            note(wanted).insert(path.to_owned());
        })
    }
}

pub(super) fn not_collected(object: &str) -> Unknown {
    unknown(Reason::NotCollected, object, "was not asked for")
}

/// A path that can stand in a script and means the same wherever the script runs.
fn askable(path: &str) -> Result<(), Unknown> {
    let is_askable = path.starts_with('/') && !path.contains('\0') && path.len() <= PATH_BYTES_MAX;
    if is_askable {
        Ok(())
    } else {
        let shown: String = path.chars().take(80).collect();
        Err(unknown(Reason::Unsupported, &shown, "no absolute path"))
    }
}

impl Target for Captured {
    fn stream(&self, path: &str, cap: usize, sink: &mut dyn FnMut(&[u8])) -> Found<()> {
        if let Err(unknown) = askable(path) {
            return unknown.into();
        }
        let long = || unknown(Reason::Truncated, path, format!("longer than {cap} bytes"));
        if let Some(content) = self.known().contents.get(path) {
            match &content.found {
                Found::Present(bytes) if bytes.len() > cap => return long().into(),
                Found::Present(bytes) if bytes.len() <= content.cut_at => {
                    sink(bytes);
                    return Found::Present(());
                }
                // Cut below what is wanted: more of it is asked for, or may not travel.
                Found::Present(_) if content.cut_at >= OUTPUT_BYTES_MAX => return long().into(),
                Found::Present(_) => {}
                Found::Absent => return Found::Absent,
                Found::Unknown(unknown) => return unknown.clone().into(),
            }
        }
        self.miss(path, |wanted| {
            let most = wanted.contents.entry(path.to_owned()).or_default();
            *most = (*most).max(cap.min(OUTPUT_BYTES_MAX));
        })
    }

    fn hash(&self, path: &str, cap: usize) -> Found<String> {
        if let Err(unknown) = askable(path) {
            return unknown.into();
        }
        if let Some(known) = self.known().hashes.get(path) {
            return known.clone();
        }
        self.miss(path, |wanted| {
            wanted.hashes.insert(path.to_owned(), cap);
        })
    }

    fn package_list(&self, path: &str) -> Option<Found<PackageList>> {
        Some(self.answer(
            path,
            |known| &known.package_lists,
            |wanted| &mut wanted.package_lists,
        ))
    }

    fn list(&self, dir: &str) -> Found<Vec<Entry>> {
        self.answer(dir, |known| &known.lists, |wanted| &mut wanted.lists)
    }

    fn stat(&self, path: &str, links: Links) -> Found<Stat> {
        match links {
            Links::Keep => self.answer(
                path,
                |known| &known.stats_keep,
                |wanted| &mut wanted.stats_keep,
            ),
            Links::Follow => self.answer(
                path,
                |known| &known.stats_follow,
                |wanted| &mut wanted.stats_follow,
            ),
        }
    }

    fn read_link(&self, path: &str) -> Found<String> {
        self.answer(path, |known| &known.links, |wanted| &mut wanted.links)
    }

    fn run(&self, command: &Command<'_>) -> Result<Ran, Unknown> {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let program = Program {
            programs: owned(command.programs),
            args: owned(command.args),
        };
        let name = program.programs.join(", ");
        if let Some(known) = self.known().ran(&program) {
            let ran = known?;
            if ran.stdout.len() > command.output_bytes_max {
                let cap = format!("printed more than {} bytes", command.output_bytes_max);
                return Err(unknown(Reason::Truncated, &name, cap));
            }
            return Ok(ran);
        }
        let missed: Found<()> = self.miss(&name, |wanted| {
            let cap = command.output_bytes_max.min(OUTPUT_BYTES_MAX);
            wanted.programs.insert(program, (command.deadline, cap));
        });
        drop(missed);
        Err(not_collected(&name))
    }

    fn walk(&self, walk: &Walk<'_>, _progress: &dyn Progress) -> Result<Walked, Unknown> {
        if let Some(known) = &self.known().walk {
            return known.clone();
        }
        let missed: Found<()> = self.miss("walk", |wanted| {
            wanted.walk = Some(WalkAsked {
                known_uids: walk.known_uids.to_vec(),
                known_gids: walk.known_gids.to_vec(),
                list_max: walk.list_max,
                deadline: walk.deadline,
            });
        });
        drop(missed);
        Err(not_collected("walk"))
    }
}
