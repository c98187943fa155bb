//! A run: nodes, disks, network, clients, operator and nemesis, and one agenda for all of them.
//!
//! Nothing here knows how the nodes do what they do; they are given events and their effects are
//! carried out, as a process around the machine would, only that everything that can go wrong does.

use std::{collections::BTreeMap, time::Duration};

use replica::machine::{Config, EpochId, Event, Message, Node, NodeId, SessionId, Time};
use wal::{Generation, Identity, JournalId, Lsn};

use super::{
    agenda::{Agenda, MILLI, Moment},
    ambush::Plot,
    breach::{Breach, Checker, Verdict},
    clients::Clients,
    disk::Lane,
    ending::Phase,
    judge::Judge,
    net::{Host, Net},
    operator::Operator,
    rivals::Rivals,
    site::Site,
    swarm::Swarm,
    tally::Tally,
    trace::Trace,
};
use crate::crash::dice::Dice;

/// In one run: some ten times what the longest ones need. Nodes that answer each other for ever come here.
const HAPPENED_MAX: u64 = 2_000_000;

pub(crate) const CLUSTER: u128 = 0x00c0_ffee;
pub(crate) const IDENTITY: Identity = Identity {
    journal: JournalId([7; 16]),
    generation: Generation(1),
};

/// What a process finds done by its machine.
#[derive(Debug)]
pub(crate) enum Work {
    Received(Box<Message>),
    /// The oldest thing of a lane of the disk is done.
    Lane(Lane),
    Event(Box<Event>),
    Read {
        session: SessionId,
        from: Lsn,
        to: Lsn,
        bytes: u64,
    },
    OpenBase {
        session: SessionId,
        since: Option<Lsn>,
    },
    ReadBase {
        session: SessionId,
        index: u32,
    },
    Apply,
    Tick,
    /// Sees who can be reached.
    Look,
}

#[derive(Debug)]
pub(crate) enum Happening {
    /// Messages come to whoever lives there; all else is of one life of a process.
    Work {
        host: Host,
        life: Option<u64>,
        work: Work,
    },
    Start(Host),
    Resume(Host),
    Heal(Vec<(Host, Host)>),
    Repair(Host),
    Client(usize),
    Nemesis,
    Operator,
    Coordinator,
    Rivals,
    Ambush,
    Calm,
    Look,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) swarm: Swarm,
    pub(crate) dice: Dice,
    pub(crate) now: Moment,
    pub(crate) agenda: Agenda<Happening>,
    pub(crate) sites: Vec<Site>,
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    pub(crate) net: Net,
    pub(crate) judge: Judge,
    pub(crate) tally: Tally,
    pub(crate) trace: Trace,
    pub(crate) clients: Clients,
    pub(crate) operator: Operator,
    pub(crate) rivals: Option<Rivals>,
    pub(crate) plot: Option<Plot>,
    pub(crate) phase: Phase,
    /// Of the last request: clients' and the operator's have one sequence of numbers.
    pub(crate) number: u64,
}

