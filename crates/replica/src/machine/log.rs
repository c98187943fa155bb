//! What the machine knows of its own log: where it ends, what of it is durable, committed, retained.
//!
//! `flushed <= received`, always a prefix. Between the two are appends on their way to the disk. The
//! primary keeps the newest records in memory as well: all that are not durable yet, and what fits.

use std::collections::VecDeque;

use wal::Lsn;
use world::invariant;

use super::{
    ANNOUNCEMENT, Entry, History, NodeId, Position, SessionId, Time, announced, trail::Trail,
};

#[derive(Debug)]
pub(super) struct Log {
    pub(super) history: History,
    pub(super) received: Position,
    pub(super) flushed: Position,
    pub(super) first_retained: Lsn,
    pub(super) committed: Lsn,
    /// What the primary committed, as it said; of that `committed` is what is durable here.
    pub(super) told: Lsn,
    /// The same, also beyond what was received: what a forced promotion may lose is at least that.
    pub(super) announced: Lsn,
    /// Of that, what this one itself said: it is of the log that it feeds.
    said: Lsn,
    /// Who said so. Another one that is holder has it or was forced; the same one that starts again has it.
    pub(super) announcer: Option<NodeId>,
    pub(super) applied: Lsn,
    pub(super) derived: Lsn,
    /// Derived state lacks a part of the base that the log begins after: nobody may read it, whatever
    /// session comes next.
    pub(super) is_half: bool,
    /// Why it takes nothing more until the node starts again.
    pub(super) failed: Option<String>,
    /// What is being done to it; until that is answered nobody knows where it ends.
    pub(super) pending: Option<Pending>,
    pub(super) trail: Trail,
    tail: VecDeque<Entry>,
    tail_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Cut,
    Base {
        session: SessionId,
        base: Position,
        history: History,
        since: Option<Lsn>,
        /// The disk was sound until this was asked for.
        was_sound: bool,
    },
}

/// What an entry takes of windows and budgets beside its bytes; about its header on the wire.
pub(super) const ENTRY_OVERHEAD: u64 = 32;

pub(super) fn weight(entry: &Entry) -> u64 {
    u64::try_from(entry.bytes.len()).expect("a length fits 64 bits") + ENTRY_OVERHEAD
}

