//! What happened, for whoever looks: the last lines, how many there were of each, what the last promotion
//! was decided on, and the log of the process.
//!
//! Nothing waits for any of it: a log that is not read drops lines, and counts them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, mpsc},
};

use world::Timestamp;

use crate::machine::{Line, NodeId, validation::Judgement};

/// Lines kept to be looked at. A promotion takes seven, a session some ten.
const LINES_MAX: usize = 512;
/// Lines on their way to the log of the process.
const UNWRITTEN_MAX: usize = 1024;

#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The last lines, oldest first, and when.
    pub lines: Vec<(Timestamp, Line)>,
    /// Since this node was started.
    pub counts: BTreeMap<&'static str, u64>,
    /// Lines that the log of the process did not take in time.
    pub dropped: u64,
    /// What the last promotion of this node was decided on, in this life of it.
    pub judgement: Option<Judgement>,
}

#[derive(Debug, Default)]
pub(super) struct Telling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<(Timestamp, Line)>,
    counts: BTreeMap<&'static str, u64>,
    dropped: u64,
    judgement: Option<Judgement>,
}

/// Where lines go that are written to the log of the process.
pub(super) type Writer = mpsc::SyncSender<Line>;

pub(super) fn writer() -> (Writer, mpsc::Receiver<Line>) {
    mpsc::sync_channel(UNWRITTEN_MAX)
}

/// Until the writer is gone.
pub(super) fn write(lines: &mpsc::Receiver<Line>) {
    while let Ok(line) = lines.recv() {
        let replica = line.replica.map(|NodeId(node)| format!("{node:032x}"));
        let session = line.session.map(|session| format!("{:032x}", session.0));
        let (event, epoch) = (line.name, line.epoch.0);
        tracing::info!(event, epoch, replica, session, "{line}");
    }
}

impl Telling {
    pub(super) fn tell(&self, at: Timestamp, line: Line, writer: &Writer) {
        let mut state = self.state();
        if state.lines.len() >= LINES_MAX {
            state.lines.pop_front();
        }
        state.lines.push_back((at, line.clone()));
        // As many names as the machine has.
        *state.counts.entry(line.name).or_default() += 1;
        if writer.try_send(line).is_err() {
            state.dropped += 1;
        }
    }

    pub(super) fn judged(&self, judgement: Option<&Judgement>) {
        self.state().judgement = judgement.cloned();
    }

    pub(super) fn told(&self) -> Told {
        let state = self.state();
        Told {
            lines: state.lines.iter().cloned().collect(),
            counts: state.counts.clone(),
            dropped: state.dropped,
            judgement: state.judgement.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

#[cfg(test)]
mod tests {
    use wal::Epoch;

    use super::*;

    fn line(name: &'static str) -> Line {
        Line {
            replica: None,
            session: None,
            epoch: Epoch(1),
            name,
            cause: String::new(),
        }
    }

    /// A log that stood still stopped the node that wrote to it.
    ///
    /// Proves: AUT-13
    #[test]
    fn a_log_that_is_not_read_stops_nothing_and_what_it_misses_is_counted() {
        let telling = Telling::default();
        let (writer, unread) = writer();
        let (over, all) = (7, UNWRITTEN_MAX as u64 + 7);
        for _ in 0..all {
            telling.tell(Timestamp::default(), line("progress"), &writer);
        }
        let told = telling.told();
        assert_eq!(told.counts["progress"], all);
        assert_eq!(told.dropped, over);
        assert_eq!(told.lines.len(), LINES_MAX);
        drop(writer);
        assert_eq!(unread.iter().count(), UNWRITTEN_MAX);
    }
}
