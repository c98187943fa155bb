//! Users and groups of the host's own files, and the homes of those who can log in.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, part, rows};
use crate::{
    facts::{Reason, Unknown},
    target::Links,
};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Dot files of one home. Users have dozens.
const DOTFILES_MAX: usize = 1_000;

pub(super) const COLLECTOR: Collector = Collector {
    name: "users",
    about: "users, groups, duplicates, homes and their dot files",
    reads: &[
        PASSWD,
        GROUP,
        "homes of login users: attributes and names of dot files",
    ],
    privilege: super::Privilege::Partly("homes closed to others"),
    patterns: PATTERNS,
    collect,
    ..Collector::DEFAULT
};

const PATTERNS: &[FactPattern] = &[
    FactPattern::closed("users", Shape::Map, "users and groups"),
    FactPattern::closed(
        "users.users",
        Shape::Map,
        "by name; of two lines the first counts",
    ),
    FactPattern::closed("users.users[*]", Shape::Map, "one user"),
    FactPattern::closed("users.users[*].uid", Shape::Int, "number"),
    FactPattern::closed("users.users[*].gid", Shape::Int, "primary group"),
    FactPattern::closed("users.users[*].gecos", Shape::Text, "comment"),
    FactPattern::closed("users.users[*].home", Shape::Text, "home directory"),
    FactPattern::closed(
        "users.users[*].shell",
        Shape::Text,
        "shell, empty means /bin/sh",
    ),
    FactPattern::closed(
        "users.users[*].login",
        Shape::Bool,
        "shell is not nologin or false",
    ),
    FactPattern::closed(
        "users.users[*].system",
        Shape::Bool,
        "uid below 1000, or nobody",
    ),
    FactPattern::closed(
        "users.users[*].shadowed",
        Shape::Bool,
        "password is in /etc/shadow",
    ),
    FactPattern::closed(
        "users.users[*].group_exists",
        Shape::Bool,
        "a group has the number of the primary group",
    ),
    FactPattern::closed("users.groups", Shape::Map, "by name"),
    FactPattern::closed("users.groups[*]", Shape::Map, "one group"),
    FactPattern::closed("users.groups[*].gid", Shape::Int, "number"),
    FactPattern::closed(
        "users.groups[*].members",
        Shape::List,
        "named in /etc/group",
    ),
    FactPattern::closed(
        "users.duplicate_users",
        Shape::List,
        "names on several lines",
    ),
    FactPattern::closed(
        "users.duplicate_uids",
        Shape::List,
        "numbers of several names",
    ),
    FactPattern::closed(
        "users.duplicate_groups",
        Shape::List,
        "names on several lines",
    ),
    FactPattern::closed(
        "users.duplicate_gids",
        Shape::List,
        "numbers of several names",
    ),
    FactPattern::closed("users.malformed_lines", Shape::List, "lines of either file"),
    FactPattern::closed("users.malformed_lines[].file", Shape::Text, "path"),
    FactPattern::closed("users.malformed_lines[].line", Shape::Int, "from 1"),
    FactPattern::closed("users.homes", Shape::Map, "of login users, by user"),
    FactPattern::closed("users.homes[*]", Shape::Map, "one home, links followed"),
    FactPattern::closed("users.homes[*].path", Shape::Text, "path"),
    FactPattern::closed("users.homes[*].exists", Shape::Bool, "whether it is there"),
    FactPattern::closed("users.homes[*].mode", Shape::Text, "0700"),
    FactPattern::closed(
        "users.homes[*].own",
        Shape::Bool,
        "belongs to the user whose home it is",
    ),
    FactPattern::closed(
        "users.homes[*].owner",
        Shape::Text,
        "name, or number without one",
    ),
    FactPattern::closed(
        "users.homes[*].group",
        Shape::Text,
        "name, or number without one",
    ),
    FactPattern::closed(
        "users.homes[*].dotfiles",
        Shape::List,
        "names with a leading dot",
    ),
    FactPattern::closed("users.homes[*].dotfiles[].path", Shape::Text, "path"),
    FactPattern::closed("users.homes[*].dotfiles[].mode", Shape::Text, "0600"),
    FactPattern::closed(
        "users.homes[*].dotfiles[].owner",
        Shape::Text,
        "name or number",
    ),
    FactPattern::closed(
        "users.homes[*].dotfiles[].group",
        Shape::Text,
        "name or number",
    ),
    FactPattern::closed(
        "users.homes[*].dotfiles[].kind",
        Shape::Text,
        "file, dir, link, other",
    ),
];

