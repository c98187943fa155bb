//! One logical line of sudoers(5): its statements and their parts.
//!
//! Aliases stay names and nothing is looked up. What does not parse is `None`, for the whole line:
//! half of a rule read wrongly is worse than a rule that is reported as unreadable.

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Nothing,
    Include(String),
    IncludeDir(String),
    Aliases(Vec<Alias>),
    Defaults(Vec<Default>),
    Grants(Vec<Grant>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alias {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) members: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Default {
    /// Empty for all, else as written: `:alice`, `@host`, `!command`, `>runas`.
    pub(super) scope: String,
    pub(super) name: String,
    /// `=`, `+=`, `-=`, or empty for a flag.
    pub(super) operator: &'static str,
    pub(super) value: Setting,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Flag(bool),
    Text(String),
}

/// Commands of one rule that share user, hosts, run-as and tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) user: String,
    pub(super) hosts: Vec<String>,
    /// Without the parentheses; empty when not given.
    pub(super) runas: String,
    pub(super) tags: Vec<String>,
    pub(super) commands: Vec<String>,
}

pub(super) fn parse(line: &str) -> Option<Statement> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix(['#', '@']) {
        if let Some(path) = keyword(rest, "includedir") {
            return Some(Statement::IncludeDir(path_of(path)?));
        }
        if let Some(path) = keyword(rest, "include") {
            return Some(Statement::Include(path_of(path)?));
        }
    }
    let line = without_comment(line);
    let line = line.trim();
    if line.is_empty() {
        return Some(Statement::Nothing);
    }
    for (word, kind) in [
        ("User_Alias", "user"),
        ("Runas_Alias", "runas"),
        ("Host_Alias", "host"),
        ("Cmnd_Alias", "command"),
        ("Cmd_Alias", "command"),
    ] {
        if let Some(rest) = keyword(line, word) {
            return aliases(kind, rest).map(Statement::Aliases);
        }
    }
    if let Some(rest) = line.strip_prefix("Defaults")
        && rest.starts_with(|letter: char| letter.is_whitespace() || "@:!>".contains(letter))
    {
        return defaults(rest).map(Statement::Defaults);
    }
    grants(line).map(Statement::Grants)
}

fn keyword<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    rest.starts_with(char::is_whitespace).then(|| rest.trim())
}

/// A path to include: bare with `\ ` for spaces, or in double quotes.
fn path_of(text: &str) -> Option<String> {
    let path = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?.to_owned(),
        None => text.replace("\\ ", " "),
    };
    (!path.is_empty()).then_some(path)
}

/// `#` begins a comment, except in quotes, after a backslash, or as the number of a user where a
/// user may stand: before the first `=`, or in parentheses.
fn without_comment(line: &str) -> &str {
    let (mut quoted, mut escaped, mut user_may_stand, mut depth) = (false, false, true, 0_i32);
    for (at, letter) in line.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match letter {
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '=' => user_may_stand = false,
            '(' => depth += 1,
            ')' => depth -= 1,
            '#' => {
                let number = line[at + 1..].starts_with(|next: char| next.is_ascii_digit());
                if !(number && (user_may_stand || depth > 0)) {
                    return &line[..at];
                }
            }
            _ => {}
        }
    }
    line
}

