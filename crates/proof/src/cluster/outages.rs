//! What goes wrong with the coordinator: who writes goes on until its lease ends and no longer.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use world::Clock;

use super::{
    super::crash::{breach::Fault, dice::Dice},
    clients::Load,
    etcd::LIFE,
    judge::{Bar, Barred},
    network::End,
    rounds::Round,
};

/// How long the coordinator is away. Half of the time longer than a lease lives.
const AWAY_MAX: Duration = Duration::from_secs(6);

/// With the coordinator the node that writes goes once in so many times.
const KILLS: u64 = 4;

/// How the coordinator goes, for all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    Kill,
    Pause,
}

fn away(dice: &mut Dice) -> Duration {
    match dice.coin() {
        true => dice.between(LIFE, AWAY_MAX),
        false => dice.between(Duration::ZERO, LIFE),
    }
}

impl Round<'_, '_> {
    /// When it is back somebody acknowledges, also where the node that wrote is gone.
    pub(super) fn interrupt(
        &mut self,
        outage: Outage,
        writes: usize,
        load: &Load,
    ) -> Result<(), Fault> {
        let clock = Arc::clone(&self.cluster.clock);
        let lasts = away(&mut self.dice);
        let goes_too = self.dice.one_in(KILLS);
        let killed_after = self.dice.between(Duration::ZERO, lasts);
        let etcd = self.cluster.etcd();
        match outage {
            Outage::Kill => etcd.kill()?,
            Outage::Pause => etcd.signal(Signal::STOP)?,
        }
        // After it was gone, so that no lease was granted later.
        let from = clock.monotonic();
        self.tally.outages += 1;
        if goes_too {
            clock.sleep(killed_after);
            self.cluster.kill(writes)?;
            self.tally.kills += 1;
        }
        clock.sleep((from + lasts).saturating_sub(clock.monotonic()));
        load.forget_firsts();
        let until = clock.monotonic();
        let etcd = self.cluster.etcd();
        match outage {
            Outage::Kill => etcd.start()?,
            Outage::Pause => etcd.signal(Signal::CONT)?,
        }
        if until > from + LIFE {
            self.barred.push(Barred {
                node: None,
                from: from + LIFE,
                until,
                why: Bar::Lease,
            });
        } else {
            // By then what is acknowledged is so under a lease that etcd granted since.
            clock.sleep((from + LIFE).saturating_sub(clock.monotonic()));
            load.forget_firsts();
        }
        // A node is not started without its coordinator. With two nothing is acknowledged without it.
        let is_needed = self.cluster.nodes.len() == 2 || self.dice.coin();
        if goes_too && is_needed {
            self.cluster.start(writes)?;
        }
        let all: Vec<usize> = (0..self.cluster.nodes.len()).collect();
        let (first, _) = self.first_of(load, &all)?;
        if until > from + LIFE {
            self.tally.outage.note(first.saturating_sub(until));
        }
        if goes_too && !is_needed {
            self.cluster.start(writes)?;
        }
        Ok(())
    }

    /// The others reach it: one of them takes over from a node that runs and has all its copies.
    pub(super) fn part_from_coordinator(
        &mut self,
        writes: usize,
        load: &Load,
    ) -> Result<(), Fault> {
        let clock = Arc::clone(&self.cluster.clock);
        let lasts = self.dice.between(Duration::ZERO, AWAY_MAX);
        self.cluster.network().lose(writes, End::Middle)?;
        let from = clock.monotonic();
        self.tally.outages_for_one += 1;
        load.forget_firsts();
        if self.dice.coin() {
            self.succeed(writes)?;
            let others: Vec<usize> = self.others(writes);
            self.first_of(load, &others)?;
        }
        clock.sleep((from + lasts).saturating_sub(clock.monotonic()));
        let until = clock.monotonic();
        self.cluster.network().deliver(writes, End::Middle)?;
        self.barred.push(Barred {
            node: Some(writes),
            from: from + LIFE,
            until,
            why: Bar::Lease,
        });
        self.somebody_writes(load)
    }
}
