//! What is mounted, what fstab(5) would mount, and where swapping goes.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, part};
use crate::{
    facts::{Reason, Unknown},
    target::mount_table,
};

const MOUNTINFO: &str = "/proc/self/mountinfo";

pub(super) const COLLECTOR: Collector = Collector {
    name: "mounts",
    about: "mounted filesystems, /etc/fstab, swap",
    reads: &[MOUNTINFO, "/etc/fstab", "/proc/swaps"],
    patterns: &[
        FactPattern::closed("mounts", Shape::Map, "mounts"),
        FactPattern::closed(
            "mounts.mounted",
            Shape::Map,
            "by mount point, the topmost mount",
        ),
        FactPattern::closed("mounts.mounted[*]", Shape::Map, "one mount"),
        FactPattern::closed("mounts.mounted[*].source", Shape::Text, "device or name"),
        FactPattern::closed("mounts.mounted[*].fstype", Shape::Text, "filesystem type"),
        FactPattern::closed(
            "mounts.mounted[*].options",
            Shape::List,
            "of the mount and of its filesystem",
        ),
        FactPattern::closed("mounts.fstab", Shape::Map, "by mount point, without swap"),
        FactPattern::closed("mounts.fstab[*]", Shape::Map, "one line"),
        FactPattern::closed(
            "mounts.fstab[*].source",
            Shape::Text,
            "device, UUID=, LABEL=",
        ),
        FactPattern::closed("mounts.fstab[*].fstype", Shape::Text, "filesystem type"),
        FactPattern::closed("mounts.fstab[*].options", Shape::List, "options"),
        FactPattern::closed("mounts.swap", Shape::List, "active swap and swap of fstab"),
        FactPattern::closed("mounts.swap[].source", Shape::Text, "device or file"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mounted = context
        .text(MOUNTINFO)
        .known()
        .and_then(|text| {
            text.ok_or_else(|| Unknown::new(Reason::Unreadable, format!("{MOUNTINFO}: not there")))
        })
        .and_then(|text| parse_mountinfo(&text));
    let fstab = context
        .text("/etc/fstab")
        .known()
        .map(Option::unwrap_or_default);
    let active = context
        .text("/proc/swaps")
        .known()
        .map(Option::unwrap_or_default);
    let swap = match (&fstab, active) {
        (Ok(fstab), Ok(active)) => Ok(parse_swap(fstab, &active)),
        (Err(unknown), _) => Err(unknown.clone()),
        (_, Err(unknown)) => Err(unknown),
    };
    Ok(json!({
        "mounted": part(mounted.map(Value::Object)),
        "fstab": part(fstab.map(|text| Value::Object(parse_fstab(&text)))),
        "swap": part(swap),
    }))
}

fn entry(source: &str, fstype: &str, options: &[&str]) -> Value {
    json!({"source": source, "fstype": fstype, "options": options})
}

/// proc_pid_mountinfo(5). A later mount on the same point covers the earlier one.
fn parse_mountinfo(text: &str) -> Result<Map<String, Value>, Unknown> {
    let mut mounted = Map::new();
    for line in text.lines() {
        let mount = split_mountinfo(line).ok_or_else(|| {
            Unknown::new(Reason::Malformed, format!("{MOUNTINFO}: line `{line}`"))
        })?;
        let mut options: Vec<&str> = mount.options.split(',').collect();
        for option in mount.super_options.split(',') {
            if !options.contains(&option) && !is_contrary(option, &options) {
                options.push(option);
            }
        }
        mounted.insert(
            unescape(mount.point),
            entry(&unescape(mount.source), mount.fstype, &options),
        );
    }
    Ok(mounted)
}

/// A filesystem mounted `rw` may stand `ro` at this point: what holds here is the point's word.
fn is_contrary(option: &str, options: &[&str]) -> bool {
    option == "rw" && options.contains(&"ro")
}

struct Mount<'a> {
    point: &'a str,
    options: &'a str,
    fstype: &'a str,
    source: &'a str,
    super_options: &'a str,
}

fn split_mountinfo(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(4);
    let mut right = right.split(' ');
    Some(Mount {
        point: left.next()?,
        options: left.next()?,
        fstype: right.next()?,
        source: right.next()?,
        super_options: right.next()?,
    })
}

/// fstab(5): source, point, type, options, and two fields nobody asks about.
fn fstab_lines(text: &str) -> impl Iterator<Item = [&str; 4]> {
    text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let source = fields.next().filter(|source| !source.starts_with('#'))?;
        let (point, fstype) = (fields.next()?, fields.next()?);
        Some([source, point, fstype, fields.next().unwrap_or("defaults")])
    })
}

