//! What happens to the memory of a program that crashes.

use serde_json::{Value, json};

use super::{Collector, Context, FactPattern, Shape, part, systemd_conf};
use crate::facts::{Reason, Unknown};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

pub(super) const COLLECTOR: Collector = Collector {
    name: "coredump",
    about: "systemd-coredump settings and the kernel's core pattern",
    reads: &[
        "/etc/systemd/coredump.conf",
        "/run/systemd/coredump.conf",
        "/usr/local/lib/systemd/coredump.conf",
        "/usr/lib/systemd/coredump.conf",
        "/etc/systemd/coredump.conf.d/*.conf",
        "/run/systemd/coredump.conf.d/*.conf",
        "/usr/local/lib/systemd/coredump.conf.d/*.conf",
        "/usr/lib/systemd/coredump.conf.d/*.conf",
        PATTERN,
    ],
    patterns: &[
        FactPattern::closed("coredump", Shape::Map, "core dumps"),
        FactPattern::closed(
            "coredump.settings",
            Shape::Map,
            "section Coredump, set keys only",
        ),
        FactPattern::closed("coredump.settings[*]", Shape::Text, "value"),
        FactPattern::closed("coredump.core_pattern", Shape::Text, "kernel.core_pattern"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let settings = systemd_conf::settings(context, "coredump.conf", "Coredump").map(Value::Object);
    let pattern = context.text(PATTERN).known().and_then(|text| {
        text.map(|text| text.trim_end().into())
            .ok_or_else(|| Unknown::new(Reason::Unreadable, format!("{PATTERN}: not there")))
    });
    Ok(json!({ "settings": part(settings), "core_pattern": part(pattern) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn drop_ins_come_after_the_main_file_and_mask_one_another_by_name() {
        let host = Fixture::new(&[
            (PATTERN, "core\n"),
            (
                "/etc/systemd/coredump.conf",
                "[Coredump]\nStorage=external\nKeepFree=1G\n",
            ),
            (
                "/etc/systemd/coredump.conf.d/50-a.conf",
                "[Coredump]\nStorage=none\n",
            ),
            (
                "/usr/lib/systemd/coredump.conf.d/50-a.conf",
                "[Coredump]\nCompress=no\n",
            ),
            (
                "/usr/lib/systemd/coredump.conf.d/60-b.conf",
                "[Coredump]\nKeepFree=\n",
            ),
            (
                "/etc/systemd/coredump.conf.d/70-c.conf.bak",
                "[Coredump]\nStorage=journal\n",
            ),
        ]);
        let expected = json!({"settings": {"Storage": "none"}, "core_pattern": "core"});
        assert_eq!(host.collect(&COLLECTOR), expected);
    }

    #[test]
    fn a_drop_in_that_cannot_be_read_leaves_the_settings_unknown() {
        let host = Fixture::new(&[(PATTERN, "core\n")]);
        host.link("/etc/systemd/coredump.conf.d/50-loop.conf", "50-loop.conf");
        let fact = host.collect(&COLLECTOR);
        let settings = Unknown::from_value(&fact["settings"]).unwrap();
        assert_eq!(settings.reason, Reason::Unreadable);
        assert_eq!(fact["core_pattern"], "core");
    }
}
