//! The source tree as it is judged: every file of the checkout that is not ignored, in memory.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Longer files are judged by their name only; no text of ours comes near it.
const TEXT_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Not part of the tree where there is no git to ask.
const NEVER_SOURCE: [&str; 2] = [".git", "target"];

/// Files by path relative to the root, with `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// `None`: not UTF-8, or longer than any text of ours.
    files: BTreeMap<String, Option<String>>,
}

/// Something wrong in the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// From 1; 0 for the whole file.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

impl Tree {
    /// The tracked files under `root` and those that are about to be; without git, all files.
    pub(crate) fn load(root: &Path) -> io::Result<Self> {
        let paths = match git_files(root) {
            Some(paths) => paths,
            None => walk(root)?,
        };
        let mut files = BTreeMap::new();
        for path in paths {
            match text_of(&root.join(&path)) {
                Ok(text) => {
                    files.insert(path, text);
                }
                // Tracked, removed, and not committed yet; or a link.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
            }
        }
        Ok(Self { files })
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned())));
        Self {
            files: files.collect(),
        }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// Texts whose name ends with `suffix`.
    pub(crate) fn texts_ending(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(move |(path, _)| path.ends_with(suffix))
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// Whether there is a file or a directory of this path.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let below = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self.paths().any(|file| file.starts_with(&below))
    }
}

/// The directory of the workspace: the nearest one upwards from `from` that holds one.
pub(crate) fn workspace_root(from: &Path) -> io::Result<PathBuf> {
    for dir in from.ancestors() {
        match fs::read_to_string(dir.join("Cargo.toml")) {
            Ok(manifest) if manifest.contains("[workspace]") => return Ok(dir.to_owned()),
            _ => {}
        }
    }
    let lost = format!("no workspace at or above {}", from.display());
    Err(io::Error::new(io::ErrorKind::NotFound, lost))
}

fn text_of(path: &Path) -> io::Result<Option<String>> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.len() > TEXT_LEN_MAX {
        return Ok(None);
    }
    Ok(String::from_utf8(fs::read(path)?).ok())
}

#[allow(
    clippy::disallowed_methods,
    reason = "this program exists to run others"
)]
fn git_files(root: &Path) -> Option<Vec<String>> {
    let output = std::process::Command::new("git")
        .current_dir(root)
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let listing = String::from_utf8(output.stdout).ok()?;
    let paths = listing.split('\0').filter(|path| !path.is_empty());
    Some(paths.map(str::to_owned).collect())
}

fn walk(root: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut open = vec![String::new()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = if dir.is_empty() {
                name.clone()
            } else {
                format!("{dir}/{name}")
            };
            if !entry.file_type()?.is_dir() {
                paths.push(path);
            } else if !NEVER_SOURCE.contains(&name.as_str()) {
                open.push(path);
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_git_every_file_but_build_output_is_part_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        for made in ["a", "a/target", ".git"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        let disk = world::RealDisk;
        for file in ["a/x.rs", "a/target/y.rs", ".git/config", "z.bin"] {
            let path = dir.path().join(file);
            let bytes: &[u8] = if file == "z.bin" { b"\xff" } else { b"text" };
            world::Disk::replace(&disk, &path, bytes).unwrap();
        }
        let mut paths = walk(dir.path()).unwrap();
        paths.sort();
        assert_eq!(paths, ["a/x.rs", "z.bin"]);
        assert_eq!(text_of(&dir.path().join("z.bin")).unwrap(), None);
    }

    #[test]
    fn a_directory_is_contained_by_the_files_below_it() {
        let tree = Tree::of(&[("docs/format/journal.md", "")]);
        for (path, contained) in [
            ("docs/format/journal.md", true),
            ("docs/format/", true),
            ("docs", true),
            ("doc", false),
            ("docs/format/journal", false),
        ] {
            assert_eq!(tree.contains(path), contained, "{path}");
        }
    }
}
