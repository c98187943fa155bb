//! firewalld's configuration: the zone of interfaces that name none, and what it lets in.
//!
//! Its zones are small XML files of a fixed form; only the attributes that are judged are taken.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::super::Context;
use crate::{
    facts::{Reason, Unknown},
    target::Links,
};

const PROGRAM: &str = "/usr/sbin/firewalld";
const CONFIG: &str = "/etc/firewalld/firewalld.conf";
/// firewalld.conf(5): when it names none.
const ZONE_DEFAULT: &str = "public";
/// The administrator's before the package's.
const ZONES: [&str; 2] = ["/etc/firewalld/zones", "/usr/lib/firewalld/zones"];
/// firewalld.zone(5): packets that no rule takes are rejected.
const TARGET_DEFAULT: &str = "default";

pub(super) fn firewalld(context: &Context<'_>) -> Result<Value, Unknown> {
    if context.stat(PROGRAM, Links::Follow).known()?.is_none() {
        return Ok(json!({"installed": false, "services": []}));
    }
    let config = context.text(CONFIG).known()?.unwrap_or_default();
    let zone = config
        .lines()
        .filter_map(|line| line.strip_prefix("DefaultZone="))
        .next_back()
        .map(str::trim)
        .filter(|zone| !zone.is_empty())
        .unwrap_or(ZONE_DEFAULT);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if !zone.chars().all(is_name) {
        let detail = format!("{CONFIG}: DefaultZone is no name");
        return Err(Unknown::new(Reason::Malformed, detail));
    }
    for dir in ZONES {
        let path = format!("{dir}/{zone}.xml");
        if let Some(text) = context.text(&path).known()? {
            return read(&path, zone, &text);
        }
    }
    let detail = format!("{}/{zone}.xml: not there", ZONES[1]);
    Err(Unknown::new(Reason::Missing, detail))
}

fn read(path: &str, zone: &str, text: &str) -> Result<Value, Unknown> {
    static COMMENT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("(?s)<!--.*?-->").expect("the constant is a pattern"));
    static ZONE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("<zone([^>]*)>").expect("the constant is a pattern"));
    static TARGET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("target=[\"']([^\"']*)[\"']").expect("the constant is a pattern")
    });
    static SERVICE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("<service\\s+name=[\"']([^\"']*)[\"']").expect("the constant is a pattern")
    });
    let text = COMMENT.replace_all(text, "");
    let head = ZONE
        .captures(&text)
        .ok_or_else(|| Unknown::new(Reason::Malformed, format!("{path}: no <zone>")))?;
    let target = TARGET
        .captures(&head[1])
        .map_or(TARGET_DEFAULT.to_owned(), |found| found[1].to_owned());
    let services: Vec<String> = SERVICE
        .captures_iter(&text)
        .map(|found| found[1].to_owned())
        .collect();
    Ok(json!({
        "installed": true, "default_zone": zone, "target": target, "services": services,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{firewall::COLLECTOR, fixture::Fixture};

    fn fact(files: &[(&str, &str)]) -> Value {
        Fixture::new(files).collect(&COLLECTOR)["firewalld"].clone()
    }

    #[test]
    fn the_administrators_zone_counts_before_the_packages() {
        let package = (
            "/usr/lib/firewalld/zones/public.xml",
            "<zone>\n<service name=\"ssh\"/></zone>",
        );
        assert_eq!(
            fact(&[(PROGRAM, ""), package]),
            json!({"installed": true, "default_zone": "public", "target": "default", "services": ["ssh"]})
        );
        let own = (
            "/etc/firewalld/zones/public.xml",
            "<!-- <zone target=\"DROP\"> --><zone version=\"1\" target='ACCEPT'><service name='x'/></zone>",
        );
        let changed = fact(&[(PROGRAM, ""), package, own]);
        assert_eq!(
            (&changed["target"], &changed["services"]),
            (&json!("ACCEPT"), &json!(["x"]))
        );
        assert_eq!(fact(&[])["installed"], false);
        for config in ["DefaultZone=none-such\n", "DefaultZone=../../x\n"] {
            let fact = fact(&[(PROGRAM, ""), (CONFIG, config), package]);
            assert!(Unknown::from_value(&fact).is_some(), "{config}");
        }
    }
}
