//! From the sections of an answer to what is known of the host.
//!
//! A thing is absent only when the host said so of exactly that thing. What cannot be read for
//! certain is left unanswered, and so asked again or unknown, never absent and never empty.

use std::collections::{BTreeMap, HashMap};

use memchr::memmem;

use super::{
    captured::Known,
    question::{BATCHED_BYTES_MAX, Batch, Program, is_plain},
    shell::{COMPLAINTS_BYTES_MAX, SECTION_BYTES_MAX},
};
use crate::{
    facts::{Reason, Unknown},
    target::{ENTRIES_MAX, Entry, Found, Kind, PackageList, Ran, Stat, unknown},
};

/// `/dev/null`, as `stat` writes its device.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// Sections of one question, in order.
pub(super) struct Parts<'b>(std::slice::Iter<'b, (u8, &'b [u8])>);

impl<'b> Parts<'b> {
    pub(super) fn new(sections: &'b [(u8, &'b [u8])]) -> Self {
        Self(sections.iter())
    }

    pub(super) fn next(&mut self, name: u8) -> Option<&'b [u8]> {
        let (found, content) = self.0.as_slice().first()?;
        if *found != name {
            return None;
        }
        self.0.next();
        Some(content)
    }
}

/// Puts the answer to `batch` into `known`. `None` when it does not have the form of one; what was
/// taken until then holds.
pub(super) fn take(
    batch: &Batch,
    mark: &str,
    mut parts: Parts<'_>,
    known: &mut Known,
) -> Option<()> {
    match batch {
        Batch::StatKeep(asked) => {
            for (path, stat) in stats(asked, parts.next(b'o')?, parts.next(b'e')?) {
                known
                    .stats_keep
                    .insert(path.clone(), stat.map(|(stat, _)| stat));
            }
        }
        Batch::StatFollow(asked) => {
            for (path, stat) in stats(asked, parts.next(b'o')?, parts.next(b'e')?) {
                known
                    .stats_follow
                    .insert(path.clone(), stat.map(|(stat, _)| stat));
            }
        }
        Batch::Links(asked) => links(asked, parts.next(b'o')?, parts.next(b'e')?, known),
        Batch::Lists(asked) => listings(asked, false, parts.next(b'o')?, parts.next(b'e')?, known),
        Batch::Trees(asked) => listings(asked, true, parts.next(b'o')?, parts.next(b'e')?, known),
        Batch::Contents(asked) => contents(asked, mark, &mut parts, known)?,
        Batch::Content(path, cap) => content(path, *cap, &mut parts, known)?,
        Batch::Hashes(asked, cap) => hashes(asked, *cap, &mut parts, known)?,
        Batch::PackageList(path) => package_list(path, &mut parts, known)?,
        Batch::Program(program, deadline, cap) => {
            let ran = ran(program, *deadline, *cap, &mut parts)?;
            known.programs.insert(program.clone(), ran);
        }
    }
    Some(())
}

/// A stat and its device number.
type Told = (Stat, (u32, u32));

/// `stat` prints what it finds in the order of its arguments and complains about the others in the
/// same order.
fn stats<'a>(
    asked: &'a [String],
    output: &[u8],
    complaints: &[u8],
) -> Vec<(&'a String, Found<Told>)> {
    let mut rest = output;
    let mut failed = Vec::new();
    let mut answers = Vec::with_capacity(asked.len());
    for path in asked {
        match stat_line(rest, path) {
            Some((told, after)) => {
                rest = after;
                answers.push((path, Found::Present(told)));
            }
            None => failed.push(path),
        }
    }
    let said: Vec<&[u8]> = lines(complaints)
        .filter(|line| line.starts_with(b"stat: "))
        .collect();
    let matches = said.len() == failed.len() && rest.is_empty();
    for (index, path) in failed.into_iter().enumerate() {
        let words = said.get(index).filter(|_| matches);
        let answer = match words.and_then(|line| complaint_about(line, path)) {
            Some(words) => refused(path, words),
            None => unknown(Reason::Unreadable, path, "stat gave no clear answer").into(),
        };
        answers.push((path, answer));
    }
    answers
}