impl Log {
    pub(super) fn new(
        history: History,
        end: Position,
        first_retained: Lsn,
        committed: Lsn,
        derived: Lsn,
    ) -> Self {
        Self {
            history,
            received: end,
            flushed: end,
            first_retained,
            committed: committed.min(end.lsn),
            told: committed,
            announced: committed,
            said: Lsn::ZERO,
            announcer: None,
            applied: derived,
            derived,
            is_half: false,
            failed: None,
            pending: None,
            trail: Trail::default(),
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    /// `primary` said that it committed so far.
    pub(super) fn announce(&mut self, primary: NodeId, committed: Lsn) {
        self.follow(primary);
        self.said = self.said.max(committed);
        self.announced = self.announced.max(committed);
    }

    /// What a primary before `holder` said counts no more.
    pub(super) fn follow(&mut self, holder: NodeId) {
        if self.announcer != Some(holder) {
            self.announced = self.committed;
            self.said = Lsn::ZERO;
            self.announcer = Some(holder);
        }
    }

    /// Nothing is on its way to the disk: what is here is what there will be.
    pub(super) fn is_settled(&self) -> bool {
        self.received == self.flushed && self.pending.is_none()
    }

    /// Takes up entries that go to the disk; they fit behind the end, as [`Self::fits`] said.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            invariant!(
                entry.position.lsn == self.received.lsn.next(),
                "entry {} behind {}",
                entry.position,
                self.received
            );
            if entry.kind == ANNOUNCEMENT
                && let Some((start, _)) = announced(entry.position.lsn, &entry.bytes)
            {
                self.history.begin(start);
            }
            self.received = entry.position;
        }
    }

    /// Whether `entry` may follow `last`: the next position, under the same epoch, or the record that
    /// announces the epoch it is under.
    pub(super) fn fits(last: Position, entry: &Entry) -> bool {
        let is_next = entry.position.lsn == last.lsn.next();
        let is_first = entry.kind == ANNOUNCEMENT;
        is_next
            && if is_first {
                entry.position.epoch > last.epoch
                    && announced(entry.position.lsn, &entry.bytes)
                        .is_some_and(|(start, _)| start.epoch == entry.position.epoch)
            } else {
                entry.position.epoch == last.epoch
            }
    }

    pub(super) fn flush(&mut self, position: Position) {
        invariant!(
            position.lsn <= self.received.lsn && position.lsn >= self.flushed.lsn,
            "durable to {position}, had {} of {}",
            self.flushed,
            self.received
        );
        self.flushed = position;
    }

    pub(super) fn cut(&mut self, end: Position) {
        self.pending = None;
        self.history.cut(end.lsn);
        self.received = end;
        self.flushed = end;
        self.committed = self.committed.min(end.lsn);
        self.told = self.told.min(end.lsn);
        self.applied = self.applied.min(end.lsn);
        self.forget_tail();
    }

    /// A base was begun: the log begins after it. Whether this is the one that is waited for.
    pub(super) fn begin_after(&mut self, begun: SessionId) -> bool {
        let is_waited =
            matches!(&self.pending, Some(Pending::Base { session, .. }) if *session == begun);
        let Some(Pending::Base {
            base,
            history,
            since,
            ..
        }) = self.pending.take_if(|_| is_waited)
        else {
            return false;
        };
        let kept = since.unwrap_or(Lsn::ZERO);
        // A base of nothing lacks nothing, but for the state that it is to take the place of. That says by how
        // far it reaches that a base has to come, where the log begins with the first record.
        self.is_half = base.lsn > Lsn::ZERO || self.derived > Lsn::ZERO;
        if base.lsn > Lsn::ZERO {
            self.derived = kept;
        }
        self.history = history;
        self.received = base;
        self.flushed = base;
        self.first_retained = base.lsn.next();
        self.committed = base.lsn;
        // What was told of the log that was there counts no more: where a loss was accepted, other records
        // have those numbers.
        self.told = base.lsn;
        self.announced = base.lsn.max(self.said);
        self.applied = kept;
        self.forget_tail();
        true
    }

    /// A base could not be begun: the log is as it was. Whether the disk was sound before that.
    pub(super) fn give_up_base(&mut self, failed: SessionId) -> bool {
        let given_up = self.pending.take_if(
            |pending| matches!(pending, Pending::Base { session, .. } if *session == failed),
        );
        matches!(given_up, Some(Pending::Base { was_sound, .. }) if was_sound)
    }

    /// Keeps entries of the primary in memory, for those who follow closely.
    pub(super) fn remember(
        &mut self,
        entries: Vec<Entry>,
        now: Time,
        bytes_max: u64,
        records_max: u64,
    ) {
        let bytes = entries.iter().map(weight).sum();
        self.trail.appended(self.received.lsn, bytes, now);
        for entry in entries {
            self.tail_bytes += weight(&entry);
            self.tail.push_back(entry);
        }
        let records_max = usize::try_from(records_max).unwrap_or(usize::MAX);
        while let Some(oldest) = self.tail.front()
            && oldest.position.lsn <= self.flushed.lsn
            && (self.tail_bytes > bytes_max || self.tail.len() > records_max)
        {
            self.tail_bytes -= weight(oldest);
            self.tail.pop_front();
        }
    }

    pub(super) fn forget_tail(&mut self) {
        self.trail = Trail::default();
        self.tail.clear();
        self.tail_bytes = 0;
    }

    /// The oldest record in memory; all from there to the end are.
    pub(super) fn remembered(&self) -> Option<Lsn> {
        self.tail.front().map(|entry| entry.position.lsn)
    }

    /// Entries from `from` on, out of memory, no more than `bytes` unless the first alone is more.
    pub(super) fn recall(&self, from: Lsn, bytes: u64, records: u64) -> Vec<Entry> {
        let Some(skip) = self
            .remembered()
            .and_then(|first| from.get().checked_sub(first.get()))
        else {
            return Vec::new();
        };
        let mut left = bytes;
        let mut entries = Vec::new();
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        for entry in self
            .tail
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
        {
            if entries.len() >= records || (!entries.is_empty() && weight(entry) > left) {
                break;
            }
            left = left.saturating_sub(weight(entry));
            entries.push(entry.clone());
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{EpochId, EpochStart};
    use wal::Epoch;

    fn history(epoch: u64) -> History {
        let start = EpochStart {
            epoch: Epoch(epoch),
            id: EpochId(epoch.into()),
            first: Lsn::FIRST,
        };
        History {
            starts: vec![start],
        }
    }

    fn position(epoch: u64, lsn: u64) -> Position {
        Position {
            epoch: Epoch(epoch),
            lsn: Lsn::new(lsn),
        }
    }

    /// Told of 111 records, it took over the history of a primary that accepted the loss of those from 54 on,
    /// by a base at 52: records of that one were shown before they were committed, and a force was said to lose more
    /// than there was. What the primary that sends the base said itself stays said.
    #[test]
    fn what_was_told_of_a_log_that_a_base_replaced_is_not_said_of_the_new_one() {
        let (told, base) = (Lsn::new(111), position(1, 52));
        for (said, announced) in [(None, 52), (Some(50), 52), (Some(70), 70)] {
            let mut log = Log::new(history(1), position(1, 119), Lsn::FIRST, told, told);
            log.announce(NodeId(1), told);
            if let Some(said) = said {
                log.announce(NodeId(2), Lsn::new(said));
            } else {
                log.follow(NodeId(2));
            }
            let session = SessionId(7);
            log.pending = Some(Pending::Base {
                session,
                base,
                history: history(1),
                since: None,
                was_sound: true,
            });
            assert!(log.begin_after(session));
            assert_eq!((log.committed, log.told), (base.lsn, base.lsn));
            assert_eq!(log.announced, Lsn::new(announced), "{said:?}");
        }
    }
}
