//! Settings that a shell would take from a file of assignments: `/etc/default/*`.
//!
//! Nothing is run. A value that only a shell could compute (a command substitution, a condition
//! around it) is `$unknown`, and so is every setting named in a line that is more than an
//! assignment.

use serde_json::{Map, Value};

use super::rows;
use crate::facts::{Reason, Unknown};

/// Longest value. A kernel command line ends at 4 KiB; without a limit, lines of `A="$A$A"` would
/// double until memory ends.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Applies the assignments of one file to what earlier files set.
///
/// # Errors
/// The file includes another one, where anything could be set; or sets too much.
pub(crate) fn apply(
    file: &str,
    text: &str,
    settings: &mut Map<String, Value>,
) -> Result<(), Unknown> {
    let mut rest = text;
    let mut depth = 0_usize;
    while !rest.is_empty() {
        rest = rest.trim_start();
        let line = rest.split('\n').next().unwrap_or_default();
        match line
            .split(|letter: char| letter.is_whitespace() || letter == ';')
            .next()
        {
            Some("." | "source") => {
                let detail = format!("{file}: includes another file");
                return Err(Unknown::new(Reason::Unsupported, detail));
            }
            Some("if" | "case" | "for" | "while" | "until") => depth += 1,
            Some("fi" | "esac" | "done") => depth = depth.saturating_sub(1),
            _ => {}
        }
        let computed = |name: &str| {
            let detail = format!("{file}: {name} depends on more than the file says");
            Unknown::new(Reason::Unsupported, detail).to_value()
        };
        let Some((name, append, value)) = assignment(rest) else {
            for name in line_without_comment(line) {
                settings.insert(name.to_owned(), computed(name));
                rows::check(settings.len(), file)?;
            }
            rest = &rest[line.len()..];
            continue;
        };
        let (word, after) = word(value, settings);
        let tail = after.split('\n').next().unwrap_or_default();
        let is_all = depth == 0 && is_end(tail);
        let value = match (
            word.filter(|_| is_all),
            append.then(|| settings.get(name)).flatten(),
        ) {
            (Some(word), None) => word.into(),
            (Some(word), Some(Value::String(before)))
                if before.len() + word.len() <= VALUE_BYTES_MAX =>
            {
                format!("{before}{word}").into()
            }
            _ => computed(name),
        };
        settings.insert(name.to_owned(), value);
        rows::check(settings.len(), file)?;
        rest = &after[tail.len()..];
    }
    Ok(())
}

/// Name, whether the value is appended, and the text after `=` or `+=`.
fn assignment(text: &str) -> Option<(&str, bool, &str)> {
    let text = text.strip_prefix("export ").map_or(text, str::trim_start);
    let end = text.find(|letter: char| !is_name(letter))?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) {
        return None;
    }
    match rest.strip_prefix("+=") {
        Some(value) => Some((name, true, value)),
        None => Some((name, false, rest.strip_prefix('=')?)),
    }
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// What may follow an assignment without being part of it.
fn is_end(tail: &str) -> bool {
    let rest = tail.trim_start();
    let rest = rest.strip_prefix(';').unwrap_or(rest).trim();
    rest.is_empty() || rest.starts_with('#')
}

/// Names that a line which is no plain assignment may set.
fn line_without_comment(line: &str) -> impl Iterator<Item = &str> {
    let line = if line.starts_with('#') { "" } else { line };
    line.split(|letter: char| letter.is_whitespace() || "&|;({".contains(letter))
        .filter_map(|word| assignment(word).map(|(name, _, _)| name))
}

/// One shell word and the text after it. No word when only a shell could tell it.
fn word<'a>(text: &'a str, settings: &Map<String, Value>) -> (Option<String>, &'a str) {
    let mut word = Some(String::new());
    let mut quote = None;
    let mut at = 0;
    while let Some(letter) = text[at..].chars().next() {
        let begin = at;
        at += letter.len_utf8();
        match (letter, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            (_, Some('\'')) => push(&mut word, letter),
            ('\'' | '"', None) => quote = Some(letter),
            ('\\', _) => {
                if let Some(next) = text[at..].chars().next() {
                    at += next.len_utf8();
                    let special = "$`\"\\\n".contains(next);
                    if quote.is_some() && !special {
                        push(&mut word, letter);
                    }
                    if next != '\n' {
                        push(&mut word, next);
                    }
                }
            }
            ('`', _) => word = None,
            ('$', _) => {
                let (value, length) = expansion(&text[at..], settings);
                at += length;
                match (&mut word, value) {
                    (Some(word), Some(value)) if word.len() + value.len() <= VALUE_BYTES_MAX => {
                        word.push_str(&value);
                    }
                    _ => word = None,
                }
            }
            (letter, None) if letter.is_whitespace() || ";&|".contains(letter) => {
                return (word, &text[begin..]);
            }
            (letter, _) => push(&mut word, letter),
        }
    }
    // A quote that never ends took the rest of the file with it.
    (word.filter(|_| quote.is_none()), "")
}

