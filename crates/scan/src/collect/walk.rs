//! What one pass over the local filesystems finds.
//!
//! A list that is over its cap, or that a closed directory left incomplete, is unknown: it could
//! show that something is wrong, and never that nothing is.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape};
use crate::{
    facts::{Reason, Unknown},
    target::{Walk, WalkedFile},
};

/// Entries of one list. A host with more has one finding, not ten thousand.
const LIST_MAX: usize = 10_000;

/// Ten million files on a slow disk; a usual host takes seconds.
const WALK_DEADLINE: Duration = Duration::from_secs(300);

/// Ids of files without a local owner that other sources of names are asked about, in one question.
const ASKED_IDS_MAX: usize = 1_000;

pub(super) const COLLECTOR: Collector = Collector {
    name: "walk",
    about: "one pass over the local filesystems; follows no link, enters no remote or virtual mount",
    reads: &[
        "attributes of every file on a local filesystem",
        "/proc/self/mountinfo",
        "/etc/passwd",
        "/etc/group",
        "/etc/nsswitch.conf",
    ],
    runs: &[
        "/usr/bin/getent passwd ID...",
        "/usr/bin/getent group ID...",
    ],
    privilege: Privilege::Partly("directories closed to others leave every list unknown"),
    deadline: WALK_DEADLINE,
    patterns: PATTERNS,
    collect,
    ..Collector::DEFAULT
};

macro_rules! list_patterns {
    ($($name:literal $about:literal),+ $(,)?) => {
        &[
            FactPattern::closed("walk", Shape::Map, "the pass over the filesystems"),
            FactPattern::closed("walk.files", Shape::Int, "files seen that are no directories"),
            FactPattern::closed("walk.dirs", Shape::Int, "directories seen"),
            FactPattern::closed("walk.skipped_mounts", Shape::List, "mounts not entered"),
            FactPattern::closed("walk.skipped_mounts[].path", Shape::Text, "mount point"),
            FactPattern::closed("walk.skipped_mounts[].fstype", Shape::Text, "filesystem type"),
            $(
                FactPattern::closed(concat!("walk.", $name), Shape::List, $about),
                FactPattern::closed(concat!("walk.", $name, "[].path"), Shape::Text, "path"),
                FactPattern::closed(concat!("walk.", $name, "[].mode"), Shape::Text, "0644"),
                FactPattern::closed(concat!("walk.", $name, "[].owner"), Shape::Text, "name, or number without one"),
                FactPattern::closed(concat!("walk.", $name, "[].group"), Shape::Text, "name, or number without one"),
            )+
        ]
    };
}

const PATTERNS: &[FactPattern] = list_patterns! {
    "world_writable_files" "regular files anyone may write",
    "world_writable_dirs_no_sticky" "directories anyone may write, without the sticky bit",
    "unowned" "files whose owner has no name",
    "ungrouped" "files whose group has no name",
    "setuid" "regular files that run as their owner",
    "setgid" "regular files that run as their group",
    "device_files_outside_dev" "device files elsewhere than in /dev",
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let names = context.names()?;
    let known_uids: Vec<u32> = names.users.keys().copied().collect();
    let known_gids: Vec<u32> = names.groups.keys().copied().collect();
    let walk = Walk {
        known_uids: &known_uids,
        known_gids: &known_gids,
        list_max: LIST_MAX,
        deadline: context.time_left()?,
    };
    let walked = context.target.walk(&walk, context.progress)?;
    let unseen = walked.unseen.as_ref();
    let list = |files: &[WalkedFile]| match unseen {
        Some(unseen) => unseen.to_value(),
        None => list(context, files),
    };
    let unowned = nameless(context, "passwd", walked.unowned, |file| file.uid);
    let ungrouped = nameless(context, "group", walked.ungrouped, |file| file.gid);
    let orphans = |files: Result<Vec<WalkedFile>, Unknown>| match files {
        Ok(files) => list(&files),
        Err(unknown) => unknown.to_value(),
    };
    let skipped = walked.skipped_mounts.iter();
    let skipped = skipped.map(|mount| json!({"path": mount.path, "fstype": mount.fstype}));
    Ok(json!({
        "world_writable_files": list(&walked.world_writable_files),
        "world_writable_dirs_no_sticky": list(&walked.world_writable_dirs_no_sticky),
        "unowned": orphans(unowned),
        "ungrouped": orphans(ungrouped),
        "setuid": list(&walked.setuid),
        "setgid": list(&walked.setgid),
        "device_files_outside_dev": list(&walked.device_files_outside_dev),
        "files": walked.files,
        "dirs": walked.dirs,
        "skipped_mounts": skipped.collect::<Vec<_>>(),
    }))
}

fn list(context: &Context<'_>, files: &[WalkedFile]) -> Value {
    if files.len() > LIST_MAX {
        return Unknown::new(Reason::Truncated, format!("walk: over {LIST_MAX} files")).into();
    }
    files
        .iter()
        .map(|file| {
            let mut fields = Map::new();
            fields.insert("path".into(), file.path.as_str().into());
            fields.extend(context.ownership(file.mode, file.uid, file.gid));
            Value::Object(fields)
        })
        .collect()
}

