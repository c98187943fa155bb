//! One round: clients write, something goes wrong, and afterwards all of it is compared.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use world::Clock;

use super::{
    super::crash::{
        breach::{Breach, Fault},
        dice::Dice,
    },
    clients::Load,
    judge::{self, Copy},
    nodes::{Cluster, PATIENCE, POLL},
    tally::Tally,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Nemesis {
    /// SIGKILL for the node that writes; another one is promoted, or it is started again
    Kill,
    /// SIGSTOP for the node that writes; another one is promoted, and it goes on
    Pause,
    /// Nothing goes wrong: another node is to write
    Switchover,
    /// The node that writes, or another one, is cut off; of two sides one goes on
    Partition,
    /// The disk of a node that copies is full for a while
    FullDisk,
    /// An earlier copy of a node's directory is put back
    OldDisk,
    /// All that a node recorded is lost
    Wipe,
    /// Garbage on a node's port, and a node of another cluster
    Stranger,
}

/// Clients at once.
const CLIENTS: u16 = 12;

/// A node is killed this long after the first acknowledgement of a round.
const DELAY_MAX: Duration = Duration::from_millis(1500);

/// How long clients go on after all is well again.
const AFTERWARDS_MAX: Duration = Duration::from_millis(500);

/// How long a paused node stays so. Half of them longer than the silence after which others give it up.
const PAUSE_MAX: Duration = Duration::from_secs(6);

/// One round on a cluster that is in sync.
pub(super) struct Round<'c, 'p> {
    pub(super) cluster: &'c mut Cluster<'p>,
    pub(super) dice: Dice,
    pub(super) tally: &'c mut Tally,
    /// Names the rows of this round.
    pub(super) number: u32,
    /// Acknowledgements of all rounds on this cluster: position and node.
    pub(super) acknowledged: &'c mut Vec<(u64, usize)>,
}

impl Round<'_, '_> {
    pub(super) fn run(&mut self, nemesis: Nemesis) -> Result<(), Fault> {
        let clock = Arc::clone(&self.cluster.clock);
        let sockets = self.cluster.sockets();
        let load = Load::start(sockets, self.number, CLIENTS, &clock, &mut self.dice);
        let happened = self.happen(nemesis, &load);
        // Their threads end whatever became of it.
        let continued = (0..self.cluster.nodes.len())
            .try_for_each(|node| self.cluster.signal(node, Signal::CONT));
        let operations = load.stop();
        happened?;
        continued?;
        let highest = operations.iter().filter_map(|it| it.lsn()).max();
        let mut copies = Vec::new();
        for node in 0..self.cluster.nodes.len() {
            let asked = clock.monotonic();
            let rows = self
                .cluster
                .read(node, self.number, highest.unwrap_or_default())?;
            copies.push(Copy {
                node,
                asked,
                answered: clock.monotonic(),
                rows,
            });
        }
        self.tally.add(judge::judge(&operations, &copies)?);
        let told = operations
            .iter()
            .filter_map(|it| Some((it.lsn()?, it.node)));
        self.acknowledged.extend(told);
        Ok(())
    }

    fn happen(&mut self, nemesis: Nemesis, load: &Load) -> Result<(), Fault> {
        self.wait(load, "a write is acknowledged", |load| {
            load.acknowledged() > 0
        })?;
        let delay = self.dice.between(Duration::ZERO, DELAY_MAX);
        self.cluster.clock.sleep(delay);
        let Some(writes) = self.cluster.primary() else {
            let words = self.cluster.words();
            return Err(Breach::new("somebody writes", "-", words).into());
        };
        match nemesis {
            Nemesis::Kill => self.kill(writes, load)?,
            Nemesis::Pause => self.pause(writes, load)?,
            Nemesis::Switchover => self.switch_over(writes, load)?,
            Nemesis::Partition => self.cut_off(writes, load)?,
            Nemesis::FullDisk => self.fill_disk(load)?,
            Nemesis::OldDisk => self.put_back(writes, false, load)?,
            Nemesis::Wipe => self.put_back(writes, true, load)?,
            Nemesis::Stranger => self.let_strangers_in(writes, load)?,
        }
        let took = self.cluster.wait_in_sync()?;
        self.tally.rejoin.note(took);
        let more = self.dice.between(Duration::ZERO, AFTERWARDS_MAX);
        self.cluster.clock.sleep(more);
        self.cluster.all_live()
    }

    fn kill(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        match self.dice.below(10) {
            0 => {
                let other = self.other(writes);
                self.cluster.kill(other)?;
                self.tally.replica_kills += 1;
                let rest = self.dice.between(Duration::ZERO, DELAY_MAX);
                self.cluster.clock.sleep(rest);
                self.cluster.start(other)
            }
            1 => {
                // Nobody is promoted: it goes on where it was.
                load.forget_firsts();
                let at = self.cluster.kill(writes)?;
                load.forget_firsts();
                self.tally.kills += 1;
                self.cluster.start(writes)?;
                let first = self.first_of(load, &[writes])?;
                self.tally.restart.note(first.saturating_sub(at));
                Ok(())
            }
            2 | 3 => self.kill_twice(writes, load),
            _ => {
                let at = self.cluster.kill(writes)?;
                load.forget_firsts();
                self.tally.kills += 1;
                self.fail_over(writes, at, load)?;
                let rest = self.dice.between(Duration::ZERO, DELAY_MAX);
                self.cluster.clock.sleep(rest);
                if self.cluster.nodes[writes].up.is_none() {
                    self.cluster.start(writes)?;
                }
                Ok(())
            }
        }
    }

    /// The one that was promoted is killed as well, soon: before it writes, or just after.
    fn kill_twice(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        self.cluster.kill(writes)?;
        self.tally.kills += 1;
        let promoted = self.promote(writes)?;
        // Another promotion needs a majority.
        self.cluster.start(writes)?;
        let soon = self
            .dice
            .between(Duration::ZERO, Duration::from_millis(400));
        self.cluster.clock.sleep(soon);
        let at = self.cluster.kill(promoted)?;
        load.forget_firsts();
        self.tally.kills += 1;
        self.fail_over(promoted, at, load)?;
        if self.cluster.nodes[promoted].up.is_none() {
            self.cluster.start(promoted)?;
        }
        Ok(())
    }

    /// Another one is promoted at once, and acknowledges.
    fn fail_over(&mut self, killed: usize, at: Duration, load: &Load) -> Result<(), Fault> {
        let promoted = self.promote(killed)?;
        if self.cluster.nodes.len() == 2 {
            // With nobody to copy to, nothing is acknowledged.
            self.cluster.start(killed)?;
        }
        let first = self.first_of(load, &[promoted])?;
        self.tally.failover.note(first.saturating_sub(at));
        Ok(())
    }

    /// Orders another one to write. Which, by the dice; where that one is told that it has less, another.
    pub(super) fn promote(&mut self, killed: usize) -> Result<usize, Fault> {
        let begun = self.cluster.clock.monotonic();
        let mut candidate = self.other(killed);
        loop {
            let ended = self.cluster.try_run(candidate, &["promote"])?;
            if ended.code() == Some(0) {
                self.tally.promotions += 1;
                return Ok(candidate);
            }
            self.tally.denials += 1;
            if self.cluster.clock.monotonic() - begun > PATIENCE {
                let promise = "one of the nodes that are left can be promoted";
                let found = format!("{}{}", ended.stderr.trim(), self.cluster.words());
                return Err(Breach::new(promise, "-", found).into());
            }
            self.cluster.all_live()?;
            let candidates: Vec<usize> = (0..self.cluster.nodes.len())
                .filter(|node| *node != killed && *node != candidate)
                .filter(|node| self.cluster.nodes[*node].up.is_some())
                .collect();
            candidate = self.dice.pick(&candidates).copied().unwrap_or(candidate);
        }
    }

    fn pause(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        self.cluster.signal(writes, Signal::STOP)?;
        let at = self.cluster.clock.monotonic();
        self.tally.pauses += 1;
        load.give_up_on(writes);
        load.forget_firsts();
        let promoted = self.promote(writes)?;
        if self.cluster.nodes.len() > 2 {
            self.first_of(load, &[promoted])?;
        }
        let lasts = self.dice.between(Duration::ZERO, PAUSE_MAX);
        let passed = self.cluster.clock.monotonic() - at;
        self.cluster.clock.sleep(lasts.saturating_sub(passed));
        self.cluster.signal(writes, Signal::CONT)?;
        self.first_of(load, &[promoted]).map(drop)
    }

    fn switch_over(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        let other = self.other(writes);
        self.switch_over_to(writes, other, load)
    }

    pub(super) fn switch_over_to(
        &mut self,
        writes: usize,
        other: usize,
        load: &Load,
    ) -> Result<(), Fault> {
        let name = self.cluster.nodes[other].name;
        load.forget_firsts();
        let at = self.cluster.clock.monotonic();
        self.cluster.run(writes, &["switchover", name])?;
        self.tally.switchovers += 1;
        let first = self.first_of(load, &[other])?;
        self.tally.switchover.note(first.saturating_sub(at));
        Ok(())
    }

    /// One that runs and is another one.
    pub(super) fn other(&mut self, than: usize) -> usize {
        let others: Vec<usize> = (0..self.cluster.nodes.len())
            .filter(|node| *node != than && self.cluster.nodes[*node].up.is_some())
            .collect();
        self.dice.pick(&others).copied().unwrap_or(than)
    }

    /// Waits for the first acknowledgement of one of `nodes` since all were forgotten.
    pub(super) fn first_of(&mut self, load: &Load, nodes: &[usize]) -> Result<Duration, Fault> {
        let first = || nodes.iter().filter_map(|node| load.first(*node)).min();
        self.wait(load, "a node that was promoted acknowledges", |_| {
            first().is_some()
        })?;
        Ok(first().expect("it was waited for"))
    }

    fn wait(&mut self, load: &Load, what: &str, is: impl Fn(&Load) -> bool) -> Result<(), Fault> {
        let begun = self.cluster.clock.monotonic();
        while !is(load) {
            self.cluster.all_live()?;
            if self.cluster.clock.monotonic() - begun > PATIENCE {
                let limit = format!("within {} s", PATIENCE.as_secs());
                return Err(Breach::new(what, limit, self.cluster.words()).into());
            }
            self.cluster.clock.sleep(POLL);
        }
        Ok(())
    }
}