/// Pieces between separators that stand outside of quotes and parentheses, unescaped.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped, mut depth, mut begin) = (false, false, 0_i32, 0);
    let mut pieces = Vec::new();
    for (at, letter) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match letter {
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' => depth -= 1,
            other if other == separator && depth == 0 => {
                pieces.push(&text[begin..at]);
                begin = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    pieces.push(&text[begin..]);
    pieces
}

/// Members of a comma list; `None` when one is empty.
fn members(text: &str) -> Option<Vec<String>> {
    split(text, ',')
        .into_iter()
        .map(str::trim)
        .map(|member| (!member.is_empty()).then(|| member.to_owned()))
        .collect()
}

/// `NAME = a, b : OTHER = c`. A colon ends an alias only when another name and `=` follow it.
fn aliases(kind: &'static str, text: &str) -> Option<Vec<Alias>> {
    let mut definitions: Vec<String> = Vec::new();
    for piece in split(text, ':') {
        match definitions.last_mut() {
            Some(last) if alias_head(piece).is_none() => {
                last.push(':');
                last.push_str(piece);
            }
            _ => definitions.push(piece.to_owned()),
        }
    }
    let parse = |definition: &String| {
        let (name, list) = alias_head(definition)?;
        Some(Alias {
            kind,
            name: name.to_owned(),
            members: members(list)?,
        })
    };
    definitions.iter().map(parse).collect()
}

fn alias_head(text: &str) -> Option<(&str, &str)> {
    let (name, list) = text.split_once('=')?;
    let name = name.trim();
    let begins = name.starts_with(|letter: char| letter.is_ascii_uppercase());
    let whole =
        |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    (begins && name.chars().all(whole)).then_some((name, list))
}

fn defaults(text: &str) -> Option<Vec<Default>> {
    let (scope, parameters) = if text.starts_with(char::is_whitespace) {
        ("", text.trim())
    } else {
        first_list(text)?
    };
    split(parameters, ',')
        .into_iter()
        .map(|parameter| default(&scope.replace(char::is_whitespace, ""), parameter.trim()))
        .collect()
}

fn default(scope: &str, parameter: &str) -> Option<Default> {
    let flag = parameter.trim_start_matches('!');
    let name_end = flag
        .find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .unwrap_or(flag.len());
    let (name, rest) = flag.split_at(name_end);
    if name.is_empty() {
        return None;
    }
    let negations = parameter.len() - flag.len();
    let rest = rest.trim();
    let (operator, value) = if rest.is_empty() {
        ("", Setting::Flag(negations.is_multiple_of(2)))
    } else {
        let operator = ["+=", "-=", "="]
            .into_iter()
            .find(|operator| rest.starts_with(operator))?;
        if negations > 0 {
            return None;
        }
        (
            operator,
            Setting::Text(unquote(rest[operator.len()..].trim())?),
        )
    };
    Some(Default {
        scope: scope.to_owned(),
        name: name.to_owned(),
        operator,
        value,
    })
}

fn unquote(value: &str) -> Option<String> {
    let inner = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    let mut text = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        text.push(match letter {
            '\\' => letters.next()?,
            other => other,
        });
    }
    Some(text)
}

/// The comma list that `text` begins with, and the rest: a list ends at white space that neither
/// follows nor precedes a comma, nor follows the `!` of a negation.
fn first_list(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let (mut quoted, mut escaped) = (false, false);
    let mut open = true;
    for (at, letter) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match letter {
            '\\' => (escaped, open) = (true, false),
            '"' => (quoted, open) = (!quoted, false),
            _ if quoted => {}
            ',' | '!' => open = true,
            space if space.is_whitespace() && !open => {
                if !text[at..].trim_start().starts_with(',') {
                    return Some((&text[..at], text[at..].trim_start()));
                }
                open = true;
            }
            space if space.is_whitespace() => {}
            _ => open = false,
        }
    }
    None
}

/// Hosts and commands of one rule, counted once for each of its users. A rule for a thousand users
/// with a hundred commands is read; a file made to fill memory is not.
const ROW_ITEMS_MAX: usize = 200_000;

/// `users hosts = commands : hosts = commands`.
fn grants(line: &str) -> Option<Vec<Grant>> {
    let (users, rest) = first_list(line)?;
    let users = members(users)?;
    let mut grants = Vec::new();
    let mut rest = rest;
    loop {
        let (hosts, commands) = rest.split_once('=')?;
        let hosts = members(hosts)?;
        let (blocks, next) = command_blocks(commands)?;
        let commands: usize = blocks.iter().map(|block| block.commands.len()).sum();
        if users.len() * (hosts.len() + commands) > ROW_ITEMS_MAX {
            return None;
        }
        for user in &users {
            grants.extend(blocks.iter().map(|block| Grant {
                user: user.clone(),
                hosts: hosts.clone(),
                ..block.clone()
            }));
        }
        match next {
            Some(next) => rest = next,
            None => return Some(grants),
        }
    }
}

/// Tags of sudoers(5). Each has an opposite that takes it back for the commands that follow.
const TAGS: [&str; 16] = [
    "NOPASSWD",
    "PASSWD",
    "NOEXEC",
    "EXEC",
    "NOSETENV",
    "SETENV",
    "NOLOG_INPUT",
    "LOG_INPUT",
    "NOLOG_OUTPUT",
    "LOG_OUTPUT",
    "NOMAIL",
    "MAIL",
    "NOFOLLOW",
    "FOLLOW",
    "NOINTERCEPT",
    "INTERCEPT",
];

/// Options before a command that take a value.
const OPTIONS: [&str; 9] = [
    "ROLE",
    "TYPE",
    "CWD",
    "CHROOT",
    "TIMEOUT",
    "NOTBEFORE",
    "NOTAFTER",
    "APPARMOR_PROFILE",
    "PRIVS",
];

