//! How far behind a position is, in bytes and in time: marks along the log of a primary.

use std::collections::VecDeque;

use wal::Lsn;

use super::Time;

/// Marks kept. Every other one is dropped when there are more, so that old ones get sparse. By eye.
const MARKS_MAX: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Of an append: its last record, when, and all bytes up to it.
    last: Lsn,
    at: Time,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Trail {
    marks: VecDeque<Mark>,
    bytes: u64,
}

impl Trail {
    pub(super) fn appended(&mut self, last: Lsn, bytes: u64, at: Time) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.marks.len() >= MARKS_MAX {
            let mut is_kept = false;
            self.marks.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.marks.push_back(Mark {
            last,
            at,
            bytes: self.bytes,
        });
    }

    /// Bytes appended after `position`, and since when the oldest of them waits. As exact as the marks.
    pub(super) fn behind(&self, position: Lsn) -> (u64, Option<Time>) {
        let missing = self.marks.iter().find(|mark| mark.last > position);
        let had = self.marks.iter().rev().find(|mark| mark.last <= position);
        let Some(missing) = missing else {
            return (0, None);
        };
        (
            self.bytes - had.map_or(0, |mark| mark.bytes),
            Some(missing.at),
        )
    }
}
