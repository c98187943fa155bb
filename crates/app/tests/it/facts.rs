//! Fact bundles made by hand: a small host whose settings a test can change.

use serde_json::{Value, json};

/// A Debian host with a few facts of each kind of rule.
pub(crate) fn bundle(host: &str, kptr: &str) -> Value {
    json!({
        "schema": "holdfast.facts/1",
        "host": {"hostname": host},
        "collected_at": "2026-01-15T00:00:00Z",
        "collector": "a test",
        "facts": {
            "os": {"id": "debian", "version_id": "12", "pretty_name": "Debian GNU/Linux 12"},
            "sysctl": {
                "running": {"net.ipv4.ip_forward": "0", "kernel.kptr_restrict": kptr},
                "persistent": {
                    "kernel.kptr_restrict": {"value": kptr, "file": "/etc/sysctl.d/a.conf"}
                }
            }
        },
        "timings_ms": {}
    })
}

/// The rule that [`bundle`]'s `kptr` decides: 2 passes, 0 fails.
pub(crate) const KPTR_RULE: &str = "sysctl-kptr-restrict";
