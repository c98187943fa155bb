//! What a seed stands for: a cluster, its mode and bounds, and the mix of faults it has to bear.
//!
//! Each run has some kinds of faults and is spared the others: a mix of everything would always be
//! the same mix, and some faults hide others.

use std::{collections::BTreeSet, fmt, time::Duration};

use replica::machine::{Limits, Mode, Policy};

use super::{
    agenda::{MILLI, Moment, SECOND},
    ambush::{AMBUSHES, Ambush},
};
use crate::crash::dice::Dice;

/// What the nemesis and the operator do to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Crash,
    /// Two at nearly the same moment, one of them the primary if there is one.
    DoubleCrash,
    Pause,
    /// A pause in which the node's clock stands still too.
    Standstill,
    /// The node's clock goes on from another time.
    ClockJump,
    Partition,
    OneWay,
    Address,
    Replay,
    Wipe,
    OldImage,
    Rot,
    /// A write went elsewhere: it is not where it should be, and something else is not there any more.
    Misdirected,
    LogFails,
    DiskFull,
    RecordFails,
    SlowDisk,
    Promote,
    /// Two nodes take the authority from each other, each cut off as soon as it has it.
    Rivals,
    Switchover,
    Configure,
    Reattach,
}

pub(crate) const FAULTS: [Fault; 22] = [
    Fault::Crash,
    Fault::DoubleCrash,
    Fault::Pause,
    Fault::Standstill,
    Fault::ClockJump,
    Fault::Partition,
    Fault::OneWay,
    Fault::Address,
    Fault::Replay,
    Fault::Wipe,
    Fault::OldImage,
    Fault::Rot,
    Fault::Misdirected,
    Fault::LogFails,
    Fault::DiskFull,
    Fault::RecordFails,
    Fault::SlowDisk,
    Fault::Promote,
    Fault::Rivals,
    Fault::Switchover,
    Fault::Configure,
    Fault::Reattach,
];

#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) delay: (Moment, Moment),
    /// Out of a thousand messages.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Long on their way.
    pub(crate) late: u64,
    pub(crate) is_ordered: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) mode: Mode,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) clients: u32,
    /// Between two operations of a client, at most.
    pub(crate) idle: Moment,
    pub(crate) keys: u64,
    pub(crate) records_per_write: u64,
    pub(crate) safety: Moment,
    pub(crate) tick: Moment,
    pub(crate) network: Network,
    pub(crate) sync: (Moment, Moment),
    pub(crate) faults: BTreeSet<Fault>,
    /// Between two faults, at most.
    pub(crate) fault_gap: Moment,
    /// Records that retention leaves.
    pub(crate) retained: u64,
    /// Records applied between two checkpoints of derived state.
    pub(crate) checkpoint: u64,
    /// Out of a hundred bases asked for, how many can be made.
    pub(crate) bases: u64,
    /// Whether an owner can tell what changed since a position.
    pub(crate) knows_changes: bool,
    pub(crate) has_force: bool,
    /// Life of a coordinator's lease.
    pub(crate) lease: Option<Moment>,
    /// Faults in an order, beside those that come by chance.
    pub(crate) ambush: Option<Ambush>,
}

