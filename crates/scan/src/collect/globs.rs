//! Files whose paths match a pattern somebody asks about, as glob(7) matches them.

use regex::Regex;
use serde_json::{Map, Value};

use super::{Collector, Context, FactPattern, Shape, files, part};
use crate::{
    facts::{Reason, Unknown},
    target::{Kind, Links},
};

/// Paths of one pattern. A pattern of a rule means a handful of files; beyond this the answer is
/// `truncated`.
const MATCHES_MAX: usize = 10_000;

pub(super) const COLLECTOR: Collector = Collector {
    name: "globs",
    about: "files whose paths match the patterns that rules name",
    reads: &["attributes of the files that rules name"],
    privilege: super::Privilege::Partly("directories closed to others"),
    patterns: &[
        FactPattern::open("globs", "matching files by pattern, sorted by path"),
        FactPattern::closed("globs[*]", Shape::List, "files of one pattern"),
        FactPattern::closed("globs[*][].path", Shape::Text, "path"),
        FactPattern::closed("globs[*][].kind", Shape::Text, "file, dir, link, other"),
        FactPattern::closed("globs[*][].mode", Shape::Text, "0644"),
        FactPattern::closed(
            "globs[*][].owner",
            Shape::Text,
            "name, or number without one",
        ),
        FactPattern::closed(
            "globs[*][].group",
            Shape::Text,
            "name, or number without one",
        ),
        FactPattern::closed("globs[*][].uid", Shape::Int, "owner's number"),
        FactPattern::closed("globs[*][].gid", Shape::Int, "group's number"),
        FactPattern::closed("globs[*][].size", Shape::Int, "bytes"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut globs = Map::new();
    for pattern in &context.needs.globs {
        globs.insert(pattern.clone(), part(matching(context, pattern)));
    }
    Ok(Value::Object(globs))
}

fn matching(context: &Context<'_>, pattern: &str) -> Result<Value, Unknown> {
    let mut found = Vec::new();
    for path in expand(context, pattern)? {
        // A file that went away since it was listed matches nothing.
        if let Some(stat) = context.stat(&path, Links::Keep).known()? {
            let mut fields = Map::new();
            fields.insert("path".into(), path.into());
            files::attributes(context, &stat, &mut fields);
            found.push(Value::Object(fields));
        }
    }
    Ok(Value::Array(found))
}

/// Existing paths that match, sorted. A directory that cannot be listed makes the answer unknown:
/// what it holds might match.
pub(crate) fn expand(context: &Context<'_>, pattern: &str) -> Result<Vec<String>, Unknown> {
    let mut paths = vec![String::new()];
    let Some(pattern_below) = pattern.strip_prefix('/') else {
        let detail = format!("pattern `{pattern}`: not absolute");
        return Err(Unknown::new(Reason::Unsupported, detail));
    };
    let components: Vec<&str> = pattern_below.split('/').collect();
    for (index, component) in components.iter().enumerate() {
        let is_last = index + 1 == components.len();
        let mut next = Vec::new();
        for dir in &paths {
            if has_wildcard(component) {
                next.extend(children(context, dir, component, is_last)?);
            } else {
                next.push(format!("{dir}/{component}"));
            }
            if next.len() > MATCHES_MAX {
                let detail = format!("pattern `{pattern}`: over {MATCHES_MAX} matches");
                return Err(Unknown::new(Reason::Truncated, detail));
            }
        }
        paths = next;
    }
    Ok(paths)
}

fn children(
    context: &Context<'_>,
    dir: &str,
    pattern: &str,
    is_last: bool,
) -> Result<Vec<String>, Unknown> {
    let listed = if dir.is_empty() { "/" } else { dir };
    let entries = context.list(listed).known()?.unwrap_or_default();
    let pattern = Component::new(pattern)?;
    Ok(entries
        .into_iter()
        .filter(|entry| is_last || matches!(entry.kind, Kind::Dir | Kind::Link))
        .filter(|entry| pattern.matches(&entry.name))
        .map(|entry| format!("{dir}/{}", entry.name))
        .collect())
}

fn has_wildcard(component: &str) -> bool {
    component.contains(['*', '?', '['])
}

/// Whether a whole path matches; no wildcard stands for a slash.
pub(crate) fn path_matches(pattern: &str, path: &str) -> bool {
    let (patterns, parts) = (pattern.split('/'), path.split('/'));
    patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| {
            Component::new(pattern).is_ok_and(|pattern| pattern.matches(part))
        })
}

/// One component of a pattern, by glob(7): `*`, `?`, `[a-z]`, `[!a]`.
struct Component {
    regex: Regex,
    /// A leading dot of a name has to be written out.
    takes_dot: bool,
}

impl Component {
    fn new(pattern: &str) -> Result<Self, Unknown> {
        let mut text = String::from("(?s)^");
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '*' => text.push_str(".*"),
                '?' => text.push('.'),
                '[' => class(&mut letters, &mut text),
                other => text.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
            }
        }
        text.push('$');
        let regex = Regex::new(&text).map_err(|_| {
            let detail = format!("pattern `{pattern}`: not of glob(7)");
            Unknown::new(Reason::Unsupported, detail)
        })?;
        Ok(Self {
            regex,
            takes_dot: pattern.starts_with('.'),
        })
    }

    fn matches(&self, name: &str) -> bool {
        (self.takes_dot || !name.starts_with('.')) && self.regex.is_match(name)
    }
}

