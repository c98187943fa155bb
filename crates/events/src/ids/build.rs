//! Making runs: out of a table, out of the journal, out of other runs; and finding those that are there.

use std::{cmp::Reverse, collections::BinaryHeap, path::Path, sync::Arc};

use wal::{Identity, Journal, Lsn};
use world::Disk;

use super::{
    FILTERS_BYTES_MAX, Keys, Limits,
    run::{self, Entry, Run, Span, Unusable, Writer},
    table::Seen,
};
use crate::{
    Error,
    record::{self, View},
};

/// What making and finding runs needs.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) dir: std::path::PathBuf,
    pub(super) keys: Keys,
    pub(super) limits: Limits,
}

/// What the directory held.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) runs: Vec<Arc<Run>>,
    /// Stretches that no run covers, oldest first; the last one reaches the safe point.
    pub(super) gaps: Vec<(Lsn, Lsn)>,
    pub(super) discarded: u64,
}

/// Ids read from the journal.
pub(super) struct Replayed {
    pub(super) runs: Vec<Arc<Run>>,
    /// What was left when the stretch ended; it begins after the last run.
    pub(super) rest: Seen,
    pub(super) rest_first: Lsn,
    pub(super) records: u64,
}

impl Maker {
    fn identity(&self) -> Identity {
        self.journal.identity()
    }

    pub(super) fn span(&self, first: Lsn, last: Lsn) -> Span {
        Span {
            identity: self.identity(),
            first,
            last,
        }
    }

    pub(super) fn write(&self, seen: &Seen, first: Lsn, last: Lsn) -> Result<Arc<Run>, Error> {
        let mut entries = seen.sorted();
        entries.retain(|entry| (first..=last).contains(&entry.lsn));
        let span = self.span(first, last);
        let mut writer = Writer::create(&*self.disk, &self.dir, span, entries.len() as u64)?;
        for entry in entries {
            writer.push(entry)?;
        }
        writer.finish().map(Arc::new)
    }

    /// Reads the ids of the events from `first` to `last`, writing a run whenever the table is full.
    pub(super) fn replay(&self, first: Lsn, last: Lsn) -> Result<Replayed, Error> {
        let reading = |error| Error::journal("index the producers' ids", error);
        let mut replayed = Replayed {
            runs: Vec::new(),
            rest: Seen::default(),
            rest_first: first,
            records: 0,
        };
        let from = first.max(self.journal.first_retained());
        if from > last {
            return Ok(replayed);
        }
        for record in self.journal.read(from).map_err(reading)? {
            let record = record.map_err(reading)?;
            if record.lsn > last {
                break;
            }
            replayed.records += 1;
            if record.kind != record::KIND {
                continue;
            }
            // One that this version cannot read has no id that it could compare with.
            let Ok(view) = View::of(&record.bytes) else {
                continue;
            };
            let Some(id) = view.producer_id else {
                continue;
            };
            replayed
                .rest
                .add(self.keys.key(view.source, id), record.lsn);
            if replayed.rest.len() >= self.limits.table_len_max {
                let seen = std::mem::take(&mut replayed.rest);
                let run = self.write(&seen, replayed.rest_first, record.lsn)?;
                replayed.runs.push(run);
                replayed.rest_first = record.lsn.next();
            }
        }
        Ok(replayed)
    }

    /// Runs of the events from `first` to `last`: what replaces one that does not verify.
    pub(super) fn rebuild(&self, first: Lsn, last: Lsn) -> Result<Vec<Arc<Run>>, Error> {
        let mut replayed = self.replay(first, last)?;
        if replayed.rest_first <= last {
            let rest = self.write(&replayed.rest, replayed.rest_first, last)?;
            replayed.runs.push(rest);
        }
        Ok(replayed.runs)
    }

