//! One product on one machine: processes are run under the library, and the machine goes on to
//! where each of them is taken to have ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use world::{Disk, RealDisk};

use super::{
    log::{Log, What},
    machine::{End, Machine},
    place::{self, Met, Place, Places},
};
use crate::crash::{
    breach::Fault,
    dice::Dice,
    process::{Ended, Product},
};

/// How long a sync takes at most. Long enough that others come meanwhile, short enough for many.
const SYNC_MICROS: [u64; 3] = [0, 200, 1000];

/// Calls after a rare one, and after a sync that is missing, within which the machine ends. What
/// rests on a sync may come some calls later.
const REACH: u64 = 6;
const REACH_MISSING: u64 = 60;

/// Calls after the first change of a name: within them a directory is made, or opened again.
const REACH_FIRST: u64 = 12;

/// Moments tried in one process whose sync is missing.
const MOMENTS: u64 = 4;

/// The product and the library it is run under.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) product: Product,
    pub(super) library: PathBuf,
}

/// Sizes that make the product roll, flush, compact and release within a short run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    segment: u64,
    memtable: u64,
    checkpoint: u64,
    feed: u64,
}

/// `None`: as shipped.
const SIZES: [Option<Sizes>; 4] = [
    None,
    Some(Sizes {
        segment: 16 << 10,
        memtable: 8 << 10,
        checkpoint: 24 << 10,
        feed: 16 << 10,
    }),
    Some(Sizes {
        segment: 32 << 10,
        memtable: 4 << 10,
        checkpoint: 8 << 10,
        feed: 1 << 10,
    }),
    Some(Sizes {
        segment: 8 << 10,
        memtable: 64 << 10,
        checkpoint: 64 << 10,
        feed: 8 << 10,
    }),
];

/// A call that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    /// Counted from 1 over all calls that a fault can hit.
    pub(super) nth: u64,
    /// 0 for half a write.
    pub(super) errno: i32,
    /// Later calls that need space fail too.
    pub(super) sticky: bool,
}

/// Which mode the journals are opened in. It may change at any start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Ordinary,
    Strict,
    /// Strict in every other process.
    Changing,
}

const MODES: [Mode; 3] = [Mode::Ordinary, Mode::Strict, Mode::Changing];

/// A machine and what was asked of it so far.
#[derive(Debug)]
pub(super) struct Bench<'k> {
    kit: &'k Kit,
    dir: TempDir,
    machine: Machine,
    sizes: Option<Sizes>,
    mode: Mode,
    sync_micros: u64,
    swallowed: BTreeSet<Place>,
    pub(super) places: BTreeMap<Place, Met>,
    processes: u64,
}

