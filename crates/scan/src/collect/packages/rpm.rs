//! Installed packages, as rpm(8) tells them.
//!
//! Reading changes nothing only where rpm finds the files that it shares with other readers: the
//! index of SQLite's log beside `rpmdb.sqlite`, Berkeley DB's environment beside `Packages`. Where
//! they are missing rpm would create them, so it is not run. It takes no lock that an installation
//! waits for: SQLite's readers never block its writer, and `.rpm.lock` is for transactions.

use serde_json::{Map, Value, json};

use super::super::{Context, refusal, rows};
use crate::{
    facts::{Reason, Unknown},
    target::Links,
    version,
};

/// Each database with what must lie beside it.
const DATABASES: [(&str, &[&str]); 3] = [
    (
        "/var/lib/rpm/rpmdb.sqlite",
        &[
            "/var/lib/rpm/rpmdb.sqlite-shm",
            "/var/lib/rpm/rpmdb.sqlite-wal",
        ],
    ),
    (
        "/usr/lib/sysimage/rpm/rpmdb.sqlite",
        &[
            "/usr/lib/sysimage/rpm/rpmdb.sqlite-shm",
            "/usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
        ],
    ),
    ("/var/lib/rpm/Packages", &["/var/lib/rpm/__db.001"]),
];
const RPM: &str = "/usr/bin/rpm";
/// Signatures were checked at installation; checking them again takes most of the time.
const ARGS: &[&str] = &[
    "-qa",
    "--nosignature",
    "--nodigest",
    "--queryformat",
    r"%{NAME}\t%{EPOCH}\t%{VERSION}-%{RELEASE}\t%{ARCH}\n",
];

/// The packages, or `None` where there is no database of rpm.
///
/// # Errors
/// rpm would create a file, could not be run, or complained.
pub(super) fn installed(context: &Context<'_>) -> Result<Option<Map<String, Value>>, Unknown> {
    let Some((database, beside)) = database(context)? else {
        return Ok(None);
    };
    for path in beside {
        if context.stat(path, Links::Follow).known()?.is_none() {
            let detail = format!(
                "{path}: not there, and rpm would create it to read {database}; any rpm command of root does"
            );
            return Err(Unknown::new(Reason::Unsupported, detail));
        }
    }
    let ran = context.run(&[RPM], ARGS)?;
    let complaint = String::from_utf8_lossy(&ran.stderr)
        .lines()
        .find(|line| line.starts_with("error"))
        .map(|line| line.chars().take(200).collect::<String>());
    let text = refusal::answer("rpm -qa", ran)?;
    // rpm skips what it cannot read, complains, and ends with success.
    if let Some(complaint) = complaint {
        let detail = format!("rpm -qa: {complaint}");
        return Err(Unknown::new(Reason::Malformed, detail));
    }
    parse(&text).map(Some)
}