    /// Merges runs that follow each other; ids below the retained range are left out. `between` is called
    /// now and then, for work that must not wait. The inner error is the run that does not verify.
    pub(super) fn merge(
        &self,
        runs: &[Arc<Run>],
        mut between: impl FnMut() -> Result<(), Error>,
    ) -> Result<Result<Arc<Run>, Arc<Run>>, Error> {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Err(Error::new(crate::Kind::Invalid, "merge of no runs"));
        };
        let span = self.span(first.span.first, last.span.last);
        let entries_max = runs.iter().map(|run| run.entries).sum();
        let retained = self.journal.first_retained();
        let mut writer = Writer::create(&*self.disk, &self.dir, span, entries_max)?;
        let mut sources: Vec<_> = runs.iter().map(|run| run.iter()).collect();
        let mut heads = BinaryHeap::new();
        let mut pull = |index: usize, heads: &mut BinaryHeap<Reverse<(Entry, usize)>>| {
            match sources[index].next() {
                Some(Ok(entry)) => heads.push(Reverse((entry, index))),
                Some(Err(Unusable::Io(error))) => {
                    return Err(Error::io("read a run of ids", &runs[index].path, error));
                }
                Some(Err(Unusable::Unverified(_))) => return Ok(false),
                None => {}
            }
            Ok(true)
        };
        for (index, run) in runs.iter().enumerate() {
            if !pull(index, &mut heads)? {
                return Ok(Err(Arc::clone(run)));
            }
        }
        let mut previous = None;
        let mut pushed = 0_u64;
        while let Some(Reverse((entry, index))) = heads.pop() {
            if !pull(index, &mut heads)? {
                return Ok(Err(Arc::clone(&runs[index])));
            }
            if entry.lsn >= retained && previous != Some(entry) {
                writer.push(entry)?;
                previous = Some(entry);
            }
            pushed += 1;
            if pushed.is_multiple_of(BETWEEN_ENTRIES) {
                between()?;
            }
        }
        writer.finish().map(|run| Ok(Arc::new(run)))
    }

    pub(super) fn remove(&self, run: &Run) -> Result<(), Error> {
        self.disk
            .remove_file(&run.path)
            .map_err(|error| Error::io("remove a run of ids", &run.path, error))
    }

    /// Opens the runs that are there, throws away what is of no use, and tells what is missing.
    pub(super) fn find(&self) -> Result<Found, Error> {
        let doing = "look for the index of producers' ids";
        let failed = |error| Error::io(doing, &self.dir, error);
        self.disk.create_dir_all_synced(&self.dir).map_err(failed)?;
        let (retained, safe_point) = (self.journal.first_retained(), self.journal.safe_point());
        let mut discarded = 0;
        let mut runs: Vec<Arc<Run>> = Vec::new();
        for entry in self.disk.list(&self.dir).map_err(failed)? {
            let path = self.dir.join(&entry.name);
            if entry.name.ends_with(".ids.tmp") {
                self.disk.remove_file(&path).map_err(failed)?;
                continue;
            }
            if !entry.name.ends_with(run::SUFFIX) {
                continue;
            }
            match self.open(&path) {
                Ok(run) if run.span.first <= run.span.last && run.span.last <= safe_point => {
                    runs.push(Arc::new(run));
                }
                Ok(_) => {
                    // The journal is not as far as it was: what is here is of a future it lost.
                    discarded += 1;
                    self.disk.remove_file(&path).map_err(failed)?;
                }
                Err(Unusable::Unverified(why)) => {
                    tracing::warn!(path = %path.display(), why, "a run of ids is made again");
                    discarded += 1;
                    self.disk.remove_file(&path).map_err(failed)?;
                }
                Err(Unusable::Io(error)) => return Err(Error::io(doing, path, error)),
            }
        }
        runs.sort_by_key(|run| (run.span.first, Reverse(run.span.last)));
        let mut found = Found {
            runs: Vec::new(),
            gaps: Vec::new(),
            discarded,
        };
        let mut next = retained;
        for run in runs {
            // Below the retained range; or covered by the one before it, as a crash between a merge and the
            // removal of its parts leaves it.
            if run.span.last < next {
                self.remove(&run)?;
                continue;
            }
            if run.span.first > next {
                found.gaps.push((next, Lsn::new(run.span.first.get() - 1)));
            }
            next = run.span.last.next();
            found.runs.push(run);
        }
        found.gaps.push((next, safe_point));
        Ok(found)
    }

    fn open(&self, path: &Path) -> Result<Run, Unusable> {
        Run::open(&*self.disk, path, self.identity(), FILTERS_BYTES_MAX)
    }

    /// Opens runs again without their filters, oldest first, until the rest fit into memory.
    pub(super) fn trim_filters(&self, runs: &mut [Arc<Run>]) -> Result<(), Error> {
        let weight = |run: &Arc<Run>| {
            run.filter
                .as_ref()
                .map_or(0, super::filter::Filter::len_bytes)
        };
        let mut total: u64 = runs.iter().map(weight).sum();
        for run in runs {
            if total <= FILTERS_BYTES_MAX {
                break;
            }
            total -= weight(run);
            let opened = Run::open(&*self.disk, &run.path, self.identity(), 0);
            *run = Arc::new(opened.map_err(|unusable| {
                Error::new(
                    crate::Kind::Io,
                    format!("open {}: {unusable}", run.path.display()),
                )
            })?);
        }
        Ok(())
    }
}

/// Entries merged before other work gets its turn: a few milliseconds.
const BETWEEN_ENTRIES: u64 = 1 << 16;
