//! Values from a host in words for people: bounded, and without characters that could act on a
//! terminal or a log. Whoever owns the scanned host owns these bytes.

use std::fmt::Write;

use serde_json::Value;

/// Characters of one value in a reason.
const VALUE_CHARS_MAX: usize = 80;
/// Elements of one list in a reason.
const LIST_ITEMS_MAX: usize = 6;

/// Control characters, line separators and the marks that reorder text become `\u{..}`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let acts = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if acts {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
    }
    out
}

/// At most `chars_max` characters, the last one `…` when something was cut.
pub(crate) fn bounded(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(chars_max - 1).collect();
    out.push('…');
    out
}

pub(crate) fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) if text.trim().is_empty() || text.trim() != text => {
            format!("\"{text}\"")
        }
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) if list.is_empty() => "empty".to_owned(),
        Value::Array(list) => values(list),
        Value::Object(map) => match map.len() {
            0 => "empty".to_owned(),
            1 => "a map of 1 entry".to_owned(),
            len => format!("a map of {len} entries"),
        },
    };
    bounded(&escaped(&text), VALUE_CHARS_MAX)
}

/// `[a, b, c]`, or the first ones and how many there are.
fn values(list: &[Value]) -> String {
    let shown: Vec<String> = list.iter().take(LIST_ITEMS_MAX).map(short).collect();
    let mut text = format!("[{}", shown.join(", "));
    if list.len() > LIST_ITEMS_MAX {
        // Writing to a String cannot fail.
        let _written = write!(text, ", … {} in all", list.len());
    }
    text.push(']');
    text
}

/// `a, b, c` for "wanted one of".
pub(crate) fn choices(list: &[Value]) -> String {
    let mut shown: Vec<String> = list.iter().take(LIST_ITEMS_MAX).map(short).collect();
    if list.len() > LIST_ITEMS_MAX {
        shown.push(format!("… {} in all", list.len()));
    }
    shown.join(", ")
}

fn short(item: &Value) -> String {
    match item {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => label(None, item),
        scalar => value(scalar),
    }
}

/// Fields by which people know an element, best first.
const NAMING_FIELDS: [&str; 10] = [
    "path", "name", "user", "domain", "port", "source", "module", "criteria", "subject", "file",
];

/// How an element is called in a reason: its key, its naming field, or itself.
pub(crate) fn label(key: Option<&str>, item: &Value) -> String {
    if let Some(key) = key {
        return bounded(&escaped(key), VALUE_CHARS_MAX);
    }
    let Value::Object(map) = item else {
        return value(item);
    };
    // A line of a file is known by its text, and by where it stands.
    if let Some(Value::String(text)) = map.get("text").or_else(|| map.get("path")) {
        return bounded(&escaped(text), VALUE_CHARS_MAX);
    }
    let name = NAMING_FIELDS
        .iter()
        .find_map(|field| map.get(*field).filter(|v| !v.is_null()));
    match (name, map.get("file"), map.get("line")) {
        (Some(name), Some(file), Some(line)) => {
            format!("{} ({}:{})", value(name), value(file), value(line))
        }
        (Some(name), Some(file), None) if name != file => {
            format!("{} ({})", value(name), value(file))
        }
        (Some(name), _, _) => value(name),
        (None, _, _) => bounded(&escaped(&item.to_string()), VALUE_CHARS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_from_a_host_cannot_act_on_a_terminal() {
        let shown = value(&json!("a\u{1b}[31m\nb\u{202e}c"));
        assert_eq!(shown, "a\\u{1b}[31m\\nb\\u{202e}c");
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(
            value(&json!("x".repeat(500))).chars().count(),
            VALUE_CHARS_MAX
        );
        assert!(value(&json!((0..50).collect::<Vec<_>>())).contains("50 in all"));
    }

    #[test]
    fn an_element_is_called_by_what_names_it() {
        assert_eq!(label(Some("root"), &json!({"uid": 0})), "root");
        assert_eq!(
            label(None, &json!({"path": "/tmp/a", "mode": "0777"})),
            "/tmp/a"
        );
        assert_eq!(
            label(
                None,
                &json!({"user": "bob", "file": "/etc/sudoers", "line": 3})
            ),
            "bob (/etc/sudoers:3)"
        );
        assert_eq!(label(None, &json!(22)), "22");
    }
}
