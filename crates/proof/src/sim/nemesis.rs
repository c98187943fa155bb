//! What goes wrong, and when.
//!
//! Disks lose what was durable only as far as the mode promises to bear it: at most k at a time, none
//! while an authority is changing, and never the only one that has what was acknowledged. What lies
//! beyond is not promised by anybody (docs/protocol/promotion.md).

use std::collections::BTreeSet;

use replica::machine::{Config, Mode, Order, Policy};

use super::{
    agenda::{MILLI, Moment, SECOND},
    breach::Verdict,
    cluster::{Cluster, Happening, copies},
    disk::Image,
    net::Host,
    site::Site,
    swarm::Fault,
};

impl Cluster {
    pub(crate) fn nemesis(&mut self) -> Verdict {
        if self.phase.is_calm() {
            return Ok(());
        }
        let after = self.dice.range(10 * MILLI, self.swarm.fault_gap);
        self.agenda.enter(self.now + after, Happening::Nemesis);
        if self.plot.is_some() {
            return Ok(());
        }
        self.remember_an_image();
        let faults: Vec<Fault> = self.swarm.faults.iter().copied().collect();
        let Some(fault) = self.dice.pick(&faults).copied() else {
            return Ok(());
        };
        let host = self.some_host();
        let is_done = self.inflict(fault, host)?;
        if is_done {
            self.tally.fault(fault);
            self.trace.note(self.now, host, &format!("{fault:?}"));
        }
        Ok(())
    }

    fn some_host(&mut self) -> Host {
        // The one that writes has most to lose.
        if let Some(writer) = self.writer().filter(|_| self.dice.one_in(3)) {
            return writer;
        }
        let host = self.dice.below(self.sites.len() as u64);
        usize::try_from(host).expect("few nodes")
    }

    fn inflict(&mut self, fault: Fault, host: Host) -> Result<bool, super::breach::Breach> {
        match fault {
            Fault::Crash => return self.crash_for_a_while(host),
            Fault::DoubleCrash => {
                let other = (host + 1) % self.sites.len();
                let both = self.crash_for_a_while(host)?;
                return Ok(self.crash_for_a_while(other)? || both);
            }
            Fault::Pause => return Ok(self.pause(host, false)),
            Fault::Standstill => return Ok(self.pause(host, true)),
            Fault::ClockJump => self.jump(host),
            Fault::Rivals => return self.begin_rivals(host),
            Fault::Partition => self.partition(),
            Fault::OneWay => self.one_way(host),
            Fault::Address => self.sites[host].endpoint += 1,
            Fault::Replay => self.replay(),
            Fault::Wipe => return self.wipe(host),
            Fault::OldImage => return self.put_back(host),
            Fault::Rot => return Ok(self.rot(host, false)),
            Fault::Misdirected => return Ok(self.rot(host, true)),
            Fault::LogFails => self.sites[host].will_fail = true,
            Fault::RecordFails => self.sites[host].will_fail_record = true,
            Fault::DiskFull => {
                self.sites[host].disk.is_full = true;
                self.repair_later(host);
            }
            Fault::SlowDisk => {
                let disk = &mut self.sites[host].disk;
                let is_all = self.dice.coin();
                let slowness = if is_all {
                    &mut disk.slowness
                } else {
                    &mut disk.log_slowness
                };
                *slowness = self.dice.range(5, 60);
                self.repair_later(host);
            }
            Fault::Promote | Fault::Switchover | Fault::Configure | Fault::Reattach => {
                return self.trouble_the_operator(fault, host);
            }
        }
        Ok(true)
    }

    fn a_while(&mut self) -> Moment {
        let most = *self.dice.pick(&[300, 2_000, 10_000]).expect("not empty");
        self.now + self.dice.range(20, most) * MILLI
    }

    fn repair_later(&mut self, host: Host) {
        let at = self.a_while();
        self.agenda.enter(at, Happening::Repair(host));
    }

    fn crash_for_a_while(&mut self, host: Host) -> Result<bool, super::breach::Breach> {
        if self.sites[host].node.is_none() {
            return Ok(false);
        }
        self.crash(host)?;
        let at = self.a_while();
        self.agenda.enter(at, Happening::Start(host));
        Ok(true)
    }