fn parse_fstab(text: &str) -> Map<String, Value> {
    let mut fstab = Map::new();
    for [source, point, fstype, options] in fstab_lines(text) {
        if fstype != "swap" {
            let options: Vec<&str> = options.split(',').collect();
            fstab.insert(unescape(point), entry(&unescape(source), fstype, &options));
        }
    }
    fstab
}

fn parse_swap(fstab: &str, active: &str) -> Value {
    let mut sources: Vec<String> = active
        .lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(unescape)
        .collect();
    for [source, _, fstype, _] in fstab_lines(fstab) {
        let source = unescape(source);
        if fstype == "swap" && !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
        .into_iter()
        .map(|source| json!({ "source": source }))
        .collect()
}

fn unescape(text: &str) -> String {
    String::from_utf8_lossy(&mount_table::unescape(text.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const TABLE: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
28 27 0:30 / /tmp rw,nosuid - tmpfs tmpfs rw,size=1k
29 27 254:0 /srv /srv/a\\040b ro,nodev - ext4 /dev/vda1 rw,errors=remount-ro
30 28 0:31 / /tmp rw,nosuid,nodev,noexec shared:2 master:3 - tmpfs tmpfs rw
";

    #[test]
    fn the_topmost_mount_counts_with_the_options_that_hold_there() {
        let mounted = parse_mountinfo(TABLE).unwrap();
        let options = |point: &str| mounted[point]["options"].clone();
        assert_eq!(mounted.len(), 4);
        assert_eq!(options("/tmp"), json!(["rw", "nosuid", "nodev", "noexec"]));
        assert_eq!(
            options("/srv/a b"),
            json!(["ro", "nodev", "errors=remount-ro"])
        );
        assert_eq!(mounted["/"]["source"], "/dev/vda1");
    }

    #[test]
    fn fstab_and_swap_are_read_apart() {
        let host = Fixture::new(&[
            (MOUNTINFO, TABLE),
            (
                "/etc/fstab",
                "# c\nUUID=1 / ext4 errors=remount-ro 0 1\n/dev/b none swap sw 0 0\nx\n/dev/c /home xfs\n",
            ),
            (
                "/proc/swaps",
                "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1 0 -2\n",
            ),
        ]);
        let fact = host.collect(&COLLECTOR);
        let expected = json!({
            "/": {"source": "UUID=1", "fstype": "ext4", "options": ["errors=remount-ro"]},
            "/home": {"source": "/dev/c", "fstype": "xfs", "options": ["defaults"]},
        });
        assert_eq!(fact["fstab"], expected);
        assert_eq!(
            fact["swap"],
            json!([{"source": "/swapfile"}, {"source": "/dev/b"}])
        );
    }

    #[test]
    fn a_table_that_makes_no_sense_is_unknown() {
        for text in ["garbage", "22 27 0:21 / /proc rw - proc", "\0 - \0"] {
            assert_eq!(parse_mountinfo(text).unwrap_err().reason, Reason::Malformed);
        }
        let fact = Fixture::new(&[]).collect(&COLLECTOR);
        assert!(Unknown::from_value(&fact["mounted"]).is_some());
        assert_eq!(fact["fstab"], json!({}));
    }

    #[test]
    fn octal_escapes_are_undone_and_stray_backslashes_kept() {
        for (text, expected) in [
            ("a\\040b", "a b"),
            ("\\134", "\\"),
            ("\\9", "\\9"),
            ("\\", "\\"),
        ] {
            assert_eq!(unescape(text), expected);
        }
    }
}
