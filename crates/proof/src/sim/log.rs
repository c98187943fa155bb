//! The log of a node's disk: what is durable in it, and what of it is damaged.

use std::collections::VecDeque;

use replica::machine::{Entry, EpochId, History, Position};
use wal::{Epoch, Lsn};

use super::payload;

/// A durable record.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) entry: Entry,
    pub(crate) id: EpochId,
    /// The highest epoch this node had promised when the record became durable.
    pub(crate) under: Epoch,
    /// It does not verify: rotten bits, or another write went here.
    pub(crate) is_damaged: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// The last position that is not retained.
    floor: Position,
    history: History,
    records: VecDeque<Stored>,
}

impl Log {
    pub(crate) fn end(&self) -> Position {
        self.records
            .back()
            .map_or(self.floor, |last| last.entry.position)
    }

    pub(crate) fn first(&self) -> Lsn {
        self.floor.lsn.next()
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn at(&self, lsn: Lsn) -> Option<&Stored> {
        self.records.get(self.index(lsn)?)
    }

    fn index(&self, lsn: Lsn) -> Option<usize> {
        let offset = lsn.get().checked_sub(self.first().get())?;
        usize::try_from(offset).ok()
    }

    /// Of a retained record, or of the last that is not.
    pub(crate) fn position(&self, lsn: Lsn) -> Option<Position> {
        if lsn == self.floor.lsn {
            return Some(self.floor);
        }
        self.at(lsn).map(|stored| stored.entry.position)
    }

    pub(crate) fn append(&mut self, entry: Entry, under: Epoch) {
        self.history.starts.extend(payload::announced(&entry));
        let id = id_in(&self.history, entry.position.epoch);
        self.records.push_back(Stored {
            entry,
            id,
            under,
            is_damaged: false,
        });
    }

    /// Cuts all after `keep`; what was cut.
    pub(crate) fn cut(&mut self, keep: Lsn) -> usize {
        let kept = self.index(keep.next()).unwrap_or(0).min(self.records.len());
        let cut = self.records.split_off(kept).len();
        self.history.starts.retain(|start| start.first <= keep);
        cut
    }

    pub(crate) fn begin(&mut self, base: Position, history: History) {
        *self = Self {
            floor: base,
            history,
            records: VecDeque::new(),
        };
    }

    /// Removes what lies below `first`.
    pub(crate) fn recycle(&mut self, first: Lsn) {
        while self.first() < first {
            let Some(gone) = self.records.pop_front() else {
                return;
            };
            self.floor = gone.entry.position;
        }
    }

    pub(crate) fn damage(&mut self, index: usize) {
        if let Some(stored) = self.records.get_mut(index) {
            stored.is_damaged = true;
        }
    }

    /// The first record that does not verify.
    pub(crate) fn damaged(&self) -> Option<Lsn> {
        let found = self.records.iter().find(|stored| stored.is_damaged);
        found.map(|stored| stored.entry.position.lsn)
    }

    pub(crate) fn from(&self, lsn: Lsn) -> impl Iterator<Item = &Stored> {
        let index = self.index(lsn).unwrap_or(0).min(self.records.len());
        self.records.range(index..)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Stored> {
        self.records.iter()
    }
}

/// The id of an epoch by a history; the nameless one of an epoch that it does not have.
pub(crate) fn id_in(history: &History, epoch: Epoch) -> EpochId {
    let found = history.starts.iter().rev().find(|it| it.epoch == epoch);
    found.map_or_else(EpochId::default, |it| it.id)
}
