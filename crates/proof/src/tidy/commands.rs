//! The commands README shows: they can be read by a shell, and what they call exists.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    path::Path,
};

use crate::tree::{Finding, Tree};

/// What README may ask of cargo. Its own program names the subcommands of `cargo proof`.
const CARGO: [&str; 5] = ["bench", "build", "install", "run", "test"];

const README: &str = "README.md";

/// One simple command of a fenced `sh` block.
#[derive(Debug, PartialEq, Eq)]
struct Command {
    line: usize,
    words: Vec<String>,
}

/// README's commands are well formed, and cargo knows what it is asked for.
pub(super) fn readme(tree: &Tree) -> Vec<Finding> {
    let (commands, mut findings) = commands(tree.text(README).unwrap_or_default());
    for command in &commands {
        if let Some(what) = cargo_refuses(&command.words) {
            findings.push(Finding::new(README, command.line, what));
        }
    }
    findings
}

fn cargo_refuses(words: &[String]) -> Option<String> {
    let mut words = words.iter().map(String::as_str);
    if words.next() != Some("cargo") {
        return None;
    }
    match (words.next(), words.next()) {
        (Some("proof"), Some(word)) => {
            let known = crate::subcommands().iter().any(|name| name == word);
            (!known).then(|| format!("cargo proof has no {word}"))
        }
        (Some(word), _) if CARGO.contains(&word) => None,
        (word, _) => Some(format!("cargo {} is not expected here", word.unwrap_or(""))),
    }
}

/// Commands of the fenced `sh` blocks of a document, and the lines no shell would read.
fn commands(text: &str) -> (Vec<Command>, Vec<Finding>) {
    let mut commands = Vec::new();
    let mut findings = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if let Some(language) = trimmed.strip_prefix("```") {
            inside = !inside && language == "sh";
        } else if inside {
            match split(trimmed) {
                Some(parts) => commands.extend(parts.into_iter().map(|words| Command {
                    line: number,
                    words,
                })),
                None => findings.push(Finding::new(README, number, "a quote is not closed")),
            }
        }
    }
    (commands, findings)
}

/// Words of the simple commands of a line, redirections and assignments left out; `None` when a
/// quote is not closed.
fn split(line: &str) -> Option<Vec<Vec<String>>> {
    let mut commands = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    for char in line.chars().chain([' ']) {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (Some(_), _) => word.push(char),
            (None, '\'' | '"') => {
                quote = Some(char);
                // An empty pair of quotes is a word too.
                word.push('\u{200b}');
            }
            (None, '#') if word.is_empty() => break,
            (None, ' ' | '|' | ';' | '&') => {
                if !word.is_empty() {
                    let last = commands.last_mut().expect("starts with one");
                    last.push(word.replace('\u{200b}', ""));
                    word.clear();
                }
                if char != ' ' {
                    commands.push(Vec::new());
                }
            }
            (None, char) => word.push(char),
        }
    }
    if quote.is_some() {
        return None;
    }
    let simple = commands.into_iter().map(|words| {
        let bare = words
            .iter()
            .position(|word| word.starts_with('>') || word.starts_with('<'));
        let words = &words[..bare.unwrap_or(words.len())];
        let first = words.iter().position(|word| !is_assignment(word));
        words[first.unwrap_or(words.len())..].to_vec()
    });
    Some(simple.filter(|words| !words.is_empty()).collect())
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphabetic() || c == '_'))
}

/// A program whose help is asked for.
pub(crate) trait Program {
    /// What `words` followed by `--help` prints.
    fn help(&self, words: &[&str]) -> io::Result<String>;
}

/// The subcommands and long flags README uses that `program`, built from this tree, does not have.
pub(crate) fn readme_against(tree: &Tree, program: &dyn Program) -> io::Result<Vec<Finding>> {
    let (commands, _) = commands(tree.text(README).unwrap_or_default());
    let mut helps = BTreeMap::new();
    let mut findings = Vec::new();
    for command in &commands {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let Some(words) = of_holdfast(&words) else {
            continue;
        };
        if let Some(what) = program_refuses(program, words, &mut helps)? {
            findings.push(Finding::new(README, command.line, what));
        }
    }
    Ok(findings)
}

