//! Who may become whom with sudo, from sudoers(5) and all it includes.
//!
//! One row for each user of a rule and each set of commands that share run-as and tags, in the
//! order of the files: the last row that fits decides. Aliases stay names. A line that does not
//! parse makes the rules and the defaults unknown, since it may be the one that grants everything.
//! Rules from LDAP or SSSD are not seen.

mod line;

use serde_json::{Value, json};

use self::line::{Setting, Statement};
use super::{Collector, Context, FactPattern, Privilege, Shape, part, rows};
use crate::{
    facts::{Reason, Unknown},
    target::{Kind, Links},
};

const MAIN: &str = "/etc/sudoers";

/// Files altogether; a file that includes itself ends here. Far above any real tree, and below the
/// depth (128) at which sudo gives up only in files that no host has.
const FILES_MAX: usize = 500;
const DEPTH_MAX: usize = 32;

pub(super) const COLLECTOR: Collector = Collector {
    name: "sudoers",
    about: "sudo: rules, defaults and aliases",
    reads: &[
        "/usr/bin/sudo",
        "/etc/sudoers",
        "/etc/sudoers.d/*",
        "what @include names",
    ],
    privilege: Privilege::Root,
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("sudoers", Shape::Map, "sudo"),
        FactPattern::closed("sudoers.installed", Shape::Bool, "/usr/bin/sudo exists"),
        FactPattern::closed(
            "sudoers.rules",
            Shape::List,
            "one row a user and a set of commands",
        ),
        FactPattern::closed(
            "sudoers.rules[].user",
            Shape::Text,
            "user, %group, +netgroup or alias",
        ),
        FactPattern::closed(
            "sudoers.rules[].hosts",
            Shape::Text,
            "hosts, joined with \", \"",
        ),
        FactPattern::closed(
            "sudoers.rules[].runas",
            Shape::Text,
            "ALL:ALL; empty when not given (root)",
        ),
        FactPattern::closed(
            "sudoers.rules[].tags",
            Shape::List,
            "tags in force for these commands",
        ),
        FactPattern::closed("sudoers.rules[].tags[]", Shape::Text, "NOPASSWD"),
        FactPattern::closed(
            "sudoers.rules[].commands",
            Shape::Text,
            "commands, joined with \", \"",
        ),
        FactPattern::closed(
            "sudoers.rules[].command_list",
            Shape::List,
            "the same commands",
        ),
        FactPattern::closed(
            "sudoers.rules[].command_list[]",
            Shape::Text,
            "one command with arguments",
        ),
        FactPattern::closed("sudoers.rules[].file", Shape::Text, "where it stands"),
        FactPattern::closed("sudoers.rules[].line", Shape::Int, "where it begins"),
        FactPattern::closed(
            "sudoers.defaults",
            Shape::List,
            "Defaults in order; a later one wins",
        ),
        FactPattern::closed(
            "sudoers.defaults[].scope",
            Shape::Text,
            "empty for all, else :user, @host, !command or >runas",
        ),
        FactPattern::closed("sudoers.defaults[].name", Shape::Text, "use_pty"),
        FactPattern::closed(
            "sudoers.defaults[].operator",
            Shape::Text,
            "=, += or -=; empty for a flag",
        ),
        FactPattern::closed(
            "sudoers.defaults[].value",
            Shape::Scalar,
            "text, or true and false for a flag",
        ),
        FactPattern::closed("sudoers.defaults[].file", Shape::Text, "where it stands"),
        FactPattern::closed("sudoers.aliases", Shape::List, "aliases, not expanded"),
        FactPattern::closed(
            "sudoers.aliases[].kind",
            Shape::Text,
            "user, runas, host or command",
        ),
        FactPattern::closed("sudoers.aliases[].name", Shape::Text, "ADMINS"),
        FactPattern::closed("sudoers.aliases[].members", Shape::List, "its members"),
        FactPattern::closed("sudoers.aliases[].members[]", Shape::Text, "one member"),
        FactPattern::closed("sudoers.aliases[].file", Shape::Text, "where it stands"),
        FactPattern::closed(
            "sudoers.includes",
            Shape::List,
            "files and directories included",
        ),
        FactPattern::closed("sudoers.includes[]", Shape::Text, "one path"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let installed = context
        .stat("/usr/bin/sudo", Links::Follow)
        .known()?
        .is_some();
    let mut reader = Reader {
        context,
        files: 0,
        rules: Vec::new(),
        defaults: Vec::new(),
        aliases: Vec::new(),
        includes: Vec::new(),
        malformed: None,
    };
    // Either a file nobody could read, or the first line nobody could: each may hold anything.
    let read = reader.file(MAIN, 0);
    let includes = part(read.clone().map(|()| reader.includes.into()));
    let understood = read.and_then(|()| reader.malformed.map_or(Ok(()), Err));
    let unless_unknown = |list: Vec<Value>| part(understood.clone().map(|()| list.into()));
    Ok(json!({
        "installed": installed,
        "rules": unless_unknown(reader.rules),
        "defaults": unless_unknown(reader.defaults),
        "aliases": unless_unknown(reader.aliases),
        "includes": includes,
    }))
}

struct Reader<'a> {
    context: &'a Context<'a>,
    files: usize,
    rules: Vec<Value>,
    defaults: Vec<Value>,
    aliases: Vec<Value>,
    includes: Vec<Value>,
    malformed: Option<Unknown>,
}