/// What follows a `[`, up to its `]`. Without one the bracket stands for itself.
fn class(letters: &mut std::str::Chars<'_>, text: &mut String) {
    let rest = letters.as_str();
    let negated = rest.starts_with(['!', '^']);
    let body = &rest[usize::from(negated)..];
    // A `]` right at the beginning belongs to the class.
    let mut closing = body.char_indices().skip(1);
    let Some((end, _)) = closing.find(|(_, letter)| *letter == ']') else {
        text.push_str("\\[");
        return;
    };
    let inner = &body[..end];
    text.push_str(if negated { "[^" } else { "[" });
    for letter in inner.chars() {
        if matches!(letter, '\\' | '[' | ']' | '&' | '~' | '^') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push(']');
    *letters = body[end + 1..].chars();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn components_match_as_glob_matches_them() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let component = Component::new(pattern).unwrap();
            assert_eq!(component.matches(name), expected, "{pattern} {name}");
        };
        check("ssh_host_*_key", "ssh_host_rsa_key", true);
        check("ssh_host_*_key", "ssh_host_rsa_key.pub", false);
        check("*", "a", true);
        check("*", ".a", false);
        check(".*", ".a", true);
        check("*.conf", ".conf", false);
        check("*.conf", "a.conf", true);
        check("*.conf", "aXconf", false);
        check("?x", ".x", false);
        check("?x", "ax", true);
        check("rc[0-6].d", "rc3.d", true);
        check("rc[!0-6].d", "rc3.d", false);
        check("a[", "a[", true);
        check("a[]]", "a]", true);
        check("a+(b)", "a+(b)", true);
        check("é*", "éa", true);
    }

    fn fixture(patterns: &[&str]) -> Value {
        let mut host = Fixture::new(&[
            ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("/etc/group", "root:x:0:\n"),
            ("/etc/ssh/ssh_host_rsa_key", "k"),
            ("/etc/ssh/ssh_host_rsa_key.pub", "kk"),
            ("/home/a/.rhosts", ""),
            ("/home/b/x", ""),
        ]);
        host.needs.globs = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        host.chmod("/etc/ssh/ssh_host_rsa_key", 0o600);
        host.collect(&COLLECTOR)
    }

    fn paths(value: &Value) -> Vec<&str> {
        let items = value.as_array().unwrap().iter();
        items.map(|item| item["path"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_pattern_gives_every_match_with_its_attributes_and_no_match_gives_an_empty_list() {
        let (key, rhosts) = ("/etc/ssh/ssh_host_*_key", "/home/*/.rhosts");
        let fact = fixture(&[key, rhosts, "/none/*", "/etc/ssh/nothing"]);
        assert_eq!(paths(&fact[key]), ["/etc/ssh/ssh_host_rsa_key"]);
        assert_eq!(fact[key][0]["mode"], "0600");
        assert_eq!(fact[key][0]["size"], 1);
        assert_eq!(paths(&fact[rhosts]), ["/home/a/.rhosts"]);
        assert_eq!(fact["/none/*"], serde_json::json!([]));
        assert_eq!(fact["/etc/ssh/nothing"], serde_json::json!([]));
    }

    #[test]
    fn a_relative_pattern_is_unknown() {
        let fact = fixture(&["etc/*"]);
        let unknown = Unknown::from_value(&fact["etc/*"]).unwrap();
        assert_eq!(unknown.reason, Reason::Unsupported);
    }
}
