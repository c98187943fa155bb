//! A machine with a disk, an address and a process that comes and goes.

use std::collections::{BTreeMap, BTreeSet};

use replica::machine::{
    Config, Durable, EpochId, Event, Node, NodeId, Position, Record, STARTS, SessionId, Version,
};
use wal::{Epoch, Lsn};

use super::{
    agenda::{MILLI, Moment},
    breach::Verdict,
    cluster::{CLUSTER, Cluster, Happening, IDENTITY, Work},
    disk::{Disk, Image, Lane},
    net::Host,
    swarm::Swarm,
};
use crate::crash::dice::Dice;

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) id: NodeId,
    pub(crate) node: Option<Node>,
    pub(crate) disk: Disk,
    /// Which process this is: what an earlier one had under way is nobody's.
    pub(crate) life: u64,
    pub(crate) is_paused: bool,
    pub(crate) stalled: Vec<(Option<u64>, Work)>,
    /// How much its clock did not count, and how much it counted that was not.
    pub(crate) behind: Moment,
    pub(crate) ahead: Moment,
    /// Version of its address.
    pub(crate) endpoint: u64,
    /// Peers it is connected with: at which version of their address, and to which of their lives.
    pub(crate) links: BTreeMap<Host, (u64, u64)>,
    pub(crate) busy: BTreeSet<Lane>,
    /// Bases that are being looked for.
    pub(crate) looking: BTreeSet<SessionId>,
    pub(crate) is_applying: bool,
    /// Its owner lets readers in: not while the state under them is being replaced.
    pub(crate) is_readable: bool,
    /// It may write, under this epoch.
    pub(crate) primary: Option<Epoch>,
    /// What retention told last.
    pub(crate) retained: (Lsn, Lsn),
    /// The log takes an error at its next change.
    pub(crate) will_fail: bool,
    pub(crate) will_fail_record: bool,
    /// As it was at some earlier time.
    pub(crate) earlier: Option<Image>,
    pub(crate) lease_ends: Option<Moment>,
    /// What a disk without a record begins with.
    founding: Record,
}

/// What the commands that make a cluster put on each disk.
pub(crate) fn founding(swarm: &Swarm, ids: &[NodeId], dice: &mut Dice) -> Record {
    let authority = (Epoch(STARTS), EpochId(dice.id()), ids[0]);
    Record {
        promised: authority,
        granted: authority,
        holders: BTreeSet::from([ids[0]]),
        start: None,
        previous_end: Position::default(),
        config: Config {
            version: Version {
                epoch: Epoch(STARTS),
                number: 1,
            },
            members: ids.iter().copied().collect(),
            mode: swarm.mode,
            policy: swarm.policy,
            previous: None,
        },
        is_amnesiac: false,
        reason: "founded".to_owned(),
    }
}