/// Commands up to the next `: hosts =`, grouped by what they share. Run-as and tags stay in force
/// for the commands after them.
fn command_blocks(text: &str) -> Option<(Vec<Grant>, Option<&str>)> {
    let mut blocks: Vec<Grant> = Vec::new();
    let (mut runas, mut tags) = (String::new(), Vec::new());
    let mut rest = text;
    loop {
        rest = prefixes(rest.trim_start(), &mut runas, &mut tags)?;
        let end = command_end(rest);
        let command = rest[..end].trim();
        if command.is_empty() || command.contains(['(', ')', '"']) && !balanced(command) {
            return None;
        }
        match blocks.last_mut() {
            Some(last) if last.runas == runas && last.tags == tags => {
                last.commands.push(command.to_owned());
            }
            _ => blocks.push(Grant {
                user: String::new(),
                hosts: Vec::new(),
                runas: runas.clone(),
                tags: tags.clone(),
                commands: vec![command.to_owned()],
            }),
        }
        rest = match rest[end..].chars().next() {
            None => return Some((blocks, None)),
            Some(':') => return Some((blocks, Some(&rest[end + 1..]))),
            Some(_) => &rest[end + 1..],
        };
    }
}

/// Takes run-as, options and tags off the front of a command.
fn prefixes<'a>(mut rest: &'a str, runas: &mut String, tags: &mut Vec<String>) -> Option<&'a str> {
    loop {
        if let Some(inner) = rest.strip_prefix('(') {
            let (inner, after) = inner.split_once(')')?;
            *runas = inner.trim().to_owned();
            rest = after.trim_start();
            continue;
        }
        let name_end = rest
            .find(|letter: char| !(letter.is_ascii_uppercase() || letter == '_'))
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let after = after.trim_start();
        if let Some(after) = after.strip_prefix(':').filter(|_| TAGS.contains(&name)) {
            let opposite = name
                .strip_prefix("NO")
                .map_or_else(|| format!("NO{name}"), str::to_owned);
            tags.retain(|tag| *tag != opposite && *tag != name);
            tags.push(name.to_owned());
            rest = after.trim_start();
        } else if let Some(value) = after.strip_prefix('=').filter(|_| OPTIONS.contains(&name)) {
            let value = value.trim_start();
            let end = value.find(char::is_whitespace)?;
            rest = value[end..].trim_start();
        } else {
            return Some(rest);
        }
    }
}

/// Where a command ends: at a comma or colon that is neither quoted nor escaped. The colon of a
/// digest (`sha256:…`) belongs to the command.
fn command_end(text: &str) -> usize {
    let digest = ["sha224:", "sha256:", "sha384:", "sha512:"]
        .into_iter()
        .find(|digest| text.starts_with(digest));
    let begin = digest.map_or(0, str::len);
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in text[begin..].char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match letter {
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' | ':' if !quoted => return begin + at,
            _ => {}
        }
    }
    text.len()
}

