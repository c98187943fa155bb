//! One round: clients write, something goes wrong, and afterwards all of it is compared.

use std::{cell::Cell, sync::Arc, time::Duration};

use clap::ValueEnum as _;
use rustix::process::Signal;
use world::Clock;

use super::{
    super::crash::{
        breach::{Breach, Fault},
        dice::Dice,
    },
    clients::Load,
    judge::{self, Bar, Barred, Copy},
    nodes::{Cluster, PATIENCE, POLL},
    outages::Outage,
    tally::Tally,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Nemesis {
    /// SIGKILL for the node that writes; another one is promoted, or it is started again
    Kill,
    /// SIGSTOP for the node that writes; another one is promoted, and it goes on
    Pause,
    /// SIGSTOP for all nodes that copy, at times until those who wait for copies are refused
    ReplicaPause,
    /// Nothing goes wrong: another node is to write
    Switchover,
    /// The same while hardly anything is written
    IdleSwitchover,
    /// The node that writes, or another one, is cut off; of two sides one goes on
    Partition,
    /// What a node sends is lost, to all or to one of the others, and it hears them
    OneWay,
    /// A node's link carries little, and late
    SlowLink,
    /// The disk of a node that copies is full for a while
    FullDisk,
    /// An earlier copy of a node's directory is put back
    OldDisk,
    /// All that a node recorded is lost
    Wipe,
    /// Garbage on a node's port, and a node of another cluster
    Stranger,
    /// SIGKILL for the coordinator, which is started again; at times for the node that writes as well
    CoordinatorKill,
    /// SIGSTOP for the coordinator, which goes on; at times a kill of the node that writes
    CoordinatorPause,
    /// The node that writes does not reach the coordinator
    CoordinatorPartition,
}

impl Nemesis {
    /// As it is asked for.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(super) fn is_of_coordinator(self) -> bool {
        use Nemesis::{CoordinatorKill, CoordinatorPartition, CoordinatorPause};
        matches!(
            self,
            CoordinatorKill | CoordinatorPause | CoordinatorPartition
        )
    }

    /// Whether nodes need a network of the proof's own for it.
    pub(super) fn needs_network(self) -> bool {
        use Nemesis::{CoordinatorPartition, OneWay, Partition, SlowLink};
        matches!(self, Partition | OneWay | SlowLink | CoordinatorPartition)
    }
}

/// Clients at once.
const CLIENTS: u16 = 12;

/// A node is killed this long after the first acknowledgement of a round.
const DELAY_MAX: Duration = Duration::from_millis(1500);

/// How long clients go on after all is well again.
const AFTERWARDS_MAX: Duration = Duration::from_millis(500);

/// How long nobody copies, in one of two times: longer than the silence after which nodes are given up and the ten
/// seconds that a write waits for others.
const NO_COPIES_MIN: Duration = Duration::from_secs(14);
const NO_COPIES_MAX: Duration = Duration::from_secs(20);

/// How long nodes stand still before they are killed. Shorter than the silence after which they are given up.
const STILL_MAX: Duration = Duration::from_millis(1500);

/// How long a node is ordered to write that may be refused for good. Arbitrary: most are open within it.
const OPENS_MAX: Duration = Duration::from_secs(2);

/// How long a paused node stays so. Half of them longer than the silence after which others give it up.
const PAUSE_MAX: Duration = Duration::from_secs(6);

/// How long hardly anything was written when another node is to write: what was under way has long ended.
const IDLE_MIN: Duration = Duration::from_millis(300);
const IDLE_MAX: Duration = Duration::from_secs(2);

