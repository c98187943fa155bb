//! The operator's reset: a generation ends, its bytes are moved aside, the next one begins.
//!
//! Order of effects, each durable before the next: the order; every file of the old generation under
//! its name in `reset-{generation}-{time}/`; its old name removed; the order's second phase; the new
//! journal, its identity last; the record that tells of the reset; the line in `audit`; the order
//! removed. A crash anywhere leaves the old journal untouched (no order yet), or an order that the
//! next open carries out to the same end. No byte is ever written over or deleted.

use std::{io, path::Path};

use world::{Disk, disk::EntryKind};

use crate::{
    Cause, Epoch, Error, Generation, Identity, Journal, Kind, Local, Options, RecordKind, identity,
    local,
    order::{self, AUDIT_NAME, REASON_LEN_MAX, RESET_NAME, ResetOrder, ResetPhase},
    quarantine,
    survey::survey,
};

/// Bytes of audit lines, at a kilobyte or less each: thousands of resets. Beyond it something resets
/// in a loop, and must be stopped.
const AUDIT_LEN_MAX: u64 = 8 << 20;

/// What a reset did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Whose bytes were moved aside, when anything told.
    pub ended: Option<Identity>,
    /// What the journal is from here on.
    pub identity: Identity,
    /// Directory with everything that was there.
    pub moved_to: std::path::PathBuf,
}

/// Ends the generation of the journal in `options.dir`, whatever damage it has, and begins the next.
/// An interrupted reset is carried to its end, with the reason it had.
///
/// Errors: `Locked` names the holder; `Invalid`, no reason, a reason longer than
/// [`order::REASON_LEN_MAX`] bytes, or nothing there to reset; `Corrupt` with `VERSION_UNKNOWN`, another
/// format, with which nothing is wrong; `Full` and `Io`: the disk; reset again.
pub fn reset(options: &Options, reason: &str) -> Result<Reset, Error> {
    options.check()?;
    check_reason(reason)?;
    let (disk, dir) = (&*options.disk, &*options.dir);
    let exists = disk
        .stat(dir)
        .map_err(|source| Error::io("look for the journal", dir, source))?
        .is_some();
    if !exists {
        return Err(Error::new(Kind::Invalid, "there is no such directory").with_path(dir));
    }
    let lock = local::take_lock(options)?;
    let ended;
    let order = match ResetOrder::read(disk, dir) {
        Ok(Some(order)) => {
            ended = None;
            order
        }
        Err(error) if error.cause() == Some(Cause::VersionUnknown) => return Err(error),
        // One that does not verify is replaced: whatever phase it was in, what it moved stays where
        // it is, and what it made is moved after it.
        Ok(None) | Err(_) => {
            let (order, found) = new_order(options, reason)?;
            ended = found;
            order.write(disk, dir)?;
            order
        }
    };
    let (journal, _) = Local::open_locked(options, lock, local::Purpose::Use)?;
    journal.close()?;
    Ok(Reset {
        ended,
        identity: order.identity,
        moved_to: dir.join(order.moved_to()),
    })
}

fn check_reason(reason: &str) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::new(Kind::Invalid, message));
    if reason.trim().is_empty() {
        return refuse("a reset without a reason".to_owned());
    }
    if reason.len() > REASON_LEN_MAX {
        return refuse(format!(
            "a reason of {} bytes; at most {REASON_LEN_MAX}",
            reason.len()
        ));
    }
    Ok(())
}

/// The order, and whose generation it ends.
fn new_order(options: &Options, reason: &str) -> Result<(ResetOrder, Option<Identity>), Error> {
    let found = survey(options, &mut |_| std::ops::ControlFlow::Break(()))?;
    for error in found
        .opening
        .as_ref()
        .err()
        .into_iter()
        .chain(&found.identity_fault)
    {
        if error.cause() == Some(Cause::VersionUnknown) {
            return Err(error.clone());
        }
    }
    let entries = options
        .disk
        .list(&options.dir)
        .map_err(|source| Error::io("list the journal", &options.dir, source))?;
    let holds_bytes = entries
        .iter()
        .any(|entry| !stays(&entry.name, entry.kind, RESET_NAME));
    if !holds_bytes {
        return Err(Error::new(Kind::Invalid, "nothing is here to reset").with_path(&options.dir));
    }
    let held: Vec<_> = found
        .slots
        .iter()
        .filter_map(|slot| slot.held.as_ref().ok())
        .collect();
    let known = entries
        .iter()
        .filter_map(|entry| order::generation_moved_aside(&entry.name))
        .chain(held.iter().map(|held| held.identity.generation.0))
        .chain(found.identity.map(|identity| identity.generation.0))
        .max();
    let next = known.unwrap_or(0).checked_add(1).ok_or_else(|| {
        Error::new(Kind::Invalid, "no generation is left").with_path(&options.dir)
    })?;
    let journal = match found.identity {
        Some(identity) => identity.journal,
        None => identity::new(&*options.random)?.journal,
    };
    let mut order = ResetOrder {
        phase: ResetPhase::Moving,
        identity: Identity {
            journal,
            generation: Generation(next),
        },
        ended: found.identity.map_or(0, |identity| identity.generation.0),
        time: options.clock.now().nanos(),
        epoch: held.iter().map(|held| held.epoch).max().unwrap_or(Epoch(0)),
        reason: reason.to_owned(),
    };
    // A directory of its own, also when the clock stands still or was set back.
    while entries.iter().any(|entry| entry.name == order.moved_to()) {
        order.time += 1;
    }
    Ok((order, found.identity))
}

