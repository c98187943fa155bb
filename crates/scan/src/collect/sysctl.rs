//! Kernel parameters: as they are, and as the next start will set them.
//!
//! The persistent ones follow systemd-sysctl(8): drop-ins by rank and name, a pattern sets every
//! key that exists and that no line names by itself. `/etc/sysctl.conf` counts only where a drop-in
//! links to it (as Debian 12 does and 13 does not), or where systemd-sysctl is not installed and
//! sysctl(8) reads it last.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, drop_in, globs, part};
use crate::{
    facts::{Reason, Unknown},
    target::{Found, Kind, Links},
};

const ROOT: &str = "/proc/sys";

/// An automount point: listing it would mount it.
const AUTOMOUNT: &str = "/proc/sys/fs/binfmt_misc";

/// Reading it makes the kernel flush its statistics on every processor.
const TRIGGER: &str = "/proc/sys/vm/stat_refresh";

/// Keys whose value is a secret, by their last part. Evidence is kept for ever.
const SECRET: [&str; 2] = ["stable_secret", "tcp_fastopen_key"];

/// The tree is six deep on current kernels; network interfaces make it wide, nothing makes it deep.
const DEPTH_MAX: usize = 16;

/// A kernel has about a thousand keys and some forty more for each network interface.
const KEYS_MAX: usize = 100_000;

const DIRS: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

