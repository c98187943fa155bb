//! Simulates clusters of nodes from seeds: everything that can go wrong goes wrong, and what was
//! promised is checked at each step.
//!
//! The nodes are the product's own state machines (`replica::machine`); clocks, disks, network,
//! clients and operators are made here, from the seed alone. The runs of a campaign are spread over
//! processes of this program, so that a machine that ends its process is told from one that is right.

use std::{io, path::Path, process::ExitCode};

mod agenda;
mod ambush;
mod breach;
mod campaign;
mod clients;
mod cluster;
mod derived;
mod disk;
mod effects;
mod ending;
mod judge;
mod log;
mod mutants;
mod nemesis;
mod net;
mod operator;
mod owner;
mod payload;
mod rivals;
mod site;
mod swarm;
mod tally;
#[cfg(test)]
mod tests;
mod trace;

use breach::Breach;
use cluster::Cluster;
use tally::Tally;
use trace::Trace;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The first run's seed; the others count on from it [default: chosen now]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Runs at the same time [default: as many as processors]
    #[arg(long, value_name = "N")]
    jobs: Option<u64>,
    /// Print every step of the first seed, and do no other
    #[arg(long)]
    trace: bool,
    /// Instead: build the product with each planted bug in turn, and see that it is found; only those whose name contains PART
    #[arg(long, value_name = "PART", num_args = 0..=1, default_missing_value = "")]
    mutants: Option<String>,
    /// Runs the seeds in this process and prints a line of JSON for each
    #[arg(long, hide = true)]
    worker: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> io::Result<ExitCode> {
    if let Some(only) = &options.mutants {
        return mutants::run(root, only);
    }
    if options.worker {
        return campaign::work(options.seed.unwrap_or_default(), options.seeds);
    }
    if options.trace {
        return Ok(traced(options.seed.unwrap_or_default()));
    }
    campaign::run(options.seed, options.seeds, options.jobs)
}

/// One seed, told step by step.
fn traced(seed: u64) -> ExitCode {
    println!("{}", swarm::Swarm::of(seed));
    let ended = once(seed, Trace::Print);
    print!("{}", ended.tally);
    match ended.breach {
        None => ExitCode::SUCCESS,
        Some(breach) => {
            println!("{breach}");
            ExitCode::from(1)
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) breach: Option<Breach>,
    pub(crate) tally: Tally,
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "two runs of a seed are compared by tests")
    )]
    pub(crate) hash: Option<u64>,
}

pub(crate) fn once(seed: u64, trace: Trace) -> Ended {
    let mut cluster = Cluster::new(seed, trace);
    let breach = cluster.run().err();
    cluster.tally.simulated = cluster.now;
    Ended {
        breach,
        hash: cluster.trace.hash(),
        tally: cluster.tally,
    }
}
