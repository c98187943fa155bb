//! Configuration of systemd's own programs: `name.conf` and its `name.conf.d` drop-ins.
//!
//! The syntax is systemd.syntax(7): sections, `Key=value`, `#` and `;` comments, a backslash that
//! joins lines. The main file is the first one of `/etc`, `/run`, `/usr/local/lib` and `/usr/lib`;
//! every drop-in comes after it.

use serde_json::{Map, Value};

use super::{Context, drop_in};
use crate::facts::Unknown;

const DIRS: [&str; 4] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
];

/// Settings of `section` in `name` (`journald.conf`), the last assignment of a key winning. A key
/// set to nothing is back at its default and not in the map.
///
/// # Errors
/// A file that would count could not be read.
pub(crate) fn settings(
    context: &Context<'_>,
    name: &str,
    section: &str,
) -> Result<Map<String, Value>, Unknown> {
    let mut settings = Map::new();
    let mut apply = |text: &str| {
        for (key, value) in assignments(text, section) {
            if value.is_empty() {
                settings.shift_remove(&key);
            } else {
                settings.insert(key, value.into());
            }
        }
    };
    for dir in DIRS {
        if let Some(text) = context.text(&format!("{dir}/{name}")).known()? {
            apply(&text);
            break;
        }
    }
    let dirs = DIRS.map(|dir| format!("{dir}/{name}.d"));
    let dirs = dirs.each_ref().map(String::as_str);
    for path in drop_in::effective(context, &dirs, ".conf")? {
        apply(&context.text(&path).known()?.unwrap_or_default());
    }
    Ok(settings)
}

/// `Key=value` pairs of one section, in order.
pub(crate) fn assignments(text: &str, section: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut here = false;
    let mut joined = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(begin) = line.strip_suffix('\\') {
            joined.push_str(begin);
            joined.push(' ');
            continue;
        }
        joined.push_str(line);
        let whole = std::mem::take(&mut joined);
        if let Some(name) = whole
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            here = name == section;
        } else if let (true, Some((key, value))) = (here, whole.split_once('=')) {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_section_counts_and_a_backslash_joins_lines() {
        let text = "Storage=lost\n[Journal]\n# Storage=auto\nStorage = persistent\n\
                    SystemMaxUse=1\\\n# between\n 2G\n[Other]\nStorage=none\n";
        let expected = [("Storage", "persistent"), ("SystemMaxUse", "1 2G")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(assignments(text, "Journal"), expected);
        assert_eq!(assignments("\0\u{1}=[[\\", "Journal"), []);
    }
}