pub(super) const COLLECTOR: Collector = Collector {
    name: "sysctl",
    about: "kernel parameters, running and persistent",
    reads: &[
        "/proc/sys/**",
        "/etc/sysctl.conf",
        "/etc/sysctl.d/*.conf",
        "/run/sysctl.d/*.conf",
        "/usr/local/lib/sysctl.d/*.conf",
        "/usr/lib/sysctl.d/*.conf",
        "/lib/sysctl.d/*.conf",
    ],
    privilege: super::Privilege::Partly("a few keys that only root may read"),
    patterns: &[
        FactPattern::closed("sysctl", Shape::Map, "kernel parameters"),
        FactPattern::closed("sysctl.running", Shape::Map, "in force, by dotted key"),
        FactPattern::closed(
            "sysctl.running[*]",
            Shape::Text,
            "value, blanks made single",
        ),
        FactPattern::closed(
            "sysctl.persistent",
            Shape::Map,
            "set at start, by dotted key",
        ),
        FactPattern::closed("sysctl.persistent[*]", Shape::Map, "the line that wins"),
        FactPattern::closed("sysctl.persistent[*].value", Shape::Text, "value"),
        FactPattern::closed("sysctl.persistent[*].file", Shape::Text, "where it is set"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let running = running(context);
    let keys: Vec<&str> = match &running {
        Ok(running) => running.keys().map(String::as_str).collect(),
        Err(_) => Vec::new(),
    };
    let persistent = persistent(context, &keys, running.as_ref().err());
    Ok(json!({
        "persistent": part(persistent.map(Value::Object)),
        "running": part(running.map(Value::Object)),
    }))
}

fn running(context: &Context<'_>) -> Result<Map<String, Value>, Unknown> {
    if context.stat(ROOT, Links::Keep).known()?.is_none() {
        return Err(Unknown::new(
            Reason::Unreadable,
            format!("{ROOT}: not there"),
        ));
    }
    let mut running = Map::new();
    descend(context, ROOT, DEPTH_MAX, &mut running)?;
    Ok(running)
}

fn descend(
    context: &Context<'_>,
    dir: &str,
    depth: usize,
    running: &mut Map<String, Value>,
) -> Result<(), Unknown> {
    let over = || Unknown::new(Reason::Truncated, format!("{dir}: too many or too deep"));
    let depth = depth.checked_sub(1).ok_or_else(over)?;
    for entry in context.list(dir).known()?.unwrap_or_default() {
        let path = format!("{dir}/{}", entry.name);
        if path == AUTOMOUNT || path == TRIGGER {
            continue;
        }
        if entry.kind == Kind::Dir {
            descend(context, &path, depth, running)?;
            continue;
        }
        if running.len() == KEYS_MAX {
            return Err(over());
        }
        if SECRET.contains(&entry.name.as_str()) {
            let detail = format!("{path}: a secret, its value is never collected");
            let secret = Unknown::new(Reason::Unsupported, detail);
            running.insert(dotted(&path), secret.into());
            continue;
        }
        match context.text(&path) {
            Found::Present(text) => {
                running.insert(dotted(&path), single_blanks(&text).into());
            }
            Found::Absent => {}
            Found::Unknown(unknown) => {
                // Write-only keys are triggers: there is no value to know.
                if !is_write_only(context, &path) {
                    running.insert(dotted(&path), unknown.into());
                }
            }
        }
    }
    Ok(())
}

fn is_write_only(context: &Context<'_>, path: &str) -> bool {
    matches!(context.stat(path, Links::Keep), Found::Present(stat) if stat.mode & 0o444 == 0)
}

/// `/proc/sys/net/ipv4/conf/eth0.1/forwarding` is `net.ipv4.conf.eth0/1.forwarding`.
fn dotted(path: &str) -> String {
    let key = path.strip_prefix("/proc/sys/").unwrap_or(path);
    swap_separators(key)
}

fn swap_separators(key: &str) -> String {
    key.chars()
        .map(|letter| match letter {
            '/' => '.',
            '.' => '/',
            other => other,
        })
        .collect()
}

/// sysctl.d(5): the first separator in a key tells which kind it uses.
fn normal(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('/') => swap_separators(key),
        _ => key.to_owned(),
    }
}

/// The kernel writes tabs where people write blanks.
fn single_blanks(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line that holds for its key, or for every key of its pattern.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// `None` excludes the key from the patterns.
    value: Option<String>,
    file: String,
    /// Counted over all files: of two lines for one key the later holds, and has its place.
    order: usize,
}

fn persistent(
    context: &Context<'_>,
    running: &[&str],
    running_unknown: Option<&Unknown>,
) -> Result<Map<String, Value>, Unknown> {
    let mut files = drop_in::effective(context, &DIRS, ".conf")?;
    if !has_systemd_sysctl(context)? {
        files.push("/etc/sysctl.conf".to_owned());
    }
    let mut lines = BTreeMap::new();
    for file in files {
        if let Some(text) = context.text(&file).known()? {
            parse(&text, &file, &mut lines);
        }
    }
    let has_pattern = lines.keys().any(|key| is_pattern(key));
    if let (true, Some(unknown)) = (has_pattern, running_unknown) {
        // Without the running keys nobody can tell which ones a pattern sets.
        return Err(unknown.clone());
    }
    Ok(winners(&lines, running))
}

fn has_systemd_sysctl(context: &Context<'_>) -> Result<bool, Unknown> {
    let program = "/usr/lib/systemd/systemd-sysctl";
    Ok(context.stat(program, Links::Follow).known()?.is_some())
}

fn is_pattern(key: &str) -> bool {
    key.contains(['*', '?', '['])
}

fn parse(text: &str, file: &str, lines: &mut BTreeMap<String, Line>) {
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim(), Some(single_blanks(value))),
            // Only with the dash is a key without a value a statement.
            None if line.starts_with('-') => (line, None),
            None => continue,
        };
        // With a value, the dash says that a failure to set it is no fault.
        let key = normal(key.strip_prefix('-').unwrap_or(key).trim());
        let order = lines.len();
        let line = Line {
            value,
            file: file.to_owned(),
            order,
        };
        // As in systemd-sysctl, a repeated key keeps the place of its first line.
        match lines.get_mut(&key) {
            Some(earlier) => {
                *earlier = Line {
                    order: earlier.order,
                    ..line
                }
            }
            None => {
                lines.insert(key, line);
            }
        }
    }
}

