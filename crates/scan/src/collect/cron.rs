//! Jobs of cron and who may have them, from crontab(5), cron.d and the users' tables.
//!
//! Scripts in `/etc/cron.{hourly,daily,weekly,monthly}` are files, not entries.

use serde_json::{Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape, part, rows};
use crate::{
    facts::Unknown,
    target::{Kind, Links},
};

const SYSTEM: &str = "/etc/crontab";
const DROP_INS: &str = "/etc/cron.d";
/// Debian and Red Hat. On Red Hat the tables lie in the parent, where Debian has only directories.
const SPOOLS: [&str; 2] = ["/var/spool/cron/crontabs", "/var/spool/cron"];
const PROGRAMS: [&str; 2] = ["/usr/sbin/cron", "/usr/sbin/crond"];

pub(super) const COLLECTOR: Collector = Collector {
    name: "cron",
    about: "cron jobs, and who may use cron and at",
    reads: &[
        "/usr/sbin/cron",
        "/usr/sbin/crond",
        "/etc/cron.allow",
        "/etc/cron.deny",
        "/etc/at.allow",
        "/etc/at.deny",
        SYSTEM,
        "/etc/cron.d/*",
        "/var/spool/cron/crontabs/*",
        "/var/spool/cron/*",
    ],
    privilege: Privilege::Partly("cron.entries"),
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("cron", Shape::Map, "cron and at"),
        FactPattern::closed("cron.installed", Shape::Bool, "a cron daemon exists"),
        FactPattern::closed("cron.allow_exists", Shape::Bool, "/etc/cron.allow exists"),
        FactPattern::closed("cron.deny_exists", Shape::Bool, "/etc/cron.deny exists"),
        FactPattern::closed("cron.at_allow_exists", Shape::Bool, "/etc/at.allow exists"),
        FactPattern::closed("cron.at_deny_exists", Shape::Bool, "/etc/at.deny exists"),
        FactPattern::closed("cron.entries", Shape::List, "jobs of all tables"),
        FactPattern::closed("cron.entries[].file", Shape::Text, "where it stands"),
        FactPattern::closed(
            "cron.entries[].schedule",
            Shape::Text,
            "five fields or @daily",
        ),
        FactPattern::closed("cron.entries[].user", Shape::Text, "who it runs as"),
        FactPattern::closed("cron.entries[].command", Shape::Text, "command line"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let exists = |path: &str| {
        part(
            context
                .stat(path, Links::Keep)
                .known()
                .map(|stat| stat.is_some().into()),
        )
    };
    let mut installed = false;
    for program in PROGRAMS {
        installed |= context.stat(program, Links::Follow).known()?.is_some();
    }
    Ok(json!({
        "installed": installed,
        "allow_exists": exists("/etc/cron.allow"),
        "deny_exists": exists("/etc/cron.deny"),
        "at_allow_exists": exists("/etc/at.allow"),
        "at_deny_exists": exists("/etc/at.deny"),
        "entries": part(entries(context).map(Value::from)),
    }))
}

fn entries(context: &Context<'_>) -> Result<Vec<Value>, Unknown> {
    let mut found = Vec::new();
    let mut take = |file: &str, owner: Option<&str>| -> Result<(), Unknown> {
        let text = context.text(file).known()?.unwrap_or_default();
        let jobs = text.lines().filter_map(|line| entry(line, owner));
        found.extend(jobs.map(|(schedule, user, command)| {
            json!({"file": file, "schedule": schedule, "user": user, "command": command})
        }));
        rows::check(found.len(), file)
    };
    take(SYSTEM, None)?;
    for file in context.list(DROP_INS).known()?.unwrap_or_default() {
        if is_table(&file.name) && matches!(file.kind, Kind::File | Kind::Link) {
            take(&format!("{DROP_INS}/{}", file.name), None)?;
        }
    }
    for spool in SPOOLS {
        for file in context.list(spool).known()?.unwrap_or_default() {
            if file.kind == Kind::File {
                take(&format!("{spool}/{}", file.name), Some(&file.name))?;
            }
        }
    }
    Ok(found)
}

/// Names that cron takes: Debian's only those of letters, digits, `_` and `-`; Red Hat's all but
/// hidden ones, package leftovers and backups. The wider set, so that no job goes unseen.
fn is_table(name: &str) -> bool {
    let left_over = [
        ".rpmsave",
        ".rpmorig",
        ".rpmnew",
        ".dpkg-old",
        ".dpkg-dist",
        ".dpkg-new",
        "~",
    ];
    !name.starts_with(['.', '#']) && !left_over.iter().any(|end| name.ends_with(end))
}

/// Schedule, user and command. `owner` for a user's own table, which has no user field. Nothing for
/// comments, assignments and what is no job.
fn entry<'a>(line: &'a str, owner: Option<&'a str>) -> Option<(String, &'a str, &'a str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let fields = if line.starts_with('@') { 1 } else { 5 };
    let mut rest = line;
    let mut schedule = Vec::new();
    for _ in 0..fields {
        let (field, after) = rest.split_once(char::is_whitespace)?;
        schedule.push(field);
        rest = after.trim_start();
    }
    // What tells `MAILTO=a b c d e f` from a job.
    let begins = |letter: char| letter.is_ascii_digit() || "*@~".contains(letter);
    if !schedule[0].starts_with(begins) {
        return None;
    }
    let (user, command) = match owner {
        Some(owner) => (owner, rest),
        None => rest.split_once(char::is_whitespace)?,
    };
    Some((schedule.join(" "), user, command.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collect::fixture::Fixture, facts::Reason};

    #[test]
    fn jobs_of_all_tables_have_a_user() {
        let host = Fixture::new(&[
            (
                SYSTEM,
                "SHELL=/bin/sh\nMAILTO=a b c d e f g\n17 *\t* * *\troot\tcd / && run-parts /etc/cron.hourly\n# 1 2 3 4 5 root x\n",
            ),
            ("/etc/cron.d/e2scrub", "@reboot root /sbin/e2scrub -A\n"),
            ("/etc/cron.d/.placeholder", "* * * * * root no\n"),
            ("/etc/cron.d/old.dpkg-old", "* * * * * root no\n"),
            (
                "/var/spool/cron/crontabs/ana",
                "*/5 * * * * backup --all % x\n",
            ),
            ("/etc/cron.allow", ""),
        ]);
        let job = |file: &str, schedule: &str, user: &str, command: &str| json!({"file": file, "schedule": schedule, "user": user, "command": command});
        let fact = host.collect(&COLLECTOR);
        assert_eq!(
            fact["entries"],
            json!([
                job(
                    SYSTEM,
                    "17 * * * *",
                    "root",
                    "cd / && run-parts /etc/cron.hourly"
                ),
                job("/etc/cron.d/e2scrub", "@reboot", "root", "/sbin/e2scrub -A"),
                job(
                    "/var/spool/cron/crontabs/ana",
                    "*/5 * * * *",
                    "ana",
                    "backup --all % x"
                ),
            ])
        );
        assert_eq!(
            (&fact["allow_exists"], &fact["deny_exists"]),
            (&json!(true), &json!(false))
        );
    }

    #[test]
    fn noise_is_no_job() {
        for line in [
            "",
            "# x",
            "A=b",
            "\0\u{1}",
            "* * * *",
            "@daily",
            "* * * * * root",
            "x y z 1 2 root ls",
        ] {
            assert_eq!(entry(line, None), None, "{line:?}");
        }
    }

    #[test]
    fn a_table_that_cannot_be_read_hides_no_job() {
        let host = Fixture::new(&[(SYSTEM, "* * * * * root ls\n")]);
        host.link("/etc/cron.d/loop", "loop");
        let unknown = Unknown::from_value(&host.collect(&COLLECTOR)["entries"]).unwrap();
        assert_eq!(unknown.reason, Reason::Unreadable);
    }
}