/// The arguments of a call of the product: `holdfast …` or `cargo run … -- …`.
fn of_holdfast<'a>(words: &'a [&'a str]) -> Option<&'a [&'a str]> {
    match words {
        [program, rest @ ..] if Path::new(program).file_name()?.to_str()? == "holdfast" => {
            Some(rest)
        }
        ["cargo", "run", rest @ ..] => {
            let at = rest.iter().position(|word| *word == "--")?;
            Some(&rest[at + 1..])
        }
        _ => None,
    }
}

fn program_refuses(
    program: &dyn Program,
    words: &[&str],
    helps: &mut BTreeMap<String, String>,
) -> io::Result<Option<String>> {
    let mut path: Vec<&str> = Vec::new();
    for word in words {
        let help = match helps.entry(called(&path)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(asked) => asked.insert(program.help(&path)?),
        };
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or(flag);
            if !flag.is_empty() && !has_flag(help, flag) {
                return Ok(Some(format!("{} has no --{flag}", called(&path))));
            }
        } else if !word.starts_with('-') {
            let known = subcommands(help);
            if known.contains(*word) {
                path.push(word);
            } else if !known.is_empty() {
                return Ok(Some(format!("{} has no {word}", called(&path))));
            }
        }
    }
    Ok(None)
}

fn called(path: &[&str]) -> String {
    ["holdfast"]
        .iter()
        .chain(path)
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
}

fn has_flag(help: &str, flag: &str) -> bool {
    let flag = format!("--{flag}");
    help.match_indices(&flag).any(|(at, _)| {
        let next = help[at + flag.len()..].chars().next();
        !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-')
    })
}

/// The first words of the lines under `Commands:` in a help text.
fn subcommands(help: &str) -> BTreeSet<&str> {
    let listed = help
        .lines()
        .skip_while(|line| line.trim_end() != "Commands:");
    listed
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        // Deeper lines continue a description.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Printed;

    impl Program for Printed {
        fn help(&self, words: &[&str]) -> io::Result<String> {
            let help = match words {
                [] => {
                    "Usage\n\nCommands:\n  scan  Looks\n        twice\n  rules  Shows\n\nOptions:\n  --quiet\n"
                }
                ["scan"] => "Usage\n\nOptions:\n      --facts-out <FILE>\n      --quiet\n",
                ["rules"] => "Commands:\n  list  Lists\n",
                ["rules", "list"] => "Options:\n",
                other => return Err(io::Error::other(format!("asked for {other:?}"))),
            };
            Ok(help.to_owned())
        }
    }

    fn readme_of(command: &str) -> Tree {
        Tree::of(&[(README, &format!("text\n```sh\n{command}\n```\n"))])
    }

    #[test]
    fn commands_are_found_in_sh_blocks_only_and_apart() {
        let text = "holdfast a\n```sh\nA=1 holdfast b \"c d\" > e # f\nholdfast g | holdfast h\n```\n```text\nholdfast i\n```\n";
        let (commands, findings) = commands(text);
        let words: Vec<String> = commands.iter().map(|c| c.words.join(",")).collect();
        assert_eq!(words, ["holdfast,b,c d", "holdfast,g", "holdfast,h"]);
        assert!(findings.is_empty());
    }

    #[test]
    fn a_command_no_shell_would_read_and_one_cargo_does_not_know_are_found() {
        for (command, expected) in [
            ("cargo run --release -- up", 0),
            ("cargo proof tidy", 0),
            ("cargo proof everything", 1),
            ("cargo frobnicate", 1),
            ("holdfast status --at \"$before", 1),
            ("before=$(date -u +%H)", 0),
        ] {
            assert_eq!(readme(&readme_of(command)).len(), expected, "{command}");
        }
    }

    #[test]
    fn a_subcommand_or_flag_the_program_does_not_have_is_found() {
        for (command, expected) in [
            ("holdfast scan --facts-out x.json", None),
            ("cargo run --release -- scan --quiet", None),
            ("./target/release/holdfast rules list", None),
            (
                "holdfast scan --facts",
                Some("holdfast scan has no --facts"),
            ),
            ("holdfast rules lint", Some("holdfast rules has no lint")),
            ("cargo run -- watch", Some("holdfast has no watch")),
            ("echo holdfast watch", None),
        ] {
            let found = readme_against(&readme_of(command), &Printed).unwrap();
            let what = found.first().map(|finding| finding.what.as_str());
            assert_eq!(what, expected, "{command}");
        }
    }
}
