//! The configuration of rsyslog as lines, in the order in which it reads them.
//!
//! rsyslog has three languages in one file; rules look for lines. Files that `$IncludeConfig` and
//! `include(file="…")` name stand in place.

use serde_json::{Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape, globs, part, rows};
use crate::{
    facts::{Reason, Unknown},
    target::Links,
};

const PROGRAM: &str = "/usr/sbin/rsyslogd";
const MAIN: &str = "/etc/rsyslog.conf";

/// Files altogether: one that includes itself ends here. Far above any real tree.
const FILES_MAX: usize = 500;
const DEPTH_MAX: usize = 16;

pub(super) const COLLECTOR: Collector = Collector {
    name: "rsyslog",
    about: "rsyslog's configuration",
    reads: &[PROGRAM, MAIN, "/etc/rsyslog.d/*.conf", "what it includes"],
    privilege: Privilege::Partly("files closed to others"),
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("rsyslog", Shape::Map, "rsyslog"),
        FactPattern::closed(
            "rsyslog.installed",
            Shape::Bool,
            "/usr/sbin/rsyslogd exists",
        ),
        FactPattern::closed(
            "rsyslog.lines",
            Shape::List,
            "lines that are no comment, in order",
        ),
        FactPattern::closed("rsyslog.lines[].file", Shape::Text, "where it stands"),
        FactPattern::closed("rsyslog.lines[].text", Shape::Text, "without blanks around"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let installed = context.stat(PROGRAM, Links::Follow).known()?.is_some();
    let mut reader = Reader {
        context,
        files: 0,
        lines: Vec::new(),
    };
    let read = reader.file(MAIN, 0);
    let lines = part(read.map(|()| reader.lines.into()));
    Ok(json!({"installed": installed, "lines": lines}))
}

struct Reader<'a> {
    context: &'a Context<'a>,
    files: usize,
    lines: Vec<Value>,
}

impl Reader<'_> {
    fn file(&mut self, path: &str, depth: usize) -> Result<(), Unknown> {
        self.files += 1;
        if depth > DEPTH_MAX || self.files > FILES_MAX {
            let detail = format!("{path}: included too deeply or too often");
            return Err(Unknown::new(Reason::Truncated, detail));
        }
        let text = self.context.text(path).known()?.unwrap_or_default();
        for line in text.lines().map(without_comment) {
            if line.is_empty() {
                continue;
            }
            match included(line) {
                Some(pattern) => {
                    for path in globs::expand(self.context, &absolute(pattern))? {
                        self.file(&path, depth + 1)?;
                    }
                }
                None => {
                    self.lines.push(json!({"file": path, "text": line}));
                    rows::check(self.lines.len(), path)?;
                }
            }
        }
        Ok(())
    }
}

/// A comment after a statement stays: `#` may stand inside a template or an expression.
fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') { "" } else { line }
}

fn included(line: &str) -> Option<&str> {
    let word = |name: &str| {
        let begin = line.get(..name.len())?;
        begin
            .eq_ignore_ascii_case(name)
            .then(|| line[name.len()..].trim_start())
    };
    if let Some(pattern) = word("$IncludeConfig") {
        return pattern.split_whitespace().next();
    }
    let arguments = word("include")?.strip_prefix('(')?;
    let (_, value) = arguments.split_once("file=\"")?;
    value.split_once('"').map(|(pattern, _)| pattern)
}

fn absolute(pattern: &str) -> String {
    match pattern.strip_suffix('/') {
        // A directory means all of its files.
        Some(dir) => format!("{dir}/*"),
        None if pattern.starts_with('/') => pattern.to_owned(),
        None => format!("/etc/{pattern}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn included_lines_stand_where_they_are_included() {
        let host = Fixture::new(&[
            (PROGRAM, ""),
            (
                MAIN,
                "module(load=\"imuxsock\") # local\n\n# $IncludeConfig /etc/no\n$IncludeConfig /etc/rsyslog.d/*.conf\n$FileCreateMode 0640\ninclude(file=\"/etc/more/\" mode=\"optional\")\n",
            ),
            ("/etc/rsyslog.d/10.conf", "*.* @@logs.example:6514\n"),
            ("/etc/rsyslog.d/10.conf.bak", "*.* @evil\n"),
            ("/etc/more/x", "\tauth.* /var/log/auth.log\n"),
        ]);
        let line = |file: &str, text: &str| json!({"file": file, "text": text});
        let expected = json!({"installed": true, "lines": [
            line(MAIN, "module(load=\"imuxsock\") # local"),
            line("/etc/rsyslog.d/10.conf", "*.* @@logs.example:6514"),
            line(MAIN, "$FileCreateMode 0640"),
            line("/etc/more/x", "auth.* /var/log/auth.log"),
        ]});
        assert_eq!(host.collect(&COLLECTOR), expected);
    }

    #[test]
    fn a_loop_of_includes_is_truncated_and_noise_is_a_line() {
        let host = Fixture::new(&[(MAIN, "$IncludeConfig /etc/rsyslog.conf\n")]);
        let unknown = Unknown::from_value(&host.collect(&COLLECTOR)["lines"]).unwrap();
        assert_eq!(unknown.reason, Reason::Truncated);
        for line in [
            "\0é",
            "$IncludeConfi",
            "include(",
            "include(file=\"a",
            "$IncludeConfig",
        ] {
            assert_eq!(included(line), None, "{line:?}");
        }
    }
}
