//! What clients asked and what they were told, against what is committed in the end.
//!
//! The committed sequence is the order in which writes took place. So a history is linearizable when
//! every acknowledged write is in it once and whole, behind everything that was acknowledged before it
//! was asked for, and no read missed what was acknowledged or read before.

use std::collections::{BTreeMap, BTreeSet};

use wal::Lsn;

use super::sequence::Sequence;
use crate::sim::{
    agenda::Moment,
    breach::{Breach, Checker, Verdict},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// Of a read.
    Confirmed,
    Written {
        first: Lsn,
        last: Lsn,
        at: Moment,
    },
    Refused,
    Unknown,
}

#[derive(Clone, Debug)]
struct Write {
    asked: Moment,
    records: u64,
    told: Told,
    /// Acknowledged before an operator accepted a loss.
    is_forgiven: bool,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    asked: Moment,
    answered: Moment,
    key: u8,
    /// State as of this position.
    seen: Lsn,
    number: u64,
    /// It was to see everything that was acknowledged before it.
    is_confirmed: bool,
    is_forgiven: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    writes: BTreeMap<u64, Write>,
    reads: Vec<Read>,
    /// Reads that have no answer.
    to_read: BTreeSet<u64>,
    /// The highest position acknowledged so far, and since when.
    acknowledged: Vec<(Moment, Lsn)>,
}

impl Requests {
    pub(crate) fn ask(&mut self, number: u64, asked: Moment, records: u64) {
        let write = Write {
            asked,
            records,
            told: Told::Nothing,
            is_forgiven: false,
        };
        self.writes.insert(number, write);
    }

    pub(crate) fn ask_to_read(&mut self, number: u64) {
        self.to_read.insert(number);
    }

    pub(crate) fn tell(&mut self, number: u64, told: Told, is_forgiven: bool) -> Verdict {
        if !matches!(told, Told::Written { .. }) && self.to_read.remove(&number) {
            return Ok(());
        }
        let Some(write) = self.writes.get_mut(&number) else {
            let words = format!("{number} was never asked, and is told {told:?}");
            return Err(Breach::new(Checker::Answers, words));
        };
        if write.told != Told::Nothing {
            let words = format!("{number} was told {:?}, and is told {told:?}", write.told);
            return Err(Breach::new(Checker::Answers, words));
        }
        write.told = told;
        write.is_forgiven = is_forgiven;
        if let Told::Written { first, last, at } = told {
            if last.get() + 1 != first.get() + write.records {
                let words = format!(
                    "{number} wrote {} records at {first} to {last}",
                    write.records
                );
                return Err(Breach::new(Checker::Writes, words));
            }
            let before = self.acknowledged.last().map_or(Lsn::ZERO, |(_, lsn)| *lsn);
            if !is_forgiven && last > before {
                self.acknowledged.push((at, last));
            }
        }
        Ok(())
    }

    pub(crate) fn read(
        &mut self,
        (asked, answered): (Moment, Moment),
        (key, seen, number): (u8, Lsn, u64),
        is_confirmed: bool,
    ) {
        self.reads.push(Read {
            asked,
            answered,
            key,
            seen,
            number,
            is_confirmed,
            is_forgiven: false,
        });
    }

    /// An operator accepted a loss.
    pub(crate) fn forgive(&mut self) {
        self.writes
            .values_mut()
            .for_each(|it| it.is_forgiven = true);
        self.reads.iter_mut().for_each(|it| it.is_forgiven = true);
        self.acknowledged.clear();
    }

    /// The highest position acknowledged before a moment.
    fn before(&self, moment: Moment) -> Lsn {
        let later = self.acknowledged.partition_point(|(at, _)| *at < moment);
        let last = later.checked_sub(1).map(|index| self.acknowledged[index].1);
        last.unwrap_or(Lsn::ZERO)
    }

    pub(crate) fn check(&self, sequence: &Sequence) -> Verdict {
        self.once(sequence)?;
        for (number, write) in &self.writes {
            self.check_write(*number, write, sequence)?;
        }
        self.check_reads(sequence)
    }

    fn once(&self, sequence: &Sequence) -> Verdict {
        let mut seen = BTreeSet::new();
        for mark in sequence.marks() {
            let Some(payload) = mark.payload else {
                continue;
            };
            let position = mark.position;
            let complaint = match self.writes.get(&payload.number) {
                None => "was never asked for",
                Some(write) if write.told == Told::Refused => "was refused",
                Some(_) if !seen.insert((payload.number, payload.index)) => "is there twice",
                Some(_) => continue,
            };
            let words = format!("{} at {position} {complaint}", payload.number);
            return Err(Breach::new(Checker::Writes, words));
        }
        Ok(())
    }

