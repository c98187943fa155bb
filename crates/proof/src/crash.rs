//! Kills the real binary and compares what is there afterwards with what it acknowledged.
//!
//! SIGKILL only, at moments that a seed chooses: during the first start, during recovery, under a
//! writing load, during scans. The page cache survives it, so a missing sync cannot be seen here.
//! The same seed makes the same choices; where in the program a kill lands depends on the machine,
//! so a run that found something may have to be repeated before it finds it again.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use tempfile::TempDir;
use world::{Random, RealClock, RealRandom};

pub(crate) mod acks;
pub(crate) mod breach;
pub(crate) mod bundle;
pub(crate) mod dice;
mod fleet;
mod load;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod scans;
mod site;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

use breach::Fault;
use dice::Dice;
use fleet::FleetSite;
use load::LoadSite;
use process::Product;
use scans::{ScanSite, Source, Undisturbed};
use tally::Tally;

/// Rounds a wanted kill may take before a run gives up: kills that come too late do not count, and
/// a machine on which hardly any comes in time proves nothing.
const ROUNDS_PER_KILL_MAX: u64 = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many kills must find their process alive
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    kills: u64,
    /// Makes the choices of an earlier run again; the moments of kills only as exactly as this machine keeps time
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The `holdfast` to kill [default: built now, in the profile of this program]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Kill nothing but `up` over a fleet
    #[arg(long)]
    fleet: bool,
    /// Leave the directories in place; after a finding they are left in any case
    #[arg(long)]
    keep: bool,
}

/// One run: a product in a sandbox, and everything it was made to say.
#[derive(Debug)]
struct Campaign {
    product: Product,
    seed: u64,
    tally: Tally,
    only_fleet: bool,
}

/// What the next round kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Load,
    Check,
    Scan(Source),
    Fleet,
}

/// Runs with what the command line asks for. Exit code 1 for a finding.
pub(crate) fn run(root: &Path, options: &Options) -> io::Result<ExitCode> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => RealRandom.number()?,
    };
    println!("seed {seed}, {} kills", options.kills);
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(root)?,
    };
    let mut sandbox = sandbox()?;
    sandbox.disable_cleanup(options.keep);
    let product = install(&binary, sandbox.path())?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&product.stop))?;
    }
    let mut campaign = Campaign::new(product, seed, Tally::new(options.kills, true));
    campaign.only_fleet = options.fleet;
    let result = campaign.run();
    campaign.tally.clear();
    let ending = match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Fault::World(error)) => Err(error),
        Err(Fault::Stopped) => Err(io::Error::other("stopped before its last kill")),
        Err(Fault::Breach(breach)) => {
            sandbox.disable_cleanup(true);
            let (kills, path) = (options.kills, sandbox.path().display());
            println!(
                "{breach}\n  in round {} of seed {seed}",
                campaign.tally.rounds
            );
            println!("  kept: {path}");
            let fleet = if options.fleet { " --fleet" } else { "" };
            println!("  again: cargo proof crash --seed {seed} --kills {kills}{fleet}");
            Ok(ExitCode::from(1))
        }
    };
    print!("{}", campaign.tally);
    if options.keep {
        println!("kept: {}", sandbox.path().display());
    }
    ending
}

impl Campaign {
    fn new(product: Product, seed: u64, tally: Tally) -> Self {
        Self {
            product,
            seed,
            tally,
            only_fleet: false,
        }
    }

