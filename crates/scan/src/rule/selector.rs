//! The name of a fact: `collector(.field | [key])*`, or `item`/`key` inside a quantifier.
//!
//! Selecting has four answers: present, absent (the collector looked and it is not there),
//! unknown (nobody can say), malformed (the fact has another shape than the rule expects).

use std::{borrow::Cow, collections::HashSet, fmt, sync::LazyLock};

use serde_json::{Map, Value};

use crate::{
    collect::{Shape, catalog},
    facts::{Reason, Unknown},
};

/// Characters of one selector. Paths are at most 4,096 bytes; a rule that needs more is wrong.
const SELECTOR_BYTES_MAX: usize = 512;

/// Maps that hold only what a rule asked for. A key that is missing there was not collected,
/// whereas in every other map it is absent.
pub const OPEN_COLLECTORS: [&str; 4] = ["files", "globs", "hashes", "text"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    text: String,
    pub(crate) root: Root,
    steps: Vec<String>,
    /// Whether the first step names a list or a map that the collector always fills.
    always_filled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Collector(String),
    /// The element of the innermost quantifier; for maps the value.
    Item,
    /// The key of the element when the quantifier goes over a map.
    Key,
}

/// What a selector found.
#[derive(Clone, Debug)]
pub(crate) enum Found<'a> {
    Present(Cow<'a, Value>),
    Absent,
    Unknown(Unknown),
    /// What has which shape, for the reason.
    Malformed(String),
}

/// The element a quantifier stands on.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    /// `None` when the element itself is unknown.
    pub(crate) item: Result<&'a Value, Unknown>,
    pub(crate) key: Option<&'a str>,
}

