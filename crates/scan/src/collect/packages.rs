//! Installed packages, from dpkg's own database or from rpm.

mod rpm;

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape};
use crate::facts::{Reason, Unknown};

const STATUS: &str = "/var/lib/dpkg/status";

/// The database of a desktop with ten thousand packages; most hosts have a tenth of it.
const STATUS_BYTES_MAX: usize = 32 << 20;

pub(super) const COLLECTOR: Collector = Collector {
    name: "packages",
    about: "installed packages with version and architecture",
    reads: &[
        STATUS,
        "/var/lib/rpm/rpmdb.sqlite*",
        "/usr/lib/sysimage/rpm/rpmdb.sqlite*",
        "/var/lib/rpm/Packages",
        "/var/lib/rpm/__db.001",
    ],
    runs: &["/usr/bin/rpm -qa --nosignature --nodigest --queryformat ..."],
    input_bytes_max: STATUS_BYTES_MAX,
    patterns: &[
        FactPattern::closed("packages", Shape::Map, "packages"),
        FactPattern::closed("packages.manager", Shape::Text, "dpkg or rpm"),
        FactPattern::closed(
            "packages.installed",
            Shape::Map,
            "by name; a further architecture of the same package is `name:arch`, an older version `name@version`",
        ),
        FactPattern::closed("packages.installed[*]", Shape::Map, "one package"),
        FactPattern::closed(
            "packages.installed[*].version",
            Shape::Text,
            "version as dpkg or rpm writes it",
        ),
        FactPattern::closed(
            "packages.installed[*].arch",
            Shape::Text,
            "amd64, all, x86_64, noarch, ...",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    if let Some(text) = context.text(STATUS).known()? {
        return Ok(json!({"manager": "dpkg", "installed": parse(&text)?}));
    }
    let installed = rpm::installed(context)?.ok_or_else(|| {
        let detail = format!("{STATUS}: not there, and no other package database is known");
        Unknown::new(Reason::Unsupported, detail)
    })?;
    Ok(json!({"manager": "rpm", "installed": installed}))
}

/// One stanza of the database, as far as we need it.
#[derive(Default)]
struct Stanza<'a> {
    package: &'a str,
    status: &'a str,
    version: &'a str,
    arch: &'a str,
}

/// The packages whose files are on the disk. One that dpkg left halfway is neither installed nor
/// absent: its entry is `$unknown`.
fn parse(text: &str) -> Result<Map<String, Value>, Unknown> {
    let stanzas = stanzas(text);
    let native = stanzas
        .iter()
        .find(|stanza| stanza.package == "dpkg")
        .map_or("", |dpkg| dpkg.arch);
    let mut installed = Map::new();
    for stanza in &stanzas {
        let mut words = stanza.status.split(' ');
        let (Some(_), Some(_), Some(state), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            let detail = format!("{STATUS}: package `{}` has no status", stanza.package);
            return Err(Unknown::new(Reason::Malformed, detail));
        };
        let entry = match state {
            "not-installed" | "config-files" => continue,
            "installed" | "triggers-pending" | "triggers-awaited" => {
                json!({"version": stanza.version, "arch": stanza.arch})
            }
            _ => {
                let detail = format!("package {}: dpkg left it `{state}`", stanza.package);
                Unknown::new(Reason::Unsupported, detail).to_value()
            }
        };
        let full = format!("{}:{}", stanza.package, stanza.arch);
        if !installed.contains_key(stanza.package) {
            installed.insert(stanza.package.to_owned(), entry);
        } else if stanza.arch == native {
            // The plain name is the native package's; the one that came first moves aside.
            if let Some(other) = installed.insert(stanza.package.to_owned(), entry) {
                let arch = other["arch"].as_str().unwrap_or("unknown");
                installed.insert(format!("{}:{arch}", stanza.package), other);
            }
        } else {
            installed.insert(full, entry);
        }
    }
    if installed.is_empty() {
        let detail = format!("{STATUS}: names no installed package");
        return Err(Unknown::new(Reason::Malformed, detail));
    }
    Ok(installed)
}

fn stanzas(text: &str) -> Vec<Stanza<'_>> {
    let mut stanzas = Vec::new();
    let mut stanza = Stanza::default();
    // The empty line after the last ends a stanza that the file leaves open.
    for line in text.lines().chain([""]) {
        if line.is_empty() {
            if !stanza.package.is_empty() {
                stanzas.push(std::mem::take(&mut stanza));
            }
            continue;
        }
        // A continuation begins with a blank, so its text cannot pass for a field.
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        match field {
            "Package" => stanza.package = value.trim(),
            "Status" => stanza.status = value.trim(),
            "Version" => stanza.version = value.trim(),
            "Architecture" => stanza.arch = value.trim(),
            _ => {}
        }
    }
    stanzas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    fn stanza(package: &str, status: &str, arch: &str) -> String {
        format!(
            "Package: {package}\nStatus: {status}\nPriority: optional\nArchitecture: {arch}\n\
             Version: 1:2.3-4\nDescription: text\n Package: not-a-field\n .\n Status: nor this\n\n"
        )
    }

    fn check(stanzas: &[String], expected: Value) {
        assert_eq!(parse(&stanzas.concat()).map(Value::Object), Ok(expected));
    }

    #[test]
    fn held_and_pending_packages_are_installed_removed_ones_are_not() {
        let here = json!({"version": "1:2.3-4", "arch": "amd64"});
        check(
            &[
                stanza("adduser", "install ok installed", "amd64"),
                stanza("bash", "hold ok installed", "amd64"),
                stanza("man-db", "install ok triggers-pending", "amd64"),
                stanza("telnetd", "deinstall ok config-files", "amd64"),
                stanza("zz", "unknown ok not-installed", "amd64"),
            ],
            json!({"adduser": here, "bash": here, "man-db": here}),
        );
    }

    #[test]
    fn a_package_left_halfway_is_unknown() {
        let text = stanza("telnetd", "install reinstreq half-installed", "amd64");
        let entry = parse(&text).unwrap()["telnetd"].clone();
        assert_eq!(
            Unknown::from_value(&entry).unwrap().reason,
            Reason::Unsupported
        );
    }

    #[test]
    fn the_plain_name_belongs_to_the_native_architecture() {
        let of = |arch: &str| json!({"version": "1:2.3-4", "arch": arch});
        let ok = "install ok installed";
        check(
            &[
                stanza("dpkg", ok, "amd64"),
                stanza("libc6", ok, "i386"),
                stanza("libc6", ok, "amd64"),
                stanza("wine32", ok, "i386"),
            ],
            json!({"dpkg": of("amd64"), "libc6": of("amd64"), "libc6:i386": of("i386"),
                   "wine32": of("i386")}),
        );
    }

    #[test]
    fn an_empty_or_damaged_database_never_means_nothing_installed() {
        for text in [
            "",
            "\0\u{fffd}",
            "Package: a\n",
            "Package: a\nStatus: install\n\n",
        ] {
            assert_eq!(
                parse(text).unwrap_err().reason,
                Reason::Malformed,
                "{text:?}"
            );
        }
        let fact = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(
            Unknown::from_value(&fact).unwrap().reason,
            Reason::Unsupported
        );
    }
}
