//! The operator, and the coordinator of clusters that have one: who is told to take over, and when.

use std::collections::{BTreeMap, BTreeSet};

use replica::machine::{EpochId, Event, Node, NodeId, Order, Outcome, ReplicaStatus, Way};
use wal::Epoch;

use super::{
    agenda::{MILLI, Moment, SECOND},
    breach::Verdict,
    cluster::{Cluster, Happening},
    ending::Phase,
    net::Host,
    site::Site,
};

/// Without an acknowledged write for so long, somebody else is told to take over.
const UNSERVED: Moment = 4 * SECOND;

/// Who waits for the end of an order longer gives another one.
const PATIENCE: Moment = 10 * SECOND;

/// Without faults and without a primary for so long, an operator helps: starts processes again, and
/// after twice as long uses force.
const HOPELESS: Moment = 30 * SECOND;

#[derive(Debug, Default)]
pub(crate) struct Operator {
    asked: BTreeMap<u64, (Host, Moment)>,
    /// Those of them that accept a loss.
    forced: BTreeSet<u64>,
    /// Processes that cannot go on.
    pub(crate) to_restart: BTreeSet<Host>,
    wrote: Option<Host>,
    epochs: BTreeSet<Epoch>,
    /// Of the coordinator: who has it, and until when.
    lease: Option<(Host, Moment)>,
}

impl Operator {
    pub(crate) fn is_asked(&self, number: u64) -> bool {
        self.asked.contains_key(&number)
    }

    pub(crate) fn lost(&mut self, host: Host) {
        self.asked.retain(|_, (of, _)| *of != host);
        self.forced.retain(|number| self.asked.contains_key(number));
    }

    pub(crate) fn wrote(&mut self, host: Host, epoch: Epoch) {
        self.epochs.insert(epoch);
        self.wrote = Some(host);
    }
}

impl Cluster {
    pub(crate) fn order(&mut self, host: Host, order: Order) -> Verdict {
        if !self.sites[host].is_up() {
            return Ok(());
        }
        let number = self.next_number();
        self.tally.count(match &order {
            Order::Promote { force: None, .. } => "promotions ordered",
            Order::Promote { .. } => "promotions forced",
            Order::Succeed { .. } => "promotions under a lease ordered",
            Order::Switchover { .. } => "switchovers ordered",
            Order::Configure { .. } => "changes of configuration ordered",
            Order::Reattach { .. } => "reattachments ordered",
        });
        if matches!(&order, Order::Promote { force: Some(_), .. }) {
            self.judge.forgive();
            self.clients.forgive();
            self.operator.forced.insert(number);
        }
        self.operator.asked.insert(number, (host, self.now));
        let epoch_id = self.fresh_epoch();
        let event = Event::Ordered {
            number,
            order,
            epoch_id,
        };
        self.step(host, event)
    }

    pub(crate) fn order_ended(&mut self, host: Host, number: u64, outcome: &Outcome) -> Verdict {
        self.operator.asked.remove(&number);
        self.operator.forced.remove(&number);
        let _ = host;
        self.tally.count(match outcome {
            Outcome::Done => "orders carried out",
            Outcome::Unknown(_) => "orders of unknown end",
            _ => "orders refused",
        });
        if let Outcome::Refused(refusal) | Outcome::Unknown(refusal) = outcome {
            self.trace.text(format_args!("order {number}: {refusal:?}"));
        }
        Ok(())
    }

    pub(crate) fn operate(&mut self) -> Verdict {
        let after = self.dice.range(300, 1500) * MILLI;
        self.agenda.enter(self.now + after, Happening::Operator);
        self.see_who_is_whole();
        self.settle()?;
        self.reattach_who_waits()?;
        if self.is_hopeless() && self.has_namesake() && self.dice.one_in(4) {
            return self.start_the_holder_again();
        }
        if self.plot.is_some() {
            return Ok(());
        }
        let now = self.now;
        let mut asked = self.operator.asked.values();
        let is_waiting = asked.any(|(_, at)| now < *at + PATIENCE);
        let is_idle = self.clients.are_done && self.writer().is_some();
        let is_served = !self.clients.are_done && now < self.clients.last_acknowledged + UNSERVED;
        let is_served = is_served || is_idle;
        if is_served || is_waiting {
            return Ok(());
        }
        if !self.may_promote() {
            return if self.is_hopeless() && self.writer().is_none() {
                self.set_up_anew()
            } else {
                self.start_the_holder_again()
            };
        }
        if self.swarm.lease.is_some() {
            // Its lease is renewed as long as it is there, even where another one has the same number.
            return if self.is_hopeless() && self.dice.one_in(3) {
                self.start_the_holder_again()
            } else {
                Ok(())
            };
        }
        self.promote_somebody()
    }

