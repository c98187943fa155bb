//! The walk by `find`: what it is told, and what its findings mean.
//!
//! One `find` for each local filesystem of the mount table, one after the other. It stops at mount
//! points by name, as the mount table had them a moment before: comparing devices would also stop at
//! the subvolumes of a btrfs. Findings come with a NUL behind each; files and directories are counted
//! by `wc`, one byte an entry, and do not travel.

use std::fmt::Write as _;

use super::{answer::Parts, question::WalkAsked, shell::quote};
use crate::{
    facts::{Reason, Unknown},
    target::{
        Walked, WalkedFile,
        mount_table::{Mount, Plan},
        unknown,
    },
};

/// Terms that tell known ids from others: one a gap between them. A host with more gaps than this
/// has its users elsewhere.
const ID_RANGES_MAX: usize = 4_000;

/// How `timeout` ends when it ended the program.
const TIMED_OUT: &str = "124";

/// The questions of the walk: number 1 is the first of `plan.enter`.
///
/// # Errors
/// More gaps between ids than `find` should be told.
pub(super) fn questions(plan: &Plan, asked: &WalkAsked) -> Result<String, Unknown> {
    let uids = nobody("-uid", &asked.known_uids)?;
    let gids = nobody("-gid", &asked.known_gids)?;
    let mut script = format!("t={};", asked.deadline.as_secs().max(1));
    for (index, mount) in plan.enter.iter().enumerate() {
        let point = String::from_utf8_lossy(&mount.point);
        let prune = prune(plan, mount);
        // Writing to a string cannot fail.
        write!(
            script,
            "i={};W {}{prune} \\( -type d -printf '\\n' -o -printf . \\) , \\( \
             -type d -perm -2 ! -perm -1000 -o -type f -perm /6002 -o {uids} -o {gids} -o \
             \\( -type b -o -type c \\) ! -path '/dev/*' \\) \
             -fprintf /dev/fd/8 '%y %m %U %G %p\\0';",
            index + 1,
            quote(&point),
        )
        .ok();
    }
    Ok(script)
}

/// Mount points below this one, which are not entered.
fn prune(plan: &Plan, mount: &Mount) -> String {
    let below = |point: &&Vec<u8>| {
        let rest = point.strip_prefix(mount.point.as_slice());
        **point != mount.point
            && rest.is_some_and(|rest| mount.point == b"/" || rest.starts_with(b"/"))
    };
    let mut points: Vec<&Vec<u8>> = plan.points.iter().filter(below).collect();
    points.sort();
    if points.is_empty() {
        return String::new();
    }
    let tests: Vec<String> = points
        .into_iter()
        .map(|point| format!("-path {}", quote(&pattern(&String::from_utf8_lossy(point)))))
        .collect();
    format!(" -type d \\( {} \\) -prune -o", tests.join(" -o "))
}

