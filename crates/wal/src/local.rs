//! [`Local`]: the journal on this machine's disk.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use world::disk::Lock;

use crate::{
    Appended, Counts, Epoch, Error, Identity, Journal, Kind, Lsn, Mode, Options, Pin, RecordKind,
    Records, Recovery, Upkeep, base,
    batch::{self, APPEND_LEN_MAX, RECORD_LEN_MAX},
    catalog::{self, Catalog},
    core::{Active, Core},
    counts::add,
    create::{Beginning, create},
    cut,
    group::Group,
    hold, identity,
    metrics::Metrics,
    order::ImportOrder,
    progress::Meter,
    recover::{self, Recovered},
    reset, slots,
    tail::Tail,
    upkeep::Thread,
    writer::{Pending, Room, Writer},
};

pub(crate) const LOCK_NAME: &str = "lock";

/// A journal in a directory of this machine.
///
/// Closing is not needed for durability. It settles the watermark, so that the next open can tell
/// damage from a torn tail up to the last record; dropping does the same as best it can.
#[derive(Debug)]
pub struct Local {
    pub(crate) core: Arc<Core>,
    group: Group<Pending, Result<Appended, Error>>,
    pub(crate) writer: Mutex<Writer>,
    upkeep: Option<Thread>,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

impl Local {
    /// Opens the journal in `options.dir`, or makes one there.
    ///
    /// Errors: `Locked` names the holder. `Corrupt` has a cause, was logged, and changed nothing.
    /// `Fenced`: a higher epoch was here. `Full`, `Io`: the disk; opening may be tried again.
    pub fn open(options: Options) -> Result<(Self, Recovery), Error> {
        let dir = options.dir.clone();
        Self::open_unlogged(options).inspect_err(|error| {
            if let Some(cause) = error.cause() {
                tracing::error!(
                    cause = cause.code(),
                    dir = %dir.display(),
                    lsn = error.lsn().map(Lsn::get),
                    offset = error.offset(),
                    %error,
                    "WAL_RECOVERY_FAIL_HARD"
                );
            }
        })
    }

    fn open_unlogged(options: Options) -> Result<(Self, Recovery), Error> {
        options.check()?;
        let disk = Arc::clone(&options.disk);
        let dir = &options.dir;
        disk.create_dir_all_synced(dir)
            .map_err(|source| Error::io("make the journal's directory", dir, source))?;
        let lock = take_lock(&options)?;
        Self::open_locked(&options, lock, Purpose::Use)
    }

    /// Opens the journal whose lock is held, and carries out an order that lies there first.
    pub(crate) fn open_locked(
        options: &Options,
        lock: Box<dyn Lock>,
        purpose: Purpose,
    ) -> Result<(Self, Recovery), Error> {
        let disk = Arc::clone(&options.disk);
        let dir = &options.dir;
        let reset = reset::resume(options)?;
        let base = base::resume(options)?;
        if purpose == Purpose::Use {
            ImportOrder::refuse_unfinished(&*disk, dir)?;
        }
        let recovered = match (identity::read_born(&*disk, dir)?, &reset) {
            (Some(born), _) => {
                require_slots(options)?;
                cut::resume(&*disk, dir, born.0)?;
                recover::recover(&disk, dir, born, Meter::new(options))?
            }
            // The reset moved everything away: nothing here can be what a lost identity belonged to.
            (None, Some(order)) => {
                let birth = identity::born(&*options.random)?;
                create(options, &Beginning::new(order.identity, order.epoch, birth))?
            }
            (None, None) if base.is_some() => {
                let order = base.as_ref().expect("asked for above");
                create(options, &order.beginning())?
            }
            (None, None) => {
                recover::check_unfinished(&*disk, dir, &options.evidence)?;
                let identity = identity::new(&*options.random)?;
                let birth = identity::born(&*options.random)?;
                create(options, &Beginning::new(identity, Epoch(0), birth))?
            }
        };
        let epoch = choose_epoch(options, recovered.epoch)?;
        let (local, report) = Self::start(options, recovered, epoch, lock)?;
        if let Some(order) = reset {
            reset::conclude(&local, options, &order)?;
        }
        if let Some(order) = base {
            base::conclude(options, &order)?;
        }
        Ok((local, report))
    }

