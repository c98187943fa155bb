//! Real nodes under load: killed, paused, handed over, and compared with what they acknowledged.
//!
//! Clusters of two or three `holdfast up` on loopback under `sync:1`. Clients write through the nodes' store
//! sockets and note what they were told; a seed chooses what goes wrong and when. After each round every
//! acknowledged write is read from every node, and the histories must have one order in time. The same seed
//! makes the same choices; where in the program a kill lands depends on the machine.

use std::{io, path::Path, process::ExitCode, sync::Arc};

use world::{Disk, Random, RealDisk, RealRandom};

use crate::crash::{self, breach::Fault, dice::Dice, process::Product};

mod clients;
mod disks;
mod etcd;
mod faults;
mod history;
mod judge;
mod linear;
mod logs;
mod network;
mod nodes;
mod outages;
mod rounds;
mod rows;
mod tally;
#[cfg(test)]
mod tests;

use network::Network;
use nodes::{Cluster, Wanted};
use rounds::{Nemesis, Round};
use tally::Tally;

/// Rounds on one cluster: then its logs are compared, and another one is made.
const ROUNDS_MAX: u32 = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many times the node that writes is killed under load
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Makes the choices of an earlier run again; the moments only as exactly as this machine keeps time
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many nodes there are
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
    /// What goes wrong
    #[arg(
        long,
        value_name = "FAULT",
        value_enum,
        value_delimiter = ',',
        default_value = "kill"
    )]
    faults: Vec<Nemesis>,
    /// Who says which node writes, instead of orders: an etcd of the run's own
    #[arg(long, value_enum)]
    coordinator: Option<Coordinator>,
    /// The `holdfast` to run [default: built now, in the profile of this program]
    #[arg(long, value_name = "PATH")]
    binary: Option<std::path::PathBuf>,
    /// Leave the directories in place; after a finding they are left in any case
    #[arg(long)]
    keep: bool,
}

/// What nodes can have as a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Coordinator {
    /// From PATH
    Etcd,
}

/// Runs with what the command line asks for. Exit code 1 for a finding.
pub(crate) fn run(root: &Path, options: &Options) -> io::Result<ExitCode> {
    options.are_possible()?;
    if options.faults.contains(&Nemesis::FullDisk)
        && disks::is_possible()
        && let Some(exit) = disks::with_own_mounts()?
    {
        return Ok(exit);
    }
    let seed = match options.seed {
        Some(seed) => seed,
        None => RealRandom.number()?,
    };
    println!(
        "seed {seed}, {} kills, {} nodes",
        options.kills, options.nodes
    );
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => crash::build(root)?,
    };
    let mut sandbox = tempfile::Builder::new()
        .prefix("holdfast-cluster-")
        .tempdir()?;
    sandbox.disable_cleanup(options.keep);
    let product = crash::install(&binary, sandbox.path())?;
    let etcd = match options.coordinator {
        Some(Coordinator::Etcd) => Some(etcd::program(&product)?),
        None => None,
    };
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&product.stop))?;
    }
    let mut campaign = Campaign {
        product: &product,
        seed,
        kills: options.kills,
        nodes: options.nodes.into(),
        faults: options.faults.clone(),
        coordinator: etcd.as_ref(),
        keeps: options.keep,
        shows_progress: true,
        tally: Tally::default(),
    };
    campaign.skip_what_cannot_be();
    let result = campaign.run();
    let ending = match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Fault::World(error)) => Err(error),
        Err(Fault::Stopped) => Err(io::Error::other("stopped before its last kill")),
        Err(Fault::Breach(breach)) => {
            sandbox.disable_cleanup(true);
            println!(
                "{breach}\n  in round {} of seed {seed}",
                campaign.tally.rounds
            );
            println!("  kept: {}", sandbox.path().display());
            println!("  again: {}", options.again(seed));
            Ok(ExitCode::from(1))
        }
    };
    print!("{}", campaign.tally);
    if options.keep {
        println!("kept: {}", sandbox.path().display());
    }
    ending
}

impl Options {
    fn are_possible(&self) -> io::Result<()> {
        let is_alone = self.coordinator.is_none();
        match self.faults.iter().find(|it| it.is_of_coordinator()) {
            Some(fault) if is_alone => Err(io::Error::other(format!(
                "{} goes wrong with a coordinator: add --coordinator etcd",
                fault.name()
            ))),
            _ => Ok(()),
        }
    }

