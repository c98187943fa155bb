//! Fact bundles made by hand: a small host whose settings a test can change.

use serde_json::{Value, json};

/// A Debian host with a few facts of each kind of rule.
pub(crate) fn bundle(host: &str, forwarding: &str) -> Value {
    json!({
        "schema": "holdfast.facts/1",
        "host": {"hostname": host},
        "collected_at": "2026-01-15T00:00:00Z",
        "collector": "a test",
        "facts": {
            "os": {"id": "debian", "version_id": "12", "pretty_name": "Debian GNU/Linux 12"},
            "sysctl": {
                "running": {"net.ipv4.ip_forward": forwarding, "kernel.kptr_restrict": "2"},
                "persistent": {
                    "net.ipv4.ip_forward": {"value": forwarding, "file": "/etc/sysctl.d/a.conf"},
                    "kernel.kptr_restrict": {"value": "2", "file": "/etc/sysctl.d/a.conf"}
                }
            }
        },
        "timings_ms": {}
    })
}

/// The rule that [`bundle`]'s `forwarding` decides.
pub(crate) const FORWARDING_RULE: &str = "ipv4-forwarding-off";
