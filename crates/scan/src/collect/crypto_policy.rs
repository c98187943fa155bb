//! The system-wide cryptographic policy of Red Hat's family, and FIPS mode.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, part, rows};
use crate::{
    facts::{Reason, Unknown},
    target::Found,
};

const CONFIG: &str = "/etc/crypto-policies/config";
const CURRENT: &str = "/etc/crypto-policies/state/current";
const FIPS: &str = "/proc/sys/crypto/fips_enabled";

pub(super) const COLLECTOR: Collector = Collector {
    name: "crypto_policy",
    about: "crypto-policies: the policy set and in force; FIPS mode of the kernel",
    reads: &[CONFIG, CURRENT, FIPS, "/proc/sys/kernel/osrelease"],
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("crypto_policy", Shape::Map, "cryptographic policy"),
        FactPattern::closed(
            "crypto_policy.configured",
            Shape::Text,
            "name in /etc/crypto-policies/config: DEFAULT, DEFAULT:NO-SHA1, FUTURE, FIPS, LEGACY",
        ),
        FactPattern::closed(
            "crypto_policy.current",
            Shape::Text,
            "name of the policy that was applied last",
        ),
        FactPattern::closed(
            "crypto_policy.fips_enabled",
            Shape::Bool,
            "the kernel runs in FIPS mode",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut policy = Map::new();
    for (fact, path) in [("configured", CONFIG), ("current", CURRENT)] {
        match context.text(path) {
            Found::Present(text) => {
                let line = text
                    .lines()
                    .map(str::trim)
                    .find(|line| !line.is_empty() && !line.starts_with('#'));
                let name = line.map(Value::from).ok_or_else(|| {
                    Unknown::new(Reason::Malformed, format!("{path}: names no policy"))
                });
                policy.insert(fact.into(), part(name));
            }
            Found::Absent => {}
            Found::Unknown(unknown) => {
                policy.insert(fact.into(), unknown.to_value());
            }
        }
    }
    policy.insert("fips_enabled".into(), part(fips(context)));
    Ok(Value::Object(policy))
}

/// A kernel without the file has no such mode; without `/proc` nobody can tell.
fn fips(context: &Context<'_>) -> Result<Value, Unknown> {
    match context.text(FIPS).known()? {
        Some(text) => Ok(json!(text.trim() == "1")),
        None if matches!(
            context.text("/proc/sys/kernel/osrelease"),
            Found::Present(_)
        ) =>
        {
            Ok(json!(false))
        }
        None => Err(Unknown::new(
            Reason::Unreadable,
            format!("{FIPS}: no /proc"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn the_policy_set_and_the_one_in_force_stand_side_by_side() {
        let host = Fixture::new(&[
            (CONFIG, "# comment\n\nFUTURE\n"),
            (CURRENT, "DEFAULT:NO-SHA1\n"),
            (FIPS, "0\n"),
        ]);
        assert_eq!(
            host.collect(&COLLECTOR),
            json!({"configured": "FUTURE", "current": "DEFAULT:NO-SHA1", "fips_enabled": false})
        );
        host.write(CURRENT, b"#\n");
        host.write(FIPS, b"1");
        let fact = host.collect(&COLLECTOR);
        assert!(Unknown::from_value(&fact["current"]).is_some());
        assert_eq!(fact["fips_enabled"], true);
        let nothing = Fixture::new(&[]).collect(&COLLECTOR);
        assert!(Unknown::from_value(&nothing["fips_enabled"]).is_some());
    }
}
