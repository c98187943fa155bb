//! Takes the power from under the real binary and compares what is there afterwards with what it
//! acknowledged.
//!
//! The shipped binary runs unchanged; a preloaded library (`power/interpose.c`) sees every call that
//! changes a file, the table library's included. From what it saw, the files are rebuilt as they
//! could be found after a loss of power at a chosen moment: of what was not synced each sector and
//! each name may be there or not. The binary is started again on that, and again after the next
//! loss, in the middle of its recovery. The same seed makes the same choices; how threads take turns
//! is the machine's, so a run that found something may have to be repeated before it finds it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tempfile::TempDir;
use world::{Clock, Random, RealClock, RealRandom};

use crate::crash::{self, breach::Fault, dice::Dice};

mod bench;
mod events;
mod faults;
mod history;
mod library;
mod log;
mod machine;
mod place;
mod rot;
mod sharp;
#[cfg(test)]
mod tests;

use bench::{Bench, Kit};
use history::{Counts, History};
use place::{Met, Place};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many machines lose their power, each up to a few times
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// The first run's seed; the others count on from it [default: chosen now]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Runs at the same time [default: as many as processors]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// The `holdfast` to run [default: built now, in the profile of this program]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Syncs that are taken for never made, by their place as `--places` prints it
    #[arg(long, value_name = "PLACE")]
    swallow: Vec<String>,
    /// Take each sync away in turn, for up to `--runs` machines each, until that is found; only at places that contain PART
    #[arg(long, value_name = "PART", num_args = 0..=1, default_missing_value = "")]
    sharpness: Option<String>,
    /// Instead: let each call of a few processes fail in turn
    #[arg(long)]
    faults: bool,
    /// Print every place of a sync that was met
    #[arg(long)]
    places: bool,
}

/// What one run gave.
#[derive(Debug, Default)]
struct Outcome {
    counts: Counts,
    places: BTreeMap<Place, Met>,
    found: Option<Found>,
}

/// A promise that was not kept, and where to look at it.
#[derive(Debug)]
struct Found {
    seed: u64,
    words: String,
    dir: PathBuf,
}

impl Found {
    fn promise(&self) -> &str {
        self.words.lines().next().unwrap_or_default()
    }
}

pub(crate) fn run(root: &Path, options: &Options) -> io::Result<ExitCode> {
    let seed = match options.seed {
        Some(seed) => seed,
        // Small enough to be copied by hand.
        None => RealRandom.number()? >> 32,
    };
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => crash::build(root)?,
    };
    let mut sandbox = sandbox()?;
    let kit = kit(&binary, &sandbox)?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&kit.product.stop))?;
    }
    println!("seed {seed}, {} runs", options.runs);
    let swallowed = options.swallow.iter().map(|it| Place::named(it)).collect();
    let jobs = options.jobs.unwrap_or_else(processors);
    let clock = RealClock::new();
    if options.faults {
        return faults::run(&kit, seed, jobs);
    }
    if let Some(only) = &options.sharpness {
        return sharp::run(&kit, seed, options.runs, jobs, only);
    }
    let result = Campaign {
        kit: &kit,
        seed,
        runs: options.runs,
        jobs,
        swallowed,
    }
    .run();
    let took = clock.monotonic();
    let total = result?;
    if options.places {
        for (place, met) in &total.places {
            println!("{:>8}  {place}", met.times);
        }
    }
    print!("{}", total.counts);
    println!("{:<42}{:>14}", "seconds", took.as_secs());
    let Some(found) = total.found else {
        return Ok(ExitCode::SUCCESS);
    };
    sandbox.disable_cleanup(true);
    println!("{}", found.words);
    println!("  {}", bench::kept(&found.dir));
    println!("  again: cargo proof power --seed {} --runs 1", found.seed);
    Ok(ExitCode::from(1))
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn sandbox() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("holdfast-power-").tempdir()
}

fn kit(binary: &Path, sandbox: &TempDir) -> io::Result<Kit> {
    Ok(Kit {
        product: crash::install(binary, sandbox.path())?,
        library: library::compile(sandbox.path())?,
    })
}

/// Machines of consecutive seeds.
struct Campaign<'k> {
    kit: &'k Kit,
    seed: u64,
    runs: u64,
    jobs: usize,
    swallowed: BTreeSet<Place>,
}

impl Campaign<'_> {
    /// Until all are done or one found something.
    fn run(&self) -> io::Result<Outcome> {
        let next = AtomicU64::new(0);
        let total = Mutex::new(Outcome::default());
        let failure = Mutex::new(None);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.runs {
                    return;
                }
                let is_last = match once(self.kit, self.seed.wrapping_add(number), &self.swallowed)
                {
                    Ok(outcome) => {
                        let found = outcome.found.is_some();
                        locked(&total).add(outcome);
                        found
                    }
                    Err(error) => {
                        locked(&failure).get_or_insert(error);
                        true
                    }
                };
                if is_last {
                    next.store(self.runs, Ordering::Relaxed);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        match locked(&failure).take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut *locked(&total))),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One machine from its first start to its last comparison.
fn once(kit: &Kit, seed: u64, swallowed: &BTreeSet<Place>) -> io::Result<Outcome> {
    let mut dice = Dice::of_round(seed, 0);
    let mut bench = Bench::new(kit, &mut dice, swallowed)?;
    let mut history = match History::new(&bench, &mut dice) {
        Ok(history) => history,
        Err(fault) => return Err(in_words(fault)),
    };
    let result = history.run(&mut bench, &mut dice);
    let counts = history.counts;
    let places = std::mem::take(&mut bench.places);
    let found = match result {
        Ok(()) => None,
        Err(Fault::Breach(breach)) => Some(Found {
            seed,
            words: format!("{breach}\n  in the run of seed {seed}"),
            dir: bench.keep(),
        }),
        Err(fault) => {
            let error = in_words(fault);
            let words = format!(
                "run of seed {seed}: {error}\n  {}",
                bench::kept(&bench.keep())
            );
            return Err(io::Error::new(error.kind(), words));
        }
    };
    Ok(Outcome {
        counts,
        places,
        found,
    })
}

fn in_words(fault: Fault) -> io::Error {
    match fault {
        Fault::World(error) => error,
        Fault::Stopped => io::Error::other("stopped before its last run"),
        Fault::Breach(breach) => io::Error::other(breach.to_string()),
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.counts.add(other.counts);
        for (place, met) in other.places {
            self.places.entry(place).or_default().add(met);
        }
        if self.found.is_none() {
            self.found = other.found;
        }
    }
}

impl Counts {
    const fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.processes += other.processes;
        self.calls += other.calls;
        self.losses += other.losses;
        self.deaths += other.deaths;
        self.records += other.records;
        self.scans += other.scans;
        self.events += other.events;
        self.checks += other.checks;
        self.rots += other.rots;
        self.refusals += other.refusals;
        self.strict += other.strict;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: u64| writeln!(f, "{name:<42}{value:>14}");
        row("machines", self.runs)?;
        row("processes whose every call was seen", self.processes)?;
        row("calls", self.calls)?;
        row("losses of power", self.losses)?;
        row("deaths of a process only", self.deaths)?;
        row("acknowledged records", self.records)?;
        row("acknowledged scans", self.scans)?;
        row("acknowledged events", self.events)?;
        row("comparisons with all that was told", self.checks)?;
        row("processes in strict mode", self.strict)?;
        row("segments with rotten bits", self.rots)?;
        row("of them refused; the others served all", self.refusals)
    }
}