fn push(word: &mut Option<String>, letter: char) {
    if let Some(word) = word {
        word.push(letter);
    }
}

/// Value of what follows a `$`, and its length. A name nobody set is empty, as in a shell with an
/// empty environment.
fn expansion(text: &str, settings: &Map<String, Value>) -> (Option<String>, usize) {
    let braced = text.strip_prefix('{');
    let inner = braced.unwrap_or(text);
    let end = inner
        .find(|letter: char| !is_name(letter))
        .unwrap_or(inner.len());
    let name = &inner[..end];
    let value = match settings.get(name) {
        None => Some(String::new()),
        Some(Value::String(value)) => Some(value.clone()),
        Some(_) => None,
    };
    if braced.is_some() {
        let closed = inner[end..].starts_with('}') && !name.is_empty();
        return (value.filter(|_| closed), if closed { end + 2 } else { 1 });
    }
    if name.is_empty() {
        // `$(…)` and `$?` are computed; a lone `$` stands for itself.
        let computed = inner.starts_with(|letter: char| "(?!#@*$-'".contains(letter));
        return ((!computed).then(|| "$".to_owned()), 0);
    }
    (value, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(text: &str) -> Map<String, Value> {
        let mut settings = Map::new();
        apply("/etc/default/x", text, &mut settings).unwrap();
        settings
    }

    #[test]
    fn assignments_are_read_as_a_shell_would() {
        for (text, expected) in [
            ("A=1", json!({"A": "1"})),
            (
                "# A=0\n  A=1 # B=2\nexport B='x y'",
                json!({"A": "1", "B": "x y"}),
            ),
            (
                "A=\"quiet splash\"\nA=\"$A audit=1\"\n",
                json!({"A": "quiet splash audit=1"}),
            ),
            ("A=x\nB=${A}y$C\n", json!({"A": "x", "B": "xy"})),
            ("A=x\nA+=\" y\"", json!({"A": "x y"})),
            ("A=\"two\nlines\"\nB=", json!({"A": "two\nlines", "B": ""})),
            ("A=a\"b\"'c'\\ d", json!({"A": "abc d"})),
            ("A=\"a\\\nb\\\"c\\d$\"", json!({"A": "ab\"c\\d$"})),
            ("A=1;\nB=$", json!({"A": "1", "B": "$"})),
            ("", json!({})),
        ] {
            assert_eq!(Value::Object(settings(text)), expected, "{text}");
        }
    }

    /// Proves: RUL-4
    #[test]
    fn what_only_a_shell_could_compute_is_unknown() {
        for text in [
            "A=`lsb_release -i`",
            "A=`hostname`",
            "A=\"$(uname -r)\"",
            "A=${B:-x}",
            "A=x\nif true; then\n  A=y\nfi",
            "A=x\n[ -f /etc/y ] && A=y",
            "A=x; B=y",
            "A=x command",
            "A=\"no end",
            "B=$(x)\nA=\"$B y\"",
        ] {
            let settings = settings(text);
            let unknown = Unknown::from_value(&settings["A"]).expect(text);
            assert_eq!(unknown.reason, Reason::Unsupported, "{text}");
        }
        let doubling = format!("A=xx\n{}", "A=\"$A$A\"\n".repeat(100));
        let appended = format!("A=xx\n{}", "A+=$A\n".repeat(100));
        for text in [doubling, appended] {
            assert!(Unknown::from_value(&settings(&text)["A"]).is_some());
        }
        let mut settings = Map::new();
        let unknown = apply("/etc/x", "A=1\n. /etc/other\n", &mut settings).unwrap_err();
        assert_eq!(unknown.reason, Reason::Unsupported);
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "(A=|B|[${}()'\"\\\\`;&#= \n\u{0}é]|if |fi\n|x){0,40}") {
            apply("x", &text, &mut Map::new()).ok();
        }
    }
}
