//! OpenSSH's client configuration: every `Host` name without wildcards is a host.
//!
//! As `ssh` does it: the first value that any matching block gives wins, so that `Host *` at the end
//! gives defaults. `Match` blocks depend on more than a name and are left out.

use std::collections::BTreeSet;

use super::{At, Draft, Include, Read, Via, ini::words};
use crate::known_hosts::globbed;

/// As in OpenSSH.
const INCLUDE_DEPTH_MAX: usize = 16;
/// Files in all.
const FILES_MAX: usize = 256;
const BLOCKS_MAX: usize = 20_000;
/// Blocks times hosts: every name is held against every block.
const WORK_MAX: usize = 30_000_000;

struct Block {
    /// None: a `Match`, which never applies here.
    patterns: Option<Vec<String>>,
    values: Vec<(String, String, At)>,
}

struct Reader<'a, 'i> {
    blocks: Vec<Block>,
    names: Vec<(String, At)>,
    files: usize,
    include: &'a mut Include<'i>,
    read: &'a mut Read,
}

pub(super) fn read(file: &str, text: &str, include: &mut Include<'_>, read: &mut Read) {
    let mut reader = Reader {
        blocks: Vec::new(),
        names: Vec::new(),
        files: 0,
        include,
        read,
    };
    reader.file(file, text, &Some(vec!["*".to_owned()]), 0);
    let Reader { blocks, names, .. } = reader;
    if blocks.len().saturating_mul(names.len()) > WORK_MAX {
        let at = At {
            file: file.to_owned(),
            line: 0,
        };
        return read.refuse(&at, "too many hosts and blocks", "split the file");
    }
    let mut seen = BTreeSet::new();
    for (name, at) in names {
        if !seen.insert(name.clone()) {
            continue;
        }
        if let Some(draft) = draft(name, at, &blocks, read)
            && !read.draft(draft)
        {
            return;
        }
    }
}

impl Reader<'_, '_> {
    /// Lines before the first `Host` belong to the block that includes the file.
    fn file(&mut self, file: &str, text: &str, outer: &Option<Vec<String>>, depth: usize) {
        let mut patterns = outer.clone();
        self.block(patterns.clone());
        for (line, text) in (1..).zip(text.lines()) {
            let at = At {
                file: file.to_owned(),
                line,
            };
            let Some((keyword, arguments)) = self.split(text, &at) else {
                continue;
            };
            match keyword.as_str() {
                "host" => {
                    self.names_of(&arguments, &at);
                    patterns = Some(arguments);
                    self.block(patterns.clone());
                }
                "match" => {
                    self.read.remark(&at, "a Match block is left out", "");
                    patterns = None;
                    self.block(None);
                }
                "include" => {
                    for path in &arguments {
                        self.included(path, &patterns, &at, depth);
                    }
                    self.block(patterns.clone());
                }
                _ => {
                    let value = arguments.join(" ");
                    if let Some(block) = self.blocks.last_mut() {
                        block.values.push((keyword, value, at));
                    }
                }
            }
            if self.blocks.len() > BLOCKS_MAX {
                return;
            }
        }
    }

    fn block(&mut self, patterns: Option<Vec<String>>) {
        self.blocks.push(Block {
            patterns,
            values: Vec::new(),
        });
    }

    fn split(&mut self, text: &str, at: &At) -> Option<(String, Vec<String>)> {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let end = text
            .find(|c: char| c.is_whitespace() || c == '=')
            .unwrap_or(text.len());
        let (keyword, rest) = text.split_at(end);
        let rest = rest.trim_start().trim_start_matches('=').trim_start();
        match words(rest) {
            Some(arguments) if !arguments.is_empty() => {
                Some((keyword.to_ascii_lowercase(), arguments))
            }
            Some(_) => {
                let what = format!("`{}` without a value", keyword.escape_debug());
                self.read.refuse(at, what, "mend this line");
                None
            }
            None => {
                self.read
                    .refuse(at, "a quote is not closed", "mend this line");
                None
            }
        }
    }

    fn names_of(&mut self, patterns: &[String], at: &At) {
        let names = patterns
            .iter()
            .filter(|name| !name.contains(['*', '?', '!']));
        for name in names {
            if self.names.len() > super::HOSTS_MAX {
                return;
            }
            self.names.push((name.clone(), at.clone()));
        }
    }

    fn included(&mut self, path: &str, outer: &Option<Vec<String>>, at: &At, depth: usize) {
        if depth + 1 >= INCLUDE_DEPTH_MAX {
            return self.read.refuse(
                at,
                "Include too deep: files include each other",
                "mend this line",
            );
        }
        match (self.include)(path) {
            Ok(files) => {
                for (file, text) in files {
                    self.files += 1;
                    if self.files > FILES_MAX {
                        let what = format!("more than {FILES_MAX} files");
                        return self.read.refuse(at, what, "import them in parts");
                    }
                    self.file(&file, &text, outer, depth + 1);
                }
            }
            Err(fault) => {
                let what = format!("Include `{}`: {fault}", path.escape_debug());
                self.read
                    .refuse(at, what, "mend the path, or take the line out");
            }
        }
    }
}

fn draft(name: String, at: At, blocks: &[Block], read: &mut Read) -> Option<Draft> {
    let of_name: Vec<&Block> = blocks
        .iter()
        .filter(|block| {
            let patterns = block.patterns.as_deref();
            patterns.is_some_and(|patterns| matches(patterns, &name))
        })
        .collect();
    let first = |keyword: &str| {
        let mut values = of_name.iter().flat_map(|block| &block.values);
        values.find(|(key, ..)| key == keyword)
    };
    for keyword in ["proxyjump", "proxycommand"] {
        if let Some((_, value, at)) = first(keyword)
            && value != "none"
        {
            let what = format!(
                "host `{}` is reached through another host ({keyword})",
                name.escape_debug()
            );
            read.refuse(at, what, "run holdfast where it can be reached directly");
            return None;
        }
    }
    if let Some((_, file, at)) = first("identityfile") {
        let what = format!(
            "host `{}` logs in with {}",
            name.escape_debug(),
            file.escape_debug()
        );
        let next = "seal it: holdfast credential add NAME --user USER --key FILE";
        read.remark(at, what, next);
    }
    let value = |keyword| first(keyword).map(|(_, value, _)| value.clone());
    Some(Draft {
        via: Some(Via::Ssh),
        address: value("hostname").map(|text| text.replace("%h", &name).replace("%%", "%")),
        port: value("port"),
        user: value("user"),
        name,
        at,
        ..Draft::default()
    })
}

/// A negated pattern that matches rules the block out.
fn matches(patterns: &[String], name: &str) -> bool {
    let mut is_matched = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(not) if globbed(not, name) => return false,
            Some(_) => {}
            None => is_matched |= globbed(pattern, name),
        }
    }
    is_matched
}