/// One round on a cluster that is in sync.
pub(super) struct Round<'c, 'p> {
    pub(super) cluster: &'c mut Cluster<'p>,
    pub(super) dice: Dice,
    pub(super) tally: &'c mut Tally,
    /// Names the rows of this round.
    pub(super) number: u32,
    /// Acknowledgements of all rounds on this cluster: position and node.
    pub(super) acknowledged: &'c mut Vec<(u64, usize)>,
    /// When nobody, or one node, could acknowledge rightly.
    pub(super) barred: Vec<Barred>,
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
        // What clients were told tells more than what a node did not come to after it.
        judge::nobody_barred_acknowledged(&operations, &self.barred)?;
        judge::positions_are_in_order(&operations)?;
        happened?;
        continued?;
        let highest = operations.iter().filter_map(|it| it.lsn()).max();
        let mut copies = Vec::new();
        // First of all who writes: that one waits for nobody to have what was acknowledged.
        let writes = self.cluster.primary();
        let mut nodes: Vec<usize> = (0..self.cluster.nodes.len()).collect();
        nodes.sort_by_key(|node| Some(*node) != writes);
        for node in nodes {
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
            if Some(node) == writes {
                // What it lacks the others wait for in vain.
                judge::judge(&operations, &copies)?;
            }
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
        let writes = self.writer()?;
        match nemesis {
            Nemesis::Kill => self.kill(writes, load)?,
            Nemesis::Pause => self.pause(writes, load)?,
            Nemesis::ReplicaPause => self.pause_replicas(writes, load)?,
            Nemesis::Switchover => self.switch_over(writes, load)?,
            Nemesis::IdleSwitchover => self.switch_over_idle(writes, load)?,
            Nemesis::Partition => self.cut_off(writes, load)?,
            Nemesis::OneWay => self.mute(writes, load)?,
            Nemesis::SlowLink => self.slow_down(writes, load)?,
            Nemesis::FullDisk => self.fill_disk(load)?,
            Nemesis::OldDisk => self.put_back(writes, false, load)?,
            Nemesis::Wipe => self.put_back(writes, true, load)?,
            Nemesis::Stranger => self.let_strangers_in(writes, load)?,
            Nemesis::CoordinatorKill => self.interrupt(Outage::Kill, writes, load)?,
            Nemesis::CoordinatorPause => self.interrupt(Outage::Pause, writes, load)?,
            Nemesis::CoordinatorPartition => self.part_from_coordinator(writes, load)?,
        }
        let took = self.cluster.wait_in_sync()?;
        self.tally.rejoin.note(took);
        let more = self.dice.between(Duration::ZERO, AFTERWARDS_MAX);
        self.cluster.clock.sleep(more);
        self.cluster.all_live()
    }

    /// With a coordinator nobody may for a moment, on a machine too busy for leases.
    fn writer(&mut self) -> Result<usize, Fault> {
        if self.cluster.coordinator.is_some() {
            return self.wait_for_writer("somebody writes", None);
        }
        self.cluster.primary().ok_or_else(|| {
            let words = self.cluster.words();
            Breach::new("somebody writes", "-", words).into()
        })
    }

    fn wait_for_writer(&mut self, what: &str, gone: Option<usize>) -> Result<usize, Fault> {
        let found = Cell::new(None);
        self.cluster.wait_for(what, |cluster| {
            found.set(cluster.primary_but(gone));
            Ok(found.get().is_some())
        })?;
        Ok(found.get().expect("it was waited for"))
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
                // Nobody is promoted: it goes on where it was. With a coordinator whoever has the lease first.
                load.forget_firsts();
                let at = self.cluster.kill(writes)?;
                load.forget_firsts();
                self.tally.kills += 1;
                self.cluster.start(writes)?;
                let (first, by) = self.first_of(load, &self.those_who_may(writes))?;
                let times = match by == writes {
                    true => &mut self.tally.restart,
                    false => &mut self.tally.failover,
                };
                times.note(first.saturating_sub(at));
                Ok(())
            }
            2 | 3 => self.kill_twice(writes, load),
            4 | 5 => self.kill_unheard(writes, load),
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

