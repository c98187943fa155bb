//! Which logs are rotated, and how, from logrotate.conf(5) and what it includes.

use serde_json::{Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape, part, rows};
use crate::{
    facts::{Reason, Unknown},
    target::{Kind, Links},
};

const PROGRAMS: [&str; 2] = ["/usr/sbin/logrotate", "/sbin/logrotate"];
const MAIN: &str = "/etc/logrotate.conf";

/// Files altogether: one that includes itself ends here. Far above any real tree.
const FILES_MAX: usize = 2_000;
const DEPTH_MAX: usize = 8;

/// Extensions that logrotate leaves out of an included directory by default, as its manual page
/// lists them.
const TABOO: [&str; 16] = [
    "~",
    ",v",
    ".bak",
    ".cfsaved",
    ".disabled",
    ".dpkg-bak",
    ".dpkg-del",
    ".dpkg-dist",
    ".dpkg-new",
    ".dpkg-old",
    ".dpkg-tmp",
    ".rpmnew",
    ".rpmorig",
    ".rpmsave",
    ".swp",
    ".ucf-dist",
];

pub(super) const COLLECTOR: Collector = Collector {
    name: "logrotate",
    about: "logrotate's configuration",
    reads: &[
        "/usr/sbin/logrotate",
        "/sbin/logrotate",
        MAIN,
        "/etc/logrotate.d/*",
        "what it includes",
    ],
    privilege: Privilege::Partly("files closed to others"),
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("logrotate", Shape::Map, "log rotation"),
        FactPattern::closed("logrotate.installed", Shape::Bool, "logrotate exists"),
        FactPattern::closed(
            "logrotate.settings",
            Shape::List,
            "directives in order, without the scripts",
        ),
        FactPattern::closed("logrotate.settings[].file", Shape::Text, "where it stands"),
        FactPattern::closed(
            "logrotate.settings[].text",
            Shape::Text,
            "one directive, single blanks",
        ),
        FactPattern::closed(
            "logrotate.settings[].global",
            Shape::Bool,
            "outside of any block",
        ),
        FactPattern::closed(
            "logrotate.configured",
            Shape::List,
            "logs with a block, as written",
        ),
        FactPattern::closed("logrotate.configured[]", Shape::Text, "/var/log/apt/*.log"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut installed = false;
    for program in PROGRAMS {
        installed |= context.stat(program, Links::Follow).known()?.is_some();
    }
    let mut reader = Reader {
        context,
        files: 0,
        settings: Vec::new(),
        configured: Vec::new(),
    };
    let read = reader.file(MAIN, 0);
    let either = |list: Vec<Value>| part(read.clone().map(|()| list.into()));
    Ok(json!({
        "installed": installed,
        "settings": either(reader.settings),
        "configured": either(reader.configured),
    }))
}

struct Reader<'a> {
    context: &'a Context<'a>,
    files: usize,
    settings: Vec<Value>,
    configured: Vec<Value>,
}

