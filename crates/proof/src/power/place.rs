//! Where in the product a sync is made, told from outside: by what is synced and what came before.
//!
//! Two calls in the source that sync the same kind of file at the same time of its life are one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use super::log::{Entry, SyncNumber, What};

/// Length of the random part of a temporary file's name, as the crate tempfile makes it.
const RANDOM_LEN: usize = 6;

/// Where stores are. Their syncs are made by the same code, whichever they are of.
const STORES: [&str; 2] = ["/data/load", "/data"];

/// Digits of a number in base 16 that is no word.
const HEX_LEN_MIN: usize = 8;

/// A place in words, the same in every run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(String);

/// How often a place was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) times: u64,
    /// How often the same file or directory was synced again before the process told anything: then
    /// nothing that was told hangs on the first of the two.
    pub(super) covered: u64,
    /// How often it was of a directory that this process made and put no name into: there was nothing
    /// to sync.
    pub(super) empty: u64,
}

/// What was done so far, as far as it tells places apart.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Syncs of each file that was made in this process.
    made: BTreeMap<u64, u32>,
    /// The last change of a name in each directory.
    changed: BTreeMap<PathBuf, String>,
    dirs_made: BTreeSet<PathBuf>,
}

impl Places {
    /// Takes in a call, and tells the place of it when it is a sync.
    pub(super) fn next(&mut self, what: &What) -> Option<(SyncNumber, Place)> {
        match what {
            What::Create { path, inode } => {
                self.made.insert(*inode, 0);
                self.change(path, format!("create {}", last(path)));
            }
            What::Rename { from, to } => {
                let words = format!("rename {} to {}", last(from), last(to));
                self.change(from, words.clone());
                self.change(to, words);
            }
            What::Unlink(path) => self.change(path, format!("unlink {}", last(path))),
            What::RemoveDir(path) => self.change(path, format!("rmdir {}", last(path))),
            What::MakeDir(path) => {
                self.dirs_made.insert(path.clone());
                self.change(path, format!("mkdir {}", last(path)));
            }
            What::Sync {
                path,
                inode,
                number,
                data_only,
            } => {
                if *data_only {
                    // Of a file that is written again and again: one place, however old it is.
                    let words = format!("fdatasync {}", shape(path));
                    return Some((*number, Place(words)));
                }
                let age = match self.made.get_mut(inode) {
                    None => "of an older file",
                    Some(count) => {
                        *count += 1;
                        match *count {
                            1 => "the first",
                            2 => "the second",
                            _ => "a later one",
                        }
                    }
                };
                let words = format!("fsync {}, {age}", shape(path));
                return Some((*number, Place(words)));
            }
            What::SyncDir { path, number } => {
                let after = self.changed.get(path).map_or("nothing", String::as_str);
                let dir = match path.to_str() {
                    Some("/") => "above the data directory".to_owned(),
                    Some("/data") => "the data directory".to_owned(),
                    _ => format!("./{}", shape(path)),
                };
                let words = format!("fsync {dir} after {after}");
                return Some((*number, Place(words)));
            }
            What::Open { .. }
            | What::Write { .. }
            | What::SetLen { .. }
            | What::Synced(_)
            | What::Told(_) => {}
        }
        None
    }

    /// Whether a sync of it could only be of a directory without names.
    fn is_empty(&self, what: &What) -> bool {
        let What::SyncDir { path, .. } = what else {
            return false;
        };
        self.dirs_made.contains(path) && !self.changed.contains_key(path)
    }

    fn change(&mut self, path: &Path, words: String) {
        let dir = path.parent().unwrap_or(path);
        self.changed.insert(dir.to_owned(), words);
    }
}

impl Met {
    pub(super) const fn add(&mut self, other: Self) {
        self.times += other.times;
        self.covered += other.covered;
        self.empty += other.empty;
    }
}

/// The places that a process met.
pub(super) fn survey(entries: &[Entry]) -> BTreeMap<Place, Met> {
    let mut places = Places::default();
    let mut met: BTreeMap<Place, Met> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Some((_, place)) = places.next(&entry.what) {
            met.entry(place).or_default().add(Met {
                times: 1,
                covered: u64::from(is_covered(entries, at)),
                empty: u64::from(places.is_empty(&entry.what)),
            });
        }
    }
    met
}

