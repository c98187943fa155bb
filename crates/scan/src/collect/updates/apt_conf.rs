//! apt.conf(5): nested scopes, flattened to `Scope::Key`.
//!
//! Names are case-insensitive to apt. They stand here as first written, the ones rules ask for in
//! their usual spelling.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

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

#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Value by full name, the last one written.
    pub(super) values: Map<String, Value>,
    /// Elements by full name of the list, all files together.
    pub(super) lists: Map<String, Value>,
    /// How each name was first written, by the name in lower case.
    spellings: BTreeMap<String, String>,
}

impl Settings {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(Value::as_str)
    }

    /// Applies one file to what earlier files set.
    pub(super) fn apply(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    // Beyond the limit the scope stays the outer one: names are wrong, nothing grows.
                    let name = words.first().cloned().unwrap_or_default();
                    if scopes.len() < DEPTH_MAX {
                        scopes.push(name);
                    }
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
        }
    }

    fn statement(&mut self, scopes: &[String], words: &[String]) {
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

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let skip_to = |end: &str| rest.split_once(end).map_or("", |(_, after)| after);
        if letter.is_whitespace() {
            rest = rest.trim_start();
        } else if rest.starts_with("//") || (letter == '#' && !rest.starts_with("#clear")) {
            rest = skip_to("\n");
        } else if rest.starts_with("/*") {
            rest = skip_to("*/");
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (word, after) = quoted.split_once('"').unwrap_or((quoted, ""));
            tokens.push(Token::Word(word.to_owned()));
            rest = after;
        } else if "{};".contains(letter) {
            tokens.push(match letter {
                '{' => Token::Open,
                '}' => Token::Close,
                _ => Token::End,
            });
            rest = &rest[1..];
        } else {
            let is_end = |letter: char| letter.is_whitespace() || "{};\"".contains(letter);
            let (word, after) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
            tokens.push(Token::Word(word.to_owned()));
            rest = after;
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_are_flattened_lists_collected_and_the_last_value_wins() {
        let mut settings = Settings::default();
        settings.apply(
            "// x\nAPT::Periodic::Update-Package-Lists \"1\";\napt::periodic::unattended-upgrade \"0\"; # y\n\
             /* APT::X \"1\"; */ APT { Get { AllowUnauthenticated true; }; NeverAutoRemove { \"^linux\"; \"^firmware\"; }; };\n\
             Unattended-Upgrade::Origins-Pattern { \"origin=Debian,label=Debian\"; }\nDPkg::Post-Invoke:: \"rm //tmp;\";\n",
        );
        settings.apply("APT::Periodic { Unattended-Upgrade \"1\"; };");
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
        settings.apply("#clear apt::periodic;\n#clear DPkg::Post-Invoke;");
        assert_eq!(settings.values.len(), 1);
        assert_eq!(settings.lists.len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "([a-zA-Z:]{1,3}|[{};\"#/* \n\u{0}é]|//|/\\*|#clear ){0,60}") {
            Settings::default().apply(&text);
        }
    }
}