    /// A process that found its own disk at fault ends, and is started again.
    pub(crate) fn crash_and_start(&mut self, host: Host) -> Verdict {
        self.crash_for_a_while(host).map(|_| ())
    }

    fn pause(&mut self, host: Host, is_standstill: bool) -> bool {
        let until = self.a_while();
        let now = self.now;
        // A lease is measured by a clock that goes on.
        let is_standstill = is_standstill && self.swarm.lease.is_none();
        let site = &mut self.sites[host];
        if !site.is_up() {
            return false;
        }
        site.is_paused = true;
        if is_standstill {
            site.behind += until - now;
        }
        self.agenda.enter(until, Happening::Resume(host));
        true
    }

    /// Ahead by up to an hour, or back by as much as it takes for ten seconds to come again. A lease is
    /// measured by a clock that does not go back.
    fn jump(&mut self, host: Host) {
        let site = &mut self.sites[host];
        if self.dice.coin() || self.swarm.lease.is_some() {
            let most = *self.dice.pick(&[5, 60, 3600]).expect("not empty");
            site.ahead += self.dice.range(1, most) * SECOND;
        } else {
            site.behind += self.dice.range(1, 10) * SECOND;
        }
    }

    fn partition(&mut self) {
        let all = self.sites.len();
        let side: Vec<bool> = (0..all).map(|_| self.dice.coin()).collect();
        let across = |(from, to): &(Host, Host)| side[*from] != side[*to];
        let ways = (0..all).flat_map(|from| (0..all).map(move |to| (from, to)));
        let ways: Vec<(Host, Host)> = ways.filter(across).collect();
        self.block(ways);
    }

    fn one_way(&mut self, host: Host) {
        let is_deaf = self.dice.coin();
        let others: Vec<Host> = (0..self.sites.len()).filter(|it| *it != host).collect();
        let ways = others.into_iter().filter(|_| self.dice.coin());
        let ways = ways.map(|other| {
            if is_deaf {
                (other, host)
            } else {
                (host, other)
            }
        });
        let ways = ways.collect();
        self.block(ways);
    }

    fn block(&mut self, ways: Vec<(Host, Host)>) {
        for (from, to) in &ways {
            self.net.block(*from, *to);
        }
        let at = self.a_while();
        self.agenda.enter(at, Happening::Heal(ways));
    }

    fn replay(&mut self) {
        for _ in 0..self.dice.range(1, 5) {
            if let Some((to, message)) = self.net.old(&mut self.dice) {
                self.deliver(self.now, to, Box::new(message));
            }
        }
    }

    fn remember_an_image(&mut self) {
        if !self.swarm.has(Fault::OldImage) || !self.dice.one_in(3) {
            return;
        }
        let host = self.some_host();
        let site = &mut self.sites[host];
        if !site.disk.is_wounded {
            site.earlier = Some(site.disk.image.clone());
        }
    }

    /// Whether a disk may lose what it had: see the head of this file.
    pub(crate) fn may_wound(&self, host: Host) -> bool {
        let Some(writer) = self.writer() else {
            return false;
        };
        let authority = &self.sites[writer].record().promised;
        let is_calm = self.sites.iter().all(|site| {
            let waiting = site.disk.record_lane.is_empty();
            waiting && (site.disk.is_wounded || site.record().promised == *authority)
        });
        is_calm && self.may_lose(host, writer)
    }

    /// The same, whatever is promised; `writer` acknowledges.
    pub(crate) fn may_lose(&self, host: Host, writer: Host) -> bool {
        let configs = self.sites.iter().map(|site| site.record());
        let needed = configs
            .map(|record| copies(&record.config))
            .min()
            .unwrap_or(0);
        let members = &self.sites[writer].record().config.members;
        let is_in = |site: &Site| members.contains(&site.id);
        let in_it = self.sites.iter().filter(|site| is_in(site));
        let wounded = in_it.filter(|site| site.is_unsound()).count();
        let end = self.judge.sequence.end();
        let others = self.sites.iter().enumerate().filter(|(other, site)| {
            *other != host
                && is_in(site)
                && !site.is_unsound()
                && site.disk.image.log.at(end).is_some()
        });
        let most = if host == writer {
            needed
        } else {
            needed.max(1)
        };
        !self.judge.is_unsettled
            && !self.sites[host].is_unsound()
            && wounded < most
            && others.count() > 0
    }

