//! Kernel modules: loaded, built in, loadable, and what modprobe.d(5) says about them.
//!
//! Names are written with `_`: the kernel and modprobe(8) take `-` for the same.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, cmdline, drop_in, part};
use crate::{
    facts::{Reason, Unknown},
    target::Links,
};

const DIRS: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

pub(super) const COLLECTOR: Collector = Collector {
    name: "modules",
    about: "kernel modules: loaded, built in, available, blacklisted, with an install command",
    reads: &[
        "/proc/modules",
        "/proc/cmdline",
        "/proc/sys/kernel/osrelease",
        "/lib/modules/*/modules.builtin",
        "/lib/modules/*/modules.dep",
        "/etc/modprobe.d/*.conf",
        "/run/modprobe.d/*.conf",
        "/usr/local/lib/modprobe.d/*.conf",
        "/usr/lib/modprobe.d/*.conf",
        "/lib/modprobe.d/*.conf",
    ],
    patterns: &[
        FactPattern::closed("modules", Shape::Map, "kernel modules"),
        FactPattern::closed("modules.loaded", Shape::Map, "by name"),
        FactPattern::closed("modules.loaded[*]", Shape::Map, "one loaded module"),
        FactPattern::closed("modules.loaded[*].used_by", Shape::Int, "reference count"),
        FactPattern::closed(
            "modules.builtin",
            Shape::Map,
            "part of the kernel image, by name",
        ),
        FactPattern::closed("modules.builtin[*]", Shape::Map, "empty"),
        FactPattern::closed("modules.available", Shape::Map, "can be loaded, by name"),
        FactPattern::closed("modules.available[*]", Shape::Map, "empty"),
        FactPattern::closed(
            "modules.blacklisted",
            Shape::Map,
            "not loaded by alias, by name",
        ),
        FactPattern::closed("modules.blacklisted[*]", Shape::Map, "one blacklist line"),
        FactPattern::closed(
            "modules.blacklisted[*].file",
            Shape::Text,
            "where it is said",
        ),
        FactPattern::closed(
            "modules.install",
            Shape::Map,
            "command in place of loading, by name",
        ),
        FactPattern::closed("modules.install[*]", Shape::Map, "one install line"),
        FactPattern::closed("modules.install[*].command", Shape::Text, "command line"),
        FactPattern::closed("modules.install[*].file", Shape::Text, "where it is said"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let loaded = loaded(context);
    let release = release(context);
    let table = |name: &str| {
        let release = release.clone()?;
        let path = format!("/lib/modules/{release}/{name}");
        let text = context
            .text(&path)
            .known()?
            .ok_or_else(|| Unknown::new(Reason::Unreadable, format!("{path}: not there")))?;
        Ok(Value::Object(parse_paths(&text)))
    };
    let (blacklisted, install) = match configured(context) {
        Ok((blacklisted, install)) => (blacklisted.into(), install.into()),
        Err(unknown) => (unknown.to_value(), unknown.to_value()),
    };
    // A kernel that cannot load any has none available, whatever lies on the disk.
    let available = match &loaded {
        Ok(None) => Ok(json!({})),
        _ => table("modules.dep"),
    };
    Ok(json!({
        "loaded": part(loaded.map(|loaded| Value::Object(loaded.unwrap_or_default()))),
        "builtin": part(table("modules.builtin")),
        "available": part(available),
        "blacklisted": blacklisted,
        "install": install,
    }))
}

fn release(context: &Context<'_>) -> Result<String, Unknown> {
    let path = "/proc/sys/kernel/osrelease";
    let text = context.text(path).known()?;
    text.map(|text| text.trim().to_owned())
        .ok_or_else(|| Unknown::new(Reason::Unreadable, format!("{path}: not there")))
}

/// `None` for a kernel built without modules: it has no table of them. Neither has a host whose
/// `/proc` is not there, which tells nothing.
fn loaded(context: &Context<'_>) -> Result<Option<Map<String, Value>>, Unknown> {
    if let Some(text) = context.text("/proc/modules").known()? {
        return parse_loaded(&text).map(Some);
    }
    let version = context.stat("/proc/version", Links::Keep).known()?;
    version
        .map(|_| None)
        .ok_or_else(|| Unknown::new(Reason::Unreadable, "/proc/modules: not there"))
}

/// `name size references users state address`.
fn parse_loaded(text: &str) -> Result<Map<String, Value>, Unknown> {
    let mut loaded = Map::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (Some(name), Some(references)) = (fields.next(), fields.nth(1)) else {
            let detail = format!("/proc/modules: line `{line}`");
            return Err(Unknown::new(Reason::Malformed, detail));
        };
        // `-` on a kernel that cannot unload modules.
        let used_by: u64 = references.parse().unwrap_or(0);
        loaded.insert(normal(name), json!({ "used_by": used_by }));
    }
    Ok(loaded)
}

/// One path of a module a line, perhaps followed by `:` and what it needs.
fn parse_paths(text: &str) -> Map<String, Value> {
    text.lines()
        .filter_map(|line| {
            let path = line.split(':').next()?;
            let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
            Some((normal(name), json!({})))
        })
        .collect()
}

type Lines = Map<String, Value>;

fn configured(context: &Context<'_>) -> Result<(Lines, Lines), Unknown> {
    let (mut blacklisted, mut install) = (Map::new(), Map::new());
    for file in drop_in::effective(context, &DIRS, ".conf")? {
        let text = context.text(&file).known()?.unwrap_or_default();
        parse_modprobe(&text, &file, &mut blacklisted, &mut install);
    }
    // The kernel's own word for it, and modprobe's.
    let text = context.text("/proc/cmdline").known()?.unwrap_or_default();
    let parameters = cmdline::parse(&text);
    for key in ["module_blacklist", "modprobe.blacklist"] {
        let names = parameters.get(key).and_then(Value::as_str).unwrap_or("");
        for name in names.split(',').filter(|name| !name.is_empty()) {
            blacklisted.insert(normal(name), json!({"file": "/proc/cmdline"}));
        }
    }
    Ok((blacklisted, install))
}

fn parse_modprobe(text: &str, file: &str, blacklisted: &mut Lines, install: &mut Lines) {
    let text = text.replace("\\\n", " ");
    for line in text.lines().map(str::trim) {
        let mut words = line.splitn(3, |letter: char| letter.is_ascii_whitespace());
        let (Some(word), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let command = words.next().unwrap_or("").trim();
        match word {
            "blacklist" => {
                blacklisted.insert(normal(name), json!({ "file": file }));
            }
            "install" => {
                install.insert(normal(name), json!({"command": command, "file": file}));
            }
            _ => {}
        }
    }
}

fn normal(name: &str) -> String {
    name.trim().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn a_host_tells_what_is_loaded_loadable_and_forbidden() {
        let host = Fixture::new(&[
            (
                "/proc/modules",
                "nf-tables 323584 12 nft_compat, Live 0x0\nloop 40960 0 - Live 0x0\n",
            ),
            (
                "/proc/cmdline",
                "ro modprobe.blacklist=floppy,usb-storage\n",
            ),
            ("/proc/sys/kernel/osrelease", "6.1.0\n"),
            (
                "/lib/modules/6.1.0/modules.builtin",
                "kernel/fs/ext4/ext4.ko\nkernel/a/x-y.ko\n",
            ),
            (
                "/lib/modules/6.1.0/modules.dep",
                "kernel/fs/cramfs/cramfs.ko.xz:\nkernel/net/sctp.ko: kernel/lib/crc.ko\n",
            ),
            (
                "/etc/modprobe.d/a.conf",
                "# blacklist no\nblacklist pcspkr\ninstall cramfs /bin/false\n\
              install usb-storage \\\n  /bin/true\noptions snd index=1\n",
            ),
            ("/usr/lib/modprobe.d/a.conf", "blacklist masked\n"),
        ]);
        let (etc, line) = ("/etc/modprobe.d/a.conf", "/proc/cmdline");
        let expected = json!({
            "loaded": {"nf_tables": {"used_by": 12}, "loop": {"used_by": 0}},
            "builtin": {"ext4": {}, "x_y": {}},
            "available": {"cramfs": {}, "sctp": {}},
            "blacklisted": {"pcspkr": {"file": etc}, "floppy": {"file": line}, "usb_storage": {"file": line}},
            "install": {"cramfs": {"command": "/bin/false", "file": etc},
                        "usb_storage": {"command": "/bin/true", "file": etc}},
        });
        assert_eq!(host.collect(&COLLECTOR), expected);
    }

    #[test]
    fn a_kernel_whose_modules_are_not_here_is_unknown_not_without_modules() {
        let release = ("/proc/sys/kernel/osrelease", "6.6\n");
        let loading = Fixture::new(&[release, ("/proc/modules", "")]).collect(&COLLECTOR);
        assert_eq!(loading["loaded"], json!({}));
        assert!(Unknown::from_value(&loading["available"]).is_some());
        assert!(Unknown::from_value(&loading["builtin"]).is_some());
        let fixed = Fixture::new(&[release, ("/proc/version", "Linux")]).collect(&COLLECTOR);
        assert_eq!(fixed["loaded"], json!({}));
        assert_eq!(fixed["available"], json!({}));
        assert!(Unknown::from_value(&fixed["builtin"]).is_some());
        let nothing = Fixture::new(&[]).collect(&COLLECTOR);
        assert!(Unknown::from_value(&nothing["loaded"]).is_some());
    }

    #[test]
    fn noise_is_refused() {
        assert_eq!(parse_loaded("\0").unwrap_err().reason, Reason::Malformed);
        assert_eq!(parse_paths("\0\n:\n/\n").len(), 0);
    }
}