/// Carries out what an order asks for before the journal can be opened. Returns the order, which
/// [`conclude`] ends.
pub(crate) fn resume(options: &Options) -> Result<Option<ResetOrder>, Error> {
    let (disk, dir) = (&*options.disk, &*options.dir);
    let Some(mut order) = ResetOrder::read(disk, dir)? else {
        return Ok(None);
    };
    if order.phase == ResetPhase::Moving {
        let target = dir.join(order.moved_to());
        move_all(disk, dir, &target, RESET_NAME)
            .map_err(|source| Error::io("move a journal aside", &target, source))?;
        order.phase = ResetPhase::Making;
        order.write(disk, dir)?;
    }
    Ok(Some(order))
}

/// What stays in the directory while the order of this name is carried out.
pub(crate) fn stays(name: &str, kind: EntryKind, order: &str) -> bool {
    name == local::LOCK_NAME
        || name == order
        || name == AUDIT_NAME
        || name.strip_suffix(".tmp") == Some(order)
        || name.strip_suffix(".tmp") == Some(AUDIT_NAME)
        || kind == EntryKind::Dir && order::is_moved_aside(name)
}

/// Every name but those that stay, to `target`. All new names are durable before an old one goes.
pub(crate) fn move_all(disk: &dyn Disk, dir: &Path, target: &Path, order: &str) -> io::Result<()> {
    // With its name that of the order becomes durable, which may be in the page cache only.
    disk.create_dir_all_synced(target)?;
    let mut linked = Vec::new();
    for entry in disk.list(dir)? {
        if stays(&entry.name, entry.kind, order) {
            continue;
        }
        let from = dir.join(&entry.name);
        let to = target.join(&entry.name);
        if entry.kind == EntryKind::Dir && entry.name == quarantine::DIR {
            disk.create_dir_all_synced(&to)?;
            for cut in disk.list(&from)? {
                let (from, to) = (from.join(&cut.name), to.join(&cut.name));
                linked.extend(second_name(disk, &from, &to)?.then_some(from));
            }
            disk.sync_dir(&to)?;
        } else if entry.kind == EntryKind::File {
            linked.extend(second_name(disk, &from, &to)?.then_some(from));
        } else {
            disk.rename(&from, &to)?;
        }
    }
    disk.sync_dir(target)?;
    for from in &linked {
        disk.remove_file(from)?;
    }
    let emptied = dir.join(quarantine::DIR);
    if disk.stat(&emptied)?.is_some() {
        disk.sync_dir(&emptied)?;
        if disk.list(&emptied)?.is_empty() {
            disk.remove_dir_all(&emptied)?;
        }
    }
    disk.sync_dir(dir)?;
    let left = disk.list(dir)?;
    match left
        .iter()
        .find(|entry| !stays(&entry.name, entry.kind, order))
    {
        None => Ok(()),
        Some(left) => Err(io::Error::other(format!(
            "{} is still in {}",
            left.name,
            dir.display()
        ))),
    }
}

/// True when `from` has a second name and the first one is to go; false when it was renamed.
fn second_name(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<bool> {
    match disk.link(from, to) {
        Ok(()) => Ok(true),
        // An earlier attempt gave it: nothing else makes names in there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
        // No links here: what a power loss leaves of a rename is then the file system's own.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::Unsupported
                    | io::ErrorKind::TooManyLinks
            ) =>
        {
            disk.rename(from, to)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Tells of the reset in the new generation, and ends the order.
pub(crate) fn conclude(
    journal: &Local,
    options: &Options,
    order: &ResetOrder,
) -> Result<(), Error> {
    let (disk, dir) = (&*options.disk, &*options.dir);
    let line = line(order);
    if journal.safe_point() == crate::Lsn::ZERO {
        journal.append(&[(RecordKind::RESET, line.as_bytes())])?;
        journal.settle()?;
    }
    let audit = dir.join(AUDIT_NAME);
    let told = || -> io::Result<()> {
        let mut text = match disk.stat(&audit)? {
            Some(_) => disk.read(&audit, AUDIT_LEN_MAX)?,
            None => Vec::new(),
        };
        if text
            .split(|&byte| byte == b'\n')
            .all(|told| told != line.as_bytes())
        {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
            disk.replace(&audit, &text)?;
        }
        Ok(())
    };
    told().map_err(|source| Error::io("write the audit line of a reset", &audit, source))?;
    let path = dir.join(RESET_NAME);
    disk.remove_file(&path)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|source| Error::io("end the order of a reset", &path, source))?;
    tracing::warn!(
        dir = %dir.display(),
        generation = order.identity.generation.0,
        moved_to = order.moved_to(),
        reason = order.reason,
        "journal reset: a new generation begins"
    );
    Ok(())
}

/// One line: what the audit record and the audit file hold.
fn line(order: &ResetOrder) -> String {
    format!(
        "reset at {} journal {} generation {} ended, {} begins, bytes moved to {}, reason {:?}",
        order.time,
        order.identity.journal,
        order.ended,
        order.identity.generation.0,
        order.moved_to(),
        order.reason
    )
}