/// `81a4 0 0 1400 1795240825 0 0 /etc/passwd`: kind and mode, owner, group, size, time, device.
fn stat_line<'o>(output: &'o [u8], path: &str) -> Option<(Told, &'o [u8])> {
    let mut rest = output;
    let mut field = || {
        let end = rest.iter().position(|&byte| byte == b' ')?;
        let text = str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end + 1..];
        Some(text)
    };
    let raw = u32::from_str_radix(field()?, 16).ok()?;
    let (uid, gid) = (field()?.parse().ok()?, field()?.parse().ok()?);
    let (size, mtime_seconds) = (field()?.parse().ok()?, field()?.parse().ok()?);
    let major = u32::from_str_radix(field()?, 16).ok()?;
    let minor = u32::from_str_radix(field()?, 16).ok()?;
    let after = rest.strip_prefix(path.as_bytes())?.strip_prefix(b"\n")?;
    let stat = Stat {
        kind: kind_of_mode(raw),
        mode: raw & 0o7777,
        uid,
        gid,
        size,
        mtime_seconds,
    };
    Some(((stat, (major, minor)), after))
}

fn kind_of_mode(mode: u32) -> Kind {
    match mode >> 12 {
        0o10 => Kind::File,
        0o04 => Kind::Dir,
        0o12 => Kind::Link,
        0o02 => Kind::CharDevice,
        0o06 => Kind::BlockDevice,
        _ => Kind::Other,
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// The system's words at the end of `stat: cannot statx '/etc/x': No such file or directory`, when
/// the line is about `path`. Odd names are quoted in several ways: for those the order must do.
fn complaint_about<'l>(line: &'l [u8], path: &str) -> Option<&'l str> {
    let line = str::from_utf8(line).ok()?;
    let (about, words) = line.rsplit_once(": ")?;
    let names = |quoted: String| about.ends_with(&quoted);
    let is_about = !is_plain(path) || names(format!(" '{path}'")) || names(format!(" {path}"));
    is_about.then_some(words)
}

/// What the system's words mean. Absent on exactly the two that [`LocalTarget`] takes for it.
///
/// [`LocalTarget`]: crate::target::LocalTarget
pub(super) fn refused<T>(object: &str, words: &str) -> Found<T> {
    let reason = match words {
        "No such file or directory" | "Not a directory" => return Found::Absent,
        "Permission denied" | "Operation not permitted" => Reason::Privilege,
        _ => Reason::Unreadable,
    };
    unknown(reason, object, words.to_lowercase()).into()
}

/// One file as `find` describes it.
struct Seen<'o> {
    depth: usize,
    kind: Kind,
    stat: Stat,
    path: &'o [u8],
    link: &'o [u8],
}

/// `0 d 755 0 0 4096 1750775825.0000000000 /etc/apt` NUL, link target NUL. `None` when the last one
/// is not whole or one has another form.
fn seen(output: &[u8]) -> Option<Vec<Seen<'_>>> {
    // Cut where one ends, it would look like the whole: whoever may make files could choose where.
    if output.len() >= SECTION_BYTES_MAX {
        return None;
    }
    let mut all = Vec::new();
    let mut pieces = output.split(|&byte| byte == 0);
    loop {
        let head = pieces.next()?;
        if head.is_empty() {
            // Behind the last NUL is nothing.
            return pieces.next().is_none().then_some(all);
        }
        let link = pieces.next()?;
        let mut fields = head.splitn(8, |&byte| byte == b' ');
        let mut text = || str::from_utf8(fields.next()?).ok();
        let depth = text()?.parse().ok()?;
        let kind = match text()? {
            "f" => Kind::File,
            "d" => Kind::Dir,
            "l" => Kind::Link,
            "c" => Kind::CharDevice,
            "b" => Kind::BlockDevice,
            "p" | "s" => Kind::Other,
            _ => return None,
        };
        let mode = u32::from_str_radix(text()?, 8).ok()? & 0o7777;
        let (uid, gid) = (text()?.parse().ok()?, text()?.parse().ok()?);
        let size = text()?.parse().ok()?;
        let mtime_seconds = seconds(text()?)?;
        let stat = Stat {
            kind,
            mode,
            uid,
            gid,
            size,
            mtime_seconds,
        };
        let path = fields.next()?;
        all.push(Seen {
            depth,
            kind,
            stat,
            path,
            link,
        });
    }
}

