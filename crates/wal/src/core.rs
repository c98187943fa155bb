//! What appenders, readers and upkeep of one open journal share.
//!
//! Locks, in the order in which they may be taken: writer, preparing, releasing, growth of the active
//! segment or spares, taking of space, slots, active, catalog, tail. The last three are never held
//! across I/O.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use world::{Clock, Disk, File, disk::Open};

use crate::{
    Birth, Epoch, Error, Identity, Kind, Lsn, Mode,
    catalog::{self, Catalog, Segment},
    ceiling::{Ask, Ceiling, Need, Space},
    counts::{Counters, add},
    cut::Cuts,
    epochs::Epochs,
    hold,
    metrics::Gauges,
    reader::Reader,
    reserve,
    retention::Retention,
    segment::{self, Opened, zero_fill},
    slots::{Slots, Watermark},
    spare::{Spare, Spares},
    tail::Tail,
};

/// What a new segment starts with, when it is not prepared ahead: a few milliseconds of writing,
/// so a small journal costs little and opens at once. It doubles as it fills.
const EXTENT_FIRST: u64 = 1 << 20;
/// Space is prepared in multiples of a page.
const EXTENT_STEP: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) birth: Option<Birth>,
    pub(crate) segment_bytes: u64,
    pub(crate) mode: Mode,
    pub(crate) catalog: Arc<Mutex<Catalog>>,
    pub(crate) slots: Mutex<Slots>,
    /// Held while released files go, so that closing waits for them, and while upkeep writes zeros to
    /// a segment, so that its file does not go.
    pub(crate) releasing: Mutex<()>,
    /// The safe point that both slots hold, for the next batch to carry.
    pub(crate) settled: AtomicU64,
    pub(crate) tail: Tail,
    pub(crate) cuts: Arc<Cuts>,
    pub(crate) epochs: Mutex<Epochs>,
    pub(crate) active: Mutex<Arc<Active>>,
    pub(crate) spares: Mutex<Spares>,
    /// Held while a spare is prepared ahead that is not one of `spares` yet.
    pub(crate) preparing: Mutex<()>,
    pub(crate) counters: Counters,
    pub(crate) gauges: Gauges,
    pub(crate) space: Space,
    pub(crate) retention: Retention,
    pub(crate) ceiling: Option<Ceiling>,
    pub(crate) reserve_bytes: u64,
    poison: OnceLock<Error>,
    pub(crate) is_closed: AtomicBool,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) base: Lsn,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// Stale bytes follow the last batch: a batch is written with zeros behind it.
    pub(crate) is_recycled: bool,
    /// Bytes written and synced. Only rises, and only under `growth`.
    extent: AtomicU64,
    /// Held while zeros are written, so that no two threads do, and none writes them over a batch.
    growth: Mutex<()>,
}

impl Active {
    pub(crate) fn new(base: Lsn, opened: Opened) -> Self {
        Self {
            base,
            path: opened.path,
            file: opened.file,
            is_recycled: opened.is_recycled,
            extent: AtomicU64::new(opened.extent),
            growth: Mutex::new(()),
        }
    }

    pub(crate) fn extent(&self) -> u64 {
        self.extent.load(Ordering::Acquire)
    }
}