impl Swarm {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::of_round(seed, 1);
        let nodes = *dice.pick(&[2, 3, 3, 3, 5]).expect("not empty");
        let most = u64::from(nodes > 2) + u64::from(nodes > 3);
        let copies = u32::try_from(1 + dice.below(most)).expect("at most two");
        let modes = [Mode::Sync(copies), Mode::Sync(1), Mode::Async, Mode::All];
        let weighted = [0, 0, 0, 1, 1, 2, 2, 3];
        let mode = modes[*dice.pick(&weighted).expect("not empty")];
        let mut faults: BTreeSet<Fault> = FAULTS.into_iter().filter(|_| dice.coin()).collect();
        if dice.one_in(20) {
            faults.clear();
        }
        let lease = dice.one_in(6).then(|| dice.range(1500, 4000) * MILLI);
        let swarm = Self {
            seed,
            nodes,
            mode,
            policy: if dice.coin() {
                Policy::Refuse
            } else {
                Policy::Wait
            },
            limits: limits(&mut dice),
            clients: u32::try_from(dice.range(1, 4)).expect("small"),
            idle: dice.range(20, 400) * MILLI,
            keys: dice.range(2, 12),
            records_per_write: dice.range(1, 4),
            safety: dice.range(20, 60) * SECOND,
            tick: dice.range(40, 200) * MILLI,
            network: network(&mut dice),
            sync: (MILLI / 4, dice.range(1, 20) * MILLI),
            faults,
            fault_gap: dice.range(500, 6000) * MILLI,
            retained: *dice.pick(&[8, 30, 120, 100_000]).expect("not empty"),
            checkpoint: dice.range(1, 30),
            bases: *dice.pick(&[30, 70, 100, 100]).expect("not empty"),
            knows_changes: dice.coin(),
            has_force: dice.one_in(8),
            lease,
            ambush: None,
        };
        swarm.with_an_ambush()
    }

    /// One in four has one, and with it the cluster that it is for. By dice of their own: all other seeds
    /// are what they are without.
    fn with_an_ambush(mut self) -> Self {
        let mut dice = Dice::of_round(self.seed, 3);
        let ambush = if dice.one_in(5) {
            let all_but_reads = AMBUSHES.split_last().map(|(_, others)| others);
            *dice
                .pick(all_but_reads.expect("not empty"))
                .expect("several")
        } else if dice.one_in(12) {
            Ambush::Stale
        } else {
            return self;
        };
        self.ambush = Some(ambush);
        self.faults.retain(|_| dice.one_in(4));
        self.lease = None;
        self.network.lost = self.network.lost.min(10);
        (self.nodes, self.mode) = match ambush {
            Ambush::Overtaken | Ambush::Loss | Ambush::Stale => (3, Mode::Sync(1)),
            Ambush::Echo if dice.coin() => (2, Mode::Sync(1)),
            Ambush::Echo => (3, Mode::All),
            Ambush::Forgotten => (5, Mode::Sync(2)),
        };
        if ambush == Ambush::Stale {
            self.clients = self.clients.max(2);
            self.keys = 2;
            self.limits.silence = Duration::from_secs(3);
        }
        if ambush == Ambush::Loss {
            self.knows_changes = true;
            self.checkpoint = self.checkpoint.min(5);
        }
        if ambush == Ambush::Forgotten {
            self.limits.validation = Duration::from_secs(3);
        }
        self
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

fn limits(dice: &mut Dice) -> Limits {
    let millis = Duration::from_millis;
    let heartbeat = dice.range(100, 500);
    Limits {
        silence: millis(heartbeat * dice.range(3, 6)),
        heartbeat: millis(heartbeat),
        window_bytes: dice.range(200, 20_000),
        window_records: dice.range(2, 200),
        entries_bytes: dice.range(60, 4_000),
        catch_up_duration: millis(dice.range(2_000, 20_000)),
        catch_up_records: dice.range(5, 2_000),
        progress: millis(dice.range(1_000, 5_000)),
        waiting_writes: usize::try_from(dice.range(1, 40)).expect("small"),
        write_wait: millis(dice.range(500, 5_000)),
        rebuilds: usize::try_from(dice.range(1, 2)).expect("small"),
        validation: millis(dice.range(500, 3_000)),
        retained_records: dice.range(4, 300),
        lease_margin: millis(dice.range(50, 300)),
        log_lines: 64,
    }
}

fn network(dice: &mut Dice) -> Network {
    let least = dice.range(50, 2_000);
    let rates = [0, 0, 2, 10, 50, 150];
    let mut rate = || *dice.pick(&rates).expect("not empty");
    let (lost, doubled, late) = (rate(), rate(), rate());
    Network {
        delay: (least, least + dice.range(0, 20) * MILLI),
        lost,
        doubled,
        late,
        is_ordered: dice.coin(),
    }
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |moment: Moment| moment / SECOND;
        let millis = |moment: Moment| moment / MILLI;
        writeln!(
            f,
            "seed {}: {} nodes, {:?}, {:?}, {} clients, {} s of faults, at most {} ms apart",
            self.seed,
            self.nodes,
            self.mode,
            self.policy,
            self.clients,
            seconds(self.safety),
            millis(self.fault_gap),
        )?;
        writeln!(
            f,
            "  retains {}, a checkpoint each {}, bases {} %, changes {}, force {}, lease {:?} ms",
            self.retained,
            self.checkpoint,
            self.bases,
            if self.knows_changes {
                "known"
            } else {
                "unknown"
            },
            self.has_force,
            self.lease.map(millis),
        )?;
        writeln!(f, "  ambush {:?}", self.ambush)?;
        writeln!(f, "  {:?}", self.network)?;
        writeln!(f, "  {:?}", self.limits)?;
        write!(f, "  {:?}", self.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_mix_again_and_every_kind_of_fault_has_its_seeds() {
        let text = |seed| Swarm::of(seed).to_string();
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
        let swarms: Vec<Swarm> = (0..100).map(Swarm::of).collect();
        for fault in FAULTS {
            let having = swarms.iter().filter(|it| it.has(fault)).count();
            assert!((20..80).contains(&having), "{fault:?} in {having} of 100");
        }
        for ambush in AMBUSHES {
            let having = swarms.iter().filter(|it| it.ambush == Some(ambush)).count();
            assert!((1..20).contains(&having), "{ambush:?} in {having} of 100");
        }
        for nodes in [2, 3, 5] {
            assert!(swarms.iter().any(|it| it.nodes == nodes), "{nodes} nodes");
        }
    }
}