/// Whole seconds, rounded down as the system does: `-0.5000000000` is within second -1.
fn seconds(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let is_part = part.bytes().any(|digit| digit != b'0');
    Some(if text.starts_with('-') && is_part {
        seconds.checked_sub(1)?
    } else {
        seconds
    })
}

/// Whether there may have been more complaints. The shell takes the last line break away.
fn is_cut(complaints: &[u8]) -> bool {
    complaints.len() >= COMPLAINTS_BYTES_MAX - 1
}

/// What `find` could not look at, by path; `None` for a line that names none.
fn find_complaints(complaints: &[u8]) -> Vec<(Option<&str>, &str)> {
    lines(complaints)
        .map(|line| {
            let line = str::from_utf8(line).unwrap_or_default();
            let parts = line
                .strip_prefix("find: '")
                .and_then(|line| line.rsplit_once("': "));
            match parts {
                Some((path, words)) if is_plain(path) => (Some(path), words),
                _ => (None, line),
            }
        })
        .collect()
}

fn links(asked: &[String], output: &[u8], complaints: &[u8], known: &mut Known) {
    let Some(all) = seen(output) else { return };
    let complaints = find_complaints(complaints);
    let mut seen_at: HashMap<&[u8], &Seen<'_>> = HashMap::new();
    seen_at.extend(all.iter().map(|seen| (seen.path, seen)));
    let said: HashMap<&str, &str> = complaints
        .iter()
        .filter_map(|(path, words)| Some(((*path)?, *words)))
        .collect();
    for path in asked {
        let answer = match (said.get(path.as_str()), seen_at.get(path.as_bytes())) {
            (Some(words), _) => refused(path, words),
            (None, Some(seen)) => link(path, seen),
            // Neither seen nor complained of: no answer.
            (None, None) => continue,
        };
        known.links.insert(path.clone(), answer);
    }
}

fn link(path: &str, seen: &Seen<'_>) -> Found<String> {
    if seen.kind != Kind::Link {
        return Found::Absent;
    }
    match str::from_utf8(seen.link) {
        Ok(target) => Found::Present(target.to_owned()),
        Err(_) => unknown(Reason::Unsupported, path, "its target is not UTF-8").into(),
    }
}