fn balanced(command: &str) -> bool {
    command.matches('"').count().is_multiple_of(2)
        && command.matches('(').count() == command.matches(')').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(user: &str, hosts: &[&str], runas: &str, tags: &[&str], commands: &[&str]) -> Grant {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Grant {
            user: user.to_owned(),
            hosts: owned(hosts),
            runas: runas.to_owned(),
            tags: owned(tags),
            commands: owned(commands),
        }
    }

    fn flag(scope: &str, name: &str, value: bool) -> Default {
        Default {
            scope: scope.to_owned(),
            name: name.to_owned(),
            operator: "",
            value: Setting::Flag(value),
        }
    }

    fn text(scope: &str, name: &str, operator: &'static str, value: &str) -> Default {
        Default {
            scope: scope.to_owned(),
            name: name.to_owned(),
            operator,
            value: Setting::Text(value.to_owned()),
        }
    }

    #[test]
    fn rules_are_split_by_user_host_runas_and_tags() {
        let all = &["ALL"][..];
        for (line, expected) in [
            (
                "root\tALL=(ALL:ALL) ALL",
                vec![grant("root", all, "ALL:ALL", &[], all)],
            ),
            (
                "%sudo ALL = NOPASSWD : ALL # x",
                vec![grant("%sudo", all, "", &["NOPASSWD"], all)],
            ),
            (
                "alice , bob web1, web2 = (root) /bin/a x\\,y, NOPASSWD: /bin/b, /bin/c \"d, e\", PASSWD: /bin/f",
                ["alice", "bob"]
                    .iter()
                    .flat_map(|user| {
                        let hosts = &["web1", "web2"][..];
                        [
                            grant(user, hosts, "root", &[], &["/bin/a x\\,y"]),
                            grant(
                                user,
                                hosts,
                                "root",
                                &["NOPASSWD"],
                                &["/bin/b", "/bin/c \"d, e\""],
                            ),
                            grant(user, hosts, "root", &["PASSWD"], &["/bin/f"]),
                        ]
                    })
                    .collect(),
            ),
            (
                "#1000 ALL=(#0) NOEXEC: SETENV: A : other = /bin/b",
                vec![
                    grant("#1000", all, "#0", &["NOEXEC", "SETENV"], &["A"]),
                    grant("#1000", &["other"], "", &[], &["/bin/b"]),
                ],
            ),
            (
                "u ALL = TIMEOUT=5m CWD=/tmp (x) sha256:abc= /bin/ls, !/bin/sh",
                vec![grant(
                    "u",
                    all,
                    "x",
                    &[],
                    &["sha256:abc= /bin/ls", "!/bin/sh"],
                )],
            ),
            ("\"a b\" ALL=ALL", vec![grant("\"a b\"", all, "", &[], all)]),
            (
                "!u, %g ALL=ALL",
                vec![
                    grant("!u", all, "", &[], all),
                    grant("%g", all, "", &[], all),
                ],
            ),
        ] {
            assert_eq!(parse(line), Some(Statement::Grants(expected)), "{line}");
        }
    }

    #[test]
    fn defaults_keep_scope_operator_and_value() {
        for (line, expected) in [
            ("Defaults env_reset", vec![flag("", "env_reset", true)]),
            (
                "Defaults !authenticate, use_pty",
                vec![flag("", "authenticate", false), flag("", "use_pty", true)],
            ),
            (
                "Defaults secure_path=\"/usr/sbin:/sbin\"",
                vec![text("", "secure_path", "=", "/usr/sbin:/sbin")],
            ),
            (
                "Defaults env_keep += \"A B\"",
                vec![text("", "env_keep", "+=", "A B")],
            ),
            (
                "Defaults:alice, bob !requiretty",
                vec![flag(":alice,bob", "requiretty", false)],
            ),
            (
                "Defaults!/bin/sh log_output",
                vec![flag("!/bin/sh", "log_output", true)],
            ),
            (
                "Defaults passprompt=\"a \\\"x\\\", # b\" # c",
                vec![text("", "passprompt", "=", "a \"x\", # b")],
            ),
            (
                "Defaults timestamp_timeout = -1",
                vec![text("", "timestamp_timeout", "=", "-1")],
            ),
        ] {
            assert_eq!(parse(line), Some(Statement::Defaults(expected)), "{line}");
        }
    }

    #[test]
    fn aliases_and_includes_are_read() {
        let alias = |name: &str, members: &[&str]| Alias {
            kind: "host",
            name: name.to_owned(),
            members: members.iter().map(|&text| text.to_owned()).collect(),
        };
        assert_eq!(
            parse("Host_Alias WEB = a, b : V6 = fe80::1 : DB_2 = !c"),
            Some(Statement::Aliases(vec![
                alias("WEB", &["a", "b"]),
                alias("V6", &["fe80::1"]),
                alias("DB_2", &["!c"]),
            ]))
        );
        let include = |path: &str| Some(Statement::Include(path.to_owned()));
        let include_dir = |path: &str| Some(Statement::IncludeDir(path.to_owned()));
        assert_eq!(
            parse("@includedir /etc/sudoers.d"),
            include_dir("/etc/sudoers.d")
        );
        assert_eq!(
            parse("#includedir /etc/sudoers.d"),
            include_dir("/etc/sudoers.d")
        );
        assert_eq!(parse("@include \"/etc/my file\""), include("/etc/my file"));
        assert_eq!(parse("#include /etc/my\\ file"), include("/etc/my file"));
        assert_eq!(parse("#included by hand"), Some(Statement::Nothing));
        assert_eq!(parse(" # root ALL=ALL"), Some(Statement::Nothing));
    }

    #[test]
    fn a_line_that_is_no_statement_is_refused_whole() {
        for line in [
            "root",
            "root ALL",
            "root ALL=",
            "root ALL=(ALL",
            "root ALL=a,,b",
            "root ALL=a,",
            "u ALL=\"/bin/a",
            "Defaults",
            "Defaults  =x",
            "Defaults a,,b",
            "Defaults !a=b",
            "Defaults x=\"a",
            "Host_Alias lower = a",
            "Host_Alias A",
            "= = =",
            ",",
            "\u{0}\u{1}",
            "u ALL=NOPASSWD:",
            "u ALL=TIMEOUT=5",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    /// Users times commands would fill memory, and a list that is looked through again at each blank
    /// would take hours.
    #[test]
    fn a_line_made_to_be_slow_or_huge_is_refused_or_read_at_once() {
        let many = "a,".repeat(100_000);
        assert_eq!(parse(&format!("{many}a ALL={many}a")), None);
        let blanks = " ".repeat(1_000_000);
        assert!(parse(&format!("a{blanks},b ALL=c")).is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_line_breaks_the_parser(line in "([a-zA-Z#@%!\"\\\\():=, é\u{0}]|ALL|NOPASSWD:|Defaults |Host_Alias ){0,40}") {
            parse(&line);
        }
    }
}
