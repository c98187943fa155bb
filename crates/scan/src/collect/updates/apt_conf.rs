//! apt.conf(5): nested scopes, flattened to `Scope::Key`.
//!
//! Names are case-insensitive to apt. They stand here as first written, the ones rules ask for in
//! their usual spelling.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    collect::rows,
    facts::{Reason, Unknown},
};

/// Settings that matter here, as the manual pages spell them.
const USUAL: [&str; 14] = [
    "APT::Periodic::Enable",
    "APT::Periodic::Update-Package-Lists",
    "APT::Periodic::Download-Upgradeable-Packages",
    "APT::Periodic::Unattended-Upgrade",
    "APT::Periodic::AutocleanInterval",
    "APT::Get::AllowUnauthenticated",
    "APT::Install-Recommends",
    "APT::Install-Suggests",
    "APT::Sandbox::Seccomp",
    "Acquire::AllowInsecureRepositories",
    "Acquire::AllowWeakRepositories",
    "Acquire::AllowDowngradeToInsecureRepositories",
    "Acquire::Check-Valid-Until",
    "Unattended-Upgrade::Automatic-Reboot",
];

/// Scopes inside one another. Real files have four.
const DEPTH_MAX: usize = 64;

/// Words of one statement. `#clear` may name several settings.
const WORDS_MAX: usize = 64;

/// Names of all scopes around a setting.
const NAME_BYTES_MAX: usize = 4 << 10;

#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Value by full name, the last one written.
    pub(super) values: Map<String, Value>,
    /// Elements by full name of the list, all files together.
    pub(super) lists: Map<String, Value>,
    /// How each name was first written, by the name in lower case.
    spellings: BTreeMap<String, String>,
    /// Statements that set something, all files together.
    entries: usize,
}

impl Settings {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(Value::as_str)
    }

    /// Applies one file to what earlier files set.
    ///
    /// # Errors
    /// It sets too much, or under names too long.
    pub(super) fn apply(&mut self, file: &str, text: &str) -> Result<(), Unknown> {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                // A statement has two words; more of one that never ends are not kept.
                Token::Word(word) if words.len() < WORDS_MAX => words.push(word),
                Token::Word(_) => {}
                Token::Open => {
                    let name = words.first().cloned().unwrap_or_default();
                    let length: usize = scopes.iter().map(String::len).sum();
                    if scopes.len() == DEPTH_MAX || length + name.len() > NAME_BYTES_MAX {
                        let detail = format!("{file}: scopes beyond any real name");
                        return Err(Unknown::new(Reason::Truncated, detail));
                    }
                    scopes.push(name);
                    words.clear();
                }
                Token::Close => {
                    self.statement(&scopes, &words);
                    words.clear();
                    scopes.pop();
                }
                Token::End => {
                    self.statement(&scopes, &words);
                    words.clear();
                }
            }
            rows::check(self.entries, file)?;
        }
        Ok(())
    }

    fn statement(&mut self, scopes: &[String], words: &[String]) {
        self.entries += 1;
        let scope = || scopes.iter().map(String::as_str);
        let join = |name: &str| scope().chain([name]).collect::<Vec<_>>().join("::");
        match words {
            [clear, names @ ..] if clear == "#clear" => {
                for name in names {
                    self.clear(name);
                }
            }
            [value] if !scopes.is_empty() => self.append(&join(""), value),
            [name, value, ..] if name.ends_with("::") => self.append(&join(name), value),
            [name, value, ..] => {
                let name = self.spelling(&join(name));
                self.values.insert(name, value.as_str().into());
            }
            _ => {}
        }
    }

    fn append(&mut self, name: &str, value: &str) {
        let name = self.spelling(name.trim_end_matches("::"));
        let list = self
            .lists
            .entry(name)
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value.into());
        }
    }

    fn spelling(&mut self, name: &str) -> String {
        let usual = || USUAL.iter().find(|usual| usual.eq_ignore_ascii_case(name));
        self.spellings
            .entry(name.to_ascii_lowercase())
            .or_insert_with(|| usual().map_or(name, |usual| usual).to_owned())
            .clone()
    }

    fn clear(&mut self, name: &str) {
        let name = name.trim_end_matches("::").to_ascii_lowercase();
        let inner = format!("{name}::");
        let stays = |key: &String, _: &mut Value| {
            let key = key.to_ascii_lowercase();
            key != name && !key.starts_with(&inner)
        };
        self.values.retain(stays);
        self.lists.retain(stays);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// One at a time: a file of semicolons has as many tokens as bytes.
fn tokens(text: &str) -> impl Iterator<Item = Token> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let letter = rest.chars().next()?;
            let skip_to = |end: &str| rest.split_once(end).map_or("", |(_, after)| after);
            if letter.is_whitespace() {
                rest = rest.trim_start();
            } else if rest.starts_with("//") || (letter == '#' && !rest.starts_with("#clear")) {
                rest = skip_to("\n");
            } else if rest.starts_with("/*") {
                rest = skip_to("*/");
            } else {
                let (token, after) = token(rest, letter);
                rest = after;
                return Some(token);
            }
        }
    })
}

fn token(text: &str, first: char) -> (Token, &str) {
    let after = &text[first.len_utf8()..];
    match first {
        '"' => {
            let (word, after) = after.split_once('"').unwrap_or((after, ""));
            (Token::Word(word.to_owned()), after)
        }
        '{' => (Token::Open, after),
        '}' => (Token::Close, after),
        ';' => (Token::End, after),
        _ => {
            let is_end = |letter: char| letter.is_whitespace() || "{};\"".contains(letter);
            let (word, after) = text.split_at(text.find(is_end).unwrap_or(text.len()));
            (Token::Word(word.to_owned()), after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_are_flattened_lists_collected_and_the_last_value_wins() {
        let mut settings = Settings::default();
        let mut apply = |text: &str| settings.apply("x", text).unwrap();
        apply(
            "// x\nAPT::Periodic::Update-Package-Lists \"1\";\napt::periodic::unattended-upgrade \"0\"; # y\n\
             /* APT::X \"1\"; */ APT { Get { AllowUnauthenticated true; }; NeverAutoRemove { \"^linux\"; \"^firmware\"; }; };\n\
             Unattended-Upgrade::Origins-Pattern { \"origin=Debian,label=Debian\"; }\nDPkg::Post-Invoke:: \"rm //tmp;\";\n",
        );
        apply("APT::Periodic { Unattended-Upgrade \"1\"; };");
        assert_eq!(
            Value::Object(settings.values.clone()),
            json!({
                "APT::Periodic::Update-Package-Lists": "1",
                "APT::Periodic::Unattended-Upgrade": "1",
                "APT::Get::AllowUnauthenticated": "true",
            })
        );
        assert_eq!(
            Value::Object(settings.lists.clone()),
            json!({
                "APT::NeverAutoRemove": ["^linux", "^firmware"],
                "Unattended-Upgrade::Origins-Pattern": ["origin=Debian,label=Debian"],
                "DPkg::Post-Invoke": ["rm //tmp;"],
            })
        );
        settings
            .apply("x", "#clear apt::periodic;\n#clear DPkg::Post-Invoke;")
            .unwrap();
        assert_eq!(settings.values.len(), 1);
        assert_eq!(settings.lists.len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "([a-zA-Z:]{1,3}|[{};\"#/* \n\u{0}é]|//|/\\*|#clear ){0,60}") {
            Settings::default().apply("x", &text).ok();
        }
    }
}