impl Site {
    pub(crate) fn new(id: NodeId, founding: &Record) -> Self {
        let mut disk = Disk::default();
        (disk.slowness, disk.log_slowness) = (1, 1);
        disk.image.record = Some(founding.clone());
        Self {
            id,
            node: None,
            disk,
            life: 0,
            is_paused: false,
            stalled: Vec::new(),
            behind: 0,
            ahead: 0,
            endpoint: 1,
            links: BTreeMap::new(),
            busy: BTreeSet::new(),
            looking: BTreeSet::new(),
            is_applying: false,
            is_readable: false,
            primary: None,
            retained: (Lsn::FIRST, Lsn::FIRST),
            will_fail: false,
            will_fail_record: false,
            earlier: None,
            lease_ends: None,
            founding: founding.clone(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.node.is_some() && !self.is_paused
    }

    /// A disk that the node's id was put on anew: it says of itself that it has nothing.
    pub(crate) fn blank(&self) -> Image {
        let mut record = self.founding.clone();
        record.is_amnesiac = true;
        Image::blank(record)
    }

    /// It lost something, or it is being rebuilt: it is no help to another that loses something.
    pub(crate) fn is_unsound(&self) -> bool {
        self.disk.is_wounded || self.disk.image.is_amnesiac()
    }

    pub(crate) fn record(&self) -> &Record {
        self.disk.image.record.as_ref().unwrap_or(&self.founding)
    }

    fn durable(&self, is_leased: bool, fresh: EpochId) -> Durable {
        let image = &self.disk.image;
        let is_damaged = image.is_known_damaged() || image.record.is_none();
        let (end, derived) = (image.log.end(), image.derived.durable());
        Durable {
            record: self.record().clone(),
            end,
            first_retained: image.log.first(),
            history: image.log.history().clone(),
            committed: if is_damaged {
                Lsn::ZERO
            } else {
                derived.min(end.lsn)
            },
            derived,
            is_damaged,
            is_leased,
            fresh,
        }
    }
}

impl Cluster {
    pub(crate) fn start(&mut self, host: Host) -> Verdict {
        if self.operator.to_restart.remove(&host) {
            self.crash(host)?;
        }
        if self.sites[host].node.is_some() {
            return Ok(());
        }
        self.tally.count("starts");
        let fresh = self.fresh_epoch();
        let is_leased = self.swarm.lease.is_some();
        let limits = self.swarm.limits;
        let site = &mut self.sites[host];
        site.disk.start(self.now, &mut self.tally);
        site.life += 1;
        let durable = site.durable(is_leased, fresh);
        self.judge.started(host, durable.committed);
        site.retained = (durable.first_retained, durable.first_retained);
        site.is_readable = !site.disk.image.is_being_rebuilt();
        self.trace.start(self.now, host, &durable);
        let now = self.clock(host);
        let site = &mut self.sites[host];
        let (node, effects) = Node::start(now, site.id, CLUSTER, IDENTITY, durable, limits);
        site.node = Some(node);
        let first = self.dice.range(0, self.swarm.tick);
        self.later(host, first, Work::Tick);
        self.later(host, first, Work::Look);
        for effect in effects {
            self.trace.effect(&effect);
            self.carry_out(host, effect)?;
        }
        Ok(())
    }

    pub(crate) fn crash(&mut self, host: Host) -> Verdict {
        let site = &mut self.sites[host];
        if site.node.take().is_none() {
            return Ok(());
        }
        self.trace.note(self.now, host, "crash");
        site.disk.crash(&mut self.dice, &mut self.tally);
        site.is_paused = false;
        site.stalled.clear();
        site.links.clear();
        site.busy.clear();
        site.looking.clear();
        site.is_applying = false;
        site.primary = None;
        site.will_fail = false;
        site.will_fail_record = false;
        let end = site.disk.image.log.end();
        self.judge.cut(host, end);
        self.judge.sessions.died(host);
        self.clients.lost(host);
        self.operator.lost(host);
        self.stored_at_crash(host)
    }

    /// What a crash made durable is compared like all else.
    fn stored_at_crash(&mut self, host: Host) -> Verdict {
        let log = &self.sites[host].disk.image.log;
        let recent = log.len().saturating_sub(64);
        for stored in log.records().skip(recent) {
            self.judge.sequence.stored(&stored.entry, stored.id)?;
        }
        Ok(())
    }

    pub(crate) fn resume(&mut self, host: Host) -> Verdict {
        let site = &mut self.sites[host];
        if !site.is_paused {
            return Ok(());
        }
        site.is_paused = false;
        self.trace.note(self.now, host, "goes on");
        let stalled = std::mem::take(&mut self.sites[host].stalled);
        for (index, (life, work)) in stalled.into_iter().enumerate() {
            // One after the other, as a process would take them from its queues.
            let at = self.now + index as u64;
            self.agenda.enter(at, Happening::Work { host, life, work });
        }
        Ok(())
    }

    pub(crate) fn repair(&mut self, host: Host) {
        let disk = &mut self.sites[host].disk;
        disk.is_full = false;
        (disk.slowness, disk.log_slowness) = (1, 1);
    }

    /// Who can be reached, as the connections of a process show it.
    pub(crate) fn look(&mut self, host: Host) -> Verdict {
        let after = self.dice.range(50, 250) * MILLI;
        self.later(host, after, Work::Look);
        for peer in 0..self.sites.len() {
            if peer == host {
                continue;
            }
            let other = &self.sites[peer];
            let there = (other.endpoint, other.life);
            let is_up = other.node.is_some() && self.net.connects(host, peer);
            let id = other.id;
            match self.sites[host].links.get(&peer) {
                None if is_up => {
                    self.sites[host].links.insert(peer, there);
                    let session = SessionId(self.fresh());
                    let event = Event::Connected {
                        peer: id,
                        endpoint: there.0,
                        session,
                    };
                    self.step(host, event)?;
                }
                Some(link) if *link != there && self.dice.coin() => {
                    self.sites[host].links.remove(&peer);
                    self.step(host, Event::Disconnected { peer: id })?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
