//! The state and ageing of passwords, from shadow(5).
//!
//! No hash leaves this file: what is told of a password is whether there is one and which algorithm
//! made it.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape, rows};
use crate::facts::{Reason, Unknown};

const SHADOW: &str = "/etc/shadow";

pub(super) const COLLECTOR: Collector = Collector {
    name: "shadow",
    about: "state and ageing of passwords; never a hash",
    reads: &[SHADOW],
    privilege: Privilege::Root,
    patterns: &[
        FactPattern::closed("shadow", Shape::Map, "passwords"),
        FactPattern::closed("shadow.users", Shape::Map, "by user"),
        FactPattern::closed(
            "shadow.users[*]",
            Shape::Map,
            "one user; unset ages are absent",
        ),
        FactPattern::closed(
            "shadow.users[*].password",
            Shape::Text,
            "set, locked (a password behind `!`), empty (anyone may enter), none (nothing matches)",
        ),
        FactPattern::closed(
            "shadow.users[*].algorithm",
            Shape::Text,
            "yescrypt, gost-yescrypt, sha512, sha256, bcrypt, md5, des, unknown; only when set",
        ),
        FactPattern::closed(
            "shadow.users[*].last_change_day",
            Shape::Int,
            "days since 1970",
        ),
        FactPattern::closed("shadow.users[*].min_days", Shape::Int, "days"),
        FactPattern::closed("shadow.users[*].max_days", Shape::Int, "days"),
        FactPattern::closed("shadow.users[*].warn_days", Shape::Int, "days"),
        FactPattern::closed("shadow.users[*].inactive_days", Shape::Int, "days"),
        FactPattern::closed("shadow.users[*].expire_day", Shape::Int, "days since 1970"),
    ],
    collect,
    ..Collector::DEFAULT
};

const AGES: [&str; 6] = [
    "last_change_day",
    "min_days",
    "max_days",
    "warn_days",
    "inactive_days",
    "expire_day",
];

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let text = context
        .text(SHADOW)
        .known()?
        .ok_or_else(|| Unknown::new(Reason::Unreadable, format!("{SHADOW}: not there")))?;
    Ok(json!({ "users": parse(&text)? }))
}

fn parse(text: &str) -> Result<Map<String, Value>, Unknown> {
    let mut users = Map::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself must not be quoted: it may hold a hash.
        let malformed = || {
            let detail = format!("{SHADOW}: line {}", index + 1);
            Unknown::new(Reason::Malformed, detail)
        };
        let mut fields = line.split(':');
        let (Some(name), Some(password)) = (fields.next(), fields.next()) else {
            return Err(malformed());
        };
        let mut user = password_state(password);
        for key in AGES {
            let field = fields.next().ok_or_else(malformed)?;
            if !field.is_empty() {
                let days: i64 = field.parse().map_err(|_| malformed())?;
                user.insert(key.into(), days.into());
            }
        }
        // As in the C library, the first line of a name counts.
        users.entry(name).or_insert(Value::Object(user));
        rows::check(users.len(), SHADOW)?;
    }
    Ok(users)
}

fn password_state(password: &str) -> Map<String, Value> {
    let mut state = Map::new();
    let behind_lock = password.trim_start_matches('!');
    let word = match (algorithm(behind_lock), password) {
        (_, "") => "empty",
        (Some(algorithm), _) if behind_lock == password => {
            state.insert("algorithm".into(), algorithm.into());
            "set"
        }
        (Some(_), _) => "locked",
        // crypt(3) makes no such text, so no password matches it: `*`, `!`, `!*`, `x`.
        (None, _) => "none",
    };
    state.insert("password".into(), word.into());
    state
}

/// By the prefixes of crypt(5). `None` when the text cannot be a hash.
fn algorithm(hash: &str) -> Option<&'static str> {
    if let Some(rest) = hash.strip_prefix('$') {
        let (id, rest) = rest.split_once('$')?;
        return (!rest.is_empty()).then_some(match id {
            "y" => "yescrypt",
            "gy" => "gost-yescrypt",
            "6" => "sha512",
            "5" => "sha256",
            "2" | "2a" | "2b" | "2x" | "2y" => "bcrypt",
            "1" => "md5",
            _ => "unknown",
        });
    }
    let is_salted = |text: &str| {
        let mut letters = text.bytes();
        letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'.' | b'/'))
    };
    // Traditional DES has 13 letters, its extended form `_` and 19.
    let is_des = hash.len() == 13 && is_salted(hash);
    let is_extended = hash.len() == 20 && hash.strip_prefix('_').is_some_and(is_salted);
    (is_des || is_extended).then_some("des")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn each_password_field_has_its_state_and_algorithm() {
        let check = |field: &str, password: &str, algorithm: Option<&str>| {
            let mut expected = json!({ "password": password });
            if let Some(algorithm) = algorithm {
                expected["algorithm"] = algorithm.into();
            }
            assert_eq!(Value::Object(password_state(field)), expected, "{field}");
        };
        check("$y$j9T$salt$hash", "set", Some("yescrypt"));
        check("$gy$j9T$salt$hash", "set", Some("gost-yescrypt"));
        check("$6$salt$hash", "set", Some("sha512"));
        check("$5$rounds=5000$salt$hash", "set", Some("sha256"));
        check("$2b$12$saltandhash", "set", Some("bcrypt"));
        check("$1$salt$hash", "set", Some("md5"));
        check("$9$what", "set", Some("unknown"));
        check("ab1234567890.", "set", Some("des"));
        check("_J9..K0AyUubDrfOgO4s", "set", Some("des"));
        check("!$y$j9T$salt$hash", "locked", None);
        check("!!$6$salt$hash", "locked", None);
        check("", "empty", None);
        for field in ["*", "!", "!!", "!*", "x", "$", "$6$", "NP"] {
            check(field, "none", None);
        }
    }

    #[test]
    fn ages_are_numbers_when_set_and_absent_when_not_and_no_hash_is_told() {
        let text = "root:$6$SECRET$SECRET:19500:0:99999:7:::\nann:*:20000::::30:20100:\n";
        let users = Value::Object(parse(text).unwrap());
        let expected = json!({
            "root": {"password": "set", "algorithm": "sha512", "last_change_day": 19500,
                     "min_days": 0, "max_days": 99999, "warn_days": 7},
            "ann": {"password": "none", "last_change_day": 20000, "inactive_days": 30,
                    "expire_day": 20100},
        });
        assert_eq!(users, expected);
        assert!(!users.to_string().contains("SECRET"));
    }

    #[test]
    fn a_malformed_line_makes_all_unknown_and_is_named_without_its_text() {
        for text in [
            "SECRET",
            "a:SECRET:1:2",
            "a:SECRET:x:::::",
            "\0SECRET\u{fffd}",
        ] {
            let unknown = parse(text).unwrap_err();
            assert_eq!(unknown.reason, Reason::Malformed);
            assert_eq!(unknown.detail, "/etc/shadow: line 1");
        }
        let fact = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(
            Unknown::from_value(&fact).unwrap().reason,
            Reason::Unreadable
        );
    }
}
