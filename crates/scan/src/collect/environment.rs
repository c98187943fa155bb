//! What a login shell starts with: umask, timeout, search path.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, login_defs, part};
use crate::{
    facts::Unknown,
    target::{Found, Links},
};

/// Read by login shells of everybody and of root, with the drop-ins of the first.
const FILES: [&str; 6] = [
    "/etc/profile",
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/root/.profile",
    "/root/.bash_profile",
    "/root/.bashrc",
];

/// `PATH=value` in the syntax of pam_env(8).
const PAM_ENVIRONMENT: &str = "/etc/environment";

pub(super) const COLLECTOR: Collector = Collector {
    name: "environment",
    about: "umask, TMOUT and PATH of login shells",
    reads: &[
        "/etc/profile",
        "/etc/profile.d/*.sh",
        "/etc/bash.bashrc",
        "/etc/bashrc",
        "/root/.profile",
        "/root/.bash_profile",
        "/root/.bashrc",
        PAM_ENVIRONMENT,
        "/etc/login.defs",
        "attributes of the directories in PATH",
    ],
    privilege: super::Privilege::Partly("root's own files"),
    patterns: &[
        FactPattern::closed("environment", Shape::Map, "login shells"),
        FactPattern::closed(
            "environment.umask_lines",
            Shape::List,
            "umask commands, in order",
        ),
        FactPattern::closed(
            "environment.umask_lines[].file",
            Shape::Text,
            "where it stands",
        ),
        FactPattern::closed(
            "environment.umask_lines[].value",
            Shape::Text,
            "027, u=rwx,...",
        ),
        FactPattern::closed(
            "environment.tmout",
            Shape::List,
            "assignments of TMOUT, in order",
        ),
        FactPattern::closed("environment.tmout[].file", Shape::Text, "where it stands"),
        FactPattern::closed("environment.tmout[].value", Shape::Text, "seconds"),
        FactPattern::closed(
            "environment.path_entries",
            Shape::List,
            "parts of every PATH given",
        ),
        FactPattern::closed("environment.path_entries[].path", Shape::Text, "as written"),
        FactPattern::closed(
            "environment.path_entries[].exists",
            Shape::Bool,
            "whether it is there",
        ),
        FactPattern::closed(
            "environment.path_entries[].mode",
            Shape::Text,
            "0755, links followed",
        ),
        FactPattern::closed(
            "environment.path_entries[].owner",
            Shape::Text,
            "name or number",
        ),
        FactPattern::closed(
            "environment.path_entries[].world_writable",
            Shape::Bool,
            "anyone may put a program there; absent for a relative or missing entry",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

/// What the shell files say, as far as lines can tell it.
#[derive(Default)]
struct Said {
    umask: Vec<Value>,
    tmout: Vec<Value>,
    path: Vec<String>,
}

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let said = said(context);
    let path_entries = said
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|said| path_entries(context, &said.path));
    let (umask, tmout) = match said {
        Ok(said) => (said.umask.into(), said.tmout.into()),
        Err(unknown) => (unknown.to_value(), unknown.to_value()),
    };
    Ok(json!({
        "umask_lines": umask,
        "tmout": tmout,
        "path_entries": part(path_entries),
    }))
}

fn said(context: &Context<'_>) -> Result<Said, Unknown> {
    let mut said = Said::default();
    let defs = context.text("/etc/login.defs").known()?.unwrap_or_default();
    let defs = login_defs::parse(&defs);
    for key in ["ENV_SUPATH", "ENV_PATH"] {
        let value = defs.get(key).and_then(Value::as_str).unwrap_or("");
        add_path(&mut said.path, value.strip_prefix("PATH=").unwrap_or(value));
    }
    let environment = context.text(PAM_ENVIRONMENT).known()?.unwrap_or_default();
    for value in assigned(&environment, "PATH") {
        add_path(&mut said.path, &value);
    }
    let mut files = vec![FILES[0].to_owned()];
    files.extend(context.files_in("/etc/profile.d", ".sh")?);
    files.extend(FILES[1..].iter().map(|&file| file.to_owned()));
    for file in files {
        let text = context.text(&file).known()?.unwrap_or_default();
        let at = |value: String| json!({"file": file, "value": value});
        said.umask.extend(umasks(&text).into_iter().map(at));
        said.tmout
            .extend(assigned(&text, "TMOUT").into_iter().map(at));
        for value in assigned(&text, "PATH") {
            add_path(&mut said.path, &value);
        }
    }
    Ok(said)
}

/// Commands of a shell text, one after another, without comments. Strings that hold `;` or `#` are
/// cut at them, which for the words sought here does not matter.
fn commands(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().flat_map(|line| {
        let code = match line.find('#') {
            Some(0) => "",
            // Within a word it is part of it: `${x#y}`.
            Some(at) if line[..at].ends_with([' ', '\t', ';']) => &line[..at],
            _ => line,
        };
        code.split([';', '&', '|', '(', ')', '{', '}'])
            .map(|command| command.split_ascii_whitespace().collect())
    })
}

/// Arguments of `umask`, wherever it stands as a command.
fn umasks(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for words in commands(text) {
        let mut words = words
            .into_iter()
            .skip_while(|word| matches!(*word, "then" | "else" | "do" | "if" | "elif"));
        if words.next() == Some("umask")
            && let Some(value) = words.find(|word| !word.starts_with('-'))
        {
            found.push(value.trim_matches(['"', '\'']).to_owned());
        }
    }
    found
}

/// Values given to a variable, plainly or behind `export`, `readonly`, `declare` and `typeset`.
fn assigned(text: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for words in commands(text) {
        for word in words {
            let value = word
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='));
            if let Some(value) = value {
                found.push(value.trim_matches(['"', '\'']).to_owned());
            }
        }
    }
    found
}

/// Parts of a search path not seen before. What another variable stands for is not known here.
fn add_path(path: &mut Vec<String>, value: &str) {
    if value.is_empty() {
        return;
    }
    for entry in value.split(':') {
        let is_known = path.iter().any(|known| known == entry);
        if !entry.contains('$') && !is_known {
            path.push(entry.to_owned());
        }
    }
}

fn path_entries(context: &Context<'_>, path: &[String]) -> Result<Value, Unknown> {
    path.iter()
        .map(|entry| path_entry(context, entry))
        .collect()
}

fn path_entry(context: &Context<'_>, entry: &str) -> Result<Value, Unknown> {
    context.time_left()?;
    let mut fields = Map::new();
    fields.insert("path".into(), entry.into());
    if !entry.starts_with('/') {
        // Whatever directory somebody stands in: it exists, and nothing else is known of it.
        fields.insert("exists".into(), true.into());
        return Ok(Value::Object(fields));
    }
    match context.stat(entry, Links::Follow) {
        Found::Present(stat) => {
            let ownership = context.ownership(stat.mode, stat.uid, stat.gid);
            fields.insert("exists".into(), true.into());
            for key in ["mode", "owner"] {
                fields.insert(key.into(), ownership[key].clone());
            }
            fields.insert("world_writable".into(), (stat.mode & 0o002 != 0).into());
        }
        Found::Absent => {
            fields.insert("exists".into(), false.into());
        }
        Found::Unknown(unknown) => return Ok(unknown.into()),
    }
    Ok(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const PROFILE: &str = "# umask 000\nif [ \"$(id -u)\" -eq 0 ]; then\n  \
        PATH=\"/usr/sbin:/usr/bin\"\nelse\n  PATH=\"/usr/bin:.:$HOME/bin\"\nfi\nexport PATH\n\
        umask 022 # all\nreadonly TMOUT=600; export TMOUT\necho umask 1\n";

    #[test]
    fn umask_timeout_and_path_are_found_where_shells_take_them() {
        let host = Fixture::new(&[
            ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("/etc/group", ""),
            ("/etc/profile", PROFILE),
            ("/etc/profile.d/a.sh", "[ 1 ] && umask -S u=rwx,g=,o=\n"),
            ("/etc/profile.d/b.csh", "umask 000\n"),
            (
                "/etc/bash.bashrc",
                "case x in x) umask 027;; esac\nif true; then umask 077; fi\n",
            ),
            ("/etc/environment", "PATH=\"/opt/bin:/usr/bin\"\n"),
            ("/etc/login.defs", "ENV_PATH PATH=/usr/bin:/games\n"),
        ]);
        host.dir("/opt/bin");
        host.chmod("/opt/bin", 0o777);
        host.dir("/usr/sbin");
        let fact = host.collect(&COLLECTOR);
        let at = |file: &str, value: &str| json!({"file": file, "value": value});
        let umask = [
            at("/etc/profile", "022"),
            at("/etc/profile.d/a.sh", "u=rwx,g=,o="),
            at("/etc/bash.bashrc", "027"),
            at("/etc/bash.bashrc", "077"),
        ];
        assert_eq!(fact["umask_lines"], json!(umask));
        assert_eq!(fact["tmout"], json!([at("/etc/profile", "600")]));
        let entries = fact["path_entries"].as_array().unwrap();
        let paths: Vec<&str> = entries
            .iter()
            .map(|entry| entry["path"].as_str().unwrap())
            .collect();
        assert_eq!(paths, ["/usr/bin", "/games", "/opt/bin", "/usr/sbin", "."]);
        assert_eq!(entries[1], json!({"path": "/games", "exists": false}));
        assert_eq!(entries[2]["world_writable"], true);
        assert_eq!(entries[3]["world_writable"], false);
        assert_eq!(entries[4], json!({"path": ".", "exists": true}));
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_everything_said_unknown() {
        let host = Fixture::new(&[("/etc/profile", PROFILE)]);
        host.dir("/root/.bashrc");
        let fact = host.collect(&COLLECTOR);
        for key in ["umask_lines", "tmout", "path_entries"] {
            assert!(Unknown::from_value(&fact[key]).is_some(), "{key}");
        }
    }

    #[test]
    fn noise_says_nothing() {
        for text in ["", "\0#", "umask", "umask -S", "TMOUT", "=;=;", "éumask 1"] {
            assert_eq!(umasks(text), Vec::<String>::new(), "{text:?}");
            assert_eq!(assigned(text, "TMOUT"), Vec::<String>::new(), "{text:?}");
        }
    }
}