#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
    shadowed: bool,
}

impl User {
    fn can_login(&self) -> bool {
        !matches!(self.shell.rsplit('/').next(), Some("nologin" | "false"))
    }

    /// By the numbers Debian and Red Hat give out; 65534 is nobody.
    fn is_system(&self) -> bool {
        self.uid < 1000 || self.uid == 65_534
    }

    fn to_value(&self, gids: &BTreeSet<u32>) -> Value {
        json!({
            "uid": self.uid, "gid": self.gid, "gecos": self.gecos, "home": self.home,
            "shell": self.shell, "login": self.can_login(), "system": self.is_system(),
            "shadowed": self.shadowed,
            "group_exists": gids.contains(&self.gid),
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let required = |path: &str| {
        context
            .text(path)
            .known()?
            .ok_or_else(|| Unknown::new(Reason::Unreadable, format!("{path}: not there")))
    };
    let (users, mut malformed) = parse(PASSWD, &required(PASSWD)?, parse_user)?;
    let (groups, more) = parse(GROUP, &required(GROUP)?, parse_group)?;
    malformed.extend(more);
    let by_user = users.iter().map(|user| (user.name.as_str(), user.uid));
    let by_group = groups.iter().map(|group| (group.name.as_str(), group.gid));
    let (duplicate_users, duplicate_uids) = duplicates(by_user);
    let (duplicate_groups, duplicate_gids) = duplicates(by_group);
    let homes = homes(context, &users)?;
    let gids: BTreeSet<u32> = groups.iter().map(|group| group.gid).collect();
    let group_value = |group: &Group| json!({"gid": group.gid, "members": group.members});
    Ok(json!({
        "users": first_by_name(users.iter().map(|user| (&user.name, user.to_value(&gids)))),
        "groups": first_by_name(groups.iter().map(|group| (&group.name, group_value(group)))),
        "duplicate_users": duplicate_users,
        "duplicate_uids": duplicate_uids,
        "duplicate_groups": duplicate_groups,
        "duplicate_gids": duplicate_gids,
        "malformed_lines": malformed,
        "homes": homes,
    }))
}

/// Every well-formed line, and the place of every other one. Empty lines and comments are neither:
/// the C library passes over them.
fn parse<T>(
    file: &str,
    text: &str,
    line: fn(&str) -> Option<T>,
) -> Result<(Vec<T>, Vec<Value>), Unknown> {
    let (mut good, mut malformed) = (Vec::new(), Vec::new());
    for (index, content) in text.lines().enumerate() {
        if content.trim().is_empty() || content.starts_with('#') {
            continue;
        }
        match line(content) {
            Some(entry) => good.push(entry),
            None => malformed.push(json!({"file": file, "line": index + 1})),
        }
        rows::check(good.len().max(malformed.len()), file)?;
    }
    Ok((good, malformed))
}

/// passwd(5): seven fields. A `+` line of NIS is malformed on a host of ours.
fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, password, uid, gid, gecos, home, shell] = fields[..] else {
        return None;
    };
    Some(User {
        name: proper_name(name)?,
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        gecos: gecos.to_owned(),
        home: home.to_owned(),
        shell: shell.to_owned(),
        shadowed: password == "x",
    })
}

/// group(5): four fields.
fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else {
        return None;
    };
    let members = members.split(',').filter(|member| !member.is_empty());
    Some(Group {
        name: proper_name(name)?,
        gid: gid.parse().ok()?,
        members: members.map(str::to_owned).collect(),
    })
}

