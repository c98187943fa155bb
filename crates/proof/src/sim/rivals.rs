//! Two nodes that take the authority from each other while clients write, each cut off from the others
//! as soon as it has it: the double failover, and the only way to records of an earlier epoch on many
//! nodes that a later one does not have.

use super::{
    agenda::{MILLI, Moment, SECOND},
    breach::{Breach, Verdict},
    cluster::{Cluster, Happening},
    net::Host,
};

/// Until a promotion has come to its end, or to nothing.
const PATIENCE: Moment = 5 * SECOND;

/// Each has it twice.
const TURNS: u8 = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rivals {
    /// The one that is to have the authority next, or that gets it.
    next: Host,
    other: Host,
    turn: u8,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The other one is cut off with it, and writes what nobody else has.
    Alone,
    Promoted {
        until: Moment,
    },
    /// It feeds those whom it reaches.
    Feeds,
}

impl Cluster {
    pub(crate) fn begin_rivals(&mut self, host: Host) -> Result<bool, Breach> {
        let Some(writer) = self.writer() else {
            return Ok(false);
        };
        let is_possible = self.rivals.is_none() && self.swarm.lease.is_none();
        if writer == host || self.sites.len() < 3 || !is_possible {
            return Ok(false);
        }
        self.rivals = Some(Rivals {
            next: host,
            other: writer,
            turn: 0,
            stage: Stage::Alone,
        });
        self.isolate(writer);
        self.rivals_later(100, 1500);
        Ok(true)
    }

    fn rivals_later(&mut self, least: u64, most: u64) {
        let at = self.now + self.dice.range(least, most) * MILLI;
        self.agenda.enter(at, Happening::Rivals);
    }

    fn others(&self, host: Host) -> Vec<(Host, Host)> {
        let others = (0..self.sites.len()).filter(|other| *other != host);
        others
            .flat_map(|other| [(host, other), (other, host)])
            .collect()
    }

    pub(crate) fn isolate(&mut self, host: Host) {
        for (from, to) in self.others(host) {
            self.net.block(from, to);
        }
    }

    pub(crate) fn rejoin(&mut self, host: Host) {
        for (from, to) in self.others(host) {
            self.net.unblock(from, to);
        }
    }

    pub(crate) fn go_on_with_rivals(&mut self) -> Verdict {
        let Some(rivals) = self.rivals.filter(|_| !self.phase.is_calm()) else {
            self.rivals = None;
            return Ok(());
        };
        let Rivals {
            next,
            other,
            turn,
            stage,
        } = rivals;
        match stage {
            Stage::Alone => self.promote_rival(rivals),
            Stage::Promoted { until } => {
                if self.sites[next].primary.is_none() && self.now < until {
                    self.rivals_later(2, 20);
                    return Ok(());
                }
                if self.sites[next].primary.is_none() || turn == TURNS {
                    return self.end_rivals(rivals);
                }
                self.tally.count("rivals that got the authority");
                // Some at once, before anybody has a record of theirs.
                let stage = Stage::Feeds;
                self.rivals = Some(Rivals { stage, ..rivals });
                let most = *self.dice.pick(&[0, 100, 800]).expect("not empty");
                self.rivals_later(0, most);
                Ok(())
            }
            Stage::Feeds => {
                self.isolate(next);
                self.rivals = Some(Rivals {
                    next: other,
                    other: next,
                    turn: turn + 1,
                    stage: Stage::Alone,
                });
                self.rivals_later(20, 800);
                Ok(())
            }
        }
    }

    fn promote_rival(&mut self, rivals: Rivals) -> Verdict {
        let next = rivals.next;
        let stage = Stage::Promoted {
            until: self.now + PATIENCE,
        };
        self.rivals = Some(Rivals { stage, ..rivals });
        let apart = self.apart(rivals);
        self.rejoin(rivals.other);
        self.rejoin(next);
        self.isolate(apart);
        if self.dice.coin() {
            // What it begins with is elsewhere before it is here.
            self.sites[next].disk.log_slowness = self.dice.range(5, 60);
        }
        if self.dice.one_in(4) {
            self.crash_and_start(next)?;
        }
        self.rivals_later(2, 20);
        if self.may_promote() {
            self.promote(next, None)?;
        }
        Ok(())
    }

    /// Whoever has no part in a turn: the rival, or of three the one that had part in both.
    fn apart(&mut self, rivals: Rivals) -> Host {
        let Rivals { next, other, .. } = rivals;
        let third = (0..self.sites.len()).find(|host| ![next, other].contains(host));
        let is_third = self.sites.len() == 3 && rivals.turn > 0 && self.dice.coin();
        third.filter(|_| is_third).unwrap_or(other)
    }

    fn end_rivals(&mut self, rivals: Rivals) -> Verdict {
        self.rivals = None;
        for host in 0..self.sites.len() {
            self.rejoin(host);
        }
        for host in [rivals.next, rivals.other] {
            self.repair(host);
        }
        Ok(())
    }
}