/// Without the files whose id has a name elsewhere: in a directory service, or given out by systemd
/// to a service while it runs.
///
/// # Errors
/// There are other sources of names, and they could not be asked.
fn nameless(
    context: &Context<'_>,
    database: &str,
    files: Vec<WalkedFile>,
    id: fn(&WalkedFile) -> u32,
) -> Result<Vec<WalkedFile>, Unknown> {
    if files.is_empty() {
        return Ok(files);
    }
    let conf = context.text("/etc/nsswitch.conf").known()?;
    if only_files(&conf.unwrap_or_default(), database) {
        return Ok(files);
    }
    let mut ids: Vec<u32> = files.iter().map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > ASKED_IDS_MAX {
        let detail = format!("{database}: over {ASKED_IDS_MAX} ids without a local name");
        return Err(Unknown::new(Reason::Truncated, detail));
    }
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    let mut args = vec![database];
    args.extend(ids.iter().map(String::as_str));
    // Its status is 2 when it knows some of them only, which is the usual answer here.
    let ran = context.run(&["/usr/bin/getent"], &args)?;
    if !matches!(ran.status, Some(0 | 2)) {
        let detail = format!("/usr/bin/getent {database}: status {:?}", ran.status);
        return Err(Unknown::new(Reason::Unreadable, detail));
    }
    let named = String::from_utf8_lossy(&ran.stdout);
    let named: Vec<&str> = named
        .lines()
        .filter_map(|line| line.split(':').nth(2))
        .collect();
    let is_nameless = |file: &WalkedFile| !named.contains(&id(file).to_string().as_str());
    Ok(files.into_iter().filter(is_nameless).collect())
}

/// Whether nsswitch.conf(5) names no source of names but the local files. Without a line for the
/// database the C library asks the files.
fn only_files(conf: &str, database: &str) -> bool {
    let line = conf
        .lines()
        .filter_map(|line| line.split('#').next()?.split_once(':'))
        .find(|(name, _)| name.trim() == database);
    line.is_none_or(|(_, sources)| {
        sources
            .split_ascii_whitespace()
            .all(|source| matches!(source, "files" | "compat") || source.starts_with('['))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    /// A host whose tables name nobody: each of its files is without an owner.
    fn host(nsswitch: &str) -> (Fixture, String) {
        let host = Fixture::new(&[
            ("/etc/passwd", ""),
            ("/etc/group", ""),
            ("/etc/nsswitch.conf", nsswitch),
            ("/srv/open", ""),
        ]);
        host.chmod("/srv/open", 0o666);
        let stat = rustix::fs::stat(host.at("/srv/open")).unwrap();
        (host, stat.st_uid.to_string())
    }

    fn ids_of(fact: &Value, list: &str) -> Vec<String> {
        let files = fact[list].as_array().unwrap().iter();
        files
            .map(|file| file["owner"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn files_are_told_with_their_owners_and_counts() {
        let (host, uid) = host("passwd: files\n");
        let fact = host.collect(&COLLECTOR);
        let open = &fact["world_writable_files"];
        assert_eq!(open.as_array().unwrap().len(), 1);
        assert_eq!(open[0]["path"], "/srv/open");
        assert_eq!(open[0]["mode"], "0666");
        assert_eq!(ids_of(&fact, "unowned"), vec![uid; 7]);
        assert_eq!(fact["files"], 4);
        assert_eq!(fact["dirs"], 3);
        assert_eq!(fact["skipped_mounts"], json!([]));
    }

    #[test]
    fn an_owner_that_another_source_names_is_no_stranger() {
        let (host, uid) = host("passwd: files sss # directory\ngroup: files\n");
        let line = format!("/usr/bin/getent passwd {uid}");
        let named = host.prints(&line, 0, &format!("ann:*:{uid}:100::/:/bin/sh\n"));
        assert_eq!(named.collect(&COLLECTOR)["unowned"], json!([]));
    }

    #[test]
    fn an_owner_that_nobody_could_be_asked_about_leaves_the_list_unknown() {
        let check = |host: Fixture, expected: Reason| {
            let fact = host.collect(&COLLECTOR);
            assert_eq!(
                Unknown::from_value(&fact["unowned"]).unwrap().reason,
                expected
            );
            assert!(fact["world_writable_files"].is_array());
        };
        let conf = "passwd: files systemd\ngroup: files\n";
        check(host(conf).0, Reason::ToolMissing);
        let (failing, uid) = host(conf);
        let line = format!("/usr/bin/getent passwd {uid}");
        check(failing.prints(&line, 1, ""), Reason::Unreadable);
        let (silent, uid) = host(conf);
        let line = format!("/usr/bin/getent passwd {uid}");
        let fact = silent.prints(&line, 2, "").collect(&COLLECTOR);
        assert_eq!(ids_of(&fact, "unowned").len(), 7);
    }

    #[test]
    fn only_the_line_of_the_database_decides_whom_to_ask() {
        let check = |conf: &str, expected: bool| {
            assert_eq!(only_files(conf, "passwd"), expected, "{conf:?}");
        };
        check("", true);
        check("passwd: files\n", true);
        check("passwd:\tcompat [NOTFOUND=return]\n", true);
        check("passwd: files systemd\n", false);
        check("# passwd: sss\nshadow: sss\n", true);
    }

    /// Proves: RUL-4
    #[test]
    fn a_list_that_is_not_whole_is_unknown() {
        let (host, _) = host("");
        let mut deep = String::from("/srv");
        for _ in 0..300 {
            deep.push_str("/d");
        }
        host.dir(&deep);
        let fact = host.collect(&COLLECTOR);
        for list in ["setuid", "unowned", "world_writable_files"] {
            let unknown = Unknown::from_value(&fact[list]).unwrap();
            assert_eq!(unknown.reason, Reason::Truncated, "{list}");
        }
        assert!(fact["files"].as_u64().unwrap() > 0);
    }
}