    fn wipe(&mut self, host: Host) -> Result<bool, super::breach::Breach> {
        if !self.may_wound(host) {
            return Ok(false);
        }
        self.crash_for_a_while(host)?;
        self.empty(host);
        self.tally.count("disks that lost something");
        Ok(true)
    }

    pub(crate) fn empty(&mut self, host: Host) {
        let site = &mut self.sites[host];
        site.disk.wound(self.now);
        site.disk.image = site.blank();
        self.judge.replaced(host, true);
    }

    fn put_back(&mut self, host: Host) -> Result<bool, super::breach::Breach> {
        let site = &self.sites[host];
        let was_holder = |image: &Image| {
            let record = image.record.as_ref();
            record.is_none_or(|record| record.granted.2 == site.id)
        };
        let Some(earlier) = site.earlier.clone().filter(|it| !was_holder(it)) else {
            return Ok(false);
        };
        if !self.may_wound(host) || self.writer() == Some(host) || was_holder(&site.disk.image) {
            return Ok(false);
        }
        self.crash_for_a_while(host)?;
        let settled = self.judge.settled;
        let site = &mut self.sites[host];
        site.disk.wound(self.now);
        let promised = earlier.promised();
        site.disk.is_before_a_loss |= settled.is_some_and(|settled| promised < settled);
        site.disk.image = earlier;
        site.earlier = None;
        self.tally.count("disks that lost something");
        site.disk.is_wounded_unseen = true;
        self.judge.replaced(host, false);
        Ok(true)
    }

    /// Bits of a record rot, or the last write went over it: what is damaged is seen when it is read.
    fn rot(&mut self, host: Host, is_misdirected: bool) -> bool {
        let len = self.sites[host].disk.image.log.len();
        if len == 0 || !self.may_wound(host) {
            return false;
        }
        let index = usize::try_from(self.dice.below(len as u64)).expect("less than a length");
        let site = &mut self.sites[host];
        site.disk.wound(self.now);
        site.disk.image.log.damage(index);
        if is_misdirected {
            site.disk.image.log.damage(len - 1);
        }
        self.tally.count("disks that lost something");
        true
    }

    fn trouble_the_operator(
        &mut self,
        fault: Fault,
        host: Host,
    ) -> Result<bool, super::breach::Breach> {
        if !self.may_promote() {
            return Ok(false);
        }
        if fault == Fault::Promote {
            let is_forced = self.swarm.has_force && self.dice.one_in(3);
            let force = is_forced.then(|| "it is switched off".to_owned());
            self.promote(host, force)?;
            return Ok(true);
        }
        let Some(writer) = self.writer() else {
            return Ok(false);
        };
        let id = self.sites[host].id;
        let order = match fault {
            Fault::Switchover => Order::Switchover { to: id },
            Fault::Configure => {
                let config = self.other_config(writer, host);
                Order::Configure {
                    config,
                    fenced: Default::default(),
                }
            }
            _ => Order::Reattach { replica: id },
        };
        self.order(writer, order)?;
        Ok(true)
    }

    /// Another mode or policy, or a member more or less.
    fn other_config(&mut self, writer: Host, host: Host) -> Config {
        let mut config = self.sites[writer].record().config.clone();
        let id = self.sites[host].id;
        match self.dice.below(4) {
            0 if self.sites.len() > 2 && host != writer && config.members.contains(&id) => {
                config.members.remove(&id);
            }
            0 | 1 => {
                let all: BTreeSet<_> = self.sites.iter().map(|site| site.id).collect();
                let missing = all.difference(&config.members).next().copied();
                config.members.extend(missing);
            }
            2 => {
                let modes = [Mode::Async, Mode::Sync(1), Mode::All];
                config.mode = *self.dice.pick(&modes).expect("not empty");
            }
            _ => {
                config.policy = match config.policy {
                    Policy::Refuse => Policy::Wait,
                    Policy::Wait => Policy::Refuse,
                };
            }
        }
        config
    }
}