    /// Other nodes stand still, and are killed with the one that writes: what they were sent meanwhile is lost,
    /// which a kill alone is too quick for. What was acknowledged is on a disk that has it, and one that has not
    /// may be ordered to write first.
    fn kill_unheard(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        let mut still = self.others(writes);
        if still.len() > 1 && self.dice.coin() {
            let hears = self.dice.below(still.len() as u64);
            still.remove(usize::try_from(hears).expect("nodes are few"));
        }
        for node in &still {
            self.cluster.signal(*node, Signal::STOP)?;
        }
        load.avoid(still.first().copied());
        let from = self.cluster.clock.monotonic();
        let lasts = self.dice.between(Duration::ZERO, STILL_MAX);
        self.cluster.clock.sleep(lasts);
        let at = self.cluster.kill(writes)?;
        if still.len() == self.cluster.nodes.len() - 1 {
            self.barred.push(Barred {
                node: None,
                from,
                until: at,
                why: Bar::Copies,
            });
        }
        load.forget_firsts();
        self.tally.kills += 1;
        for node in &still {
            self.cluster.kill(*node)?;
            self.tally.replica_kills += 1;
        }
        load.avoid(None);
        for node in &still {
            self.cluster.start(*node)?;
        }
        let lacks = self.dice.pick(&still).copied();
        let promoted = match self.is_promoted(lacks)? {
            true => lacks,
            false => None,
        };
        self.fail_over_to(promoted, writes, at, load)?;
        if self.cluster.nodes[writes].up.is_none() {
            self.cluster.start(writes)?;
        }
        Ok(())
    }

    /// Orders the node that may lack something to write, as soon as it answers, for as long as a node takes to open
    /// what it has. With a coordinator nobody is ordered.
    fn is_promoted(&mut self, lacks: Option<usize>) -> Result<bool, Fault> {
        let Some(node) = lacks.filter(|_| self.cluster.coordinator.is_none()) else {
            return Ok(false);
        };
        self.cluster
            .wait_for("a node that is started again answers", |cluster| {
                Ok(cluster.status(node).is_some())
            })?;
        let begun = self.cluster.clock.monotonic();
        while self.cluster.clock.monotonic() - begun < OPENS_MAX {
            if self.cluster.try_run(node, &["promote"])?.code() == Some(0) {
                self.tally.promotions += 1;
                return Ok(true);
            }
            self.tally.denials += 1;
            self.cluster.all_live()?;
            self.cluster.clock.sleep(POLL);
        }
        Ok(false)
    }