    /// An operator who put back an earlier disk takes it for empty when nobody can be promoted because
    /// of it.
    fn set_up_anew(&mut self) -> Verdict {
        let mut hosts = 0..self.sites.len();
        let Some(host) = hosts.find(|host| self.sites[*host].disk.is_wounded_unseen) else {
            return Ok(());
        };
        self.tally.count("earlier disks set up anew");
        self.crash_and_start(host)?;
        self.empty(host);
        self.sites[host].disk.is_wounded_unseen = false;
        Ok(())
    }

    /// A member promised the number of the one that writes to another candidate: it follows nobody under
    /// that number.
    fn has_namesake(&self) -> bool {
        let members = self.members();
        let writer = self.writer().map(|host| self.sites[host].record().promised);
        writer.is_some_and(|(epoch, id, _)| {
            let mut sites = self.sites.iter().filter(|site| members.contains(&site.id));
            sites.any(|site| {
                let (own, own_id, _) = site.record().promised;
                own == epoch && own_id != id
            })
        })
    }

    /// Where nobody may be promoted, the one that holds the highest epoch goes on when it starts.
    fn start_the_holder_again(&mut self) -> Verdict {
        let is_wanted = self.writer().is_none() || self.is_hopeless();
        // One that writes and is not heard, because another one has its number, gets a number more.
        let chosen = self.writer().or_else(|| self.holder());
        match chosen.filter(|_| is_wanted && self.dice.one_in(4)) {
            Some(host) if self.sites[host].is_up() => self.crash_and_start(host),
            _ => Ok(()),
        }
    }

    /// What a replica has and the primary has not is kept until somebody says that it may go.
    fn reattach_who_waits(&mut self) -> Verdict {
        let Some(writer) = self.writer().filter(|_| self.is_hopeless()) else {
            return Ok(());
        };
        let Some(status) = self.sites[writer].node.as_ref().map(Node::status) else {
            return Ok(());
        };
        let does_wait = |replica: &&ReplicaStatus| {
            let session = replica.session.as_ref();
            let plan = session.and_then(|session| session.plan.as_ref());
            !replica.is_in_sync && plan.is_some_and(|plan| matches!(plan.way, Way::Ordered { .. }))
        };
        let waiting = status.replicas.iter().find(does_wait);
        match waiting.map(|replica| replica.replica) {
            Some(replica) => self.order(writer, Order::Reattach { replica }),
            None => Ok(()),
        }
    }

    fn promote_somebody(&mut self) -> Verdict {
        if self.is_hopeless() && self.swarm.lease.is_none() && self.dice.one_in(3) {
            return self.start_the_holder_again();
        }
        let members = self.members();
        let does_help = |host: &Host| {
            let site = &self.sites[*host];
            // With the faults gone an operator sees who is none, or has nothing.
            let is_fit = members.contains(&site.id) && !site.disk.image.is_amnesiac();
            site.is_up() && (is_fit || !self.phase.is_calm())
        };
        let up: Vec<Host> = (0..self.sites.len()).filter(does_help).collect();
        let best = up.iter().max_by_key(|host| {
            let image = &self.sites[**host].disk.image;
            (!image.is_amnesiac(), image.log.end())
        });
        let chosen = if self.dice.one_in(3) {
            self.dice.pick(&up)
        } else {
            best
        };
        let Some(host) = chosen.copied() else {
            return Ok(());
        };
        let is_chance = self.swarm.has_force && !self.phase.is_calm() && self.dice.one_in(4);
        let has_force = is_chance || self.is_beyond_help();
        let force = has_force.then(|| "the other one is unplugged".to_owned());
        self.promote(host, force)
    }

    /// So many disks lost something, or are being rebuilt, or that of one that may hold an epoch, that nobody
    /// can be made primary by evidence: an operator accepts the loss. Or a loss was accepted, and the node that
    /// went on ended before the others knew: they still have as committed what it went on without.
    fn is_beyond_help(&self) -> bool {
        let unsound = |host: &Host| self.sites[*host].disk.image.is_amnesiac();
        let members = self.members();
        let hosts = members.iter().filter_map(|id| self.hosts.get(id));
        let is_half = 2 * hosts.filter(|host| unsound(host)).count() >= members.len();
        let records = self.sites.iter().map(|site| site.record());
        let may_hold = records.flat_map(|record| record.holders.iter().chain([&record.granted.2]));
        let mut may_hold = may_hold.filter_map(|id| self.hosts.get(id));
        let is_unsettled = self.judge.is_unsettled;
        self.is_calm_for(2 * HOPELESS) && (is_half || is_unsettled || may_hold.any(unsound))
    }

