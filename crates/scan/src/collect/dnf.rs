//! dnf: its settings, its repositories, and what dnf-automatic is told to do.
//!
//! Read from the files of dnf.conf(5). Pending updates are not asked for: dnf takes the lock of its
//! cache and writes logs even when it only looks.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, rows};
use crate::{facts::Unknown, target::Links};

const PROGRAM: &str = "/usr/bin/dnf";
const CONFIG: &str = "/etc/dnf/dnf.conf";
const REPOS: &str = "/etc/yum.repos.d";
const AUTOMATIC: &str = "/etc/dnf/automatic.conf";

pub(super) const COLLECTOR: Collector = Collector {
    name: "dnf",
    about: "dnf: settings, repositories, dnf-automatic",
    reads: &[PROGRAM, CONFIG, "/etc/yum.repos.d/*.repo", AUTOMATIC],
    families: &["rhel"],
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("dnf", Shape::Map, "dnf"),
        FactPattern::closed("dnf.installed", Shape::Bool, "/usr/bin/dnf exists"),
        FactPattern::closed("dnf.main", Shape::Map, "[main] of dnf.conf"),
        FactPattern::closed("dnf.main[*]", Shape::Text, "value as written"),
        FactPattern::closed("dnf.repos", Shape::List, "repositories of yum.repos.d"),
        FactPattern::closed("dnf.repos[].id", Shape::Text, "name of its section"),
        FactPattern::closed("dnf.repos[].file", Shape::Text, "where it stands"),
        FactPattern::closed("dnf.repos[].enabled", Shape::Bool, "used; the default"),
        FactPattern::closed(
            "dnf.repos[].gpgcheck",
            Shape::Bool,
            "packages need a signature, by its own setting or that of dnf.conf",
        ),
        FactPattern::closed(
            "dnf.repos[].sslverify",
            Shape::Bool,
            "certificates of servers are checked, likewise; the default",
        ),
        FactPattern::closed(
            "dnf.automatic",
            Shape::Map,
            "automatic.conf, keys as section.key",
        ),
        FactPattern::closed(
            "dnf.automatic[*]",
            Shape::Text,
            "value: commands.apply_updates",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let installed = context.stat(PROGRAM, Links::Follow).known()?.is_some();
    let text = |path: &str| context.text(path).known().map(Option::unwrap_or_default);
    let main: Map<String, Value> = sections(&text(CONFIG)?)
        .into_iter()
        .filter(|(section, _, _)| section == "main")
        .map(|(_, key, value)| (key, value.into()))
        .collect();
    let mut repos = Vec::new();
    for file in context.files_in(REPOS, ".repo")? {
        repos.extend(repositories(&file, &text(&file)?, &main));
        rows::check(repos.len(), &file)?;
    }
    let automatic: Map<String, Value> = sections(&text(AUTOMATIC)?)
        .into_iter()
        .map(|(section, key, value)| (format!("{section}.{key}"), value.into()))
        .collect();
    rows::check(main.len() + automatic.len(), CONFIG)?;
    Ok(json!({"installed": installed, "main": main, "repos": repos, "automatic": automatic}))
}

fn repositories(file: &str, text: &str, main: &Map<String, Value>) -> Vec<Value> {
    let mut repos: Vec<(String, Map<String, Value>)> = Vec::new();
    for line in text.lines() {
        if let Some(id) = section(line) {
            repos.push((id.to_owned(), Map::new()));
        } else if let (Some((_, settings)), Some((key, value))) = (repos.last_mut(), setting(line))
        {
            settings.insert(key.to_owned(), value.into());
        }
    }
    repos
        .into_iter()
        .filter(|(id, _)| id != "main")
        .map(|(id, settings)| {
            let own = |key: &str| settings.get(key).and_then(Value::as_str).map(is_true);
            let inherited = |key: &str| main.get(key).and_then(Value::as_str).map(is_true);
            json!({
                "id": id,
                "file": file,
                "enabled": own("enabled").unwrap_or(true),
                "gpgcheck": own("gpgcheck").or_else(|| inherited("gpgcheck")).unwrap_or(false),
                "sslverify": own("sslverify").or_else(|| inherited("sslverify")).unwrap_or(true),
            })
        })
        .collect()
}

fn sections(text: &str) -> Vec<(String, String, String)> {
    let mut here = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = section(line) {
            name.clone_into(&mut here);
        } else if let Some((key, value)) = setting(line) {
            found.push((here.clone(), key.to_owned(), value.to_owned()));
        }
    }
    found
}

fn section(line: &str) -> Option<&str> {
    line.trim_end().strip_prefix('[')?.split(']').next()
}

/// A line that begins with a blank continues the one above and is no setting.
fn setting(line: &str) -> Option<(&str, &str)> {
    if line.starts_with(['#', ';', ' ', '\t']) {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    Some((key.trim(), value.trim()))
}

/// As dnf reads a boolean.
fn is_true(value: &str) -> bool {
    ["1", "yes", "true", "on"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn a_repository_inherits_what_it_does_not_set() {
        let host = Fixture::new(&[
            (
                CONFIG,
                "[main]\ngpgcheck=1\nlocalpkg_gpgcheck = True\n# best=0\n",
            ),
            (
                "/etc/yum.repos.d/a.repo",
                "[base]\nname=Base\nbaseurl=https://a.example/\n  https://b.example/\n\
                 [open]\nenabled=0\ngpgcheck=0\nsslverify=no\n",
            ),
            ("/etc/yum.repos.d/a.repo.rpmsave", "[old]\n"),
            (AUTOMATIC, "[commands]\napply_updates = yes\n"),
        ]);
        let file = "/etc/yum.repos.d/a.repo";
        assert_eq!(
            host.collect(&COLLECTOR),
            json!({
                "installed": false,
                "main": {"gpgcheck": "1", "localpkg_gpgcheck": "True"},
                "repos": [
                    {"id": "base", "file": file, "enabled": true, "gpgcheck": true, "sslverify": true},
                    {"id": "open", "file": file, "enabled": false, "gpgcheck": false, "sslverify": false},
                ],
                "automatic": {"commands.apply_updates": "yes"},
            })
        );
    }

    /// Proves: RUL-4
    #[test]
    fn a_signature_that_nobody_asks_for_is_not_checked() {
        for (config, checked) in [
            ("", false),
            ("[main]\ngpgcheck=0\n", false),
            ("[main]\ngpgcheck=yes\n", true),
        ] {
            let host = Fixture::new(&[(CONFIG, config), ("/etc/yum.repos.d/a.repo", "[a]\n")]);
            let fact = host.collect(&COLLECTOR);
            assert_eq!(fact["repos"][0]["gpgcheck"], checked, "{config}");
        }
    }
}
