//! What an owner that keeps copies of a journal on several nodes needs of [`Local`].
//!
//! Readers of such a journal see what is committed, which is less than what is durable here. The limit
//! lies in the journal and not around it, so that everything that reads a [`crate::Journal`] keeps to
//! it, waiting at the tail included. [`Local::read_range`] goes beyond: a copy is made of what is
//! durable.

use crate::{
    Appended, Birth, Epoch, EpochStart, Error, Kind, Local, Lsn, Misplaced, Record, RecordKind,
    Records,
    epochs::Past,
    hold,
    local::encode,
    writer::{Pending, Room, Writer},
};

/// Records that were written under one epoch.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub epoch: Epoch,
    /// At least one; at most [`crate::APPEND_LEN_MAX`] bytes, five more for each record included.
    pub records: &'a [(RecordKind, &'a [u8])],
}

impl Local {
    /// Appends records at the positions and under the epochs that they have elsewhere, from `first`
    /// on; durable when it returns.
    ///
    /// Each run is a batch and a sync of its own. One sync for several was rejected: recovery rests on
    /// there being no more than one batch above what is known to be durable, and epochs change with
    /// promotions only.
    ///
    /// Errors that change nothing: `Invalid`, `first` is not the next position
    /// ([`Error::misplaced`]), or the records are none or too many; `Fenced`, an epoch is below that of
    /// the record before. Otherwise as of [`crate::Journal::append`]: the runs before the one that
    /// failed stay, and [`Local::durable`] tells.
    pub fn append_at(&self, first: Lsn, runs: &[Run<'_>]) -> Result<Appended, Error> {
        let mut pending = Vec::with_capacity(runs.len());
        for run in runs {
            pending.push((run.epoch, encode(run.records)?));
        }
        let mut writer = hold(&self.writer);
        self.check_follows(&writer, first, runs.iter().map(|run| run.epoch))?;
        let mut last = None;
        for (epoch, pending) in pending {
            let mut outcomes =
                writer.commit_under(&self.core, epoch, vec![pending], Room::Ordinary);
            last = Some(outcomes.pop().expect("one outcome per member")?.last);
            self.appended(&writer);
        }
        match last {
            Some(last) => Ok(Appended { first, last }),
            None => Err(Error::new(Kind::Invalid, "append without a record")),
        }
    }

    /// One batch of several appends; its last position.
    pub(crate) fn append_group_at(
        &self,
        first: Lsn,
        epoch: Epoch,
        members: Vec<Pending>,
    ) -> Result<Lsn, Error> {
        let mut writer = hold(&self.writer);
        self.check_follows(&writer, first, std::iter::once(epoch))?;
        let mut outcomes = writer.commit_under(&self.core, epoch, members, Room::Ordinary);
        let last = outcomes.pop().expect("one outcome per member")?.last;
        self.appended(&writer);
        Ok(last)
    }

    fn check_follows(
        &self,
        writer: &Writer,
        first: Lsn,
        epochs: impl Iterator<Item = Epoch>,
    ) -> Result<(), Error> {
        self.core.check_writable()?;
        let next = writer.next();
        if first != next {
            let message = format!("records from {first} on do not follow, {next} is next");
            return Err(Error::new(Kind::Invalid, message)
                .with_path(&self.core.dir)
                .with_lsn(first)
                .with_misplaced(Misplaced::NotNext { next }));
        }
        let mut highest = self.core.tail.at().epoch;
        for epoch in epochs {
            if epoch < highest {
                let message = format!("epoch {} may not write after epoch {}", epoch.0, highest.0);
                return Err(Error::new(Kind::Fenced, message)
                    .with_path(&self.core.dir)
                    .with_lsn(first));
            }
            highest = epoch;
        }
        Ok(())
    }

    /// Stamps appends that are not told an epoch with this one from here on. `Fenced`: it is lower
    /// than what they have, or not above that of records that were cut.
    pub fn raise_epoch(&self, epoch: Epoch) -> Result<(), Error> {
        let mut writer = hold(&self.writer);
        self.core.check_writable()?;
        writer.raise(&self.core, epoch)
    }

    /// Lets readers see what is durable up to `committed`, and what becomes durable up to it later. A
    /// lower position changes nothing. Of effect where [`crate::Options::shown`] set a limit.
    pub fn show(&self, committed: Lsn) {
        self.core.tail.show(committed);
    }

    /// The last durable position; readers may see less.
    pub fn durable(&self) -> Lsn {
        self.core.tail.safe_point()
    }

    /// The epoch of the record at [`Local::durable`], or of what the log begins after.
    pub fn last_epoch(&self) -> Epoch {
        self.core.tail.at().epoch
    }

    /// Which log this is, of all that had or will have its identity. `None`: made by a program that
    /// gave none.
    pub fn birth(&self) -> Option<Birth> {
        self.core.birth
    }

    /// Durable records from `from` to `to`, shown to readers or not: as many as have `bytes_max` bytes
    /// together, and one at least. None when `from` is above what is durable.
    ///
    /// Errors: `OutOfRange`, `from` is retained no more; `Corrupt`, it is, and does not verify.
    pub fn read_range(&self, from: Lsn, to: Lsn, bytes_max: usize) -> Result<Vec<Record>, Error> {
        self.core.check_open()?;
        let upper = self.durable().min(to);
        let mut bytes = 0_usize;
        let mut records = Vec::new();
        for record in self.core.reader(from, upper)? {
            let record = record?;
            bytes = bytes.saturating_add(record.bytes.len());
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }

    /// As [`crate::Journal::read`], for an owner that lets go of this log while others read from it.
    pub fn read_on(&self, from: Lsn) -> Result<Records<'static>, Error> {
        self.core.check_open()?;
        Ok(Box::new(self.core.reader(from, self.core.tail.visible())?))
    }

    /// Where epochs begin, oldest first: as the retained batches show it and, below them, as far as
    /// [`Local::note_epochs`] or the base said it. An epoch that is known from neither has the first
    /// retained position and is not exact.
    pub fn epochs(&self) -> Vec<EpochStart> {
        hold(&self.core.epochs).merged()
    }

    /// Keeps where epochs begin, and their ids, beside the log, durably, for when their first records
    /// are released. `Invalid`: they do not rise, or lie above what is durable. A failure leaves what
    /// was kept before.
    pub fn note_epochs(&self, starts: &[EpochStart]) -> Result<(), Error> {
        // No cut meanwhile, which writes the same file.
        let _writer = hold(&self.writer);
        self.core.check_writable()?;
        let mut past = Past::new(starts, self.durable())?;
        past.own_from = hold(&self.core.epochs).past.own_from;
        if hold(&self.core.epochs).past != past {
            past.write(&*self.core.disk, &self.core.dir, self.core.identity)?;
            hold(&self.core.epochs).past = past;
        }
        Ok(())
    }
}