    fn check_write(&self, number: u64, write: &Write, sequence: &Sequence) -> Verdict {
        let Told::Written { first, last, .. } = write.told else {
            return Ok(());
        };
        if write.is_forgiven {
            return Ok(());
        }
        for lsn in first.get()..=last.get() {
            let found = sequence.at(Lsn::new(lsn)).and_then(|mark| mark.payload);
            let index = lsn - first.get();
            if !found.is_some_and(|it| it.number == number && u64::from(it.index) == index) {
                let words = format!("{number} was acknowledged at {lsn}, where {found:?} is");
                return Err(Breach::new(Checker::Writes, words));
            }
        }
        let before = self.before(write.asked);
        if first <= before {
            let words = format!("{number} is at {first}, asked for after {before} was told");
            return Err(Breach::new(Checker::Writes, words));
        }
        Ok(())
    }

    fn check_reads(&self, sequence: &Sequence) -> Verdict {
        let versions = Versions::of(sequence);
        let sound = self.reads.iter().filter(|read| !read.is_forgiven);
        let mut by_key: BTreeMap<u8, Vec<(&Read, Lsn)>> = BTreeMap::new();
        for read in sound {
            let (lsn, number) = versions.at(read.key, read.seen);
            if number != read.number {
                let words = format!("{read:?} where {number} is committed at {lsn}");
                return Err(Breach::new(Checker::Reads, words));
            }
            if !read.is_confirmed {
                // A snapshot: old, perhaps, but of what is committed and of nothing else.
                continue;
            }
            let before = self.before(read.asked);
            if versions.at(read.key, before).0 > lsn {
                let words = format!("{read:?} after {before} was acknowledged");
                return Err(Breach::new(Checker::Reads, words));
            }
            by_key.entry(read.key).or_default().push((read, lsn));
        }
        by_key.values().try_for_each(|reads| never_back(reads))
    }
}

/// No read that began after another had ended saw an older version.
fn never_back(reads: &[(&Read, Lsn)]) -> Verdict {
    let mut ended: Vec<(Moment, Lsn)> = reads.iter().map(|(it, lsn)| (it.answered, *lsn)).collect();
    ended.sort_unstable();
    let mut asked = reads.to_vec();
    asked.sort_by_key(|(read, _)| read.asked);
    let (mut ended, mut newest) = (ended.into_iter().peekable(), Lsn::ZERO);
    for (read, lsn) in asked {
        while let Some((_, lsn)) = ended.next_if(|(at, _)| *at < read.asked) {
            newest = newest.max(lsn);
        }
        if lsn < newest {
            let words = format!("{read:?} after {newest} was read");
            return Err(Breach::new(Checker::Reads, words));
        }
    }
    Ok(())
}

/// Of each key the records that wrote it.
struct Versions(BTreeMap<u8, Vec<(Lsn, u64)>>);

impl Versions {
    fn of(sequence: &Sequence) -> Self {
        let mut versions: BTreeMap<u8, Vec<(Lsn, u64)>> = BTreeMap::new();
        for mark in sequence.marks() {
            if let Some(payload) = mark.payload {
                let version = (mark.position.lsn, payload.number);
                versions.entry(payload.key).or_default().push(version);
            }
        }
        Self(versions)
    }

