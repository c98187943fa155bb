//! Facts of small hosts that a seed makes up, for `scan --replay`.

use serde_json::{Value, json};

use super::dice::Dice;

/// Settings whose values decide a rule each; with the weak ones it fails. Two strong values give the
/// same verdict on other evidence.
const SETTINGS: [(&str, &str, &[&str]); 5] = [
    (
        "sysctl-kptr-restrict",
        "kernel.kptr_restrict",
        &["0", "1", "2"],
    ),
    (
        "sysctl-dmesg-restrict",
        "kernel.dmesg_restrict",
        &["0", "1"],
    ),
    (
        "sysctl-randomize-va-space",
        "kernel.randomize_va_space",
        &["1", "2"],
    ),
    (
        "sysctl-tcp-syncookies",
        "net.ipv4.tcp_syncookies",
        &["0", "1", "2"],
    ),
    (
        "ipv4-source-routing-off",
        "net.ipv4.conf.all.accept_source_route",
        &["1", "0"],
    ),
];

/// Hosts in one data directory: one must not see the other's scans.
pub(crate) const HOSTS: [&str; 2] = ["press-3", "kiln-1"];

/// Bundles of one host. Each costs an undisturbed scan to know what it must give.
const BUNDLES: usize = 4;

/// The facts of one host at one time.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    /// Relative to the sandbox.
    pub(crate) file: String,
    pub(crate) facts: Value,
}

/// Rules that the bundles flip.
pub(crate) fn flipping() -> [&'static str; 5] {
    SETTINGS.map(|(rule, ..)| rule)
}

/// A few bundles of each host.
pub(crate) fn bundles(dice: &mut Dice) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    for host in HOSTS {
        for number in 0..BUNDLES {
            bundles.push(Bundle {
                file: format!("{host}-{number}.json"),
                facts: facts(host, dice),
            });
        }
    }
    bundles
}

fn facts(host: &str, dice: &mut Dice) -> Value {
    let mut running = serde_json::Map::new();
    let mut persistent = serde_json::Map::new();
    for (_, key, values) in SETTINGS {
        let value = dice.pick(values).copied().unwrap_or_default();
        running.insert(key.to_owned(), json!(value));
        let set = json!({"value": value, "file": "/etc/sysctl.d/a.conf"});
        persistent.insert(key.to_owned(), set);
    }
    json!({
        "schema": "holdfast.facts/1",
        "host": {"hostname": host},
        "collected_at": "2026-01-15T00:00:00Z",
        "collector": "cargo proof crash",
        "facts": {
            "os": {"id": "debian", "version_id": "12", "pretty_name": "Debian GNU/Linux 12"},
            "sysctl": {"running": running, "persistent": persistent}
        },
        "timings_ms": {}
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_follow_from_the_seed_and_differ_from_each_other() {
        let facts = |seed| {
            let made = bundles(&mut Dice::new(seed));
            made.into_iter().map(|it| it.facts).collect::<Vec<_>>()
        };
        let made = facts(1);
        assert_eq!(made, facts(1));
        assert_ne!(made, facts(2));
        assert_eq!(made.len(), HOSTS.len() * BUNDLES);
        assert!(made.iter().any(|other| other["facts"] != made[0]["facts"]));
    }
}
