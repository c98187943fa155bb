//! What a node has on disk: its log and its authority record, and that they belong together.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use wal::{Epoch, Error, Journal as _, Kind, Local};
use world::{Disk, Timestamp};

use super::{Options, Shared, core};
use crate::{
    authority::{Authority, Owner},
    machine::{Config, Durable, EpochId, EpochStart, History, NodeId, Position, Record},
};

#[derive(Debug)]
pub(super) struct Files {
    pub(super) local: Arc<Local>,
    pub(super) authority: Authority,
    derived: wal::Lsn,
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
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        let mut journal = options.journal.clone();
        journal.shown = Some(options.derived);
        let (local, _) = Local::open(journal)?;
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
        let there = disk.stat(&options.authority).map_err(|error| {
            let path = options.authority.display();
            Error::new(Kind::Io, format!("cannot look for {path}: {error}"))
        })?;
        let authority = match there {
            Some(_) => Authority::open(disk, &options.authority, owner)
                .map(|(authority, _)| authority)
                .map_err(|error| failed(&error))?,
            // A node that made it here would have forgotten its promises: it is made once, with the log.
            None => {
                let message = format!(
                    "the authority record {} of the log in {} is lost",
                    options.authority.display(),
                    options.journal.dir.display(),
                );
                return Err(Error::new(Kind::Invalid, message));
            }
        };
        Ok(Self {
            local: Arc::new(local),
            authority,
            derived: options.derived,
        })
    }

    pub(super) fn durable(&mut self, shared: &Shared) -> Result<Durable, Error> {
        let entry = self.authority.entry();
        let end = Position {
            epoch: self.local.last_epoch(),
            lsn: self.local.durable(),
        };
        let (history, is_known) = self.history();
        Ok(Durable {
            record: entry.record.clone(),
            end,
            first_retained: self.local.first_retained(),
            history,
            committed: self.derived,
            derived: self.derived,
            is_damaged: entry.birth != birth(&self.local) || !is_known,
            is_leased: false,
            fresh: core::epoch_id(&*shared.random)?,
        })
    }

    /// The epochs of the log with their ids, out of the log, what was noted beside it, and the record; and
    /// whether all of them are known.
    fn history(&self) -> (History, bool) {
        let noted = &self.authority.entry().history;
        let mut starts = Vec::new();
        let mut is_known = true;
        for start in self.local.epochs() {
            let same =
                |noted: &&EpochStart| (noted.epoch, noted.first) == (start.epoch, start.first);
            let id = start
                .id
                .map(EpochId)
                .or_else(|| self.announced(&start))
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

    fn announced(&self, start: &wal::EpochStart) -> Option<EpochId> {
        let records = self.local.read_range(start.first, start.first, 1).ok()?;
        let record = records.first()?;
        let (announced, _) = crate::machine::announced(record.lsn, &record.bytes)?;
        let is_its_own =
            record.kind == crate::machine::ANNOUNCEMENT && announced.epoch == start.epoch;
        is_its_own.then_some(announced.id)
    }
}

/// Makes the authority record of a node that begins with the log `local`: durable, its copies read back.
/// `config` stands until there is a primary.
pub fn make_record(
    disk: &dyn Disk,
    path: &Path,
    owner: Owner,
    local: &Local,
    config: &Config,
    now: Timestamp,
) -> Result<(), crate::Error> {
    Authority::create(disk, path, owner, birth(local), &first_record(config), now).map(drop)
}

/// Zero stands for a log of a program that drew none: beside a record it then counts as the same.
pub(super) fn birth(local: &Local) -> u128 {
    local.birth().map_or(0, |birth| birth.0)
}

fn first_record(config: &Config) -> Record {
    let nobody = (Epoch(0), EpochId(0), NodeId(0));
    Record {
        promised: nobody,
        granted: nobody,
        holders: BTreeSet::new(),
        start: None,
        previous_end: Position::default(),
        config: config.clone(),
        is_amnesiac: false,
        reason: "the node was made".to_owned(),
    }
}
