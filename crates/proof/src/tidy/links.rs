//! Links of the documents that point into the tree.

use crate::tree::{Finding, Tree};

/// Every relative link leads to a file, and its fragment to a heading there.
pub(super) fn resolve(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts_ending(".md") {
        for (line, target) in targets(text) {
            if let Some(what) = broken(tree, path, &target) {
                findings.push(Finding::new(path, line, what));
            }
        }
    }
    findings
}

/// Lines of a document outside fenced blocks, numbered from 1.
pub(super) fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Targets of `[text](target)` and `[name]: target`, with their lines.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            if let Some(end) = rest.find(')') {
                targets.push((number, rest[..end].to_owned()));
            }
        }
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
        {
            targets.push((number, target.trim().to_owned()));
        }
    }
    targets
}

fn without_code(line: &str) -> String {
    let parts = line.split('`').enumerate();
    parts
        .map(|(index, part)| if index % 2 == 0 { part } else { "" })
        .collect()
}

fn broken(tree: &Tree, from: &str, target: &str) -> Option<String> {
    let target = target.split_whitespace().next()?;
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let file = match file {
        "" => from.to_owned(),
        file => match joined(from, file) {
            Some(file) => file,
            None => return Some(format!("link {target} leaves the tree")),
        },
    };
    if !tree.contains(&file) {
        return Some(format!("link {target} leads nowhere"));
    }
    let document = tree.text(&file).filter(|_| file.ends_with(".md"));
    let lost = |text: &str| !fragment.is_empty() && !anchors(text).contains(&fragment.to_owned());
    document
        .is_some_and(lost)
        .then(|| format!("link {target} leads to no heading"))
}

/// `target` seen from the directory of `from`; `None` above the root.
fn joined(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Names of the headings as forges make them: lower case, dashes for spaces, other signs gone.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then_some(title.strip_prefix(' ')?)
    });
    headings
        .map(|title| {
            let kept = title.trim().to_lowercase();
            let kept = kept.chars().filter_map(|char| match char {
                ' ' => Some('-'),
                '-' | '_' => Some(char),
                char => char.is_alphanumeric().then_some(char),
            });
            kept.collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, lines: &[usize]) {
        let tree = Tree::of(&[
            ("docs/a.md", text),
            (
                "docs/b.md",
                "# What is proved, and what not\n```\n# no heading\n```\n",
            ),
            ("README.md", "# Top\n"),
            ("crates/wal/src/lib.rs", ""),
        ]);
        let found: Vec<usize> = resolve(&tree).into_iter().map(|f| f.line).collect();
        assert_eq!(found, lines, "{text}");
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        check(
            "[b](b.md) [top](../README.md#top) [dir](../crates/wal)",
            &[],
        );
        check("# Here\n[here](#here) [x](https://x.org/y) <b@x.org>", &[]);
        check("[b](b.md#what-is-proved-and-what-not \"title\")", &[]);
        check("[r]: ../crates/wal/src/\n[b](./b.md)", &[]);
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        check("a\n[c](c.md)", &[2]);
        check("[up](../../x.md)", &[1]);
        check("[r]: c.md", &[1]);
        check("[b](b.md) [b](b.md#no-heading)", &[1]);
        check("[a](#gone)", &[1]);
    }

    #[test]
    fn what_is_code_is_no_link() {
        check("`[c](c.md)`\n```\n[c](c.md)\n```\n[c](c.md)", &[5]);
    }
}