    fn start(
        options: &Options,
        recovered: Recovered,
        epoch: Epoch,
        lock: Box<dyn Lock>,
    ) -> Result<(Self, Recovery), Error> {
        let report = recovered.report;
        let mut slots = recovered.slots;
        if options.mode == Mode::Strict {
            // Else the first group would do it: three syncs instead of two.
            slots.make_newest_durable()?;
        }
        let base = recovered
            .segments
            .back()
            .map_or(Lsn::FIRST, |last| last.base);
        let core = Arc::new(Core::new(
            options,
            (recovered.identity, recovered.birth),
            slots,
            Catalog::new(recovered.segments),
            Active::new(base, recovered.active),
            Tail::new(report.safe_point, recovered.epoch, options.shown),
            recovered.epochs,
        ));
        add(&core.counters.repairs, u64::from(report.cut.is_some()));
        core.announce_ceiling();
        core.keep_reserve();
        let writer = Writer::new(&core, recovered.position, report.safe_point.next(), epoch);
        let upkeep = match options.upkeep {
            Upkeep::Caller => None,
            Upkeep::Thread => Some(
                Thread::start(Arc::clone(&core))
                    .map_err(|source| Error::io("start the upkeep thread", &core.dir, source))?,
            ),
        };
        let local = Self {
            core,
            group: Group::new(APPEND_LEN_MAX),
            writer: Mutex::new(writer),
            upkeep,
            lock: Mutex::new(Some(lock)),
        };
        Ok((local, report))
    }

    /// Settles and lets go of the directory. Everything but the counts is refused from then on with
    /// kind `Closed`. A second call does nothing.
    pub fn close(&self) -> Result<(), Error> {
        // Under the writer's lock: a group in flight ends first.
        let writer = hold(&self.writer);
        if self.core.is_closed.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(upkeep) = &self.upkeep {
            upkeep.stop();
        }
        let _releasing = hold(&self.core.releasing);
        let settled = self.core.settle();
        self.core.is_closed.store(true, Ordering::Release);
        drop(writer);
        self.core.tail.wake();
        drop(hold(&self.lock).take());
        settled
    }

    pub fn counts(&self) -> Counts {
        self.core.counters.read()
    }

    /// What the journal tells about itself. Lists the directory; otherwise a look in memory.
    pub fn metrics(&self) -> Metrics {
        self.core.metrics()
    }

    /// Like [`Journal::pin`], under a name that metrics show with its backlog and errors tell.
    /// A reader that moves on takes a pin at its new position and drops the one it had.
    pub fn pin_named(&self, name: &str, from: Lsn) -> Result<Pin, Error> {
        self.core.check_open()?;
        catalog::pin(&self.core.catalog, Some(name), from, self.safe_point())
    }

    /// Removes the segments that are beyond the limits of the retention, as upkeep does from time
    /// to time; returns how many.
    pub fn apply_retention(&self) -> Result<u64, Error> {
        self.core.apply_retention()
    }

    /// Appends like [`Journal::append`], except that a full disk or a ceiling that is reached does
    /// not refuse it while there is a reserve: an owner's last word. Uses the reserve up; it is made
    /// again when there is room. What goes in there is at most the reserve, less a header.
    pub fn append_closing(&self, records: &[(RecordKind, &[u8])]) -> Result<Appended, Error> {
        let pending = encode(records)?;
        let mut writer = hold(&self.writer);
        let mut outcomes = writer.commit(&self.core, vec![pending], Room::Closing);
        outcomes.pop().expect("one outcome per member")
    }

    /// What the upkeep thread does when appends pause: settles, makes the reserve again when it is
    /// missing, applies the retention.
    pub fn tend(&self) -> Result<(), Error> {
        self.core.settle()?;
        self.core.tend();
        Ok(())
    }

    /// Prepares the next segment, as upkeep does.
    #[cfg(test)]
    pub(crate) fn prepare_ahead(&self) -> bool {
        self.core.prepare_ahead()
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Keeps every group from being written, as a slow disk does.
    #[cfg(test)]
    pub(crate) fn hold_writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        hold(&self.writer)
    }

    /// Spins until the group is as `condition` (is one led, how many wait in the next) wants it.
    #[cfg(test)]
    pub(crate) fn wait_until(&self, condition: impl Fn(bool, usize) -> bool) {
        while !condition(self.group.is_led(), self.group.waiting()) {
            std::thread::yield_now();
        }
    }

    fn lead(&self, group: Vec<Pending>) -> Vec<Result<Appended, Error>> {
        let mut writer = hold(&self.writer);
        let outcomes = writer.commit(&self.core, group, Room::Ordinary);
        self.appended(&writer);
        outcomes
    }

