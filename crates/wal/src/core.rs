//! What appenders, readers and upkeep of one open journal share.
//!
//! Locks, in the order in which they may be taken: writer, growth of the active segment or spares,
//! slots, active, catalog, tail. The last three are never held across I/O.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use world::{
    Clock, Disk, File,
    disk::{Entry, Open},
};

use crate::{
    Epoch, Error, Identity, Kind, Lsn, Mode,
    catalog::{Catalog, Segment},
    counts::{Counters, add},
    hold,
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
    pub(crate) segment_bytes: u64,
    pub(crate) mode: Mode,
    pub(crate) catalog: Arc<Mutex<Catalog>>,
    pub(crate) slots: Mutex<Slots>,
    /// The safe point that both slots hold, for the next batch to carry.
    pub(crate) settled: AtomicU64,
    pub(crate) tail: Tail,
    pub(crate) active: Mutex<Arc<Active>>,
    pub(crate) spares: Mutex<Spares>,
    pub(crate) counters: Counters,
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
        identity: Identity,
        slots: Slots,
        catalog: Catalog,
        active: Active,
        tail: Tail,
    ) -> Self {
        Self {
            disk: Arc::clone(&options.disk),
            clock: Arc::clone(&options.clock),
            dir: options.dir.clone(),
            identity,
            segment_bytes: options.segment_bytes,
            mode: options.mode,
            catalog: Arc::new(Mutex::new(catalog)),
            settled: AtomicU64::new(slots.settled().get()),
            slots: Mutex::new(slots),
            tail,
            active: Mutex::new(Arc::new(active)),
            spares: Mutex::default(),
            counters: Counters::default(),
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
        self.check_writable()?;
        let mut slots = hold(&self.slots);
        self.settle_held(&mut slots)
    }

    fn settle_held(&self, slots: &mut Slots) -> Result<(), Error> {
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

    /// Takes segments away that end below `keep_from`. Order: the slots stop vouching for them, then
    /// they go, oldest first, then the directory is synced, then their files may be used again. A
    /// crash in between leaves leftovers that the next open removes.
    pub(crate) fn release_below(&self, keep_from: Lsn) -> Result<(), Error> {
        self.check_writable()?;
        let mut room = hold(&self.spares).room();
        let mut slots = hold(&self.slots);
        let keep_from = keep_from.min(self.tail.safe_point().next());
        let released = hold(&self.catalog).release(keep_from);
        if released.is_empty() {
            return Ok(());
        }
        self.settle_held(&mut slots)?;
        let mut recycled = Vec::new();
        for segment in &released {
            let spare = self
                .remove(segment, room > 0)
                .map_err(|source| Error::doubt("release a segment", &segment.path, source))?;
            room -= usize::from(spare.is_some());
            recycled.extend(spare);
        }
        let sync_dir = || {
            self.disk
                .sync_dir(&self.dir)
                .map_err(|source| Error::doubt("sync the journal's directory", &self.dir, source))
        };
        sync_dir()?;
        // Before the spares are locked: a roll holds them while it takes the slots.
        drop(slots);
        for spare in recycled {
            if let Some(excess) = hold(&self.spares).keep(spare) {
                self.disk.remove_file(excess.path()).map_err(|source| {
                    Error::doubt("remove a spare segment", excess.path(), source)
                })?;
            }
        }
        Ok(())
    }

    /// A segment of the usual length becomes a spare when one is wanted.
    fn remove(&self, segment: &Segment, is_wanted: bool) -> std::io::Result<Option<Spare>> {
        let is_usual = |entry: Entry| entry.len == self.segment_bytes;
        if is_wanted && self.disk.stat(&segment.path)?.is_some_and(is_usual) {
            return Spare::recycle(&*self.disk, &self.dir, segment.base, self.segment_bytes)
                .map(Some);
        }
        self.disk.remove_file(&segment.path).map(|()| None)
    }

    /// Makes sure that `active` has written space up to `need`, and more if the disk has it.
    pub(crate) fn grow(&self, active: &Active, need: u64) -> Result<(), Error> {
        let held = hold(&active.growth);
        let extent = active.extent();
        if need <= extent {
            return Ok(());
        }
        let doubled = extent.saturating_mul(2).max(EXTENT_FIRST);
        let doubled = doubled.min(self.segment_bytes);
        let enough = need.next_multiple_of(EXTENT_STEP);
        let grown = match self.grow_to(active, extent, doubled.max(enough)) {
            Err(error) if error.kind() == Kind::Full && doubled > enough => {
                self.grow_to(active, extent, enough)
            }
            grown => grown,
        };
        drop(held);
        grown.map_err(|error| self.poison_unless_full(error))
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
    pub(crate) fn prepare_spare(&self) -> bool {
        let mut spares = hold(&self.spares);
        if spares.is_empty() {
            match Spare::ahead(&*self.disk, &self.dir, self.segment_bytes) {
                Ok(prepared) => drop(spares.keep(prepared)),
                Err(error) => tracing::debug!(%error, "no segment prepared ahead"),
            }
        }
        !spares.is_empty()
    }

    /// Begins the segment of `base`, with room for `len` bytes of batch.
    pub(crate) fn roll(&self, base: Lsn, epoch: Epoch, len: u64) -> Result<Arc<Active>, Error> {
        let need = segment::HEADER_LEN as u64 + len;
        // Held until the spare has its own name: upkeep prepares the next one under the old name.
        let mut spares = hold(&self.spares);
        let spare = match spares.take(need) {
            Some(spare) => spare,
            None => {
                add(&self.counters.space_waits, 1);
                let extent = first_extent(self.segment_bytes, need);
                Spare::at_once(&*self.disk, &self.dir, extent)
                    .map_err(|error| self.poison_unless_full(error))?
            }
        };
        let previous = hold(&self.active).base;
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
        drop(spares);
        let path = opened.path.clone();
        let active = Arc::new(Active::new(base, opened));
        *hold(&self.active) = Arc::clone(&active);
        hold(&self.catalog).push(Segment::new(base, path));
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
