//! Filling an empty journal with records that were exported.
//!
//! Nobody opens a journal that is half imported: the order in it says so until the last record is
//! durable. An interrupted import goes on where it stopped, and a finished one done again changes
//! nothing.

use crate::{
    Epoch, Error, Identity, Journal, Kind, Local, Lsn, Options, RecordKind,
    local::{self, Purpose},
    order::ImportOrder,
};

/// An import that goes on.
#[derive(Debug)]
pub struct Import {
    options: Options,
    order: ImportOrder,
    /// `None` after another epoch could not be turned to.
    journal: Option<Local>,
    epoch: Option<Epoch>,
    taken: u64,
}

/// How an import begins.
#[derive(Debug)]
pub enum Importing {
    /// The same source was imported before, whole.
    Done(Identity),
    Goes(Box<Import>),
}

/// Begins to import `records` records from `source` (a digest that tells sources apart), or carries
/// on. The journal in `options.dir` is made when it is missing.
///
/// Errors: `Invalid`, the journal holds other records, or an import of another source; and all of
/// [`Local::open`].
pub fn import(options: &Options, source: [u8; 32], records: u64) -> Result<Importing, Error> {
    options.check()?;
    let (disk, dir) = (&*options.disk, &*options.dir);
    disk.create_dir_all_synced(dir)
        .map_err(|source| Error::io("make the journal's directory", dir, source))?;
    let lock = local::take_lock(options)?;
    let found = ImportOrder::read(disk, dir)?;
    if let Some(order) = &found
        && order.source == source
        && order.is_done
    {
        return Ok(Importing::Done(order.identity));
    }
    let (journal, _) = Local::open_locked(options, lock, Purpose::Import)?;
    let order = match found {
        Some(order) if !order.is_done && order.source == source => {
            // Its name may be in the page cache only, and what follows must not outlive it.
            disk.sync_dir(dir)
                .map_err(|source| Error::io("make the order of an import durable", dir, source))?;
            order
        }
        Some(order) if !order.is_done => {
            let message = "an import of another source was interrupted here; finish that one, or \
                           reset the journal";
            return Err(Error::new(Kind::Invalid, message).with_path(dir));
        }
        _ => {
            must_be_empty(&journal, options)?;
            let order = ImportOrder {
                is_done: false,
                identity: journal.identity(),
                start: journal.safe_point().get(),
                records,
                source,
            };
            order.write(disk, dir)?;
            order
        }
    };
    let taken = journal.safe_point().get().saturating_sub(order.start);
    Ok(Importing::Goes(Box::new(Import {
        taken,
        options: options.clone(),
        order,
        journal: Some(journal),
        epoch: None,
    })))
}

/// New, or holding nothing but the record of the reset that began it.
fn must_be_empty(journal: &Local, options: &Options) -> Result<(), Error> {
    let refuse = || {
        let message = format!(
            "the journal holds records up to {}; only a new or an empty one takes an import",
            journal.safe_point()
        );
        Err(Error::new(Kind::Invalid, message).with_path(&options.dir))
    };
    if journal.safe_point() > Lsn::FIRST || journal.first_retained() > Lsn::FIRST {
        return refuse();
    }
    for record in journal.read(Lsn::FIRST)? {
        if record?.kind != RecordKind::RESET {
            return refuse();
        }
    }
    Ok(())
}

impl Import {
    /// Records of the source that are in the journal, from an earlier attempt too.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The next records of the source; durable when it returns. After an error the import is at its
    /// end, and another one carries on: `Closed`, an earlier call ended in the error.
    pub fn append(&mut self, epoch: Epoch, records: &[(RecordKind, &[u8])]) -> Result<(), Error> {
        if self.epoch != Some(epoch) {
            self.turn_to(epoch)?;
        }
        let journal = self.journal.as_ref().ok_or_else(|| self.ended())?;
        journal.append(records)?;
        self.taken = journal.safe_point().get().saturating_sub(self.order.start);
        Ok(())
    }

    fn ended(&self) -> Error {
        let message = "the import ended in an error; import the same file again";
        Error::new(Kind::Closed, message).with_path(&self.options.dir)
    }

    /// An open journal stamps one epoch, so another one needs another opening.
    fn turn_to(&mut self, epoch: Epoch) -> Result<(), Error> {
        let journal = self.journal.take().ok_or_else(|| self.ended())?;
        journal.close()?;
        drop(journal);
        let options = Options {
            epoch: Some(epoch),
            ..self.options.clone()
        };
        let lock = local::take_lock(&options)?;
        let (journal, _) = Local::open_locked(&options, lock, Purpose::Import)?;
        self.journal = Some(journal);
        self.epoch = Some(epoch);
        Ok(())
    }

    /// Ends the import: the journal can be opened from here on. `Invalid` when records are missing.
    pub fn finish(mut self) -> Result<Identity, Error> {
        let journal = self.journal.take().ok_or_else(|| self.ended())?;
        let taken = self.taken;
        if taken != self.order.records {
            let message = format!(
                "{taken} records were imported of {}; import the same file again",
                self.order.records
            );
            return Err(Error::new(Kind::Invalid, message).with_path(&self.options.dir));
        }
        journal.settle()?;
        self.order.is_done = true;
        self.order.write(&*self.options.disk, &self.options.dir)?;
        journal.close()?;
        Ok(self.order.identity)
    }
}