    fn at(&self, key: u8, at: Lsn) -> (Lsn, u64) {
        let of_key = self.0.get(&key).map_or(&[][..], Vec::as_slice);
        let later = of_key.partition_point(|(lsn, _)| *lsn <= at);
        let last = later.checked_sub(1).map(|index| of_key[index]);
        last.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use replica::machine::EpochId;

    use super::{
        super::sequence::{Mark, tests::entry},
        *,
    };

    /// Writes of one record each, to one key, committed in this order.
    fn committed(numbers: &[u64]) -> Sequence {
        let mut sequence = Sequence::default();
        for (index, number) in numbers.iter().enumerate() {
            let entry = entry(1, index as u64 + 1, *number);
            sequence.commit(Mark::of(&entry, EpochId(1))).unwrap();
        }
        sequence
    }

    fn written(lsn: u64, at: Moment) -> Told {
        let lsn = Lsn::new(lsn);
        Told::Written {
            first: lsn,
            last: lsn,
            at,
        }
    }

    /// Asked at, told what.
    fn history(writes: &[(u64, Moment, Told)]) -> Requests {
        let mut requests = Requests::default();
        for (number, asked, _) in writes {
            requests.ask(*number, *asked, 1);
        }
        for (number, _, told) in writes {
            if *told != Told::Nothing {
                requests.tell(*number, *told, false).unwrap();
            }
        }
        requests
    }

    fn check(requests: &Requests, numbers: &[u64], expected: Option<Checker>) {
        let verdict = requests.check(&committed(numbers));
        assert_eq!(
            verdict.err().map(|it| it.checker),
            expected,
            "{requests:?} {numbers:?}"
        );
    }

    #[test]
    fn a_write_of_unknown_end_may_be_there_or_not() {
        for told in [Told::Unknown, Told::Nothing] {
            let requests = history(&[(7, 1, written(1, 2)), (8, 3, told)]);
            check(&requests, &[7, 8], None);
            check(&requests, &[7], None);
        }
    }

    #[test]
    fn an_acknowledged_write_that_is_gone_or_elsewhere_is_found() {
        let requests = history(&[(7, 1, written(2, 5)), (8, 1, Told::Unknown)]);
        check(&requests, &[8, 7], None);
        check(&requests, &[8], Some(Checker::Writes));
        check(&requests, &[7, 8], Some(Checker::Writes));
        check(&requests, &[], Some(Checker::Writes));
    }

    #[test]
    fn a_refused_write_one_nobody_asked_for_and_one_applied_twice_are_found() {
        let requests = history(&[(7, 1, written(1, 2)), (8, 3, Told::Refused)]);
        check(&requests, &[7], None);
        check(&requests, &[7, 8], Some(Checker::Writes));
        check(&requests, &[7, 9], Some(Checker::Writes));
        check(&requests, &[7, 7], Some(Checker::Writes));
    }

    #[test]
    fn a_write_before_one_that_was_acknowledged_when_it_was_asked_for_is_found() {
        let before = history(&[(7, 1, written(2, 5)), (8, 6, written(1, 9))]);
        check(&before, &[8, 7], Some(Checker::Writes));
        let at_once = history(&[(7, 1, written(2, 5)), (8, 4, written(1, 9))]);
        check(&at_once, &[8, 7], None);
    }

    #[test]
    fn an_answer_to_nobody_and_a_second_answer_are_found() {
        let mut requests = history(&[(7, 1, written(1, 2))]);
        for number in [7, 8] {
            let told = requests.tell(number, Told::Unknown, false);
            assert_eq!(told.unwrap_err().checker, Checker::Answers);
        }
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_is_found_and_so_is_one_that_goes_back() {
        let writes = [(7, 1, written(1, 2)), (8, 1, written(2, 4))];
        let read = |asked, answered, seen, number| (asked, answered, (1, Lsn::new(seen), number));
        for (reads, expected) in [
            (vec![read(3, 5, 1, 7)], None),
            (vec![read(5, 6, 1, 7)], Some(Checker::Reads)),
            (vec![read(5, 6, 2, 7)], Some(Checker::Reads)),
            (vec![read(5, 6, 2, 8)], None),
            (
                vec![read(1, 2, 2, 8), read(3, 3, 1, 7)],
                Some(Checker::Reads),
            ),
            (vec![read(1, 3, 2, 8), read(3, 3, 1, 7)], None),
        ] {
            let mut requests = history(&writes);
            for (asked, answered, seen) in reads {
                requests.read((asked, answered), seen, true);
            }
            check(&requests, &[7, 8], expected);
        }
    }

    #[test]
    fn a_snapshot_may_be_old_and_holds_nothing_that_is_not_committed() {
        let writes = [(7, 1, written(1, 2)), (8, 1, written(2, 4))];
        for (seen, number, expected) in [
            (1, 7, None),
            (2, 8, None),
            (2, 7, Some(Checker::Reads)),
            (1, 8, Some(Checker::Reads)),
        ] {
            let mut requests = history(&writes);
            requests.read((5, 6), (1, Lsn::new(seen), number), false);
            check(&requests, &[7, 8], expected);
        }
    }

    #[test]
    fn what_was_told_before_a_loss_that_was_accepted_is_owed_to_nobody() {
        let mut requests = history(&[(7, 1, written(1, 2))]);
        requests.read((1, 2), (1, Lsn::new(1), 7), true);
        requests.forgive();
        check(&requests, &[], None);
    }
}
