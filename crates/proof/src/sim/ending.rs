//! The end of a run: the faults stop, somebody writes again, every replica gets in sync, and what is
//! there is compared with everything that was told.

use super::{
    agenda::{MILLI, Moment, SECOND},
    breach::{Breach, Checker, Verdict},
    cluster::{Cluster, Happening},
    net::Host,
};

/// From the end of the faults until every replica is in sync. Some catch-ups that run out of their
/// budget at once, and then a rebuild, all with the smallest windows and the slowest disks drawn.
const LIVENESS_MAX: Moment = 300 * SECOND;

/// Clients go on for so long after the first write that succeeded.
const LIVELY: Moment = 3 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Safety,
    /// No more faults.
    Calm {
        since: Moment,
        served: Option<Moment>,
    },
    /// No more requests.
    Quiet {
        since: Moment,
    },
    Done,
}

impl Phase {
    pub(crate) fn is_calm(self) -> bool {
        self != Self::Safety
    }
}

impl Cluster {
    pub(crate) fn calm(&mut self) -> Verdict {
        self.phase = Phase::Calm {
            since: self.now,
            served: None,
        };
        self.trace.text(format_args!("the faults end"));
        self.net.calm();
        for host in 0..self.sites.len() {
            self.repair(host);
            self.sites[host].will_fail = false;
            self.sites[host].will_fail_record = false;
            self.resume(host)?;
            if self.sites[host].node.is_none() {
                self.start(host)?;
            }
        }
        self.agenda.enter(self.now, Happening::Look);
        Ok(())
    }

    pub(crate) fn look_for_the_end(&mut self) -> Verdict {
        self.agenda.enter(self.now + 200 * MILLI, Happening::Look);
        if self.is_lost() {
            self.tally.count("clusters in which no disk was left sound");
            self.phase = Phase::Done;
        }
        match self.phase {
            Phase::Calm { since, served } => {
                let acknowledged = self.clients.last_acknowledged;
                if acknowledged > since && !self.judge.is_unsettled {
                    let served = served.unwrap_or(acknowledged);
                    self.phase = Phase::Calm {
                        since,
                        served: Some(served),
                    };
                    if self.now > served + LIVELY {
                        self.clients.are_done = true;
                        self.phase = Phase::Quiet { since };
                    }
                }
                self.in_time(Checker::Liveness, since, "nobody acknowledges writes")
            }
            Phase::Quiet { since } => {
                // While a loss is not over the sequence ends before it: nothing to compare with.
                if self.is_converged() && !self.judge.is_unsettled {
                    if self.sites.iter().any(|site| site.disk.held() > 0) {
                        return self.in_time(Checker::Pins, since, "something is held");
                    }
                    self.tally.calm += self.now - since;
                    self.phase = Phase::Done;
                    return Ok(());
                }
                self.in_time(Checker::Liveness, since, "not every replica is in sync")
            }
            Phase::Safety | Phase::Done => Ok(()),
        }
    }

    fn in_time(&self, checker: Checker, since: Moment, complaint: &str) -> Verdict {
        if self.now < since + LIVENESS_MAX {
            return Ok(());
        }
        let mut words = format!("{complaint} {} s after the faults", LIVENESS_MAX / SECOND);
        for host in 0..self.sites.len() {
            words.push_str(&format!("\n  {}", self.told(host)));
        }
        Err(Breach::new(checker, words))
    }

    fn told(&self, host: Host) -> String {
        let site = &self.sites[host];
        let image = &site.disk.image;
        format!(
            "node {host}: up {}, primary {:?}, log to {}, applied {}, committed {}, promised {:?}, granted {:?}, amnesiac {}",
            site.is_up(),
            site.primary,
            image.log.end(),
            image.derived.applied(),
            self.judge.committed_at(host),
            site.record().promised,
            site.record().granted,
            image.is_amnesiac(),
        )
    }

    /// All members have the same log, durable, committed and applied, and nobody is owed an answer.
    fn is_converged(&self) -> bool {
        let Some(writer) = self.writer() else {
            return false;
        };
        let end = self.sites[writer].disk.image.log.end();
        let promised = &self.sites[writer].record().promised;
        let members = &self.sites[writer].record().config.members;
        let is_in_sync = |host: Host| {
            let site = &self.sites[host];
            let image = &site.disk.image;
            site.is_up()
                && image.log.end() == end
                && !image.is_amnesiac()
                && image.derived.applied() == end.lsn
                && self.judge.committed_at(host) == end.lsn
                && site.record().promised == *promised
                && site.disk.log_lane.is_empty()
                && site.disk.record_lane.is_empty()
                && site.disk.base_lane.is_empty()
        };
        let mut hosts = self.sites.iter().enumerate();
        let is_one = hosts.all(|(host, site)| !members.contains(&site.id) || is_in_sync(host));
        is_one && !self.clients.is_waiting()
    }

    pub(crate) fn judge_end(&mut self) -> Verdict {
        self.judge.requests.check(&self.judge.sequence)?;
        let Some(writer) = self.writer() else {
            return Ok(());
        };
        let record = self.sites[writer].record().clone();
        let end = self.sites[writer].disk.image.log.end();
        let state = self.judge.sequence.state(end.lsn);
        for (host, site) in self.sites.iter().enumerate() {
            let image = &site.disk.image;
            if record.config.members.contains(&site.id) && *image.derived.map() != state {
                let words = format!("node {host} has {:?}, not {state:?}", image.derived.map());
                return Err(Breach::new(Checker::State, words));
            }
            for stored in image.log.records() {
                self.judge.sequence.stored(&stored.entry, stored.id)?;
            }
        }
        Ok(())
    }
}