    fn run(&mut self) -> Result<(), Fault> {
        // Round 0 chooses what all rounds share.
        let mut dice = Dice::of_round(self.seed, 0);
        let (product, tally) = (&self.product, &mut self.tally);
        let mut undisturbed = Undisturbed::new(product, &mut dice)?;
        let mut load = LoadSite::new(product, 0, &mut dice);
        let mut scans = ScanSite::new(product, 0, &mut dice);
        let mut fleet = FleetSite::new(product, 0);
        let rounds_max = tally.kills_wanted().saturating_mul(ROUNDS_PER_KILL_MAX);
        while !tally.is_done() {
            tally.rounds += 1;
            if tally.rounds > rounds_max {
                let words = format!("{} of {rounds_max} kills came too late", tally.late);
                return Err(io::Error::other(words).into());
            }
            let round = tally.rounds;
            let mut dice = Dice::of_round(self.seed, round);
            let turn = match self.only_fleet {
                true => Turn::Fleet,
                false => turn(&mut dice, undisturbed.bundles()),
            };
            match turn {
                Turn::Load => load.run(product, &mut dice, tally)?,
                Turn::Check => load.kill_check(product, &mut dice, tally)?,
                Turn::Fleet => fleet.round(product, &mut dice, tally)?,
                Turn::Scan(source) => {
                    scans.round(product, &mut undisturbed, source, &mut dice, tally)?;
                }
            }
            // Not after every kill: recovery is to be killed before anybody has looked.
            if dice.one_in(3) {
                load.check(product, tally)?;
            }
            if load.is_worn() {
                let next = LoadSite::new(product, round, &mut dice);
                std::mem::replace(&mut load, next).close(product, tally)?;
            }
            if fleet.is_worn() {
                let next = FleetSite::new(product, round);
                std::mem::replace(&mut fleet, next).close(tally)?;
            }
            if scans.is_worn() {
                let next = ScanSite::new(product, round, &mut dice);
                std::mem::replace(&mut scans, next).close(product, &mut dice, tally)?;
            }
        }
        fleet.close(tally)?;
        load.close(product, tally)?;
        scans.close(product, &mut dice, tally)
    }
}

/// Machine scans are few: they take seconds, and write no more than those of facts.
fn turn(dice: &mut Dice, bundles: usize) -> Turn {
    match dice.below(100) {
        0..50 => Turn::Load,
        50..56 => Turn::Check,
        56..60 => Turn::Scan(Source::Machine),
        60..63 => Turn::Fleet,
        _ => {
            let bundle = dice.below(bundles as u64);
            let bundle = usize::try_from(bundle).expect("less than a length");
            Turn::Scan(Source::Bundle(bundle))
        }
    }
}

fn sandbox() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("holdfast-crash-").tempdir()
}

/// Copies the binary into the sandbox, so that a build in the meantime does not change what a run
/// is about.
#[allow(
    clippy::disallowed_methods,
    reason = "a copy nobody needs after this run"
)]
pub(crate) fn install(binary: &Path, sandbox: &Path) -> io::Result<Product> {
    let copy = sandbox.join("holdfast");
    std::fs::copy(binary, &copy)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", binary.display())))?;
    Ok(Product {
        binary: copy,
        sandbox: sandbox.to_owned(),
        clock: RealClock::new(),
        answer_wait_max: process::ANSWER_WAIT_MAX,
        stop: Arc::new(AtomicBool::new(false)),
    })
}

/// Where cargo puts the product: beside this program, or beside the directory of its tests.
pub(crate) fn built_at() -> io::Result<PathBuf> {
    let this = env::current_exe()?;
    let dir = this.parent().unwrap_or(Path::new("/"));
    let dir = match dir.parent() {
        Some(above) if dir.ends_with("deps") => above,
        _ => dir,
    };
    Ok(dir.join("holdfast"))
}

/// Builds the product in the profile of this program.
#[allow(
    clippy::disallowed_methods,
    reason = "this program exists to run others"
)]
pub(crate) fn build(root: &Path) -> io::Result<PathBuf> {
    let binary = built_at()?;
    let dir = binary.parent().and_then(Path::file_name);
    let profile = match dir.and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(name) => name,
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = std::process::Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--package", "app", "--bin", "holdfast"])
        .args(["--profile", profile])
        .status()?;
    if status.success() {
        return Ok(binary);
    }
    Err(io::Error::other(format!("building holdfast: {status}")))
}