impl Reader<'_> {
    /// A file that is not there grants nothing: sudo says so and goes on.
    fn file(&mut self, path: &str, depth: usize) -> Result<(), Unknown> {
        self.files += 1;
        if depth > DEPTH_MAX || self.files > FILES_MAX {
            let detail = format!("{path}: included too deeply or too often");
            return Err(Unknown::new(Reason::Truncated, detail));
        }
        let text = self.context.text(path).known()?.unwrap_or_default();
        for (number, line) in logical_lines(&text) {
            match line::parse(&line) {
                Some(statement) => {
                    self.take(statement, path, number, depth)?;
                    let lists = [&self.rules, &self.defaults, &self.aliases];
                    for list in lists {
                        rows::check(list.len(), path)?;
                    }
                }
                None => {
                    let detail = format!("{path}: line {number}: no sudoers statement");
                    self.malformed
                        .get_or_insert(Unknown::new(Reason::Malformed, detail));
                }
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        statement: Statement,
        file: &str,
        line: usize,
        depth: usize,
    ) -> Result<(), Unknown> {
        match statement {
            Statement::Nothing => {}
            Statement::Include(path) => self.include(&path, file, depth)?,
            Statement::IncludeDir(path) => self.include_dir(&path, file, depth)?,
            Statement::Aliases(aliases) => self.aliases.extend(aliases.into_iter().map(|alias| {
                json!({"kind": alias.kind, "name": alias.name, "members": alias.members, "file": file})
            })),
            Statement::Defaults(defaults) => self.defaults.extend(defaults.into_iter().map(|default| {
                let value: Value = match default.value {
                    Setting::Flag(flag) => flag.into(),
                    Setting::Text(text) => text.into(),
                };
                json!({
                    "scope": default.scope, "name": default.name, "operator": default.operator,
                    "value": value, "file": file,
                })
            })),
            Statement::Grants(grants) => self.rules.extend(grants.into_iter().map(|grant| {
                json!({
                    "user": grant.user, "hosts": grant.hosts.join(", "), "runas": grant.runas,
                    "tags": grant.tags, "commands": grant.commands.join(", "),
                    "command_list": grant.commands, "file": file, "line": line,
                })
            })),
        }
        Ok(())
    }

    fn include(&mut self, path: &str, from: &str, depth: usize) -> Result<(), Unknown> {
        let path = absolute(path, from)?;
        self.includes.push(path.as_str().into());
        self.file(&path, depth + 1)
    }

    /// As sudo: by name, without names that hold a dot or end in `~`, which package managers and
    /// editors leave behind.
    fn include_dir(&mut self, dir: &str, from: &str, depth: usize) -> Result<(), Unknown> {
        let dir = absolute(dir, from)?;
        self.includes.push(dir.as_str().into());
        for entry in self.context.list(&dir).known()?.unwrap_or_default() {
            let skipped = entry.name.contains('.') || entry.name.ends_with('~');
            if !skipped && matches!(entry.kind, Kind::File | Kind::Link) {
                self.file(&format!("{dir}/{}", entry.name), depth + 1)?;
            }
        }
        Ok(())
    }
}

/// A relative path lies beside the file that names it. `%h` stands for a host name, which sudo may
/// have cut at its first dot or not.
fn absolute(path: &str, from: &str) -> Result<String, Unknown> {
    if path.contains('%') {
        let detail = format!("{from}: includes {path}, which depends on the host name");
        return Err(Unknown::new(Reason::Unsupported, detail));
    }
    let path = path.trim_end_matches('/');
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let dir = from.rsplit_once('/').map_or("", |(dir, _)| dir);
    Ok(format!("{dir}/{path}"))
}

/// Lines joined where one ends in a backslash, each with the number of its first.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut joined: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let (number, mut whole) = joined.take().unwrap_or((index + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(begin) => {
                whole.push_str(begin);
                joined = Some((number, whole));
            }
            None => {
                whole.push_str(line);
                lines.push((number, whole));
            }
        }
    }
    lines.extend(joined);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const BOOKWORM: &str = "#\n# This file MUST be edited with the 'visudo' command as root.\n#\n\
        Defaults\tenv_reset\nDefaults\tmail_badpass\n\
        Defaults\tsecure_path=\"/usr/local/sbin:/usr/sbin:/sbin\"\nDefaults\tuse_pty\n\n\
        root\tALL=(ALL:ALL) ALL\n\n%sudo\tALL=(ALL:ALL) ALL\n\n@includedir /etc/sudoers.d\n";

    fn reason(fact: &Value) -> Option<Reason> {
        Unknown::from_value(fact).map(|unknown| unknown.reason)
    }

    #[test]
    fn the_file_of_bookworm_and_a_drop_in_are_read() {
        let host = Fixture::new(&[
            (MAIN, BOOKWORM),
            ("/usr/bin/sudo", ""),
            ("/etc/sudoers.d/README", "# nothing\n"),
            (
                "/etc/sudoers.d/deploy",
                "User_Alias OPS = a, \\\n  b\nOPS ALL = \\\n NOPASSWD: /bin/x, /bin/y\n",
            ),
            ("/etc/sudoers.d/old.bak", "u ALL=NOPASSWD: ALL\n"),
            ("/etc/sudoers.d/old~", "u ALL=NOPASSWD: ALL\n"),
        ]);
        let fact = host.collect(&COLLECTOR);
        assert_eq!(fact["installed"], true);
        assert_eq!(fact["includes"], json!(["/etc/sudoers.d"]));
        assert_eq!(fact["rules"].as_array().unwrap().len(), 3);
        assert_eq!(
            fact["rules"][2],
            json!({
                "user": "OPS", "hosts": "ALL", "runas": "", "tags": ["NOPASSWD"],
                "commands": "/bin/x, /bin/y", "command_list": ["/bin/x", "/bin/y"],
                "file": "/etc/sudoers.d/deploy", "line": 3,
            })
        );
        assert_eq!(fact["aliases"][0]["members"], json!(["a", "b"]));
        assert_eq!(
            fact["defaults"][3],
            json!({"scope": "", "name": "use_pty", "operator": "", "value": true, "file": MAIN})
        );
    }

    /// Proves: RUL-4
    #[test]
    fn a_line_nobody_understands_hides_no_rule() {
        let host = Fixture::new(&[(MAIN, "root ALL=ALL\nmallory ALL=(ALL\n")]);
        let fact = host.collect(&COLLECTOR);
        assert_eq!(reason(&fact["rules"]), Some(Reason::Malformed));
        assert_eq!(reason(&fact["defaults"]), Some(Reason::Malformed));
        let detail = Unknown::from_value(&fact["rules"]).unwrap().detail;
        assert_eq!(detail, "/etc/sudoers: line 2: no sudoers statement");
    }

    #[test]
    fn includes_are_relative_to_their_file_and_bounded() {
        let host = Fixture::new(&[(MAIN, "@include extra\n"), ("/etc/extra", "x ALL=ALL\n")]);
        assert_eq!(host.collect(&COLLECTOR)["rules"][0]["file"], "/etc/extra");
        let itself = Fixture::new(&[(MAIN, "@include /etc/sudoers\n")]);
        assert_eq!(
            reason(&itself.collect(&COLLECTOR)["rules"]),
            Some(Reason::Truncated)
        );
        let host_name = Fixture::new(&[(MAIN, "@include /etc/sudoers.%h\n")]);
        assert_eq!(
            reason(&host_name.collect(&COLLECTOR)["includes"]),
            Some(Reason::Unsupported)
        );
        let nothing = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(
            (&nothing["installed"], &nothing["rules"]),
            (&json!(false), &json!([]))
        );
    }
}