    /// Told after each batch, by whoever holds the writer.
    pub(crate) fn appended(&self, writer: &Writer) {
        if let Some(upkeep) = &self.upkeep {
            upkeep.appended(&self.core, writer.position(), writer.extent());
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A half-made batch may be in the writer's hands. Nothing acknowledged needs settling.
            if let Some(upkeep) = &self.upkeep {
                upkeep.stop();
            }
            return;
        }
        if let Err(error) = self.close()
            && error.kind() != Kind::Poisoned
        {
            tracing::warn!(%error, "journal closed without settling");
        }
    }
}

impl Journal for Local {
    fn identity(&self) -> Identity {
        self.core.identity
    }

    fn append(&self, records: &[(RecordKind, &[u8])]) -> Result<Appended, Error> {
        let pending = encode(records)?;
        let weight = pending.batch.len() - batch::HEADER_LEN;
        self.group.join(pending, weight, |group| self.lead(group))
    }

    fn safe_point(&self) -> Lsn {
        self.core.tail.visible()
    }

    fn first_retained(&self) -> Lsn {
        hold(&self.core.catalog).first_retained()
    }

    fn read(&self, from: Lsn) -> Result<Records<'_>, Error> {
        self.read_on(from)
    }

    fn wait_above(&self, seen: Lsn, timeout: Duration) -> Lsn {
        self.core
            .tail
            .wait_above(seen, timeout, &*self.core.clock, || {
                self.core.is_closed.load(Ordering::Acquire)
            })
    }

    fn pin(&self, from: Lsn) -> Result<Pin, Error> {
        self.core.check_open()?;
        catalog::pin(&self.core.catalog, None, from, self.safe_point())
    }

    fn milestones(&self, from: Lsn) -> Vec<(Lsn, u64)> {
        let next = self.safe_point().next();
        hold(&self.core.catalog).milestones(from, next)
    }

    fn release_below(&self, keep_from: Lsn) -> Result<(), Error> {
        self.core.release_below(keep_from)
    }

    fn settle(&self) -> Result<(), Error> {
        self.core.settle()
    }
}

/// Checks an append and lays its records out, before it joins a group.
pub(crate) fn encode(records: &[(RecordKind, &[u8])]) -> Result<Pending, Error> {
    let refuse = |message: String| Err(Error::new(Kind::Invalid, message));
    let mut len = 0_usize;
    for (kind, bytes) in records {
        if kind.0 == 0 {
            return refuse("record of kind 0".to_owned());
        }
        if bytes.len() > RECORD_LEN_MAX {
            return refuse(format!(
                "record of {} bytes; at most {RECORD_LEN_MAX}",
                bytes.len()
            ));
        }
        len = len.saturating_add(batch::record_len(bytes));
    }
    if records.is_empty() {
        return refuse("append without a record".to_owned());
    }
    if len > APPEND_LEN_MAX {
        return refuse(format!("append of {len} bytes; at most {APPEND_LEN_MAX}"));
    }
    let mut batch = Vec::with_capacity(batch::HEADER_LEN + len.next_multiple_of(batch::ALIGNMENT));
    batch.resize(batch::HEADER_LEN, 0);
    for (kind, bytes) in records {
        batch::put_record(&mut batch, *kind, bytes);
    }
    let count = u32::try_from(records.len()).expect("each takes bytes of APPEND_LEN_MAX");
    Ok(Pending { batch, count })
}

/// What a journal is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Use,
    /// To go on with an import that was interrupted.
    Import,
}

pub(crate) fn take_lock(options: &Options) -> Result<Box<dyn Lock>, Error> {
    let path = options.dir.join(LOCK_NAME);
    options
        .disk
        .lock(&path, &options.holder)
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::WouldBlock => {
                Error::new(Kind::Locked, format!("journal is in use by {source}"))
                    .with_path(&options.dir)
            }
            _ => Error::io("lock the journal", path, source),
        })
}

/// The identity file says that the journal was complete once; then the safe point was there.
pub(crate) fn require_slots(options: &Options) -> Result<(), Error> {
    let path = options.dir.join(slots::NAME);
    let stat = options
        .disk
        .stat(&path)
        .map_err(|source| Error::io("look for the safe-point file", &path, source))?;
    match stat {
        Some(_) => Ok(()),
        None => {
            let identity = options.dir.join(identity::NAME);
            Err(recover::safe_point_missing(
                &options.dir,
                &identity.display().to_string(),
            ))
        }
    }
}

fn choose_epoch(options: &Options, found: Epoch) -> Result<Epoch, Error> {
    match options.epoch {
        Some(epoch) if epoch < found => Err(Error::new(
            Kind::Fenced,
            format!("epoch {} may not write after epoch {}", epoch.0, found.0),
        )
        .with_path(&options.dir)),
        Some(epoch) => Ok(epoch),
        None => Ok(found),
    }
}