/// Directories with their entries, and what is told of those by the way. In a `tree` every
/// directory was entered, otherwise those asked for.
fn listings(asked: &[String], tree: bool, output: &[u8], complaints: &[u8], known: &mut Known) {
    let Some(all) = seen(output) else { return };
    let is_cut = is_cut(complaints);
    let complaints = find_complaints(complaints);
    let mut lists: BTreeMap<&[u8], Vec<(&[u8], Kind)>> = BTreeMap::new();
    // Where a mount is, `find` did not enter; whether it did cannot be told from an empty directory.
    let mut entered: HashMap<&[u8], bool> = HashMap::new();
    for seen in &all {
        if seen.kind == Kind::Dir && (tree || seen.depth == 0) {
            lists.entry(seen.path).or_default();
        }
        if let Some(at) = memchr::memrchr(b'/', seen.path).filter(|_| seen.depth > 0) {
            let dir = if at == 0 { &b"/"[..] } else { &seen.path[..at] };
            let dir = if lists.contains_key(dir) {
                dir
            } else {
                &seen.path[..=at]
            };
            lists
                .entry(dir)
                .or_default()
                .push((&seen.path[at + 1..], seen.kind));
            entered.insert(dir, true);
        }
        note(seen, known);
    }
    let is_clear = !is_cut && complaints.iter().all(|(path, _)| path.is_some());
    for (dir, entries) in lists {
        let Ok(path) = str::from_utf8(dir) else {
            continue;
        };
        let is_asked = asked.iter().any(|asked| asked == path);
        if !is_asked && !entered.contains_key(dir) {
            continue;
        }
        if is_clear {
            known.lists.insert(path.to_owned(), listing(path, entries));
        }
    }
    for (path, words) in complaints {
        let Some(path) = path else { continue };
        let answer = refused(path, words);
        // A name below that went away while it was looked at takes nothing from its directory. One
        // that could not be looked at is missing in it.
        if let Found::Unknown(why) = &answer
            && !all.iter().any(|seen| seen.path == path.as_bytes())
            && let Some((dir, _)) = path.rsplit_once('/')
        {
            known
                .lists
                .insert(dir.to_owned(), Found::Unknown(why.clone()));
        }
        if matches!(answer, Found::Unknown(_)) || asked.iter().any(|asked| asked == path) {
            known.lists.insert(path.to_owned(), answer);
        }
    }
    for path in asked {
        let is_other = all
            .iter()
            .any(|seen| seen.depth == 0 && seen.path == path.as_bytes() && seen.kind != Kind::Dir);
        if is_other {
            known.lists.insert(path.clone(), Found::Absent);
        }
    }
}

fn note(seen: &Seen<'_>, known: &mut Known) {
    // Of what was asked for links were followed: this is not the link itself.
    if seen.depth == 0 {
        return;
    }
    let Ok(path) = str::from_utf8(seen.path) else {
        return;
    };
    if seen.kind == Kind::Link {
        known.links.insert(path.to_owned(), link(path, seen));
    } else {
        known.links.insert(path.to_owned(), Found::Absent);
        known
            .stats_follow
            .insert(path.to_owned(), Found::Present(seen.stat));
    }
    known
        .stats_keep
        .insert(path.to_owned(), Found::Present(seen.stat));
}

fn listing(dir: &str, names: Vec<(&[u8], Kind)>) -> Found<Vec<Entry>> {
    if names.len() > ENTRIES_MAX {
        return unknown(
            Reason::Truncated,
            dir,
            format!("over {ENTRIES_MAX} entries"),
        )
        .into();
    }
    let mut entries = Vec::with_capacity(names.len());
    for (name, kind) in names {
        let Ok(name) = str::from_utf8(name) else {
            return unknown(Reason::Unsupported, dir, "holds a name that is not UTF-8").into();
        };
        entries.push(Entry {
            name: name.to_owned(),
            kind,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Found::Present(entries)
}

/// Attributes decide which files have contents; the answer of those without is complete with that.
fn regular<'a>(
    asked: &'a [String],
    parts: &mut Parts<'_>,
    known: &mut Known,
    refuse: &mut dyn FnMut(&mut Known, &str, Found<()>),
) -> Option<Vec<&'a String>> {
    let mut files = Vec::new();
    for (path, told) in stats(asked, parts.next(b'o')?, parts.next(b'e')?) {
        match told {
            Found::Present((stat, _)) if stat.kind == Kind::File => files.push(path),
            Found::Present((stat, device)) => {
                let is_null = stat.kind == Kind::CharDevice && device == NULL_DEVICE;
                let answer = if is_null {
                    Found::Present(())
                } else {
                    unknown(Reason::Unreadable, path, "not a regular file").into()
                };
                refuse(known, path, answer);
            }
            Found::Absent => refuse(known, path, Found::Absent),
            Found::Unknown(unknown) => refuse(known, path, unknown.into()),
        }
    }
    Some(files)
}

fn refuse_content(known: &mut Known, path: &str, answer: Found<()>) {
    known.put(path, answer.map(|()| Vec::new()), usize::MAX);
}

/// Complaints of `cat` and `sha256sum`, in the order of the files: `cat: /proc/x: Permission denied`.
/// `None` when one of them is about no file of `files`.
fn refusals<'a>(
    program: &str,
    files: &[&'a str],
    complaints: &[u8],
) -> Option<HashMap<&'a str, String>> {
    let mut refusals = HashMap::new();
    let mut rest = files.iter();
    for line in lines(complaints) {
        let line = str::from_utf8(line).ok()?.strip_prefix(program)?;
        let (file, words) = line.rsplit_once(": ")?;
        let file = rest.find(|known| **known == file)?;
        refusals.insert(*file, words.to_owned());
    }
    Some(refusals)
}

