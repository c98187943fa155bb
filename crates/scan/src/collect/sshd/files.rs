//! The files of sshd_config(5): which there are, and their `Match` blocks.

use serde_json::{Map, Value, json};

use crate::{
    collect::{Context, globs, rows},
    facts::{Reason, Unknown},
};

const MAIN: &str = "/etc/ssh/sshd_config";

/// sshd itself gives up at this depth of `Include`, so a file that includes itself ends here too.
const DEPTH_MAX: usize = 16;

/// Files altogether: a directory that includes itself from every file would double at each level.
const FILES_MAX: usize = 1_000;

/// All files in the order in which sshd reads them.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) match_blocks: Vec<Value>,
    pub(super) paths: Vec<Value>,
}

struct Block {
    criteria: String,
    settings: Map<String, Value>,
    file: String,
    line: usize,
}

/// # Errors
/// A file could not be read: it might hold a block that nobody saw.
pub(super) fn read(context: &Context<'_>) -> Result<Files, Unknown> {
    let mut reader = Reader {
        context,
        files: Files::default(),
    };
    reader.file(MAIN, "", 0)?;
    Ok(reader.files)
}

struct Reader<'a> {
    context: &'a Context<'a>,
    files: Files,
}

impl Reader<'_> {
    /// A `Match` inside an included file ends with that file, and holds only where the `Match`
    /// around the `Include` does.
    fn file(&mut self, path: &str, outer: &str, depth: usize) -> Result<(), Unknown> {
        if depth > DEPTH_MAX || self.files.paths.len() == FILES_MAX {
            let detail = format!("{path}: included too deeply or too often");
            return Err(Unknown::new(Reason::Truncated, detail));
        }
        let Some(text) = self.context.text(path).known()? else {
            return Ok(());
        };
        self.files.paths.push(path.into());
        let mut block: Option<Block> = (!outer.is_empty()).then(|| Block::new(outer, path, 1));
        for (index, line) in text.lines().enumerate() {
            let Some((key, value)) = directive(line) else {
                continue;
            };
            match key.as_str() {
                "match" => {
                    let criteria = [outer, &value].join(" ");
                    let next = Block::new(criteria.trim(), path, index + 1);
                    self.end(block.replace(next))?;
                }
                "include" => {
                    let around = block.as_ref().map_or("", |block| block.criteria.as_str());
                    self.include(&value, around, depth)?;
                }
                _ => {
                    if let Some(block) = &mut block {
                        block.settings.entry(key).or_insert_with(|| value.into());
                    }
                }
            }
        }
        self.end(block)
    }

    fn include(&mut self, patterns: &str, outer: &str, depth: usize) -> Result<(), Unknown> {
        for pattern in words(patterns) {
            let absolute = if pattern.starts_with('/') {
                pattern
            } else {
                format!("/etc/ssh/{pattern}")
            };
            for path in globs::expand(self.context, &absolute)? {
                self.file(&path, outer, depth + 1)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, block: Option<Block>) -> Result<(), Unknown> {
        if let Some(block) = block.filter(|block| !block.is_empty_tail()) {
            self.files.match_blocks.push(json!({
                "criteria": block.criteria, "settings": block.settings,
                "file": block.file, "line": block.line,
            }));
        }
        rows::check(self.files.match_blocks.len(), MAIN)
    }
}

impl Block {
    fn new(criteria: &str, file: &str, line: usize) -> Self {
        Self {
            criteria: criteria.to_owned(),
            settings: Map::new(),
            file: file.to_owned(),
            line,
        }
    }

    /// The part of an included file before its own first `Match` that sets nothing.
    fn is_empty_tail(&self) -> bool {
        self.settings.is_empty() && self.line == 1
    }
}

/// Keyword in lower case and what follows: `Key value`, `Key=value` or `Key "value"`.
fn directive(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line
        .find(|letter: char| letter.is_whitespace() || letter == '=')
        .unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let value = words(rest).join(" ");
    Some((key.to_ascii_lowercase(), value))
}

/// Arguments as sshd splits them: at white space outside of double quotes, up to a `#`.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '#' if !quoted && word.is_none() => break,
            space if space.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{fixture::Fixture, sshd::COLLECTOR};

    fn fact(files: &[(&str, &str)]) -> Value {
        let host = Fixture::new(files);
        host.write("/usr/sbin/sshd", b"an ELF file");
        host.collect(&COLLECTOR)
    }

    #[test]
    fn match_blocks_end_at_the_next_match_and_the_first_value_counts() {
        let fact = fact(&[(
            MAIN,
            "PermitRootLogin no\n# Match User x\nMatch User backup Address 10.0.0.0/8 # trusted\n\
             \tPasswordAuthentication=yes\n\tpasswordauthentication no\n\
             Match Group \"sftp only\"\n  ForceCommand \"internal-sftp\"\nmatch all\n",
        )]);
        assert_eq!(
            fact["match_blocks"],
            json!([
                {"criteria": "User backup Address 10.0.0.0/8",
                 "settings": {"passwordauthentication": "yes"}, "file": MAIN, "line": 3},
                {"criteria": "Group sftp only", "settings": {"forcecommand": "internal-sftp"},
                 "file": MAIN, "line": 6},
                {"criteria": "all", "settings": {}, "file": MAIN, "line": 8},
            ])
        );
    }

    #[test]
    fn included_files_are_read_in_order_and_their_match_ends_with_them() {
        let fact = fact(&[
            (
                MAIN,
                "Include sshd_config.d/*.conf\nPort 22\nMatch User a\nInclude /etc/inner\n",
            ),
            (
                "/etc/ssh/sshd_config.d/10.conf",
                "Match Host b\nX11Forwarding yes\n",
            ),
            ("/etc/ssh/sshd_config.d/20.conf", "PermitRootLogin yes\n"),
            (
                "/etc/ssh/sshd_config.d/30.bak",
                "Match User nobody\nPort 1\n",
            ),
            (
                "/etc/inner",
                "PermitTTY no\nMatch Address ::1\nBanner none\n",
            ),
        ]);
        assert_eq!(
            fact["config_files"],
            json!([
                MAIN,
                "/etc/ssh/sshd_config.d/10.conf",
                "/etc/ssh/sshd_config.d/20.conf",
                "/etc/inner"
            ])
        );
        let blocks: Vec<_> = fact["match_blocks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| (block["criteria"].as_str().unwrap(), &block["settings"]))
            .collect();
        assert_eq!(
            blocks,
            [
                ("Host b", &json!({"x11forwarding": "yes"})),
                ("User a", &json!({"permittty": "no"})),
                ("User a Address ::1", &json!({"banner": "none"})),
                ("User a", &json!({})),
            ]
        );
    }

    #[test]
    fn a_file_that_includes_itself_and_a_file_nobody_may_read_are_unknown() {
        let reason = |fact: Value| Unknown::from_value(&fact["match_blocks"]).unwrap().reason;
        let itself = fact(&[(MAIN, "Include /etc/ssh/sshd_config\n")]);
        assert_eq!(reason(itself), Reason::Truncated);
        let host = Fixture::new(&[(MAIN, "Include /etc/ssh/loop\n"), ("/usr/sbin/sshd", "")]);
        host.link("/etc/ssh/loop", "loop");
        assert_eq!(reason(host.collect(&COLLECTOR)), Reason::Unreadable);
    }

    #[test]
    fn noise_is_no_directive_and_no_panic() {
        for (line, expected) in [
            ("", None),
            ("  # x", None),
            ("Port", Some(("port", ""))),
            ("=", Some(("", ""))),
            ("Banner \"a b", Some(("banner", "a b"))),
            ("\u{0}\u{fffd} \"\"", Some(("\u{0}\u{fffd}", ""))),
        ] {
            let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(directive(line), expected, "{line:?}");
        }
    }
}
