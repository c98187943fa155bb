//! Checkpoints: from the journal into table files.
//!
//! Order, and what a crash in between leaves:
//! 1. end the memories of all tables at one published position: nothing;
//! 2. raise the floors that policy allows, for readers: nothing, floors on disk are lower;
//! 3. flush them, each tree by itself and durably: files with versions that the next open replays
//!    again and skips;
//! 4. replace the manifest: before it the previous checkpoint holds, after it this one;
//! 5. let compaction drop what lies below the floors, which nothing can read from here on;
//! 6. let the journal go below the checkpoint, less what feeds keep.

use std::collections::VecDeque;

use wal::{Lsn, Pin};
use world::Timestamp;

use crate::{
    Commit, Error, History,
    local::{Inner, TableState},
    manifest::{Manifest, TableEntry},
};

/// Earlier checkpoints that the journal may be kept from. Arbitrary: with more of them a feed's
/// share of the journal is cut more finely.
const MARKS_MAX: usize = 64;

/// What the last checkpoint left, and is needed for the next.
pub(crate) struct Checkpointer {
    /// As it is on disk.
    manifest: Manifest,
    feed_bytes: u64,
    /// Journal bytes above the first mark when the store was opened.
    bytes_before: u64,
    /// Earlier checkpoints, oldest first: position and the journal bytes between the first mark of this open
    /// and it. Of earlier opens what the journal knows.
    marks: VecDeque<(Lsn, u64)>,
    /// Keeps the journal from the first mark on, whoever else releases it.
    pin: Pin,
    /// Bases made since this open.
    bases: u64,
}

impl Checkpointer {
    /// Keeps the journal from where `pin` holds it: above [`Manifest::feed_from`] where the journal begins
    /// later. `milestones` are the journal's from there on.
    pub(crate) fn new(
        manifest: Manifest,
        feed_bytes: u64,
        pin: Pin,
        milestones: &[(Lsn, u64)],
    ) -> Self {
        let checkpoint = manifest.checkpoint;
        let earlier = milestones.iter().filter(|(lsn, _)| *lsn <= checkpoint);
        let mut marks = VecDeque::from([(pin.from(), 0)]);
        marks.extend(earlier);
        marks.drain(1..1 + marks.len().saturating_sub(MARKS_MAX));
        Self {
            manifest,
            feed_bytes,
            bytes_before: milestones.last().map_or(0, |(_, bytes)| *bytes),
            marks,
            pin,
            bases: 0,
        }
    }

    pub(crate) fn checkpoint(&self) -> Lsn {
        self.manifest.checkpoint
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A number that no other base has.
    pub(crate) fn number_base(&mut self) -> u64 {
        self.bases += 1;
        self.bases
    }

    /// Where the journal is kept from after a checkpoint at `at`, before which `bytes` were appended since
    /// the open.
    fn mark(&mut self, at: Lsn, bytes: u64) -> Lsn {
        let bytes = self.bytes_before + bytes;
        self.marks.push_back((at.next(), bytes));
        while let Some((_, second)) = self.marks.get(1)
            && bytes - second >= self.feed_bytes
        {
            self.marks.pop_front();
        }
        if self.marks.len() > MARKS_MAX {
            self.marks.remove(1);
        }
        self.marks.front().map_or(at.next(), |(lsn, _)| *lsn)
    }
}

impl Inner {
    /// Flushes memories that were ended, without a checkpoint.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        for tree in self.trees() {
            if tree.waiting_flushes() > 0 {
                self.upkeep.check_space(self)?;
                tree.flush()?;
            }
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Result<Commit, Error> {
        self.checkpoint_in(&mut self.checkpointer())
    }

    /// As [`Inner::checkpoint`], for whoever looks at the files before the next one.
    pub(crate) fn checkpoint_in(&self, checkpointer: &mut Checkpointer) -> Result<Commit, Error> {
        if let Some(failed) = self.upkeep.failed() {
            return Err(Error::poisoned_by(&failed));
        }
        self.upkeep.check_space(self)?;
        let (cut, bytes, total) = {
            let _applying = self.applying();
            self.trees().for_each(|tree| tree.rotate());
            (
                self.horizon.visible(),
                self.upkeep.since_checkpoint(),
                self.counters.bytes(),
            )
        };
        self.raise_floors(cut)?;
        for tree in self.trees() {
            tree.flush()?;
        }
        let feed_from = checkpointer.mark(cut.lsn, total);
        let manifest = Manifest {
            checkpoint: cut.lsn,
            checkpoint_time: cut.time,
            feed_from,
            next_table: checkpointer.manifest.next_table,
            tables: self.tables.iter().map(TableState::entry).collect(),
        };
        if manifest != checkpointer.manifest {
            manifest.store(&*self.disk, &self.dir)?;
            checkpointer.manifest = manifest;
        }
        self.sweep(cut)?;
        self.upkeep.checkpointed(bytes);
        let releasing = |error| Error::journal(format!("releasing below lsn {feed_from}"), error);
        checkpointer.pin = self.journal.pin(feed_from).map_err(releasing)?;
        self.journal.release_below(feed_from).map_err(releasing)?;
        Ok(cut)
    }

    /// From here on nobody reads a table below what its history keeps, and nothing held is below.
    fn raise_floors(&self, cut: Commit) -> Result<(), Error> {
        let now = self.clock.now().max(cut.time);
        for table in &self.tables {
            let Some(mut floor) = self.target_floor(table, now, cut)? else {
                continue;
            };
            let oldest = self.horizon.held().oldest();
            if let Some(lsn) = oldest.filter(|oldest| *oldest < floor.lsn) {
                let commit = self.times.at_or_below(lsn, cut.lsn)?;
                let time = commit.map_or(self.created, |commit| commit.time);
                floor = Commit { lsn, time };
            }
            let held = self.horizon.held();
            // A snapshot taken meanwhile may be lower; then the floor waits for the next time.
            if held.oldest().is_none_or(|oldest| oldest >= floor.lsn) {
                table.raise_floor(floor);
            }
        }
        Ok(())
    }

    /// The oldest commit that the table's policy keeps.
    fn target_floor(
        &self,
        table: &TableState,
        now: Timestamp,
        cut: Commit,
    ) -> Result<Option<Commit>, Error> {
        match table.history {
            History::Forever => Ok(None),
            History::Latest => Ok(Some(cut)),
            History::For(duration) => self.times.not_after(now.minus(duration), cut.lsn),
        }
    }

    /// The manifest with the present floors is durable: what lies below may go.
    fn sweep(&self, cut: Commit) -> Result<(), Error> {
        for table in &self.tables {
            table.tree.sweep_below(table.floor().lsn.get());
        }
        // The newest commit at or below the lowest floor still dates it.
        let lowest = self.retained().from.lsn;
        if let Some(commit) = self.times.at_or_below(lowest, cut.lsn)? {
            self.times.0.sweep_below(commit.lsn.get());
        }
        let expired = self.once.expired_before(cut.time);
        self.once.tree().sweep_below(expired.nanos());
        Ok(())
    }
}

impl TableState {
    fn entry(&self) -> TableEntry {
        let floor = self.floor();
        TableEntry {
            id: self.id,
            name: self.tree.name().to_owned(),
            history: self.history,
            floor: floor.lsn,
            floor_time: floor.time,
        }
    }
}