fn is_covered(entries: &[Entry], at: usize) -> bool {
    let mut again = None;
    for entry in &entries[at + 1..] {
        match (&entry.what, &entries[at].what) {
            (What::Told(_), _) => return false,
            (What::Synced(number), _) if again == Some(*number) => return true,
            (What::SyncDir { path, number }, What::SyncDir { path: first, .. })
                if path == first =>
            {
                again.get_or_insert(*number);
            }
            (What::Sync { inode, number, .. }, What::Sync { inode: first, .. })
                if inode == first =>
            {
                again.get_or_insert(*number);
            }
            _ => {}
        }
    }
    false
}

impl Place {
    pub(super) fn named(words: &str) -> Self {
        Self(words.to_owned())
    }

    pub(super) fn words(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn last(path: &Path) -> String {
    path.file_name()
        .map(|name| shape(Path::new(name)))
        .unwrap_or_default()
}

/// A path without what differs from run to run: numbers, and random parts.
fn shape(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut shape = String::new();
    let mut rest = STORES
        .iter()
        .find_map(|store| text.strip_prefix(store))
        .unwrap_or(&text)
        .trim_start_matches('/');
    while let Some(first) = rest.chars().next() {
        if let Some(random) = rest.strip_prefix(".tmp")
            && random.len() >= RANDOM_LEN
            && random
                .bytes()
                .take(RANDOM_LEN)
                .all(|it| it.is_ascii_alphanumeric())
        {
            shape.push_str(".tmp*");
            rest = &random[RANDOM_LEN..];
        } else if let hex = rest.bytes().take_while(u8::is_ascii_hexdigit).count()
            && hex >= HEX_LEN_MIN
        {
            shape.push('#');
            rest = &rest[hex..];
        } else if first.is_ascii_digit() {
            shape.push('#');
            rest = rest.trim_start_matches(|it: char| it.is_ascii_digit());
        } else {
            shape.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_of_a_directory_without_names_has_nothing_to_keep() {
        let dir = PathBuf::from("/data/tables/4/tables");
        let sync = What::SyncDir {
            path: dir.clone(),
            number: 1,
        };
        let mut places = Places::default();
        assert!(!places.is_empty(&sync), "names of an earlier process");
        places.next(&What::MakeDir(dir.clone()));
        assert!(places.is_empty(&sync));
        places.next(&What::Unlink(dir.join("7")));
        assert!(!places.is_empty(&sync));
    }

    #[test]
    fn a_sync_is_covered_by_another_before_anything_is_told() {
        let sync = |number| What::SyncDir {
            path: PathBuf::from("/j"),
            number,
        };
        let check = |whats: &[What], covered: u64| {
            let entry = |what: &What| Entry {
                what: what.clone(),
                injected: false,
                failed: false,
            };
            let entries: Vec<Entry> = whats.iter().map(entry).collect();
            let met = survey(&entries);
            let total: u64 = met.values().map(|met| met.covered).sum();
            assert_eq!(total, covered, "{whats:?}");
        };
        let (one, two) = (What::Synced(1), What::Synced(2));
        check(&[sync(1), one.clone(), sync(2), two.clone()], 1);
        check(&[sync(1), one.clone(), What::Told(0..0), sync(2), two], 0);
        check(&[sync(1), one, sync(2), What::Told(0..0)], 0);
    }

    #[test]
    fn a_place_is_the_same_in_every_run_and_tells_what_it_is_for() {
        let path = |text: &str| PathBuf::from(text);
        let sync = |at: &str, number| What::Sync {
            path: path(at),
            inode: 5,
            number,
            data_only: false,
        };
        let mut places = Places::default();
        let mut check = |what: What, expected: Option<&str>| {
            let place = places.next(&what).map(|(_, place)| place.0);
            assert_eq!(place.as_deref(), expected, "{what:?}");
        };
        let seg = "/j/00000000000000000042.seg";
        check(sync(seg, 1), Some("fsync j/#.seg, of an older file"));
        check(
            What::Create {
                path: path("/j/.tmpa1b2C3"),
                inode: 5,
            },
            None,
        );
        check(sync("/j/.tmpa1b2C3", 2), Some("fsync j/.tmp*, the first"));
        check(
            What::Rename {
                from: path("/j/.tmpa1b2C3"),
                to: path(seg),
            },
            None,
        );
        check(sync(seg, 3), Some("fsync j/#.seg, the second"));
        check(sync(seg, 4), Some("fsync j/#.seg, a later one"));
        check(
            What::SyncDir {
                path: path("/j"),
                number: 5,
            },
            Some("fsync ./j after rename .tmp* to #.seg"),
        );
        check(
            What::SyncDir {
                path: path("/"),
                number: 6,
            },
            Some("fsync above the data directory after nothing"),
        );
    }
}