fn proper_name(name: &str) -> Option<String> {
    let is_proper = !name.is_empty() && !name.starts_with(['+', '-']) && !name.contains(' ');
    is_proper.then(|| name.to_owned())
}

fn first_by_name<'a>(entries: impl Iterator<Item = (&'a String, Value)>) -> Value {
    let mut map = Map::new();
    for (name, value) in entries {
        map.entry(name.as_str()).or_insert(value);
    }
    Value::Object(map)
}

/// Names on several lines, and numbers that several lines give.
fn duplicates<'a>(entries: impl Iterator<Item = (&'a str, u32)>) -> (Vec<&'a str>, Vec<u32>) {
    let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for (name, id) in entries {
        *names.entry(name).or_insert(0) += 1;
        *ids.entry(id).or_insert(0) += 1;
    }
    (repeated(names), repeated(ids))
}

fn repeated<K>(counts: BTreeMap<K, i32>) -> Vec<K> {
    let repeated = counts.into_iter().filter(|(_, count)| *count > 1);
    repeated.map(|(key, _)| key).collect()
}

fn homes(context: &Context<'_>, users: &[User]) -> Result<Value, Unknown> {
    let mut homes = Map::new();
    for user in users.iter().filter(|user| user.can_login()) {
        context.time_left()?;
        homes
            .entry(user.name.as_str())
            .or_insert_with(|| part(home(context, user)));
    }
    Ok(Value::Object(homes))
}

fn home(context: &Context<'_>, user: &User) -> Result<Value, Unknown> {
    let path = user.home.as_str();
    let Some(stat) = context.stat(path, Links::Follow).known()? else {
        return Ok(json!({"path": path, "exists": false}));
    };
    let mut home = Map::new();
    home.insert("path".into(), path.into());
    home.insert("exists".into(), true.into());
    home.extend(context.ownership(stat.mode, stat.uid, stat.gid));
    home.insert("own".into(), (stat.uid == user.uid).into());
    home.insert("dotfiles".into(), part(dotfiles(context, path)));
    Ok(Value::Object(home))
}