impl Selector {
    /// Parses; the error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(format!(
                "a selector has {} bytes, more than {SELECTOR_BYTES_MAX}",
                text.len()
            ));
        }
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let (root, rest) = text.split_at(end);
        if root.is_empty()
            || !root
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
        {
            return Err(format!(
                "the selector `{text}` does not start with the name of a collector"
            ));
        }
        let steps = steps(text, rest)?;
        let root = match root {
            "item" => Root::Item,
            "key" if steps.is_empty() => Root::Key,
            "key" => return Err(format!("`{text}`: a key is text and has no fields")),
            name => Root::Collector(name.to_owned()),
        };
        let always_filled = match (&root, steps.first()) {
            (Root::Collector(name), Some(step)) => is_always_filled(name, step),
            _ => false,
        };
        Ok(Self {
            text: text.to_owned(),
            root,
            steps,
            always_filled,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The collector, or `None` for `item` and `key`.
    pub fn collector(&self) -> Option<&str> {
        match &self.root {
            Root::Collector(name) => Some(name),
            Root::Item | Root::Key => None,
        }
    }

    /// The key of the innermost quantifier's element.
    pub(crate) fn is_key(&self) -> bool {
        self.root == Root::Key
    }

    /// Field names and keys in order.
    pub fn steps(&self) -> &[String] {
        &self.steps
    }

    /// The fact as a reader would call it: `/etc/shadow mode`, `net.ipv4.ip_forward`.
    pub(crate) fn subject(&self) -> Cow<'_, str> {
        let steps: Vec<&str> = self.steps.iter().map(String::as_str).collect();
        match (self.collector(), steps.as_slice()) {
            (Some("sysctl"), ["running", key]) => Cow::Borrowed(key),
            (Some("sysctl"), ["persistent", key] | ["persistent", key, "value"]) => {
                Cow::Owned(format!("{key} (persistent)"))
            }
            (Some("files" | "text" | "hashes" | "globs"), [path, rest @ ..]) => {
                Cow::Owned([&[*path], rest].concat().join(" "))
            }
            (Some("sshd"), ["effective" | "effective_lists", key]) => {
                Cow::Owned(format!("sshd {key}"))
            }
            (Some("services"), ["units", unit, rest @ ..]) => {
                Cow::Owned([&[*unit], rest].concat().join(" "))
            }
            (Some("packages"), ["installed", name, rest @ ..]) => {
                Cow::Owned([&["package", name], rest].concat().join(" "))
            }
            (Some("mounts"), ["mounted", point, rest @ ..]) => {
                Cow::Owned([&["mount", point], rest].concat().join(" "))
            }
            (Some("mounts"), ["fstab", point, rest @ ..]) => {
                Cow::Owned([&["fstab entry", point], rest].concat().join(" "))
            }
            (Some("login_defs"), ["settings", key]) => Cow::Owned(format!("login.defs {key}")),
            (Some("cmdline"), ["parameters", key]) => Cow::Owned(format!("kernel parameter {key}")),
            (Some("modules"), [state, name]) => Cow::Owned(format!("{state} module {name}")),
            (None, _) if self.root == Root::Item => Cow::Owned(steps.join(" ")),
            _ => Cow::Borrowed(&self.text),
        }
    }

    /// Looks in `facts`, or in the element for `item` and `key`.
    pub(crate) fn find<'a>(
        &self,
        facts: &'a Map<String, Value>,
        scope: Option<&Scope<'a>>,
    ) -> Found<'a> {
        match (&self.root, scope) {
            (Root::Collector(name), _) => match facts.get(name) {
                Some(value) => self.walk(value, OPEN_COLLECTORS.contains(&name.as_str())),
                None => Found::Unknown(Unknown::new(
                    Reason::Missing,
                    format!("the collector {name} is not in the facts"),
                )),
            },
            (Root::Item, Some(scope)) => match &scope.item {
                Ok(value) => self.walk(value, false),
                Err(unknown) => Found::Unknown(unknown.clone()),
            },
            (Root::Key, Some(scope)) => match (scope.key, &scope.item) {
                (Some(key), _) => Found::Present(Cow::Owned(Value::String(key.to_owned()))),
                (None, Err(unknown)) => Found::Unknown(unknown.clone()),
                (None, Ok(_)) => {
                    Found::Malformed("`key` is used over a list, which has no keys".to_owned())
                }
            },
            // The decoder refuses `item` and `key` outside a quantifier.
            (Root::Item | Root::Key, None) => {
                Found::Malformed(format!("`{}` outside a quantifier", self.text))
            }
        }
    }

    fn walk<'a>(&self, mut value: &'a Value, mut open: bool) -> Found<'a> {
        let mut filled = self.always_filled;
        for step in &self.steps {
            if let Some(unknown) = Unknown::from_value(value) {
                return Found::Unknown(unknown);
            }
            match value {
                Value::Object(map) => match map.get(step) {
                    Some(next) => value = next,
                    None if open => {
                        let detail = format!("{step} was not collected");
                        return Found::Unknown(Unknown::new(Reason::NotCollected, detail));
                    }
                    // A bundle from before the collector brought it, or one that was cut by hand:
                    // that nothing is listed there says nothing about the host.
                    None if filled => {
                        let detail = format!("{step} is not in the fact of its collector");
                        return Found::Unknown(Unknown::new(Reason::Missing, detail));
                    }
                    None => return Found::Absent,
                },
                Value::Null => return Found::Absent,
                _ => {
                    return Found::Malformed(format!(
                        "{} has no part `{step}`: it is not a map there",
                        self.text
                    ));
                }
            }
            open = false;
            filled = false;
        }
        match Unknown::from_value(value) {
            Some(unknown) => Found::Unknown(unknown),
            None if value.is_null() => Found::Absent,
            None => Found::Present(Cow::Borrowed(value)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether the catalog declares the part `step` of `collector` as a list or a map. Collectors fill
/// these on every host, if only with nothing or `$unknown`; texts and numbers may be left out.
fn is_always_filled(collector: &str, step: &str) -> bool {
    // Selectors of evidence are read with each scan, and the catalog is some hundreds of paths.
    static FILLED: LazyLock<HashSet<(&str, &str)>> = LazyLock::new(|| {
        let filled = catalog().filter(|it| matches!(it.shape, Shape::List | Shape::Map));
        filled.filter_map(|it| it.path.split_once('.')).collect()
    });
    FILLED.contains(&(collector, step))
}

/// Splits `.field[key]...`; keys hold anything but `]`.
fn steps(whole: &str, mut rest: &str) -> Result<Vec<String>, String> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = if let Some(inner) = rest.strip_prefix('[') {
            inner
                .split_once(']')
                .ok_or_else(|| format!("the selector `{whole}` has a `[` without `]`"))?
        } else if let Some(inner) = rest.strip_prefix('.') {
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            let (field, after) = inner.split_at(end);
            if !field
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            {
                return Err(format!(
                    "the field `{field}` of the selector `{whole}` needs brackets: `[{field}]`"
                ));
            }
            (field, after)
        } else {
            return Err(format!(
                "the selector `{whole}` has text after `]`: only `.` and `[` may follow"
            ));
        };
        if step.is_empty() {
            return Err(format!("the selector `{whole}` has an empty part"));
        }
        steps.push(step.to_owned());
        rest = after;
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(selector: &str, facts: &Value) -> String {
        let selector = Selector::parse(selector).expect("valid selector");
        match selector.find(facts.as_object().expect("map"), None) {
            Found::Present(value) => value.to_string(),
            Found::Absent => "absent".to_owned(),
            Found::Unknown(unknown) => format!("unknown {}", unknown.reason),
            Found::Malformed(_) => "malformed".to_owned(),
        }
    }

    #[test]
    fn absent_and_unknown_are_two_answers() {
        let facts = json!({
            "sysctl": {"running": {"net.ipv4.ip_forward": "0"}},
            "shadow": {"$unknown": {"reason": "privilege", "detail": "/etc/shadow"}},
            "files": {"/etc/a": {"exists": false}},
            "users": {"users": {"root": {"uid": 0, "gecos": null}}},
        });
        for (selector, wanted) in [
            ("sysctl.running[net.ipv4.ip_forward]", "\"0\""),
            ("sysctl.running[net.ipv4.tcp_syncookies]", "absent"),
            ("sysctl.persistent[x].value", "unknown missing"),
            ("users.duplicate_uids", "unknown missing"),
            ("users.users[root].none", "absent"),
            ("sshd.effective.port", "unknown missing"),
            ("shadow.users[root].password", "unknown privilege"),
            ("shadow", "unknown privilege"),
            ("files[/etc/a].mode", "absent"),
            ("files[/etc/b].mode", "unknown not_collected"),
            ("users.users[root].gecos", "absent"),
            ("users.users[root].uid.more", "malformed"),
        ] {
            assert_eq!(answer(selector, &facts), wanted, "{selector}");
        }
    }

    #[test]
    fn text_that_is_no_selector_is_refused() {
        for text in [
            "", ".a", "a..b", "a[b", "a[]", "a[b]c", "a.b:c", "Ab.c", "key.x",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        let parsed = Selector::parse("globs[/etc/ssh/ssh_host_*_key]").expect("valid");
        assert_eq!(parsed.steps(), ["/etc/ssh/ssh_host_*_key"]);
    }
}
