//! Appends to this node's log, and cuts of it, in the order in which they were asked for.
//!
//! Whoever waits for its write does the work itself where nobody is at it: it would have to be woken by
//! somebody who had to be woken first. For what others bring, and what is left, there is a thread.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard},
};

use wal::{Error, Local, RecordKind, Run, Truncation};

use super::Shared;
use crate::machine::{Entry, Event, Position};

/// Bytes of one append, put together from what waits. Half of what the log takes.
const APPEND_BYTES: usize = wal::APPEND_LEN_MAX / 2;

pub(super) enum Work {
    Append(Vec<Entry>),
    Truncate { keep: Position, reason: String },
}

#[derive(Default)]
pub(super) struct Log {
    state: Mutex<State>,
    came: Condvar,
    /// Of whoever is at work.
    turn: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// No more than the machine's windows have room for.
    work: VecDeque<Work>,
    is_closed: bool,
}

impl Log {
    /// Somebody who does it has to be found then: [`help`], or [`Self::kick`].
    pub(super) fn submit(&self, work: Work) {
        self.state().work.push_back(work);
    }

    /// Has the thread look whether there is work.
    pub(super) fn kick(&self) {
        if !self.state().work.is_empty() {
            self.came.notify_one();
        }
    }

    /// What was asked for is done, and then no more.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.came.notify_one();
    }

    /// False when there will be no more.
    fn wait(&self) -> bool {
        let state = self
            .came
            .wait_while(self.state(), |state| {
                state.work.is_empty() && !state.is_closed
            })
            .expect("never poisoned: holds no code that panics");
        !state.work.is_empty()
    }

    /// The next work, with all appends that came behind it: they share a sync.
    fn take(&self) -> Option<Work> {
        let mut state = self.state();
        let mut first = state.work.pop_front()?;
        if let Work::Append(entries) = &mut first {
            let len = |entries: &[Entry]| entries.iter().map(|it| it.bytes.len()).sum::<usize>();
            let mut bytes = len(entries);
            while bytes < APPEND_BYTES
                && let Some(Work::Append(more)) = state
                    .work
                    .pop_front_if(|work| matches!(work, Work::Append(_)))
            {
                bytes += len(&more);
                entries.extend(more);
            }
        }
        Some(first)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

/// The thread, until the log is closed.
pub(super) fn run(shared: &Shared) {
    while shared.log.wait() {
        let turn = shared.log.turn.lock();
        let turn = turn.expect("a panic as spine ends the process");
        work(shared, turn);
    }
}

/// Does the next work, unless somebody is at it: who has the thread look once more.
pub(super) fn help(shared: &Shared) {
    if let Ok(turn) = shared.log.turn.try_lock() {
        work(shared, turn);
    }
}

fn work(shared: &Shared, turn: MutexGuard<'_, ()>) {
    if let Some(work) = shared.log.take() {
        let done = world::as_spine(|| carry_out(shared, work));
        // In the order of the work, so before another one may begin with the next.
        shared.inbox.put(done);
    }
    drop(turn);
    // Whoever brought work meanwhile found the turn taken, also where there was nothing to do.
    shared.log.kick();
    shared.inbox.advance();
}

fn carry_out(shared: &Shared, work: Work) -> Event {
    let done = match work {
        Work::Append(entries) => append(&shared.local(), &entries).map(Event::Flushed),
        Work::Truncate { keep, reason } => {
            let cut = Truncation {
                keep: keep.lsn,
                reason: &reason,
                shown_too: true,
            };
            let truncated = shared.local().truncate_after(&cut);
            truncated.map(|_| Event::Truncated { end: keep })
        }
    };
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "the log takes nothing more");
        Event::LogFailed {
            reason: error.to_string(),
        }
    })
}

fn append(local: &Local, entries: &[Entry]) -> Result<Position, Error> {
    let mut reached = Position::default();
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take_while(|entry| {
                bytes += entry.bytes.len() + super::RECORD_HEADER_LEN;
                entry.position.epoch == first.position.epoch
                    && (bytes <= wal::APPEND_LEN_MAX || entry.position == first.position)
            })
            .count();
        let (run, later) = rest.split_at(count);
        let records: Vec<(RecordKind, &[u8])> = run
            .iter()
            .map(|entry| (entry.kind, &entry.bytes[..]))
            .collect();
        local.append_at(
            first.position.lsn,
            &[Run {
                epoch: first.position.epoch,
                records: &records,
            }],
        )?;
        if let Some(last) = run.last() {
            reached = last.position;
        }
        rest = later;
    }
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use wal::{Epoch, Lsn};

    use super::*;

    fn entries(lsns: std::ops::RangeInclusive<u64>, len: usize) -> Vec<Entry> {
        let entry = |lsn| Entry {
            position: position(lsn),
            kind: RecordKind(16),
            bytes: vec![7; len].into(),
        };
        lsns.map(entry).collect()
    }

    fn position(lsn: u64) -> Position {
        Position {
            epoch: Epoch(1),
            lsn: Lsn::new(lsn),
        }
    }

    fn lsns(work: Option<Work>) -> Vec<u64> {
        match work {
            Some(Work::Append(entries)) => entries.iter().map(|it| it.position.lsn.get()).collect(),
            Some(Work::Truncate { .. }) => vec![0],
            None => Vec::new(),
        }
    }

    #[test]
    fn appends_share_a_sync_up_to_a_cut_and_a_bound() {
        let log = Log::default();
        log.submit(Work::Append(entries(1..=2, 1)));
        log.submit(Work::Append(entries(3..=3, 1)));
        log.submit(Work::Truncate {
            keep: position(2),
            reason: String::new(),
        });
        log.submit(Work::Append(entries(3..=3, APPEND_BYTES)));
        log.submit(Work::Append(entries(4..=4, 1)));
        assert_eq!(lsns(log.take()), [1, 2, 3]);
        assert_eq!(lsns(log.take()), [0]);
        assert_eq!(lsns(log.take()), [3]);
        log.close();
        assert!(log.wait(), "what was asked for is done first");
        assert_eq!(lsns(log.take()), [4]);
        assert!(!log.wait());
    }
}