fn dotfiles(context: &Context<'_>, home: &str) -> Result<Value, Unknown> {
    let mut dotfiles = Vec::new();
    for entry in context.list(home).known()?.unwrap_or_default() {
        if !entry.name.starts_with('.') {
            continue;
        }
        if dotfiles.len() == DOTFILES_MAX {
            let detail = format!("{home}: over {DOTFILES_MAX} dot files");
            return Err(Unknown::new(Reason::Truncated, detail));
        }
        let path = format!("{}/{}", home.trim_end_matches('/'), entry.name);
        if let Some(stat) = context.stat(&path, Links::Keep).known()? {
            let mut fields = Map::new();
            fields.insert("path".into(), path.into());
            fields.extend(context.ownership(stat.mode, stat.uid, stat.gid));
            fields.insert("kind".into(), stat.kind.as_str().into());
            dotfiles.push(Value::Object(fields));
        }
    }
    Ok(Value::Array(dotfiles))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const USERS: &str = "\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
ann:x:1000:1000:Ann,,,:/home/ann:/bin/sh
toor:$6$a$b:0:0::/root:
ann:x:1001:1001::/home/ann2:/bin/false
+::::::
bad:x:minus:0::/:/bin/sh

short:x:1
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
    const GROUPS: &str = "root:x:0:\nshadow:x:42:\nann:x:1000:ann,bob\ndup:x:42:\nx:y\n";

    fn host() -> Fixture {
        Fixture::new(&[
            (PASSWD, USERS),
            (GROUP, GROUPS),
            ("/home/ann/.netrc", ""),
            ("/home/ann/notes", ""),
            ("/root/x", ""),
        ])
    }

    #[test]
    fn users_and_groups_are_told_with_duplicates_and_malformed_lines() {
        let fact = host().collect(&COLLECTOR);
        let expected = json!({"uid": 1000, "gid": 1000, "gecos": "Ann,,,", "home": "/home/ann",
            "shell": "/bin/sh", "login": true, "system": false, "shadowed": true,
            "group_exists": true});
        assert_eq!(fact["users"]["ann"], expected);
        assert_eq!(fact["users"]["toor"]["shadowed"], false);
        assert_eq!(fact["users"]["toor"]["login"], true);
        assert_eq!(fact["users"]["nobody"]["system"], true);
        assert_eq!(fact["users"]["nobody"]["group_exists"], false);
        assert_eq!(
            fact["groups"]["ann"],
            json!({"gid": 1000, "members": ["ann", "bob"]})
        );
        assert_eq!(fact["duplicate_users"], json!(["ann"]));
        assert_eq!(fact["duplicate_uids"], json!([0]));
        assert_eq!(fact["duplicate_gids"], json!([42]));
        assert_eq!(fact["duplicate_groups"], json!([]));
        let line = |file: &str, line: u32| json!({"file": file, "line": line});
        let malformed = [
            line(PASSWD, 6),
            line(PASSWD, 7),
            line(PASSWD, 9),
            line(GROUP, 5),
        ];
        assert_eq!(fact["malformed_lines"], json!(malformed));
    }

    #[test]
    fn homes_are_told_for_login_users_only() {
        let host = host();
        host.chmod("/home/ann/.netrc", 0o644);
        let fact = host.collect(&COLLECTOR);
        let homes = fact["homes"].as_object().unwrap();
        assert_eq!(homes.keys().collect::<Vec<_>>(), ["root", "ann", "toor"]);
        assert_eq!(homes["root"]["dotfiles"], json!([]));
        // One account owns all of the fixture, whoever runs the test: not both of these.
        assert_eq!(homes["toor"]["own"], homes["root"]["own"]);
        assert_ne!([&homes["root"]["own"], &homes["ann"]["own"]], [true, true]);
        let dotfiles = homes["ann"]["dotfiles"].as_array().unwrap();
        assert_eq!(dotfiles.len(), 1);
        assert_eq!(dotfiles[0]["path"], "/home/ann/.netrc");
        assert_eq!(dotfiles[0]["mode"], "0644");
    }

    #[test]
    fn a_home_that_cannot_be_listed_is_unknown_for_that_user() {
        let host = Fixture::new(&[
            (PASSWD, "a:x:1:1::/h:/bin/sh\nb:x:2:2::/g:/bin/sh\n"),
            (GROUP, ""),
        ]);
        host.link("/h", "h");
        let fact = host.collect(&COLLECTOR);
        assert!(Unknown::from_value(&fact["homes"]["a"]).is_some());
        assert_eq!(fact["homes"]["b"], json!({"path": "/g", "exists": false}));
    }

    #[test]
    fn a_host_without_its_tables_has_unknown_users_not_none() {
        let fact = Fixture::new(&[(PASSWD, "")]).collect(&COLLECTOR);
        assert_eq!(
            Unknown::from_value(&fact).unwrap().reason,
            Reason::Unreadable
        );
    }

    /// The cap on bytes alone let a passwd of ten megabytes fill gigabytes of facts.
    /// Proves: EXE-7
    #[test]
    fn more_users_than_any_host_has_are_unknown_and_not_kept() {
        let lines = |line: fn(usize) -> String| -> String {
            (0..=rows::ROWS_MAX)
                .map(|number| line(number) + "\n")
                .collect()
        };
        let valid = lines(|number| format!("u{number}:x:{number}:1::/:/bin/sh"));
        let malformed = lines(|_| "a".to_owned());
        for passwd in [valid, malformed] {
            let fact = Fixture::new(&[(PASSWD, &passwd), (GROUP, GROUPS)]).collect(&COLLECTOR);
            let unknown = Unknown::from_value(&fact).expect("truncated");
            assert_eq!(unknown.reason, Reason::Truncated, "{unknown}");
        }
    }
}
