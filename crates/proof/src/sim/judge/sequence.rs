//! What is committed: one sequence for all nodes, and the same bytes wherever a record lies.

use std::collections::BTreeMap;

use replica::machine::{Entry, EpochId, History, Position};
use wal::{Epoch, Lsn};

use crate::sim::{
    breach::{Breach, Checker, Verdict},
    derived::{self, Map},
    payload::Payload,
};

/// A record without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    pub(crate) id: EpochId,
    digest: u64,
    pub(crate) payload: Option<Payload>,
}

impl Mark {
    pub(crate) fn of(entry: &Entry, id: EpochId) -> Self {
        Self {
            position: entry.position,
            id,
            digest: digest(entry),
            payload: Payload::of(entry),
        }
    }
}

/// FNV-1a: nobody here makes collisions on purpose.
fn digest(entry: &Entry) -> u64 {
    let bytes = std::iter::once(&entry.kind.0).chain(&*entry.bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// Every record that ever was durable.
    seen: BTreeMap<(Lsn, Epoch, EpochId), Mark>,
    committed: Vec<Mark>,
}

impl Sequence {
    /// A record became durable somewhere.
    pub(crate) fn stored(&mut self, entry: &Entry, id: EpochId) -> Verdict {
        let mark = Mark::of(entry, id);
        let key = (entry.position.lsn, entry.position.epoch, id);
        let known = *self.seen.entry(key).or_insert(mark);
        if known == mark {
            return Ok(());
        }
        let words = format!("{} of {id:?} has other bytes elsewhere", entry.position);
        Err(Breach::new(Checker::SameBytes, words))
    }

    /// A node takes a record as committed.
    pub(crate) fn commit(&mut self, mark: Mark) -> Verdict {
        let lsn = mark.position.lsn;
        match self.at(lsn) {
            Some(known) if *known == mark => Ok(()),
            Some(known) => {
                let words = format!(
                    "{} of {:?} is committed where {} of {:?} was",
                    mark.position, mark.id, known.position, known.id
                );
                Err(Breach::new(Checker::Committed, words))
            }
            None if lsn == self.end().next() => {
                self.committed.push(mark);
                Ok(())
            }
            None => {
                let words = format!(
                    "{lsn} is committed, what comes before ends at {}",
                    self.end()
                );
                Err(Breach::new(Checker::Committed, words))
            }
        }
    }

    pub(crate) fn end(&self) -> Lsn {
        Lsn::new(self.committed.len() as u64)
    }

    pub(crate) fn at(&self, lsn: Lsn) -> Option<&Mark> {
        let index = usize::try_from(lsn.get().checked_sub(1)?).ok()?;
        self.committed.get(index)
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.committed
    }

    /// An operator accepted a loss: committed is what a log with this history has up to here.
    pub(crate) fn begin_again(&mut self, history: &History, upto: Lsn) {
        let marks = (1..=upto.get()).map(|lsn| {
            let start = history.at(Lsn::new(lsn));
            self.seen
                .get(&(Lsn::new(lsn), start.epoch, start.id))
                .copied()
        });
        let marks: Option<Vec<Mark>> = marks.collect();
        self.committed = marks.expect("what a log has was durable once");
    }

    /// What the log up to a position makes of the keys.
    pub(crate) fn state(&self, at: Lsn) -> Map {
        let upto = usize::try_from(at.get()).expect("fits memory");
        let mut state = Map::new();
        for mark in self.committed.iter().take(upto) {
            if let Some(payload) = mark.payload {
                derived::write(&mut state, mark.position, payload);
            }
        }
        state
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sim::payload::KIND;

    pub(crate) fn entry(epoch: u64, lsn: u64, number: u64) -> Entry {
        let payload = Payload {
            number,
            index: 0,
            key: 1,
        };
        Entry {
            position: Position {
                epoch: Epoch(epoch),
                lsn: Lsn::new(lsn),
            },
            kind: KIND,
            bytes: payload.bytes(3).into(),
        }
    }

    fn checker(verdict: Verdict) -> Checker {
        verdict.unwrap_err().checker
    }

    #[test]
    fn other_bytes_under_one_position_are_found_and_other_ids_are_other_positions() {
        let mut sequence = Sequence::default();
        let (one, two) = (EpochId(1), EpochId(2));
        sequence.stored(&entry(1, 5, 50), one).unwrap();
        sequence.stored(&entry(1, 5, 50), one).unwrap();
        sequence.stored(&entry(1, 5, 51), two).unwrap();
        let other = sequence.stored(&entry(1, 5, 51), one);
        assert_eq!(checker(other), Checker::SameBytes);
    }

    #[test]
    fn a_second_record_committed_at_one_lsn_is_found_and_so_is_a_gap() {
        let mut sequence = Sequence::default();
        let mark = |epoch, lsn| Mark::of(&entry(epoch, lsn, lsn), EpochId(epoch.into()));
        sequence.commit(mark(1, 1)).unwrap();
        sequence.commit(mark(1, 1)).unwrap();
        assert_eq!(checker(sequence.commit(mark(2, 1))), Checker::Committed);
        assert_eq!(checker(sequence.commit(mark(1, 3))), Checker::Committed);
    }

    #[test]
    fn the_state_at_a_position_is_what_the_records_up_to_it_wrote() {
        let mut sequence = Sequence::default();
        for lsn in 1..=3 {
            let mark = Mark::of(&entry(1, lsn, lsn * 10), EpochId(1));
            sequence.commit(mark).unwrap();
        }
        let number = |at| sequence.state(Lsn::new(at))[&1].number;
        assert_eq!((number(2), number(3)), (20, 30));
        assert!(sequence.state(Lsn::ZERO).is_empty());
    }
}
