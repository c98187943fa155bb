//! Sizes, names, headers, and what must not be left in a file.

use crate::{
    rust::{functions, is_test_path, is_word, layers, line_of, test_lines},
    tree::{Finding, Tree},
};

/// Beyond this a file owns more than one noun. House style; 500 is the aim.
const FILE_LINES_MAX: usize = 800;

/// A screen. House style, and clippy's threshold here.
const FUNCTION_LINES_MAX: usize = 70;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = [
    "common", "helper", "helpers", "manager", "managers", "util", "utils",
];

/// Too vague as the whole name of a file, fine as a part of one.
const VAGUE_NAMES: [&str; 3] = ["data", "info", "misc"];

/// Directories of one machine. A path below them works for nobody else.
const MACHINE_PATHS: [&str; 3] = ["/Users/", "/work/", "C:\\Users\\"];

/// Marks of unfinished work, allowed as `TODO when CONDITION`.
const MARKS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Sources written by hand, by the end of their names.
const SOURCES: [&str; 8] = [
    ".rs", ".toml", ".yaml", ".yml", ".sh", ".js", ".css", ".html",
];

/// Each file of a crate starts with what it owns.
pub(super) fn headers(tree: &Tree) -> Vec<Finding> {
    let sources = tree.texts_ending(".rs").filter(|(path, _)| {
        path.starts_with("crates/") && path.contains("/src/") && !is_test_path(path)
    });
    sources
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| Finding::new(path, 1, "no `//!` header that says what the file owns"))
        .collect()
}

pub(super) fn lengths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts() {
        let lines = text.lines().count();
        let code = [".rs", ".js", ".css"].iter().any(|end| path.ends_with(end));
        if code && lines > FILE_LINES_MAX {
            let what = format!("{lines} lines, more than {FILE_LINES_MAX}");
            findings.push(Finding::new(path, 0, what));
        }
        if !path.ends_with(".rs") {
            continue;
        }
        for function in functions(&layers(text).code) {
            if function.code_lines > FUNCTION_LINES_MAX && !function.may_be_long {
                let (name, lines) = (function.name, function.code_lines);
                let what = format!("{name} has {lines} lines, more than {FUNCTION_LINES_MAX}");
                findings.push(Finding::new(path, function.line, what));
            }
        }
    }
    findings
}

/// Sources and modules are named after what they own.
pub(super) fn names(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Other files may well be about a display manager.
    for path in tree.paths().filter(|path| path.ends_with(".rs")) {
        for part in path.split('/') {
            let stem = part.split('.').next().unwrap_or(part);
            if is_empty_name(stem) {
                findings.push(Finding::new(path, 0, format!("{stem} is not a name")));
            }
        }
    }
    for (path, text) in tree.texts_ending(".rs") {
        let code = layers(text).code;
        for (at, _) in code.match_indices("mod ") {
            let inside = code[..at].chars().next_back().is_some_and(is_word);
            let name: String = code[at + 4..].chars().take_while(|c| is_word(*c)).collect();
            if !inside && is_empty_name(&name) {
                let what = format!("{name} is not a name");
                findings.push(Finding::new(path, line_of(&code, at), what));
            }
        }
    }
    findings
}

fn is_empty_name(stem: &str) -> bool {
    let mut words = stem.split(['_', '-']);
    VAGUE_NAMES.contains(&stem) || words.any(|word| EMPTY_NAMES.contains(&word))
}

/// Work left unfinished, and tests that do not run.
pub(super) fn leftovers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sources = tree
        .texts()
        .filter(|(path, _)| SOURCES.iter().any(|end| path.ends_with(end)));
    for (path, text) in sources {
        let layers = path.ends_with(".rs").then(|| layers(text));
        let prose = layers.as_ref().map_or(text, |layers| &layers.comments);
        for (line, content) in (1..).zip(prose.lines()) {
            if let Some(mark) = MARKS.iter().find(|mark| left(content, mark)) {
                let what = format!("{mark} without the condition under which it is done");
                findings.push(Finding::new(path, line, what));
            }
        }
        let code = layers.as_ref().map_or("", |layers| &layers.code);
        for (needle, what) in [
            ("dbg!(", "a trace left in"),
            ("#[ignore", "a test that does not run proves nothing"),
        ] {
            for (at, _) in code.match_indices(needle) {
                findings.push(Finding::new(path, line_of(code, at), what));
            }
        }
    }
    findings
}

/// Whether the word `mark` stands in `line` without a condition behind it.
fn left(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let rest = &line[at + mark.len()..];
        let before = line[..at].chars().next_back();
        let word = !before.is_some_and(is_word) && !rest.chars().next().is_some_and(is_word);
        word && !rest.starts_with(" when ")
    })
}

/// Libraries say nothing on the standard output: it belongs to the commands.
pub(super) fn prints(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts_ending(".rs") {
        let Some((room, inside)) = path.strip_prefix("crates/").and_then(|p| p.split_once('/'))
        else {
            continue;
        };
        let library = tree.contains(&format!("crates/{room}/src/lib.rs"));
        if !library || !inside.starts_with("src/") {
            continue;
        }
        let code = layers(text).code;
        let tests = test_lines(path, &code);
        for needle in ["print!(", "println!("] {
            for (at, _) in code.match_indices(needle) {
                let line = line_of(&code, at);
                let inside_word = code[..at].chars().next_back().is_some_and(is_word);
                if !inside_word && !tests[line - 1] {
                    findings.push(Finding::new(path, line, "a library that prints"));
                }
            }
        }
    }
    findings
}