impl<'k> Bench<'k> {
    pub(super) fn new(
        kit: &'k Kit,
        dice: &mut Dice,
        swallowed: &BTreeSet<Place>,
    ) -> io::Result<Self> {
        let prefix = "run-";
        let dir = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&kit.product.sandbox)?;
        let machine = Machine::new(&dir.path().join("disk"))?;
        // Most runs are small: in the others little happens beside the first segment.
        let sizes = dice.pick(&SIZES).copied().unwrap_or(None);
        Ok(Self {
            kit,
            machine,
            dir,
            sizes,
            mode: dice.pick(&MODES).copied().unwrap_or(Mode::Ordinary),
            sync_micros: dice.pick(&SYNC_MICROS).copied().unwrap_or(0),
            swallowed: swallowed.clone(),
            places: BTreeMap::new(),
            processes: 0,
        })
    }

    /// Whether a sync is missing on purpose.
    pub(super) fn is_handicapped(&self) -> bool {
        !self.swallowed.is_empty()
    }

    pub(super) const fn product(&self) -> &Product {
        &self.kit.product
    }

    /// Where the product keeps its data.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("disk").join("data")
    }

    /// Leaves the directory in place.
    pub(super) fn keep(mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }

    /// Writes a file for the product, beside its disk.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<String> {
        let path = self.dir.path().join(name);
        RealDisk.replace(&path, bytes)?;
        Ok(path.display().to_string())
    }

    /// Runs a command to its end under the library. What it did is not on the machine's disk until
    /// [`Bench::ends`] says how much of it was done.
    pub(super) fn run(
        &mut self,
        words: &[&str],
        fault: Option<Planned>,
    ) -> Result<(Ended, Log), Fault> {
        self.run_with(words, fault, None)
    }

    /// Like [`Bench::run`], with a file as standard input.
    pub(super) fn run_with(
        &mut self,
        words: &[&str],
        fault: Option<Planned>,
        input: Option<&Path>,
    ) -> Result<(Ended, Log), Fault> {
        self.processes += 1;
        let log = self.dir.path().join(format!("log-{}", self.processes));
        let root = self.dir.path().join("disk");
        let mut environment = self.environment();
        environment.extend([
            ("LD_PRELOAD", self.kit.library.clone().into()),
            ("POWER_ROOT", root.clone().into()),
            ("POWER_LOG", log.clone().into()),
            ("POWER_SYNC_MICROS", self.sync_micros.to_string().into()),
        ]);
        if let Some(Planned { nth, errno, sticky }) = fault {
            let text = format!("{nth} {errno} {}", u8::from(sticky));
            environment.push(("POWER_FAULT", text.into()));
        }
        let started = self
            .kit
            .product
            .start_with(&self.data(), words, &environment, input)?;
        let ended = started.end()?;
        if ended.stderr.contains("power: cannot see") {
            return Err(io::Error::other(ended.stderr).into());
        }
        ended.is_orderly()?;
        let log = Log::read(&log, &root)?;
        self.machine.has_seen_all(&log)?;
        for (place, met) in place::survey(&log.entries) {
            self.places.entry(place).or_default().add(met);
        }
        Ok((ended, log))
    }

    /// Runs a command on what is laid out, unseen: the machine must not go on afterwards.
    pub(super) fn ask(&self, words: &[&str]) -> Result<Ended, Fault> {
        let product = &self.kit.product;
        let ended = product
            .start_with(&self.data(), words, &self.environment(), None)?
            .end()?;
        ended.is_orderly()?;
        Ok(ended)
    }

    /// How many of the processes so far were in strict mode.
    pub(super) const fn strict_processes(&self) -> u64 {
        match self.mode {
            Mode::Ordinary => 0,
            Mode::Strict => self.processes,
            Mode::Changing => self.processes / 2,
        }
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let is_strict = match self.mode {
            Mode::Ordinary => false,
            Mode::Strict => true,
            Mode::Changing => self.processes.is_multiple_of(2),
        };
        let mode = ("HOLDFAST_JOURNAL_STRICT", is_strict.to_string().into());
        let Some(sizes) = self.sizes else {
            return vec![mode];
        };
        let Sizes {
            segment,
            memtable,
            checkpoint,
            feed,
        } = sizes;
        let text = format!("{segment},{memtable},{checkpoint},{feed}");
        vec![mode, ("HOLDFAST_PROOF_SIZES", text.into())]
    }

    /// Where to cut: anywhere, but more often close after what happens rarely, and after a sync that
    /// was swallowed.
    pub(super) fn cut(&self, log: &Log, dice: &mut Dice) -> usize {
        let len = log.entries.len();
        let is_rare = |at: &usize| {
            let what = &log.entries[*at].what;
            matches!(
                what,
                What::Rename { .. } | What::Unlink(_) | What::MakeDir(_) | What::SyncDir { .. }
            )
        };
        let rare: Vec<usize> = (0..len).filter(is_rare).collect();
        let missing = self.missing(log);
        let is_unmet = self.is_handicapped() && missing.is_empty();
        let (near, reach) = match dice.below(8) {
            // A sync after a mere death is met in the process after this one, if this one dies
            // between the change of a name and its sync.
            0..4 if is_unmet => (rare.first(), REACH_FIRST),
            0..3 if !missing.is_empty() => (dice.pick(&missing), REACH_MISSING),
            1..5 => (dice.pick(&rare), REACH),
            5 => (rare.first(), REACH_FIRST),
            _ => (None, 0),
        };
        let (from, bound) = near.map_or((0, len as u64 + 1), |near| (*near, reach));
        let after = usize::try_from(dice.below(bound)).expect("less than a length");
        (from + after).min(len)
    }

    /// One that flushes, rolls and merges in every process, with nothing on its disk.
    pub(super) fn busy(kit: &'k Kit, dice: &mut Dice) -> io::Result<Self> {
        let mut bench = Self::new(kit, dice, &BTreeSet::new())?;
        bench.sizes = SIZES[1];
        bench.sync_micros = 0;
        Ok(bench)
    }

    /// Another machine, on which the process of this log ended where `end` says.
    pub(super) fn fork(&self, log: &Log, end: End) -> io::Result<Self> {
        self.beside(|root| self.machine.after(root, log, end, &self.swallowed))
    }

    /// Another machine with the same on its disk.
    pub(super) fn copy(&self) -> io::Result<Self> {
        self.beside(|root| self.machine.fork(root))
    }

    fn beside(&self, machine: impl FnOnce(&Path) -> io::Result<Machine>) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fork-")
            .tempdir_in(&self.kit.product.sandbox)?;
        Ok(Self {
            kit: self.kit,
            machine: machine(&dir.path().join("disk"))?,
            dir,
            sizes: self.sizes,
            mode: self.mode,
            sync_micros: self.sync_micros,
            swallowed: self.swallowed.clone(),
            places: BTreeMap::new(),
            processes: self.processes,
        })
    }

    /// Some moments at which a sync that was swallowed could be missed.
    pub(super) fn moments(&self, log: &Log, dice: &mut Dice) -> Vec<usize> {
        let missing = self.missing(log);
        let len = log.entries.len();
        let moment = |_| {
            let from = *dice.pick(&missing)?;
            let reach = if dice.one_in(2) { REACH } else { REACH_MISSING };
            let after = usize::try_from(dice.below(reach)).expect("less than a length");
            Some((from + after).min(len))
        };
        (0..MOMENTS).filter_map(moment).collect()
    }

    fn missing(&self, log: &Log) -> Vec<usize> {
        if self.swallowed.is_empty() {
            return Vec::new();
        }
        let mut places = Places::default();
        let mut is_missing = |at: &usize| {
            let place = places.next(&log.entries[*at].what);
            place.is_some_and(|(_, place)| self.swallowed.contains(&place))
        };
        (0..log.entries.len()).filter(|at| is_missing(at)).collect()
    }

    /// Ends the process of this log where `end` says.
    pub(super) fn ends(&mut self, log: &Log, end: End) -> io::Result<()> {
        let root = self.dir.path().join("disk");
        self.machine = self.machine.after(&root, log, end, &self.swallowed)?;
        Ok(())
    }
}

/// For messages about a directory that is kept.
pub(super) fn kept(dir: &Path) -> String {
    format!("kept: {}", dir.display())
}
