//! What a node has on disk: its log and its authority record, and that they belong together.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use wal::{Base, Epoch, Error, Journal as _, Kind, Local, Lsn, Old};
use world::{Disk, Timestamp};

use super::{Options, Shared, core};
use crate::{
    authority::{Authority, Owner},
    machine::{Config, Durable, EpochId, EpochStart, History, NodeId, Position, Record},
};

#[derive(Debug)]
pub(super) struct Files {
    pub(super) authority: Authority,
    /// Up to where state derived from the log holds everything, and above where it has nothing.
    holds: Option<Lsn>,
    reaches: Lsn,
    /// It is of a log that was thrown away.
    is_superseded: bool,
    is_leased: bool,
}

fn failed(error: &crate::Error) -> Error {
    let kind = match error.kind() {
        crate::Kind::Io => Kind::Io,
        crate::Kind::Poisoned => Kind::Poisoned,
        crate::Kind::Corrupt => Kind::Corrupt,
        crate::Kind::Invalid => Kind::Invalid,
    };
    Error::new(kind, error.to_string())
}

impl Files {
    pub(super) fn open(options: &Options) -> Result<(Self, Arc<Local>), Error> {
        // A node that made it here would have forgotten its promises: it is made once, with the log.
        if !is_there(&*options.journal.disk, &options.authority)? {
            let message = format!(
                "the authority record {} of the log in {} is lost",
                options.authority.display(),
                options.journal.dir.display(),
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let derived = options.derived.as_ref();
        let reaches = derived.map_or(Lsn::ZERO, |derived| derived.reaches);
        let is_superseded = derived.is_some_and(|derived| derived.is_superseded);
        // What is superseded is nothing that was derived from this log.
        let shown = if is_superseded { Lsn::ZERO } else { reaches };
        let local = open_log(options, shown)?;
        if local.identity() != options.identity {
            let (ours, theirs) = (options.identity, local.identity());
            let message = format!(
                "the log in {} is of journal {} generation {}, not of {} generation {}",
                options.journal.dir.display(),
                theirs.journal,
                theirs.generation.0,
                ours.journal,
                ours.generation.0
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let owner = Owner {
            cluster: options.cluster,
            node: options.me,
            journal: options.identity,
        };
        let disk = &*options.journal.disk;
        let (authority, _) =
            Authority::open(disk, &options.authority, owner).map_err(|error| failed(&error))?;
        let files = Self {
            authority,
            holds: derived.map(|derived| derived.holds),
            reaches,
            is_superseded,
            is_leased: options.is_leased,
        };
        Ok((files, Arc::new(local)))
    }

    pub(super) fn durable(&mut self, shared: &Shared) -> Result<Durable, Error> {
        let local = shared.local();
        let entry = self.authority.entry();
        let end = Position {
            epoch: local.last_epoch(),
            lsn: local.durable(),
        };
        let (history, is_known) = self.history(&local);
        let first_retained = local.first_retained();
        // Only what is committed is released, and a base is of what is committed.
        let below_log = Lsn::new(first_retained.get() - 1);
        let does_meet = !self.is_superseded && self.holds.is_none_or(|holds| holds >= below_log);
        // What is of another log says nothing of this one.
        let applied = if does_meet { self.reaches } else { Lsn::ZERO };
        Ok(Durable {
            record: entry.record.clone(),
            end,
            first_retained,
            history,
            committed: applied.max(below_log),
            derived: self.reaches,
            is_damaged: entry.birth != birth(&local) || !is_known || !does_meet,
            is_leased: self.is_leased,
            fresh: core::epoch_id(&*shared.random)?,
        })
    }

    /// The epochs of the log with their ids, out of the log, what was noted beside it, and the record; and
    /// whether all of them are known.
    fn history(&self, local: &Local) -> (History, bool) {
        let noted = &self.authority.entry().history;
        let mut starts = Vec::new();
        let mut is_known = true;
        for start in local.epochs() {
            let same =
                |noted: &&EpochStart| (noted.epoch, noted.first) == (start.epoch, start.first);
            let id = start
                .id
                .map(EpochId)
                .or_else(|| announced(local, &start))
                .or_else(|| noted.iter().find(same).map(|noted| noted.id));
            match id {
                Some(id) => starts.push(EpochStart {
                    epoch: start.epoch,
                    id,
                    first: start.first,
                }),
                None => is_known &= start.epoch == Epoch(0) || !start.is_exact,
            }
        }
        (History { starts }, is_known)
    }
}

fn announced(local: &Local, start: &wal::EpochStart) -> Option<EpochId> {
    let records = local.read_range(start.first, start.first, 1).ok()?;
    let record = records.first()?;
    let (announced, _) = crate::machine::announced(record.lsn, &record.bytes)?;
    let is_its_own = record.kind == crate::machine::ANNOUNCEMENT && announced.epoch == start.epoch;
    is_its_own.then_some(announced.id)
}

/// The log; one without a record where the disk was lost: the authority record tells by the log's birth
/// that it is another one.
fn open_log(options: &Options, shown: Lsn) -> Result<Local, Error> {
    let mut journal = options.journal.clone();
    journal.shown = Some(shown);
    let disk = &*journal.disk;
    let is_new = !is_there(disk, &journal.dir)?
        || disk.list(&journal.dir).is_ok_and(|found| found.is_empty());
    if !is_new {
        return Local::open(journal).map(|(local, _)| local);
    }
    tracing::warn!(dir = %journal.dir.display(), "the log is lost: an empty one is begun");
    let base = Base {
        identity: options.identity,
        lsn: Lsn::ZERO,
        epoch: Epoch(0),
        history: &[],
        old: Old::MoveAside,
    };
    wal::begin_after(&journal, &base).map(|(local, _)| local)
}

fn is_there(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    let found = disk.stat(path).map_err(|error| {
        let path = path.display();
        Error::new(Kind::Io, format!("cannot look for {path}: {error}"))
    })?;
    Ok(found.is_some())
}

/// How a node comes to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Its id is drawn for it: it has promised nothing yet. Its log may be of an earlier cluster, under whose
    /// epochs nothing is taken any more.
    Fresh,
    /// It was given its id, and another disk may have had that before: one that promised and acknowledged. So
    /// it counts as one that lost its disk does, until a primary has fed it and all others were heard.
    Invited,
}

/// Makes the authority record of a node that begins with the log `local`: durable, its copies read back.
/// `config` stands until there is a primary.
pub fn make_record(
    disk: &dyn Disk,
    path: &Path,
    owner: Owner,
    local: &Local,
    (config, beginning): (&Config, Beginning),
    now: Timestamp,
) -> Result<(), crate::Error> {
    let record = Record {
        promised: (local.last_epoch(), EpochId(0), NodeId(0)),
        ..first_record(config, beginning)
    };
    Authority::create(disk, path, owner, birth(local), &record, now).map(drop)
}

/// Zero stands for a log of a program that drew none: beside a record it then counts as the same.
pub(super) fn birth(local: &Local) -> u128 {
    local.birth().map_or(0, |birth| birth.0)
}

fn first_record(config: &Config, beginning: Beginning) -> Record {
    let nobody = (Epoch(0), EpochId(0), NodeId(0));
    Record {
        promised: nobody,
        granted: nobody,
        holders: BTreeSet::new(),
        start: None,
        previous_end: Position::default(),
        config: config.clone(),
        is_amnesiac: beginning == Beginning::Invited,
        reason: match beginning {
            Beginning::Fresh => "the node was made".to_owned(),
            Beginning::Invited => "the node was invited".to_owned(),
        },
    }
}