impl Core {
    pub(crate) fn new(
        options: &crate::Options,
        (identity, birth): (Identity, Option<Birth>),
        slots: Slots,
        catalog: Catalog,
        active: Active,
        tail: Tail,
        epochs: Epochs,
    ) -> Self {
        Self {
            disk: Arc::clone(&options.disk),
            clock: Arc::clone(&options.clock),
            dir: options.dir.clone(),
            identity,
            birth,
            segment_bytes: options.segment_bytes,
            mode: options.mode,
            catalog: Arc::new(Mutex::new(catalog)),
            settled: AtomicU64::new(slots.settled().get()),
            slots: Mutex::new(slots),
            releasing: Mutex::default(),
            tail,
            cuts: Arc::default(),
            epochs: Mutex::new(epochs),
            active: Mutex::new(Arc::new(active)),
            spares: Mutex::default(),
            preparing: Mutex::default(),
            counters: Counters::default(),
            gauges: Gauges::default(),
            space: Space::default(),
            retention: options.retention,
            ceiling: options.ceiling,
            reserve_bytes: options.reserve_bytes,
            poison: OnceLock::new(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// The error of every append after the first failed write or sync, and after closing.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        self.check_open()?;
        match self.poison.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Closed, "journal is closed").with_path(&self.dir));
        }
        Ok(())
    }

    /// Records from `from` to `upper`, at most what is durable.
    pub(crate) fn reader(&self, from: Lsn, upper: Lsn) -> Result<Reader, Error> {
        let pin = catalog::pin(&self.catalog, None, from, upper)?;
        Ok(Reader::new(self, upper, pin))
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    /// Ends all writing. What the disk holds beyond the safe point is not known any more; only
    /// opening again finds out. Returns what every later append returns.
    pub(crate) fn poison(&self, first: &Error) -> Error {
        self.poison
            .get_or_init(|| {
                add(&self.counters.poisonings, 1);
                tracing::error!(
                    dir = %self.dir.display(),
                    error = %first,
                    "journal poisoned; open it again after the disk is mended"
                );
                Error::poisoned(first)
            })
            .clone()
    }

    /// Poisons unless all that failed was to get space.
    fn poison_unless_full(&self, error: Error) -> Error {
        match error.kind() {
            Kind::Full => error,
            _ => self.poison(&error),
        }
    }

    /// Brings both slots to the safe point.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let mut slots = hold(&self.slots);
        self.settle_held(&mut slots)
    }

    pub(crate) fn settle_held(&self, slots: &mut Slots) -> Result<(), Error> {
        // Under the lock: a write of a slot may have failed while this waited for it.
        self.check_writable()?;
        // The safe point before the segments: a segment that the slots name exists, one that begins
        // above the safe point they name does no harm.
        let at = self.tail.at();
        // In strict mode the slots know a group a moment before the readers do.
        let held = slots.watermark();
        let watermark =
            self.watermark(at.safe_point.max(held.safe_point), at.epoch.max(held.epoch));
        slots
            .settle(&watermark)
            .map_err(|error| self.poison(&error))?;
        self.settled.store(slots.settled().get(), Ordering::Release);
        add(&self.counters.settles, 1);
        Ok(())
    }

    /// Strict mode: one slot vouches for `safe_point`, durably, before anybody is told of it. What
    /// it names is durable already.
    pub(crate) fn vouch(&self, safe_point: Lsn, epoch: Epoch) -> Result<(), Error> {
        let mut slots = hold(&self.slots);
        self.check_writable()?;
        let watermark = self.watermark(safe_point, epoch);
        slots
            .advance(&watermark)
            .map_err(|error| self.poison(&error))?;
        self.settled.store(slots.settled().get(), Ordering::Release);
        Ok(())
    }

    fn watermark(&self, safe_point: Lsn, epoch: Epoch) -> Watermark {
        let catalog = hold(&self.catalog);
        Watermark {
            safe_point,
            first_retained: catalog.first_retained(),
            active: catalog.active(),
            epoch,
        }
    }

    /// Makes sure that `active` has written space up to `need`, and more if the disk has it.
    pub(crate) fn grow(&self, active: &Active, need: u64, whose: Need) -> Result<(), Error> {
        let held = hold(&active.growth);
        let extent = active.extent();
        if need <= extent {
            return Ok(());
        }
        let doubled = extent.saturating_mul(2).max(EXTENT_FIRST);
        let doubled = doubled.min(self.segment_bytes);
        let enough = need.next_multiple_of(EXTENT_STEP);
        let ask = Ask {
            // An attempt that the disk cut short has lengthened the file, not the extent.
            have: active
                .file
                .len()
                .map_err(|source| Error::io("measure a segment", &active.path, source))?,
            wanted: doubled.max(enough),
            least: enough,
        };
        let taking = self.taking();
        let target = self.admit(ask, whose)?;
        let grown = match self.grow_to(active, extent, target) {
            Err(error) if error.kind() == Kind::Full && target > enough => {
                self.grow_to(active, extent, enough)
            }
            Ok(()) => {
                self.had_room();
                Ok(())
            }
            grown => grown,
        };
        drop(taking);
        drop(held);
        grown.map_err(|error| {
            // Upkeep may come late: nobody appends to a segment that was sealed, or is gone.
            if hold(&self.active).base == active.base {
                self.poison_unless_full(error)
            } else {
                error
            }
        })
    }

    fn grow_to(&self, active: &Active, extent: u64, target: u64) -> Result<(), Error> {
        let attempt = || {
            // A handle of its own: the kernel tells a failed write-back once per handle, and the
            // handle of the appenders must not lose its telling to this sync.
            let file = self.disk.open(&active.path, Open::Write)?;
            zero_fill(&*file, extent, target)?;
            file.sync_all()
        };
        attempt().map_err(|source| {
            Error::io("prepare space in a segment", &active.path, source).with_offset(extent)
        })?;
        active.extent.store(target, Ordering::Release);
        Ok(())
    }

    /// Prepares the segment after the active one. Without it, the roll does the work.
    pub(crate) fn prepare_ahead(&self) -> bool {
        if let Err(error) = self.drop_ahead() {
            tracing::debug!(%error, "nothing dropped ahead for the disk ceiling");
        }
        let _preparing = hold(&self.preparing);
        // The spares are not held while zeros are written: a roll that comes meanwhile does with a
        // short file of its own instead of waiting for a whole segment of zeros (below a ceiling it
        // waits, or both could take the same space). One that took the last spare held them until
        // the file had its own name.
        let is_wanted = hold(&self.spares).is_empty();
        if is_wanted {
            let taking = self.taking();
            let prepared = self
                .admitted(self.segment_bytes, self.segment_bytes, Need::Polite)
                .and_then(|len| Spare::ahead(&*self.disk, &self.dir, len));
            drop(taking);
            match prepared {
                Ok(prepared) => {
                    self.had_room();
                    if let Some(excess) = hold(&self.spares).keep(prepared) {
                        // Released segments came first. Opening removes it if this fails.
                        drop(self.disk.remove_file(excess.path()));
                    }
                }
                Err(error) => tracing::debug!(%error, "no segment prepared ahead"),
            }
        }
        !hold(&self.spares).is_empty()
    }

    /// The length that the ceiling lets a new file have.
    fn admitted(&self, wanted: u64, least: u64, need: Need) -> Result<u64, Error> {
        let ask = Ask {
            have: 0,
            wanted,
            least,
        };
        self.admit(ask, need)
    }

    /// A file for a roll, of `len` bytes, or of `least` when the disk has no more.
    fn prepare_at_once(&self, len: u64, least: u64) -> Result<Spare, Error> {
        match Spare::at_once(&*self.disk, &self.dir, len) {
            Err(error) if error.kind() == Kind::Full && len > least => {
                Spare::at_once(&*self.disk, &self.dir, least)
            }
            Ok(spare) => {
                self.had_room();
                Ok(spare)
            }
            failed => failed,
        }
    }

    /// Begins the segment of `base`, with room for `len` bytes of batch.
    pub(crate) fn roll(&self, base: Lsn, len: u64, whose: Need) -> Result<Arc<Active>, Error> {
        let need = segment::HEADER_LEN as u64 + len;
        // Held until the spare has its own name: upkeep prepares the next one under the old name.
        let mut spares = hold(&self.spares);
        let spare = match spares.take(need) {
            Some(spare) => {
                self.had_room();
                spare
            }
            None => {
                add(&self.counters.space_waits, 1);
                let wanted = first_extent(self.segment_bytes, need);
                let least = need.next_multiple_of(EXTENT_STEP);
                let _taking = self.taking();
                let len = self.admitted(wanted, least, whose)?;
                self.prepare_at_once(len, least)
                    .map_err(|error| self.poison_unless_full(error))?
            }
        };
        let path = spare.path().to_owned();
        self.begin(spare, base).inspect_err(|error| {
            if error.kind() == Kind::Full {
                // It has no name yet, and nobody knows of it any more. Opening removes it if this fails.
                drop(self.disk.remove_file(&path));
            }
        })
    }

    /// Begins the segment of `base` in the reserve, which asks the disk for nothing; `None` when
    /// there is no reserve with room for `len` bytes of batch.
    pub(crate) fn roll_into_reserve(
        &self,
        base: Lsn,
        len: u64,
    ) -> Result<Option<Arc<Active>>, Error> {
        let _held = hold(&self.spares);
        let need = segment::HEADER_LEN as u64 + len;
        let Some(spare) = reserve::adopt(&*self.disk, &self.dir, need)? else {
            return Ok(None);
        };
        self.space.has_reserve.store(false, Ordering::Release);
        self.begin(spare, base).map(Some)
    }

    /// Gives `spare` its place. The lock of `spares` is held until it has its own name: upkeep
    /// prepares the next one under the old name.
    fn begin(&self, spare: Spare, base: Lsn) -> Result<Arc<Active>, Error> {
        let previous = hold(&self.active).base;
        // Not that of the record to come, which a crash may take: what comes in its place then may be
        // of a lower one.
        let epoch = self.tail.at().epoch;
        let header = segment::Header {
            identity: self.identity,
            base,
            previous,
            epoch,
            settled: Lsn::new(self.settled.load(Ordering::Acquire)),
            created: self.clock.now(),
            stale: Lsn::ZERO,
        };
        let opened = spare
            .place(&*self.disk, &self.dir, &header)
            .map_err(|error| self.poison_unless_full(error))?;
        let path = opened.path.clone();
        let active = Arc::new(Active::new(base, opened));
        *hold(&self.active) = Arc::clone(&active);
        hold(&self.catalog).push(Segment::new(base, path, header.created));
        add(&self.counters.rolls, 1);
        add(&self.counters.recycled, u64::from(active.is_recycled));
        if self.mode == Mode::Ordinary {
            // Before the first append: a slot then names every segment that holds an acknowledged
            // record, so the loss of the last one is seen too. In strict mode the slot that vouches
            // for the first batch names it.
            let at = self.tail.at();
            self.vouch(at.safe_point, at.epoch)?;
        }
        Ok(active)
    }
}

pub(crate) fn first_extent(segment_bytes: u64, need: u64) -> u64 {
    EXTENT_FIRST
        .min(segment_bytes)
        .max(need)
        .next_multiple_of(EXTENT_STEP)
}