/// A name as a pattern that matches it alone.
fn pattern(path: &str) -> String {
    let mut pattern = String::new();
    for letter in path.chars() {
        if "\\*?[]".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// True for an id that is not among `known`, which are sorted.
fn nobody(test: &str, known: &[u32]) -> Result<String, Unknown> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &id in known {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    if ranges.len() > ID_RANGES_MAX {
        let why = format!("over {ID_RANGES_MAX} gaps between known ids");
        return Err(unknown(Reason::Truncated, "walk", why));
    }
    if ranges.is_empty() {
        return Ok("-true".to_owned());
    }
    let terms: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| match (first, last) {
            _ if first == last => format!("{test} {first}"),
            (0, _) => format!("{test} -{}", u64::from(last) + 1),
            _ => format!("{test} +{} {test} -{}", first - 1, u64::from(last) + 1),
        })
        .collect();
    Ok(format!("! \\( {} \\)", terms.join(" -o ")))
}

/// Adds what one filesystem gave.
///
/// # Errors
/// It was cut by its deadline or by the cap, or what came is no answer.
pub(super) fn take(
    parts: &mut Parts<'_>,
    list_max: usize,
    walked: &mut Walked,
) -> Result<(), Unknown> {
    let lost = || unknown(Reason::Unreadable, "walk", "find gave no clear answer");
    let findings = parts.next(b'o').ok_or_else(lost)?;
    let told = parts.next(b's').ok_or_else(lost)?;
    let told = str::from_utf8(told).map_err(|_| lost())?;
    let mut lines = told.splitn(3, '\n');
    let status = lines.next().ok_or_else(lost)?;
    if status == TIMED_OUT {
        return Err(unknown(Reason::Timeout, "walk", "cut before its end"));
    }
    // A `find` that saw to its end says 0, or 1 when it complained. Killed, or `timeout` not there any
    // more to kill it, it saw a part, and nobody knows which.
    if !matches!(status, "0" | "1") {
        return Err(unknown(
            Reason::Unreadable,
            "walk",
            format!("find ended with {}", status.escape_debug()),
        ));
    }
    let mut counts = lines.next().ok_or_else(lost)?.split_ascii_whitespace();
    let mut count = || counts.next()?.parse::<u64>().ok();
    let (dirs, entries) = count().zip(count()).ok_or_else(lost)?;
    let complaint = lines.next().unwrap_or("").trim();
    walked.dirs += dirs;
    walked.files += entries.saturating_sub(dirs);
    // A mount that went away leaves nothing, and nothing to complain of.
    if !complaint.is_empty() {
        note(walked, refusal(complaint));
    }
    let findings = match findings {
        [] => return Ok(()),
        [all @ .., 0] => all,
        _ => {
            return Err(unknown(
                Reason::Truncated,
                "walk",
                "more findings than may travel",
            ));
        }
    };
    for finding in findings.split(|&byte| byte == 0) {
        classify(finding, list_max, walked).ok_or_else(lost)?;
    }
    Ok(())
}

fn refusal(complaint: &str) -> Unknown {
    let (path, words) = complaint.rsplit_once(": ").unwrap_or((complaint, ""));
    let reason = match words {
        "Permission denied" | "Operation not permitted" => Reason::Privilege,
        _ => Reason::Unreadable,
    };
    unknown(reason, path, words.to_lowercase())
}

/// The first by name stands for all.
fn note(walked: &mut Walked, another: Unknown) {
    match &walked.unseen {
        Some(known) if known.detail <= another.detail => {}
        _ => walked.unseen = Some(another),
    }
}

/// `f 4755 0 0 /usr/bin/su` into the lists it belongs to.
fn classify(finding: &[u8], list_max: usize, walked: &mut Walked) -> Option<()> {
    let mut fields = finding.splitn(5, |&byte| byte == b' ');
    let mut text = || str::from_utf8(fields.next()?).ok();
    let kind = text()?;
    let mode = u32::from_str_radix(text()?, 8).ok()? & 0o7777;
    let (uid, gid) = (text()?.parse().ok()?, text()?.parse().ok()?);
    let path = String::from_utf8_lossy(fields.next()?).into_owned();
    let file = WalkedFile {
        path,
        mode,
        uid,
        gid,
    };
    let is_device = matches!(kind, "b" | "c") && !file.path.starts_with("/dev/");
    let lists = [
        (
            kind == "f" && mode & 0o0002 != 0,
            &mut walked.world_writable_files,
        ),
        (
            kind == "d" && mode & 0o1002 == 0o0002,
            &mut walked.world_writable_dirs_no_sticky,
        ),
        (kind == "f" && mode & 0o4000 != 0, &mut walked.setuid),
        (kind == "f" && mode & 0o2000 != 0, &mut walked.setgid),
        (is_device, &mut walked.device_files_outside_dev),
    ];
    for (belongs, list) in lists {
        if belongs {
            keep(list, list_max, &file);
        }
    }
    walked.unowned.push(file);
    Some(())
}

/// Up to one more than `max`: that one says that the list is over its cap.
fn keep(list: &mut Vec<WalkedFile>, max: usize, file: &WalkedFile) {
    if list.len() <= max {
        list.push(file.clone());
    }
}

/// Sorts the lists, and leaves those without an owner in theirs.
pub(super) fn finish(asked: &WalkAsked, walked: &mut Walked) {
    let all = std::mem::take(&mut walked.unowned);
    for file in &all {
        if asked.known_uids.binary_search(&file.uid).is_err() {
            keep(&mut walked.unowned, asked.list_max, file);
        }
        if asked.known_gids.binary_search(&file.gid).is_err() {
            keep(&mut walked.ungrouped, asked.list_max, file);
        }
    }
    for list in [
        &mut walked.world_writable_files,
        &mut walked.world_writable_dirs_no_sticky,
        &mut walked.unowned,
        &mut walked.ungrouped,
        &mut walked.setuid,
        &mut walked.setgid,
        &mut walked.device_files_outside_dev,
    ] {
        list.sort_by(|a, b| a.path.cmp(&b.path));
    }
}
