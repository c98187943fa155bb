//! Settings of the journal, from journald.conf(5) and its drop-ins.

use serde_json::{Value, json};

use super::{Collector, Context, FactPattern, Shape, part, rows, systemd_conf};
use crate::facts::Unknown;

pub(super) const COLLECTOR: Collector = Collector {
    name: "journald",
    about: "systemd-journald settings",
    reads: &[
        "/etc/systemd/journald.conf",
        "/run/systemd/journald.conf",
        "/usr/local/lib/systemd/journald.conf",
        "/usr/lib/systemd/journald.conf",
        "/etc/systemd/journald.conf.d/*.conf",
        "/run/systemd/journald.conf.d/*.conf",
        "/usr/local/lib/systemd/journald.conf.d/*.conf",
        "/usr/lib/systemd/journald.conf.d/*.conf",
    ],
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("journald", Shape::Map, "the journal"),
        FactPattern::closed(
            "journald.settings",
            Shape::Map,
            "section Journal, set keys only: a missing one is at journald's default",
        ),
        FactPattern::closed("journald.settings[*]", Shape::Text, "value"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let settings = systemd_conf::settings(context, "journald.conf", "Journal").map(Value::Object);
    Ok(json!({ "settings": part(settings) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collect::fixture::Fixture, facts::Reason};

    #[test]
    fn a_drop_in_wins_over_the_main_file_and_comments_set_nothing() {
        let host = Fixture::new(&[
            (
                "/etc/systemd/journald.conf",
                "[Journal]\n#Storage=auto\nCompress=yes\nForwardToSyslog=yes\n",
            ),
            (
                "/etc/systemd/journald.conf.d/10-site.conf",
                "[Journal]\nStorage=persistent\nForwardToSyslog=no\n[Other]\nCompress=no\n",
            ),
        ]);
        let expected = json!({"settings": {
            "Compress": "yes", "ForwardToSyslog": "no", "Storage": "persistent",
        }});
        assert_eq!(host.collect(&COLLECTOR), expected);
        let nothing = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(nothing, json!({"settings": {}}));
    }

    #[test]
    fn a_main_file_that_cannot_be_read_leaves_the_settings_unknown() {
        let host = Fixture::new(&[]);
        host.dir("/etc/systemd/journald.conf");
        let fact = host.collect(&COLLECTOR);
        let unknown = Unknown::from_value(&fact["settings"]).unwrap();
        assert_eq!(unknown.reason, Reason::Unreadable);
    }
}