fn winners(lines: &BTreeMap<String, Line>, running: &[&str]) -> Map<String, Value> {
    let mut ordered: Vec<_> = lines.iter().collect();
    ordered.sort_by_key(|(_, line)| line.order);
    let mut winners = Map::new();
    for (key, line) in ordered {
        let Some(value) = &line.value else { continue };
        let set = json!({"value": value, "file": line.file});
        if !is_pattern(key) {
            winners.insert(key.clone(), set);
            continue;
        }
        let pattern = swap_separators(key);
        for name in running {
            if !lines.contains_key(*name) && globs::path_matches(&pattern, &swap_separators(name)) {
                winners.insert((*name).to_owned(), set.clone());
            }
        }
    }
    winners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    fn persistent_of(files: &[(&str, &str)]) -> Value {
        let mut all = vec![
            ("/proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
            ("/proc/sys/net/ipv4/conf/eth0/rp_filter", "2\n"),
            ("/proc/sys/net/ipv4/conf/eth0.1/rp_filter", "2\n"),
            ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("/proc/sys/kernel/secret", "1\n"),
        ];
        all.extend_from_slice(files);
        Fixture::new(&all).collect(&COLLECTOR)["persistent"].clone()
    }

    const SYSTEMD: (&str, &str) = ("/usr/lib/systemd/systemd-sysctl", "");

    #[test]
    fn the_later_name_wins_and_the_higher_directory_masks_the_same_name() {
        let fact = persistent_of(&[
            SYSTEMD,
            (
                "/usr/lib/sysctl.d/50-default.conf",
                "kernel.a = 1\nkernel.b=1\n",
            ),
            ("/etc/sysctl.d/50-default.conf", "# replaced\nkernel.b=2\n"),
            (
                "/etc/sysctl.d/99-z.conf",
                "kernel/c = 4\t 5\n-kernel.d=6\n; x\nkernel.e\n",
            ),
            ("/etc/sysctl.d/10-a.conf", "kernel.c = 0\n"),
            ("/etc/sysctl.conf", "kernel.b=9\n"),
        ]);
        let at = |value: &str, file: &str| json!({"value": value, "file": file});
        assert_eq!(
            fact,
            json!({
                "kernel.c": at("4 5", "/etc/sysctl.d/99-z.conf"),
                "kernel.b": at("2", "/etc/sysctl.d/50-default.conf"),
                "kernel.d": at("6", "/etc/sysctl.d/99-z.conf"),
            })
        );
    }

    #[test]
    fn sysctl_conf_counts_last_only_where_systemd_does_not_set_the_keys() {
        let conf = ("/etc/sysctl.conf", "kernel.a=9\n");
        assert_eq!(persistent_of(&[SYSTEMD, conf]), json!({}));
        let fact = persistent_of(&[conf, ("/etc/sysctl.d/99.conf", "kernel.a=1\n")]);
        assert_eq!(fact["kernel.a"]["value"], "9");
    }

    #[test]
    fn a_pattern_sets_every_running_key_that_no_line_names() {
        let fact = persistent_of(&[(
            "/usr/lib/sysctl.d/50-default.conf",
            "net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all.rp_filter\n",
        )]);
        let keys: Vec<&String> = fact.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "net.ipv4.conf.eth0.rp_filter",
                "net.ipv4.conf.eth0/1.rp_filter"
            ]
        );
    }

    #[test]
    fn running_values_have_dotted_keys_and_single_blanks() {
        let host = Fixture::new(&[
            ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("/proc/sys/net/ipv4/conf/eth0.1/forwarding", "0\n"),
            ("/proc/sys/fs/binfmt_misc/status", "enabled\n"),
            ("/proc/sys/net/ipv6/conf/all/stable_secret", "2001:db8::1\n"),
        ]);
        let mut running = host.collect(&COLLECTOR)["running"].clone();
        let secret = running["net.ipv6.conf.all.stable_secret"].take();
        assert_eq!(
            Unknown::from_value(&secret).unwrap().reason,
            Reason::Unsupported
        );
        running
            .as_object_mut()
            .unwrap()
            .shift_remove("net.ipv6.conf.all.stable_secret");
        let expected = json!({"net.ipv4.tcp_rmem": "4096 131072 6291456",
            "net.ipv4.conf.eth0/1.forwarding": "0"});
        assert_eq!(running, expected);
    }

    #[test]
    fn without_proc_nothing_running_is_claimed_and_patterns_are_unknown() {
        let bare = Fixture::new(&[]).collect(&COLLECTOR);
        assert!(Unknown::from_value(&bare["running"]).is_some());
        assert_eq!(bare["persistent"], json!({}));
        let host = Fixture::new(&[("/etc/sysctl.d/a.conf", "net.*.x = 1\n")]);
        assert!(Unknown::from_value(&host.collect(&COLLECTOR)["persistent"]).is_some());
    }
}
