//! What is to happen, in order of time. Two things at the same moment happen in the order in which
//! they were entered, so that a run is a function of its seed.

use std::{cmp::Ordering, collections::BinaryHeap};

/// Simulated time since the start of a run, in microseconds.
pub(crate) type Moment = u64;

pub(crate) const MILLI: Moment = 1_000;
pub(crate) const SECOND: Moment = 1_000_000;

#[derive(Debug)]
pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Due<T>>,
    entered: u64,
}

#[derive(Debug)]
struct Due<T> {
    at: Moment,
    number: u64,
    what: T,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            entered: 0,
        }
    }
}

impl<T> Agenda<T> {
    pub(crate) fn enter(&mut self, at: Moment, what: T) {
        self.entered += 1;
        self.heap.push(Due {
            at,
            number: self.entered,
            what,
        });
    }

    pub(crate) fn next(&mut self) -> Option<(Moment, T)> {
        self.heap.pop().map(|due| (due.at, due.what))
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    /// Reversed: the heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_by_time_and_at_one_moment_in_the_order_of_their_entry() {
        let mut agenda = Agenda::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            agenda.enter(at, what);
        }
        let order: Vec<char> = std::iter::from_fn(|| agenda.next())
            .map(|(_, what)| what)
            .collect();
        assert_eq!(order, ['a', 'b', 'c', 'd']);
    }
}
