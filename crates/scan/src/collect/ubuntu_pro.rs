//! Ubuntu Pro: whether the host is attached, and which of its services are on.
//!
//! Read from the status that the client keeps for everybody; the client itself is not run, since
//! it takes its lock and may ask the network.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, part, rows};
use crate::{
    facts::{Reason, Unknown},
    target::Links,
};

const PROGRAMS: [&str; 2] = ["/usr/bin/pro", "/usr/bin/ubuntu-advantage"];
const STATUS: &str = "/var/lib/ubuntu-advantage/status.json";

pub(super) const COLLECTOR: Collector = Collector {
    name: "ubuntu_pro",
    about: "Ubuntu Pro: attached or not, services",
    reads: &["/usr/bin/pro", "/usr/bin/ubuntu-advantage", STATUS],
    families: &["ubuntu"],
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("ubuntu_pro", Shape::Map, "Ubuntu Pro"),
        FactPattern::closed("ubuntu_pro.installed", Shape::Bool, "its client exists"),
        FactPattern::closed("ubuntu_pro.attached", Shape::Bool, "to a subscription"),
        FactPattern::closed("ubuntu_pro.services", Shape::Map, "by name"),
        FactPattern::closed(
            "ubuntu_pro.services[*]",
            Shape::Text,
            "esm-infra: enabled, disabled, n/a, warning",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut installed = false;
    for program in PROGRAMS {
        installed |= context.stat(program, Links::Follow).known()?.is_some();
    }
    let status = status(context, installed);
    let attached = status.clone().map(|(attached, _)| attached.into());
    Ok(json!({
        "installed": installed,
        "attached": part(attached),
        "services": part(status.map(|(_, services)| Value::Object(services))),
    }))
}

fn status(context: &Context<'_>, installed: bool) -> Result<(bool, Map<String, Value>), Unknown> {
    let malformed = || {
        Unknown::new(
            Reason::Malformed,
            format!("{STATUS}: not as the client writes it"),
        )
    };
    let Some(text) = context.text(STATUS).known()? else {
        // Without its client a host is attached to nothing.
        return if installed {
            let detail = format!("{STATUS}: not there; `pro status` of root writes it");
            Err(Unknown::new(Reason::Missing, detail))
        } else {
            Ok((false, Map::new()))
        };
    };
    let status: Value = serde_json::from_str(&text).map_err(|_| malformed())?;
    let attached = status["attached"].as_bool().ok_or_else(malformed)?;
    let services = status["services"].as_array().ok_or_else(malformed)?;
    let services = services.iter().filter_map(|one| {
        Some((
            one["name"].as_str()?.to_owned(),
            one["status"].as_str()?.into(),
        ))
    });
    Ok((attached, rows::collect(services, STATUS)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn the_status_of_the_client_is_read_and_its_absence_is_not_detached() {
        let text =
            r#"{"attached": true, "services": [{"name": "esm-infra", "status": "enabled"}]}"#;
        let host = Fixture::new(&[("/usr/bin/pro", ""), (STATUS, text)]);
        assert_eq!(
            host.collect(&COLLECTOR),
            json!({"installed": true, "attached": true, "services": {"esm-infra": "enabled"}})
        );
        let bare = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(bare["attached"], false);
        for (files, reason) in [
            (vec![("/usr/bin/pro", "")], Reason::Missing),
            (
                vec![("/usr/bin/pro", ""), (STATUS, "{}")],
                Reason::Malformed,
            ),
            (vec![("/usr/bin/pro", ""), (STATUS, "[")], Reason::Malformed),
        ] {
            let fact = Fixture::new(&files).collect(&COLLECTOR);
            let unknown = Unknown::from_value(&fact["attached"]).unwrap();
            assert_eq!(unknown.reason, reason);
        }
    }
}
