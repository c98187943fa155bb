//! Defaults of the shadow tools, from login.defs(5).

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape};
use crate::facts::{Reason, Unknown};

pub(super) const COLLECTOR: Collector = Collector {
    name: "login_defs",
    about: "settings of /etc/login.defs",
    reads: &["/etc/login.defs"],
    patterns: &[
        FactPattern::closed("login_defs", Shape::Map, "login.defs"),
        FactPattern::closed("login_defs.settings", Shape::Map, "settings by name"),
        FactPattern::closed("login_defs.settings[*]", Shape::Text, "value"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let text = context
        .text("/etc/login.defs")
        .known()?
        .ok_or_else(|| Unknown::new(Reason::Unsupported, "/etc/login.defs: not there"))?;
    Ok(json!({ "settings": parse(&text) }))
}

/// `NAME value` a line, the value perhaps in quotes; of several the last counts.
pub(super) fn parse(text: &str) -> Map<String, Value> {
    let mut settings = Map::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line
            .split_once(|letter: char| letter.is_ascii_whitespace())
            .unwrap_or((line, ""));
        settings.insert(key.to_owned(), value.trim().trim_matches('"').into());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_names_and_values_without_comments() {
        let text = "# PASS_MAX_DAYS 1\nPASS_MAX_DAYS\t99999\nUMASK 022\nUMASK\t\t027\n\
                    ENV_PATH  \"PATH=/bin:/usr/bin\"\nCREATE_HOME\n";
        let expected = json!({"PASS_MAX_DAYS": "99999", "UMASK": "027",
            "ENV_PATH": "PATH=/bin:/usr/bin", "CREATE_HOME": ""});
        assert_eq!(Value::Object(parse(text)), expected);
        assert_eq!(parse("").len(), 0);
    }
}
