//! Planted bugs: the product is built with each of them in turn, and the simulation has to find it.
//!
//! A bug is a replacement of text, listed in `mutants.toml`: the product has no switches for them. A
//! text that is not found exactly once is an error, so that the list follows the source.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use world::{Disk, RealDisk};

use super::{
    breach::Checker,
    campaign::{self, Summary},
};

/// What has to be there to build this program.
const PARTS: [&str; 5] = ["proof", "replica", "store", "wal", "world"];

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    /// Of docs/protocol/replication.md or promotion.md.
    rule: String,
    file: String,
    from: String,
    to: String,
    /// Who may find it.
    found_by: Vec<Checker>,
    /// How many seeds it may take.
    seeds: u64,
}

fn list() -> Vec<Mutant> {
    let list: Result<List, _> = toml::from_str(include_str!("mutants.toml"));
    list.expect("a test reads it").mutant
}

impl Mutant {
    /// The source with the bug in it.
    fn planted(&self, source: &str) -> Result<String, String> {
        let found = source.matches(&self.from).count();
        if found != 1 || self.from == self.to {
            let (name, file) = (&self.name, &self.file);
            return Err(format!("{name}: its text is found {found} times in {file}"));
        }
        Ok(source.replacen(&self.from, &self.to, 1))
    }
}

pub(crate) fn run(root: &Path, only: &str) -> io::Result<ExitCode> {
    let copy = tempfile::Builder::new()
        .prefix("holdfast-mutants-")
        .tempdir()?;
    let copy = copy.path();
    for part in PARTS {
        let part = Path::new("crates").join(part);
        copy_tree(&root.join(&part), &copy.join(&part))?;
    }
    for file in ["Cargo.lock", "Cargo.toml"] {
        let text = fs::read_to_string(root.join(file))?;
        // The product itself is not there.
        let text = text.replace(r#"default-members = ["crates/app"]"#, "");
        RealDisk.replace(&copy.join(file), text.as_bytes())?;
    }
    let target = target()?;
    let mutants = list();
    let chosen = mutants.iter().filter(|mutant| mutant.name.contains(only));
    println!("| Planted bug | Rule | Found by | After seeds |");
    println!("|---|---|---|---|");
    let mut missed = 0;
    for mutant in chosen {
        let file = copy.join(&mutant.file);
        let source = fs::read_to_string(&file)?;
        let planted = mutant.planted(&source).map_err(io::Error::other)?;
        RealDisk.replace(&file, planted.as_bytes())?;
        let ended = simulate(copy, &target, mutant.seeds);
        RealDisk.replace(&file, source.as_bytes())?;
        let verdict = verdict(mutant, &ended?);
        missed += u64::from(verdict.is_err());
        let (Ok(words) | Err(words)) = verdict;
        println!("| {} | {} | {words} |", mutant.name, mutant.rule);
    }
    println!("{missed} not found");
    Ok(ExitCode::from(u8::from(missed > 0)))
}

/// The last columns of the table.
fn verdict(mutant: &Mutant, ended: &Summary) -> Result<String, String> {
    let Some(broken) = &ended.broken else {
        return Err(format!("NOBODY | {} |", mutant.seeds));
    };
    let words = format!("{:?} | {}", broken.checker, broken.seed);
    if mutant.found_by.contains(&broken.checker) {
        Ok(words)
    } else {
        Err(format!("{words}, NOT BY {:?}", mutant.found_by))
    }
}

/// Beside this program's own target directory, so that the next run finds the crates built.
fn target() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    let own = program.ancestors().nth(2);
    let own = own.ok_or_else(|| io::Error::other("this program lies at the root"))?;
    Ok(own.join("mutants"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "builds the product with a bug, and runs it"
)]
fn simulate(copy: &Path, target: &Path, seeds: u64) -> io::Result<Summary> {
    let build = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--offline",
            "--profile",
            "sim",
            "--package",
            "proof",
        ])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", "--allow warnings")
        // Built once for each bug: what is saved in building is more than what is lost in running.
        .env("CARGO_PROFILE_SIM_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_SIM_DEBUG", "false")
        .env("CARGO_PROFILE_SIM_INCREMENTAL", "true")
        .status()?;
    if !build.success() {
        return Err(io::Error::other("a planted bug does not compile"));
    }
    let worker = Command::new(target.join("sim/proof"))
        .args([
            "sim",
            "--worker",
            "--seed",
            "1",
            "--seeds",
            &seeds.to_string(),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    campaign::listen(worker)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            RealDisk.replace(&to, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Fewer would leave a rule of the protocol without one.
    const MUTANTS_MIN: usize = 20;

    #[test]
    fn every_planted_bug_has_its_place_in_the_source() {
        let root = crate::tree::workspace_root(&env::current_dir().unwrap()).unwrap();
        let mutants = list();
        assert!(mutants.len() >= MUTANTS_MIN, "{}", mutants.len());
        let names: BTreeSet<&str> = mutants.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names.len(), mutants.len());
        for mutant in &mutants {
            let source = fs::read_to_string(root.join(&mutant.file)).unwrap();
            let planted = mutant.planted(&source).unwrap();
            assert_ne!(planted, source, "{}", mutant.name);
            assert!(!mutant.found_by.is_empty(), "{}", mutant.name);
        }
    }

    /// What one of them is built of and is not copied makes each planted bug one that does not compile.
    #[test]
    fn every_crate_that_the_program_is_built_of_is_copied() {
        let root = crate::tree::workspace_root(&env::current_dir().unwrap()).unwrap();
        let all = fs::read_dir(root.join("crates")).unwrap();
        let all = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let all: Vec<String> = all.collect();
        for part in PARTS {
            let manifest = root.join("crates").join(part).join("Cargo.toml");
            let manifest: toml::Table =
                toml::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
            let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
            let tables = tables
                .into_iter()
                .filter_map(|name| manifest.get(name)?.as_table());
            for needed in tables.flat_map(|table| table.keys()) {
                let is_there = !all.contains(needed) || PARTS.contains(&needed.as_str());
                assert!(is_there, "{part} needs {needed}");
            }
        }
    }

    #[test]
    fn a_bug_whose_place_is_gone_or_not_the_only_one_is_refused() {
        let mutant = Mutant {
            name: "a".to_owned(),
            rule: String::new(),
            file: "b".to_owned(),
            from: "x".to_owned(),
            to: "y".to_owned(),
            found_by: Vec::new(),
            seeds: 1,
        };
        assert_eq!(mutant.planted("a x b").unwrap(), "a y b");
        assert!(mutant.planted("a b").is_err());
        assert!(mutant.planted("x x").is_err());
    }
}