    /// The one that follows it is killed as well, soon: before it writes, or just after.
    fn kill_twice(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        self.cluster.kill(writes)?;
        self.tally.kills += 1;
        let promoted = self.succeed(writes)?;
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

    /// Another one follows it, and acknowledges.
    fn fail_over(&mut self, killed: usize, at: Duration, load: &Load) -> Result<(), Fault> {
        self.fail_over_to(None, killed, at, load)
    }

    /// The same, where one was promoted already.
    fn fail_over_to(
        &mut self,
        promoted: Option<usize>,
        killed: usize,
        at: Duration,
        load: &Load,
    ) -> Result<(), Fault> {
        let promoted = match promoted {
            Some(promoted) => promoted,
            None => self.succeed(killed)?,
        };
        if self.cluster.nodes.len() == 2 {
            // With nobody to copy to, nothing is acknowledged.
            self.cluster.start(killed)?;
        }
        let (first, by) = self.first_of(load, &self.those_who_may(promoted))?;
        if by != killed {
            self.tally.failover.note(first.saturating_sub(at));
        }
        Ok(())
    }

    /// Who writes after `gone` cannot: ordered to, or by itself with a coordinator's lease.
    pub(super) fn succeed(&mut self, gone: usize) -> Result<usize, Fault> {
        if self.cluster.coordinator.is_none() {
            return self.promote(gone);
        }
        let found = self.wait_for_writer("another node takes over by itself", Some(gone))?;
        self.tally.takeovers += 1;
        Ok(found)
    }

    /// Of whom an acknowledgement is waited for when `node` is to write. With a coordinator anybody may have the
    /// lease by then; of two the one that comes back may have been promoted later.
    pub(super) fn those_who_may(&self, node: usize) -> Vec<usize> {
        let count = self.cluster.nodes.len();
        match self.cluster.coordinator.is_some() || count == 2 {
            true => (0..count).collect(),
            false => vec![node],
        }
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
            // Of two it may not have heard that the one that was killed was promoted after it: then it goes on
            // where it was.
            if self.cluster.nodes.len() == 2
                && self.cluster.primary_but(Some(killed)) == Some(candidate)
            {
                return Ok(candidate);
            }
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
        load.avoid(Some(writes));
        load.give_up_on(writes);
        load.forget_firsts();
        if self.cluster.coordinator.is_some() && self.dice.coin() {
            // Its lease may not have ended by then, or another one be amid its promotion.
            let lasts = self.dice.between(Duration::ZERO, PAUSE_MAX);
            self.cluster.clock.sleep(lasts);
            self.cluster.signal(writes, Signal::CONT)?;
            load.avoid(None);
            return self.somebody_writes(load);
        }
        let promoted = self.succeed(writes)?;
        if self.cluster.nodes.len() > 2 {
            let (first, _) = self.first_of(load, &self.those_who_may(promoted))?;
            self.tally.pause.note(first.saturating_sub(at));
        }
        let lasts = self.dice.between(Duration::ZERO, PAUSE_MAX);
        let passed = self.cluster.clock.monotonic() - at;
        self.cluster.clock.sleep(lasts.saturating_sub(passed));
        self.cluster.signal(writes, Signal::CONT)?;
        load.avoid(None);
        self.first_of(load, &self.those_who_may(promoted)).map(drop)
    }

    /// With no copies nothing is acknowledged. What waits for them is refused after a while, and stays so.
    fn pause_replicas(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        let others = self.others(writes);
        for node in &others {
            self.cluster.signal(*node, Signal::STOP)?;
        }
        self.tally.replica_pauses += 1;
        let from = self.cluster.clock.monotonic();
        for node in &others {
            load.give_up_on(*node);
        }
        let (min, max) = match self.dice.coin() {
            true => (NO_COPIES_MIN, NO_COPIES_MAX),
            false => (Duration::ZERO, PAUSE_MAX),
        };
        let lasts = self.dice.between(min, max);
        self.cluster.clock.sleep(lasts);
        self.barred.push(Barred {
            node: None,
            from,
            until: self.cluster.clock.monotonic(),
            why: Bar::Copies,
        });
        for node in &others {
            self.cluster.signal(*node, Signal::CONT)?;
        }
        self.somebody_writes(load)
    }

    fn switch_over(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        let other = self.other(writes);
        let took = self.switch_over_to(writes, other, load)?;
        self.tally.switchover.note(took);
        Ok(())
    }

    /// Two clients go on, with a row every few milliseconds, so that the first one taken is seen.
    fn switch_over_idle(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        load.rest(true);
        let idle = self.dice.between(IDLE_MIN, IDLE_MAX);
        self.cluster.clock.sleep(idle);
        self.cluster.wait_in_sync()?;
        let other = self.other(writes);
        let took = self.switch_over_to(writes, other, load)?;
        self.tally.idle_switchover.note(took);
        load.rest(false);
        Ok(())
    }

    /// From the order to the first acknowledgement by the other one.
    pub(super) fn switch_over_to(
        &mut self,
        writes: usize,
        other: usize,
        load: &Load,
    ) -> Result<Duration, Fault> {
        let name = self.cluster.nodes[other].name;
        load.forget_firsts();
        let at = self.cluster.clock.monotonic();
        self.cluster.run(writes, &["switchover", name])?;
        self.tally.switchovers += 1;
        let (first, _) = self.first_of(load, &[other])?;
        Ok(first.saturating_sub(at))
    }

    /// Those that run and are others.
    pub(super) fn others(&self, than: usize) -> Vec<usize> {
        (0..self.cluster.nodes.len())
            .filter(|node| *node != than && self.cluster.nodes[*node].up.is_some())
            .collect()
    }

    pub(super) fn other(&mut self, than: usize) -> usize {
        let others = self.others(than);
        self.dice.pick(&others).copied().unwrap_or(than)
    }

    /// Whoever: an acknowledgement from here on.
    pub(super) fn somebody_writes(&mut self, load: &Load) -> Result<(), Fault> {
        load.forget_firsts();
        let all: Vec<usize> = (0..self.cluster.nodes.len()).collect();
        self.first_of(load, &all).map(drop)
    }

    /// Waits for the first acknowledgement of one of `nodes` since all were forgotten: when, and whose.
    pub(super) fn first_of(
        &mut self,
        load: &Load,
        nodes: &[usize],
    ) -> Result<(Duration, usize), Fault> {
        let first = || {
            let firsts = nodes.iter().map(|node| (load.first(*node), *node));
            firsts
                .filter_map(|(first, node)| Some((first?, node)))
                .min()
        };
        self.wait(load, "a node that is to write acknowledges", |_| {
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