    /// The command that makes the same choices.
    fn again(&self, seed: u64) -> String {
        let faults: Vec<String> = self.faults.iter().map(|it| it.name()).collect();
        let coordinator = match self.coordinator {
            Some(Coordinator::Etcd) => " --coordinator etcd",
            None => "",
        };
        format!(
            "cargo proof cluster --seed {seed} --kills {} --nodes {} --faults {}{coordinator}",
            self.kills,
            self.nodes,
            faults.join(",")
        )
    }
}

struct Campaign<'p> {
    product: &'p Product,
    seed: u64,
    kills: u32,
    nodes: usize,
    faults: Vec<Nemesis>,
    /// The etcd to be run, if nodes are to have one.
    coordinator: Option<&'p Product>,
    /// What a cluster leaves stays where it is.
    keeps: bool,
    shows_progress: bool,
    tally: Tally,
}

impl Campaign<'_> {
    /// Until there were enough kills, and at least a round of each fault.
    fn run(&mut self) -> Result<(), Fault> {
        let mut number = 0;
        while !self.is_done() {
            number += 1;
            let dir = self.product.sandbox.join(format!("cluster-{number}"));
            let wanted = Wanted {
                nodes: self.nodes,
                coordinator: self.coordinator,
                network: self.faults.iter().any(|it| it.needs_network()),
                small_disk: self.faults.contains(&Nemesis::FullDisk),
            };
            let mut cluster = Cluster::make(self.product, &dir, wanted)?;
            self.rounds(&mut cluster)?;
            drop(cluster);
            if !self.keeps {
                RealDisk.remove_dir_all(&dir)?;
            }
        }
        Ok(())
    }

    /// Leaves out, and says so, what this process may not do.
    fn skip_what_cannot_be(&mut self) {
        let tally = &mut self.tally;
        self.faults.retain(|nemesis| {
            let (may, why) = match nemesis {
                Nemesis::SlowLink => (
                    Network::is_possible() && Network::may_be_slow(),
                    "it needs root, `ip`, `tc` and a kernel with tbf",
                ),
                _ if nemesis.needs_network() => (Network::is_possible(), "it needs root and `ip`"),
                Nemesis::FullDisk => (disks::is_possible(), "it needs root to mount a disk"),
                _ => (true, ""),
            };
            if !may {
                tally.skipped.push(format!("{nemesis:?}: {why}"));
            }
            may
        });
    }

    fn is_done(&self) -> bool {
        let wants_kills = self.faults.contains(&Nemesis::Kill);
        let rounds_min = u32::try_from(self.faults.len()).unwrap_or(u32::MAX);
        let wanted = if wants_kills { 0 } else { self.kills };
        (!wants_kills || self.tally.kills >= self.kills)
            && self.tally.rounds >= wanted.max(rounds_min)
    }

    fn rounds(&mut self, cluster: &mut Cluster<'_>) -> Result<(), Fault> {
        let mut acknowledged = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if self.is_done() {
                break;
            }
            self.tally.rounds += 1;
            let number = self.tally.rounds;
            let mut dice = Dice::of_round(self.seed, number.into());
            // In turn at first, so that a short run has all of them.
            let turn = usize::try_from(number - 1).expect("rounds are few");
            let nemesis = match self.faults.get(turn) {
                Some(nemesis) => *nemesis,
                None => *dice.pick(&self.faults).unwrap_or(&Nemesis::Kill),
            };
            let mut round = Round {
                cluster,
                dice,
                tally: &mut self.tally,
                number,
                acknowledged: &mut acknowledged,
                barred: Vec::new(),
            };
            round.run(nemesis)?;
            if self.shows_progress {
                println!(
                    "round {number}, {nemesis:?}: {} kills, {} acknowledged",
                    self.tally.kills, self.tally.judged.acknowledged
                );
            }
        }
        // Before the nodes, so that nobody takes over from those that are stopped.
        drop(cluster.coordinator.take());
        for node in 0..cluster.nodes.len() {
            cluster.stop(node)?;
        }
        self.tally.records_compared += logs::compare(cluster, &acknowledged)?;
        Ok(())
    }
}
