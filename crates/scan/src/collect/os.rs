//! Which operating system this is, from os-release(5) and the kernel.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape};
use crate::{
    facts::{Reason, Unknown},
    target::{Found, Links},
};

pub(super) const COLLECTOR: Collector = Collector {
    name: "os",
    about: "operating system, kernel, host name, container or not",
    reads: &[
        "/etc/os-release",
        "/usr/lib/os-release",
        "/proc/sys/kernel/osrelease",
        "/proc/sys/kernel/arch",
        "/proc/sys/kernel/hostname",
        "/run/systemd/container",
        "/.dockerenv",
        "/run/.containerenv",
        "/run/systemd/system",
    ],
    runs: &["/usr/bin/uname -m"],
    patterns: &[
        FactPattern::closed("os", Shape::Map, "the operating system"),
        FactPattern::closed("os.id", Shape::Text, "ID of os-release: debian"),
        FactPattern::closed(
            "os.id_like",
            Shape::Text,
            "ID_LIKE, names with blanks between: rhel centos fedora",
        ),
        FactPattern::closed("os.version_id", Shape::Text, "VERSION_ID: 12"),
        FactPattern::closed(
            "os.platform_id",
            Shape::Text,
            "PLATFORM_ID, of Red Hat's family: platform:el9",
        ),
        FactPattern::closed("os.codename", Shape::Text, "VERSION_CODENAME: bookworm"),
        FactPattern::closed("os.pretty_name", Shape::Text, "PRETTY_NAME"),
        FactPattern::closed("os.kernel_release", Shape::Text, "uname -r"),
        FactPattern::closed("os.arch", Shape::Text, "uname -m"),
        FactPattern::closed("os.hostname", Shape::Text, "the kernel's host name"),
        FactPattern::closed("os.container", Shape::Bool, "runs inside a container"),
        FactPattern::closed("os.init", Shape::Text, "systemd or other"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let release = match context.text("/etc/os-release").known()? {
        Some(text) => text,
        None => context
            .text("/usr/lib/os-release")
            .known()?
            .ok_or_else(|| Unknown::new(Reason::Unsupported, "/etc/os-release: not there"))?,
    };
    let mut os = parse(&release)?;
    os.insert("kernel_release".into(), line(context, "osrelease"));
    os.insert("arch".into(), arch(context));
    os.insert("hostname".into(), line(context, "hostname"));
    os.insert("container".into(), container(context));
    // As sd_booted(3) decides it.
    let booted = context.stat("/run/systemd/system", Links::Keep).known();
    let init = match booted {
        Ok(Some(_)) => "systemd".into(),
        Ok(None) => "other".into(),
        Err(unknown) => unknown.to_value(),
    };
    os.insert("init".into(), init);
    Ok(Value::Object(os))
}

/// The named fields of os-release(5). Without an `ID` the text is not one.
fn parse(text: &str) -> Result<Map<String, Value>, Unknown> {
    let field = |key: &str| {
        text.lines()
            .filter_map(|line| line.trim().split_once('='))
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| unquote(value))
            .next_back()
    };
    let id = field("ID")
        .filter(|id| !id.is_empty())
        .ok_or_else(|| Unknown::new(Reason::Malformed, "/etc/os-release: no ID"))?;
    let mut os = Map::new();
    os.insert("id".into(), id.into());
    for (fact, key) in [
        ("id_like", "ID_LIKE"),
        ("version_id", "VERSION_ID"),
        ("platform_id", "PLATFORM_ID"),
        ("codename", "VERSION_CODENAME"),
        ("pretty_name", "PRETTY_NAME"),
    ] {
        if let Some(value) = field(key) {
            os.insert(fact.into(), value.into());
        }
    }
    Ok(os)
}

/// Shell quoting as os-release(5) allows it: one pair of quotes, backslash before `"$\` and `` ` ``.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let inner = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let mut text = String::new();
    let mut escaped = false;
    for letter in inner.unwrap_or(value).chars() {
        if letter == '\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            text.push(letter);
        }
    }
    text
}

fn line(context: &Context<'_>, key: &str) -> Value {
    let path = format!("/proc/sys/kernel/{key}");
    match context.text(&path) {
        Found::Present(text) => text.trim().into(),
        Found::Absent => Unknown::new(Reason::Unreadable, format!("{path}: not there")).into(),
        Found::Unknown(unknown) => unknown.into(),
    }
}

/// The kernel tells it since 6.1; before that only a system call does, which `uname` makes.
fn arch(context: &Context<'_>) -> Value {
    if let Found::Present(text) = context.text("/proc/sys/kernel/arch") {
        return text.trim().into();
    }
    match context.run(&["/usr/bin/uname", "/bin/uname"], &["-m"]) {
        Ok(ran) => String::from_utf8_lossy(&ran.stdout).trim().into(),
        Err(unknown) => unknown.into(),
    }
}

/// By the marks that systemd, Docker and Podman leave.
fn container(context: &Context<'_>) -> Value {
    let mut unseen = None;
    for path in [
        "/run/systemd/container",
        "/.dockerenv",
        "/run/.containerenv",
    ] {
        match context.stat(path, Links::Keep) {
            Found::Present(_) => return true.into(),
            Found::Absent => {}
            Found::Unknown(unknown) => unseen = Some(unknown),
        }
    }
    unseen.map_or(json!(false), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const BOOKWORM: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n\
        NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\n\
        VERSION_CODENAME=bookworm\nID=debian\n";

    #[test]
    fn a_debian_host_tells_what_it_is_through_the_usual_link() {
        let host = Fixture::new(&[
            ("/usr/lib/os-release", BOOKWORM),
            ("/proc/sys/kernel/osrelease", "6.1.0-21-amd64\n"),
            ("/proc/sys/kernel/arch", "x86_64\n"),
            ("/proc/sys/kernel/hostname", "press-3\n"),
        ]);
        host.link("/etc/os-release", "../usr/lib/os-release");
        host.dir("/run/systemd/system");
        let expected = json!({
            "id": "debian", "version_id": "12", "codename": "bookworm",
            "pretty_name": "Debian GNU/Linux 12 (bookworm)", "kernel_release": "6.1.0-21-amd64",
            "arch": "x86_64", "hostname": "press-3", "container": false, "init": "systemd",
        });
        assert_eq!(host.collect(&COLLECTOR), expected);
    }

    #[test]
    fn a_rebuild_tells_what_it_rebuilds() {
        let os = parse(
            "NAME=\"Rocky Linux\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n\
             VERSION_ID=\"9.4\"\nPLATFORM_ID=\"platform:el9\"\n",
        );
        let expected = json!({"id": "rocky", "id_like": "rhel centos fedora", "version_id": "9.4",
                              "platform_id": "platform:el9"});
        assert_eq!(os.map(Value::Object), Ok(expected));
    }

    #[test]
    fn a_text_without_an_id_is_unknown_not_an_empty_system() {
        for text in ["", "\0\0\0", "NAME=Linux", "ID=\n", "ID=\"\"\n"] {
            assert_eq!(
                parse(text).unwrap_err().reason,
                Reason::Malformed,
                "{text:?}"
            );
        }
        let nothing = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(
            Unknown::from_value(&nothing).unwrap().reason,
            Reason::Unsupported
        );
    }

    #[test]
    fn quotes_and_escapes_are_taken_off() {
        for (text, expected) in [
            ("\"a \\\"b\\\"\"", "a \"b\""),
            ("'x'", "x"),
            ("\"", "\""),
            ("a\\\\b", "a\\b"),
        ] {
            assert_eq!(unquote(text), expected);
        }
    }
}