fn contents(asked: &[String], mark: &str, parts: &mut Parts<'_>, known: &mut Known) -> Option<()> {
    let files = regular(asked, parts, known, &mut refuse_content)?;
    let listed = listed(&files, parts.next(b'l')?)?;
    if listed.is_empty() {
        return Some(());
    }
    let output = parts.next(b'c')?;
    let complaints = parts.next(b'e')?;
    if is_cut(complaints) {
        // Whose complaint is lost looks like an empty file. Each is asked alone.
        return None;
    }
    let refusals = refusals("cat: ", &listed, complaints)?;
    // The environment of `cat`, twice: from one mark to the next is its length.
    let needle = format!("N={mark}\0");
    let mut marks = memmem::find_iter(output, needle.as_bytes());
    let (first, second) = (marks.next()?, marks.next()?);
    let length = second - first;
    let (environment, rest) = output.split_at_checked(length)?;
    let mut rest = rest.strip_prefix(environment)?;
    let separator = memmem::Finder::new(environment);
    for file in listed {
        // Cut by the cap of the section: this file and those after it were not answered.
        let end = separator.find(rest)?;
        let answer = match refusals.get(file) {
            Some(words) => refused(file, words),
            None => Found::Present(rest[..end].to_vec()),
        };
        known.put(file, answer, BATCHED_BYTES_MAX);
        rest = &rest[end + length..];
    }
    Some(())
}

/// The files that the host took for regular and small, in order; `None` when one was not asked for.
fn listed<'a>(files: &[&'a String], section: &[u8]) -> Option<Vec<&'a str>> {
    let mut rest = files.iter();
    lines(section)
        .map(|line| {
            rest.find(|file| file.as_bytes() == line)
                .map(|file| file.as_str())
        })
        .collect()
}

fn content(path: &String, cap: usize, parts: &mut Parts<'_>, known: &mut Known) -> Option<()> {
    let files = regular(
        std::slice::from_ref(path),
        parts,
        known,
        &mut refuse_content,
    )?;
    if files.is_empty() {
        return Some(());
    }
    let output = parts.next(b'x')?;
    let complaints = parts.next(b'e')?;
    let answer = match lines(complaints).next() {
        // Cut: `cat` may have complained of that.
        _ if output.len() > cap => Found::Present(output.to_vec()),
        None => Found::Present(output.to_vec()),
        Some(line) => {
            let line = str::from_utf8(line).ok()?;
            refused(path, line.rsplit_once(": ")?.1)
        }
    };
    known.put(path, answer, cap);
    Some(())
}