pub(super) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    // This file names them in order to look for them.
    let texts = tree
        .texts()
        .filter(|(path, _)| *path != "crates/proof/src/tidy/text.rs");
    for (path, text) in texts {
        for (line, content) in (1..).zip(text.lines()) {
            if let Some(found) = MACHINE_PATHS
                .iter()
                .find(|needle| starts_path(content, needle))
            {
                let what = format!("a path of one machine: {found}");
                findings.push(Finding::new(path, line, what));
            }
        }
    }
    findings
}

/// Whether `needle` begins a path in `line`, rather than continuing one or a URL.
fn starts_path(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| is_word(c) || matches!(c, '.' | '-' | '/' | '}' | ')'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str, lines: &[usize]) {
        let tree = Tree::of(&[(path, text), ("crates/wal/src/lib.rs", "//! Here.\n")]);
        let found: Vec<usize> = rule(&tree).into_iter().map(|f| f.line).collect();
        assert_eq!(found, lines, "{path}: {text}");
    }

    #[test]
    fn a_source_without_a_header_is_found() {
        check(headers, "crates/wal/src/a.rs", "//! Owns a.\n", &[]);
        check(headers, "crates/wal/src/a.rs", "use a;\n//! late\n", &[1]);
        check(headers, "crates/wal/src/a/tests.rs", "use a;\n", &[]);
        check(headers, "crates/wal/examples/a.rs", "use a;\n", &[]);
    }

    #[test]
    fn a_long_file_and_a_long_function_are_found() {
        let lines = "x;\n".repeat(FILE_LINES_MAX);
        check(lengths, "a.rs", &lines, &[]);
        check(lengths, "a.rs", &format!("{lines}x;\n"), &[0]);
        check(lengths, "a.md", &format!("{lines}x;\n"), &[]);
        let long = "    x;\n".repeat(FUNCTION_LINES_MAX + 1);
        let body = format!("\nfn long() {{\n{long}}}\n");
        check(lengths, "a.rs", &body, &[2]);
        let fitting = body.replacen("    x;\n", "    // comment\n\n", 1);
        check(lengths, "a.rs", &fitting, &[]);
        let allowed = format!("#[allow(clippy::too_many_lines, reason = \"a table\")]{body}");
        check(lengths, "a.rs", &allowed, &[]);
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for path in [
            "crates/wal/src/util.rs",
            "crates/wal/src/helpers/a.rs",
            "crates/wal/tests/test_helper.rs",
            "crates/wal/src/info.rs",
            "crates/common/src/lib.rs",
        ] {
            check(names, path, "", &[0]);
        }
        for path in [
            "crates/wal/src/data_dir.rs",
            "rules/display-manager.yaml",
            "a/utility.rs",
            "a/informed.rs",
        ] {
            check(names, path, "", &[]);
        }
        check(
            names,
            "a.rs",
            "\nmod utils {}\nmod common_steps {}\nmod sub;",
            &[2, 3],
        );
        check(names, "a.rs", "// mod utils\n", &[]);
    }

    #[test]
    fn unfinished_work_is_found_unless_it_names_its_condition() {
        check(leftovers, "a.rs", "a;\n// TODO: more\n", &[2]);
        check(
            leftovers,
            "a.rs",
            "// TODO when the format has a version 2: drop this\n",
            &[],
        );
        check(leftovers, "a.rs", "let a = \"TODO\";\n", &[]);
        check(leftovers, "a.toml", "# FIXME\n", &[1]);
        check(leftovers, "a.sh", "# TODOS and mktemp aXXXXXX\n", &[]);
        check(leftovers, "a.md", "no TODO left\n", &[]);
        check(leftovers, "a.rs", "fn a() {\n    dbg!(1);\n}\n", &[2]);
        check(
            leftovers,
            "a.rs",
            "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n",
            &[2],
        );
        check(leftovers, "a.rs", "// dbg!( and #[ignore are words\n", &[]);
    }

    #[test]
    fn a_library_that_prints_is_found() {
        let path = "crates/wal/src/a.rs";
        check(prints, path, "fn a() {\n    println!(\"x\");\n}\n", &[2]);
        check(prints, path, "fn a() { eprintln!(\"x\"); }\n", &[]);
        check(
            prints,
            path,
            "#[cfg(test)]\nmod tests {\n    println!();\n}\n",
            &[],
        );
        check(prints, "crates/app/src/main.rs", "println!();\n", &[]);
        check(prints, "crates/wal/examples/a.rs", "println!();\n", &[]);
    }

    #[test]
    fn a_path_of_one_machine_is_found_in_any_text() {
        for text in ["a\nsee /work/x", "a\n\"/Users/me\"", "a\n=C:\\Users\\me"] {
            check(machine_paths, "README.md", text, &[2]);
        }
        check(
            machine_paths,
            "a.md",
            "https://x.org/work/ ./work/ $(pwd)/work/",
            &[],
        );
    }
}