    /// Of the newest configuration that anybody has.
    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        let configs = self.sites.iter().map(|site| &site.record().config);
        let newest = configs.max_by_key(|config| config.version);
        newest.map(|it| it.members.clone()).unwrap_or_default()
    }

    /// No member has a disk that is sound, and none can be made so by another: that is for a backup.
    pub(crate) fn is_lost(&self) -> bool {
        let members = self.members();
        let mut sites = self.sites.iter();
        let is_sound = |site: &Site| members.contains(&site.id) && !site.disk.image.is_amnesiac();
        self.is_calm_for(3 * HOPELESS) && !sites.any(is_sound)
    }

    /// Who was made primary last.
    fn holder(&self) -> Option<Host> {
        let granted = self.sites.iter().map(|site| site.record().granted);
        let (_, _, id) = granted.max()?;
        self.hosts.get(&id).copied()
    }

    fn is_hopeless(&self) -> bool {
        self.is_calm_for(HOPELESS)
    }

    fn is_calm_for(&self, time: Moment) -> bool {
        match self.phase {
            Phase::Calm { since, .. } | Phase::Quiet { since } => self.now > since + time,
            Phase::Safety | Phase::Done => false,
        }
    }

    pub(crate) fn promote(&mut self, host: Host, force: Option<String>) -> Verdict {
        let order = Order::Promote {
            node: self.sites[host].id,
            config: None,
            force,
        };
        self.order(host, order)
    }

    /// Not while a disk is older than anybody knows: what it promises then is not promised.
    pub(crate) fn may_promote(&self) -> bool {
        !self.sites.iter().any(|site| site.disk.is_wounded_unseen)
    }

    /// Wounds that healed: the disk verifies, and has all that is committed and promised.
    fn see_who_is_whole(&mut self) {
        let highest = self.sites.iter().map(|it| it.disk.image.promised()).max();
        let end = self.judge.sequence.end();
        let newest = self.judge.sequence.at(end).copied();
        let writers: Vec<Epoch> = self.sites.iter().filter_map(|site| site.primary).collect();
        for site in self.sites.iter_mut().filter(|site| site.disk.is_wounded) {
            let image = &site.disk.image;
            let has_all = image.log.at(end).is_some_and(|it| {
                newest.is_some_and(|mark| mark.position == it.entry.position && mark.id == it.id)
            });
            let is_whole = has_all
                && !image.is_amnesiac()
                && image.log.damaged().is_none()
                && Some(image.promised()) == highest
                && site.disk.has_what_it_had(&writers);
            if is_whole {
                site.disk.heal();
                self.tally
                    .count("disks that lost something and were made whole");
            }
        }
    }

    /// After an accepted loss: once all nodes are of one mind again, promises count again. Not while an
    /// order that accepts it is under way: until it ends they are of one mind about what it may cut.
    fn settle(&mut self) -> Verdict {
        if !self.judge.is_unsettled || !self.operator.forced.is_empty() {
            return Ok(());
        }
        let Some(writer) = self.writer() else {
            return Ok(());
        };
        let record = self.sites[writer].record().clone();
        // Who is no member any more meets nobody, and without faults nobody takes it in again.
        let is_in = |site: &Site| !self.phase.is_calm() || record.config.members.contains(&site.id);
        let is_agreed = self.sites.iter().filter(|site| is_in(site)).all(|site| {
            let image = &site.disk.image;
            let own = image.log.end();
            let known = self.sites[writer].disk.image.log.position(own.lsn);
            site.is_up()
                && !image.is_amnesiac()
                && site.record().promised == record.promised
                && site.disk.record_lane.is_empty()
                && known.is_some_and(|it| it == own)
        });
        // One that has just started knows of less than the others, whose older records may be gone.
        let hosts = (0..self.sites.len()).filter(|host| is_in(&self.sites[*host]));
        let told = hosts.map(|host| self.judge.committed_at(host)).max();
        let is_agreed = is_agreed && told <= Some(self.judge.committed_at(writer));
        if !is_agreed {
            return Ok(());
        }
        self.tally.count("times that all agreed again after a loss");
        let image = &self.sites[writer].disk.image;
        self.judge.settle(writer, image)
    }

    /// The one that writes, if its epoch is the highest anybody promised.
    pub(crate) fn writer(&self) -> Option<Host> {
        let highest = self.sites.iter().map(|it| it.disk.image.promised()).max()?;
        let mut writers = (0..self.sites.len()).filter(|host| {
            let site = &self.sites[*host];
            site.primary == Some(highest)
        });
        writers.next()
    }

    /// A coordinator grants a lease to who holds the epoch, and promotes another when it ended.
    pub(crate) fn coordinate(&mut self) -> Verdict {
        let Some(life) = self.swarm.lease else {
            return Ok(());
        };
        let after = self.dice.range(life / 6, life / 3);
        self.agenda.enter(self.now + after, Happening::Coordinator);
        let is_reached = self.phase.is_calm() || !self.dice.one_in(12);
        if let Some(writer) = self.writer().filter(|_| is_reached) {
            let has_other = self
                .operator
                .lease
                .is_some_and(|(host, until)| host != writer && until > self.now);
            if self.sites[writer].is_up() && !has_other {
                return self.lease(writer, life);
            }
        }
        let is_over = self
            .operator
            .lease
            .is_none_or(|(_, until)| until < self.now);
        if !is_over || !self.operator.asked.is_empty() || !self.may_promote() {
            return Ok(());
        }
        // Who is a holder by its own record needs no promotion: it goes on under its next start.
        let is_wanted = self.is_hopeless() && self.writer().is_none();
        let holder = self.holder().filter(|host| self.sites[*host].is_up());
        match holder.filter(|_| is_wanted && self.dice.one_in(3)) {
            Some(holder) => self.lease(holder, life),
            None => self.promote_somebody(),
        }
    }

    fn lease(&mut self, host: Host, life: Moment) -> Verdict {
        let until = self.now + life;
        self.operator.lease = Some((host, until));
        let site = &mut self.sites[host];
        site.lease_ends = Some(until);
        let epoch = site.primary.unwrap_or(site.record().granted.0);
        let mut ends = self.clock(host);
        ends.0 += std::time::Duration::from_micros(life);
        // Drawn without the dice, so that a seed is the same cluster with and without leases.
        let fresh = EpochId((u128::from(self.now) << 64) | host as u128);
        self.step(
            host,
            Event::Leased {
                epoch,
                until: ends,
                fresh,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use wal::Lsn;

    use super::*;
    use crate::sim::trace::Trace;

    /// One in which somebody writes, all are of one mind, and something is committed.
    fn agreed() -> Cluster {
        let mut cluster = Cluster::new(2, Trace::Off);
        cluster.swarm.faults.clear();
        while cluster.judge.sequence.end() < Lsn::new(5) || cluster.judge.is_unsettled {
            let (at, happening) = cluster.agenda.next().unwrap();
            cluster.now = at;
            cluster.happen(happening).unwrap();
            cluster.judge.forgive();
            cluster.settle().unwrap();
        }
        cluster
    }

    /// Nodes that are of one mind still are just after the order: what was committed then, and cut by the
    /// promotion, was taken for a loss that nobody had accepted.
    #[test]
    fn a_loss_is_not_over_while_the_order_that_accepts_it_is_under_way() {
        let mut cluster = agreed();
        let writer = cluster.writer().unwrap();
        let other = (writer + 1) % cluster.sites.len();
        cluster
            .promote(other, Some("it is gone".to_owned()))
            .unwrap();
        cluster.settle().unwrap();
        assert!(cluster.judge.is_unsettled);

        let number = cluster.number;
        cluster.order_ended(other, number, &Outcome::Done).unwrap();
        cluster.settle().unwrap();
        assert!(!cluster.judge.is_unsettled);
    }

    /// One that has just started does not know what is committed. What others take as committed then began
    /// behind the end of a sequence that was made of what it knew.
    #[test]
    fn a_loss_is_not_over_while_the_one_that_writes_knows_of_less_than_others() {
        let mut cluster = agreed();
        let writer = cluster.writer().unwrap();
        let committed = cluster.judge.committed_at(writer);
        cluster.judge.forgive();
        cluster.judge.started(writer, Lsn::ZERO);
        cluster.settle().unwrap();
        assert!(cluster.judge.is_unsettled);

        cluster.judge.started(writer, committed);
        cluster.settle().unwrap();
        assert!(!cluster.judge.is_unsettled);
    }
}