impl Reader<'_> {
    fn file(&mut self, path: &str, depth: usize) -> Result<(), Unknown> {
        self.files += 1;
        if depth > DEPTH_MAX || self.files > FILES_MAX {
            let detail = format!("{path}: included too deeply or too often");
            return Err(Unknown::new(Reason::Truncated, detail));
        }
        let text = self.context.text(path).known()?.unwrap_or_default();
        for part in parts(&text) {
            rows::check(self.settings.len().max(self.configured.len()), path)?;
            match part {
                Part::Logs(patterns) => self
                    .configured
                    .extend(patterns.into_iter().map(Value::from)),
                Part::Directive { text, global } => match text.strip_prefix("include ") {
                    Some(included) => self.include(included.trim(), depth)?,
                    None => self
                        .settings
                        .push(json!({"file": path, "text": text, "global": global})),
                },
            }
        }
        Ok(())
    }

    fn include(&mut self, path: &str, depth: usize) -> Result<(), Unknown> {
        let is_dir = self.context.stat(path, Links::Follow).known()?;
        if is_dir.is_none_or(|stat| stat.kind != Kind::Dir) {
            return self.file(path, depth + 1);
        }
        for entry in self.context.list(path).known()?.unwrap_or_default() {
            let taboo =
                entry.name.starts_with('.') || TABOO.iter().any(|end| entry.name.ends_with(end));
            if !taboo && matches!(entry.kind, Kind::File | Kind::Link) {
                self.file(&format!("{path}/{}", entry.name), depth + 1)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Logs(Vec<String>),
    Directive { text: String, global: bool },
}

/// Patterns stand before a `{`, on its line or on lines above, and begin with a slash or a quote:
/// no directive does.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut patterns = Vec::new();
    let (mut in_block, mut in_script) = (false, false);
    for line in text.lines().map(str::trim) {
        if in_script {
            in_script = line != "endscript";
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut line = line;
        if !in_block && line.starts_with(['/', '"', '\'', '{']) {
            let (names, rest) = line
                .split_once('{')
                .map_or((line, None), |(names, rest)| (names, Some(rest)));
            patterns.extend(unquoted(names));
            let Some(rest) = rest else {
                continue;
            };
            parts.push(Part::Logs(std::mem::take(&mut patterns)));
            in_block = true;
            line = rest.trim();
        }
        let ends = in_block && line.ends_with('}');
        let directive = if ends {
            line.trim_end_matches('}')
        } else {
            line
        };
        let text = directive.split_whitespace().collect::<Vec<_>>().join(" ");
        in_script = [
            "prerotate",
            "postrotate",
            "firstaction",
            "lastaction",
            "preremove",
        ]
        .contains(&text.as_str());
        if !text.is_empty() {
            parts.push(Part::Directive {
                text,
                global: !in_block,
            });
        }
        in_block &= !ends;
    }
    parts
}

/// Names separated by blanks, quoted where they hold some.
fn unquoted(names: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = names.trim_start();
    while let Some(first) = rest.chars().next() {
        let quote = ['"', '\''].into_iter().find(|&quote| quote == first);
        let (name, after) = match quote {
            Some(quote) => rest[1..].split_once(quote).unwrap_or((&rest[1..], "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        found.push(name.to_owned());
        rest = after.trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn blocks_name_their_logs_and_scripts_are_no_directives() {
        let host = Fixture::new(&[
            ("/usr/sbin/logrotate", ""),
            (
                MAIN,
                "# x\nweekly\nrotate  4\ninclude /etc/logrotate.d\n/var/log/wtmp { monthly }\n",
            ),
            (
                "/etc/logrotate.d/rsyslog",
                "/var/log/syslog\n\"/var/log/a b\" '/var/log/c'\n{\n\trotate 7\n\tpostrotate\n\t\t/bin/x { }\n\tendscript\n}\ncompress\n",
            ),
            ("/etc/logrotate.d/x.dpkg-old", "/var/log/no { daily }\n"),
        ]);
        let line = |file: &str, text: &str, global: bool| json!({"file": file, "text": text, "global": global});
        let drop_in = "/etc/logrotate.d/rsyslog";
        let expected = json!({
            "installed": true,
            "settings": [
                line(MAIN, "weekly", true), line(MAIN, "rotate 4", true), line(drop_in, "rotate 7", false),
                line(drop_in, "postrotate", false), line(drop_in, "compress", true), line(MAIN, "monthly", false),
            ],
            "configured": ["/var/log/syslog", "/var/log/a b", "/var/log/c", "/var/log/wtmp"],
        });
        assert_eq!(host.collect(&COLLECTOR), expected);
    }

    #[test]
    fn noise_and_unfinished_blocks_do_not_panic() {
        for text in [
            "",
            "{",
            "}",
            "/a",
            "/a {",
            "'",
            "\"",
            "\0\u{1}",
            "/a {\npostrotate",
            "{}\n}}",
        ] {
            parts(text);
        }
        let host = Fixture::new(&[(MAIN, "include /etc/logrotate.conf\n")]);
        let unknown = Unknown::from_value(&host.collect(&COLLECTOR)["settings"]).unwrap();
        assert_eq!(unknown.reason, Reason::Truncated);
    }
}