impl Cluster {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let swarm = Swarm::of(seed);
        let mut dice = Dice::of_round(seed, 2);
        let ids: Vec<NodeId> = (0..swarm.nodes).map(|_| NodeId(dice.id())).collect();
        let record = super::site::founding(&swarm, &ids, &mut dice);
        let sites = ids.iter().map(|id| Site::new(*id, &record)).collect();
        let mut cluster = Self {
            net: Net::new(swarm.network.clone()),
            clients: Clients::new(&swarm),
            dice,
            now: 0,
            agenda: Agenda::default(),
            sites,
            hosts: ids
                .iter()
                .enumerate()
                .map(|(host, id)| (*id, host))
                .collect(),
            judge: Judge::default(),
            tally: Tally::default(),
            trace,
            operator: Operator::default(),
            rivals: None,
            plot: None,
            phase: Phase::Safety,
            number: 0,
            swarm,
        };
        cluster.begin();
        cluster
    }

    fn begin(&mut self) {
        for host in 0..self.sites.len() {
            self.agenda.enter(0, Happening::Start(host));
        }
        for client in 0..self.clients.len() {
            let at = self.dice.range(0, 500 * MILLI);
            self.agenda.enter(at, Happening::Client(client));
        }
        self.agenda.enter(self.swarm.fault_gap, Happening::Nemesis);
        self.agenda.enter(1000 * MILLI, Happening::Operator);
        if self.swarm.lease.is_some() {
            self.agenda.enter(0, Happening::Coordinator);
        }
        if self.swarm.ambush.is_some() {
            self.agenda.enter(2000 * MILLI, Happening::Ambush);
        }
        self.agenda.enter(self.swarm.safety, Happening::Calm);
    }

    /// Until everything ended well, or a promise is broken.
    pub(crate) fn run(&mut self) -> Verdict {
        let mut happened = 0;
        while let Some((at, happening)) = self.agenda.next() {
            self.now = at;
            happened += 1;
            if happened > HAPPENED_MAX {
                let words = format!("{HAPPENED_MAX} things happened, and it does not come to rest");
                return Err(Breach::new(Checker::Liveness, words));
            }
            self.happen(happening)?;
            if self.phase == Phase::Done {
                break;
            }
        }
        self.judge_end()
    }

    pub(crate) fn happen(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Work { host, life, work } => self.work(host, life, work),
            Happening::Start(host) => self.start(host),
            Happening::Resume(host) => self.resume(host),
            Happening::Heal(ways) => {
                ways.iter()
                    .for_each(|(from, to)| self.net.unblock(*from, *to));
                Ok(())
            }
            Happening::Repair(host) => {
                self.repair(host);
                Ok(())
            }
            Happening::Client(client) => self.client(client),
            Happening::Nemesis => self.nemesis(),
            Happening::Operator => self.operate(),
            Happening::Coordinator => self.coordinate(),
            Happening::Rivals => self.go_on_with_rivals(),
            Happening::Ambush => self.go_on_with_ambush(),
            Happening::Calm => self.calm(),
            Happening::Look => self.look_for_the_end(),
        }
    }

    /// Work for a process; one that is paused does it when it goes on.
    fn work(&mut self, host: Host, life: Option<u64>, work: Work) -> Verdict {
        let site = &mut self.sites[host];
        if site.node.is_none() || life.is_some_and(|life| life != site.life) {
            return Ok(());
        }
        if site.is_paused {
            site.stalled.push((life, work));
            return Ok(());
        }
        match work {
            Work::Received(message) => self.step(host, Event::Received(*message)),
            Work::Event(event) => self.step(host, *event),
            Work::Lane(lane) => self.lane(host, lane),
            Work::Read {
                session,
                from,
                to,
                bytes,
            } => {
                let entries = self.sites[host].disk.read(from, to, bytes);
                self.step(host, Event::ReadBack { session, entries })
            }
            Work::OpenBase { session, since } => self.open_base(host, session, since),
            Work::ReadBase { session, index } => {
                let bytes = self.sites[host].disk.read_base(session, index);
                let event = Event::BaseRead {
                    session,
                    index,
                    bytes,
                };
                self.step(host, event)
            }
            Work::Apply => self.apply(host),
            Work::Tick => {
                self.later(host, self.swarm.tick, Work::Tick);
                self.step(host, Event::Tick)
            }
            Work::Look => self.look(host),
        }
    }

    pub(crate) fn later(&mut self, host: Host, after: Moment, work: Work) {
        let life = Some(self.sites[host].life);
        let happening = Happening::Work { host, life, work };
        self.agenda.enter(self.now + after, happening);
    }

    /// What the clock of a node says.
    pub(crate) fn clock(&self, host: Host) -> Time {
        let site = &self.sites[host];
        let micros = (self.now + site.ahead).saturating_sub(site.behind);
        Time(Duration::from_micros(micros))
    }

    /// The one place where a machine takes a step.
    pub(crate) fn step(&mut self, host: Host, event: Event) -> Verdict {
        let now = self.clock(host);
        self.trace.event(self.now, host, &event);
        self.tally.steps += 1;
        let Some(node) = self.sites[host].node.as_mut() else {
            return Ok(());
        };
        let effects = Node::step(node, now, event);
        for effect in effects {
            self.trace.effect(&effect);
            self.carry_out(host, effect)?;
        }
        Ok(())
    }

    pub(crate) fn fresh(&mut self) -> u128 {
        self.dice.id()
    }

    pub(crate) fn fresh_epoch(&mut self) -> EpochId {
        EpochId(self.fresh())
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

/// Copies besides the primary's that everything acknowledged has: while a configuration takes the place
/// of another, what either asks for.
pub(crate) fn copies(config: &Config) -> usize {
    let own = config.mode.copies(config.members.len());
    let replaced = config.previous.as_ref();
    replaced.map_or(own, |it| own.min(it.mode.copies(it.members.len())))
}
