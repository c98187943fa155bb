//! The kernel's command line.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape};
use crate::facts::{Reason, Unknown};

pub(super) const COLLECTOR: Collector = Collector {
    name: "cmdline",
    about: "parameters the running kernel was started with",
    reads: &["/proc/cmdline"],
    patterns: &[
        FactPattern::closed("cmdline", Shape::Map, "the kernel command line"),
        FactPattern::closed("cmdline.parameters", Shape::Map, "parameters by name"),
        FactPattern::closed(
            "cmdline.parameters[*]",
            Shape::Text,
            "value, empty for a parameter without one; the last of several",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let text = context
        .text("/proc/cmdline")
        .known()?
        .ok_or_else(|| Unknown::new(Reason::Unreadable, "/proc/cmdline: not there"))?;
    Ok(json!({ "parameters": parse(&text) }))
}

/// Words separated by blanks outside double quotes, as the kernel splits them.
pub(super) fn parse(text: &str) -> Map<String, Value> {
    let mut quoted = false;
    let mut parameters = Map::new();
    let blank = |letter: char| {
        quoted ^= letter == '"';
        !quoted && letter.is_ascii_whitespace()
    };
    for word in text.split(blank).filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let bare = |text: &str| text.replace('"', "");
        parameters.insert(bare(key), bare(value).into());
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn parameters_split_at_blanks_outside_quotes_and_the_last_wins() {
        let check = |text: &str, expected: Value| {
            assert_eq!(Value::Object(parse(text)), expected, "{text:?}");
        };
        check(
            "BOOT_IMAGE=/vmlinuz root=UUID=1-2 ro quiet audit=0 audit=1\n",
            json!({"BOOT_IMAGE": "/vmlinuz", "root": "UUID=1-2", "ro": "", "quiet": "", "audit": "1"}),
        );
        check(
            "dyndbg=\"file a +p\" x",
            json!({"dyndbg": "file a +p", "x": ""}),
        );
        check("", json!({}));
        check("\"", json!({"": ""}));
    }

    #[test]
    fn without_proc_the_parameters_are_unknown() {
        let fact = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(
            Unknown::from_value(&fact).unwrap().reason,
            Reason::Unreadable
        );
    }
}