fn database(
    context: &Context<'_>,
) -> Result<Option<(&'static str, &'static [&'static str])>, Unknown> {
    for (database, beside) in DATABASES {
        if context.stat(database, Links::Follow).known()?.is_some() {
            return Ok(Some((database, beside)));
        }
    }
    Ok(None)
}

/// One line a package. Kernels stand side by side under one name: the plain name is the newest's,
/// an older one is `name@version`, a further architecture `name:arch`.
fn parse(text: &str) -> Result<Map<String, Value>, Unknown> {
    let mut installed: Map<String, Value> = Map::new();
    for (index, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, epoch, version, arch] = fields[..] else {
            let detail = format!("rpm -qa: line {} is no package", index + 1);
            return Err(Unknown::new(Reason::Malformed, detail));
        };
        // Imported keys are kept as packages without files.
        if name == "gpg-pubkey" {
            continue;
        }
        let version = match epoch {
            "(none)" | "0" => version.to_owned(),
            epoch => format!("{epoch}:{version}"),
        };
        let entry = json!({"version": version, "arch": arch});
        let Some(there) = installed.get(name) else {
            installed.insert(name.to_owned(), entry);
            rows::check(installed.len(), "rpm -qa")?;
            continue;
        };
        let other = there["version"].as_str().unwrap_or_default().to_owned();
        if there["arch"] != *arch {
            installed.insert(format!("{name}:{arch}"), entry);
        } else if version::compare(&version, &other).is_gt() {
            if let Some(older) = installed.insert(name.to_owned(), entry) {
                installed.insert(format!("{name}@{other}"), older);
            }
        } else {
            installed.insert(format!("{name}@{version}"), entry);
        }
        rows::check(installed.len(), "rpm -qa")?;
    }
    if !installed.contains_key("rpm") {
        let detail = "rpm -qa: does not name rpm itself".to_owned();
        return Err(Unknown::new(Reason::Malformed, detail));
    }
    Ok(installed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{fixture::Fixture, packages::COLLECTOR};

    const OUTPUT: &str = "rpm\t(none)\t4.16.1.3-29.el9\tx86_64\n\
        gpg-pubkey\t(none)\t5a6340b3-6229229e\t(none)\n\
        kernel\t(none)\t5.14.0-427.el9\tx86_64\nkernel\t(none)\t5.14.0-503.el9\tx86_64\n\
        dbus\t1\t1.12.20-8.el9\tx86_64\nglibc\t0\t2.34-100.el9\tx86_64\nglibc\t0\t2.34-100.el9\ti686\n";

    fn line() -> String {
        [&[RPM], ARGS].concat().join(" ")
    }

    fn host(beside: bool) -> Fixture {
        let host = Fixture::new(&[("/var/lib/rpm/rpmdb.sqlite", "x"), (RPM, "")]);
        if beside {
            host.write("/var/lib/rpm/rpmdb.sqlite-shm", b"");
            host.write("/var/lib/rpm/rpmdb.sqlite-wal", b"");
        }
        host
    }

    #[test]
    fn packages_have_their_epoch_and_kernels_stand_side_by_side() {
        let fact = host(true).prints(&line(), 0, OUTPUT).collect(&COLLECTOR);
        let of = |version: &str, arch: &str| json!({"version": version, "arch": arch});
        assert_eq!(
            fact,
            json!({"manager": "rpm", "installed": {
                "rpm": of("4.16.1.3-29.el9", "x86_64"),
                "kernel": of("5.14.0-503.el9", "x86_64"),
                "kernel@5.14.0-427.el9": of("5.14.0-427.el9", "x86_64"),
                "dbus": of("1:1.12.20-8.el9", "x86_64"),
                "glibc": of("2.34-100.el9", "x86_64"),
                "glibc:i686": of("2.34-100.el9", "i686"),
            }})
        );
    }

    /// Proves: EXE-12
    #[test]
    fn rpm_is_not_run_where_it_would_create_a_file() {
        let fact = host(false).prints(&line(), 0, OUTPUT).collect(&COLLECTOR);
        let unknown = Unknown::from_value(&fact).unwrap();
        assert_eq!(unknown.reason, Reason::Unsupported);
        assert!(unknown.detail.contains("rpmdb.sqlite-shm"), "{unknown}");
    }

    /// Proves: RUL-4
    #[test]
    fn an_empty_cut_or_failed_answer_is_never_nothing_installed() {
        for (status, output) in [
            (0, ""),
            (0, "kernel\t(none)\t5.14.0-427.el9\tx86_64\n"),
            (0, "rpm\t(none)\t4.16"),
            (0, "rpm\t(none)\t4.16-1\tx86_64\nkern"),
            (0, "\0\u{1}"),
            (1, OUTPUT),
        ] {
            let fact = host(true)
                .prints(&line(), status, output)
                .collect(&COLLECTOR);
            assert!(Unknown::from_value(&fact).is_some(), "{output:?}");
        }
    }
}
