//! Settings under `/etc/security`: password quality and history, account locking, limits.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, part};
use crate::facts::Unknown;

pub(super) const COLLECTOR: Collector = Collector {
    name: "security_conf",
    about: "pwquality, faillock, pwhistory and limits under /etc/security",
    reads: &[
        "/etc/security/pwquality.conf",
        "/etc/security/pwquality.conf.d/*.conf",
        "/etc/security/faillock.conf",
        "/etc/security/pwhistory.conf",
        "/etc/security/limits.conf",
        "/etc/security/limits.d/*.conf",
    ],
    patterns: &[
        FactPattern::closed("security_conf", Shape::Map, "settings of /etc/security"),
        FactPattern::closed(
            "security_conf.pwquality",
            Shape::Map,
            "set keys, drop-ins merged",
        ),
        FactPattern::closed(
            "security_conf.pwquality[*]",
            Shape::Text,
            "value, empty for a flag",
        ),
        FactPattern::closed("security_conf.faillock", Shape::Map, "set keys"),
        FactPattern::closed(
            "security_conf.faillock[*]",
            Shape::Text,
            "value, empty for a flag",
        ),
        FactPattern::closed("security_conf.pwhistory", Shape::Map, "set keys"),
        FactPattern::closed(
            "security_conf.pwhistory[*]",
            Shape::Text,
            "value, empty for a flag",
        ),
        FactPattern::closed(
            "security_conf.limits",
            Shape::List,
            "lines in order, later ones win",
        ),
        FactPattern::closed(
            "security_conf.limits[].domain",
            Shape::Text,
            "user, @group, *",
        ),
        FactPattern::closed("security_conf.limits[].type", Shape::Text, "hard, soft, -"),
        FactPattern::closed(
            "security_conf.limits[].item",
            Shape::Text,
            "core, nproc, ...",
        ),
        FactPattern::closed(
            "security_conf.limits[].value",
            Shape::Text,
            "number or unlimited",
        ),
        FactPattern::closed(
            "security_conf.limits[].file",
            Shape::Text,
            "where the line stands",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let one = |name: &str| settings(context, vec![format!("/etc/security/{name}.conf")]);
    Ok(json!({
        "pwquality": part(pwquality(context)),
        "faillock": part(one("faillock")),
        "pwhistory": part(one("pwhistory")),
        "limits": part(limits(context)),
    }))
}

/// pwquality.conf(5): the drop-ins are read first, by name, and the main file overrides them.
fn pwquality(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut files = context.files_in("/etc/security/pwquality.conf.d", ".conf")?;
    files.push("/etc/security/pwquality.conf".to_owned());
    settings(context, files)
}

/// A file that is not there sets nothing: every key has its default.
fn settings(context: &Context<'_>, files: Vec<String>) -> Result<Value, Unknown> {
    let mut settings = Map::new();
    for file in files {
        let text = context.text(&file).known()?.unwrap_or_default();
        settings.extend(parse_settings(&text));
    }
    Ok(Value::Object(settings))
}

/// `key = value`, or a bare key that is a flag.
fn parse_settings(text: &str) -> Map<String, Value> {
    let mut settings = Map::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        settings.insert(key.trim().to_owned(), value.trim().into());
    }
    settings
}

fn limits(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut files = vec!["/etc/security/limits.conf".to_owned()];
    files.extend(context.files_in("/etc/security/limits.d", ".conf")?);
    let mut limits = Vec::new();
    for file in files {
        let text = context.text(&file).known()?.unwrap_or_default();
        limits.extend(parse_limits(&text, &file));
    }
    Ok(Value::Array(limits))
}

/// limits.conf(5): four words. A line with fewer is ignored there as here.
fn parse_limits(text: &str, file: &str) -> Vec<Value> {
    let mut limits = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [domain, kind, item, value, ..] = words[..] {
            limits.push(
                json!({"domain": domain, "type": kind, "item": item, "value": value,
                               "file": file}),
            );
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn drop_ins_of_pwquality_yield_to_the_main_file() {
        let host = Fixture::new(&[
            (
                "/etc/security/pwquality.conf",
                "# minlen = 8\nminlen = 14\nenforce_for_root\n",
            ),
            (
                "/etc/security/pwquality.conf.d/50.conf",
                "minlen=6\nminclass=4 # all\n",
            ),
            ("/etc/security/pwquality.conf.d/60.off", "dcredit=9\n"),
            ("/etc/security/faillock.conf", "audit\ndeny = 3\n"),
        ]);
        let fact = host.collect(&COLLECTOR);
        let pwquality = json!({"minlen": "14", "minclass": "4", "enforce_for_root": ""});
        assert_eq!(fact["pwquality"], pwquality);
        assert_eq!(fact["faillock"], json!({"audit": "", "deny": "3"}));
        assert_eq!(fact["pwhistory"], json!({}));
    }

    #[test]
    fn limits_are_told_in_the_order_in_which_they_apply() {
        let host = Fixture::new(&[
            (
                "/etc/security/limits.conf",
                "#* soft core 0\n* hard core 0 # no\n@staff - nproc\n",
            ),
            (
                "/etc/security/limits.d/a.conf",
                "root\t-\tcore\tunlimited\n\0\n",
            ),
        ]);
        let line = |domain: &str, kind: &str, value: &str, file: &str| json!({"domain": domain, "type": kind, "item": "core", "value": value, "file": file});
        let expected = json!([
            line("*", "hard", "0", "/etc/security/limits.conf"),
            line("root", "-", "unlimited", "/etc/security/limits.d/a.conf"),
        ]);
        assert_eq!(host.collect(&COLLECTOR)["limits"], expected);
    }

    #[test]
    fn one_unreadable_file_costs_its_part_only() {
        let host = Fixture::new(&[("/etc/security/faillock.conf", "deny=3\n")]);
        host.dir("/etc/security/pwhistory.conf");
        let fact = host.collect(&COLLECTOR);
        assert!(Unknown::from_value(&fact["pwhistory"]).is_some());
        assert_eq!(fact["faillock"], json!({"deny": "3"}));
    }
}
