//! What a writing load acknowledged in one directory, and what must follow from it.
//!
//! Two comparisons that do not lean on each other: the program's own `load check`, and the
//! acknowledgements of later runs, which must go on where the earlier ones ended. Neither believes
//! that a number or a position may be given twice.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::breach::Breach;

/// All acknowledgements of a directory, over all the runs that were killed in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acks {
    /// The lines as they came, complete ones only.
    text: Vec<u8>,
    count: u64,
    /// By writer.
    last: BTreeMap<u8, Last>,
    lsn_max: u64,
    /// Records that may be there without an acknowledgement: one for each writer of each run, which
    /// was killed between commit and print, or in the middle of a line.
    untold_max: u64,
    runs: u64,
}

/// The latest acknowledgement of a writer.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    run: u64,
}

/// One line `ack WRITER NUMBER LSN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ack {
    writer: u8,
    number: u64,
    lsn: u64,
}

/// What `load check --output json` prints.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Checked {
    pub(crate) acknowledged: u64,
    pub(crate) present: u64,
    pub(crate) missing: u64,
    pub(crate) changed: u64,
    pub(crate) gaps: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) first_fault: Option<String>,
}

impl Acks {
    /// What was printed by all runs, as `load check` reads it.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Takes in what one run printed before it was killed; a last line without its end was not told.
    /// `untold_max` says how many of its records may be there without a line. Gives how many lines
    /// that were.
    pub(crate) fn take_in(&mut self, untold_max: u8, output: &[u8]) -> Result<u64, Breach> {
        let end = output.iter().rposition(|byte| *byte == b'\n');
        let whole = end.map_or(&[][..], |end| &output[..=end]);
        self.runs += 1;
        self.untold_max += u64::from(untold_max);
        let (count_before, lsn_before) = (self.count, self.lsn_max);
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            self.take_line(line, lsn_before)?;
        }
        self.text.extend_from_slice(whole);
        Ok(self.count - count_before)
    }

    fn take_line(&mut self, line: &[u8], lsn_before: u64) -> Result<(), Breach> {
        let text = String::from_utf8_lossy(line);
        let Some(ack) = parse(text.trim_end()) else {
            let promise = "`load run` prints acknowledgements only";
            return Err(Breach::new(promise, "ack WRITER NUMBER LSN", text));
        };
        // A position at or below one of an earlier run was given to another record already.
        if ack.lsn <= lsn_before {
            return Err(Breach::new(
                "a position is acknowledged once",
                format!("positions up to {lsn_before} before the kill"),
                format!("{} after it", text.trim_end()),
            ));
        }
        let run = self.runs;
        let last = self.last.get(&ack.writer).copied();
        let (number, since) = last.map_or((0, run - 1), |last| (last.number, run - last.run));
        // Within a run each number is told. Each run since the last one told of may have left one.
        let next = number + 1;
        if ack.number < next || ack.number > next + since {
            return Err(Breach::new(
                format!("writer {} goes on after its last record", ack.writer),
                format!("{number}, and at most {since} more without being told"),
                text.trim_end(),
            ));
        }
        self.last.insert(
            ack.writer,
            Last {
                number: ack.number,
                run,
            },
        );
        self.count += 1;
        self.lsn_max = self.lsn_max.max(ack.lsn);
        Ok(())
    }

    /// Compares with what the program finds in the directory.
    pub(crate) fn compare(&self, checked: &Checked) -> Result<(), Breach> {
        let sound = checked.acknowledged == self.count
            && (checked.missing, checked.changed, checked.gaps) == (0, 0, 0)
            && checked.first_fault.is_none();
        if !sound {
            return Err(self.breach("nothing acknowledged is missing or changed", checked));
        }
        let untold = checked.present.checked_sub(self.count);
        if untold.is_none_or(|untold| untold > self.untold_max)
            || checked.unacknowledged > self.untold_max
        {
            return Err(self.breach("what is there was written, and most of it told", checked));
        }
        Ok(())
    }

    fn breach(&self, promise: &str, checked: &Checked) -> Breach {
        Breach::new(
            promise,
            format!(
                "{} records in {} runs, up to position {}, at most {} records untold",
                self.count, self.runs, self.lsn_max, self.untold_max
            ),
            format!("{checked:?}"),
        )
    }
}

fn parse(line: &str) -> Option<Ack> {
    let mut words = line.strip_prefix("ack ")?.split(' ');
    let ack = Ack {
        writer: words.next()?.parse().ok()?,
        number: words.next()?.parse().ok()?,
        lsn: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(ack)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "ack 0 1 1\nack 1 1 2\nack 0 2 3\n";

    fn acks() -> Acks {
        let mut acks = Acks::default();
        assert_eq!(acks.take_in(2, FIRST.as_bytes()), Ok(3));
        acks
    }

    fn sound() -> Checked {
        Checked {
            acknowledged: 3,
            present: 3,
            missing: 0,
            changed: 0,
            gaps: 0,
            unacknowledged: 0,
            first_fault: None,
        }
    }

    /// What a second run prints after [`FIRST`], and whether it is believed.
    fn check(second: &str, expected: Option<u64>) {
        let taken = acks().take_in(2, second.as_bytes());
        assert_eq!(
            taken.as_ref().ok().copied(),
            expected,
            "{second}: {taken:?}"
        );
    }

    #[test]
    fn a_line_that_was_cut_off_was_never_told() {
        check("", Some(0));
        check("ack 0 3", Some(0));
        check("ack 0 3 4\nack 0 4 5", Some(1));
    }

    #[test]
    fn a_second_run_may_skip_what_the_first_could_not_tell() {
        check("ack 0 4 5\nack 0 5 6\nack 1 2 7\n", Some(3));
    }

    #[test]
    fn a_number_or_a_position_given_twice_is_a_loss() {
        check("ack 0 2 4\n", None);
        check("ack 0 3 3\n", None);
        check("ack 1 1 4\n", None);
    }

    #[test]
    fn an_acknowledgement_taken_out_leaves_a_hole_that_is_seen() {
        check("ack 0 5 5\n", None);
        check("ack 0 3 5\nack 0 5 6\n", None);
        check("ack 0 3\n", None);
        check("ack 0 3 4 5\n", None);
        check("nack 0 3 4\n", None);
    }

    #[test]
    fn a_check_that_differs_in_anything_is_a_breach() {
        let acks = acks();
        assert_eq!(acks.compare(&sound()), Ok(()));
        let with = |change: fn(&mut Checked)| {
            let mut checked = sound();
            change(&mut checked);
            acks.compare(&checked)
        };
        assert_eq!(with(|it| it.present = 5), Ok(()), "one untold a writer");
        let breaches: [fn(&mut Checked); 8] = [
            |it| it.acknowledged = 2,
            |it| it.acknowledged = 4,
            |it| it.present = 2,
            |it| it.present = 6,
            |it| it.missing = 1,
            |it| it.changed = 1,
            |it| it.gaps = 1,
            |it| it.unacknowledged = 3,
        ];
        for (index, breach) in breaches.into_iter().enumerate() {
            assert!(with(breach).is_err(), "{index}");
        }
    }
}