fn hashes(asked: &[String], cap: usize, parts: &mut Parts<'_>, known: &mut Known) -> Option<()> {
    let mut refuse = |known: &mut Known, path: &str, answer: Found<()>| {
        // The hash of nothing, for `/dev/null`.
        let answer = answer.map(|()| crate::target::sha256_hex(b""));
        known.hashes.insert(path.to_owned(), answer);
    };
    let files = regular(asked, parts, known, &mut refuse)?;
    let listed = listed(&files, parts.next(b'l')?)?;
    for file in files.iter().filter(|file| !listed.contains(&file.as_str())) {
        let long = unknown(Reason::Truncated, file, format!("longer than {cap} bytes"));
        known.hashes.insert((*file).clone(), long.into());
    }
    if listed.is_empty() {
        return Some(());
    }
    let output = parts.next(b'h')?;
    let refusals = refusals("sha256sum: ", &listed, parts.next(b'e')?)?;
    for (file, words) in refusals {
        known.hashes.insert(file.to_owned(), refused(file, &words));
    }
    let mut rest = listed.iter();
    for line in lines(output) {
        let (hash, name) = str::from_utf8(line).ok()?.split_once("  ")?;
        let file = rest.find(|file| **file == name)?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return None;
        }
        known
            .hashes
            .insert((*file).to_owned(), Found::Present(hash.to_owned()));
    }
    Some(())
}

fn package_list(path: &String, parts: &mut Parts<'_>, known: &mut Known) -> Option<()> {
    let mut refuse = |known: &mut Known, path: &str, answer: Found<()>| {
        let empty = || PackageList {
            stanzas: Vec::new(),
            whole_bytes: 0,
        };
        known
            .package_lists
            .insert(path.to_owned(), answer.map(|()| empty()));
    };
    let files = regular(std::slice::from_ref(path), parts, known, &mut refuse)?;
    if files.is_empty() {
        return Some(());
    }
    let output = parts.next(b'g')?;
    let complaint = lines(parts.next(b'e')?).next();
    let answer = match complaint {
        Some(line) => {
            let line = String::from_utf8_lossy(line).into_owned();
            let words = line
                .rsplit_once(": ")
                .map_or(line.as_str(), |(_, words)| words);
            match refused(path, words) {
                // Of the list itself it is known that it is there.
                Found::Absent => unknown(Reason::Unreadable, path, words).into(),
                other => other,
            }
        }
        None => {
            // Without the last line it was cut.
            let text = output.strip_suffix(b"\n")?;
            let at = memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
            let length = str::from_utf8(text[at..].strip_prefix(b"# ")?).ok()?;
            Found::Present(PackageList {
                whole_bytes: length.parse().ok()?,
                stanzas: text[..at].to_vec(),
            })
        }
    };
    known.package_lists.insert(path.clone(), answer);
    Some(())
}

/// How `timeout` ends when it ended the program.
const TIMED_OUT: i32 = 124;

fn ran(
    program: &Program,
    deadline: std::time::Duration,
    cap: usize,
    parts: &mut Parts<'_>,
) -> Option<Result<Ran, Unknown>> {
    let names = program.programs.join(", ");
    if parts.next(b'm').is_some() {
        return Some(Err(unknown(Reason::ToolMissing, &names, "not installed")));
    }
    if let Some(denied) = parts.next(b'd') {
        let name = String::from_utf8_lossy(denied);
        return Some(Err(unknown(Reason::Privilege, &name, "permission denied")));
    }
    let first = program.programs.first().map_or("", String::as_str);
    let stdout = parts.next(b'x')?;
    let told = parts.next(b's')?;
    if stdout.len() > cap {
        let why = format!("printed more than {cap} bytes");
        return Some(Err(unknown(Reason::Truncated, first, why)));
    }
    let (status, stderr) = match told.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&told[..at], &told[at + 1..]),
        None => (told, &b""[..]),
    };
    let status: i32 = str::from_utf8(status).ok()?.parse().ok()?;
    if status == TIMED_OUT {
        let after = format!("still running after {deadline:?}");
        return Some(Err(unknown(Reason::Timeout, first, after)));
    }
    Some(Ok(Ran {
        // The shell tells a signal by 128 and its number.
        status: (0..=128).contains(&status).then_some(status),
        stdout: stdout.to_vec(),
        stderr: stderr.to_vec(),
    }))
}
